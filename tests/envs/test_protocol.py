"""How evaluations are played is spelled as it always was: names of files, labels, command lines, what is compared."""

import hashlib
import inspect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mtorl import InputError
from mtorl.commands.base import objects, parser_of
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.protocol import EvaluationSettings, Protocol, demonstrations_hash, record_of
from mtorl.envs.references import _path
from mtorl.envs.results import EvalReport, Played, Source
from mtorl.envs.spelling import spelled, spellings
from mtorl.reports.settings import Asked, choose, differences
from mtorl.runs import evaluations
from mtorl.runs.run import Run
from mtorl.schema import Number, check

DATA = "data/a data set"


class Folder(Run):
    """A run of which nothing but its folder is looked at."""

    def __init__(self) -> None:
        self.folder = self.home = Path("runs/x")

    def suite(self) -> PointReach:  # type: ignore[override]
        return PointReach(["away-0"])

    def unusual(self, act_with: str | None) -> str | None:
        return act_with


@pytest.fixture(autouse=True)
def demonstrations(store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest of the data set that policies are shown, which is in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / DATA).parent.mkdir(exist_ok=True)
    (tmp_path / DATA).symlink_to(store.path.absolute())
    return str(demonstrations_hash(Protocol(demonstrations=DATA)))


def every_protocol(goals: Iterable[int] = (1, 50)) -> Iterator[Protocol]:
    names, context = ("official", "heldout", "ml45-like"), ("exact", "anchored")
    chosen: Any = itertools.product(names, goals, (False, True), (0, 7), ("shown", "hidden"), (None, DATA), context)
    for name, count, stop, seed, task, shown, context_mode in chosen:
        yield Protocol(name, count, stop, seed, task_identity=task, demonstrations=shown, context=context_mode)


def report(protocol: Protocol, goal_visible: bool = True, act_with: str | None = None, policy: str = "x") -> EvalReport:
    source = Source("last", 3, "a", act_with, "0123456789" if protocol.demonstrations else None)
    episodes = tuple(Played("away-0", goal, True, True, 1.0, 5) for goal in range(protocol.goals))
    suite = PointReach(["away-0"], goal_visible=goal_visible)
    return EvalReport(policy, ("away-0",), episodes, protocol, suite.describe(), suite.versions(), source)


def every_report(protocols: Iterable[Protocol]) -> list[EvalReport]:
    chosen = itertools.product(protocols, (True, False), (None, "second"))
    return [report(protocol, visible, acting) for protocol, visible, acting in chosen]


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def label(found: EvalReport) -> str:
    return found.settings.label


@pytest.mark.parametrize(
    "protocol, others, name",
    [
        (Protocol(), {}, "heldout-last-50"),
        (Protocol("official", 10, True), {"checkpoint": "best"}, "official-best-stopped-10"),
        (Protocol("ml45-like", 3, seed=2), {"goal_visible": False}, "ml45-like-last-goal-hidden-seed2-3"),
        (Protocol(task_identity="hidden"), {"goal_visible": True}, "heldout-last-goal-visible-task-hidden-50"),
        (Protocol(demonstrations=DATA, context="anchored"), {}, "heldout-last-shown-DIGEST-anchored-50"),
        (Protocol(block=3), {"checkpoint": "200", "act_with": "low"}, "heldout-200-low-50"),
    ],
)
def test_names_of_files(protocol: Protocol, others: dict, name: str, demonstrations: str) -> None:
    expected = f"{name.replace('DIGEST', demonstrations[:8])}.json"
    assert Folder().report_path(protocol, **others) == Path("runs/x/evaluations") / expected


def test_names_of_files_of_all_combinations(demonstrations: str) -> None:
    others = [
        {"checkpoint": checkpoint, "goal_visible": visible, "act_with": acting}
        for checkpoint, visible, acting in itertools.product(("last", "20"), (None, True, False), (None, "second"))
    ]
    names = [Folder().report_path(protocol, **other).name for protocol in every_protocol() for other in others]
    assert digest(name.replace(demonstrations[:8], "DIGEST") for name in names) == "f3bd4386fa3a4b47"
    told = [it for it in every_protocol() if not it.unseen_tasks]
    assert len({Folder().report_path(it, **other) for it in told for other in others}) == len(told) * len(others)


@pytest.mark.parametrize(
    "protocol, words",
    [
        (Protocol(), "--protocol heldout --goals 50"),
        (Protocol("official", 10, True, 3), "--protocol official --goals 10 --stop_at_success true --seed 3"),
        (Protocol("ml45-like", 3), "--protocol ml45-like --goals 3"),
        (
            Protocol(task_identity="hidden", demonstrations=f"{DATA}/", context="anchored", block=2),
            f"--protocol heldout --goals 50 --task_identity hidden --demonstrations '{DATA}' --context anchored",
        ),
    ],
)
def test_command_lines(protocol: Protocol, words: str) -> None:
    assert protocol.options == words


def test_command_lines_of_all_combinations() -> None:
    assert digest(protocol.options for protocol in every_protocol()) == "d2fafe0d6eb0d497"


@pytest.mark.parametrize(
    "found, words",
    [
        (report(Protocol()), "50 goals"),
        (report(Protocol("ml45-like", 3), goal_visible=False), "3 goals, task not told, goal hidden"),
        (
            report(Protocol("official", 5, True, 2, 3, "hidden", DATA, "anchored"), act_with="low"),
            f"5 goals, stopped at the first success, task not told, shown an episode of {DATA}, anchored context, "
            "seed 2, played by low",
        ),
    ],
)
def test_labels(found: EvalReport, words: str) -> None:
    assert label(found) == words


