"""Faster R-CNN: torchvision's network without its traps, and what it starts from."""

import multiprocessing
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch
import torch.distributed as dist
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d, box_iou

from spine_tasks.configs.detection import DiscFasterRcnn
from spine_tasks.errors import ConfigError, DataError, WeightsError
from spine_tasks.tasks.faster_rcnn import start
from spine_tasks.tasks.faster_rcnn.losses import Sampler, box_losses
from spine_tasks.tasks.faster_rcnn.model import build
from spine_tasks.tasks.faster_rcnn.start import load_start

torch.set_num_threads(1)

SMALL = DiscFasterRcnn(  # timm's network for tests
    backbone="test_resnet",
    pyramid_channels=16,
    head_features=32,
    anchors_px=(8, 16, 32, 64, 96),
    score=0.0,
)


def made(config=SMALL, seed=0, categories=2):
    torch.manual_seed(seed)
    return build(config, categories)


def some_images(*sizes, channels=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(channels, *size, generator=generator) for size in sizes]


def target(*rows):
    """A target of rows (x1, y1, x2, y2, label)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return {"boxes": table[:, :4], "labels": table[:, 4].long()}


FOUR_TARGETS = [
    target((10, 10, 40, 30, 0), (5, 40, 30, 60, 1)),
    target(),
    target((0, 0, 64, 64, 1)),
    target((30, 20, 60, 28, 0)),
]


def losses_of(model, images, targets, seed=1):
    torch.manual_seed(seed)
    return model.train()(images, targets)


# The network


@pytest.mark.parametrize(
    ("version", "init", "categories", "parameters", "trained", "tensors"),
    [
        ("v1", "none", 90, 41_808_406, 41_808_406, 348),
        ("v1", "none", 2, 41_357_406, 41_357_406, 348),
        ("v1", "backbone", 90, 41_755_286, 41_532_886, 295),
        ("v1", "backbone", 2, 41_304_286, 41_081_886, 295),
        ("v2", "none", 90, 43_712_278, 43_712_278, 404),
        ("v2", "none", 2, 43_261_278, 43_261_278, 404),
    ],
)
def test_the_published_network_has_the_published_numbers(
    version, init, categories, parameters, trained, tensors
):
    with torch.device("meta"):  # shapes alone
        model = build(DiscFasterRcnn(version=version, init=init), categories)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    assert len(model.state_dict()) == tensors


@pytest.mark.parametrize(
    ("version", "theirs"), [("v1", fasterrcnn_resnet50_fpn), ("v2", fasterrcnn_resnet50_fpn_v2)]
)
def test_the_state_is_that_of_torchvision_name_by_name(version, theirs):
    with torch.device("meta"):
        own = build(DiscFasterRcnn(version=version), 2).state_dict()
        other = theirs(weights=None, weights_backbone=None, num_classes=3).state_dict()
    assert {n: t.shape for n, t in own.items()} == {n: t.shape for n, t in other.items()}


@pytest.fixture(scope="module")
def ours_and_theirs():
    """Our network over a ResNet-18, and torchvision's of the same weights."""
    ours = made(DiscFasterRcnn(backbone="resnet18", score=0.3))
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    theirs = FasterRCNN(
        backbone,
        num_classes=3,
        min_size=64,
        max_size=128,
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
        box_score_thresh=0.3,
        _skip_resize=True,  # in training; it would also draw a random number
    )
    theirs.load_state_dict(ours.state_dict())
    theirs.rpn.fg_bg_sampler = ours.rpn.fg_bg_sampler
    theirs.roi_heads.fg_bg_sampler = ours.roi_heads.fg_bg_sampler
    return ours, theirs


def test_losses_are_those_of_torchvision(ours_and_theirs):
    ours, theirs = ours_and_theirs
    images = some_images((64, 128), (64, 128))
    targets = [target((10, 10, 60, 40, 0), (5, 40, 30, 60, 1)), target((64, 0, 128, 64, 1))]
    shifted = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
    own, other = losses_of(ours, images, targets), losses_of(theirs, images, shifted)
    names = ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]
    assert list(own) == ["class", "box", "objectness", "proposal_box"]
    torch.testing.assert_close(list(own.values()), [other[name] for name in names])
    assert all(loss > 0 for loss in own.values())


