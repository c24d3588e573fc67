"""Engines that cannot be used here."""

import sys

import pytest

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.envs.engines import engine, open_pool
from mtorl.envs.workers import WorkerPool

PLAY = ["evaluate", "--policy", "random", "--suite", "PointReach", "--engine", "ray"]


def test_local_processes_are_the_default() -> None:
    assert type(open_pool(0)) is WorkerPool
    with engine():
        assert type(open_pool(0)) is WorkerPool


def test_impossible_engines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="engine is 'fast'; expected one of local, ray"), engine("fast"):  # type: ignore[arg-type]
        pass
    with pytest.raises(InputError, match="--address auto is for --engine ray"), engine("local", "auto"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--engine ray under torchrun"), engine("ray"):
        pass


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(PLAY) == 2
    assert "pip install 'mtorl[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "expected auto or host:port"),
        ("ray://somewhere:10001", "expected auto or host:port"),
        ("127.0.0.1:1", "nobody answers at --address 127.0.0.1:1"),
    ],
)
def test_addresses_where_nobody_is(address: str, message: str, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("ray")
    assert main([*PLAY, "--address", address]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_played_with_recorded_actions(capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "a/run", "--recorded", "data", "--engine", "ray"]) == 2
    assert "--recorded takes --checkpoint only" in capsys.readouterr().err
