"""What kind of failure an error is, its one line, and the digest of its traceback."""

import errno
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from spine_tasks.causes import Cause, Kind, kind_of, last_line, of_record, traceback_sha256
from spine_tasks.errors import ConfigError, DataError, RunError, SpineError, SplitError
from spine_tasks.files import replacing

# Errors that need a GPU or a broken machine, as PyTorch, TensorFlow and the kernel word them.
MESSAGES: list[tuple[Kind, str]] = [
    ("GPU memory", "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
    ("GPU memory", "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    ("GPU memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ("GPU memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("GPU memory", "Failed copying input tensor to GPU:0: Dst tensor is not initialized."),
    ("GPU memory", "failed to allocate 7.32G from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ("host memory", "std::bad_alloc"),
    ("host memory", "unable to mmap 8 bytes from file <x.pt>: Cannot allocate memory (12)"),
    ("host memory", "unable to write to file </torch_814_0>: No space left on device (28)"),
    ("host memory", "DataLoader worker (pid 814) is killed by signal: Killed. "),
    ("host memory", "DataLoader worker (pid 814) is killed by signal: Bus error. It is possible "
     "that dataloader's workers are out of shared memory. Please try to raise your limit."),
    ("disk", "[enforce fail at inline_container.cc:778] . PytorchStreamWriter failed writing file "
     "data/3: file write failed"),
    ("disk", "Can't write data (file write failed: time = Sun, error message = 'No space left on "
     "device')"),
    ("node", "CUDA error: uncorrectable ECC error encountered"),
    ("node", "failed call to cuDevicePrimaryCtxRetain: CUDA_ERROR_ECC_UNCORRECTABLE"),
    ("node", "CUDA error: no CUDA-capable device is detected"),
    ("node", "No CUDA GPUs are available"),
    ("node", "CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    ("node", "CUDA driver initialization failed, you might not have a CUDA gpu."),
    ("node", "Failed to initialize NVML: Driver/library version mismatch"),
    ("node", "CUDA unknown error - this may be due to an incorrectly set up environment"),
    ("node", "NCCL error in: ProcessGroupNCCL.cpp:1275, remote process exited or there was a "
     "network error"),
    ("node", "ncclRemoteError: A call failed possibly due to a network error"),
    ("NaN loss", "Function 'MseLossBackward0' returned nan values in its 0th output."),
    ("code", "CUDA error: device-side assert triggered"),
    ("code", "CUDA error: an illegal memory access was encountered"),
    ("code", "CUDA error: unspecified launch failure"),
    ("code", "CUDA error: invalid device ordinal"),
    ("code", "mat1 and mat2 shapes cannot be multiplied (4x8 and 16x2)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message"), MESSAGES)
def test_a_message_says_the_kind(kind, message):
    assert kind_of(RuntimeError(message)) == kind


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("node", OSError(errno.EIO, "Input/output error")),
        ("node", OSError(errno.ESTALE, "no words of the system's")),
        ("node", OSError(errno.ENOTCONN, "")),
        ("node", OSError(errno.ESHUTDOWN, "")),
        ("disk", OSError(errno.EDQUOT, "")),
        ("host memory", OSError(errno.ENOMEM, "fork")),
        ("missing data", FileNotFoundError(errno.ENOENT, "No such file", "sub-01.nii.gz")),
        ("missing data", PermissionError(errno.EACCES, "Permission denied", "sub-01.nii.gz")),
        ("missing data", DataError("sub-01.nii.gz: no such file")),
        ("missing data", SplitError("gm.csv: changed")),
        ("NaN loss", FloatingPointError("epoch 0: losses are not finite: {'dice': nan}")),
        ("settings", ConfigError("epochs must be at least 1")),
        ("settings", RunError("x starts from y, which is not complete")),
        ("code", OSError(errno.EMFILE, "Too many open files")),
        ("code", ModuleNotFoundError("No module named 'torch'")),
        ("code", KeyError("dice")),
    ],
)
def test_an_error_is_of_one_kind(kind, error):
    assert kind_of(error) == kind


def test_real_errors_of_memory_are_of_the_host():
    for allocate in (lambda: bytearray(10**15), lambda: np.ones(10**14)):
        assert kind_of(caught(allocate)) == "host memory"


def test_a_full_disk_is_found_below_the_error_for_people(tmp_path):
    with pytest.raises(RunError) as info, replacing(tmp_path / "last.npz"):
        Path("/dev/full").write_bytes(b"x")
    assert kind_of(info.value) == "disk"
    assert kind_of(RunError("cannot be written: Permission denied")) == "settings"


def test_a_lost_file_server_is_not_missing_data():
    error = DataError("sub-01.nii.gz: cannot be read")
    error.__cause__ = OSError(errno.EIO, "Input/output error", "sub-01.nii.gz")
    assert kind_of(error) == "node"


def test_an_error_while_handling_another_is_judged_by_both_unless_told_not_to():
    def handle(suppress):
        try:
            raise MemoryError
        except MemoryError:
            if suppress:
                raise ValueError("x") from None
            raise ValueError("x")  # noqa: B904

    for suppress, kind in ((False, "host memory"), (True, "code")):
        assert kind_of(caught(handle, suppress)) == kind


def test_errors_that_cause_each_other_come_to_an_end():
    one, other = ValueError("x"), ValueError("y")
    one.__cause__, other.__cause__ = other, one
    assert kind_of(one) == "code"
    assert len(traceback_sha256(one)) == 64


def fail(message):
    raise ValueError(message)


def caught(raising, *arguments):
    try:
        raising(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_traceback_is_the_same_whatever_the_message_and_differs_by_line():
    same = {traceback_sha256(caught(fail, f"/results/cell-{n}: {n}")) for n in range(3)}
    assert len(same) == 1

    def train(epoch):
        if epoch == 1:
            fail("x")
        fail("x")

    others = {traceback_sha256(caught(train, epoch)) for epoch in (0, 1, 2)}
    assert len(same | others) == 3


def test_a_file_that_a_framework_makes_up_in_passing_does_not_count():
    said = 'File "/tmp/__autograph_generated_file{}.py", line 12, in train'
    errors = [ValueError(said.format(name)) for name in ("k2x", "9ab")]
    assert traceback_sha256(errors[0]) == traceback_sha256(errors[1])
    assert traceback_sha256(errors[0]) != traceback_sha256(ValueError("no frame"))


def test_a_quoted_line_of_code_is_no_error():
    quoted = "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call"
    quoted += ' last):\n  File "a.py", line 3, in f\n    except MemoryError:\nKeyError: 7'
    assert kind_of(RuntimeError(quoted)) == "code"
    assert last_line(RuntimeError(quoted)) == "KeyError: 7 at a.py:3"


def test_a_traceback_is_the_same_wherever_the_code_lies(tmp_path):
    digests = set()
    for place in ("a", "b"):
        file = tmp_path / place / "task.py"
        file.parent.mkdir()
        file.write_text("def train():\n    raise KeyError('dice')\n")
        spec = importlib.util.spec_from_file_location("task", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        digests.add(traceback_sha256(caught(module.train)))
    assert len(digests) == 1


def test_the_line_names_the_place_in_our_code_not_in_a_library():
    for error in (caught(lambda: np.stack([])), caught(lambda: json.loads("{"))):
        ours = error.__traceback__.tb_next
        assert ours.tb_next is not None  # it was raised further down
        assert last_line(error).endswith(f" at test_causes.py:{ours.tb_lineno}")


def test_a_long_message_is_cut_but_not_where_it_says_what_to_do():
    long = last_line(caught(fail, "word\n" * 1000))
    assert "\n" not in long
    assert long.startswith("ValueError: word word")
    assert 200 < len(long) < 230
    told = SpineError("x" * 500 + "\nlaunch again")
    assert last_line(told).endswith("x launch again")


def test_every_kind_has_a_remedy_and_a_record_without_one_is_code():
    for kind in Kind.__args__:
        assert "--retry-failed" in Cause(kind, "why").remedy
    assert of_record({"error": "E", "cause": "host memory"}) == Cause("host memory", "E")
    for record in ({}, {"cause": None}, {"cause": "weather", "error": 3}):
        assert of_record(record).kind == "code"
