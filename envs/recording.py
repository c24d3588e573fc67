"""Plays episodes and keeps them: of experts one by one, of other policies in blocks as evaluations play them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.card import Card
from mtorl.datasets.episode import Demonstration, Episode
from mtorl.envs.base import Env, RolloutContext, Split, Step, Suite, checked_action
from mtorl.envs.checked import CheckedEnv
from mtorl.envs.evaluator import play_block
from mtorl.envs.parcel import Parcel
from mtorl.envs.policies import Policy
from mtorl.envs.protocol import Protocol
from mtorl.envs.recipes import Disturbed, Recipe, behaviour


@dataclass(frozen=True)
class Recording:
    """What is recorded of every task; see `mtorl.envs.collect.collect`.

    Attributes:
        recipe: How the scripted expert is disturbed; None: another policy acts.
        episodes: Episodes of every task.
        after_success: Steps of an episode after its first success.
        hold: Hold still after the first success.
        seed: Derives every episode's random stream.
        split: On which goals.
    """

    recipe: Recipe | None
    episodes: int
    after_success: int
    hold: bool
    seed: int
    split: Split

    def stream(self, task: str, number: int) -> list[int]:
        """What the random stream of an episode is derived from."""
        return [self.seed, number, *task.encode(), *([1] if self.split == "heldout" else [])]


@dataclass(frozen=True)
class BehaviorPolicy:
    """A policy whose episodes are recorded, in place of the scripted experts.

    Attributes:
        policy: What acts.
        suite: Where; by what `mtorl collect` is told of it, or where it was trained.
        name: What data sets call it: the folder of a run, or the import path of a class.
        noise: Standard deviation of Gaussian noise on every dimension of its actions.
        protocol: How it is played: whether it is told its task, what it is shown, how its context moves on.
        source: What else data sets hold of where it is from: checkpoint, step, sha256.
    """

    policy: Policy
    suite: Suite
    name: str
    noise: float = 0.0
    protocol: Protocol = field(default_factory=Protocol)
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.within("[0, inf)", noise=self.noise)

    def plain(self) -> dict[str, Any]:
        """What data sets hold of it."""
        how = {name: getattr(self.protocol, name) for name in ("task_identity", "demonstrations", "context")}
        return {"policy": self.name, **self.source, "noise": self.noise, **how}

    def card(self) -> Card:
        """What the card of its data says."""
        known = [f"{key} {value}" for key, value in self.source.items() if value is not None]
        who = f"{self.name} ({', '.join(known)})" if known else self.name
        noise = f"Gaussian noise of standard deviation {self.noise:g}" if self.noise else "no noise"
        description = getattr(self.policy, "description", None)
        return Card(
            f"Collected here: episodes of the policy {who}, with {noise} on its actions.",
            notes=(str(description),) if description else (),
        )


class Acting(NamedTuple):
    """A behavior policy for a worker."""

    parcel: Parcel
    noise: float
    protocol: Protocol
    demonstration: Demonstration | None


class Tape(Env):
    """An environment that keeps what happens in one episode, and ends it as the recording says.

    Args:
        environment: The environment.
        suite: Its suite.
        task: Position of its task.
        recording: What is recorded.
    """

    def __init__(self, environment: Env, suite: Suite, task: int, recording: Recording) -> None:
        self._played, self._suite, self._recording = CheckedEnv(environment, suite, task), suite.of(task), recording
        self._task = suite.task_names[task]
        self._goal, self._since_success = -1, 0  # steps since the first success, counting it; 0 before
        self._observations: list[NDArray[np.float32]] = []
        self._steps: list[tuple[NDArray[np.float32], float, bool, bool]] = []

    @property
    def succeeded(self) -> bool:
        """Whether the episode has had a success."""
        return self._since_success > 0

    def reset(self, goal: int) -> NDArray[np.float32]:
        """See `Env.reset`."""
        full = self._played.reset(goal)
        self._goal, self._since_success, self._steps = goal, 0, []
        self._observations = [self._suite.observe(full.copy())]
        return full

    def step(self, action: NDArray[np.float32]) -> Step:
        """See `Env.step`; also says `terminated` where only the recording ends."""
        action = checked_action(action, self._task)
        full, reward, success, over = self._played.step(action.copy())
        self._observations.append(self._suite.observe(full.copy()))
        self._steps.append((action, reward, success, over))
        self._since_success += success or self.succeeded
        return Step(full, reward, success, over or self._since_success > self._recording.after_success)

    def episode(self, noise: float, random: float) -> Episode:
        """What was kept."""
        actions, rewards, successes, terminated = zip(*self._steps, strict=True)
        truncated = np.zeros(len(self._steps), dtype=bool)
        truncated[-1] = not terminated[-1]
        return Episode(
            task=self._task,
            observations=np.stack(self._observations).astype(np.float32),
            actions=np.stack(actions),
            rewards=np.array(rewards, dtype=np.float32),
            success=np.array(successes),
            terminated=np.array(terminated),
            truncated=truncated,
            goal=self._goal,
            seed=self._recording.seed,
            noise=noise,
            random=random,
        )


def record(suite: Suite, environment: Env, task: int, number: int, recording: Recording) -> Episode:
    """Plays one episode of a scripted expert.

    Args:
        suite: The suite.
        environment: An environment of the task.
        task: Position of the task in the suite.
        number: Number of the episode within its task.
        recording: What is recorded.
    """
    name = suite.task_names[task]
    assert recording.recipe is not None
    kind = behaviour(recording.recipe, number, recording.episodes)
    actor = Disturbed(suite, task, kind, np.random.default_rng(recording.stream(name, number)))
    tape = Tape(environment, suite, task, recording)
    full = tape.reset(_goal(suite, recording, number))
    action = np.zeros(suite.action_dim, dtype=np.float32)
    for step in range(suite.of(task).horizon):
        done = recording.hold and tape.succeeded
        action = _experts_action(actor.act(step, full, done, action), name, suite.action_dim)
        full, _, _, over = tape.step(action)
        if over:
            break
    return tape.episode(kind.noise, kind.random)


def record_block(
    suite: Suite, environments: Sequence[Env], task: int, numbers: range, recording: Recording, acting: Acting
) -> list[Episode]:
    """Plays a few episodes of a policy side by side.

    Args:
        suite: The suite.
        environments: One per episode.
        task: Position of the task.
        numbers: Of the episodes within their task.
        recording: What is recorded.
        acting: What acts, and how.
    """
    tapes = [Tape(environment, suite, task, recording) for environment in environments]
    streams = [[*recording.stream(suite.task_names[task], number), 2] for number in numbers]
    disturbed = _Noisy(acting.parcel.unpack(), acting.noise, numbers, streams)
    goals = [_goal(suite, recording, number) for number in numbers]
    play_block(disturbed, suite, tapes, task, goals, acting.protocol, acting.demonstration)
    return [tape.episode(acting.noise, 0.0) for tape in tapes]


class _Noisy:
    """A policy with noise on its actions, for one block.

    Args:
        policy: The policy.
        noise: Standard deviation.
        numbers: Of the rows' episodes.
        streams: What the noise of each of them is derived from.
    """

    def __init__(self, policy: Policy, noise: float, numbers: range, streams: Sequence[Sequence[int]]) -> None:
        self._policy, self._noise, self._numbers = policy, noise, numbers
        self._draws = [np.random.default_rng(stream) for stream in streams]
        self.privileged = getattr(policy, "privileged", False)
        self.knows_task = getattr(policy, "knows_task", False)

    def reset(self, context: RolloutContext) -> None:
        """Begins the block; rows that fill it up are as the last."""
        numbers = np.minimum(np.arange(len(context.goals)), len(self._numbers) - 1) + self._numbers.start
        self._policy.reset(replace(context, episodes=numbers))

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """The policy's actions with noise, of which it is told."""
        actions = self._policy.act(observations, rewards)
        if not self._noise or np.ndim(actions) != 2:  # whoever plays refuses another shape
            return actions
        disturbed = np.array(actions, dtype=np.float32)
        for row, draw in enumerate(self._draws[: len(disturbed)]):
            disturbed[row] += self._noise * draw.standard_normal(disturbed.shape[1])
        disturbed = np.clip(disturbed, -1, 1)
        if hasattr(self._policy, "acted"):
            self._policy.acted(disturbed.copy())
        return disturbed


def _goal(suite: Suite, recording: Recording, number: int) -> int:
    goals = suite.goals(recording.split)
    return goals[number % len(goals)]


def _experts_action(action: NDArray[Any], task: str, size: int) -> NDArray[np.float32]:
    action = checked_action(action, task)
    if action.shape != (size,):
        raise InputError(f"{task}: the expert's action has shape {list(action.shape)}; expected {size}.")
    return action
