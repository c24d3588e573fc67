"""Ways to share parameters between tasks. A new one is one file here and one line below."""

from mtorl.trainers.sharing.base import Sharing
from mtorl.trainers.sharing.frozen_masks import FrozenMasks
from mtorl.trainers.sharing.group_masks import GroupMasks
from mtorl.trainers.sharing.harmony_masks import HarmonyMasks
from mtorl.trainers.sharing.harmony_masks_released import HarmonyMasksReleased
from mtorl.trainers.sharing.magnitude_masks import MagnitudeMasks
from mtorl.trainers.sharing.random_masks import RandomMasks
from mtorl.trainers.sharing.shared import Shared

__all__ = [
    "FrozenMasks",
    "GroupMasks",
    "HarmonyMasks",
    "HarmonyMasksReleased",
    "MagnitudeMasks",
    "RandomMasks",
    "Shared",
    "Sharing",
]
