"""The rules of the house: who may import whom, lint, format, types, and the name `kernels`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"app", "engine", "kernels", "resources"}
QT = {"PySide6", "pyqtgraph", "qtawesome"}
HEAVY = {"torch", "transformers", "numba", "triton"}
FORBIDDEN = {
    # part of the tree: (ours it must not import, others it must not import)
    "kernels": ({"app", "engine", "resources"}, QT | {"transformers"}),
    "engine/api": ({"app", "engine", "kernels", "resources"}, QT | HEAVY),
    "engine": ({"app"}, QT),
    "app": ({"engine", "kernels"}, HEAVY),
}
ALLOWED = {"engine/api": {"engine.api"}, "app": {"engine.api"}}


def imports(source: str) -> list[str]:
    """Every module that the text imports, at any depth; `from a import b` counts as a.b."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names]
    return found


def broken(part: str, source: str) -> list[str]:
    """The imports in `source`, a file under `part`, that the dependency rule forbids."""
    ours, others = FORBIDDEN[part]
    found = []
    for name in imports(source):
        if any(name == good or name.startswith(good + ".") for good in ALLOWED.get(part, ())):
            continue
        if name.startswith(".") or name.split(".")[0] in ours | others:
            found.append(name)
    return found


@pytest.mark.parametrize("part", FORBIDDEN)
def test_dependency_rule(part):
    faults = {}
    for file in sorted((ROOT / part).rglob("*.py")):
        if part == "engine" and file.is_relative_to(ROOT / "engine" / "api"):
            continue
        if found := broken(part, file.read_text()):
            faults[str(file.relative_to(ROOT))] = found
    assert not faults


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("kernels", "import engine.cli"),
        ("kernels", "from engine.api import errors"),
        ("engine/api", "def f():\n    import torch"),
        ("engine/api", "from engine.jobs import folder"),
        ("engine", "from PySide6 import QtCore"),
        ("engine", "import app.views"),
        ("app", "from engine.checkpoint import open_checkpoint"),
        ("app", "import numba"),
        ("app", "from . import x"),
    ],
)
def test_dependency_rule_sees_a_breach(part, line):
    assert broken(part, line)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("app", "from engine.api.recipe import Recipe"),
        ("engine", "import kernels.cpu"),
        ("kernels", "import numba"),
    ],
)
def test_dependency_rule_lets_the_allowed_pass(part, line):
    assert not broken(part, line)


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["lint", "format", "types"],
)
def test_clean(command):
    done = run("-m", *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_else_at_the_top():
    """Tracked top-level names are those of the fixed layout."""
    listed = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    fixed = OURS | {"pyproject.toml", "README.md", "tests", "packaging"}
    assert {name for name in listed.stdout.split() if not name.startswith(".")} <= fixed


def test_transformers_does_not_take_our_kernels_for_its_own():
    """`kernels` is also a Hugging Face package; ours must not switch that integration on."""
    done = run(
        "-c",
        "import kernels, torch\n"
        "from transformers import AutoModelForCausalLM, LlamaConfig\n"
        "from transformers.utils import is_kernels_available\n"
        f"assert kernels.__file__.startswith({str(ROOT)!r}), kernels.__file__\n"
        "assert not is_kernels_available()\n"
        "config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1,\n"
        "                     num_attention_heads=2, num_key_value_heads=1)\n"
        "model = AutoModelForCausalLM.from_config(config)\n"
        "print(model(torch.arange(8)[None]).logits.shape)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([1, 8, 32])"


def test_opening_does_not_load_the_heavy_libraries():
    """`bitwright inspect` starts fast: no torch, transformers or Numba for reading headers."""
    done = run(
        "-c", f"import sys, engine.cli, engine.checkpoint; print([m for m in sys.modules if m in {HEAVY}])"
    )
    assert done.stdout.strip() == "[]", done.stderr
