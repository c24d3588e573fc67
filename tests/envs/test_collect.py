import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.point_reach import PointEnv
from mtorl.envs.recipes import behaviour
from mtorl.runs.training import train

PROGRAM = """
import sys
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
workers = int(sys.argv[2])
collect(PointReach(horizon=300), sys.argv[1], "mixed", 60, after_success=300, workers=workers, quiet=True)
"""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_recipes() -> None:
    assert behaviour("expert", 3, 10)[:2] == (0.1, 0.0)
    assert [behaviour("mixed", number, 10).noise for number in range(3)] == [0.1, 0.3, 0.1]
    assert behaviour("medium", 0, 10).noise == 0.5
    assert behaviour("random", 0, 10)[:2] == (0.0, 1.0)
    first, last = behaviour("replay", 0, 101), behaviour("replay", 100, 101)
    assert first[:2] == pytest.approx((0.7, 0.8)) and last[:2] == pytest.approx((0.1, 0.0))
    assert behaviour("replay", 60, 101) == last and behaviour("replay", 59, 101).random > 0
    half = behaviour("replay", 30, 101)
    assert half[:2] == pytest.approx((0.6 * 0.5 + 0.1, 0.8 * 0.5**1.5))
    with pytest.raises(InputError, match="unknown recipe 'best'; expected one of expert, mixed"):
        behaviour("best", 0, 1)  # type: ignore[arg-type]


def test_replay_half_is_the_first_half_of_a_replay_stream(suite: PointReach, tmp_path: Path) -> None:
    whole = collect(suite, tmp_path / "whole", "replay", episodes=8, workers=0, quiet=True)
    half = collect(suite, tmp_path / "half", "replay-half", episodes=4, workers=0, quiet=True)
    for task in suite.task_names:
        first = [one for one in whole if one.task == task][:4]
        for expected, found in zip(first, (one for one in half if one.task == task), strict=True):
            np.testing.assert_array_equal(found.actions, expected.actions)
            np.testing.assert_array_equal(found.rewards, expected.rewards)
            assert (found.noise, found.random) == (expected.noise, expected.random)


def test_same_seed_same_bytes_whatever_the_workers(suite: PointReach, tmp_path: Path) -> None:
    stores = [
        collect(suite, tmp_path / str(workers), "expert", episodes=12, workers=workers, quiet=True)
        for workers in (0, 1, 2)
    ]
    assert files(stores[0].path) == files(stores[1].path) == files(stores[2].path)
    other = collect(suite, tmp_path / "seed", "expert", episodes=12, seed=1, workers=0, quiet=True)
    assert not np.array_equal(other.actions[:20], stores[0].actions[:20])


def test_holding_and_ending_after_success(suite: PointReach, tmp_path: Path) -> None:
    ended = collect(suite, tmp_path / "ended", "expert", episodes=3, workers=0, quiet=True)
    whole = collect(suite, tmp_path / "whole", "expert", episodes=3, after_success=50, workers=0, quiet=True)
    for short, long in zip(ended, whole, strict=True):
        first = int(np.flatnonzero(short.success)[0])
        assert len(short) == min(first + 11, 50) and len(long) == 50
        assert not long.actions[first + 1 :].any() and long.actions[: first + 1].any(1).all()
        assert long.success[first:].all()
        np.testing.assert_array_equal(long.actions[: len(short)], short.actions)
        assert short.truncated[-1] and not short.truncated[:-1].any() and not short.terminated.any()


def test_without_holding_the_expert_goes_on(suite: PointReach, tmp_path: Path) -> None:
    free = collect(suite, tmp_path / "free", "expert", 2, after_success=50, hold=False, workers=0, quiet=True)
    assert all(episode.actions[-10:].any(1).all() for episode in free)
    assert free.manifest["source"]["hold"] is False


def test_leftovers_of_a_killed_process_do_not_stay(suite: PointReach, tmp_path: Path) -> None:
    out = tmp_path / "x"
    out.mkdir()
    (out / ".collect.json.17.tmp").touch()
    collect(suite, out, "expert", episodes=2, workers=0, quiet=True)
    (out / "manifest.json").unlink()
    (out / ".rewards.raw").touch()
    collect(suite, out, "expert", episodes=2, workers=0, quiet=True)
    assert files(out).keys() == files(collect(suite, tmp_path / "y", "expert", 2, workers=0, quiet=True).path).keys()


def test_a_folder_of_somebody_else_is_left_as_it_is(suite: PointReach, tmp_path: Path) -> None:
    names = {".IMG_1.raw", ".draft.tmp", "thesis.tex"}
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        collect(suite, tmp_path, "expert", episodes=1, workers=0, quiet=True)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_malformed_request_is_named(suite: PointReach, tmp_path: Path) -> None:
    (tmp_path / "collect.json").write_text("[]")
    with pytest.raises(InputError, match=r"collect\.json is malformed"):
        collect(suite, tmp_path, "expert", episodes=1, workers=0, quiet=True)


def test_goals_and_frames_are_those_of_the_suite(suite: PointReach, store: EpisodeStore) -> None:
    for number, episode in enumerate(store):
        assert episode.goal == number % 12
        environment = suite.make(suite.task_names.index(episode.task))
        np.testing.assert_array_equal(environment.reset(episode.goal), episode.observations[0])
        for step, action in enumerate(episode.actions):
            found = environment.step(action)
            np.testing.assert_array_equal(found.observation, episode.observations[step + 1])
            assert (np.float32(found.reward), found.success) == (episode.rewards[step], episode.success[step])


