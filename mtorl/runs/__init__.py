"""A run: from a configuration to a folder that holds it, judged and done again."""
