import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mtorl.commands.main import main
from mtorl.datasets.store import EpisodeStore
from mtorl.families import members
from mtorl.runs.plan import plan
from mtorl.runs.training import train

COMMANDS = [
    "demo",
    "completion",
    "collect",
    "info",
    "split",
    "filter",
    "merge",
    "train",
    "evaluate",
    "report",
    "conflicts",
    "ablate",
    "list",
]
SUITE = ["--suite", "PointReach", "--suite.tasks", "[towards-0, away-0]"]


def run(*arguments: str, code: int = 0, capsys: pytest.CaptureFixture) -> str:
    try:
        found = main(list(arguments))
    except SystemExit as error:
        found = int(error.code or 0)
    output = capsys.readouterr()
    assert found == code, output.err
    return output.out + output.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from jsonargparse import ArgumentParser

    parsers = []
    real = ArgumentParser.format_help
    monkeypatch.setattr(ArgumentParser, "format_help", lambda parser: (parsers.append(parser), real(parser))[1])
    text = run(command, "--help", capsys=capsys)
    assert text.startswith(f"usage: mtorl {command}") and "--config" in text and "--print_config" in text
    unexplained = [action.dest for action in parsers[0]._actions if not action.help]
    assert not unexplained
    assert len(parsers[0].description) > 30


