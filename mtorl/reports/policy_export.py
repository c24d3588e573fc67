"""Policies given away: files that need nothing of ours, or a run that can be played, each with a card."""

from pathlib import Path
from typing import Literal

from mtorl import InputError, checks
from mtorl.datasets.staging import new_store
from mtorl.files import read_json, write_atomically
from mtorl.reports.card import CardFacts, model_card
from mtorl.runs.packing import pack_run
from mtorl.runs.policy_files import write_policy
from mtorl.runs.run import Run
from mtorl.runs.zoo import write_sums

Format = Literal["safetensors", "torchscript", "onnx", "run"]


def export_policy(
    run: str | Path | Run,
    out: str | Path,
    format: Format = "safetensors",
    checkpoint: str = "last",
    act_with: str | None = None,
    licence: str | None = None,
) -> Path:
    """Writes the policy of a run so that it can be used elsewhere: normaliser, masks and hidden goals are inside.

    Args:
        run: Folder of a trained run.
        out: A new folder, for the file, `policy.json` (names of tasks and inputs) and a model card, `README.md`.
        format: safetensors (every tensor that acting reads, by name), torchscript (a module that torch alone runs),
            onnx (likewise, for other runtimes; needs the extra onnx), or run (a small run that `mtorl evaluate` and
            `load_policy` open, with its kept evaluations).
        checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        act_with: Which policy of an agent that has several; by default what its configuration says.
        licence: Of the weights, for the card, as the Hugging Face hub spells it (mit, apache-2.0).

    Returns:
        The folder.

    Raises:
        InputError: Something is in the way, or the policy has no such form.
    """
    checks.one_of("format", format, Format)
    opened, target = Run(run), Path(out)
    act_with = opened.unusual(act_with)
    if format == "run" and act_with is not None:
        raise InputError(
            f"a run acts with what its configuration says; found act_with={act_with}. Leave it out and say it to "
            "`mtorl evaluate`, or choose another format."
        )
    with new_store(target) as folder:
        if format == "run":
            _export_run(opened, folder, CardFacts(target.name, format, {}, "last", licence), checkpoint)
            return target
        write_policy(opened, folder, format, checkpoint, act_with)
        about = read_json(folder / "policy.json", "description of the policy")
        facts = CardFacts(opened.folder.name, format, about, checkpoint, licence, act_with)
        _write_card(folder, model_card(opened, facts))
    return target


def _export_run(run: Run, folder: Path, facts: CardFacts, checkpoint: str) -> None:
    pack_run(run, folder, facts.name, checkpoint)
    _write_card(folder, model_card(Run(folder), facts))
    write_sums(folder)


def _write_card(folder: Path, text: str) -> None:
    write_atomically(folder / "README.md", lambda file: file.write(text.encode()))
