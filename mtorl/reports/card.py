"""A card for a policy that is given away (Markdown): what it is, what it learned from, how well it does, how to use it.

The first lines are metadata as the Hugging Face hub reads them (`model-index`: results by data set and metric).
"""

import shlex
from dataclasses import dataclass

import yaml

from mtorl import __version__
from mtorl.envs.results import EvalReport
from mtorl.measures import SUCCESS, Measure
from mtorl.reports.data import commands_for, facts_of
from mtorl.runs.packing import evaluations
from mtorl.runs.run import Run
from mtorl.schema import Document
from mtorl.trainers.logs import Log

HARDEST = 3
"""Tasks that are named as the hardest."""


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond what the run knows.

    Attributes:
        name: What the policy is called.
        form: How it was written: safetensors, torchscript, onnx, or run.
        about: What `policy.json` says; nothing of runs.
        checkpoint: Which one it is.
        licence: Of the weights, as the hub spells it (mit, apache-2.0); None: not said.
        act_with: Which policy of an agent that has several.
    """

    name: str
    form: str
    about: Document
    checkpoint: str = "last"
    licence: str | None = None
    act_with: str | None = None


def model_card(run: Run, facts: CardFacts) -> str:
    """The card of a run's policy."""
    kept = [it for it in evaluations(run, facts.checkpoint) if it.source.act_with == facts.act_with]
    shown = list({report.protocol.name: report for report in reversed(kept)}.values())  # those with most goals
    agent = _class_of(_plain(run)["agent"])
    suite = run.spec.suite["class_path"].rsplit(".", 1)[-1]
    lines = [
        _front_matter(run, facts, shown, suite),
        f"# {facts.name}",
        "",
        f"One policy for {len(run.spec.task_names)} tasks of {suite}: {agent}, trained by mtorl from recorded "
        "episodes alone.",
        "",
        *_success(shown),
        *_usage(run, facts),
        *_data(run),
        *_training(run, facts),
        *_again(run),
        *_limits(run),
    ]
    return "\n".join(lines) + "\n"


def _plain(run: Run) -> Document:
    return (run.parts[0] if run.per_group else run).configuration.plain


def _class_of(value: object) -> str:
    """The name of a configured class."""
    path = value.get("class_path", "") if isinstance(value, dict) else value
    return str(path).rsplit(".", 1)[-1]


def _front_matter(run: Run, facts: CardFacts, reports: list[EvalReport], suite: str) -> str:
    content: Document = {"license": facts.licence} if facts.licence else {}
    content |= {
        "library_name": "mtorl",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "offline-reinforcement-learning", "multi-task", "robotics", suite],
        "model-index": [{"name": facts.name, "results": [one for it in reports for one in _results(it, suite)]}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n"


def _results(report: EvalReport, suite: str) -> list[Document]:
    """Means over tasks, then every task."""
    means = [_result(f"{mean.tasks} tasks of {suite}", mean, report, suite) for mean in report.means]
    return means + [_result(row.task, row.measure, report, suite) for row in report.tasks()]


def _result(name: str, measure: Measure, report: EvalReport, suite: str) -> Document:
    """One result, as the hub lists it."""
    kind = "success_rate" if measure.scale is SUCCESS else "mean_reward"
    what = f"{measure.scale.name}, {report.protocol.name} protocol, {report.settings.label}"
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": name, "type": suite},
        "metrics": [{"type": kind, "value": round(measure.value, 4), "name": what, "verified": False}],
    }


def _success(reports: list[EvalReport]) -> list[str]:
    """A table of every protocol, the mean last, and which tasks are the hardest."""
    if not reports:
        return ["## Success", "", "Not measured: no evaluation of this checkpoint was kept.", ""]
    lines = []
    for report in reports:
        versions = ", ".join(f"{name} {value[:12]}" for name, value in report.versions.items())
        lines += [
            f"## Success: {report.protocol.name} protocol, {report.settings.label}",
            "",
            f"{_protocol(report)} Intervals are of 95 %; they cover which episodes were played, not which seed was "
            f"trained. {versions}.",
            "",
            "| task | result | 95 % interval | episodes | return | length |",
            "|---|---|---|---|---|---|",
            *[
                f"| {row.task} | {row.measure.text()} | {row.measure.interval()} | {row.episodes} | "
                f"{row.mean_return:.0f} | {row.mean_length:.0f} |"
                for row in report.tasks()
            ],
            *[_mean(mean, report) for mean in report.means],
            "",
            *_hardest(report),
        ]
    return lines


def _mean(mean: Measure, report: EvalReport) -> str:
    episodes = sum(row.episodes for row in report.scales[mean.scale])
    return f"| **mean of {mean.tasks} tasks** | **{mean.text(1)}** | {mean.interval(1)} | {episodes} | | |"


def _hardest(report: EvalReport) -> list[str]:
    """The tasks with the least success, where there are more than these."""
    rows = [row for row in report.tasks() if not row.returns_only]
    if len(rows) <= HARDEST:
        return []
    least = sorted(rows, key=lambda row: row.rate)[:HARDEST]
    return [f"Hardest: {', '.join(f'{row.task} ({row.measure.text()})' for row in least)}.", ""]


def _protocol(report: EvalReport) -> str:
    kinds = {
        "official": "One episode on each of the training goals.",
        "heldout": "One episode on each of the goals, none of which is in the training data or chose a checkpoint.",
        "ml45-like": "One episode on each goal of tasks that were not trained on, whose identity is hidden.",
    }
    return kinds[report.protocol.name] + (" The goal's position is hidden." if report.goal_hidden else "")


