"""What a run does with groups of tasks: a model for each, and everything else that reads them."""

import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS

from mtorl import InputError, evaluate, load_policy
from mtorl.agents import M3DT, BehaviorCloning
from mtorl.agents.heads import RegressionHead
from mtorl.commands.main import main
from mtorl.datasets.grouping import Grouping
from mtorl.envs.base import RolloutContext
from mtorl.envs.protocol import Protocol
from mtorl.files import sha256
from mtorl.reports.masks import export_masks, summarise
from mtorl.reports.run_report import report
from mtorl.runs.run import Run
from mtorl.runs.sweep import ablate
from mtorl.runs.training import train
from mtorl.trainers.logs import read_log
from mtorl.trainers.offline import TIMING_ENTRIES
from mtorl.trainers.policy import PolicyPerGroup
from mtorl.trainers.sharing import GroupMasks

TASKS = ("towards-0", "towards-2", "away-0")
LABELS = (0, 1, 0)


PROGRAM = "import sys, json; from mtorl import train; train(**json.loads(sys.argv[1]))"


class Killed(BaseException):
    """Stands for kill -9 at an exact place: nothing in the program catches it."""


def weights(folder: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return Run(folder).checkpoints().load(which)["agent"]


def log(folder: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMING_ENTRIES} for row in read_log(folder)]


def save(path: Path, labels: tuple[int, ...] = LABELS, names: tuple[str, ...] = TASKS) -> str:
    size = len(names)
    affinity = tuple(tuple(float(row == column) for column in range(size)) for row in range(size))
    Grouping(names, labels, affinity, 0.5, "by hand").save(path)
    return str(path)


@pytest.fixture
def options(train_options: dict, tmp_path: Path) -> dict:
    return train_options | {"grouping": save(tmp_path / "groups.json")}


def assert_same(one: Path, other: Path) -> None:
    for which in ("last", "best"):
        expected, found = weights(one, which), weights(other, which)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert log(one) == log(other)


def test_a_model_of_all_tasks_is_the_usual_one_and_of_one_task_a_single_task_model(
    options: dict, train_options: dict, baseline: Callable[[dict], Run], tmp_path: Path
) -> None:
    options |= {"per_group": True}
    together = train(**options | {"grouping": save(tmp_path / "one.json", (0, 0, 0)), "out": str(tmp_path / "one")})
    assert_same(together.folder / "group-0", baseline(train_options).folder)
    alone = train(**options | {"grouping": save(tmp_path / "all.json", (2, 0, 1)), "out": str(tmp_path / "all")})
    assert [part.spec.task_names for part in alone.parts] == [("towards-2",), ("away-0",), ("towards-0",)]
    assert_same(alone.folder / "group-2", baseline(train_options | {"tasks": ["towards-0"]}).folder)


def test_the_models_are_played_compared_and_reported_as_one(
    options: dict, baseline: Callable[[dict], Run], tmp_path: Path
) -> None:
    run = train(**options | {"per_group": True})
    assert run.per_group and [part.spec.task_names for part in run.parts] == [("towards-0", "away-0"), ("towards-2",)]
    assert {path.name for path in run.folder.iterdir()} == {
        "config.yaml",
        "data_spec.json",
        "grouping.json",
        "group-0",
        "group-1",
        "run.json",
    }
    found = evaluate(run.folder, goals=3, workers=0, quiet=True)
    assert found.task_names == TASKS, "the suite's order"
    assert found.source.step == 60 and found.source.sha256 == run.digest()
    for part in run.parts:
        own = part.evaluate(Protocol(goals=3), workers=0, quiet=True)
        assert [row for row in found.tasks() if row.task in own.task_names] == own.tasks()
    assert evaluate(run.folder, checkpoint="20", goals=1, workers=0, quiet=True).source.step == 40
    errors = run.action_errors(options["data"]).tasks
    alone = [part.action_errors(options["data"]).tasks for part in run.parts]
    assert errors == alone[0] | alone[1]

    joint = baseline({name: it for name, it in options.items() if name != "grouping"})
    joint.evaluate(Protocol(goals=3), workers=0, quiet=True)
    page = report([run.folder, joint.folder], out=tmp_path / "report.html")
    mine, other = json.loads(page.with_suffix(".json").read_text())["runs"]
    assert (mine["models"], mine["training_steps"]) == (2, 60) and (other["models"], other["training_steps"]) == (1, 30)
    assert mine["parameters"] == sum(part.parameters() for part in run.parts) != other["parameters"]
    assert mine["training_minutes"] > 0 and mine["groups"] == [["towards-0", "away-0"], ["towards-2"]]
    assert other["groups"] is None and [row["task"] for row in mine["tasks"]] == list(TASKS)
    text = page.read_text()
    assert "2 models, 60 steps in all" in text and "tasks of a model of their own" in text
    assert text.count(">Training data</h2>") == 1, "the same data with and without groups are the same data"

    checkpoints = run.parts[1].checkpoints()
    checkpoints.save(31, {**checkpoints.load(), "step": 31})
    with pytest.raises(InputError, match=r"heldout evaluations of .* its checkpoint last has changed since"):
        report(run.folder)


