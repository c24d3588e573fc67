"""Makes a store of data of any kind that an importer reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.importers import Contents, Importer
from mtorl.datasets.staging import new_store
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs.base import Suite, build_suite
from mtorl.envs.recorded import Recorded
from mtorl.progress import Progress


def import_data(
    importer: Importer, paths: Sequence[str | Path], out: str | Path, suite: Suite | None = None, quiet: bool = False
) -> EpisodeStore:
    """Reads data of one kind into a new data set, which appears whole or not at all.

    Args:
        importer: What reads them.
        paths: Files or folders, or other names that the importer knows.
        out: Folder of the new data set.
        suite: The suite that its tasks belong to, where policies are to be played; by default what the importer knows.
        quiet: Show no progress.

    Returns:
        The finished data set.

    Raises:
        InputError: Something cannot be read, does not belong together, or does not fit the suite.
    """
    if not paths:
        raise InputError("no file was given; expected at least one to import.")
    words, out = [str(path) for path in paths], Path(out)
    files = importer.paths(words)
    with new_store(out) as folder:
        contents = importer.contents(files)
        writer = StoreWriter(
            folder,
            suite=_fitting(suite or _suite_of(contents, files[0]), contents, files[0]).describe(),
            task_names=contents.task_names,
            dimensions=(contents.observation_dim, contents.action_dim),
            horizon=contents.horizon,
            versions=contents.versions,
            source=contents.source | {"importer": type(importer).__name__, "files": words},
            card=contents.card,
            returns_only=contents.returns_only,
            own_dimensions=contents.own_dimensions,
            parents=contents.parents,
        )
        writer.write(_shown(importer.episodes(files), contents, quiet))
    return EpisodeStore(out)


def _suite_of(contents: Contents, path: Path) -> Suite:
    """The suite that data name, if it can be built without running the code of others."""
    if contents.suite is not None:
        try:
            _check_trusted(contents.suite)
            return build_suite(contents.suite)
        except InputError as error:
            raise InputError(f"{path}: {error} Or name a suite with --suite.") from None
    return Recorded(
        list(contents.task_names),
        contents.observation_dim,
        contents.action_dim,
        success=not contents.returns_only,
    )


def _check_trusted(value: Any) -> None:
    """Raises InputError for the description of a suite that would run code of others when it is built.

    That is a class that is not part of this package, also among the suites of a suite, and an environment that is named
    with its module.
    """
    if isinstance(value, list | tuple):
        for inner in value:
            _check_trusted(inner)
    elif isinstance(value, dict):
        named = [value["class_path"]] if not str(value.get("class_path", "mtorl.")).startswith("mtorl.") else []
        named += [name for name in _texts(value.get("environments")) if ":" in name]
        if named:
            raise InputError(
                f"the data name {named[0]!r} as their suite or in it, which is no part of mtorl: it is not imported, "
                "because that would run its code."
            )
        for inner in value.values():
            _check_trusted(inner)


def _texts(value: Any) -> list[str]:
    """All texts in plain values."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for inner in value for text in _texts(inner)] if isinstance(value, list | tuple) else [str(value)]


def _fitting(suite: Suite, contents: Contents, path: Path) -> Suite:
    """The suite, if it has the tasks and dimensions of the data."""
    unknown = [name for name in contents.task_names if name not in suite.task_names]
    if unknown:
        raise InputError(
            f"{path}: the data hold the tasks {unknown}; {type(suite).__name__} has {list(suite.task_names)}. "
            "Name the tasks as the suite does."
        )
    for name in ("observation_dim", "action_dim"):
        found, expected = getattr(contents, name), getattr(suite, name)
        if found != expected:
            raise InputError(
                f"{path}: the data have {name} {found}; their suite {type(suite).__name__} has {expected}."
            )
    return suite


def _shown(episodes: Iterator[Episode], contents: Contents, quiet: bool) -> Iterator[Episode]:
    """The same episodes, with progress."""
    with Progress(
        "importing", contents.episodes or 0, "episodes", quiet=quiet or contents.episodes is None
    ) as progress:
        for episode in episodes:
            yield episode
            progress.advance(1)
