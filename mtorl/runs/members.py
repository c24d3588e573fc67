"""A model for each group of tasks: the runs that a run with `per_group` consists of."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mtorl import InputError
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.runs.configuration import Configuration
from mtorl.runs.data import describe_data
from mtorl.runs.experiment import Experiment

GROUPING = "grouping.json"
"""A run's copy of the grouping that it was given."""


@dataclass(frozen=True)
class Member:
    """A run that is to be trained.

    Attributes:
        configuration: All of its options.
        experiment: The objects that these describe.
        spec: What is known of its data.
    """

    configuration: Configuration
    experiment: Experiment
    spec: DataSpec

    def check(self, stores: Sequence[EpisodeStore]) -> None:
        """See `Experiment.check`."""
        self.experiment.check(stores, self.spec)


def folder_of(group: int) -> str:
    """Name of the folder of a group's run within that of the whole."""
    return f"group-{group}"


def members_of(whole: Member, folder: Path, stores: Sequence[EpisodeStore]) -> list[Member]:
    """The runs of the groups, in their order: the same options, with the tasks of one group.

    Args:
        whole: The run of all tasks.
        folder: Where it is: not always where its configuration says, folders may be moved.
        stores: Its data.

    Raises:
        InputError: The tasks are in no groups.
    """
    if whole.spec.groups is None:
        raise InputError(
            "per_group trains a model for each group of tasks, but there are no groups. Add --grouping FILE."
        )
    return [_member(whole, folder, stores, group) for group in range(len(whole.spec.grouped))]


def _member(whole: Member, folder: Path, stores: Sequence[EpisodeStore], group: int) -> Member:
    experiment, names = whole.experiment, list(whole.spec.grouped[group])
    most = experiment.tasks_per_batch and min(experiment.tasks_per_batch, len(names))
    out = whole.configuration.out
    configuration = whole.configuration.changed(
        out=str(out / folder_of(group)),
        tasks=names,
        tasks_per_batch=most,
        grouping=str(out / GROUPING),
        per_group=False,
    )
    own = replace(
        experiment,
        out=str(folder / folder_of(group)),
        tasks=names,
        tasks_per_batch=most,
        grouping=str(folder / GROUPING),
        per_group=False,
    )
    spec = describe_data(stores, names, pooled=experiment.statistics == "data")
    return Member(configuration, own, replace(spec, groups=(0,) * len(names)))


def joined_digest(digests: Sequence[str | None]) -> str | None:
    """One hash for those of several models, itself if there is one; None if one is not known, or there are none."""
    found = [digest for digest in digests if digest is not None]
    if not found or len(found) < len(digests):
        return None
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