def test_verification_builds_the_suite(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "data"
    run("collect", *SUITE, "--episodes", "2", "--out", str(data), "--workers", "0", "--quiet", "true", capsys=capsys)
    manifest = json.loads((data / "manifest.json").read_text())
    right = manifest["suite"]
    for suite, message in (
        ({**right, "class_path": "nowhere.Suite"}, "the suite 'nowhere.Suite' cannot be imported"),
        ({**right, "class_path": "mtorl.envs.base.Step"}, "is not a suite"),
        ({**right, "init_args": {"odd": 1}}, "PointReach cannot be built from"),
        ({**right, "init_args": {"tasks": ["away-3"]}}, "its suite PointReach has no tasks"),
    ):
        (data / "manifest.json").write_text(json.dumps({**manifest, "suite": suite}))
        assert main(["info", str(data)]) == 0
        capsys.readouterr()
        assert main(["info", str(data), "--verify"]) == 2
        found = capsys.readouterr()
        assert message in found.err and "verified" not in found.out


def test_a_damaged_checkpoint_ends_commands_with_code_2(train_options: dict, capsys: pytest.CaptureFixture) -> None:
    folder = Path(train(**train_options).folder)
    for content, message in ((b"", "it is empty"), (b"junk", "is no checkpoint of mtorl")):
        for file in (folder / "checkpoints").glob("*.pt"):
            file.write_bytes(content)
        for command in (
            ["evaluate", str(folder), "--goals", "1", "--quiet", "true"],
            ["train", "--resume", str(folder)],
        ):
            assert main(command) == 2
            assert message in capsys.readouterr().err


def test_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = ["--workers", "0", "--quiet", "true"]
    text = run(
        "collect", *SUITE, "--recipe", "expert", "--episodes", "6", "--out", "data/points", *quiet, capsys=capsys
    )
    assert "towards-0" in text and "100%" in text
    assert "verified" in run("info", "data/points", "--verify", capsys=capsys)
    options = ["--data", "[data/points]", "--agent.hidden", "[16]", "--schedule.steps", "20", "--evaluate_goals", "1"]
    for name, agent in (("bc", "BehaviorCloning"), ("bc2", "BehaviorCloning")):
        text = run(
            "train",
            "--agent",
            agent,
            *options,
            "--out",
            f"runs/{name}",
            "--seed",
            name[2:] or "0",
            *quiet,
            capsys=capsys,
        )
        assert "trained: runs/" in text
        text = run("evaluate", f"runs/{name}", "--goals", "3", *quiet, capsys=capsys)
        assert "mean of 2 tasks" in text and "95 % interval" in text
    for policy in ("expert", "random"):
        text = run("evaluate", "--policy", policy, *SUITE, "--goals", "3", *quiet, capsys=capsys)
        assert "runs/references" in text
    text = run("report", "runs/bc", "runs/bc2", capsys=capsys)
    assert "runs/report.html" in text
    content = json.loads(Path("runs/report.json").read_text())
    assert len(content["runs"]) == 2 and len(content["references"]) == 2
    machine = json.loads(Path("runs/bc/run.json").read_text())
    assert machine["command"][:4] == ["mtorl", "train", "--agent", "BehaviorCloning"]
    assert "trained: runs/bc" in run("train", "--resume", "runs/bc", capsys=capsys)


def test_print_config_is_a_config(store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    basic = ["--data", f"[{store.path}]", "--out", str(tmp_path / "run")]
    text = run(
        "train", *basic, "--agent", "DecisionTransformer", "--agent.width", "32", "--print_config", capsys=capsys
    )
    config = tmp_path / "c.yaml"
    config.write_text(text)
    again = run("train", "--config", str(config), "--print_config", capsys=capsys)
    assert again == text and "width: 32" in text


@pytest.mark.parametrize(
    "preset", sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_presets_are_valid(preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if preset.parent.name == "ablations":
        content = yaml.safe_load(preset.read_text())
        root = preset.parent.parent.parent
        for cell in plan(content["vary"], tmp_path):
            files = [f"--config={root / file}" for file in (content["base"], *cell.options.pop("config", []))]
            options = [f"--{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in cell.options.items()]
            run("train", *files, *options, "--out", "x", "--print_config", capsys=capsys)
        return
    assert "class_path" in run("train", "--config", str(preset), "--out", "x", "--print_config", capsys=capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "unknown command 'fly'; expected one of demo, collect"),
        (["info", "no/data"], "no data set in no/data: expected a file manifest.json there"),
        (["train", "--data", "[no/data]", "--out", "x"], "no data set in no/data"),
        (["train", "--data", "[d]", "--out", "x", "--agent.widht", "3"], "widht"),
        (["train", "--data", "[d]", "--out", "x", "--windows", "many"], "windows"),
        (["train", "--data", "[d]", "--out", "x", "--balancer", "Fairest"], "Fairest"),
        (["train", "--resume", "no/run"], "no run in no/run"),
        (["train", "--config", "no.yaml"], "no.yaml"),
        (["collect", *SUITE, "--out", "x", "--recipe", "best"], "recipe"),
        (["collect", "--out", "x"], "no suite was named: add --suite"),
        (["collect", *SUITE, "--out", "x", "--noise", "0.1"], "--noise: for --policy"),
        (["collect", *SUITE, "--out", "x", "--policy", "nobody"], "nobody is neither the folder of a run"),
        (["collect", "--suite", "PointReach", "--suite.tasks", "[fly]", "--out", "x"], "unknown tasks ['fly']"),
        (["collect", "--suite", "PointReach", "--suite.tasks", "[]", "--out", "x"], "list of tasks is empty"),
        (
            ["collect", "--suite", "MetaWorld", "--suite.benchmark", "MT99", "--out", "x"],
            "unknown Meta-World benchmark",
        ),
        (["collect", "--suite", "MetaWorld", "--suite.tasks", "[raech-v3]", "--out", "x"], "did you mean reach-v3"),
        (["collect", "--suite", "MetaWorld", "--suite.benchmark", "MT1", "--out", "x"], "--suite.tasks '[reach-v3]'"),
        (["evaluate"], "give either the folder of a run or --policy"),
        (["evaluate", "--policy", "expert"], "needs a suite"),
        (["evaluate", "no/run", "--policy", "expert"], "not both"),
        (["evaluate", "no/run"], "no run in no/run"),
        (["evaluate", "--policy", "expert", *SUITE, "--checkpoint", "best"], "are for runs"),
        (["evaluate", "--policy", "expert", *SUITE, "--seed", "-1"], "seed is -1"),
        (["evaluate", "--policy", "expert", *SUITE, "--workers", "-1"], "workers is -1"),
        (
            ["evaluate", "--policy", "expert", *SUITE, "--workers", "100000"],
            "workers is 100000; expected a number in [0,",
        ),
        (
            ["evaluate", "--policy", "expert", "--suite", "PointReach", "--suite.horizon", "0"],
            "error: horizon is 0; exp",
        ),
        (["evaluate", "--policy", "expert", "--suite", "MetaWorld", "--suite.benchmark", "x"], "error: unknown Meta-W"),
        (["evaluate", "--policy", "expert", "--suite", "Suite"], "option --suite: Suite is abstract; expected one of"),
        (
            ["group", "no/run", "--groups", "2", "--out", "g", "--grouper", "TaskGrouper"],
            "TaskGrouper is abstract; exp",
        ),
        (["group", "no/run", "--groups", "2", "--out", "g.svg"], "--out is g.svg, the name of the picture; expected"),
        (
            ["group", "no/run", "--groups", "2", "--out", "g", "--grouper", "DMTG", "--method", "GradTAG"],
            "--method and --grouper are two names of one option",
        ),
        (["evaluate", "--policy", "expert", *SUITE, "--goals", "99"], "50 goals per task; found goals=99"),
        (["report", "no/run"], "no run in no/run"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_input_ends_with_a_message_and_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    text = run(*arguments, code=2, capsys=capsys)
    assert message in text and "Traceback" not in text
    assert not list(tmp_path.iterdir()), "something was written"


@pytest.mark.parametrize("family", ["agents", "balancers", "groupers", "networks", "sharing", "suites"])
def test_list_shows_every_member(family: str, capsys: pytest.CaptureFixture) -> None:
    found = members(family)
    text = run("list", family, capsys=capsys)
    for member in found:
        assert member.name in text and len(member.line) > 15, member
    if family == "balancers":
        assert {member.kind for member in found} == {
            "loss weighting",
            "gradient aggregation",
            "gradient wrapper",
            "matrix aggregation",
            "double sampling",
            "preference scalarisation",
            "own step",
        }
        assert all(member.needs for member in found)
        own = {"Equal", "FixedWeights", "Layerwise", "Prescaled", "Rescaled", "Reused", "Subsampled"}
        assert all(re.search(r"\d{4}$", member.paper) for member in found if member.name not in own), found


@pytest.mark.slow
def test_ctrl_c_in_a_collection(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mtorl", "collect", "--suite", "PointReach", "--suite.horizon", "2000"]
    command += ["--recipe", "random", "--episodes", "60", "--out", "my data", "--workers", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("my data/parts/*.npz")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be interrupted"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and "--out 'my data' --workers 1`" in message and "Traceback" not in message


@pytest.mark.slow
@pytest.mark.parametrize("command", ["collect", "train", "evaluate"])
def test_a_full_disk_ends_with_code_2(command: str, store: EpisodeStore, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the same way."""
    arguments = {
        "collect": [*SUITE, "--recipe", "random", "--episodes", "300", "--out", "out", "--workers", "0"],
        "train": ["--data", f"[{store.path}]", "--out", "out", "--schedule.steps", "5", "--evaluate_goals", "1"],
        "evaluate": ["--policy", "random", *SUITE, "--out", "out", "--workers", "0", "--stop_at_success", "true"],
    }[command]
    limit = {"collect": 300_000, "train": 50_000, "evaluate": 3_000}[command]
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from mtorl.commands.main import main; sys.exit(main(sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, command, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2 and "error: could not write" in result.stderr, result.stderr[-400:]


@pytest.mark.slow
def test_ctrl_c_in_an_evaluation_keeps_finished_episodes(tmp_path: Path) -> None:
    long_suite = ["--suite", "PointReach", "--suite.tasks", "[towards-0]", "--suite.horizon", "1500"]
    command = [
        sys.executable,
        "-m",
        "mtorl",
        "evaluate",
        "--policy",
        "random",
        *long_suite,
        "--workers",
        "1",
        "--goals",
        "40",
    ]
    process = subprocess.Popen([*command, "--out", "a"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("a/*.partial")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be interrupted"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and "continue with the same command, `mtorl evaluate --policy random" in message
    assert "Traceback" not in message
    assert list(tmp_path.glob("a/*.partial")) and not list(tmp_path.glob("a/*.json"))
    for out in ("a", "b"):
        subprocess.run([*command, "--out", out, "--quiet", "true"], cwd=tmp_path, check=True, capture_output=True)
    (one,), (two,) = tmp_path.glob("a/*"), tmp_path.glob("b/*")
    assert one.read_bytes() == two.read_bytes()


def test_no_arguments_show_the_commands(capsys: pytest.CaptureFixture) -> None:
    text = run(capsys=capsys)
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert run("--version", capsys=capsys).count(".") == 2


def test_the_installed_command_and_the_module() -> None:
    for command in ([str(Path(sys.executable).parent / "mtorl")], [sys.executable, "-m", "mtorl"]):
        result = subprocess.run([*command, "info", "no/data"], capture_output=True, text=True)
        assert result.returncode == 2 and result.stderr.startswith("error: no data set")


@pytest.mark.slow
def test_classes_of_the_current_folder_and_a_closed_pipe(store: EpisodeStore, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from mtorl.trainers.balancers import Equal\n\n\nclass Mine(Equal):\n    pass\n")
    command = str(Path(sys.executable).with_name("mtorl"))
    options = "--agent.hidden [8] --schedule.steps 3 --evaluate_goals 1 --out run --balancer mine.Mine --workers 1"
    result = subprocess.run(
        [command, "train", "--data", str(store.path), *options.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0 and "trained: run" in result.stdout, result.stderr
    shell = f"set -o pipefail; {command} info {store.path} | true"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert result.returncode in (0, 141) and not result.stderr, result


def test_a_broken_configuration_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "bad.yaml").write_text("optimizer: {lr: [1}\n")
    text = run("train", "--config", str(tmp_path / "bad.yaml"), code=2, capsys=capsys)
    assert "bad.yaml" in text and "unicode string" not in text


def test_a_loss_that_is_not_finite_ends_with_code_2(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = "--optimizer.lr 1e30 --optimizer.clip 0 --optimizer.warmup 0 --schedule.steps 50 --workers 0"
    out = ["--out", str(tmp_path / "run"), "--agent.hidden", "[8]", "--quiet", "true"]
    text = run("train", "--data", str(store.path), *options.split(), *out, code=2, capsys=capsys)
    assert "not finite at step" in text or "norm is" in text
    assert "lower --optimizer.lr" in text.replace("Lower", "lower")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.2, 0.6, 1.5])
def test_ctrl_c_in_a_terminal_at_any_moment_is_quiet(tmp_path: Path, delay: float) -> None:
    """A terminal sends the signal to the workers too, also while they start."""
    command = [sys.executable, "-m", "mtorl", "collect", "--suite", "PointReach", "--suite.horizon", "5000"]
    command += ["--recipe", "random", "--episodes", "200", "--out", "data", "--workers", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "data/collect.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=delay)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and "continue with the same command" in message and "Traceback" not in message


@pytest.mark.slow
def test_closed_standard_streams(store: EpisodeStore, tmp_path: Path) -> None:
    """Files that are opened later would take their numbers, and be written into."""
    command = f"{sys.executable} -m mtorl"
    train = f"{command} train --data {store.path} --out run --agent.hidden [8] --schedule.steps 3 --evaluate_goals 1"
    collect = f"{command} collect {' '.join(SUITE)} --episodes 1 --workers 0 --out "
    for line, closed, code in (
        (f"{train} --workers 1", "<&- >&- 2>&-", 0),
        (f"{collect} 'one'", ">&-", 0),
        (f"{collect} 'two'", "2>&-", 0),
        (f"{command} info no/data", ">&-", 2),
        (f"{command} info no/data", "2>&-", 2),
    ):
        line = line.replace("[", "'[").replace("]", "]'")
        result = subprocess.run(["bash", "-c", f"{line} {closed}"], capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == code and "Traceback" not in result.stderr, result.stderr
    assert list((tmp_path / "run/checkpoints").iterdir())
    assert all((tmp_path / name / "manifest.json").exists() for name in ("one", "two"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list", "balancers"]], ids=" ".join)
def test_standard_output_on_a_full_disk(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "mtorl", *arguments]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2 and result.stderr.startswith("error: "), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "an allocation failed"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: x"),
            "can't alloc",
        ),
    ],
)
def test_memory_that_does_not_suffice(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr("mtorl.commands.train.run", fail)
    text = run("train", code=2, capsys=capsys)
    assert text.startswith("error: the memory does not suffice") and message in text and "--windows" in text


def test_data_sets_are_split_filtered_merged_and_shared(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    text = run("split", str(store.path), "--share", "0.5", "--out", "one", "two", capsys=capsys)
    assert "made by: split of" in text and "part second" in text
    run("filter", "two", "--success_only", "--min-return-quantile", "0.5", "--out", "good", capsys=capsys)
    run("merge", "one", "good", "--out", "merged", capsys=capsys)
    text = run("info", "merged", "--verify", capsys=capsys)
    assert "origin: recorded by mtorl" in text and "licence: unknown" in text
    assert "2 of 2 parents are still there and unchanged" in text
    assert "min_return_quantile is 2" in run(
        "filter", "one", "--min_return_quantile", "2", "--out", "x", code=2, capsys=capsys
    )
    options = ["--agent.hidden", "[8]", "--schedule.steps", "5", "--schedule.evaluate_every", "0", "--windows", "2"]
    options += ["--data", "one", "good", "--shares", "3", "1", "--threads", "1", "--quiet", "--out", "trained"]
    run("train", *options, capsys=capsys)
    assert yaml.safe_load(Path("trained/config.yaml").read_text())["shares"] == [3.0, 1.0]
    options[options.index("--shares") + 2 : options.index("--threads")] = []
    assert "shares are [3.0]; expected 2" in run("train", *options[:-1], "x", code=2, capsys=capsys)


def test_tasks_without_success_show_none(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "data"
    run("collect", *SUITE, "--episodes", "2", "--out", str(data), "--workers", "0", "--quiet", capsys=capsys)
    manifest = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps(manifest | {"returns_only": ["away-0"]}))
    rows = {line.split()[1]: line for line in run("info", str(data), capsys=capsys).splitlines() if "│" in line}
    assert "%" not in rows["away-0"] and "100%" in rows["towards-0"] and "100%" in rows["2"]
    (data / "manifest.json").write_text(json.dumps(manifest | {"returns_only": ["away-0", "towards-0"]}))
    assert "%" not in run("info", str(data), capsys=capsys)
