"""What shells complete, asked of the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mtorl.commands.completion import Table, bash, describe, fish, zsh
from mtorl.commands.main import COMMANDS, main
from mtorl.families import FAMILIES, classes


@pytest.fixture(scope="module")
def table() -> Table:
    return describe()


def test_every_command_and_member_is_known(table: Table) -> None:
    assert {name.split()[0] for name in table.options} == set(COMMANDS)
    assert set(table.members) == {kind.__name__ for family in FAMILIES for kind in classes(family)}
    for option, family in (("agent", "agents"), ("balancer", "balancers"), ("sharing", "sharing"), ("suite", "suites")):
        command = "collect" if family == "suites" else "train"
        assert table.values[f"{command} --{option}"] == sorted(kind.__name__ for kind in classes(family))
    assert "--resume" in table.options["train"] and table.words["list"] == list(FAMILIES)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["tr"], "train"),
        (["train", "--balancer", "PC"], "PCGrad"),
        (["train", "--balancer", "=", "PC"], "PCGrad"),  # as bash splits it
        (["train", "--balancer.help", "PC"], "PCGrad"),
        (["train", "--agent.network", "Pa"], "PaCo"),
        (["train", "--agent.network", "PaCo", "--agent.network.c"], "--agent.network.components"),
        (["train", "--agent", "IQL", "--agent.exp"], "--agent.expectile"),
        (["train", "--agent", "BehaviorCloning", "--agent.exp"], ""),
        (["evaluate", "--task-id"], "--task_identity"),
        (["evaluate", "--protocol", "held"], "heldout"),
        (["collect", "--suite", "MetaWorld", "--suite.be"], "--suite.benchmark"),
        (["list", "bal"], "balancers"),
        (["import", "np"], "npz"),
        (["import", "npz", "--clip"], "--clip_actions"),
        (["completion", ""], "bash zsh fish"),
        (["evaluate", "ru"], ""),  # files, by the shell itself
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else "",
)
def test_bash(table: Table, typed: list[str], found: str) -> None:
    words = " ".join(f"'{word}'" for word in ("mtorl", *typed))
    script = f'{bash(table)}\nCOMP_WORDS=({words})\nCOMP_CWORD={len(typed)}\n_mtorl\necho "${{COMPREPLY[*]}}"'
    result = subprocess.run(["bash"], input=script, capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == (found, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("tr", "train"),
        ("train --balancer PC", "PCGrad"),
        ("train --agent.expec", "--agent.expectile"),
        ("list ba", "balancers"),
    ],
)
def test_fish(table: Table, typed: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "mtorl.fish").write_text(fish(table))
    script = f"source {tmp_path}/mtorl.fish; complete -C 'mtorl {typed}'"
    result = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True)
    assert result.stdout.split() == [found], result


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_in_a_terminal(table: Table, tmp_path: Path) -> None:
    (tmp_path / "_mtorl").write_text(zsh(table))
    script = rf"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D'
zpty -w z 'mtorl() {{ print -r "<$*>" }}; print re''ady'
while zpty -r z line && [[ $line != *ready* || $line == *print* ]]; do; done
zpty -w z $'mtorl train --balancer PC\t'
while zpty -r z line && [[ $line != *'<train'* ]]; do; done
print -r -- $line
"""
    result = subprocess.run(["zsh", "-f"], input=script, capture_output=True, text=True, timeout=100)
    assert "<train --balancer PCGrad>" in result.stdout


def test_the_command_prints_the_script(table: Table, capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == f"{bash(table)}\n"
    assert main(["completion", "tcsh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err
