"""Descriptions of suites, compared and joined without building the suites: their classes may be of anybody.

Most arguments of a suite hold for all of its tasks. One that is an object with a value for every task, by its name,
says something of each task alone, such as the environment that it is played in: suites that differ in those of
different tasks are joined, and have them all.
"""

from collections.abc import Mapping, Sequence

from mtorl.schema import Document

CHOSEN = ("benchmark", "tasks", "fast")
"""Arguments that do not change what an episode is."""


def settings_of(suite: Document) -> Document:
    """The arguments that hold for all tasks and change what an episode is.

    Args:
        suite: As `Suite.describe` says.
    """
    return _settings(suite) | dict.fromkeys(values_by_task(suite), "one for each task")


def _settings(suite: Document) -> Document:
    chosen = {name: it for name, it in suite["init_args"].items() if name not in CHOSEN}
    if "suites" in chosen:
        chosen["suites"] = [[it["class_path"], _settings(it)] for it in chosen["suites"]]
    return chosen


def values_by_task(suite: Document) -> dict[str, Mapping[str, object]]:
    """The arguments that say something of each task: by their names, and then by the tasks'."""
    arguments = suite["init_args"]
    tasks = arguments.get("tasks")
    if not isinstance(tasks, list | tuple) or not tasks:
        return {}
    found = {name: value for name, value in arguments.items() if isinstance(value, Mapping)}
    return {name: value for name, value in found.items() if all(task in value for task in tasks)}


def contradiction(one: Document, other: Document) -> str:
    """What two suites of one class say differently of the same task, in words; "": nothing."""
    ours, theirs = values_by_task(one), values_by_task(other)
    for name in sorted({*ours} & {*theirs}):
        for task, value in ours[name].items():
            if theirs[name].get(task, value) != value:
                return f"{name} of the task {task!r}: {value!r} and {theirs[name][task]!r}"
    return ""


def have_other_values(one: Document, other: Document) -> bool:
    """Whether what they say of single tasks differs beyond the tasks' names: other environments, for example."""
    ours, theirs = values_by_task(one), values_by_task(other)
    return any({*map(repr, value.values())} != {*map(repr, theirs[name].values())} for name, value in ours.items())


def are_joined(one: Document, other: Document) -> bool:
    """Whether two descriptions are of one suite, whatever tasks were chosen of it."""
    same = one["class_path"] == other["class_path"] and settings_of(one) == settings_of(other)
    return same and not contradiction(one, other)


def joined_suite(suites: Sequence[Document]) -> Document:
    """The suite of which all of these are parts: the first, with what the others say of their own tasks.

    Args:
        suites: Each two of them `are_joined`.
    """
    arguments = dict(suites[0]["init_args"])
    for name in values_by_task(suites[0]):
        arguments[name] = {task: value for it in suites for task, value in it["init_args"][name].items()}
    return {**suites[0], "init_args": arguments}
