"""Site profiles: what is refused, what Slurm is asked for, and set-up lines that bash runs."""

import configparser
import os
import subprocess
import sys
import zipfile

import pytest
from making import ROOT, environment

from spine_tasks.configs import TASKS
from spine_tasks.errors import ConfigError, SiteError
from spine_tasks.sites import EXTRAS, SITES, Site, load_site


def profile(folder, text):
    (folder / "made.yaml").write_text(text)
    return load_site("made", folder)


def bash(lines, **variables):
    """Run lines as a job's script does, without this checkout on Python's path."""
    kept = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    return subprocess.run(
        ["bash"],
        input="\n".join(["set -eo pipefail", *lines]),
        capture_output=True,
        text=True,
        check=False,
        env=kept | variables,
        timeout=900,
    )


def wheel(folder, name, metadata=(), **files):
    """A wheel made by hand, as a zip file of its modules and its metadata."""
    about = f"{name}-1.0.dist-info"
    texts = {f"{module}.py": text for module, text in files.items()} | {
        f"{about}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *metadata, ""]
        ),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for file, text in texts.items():
            archive.writestr(file, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{file},,\n" for file in texts))


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory):
    """Wheels of this package, of the framework that its extra `gm` wants, and of another's."""
    folder = tmp_path_factory.mktemp("shared") / "our wheels"
    wants = [
        "Provides-Extra: gm",
        'Requires-Dist: made-tensorflow; extra == "gm"',
        "Provides-Extra: detection",
        'Requires-Dist: made-torch; extra == "detection"',
    ]
    wheel(folder, "spine_tasks", wants, spine_tasks="")
    wheel(folder, "made_tensorflow", made_tensorflow="NAME = 'the wheel'")
    wheel(folder, "made_torch", made_torch="")
    return folder


@pytest.mark.parametrize("name", sorted(file.stem for file in SITES.glob("*.yaml")))
def test_every_profile_of_the_repository_is_read(name):
    site = load_site(name)
    assert site.gres_of(3).endswith(":3")
    assert site.max_parallel >= 1
    assert site.signal_lead_s >= 30
    for framework in EXTRAS:
        lines = "\n".join(site.setup_lines(framework))
        assert subprocess.run(["bash", "-n"], input=lines, text=True).returncode == 0


def test_the_annotated_profile_shows_every_key():
    text = (SITES / "example.yaml").read_text()
    assert [key for key in Site.__dataclass_fields__ if f"\n{key}:" not in text] == []


def test_what_a_profile_leaves_out_or_empty_is_the_default(tmp_path):
    assert profile(tmp_path, "partition: null\naccount:\n") == Site()
    assert profile(tmp_path, "partition: gpu\n") == Site(partition="gpu")


def test_a_profile_may_be_given_by_its_path(tmp_path):
    profile(tmp_path, "qos: long\nsetup: [module load cuda]\n")
    site = load_site(str(tmp_path / "made.yaml"))
    assert (site.qos, site.setup) == ("long", ["module load cuda"])


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml", "/nowhere.yml"])
def test_an_unknown_site_is_answered_with_the_profiles_there_are(name):
    with pytest.raises(SiteError, match=r"no site '.*nowhere.*'; profiles in .*: .*default.*exam"):
        load_site(name)


def test_a_misspelt_key_is_answered_with_the_nearest_and_all(tmp_path):
    with pytest.raises(SiteError, match=r"made\.yaml: .* no 'partion', did you mean 'partition'"):
        profile(tmp_path, "partion: gpu\n")
    with pytest.raises(SiteError, match="account, apptainer, constraint, gpu_type, gres, max_para"):
        profile(tmp_path, "zzz: gpu\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partition: 5", "partition must be text or a list, got 5"),
        ("partition: [gpu, 5]", "partition must hold text"),
        ("partition: 'gpu,,low'", "partition must be a name or a list of names"),
        ("account: [a]", "account must be text, got"),
        ("account: ''", "account must hold text that is not empty"),
        ("gpu_type: 100", "gpu_type must be text"),
        ("signal_lead_s: '120'", "signal_lead_s must be a whole number, got '120'"),
        ("signal_lead_s: 2.5", "signal_lead_s must be a whole number"),
        ("max_parallel: true", "max_parallel must be a whole number, got True"),
        ("setup: module load cuda", "setup must be a list, got 'module load cuda'"),
        ("modules: cuda", "modules must be a list"),
        ("modules: [3.11]", "modules must hold text"),
        ("modules: ['']", "modules must hold text that is not empty"),
        ("python: /usr/bin/python", "python must be `framework: ...` lines"),
        ("apptainer: /image.sif", "apptainer must be `framework: ...` lines"),
        ("wheelhouse: [/shared/wheels]", "wheelhouse must be text"),
        ("stage: 'yes'", "stage must be true or false, got 'yes'"),
        ("stage: 1", "stage must be true or false"),
        ("stage_to: true", "stage_to must be text"),
        ("setup: [1]", "setup"),
        ("python: {torch: 3}", "python"),
        ("gres: 'gpu:{gpu}'", "gres"),
        ("gres: 'gpu:{'", "gres"),
        ("max_parallel: 0", "max_parallel"),
        ("signal_lead_s: -1", "signal_lead_s"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(tmp_path, text, message):
    with pytest.raises(SiteError, match=rf"made\.yaml: {message}"):
        profile(tmp_path, text)


def test_a_profile_that_is_not_yaml_names_the_line(tmp_path):
    with pytest.raises((SiteError, ConfigError), match=r"made\.yaml, line 2: not YAML"):
        profile(tmp_path, "partition: gpu\n\tqos: x\n")


# What is asked for


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("partition: gpu", ["gpu"]),
        ("partition: [gpu, low]", ["gpu", "low"]),
        ("partition: gpu,low", ["gpu", "low"]),
        ("partition:", []),
    ],
)
def test_several_partitions_may_do(tmp_path, text, names):
    assert profile(tmp_path, text).partitions == names


