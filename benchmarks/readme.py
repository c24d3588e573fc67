"""The result tables of the README and of docs/, from `results/*.json`.

They stand between `<!-- results: NAME -->` and `<!-- end -->`.

python benchmarks/readme.py           # writes them
python benchmarks/readme.py --check   # fails if a page says something else
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtorl.intervals import analysis_of_variance

ROOT = Path(__file__).parent.parent
FOLDED = '<details markdown="1">'  # the attribute is for the site: tables in HTML are Markdown, too
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """One file of results."""
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    """A markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def per_task(columns: dict[str, list[dict[str, Any]]], goals: int) -> str:
    """Success of every task, mean of the seeds; the mean of the tasks with the range of the seeds comes last."""
    tasks = list(next(iter(columns.values()))[0]["tasks"])
    rows = [
        [
            task.removesuffix("-v3"),
            *[f"{100 * mean([run['tasks'][task] for run in runs]):.0f}" for runs in columns.values()],
        ]
        for task in tasks
    ]
    last = [f"**mean of {len(tasks)} tasks**"]
    for runs in columns.values():
        means = [100 * run["mean_success"] for run in runs]
        last.append(f"**{mean(means):.1f}**" + (f" ({min(means):.1f} to {max(means):.1f})" if len(runs) > 1 else ""))
    ends = ["mean at the last step of 500"]
    for runs in columns.values():
        ends.append(f"{100 * mean([mean(list(run['tasks_at_last_step'].values())) for run in runs]):.1f}")
    seeds = [f"{len(runs)}" if "seed" in runs[0] else "-" for runs in columns.values()]
    minutes = [
        f"{mean([run['training_seconds'] for run in runs]) / 60:.1f}" if "training_seconds" in runs[0] else "-"
        for runs in columns.values()
    ]
    return table(
        [f"success in %, {goals} held-out goals", *columns],
        [*rows, last, ends, ["seeds", *seeds], ["minutes of training, one thread", *minutes]],
    )


def mt10() -> str:
    """Success per task of the MT10 presets and of the transformer's variants."""
    cloning, context, returns, references = map(read, ("bc", "dt_action_context", "dt_return", "references"))
    columns = {
        "expert": references["results"]["expert, MT10"],
        "random": references["results"]["random, MT10"],
        "BC": cloning["results"]["bc"],
        "DT": context["results"]["dt_none"],
        "DT, past actions": context["results"]["dt_full"],
        "DT, half of the past actions": context["results"]["dt_dropout"],
        "DT, no returns": returns["results"]["dt_no_return"],
    }
    return f"{per_task(columns, cloning['goals_per_task'])}\n\n{origin(context['results']['dt_none'][0], context)}"


def mt50() -> str:
    """Success per task of the MT50 preset."""
    cloning, references = read("bc_mt50"), read("references")
    columns = {
        "expert": references["results"]["expert, MT50"],
        "random": references["results"]["random, MT50"],
        "BC": cloning["results"]["bc_mt50"],
    }
    body, source = per_task(columns, cloning["goals_per_task"]), origin(columns["BC"][0], cloning)
    return f"{FOLDED}<summary>{summary(columns)}</summary>\n\n{body}\n\n</details>\n\n{source}"


def modules() -> str:
    """Success per task of the presets with soft modules, beside those without."""
    cloning, returns, found = read("bc"), read("dt_return"), read("modules")
    columns = {
        "BC": cloning["results"]["bc"],
        "SoftModular": found["results"]["soft_modular"],
        "DT, no returns": returns["results"]["dt_no_return"],
        "DT of soft modules": found["results"]["dt_soft_modules"],
        "DualPolicy, modules": found["results"]["dual_policy"],
    }
    kept = {name: runs for name, runs in columns.items() if runs}
    return f"{per_task(kept, found['goals_per_task'])}\n\n{origin(found['results']['soft_modular'][0], found)}"


