"""What goes wrong on a cluster, done on purpose, and what is expected of a cell then."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import witness
from trials import Half, Task, Trial, Watch, kill, stat, wait_for, works

# Which cluster a fault needs: one with Slurm's defaults, or one that sends the user's signal to
# what it preempts, and that leaves a job it ends a minute before it kills.
USUAL, SIGNALLED = "usual", "signalled"
KILL_WAIT_S = 60
CONF_LINES = {
    USUAL: (),
    SIGNALLED: (
        "SlurmctldParameters=preempt_send_user_signal",
        f"KillWait={KILL_WAIT_S}",
    ),
}


@dataclass(frozen=True)
class Fault:
    """One disturbance of a cell in training."""

    name: str
    disturb: Callable[[Trial], None]
    cluster: str = USUAL
    partition: str = "gpu"
    launches: int | None = 1  # 2: Slurm does not run it again, the next launch does; None: either
    attempts: int | None = 2  # None: at least 2
    again: tuple[str, ...] = ()  # flags of the next launch
    alone: bool = False  # it disturbs everything on its cluster
    resources: tuple[str, ...] = ()
    lead_s: int = 30
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def id(self):
        """The name, for file names and for pytest."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name)


@dataclass(frozen=True)
class Outcome:
    """What became of a disturbed cell."""

    fault: Fault
    events: list[str]
    jobs: list[str]  # of its attempts
    launches: int
    lost_s: float  # work done twice
    results: tuple
    told: list[witness.Attempt]  # empty where the task has no witness
    gone_s: float | None  # from the disturbance until Slurm had nothing of it, if it came so far

    @property
    def attempts(self):
        """How many there were."""
        return len(self.jobs)


def disturbed(fault: Fault, task: Task, half: Half, folder) -> Outcome:
    """Launch a cell, disturb it in training, bring it to its end."""
    variables = {name: value.format(folder=folder) for name, value in fault.variables.items()}
    trial = Trial(
        folder, half, task, fault.partition, fault.resources, fault.lead_s, variables=variables
    )
    trial.launch()
    watch = Watch(trial)
    watch.start()
    trial.wait_for_training()
    fault.disturb(trial)
    gone_s = _until_next_attempt(trial, fault)
    if gone_s is not None and not trial.complete:
        trial.launch(*fault.again)
    trial.wait_for_attempt(fault.attempts or 2)
    trial.finish()
    return Outcome(
        fault=fault,
        events=trial.events(),
        jobs=[record["job_id"] for record in trial.started()],
        launches=trial.launches,
        lost_s=watch.lost_s(),
        results=trial.results(),
        told=witness.attempts(trial.told, trial.run.cell().id),
        gone_s=gone_s,
    )


def _until_next_attempt(trial, fault):
    """Wait for it, or for an empty queue: return the seconds until then, None if it did not come.

    What is in the queue without running will run again.
    """
    begun = time.monotonic()
    if fault.attempts == 1:
        return None
    wait_for(
        lambda: len(trial.started()) > 1 or not trial.half.queue(), f"{trial.folder}: an end", 0.5
    )
    if len(trial.started()) > 1:
        return None
    gone_s = time.monotonic() - begun
    # A worker without supervisor outlives its job by a second; till then its cell is under way.
    wait_for(lambda: not works(trial.worker), f"{trial.folder}: the worker's end")
    return gone_s


def preempt(trial):
    """A job of higher priority takes both nodes for a second."""
    where = ["--partition=high", "--exclusive", "--nodes=2", f"--constraint={trial.half.feature}"]
    trial.half.slurm("sbatch", *where, "--output=/dev/null", "--wrap=sleep 1")


def requeue(trial):
    """As an administrator does it."""
    trial.half.slurm("scontrol", "requeue", trial.job)


def scancel(trial):
    """As the user does it."""
    trial.half.slurm("scancel", trial.job)


def cancel(trial):
    """By the toolkit's own command."""
    trial.cancel()


def in_a_long_step(fault):
    """The fault, while the worker does not look whether it shall stop."""

    def disturb(trial):
        trial.slow.write_text("600")
        time.sleep(3)  # until the step before is surely over
        fault(trial)

    return disturb


def nothing(_trial):
    """Wait for what Slurm does by itself."""


def kill_worker(trial):
    """Its supervisor is left to say so."""
    kill(trial.worker)


def kill_supervisor(trial):
    """Its worker is left without anybody who would stop it."""
    kill(stat(trial.worker)[1])


def kill_both(trial):
    """Nobody is left to say anything."""
    kill(stat(trial.worker)[1], trial.worker)


