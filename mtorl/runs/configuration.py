"""The options of a run, resolved, as one value: from a command line, a file, or objects."""

import argparse
import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from torch import Tensor

from mtorl import InputError
from mtorl.arguments import Parser, options_of
from mtorl.documents import dump_yaml, inline_yaml
from mtorl.earlier import CLASS_PATHS
from mtorl.families import load
from mtorl.files import regular
from mtorl.runs.experiment import Experiment
from mtorl.schema import Document, Opaque, check
from mtorl.trainers.balancers import Balancer
from mtorl.trainers.sharing import Sharing
from mtorl.trainers.trackers import Tracker

DEFAULT_CLASSES = {
    "agent": "mtorl.agents.BehaviorCloning",
    "balancer": "mtorl.trainers.balancers.Equal",
    "sharing": "mtorl.trainers.sharing.Shared",
}
FREE_KEYS = ("workers", "quiet", "data", "verify", "tracker")
"""Settings that do not change results (data is known by its hash); a run may be resumed with others."""
FREE_OPTIONS = ("allow_inexact_resume",)
"""Options of single classes with which a run may be resumed though it began with others."""


@functools.cache
def train_parser() -> Parser:
    """The parser whose schema is the signature of `Experiment`."""
    load("agents", "networks", "heads", "balancers", "sharing", "trackers")
    description = (
        f"{(Experiment.__doc__ or '').splitlines()[0]} An interrupted run continues with `mtorl train --resume RUN`."
    )
    parser = Parser(DEFAULT_CLASSES, ("data", "out"), prog="mtorl train", description=description)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(Experiment, sub_configs=True)
    parser.add_argument(
        "--resume",
        metavar="RUN",
        default=argparse.SUPPRESS,
        help="Continue this interrupted run; then no other is needed.",
    )
    parser.set_defaults({family: {"class_path": path} for family, path in DEFAULT_CLASSES.items()})
    return parser


class Configuration:
    """All options of a run.

    Args:
        options: What `train_parser` made of a command line.
    """

    def __init__(self, options: Namespace) -> None:
        options.pop("resume", None)
        self.options = options

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Configuration":
        """From a command line of `mtorl train`."""
        return cls(train_parser().parse_args(arguments))

    @classmethod
    def read(cls, file: Path, arguments: Sequence[str] = ()) -> "Configuration":
        """From the file of a run, changed by more arguments."""
        written = read_plain(file)
        given = str(file) if (now := _without_lost_tracker(renamed(written))) == written else inline_yaml(now)
        return cls.parse([f"--config={given}", *arguments])

    @classmethod
    def of(cls, experiment: Experiment) -> "Configuration":
        """From objects: by what their constructors were given.

        Raises:
            InputError: One cannot be described, a function for an agent say.
        """
        return cls.parse([f"--config={inline_yaml(described(experiment))}"])

    @property
    def out(self) -> Path:
        """Folder of the run."""
        return Path(self.options.out)

    def changed(self, **options: Any) -> "Configuration":
        """The same with other values of some options."""
        chosen = self.options.clone()
        for name, value in options.items():
            chosen[name] = value
        return Configuration(chosen)

    @cached_property
    def plain(self) -> Document:
        """The same as plain values."""
        return renamed(yaml.safe_load(train_parser().dump(self.options)))

    def dump(self) -> str:
        """The same as YAML."""
        return dump_yaml(self.plain)

    def experiment(self) -> Experiment:
        """The configured objects."""
        objects = vars(train_parser().instantiate(self.options))
        return Experiment(**{name: value for name, value in objects.items() if name != "config"})

    def differences(self, stored: Mapping[str, Any], what: str) -> list[str]:
        """What another configuration says otherwise, in words, but for options that change no results.

        Args:
            stored: The other one, as plain values.
            what: Names it.
        """
        ours, theirs = flatten(self.plain), flatten(renamed(stored))
        return [
            f"{key}: {theirs.get(key)!r} in the {what}, {ours.get(key)!r} asked for"
            for key in sorted({*ours, *theirs})
            if ours.get(key) != theirs.get(key)
            and key.split(".")[0] not in FREE_KEYS
            and key.split(".")[-1] not in FREE_OPTIONS
        ]


def build_experiment(options: Namespace) -> Experiment:
    """The objects that parsed options describe, for scripts that have such options; see `Configuration`."""
    return Configuration(options).experiment()


