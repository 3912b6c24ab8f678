"""Core quantizers: their documented interface, and their numbers against NumPy."""

import importlib
import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

from brevq.core import quant
from brevq.core.bit_width import BitWidthConst, BitWidthFromInput, BitWidthParameter
from brevq.core.formats.catalogue import FP8_E4M3
from brevq.core.function_wrapper import FloorSte, Identity, PerChannel, RoundSte, TensorClamp, TensorClampSte
from brevq.core.quant.int_base import FusedInt
from brevq.core.restrict_val import FloatRestrictValue, PowerOfTwoRestrictValue
from brevq.core.scaling import (
    ConstScaling,
    IntScaling,
    ParameterScaling,
    PowerOfTwoIntScaling,
    StatsScaling,
    StepScaling,
    TruncMsbScaling,
)
from brevq.core.stats import AbsMax, AbsMinMax, NegativeMinOrZero
from brevq.core.zero_point import ParameterZeroPoint, StatsZeroPoint, ZeroZeroPoint
from brevq.errors import ArgumentError, ArgumentTypeError, RecipeError
from brevq.inject import check
from brevq.testing import Case, ComponentContract, QuantizerContract
from injectors import Int8WeightPerTensor

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

# --- the interface ---------------------------------------------------------------------------------------------------

NEEDED = inspect.Parameter.empty
PARTS = {"float_to_int_impl": None, "tensor_clamp_impl": None}  # None stands for a module that is built inside
RESCALING = dict.fromkeys(["scaling_impl", "int_scaling_impl", "zero_point_impl", "bit_width_impl"], NEEDED)
DECOUPLED = dict.fromkeys(
    [
        "decoupled_int_quant",
        "pre_scaling_impl",
        "scaling_impl",
        "int_scaling_impl",
        "pre_zero_point_impl",
        "zero_point_impl",
        "bit_width_impl",
    ],
    NEEDED,
)
GRID = {"narrow_range": NEEDED, "signed": NEEDED, "input_view_impl": None, **PARTS, "quant_delay_steps": 0}
PRESCALED = {"int_quant": NEEDED, "bit_width_impl": NEEDED}
# Class, its submodule, its arguments with their defaults, and the arguments of its forward.
INTERFACE = {
    "BinaryQuant": ("binary", {"scaling_impl": NEEDED, "signed": True, "quant_delay_steps": 0}, ["x"]),
    "ClampedBinaryQuant": (
        "binary",
        {"scaling_impl": NEEDED, "tensor_clamp_impl": None, "quant_delay_steps": 0},
        ["x"],
    ),
    "DelayWrapper": ("delay", {"quant_delay_steps": NEEDED}, ["x", "y"]),
    "DecoupledRescalingIntQuant": ("int", DECOUPLED, ["x"]),
    "DecoupledRescalingIntQuantWithInput": ("int", DECOUPLED, ["x", "input_bit_width", "input_is_signed"]),
    "PrescaledRestrictIntQuant": ("int", PRESCALED, ["x", "scale"]),
    "PrescaledRestrictIntQuantWithInputBitWidth": ("int", PRESCALED, ["x", "scale", "input_bit_width"]),
    "RescalingIntQuant": ("int", {"int_quant": NEEDED, **RESCALING}, ["x"]),
    "TruncIntQuant": (
        "int",
        {
            "float_to_int_impl": NEEDED,
            "bit_width_impl": NEEDED,
            "trunc_scaling_impl": None,
            "narrow_range": False,
            "tensor_clamp_impl": None,
            "quant_delay_steps": 0,
        },
        ["x", "scale", "zero_point", "input_bit_width", "signed"],
    ),
    "DecoupledIntQuant": (
        "int_base",
        GRID,
        ["pre_scale", "pre_zero_point", "scale", "zero_point", "bit_width", "x"],
    ),
    "IntQuant": ("int_base", GRID, ["scale", "zero_point", "bit_width", "x"]),
    "TernaryQuant": ("ternary", {"scaling_impl": NEEDED, "threshold": NEEDED, "quant_delay_steps": None}, ["x"]),
}
METHODS = {  # further methods, with their arguments
    ("IntQuant", "to_int"): ["scale", "zero_point", "bit_width", "x"],
    ("IntQuant", "min_int"): ["bit_width"],
    ("IntQuant", "max_int"): ["bit_width"],
    ("DecoupledIntQuant", "to_int"): ["pre_scale", "pre_zero_point", "bit_width", "x"],
    ("DecoupledIntQuant", "min_int"): ["bit_width"],
    ("DecoupledIntQuant", "max_int"): ["bit_width"],
    ("TruncIntQuant", "min_int"): ["bit_width", "signed"],
    ("TruncIntQuant", "max_int"): ["bit_width", "signed"],
}


def _parameters(function):
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if name != "self"}


@pytest.mark.parametrize("name", INTERFACE)
def test_constructors(name):
    """A constructor has the documented arguments, in their order, with their defaults."""
    assert list(INTERFACE[name][1].items()) == list(_parameters(getattr(quant, name)).items())


@pytest.mark.parametrize("name", INTERFACE)
def test_forward(name):
    """What a quantizer is called with has the documented names, in their order."""
    assert INTERFACE[name][2] == list(_parameters(getattr(quant, name).forward))


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_methods(name, method):
    """The further methods have the documented arguments, in their order."""
    assert METHODS[name, method] == list(_parameters(getattr(getattr(quant, name), method)))


