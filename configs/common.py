"""All configuration fields with their defaults; rsa_jax/nn/settings.py has those of the network. Recipes set a few."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from rsa_jax.nn.settings import model_config


def data_config() -> ConfigDict:
    """Configuration of the data set and of how clips are drawn from it."""
    config = ConfigDict()
    # Name of a builder in rsa_jax.preparation ("motion", "video_folder/my_videos", ...).
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
    config.flip_pairs = "skip"
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


def get_published_config() -> ConfigDict:
    """Settings that repeat the published runs, without a data set."""
    config = get_config()
    config.init_from = "required"  # ImageNet weights
    config.matmul_precision = "float32"  # the only precision of their GPUs
    config.model.batch_norm_clips = 8
    config.data.sampling = "published"
    config.optimizer.restart_step = True
    return config


def get_config() -> ConfigDict:
    """Default settings: the published optimizer and schedule, random initial weights, no data set."""
    config = ConfigDict()
    # Seed of the initial weights, the order of clips and every random choice.
    config.seed = 0
    # Clips per step, across all devices and hosts.
    config.batch_size = 64
    config.epochs = 50
    config.label_smoothing = 0.0
    # Initial weights. A file (.safetensors, .npz, .pth, .pth.tar): a torchvision ResNet, a network of the published
    # code, or output of rsa_jax.tools.convert. The workdir of a run: its best checkpoint. "none": random weights.
    # "required": the run does not start until this field is set.
    config.init_from = "none"
    # Precision of float32 matrix products and convolutions: "default", the device's fastest (TensorFloat-32 on NVIDIA
    # GPUs since Ampere, bfloat16 on TPUs); "tensorfloat32", at least that; "float32", true float32.
    config.matmul_precision = "default"
    config.model = model_config()
    config.data = data_config()
    config.optimizer = optimizer_config()

    config.eval = ConfigDict()
    # Clips per batch; rounded up to a multiple of the number of devices.
    config.eval.batch_size = 64
    # Epochs between evaluations; the last epoch is always evaluated.
    config.eval.every_epochs = 1
    # Checkpoint for --mode eval: "best" (by validation top-1), "latest", or a step.
    config.eval.checkpoint = "best"
    # --mode eval averages the scores over views = clips x crops of each video. Clips differ in their frames.
    config.eval.num_clips = 1
    # Crops of data.eval_crop: 1, in the centre, or 3, at start, centre and end of the frames' long side. Validation
    # during training uses the centre crop of one clip.
    config.eval.num_crops = 1
    # Scores to average: "probabilities" (published) or "logits".
    config.eval.average = "probabilities"

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
