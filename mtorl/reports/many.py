"""What is shown of many tasks, more than a person reads: the hardest ones first."""

from collections.abc import Mapping

MANY_TASKS = 60
"""Of more tasks than these tables show the hardest, heat maps means of blocks, and curves the spread over tasks."""
HARDEST = 10
"""So many tasks are shown first where there are many."""


def hardest(values: Mapping[str, float]) -> list[str]:
    """Names of all tasks; of many those with the lowest values, the lowest first.

    Args:
        values: What each task is judged by.
    """
    return list(values) if len(values) <= MANY_TASKS else sorted(values, key=lambda task: values[task])[:HARDEST]