@pytest.mark.parametrize("name", INTERFACE)
def test_import(name):
    """A class can be imported from the package and from its submodule, and is a module."""
    submodule = importlib.import_module(f"brevq.core.quant.{INTERFACE[name][0]}")
    kind = getattr(submodule, name)
    assert (kind, True, True) == (getattr(quant, name), issubclass(kind, nn.Module), name in quant.__all__)


def test_nothing_else_is_public():
    """The package lists the classes of the reference, and the one for minifloats."""
    assert {*INTERFACE, "FloatQuant"} == set(quant.__all__)


@pytest.mark.parametrize("kind", [quant.IntQuant, quant.DecoupledIntQuant])
def test_parts_of_a_grid_by_default(kind):
    """A grid takes tensors as they come, rounds halves to even and clamps with the true gradient, unless told."""
    module = kind(narrow_range=True, signed=True)
    kinds = {type(part) for part in module.modules()}
    assert {RoundSte, TensorClamp} == kinds & {Identity, RoundSte, FloorSte, TensorClamp, TensorClampSte}


def test_parts_of_a_truncation_by_default():
    """A truncation keeps the most significant bits and clamps with the true gradient."""
    module = quant.TruncIntQuant(RoundSte(), BitWidthConst(4))
    assert (TruncMsbScaling, TensorClamp) == (type(module.trunc_scaling_impl), type(module.tensor_clamp_impl))


# --- the numbers -----------------------------------------------------------------------------------------------------


def _ends(narrow, signed, bits):
    """The lowest and the highest code, in integers."""
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def _codes(x, scale, zero_point, ends, rounding=np.rint):
    """``clamp(round(x / scale + zero_point))``, a value at a time, each operation rounded in the dtype of `x`."""
    scale, zero_point = (np.broadcast_to(np.asarray(part, x.dtype), x.shape) for part in (scale, zero_point))
    codes = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        code = rounding(x[index] / scale[index] + zero_point[index])
        codes[index] = min(max(code, x.dtype.type(ends[0])), x.dtype.type(ends[1]))
    return codes


def _values(codes, scale, zero_point):
    """``(codes - zero_point) * scale``, each operation rounded in the dtype of the codes."""
    return (codes - np.asarray(zero_point, codes.dtype)) * np.asarray(scale, codes.dtype)


SHAPE = (3, 16)
KINDS = [(narrow, signed) for narrow in (False, True) for signed in (False, True)]
SCALES = {
    "tensor": 0.07,
    "rows": np.array([[0.05], [0.25], [1.7]]),
    "columns": np.linspace(0.01, 0.9, 16).reshape(1, 16),
}


def _inputs(dtype=np.float32):
    x = np.random.default_rng(5).normal(size=SHAPE)
    x[0, :4] = [0.0, 1e-30, 1e30, -1e30]
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero_point", [0.0, 3.0])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("narrow", "signed"), KINDS)
def test_int_quant(narrow, signed, scale, zero_point, bits, dtype):
    """An integer grid gives the codes and the values of its formula, bit for bit."""
    x, step = _inputs(dtype), np.asarray(SCALES[scale], dtype)
    arguments = [torch.tensor(part) for part in (step, dtype(zero_point), dtype(bits), x)]
    grid = quant.IntQuant(narrow, signed)
    codes = _codes(x, step, zero_point, _ends(narrow, signed, bits))
    assert (codes.tolist(), _values(codes, step, zero_point).tolist()) == (
        grid.to_int(*arguments).tolist(),
        grid(*arguments).tolist(),
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("narrow", "signed"), KINDS)
def test_decoupled_int_quant(narrow, signed, scale):
    """A decoupled grid rounds by one pair and dequantizes by the other, bit for bit."""
    x, step = _inputs(), np.asarray(SCALES[scale], np.float32)
    pre_step = np.float32(0.3)
    pre = [torch.tensor(part) for part in (pre_step, np.float32(1.0))]
    bits, data = torch.tensor(4.0), torch.tensor(x)
    grid = quant.DecoupledIntQuant(narrow, signed)
    codes = _codes(x, pre_step, 1.0, _ends(narrow, signed, 4))
    assert (codes.tolist(), _values(codes, step, 2.0).tolist()) == (
        grid.to_int(*pre, bits, data).tolist(),
        grid(*pre, torch.tensor(step), torch.tensor(2.0), bits, data).tolist(),
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("narrow", "signed"), KINDS)
def test_ends_of_grids(narrow, signed, bits):
    """`min_int` and `max_int` of every grid are the ends of its integers."""
    width, sign = torch.tensor(float(bits)), torch.tensor(signed)
    trunc = quant.TruncIntQuant(RoundSte(), BitWidthConst(4), narrow_range=narrow)
    grids = [quant.IntQuant(narrow, signed), quant.DecoupledIntQuant(narrow, signed)]
    actual = [(grid.min_int(width).item(), grid.max_int(width).item()) for grid in grids]
    actual.append((trunc.min_int(width, sign).item(), trunc.max_int(width, sign).item()))
    assert [_ends(narrow, signed, bits)] * 3 == actual


