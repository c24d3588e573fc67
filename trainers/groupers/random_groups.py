"""Groups that are drawn."""

import numpy as np

from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers.base import TaskGrouper, check_count, known_groups
from mtorl.trainers.seeding import numpy_stream
from mtorl.trainers.sharing import Sharing


class RandomGroups(TaskGrouper):
    """Draws groups of equal sizes (but for one task), whatever the tasks are: the control of all others."""

    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """See `TaskGrouper.fit`."""
        names = functions.agent.spec.task_names
        check_count(groups, len(names))
        turns = np.arange(len(names)) % groups
        labels = numpy_stream(seed, "groups").permutation(turns).tolist()
        return known_groups(names, labels, "RandomGroups()")