def test_boxes_are_those_of_torchvision_with_labels_from_0(ours_and_theirs):
    ours, theirs = ours_and_theirs
    images = some_images((64, 128))
    with torch.no_grad():
        (own,), (other,) = ours.eval()(images), theirs.eval()(images)
    assert len(own["scores"]) > 10
    assert set(own["labels"].tolist()) <= {0, 1}
    torch.testing.assert_close(own["boxes"], other["boxes"])
    torch.testing.assert_close(own["scores"], other["scores"])
    assert torch.equal(own["labels"], other["labels"] - 1)


@pytest.mark.parametrize("training", [True, False])
def test_images_reach_the_backbone_neither_normalised_again_nor_resized(training):
    model = made().train(training)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    large, small = some_images((70, 100), (33, 20))
    model([large, small], [target(), target()])
    (batch,) = seen
    assert batch.shape == (2, 3, 128, 128)
    expected = torch.zeros_like(batch)
    expected[0, :, :70, :100], expected[1, :, :33, :20] = large, small
    assert torch.equal(batch, expected)


@pytest.mark.parametrize("label", [0, 1])
def test_labels_are_0_based_outside(label):
    model = made()
    with torch.no_grad():
        predictor = model.roi_heads.box_predictor.cls_score
        predictor.weight.zero_()
        predictor.bias.copy_(torch.tensor([0.0, 0.0, 0.0]))
        predictor.bias[1 + label] = 10
    (found,) = model.eval()(some_images((64, 64)))
    assert set(found["labels"][found["scores"] > 0.5].tolist()) == {label}
    images = some_images((64, 64))
    right, wrong = (
        losses_of(model, images, [target((8, 8, 56, 56, one))])["class"]
        for one in (label, 1 - label)
    )
    assert right < wrong


def test_it_learns_to_find_and_tell_two_squares():
    model = made(seed=3)
    model.roi_heads.fg_bg_sampler = Sampler(32, 0.25)  # enough for two, and quick
    image = torch.zeros(3, 64, 64)
    image[:, 8:24, 8:24], image[:, 36:56, 30:50] = 1, -1
    wanted = target((8, 8, 24, 24, 0), (30, 36, 50, 56, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(70):  # of eight seeds, all had found both by then
        optimizer.zero_grad()
        sum(model([image], [wanted]).values()).backward()
        optimizer.step()
    (found,) = model.eval()([image])
    for label in (0, 1):
        surest = found["boxes"][found["labels"] == label][:1]
        assert box_iou(surest, wanted["boxes"][label : label + 1]) > 0.6


def test_boxes_found_are_the_surest_first_inside_the_image_and_not_too_many():
    model = made(replace(SMALL, boxes=7)).eval()
    for found, (height, width) in zip(
        model(some_images((50, 70), (90, 30))), [(50, 70), (90, 30)], strict=True
    ):
        assert len(found["scores"]) == 7
        assert (found["scores"].diff() <= 0).all()
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"][:, 2:] <= torch.tensor([width, height])).all()
        assert (found["boxes"].dtype, found["labels"].dtype) == (torch.float32, torch.int64)


def test_what_is_found_does_not_depend_on_the_images_seen_before():
    fresh, used = made().eval(), made().eval()
    used(some_images((9, 9)))
    images = some_images((128, 128))
    assert torch.equal(used(images)[0]["boxes"], fresh(images)[0]["boxes"])


def test_anchors_stand_on_multiples_of_their_strides_whatever_the_image():
    model = made().eval()
    seen = []
    model.rpn.anchor_generator.register_forward_hook(lambda *call: seen.append(call[-1][0]))
    model(some_images((75, 150)))
    ((height, width), anchors) = (128, 192), seen[0]
    counts = [3 * (height // stride) * (width // stride) for stride in (4, 8, 16, 32, 64)]
    for stride, level in zip((4, 8, 16, 32, 64), anchors.split(counts), strict=True):
        centres = (level[:, :2] + level[:, 2:]) / 2
        assert torch.equal(centres, (centres / stride).round() * stride)


@pytest.mark.parametrize("size", [(5, 3), (1, 1), (64, 64)])
def test_small_images_and_images_without_boxes_train(size):
    model = made()
    losses = losses_of(model, some_images(size), [target()])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["box"] == losses["proposal_box"] == 0
    assert losses["class"] > 0
    assert len(model.eval()(some_images(size))) == 1


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("init", ["none", "backbone"])
def test_every_trained_parameter_has_a_part_in_the_losses(version, init):
    model = made(replace(SMALL, version=version, init=init))
    # Boxes of all sizes, so that each level of the pyramid is pooled from.
    edges = (20, 120, 240, 460)
    targets = [target(*((0, 0, edge, edge, 0) for edge in edges))]
    sum(losses_of(model, some_images((464, 464)), targets).values()).backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in model.named_parameters() if p.requires_grad}
    layers = model.backbone.fpn.layer_blocks
    assert all(layer[0].weight.grad.any() for layer in layers)


def test_equal_seeds_give_equal_losses_and_others_do_not():
    model, images = made(), some_images(*[(64, 64)] * 4)
    one, again, other = (losses_of(model, images, FOUR_TARGETS, seed) for seed in (1, 1, 2))
    assert one == again
    assert one["objectness"] != other["objectness"]


def test_in_bfloat16_losses_boxes_and_anchors_are_float32():
    model = made()
    anchors = []
    model.rpn.anchor_generator.register_forward_hook(lambda *call: anchors.append(call[-1][0]))
    exact = losses_of(model, some_images((64, 320)), [target((270, 3, 301, 24, 1))])
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, some_images((64, 320)), [target((270, 3, 301, 24, 1))])
        (found,) = model.eval()(some_images((64, 320)))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0.02)
    assert (found["boxes"].dtype, found["scores"].dtype) == (torch.float32, torch.float32)
    assert torch.equal(anchors[0], anchors[1])


def test_another_memory_format_changes_no_answer():
    images = some_images(*[(64, 64)] * 4)
    plain, last = (
        losses_of(made(replace(SMALL, channels_last=on)), images, FOUR_TARGETS) for on in (0, 1)
    )
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)


