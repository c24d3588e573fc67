import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.files import locked
from mtorl.runs import experiment, training
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.balancers import Equal
from mtorl.trainers.logs import read_log
from mtorl.trainers.offline import TIMING_ENTRIES, OfflineTrainer
from mtorl.trainers.sharing import RandomMasks

VARIANTS = {
    "bc": {"agent": "BehaviorCloning", "agent.hidden": [16, 16]},
    "bc-private": {
        "agent": "BehaviorCloning",
        "agent.hidden": [16],
        "agent.task_identity": "embed",
        "agent.output_heads": "per_task",
        "tasks_per_batch": 2,
    },
    "dt": {
        "agent": "DecisionTransformer",
        "agent.width": 16,
        "agent.layers": 1,
        "agent.attention_heads": 2,
        "agent.context": 5,
        "agent.action_context": "dropout",
        "tasks_per_batch": 1,
        "order": "round_robin",
    },
}


def weights(folder: Path | str, which: str = "last") -> dict[str, torch.Tensor]:
    return Run(folder).checkpoints().load(which)["agent"]


def log(folder: Path | str) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMING_ENTRIES} for row in read_log(Path(folder))]


def assert_same_run(one: Path | str, two: Path | str) -> None:
    for which in ("last", "best"):
        expected, found = weights(one, which), weights(two, which)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert log(one) == log(two)


def test_a_run_folder_holds_everything(train_options: dict, store: EpisodeStore) -> None:
    run = train(**train_options)
    assert {path.name for path in run.folder.iterdir()} == {
        "config.yaml",
        "data_spec.json",
        "run.json",
        "log.jsonl",
        "tensorboard",
        "checkpoints",
    }
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["agent"]["init_args"]["hidden"] == [16, 16] and config["seed"] == 0
    rows = log(run.folder)
    assert [(row["kind"], row["step"]) for row in rows if row["step"] >= 20] == [
        ("training", 20),
        ("evaluation on training goals", 20),
        ("training", 25),
        ("training", 30),
        ("evaluation on training goals", 30),
    ]
    assert rows[0]["kind"] == "conflicts" and rows[0]["step"] == 0
    assert rows[1].keys() >= {"loss", "policy/gradient_norm", "policy/loss/away-0", "policy/weight/away-0"}
    assert list((run.folder / "tensorboard").iterdir())
    assert run.spec.data[0]["path"] == str(store.path)


