"""Images with reference boxes, and boxes found in them, for tests."""

from pathlib import Path

import numpy as np

from spine_tasks.data.coco import BoxCase
from spine_tasks.predictions import Detections


def case(name, *boxes, subject=None):
    """An image; each of its boxes is (x1, y1, x2, y2, label)."""
    rows = np.array(boxes, float).reshape(-1, 5)
    return BoxCase(
        id=name,
        image_id=0,
        subject=subject or name,
        image=Path(f"{name}.png"),
        width=512,
        height=512,
        boxes=rows[:, :4],
        labels=rows[:, 4].astype(np.int64),
    )


def found(*boxes):
    """What was found in an image; each box is (x1, y1, x2, y2, label, score)."""
    rows = np.array(boxes, float).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4].astype(np.int64), rows[:, 5])


def perfect(cases, score=1.0):
    """The reference boxes themselves, as boxes found."""
    return [Detections(one.boxes, one.labels, np.full(len(one.labels), score)) for one in cases]


def at_random(seed, images=8, labels=3, levels=50):
    """Images with up to 5 boxes of a label, and found boxes near them and elsewhere.

    Corners are whole, so that areas and IoU are exact; scores have `levels` values, so that some
    are equal.
    """
    rng = np.random.default_rng(seed)
    cases, results = [], []
    for index in range(images):
        number = int(rng.integers(0, 5 * labels))
        low = rng.integers(0, 200, (number, 2))
        boxes = np.c_[low, low + rng.integers(2, 150, (number, 2))].astype(float)
        own = rng.integers(0, labels, number)
        cases.append(case(f"i{index}", *np.c_[boxes, own], subject=f"s{index // 2}"))
        near = np.sort((boxes + rng.integers(-6, 7, boxes.shape)).reshape(-1, 2, 2), axis=1)
        low = rng.integers(0, 200, (6, 2))
        far = np.c_[low, low + rng.integers(2, 150, (6, 2))].astype(float)
        every = np.r_[near.reshape(-1, 4), far]
        mixed = np.where(rng.random(number) < 0.8, own, rng.integers(0, labels, number))
        guessed = np.r_[mixed, rng.integers(0, labels, 6)]
        scores = rng.integers(0, levels, len(every)) / levels
        results.append(found(*np.c_[every, guessed, scores]))
    return cases, results
