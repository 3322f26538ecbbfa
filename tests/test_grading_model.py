"""The grader: published sizes, what is frozen stays, and who sees whom."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `grading`)")

import torch
from torch import nn

from spine_tasks.command import yaml_value
from spine_tasks.configs import StenosisGrading, make_config
from spine_tasks.data.rsna_names import GRADES
from spine_tasks.errors import ConfigError
from spine_tasks.tasks.grading.model import Grader, layers_of

CONDITIONS = {"canal": GRADES, "narrowing": ("0", "1")}


pytestmark = pytest.mark.usefixtures("one_thread")


def grader(conditions=CONDITIONS, levels=5, **knobs):
    torch.manual_seed(0)
    knobs = {"backbone": "test_resnet", "image_px": 32, "threads": 1, "dropout": 0.0} | knobs
    weights = {name: torch.ones(len(grades)) for name, grades in conditions.items()}
    return Grader(StenosisGrading(**knobs), conditions, levels, weights)


def batch(n=4, channels=3):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, channels, 32, 32, generator=generator)
    return images, torch.arange(n) % 5, torch.zeros(n, dtype=torch.int64)


LINEAR = {"hidden": (), "level_embedding": "none"}
GRADED = torch.tensor([[0, 1], [2, -1], [1, 0], [-1, -1]])


@pytest.mark.parametrize(
    ("backbone", "alone", "tensors", "last_32", "head", "total"),
    [
        ("vit_base_patch16_224", 85_798_656, 150, 18_901_248, 658_435, 86_458_371),
        ("swin_base_patch4_window7_224", 86_743_224, 327, 27_307_072, 789_507, 87_534_011),
        ("beit_base_patch16_224", 85_761_984, 197, 14_194_848, 658_435, 86_421_699),
        ("tf_efficientnetv2_m", 52_858_356, 647, 10_184_448, 920_579, 53_780_215),
        ("resnet152", 58_143_808, 465, 14_966_784, 1_313_795, 59_458_883),
        ("convnext_base", 87_566_464, 342, 27_444_736, 789_507, 88_357_251),
    ],
)
def test_the_six_networks_have_the_published_numbers(
    backbone, alone, tensors, last_32, head, total
):
    model = grader(
        {"spinal_canal_stenosis": GRADES},
        backbone=backbone,
        image_px=224,
        slices=1,
        freeze=True,
        unfreeze_tensors=32,
    )
    parameters = list(model.backbone.parameters())
    assert (sum(one.numel() for one in parameters), len(parameters)) == (alone, tensors)
    assert sum(one.numel() for one in parameters if one.requires_grad) == last_32
    rest = [*model.head.parameters(), *model.answers.parameters()]
    assert sum(one.numel() for one in rest) == head
    assert sum(one.numel() for one in model.parameters()) == total


def test_training_gives_a_loss_a_condition_and_evaluation_probabilities():
    model = grader()
    losses = model(*batch(), GRADED)
    assert set(losses) == {"canal", "narrowing"}
    assert all(loss.ndim == 0 and loss > 0 for loss in losses.values())
    found = model.eval()(*batch())
    assert {name: one.shape for name, one in found.items()} == {
        "canal": (4, 3),
        "narrowing": (4, 2),
    }
    for log_p in found.values():
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4))


@pytest.mark.parametrize("knobs", [{}, {"unfreeze_blocks": 1}])
def test_what_is_frozen_neither_learns_nor_drifts(knobs):
    model = grader(freeze=True, **knobs)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    trained = {name for name, one in model.backbone.named_parameters() if one.requires_grad}
    model.train()
    sum(model(*batch(), GRADED).values()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    now = model.backbone.state_dict()
    changed = {name for name, value in now.items() if not value.equal(before[name])}
    modules = {name.rpartition(".")[0] for name in trained}
    assert {name.rpartition(".")[0] for name in changed} <= modules
    assert bool(changed) == bool(trained) == bool(knobs)


def test_without_freezing_all_is_trained_and_batch_norms_move():
    model = grader()
    assert all(one.requires_grad for one in model.parameters())
    norms = [one for one in model.backbone.modules() if isinstance(one, nn.BatchNorm2d)]
    assert all(one.training for one in norms)
    before = norms[0].running_mean.clone()
    model(*batch(), GRADED)
    assert not norms[0].running_mean.equal(before)


def test_blocks_are_counted_from_the_end():
    of_layer = layers_of(grader().backbone)
    last = max(of_layer.values())
    model = grader(freeze=True, unfreeze_blocks=1)
    trained = {name for name, one in model.backbone.named_parameters() if one.requires_grad}
    assert trained == {name for name, layer in of_layer.items() if layer == last}


@pytest.mark.parametrize(
    ("embedding", "differs"), [("none", False), ("one_hot", True), ("learned", True)]
)
def test_the_level_matters_where_it_is_embedded(embedding, differs):
    model = grader(level_embedding=embedding).eval()
    images, _, groups = batch()
    one = model(images, torch.zeros(4, dtype=torch.int64), groups)["canal"]
    other = model(images, torch.full((4,), 3), groups)["canal"]
    assert one.equal(other) != differs


@pytest.mark.parametrize("across", ["none", "attention", "gru"])
def test_places_see_those_of_their_own_study_alone(across):
    model = grader(across=across).eval()
    images, levels, _ = batch()
    groups = torch.tensor([0, 0, 7, 7])
    alone = model(images, levels, groups)["canal"]
    changed = images.clone()
    changed[0] += 1
    found = model(changed, levels, groups)["canal"]
    assert not found[0].allclose(alone[0], atol=1e-4)
    assert found[1].allclose(alone[1], atol=1e-6) == (across == "none")
    torch.testing.assert_close(found[2:], alone[2:])


@pytest.mark.parametrize("across", ["attention", "gru"])
def test_the_order_of_places_in_a_batch_does_not_matter(across):
    model = grader(across=across).eval()
    images, levels, groups = batch()
    order = [2, 0, 3, 1]
    found = model(images, levels, groups)["canal"]
    again = model(images[order], levels[order], groups[order])["canal"]
    torch.testing.assert_close(again, found[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_slices_are_channels(slices):
    model = grader(slices=slices)
    channels = 3 if slices == 1 else slices
    assert model(*batch(channels=channels), GRADED)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_features_of_all_stages_are_the_mean_of_each_stages_map_on_one_scale(backbone):
    model = grader(backbone=backbone, features="stages", image_px=160, level_embedding="none")
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        found = model.eval().features(images, torch.zeros(2, dtype=torch.int64))
        maps = model.backbone.forward_intermediates(images, intermediates_only=True)
    assert found.shape[1] == sum(one.shape[1] for one in maps)
    assert len(maps) > 1
    for one, part in zip(maps, found.split([one.shape[1] for one in maps], dim=1), strict=True):
        mean = one.flatten(2).mean(2)
        spread = (mean.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(part, (mean - mean.mean(1, keepdim=True)) / spread)
    known = grader(backbone=backbone, image_px=160, level_embedding="none")
    body = [name for name in known.state_dict() if name.startswith("backbone.")]
    assert [name for name in model.state_dict() if name.startswith("backbone.")] == body


def test_mixing_draws_from_torchs_generator_alone():
    model = grader(mixup=0.4)
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(float(model(*batch(), GRADED)["canal"].detach()))
    assert losses[0] == losses[1]
    assert losses[0] != float(model(*batch(), GRADED)["canal"].detach())


def test_a_few_steps_learn_a_batch():
    model = grader(across="attention", loss="ordinal")
    step = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        step.zero_grad()
        loss = sum(model(*batch(), GRADED).values())
        loss.backward()
        step.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"backbone": "resnet5"}, "no network of timm; similar names: .*resnet50"),
        ({"across": "gru", "hidden": (6,)}, "hidden to end with a multiple of 4"),
    ],
)
def test_a_network_that_cannot_be_is_refused(knobs, said):
    with pytest.raises(ConfigError, match=said):
        grader(**knobs)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"slices": 2}, "must be odd"),
        ({"unfreeze_blocks": 2}, "one of them, goes with freeze=true; got None, 2"),
        ({"freeze": True, "unfreeze_blocks": 2, "unfreeze_tensors": 2}, "one of them"),
        (LINEAR | {"fit": "logistic", "freeze": True, "unfreeze_blocks": 1}, "nothing unfrozen"),
        (LINEAR | {"fit": "logistic"}, "needs freeze=true .* fit=both also trains"),
        (LINEAR | {"fit": "both", "hidden": (8,)}, "fit=both needs"),
        ({"conditions": ()}, "name at least one"),
        ({"hidden": (512, 0)}, "hidden must be"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(knobs, said):
    with pytest.raises(ConfigError, match=said):
        StenosisGrading(**knobs)


def test_freezing_is_switched_off_by_false_and_is_no_text():
    assert make_config("stenosis_grading", {"freeze": yaml_value("false")}).freeze is False
    assert make_config("stenosis_grading", {"freeze": yaml_value("true")}).freeze is True
    with pytest.raises(ConfigError, match="freeze must be bool, got 'nein'"):
        make_config("stenosis_grading", {"freeze": yaml_value("nein")})
