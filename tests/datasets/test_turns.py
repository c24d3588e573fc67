from collections import Counter

import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.store import EpisodeStore
from mtorl.datasets.turns import TaskTurns, largest_batch

GROUPS = (0, 1, 0, 2, 0, 1)


def draws(count: int, turns: TaskTurns, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [turns.draw(generator).tolist() for _ in range(count)]


def test_groups_take_turns_with_all_of_their_tasks() -> None:
    turns = TaskTurns(6, None, "by_group", GROUPS)
    assert draws(4, turns) == [[0, 2, 4], [1, 5], [3], [0, 2, 4]]
    assert [turns.round(step) for step in (0, 2, 3, 7)] == [0, 0, 1, 2]
    assert turns.most == largest_batch(6, "by_group", GROUPS) == 3


def test_of_a_large_group_some_tasks_are_drawn() -> None:
    turns = TaskTurns(6, 2, "by_group", GROUPS)
    found = draws(300, turns)
    assert all(len(batch) == min(2, GROUPS.count(group % 3)) for group, batch in enumerate(found))
    assert all({GROUPS[task] for task in batch} == {number % 3} for number, batch in enumerate(found))
    counts = Counter(task for batch in found for task in batch)
    assert min(counts[task] for task in (0, 2, 4)) > 45, "each in two of three of its group's 100 batches"


@pytest.mark.parametrize(("most", "sizes"), [(None, {1: 3}), (2, {1: 2}), (4, {2: 1, 1: 2}), (5, {2: 2, 1: 1})])
def test_groups_have_equal_shares_of_a_batch(most: int | None, sizes: dict[int, int]) -> None:
    found = draws(200, TaskTurns(6, most, "over_groups", GROUPS))
    for batch in found:
        assert batch == sorted(set(batch))
        assert Counter(Counter(GROUPS[task] for task in batch).values()) == sizes
    assert {task for batch in found for task in batch} == set(range(6))


def test_all_tasks_are_all_tasks() -> None:
    assert draws(2, TaskTurns(6, 6, "over_groups", GROUPS)) == [list(range(6))] * 2
    assert draws(2, TaskTurns(1, None, "over_groups", (0,))) == draws(2, TaskTurns(1, None, "by_group", (0,)))


def test_wrong_input_is_refused() -> None:
    for order in ("by_group", "over_groups"):
        with pytest.raises(
            InputError, match=f"order is '{order}', but the tasks are in no groups. Add --grouping FILE"
        ):
            TaskTurns(3, None, order)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="order is 'odd'; expected one of random, round_robin, by_group, over_groups"):
        TaskTurns(3, None, "odd")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tasks_per_batch is 4, but there are only 3 tasks"):
        TaskTurns(3, 4, "random")


@pytest.mark.parametrize("order", ["by_group", "over_groups"])
def test_a_sampler_goes_on_where_it_was(store: EpisodeStore, order: str) -> None:
    def sampler() -> TaskSampler:
        stream = np.random.default_rng(0)
        return TaskSampler([store], store.task_names, 2, 3, stream, 1, order, groups=(0, 1, 0))  # type: ignore[arg-type]

    whole, stopped, resumed = sampler(), sampler(), sampler()
    expected = [whole.draw() for _ in range(7)]
    for _ in range(3):
        stopped.draw()
    resumed.load_state_dict(stopped.state_dict())
    for batch in expected[3:]:
        again = resumed.draw()
        assert all(one.equal(other) for one, other in zip(batch.tensors, again.tensors, strict=True))
    probe = whole.other(2, 3, np.random.default_rng(1))
    assert probe.draw().task_ids.tolist() == [0, 1, 2], "probes are of all tasks"
