"""Data sets of Minari, Farama's collection."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mtorl import InputError
from mtorl.datasets.enclosed import head_of
from mtorl.datasets.episode import Episode
from mtorl.datasets.exporters.base import Exporter
from mtorl.datasets.minari_folders import HEAD_KEY, VARIABLE, check_id, minari_root
from mtorl.datasets.staging import new_store
from mtorl.datasets.store import EpisodeStore


class Minari(Exporter):
    """A data set of Minari: `minari.load_dataset` opens it.

    All tasks are in it; the metadata of an episode say its task, goal, seed, noise and random. Success is
    `infos["success"]`, which has a row for the reset as well, like all that Minari records. Minari keeps no hashes and
    has no check of its own: what was written is read once more and compared before it is called by its name. Later, the
    data set that it was made from is what can be verified.

    Args:
        id: Name of the new data set, such as my/pointreach-v0.
        root: Folder of all local data sets; by default MINARI_DATASETS_PATH, or ~/.minari/datasets.
    """

    def __init__(self, id: str, root: str | None = None) -> None:
        check_id(id)
        self.id, self.root = id, root

    def export(self, store: EpisodeStore) -> Path:
        """One Minari data set; whoever plays it needs its suite from here, so it names no environment.

        Raises:
            InputError: Minari is not installed.
        """
        minari, root = _minari(), minari_root(self.root)
        out = root / self.id
        with new_store(out) as folder:
            with _root(folder), warnings.catch_warnings(action="ignore"):  # about what is not known of the author
                _write(minari, self.id, store)
                _compare(minari, self.id, store)
            (folder / self.id / "data").rename(folder / "data")
            for inner in folder.iterdir():
                if inner.name != "data":
                    shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
        with _root(root):
            _name_spaces(minari, self.id)
        return out


def _minari() -> ModuleType:
    try:
        import minari
        import minari.namespace
        from minari.data_collector import EpisodeBuffer  # noqa: F401
    except ImportError:
        raise InputError("the package minari is not installed: `pip install 'mtorl[minari]'`.") from None
    return minari


@contextmanager
def _root(folder: Path) -> Iterator[None]:
    """Minari's functions work below `folder`."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder.absolute())  # it loses its way below a relative one
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _write(minari: ModuleType, name: str, store: EpisodeStore) -> None:
    from gymnasium.spaces import Box

    card = store.manifest.get("card", {})
    dataset = minari.create_dataset_from_buffers(
        name,
        [_buffer(minari, episode) for episode in store],
        observation_space=Box(-np.inf, np.inf, (store.observation_dim,), np.float32),
        action_space=Box(-1, 1, (store.action_dim,), np.float32),
        description=card.get("origin") or f"exported by mtorl from {store.path.name}",
        data_format="hdf5",
    )
    dataset.storage.update_episode_metadata(
        {"task": it.task, "goal": it.goal, "seed": it.seed, "noise": it.noise, "random": it.random} for it in store
    )
    dataset.storage.update_metadata({HEAD_KEY: head_of(store.manifest)})


def _buffer(minari: ModuleType, episode: Episode) -> Any:
    return minari.data_collector.EpisodeBuffer(
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated,
        infos={"success": _with_reset(episode)},
    )


def _with_reset(episode: Episode) -> Any:
    """Success flags `[L+1]`: none at the reset."""
    return np.concatenate([[False], episode.success])


def _compare(minari: ModuleType, name: str, store: EpisodeStore) -> None:
    """Raises InputError unless Minari gives back what is in the store."""
    for number, (ours, theirs) in enumerate(
        zip(store, minari.load_dataset(name).iterate_episodes(range(len(store))), strict=True)
    ):
        pairs = {
            "observations": (ours.observations, theirs.observations),
            "actions": (ours.actions, theirs.actions),
            "rewards": (ours.rewards, theirs.rewards),
            "terminations": (ours.terminated, theirs.terminations),
            "truncations": (ours.truncated, theirs.truncations),
            "success": (_with_reset(ours), theirs.infos["success"]),
        }
        for key, (written, read) in pairs.items():
            if written.dtype != read.dtype or not np.array_equal(written, read):
                raise InputError(
                    f"Minari {minari.__version__} gives other {key} for episode {number} than were written; nothing "
                    "was exported. Install another version of it."
                )


def _name_spaces(minari: ModuleType, name: str) -> None:
    """Minari lists name spaces by a file in their folders."""
    space = name.rpartition("/")[0]
    if space and space not in minari.namespace.list_local_namespaces():
        minari.namespace.create_namespace(space)
