"""A run as a small folder that can be played and reported, but not trained on: for others, and for the zoo."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import yaml

from mtorl import InputError
from mtorl.agents import Agent
from mtorl.envs.protocol import ProtocolName
from mtorl.envs.results import EvalReport
from mtorl.files import write_atomically
from mtorl.runs.members import GROUPING, folder_of
from mtorl.runs.run import Run
from mtorl.trainers.checkpoint import CheckpointFolder

DESCRIPTIONS = ("data_spec.json", "run.json", GROUPING, "log.jsonl", "config.yaml")
"""Files of a run that are copied as they are; the configuration comes last."""


def pack_run(run: Run, folder: Path, name: str, checkpoint: str = "last") -> None:
    """Writes what of a run is needed to play and report it.

    Its only checkpoint holds what acts; the kept evaluations of that checkpoint come along, as its own.

    Args:
        run: The run.
        folder: Where to.
        name: What the folder will be called.
        checkpoint: `last`, `best` on training goals, or a step.
    """
    for number, part in enumerate(run.parts):
        into = folder / folder_of(number) if run.per_group else folder
        _pack_checkpoint(part, into, checkpoint)
        _copy(part.folder, into)
    if run.per_group:
        _copy(run.folder, folder)
    packed = Run(folder)
    for report in evaluations(run, checkpoint):
        digest = packed.digest()
        source = replace(report.source, checkpoint="last", sha256=digest)
        assert report.path is not None
        file = folder / "evaluations" / report.path.name.replace(f"-{checkpoint}-", "-last-", 1)
        replace(report, source=source, policy=packed.named(source, name)).save(file)


def evaluations(run: Run, checkpoint: str = "last") -> list[EvalReport]:
    """All kept evaluations of a checkpoint as it is now, those with most goals first of each protocol."""
    found: list[EvalReport] = []
    for protocol in get_args(ProtocolName):
        try:
            found += run.reports(protocol, checkpoint)
        except InputError:
            continue  # it has none
    return found


def _pack_checkpoint(run: Run, folder: Path, checkpoint: str) -> None:
    state, _ = run.checkpoints().read(checkpoint)
    agent: Agent = run.trained(checkpoint)[0]
    agent.strip()
    state |= {"agent": agent.state_dict(), "balancers": {}, "optimizers": {}, "sampler": {}, "probe": {}}
    step = state.pop("step")
    CheckpointFolder(folder / "checkpoints").save(step, {key: it for key, it in state.items() if key != "schema"})


def _copy(source: Path, target: Path) -> None:
    for name in DESCRIPTIONS:
        path = source / name
        if path.is_file():
            content = path.read_bytes()
            if name == "config.yaml" and (whole := yaml.safe_load(content)).pop("tracker", None) is not None:
                content = yaml.safe_dump(whole, sort_keys=False).encode()  # others' results are not the tracker's
            write_atomically(target / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
