"""Per-task gradients and balancing: ours beside TorchJD and LibMTL, in one run.

    pip install -e '.[bench]'
    python benchmarks/balancing.py --threads 1        # about ten minutes
    python benchmarks/balancing.py --threads 2

Medians over rounds in which all variants are timed one after the other, so that they share whatever else the machine
is doing. LibMTL imports torchvision for its data loaders; an empty module stands in for it.
"""

import argparse
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from inspect import isabstract

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--only", nargs="*", choices=["gradients", "weights", "aggregation", "step"])
ARGUMENTS = parser.parse_args()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(ARGUMENTS.threads)  # before numpy and torch are loaded

import json  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import RESULTS, make_agent, make_batch, save  # noqa: E402
from torch import Tensor  # noqa: E402

from mtorl.trainers import balancers  # noqa: E402
from mtorl.trainers.balancers import Equal, GradientAggregation  # noqa: E402
from mtorl.trainers.balancers.wrappers import GradientWrapper  # noqa: E402
from mtorl.trainers.executions import PhaseFunctions  # noqa: E402
from mtorl.trainers.gradients import gramian  # noqa: E402
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer  # noqa: E402
from mtorl.trainers.sharing import Shared  # noqa: E402
from mtorl.trainers.update import MultiTaskUpdate  # noqa: E402

GRAMIAN_METHODS = [
    name
    for name in sorted(balancers.__all__)
    if issubclass(kind := getattr(balancers, name), GradientAggregation)
    and not (isabstract(kind) or issubclass(kind, GradientWrapper))
]
"""All of them, so that a new one is timed by itself."""


def race(variants: dict[str, Callable[[], object]], rounds: int, repeat: int = 1) -> dict[str, float]:
    """Median seconds of one call of each variant."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for function in variants.values():
        function()
    for _ in range(rounds):
        for name, function in variants.items():
            started = time.perf_counter()
            for _ in range(repeat):
                function()
            times[name].append((time.perf_counter() - started) / repeat)
    return {name: statistics.median(values) for name, values in times.items()}


def gradients(rounds: int) -> dict:
    """Gradients of single tasks against one backward pass of the sum, and against TorchJD."""
    from torchjd.autojac import backward

    found = {}
    for name, tasks, windows, size in (("T=10", 10, 8, (256, 6, 8)), ("T=50", 50, 2, (64, 2, 4))):
        agent, batch = make_agent(tasks, *size), make_batch(tasks, windows)
        functions = PhaseFunctions(agent, execution="loop")
        parameters = list(agent.parameters())

        def plain(functions=functions, batch=batch, parameters=parameters) -> None:
            for parameter in parameters:
                parameter.grad = None
            functions.losses(batch, Shared()).values.sum().backward()

        def torchjd(functions=functions, batch=batch, parameters=parameters) -> None:
            for parameter in parameters:
                vars(parameter).pop("jac", None)
            backward(list(functions.losses(batch, Shared()).values))

        variants = {
            "plain": plain,
            "loop": lambda functions=functions, batch=batch: functions.gradients(batch, Shared()),
            "torchjd": torchjd,
        }
        seconds = race(variants, rounds)
        found[name] = {
            "parameters": sum(value.numel() for value in parameters),
            "seconds": {key: round(value, 4) for key, value in seconds.items()},
            "loop_over_plain": round(seconds["loop"] / seconds["plain"], 2),
            "torchjd_over_loop": round(seconds["torchjd"] / seconds["loop"], 1),
        }
    return found | {"goals": {"loop_over_plain": 1.25, "torchjd_over_loop": {"T=10": 5, "T=50": 20}}}


def task_gradients(tasks: int, size: int) -> Tensor:
    """Gradients with a common part and different scales, so that some conflict."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(tasks, size, generator=draw) + 0.02 * torch.randn(size, generator=draw)
    return rows * torch.rand(tasks, 1, generator=draw)