def command_line(config: str | Path | Sequence[str | Path], options: Mapping[str, Any]) -> list[str]:
    """What `train` was called with as arguments of `mtorl train`."""
    arguments = [f"--config={file}" for file in ([config] if isinstance(config, str | Path) else config)]
    for name, value in options.items():
        name = name.replace("__", ".")
        if isinstance(value, Path):
            value = str(value)
        if name == "data" and isinstance(value, str):
            value = [value]
        arguments.append(f"--{name}={value if isinstance(value, str) else inline_yaml(value)}")
    return arguments


def read_plain(file: Path) -> Document:
    """What the file of a run says, as plain values.

    Raises:
        InputError: It cannot be read, or is no configuration.
    """
    remedy = "Restore it, or train again."
    try:
        content = yaml.safe_load(regular(file, "configuration").read_bytes())
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"configuration {file} cannot be read: {' '.join(str(error).split())}. {remedy}") from None
    check(content, Opaque(), f"configuration {file}", remedy)
    return content


def renamed(content: Any) -> Any:
    """Plain values with the present paths of classes."""
    if isinstance(content, dict):
        return {
            key: CLASS_PATHS.get(value, value) if key == "class_path" and isinstance(value, str) else renamed(value)
            for key, value in content.items()
        }
    return [renamed(value) for value in content] if isinstance(content, list) else content


def _without_lost_tracker(content: Document) -> Document:
    """Plain values without a tracker whose class is not here: a run is opened all the same."""
    path = (content.get("tracker") or {}).get("class_path", "")
    module, _, name = path.rpartition(".")
    try:
        if not module or hasattr(importlib.import_module(module), name):
            return content
    except Exception as error:  # the module may be a script
        fault = str(error)
    else:
        fault = f"there is no {name} in it"
    warnings.warn(f"the tracker {path} is left out: it cannot be imported ({fault}).", stacklevel=2)
    return {key: value for key, value in content.items() if key != "tracker"}


def flatten(value: Any, prefix: str = "") -> Document:
    """Nested plain values by their dotted names."""
    if isinstance(value, dict) and value:
        parts = [flatten(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items()]
        return {key: inner for part in parts for key, inner in part.items()}
    return {prefix: value}


def described(value: Any) -> Any:
    """A configured object as plain values: its class and what its constructor was given.

    Raises:
        InputError: It is neither plain, nor settings, nor something that keeps its options under their names.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {it.name: described(getattr(value, it.name)) for it in fields(value)}
    if isinstance(value, functools.partial):
        if value.args:
            raise InputError(f"{value!r} has values without names; expected functools.partial(Class, option=value).")
        return _with_class(value.func, value.keywords)
    if isinstance(value, type):
        return _with_class(value, {})
    if isinstance(value, Balancer | Sharing | Tracker):
        return _with_class(type(value), {name: _kept(value, name) for name in options_of(type(value))})
    if isinstance(value, Mapping):
        return {key: described(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [described(inner) for inner in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path | Tensor):
        return str(value) if isinstance(value, Path) else value.tolist()
    raise InputError(
        f"{value!r} cannot be written to a configuration; expected an object of a family, a class, or "
        "functools.partial(Class, option=value): a run must be opened again from its folder."
    )


def _kept(value: object, option: str) -> Any:
    """An option that an object was built with; as in scikit-learn, constructors keep them under their names."""
    if not hasattr(value, option):
        raise InputError(
            f"{type(value).__name__} does not say what its option {option} is; expected an attribute of that name, so "
            "that a run with it can be opened again."
        )
    return getattr(value, option)


def _with_class(kind: Any, arguments: Mapping[str, Any]) -> Document:
    if not inspect.isclass(kind):
        raise InputError(
            f"{kind!r} cannot be written to a configuration; expected a class, or functools.partial(Class, ...)."
        )
    plain = {name: described(inner) for name, inner in arguments.items()}
    return {"class_path": class_path(kind), "init_args": plain} if plain else {"class_path": class_path(kind)}


def class_path(kind: type) -> str:
    """The shortest name by which a class can be imported: that of the family's face, if it is shown there."""
    parts = kind.__module__.split(".")
    for length in range(1, len(parts)):
        module = ".".join(parts[:length])
        if getattr(sys.modules.get(module), kind.__qualname__, None) is kind:
            return f"{module}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"
