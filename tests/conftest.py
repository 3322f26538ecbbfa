"""Shared by the launcher's tests: data of a few voxels, and a whole grid run once."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from making import SMALL, command, environment, small_data
from toy_task import ENTRY

# PyTorch's compiler and TensorFlow each bring an LLVM, and the process crashes where TensorFlow's
# is loaded first. A worker loads one framework alone; here both are in one process.
with suppress(ImportError):
    import triton  # noqa: F401


def pytest_collection_modifyitems(items):
    # Of two processes each takes whole files, whose tests share what was trained once; all tests
    # of the one real Slurm stay in one.
    for item in items:
        group = "slurm" if item.path.parent.name == "slurm" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_sessionfinish(session):
    """In CI a skipped test has failed, unless it is for lack of the real data."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if "CI" in os.environ and any("SPINE_TEST_DATA" not in str(one.longrepr) for one in skipped):
        reporter.write_line("skipped tests, of which CI allows none: see above", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def one_thread():
    """PyTorch uses one thread: the same bits on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A BIDS folder with the subjects of both splits of gm_transfer."""
    folder = tmp_path_factory.mktemp("data") / "bids"
    return small_data(folder, "gm_phantom", "gm_phantom_adult")


@dataclass
class Toy:
    """Commands whose workers train the toy task."""

    data: Path
    path: tuple[Path, ...]

    def env(self, **variables):
        return environment(*self.path, **variables)

    def flags(self, results, epochs=3):
        """Flags of a launch of gm_transfer with one seed: four cells and the one they need."""
        flags = ("--grid", "gm_transfer", "--results", str(results), "--site", "local")
        settings = [f"data={self.data}", f"epochs={epochs}", f"needs.epochs={epochs}"]
        settings += ["resources.mem_gb=0.1"]
        return (*flags, *SMALL, *(word for one in settings for word in ("--set", one)))

    def launch(self, results, *more, epochs=3, **variables):
        return command("launch", *self.flags(results, epochs), *more, env=self.env(**variables))


@pytest.fixture(scope="session")
def toy(tmp_path_factory, data):
    """The toy task in every process that the tests start, by way of `sitecustomize`."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "sitecustomize.py").write_text(ENTRY)
    return Toy(data, (folder, Path(__file__).parent))


@pytest.fixture(scope="session")
def launched_once(tmp_path_factory, toy):
    """A complete grid, and what its launch said; not to be changed."""
    results = tmp_path_factory.mktemp("launched")
    answer = toy.launch(results)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    return results, answer


@pytest.fixture
def complete(launched_once, tmp_path):
    """A results folder with a complete grid, free to be spoilt."""
    results = tmp_path / "results"
    shutil.copytree(launched_once[0], results)
    return results