@pytest.mark.parametrize("rounding", [RoundSte, FloorSte])
@pytest.mark.parametrize("zero_point", [0.0, 16.0])
@pytest.mark.parametrize(("narrow", "signed"), KINDS)
def test_trunc_int_quant(narrow, signed, zero_point, rounding):
    """Truncation divides codes by a power of two, rounds and clamps, and its scale grows as much, bit for bit."""
    start, end = (-128, 128) if signed else (0, 256)
    scale = np.float32(0.01)
    x = _values(np.arange(start, end, dtype=np.float32), scale, zero_point)
    module = quant.TruncIntQuant(rounding(), BitWidthConst(4), narrow_range=narrow)
    grid = (torch.tensor(scale), torch.tensor(zero_point), torch.tensor(8.0), torch.tensor(signed))
    low, high = _ends(narrow, signed, 4)
    rounded = (np.floor if rounding is FloorSte else np.rint)(np.arange(start, end) / 16)
    codes = np.clip(rounded, low, high).astype(np.float32)
    new_scale = scale * np.float32(16)
    expected = [_values(codes, new_scale, zero_point / 16).tolist(), float(new_scale), zero_point / 16, 4.0]
    assert expected == [part.tolist() for part in module(torch.tensor(x), *grid)]


# Scale, and the values of X with the documented gradient of each: binary, clamped binary, ternary at half the scale.
LEVELS_X = [-3.0, -0.5, -0.2, -0.0, 0.0, 0.2, 0.25, 0.3, 0.5, 3.0]


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("kind", ["binary", "clamped", "ternary"])
def test_levels(kind, scale):
    """Two or three levels are the signed scale, and zero; the gradient is the scale, where it is not cut off."""
    create = {
        "binary": lambda: quant.BinaryQuant(ConstScaling(scale)),
        "clamped": lambda: quant.ClampedBinaryQuant(ConstScaling(scale)),
        "ternary": lambda: quant.TernaryQuant(ConstScaling(scale), 0.4),
    }[kind]
    x = torch.tensor(LEVELS_X, requires_grad=True)
    y, out_scale, zero_point, bit_width = create()(x)
    y.sum().backward()
    values, slopes = [], []
    for value in x.tolist():
        level, slope = (scale if value >= 0 else -scale), scale
        if kind == "clamped" and abs(value) > scale:
            slope = 0.0
        if kind == "ternary" and abs(value) <= np.float32(0.4) * np.float32(scale):
            level, slope = 0.0, 0.0
        values.append(level)
        slopes.append(slope)
    assert (values, slopes, scale, 0.0, 2.0 if kind == "ternary" else 1.0) == (
        y.tolist(),
        x.grad.tolist(),
        out_scale.item(),
        zero_point.item(),
        bit_width.item(),
    )


@pytest.mark.parametrize("kind", [quant.BinaryQuant, quant.ClampedBinaryQuant])
def test_gradient_of_a_binary_scale(kind):
    """The scale of two levels receives the sum of the signs; the clamped one not what it clamps by."""
    scaling = ParameterScaling(0.5)
    kind(scaling)(torch.tensor([0.1, -0.3, 0.2]))[0].backward(torch.tensor([1.0, 2.0, 4.0]))
    assert 1.0 - 2.0 + 4.0 == scaling.value.grad.item()


def _slow_gradients(x, above, scale, zero_point, bits, narrow, signed):
    """The documented straight-through gradients of an integer grid, to input, scale, zero-point and bit width.

    Rounding counts as the identity: ``y = (clamp(x / s + z) - z) * s`` is differentiated by hand, with the rounded
    codes in the values. Inside the range dy/dx is 1, dy/ds is ``code - z - x / s`` and dy/dz is 0; beyond an end, whose
    code is e, they are 0, ``e - z`` and ``-s``, and dy/db is s times the slope of that end.
    """
    low, high = _ends(narrow, signed, bits)
    slopes = {high: math.log(2) * 2 ** (bits - signed), low: -math.log(2) * 2 ** (bits - 1) if signed else 0.0}
    grads = {"x": np.zeros(x.shape), "scale": 0.0, "zero_point": 0.0, "bit_width": 0.0}
    for index in np.ndindex(*x.shape):
        exact = x[index] / scale + zero_point
        code = float(np.rint(exact))
        g = above[index]
        if low <= code <= high:
            grads["x"][index] = g
            grads["scale"] += g * (code - zero_point - x[index] / scale)
            continue
        end = high if code > high else low
        grads["scale"] += g * (end - zero_point)
        grads["zero_point"] -= g * scale
        grads["bit_width"] += g * scale * slopes[end]
    return grads


@pytest.mark.parametrize("zero_point", [0.0, 2.0])
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("narrow", "signed"), KINDS)
def test_gradients_of_int_quant(narrow, signed, bits, zero_point):
    """Input, scale, zero-point and bit width receive their straight-through gradients."""
    rng = np.random.default_rng(7)
    x, above, scale = rng.normal(size=SHAPE), rng.normal(size=SHAPE), 0.21
    leaves = {
        "scale": torch.tensor(scale, dtype=torch.float64),
        "zero_point": torch.tensor(zero_point, dtype=torch.float64),
        "bit_width": torch.tensor(float(bits), dtype=torch.float64),
        "x": torch.tensor(x),
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    quant.IntQuant(narrow, signed)(*leaves.values()).backward(torch.tensor(above))
    expected = _slow_gradients(x, above, scale, zero_point, bits, narrow, signed)
    # float64 sums of 48 terms in another order.
    for name, leaf in leaves.items():
        assert pytest.approx(expected[name], rel=1e-12, abs=1e-13) == leaf.grad.numpy()


def test_gradient_of_a_scale_for_each_row():
    """A scale of its own for each row receives the gradient of that row alone."""
    scale = torch.tensor([[0.2], [0.3], [0.5]], dtype=torch.float64, requires_grad=True)
    x, above = (np.random.default_rng(seed).normal(size=SHAPE) for seed in (8, 9))
    grid = quant.IntQuant(False, True)
    zero, bits = torch.tensor(0.0, dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64)
    grid(scale, zero, bits, torch.tensor(x)).backward(torch.tensor(above))
    rows = [
        _slow_gradients(x[r : r + 1], above[r : r + 1], s, 0.0, 4, False, True) for r, s in enumerate([0.2, 0.3, 0.5])
    ]
    # float64 sums of 16 terms in another order.
    assert pytest.approx([row["scale"] for row in rows], rel=1e-12) == scale.grad.flatten().tolist()


def test_clipped_values_move_where_the_clamp_is_straight_through():
    """With `TensorClampSte` what lies beyond the range receives the whole gradient too."""
    x = torch.tensor([0.5, 99.0], requires_grad=True)
    grid = quant.IntQuant(True, True, tensor_clamp_impl=TensorClampSte())
    grid(torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0), x).sum().backward()
    assert [1.0, 1.0] == x.grad.tolist()


