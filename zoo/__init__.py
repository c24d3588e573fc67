"""Trained policies: a folder each, which `zoo:NAME` stands for. `benchmarks/zoo.py` makes them."""

if __name__ == "zoo":
    raise ImportError("import mtorl.zoo, not zoo: run `pip install -e .` in the repository first")
