"""Meta-World (Yu et al., 2019; metaworld 3.x) on its raw environment classes.

The package's own gymnasium ids are not used: they ignore the reset seed and draw goals with replacement.
"""

import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.base import Split, Suite
from mtorl.envs.metaworld.environment import MetaWorldEnv, SharedModel
from mtorl.envs.metaworld.fast import TESTED_VERSIONS
from mtorl.envs.metaworld.goals import GOALS, goals_hash, stored_goals
from mtorl.envs.metaworld.simulator import load_mujoco

MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
MT25 = (
    *MT10,
    "coffee-pull-v3",
    "pick-out-of-hole-v3",
    "disassemble-v3",
    "pick-place-wall-v3",
    "basketball-v3",
    "stick-pull-v3",
    "button-press-wall-v3",
    "faucet-open-v3",
    "door-lock-v3",
    "lever-pull-v3",
    "sweep-into-v3",
    "faucet-close-v3",
    "coffee-button-v3",
    "button-press-topdown-wall-v3",
    "dial-turn-v3",
)
ML45_TEST = ("bin-picking-v3", "box-close-v3", "hand-insert-v3", "door-lock-v3", "door-unlock-v3")
"""The tasks that the package's benchmark ML45 keeps for testing; its other 45 are for training."""
HORIZON = 500
_GOAL_COORDINATES = slice(36, 39)


class MetaWorld(Suite):
    """Robot manipulation tasks with a shared arm, 39-dimensional observations and 4-dimensional actions.

    Args:
        benchmark: `MT10`, `MT25`, `MT50`, `ML45` (its 45 training tasks), or `MT1` together with one task.
        tasks: Use these tasks instead (names as in `door-open-v3`), in this order.
        goal_visible: Whether agents see the goal's position (always visible to scripted experts).
        fast: Use the speed-ups and share models where that is known to change nothing.
    """

    __module__ = "mtorl.envs.metaworld"  # data, reports and names of reference files hold this path

    def __init__(
        self,
        benchmark: str = "MT10",
        tasks: Sequence[str] | None = None,
        goal_visible: bool = True,
        fast: bool = True,
    ) -> None:
        tasks = [tasks] if isinstance(tasks, str) else tasks
        self.task_names = _select_tasks(benchmark, tasks)
        self.observation_dim, self.action_dim, self.horizon = 39, 4, HORIZON
        self.goal_visible = goal_visible
        tested = all(importlib.metadata.version(name) == version for name, version in TESTED_VERSIONS.items())
        self.fast = fast and tested
        if fast and not tested:
            warnings.warn(
                f"the simulator's speed-ups are off: they were tested with {TESTED_VERSIONS}. Install these versions, "
                "or say fast=False.",
                stacklevel=2,
            )
        chosen = {"benchmark": benchmark} if tasks is None else {"tasks": list(tasks)}
        self.arguments = {**chosen, "goal_visible": goal_visible, "fast": fast}
        self._models: dict[str, SharedModel] = {}

    def make(self, task: int) -> "MetaWorldEnv":
        """A new environment; the first one of a task loads its model (0.2 s), later ones share it if `fast`."""
        name = self.task_names[task]
        if not self.fast:
            return MetaWorldEnv(name, SharedModel(name, fast=False))
        if name not in self._models:
            self._models[name] = SharedModel(name, fast=True)
        return MetaWorldEnv(name, self._models[name])

    def goals(self, split: Split) -> range:
        """Training goals 0 to 49, held-out goals 50 to 99."""
        return range(GOALS) if split == "train" else range(GOALS, 2 * GOALS)

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """The package's scripted policy, clipped. It gets a copy: two of the policies edit their input."""
        load_mujoco()
        from metaworld.policies import ENV_POLICY_MAP

        warnings.filterwarnings("ignore", message="Constant.* may be too high", category=UserWarning)
        kind: Any = ENV_POLICY_MAP[self.task_names[task]]
        policy = kind()
        return lambda observation: np.clip(policy.get_action(observation.copy()), -1, 1).astype(np.float32)

    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sets the goal's three coordinates to zero, as the package does for its ML benchmarks."""
        hidden = observations.copy()
        hidden[..., _GOAL_COORDINATES] = 0
        return hidden

    def hold(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """No displacement, the gripper's effort as it was: an object that is held stays held."""
        return np.array([0, 0, 0, action[3]], dtype=np.float32)

    def unseen(self) -> "MetaWorld":
        """The five test tasks of ML45."""
        known = [name for name in ML45_TEST if name in self.task_names]
        if known:
            raise InputError(
                f"{', '.join(known)} are among the five tasks that are to be unseen; expected a policy trained on "
                "others: collect and train with --suite.benchmark ML45, or on MT10."
            )
        return MetaWorld(tasks=ML45_TEST, goal_visible=self.goal_visible, fast=self.arguments["fast"])

    def versions(self) -> dict[str, str]:
        """Versions of metaworld, mujoco and gymnasium, and the hash of the goals."""
        packages = {name: importlib.metadata.version(name) for name in ("metaworld", "mujoco", "gymnasium")}
        return packages | {"goals_sha256": goals_hash()}


def _select_tasks(benchmark: str, tasks: Sequence[str] | None) -> tuple[str, ...]:
    everything = tuple(stored_goals())
    others = tuple(name for name in everything if name not in ML45_TEST)
    benchmarks = {"MT10": MT10, "MT25": MT25, "MT50": everything, "ML45": others}
    if benchmark not in (*benchmarks, "MT1"):
        raise InputError(f"unknown Meta-World benchmark {benchmark!r}; expected MT1, MT10, MT25, MT50 or ML45.")
    if tasks is not None:
        if not tasks:
            raise InputError(f"the list of tasks is empty; expected some of {', '.join(everything)}.")
        if benchmark == "MT1" and len(tasks) != 1:
            raise InputError(f"the benchmark MT1 has one task; found {list(tasks)}. Leave the benchmark out.")
        for name in tasks:
            if name not in everything:
                import difflib

                close = difflib.get_close_matches(name, everything, 3, 0.3)
                raise InputError(f"unknown Meta-World task {name!r}; did you mean {' or '.join(close) or 'reach-v3'}?")
        if len(set(tasks)) < len(tasks):
            raise InputError(f"a task is listed twice in {list(tasks)}; expected each once.")
        return tuple(tasks)
    if benchmark == "MT1":
        raise InputError("the benchmark MT1 needs its task: add --suite.tasks '[reach-v3]'.")
    return benchmarks[benchmark]