def test_hidden_goals_are_not_stored_but_the_expert_sees_them(suite: PointReach, tmp_path: Path) -> None:
    hidden = PointReach(suite.task_names, goal_visible=False)
    store = collect(hidden, tmp_path / "hidden", "expert", episodes=3, workers=0, quiet=True)
    assert not store.observations[:, 2:].any() and store.observations[:, :2].any()
    assert all(task["success_rate"] == 1 for task in store.manifest["tasks"])


def test_a_folder_holds_one_collection(suite: PointReach, tmp_path: Path) -> None:
    out = tmp_path / "x"
    collect(suite, out, "expert", episodes=2, workers=0, quiet=True)
    before = files(out)
    collect(suite, out, "expert", episodes=2, workers=0, quiet=True)
    assert files(out) == before
    with pytest.raises(InputError, match=r"another collection \(episodes: 2 there, 3 asked for\)"):
        collect(suite, out, "expert", episodes=3, workers=0, quiet=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty"):
        collect(suite, tmp_path / "foreign", "expert", workers=0, quiet=True)
    with pytest.raises(InputError, match=r"could not open .*thesis\.tex"):
        collect(suite, tmp_path / "foreign" / "thesis.tex", "expert", workers=0, quiet=True)
    with pytest.raises(InputError, match="episodes is 0"):
        collect(suite, tmp_path / "none", "expert", episodes=0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a collection makes that nothing interrupts."""
    path = tmp_path_factory.mktemp("uninterrupted") / "one"
    subprocess.run([sys.executable, "-c", PROGRAM, str(path), "0"], check=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [("0", signal.SIGKILL), ("2", signal.SIGKILL), ("2", signal.SIGINT)])
def test_an_interrupted_collection_continues(
    uninterrupted: Path, tmp_path: Path, workers: str, number: signal.Signals
) -> None:
    out = tmp_path / "two"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), workers], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("parts/*.npz"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be interrupted"
        time.sleep(0.005)
    os.killpg(process.pid, number) if number == signal.SIGKILL else process.send_signal(number)
    process.wait(60)
    assert 0 < len(list(out.glob("parts/*.npz"))) < 48
    with pytest.raises(InputError, match="collection was started and not finished"):
        EpisodeStore(out)
    subprocess.run([sys.executable, "-c", PROGRAM, str(out), "2"], check=True)
    assert files(out) == files(uninterrupted)
    assert not (out / "parts").exists()


def test_a_suite_without_goals_cannot_be_recorded(
    suite: PointReach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PointReach, "goals", lambda self, split: range(0, 50 if split == "train" else 0))
    with pytest.raises(InputError, match="the suite PointReach has no heldout goals"):
        collect(suite, tmp_path / "data", split="heldout", workers=0, quiet=True)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the same way."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n" + PROGRAM
    out = tmp_path / "two"
    result = subprocess.run([sys.executable, "-c", limited, str(out), "0"], capture_output=True, text=True)
    assert result.returncode and "InputError: could not write" in result.stderr and "run" in result.stderr
    assert not (out / "manifest.json").exists()
    assert len(list(out.glob("parts/*.npz"))) == 48, "all recorded episodes are kept"
    subprocess.run([sys.executable, "-c", PROGRAM, str(out), "0"], check=True)
    EpisodeStore(out).verify()


def test_data_of_held_out_goals_cannot_be_trained_on(suite: PointReach, tmp_path: Path) -> None:
    data = collect(suite, tmp_path / "data", "expert", episodes=2, split="heldout", workers=0, quiet=True)
    assert {episode.goal for episode in data} <= set(suite.goals("heldout"))
    plain = collect(suite, tmp_path / "plain", "random", episodes=2, workers=0, quiet=True)
    noise = collect(suite, tmp_path / "noise", "random", episodes=2, split="heldout", workers=0, quiet=True)
    assert not np.array_equal(plain.actions[:5], noise.actions[:5]), "other noise than that of training"
    with pytest.raises(InputError, match="recorded on held-out goals"):
        train(data=str(data.path), out=str(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="split: 'heldout' there, 'train' asked for"):
        collect(suite, tmp_path / "data", "expert", episodes=2, workers=0, quiet=True)


def test_what_a_manifest_cannot_say_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    suite = PointReach(["away-0"])
    suite.horizon = 50.5  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"horizon is 50\.5; expected a whole number"):
        collect(suite, tmp_path / "data", episodes=1, workers=0, quiet=True)
    assert not (tmp_path / "data" / "parts").exists()


@pytest.mark.parametrize("kind", [float, np.float64, np.int64, np.bool_])
def test_success_as_an_exact_number_is_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    """Meta-World itself reports 0.0 and 1.0."""
    real = PointEnv.step
    monkeypatch.setattr(PointEnv, "step", lambda *given: (it := real(*given))._replace(success=kind(it.success)))
    store = collect(PointReach(["towards-0"]), tmp_path / "data", episodes=2, workers=0, quiet=True)
    assert store.success.dtype == bool and store.manifest["tasks"][0]["success_rate"] == 1
