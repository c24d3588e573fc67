"""Acting where the task is hidden."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from mtorl import InputError
from mtorl.agents import BehaviorCloning, DecisionTransformer, PromptDecisionTransformer
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.prompts import PromptPool, PromptSettings
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.base import RolloutContext
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import evaluate_reference
from mtorl.reports.comparison import compare
from mtorl.reports.run_report import report
from mtorl.runs.run import Run
from mtorl.runs.sweep import ablate
from mtorl.runs.training import train
from mtorl.trainers.checkpoint import CheckpointFolder
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.sharing import GroupMasks, RandomMasks, Shared
from mtorl.trainers.sharing.group_gate import GroupGate

TWO_GROUPS = Grouping(
    ("towards-0", "towards-2", "away-0"), (0, 0, 1), ((1.0, 0.9, 0.1), (0.9, 1.0, 0.1), (0.1, 0.1, 1.0)), 1.0, "by hand"
)


class FixedGate(GroupGate):
    """Says for each row and step what it is told to."""

    def __init__(self, answers: list[list[int]]) -> None:
        self.answers, self.steps = answers, len(answers)

    def __call__(self, observations: Tensor, rewards: Tensor, valid: Tensor | None = None) -> Tensor:
        chosen = torch.tensor(self.answers[observations.shape[1] - 1])
        return torch.nn.functional.one_hot(chosen, 2).float()


def grouped(agent: DecisionTransformer | BehaviorCloning, folder: Path) -> GroupMasks:
    TWO_GROUPS.save(folder / "groups.json")
    masks = GroupMasks(str(folder / "groups.json"), sparsity=0.5)
    masks.task_names = agent.spec.task_names
    masks.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    return masks


def test_every_row_follows_its_own_group(spec: DataSpec, tmp_path: Path) -> None:
    """With a memory of what was done in its episode, not of what the other candidate would have done."""
    torch.manual_seed(0)
    agent = DecisionTransformer(
        spec,
        context=4,
        width=16,
        layers=2,
        attention_heads=2,
        task_identity="none",
        return_conditioning=False,
        action_context="full",
    )
    masks = grouped(agent, tmp_path)
    answers = [[0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]]
    masks._gate = FixedGate(answers)
    policy = TaskPolicy(agent, {"policy": masks})
    policy.reset(RolloutContext(None, np.arange(4)))
    seen = np.random.default_rng(0).normal(size=(7, 4, 4)).astype(np.float32)
    found = np.stack([policy.act(row, np.zeros(4, np.float32)) for row in seen])
    dense = agent.phases[0].space.select(agent)
    ours = []
    for task in (0, 2):
        candidate = TaskPolicy(agent, {"policy": Shared()}).agent
        candidate.load_state_dict(masks.effective(dense, task), strict=False)
        candidate.reset(RolloutContext(None, np.arange(4)))
        ours.append(candidate)
    for step in range(7):
        group = np.array(answers[min(step, 2)])
        each = np.stack([it.act(seen[step], np.zeros(4, np.float32)) for it in ours])
        expected = each[group, np.arange(4)]
        for it in ours:
            it.acted(expected)
        np.testing.assert_allclose(found[step], expected, atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3, "the groups act alike: the test shows nothing"


def test_without_a_task_the_majority_votes(spec: DataSpec) -> None:
    torch.manual_seed(0)
    agent = BehaviorCloning(spec, hidden=(24, 24), task_identity="none")
    masks = RandomMasks(sparsity=0.5)
    masks.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    dense = agent.phases[0].space.select(agent)
    (voted,) = masks.without_task(dense)
    for name, place in masks.places.items():
        votes = masks.masks[:, place.mine].sum(0).view(place.shape)
        expected = torch.where(votes >= 2, dense[name], 0.0)  # two of three
        torch.testing.assert_close(voted[name], expected)
    assert torch.equal(voted["head.weight"], dense["head.weight"])
    policy, seen = TaskPolicy(agent, {"policy": masks}), np.ones((2, 4), np.float32)

    def act(tasks: np.ndarray | None) -> np.ndarray:
        policy.reset(RolloutContext(tasks, np.arange(2)))
        return policy.act(seen, np.zeros(2, np.float32))

    hidden = act(None)
    assert np.abs(hidden - act(np.zeros(2, np.int64))).max() > 1e-4
    np.testing.assert_array_equal(act(None), hidden)  # playing a task in between changes nothing


def test_half_of_the_votes_are_enough() -> None:
    net = torch.nn.Linear(40, 30)
    masks = RandomMasks(sparsity=0.5)
    masks.init(ParameterSpace(net, maskable=[net]), 4, torch.Generator().manual_seed(0))
    votes = masks.masks.sum(0)
    (voted,) = masks.without_task(dict(net.named_parameters()))
    assert (votes == 2).any() and torch.equal(voted["weight"].flatten() != 0, votes >= 2)


def test_every_task_of_a_group_votes(spec: DataSpec, tmp_path: Path) -> None:
    """Masks that a vote of all tasks keeps: a group of two outvotes a group of one."""
    agent = BehaviorCloning(spec, hidden=(24, 24), task_identity="none")
    masks = grouped(agent, tmp_path)
    dense = agent.phases[0].space.select(agent)
    voted = super(GroupMasks, masks).without_task(dense)[0]
    expected = masks.effective(dense, 0)
    for name in dense:
        torch.testing.assert_close(voted[name], expected[name])


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, EpisodeStore]:
    """Two families that need opposite actions where nothing is seen of the difference, a mask for each."""
    folder = tmp_path_factory.mktemp("families")
    suite = PointReach(["towards-0", "towards-1", "away-0", "away-1"])
    data = collect(suite, folder / "data", "expert", episodes=10, workers=0, quiet=True)
    Grouping(suite.task_names, (0, 0, 1, 1), ((0.0,) * 4,) * 4, 1.0, "by hand").save(folder / "groups.json")
    run = train(
        data=str(data.path),
        out=str(folder / "run"),
        agent={"class_path": "BehaviorCloning", "init_args": {"hidden": [32, 32], "task_identity": "none"}},
        sharing={
            "class_path": "GroupMasks",
            "init_args": {"grouping": str(folder / "groups.json"), "sparsity": 0.5, "interval": 20},
        },
        schedule={"steps": 120, "log_every": 60, "evaluate_every": 0, "save_every": 60},
        optimizer={"lr": 0.003},
        windows=16,
        workers=0,
        threads=1,
        quiet=True,
    )
    return run, data


def test_demonstrations_instead_of_the_tasks_name(families: tuple[Run, EpisodeStore]) -> None:
    run, data = families
    told = run.evaluate(Protocol(goals=10), workers=0, quiet=True)
    shown = run.evaluate(
        Protocol(goals=10, task_identity="hidden", demonstrations=str(data.path)), workers=0, quiet=True
    )
    assert shown.episodes == told.episodes, "the gate found each task's group, and nothing else is different"
    assert shown.source.demonstrations_sha256 and not told.source.demonstrations_sha256
    alone = run.evaluate(Protocol(goals=10, task_identity="hidden"), workers=0, quiet=True)
    assert alone.episodes != told.episodes
    digest = str(shown.source.demonstrations_sha256)[:8]
    assert {path.name for path in (run.folder / "evaluations").iterdir()} >= {
        "heldout-last-10.json",
        "heldout-last-task-hidden-10.json",
        f"heldout-last-task-hidden-shown-{digest}-10.json",
    }
    assert shown.protocol.options == (
        f"--protocol heldout --goals 10 --task_identity hidden --demonstrations {data.path}"
    )
    assert run.evaluate(Protocol(goals=10), workers=1, quiet=True) == told


def test_a_checkpoint_from_before_the_end_has_no_gate(families: tuple[Run, EpisodeStore]) -> None:
    run, _ = families
    assert run.sharing("last")["policy"].gate is not None
    with pytest.raises(InputError, match="no gate, which finds the group of an episode"):
        run.evaluate(Protocol(goals=1, task_identity="hidden"), checkpoint="60", workers=0, quiet=True)


def test_tasks_that_were_not_trained_on(families: tuple[Run, EpisodeStore], tmp_path: Path) -> None:
    run, data = families
    unseen = ("towards-2", "towards-3", "away-2", "away-3")
    report = run.evaluate(Protocol("ml45-like", goals=3), workers=0, quiet=True)
    assert report.task_names == unseen and report.protocol.hides_tasks
    assert all(it.goal >= 50 for it in report.episodes)
    with pytest.raises(InputError, match=r"cannot demonstrate the tasks \['towards-2'"):
        run.evaluate(Protocol("ml45-like", demonstrations=str(data.path)), workers=0, quiet=True)
    other = collect(PointReach(unseen), tmp_path / "unseen", "expert", episodes=2, workers=0, quiet=True)
    shown = run.evaluate(Protocol("ml45-like", 3, demonstrations=str(other.path)), workers=0, quiet=True)
    assert shown.task_names == unseen
    held = collect(PointReach(unseen), tmp_path / "held", "expert", 2, split="heldout", workers=0, quiet=True)
    with pytest.raises(InputError, match=r"on the goals that the protocol ml45-like plays.*--split train"):
        run.evaluate(Protocol("ml45-like", 3, demonstrations=str(held.path)), workers=0, quiet=True)
    with pytest.raises(InputError, match=r"on the goals that the protocol official plays.*--split heldout"):
        run.evaluate(Protocol("official", 3, demonstrations=str(data.path)), workers=0, quiet=True)
    blind = collect(PointReach(unseen, goal_visible=False), tmp_path / "blind", "expert", 2, workers=0, quiet=True)
    with pytest.raises(InputError, match="in another suite, or with other settings of it"):
        run.evaluate(Protocol("ml45-like", 3, demonstrations=str(blind.path)), workers=0, quiet=True)


def test_reports_of_unseen_tasks(families: tuple[Run, EpisodeStore], tmp_path: Path) -> None:
    """With reference policies, which are always told their task, and without the data's success, which there is not."""
    run, _ = families
    unseen = ("towards-2", "towards-3", "away-2", "away-3")
    other = collect(PointReach(unseen), tmp_path / "unseen", "expert", 2, workers=0, quiet=True)
    run.evaluate(Protocol("ml45-like", 3, demonstrations=str(other.path)), workers=0, quiet=True)
    run.evaluate(Protocol("ml45-like", 3), workers=0, quiet=True)
    suite, folder = run.suite(), tmp_path / "references"
    for policy in ("expert", "random"):
        found = evaluate_reference(policy, suite, Protocol("ml45-like", 3), folder, workers=0, quiet=True)  # type: ignore[arg-type]
        assert found.task_names == unseen and (found.mean_success == 1) == (policy == "expert")
    for demonstrated in (True, None):
        page = report([run.folder], tmp_path / "r.html", "ml45-like", demonstrated=demonstrated, references=folder)
        text, content = page.read_text(), json.loads(page.with_suffix(".json").read_text())
        assert "task not told" in text
        assert (f"--demonstrations {other.path}" in text) == bool(demonstrated)
        assert [row["name"] for row in content["references"]] == ["expert", "random"]
    with pytest.raises(InputError, match="no evaluation with the same settings"):
        report([run.folder], tmp_path / "r.html", "ml45-like", task_identity="shown")


