"""The losses of DETR: known answers, laws, and that they do not depend on the number of ranks."""

import itertools
from datetime import timedelta

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch.distributed as dist  # noqa: E402 (needs torch)
import torch.multiprocessing as mp  # noqa: E402
from torchvision.ops import box_convert, generalized_box_iou  # noqa: E402

from spine_tasks.configs.detection import CordSignalDetr  # noqa: E402
from spine_tasks.errors import DataError  # noqa: E402
from spine_tasks.tasks.detr.criterion import losses, match  # noqa: E402
from spine_tasks.tasks.detr.matcher import Targets, assign, collect  # noqa: E402
from spine_tasks.tasks.detr.model import build, detections  # noqa: E402

torch.set_num_threads(1)

SIZE = (40, 80)  # height and width of made-up images, px
LOGITS = torch.tensor([[2.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 2]])
BOXES = torch.tensor(
    [[0.25, 0.25, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4], [0.75, 0.75, 0.2, 0.2], [0.5, 0.2, 0.1, 0.1]]
)


def true_boxes(*boxes, labels):
    """Targets in px of a SIZE image from cxcywh_norm."""
    height, width = SIZE
    norm = torch.tensor(boxes).reshape(-1, 4)
    edges = torch.tensor([width, height, width, height])
    return {"boxes": box_convert(norm, "cxcywh", "xyxy") * edges, "labels": torch.tensor(labels)}


TOY = true_boxes([0.5, 0.5, 0.3, 0.5], [0.7, 0.7, 0.2, 0.2], labels=[1, 2])
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def toy_losses(*targets, no_object_weight=0.1, layers=1):
    logits = LOGITS.expand(layers, len(targets), -1, -1)
    boxes = BOXES.expand(layers, len(targets), -1, -1)
    return losses(logits, boxes, collect(targets, [SIZE] * len(targets)), no_object_weight)


def some_outputs(layers=2, images=3, queries=6, classes=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, images, queries, classes + 1, generator=random)
    boxes = 0.2 + 0.5 * torch.rand(layers, images, queries, 4, generator=random)
    return logits.requires_grad_(), boxes.requires_grad_()


def some_targets(*counts, classes=3, seed=1):
    random = torch.Generator().manual_seed(seed)
    return [
        true_boxes(
            *(0.3 + 0.3 * torch.rand(count, 4, generator=random)).tolist(),
            labels=torch.randint(classes, (count,), generator=random).tolist(),
        )
        if count
        else NOTHING
        for count in counts
    ]


def test_the_toy_batch_has_the_losses_of_the_official_code():
    found = toy_losses(TOY)
    assert found["class"].item() == pytest.approx(0.523193, abs=2e-6)
    assert found["box"].item() == pytest.approx(5 * 0.15, abs=2e-6)
    assert found["giou"].item() == pytest.approx(2 * 0.553558, abs=5e-6)
    assert sum(found.values()).item() == pytest.approx(2.38031, abs=1e-5)


def test_the_toy_batch_is_matched_as_by_the_official_code():
    found = match(LOGITS[None, None], BOXES[None, None], collect([TOY], [SIZE]))
    assert found.query.tolist() == [1, 2]
    assert found.target.tolist() == [0, 1]


def test_an_image_without_boxes_costs_only_its_classes():
    found = toy_losses(NOTHING)
    assert found["class"].item() == pytest.approx(1.891095, abs=2e-6)
    assert found["box"] == 0
    assert found["giou"] == 0


def test_without_a_weight_for_no_object_an_empty_batch_costs_nothing():
    assert all(value == 0 for value in toy_losses(NOTHING, no_object_weight=0.0).values())


def test_the_toy_detections_are_those_of_the_official_code_with_the_surest_first():
    (found,) = detections(LOGITS[None], BOXES[None], [(100, 200)], categories=3)
    assert found["scores"].tolist() == pytest.approx([0.8700, 0.7112, 0.4754, 0.0963], abs=5e-5)
    assert found["labels"].tolist() == [2, 0, 1, 0]
    assert found["boxes"][1].tolist() == pytest.approx([30, 15, 70, 35], abs=1e-4)


def test_classes_beyond_those_of_the_data_are_not_found():
    (found,) = detections(LOGITS[None], BOXES[None], [(100, 200)], categories=1)
    assert found["labels"].tolist() == [0, 0, 0, 0]
    assert found["scores"][0].item() == pytest.approx(0.7112, abs=5e-5)


def test_layers_are_named_from_the_first_to_the_last_which_has_no_number():
    logits, boxes = some_outputs(layers=3)
    targets = collect(some_targets(2, 0, 3), [SIZE] * 3)
    together = losses(logits, boxes, targets, 0.1)
    assert len(together) == 9
    for layer, name in enumerate(["_aux0", "_aux1", ""]):
        alone = losses(logits[layer : layer + 1], boxes[layer : layer + 1], targets, 0.1)
        for term, value in alone.items():
            assert together[f"{term}{name}"].item() == pytest.approx(value.item(), rel=1e-6)


