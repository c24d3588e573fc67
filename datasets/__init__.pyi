from .spec import DataSpec as DataSpec
from .store import Episode as Episode
from .store import EpisodeStore as EpisodeStore
from .writer import StoreWriter as StoreWriter
