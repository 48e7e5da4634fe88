"""All configuration fields with their defaults and valid values; `rsa_jax.nn.model_config` has those of the network."""

import functools
import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from rsa_jax.evaluation.scores import AVERAGES
from rsa_jax.input_pipeline.sampling import SAMPLINGS
from rsa_jax.nn.model_config import model_config
from rsa_jax.precision import PRECISIONS


def data_config() -> ConfigDict:
    """Configuration of the data set and of how clips are drawn from it."""
    config = ConfigDict()
    # Name of a data set ("motion", "video_folder/my_videos", ...).
    config.name = placeholder(str)
    # Directory of the prepared data sets.
    config.data_dir = "~/tensorflow_datasets"
    config.train_split = "train"
    config.eval_split = "validation"
    # Frames per clip: one from each of `num_frames` equal segments of the video.
    config.num_frames = 8
    # Frame sampling. "whole": from equal segments of the whole video. "published": from segments of
    # floor(stored frames / num_frames) frames. Training then never sees the end of most videos, and evaluation repeats
    # the first frame num_frames times if a video has at most num_frames frames.
    config.sampling = "whole"
    # Side of the square network input, in pixels.
    config.image_size = 224
    # Training crops: sides relative to the short side of the stored frames.
    config.crop_scales = (1.0, 0.875, 0.75, 0.66)
    # Largest distance between the entries of `crop_scales` for height and width.
    config.crop_distortion = 1
    # Flip half of the training clips horizontally.
    config.flip = True
    # Clips of classes that a flip turns into others: "skip", never flipped (published); or "swap", flipped like any
    # other and labelled with the class of the flipped clip (never flipped where there is no such class).
    config.flip_policy = "skip"
    # Evaluation crop, in the centre: side relative to the short side, 224 of 240 pixels.
    config.eval_crop = 224 / 240
    # Number of batches to prefetch.
    config.prefetch = 2
    return config


def optimizer_config() -> ConfigDict:
    """Configuration of the optimizer: stochastic gradient descent as published."""
    config = ConfigDict()
    config.learning_rate = 0.02
    # Learning rate and batch size of the recipe. A run with other values logs how they compare.
    config.recipe_learning_rate = 0.02
    config.recipe_batch_size = 64
    config.warmup_epochs = 5
    # Warm-up starts and the cosine ends at this fraction of `learning_rate`.
    config.final_ratio = 1e-3
    # The learning rate changes with every "epoch" (published) or every "step".
    config.schedule = "epoch"
    config.momentum = 0.9
    config.nesterov = True
    # Not applied to BatchNorm and biases.
    config.weight_decay = 5e-4
    # Maximum gradient norm; larger gradients are scaled down to it.
    config.gradient_clip = 100.0
    # Begin every epoch but the first with a zero-gradient step at `learning_rate`, as the published code does: only
    # weight decay and momentum move the parameters.
    config.restart_step = False
    # Gradient accumulation: number of equal, sequential chunks of the batch, to save memory.
    config.accumulation = 1
    return config


def eval_config() -> ConfigDict:
    """Configuration of evaluation."""
    config = ConfigDict()
    # Clips per batch; rounded up to a multiple of the number of devices.
    config.batch_size = 64
    # Epochs between evaluations; the last epoch is always evaluated.
    config.every_epochs = 1
    # Checkpoint for --mode eval: "best" (by validation top-1), "latest", or a step.
    config.checkpoint = "best"
    # --mode eval averages the scores over views = clips x crops of each video. Clips differ in their frames.
    config.num_clips = 1
    # Crops of data.eval_crop: 1, in the centre, or 3, at start, centre and end of the frames' long side. Validation
    # during training uses the centre crop of one clip.
    config.num_crops = 1
    # Scores to average: "probabilities" (published) or "logits".
    config.average = "probabilities"
    return config


