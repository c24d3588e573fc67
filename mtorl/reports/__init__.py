"""What was measured, for people: pages, tables, pictures, and the same numbers as JSON."""
