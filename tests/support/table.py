"""What layers and recipes do together, tried cell by cell."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import attrs
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import brevq.nn as qnn
import injectors
from brevq.errors import BrevqError
from brevq.graph import calibrating
from brevq.nn.arguments import role_of
from brevq.quant_tensor import plain


@attrs.frozen
class Family:
    """Recipes of one kind, by role; None stays in float."""

    weight: Any
    activation: Any
    bias: Any = injectors.Int32Bias
    truncation: Any = injectors.Int8Trunc

    def of(self, argument: str) -> Any:
        """The recipe for an argument of a layer."""
        return getattr(self, role_of(argument))


_ACT = injectors.Int8ActPerTensor
FAMILIES = {
    "int8, tensor": Family(injectors.Int8WeightPerTensor, _ACT),
    "int8, channel": Family(injectors.Int8WeightPerChannel, _ACT),
    "int4, group": Family(injectors.Int4WeightPerGroup, injectors.Int8ActPerGroupDynamic, None),
    "power of two": Family(injectors.Int8WeightPerChannelPoT, injectors.Int8ActPerTensorPoT),
    "zero-point": Family(injectors.ShiftedUint8WeightPerTensor, injectors.ShiftedUint8ActPerTensor),
    "learned scale": Family(injectors.Int8WeightPerTensorLSQ, injectors.Int8ActPerTensorLSQ),
    "learned bits": Family(injectors.Int8WeightPerTensorLearnedBits, injectors.Int8ActPerTensorLearnedBits),
    "searched": Family(injectors.Int8WeightPerChannelMSE, injectors.Int8ActPerTensorMSE),
    "learned rounding": Family(injectors.Int4WeightPerTensorAdaRound, _ACT),
    "accumulator": Family(injectors.Int8WeightPerChannelA2Q, _ACT),
    "binary": Family(injectors.BinaryWeightPerChannel, injectors.BinaryActPerTensor, None),
    "ternary": Family(injectors.TernaryWeightPerChannel, injectors.TernaryActPerTensorConst),
    "dynamic": Family(injectors.Int8WeightPerChannel, injectors.Int8ActPerTokenDynamic, None),
    "FP8": Family(injectors.Fp8e4m3OCPWeightPerChannel, injectors.Fp8e4m3OCPActPerTensor, None),
    "MX": Family(injectors.MXFp4Weight, injectors.MXFp8e4m3Act, None),
    "NVFP4": Family(injectors.NVFP4Weight, injectors.NVFP4Act, None),
}


@attrs.frozen
class Case:
    """A layer, small, and something to call it with."""

    kind: Any
    args: tuple[Any, ...]
    inputs: Callable[[], tuple[Any, ...]]
    #: Whether the layer takes quantized tensors alone, so that one has to come before it.
    behind: bool = False
    #: Recipe of the bias where that of the family does not fit.
    bias: Any = None

    def make(self, family: Family | None) -> nn.Module:
        """The layer with the recipes of a family in all places; without any for None."""
        if self.bias is not None and family is not None:
            family = attrs.evolve(family, bias=self.bias)
        quants = {argument: None if family is None else family.of(argument) for argument in self.kind.quants}
        layer: nn.Module = self.kind(*self.args, **quants)
        return Behind(layer, _ACT if family is None else family.activation) if self.behind else layer


class Behind(nn.Module):
    """A layer behind one that quantizes its input."""

    def __init__(self, layer: nn.Module, act_quant: Any) -> None:
        super().__init__()
        self.before = qnn.QuantIdentity(act_quant=act_quant, return_quant_tensor=True)
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        """The layer's output for quantized values."""
        return self.layer(self.before(x))


