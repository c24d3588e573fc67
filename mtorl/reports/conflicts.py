"""Conflicts of tasks that were measured, as tables for the terminal."""

import math

from mtorl.reports.terminal import show, table
from mtorl.runs.conflicts import Conflicts, PhaseConflicts
from mtorl.runs.sharing_price import SharingPrice

MANY = 12
"""More tasks than these have no column each; the file and the report have all cosines."""


def show_conflicts(found: Conflicts) -> None:
    """Prints where the tasks of a run quarrel, phase by phase, and what sharing costs."""
    for phase in found.phases:
        _show_phase(phase, found)
    if found.price:
        _show_price(found.price)


def _show_phase(phase: PhaseConflicts, found: Conflicts) -> None:
    columns = phase.tasks if len(phase.tasks) <= MANY else []
    shown = table(
        f"phase {phase.phase}, step {found.source.step:,}: cosines of the tasks' mean gradients",
        "task",
        "norm",
        "noise",
        "mean",
        "least",
        "with",
        "conflicts",
        *columns,
    )
    for place, task in enumerate(phase.tasks):
        others = phase.others(place)
        worst = min(others, key=lambda name: others[name])
        shown.add_row(
            task,
            f"{phase.norm[task]:.3g}",
            f"{phase.noise[task]:.0%}",
            f"{sum(others.values()) / len(others):+.2f}",
            f"{others[worst]:+.2f}",
            worst,
            f"{sum(value < 0 for value in others.values())} of {len(others)}",
            *[f"{others[name]:+.2f}" if name in others else "" for name in columns],
        )
    show(shown)
    pairs = math.comb(len(phase.tasks), 2)
    print(
        f"{found.batches} batches, {found.windows} windows per task: {phase.negative_pairs * pairs:.0f} of {pairs} "
        f"pairs point apart ({phase.negative_pairs:.0%}; in single batches {phase.mean_rate:.0%}), mean cosine "
        f"{phase.mean_cosine:+.2f}, least {phase.least_cosine:+.2f}"
    )
    print("noise: share of the squared norm that is due to the windows; where it is large, take more --batches")


def _show_price(price: SharingPrice) -> None:
    shown = table(f"price of sharing: errors of actions on {price.data}", "task", "all tasks", "alone", "ratio")
    for task, ratio in price.ratios.items():
        shown.add_row(task, f"{price.joint[task]:.5f}", f"{price.single[task]:.5f}", f"{ratio:.2f}")
    shown.add_section()
    shown.add_row(f"geometric mean of {len(price.ratios)} tasks", "", "", f"{price.mean_ratio:.2f}")
    show(shown)
    print("above 1, a model of the task alone errs less")
    if price.unlike:
        print(f"not trained alike: {'; '.join(price.unlike)}")
