"""The episodes of Meta-World v2 that MTDiff (He et al., 2023) and HarmoDT (Hu et al., 2024) train on."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.card import Card
from mtorl.datasets.episode import Episode
from mtorl.datasets.importers.archives import GROWTH, SMALL, WHOLE, open_npz
from mtorl.datasets.importers.base import Contents, Importer
from mtorl.datasets.importers.harmodt_files import TaskFiles, find_tasks, looks_like_tasks
from mtorl.datasets.importers.pickles import PickledArray, read_object_array
from mtorl.datasets.importers.raw_episodes import check_following, cleaned, column, table

Part = Literal["near_optimal", "sub_optimal", "all"]
_FIRST: dict[Part, int | None] = {"near_optimal": 2000, "sub_optimal": 1000, "all": None}
"""How many files of a task belong to each part: the first ones, as HarmoDT's own loader takes them."""
HORIZON = 500
"""Steps of an episode of Meta-World."""
_NEEDED = ("observations", "actions", "rewards")
_ENDS = ("terminals", "dones")
_KEYS = (*_NEEDED, *_ENDS, "next_observations")
NOTES = (
    "Recorded in Meta-World v2: its dynamics and rewards are not those of v3, in which policies are played; returns "
    "are not comparable.",
    "The files do not say which steps were successful; evaluation takes success from the simulator.",
    "Their end flags mark the time limit: Meta-World never ends an episode by itself.",
)
"""What users should know of all such data, a sentence each."""

Arrays = Mapping[str, NDArray[Any]]
"""The arrays of one episode."""


