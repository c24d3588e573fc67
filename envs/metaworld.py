"""Meta-World (Yu et al., 2019; metaworld 3.x) on its raw environment classes.

The package's own gymnasium ids are not used: they ignore the reset seed and draw goals with replacement. Goals come
from a file (`python -m mtorl.envs.metaworld PATH` writes it again), 50 for training and 50 held out for every task,
fixed by the task's name, whatever the benchmark.

Three speed-ups that do not change a bit of the results are on by default (`fast=True`) for the tested version of the
package: the contact test of grasping rewards reads MuJoCo's arrays instead of building Python objects, quaternions
are computed without scipy, and the observation is filled in place instead of split and stacked. All environments of
one task share one MuJoCo model (25 MB): the two fields that an episode's goal changes in it are swapped in before a
step.
"""

import importlib
import importlib.metadata
import math
import os
import pickle
import types
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.store import sha256
from mtorl.envs.base import Env, Split, Step, Suite, checked_action
from mtorl.interrupts import interrupts_later

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
GOALS = 50
SEEDS = {"train": 1, "heldout": 2}
"""The seeds with which the package's MT1 benchmark of each task drew the stored goals."""
HORIZON = 500
TESTED_VERSIONS = {"metaworld": "3.1.1", "mujoco": "3.3.0"}
"""The versions for which the speed-ups were shown to change nothing; with others they are off."""
GOAL_FILE = files("mtorl.envs.data") / "metaworld_goals.npz"
_GOAL_COORDINATES = slice(36, 39)


class MetaWorld(Suite):
    """Robot manipulation tasks with a shared arm, 39-dimensional observations and 4-dimensional actions.

    Args:
        benchmark: `MT10`, `MT25`, `MT50`, `ML45` (its 45 training tasks), or `MT1` together with one task.
        tasks: Use these tasks instead (names as in `door-open-v3`), in this order.
        goal_visible: Whether agents see the goal's position (always visible to scripted experts).
        fast: Use the speed-ups and share models where that is known to change nothing.
    """

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
        self._models: dict[str, _SharedModel] = {}

    def make(self, task: int) -> "MetaWorldEnv":
        """A new environment; the first one of a task loads its model (0.2 s), later ones share it if `fast`."""
        name = self.task_names[task]
        if not self.fast:
            return MetaWorldEnv(name, _SharedModel(name, fast=False))
        if name not in self._models:
            self._models[name] = _SharedModel(name, fast=True)
        return MetaWorldEnv(name, self._models[name])

    def goals(self, split: Split) -> range:
        """Training goals 0 to 49, held-out goals 50 to 99."""
        return range(GOALS) if split == "train" else range(GOALS, 2 * GOALS)

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """The package's scripted policy, clipped. It gets a copy: two of the policies edit their input."""
        _load_mujoco()
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
        return packages | {"goals_sha256": _goals_hash()}


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


class MetaWorldEnv(Env):
    """One task on the package's raw environment class.

    Args:
        name: Name of the task.
        shared: The task's MuJoCo model, shared by all its environments.
    """

    def __init__(self, name: str, shared: "_SharedModel") -> None:
        self.name = name
        self._goals = stored_goals()[name]
        self._shared = shared
        self.raw = shared.build()
        """The package's environment, for rendering and inspection."""
        self._fields = shared.snapshot()

    def reset(self, goal: int) -> NDArray[np.float32]:
        """Sets the goal and starts an episode."""
        from metaworld.types import Task

        if not 0 <= goal < len(self._goals):
            raise InputError(f"{self.name} has goals 0 to {len(self._goals) - 1}; found {goal}.")
        # The package takes goals as pickles. This one is made here and now; none is ever read from a file.
        content = {"env_cls": _stock_class(self.name), "rand_vec": self._goals[goal], "partially_observable": False}
        self._shared.lend(self, self._fields)
        self.raw.set_task(Task(env_name=self.name, data=pickle.dumps(content)))
        observation, _ = self.raw.reset()
        self._fields = self._shared.snapshot()
        return observation.astype(np.float32)

    def step(self, action: NDArray[np.float32]) -> Step:
        """One control step of 12.5 ms. The reward is the package's dense one, 0 to 10."""
        self._shared.lend(self, self._fields)
        observation, reward, _, _, info = self.raw.step(checked_action(action, self.name))
        return Step(observation.astype(np.float32), float(reward), bool(info["success"]), False)

    def close(self) -> None:
        """Frees the renderer, if there is one."""
        self.raw.close()


class _SharedModel:
    """The MuJoCo model of one task. Resets move bodies and sites in it; nothing else of it ever changes."""

    _FIELDS = ("body_pos", "site_pos")

    def __init__(self, name: str, fast: bool) -> None:
        self._model: Any = None
        self._pristine: tuple[NDArray[np.float64], ...] = ()
        self._borrower: object = None
        stock = _stock_class(name)
        self._class = stock
        if fast:
            changes = {"_initialize_simulation": lambda environment: self._load(environment)}
            self._class = type(stock.__name__, (stock,), changes | _fast_methods(stock))

    def build(self) -> Any:
        """A new environment of the package on this model."""
        self._borrower = None
        if self._model is not None:
            self._write(self._pristine)
        environment = self._class()
        self._model = environment.model
        return environment

    def snapshot(self) -> tuple[NDArray[np.float64], ...]:
        """The fields as the current borrower left them."""
        return tuple(getattr(self._model, name).copy() for name in self._FIELDS)

    def lend(self, borrower: object, fields: tuple[NDArray[np.float64], ...]) -> None:
        """Puts the borrower's fields into the model, unless they are in it."""
        if self._borrower is not borrower:
            self._write(fields)
            self._borrower = borrower

    def _write(self, fields: tuple[NDArray[np.float64], ...]) -> None:
        for name, values in zip(self._FIELDS, fields, strict=True):
            getattr(self._model, name)[:] = values

    def _load(self, environment: Any) -> tuple[Any, Any]:
        import mujoco

        if self._model is None:
            model = mujoco.MjModel.from_xml_path(environment.fullpath)
            model.vis.global_.offwidth = max(model.vis.global_.offwidth, environment.width)
            model.vis.global_.offheight = max(model.vis.global_.offheight, environment.height)
            self._model = model
            self._pristine = self.snapshot()
        return self._model, mujoco.MjData(self._model)


