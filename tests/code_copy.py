"""A copy of the project's code that tests may change."""

import shutil
import subprocess
from pathlib import Path

from making import ROOT

CODE = ("spine_tasks", "jobs", "data_splits")


def plain_copy(root: Path) -> Path:
    """The code in a folder without git."""
    for part in CODE:
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def checkout_copy(root: Path) -> Path:
    """The code in a repository of its own, with everything committed."""
    plain_copy(root)
    (root / ".gitignore").write_text("__pycache__/\n*.big\nresults/\n")
    git(root, "init", "-q")
    commit(root)
    return root


def commit(root: Path) -> None:
    git(root, "add", ".")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "all")


def git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