def soft_modules_speed() -> str:
    """Soft modules against a loop over modules."""
    found = read("soft_modules")
    rows = []
    for size, batches in found["training"].items():
        for batch, it in batches.items():
            goal = "0.95x" if batch == "10" else "1.3x" if size == "4x4x128" else ""
            measured = f"{it['loop_over_ours']:.2f}x, {it['modules_alone_loop_over_ours']:.2f}x"
            rows.append([f"{size}, batch of {int(batch):,}: forward and backward, modules alone", measured, goal])
    for size, it in found["acting"].items():
        rows.append([f"{size}, acting with merged modules", f"{it['as_trained_over_merged']:.1f}x", ""])
    return (
        f"{table(['faster than a loop over modules, or than unmerged', 'measured', 'goal'], rows)}\n\n{origin(found)}"
    )


def summary(columns: dict[str, list[dict[str, Any]]]) -> str:
    """Means of all columns in one sentence."""
    parts = [f"{name} {100 * mean([run['mean_success'] for run in runs]):.1f} %" for name, runs in columns.items()]
    return f"Mean of the tasks: {', '.join(parts)}."


def speed() -> str:
    """Simulation, sampling, acting and start-up, each beside its goal."""
    simulation, sampling, rollout, startup = map(read, ("simulation", "sampling", "dt_rollout", "startup"))
    goals, rates = simulation["goals"], simulation["steps_per_second"]
    slowest = min(entry["windows_per_second"] for sizes in sampling["results"].values() for entry in sizes)
    ratios, prompted = rollout["ratio_to_ours"], rollout["prompt_transformer"]["ratio_to_ours"]
    goals_of_prompts = rollout["prompt_transformer"]["goals"]
    seconds = startup["median_seconds"]
    helps = max(value for name, value in seconds.items() if name.endswith("--help"))
    rows = [
        [
            "simulation, MT50 mix, one core, against the package's own loop",
            f"{rates['ours']:,} against {rates['stock']:,} steps/s: {simulation['ours_over_stock']:.2f}x",
            f"{goals['ours_over_stock']}x",
        ],
        [
            "... against bare `mj_step`",
            f"{100 * simulation['ours_over_bare_physics']:.0f} %",
            f"{100 * goals['ours_over_bare_physics']:.0f} %",
        ],
        [
            "... with the MLP policy acting",
            f"{100 * simulation['with_policy_over_without']:.0f} % of that without",
            f"{100 * goals['with_policy_over_without']:.0f} %",
        ],
        *_envpool(simulation),
        [
            "... two workers against one",
            f"{simulation['two_workers_over_one']:.2f}x",
            f"{goals['two_workers_over_one']}x",
        ],
        [
            "windows of 20 steps from the memory map, batches of 70 to 1000",
            f"at least {slowest:,} a second",
            f"{sampling['goals']['windows_per_second']:,}",
        ],
        [
            "decision transformer acting for 10 episodes, against one pass per episode",
            f"{ratios['one pass per episode']:.1f}x",
            "",
        ],
        [
            "prompt decision transformer (5.29 M parameters) acting for 10 episodes, against a whole pass per episode",
            f"{prompted['a whole pass per episode']:.1f}x",
            f"{goals_of_prompts['exact']}x",
        ],
        [
            "... with `--context anchored`",
            f"{prompted['a whole pass per episode'] / prompted['the same, anchored']:.1f}x",
            f"{goals_of_prompts['anchored']}x",
        ],
        [
            "`import mtorl`, `mtorl --help`",
            f"{seconds['import mtorl']:.2f} s, {seconds['mtorl --help']:.2f} s",
            f"{startup['goals']['import mtorl']:g} s, {startup['goals']['mtorl --help']:g} s",
        ],
        [
            "slowest help of a command (`import torch`: " + f"{seconds['import torch']:.1f} s)",
            f"{helps:.1f} s",
            f"{seconds['import torch'] + 1:.1f} s",
        ],
    ]
    files = {"Simulation": simulation, "Sampling": sampling, "Acting": rollout, "Start-up": startup}
    origins = " ".join(f"{name}: {origin(it)[0].lower()}{origin(it)[1:]}" for name, it in files.items())
    return f"{table(['', 'measured', 'goal'], rows)}\n\n{origins}"


