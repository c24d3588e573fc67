import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import MetaWorld, metaworld
from mtorl.envs.collect import collect
from mtorl.envs.metaworld import MT10, MT25, draw_goals, stored_goals
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import evaluate_reference

pytestmark = pytest.mark.simulator


def stock(name: str, goal: int):
    """The package's own environment, as its users build it."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    kind = ALL_V3_ENVIRONMENTS[name]
    environment = kind()
    give_goal(environment, goal, name)
    return environment


def give_goal(environment, goal: int, name: str) -> None:
    """Sets one of our goals in an environment of the package."""
    from metaworld.types import Task

    content = {"env_cls": type(environment), "rand_vec": stored_goals()[name][goal], "partially_observable": False}
    environment.set_task(Task(env_name=name, data=pickle.dumps(content)))


def bits(step: tuple) -> list:
    """What a step of the package's environments returns: observation, reward, ends and everything in `info`."""
    observation, reward, *ends, info = step
    return [observation.tobytes(), float(reward).hex(), *ends, *((key, float(info[key]).hex()) for key in info)]


def step_of(environment, action) -> tuple:
    """A step of ours, and what the package's step within it returned."""
    found, step = [], environment.raw.step
    environment.raw.step = lambda action: found.append(step(action)) or found[0]
    ours = environment.step(action)
    del environment.raw.step
    return ours, found[0]


@pytest.mark.parametrize("name", list(stored_goals()))
def test_every_task_equals_the_stock_environment_bit_for_bit(name: str) -> None:
    """A noisy expert's goal and a random one side by side on one shared model, against a stock environment."""
    suite = MetaWorld(tasks=[name])
    assert suite.fast, "the speed-ups are off: the installed version was not tested"
    expert, draw, goals, expected, steps = suite.expert(0), np.random.default_rng(0), (3, 71), [], 40
    theirs = stock(name, goals[0])
    for goal in goals:
        give_goal(theirs, goal, name)
        observation, episode = theirs.reset()[0], []
        first = observation
        for _ in range(steps):
            wish = expert(observation.astype(np.float32)) + draw.normal(0, 0.1, 4) if goal == 3 else draw.normal(size=4)
            action = np.clip(wish, -1, 1).astype(np.float32)
            found = theirs.step(action)
            observation = found[0]
            episode.append((action, bits(found)))
        expected.append((first, episode))
    ours = [suite.make(0) for _ in goals]
    for environment, goal, (first, _) in zip(ours, goals, expected, strict=True):
        np.testing.assert_array_equal(environment.reset(goal), first.astype(np.float32))
    for step in range(steps):
        for environment, (_, episode) in zip(ours, expected, strict=True):
            action, there = episode[step]
            found, raw = step_of(environment, action)
            assert bits(raw) == there
            np.testing.assert_array_equal(found.observation, raw[0].astype(np.float32))
            assert (found.reward, found.success) == (raw[1], bool(raw[-1]["success"]))


def test_the_package_is_left_as_it_is() -> None:
    from metaworld.envs import SawyerPushEnvV3
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    fast = type(MetaWorld(tasks=["push-v3"]).make(0).raw)
    assert issubclass(fast, SawyerPushEnvV3) and fast.step is not SawyerXYZEnv.step
    assert SawyerPushEnvV3.step is SawyerXYZEnv.step and SawyerXYZEnv.step.__qualname__.startswith("SawyerXYZEnv")
    assert fast.compute_reward.__code__ is SawyerPushEnvV3.compute_reward.__code__
    assert SawyerPushEnvV3.compute_reward.__globals__["np"] is np
    assert fast.compute_reward.__globals__["np"] is not np


