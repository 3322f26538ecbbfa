"""The peers of benchmarks/grey_matter.py: the published ways."""

import tempfile
from typing import Any

import keras
import nibabel as nib
import numpy as np
import tensorflow as tf
from grey_matter_sides import Setting, give_weights, made_up, resident_bytes, volume
from nibabel.processing import resample_from_to
from numpy.typing import NDArray

from spine_tasks.configs import GmSegmentation
from spine_tasks.data.slices import Mask
from spine_tasks.tasks.gm import dice_loss
from spine_tasks.tasks.gm_augment import COPIES
from spine_tasks.tasks.gm_segment import BATCH, segment


def published_network(config: GmSegmentation) -> keras.Model:
    """Of Keras's own layers; convolutions have the names that they have in the official files."""
    layers = keras.layers
    index = iter(range(1, 17))

    def finished(x: Any) -> Any:
        x = layers.BatchNormalization(momentum=0.1, name=f"batch_normalization_{next(index)}")(x)
        return layers.Dropout(config.dropout)(x)

    def conv(x: Any, name: str, channels: int = 0, side: int = 3, rate: int = 1) -> Any:
        details = {"dilation_rate": rate, "padding": "same", "activation": "relu", "name": name}
        return finished(layers.Conv2D(channels or config.filters, side, **details)(x))

    slices = keras.Input((config.image_px, config.image_px, 1))
    first = conv(conv(slices, "conv2d_1"), "conv2d_2")
    shared = conv(conv(first, "rate2_1", rate=2), "rate2_2", rate=2)
    branches = [conv(conv(shared, "branch1x1_1"), "branch1x1_2", side=1)]
    for rate in (6, 12, 18, 24):
        once = conv(shared, f"rate{rate}_1", rate=rate)
        branches.append(conv(once, f"rate{rate}_2", rate=rate))
    mean = layers.GlobalAveragePooling2D(keepdims=True)(first)
    branches.insert(4, layers.UpSampling2D(config.image_px)(mean))
    narrowed = conv(finished(layers.Concatenate()(branches)), "amort", channels=64, side=1)
    answer = layers.Conv2D(1, 1, activation="sigmoid", name="predictions")(narrowed)
    return keras.Model(slices, answer)


class KerasTraining:
    """`compile` and `fit`."""

    def __init__(self, setting: Setting) -> None:
        use_threads(setting)
        self.config = setting.config
        self.model = published_network(self.config)
        self.model.compile(keras.optimizers.Adam(self.config.learning_rate), dice_loss)

    def train(self, steps: int) -> None:
        """An epoch of arrays in memory."""
        size = self.config.batch_size
        part = made_up(steps * size, self.config.image_px)
        self.model.fit(part.images[..., None], part.masks[..., None], size, verbose=0)

    def parameters(self) -> int:
        """Of the network."""
        return int(self.model.count_params())


class KerasPrediction:
    """The published steps around `predict`, with the numbers of the Spinal Cord Toolbox."""

    def __init__(self, setting: Setting) -> None:
        use_threads(setting)
        self.setting, self.config = setting, setting.config
        self.model = published_network(self.config)
        give_weights(self.model, setting)
        self.image = volume(setting, 1)

    def take(self, slices: int) -> None:
        """Hold the image that is to be segmented."""
        self.image = volume(self.setting, slices)

    def segment(self) -> Mask:
        """From the image to its mask."""
        image, size = self.image, self.config.image_px
        shape, spacing = np.array(image.shape), np.array(image.header.get_zooms())
        wanted = np.array([self.config.spacing_mm, self.config.spacing_mm, spacing[2]])
        fine = np.round(shape * spacing / wanted).astype(int)
        affine = image.affine @ np.diag([*(shape / fine), 1])
        resampled = resample_from_to(image, (fine, affine), order=1, mode="nearest")
        x, y = (side // 2 - size // 2 for side in fine[:2])
        crop = np.moveaxis(resampled.get_fdata()[x : x + size, y : y + size], 2, 0)
        crop = (crop - crop.mean()) / crop.std()
        answer = self.model.predict(crop[..., None], batch_size=BATCH, verbose=0)
        inside = np.zeros(fine)
        inside[x : x + size, y : y + size] = np.moveaxis(
            answer[..., 0] > self.config.threshold, 0, 2
        )
        mask = nib.Nifti1Image(inside, affine)
        found: Mask = resample_from_to(mask, image, order=1, mode="nearest").get_fdata() > 0.5
        return found


class OnnxPrediction:
    """Our steps around the published network in onnxruntime, as tf2onnx translates it."""

    def __init__(self, setting: Setting) -> None:
        import onnxruntime  # a package of the benchmarks alone, as the next
        import tf2onnx

        use_threads(setting)
        self.setting, self.config = setting, setting.config
        model = published_network(self.config)
        give_weights(model, setting)
        size = self.config.image_px
        signature = [tf.TensorSpec((None, size, size, 1), tf.float32, name="slices")]
        call = tf.function(lambda x: model(x, training=False), input_signature=signature)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            tf2onnx.convert.from_function(call, signature, opset=17, output_path=file.name)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.config.threads
            place = ["CUDAExecutionProvider"] if setting.gpu else []
            self.session = onnxruntime.InferenceSession(
                file.name, options, providers=[*place, "CPUExecutionProvider"]
            )
        self.image = volume(setting, 1)

    take = KerasPrediction.take

    def predict_on_batch(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of slices."""
        answer: NDArray[np.float32] = self.session.run(None, {"slices": x})[0]
        return answer

    def segment(self) -> Mask:
        """From the image to its mask."""
        return segment(self, self.image, threshold=self.config.threshold)


class Copies:
    """Every slice and 16 augmented copies of it, kept as float32."""

    def __init__(self, setting: Setting) -> None:
        self.px = setting.config.image_px

    def keep(self, slices: int) -> int:
        """Bytes that they add to this process."""
        before = resident_bytes()
        self.images, self.masks = (
            np.ones((COPIES * slices, self.px, self.px), np.float32) for _ in range(2)
        )
        return resident_bytes() - before


def use_threads(setting: Setting) -> None:
    """As many as ours; all else as TensorFlow has it."""
    tf.config.threading.set_intra_op_parallelism_threads(setting.config.threads)
    tf.config.threading.set_inter_op_parallelism_threads(setting.config.threads)
