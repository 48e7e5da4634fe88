"""RSANet in PyTorch from its equations, under the names of the released checkpoints; slow and plain."""

import torch
from torch import nn
from torch.nn import functional

STAGE_SIZES, POSITIONS = (3, 4, 6, 3), ((2,), (1, 3), (1, 3, 5), (1,))


def unit(x):
    return x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt()


class RSA(nn.Module):
    """Eq. 12 with window convolutions; maps are B C T H W."""

    def __init__(self, channels, queries=8, window=(5, 7, 7)):
        super().__init__()
        self.queries, width = queries, channels // queries
        around = {"kernel_size": window, "padding": tuple(size // 2 for size in window), "bias": False}
        self.projection = nn.Conv3d(channels, channels + 2 * width, 1, bias=False)
        self.H1 = nn.Conv3d(width, width * width, groups=width, **around)
        self.H2 = nn.Conv3d(1, width, **around)
        self.G = nn.Conv3d(1, width, **around)
        self.P1 = nn.Parameter(torch.zeros(1, width, width))
        self.I = nn.Parameter(torch.zeros(1, width, width))

    def forward(self, x):
        batch, channels, *size = x.shape
        width = channels // self.queries
        query, key, value = self.projection(x).split([channels, width, width], 1)
        query = unit(query.reshape(batch * self.queries, width, *size)).reshape(batch, self.queries, width, *size)
        key, value = unit(key), unit(value)
        single = value.reshape(batch * width, 1, *size)
        kernel_code = self.H1(key).reshape(batch, width, width, *size) + self.P1.reshape(1, width, width, 1, 1, 1)
        value_code = self.H2(single).reshape(batch, width, width, *size)
        context = self.G(single).reshape(batch, width, width, *size) + self.I.reshape(1, width, width, 1, 1, 1)
        y = torch.einsum("blc...,bcd...,bvd...,bvw...->bwl...", query, kernel_code, value_code, context)
        return y.reshape(batch, channels, *size)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, rsa):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        steps = {"stride": (1, stride, stride), "padding": (0, 1, 1), "bias": False}
        self.conv2 = RSA(width) if rsa else nn.Conv3d(width, width, (1, 3, 3), **steps)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * width)
        if inputs != 4 * width:
            projection = nn.Conv3d(inputs, 4 * width, 1, stride=(1, stride, stride), bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(4 * width))

    def forward(self, x):
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(shortcut + self.bn3(self.conv3(x)))


class RSANet(nn.Module):
    """Normalised clips B C T H W to logits."""

    def __init__(self, classes):
        super().__init__()
        base = nn.Module()
        base.conv1 = nn.Conv3d(3, 64, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        base.bn1 = nn.BatchNorm3d(64)
        inputs = 64
        for stage, (size, positions) in enumerate(zip(STAGE_SIZES, POSITIONS, strict=True)):
            blocks = []
            for index in range(size):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(Bottleneck(inputs, 64 * 2**stage, stride, index in positions))
                inputs = 4 * 64 * 2**stage
            setattr(base, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.base_model = base
        self.new_fc = nn.Conv1d(inputs, classes, 1)

    def forward(self, x):
        base = self.base_model
        x = functional.relu(base.bn1(base.conv1(x)))
        x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for stage in range(4):
            x = getattr(base, f"layer{stage + 1}")(x)
        return self.new_fc(x.mean((3, 4))).mean(2)