def default_config() -> ConfigDict:
    """All fields at their defaults: the published optimizer and schedule, random initial weights, no data set."""
    config = ConfigDict()
    # Seed of the initial weights, the order of clips and every random choice.
    config.seed = 0
    # Clips per step, across all devices and hosts.
    config.batch_size = 64
    config.epochs = 50
    config.label_smoothing = 0.0
    # Initial weights. A file (.safetensors, .npz, .pth, .pth.tar): a torchvision ResNet, a network of the published
    # code, or output of rsa-jax convert. The workdir of a run: its best checkpoint. "none": random weights.
    # "required": the run does not start until this field is set.
    config.init_from = "none"
    # Precision of float32 matrix products and convolutions: "default", the device's fastest (TensorFloat-32 on NVIDIA
    # GPUs since Ampere, bfloat16 on TPUs); "tensorfloat32", at least that; "float32", true float32.
    config.matmul_precision = "default"
    config.model = model_config()
    config.data = data_config()
    config.optimizer = optimizer_config()
    config.eval = eval_config()

    config.log = ConfigDict()
    # Steps between entries of metrics.jsonl and TensorBoard.
    config.log.every_steps = 20

    config.checkpoint = ConfigDict()
    # Steps between checkpoints, in addition to the one after every evaluation.
    config.checkpoint.every_steps = 1000
    # Numbers of latest and best checkpoints to keep.
    config.checkpoint.keep_latest = 1
    config.checkpoint.keep_best = 1
    return config


# Valid values of the numeric fields; those of a transform are checked by its layer. For a tuple: of its elements.
RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "at least 1",
        lambda x: 1 <= x < math.inf,
        (
            *("batch_size", "epochs", "optimizer.accumulation", "optimizer.recipe_batch_size"),
            *("data.num_frames", "data.image_size", "eval.batch_size", "eval.every_epochs", "eval.num_clips"),
            *("log.every_steps", "checkpoint.every_steps", "checkpoint.keep_latest"),
            *("model.width", "model.stem_kernel", "model.stem_stride", "model.num_classes"),
        ),
    ),
    (
        "at least 0",
        lambda x: 0 <= x < math.inf,
        (
            *("data.crop_distortion", "data.prefetch", "checkpoint.keep_best", "model.batch_norm_clips"),
            *("optimizer.learning_rate", "optimizer.warmup_epochs", "optimizer.weight_decay"),
        ),
    ),
    ("0 to 4294967295", lambda x: 0 <= x < 2**32, ("seed",)),
    (
        "at least 0 and below 1",
        lambda x: 0 <= x < 1,
        ("label_smoothing", "model.dropout", "model.stochastic_depth", "optimizer.momentum"),
    ),
    ("0 to 1", lambda x: 0 <= x <= 1, ("optimizer.final_ratio",)),
    ("above 0 and at most 1", lambda x: 0 < x <= 1, ("data.eval_crop", "data.crop_scales")),
    ("above 0", lambda x: 0 < x < math.inf, ("optimizer.gradient_clip", "optimizer.recipe_learning_rate")),
)

# Numeric fields that may be None.
OPTIONAL = ("model.num_classes",)

# Valid values of the other fields, as far as the code that reads them does not check them.
CHOICES: dict[str, tuple[Any, ...]] = {
    "data.sampling": SAMPLINGS,
    "data.flip_policy": ("skip", "swap"),
    "optimizer.schedule": ("epoch", "step"),
    "eval.num_crops": (1, 3),
    "eval.average": AVERAGES,
    "matmul_precision": tuple(PRECISIONS),
}


def check_config(config: ConfigDict) -> None:
    """Checks the values of all fields that have a range or a list of choices.

    Raises:
        ValueError: a value is invalid; the message names the field, what was expected and what came.
    """
    for expected, is_valid, names in RANGES:
        for name in names:
            value = _get(config, name)
            values = value if isinstance(value, tuple | list) else (value,)
            optional = value is None and name in OPTIONAL
            if not optional and not (values and all(_is_number(one) and is_valid(one) for one in values)):
                raise ValueError(f"{name}: expected {expected}, got {value}")
    for name, choices in CHOICES.items():
        if (value := _get(config, name)) not in choices:
            raise ValueError(f"{name}: expected one of {choices}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _get(config: ConfigDict, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)