def _usage(run: Run, facts: CardFacts) -> list[str]:
    """A few lines of Python that play it."""
    task, name = run.spec.task_names[0], facts.name
    if facts.form == "run":
        code = [
            "import mtorl",
            "",
            f'policy = mtorl.load_policy("zoo:{name}")  # or this folder',
            f'policy.reset(task="{task}")',
            "action = policy.act(observation)",
        ]
        return ["## Use", "", "```python", *code, "```", "", f"`mtorl evaluate zoo:{name}` plays it.", ""]
    inputs = [it for it in facts.about["inputs"] if it != "task"]
    notes = [
        f"Inputs: {', '.join(f'`{key}` {value}' for key, value in facts.about['inputs'].items())}; "
        f"output: {facts.about['output']}. Tasks are numbered as in `policy.json`."
    ]
    if facts.about["context"]:
        notes.append(
            f"K is up to {facts.about['context']} steps, the newest last; the newest action is not looked at. "
            "Returns-to-go are what is left of `target_returns` in `policy.json` after the rewards so far, not scaled."
        )
    return ["## Use", "", "```python", *_code(facts.form, inputs), "```", "", *notes, ""]


def _code(form: str, inputs: list[str]) -> list[str]:
    arguments = ", ".join(inputs)
    if form == "torchscript":
        return [
            "import torch",
            "",
            'policy = torch.jit.load("policy.pt")',
            f"actions = policy({arguments}, torch.tensor(0))  # task 0; nothing of mtorl is needed",
        ]
    if form == "onnx":
        feed = ", ".join(f'"{name}": {name}' for name in inputs)
        return [
            "import numpy as np, onnxruntime",
            "",
            'policy = onnxruntime.InferenceSession("policy.onnx")',
            f'(actions,) = policy.run(None, {{{feed}, "task": np.array(0)}})  # task 0',
        ]
    return [
        "from safetensors.numpy import load_file",
        "",
        'tensors = load_file("policy.safetensors")  # every tensor that acting reads, by its name in the agent',
        "# header and policy.json: the agent's class and options, and which tensors have the task as their first axis",
    ]


def _data(run: Run) -> list[str]:
    lines = ["## Data", "", "| data set | origin | licence | sha256 of its manifest |", "|---|---|---|---|"]
    for entry in run.spec.data:
        facts = dict(facts_of(entry))
        origin, licence = facts.get("origin", "unknown"), facts.get("licence", "unknown")
        lines.append(f"| {entry['path']} | {origin} | {licence} | `{entry['sha256']}` |")
    spec = run.spec
    total = f"{sum(spec.episodes):,} episodes, {sum(spec.steps):,} steps of {len(spec.task_names)} tasks"
    facts_of_all = [it for entry in spec.data for it in facts_of(entry)]
    notes = [f"- {name}: {text}" for name, text in facts_of_all if name in ("note", "made by")]
    return [
        *lines,
        "",
        f"{total}; success in the data {sum(spec.success_rate) / len(spec.success_rate):.0%}.",
        *notes,
        "",
    ]


def _training(run: Run, facts: CardFacts) -> list[str]:
    machine, plain, parts = run.machine(), _plain(run), run.parts
    minutes = sum(Log(part.folder).minutes() for part in parts)
    _, source = run.policy(facts.checkpoint, facts.act_with)
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
    threads = f", {machine['threads']} threads" if "threads" in machine else ""
    size = run.parameters()
    models = f" in {len(parts)} models" if len(parts) > 1 else ""
    return [
        "## Training",
        "",
        f"- agent: {_class_of(plain['agent'])}, {size:,} trained parameters{models}; balancer "
        f"{_class_of(plain['balancer'])}, sharing {_class_of(plain['sharing'])}, seed {plain['seed']}",
        f"- checkpoint: {facts.checkpoint}, step {source.step:,}; sha256 `{source.sha256}`",
        f"- time: {minutes:.1f} minutes (other work on the machine counts) on {plain['device']}{threads}, "
        f"{machine['processors']} processors, {machine['platform'].split('-')[0]}",
        f"- versions: mtorl {machine['mtorl']}, Python {machine['python']}, {versions}; this card: mtorl {__version__}",
        "",
        "<details><summary>configuration</summary>",
        "",
        "```yaml",
        run.configuration.dump().rstrip(),
        "```",
        "",
        "</details>",
        "",
    ]


def _again(run: Run) -> list[str]:
    command = run.machine()["command"]
    steps = [f"mtorl train {shlex.join(command[2:])}"] if command[:2] == ["mtorl", "train"] else []
    folder = run.configuration.out if steps else "NEW_FOLDER"
    steps = steps or ["mtorl train --config config.yaml --out NEW_FOLDER  # the configuration above"]
    return ["## Reproduce", "", "```", *commands_for([run.spec]), *steps, f"mtorl evaluate {folder}", "```", ""]


def _limits(run: Run) -> list[str]:
    suite = run.spec.suite["class_path"].rsplit(".", 1)[-1]
    return [
        "## Limits",
        "",
        f"It was measured in {suite} as above and nowhere else: not on other tasks, goals, cameras or robots. "
        "Observations must have the layout, units and order of the suite's.",
    ]
