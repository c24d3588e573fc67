"""The contracts find all members of every family: a member that is not found is not tested, and nobody would notice."""

import importlib
import importlib.util
import inspect

import pytest
from families import AGENT_OPTIONS, BALANCERS, NETWORKS, SMALL_AGENTS, concrete

from mtorl.families import FAMILIES
from mtorl.trainers.balancers import TorchJD


def shown(family: str) -> set[type]:
    """The concrete classes that a family's face names."""
    path, base, _ = FAMILIES[family]
    module = importlib.import_module(path)
    root, names = getattr(module, base), [getattr(module, name) for name in module.__all__]
    return {it for it in names if inspect.isclass(it) and issubclass(it, root) and not inspect.isabstract(it)}


def found(family: str) -> set[type]:
    """The concrete classes that are loaded when the contracts look for them."""
    path, base, _ = FAMILIES[family]
    kinds = concrete(getattr(importlib.import_module(path), base))
    return {kind for kind in kinds if not inspect.isabstract(kind) and kind.__module__.startswith("mtorl.")}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_shown_is_what_is_found(family: str) -> None:
    own_bases = {kind for kind in found(family) if kind.__subclasses__() and kind not in shown(family)}
    assert found(family) - own_bases == shown(family), "name it on the family's face"
    assert shown(family), "a family has members"


def test_the_lists_of_the_contracts_are_complete() -> None:
    absent = set() if importlib.util.find_spec("torchjd") else {TorchJD}
    assert set(BALANCERS) == shown("balancers") - absent, "only what needs a package that is not installed is left out"
    assert set(SMALL_AGENTS) == set(AGENT_OPTIONS) == shown("agents")
    assert {network.func for network in NETWORKS} == shown("networks")
