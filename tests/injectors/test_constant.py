"""Levels of a constant scale: which values get which, and the gradients that they keep."""

import pytest
import torch

from brevq.nn import QuantIdentity, QuantLinear
from injectors import BinaryWeightPerTensorConst, TernaryActPerTensorConst, TernaryWeightPerTensorConst

# Values, and in units of the scale the level of each and whether it keeps its gradient.
X = [-3.0, -0.11, -0.051, -0.049, -0.0, 0.0, 0.049, 0.051, 0.11, 3.0]
BINARY = [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1]
TERNARY = [-1, -1, -1, 0, 0, 0, 0, 1, 1, 1]


def outcome(recipe, factor=1.0):
    """Levels and gradients of the values, times a factor."""
    x = (factor * torch.tensor([X])).requires_grad_()
    if recipe.role == "weight":
        quantizer = QuantLinear(len(X), 1, weight_quant=recipe).weight_quant
    else:
        quantizer = QuantIdentity(act_quant=recipe).eval().act_quant
    quantized = quantizer(x)
    quantized.value.sum().backward()
    assert quantized.is_valid
    return quantized.scale.item(), quantized.value.flatten().tolist(), x.grad.flatten().tolist()


@pytest.mark.parametrize(
    ("recipe", "levels", "slope"),
    [(BinaryWeightPerTensorConst, BINARY, 0.1), (TernaryWeightPerTensorConst, TERNARY, 1.0)],
)
def test_weights(recipe, levels, slope):
    """Weights become -0.1, 0.1, or zero within half of it; all get a gradient, of a binary sign times the scale."""
    scale, slope = torch.tensor([0.1, slope]).tolist()
    assert (scale, [level * scale for level in levels], [slope] * len(X)) == outcome(recipe)


def test_another_constant():
    """The constant, and with it the threshold, is a name of the recipe."""
    scale, values, _ = outcome(TernaryWeightPerTensorConst.let(scaling_init=0.5))
    assert (0.5, [-0.5] + [0.0] * 8 + [0.5]) == (scale, values)


def test_activations():
    """Activations become -1, zero or 1, in evaluation too without data; what is beyond one step and a half is cut."""
    scale, values, grads = outcome(TernaryActPerTensorConst, factor=10.0)
    assert (1.0, TERNARY) == (scale, values)
    # Rounded within -1 to 1: up to 1.5.
    assert [0.0, *[1.0] * 8, 0.0] == grads
