"""Many faults at once: one half of a cluster after the other takes the next one."""

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from faults import disturbed
from trials import Half, Task, Trial

TORCH = Task(
    "PyTorch",
    "from spine_tasks.configs import GmSegmentation as config\n"
    "config.entry, config.framework = 'torch_task:train', 'torch'",
    (
        *("epochs=75", "batch_size=1", "threshold=0.9", "learning_rate=0.01"),
        # Of every process all that it shares with others is counted, too.
        *("resources.checkpoint_s=2", "resources.mem_gb=3"),
    ),
)
GREY_MATTER = Task(
    "TensorFlow",
    "import inside_worker\ninside_worker.pace_every_look()",
    (
        *("epochs=100", "patience=100", "image_px=32", "filters=2"),
        *("resources.checkpoint_s=2", "resources.mem_gb=3"),
    ),
)


def on(task, data):
    """The task on the data in a folder."""
    return Task(task.name, task.entry, (*task.settings, f"data={data}"))


def undisturbed(task, half, folder):
    """The results of a cell that nothing happens to."""
    trial = Trial(folder, half, task)
    trial.launch_here()
    return trial.results()


class Table:
    """The outcomes of (task, fault), as futures; what is asked for is disturbed in the background.

    Parameters
    ----------
    clusters
        Folders of running dev clusters, by the name that faults have for them.
    """

    def __init__(self, clusters, data, folder):
        self.clusters, self.data, self.folder = clusters, data, folder
        self.outcomes = {}
        self.over = False
        self.threads = []

    def start(self, cases):
        """Begin with (task, fault), in this order; those that disturb others come last, alone."""
        for task, fault in cases:
            self.outcomes[task.name, fault.name] = Future()
        for name in self.clusters:
            mine = [case for case in cases if case[1].cluster == name]
            self.threads.append(threading.Thread(target=self._work, args=(name, mine), daemon=True))
            self.threads[-1].start()

    def outcome(self, task, fault):
        """What became of it; raises what went wrong."""
        return self.outcomes[task.name, fault.name].result()

    def end(self):
        """Begin nothing more, and wait for what is under way."""
        self.over = True
        for thread in self.threads:
            thread.join()

    def _work(self, name, cases):
        halves = queue.SimpleQueue()
        for feature in ("left", "right"):
            halves.put(Half(self.clusters[name], feature))
        with ThreadPoolExecutor(max_workers=2) as both:
            for case in [case for case in cases if not case[1].alone]:
                both.submit(self._disturb, *case, halves)
        for case in [case for case in cases if case[1].alone]:
            self._disturb(*case, halves)

    def _disturb(self, task, fault, halves):
        future = self.outcomes[task.name, fault.name]
        if self.over:
            future.cancel()
            return
        half = halves.get()
        folder = self.folder / f"{task.name}-{fault.id}"
        try:
            future.set_result(disturbed(fault, on(task, self.data), half, folder))
        except BaseException as error:
            future.set_exception(error)
            _clear(half)
        finally:
            halves.put(half)


def _clear(half):
    """Take a failed trial's jobs out of the next one's way."""
    if left := list(half.queue()):
        half.slurm("scancel", *left)
