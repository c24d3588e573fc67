"""Imports only go down and never in circles; the package is complete; importing it is cheap."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("agents", "envs", "datasets", "trainers", "configs")
LEVELS = {  # the longest matching prefix decides
    "mtorl": 0,
    "mtorl.progress": 0,
    "mtorl.arguments": 0,
    "mtorl.datasets": 1,
    "mtorl.envs": 1,
    "mtorl.configs": 1,
    "mtorl.agents": 2,
    "mtorl.envs.workers": 3,
    "mtorl.envs.collect": 3,
    "mtorl.envs.evaluator": 3,
    "mtorl.envs.references": 3,
    "mtorl.trainers.gradients": 3,
    "mtorl.trainers.monitor": 4,
    "mtorl.trainers.sharing": 3,
    "mtorl.trainers.seeding": 3,
    "mtorl.trainers.optimizer": 3,
    "mtorl.trainers.checkpoint": 3,
    "mtorl.trainers.logs": 3,
    "mtorl.trainers.executions": 4,
    "mtorl.trainers.update": 4,
    "mtorl.trainers.policy": 4,
    "mtorl.trainers.balancers": 5,
    "mtorl.trainers.groupers": 5,
    "mtorl.trainers": 6,
    "mtorl.families": 6,
    "mtorl.tables": 6,
    "mtorl.cli": 7,
    "mtorl.__main__": 8,
}


def _modules() -> dict[str, Path]:
    found = {}
    for folder in ("mtorl", *FOLDERS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if folder == "mtorl" and path.parent != ROOT / "mtorl":
                continue  # the links beside the package point at the same files
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            parts = parts if folder == "mtorl" else ["mtorl", *parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> set[str]:
    """Modules of the project that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in names if name in MODULES}


def _level(module: str) -> int:
    return LEVELS[max((prefix for prefix in LEVELS if f"{module}.".startswith(f"{prefix}.")), key=len)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    above = {other for other in _imports(MODULES[module]) if _level(other) > _level(module) and other != module}
    if MODULES[module].name == "__init__.py":
        above = {other for other in above if not other.startswith(f"{module}.")}  # the public face of a family
    assert not above, f"{module} imports {above}, which stand above it"


def test_no_module_imports_itself_over_others() -> None:
    graph = {module: _imports(path) - {module} for module, path in MODULES.items()}
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            graph[module] = set()  # what a face shows may import its siblings through it
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
        package = ".".join(("mtorl", *path.relative_to(ROOT).parts[:-1]))
        assert any(path.match(pattern) for pattern in data.get(package, [])), f"{path} would not be installed"


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_folder_names_are_refused_with_a_remedy(folder: str) -> None:
    result = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert f"import mtorl.{folder}" in result.stderr


@pytest.mark.parametrize(
    "code", ["import mtorl", "from mtorl.cli import main; main(['--help'])", "import mtorl.envs", "import mtorl.tables"]
)
def test_cheap_imports_do_not_load_torch(code: str) -> None:
    check = f"import sys\n{code}\nassert not {{'torch', 'mujoco', 'matplotlib'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
