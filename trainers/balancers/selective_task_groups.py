"""Selective task group updates.

Deviations from the published method:
1. With more tasks than `max_groups` the first steps train random groups instead of single tasks, which would cost T
   passes over the batch.
2. Affinities are measured every `probe_every` steps and tasks regrouped every `regroup_every`, instead of always.
3. A change of losses is credited to the group whose step caused it. The released code compares losses taken before two
   successive steps and credits the later one; `official_compat` does the same.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import Balancer, Matrix, sizes
from mtorl.trainers.update import MultiTaskUpdate

LEAST_AFFINITY = 1e-12
"""A task whose step does not help itself by this much is not compared with others."""


class SelectiveTaskGroups(Balancer):
    """Tasks that help each other are grouped, and the groups take their steps in turn, on the same batch.

    How much a step of one task helps another is measured by the losses before and after it, during training.

    Source: Jeong and Yoon, Selective Task Group Updates for Multi-Task Optimization, 2025.

    Args:
        beta: Share of a new measurement in the affinities.
        warmup: Training steps before tasks are grouped by affinity.
        max_groups: Groups in these first steps. Later the affinities decide: as many steps per batch as groups.
        probe_every: Training steps between two measurements.
        regroup_every: Training steps between two groupings.
        official_compat: Credit affinities as the released code does.
    """

    needs = "losses of some tasks, and several steps on one batch"
    affinity: Tensor
    labels: Tensor
    calls: Tensor

    def __init__(
        self,
        beta: float = 0.01,
        warmup: int = 100,
        max_groups: int = 8,
        probe_every: int = 10,
        regroup_every: int = 100,
        official_compat: bool = False,
    ) -> None:
        super().__init__()
        checks.within("(0, 1]", beta=beta)
        checks.at_least(1, warmup=warmup, max_groups=max_groups, probe_every=probe_every, regroup_every=regroup_every)
        self.beta, self.warmup, self.max_groups = beta, warmup, max_groups
        self.probe_every, self.regroup_every, self.official_compat = probe_every, regroup_every, official_compat

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """Affinity of every ordered pair (source, target), the group of every task, and how many batches there were."""
        return {
            "affinity": torch.zeros(tasks, tasks, dtype=torch.float64),
            "labels": torch.arange(tasks),
            "calls": torch.zeros((), dtype=torch.int64),
        }

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """One step for each group, in random order."""
        call = int(self.calls)
        self.calls += 1
        self._regroup(call)
        ids = update.task_ids.cpu()
        groups = [torch.nonzero(self.labels[ids] == label).flatten() for label in self.labels[ids].unique()]
        groups = [groups[number] for number in torch.randperm(len(groups), generator=self._generator).tolist()]
        probing = call % self.probe_every == 0  # Deviation 2
        if probing and self.official_compat and len(groups) == 1:
            groups = groups * 2  # or nothing could be measured any more
        before = self._all_losses(update) if probing and not self.official_compat else None
        numbers: dict[str, float] = {}
        for group in groups:
            if probing and self.official_compat:
                now = self._all_losses(update)
                self._learn(ids, group, before, now)
                before = now
            part = update.select(group)
            numbers = part.descend_loss(part.losses().values.mean())
            if probing and not self.official_compat:  # Deviation 3
                now = self._all_losses(update)
                self._learn(ids, group, before, now)
                before = now
        return numbers | {"groups": float(len(groups))}

    def _all_losses(self, update: MultiTaskUpdate) -> Matrix:
        with torch.no_grad():
            return sizes(update.losses().values.to("cpu", torch.float64), self).numpy()

    def _learn(self, ids: Tensor, group: Tensor, before: Matrix | None, after: Matrix) -> None:
        if before is None:
            return
        places = ids.numpy()
        part = self.affinity.numpy()[np.ix_(places, places)]
        self.affinity[np.ix_(places, places)] = torch.from_numpy(
            updated_affinity(part, group.numpy(), before, after, self.beta)
        )

    def _regroup(self, call: int) -> None:
        """Random groups at first (or single tasks, if there are few); then by affinity, now and then."""
        tasks = len(self.labels)
        if call < self.warmup:
            if tasks > self.max_groups:  # Deviation 1
                self.labels[torch.randperm(tasks, generator=self._generator)] = torch.arange(tasks) % self.max_groups
        elif (call - self.warmup) % self.regroup_every == 0:  # Deviation 2
            found = group_by_affinity(self.affinity.numpy())
            if found is not None:
                self.labels[:] = torch.from_numpy(found)


def updated_affinity(affinity: Matrix, group: NDArray[np.int64], before: Matrix, after: Matrix, beta: float) -> Matrix:
    """Moves the affinities from the tasks of a group towards what its step did.

    Args:
        affinity: `[T, T]`, source times target.
        group: Positions of the tasks that took the step.
        before: Losses `[T]` before it.
        after: Losses `[T]` after it.
        beta: Share of the new measurement.

    Returns:
        `[T, T]`.
    """
    change = (1 - after / before) / len(group)
    inside = np.isin(np.arange(len(change)), group)
    moved = affinity.copy()
    for source in group:
        own = change[source]
        value = np.where(inside & (change * own < 0), -np.maximum(change, own), change)
        known = ~((np.arange(len(change)) == source) & (change < 0))  # a task that hurt itself says nothing of itself
        moved[source] = np.where(known, (1 - beta) * affinity[source] + beta * value, affinity[source])
    return moved


def group_by_affinity(affinity: Matrix) -> NDArray[np.int64] | None:
    """Labels `[T]` of groups found by affinity propagation, relative to each task's effect on itself.

    Tasks without a positive effect on themselves stay alone. None if the clustering does not converge.
    """
    from sklearn.cluster import AffinityPropagation
    from sklearn.exceptions import ConvergenceWarning

    own = np.diag(affinity)
    known = np.flatnonzero(own > LEAST_AFFINITY)
    labels = np.arange(len(own))
    if len(known) < 2:
        return labels
    relative = affinity[np.ix_(known, known)] / own[known]
    similarity = (relative + relative.T) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        for patience in (50, 150, 250):
            try:
                clustering = AffinityPropagation(
                    affinity="precomputed", convergence_iter=patience, max_iter=20 * patience, random_state=0
                )
                found = clustering.fit_predict(similarity)
            except ConvergenceWarning:
                continue
            labels[known] = known[[np.flatnonzero(found == label)[0] for label in found]]
            return labels
    return None
