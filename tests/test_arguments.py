import importlib
import inspect
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings, strategies
from jsonargparse import get_loader

from mtorl import InputError
from mtorl.agents import Agent, BehaviorCloning
from mtorl.agents.networks import Backbone
from mtorl.datasets.spec import DataSpec
from mtorl.documents import dump_yaml
from mtorl.families import FAMILIES, members
from mtorl.runs.configuration import Configuration, command_line, train_parser
from mtorl.trainers.balancers import Balancer
from mtorl.trainers.sharing import Sharing


class Own(BehaviorCloning):
    """Shares argument names with the default agent, with other defaults."""

    def __init__(self, spec: DataSpec, clip: float = 9.0, hidden: tuple[int, ...] = (7,)) -> None:
        super().__init__(spec, hidden, clip=clip)


class Untyped(BehaviorCloning):
    """Cannot be described by a configuration."""

    def __init__(self, spec, size: int = 3) -> None:  # type: ignore[no-untyped-def]
        super().__init__(spec, [size])


def parse(*arguments: str) -> dict:
    return Configuration.parse([*arguments, "--data=d", "--out=o"]).plain


def test_another_class_starts_from_its_own_defaults() -> None:
    assert parse("--agent", f"{__name__}.Own")["agent"]["init_args"] == {"clip": 9.0, "hidden": [7]}
    assert parse("--agent", f"{__name__}.Own", "--agent.clip", "2")["agent"]["init_args"] == {
        "clip": 2.0,
        "hidden": [7],
    }
    assert parse("--agent.clip", "2")["agent"]["init_args"]["hidden"] == [400, 400, 400]
    assert parse()["agent"]["class_path"] == "mtorl.agents.BehaviorCloning"


def test_a_constructor_without_types_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(InputError, match=r"Untyped: the parameter spec of its constructor has no type"):
        parse("--agent", f"{__name__}.Untyped")


def test_options_beat_files_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("windows: 3\nseed: 4\n")
    (tmp_path / "b.yaml").write_text("seed: 5\n")
    config = parse("--windows", "9", "--config", str(tmp_path / "a.yaml"), f"--config={tmp_path / 'b.yaml'}")
    assert (config["windows"], config["seed"]) == (9, 5)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--data", "a"], ["a"]),
        (["--data", "a", "b", "--seed", "1"], ["a", "b"]),
        (["--data=a"], ["a"]),
        (["--data", "[a, b]"], ["a", "b"]),
        (["--data", "strange, name"], ["strange, name"]),
    ],
)
def test_lists_take_words(words: list[str], values: list[str]) -> None:
    assert Configuration.parse(["--out", "o", *words]).plain["data"] == values


