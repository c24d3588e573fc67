"""Data sets of Minari, Farama's collection. Their files are read here; nothing of Minari is needed for it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtorl import InputError, checks
from mtorl.datasets.card import Card
from mtorl.datasets.enclosed import contents_of
from mtorl.datasets.episode import Episode
from mtorl.datasets.importers.base import Contents, Importer, check_alike, named_tasks
from mtorl.datasets.importers.hdf5_reader import Hdf5Reader
from mtorl.datasets.importers.minari_episodes import MinariEpisode, mapped, rescaled
from mtorl.datasets.importers.minari_metadata import MinariSet, read_set
from mtorl.datasets.importers.raw_episodes import cleaned
from mtorl.datasets.minari_folders import HEAD_KEY, local_ids, minari_root
from mtorl.schema import Document


class Minari(Importer):
    """Data sets of Minari: flat observations and actions (Box), in HDF5. Each is a task, or one of our own exports.

    Nothing is downloaded, and no environment is made: that would run code that a data set names. Observations with
    parts (Dict, Tuple), images, texts, and actions that are chosen from a list are refused.

    Args:
        tasks: Names of the tasks, one for each data set; by default the data sets' names without version.
        root: Folder of all local data sets; by default MINARI_DATASETS_PATH, or ~/.minari/datasets.
        horizon: Steps of the longest possible episode; by default the environment's limit, as far as it is stated.
        clip_actions: Set actions that leave their bounds on the bounds; otherwise they are refused.
    """

    def __init__(
        self,
        tasks: list[str] | None = None,
        root: str | None = None,
        horizon: int | None = None,
        clip_actions: bool = False,
    ) -> None:
        checks.at_least(1, horizon=horizon)
        self.tasks, self.root, self.horizon, self.clip_actions = tasks, root, horizon, clip_actions

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the files in its folder."""
        try:
            return (path / "data/metadata.json").is_file()
        except OSError:
            return False

    def paths(self, words: Sequence[str]) -> list[Path]:
        """Folders of data sets, or their ids.

        Raises:
            InputError: There is no such data set on this machine; lists those that there are.
        """
        root = minari_root(self.root)
        found = []
        for word in words:
            known = [path for path in (Path(word), root / word) if self.recognises(path)]
            if not known:
                ids = ", ".join(list(local_ids(root))[:20]) or "none"
                raise InputError(
                    f"{word}: there is no such Minari data set in {root}; there are: {ids}. Nothing is downloaded from "
                    f"here: get it with `minari download {word}` first, or name its folder."
                )
            found.append(known[0])
        return found

    def contents(self, paths: Sequence[Path]) -> Contents:
        """One task for each data set; of one of our own exports, what was exported."""
        sets = [read_set(path) for path in paths]
        first = [_first(it) for it in sets]
        found = [episode.dimensions for episode in first]
        own = [it for it in sets if it.head is not None]
        if own:
            if len(sets) > 1 or self.tasks:
                raise InputError(f"{own[0].path} names its own tasks; import it on its own, without --tasks.")
            what = f"Minari data set {own[0].path}: {HEAD_KEY} of its metadata.json"
            return contents_of(own[0].head or {}, found[0], own[0].episodes, what)
        check_alike(paths, found)
        names = self._names(sets)
        blind = tuple(name for name, it in zip(names, first, strict=True) if not it.success)
        limits = [it.environment.steps if it.environment else None for it in sets]
        return Contents(
            names,
            *found[0],
            _card(sets, self.clip_actions),
            suite=_suite(names, sets),
            horizon=self.horizon or (None if None in limits else max(limit for limit in limits if limit)),
            returns_only=blind,
            episodes=sum(it.episodes for it in sets),
        )

    def episodes(self, paths: Sequence[Path]) -> Iterator[Episode]:
        """In the order of the data sets, and of their numbers."""
        sets = [read_set(path) for path in paths]
        for name, found in zip(self._names(sets), sets, strict=True):
            with Hdf5Reader(found.file) as file:
                for number in range(found.episodes):
                    recorded = MinariEpisode(file, number)
                    if found.head is not None:
                        episode = recorded.exported(found.head["task_names"])
                    else:
                        episode = rescaled(recorded.episode(name), found.bounds)
                    yield cleaned(episode, recorded.where, self.clip_actions)

    def _names(self, sets: Sequence[MinariSet]) -> tuple[str, ...]:
        root = minari_root(self.root).resolve()
        places = [it.path.resolve() for it in sets]
        ids = [str(place.relative_to(root)) if place.is_relative_to(root) else place.name for place in places]
        return named_tasks(self.tasks, [re.sub(r"-v\d+$", "", name) for name in ids], "data sets")


def _first(found: MinariSet) -> MinariEpisode:
    """The first episode of a data set; raises InputError if it is not what the metadata say."""
    with Hdf5Reader(found.file) as file:
        episode = MinariEpisode(file, 0)
    stated = found.observation_dim, None if found.bounds is None else len(found.bounds[0])
    for name, size, count in zip(("observations", "actions"), stated, episode.dimensions, strict=True):
        if size is not None and size != count:
            raise InputError(f"{episode.where}: its {name} have {count} numbers; the metadata.json says {size}.")
    return episode


def _suite(names: Sequence[str], sets: Sequence[MinariSet]) -> Document | None:
    """Gymnasium's own environments, unchanged, can be played again; None: others are known from their data alone."""
    found = [it.environment for it in sets]
    if not all(environment and environment.plain for environment in found):
        return None
    from gymnasium.envs.registration import registry

    ids = [environment.id for environment in found if environment]
    if not set(ids) <= set(registry):
        return None
    return {"class_path": "mtorl.envs.Gymnasium", "init_args": {"environments": dict(zip(names, ids, strict=True))}}


def _card(sets: Sequence[MinariSet], clip: bool) -> Card:
    origin = "; ".join(
        f"Minari data set {it.path.name}: {', '.join(it.facts) or 'nothing is said of it'}" for it in sets
    )
    notes = [
        f"{it.path.name} was recorded in {it.environment.id}, which is not one of gymnasium's own, or was changed."
        for it in sets
        if it.environment and not it.environment.plain
    ]
    notes += [
        f"Actions of {it.path.name} were mapped from their bounds onto [-1, 1]."
        for it in sets
        if it.bounds and mapped(it.bounds).any()
    ]
    notes.append(f"Actions beyond their bounds were set on them{'' if clip else ', where rounding had moved them'}.")
    return Card(origin, notes=tuple(notes))
