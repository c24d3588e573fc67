"""Balancing optimizers. A new one is one file here and one line below."""

from mtorl.trainers.balancers.aligned_mtl import AlignedMTL
from mtorl.trainers.balancers.base import Balancer, GradientAggregation, LossWeighting, MatrixAggregation
from mtorl.trainers.balancers.bayesagg import BayesAgg
from mtorl.trainers.balancers.cagrad import CAGrad
from mtorl.trainers.balancers.cdtt import CDTT
from mtorl.trainers.balancers.conflict_free import ConFIG
from mtorl.trainers.balancers.connection_strength import ConnectionStrength
from mtorl.trainers.balancers.dbmtl import DBMTL
from mtorl.trainers.balancers.dualproj import DualProj
from mtorl.trainers.balancers.dwa import DWA
from mtorl.trainers.balancers.equal import Equal
from mtorl.trainers.balancers.famo import FAMO
from mtorl.trainers.balancers.fixed_weights import FixedWeights
from mtorl.trainers.balancers.geometric_mean import GeometricMean
from mtorl.trainers.balancers.graddrop import GradDrop
from mtorl.trainers.balancers.gradnorm import GradNorm
from mtorl.trainers.balancers.gradvac import GradVac
from mtorl.trainers.balancers.imtl import IMTLG, IMTLL
from mtorl.trainers.balancers.mgda import MGDA
from mtorl.trainers.balancers.moco import MoCo
from mtorl.trainers.balancers.nash import FairGrad, NashMTL
from mtorl.trainers.balancers.pcgrad import PCGrad
from mtorl.trainers.balancers.random_weighting import RandomWeighting
from mtorl.trainers.balancers.selective_task_groups import SelectiveTaskGroups
from mtorl.trainers.balancers.stch import STCH
from mtorl.trainers.balancers.torchjd import TorchJD
from mtorl.trainers.balancers.uncertainty import Uncertainty
from mtorl.trainers.balancers.upgrad import UPGrad
from mtorl.trainers.balancers.weighted_pcgrad import WeightedPCGrad
from mtorl.trainers.balancers.wrappers import Averaged, Layerwise, Prescaled, Rescaled, Reused, Subsampled

__all__ = [
    "CDTT",
    "DBMTL",
    "DWA",
    "FAMO",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "STCH",
    "AlignedMTL",
    "Averaged",
    "Balancer",
    "BayesAgg",
    "CAGrad",
    "ConFIG",
    "ConnectionStrength",
    "DualProj",
    "Equal",
    "FairGrad",
    "FixedWeights",
    "GeometricMean",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientAggregation",
    "Layerwise",
    "LossWeighting",
    "MatrixAggregation",
    "MoCo",
    "NashMTL",
    "PCGrad",
    "Prescaled",
    "RandomWeighting",
    "Rescaled",
    "Reused",
    "SelectiveTaskGroups",
    "Subsampled",
    "TorchJD",
    "UPGrad",
    "Uncertainty",
    "WeightedPCGrad",
]