def test_the_match_has_the_least_cost_of_all_and_layers_and_images_do_not_mix():
    logits, boxes = some_outputs()
    targets = some_targets(3, 1, 2)
    found = match(logits, boxes, collect(targets, [SIZE] * 3))
    edges = torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
    for layer, image in itertools.product(range(2), range(3)):
        corners = targets[image]["boxes"] / edges
        true = box_convert(corners, "xyxy", "cxcywh")
        probability = logits[layer, image].softmax(-1)[:, targets[image]["labels"]]
        overlap = generalized_box_iou(box_convert(boxes[layer, image], "cxcywh", "xyxy"), corners)
        distance = (boxes[layer, image][:, None] - true).abs().sum(-1)
        cost = (5 * distance - probability - 2 * overlap).detach()
        number = len(true)
        best = min(
            itertools.permutations(range(6), number),
            key=lambda queries: sum(cost[q, t].item() for t, q in enumerate(queries)),
        )
        of_this = (found.layer == layer) & (found.image == image)
        pairs = zip(found.target[of_this].tolist(), found.query[of_this].tolist(), strict=True)
        assert sorted(pairs) == list(enumerate(best))


def test_the_order_of_true_boxes_does_not_matter():
    logits, boxes = some_outputs(images=1)
    (target,) = some_targets(4)
    turned = {name: value.flip(0) for name, value in target.items()}
    one, other = (losses(logits, boxes, collect([t], [SIZE]), 0.1) for t in (target, turned))
    assert {n: v.item() for n, v in one.items()} == pytest.approx(
        {n: v.item() for n, v in other.items()}, rel=1e-6
    )


def test_all_queries_may_be_taken_but_more_boxes_are_an_error_that_names_the_knob():
    full = some_targets(4)[0]
    assert toy_losses(full)["box"] > 0
    with pytest.raises(DataError, match="has 5 boxes, but only 4 are proposed; set `queries`"):
        toy_losses(TOY, some_targets(5)[0])


def test_outputs_that_are_not_finite_are_an_error():
    cost = torch.zeros(1, 2, 1)
    cost[0, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        assign(cost, [1])


def test_what_is_padded_does_not_change_a_loss():
    logits, boxes = some_outputs(images=2)
    narrow = collect(some_targets(1, 2), [SIZE] * 2)
    wide = Targets(
        torch.nn.functional.pad(narrow.labels, (0, 3), value=2),
        torch.nn.functional.pad(narrow.boxes, (0, 0, 0, 3), value=0.3),
        narrow.counts,
    )
    one, other = (losses(logits, boxes, targets, 0.1) for targets in (narrow, wide))
    assert {n: v.item() for n, v in one.items()} == {n: v.item() for n, v in other.items()}


# Several ranks

COUNTS = (1, 3, 0, 2)  # boxes of the four images: the ranks' shares differ
ONE_BOX = (0, 1, 0, 0)  # less than one a rank


def gradients(counts, rank=0, ranks=1):
    """Of a small DETR and a rank's share of four images, in the order of `parameters()`."""
    torch.manual_seed(0)
    small = {"hidden": 16, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 2}
    config = CordSignalDetr(backbone="resnet18", init="backbone", queries=5, dropout=0.0, **small)
    model = build(config, 3)
    images = list(torch.rand(4, 3, *SIZE))
    targets = some_targets(*counts)
    share = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
    terms = model(images[share], targets[share])
    sum(terms.values()).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def mean_gradients(rank, store):
    """For both numbers of boxes, as two ranks find them together."""
    torch.set_num_threads(1)
    wait = timedelta(seconds=120)
    where = f"file://{store}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=wait)
    try:
        answer = [gradients(counts, rank, 2) for counts in (COUNTS, ONE_BOX)]
        for gradient in itertools.chain(*answer):
            dist.all_reduce(gradient)
            gradient /= 2
    finally:
        dist.destroy_process_group()
    return answer


def test_two_ranks_with_half_a_batch_have_the_gradient_of_one_with_all_of_it(tmp_path):
    other = mp.get_context("spawn").Process(target=mean_gradients, args=(1, tmp_path / "store"))
    other.start()
    together = mean_gradients(0, tmp_path / "store")
    other.join()
    assert other.exitcode == 0
    for of_both, counts in zip(together, (COUNTS, ONE_BOX), strict=True):
        alone = gradients(counts)
        scale = max(gradient.abs().max() for gradient in alone)
        assert len(alone) > 50
        for one, both in zip(alone, of_both, strict=True):
            assert torch.allclose(one, both, rtol=1e-5, atol=1e-5 * scale)
