"""The kernels for GPUs, against the functions they stand in for: on a GPU, or interpreted where there is none."""

import importlib.util
import math
import re

import numpy as np
import pytest
import torch

from brevq.function import fused

triton = pytest.importorskip("triton", reason="needs Triton, which compiles or interprets the kernels")

# The interpreter computes with NumPy, which warns where numbers become infinite or no numbers.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float64]
# Shape of the tensor, and of its scale and zero-point.
SHAPES = {
    "tensor": ((6, 40), (), ()),
    "large tensor": ((3, 5001), (), ()),
    "one of a tensor": ((6, 40), (1, 1), ()),
    "channels": ((6, 40), (6, 1), (6, 1)),
    "large channels": ((3, 9001), (3, 1), (3, 1)),
    "many channels": ((1030, 3), (1030, 1), (1030, 1)),
    "inner channels": ((2, 3, 4, 5), (1, 3, 1, 1), (1, 3, 1, 1)),
    "groups": ((3, 4, 10), (3, 4, 1), (3, 4, 1)),
    "last": ((6, 40), (40,), (40,)),
    "many rows": ((1500, 3), (3,), (3,)),
    "both ends": ((3, 4, 5), (3, 1, 5), ()),
    "scale of channels, zero-point of tokens": ((3, 4), (3, 1), (4,)),
    "every value": ((3, 4), (3, 4), ()),
    "scalar": ((), (), ()),
    "empty": ((0, 4), (), ()),
}


def _loaded(interpreted):
    """The module, by itself; with kernels that are interpreted or compiled."""
    spec = importlib.util.find_spec("brevq.function.triton_kernels")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", str(int(interpreted)))
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kernels():
    """The module; interpreted where there is no GPU."""
    return _loaded(interpreted=DEVICE == "cpu")


def _tensors(shape, dtype, shifted):
    """A tensor, its scale and zero-point or None, and the gradient that comes in."""
    rng = np.random.default_rng(0)
    x, above = (torch.tensor(rng.normal(size=shape[0]), dtype=dtype, device=DEVICE) for _ in range(2))
    scale = torch.tensor(rng.uniform(0.01, 0.3, size=shape[1]), dtype=dtype, device=DEVICE)
    zero_point = torch.tensor(rng.integers(-3, 4, size=shape[2]), dtype=dtype, device=DEVICE)
    return x, scale, zero_point if shifted else None, above


