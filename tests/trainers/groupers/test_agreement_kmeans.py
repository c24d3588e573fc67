from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.agents import ParameterSpace
from mtorl.commands.main import main
from mtorl.datasets.grouping import Grouping
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.runs.training import train
from mtorl.trainers.groupers import AgreementKMeans
from mtorl.trainers.sharing import GroupMasks

FAMILIES = ["towards-0", "towards-1", "towards-2", "away-0", "away-1", "away-2"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("groups")
    data = collect(PointReach(FAMILIES), folder / "data", "expert", episodes=20, workers=0, quiet=True)
    return {
        "data": str(data.path),
        "out": str(folder / "warm"),
        "agent": {"class_path": "BehaviorCloning", "init_args": {"hidden": [32], "task_identity": "none"}},
        "optimizer": {"lr": 0.01, "warmup": 0},
        "schedule": {"steps": 60, "evaluate_every": 0, "save_every": 0, "monitor_every": 0},
        "windows": 64,
        "evaluate_goals": 2,
        "workers": 0,
        "threads": 1,
        "quiet": True,
    }


def test_two_families_that_pull_apart_are_told_apart(
    options: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Half of the tasks go to the goal, half away from it, and the policy is not told which."""
    run = train(**options)
    path = tmp_path / "groups.json"
    assert main(["group", str(run.folder), "--groups", "2", "--out", str(path), "--method", "AgreementKMeans"]) == 0
    assert "towards-0, towards-1, towards-2" in capsys.readouterr().out
    assert "<svg" in path.with_suffix(".svg").read_text()[:1000], "a picture beside it"
    grouping = Grouping.load(path)
    assert grouping.task_names == run.spec.task_names and grouping.count == 2
    kinds = [name.split("-")[0] for name in grouping.task_names]
    assert len(set(zip(kinds, grouping.labels, strict=True))) == 2, grouping
    assert grouping.labels[0] == 0 and grouping.score > 0.2
    inside = np.array(grouping.affinity)[:3, :3].mean()
    assert inside > np.array(grouping.affinity)[:3, 3:].mean()

    masked = train(
        **{**options, "out": str(tmp_path / "masked"), "schedule": {"steps": 40, "evaluate_every": 0}},
        sharing="GroupMasks",
        **{"sharing.grouping": str(path), "sharing.interval": 10, "sharing.swap_fraction": 0.3},
    )
    masks = masked.sharing()["policy"]
    assert isinstance(masks, GroupMasks) and len(masks.masks) == 2 and masks.changed() > 0
    name = next(iter(masks.places))
    for one, left in enumerate(grouping.labels):
        for other, right in enumerate(grouping.labels):
            assert torch.equal(masks.mask(name, one), masks.mask(name, other)) == (left == right)


def test_k_means_sees_exact_distances() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(6, 500)) + 4 * draw.normal(size=(2, 500))[[0, 1, 0, 1, 1, 0]]
    grouper = AgreementKMeans(cosine=False)
    grouping = grouper._cluster(vectors @ vectors.T, tuple("abcdef"), 2, 0)
    assert grouping.labels == (0, 1, 0, 1, 1, 0)
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(grouping.affinity, vectors @ vectors.T / np.outer(norms, norms), atol=1e-12)
    assert grouper._cluster(vectors @ vectors.T, tuple("abcdef"), 6, 0).labels == (0, 1, 2, 3, 4, 5)
    assert grouper._cluster(vectors @ vectors.T, tuple("abcdef"), 1, 0).labels == (0,) * 6


def test_wrong_input_is_refused(options: dict, tmp_path: Path) -> None:
    run = train(**{**options, "out": str(tmp_path / "run"), "schedule": {"steps": 1, "evaluate_every": 0}})
    with pytest.raises(InputError, match="groups is 7; expected 1 to 6"):
        run.group(AgreementKMeans(), 7)
    with pytest.raises(InputError, match="batches is 0"):
        AgreementKMeans(batches=0)
    grouping = run.group(AgreementKMeans(batches=2), 3)
    grouping.save(tmp_path / "groups.json")
    masks = {"sharing": "GroupMasks", "sharing.grouping": str(tmp_path / "groups.json")}
    few = train(**{**options, **masks, "out": str(tmp_path / "two"), "tasks": [FAMILIES[0], FAMILIES[5]]})
    two_tasks = few.sharing()["policy"]
    assert isinstance(two_tasks, GroupMasks)
    assert len(two_tasks.masks) == 1 + (grouping.labels[0] != grouping.labels[5]), "groups without tasks have no mask"
    with pytest.raises(InputError, match="grouping not found"):
        train(**{**options, **masks, "out": str(tmp_path / "none"), "sharing.grouping": str(tmp_path / "none.json")})
    replace(grouping, task_names=tuple("abcdef")).save(tmp_path / "groups.json")
    with pytest.raises(InputError, match=r"tasks \['towards-0', .* are in no group"):
        train(**{**options, **masks, "out": str(tmp_path / "other")})
    assert not (tmp_path / "none").exists() and not (tmp_path / "other").exists()


def test_every_task_of_a_group_counts(tmp_path: Path) -> None:
    """Whatever the lengths of their gradients."""
    net = torch.nn.Linear(6, 5)
    Grouping(tuple("abc"), (0, 0, 1), ((1.0,) * 3,) * 3, 0.0, "").save(tmp_path / "groups.json")
    masks = GroupMasks(str(tmp_path / "groups.json"))
    masks.init(ParameterSpace(net, maskable=[net]), 3, torch.Generator().manual_seed(0))
    dense = torch.randn(3, 35, dtype=torch.float64)
    for factor in (1.0, 1000.0):
        scaled = dense * torch.tensor([[factor], [1.0], [1.0]])
        rows, _ = masks.by_rows(scaled, masks.scales(scaled))
        units = dense / dense[:, :30].norm(dim=1, keepdim=True)
        torch.testing.assert_close(rows, torch.stack([units[:2].mean(0), units[2]]))
