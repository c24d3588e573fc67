"""Plays a policy in every task of a suite and reports success per task.

Protocols:

| name | goals | episodes |
|---|---|---|
| `official` | the 50 training goals of each task (Meta-World's own protocol) | one each |
| `heldout` | 50 goals that no training episode and no choice of a checkpoint has seen | one each |
| `ml45-like` | the same of tasks that were not trained on (Meta-World: the five test tasks of ML45) | one each |

A policy is told its task, or not (`task_identity`): then it sees observations and rewards alone, or a recorded episode
of the task as well (`demonstrations`). In tasks that were not trained on it is never told.

Success at any step is the official criterion; success at the last step is the second column. Two evaluations of the
same policy give identical reports, whatever the number of workers: an episode is played in a block of fixed size
(finished rows stay in the batch) because another batch size changes last bits of a network's output, and the
simulator amplifies them.
"""

import hashlib
import json
import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.episode import Demonstration
from mtorl.datasets.prompts import PromptPool, PromptSettings
from mtorl.datasets.spec import same_settings
from mtorl.datasets.store import SUITE, EpisodeStore, sha256
from mtorl.envs.base import ContextMode, Policy, RolloutContext, Split, Suite, check_positions
from mtorl.envs.checked import CheckedEnv, check_suite, checked_actions
from mtorl.envs.workers import WorkerPool, cached_environments, cached_suite
from mtorl.files import read_json, refused_write, write_json
from mtorl.intervals import mean_rate_interval, wilson_interval
from mtorl.progress import Progress
from mtorl.schema import (
    Flag,
    Integer,
    ListOf,
    MappingOf,
    Names,
    Nullable,
    Number,
    Plain,
    Record,
    Text,
    check,
    check_version,
)

SCHEMA = 1
ProtocolName = Literal["official", "heldout", "ml45-like"]
TaskVisibility = Literal["shown", "hidden"]
REPORT = Record(
    {
        "schema": Integer(1),
        "policy": Text(),
        "source": MappingOf(Plain()),
        "protocol": Record(
            {"name": Text(get_args(ProtocolName)), "goals": Integer(1)},
            optional={
                "stop_at_success": Flag(),
                "seed": Integer(0),
                "block": Integer(1),
                "task_identity": Text(get_args(TaskVisibility)),
                "demonstrations": Nullable(Text()),
                "context": Text(get_args(ContextMode)),
            },
            closed=True,
        ),
        "suite": SUITE,
        "versions": MappingOf(Plain()),
        "task_names": Names(),
        "episodes": ListOf(
            Record(
                {
                    "task": Text(),
                    "goal": Integer(0),
                    "success": Flag(),
                    "success_last": Nullable(Flag()),
                    "reward": Number(),
                    "length": Integer(1),
                },
                closed=True,
            )
        ),
    },
    optional={"mean_success": Number(0, 1)},
)
"""What `EvalReport.save` writes; options of protocols that came later are optional."""


