"""What the names of D4RL's data sets say: where their files are, and in which environment they were recorded."""

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SITE = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
LIMIT = 1000
"""Steps after which D4RL's locomotion environments were reset."""


@dataclass(frozen=True)
class Played:
    """An environment that stands in for the one that episodes were recorded in.

    Attributes:
        id: Of gymnasium.
        dimensions: O and A.
    """

    id: str
    dimensions: tuple[int, int]


PLAYED = {
    "halfcheetah": Played("HalfCheetah-v5", (17, 6)),
    "hopper": Played("Hopper-v5", (11, 3)),
    "walker2d": Played("Walker2d-v5", (17, 6)),
    "ant": Played("Ant-v5", (105, 8)),
}
"""By the word that begins the names of files."""


def environment_of(stem: str) -> Played | None:
    """The environment that a file's name begins with; None: an unknown one."""
    return PLAYED.get(re.split(r"[-_]", stem.lower())[0])


def task_of(stem: str) -> str:
    """The name of a file's task: without its version."""
    return re.sub(r"-v\d+$", "", stem) or stem


def folder() -> Path:
    """Where the d4rl package keeps what it downloaded."""
    return Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl/datasets")


def urls() -> dict[str, str]:
    """Where each data set is found, by its id; without the d4rl package those whose places follow a rule.

    Of that package one file of plain data is executed: to import it as a whole takes a simulator of 2021.
    """
    return getattr(package_infos(), "DATASET_URLS", None) or dict(_by_rule())


def package_infos() -> Any:
    """The module `infos` of the installed d4rl package; None: it is not installed."""
    package = importlib.util.find_spec("d4rl")
    for place in (package and package.submodule_search_locations) or ():
        spec = importlib.util.spec_from_file_location("_d4rl_infos", Path(place) / "infos.py")
        if spec is not None and spec.loader is not None and spec.origin and Path(spec.origin).is_file():
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return None


def files_of(name: str, known: dict[str, str]) -> list[str]:
    """Names that the file of a data set may have, the likeliest first.

    Args:
        name: Its id, such as `halfcheetah-medium-v2`.
        known: From `urls`.
    """
    base, _, version = name.rpartition("-v")
    stated = [urlsplit(known[name]).path.rpartition("/")[2]] if name in known else []
    stems = [f"{base.replace('-', '_')}-v{version}"] if base and version.isdecimal() else []
    return list(dict.fromkeys([*stated, *(f"{stem}.hdf5" for stem in (*stems, name))]))


def _by_rule() -> list[tuple[str, str]]:
    kinds = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")
    found = []
    for environment in PLAYED:
        for kind in kinds:
            for version in ("v1", "v2"):
                file = f"{environment}_{kind.replace('-', '_')}-{version}.hdf5"
                found.append((f"{environment}-{kind}-{version}", f"{SITE}/gym_mujoco_{version}/{file}"))
    return found
