"""Imports only go down and never in circles; the package is complete; importing it is cheap."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("agents", "envs", "datasets", "trainers", "configs", "zoo")
LEVELS = {  # the longest matching prefix decides
    "mtorl": 0,
    "mtorl.configs": 0,
    "mtorl.zoo": 0,
    "mtorl.datasets": 1,
    "mtorl.envs": 2,
    "mtorl.agents": 3,
    "mtorl.envs.workers": 3,
    "mtorl.envs.engines": 3,
    "mtorl.envs.ray_pool": 3,
    "mtorl.envs.parcel": 4,
    "mtorl.envs.collect": 4,
    "mtorl.envs.importing": 4,
    "mtorl.envs.recording": 4,
    "mtorl.envs.evaluator": 4,
    "mtorl.envs.references": 5,
    "mtorl.envs.filming": 5,
    "mtorl.trainers": 4,
    "mtorl.trainers.executions": 5,
    "mtorl.trainers.distributed": 6,
    "mtorl.trainers.processes": 4,
    "mtorl.trainers.update": 6,
    "mtorl.trainers.policy": 6,
    "mtorl.trainers.balancers": 7,
    "mtorl.trainers.groupers": 7,
    "mtorl.trainers.monitor": 5,
    "mtorl.trainers.records": 7,
    "mtorl.trainers.phase_trainer": 8,
    "mtorl.trainers.offline": 9,
    "mtorl.runs": 10,
    "mtorl.reports": 11,
    "mtorl.commands": 12,
    "mtorl.__main__": 13,
}


def _modules() -> dict[str, Path]:
    found = {}
    for folder in ("mtorl", *FOLDERS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT)
            if folder == "mtorl" and len(inner.parts) > 2 and inner.parts[1] in FOLDERS:
                continue  # the links beside the package point at the same files
            parts = list(inner.with_suffix("").parts)
            parts = parts if folder == "mtorl" else ["mtorl", *parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _shown(face: Path) -> dict[str, str]:
    """What a face shows without loading it: the name, and where it is from."""
    stub = face.with_suffix(".pyi")
    tree = ast.parse(stub.read_text()) if stub.exists() else ast.Module([], [])
    return {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


FACES = {
    module: {name: f"{module}.{home}" for name, home in _shown(path).items()}
    for module, path in MODULES.items()
    if path.name == "__init__.py"
}


def _imports(path: Path) -> set[str]:
    """Modules of the project that a file imports anywhere, also inside functions; faces lead to what they show."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            shown = FACES.get(node.module, {})
            names |= {shown.get(alias.name, f"{node.module}.{alias.name}") for alias in node.names} | {node.module}
    return {name for name in names if name in MODULES}


def _level(module: str) -> int:
    return LEVELS[max((prefix for prefix in LEVELS if f"{module}.".startswith(f"{prefix}.")), key=len)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    above = {other for other in _imports(MODULES[module]) if _level(other) > _level(module)}
    assert not above, f"{module} imports {above}, which stand above it"


@pytest.mark.parametrize("module", FACES)
def test_faces_show_what_is_there(module: str) -> None:
    assert set(FACES[module].values()) <= set(MODULES)
    for name, home in FACES[module].items():
        assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(home), name)


def test_no_module_imports_itself_over_others() -> None:
    graph = {module: _imports(path) - {module} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_every_package_is_listed_for_installation() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert set(settings["packages"]) == packages == set(settings["package-dir"])
    data = settings["package-data"]
    for path in [p for f in FOLDERS for p in (ROOT / f).rglob("*") if p.suffix in (".yaml", ".html", ".npz", ".json")]:
        inner = path.relative_to(ROOT).parts
        package = ".".join(("mtorl", *(inner[:1] if inner[0] == "zoo" else inner[:-1])))
        assert any(path.match(pattern) for pattern in data.get(package, [])), f"{path} would not be installed"


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_folder_names_are_refused_with_a_remedy(folder: str) -> None:
    result = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert f"import mtorl.{folder}" in result.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import mtorl",
        "from mtorl.commands.main import main; main(['--help'])",
        "from mtorl.envs import PointReach",
        "from mtorl.envs import CheetahVel, Gymnasium",
        "import mtorl.reports.tables",
    ],
)
def test_cheap_imports_do_not_load_torch(code: str) -> None:
    check = f"import sys\n{code}\nassert not {{'torch', 'mujoco', 'matplotlib'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


@pytest.mark.parametrize(
    "family, name, most, below",
    [
        ("mtorl.trainers.balancers", "PCGrad", 25, ("mtorl.trainers",)),
        ("mtorl.trainers.sharing", "RandomMasks", 30, ("mtorl.trainers", "mtorl.agents", "mtorl.datasets")),
        ("mtorl.agents", "BehaviorCloning", 30, ("mtorl.datasets", "mtorl.envs")),
        ("mtorl.envs", "PointReach", 25, ("mtorl.datasets",)),
        ("mtorl.datasets", "EpisodeStore", 25, ()),
    ],
)
def test_a_member_loads_what_it_needs(family: str, name: str, most: int, below: tuple[str, ...]) -> None:
    code = f"import sys\nfrom {family} import {name}\nprint(*[it for it in sys.modules if it in sys.argv[1:]])"
    ask = [*MODULES, "jsonargparse", "yaml", "mujoco"]
    result = subprocess.run([sys.executable, "-c", code, *ask], check=True, capture_output=True, text=True)
    loaded = result.stdout.split()
    ours = [it for it in loaded if it.startswith("mtorl")]
    assert not {"jsonargparse", "yaml", "mujoco"} & set(loaded)
    assert len(ours) <= most, ours
    rooms = {".".join(it.split(".")[:2]) for it in ours if it.count(".") > 1}
    assert rooms <= {*(it for it in (family, *below) if it.count(".") == 1), ".".join(family.split(".")[:2])}, rooms
