"""Tables for the terminal."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from mtorl.measures import SCALES, SUCCESS, common_scale
from mtorl.reports.terminal import show as _print
from mtorl.reports.terminal import table as _table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mtorl.datasets.grouping import Grouping
    from mtorl.datasets.store import EpisodeStore
    from mtorl.families import Member
    from mtorl.measures import Scale
    from mtorl.reports.films import Film
    from mtorl.reports.masks import MaskSummary
    from mtorl.runs.action_error import ActionErrors
    from mtorl.runs.fronts import Front
    from mtorl.runs.run import Run

    Column = Callable[[dict[str, Any]], str]


def show_comparison(path: "Path") -> None:
    """Prints the summary of a comparison's JSON file."""
    from mtorl.files import read_json

    content = read_json(path, "comparison")
    bases = content["baselines"]
    single, errors = content["single_task_models"], content["heldout_data"]
    scored = content["methods"][0]["normalised_score"] is not None
    title = f"compared to {' and '.join(bases)}; in brackets 95 % intervals"
    title += f"; action error in thousandths, on {errors}" if errors else ""
    title += "; score: 0 % is what random actions earn, 100 % what the expert does" if scored else ""
    columns = _comparison_columns(content)
    table = _table(title, "method", "seeds", *[head for head, _ in columns])
    for row in content["methods"]:
        table.add_row(row["name"], f"{row['seeds']}", *[cell(row) for _, cell in columns])
    if len(single) > 1:
        table.caption = f"delta-m over {' and '.join(single)}"
    _print(table)


def _comparison_columns(content: dict[str, Any]) -> "list[tuple[str, Column]]":
    """Headings of a comparison, each with what stands below it."""
    bases, single = content["baselines"], content["single_task_models"]

    def of(key: str, name: str, form: "Callable[[Any], str]") -> "Column":
        return lambda row: form(row[key].get(name))

    scale = SCALES[content.get("judged_by", SUCCESS.name)]
    columns: list[tuple[str, Column]] = [
        ("mean" if scale is SUCCESS else f"mean {scale.name}", lambda row: scale.text(row["mean"][0], 1)),
        ("IQM", lambda row: _bracketed(row["interquartile_mean"], scale, 1)),
        *_mean_of_others(content),
        *(("P(better)", of("probability_of_improvement", base, _share)) for base in bases),
    ]
    if content["methods"][0]["normalised_score"] is not None:
        columns.append(("score", lambda row: f"{row['normalised_score'][0]:.1%}"))
        columns += [("lead", of("normalised_score_lead", base, _signed)) for base in bases]
    columns += [("delta-m", of("delta_m", name, _gain)) for name in single]
    if content["heldout_data"]:
        columns.append(("action error", lambda row: f"{1000 * row['action_error'][0]:.1f}"))
    return [
        *columns,
        ("weights, max/min", lambda row: f"{spread:.3g}" if (spread := row["weights_max_over_min"]) else "-"),
        ("moves a step", lambda row: f"{row['moves_per_step']:.3g}"),
        ("ms a step", lambda row: f"{row['milliseconds_per_step']:.1f} ({row['step_over_baseline']:.2f}x)"),
    ]


def _mean_of_others(content: dict[str, Any]) -> "list[tuple[str, Column]]":
    """The column of tasks without success, beside those with it."""
    if "others_judged_by" not in content:
        return []
    scale = SCALES[content["others_judged_by"]]
    return [(f"mean {scale.name}", lambda row: _bracketed(row["mean_of_others"], scale))]


def _bracketed(value: "Sequence[float]", scale: "Scale", digits: int = 0) -> str:
    """A value with its interval."""
    if scale.unit:
        return _share(value, digits)
    return f"{scale.text(value[0])} [{scale.text(value[1])}, {scale.text(value[2])}]"


def _share(value: "Sequence[float] | None", digits: int = 0) -> str:
    """A share with its interval, in percent."""
    if value is None:
        return "-"
    return f"{value[0]:.{digits}%} [{100 * value[1]:.{digits}f}, {100 * value[2]:.{digits}f}]"


