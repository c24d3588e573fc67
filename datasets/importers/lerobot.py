"""Data sets of LeRobot, Hugging Face's collection. Their files are read here; of LeRobot nothing is needed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.card import Card
from mtorl.datasets.enclosed import MOST
from mtorl.datasets.episode import Episode, as_flags
from mtorl.datasets.importers.base import Contents, Importer, check_alike
from mtorl.datasets.importers.lerobot_folder import BOOKKEEPING, Folder, find_folder, is_folder, read_folder
from mtorl.datasets.importers.lerobot_rows import Survey, blocks, survey, widths
from mtorl.datasets.importers.raw_episodes import cleaned, column, table

STATE, ACTION = "observation.state", "action"
REWARD, SUCCESS, DONE, CUT = "next.reward", "next.success", "next.done", "next.truncated"
NAMED = 20
"""Columns, tasks and sentences that one message or note names, at most."""


@dataclass(frozen=True)
class _Set:
    """A data set that was looked through.

    Attributes:
        folder: What it says of itself.
        found: Its episodes.
        names: Of its tasks that have episodes, by their indices.
        columns: Those that are read, and how many numbers a row of each has.
        dimensions: O and A.
    """

    folder: Folder
    found: Survey
    names: Mapping[int, str]
    columns: Mapping[str, int]
    dimensions: tuple[int, int]


class LeRobot(Importer):
    """Data sets of LeRobot v2.0, v2.1 and v3.0: folders with Parquet files. Nothing is downloaded; images are not read.

    Tasks are sentences there; they are stored under names made of them, `pick-and-place-a-puck-to-a-goal`, unless
    --tasks names them. An episode ends where its index changes; its last observation stands for the one after it.

    Args:
        tasks: Names of tasks by their sentences or indices, such as `{"Push the puck to a goal": push-v3}`. Tasks of
            the same name become one.
        observations: Columns that are read side by side as observations.
        done_terminates: `next.done` says that the environment ended an episode, where `next.truncated` does not say
            otherwise; by default every episode counts as cut off.
        zero_rewards: Take 0 for rewards, where the data have none; otherwise they are refused.
        clip_actions: Set actions beyond [-1, 1] on the bound; otherwise they are refused.

    Source: Cadene et al., "LeRobot: State-of-the-art Machine Learning for Real-World Robotics in Pytorch", 2024, and
        its code that writes them, which was read and not copied.
    """

    def __init__(
        self,
        tasks: dict[str, str] | None = None,
        observations: Sequence[str] = (STATE,),
        done_terminates: bool = False,
        zero_rewards: bool = False,
        clip_actions: bool = False,
    ) -> None:
        self.tasks, self.observations = dict(tasks or {}), tuple(observations)
        if not self.observations or len({*self.observations}) < len(self.observations):
            raise InputError(f"observations are {list(self.observations)}; expected columns, each once.")
        self.done_terminates, self.zero_rewards, self.clip_actions = done_terminates, zero_rewards, clip_actions

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the file meta/info.json."""
        return is_folder(path)

    def paths(self, words: Sequence[str]) -> list[Path]:
        """Folders, or ids of data sets that LeRobot keeps in the folder HF_LEROBOT_HOME.

        Raises:
            InputError: There is no such data set on this machine.
        """
        return [find_folder(word) for word in words]

    def contents(self, paths: Sequence[Path]) -> Contents:
        """All tasks that have episodes, in the order of their indices."""
        sets = self._sets(paths)
        check_alike(paths, [it.dimensions for it in sets])
        names = tuple(dict.fromkeys(name for it in sets for name in it.names.values()))
        if len(names) * sets[0].dimensions[0] > MOST:
            raise InputError(f"{paths[0]} has {len(names)} tasks of {sets[0].dimensions[0]} numbers; that is too many.")
        licences = {it.folder.licence for it in sets}
        facts = (f"LeRobot data set {it.folder.path.resolve().name}: {', '.join(it.folder.facts)}" for it in sets)
        blind = {name for it in sets if SUCCESS not in it.columns for name in it.names.values()}
        return Contents(
            names,
            *sets[0].dimensions,
            Card("; ".join(facts), licences.pop() if len(licences) == 1 else None, tuple(self._notes(sets))),
            returns_only=tuple(name for name in names if name in blind),
            episodes=sum(len(it.found.episodes) for it in sets),
        )

    def episodes(self, paths: Sequence[Path]) -> Iterator[Episode]:
        """In the order of the data sets, and of their indices."""
        for it in self._sets(paths):
            for number, rows, where in blocks(it.folder.files, it.found, it.columns):
                yield self._episode(it.names[int(it.found.tasks[number])], rows, where)

    def _episode(self, task: str, rows: Mapping[str, NDArray[Any]], where: str) -> Episode:
        observations = np.concatenate([table(rows[name], name, where) for name in self.observations], axis=1)
        steps = len(observations)

        def flags(name: str) -> NDArray[np.bool_]:
            values = column(rows[name], name, where, steps) if name in rows else np.zeros(steps, dtype=np.bool_)
            return as_flags(values, f"{name} of {where}")

        ended = flags(DONE) & ~flags(CUT)
        if ended[:-1].any():
            raise InputError(
                f"{where}: {DONE} is set at step {int(ended.argmax())} of {steps}; expected it at the last one alone. "
                "Leave --done_terminates out to import the episode as it is."
            )
        episode = Episode(
            task,
            np.concatenate([observations, observations[-1:]]),
            table(rows[ACTION], "actions", where),
            column(rows[REWARD], "rewards", where, steps) if REWARD in rows else np.zeros(steps, dtype=np.float32),
            flags(SUCCESS),
            ended,
            (np.arange(steps) == steps - 1) & ~ended,
        )
        return cleaned(episode, where, self.clip_actions)

    def _sets(self, paths: Sequence[Path]) -> list[_Set]:
        folders = [read_folder(path) for path in paths]
        self._check_asked(folders)
        return [self._looked_through(it) for it in folders]

    def _check_asked(self, folders: Sequence[Folder]) -> None:
        """Raises InputError if `tasks` names something that no data set has."""
        known = {sentence for it in folders for sentence in it.sentences.values()}
        unknown = [key for key in self.tasks if key not in known and not key.isdecimal()]
        if unknown:
            raise InputError(
                f"--tasks names the tasks {unknown[:NAMED]}; {folders[0].path} has {sorted(known)[:NAMED]}. Name tasks "
                "by their sentences, or by their indices."
            )

    def _looked_through(self, folder: Folder) -> _Set:
        missing = [name for name in (*self.observations, ACTION) if name not in folder.features]
        if missing:
            raise InputError(
                f"{folder.path} has no {' and no '.join(missing)}; it has {list(folder.features)[:NAMED]}."
                + (" Images and videos are not read: agents here see states." if folder.images else "")
                + " Choose other columns with --observations."
            )
        found = survey(folder.files)
        if REWARD not in found.kinds and not self.zero_rewards:
            raise InputError(
                f"{folder.path} has no {REWARD}; expected a reward for each step. If only actions are to be learned "
                "from it, import it with --zero_rewards true."
            )
        optional = [REWARD, SUCCESS, *((DONE, CUT) if self.done_terminates else ())]
        columns = (*self.observations, ACTION, *(name for name in optional if name in found.kinds))
        if self.done_terminates and DONE not in columns:
            raise InputError(f"{folder.path} has no {DONE}. Leave --done_terminates out.")
        first = next(path for path, rows in zip(folder.files, found.rows, strict=True) if rows)
        sizes = widths(first, columns, found.kinds)
        seen = sum(sizes[name] for name in self.observations)
        return _Set(folder, found, self._names(folder, found), sizes, (seen, sizes[ACTION]))

    def _names(self, folder: Folder, found: Survey) -> dict[int, str]:
        """Names of the tasks that have episodes, by their indices."""
        names: dict[int, str] = {}
        made: dict[str, int] = {}
        for index in np.unique(found.tasks).tolist():
            sentence = folder.sentences.get(index)
            asked = self.tasks.get(str(index)) or self.tasks.get(sentence or "")
            if sentence is None and asked is None:
                count = int((found.tasks == index).sum())
                raise InputError(
                    f"{folder.path}: {count} episodes are of the task {index}, which has no name in its meta/tasks; "
                    f"there are names of {len(folder.sentences)}. Give it one with --tasks '{{\"{index}\": NAME}}'."
                )
            names[index] = asked or _name(sentence or "", index)
            if not asked and made.setdefault(names[index], index) != index:
                other = folder.sentences[made[names[index]]]
                raise InputError(
                    f"{folder.path}: the tasks {other[:100]!r} and {str(sentence)[:100]!r} would both be called "
                    f"{names[index]}. Name them with --tasks."
                )
        return names

    def _notes(self, sets: Sequence[_Set]) -> Iterator[str]:
        for it in sets:
            name = it.folder.path.resolve().name
            held = {*it.folder.features, *it.found.kinds}
            unread = sorted(held - {*it.columns, *BOOKKEEPING})
            if unread:
                yield f"Not read of {name}: {_some(unread)}."
            yield from _missing(it, name)
            if DONE in held and not self.done_terminates:
                yield (
                    f"{DONE} of {name} does not say whether the environment ended an episode or a limit did: all count "
                    "as cut off."
                )
            if REWARD not in it.columns:
                yield f"{name} has no rewards: 0 stands in their place."
        yield "The state after an episode's last step is not in the data; the last observation stands in its place."
        where = "" if self.clip_actions else ", where rounding had moved them"
        yield f"Actions beyond [-1, 1] were set on the bound{where}."


def _missing(it: _Set, name: str) -> Iterator[str]:
    """What a data set says that it has, and has not."""
    empty = [f"{index} ({text[:100]})" for index, text in it.folder.sentences.items() if index not in it.names]
    if empty:
        yield f"No episodes in {name} of the tasks {_some(empty)}."
    for word, count in (("episodes", len(it.found.episodes)), ("tasks", len(it.folder.sentences))):
        announced = it.folder.announced.get(word, count)
        if announced != count:
            yield f"{name} says that it has {announced} {word}; there are {'names of ' * (word == 'tasks')}{count}."


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(word[:120] for word in words[:NAMED]) + more


def _name(sentence: str, index: int) -> str:
    """A name for a task: its sentence, in one word. What is one word already, such as `assembly-v3`, is kept."""
    if re.fullmatch(r"[\w.\-/]{1,100}", sentence):
        return sentence
    return re.sub(r"\W+", "-", sentence.casefold()).strip("-_")[:100] or f"task-{index}"
