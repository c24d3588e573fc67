"""Records episodes into a store: of scripted experts, mixed with noise and random actions, or of any other policy.

After success the arm holds still (zero displacement, the gripper as it was): many scripted experts move on and undo
what they did, and returns would then not rank episodes. Recipes near the expert end an episode 10 steps after its
success (a cloned policy would otherwise mostly learn to hold still); replay and random ones go on to the horizon.

Other policies act to the horizon, in blocks of `CHUNK` episodes as evaluations play them: another batch size changes
last bits. Every episode draws from its own random stream, derived from (seed, task name, number, split), so the result
does not depend on the number of workers or on interruptions.
"""

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from mtorl import InputError, __version__, checks
from mtorl.datasets.card import Card, recipe_origin
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs.base import Split, Suite
from mtorl.envs.checked import check_suite
from mtorl.envs.demonstrations import demonstrations
from mtorl.envs.engines import open_pool
from mtorl.envs.evaluator import is_told
from mtorl.envs.parcel import lent, pack
from mtorl.envs.policies import check_positions
from mtorl.envs.protocol import ProtocolName, demonstrations_hash
from mtorl.envs.recipes import Recipe, behaviour
from mtorl.envs.recording import Acting, BehaviorPolicy, Recording, record, record_block
from mtorl.envs.workers import WorkerPool, cached_environments, cached_suite
from mtorl.files import locked, read_json, remove_leftovers, write_atomically, write_json
from mtorl.progress import Progress
from mtorl.schema import Document

AFTER_SUCCESS = 10
CHUNK = 10
"""Episodes that a worker records and saves at a time."""
Part = tuple[int, range]
"""Position of a task, and the numbers of some of its episodes."""


