"""Pictures of MuJoCo's worlds on machines with and without a screen.

How to draw is found out in a child process, once: a library that is missing, or a driver that ends the process, does
no harm there. `MUJOCO_GL` may name one way. It is not read by MuJoCo then, which may be loaded already; contexts are
made directly.
"""

import atexit
import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.metaworld.simulator import load_mujoco

WAYS = ("egl", "osmesa", "glfw")
"""MuJoCo's ways to draw on Linux, the fastest first; the last one needs a screen."""
FOUND = "MTORL_GL"
"""Environment variable that tells child processes which way works."""
PROBE = """
import importlib, sys
import mujoco
context = importlib.import_module(f"mujoco.{sys.argv[1]}").GLContext(32, 32)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom type='box' size='1 1 1'/></worldbody></mujoco>")
drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
drawing.free()
context.free()
print("it draws")
"""
_KEPT = 12
"""Painters of a process: those of a block of environments with a model each."""


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from; the world's up is up.

    Attributes:
        azimuth: Degrees around the vertical axis.
        elevation: Degrees above the ground, negative: the camera looks down.
        distance: Metres from what it looks at; None: so that the whole world is seen.
        lookat: What it looks at; None: the middle of the world.
        name: One of the model's own cameras, instead.
    """

    azimuth: float = 90.0
    elevation: float = -25.0
    distance: float | None = None
    lookat: Sequence[float] | None = None
    name: str | None = None


@cache
def way_to_draw() -> str:
    """Which of MuJoCo's ways to draw works here.

    Raises:
        InputError: None does; says what to install.
    """
    if os.environ.get(FOUND):
        return os.environ[FOUND]
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    ways = (asked,) if asked in WAYS else _ways_of(platform.system())
    faults = {}
    for way in ways:
        fault = _fault(way)
        if fault is None:
            os.environ[FOUND] = way
            return way
        faults[way] = fault
    tried = "; ".join(f"{way}: {fault}" for way, fault in faults.items())
    named = f" MUJOCO_GL={asked} asks for this one way; leave it out to try others." if asked in WAYS else ""
    raise InputError(
        f"nothing can be drawn on this machine ({tried}).{named} Install one of the libraries that draw without a "
        "screen: `apt-get install libosmesa6` (processor alone) or `apt-get install libegl1` with a driver (`libegl-"
        "mesa0`, or that of the graphics card); on Fedora `dnf install mesa-libOSMesa`."
    )


def _ways_of(system: str) -> tuple[str, ...]:
    if system != "Linux":
        return ("cgl",) if system == "Darwin" else ("glfw",)
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return WAYS if screen else WAYS[:2]


def _fault(way: str) -> str | None:
    """Why that way does not work, in a child process; None if it does."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    try:
        found = subprocess.run(
            [sys.executable, "-c", PROBE, way], env=environment, capture_output=True, text=True, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    if "it draws" in found.stdout:
        return None
    return (found.stderr.strip().splitlines() or [f"the process ended with code {found.returncode}"])[-1]


class Painter:
    """Draws one model.

    Args:
        model: Of MuJoCo. It is left as it is.
        height: Of pictures, in pixels.
        width: Of pictures.
    """

    def __init__(self, model: Any, height: int, width: int) -> None:
        import mujoco

        self.model = model
        # Twice as large, then averaged: smooth edges.
        height, width = 2 * height, 2 * width
        os.environ.pop("PYOPENGL_PLATFORM", None)  # else it may name another way than the one that works
        self._context = importlib.import_module(f"mujoco.{way_to_draw()}").GLContext(width, height)
        self._context.make_current()
        look, quality = model.vis.global_, model.vis.quality
        kept = look.offwidth, look.offheight, quality.offsamples
        look.offwidth, look.offheight, quality.offsamples = width, height, 0
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        look.offwidth, look.offheight, quality.offsamples = kept
        self._scene, self._options = mujoco.MjvScene(model, 5000), mujoco.MjvOption()
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = False  # left out for speed
        self._area = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)

    def draw(self, data: Any, camera: Camera) -> NDArray[np.uint8]:
        """A picture `[H, W, 3]` of a state of the model."""
        import mujoco

        self._context.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        view = self._view(camera)
        mujoco.mjv_updateScene(self.model, data, self._options, None, view, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        mujoco.mjr_render(self._area, self._scene, self._drawing)
        mujoco.mjr_readPixels(self._pixels, None, self._area, self._drawing)
        fine = self._pixels[::-1].astype(np.uint16)  # OpenGL counts rows from below
        rows = fine[::2] + fine[1::2]
        return ((rows[:, ::2] + rows[:, 1::2]) // 4).astype(np.uint8)

    def _view(self, camera: Camera) -> Any:
        import mujoco

        view = mujoco.MjvCamera()
        if camera.name is not None:
            view.type = mujoco.mjtCamera.mjCAMERA_FIXED
            view.fixedcamid = self.model.camera(camera.name).id
            return view
        mujoco.mjv_defaultFreeCamera(self.model, view)
        view.azimuth, view.elevation = camera.azimuth, camera.elevation
        if camera.distance is not None:
            view.distance = camera.distance
        if camera.lookat is not None:
            view.lookat[:] = camera.lookat
        return view

    def close(self) -> None:
        """Frees what the graphics library holds."""
        self._context.make_current()
        self._drawing.free()
        self._context.free()


_painters: dict[tuple[int, int, int], Painter] = {}


def draw(model: Any, data: Any, size: tuple[int, int], camera: Camera) -> NDArray[np.uint8]:
    """A picture `[H, W, 3]` of a state of a model; painters are kept.

    Args:
        model: Of MuJoCo.
        data: Its state.
        size: Height and width in pixels.
        camera: Where from.

    Raises:
        InputError: Nothing can be drawn on this machine.
    """
    load_mujoco()
    key = (id(model), *size)
    if key not in _painters:
        while len(_painters) >= _KEPT:
            _painters.pop(next(iter(_painters))).close()
        atexit.unregister(close_painters)
        _painters[key] = Painter(model, *size)
        atexit.register(close_painters)  # after the library has registered its own end: what is last ends first
    return _painters[key].draw(data, camera)


def close_painters() -> None:
    """Frees what all painters of this process hold."""
    while _painters:
        _painters.popitem()[1].close()


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture in another size, H and W."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))
