"""Slurm's commands in a folder for PATH, and the queue that they keep.

For what a launcher does with the answers, also with those that a real Slurm gives seldom; what a
real one answers is in tests/slurm, and its words are used here.
"""

import inspect
import json
import os
import sys

from recorded_slurm import CONFIG, GPU, LOW, PARTITION, SINFO

from spine_tasks import submit


class FakeSlurm:
    """A queue, and the faults that its commands are to have."""

    COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sacct", "sinfo", "sacctmgr")

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        body = inspect.getsource(_answer)
        for name in self.COMMANDS:
            file = folder / name
            file.write_text(f"#!{sys.executable} -IS\n{body}\n_answer()\n")
            file.chmod(0o755)
        self._write("config", CONFIG)
        self._write("partition", "".join(PARTITION.format(**one) for one in (GPU, LOW)))
        self._write("sinfo", SINFO)

    @classmethod
    def on_path(cls, folder, monkeypatch):
        """Such commands first on the PATH, outside of any job; a launcher has no patience."""
        fake = cls(folder / "bin")
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", f"{fake.folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("SPINE_SLURM_PATIENCE_S", "0")
        monkeypatch.setattr(submit, "LOOKS_S", (0.0, 0.0))
        return fake

    @property
    def jobs(self):
        """The arrays in the queue by id: `name`, `after`, and by index the `state` of `tasks`."""
        return self._read("jobs", {})

    def put(self, job, name, *states, reason="None"):
        """Put an array into the queue, or change it: the state of each task, such as ENDED."""
        tasks = {str(index): [state, reason] for index, state in enumerate(states)}
        self._write("jobs", self.jobs | {job: {"name": name, "after": "", "tasks": tasks}})

    def remove(self, job):
        """Let an array have ended and left the queue."""
        self._write("jobs", {key: value for key, value in self.jobs.items() if key != job})

    def calls(self, *beginning):
        """The calls so far that begin with these words, each the list of its words."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [json.loads(line) for line in lines]
        return [words for words in calls if words[: len(beginning)] == [*beginning]]

    def fail(self, command, words="", when="before", kill=False, times=1):
        """Have a command fail, before or after it does what it is asked for.

        Parameters
        ----------
        words
            Of the error that it prints.
        kill
            Kill the process that called it instead.
        """
        fault = {"command": command, "words": words, "when": when, "kill": kill}
        self._write("faults", [*self._read("faults", []), *[fault] * times])

    def show(self, **fields):
        """What `scontrol show job` says of any job."""
        running = {"JobState": "RUNNING", "Reason": "None", "Restarts": 0, "PreemptTime": "None"}
        self._write("show", running | fields)

    def ended(self, **states):
        """What accounting says: `ended(j7_0="FAILED")`."""
        self._write("sacct", {job[1:]: state for job, state in states.items()})

    def _read(self, name, default):
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else default

    def _write(self, name, value):
        (self.folder / f"{name}.json").write_text(json.dumps(value))


def _answer():
    """The body of each of Slurm's commands: it is written into a file of its own."""
    import fcntl
    import json
    import os
    import re
    import signal
    import sys
    from pathlib import Path

    here, words = Path(sys.argv[0]).parent, [Path(sys.argv[0]).name, *sys.argv[1:]]

    def read(name, default):
        file = here / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else default

    def write(name, value):
        (here / f"{name}.json").write_text(json.dumps(value))

    def refuse(said):
        sys.stderr.write(f"{words[0]}: error: {said}\n")
        sys.exit(1)

    def fault(when):
        faults = read("faults", [])
        for one in faults:
            if " ".join(words).startswith(one["command"]) and one["when"] == when:
                faults.remove(one)
                write("faults", faults)
                if one["kill"]:
                    os.kill(os.getppid(), signal.SIGKILL)
                    sys.exit(1)
                refuse(one["words"])

    def sbatch():
        script = sys.stdin.read()
        flags = dict(re.findall(r"(?m)^#SBATCH --([\w-]+)='?([^'\n]*)", script))
        job = str(max([100, *map(int, read("last", []))]) + 1)
        write("last", [job])
        reason = "JobHeldUser" if "--hold" in words else "None"
        count = int(re.match(r"0-(\d+)", flags["array"])[1]) + 1
        tasks = {str(index): ["PENDING", reason] for index in range(count)}
        after = flags.get("dependency", "")
        jobs[job] = {"name": flags["job-name"], "after": after, "tasks": tasks}
        (here / f"{job}.sbatch").write_text(script)
        return job

    def squeue():
        lines = []
        for job, one in jobs.items():
            for index, (state, reason) in one["tasks"].items():
                if state == "ENDED":
                    continue
                line = f"{job}_{index}|{state}|{reason}|{one['name']}"
                lines.append(line if "%j" in words[-1] else line.split("|")[0])
        return "\n".join(lines)

    def scontrol():
        if words[1:3] == ["show", "job"]:
            return " ".join(f"{key}={value}" for key, value in read("show", {}).items())
        if words[1] == "release":
            if words[2] not in jobs:
                refuse("Invalid job id specified")
            if "ENDED" in str(jobs[words[2]]):
                refuse(f"{words[2]}_0: Job has already finished\n{words[2]}_1: No error")
            for task in jobs[words[2]]["tasks"].values():
                task[1] = "None" if task[1] == "JobHeldUser" else task[1]
        return read(words[-1], "") if "show" in words else ""

    def scancel():
        for job in words[1:]:
            array, _, index = job.partition("_")
            if index and array in jobs:
                jobs[array]["tasks"].pop(index, None)
            if not index or not jobs.get(array, {}).get("tasks"):
                jobs.pop(array, None)
        return ""

    def sacct():
        return "\n".join(f"{job}|{state}" for job, state in read("sacct", {}).items())

    def sinfo():
        return read("sinfo", "")

    def sacctmgr():
        refuse("You are not running a supported accounting_storage plugin")

    commands = (sbatch, squeue, scontrol, scancel, sacct, sinfo, sacctmgr)
    with (here / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (here / "calls.jsonl").open("a") as out:
            out.write(json.dumps(words) + "\n")
        fault("before")
        jobs = read("jobs", {})
        text = next(one for one in commands if one.__name__ == words[0])()
        write("jobs", jobs)
        fault("after")
    sys.stdout.write(f"{text.strip()}\n" if text else "")