def test_labels_of_all_combinations() -> None:
    assert digest(map(label, every_report(every_protocol()))) == "27eb19e5838e70da"
    assert digest(", ".join(protocol.remarks) for protocol in every_protocol()) == "b54ad428f7b25222"


def chosen(found: list[EvalReport], **asked: Any) -> EvalReport:
    return choose([Folder()], [found], Asked(**asked))[0]


@pytest.mark.parametrize(
    "asked, first",
    [
        ({}, "50 goals, anchored context"),
        ({"goals": 1}, "1 goals, anchored context"),
        ({"goal_visible": False}, "50 goals, anchored context, goal hidden"),
        ({"task_identity": "hidden"}, "50 goals, task not told, anchored context"),
        ({"demonstrated": True}, f"50 goals, shown an episode of {DATA}, anchored context"),
        ({"act_with": "second"}, "50 goals, anchored context, played by second"),
    ],
)
def test_the_evaluation_that_is_shown(asked: dict, first: str) -> None:
    found = every_report(it for it in every_protocol() if it.name == "heldout")
    assert label(chosen(found, **asked)) == label(chosen(found[::-1], **asked)) == first


def test_the_order_in_which_evaluations_are_shown() -> None:
    left, order = every_report(it for it in every_protocol((1, 2)) if it.name == "heldout"), []
    while left:
        order.append(chosen(left))
        left = [it for it in left if it is not order[-1]]
    assert digest(map(label, order)) == "9f20012a2c7c542e"
    with pytest.raises(InputError, match=r"no evaluation with the same settings.*runs/x: 50 goals, seed 1"):
        chosen([report(Protocol(seed=1))], goals=2)


def test_what_stands_between_two_evaluations() -> None:
    protocols = [*every_protocol((1,)), Protocol(goals=1, block=5)]
    changed = [report(it) for it in protocols]
    one = changed[16]
    for policy in ("x", "expert"):
        lines = [", ".join(differences(replace(one, policy=policy), other)) for other in changed]
        assert digest(lines) == {"x": "10b509120ebbdec8", "expert": "1c4558708bd96a0e"}[policy]
    plain, shown = report(Protocol()), report(Protocol(demonstrations=DATA))
    assert differences(plain, shown) == ["demonstrations"]
    assert differences(plain, replace(shown, policy="random")) == []
    assert differences(plain, report(Protocol(context="anchored"))) == ["protocol"]
    assert differences(plain, report(Protocol(context="anchored"), policy="random")) == []
    assert differences(plain, report(Protocol(), goal_visible=False)) == ["suite settings"]
    assert differences(plain, report(Protocol(), act_with="second")) == []


def test_names_of_reference_files() -> None:
    names = [_path("expert", PointReach(["away-0"]), it, Path()).name for it in every_protocol()]
    assert digest(names) == "b0584314659392b3"
    assert names[0] == "expert-PointReach-1-tasks-official-fe77f784.json"


@dataclass(frozen=True)
class Noisy(Protocol):
    """With one more option.

    Attributes:
        noise: Of the motors.
    """

    noise: float = field(
        default=0.0, metadata=spelled(Number(0), remark="motors of noise {}", word="noise{}", rank=5, of_agents=True)
    )


def test_a_new_option_is_declared_once() -> None:
    """Labels, names of files, pages, comparisons and reports ask the protocol; whoever plays is the second file."""
    plain, noisy = Noisy(), Noisy(noise=0.5, seed=1)
    settings = EvaluationSettings.asked(noisy, act_with="low")
    assert settings.key == "heldout-last-low-noise0.5-seed1-50"
    assert settings.label == "50 goals, motors of noise 0.5, seed 1, played by low"
    assert noisy.options == "--protocol heldout --goals 50 --noise 0.5 --seed 1"
    assert plain.options == Protocol().options and plain.remarks == []
    assert chosen([report(Noisy(noise=0.5)), report(plain)]).protocol == plain
    assert differences(report(plain), report(Noisy(noise=0.5))) == ["protocol"]
    assert differences(report(plain), report(Noisy(noise=0.5), policy="expert")) == []
    check({**asdict(noisy)}, record_of(Noisy), "a protocol")
    check({**asdict(Protocol())}, record_of(Noisy), "a protocol of an earlier version")
    with pytest.raises(InputError, match="noise"):
        check({**asdict(noisy), "noise": -1.0}, record_of(Noisy), "a protocol")


def test_a_new_option_is_one_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "Protocol", Noisy)
    parser = parser_of("evaluate", evaluations.evaluate, skip={"run"})
    text = " ".join(parser.format_help().split())
    assert "--noise NOISE Of the motors. (type: float, default: 0.0)" in text
    played: list[Protocol] = []
    monkeypatch.setattr(evaluations, "evaluate_reference", lambda policy, suite, how, *rest: played.append(how))
    line = ["--policy", "random", "--suite", "PointReach", "--noise", "0.5", "--goals", "3"]
    evaluations.evaluate(**objects(parser, line))
    assert played == [Noisy(goals=3, noise=0.5)]


def test_the_command_has_all_options_of_a_protocol_but_blocks() -> None:
    mentioned = set(inspect.signature(evaluations.evaluate).parameters) & set(spellings(Protocol))
    assert not mentioned, "options of protocols are handed on, so that new ones are too"
    parser = parser_of("evaluate", evaluations.evaluate, skip={"run"})
    hidden = {name for name, it in spellings(Protocol).items() if it.argument is not True}
    assert hidden == {"name", "block"}
    told = {action.dest: action.help for action in parser._actions}
    assert all(told[name] for name in set(spellings(Protocol)) - hidden) and "block" not in told
