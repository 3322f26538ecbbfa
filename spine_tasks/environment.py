"""What a number depends on beside its cell: code, packages and machine."""

import hashlib
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spine_tasks import checkout
from spine_tasks.cell import Cell
from spine_tasks.errors import RunError
from spine_tasks.files import read_json

PACKAGES = ("tensorflow", "keras", "torch", "torchvision", "nnunetv2", "numpy", "scipy", "nibabel")
PACKAGE = Path(__file__).resolve().parent

# Environment variables of a process that is to run launched code.
CODE_FOLDER = "SPINE_CODE"  # where it is
CODE_SHA256 = "SPINE_CODE_SHA256"  # what it is

# Environment variables of the processes of a cell on several nodes, or with several GPUs.
NODE, NODES = "SPINE_NODE", "SPINE_NODES"  # which of how many
ATTEMPT = "SPINE_ATTEMPT"  # what all ranks of one attempt have in common
LOCAL_RANK = "SPINE_LOCAL_RANK"  # which of its node's ranks

# In a snapshot of the code, where there is no git to ask.
TAKEN = "snapshot.json"
CHANGES = "changes.diff"


def describe() -> dict[str, Any]:
    """Code, package versions, machine and command of this process: environment.json."""
    host = socket.gethostname()
    return {
        "commit": commit(),
        "changes_sha256": patch_sha256(changes()),
        "code_sha256": code_sha256(),
        "python": platform.python_version(),
        "packages": _versions(),
        "host": host,
        "node": os.environ.get("SLURMD_NODENAME", host),
        "partition": os.environ.get("SLURM_JOB_PARTITION"),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "gpus": gpu_names(),
        "command": sys.argv,
    }


def commit() -> str:
    """The commit of the code, with `+changes` if files differ from it; `unknown` without git."""
    if taken := _taken():
        return str(taken["commit"])
    head, patch = checkout.commit(PACKAGE.parent), checkout.changes(PACKAGE.parent)
    if head is None or patch is None:
        return "unknown"
    return head + ("+changes" if patch else "")


def changes() -> bytes:
    """What the code differs in from its commit, as a patch; empty if in nothing, or without git."""
    if _taken():
        return (PACKAGE.parent / CHANGES).read_bytes()
    return checkout.changes(PACKAGE.parent) or b""


def patch_sha256(patch: bytes) -> str | None:
    """SHA-256 of `changes`; None where there are none."""
    return hashlib.sha256(patch).hexdigest() if patch else None


def code_sha256(package: Path = PACKAGE) -> str:
    """Digest of the package's source files: equal digests, equal code, whatever git says."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def codes_of_attempts(attempts: Sequence[dict[str, Any]]) -> list[str]:
    """The digests of all code that had a part in a run's checkpoint, the first first.

    An attempt that found no checkpoint began anew: what was before it had no part.

    Parameters
    ----------
    attempts
        The records of attempts.jsonl. Those of the event `started` hold `code_sha256`, and
        `saved_ns`, which is None where there was no checkpoint.

    Examples
    --------
    >>> failed = {"event": "started", "code_sha256": "aa", "saved_ns": None}
    >>> anew = {"event": "started", "code_sha256": "bb", "saved_ns": None}
    >>> continued = {"event": "started", "code_sha256": "cc", "saved_ns": 17}
    >>> codes_of_attempts([failed, anew, continued])
    ['bb', 'cc']
    """
    codes: dict[str, None] = {}
    for record in (record for record in attempts if record["event"] == "started"):
        if record.get("saved_ns", "unknown") is None:
            codes.clear()
        if "code_sha256" in record:
            codes[record["code_sha256"]] = None
    return list(codes)


def check_code() -> None:
    """Refuse to run other code than was launched, which two environment variables name.

    Raises
    ------
    RunError
        Python imported the package from elsewhere, or it was changed since the launch.
    """
    meant, folder = os.environ.get(CODE_SHA256), os.environ.get(CODE_FOLDER)
    if meant is None:  # started by hand: the code that is here is meant
        return
    here = code_sha256()
    if folder is not None and PACKAGE.parent != Path(folder).resolve():
        raise RunError(
            f"launched with the code in {folder} (SHA-256 {meant}), but Python imported {PACKAGE} "
            f"({here}); nothing may come before that folder on Python's path: look at PYTHONPATH "
            "in the site profile's `setup` and at .pth files of the environment; then launch again"
        )
    if here != meant:
        raise RunError(
            f"{PACKAGE}: changed since the launch: SHA-256 {here}, launched as {meant}; "
            f"delete {folder or 'the snapshot of the code'} and launch the grid again"
        )


def gpu_names() -> list[str]:
    """The names of the machine's NVIDIA GPUs; empty without any or without their driver."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def worker_variables(cell: Cell) -> dict[str, str]:
    """Environment variables that a worker needs before its first import."""
    threads = str(cell.config.threads)
    return {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "PYTHONUNBUFFERED": "1",
        # glibc gives every large buffer back at once and asks for it again in the next step,
        # which can cost half of the time of training on a CPU.
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "8589934592",
        "MALLOC_TOP_PAD_": "67108864",
    }


def _taken() -> dict[str, Any] | None:
    """The snapshot.json of this code, if it is a snapshot."""
    file = PACKAGE.parent / TAKEN
    return dict(read_json(file)) if file.exists() else None


def _versions() -> dict[str, str]:
    import importlib.metadata  # slow to import, and needed by workers only

    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
