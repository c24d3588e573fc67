from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import sampler_of

from mtorl import InputError
from mtorl.agents import DecisionTransformer, PromptDecisionTransformer
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train

SMALL = {"width": 16, "layers": 2, "attention_heads": 2, "context": 4, "dropout": 0.0, "prompt_length": 3}


def build(spec: DataSpec, **options: object) -> PromptDecisionTransformer:
    torch.manual_seed(0)
    return PromptDecisionTransformer(spec, **{**SMALL, **options}).eval()  # type: ignore[arg-type]


def test_the_prompt_matters_and_nothing_else_of_it(store: EpisodeStore, spec: DataSpec) -> None:
    agent = build(spec).double()
    batch = sampler_of(agent, store, spec).draw().to("cpu", torch.float64)
    before = agent(0, batch).values
    assert batch.prompt is not None
    for name in ("observations", "actions", "returns_to_go"):
        other = getattr(batch.prompt, name).clone()
        other[1] += 1
        after = agent(0, replace(batch, prompt=replace(batch.prompt, **{name: other}))).values
        assert (after != before).tolist() == [False, True, False]
    later = batch.observations.clone()
    later[:, :, 2] += 1
    features = [agent.phases[0].losses(it).features for it in (batch, replace(batch, observations=later))]
    torch.testing.assert_close(features[0][:, :, :2], features[1][:, :, :2])  # type: ignore[index]
    assert not torch.allclose(features[0][:, :, 2], features[1][:, :, 2])  # type: ignore[index]


def test_the_published_size(spec: DataSpec) -> None:
    """Meta-World's dimensions; 5.29 million with the two heads that are not used (10,280)."""
    big = replace(
        spec,
        observation_dim=39,
        action_dim=4,
        observation_mean=((0.0,) * 39,) * 3,
        observation_std=((1.0,) * 39,) * 3,
        horizon=500,
    )
    agent = PromptDecisionTransformer(big, time="episode", positions=1000, action_context="full")
    assert sum(value.numel() for value in agent.backbone.parameters()) == 4_739_072
    maskable = agent.phases[0].space.maskable
    sizes = [int(np.prod(shape)) for shape in agent.phases[0].space.shapes]
    assert sum(size for size, mask in zip(sizes, maskable, strict=True) if mask) == 4_718_592 and sum(maskable) == 24
    count = sum(value.numel() for value in agent.parameters())
    heads = 256 * 39 + 39 + 256 + 1
    assert heads == 10_280 and abs(count + heads - 5_290_000) < 5_000, count
    assert len(agent.phases[0].space) == count, "all of it is shared"


def test_without_prompts_the_batch_is_refused(store: EpisodeStore, spec: DataSpec) -> None:
    agent = build(spec)
    plain = DecisionTransformer(spec, width=16, layers=1, attention_heads=2, context=4)
    with pytest.raises(InputError, match="the batch has no prompts"):
        agent(0, sampler_of(plain, store, spec).draw())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_length": 0}, "the prompt has 0 steps"),
        ({"prompt_pick": "best"}, "prompt pick is 'best'; expected one of topk, uniform, official"),
        ({"prompt_source": "test"}, "prompt source is 'test'; expected one of train, heldout"),
        ({"time": "episode", "positions": 3}, "positions is 3; expected at least"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str, spec: DataSpec) -> None:
    with pytest.raises(InputError, match=message):
        build(spec, **options)


def test_a_run_keeps_the_prompts_that_it_acts_with(train_options: dict, store: EpisodeStore, tmp_path: Path) -> None:
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
    options |= {
        "agent": {"class_path": "PromptDecisionTransformer", "init_args": {**SMALL, "prompt_source": "heldout"}}
    }
    run = train(**options)
    trained = run.policy()[0].agent
    assert isinstance(trained, PromptDecisionTransformer)
    numbers = [np.flatnonzero(store.index["task"] == task)[-2:] for task in range(3)]
    best = [max(mine, key=lambda it: store.episode(int(it)).rewards.sum()) for mine in numbers]
    for task, number in enumerate(best):
        episode = store.episode(int(number))
        first = max(0, len(episode) - 4)
        np.testing.assert_array_equal(trained.best_observations[task], episode.observations[first : first + 3])
    assert 0 <= run.evaluate(Protocol(goals=2), workers=0, quiet=True).mean_success <= 1
