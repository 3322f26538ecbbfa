"""Snapshots: the code as it was at a launch, which waiting jobs run whatever happens to it since.

A snapshot is a folder in `results/<name>/code`, named by a digest of its files, that Python
imports from. It holds what a launch runs and reads: the package, `jobs` and `data_splits`.
"""

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from spine_tasks import checkout, environment
from spine_tasks.errors import RunError
from spine_tasks.files import read_json, write_json
from spine_tasks.run import now

MOST_MB = 100  # of code; more is data that git does not ignore

Files = dict[str, bytes]  # path below the snapshot -> content


@dataclass(frozen=True)
class Snapshot:
    """Code that does not change any more."""

    folder: Path
    commit: str  # with `+changes` if files differed from it; `unknown` without git
    changes_sha256: str | None  # of changes.diff beside it; None without changes
    code_sha256: str  # of the package, as `environment.code_sha256`

    def variables(self) -> dict[str, str]:
        """The environment variables that make Python run this code, wherever it is started."""
        path = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONSAFEPATH": "1",  # else `python -m` looks in the working directory first
            environment.CODE_FOLDER: str(self.folder),
            environment.CODE_SHA256: self.code_sha256,
        }


def take(folder: Path) -> Snapshot:
    """The snapshot of this code in `folder`, made unless it is there.

    It is made beside its place and renamed in one step, so any number of launches may do this at
    once, and a half-written one is never used. Its files are read-only.

    Raises
    ------
    RunError
        The snapshot that is there was changed; there is too much code to be code; the disk is
        full, or the folder cannot be written to.
    """
    root = environment.PACKAGE.parent
    files = _read(root)
    place = folder.resolve() / _digest(files)[:16]
    if not place.exists():
        _make(place, files)
    elif _digest(_read(place)) != _digest(files):
        raise RunError(
            f"{place}: was changed since it was taken, or not written whole; once no job that "
            "waits or runs needs it, delete it and launch again"
        )
    taken = read_json(place / environment.TAKEN)
    return Snapshot(place, taken["commit"], taken["changes_sha256"], taken["code_sha256"])


def planned(folder: Path) -> Snapshot:
    """The snapshot that `take` would make now; nothing is written."""
    place = folder.resolve() / _digest(_read(environment.PACKAGE.parent))[:16]
    changed = environment.patch_sha256(environment.changes())
    return Snapshot(place, environment.commit(), changed, environment.code_sha256())


def _read(root: Path) -> Files:
    """The code's files; read once, so that the digest is that of what is written."""
    try:
        sizes_mb = {name: (root / name).stat().st_size / 1e6 for name in checkout.files(root)}
        if sum(sizes_mb.values()) > MOST_MB:
            raise _too_much(root, sizes_mb)
        return {str(name): (root / name).read_bytes() for name in sizes_mb}
    except OSError as error:
        raise RunError(
            f"{root}: the code cannot be read ({error}), so it cannot be kept for waiting jobs; "
            "mend that, then launch again"
        ) from error


def _too_much(root: Path, sizes_mb: dict[Path, float]) -> RunError:
    largest = max(sizes_mb, key=sizes_mb.__getitem__)
    return RunError(
        f"{root}: {', '.join(checkout.CODE)} hold {sum(sizes_mb.values()):.0f} MB, which a launch "
        f"would copy as code; at most {MOST_MB} MB are taken. The largest is {largest}, "
        f"{sizes_mb[largest]:.0f} MB: move such files elsewhere, or name them in .gitignore"
    )


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape") + content)
    return digest.hexdigest()


def _make(place: Path, files: Files) -> None:
    partial = place.with_name(f".partial-{uuid.uuid4().hex}")
    try:
        for name, content in files.items():
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        patch = environment.changes()
        (partial / environment.CHANGES).write_bytes(patch)
        write_json(
            partial / environment.TAKEN,
            {
                "time": now(),
                "commit": environment.commit(),
                "changes_sha256": environment.patch_sha256(patch),
                "code_sha256": environment.code_sha256(partial / "spine_tasks"),
            },
        )
        for file in (file for file in partial.rglob("*") if file.is_file()):
            file.chmod(file.stat().st_mode & ~0o222)
        partial.rename(place)
    except OSError as error:
        if not place.exists():  # else another launch was faster
            raise RunError(
                f"{place}: the code cannot be copied there: {error.strerror or error}; free "
                "space or quota, or choose another --results, then launch again"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
