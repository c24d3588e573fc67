from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.d4rl_scores import BOUNDS, d4rl_bounds
from mtorl.datasets.opening import check_fits, open_stores
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import AntDir, CheetahDir, CheetahVel, Gymnasium
from mtorl.envs.base import Suite, check_recorded
from mtorl.envs.collect import collect
from mtorl.envs.gymnasium import GymnasiumEnv, spaces_of
from mtorl.envs.protocol import Protocol
from mtorl.runs.data import describe_data, suite_of

pytestmark = pytest.mark.simulator


class Small(gymnasium.Env):
    """Two bounded actions, observations in a dictionary, success in the info."""

    observation_space = Dict({"goal": Box(-1, 1, (2,)), "place": Box(-9, 9, (3,))})
    action_space = Box(np.array([-2, 0], np.float32), np.array([2, 3], np.float32))
    ends = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.seen: list[np.ndarray] = []
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.seen.append(action)
        return self._observe(), 1.0, False, self.ends, {"is_success": len(self.seen) == 2}

    def _observe(self) -> dict:
        return {"goal": np.ones(2, np.float32), "place": np.full(3, 2, np.float32)}


@pytest.fixture(autouse=True)
def registered():
    for name, options in (("MtorlSmall-v0", {"max_episode_steps": 7}), ("MtorlEndless-v0", {})):
        gymnasium.register(name, entry_point=Small, **options)
    yield
    for name in ("MtorlSmall-v0", "MtorlEndless-v0"):
        del gymnasium.registry[name]
        spaces_of.cache_clear()


def test_actions_are_mapped_affinely_onto_the_bounds() -> None:
    environment = Small()
    played = GymnasiumEnv("small", environment)
    environment.reset()
    played._observed = lambda observation: np.zeros(5, np.float32)  # type: ignore[method-assign]
    for action in ([-1, -1], [1, 1], [0, 0], [0.5, -0.5], [7, -7]):
        played.step(np.array(action, np.float32))
    np.testing.assert_allclose(environment.seen, [[-2, 0], [2, 3], [0, 1.5], [1, 0.75], [2, 0]])
    assert all(it.dtype == np.float32 and environment.action_space.contains(it) for it in environment.seen)


def test_bounds_of_one_leave_actions_as_they_are() -> None:
    suite = Gymnasium(["HalfCheetah-v5"])
    ours, theirs = suite.make(0), gymnasium.make("HalfCheetah-v5")
    draw = np.random.default_rng(0)
    np.testing.assert_array_equal(ours.reset(61), theirs.reset(seed=61)[0].astype(np.float32))
    for _ in range(20):
        action = draw.uniform(-1, 1, 6).astype(np.float32)
        step, (observation, reward, *_) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(step.observation, observation.astype(np.float32))
        assert step.reward == reward and not step.success


def test_dictionaries_are_laid_out_and_success_is_read() -> None:
    suite = Gymnasium(["MtorlSmall-v0"], success="is_success")
    assert (suite.observation_dim, suite.action_dim, suite.horizon, suite.returns_only) == (5, 2, 7, ())
    environment = suite.make(0)
    assert environment.reset(0).tolist() == [1, 1, 2, 2, 2]
    assert [environment.step(np.zeros(2, np.float32)).success for _ in range(3)] == [False, True, False]
    environment = Gymnasium(["MtorlSmall-v0"], success="won").make(0)
    environment.reset(0)
    with pytest.raises(InputError, match=r"info has no 'won'; it has \['is_success'\]"):
        environment.step(np.zeros(2, np.float32))


