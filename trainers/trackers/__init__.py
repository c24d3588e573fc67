"""Where the numbers of a run go besides its folder. A new one is one file here and one line in `__init__.pyi`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
