"""The geometric mean of the losses."""

from torch import Tensor

from mtorl.trainers.balancers.base import LossWeighting, sizes


class GeometricMean(LossWeighting):
    """Descends the geometric mean of the losses: all weighted losses are equal, whatever their scales.

    Source: Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy, 2019.
    """

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """The derivative of the geometric mean by each loss."""
        values = sizes(losses.detach(), self)
        return values.log().mean().exp() / (len(values) * values)