class _HalfOfSigned(nn.Module):
    def forward(self, x, input_bit_width, input_is_signed):
        return torch.where(input_is_signed, 0.7, 1.4)


def _int_quant(narrow=True, signed=True):
    return quant.IntQuant(narrow, signed)


def _floor():
    return FloatRestrictValue(scaling_min_val=1e-10)


def _rescaling_shifted():
    return quant.RescalingIntQuant(
        _int_quant(False, False),
        StatsScaling(AbsMinMax(), _floor()),
        IntScaling(False, False),
        StatsZeroPoint(_int_quant(False, False), NegativeMinOrZero()),
        BitWidthConst(4),
    )


def _decoupled(kind, pre):
    return kind(
        quant.DecoupledIntQuant(True, True),
        pre,
        ConstScaling(0.7),
        IntScaling(True, True),
        ZeroZeroPoint(),
        ZeroZeroPoint(),
        BitWidthConst(4),
    )


def _symmetric(threshold, ends, zero_point=0.0):
    """The reference of a grid: all that it returns, for a threshold in float and the ends of the range."""

    def reference(x):
        scale = np.asarray(np.asarray(threshold(x), np.float32) / np.float32(-ends[0] if ends[0] < 0 else ends[1]))
        shift = np.float32(zero_point(x, scale) if callable(zero_point) else zero_point)
        return [
            _values(_codes(x, scale, shift, ends), scale, shift),
            scale,
            shift,
            math.log2(ends[1] + 1) + (ends[0] < 0),
        ]

    return reference


def _two_thresholds(pre, post):
    def reference(x):
        pre_scale, scale = np.float32(pre) / np.float32(7), np.float32(post) / np.float32(7)
        return [_values(_codes(x, pre_scale, 0.0, (-7, 7)), scale, 0.0), scale, 0.0, 4.0, pre_scale, 0.0]

    return reference


def _lowest(x, scale):
    return np.rint(-min(np.float32(0), x.min()) / scale)