@dataclass(frozen=True)
class Protocol:
    """How episodes are played.

    Attributes:
        name: `official` (training goals), `heldout` (unseen goals) or `ml45-like` (unseen goals of unseen tasks).
        goals: Goals per task, one episode each; the first that many.
        stop_at_success: End an episode at its first success: 5 times faster, but success at the last step is then
            unknown and returns are returns until success.
        seed: Seed of random policies; the tasks themselves are deterministic.
        block: Episodes of one task that a policy sees as one batch.
        task_identity: Whether policies are told the task: shown or hidden.
        demonstrations: Folder of a data set: of each task its best episode is shown to the policy. Agents without use
            for it do not care.
        context: Agents that look at the last K steps do so at each step (exact), or let what they see grow up to K
            steps and then begin again with half of it (anchored): faster, because what was worked out for earlier
            steps is kept, but not the same actions. Other agents do not care.
    """

    name: ProtocolName = "heldout"
    goals: int = 50
    stop_at_success: bool = False
    seed: int = 0
    block: int = 10
    task_identity: TaskVisibility = "shown"
    demonstrations: str | None = field(default=None, compare=False)  # reports hold a hash of what was in it
    context: ContextMode = "exact"

    def __post_init__(self) -> None:
        if self.demonstrations is not None:
            object.__setattr__(self, "demonstrations", os.path.normpath(self.demonstrations))
        if self.unseen_tasks:
            object.__setattr__(self, "task_identity", "hidden")
        if self.name not in get_args(ProtocolName):
            raise InputError(f"unknown protocol {self.name!r}; expected one of {', '.join(get_args(ProtocolName))}.")
        if not (self.goals >= 1 and self.block >= 1 and self.seed >= 0):  # NaN is neither
            raise InputError(
                f"goals is {self.goals}, block {self.block} and seed {self.seed}; expected at least 1, 1 and 0."
            )
        if self.task_identity not in get_args(TaskVisibility):
            raise InputError(f"task_identity is {self.task_identity!r}; expected shown or hidden.")
        if self.context not in get_args(ContextMode):
            raise InputError(f"context is {self.context!r}; expected exact or anchored.")

    @property
    def split(self) -> Split:
        """Which of the suite's goals are played."""
        return "train" if self.name == "official" else "heldout"

    @property
    def unseen_tasks(self) -> bool:
        """Whether a policy plays other tasks than it was trained on."""
        return self.name == "ml45-like"

    @property
    def hides_tasks(self) -> bool:
        """Whether policies are not told the task."""
        return self.task_identity == "hidden"

    @property
    def remarks(self) -> list[str]:
        """What is unusual about it, in words."""
        found = ["stopped at the first success"] if self.stop_at_success else []
        found += ["task not told"] if self.hides_tasks else []
        found += [f"shown an episode of {self.demonstrations}"] if self.demonstrations is not None else []
        found += [f"{self.context} context"] if self.context != "exact" else []
        return found + ([f"seed {self.seed}"] if self.seed else [])

    @property
    def options(self) -> str:
        """The same as options of `mtorl evaluate`."""
        found = f"--protocol {self.name} --goals {self.goals}"
        found += " --stop_at_success true" if self.stop_at_success else ""
        found += " --task_identity hidden" if self.hides_tasks and not self.unseen_tasks else ""
        found += f" --demonstrations {shlex.quote(self.demonstrations)}" if self.demonstrations is not None else ""
        found += f" --context {self.context}" if self.context != "exact" else ""
        return found + (f" --seed {self.seed}" if self.seed else "")


class Played(NamedTuple):
    """One episode of an evaluation."""

    task: str
    goal: int
    success: bool
    """At any step."""
    success_last: bool | None
    """At the last step; None if the episode was stopped at its first success."""
    reward: float
    """Undiscounted sum over the episode."""
    length: int


class TaskResult(NamedTuple):
    """Success of one task."""

    task: str
    episodes: int
    successes: int
    low: float
    """Lower end of the 95 % Wilson interval of the success rate."""
    high: float
    success_last_rate: float | None
    mean_return: float
    mean_length: float

    @property
    def rate(self) -> float:
        """Share of episodes with success at any step."""
        return self.successes / self.episodes


