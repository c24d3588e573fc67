"""Multi-task offline reinforcement learning: one policy, many tasks, success per task.

Importing this package is cheap: nothing heavier than the standard library is loaded. The parts live in
`mtorl.datasets`, `mtorl.envs`, `mtorl.agents` and `mtorl.trainers`.
"""

__version__ = "0.1.0"


class InputError(ValueError):
    """What the user gave cannot be used: names what was expected, what was found and the remedy.

    The command line prints its message without a traceback and exits with code 2.
    """
