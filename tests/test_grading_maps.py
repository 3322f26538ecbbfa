"""Maps of frozen layers: the same numbers without computing them again."""

import copy
import os

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `grading`)")

import torch

from spine_tasks.configs import StenosisGrading
from spine_tasks.data import phantom_lumbar
from spine_tasks.data.grades import read_grades
from spine_tasks.tasks.grading import maps
from spine_tasks.tasks.grading.maps import keep_maps
from spine_tasks.tasks.grading.model import Grader
from spine_tasks.tasks.grading.places import Places
from spine_tasks.tasks.grading.split import Uncut, cut

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `grading`)")

CONDITIONS = {"subarticular_stenosis": ("Normal/Mild", "Moderate", "Severe")}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = phantom_lumbar.ensure(tmp_path_factory.mktemp("lumbar") / "data", ["sub-s01"])
    return read_grades(folder, list(CONDITIONS))


def config(**knobs):
    small = {"backbone": "test_resnet", "image_px": 32, "threads": 1, "slices": 1, "dropout": 0.0}
    return StenosisGrading(**small | {"freeze": True, "unfreeze_blocks": 1} | knobs)


def made(data, knobs, seed=0):
    torch.manual_seed(0)
    model = Grader(knobs, CONDITIONS, 5, {name: torch.ones(3) for name in CONDITIONS})
    return model, Places(data.cases, knobs, CONDITIONS, data.levels, seed)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize(
    "knobs",
    [
        {"unfreeze_blocks": None},
        {},
        {"unfreeze_blocks": None, "unfreeze_tensors": 5},  # in the middle of a block
    ],
)
def test_both_parts_together_are_the_network_and_learn_as_it(name, knobs):
    torch.manual_seed(0)
    knobs = config(backbone=name, image_px=160, **knobs)
    backbone = Grader(knobs, CONDITIONS, 5, {one: torch.ones(3) for one in CONDITIONS}).backbone
    images = torch.randn(2, 3, 160, 160)
    frozen, rest = cut(backbone, images)
    torch.testing.assert_close(rest(frozen(images)), backbone(images))
    assert not any(one.requires_grad for one in frozen.parameters())
    own = {id(one) for one in backbone.parameters() if one.requires_grad}
    assert {id(one) for one in rest.parameters() if one.requires_grad} == own


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_several_maps_are_side_by_side_in_one(name):
    torch.manual_seed(0)
    knobs = config(backbone=name, image_px=160, features="stages", unfreeze_blocks=1)
    body = Grader(knobs, CONDITIONS, 5, {one: torch.ones(3) for one in CONDITIONS}).body[0]
    images = torch.randn(3, 3, 160, 160)
    frozen, rest = cut(body, images[:2])
    assert frozen(images).dim() == 2
    torch.testing.assert_close(rest(frozen(images)), body(images))


def test_a_network_without_a_frozen_part_is_not_cut():
    torch.manual_seed(0)
    knobs = StenosisGrading(backbone="test_resnet", image_px=32)
    backbone = Grader(knobs, CONDITIONS, 5, {one: torch.ones(3) for one in CONDITIONS}).backbone
    with pytest.raises(Uncut, match="nothing of it is frozen"):
        cut(backbone, torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    "knobs",
    [
        {"augment": "none"},
        {"augment": "none", "unfreeze_blocks": None, "features": "stages"},
        {"augment": "none", "features": "stages"},
        {"augment": "light", "views": 2, "test_views": 2},
    ],
)
def test_losses_gradients_and_probabilities_are_those_without_maps(data, tmp_path, knobs):
    plain, places = made(data, config(**knobs))
    kept, same = made(data, config(**knobs))
    _, tested = made(data, config(**knobs))
    keep_maps(kept, same, [tested], tmp_path)
    assert same.maps is not None
    for epoch in range(3):
        units = [(epoch, unit) for unit in range(4)]
        for model, seen in ((plain, places), (kept, same)):
            model.zero_grad()
            sum(model.train()(*seen[units]).values()).backward()
        for (name, one), other in zip(plain.named_parameters(), kept.parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-5, msg=name)
    one, other = (
        model.eval()(seen.inputs([(0, 0), (0, 1)]), seen.levels[:2], seen.groups[:2])
        for model, seen in ((plain, places), (kept, tested))
    )
    for name, log_p in one.items():
        torch.testing.assert_close(other[name], log_p, atol=1e-5, rtol=1e-5)


def test_a_file_is_computed_once_and_by_whatever_its_maps_follow_from(data, tmp_path, monkeypatch):
    computed = []
    plain = maps._computed
    monkeypatch.setattr(
        maps, "_computed", lambda *given: computed.append(len(given[2])) or plain(*given)
    )

    def keep(seed=0, **knobs):
        model, places = made(data, config(**{"views": 2} | knobs), seed)
        keep_maps(model, places, [], tmp_path)
        return places.maps

    first = keep()
    assert computed == [1, 2 * len(data.cases)]
    assert np.array_equal(keep(), first)
    assert len(computed) == 2
    for other in (
        {"seed": 1},
        {"image_px": 48},
        {"crop": 50.0},
        {"unfreeze_blocks": 2},
        {"features": "stages"},
    ):
        number = len(computed)
        keep(**other)
        assert len(computed) == number + 2, other
    assert len(list(tmp_path.iterdir())) == 6


def test_a_copy_as_averaging_makes_it_has_weights_of_its_own(data, tmp_path):
    model, places = made(data, config(augment="none"))
    keep_maps(model, places, [], tmp_path)
    other = copy.deepcopy(model)
    assert {id(one) for one in other.body[0].parameters()} <= {
        id(one) for one in other.backbone.parameters()
    }
    assert list(other.state_dict()) == list(model.state_dict())
    assert not any("body" in name for name in model.state_dict())


def test_ever_new_views_and_unfrozen_networks_keep_nothing(data, tmp_path):
    for knobs in ({"views": None}, {"freeze": False, "unfreeze_blocks": None, "views": 2}):
        model, places = made(data, config(**knobs))
        keep_maps(model, places, [], tmp_path)
        assert places.maps is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_used_for_longest_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "MOST_BYTES", 250)
    for name, used in (("a", 30), ("b", 10), ("c", 20)):
        file = tmp_path / f"{name}.npy"
        file.write_bytes(bytes(100))
        os.utime(file, (used, used))
    maps._free(tmp_path, 100)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["a"]
