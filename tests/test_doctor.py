"""What the doctor says of a cluster without running a job there."""

import json

import pytest
from making import command, environment, run_folder
from recorded_slurm import GPU, LARGE, LOW, RecordedSlurm, with_line

from spine_tasks import checkpoints
from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import make_config
from spine_tasks.drill import train
from spine_tasks.errors import Interrupted
from spine_tasks.run import Run

WOULD_START = "sbatch: Job 1 to start at 2026-11-22T14:34:14 using 1 processors on nodes n1 in "


@pytest.fixture
def slurm(tmp_path):
    """A cluster that is ready, in place of this machine's."""
    fake = RecordedSlurm(tmp_path / "bin")
    fake.is_cluster()
    fake.says("sbatch", {"--test-only": f"{WOULD_START}partition gpu\n"}, stream=2)
    return fake


@pytest.fixture
def doctor(slurm, tmp_path):
    """Run the doctor on a site profile of the test's own."""

    def run(*flags, profile="", results=None):
        (tmp_path / "alpine.yaml").write_text(profile or "partition: gpu\n")
        where = ("--site", tmp_path / "alpine.yaml", "--results", results or tmp_path / "results")
        env = environment(PATH=str(slurm.folder), SPINE_SLURM_PATIENCE_S="0")
        return command("doctor", *where, *flags, env=env)

    return run


def findings(answer):
    """What was said of each topic, and of which kind it is."""
    report = json.loads(answer.stdout)
    assert report["ready"] == (answer.returncode == 0)
    return {one["topic"]: (one["kind"], one["said"]) for one in report["findings"]}


def test_a_cluster_without_traps_is_ready_and_nothing_is_written_there(doctor, tmp_path):
    answer = doctor("--no-drill")
    assert (answer.returncode, answer.stderr) == (0, "")
    *report, last = answer.stdout.splitlines()
    assert last == "ready"
    assert not any("warning" in line or "mend" in line for line in report)
    for words in (
        "cluster alpine, version 22.05.8",
        "8 CPUs, 64 GB, gpu:a100:4",
        "never preempted",
        "at most 1001 tasks (MaxArraySize)",
        "would start 2026-11-22 14:34 on n1, partition gpu",
    ):
        assert words in answer.stdout
    assert not (tmp_path / "results").exists()


def test_traps_are_warnings_and_do_not_make_a_site_unready(doctor, slurm):
    config = with_line("ProctrackType", "proctrack/pgid", with_line("KillWait", "2 sec"))
    config = with_line("TaskPlugin", "task/none", with_line("MaxBatchRequeue", "1", config))
    slurm.is_cluster(config=config, partitions=[GPU | {"state": "DOWN"}, LOW, LARGE])
    slurm.has_no_slurmdbd()
    answer = doctor(
        "--no-drill", "--json", profile="signal_lead_s: 5\npython: {torch: /nowhere/python}\n"
    )
    found = findings(answer)
    assert answer.returncode == 0
    assert {topic for topic, (kind, _) in found.items() if kind == "warning"} == {
        *("partition gpu", "memory", "KillWait", "MaxBatchRequeue", "ProctrackType"),
        *("Python", "signal_lead_s"),
    }
    assert "sacctmgr does not answer" in found["accounting"][1]
    assert "/nowhere/python" in found["Python"][1]


@pytest.mark.parametrize(
    ("profile", "topic", "words"),
    [
        ("partition: gpuu\n", "site profile", "did you mean 'gpu'"),
        ("account: nobody\n", "site profile", "has no such account"),
        ("constraint: h100\n", "site profile", "no node of partition gpu"),
    ],
)
def test_a_profile_that_does_not_fit_is_to_be_mended_and_no_job_is_tried(
    doctor, slurm, profile, topic, words
):
    answer = doctor(profile=profile)
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[-1] == f"to mend: {topic}"
    assert words in " ".join(answer.stdout.split())
    assert {line.split()[0] for line in slurm.asked("sbatch")} == {"--test-only"}


def test_what_sbatch_would_refuse_is_to_be_mended(doctor, slurm):
    slurm.says("sbatch", {"": "allocation failure: Job violates QOS\n"}, code=1, stream=2)
    found = findings(doctor("--no-drill", "--json"))
    assert found["sbatch --test-only"] == ("mend", "sbatch: allocation failure: Job violates QOS")


