"""BatchQuant: ranges that are each batch's own in training, and the average of all in evaluation."""

import numpy as np
import pytest
import torch

from brevq.core.phase import Phase
from brevq.graph import calibrating
from brevq.nn import QuantIdentity
from injectors import Int8ActPerTensorBatchQuant, Uint8ActPerTensorBatchQuant

SHAPES = [(6, 3), (2, 3, 8), (2, 3, 4, 4), (2, 3, 2, 2, 4)]
RECIPES = {"signed": (Int8ActPerTensorBatchQuant, 128), "unsigned": (Uint8ActPerTensorBatchQuant, 255)}


def batches(shape, n=4):
    rng = np.random.default_rng(31)
    return [(rng.normal(size=shape) * factor).astype(np.float32) for factor in range(1, n + 1)]


def range_of(x):
    """The mean over channels of their largest magnitudes."""
    return float(np.mean([np.abs(x[:, c]).max() for c in range(x.shape[1])], dtype=np.float64))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", RECIPES)
def test_ranges(kind, shape):
    """Training takes the range of each batch, however many came before; evaluation their mean."""
    recipe, threshold = RECIPES[kind]
    quantizer = QuantIdentity(act_quant=recipe).act_quant
    seen = batches(shape)
    # Float32 means of three numbers, and of four.
    for _ in range(100):
        for x in seen:
            scale = quantizer(torch.tensor(x)).scale.item()
            assert pytest.approx(range_of(x) / threshold, rel=2**-21) == scale
    assert Phase.OBSERVE == quantizer.phase
    mean = sum(map(range_of, seen)) / len(seen)
    assert pytest.approx(mean / threshold, rel=2**-16) == quantizer.eval()(torch.tensor(seen[0])).scale.item()


def test_the_factor_is_learned():
    """The factor of the range starts from 1, and gets the gradient of the scale times the range."""
    quantizer = QuantIdentity(act_quant=Int8ActPerTensorBatchQuant).act_quant
    (x,) = batches((2, 3, 8), n=1)
    weights = np.random.default_rng(32).normal(size=x.shape).astype(np.float32)
    factor = quantizer.tensor_quant.scaling_impl.factor
    (quantizer(torch.tensor(x)).value * torch.tensor(weights)).sum().backward()
    step = range_of(x) / 128
    slopes = []
    for v, weight in zip((x.reshape(-1) / step).tolist(), weights.reshape(-1).tolist(), strict=True):
        code = round(v)
        inside = -128 <= code <= 127
        slopes.append(weight * step * ((code - v) if inside else min(max(code, -128), 127)))
    # A float32 sum of 48 products.
    assert (1.0, pytest.approx(sum(slopes), rel=2**-12)) == (factor.item(), factor.grad.item())


def test_calibration_fixes_the_range():
    """What calibration observed stays, in training too, and the factor is still learned."""
    layer = QuantIdentity(act_quant=Uint8ActPerTensorBatchQuant)
    seen = [np.abs(x) for x in batches((4, 3))]
    with calibrating(layer):
        for x in seen:
            layer(torch.tensor(x))
    expected = sum(map(range_of, seen)) / len(seen) / 255
    for x in seen:
        quantized = layer.train().act_quant(torch.tensor(x))
        assert pytest.approx(expected, rel=2**-20) == quantized.scale.item()
    quantized.value.sum().backward()
    assert layer.act_quant.tensor_quant.scaling_impl.factor.grad.item() != 0
