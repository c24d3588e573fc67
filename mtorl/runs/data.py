"""What a run knows of its data, and the suite that they were recorded in."""

from collections.abc import Sequence

from mtorl import InputError
from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import Suite, build_suite


def describe_data(stores: Sequence[EpisodeStore], tasks: Sequence[str] | None = None, pooled: bool = False) -> DataSpec:
    """What agents must know of these stores together, with their tasks in the suite's order; see `describe_stores`."""
    spec = describe_stores(stores, tasks, pooled)
    order = _suite(spec).task_names
    return spec if order == spec.task_names else describe_stores(stores, tasks, pooled, order)


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