PLAIN = np.random.default_rng(11).normal(size=SHAPE).astype(np.float32)
TENTH, FOUR = torch.tensor(0.1), torch.tensor(4.0)
# Constructor, what comes after the input, and the reference of all that is returned.
RECIPES = {
    "RescalingIntQuant": (
        lambda: quant.RescalingIntQuant(
            _int_quant(), ConstScaling(0.9), IntScaling(True, True), ZeroZeroPoint(), BitWidthConst(4)
        ),
        (),
        _symmetric(lambda x: 0.9, (-7, 7)),
    ),
    "RescalingIntQuant, statistics": (
        lambda: quant.RescalingIntQuant(
            _int_quant(), StatsScaling(AbsMax(), _floor()), IntScaling(True, True), ZeroZeroPoint(), BitWidthConst(8)
        ),
        (),
        _symmetric(lambda x: np.abs(x).max(), (-127, 127)),
    ),
    "RescalingIntQuant, rows": (
        lambda: quant.RescalingIntQuant(
            _int_quant(),
            StatsScaling(AbsMax(PerChannel(SHAPE, 0)), _floor()),
            IntScaling(True, True),
            ZeroZeroPoint(),
            BitWidthConst(8),
        ),
        (),
        _symmetric(lambda x: np.abs(x).max(axis=1, keepdims=True), (-127, 127)),
    ),
    "RescalingIntQuant, shifted": (
        _rescaling_shifted,
        (),
        _symmetric(lambda x: max(x.max(), np.float32(0)) - min(x.min(), np.float32(0)), (0, 15), _lowest),
    ),
    "RescalingIntQuant, learned": (
        lambda: quant.RescalingIntQuant(
            _int_quant(False, False),
            ParameterScaling(1.2),
            IntScaling(False, False),
            ParameterZeroPoint(_int_quant(False, False), 5.0),
            BitWidthParameter(4),
        ),
        (),
        _symmetric(lambda x: 1.2, (0, 15), 5.0),
    ),
    "DecoupledRescalingIntQuant": (
        lambda: _decoupled(quant.DecoupledRescalingIntQuant, ConstScaling(1.4)),
        (),
        _two_thresholds(1.4, 0.7),
    ),
    "DecoupledRescalingIntQuantWithInput": (
        lambda: _decoupled(quant.DecoupledRescalingIntQuantWithInput, _HalfOfSigned()),
        (torch.tensor(8.0), torch.tensor(True)),
        _two_thresholds(0.7, 0.7),
    ),
    "PrescaledRestrictIntQuant": (
        lambda: quant.PrescaledRestrictIntQuant(_int_quant(), BitWidthConst(4)),
        (TENTH,),
        lambda x: [_values(_codes(x, np.float32(0.1), 0.0, (-7, 7)), 0.1, 0.0), np.float32(0.1), 0.0, 4.0],
    ),
    "PrescaledRestrictIntQuantWithInputBitWidth": (
        lambda: quant.PrescaledRestrictIntQuantWithInputBitWidth(_int_quant(), Identity()),
        (TENTH, FOUR),
        lambda x: [_values(_codes(x, np.float32(0.1), 0.0, (-7, 7)), 0.1, 0.0), np.float32(0.1), 0.0, 4.0],
    ),
    "IntQuant": (
        lambda: _Reordered(_int_quant()),
        (TENTH, torch.tensor(0.0), FOUR),
        lambda x: [_values(_codes(x, np.float32(0.1), 0.0, (-7, 7)), 0.1, 0.0)],
    ),
    "DecoupledIntQuant": (
        lambda: _Reordered(quant.DecoupledIntQuant(True, True)),
        (TENTH, torch.tensor(1.0), 2 * TENTH, torch.tensor(2.0), FOUR),
        lambda x: [_values(_codes(x, np.float32(0.1), 1.0, (-7, 7)), 0.2, 2.0)],
    ),
    "TruncIntQuant": (
        lambda: quant.TruncIntQuant(RoundSte(), BitWidthConst(4)),
        (TENTH, torch.tensor(0.0), torch.tensor(6.0), torch.tensor(True)),
        lambda x: [
            _values(np.clip(np.rint(np.rint(x / np.float32(0.1)) / 4), -8, 7), np.float32(0.1) * 4, 0.0),
            np.float32(0.1) * np.float32(4),
            0.0,
            4.0,
        ],
    ),
    "BinaryQuant": (
        lambda: quant.BinaryQuant(ConstScaling(0.3)),
        (),
        lambda x: [np.where(x < 0, -np.float32(0.3), np.float32(0.3)), np.float32(0.3), 0.0, 1.0],
    ),
    "ClampedBinaryQuant": (
        lambda: quant.ClampedBinaryQuant(ParameterScaling(0.3)),
        (),
        lambda x: [np.where(x < 0, -np.float32(0.3), np.float32(0.3)), np.float32(0.3), 0.0, 1.0],
    ),
    "TernaryQuant": (
        lambda: quant.TernaryQuant(ConstScaling(0.8), 0.5),
        (),
        lambda x: [np.sign(x) * (np.abs(x) >= np.float32(0.4)) * np.float32(0.8), np.float32(0.8), 0.0, 2.0],
    ),
}


class _Reordered(nn.Module):
    """A grid that takes its input first, as the others do."""

    def __init__(self, grid: nn.Module) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x, *rest):
        return self.grid(*rest, x)


def _listed(results):
    results = results if isinstance(results, (tuple, list)) else [results]
    return [np.asarray(r.detach() if isinstance(r, torch.Tensor) else r).tolist() for r in results]


def _cases(*, grids):
    """Those that take a scale and return values alone, or those that return four."""
    return {
        name: Case(create, _over_arrays(reference), inputs=(torch.tensor(PLAIN), *rest))
        for name, (create, rest, reference) in RECIPES.items()
        if grids == (name in ("IntQuant", "DecoupledIntQuant"))
    }


def _over_arrays(reference):
    def of_tensors(x, *rest):
        return tuple(np.asarray(part).tolist() for part in reference(x.numpy()))

    return of_tensors


class TestGrids(ComponentContract):
    """What any grid must do: it returns the values of its formula, bit for bit."""

    cases = _cases(grids=True)


class TestQuantizers(QuantizerContract):
    """What any quantizer must do: it returns values, scale, zero-point and bit width of its formulas, bit for bit."""

    cases = _cases(grids=False)


def _documented(name, delay, x):
    """A quantizer of each documented class, with parts that TorchScript takes, and its arguments."""
    grids = {"narrow_range": True, "signed": True, "quant_delay_steps": delay}
    int_quant, decoupled = quant.IntQuant(**grids), quant.DecoupledIntQuant(**grids)
    bits, zero, integer = BitWidthConst(4), ZeroZeroPoint(), IntScaling(True, True)
    scaling, one, sign = ConstScaling(0.7), torch.tensor(1.0), torch.tensor(True)
    return {
        "BinaryQuant": lambda: (quant.BinaryQuant(scaling, quant_delay_steps=delay), (x,)),
        "ClampedBinaryQuant": lambda: (quant.ClampedBinaryQuant(scaling, quant_delay_steps=delay), (x,)),
        "DelayWrapper": lambda: (quant.DelayWrapper(delay), (x, 2 * x)),
        "DecoupledRescalingIntQuant": lambda: (
            quant.DecoupledRescalingIntQuant(decoupled, scaling, scaling, integer, zero, zero, bits),
            (x,),
        ),
        "DecoupledRescalingIntQuantWithInput": lambda: (
            quant.DecoupledRescalingIntQuantWithInput(decoupled, _HalfOfSigned(), scaling, integer, zero, zero, bits),
            (x, FOUR, sign),
        ),
        "PrescaledRestrictIntQuant": lambda: (quant.PrescaledRestrictIntQuant(int_quant, bits), (x, TENTH)),
        "PrescaledRestrictIntQuantWithInputBitWidth": lambda: (
            quant.PrescaledRestrictIntQuantWithInputBitWidth(int_quant, Identity()),
            (x, TENTH, FOUR),
        ),
        "RescalingIntQuant": lambda: (quant.RescalingIntQuant(int_quant, scaling, integer, zero, bits), (x,)),
        "TruncIntQuant": lambda: (
            quant.TruncIntQuant(RoundSte(), bits, quant_delay_steps=delay),
            (x, TENTH, one, torch.tensor(6.0), sign),
        ),
        "DecoupledIntQuant": lambda: (decoupled, (TENTH, one, 2 * TENTH, one, FOUR, x)),
        "IntQuant": lambda: (int_quant, (TENTH, one, FOUR, x)),
        "TernaryQuant": lambda: (quant.TernaryQuant(scaling, 0.5, quant_delay_steps=delay), (x,)),
    }[name]()


