"""The grey-matter segmentation network and its official weights (TensorFlow/Keras)."""

import re
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from spine_tasks.errors import ConfigError, WeightsError

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
# Place among what is concatenated -> convolution, and the number of its normalisation.
BRANCHES = {
    0: ("branch1x1_2", 6),
    1: ("rate6_2", 8),
    2: ("rate12_2", 10),
    3: ("rate18_2", 12),
    5: ("rate24_2", 14),
}
AUTOMATIC_NAME = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")


def build(
    filters: int = 32,
    dropout: float = 0.4,
    size_px: int | None = None,
    *,
    seed: int = 0,
    dtype: str = "float32",
) -> keras.Model:
    """Return the dilated network of Perone et al. [1]_, without pooling, with new weights.

    Parameters
    ----------
    filters
        Channels of every convolution but the last two: 32 (127,585 parameters, the weights
        `challenge`) or 64 (478,017, the weights `large`).
    dropout
        Fraction of single elements, not of whole channels, set to zero in training.
    size_px
        Height and width of the slices; None takes any, also unequal ones.
    seed
        Decides the first weights and the sequence of dropout masks. Each dropout layer's
        `seed_generator` is part of the state that a checkpoint must keep.
    dtype
        `float32`, `mixed_bfloat16` or `mixed_float16`.

    Returns
    -------
    keras.Model
        Normalised slices (B, H, W, 1) to grey-matter probabilities (B, H, W, 1), float32 whatever
        `dtype` is. Layers bear the names of the official files.

    Raises
    ------
    ConfigError
        `dtype` is none of the three.

    Notes
    -----
    Three properties of the published network are easily lost: the global branch averages the
    *first* block's output, it stands fifth of the six concatenated branches, and batch
    normalisation keeps only a tenth of its running statistics at each step (momentum 0.1; a
    framework that counts the other way calls it 0.9).

    References
    ----------
    .. [1] Perone, Calabrese, Cohen-Adad, Spinal cord gray matter segmentation using deep dilated
       convolutions, Scientific Reports 8, 2018, doi:10.1038/s41598-018-24304-3.
    """
    if dtype not in POLICIES:
        raise ConfigError(f"dtype of the network must be one of {POLICIES}, got {dtype!r}")
    drawn = iter(np.random.SeedSequence(seed).generate_state(64).tolist())
    indices = iter(range(1, 17))  # as the official files number their normalisations

    def normalised(features: Any) -> Any:
        name = f"batch_normalization_{next(indices)}"
        layer = keras.layers.BatchNormalization(momentum=0.1, epsilon=1e-3, name=name, dtype=dtype)
        return keras.layers.Dropout(dropout, seed=next(drawn), dtype=dtype)(layer(features))

    def block(
        features: Any, name: str, *, channels: int = filters, side: int = 3, rate: int = 1
    ) -> Any:
        convolution = keras.layers.Conv2D(
            channels,
            side,
            dilation_rate=rate,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(drawn)),
            name=name,
            dtype=dtype,
        )
        return normalised(convolution(features))

    slices = keras.Input((size_px, size_px, 1), name="slices")
    first = block(block(slices, "conv2d_1"), "conv2d_2")
    shared = block(block(first, "rate2_1", rate=2), "rate2_2", rate=2)
    branches = [block(block(shared, "branch1x1_1"), "branch1x1_2", side=1)]
    for rate in (6, 12, 18, 24):
        once = block(shared, f"rate{rate}_1", rate=rate)
        branches.append(block(once, f"rate{rate}_2", rate=rate))
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name="global", dtype=dtype)(first)
    # Adding zeros broadcasts the mean over any height and width.
    branches.insert(4, keras.ops.zeros_like(first) + mean)
    joined = normalised(keras.layers.Concatenate(name="concatenate", dtype=dtype)(branches))
    narrowed = block(joined, "amort", channels=64, side=1)
    probability = keras.layers.Conv2D(
        1,
        1,
        activation="sigmoid",
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(drawn)),
        name="predictions",
        dtype="float32",  # half precision cannot tell .999 from 1
    )(narrowed)
    return keras.Model(slices, probability, name="gm")