class HarmoDT(Importer):
    """Archives of HarmoDT and MTDiff: episodes of Meta-World v2 in folders `<task>/<i>.npz`, or `<task>_prompt.npy`.

    MTDiff's folders between (`<task>/<any>/dataset/<i>.npz`) are found, too. Tasks get the names of v3. The pickled
    prompt files are read without running anything of them.

    Args:
        part: `near_optimal`: the first 2000 episodes of each task. `sub_optimal`: the first 1000, recorded while the
            policy still learned. `all`: all that are there.
        clip_actions: Set actions beyond [-1, 1] on the bound; otherwise they are refused.

    Source: "Diffusion Model is an Effective Planner and Data Synthesizer for Multi-Task Reinforcement Learning" (He et
    al., NeurIPS 2023) and "HarmoDT: Harmony Multi-Task Decision Transformer for Offline Reinforcement Learning" (Hu et
    al., ICML 2024), and the loaders in their code, which was read and not copied.
    """

    def __init__(self, part: Part = "near_optimal", clip_actions: bool = False) -> None:
        checks.one_of("part", part, Part)
        self.part, self.clip_actions = part, clip_actions

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the names of files: numbers, or `_prompt.npy` at the end."""
        return looks_like_tasks(path)

    def contents(self, paths: Sequence[Path]) -> Contents:
        """All tasks that are there; they are played in Meta-World v3."""
        found, others = find_tasks(paths)
        episodes = {it.task: len(read_object_array(it.files[0])) if it.pickled else len(it.files) for it in found}
        chosen = {task: min(count, _FIRST[self.part] or count) for task, count in episodes.items()}
        first = next(self._read(found[0]), None)
        if first is None:
            raise InputError(f"{found[0].files[0]} holds no episodes; expected at least one.")
        names = tuple(episodes)
        counts = ", ".join(f"{task} {chosen[task]} of {episodes[task]}" for task in names)
        notes = [*NOTES, f"Episodes ({self.part}), of those that were there: {counts}."]
        gaps = ", ".join(f"{it.task} {it.missing}" for it in found if it.missing)
        notes += [f"Numbers of files that are left out: {gaps}."] if gaps else []
        notes += [f"Beside the tasks there were {', '.join(path.name for path in others[:20])}."] if others else []
        if "next_observations" not in first[0]:
            notes.append("The state after the last step is not in the files; the last observation stands in its place.")
        return Contents(
            names,
            first[0]["observations"].shape[1],
            first[0]["actions"].shape[1],
            Card("recorded by agents that learned online, for MTDiff and HarmoDT", notes=tuple(notes)),
            suite={"class_path": "mtorl.envs.metaworld.MetaWorld", "init_args": {"tasks": list(names)}},
            horizon=HORIZON,
            versions={"meta-world": "v2"},
            returns_only=names,
            episodes=sum(chosen.values()),
        )

    def episodes(self, paths: Sequence[Path]) -> Iterator[Episode]:
        """Task by task, in the order of their numbers."""
        for found in find_tasks(paths)[0]:
            for arrays, where in islice(self._read(found), _FIRST[self.part]):
                yield cleaned(_episode(found.task, arrays, where), where, self.clip_actions)

    def _read(self, found: TaskFiles) -> Iterator[tuple[Arrays, str]]:
        """The arrays of each episode of a task, and their place."""
        if found.pickled:
            yield from _pickled(found.files[0])
            return
        for path in found.files:
            with open_npz(path) as archive:
                names = [name for name in _KEYS if name in archive.names]
                held = sum(archive.header(name).size for name in names)
                if held > WHOLE:
                    raise InputError(f"{path}: an episode has {held} bytes; expected at most {WHOLE}.")
                arrays = {name: archive.whole(name) for name in names}
            where = f"{path}, episode {path.stem}"
            yield _checked(arrays, where), where


def _pickled(path: Path) -> Iterator[tuple[Arrays, str]]:
    """The episodes of a pickled file; one may be named in it again and again, but not without end."""
    size = left = SMALL + GROWTH * path.stat().st_size
    for number, content in enumerate(read_object_array(path)):
        where = f"{path}, episode {number}"
        if not isinstance(content, dict):
            raise InputError(f"{where} is of the kind {type(content).__name__}; expected a dict of arrays.")
        held = {name: content[name] for name in _KEYS if name in content}
        arrays = {}
        for name, value in held.items():
            if not isinstance(value, PickledArray) or not isinstance(value.content, np.ndarray):
                raise InputError(f"{where}: {name} are no array of numbers.")
            arrays[name] = value.content
        left -= sum(values.nbytes for values in arrays.values())
        if left < 0:
            raise InputError(f"{path} unpacks to more than {size} bytes, far more than its size. It is damaged.")
        yield _checked(arrays, where), where


def _checked(arrays: dict[str, NDArray[Any]], where: str) -> Arrays:
    """The same, with observations and actions in rows; raises InputError if something is missing."""
    missing = [name for name in _NEEDED if name not in arrays]
    if missing or not any(name in arrays for name in _ENDS):
        raise InputError(
            f"{where} lacks {' and '.join(missing or ['terminals (or dones)'])}; of {', '.join(_KEYS)} it has "
            f"{', '.join(arrays) or 'nothing'}. Arrays of other names are read by `mtorl import npz`."
        )
    wide = [name for name in ("observations", "actions", "next_observations") if name in arrays]
    return arrays | {name: table(arrays[name], name, where) for name in wide}


def _episode(task: str, arrays: Arrays, where: str) -> Episode:
    observations, actions = arrays["observations"], arrays["actions"]
    steps = len(actions)
    if not steps or len(observations) != steps:
        raise InputError(f"{where} has {len(observations)} observations and {steps} actions; expected one each a step.")
    ends = column(next(arrays[name] for name in _ENDS if name in arrays), "end flags", where, steps)
    if (ends[:-1] != 0).any():
        raise InputError(
            f"{where}: an episode ends at step {int((ends != 0).argmax())} of {steps}; expected one episode for each "
            "file, in their order. Files of several are read by `mtorl import npz`."
        )
    following = arrays.get("next_observations")
    if following is not None:
        if following.shape != observations.shape:
            raise InputError(f"{where}: next_observations have the shape {following.shape}, not {observations.shape}.")
        check_following(observations, following, where)
    last = (observations if following is None else following)[-1:]
    none, end = np.zeros(steps, dtype=np.bool_), np.arange(steps) == steps - 1
    rewards = column(arrays["rewards"], "rewards", where, steps)
    return Episode(task, np.concatenate([observations, last]), actions, rewards, none, none, end)