def _gain(value: "Sequence[float] | None") -> str:
    return "-" if value is None else f"{value[0]:+.1%}"


def _signed(found: "Sequence[float] | None") -> str:
    """A difference with its interval, in percentage points."""
    return "-" if found is None else f"{100 * found[0]:+.1f} [{100 * found[1]:+.1f}, {100 * found[2]:+.1f}]"


def show_action_errors(errors: "ActionErrors") -> None:
    """Prints what `Run.action_errors` returns."""
    table = _table(f"{errors.policy}: mean squared error of actions on {errors.data}", "task", "error")
    for task, error in errors.tasks.items():
        table.add_row(task, f"{error:.5f}")
    table.add_section()
    table.add_row(f"mean of {len(errors.tasks)} tasks", f"{errors.mean_error:.5f}")
    _print(table)


def show_run(run: "Run") -> None:
    """Prints the models of a run, how large they are, and how far they are trained."""
    from mtorl.trainers.logs import Log

    options = run.configuration.options
    parts = ", ".join(str(options[name].class_path).rsplit(".", 1)[-1] for name in ("agent", "balancer", "sharing"))
    table = _table(f"{run.folder}: {parts}", "model", "tasks", "steps", "parameters", "minutes")
    rows = [
        (max(part.checkpoints().steps(), default=0), part.parameters(), Log(part.folder).minutes())
        for part in run.parts
    ]
    for part, (steps, size, minutes) in zip(run.parts, rows, strict=True):
        tasks = ", ".join(part.spec.task_names)
        table.add_row(
            part.folder.name, tasks, f"{steps:,} of {options.schedule.steps:,}", f"{size:,}", f"{minutes:.1f}"
        )
    steps, size, minutes = (sum(column) for column in zip(*rows, strict=True))
    table.add_section()
    table.add_row(f"{len(rows)} in all", f"{len(run.spec.task_names)}", f"{steps:,}", f"{size:,}", f"{minutes:.1f}")
    _print(table)


def show_front(front: "Front") -> None:
    """Prints what every task is judged by at every point of a manifold."""
    first = front.reports[0]
    what = common_scale([row.measure.scale for row in first.tasks()])
    title = f"{what} of each task along the manifold, {first.protocol.name}, {first.protocol.goals} goals"
    means = ["mean"] if [*first.scales] == [SUCCESS] else [f"mean {scale.name}" for scale in first.scales]
    table = _table(title, f"shares of {', '.join(front.mixed)}", *first.task_names, *means)
    for name, report in zip(front.names, front.reports, strict=True):
        table.add_row(name, *[row.measure.text() for row in report.tasks()], *[it.text(1) for it in report.means])
    _print(table)


def show_films(films: "Sequence[Film]") -> None:
    """Prints what was filmed, and whether it ended as it was evaluated."""
    shown = _table("films", "film", "episodes", "success at step", "return", "as evaluated", "MB")
    for it in films:
        alone = len(it.episodes) == 1
        agreeing = [found for found in it.as_evaluated if found is not None]
        shown.add_row(
            it.path.name,
            f"{len(it.episodes)}",
            f"{it.success_steps[0] or '-'}" if alone else f"{sum(one.success for one in it.episodes)} succeed",
            f"{it.episodes[0].reward:,.1f}" if alone else "",
            f"{sum(agreeing)} of {len(agreeing)}" if agreeing else "no evaluation",
            f"{it.path.stat().st_size / 1e6:.2f}",
        )
    _print(shown)
    print(f"saved in {films[0].path.parent}")


def show_grouping(grouping: "Grouping") -> None:
    """Prints the groups, and how alike their tasks are."""
    table = _table(f"{grouping.method}: {grouping.score:.2f}", "group", "tasks", "affinity within", "to others")
    for group in range(grouping.count):
        mine = [place for place, label in enumerate(grouping.labels) if label == group]
        others = [place for place, label in enumerate(grouping.labels) if label != group]
        pairs = [grouping.affinity[one][other] for one in mine for other in mine if one != other]
        between = [grouping.affinity[one][other] for one in mine for other in others]
        table.add_row(
            f"{group}",
            ", ".join(grouping.task_names[place] for place in mine),
            f"{sum(pairs) / len(pairs):.2f}" if pairs else "-",
            f"{sum(between) / len(between):.2f}" if between else "-",
        )
    _print(table)