def _envpool(simulation: dict[str, Any]) -> list[list[str]]:
    if "envpool" not in simulation:
        return []
    rate, share = simulation["steps_per_second"]["EnvPool"], simulation["envpool_over_bare_physics"]
    return [[f"... EnvPool {simulation['envpool']} in C++, beside it", f"{rate:,} steps/s: {100 * share:.0f} %", ""]]


def balancing() -> str:
    """Gradients and balancers beside other libraries, on one thread."""
    found = read("balancing_1_threads")
    ten, fifty, weights, whole = (
        found["gradients"]["T=10"],
        found["gradients"]["T=50"],
        found["weights"],
        found["aggregation"],
    )
    slowest = max(weights["milliseconds"].items(), key=lambda it: it[1])
    steps = {name: value for name, value in found["step"]["over_equal"].items() if name != "Equal"}
    rows = [
        [
            "gradients of 10 tasks, transformer of 5 M parameters, against one summed backward pass",
            f"{ten['loop_over_plain']:.2f}x its time",
            "1.25x",
        ],
        ["... against TorchJD's `autojac.backward`", f"{ten['torchjd_over_loop']:.0f}x faster", "5x"],
        [
            "gradients of 50 tasks, small transformer, against TorchJD",
            f"{fifty['torchjd_over_loop']:.0f}x faster",
            "20x",
        ],
        [
            "weights from a Gramian of 50 tasks: PCGrad, NashMTL against TorchJD",
            f"{weights['torchjd_over_ours']['PCGrad']:.0f}x, {weights['torchjd_over_ours']['NashMTL']:,.0f}x faster",
            "25x, 200x",
        ],
        [f"... the slowest of {len(weights['milliseconds'])} methods, {slowest[0]}", f"{slowest[1]:.1f} ms", "8 ms"],
        [
            "from 50 gradients of 1 M parameters to the direction: PCGrad against LibMTL",
            f"{whole['LibMTL_over_ours_PCGrad']:.0f}x faster",
            "30x",
        ],
        ["... ConFIG against TorchJD", f"{whole['TorchJD_over_ours_ConFIG']:.0f}x faster", "30x"],
        [
            "a training step of the 5 M transformer with any of these methods, against equal weights",
            f"{min(steps.values()):.2f} to {max(steps.values()):.2f}x its time",
            "1.4x",
        ],
    ]
    return f"{table(['', 'measured', 'goal'], rows)}\n\n{origin(found)}"


def gpu() -> str:
    """Gradients of single tasks on a GPU."""
    found = read("gpu")
    rows = []
    for way, name in (("loop", "one task after the other"), ("vmap", "all tasks at once (`auto` on a GPU)")):
        rows.append(
            [f"gradients, {name}", *[_times(it["gradients"][way], it) for it in (found["T=10"], found["T=50"])]]
        )
    for name in ("PCGrad", "NashMTL"):
        cells = [
            f"{it['step'][name]['ms']:.0f} ms, {it['step_over_equal'][name]:.1f}x `Equal`"
            for it in (found["T=10"], found["T=50"])
        ]
        rows.append([f"a training step with {name}", *cells])
    source = f"Measured on one {found['gpu']}, torch {found['torch']}, {found['date']}, commit {found['commit']}."
    return f"{table(['transformer of 5 M parameters', '10 tasks', '50 tasks'], rows)}\n\n{source}"


def _times(entry: dict[str, float], found: dict[str, Any]) -> str:
    plain = found["gradients"]["summed backward"]["ms"]
    return f"{entry['ms']:.0f} ms, {entry['ms'] / plain:.1f}x a summed backward pass"


Column = tuple[str, Callable[[dict[str, Any]], str]]