def test_agents_that_are_told_their_task_are_refused(train_options: dict) -> None:
    run = train(**train_options)
    with pytest.raises(InputError, match="BehaviorCloning was trained with the task's identity"):
        run.evaluate(Protocol(goals=1, task_identity="hidden"), workers=0, quiet=True)
    with pytest.raises(InputError, match="task_identity is 'maybe'"):
        Protocol(task_identity="maybe")  # type: ignore[arg-type]


def test_the_gate_comes_between_two_checkpoints(families: tuple[Run, EpisodeStore]) -> None:
    """Training is safe before it is fitted; whoever resumes from there fits it."""
    run, _ = families
    whole = run.checkpoints().load()
    assert whole["concluded"]
    saved: list[bool] = []
    keep = CheckpointFolder.save

    def save(folder: CheckpointFolder, step: int, state: dict, best: bool = False) -> None:
        saved.append(state["concluded"])
        keep(folder, step, state, best)

    run.checkpoints().file(120).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", save)
        train(resume=run)
    assert saved == [False, True]
    again = run.checkpoints().load()
    gates = [it["sharing"]["policy"]["_extra_state"]["gate"]["weights"] for it in (whole, again)]
    assert all(torch.equal(value, gates[1][name]) for name, value in gates[0].items())


@pytest.mark.parametrize("protocol", ["heldout", "ml45-like"])
def test_ablations_without_the_task(
    protocol: str, train_options: dict, suite: PointReach, store: EpisodeStore, tmp_path: Path
) -> None:
    left_out = ("out", "agent.hidden", "workers", "quiet", "threads")
    options = {key: value for key, value in train_options.items() if key not in left_out}
    options["agent"] = {"class_path": "BehaviorCloning", "init_args": {"hidden": [8], "task_identity": "none"}}
    options["data"] = [options["data"]]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(options))
    other = collect(suite.unseen(), tmp_path / "unseen", "expert", 1, workers=0, quiet=True)
    shown = str(other.path if protocol == "ml45-like" else store.path)
    common: dict = {
        "base": str(tmp_path / "base.yaml"),
        "vary": {"sharing": ["Shared", "RandomMasks"]},
        "out": str(tmp_path / "out"),
        "protocol": protocol,
        "goals": 2,
        "task_identity": "hidden",
        "workers": 0,
        "quiet": True,
    }
    for path in (shown, f"{shown}/", str(Path(shown).parent / "x" / ".." / Path(shown).name)):  # the same data
        page = compare(ablate(**common, demonstrations=path))
        content = json.loads(page.with_suffix(".json").read_text())
        assert tuple(content["tasks"]) == (suite.unseen() if protocol == "ml45-like" else suite).task_names
        assert "task not told" in page.read_text()
    with pytest.raises(InputError, match="heldout_data compares actions of policies that are told"):
        ablate(**common, heldout_data=str(store.path))
    if protocol == "ml45-like":
        with pytest.raises(InputError, match="of unseen tasks there is none"):
            ablate(**common, single_tasks=True)


