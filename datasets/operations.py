"""Data sets made from other data sets: split, filter, merge. Every value of an episode stays the same, bit for bit.

The new ones count anew what there is to count, keep what made their episodes (card, source), and name their parents.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.card import joined_card
from mtorl.datasets.joining import joined_suite
from mtorl.datasets.opening import open_stores
from mtorl.datasets.parents import Parent
from mtorl.datasets.staging import new_store
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.schema import Document

Chosen = Sequence[NDArray[np.int64]]
"""Numbers of the episodes that are taken from each of several data sets."""


def split(
    data: str | Path,
    out: Sequence[str | Path],
    share: float = 0.9,
    seed: int = 0,
    by_task: bool = True,
    drop_empty: bool = False,
) -> tuple[EpisodeStore, EpisodeStore]:
    """Splits the episodes of a data set at random into two new ones, which have no episode in common.

    Args:
        data: Folder of the data set.
        out: Folders of the two new ones.
        share: Share of the episodes that the first one gets; at least one episode, and not all.
        seed: Derives the draws; those of a task do not depend on the others.
        by_task: Split every task's episodes in this share; otherwise those of all tasks together.
        drop_empty: Leave tasks out of a new data set that would have no episodes of them; otherwise refuse.

    Returns:
        The new data sets.

    Raises:
        InputError: A task would be left without episodes, or a folder is taken.
    """
    checks.within("(0, 1)", share=share)
    checks.at_least(0, seed=seed)
    if len(out) != 2 or len({Path(path).resolve() for path in out}) != 2:
        raise InputError(f"a split makes two data sets; expected two folders, got {[str(path) for path in out]}.")
    store = EpisodeStore(data)
    tasks = store.index["task"] if by_task else np.full(len(store), -1)
    first = np.zeros(len(store), dtype=bool)
    for task in np.unique(tasks):
        numbers = np.flatnonzero(tasks == task)
        draw = np.random.default_rng([seed, *(store.task_names[task].encode() if by_task else ())])
        most = max(len(numbers) - 1, 1)  # a single episode goes to the first
        first[draw.permutation(numbers)[: min(max(round(share * len(numbers)), 1), most)]] = True
    how = {"share": share, "seed": seed, "by_task": by_task, "part": "first"}
    parts = (first, how), (~first, how | {"part": "second"})
    with ExitStack() as both:
        for path, (taken, options) in zip(out, parts, strict=True):
            parent = Parent.of(store, "split", options)
            folder = both.enter_context(new_store(Path(path)))
            _write(folder, path, [store], [np.flatnonzero(taken)], [parent], drop_empty)
    return EpisodeStore(out[0]), EpisodeStore(out[1])


def filter(
    data: str | Path,
    out: str | Path,
    min_return_quantile: float | None = None,
    success_only: bool = False,
    tasks: list[str] | None = None,
    drop_empty: bool = False,
) -> EpisodeStore:
    """Makes a new data set of some episodes of another one.

    Args:
        data: Folder of the data set.
        out: Folder of the new one.
        min_return_quantile: Only episodes whose return reaches this quantile of all recorded returns of their task:
            with 0.5 the better half.
        success_only: Only episodes with success at any step.
        tasks: Only these tasks.
        drop_empty: Leave tasks out that would have no episodes; otherwise refuse.

    Returns:
        The new data set.

    Raises:
        InputError: Nothing is asked for, a task is unknown or would be left without episodes, or the folder is taken.
    """
    checks.within("[0, 1]", min_return_quantile=min_return_quantile)
    if min_return_quantile is None and not success_only and tasks is None:
        raise InputError("nothing is to be filtered; expected --min_return_quantile, --success_only or --tasks.")
    store = EpisodeStore(data)
    names = store.task_names if tasks is None else tuple(name for name in store.task_names if name in tasks)
    unknown = [name for name in tasks or () if name not in store.task_names]
    if unknown or not names:
        raise InputError(f"unknown tasks {unknown}; the data set {data} holds {list(store.task_names)}.")
    kept = np.isin(store.index["task"], [store.task_names.index(name) for name in names])
    if success_only:
        kept &= _successful(store, names)
    if min_return_quantile is not None:
        kept &= _reaching(store, min_return_quantile)
    options = {"min_return_quantile": min_return_quantile, "success_only": success_only or None, "tasks": tasks}
    parent = Parent.of(store, "filter", {name: value for name, value in options.items() if value is not None})
    with new_store(Path(out)) as folder:
        _write(folder, out, [store], [np.flatnonzero(kept)], [parent], drop_empty, names)
    return EpisodeStore(out)


def _successful(store: EpisodeStore, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which episodes have success at any step `[E]`."""
    blind = [name for name in names if name in store.returns_only]
    if blind:
        raise InputError(f"success is not known of {', '.join(blind)}. Use --min_return_quantile, or other --tasks.")
    return np.logical_or.reduceat(store.success, store.starts[:-1])