def test_results_without_room_are_to_be_mended(doctor):
    found = findings(doctor("--no-drill", "--json", results="/proc/results"))
    assert found["results"][0] == "mend"
    assert "/proc: what a few cells write needs 1.0 GB" in found["results"][1]


def test_the_script_that_is_tried_is_one_that_a_launch_would_submit(doctor, slurm):
    sbatch = slurm.folder / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("\n", f"\ncat > {slurm.folder}/script\n", 1))
    profile = "partition: [low, gpu]\naccount: spine\nqos: debug\nsetup: [echo set up]\n"
    assert doctor("--no-drill", "--partition", "gpu", profile=profile).returncode == 0
    lines = (slurm.folder / "script").read_text().splitlines()
    for flag in ("partition=gpu", "account=spine", "qos=debug", "array=0-1%2"):
        assert f"#SBATCH --{flag}" in lines
    assert lines.index("echo set up") < next(n for n, line in enumerate(lines) if "srun" in line)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "scontrol: error: Munge encode failed\n",
            "munge, which proves who you are, does not work",
        ),
        ("Unable to contact slurm controller\n", "the controller is out of reach"),
    ],
)
def test_a_cluster_that_does_not_answer_is_said_without_a_traceback(doctor, slurm, said, words):
    slurm.says("scontrol", {"": said}, code=1, stream=2)
    answer = doctor()
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: scontrol: ")
    assert words in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_machine_without_slurm_and_an_unknown_site_are_said(doctor, slurm):
    (slurm.folder / "scontrol").unlink()
    assert "scontrol is not on this machine" in doctor().stderr
    answer = command("doctor", "--site", "nowhere")
    assert answer.returncode == 2
    assert "no site 'nowhere'; profiles in" in answer.stderr


def test_a_folder_that_holds_something_else_is_not_taken_for_a_drill(doctor, tmp_path):
    thesis = tmp_path / "results" / "doctor-alpine" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    answer = doctor("--no-drill")
    assert answer.returncode == 2
    assert "holds something else: move it away" in answer.stderr
    assert thesis.exists()


class Killed(BaseException):
    """The end of a process, at no moment of its own choice."""


class Stopping(Run):
    """A run that is asked to stop after some steps, or is killed then."""

    def __init__(self, folder, after, killed=False):
        self.looks_left = after + 1
        self.killed = killed
        super().__init__(folder)

    @property
    def stop_requested(self):
        self.looks_left -= 1
        if self.looks_left <= 0 and self.killed:
            raise Killed
        return self.looks_left <= 0

    @stop_requested.setter
    def stop_requested(self, value):
        pass


def drill_run(folder, checkpoint_s=300.0, **knobs):
    """The folder of a cell that counts without delay."""
    this = Cell(
        job="drill",
        config=make_config("drill", {"step_s": 0, **knobs}),
        split="gm_phantom",
        split_sha256="",
        fold=0,
        seed=0,
        resources=Resources(checkpoint_s=checkpoint_s),
    )
    return run_folder(folder, this)


def test_a_drill_counts_until_it_is_stopped_and_goes_on_from_there(tmp_path):
    run = drill_run(tmp_path, attempts=2, steps=5)
    with pytest.raises(Interrupted, match="stopped after step 3"):
        train(run.cell(), Stopping(run.folder, after=3))
    train(run.cell(), run)
    assert checkpoints.load(run.checkpoint)[1] == {"done": 5, "began_at": [0, 3]}


def test_a_drill_that_was_counted_far_enough_is_done_at_once(tmp_path):
    run = drill_run(tmp_path, attempts=2, steps=2)
    with pytest.raises(Interrupted):
        train(run.cell(), Stopping(run.folder, after=4))
    train(run.cell(), run)
    assert checkpoints.load(run.checkpoint)[1] == {"done": 4, "began_at": [0, 4]}


def test_a_drill_that_is_killed_has_its_last_checkpoint(tmp_path):
    run = drill_run(tmp_path, attempts=2, steps=5, checkpoint_s=1e-9)
    with pytest.raises(Killed):
        train(run.cell(), Stopping(run.folder, after=3, killed=True))
    assert checkpoints.load(run.checkpoint)[1]["done"] == 3
