"""The transforms position by position in plain NumPy: slow, and written only from their equations.

`x` is `B T H W C`, `params` the layer's parameters by name. BatchNorm is in training mode, over the whole batch.
"""

import itertools

import numpy as np


def places(x):
    """All positions: clip, frame, row, column."""
    return itertools.product(*(range(length) for length in x.shape[:4]))


def window(x, place, kernel_size):
    """Entries of the window around a position, zero outside the feature map, and a mask of those inside it."""
    clip, *centre = place
    entries, inside = [], []
    for offset in itertools.product(*(range(-(size // 2), size // 2 + 1) for size in kernel_size)):
        at = [c + o for c, o in zip(centre, offset, strict=True)]
        there = all(0 <= a < length for a, length in zip(at, x.shape[1:4], strict=True))
        inside.append(there)
        entries.append(x[clip, at[0], at[1], at[2]] if there else np.zeros(x.shape[4:]))
    return np.array(entries), np.array(inside)


def softmax_over_entries(x):
    """Softmax over the first axis."""
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def batch_norm(x, params):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * params["scale"] + params["bias"]


def softmax_over_positions(x):
    return np.stack([softmax_over_entries(clip.reshape(-1, clip.shape[-1])).reshape(clip.shape) for clip in x])


def l2_normalize(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


def rsa(x, params, *, num_queries, kernel_size, kernel="V+R", context="V+R", normalization="l2", **_):
    """Eq. 11: y = (κ^V + κ^R)ᵀ (X^V + X^R), with H and P composed from their factors."""
    channels = x.shape[-1]
    width, norms = channels // num_queries, params.get("norms", {})
    projected = x @ params["projection"]["kernel"]
    query, key, value = projected[..., :channels], projected[..., channels : channels + width], projected[..., -width:]
    if normalization == "lambda":
        key = softmax_over_positions(key)
    query, key, value = (
        batch_norm(part, norms[name]) if name in norms else part
        for name, part in (("query", query), ("key", key), ("value", value))
    )
    query = query.reshape(*query.shape[:-1], num_queries, width)
    if normalization == "l2":
        query, key, value = l2_normalize(query), l2_normalize(key), l2_normalize(value)

    P, H = params.get("H2") if kernel == "V" else None, None
    if "R" in kernel:
        spread = params["H2"] if "H2" in params else np.eye(len(params["H1"]))
        H = np.einsum("mgd,nd->mgn", params["H1"], spread)
        if "V" in kernel:
            P = np.einsum("cd,md->mc", params["P1"], spread)
    y = np.zeros(x.shape)
    for n in places(x):
        keys, values = window(key, n, kernel_size)[0], window(value, n, kernel_size)[0]
        X = np.zeros(values.shape)
        if "V" in context:
            X += values @ params["I"] if "R" in context else values
        if "R" in context:
            X += values @ (values.T @ params["G"])
        for i, q in enumerate(query[n]):
            kappa = np.zeros(len(values))
            if P is not None:
                kappa += P @ q
            if H is not None:
                for m, k in enumerate(keys):
                    for g, product in enumerate(np.split(q * k, H.shape[1])):
                        kappa += H[m, g] * product.sum()
            y[n][i::num_queries] = kappa @ X
    return y


def factorized_rsa(x, params, *, kernel_size, **settings):
    """RSA over height and width, then over frames."""
    frames, height, width = kernel_size
    x = rsa(x, params["spatial"], kernel_size=(1, height, width), **settings)
    return rsa(x, params["temporal"], kernel_size=(frames, 1, 1), **settings)


def sinusoids(place):
    """Sines, then cosines, of wavelengths 4, 8, ..., 512 along each axis."""
    angles = [[2 * np.pi * p / 4 / 2**i for i in range(8)] for p in place]
    return np.array([np.concatenate([np.sin(a), np.cos(a)]) for a in angles])


def self_attention(x, params, *, num_heads, key_value, kernel_size, position, softmax=True):
    """y_n = Σ_m softmax_m(q_nᵀ (k_m + r_(m-n)) / √c) v_m over all positions in the window, or in the clip.

    Without softmax, the scaled products are the weights.
    """
    channels, width = x.shape[-1], x.shape[-1] // num_heads
    keys = num_heads if key_value == "per_head" else 1
    projected = x @ params["projection"]["kernel"]
    query, key, value = np.split(projected, [channels, channels + keys * width], axis=-1)
    if position == "absolute":
        for n in places(x):
            embedding = np.einsum("as,asc->c", sinusoids(n[1:]), params["embedding"])
            query[n] += embedding[:channels]
            key[n] += embedding[channels:]
    # A window of twice the feature map covers every position, and some outside it.
    seen = kernel_size or tuple(2 * length - 1 for length in x.shape[1:4])
    offsets = list(itertools.product(*(range(-(size // 2), size // 2 + 1) for size in seen)))
    y = np.zeros(x.shape)
    for n in places(x):
        (all_keys, inside), (all_values, _) = window(key, n, seen), window(value, n, seen)
        for head in range(num_heads):
            own = slice(head * width, (head + 1) * width)
            shared = own if keys > 1 else slice(width)
            k = all_keys[:, shared].copy()
            if position == "relative":
                for m, offset in enumerate(offsets):
                    r = params["embedding"][m] if kernel_size else None
                    r = np.einsum("as,askc->kc", sinusoids(offset), params["embedding"]) if r is None else r
                    k[m] += r[head if keys > 1 else 0]
            kappa = k[inside] @ query[n][own] / np.sqrt(width)
            if softmax:
                kappa = softmax_over_entries(kappa)
            y[n][own] = kappa @ all_values[inside][:, shared]
    return y


def involution(x, params, *, kernel_size, group_channels, reduction):
    """y[n, c] = Σ_m κ[n, m, g] x[n + m, c], κ = W1 relu(BatchNorm(W0 x)) + b."""
    hidden = np.maximum(batch_norm(x @ params["reduce"]["kernel"], params["norm"]), 0)
    kernels = hidden @ params["span"]["kernel"] + params["span"]["bias"]
    y = np.zeros(x.shape)
    for n in places(x):
        entries = window(x, n, kernel_size)[0]
        kappa = kernels[n].reshape(len(entries), -1)
        for c in range(x.shape[-1]):
            y[n][c] = kappa[:, c // group_channels] @ entries[:, c]
    return y


def lambda_layer(x, params, *, num_queries, key_channels, kernel_size):
    """y_n = (Σ_m softmax_m(k_m) v_mᵀ + Σ_m e_m v_(n+m)ᵀ)ᵀ q_n."""
    projected = x @ params["projection"]["kernel"]
    queries = num_queries * key_channels
    query, key, value = np.split(projected, [queries, queries + key_channels], axis=-1)
    query, value = batch_norm(query, params["query_norm"]), batch_norm(value, params["value_norm"])
    key = softmax_over_positions(key)
    y = np.zeros(x.shape)
    for n in places(x):
        matrix = np.zeros((key_channels, value.shape[-1]))
        for m in places(x[:1]):
            matrix += np.outer(key[n[0]][m[1:]], value[n[0]][m[1:]])
        for embedding, v in zip(params["E"], window(value, n, kernel_size)[0], strict=True):
            matrix += np.outer(embedding, v)
        y[n] = np.concatenate([matrix.T @ q for q in np.split(query[n], num_queries)])
    return y


def convolution(x, kernel):
    """y_n = Σ_m W_mᵀ x_(n+m), with a kernel of frames, height, width, inputs, outputs."""
    flat = kernel.reshape(-1, *kernel.shape[3:])
    y = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for n in places(x):
        y[n] = np.einsum("mc,mcd->d", window(x, n, kernel.shape[:3])[0], flat)
    return y


def conv3d(x, params):
    return convolution(x, params["kernel"])


def conv2plus1d(x, params):
    """1x3x3, BatchNorm, ReLU, 3x1x1."""
    middle = convolution(x, params["spatial"]["kernel"][None])
    return convolution(np.maximum(batch_norm(middle, params["norm"]), 0), params["temporal"]["kernel"])


def tsm(x, params):
    """One eighth of the channels from the next frame, one eighth from the previous one; then 1x3x3."""
    shifted, eighth = x.copy(), x.shape[-1] // 8
    for n in places(x):
        before, _, after = window(x, n, (3, 1, 1))[0]
        shifted[n][:eighth], shifted[n][eighth : 2 * eighth] = after[:eighth], before[eighth : 2 * eighth]
    return convolution(shifted, params["kernel"][None])