# torch deprecates torch.jit.script; the documented classes support it for as long as torch has it.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("name", INTERFACE)
def test_scripts(name, delay):
    """TorchScript takes every documented class, and gives equal values and gradients of the input, delayed or not."""
    # Of the input alone: TorchScript's own derivative of a clamp leaves its limits out, and so learned bit widths.
    steps = []
    for script_it in (False, True):
        x = torch.tensor(PLAIN, requires_grad=True)
        module, inputs = _documented(name, delay, x)
        run = torch.jit.script(module) if script_it else module
        for _ in range(3):  # TorchScript optimizes after the first call
            results = run(*inputs)
            y = results[0] if isinstance(results, tuple) else results
            (grad,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
            steps.append((_listed(results), grad.tolist()))
    assert steps[:3] == steps[3:]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("case", [case for case in RECIPES if "rows" not in case])
def test_dtype_is_kept(case, dtype):
    """What is quantized by one scale keeps its dtype."""
    create, rest, _ = RECIPES[case]
    result = create()(torch.tensor(PLAIN).to(dtype), *rest)
    assert dtype == (result[0] if isinstance(result, tuple) else result).dtype


@pytest.mark.parametrize("case", RECIPES)
def test_nan_stays_visible(case):
    """Where a NaN comes in, a NaN goes out."""
    create, rest, _ = RECIPES[case]
    x = torch.tensor(PLAIN)
    x[1, 2] = math.nan
    result = create()(x, *rest)
    y = result[0] if isinstance(result, tuple) else result
    assert "nan" == str(y[1, 2].item())


@pytest.mark.parametrize("case", [case for case in RECIPES if "Binary" not in case and "DecoupledInt" not in case])
def test_zero_stays_zero(case):
    """An all-zero tensor gives zeros, never NaN, whatever its statistics are."""
    create, rest, _ = RECIPES[case]
    result = create()(torch.zeros(SHAPE), *rest)
    y = result[0] if isinstance(result, tuple) else result
    assert np.zeros(SHAPE).tolist() == y.tolist()


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4, 5)])
@pytest.mark.parametrize("case", ["RescalingIntQuant", "IntQuant", "BinaryQuant", "TernaryQuant", "TruncIntQuant"])
def test_any_shape(case, shape):
    """What is quantized by one scale may have any shape, and keeps it."""
    create, rest, _ = RECIPES[case]
    result = create()(torch.zeros(shape), *rest)
    assert shape == tuple((result[0] if isinstance(result, tuple) else result).shape)


def test_rounding_is_a_part():
    """A grid rounds by the part that it is given."""
    grid = quant.IntQuant(False, True, float_to_int_impl=FloorSte())
    actual = grid.to_int(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0), torch.tensor([-0.5, 1.9]))
    assert [-1.0, 1.0] == actual.tolist()


def test_the_view_of_the_input_is_a_part():
    """A grid lays its input out by the part that it is given."""
    grid = quant.IntQuant(False, True, input_view_impl=nn.Flatten(0))
    actual = grid(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0), torch.ones(2, 3))
    assert (6,) == tuple(actual.shape)


def test_binary_levels_are_signed():
    """Binary quantization without a negative level is refused."""
    with pytest.raises(ArgumentError) as error:
        quant.BinaryQuant(ConstScaling(1.0), signed=False)
    expected = "`signed` (=False) must be True: the levels of binary quantization are -scale and scale"
    assert expected == str(error.value)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.nan])
def test_a_ternary_threshold_is_a_fraction(threshold):
    """A ternary threshold outside of 0 to 1 is refused."""
    with pytest.raises(ArgumentError) as error:
        quant.TernaryQuant(ConstScaling(1.0), threshold)
    assert f"`threshold` (={threshold!r}) must be a number from 0 to 1" == str(error.value)


@pytest.mark.parametrize("kind", [quant.IntQuant, quant.DecoupledIntQuant])
def test_nearest_codes_do_not_depend_on_the_rounding(kind):
    """`nearest_int` rounds halves to even and clips as the grid does, whatever the grid rounds and lays out."""
    grid = kind(True, True, lambda x: x.reshape(-1), FloorSte())
    x = torch.tensor([[0.26, -0.9], [0.05, 0.15]], requires_grad=True)
    codes = grid.nearest_int(torch.tensor(0.1), torch.tensor(0.0), torch.tensor(4.0), x)
    codes.sum().backward()
    assert ([[3.0, -7.0], [0.0, 2.0]], [[10.0, 0.0], [10.0, 10.0]]) == (codes.tolist(), x.grad.tolist())


class Misfit(nn.Module):
    """A component that takes more than any quantizer passes."""

    def forward(self, a, b, c, d, e, f, g):
        """Its first argument."""
        return a


