"""The shape of the house: which way imports point, and what stays light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: what each package may import of the others
ALLOWED = {
    "wise": set(),
    "ingest": set(),
    "policies": set(),
    "daemon": {"wise", "ingest", "policies", "demo"},
    "demo": {"daemon"},
}
#: what the editing core must not know
FOREIGN_TO_WISE = {
    "sqlite3",
    "sqlite_utils",
    "apscheduler",
    "feedparser",
    "httpx2",
    "typer",
    "click",
    "rich",
    "structlog",
    "sentence_transformers",
}


def imports(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        others = (imports(path) & set(ALLOWED)) - {package}
        assert others <= ALLOWED[package], f"{path} imports {others - ALLOWED[package]}"


def test_the_editing_core_knows_nothing_of_the_service() -> None:
    for path in (ROOT / "wise").rglob("*.py"):
        assert not imports(path) & FOREIGN_TO_WISE, path


def test_the_daemon_process_imports_no_torch() -> None:
    """Only the worker does; everything else in `daemon` must do without."""
    heavy = {"torch", "transformers", "sentence_transformers", "safetensors"}
    for path in (ROOT / "daemon").rglob("*.py"):
        if "worker" not in path.parts:
            assert not imports(path) & heavy, path


@pytest.mark.parametrize("package", ["wise", "ingest"])
def test_public_names_exist_and_are_sorted(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), n))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from daemon.cli import main\n"
        f"sys.argv = ['wised', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'feedparser', 'httpx2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_no_source_opens_a_pickle_or_runs_foreign_code() -> None:
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            assert not imports(path) & {"pickle", "dill", "joblib", "marshal"}, path
            text = path.read_text("utf-8")
            assert "trust_remote_code=True" not in text, path
            assert "torch.load(" not in text, path