def test_the_package_says_what_is_wrong_with_a_step() -> None:
    environment = MetaWorld(tasks=["push-v3"]).make(0)
    with pytest.raises(RuntimeError, match="You must call env"):
        environment.raw.step(np.zeros(4, np.float32))
    environment.reset(0)
    with pytest.raises(AssertionError, match="size 4, got 3"):
        environment.raw.step(np.zeros(3, np.float32))
    environment.raw.curr_path_length = 500
    with pytest.raises(ValueError, match="must reset the env"):
        environment.raw.step(np.zeros(4, np.float32))


@pytest.mark.parametrize("action", [[0.3, -2.0, 5.0, -3.0], np.array([1.5, 0.1, -0.2, 1.0])])
def test_raw_environments_take_what_the_packages_take(action: list[float] | np.ndarray) -> None:
    """Actions that are not clipped, of double precision, or a list; what was not clipped counts in rewards."""
    ours, theirs = MetaWorld(tasks=["push-v3"]).make(0), stock("push-v3", 3)
    ours.reset(3)
    theirs.reset()
    for _ in range(3):
        assert bits(ours.raw.step(action)) == bits(theirs.step(action))


def test_the_slow_path_gives_the_same(tmp_path: Path) -> None:
    stores = [
        collect(
            MetaWorld(tasks=["push-v3"], fast=fast), tmp_path / str(fast), "mixed", episodes=2, workers=0, quiet=True
        )
        for fast in (True, False)
    ]
    np.testing.assert_array_equal(stores[0].observations, stores[1].observations)
    np.testing.assert_array_equal(stores[0].rewards, stores[1].rewards)


@pytest.mark.parametrize("name", ["reach-v3", "door-open-v3", "stick-pull-v3"])
def test_goals_regenerate_equal(name: str) -> None:
    np.testing.assert_array_equal(draw_goals(name), stored_goals()[name])


def test_stored_goals() -> None:
    from metaworld.env_dict import MT10_V3, MT25_V3, MT50_V3

    goals = stored_goals()
    assert list(goals) == list(MT50_V3) and tuple(MT10_V3) == MT10 and tuple(MT25_V3) == MT25
    for name, vectors in goals.items():
        assert vectors.shape in ((100, 3), (100, 6)) and vectors.dtype == np.float64
        assert len(np.unique(vectors, axis=0)) == 100, f"{name}: a held-out goal is a training goal"


def test_benchmarks() -> None:
    sizes = {name: len(MetaWorld(name).task_names) for name in ("MT10", "MT25", "MT50", "ML45")}
    assert sizes == {"MT10": 10, "MT25": 25, "MT50": 50, "ML45": 45}
    assert MetaWorld("MT1", ["push-v3"]).task_names == ("push-v3",)
    assert MetaWorld(tasks=["window-open-v3", "reach-v3"]).task_names == ("window-open-v3", "reach-v3")
    with pytest.raises(InputError, match="unknown Meta-World benchmark 'MT99'"):
        MetaWorld("MT99", ["push-v3"])
    with pytest.raises(InputError, match="listed twice"):
        MetaWorld(tasks=["reach-v3", "reach-v3"])


def test_unseen_tasks_are_those_of_the_package() -> None:
    from metaworld.env_dict import ML45_V3

    for name in ("ML45", "MT10"):
        suite = MetaWorld(name, goal_visible=False).unseen()
        assert suite.task_names == tuple(ML45_V3["test"]) and not suite.goal_visible
    assert set(MetaWorld("ML45").task_names) == set(ML45_V3["train"])
    with pytest.raises(InputError, match=r"bin-picking-v3.* are among the five tasks that are to be unseen"):
        MetaWorld("MT50").unseen()


def test_one_task_by_name_and_mt1() -> None:
    assert MetaWorld(tasks="reach-v3").task_names == ("reach-v3",)
    with pytest.raises(InputError, match="MT1 has one task"):
        MetaWorld("MT1", ["reach-v3", "push-v3"])


def test_an_empty_list_of_tasks_is_refused() -> None:
    with pytest.raises(InputError, match="list of tasks is empty"):
        MetaWorld(tasks=[])


