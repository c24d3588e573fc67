"""Recorded episodes: stores on disk, and windows drawn from them."""

if __name__ == "datasets":
    raise ImportError("import mtorl.datasets, not datasets: run `pip install -e .` in the repository first")

from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter

__all__ = ["DataSpec", "Episode", "EpisodeStore", "StoreWriter"]
