"""The reference rows of every comparison: the scripted expert and random actions."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from mtorl.envs.base import ExpertPolicy, Policy, RandomPolicy, Suite
from mtorl.envs.evaluator import EvalReport, Protocol, evaluate
from mtorl.envs.workers import WorkerPool


def evaluate_reference(
    policy: Literal["expert", "random"],
    suite: Suite,
    protocol: Protocol,
    folder: Path,
    workers: int = 2,
    quiet: bool = False,
) -> tuple[EvalReport, Path]:
    """Plays a reference policy and keeps its report, named after policy, suite, protocol and a hash of their settings.

    Args:
        policy: Which one.
        suite: The tasks; a protocol for unseen tasks plays those that do not belong to them.
        protocol: How to play.
        folder: Where the report goes.
        workers: Processes that play episodes.
        quiet: Show no progress.

    Returns:
        The report and its file.
    """
    played = suite.unseen() if protocol.unseen_tasks else suite
    kind: Policy = ExpertPolicy(played) if policy == "expert" else RandomPolicy(played)
    settings = json.dumps([played.describe(), asdict(protocol)], sort_keys=True)
    tag = hashlib.sha256(settings.encode()).hexdigest()[:8]
    name = f"{policy}-{type(suite).__name__}-{len(played.task_names)}-tasks-{protocol.name}-{tag}"
    path = folder / f"{name}.json"
    with WorkerPool(workers) as pool:
        return evaluate(kind, suite, protocol, pool, policy, out=path, quiet=quiet), path
