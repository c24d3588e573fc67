"""The command lines of the README and of the site are run, one after the other, on a small suite and for few steps."""

from pathlib import Path

import numpy as np
import pytest
from pages import DOCS, ROOT, blocks, commands, name_of, pages

from mtorl.commands.main import main
from mtorl.datasets.store import EpisodeStore

TASKS = {"reach-v3": "towards-0", "push-v3": "away-0"}
FEW = ["towards-0", "towards-1", "away-0", "away-1"]
FIRST = [
    *("README.md", "docs/commands/collect.md", "docs/commands/train.md", "docs/commands/masks.md"),
    *("docs/guides/data-sets.md", "docs/guides/recording.md", "docs/guides/in-and-out.md"),
]
"""Pages that make what others use, in their order."""
ELSEWHERE = {
    **dict.fromkeys(
        ["demo", "evaluate mtorl-demo", "evaluate pcgrad", "report mtorl-demo"], "tests/commands/test_demo.py"
    ),
    "train --config mtorl-demo": "tests/commands/test_demo.py",
    **dict.fromkeys(["evaluate zoo:", "export zoo:"], "tests/runs/test_zoo.py"),
    **dict.fromkeys(
        [
            "train --config configs/bc_mt10.yaml --tracker",
            "train --tracker.help",
            "train --data data/points --out runs/points --tracker",
        ],
        "tests/trainers/trackers/test_trackers.py",
    ),
    "export runs/bc --format onnx": "tests/runs/test_portable.py",
    "import d4rl": "tests/datasets/test_d4rl.py",
    "import minari": "tests/datasets/test_minari.py",
    "import lerobot": "tests/datasets/test_lerobot.py",
    "import harmodt": "tests/datasets/test_harmodt.py",
    "export minari": "tests/datasets/test_minari.py",
    "import npz antmaze": "tests/datasets/test_npz.py",
    "ablate": "tests/runs/test_sweep.py",
    "train --data data/mt10_expert data/cheetah --union": "tests/runs/test_union.py",
    "collect --suite Union": "tests/runs/test_union.py",
    "collect --policy my_package.MyPolicy": "tests/runs/test_collecting.py",
    "evaluate --policy random --suite AntDir": "tests/envs/test_gymnasium.py",
    "evaluate runs/velocities": "tests/envs/test_gymnasium.py",
    "evaluate runs/prompts --protocol ml45-like": "tests/trainers/test_policy.py",
}
"""What needs files of others or minutes, and where what it calls is tested."""


RUNS = {
    "groups": "--agent.task_identity none",
    "dt": "--agent DecisionTransformer --agent.width 16",
    "prompts": "--agent PromptDecisionTransformer --agent.width 16",
}
"""Runs that pages take for granted, beside those for single tasks."""


def _small(words: list[str]) -> list[str]:
    """The same command on the small suite, and short."""
    line = " ".join(words).replace(
        "--suite MetaWorld --suite.benchmark MT10", f"--suite PointReach --suite.tasks {' '.join(FEW)}"
    )
    line = line.replace("--suite MetaWorld", "--suite PointReach")
    for long, short in TASKS.items():
        line = line.replace(long, short)
    kept = line.split(" ") if "{" not in line else words
    more = {
        "collect": ["--episodes", "2", "--workers", "0", "--quiet", "true"],
        "train": ["--schedule.steps", "4", "--schedule.evaluate_every", "0", "--windows", "4", "--workers", "0"],
        "evaluate": ["--goals", "1", "--workers", "0"],
        "conflicts": ["--batches", "2"],
        "film": ["--out", f"films-{len(words)}", "--format", "gif"],
    }
    if words[0] == "train" and "--resume" not in words and "--data" not in words:
        kept += ["--data", "data/mt10_expert"]
    if words[0] == "evaluate" and "--recorded" in words:
        return kept
    return [*kept, *more.get(words[0], [])]


def _prepare() -> None:
    """What pages take for granted."""
    suite = ["--suite", "PointReach", "--suite.tasks", *FEW]
    quiet = ["--episodes", "4", "--workers", "0", "--quiet", "true"]
    assert main(["collect", *suite, "--recipe", "replay", "--out", "data/mt10_replay", *quiet]) == 0
    assert main(["collect", *suite, "--out", "data/mt10_expert", *quiet]) == 0
    assert main(["collect", *suite, "--split", "heldout", "--out", "data/mt10_heldout", *quiet]) == 0
    short = ["--data", "data/mt10_expert", "--schedule.steps", "4", "--schedule.evaluate_every", "0", "--quiet", "true"]
    for task in FEW:
        same = ["--config", "configs/bc_mt10.yaml", "--windows", "4", "--workers", "0", "--statistics", "data"]
        assert main(["train", *same, *short, "--tasks", task, "--out", f"runs/single/{task}"]) == 0
    for name, options in RUNS.items():
        assert main(["train", *options.split(), *short, "--out", f"runs/{name}"]) == 0
        if name != "prompts":
            assert main(["evaluate", f"runs/{name}", "--goals", "1", "--workers", "0", "--quiet", "true"]) == 0
    store = EpisodeStore("data/mt10_expert")
    for folder, task in (
        ("logs/towards-0", "towards-0"),
        ("logs/away-0", "away-0"),
        ("logs/run", FEW[0]),
        ("logs/walk", FEW[2]),
    ):
        Path(folder).mkdir(parents=True)
        names = (
            ("obs", "actions", "reward")
            if folder in ("logs/run", "logs/walk")
            else ("observations", "actions", "rewards")
        )
        episode = next(store.episode(number) for number in range(len(store)) if store.episode(number).task == task)
        values = (episode.observations[:-1], episode.actions, episode.rewards)
        np.savez(f"{folder}/0.npz", **dict(zip(names, values, strict=True)))


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.simulator
def test_what_pages_show_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    _prepare()
    order = sorted(pages(), key=lambda page: FIRST.index(name_of(page)) if name_of(page) in FIRST else len(FIRST))
    faults = []
    done = {"collect --suite MetaWorld --suite.benchmark MT10 --recipe expert --episodes 40 --out data/mt10_expert"}
    done.add("collect --suite MetaWorld --suite.benchmark MT10 --episodes 20 --split heldout --out data/mt10_heldout")
    for page in order:
        for words in commands(page) if DOCS / "extend" not in page.parents else ():
            line = " ".join(words)
            if line in done or any(line.startswith(start) for start in ELSEWHERE):
                continue
            done.add(line)
            try:
                code = main(_small(words))
            except SystemExit as error:
                code = int(error.code or 0)
            output = capsys.readouterr()
            if code:
                faults.append(
                    f"{name_of(page)}: mtorl {line}\n    as {' '.join(_small(words))}\n    {output.err.strip()}"
                )
    assert not faults, "\n".join(faults)
    for page in sorted((DOCS / "formats").glob("*.md")):
        for block in blocks(page):
            if block.title:
                exec(compile(block.code, name_of(page), "exec"), {})


def test_what_is_run_elsewhere_is_there() -> None:
    assert all((ROOT / name).exists() for name in ELSEWHERE.values())
