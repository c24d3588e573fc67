"""Tasks whose gradients agree with the common direction in the same places (G-HarmoDT).

Reconstructed from the abstract. Deviation 1: k-means sees coordinates in which all distances between the tasks' vectors
are exact, found from their inner products, instead of the vectors of millions of entries.
"""

import numpy as np

from mtorl import checks
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import gramian
from mtorl.trainers.groupers.base import TaskGrouper, check_count, mean_gradients, numbered
from mtorl.trainers.sharing import Sharing


class AgreementKMeans(TaskGrouper):
    """Clusters the agreement vectors of the tasks: gradient times mean gradient, weight by weight.

    Source: Hu et al., Task-Aware Harmony Multi-Task Decision Transformer, 2024 (abstract; the clustering is ours).

    Args:
        batches: Batches whose mean gradients are used.
        cosine: Compare directions of the vectors only, not their lengths.
        restarts: Of k-means; the tightest clustering is kept.
    """

    def __init__(self, batches: int = 10, cosine: bool = True, restarts: int = 40) -> None:
        checks.at_least(1, batches=batches, restarts=restarts)
        self.batches, self.cosine, self.restarts = batches, cosine, restarts

    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """See `TaskGrouper.fit`."""
        names = functions.agent.spec.task_names
        check_count(groups, len(names))
        rows = mean_gradients(functions, sharing, sampler, self.batches)
        return self._cluster(gramian(rows * rows.mean(0)).numpy(), names, groups, seed)

    def _cluster(self, products: np.ndarray, names: tuple[str, ...], groups: int, seed: int) -> Grouping:
        from sklearn.cluster import KMeans
        from sklearn.metrics import silhouette_score

        scale = 1 / np.sqrt(np.maximum(np.diag(products), 1e-300))
        cosines = products * np.outer(scale, scale)
        used = cosines if self.cosine else products
        values, vectors = np.linalg.eigh(used)  # Deviation 1
        points = vectors * np.sqrt(np.maximum(values, 0))
        labels = numbered(KMeans(groups, n_init=self.restarts, random_state=seed).fit_predict(points).tolist())
        score = float(silhouette_score(points, np.array(labels))) if 1 < max(labels) + 1 < len(names) else 0.0
        return Grouping(
            names,
            labels,
            tuple(tuple(row) for row in cosines.tolist()),
            score,
            f"AgreementKMeans(batches={self.batches}, cosine={self.cosine}); score is the mean silhouette",
        )
