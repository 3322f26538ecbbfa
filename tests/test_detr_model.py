"""DETR is the published network, finds what its weights know, and starts from their files."""

import argparse
import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import safetensors.torch  # noqa: E402 (comes with timm)
import timm  # noqa: E402
from torch import nn  # noqa: E402
from torchvision.models import resnet18, resnet34  # noqa: E402

from spine_tasks.configs.detection import CordSignalDetr  # noqa: E402
from spine_tasks.errors import ConfigError, WeightsError  # noqa: E402
from spine_tasks.tasks.backbone import Backbone  # noqa: E402
from spine_tasks.tasks.backbone_weights import load_backbone  # noqa: E402
from spine_tasks.tasks.detr.model import build, pad  # noqa: E402
from spine_tasks.tasks.detr.position import sine  # noqa: E402
from spine_tasks.tasks.detr.start import load_start  # noqa: E402
from spine_tasks.tasks.detr.transformer import DecoderLayer, EncoderLayer, Transformer  # noqa: E402

torch.set_num_threads(1)

SMALL = {
    "backbone": "test_resnet",  # timm's smallest
    "hidden": 16,
    "heads": 2,
    "feedforward": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 5,
}
TARGET = {"boxes": torch.tensor([[8.0, 10.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def small(seed=0, categories=3, **knobs):
    torch.manual_seed(seed)
    config = CordSignalDetr(**(SMALL | {"init": "all_but_heads"} | knobs))
    return build(config, categories), config


def some_images(*sizes, channels=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(channels, *size, generator=random) for size in sizes]


# The network


@pytest.mark.parametrize(
    ("knobs", "categories", "total", "trained", "keys"),
    [
        ({"classes": 91, "dilation": True}, 7, 41_524_768, 41_302_368, 458),
        ({"backbone": "resnet101", "classes": 91}, 7, 60_464_672, 60_242_272, 713),
        ({"queries": 20}, 7, None, 41_260_300, 458),
        ({"classes": 20}, 7, None, 41_284_121, 458),
    ],
)
def test_the_network_has_the_published_number_of_parameters(
    knobs, categories, total, trained, keys
):
    model = build(CordSignalDetr(init="backbone", **knobs), categories)
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters if p.requires_grad) == trained
    assert total in (None, sum(p.numel() for p in parameters))
    assert len(model.state_dict()) == keys


def test_tensors_bear_the_names_of_official_files():
    names = set(build(CordSignalDetr(init="backbone"), 3).state_dict())
    assert sum(name.startswith("backbone.0.body.") for name in names) == 265
    assert sum(name.startswith("transformer.") for name in names) == 182
    assert {
        "backbone.0.body.layer1.0.downsample.1.running_var",
        "transformer.encoder.layers.5.self_attn.in_proj_weight",
        "transformer.encoder.layers.0.norm2.bias",
        "transformer.decoder.layers.0.multihead_attn.out_proj.bias",
        "transformer.decoder.layers.5.norm3.weight",
        "transformer.decoder.norm.weight",
        "input_proj.weight",
        "query_embed.weight",
        "class_embed.bias",
        "bbox_embed.layers.2.weight",
    } <= names
    assert "transformer.encoder.norm.weight" not in names


def test_the_position_has_the_values_of_the_official_code():
    padding = torch.zeros(1, 2, 3, dtype=torch.bool)
    padding[..., 2] = True
    found = sine(padding, 4)
    assert found.shape == (1, 8, 2, 3)
    assert found.sum().item() == pytest.approx(16.48856, abs=1e-4)
    known = [0, -1, 0.03141, 0.99951, 0, -1, 0.03141, 0.99951]
    assert found[0, :, 0, 0].tolist() == pytest.approx(known, abs=1e-5)


def test_y_comes_before_x_and_padding_does_not_move_a_place():
    padding = torch.ones(1, 5, 6, dtype=torch.bool)
    padding[:, :3, :4] = False
    alone = sine(torch.zeros(1, 3, 4, dtype=torch.bool), 8)
    assert torch.equal(sine(padding, 8)[..., :3, :4], alone)
    assert torch.equal(alone[:, :8, :, 0], alone[:, :8, :, 3])  # y does not change along x
    assert not torch.equal(alone[:, 8:, :, 0], alone[:, 8:, :, 3])


def test_places_decide_where_to_look_but_are_not_what_is_seen():
    torch.manual_seed(0)
    same = torch.randn(1, 2, 16).expand(7, -1, -1)  # tokens alike: wherever one looks
    places, others = torch.randn(2, 7, 2, 16)
    encode = EncoderLayer(16, 2, 32, 0.0)
    assert torch.allclose(encode(same, places, None), encode(same, others, None), atol=1e-6)
    assert not torch.allclose(encode(places, places, None), encode(places, others, None), atol=0.01)
    decode = DecoderLayer(16, 2, 32, 0.0)
    first, second = (decode(same, others, same, keys, None) for keys in (places, others))
    assert torch.allclose(first, second, atol=1e-6)
    assert torch.allclose(first, decode(same, places, same, places, None), atol=1e-6)


def test_each_layer_of_the_decoder_ends_with_the_normalisation():
    torch.manual_seed(0)
    found = Transformer(16, 2, 32, 1, 3, 0.0)(
        torch.randn(2, 16, 3, 4), torch.randn(2, 16, 3, 4), torch.randn(5, 16), None
    )
    assert found.shape == (3, 2, 5, 16)
    assert found.mean(-1).abs().max() < 1e-5
    assert (found.std(-1, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("half", [False, True])
def test_a_frozen_resnet_is_that_of_torchvision_in_evaluation(half):
    torch.manual_seed(0)
    usual, frozen = resnet18(), Backbone("resnet18", maps=4).train()
    images = torch.randn(4, 3, 64, 96)
    usual(images)  # so that its statistics are not those of a new one
    for module in usual.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    frozen.body.load_state_dict(usual.eval().state_dict(), strict=False)
    features = usual.maxpool(usual.relu(usual.bn1(usual.conv1(images))))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = copy.deepcopy(frozen)(images)  # as averaged weights are made
    for stage, one in zip((1, 2, 3, 4), found, strict=True):
        features = getattr(usual, f"layer{stage}")(features)
        assert one.dtype == (torch.bfloat16 if half else torch.float32)
        error = (one - features).abs().mean() / features.abs().mean()
        assert error < (0.05 if half else 1e-5)


# What it finds


class Patches(nn.Module):
    """A backbone whose features do not look over the border of their 32 px."""

    def __init__(self, channels):
        super().__init__()
        self.cut = nn.Conv2d(3, channels, 32, 32)

    def forward(self, images):
        return [self.cut(images)]


def test_padding_changes_nothing_of_what_is_found():
    model, _ = small()
    model.backbone = nn.Sequential(Patches(model.input_proj.in_channels))
    model.eval()
    little, large = some_images((64, 96), (128, 160))
    alone, together = model([little])[0], model([little, large])[0]
    for name, value in alone.items():
        assert torch.allclose(value.float(), together[name].float(), rtol=1e-4), name


def test_images_are_padded_to_the_right_and_below():
    batch, padding = pad(some_images((2, 5), (4, 3)))
    assert batch.shape == (2, 3, 4, 5)
    assert torch.equal(batch[1, :, :, :3], some_images((2, 5), (4, 3))[1])
    assert (~padding).sum((1, 2)).tolist() == [10, 12]
    assert batch[:, 0][padding].abs().max() == 0


def test_boxes_are_in_px_of_each_image_and_the_surest_comes_first():
    model, config = small(classes=11)
    nn.init.constant_(model.bbox_embed.layers[2].weight, 0.0)
    model.bbox_embed.layers[2].bias.data = torch.logit(torch.tensor([0.5, 0.25, 0.2, 0.1]))
    model.eval()
    for found, (height, width) in zip(
        model(some_images((64, 96), (128, 33))), [(64, 96), (128, 33)], strict=True
    ):
        assert found["boxes"].shape == (config.queries, 4)
        expected = [0.4 * width, 0.2 * height, 0.6 * width, 0.3 * height]
        assert found["boxes"][0].tolist() == pytest.approx(expected, rel=1e-5)
        assert (found["scores"].diff() <= 0).all()
        assert 0 < found["scores"].min() < found["scores"].max() < 1
        assert found["labels"].max() < 3


def test_the_loss_holds_a_box_against_the_size_of_its_own_image():
    model, _ = small()
    nn.init.constant_(model.bbox_embed.layers[2].weight, 0.0)
    model.bbox_embed.layers[2].bias.data = torch.logit(torch.tensor([0.5, 0.25, 0.2, 0.1]))
    sizes = [(64, 96), (128, 33)]
    fractions = torch.tensor([0.4, 0.2, 0.6, 0.3])
    targets = [
        {"boxes": fractions * torch.tensor([[w, h, w, h]]), "labels": torch.tensor([0])}
        for h, w in sizes
    ]
    terms = model(some_images(*sizes), targets)
    wrong = {name: terms[name].item() for name in ("box", "box_aux0", "giou", "giou_aux0")}
    assert wrong == pytest.approx(dict.fromkeys(wrong, 0.0), abs=1e-4)


def test_evaluation_repeats_itself_and_training_drops():
    model, _ = small(dropout=0.5)
    images = some_images((64, 64))
    model.eval()
    assert torch.equal(model(images)[0]["scores"], model(images)[0]["scores"])
    model.train()
    assert model(images, [TARGET])["class"] != model(images, [TARGET])["class"]


def test_in_training_the_boxes_are_needed():
    with pytest.raises(ValueError, match="needs the true boxes"):
        small()[0](some_images((64, 64)))


@pytest.mark.parametrize("backbone", ["resnet18", "test_convnext"])
@pytest.mark.parametrize("init", ["none", "backbone"])
def test_every_trained_parameter_gets_a_gradient_also_without_boxes(backbone, init):
    model, _ = small(backbone=backbone, init=init, channels=1)
    terms = model(some_images((64, 64), (32, 96), channels=1), [NOTHING, NOTHING])
    assert len(terms) == 6
    sum(terms.values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_a_few_steps_on_one_image_lower_the_loss_and_find_its_box():
    model, _ = small(dropout=0.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    images = some_images((64, 64))
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = sum(model(images, [TARGET]).values())
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.4 * values[0]
    model.eval()
    found = model(images)[0]
    assert found["labels"][0] == 1
    assert found["boxes"][0].tolist() == pytest.approx(TARGET["boxes"][0].tolist(), abs=6)


def test_without_auxiliary_losses_only_the_last_layer_counts():
    with_them, _ = small(dropout=0.0)
    without, _ = small(dropout=0.0, auxiliary=False)
    images = some_images((64, 64))
    every, last = (model(images, [TARGET]) for model in (with_them, without))
    assert set(every) - set(last) == {"class_aux0", "box_aux0", "giou_aux0"}
    assert all(last[name].item() == pytest.approx(every[name].item()) for name in last)


def test_in_half_precision_losses_and_boxes_are_whole():
    model, _ = small(dropout=0.0)
    images = some_images((64, 64))
    whole = model(images, [TARGET])
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images, [TARGET])
        model.eval()
        boxes = model(images)[0]["boxes"]
    assert all(value.dtype == torch.float32 for value in half.values())
    assert sum(half.values()).item() == pytest.approx(sum(whole.values()).item(), rel=0.05)
    assert boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())


def test_the_memory_format_changes_no_result():
    one, other = small(dropout=0.0)[0], small(dropout=0.0, channels_last=True)[0]
    images = some_images((64, 64), (64, 32))
    for name, value in one(images, [TARGET, NOTHING]).items():
        assert value.item() == pytest.approx(
            other(images, [TARGET, NOTHING])[name].item(), rel=1e-4
        )


# Backbones


def trained(module):
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_a_loaded_resnet_keeps_its_first_stage_and_its_normalisation():
    body = Backbone("resnet18").body
    assert not any(name.startswith(("conv1", "layer1", "bn1")) for name in trained(body))
    assert {"layer2.0.conv1.weight", "layer4.1.conv2.weight"} <= trained(body)
    assert not any("bn" in name for name in trained(body))


def test_a_loaded_network_of_timm_keeps_them_too():
    backbone = Backbone("tf_efficientnet_lite0", maps=3)
    names = trained(backbone.body)
    assert not any("bn" in name for name in names)
    assert not any(name.startswith(("conv_stem", "blocks.0", "blocks.1")) for name in names)
    assert "blocks.2.0.conv_pw.weight" in names
    before = {name: value.clone() for name, value in backbone.body.named_buffers()}
    backbone.train()(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in backbone.body.named_buffers())


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_a_new_network_is_trained_in_all_its_parts(name):
    backbone = Backbone(name, frozen=False)
    assert trained(backbone.body) == {name for name, _ in backbone.body.named_parameters()}

    def batches_seen():
        counters = dict(backbone.body.named_buffers())
        return {int(n) for name, n in counters.items() if name.endswith("num_batches_tracked")}

    assert batches_seen() == {0}  # a look at its maps taught it nothing
    backbone.train()(torch.randn(2, 3, 64, 64))
    assert batches_seen() == {1}


@pytest.mark.parametrize(
    ("name", "knobs", "channels", "strides"),
    [
        ("resnet18", {"maps": 3}, (128, 256, 512), (8, 16, 32)),
        ("resnet50", {"dilation": True}, (2048,), (16,)),
        ("tf_efficientnet_lite0", {"maps": 4}, (24, 40, 112, 320), (4, 8, 16, 32)),
        ("tf_efficientnet_lite0", {"dilation": True, "channels": 1}, (320,), (16,)),
    ],
)
def test_the_coarsest_maps_are_given_fine_to_coarse(name, knobs, channels, strides):
    backbone = Backbone(name, **knobs)
    assert (backbone.channels, backbone.strides) == (channels, strides)
    maps = backbone(torch.zeros(1, knobs.get("channels", 3), 64, 128))
    expected = [(1, c, 64 // s, 128 // s) for c, s in zip(channels, strides, strict=True)]
    assert [tuple(one.shape) for one in maps] == expected


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"backbone": "resnet5"},
            "'resnet5': no network of timm nor one of torchvision's .* similar names",
        ),
        ({"backbone": "resnet18", "dilation": True}, "cannot be dilated"),
        ({"backbone": "vit_tiny_patch16_224"}, "cannot take images of any size"),
        ({"classes": 2}, "classes is 2, but the data have 3 categories"),
        ({"hidden": 18}, "hidden is 18.*multiple of 4"),
    ],
)
def test_a_network_that_cannot_be_is_answered_with_the_reason(knobs, message):
    with pytest.raises(ConfigError, match=message):
        small(**knobs)


# Starting weights


def equal(model, other, part=""):
    one, two = model.state_dict(), other.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one if name.startswith(part))


def saved(content, file):
    torch.save(content, file)
    return file


def test_a_backbone_arrives_by_name_and_its_classifier_is_left_out(tmp_path):
    giver, taker = resnet18(), small(init="backbone", backbone="resnet18")
    notes = load_start(*taker, saved(giver.state_dict(), tmp_path / "w.pth"))
    body = taker[0].backbone[0].body
    state = giver.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in body.state_dict().items())
    assert notes == ["backbone: 100 tensors of w.pth by name", "left out of w.pth: fc"]


@pytest.mark.parametrize("wrap", ["plain", "model", "study"])
def test_a_backbone_arrives_out_of_a_whole_detr(tmp_path, wrap):
    giver, taker = small(1)[0], small(2, init="backbone", encoder_layers=2)
    content = giver.state_dict()
    if wrap == "model":
        content = {"model": content, "epoch": 3}
    if wrap == "study":
        content = {part: getattr(giver, part).state_dict() for part in ("backbone", "transformer")}
    notes = load_start(*taker, saved(content, tmp_path / "w.pth"))
    assert equal(taker[0].backbone, giver.backbone)
    assert "by name behind" in notes[0]


def test_a_backbone_of_other_names_arrives_by_order(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("test_efficientnet")
    other = {
        f"_net.{i}.{n.split('.')[-1]}": t for i, (n, t) in enumerate(whole.state_dict().items())
    }
    module = Backbone("test_efficientnet").body
    notes = load_backbone(module, saved(other, tmp_path / "w.pth"))
    state = whole.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items() if "mean" in n)
    assert "by order" in notes[0]


def test_a_grey_backbone_answers_as_the_coloured_one_to_a_grey_image(tmp_path):
    torch.manual_seed(0)
    giver = resnet18().eval()
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(giver.state_dict(), file)
    grey = Backbone("resnet18", channels=1).eval()
    assert any("summed" in note for note in load_backbone(grey.body, file))
    coloured = Backbone("resnet18", channels=3).eval()
    load_backbone(coloured.body, file)
    image = torch.randn(1, 1, 64, 64)
    answers = grey(image)[0], coloured(image.expand(-1, 3, -1, -1))[0]
    assert torch.allclose(*answers, rtol=1e-3, atol=1e-4)


def test_the_file_of_the_study_gives_backbone_and_transformer_and_no_more(tmp_path):
    giver, taker = small(1)[0], small(2, init="backbone_transformer", queries=7)
    fresh = small(2, init="backbone_transformer", queries=7)[0]
    parts = {part: getattr(giver, part).state_dict() for part in ("backbone", "transformer")}
    notes = load_start(*taker, saved(parts, tmp_path / "w.pth"))
    assert equal(taker[0].backbone, giver.backbone)
    assert equal(taker[0].transformer, giver.transformer)
    for part in ("input_proj", "query_embed", "class_embed", "bbox_embed"):
        assert equal(taker[0], fresh, part)
    assert notes[-1] == "new, as drawn: bbox_embed, class_embed, input_proj, query_embed"


@pytest.mark.parametrize(("queries", "new"), [(5, "class_embed"), (7, "class_embed, query_embed")])
def test_a_whole_detr_gives_all_but_its_classes_and_queries_of_another_number(
    tmp_path, queries, new
):
    giver, taker = small(1, categories=91)[0], small(2, queries=queries)
    fresh = small(2, queries=queries)[0]
    content = {"model": giver.state_dict(), "args": argparse.Namespace(lr=1e-4)}
    notes = load_start(*taker, saved(content, tmp_path / "w.pth"))
    for part in ("backbone", "transformer", "input_proj", "bbox_embed"):
        assert equal(taker[0], giver, part)
    assert equal(taker[0], fresh, "class_embed")
    assert equal(taker[0], giver if queries == 5 else fresh, "query_embed")
    assert notes[-1] == f"new, as drawn: {new}"


def test_a_detr_trained_from_nothing_can_be_started_from(tmp_path):
    giver, taker = small(1, init="none")[0], small(2)
    load_start(*taker, saved(giver.state_dict(), tmp_path / "w.pth"))
    assert equal(taker[0].transformer, giver.transformer)


class Evil:
    def __reduce__(self):
        return (print, ("code of the file ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: small(1, encoder_layers=2)[0].state_dict(), "larger network.*encoder.layers.1"),
        (lambda: small(1, decoder_layers=1)[0].state_dict(), "decoder.layers.1.*are not in it"),
        (lambda: small(1, hidden=32)[0].state_dict(), r"is \(32.* instead of \(16"),
        (
            lambda: {"backbone.0.body.layer1.2.w": torch.ones(1)} | small(1)[0].state_dict(),
            "larger network.*layer1.2",
        ),
        (lambda: resnet18().state_dict(), "are not in it; it has conv1.weight"),
        (lambda: {"epoch": 3}, "no tensors in it"),
        (lambda: Evil(), "more than tensors"),
        (
            lambda: dict.fromkeys(("model", "ema"), small(1)[0].state_dict()),
            "several networks that fit, ema., model.",
        ),
        (
            lambda: {n: t.float() / 0 for n, t in small(1)[0].state_dict().items()},
            "not of finite real numbers",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused_and_changes_nothing(tmp_path, capsys, content, message):
    model, config = small(2)
    file = saved(content(), tmp_path / "made.pth")
    with pytest.raises(WeightsError, match=rf"made\.pth: .*{message}"):
        load_start(model, config, file)
    assert equal(model, small(2)[0])
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: resnet34().state_dict(), "larger network: layer1.2.conv1.weight"),
        (lambda: timm.create_model("test_convnext").state_dict(), "not weights of this"),
        (lambda: {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "not weights of this backbone: bn1"),
    ],
)
def test_a_backbone_of_another_kind_is_refused_and_changes_nothing(tmp_path, content, message):
    model, config = small(2, init="backbone", backbone="resnet18")
    with pytest.raises(WeightsError, match=rf"made\.pth: .*{message}"):
        load_start(model, config, saved(content(), tmp_path / "made.pth"))
    assert equal(model, small(2, backbone="resnet18")[0])


def test_a_file_that_is_missing_or_broken_is_said_so(tmp_path):
    model, config = small(2)
    with pytest.raises(WeightsError, match="no such weights file"):
        load_start(model, config, tmp_path / "none.pth")
    (tmp_path / "cut.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2)[:-3])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    for name in ("cut.pth", "cut.safetensors"):
        with pytest.raises(WeightsError, match="broken, or more than tensors"):
            load_start(model, config, tmp_path / name)


def test_what_cannot_be_loaded_is_a_wrong_config(tmp_path):
    file = saved(resnet18().state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="init=none takes no weights"):
        load_start(*small(init="none"), file)
    model, config = small(init="backbone_transformer", variant="fast")
    with pytest.raises(ConfigError, match="is for variant=published"):
        load_start(model, config, file)
