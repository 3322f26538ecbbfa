"""Convert data sets for nnU-Net, let it plan and preprocess them: once for all that train on them.

A cell of its own, which training cells need; a cell trained by hand does it in its own folder.
"""

import logging
import shutil

from spine_tasks.cell import Cell
from spine_tasks.configs import CordNnunet, CordPreprocessing
from spine_tasks.data.cases import cord_parts, unpaired_images
from spine_tasks.errors import DataError, Interrupted, RunError
from spine_tasks.files import check_room, read_json, replacing, write_json
from spine_tasks.nnunet.convert import SPLITS, write_dataset
from spine_tasks.run import Run
from spine_tasks.tasks.cord.folders import (
    DATASET,
    NAME,
    NUMBER,
    PRINTED,
    preprocessed_of,
    printing_to,
    raw_of,
    use_nnunet,
    use_processes,
)

PLANNED = "planned.json"  # in a run's folder, written last: which of nnU-Net's plans holds
ROOM = 8  # bytes of preprocessed data a byte of compressed image, at least

log = logging.getLogger(__name__)


def train(cell: Cell, run: Run) -> None:
    """Convert, plan and preprocess what the cells that need this one train on."""
    use_nnunet(cell, run, run)
    preprocess(cell, run)


def prepared(cell: Cell, run: Run) -> Run:
    """The run with the data of a training cell, which it makes itself where it needs none.

    Raises
    ------
    RunError
        The needed cell is not complete, or its data is gone.
    """
    first = run.needed() if cell.needs else run
    use_nnunet(cell, first, run)
    if not cell.needs:
        preprocess(cell, run)
    use_processes(max(0, cell.resources.cpus - 1))
    if not (first.folder / PLANNED).is_file():
        raise RunError(
            f"{first.folder}: its preprocessed data is gone; delete {first.folder / 'done.json'} "
            "and launch the grid again"
        )
    return first


def plans_of(first: Run) -> str:
    """The name of the plans that nnU-Net made, without `.json`."""
    return str(read_json(first.folder / PLANNED)["plans"])


def preprocess(cell: Cell, run: Run) -> None:
    """Do it unless it was done.

    Raises
    ------
    DataError
        nnU-Net refuses the data, or has no such configuration for it.
    Interrupted
        A stop was requested; what is converted stays.
    RunError
        The disk is full, or a process of nnU-Net was killed.
    """
    if (run.folder / PLANNED).is_file():
        return
    for alone in unpaired_images(cell, run.folder.parent):
        log.warning("no mask, left out: %s", alone)
    parts = cord_parts(cell, run.folder.parent)
    images = [pair.image for pairs in parts.values() for pair in pairs]
    check_room(run.folder, ROOM * sum(f.stat().st_size for f in images), "nnU-Net's data")
    folder = write_dataset(raw_of(run), NUMBER, NAME, parts)
    counts = ", ".join(f"{len(pairs)} {part}" for part, pairs in parts.items())
    log.info("converted: %s", counts)
    if run.stop_requested:
        raise Interrupted("stopped before preprocessing")
    plans = _plan_and_preprocess(cell, run)
    with replacing(preprocessed_of(run) / SPLITS) as partial:
        shutil.copyfile(folder / SPLITS, partial)
    write_json(run.folder / PLANNED, {"plans": plans})
    log.info("preprocessed with %s", plans)


def _plan_and_preprocess(cell: Cell, run: Run) -> str:
    """Let nnU-Net check the data, plan and preprocess; return the name of its plans."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    config: CordPreprocessing | CordNnunet = cell.config
    processes = cell.resources.cpus
    logging.disable(logging.INFO)  # it logs each file that it copies
    try:
        with printing_to(run):
            _verify(run, processes)
            api.extract_fingerprints([NUMBER], num_processes=processes, clean=True)
            plans = api.plan_experiments([NUMBER], config.planner, config.gpu_memory_gb)
            api.preprocess([NUMBER], plans, (config.configuration,), (processes,))
    except RuntimeError as error:
        if run.stop_requested:  # which reached its processes too
            raise Interrupted("stopped while preprocessing") from error
        if "background worker" not in str(error).lower():
            raise
        raise RunError(
            "a process of nnU-Net was killed while preprocessing, most likely for want of memory "
            f"({error}); ask for more by --set needs.resources.mem_gb=..., or for fewer processes "
            "by --set needs.resources.cpus=..."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    there = read_json(preprocessed_of(run) / f"{plans}.json")["configurations"]
    if config.configuration not in there:
        raise DataError(
            f"{DATASET}: nnU-Net plans no {config.configuration} for these images, but "
            f"{', '.join(there)}; choose one of them by --set configuration=..."
        )
    return str(plans)


def _verify(run: Run, processes: int) -> None:
    """nnU-Net's own check of the data that it is given."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    try:
        verify_dataset_integrity(str(raw_of(run) / DATASET), processes)
    except (RuntimeError, AssertionError) as error:
        printed = (run.folder / PRINTED).read_text(encoding="utf-8").strip().splitlines()
        told = [line for line in printed if line.startswith("Error")][-3:]
        raise DataError(
            f"{DATASET}: nnU-Net refuses the data: {' '.join([*told, str(error)])}; see "
            f"{run.folder / PRINTED}"
        ) from error
