"""The fast DETR as a whole: the conventions of a detector, its gradients and its randomness."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

from spine_tasks import ranks  # noqa: E402
from spine_tasks.configs.detection import CordSignalDetr  # noqa: E402
from spine_tasks.errors import ConfigError, DataError  # noqa: E402
from spine_tasks.tasks.detr.fast import build_fast  # noqa: E402
from spine_tasks.tasks.detr.start import load_start  # noqa: E402

CONFIG = CordSignalDetr(
    variant="fast",
    backbone="mobilenetv3_small_050",
    hidden=32,
    heads=4,
    feedforward=64,
    encoder_layers=1,
    decoder_layers=2,
    queries=12,
    dropout=0.0,
)
SIZES = ((96, 64), (64, 128))  # height and width, px


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(config=CONFIG, categories=2, seed=0):
    torch.manual_seed(seed)
    return build_fast(config, categories)


def pictures(channels=3):
    """Two images of unequal size, three bright boxes in the first and one in the second."""
    noise = torch.Generator().manual_seed(7)
    images = [torch.randn(channels, *size, generator=noise) / 10 for size in SIZES]
    boxes = [[[5, 10, 25, 24], [30, 40, 50, 60], [8, 70, 40, 88]], [[60, 20, 110, 50]]]
    labels = [[0, 1, 1], [0]]
    for image, own in zip(images, boxes, strict=True):
        for x1, y1, x2, y2 in own:
            image[:, y1:y2, x1:x2] += 1
    targets = [
        {"boxes": torch.tensor(own).float(), "labels": torch.tensor(kinds)}
        for own, kinds in zip(boxes, labels, strict=True)
    ]
    return images, targets


def empty(number=2):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()} for _ in range(number)]


def total(model, images, targets, seed=0):
    torch.manual_seed(seed)
    return sum(model(images, targets).values())


@pytest.mark.parametrize("channels", [1, 3])
def test_boxes_lie_inside_each_image_and_the_surest_are_first(channels):
    model = made(replace(CONFIG, channels=channels, classes=5)).eval()
    images, _ = pictures(channels)
    found = model(images)
    for one, (height, width) in zip(found, SIZES, strict=True):
        number = len(one["scores"])
        assert 0 < number <= CONFIG.queries
        assert one["boxes"].shape == (number, 4)
        assert one["boxes"].dtype == one["scores"].dtype == torch.float32
        assert one["labels"].dtype == torch.int64
        assert set(one["labels"].tolist()) <= {0, 1}  # of five outputs, two are categories
        assert (one["scores"].diff() <= 0).all()
        assert one["scores"].min() >= 0
        assert one["scores"].max() <= 1
        assert (one["boxes"][:, 2:] > one["boxes"][:, :2]).all()
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_evaluation_repeats_itself_and_draws_no_random_number():
    model = made().eval()
    images, _ = pictures()
    state = torch.get_rng_state()
    first, second = model(images), model(images)
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_losses_are_named_scalars_of_all_layers_cells_and_noise():
    terms = made()(*pictures())
    names = {f"{term}{of}" for term in ("class", "box", "giou") for of in ("", "_aux0")}
    names |= {f"{term}{of}" for term in ("class", "box", "giou") for of in ("_dense", "_noise")}
    assert set(terms) == names
    assert all(one.shape == () and one.dtype == torch.float32 for one in terms.values())
    assert all(one > 0 for one in terms.values())


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_gradient_reaches_every_trained_parameter(auxiliary):
    model = made(replace(CONFIG, auxiliary=auxiliary, init="backbone"))
    images, targets = pictures()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    total(model, images, targets).backward()
    optimizer.step()  # last layers start at zero and let nothing through in the first step
    optimizer.zero_grad()
    total(model, images, targets).backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []


def test_images_without_boxes_train_through_the_same_parameters():
    images, targets = pictures()
    model = made()
    terms = model(images, empty())
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(term == 0 for name, term in terms.items() if not name.startswith("class"))
    assert terms["class"] > 0
    assert terms["class_noise"] >= 0
    mixed = model(images, [targets[0], *empty(1)])
    assert all(term.isfinite() for term in mixed.values())


def test_equal_seeds_give_equal_losses_and_gradients_without_undetermined_sums():
    images, targets = pictures()
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for seed in (3, 3, 4):
            model = made()
            total(model, images, targets, seed).backward()
            runs.append(torch.cat([one.grad.flatten() for one in model.parameters()]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])  # other noise


def test_the_order_of_boxes_in_a_file_does_not_matter():
    images, targets = pictures()
    turned = [{key: one[key].flip(0) for key in one} for one in targets]
    model = made()
    torch.manual_seed(1)
    first = model(images, targets)
    torch.manual_seed(1)
    second = model(images, turned)
    assert first == second


def test_some_steps_on_two_images_lower_the_loss():
    images, targets = pictures()
    model = made()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-3:]) < 0.7 * sum(values[:3])


def test_losses_are_divided_by_the_mean_number_of_boxes_over_ranks(monkeypatch):
    images, targets = pictures()
    model = made()
    torch.manual_seed(0)
    alone = model(images, targets)
    monkeypatch.setattr(ranks, "mean_over_ranks", lambda value: 2 * value)
    torch.manual_seed(0)
    beside_a_richer_rank = model(images, targets)
    for name, term in alone.items():
        assert beside_a_richer_rank[name].item() == pytest.approx(term.item() / 2), name


def test_losses_under_bfloat16_are_float32_and_close():
    images, targets = pictures()
    model = made()
    exact = total(model, images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(images, targets)
        rounded = total(model, images, targets)
        assert model.eval()(images)[0]["boxes"].dtype == torch.float32
    assert {term.dtype for term in terms.values()} == {torch.float32}
    rounded.backward()
    assert all(one.grad.isfinite().all() for one in model.parameters() if one.grad is not None)
    assert rounded.item() == pytest.approx(exact.item(), rel=0.1)


@pytest.mark.parametrize(("init", "frozen"), [("none", False), ("backbone", True)])
def test_a_backbone_is_frozen_in_part_where_its_weights_are_loaded(init, frozen):
    model = made(replace(CONFIG, init=init)).train()
    stem = model.backbone.body.conv_stem.weight
    norms = [one for one in model.backbone.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert stem.requires_grad is not frozen
    assert {one.training for one in norms} == {not frozen}
    assert any(one.requires_grad for one in model.backbone.parameters())


def test_more_boxes_than_queries_are_refused_and_so_is_training_without_boxes():
    model = made(replace(CONFIG, queries=2))
    images, targets = pictures()
    with pytest.raises(DataError, match="an image has 3 boxes, but only 2 are proposed"):
        model(images, targets)
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        model(images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dilation": True}, "dilation: the fast variant"),
        ({"classes": 1}, "classes is 1, but the data have 2 categories"),
        ({"backbone": "levit_conv_128s"}, "backbone levit_conv_128s"),
        ({"backbone": "no_such_network"}, "no_such_network"),
    ],
)
def test_knobs_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_fast(replace(CONFIG, **changes), 2)


def test_an_image_of_one_cell_has_fewer_cells_than_queries_and_is_no_error():
    model = made(replace(CONFIG, queries=100)).eval()
    (found,) = model([torch.zeros(3, 20, 9)])
    assert 0 < len(found["scores"]) <= 21  # 16 + 4 + 1 cells


def test_a_detector_of_other_categories_is_a_start_but_for_what_knows_categories(tmp_path):
    old = made(categories=3, seed=1).state_dict()
    torch.save(old, tmp_path / "old.pt")
    config = replace(CONFIG, init="all_but_heads", queries=7)
    model = made(config, seed=2)
    load_start(model, config, tmp_path / "old.pt")
    new = {name for name, value in model.state_dict().items() if value.shape != old[name].shape}
    assert new == {
        f"{name}.{kind}"
        for name, kinds in (
            ("dense.classes", ("weight", "bias")),
            ("decoder.classes", ("weight", "bias")),
            ("label", ("weight",)),
        )
        for kind in kinds
    }
    kept = [name for name in old if name not in new]
    assert all(torch.equal(model.state_dict()[name], old[name]) for name in kept)
