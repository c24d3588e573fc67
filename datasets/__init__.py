"""Recorded episodes: stores on disk, and windows drawn from them."""

if __name__ == "datasets":
    raise ImportError("import mtorl.datasets, not datasets: run `pip install -e .` in the repository first")

from mtorl.datasets.store import DataSpec, Episode, EpisodeStore, StoreWriter

__all__ = ["DataSpec", "Episode", "EpisodeStore", "StoreWriter"]
