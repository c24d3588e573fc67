"""Records episodes of scripted experts, mixed with noise and random actions, into a store.

After success the arm holds still (zero displacement, the gripper as it was): many scripted experts move on and undo
what they did, and returns would then not rank episodes. Recipes near the expert end an episode 10 steps after its
success (a cloned policy would otherwise mostly learn to hold still); replay and random ones go on to the horizon.

Every episode draws from its own random stream, derived from (seed, task name, number, split), so the result does not
depend on the number of workers or on interruptions.
"""

import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs.base import Env, Split, Suite, checked_action
from mtorl.envs.checked import CheckedEnv, check_suite
from mtorl.envs.recipes import Disturbed, Recipe, behaviour
from mtorl.envs.workers import WorkerPool, cached_environments, cached_suite
from mtorl.files import locked, read_json, remove_leftovers, write_atomically, write_json
from mtorl.progress import Progress
from mtorl.schema import Document

AFTER_SUCCESS = 10
CHUNK = 10
"""Episodes that a worker records and saves at a time."""
Part = tuple[int, range]
"""Position of a task, and the numbers of some of its episodes."""


@dataclass(frozen=True)
class Recording:
    """What is recorded of every task; see `collect`.

    Attributes:
        recipe: How the scripted expert is disturbed.
        episodes: Episodes of every task.
        after_success: Steps of an episode after its first success.
        hold: Hold still after the first success.
        seed: Derives every episode's random stream.
        split: On which goals.
    """

    recipe: Recipe
    episodes: int
    after_success: int
    hold: bool
    seed: int
    split: Split


def collect(
    suite: Suite,
    out: str | Path,
    recipe: Recipe = "expert",
    episodes: int = 40,
    after_success: int | None = None,
    hold: bool = True,
    seed: int = 0,
    split: Split = "train",
    workers: int = 2,
    quiet: bool = False,
) -> EpisodeStore:
    """Records episodes of every task of a suite into a new data set.

    Interrupted at any moment, the same call continues; the result is the same, byte for byte. Episode k of a task
    has goal k of the split, modulo their number.

    Args:
        suite: The tasks to record.
        out: Folder of the new data set.
        recipe: How the scripted expert is disturbed: expert (Gaussian noise 0.1), mixed (noise 0.1 and 0.3 in turn),
            medium (noise 0.5), replay (from mostly random to near-optimal, as a learner's replay buffer), replay-half
            (the first half of such a stream), random (uniform random actions).
        episodes: Episodes of every task.
        after_success: End an episode that many steps after its first success; by default 10 for expert, mixed and
            medium, and the horizon for the others.
        hold: Hold still after the first success; otherwise the expert goes on, and may undo it.
        seed: Derives every episode's random stream.
        split: Record on the training goals (train), or on those that evaluations keep for themselves (heldout): such
            data measure how well a policy imitates, and `mtorl train` refuses them.
        workers: Processes that play episodes; 0 plays in this one.
        quiet: Show no progress.

    Returns:
        The finished data set.

    Raises:
        InputError: The folder holds another data set or another unfinished collection.
    """
    check_suite(suite)
    if after_success is None:
        after_success = AFTER_SUCCESS if recipe in ("expert", "mixed", "medium") else suite.horizon
    checks.at_least(1, episodes=episodes)
    checks.at_least(0, workers=workers, after_success=after_success, seed=seed)
    if not len(suite.goals(split)):
        raise InputError(f"the suite {type(suite).__name__} has no {split} goals; expected at least one to record.")
    behaviour(recipe, 0, episodes)
    out = Path(out)
    _warn_of_script(suite)
    recording = Recording(recipe, episodes, after_success, hold, seed, split)
    request = {"suite": suite.describe(), "task_names": list(suite.task_names), "versions": suite.versions()}
    with locked(out, "episodes"):
        _claim_folder(out, request | asdict(recording))
        return _collect(out, recording, suite, workers, quiet)


def _warn_of_script(suite: Suite) -> None:
    if type(suite).__module__ == "__main__":
        warnings.warn(
            f"the data name their suite {suite.describe()['class_path']}, and whoever uses them imports it: keep what "
            "this script does under `if __name__ == '__main__':`, or move the class into a module of its own.",
            stacklevel=3,
        )


def _collect(out: Path, recording: Recording, suite: Suite, workers: int, quiet: bool) -> EpisodeStore:
    if not (out / "manifest.json").exists():
        writer = StoreWriter(  # first: it refuses what a manifest cannot say
            out,
            suite=suite.describe(),
            task_names=suite.task_names,
            dimensions=(suite.observation_dim, suite.action_dim),
            horizon=suite.horizon,
            versions=suite.versions(),
            source=asdict(recording),
            returns_only=suite.returns_only,
            own_dimensions=suite.own_dimensions,
        )
        _record_parts(out, recording, suite, workers, quiet)
        writer.write(_merge(out, _parts(suite, recording), suite))
    shutil.rmtree(out / "parts", ignore_errors=True)
    return EpisodeStore(out)


def _claim_folder(out: Path, request: Document) -> None:
    """Makes sure that the folder is new or holds this very collection."""
    marker = out / "collect.json"
    if marker.exists():
        for folder in (out, out / "parts"):
            remove_leftovers(folder)
        found = read_json(marker, "collection request")
        if not isinstance(found, dict):
            raise InputError(f"{marker} is malformed: expected an object. Delete {out} and collect again.")
        found.setdefault("split", "train")  # collections of earlier versions
        differing = [
            f"{key}: {found.get(key)!r} there, {request[key]!r} asked for"
            for key in request
            if found.get(key) != request[key]
        ]
        if differing:
            raise InputError(
                f"{out} already holds another collection ({'; '.join(differing)}). Choose another --out, or delete it."
            )
    elif any(not path.match(".collect.json.*.tmp") for path in out.iterdir()):  # a kill at the very beginning
        raise InputError(f"{out} exists and is not empty, and no collection was started there. Choose another --out.")
    else:
        remove_leftovers(out)
        write_json(marker, request)


