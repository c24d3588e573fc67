"""Tasks whose mean gradients point the same way."""

from mtorl import checks
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import gramian
from mtorl.trainers.groupers.base import TaskGrouper, check_count, mean_gradients
from mtorl.trainers.groupers.clusters import grouping
from mtorl.trainers.sharing import Sharing


class CosineAffinity(TaskGrouper):
    """Groups tasks by the cosines of their mean gradients: the cheap control of `GradTAG`, grouped as it groups.

    Args:
        batches: Batches whose mean gradients are used.
    """

    def __init__(self, batches: int = 10) -> None:
        checks.at_least(1, batches=batches)
        self.batches = batches

    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """See `TaskGrouper.fit`."""
        names = functions.agent.spec.task_names
        check_count(groups, len(names))
        cosines = gramian(mean_gradients(functions, sharing, sampler, self.batches)).clamp(-1, 1)
        return grouping(
            cosines.fill_diagonal_(1).numpy(), names, groups, seed, f"CosineAffinity(batches={self.batches})"
        )
