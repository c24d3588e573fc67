"""Configurations of `mtorl ablate`."""