def test_a_copy_answers_alike_and_on_its_own():
    model = made().eval()  # as the averaged weights are
    copy = deepcopy(model)
    images = some_images((64, 64))
    assert torch.equal(copy(images)[0]["boxes"], model(images)[0]["boxes"])
    with torch.no_grad():
        model.backbone.body.conv1[0].weight.mul_(3)
    assert not torch.equal(copy(images)[0]["boxes"], model(images)[0]["boxes"])


def test_as_many_targets_as_images_are_needed():
    with pytest.raises(ValueError, match="shorter"):
        made()(some_images((16, 16), (16, 16)), [target()])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (target((5, 5, 5, 9, 0)), r"box \[5.0, 5.0, 5.0, 9.0\] with label 0"),
        (target((5, 9, 9, 5, 0)), "x1 < x2 and y1 < y2"),
        (target((5, 5, float("nan"), 9, 0)), "finite"),
        (target((5, 5, float("inf"), 9, 0)), "finite"),
        (target((5, 5, 9, 9, 2)), "a label from 0 to 1"),
        (target((5, 5, 9, 9, -1)), "a label from 0 to 1"),
    ],
)
def test_a_wrong_target_is_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        made()(some_images((16, 16)), [wrong])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"anchors_px": (8, 16, 32)}, r"anchors_px has 3 sizes, \[8, 16, 32\].* has 5 levels"),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 numbers; 2 categories need 3"),
        ({"backbone": "test_vit"}, "backbone test_vit"),
        ({"backbone": "no_such_network"}, "no_such_network"),
    ],
)
def test_a_wrong_config_is_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        build(replace(SMALL, **knobs), 2)


# What stays frozen


def body_norms(model):
    return [m for m in model.backbone.body.modules() if isinstance(m, nn.BatchNorm2d)]


