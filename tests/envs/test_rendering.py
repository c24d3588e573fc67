"""Drawing without a screen: found out by itself, upright, and without a trace in the episode."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mtorl import InputError
from mtorl.envs import Gymnasium, MetaWorld, rendering
from mtorl.envs.base import Env, Step


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if nothing had been found out yet."""
    rendering.way_to_draw.cache_clear()
    for name in (rendering.FOUND, "MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    rendering.way_to_draw.cache_clear()


def test_the_first_way_that_works_is_taken(fresh: pytest.MonkeyPatch) -> None:
    tried = []
    fresh.setattr(rendering, "_fault", lambda way: tried.append(way) or (None if way == "osmesa" else "no library"))
    fresh.setattr(rendering.platform, "system", lambda: "Linux")
    assert rendering.way_to_draw() == "osmesa" and tried == ["egl", "osmesa"]
    assert os.environ[rendering.FOUND] == "osmesa"
    rendering.way_to_draw.cache_clear()
    assert rendering.way_to_draw() == "osmesa" and len(tried) == 2, "workers are told"
    fresh.delenv(rendering.FOUND)


def test_one_way_may_be_asked_for(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(rendering, "_fault", lambda way: None if way == "egl" else "no library")
    fresh.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(InputError, match=r"MUJOCO_GL=osmesa asks for this one way") as refused:
        rendering.way_to_draw()
    assert "osmesa: no library" in str(refused.value) and "egl:" not in str(refused.value)


def test_what_to_install_is_said(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(rendering, "_fault", lambda way: f"lib{way}.so is missing")
    fresh.setenv("MUJOCO_GL", "disable")  # says nothing of films
    with pytest.raises(InputError, match=r"egl: libegl.so is missing; osmesa.*apt-get install libosmesa6.*libegl1"):
        rendering.way_to_draw()


@pytest.mark.simulator
def test_a_way_that_is_none_has_a_reason() -> None:
    fault = rendering._fault("nowhere")
    assert fault and "nowhere" in fault


def test_an_environment_without_pictures_says_so() -> None:
    class Bare(Env):
        def reset(self, goal: int) -> np.ndarray:
            return np.zeros(2, np.float32)

        def step(self, action: np.ndarray) -> Step:
            return Step(np.zeros(2, np.float32), 0.0, False, False)

    with pytest.raises(InputError, match=r"Bare has no pictures; expected an environment with a method `render"):
        Bare().render((24, 32))


@pytest.fixture
def drawing() -> None:
    try:
        rendering.way_to_draw()
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.simulator
@pytest.mark.usefixtures("drawing")
def test_the_table_is_below_and_the_sky_above() -> None:
    suite = MetaWorld(tasks=["door-open-v3"])
    environment = suite.make(0)
    environment.reset(50)
    picture = environment.render((120, 160)).astype(int)
    brown = picture[..., 0] - picture[..., 2]  # the wood; floor and background are grey
    assert brown[60:].mean() > brown[:40].mean() + 5
    assert np.ptp(picture) > 100


@pytest.mark.simulator
@pytest.mark.usefixtures("drawing")
def test_drawing_leaves_no_trace_in_the_model() -> None:
    suite = MetaWorld(tasks=["reach-v3"])
    one, two = suite.make(0), suite.make(0)
    one.reset(50)
    two.reset(60)
    model = one.raw.model
    before = model.vis.global_.offwidth, model.vis.quality.offsamples
    first, second = one.render((48, 64)), two.render((48, 64))
    assert (model.vis.global_.offwidth, model.vis.quality.offsamples) == before
    assert (first != second).any(), "each with its own goal, though they share a model"
    np.testing.assert_array_equal(one.render((48, 64)), first)


@pytest.mark.simulator
@pytest.mark.usefixtures("drawing")
def test_other_models_are_drawn_and_let_go() -> None:
    suite = Gymnasium(["HalfCheetah-v5"])
    environment = suite.make(0)
    environment.reset(50)
    for height in range(16, 16 + rendering._KEPT + 2):
        assert environment.render((height, 32)).shape == (height, 32, 3)
    assert len(rendering._painters) == rendering._KEPT
    rendering.close_painters()
    assert not rendering._painters and environment.render((16, 32)).shape == (16, 32, 3)


@pytest.mark.simulator
@pytest.mark.usefixtures("drawing")
def test_the_end_of_the_process_is_silent() -> None:
    code = """
from mtorl.envs import Gymnasium
environment = Gymnasium(['Hopper-v5']).make(0)
environment.reset(1)
print(environment.render((32, 32)).shape)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "(32, 32, 3)" and not found.stderr
