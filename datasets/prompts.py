"""Recorded steps that an agent is shown in front of its own: the end of an episode that solved the task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import InputError, checks
from mtorl.datasets.episode import Demonstration, padded
from mtorl.datasets.store import EpisodeStore

HELD_OUT = 2
"""Episodes of each task that `source=heldout` keeps from training."""
PromptPick = Literal["topk", "uniform", "official"]
PromptSource = Literal["train", "heldout"]


@dataclass(frozen=True)
class PromptSettings:
    """Which steps of which episodes.

    A prompt ends one step before its episode does, as in HarmoDT.

    Attributes:
        length: Steps in a prompt.
        pick: Of which episode: a random one of the `best` (topk: with success, and with the highest returns), any
            (uniform), or as the released code of HarmoDT (official: by return alone; the first window of a batch gets
            the worst episode, the next ones the best, the second best, and so on).
        source: From the episodes that are trained on, or from the last two of each task, which then are not trained on.
        best: Episodes that `topk` draws from.
    """

    length: int = 5
    pick: PromptPick = "topk"
    source: PromptSource = "train"
    best: int = 10

    def __post_init__(self) -> None:
        if not (self.length >= 1 and self.best >= 1):  # NaN is neither
            raise InputError(f"the prompt has {self.length} steps of the {self.best} best; expected at least 1 each.")
        checks.one_of("prompt pick", self.pick, PromptPick)
        checks.one_of("prompt source", self.source, PromptSource)


@dataclass(frozen=True)
class Prompt:
    """K consecutive steps of recorded episodes, as they are shown to an agent; any axes in front of the K steps.

    Attributes:
        observations: float32 `[..., K, O]`, as recorded (agents normalise).
        actions: float32 `[..., K, A]`.
        returns_to_go: float32 `[..., K]`.
        timesteps: int64 `[..., K]`, step within the episode, from 0.
    """

    observations: Tensor
    actions: Tensor
    returns_to_go: Tensor
    timesteps: Tensor

    def __post_init__(self) -> None:
        shape = self.returns_to_go.shape
        for name in ("observations", "actions", "timesteps"):
            if getattr(self, name).shape[: len(shape)] != shape:
                raise InputError(
                    f"Prompt.{name} has shape {list(getattr(self, name).shape)}; expected it to begin with "
                    f"{list(shape)} like `returns_to_go`."
                )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Its columns, in the order of its arguments."""
        return self.observations, self.actions, self.returns_to_go, self.timesteps

    def map(self, function: Callable[[Tensor], Tensor]) -> "Prompt":
        """The prompt of what a function makes of each column."""
        return Prompt(*map(function, self.tensors))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Prompt":
        """The same steps on another device; floating point columns in another dtype if given."""
        return self.map(lambda value: value.to(device, dtype if value.is_floating_point() else None))


def prompt_start(steps: int, length: int) -> int:
    """Where the prompt of an episode begins, so that it ends one step before the episode does."""
    return max(0, steps - length - 1)


def prompt_of(shown: Demonstration, length: int) -> Prompt:
    """The prompt of an episode, of `length` steps.

    Raises:
        InputError: The episode is shorter.
    """
    if len(shown.rewards) < length:
        raise InputError(f"a demonstration has {len(shown.rewards)} steps; expected at least {length}, a prompt's.")
    first = prompt_start(len(shown.rewards), length)
    part = slice(first, first + length)
    columns = shown.observations[part], shown.actions[part], shown.returns_to_go[part], np.arange(first, first + length)
    return Prompt(*map(torch.tensor, columns))  # copies: those may be read only


