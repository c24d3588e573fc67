"""From the losses of many tasks to moved parameters."""

if __name__ == "trainers":
    raise ImportError("import mtorl.trainers, not trainers: run `pip install -e .` in the repository first")

from mtorl import earlier

__getattr__ = earlier.lookup(__name__)