def test_a_suite_of_one_task_can_be_widened() -> None:
    """Stores of single tasks are joined into one suite."""
    one = MetaWorld("MT1", ["reach-v3"])
    assert one.changed(tasks=["reach-v3", "push-v3"]).task_names == ("reach-v3", "push-v3")


def test_constructing_a_suite_builds_no_environment() -> None:
    suite = MetaWorld("MT50")
    assert not suite._models
    suite.make(7)
    assert len(suite._models) == 1


def test_environments_of_one_task_share_their_model_if_fast() -> None:
    for fast in (True, False):
        suite = MetaWorld("MT10", fast=fast)
        first, second = suite.make(3), suite.make(3)
        assert (first.raw.model is second.raw.model) == fast and first.raw.data is not second.raw.data
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        assert (type(first.raw) is ALL_V3_ENVIRONMENTS["door-open-v3"]) != fast


def test_speed_ups_are_off_for_untested_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metaworld.TESTED_VERSIONS, "mujoco", "9.9")
    with pytest.warns(UserWarning, match="speed-ups are off"):
        assert not MetaWorld("MT10").fast
    assert not MetaWorld("MT10", fast=False).fast


def test_goals_outside_the_file_are_refused() -> None:
    with pytest.raises(InputError, match="goals 0 to 99; found 100"):
        MetaWorld("MT10").make(0).reset(100)


def test_hidden_goal_is_zero_as_in_the_package() -> None:
    hidden = MetaWorld("MT10", goal_visible=False)
    observation = hidden.make(1).reset(0)
    assert observation[36:].all() and not hidden.observe(observation)[36:].any()
    np.testing.assert_array_equal(hidden.observe(observation)[:36], observation[:36])


def test_collected_frames_are_stacked_and_experts_do_not_edit_them(tmp_path: Path) -> None:
    """door-open and door-close edit their input: without a copy the stored frames would disagree by 0.05."""
    suite = MetaWorld(tasks=["door-open-v3", "door-close-v3"])
    store = collect(suite, tmp_path / "doors", "expert", episodes=3, workers=0, quiet=True)
    for episode in store:
        # Where an observation is clipped to the package's bounds the two frames may differ; hand and gripper do not.
        np.testing.assert_array_equal(episode.observations[2:, 18:36], episode.observations[1:-1, :18])
    assert all(task["success_rate"] > 0.5 for task in store.manifest["tasks"])
    assert set(store.manifest["versions"]) == {"metaworld", "mujoco", "gymnasium", "goals_sha256"}


def test_reports_and_data_do_not_depend_on_workers(tmp_path: Path) -> None:
    suite = MetaWorld(tasks=["drawer-open-v3", "push-v3"])
    stores: list[EpisodeStore] = []
    reports = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        stores.append(
            collect(suite, folder / "data", "replay", episodes=3, after_success=5, workers=workers, quiet=True)
        )
        protocol = Protocol(goals=5, stop_at_success=True, block=2)
        reports.append(evaluate_reference("expert", suite, protocol, folder, workers=workers, quiet=True))
    for path in stores[0].path.glob("*.*"):
        assert path.read_bytes() == (stores[1].path / path.name).read_bytes(), path.name
    assert reports[0] == reports[1] and reports[0].mean_success >= 0.9


@pytest.mark.parametrize("workers", ["0", "1"])
def test_nothing_is_rendered_whatever_the_environment_says(workers: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mtorl", "evaluate", "--policy", "expert", "--suite", "MetaWorld"]
    command += ["--suite.tasks", "[reach-v3]", "--goals", "1", "--stop_at_success", "true", "--workers", workers]
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "100.0%" in done.stdout, done.stderr
    code = "import os; from mtorl.envs import MetaWorld; MetaWorld().make(0); print(os.environ['MUJOCO_GL'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "nonsense\n", done.stderr
