from .agreement_kmeans import AgreementKMeans as AgreementKMeans
from .base import TaskGrouper as TaskGrouper
from .cosine_affinity import CosineAffinity as CosineAffinity
from .dmtg import DMTG as DMTG
from .fixed_groups import FixedGroups as FixedGroups
from .grad_tag import GradTAG as GradTAG
from .random_groups import RandomGroups as RandomGroups
