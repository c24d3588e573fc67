"""Writes the file of goals again: `python -m mtorl.envs.metaworld PATH.npz`."""

import sys

from mtorl.envs.metaworld.goals import regenerate_goals

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m mtorl.envs.metaworld PATH.npz")
    regenerate_goals(sys.argv[1])
