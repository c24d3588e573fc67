"""Data sets of D4RL, and HDF5 files of others in its layout. Nothing of the d4rl package is needed for it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mtorl import InputError, checks
from mtorl.datasets.card import Card
from mtorl.datasets.d4rl_scores import d4rl_bounds
from mtorl.datasets.episode import Episode
from mtorl.datasets.importers import d4rl_file, flat
from mtorl.datasets.importers.base import Contents, Importer, check_alike, named_tasks
from mtorl.datasets.importers.d4rl_file import Survey, survey
from mtorl.datasets.importers.d4rl_names import LIMIT, SITE, Played, environment_of, files_of, folder, task_of, urls
from mtorl.datasets.importers.flat_hdf5 import open_hdf5
from mtorl.datasets.importers.folders import listed
from mtorl.schema import Document

SIGNATURE = b"\x89HDF\r\n\x1a\n"
ENDINGS = (".hdf5", ".h5")
SIMULATOR = "mujoco210"
"""Gymnasium's environments are of MuJoCo 3."""


class D4RL(Importer):
    """HDF5 files in the layout of D4RL: a task each. Nothing is downloaded.

    An episode ends where `terminals` or `timeouts` say so, and at the end of the file. A file without `timeouts` is cut
    after the steps of an episode, which must be known. What follows an episode's last step is its `next_observations`
    if the file has them, otherwise that step's own observation again.

    Args:
        tasks: Names of the tasks, one for each file; by default the files' names without ending and version.
        horizon: Steps of the longest possible episode; by default 1000 for halfcheetah, hopper, walker2d and ant, for
            others what the files hold.
        clip_actions: Set actions beyond [-1, 1] on the bound; otherwise they are refused, unless rounding moved them.

    Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", 2020.
    """

    def __init__(self, tasks: list[str] | None = None, horizon: int | None = None, clip_actions: bool = False) -> None:
        if horizon is not None:
            checks.at_least(1, horizon=horizon)
        self.tasks, self.horizon, self.clip_actions = tasks, horizon, clip_actions

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By its ending and first bytes."""
        try:
            if path.suffix not in ENDINGS or not path.is_file():
                return False
            with path.open("rb") as file:
                return file.read(len(SIGNATURE)) == SIGNATURE
        except (OSError, ValueError):
            return False

    def paths(self, words: Sequence[str]) -> list[Path]:
        """Files, all HDF5 files of a folder, or ids of data sets that the d4rl package has downloaded.

        Raises:
            InputError: There is no such file; says where it is found.
        """
        found: list[Path] = []
        for word in words:
            path = Path(word)
            found += _files_in(path) if path.is_dir() else [path if path.exists() else _downloaded(word)]
        return found

    def contents(self, paths: Sequence[Path]) -> Contents:
        """One task for each file; of our own exports, what was exported."""
        found = self._surveys(paths)
        if any(it.exported for it in found):
            flat.are_exported(open_hdf5, paths)  # all or none
            return flat.contents(open_hdf5, paths)
        check_alike(paths, [it.dimensions for it in found])
        names = self._names(paths)
        played = [environment_of(path.stem) for path in paths]
        of_d4rl = all(d4rl_bounds(path.stem.replace("_", "-")) for path in paths)
        return Contents(
            names,
            *found[0].dimensions,
            Card(
                "; ".join(f"HDF5 file {path.name} in the layout of D4RL" for path in paths),
                "CC-BY-4.0, if it is D4RL's as its name says" if of_d4rl else None,
                tuple(self._notes(paths, found)),
            ),
            suite=_suite(names, played, found[0].dimensions, self._limit(paths)),
            horizon=self._limit(paths),
            versions={"d4rl": SIMULATOR} if any(played) else {},
            returns_only=names,
            episodes=sum(0 if it.stops is None else len(it.stops) for it in found),
        )

    def episodes(self, paths: Sequence[Path]) -> Iterator[Episode]:
        """In the order of the files, and in each from its first step to its last."""
        found = self._surveys(paths)
        if any(it.exported for it in found):
            yield from flat.episodes(open_hdf5, paths)
            return
        for path, name, it in zip(paths, self._names(paths), found, strict=True):
            yield from d4rl_file.episodes(path, it, name, self.clip_actions)

    def _surveys(self, paths: Sequence[Path]) -> list[Survey]:
        return [survey(path, self._limit([path])) for path in paths]

    def _limit(self, paths: Sequence[Path]) -> int | None:
        """Steps of the longest possible episode, if they are known."""
        return self.horizon or (LIMIT if all(environment_of(path.stem) for path in paths) else None)

    def _names(self, paths: Sequence[Path]) -> tuple[str, ...]:
        return named_tasks(self.tasks, [task_of(path.stem) for path in paths], "files")

    def _notes(self, paths: Sequence[Path], found: Sequence[Survey]) -> Iterator[str]:
        """What the users of the data should know."""
        for path, it in zip(paths, found, strict=True):
            name, played = path.name, environment_of(path.stem)
            if played and played.dimensions != it.dimensions:
                yield f"{name} has the dimensions {it.dimensions}, {played.id} has {played.dimensions}: not played."
            elif played:
                yield (
                    f"{name} is played in {played.id}, whose dynamics are not those that D4RL recorded it in: returns "
                    "there are not comparable to D4RL's."
                )
            if it.cut is not None:
                yield f"{name} has no timeouts: its episodes were cut after {it.cut} steps."
            elif not it.timeouts:
                yield f"{name} has no timeouts: its episodes end where the environment ended them."
            if it.unfinished:
                yield f"The last {it.unfinished} steps of {name} have no end: an episode that was cut off there."
            if not it.successors:
                yield f"{name} has no next observations: after an episode's last step its own observation is repeated."
            if it.unused:
                more = f" and {len(it.unused) - 20} more" if len(it.unused) > 20 else ""
                yield f"Not imported of {name}: {', '.join(key[:100] for key in it.unused[:20])}{more}."
        where = "" if self.clip_actions else ", where rounding had moved them"
        yield f"Actions beyond [-1, 1] were set on the bound{where}."


def _suite(
    names: Sequence[str], played: Sequence[Played | None], dimensions: tuple[int, int], horizon: int | None
) -> Document | None:
    """Environments of gymnasium of the same names and dimensions; None: there is none of some task."""
    environments = {name: it.id for name, it in zip(names, played, strict=True) if it and it.dimensions == dimensions}
    if len(environments) < len(names):
        return None
    return {
        "class_path": "mtorl.envs.Gymnasium",
        "init_args": {"environments": environments, "horizon": horizon},
    }


def _files_in(path: Path) -> list[Path]:
    files = [inner for inner in listed(path, path) if inner.suffix in ENDINGS]
    if not files:
        raise InputError(f"{path} holds no files that end in {' or '.join(ENDINGS)}. Check the path.")
    return files


def _downloaded(name: str) -> Path:
    """The file of a data set with that id; raises InputError if it is not on this machine."""
    if "/" in name or name.endswith(ENDINGS):
        raise InputError(f"{name}: there is no such file or folder. Check the path.")
    known = urls()
    files = [folder() / file for file in files_of(name, known)]
    for path in files:
        if path.is_file():
            return path
    raise InputError(
        f"{name}: there is no such file, and as a data set of D4RL it would be {files[0]}. Nothing is downloaded from "
        f"here: get it from {known.get(name, SITE)}, or say where such files are with D4RL_DATASET_DIR."
    )
