"""The packages of the simulator, loaded when they are needed."""

import importlib
import os
from functools import cache
from typing import Any

from mtorl.interrupts import interrupts_later


@cache
def load_mujoco() -> None:
    """Imports MuJoCo also where `MUJOCO_GL` names windows that it cannot open: nothing is rendered here."""
    with interrupts_later():
        try:
            importlib.import_module("mujoco")
        except Exception:
            setting = os.environ.get("MUJOCO_GL")
            if setting is None:
                raise
            os.environ["MUJOCO_GL"] = "disable"
            try:
                importlib.import_module("mujoco")
            finally:
                os.environ["MUJOCO_GL"] = setting


def stock_class(name: str) -> Any:
    """The package's own environment class of a task."""
    load_mujoco()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return ALL_V3_ENVIRONMENTS[name]
