from .base import Contents as Contents
from .base import Importer as Importer
from .minari import Minari as Minari
from .npz import Npz as Npz
