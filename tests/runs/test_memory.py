"""What training would take is known before it is taken, and what fits is not refused."""

import re
import warnings
from collections.abc import Callable

import pytest
import torch

from mtorl import InputError
from mtorl.agents import Agent, BehaviorCloning, DecisionTransformer
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.runs import memory
from mtorl.runs.memory import BatchSizes, check_memory
from mtorl.runs.training import train
from mtorl.trainers.phase_trainer import phase_sharing
from mtorl.trainers.sharing import CrossLearning, ParetoManifold, Shared, Sharing
from tests.families import SMALL_AGENTS, sampler_of

CPU = torch.device("cpu")


def _kept(agent: Agent, batch: TaskBatch) -> int:
    values = dict(agent.named_parameters()) | dict(agent.named_buffers())
    return memory._kept_for_gradients(agent, values, batch)


@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_the_estimate_is_what_a_forward_pass_keeps(kind: type[Agent], store: EpisodeStore, spec: DataSpec) -> None:
    agent = kind(spec, **SMALL_AGENTS[kind])  # type: ignore[arg-type]
    agent.remember([store])
    found = _kept(agent, sampler_of(agent, store, spec, windows=7).draw())
    with memory._only_shapes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = kind(spec, **SMALL_AGENTS[kind])  # type: ignore[arg-type]
        assert _kept(shapes, memory._shapes(shapes, len(spec.task_names), 7)) == found > 0


def test_heads_of_groups_have_shapes_too(store: EpisodeStore, spec: DataSpec) -> None:
    options = {"hidden": (24,), "output_heads": "per_group"}
    found = _kept(BehaviorCloning(spec, **options), sampler_of(BehaviorCloning(spec), store, spec, windows=7).draw())  # type: ignore[arg-type]
    with memory._only_shapes():
        shapes = BehaviorCloning(spec, **options)  # type: ignore[arg-type]
        assert _kept(shapes, memory._shapes(shapes, 3, 7)) == found > 0


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_keeps_what_its_kernel_keeps(dropout: float, store: EpisodeStore, spec: DataSpec) -> None:
    """Without dropout the CPU has a kernel that does not keep the weights of attention."""
    options = {"width": 16, "layers": 1, "attention_heads": 2, "context": 40, "dropout": dropout}
    agent = DecisionTransformer(spec, **options)
    with memory._only_shapes():
        shapes = DecisionTransformer(spec, **options)
        estimate = _kept(shapes, memory._shapes(shapes, 3, 7))
    assert estimate == _kept(agent, sampler_of(agent, store, spec, windows=7).draw())


@pytest.mark.parametrize("sharing", [CrossLearning(), ParetoManifold(), ParetoManifold(rank=None)])
def test_parameters_of_the_sharing_are_counted(
    sharing: Sharing, spec: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their moments: three numbers each."""
    agent, sizes = _build(spec)(), BatchSizes(5, 3, 1, 2)
    member = phase_sharing(agent, sharing, 0)["policy"]
    own = sum(it.numel() for it in member.parameters())
    assert own == sharing.size(agent.phases[0].space, 3) > 0

    monkeypatch.setattr(memory, "_available", lambda device: 0)
    monkeypatch.setattr(memory, "_in_gb", str)

    def held(kind: Sharing) -> int:
        with pytest.raises(InputError) as refused:
            check_memory(_build(spec), kind, sizes, CPU, torch.float32)
        return int(re.findall(r"moments (\d+)", str(refused.value))[0])

    assert held(sharing) - held(Shared()) == 3 * 4 * own


def _build(spec: DataSpec) -> Callable[[], Agent]:
    return lambda: BehaviorCloning(spec, hidden=(64,))


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.float64, 8)])
def test_what_fits_exactly_is_not_refused(
    dtype: torch.dtype, width: int, spec: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = _build(spec)()
    weights = sum(it.numel() for it in agent.parameters())
    buffers = sum(it.numel() for it in agent.buffers())
    batch = 3 * 5 * ((spec.observation_dim + spec.action_dim + 2) * width + 8 + 1) + 3 * 8
    rows = 2 * len(agent.phases[0].space)
    needed = batch + width * (4 * weights + buffers + rows)
    monkeypatch.setattr(memory, "_available", lambda device: needed)
    check_memory(_build(spec), Shared(), BatchSizes(5, 3, 1, 2), CPU, dtype)
    monkeypatch.setattr(memory, "_available", lambda device: needed - 1)
    with pytest.raises(InputError, match=r"at least 0\.0 GB.*are there\. Use fewer --windows"):
        check_memory(_build(spec), Shared(), BatchSizes(5, 3, 1, 2), CPU, dtype)


HUGE = [
    {"windows": 1_000_000_000},
    {"windows": 10**20},
    {"agent.hidden": [999_999_999]},
    {"agent.hidden": [999_999_999, 999_999_999, 999_999_999_999]},
    {"agent.hidden": [10**20]},
    {"agent": {"class_path": "DecisionTransformer", "init_args": {"context": 1_000_000}}},
    {"agent": {"class_path": "DecisionTransformer", "init_args": {"width": 1_000_000}}},
    {"agent": {"class_path": "PromptDecisionTransformer", "init_args": {"prompt_length": 10**9}}},
    {"agent": {"class_path": "IQL", "init_args": {"critic": {"class_path": "FiLM", "init_args": {"hidden": [10**9]}}}}},
]


@pytest.mark.parametrize("huge", HUGE, ids=str)
def test_what_cannot_fit_is_refused_before_it_is_tried(
    huge: dict, train_options: dict, capfd: pytest.CaptureFixture
) -> None:
    options = {**train_options, **huge}
    if "agent" in huge:
        del options["agent.hidden"]
    with pytest.raises(InputError, match=r"^training would take .* memory.*Use fewer --windows") as error:
        train(**options)
    assert len(str(error.value)) < 300 and not capfd.readouterr().err