@cache
def _load_mujoco() -> None:
    """Imports MuJoCo also where `MUJOCO_GL` names windows that it cannot open: nothing is rendered here."""
    with interrupts_later():
        try:
            importlib.import_module("mujoco")
        except Exception:
            setting = os.environ.get("MUJOCO_GL")
            if setting is None:
                raise
            os.environ["MUJOCO_GL"] = "disable"
            try:
                importlib.import_module("mujoco")
            finally:
                os.environ["MUJOCO_GL"] = setting


def _stock_class(name: str) -> Any:
    _load_mujoco()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return ALL_V3_ENVIRONMENTS[name]


def _fast_methods(stock: Any) -> dict[str, Any]:
    """The three result-preserving replacements for one environment class."""
    quaternions = stock._get_quat_objects
    namespace = {**quaternions.__globals__, "Rotation": _Rotation}
    return {
        "touching_object": _touching_object,
        "_get_curr_obs_combined_no_goal": _combined_observation,
        "_get_quat_objects": types.FunctionType(
            quaternions.__code__, namespace, quaternions.__name__, quaternions.__defaults__, quaternions.__closure__
        ),
    }


def _touching_object(self: Any, object_geom_id: int) -> bool:
    """Whether both finger pads press on a geometry (the package's test, on arrays instead of contact objects)."""
    contact = self.data.contact
    pairs, addresses, forces = contact.geom.tolist(), contact.efc_address.tolist(), self.data.efc_force
    for pad in (self.data.geom("leftpad_geom").id, self.data.geom("rightpad_geom").id):
        force = 0.0
        for pair, address in zip(pairs, addresses, strict=True):
            if pad in pair and object_geom_id in pair:
                force += forces[address]
        if not force > 0:
            return False
    return True


def _combined_observation(self: Any) -> NDArray[np.float64]:
    """Hand, gripper opening, and position and quaternion of each object: the 18 numbers of one frame."""
    frame = np.zeros(4 + self._obs_obj_max_len)
    frame[:3] = self.get_endeff_pos()
    apart = self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos
    frame[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
    positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
    for number in range(len(positions) // 3):
        begin = 4 + 7 * number
        frame[begin : begin + 3] = positions[3 * number : 3 * number + 3]
        frame[begin + 3 : begin + 7] = quaternions[4 * number : 4 * number + 4]
    return frame


class _Rotation:
    """The one use that the package makes of scipy's Rotation: a rotation matrix to a quaternion (x, y, z, w)."""

    def __init__(self, quaternion: NDArray[np.float64]) -> None:
        self._quaternion = quaternion

    @staticmethod
    def from_matrix(matrix: NDArray[np.float64]) -> "_Rotation":
        (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
        trace = a + e + i
        largest = max(a, e, i, trace)
        # The order of these cases and of the sums is scipy's, so that the last bits agree.
        if a == largest:
            x, y, z, w = 1 - trace + 2 * a, d + b, g + c, h - f
        elif e == largest:
            x, y, z, w = d + b, 1 - trace + 2 * e, h + f, c - g
        elif i == largest:
            x, y, z, w = g + c, h + f, 1 - trace + 2 * i, d - b
        else:
            x, y, z, w = h - f, c - g, d - b, 1 + trace
        norm = math.sqrt(x * x + y * y + z * z + w * w)
        return _Rotation(np.array([x / norm, y / norm, z / norm, w / norm]))

    def as_quat(self) -> NDArray[np.float64]:
        return self._quaternion


@cache
def stored_goals() -> dict[str, NDArray[np.float64]]:
    """The package's random vectors for every task, `[100, 3 or 6]`: 50 for training, then 50 held out.

    The keys are all 50 tasks in the order of MT50.
    """
    with GOAL_FILE.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@cache
def _goals_hash() -> str:
    from importlib.resources import as_file

    with as_file(GOAL_FILE) as path:
        return sha256(path)


def draw_goals(name: str) -> NDArray[np.float64]:
    """Draws the 100 goals of one task anew (2 seconds), as `stored_goals` has them.

    Args:
        name: Name of the task.

    Returns:
        `[100, 3 or 6]`, float64.
    """
    _load_mujoco()
    import metaworld

    vectors = []
    for seed in SEEDS.values():
        for task in metaworld.MT1(name, seed=seed).train_tasks:
            vectors.append(pickle.loads(task.data)["rand_vec"])  # made in this process, a line above
    return np.array(vectors, dtype=np.float64)


def regenerate_goals(path: str) -> None:
    """Writes the goal file again: `python -m mtorl.envs.metaworld PATH`, about two minutes."""
    _load_mujoco()
    from metaworld.env_dict import MT50_V3

    np.savez_compressed(path, allow_pickle=False, **{name: draw_goals(name) for name in MT50_V3})


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 2:
        sys.exit("usage: python -m mtorl.envs.metaworld PATH.npz")
    regenerate_goals(sys.argv[1])
