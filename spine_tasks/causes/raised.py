"""What kind of failure an error is, in one line, and by which lines of code it came.

Errors are told apart by the names of their classes and by their messages: those of PyTorch and
TensorFlow cannot be imported here.
"""

import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from typing import NamedTuple

from spine_tasks.causes.cause import Kind
from spine_tasks.errors import SpineError

# The first pattern that an error's class names and message have in them decides. CUDA errors that
# a program makes itself (a device-side assert, an illegal address) are in none: they are "code".
_SIGNS: tuple[tuple[Kind, str], ...] = (
    (
        "host memory",
        r"\bMemoryError\b|std::bad_alloc|Cannot allocate memory|CPUAllocator: can't allocate"
        r"|by allocator (mkl)?cpu|by allocator \w*host|out of shared memory"
        r"|</torch_[^>]+>.*No space left"  # /dev/shm, which is memory
        r"|DataLoader worker .* killed by signal: (Killed|Bus error)",
    ),
    (
        "disk",
        r"No space left on device|Disk quota exceeded"
        r"|PytorchStreamWriter failed writing|inline_container.*unexpected pos",  # so says torch
    ),
    (
        "GPU memory",
        r"\bOutOfMemoryError\b|CUDA out of memory|CUDA error: out of memory"
        r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CU\w+_STATUS_ALLOC_FAILED"
        r"|Dst tensor is not initialized|\bResourceExhaustedError\b",
    ),
    (
        "node",
        r"uncorrectable (ECC|NVLink)|ECC_UNCORRECTABLE|fallen off the bus|GPU is lost"
        r"|no CUDA-capable device|No CUDA GPUs are available|Found no NVIDIA driver"
        r"|CUDA driver (initialization failed|version is insufficient)|NVIDIA driver .* too old"
        r"|CUDA unknown error|CUDA error: unknown error|CUDA_ERROR_(UNKNOWN|NO_DEVICE)"
        r"|libcuda\.so|busy or unavailable|Failed to initialize NVML"
        r"|Driver/library version mismatch|unsupported display driver|system not yet initialized"
        r"|nccl(Remote|System)Error"
        r"|NCCL.* remote (error|process exited)"
        r"|DataLoader worker .* killed by signal: Terminated"
        r"|Input/output error|Stale file handle|Transport endpoint is not connected"
        r"|Cannot send after transport endpoint shutdown",
    ),
    ("NaN loss", r"\bFloatingPointError\b|Tensor had (NaN|Inf)|returned nan values in its"),
)
_UNREADABLE = {
    *("FileNotFoundError", "PermissionError", "DataError", "SplitError", "WeightsError"),
    *("NotFoundError", "ImageFileError", "BadGzipFile", "BadZipFile"),
}

PACKAGE = Path(__file__).parents[1]
_NOT_OURS = (*(f"/{name}-packages/" for name in ("site", "dist")), sysconfig.get_path("stdlib"))
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_LAST_OF_TRACEBACK = re.compile(r"^[\w.]+(?:Error|Exception)(?:: .*)?$", re.MULTILINE)
LONGEST = 200  # characters of a message


class Frame(NamedTuple):
    """A line of code on the way to an error."""

    file: str
    line: int
    function: str

    @property
    def ours(self) -> bool:
        """Whether a person may have to mend it: neither Python's nor an installed package's."""
        installed = any(part in self.file for part in _NOT_OURS)
        in_package = Path(self.file).is_relative_to(PACKAGE)
        return bool(self.lasting_name) and (in_package or not installed)

    @property
    def lasting_name(self) -> str:
        """The file's name, the same on every machine; empty for one that was made up in passing."""
        file = Path(self.file)
        if file.is_relative_to(PACKAGE):
            return str(file.relative_to(PACKAGE))
        return "" if file.name.startswith(("<", "__autograph_generated_file")) else file.name


def kind_of(error: BaseException) -> Kind:
    """What kind of failure an error is.

    Memory, disk, GPU and node are looked for in what caused the error, too: a `RunError` whose
    cause is a full disk is "disk".

    Examples
    --------
    >>> kind_of(MemoryError()), kind_of(RuntimeError("CUDA error: device-side assert triggered"))
    ('host memory', 'code')
    """
    for one in _chain(error):
        number = one.errno if isinstance(one, OSError) else None
        said = _quoted(one) or one  # not the lines of code that a quoted traceback shows
        text = f"{' '.join(_classes(one))}: {said} {os.strerror(number) if number else ''}"
        for kind, sign in _SIGNS:
            if re.search(sign, text, re.IGNORECASE | re.DOTALL):
                return kind
    if _UNREADABLE & {*_classes(error), _quoted(error).partition(":")[0]}:
        return "missing data"
    return "settings" if isinstance(error, SpineError) else "code"


def last_line(error: BaseException) -> str:
    r"""The error in one line: class, message and place; of a `SpineError` the message alone.

    Examples
    --------
    >>> last_line(ValueError("two\nlines"))
    'ValueError: two lines'
    """
    if isinstance(error, SpineError):  # not cut: it ends with what to do
        return " ".join(str(error).split())
    message = re.sub(r"\{\{.*?\}\}", "", str(error))  # TensorFlow's names of graph nodes
    words = (_quoted(error) or f"{type(error).__name__}: {message}").split()
    line = " ".join(words).removesuffix(":")
    frames = list(_frames(error))
    at = ([frame for frame in frames if frame.ours] or frames)[-1:]
    return _cut(line) + "".join(f" at {Path(frame.file).name}:{frame.line}" for frame in at)


def traceback_sha256(error: BaseException) -> str:
    """A digest of an error's classes and lines of code, without its message.

    It is the same for the same mistake in several cells, on any machine.
    """
    digest = hashlib.sha256()
    for one in _chain(error):
        lines = [f"{frame.lasting_name}:{frame.function}:{frame.line}" for frame in _frames(one)]
        text = "\n".join([type(one).__name__, *lines, ""])
        digest.update(text.encode(errors="backslashreplace"))
    return digest.hexdigest()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while handling, and so on."""
    one: BaseException | None = error
    seen: list[BaseException] = []
    while one is not None and not any(one is other for other in seen):
        yield one
        seen.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _classes(error: BaseException) -> list[str]:
    return [one.__name__ for one in type(error).__mro__]


def _frames(error: BaseException) -> Iterator[Frame]:
    """The error's lines of code, outermost first, then those that its message quotes."""
    for frame, line in walk_tb(error.__traceback__):
        yield Frame(frame.f_code.co_filename, line, frame.f_code.co_name)
    for file, number, function in _FRAME.findall(str(error)):
        yield Frame(file, int(number), function)


def _quoted(error: BaseException) -> str:
    """The last line of the traceback that is the message of an error from another process."""
    message = str(error)
    lines = _LAST_OF_TRACEBACK.findall(message) if "Traceback (most" in message else []
    return str(lines[-1]) if lines else ""


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