def _reaching(store: EpisodeStore, quantile: float) -> NDArray[np.bool_]:
    """Which episodes have a return that reaches that quantile of their task's `[E]`."""
    returns = store.returns.astype(np.float64)
    reaching = np.zeros(len(store), dtype=bool)
    for task in np.unique(store.index["task"]):
        mine = store.index["task"] == task
        reaching[mine] = returns[mine] >= np.quantile(returns[mine], quantile)
    return reaching


def merge(data: Sequence[str | Path], out: str | Path) -> EpisodeStore:
    """Makes one new data set of the episodes of several, one after the other.

    Args:
        data: Folders of the data sets, of the same suite and versions.
        out: Folder of the new one, whose horizon is the longest of theirs.

    Returns:
        The new data set.

    Raises:
        InputError: There is only one, they differ in suite, versions, dimensions, or in which tasks know success.
    """
    if len(data) < 2:
        raise InputError(f"a merge takes several data sets; expected at least two folders, got {len(data)}.")
    stores = open_stores(data)
    parents = [Parent.of(store, "merge", {}) for store in stores]
    with new_store(Path(out)) as folder:
        _write(folder, out, stores, [np.arange(len(store)) for store in stores], parents)
    return EpisodeStore(out)


def _write(
    folder: Path,
    out: str | Path,
    stores: Sequence[EpisodeStore],
    chosen: Chosen,
    parents: Sequence[Parent],
    drop_empty: bool = True,
    wanted: Sequence[str] | None = None,
) -> None:
    """Writes these episodes.

    Args:
        folder: Where to.
        out: What the folder will be called.
        stores: Where they are from, data sets that are used together.
        chosen: Which ones, of each.
        parents: What is kept of each data set.
        drop_empty: Leave out tasks that have no episodes.
        wanted: The tasks that are expected to have episodes; by default those that have some in the data sets.
    """
    held = [[store.task_names[task] for task in np.unique(store.index["task"])] for store in stores]
    left = [
        {store.task_names[task] for task in np.unique(store.index["task"][numbers])}
        for store, numbers in zip(stores, chosen, strict=True)
    ]
    names = [name for store in stores for name in store.task_names if any(name in tasks for tasks in left)]
    names = list(dict.fromkeys(names))
    empty = [name for tasks in held for name in tasks if name not in names and name in (wanted or tasks)]
    if empty and not (drop_empty and names):
        raise InputError(
            f"{out} would have no episodes of {', '.join(empty)}. "
            + ("Ask for less, or leave these tasks out with --drop_empty." if names else "Ask for less.")
        )
    first = stores[0]
    suite = joined_suite([store.suite for store in stores])
    writer = StoreWriter(
        folder,
        suite={**suite, "init_args": {**suite["init_args"], "tasks": names}},
        task_names=names,
        dimensions=(first.observation_dim, first.action_dim),
        horizon=max(store.manifest["horizon"] for store in stores),
        versions=first.manifest["versions"],
        source=_joined_source(stores),
        card=joined_card([store.card for store in stores]),
        returns_only=_returns_only(stores, names),
        own_dimensions=_own_dimensions(stores, names),
        parents=[parent.plain() for parent in parents],
    )
    writer.write(_episodes(stores, chosen))


def _episodes(stores: Sequence[EpisodeStore], chosen: Chosen) -> Iterator[Episode]:
    for store, numbers in zip(stores, chosen, strict=True):
        for number in numbers:
            yield store.episode(int(number))


def _joined_source(stores: Sequence[EpisodeStore]) -> Document:
    """What the sources have in common, but not how many episodes were recorded; held out, if any of them is."""
    sources = [store.manifest["source"] for store in stores]
    common = {
        key: value
        for key, value in sources[0].items()
        if key != "episodes" and all(key in source and source[key] == value for source in sources)
    }
    if any(source.get("split") == "heldout" for source in sources):
        common["split"] = "heldout"  # training must go on refusing them
    return common


def _returns_only(stores: Sequence[EpisodeStore], names: Sequence[str]) -> list[str]:
    """Those of the tasks that do not know success."""
    found: list[str] = []
    for name in names:
        holders = [store for store in stores if name in store.task_names]
        blind = [store for store in holders if name in store.returns_only]
        if blind and len(blind) < len(holders):
            seeing = next(store for store in holders if name not in store.returns_only)
            raise InputError(
                f"data sets {blind[0].path} and {seeing.path} cannot be joined: only the second knows success of "
                f"{name}."
            )
        found += [name] * bool(blind)
    return found


def _own_dimensions(stores: Sequence[EpisodeStore], names: Sequence[str]) -> list[tuple[int, int]] | None:
    """The dimensions of each of the tasks, if any data set says that some of its own are padding."""
    if all(store.own_dimensions is None for store in stores):
        return None
    found: list[tuple[int, int]] = []
    for name in names:
        holders = [store for store in stores if name in store.task_names]
        sizes = {store.dimensions_of(name) for store in holders}
        if len(sizes) > 1:
            raise InputError(
                f"data sets {', '.join(str(store.path) for store in holders)} cannot be joined: the dimensions of "
                f"{name} are {' and '.join(map(str, sorted(sizes)))}."
            )
        found += sizes
    return found