def weights(rounds: int) -> dict:
    """Weights from a given Gramian of 50 tasks."""
    import torchjd.aggregation as theirs
    from torchjd.aggregation._pcgrad import PCGradWeighting

    rows = task_gradients(50, 2000).double()
    products = rows @ rows.T
    ours = {name: getattr(balancers, name)() for name in GRAMIAN_METHODS}
    seconds = race({name: lambda it=it: it.weights(products) for name, it in ours.items()}, 4 * rounds, repeat=5)
    nash, root = theirs.NashMTL(n_tasks=50), torch.linalg.cholesky(products)

    def torchjd_nash() -> Tensor:
        nash.reset()
        return nash(root)  # which takes the matrix: a root of the Gramian has the same one

    members = {
        "PCGrad": PCGradWeighting(),
        "UPGrad": theirs.UPGradWeighting(),
        "MGDA": theirs.MGDAWeighting(),
        "CAGrad": theirs.CAGradWeighting(c=0.5),
        "AlignedMTL": theirs.AlignedMTLWeighting(),
        "GradVac": theirs.GradVacWeighting(),
        "FairGrad": theirs.FairGradWeighting(alpha=1.0),
    }
    peers: dict[str, Callable[[], object]] = {name: lambda it=it: it(products) for name, it in members.items()}
    peers["NashMTL"] = torchjd_nash
    others = {}
    for name, function in peers.items():
        try:
            others[name] = race({name: function}, rounds)[name]
        except Exception as error:  # a peer that cannot be run is reported as such
            others[name] = None
            print(f"TorchJD's {name} failed: {type(error).__name__}: {error}", file=sys.stderr)
    return {
        "milliseconds": {name: round(1e3 * value, 3) for name, value in seconds.items()},
        "torchjd_milliseconds": {name: value and round(1e3 * value, 2) for name, value in others.items()},
        "torchjd_over_ours": {name: value and round(value / seconds[name], 1) for name, value in others.items()},
        "goals": {"PCGrad": 25, "NashMTL": 200, "milliseconds": 5, "UPGrad_milliseconds": 8},
    }


class _Anything(types.ModuleType):
    """A module that has everything it is asked for, and does nothing: LibMTL imports image models that are not used."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def libmtl_pcgrad(rows: Tensor) -> Callable[[], object]:
    """LibMTL's PCGrad on given gradients, without its own passes through a model."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.models", "torchvision.models.utils"):
        sys.modules.setdefault(name, _Anything(name))
    from LibMTL.weighting.PCGrad import PCGrad

    method = PCGrad()
    method.task_num, method.device, method.rep_grad = len(rows), "cpu", False
    method._compute_grad = lambda losses, mode, rep_grad=False: rows
    method._compute_grad_dim = lambda: None
    method._reset_grad = lambda gradient: gradient
    losses = torch.ones(len(rows))
    return lambda: method.backward(losses)


def aggregation(rounds: int) -> dict:
    """From the matrix of 50 task gradients to the direction."""
    import torchjd.aggregation as theirs

    rows = task_gradients(50, 1_000_000)

    def direction(name: str) -> Tensor:
        method: GradientAggregation = getattr(balancers, name)()
        return method.weights(gramian(rows)).to(rows) @ rows  # the exact Gramian, as in training

    config = theirs.ConFIG()
    seconds = race(
        {
            "PCGrad": lambda: direction("PCGrad"),
            "PCGrad, LibMTL": libmtl_pcgrad(rows),
            "ConFIG": lambda: direction("ConFIG"),
            "ConFIG, TorchJD": lambda: config(rows),
        },
        rounds,
    )
    return {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "LibMTL_over_ours_PCGrad": round(seconds["PCGrad, LibMTL"] / seconds["PCGrad"], 1),
        "TorchJD_over_ours_ConFIG": round(seconds["ConFIG, TorchJD"] / seconds["ConFIG"], 1),
        "goals": {"LibMTL_over_ours_PCGrad": 30, "TorchJD_over_ours_ConFIG": 30},
    }


def step(rounds: int) -> dict:
    """A whole training step of the 5 M transformer on 10 tasks with each method, against equal weights."""
    agent, batch = make_agent(10, 256, 6, 8), make_batch(10, 8)
    functions = PhaseFunctions(agent)
    optimizer = PhaseOptimizer(OptimizerSettings(), agent, [], agent.task_rows(), 1000)
    members = {"Equal": Equal()} | {name: getattr(balancers, name)() for name in GRAMIAN_METHODS}
    variants = {}
    for name, member in members.items():
        member.init(10, functions.space, torch.Generator().manual_seed(0))
        variants[name] = lambda member=member: member.step(
            MultiTaskUpdate(functions, optimizer, batch, Shared(), 0, 1000, seed=0)
        )
    seconds = race(variants, rounds)
    return {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "over_equal": {name: round(value / seconds["Equal"], 2) for name, value in seconds.items()},
        "goal": 1.4,
    }


def main() -> None:
    """Runs the parts and writes results/balancing_N_threads.json; parts that are not run keep their old results."""
    torch.set_num_threads(ARGUMENTS.threads)
    np.random.default_rng(0)
    name = f"balancing_{ARGUMENTS.threads}_threads"
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    parts = {"gradients": gradients, "weights": weights, "aggregation": aggregation, "step": step}
    for part, function in parts.items():
        if not ARGUMENTS.only or part in ARGUMENTS.only:
            found[part] = function(ARGUMENTS.rounds)
            save(name, {"threads": ARGUMENTS.threads, **{part: found[part] for part in parts if part in found}})


if __name__ == "__main__":
    main()
