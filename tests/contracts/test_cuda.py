"""What a GPU could break: the same numbers as on the CPU; every balancer trains, resumes and is evaluated."""

import numpy as np
import pytest
import torch
from families import AGENT_VARIANTS, BALANCERS, run_options, sampler_of

from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import FEW, gramian
from mtorl.trainers.logs import read_log
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import CrossLearning, ParetoManifold, RandomMasks, Shared

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)


@pytest.mark.parametrize("variant", AGENT_VARIANTS)
@pytest.mark.parametrize("kind", [Shared, RandomMasks, CrossLearning, ParetoManifold])
@pytest.mark.parametrize("execution", ["joint", "loop", "vmap", "auto"])
def test_gradients_are_those_of_the_cpu(
    kind: type, variant: tuple, execution: str, spec: DataSpec, store: EpisodeStore
) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        with isolated(0, "init"):
            agent = variant[0](spec, **variant[1]).eval().to(device, torch.float64)
        sharing = kind()
        sharing.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
        sharing.to(device)
        batch = sampler_of(agent, store, spec).draw().to(device, torch.float64)
        functions = PhaseFunctions(agent, 0, execution)  # type: ignore[arg-type]
        dense = functions.dense_gradients([batch], sharing).dense.clone()
        gradients, private = functions.gradients(batch, sharing)
        values = {"losses": gradients.losses, "dense": dense, "pulled_back": gradients.pulled_back}
        found[device] = values | private | {"gramian": gradients.gramian}
    for name, expected in found["cpu"].items():
        scale = max(float(expected.abs().max()), 1e-3)
        torch.testing.assert_close(found["cuda"][name].cpu(), expected, rtol=0, atol=1e-9 * scale)


def test_the_gramian_is_exact() -> None:
    rows = torch.randn(20, 5 * FEW + 7, device="cuda") + 0.5
    exact = (rows.double() @ rows.double().T).cpu()
    norms = exact.diag().sqrt()
    assert ((gramian(rows) - exact).abs() <= 5e-8 * norms[:, None] * norms).all()


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in BALANCERS])
@pytest.mark.parametrize("sharing", ["Shared", "RandomMasks"])
def test_every_balancer_trains_and_resumes(kind: type, sharing: str, train_options: dict) -> None:
    options = run_options(kind, train_options) | {"device": "cuda", "sharing": sharing}
    run = train(**options)
    assert all(np.isfinite(row["loss"]) for row in read_log(run.folder) if row["kind"] == "training")
    whole = run.checkpoints().load()["agent"]
    run.checkpoints().file(20).unlink()
    train(resume=run.folder)
    for name, value in run.checkpoints().load()["agent"].items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-4)  # sums on a GPU have no fixed order
    assert 0 <= run.evaluate(Protocol(goals=1), workers=0, quiet=True).mean_success <= 1