def test_transformers_ask_for_what_was_shown(train_options: dict, suite: PointReach, store: EpisodeStore) -> None:
    """Of a hidden task they know no return; a demonstration has one, and a prompt."""
    for kind in ("DecisionTransformer", "PromptDecisionTransformer"):
        small = {"context": 4, "width": 16, "layers": 1, "attention_heads": 2, "task_identity": "none"}
        options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
        options |= {"agent": {"class_path": kind, "init_args": small}, "out": f"{options['out']}-{kind}"}
        run = train(**options)
        with pytest.raises(InputError, match=f"{kind} asks for a return, or reads a prompt"):
            run.evaluate(Protocol(goals=1, task_identity="hidden"), workers=0, quiet=True)
        protocol = Protocol(goals=1, task_identity="hidden", demonstrations=store.path)  # type: ignore[arg-type]
        assert run.evaluate(protocol, workers=0, quiet=True).source.demonstrations_sha256


def test_a_prompt_is_that_of_the_demonstration(spec: DataSpec, store: EpisodeStore) -> None:
    """An agent that is shown a task's best episode acts as one that is told the task and has the prompt of it."""
    torch.manual_seed(0)
    agent = PromptDecisionTransformer(
        spec, context=4, prompt_length=3, width=16, layers=2, attention_heads=2, task_identity="none"
    ).eval()
    agent.remember([store])
    shown = PromptPool([store], spec.task_names, PromptSettings(length=3)).demonstrations()
    seen = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)

    def play(context: RolloutContext) -> np.ndarray:
        agent.reset(context)
        return np.stack([agent.act(row, np.zeros(2, np.float32)) for row in seen])

    played = [play(RolloutContext(None, np.arange(2), demonstration=it)) for it in shown]
    assert all(np.abs(played[one] - played[other]).max() > 1e-5 for one, other in ((0, 1), (0, 2), (1, 2)))
    for task, actions in enumerate(played):  # what is asked for, and what returns are divided by, made alike
        agent.return_scale[:] = agent.return_target[:] = max(float(shown[task].rewards.sum()), 1.0)
        told = play(RolloutContext(np.full(2, task), np.arange(2)))
        np.testing.assert_allclose(actions, told, atol=1e-6)
        other = play(RolloutContext(np.full(2, task), np.arange(2), demonstration=shown[task - 1]))
        assert np.abs(other - told).max() > 1e-5, "a demonstration replaces the agent's own prompt"


