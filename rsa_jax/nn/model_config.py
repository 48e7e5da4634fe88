"""Settings of the network with their defaults."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def model_config() -> ConfigDict:
    """Configuration of the network: TSN-ResNet with a transform in some of its blocks."""
    config = ConfigDict()
    # 18, 34 (basic blocks), 50 or 101 (bottlenecks).
    config.depth = 50
    # Blocks per stage; empty: the usual numbers for `depth`. Fewer stages or blocks make a small network.
    config.stage_sizes = ()
    # Channels of the stem and of the first stage's bottleneck; doubled in every later stage.
    config.width = 64
    # Stem: kernel size and stride of its convolution, and whether a 3x3 max-pool of stride 2 follows.
    config.stem_kernel = 7
    config.stem_stride = 2
    config.stem_pool = True
    # Number of classes; None: that of the data set.
    config.num_classes = placeholder(int)
    # Transform that replaces the 1x3x3 convolution in the blocks of `transform_blocks`: "rsa", or one of the baselines
    # "conv2d" (TSN: keeps the 1x3x3 convolution), "conv3d" (3x3x3), "conv2plus1d" (1x3x3, then 3x1x1), "tsm" (temporal
    # shift, then 1x3x3), "dynamic_conv" (RSA's basic kernel on its basic context), "self_attention", "involution",
    # "lambda_layer" (LambdaNetworks).
    config.transform = "rsa"
    # Indices of the blocks with the transform, per stage, counted from 0.
    config.transform_blocks = ((2,), (1, 3), (1, 3, 5), (1,))
    # Settings of the transforms that have any. "dynamic_conv" uses those of `rsa`, with kernel and context "V".
    config.rsa = _rsa_config()
    config.self_attention = _self_attention_config()
    config.involution = _involution_config()
    config.lambda_layer = _lambda_layer_config()
    # Dropout rate before the classifier.
    config.dropout = 0.5
    # Stochastic depth: fraction of clips that skip the last block in training; it falls linearly for earlier blocks.
    config.stochastic_depth = 0.0
    # Initialise the scale of each residual branch's last BatchNorm to zero. Without it, small networks trained from
    # scratch learn sooner.
    config.zero_init = True
    # Ghost batch size: clips that share BatchNorm statistics in training; 0: the whole batch. The published runs had 8
    # clips per GPU.
    config.batch_norm_clips = 0
    # Dtype of activations: "float32", "bfloat16", or "float64" with JAX_ENABLE_X64=1. Parameters and statistics
    # stay float32 (float64 with JAX_ENABLE_X64=1).
    config.dtype = "float32"
    # Recompute each block in the backward pass instead of keeping its activations.
    config.remat = False
    # Implementation of the operations: "xla" (plain JAX), "cpu", "tpu", and for RSA "gpu" (kernels; never timed),
    # "reference" (Eq. 11) or "conv" (Eq. 12 by grouped convolutions). None: chosen by platform.
    config.implementation = placeholder(str)
    return config


def _rsa_config() -> ConfigDict:
    """Settings of RSA."""
    config = ConfigDict()
    # Number of queries that share one key and one value; each has channels / num_queries channels.
    config.num_queries = 8
    # Window: frames, height, width; all odd.
    config.kernel_size = (5, 7, 7)
    # Latent dimension D of the decompositions H = H1 H2' and P = H2 P1'; None: channels / num_queries.
    config.latent_dim = placeholder(int)
    # Decompose H and P. False: use them in full, for small windows.
    config.decomposed = True
    # Number of channel groups G; products of query and key are summed within each group. 1: the dot product; None: one
    # group per channel, the Hadamard product.
    config.relation_groups = placeholder(int)
    # Kernel and context: "V" (basic), "R" (relational) or "V+R" (their sum).
    config.kernel = "V+R"
    config.context = "V+R"
    # Normalisation of query, key and value: "l2" over their channels, "batch" (BatchNorm), "lambda" (LambdaNetworks:
    # softmax of the key over all positions, BatchNorm of query and value) or "none".
    config.normalization = "l2"
    # Factorise the layer: one with the window's height and width, then one with its frames.
    config.factorized = False
    return config


def _self_attention_config() -> ConfigDict:
    """Settings of self-attention."""
    config = ConfigDict()
    # Number of heads; each has channels / num_heads channels.
    config.num_heads = 8
    # Keys and values: "per_head" (separate for each head) or "shared" (one of each for all heads: multi-query).
    config.key_value = "per_head"
    # Window: frames, height, width; all odd. (): all positions.
    config.kernel_size = (5, 7, 7)
    # Position embedding: "none", "relative" (offset of key from query) or "absolute".
    config.position = "relative"
    # Normalise the kernels by a softmax over the positions. False: use the scaled query-key products directly.
    config.softmax = True
    return config


def _involution_config() -> ConfigDict:
    """Settings of involution."""
    config = ConfigDict()
    # Window: frames, height, width; all odd.
    config.kernel_size = (5, 7, 7)
    # Channels that share a kernel.
    config.group_channels = 16
    # Kernels are generated from channels / reduction channels.
    config.reduction = 4
    return config


def _lambda_layer_config() -> ConfigDict:
    """Settings of the lambda layer."""
    config = ConfigDict()
    # Number of queries that share one key and one value; a value has channels / num_queries channels.
    config.num_queries = 8
    # Channels of a query and of the key.
    config.key_channels = 16
    # Window of the position lambda: frames, height, width; all odd.
    config.kernel_size = (5, 7, 7)
    return config
