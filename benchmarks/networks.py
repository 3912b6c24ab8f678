"""Networks that every library builds from its own layers, so that the same network is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Kit:
    """The layers of a library.

    Args:
        conv: as `nn.Conv2d`, with quantized weights.
        linear: as `nn.Linear`, with quantized weights.
        linear_in: as `nn.Linear`, with quantized weights and input.
        relu: as `nn.ReLU`, with quantized output.
        identity: as `nn.Identity`, with quantized output.
        recurrent: ``(cell, input_size, hidden_size, quantized)`` to a layer, where `cell` is *LSTM*, *GRU* or *RNN*,
            and `quantized` is *weights*, *states* (and weights) or *all*.
    """

    conv: Callable[..., nn.Module]
    linear: Callable[..., nn.Module]
    linear_in: Callable[..., nn.Module]
    relu: Callable[..., nn.Module]
    identity: Callable[..., nn.Module]
    recurrent: Callable[[str, int, int, str], nn.Module]


def conv_bn(kit: Kit, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size of the image, up to its stride, and its normalization."""
    conv = kit.conv(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Convolutions, and what goes past them."""

    def __init__(self, kit: Kit, branch: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(kit, inputs, outputs, 1, stride)
        self.relu = kit.relu()

    def forward(self, x: Tensor) -> Any:
        return self.relu(self.branch(x) + self.shortcut(x))


def basic(kit: Kit, inputs: int, width: int, stride: int) -> Residual:
    """The block of ResNet-18."""
    branch = nn.Sequential(conv_bn(kit, inputs, width, 3, stride), kit.relu(), conv_bn(kit, width, width, 3))
    return Residual(kit, branch, inputs, width, stride)


def bottleneck(kit: Kit, inputs: int, width: int, stride: int) -> Residual:
    """The block of ResNet-50."""
    branch = nn.Sequential(
        conv_bn(kit, inputs, width, 1),
        kit.relu(),
        conv_bn(kit, width, width, 3, stride),
        kit.relu(),
        conv_bn(kit, width, 4 * width, 1),
    )
    return Residual(kit, branch, inputs, 4 * width, stride)


def resnet(kit: Kit, block: Callable[..., Residual], depths: list[int], expansion: int, width: int = 64) -> nn.Module:
    """A residual network for small images, which its first convolution does not shrink, with 1000 classes.

    Source: He et al., 2015, https://arxiv.org/abs/1512.03385.
    """
    layers: list[nn.Module] = [kit.identity(), conv_bn(kit, 3, width, 3), kit.relu()]
    inputs = width
    for stage, depth in enumerate(depths):
        for place in range(depth):
            layers.append(block(kit, inputs, width << stage, 2 if stage and not place else 1))
            inputs = (width << stage) * expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), kit.linear(inputs, 1000))


def mobilenet(kit: Kit, width: int = 32) -> nn.Module:
    """Depthwise and pointwise convolutions in turn. Source: Howard et al., 2017, https://arxiv.org/abs/1704.04861."""
    layers: list[nn.Module] = [kit.identity(), conv_bn(kit, 3, width, 3), kit.relu()]
    inputs = width
    for factor, stride in [(2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), (16, 1), (16, 1), (32, 2), (32, 1)]:
        outputs = width * factor
        layers += [conv_bn(kit, inputs, inputs, 3, stride, groups=inputs), kit.relu()]
        layers += [conv_bn(kit, inputs, outputs, 1), kit.relu()]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), kit.linear(inputs, 1000))


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, kit: Kit, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = kit.linear_in(width, 3 * width)
        self.outward = kit.linear_in(width, width)

    def forward(self, x: Tensor) -> Any:
        batch, length, width = x.shape
        q, k, v = self.inward(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.outward(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and a perceptron, each normalized before and added."""

    def __init__(self, kit: Kit, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(kit, width, heads))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), kit.linear_in(width, 4 * width), nn.GELU(), kit.linear_in(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.perceptron(x)


class GPT(nn.Module):
    """Words ``(batch, length)`` to scores ``(batch, words, length)`` of what comes next."""

    def __init__(self, kit: Kit, width: int = 256, depth: int = 4, heads: int = 4, words: int = 512) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Embedding(256, width)
        self.blocks = nn.Sequential(*(Block(kit, width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.scores = kit.linear_in(width, words)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        return self.scores(self.norm(self.blocks(x))).transpose(1, 2)


class Tagger(nn.Module):
    """Vectors ``(time, batch, width)`` to scores ``(batch, classes)``, by a recurrent layer."""

    def __init__(self, kit: Kit, cell: str, width: int, hidden: int, quantized: str) -> None:
        super().__init__()
        self.recurrent = kit.recurrent(cell, width, hidden, quantized)
        self.scores = kit.linear(hidden, 10)

    def forward(self, x: Tensor) -> Any:
        return self.scores(self.recurrent(x)[0][-1])


#: Name to constructor, which takes a kit and sizes.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "ResNet-18": lambda kit, **sizes: resnet(kit, basic, [2, 2, 2, 2], 1, **sizes),
    "ResNet-50": lambda kit, **sizes: resnet(kit, bottleneck, [3, 4, 6, 3], 4, **sizes),
    "MobileNetV1": mobilenet,
    "GPT": GPT,
    "recurrent": Tagger,
    "layers": lambda kit, number: nn.Sequential(*(kit.linear_in(8, 8) for _ in range(number))),
}
