"""Every field of every file that is read: what is missing or wrong is refused by its name, whatever it is."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any

import pytest

from mtorl import InputError
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.evaluator import evaluate
from mtorl.envs.policies import ExpertPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport
from mtorl.envs.workers import WorkerPool
from mtorl.runs.action_error import ACTION_ERRORS
from mtorl.runs.data import suite_of
from mtorl.runs.provenance import MACHINE, describe_machine
from mtorl.schema import check

Place = tuple[str | int, ...]
NAN, INFINITY = float("nan"), float("inf")


@dataclass(frozen=True)
class Document:
    """A file that is right, how it is read, and where more than one kind of value is right.

    Attributes:
        content: What it holds.
        read: Takes content of a file; raises InputError if it is wrong.
        optional: Fields that may be missing, without places in lists: data.suite.
        free: First names of what is kept for people, or for somebody else's class.
        nullable: Last names of fields that may be null.
        signed: Last names of numbers that may be negative.
        loose: Last names of lists of any length.
    """

    content: Any
    read: Callable[[Any], Any]
    optional: set[str] = default(default_factory=set)
    free: set[str] = default(default_factory=set)
    nullable: set[str] = default(default_factory=set)
    signed: set[str] = default(default_factory=set)
    loose: set[str] = default(default_factory=set)


@pytest.fixture(scope="module")
def documents(store: EpisodeStore, spec: DataSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    folder = tmp_path_factory.mktemp("documents")
    shutil.copytree(store.path, folder / "data")
    suite = suite_of(spec)
    with WorkerPool(0) as pool:
        evaluate(ExpertPolicy(suite), suite, Protocol(goals=2), pool, quiet=True).save(folder / "report.json")
    affinity = ((1.0, 0.1, 0.9), (0.1, 1.0, 0.2), (0.9, 0.2, 1.0))
    Grouping(spec.task_names, (0, 1, 0), affinity, 0.7, "by hand").save(folder / "groups.json")

    def of(name: str, load: Callable[[Path], Any], **exceptions: set[str]) -> Document:
        path = folder / name

        def read(content: Any) -> Any:
            path.write_text(json.dumps(content))
            return load(path)

        return Document(json.loads(path.read_text()), read, **exceptions)

    moments = {"return_mean", "return_quantiles", "observation_mean"}
    errors = {"policy": "x", "source": {}, "data": {"path": "x", "sha256": "x"}, "mean_error": 0.5, "tasks": {"a": 0.5}}
    return {
        "manifest": of(
            "data/manifest.json",
            lambda path: EpisodeStore(path.parent),
            optional={"parents", "episodes", "steps", "card"},
            free={"source", "suite", "versions"},
            nullable={"licence"},
            signed=moments,
            loose={"parents", "notes"},
        ),
        "data specification": Document(
            json.loads(json.dumps(spec.to_json())),
            DataSpec.from_json,
            optional={"data", "data.source", "data.suite", "data.card", "groups"},
            free={"source", "suite"},
            nullable={"licence"},
            signed=moments,
            loose={"data", "notes"},
        ),
        "run description": Document(
            describe_machine(["mtorl", "train"]) | {"grouping": {"path": "groups.json", "sha256": "x"}},
            lambda content: check(content, MACHINE, "run.json"),
            optional={"grouping"},
            nullable={"processors"},
            loose={"command"},
        ),
        "action errors": Document(errors, lambda content: check(content, ACTION_ERRORS, "errors"), free={"source"}),
        "evaluation": of(
            "report.json",
            EvalReport.load,
            optional={
                "mean_success",
                *(f"protocol.{name}" for name in vars(Protocol()) if name not in ("name", "goals")),
            },
            free={"source", "suite", "versions"},
            nullable={"success_last", "demonstrations"},
            signed={"reward"},
        ),
        "grouping": of(
            "groups.json", Grouping.load, optional={"groups"}, signed={"score", "affinity"}, loose={"groups"}
        ),
    }


DOCUMENTS = ("manifest", "data specification", "run description", "action errors", "evaluation", "grouping")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_right_document_is_read(documents: dict[str, Document], name: str) -> None:
    documents[name].read(documents[name].content)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_wrong_field_is_refused_by_its_name(documents: dict[str, Document], name: str) -> None:
    document = documents[name]
    for path, value in _mutations(document):
        changed = _changed(document.content, path, value)
        last = next(part for part in reversed(path) if isinstance(part, str))
        try:
            document.read(changed)
        except InputError as error:
            assert last in str(error), f"{path} = {value!r}: {error}"
        else:
            raise AssertionError(f"{path} = {value!r} was taken")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_optional_fields_may_be_missing(documents: dict[str, Document], name: str) -> None:
    """Earlier versions did not write them."""
    document = documents[name]
    for key in [key for key in document.content if key in document.optional]:
        document.read({other: value for other, value in document.content.items() if other != key})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("episodes",), "episodes"),
        (("steps",), "steps"),
        (("tasks", 0, "episodes"), r"tasks\[0\]\.episodes"),
        (("tasks", 1, "steps"), r"tasks\[1\]\.steps"),
        (("observation_dim",), "dimensions 5 and 2"),
        (("action_dim",), "dimensions 4 and 3"),
        (("columns", "rewards", "bytes"), r"rewards\.npy has .* bytes"),
        (("columns", "actions", "shape", 0), r"actions\.npy has shape"),
    ],
)
def test_counts_of_a_manifest_agree_with_the_columns(documents: dict[str, Document], path: Place, message: str) -> None:
    document = documents["manifest"]
    with pytest.raises(InputError, match=message):
        document.read(_changed(document.content, path, _at(document.content, path) + 1))


def test_tasks_of_another_order_and_extra_ones_are_refused(documents: dict[str, Document]) -> None:
    document = documents["manifest"]
    names, tasks = document.content["task_names"], document.content["tasks"]
    for changes, message in (
        ({"task_names": names[::-1]}, r"tasks\[0\]\.name"),
        ({"task_names": [*names, "more"]}, "tasks counts 3; expected 4, as task_names"),
        ({"tasks": [*tasks, tasks[0]]}, "tasks counts 4; expected 3, as task_names"),
        ({"task_names": [names[0], *names[:2]]}, "task_names names .* twice"),
    ):
        with pytest.raises(InputError, match=message):
            document.read({**document.content, **changes})


def test_an_evaluation_has_an_episode_for_every_goal_of_every_task(documents: dict[str, Document]) -> None:
    document = documents["evaluation"]
    episodes = document.content["episodes"]
    for changed in (episodes[1:], [*episodes, episodes[0]], [episodes[1], *episodes[1:]], [], episodes[:2]):
        with pytest.raises(InputError, match="expected one for each of 2 goals of each of 3 task_names"):
            document.read({**document.content, "episodes": changed})


MISSING = object()


def _mutations(document: Document) -> Iterator[tuple[Place, Any]]:
    """Places in a document, and what does not belong there."""
    for path, value in _places(document.content, (), document.free):
        last = next((part for part in reversed(path) if isinstance(part, str)), "")
        if not last or last == "schema":
            continue
        field = ".".join(part for part in path if isinstance(part, str))
        if isinstance(path[-1], str) and field not in document.optional and not _named_freely(path):
            yield path, MISSING
        wrong: list[Any] = [] if last in document.nullable else [None]
        if isinstance(value, bool):
            wrong += [1, "true", [], {}]
        elif isinstance(value, int | float):
            wrong += [NAN, INFINITY, 1e39, True, "word", [], {}, *([] if last in document.signed else [-3])]
            wrong += [value + 0.5] if isinstance(value, int) else []
        elif isinstance(value, str):
            wrong += [7, True, [], {}]
        elif isinstance(value, list):
            wrong += [7, "word", {}]
            wrong += [] if last in document.loose else [value[:-1], [*value, value[-1]]]
        elif isinstance(value, dict):
            wrong += [7, "word", []]
        else:
            wrong += [7.5, [], {}]
        yield from ((path, item) for item in wrong)


def _named_freely(path: Place) -> bool:
    """Whether a name is a value itself: a package in `versions`, a task in `tasks` of action errors."""
    return len(path) == 2 and path[0] in ("versions", "tasks") and isinstance(path[1], str)


def _places(content: Any, path: Place, free: set[str]) -> Iterator[tuple[Place, Any]]:
    """Every field, to the ends; of lists the first and the last entry."""
    yield path, content
    if path and path[-1] in free:
        return
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        if isinstance(key, str) or key in (0, len(content) - 1):
            yield from _places(value, (*path, key), free)


def _at(content: Any, path: Place) -> Any:
    for part in path:
        content = content[part]
    return content


def _changed(content: Any, path: Place, value: Any) -> Any:
    content = copy.deepcopy(content)
    parent = _at(content, path[:-1])
    if value is MISSING:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return content