def ablation(name: str, apart: Sequence[str] | None = None, timed: bool = True) -> str:
    """A comparison: one row per method, and success per task folded away.

    Args:
        name: Of the ablation.
        apart: Rows that an analysis of variance of the others leaves out; None for no such analysis.
        timed: Show minutes: not where the runs shared the machine with other work.
    """
    found = read(f"ablation_{name}")
    methods = found["methods"]
    columns = _columns(found["baselines"], found["single_task_models"], methods)
    columns = columns if timed else [(head, cell) for head, cell in columns if head != "minutes"]
    rows = [[row["name"], *[cell(row) for _, cell in columns]] for row in methods]
    tasks = [task.removesuffix("-v3") for task in found["tasks"]]
    each = [[row["name"], *[f"{100 * it[0]:.0f}" for it in row["tasks"].values()]] for row in methods]
    details = _folded(tasks, each)
    shown = table(["", *[head for head, _ in columns]], rows)
    alike = [row for row in methods if row["name"] not in (apart or ())]
    return f"{shown}\n\n{details}\n\n{'' if apart is None else _variance(alike)}{origin(found)}"


def single_tasks() -> str:
    """Policies for all tasks, and models of single tasks with what the first policy for all gains over them."""
    found = read("ablation_single_tasks_mt10_few")
    joint = found["methods"][0]
    rows = []
    for row in found["methods"]:
        gains = [joint[key].get(row["name"]) for key in ("delta_m", "delta_m_of_solved", "action_error_delta_m")]
        rows.append(
            [row["name"], _interval(row["mean"], 100, ".1f"), _interval(row["action_error"], 1000, ".1f")]
            + [_interval(gain, 100, "+.1f") if gain else "-" for gain in gains]
            + [f"{row['steps']:,}", f"{row['minutes']:.1f}"]
        )
    over = f"&Delta;m of {joint['name']}, %"
    head = ["", "success, %", "action error, 10<sup>-3</sup>", over, "... of solved tasks", "... of the error"]
    tasks = [task.removesuffix("-v3") for task in found["tasks"]]
    each = [[row["name"], *[f"{100 * it[0]:.0f}" for it in row["tasks"].values()]] for row in found["methods"]]
    shown = f"{table([*head, 'steps', 'minutes'], rows)}\n\n{_folded(tasks, each)}"
    return f"{shown}\n\n{origin(found)}"


def _folded(tasks: list[str], each: list[list[str]]) -> str:
    """Success per task, folded away."""
    return f"{FOLDED}<summary>Success per task, %</summary>\n\n{table(['', *tasks], each)}\n\n</details>"


def _variance(methods: Sequence[dict[str, Any]]) -> str:
    value, chance = analysis_of_variance([[mean(run) for run in row["scores"]] for row in methods])
    return f"Analysis of variance of the runs' means, {len(methods)} rows: F {value:.2f}, p {chance:.2f}.\n\n"


def _columns(bases: Sequence[str], single: Sequence[str], methods: Sequence[dict[str, Any]]) -> list[Column]:
    """What a comparison shows of each row, as far as it was measured."""
    found: list[Column] = [("success, %", lambda row: _interval(row["mean"], 100, ".1f"))]

    def add(head: str, factor: float, form: str, *keys: str) -> None:
        def value(row: dict[str, Any]) -> Any:
            for key in keys:
                row = row.get(key) if row else None  # type: ignore[assignment]
            return row

        if any(value(row) is not None for row in methods):
            found.append((head, lambda row: _interval(it, factor, form) if (it := value(row)) is not None else "-"))

    for base in bases:
        add(f"beats {base}, %", 100, ".0f", "probability_of_improvement", base)
    add("return-normalised score, %", 100, ".1f", "normalised_score")
    for base in bases:
        add(f"above {base}", 100, "+.1f", "normalised_score_lead", base)
    for label in single:
        add(f"&Delta;m over {label}, %", 100, "+.1f", "delta_m", label)
        add("... of the tasks that these solve", 100, "+.1f", "delta_m_of_solved", label)
    add("action error, 10<sup>-3</sup>", 1000, ".1f", "action_error")
    for label in single:
        add(f"&Delta;m of it over {label}, %", 100, "+.1f", "action_error_delta_m", label)
    add("zeros that moved, %", 100, ".1f", "masks_changed")
    add("weights, max/min", 1, ".3g", "weights_max_over_min")
    add("moves a step", 1, ".3g", "moves_per_step")
    if all("parameters" in row for row in methods):
        found.append(("parameters", lambda row: f"{row['parameters']:,}"))
    return [
        *found,
        ("steps", lambda row: f"{row['steps']:,}"),
        ("minutes", lambda row: f"{row['minutes']:.1f}"),
    ]


