"""The commands of `mtorl`, one file each."""
