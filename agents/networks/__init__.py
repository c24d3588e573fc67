"""Feed-forward networks that a policy or a critic can be made of. A new one is one file and one line in `__init__.pyi`.

A network is named with its options, as an agent is: `--agent.network PaCo --agent.network.components 3`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
