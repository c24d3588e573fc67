from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import episode, write

from mtorl import InputError
from mtorl.datasets.prompts import PromptPool, PromptSettings
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.store import EpisodeStore


def stored(path: Path, lengths: list[int], names: tuple[str, ...] = ("a",), first: int = 0) -> EpisodeStore:
    return write(
        path,
        [
            episode(name, length, first + 9 * row + number)
            for row, name in enumerate(names)
            for number, length in enumerate(lengths)
        ],
        names,
    )


def returns(store: EpisodeStore) -> list[float]:
    return [float(it.rewards.sum()) for it in store]


def test_a_prompt_is_the_end_of_its_episode_without_the_last_step(tmp_path: Path) -> None:
    store = stored(tmp_path / "one", [9])
    prompt = PromptPool([store], ["a"], PromptSettings(3)).best()
    one = store.episode(0)
    np.testing.assert_array_equal(prompt.observations[0], one.observations[5:8])
    np.testing.assert_array_equal(prompt.actions[0], one.actions[5:8])
    np.testing.assert_allclose(prompt.returns_to_go[0], [one.rewards[i:].sum() for i in (5, 6, 7)], rtol=1e-6)
    assert prompt.timesteps.tolist() == [[5, 6, 7]]
    short = stored(tmp_path / "short", [3])
    assert PromptPool([short], ["a"], PromptSettings(3)).best().timesteps.tolist() == [[0, 1, 2]]


def test_picks(tmp_path: Path) -> None:
    store = stored(tmp_path / "data", [7, 7, 7, 7, 2])  # the last one is too short for a prompt
    ranking = np.argsort(returns(store)[:4])
    starts = {float(store.episode(int(it)).observations[3, 0]): int(it) for it in range(4)}

    def drawn(settings: PromptSettings, windows: int) -> list[int]:
        prompt = PromptPool([store], ["a"], settings).draw(np.array([0]), windows, np.random.default_rng(0))
        return [starts[float(value)] for value in prompt.observations[0, :, 0, 0]]

    official = drawn(PromptSettings(3, "official"), 5)
    assert official == [ranking[0], ranking[-1], ranking[-2], ranking[-3], ranking[0]], "the worst one first"
    assert set(drawn(PromptSettings(3, "topk", best=2), 60)) == set(ranking[-2:])
    assert set(drawn(PromptSettings(3, "uniform"), 60)) == {0, 1, 2, 3}


def test_held_out_episodes_are_not_trained_on(tmp_path: Path) -> None:
    stores = [stored(tmp_path / str(number), [6, 6, 6], ("a", "b"), 99 * number) for number in range(2)]
    settings = PromptSettings(3, "uniform", "heldout")
    sampler = TaskSampler(stores, ("b", "a"), 200, 2, np.random.default_rng(0), prompts=settings)
    batch = sampler.draw()
    held = [(1, 4), (1, 5), (1, 1), (1, 2)]  # the last two of each task, which are in the second store
    prompts = {float(value) for value in batch.prompt.observations[..., 0, 0].flatten()}  # type: ignore[union-attr]
    assert prompts == {float(stores[store].episode(number).observations[2, 0]) for store, number in held}
    seen = {float(value) for value in batch.observations[..., 0, 0].flatten()}
    for store in range(2):
        for number in range(6):
            values = {float(value) for value in stores[store].episode(number).observations[:-1, 0]}
            assert bool(values & seen) == ((store, number) not in held)


def test_impossible_prompts_are_refused(tmp_path: Path) -> None:
    store = stored(tmp_path / "data", [4, 4], ("a",))
    with pytest.raises(InputError, match=r"no episode of \['a'\] to take prompts from has 5 steps"):
        PromptPool([store], ["a"], PromptSettings(5))
    with pytest.raises(InputError, match=r"tasks \['a'\] have 2 episodes or fewer"):
        PromptPool([store], ["a"], PromptSettings(3, source="heldout"))


def test_a_failure_with_a_high_return_is_no_example(tmp_path: Path) -> None:
    """Where episodes end at success, failures run on."""
    failure, success = replace(episode("a", 9, 0), success=np.zeros(9, dtype=bool)), episode("a", 5, 1)
    failure = replace(failure, rewards=np.full(9, 5.0, np.float32))
    store = write(tmp_path / "data", [failure, success], ("a",))
    for pick, expected in (("topk", success), ("uniform", success), ("official", failure)):
        best = PromptPool([store], ["a"], PromptSettings(3, pick)).best().actions[0]  # type: ignore[arg-type]
        np.testing.assert_array_equal(best, expected.actions[len(expected) - 4 : len(expected) - 1])


def test_a_prompt_is_one_record(tmp_path: Path) -> None:
    """Its columns belong together, and go with the batch that it is of."""
    store = stored(tmp_path / "data", [7, 7, 7], ("a", "b"))
    settings = PromptSettings(3)
    prompt = PromptPool([store], ["a", "b"], settings).best()
    with pytest.raises(InputError, match=r"Prompt\.actions has shape \[1, 3, .*begin with \[2, 3\]"):
        replace(prompt, actions=prompt.actions[:1])
    batch = TaskSampler([store], ("a", "b"), 4, 2, np.random.default_rng(0), prompts=settings).draw()
    alone = batch.select([1]).to("cpu", torch.float64)
    assert alone.prompt is not None and batch.prompt is not None
    assert torch.equal(alone.prompt.observations, batch.prompt.observations[1:].double())
    assert torch.equal(alone.prompt.timesteps, batch.prompt.timesteps[1:])
    again = batch.with_tensors(batch.tensors)
    assert all(one is other for one, other in zip(batch.tensors, again.tensors, strict=True))