def test_loaded_and_frozen_batch_norms_do_not_move():
    model = made(replace(SMALL, init="backbone"))
    before = {name: t.clone() for name, t in model.backbone.body.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sum(losses_of(model, some_images((64, 64)), [target((8, 8, 40, 40, 1))]).values()).backward()
    optimizer.step()
    after = model.backbone.body.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    norms = {id(t) for norm in body_norms(model) for t in norm.state_dict(keep_vars=True).values()}
    tensors = model.backbone.body.state_dict(keep_vars=True)
    assert len(norms) > 50
    assert not any(id(tensors[name]) in norms for name in moved)
    assert not any(name.startswith(("conv1", "bn1", "layer1")) for name in moved)
    assert any(name.startswith("layer2") for name in moved)


@pytest.mark.parametrize("knobs", [{"init": "none"}, {"init": "backbone", "frozen": False}])
def test_without_loaded_weights_or_if_told_all_is_trained(knobs):
    model = made(replace(SMALL, **knobs))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(norm.training for norm in body_norms(model.train()))


# Losses


def test_losses_of_classes_by_hand():
    # Probabilities of the right classes: 1/2 (background) and 1/4 (category 1).
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.25, 0.25]]))
    labels = torch.tensor([0, 1])
    arguments = logits, torch.zeros(2, 12), labels, torch.zeros(2, 4)
    half, quarter = torch.log(torch.tensor(2.0)), torch.log(torch.tensor(4.0))
    weights = torch.tensor([1.0, 3.0, 7.0])
    for options, expected in (
        ({}, (half + quarter) / 2),
        ({"class_weights": weights}, (half + 3 * quarter) / 4),
        ({"loss": "focal"}, (half / 4 + quarter * 9 / 16) / 2),
        ({"loss": "focal", "class_weights": weights}, (half / 4 + 3 * quarter * 9 / 16) / 4),
    ):
        torch.testing.assert_close(box_losses(*arguments, **options)[0], expected)


def test_the_config_s_loss_and_weights_are_used():
    images = some_images(*[(64, 64)] * 4)
    plain, focal, weighted = (
        losses_of(made(replace(SMALL, **knobs)), images, FOUR_TARGETS)
        for knobs in ({}, {"loss": "focal"}, {"class_weights": (0.1, 1.0, 1.0)})
    )
    assert len({one["class"].item() for one in (plain, focal, weighted)}) == 3
    assert plain["box"] == focal["box"] == weighted["box"]


def test_class_weights_are_no_part_of_the_state():
    assert list(made(replace(SMALL, class_weights=(1.0, 2.0, 3.0))).state_dict()) == list(
        made().state_dict()
    )


def test_the_sampler_draws_the_wanted_share_and_none_it_must_not():
    labels = torch.tensor([1] * 30 + [0] * 100 + [-1] * 20)
    torch.manual_seed(0)
    (positive, few), (negative, rest) = Sampler(40, 0.25)([labels, labels[25:]])
    assert (int(positive.sum()), int(negative.sum())) == (10, 30)
    assert (int(few.sum()), int(rest.sum())) == (5, 35)
    assert (labels[positive] == 1).all()
    assert (labels[negative] == 0).all()
    (another, _), _ = Sampler(40, 0.25)([labels, labels[25:]])
    assert not torch.equal(positive, another)


RANKED = replace(SMALL, init="backbone", class_weights=(0.3, 1.0, 2.0))  # batch norms frozen


def one_of_two_ranks(rank, folder):
    """The gradient of half the batch, averaged over the ranks."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=100),
    )
    try:
        share = slice(2 * rank, 2 * rank + 2)
        images = some_images(*[(64, 64)] * 4)[share]
        seed = 1 + 10 * rank  # ranks are not seeded alike
        found = gradients(made(RANKED), images, FOUR_TARGETS[share], seed)
        for gradient in found:
            dist.all_reduce(gradient)
        return [gradient / 2 for gradient in found]
    finally:
        dist.destroy_process_group()


def gradients(model, images, targets, seed):
    sum(losses_of(model, images, targets, seed).values()).backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


def test_two_ranks_with_half_the_batch_each_get_the_gradient_of_one(tmp_path):
    images = some_images(*[(64, 64)] * 4)
    of_one = gradients(made(RANKED), images, FOUR_TARGETS, seed=1)
    other = multiprocessing.get_context("spawn").Process(
        target=one_of_two_ranks, args=(1, str(tmp_path))
    )
    other.start()
    of_two = one_of_two_ranks(0, str(tmp_path))
    other.join(100)
    assert other.exitcode == 0
    torch.testing.assert_close(of_two, of_one, rtol=1e-5, atol=1e-6)


# What it starts from


def saved(tmp_path, state, name="weights.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def test_a_backbone_s_weights_are_loaded_and_nothing_else(tmp_path):
    network = resnet18()
    file = saved(tmp_path, network.state_dict())
    config = DiscFasterRcnn(
        backbone="resnet18", init="backbone", pyramid_channels=16, head_features=32
    )
    model = made(config)
    fpn = {name: t.clone() for name, t in model.backbone.fpn.state_dict().items()}
    notes = load_start(model, config, file)
    assert torch.equal(model.backbone.body.layer4[1].conv2.weight, network.layer4[1].conv2.weight)
    assert torch.equal(model.backbone.body.bn1.running_var, network.bn1.running_var)
    assert all(torch.equal(t, fpn[name]) for name, t in model.backbone.fpn.state_dict().items())
    assert any("fc" in note for note in notes)


ALL = replace(SMALL, init="all_but_heads")


def coco_like(config=SMALL, categories=90):
    """A detector's state as torchvision wrote it in 2019, with names that were changed since."""
    state = made(config, seed=9, categories=categories).state_dict()
    return {
        name.replace("conv.0.0.", "conv.").replace("s.0.0.", "s.0.").replace("s.1.0.", "s.1."): t
        for name, t in state.items()
        if "num_batches_tracked" not in name
    }


