"""Groups that are given."""

from collections.abc import Sequence

from mtorl import InputError
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers.base import TaskGrouper, check_count, known_groups
from mtorl.trainers.sharing import Sharing


class FixedGroups(TaskGrouper):
    """Takes the groups that it is told.

    Args:
        lists: Names of the tasks of each group; every task is in one.
    """

    def __init__(self, lists: Sequence[Sequence[str]]) -> None:
        self.lists = [list(names) for names in lists]
        listed = [name for names in self.lists for name in names]
        if not all(self.lists) or len(set(listed)) < len(listed):
            raise InputError(f"lists is {self.lists}; expected no empty group, and every task once.")

    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """See `TaskGrouper.fit`."""
        names = functions.agent.spec.task_names
        check_count(groups, len(names))
        if groups != len(self.lists):
            raise InputError(f"groups is {groups}; expected {len(self.lists)}, the number of lists.")
        home = {name: label for label, listed in enumerate(self.lists) for name in listed}
        if home.keys() != set(names):
            raise InputError(f"the lists hold {sorted(home)}; expected the tasks of the run: {sorted(names)}.")
        return known_groups(names, [home[name] for name in names], "FixedGroups()")
