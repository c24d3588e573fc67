"""Episodes with pictures, played exactly as evaluations play them.

The whole block of an episode is played, though only some of its rows are drawn: another block changes last bits of
a network's output, and the simulator amplifies them. Drawing reads the simulator's state and changes nothing of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.episode import Demonstration
from mtorl.envs.base import Env, Step, Suite
from mtorl.envs.demonstrations import demonstrations
from mtorl.envs.evaluator import blocks_of, is_told, play_block, played_goals
from mtorl.envs.parcel import Parcel, lent, pack
from mtorl.envs.policies import Policy, check_positions
from mtorl.envs.protocol import Protocol
from mtorl.envs.rendering import close_painters
from mtorl.envs.results import Played
from mtorl.envs.workers import WorkerPool, cached_environments, cached_suite

PICTURES = 125
"""Pictures of an episode of the full length, unless it is said otherwise."""


@dataclass(frozen=True)
class Shots:
    """How pictures are taken.

    Attributes:
        size: Height and width in pixels.
        every: Steps between pictures; None: so many that the longest episode of a task has 125 of them. First
            success and end have one in any case.
    """

    size: tuple[int, int] = (240, 320)
    every: int | None = None

    def __post_init__(self) -> None:
        checks.within("[16, 4096]", height=self.size[0], width=self.size[1])
        checks.at_least(1, every=self.every)

    def steps(self, horizon: int) -> int:
        """Steps between pictures of an episode of that length at most."""
        return self.every or -(-horizon // PICTURES)


@dataclass(frozen=True)
class Take:
    """An episode with its pictures.

    Attributes:
        played: What an evaluation says of it.
        steps: After how many steps each picture was taken; the first one is that of the reset.
        pictures: `[F, H, W, 3]`, uint8.
        success_step: Number of the step that first succeeded; None: none did.
    """

    played: Played
    steps: tuple[int, ...]
    pictures: NDArray[np.uint8]
    success_step: int | None


class FilmedEnv(Env):
    """An environment that is drawn while it is played.

    Args:
        environment: The environment.
        size: Height and width of pictures.
        every: Steps between pictures.
    """

    def __init__(self, environment: Env, size: tuple[int, int], every: int) -> None:
        self._environment, self._size, self._every = environment, size, every
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._step = 0
        self.success_step: int | None = None

    def reset(self, goal: int) -> NDArray[np.float32]:
        """See `Env.reset`."""
        observation = self._environment.reset(goal)
        self._pictures, self._step, self.success_step = {}, 0, None
        self._shoot()
        return observation

    def step(self, action: NDArray[np.float32]) -> Step:
        """See `Env.step`."""
        found = self._environment.step(action)
        self._step += 1
        first = bool(found[2]) and self.success_step is None
        if first:
            self.success_step = self._step
        if first or self._step % self._every == 0:
            self._shoot()
        return found

    def take(self, played: Played) -> Take:
        """The episode, which is over."""
        self._shoot()
        return Take(played, tuple(self._pictures), np.stack([*self._pictures.values()]), self.success_step)

    def _shoot(self) -> None:
        if self._step in self._pictures:
            return
        found = np.asarray(self._environment.render(self._size))
        if found.shape != (*self._size, 3) or found.dtype != np.uint8:
            raise InputError(
                f"{type(self._environment).__name__}.render({self._size}) returned {list(found.shape)} of type "
                f"{found.dtype}; expected pixels {[*self._size, 3]} of type uint8."
            )
        self._pictures[self._step] = found


def film_episodes(
    policies: Sequence[Policy],
    suite: Suite,
    protocol: Protocol,
    wanted: Mapping[str, Sequence[int]],
    pool: WorkerPool,
    shots: Shots,
) -> Iterator[list[list[Take]]]:
    """Plays some episodes with pictures.

    Args:
        policies: What acts; each plays the same episodes.
        suite: The tasks that the policies are for.
        protocol: How evaluations play.
        wanted: Of tasks, the goals whose episodes are wanted.
        pool: Workers.
        shots: How pictures are taken.

    Yields:
        Of one task after the other: of each policy the episodes, in the order of the goals.

    Raises:
        InputError: The protocol does not play one of the goals.
    """
    suite = protocol.plays(suite)
    for policy in policies:
        if is_told(policy, protocol):
            check_positions(policy, suite.task_names)
    goals = played_goals(suite, protocol)
    for name, asked in wanted.items():
        others = sorted({*asked} - {*goals})
        if name not in suite.task_names or others:
            raise InputError(
                f"{name} has no goals {others} here; expected some of {goals[0]} to {goals[-1]} ({protocol.name})."
                if others
                else f"unknown task {name!r}; the policy plays {list(suite.task_names)}."
            )
    shown = [demonstrations(protocol, suite, getattr(policy, "demonstration_steps", 1)) for policy in policies]
    with ExitStack() as stack:
        packed = [stack.enter_context(lent(pack(policy), pool)) for policy in policies]
        for name, asked in wanted.items():
            task = suite.task_names.index(name)
            jobs = [
                (number, _Block(parcel, suite, task, row, protocol, shown[number][task], shots, tuple(asked)))
                for number, parcel in enumerate(packed)
                for row in blocks_of(goals, protocol.block)
                if {*row} & {*asked}
            ]
            found: dict[tuple[int, int], Take] = {}
            for number, takes in pool.run(_film_block, jobs):
                found |= {(number, take.played.goal): take for take in takes}
            yield [[found[number, goal] for goal in asked] for number in range(len(policies))]


class _Block(NamedTuple):
    """A block of episodes of one task, some of which are wanted."""

    parcel: Parcel
    suite: Suite
    task: int
    goals: list[int]
    protocol: Protocol
    demonstration: Demonstration | None
    shots: Shots
    wanted: tuple[int, ...]


def _film_block(number: int, block: _Block) -> tuple[int, list[Take]]:
    """Plays one block as `evaluator.play_block` does; returns the policy's number, and the wanted episodes."""
    suite, task, goals, shots = cached_suite(block.suite), block.task, block.goals, block.shots
    every = shots.steps(suite.of(task).horizon)
    environments = [
        FilmedEnv(it, shots.size, every) if goal in block.wanted else it
        for it, goal in zip(cached_environments(suite, task, len(goals)), goals, strict=True)
    ]
    policy = block.parcel.unpack()
    played = play_block(policy, suite, environments, task, goals, block.protocol, block.demonstration)
    pairs = zip(environments, played, strict=True)
    takes = [it.take(episode) for it, episode in pairs if isinstance(it, FilmedEnv)]
    close_painters()  # each holds the textures of its model
    return number, takes
