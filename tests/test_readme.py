"""The README tells the truth: its file tree, its links, its set-up commands."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def tree() -> set[str]:
    """The paths in the README's file tree: two spaces a level, folders end with a slash."""
    block = README.split("## Develop")[1].split("```")[3]
    found, folders = set(), []
    for line in block.strip("\n").splitlines():
        entry = re.match(r"( *)(\S+)", line)
        assert entry, line
        depth = len(entry[1]) // 2
        folders[depth:] = [entry[2]]
        found.add("".join(folders))
    return found


def test_every_path_in_the_tree_exists():
    missing = [path for path in tree() if not (ROOT / path).exists()]
    assert not missing


def test_every_module_is_in_the_tree():
    listed = subprocess.run(
        ["git", "ls-files", "app", "engine", "kernels"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    named = tree()
    wanted = set()
    for path in listed.stdout.split():
        parts = path.split("/")
        if len(parts) == 2 and parts[1] not in ("__init__.py", "__main__.py"):
            wanted.add(path)
        if len(parts) > 2:
            wanted.add("/".join(parts[:2]) + "/")
    assert wanted <= named, wanted - named


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "resources").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_ci_runs_the_test_command_of_the_readme():
    command = next(line for line in README.splitlines() if line.endswith(".venv/bin/pytest"))
    script = (ROOT / ".ci" / "run").read_text()
    assert command in script.replace(" --quiet", "")
