"""Training in several processes is training in one: the same losses and parameters, whatever balances and is shared."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import BALANCERS, SMALL_AGENTS, run_options, sampler_of
from hypothesis import given
from hypothesis import strategies as st

from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.distributed import cuts
from mtorl.trainers.logs import read_log
from mtorl.trainers.offline import TIMING_ENTRIES

PROGRAM = Path(__file__).parent.parent / "spread_runs.py"
NETWORK = {"class_path": "MLPBackbone", "init_args": {"hidden": [12]}}
AGENTS: dict[str, dict[str, Any]] = {
    "DecisionTransformer": {
        "agent": "DecisionTransformer",
        "agent.width": 16,
        "agent.layers": 2,
        "agent.attention_heads": 2,
        "agent.context": 6,
        "agent.dropout": 0.0,
    },
    "SoftModular": {"agent": "SoftModular", "agent.modules": 3, "agent.width": 8},
    "IQL": {"agent": {"class_path": "IQL", "init_args": {"actor": NETWORK, "critic": NETWORK}}},
    "TD3BC": {
        "agent": {"class_path": "TD3BC", "init_args": {"actor": NETWORK, "critic": NETWORK}},
        "tasks_per_batch": 2,  # of its actor's windows a third process has none
    },
}
SHARING = ("Shared", "RandomMasks", "HarmonyMasks", "SoftMasks", "CrossLearning", "ParetoManifold")


def cases(data: str) -> dict[str, dict[str, Any]]:
    """Every balancer with two of three tasks at a time, and others; double precision, so that rounding is seen."""
    schedule = {"steps": 6, "log_every": 2, "evaluate_every": 0, "save_every": 3, "monitor_every": 4}
    common = {
        "data": data,
        "windows": 5,
        "workers": 0,
        "threads": 1,
        "quiet": True,
        "dtype": "float64",
        "verify": False,
    }
    common |= {"optimizer": {"lr": 0.01, "warmup": 0, "clip": 0.5}}
    small = {"agent.hidden": [12], "agent.output_heads": "per_task"}
    found = {kind.__name__: run_options(kind, common | small) | {"schedule": schedule} for kind in BALANCERS}
    found["BayesAgg"]["agent.output_heads"] = "linear"
    found["Equal"] |= {"schedule": schedule | {"evaluate_every": 6}, "evaluate_goals": 2, "workers": 0}
    masks = {"sharing.interval": 2}
    for name in SHARING[1:]:
        more = masks if name in ("HarmonyMasks", "SoftMasks") else {}
        balancer = "Equal" if name == "ParetoManifold" else "PCGrad"
        found[f"sharing-{name}"] = common | small | {"schedule": schedule, "sharing": name, "balancer": balancer} | more
    for name, agent in AGENTS.items():
        found[f"agent-{name}"] = common | agent | {"schedule": schedule, "balancer": "UPGrad"}
        found[f"agent-{name}-losses"] = common | agent | {"schedule": schedule, "balancer": "Equal"}
    return found


@pytest.fixture(scope="module")
def wanted(store: EpisodeStore) -> dict[str, dict[str, Any]]:
    return cases(str(store.path))


def spread(
    count: int, chosen: dict[str, dict[str, Any]], folder: Path, program: Path = PROGRAM
) -> subprocess.CompletedProcess[str]:
    """Trains cases in that many processes; their runs are in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(chosen))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += [str(program), str(folder / "cases.json"), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def in_two(wanted: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of all cases, trained by two processes."""
    folder = tmp_path_factory.mktemp("two")
    result = spread(2, wanted, folder)
    assert result.returncode == 0, result.stderr
    return folder


def losses(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMING_ENTRIES} for row in read_log(folder)]


def assert_close(one: Path, other: Path, tolerance: float = 1e-7) -> None:
    """Checkpoints and logs of two runs agree but for rounding."""
    first, second = (Run(folder).checkpoints().load() for folder in (one, other))
    for part in ("agent", "sharing", "balancers", "optimizers"):
        _assert_same(first[part], second[part], tolerance, part)
    for row, expected in zip(losses(one), losses(other), strict=True):
        _assert_same(row, expected, 1e-5, f"log at step {row['step']}")


def _assert_same(one: Any, other: Any, tolerance: float, where: str) -> None:
    if isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in other:
            _assert_same(one[key], other[key], tolerance, f"{where}.{key}")
    elif isinstance(other, list | tuple):
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            _assert_same(a, b, tolerance, f"{where}[{place}]")
    elif isinstance(other, torch.Tensor | float):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, equal_nan=True, msg=where)
    else:
        assert one == other, where


NAMES = [kind.__name__ for kind in BALANCERS]
OTHERS = [f"sharing-{name}" for name in SHARING[1:]] + [
    f"agent-{name}{end}" for name in AGENTS for end in ("", "-losses")
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(it for it in NAMES if it != "BayesAgg"), *OTHERS])
def test_two_processes_train_as_one(
    name: str, in_two: Path, wanted: dict[str, dict[str, Any]], tmp_path: Path, even_noise: None
) -> None:
    alone = train(**wanted[name], out=str(tmp_path / "run"))
    assert_close(in_two / name, alone.folder)


@pytest.mark.slow
def test_what_cannot_be_spread_is_refused_by_every_process(in_two: Path) -> None:
    for rank in (0, 1):
        assert "BayesAgg looks at what the heads see" in (in_two / f"BayesAgg.{rank}.error").read_text()
    assert {path.name for path in in_two.glob("*.error")} == {"BayesAgg.0.error", "BayesAgg.1.error"}


@pytest.mark.slow
def test_more_processes_than_tasks_and_another_number_that_goes_on(
    in_two: Path, wanted: dict[str, dict[str, Any]], tmp_path: Path, even_noise: None
) -> None:
    """Two tasks in a batch and three processes: windows are split. Runs of two processes go on with three, and one."""
    names = ("PCGrad", "GradDrop", "sharing-HarmonyMasks", "agent-TD3BC", "agent-TD3BC-losses")
    for name in names:
        shutil.copytree(in_two / name, tmp_path / "on" / name)
        Run(tmp_path / "on" / name).checkpoints().file(6).unlink()
        shutil.copytree(tmp_path / "on" / name, tmp_path / "alone" / name)
    chosen = {name: wanted[name] for name in names}
    chosen |= {f"on-{name}": {"resume": str(tmp_path / "on" / name)} for name in names}
    result = spread(3, chosen, tmp_path / "three")
    assert result.returncode == 0, result.stderr
    for name in names:
        train(resume=tmp_path / "alone" / name)
        for folder in (tmp_path / "three" / name, tmp_path / "on" / name, tmp_path / "alone" / name):
            assert_close(folder, in_two / name)


@pytest.mark.slow
def test_the_same_number_goes_on_bit_for_bit(in_two: Path, tmp_path: Path) -> None:
    names = ("PCGrad", "DWA", "sharing-CrossLearning")
    for name in names:
        shutil.copytree(in_two / name, tmp_path / name)
        Run(tmp_path / name).checkpoints().file(6).unlink()
    result = spread(2, {name: {"resume": str(tmp_path / name)} for name in names}, tmp_path / "log")
    assert result.returncode == 0, result.stderr
    for name in names:
        _assert_same(*(Run(it / name).checkpoints().load()["agent"] for it in (tmp_path, in_two)), 0.0, name)
        assert losses(tmp_path / name) == losses(in_two / name)


FAILING = """
import os, runpy, signal
from mtorl.datasets.sampler import TaskSampler
draw, calls = TaskSampler.draw, [0]

def dying(self, *rest):
    calls[0] += 1
    if os.environ["RANK"] == "1" and calls[0] == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(self, *rest)

TaskSampler.draw = dying
runpy.run_path(PROGRAM, run_name="__main__")
"""


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_which_can_be_continued(
    in_two: Path, wanted: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING.replace("PROGRAM", repr(str(PROGRAM))))
    result = spread(2, {"PCGrad": wanted["PCGrad"]}, tmp_path, program)
    assert result.returncode != 0 and "SIGKILL" in result.stderr, result.stderr
    assert Run(tmp_path / "PCGrad").checkpoints().steps() == [3]
    train(resume=tmp_path / "PCGrad")
    assert_close(tmp_path / "PCGrad", in_two / "PCGrad")


FULL = """
import os, resource, runpy
if os.environ["RANK"] == "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
runpy.run_path(PROGRAM, run_name="__main__")
"""


@pytest.mark.slow
def test_a_full_disk_of_the_first_process_is_told(wanted: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    program = tmp_path / "full.py"
    program.write_text(FULL.replace("PROGRAM", repr(str(PROGRAM))))
    wide = wanted["Equal"] | {"agent.hidden": [64, 64]}
    result = spread(2, {"Equal": wide}, tmp_path, program)
    assert result.returncode != 0 or (tmp_path / "Equal.0.error").exists(), result.stderr
    assert "could not write" in (tmp_path / "Equal.0.error").read_text()
    assert not Run(tmp_path / "Equal").checkpoints().steps()


@given(tasks=st.integers(1, 12), windows=st.integers(1, 9), count=st.integers(1, 15))
def test_every_window_is_computed_once(tasks: int, windows: int, count: int) -> None:
    table = torch.zeros(tasks, windows, dtype=torch.long)
    sizes = []
    for own in cuts(tasks, windows, count):
        assert len(own) <= 3
        for cut in own:
            assert cut.windows is None or len(cut.tasks) == 1
            table[cut.tasks.start : cut.tasks.stop, cut.windows or slice(None)] += 1
        sizes.append(sum(len(cut.tasks) * len(range(windows)[cut.windows or slice(None)]) for cut in own))
    assert (table == 1).all() and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_losses_of_parts_of_the_windows_add_up(
    kind: Callable[..., Any], store: EpisodeStore, spec: DataSpec, even_noise: None
) -> None:
    """A task's loss is a mean over valid positions: that is what splitting its windows rests on."""
    torch.manual_seed(0)
    agent = kind(spec, **SMALL_AGENTS[kind]).to(torch.float64)
    batch = sampler_of(agent, store, spec, windows=7).draw().to("cpu", torch.float64).select([1])
    for phase in agent.phases:
        whole = phase.losses(batch).values
        parts = [cut.of(batch) for own in cuts(1, 7, 3) for cut in own]
        total = sum(shares * phase.losses(windows).values for windows, shares in parts if shares is not None)
        assert torch.allclose(torch.as_tensor(total), whole, rtol=1e-9, atol=1e-12) == phase.splits, phase.name


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch, train_options: dict) -> None:
    """As torchrun starts a single one, or a queue sets the variables for something else."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert train(**train_options | {"schedule": {"steps": 2, "evaluate_every": 0}}).checkpoints().steps() == [2]