def want_memory(trial):
    """The worker takes more than the job asked for."""
    trial.hog.touch()


def lose_power(trial):
    """The node and everything on it is gone; it comes back later."""
    node = trial.node
    trial.half.daemon("kill", node, "--jobs")
    trial.wait_for_attempt(2)
    trial.half.daemon("revive", node)


def lose_touch(trial):
    """Slurm does not hear of the node and starts the job elsewhere; the old worker works on."""
    node, old = trial.node, trial.worker
    trial.half.daemon("kill", node)
    wait_for(lambda: len(trial.started()) > 1, f"{trial.folder}: an attempt elsewhere")
    wait_for(lambda: not works(old), f"{trial.folder}: the end of the attempt before")
    trial.half.daemon("revive", node)


def freeze(trial):
    """As `lose_touch`, but the old worker sleeps, and wakes up when the new one has saved."""
    node, old = trial.node, trial.worker
    frozen = (stat(old)[1], old)
    trial.half.daemon("kill", node)
    kill(*frozen, signum=signal.SIGSTOP)
    wait_for(lambda: len(trial.started()) > 1, f"{trial.folder}: an attempt elsewhere")
    before = trial.newest_checkpoint()
    wait_for(lambda: trial.newest_checkpoint() != before, f"{trial.folder}: its checkpoint")
    kill(*frozen, signum=signal.SIGCONT)
    wait_for(lambda: not works(old), f"{trial.folder}: the end of the attempt before")
    trial.half.daemon("revive", node)


def lose_controller(trial):
    """The cell does not need it, not even to become complete."""
    trial.half.daemon("kill", "slurmctld")
    trial.slow.unlink()
    wait_for(lambda: trial.complete, f"{trial.folder}: completeness without a controller")
    trial.half.daemon("revive", "slurmctld")


def kill_worker_without_controller(trial):
    """The supervisor cannot ask for a requeue until the controller is back."""
    trial.half.daemon("kill", "slurmctld")
    pid = trial.worker
    kill(pid)
    wait_for(lambda: not works(pid), f"{trial.folder}: the worker's end")
    time.sleep(3)  # so that the supervisor asks in vain
    trial.half.daemon("revive", "slurmctld")


MINUTE = {"resources": ("resources.time='00:01:00'",), "lead_s": 10, "attempts": None}
DEAF = {"variables": {"FAULT_DEAF": "1"}}
HOG = {"variables": {"FAULT_HOG": "{folder}/hog", "FAULT_HOG_MB": "2800"}}

FAULTS = [
    Fault("preempted, REQUEUE, grace 20 s", preempt, partition="low"),
    Fault("preempted, REQUEUE, no grace", preempt, partition="low_nograce"),
    Fault("preempted, CANCEL, grace 20 s", preempt, partition="low_cancel"),
    Fault("preempted, CANCEL, no grace", preempt, partition="low_cancel_nograce"),
    Fault("preempted, REQUEUE, grace 20 s, user signal", preempt, SIGNALLED, "low"),
    Fault("preempted, REQUEUE, no grace, user signal", preempt, SIGNALLED, "low_nograce"),
    Fault("preempted, CANCEL, grace 20 s, user signal", preempt, SIGNALLED, "low_cancel"),
    Fault("preempted, CANCEL, no grace, user signal", preempt, SIGNALLED, "low_cancel_nograce"),
    Fault("time limit", nothing, **MINUTE),
    Fault("time limit, deaf to warnings", nothing, **MINUTE, **DEAF),
    Fault("worker killed", kill_worker, SIGNALLED),
    Fault("supervisor killed", kill_supervisor, SIGNALLED, launches=2),
    Fault("supervisor and worker killed", kill_both, SIGNALLED, launches=2),
    Fault(
        "out of memory",
        want_memory,
        launches=2,
        again=("--retry-failed", "--mem-factor", "2"),
        **HOG,
    ),
    Fault("node lost", lose_power),
    Fault("node out of touch, worker lives on", lose_touch),
    Fault("node out of touch, worker frozen and thawed", freeze),
    Fault("controller lost", lose_controller, SIGNALLED, attempts=1, alone=True),
    Fault("worker killed, controller lost", kill_worker_without_controller, alone=True),
    Fault("requeued by an administrator", requeue, SIGNALLED),
    Fault("scancel", scancel, SIGNALLED, launches=2),
    Fault("scancel in a long step", in_a_long_step(scancel), SIGNALLED, launches=2),
    Fault("cancel.py", cancel, SIGNALLED, launches=2),
    Fault("cancel.py in a long step", in_a_long_step(cancel), SIGNALLED, launches=2),
]