@pytest.mark.parametrize(
    ("text", "gres"),
    [
        ("gpu_type: a100", "gpu:a100:2"),
        ("gres: 'gpu:a100:{gpus}'", "gpu:a100:2"),
        ("gres: 'shard:{gpus}'", "shard:2"),
        ("gres: 'gpu:{gpus}'\ngpu_type: h100", "gpu:h100:2"),
    ],
)
def test_a_type_of_gpu_enters_what_is_asked_for_once(tmp_path, text, gres):
    assert profile(tmp_path, text).gres_of(2) == gres
    assert profile(tmp_path, text).gres_of(0) is None


def test_a_type_of_gpu_is_said_in_one_place(tmp_path):
    with pytest.raises(SiteError, match=r"made\.yaml: gpu_type and gres both say"):
        profile(tmp_path, "gres: 'gpu:a100:{gpus}'\ngpu_type: a100\n")


@pytest.mark.parametrize(("text", "value"), [("'0007'", 0o007), ("'027'", 0o027), ("'022'", 0o022)])
def test_a_umask_is_octal_text(tmp_path, text, value):
    assert profile(tmp_path, f"umask: {text}").umask_value() == value


# YAML reads the unquoted ones as the numbers 7 and 23 before anybody can see that they are octal.
@pytest.mark.parametrize("text", ["0007", "0027", "7", "'7'", "'0o007'", "'0008'", "'0700'", "''"])
def test_a_umask_that_is_no_octal_text_or_locks_the_owner_out_is_refused(tmp_path, text):
    with pytest.raises(SiteError, match=r"made\.yaml: umask must .*"):
        profile(tmp_path, f"umask: {text}")


# How Python comes to a node


def test_without_a_word_python_is_the_launchers():
    assert Site().setup_lines("torch") == []
    assert Site().worker_command("torch") == [sys.executable]
    assert Site().launcher_python("torch") == sys.executable


def test_a_framework_has_the_interpreter_that_the_site_names():
    site = Site(python={"torch": "/shared/torch/bin/python"})
    assert site.worker_command("torch") == ["/shared/torch/bin/python"]
    assert site.worker_command("tensorflow") == [sys.executable]
    assert site.launcher_python("torch") == sys.executable  # it may lack what Slurm's side needs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python: {tensorfow: /p}", "python: no framework 'tensorfow', did you mean 'tensorflow'"),
        ("apptainer: {jax: /i.sif}", "apptainer: no framework 'jax'; It has nnunet, none, tensorf"),
        ("wheelhouse: /w\napptainer: {torch: /i.sif}", "wheelhouse .* apptainer names one for tor"),
        ("wheelhouse: /w\npython: {torch: /p}", "wheelhouse .*, python names one for torch; keep"),
        ("python: {torch: /p}\napptainer: {torch: /i.sif}", "python and apptainer both .* torch"),
    ],
)
def test_an_environment_that_is_said_twice_or_for_nothing_is_refused(tmp_path, text, message):
    with pytest.raises(SiteError, match=rf"made\.yaml: {message}"):
        profile(tmp_path, text)


def test_different_frameworks_may_get_their_python_in_different_ways(tmp_path):
    site = profile(tmp_path, "python: {torch: /p}\napptainer: {tensorflow: /i.sif}")
    assert site.worker_command("torch") == ["/p"]
    assert site.worker_command("tensorflow")[:2] == ["apptainer", "exec"]