def collect(
    suite: Suite,
    out: str | Path,
    recipe: Recipe = "expert",
    episodes: int = 40,
    after_success: int | None = None,
    hold: bool | None = None,
    seed: int = 0,
    split: Split = "train",
    workers: int = 2,
    quiet: bool = False,
    policy: BehaviorPolicy | None = None,
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
        hold: Hold still after the first success, as by default; otherwise the expert goes on, and may undo it.
        seed: Derives every episode's random stream.
        split: Record on the training goals (train), or on those that evaluations keep for themselves (heldout): such
            data measure how well a policy imitates, and `mtorl train` refuses them.
        workers: Processes that play episodes; 0 plays in this one.
        quiet: Show no progress.
        policy: Who acts instead of the scripted experts; see `mtorl.behavior_policy`.

    Returns:
        The finished data set.

    Raises:
        InputError: The folder holds another data set or another unfinished collection; the suite has no experts; or the
            policy knows its tasks in another order.
    """
    check_suite(suite)
    checks.at_least(1, episodes=episodes)
    checks.at_least(0, workers=workers, after_success=after_success, seed=seed)
    if not len(suite.goals(split)):
        raise InputError(f"the suite {type(suite).__name__} has no {split} goals; expected at least one to record.")
    usual = AFTER_SUCCESS if policy is None and recipe in ("expert", "mixed", "medium") else suite.horizon
    after_success = usual if after_success is None else after_success
    if policy is None:
        _check_recipe(recipe, episodes, suite)
        recording = Recording(recipe, episodes, after_success, hold is not False, seed, split)
    else:
        policy = _at_splits_goals(policy, split, seed)
        _check_policy(policy, recipe, hold, suite)
        recording = Recording(None, episodes, after_success, False, seed, split)
    _warn_of_script(suite)
    request = {"suite": suite.describe(), "task_names": list(suite.task_names), "versions": suite.versions()}
    with locked(out := Path(out), "episodes"):
        _claim_folder(out, request | _source(recording, policy))
        return _collect(out, recording, suite, workers, quiet, policy)


def _check_recipe(recipe: Recipe, episodes: int, suite: Suite) -> None:
    """Refuses a recipe that does not exist, or needs experts that the suite does not have."""
    if behaviour(recipe, 0, episodes).random == 1 and recipe == "random":
        return
    try:
        for task in range(len(suite.task_names)):
            suite.expert(task)
    except InputError as error:
        raise InputError(
            f"the recipe {recipe} disturbs scripted experts. {error} Or say with --policy who acts: a trained run or a "
            "class of your own. --recipe random needs nobody."
        ) from None


def _at_splits_goals(policy: BehaviorPolicy, split: Split, seed: int) -> BehaviorPolicy:
    """The policy played on the goals of a split, in blocks of the size of a part."""
    name: ProtocolName = "official" if split == "train" else "heldout"
    how = replace(policy.protocol, name=name, seed=seed, block=CHUNK, stop_at_success=False)
    return replace(policy, protocol=how)


def _check_policy(policy: BehaviorPolicy, recipe: Recipe, hold: bool | None, suite: Suite) -> None:
    if recipe != "expert":
        raise InputError(f"--recipe {recipe} disturbs the scripted expert; with --policy, say --noise instead.")
    if hold:
        raise InputError("--hold stops the scripted expert; with --policy, end episodes with --after_success instead.")
    if is_told(policy.policy, policy.protocol):
        check_positions(policy.policy, suite.task_names)


def _card(suite: Suite, recording: Recording) -> Card:
    return Card(f"recorded by mtorl {__version__}: {recipe_origin(type(suite).__name__, str(recording.recipe))}")


def _source(recording: Recording, policy: BehaviorPolicy | None) -> Document:
    """What a data set holds of who made it."""
    plain = asdict(recording)
    if policy is None:
        return plain
    shown = demonstrations_hash(policy.protocol)
    del plain["recipe"]
    return {**policy.plain(), **({"demonstrations_sha256": shown} if shown else {}), **plain}


def _warn_of_script(suite: Suite) -> None:
    if type(suite).__module__ == "__main__":
        warnings.warn(
            f"the data name their suite {suite.describe()['class_path']}, and whoever uses them imports it: keep what "
            "this script does under `if __name__ == '__main__':`, or move the class into a module of its own.",
            stacklevel=3,
        )


def _collect(
    out: Path, recording: Recording, suite: Suite, workers: int, quiet: bool, policy: BehaviorPolicy | None
) -> EpisodeStore:
    if not (out / "manifest.json").exists():
        writer = StoreWriter(  # first: it refuses what a manifest cannot say
            out,
            suite=suite.describe(),
            task_names=suite.task_names,
            dimensions=(suite.observation_dim, suite.action_dim),
            horizon=suite.horizon,
            versions=suite.versions(),
            source=_source(recording, policy),
            card=policy.card() if policy else _card(suite, recording),
            returns_only=suite.returns_only,
            own_dimensions=suite.own_dimensions,
        )
        _record_parts(out, recording, suite, workers, quiet, policy)
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


def _record_parts(
    out: Path, recording: Recording, suite: Suite, workers: int, quiet: bool, policy: BehaviorPolicy | None
) -> None:
    everything = _parts(suite, recording)
    missing = [part for part in everything if not _part_path(out, *part).exists()]
    done = sum(len(numbers) for task, numbers in everything if (task, numbers) not in missing)
    steps = 0
    title = f"collecting {recording.recipe or (policy and policy.name)} episodes of {len(suite.task_names)} tasks"
    total = recording.episodes * len(suite.task_names)
    with (
        ExitStack() as stack,
        open_pool(min(workers, len(missing))) as pool,
        Progress(title, total, "episodes", start=done, quiet=quiet) as progress,
    ):
        acting = _acting(policy, suite, pool, stack)
        jobs = ((str(out), suite, recording, task, numbers, acting[task]) for task, numbers in missing)
        for count, length in pool.run(_record_part, jobs):
            steps += length
            progress.advance(count, f"{steps / progress.seconds:,.0f} steps/s")
    if lost := [part for part in missing if not _part_path(out, *part).exists()]:
        raise InputError(
            f"{len(lost)} of {len(missing)} parts were recorded, but are not in {out.resolve()}: other machines have a "
            "folder of their own there. Choose an --out that all of them share."
        )


def _acting(policy: BehaviorPolicy | None, suite: Suite, pool: WorkerPool, stack: ExitStack) -> Sequence[Acting | None]:
    """Who acts in each task, for workers; None: the scripted expert."""
    if policy is None:
        return [None] * len(suite.task_names)
    shown = demonstrations(policy.protocol, suite, getattr(policy.policy, "demonstration_steps", 1))
    parcel = stack.enter_context(lent(pack(policy.policy), pool))
    return [Acting(parcel, policy.noise, policy.protocol, episode) for episode in shown]


def _record_part(
    out: str, suite: Suite, recording: Recording, task: int, numbers: range, acting: Acting | None
) -> tuple[int, int]:
    """Runs in a worker: plays a few episodes of one task and saves them."""
    suite = cached_suite(suite)
    environments = cached_environments(suite, task, 1 if acting is None else len(numbers))
    if acting is None:
        episodes = [record(suite, environments[0], task, number, recording) for number in numbers]
    else:
        episodes = record_block(suite, environments, task, numbers, recording, acting)
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
