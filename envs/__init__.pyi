from .base import Env as Env
from .base import RolloutContext as RolloutContext
from .base import Step as Step
from .base import Suite as Suite
from .base import build_suite as build_suite
from .metaworld import MetaWorld as MetaWorld
from .point_reach import PointReach as PointReach
from .policies import Policy as Policy
