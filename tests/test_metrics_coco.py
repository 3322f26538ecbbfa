"""COCO's 12 numbers of boxes, against those of pycocotools on the same files."""

import json
import math

import numpy as np
import pytest
from box_making import at_random, case, found
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spine_tasks.metrics.boxes import in_order
from spine_tasks.metrics.coco_ap import OF_PRECISION, OF_RECALL, coco_ap

LABELS = "abc"
NAMES = (*OF_PRECISION, *OF_RECALL)


def same(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True)


def entries(image, boxes, labels, order):
    """The boxes of an image as COCO has them: categories from 1, x, y, width and height."""
    return [
        {"image_id": image, "category_id": int(label) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for (x1, y1, x2, y2), label in zip(boxes[order].tolist(), labels[order], strict=True)
    ]


def files_of(folder, cases, results):
    """A COCO file of the reference and one of the results, as other people would write them.

    Equal boxes are in the order that ours takes them in, as COCO takes that of the file.
    """
    true, boxes = [], []
    for image, (one, other) in enumerate(zip(cases, results, strict=True), 1):
        true += entries(image, one.boxes, one.labels, in_order(one.boxes, one.labels))
        order = in_order(other.boxes, other.labels, other.scores)
        some = entries(image, other.boxes, other.labels, order)
        scores = other.scores[order].tolist()
        boxes += [box | {"score": score} for box, score in zip(some, scores, strict=True)]
    reference = {
        "info": {},
        "images": [{"id": image} for image in range(1, len(cases) + 1)],
        "categories": [{"id": label} for label in (1, 2, 3)],
        "annotations": [
            one | {"id": number, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
            for number, one in enumerate(true, 1)
        ],
    }
    for name, content in (("true", reference), ("found", boxes)):
        (folder / name).write_text(json.dumps(content))
    return str(folder / "true"), str(folder / "found")


def pycocotools_of(folder, cases, results):
    """Its 12 numbers of each label and of all; NaN for its -1."""
    true, boxes = files_of(folder, cases, results)
    reference = COCO(true)
    numbers = {}
    for label, ids in (*((name, [index]) for index, name in enumerate(LABELS, 1)), ("all", None)):
        evaluation = COCOeval(reference, reference.loadRes(boxes), "bbox")
        evaluation.params.catIds = ids or evaluation.params.catIds
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        values = [math.nan if value == -1 else float(value) for value in evaluation.stats]
        numbers |= {(label, name): value for name, value in zip(NAMES, values, strict=True)}
    return numbers


def assert_equal(folder, cases, results):
    ours = {(label, name): value for label, name, value in coco_ap(cases, results, LABELS)}
    assert ours == same(pycocotools_of(folder, cases, results))
    return ours


def test_nothing_is_printed_or_logged(capsys, caplog):
    caplog.set_level("INFO")
    list(coco_ap([case("a", (0, 0, 40, 40, 0))], [found((0, 0, 40, 40, 0, 0.5))], "a"))
    assert capsys.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("levels", [2, 2**20])
@pytest.mark.parametrize("seed", range(4))
def test_the_12_numbers_equal_those_of_pycocotools(tmp_path, seed, levels):
    assert_equal(tmp_path, *at_random(seed, levels=levels))


@pytest.mark.parametrize("factor", [1e-4, 0.1, 700, 3e4])
def test_tiny_and_huge_boxes(tmp_path, factor):
    cases, results = at_random(11, levels=10)
    cases = [case(one.id, *np.c_[one.boxes * factor, one.labels]) for one in cases]
    results = [found(*np.c_[one.boxes * factor, one.labels, one.scores]) for one in results]
    ours = assert_equal(tmp_path, cases, results)
    assert math.isnan(ours["all", "AP"]) is (factor == 3e4)  # areas above 1e10 are of no size


def test_boxes_without_an_area_and_on_the_border_of_two_sizes(tmp_path):
    corners = [(0, 0, 0, 0), (5, 5, 5, 9), (0, 0, 32, 32), (0, 0, 96, 96), (100, 0, 196, 97)]
    cases = [case("a", *((*box, 0) for box in corners))]
    results = [found(*((*box, 0, 0.1 * place) for place, box in enumerate(corners)))]
    ours = assert_equal(tmp_path, cases, results)
    assert [ours["a", f"AR_{size}"] for size in ("small", "medium", "large")] == same([1 / 3, 1, 1])


def test_overlaps_of_exactly_a_threshold(tmp_path):
    cases = [case("a", *((200 * x, 0, 200 * x + 100, 100, 0) for x in range(10)))]
    widths = range(50, 100, 5)
    boxes = [
        (200 * x, 0, 200 * x + width, 100, 0, 1 - width / 200) for x, width in enumerate(widths)
    ]
    ours = assert_equal(tmp_path, cases, [found(*boxes)])
    assert ours["a", "AR100"] == same(5.5 / 10)


@pytest.mark.parametrize("factor", [1, 0.7])
@pytest.mark.parametrize("seed", range(6))
def test_crowds_of_two_sizes_with_many_equal_overlaps(tmp_path, seed, factor):
    rng = np.random.default_rng(seed)

    def crowd(number):
        low = 8 * rng.integers(0, 3, (number, 2))
        return np.c_[low, low + 8 * rng.integers(3, 7, (number, 2))] * factor

    cases = [case(f"i{index}", *np.c_[crowd(12), rng.integers(0, 3, 12)]) for index in range(6)]
    guessed = [(crowd(30), rng.integers(0, 3, 30), rng.random(30)) for _ in cases]
    assert_equal(tmp_path, cases, [found(*np.column_stack(one)) for one in guessed])


def test_images_labels_and_results_that_are_not_there(tmp_path):
    cases, results = at_random(5)
    cases[1], cases[4] = case("i1"), case("i4")
    results[4] = results[6] = found()
    cases = [case(one.id, *np.c_[one.boxes, one.labels][one.labels != 1]) for one in cases]
    results = [found(*np.c_[r.boxes, r.labels, r.scores][r.labels != 2]) for r in results]
    ours = assert_equal(tmp_path, cases, results)
    assert [ours["b", "AP"], ours["c", "AP"], ours["c", "AR100"]] == same([math.nan, 0, 0])
    assert ours["all", "AP"] == same(ours["a", "AP"] / 2)


@pytest.mark.parametrize("levels", [1, 7, 2**20])
def test_more_boxes_of_a_label_in_an_image_than_count(tmp_path, levels):
    rng = np.random.default_rng(levels)
    cases, _ = at_random(7, images=3)
    results = []
    for one in cases:
        near = np.repeat(one.boxes, 40, axis=0) + rng.integers(-3, 4, (40 * len(one.boxes), 4))
        near[:, 2:] = np.maximum(near[:, :2], near[:, 2:])
        scores = rng.integers(0, levels, len(near)) / levels
        results.append(found(*np.c_[near, np.repeat(one.labels, 40), scores]))
    assert max(np.bincount(one.labels).max() for one in results) > 100
    ours = assert_equal(tmp_path, cases, results)
    assert ours["all", "AR1"] < ours["all", "AR10"] < ours["all", "AR100"]
