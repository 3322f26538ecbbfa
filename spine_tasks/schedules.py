"""Learning rates over a training, as factors that follow from the step alone."""

import math

WARM = 0.3  # share of a one-cycle training in which the rate rises
FIRST, LAST = 1 / 25, 1 / 25 / 1e4  # factors at its ends


def factor(schedule: str, step: int, steps: int, steps_an_epoch: int, lr_drop: int) -> float:
    """What the learning rate is multiplied by in a step.

    Parameters
    ----------
    schedule
        `constant`; `step`: a tenth from epoch `lr_drop` on; `one_cycle`: up and down along
        cosines [1]_.
    step
        From 0, over all epochs.
    steps
        Of the whole training.

    References
    ----------
    .. [1] Smith and Topin, Super-convergence, 2019, doi:10.1117/12.2520589.

    Examples
    --------
    >>> [factor("step", step, 4, 1, lr_drop=2) for step in range(4)]
    [1.0, 1.0, 0.1, 0.1]
    >>> round(max(factor("one_cycle", step, 100, 10, 0) for step in range(100)), 6)
    1.0
    """
    if schedule == "step":
        return 0.1 if step // steps_an_epoch >= lr_drop else 1.0
    if schedule == "one_cycle":
        top = max(1.0, WARM * steps - 1)
        if step <= top:
            return _cosine(FIRST, 1.0, step / top)
        return _cosine(1.0, LAST, (step - top) / max(1.0, steps - 1 - top))
    return 1.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
