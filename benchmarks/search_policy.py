"""Linear policies for locomotion, found by random search: data for suites of which nobody wrote an expert.

    python benchmarks/search_policy.py HalfCheetah-v5 Hopper-v5 Walker2d-v5       # 3 to 6 minutes each on one core
    mtorl collect --suite Gymnasium --suite.environments '[HalfCheetah-v5]' \
        --policy benchmarks.search_policy.late --out data/halfcheetah_expert

Augmented random search, version V2: a linear policy of normalised observations is moved along random directions, each
weighted by the difference of the returns of two episodes, one with the direction added and one with it subtracted;
only the directions with the largest returns count. The policies of twenty moments are kept in `results/search_policies`
with what they earn. `early`, `middle`, `late` and `replay` make policies of a suite from them, for `mtorl collect`.

What they make is not D4RL: another learner, another simulator, lower returns.

Source: Mania, Guy, Recht, "Simple random search provides a competitive approach to reinforcement learning", 2018,
Algorithm 2. Written from the paper.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.base import RolloutContext, Suite

POLICIES = Path(__file__).parent / "results" / "search_policies"
MOMENTS = 20
JUDGED = 3
"""Episodes by which the policy of a moment is judged."""
HORIZON = 1000


class Options(NamedTuple):
    """Of the search in one environment, as in the paper's Table 9 where it has the environment."""

    rate: float
    noise: float
    directions: int
    best: int
    steps: int
    """Of the environment, in all."""
    alive: float = 0.0
    """Reward of every step for not having fallen, which the search does not see."""
    horizon: int = HORIZON
    """Steps of an episode of the search; running is judged as well by its beginning."""


OPTIONS = {
    "HalfCheetah-v5": Options(0.02, 0.03, 16, 8, 2_000_000, horizon=300),
    "Hopper-v5": Options(0.01, 0.025, 8, 4, 500_000, alive=1.0),
    "Walker2d-v5": Options(0.03, 0.025, 40, 30, 500_000, alive=1.0),
}


@dataclass
class Normaliser:
    """Running mean and standard deviation of all observations that were seen."""

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    def add(self, observations: NDArray[np.float64]) -> None:
        """Counts observations `[N, O]` in."""
        number, mean = len(observations), observations.mean(0)
        squares = ((observations - mean) ** 2).sum(0)
        total, difference = self.count + number, mean - self.mean
        self.squares += squares + difference**2 * self.count * number / total
        self.mean += difference * number / total
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """A number that never varied is left alone, as it were."""
        found = np.sqrt(self.squares / max(self.count, 1))
        return np.where(found < 1e-7, np.inf, found)


def episode(
    environment: Any, weights: NDArray[np.float64], mean: Any, std: Any, seed: int, alive: float, horizon: int
) -> tuple[float, NDArray[np.float64]]:
    """Plays one episode: its return without `alive`, and its observations."""
    observation, _ = environment.reset(seed=seed)
    total, seen = 0.0, []
    for _ in range(horizon):
        seen.append(observation)
        action = np.clip(weights @ ((observation - mean) / std), -1, 1)
        observation, reward, fallen, _, _ = environment.step(action)
        total += float(reward) - alive
        if fallen:
            break
    return total, np.array(seen)


def search(name: str, steps: int, seed: int) -> dict[str, NDArray[Any]]:
    """The policies of `MOMENTS` moments of a search of so many steps, more of them where it learns fast: early."""
    environment = gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True)
    options, draw = OPTIONS[name], np.random.default_rng(seed)
    sizes = environment.action_space.shape[0], environment.observation_space.shape[0]
    weights, seen = np.zeros(sizes), Normaliser(0, np.zeros(sizes[1]), np.zeros(sizes[1]))
    taken, kept = 0, []
    while len(kept) < MOMENTS:
        mean, std = seen.mean.copy(), seen.std if seen.count else np.ones(sizes[1])
        directions = draw.standard_normal((options.directions, *sizes))
        returns = np.zeros((options.directions, 2))
        for number, direction in enumerate(directions):
            start = int(draw.integers(1000, 2**31))  # other states than those of the suite's goals
            for side, sign in enumerate((1, -1)):
                moved = weights + sign * options.noise * direction
                returns[number, side], observations = episode(
                    environment, moved, mean, std, start, options.alive, options.horizon
                )
                seen.add(observations)
                taken += len(observations)
        chosen = np.argsort(-returns.max(1))[: options.best]
        spread = returns[chosen].std() + 1e-8
        differences = returns[chosen, 0] - returns[chosen, 1]
        weights = weights + options.rate / (options.best * spread) * np.tensordot(differences, directions[chosen], 1)
        if taken >= steps * ((len(kept) + 1) / MOMENTS) ** 2:
            mean, std = seen.mean.copy(), seen.std
            starts = range(500, 500 + JUDGED)
            earned = [episode(environment, weights, mean, std, start, 0.0, HORIZON)[0] for start in starts]
            kept.append((weights, mean, std, np.mean(earned), taken))
            print(f"{name}: {taken:,} steps, return {np.mean(earned):,.0f}", flush=True)
    return {key: np.stack(values) for key, values in zip(Kept._fields, zip(*kept, strict=True), strict=True)}


