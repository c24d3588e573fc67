"""Policies for many tasks. A new agent is one file here and one line in `__init__.pyi`."""

if __name__ == "agents":
    raise ImportError("import mtorl.agents, not agents: run `pip install -e .` in the repository first")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
