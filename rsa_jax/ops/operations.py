"""Operations that layers are made of. The implementations of an operation differ only in speed and memory.

`implementation` is a name from `choice.IMPLEMENTATIONS`, or None for the one that suits the platform the program is
compiled for. An operation without an implementation of that name uses "xla". "xla", "conv" and "reference" are
differentiable in forward and reverse mode; "cpu", "gpu", "tpu" and None in reverse mode only.
"""

from jaxtyping import Array, Float

from rsa_jax.ops import conv, cpu, gpu, reference, tpu, xla
from rsa_jax.ops.choice import Table, run
from rsa_jax.ops.equations import FeatureMap, Queries, RSAWeights
from rsa_jax.ops.windows import KernelSize


def rsa(
    query: Queries,
    key: FeatureMap,
    value: FeatureMap,
    weights: RSAWeights,
    *,
    kernel_size: KernelSize,
    implementation: str | None = None,
) -> Queries:
    """Relational self-attention: y = (κ^V + κ^R)ᵀ (X^V + X^R) (Eq. 11 and 12) at every position of a feature map."""
    table: Table = {
        "reference": reference.rsa,
        "conv": conv.rsa,
        "xla": xla.rsa,
        "cpu": cpu.rsa,
        "gpu": gpu.rsa,
        "tpu": tpu.rsa,
    }
    return run(table, implementation, query, key, value, weights, kernel_size=kernel_size)


def window_sums(
    x: Float[Array, "B T H W C"],
    weights: Float[Array, " M #C E"],
    *,
    kernel_size: KernelSize,
    implementation: str | None = None,
) -> Float[Array, "B T H W C E"]:
    """Σ_m x[n + m, c] weights[m, c, e] over the window's positions m, with zeros outside the feature map."""
    table: Table = {"conv": conv.window_sums, "xla": xla.window_sums, "cpu": cpu.window_sums}
    return run(table, implementation, x, weights, kernel_size=kernel_size)


def products(
    rows: Float[Array, "*N L C"], matrix: Float[Array, "*N C D"], *, implementation: str | None = None
) -> Float[Array, "*N L D"]:
    """Product of small matrices at each position."""
    return run({"xla": xla.products, "cpu": cpu.products}, implementation, rows, matrix)


def apply_kernels(
    kernels: Float[Array, "M B T H W G"],
    values: Float[Array, "B T H W G c"],
    *,
    kernel_size: KernelSize,
    implementation: str | None = None,
) -> Float[Array, "B T H W G c"]:
    """Σ_m kernels[m, n] values[n + m], with a kernel for each position n; summed in float32 or better."""
    table: Table = {"xla": xla.apply_kernels, "cpu": cpu.apply_kernels}
    return run(table, implementation, kernels, values, kernel_size=kernel_size)


def attend_in_window(
    query: Float[Array, "B T H W L c"],
    key: Float[Array, "B T H W #L c"],
    value: Float[Array, "B T H W #L c"],
    offsets: Float[Array, " M #L c"] | None,
    *,
    kernel_size: KernelSize,
    softmax: bool,
    implementation: str | None = None,
) -> Float[Array, "B T H W L c"]:
    """Σ_m softmax_m(q_nᵀ (k_(n+m) + r_m)) v_(n+m) over the window's positions within the feature map.

    Args:
        query: divided by √c.
        key: keys of all positions.
        value: values of all positions.
        offsets: r; None for 0.
        kernel_size: size of the window.
        softmax: False for Σ_m q_nᵀ (k_(n+m) + r_m) v_(n+m).
        implementation: see the module.
    """
    table: Table = {"xla": xla.attend_in_window, "cpu": cpu.attend_in_window}
    return run(table, implementation, query, key, value, offsets, kernel_size=kernel_size, softmax=softmax)


def attend(
    query: Float[Array, "B T H W L c"],
    key: Float[Array, "B T H W #L c"],
    value: Float[Array, "B T H W #L c"],
    embedding: Float[Array, "3 S #L c"] | None,
    *,
    softmax: bool,
    implementation: str | None = None,
) -> Float[Array, "B T H W L c"]:
    """Σ_m softmax_m(q_nᵀ (k_m + R s(m - n))) v_m over all positions.

    Args:
        query: divided by √c.
        key: keys of all positions.
        value: values of all positions.
        embedding: R; None for 0. See `sinusoids` for s.
        softmax: False for Σ_m q_nᵀ (k_m + R s(m - n)) v_m.
        implementation: see the module.
    """
    table: Table = {"xla": xla.attend, "cpu": cpu.attend}
    return run(table, implementation, query, key, value, embedding, softmax=softmax)


def l2_normalize(x: Float[Array, "B T H W *L C"], *, implementation: str | None = None) -> Float[Array, "B T H W *L C"]:
    """x / sqrt(Σ x² + 1e-6) over the channels; the sum is taken in float32 or better."""
    table: Table = {"xla": xla.l2_normalize, "cpu": cpu.l2_normalize, "tpu": tpu.l2_normalize}
    return run(table, implementation, x)


def linear(
    x: Float[Array, "*N C"], kernel: Float[Array, "C D"], *, implementation: str | None = None
) -> Float[Array, "*N D"]:
    """Matrix product at every position."""
    return run({"xla": xla.linear, "cpu": cpu.linear}, implementation, x, kernel)


def convolve(
    x: Float[Array, "B T H W C"],
    kernel: Float[Array, "t k k C D"],
    *,
    stride: int = 1,
    implementation: str | None = None,
) -> Float[Array, "B T h w D"]:
    """Convolution with odd kernel sizes, padded by half of each; h = ceil(H / stride), w = ceil(W / stride)."""
    return run({"xla": xla.convolve, "cpu": cpu.convolve}, implementation, x, kernel, stride=stride)


def normalize_batch(
    x: Float[Array, "B T H W C"],
    scale: Float[Array, " C"],
    bias: Float[Array, " C"],
    near: Float[Array, " C"],
    *,
    groups: int,
    epsilon: float,
    implementation: str | None = None,
) -> tuple[Float[Array, "B T H W C"], Float[Array, "G C"], Float[Array, "G C"]]:
    """Normalise by the mean and the (biased) variance of each group of clips; also return both statistics.

    The statistics are only for running averages: the implementation "cpu" passes no gradient through them.

    Args:
        x: a feature map.
        scale: factor of the normalised values.
        bias: offset of the scaled values.
        near: an estimate of the mean, such as the running mean. It only limits rounding errors, and has no gradient.
        groups: number of equal groups in the batch.
        epsilon: added to the variance.
        implementation: see the module.
    """
    table: Table = {"xla": xla.normalize_batch, "cpu": cpu.normalize_batch}
    return run(table, implementation, x, scale, bias, near, groups=groups, epsilon=epsilon)


def max_pool(x: Float[Array, "B T H W C"], *, implementation: str | None = None) -> Float[Array, "B T h w C"]:
    """1 x 3 x 3 max pooling with stride 2, padded by 1 on both sides. The first of equal maxima gets the gradient."""
    return run({"xla": xla.max_pool, "cpu": cpu.max_pool}, implementation, x)
