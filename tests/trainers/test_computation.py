"""Computing in bfloat16: what stays precise, and that it learns the same."""

import pytest
import torch
from families import SMALL_AGENTS, sampler_of

from mtorl import InputError
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train
from mtorl.trainers.computation import Computation
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import ACCURACY
from mtorl.trainers.logs import read_log
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import RandomMasks

NEAR = 0.05
"""Of a gradient's length: bfloat16 has eight bits, and errors of layers add up."""


@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_gradients_are_near_and_in_single_precision(
    kind: type, spec: DataSpec, store: EpisodeStore, even_noise: None
) -> None:
    with isolated(0, "init"):
        agent = kind(spec, **SMALL_AGENTS[kind])
    batch = sampler_of(agent, store, spec, windows=20).draw()
    for place, phase in enumerate(agent.phases):
        masks = RandomMasks()
        masks.init(phase.space, 3, torch.Generator().manual_seed(0))
        exact, private = PhaseFunctions(agent, place, "loop").gradients(batch, masks)
        for execution in ("loop", "vmap"):
            functions = PhaseFunctions(agent, place, Computation(execution, precision="bf16"))  # type: ignore[arg-type]
            found, own = functions.gradients(batch, masks)
            assert found.losses.dtype == found.pulled_back.dtype == torch.float32
            torch.testing.assert_close(
                found.losses, exact.losses, rtol=NEAR, atol=NEAR * float(exact.losses.abs().max())
            )
            assert 0 < float((found.pulled_back - exact.pulled_back).norm()) < NEAR * float(exact.pulled_back.norm())
            assert all(own[name].dtype == torch.float32 for name in private)
            rows = found.pulled_back.double()
            norms = rows.norm(dim=1)
            assert ((found.gramian - rows @ rows.T).abs() <= ACCURACY * norms[:, None] * norms).all()


def test_it_learns_the_same(train_options: dict) -> None:
    schedule = {"steps": 150, "log_every": 50, "evaluate_every": 0, "save_every": 150}
    options = train_options | {"balancer": "PCGrad", "optimizer.lr": 1e-2, "optimizer.warmup": 10, "schedule": schedule}
    successes, losses = [], []
    for precision in ("single", "bf16"):
        run = train(**options | {"precision": precision, "out": f"{train_options['out']}-{precision}"})
        agent = run.checkpoints().load()["agent"]
        assert all(value.dtype == torch.float32 for value in agent.values() if value.is_floating_point())
        losses.append([row["loss"] for row in read_log(run.folder) if row["kind"] == "training"])
        successes.append(run.evaluate(Protocol(goals=4), workers=0, quiet=True).mean_success)
    assert losses[0][-1] < 0.7 * losses[0][0] and losses[1][-1] == pytest.approx(losses[0][-1], rel=0.1)
    assert losses[0] != losses[1]
    assert min(successes) > 0.25 and abs(successes[0] - successes[1]) <= 0.25


def test_parameters_in_double_precision_are_refused(train_options: dict) -> None:
    with pytest.raises(InputError, match="precision is bf16, dtype is float64; expected parameters in float32"):
        train(**train_options, dtype="float64", precision="bf16")
