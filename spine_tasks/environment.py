"""What a number depends on beside its cell: code, packages and machine."""

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from spine_tasks.cell import Cell

PACKAGES = ("tensorflow", "keras", "torch", "torchvision", "nnunetv2", "numpy", "scipy", "nibabel")


def describe() -> dict[str, Any]:
    """Code, package versions, machine and command of this process: environment.json."""
    return {
        "commit": commit(),
        "code_sha256": code_sha256(),
        "python": platform.python_version(),
        "packages": _versions(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "gpus": gpu_names(),
        "command": sys.argv,
    }


def commit() -> str:
    """The commit of the code, with `+changes` if files differ from it; `unknown` without git."""
    root = Path(__file__).parents[1]
    try:
        head = _git(root, "rev-parse", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--", "spine_tasks", "jobs", "data_splits")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+changes" if changed.strip() else "")


def code_sha256() -> str:
    """Digest of the package's source files: equal digests, equal code, whatever git says."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


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


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


def _versions() -> dict[str, str]:
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
