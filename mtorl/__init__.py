"""Multi-task offline reinforcement learning: one policy, many tasks, success per task.

    import mtorl

    run = mtorl.train("configs/bc_mt10.yaml", out="runs/bc")
    print(mtorl.evaluate(run).mean_success)
    mtorl.report([run])

Importing this package is cheap: what a name stands for is loaded when it is used. The parts live in `mtorl.datasets`,
`mtorl.envs`, `mtorl.agents` and `mtorl.trainers`.
"""

import os
import sys

import lazy_loader

from mtorl import earlier

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["InputError"]
earlier.install()

if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    # Idle OpenMP threads would spin and take the processors from whoever else computes, on busy machines from
    # training itself. The runtime reads this once, when torch loads it; worker processes inherit it.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


class InputError(ValueError):
    """What the user gave cannot be used: names what was expected, what was found and the remedy.

    The command line prints its message without a traceback and exits with code 2.
    """
