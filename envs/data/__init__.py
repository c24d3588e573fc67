"""Data files of the suites."""