def test_a_detector_of_other_categories_is_loaded_but_for_its_predictor(tmp_path):
    state = coco_like()
    assert {"rpn.head.conv.weight", "backbone.fpn.layer_blocks.1.bias"} <= set(state)
    model = made(ALL)
    predictor = model.roi_heads.box_predictor.cls_score.weight.clone()
    notes = load_start(model, ALL, saved(tmp_path, state))
    assert torch.equal(model.rpn.head.conv[0][0].weight, state["rpn.head.conv.weight"])
    assert torch.equal(model.rpn.head.bbox_pred.bias, state["rpn.head.bbox_pred.bias"])
    assert torch.equal(model.roi_heads.box_head.fc6.weight, state["roi_heads.box_head.fc6.weight"])
    assert torch.equal(model.roi_heads.box_predictor.cls_score.weight, predictor)
    assert "left out of weights.pth: roi_heads.box_predictor" in notes


def test_the_first_stage_s_outputs_are_left_out_for_another_number_of_ratios(tmp_path):
    config = replace(ALL, anchor_ratios=(0.5, 1.0))
    model, state = made(config), coco_like()
    notes = load_start(model, config, saved(tmp_path, state))
    assert "left out of weights.pth: roi_heads.box_predictor, rpn.head.cls_logits, " in notes[-1]
    assert torch.equal(model.rpn.head.conv[0][0].weight, state["rpn.head.conv.weight"])
    sum(losses_of(model, some_images((64, 64)), [target((8, 8, 40, 40, 1))]).values()).backward()


def test_grey_images_get_the_sum_of_the_colours_weights(tmp_path):
    config = replace(ALL, channels=1)
    grey, coloured = made(config), made(ALL)
    file = saved(tmp_path, coco_like())
    notes = load_start(grey, config, file)
    load_start(coloured, ALL, file)
    (image,) = some_images((64, 64), channels=1)
    with torch.no_grad():
        of_grey = grey.eval().backbone(image[None])
        of_three = coloured.eval().backbone(image.expand(3, 64, 64)[None])
    torch.testing.assert_close(of_grey, of_three, rtol=1e-4, atol=1e-4)
    assert any("colours" in note for note in notes)


@pytest.mark.parametrize(
    "other",
    [
        {"version": "v2"},
        {"backbone": "test_efficientnet"},
        {"pyramid_channels": 8},
        {"head_features": 16},
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path, other):
    file = saved(tmp_path, coco_like(replace(SMALL, **other)))
    model = made(ALL)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        load_start(model, ALL, file)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_batch_norms_trained_without_eps_answer_as_they_did(tmp_path, monkeypatch):
    config = DiscFasterRcnn(
        backbone="resnet18", init="all_but_heads", pyramid_channels=16, head_features=32
    )
    first = made(config, seed=5)
    norms = [m for m in first.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(norms) == 20
    for norm in norms:
        norm.running_var.uniform_(1e-5, 1e-3)  # small, so that eps matters
        norm.weight.mul_(0.01)
        norm.eps = 0.0
    file = saved(tmp_path, first.state_dict())
    (image,) = some_images((32, 32))
    answers = []
    for digest in (start.sha256(file)[:8], "no digest"):
        monkeypatch.setattr(start, "TRAINED_WITHOUT_EPS", digest)
        model = made(config)
        load_start(model, config, file)
        answers.append(model.eval().backbone(image[None])["0"])
    expected = first.eval().backbone(image[None])["0"]
    torch.testing.assert_close(answers[0], expected, rtol=1e-4, atol=1e-5)
    assert (answers[1] - expected).abs().max() > 0.01 * expected.abs().max()