def agents() -> str:
    """Agents on good and on mixed data: success, and return-normalised scores with what they are above cloning."""
    found = read("ablation_agents_mt10")
    (base,) = found["baselines"]
    rows = {tuple(row["name"].split(", ")): row for row in found["methods"]}
    kinds, data = (list(dict.fromkeys(key[place] for key in rows)) for place in (0, 1))
    success, scores = [], []
    for kind in kinds:
        mine = [rows[kind, recipe] for recipe in data]
        minutes = mean([row["minutes"] for row in mine])
        success.append([kind, *[_interval(row["mean"], 100, ".1f") for row in mine], f"{minutes:.1f}"])
        leads = [row["normalised_score_lead"][base] for row in mine]
        scores.append(
            [kind, *[_interval(row["normalised_score"], 100, ".1f") for row in mine]]
            + [_interval(lead, 100, "+.1f") if lead else "-" for lead in leads]
        )
    first = table(["success, %", *data, "minutes of training"], success)
    second = table(["return-normalised score, %", *data, *[f"{it}: above {base}" for it in data]], scores)
    return f"{first}\n\n{second}\n\n{origin(found)}"


def _interval(value: list[float] | float, factor: float, form: str) -> str:
    if not isinstance(value, list):
        return f"{factor * value:{form}}"
    middle, low, high = (f"{factor * it:{form}}" for it in value)
    return f"{middle} ({low} to {high})"


def contention() -> str:
    """Training alone and beside two busy processes."""
    found = read("contention")
    rows = [
        [f"{name}, {way}", f"{alone:.1f}", f"{beside:.1f}", f"{100 * beside / alone:.0f} %"]
        for name, ways in found["results"].items()
        for way, (alone, beside) in ways.items()
    ]
    return (
        f"{table(['training steps a second', 'alone', 'beside two busy processes', 'kept'], rows)}\n\n{origin(found)}"
    )


def masks_cost() -> str:
    """What masks cost, each beside its goal."""
    found = read("masks_1_threads")
    step, change, rest, rollout = found["step"], found["change"], found["rest"], found["rollout"]
    slowest = max(change["seconds"].values())
    select = change["milliseconds_of_selecting_100_of_5M"]
    rows = [
        [
            "gradients of 10 and 50 tasks one after the other, with masks against without",
            f"{step['T=10']['masks_over_none']:.2f}x, {step['T=50']['masks_over_none']:.2f}x the time",
            "1.15x",
        ],
        ["a change of 50 masks, beyond the gradients, slowest strategy", f"{slowest:.1f} s", "3 s"],
        ["... peak memory of the process", f"{change['process_with_gradients']['peak_GB']:.1f} GB", "2.5 GB"],
        [
            f"the 100 smallest of 5 M values (`torch.topk`: {select['torch.topk']:.0f} ms)",
            f"{select['ours']:.1f} ms",
            "",
        ],
        ["50 masks in memory, in a checkpoint", f"{rest['MB']:.0f} MB, {rest['MB_saved']:.0f} MB", "270 MB"],
        [
            "acting with masks against without: MLP, transformer",
            f"{rollout['MLP']['masks_over_none']:.2f}x, {rollout['transformer']['masks_over_none']:.2f}x the time",
            "1.05x",
        ],
    ]
    return f"{table(['', 'measured', 'goal'], rows)}\n\n{origin(found)}"


