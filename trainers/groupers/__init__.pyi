from .agreement_kmeans import AgreementKMeans as AgreementKMeans
from .base import TaskGrouper as TaskGrouper
