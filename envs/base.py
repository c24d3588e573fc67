"""Suites of tasks, their environments, and what a policy is told when it plays them."""

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, earlier
from mtorl.datasets.episode import Demonstration
from mtorl.datasets.store import EpisodeStore
from mtorl.schema import Document

Split = Literal["train", "heldout"]
ContextMode = Literal["exact", "anchored"]


class Step(NamedTuple):
    """What one step of an environment gives."""

    observation: NDArray[np.float32]
    """`[O]`, the successor."""
    reward: float
    success: bool
    terminated: bool


class Env(ABC):
    """One task. The environment never ends an episode at the time limit: whoever plays it counts the steps."""

    @abstractmethod
    def reset(self, goal: int) -> NDArray[np.float32]:
        """Starts an episode with the goal of that index; returns the first observation `[O]`."""

    @abstractmethod
    def step(self, action: NDArray[np.float32]) -> Step:
        """Takes one step with an action `[A]`, clipped to [-1, 1]. A NaN raises InputError."""

    def render(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """A picture `[H, W, 3]` of the present state, for films.

        Args:
            size: H and W in pixels.

        Raises:
            InputError: The suite has no pictures, or nothing can be drawn on this machine.
        """
        raise InputError(
            f"{type(self).__name__} has no pictures; expected an environment with a method `render(size)`, which "
            "returns pixels [H, W, 3] of type uint8."
        )

    def close(self) -> None:  # noqa: B027 (nothing to do for most suites)
        """Frees the simulator."""


class Suite(ABC):
    """Tasks that share one observation and one action space.

    Attributes:
        task_names: In the suite's order, which is the order of every table.
        observation_dim: O.
        action_dim: A.
        horizon: Steps of an episode; of the longest, where tasks differ.
        goal_visible: Whether agents see the goal's part of the observation; scripted experts always do.
        arguments: The constructor's arguments, to build it again. One that is a dict with a value for every task, by
            its name, holds for that task alone: data of suites that differ in such values are used together.
        returns_only: Names of the tasks without a success flag; they are judged by their returns.
        own_dimensions: Observation and action dimension of each task, beyond which its observations are zero and its
            actions are not looked at; None: all have O and A.
        playable: Whether there are environments; otherwise its tasks are known from data alone.
    """

    task_names: tuple[str, ...]
    observation_dim: int
    action_dim: int
    horizon: int
    goal_visible: bool
    arguments: dict[str, Any]
    returns_only: tuple[str, ...] = ()
    own_dimensions: tuple[tuple[int, int], ...] | None = None
    playable: bool = True

    @abstractmethod
    def make(self, task: int) -> Env:
        """A new environment of that task."""

    @abstractmethod
    def goals(self, split: Split) -> range:
        """Indices of the training goals or of the held-out ones; the same number for every task."""

    @abstractmethod
    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """A function from the full observation `[O]` to an action `[A]` in [-1, 1].

        Raises:
            InputError: The suite has no experts.
        """

    @abstractmethod
    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """A copy of observations `[..., O]` with the goal's part set to zero."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the simulator and fingerprint of the goals: what makes two results comparable."""

    def of(self, task: int) -> "Suite":
        """The suite as it is in one task: its horizon, what agents see, how it holds still. Mostly itself."""
        return self

    def dimensions_of(self, task: int) -> tuple[int, int]:
        """Observation and action dimension of a task."""
        return self.own_dimensions[task] if self.own_dimensions else (self.observation_dim, self.action_dim)

    def hold(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action that stands still after `action` `[A]`: zero, unless a suite says otherwise."""
        return np.zeros_like(action)

    def observe(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """What an agent sees of full observations `[..., O]`."""
        return observations if self.goal_visible else self.hide_goal(observations)

    def subset(self, task_names: Sequence[str]) -> "Suite":
        """The same suite with only these tasks, in the suite's order."""
        unknown = [name for name in task_names if name not in self.task_names]
        if unknown:
            raise InputError(f"unknown tasks {unknown}; the suite has {list(self.task_names)}.")
        chosen = [name for name in self.task_names if name in task_names]
        return _construct(type(self), {**self.arguments, "tasks": chosen}, chosen)

    def return_bounds(self, task: int) -> tuple[float, float] | None:
        """The returns that count as 0 and as 100 in normalised scores of that task; None: none are agreed upon."""
        return None

    def unseen(self) -> "Suite":
        """Tasks that belong to none of these: where a policy for this suite meets tasks that it was not trained on.

        Raises:
            InputError: The suite has none.
        """
        raise InputError(f"{type(self).__name__} has no further tasks; expected a suite that says which are unseen.")

    def changed(self, **arguments: Any) -> "Suite":
        """The same suite with other constructor arguments."""
        names = None if {"tasks", "benchmark"} & {*arguments} else self.task_names
        return _construct(type(self), {**self.arguments, **arguments}, names)

    def describe(self) -> Document:
        """How to build it again: `class_path` and `init_args`; the inverse is `build_suite`.

        Raises:
            InputError: Others could not import the class by any name.
        """
        kind = type(self)
        module = script_name() if kind.__module__ == "__main__" else kind.__module__
        if not module or "<" in kind.__qualname__:
            raise InputError(
                f"the suite {kind.__qualname__} is defined where nobody else can import it from (in an interactive "
                "session or a function), but data and reports name its class. Move it to the top of a module, a file "
                f"such as my_suites.py, and import it from there: it is then named my_suites.{kind.__name__}."
            )
        return {"class_path": f"{module}.{kind.__qualname__}", "init_args": self.arguments}

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers get the class and its arguments, by value if the class is in a script."""
        return _construct, (type(self), self.arguments)


def script_name() -> str | None:
    """The name under which others import the program that is running; None if it is no file."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    name = spec.name if spec else Path(file).stem if file else ""
    return name if all(part.isidentifier() for part in name.split(".")) else None


def build_suite(description: Document) -> Suite:
    """Builds a suite from what `Suite.describe` gave.

    Raises:
        InputError: The class does not exist or is no suite.
    """
    module, _, name = str(description.get("class_path")).rpartition(".")
    try:
        main = sys.modules["__main__"]
        kind = getattr(main if module == script_name() else importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the module may be a script
        raise InputError(
            f"the suite {description.get('class_path')!r} cannot be imported: {error}. Install the package it lives "
            "in, or start from the folder of its file."
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, Suite)):
        raise InputError(f"{description['class_path']} is not a suite of environments.")
    return _construct(kind, description.get("init_args", {}))


def build_again(suite: Suite) -> Suite:
    """The suite as its `arguments` build it, as workers do.

    Raises:
        InputError: It has other tasks then, or another order of them.
    """
    return _construct(type(suite), suite.arguments, suite.task_names)


def check_recorded(store: EpisodeStore) -> None:
    """Raises InputError unless a data set's suite can be built, and has its tasks and dimensions."""
    suite = build_suite(store.manifest["suite"])
    unknown = [name for name in store.task_names if name not in suite.task_names]
    if unknown:
        raise InputError(
            f"data set {store.path}: its suite {type(suite).__name__} has no tasks {unknown}; it has "
            f"{list(suite.task_names)}. The manifest was changed, or another version of the suite is installed."
        )
    for name in ("observation_dim", "action_dim"):
        stated, found = store.manifest[name], getattr(suite, name)
        if stated != found:
            raise InputError(
                f"data set {store.path}: its manifest.json says {stated} for {name}; its suite {type(suite).__name__} "
                f"has {found}. Collect the data again."
            )


def _construct(kind: type[Suite], arguments: Document, task_names: Sequence[str] | None = None) -> Suite:
    """Builds a suite; one whose tasks, in their order, are not `task_names` is refused."""
    try:
        suite = kind(**arguments)
    except TypeError as error:
        raise InputError(
            f"{kind.__name__} cannot be built from {arguments}: {error}. Expected a constructor that takes `tasks` (a "
            "list of task names), `goal_visible`, and everything else that is in `arguments`."
        ) from None
    if task_names is not None and tuple(suite.task_names) != tuple(task_names):
        raise InputError(
            f"{kind.__name__} has the tasks {list(suite.task_names)} when it is built from {arguments}; expected "
            f"{list(task_names)} in this order, because a task is known by its position. Mend the constructor, or what "
            "it keeps in `arguments`."
        )
    return suite


@dataclass(frozen=True)
class RolloutContext:
    """What a policy is told when a block of N episodes begins.

    Attributes:
        tasks: int64 `[N]`, each row's task as a position in the suite's task names; None if hidden.
        goals: int64 `[N]`, goal index of each row: part of the rows' random streams, never shown to learned agents.
        seed: Seed of the evaluation.
        demonstration: A recorded episode of the rows' one task, if policies are shown one.
        context: How agents with a window of past steps move it on; see `envs.protocol.Protocol`.
        episodes: int64 `[N]`, number of each row's episode within its task where episodes are recorded, which have a
            goal again and again: part of the rows' random streams. None: each goal is played once.
        dimensions: Observation and action dimension of the task, beyond which there is padding; None: nothing is known
            of them.
    """

    tasks: NDArray[np.int64] | None
    goals: NDArray[np.int64]
    seed: int = 0
    demonstration: Demonstration | None = None
    context: ContextMode = "exact"
    episodes: NDArray[np.int64] | None = None
    dimensions: tuple[int, int] | None = None


def checked_action(action: NDArray[np.floating], task: str) -> NDArray[np.float32]:
    """An action clipped to [-1, 1].

    Raises:
        InputError: It holds NaN. Simulators accept it silently and play nonsense from there on.
    """
    action = np.asarray(action, dtype=np.float32)
    if action.ndim == 1 and all(-1 <= value <= 1 for value in action.tolist()):
        return action.copy()  # np.isnan and np.clip take several times as long for so few
    if np.isnan(action).any():
        raise InputError(f"{task}: the action {action.tolist()} holds NaN; expected numbers in [-1, 1].")
    return np.clip(action, -1.0, 1.0)


__getattr__ = earlier.lookup(__name__)
