"""Balancing optimizers. A new one is one file here and one line below."""

from mtorl.trainers.balancers.base import Balancer, LossWeighting
from mtorl.trainers.balancers.equal import Equal

__all__ = ["Balancer", "Equal", "LossWeighting"]
