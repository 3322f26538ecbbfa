"""One rank of a step that `srun` started on several nodes: writes its gradients into a folder."""

import os
import pickle
import sys
from pathlib import Path

from spine_tasks import slurm
from spine_tasks.environment import ATTEMPT, NODE, NODES


def main():
    node = slurm.node_of_job()
    os.environ |= {
        NODE: str(node),
        NODES: os.environ["SLURM_JOB_NUM_NODES"],
        ATTEMPT: os.environ["SLURM_JOB_ID"],
    }
    import torch
    from rank_gradients import gradients

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    (folder / f"rank{node}.pickle").write_bytes(pickle.dumps(gradients(folder)))


if __name__ == "__main__":
    main()
