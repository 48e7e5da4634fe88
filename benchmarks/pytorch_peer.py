"""PyTorch baseline: the published layer and network reimplemented, with the names of the released checkpoints.

Feature maps are B C T H W. The network computes the same function as the published one:
tests/weights/test_pytorch.py checks it against golden values.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

STAGE_SIZES = (3, 4, 6, 3)
POSITIONS = ((2,), (1, 3), (1, 3, 5), (1,))


def device(platform: str) -> torch.device:
    """PyTorch device for JAX's platform; on a GPU, convolution algorithms are autotuned.

    Raises:
        RuntimeError: If JAX has a GPU but this PyTorch has none.
    """
    if platform != "gpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("JAX computes on a GPU, but this PyTorch sees none: install its CUDA build")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TensorFloat-32, as in JAX
    return torch.device("cuda")


def in_type(function: Callable[..., Any], dtype: str, on: torch.device, *, compiled: bool) -> Callable[..., Any]:
    """The function with its products autocast to `dtype`, and compiled if `compiled`."""
    if compiled:
        function = torch.compile(function, mode="max-autotune-no-cudagraphs")

    def run(*arguments: Any) -> Any:
        with torch.autocast(on.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            return function(*arguments)

    return run


def finish(on: torch.device) -> None:
    """Waits until the device has finished its work."""
    if on.type == "cuda":
        torch.cuda.synchronize()


def l2_normalize(x: torch.Tensor) -> torch.Tensor:
    """x / sqrt(Σ x² + 1e-6) over the channels."""
    return x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt()


class RSA(nn.Module):
    """Eq. 12 with window convolutions, its factors multiplied in the cheap order."""

    def __init__(self, channels: int, queries: int = 8, window: tuple[int, int, int] = (5, 7, 7)):
        super().__init__()
        self.queries, width = queries, channels // queries
        padding = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.projection = nn.Conv3d(channels, channels + 2 * width, 1, bias=False)
        self.H1 = nn.Conv3d(width, width * width, window, padding=padding, groups=width, bias=False)
        self.H2 = nn.Conv3d(1, width, window, padding=padding, bias=False)
        self.G = nn.Conv3d(1, width, window, padding=padding, bias=False)
        self.P1 = nn.Parameter(torch.zeros(1, width, width))
        self.I = nn.Parameter(torch.eye(width)[None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transforms a feature map."""
        batch, channels, *size = x.shape
        queries, width = self.queries, channels // self.queries
        query, key, value = self.projection(x).split([channels, width, width], 1)
        query = l2_normalize(query.reshape(batch * queries, width, *size)).reshape(batch, queries, width, -1)
        key, value = l2_normalize(key), l2_normalize(value)
        single = value.reshape(batch * width, 1, *size)
        key_code = self.H1(key).reshape(batch, width, width, -1) + self.P1[..., None]
        value_code = self.H2(single).reshape(batch, width, width, -1)
        context = self.G(single).reshape(batch, width, width, -1) + self.I[..., None]
        # Positions first, so that each product is a batch of small matrix products.
        query, key_code, value_code, context = (z.permute(0, 3, 1, 2) for z in (query, key_code, value_code, context))
        y = query @ key_code @ value_code.transpose(-1, -2) @ context  # B N L C
        return y.permute(0, 3, 2, 1).reshape(batch, channels, *size)


class Bottleneck(nn.Module):
    """1x1x1, 1x3x3 or RSA, 1x1x1."""

    def __init__(self, inputs: int, width: int, stride: int, rsa: bool):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        around: dict[str, Any] = {"stride": (1, stride, stride), "padding": (0, 1, 1), "bias": False}
        self.conv2 = RSA(width) if rsa else nn.Conv3d(width, width, (1, 3, 3), **around)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * width)
        if inputs != 4 * width:
            projection = nn.Conv3d(inputs, 4 * width, 1, stride=(1, stride, stride), bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(shortcut + self.bn3(self.conv3(x)))


class RSANet(nn.Module):
    """RSANet-R50: normalised clips B 3 T H W to logits."""

    def __init__(self, classes: int, positions: tuple[tuple[int, ...], ...] = POSITIONS):
        super().__init__()
        base: Any = nn.Module()
        base.conv1 = nn.Conv3d(3, 64, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        base.bn1 = nn.BatchNorm3d(64)
        inputs = 64
        for stage, (size, rsa) in enumerate(zip(STAGE_SIZES, positions, strict=True)):
            blocks = []
            for index in range(size):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(Bottleneck(inputs, 64 * 2**stage, stride, index in rsa))
                inputs = 4 * 64 * 2**stage
            setattr(base, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.base_model = base
        self.new_fc = nn.Conv1d(inputs, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, averaged over frames."""
        base: Any = self.base_model
        x = functional.relu(base.bn1(base.conv1(x)))
        x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for stage in range(4):
            x = getattr(base, f"layer{stage + 1}")(x)
        return self.new_fc(x.mean((3, 4))).mean(2)