PASSED = {  # what each component is called with, where not all quantizers call it alike
    ("DecoupledRescalingIntQuantWithInput", "pre_scaling_impl"): "x, input_bit_width, input_is_signed",
    ("PrescaledRestrictIntQuantWithInputBitWidth", "bit_width_impl"): "input_bit_width",
}
USUALLY = {
    "int_quant": "scale, zero_point, bit_width, x",
    "decoupled_int_quant": "pre_scale, pre_zero_point, scale, zero_point, bit_width, x",
    "scaling_impl": "x",
    "pre_scaling_impl": "x",
    "int_scaling_impl": "bit_width",
    "float_scaling_impl": "",
    "zero_point_impl": "x, scale, bit_width",
    "pre_zero_point_impl": "x, pre_scale, bit_width",
    "bit_width_impl": "",
    "input_view_impl": "x",
    "float_to_int_impl": "x",
    "tensor_clamp_impl": "x, min_val, max_val",
    "trunc_scaling_impl": "codes, input_bit_width, bit_width, signed",
}
OTHERS = {"narrow_range": True, "signed": True, "quant_delay_steps": 0, "threshold": 0.5, "float_format": FP8_E4M3}
COMPONENTS = [
    (kind, name)
    for kind in quant.__all__
    if kind != "DelayWrapper"
    for name in inspect.signature(getattr(quant, kind)).parameters
    if name not in OTHERS
]


def _takes(names):
    """A component that takes as many arguments as there are names."""
    source = f"lambda self, {names}: None"
    return type("Fits", (nn.Module,), {"forward": eval(source)})()


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_components_that_do_not_fit_are_refused(kind, name):
    """A quantizer refuses each component that takes something else than it would pass, by name, when it is made."""
    create = getattr(quant, kind)
    passed = {part: PASSED.get((kind, part), USUALLY.get(part)) for part in inspect.signature(create).parameters}
    arguments = {part: OTHERS[part] if part in OTHERS else _takes(names) for part, names in passed.items()}
    create(**arguments)
    with pytest.raises(ArgumentTypeError) as error:
        create(**arguments | {name: Misfit()})
    expected = f"`{name}` (=Misfit()) is called with ({passed[name]}), and takes (a, b, c, d, e, f, g): "
    assert str(error.value).startswith(expected)


def test_a_recipe_with_a_component_that_does_not_fit():
    """A recipe whose bit width comes from an input that its quantizer is not told has a fault, without any layer."""
    with pytest.raises(RecipeError) as error:
        check(Int8WeightPerTensor.let(bit_width_impl=BitWidthFromInput))
    assert (
        "Can not build Int8WeightPerTensor.let(bit_width_impl=BitWidthFromInput).\n\n"
        "RescalingIntQuant raised ArgumentTypeError: `bit_width_impl` (=BitWidthFromInput()) is called with (), and "
        "takes (input_bit_width): hand in a component that takes (), or hand this one to a component that calls it "
        "with (input_bit_width)\n\n"
        "  tensor_quant: RescalingIntQuant"
    ) == str(error.value)


@pytest.mark.parametrize("name", ["scaling_stats_impl", "tensor_clamp_impl", "restrict_scaling_impl"])
def test_a_component_of_another_kind_is_a_fault(name):
    """A rounding in the place of a statistic, a clamp or a restriction is a fault of the recipe."""
    with pytest.raises(RecipeError, match=rf"raised ArgumentTypeError: `{name}` \(=RoundSte\(\)\)"):
        check(Int8WeightPerTensor.let(**{name: RoundSte}))


# --- the route in few passes -----------------------------------------------------------------------------------------


def _usual(grid=None, scaling=None, int_scaling=None, zero_point=None, bit_width=None):
    """A quantizer of the usual parts, or of others."""
    return quant.RescalingIntQuant(
        grid or _int_quant(),
        scaling or ParameterScaling(0.9),
        int_scaling or IntScaling(True, True),
        zero_point or ZeroZeroPoint(),
        bit_width or BitWidthConst(4),
    )


# A quantizer, and its route in few passes: the ends, whether clamping passes gradients, whether there is a zero-point.
def _own_maximum(granularity=None):
    return StatsScaling(AbsMax(granularity), FloatRestrictValue(1e-10))


