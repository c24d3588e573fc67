"""Cost of acting with decision transformers: per control step of a block of episodes, on one thread.

    python benchmarks/dt_rollout.py        # two minutes

Against it: the same network with its last block computed for every token, and one forward pass per episode. The prompt
transformer has its published size; against it stands a whole pass per episode over prompt and window, as in published
code. `--context anchored` keeps what was worked out for earlier steps.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from common import make_spec, save

from mtorl.agents import DecisionTransformer, PromptDecisionTransformer
from mtorl.agents.history import TransformerRollout
from mtorl.envs.base import ContextMode, RolloutContext

TASKS, ROWS, STEPS = 10, 10, 100


def make_agent(last_only: bool) -> DecisionTransformer:
    """The MT10 preset with random weights."""
    spec = make_spec(TASKS)
    torch.manual_seed(0)
    agent = DecisionTransformer(spec).eval().requires_grad_(False)
    if not last_only:
        whole = agent.backbone.forward
        agent.backbone.forward = lambda tokens, _, *rest: whole(tokens, False, *rest)[:, -1:]  # type: ignore
    return agent


class Naive(PromptDecisionTransformer):
    """Passes prompt and window through the whole network at every step."""

    def begin(self, tasks: torch.Tensor, context: RolloutContext) -> TransformerRollout:
        """Keeps the prompt's tokens instead of their keys and values."""
        found = super().begin(tasks, context)
        prompt = found.prompt
        assert prompt is not None
        whole = type(self.backbone).forward

        def forward(tokens: torch.Tensor, _: bool, feed_forwards: list, before: list) -> torch.Tensor:
            return whole(self.backbone, torch.cat([prompt, tokens], 1), False, feed_forwards)[:, -1:]

        self.backbone.forward = forward  # type: ignore[method-assign]
        return found


def make_prompted(kind: type[PromptDecisionTransformer]) -> PromptDecisionTransformer:
    """The published size with random weights and past actions in the window."""
    torch.manual_seed(0)
    return kind(make_spec(TASKS), action_context="full").eval().requires_grad_(False)


def play(agents: list[DecisionTransformer], rows: int, context: ContextMode = "exact") -> float:
    """Seconds per control step; every agent plays `rows` episodes."""
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(STEPS, rows, 39)).astype(np.float32)
    rewards = np.zeros(rows, np.float32)
    for agent in agents:
        agent.reset(RolloutContext(np.zeros(rows, dtype=np.int64), np.arange(rows), context=context))
    start = time.perf_counter()
    for row in observations:
        for agent in agents:
            agent.act(row, rewards)
    return (time.perf_counter() - start) / STEPS


def race(variants: dict[str, Callable[[], float]], rounds: int) -> dict:
    """Milliseconds of a step of all episodes, medians over rounds, and ratios to the first variant."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            seconds[name].append(measure())
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    first = next(iter(medians.values()))
    return {
        "ms_per_step_of_all_episodes": {name: round(1000 * value, 3) for name, value in medians.items()},
        "ratio_to_ours": {name: round(value / first, 2) for name, value in medians.items()},
    }


def main() -> None:
    """Measures all variants in turn and writes results/dt_rollout.json."""
    torch.set_num_threads(1)
    variants: dict[str, Callable[[], float]] = {
        "one pass, last block for the newest token": lambda: play([make_agent(True)], ROWS),
        "the same, anchored": lambda: play([make_agent(True)], ROWS, "anchored"),
        "one pass, last block for every token": lambda: play([make_agent(False)], ROWS),
        "one pass per episode": lambda: play([make_agent(True) for _ in range(ROWS)], 1),
    }
    prompted: dict[str, Callable[[], float]] = {
        "prompt read once, one pass for all episodes": lambda: play([make_prompted(PromptDecisionTransformer)], ROWS),
        "the same, anchored": lambda: play([make_prompted(PromptDecisionTransformer)], ROWS, "anchored"),
        "a whole pass per episode": lambda: play([make_prompted(Naive) for _ in range(ROWS)], 1),
    }
    found = race(variants, 7)
    save(
        "dt_rollout",
        {"episodes": ROWS, **found, "prompt_transformer": race(prompted, 3) | {"goals": {"exact": 2, "anchored": 6}}},
    )


if __name__ == "__main__":
    main()
