from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mtorl import InputError
from mtorl.datasets.prompts import PromptSettings
from mtorl.datasets.sampler import SamplingSettings, TaskBatch, TaskSampler
from mtorl.datasets.statistics import returns_to_go
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect


def sampler(store: EpisodeStore, length: int = 20, windows: int = 16, seed: int = 0, **options) -> TaskSampler:
    return TaskSampler(
        [store], store.task_names, windows, length, np.random.default_rng(seed), next_observations=True, **options
    )


def find(store: EpisodeStore, task: str, observation: np.ndarray, step: int) -> int:
    """The episode that has this observation at this step, by search."""
    for number, episode in enumerate(store):
        if episode.task == task and step < len(episode) and (episode.observations[step] == observation).all():
            return number
    raise AssertionError("the window does not stand in any episode of its task")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 60), seed=st.integers(0, 100))
def test_every_window_lies_inside_one_episode_of_its_task(store: EpisodeStore, length: int, seed: int) -> None:
    batch = sampler(store, length, 3, seed).draw()
    for position, task_id in enumerate(batch.task_ids.tolist()):
        for window in range(3):
            valid = batch.valid[position, window].numpy()
            count = int(valid.sum())
            assert valid[:count].all() and not valid[count:].any(), "padding stands at the end"
            start = int(batch.timesteps[position, window, 0])
            first = batch.observations[position, window, 0].numpy()
            episode = store.episode(find(store, store.task_names[task_id], first, start))
            assert count == min(length, len(episode) - start)
            steps = slice(start, start + count)
            rows = {
                "observations": episode.observations[steps],
                "actions": episode.actions[steps],
                "rewards": episode.rewards[steps],
                "next_observations": episode.observations[start + 1 : start + count + 1],
                "returns_to_go": [episode.rewards[step:].sum() for step in range(start, start + count)],
                "timesteps": np.arange(start, start + count),
            }
            for name, expected in rows.items():
                drawn = getattr(batch, name)[position, window]
                np.testing.assert_allclose(drawn[:count], expected, rtol=1e-5, err_msg=name)
                assert not drawn[count:].any(), "padding is zero"


def test_every_recorded_step_is_drawn_alike_and_tasks_equally(store: EpisodeStore) -> None:
    """A chi-square test over all (episode, step) pairs of each task; episodes are told apart by their returns-to-go."""
    draws = sampler(store, 1, 20_000).draw()
    assert draws.valid.shape == (3, 20_000, 1)
    for position, name in enumerate(store.task_names):
        steps = {}
        for episode in (one for one in store if one.task == name):
            for step, value in enumerate(returns_to_go(episode.rewards)):
                steps[step, float(value)] = len(steps)
        drawn = zip(
            draws.timesteps[position].flatten().tolist(), draws.returns_to_go[position].flatten().tolist(), strict=True
        )
        counts = np.bincount([steps[pair] for pair in drawn], minlength=len(steps))
        assert len(steps) == sum(len(one) for one in store if one.task == name)
        assert chisquare(counts).pvalue > 1e-4


def test_a_draw_is_a_function_of_the_generator(store: EpisodeStore) -> None:
    one, two = sampler(store, seed=1), sampler(store, seed=1)
    one.draw()
    two.draw()
    state = one.state_dict()
    expected = one.draw()
    other = sampler(store, seed=99)
    other.load_state_dict(state)
    for batch in (two.draw(), other.draw()):
        assert torch.equal(batch.observations, expected.observations)
        assert torch.equal(batch.timesteps, expected.timesteps)


def test_other_windows_of_the_same_episodes(store: EpisodeStore) -> None:
    names, prompts = store.task_names, PromptSettings(length=2, source="heldout")
    usual = TaskSampler([store], names, 8, 3, np.random.default_rng(0), tasks_per_batch=2, prompts=prompts)
    before = usual.state_dict()
    other = usual.other(300, 5, np.random.default_rng(1))
    batch = other.draw(beginnings=True)
    assert batch.observations.shape[:3] == (len(names), 300, 5) and batch.prompt is None
    assert (batch.timesteps[..., 0] == 0).all()
    assert usual.state_dict() == before and usual.draw().observations.shape[:3] == (2, 8, 3)
    firsts = [np.flatnonzero(store.index["task"] == task)[:-2] for task in range(len(names))]  # two are held out
    for task, numbers in enumerate(firsts):
        expected = {store.episode(int(number)).observations[0].tobytes() for number in numbers}
        assert {row.numpy().tobytes() for row in batch.observations[task, :, 0]} == expected


def test_round_robin_takes_tasks_in_turn(store: EpisodeStore) -> None:
    turns = sampler(store, tasks_per_batch=2, order="round_robin")
    assert [turns.draw().task_ids.tolist() for _ in range(4)] == [[0, 1], [2, 0], [1, 2], [0, 1]]
    one = sampler(store, tasks_per_batch=1, order="round_robin")
    one.draw()
    later = sampler(store, tasks_per_batch=1, order="round_robin")
    later.load_state_dict(one.state_dict())
    assert later.draw().task_ids.tolist() == [1]


def test_random_subsets_are_distinct_and_fair(store: EpisodeStore) -> None:
    draws = sampler(store, tasks_per_batch=2, windows=1)
    subsets = [tuple(draws.draw().task_ids.tolist()) for _ in range(300)]
    assert all(len(set(subset)) == 2 for subset in subsets)
    counts = np.bincount(np.array(subsets).ravel())
    assert counts.min() > 160