@dataclass(frozen=True)
class EvalReport:
    """All episodes of one evaluation.

    Attributes:
        policy: What was evaluated, for headings.
        task_names: In the suite's order.
        episodes: One entry per episode, ordered by task and goal.
        protocol: How they were played.
        suite: Class and arguments of the suite.
        versions: Of the simulator and the goals.
        source: Of a trained run, its `checkpoint` (last, best, a step), `step` and the checkpoint's `sha256`; and
            `demonstrations_sha256`, of the manifest of the data whose episodes were shown.
        path: The file that holds it, if there is one.
    """

    policy: str
    task_names: tuple[str, ...]
    episodes: tuple[Played, ...]
    protocol: Protocol
    suite: dict[str, Any]
    versions: dict[str, str]
    source: dict[str, Any] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    def tasks(self) -> list[TaskResult]:
        """One row per task, in the suite's order."""
        return [self._task(name) for name in self.task_names]

    def _task(self, name: str) -> TaskResult:
        mine = [episode for episode in self.episodes if episode.task == name]
        successes = sum(episode.success for episode in mine)
        last = [episode.success_last for episode in mine if episode.success_last is not None]
        return TaskResult(
            name,
            len(mine),
            successes,
            *wilson_interval(successes, len(mine)),
            success_last_rate=float(np.mean(last)) if len(last) == len(mine) else None,
            mean_return=float(np.mean([episode.reward for episode in mine])),
            mean_length=float(np.mean([episode.length for episode in mine])),
        )

    @property
    def goal_hidden(self) -> bool:
        """Whether the policy was not shown the goal."""
        return not self.suite.get("init_args", {}).get("goal_visible", True)

    @property
    def mean_success(self) -> float:
        """Mean over tasks of the success rates."""
        return float(np.mean([result.rate for result in self.tasks()]))

    def mean_interval(self) -> tuple[float, float]:
        """95 % interval of the mean over tasks (see `mean_rate_interval`).

        It covers which episodes were played, not which seed was trained.
        """
        rows = self.tasks()
        return mean_rate_interval([row.successes for row in rows], [row.episodes for row in rows])

    def save(self, path: str | Path) -> None:
        """Writes the report as JSON, atomically."""
        write_json(
            Path(path),
            {
                "schema": SCHEMA,
                "policy": self.policy,
                "source": self.source,
                "mean_success": self.mean_success,
                "protocol": asdict(self.protocol),
                "suite": self.suite,
                "versions": self.versions,
                "task_names": list(self.task_names),
                "episodes": [episode._asdict() for episode in self.episodes],
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> "EvalReport":
        """Reads what `save` wrote.

        Raises:
            InputError: The file is missing, malformed, or of a newer version.
        """
        content = read_json(Path(path), "evaluation report")
        what, remedy = f"evaluation report {path}", "Restore it or evaluate again."
        check_version(content, SCHEMA, what)
        check(content, REPORT, what, remedy)
        report = cls(
            content["policy"],
            tuple(content["task_names"]),
            tuple(Played(**episode) for episode in content["episodes"]),
            Protocol(**content["protocol"]),
            content["suite"],
            content["versions"],
            content["source"],
            Path(path),
        )
        counts = Counter(task for task, _ in {(episode.task, episode.goal) for episode in report.episodes})
        expected = dict.fromkeys(report.task_names, report.protocol.goals)
        if counts != expected or len(report.episodes) != sum(expected.values()):
            raise InputError(
                f"{what} is malformed: episodes are of {len(counts)} tasks and {len(report.episodes)} in all; expected "
                f"one for each of {report.protocol.goals} goals of each of {len(expected)} task_names. {remedy}"
            )
        return report


def evaluate(
    policy: Policy,
    suite: Suite,
    protocol: Protocol,
    pool: WorkerPool,
    name: str = "policy",
    out: Path | None = None,
    source: dict[str, Any] | None = None,
    quiet: bool = False,
) -> EvalReport:
    """Plays every task of a suite.

    Args:
        policy: What acts; it is sent to the workers once.
        suite: The tasks that the policy is for.
        protocol: How to play; one for unseen tasks plays `suite.unseen()` instead.
        pool: Workers; they keep their environments between evaluations.
        name: What the report calls the policy.
        out: File for the report. Until it is written, finished episodes are kept beside it (`.partial`), so that an
            interrupted evaluation continues.
        source: Identifies the policy's weights by their `sha256`; other policies are known by their pickled content.
            Only episodes of the same policy, protocol and suite are continued.
        quiet: Show no progress.

    Returns:
        The report; the order of its episodes does not depend on the workers.

    Raises:
        InputError: The suite, what its environments return or the policy's actions are malformed; the policy knows its
            tasks in another order; or `out` holds the report of a policy of another name.
    """
    if protocol.unseen_tasks:
        suite = suite.unseen()
    check_suite(suite)
    if _is_told(policy, protocol):
        check_positions(policy, suite.task_names)
    goals = suite.goals(protocol.split)
    if protocol.goals > len(goals):
        raise InputError(f"protocol {protocol.name} has {len(goals)} goals per task; found goals={protocol.goals}.")
    chosen = goals[: protocol.goals]
    blocks = [
        (task, list(chosen[start : start + protocol.block]))
        for task in range(len(suite.task_names))
        for start in range(0, len(chosen), protocol.block)
    ]
    source = dict(source or {})
    demonstrations: Sequence[Demonstration | None] = [None] * len(suite.task_names)
    if protocol.demonstrations is not None:
        steps = getattr(policy, "demonstration_steps", 1)
        demonstrations = _demonstrations(protocol, suite, steps)
        source["demonstrations_sha256"] = demonstrations_hash(protocol)
    if out:
        _refuse_other_policy(out, name, source)
    partial = out.with_suffix(".partial") if out else None
    content = _pickled(policy)
    token = hashlib.sha256(content).hexdigest()
    weights = source if "sha256" in source else [source, token]
    key = json.dumps([name, weights, asdict(protocol), suite.describe(), suite.versions()], sort_keys=True)
    key = hashlib.sha256(key.encode()).hexdigest()
    played = _read_partial(partial, key)
    missing = [(task, row) for task, row in blocks if any((suite.task_names[task], goal) not in played for goal in row)]
    total = len(suite.task_names) * len(chosen)
    with (
        tempfile.TemporaryDirectory(prefix="mtorl-") as folder,
        Progress(f"playing {name}", total, "episodes", start=len(played), quiet=quiet) as progress,
    ):
        parcel = Path(folder) / "policy.pickle"
        parcel.write_bytes(content)
        jobs = ((str(parcel), token, suite, task, row, protocol, demonstrations[task]) for task, row in missing)
        for episodes in pool.run(_play_block, jobs):
            played |= {(episode.task, episode.goal): episode for episode in episodes}
            if partial:
                _append_partial(partial, key, episodes)
            progress.advance(len(episodes))
    ordered = tuple(played[task, goal] for task in suite.task_names for goal in chosen)
    report = EvalReport(name, suite.task_names, ordered, protocol, suite.describe(), suite.versions(), source, out)
    if out and partial:
        _refuse_other_policy(out, name, source)  # it may have been played meanwhile
        report.save(out)
        partial.unlink(missing_ok=True)
    return report


def _is_told(policy: Policy, protocol: Protocol) -> bool:
    return not protocol.hides_tasks or getattr(policy, "knows_task", False)


def demonstrations_hash(protocol: Protocol) -> str | None:
    """Identifies the episodes that a protocol shows; None if it shows none."""
    if protocol.demonstrations is None:
        return None
    return sha256(EpisodeStore(protocol.demonstrations).path / "manifest.json")


def _demonstrations(protocol: Protocol, suite: Suite, steps: int) -> list[Demonstration]:
    """The best recorded episode of each task that has so many steps, as agents see it."""
    path = str(protocol.demonstrations)
    store = EpisodeStore(path)
    if not same_settings(suite.describe(), store):
        raise InputError(
            f"the data in {path} were recorded in another suite, or with other settings of it: expected "
            f"{suite.describe()}, found {store.manifest['suite']}. Demonstrate with data of the suite that is played."
        )
    missing = [name for name in suite.task_names if name not in store.task_names]
    if missing:
        raise InputError(
            f"the data in {path} cannot demonstrate the tasks {missing}: they have {list(store.task_names)}. Collect "
            "episodes of these tasks, or name another folder."
        )
    if store.manifest["source"].get("split", "train") == protocol.split:
        other = "train" if protocol.split == "heldout" else "heldout"
        raise InputError(
            f"the data in {path} were recorded on the goals that the protocol {protocol.name} plays: a policy could be "
            f"shown the solution. Demonstrate with data collected with --split {other}."
        )
    pool = PromptPool([store], suite.task_names, PromptSettings(length=steps))
    return [replace(it, observations=suite.observe(it.observations)) for it in pool.demonstrations()]


def _pickled(policy: Policy) -> bytes:
    import cloudpickle  # by value where the class lives in the user's script

    content: bytes = cloudpickle.dumps(policy)
    return content


_unpacked: tuple[str, Any] = ("", None)


def _unpack(path: str, token: str) -> Policy:
    """Runs in a worker: the policy that this evaluation's own process packed a moment ago, loaded once."""
    global _unpacked
    if _unpacked[0] != token:
        import pickle

        _unpacked = (token, pickle.loads(Path(path).read_bytes()))
    return _unpacked[1]


def _play_block(
    path: str,
    token: str,
    suite: Suite,
    task: int,
    goals: list[int],
    protocol: Protocol,
    demonstration: Demonstration | None,
) -> list[Played]:
    suite = cached_suite(suite)
    environments = cached_environments(suite, task, len(goals))
    return play_block(_unpack(path, token), suite, environments, task, goals, protocol, demonstration)


def play_block(
    policy: Policy,
    suite: Suite,
    environments: Sequence[Any],
    task: int,
    goals: Sequence[int],
    protocol: Protocol,
    demonstration: Demonstration | None = None,
) -> list[Played]:
    """Plays a block of episodes of one task side by side.

    Args:
        policy: What acts.
        suite: The suite.
        environments: One per goal.
        task: Position of the task.
        goals: One per row; fewer than `protocol.block` are filled up with rows that are never stepped.
        protocol: How to play.
        demonstration: A recorded episode of the task, if the policy is shown one.
    """
    rows = len(goals)
    size = max(protocol.block, rows)
    padded = np.array([*goals, *[goals[-1]] * (size - rows)])
    tasks = np.full(size, task) if _is_told(policy, protocol) else None
    policy.reset(RolloutContext(tasks, padded, protocol.seed, demonstration, protocol.context))
    environments = [CheckedEnv(environment, suite, task) for environment in environments]
    full = np.zeros((size, suite.observation_dim), dtype=np.float32)
    for row, (environment, goal) in enumerate(zip(environments, goals, strict=True)):
        full[row] = environment.reset(goal)
    rewards = np.zeros(size, dtype=np.float32)
    returns, lengths = np.zeros(rows), np.zeros(rows, dtype=int)
    succeeded, last = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    running: NDArray[np.bool_] = np.ones(rows, dtype=bool)
    privileged = getattr(policy, "privileged", False)
    for _ in range(suite.horizon):
        seen = full.copy()  # policies may keep what they are given, or write to it
        actions = policy.act(seen if privileged else suite.observe(seen), rewards.copy())
        actions = checked_actions(actions, (size, suite.action_dim), running, suite.task_names[task])
        for row in np.flatnonzero(running).tolist():
            full[row], reward, success, over = environments[row].step(actions[row])
            rewards[row] = reward
            returns[row] += reward
            lengths[row] += 1
            last[row] = success
            succeeded[row] |= success
            if over or (success and protocol.stop_at_success):
                running[row] = False
        if not running.any():
            break
    return [
        Played(
            suite.task_names[task],
            int(goals[row]),
            bool(succeeded[row]),
            None if protocol.stop_at_success else bool(last[row]),
            float(returns[row]),
            int(lengths[row]),
        )
        for row in range(rows)
    ]


def _refuse_other_policy(out: Path, name: str, source: dict[str, Any]) -> None:
    """Raises InputError if the file holds the report of a policy of another name; runs keep theirs apart by path."""
    if "sha256" in source or not out.exists():
        return
    kept = read_json(out, "evaluation report")
    if isinstance(kept, dict) and kept.get("policy", name) != name:
        raise InputError(
            f"{out} holds the evaluation of another policy, {kept['policy']!r}; found {name!r}. Choose another file, "
            "or delete it."
        )


def _read_partial(path: Path | None, key: str) -> dict[tuple[str, int], Played]:
    """Kept episodes of this very evaluation; others that are interrupted may share the file."""
    if path is None or not path.exists():
        return {}
    played: dict[tuple[str, int], Played] = {}
    for line in path.read_text(errors="replace").splitlines():
        try:
            block = json.loads(line)
            episodes = [Played(**entry) for entry in block["episodes"]] if block["evaluation"] == key else []
        except (ValueError, TypeError, KeyError):
            continue  # the line that was being written when a process died
        played |= {(episode.task, episode.goal): episode for episode in episodes}
    return played


def _append_partial(path: Path, key: str, episodes: Sequence[Played]) -> None:
    block = {"evaluation": key, "episodes": [episode._asdict() for episode in episodes]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write("\n" + json.dumps(block) + "\n")
    except OSError as error:
        raise refused_write(path, error) from error
