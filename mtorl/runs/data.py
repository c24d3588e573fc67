"""What a run knows of its data, and the suite that they were recorded in."""

from collections.abc import Sequence

from mtorl import InputError
from mtorl.datasets.joining import joined_suite
from mtorl.datasets.opening import need_no_union
from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import Suite, build_suite
from mtorl.envs.union import Union
from mtorl.schema import Document


def describe_data(stores: Sequence[EpisodeStore], tasks: Sequence[str] | None = None, pooled: bool = False) -> DataSpec:
    """What agents must know of these stores together, with their tasks in the suite's order; see `describe_stores`."""
    suite = _union_of(stores)
    spec = describe_stores(stores, tasks, pooled, suite=suite)
    order = _suite(spec).task_names
    return spec if order == spec.task_names else describe_stores(stores, tasks, pooled, order, suite)


def _union_of(stores: Sequence[EpisodeStore]) -> Document | None:
    """The union of the stores' suites with all recorded tasks, if there are several."""
    alike: list[list[EpisodeStore]] = []
    for store in stores:
        mine = next((it for it in alike if all(need_no_union(other, store) for other in it)), None)
        if mine is None:
            alike.append([store])
        else:
            mine.append(store)
    if len(alike) == 1:
        return None
    suites = [build_suite(joined_suite([store.suite for store in it])).changed(tasks=_names(it)) for it in alike]
    return Union(suites).describe()


def _names(stores: Sequence[EpisodeStore]) -> list[str]:
    return list(dict.fromkeys(name for store in stores for name in store.task_names))


def suite_of(spec: DataSpec) -> Suite:
    """The suite that a data set was recorded in, with the tasks that are used of it.

    Raises:
        InputError: Its tasks have another order: a policy would be told the wrong ones.
    """
    suite = _suite(spec)
    if suite.task_names != spec.task_names:
        raise InputError(
            f"the suite {type(suite).__name__} has the tasks {list(suite.task_names)} in this order, the run has "
            f"{list(spec.task_names)}: its policy would be told the wrong ones. Train again."
        )
    return suite


def _suite(spec: DataSpec) -> Suite:
    return build_suite(spec.suite).subset(spec.task_names)
