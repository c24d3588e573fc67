"""Acting without the task's identity, and in tasks that were not trained on: ML45 of Meta-World, 45 tasks and five.

    python benchmarks/task_free.py        # about half an hour; an interrupted one continues

Every run plays its own 45 tasks on held-out goals, told which one and not told, and the five others. Where a
demonstration is shown, it is the best recorded episode of the task, on a training goal.
"""

from pathlib import Path
from typing import Any

from common import save

from mtorl.envs import MetaWorld
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.groupers import AgreementKMeans

FOLDER = Path("runs/task_free")
SEEN, UNSEEN, GROUPS, EPISODES = "data/ml45_expert", "data/ml45_unseen", 5, 20
BC, PROMPTS = "configs/bc_ml45.yaml", "configs/prompt_dt_ml45.yaml"


def finished(name: str, config: str, **options: Any) -> Run:
    """A trained run, continued if it was interrupted."""
    folder = FOLDER / name
    if (folder / "config.yaml").exists():
        return train(resume=folder)
    return train(config, out=folder, **options)


def played(run: Run, protocol: Protocol) -> EvalReport:
    """An evaluation, read if it is there and of the same weights."""
    path = run.report_path(protocol)
    if path.exists():
        found = EvalReport.load(path)
        if found.source.sha256 == run.checkpoints().read()[1]:
            return found
    return run.evaluate(protocol)


def summary(report: EvalReport) -> dict[str, Any]:
    """Mean success and its interval, and the single tasks where they are few."""
    found: dict[str, Any] = {"mean": round(report.mean_success, 4)}
    found["interval"] = [round(value, 4) for value in report.mean_interval()]
    if len(report.task_names) <= 5:
        found["tasks"] = {row.task: round(row.rate, 3) for row in report.tasks()}
    return found


def main() -> None:
    """Trains, plays, and writes results/task_free.json."""
    suite = MetaWorld("ML45")
    collect(suite, SEEN, "expert", episodes=EPISODES)
    collect(suite.unseen(), UNSEEN, "expert", episodes=5)
    runs = {"Shared": finished("shared", BC)}
    path = FOLDER / "groups.json"
    if not path.exists():
        runs["Shared"].group(AgreementKMeans(), GROUPS).save(path)
    masks = {"class_path": "GroupMasks", "init_args": {"grouping": str(path)}}
    runs["RandomMasks"] = finished("random", BC, sharing="RandomMasks")
    runs["HarmonyMasks, Fisher"] = finished("harmony", BC, sharing="HarmonyMasks")
    runs[f"GroupMasks, {GROUPS} groups"] = finished("groups", BC, sharing=masks)
    runs["PromptDecisionTransformer"] = finished("prompts", PROMPTS)
    rows = {}
    for name, run in runs.items():
        prompted, gated = name.startswith("Prompt"), name.startswith("Group")
        ways = {"told": Protocol(goals=5, stop_at_success=True)}
        if not prompted:
            ways["not told"] = Protocol(goals=5, stop_at_success=True, task_identity="hidden")
            ways["unseen tasks"] = Protocol("ml45-like", 50, stop_at_success=True)
        if prompted or gated:
            ways["shown a demonstration"] = Protocol(
                goals=5, stop_at_success=True, task_identity="hidden", demonstrations=SEEN
            )
            ways["unseen tasks, shown a demonstration"] = Protocol(
                "ml45-like", 50, stop_at_success=True, demonstrations=UNSEEN
            )
        rows[name] = {way: summary(played(run, protocol)) for way, protocol in ways.items()}
    save("task_free", {"tasks": len(suite.task_names), "episodes_per_task": EPISODES, "rows": rows})


if __name__ == "__main__":
    main()
