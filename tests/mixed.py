"""A suite of which some tasks have no success flag."""

import numpy as np

from mtorl.envs.base import Step
from mtorl.envs.point_reach import PointEnv, PointReach


class MixedReach(PointReach):
    """PointReach, whose tasks `away-i` only say what they reward; `away-0` to `away-2` have reference returns."""

    @property
    def returns_only(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(name for name in self.task_names if name.startswith("away"))

    def make(self, task: int) -> PointEnv:
        name = self.task_names[task]
        return Silent(name) if name in self.returns_only else PointEnv(name)

    def return_bounds(self, task: int) -> tuple[float, float] | None:
        name = self.task_names[task]
        return (2.0, 12.0) if name in self.returns_only and name != "away-3" else None


class Silent(PointEnv):
    def step(self, action: np.ndarray) -> Step:
        return super().step(action)._replace(success=False)
