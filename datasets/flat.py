"""The flat layout: a task's episodes one after the other, in one array per quantity, as D4RL and OGBench have them.

| key | dtype, shape | content |
|---|---|---|
| `observations`, `next_observations` | float32 `[S, O]` | before and after each step |
| `actions` | float32 `[S, A]` | in [-1, 1] |
| `rewards` | float32 `[S]` | undiscounted, unscaled |
| `terminals` | bool `[S]` | the environment ended the episode here |
| `timeouts` | bool `[S]` | the episode was cut off, or its record ends, here |
| `success` | bool `[S]` | the task's own flag after each step |
| `infos/truncated` | bool `[S]` | the recorder's flag; an episode may end without any |
| `infos/episode` | int64 `[S]` | number of the step's episode in the data set; another number, another episode |
| `infos/goal`, `infos/seed` | int32, int64 `[S]` | what the episode was played with, -1: unknown |
| `infos/noise`, `infos/random` | float32 `[S]` | how its actions were disturbed |

The first seven keys are what other projects read. All arrays are equally long, because readers that cut every array of
a file into episodes (`d4rl.sequence_dataset`) fail over others. Beside them stands `mtorl/manifest`, see
`datasets.enclosed`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl.datasets.episode import Episode
from mtorl.datasets.store import EpisodeStore

NUMBER = "infos/episode"
"""Where one episode ends and the next begins."""
INDEX = ("goal", "seed", "noise", "random")
"""What is known of a whole episode, repeated in each of its steps."""
WIDE = ("observations", "next_observations", "actions")
"""Keys with a row of several numbers per step."""
KEYS = (
    *WIDE,
    "rewards",
    "terminals",
    "timeouts",
    "success",
    "infos/truncated",
    NUMBER,
    *(f"infos/{name}" for name in INDEX),
)
"""All keys."""


def columns_of(store: EpisodeStore, number: int) -> dict[str, NDArray[Any]]:
    """One episode of L steps as arrays of the flat layout, `[L, ...]` each; large ones are views."""
    episode = store.episode(number)
    length = len(episode)
    ends = np.arange(length) == length - 1
    index = {f"infos/{name}": np.full(length, store.index[number][name]) for name in INDEX}
    return {
        "observations": episode.observations[:-1],
        "next_observations": episode.observations[1:],
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminals": episode.terminated,
        "timeouts": episode.truncated | (ends & ~episode.terminated),
        "success": episode.success,
        "infos/truncated": episode.truncated,
        NUMBER: np.full(length, number, dtype=np.int64),
        **index,
    }


def episode_of(columns: Mapping[str, NDArray[Any]], task: str) -> Episode:
    """The inverse of `columns_of`.

    Args:
        columns: All keys of the layout, the rows of one episode.
        task: Its name.
    """
    observations = np.concatenate([columns["observations"], columns["next_observations"][-1:]])
    index = {name: columns[f"infos/{name}"][0].item() for name in INDEX}
    return Episode(
        task,
        observations,
        columns["actions"],
        columns["rewards"],
        columns["success"],
        columns["terminals"],
        columns["infos/truncated"],
        **index,
    )