def test_the_same_seed_gives_the_same_run_and_another_one_differs(train_options: dict, tmp_path: Path) -> None:
    first = train(**train_options)
    torch.manual_seed(99)  # the global state must not matter
    again = train(**{**train_options, "out": str(tmp_path / "again")})
    assert_same_run(first.folder, again.folder)
    other = train(**{**train_options, "out": str(tmp_path / "other"), "seed": 1})
    assert not torch.equal(weights(other.folder)["head.weight"], weights(first.folder)["head.weight"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_lowers_the_loss(train_options: dict, variant: str) -> None:
    options = {key: value for key, value in train_options.items() if not key.startswith("agent")}
    schedule = {"steps": 200, "log_every": 20, "evaluate_every": 0, "save_every": 0}
    run = train(**{**VARIANTS[variant], **options, "schedule": schedule, "optimizer": {"lr": 0.01, "warmup": 5}})
    losses = [row["loss"] for row in log(run.folder) if row["kind"] == "training"]
    assert losses[-1] < 0.5 * losses[0]
    assert run.checkpoints().steps() == [200]


PROGRAM = "import sys, json; from mtorl import train; train(**json.loads(sys.argv[1]))"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_and_resumed_equals_uninterrupted(train_options: dict, variant: str, tmp_path: Path) -> None:
    """kill -9 at three moments, the second at the evaluation of step 50; then resumed to the end."""
    schedule = {"steps": 200, "log_every": 7, "evaluate_every": 50, "save_every": 30}
    options = {key: value for key, value in train_options.items() if not key.startswith("agent")}
    options = {**options, **VARIANTS[variant], "schedule": schedule, "workers": 1}
    whole = train(**{**options, "out": str(tmp_path / "whole")})
    folder = tmp_path / "killed"
    options["out"] = str(folder)
    for lines in (3, 7, 25):
        arguments = {"resume": str(folder)} if (folder / "config.yaml").exists() else options
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(arguments)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(read_log(folder)) < lines:
            assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(read_log(folder)) < len(read_log(whole.folder))
    train(resume=folder)
    assert_same_run(whole.folder, folder)
    assert {path.name for path in folder.rglob("*") if "tfevents" not in path.name} == {
        path.name for path in whole.folder.rglob("*") if "tfevents" not in path.name
    }, "temporary files were left"


class Killed(BaseException):
    """Stands for kill -9 at an exact place: nothing in the program catches it."""


def test_killed_at_every_single_write_and_resumed(
    train_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies within the n-th atomic write of each attempt, leaving its temporary file, for n = 1, 2, 3, ..."""
    whole = train(**train_options)
    folder = tmp_path / "killed"
    real, attempts, finished = Path.replace, 0, False
    while not finished:
        attempts += 1
        left = [attempts]

        def replace(path: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(path, target)

        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # a dead process cleans nothing up
        try:
            if (folder / "config.yaml").exists():
                train(resume=folder)
            else:
                train(**{**train_options, "out": str(folder)})
            finished = True
        except Killed:
            pass
        monkeypatch.undo()
    assert attempts > 5
    train(resume=folder)
    assert_same_run(whole.folder, folder)
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_interrupted_within_an_evaluation(train_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(**train_options)
    folder = tmp_path / "interrupted"

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt, match=f"mtorl train --resume {folder}"):
        train(**{**train_options, "out": str(folder)})
    monkeypatch.undo()
    assert Run(folder).checkpoints().steps()[-1] == 20, "the steps before the evaluation are safe"
    train(resume=folder)
    assert_same_run(whole.folder, folder)


@pytest.mark.slow
def test_ctrl_c_saves_the_state(train_options: dict, tmp_path: Path) -> None:
    schedule = {"steps": 1000, "log_every": 5, "evaluate_every": 500, "save_every": 100}
    whole = train(**{**train_options, "schedule": schedule})
    folder = tmp_path / "interrupted"
    options = {**train_options, "out": str(folder), "schedule": schedule}
    arguments = [
        f"--{key}={json.dumps(value) if not isinstance(value, str) else value}" for key, value in options.items()
    ]
    arguments = [part.replace("--data=", "--data+=") for part in arguments]
    process = subprocess.Popen([sys.executable, "-m", "mtorl", "train", *arguments], stderr=subprocess.PIPE, text=True)
    while len(read_log(folder)) < 20:
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"continue with `mtorl train --resume {folder}`" in message
    assert 0 < Run(folder).checkpoints().steps()[-1] < 1000
    train(resume=folder)
    assert_same_run(whole.folder, folder)


def test_resuming_a_finished_run_changes_nothing(train_options: dict) -> None:
    run = train(**train_options)
    before = (log(run.folder), weights(run.folder))
    train(resume=run.folder)
    assert log(run.folder) == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in weights(run.folder).items())


def test_another_configuration_is_refused_with_its_differences(train_options: dict) -> None:
    run = train(**train_options)
    with pytest.raises(InputError, match=r"optimizer\.lr: 0\.001 in the checkpoint at step 30, 0\.5 asked for"):
        train(resume=run.folder, optimizer__lr=0.5)
    with pytest.raises(InputError, match=r"agent\.init_args\.hidden: \[16, 16\]"):
        train(resume=run.folder, agent__hidden=[8])
    train(resume=run.folder, workers=0)


def test_changed_data_is_refused(train_options: dict, suite: PointReach, tmp_path: Path) -> None:
    data = collect(suite, tmp_path / "mine", "expert", episodes=3, workers=0, quiet=True)
    run = train(**{**train_options, "data": str(data.path)})
    manifest = json.loads((data.path / "manifest.json").read_text())
    (data.path / "manifest.json").write_text(json.dumps({**manifest, "versions": {"simulator": "2"}}))
    with pytest.raises(InputError, match=r"is not what the run .* began with"):
        train(resume=run.folder)


def test_data_that_moved_is_known_by_its_hash(train_options: dict, suite: PointReach, tmp_path: Path) -> None:
    data = collect(suite, tmp_path / "mine", "expert", episodes=3, workers=0, quiet=True)
    run = train(**{**train_options, "data": str(data.path)})
    shutil.move(data.path, tmp_path / "moved")
    with pytest.raises(InputError, match="no data set in"):
        train(resume=run.folder)
    train(resume=run.folder, data=tmp_path / "moved")
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)


class Silent(Equal):
    """A balancer whose author forgot to return numbers."""

    def step(self, update):  # type: ignore[no-untyped-def]
        super().step(update)


def test_a_balancer_that_returns_nothing_is_named(train_options: dict) -> None:
    with pytest.raises(TypeError, match=r"Silent\.step returned NoneType; expected a dictionary of"):
        train(**{**train_options, "balancer": f"{__name__}.Silent"})


class Vague(Equal):
    """A balancer whose numbers cannot be logged."""

    def step(self, update):  # type: ignore[no-untyped-def]
        return {**super().step(update), "angle": float("nan")}


def test_a_balancer_whose_numbers_are_none_is_named(train_options: dict) -> None:
    with pytest.raises(TypeError, match=r"Vague\.step returned angle: nan; expected a dictionary of finite numbers"):
        train(**{**train_options, "balancer": f"{__name__}.Vague"})


def test_two_processes_cannot_train_one_run(train_options: dict) -> None:
    run = train(**train_options)
    with locked(run.folder, "checkpoints"), pytest.raises(InputError, match="another process is at work"):
        train(resume=run.folder)


def test_whoever_starts_second_leaves_the_first_alone(train_options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one looks at the folder before the first one has written anything there."""
    folder = Path(train_options["out"])
    real = experiment.Experiment.check

    def slow(self, stores, spec):  # type: ignore[no-untyped-def]
        real(self, stores, spec)
        monkeypatch.setattr(experiment.Experiment, "check", real)
        train(**{**train_options, "seed": 7})  # somebody is faster

    monkeypatch.setattr(experiment.Experiment, "check", slow)
    with pytest.raises(InputError, match="already holds another run"):
        train(**train_options)
    assert Run(folder).configuration.options.seed == 7
    Run(folder).evaluate(Protocol(goals=1), workers=0, quiet=True)


def test_resuming_verifies_the_data(train_options: dict, suite: PointReach, tmp_path: Path) -> None:
    data = collect(suite, tmp_path / "mine", "expert", episodes=3, workers=0, quiet=True)
    run = train(**{**train_options, "data": str(data.path)})
    run.checkpoints().file("last").unlink()
    content = bytearray((data.path / "actions.npy").read_bytes())
    content[-1] ^= 1
    (data.path / "actions.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"actions\.npy has sha256"):
        train(resume=run.folder)


def test_a_log_that_was_deleted_is_missed(train_options: dict) -> None:
    run = train(**train_options)
    (run.folder / "log.jsonl").unlink()
    with pytest.raises(InputError, match=r"log\.jsonl is shorter than when the checkpoint was written"):
        train(resume=run.folder)


def test_an_evaluation_knows_the_weights_that_it_played(train_options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training replaces the last checkpoint while the evaluation is reading it."""
    run = train(**train_options)
    digest = sha256(run.checkpoints().file("last"))
    real = torch.load

    def load(*arguments, **options):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(torch, "load", real)
        content = real(*arguments, **options)
        run.checkpoints().save(content["step"], {**content, "best": 0.5})
        return content

    monkeypatch.setattr(torch, "load", load)
    source = run.evaluate(Protocol(goals=1), workers=0, quiet=True).source
    assert source.sha256 == digest != sha256(run.checkpoints().file("last"))


def test_threads_are_those_of_the_run_only(train_options: dict) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    train(**train_options)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_ctrl_c_before_the_first_step_says_how_to_continue(
    train_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="mtorl train --resume"):
        patch.setattr(training, "RunLog", interrupt)
        train(**train_options)
    assert train(resume=train_options["out"]).checkpoints().steps()[-1] == 30


def test_stores_of_single_tasks_are_joined(train_options: dict, tmp_path: Path) -> None:
    folders = []
    for task in ("away-0", "towards-1"):
        folders.append(str(tmp_path / task))
        collect(PointReach([task]), folders[-1], "expert", episodes=3, workers=0, quiet=True)
    run = train(**{**train_options, "data": folders})
    report = run.evaluate(Protocol(goals=2), workers=0, quiet=True)
    assert report.task_names == ("away-0", "towards-1") and len(report.episodes) == 4


class Canonical(PointReach):
    """Keeps one order of tasks, whatever the order in which they are named."""

    def __init__(self, tasks: Sequence[str] | None = None, horizon: int = 50, goal_visible: bool = True) -> None:
        every = ("towards-1", "away-0")
        super().__init__([name for name in every if tasks is None or name in tasks], horizon, goal_visible)


@pytest.mark.parametrize("kind", [PointReach, Canonical])
def test_tasks_stand_in_the_order_of_their_suite(train_options: dict, kind: type[PointReach], tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("away-0", "towards-1")]
    for folder in folders:
        collect(kind([Path(folder).name]), folder, "expert", episodes=3, workers=0, quiet=True)
    runs = []
    for paths in (folders, folders[::-1]):
        runs.append(train(**{**train_options, "data": paths, "out": str(tmp_path / f"run {len(runs)}")}))
        assert runs[-1].suite().task_names == runs[-1].spec.task_names
    if kind is Canonical:
        assert runs[0].spec.task_names == runs[1].spec.task_names == ("towards-1", "away-0")
        reports = [run.evaluate(Protocol(goals=2), workers=0, quiet=True) for run in runs]
        assert [report.task_names for report in reports] == [("towards-1", "away-0")] * 2
    else:
        assert runs[0].spec.task_names == ("away-0", "towards-1") == runs[1].spec.task_names[::-1]


def test_a_run_whose_tasks_have_another_order_than_its_suite_is_not_played(train_options: dict, tmp_path: Path) -> None:
    data = collect(Canonical(), tmp_path / "data", "expert", episodes=3, workers=0, quiet=True)
    run = train(**{**train_options, "data": str(data.path)})
    path = run.folder / "data_spec.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "task_names": spec["task_names"][::-1]}))
    with pytest.raises(InputError, match=r"the suite Canonical has the tasks .*, the run has .* the wrong ones"):
        Run(run.folder).evaluate(Protocol(goals=1), workers=0, quiet=True)


def test_reports_of_two_runs_in_one_folder(train_options: dict, tmp_path: Path) -> None:
    """They keep apart, also where the runs' folders have one name; one of the same run is replaced."""
    for seed, name in enumerate(("a/run", "b/run")):
        run = train(**{**train_options, "out": str(tmp_path / name), "seed": seed})
        for _ in range(2):
            run.evaluate(Protocol(goals=1), out=tmp_path / "reports", workers=0, quiet=True)
    found = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert len(found) == 2 and all(re.fullmatch(r"run-\w{8}-heldout-last-1\.json", name) for name in found), found


def test_ctrl_c_while_the_checkpoint_before_an_evaluation_is_saved(
    train_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation is not played first."""

    def save(self: OfflineTrainer, *arguments: object) -> None:
        write(self, *arguments)
        signal.raise_signal(signal.SIGINT)

    write = OfflineTrainer._save
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="mtorl train --resume"):
        patch.setattr(OfflineTrainer, "_save", save)
        patch.setattr(training, "evaluate", lambda *_, **__: pytest.fail("it is played"))
        train(**train_options)
    assert train(resume=train_options["out"]).checkpoints().steps()[-1] == 30


def test_data_of_other_dimensions_than_their_suite_are_refused(
    train_options: dict, store: EpisodeStore, tmp_path: Path
) -> None:
    from conftest import TASKS, episode

    writer = StoreWriter(
        tmp_path / "odd", store.manifest["suite"], TASKS, (3, 2), 9, store.manifest["versions"], {"recipe": "test"}
    )
    writer.write([episode(task) for task in TASKS])
    with pytest.raises(InputError, match=r"dimensions \(3, 2\), their suite PointReach has \(4, 2\)"):
        train(**{**train_options, "data": str(tmp_path / "odd")})


def test_a_folder_holds_one_run(train_options: dict, tmp_path: Path) -> None:
    run = train(**train_options)
    with pytest.raises(InputError, match=rf"already holds another run.*--resume {run.folder}"):
        train(**train_options)
    with pytest.raises(InputError, match=r"no run in .*expected a file config.yaml"):
        Run(tmp_path / "nowhere")


def test_a_wrong_configuration_leaves_no_folder(train_options: dict) -> None:
    for changes, message in (
        ({"tasks": ["nonsense"]}, "unknown tasks"),
        ({"tasks": []}, "list of tasks is empty"),
        ({"execution": "fast"}, "execution"),
        ({"data": "no/such/data"}, "no data set in no/such/data"),
        ({"tasks_per_batch": 50}, "only 3 tasks"),
        ({"agent.hidden": [0]}, "hidden is"),
        ({"device": "cuda:7"}, "device 'cuda:7' cannot be used here"),
        ({"evaluate_goals": 51}, "evaluate_goals is 51"),
        ({"threads": -1}, "threads is -1; expected at least 1"),
        ({"workers": -1}, "workers is -1"),
        ({"workers": 100_000}, "workers is 100000; expected a number in"),
        ({"seed": 99999999999999999999}, r"seed is 9{20}; expected a number in \[0, 18446744073709551615\]"),
        ({"device": "meta"}, "device 'meta' cannot be used here"),
        ({"seed": -1}, "seed is -1"),
        ({"keep": 0}, "keep is 0"),
        ({"optimizer": {"betas": [1.5, 0.9]}}, "betas"),
        ({"windoes": 3}, "windoes"),
        ({"balancer": "FixedWeights", "balancer.values": [1, 2]}, "FixedWeights has 2 values"),
        ({"balancer": "ConnectionStrength"}, "no connection of single tasks"),
        ({"balancer": "BayesAgg"}, "needs a linear last layer"),
    ):
        with pytest.raises(InputError, match=message):
            train(**{**train_options, **changes})
        assert not Path(train_options["out"]).exists(), changes


def test_training_refuses_data_that_was_changed_on_disk(train_options: dict, suite: PointReach, tmp_path: Path) -> None:
    data = collect(suite, tmp_path / "mine", "expert", episodes=3, workers=0, quiet=True)
    content = bytearray((data.path / "rewards.npy").read_bytes())
    content[-1] ^= 1
    (data.path / "rewards.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"rewards\.npy has sha256"):
        train(**{**train_options, "data": str(data.path)})
    train(**{**train_options, "data": str(data.path), "verify": False})


def test_evaluation_needs_no_data_set(train_options: dict, suite: PointReach, tmp_path: Path) -> None:
    data = collect(suite, tmp_path / "mine", "expert", episodes=3, workers=0, quiet=True)
    run = train(**{**train_options, "data": str(data.path)})
    for path in data.path.iterdir():
        path.unlink()
    report = Run(run.folder).evaluate(Protocol(goals=4), workers=0, quiet=True)
    assert [row.episodes for row in report.tasks()] == [4, 4, 4]
    assert (run.folder / "evaluations" / "heldout-last-4.json").exists()
    assert run.evaluate(Protocol(goals=4), workers=1, quiet=True) == report


def test_a_checkpoint_of_another_configuration_is_not_played(train_options: dict) -> None:
    run = train(**train_options)
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("- 16\n", "- 8\n"))
    with pytest.raises(InputError, match=r"agent\.init_args\.hidden: \[16, 16\] in the checkpoint"):
        run.evaluate(Protocol(goals=1), workers=0, quiet=True)


@pytest.mark.parametrize("key", ["agent", "balancers", "sharing", "optimizers", "sampler", "probe"])
def test_damaged_parts_of_a_checkpoint_are_named(train_options: dict, key: str) -> None:
    """Whatever is inside: an empty part, one of another phase, one that holds something else."""
    run = train(**{**train_options, "sharing": "RandomMasks", "balancer": "FAMO"})
    state = run.checkpoints().load()
    for part in ({}, {"other": {}}, {name: {} for name in state[key]}, {name: {"x": 7} for name in state[key]}):
        run.checkpoints().save(state["step"], {**state, key: part})
        with pytest.raises(InputError, match=r"the checkpoint's .* do not fit .*Use that version, or train again"):
            train(resume=run.folder)
        if key in ("agent", "sharing"):
            with pytest.raises(InputError, match=r"the checkpoint's .* do not fit .*Use that version, or train again"):
                run.evaluate(Protocol(goals=1), workers=0, quiet=True)


def test_damaged_files_of_a_run_are_named(train_options: dict) -> None:
    run = train(**train_options)
    for name, content, message in (
        ("config.yaml", b"\x89PNG\x00\xff", r"configuration .*config\.yaml cannot be read"),
        ("config.yaml", b"a: [", r"configuration .*config\.yaml cannot be read"),
        ("config.yaml", b"- a", r"configuration .*config\.yaml is malformed: it is a list of 1; expected an object"),
        ("data_spec.json", b"{}", r"data_spec\.json is malformed: it lacks"),
        ("run.json", b'{"mtorl": 1}', r"run description .*run\.json is malformed: it lacks"),
    ):
        before = (run.folder / name).read_bytes()
        (run.folder / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            Run(run.folder).machine()
        (run.folder / name).unlink()
        os.mkfifo(run.folder / name)
        with pytest.raises(InputError, match="is a pipe or device"):
            Run(run.folder).machine()
        (run.folder / name).unlink()
        (run.folder / name).write_bytes(before)


def test_a_run_from_before_an_option_existed_goes_on(train_options: dict) -> None:
    run = train(**train_options)
    config, state = run.folder / "config.yaml", run.checkpoints().load()
    config.write_text(config.read_text().replace("    task_gain: false\n", ""))
    del state["config"]["agent"]["init_args"]["task_gain"]
    run.checkpoints().save(state["step"], state)
    assert run.evaluate(Protocol(goals=1), workers=0, quiet=True) and train(resume=run.folder)
    with pytest.raises(InputError, match=r"task_gain: False in the checkpoint at step 30, True asked for"):
        train(resume=run.folder, **{"agent.task_gain": True})


def test_a_subset_of_tasks_is_trained_and_evaluated(train_options: dict) -> None:
    run = train(**{**train_options, "tasks": ["away-0"]})
    report = run.evaluate(Protocol(goals=2), workers=0, quiet=True)
    assert report.task_names == ("away-0",) and {row.task for row in report.episodes} == {"away-0"}


def test_hidden_goals_at_evaluation(train_options: dict) -> None:
    run = train(**{**train_options, "schedule": {"steps": 300, "evaluate_every": 0}, "optimizer": {"lr": 0.01}})
    seen = run.evaluate(Protocol(goals=20), workers=0, quiet=True)
    hidden = run.evaluate(Protocol(goals=20), goal_visible=False, workers=0, quiet=True)
    assert hidden.mean_success < seen.mean_success
    assert hidden.goal_hidden and not seen.goal_hidden
    assert {path.name for path in (run.folder / "evaluations").iterdir()} == {
        "heldout-last-20.json",
        "heldout-last-goal-hidden-20.json",
    }


def test_double_precision(train_options: dict) -> None:
    run = train(**{**train_options, "dtype": "float64"})
    assert weights(run.folder)["head.weight"].dtype == torch.float64
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)


def test_a_full_disk_stops_with_a_message_and_keeps_the_checkpoints(train_options: dict) -> None:
    options = {**train_options, "schedule": {"steps": 100_000, "log_every": 1, "evaluate_every": 0, "save_every": 20}}
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + PROGRAM
    result = subprocess.run([sys.executable, "-c", program, json.dumps(options)], capture_output=True, text=True)
    assert "InputError: could not write" in result.stderr, result.stderr[-500:]
    assert Run(options["out"]).checkpoints().load()["step"] > 0


def test_tensorboard_shows_the_same_numbers(train_options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a run was interrupted and continued."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    calls = []

    def interrupt(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    real = training.evaluate
    monkeypatch.setattr(training, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(**train_options)
    monkeypatch.undo()
    run = train(resume=train_options["out"])
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    found = [event.value for event in events.Scalars("training/loss")]
    np.testing.assert_allclose(found, [row["loss"] for row in log(run.folder) if row["kind"] == "training"], rtol=1e-6)
    assert "evaluation_on_training_goals/success/away-0" in events.Tags()["scalars"]


def test_no_process_outlives_a_killed_trainer(train_options: dict) -> None:
    schedule = {"steps": 100_000, "evaluate_every": 10, "save_every": 0, "log_every": 1}
    options = {**train_options, "workers": 2, "schedule": schedule}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(options)], stderr=subprocess.DEVNULL)
    while len(read_log(Path(options["out"]))) < 12:
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(_alive(int(child)) for child in children):
        assert time.monotonic() < deadline, "workers are still there"
        time.sleep(0.1)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Walking(RandomMasks):
    """Masks that are rolled by one task now and then, and remember what they were shown."""

    def init(self, space, tasks, generator):  # type: ignore[no-untyped-def]
        super().init(space, tasks, generator)
        self.register_buffer("shown", torch.zeros(()))

    def due(self, index: int) -> bool:
        return index % 5 == 4

    def update(self, parameters, gradients, progress):  # type: ignore[no-untyped-def]
        assert gradients.task_ids.tolist() == [0, 1, 2] and set(self.places) < parameters.keys()
        self.shown += gradients.losses.mean() + progress
        self.masks = self.masks.roll(1, 0)
        return {"shown": float(self.shown)}


def test_a_sharing_that_changes_is_saved_and_resumed(train_options: dict, tmp_path: Path) -> None:
    options = {**train_options, "sharing": f"{__name__}.Walking", "balancer": "PCGrad", "tasks_per_batch": 2}
    run = train(**options)
    whole = run.checkpoints().load()
    run.checkpoints().file(30).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()
    assert whole["sharing"]["policy"]["shown"] > 0
    for part in ("agent", "sharing"):
        one, other = whole[part], again[part]
        for name, value in (one if part == "agent" else one["policy"]).items():
            found = (other if part == "agent" else other["policy"])[name]
            assert torch.equal(value["masks"], found["masks"]) if name == "_extra_state" else torch.equal(value, found)
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)


def test_sampling_is_part_of_a_run_and_of_its_resumption(train_options: dict, tmp_path: Path) -> None:
    """The best episodes, by episode, until success: other windows than usual, and the same after an interruption."""
    usual = train(**train_options)
    options = {"sampling": {"top": 0.5, "unit": "episode", "until": "success"}, "out": str(tmp_path / "chosen")}
    chosen = train(**train_options | options)
    assert chosen.configuration.options.sampling.top == 0.5
    whole = chosen.checkpoints().load()
    assert not torch.equal(whole["agent"]["head.weight"], usual.checkpoints().load()["agent"]["head.weight"])
    chosen.checkpoints().file(30).unlink()
    train(resume=chosen.folder)
    for name, value in chosen.checkpoints().load()["agent"].items():
        assert torch.equal(value, whole["agent"][name])


@pytest.mark.parametrize(("hidden", "threads"), [([16], 1), ([800, 800], 2)])
def test_the_size_of_the_agent_chooses_the_threads(train_options: dict, hidden: list[int], threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    options = {**train_options, "threads": None, "agent.hidden": hidden, "schedule": {"steps": 1, "evaluate_every": 0}}
    run = train(**options)
    torch.set_num_threads(before)
    assert json.loads((run.folder / "run.json").read_text())["threads"] == threads
    assert run.configuration.options.threads is None


@pytest.mark.parametrize(("noted", "taken"), [(2, 2), (None, 3)])
def test_a_resumed_run_takes_the_threads_it_began_with(
    train_options: dict, noted: int | None, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(**{**train_options, "threads": None})
    machine = json.loads((run.folder / "run.json").read_text())
    machine = {key: value for key, value in machine.items() if key != "threads"}
    (run.folder / "run.json").write_text(json.dumps(machine | ({} if noted is None else {"threads": noted})))
    found = []
    monkeypatch.setattr(training.RunLog, "close", lambda log: found.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    train(resume=run.folder)
    torch.set_num_threads(before)
    assert found == [taken]


def test_a_number_of_threads_that_makes_no_sense_is_refused(train_options: dict) -> None:
    with pytest.raises(InputError, match=r"threads is 100000; expected a number in \[1, \d+\]"):
        train(**{**train_options, "threads": 100_000})
    run = train(**{**train_options, "threads": None})
    (run.folder / "run.json").write_text('{"threads": "two"}')
    with pytest.raises(InputError, match=r"run\.json is malformed"):
        train(resume=run.folder)


@pytest.mark.parametrize(("data", "out"), [("1e5", "007"), ("2E-3", "yes"), ("12:30:00", "null")])
def test_folders_named_like_numbers(
    data: str, out: str, train_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(train_options["data"], data)
    run = train(**{**train_options, "data": data, "out": out, "schedule": {"steps": 2, "evaluate_every": 0}})
    assert run.folder == Path(out)
    train(resume=out)
    assert Run(out).evaluate(Protocol(goals=1), workers=0, quiet=True).policy.startswith(out)
