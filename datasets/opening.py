"""Opens stores that are used together, or that a policy is to act on: what fits, and what does not."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.joining import are_joined, contradiction, have_other_values, settings_of
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.schema import Document


def same_settings(suite: Document, store: EpisodeStore) -> bool:
    """Whether a store was recorded in that suite (as `Suite.describe` says), whatever tasks were chosen of it."""
    return are_joined(suite, store.suite)


def need_no_union(one: EpisodeStore, other: EpisodeStore) -> bool:
    """Whether two stores are of one suite and of one size and, where they are of other environments, of one horizon."""
    sizes = [(it.observation_dim, it.action_dim) for it in (one, other)]
    if sizes[0] != sizes[1] or not same_settings(one.suite, other):
        return False
    return one.manifest["horizon"] == other.manifest["horizon"] or not have_other_values(one.suite, other.suite)


def check_fits(spec: DataSpec, store: EpisodeStore) -> None:
    """Raises InputError unless a policy that was built from `spec` can act on what a store recorded."""
    suites = [spec.suite, *(entry["suite"] for entry in spec.data)]
    suite = next((it for it in suites if same_settings(it, store)), suites[1])
    for name, expected, found in (
        ("suite", suite["class_path"], store.suite["class_path"]),
        ("suite settings", settings_of(suite), settings_of(store.suite)),
        ("observation dimension", spec.observation_dim, store.observation_dim),
        ("action dimension", spec.action_dim, store.action_dim),
    ):
        if expected != found:
            raise InputError(f"data set {store.path} does not fit the policy: expected {name} {expected}, got {found}.")
    alike = [it for it in suites if it["class_path"] == store.suite["class_path"]]
    why = next(filter(None, (contradiction(it, store.suite) for it in alike)), None)
    if why:
        raise InputError(f"data set {store.path} does not fit the policy: {why}, in the policy's data and there.")
    recorded = {entry["name"] for entry in store.manifest["tasks"] if entry["episodes"]}
    missing = [name for name in spec.task_names if name not in recorded]
    if missing:
        raise InputError(f"data set {store.path} has no episodes of {missing}. Collect some.")


def open_stores(paths: Sequence[Path | str], union: bool = False) -> list[EpisodeStore]:
    """Opens stores that are to be used together.

    Args:
        paths: Their folders.
        union: They may be of several suites.

    Raises:
        InputError: Suites, their settings, versions or dimensions differ, of one suite if there may be several.
    """
    if not paths:
        raise InputError("no data set was given; expected at least one folder made by `mtorl collect`.")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise InputError(f"a data set is given twice in {[str(path) for path in paths]}; expected each once.")
    stores = [EpisodeStore(path) for path in paths]
    for number, store in enumerate(stores):
        others = [it for it in stores[:number] if not union or need_no_union(it, store)]
        if others:
            _check_joined(others[0], store)
            _check_tasks(others, store)
    return stores


def _check_joined(first: EpisodeStore, store: EpisodeStore) -> None:
    """Raises InputError unless the episodes of two stores are alike; warns if they end differently."""
    for name, expected, found in (
        ("suite", first.suite["class_path"], store.suite["class_path"]),
        ("suite settings", settings_of(first.suite), settings_of(store.suite)),
        ("versions", first.manifest["versions"], store.manifest["versions"]),
        ("observation dimension", first.observation_dim, store.observation_dim),
        ("action dimension", first.action_dim, store.action_dim),
    ):
        if expected != found:
            raise InputError(
                f"data sets {first.path} and {store.path} cannot be joined: {name} {expected} and {found} differ."
                + ("" if name == "versions" else " To train one policy for tasks of several suites, add --union true.")
            )
    if _endings(first) != _endings(store):
        warnings.warn(
            f"episodes of {first.path} and {store.path} end differently ({_endings(first)} and {_endings(store)}): "
            "their returns are not comparable, which matters to agents that are conditioned on returns. Collect "
            "both with the same --after_success.",
            stacklevel=3,
        )


def _check_tasks(others: Sequence[EpisodeStore], store: EpisodeStore) -> None:
    """Raises InputError unless tasks of the same name are the same, and what they are played in has one horizon."""
    for other in others:
        why = contradiction(other.suite, store.suite)
        if why:
            raise InputError(
                f"data sets {other.path} and {store.path} cannot be joined: {why}. Record or import one of them with "
                "another name of the task."
            )
        limits = other.manifest["horizon"], store.manifest["horizon"]
        if limits[0] != limits[1] and have_other_values(other.suite, store.suite):
            raise InputError(
                f"data sets {other.path} and {store.path} cannot be joined: their tasks differ, and their horizons are "
                f"{limits[0]} and {limits[1]}. To train one policy for both, make them data of the suite Union."
            )


def _endings(store: EpisodeStore) -> dict[str, Any]:
    """What a store's recipe says of when its episodes end."""
    return {key: store.manifest["source"].get(key) for key in ("after_success", "hold")}
