"""What git knows of the code that runs here: its commit, its changes and its files."""

import os
import subprocess
from pathlib import Path

CODE = ("spine_tasks", "jobs", "data_splits")  # what a launch runs and reads
PATCH = ("--binary", "--no-color", "--no-ext-diff", "--no-textconv")


def commit(root: Path) -> str | None:
    """The commit that is checked out in `root`; None where that is no checkout of this code."""
    head = _git(root, "rev-parse", "HEAD") if _is_checkout(root) else None
    return head.decode().strip() if head else None


def changes(root: Path) -> bytes | None:
    """How the code differs from its commit, new files included, as a patch for `git apply`.

    Empty where it does not differ; None where git does not say.
    """
    if not _is_checkout(root):
        return None
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *CODE)
    patches = [_git(root, "diff", *PATCH, "HEAD", "--", *CODE)]
    for name in _names(new or b""):
        patches.append(_git(root, "diff", *PATCH, "--no-index", "--", os.devnull, name))
    return None if new is None or None in patches else b"".join(filter(None, patches))


def files(root: Path) -> list[Path]:
    """The code's files, relative to `root`, in order: what git tracks or does not ignore.

    Where git does not say, every file that is not Python's own cache.
    """
    everything = ("--cached", "--others", "--exclude-standard")
    listing = _git(root, "ls-files", "-z", *everything, "--", *CODE) if _is_checkout(root) else None
    if listing is None:
        found = (file for part in CODE for file in (root / part).rglob("*"))
        names = {file.relative_to(root) for file in found if "__pycache__" not in file.parts}
    else:
        names = {Path(name) for name in _names(listing)}
    # What was deleted is still listed, and an editor's lock is a link to nowhere.
    return sorted(name for name in names if (root / name).is_file())


def _is_checkout(root: Path) -> bool:
    """Whether git tracks this package here: an installed one may lie in another's checkout."""
    return bool(_git(root, "ls-files", "-z", "--", "spine_tasks/__init__.py"))


def _names(listing: bytes) -> list[str]:
    return sorted(os.fsdecode(name) for name in listing.split(b"\0") if name)


def _git(root: Path, *words: str) -> bytes | None:
    """What git answers; None where there is no git or no repository, or it refuses."""
    # A lock would be in the way of others who work in the same checkout.
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    differs = "--no-index" in words and answer.returncode == 1
    return answer.stdout if answer.returncode == 0 or differs else None
