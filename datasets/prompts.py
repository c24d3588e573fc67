"""Recorded steps that an agent is shown in front of its own: the end of an episode that solved the task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
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
        for name, value, known in (("pick", self.pick, PromptPick), ("source", self.source, PromptSource)):
            if value not in get_args(known):
                raise InputError(f"prompt {name} is {value!r}; expected one of {', '.join(get_args(known))}.")


@dataclass(frozen=True)
class Demonstration:
    """A recorded episode of L steps, shown to a policy: instead of its task's name, or instead of its own prompts.

    Attributes:
        observations: float32 `[L, O]`, before each step.
        actions: float32 `[L, A]`.
        rewards: float32 `[L]`.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]

    @property
    def returns_to_go(self) -> NDArray[np.float32]:
        """Sum of this and all later rewards `[L]`."""
        return np.cumsum(self.rewards[::-1], dtype=np.float64)[::-1].astype(np.float32)


def prompt_start(steps: int, length: int) -> int:
    """Where the prompt of an episode begins, so that it ends one step before the episode does."""
    return max(0, steps - length - 1)


def prompt_of(shown: Demonstration, length: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The prompt of an episode: observations, actions, returns-to-go and timesteps of `length` steps.

    Raises:
        InputError: The episode is shorter.
    """
    if len(shown.rewards) < length:
        raise InputError(f"a demonstration has {len(shown.rewards)} steps; expected at least {length}, a prompt's.")
    first = prompt_start(len(shown.rewards), length)
    part = slice(first, first + length)
    return shown.observations[part], shown.actions[part], shown.returns_to_go[part], np.arange(first, first + length)


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

    def draw(self, tasks: NDArray[np.int64], windows: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Prompts for that many windows of these tasks `[T]`: columns `[T, windows, length, ...]`."""
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

    def best(self) -> dict[str, NDArray[Any]]:
        """The prompt of each task's best episode: columns `[T, length, ...]`."""
        columns = self._gather([[ranked[0]] for ranked in self._ranked])
        return {name: values[:, 0] for name, values in columns.items()}

    def demonstrations(self) -> list[Demonstration]:
        """Each task's best episode, whole."""
        found = []
        for position, number in (ranked[0] for ranked in self._ranked):
            episode = self.stores[position].episode(number)
            found.append(Demonstration(episode.observations[: len(episode)], episode.actions, episode.rewards))
        return found

    def _gather(self, chosen: list[list[tuple[int, int]]]) -> dict[str, NDArray[Any]]:
        length = self.settings.length
        rows: dict[str, list[NDArray[Any]]] = {}
        for position, number in (it for mine in chosen for it in mine):
            store = self.stores[position]
            first = prompt_start(self._length((position, number)), length)
            step = int(store.starts[number]) + first
            for name, column, start in (
                ("observations", store.observations, step + number),
                ("actions", store.actions, step),
                ("returns_to_go", store.returns_to_go, step),
            ):
                rows.setdefault(name, []).append(column[start : start + length])
            rows.setdefault("timesteps", []).append(np.arange(first, first + length))
        shape = (len(chosen), len(chosen[0]), length)
        return {name: np.stack(values).reshape(*shape, *values[0].shape[1:]) for name, values in rows.items()}
