"""What the benchmarks compare to computes what ours does: LibMTL's PCGrad and EnvPool's Meta-World."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def printed(code: str) -> str:
    """What a script says that imports the benchmarks: those read their command line and change modules."""
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.skipif(importlib.util.find_spec("LibMTL") is None, reason="needs the extra bench")
def test_pcgrad_of_libmtl_is_ours_for_two_tasks() -> None:
    """Of two tasks neither depends on a random order; LibMTL keeps the sum, ours the mean."""
    code = """
import torch
from balancing import libmtl_pcgrad
from mtorl.trainers.balancers import PCGrad
rows = torch.tensor([[1.0, 0.0, 1.0], [-1.0, 1.0, 0.5]])
step, found = libmtl_pcgrad(rows.clone()), []
from LibMTL.weighting.PCGrad import PCGrad as Theirs
method = next(cell.cell_contents for cell in step.__closure__ if isinstance(cell.cell_contents, Theirs))
method._reset_grad = found.append
step()
ours = PCGrad().weights((rows @ rows.T).double()).float() @ rows
print(torch.nn.functional.cosine_similarity(found[0].flatten(), ours, 0).item() > 1 - 1e-6, len(found))
"""
    assert printed(code) == "True 1"


@pytest.mark.simulator
@pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="needs the extra bench")
def test_rewards_of_envpool_are_those_of_the_package() -> None:
    code = """
try:
    import envpool
except (ImportError, FileNotFoundError):  # some builds lack their data
    print(None)
else:
    import simulation_envpool as it
    print(it.version() and it.largest_reward_difference("reach-v3", 20))
"""
    found = printed(code)
    if found == "None":
        pytest.skip("this EnvPool is not complete, or has no Meta-World")
    assert float(found) < 1e-3
