"""The notebooks are whole, have no outputs, import what exists, and the README knows them; `make notebooks` runs them."""

import ast
import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ABSOLUTE = re.compile(r"""(?<![\w.:/<])/(?:home|Users|root|work|tmp|mnt|opt|usr|data|content|var)\b|\b[A-Z]:\\\\""")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def code(path: Path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, "code"))


def exists(module: str, name: str) -> bool:
    """Whether `from module import name` works."""
    return hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}") is not None


def test_there_are_notebooks() -> None:
    names = ["grf", "heat_diffusion_solver", "heat_kernel", "inference", "neural_processes"]
    assert [path.stem for path in NOTEBOOKS] == names


@each
def test_a_notebook_is_valid_and_small(path: Path) -> None:
    book = json.loads(path.read_text())
    assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert path.stat().st_size < 60_000
    nbformat = pytest.importorskip("nbformat")  # of the extra `notebooks`
    nbformat.validate(nbformat.reads(path.read_text(), as_version=4))


@each
def test_a_notebook_has_no_outputs(path: Path) -> None:
    assert cells(path, "code") and cells(path, "markdown")
    for cell in cells(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@each
def test_a_notebook_imports_only_what_exists(path: Path) -> None:
    found = 0
    for node in ast.walk(ast.parse(code(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            found += module.startswith("heatgen.")
            assert [alias.name for alias in node.names if not exists(module, alias.name)] == []
    assert found


@each
def test_a_notebook_names_no_path_of_a_machine_and_checks_what_it_says(path: Path) -> None:
    assert not ABSOLUTE.search(path.read_text())
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code(path))))


@each
def test_links_between_notebooks_lead_somewhere(path: Path) -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    for target in re.findall(r"\]\(([^)]+\.ipynb)\)", text):
        assert (path.parent / target).is_file()


@each
def test_the_readme_mentions_a_notebook(path: Path) -> None:
    assert f"notebooks/{path.name}" in (ROOT / "README.md").read_text()
