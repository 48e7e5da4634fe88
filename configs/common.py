"""Every field of a run's configuration, with its default. A recipe changes a few of them."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def model_config() -> ConfigDict:
    """The network: TSN-ResNet with a transform in some of its blocks."""
    config = ConfigDict()
    # 18, 34 (basic blocks), 50 or 101 (bottlenecks).
    config.depth = 50
    # Blocks per stage; empty: those of `depth`. Fewer stages or blocks make a small network.
    config.stage_sizes = ()
    # Channels of the stem and of the first stage's bottleneck; they double with every stage.
    config.width = 64
    # First convolution: side of its kernel and stride; then a 3x3 max-pool of stride 2, or none.
    config.stem_kernel = 7
    config.stem_stride = 2
    config.stem_pool = True
    # Classes of the classifier; None: as many as the data set has.
    config.num_classes = placeholder(int)
    # What stands in the blocks of `positions` instead of the 1x3x3 convolution: "rsa", or one of its counterparts
    # "conv2d" (nothing new), "conv3d" (3x3x3), "conv2plus1d" (1x3x3 and 3x1x1), "tsm" (temporal shift, then 1x3x3),
    # "dynamic_conv" (RSA's basic kernel on its basic context), "self_attention", "involution", "lambda_layer" (of
    # LambdaNetworks).
    config.transform = "rsa"
    # Blocks that hold the transform, per stage, counted from 0.
    config.positions = ((2,), (1, 3), (1, 3, 5), (1,))
    config.rsa = ConfigDict()
    # Queries that share one key and one value; each has channels / num_queries channels.
    config.rsa.num_queries = 8
    # Window: frames, height, width; odd.
    config.rsa.kernel_size = (5, 7, 7)
    # D of the decompositions H = H1 H2' and P = H2 P1'; None: channels / num_queries.
    config.rsa.latent_dim = placeholder(int)
    # False: H and P as they are, for small windows.
    config.rsa.decomposed = True
    # G groups of channels, whose products of query and key are summed: 1 dot product; None: each channel by itself,
    # the Hadamard product.
    config.rsa.relation_groups = placeholder(int)
    # Kernel and context: "V" basic, "R" relational, "V+R" their sum.
    config.rsa.kernel = "V+R"
    config.rsa.context = "V+R"
    # Of query, key and value: "l2" over their channels, "batch" (BatchNorm), "lambda" (as LambdaNetworks: softmax of
    # the key over all positions, BatchNorm of query and value) or "none".
    config.rsa.normalization = "l2"
    # Two layers, one with the window's height and width, then one with its frames, in the place of one.
    config.rsa.factorized = False
    # For "dynamic_conv", `rsa` with kernel "V" and context "V"; for the others:
    config.self_attention = ConfigDict()
    config.self_attention.num_heads = 8
    # Keys and values: of each head its own, "per_head"; or one of each for all heads, "shared" (multi-query).
    config.self_attention.key_value = "per_head"
    # Window: frames, height, width; odd. (): all positions.
    config.self_attention.kernel_size = (5, 7, 7)
    # Embedding of positions: "none", "relative" (offset of key from query) or "absolute".
    config.self_attention.position = "relative"
    # Normalise the kernels by a softmax over the positions. False: the scaled products of query and key themselves.
    config.self_attention.softmax = True
    config.involution = ConfigDict()
    config.involution.kernel_size = (5, 7, 7)
    # Channels that share a kernel.
    config.involution.group_channels = 16
    # Kernels are made from channels / reduction.
    config.involution.reduction = 4
    config.lambda_layer = ConfigDict()
    # Queries that share one key and one value; a value has channels / num_queries channels.
    config.lambda_layer.num_queries = 8
    # Channels of a query and of the key.
    config.lambda_layer.key_channels = 16
    # Window of the part that knows positions.
    config.lambda_layer.kernel_size = (5, 7, 7)
    # Dropout before the classifier.
    config.dropout = 0.5
    # Share of clips that skip the last block in training; earlier blocks proportionally less.
    config.stochastic_depth = 0.0
    # Start every residual branch at zero, by the scale of its last BatchNorm. Without, small networks that start
    # from nothing learn sooner.
    config.zero_init = True
    # Clips that share BatchNorm statistics in training; 0: the whole batch. The published runs had 8 a GPU.
    config.batch_norm_clips = 0
    # Type of activations: "float32", "bfloat16", or with JAX_ENABLE_X64=1 "float64". Parameters and statistics
    # stay float32 (float64 with JAX_ENABLE_X64=1).
    config.dtype = "float32"
    # Recompute each block in the backward pass instead of keeping its activations.
    config.remat = False
    # How operations are computed: "xla" (plain JAX), "cpu", "tpu", and for RSA "gpu" (kernels; never timed),
    # "reference" (Eq. 11) or "conv" (Eq. 12 by grouped convolutions). None: what suits the platform.
    config.implementation = placeholder(str)
    return config


def data_config() -> ConfigDict:
    """The data set, and how clips are drawn from it."""
    config = ConfigDict()
    # A builder of rsa_jax.data ("motion", "video_folder/my_videos", ...).
    config.name = placeholder(str)
    # Where prepared data sets lie.
    config.data_dir = "~/tensorflow_datasets"
    config.train_split = "train"
    config.eval_split = "validation"
    # Frames of a clip: one from each of as many equal segments of the video.
    config.num_frames = 8
    # How frames are chosen. "whole": from equal segments of the whole video. "published": from segments of
    # floor(stored frames / num_frames) frames, so that training never sees the end of most videos; and evaluation
    # shows the first frame of a video with no more than num_frames frames, num_frames times.
    config.sampling = "whole"
    # Side of the square that the network sees, in pixels.
    config.image_size = 224
    # Training crops: sides relative to the short side of the stored frames ...
    config.crop_scales = (1.0, 0.875, 0.75, 0.66)
    # ... where height and width may lie this many entries of that list apart.
    config.crop_distortion = 1
    # Mirror half of the training clips.
    config.flip = True
    # Clips of classes that the mirror turns into others: "skip", never mirrored (published); or "swap", mirrored
    # like any other, with the class of their mirror image for a label (never where there is no such class).
    config.directional = "skip"
    # Evaluation crop, in the centre: its side relative to the short side. 224 of 240 pixels.
    config.eval_crop = 224 / 240
    # Batches prepared ahead.
    config.prefetch = 2
    return config


def optimizer_config() -> ConfigDict:
    """Stochastic gradient descent as published."""
    config = ConfigDict()
    config.learning_rate = 0.02
    # Learning rate and batch that the recipe was made with. A run with others logs how they compare.
    config.recipe_learning_rate = 0.02
    config.recipe_batch_size = 64
    config.warmup_epochs = 5
    # Warm-up starts at, and the cosine ends at, this share of `learning_rate`.
    config.final_ratio = 1e-3
    # The learning rate changes once per "epoch" (published) or with every "step".
    config.schedule = "epoch"
    config.momentum = 0.9
    config.nesterov = True
    # Not on BatchNorm and biases.
    config.weight_decay = 5e-4
    # Largest norm of the gradient; a larger one is scaled down to it.
    config.gradient_clip = 100.0
    # Begin every epoch but the first with a step without a gradient at `learning_rate`, as the published code does:
    # weight decay and momentum alone move the parameters.
    config.restart_step = False
    # The batch is computed in this many equal parts, one after the other, to save memory.
    config.accumulation = 1
    return config


def get_published_config() -> ConfigDict:
    """Settings of the published runs, without a data set, to repeat them as they were."""
    config = get_config()
    config.init_from = "required"  # ImageNet weights
    config.matmul_precision = "float32"  # their GPUs had no other
    config.model.batch_norm_clips = 8
    config.data.sampling = "published"
    config.optimizer.restart_step = True
    return config


def get_config() -> ConfigDict:
    """Defaults: the published optimizer and schedule, from random weights, without a data set."""
    config = ConfigDict()
    # Of the initial weights, the order of clips, and every random choice.
    config.seed = 0
    # Clips per step, over all devices and hosts.
    config.batch_size = 64
    config.epochs = 50
    config.label_smoothing = 0.0
    # Initial weights. A file (.safetensors, .npz, .pth, .pth.tar): a ResNet of torchvision, a network of the published
    # code, or what rsa_jax.tools.convert wrote. Or the workdir of a run: its best checkpoint. "none": random ones.
    # "required": the run does not start before this field is set.
    config.init_from = "none"
    # Precision of float32 matrix products and convolutions: "default", the device's fastest (TensorFloat-32 on NVIDIA
    # GPUs since Ampere, bfloat16 on TPUs); "tensorfloat32", that or better; "float32", true float32.
    config.matmul_precision = "default"
    config.model = model_config()
    config.data = data_config()
    config.optimizer = optimizer_config()

    config.eval = ConfigDict()
    # Clips per batch; rounded up to a multiple of the devices.
    config.eval.batch_size = 64
    # Epochs between evaluations; the last epoch always ends with one.
    config.eval.every_epochs = 1
    # With --mode eval: "best" (validation top-1), "latest", or a step.
    config.eval.checkpoint = "best"
    # With --mode eval, the scores of several views of each video are averaged: clips, which differ in their frames ...
    config.eval.num_clips = 1
    # ... times crops of data.eval_crop: 1, in the centre, or 3, at start, centre and end of the frames' long side.
    # Validation during training takes one clip and its centre.
    config.eval.num_crops = 1
    # What is averaged: "probabilities" (published) or "logits".
    config.eval.average = "probabilities"

    config.log = ConfigDict()
    # Steps between two lines of metrics.jsonl and TensorBoard.
    config.log.every_steps = 20

    config.checkpoint = ConfigDict()
    # Steps between checkpoints, besides the one at the end of every epoch that evaluates.
    config.checkpoint.every_steps = 1000
    # Latest and best checkpoints to keep.
    config.checkpoint.keep_latest = 1
    config.checkpoint.keep_best = 1
    return config
