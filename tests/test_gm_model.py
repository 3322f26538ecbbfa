"""The grey-matter network is the published one, and segments as published."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import nibabel as nib
import numpy as np
import pytest

from spine_tasks import weights
from spine_tasks.configs import GmSegmentation
from spine_tasks.data.slices import to_slices
from spine_tasks.errors import ConfigError, DataError, WeightsError
from spine_tasks.tasks.gm_segment import probabilities, segment

keras = pytest.importorskip("keras", reason="the grey-matter network needs the extra [gm]")
h5py = pytest.importorskip("h5py", reason="comes with TensorFlow")

from spine_tasks.tasks.gm import load_weights, predicting  # noqa: E402 (needs keras)
from spine_tasks.tasks.gm_model import (  # noqa: E402 (needs keras)
    build,
    for_prediction,
    load_keras2_weights,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # TensorFlow's own, with numpy 2
)


def some_slices(shape=(2, 16, 16), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def some_image(shape=(12, 20, 5)):
    array = np.random.default_rng(0).normal(100, 20, shape)
    return nib.Nifti1Image(array, np.diag([-0.5, 0.5, 4.0, 1.0]))


def features(model, layer, slices):
    inner = keras.Model(model.input, model.get_layer(layer).output)
    return np.asarray(inner(slices[..., None], training=False))


@pytest.mark.parametrize(
    ("filters", "total", "trainable", "convolutions"),
    [(32, 127_585, 126_177, 124_769), (64, 478_017, 475_329, 472_641)],
)
def test_the_network_has_the_published_number_of_parameters(
    filters, total, trainable, convolutions
):
    model = build(filters)
    convolving = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert model.count_params() == total
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable
    assert sum(layer.count_params() for layer in convolving) == convolutions


def test_dilation_is_in_the_second_block_and_the_four_branches_alone():
    rates = {
        layer.name: layer.dilation_rate
        for layer in build(2).layers
        if isinstance(layer, keras.layers.Conv2D) and layer.dilation_rate != (1, 1)
    }
    assert rates == {
        f"rate{rate}_{index}": (rate, rate) for rate in (2, 6, 12, 18, 24) for index in (1, 2)
    }


def test_the_global_branch_is_the_mean_of_the_first_block_and_stands_fifth():
    model, slices = build(4), some_slices()
    first = features(model, "batch_normalization_2", slices)
    joined = features(model, "concatenate", slices)
    expected = np.broadcast_to(first.mean(axis=(1, 2), keepdims=True), first.shape)
    assert joined.shape[-1] == 24
    assert joined[..., 16:20] == pytest.approx(expected, abs=1e-5)
    rate24 = features(model, "batch_normalization_14", slices)
    assert joined[..., 20:] == pytest.approx(rate24, abs=1e-6)


def test_batch_normalisation_keeps_a_tenth_of_its_statistics_at_each_step():
    model, slices = build(4), some_slices()
    mean = features(model, "conv2d_1", slices).mean(axis=(0, 1, 2))
    model(slices[..., None], training=True)
    moving = np.asarray(model.get_layer("batch_normalization_1").moving_mean)
    assert moving == pytest.approx(0.9 * mean, rel=1e-4)


def test_dropout_drops_single_elements():
    layer = next(layer for layer in build(2).layers if isinstance(layer, keras.layers.Dropout))
    dropped = np.asarray(layer(np.ones((1, 50, 50, 4), np.float32), training=True)) == 0
    assert dropped.mean(axis=(0, 1, 2)) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("size", [None, 10])
def test_the_network_gives_a_probability_for_each_pixel(size):
    shape = (3, size or 7, size or 30)
    answer = build(2, size_px=size).predict_on_batch(some_slices(shape)[..., None])
    assert answer.shape == (*shape, 1)
    assert answer.dtype == np.float32
    assert answer.min() > 0
    assert answer.max() < 1


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_half_and_answers_in_float32(dtype):
    slices = some_slices()[..., None]
    model = build(4, seed=5, dtype=dtype)
    answer = model.predict_on_batch(slices)
    assert model.get_layer("amort").compute_dtype == dtype.removeprefix("mixed_")
    assert answer.dtype == np.float32
    assert answer == pytest.approx(build(4, seed=5).predict_on_batch(slices), abs=0.02)


def test_what_predicts_cases_is_the_network_apart_from_rounding():
    model, rng = build(4, seed=3), np.random.default_rng(1)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.dtype == "float32":  # also negative scales, and variances that are not 1
                weight.assign(rng.normal(0, 0.6, weight.shape))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.3, 3, layer.moving_variance.shape))
    slices = some_slices((3, 30, 22))[..., None]  # of which the largest dilation reaches beyond
    expected = np.asarray(model(slices, training=False))
    assert 0.2 < expected.mean() < 0.8
    assert expected.std() > 0.1
    assert for_prediction(model).predict_on_batch(slices) == pytest.approx(expected, abs=1e-5)


def test_an_unknown_precision_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="mixed_bfloat16"):
        build(2, dtype="float16")


def test_the_seed_decides_first_weights_and_dropout():
    slices = some_slices()[..., None]

    def answers(seed):
        model = build(4, seed=seed)
        resting = np.asarray(model(slices, training=False))
        return resting, *(np.asarray(model(slices, training=True)) for _ in range(2))

    one, same, other = answers(1), answers(1), answers(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[1], one[2])


def test_no_two_layers_share_their_random_numbers():
    layers = [layer for layer in build(2).layers if isinstance(layer, keras.layers.Dropout)]
    states = {tuple(np.asarray(layer.seed_generator.state).tolist()) for layer in layers}
    assert len(states) == len(layers) == 16


def write_keras2(model, file, *, first=1, root="/", change=None):
    """Write weights as Keras 2 does, its counted layers starting at `first`."""
    tensors = {}
    for layer in model.layers:
        kind, _, index = layer.name.rpartition("_")
        name = layer.name
        if kind in ("conv2d", "batch_normalization"):
            name = f"{kind}_{int(index) + first - 1}".removesuffix("_0")
        tensors[name] = {f"{name}/{w.name}:0": np.asarray(w) for w in layer.weights}
    if change:
        change(tensors)
    with h5py.File(file, "w") as opened:
        group = opened.require_group(root)
        # Sorted, so that nothing can rest on the order of the file.
        group.attrs["layer_names"] = [name.encode() for name in sorted(tensors)]
        for name, members in tensors.items():
            layer_group = group.create_group(name)
            layer_group.attrs["weight_names"] = [member.encode() for member in members]
            for member, value in members.items():
                layer_group[member] = value
    return file


@pytest.mark.parametrize(("first", "root"), [(1, "/"), (0, "/"), (93, "/model_weights")])
def test_keras_2_weights_arrive_wherever_their_layers_were_counted_from(tmp_path, first, root):
    slices = some_slices()[..., None]
    giver, taker = build(4, seed=1), build(4, seed=2)
    giver(slices, training=True)  # so that running statistics differ from layer to layer
    load_keras2_weights(taker, write_keras2(giver, tmp_path / "w.h5", first=first, root=root))
    assert np.array_equal(taker.predict_on_batch(slices), giver.predict_on_batch(slices))


def without_a_bias(tensors):
    del tensors["amort"]["amort/bias:0"]


def with_one_more(tensors):
    tensors["rate30_1"] = {"rate30_1/kernel:0": np.zeros((3, 3, 4, 4))}


def with_a_wide_kernel(tensors):
    tensors["rate6_1"]["rate6_1/kernel:0"] = np.zeros((5, 5, 4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_bias, "1 tensors do not fit.*missing amort/bias"),
        (with_one_more, "1 tensors do not fit.*not used rate30_1/kernel"),
        (with_a_wide_kernel, r"rate6_1/kernel is \(5, 5, 4, 4\) instead of \(3, 3, 4, 4\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(tmp_path, change, message):
    file = write_keras2(build(4, seed=1), tmp_path / "w.h5", change=change)
    model = build(4, seed=2)
    before = [np.asarray(weight) for weight in model.weights]
    with pytest.raises(WeightsError, match=message):
        load_keras2_weights(model, file)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


def test_weights_of_another_number_of_filters_are_answered_with_that_number(tmp_path):
    file = write_keras2(build(6), tmp_path / "w.h5")
    with pytest.raises(WeightsError, match="6 filters, this one has 4; build it with filters=6"):
        load_keras2_weights(build(4), file)


def test_weights_that_were_deleted_are_said_to_be_missing(tmp_path):
    with pytest.raises(WeightsError, match="is missing; put it back"):
        load_weights(None, tmp_path / "model.weights.h5")


def test_files_that_hold_no_keras_2_weights_are_refused(tmp_path):
    model = build(2)
    model.save_weights(tmp_path / "keras3.weights.h5")
    whole = write_keras2(model, tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("not found")
    for name, message in {
        "keras3.weights.h5": "no layer_names",
        "cut.h5": "not a whole HDF5 file",
        "text.h5": "not a whole HDF5 file",
        "none.h5": "no such weights file",
    }.items():
        with pytest.raises(WeightsError, match=message):
            load_keras2_weights(model, tmp_path / name)


def test_test_time_augmentation_is_the_mean_over_shifted_copies_and_the_original():
    model, slices = build(4), some_slices((6, 16, 16))
    shifts = np.random.default_rng(3).uniform(0, 2, size=2)
    single = [model.predict_on_batch((slices + s)[..., None])[..., 0] for s in (0.0, *shifts)]
    answer = probabilities(model, slices, tta=2, seed=3)
    assert answer == pytest.approx(np.mean(single, axis=0), abs=1e-6)
    assert np.array_equal(answer, probabilities(model, slices, tta=2, seed=3))
    assert not np.array_equal(answer, probabilities(model, slices, tta=2, seed=4))
    assert probabilities(model, slices) == pytest.approx(single[0], abs=1e-6)


def test_the_mask_has_the_shape_of_the_image_and_lies_within_the_crop():
    image = some_image()
    mask = segment(build(2), image, spacing_mm=None, size_px=8, threshold=0.0)
    assert mask.shape == image.shape
    assert mask.dtype == bool
    assert mask[2:10, 6:14].all()
    assert mask.sum() == 8 * 8 * 5


def test_a_network_that_diverged_is_an_error_not_an_empty_mask():
    model = build(2)
    model.get_layer("predictions").bias.assign([np.nan])
    with pytest.raises(DataError, match="not finite"):
        segment(model, some_image(), spacing_mm=None, size_px=8)


@pytest.fixture(scope="module")
def t2s():
    """A real image and its manual mask; the official weights are found in the same folder."""
    if not (folder := os.environ.get("SPINE_TEST_DATA")):
        pytest.skip("SPINE_TEST_DATA names no folder with real data")
    images = Path(folder) / "sct-testing" / "t2s"
    manual = nib.load(images / "t2s_uncropped_gmseg_manual.nii.gz")
    return nib.load(images / "t2s_uncropped.nii.gz"), np.asarray(manual.dataobj) > 0


def official(name, monkeypatch):
    monkeypatch.setenv("SPINE_WEIGHTS", str(Path(os.environ["SPINE_TEST_DATA"]) / "weights"))
    model = build(weights.KNOWN[name].fits["filters"])
    load_keras2_weights(model, weights.find(name))
    return model


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_the_challenge_weights_give_the_known_answers_on_a_real_image(t2s, monkeypatch):
    image, manual = t2s
    model = official("challenge", monkeypatch)
    slices, _ = to_slices(image, spacing_mm=0.25, size_px=200)
    answer = probabilities(model, slices)
    inside = answer > 0.999
    per_slice = [273, 283, 256, 291, 254, 269, 233, 245, 227, 237, 231]
    assert answer.sum(dtype=float) == pytest.approx(2821.469, abs=0.01)
    assert inside.sum(axis=(1, 2)).tolist() == per_slice
    assert (answer > 0.5).sum() == 2823
    mask = segment(model, image)
    assert dice(mask, manual) == pytest.approx(0.8905, abs=5e-5)
    faster = predicting(model, GmSegmentation())
    assert probabilities(faster, slices) == pytest.approx(answer, abs=1e-5)
    assert np.array_equal(segment(faster, image), mask)
    mirrored = nib.as_closest_canonical(image)  # right and left change places
    assert np.array_equal(segment(model, mirrored), mask[::-1])


def test_the_large_weights_give_the_known_answer_on_a_real_image(t2s, monkeypatch):
    image, manual = t2s
    mask = segment(official("large", monkeypatch), image)
    assert dice(mask, manual) == pytest.approx(0.9088, abs=5e-5)


def test_the_large_weights_do_not_go_into_the_small_network(t2s, monkeypatch):
    monkeypatch.setenv("SPINE_WEIGHTS", str(Path(os.environ["SPINE_TEST_DATA"]) / "weights"))
    with pytest.raises(WeightsError, match="build it with filters=64"):
        load_keras2_weights(build(32), weights.find("large"))
