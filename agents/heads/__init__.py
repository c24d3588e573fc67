"""The last layers of policies. A new one is one file and one line in `__init__.pyi`.

A head is named with its options, as a network is: `--agent.head SmallTowers --agent.head.gamma 0.5`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
