"""Ways to find out which tasks belong together. A new one is one file here and one line below."""

from mtorl.trainers.groupers.agreement_kmeans import AgreementKMeans
from mtorl.trainers.groupers.base import TaskGrouper

__all__ = ["AgreementKMeans", "TaskGrouper"]