class Dilated(keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution by TensorFlow's own dilation, which not every CPU can train.

    Keras dilates by sorting pixels into a larger batch and back.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution alone, as Keras calls it."""
        return tf.nn.conv2d(inputs, kernel, self.strides, "SAME", dilations=self.dilation_rate)


def for_prediction(model: keras.Model) -> keras.Model:
    """A copy that predicts the same, apart from rounding, by less work on a CPU.

    Its convolutions are `Dilated`, and the normalisations between the branches and `predictions`
    are parts of the kernels and biases behind them. Those before a 3x3 convolution cannot be: the
    zeros around a slice are not normalised.

    Parameters
    ----------
    model
        A trained float32 network of `build`.
    """

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = Dilated if isinstance(layer, keras.layers.Conv2D) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=copied)
    copy.set_weights(model.get_weights())

    def scale_and_shift(index: int) -> tuple[Any, Any]:
        layer = copy.get_layer(f"batch_normalization_{index}")
        gamma, beta, mean, variance = layer.get_weights()
        scale = gamma / np.sqrt(variance + layer.epsilon)
        return scale, beta - mean * scale

    def behind(features: Any, name: str, scale: Any, shift: Any) -> Any:
        """The 1x1 convolution of `scale * features + shift`."""
        layer = copied(copy.get_layer(name))
        kernel, bias = copy.get_layer(name).get_weights()
        answer = layer(features)
        layer.set_weights([kernel * scale[:, None], bias + shift @ kernel[0, 0]])
        return answer

    joined = [*copy.get_layer("concatenate").input]
    scale, shift = scale_and_shift(15)
    for place, (name, index) in BRANCHES.items():
        joined[place] = copy.get_layer(name).output
        inner_scale, inner_shift = scale_and_shift(index)
        own = slice(place * len(inner_scale), (place + 1) * len(inner_scale))
        shift[own] += scale[own] * inner_shift
        scale[own] *= inner_scale
    narrowed = behind(copy.get_layer("concatenate")(joined), "amort", scale, shift)
    return keras.Model(copy.input, behind(narrowed, "predictions", *scale_and_shift(16)))


def load_keras2_weights(model: keras.Model, file: Path) -> None:
    """Put the weights of a Keras 2 hdf5 file into the network, every tensor or none.

    Reads files of `save_weights` and of `save`. Layers are matched by name; those that Keras named
    by counting (`conv2d_7`) by their order, for the count depends on what was built before.

    Raises
    ------
    WeightsError
        The file is not there or not of this kind; a tensor is missing, left over or of another
        shape; or the file is of a network with another number of filters. The network is then
        as it was.
    """
    tensors = _read_keras2(file)
    variables = {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }
    first = "conv2d_1/kernel"
    if first in tensors and (found := tensors[first].shape[-1]) != (
        own := variables[first].shape[-1]
    ):
        raise WeightsError(
            f"{file}: weights of a network with {found} filters, this one has {own}; "
            f"build it with filters={found}, or take the weights for filters={own}"
        )
    differences = [f"missing {name}" for name in variables.keys() - tensors.keys()]
    differences += [f"not used {name}" for name in tensors.keys() - variables.keys()]
    differences += [
        f"{name} is {tensors[name].shape} instead of {tuple(variable.shape)}"
        for name, variable in variables.items()
        if name in tensors and tensors[name].shape != tuple(variable.shape)
    ]
    if differences:
        raise WeightsError(
            f"{file}: {len(differences)} tensors do not fit the grey-matter network: "
            f"{'; '.join(sorted(differences))}; take a file of this architecture"
        )
    for name, variable in variables.items():
        variable.assign(tensors[name])


def _read_keras2(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of a Keras 2 file as `layer/tensor`, counted layers renumbered from 1."""
    if not file.is_file():
        raise WeightsError(f"{file}: no such weights file")
    try:
        with h5py.File(file) as opened:
            root = opened.get("model_weights", opened)
            if "layer_names" not in root.attrs:
                raise WeightsError(
                    f"{file}: HDF5, but not as Keras 2 writes weights (no layer_names); "
                    "take the official file, or one written by Keras 2"
                )
            layers = {
                _text(layer): {
                    _text(tensor): root[_text(layer)][_text(tensor)][()]
                    for tensor in root[_text(layer)].attrs.get("weight_names", [])
                }
                for layer in root.attrs["layer_names"]
            }
    except (OSError, KeyError) as error:  # h5py's words for: cut off, or of another kind
        raise WeightsError(f"{file}: not a whole HDF5 file ({error}); fetch it again") from error
    renamed = _renumbered([layer for layer, tensors in layers.items() if tensors])
    return {
        f"{renamed[layer]}/{name.rsplit('/')[-1].removesuffix(':0')}": tensor
        for layer, tensors in layers.items()
        for name, tensor in tensors.items()
    }


def _renumbered(layers: list[str]) -> dict[str, str]:
    counted: dict[str, list[tuple[int, str]]] = {}
    names = {layer: layer for layer in layers}
    for layer in layers:
        if match := AUTOMATIC_NAME.fullmatch(layer):
            counted.setdefault(match[1], []).append((int(match[2] or 0), layer))
    for kind, members in counted.items():
        for index, (_, layer) in enumerate(sorted(members), start=1):
            names[layer] = f"{kind}_{index}"
    return names


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
