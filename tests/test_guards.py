"""Rules of the repository that no single module can keep."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from making import ROOT, command, python

SCRIPTS = sorted(file.stem for file in (ROOT / "jobs").glob("*.py"))
MODULES = sorted((ROOT / "spine_tasks").rglob("*.py"))
FRAMEWORKS = {"tensorflow", "torch", "keras", "torchvision", "timm", "nnunetv2"}
# Beside those in tasks/: the loops, what they need, and what reads PyTorch's files.
MAY_IMPORT_THEM = {
    *("loop_keras", "loop_torch", "torch_checkpoints", "torch_machine", "ranks", "meeting"),
    *("batches_torch", "clean_model"),
}
IMPORTED = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported_by(module):
    answer = python(IMPORTED, module)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


def tracked_files():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself_with_an_example(script):
    answer = command(script, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "example" in answer.stdout
    assert f"python jobs/{script}.py" in answer.stdout


@pytest.mark.parametrize(
    "name", ["launch", "status", "cancel", "collect", "doctor", "score", "worker"]
)
def test_no_command_of_the_login_node_imports_a_framework(name):
    assert not imported_by(f"spine_tasks.{name}") & FRAMEWORKS


@pytest.mark.parametrize("name", ["launch", "status", "cancel", "doctor"])
def test_launching_and_watching_import_neither_tables_nor_images_nor_submission(name):
    slow = {"pandas", "submitit", "scipy", "nibabel", "matplotlib", "statsmodels", "sklearn"}
    if name != "doctor":  # its drill writes checkpoints
        slow.add("numpy")
    assert not imported_by(f"spine_tasks.{name}") & slow


def test_frameworks_are_imported_by_tasks_and_loops_alone():
    for file in MODULES:
        if ROOT / "spine_tasks" / "tasks" in file.parents or file.stem in MAY_IMPORT_THEM:
            continue
        found = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not found & FRAMEWORKS, file


def test_no_module_prints():
    for file in MODULES:
        calls = [
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
        ]
        printing = [
            c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"
        ]
        assert not printing, file


def test_no_module_is_longer_than_300_lines():
    long = {file.name: n for file in MODULES if (n := len(file.read_text().splitlines())) > 300}
    assert not long


def test_no_file_names_a_place_on_somebodys_machine():
    # Written in two pieces, so that this file does not name them either.
    places = re.compile("|".join("/" + word for word in ("work/", "home/[a-z]", "Users/", "root/")))
    found = {}
    for file in tracked_files():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if lines := [n for n, line in enumerate(text.splitlines(), 1) if places.search(line)]:
            found[str(file.relative_to(ROOT))] = lines
    assert not found


def test_no_data_weights_or_large_file_is_tracked():
    endings = (".nii", ".nii.gz", ".h5", ".hdf5", ".npz", ".npy", ".pt", ".pth", ".keras", ".dcm")
    for file in tracked_files():
        assert not file.name.endswith(endings), file
        assert file.stat().st_size < 1_000_000, file


def test_every_module_says_what_it_is_for():
    for file in MODULES:
        assert ast.get_docstring(ast.parse(file.read_text())), file


def test_every_script_of_a_job_has_a_config_and_every_config_a_script():
    from spine_tasks.configs import TASKS

    jobs = {
        script
        for script in SCRIPTS
        if "spine_tasks.job" in Path(ROOT / "jobs" / f"{script}.py").read_text()
    }
    assert jobs == set(TASKS) - {"drill"}  # which jobs/doctor.py runs
