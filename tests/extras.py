"""Which tests use the packages of each extra: `python tests/extras.py ray` names those files."""

import sys

EXTRAS = {
    "bench": {
        "tests/test_bench.py": 'find_spec("LibMTL")',
        "tests/trainers/balancers/test_torchjd.py": 'importorskip("torchjd.aggregation")',
    },
    "d4rl": {"tests/datasets/test_d4rl_scores.py": "package_infos()"},
    "docs": {"tests/test_docs.py": 'find_spec("mkdocs")'},
    "lerobot": {
        "tests/datasets/test_lerobot.py": 'importorskip("pyarrow")',
        "tests/datasets/test_parquet_reader.py": 'importorskip("pyarrow")',
    },
    "minari": {"tests/datasets/test_exporters.py": 'find_spec("minari")'},
    "onnx": {"tests/runs/test_portable.py": "importorskip(name) for name in ONNX_PACKAGES"},
    "ray": {"tests/envs/test_engines.py": 'importorskip("ray")', "tests/envs/test_ray_pool.py": 'importorskip("ray")'},
    "sdp": {"tests/trainers/groupers/test_clusters.py": 'find_spec("cvxpy")'},
    "torchjd": {"tests/trainers/balancers/test_torchjd.py": 'importorskip("torchjd.aggregation")'},
    "trackio": {"tests/trainers/trackers/test_trackers.py": 'importorskip("trackio")'},
    "video": {"tests/reports/test_films.py": 'importorskip("imageio_ffmpeg")'},
    "wandb": {"tests/trainers/trackers/test_trackers.py": 'importorskip("wandb")'},
}
"""Of every extra but `dev`: test files, and where each asks whether the package is there."""

if __name__ == "__main__":
    print(*EXTRAS[sys.argv[1]])
