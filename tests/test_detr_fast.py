"""The fast DETR: the detector's conventions, its queries, noise, attention and losses."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

from spine_tasks import ranks  # noqa: E402
from spine_tasks.configs.detection import CordSignalDetr  # noqa: E402
from spine_tasks.errors import ConfigError, DataError  # noqa: E402
from spine_tasks.tasks.detr.fast import build_fast, pad  # noqa: E402
from spine_tasks.tasks.detr.fast_attention import DeformableAttention, sample  # noqa: E402
from spine_tasks.tasks.detr.fast_encoder import places  # noqa: E402
from spine_tasks.tasks.detr.fast_losses import losses, match, overlaps  # noqa: E402
from spine_tasks.tasks.detr.fast_noise import answers, blocked, in_order, noisy  # noqa: E402
from spine_tasks.tasks.detr.fast_queries import Guesses, cells, surest  # noqa: E402
from spine_tasks.tasks.detr.matcher import collect  # noqa: E402
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


def true_boxes(targets=None):
    return collect(in_order(targets or pictures()[1]), [(96, 128)] * 2)


def total(model, images, targets, seed=0):
    torch.manual_seed(seed)
    return sum(model(images, targets).values())


# what every detector does


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


# its parts


def test_padding_is_right_and_below_and_cells_that_see_some_image_are_inside():
    batch, inside = pad([torch.ones(1, 33, 20), torch.ones(1, 8, 40)], (8, 16, 32))
    assert batch.shape == (2, 1, 64, 64)
    assert batch[0].sum() == 33 * 20
    assert batch[0, 0, 32, 19] == 1
    assert [one.shape for one in inside] == [(2, 8, 8), (2, 4, 4), (2, 2, 2)]
    assert [one[0].sum().item() for one in inside] == [5 * 3, 3 * 2, 2 * 1]
    assert [one[1].sum().item() for one in inside] == [1 * 5, 1 * 3, 1 * 2]


def test_sampling_equals_a_naive_bilinear_sum():
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 4, 5, generator=random), torch.randn(2, 3, 2, 3, generator=random)]
    points = torch.rand(2, 2, 6, 4, 2, generator=random) * 1.4 - 0.2  # some are outside
    weights = torch.rand(2, 2, 6, 4, generator=random)
    expected = torch.zeros(2, 3, 6)
    for n, level, q, p in torch.cartesian_prod(*map(torch.arange, (2, 2, 6, 4))):
        height, width = maps[level].shape[2:]
        x = points[n, level, q, p, 0] * width - 0.5  # pixel centres are whole numbers
        y = points[n, level, q, p, 1] * height - 0.5
        for row in range(height):
            for column in range(width):
                share = (1 - (x - column).abs()).clamp(0) * (1 - (y - row).abs()).clamp(0)
                value = maps[level][n, :, row, column]
                expected[n, :, q] += weights[n, level, q, p] * share * value
    assert torch.allclose(sample(maps, points, weights), expected, atol=1e-5)


def test_attention_looks_around_the_box_of_each_query_in_each_image():
    attention = DeformableAttention(8, heads=4, maps=1)
    torch.nn.init.eye_(attention.values.weight)
    torch.nn.init.eye_(attention.output.weight)
    memory = torch.zeros(2, 8, 16, 16)
    memory[0, :, 2:6, 8:16] = 1  # rows 2 to 5, columns 8 to 15 of the first image
    lying, elsewhere = [0.75, 0.25, 0.3, 0.1], [0.25, 0.75, 0.3, 0.1]
    standing = [0.75, 0.25, 0.1, 0.3]  # at the same place, but higher than what is there
    boxes = torch.tensor([[lying, elsewhere, standing]] * 2)
    seen = attention(torch.randn(2, 3, 8), boxes, [memory])
    assert torch.allclose(seen[0, 0], torch.ones(8))
    assert not seen[0, 1].any()
    assert seen[0, 2].amin() < 0.9
    assert not seen[1].any()


def test_what_only_sees_padding_is_no_guess_and_tells_the_rest_nothing():
    model = made().eval()
    inside = [torch.ones(1, 8 // part, 8 // part, dtype=torch.bool) for part in (1, 2, 4)]
    inside[0][:, :, 4:] = inside[1][:, :, 2:] = inside[2][:, :, 1:] = False
    memory = [torch.randn(1, 32, *one.shape[1:]) for one in inside]
    logits = model.dense(memory, inside).logits[0, :, 0]
    outside = ~torch.cat([one.flatten() for one in inside])
    assert torch.equal(logits == -20, outside)
    changed = memory[2] + 5 * ~inside[2]
    before, after = (model.encoder._attend(one, inside[2]) for one in (memory[2], changed))
    assert torch.allclose(before[..., 0], after[..., 0])
    channels = model.backbone.channels
    maps = [
        torch.randn(1, width, 8 // part, 8 // part)
        for width, part in zip(channels, (1, 2, 4), strict=True)
    ]
    for one, here in zip(model.encoder(maps, inside), inside, strict=True):
        assert torch.equal(one.any(1), here)


def test_layers_mend_one_after_the_other_and_each_learns_from_its_own_error():
    decoder = made().decoder
    change = decoder.boxes[-1].bias
    change.data = torch.tensor([0.3, -0.2, 0.1, 0.4])  # of logits; weights are 0 at first
    start = torch.tensor([[[0.5, 0.4, 0.2, 0.1]]])
    memory = [torch.randn(1, 32, 8 // part, 8 // part) for part in (1, 2, 4)]
    _, (first, second) = decoder(torch.randn(1, 1, 32), start, memory)
    assert torch.allclose(first, (start.logit() + change).sigmoid())
    assert torch.allclose(second, (start.logit() + 2 * change).sigmoid())
    (slope,) = torch.autograd.grad(second.sum(), change)
    assert torch.allclose(slope, (second * (1 - second)).flatten())  # not twice that


def test_places_differ_from_cell_to_cell_but_not_with_the_size_of_the_map():
    small, large = places(18, 4, 5), places(18, 9, 7)
    assert torch.equal(small, large[:, :4, :5])
    assert len({tuple(one.tolist()) for one in large.flatten(1).T}) == 9 * 7
    assert not large[16:].any()


def test_the_surest_cells_show_different_things_first():
    boxes = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.21, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
    boxes = torch.stack([boxes, boxes])
    logits = torch.tensor([[3.0, 2.0, -1.0], [-1.0, 2.0, 3.0]])[..., None]
    guesses = Guesses(torch.zeros(2, 3, 4), logits, boxes)
    assert surest(guesses, 2).tolist() == [[0, 2], [2, 1]]
    assert surest(guesses, 5).tolist() == [[0, 2, 1], [2, 1, 0]]


def test_cells_go_row_by_row_as_flattened_maps_do():
    found = cells(3, 10)
    assert found.shape == (30, 4)
    assert found[11].tolist() == pytest.approx([0.15, 0.5, 0.4, 1.0])


def test_near_noisy_boxes_answer_and_overlap_their_box_more_than_those_further_off():
    true = true_boxes()
    torch.manual_seed(0)
    noise = noisy(true, 2)
    found = answers(noise, layers=2)
    assert len(found.query) == 2 * noise.groups * true.total
    assert found.layer.tolist() == sorted(found.layer.tolist())  # what the losses ask for
    assert noise.real[found.image, found.query].all()
    reference = true.boxes[found.image, found.target]
    corners = [
        torch.cat([one[:, :2] - one[:, 2:] / 2, one[:, :2] + one[:, 2:] / 2], 1)
        for one in (reference, noise.boxes[found.image, found.query])
    ]
    size = (corners[0][:, 2:] - corners[0][:, :2]).repeat(1, 2)
    moved = (corners[1] - corners[0]).abs() / size
    assert moved.max() < 0.25
    assert moved.max() > 0.2
    far = noise.boxes[found.image, found.query + true.labels.shape[1]]
    corners[1] = torch.cat([far[:, :2] - far[:, 2:] / 2, far[:, :2] + far[:, 2:] / 2], 1)
    moved = (corners[1] - corners[0]).abs() / size
    assert moved.max() > 0.45
    assert overlaps(*corners).max() < 0.75
    labels = noise.labels[found.image, found.query]
    wrong = (labels != true.labels[found.image, found.target]).float().mean()
    assert 0 < wrong < 0.3


def test_queries_do_not_see_the_noisy_answers_nor_groups_each_other():
    model = made().eval()
    true = true_boxes()
    torch.manual_seed(0)
    noise = noisy(true, 2)
    number = noise.labels.shape[1]
    group = number // noise.groups
    memory = [torch.randn(2, 32, 12 // part, 16 // part) for part in (1, 2, 4)]
    boxes = torch.rand(2, number + 5, 4)
    queries = torch.randn(2, number + 5, 32)
    shut = blocked(noise, 5)

    def outputs(changed):
        with torch.no_grad():
            other = queries.clone()
            other[changed] += 1
            return model.decoder(other, boxes, memory, shut)[0][-1]

    plain = outputs(torch.zeros(2, number + 5, dtype=torch.bool))
    first_group = torch.zeros(2, number + 5, dtype=torch.bool)
    first_group[:, :group] = True
    differs = (outputs(first_group) - plain).abs().amax(-1) > 1e-6
    assert not differs[:, group:].any()
    assert differs[:, :group].any()
    padding = torch.zeros(2, number + 5, dtype=torch.bool)
    padding[:, :number] = ~noise.real
    assert padding.any()
    differs = (outputs(padding) - plain).abs().amax(-1) > 1e-6
    assert not differs[~padding].any()
    queries_only = torch.zeros(2, number + 5, dtype=torch.bool)
    queries_only[:, number:] = True
    differs = (outputs(queries_only) - plain).abs().amax(-1) > 1e-6
    assert differs[:, :number].any()  # noisy boxes may look at queries


def test_each_box_is_answered_by_as_many_predictions_as_asked_and_the_best_ones():
    true = true_boxes()
    exact = true.boxes[0]
    off = exact + torch.tensor([0.01, 0, 0, 0])
    worse = exact + torch.tensor([0.2, 0.2, 0.1, 0.1])
    boxes = torch.cat([worse, off, exact])[None, None].expand(2, 2, -1, -1)
    logits = torch.zeros(2, 2, 9, 2)
    once = match(logits, boxes, true)
    assert len(once.query) == 2 * true.total
    pairs = list(zip(once.query[:3].tolist(), once.target[:3].tolist(), strict=True))
    assert pairs == [(6, 0), (7, 1), (8, 2)]
    twice = match(logits, boxes, true, times=2)
    pairs = set(zip(twice.query[:6].tolist(), twice.target[:6].tolist(), strict=True))
    assert pairs == {(3, 0), (4, 1), (5, 2), (6, 0), (7, 1), (8, 2)}
    capped = match(logits, boxes, true, times=50)  # nine predictions, three boxes
    assert sorted(capped.query[:9].tolist()) == list(range(9))


def test_a_match_prefers_a_prediction_of_the_right_class():
    true = true_boxes()
    boxes = true.boxes[:, :1].expand(-1, 4, -1)[None]
    logits = torch.full((1, 2, 4, 2), -3.0)
    logits[0, 0, 2, true.labels[0, 0]] = 3.0
    found = match(logits, boxes, true)
    assert (found.query[found.target == 0][0], found.target[found.query == 2][0]) == (2, 0)


def test_known_values_of_the_losses():
    """One box, two predictions: one overlaps it by a third, the other is background."""
    true = collect(
        [{"boxes": torch.tensor([[20.0, 0, 60, 40]]), "labels": torch.tensor([0])}], [(100, 100)]
    )
    boxes = torch.tensor([[0.2, 0.2, 0.4, 0.4], [0.8, 0.8, 0.1, 0.1]])[None, None]
    logits = torch.tensor([[0.0], [0.0]])[None, None]
    found = losses(logits, boxes, true, match(logits, boxes, true))
    assert found["box"].item() == pytest.approx(5 * 0.2)
    assert found["giou"].item() == pytest.approx(2 * (1 - 1 / 3), rel=1e-4)  # the hull is filled
    # ln 2 times IoU for the one, times 3/4 of p squared for the other
    assert found["class"].item() == pytest.approx(0.693147 * (1 / 3 + 0.75 * 0.25), rel=1e-4)


def test_perfect_predictions_lose_nothing():
    true = true_boxes()
    logits = torch.full((1, *true.labels.shape, 2), -30.0)
    logits.scatter_(-1, true.labels[None, ..., None], 30.0)
    logits[0, 1, 1:] = -30  # padding of the second image
    boxes = true.boxes[None]
    found = losses(logits, boxes, true, match(logits, boxes, true))
    assert all(value.abs().max() < 1e-3 for value in found.values())


def test_overlap_of_boxes_apart_and_without_area_is_0():
    one = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]])
    other = torch.tensor([[0.0, 0, 1, 1], [2, 2, 3, 3], [0, 0, 0, 0]])
    assert overlaps(one, other).tolist() == [1, 0, 0]
