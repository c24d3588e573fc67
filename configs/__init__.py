"""Presets, as YAML files."""

if __name__ == "configs":
    raise ImportError("import mtorl.configs, not configs: run `pip install -e .` in the repository first")
