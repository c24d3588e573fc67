"""Recorded episodes: stores on disk, and windows drawn from them."""

if __name__ == "datasets":
    raise ImportError("import mtorl.datasets, not datasets: run `pip install -e .` in the repository first")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
