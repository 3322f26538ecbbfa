"""Batches of detection: what a step is given follows from seed, epoch and step alone."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch

from spine_tasks import batches_torch
from spine_tasks.configs import DiscFasterRcnn
from spine_tasks.data.coco import BoxCase
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.tasks.detection.batches import batches_of

PX = 48


pytestmark = pytest.mark.usefixtures("one_thread")


def config(**knobs):
    return DiscFasterRcnn(
        **{"image_px": PX, "augment": "none", "batch_size": 4, "threads": 1} | knobs
    )


def case(folder, pixels, boxes=(), name="a"):
    """A case with a picture of these pixels, labels counting from 0."""
    pixels = np.asarray(pixels)
    file = folder / f"{name}.png"
    Image.fromarray(pixels).save(file)
    height, width = pixels.shape
    return BoxCase(
        id=name,
        image_id=0,
        subject=name,
        image=file,
        width=width,
        height=height,
        boxes=np.array(boxes, float).reshape(-1, 4),
        labels=np.arange(len(boxes)),
    )


@pytest.fixture
def cases(tmp_path):
    """Ten cases of several shapes; two have no box."""
    made = []
    for number in range(10):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (40 + 5 * number, 90 - 7 * number), dtype=np.uint8)
        boxes = [[2 + number, 3, 20, 35], [0, 0, 15.5, 9.25]] if number % 5 else []
        made.append(case(tmp_path, pixels, boxes, f"picture{number}"))
    return made


def all_of(steps):
    """Everything that some steps yield, as plain numbers in one flat list."""
    return [
        (image.tolist(), target["boxes"].tolist(), target["labels"].tolist())
        for parts in steps
        for images, targets in parts
        for image, target in zip(images, targets, strict=True)
    ]


def recorded(batches, epoch, first_step=0):
    """The (epoch, index) of each part of each step, without making them."""
    batches(epoch, first_step)
    return list(batches.upcoming)


def test_an_epoch_has_every_case_once_in_an_order_of_its_own(cases):
    batches = batches_of(cases, config(), seed=1, workers=0)
    assert len(batches) == 3
    orders = {}
    for seed, epoch in ((1, 0), (1, 1), (0, 1), (1, 0)):
        steps = recorded(batches_of(cases, config(), seed, workers=0), epoch)
        assert [sum(map(len, parts)) for parts in steps] == [4, 4, 2]
        pairs = [pair for parts in steps for part in parts for pair in part]
        assert {of for of, _ in pairs} == {epoch}
        order = [index for _, index in pairs]
        assert sorted(order) == list(range(10))
        assert orders.setdefault((seed, epoch), order) == order
    assert len(set(map(tuple, orders.values()))) == 3


def test_images_and_targets_are_as_detectors_want_them(cases):
    seen = 0
    for parts in batches_of(cases, config(augment="hard"), seed=0, workers=0)(epoch=0):
        ((images, targets),) = parts
        for image, target in zip(images, targets, strict=True):
            assert (image.dtype, image.shape[0]) == (torch.float32, 3)
            assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
            assert target["boxes"].shape == (len(target["labels"]), 4)
            assert set(target) == {"boxes", "labels"}
            assert type(image) is type(target["boxes"]) is torch.Tensor
            seen += 1
    assert seen == 10


def test_augmentation_differs_from_case_to_case_epoch_to_epoch_and_seed_to_seed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    alike = [case(tmp_path, pixels, name=f"copy{number}") for number in range(2)]
    samples = [batches_of(alike, config(augment="hard"), seed, 0).samples for seed in (0, 1)]
    images = {
        str(samples[seed].sample(index, epoch)[0].tolist())
        for seed in (0, 1)
        for index in (0, 1)
        for epoch in (0, 1)
    }
    assert len(images) == 8


@pytest.mark.parametrize("augment", ["multi_scale", "hard"])
def test_loader_processes_and_resuming_change_nothing(cases, augment):
    knobs = config(augment=augment)
    alone = batches_of(cases, knobs, seed=5, workers=0)
    whole = {epoch: all_of(alone(epoch)) for epoch in (0, 1)}
    assert whole[0] != whole[1]
    together = batches_of(cases, knobs, seed=5, workers=2)
    assert all_of(together(0)) == whole[0]
    next(together(1))  # and stop there: what is made ahead must not come up later
    assert all_of(together(0, first_step=1)) == whole[0][4:]
    assert all_of(together(1, first_step=2)) == whole[1][8:]
    assert all_of(together(1, first_step=3)) == []
    assert all_of(batches_of(cases, knobs, seed=5, workers=0)(1, 1)) == whole[1][4:]


def test_batches_do_not_touch_torchs_generator_nor_depend_on_it(cases):
    batches = batches_of(cases, config(augment="hard"), seed=5, workers=0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = all_of(batches(0))
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert all_of(batches(0)) == first
    with_processes = batches_of(cases, config(augment="hard"), seed=5, workers=1)
    before = torch.get_rng_state()
    next(with_processes(0))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (2, 2), (3, 1), (4, 4)])
@pytest.mark.parametrize("count", [10, 9, 8])
def test_the_ranks_shares_together_are_the_whole_batch(cases, ranks, accumulate, count):
    knobs = config(accumulate=accumulate)
    whole = recorded(batches_of(cases[:count], config(), seed=3, workers=0), epoch=2)
    order = [pair for parts in whole for part in parts for pair in part]
    shares = [
        recorded(batches_of(cases[:count], knobs, 3, 0, rank, ranks), epoch=2)
        for rank in range(ranks)
    ]
    for step, of_ranks in enumerate(zip(*shares, strict=True)):
        counts = {len(parts) for parts in of_ranks}
        assert len(counts) == 1  # else ranks wait for each other for ever
        assert counts.pop() <= accumulate
        sizes = [sum(map(len, parts)) for parts in of_ranks]
        assert max(sizes) - min(sizes) <= 1
        assert all(part for parts in of_ranks for part in parts)
        together = [pair for parts in of_ranks for part in parts for pair in part]
        expected = [pair for part in whole[step] for pair in part]
        assert together == expected + order[: max(0, ranks - len(expected))]


def test_a_batch_of_fewer_cases_than_ranks_repeats_them(cases):
    shares = [recorded(batches_of(cases[:1], config(), 0, 0, rank, 4), 0) for rank in range(4)]
    assert shares == [[[[(0, 0)]]]] * 4


def test_parts_make_up_the_batch_in_order(cases):
    whole = batches_of(cases, config(augment="flip"), seed=0, workers=0)
    parts = batches_of(cases, config(augment="flip", accumulate=2), seed=0, workers=0)
    assert [[len(images) for images, _ in step] for step in parts(0)] == [[2, 2], [2, 2], [1, 1]]
    assert all_of(parts(0)) == all_of(whole(0))


def test_more_ranks_than_images_a_step_are_refused(cases):
    with pytest.raises(ConfigError, match="batch_size 4 leaves some of 8 GPUs without a sample"):
        batches_of(cases, config(), 0, 0, rank=0, ranks=8)


def test_pictures_are_read_once(cases):
    batches = batches_of(cases, config(), seed=0, workers=0)
    before = all_of(batches(0))
    for one in cases:
        one.image.unlink()
    assert all_of(batches(0)) == before
    with pytest.raises(DataError, match=r"picture0\.png"):
        batches_of(cases, config(), seed=0, workers=0)


def test_a_stop_sent_to_all_processes_leaves_those_of_the_loader_at_work(cases):
    batches = batches_of(cases, config(batch_size=1), seed=0, workers=2)
    steps = batches(0)
    next(steps), next(steps)  # one of each: they ignore signals before they make anything
    loaders = multiprocessing.active_children()
    assert len(loaders) == 2
    for one in loaders:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            os.kill(one.pid, number)
    assert len(list(steps)) == 8
    assert all(one.is_alive() for one in loaders)


def test_loader_processes_started_afresh_beside_cuda_make_the_same(cases, monkeypatch):
    expected = all_of(batches_of(cases, config(augment="hard"), seed=0, workers=0)(0))
    monkeypatch.setattr(batches_torch, "_cuda_in_use", lambda: True)
    batches = batches_of(cases, config(augment="hard"), seed=0, workers=1)
    assert all_of(batches(0)) == expected
    assert all_of(batches(0, 2)) == expected[8:]