def test_a_list_option_without_a_value() -> None:
    with pytest.raises(InputError, match=r"--tasks"):
        parse("--tasks")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "3"], r"unrecognized arguments: --steps 3\. Did you mean --schedule.steps instead of --steps\?"),
        (["--lr", "3"], r"Did you mean --optimizer.lr"),
        (["--agent", "DecisionTransfomer"], r"unknown class DecisionTransfomer.*Did you mean DecisionTransformer\?"),
        (["--balancer", "Equals"], r"There are \d+ of them, see `mtorl list`.*Did you mean Equal\?"),
        (["--agent.widht", "3"], r"--agent: Option 'widht' is not accepted\. .*BehaviorCloning takes hidden"),
        (["--agent", "IQL", "--agent.discuont", "3"], r"IQL takes expectile, .*, discount, .*Did you mean discount\?"),
        (["--agent", "TD3BC", "--agent.distribution", "gaussian"], r"not accepted\. (?!.*Did you mean)"),
        (["--agent.network", "PaCo", "--agent.network.componets", "3"], r"PaCo takes .*Did you mean components\?"),
        (
            ["--agent.network", "PaCoo"],
            r"^option --agent.network: unknown class PaCoo\. There are CARE, .*MOORE, .*Did you mean PaCo\?",
        ),
        (["--agent", "IQL", "--agent.actor", "FilM"], r"option --agent.actor: unknown class FilM\..*mean FiLM\?"),
        (["--seed", "x"], r"--seed: expected int, found x\. `mtorl train --help` lists the options\."),
        (
            ["--agent.hidden", "null"],
            r"^option --agent.hidden: found null; leave it out, or give a value",
        ),
        (["--agent", "IQL", "--agent.discount", "null"], r"^option --agent.discount: found null"),
        (["--order", "any"], r"--order: expected value of 'random', 'round_robin', .*found any"),
        (["--agent", "no_such_module.Agent"], r"No module named 'no_such_module'"),
    ],
)
def test_errors_are_one_message_with_a_remedy(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse(*arguments)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_options_that_may_be_null() -> None:
    config = parse("--agent", "IQL", "--agent.actor", "null", "--tasks", "null")
    assert config["agent"]["init_args"].get("actor") is config.get("tasks") is None


def test_an_incomplete_configuration_can_be_printed(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train_parser().parse_args(["--agent", "DecisionTransformer", "--print_config"])
    printed = capsys.readouterr().out
    assert "data: []" in printed and "DecisionTransformer" in printed and "attention_heads" in printed


def test_dashes_in_the_names_of_options() -> None:
    config = parse("--evaluate-goals", "7", "--schedule.log-every=3", "--tasks", "a-b", "--tasks-per-batch=1")
    assert (config["evaluate_goals"], config["schedule"]["log_every"]) == (7, 3)
    assert (config["tasks"], config["tasks_per_batch"]) == (["a-b"], 1)


def _kinds(base: type) -> list[type]:
    return [base, *[kind for child in base.__subclasses__() for kind in _kinds(child)]]


ABSTRACT = [
    (option, kind)
    for option, base in (
        ("agent", Agent),
        ("agent.network", Backbone),
        ("balancer", Balancer),
        ("sharing", Sharing),
    )
    for kind in dict.fromkeys(_kinds(base))
    if inspect.isabstract(kind) and not (option == "agent" and kind.__name__.startswith("_"))
]


@pytest.mark.parametrize(("option", "kind"), ABSTRACT, ids=lambda value: getattr(value, "__name__", value))
def test_a_base_of_others_is_refused_with_its_members(option: str, kind: type) -> None:
    concrete = [member for member in _kinds(kind) if not inspect.isabstract(member)]
    members = {member.__name__ for member in concrete if member.__module__.startswith("mtorl.")}
    for name in (kind.__name__, f"{kind.__module__}.{kind.__name__}"):
        with pytest.raises(InputError, match=rf"^option --{option}: {kind.__name__} is abstract; expected one of"):
            parse(f"--{option}", name)
        try:
            parse(f"--{option}", name)
        except InputError as error:
            assert members <= set(re.findall(r"\w+", str(error)))


def test_bases_are_abstract_and_what_can_be_listed_is_not() -> None:
    """A base that could be chosen would train, and learn nothing sensible."""
    for family, (module, base, _) in FAMILIES.items():
        root = getattr(importlib.import_module(module), base)
        listed = {member.name for member in members(family)}
        concrete = {kind.__name__ for kind in _kinds(root) if not inspect.isabstract(kind)}
        ours = {kind.__name__ for kind in _kinds(root) if kind.__module__.startswith("mtorl.")}
        assert concrete & ours == listed


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary\x80", b"\x00\x01\x02", b"- 1\n", b"words", b""])
def test_a_configuration_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"c\.yaml"):
        parse("--config", str(tmp_path / "c.yaml"))


NASTY = ["1e5", "007", "yes", "2E-3", "null", "0x10", "0o7", "1_000", "12:30:00", "2020-01-01", "~", "", ".inf", ".5"]
NASTY += [
    "-",
    "- a",
    "a: b",
    "#a",
    "'a'",
    '"a',
    "[a",
    "[a]",
    "{a: 1}",
    "a, b",
    " a ",
    "=",
    "<<",
    "!x",
    "&x",
    "*x",
    "é",
    "%",
]
TEXTS = strategies.one_of(
    strategies.sampled_from(NASTY),
    strategies.text("0123456789+-.:_eExXoO~ynNaAfFlLsSuUtTrRiI'\"[]{},# ", max_size=8),
    strategies.text(strategies.characters(codec="utf-8"), max_size=8),
)


@given(TEXTS, TEXTS)
@settings(max_examples=300, deadline=None)
def test_texts_are_written_so_that_every_reader_finds_them_again(text: str, other: str) -> None:
    content = {"data": [text, other], "out": text, other: {"tasks": [[text]]}}
    for unicode in (False, True):
        written = dump_yaml(content, unicode)
        assert yaml.safe_load(written) == content == get_loader("yaml")(written), written


def _names(config: dict) -> tuple:
    return config["data"], config["out"], config["tasks"], config["sharing"]["init_args"]["file"]


@given(TEXTS, TEXTS)
@settings(max_examples=25, deadline=None)
def test_names_that_look_like_something_else(name: str, other: str) -> None:
    """From Python, from the command line, from what was written of either: a name stays what it is."""
    assume("\0" not in name + other)  # no file has such a name
    options = {"data": name, "out": name, "tasks": [other, name]}
    options["sharing"] = {"class_path": "FrozenMasks", "init_args": {"file": other}}
    config = Configuration.parse(command_line((), options)).plain
    assert _names(config) == ([name], name, [other, name], other)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(dump_yaml(config))
        again = Configuration.parse([f"--config={folder}/config.yaml"]).plain
    assert again == config
    words = ["--data", name, "x", f"--out={name}", "--tasks", other, "x", "--sharing.file", "f"]
    assume(not name.startswith("--") and not other.startswith("--"))
    plain = Configuration.parse(["--sharing=FrozenMasks", *words]).plain
    assert _names(plain) == ([name, "x"], name, [other, "x"], "f")


@pytest.mark.parametrize("name", ["1e5", "007", "yes", "12:30:00", "1_000", "0x10", "1.5", "-1"])
def test_names_without_quotes(name: str, tmp_path: Path) -> None:
    """On the command line they are what they are; in YAML they are numbers, and what to do is said."""
    assert parse(f"--tasks=[{name}, a]")["tasks"] == [name, "a"]
    assert parse("--sharing=FrozenMasks", f"--sharing.file={name}")["sharing"]["init_args"]["file"] == name
    (tmp_path / "c.yaml").write_text(f"tasks: [{name}]\n")
    with pytest.raises(InputError, match=r"--tasks: expected .*, found .*text: write it in quotes"):
        parse("--config", str(tmp_path / "c.yaml"))
    (tmp_path / "c.yaml").write_text(f"tasks: ['{name}']\n")
    assert parse("--config", str(tmp_path / "c.yaml"))["tasks"] == [name]