def test_what_is_asked_for_is_what_a_demonstration_earned(spec: DataSpec, store: EpisodeStore) -> None:
    agent = DecisionTransformer(spec, context=4, width=16, layers=1, attention_heads=2, task_identity="none").eval()
    shown = PromptPool([store], spec.task_names, PromptSettings(length=1)).demonstrations()[2]
    agent.reset(RolloutContext(None, np.arange(2), demonstration=shown))
    total = float(shown.rewards.sum())
    agent.act(np.zeros((2, 4), np.float32), np.zeros(2, np.float32))
    agent.act(np.zeros((2, 4), np.float32), np.full(2, 0.25 * total, np.float32))
    expected = np.array([total, 0.75 * total]) / max(total, 1)
    np.testing.assert_allclose(agent.rollout.history.window(4)[1][0], expected, rtol=1e-5)


def test_short_episodes_demonstrate_nothing_to_who_reads_long_prompts(tmp_path: Path) -> None:
    """The best episode that is long enough is shown, not the best."""
    suite = PointReach(["towards-0"])
    store = collect(suite, tmp_path / "data", "expert", 6, workers=0, quiet=True)
    longest = int(store.index["length"].max())
    found = PromptPool([store], suite.task_names, PromptSettings(length=longest)).demonstrations()
    assert [len(it.rewards) for it in found] == [longest]
    with pytest.raises(InputError, match="has 500 steps"):
        PromptPool([store], suite.task_names, PromptSettings(length=500))
