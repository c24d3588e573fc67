"""Trackers get what the log gets, and can neither stop training nor slow it down."""

import importlib.util
import json
import time
import warnings
from pathlib import Path

import pytest
from recording import Failing, Writing

import mtorl
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers import tracking
from mtorl.trainers.entries import EvaluationEntry, TrainingEntry
from mtorl.trainers.logs import Log, read_log
from mtorl.trainers.trackers import Tracker, Trackio, Wandb


def writing(path: Path) -> dict:
    return {"class_path": "recording.Writing", "init_args": {"path": str(path)}}


def told(path: Path, *methods: str) -> list[list]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line[0] in methods]


def test_a_tracker_of_ones_own_gets_what_the_log_gets(train_options: dict, tmp_path: Path) -> None:
    run = train(**train_options, tracker=writing(tmp_path / "told"))
    begin, *_, close = told(tmp_path / "told", "begin", "close")
    assert begin == ["begin", "run", 0, None] and close == ["close"]
    logged = {
        (step, name): value for _, step, numbers in told(tmp_path / "told", "log") for name, value in numbers.items()
    }
    log = Log(run.folder)
    for entry in log.of(TrainingEntry):
        assert logged[entry.step, "training/loss"] == entry.loss
        assert logged[entry.step, "training/policy/loss/away-0"] == entry.numbers["policy/loss/away-0"]
    (found,) = [it for it in log.of(EvaluationEntry) if it.step == 20]
    assert logged[20, "evaluation_on_training_goals/success/away-0"] == found.success["away-0"]
    table = [
        "table",
        20,
        "evaluation_on_training_goals/table",
        ["task", "success"],
        [[*it] for it in found.success.items()],
    ]
    assert table in told(tmp_path / "told", "table")


def test_evaluations_arrive_as_numbers_and_as_a_table(train_options: dict, tmp_path: Path) -> None:
    run = train(**train_options, tracker=writing(tmp_path / "told"))
    (tmp_path / "told").unlink()
    report = run.evaluate(mtorl.envs.protocol.Protocol("heldout", 2), workers=0, quiet=True)
    assert told(tmp_path / "told", "begin") == [["begin", "run", 0, "known"]], "it goes on with the run"
    ((_, step, numbers),) = told(tmp_path / "told", "log")
    assert step == 30 and numbers["heldout-last-2/mean success"] == report.mean_success
    ((*_, name, columns, rows),) = told(tmp_path / "told", "table")
    assert name == "heldout-last-2/table" and columns[0] == "task" and rows[1][0] == "towards-2"
    assert rows[1][2] == report.tasks()[1].rate


def test_a_resumed_run_is_told_once(train_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(**train_options, tracker=writing(tmp_path / "whole"))
    options = {**train_options, "out": str(tmp_path / "again"), "tracker": writing(tmp_path / "again.told")}
    run = train(**options)
    for file in (run.folder / "checkpoints").glob("*30.pt"):  # as if it had died after the last entry
        file.unlink()
    train(resume=run)
    first, second = (told(tmp_path / name, "log", "table") for name in ("whole", "again.told"))

    def lasting(line: list) -> list:
        """Without what the clock says."""
        method, step, *rest = line
        if method == "log":
            rest = [{name: value for name, value in rest[0].items() if "per_second" not in name}]
        return [method, step, *rest]

    assert [*map(lasting, first)] == [*map(lasting, second)]
    assert [line[-1] for line in told(tmp_path / "again.told", "begin")] == [None, "known"]
    assert len(read_log(run.folder)) == len(read_log(whole.folder))


def test_the_tracker_is_no_part_of_what_a_run_is(train_options: dict, tmp_path: Path) -> None:
    run = train(**train_options)
    assert "\ntracker" not in (run.folder / "config.yaml").read_text()
    assert not (run.folder / tracking.IDENTITIES).exists()
    train(resume=run, tracker=writing(tmp_path / "told"))
    assert told(tmp_path / "told", "begin") == [["begin", "run", 0, None]]
    followed = train(**{**train_options, "out": str(tmp_path / "other")}, tracker=writing(tmp_path / "told"))
    train(resume=followed, tracker=None)
    assert len(told(tmp_path / "told", "begin")) == 2


@pytest.mark.parametrize("at", ["begin", "log", "close"])
def test_one_that_fails_is_left_alone(train_options: dict, tmp_path: Path, at: str) -> None:
    tracker = {"class_path": "recording.Failing", "init_args": {"at": at, "path": str(tmp_path / "calls")}}
    with pytest.warns(UserWarning, match=f"the tracker Failing failed and is left alone: {at} raised") as warned:
        run = train(**train_options, tracker=tracker)
    assert len([it for it in warned if "Failing" in str(it.message)]) == 1
    assert run.checkpoints().steps()[-1] == 30 and len(Log(run.folder).of(TrainingEntry)) == 6
    calls = (tmp_path / "calls").read_text().split()
    assert calls.count(at) == 1 and calls[-1] == at, "nothing is tried again"


def test_a_slow_one_is_not_waited_for(train_options: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracking, "PATIENCE", 0.01)
    monkeypatch.setattr(tracking, "WAITING", 3)
    tracker = {"class_path": "recording.Failing", "init_args": {"slow": 60.0, "path": str(tmp_path / "calls")}}
    with pytest.warns(UserWarning, match=r"has not taken everything within 0.01 seconds"):
        run = train(**train_options, tracker=tracker)
    assert (tmp_path / "calls").read_text().split() == ["begin"], "it is still busy with the first call"
    assert len(Log(run.folder).of(TrainingEntry)) == 6


def test_what_a_full_queue_misses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "WAITING", 3)
    follows = tracking.Tracking(Failing(slow=0.05, path=str(tmp_path / "calls")), "run", tmp_path, {})
    for step in range(20):
        follows.log(step, {"loss": 1.0})
    with pytest.warns(UserWarning, match=r"was too slow: \d+ times"):
        follows.close()
    assert (tmp_path / "calls").read_text().split()[-1] == "close"


