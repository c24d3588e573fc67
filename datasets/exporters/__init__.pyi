from .base import Exporter as Exporter
from .flat_files import FlatFiles as FlatFiles
from .hdf5 import HDF5 as HDF5
from .minari import Minari as Minari
from .npz import Npz as Npz
