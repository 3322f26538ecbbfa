"""Several ranks of one cell as processes of this machine."""

import multiprocessing
import os
import pickle
from itertools import count

from spine_tasks.environment import ATTEMPT, NODE, NODES

# One process imports once what is slow; the ranks are forked from it, not from the tests' own.
SLOW = ["pytest", "spine_tasks.loop_torch", "torch._dynamo", "torchvision", "timm"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(SLOW)
NUMBERS = count()


def on_ranks(scenario, *given, ranks=2):
    """What `scenario(*given)` gave on each rank, or what it raised; None where it was killed.

    Every rank has the environment of a node of its own.
    """
    attempt = f"{os.getpid()}.{next(NUMBERS)}"
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(ranks)]
    processes = [
        CONTEXT.Process(target=_be, args=(rank, ranks, attempt, pipe, scenario, given))
        for rank, (_, pipe) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, pipe in pipes:
        pipe.close()  # so that the end of a rank is the end of its pipe
    answers = [_answer(pipe) for pipe, _ in pipes]
    for process in processes:
        process.join(timeout=60)
        process.kill()  # where a rank does not end by itself; its answer is what is judged
    return answers


def _answer(pipe):
    try:
        return pickle.loads(pipe.recv_bytes()) if pipe.poll(120) else TimeoutError("no answer")
    except EOFError:
        return None


def _be(rank, ranks, attempt, pipe, scenario, given):
    import torch

    torch.set_num_threads(1)
    os.environ |= {NODE: str(rank), NODES: str(ranks), ATTEMPT: attempt}
    try:
        outcome = scenario(*given)
    except Exception as error:
        outcome = error
    pipe.send_bytes(pickle.dumps(outcome))  # tensors by value: their process is about to end
