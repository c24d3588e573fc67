"""What policies are measured against: the scripted expert and random actions."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple

from mtorl.envs.base import Suite
from mtorl.envs.engines import open_pool
from mtorl.envs.evaluator import evaluate
from mtorl.envs.policies import ExpertPolicy, Policy, RandomPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport

ReferenceName = Literal["expert", "random"]


class References(NamedTuple):
    """The two ends of the return-normalised score, played as the policies were that they judge."""

    expert: EvalReport
    random: EvalReport

    def scores(self, report: EvalReport) -> dict[str, float]:
        """Of each task: 0 if the policy earns what random actions earn, 1 if it earns what the expert does.

        The mean of (return - random) / (expert - random). Tasks in which the expert earns no more than random actions
        have no score.
        """
        returns = [{row.task: row.mean_return for row in it.tasks()} for it in (report, *self)]
        return {
            task: (mine - returns[2][task]) / (returns[1][task] - returns[2][task])
            for task, mine in returns[0].items()
            if returns[1][task] > returns[2][task]
        }


def evaluate_references(
    suite: Suite, protocol: Protocol, folder: Path, workers: int = 2, quiet: bool = False
) -> References:
    """Plays both, see `evaluate_reference`; reads those that this version of the suite has played already."""

    def one(policy: ReferenceName) -> EvalReport:
        path = _path(policy, suite, protocol, folder)
        if path.exists() and (found := EvalReport.load(path)).versions == suite.versions():
            return found
        return evaluate_reference(policy, suite, protocol, folder, workers, quiet)

    return References(one("expert"), one("random"))


def evaluate_reference(
    policy: ReferenceName,
    suite: Suite,
    protocol: Protocol,
    folder: Path,
    workers: int = 2,
    quiet: bool = False,
) -> EvalReport:
    """Plays a reference policy and keeps its report, named after policy, suite, protocol and a hash of their settings.

    Args:
        policy: Which one.
        suite: The tasks; a protocol for unseen tasks plays those that do not belong to them.
        protocol: How to play.
        folder: Where the report goes.
        workers: Processes that play episodes.
        quiet: Show no progress.

    Returns:
        The report; `path` is its file.
    """
    played, path = protocol.plays(suite), _path(policy, suite, protocol, folder)
    kind: Policy = ExpertPolicy(played) if policy == "expert" else RandomPolicy(played)
    with open_pool(workers) as pool:
        return evaluate(kind, suite, protocol, pool, policy, out=path, quiet=quiet)


def _path(policy: ReferenceName, suite: Suite, protocol: Protocol, folder: Path) -> Path:
    played = protocol.plays(suite)
    settings = json.dumps([played.describe(), asdict(protocol)], sort_keys=True)
    tag = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return folder / f"{policy}-{type(suite).__name__}-{len(played.task_names)}-tasks-{protocol.name}-{tag}.json"
