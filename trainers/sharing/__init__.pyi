from .base import Sharing as Sharing
from .frozen_masks import FrozenMasks as FrozenMasks
from .group_masks import GroupMasks as GroupMasks
from .harmony_masks import HarmonyMasks as HarmonyMasks
from .harmony_masks_released import HarmonyMasksReleased as HarmonyMasksReleased
from .magnitude_masks import MagnitudeMasks as MagnitudeMasks
from .random_masks import RandomMasks as RandomMasks
from .shared import Shared as Shared
