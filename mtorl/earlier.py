"""Names that earlier READMEs and configurations gave to things: each leads to its present place, with a warning.

Only names are kept: what a name stands for may take and return other things than it did. Modules that are gone are
found by `Finder`; modules that only lost names ask `lookup`.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

RUN = {"Run": "runs.run.Run", "train": "runs.training.train"}
NETWORKS = (
    ("backbones", "mlp", "MLPBackbone"),
    ("care", "care", "CARE"),
    ("film", "film", "FiLM"),
    ("moore", "moore", "MOORE"),
    ("paco", "paco", "PaCo"),
    ("soft_modules", "soft_modules", "SoftModularMLP"),
)
"""Files that they were in, and are in; configurations name their classes."""
CLASS_PATHS = {f"mtorl.agents.{old}.{name}": f"mtorl.agents.networks.{name}" for old, _, name in NETWORKS}
"""Classes that configurations name by other paths now."""
PLACES: dict[str, dict[str, str]] = {
    "mtorl.trainers": RUN,
    "mtorl.trainers.run": RUN,
    "mtorl.trainers.report": {"make_report": "reports.run_report.report"},
    "mtorl.trainers.experiment": {
        "Experiment": "runs.experiment.Experiment",
        "build_experiment": "runs.configuration.build_experiment",
        "train_parser": "runs.configuration.train_parser",
    },
    **{f"mtorl.agents.{old}": {name: f"agents.networks.{new}.{name}"} for old, new, name in NETWORKS},
    "mtorl.datasets.files": {"read_json": "files.read_json", "write_json": "files.write_json"},
    "mtorl.envs.base": {
        name: f"envs.policies.{name}" for name in ("Policy", "ExpertPolicy", "RandomPolicy", "check_positions")
    },
    "mtorl.datasets.spec": {
        name: f"datasets.opening.{name}" for name in ("open_stores", "check_fits", "same_settings")
    },
    "mtorl.cli": {"main": "commands.main.main"},
}
"""By the module that had them: names, and where they are now within the package."""
LESSENED = ("mtorl.trainers", "mtorl.envs.base", "mtorl.datasets.spec")
"""Modules that are still there, without these names."""


def lookup(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module that lost some names."""

    def find(name: str) -> Any:
        place = PLACES[module].get(name)
        if place is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, present = f"mtorl.{place}".rpartition(".")
        warnings.warn(f"{module}.{name} is now {home}.{present}.", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), present)

    return find


class Finder(MetaPathFinder, Loader):
    """Finds modules that are gone."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """A module of looked-up names, after all other finders have found none."""
        return ModuleSpec(name, self) if name in PLACES and name not in LESSENED else None

    def exec_module(self, module: ModuleType) -> None:
        """Gives it its names."""
        module.__dict__["__getattr__"] = lookup(module.__name__)


def install() -> None:
    """Lets imports find what is gone."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