ROUTES = {
    "usual": (_usual, (-7.0, 7.0, False, False)),
    "prescaled": (lambda: quant.PrescaledRestrictIntQuant(_int_quant(), BitWidthConst(4)), (-7.0, 7.0, False, False)),
    "unsigned": (lambda: _usual(_int_quant(False, False), bit_width=BitWidthConst(8)), (0.0, 255.0, False, False)),
    "straight": (
        lambda: _usual(quant.IntQuant(False, True, tensor_clamp_impl=TensorClampSte())),
        (-8.0, 7.0, True, False),
    ),
    "shifted": (_rescaling_shifted, (0.0, 15.0, False, True)),
    "own maximum": (lambda: _usual(scaling=_own_maximum()), (-7.0, 7.0, True, False)),
    "own maximum, rows": (lambda: _usual(scaling=_own_maximum(PerChannel(SHAPE, 0))), (-7.0, 7.0, True, False)),
    "own maximum, may be denormal": (lambda: _usual(scaling=StatsScaling(AbsMax())), (-7.0, 7.0, False, False)),
    "own maximum, full range": (
        lambda: _usual(_int_quant(False), StatsScaling(AbsMax()), IntScaling(True, False)),
        (-8.0, 7.0, False, False),
    ),
    "own maximum, power of two": (
        lambda: _usual(scaling=StatsScaling(AbsMax(), PowerOfTwoRestrictValue())),
        (-7.0, 7.0, False, False),
    ),
    "own maximum, 32 bits": (
        lambda: _usual(scaling=StatsScaling(AbsMax()), bit_width=BitWidthConst(32)),
        (-(2.0**31), 2.0**31, False, False),
    ),
    "own width": (lambda: _usual(scaling=StatsScaling(AbsMinMax())), (-7.0, 7.0, False, False)),
    "rounding down": (lambda: _usual(quant.IntQuant(True, True, float_to_int_impl=FloorSte())), None),
    "a view": (lambda: _usual(quant.IntQuant(True, True, nn.Flatten(0))), None),
    "another clamp": (lambda: _usual(quant.IntQuant(True, True, tensor_clamp_impl=_Between())), None),
    "delayed": (lambda: _usual(quant.IntQuant(True, True, quant_delay_steps=1)), None),
    "learned bits": (lambda: _usual(bit_width=BitWidthParameter(4)), None),
    "another grid": (lambda: _usual(_AnotherGrid(True, True)), None),
}


class _Between(nn.Module):
    def forward(self, x, min_val, max_val):
        return torch.minimum(torch.maximum(x, min_val), max_val)


class _AnotherGrid(quant.IntQuant):
    """A grid that could compute anything."""


def _ends_of(route):
    return None if route is None else (route.low, route.high, route.straight, route.shifted)


@pytest.mark.parametrize("case", ROUTES)
def test_routes(case):
    """Quantizers of the usual parts whose number of bits stays are computed in few passes, others a part at a time."""
    create, expected = ROUTES[case]
    module = create()
    assert expected == _ends_of(getattr(module, "short", module).fused)


def test_a_route_is_known_on_the_meta_device():
    """Where nothing has a value yet the number of bits is known all the same, and with it the short route."""
    with torch.device("meta"):
        assert _usual().short.fused == FusedInt(-7.0, 7.0, straight=False, shifted=False)


@pytest.mark.parametrize("values", ["plain", "zeros", "hard"])
@pytest.mark.parametrize("case", [case for case, (_, ends) in ROUTES.items() if ends and case != "prescaled"])
def test_few_passes_equal_the_parts(case, values):
    """In few passes values, scale and zero-point are those of the parts, bit for bit, and gradients to rounding."""
    x = {
        "plain": torch.tensor(PLAIN),
        "zeros": torch.zeros(SHAPE),
        "hard": torch.tensor(PLAIN) * torch.tensor([1e-42, 1e-30, 1e30]).unsqueeze(-1),
    }[values]
    results = []
    for fused in (True, False):
        module, leaf = ROUTES[case][0](), x.clone().requires_grad_()
        if not fused:
            module.short.fused = module.short.int_threshold = module.short.by_max = None
        y, *rest = module(leaf)
        y.backward(torch.linspace(-1, 1, x.numel()).reshape(SHAPE))
        grads = [leaf.grad, *(parameter.grad for parameter in module.parameters())]
        results.append(([part.detach() for part in (y, *rest)], [grad.double().numpy() for grad in grads]))
    pairs = zip(results[0][0], results[1][0], strict=True)
    assert [True] * 4 == [np.array_equal(part, slow, equal_nan=True) for part, slow in pairs]
    for grad, slow in zip(results[0][1], results[1][1], strict=True):
        # Sums of 48 terms, of up to 127 codes each, are rounded in another order; the largest value's gradient is one.
        assert pytest.approx(slow, rel=2**-20, abs=2**-14, nan_ok=True) == grad


@pytest.mark.parametrize(
    ("create", "kept"),
    [
        (lambda: _usual(scaling=ConstScaling(0.9)), 1000),
        (lambda: _usual(quant.IntQuant(True, True, tensor_clamp_impl=TensorClampSte()), ConstScaling(0.9)), 0),
        (_usual, 4000 + 100),
        (lambda: _usual(scaling=StatsScaling(AbsMax())), 0 + 100),
    ],
    ids=["constant", "straight", "learned", "own maximum"],
)
def test_bytes_kept_beside_the_input(create, kept):
    """A constant scale keeps a byte for each value, or nothing; others keep the input, and a parameter is there anyway.

    Beside that there are some scalars.
    """
    weight, sizes = nn.Parameter(torch.randn(1000)), {}
    module = create()
    own = weight.data_ptr() if isinstance(module.scaling_impl, StatsScaling) else 0

    def keep(tensor):
        sizes[tensor.data_ptr()] = 0 if tensor.data_ptr() == own else tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(weight)
    assert kept - 100 <= sum(sizes.values()) <= kept


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 8, 16])
@pytest.mark.parametrize("int_scaling", [lambda s: IntScaling(s, False), PowerOfTwoIntScaling, lambda s: StepScaling()])
def test_a_known_integer_threshold(int_scaling, bits, signed):
    """A threshold that stays is a number, by which scales are divided as by the tensor that it would be."""
    module = _usual(_int_quant(False, signed), int_scaling=int_scaling(signed), bit_width=BitWidthConst(bits))
    scale = ParameterScaling(0.9)(torch.zeros(())) / int_scaling(signed)(torch.tensor(float(bits)))
    assert (True, scale.item()) == (
        isinstance(module.short.int_threshold, float),
        module(torch.tensor(PLAIN))[1].item(),
    )
