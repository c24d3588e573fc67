"""Suites of tasks, collection of episodes and evaluation."""

if __name__ == "envs":
    raise ImportError("import mtorl.envs, not envs: run `pip install -e .` in the repository first")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
