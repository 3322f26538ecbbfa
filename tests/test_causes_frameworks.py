"""Errors that PyTorch and TensorFlow really raise are told apart without importing either."""

import json

import pytest
from making import environment, python

SHOW = """
import json, os, pathlib, sys
from spine_tasks.causes import kind_of, last_line, traceback_sha256

assert not {"torch", "tensorflow"} & set(sys.modules)
folder = pathlib.Path(sys.argv[1])

def show(raising):
    try:
        raising()
    except Exception as error:
        said = [kind_of(error), last_line(error), traceback_sha256(error)]
        print("@", json.dumps([raising.__name__, *said]))
"""

TORCH = """
import torch
from torch.utils.data import DataLoader, Dataset

class Scans(Dataset):
    def __init__(self, bad, raising):
        self.bad, self.raising = bad, raising
    def __len__(self):
        return 4
    def __getitem__(self, index):
        if index >= self.bad:
            self.raising(index)
        return index

def load(bad, raising):
    return list(DataLoader(Scans(bad, raising), num_workers=2))

def missing(index):
    open(f"/nowhere/sub-{index}.nii.gz")

def out_of_memory(index):
    raise MemoryError

def killed(index):
    os.kill(os.getpid(), 9)

def host_memory(): torch.empty(10**15)
def no_gpu(): torch.empty(1, device="cuda")
def gpu_memory(): raise torch.OutOfMemoryError("HIP out of memory")
def disk(): torch.save({"x": torch.zeros(10**5)}, "/dev/full")
def missing_in_first(): load(0, missing)
def missing_in_second(): load(1, missing)
def memory_in_loader(): load(0, out_of_memory)
def killed_in_loader(): load(0, killed)

for raising in (host_memory, no_gpu, gpu_memory, disk, missing_in_first, missing_in_second,
                memory_in_loader, killed_in_loader):
    show(raising)
"""


def shown(framework, code, tmp_path):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    answer = python(SHOW + code, tmp_path, env=environment(TF_CPP_MIN_LOG_LEVEL="3"))
    assert answer.returncode == 0, answer.stderr
    lines = [line[2:] for line in answer.stdout.splitlines() if line.startswith("@ ")]
    return {name: said for name, *said in map(json.loads, lines)}


def test_errors_of_pytorch(tmp_path):
    errors = shown("torch", TORCH, tmp_path)
    kinds = {name: kind for name, (kind, *_) in errors.items()}
    # On a machine with a GPU there is no error for its lack.
    assert kinds.pop("no_gpu", "node") == "node"
    assert kinds == {
        "host_memory": "host memory",
        "gpu_memory": "GPU memory",
        "disk": "disk",
        "missing_in_first": "missing data",
        "missing_in_second": "missing data",
        "memory_in_loader": "host memory",
        "killed_in_loader": "host memory",
    }
    # What the loader's process said, not that it was "Caught in DataLoader worker process 0".
    assert "sub-0.nii.gz" in errors["missing_in_first"][1]
    assert errors["missing_in_first"][1].startswith("FileNotFoundError: [Errno 2]")
    assert errors["memory_in_loader"][1].startswith("MemoryError at <string>")
    assert errors["memory_in_loader"][2] != errors["missing_in_first"][2]


TENSORFLOW = """
import numpy as np, tensorflow as tf

@tf.function
def read(x):
    return tf.py_function(lambda _: open("/nowhere/sub-1.nii.gz"), [x], tf.float32)

def host_memory(): tf.zeros((10**6, 10**8))
def missing(): tf.io.read_file("/nowhere/sub-1.nii.gz")
def missing_in_graph(): read(tf.constant(1.0))
def disk(): tf.io.write_file("/dev/full", b"x" * 10**5)
def nan(): tf.debugging.check_numerics(tf.constant(float("nan")), "loss")
def gpu_memory():
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8] "
        "on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc")
def xla_memory():
    raise tf.errors.ResourceExhaustedError(None, None, "Out of memory while trying to allocate 9")
def code(): tf.matmul(tf.zeros((2, 3)), tf.zeros((2, 3)))

for raising in (host_memory, missing, missing_in_graph, disk, nan, gpu_memory, xla_memory, code):
    show(raising)
"""


def test_errors_of_tensorflow(tmp_path):
    errors = shown("tensorflow", TENSORFLOW, tmp_path)
    assert {name: kind for name, (kind, *_) in errors.items()} == {
        "host_memory": "host memory",
        "missing": "missing data",
        "missing_in_graph": "missing data",
        "disk": "disk",
        "nan": "NaN loss",
        "gpu_memory": "GPU memory",
        "xla_memory": "GPU memory",
        "code": "code",
    }
    assert errors["host_memory"][1].startswith("ResourceExhaustedError: OOM when allocating")
    assert "sub-1.nii.gz" in errors["missing_in_graph"][1]