class Network(nn.Module):
    """A network of one layer, which takes one to three inputs."""

    def __init__(self, layer: nn.Module, inputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.inputs = inputs

    def forward(self, x: Any, y: Any = None, z: Any = None) -> Any:
        """The layer's output."""
        return self.layer(*(x, y, z)[: self.inputs])


def _floats(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: tuple(torch.randn(shape) for shape in shapes)


def _activations() -> dict[str, Case]:
    names = (name for name in qnn.__all__ if getattr(getattr(qnn, name), "quants", {}).keys() == {"act_quant"})
    kinds = {name: getattr(qnn, name) for name in names if name != "QuantActivation"}
    return {
        name: Case(kind, (-1,) if name == "QuantSoftmax" else (), _floats((2, 4, 32))) for name, kind in kinds.items()
    }


CASES = {
    "QuantLinear": Case(qnn.QuantLinear, (32, 8), _floats((3, 32))),
    "QuantConv1d": Case(qnn.QuantConv1d, (32, 8, 3), _floats((2, 32, 7))),
    "QuantConv2d": Case(qnn.QuantConv2d, (32, 8, 3), _floats((2, 32, 5, 5))),
    "QuantConv3d": Case(qnn.QuantConv3d, (32, 4, 2), _floats((1, 32, 3, 3, 3))),
    "QuantConvTranspose1d": Case(qnn.QuantConvTranspose1d, (32, 8, 3), _floats((2, 32, 5))),
    "QuantConvTranspose2d": Case(qnn.QuantConvTranspose2d, (32, 8, 3), _floats((2, 32, 3, 3))),
    "QuantConvTranspose3d": Case(qnn.QuantConvTranspose3d, (32, 4, 2), _floats((1, 32, 2, 2, 2))),
    "QuantEmbedding": Case(qnn.QuantEmbedding, (10, 32), lambda: (torch.randint(10, (2, 5)),)),
    "QuantEmbeddingBag": Case(qnn.QuantEmbeddingBag, (10, 32), lambda: (torch.randint(10, (2, 5)),)),
    "QuantBatchNorm1d": Case(qnn.QuantBatchNorm1d, (32,), _floats((4, 32))),
    "QuantBatchNorm2d": Case(qnn.QuantBatchNorm2d, (32,), _floats((2, 32, 4, 4))),
    "QuantLayerNorm": Case(qnn.QuantLayerNorm, (32,), _floats((2, 4, 32)), bias=injectors.Int8BiasPerTensor),
    "QuantRMSNorm": Case(qnn.QuantRMSNorm, (32,), _floats((2, 4, 32))),
    **_activations(),
    "QuantScaledDotProductAttention": Case(qnn.QuantScaledDotProductAttention, (), _floats(*[(2, 4, 5, 32)] * 3)),
    "QuantMultiheadAttention": Case(qnn.QuantMultiheadAttention, (32, 4), _floats(*[(5, 2, 32)] * 3)),
    "QuantRNN": Case(qnn.QuantRNN, (32, 16), _floats((4, 2, 32))),
    "QuantLSTM": Case(qnn.QuantLSTM, (32, 16), _floats((4, 2, 32))),
    "QuantGRU": Case(qnn.QuantGRU, (32, 16), _floats((4, 2, 32))),
    "TruncAvgPool2d": Case(qnn.TruncAvgPool2d, (2,), _floats((2, 3, 4, 32)), behind=True),
    "TruncAdaptiveAvgPool2d": Case(qnn.TruncAdaptiveAvgPool2d, (1,), _floats((2, 3, 4, 32)), behind=True),
    "TruncQAccumulator": Case(qnn.TruncQAccumulator, (), _floats((2, 4, 32)), behind=True),
    "ClampQAccumulator": Case(qnn.ClampQAccumulator, (), _floats((2, 4, 32)), behind=True),
    "QuantEltwiseAdd": Case(qnn.QuantEltwiseAdd, (), _floats((2, 4, 32), (2, 4, 32))),
    "QuantCat": Case(qnn.QuantCat, (), lambda: (list(_floats((2, 4, 32), (2, 4, 32))()),)),
}


def tried(attempt: Callable[[], None]) -> str:
    """*yes*, or why not: the first line of the library's own error. Other errors are nobody's plan, and pass."""
    try:
        attempt()
    except BrevqError as error:
        return str(error).splitlines()[0]
    return "yes"


def together(case: Case, family: Family) -> Callable[[], None]:
    """A layer with a family of recipes: trained a step, calibrated, evaluated."""

    def attempt() -> None:
        torch.manual_seed(0)
        layer = case.make(family)
        output = total(layer(*case.inputs()))
        if output.requires_grad:
            output.backward()
        check_finite(output, *(p.grad for p in layer.parameters() if p.grad is not None))
        layer.eval()
        inputs = case.inputs()
        with calibrating(layer):
            layer(*inputs)
        check_finite(total(layer(*inputs)))

    return attempt


def total(output: Any) -> Tensor:
    """The sum of all floating-point tensors of an output."""
    leaves = pytree.tree_leaves(pytree.tree_map(plain, output, is_leaf=lambda leaf: hasattr(leaf, "bit_width")))
    return torch.stack([x.float().sum() for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]).sum()


def check_finite(*tensors: Tensor) -> None:
    """Refuse NaN and infinities."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise AssertionError("not finite")


def calibrated(case: Case) -> tuple[nn.Module, tuple[Any, ...]]:
    """A layer in evaluation, calibrated, and inputs."""
    torch.manual_seed(0)
    layer, inputs = case.make(FAMILIES["int8, channel"]).eval(), case.inputs()
    with calibrating(layer):
        layer(*inputs)
    return layer, inputs


def converted(inputs: Any, dtype: torch.dtype) -> Any:
    """Inputs with their floating-point tensors in another dtype."""
    return pytree.tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, inputs)


def equal(ours: Any, theirs: Any) -> None:
    """Refuse outputs that differ."""
    pairs = zip(leaves(ours), leaves(theirs), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        raise AssertionError("outputs differ")


def leaves(output: Any) -> list[Tensor]:
    """The tensors of an output; of quantized ones the values."""
    values = pytree.tree_map(plain, output, is_leaf=lambda leaf: hasattr(leaf, "bit_width"))
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def in_dtype(dtype: torch.dtype) -> Callable[[Case], None]:
    """Training and evaluation of a layer and inputs of a dtype, which the output has too."""

    def attempt(case: Case) -> None:
        torch.manual_seed(0)
        layer, inputs = case.make(FAMILIES["int8, channel"]).to(dtype), converted(case.inputs(), dtype)
        output = layer(*inputs)
        if total(output).requires_grad:
            total(output).backward()
        evaluated = layer.eval()(*inputs)
        for leaf in [*leaves(output), *leaves(evaluated)]:
            if leaf.is_floating_point() and leaf.dtype != dtype:
                raise AssertionError(f"the output is {leaf.dtype}")
        check_finite(total(output), total(evaluated))

    return attempt


def autocast(case: Case) -> None:
    """Training and evaluation where torch chooses bfloat16."""
    layer, inputs = calibrated(case)
    for mode in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            check_finite(total(layer.train(mode)(*inputs)))


def compiles(case: Case) -> None:
    """One graph in training and in evaluation, with outputs equal to those without."""
    for mode in (True, False):
        layer, inputs = calibrated(case)
        layer.train(mode)
        torch._dynamo.reset()
        expected = copy.deepcopy(layer)(*inputs)
        with torch._dynamo.config.patch(allow_rnn=True):  # else torch compiles no subclass of its recurrent layers
            equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(*inputs), expected)


def exports(case: Case) -> None:
    """`torch.export.export`, with outputs equal to those without."""
    layer, inputs = calibrated(case)
    equal(torch.export.export(layer, inputs).module()(*inputs), layer(*inputs))


def traces(case: Case) -> None:
    """`torch.fx.symbolic_trace`, with outputs equal to those without."""
    layer, inputs = calibrated(case)
    absent = dict.fromkeys(("x", "y", "z")[len(inputs) :])
    traced = torch.fx.symbolic_trace(Network(layer, len(inputs)), concrete_args=absent)
    equal(traced(*inputs), layer(*inputs))


def loads(case: Case) -> None:
    """A state loads strictly into a fresh layer, which then gives equal outputs; a float one into a quantized one."""
    layer, inputs = calibrated(case)
    fresh = case.make(FAMILIES["int8, channel"]).eval()
    fresh.load_state_dict(layer.state_dict())
    equal(fresh(*inputs), layer(*inputs))
    case.make(FAMILIES["int8, channel"]).load_state_dict(case.make(None).state_dict())


def copies(case: Case) -> None:
    """`copy.deepcopy`, `pickle` and `torch.save` keep the outputs."""
    layer, inputs = calibrated(case)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ):
        equal(other(*inputs), layer(*inputs))


def from_meta(case: Case) -> None:
    """A layer made on the meta device, and filled from a checkpoint."""
    layer, inputs = calibrated(case)
    with torch.device("meta"):
        empty = case.make(FAMILIES["int8, channel"])
    empty.to_empty(device="cpu")
    empty.load_state_dict(layer.state_dict())
    equal(empty.eval()(*inputs), layer(*inputs))


ABILITIES: dict[str, Callable[[Case], None]] = {
    "fp32": in_dtype(torch.float32),
    "fp64": in_dtype(torch.float64),
    "bf16": in_dtype(torch.bfloat16),
    "fp16": in_dtype(torch.float16),
    "autocast": autocast,
    "compile": compiles,
    "export": exports,
    "fx": traces,
    "state_dict": loads,
    "copies": copies,
    "meta": from_meta,
}

_INTEGERS = "it works on integers, which these are not"
_ONE_GRID = "it sums integers of one grid, and these have several scales"
_INDICES = "its input is indices, which have no bit width"
_STATES = "the bit width of a state is not known before it is computed"
_POOLS, _SUMS = ("TruncAvgPool2d", "TruncAdaptiveAvgPool2d"), ("TruncQAccumulator", "ClampQAccumulator")

#: Why a layer refuses a family.
REASONS = {
    **{(layer, "accumulator"): _INDICES for layer in ("QuantEmbedding", "QuantEmbeddingBag")},
    **{(layer, "accumulator"): _STATES for layer in ("QuantRNN", "QuantLSTM", "QuantGRU")},
    **{(layer, family): _ONE_GRID for layer in _POOLS for family in ("int4, group", "dynamic")},
    **{(layer, family): _INTEGERS for layer in (*_POOLS, *_SUMS) for family in ("FP8", "MX", "NVFP4")},
}
