from .base import Contents as Contents
from .base import Importer as Importer
from .npz import Npz as Npz
