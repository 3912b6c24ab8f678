"""Draws the pictures of the page on plots: ``python docs/plots.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import nn
from torch.nn import functional as F

from brevq import plot
from brevq.graph import calibrating
from brevq.nn import QuantConv2d, QuantLinear, QuantReLU
from injectors import Int4WeightPerChannel, Int8WeightPerTensorMSE, MXFp4Weight, Uint8ActPerTensor

IMAGES = Path(__file__).parent / "images"
WIDTHS = (8, 6, 5, 4, 3, 2)


def data(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 8 by 8 pixels, `(samples, 1, 8, 8)`, each a blurred spot in one of sixteen places, and its place."""
    places = torch.randint(16, (samples,))
    across = torch.arange(8.0)
    x, y = places % 4 * 2 + 0.5 + 0.7 * torch.randn(samples), places // 4 * 2 + 0.5 + 0.7 * torch.randn(samples)
    squares = (across - x[:, None]) ** 2, (across - y[:, None]) ** 2
    spots = torch.exp(-squares[1][:, :, None] - squares[0][:, None, :]).unsqueeze(1)
    return (spots + 0.1 * torch.rand_like(spots)).clamp(0, 1), places


def network(bits: int = 4) -> nn.Sequential:
    """Two convolutions and two linear layers."""
    weight: dict[str, Any] = {"weight_quant": Int4WeightPerChannel.let(bit_width=bits)}
    return nn.Sequential(
        QuantConv2d(1, 16, 3, padding=1, input_quant=Uint8ActPerTensor, **weight),
        QuantReLU(),
        nn.MaxPool2d(2),
        QuantConv2d(16, 24, 3, padding=1, **weight),
        QuantReLU(),
        nn.Flatten(),
        QuantLinear(24 * 16, 64, **weight),
        QuantReLU(bit_width=4),
        QuantLinear(64, 16, **weight),
    )


def trained(images: torch.Tensor, places: torch.Tensor) -> nn.Sequential:
    """The network after a short training with weights of 8 bits, calibrated."""
    model = network(8)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), places[batch]).backward()
        optimizer.step()
    return calibrated(model, images)


def calibrated(model: nn.Sequential, images: torch.Tensor) -> nn.Sequential:
    """The model in evaluation, with the ranges of some images."""
    model.eval()
    with torch.no_grad(), calibrating(model):
        model(images[:256])
    return model


def pictures() -> dict[str, Any]:
    """The axes of all pictures, by file name."""
    torch.manual_seed(0)
    images, places = data(4096)
    teacher = trained(images, places)
    test_images, test_places = data(2000)

    def accuracy(bits: int) -> float:
        model = network(bits)
        model.load_state_dict(weights)
        right = calibrated(model, images)(test_images).argmax(1) == test_places
        return right.double().mean().item()

    weights = {name: tensor for name, tensor in teacher.state_dict().items() if "_quant" not in name}
    model = network(4)
    model.load_state_dict(weights)
    calibrated(model, images)
    clipped = QuantLinear(24 * 16, 64, weight_quant=Int8WeightPerTensorMSE, weight_bit_width=3)
    clipped.load_state_dict({"weight": weights["6.weight"], "bias": weights["6.bias"]})
    blocks = QuantLinear(24 * 16, 64, weight_quant=MXFp4Weight)
    blocks.load_state_dict({"weight": weights["6.weight"], "bias": weights["6.bias"]})
    activations = plot.activations(model, test_images, at="7.act_quant")
    activations.set_yscale("log")
    return {
        "plot_weights.svg": plot.weights(clipped),
        "plot_activations.svg": activations,
        "plot_scales.svg": plot.scales(model[3]),
        "plot_scales_of_blocks.svg": plot.scales(blocks),
        "plot_sqnr.svg": plot.sqnr(model, test_images),
        "plot_accuracy.svg": plot.accuracy(accuracy, WIDTHS),
    }


def main() -> None:
    """Write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    with mpl.rc_context({"svg.hashsalt": "brevq", "svg.fonttype": "path"}):
        for name, axes in pictures().items():
            axes.figure.savefig(IMAGES / name, metadata={"Date": None})


if __name__ == "__main__":
    main()
