"""A stage before training: from an agent and its data to groups of tasks."""

from abc import ABC, abstractmethod

from mtorl import InputError
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.sharing import Sharing


class TaskGrouper(ABC):
    """Finds groups of tasks."""

    @abstractmethod
    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """Groups all tasks.

        Args:
            functions: Losses and gradients of one phase of an agent that has trained a little.
            sharing: With which parameters its tasks compute.
            sampler: Draws windows of all tasks.
            groups: How many groups.
            seed: Of the method's own draws.

        Raises:
            InputError: There are fewer tasks than groups, or tasks share nothing that is trained.
        """


def check_count(groups: int, tasks: int) -> None:
    """Raises InputError unless that many tasks can form that many groups."""
    if not 1 <= groups <= tasks:
        raise InputError(f"groups is {groups}; expected 1 to {tasks}, the number of tasks.")