def _parts(suite: Suite, recording: Recording) -> list[Part]:
    numbers = range(recording.episodes)
    return [
        (task, numbers[start : start + CHUNK]) for task in range(len(suite.task_names)) for start in numbers[::CHUNK]
    ]


def _part_path(out: Path, task: int, numbers: range) -> Path:
    return out / "parts" / f"{task:03d}-{numbers.start:06d}.npz"


def _record_parts(out: Path, recording: Recording, suite: Suite, workers: int, quiet: bool) -> None:
    everything = _parts(suite, recording)
    missing = [part for part in everything if not _part_path(out, *part).exists()]
    done = sum(len(numbers) for task, numbers in everything if (task, numbers) not in missing)
    steps = 0
    title = f"collecting {recording.recipe} episodes of {len(suite.task_names)} tasks"
    total = recording.episodes * len(suite.task_names)
    with (
        WorkerPool(min(workers, len(missing))) as pool,
        Progress(title, total, "episodes", start=done, quiet=quiet) as progress,
    ):
        jobs = ((str(out), suite, recording, task, numbers) for task, numbers in missing)
        for count, length in pool.run(_record_part, jobs):
            steps += length
            progress.advance(count, f"{steps / progress.seconds:,.0f} steps/s")


def _record_part(out: str, suite: Suite, recording: Recording, task: int, numbers: range) -> tuple[int, int]:
    """Runs in a worker: plays a few episodes of one task and saves them."""
    suite = cached_suite(suite)
    (environment,) = cached_environments(suite, task, 1)
    episodes = [record(suite, environment, task, number, recording) for number in numbers]
    columns = {
        name: np.concatenate([getattr(episode, name) for episode in episodes])
        for name in ("observations", "actions", "rewards", "success", "terminated", "truncated")
    }
    for name in ("goal", "seed", "noise", "random"):
        columns[name] = np.array([getattr(episode, name) for episode in episodes])
    columns["length"] = np.array([len(episode) for episode in episodes])
    path = _part_path(Path(out), task, numbers)
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **columns))
    return len(episodes), int(columns["length"].sum())


def record(suite: Suite, environment: Env, task: int, number: int, recording: Recording) -> Episode:
    """Plays one episode.

    Args:
        suite: The suite.
        environment: An environment of the task.
        task: Position of the task in the suite.
        number: Number of the episode within its task.
        recording: What is recorded.
    """
    name = suite.task_names[task]
    kind = behaviour(recording.recipe, number, recording.episodes)
    stream = [recording.seed, number, *name.encode(), *([1] if recording.split == "heldout" else [])]
    draw = np.random.default_rng(stream)
    actor = Disturbed(suite, task, kind, draw)
    goals = suite.goals(recording.split)
    goal = goals[number % len(goals)]
    played = CheckedEnv(environment, suite, task)
    full = played.reset(goal)
    action = np.zeros(suite.action_dim, dtype=np.float32)
    own = suite.of(task)
    observations, steps = [own.observe(full.copy())], []
    since_success = 0  # steps since the first success, counting it; 0 before
    for step in range(own.horizon):
        done = recording.hold and since_success > 0
        action = _experts_action(actor.act(step, full, done, action), name, suite.action_dim)
        full, reward, success, over = played.step(action.copy())
        observations.append(own.observe(full.copy()))
        steps.append((action, reward, success, over))
        since_success += success or since_success > 0
        if over or since_success > recording.after_success:
            break
    actions, rewards, successes, terminated = zip(*steps, strict=True)
    truncated = np.zeros(len(steps), dtype=bool)
    truncated[-1] = not terminated[-1]
    return Episode(
        task=name,
        observations=np.stack(observations).astype(np.float32),
        actions=np.stack(actions),
        rewards=np.array(rewards, dtype=np.float32),
        success=np.array(successes),
        terminated=np.array(terminated),
        truncated=truncated,
        goal=goal,
        seed=recording.seed,
        noise=kind.noise,
        random=kind.random,
    )


def _experts_action(action: NDArray[Any], task: str, size: int) -> NDArray[np.float32]:
    action = checked_action(action, task)
    if action.shape != (size,):
        raise InputError(f"{task}: the expert's action has shape {list(action.shape)}; expected {size}.")
    return action


def _merge(out: Path, parts: Sequence[Part], suite: Suite) -> Iterator[Episode]:
    for task, numbers in parts:
        with np.load(_part_path(out, task, numbers), allow_pickle=False) as archive:
            part = {name: archive[name] for name in archive.files}
        stops = np.cumsum(part["length"])
        for number, (start, stop) in enumerate(zip(stops - part["length"], stops, strict=True)):
            steps = slice(start, stop)
            yield Episode(
                task=suite.task_names[task],
                observations=part["observations"][start + number : stop + number + 1],
                **{name: part[name][steps] for name in ("actions", "rewards", "success", "terminated", "truncated")},
                goal=int(part["goal"][number]),
                seed=int(part["seed"][number]),
                noise=float(part["noise"][number]),
                random=float(part["random"][number]),
            )
