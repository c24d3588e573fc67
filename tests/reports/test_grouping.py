"""The picture of a grouping."""

import numpy as np

from mtorl.datasets.grouping import Grouping
from mtorl.reports.charts.grouping import draw_grouping


def test_tasks_stand_group_by_group_each_group_in_a_frame() -> None:
    affinity = np.arange(16.0).reshape(4, 4)
    affinity = affinity + affinity.T
    rows = tuple(tuple(row) for row in affinity.tolist())
    figure = draw_grouping(Grouping(("a-v3", "b-v3", "c-v3", "d-v3"), (0, 1, 0, 1), rows, 0.5, "Someone(x=1); words"))
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "c", "b", "d"]
    assert axis.get_title() == "Someone: affinity of tasks, 2 groups"
    shown = axis.images[0].get_array()
    assert shown[0, 1] == affinity[0, 2] and shown[2, 0] == affinity[1, 0]
    assert [(patch.get_xy(), patch.get_width()) for patch in axis.patches] == [((-0.5, -0.5), 2), ((1.5, 1.5), 2)]
