"""Trained policies that can be had by name: `zoo:bc_mt10` stands for the folder of a run.

Entries are looked for in `$MTORL_ZOO`, then in the package (in a clone: the folder `zoo`). They are runs as `mtorl
export RUN --format run` writes them: small, and with the hash of every file, which is checked before anything is read.
"""

import os
from pathlib import Path

import mtorl
from mtorl import InputError
from mtorl.envs.results import EvalReport, Played
from mtorl.files import sha256, write_atomically

PREFIX = "zoo:"
SUMS = "SHA256SUMS"
"""Hashes of the files of an entry, as `sha256sum --check` reads them."""
HOME = Path("runs/zoo")
"""Where new results of entries go: these themselves are not written to."""


def is_entry(run: str | Path) -> bool:
    """Whether a run is named as an entry of the zoo."""
    return str(run).startswith(PREFIX)


def entries() -> dict[str, Path]:
    """The folders of all entries, by name."""
    found: dict[str, Path] = {}
    for place in _places():
        for path in sorted(place.glob(f"*/{SUMS}")):
            found.setdefault(path.parent.name, path.parent)
    return found


def entry_folder(run: str | Path) -> Path:
    """The folder of an entry, whose files are what they were.

    Args:
        run: Its name with `zoo:` before it.

    Raises:
        InputError: There is none of that name, or it is damaged.
    """
    name, known = str(run).removeprefix(PREFIX), entries()
    if name not in known:
        raise InputError(
            f"the zoo has no {name!r}; expected one of {', '.join(known) or 'none: no zoo was found'}. Its folders are "
            f"{', '.join(map(str, _places()))}; set MTORL_ZOO to one of your own."
        )
    check_sums(known[name])
    return known[name]


def write_sums(folder: Path) -> None:
    """Writes the hashes of all files of a folder into it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    text = "".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    write_atomically(folder / SUMS, lambda file: file.write(text.encode()))


def check_sums(folder: Path) -> None:
    """Raises InputError unless the files of a folder have the hashes that it says."""
    named = set()
    for line in (folder / SUMS).read_text(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        named.add(path)
        if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
            raise InputError(f"{folder} lacks {name!r}, which its {SUMS} names. Get the entry again.")
        if sha256(path) != digest:
            raise InputError(f"{path} is not what {SUMS} says: it is damaged, or was changed. Get the entry again.")
    others = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS and path not in named)
    if others or folder / "config.yaml" not in named:
        raise InputError(
            f"{folder}: its {SUMS} does not name {', '.join(map(str, others)) or 'config.yaml'}. Get the entry again."
        )


def like_the_card(report: EvalReport, kept: list[EvalReport]) -> tuple[int, int] | None:
    """How many episodes went as in the evaluations that an entry came with, and how many of them it knows.

    Success and length are compared; None if it came with none that was played in this way.
    """
    before: dict[tuple[str, int], Played] = {}
    for other in kept:
        differing = other.settings.differences(report.settings)
        if other.task_names == report.task_names and differing in ([], ["protocol"]) and _alike(other, report):
            before |= {(episode.task, episode.goal): episode for episode in other.episodes}
    pairs = [(it, before[it.task, it.goal]) for it in report.episodes if (it.task, it.goal) in before]
    if not pairs:
        return None
    return sum((one.success, one.length) == (two.success, two.length) for one, two in pairs), len(pairs)


def _alike(one: EvalReport, other: EvalReport) -> bool:
    """Whether two protocols differ in the number of goals alone."""
    first, second = vars(one.protocol) | {"goals": 0}, vars(other.protocol) | {"goals": 0}
    return first == second and one.suite == other.suite


def _places() -> list[Path]:
    """Folders of entries, the first one first."""
    own = os.environ.get("MTORL_ZOO")
    return [*([Path(own)] if own else []), Path(mtorl.__file__).parent / "zoo"]