class PromptPool:
    """The episodes that prompts are taken from.

    Args:
        stores: Data sets that are used together.
        task_names: The tasks, in the order of their ids.
        settings: Which steps of which episodes.

    Raises:
        InputError: A task has no episode that is long enough, or too few to hold some out.
    """

    def __init__(self, stores: Sequence[EpisodeStore], task_names: Sequence[str], settings: PromptSettings) -> None:
        self.stores, self.settings = list(stores), settings
        everything = [
            [
                (position, int(number))
                for position, store in enumerate(stores)
                if name in store.task_names
                for number in np.flatnonzero(store.index["task"] == store.task_names.index(name))
            ]
            for name in task_names
        ]
        self.held_out: frozenset[tuple[int, int]] = frozenset()
        if settings.source == "heldout":
            few = [name for name, mine in zip(task_names, everything, strict=True) if len(mine) <= HELD_OUT]
            if few:
                raise InputError(
                    f"tasks {few} have {HELD_OUT} episodes or fewer; expected more, to take prompts from {HELD_OUT} "
                    "that are not trained on. Collect more, or use prompt_source=train."
                )
            everything = [mine[-HELD_OUT:] for mine in everything]
            self.held_out = frozenset(it for mine in everything for it in mine)
        self._ranked = [self._rank(mine) for mine in everything]
        short = [name for name, mine in zip(task_names, self._ranked, strict=True) if not mine]
        if short:
            raise InputError(
                f"no episode of {short} to take prompts from has {settings.length} steps. Use a smaller prompt_length."
            )

    def _rank(self, episodes: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those that are long enough: with success before those without, then the highest return first.

        Returns alone do not tell: where episodes end at success, failures run on and collect more reward. The released
        code goes by them.
        """
        usable = [it for it in episodes if self._length(it) >= self.settings.length]

        def worth(episode: tuple[int, int]) -> tuple[bool, float]:
            store, number = self.stores[episode[0]], episode[1]
            start, stop = store.starts[number], store.starts[number + 1]
            solved = self.settings.pick != "official" and bool(store.success[start:stop].any())
            return solved, float(store.returns_to_go[start])

        return sorted(usable, key=worth, reverse=True)

    def _length(self, episode: tuple[int, int]) -> int:
        store, number = episode
        return int(self.stores[store].index["length"][number])

    def draw(self, tasks: NDArray[np.int64], windows: int, generator: np.random.Generator) -> Prompt:
        """Prompts for that many windows of these tasks `[T]`: `[T, windows, K, ...]`."""
        chosen = []
        for task in tasks.tolist():
            ranked = self._ranked[task]
            if self.settings.pick == "official":
                ascending = ranked[::-1]
                chosen.append([ascending[-(window % len(ascending))] for window in range(windows)])
            else:
                count = min(self.settings.best, len(ranked)) if self.settings.pick == "topk" else len(ranked)
                chosen.append([ranked[place] for place in generator.integers(count, size=windows)])
        return self._gather(chosen)

    def best(self) -> Prompt:
        """The prompt of each task's best episode: `[T, K, ...]`."""
        return self._gather([[ranked[0]] for ranked in self._ranked]).map(lambda values: values[:, 0])

    def demonstrations(self) -> list[Demonstration]:
        """Each task's best episode, whole."""
        found = []
        for position, number in (ranked[0] for ranked in self._ranked):
            episode = self.stores[position].episode(number)
            found.append(Demonstration(episode.observations[: len(episode)], episode.actions, episode.rewards))
        return found

    def _gather(self, chosen: list[list[tuple[int, int]]]) -> Prompt:
        """The prompts of these episodes: `[tasks, windows, K, ...]`."""
        length = self.settings.length
        widths = max(it.observation_dim for it in self.stores), max(it.action_dim for it in self.stores)
        rows = []
        for position, number in (it for mine in chosen for it in mine):
            store = self.stores[position]
            first = prompt_start(self._length((position, number)), length)
            step = int(store.starts[number]) + first
            seen = step + number  # earlier episodes have one observation more than steps
            rows.append(
                (
                    padded(store.observations[seen : seen + length], widths[0]),
                    padded(store.actions[step : step + length], widths[1]),
                    store.returns_to_go[step : step + length],
                    np.arange(first, first + length),
                )
            )
        columns = [torch.from_numpy(np.stack(values)) for values in zip(*rows, strict=True)]
        return Prompt(*(values.unflatten(0, (len(chosen), len(chosen[0]))) for values in columns))