def test_joined_stores_are_drawn_as_one(store: EpisodeStore, suite: PointReach, tmp_path: Path) -> None:
    other = collect(suite, tmp_path / "more", "medium", episodes=5, seed=7, workers=0, quiet=True)
    joined = TaskSampler([store, other], store.task_names, 400, 3, np.random.default_rng(0)).draw()
    seen = {0: 0, 1: 0}
    for position, name in enumerate(store.task_names):
        for window in range(0, 400, 10):
            first, step = joined.observations[position, window, 0].numpy(), int(joined.timesteps[position, window, 0])
            try:
                find(store, name, first, step)
                seen[0] += 1
            except AssertionError:
                find(other, name, first, step)
                seen[1] += 1
    assert min(seen.values()) > 10


def test_a_subset_of_tasks(store: EpisodeStore) -> None:
    batch = TaskSampler([store], ("towards-2",), 4, 1, np.random.default_rng(0)).draw()
    assert batch.task_ids.tolist() == [0]
    assert batch.valid.all()
    find(store, "towards-2", batch.observations[0, 0, 0].numpy(), int(batch.timesteps[0, 0, 0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 0}, "windows is 0"),
        ({"length": 0}, "length is 0"),
        ({"tasks_per_batch": 9}, "tasks_per_batch is 9, but there are only 3 tasks"),
    ],
)
def test_impossible_batches_are_refused(store: EpisodeStore, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sampler(store, **options)


def test_batches_check_their_shapes(store: EpisodeStore) -> None:
    batch = sampler(store).draw()
    with pytest.raises(InputError, match=r"TaskBatch.actions has shape \[1, .*expected it to begin with"):
        TaskBatch(**{**vars(batch), "actions": batch.actions[:1]})
    with pytest.raises(InputError, match=r"TaskBatch\.task_ids"):
        TaskBatch(**{**vars(batch), "task_ids": batch.task_ids[:1]})


def test_select_and_to(store: EpisodeStore) -> None:
    batch = sampler(store).draw()
    chosen = batch.select([2, 0])
    assert chosen.task_ids.tolist() == [2, 0]
    assert torch.equal(chosen.actions[1], batch.actions[0])
    double = batch.to("cpu", torch.float64)
    assert (double.actions.dtype, double.timesteps.dtype, double.valid.dtype) == (
        torch.float64,
        torch.int64,
        torch.bool,
    )


def by_task(store: EpisodeStore) -> list[list]:
    return [[one for one in store if one.task == name] for name in store.task_names]


def test_every_episode_is_drawn_alike(store: EpisodeStore) -> None:
    drawn = sampler(store, 1, 20_000, sampling=SamplingSettings(unit="episode")).draw()
    for position, episodes in enumerate(by_task(store)):
        number = {
            (step, float(value)): place
            for place, one in enumerate(episodes)
            for step, value in enumerate(returns_to_go(one.rewards))
        }
        steps, values = drawn.timesteps[position].flatten(), drawn.returns_to_go[position].flatten()
        places = np.array([number[pair] for pair in zip(steps.tolist(), values.tolist(), strict=True)])
        assert chisquare(np.bincount(places, minlength=len(episodes))).pvalue > 1e-4
        longest = max(range(len(episodes)), key=lambda index: len(episodes[index]))
        within = np.bincount(steps[places == longest], minlength=len(episodes[longest]))
        assert chisquare(within).pvalue > 1e-4, "and every step of it"


@pytest.mark.parametrize("top", [0.01, 0.25, 0.5, 1.0])
def test_the_best_episodes_of_each_task(store: EpisodeStore, top: float) -> None:
    drawn = sampler(store, 1, 3000, sampling=SamplingSettings(top=top)).draw(beginnings=True)
    for position, episodes in enumerate(by_task(store)):
        returns = sorted((float(returns_to_go(one.rewards)[0]) for one in episodes), reverse=True)
        best = returns[: max(1, round(top * len(returns)))]
        assert set(drawn.returns_to_go[position].flatten().tolist()) == set(best)


def test_the_best_of_several_stores_together(suite: PointReach, store: EpisodeStore, tmp_path: Path) -> None:
    other = collect(suite, tmp_path / "random", "random", episodes=12, after_success=10, workers=0, quiet=True)
    one = TaskSampler(
        [other, store], store.task_names, 2000, 1, np.random.default_rng(0), sampling=SamplingSettings(top=0.25)
    )
    drawn = one.draw(beginnings=True).returns_to_go
    for position, episodes in enumerate(zip(by_task(store), by_task(other), strict=True)):
        returns = sorted(
            (float(returns_to_go(episode.rewards)[0]) for both in episodes for episode in both), reverse=True
        )
        assert set(drawn[position].flatten().tolist()) == set(returns[:6])


def test_windows_end_at_the_first_success(store: EpisodeStore) -> None:
    drawn = sampler(store, 60, 200, sampling=SamplingSettings(until="success")).draw(beginnings=True)
    for position, episodes in enumerate(by_task(store)):
        assert any(one.success.any() and not one.success[: len(one) - 1].all() for one in episodes)
        lengths = {
            float(returns_to_go(one.rewards)[0]): int(one.success.argmax()) + 1 if one.success.any() else len(one)
            for one in episodes
        }
        for window in range(200):
            steps = int(drawn.valid[position, window].sum())
            assert steps == lengths[float(drawn.returns_to_go[position, window, 0])]
            assert not drawn.rewards[position, window, steps:].any(), "what comes after is padding"


def test_the_usual_sampling_is_that_of_no_settings(store: EpisodeStore) -> None:
    assert torch.equal(sampler(store).draw().actions, sampler(store, sampling=SamplingSettings()).draw().actions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top": 0.0}, r"top is 0.0; expected a number in \(0, 1\]"),
        ({"top": float("nan")}, "top is nan"),
        ({"unit": "window"}, "unit is 'window'; expected one of step, episode"),
        ({"until": "failure"}, "until is 'failure'; expected one of end, success"),
    ],
)
def test_impossible_sampling(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplingSettings(**settings)