def show_masks(summary: "MaskSummary") -> None:
    """Prints what a run's masks are like."""
    table = _table(
        f"masks of phase {summary.phase}: {sum(summary.sizes.values()):,} weights, share kept by each task",
        "matrix",
        "weights",
        "fewest",
        "mean",
        "most",
        "all tasks keep",
        "no task keeps",
    )
    for name, kept in summary.densities.items():
        table.add_row(
            name.removeprefix("backbone.").removesuffix(".weight"),
            f"{summary.sizes[name]:,}",
            f"{float(kept.min()):.1%}",
            f"{float(kept.mean()):.1%}",
            f"{float(kept.max()):.1%}",
            f"{summary.everyone[name]:.1%}",
            f"{summary.nobody[name]:.1%}",
        )
    _print(table)
    print(
        f"two tasks both keep {summary.pair_mean():.1%} of the weights (drawn without regard to each other: "
        f"{summary.chance():.1%}); {summary.changed:.1%} {summary.moved}"
    )


def show_members(family: str, members: "Sequence[Member]") -> None:
    """Prints the members of a family, one paragraph each."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    table.add_column(family, no_wrap=True)
    table.add_column("what it does")
    for number, member in enumerate(members):
        if not number or member.kind != members[number - 1].kind:
            needs = f" (needs {member.needs})" if member.needs else ""
            table.add_row("", f"[bold]{member.kind}[/bold]{needs}" if len({it.kind for it in members}) > 1 else "")
        paper = f" [dim]{member.paper}[/dim]" if member.paper else ""
        table.add_row(member.name, f"{member.line}.{paper}")
    _print(table, wrap=True)


def show_store(store: "EpisodeStore") -> None:
    """Prints what a data set holds, task by task, and where it is from."""
    from mtorl.reports.data import bars, facts

    manifest = store.manifest
    source = ", ".join(f"{key} {value}" for key, value in manifest["source"].items() if value is not None)
    heads = ("episodes", "steps", "length", "return mean", "median", "least", "returns", "most", "success")
    table = _table(f"{store.path}: {source}", "task", *heads, "at last step")
    for place, task in enumerate(manifest["tasks"]):
        returns = store.returns[store.index["task"] == place]
        blind = task["name"] in store.returns_only
        table.add_row(
            task["name"],
            f"{task['episodes']}",
            f"{task['steps']:,}",
            f"{task['steps'] / max(task['episodes'], 1):.0f}",
            f"{task['return_mean']:.1f}",
            f"{task['return_quantiles'][10]:.1f}",
            f"{returns.min():.1f}" if returns.size else "-",
            bars(returns),
            f"{returns.max():.1f}" if returns.size else "-",
            *("-" if blind else f"{task[rate]:.0%}" for rate in ("success_rate", "success_last_rate")),
        )
    tasks = [task for task in manifest["tasks"] if task["name"] not in store.returns_only]
    table.add_section()
    table.add_row(
        f"{len(manifest['tasks'])} tasks",
        f"{len(store)}",
        f"{len(store.actions):,}",
        f"{len(store.actions) / len(store):.0f}",
        *[""] * 5,
        *(_mean_of([task[rate] for task in tasks]) for rate in ("success_rate", "success_last_rate")),
    )
    _print(table)
    for name, value in facts(store):
        print(f"{name}: {value}")


def _mean_of(rates: "Sequence[float]") -> str:
    return f"{sum(rates) / len(rates):.0%}" if rates else "-"


def _success(task: dict[str, Any], store: "EpisodeStore") -> list[str]:
    """How often recorded episodes of a task succeed, at any step and at the last; nothing where there is no success."""
    if task["name"] in store.returns_only:
        return ["-", "-"]
    return [f"{task['success_rate']:.0%}", f"{task['success_last_rate']:.0%}"]
