"""What an interrupted evaluation keeps: its finished episodes, beside where its report is going to be."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.envs.base import Suite
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import Played, Source
from mtorl.files import read_json, refused_write


def evaluation_key(name: str, weights: Any, protocol: Protocol, suite: Suite) -> str:
    """Identifies an evaluation: only episodes of this very one are continued.

    Args:
        name: What the report calls the policy.
        weights: Plain values that identify what acts.
        protocol: How episodes are played.
        suite: The suite that is played.
    """
    content = json.dumps([name, weights, asdict(protocol), suite.describe(), suite.versions()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class Partial:
    """Finished episodes of an evaluation; others that are interrupted may share the file.

    Args:
        out: File of the report; they are kept beside it, as `.partial`. None: nothing is kept.
        key: Which evaluation it is, see `evaluation_key`.
    """

    def __init__(self, out: Path | None, key: str) -> None:
        self._path = out.with_suffix(".partial") if out else None
        self._key = key

    def read(self) -> dict[tuple[str, int], Played]:
        """Kept episodes by task and goal."""
        if self._path is None or not self._path.exists():
            return {}
        played: dict[tuple[str, int], Played] = {}
        for line in self._path.read_text(errors="replace").splitlines():
            try:
                block = json.loads(line)
                episodes = [Played(**entry) for entry in block["episodes"]] if block["evaluation"] == self._key else []
            except (ValueError, TypeError, KeyError):
                continue  # the line that was being written when a process died
            played |= {(episode.task, episode.goal): episode for episode in episodes}
        return played

    def append(self, episodes: Sequence[Played]) -> None:
        """Keeps some more.

        Raises:
            InputError: The file cannot be written.
        """
        if self._path is None:
            return
        block = {"evaluation": self._key, "episodes": [episode._asdict() for episode in episodes]}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write("\n" + json.dumps(block) + "\n")
        except OSError as error:
            raise refused_write(self._path, error) from error

    def remove(self) -> None:
        """Deletes the file: the report is written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def refuse_other_policy(out: Path | None, name: str, source: Source) -> None:
    """Refuses a file that holds the report of a policy of another name; runs keep theirs apart by path.

    Raises:
        InputError: It does.
    """
    if out is None or source.sha256 or not out.exists():
        return
    kept = read_json(out, "evaluation report")
    if isinstance(kept, dict) and kept.get("policy", name) != name:
        raise InputError(
            f"{out} holds the evaluation of another policy, {kept['policy']!r}; found {name!r}. Choose another file, "
            "or delete it."
        )
