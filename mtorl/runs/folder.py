"""A run's folder: everything needed to judge the run and to do it again.

| file | content |
|---|---|
| `config.yaml` | the resolved configuration |
| `data_spec.json` | what the agent knew of its data; evaluation needs no data set |
| `grouping.json` | the grouping that it was given, as it was then |
| `run.json` | versions, machine, command, threads |
| `log.jsonl`, `tensorboard/` | losses and success on training goals |
| `checkpoints/` | the last few, and the best on training goals |
| `evaluations/` | one report per protocol, and errors of actions |
| `group-0/`, ... | with `per_group`, instead of a log and checkpoints: the run of each group of tasks |
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from jsonargparse import Namespace

from mtorl import InputError
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import Suite
from mtorl.files import read_json, sha256
from mtorl.runs.configuration import Configuration, flatten, read_plain, renamed
from mtorl.runs.data import suite_of
from mtorl.runs.experiment import Experiment
from mtorl.runs.members import GROUPING, folder_of
from mtorl.runs.provenance import MACHINE
from mtorl.runs.zoo import HOME, entry_folder, is_entry
from mtorl.schema import Document, State, check
from mtorl.trainers.checkpoint import CheckpointFolder


class RunFolder:
    """A folder that holds a run, as it was written.

    Args:
        folder: The folder, or `zoo:` and the name of an entry of the zoo.

    Attributes:
        folder: The folder.
        home: Where new results go: the same, but for entries of the zoo.
        spec: What the agent knew of its data.
        per_group: It consists of runs, one for each group of tasks.

    Raises:
        InputError: No run is there.
    """

    def __init__(self, folder: str | Path) -> None:
        shelved = is_entry(folder)
        self.folder = entry_folder(folder) if shelved else Path(folder)
        if not self.folder.name:  # "." has none, and reports need one
            self.folder = self.folder.resolve()
        self.home = HOME / self.folder.name if shelved else self.folder
        if not (self.folder / "config.yaml").exists():
            raise InputError(
                f"no run in {self.folder}: expected a file config.yaml there. Start one with `mtorl train`."
            )
        self.per_group = bool(read_plain(self.folder / "config.yaml").get("per_group"))
        self.spec = DataSpec.from_json(read_json(self.folder / "data_spec.json", "data specification"))

    def machine(self) -> Document:
        """Versions, machine and command with which the run was begun."""
        content = read_json(self.folder / "run.json", "run description")
        check(content, MACHINE, f"run description {self.folder / 'run.json'}")
        return content

    @cached_property
    def configuration(self) -> Configuration:
        """All of its options."""
        return Configuration.read(self.folder / "config.yaml")

    def config(self) -> Namespace:
        """Its options, as they are parsed, for scripts; see `configuration`."""
        return self.configuration.options

    def read_configuration(self, arguments: Sequence[str]) -> Configuration:
        """The same, changed by arguments of a command line."""
        return Configuration.read(self.folder / "config.yaml", arguments) if arguments else self.configuration

    def refuse_another_configuration(self, asked: Configuration, state: State | None) -> None:
        """Raises InputError where a run would go on, or be played, with other options than it began with.

        Options that did not exist when the run was begun are taken to have had their defaults.

        Args:
            asked: With which it is to go on.
            state: The checkpoint that it goes on from; None: there is none yet.
        """
        begun = self.configuration
        if state is None:
            what, differing = "run", asked.differences(begun.plain, "run")
        else:
            what = f"checkpoint at step {state['step']}"
            written = flatten(renamed(read_plain(self.folder / "config.yaml")))
            since = {key: value for key, value in flatten(begun.plain).items() if key not in written}
            differing = asked.differences({**since, **flatten(renamed(state["config"]))}, what)
        if differing:
            raise InputError(
                f"the configuration differs from that of the {what}: {'; '.join(differing)}. Resume with the same "
                "configuration, or start a new run."
            )

    def with_own_groups(self, experiment: Experiment) -> Experiment:
        """An experiment that reads no grouping: the run has the groups that it began with.

        Warns if the file says otherwise by now: whoever writes another one means another run, and this one is to end as
        it would have ended without a stop.
        """
        if experiment.grouping is None:
            return experiment
        file, given = Path(experiment.grouping), self.machine().get("grouping", {})
        if file.is_file() and sha256(file) != given.get("sha256"):
            warnings.warn(
                f"{file} has changed since the run {self.folder} began, which goes on with the groups that it began "
                f"with ({self.folder / GROUPING}). Start a new run for other groups.",
                stacklevel=2,
            )
        return replace(experiment, grouping=None)

    def checkpoints(self, keep: int = 1) -> CheckpointFolder:
        """The run's checkpoints.

        Raises:
            InputError: It is a run of several models, each with checkpoints of its own.
        """
        if self.per_group:
            raise InputError(
                f"{self.folder} holds a model for each of {len(self.spec.grouped)} groups of tasks; this is for one "
                f"model. Give {self.folder / folder_of(0)}, say."
            )
        return CheckpointFolder(self.folder / "checkpoints", keep)

    def suite(self, goal_visible: bool | None = None) -> Suite:
        """The suite of the run's data, with the run's tasks.

        Args:
            goal_visible: Show the goal's position or hide it; as in the data by default.
        """
        suite = suite_of(self.spec)
        return suite if goal_visible is None else suite.changed(goal_visible=goal_visible)

    def refuse_other_data(self, spec: DataSpec, paths: Sequence[str]) -> None:
        """Raises InputError unless the data are those that the run began with."""
        if [entry["sha256"] for entry in spec.data] != [entry["sha256"] for entry in self.spec.data]:
            raise InputError(
                f"the data in {', '.join(paths)} is not what the run {self.folder} began with (the manifests' hashes "
                "differ). Restore it, say where it is with --data, or start a new run."
            )

    def label(self) -> str:
        """Tells the run from others in a folder of reports, wherever it lies: its name and a hash of how it began."""
        began = [(self.folder / name).read_bytes() for name in ("config.yaml", "data_spec.json")]
        return f"{self.folder.name}-{hashlib.sha256(b''.join(began)).hexdigest()[:8]}"
