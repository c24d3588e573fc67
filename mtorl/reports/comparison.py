"""Compares methods over tasks and seeds: a table per task, robust means, and how sure a difference is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtorl.files import write_atomically, write_json
from mtorl.intervals import analysis_of_variance
from mtorl.measures import SCORE, SCORE_NOTE, SUCCESS
from mtorl.reports.charts.base import picture
from mtorl.reports.charts.comparison import draw_comparison
from mtorl.reports.charts.masks import draw_masks, draw_moves
from mtorl.reports.many import hardest
from mtorl.reports.masks import MaskSummary, summarise
from mtorl.reports.methods import Method, Scores, measure, tasks_of
from mtorl.reports.pages import page
from mtorl.reports.standings import SOLVED, Row, row_of
from mtorl.runs.run import Run
from mtorl.runs.sweep import Sweep
from mtorl.schema import Document

Moves = list[tuple[int, float]]


def compare(sweep: Sweep) -> Path:
    """Writes one HTML file that opens without a network, and the same numbers as JSON beside it.

    Args:
        sweep: The finished runs.

    Returns:
        The HTML file, `comparison.html` in the sweep's folder.
    """
    tasks = tasks_of(next(iter(sweep.methods.values())), sweep.protocol)
    found = {name: measure(name, runs, tasks, sweep) for name, runs in sweep.methods.items()}
    models = {name: found[name] for name in sweep.single}
    rows = [
        row_of(
            method,
            {label: found[base[name]] for label, base in sweep.baselines.items()},
            {} if name in models else models,
        )
        for name, method in found.items()
    ]
    variance = analysis_of_variance([it.judging.mean(1).tolist() for name, it in found.items() if name not in models])
    masks, moves = _masks(found)
    content = {
        "rows": rows,
        "tasks": tasks,
        "worst": _worst(rows),
        "bases": list(sweep.baselines),
        "judged": rows[0].method.judged,
        "others": [*rows[0].method.places][1:],
        "any_success": SUCCESS in rows[0].method.places,
        "score_note": SCORE_NOTE if SCORE in rows[0].method.places else "",
        "scored": rows[0].score is not None,
        "by_setting": any(len({base[name] for name in base}) > 1 for base in sweep.baselines.values()),
        "masks": masks,
        "moves": picture(draw_moves(moves)) if moves else None,
        "single": list(sweep.single),
        "solved": SOLVED,
        "variance": variance,
        "heldout_data": sweep.heldout_data,
        "protocol": sweep.protocol,
        "picture": picture(draw_comparison(rows)),
    }
    out = sweep.folder / "comparison.html"
    write_json(
        out.with_suffix(".json"),
        _as_json(rows, sweep, {name: one.changed for name, one, _ in masks}, variance),
    )
    html = page("comparison.html", content)
    write_atomically(out, lambda file: file.write(html))
    return out


def _worst(rows: Sequence[Row]) -> list[int]:
    """Places of all tasks; of many those in which the methods together are worst, of each kind, the hardest first."""
    first = rows[0].method
    means = np.mean([row.method.scores.mean(0) for row in rows], 0)
    each = [hardest({first.tasks[place]: float(means[place]) for place in places}) for places in first.places.values()]
    if sum(map(len, each)) == len(first.tasks):
        return list(range(len(first.tasks)))
    return [first.tasks.index(task) for tasks in each for task in tasks]


def _as_json(
    rows: Sequence[Row],
    sweep: Sweep,
    changed: Mapping[str, float],
    variance: tuple[float, float],
) -> Document:
    tasks = rows[0].method.tasks
    scales = [scale.name for scale in rows[0].method.places]
    judged = {} if scales[0] == SUCCESS.name else {"judged_by": scales[0]}
    return {
        **judged,
        **({"others_judged_by": scales[1]} if scales[1:] else {}),
        "baselines": list(rows[0].bases),
        "single_task_models": list(sweep.single),
        "analysis_of_variance": None if np.isnan(variance[0]) else {"F": variance[0], "p": variance[1]},
        "heldout_data": sweep.heldout_data,
        "tasks": list(tasks),
        "methods": [
            {
                "name": row.method.name,
                "seeds": len(row.method.scores),
                "episodes": row.method.protocol.goals,
                "mean": row.mean,
                "interquartile_mean": row.middle,
                **({"mean_of_others": row.mean_of_others} if row.mean_of_others else {}),
                "probability_of_improvement": row.improvement,
                "normalised_score": row.score,
                "normalised_score_lead": row.lead,
                "delta_m": {name: gain.success for name, gain in row.gains.items()},
                "delta_m_of_solved": {name: gain.solved for name, gain in row.gains.items()},
                "action_error": row.error,
                "action_error_delta_m": {name: gain.error for name, gain in row.gains.items()},
                "milliseconds_per_step": row.method.milliseconds,
                "step_over_baseline": row.step_ratio,
                "steps": row.method.steps,
                "moves_per_step": row.method.moves,
                "weights_max_over_min": row.method.spread,
                "minutes": row.method.minutes,
                "parameters": row.method.parameters,
                "masks_changed": changed.get(row.method.name),
                "tasks": row.method.success,
                "scores": row.method.scores.tolist(),
                "normalised_scores": _or_none(row.method.normalised),
                "action_errors": _or_none(row.method.errors),
                "runs": [str(folder) for folders in row.method.runs for folder in folders],
            }
            for row in rows
        ],
    }


def _or_none(scores: Scores | None) -> list[list[float | None]] | None:
    """As JSON: what is not a number is null."""
    return None if scores is None else [[it if np.isfinite(it) else None for it in row] for row in scores.tolist()]


def _masks(methods: Mapping[str, Method]) -> tuple[list[tuple[str, MaskSummary, str]], list[tuple[str, Moves]]]:
    """Summary and picture of the masks of each method's first run, and how they moved."""
    summaries = [(name, one) for name, method in methods.items() for one in summarise(Run(method.runs[0][0]))]
    pictures = [(_title(name, one), one, picture(draw_masks(one))) for name, one in summaries]
    return pictures, [(_title(name, one), one.moves) for name, one in summaries if one.moves]


def _title(name: str, summary: MaskSummary) -> str:
    return name if summary.phase == "policy" else f"{name}, {summary.phase}"