def test_info_shows_the_models(options: dict, capsys: pytest.CaptureFixture) -> None:
    run = train(**options | {"per_group": True})
    assert main(["info", str(run.folder)]) == 0
    text = capsys.readouterr().out
    assert "towards-0, away-0" in text and "2 in all" in text and f"{run.parameters():,}" in text
    assert text.count("30 of 30") == 2 and "60" in text
    assert main(["info", str(run.folder), "--verify"]) == 2 and "--verify is for data sets" in capsys.readouterr().err


def test_acting_is_that_of_the_tasks_own_model(options: dict) -> None:
    run = train(**options | {"per_group": True})
    policy, parts = load_policy(run.folder), [load_policy(part) for part in run.parts]
    assert isinstance(policy.policy, PolicyPerGroup) and policy.task_names == TASKS
    seen, rewards = np.full((2, 4), 0.3, dtype=np.float32), np.zeros(2, dtype=np.float32)
    for task, (group, place) in enumerate(((0, 0), (1, 0), (0, 1))):
        policy.reset(RolloutContext(np.full(2, task), np.arange(2)))
        parts[group].reset(RolloutContext(np.full(2, place), np.arange(2)))
        np.testing.assert_array_equal(policy.act(seen, rewards), parts[group].act(seen, rewards))
    with pytest.raises(InputError, match=r"2 models, one for each group of tasks, cannot act where the task is hidden"):
        policy.reset(RolloutContext(None, np.arange(2)))


def test_what_is_for_one_model_is_refused_by_name(options: dict, tmp_path: Path) -> None:
    run = train(**options | {"per_group": True, "sharing": "RandomMasks"})
    assert [one.phase for one in summarise(run)] == ["group-0, policy", "group-1, policy"]
    for call in (run.sharing, run.checkpoints, lambda: export_masks(run, tmp_path / "m.safetensors")):
        with pytest.raises(InputError, match=r"holds a model for each of 2 groups of tasks.* Give .*group-0, say"):
            call()
    (run.folder / "group-1" / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"of the models of its groups group-1 were not begun. Continue with `mtorl"):
        Run(run.folder).policy()
    (run.folder / "group-1").rename(tmp_path / "aside")
    (run.folder / "group-0").rename(run.folder / "group-1")
    (tmp_path / "aside").rename(run.folder / "group-0")
    (run.folder / "group-0" / "config.yaml").write_text((run.folder / "group-1" / "config.yaml").read_text())
    with pytest.raises(InputError, match=r"group-0 is a run of the tasks \['towards-2'\]; expected \['towards-0'"):
        Run(run.folder).policy()


