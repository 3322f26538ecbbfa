"""One real Slurm for all tests in this folder, and the marker that chooses them."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
DEV_CLUSTER = HERE.parents[1] / "slurm" / "dev_cluster" / "dev_cluster.py"


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def dev_cluster():
    """Begin a command of dev_cluster.py: `dev_cluster("start", folder)` is its process."""

    def begin(command, folder, *options):
        return subprocess.Popen(
            [sys.executable, DEV_CLUSTER, command, "--folder", folder, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture(scope="session")
def new_folder(dev_cluster):
    """Make a folder whose path is short enough for unix sockets; stop its cluster in the end."""
    folders = []

    def make():
        folders.append(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
        return folders[-1]

    yield make
    for folder in folders:
        dev_cluster("stop", folder).communicate()
        shutil.rmtree(folder, ignore_errors=True)  # where there was nothing to stop


@pytest.fixture(scope="session")
def new_cluster(dev_cluster, new_folder):
    """Start a cluster, with these lines of slurm.conf; return its folder."""

    def start(*conf_lines):
        folder = new_folder()
        options = [word for line in conf_lines for word in ("--conf-line", line)]
        process = dev_cluster("start", folder, *options)
        _, said = process.communicate()
        if process.returncode == os.EX_UNAVAILABLE and "CI" not in os.environ:
            pytest.skip(said.strip())
        if process.returncode != 0:
            pytest.fail(said)
        return folder

    return start


@pytest.fixture(scope="session")
def slurm_cluster(new_cluster):
    """The folder of a running cluster; SLURM_CONF points to it for the whole session."""
    folder = new_cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        yield folder