def test_whoever_plays_counts_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Gymnasium(["Pendulum-v1"])
    environment = suite.make(0)
    environment.reset(0)
    for _ in range(suite.horizon + 5):
        step = environment.step(np.zeros(1, np.float32))
    assert suite.horizon == 200 and not step.terminated
    hopper = Gymnasium(["Hopper-v5"]).make(0)
    hopper.reset(0)
    ends = [hopper.step(np.ones(3, np.float32)).terminated for _ in range(60)]
    assert ends[-1] and not ends[0], "a fall is a final state"
    monkeypatch.setattr(Small, "ends", True)
    own = Gymnasium(["MtorlSmall-v0"]).make(0)
    own.reset(0)
    with pytest.raises(InputError, match="ends an episode by itself without a final state"):
        own.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            {"environments": ["HalfCheetah-v5", "Hopper-v5"]},
            r"HalfCheetah-v5 .* 17 .*Hopper-v5 .*11.*Union",
        ),
        ({"environments": ["CartPole-v1"]}, r"CartPole-v1 has actions Discrete\(2\); expected bounded"),
        ({"environments": ["NoSuchThing-v1"]}, "gymnasium has no environment 'NoSuchThing-v1'.*package:id"),
        ({"environments": ["no_such_package:Ant-v5"]}, "no environment 'no_such_package:Ant-v5'"),
        ({"environments": []}, "no environment was named"),
        ({"environments": ["Ant-v5", "Ant-v5"]}, "listed twice .* names of tasks"),
        ({"environments": ["MtorlEndless-v0"]}, "time limits .*None.*say one for all with --suite.horizon"),
        ({"environments": ["Hopper-v5"], "horizon": 0}, "horizon is 0"),
        ({"environments": ["Hopper-v5"], "tasks": []}, "list of tasks is empty"),
    ],
)
def test_what_cannot_be_a_suite_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Gymnasium(**arguments)


def test_several_tasks_of_one_environment() -> None:
    suite = Gymnasium({"cheetah-medium": "HalfCheetah-v5", "cheetah-expert": "HalfCheetah-v5"}, horizon=20)
    assert suite.task_names == ("cheetah-medium", "cheetah-expert") and suite.horizon == 20
    assert suite.return_bounds(0) == suite.return_bounds(1) == (-280.178953, 12135.0)
    assert Gymnasium(["Humanoid-v5"]).return_bounds(0) is None
    assert d4rl_bounds("Ant") == BOUNDS["ant"] == (-325.6, 3879.7)


@pytest.mark.parametrize("suite", [CheetahVel(), CheetahDir(), AntDir()], ids=lambda it: type(it).__name__)
def test_families_reward_as_the_literature_says(suite: Suite) -> None:
    """Computed from the positions of the body before and after a step."""
    task = len(suite.task_names) - 1
    environment = suite.make(task)
    environment.reset(3)
    data = environment.environment.unwrapped.data
    draw = np.random.default_rng(0)
    for _ in range(5):
        place = lambda: np.array(data.qpos[:1] if suite.action_dim == 6 else data.body(1).xpos[:2])  # noqa: E731
        before, action = place(), draw.uniform(-1, 1, suite.action_dim).astype(np.float32)
        reward = environment.step(action).reward
        velocity, effort = (place() - before) / 0.05, float(np.square(action).sum())
        if isinstance(suite, CheetahVel):
            expected = -abs(velocity[0] - 3.0) - 0.05 * effort
        elif isinstance(suite, CheetahDir):
            expected = -velocity[0] - 0.05 * effort
        else:
            angle = 2 * np.pi * 49 / 50
            contact = 5e-4 * np.square(np.clip(data.cfrc_ext, -1, 1)).sum()
            expected = velocity @ [np.cos(angle), np.sin(angle)] - 0.5 * effort - contact + 1
        assert reward == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind, count, unseen", [(CheetahVel, 35, "velocity-0.225"), (AntDir, 45, "direction-06")])
def test_families_keep_tasks_for_testing(kind: type, count: int, unseen: str) -> None:
    suite = kind(horizon=50)
    others = Protocol("ml45-like").plays(suite)
    assert len(suite.task_names) == count and len(others.task_names) == 5 and others.task_names[0] == unseen
    assert not {*suite.task_names} & {*others.task_names} and others.horizon == 50
    everything = kind(all_tasks=True)
    assert {*everything.task_names} == {*suite.task_names, *others.task_names}
    with pytest.raises(InputError, match=rf"{unseen}.* are among the tasks that are to be unseen.*all_tasks"):
        everything.unseen()


def test_a_family_without_unseen_tasks_says_so() -> None:
    with pytest.raises(InputError, match="CheetahDir has no unseen tasks"):
        CheetahDir().unseen()


def test_directions_can_be_those_of_the_data() -> None:
    given = AntDir(["direction-01"], directions=np.linspace(0, 1, 50).tolist())
    assert given.changed(horizon=5).arguments["directions"][-1] == 1
    assert given.make(0)._direction[1] == pytest.approx(np.sin(1 / 49))
    with pytest.raises(InputError, match="directions are 3 numbers; expected 50"):
        AntDir(directions=[0, 1, 2])


