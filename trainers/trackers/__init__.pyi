from .base import TrackedRun as TrackedRun
from .base import Tracker as Tracker
from .trackio import Trackio as Trackio
from .wandb import Wandb as Wandb
