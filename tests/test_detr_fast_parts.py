"""The parts of the fast DETR: padding, attention, guesses, noise, layers, matches and losses."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

from spine_tasks.tasks.detr.fast import pad  # noqa: E402
from spine_tasks.tasks.detr.fast_attention import DeformableAttention, sample  # noqa: E402
from spine_tasks.tasks.detr.fast_decoder import Decoder  # noqa: E402
from spine_tasks.tasks.detr.fast_encoder import Encoder, places  # noqa: E402
from spine_tasks.tasks.detr.fast_losses import losses, match, overlaps  # noqa: E402
from spine_tasks.tasks.detr.fast_noise import answers, blocked, noisy  # noqa: E402
from spine_tasks.tasks.detr.fast_queries import DenseHead, Guesses, cells, surest  # noqa: E402
from spine_tasks.tasks.detr.matcher import collect  # noqa: E402

SHAPE = {"heads": 4, "feedforward": 64, "layers": 2, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def true_boxes():
    """Three boxes in the first image of two, one in the second."""
    boxes = [[[5, 10, 25, 24], [30, 40, 50, 60], [8, 70, 40, 88]], [[60, 20, 110, 50]]]
    labels = [[0, 1, 1], [0]]
    targets = [
        {"boxes": torch.tensor(own).float(), "labels": torch.tensor(kinds)}
        for own, kinds in zip(boxes, labels, strict=True)
    ]
    return collect(targets, [(96, 128)] * 2)


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
    encoder = Encoder([8, 16, 24], 32, **SHAPE).eval()
    inside = [torch.ones(1, 8 // part, 8 // part, dtype=torch.bool) for part in (1, 2, 4)]
    inside[0][:, :, 4:] = inside[1][:, :, 2:] = inside[2][:, :, 1:] = False
    memory = [torch.randn(1, 32, *one.shape[1:]) for one in inside]
    logits = DenseHead(32, 2)(memory, inside).logits[0, :, 0]
    outside = ~torch.cat([one.flatten() for one in inside])
    assert torch.equal(logits == -20, outside)
    changed = memory[2] + 5 * ~inside[2]
    before, after = (encoder._attend(one, inside[2]) for one in (memory[2], changed))
    assert torch.allclose(before[..., 0], after[..., 0])
    maps = [torch.randn(1, 8 * part, *one.shape[1:]) for part, one in enumerate(inside, 1)]
    for one, here in zip(encoder(maps, inside), inside, strict=True):
        assert torch.equal(one.any(1), here)


def test_layers_mend_one_after_the_other_and_each_learns_from_its_own_error():
    decoder = Decoder(32, 2, maps=3, **SHAPE)
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
    decoder = Decoder(32, 2, maps=3, **SHAPE).eval()
    true = true_boxes()
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
            return decoder(other, boxes, memory, shut)[0][-1]

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