def task_free() -> str:
    """Success where the task is told, hidden, demonstrated, and where it was not trained on."""
    found = read("task_free")
    ways = list(dict.fromkeys(way for row in found["rows"].values() for way in row))
    ways.sort(key=lambda way: way.startswith("unseen"))

    def cell(row: dict[str, Any], way: str) -> str:
        if way not in row:
            return "-"
        low, high = row[way]["interval"]
        return f"{100 * row[way]['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})"

    rows = [[name, *[cell(row, way) for way in ways]] for name, row in found["rows"].items()]
    return f"{table(['success, %', *ways], rows)}\n\n{origin(found)}"


def sharing_cost() -> str:
    """Steps of training beside plain ones, each beside its goal."""
    found = read("sharing_1_threads")
    rows = []
    for name, case in found["cases"].items():
        if "ratio" in case:
            each = f", for each of {case['for_each_of']} points" if case["for_each_of"] > 1 else ""
            words = f"{name}, beside {case['beside']}{each}".replace("_", " ")
            rows.append([words, f"{case['ratio']:.2f}x", f"{case['goal']:g}x" if case["goal"] else ""])
    return f"{table(['a training step', 'measured', 'goal'], rows)}\n\n{origin(found)}"


def distributed() -> str:
    """Training in two processes beside one; bytes beside what a ring sends to sum a gradient."""
    found = read("distributed")
    goals, rows = found["goals"], []
    for name, case in found["balancers"].items():
        seconds = [f"{case[key]:.2f}" for key in ("seconds_one_process", "seconds_two_processes")]
        sent = found["bytes_beside_a_sum"][f"{name}, 2 tasks and processes"]
        apart = f"{case['largest_relative_difference_of_losses']:.0e}"
        rows.append([name, *seconds, f"{case['speed']:.2f}x", apart, f"{sent:.2f}x"])
    rows.append(["goal", "", "", f"{goals['speed']}x", f"{goals['losses']:.0e}", f"{goals['bytes']}x"])
    heads = ["", "one process, s a step", "two, s a step", "speed", "losses apart", "bytes, T = N"]
    return f"{table(heads, rows)}\n\n{origin(found)}"


def tasks() -> str:
    """What a task costs among many, and its growth over 10 tasks."""
    found = read("tasks")
    each, growth = found["seconds_and_bytes"], found["per_task_over_fewest"]
    head = ["processor time", *[f"{count} tasks" for count in each], *[f"{count}: per task, x" for count in growth]]
    rows = []
    for name in next(iter(each.values())):
        cells = [_amount(name, row[name]) for row in each.values()]
        rows.append([name.replace("_", " "), *cells, *[f"{row[name]:.2f}" for row in growth.values()]])
    return f"{table(head, rows)}\n\n{origin(found)}"


def _amount(name: str, value: float) -> str:
    """Seconds, kilobytes or megabytes."""
    if name.endswith("bytes"):
        return f"{value:.0f} MB" if "mega" in name else f"{value / 1000:,.0f} kB"
    return f"{1000 * value:.1f} ms" if value < 1 else f"{value:.1f} s"


def startup() -> str:
    """Seconds until commands answer, and until training and evaluation are under way."""
    found = read("startup")
    seconds, goals = found["median_seconds"], found["goals"]
    rows = [[f"`{name}`", f"{value:.2f} s"] for name, value in seconds.items()]
    rows = [[*row, f"{goals[name]:g} s" if name in goals else ""] for row, name in zip(rows, seconds, strict=True)]
    later = found["median_seconds_after_torch"]
    rows += [
        [f"{name}, after `import torch`", f"{value:.2f} s", f"{goals['after torch']:g} s"]
        for name, value in later.items()
    ]
    return f"{table(['', 'median', 'goal'], rows)}\n\n{origin(found)}"


