"""Print a script with which a shell completes commands, options and the names of their values."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

HINTS = {
    "bash": "mtorl completion bash > ~/.local/share/bash-completion/completions/mtorl",
    "zsh": "mtorl completion zsh > ~/.zfunc/_mtorl, with `fpath+=(~/.zfunc)` before `compinit` in ~/.zshrc",
    "fish": "mtorl completion fish > ~/.config/fish/completions/mtorl.fish",
}


@dataclass
class Table:
    """All that can be typed.

    Attributes:
        options: Of every command; those that take a kind first are `import npz` and the like.
        words: What may stand where no option is: kinds, names of families.
        values: Of a command's option, `train --balancer`, or of a member's own, `PaCo.residual`.
        members: Own options of every member of a family.
    """

    options: dict[str, list[str]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of

    def completion() -> None:
        """Prints a script with which a shell completes commands, options and the names of their values."""

    parser = parser_of("completion", completion)
    parser.add_argument("shell", choices=list(HINTS), help=f"Which one. Once: {'; '.join(HINTS.values())}.")
    shell = objects(parser, arguments)["shell"]
    table = describe()
    print({"bash": bash, "zsh": zsh, "fish": fish}[shell](table))


def describe() -> Table:
    """Asks every command what it takes."""
    from mtorl.commands.main import COMMANDS
    from mtorl.families import FAMILIES, classes, load

    load(*FAMILIES)
    table, known = Table(), {kind for family in FAMILIES for kind in classes(family)}
    for command in COMMANDS:
        _describe(command, [], table, known)
    for kind in sorted(known, key=lambda it: it.__name__):
        _describe_member(kind, table, known)
    return table


def _describe(command: str, first: list[str], table: Table, known: set[type]) -> None:
    """Adds what a command takes, and each of its kinds."""
    from mtorl import InputError
    from mtorl.arguments import Described, describing
    from mtorl.commands.main import module

    name = " ".join([command, *first])
    try:
        with describing():
            module(command).run(first)
    except InputError:  # no such kind
        return
    except Described as found:
        if found.parser is not None:
            for action in found.parser._actions:
                _add(name, action, table, known)
        if found.kinds:
            table.words[name] = list(found.kinds)
            for kind in [*found.kinds, "RUN"]:  # a run stands for itself where policies are exported
                _describe(command, [*first, kind], table, known)


def _add(command: str, action: Any, table: Table, known: set[type]) -> None:
    shown = [it for it in action.option_strings if it.startswith("--") and not it.endswith("+")]
    table.options.setdefault(command, []).extend(shown)
    if not action.option_strings and action.choices:
        table.words[command] = [str(it) for it in action.choices]
    for option in shown:
        if found := _values(getattr(action, "_typehint", None), known):
            table.values[f"{command} {option}"] = found


def _describe_member(kind: type, table: Table, known: set[type]) -> None:
    from mtorl.arguments import annotations_of

    own = table.members.setdefault(kind.__name__, [])  # a sharing and a grouper may have one name
    for option, annotation in annotations_of(kind).items():
        if option not in own:
            own.append(option)
        if found := _values(annotation, known):
            table.values[f"{kind.__name__}.{option}"] = found


def _values(annotation: Any, known: set[type]) -> list[str]:
    """What an option can be set to, as far as that can be listed."""
    if annotation is bool:
        return ["true", "false"]
    if isinstance(annotation, type):
        return sorted(kind.__name__ for kind in known if issubclass(kind, annotation) and annotation is not object)
    if get_origin(annotation) is Literal:
        return [str(it) for it in get_args(annotation)]
    parts = [part for part in get_args(annotation) if not isinstance(part, list)]
    return list(dict.fromkeys(it for part in parts for it in _values(part, known)))


def _cases(table: dict[str, list[str]]) -> Iterator[str]:
    for name, words in table.items():
        if words:
            yield f"    {shlex.quote(name)}) echo {shlex.quote(' '.join(words))} ;;"


BASH = r"""
_mtorl() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" lead="" key="${COMP_WORDS[1]}"
  local words="" flag="" inner="" i
  COMPREPLY=()
  if [[ $cur == --*=* ]]; then prev="${cur%%=*}"; lead="$prev="; cur="${cur#*=}"
  elif [[ $cur == "=" ]]; then cur=""
  elif [[ $prev == "=" ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [[ $COMP_CWORD == 1 ]]; then
    COMPREPLY=( $(compgen -W "$(_mtorl_commands) --help --version" -- "$cur") ); return
  fi
  if [[ $COMP_CWORD -gt 2 && -n $(_mtorl_words "$key") ]]; then
    if [[ -n $(_mtorl_options "$key ${COMP_WORDS[2]}") ]]; then key="$key ${COMP_WORDS[2]}"
    elif [[ -n $(_mtorl_options "$key RUN") ]]; then key="$key RUN"; fi
  fi
  if [[ -z $lead && $cur == -* ]]; then
    cur="--${cur#--}"; cur="--$(echo "${cur#--}" | tr - _)"
    words="$(_mtorl_options "$key")"
    if [[ $cur == --*.* ]]; then
      flag="${cur%.*}"
      for inner in $(_mtorl_inner "$key" "$flag"); do words="$words $flag.$inner"; done
    fi
  elif [[ $prev == --*.help ]]; then words="$(_mtorl_of "$key" "${prev%.help}")"
  elif [[ $prev == --* ]]; then words="$(_mtorl_of "$key" "$prev")"
  else words="$(_mtorl_words "$key")"; fi
  for i in $(compgen -W "$words" -- "$cur"); do COMPREPLY+=( "$lead$i" ); done
}
# What the option $2 of the command $1 can be set to: its own values, or those of an option of a member.
_mtorl_of() {
  local found="$(_mtorl_values "$1 $2")" kind
  if [[ -z $found && $2 == --*.* ]]; then
    for kind in $(_mtorl_chosen "$1" "${2%.*}"); do found="$found $(_mtorl_values "$kind.${2##*.}")"; done
  fi
  echo $found
}
# The members that the option $2 stands for: the one that was typed, or all that there are.
_mtorl_chosen() {
  local i word
  for (( i = 2; i < ${#COMP_WORDS[@]}; i++ )); do
    if [[ ${COMP_WORDS[i]} == "$2" ]]; then
      word="${COMP_WORDS[i+1]}"
      [[ $word == "=" ]] && word="${COMP_WORDS[i+2]}"
      echo "$word"; return
    elif [[ ${COMP_WORDS[i]} == "$2="* ]]; then echo "${COMP_WORDS[i]#*=}"; return; fi
  done
  _mtorl_of "$1" "$2"
}
_mtorl_inner() {
  local kind
  for kind in $(_mtorl_chosen "$1" "$2"); do _mtorl_members "$kind"; done | tr ' ' '\n' | sort -u
}
"""


def bash(table: Table) -> str:
    """The script for bash."""
    from mtorl.commands.main import COMMANDS

    parts = [f"# Completion of mtorl. Once: {HINTS['bash']}"]
    for name, content in (
        ("options", table.options),
        ("words", table.words),
        ("values", table.values),
        ("members", table.members),
    ):
        parts += [f'_mtorl_{name}() {{\n  case "$1" in', *_cases(content), "  esac\n}"]
    parts.append(f"_mtorl_commands() {{ echo {shlex.quote(' '.join(COMMANDS))}; }}")
    return "\n".join(parts) + BASH + "complete -o default -F _mtorl mtorl"


def zsh(table: Table) -> str:
    """The script for zsh, which reads bash's with a module of its own."""
    start = "#compdef mtorl\nautoload -U +X bashcompinit && bashcompinit"
    script = bash(table).replace(HINTS["bash"], HINTS["zsh"])
    call = '[[ ${funcstack[1]} == _mtorl ]] && _bash_complete -o default -F _mtorl_bash "$@"'
    return "\n".join(
        [start, script.replace("\n_mtorl()", "\n_mtorl_bash()").replace("-F _mtorl ", "-F _mtorl_bash "), call]
    )


def fish(table: Table) -> str:
    """The script for fish. It offers the own options of all members of a family, whichever was chosen."""
    from mtorl.commands.main import COMMANDS

    lines = [f"# Completion of mtorl. Once: {HINTS['fish']}"]
    lines += [_fish("__fish_use_subcommand", "-f", "-a", shlex.quote(" ".join(COMMANDS)))]
    for command, options in table.options.items():
        seen = f"__fish_seen_subcommand_from {command.split()[0]}"
        seen = " ; and ".join(
            [seen, *(f"__fish_seen_subcommand_from {kind}" for kind in command.split()[1:] if kind != "RUN")]
        )
        for option in options:
            values = table.values.get(f"{command} {option}", [])
            lines.append(
                _fish(seen, "-l", option[2:], *(["-x", "-a", shlex.quote(" ".join(values))] if values else []))
            )
            lines += [_fish(seen, "-l", f"{option[2:]}.{own}", *rest) for own, rest in _own(values, table)]
    for command, words in table.words.items():
        lines.append(_fish(f"__fish_seen_subcommand_from {command.split()[0]}", "-a", shlex.quote(" ".join(words))))
    return "\n".join(lines)


def _fish(condition: str, *words: str) -> str:
    return f"complete -c mtorl -n '{condition}' {' '.join(words)}"


def _own(values: Sequence[str], table: Table) -> Iterator[tuple[str, list[str]]]:
    """The own options of these members, and what they can be set to."""
    found: dict[str, list[str]] = {}
    for kind in values:
        for own in table.members.get(kind, []):
            found.setdefault(own, []).extend(table.values.get(f"{kind}.{own}", []))
    for own, known in found.items():
        yield own, (["-x", "-a", shlex.quote(" ".join(dict.fromkeys(known)))] if known else [])
