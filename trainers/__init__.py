"""Training, checkpoints and reports."""

if __name__ == "trainers":
    raise ImportError("import mtorl.trainers, not trainers: run `pip install -e .` in the repository first")

from mtorl.trainers.run import Run, train

__all__ = ["Run", "train"]