class Kept(NamedTuple):
    """Policies of M moments."""

    weights: NDArray[np.float64]
    """`[M, A, O]`, of normalised observations."""
    mean: NDArray[np.float64]
    """`[M, O]`."""
    std: NDArray[np.float64]
    """`[M, O]`."""
    returns: NDArray[np.float64]
    """`[M]`, mean of `JUDGED` episodes."""
    steps: NDArray[np.int64]
    """`[M]`, of the environment that the search had taken."""


class SearchPolicy:
    """Plays kept policies, in every task of a suite of these environments.

    Args:
        suite: The suite; its tasks are named as the environments are, or its argument `environments` says whose they
            are.
        share: The moments whose policies are played in turn, episode after episode: the one that earns nearest to this
            share of the best return; None: all moments.
    """

    knows_task = True

    def __init__(self, suite: Suite, share: float | None) -> None:
        self.task_names = suite.task_names
        named = suite.arguments.get("environments", {})
        self._kept = [_moments(named.get(name, name), share) for name in suite.task_names]
        self._playing: tuple[NDArray[np.float64], ...] = ()
        earned = [f"{name} {it.returns.min():,.0f} to {it.returns.max():,.0f}" for name, it in self._named()]
        self.description = (
            f"Self-made: linear policies found by random search (benchmarks/search_policy.py), {self._count()}; their "
            f"returns without noise: {', '.join(earned)}. Not D4RL: another learner in another simulator."
        )

    def _named(self) -> Iterator[tuple[str, "Kept"]]:
        return zip(self.task_names, self._kept, strict=True)

    def _count(self) -> str:
        count = len(self._kept[0].weights)
        return "those of one moment" if count == 1 else f"those of {count} moments in turn"

    def reset(self, context: RolloutContext) -> None:
        """Looks up the policy of each row."""
        assert context.tasks is not None
        numbers = context.goals if context.episodes is None else context.episodes
        kept = self._kept[int(context.tasks[0])]
        rows = numbers % len(kept.weights)
        self._playing = kept.weights[rows], kept.mean[rows], kept.std[rows]

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions `[N, A]`."""
        weights, mean, std = self._playing
        actions = np.einsum("nao,no->na", weights, (observations - mean) / std)
        return np.clip(actions, -1, 1).astype(np.float32)


def _moments(environment: str, share: float | None) -> Kept:
    path = POLICIES / f"{environment}.npz"
    if not path.exists():
        raise InputError(
            f"no policies were searched for {environment!r}: {path} is missing. Make it with `python "
            f"benchmarks/search_policy.py {environment}`."
        )
    with np.load(path, allow_pickle=False) as kept:
        rows = np.arange(len(kept["returns"]))
        if share is not None:
            rows = np.abs(kept["returns"] - share * kept["returns"].max()).argmin(keepdims=True)
        return Kept(*(kept[name][rows] for name in Kept._fields))


early = partial(SearchPolicy, share=0.1)
middle = partial(SearchPolicy, share=0.5)
late = partial(SearchPolicy, share=1.0)
replay = partial(SearchPolicy, share=None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environments", nargs="+", choices=list(OPTIONS))
    parser.add_argument("--steps", type=int, help="of each environment; by default as many as the kept policies took")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    POLICIES.mkdir(parents=True, exist_ok=True)
    for name in given.environments:
        found = search(name, given.steps or OPTIONS[name].steps, given.seed)
        np.savez_compressed(POLICIES / f"{name}.npz", allow_pickle=False, **found)


if __name__ == "__main__":
    main()
