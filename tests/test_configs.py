"""Knobs: what is refused, and what the message says about it."""

import ast
import dataclasses
import inspect

import pytest

from spine_tasks.configs import (
    TASKS,
    GmSegmentation,
    config_class,
    defaults_of,
    knobs_of,
    make_config,
    suggestion,
)
from spine_tasks.errors import ConfigError

GM = "gm_segmentation"
KNOBS = [field.name for field in dataclasses.fields(GmSegmentation)]


def make(**knobs):
    return make_config(GM, knobs)


def test_no_knobs_give_the_defaults():
    assert make() == GmSegmentation()
    assert knobs_of(make()) == defaults_of(GM)


def test_knobs_that_are_set_are_kept_and_the_others_stay():
    changed = {"epochs": 7, "init": "pretrained", "spacing_mm": None, "weights": "challenge"}
    assert knobs_of(make(**changed)) == defaults_of(GM) | changed


def test_an_unknown_knob_is_answered_with_the_nearest_and_all():
    with pytest.raises(ConfigError, match="no knob 'learning_rat'") as error:
        make(learning_rat=0.1)
    assert "did you mean 'learning_rate'?" in str(error.value)
    assert all(name in str(error.value) for name in KNOBS)


def test_a_knob_like_none_there_is_gets_no_suggestion():
    assert suggestion("zzz", ["b", "a"]) == "; It has a, b"


def test_an_unknown_job_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no job 'gm'; jobs: .*gm_segmentation"):
        config_class("gm")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", True, "int"),
        ("epochs", 5.0, "int"),
        ("epochs", "5", "int"),
        ("epochs", None, "int"),
        ("augment", "yes", "bool"),
        ("augment", 1, "bool"),
        ("augment", 0, "bool"),
        ("learning_rate", True, "float"),
        ("learning_rate", "fast", "float"),
        ("learning_rate", None, "float"),
        ("learning_rate", [0.1], "float"),
        ("data", 5, "str"),
        ("data", None, "str"),
        ("weights", 5, "str or null"),
        ("spacing_mm", "fine", "float or null"),
        ("spacing_mm", False, "float or null"),
        ("init", "random", "scratch, pretrained"),
        ("init", None, "scratch, pretrained"),
        ("keep", ["best"], "best, last"),
        ("precision", "float16", "float32, mixed_bfloat16, mixed_float16"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_is_allowed(name, value, allowed):
    with pytest.raises(ConfigError) as error:
        make(**{name: value})
    kind = type(value).__name__
    assert str(error.value) == f"{GM}.{name} must be {allowed}, got {value!r} ({kind})"


@pytest.mark.parametrize(("value", "number"), [("1e-3", 0.001), (1, 1.0), ("2", 2.0), (0.5, 0.5)])
def test_any_way_to_write_a_number_is_the_same_float(value, number):
    # YAML reads 1e-3 as text; and 1 and 1.0 must not be two cells.
    got = make(learning_rate=value).learning_rate
    assert (got, type(got)) == (number, float)


@pytest.mark.parametrize("value", ["nan", float("nan"), "inf", float("-inf")])
@pytest.mark.parametrize(
    "name", ["learning_rate", "dropout", "min_delta", "threshold", "spacing_mm"]
)
def test_a_number_that_is_not_finite_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        make(**{name: value})


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("filters", [1, 64], [0, -1]),
        ("image_px", [1], [0]),
        ("epochs", [1], [0]),
        ("batch_size", [1], [0]),
        ("patience", [1], [0]),
        ("threads", [1], [0]),
        ("tta", [0, 8], [-1]),
        ("min_delta", [0.0], [-0.1]),
        ("dropout", [0.0, 0.99], [-0.1, 1.0]),
        ("threshold", [0.001, 0.999], [0.0, 1.0, 99.9]),
        ("learning_rate", [1e-9], [0.0, -1.0]),
        ("spacing_mm", [0.25, None], [0.0, -0.5]),
    ],
)
def test_ranges_hold_at_their_ends(name, inside, outside):
    for value in inside:
        assert getattr(make(**{name: value}), name) == value
    for value in outside:
        with pytest.raises(ConfigError, match=rf"GmSegmentation\.{name} must be .* got"):
            make(**{name: value})


def test_a_config_cannot_be_changed_after_its_checks():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().epochs = 0


def test_an_error_of_a_knob_is_a_value_error_too():
    with pytest.raises(ValueError, match="epochs"):
        make(epochs=-1)


@pytest.mark.parametrize("job", TASKS)
def test_every_knob_has_a_default_and_the_default_is_allowed(job):
    assert set(defaults_of(job)) == {field.name for field in dataclasses.fields(TASKS[job])}
    assert make_config(job, defaults_of(job)) == TASKS[job]()


@pytest.mark.parametrize("job", TASKS)
def test_every_task_names_its_function_framework_and_kind_of_prediction(job):
    module, _, function = TASKS[job].entry.partition(":")
    assert module.startswith("spine_tasks.tasks.") or job == "drill"
    assert function
    assert TASKS[job].framework in ("tensorflow", "torch", "nnunet", "none")
    assert TASKS[job].predicts in ("masks", "cords", "boxes", "grades", "nothing")


@pytest.mark.parametrize("job", TASKS)
def test_every_knob_has_a_comment_in_the_source(job):
    commented = set()
    for base in TASKS[job].__mro__[:-1]:  # a knob that several tasks share is explained once
        source = inspect.getsource(base)
        lines = source.splitlines()
        body = ast.parse(source).body[0].body
        fields = [node for node in body if isinstance(node, ast.AnnAssign)]
        commented |= {node.target.id for node in fields if "  # " in lines[node.end_lineno - 1]}
    assert set(defaults_of(job)) <= commented
