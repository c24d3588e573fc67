"""What films cost: seconds of one core for an episode of 500 steps, and the size of a film of ten tasks.

python benchmarks/film.py runs/bc_mt10        # two minutes; a trained run of ten Meta-World tasks
"""

import sys
import tempfile
import time
from pathlib import Path

from common import save

from mtorl.envs.rendering import way_to_draw
from mtorl.reports.films import GRID, film
from mtorl.reports.frames import has_ffmpeg
from mtorl.runs.run import Run

GOALS = {"seconds of a core for an episode of 500 steps at 320x240": 10, "megabytes of a film of ten tasks": 5}


def main(folder: str) -> None:
    """Films one episode alone, then all tasks, in this process, and writes results/film.json."""
    run = Run(folder)
    task = run.spec.task_names[0]
    way = way_to_draw()  # found out once, in a child process
    seconds, megabytes = {}, {}
    with tempfile.TemporaryDirectory() as out:
        film(run, [task], out=out, workers=0, quiet=True)  # what is loaded once
        for name, options in (("alone", {}), ("beside the expert", {"expert": True})):
            start = time.process_time()
            (made,) = film(run, [task], out=out, workers=0, quiet=True, **options)
            seconds[name] = round(time.process_time() - start, 2)
            assert made.episodes[0].length == 500, "expected an episode of 500 steps"
        for kind in ("mp4", "gif") if has_ffmpeg() else ("gif",):
            start = time.process_time()
            films = film(run, out=Path(out) / kind, workers=0, quiet=True, format=kind)
            seconds[f"{len(films) - 1} tasks as {kind}"] = round(time.process_time() - start, 2)
            assert films[-1].path.stem == GRID
            megabytes[kind] = round(films[-1].path.stat().st_size / 1e6, 2)
    save(
        "film",
        {
            "drawn by": way,
            "core_seconds": seconds,
            "megabytes_of_all_tasks": megabytes,
            "as_evaluated": [sum(it is True for it in films[-1].as_evaluated), len(films[-1].as_evaluated)],
            "goals": GOALS,
        },
    )


if __name__ == "__main__":
    main(sys.argv[1])