@pytest.mark.parametrize(
    "words, names",
    [
        (["HalfCheetah-v5"], ["HalfCheetah-v5"]),
        (["HalfCheetah-v5", "Walker2d-v5"], ["HalfCheetah-v5", "Walker2d-v5"]),
        (["[HalfCheetah-v5]"], ["HalfCheetah-v5"]),
        (["{fast: HalfCheetah-v5, slow: HalfCheetah-v5}"], ["fast", "slow"]),
    ],
)
def test_environments_on_the_command_line(
    words: list[str], names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--policy", "random", "--suite", "Gymnasium", "--suite.environments", *words, "--suite.horizon", "5"]
    main(["evaluate", *arguments, "--goals", "1", "--out", str(tmp_path), "--quiet", "true", "--workers", "0"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in names) and f"mean of {len(names)} tasks" in printed


def collected(out: Path, environments: dict[str, str], seed: int, **options: Any) -> str:
    suite = Gymnasium(environments, horizon=options.pop("horizon", None))
    return str(collect(suite, out, "random", episodes=2, seed=seed, workers=0, quiet=True).path)


def test_data_of_different_environments_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = collected(tmp_path / "a", {"medium": "MtorlSmall-v0"}, 0)
    second = collected(tmp_path / "b", {"expert": "MtorlSmall-v0", "medium": "MtorlSmall-v0"}, 1)
    gymnasium.register("MtorlOther-v0", entry_point=Small, max_episode_steps=7)
    third = collected(tmp_path / "c", {"other": "MtorlOther-v0"}, 2)
    environments = {"medium": "MtorlSmall-v0", "expert": "MtorlSmall-v0", "other": "MtorlOther-v0"}
    stores = open_stores([first, second, third])
    spec = describe_data(stores)
    assert spec.task_names == tuple(environments) and spec.episodes == (4, 2, 2)
    assert spec.suite["init_args"]["environments"] == environments
    assert suite_of(spec).task_names == tuple(environments)
    for store in stores:
        check_fits(replace(spec, task_names=store.task_names), store)

    assert main(["merge", first, second, third, "--out", str(tmp_path / "all")]) == 0
    merged = EpisodeStore(tmp_path / "all")
    check_recorded(merged)
    assert merged.task_names == tuple(environments) and merged.suite == spec.suite
    assert describe_data([merged]).task_names == spec.task_names

    named_alike = collected(tmp_path / "d", {"medium": "MtorlOther-v0"}, 3)
    longer = collected(tmp_path / "e", {"far": "MtorlOther-v0"}, 4, horizon=9)
    gymnasium.register("MtorlLonger-v0", entry_point=Small, max_episode_steps=9)
    limited = collected(tmp_path / "f", {"far": "MtorlLonger-v0"}, 5)
    capsys.readouterr()
    for data, message in (
        ([second, named_alike], "environments of the task 'medium': 'MtorlSmall-v0' and 'MtorlOther-v0'"),
        ([third, second, named_alike], "environments of the task 'medium': "),
        ([first, longer], "suite settings"),
        ([first, limited], "horizons are 7 and 9"),
    ):
        assert main(["merge", *data, "--out", str(tmp_path / "none")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="does not fit the policy: environments of the task 'medium'"):
        check_fits(spec, EpisodeStore(named_alike))
    for name in ("MtorlOther-v0", "MtorlLonger-v0"):
        del gymnasium.registry[name]


def test_environments_of_other_sizes_or_horizons_are_a_union(tmp_path: Path) -> None:
    class Wide(Small):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Box(-1, 1, (6,), np.float64)

        def reset(self, **options: Any) -> tuple[Any, dict]:
            return np.zeros(6), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            return np.zeros(6), 0.0, False, False, {}

    gymnasium.register("MtorlWide-v0", entry_point=Wide, max_episode_steps=7)
    gymnasium.register("MtorlLong-v0", entry_point=Small, max_episode_steps=9)
    one = collected(tmp_path / "one", {"small": "MtorlSmall-v0"}, 0)
    wide = collected(tmp_path / "wide", {"wide": "MtorlWide-v0"}, 1)
    long = str(
        collect(
            Gymnasium({"long": "MtorlLong-v0"}, horizon=9), tmp_path / "long", "random", 2, workers=0, quiet=True
        ).path
    )
    with pytest.raises(InputError, match="observation dimension"):
        open_stores([one, wide])
    spec = describe_data(open_stores([one, wide, long], union=True))
    assert spec.suite["class_path"].endswith("Union") and {*spec.task_names} == {"small", "wide", "long"}
    assert spec.own_dimensions is not None and len({*spec.own_dimensions}) == 2