def groupers() -> str:
    """Which groupers find planted families, and how well Grad-TAG foresees fine-tuning."""
    found = read("groupers")
    planted, cost, ranks = found["planted"], found["cost"], found["ranks"]
    goals = {"RandomGroups": "", "FixedGroups": ""}
    foreseen = ranks["predicted"]["512 windows, last_half"]
    rows = [
        [f"{name} finds two planted families", f"{count} of {planted['seeds']} seeds", goals.get(name, "10 of 10")]
        for name, count in planted["recovered"].items()
    ]
    rows += [
        ["GradTAG, rank correlation with losses after fine-tuning", f"{foreseen['correlation']:.2f}", ""],
        ["... as a share of that of fine-tuning with itself", f"{foreseen['of_retest']:.2f}", "0.8"],
        ["... as a share of the processor time of fine-tuning", f"{100 * foreseen['compute']:.0f} %", "10 %"],
        ["GradTAG on MT50, processor minutes", f"{cost['processor_minutes']:.1f}", f"{cost['goals']['minutes']}"],
        ["... peak memory", f"{cost['peak_gigabytes']:.1f} GB", f"{cost['goals']['peak_gigabytes']} GB"],
    ]
    return f"{table(['', 'measured', 'goal'], rows)}\n\n{origin(found)}"


def origin(result: dict[str, Any], file: dict[str, Any] | None = None) -> str:
    """Machine, date and commit of a measurement; the commit stands in the file that holds it."""
    return f"Measured on {result['machine']}, {result['date']}, commit {(file or result)['commit']}."


APART = (
    *("CDTT", "DBMTL", "MoCo"),  # do not train as published
    *("BayesAgg", "ConnectionStrength", "Equal, linear heads", "Equal, task gains"),  # have another agent
    *("Equal, 3.3 x the steps", "Equal, 5.6 x the steps"),  # have other budgets
)


def union() -> str:
    """What a step, memory and the page cost with 10, 50 and 160 tasks."""
    content = read("union")
    names = {"mt10": "MT10", "mt50": "MT50", "union": "union"}
    rows = [
        [
            f"{words}, {names[name]}",
            f"{row['tasks']}",
            f"{row['observation_dim']} and {row['action_dim']}",
            f"{row['step_ms']:.0f}",
            f"{row['step_ms'] / row['tasks']:.2f}",
            f"{row['peak_MB']:,}",
            f"{row['page_kB']:,}",
        ]
        for way, words in {"pcgrad": "PCGrad", "random_masks": "RandomMasks"}.items()
        for name, row in content["results"][way].items()
    ]
    head = ["behavior cloning", "tasks", "observation and action", "ms per step", "ms per step and task"]
    return f"{table([*head, 'peak MB', 'page kB'], rows)}\n\n{origin(content)}"


BLOCKS = {"mt10": mt10, "mt50": mt50, "speed": speed, "balancing": balancing, "gpu": gpu}
BLOCKS |= {
    "masks_cost": masks_cost,
    "sharing_cost": sharing_cost,
    "groupers": groupers,
    "distributed": distributed,
    "union": union,
    "tasks": tasks,
    "startup": startup,
    "balancers": lambda: ablation("balancers_mt10", APART, timed=False),
    "single_tasks": single_tasks,
    "contention": contention,
    "cloning": lambda: ablation("cloning_mt10_replay_half"),
    "sharing": lambda: ablation("sharing_mt10_few", timed=False),
    "sharing_replay_half": lambda: ablation("sharing_mt10_replay_half", timed=False),
    "sampling": lambda: ablation("sampling_mt10_few", apart=()),
    "masks": lambda: ablation("masks_mt10"),
    "masks_dt": lambda: ablation("masks_dt_mt10"),
    "task_free": task_free,
    "agents": agents,
    "modules": modules,
    "soft_modules": soft_modules_speed,
}


def pages() -> list[Path]:
    """The README and the pages of the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Writes or checks the tables of all pages."""
    stale = []
    for path in pages():
        text = path.read_text()
        new = BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[3]}", text)
        if new != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(new)
    if stale and "--check" in sys.argv:
        print(f"{', '.join(stale)} differ from benchmarks/results: run `python benchmarks/readme.py`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
