from .base import Head as Head
from .base import OutputHeads as OutputHeads
from .base import TaskLosses as TaskLosses
from .base import masked_mean as masked_mean
from .gaussian import GaussianHead as GaussianHead
from .gaussian import make_head as make_head
from .regression import RegressionHead as RegressionHead
