"""Ways to share parameters between tasks. A new one is one file here and one line below."""

from mtorl.trainers.sharing.base import Sharing
from mtorl.trainers.sharing.random_masks import RandomMasks
from mtorl.trainers.sharing.shared import Shared

__all__ = ["RandomMasks", "Shared", "Sharing"]
