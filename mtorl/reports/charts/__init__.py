"""Pictures of reports: each takes what was measured and gives a figure."""