def test_set_up_lines_run_before_the_modules_and_a_failing_one_ends_the_job():
    module = 'module() { echo "$1:$2"; [ "$2" != broken/1 ]; }'
    fine = Site(setup=[module], modules=["cuda/12.4", "a; touch b"]).setup_lines("torch")
    answer = bash([*fine, "echo started"])
    assert answer.stdout.splitlines() == ["load:cuda/12.4", "load:a; touch b", "started"]
    broken = Site(setup=[module], modules=["broken/1", "cuda"]).setup_lines("torch")
    answer = bash([*broken, "echo started"])
    assert (answer.returncode, answer.stdout) == (1, "load:broken/1\n")


def test_a_site_whose_module_function_uses_unset_variables_is_served():
    lines = Site(setup=['module() { echo "$NEVER_SET$2"; }'], modules=["cuda"]).setup_lines("none")
    assert bash(lines).stdout == "cuda\n"


def test_every_framework_of_a_task_has_an_extra_that_can_be_installed():
    cfg = configparser.ConfigParser()
    cfg.read(ROOT / "setup.cfg")
    assert {task.framework for task in TASKS.values()} <= EXTRAS.keys()
    assert set(EXTRAS.values()) - {""} <= set(cfg["options.extras_require"])


def test_a_wheelhouse_becomes_an_environment_of_the_job_with_what_the_framework_needs(
    wheelhouse, tmp_path
):
    site = Site(wheelhouse=str(wheelhouse))
    code = "import made_tensorflow, sys; print(made_tensorflow.NAME); print(sys.prefix)"
    look = [
        f'{site.launcher_python("tensorflow")} -c "{code}"',
        f'{site.worker_command("tensorflow")[0]} -c "import made_torch" 2>&1 || true',
    ]
    answer = bash([*site.setup_lines("tensorflow"), *look], SLURM_TMPDIR=str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    name, prefix, other = answer.stdout.splitlines()[:2] + answer.stdout.splitlines()[-1:]
    assert name == "the wheel"
    assert prefix.startswith(f"{tmp_path}/spine_env.")
    assert "No module named 'made_torch'" in other
    assert list(tmp_path.iterdir()) == []  # a node without a folder a job is not filled up


def test_a_wheel_that_is_not_there_ends_the_job_before_it_starts(tmp_path):
    wheel(tmp_path / "wheels", "spine_tasks", ["Requires-Dist: never-made"], spine_tasks="")
    lines = Site(wheelhouse=str(tmp_path / "wheels")).setup_lines("none")
    answer = bash([*lines, "echo started"], TMPDIR=str(tmp_path))
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert "never-made" in answer.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["wheels"]


def test_a_node_without_room_for_the_environment_ends_the_job(wheelhouse, tmp_path):
    lines = Site(wheelhouse=str(wheelhouse)).setup_lines("none")
    answer = bash([*lines, "echo started"], SLURM_TMPDIR=str(tmp_path / "gone"))
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert "gone/spine_env" in answer.stderr


def test_a_worker_in_a_container_sees_its_folders_and_gets_its_arguments(tmp_path):
    fake = tmp_path / "bin" / "apptainer"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/bash\nwhile [ "${1##*.}" != sif ]; do echo "$1"; shift; done\nshift\nexec "$@"\n'
    )
    fake.chmod(0o755)
    site = Site(apptainer={"torch": "/shared/our images/torch.sif"})
    command = site.worker_command("torch", [tmp_path, ROOT / "two words"])
    answer = subprocess.run(
        [*command, "-c", "import sys; print('runs', sys.argv[1])", "a b"],
        capture_output=True,
        text=True,
        check=False,
        env=environment()
        | {"PATH": os.pathsep.join([str(fake.parent), os.path.dirname(sys.executable)])},  # noqa: PTH120
    )
    assert answer.stdout.splitlines() == [
        *("exec", "--nv", "--bind", str(tmp_path), "--bind", str(ROOT / "two words")),
        "runs a b",
    ]


def test_the_supervisor_of_a_container_runs_outside_where_slurms_commands_are():
    site = Site(apptainer={"torch": "/i.sif"})
    assert site.launcher_python("torch") == sys.executable
    assert site.worker_command("tensorflow") == [sys.executable]


@pytest.mark.parametrize("name", ["a:b", "a,b"])
def test_a_folder_that_a_bind_would_take_for_two_is_refused(tmp_path, name):
    with pytest.raises(SiteError, match=f"{name}: a container cannot see it"):
        Site(apptainer={"torch": "/i.sif"}).worker_command("torch", [tmp_path / name])
