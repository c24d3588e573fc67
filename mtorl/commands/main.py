"""The command `mtorl`: from a command line to objects. Sub-commands load what they need, so `--help` is fast."""

import importlib
import keyword
import os
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from mtorl import InputError, __version__

USAGE = """usage: mtorl [--help] [--version] COMMAND ...

Multi-task offline reinforcement learning: one policy, many tasks, success per task.

commands:
{}
`mtorl COMMAND --help` lists a command's options. Every command that takes many also takes --config FILE.yaml and
--print_config.
"""
COMMANDS = (
    "demo",
    "collect",
    "import",
    "export",
    "info",
    "split",
    "filter",
    "merge",
    "train",
    "evaluate",
    "report",
    "film",
    "group",
    "masks",
    "conflicts",
    "ablate",
    "list",
    "completion",
)
"""A command is a file beside this one: `run` gets its arguments, the file's first sentence says what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        Exit code: 0, 1 if part of what was to be shown could not be read, 2 for wrong input, 130 after Ctrl-C.
    """
    _open_standard_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `mtorl info data | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"error: {error.filename or 'a file or pipe'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search("memory|Storage size|overflow", str(error))):
            raise
        print(f"error: {_out_of_memory(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted: {str(interrupt) or _how_to_continue(arguments)}", file=sys.stderr)
        return 130
    return code


def _run(arguments: list[str]) -> int:
    """Runs the command that is named first; returns the exit code, unless something is raised."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        print(_usage(), end="", file=sys.stderr)
        print(f"\nerror: unknown command {arguments[0]!r}; expected one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: classes in files of the current folder can be named
    damaged: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)
        if category.__name__ == "DamageWarning":  # by its name: what defines it need not be loaded
            damaged.append(str(message))

    warnings.showwarning = show
    module(arguments[0]).run(arguments[1:])
    return 1 if damaged else 0


def module(command: str) -> Any:
    """The file of a command."""
    return importlib.import_module(f"mtorl.commands.{command}{'_' if keyword.iskeyword(command) else ''}")


def _usage() -> str:
    lines = ((name, (module(name).__doc__ or "").split(".")[0]) for name in COMMANDS)
    return USAGE.format("".join(f"  {name:<10} {line[0].lower()}{line[1:]}\n" for name, line in lines))


def _open_standard_streams() -> None:
    """Gives closed standard streams (`>&-`) the null device; a file opened later would take their place."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
        name = ("stdin", "stdout", "stderr")[handle]
        setattr(sys, name, os.fdopen(handle, "w" if handle else "r"))
    os.close(handle)


def _out_of_memory(error: BaseException) -> str:
    reason = next(iter(str(error).splitlines()), "").rstrip(".") or "an allocation failed"
    remedy = "Use smaller batches (--windows), a smaller network, or fewer --workers"
    return f"the memory does not suffice ({reason}). {remedy}."


def _how_to_continue(arguments: list[str]) -> str:
    if arguments[0] in ("demo", "collect", "evaluate", "ablate"):
        return f"what is finished was saved; continue with the same command, `mtorl {shlex.join(arguments)}`."
    return "nothing was begun."
