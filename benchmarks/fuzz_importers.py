"""Files of strangers, by the thousand: an importer makes a right data set of them, or says one clear error.

    python benchmarks/fuzz_importers.py d4rl --count 2000 --save    # writes results/fuzz_d4rl.json
    python benchmarks/fuzz_importers.py d4rl --forked               # the first 100, as CI does
    python benchmarks/fuzz_importers.py d4rl --case 17              # one case again, with what happened

A quarter of the cases is made to do harm or odd in a way of its own, the others are right files that were damaged
(`corpus.py`, `corpus_KIND.py`). Every case runs in a process of its own with 1 GB of memory beyond what it starts with.
What may not happen: any other exception than InputError, a warning, a crash, more than LIMIT seconds, code of the files
that is run, values from outside of them, anything left after an error, a data set that does not verify itself.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from corpus import ELSEWHERE, MARKER, SECRET, Corpus, damage

from mtorl import InputError
from mtorl.datasets.importers import reading_process, reading_server
from mtorl.envs.importing import import_data

LIMIT = 15
"""Seconds of a case: 10 for one answer of what reads it, the rest for a busy machine."""
MEMORY = 1 << 30
GOOD = ("imported", "refused")


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        kind: "imported" or "refused" as it should be, or what went wrong.
        text: The error's message, or more of what went wrong.
        seconds: It took.
        memory: Bytes that its process had at most.
    """

    kind: str
    text: str
    seconds: float = 0.0
    memory: int = 0


def make_case(corpus: Corpus, folder: Path, seed: int, number: int) -> str:
    """Writes the files of a case into a new folder; says what they are."""
    draw = np.random.default_rng([seed, number])
    folder.mkdir()
    if number % 4 == 0:  # each of them as often as the others
        make = corpus.hostile[number // 4 % len(corpus.hostile)]
        make(folder, draw)
        return make.__name__
    right = corpus.right[draw.integers(len(corpus.right))]
    right(folder, draw)
    return f"{right.__name__}: {damage(folder, draw, corpus.links)}"


def judge(corpus: Corpus, folder: Path, out: Path) -> Outcome:
    """Imports a folder, in this process."""
    words = corpus.words(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store = import_data(corpus.importer(), words, out, quiet=True)
            store.verify()
    except InputError as error:
        if out.exists():
            return Outcome("an import that does not verify", str(error))
        return _clear(str(error), folder)
    except BaseException:
        return Outcome("another exception", traceback.format_exc())
    if any((np.asarray(values) == SECRET).any() for values in (store.observations, store.actions, store.rewards)):
        return Outcome("values from elsewhere", str(words))
    return Outcome("imported", f"{len(store.index)} episodes")


def _clear(text: str, folder: Path) -> Outcome:
    """An error is one line, not longer than a screen, and names a file or the task that is called as it is."""
    names = {path.stem for path in (folder, *folder.rglob("*"))}
    if "\n" in text or len(text) > 3000 or not any(name in text for name in names):
        return Outcome("an unclear error", text)
    return Outcome("refused", text)


def run_case(corpus: Corpus, folder: Path, out: Path) -> Outcome:
    """Imports a folder in a process of its own, within limits."""
    receiving, sending = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if not child:
        os.setsid()
        _limit()
        outcome = judge(corpus, folder, out)
        with os.fdopen(sending, "w") as pipe:
            json.dump([outcome.kind, outcome.text[:20_000]], pipe)
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    seconds, memory = time.perf_counter() - start, usage.ru_maxrss * 1024
    if status:
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        return Outcome("a hang" if late else "a crash", f"wait status {status}", seconds, memory)
    kind, text = json.loads(answer)
    left = [path.name for path in out.parent.iterdir() if path not in (folder, out) and path.name != ELSEWHERE]
    if MARKER in left:
        return Outcome("code that was run", text, seconds, memory)
    if left:
        return Outcome("something that was left", f"{left}: {text}", seconds, memory)
    return Outcome(kind, text, seconds, memory)


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    _, hardest = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hardest))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT)


class Forked:
    """What reads files, as a fork of this process that has loaded all it needs; in place of `subprocess.Popen`."""

    formats: ClassVar[dict[str, ModuleType]] = {}

    def __init__(self, command: list[str], **options: Any) -> None:
        (theirs, sending), (receiving, ours) = os.pipe(), os.pipe()
        self.status: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.dup2(theirs, 0)
            os.dup2(ours, 1)
            os.closerange(3, 100)
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
            try:
                reading_server.serve(self.formats[command[-1]])
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(ours)
        self.stdin, self.stdout = os.fdopen(sending, "wb"), os.fdopen(receiving, "rb", 0)

    def kill(self) -> None:
        """Ends it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Until it has ended."""
        if self.poll() is None:
            os.waitpid(self.pid, 0)
            self.status = 0

    def poll(self) -> int | None:
        """None as long as it runs."""
        if self.status is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.status = 0
        return self.status

    @classmethod
    def use(cls) -> None:
        """From now on."""
        os.environ |= reading_process.QUIET
        for path in Path(reading_server.__file__).parent.glob("*_server.py"):
            if path.stem != reading_server.__name__.rpartition(".")[2]:
                with contextlib.suppress(ImportError):  # of an extra
                    cls.formats[path.stem] = import_module(f"mtorl.datasets.importers.{path.stem}")
        reading_process.subprocess = SimpleNamespace(Popen=cls, PIPE=None, DEVNULL=None)


def cases(name: str, seed: int, numbers: range) -> Iterator[tuple[int, str, Outcome]]:
    """Runs cases one after the other: their numbers, what they are and how they ended."""
    corpus = corpus_of(name)
    for number in numbers:
        home = Path(tempfile.mkdtemp(prefix="fuzz-"))
        try:
            what = make_case(corpus, home / "case", seed, number)
            yield number, what, run_case(corpus, home / "case", home / "store")
        finally:
            shutil.rmtree(home)


def corpus_of(name: str) -> Corpus:
    """The corpus of an importer."""
    found = import_module(f"corpus_{name}").CORPUS
    assert isinstance(found, Corpus)
    return found


def main() -> int:
    """Runs cases; returns how many went wrong, 1 at most."""
    kinds = sorted(path.stem.removeprefix("corpus_") for path in Path(__file__).parent.glob("corpus_*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="Only this one.")
    parser.add_argument("--save", action="store_true", help="Write results/fuzz_KIND.json.")
    parser.add_argument("--forked", action="store_true", help="Fork what reads files, do not start it: much faster.")
    options = parser.parse_args()
    if options.forked:
        Forked.use()
    one = options.case is not None
    numbers = range(options.case, options.case + 1) if one else range(options.count)
    counts: Counter[str] = Counter()
    seconds, memory = 0.0, 0
    for number, what, outcome in cases(options.kind, options.seed, numbers):
        counts[outcome.kind] += 1
        seconds, memory = max(seconds, outcome.seconds), max(memory, outcome.memory)
        if one or outcome.kind not in GOOD:
            print(f"case {number} ({what}): {outcome.kind}\n{outcome.text}\n", flush=True)
    result = {
        "seed": options.seed,
        "count": len(numbers),
        "forked": options.forked,
        "outcomes": dict(sorted(counts.items())),
        "longest_seconds": round(seconds, 1),
        "most_memory_mb": round(memory / 1e6),
    }
    print(json.dumps(result))
    if options.save:
        from common import save

        save(f"fuzz_{options.kind}", result)
    return int(any(kind not in GOOD for kind in counts))


if __name__ == "__main__":
    sys.exit(main())
