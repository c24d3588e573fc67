"""How the code is laid out, in numbers that can be watched: sizes, signatures, and how far things travel.

python benchmarks/house.py            # a table, seconds
python benchmarks/house.py --tests    # also the wall time of the test suite
"""

import argparse
import ast
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from common import save

ROOT = Path(__file__).parent.parent
FOLDERS = ("mtorl", "agents", "envs", "datasets", "trainers", "configs")
LONG_FILE, LONG_FUNCTION = 300, 40
RATE = "0.0012345"
"""A configured value that is nowhere else."""


def files() -> list[Path]:
    """The sources of the package; the links in mtorl/ point at the same ones."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT).parts
            if folder != "mtorl" or len(inner) < 3 or inner[1] not in FOLDERS:
                found.append(path)
    return found


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods of a file, by their names in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(ROOT)}:{node.name}", node  # type: ignore[misc]


def body_lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring and its signature."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def parameters(node: ast.FunctionDef) -> int:
    """Parameters of a function, without self and cls."""
    names = [it.arg for it in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def signature_dictionaries(node: ast.FunctionDef) -> int:
    """How often a signature says `dict[str, Any]`."""
    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    notes = [it.annotation for it in every if it.annotation is not None] + ([node.returns] if node.returns else [])
    return sum(ast.unparse(note).count("dict[str, Any]") for note in notes)


def static() -> dict[str, Any]:
    """What can be read off the sources."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files()}
    every = [it for path in files() for it in functions(path)]
    long = {name: body_lines(node) for name, node in every if body_lines(node) > LONG_FUNCTION}
    options = {"ablate", "evaluate", "collect", "report"}  # signatures that are a command's options
    lists = {
        name: parameters(node)
        for name, node in every
        if node.name != "__init__" and name.rsplit(":", 1)[1] not in options
    }
    longest, list_longest = max(lines, key=lines.__getitem__), max(lists, key=lists.__getitem__)
    return {
        "longest file": [longest, lines[longest]],
        "files above 300 lines": sorted(name for name, count in lines.items() if count > LONG_FILE),
        "functions above 40 lines": dict(sorted(long.items(), key=lambda it: -it[1])),
        "longest parameter list": [list_longest, lists[list_longest]],
        "dict[str, Any] in signatures": sum(signature_dictionaries(node) for _, node in every),
        "share of code in trainers": sum(count for name, count in lines.items() if name.startswith("trainers/"))
        / sum(lines.values()),
        "lines": sum(lines.values()),
    }


def touched() -> dict[str, list[str]]:
    """Files that name one member of a family, or one option: what adding it touched, without its own tests."""
    names = {"evaluation option": "stop_at_success", "agent": "SoftModular", "balancer": "MGDA", "network": "PaCo"}
    found = {}
    for kind, name in names.items():
        sources = [*files(), *ROOT.glob("*/**/*.pyi"), ROOT / "tests/families.py"]
        places = {it.resolve() for it in sources if re.search(rf"\b{name}\b", it.read_text())}
        found[kind] = sorted(str(it.relative_to(ROOT)) for it in places)
    return found


class Walk:
    """Notes through which functions of the package a program goes while the block runs."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __enter__(self) -> "Walk":
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        room = self.room(frame)
        if event == "call" and room and self.looks(frame):
            self.calls.append((room, frame.f_code.co_qualname))

    @staticmethod
    def room(frame: FrameType) -> str:
        """The file of the package that a frame is in, or nothing."""
        path = Path(frame.f_code.co_filename)
        name = str(path.resolve().relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
        return name if name.split("/")[0] in FOLDERS else ""

    def looks(self, frame: FrameType) -> bool:
        """Whether a call is of interest."""
        return True


class ValueWalk(Walk):
    """Only calls whose arguments hold the configured learning rate."""

    def looks(self, frame: FrameType) -> bool:
        """See `Walk.looks`."""
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount + 2]
        return any(RATE in repr(frame.f_locals[name])[:20000] for name in names if _plain(frame.f_locals.get(name)))


class StackWalk(Walk):
    """The rooms that are waiting for each other when the losses are computed, and when the optimizer moves."""

    ENDS = ("RegressionHead.losses", "PhaseOptimizer.step")

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_qualname in self.ENDS:
            stack: list[tuple[str, str]] = []
            here: FrameType | None = frame
            while here is not None:
                room = self.room(here)
                if room and (not stack or stack[-1][0] != room):
                    stack.append((room, here.f_code.co_qualname))
                here = here.f_back
            self.calls += stack[::-1]


def _plain(value: Any) -> bool:
    return type(value).__name__ in ("str", "list", "tuple", "dict", "Namespace", "float")


def walks() -> dict[str, Any]:
    """A configured value to its constructor, and a batch to moved parameters."""
    from mtorl.envs import PointReach
    from mtorl.envs.collect import collect
    from mtorl.runs.configuration import Configuration, train_parser
    from mtorl.trainers.checkpoint import CheckpointFolder
    from mtorl.trainers.logs import NoLog

    with tempfile.TemporaryDirectory() as folder:
        data = collect(PointReach(["towards-0", "away-0"]), Path(folder) / "data", episodes=2, workers=0, quiet=True)
        with ValueWalk() as value:
            options = [f"--data=[{data.path}]", f"--out={folder}/run", f"--optimizer.lr={RATE}", "--balancer=PCGrad"]
            experiment = Configuration.parse([*options, "--agent.hidden=[8]"]).experiment()
        stores, spec = experiment.open_data()
        never: Any = None
        trainer = experiment.build_trainer(stores, spec, NoLog(), CheckpointFolder(Path(folder)), never, {})
        trainer.advance()  # the first step is looked at by the monitor
        with StackWalk() as batch:
            trainer.advance()
        train_parser.cache_clear()
        begun = time.perf_counter()
        Configuration.parse(options).experiment()
        seconds = time.perf_counter() - begun
    return {
        "seconds of configuration to open a policy": seconds,
        "stays of a configured value": len(value.calls),
        "its rooms": list(dict.fromkeys(room for room, _ in value.calls)),
        "rooms between a batch and moved parameters": list(dict.fromkeys(room for room, _ in batch.calls)),
        "visits to update": len({call for call in batch.calls if call[0].endswith("update.py")}),
    }


def main() -> None:
    """Prints the table and keeps the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tests", action="store_true", help="Also run the test suite, for its wall time.")
    arguments = parser.parse_args()
    found = static() | {"files touched": touched()} | walks()
    if arguments.tests:
        begun = time.perf_counter()
        subprocess.run(["make", "test"], cwd=ROOT, check=True)
        found["minutes of the test suite"] = (time.perf_counter() - begun) / 60
    for name, value in found.items():
        print(f"{name}: {value}")
    save("house", found)


if __name__ == "__main__":
    main()
