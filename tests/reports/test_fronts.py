"""Pictures of policies along their manifolds, of successes that are known in advance."""

from dataclasses import replace

import numpy as np

from mtorl.envs import PointReach
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport, Played, Source
from mtorl.reports.charts.base import picture
from mtorl.reports.charts.fronts import draw_front
from mtorl.runs.fronts import Front

NAMES = ("towards-0", "away-0", "towards-2", "away-2")


def front(tasks: int, points: list[tuple[float, ...]]) -> Front:
    """At every point, of 10 episodes of a task as many succeed as its share says."""
    suite, names = PointReach(list(NAMES[:tasks])), NAMES[:tasks]
    made = [
        EvalReport(
            "policy",
            names,
            tuple(
                Played(name, goal, goal < round(10 * share), False, 0.0, 5)
                for name, share in zip(names, point, strict=True)
                for goal in range(10)
            ),
            Protocol(goals=10),
            suite.describe(),
            suite.versions(),
            Source("last", 10, "0", point=point),
        )
        for point in points
    ]
    return Front(names, tuple(made))


def test_two_tasks_are_an_edge() -> None:
    figure = draw_front(front(2, [(1.0, 0.0), (0.7, 0.3), (0.0, 1.0)]))
    left, right = figure.axes[:2]
    assert [line.get_xydata().tolist() for line in left.lines] == [
        [[0.0, 100.0], [0.3, 70.0], [1.0, 0.0]],
        [[0.0, 0.0], [0.3, 30.0], [1.0, 100.0]],
    ]
    assert right.collections[0].get_offsets().tolist() == [[100.0, 0.0], [70.0, 30.0], [0.0, 100.0]]
    assert right.get_xlabel() == "success in towards-0, %"
    assert picture(figure).startswith("data:image/svg+xml")


def test_three_tasks_are_triangles() -> None:
    points = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2, 0.4, 0.4)]
    figure = draw_front(front(3, points))
    assert len(figure.axes) == 6, "each with its bar of colours"
    for number, axis in enumerate(figure.axes[:3]):
        dots = axis.collections[0]
        np.testing.assert_allclose(dots.get_array(), [100 * point[number] for point in points])
        inside = [f"{100 * point[number]:.0f}" for point in points]
        assert [text.get_text() for text in axis.texts] == [*inside, *NAMES[:3]]
        places = np.asarray(dots.get_offsets())
        np.testing.assert_allclose(places[3], np.array(points[3]) @ places[:3])


def test_more_tasks_are_rows() -> None:
    corners = [tuple(float(place == task) for place in range(4)) for task in range(4)]
    found = front(4, [*corners, (0.25,) * 4])
    assert found.names == [*(f"all {name}" for name in NAMES), "equal"]
    axis = draw_front(found).axes[0]
    assert axis.images[0].get_array().tolist() == [*(100 * np.eye(4)).tolist(), [20.0] * 4]
    assert [text.get_text() for text in axis.get_yticklabels()] == found.names


def test_it_is_of_evaluations_of_the_same_weights_whatever_the_number_of_goals() -> None:
    found = front(2, [(1.0, 0.0)])
    usual = replace(found.reports[0], source=Source("last", 10, "0"))
    assert found.is_of(usual) and found.is_of(replace(usual, protocol=Protocol(goals=3)))
    assert not found.is_of(replace(usual, source=Source("last", 10, "1")))
    assert not found.is_of(replace(usual, protocol=Protocol("official", goals=10)))


def test_tasks_without_success_have_axes_of_their_own() -> None:
    """In an edge the second task earns its share; in rows the last two do."""

    def earning(found: Front, count: int) -> Front:
        silent = found.reports[0].task_names[-count:]
        reports = []
        for it in found.reports:
            episodes = tuple(
                one._replace(success=False, reward=1000.0 + one.goal + 100 * one.success) if one.task in silent else one
                for one in it.episodes
            )
            reports.append(replace(it, episodes=episodes, returns_only=silent))
        return Front(found.mixed, tuple(reports))

    figure = draw_front(earning(front(2, [(1.0, 0.0), (0.7, 0.3), (0.0, 1.0)]), 1))
    left, right, returns = figure.axes[:3]
    assert left.lines[0].get_ydata().tolist() == [100.0, 70.0, 0.0] and len(left.lines) == 1
    assert returns.lines[0].get_ydata().tolist() == [1004.5, 1034.5, 1104.5]
    assert right.get_ylabel() == "return in away-0" and right.get_xlim()[1] == 103
    corners = [tuple(float(place == task) for place in range(4)) for task in range(4)]
    axes = draw_front(earning(front(4, [*corners, (0.25,) * 4]), 2)).axes
    success, earned = [axis.images[0] for axis in axes if axis.images]
    assert success.get_clim() == (0, 100) and success.get_array().tolist()[4] == [20.0, 20.0]
    assert earned.get_clim() == (1004.5, 1104.5) and earned.get_array().shape == (5, 2)