def test_killed_at_every_single_write_and_resumed(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies within the n-th atomic write of each attempt; finished models are not touched again."""
    options |= {"per_group": True, "schedule": {"steps": 20, "log_every": 5, "evaluate_every": 20, "save_every": 10}}
    whole, folder = train(**options | {"out": str(tmp_path / "whole")}), tmp_path / "killed"
    real, attempts, finished, first = Path.replace, 0, False, 0
    while not finished:
        attempts += 1
        left = [attempts]

        def replace(path: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(path, target)

        monkeypatch.setattr(Path, "replace", replace)
        try:
            train(resume=folder) if (folder / "config.yaml").exists() else train(**options | {"out": str(folder)})
            finished = True
        except Killed:
            pass
        monkeypatch.undo()
        if (folder / "group-1" / "config.yaml").exists():
            first = first or (folder / "group-0" / "log.jsonl").stat().st_mtime_ns
            assert (folder / "group-0" / "log.jsonl").stat().st_mtime_ns == first, "it was trained already"
    assert attempts > 5 and first
    for group in ("group-0", "group-1"):
        assert_same(whole.folder / group, folder / group)
    assert Run(folder).digest() is not None and Run(folder).policy()[1].step == 40


@pytest.mark.slow
def test_kill_9_in_the_middle(options: dict, tmp_path: Path) -> None:
    options |= {"per_group": True, "schedule": {"steps": 200, "log_every": 7, "evaluate_every": 50, "save_every": 30}}
    whole, folder = train(**options | {"out": str(tmp_path / "whole")}), tmp_path / "killed"
    for group, lines in (("group-0", 9), ("group-1", 9), ("group-1", 25)):
        begun = (folder / "config.yaml").exists()
        arguments = {"resume": str(folder)} if begun else options | {"out": str(folder)}
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(arguments)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(log(folder / group)) < lines:
            assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train(resume=folder)
    for group in ("group-0", "group-1"):
        assert_same(whole.folder / group, folder / group)


def test_ctrl_c_says_how_to_continue_the_whole(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mtorl.runs.training.evaluate", interrupt)
    folder = options["out"]
    with pytest.raises(KeyboardInterrupt, match=f"continue with `mtorl train --resume {folder}`"):
        train(**options | {"per_group": True})
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"config.*group-1|group-1 were not begun"):
        load_policy(folder)
    assert load_policy(train(resume=folder, workers=0)).task_names == TASKS
    with pytest.raises(InputError, match=r"optimizer\.lr: 0\.001 in the run, 0\.5 asked for"):
        train(resume=folder, optimizer__lr=0.5)


def test_a_run_keeps_its_groups_whatever_the_file_says_later(options: dict, tmp_path: Path) -> None:
    """For masks that read them, too; the run begun anew has those of the file."""
    path = Path(options["grouping"])
    masked = options | {"sharing": "GroupMasks", "sharing.interval": 7, "sharing.gate_steps": 2, "keep": 9}
    run, content = train(**masked), path.read_bytes()
    assert (run.folder / "grouping.json").read_bytes() == content and run.spec.groups == LABELS
    assert run.machine()["grouping"] == {"path": str(path), "sha256": sha256(path)}
    whole = weights(run.folder)
    for change, message in ((lambda: save(path, (0, 0, 1)), "has changed since the run"), (path.unlink, None)):
        run.checkpoints().file(30).unlink()
        change()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(resume=run.folder)
        said = [str(it.message) for it in caught if "groups" in str(it.message)]
        assert len(said) == (message is not None) and all(str(message) in it for it in said)
        assert all(torch.equal(value, whole[name]) for name, value in weights(run.folder).items())
        masks = Run(run.folder).sharing()["policy"]
        assert isinstance(masks, GroupMasks) and [masks.row(task) for task in range(3)] == [0, 1, 0]
    with pytest.raises(InputError, match=r"grouping: '.*groups\.json' in the checkpoint at step 30, '.*other\.json'"):
        train(resume=run.folder, grouping=save(tmp_path / "other.json", (0, 0, 1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grouping": "no.json"}, "grouping not found: expected the file no.json"),
        ({"grouping": None, "per_group": True}, "there are no groups. Add --grouping FILE"),
        ({"grouping": None, "order": "by_group"}, "order is 'by_group', but the tasks are in no groups"),
        ({"grouping": None, "sharing": "GroupMasks"}, "GroupMasks has no groups: give --grouping FILE"),
        ({"grouping": None, "agent.output_heads": "per_group"}, "output_heads is per_group, but the tasks are in no"),
        ({"grouping": None, "agent": {"class_path": "M3DT"}}, "M3DT has no groups: give --grouping FILE"),
        (
            {"per_group": True, "balancer": "FixedWeights", "balancer.values": [1.0, 1.0, 1.0]},
            r"model of group 0 \(tow",
        ),
    ],
    ids=str,
)
def test_wrong_input_is_refused_before_anything_is_written(options: dict, changes: dict, message: str) -> None:
    options |= changes
    if "agent" in changes:
        del options["agent.hidden"]
    with pytest.raises(InputError, match=message):
        train(**options)
    assert not Path(options["out"]).exists()


def test_wrong_files_are_refused_by_name(options: dict, tmp_path: Path) -> None:
    path = Path(options["grouping"])
    content = json.loads(path.read_text())
    for labels, message in (([0, 5, 0], r"groups\.json: the groups are \[0, 5\]"), ([0, 1, 2, 3], r"groups\.json")):
        path.write_text(json.dumps(content | {"labels": labels}))
        with pytest.raises(InputError, match=message):
            train(**options)
    save(path, (0, 1, 0), ("towards-0", "towards-2", "away-9"))
    with pytest.raises(InputError, match=r"tasks \['away-0'\] are in no group; the grouping knows"):
        train(**options)
    assert train(**options | {"tasks": ["towards-2"]}).spec.groups == (0,), "groups without tasks are none"


def test_two_groupings_that_differ_are_refused_and_two_that_agree_are_one(options: dict, tmp_path: Path) -> None:
    masks = {"sharing": "GroupMasks", "sharing.grouping": save(tmp_path / "own.json", (0, 0, 1))}
    with pytest.raises(InputError, match=r"sharing\.grouping \(.*own\.json\) are not those of the run's --grouping"):
        train(**options | masks)
    save(tmp_path / "own.json", (1, 0, 1))
    run = train(**options | masks)
    save(tmp_path / "own.json", (0, 0, 1))  # by somebody who makes another run of it
    found = run.sharing()["policy"]
    assert isinstance(found, GroupMasks) and [found.row(task) for task in range(3)] == [0, 1, 0]
    experts = options | {"out": str(tmp_path / "m3dt"), "schedule": {"steps": 10, "evaluate_every": 0}}
    del experts["agent.hidden"]
    small = {name: value for name, value in SMALL_AGENTS[M3DT].items() if name != "groups"}
    with pytest.raises(InputError, match=r"agent\.groups is \[\['towards-0'\], .*but --grouping says"):
        named = {"groups": [["towards-0"], ["towards-2", "away-0"]]}
        train(**experts | {"agent": {"class_path": "M3DT", "init_args": small | named}})
    run = train(**experts | {"agent": {"class_path": "M3DT", "init_args": small}})
    agent = load_policy(run).policy.agent  # type: ignore[union-attr]
    assert isinstance(agent, M3DT) and agent.groups.int().tolist() == [[1, 0], [0, 1], [1, 0]]


def test_groups_of_the_run_are_as_good_as_those_of_the_members(options: dict, tmp_path: Path) -> None:
    masks = {"sharing": "GroupMasks", "sharing.interval": 7, "sharing.gate_steps": 0, "sharing.swap_fraction": 0.3}
    own = {name: value for name, value in options.items() if name != "grouping"} | {"out": str(tmp_path / "own")}
    one, other = train(**options | masks), train(**own | masks | {"sharing.grouping": options["grouping"]})
    assert other.spec.groups is None and log(one.folder) == log(other.folder)
    assert all(torch.equal(value, weights(other.folder)[name]) for name, value in weights(one.folder).items())


def test_heads_of_groups_of_one_task_are_those_of_tasks(options: dict, baseline: Callable[[dict], Run]) -> None:
    save(Path(options["grouping"]), (0, 1, 2))
    options |= {"tasks_per_batch": 2, "optimizer": {"lr": 0.01, "warmup": 0}}
    of_groups = train(**options | {"agent.output_heads": "per_group"})
    of_tasks = baseline(
        {name: it for name, it in options.items() if name != "grouping"} | {"agent.output_heads": "per_task"}
    )
    assert_same(of_groups.folder, of_tasks.folder)


def test_objects_are_trained_per_group_too(options: dict, tmp_path: Path) -> None:
    whole = train(**options | {"per_group": True, "balancer": "RandomWeighting"})
    parsed = whole.configuration.experiment()
    objects = replace(parsed, agent=partial(BehaviorCloning, hidden=(16, 16)), out=str(tmp_path / "objects"))
    again = train(objects)
    for group in ("group-0", "group-1"):
        assert_same(whole.folder / group, again.folder / group)
    assert train(resume=again).digest() == again.digest()


def test_heads_of_groups_are_trained_resumed_and_played(options: dict) -> None:
    options |= {"agent.output_heads": "per_group", "tasks_per_batch": 1, "keep": 9, "optimizer": {"warmup": 0}}
    run = train(**options)
    head = load_policy(run).policy.agent.head  # type: ignore[union-attr]
    assert isinstance(head, RegressionHead) and head.weight.shape[0] == 2
    whole = run.checkpoints().load()
    run.checkpoints().file(30).unlink()
    again = train(resume=run.folder).checkpoints().load()
    assert all(torch.equal(value, again["agent"][name]) for name, value in whole["agent"].items())
    seen = again["optimizers"]["policy"]["seen"][0]
    assert seen.sum() == 30 and len(seen) == 2, "of one task in each step the row of its group moves"
    assert run.evaluate(Protocol(goals=1), workers=0, quiet=True).task_names == TASKS


@pytest.mark.parametrize("order", ["by_group", "over_groups"])
def test_batches_of_groups_are_trained_and_resumed(options: dict, order: str) -> None:
    run = train(**options | {"order": order, "keep": 9, "schedule": {"steps": 20, "save_every": 5, "log_every": 1}})
    tasks = [
        {TASKS.index(key.rsplit("/", 1)[1]) for key in row if key.startswith("policy/loss/")}
        for row in log(run.folder)
        if row["kind"] == "training"
    ]
    if order == "by_group":
        assert tasks == [{0, 2}, {1}] * 10
    else:
        assert all(len(batch) == 2 and 1 in batch for batch in tasks) and {0, 2} < set.union(*tasks)
    whole, rows = weights(run.folder), log(run.folder)
    for step in (20, 15):
        run.checkpoints().file(step).unlink()
    train(resume=run.folder)
    assert all(torch.equal(value, whole[name]) for name, value in weights(run.folder).items())
    assert log(run.folder) == rows


def test_models_of_groups_are_a_row_of_an_ablation(
    options: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = {name: options[name] for name in ("grouping", "agent.hidden", "schedule", "evaluate_goals", "windows")}
    arguments = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in data.items()]
    base = tmp_path / "base.yaml"
    command = ["train", f"--data={json.dumps([options['data']])}", *arguments, "--out", "x", "--print_config"]
    with pytest.raises(SystemExit):
        main(command)
    base.write_text(capsys.readouterr().out)
    sweep = ablate(str(base), {"per_group": [False, True]}, str(tmp_path / "sweep"), goals=2, workers=0, quiet=True)
    assert main(["report", *[str(folders[0][0]) for folders in sweep.methods.values()]]) == 0
    digests = [Run(folders[0][0]).digest() for folders in sweep.methods.values()]
    again = ablate(str(base), {"per_group": [False, True]}, str(tmp_path / "sweep"), goals=2, workers=0, quiet=True)
    assert [Run(folders[0][0]).digest() for folders in again.methods.values()] == digests
