"""Policies by their names: trained runs, classes of others, and the two references, for collecting what they do."""

import difflib
import importlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.envs.base import ContextMode, Suite
from mtorl.envs.parcel import pack
from mtorl.envs.policies import ExpertPolicy, Policy, RandomPolicy
from mtorl.envs.protocol import Protocol, TaskVisibility
from mtorl.envs.recording import BehaviorPolicy

REFERENCES: dict[str, Callable[[Suite], Policy]] = {"expert": ExpertPolicy, "random": RandomPolicy}


def behavior_policy(
    policy: str | Path,
    suite: Suite | None = None,
    checkpoint: str = "last",
    act_with: str | None = None,
    noise: float = 0.0,
    task_identity: TaskVisibility = "shown",
    demonstrations: str | None = None,
    context: ContextMode = "exact",
) -> BehaviorPolicy:
    """A policy whose episodes are to be recorded by `mtorl collect`.

    Args:
        policy: Folder of a trained run; or the import path of a class or function that makes a policy of a suite, such
            as my_package.MyPolicy; or expert or random.
        suite: The tasks to record; a run knows its own.
        checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        act_with: Which policy of an agent that has several; by default what its configuration says.
        noise: Standard deviation of Gaussian noise on every dimension of the policy's actions.
        task_identity: Tell the policy which task it is in (shown), or not (hidden).
        demonstrations: A data set whose best episode of each task is shown to the policy.
        context: Agents that look at the last K steps do so at each step (exact), or begin again with half of them
            whenever they have seen K (anchored): faster, but not the same actions.

    Returns:
        The policy with its suite, for `mtorl.collect(it.suite, out, policy=it)`.

    Raises:
        InputError: There is none of that name, or it is not for the suite.
    """
    protocol = Protocol(task_identity=task_identity, demonstrations=demonstrations, context=context)
    name = os.path.normpath(policy)
    if (Path(name) / "config.yaml").exists():
        return _of_run(name, suite, checkpoint, act_with, noise, protocol)
    if checkpoint != "last" or act_with is not None:
        raise InputError(f"--checkpoint and --act_with are for runs, and there is none in {name}. Leave them out.")
    if suite is None:
        raise InputError(f"--policy {name} is no run and needs a suite: add --suite MetaWorld --suite.benchmark MT10.")
    made = REFERENCES[name](suite) if name in REFERENCES else _called(name, suite)
    source = {} if name in REFERENCES else {"sha256": pack(made).token}
    return BehaviorPolicy(made, suite, name, noise, protocol, source)


def _of_run(
    folder: str, suite: Suite | None, checkpoint: str, act_with: str | None, noise: float, protocol: Protocol
) -> BehaviorPolicy:
    from mtorl.runs.run import Run  # loads torch, which recording experts does not need

    run = Run(folder)
    policy, source = run.policy(checkpoint, run.unusual(act_with))
    suite = run.suite() if suite is None else suite
    for name in ("observation_dim", "action_dim"):
        expected, found = getattr(run.spec, name), getattr(suite, name)
        if expected != found:
            raise InputError(
                f"the run {run.folder} acts where {name} is {expected}; {type(suite).__name__} has {found}. Leave "
                "--suite out for the run's own suite."
            )
    known = {key: value for key, value in asdict(source).items() if value is not None}
    return BehaviorPolicy(policy, suite, folder, noise, protocol, known)


def _called(name: str, suite: Suite) -> Policy:
    """What the class or function of that import path makes of the suite."""
    maker = _imported(name)
    if not callable(maker):
        raise InputError(f"--policy {name} is {maker!r}; expected a class or function that makes a policy of a suite.")
    try:
        made = maker(suite)
    except TypeError as error:
        raise InputError(
            f"--policy {name} cannot be called with a suite: {error}. Expected a class or function of one argument."
        ) from error
    missing = [method for method in ("reset", "act") if not callable(getattr(made, method, None))]
    if missing or isinstance(made, type):
        raise InputError(
            f"--policy {name} makes {made!r}, which lacks {' and '.join(missing) or 'an instance'}; expected a policy: "
            "`reset(context)` begins a block of episodes, `act(observations, rewards)` returns actions [N, A]."
        )
    policy: Policy = made
    return policy


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(
            f"--policy {name} is neither the folder of a run, nor an import path such as my_package.MyPolicy, nor "
            f"{' or '.join(REFERENCES)}. Check the name."
        )
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the module may be a script
        raise InputError(
            f"--policy {name}: {module} cannot be imported: {error}. Install the package it lives in, or start from "
            "the folder of its file."
        ) from None
    if not hasattr(loaded, attribute):
        close = difflib.get_close_matches(attribute, dir(loaded), 1)
        hint = f" Did you mean {module}.{close[0]}?" if close else ""
        raise InputError(f"--policy {name}: {module} has no {attribute}.{hint}")
    return getattr(loaded, attribute)