def _on_cpu(function, *arguments):
    """What a function returns for tensors moved to the CPU, there; that of none is none."""
    moved = [argument.cpu() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
    return function(*moved)


def _bits(x):
    """The bit patterns of a tensor, those of NaN the same, on the CPU."""
    return torch.where(x.isnan(), math.nan, x).cpu().view({4: torch.int32, 8: torch.int64}[x.element_size()])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values(kernels, shape, shifted, dtype):
    """Values are those of the function on the CPU, bit for bit."""
    x, scale, zero_point, _ = _tensors(SHAPES[shape], dtype, shifted)
    y, inside = kernels.quantized(x, scale, zero_point, -8.0, 7.0)
    expected = _on_cpu(fused.fake_quantize, x, scale, zero_point, -8.0, 7.0)
    assert (None, expected.shape) == (inside, y.shape)
    assert torch.equal(_bits(expected), _bits(y))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zero_point", [None, 3.0])
@pytest.mark.parametrize("ends", [(-8.0, 7.0), (-2147483648.0, 2147483648.0)])
def test_hard_values(kernels, ends, zero_point, dtype):
    """Halves, zeros of both signs, denormal, huge and infinite numbers and NaN come out as on the CPU, bit for bit."""
    halves = torch.arange(-40.0, 40.0) / 2
    large = torch.cat([torch.exp2(torch.arange(-149.0, 128.0)), 2.0**23 + torch.arange(-9.0, 9.0) / 2])
    special = torch.tensor([0.0, -0.0, 1e38, math.inf, -math.inf, math.nan, 0.49999997])
    x = torch.cat([halves, large, -large, large * 0.75, special, -special]).to(DEVICE, dtype)
    shift = None if zero_point is None else torch.tensor(zero_point, dtype=dtype, device=DEVICE)
    for scale in (1.0, 0.1):
        step = torch.tensor(scale, dtype=dtype, device=DEVICE)
        y, _ = kernels.quantized(x, step, shift, *ends)
        assert torch.equal(_bits(_on_cpu(fused.fake_quantize, x, step, shift, *ends)), _bits(y))


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("layout", ["transposed", "channels last", "strided", "expanded"])
def test_layouts(kernels, layout, straight):
    """A tensor of any layout is quantized, stays as it is, and the result is laid out as on the CPU."""
    x = torch.randn(2, 3, 4, 5, device=DEVICE)
    scale = torch.rand(3, 1, 1, device=DEVICE) + 0.05
    x, scale = {
        "transposed": lambda: (x.transpose(1, 3), scale.view(1, 1, 1, 3)),
        "channels last": lambda: (x.to(memory_format=torch.channels_last), scale),
        "strided": lambda: (x[:, :, ::2, 1:], scale),
        "expanded": lambda: (x[:1].expand(2, 3, 4, 5), scale),
    }[layout]()
    before, above = x.clone(), torch.randn(x.shape, device=DEVICE)
    y, _ = kernels.quantized(x, scale, None, -8.0, 7.0)
    saved, needs, limits = (x, scale, None), (True, True, False), (-8.0, 7.0, straight)
    of_input, of_scale, _ = kernels.gradients(above, saved, needs, limits)
    slow = _on_cpu(lambda g, x, s: fused._gradients(g, (x, s, None), needs, limits), above, x, scale)
    expected = _on_cpu(fused.fake_quantize, x, scale, None, -8.0, 7.0)
    assert torch.equal(before, x)
    assert (expected.stride(), True) == (y.stride(), torch.equal(_bits(expected), _bits(y)))
    assert torch.equal(slow[0], of_input.cpu())
    assert pytest.approx(slow[1].numpy(), rel=1e-5, abs=1e-5) == of_scale.cpu().numpy()


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("shape", ["tensor", "channels", "last", "empty"])
def test_which_were_not_clamped(kernels, shape, shifted):
    """The mask has a byte for each value: 1 where the code was not clamped, 0 where it was."""
    x, scale, zero_point, _ = _tensors(SHAPES[shape], torch.float32, shifted)
    _, inside = kernels.quantized(x, scale, zero_point, -8.0, 7.0, masked=True)
    codes = torch.round(x / scale + (0.0 if zero_point is None else zero_point))
    assert (torch.int8, ((codes >= -8) & (codes <= 7)).int().tolist()) == (inside.dtype, inside.int().tolist())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("needs", [(True, False, False), (True, True, False), (True, True, True), (True, False, True)])
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(kernels, shape, straight, needs, dtype):
    """That of the input is that of the function on the CPU, exactly; those of scale and zero-point, up to rounding."""
    x, scale, zero_point, above = _tensors(SHAPES[shape], dtype, needs[2])
    limits = (-8.0, 7.0, straight)
    grads = kernels.gradients(above, (x, scale, zero_point), needs, limits)
    slow = _on_cpu(lambda g, x, s, z: fused._gradients(g, (x, s, z), needs, limits), above, x, scale, zero_point)
    assert [grad is None for grad in slow] == [grad is None for grad in grads]
    assert torch.equal(slow[0], grads[0].cpu())
    for grad, reference in zip(grads[1:], slow[1:], strict=True):
        if grad is not None:  # sums of many terms of up to 8 steps, in another order
            bound = x.numel() * 8 * torch.finfo(dtype).eps
            assert (reference.shape, reference.dtype) == (grad.shape, grad.dtype)
            assert torch.allclose(reference, grad.cpu(), rtol=1e-6, atol=bound)


@pytest.mark.parametrize("straight", [False, True])
def test_hard_gradients(kernels, straight):
    """Clipped values and NaN receive zero, even of an infinite gradient, unless clipping passes gradients."""
    x = torch.tensor([0.3, 99.0, math.nan, 0.3], device=DEVICE)
    scale = torch.tensor(0.1, device=DEVICE)
    above = torch.tensor([2.0, math.inf, 5.0, math.inf], device=DEVICE)
    of_input, *_ = kernels.gradients(above, (x, scale, None), (True, True, False), (-8.0, 7.0, straight))
    expected = [2.0, math.inf, 5.0, math.inf] if straight else [2.0, 0.0, 0.0, math.inf]
    assert expected == of_input.tolist()


def test_sums_do_not_change(kernels):
    """The gradient of a scale is the same number each time."""
    x, scale, zero_point, above = _tensors(SHAPES["large tensor"], torch.float32, True)
    seen = {
        kernels.gradients(above, (x, scale, zero_point), (True, True, True), (-8.0, 7.0, False))[1].item()
        for _ in range(3)
    }
    assert 1 == len(seen)


# --- compiled code ---------------------------------------------------------------------------------------------------

POINTERS = {
    "_quantize_kernel": ("x", "scale", "zero_point", "y"),
    "_gradients_kernel": ("grad", "x", "scale", "zero_point", "of_input", "sums"),
}
CONSTANTS = {
    "_quantize_kernel": {"MASKED": True, "BLOCK": 1024},
    "_gradients_kernel": {"STRAIGHT": False, "ROWS": 4, "COLUMNS": 256, "REPEATS": 8},
}


@pytest.mark.parametrize("channels", [None, 1])  # integers that are 1 are compiled as such
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("name", POINTERS)
def test_compiled(tmp_path, monkeypatch, name, dtype, shifted, channels):
    """Kernels compile for GPUs, without one; divisions are rounded to nearest, and values are not contracted."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(_loaded(interpreted=False), name)
    constants = {**CONSTANTS[name], "SHIFTED": shifted} | ({} if channels is None else {"channels": channels})
    types = {**dict.fromkeys(POINTERS[name], f"*{dtype}"), "inside": "*i8", "low": "fp32", "high": "fp32"}
    signature = {arg: "constexpr" if arg in constants else types.get(arg, "i32") for arg in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, signature, constexprs=constants)
    compiled = triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 80, 32))
    text = compiled.asm["ptx"]
    assert {f"div.rn.f{dtype[2:]}"} == set(re.findall(r"div\.[\w.]*f\d+", text))
    assert (name == "_gradients_kernel") == ("fma." in text)  # sums alone