def test_a_tracker_needs_nothing_but_log(tmp_path: Path) -> None:
    class Own(Tracker):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def log(self, step: int, numbers: object) -> None:
            self.steps.append(step)

    own = Own()
    follows = tracking.Tracking(own, "run", tmp_path, {})
    follows.log(1, {"loss": 1.0})
    follows.table(1, "table", ["task"], [["a"]])
    follows.film(1, "film", tmp_path / "a.gif")
    follows.file(1, "file", tmp_path / "a.json")
    follows.log(2, {"loss": 1.0})
    follows.close()
    assert own.steps == [1, 2] and not (tmp_path / tracking.IDENTITIES).exists()


@pytest.mark.parametrize("kind", [Wandb, Trackio])
def test_a_missing_package_is_said_before_training(train_options: dict, kind: type[Tracker]) -> None:
    if importlib.util.find_spec(kind.__name__.lower()):
        pytest.skip("it is installed")
    with pytest.raises(mtorl.InputError, match=rf"pip install 'mtorl\[{kind.__name__.lower()}\]'"):
        train(**train_options, tracker=kind.__name__)
    assert not Path(train_options["out"]).exists()


def holds(folder: Path, text: bytes) -> bool:
    """Whether a folder of wandb says that, now or soon: its own process writes the file."""
    for _ in range(100):
        if text in next(folder.glob("*.wandb")).read_bytes():
            return True
        time.sleep(0.1)
    return False


def test_wandb_offline(train_options: dict) -> None:
    pytest.importorskip("wandb")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the tracker")
        run = train(**train_options, tracker="Wandb", tracker__mode="offline")
        (first,) = (run.folder / "wandb").glob("offline-run-*")
        identity = json.loads((run.folder / tracking.IDENTITIES).read_text())["mtorl.trainers.trackers.wandb.Wandb"]
        assert first.name.endswith(f"-{identity}")
        assert holds(first, b"training/policy/loss/away-0") and holds(first, b"monitor_every")
        assert [*first.glob("files/media/table/**/*.json")]
        run.evaluate("heldout", workers=0, quiet=True)
    runs = [*(run.folder / "wandb").glob("offline-run-*")]
    assert len(runs) == 2 and all(it.name.endswith(identity) for it in runs)
    assert any(holds(it, b"heldout-last-50/success/away-0") for it in runs if it != first)


def test_trackio_on_this_machine(train_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    import trackio.sqlite_storage as storage
    import trackio.utils

    for module in (trackio.utils, storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio", raising=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the tracker")
        run = train(**train_options, tracker="Trackio")
    (identity,) = json.loads((run.folder / tracking.IDENTITIES).read_text()).values()
    logs = storage.SQLiteStorage.get_logs("mtorl", identity)
    assert any("training/policy/loss/away-0" in row for row in logs)


def test_what_is_recorded_can_be_described(tmp_path: Path) -> None:
    from mtorl.runs.configuration import described

    assert described(Writing("here"))["init_args"] == {"path": "here"}
    assert described(Wandb("mine"))["class_path"] == "mtorl.trainers.trackers.Wandb"


def test_a_run_with_a_tracker_is_opened_where_there_is_none(train_options: dict, tmp_path: Path) -> None:
    run = train(**train_options)
    text = (run.folder / "config.yaml").read_text()
    (run.folder / "config.yaml").write_text(text + "tracker:\n  class_path: mtorl.trainers.trackers.Wandb\n")
    assert isinstance(Run(run.folder).configuration.experiment().tracker, Wandb)
    assert Run(run.folder).policy()[0].task_names == run.spec.task_names
    (run.folder / "config.yaml").write_text(text + "tracker:\n  class_path: my_lost_module.Tracker\n")
    with pytest.warns(UserWarning, match=r"my_lost_module.Tracker is left out: it cannot be imported"):
        assert Run(run.folder).configuration.experiment().tracker is None
    with pytest.warns(UserWarning, match=r"is left out"):
        train(resume=run.folder)
