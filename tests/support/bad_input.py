"""What bad input does to layers and recipes: tried, case by case, and written to ``docs/bad_input.rst``.

``python tests/support/bad_input.py`` tries all and writes the page; a test compares.
"""

import copy
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from brevq.errors import BrevqError
from brevq.graph import calibrating

sys.path.insert(0, str(Path(__file__).parents[2]))  # where this file is run as a script

from tests.support import table

PAGE = Path(__file__).parents[2] / "docs" / "bad_input.rst"
MODES = ("training", "calibration", "evaluation")
#: The family that all layers have, and the layers that all families are in.
FAMILY, LAYERS = "int8, channel", ("QuantLinear", "QuantIdentity")

_ALIKE = "as the float layer"
_EQUAL = "as contiguous"
_ZERO = "zero where the float layer gives zero"
_CONSTANT = "constant where the float layer is"
_FINITE = "finite where the float layer is"
_ELSEWHERE = "finite, but for where the float layer is not"
_NAN = "NaN where the float layer is not finite, and only there"
_SPREAD = "not finite there, and in all that shares a scale"
_SATURATES = "saturates"
_REFUSED = "an error that names the layer"
_UNNAMED = "an error that does not name the layer"
_GRADIENT = "right gradients, or torch's error"
_WORKS = "an output, where the float layer fails"
_COUNTED = "it is counted"
_BROKEN = "the layer's own statistics are no longer finite"


class Network(nn.Module):
    """A network of one layer, which errors call `layer`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any) -> Any:
        """What the layer returns."""
        return self.layer(*inputs)


@attrs.frozen
class Subject:
    """A layer with a family of recipes."""

    layer: str
    family: str

    @property
    def case(self) -> table.Case:
        """How to make the layer, and what to call it with."""
        return table.CASES[self.layer]

    def made(self, quantized: bool = True) -> nn.Module:
        """A network of the layer, quantized or not; always with the same parameters, its biases zero."""
        torch.manual_seed(0)
        network = Network(self.case.make(table.FAMILIES[self.family] if quantized else None))
        for name, parameter in network.named_parameters():
            if name.rpartition(".")[2].startswith(("bias", "in_proj_bias")):
                nn.init.zeros_(parameter)
        return network

    def inputs(self, seed: int = 1) -> tuple[Any, ...]:
        """Good input."""
        torch.manual_seed(seed)
        return self.case.inputs()


def subjects() -> list[Subject]:
    """All layers with one family, and all families in some layers."""
    layers = [Subject(layer, FAMILY) for layer in table.CASES]
    families = [Subject(layer, family) for family in table.FAMILIES for layer in LAYERS if family != FAMILY]
    return layers + families


def _pairs(ours: Any, theirs: Any) -> list[tuple[Tensor, Tensor]]:
    """The tensors of two outputs."""
    return list(zip(table.leaves(ours), table.leaves(theirs), strict=True))


def _is_finite(output: Any) -> bool:
    return all(bool(leaf.isfinite().all()) for leaf in table.leaves(output))


def _alike(ours: Any, twin: Any, contiguous: Any) -> str:
    same = all((a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) for a, b in _pairs(ours, twin))
    return _ALIKE if same else "of another shape, dtype or device than the float layer's"


def _finite(ours: Any, twin: Any, contiguous: Any) -> str:
    if not _is_finite(twin):
        return _ELSEWHERE
    return _FINITE if _is_finite(ours) else "not finite"


def _zeros(ours: Any, twin: Any, contiguous: Any) -> str:
    if not _is_finite(ours):
        return "not finite"
    same = all(bool((one[other == 0] == 0).all()) for one, other in _pairs(ours, twin))
    return _ZERO if same else "finite, not zero"


def _constant(ours: Any, twin: Any, contiguous: Any) -> str:
    if not _is_finite(ours):
        return "not finite"
    same = all(one.unique().numel() <= max(1, other.unique().numel()) for one, other in _pairs(ours, twin))
    return _CONSTANT if same else "finite, not constant"


def _nan(ours: Any, twin: Any, contiguous: Any) -> str:
    if not all(bool(one[~other.isfinite()].isnan().all()) for one, other in _pairs(ours, twin)):
        return "NaN is lost"
    exact = all(torch.equal(one.isnan(), ~other.isfinite()) for one, other in _pairs(ours, twin))
    return _NAN if exact else _SPREAD


def _infinite(ours: Any, twin: Any, contiguous: Any) -> str:
    clipped = all(bool(one[~other.isnan()].isfinite().all()) for one, other in _pairs(ours, twin))
    return _SATURATES if clipped else _SPREAD


def _equal(ours: Any, twin: Any, contiguous: Any) -> str:
    # Torch may sum in another order in another layout: the last digit differs, and a value between two codes may fall
    # on either.
    close = [torch.isclose(one, other, rtol=1e-5, atol=1e-6) for one, other in _pairs(ours, contiguous)]
    return _EQUAL if all(places.float().mean() >= 0.9 for places in close) else "different"


def _at(number: float) -> Callable[[Tensor], Tensor]:
    """A tensor with a number as its sixth value."""

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x.view(-1)[5] = number
        return x

    return spoil


def _full(number: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.full_like(x, number)


def _signs(number: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x.sign() * number


def _alternating(number: float) -> Callable[[Tensor], Tensor]:
    return lambda x: number * (1 - 2 * (torch.arange(x.numel()) % 2)).to(x).view(x.shape)


def _strided(x: Tensor) -> Tensor:
    return torch.stack([x, torch.ones_like(x)], dim=-1)[..., 0]


def _transposed(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def _laid(dims: int, layout: torch.memory_format) -> Callable[[Tensor], Tensor | None]:
    return lambda x: x.contiguous(memory_format=layout) if x.dim() == dims else None


def _indices(spoil: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor | None]:
    return lambda x: None if x.is_floating_point() else spoil(x)


@attrs.frozen
class Kind:
    """A kind of bad input."""

    name: str
    #: Makes a good tensor bad; None if it can not be bad in this way.
    spoil: Callable[[Tensor], Tensor | None]
    #: Says in words what an output is, beside that of the float layer and that for a contiguous copy of the input.
    judge: Callable[[Any, Any, Any], str]
    #: Whether statistics may count it as data; if not, it has to leave all state as it was.
    data: bool = False
    #: Whether indices can be bad in this way too.
    indices: bool = False
    dtype: torch.dtype = torch.float32
    #: Whether the input is changed after the call, before the gradients are computed.
    changed: bool = False

    def inputs(self, good: Any) -> Any:
        """Bad input; None where there is none of this kind."""
        tensors = [leaf for leaf in pytree.tree_leaves(good) if isinstance(leaf, Tensor)]
        if not self.indices and not all(tensor.is_floating_point() for tensor in tensors):
            return None
        bad = [self.spoil(tensor) for tensor in tensors]
        if any(tensor is None for tensor in bad):
            return None
        remaining = iter(bad)
        return pytree.tree_map_only(Tensor, lambda _: next(remaining), good)


KINDS = [
    Kind("no samples", lambda x: x[:0], _alike, indices=True),
    Kind("a dimension of zero", lambda x: x[..., :0], _alike, indices=True),
    Kind("one sample", lambda x: x[:1], _alike, data=True, indices=True),
    Kind("no dimensions", lambda x: x.flatten()[0], _alike, data=True, indices=True),
    Kind("one dimension", lambda x: x.flatten()[:7], _alike, data=True, indices=True),
    Kind("too many dimensions", lambda x: x[(None,) * 4], _alike, data=True, indices=True),
    Kind("too few features", lambda x: x[..., :2] if x.dim() <= 3 else x[:, :2], _alike, data=True),
    Kind("zeros", _full(0.0), _zeros, data=True),
    Kind("minus zeros", _full(-0.0), _zeros, data=True),
    Kind("a constant", _full(1.7), _constant, data=True),
    Kind("denormals: 1e-40", _signs(1e-40), _finite, data=True),
    Kind("large: 1e30", _signs(1e30), _finite, data=True),
    Kind("one value of 3e38", _at(3e38), _finite, data=True),
    Kind("all of 3e38", _signs(3e38), _finite, data=True),
    Kind("3e38 and -3e38 in turn", _alternating(3e38), _finite, data=True),
    Kind("float16: one value of 65504", _at(65504.0), _finite, data=True, dtype=torch.float16),
    Kind("float16: denormals, 6e-8", _signs(6e-8), _finite, data=True, dtype=torch.float16),
    Kind("a NaN", _at(float("nan")), _nan),
    Kind("an infinity", _at(float("inf")), _infinite),
    Kind("a negative infinity", _at(float("-inf")), _infinite),
    Kind("strided", _strided, _equal, data=True, indices=True),
    Kind("transposed", _transposed, _equal, data=True, indices=True),
    Kind("expanded", lambda x: x[:1].expand_as(x), _equal, data=True, indices=True),
    Kind("channels_last", _laid(4, torch.channels_last), _equal, data=True),
    Kind("channels_last_3d", _laid(5, torch.channels_last_3d), _equal, data=True),
    Kind("integers", lambda x: x.long(), _alike),
    Kind("Booleans", lambda x: x > 0, _alike),
    Kind("complex numbers", lambda x: x.to(torch.complex64), _alike),
    Kind("float64 in a float32 layer", lambda x: x.double(), _alike, data=True),
    Kind("indices in float", _indices(lambda x: x.float()), _alike, indices=True),
    Kind("negative indices", _indices(lambda x: -1 - x), _alike, indices=True),
    Kind("another device: meta", lambda x: x.to("meta"), _alike, indices=True),
    Kind("changed in place afterwards", lambda x: x.clone().requires_grad_(), _alike, data=True, changed=True),
]

_NORMS, _ALL = ("QuantBatchNorm1d", "QuantBatchNorm2d"), ()
_INTEGERS = ("TruncAvgPool2d", "TruncAdaptiveAvgPool2d", "TruncQAccumulator", "ClampQAccumulator")

#: Why there are exceptions: the outcome; parts of the names of what it is for, a kind of input, a layer or a family,
#: of which one has to fit (none: for all); and the reason. The first that fits counts.
REASONS: list[tuple[str, tuple[str, ...], str]] = [
    (f"{_ALIKE}; {_COUNTED}", _NORMS, "Batch normalization counts batches, as the float layer does."),
    (
        f"{_ALIKE}; {_COUNTED}",
        ("QuantScaledDotProductAttention",),
        "Without features the products are sums of nothing: zeros, which are counted.",
    ),
    (f"{_ALIKE}; {_COUNTED}", ("QuantSigmoid", "QuantTanh"), "Torch makes floating-point numbers of them."),
    (
        f"{_ALIKE}; {_COUNTED}",
        ("QuantEmbedding", "QuantEmbeddingBag"),
        "Torch looks indices up without asking where they are.",
    ),
    (
        _ALIKE,
        ("integers", "Booleans", "complex", "meta"),
        "It does not quantize its input, and raises torch's error, or computes what the float layer does.",
    ),
    (_REFUSED, ("QuantRNN", "QuantLSTM", "QuantGRU"), "The first dimension is time, and time has at least one step."),
    (_REFUSED, ("int4, group", "MX", "NVFP4"), "There is no axis for groups."),
    (_REFUSED, _ALL, "The layer checks the shape itself."),
    (
        f"{_REFUSED}; {_COUNTED}",
        ("QuantScaledDotProductAttention",),
        "Queries times a factor are floating-point numbers; the keys are refused.",
    ),
    (
        _UNNAMED,
        ("no dimensions",),
        "There is no axis for tokens. The error names the axis.",
    ),
    (_WORKS, _NORMS, "It computes in float64 what is in float64."),
    ("finite, not zero", ("binary",), "The codes are -1 and 1: there is none for zero."),
    (
        "not finite",
        ("QuantScaledDotProductAttention",),
        "Products of queries and keys overflow. The float layer's kernel sums in a wider format, or gives zeros.",
    ),
    ("not finite", ("QuantRNN", "QuantLSTM", "QuantGRU"), "The sums overflow before the function that limits them."),
    (_ELSEWHERE, _ALL, "The float layer overflows."),
    (f"{_FINITE}; {_BROKEN}", _NORMS, "It averages squares, which overflow in the float layer too."),
    (f"{_ELSEWHERE}; {_BROKEN}", _NORMS, "It averages squares, which overflow in the float layer too."),
    (f"{_SPREAD}; {_BROKEN}", _NORMS, "It averages whatever it is given, as the float layer does."),
    (
        f"{_SPREAD}; {_COUNTED}",
        ("zero-point",),
        "Only the range is infinite. The lowest value is not, and the zero-point's statistic counts it.",
    ),
    (_NAN, ("binary", "learned scale"), "The scale does not depend on the batch."),
    (_NAN, _ALL, "All that the scale is shared with is not finite in the float layer either, or the scale is fixed."),
    (_SPREAD, _ALL, "The scale comes from the values at hand, of which one is not finite."),
    (_SATURATES, ("binary", "ternary", "learned scale", *_INTEGERS), "The scale does not depend on the batch."),
    (_SATURATES, ("power of two",), "The largest power of two is the scale."),
    (_SATURATES, _ALL, "What the function makes of it is finite, or NaN in the float layer too."),
    (f"{_SATURATES}; {_COUNTED}", ("power of two",), "The largest power of two is the scale; the output is finite."),
    (f"{_SATURATES}; {_COUNTED}", _ALL, "What the function makes of it is finite."),
]


def reason(kind: str, outcome: str, subject: Subject) -> str | None:
    """Why a subject is an exception; None if nobody has said so."""
    for what, parts, why in REASONS:
        if what == outcome and (not parts or any(part in (kind, *kind.split(), *_names(subject)) for part in parts)):
            return why
    return None


class Bench:
    """A layer in a mode, ready for bad input, and what it makes of good input without any bad before."""

    def __init__(self, subject: Subject, mode: str, dtype: torch.dtype) -> None:
        self.subject, self.mode, self.dtype = subject, mode, dtype
        self.layer = subject.made().to(dtype).train(mode == "training")
        self.twin = subject.made(quantized=False).to(dtype).train(mode == "training")
        self.good = table.converted(subject.inputs(), dtype)
        self.other = table.converted(subject.inputs(2), dtype)
        for layer in (self.layer, self.twin):
            if mode == "training":
                layer(*self.good)
            if mode == "evaluation":
                with calibrating(layer):
                    layer(*self.good)
        # A copy that came to no harm serves again, which is faster than another; so does a twin that can not change.
        self._unharmed: nn.Module | None = None
        self._twin_has_state = any(True for _ in self.twin.buffers())
        self._before = copy.deepcopy(self.layer.state_dict())
        undisturbed = copy.deepcopy(self.layer)
        self.called(undisturbed, ())
        self.expected = self.reaction(undisturbed)

    def called(self, layer: nn.Module, *calls: tuple[Any, ...]) -> Any:
        """What a layer returns for the last of some inputs, if there are any; in calibration good ones come first."""
        calls = tuple(filter(None, calls))
        if self.mode != "calibration":
            return [layer(*inputs) for inputs in calls][-1:]
        with calibrating(layer):
            layer(*self.good)
            try:
                return [layer(*inputs) for inputs in calls][-1:]
            except Exception as error:  # noqa: BLE001  # the user goes on calibrating
                failed = error
        raise failed

    def reaction(self, layer: nn.Module) -> list[Tensor]:
        """What a layer makes of other good input, and its state afterwards."""
        output = layer(*self.other)
        return [leaf.detach() for leaf in (*table.leaves(output), *layer.state_dict().values())]

    def tried(self, kind: Kind) -> str | None:
        """What bad input does, in words; None where there is none of this kind."""
        bad = kind.inputs(self.good)
        if bad is None:
            return None
        layer = self._unharmed or copy.deepcopy(self.layer)
        self._unharmed = None
        twin = copy.deepcopy(self.twin) if self._twin_has_state else self.twin
        did = self._changed(layer, bad) if kind.changed else self._outcome(kind, layer, twin, bad)
        became = self._state(layer, twin)
        if became == "":
            layer.load_state_dict(self._before)
            self._unharmed = layer
        return did if became == "" or (kind.data and became == _COUNTED) else f"{did}; {became}"

    def _outcome(self, kind: Kind, layer: nn.Module, twin: nn.Module, bad: Any) -> str:
        """What a layer returns or raises."""
        expected, failed = None, None
        try:
            expected = self.called(twin, bad)
        except Exception as error:  # noqa: BLE001  # which one it is, is the result
            failed = error
        contiguous = None
        if kind.judge is _equal:
            alike = pytree.tree_map_only(Tensor, Tensor.contiguous, bad)
            contiguous = self.called(copy.deepcopy(self.layer), alike)
        try:
            output = self.called(layer, bad)
        except BrevqError as error:
            return _REFUSED if "`layer" in str(error) else _UNNAMED
        except Exception:  # noqa: BLE001  # that there is one is the result
            return _ALIKE if failed else _UNNAMED
        return _WORKS if expected is None else kind.judge(output, expected, contiguous)

    def _changed(self, layer: nn.Module, bad: Any) -> str:
        """Whether the gradients are those of the values that the layer was called with."""

        def gradients(layer: nn.Module, inputs: Any, change: bool) -> list[Tensor]:
            given = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
            output = table.total(self.called(layer, inputs))
            with torch.no_grad():
                for leaf in given if change else ():
                    leaf.mul_(-3)
            output.backward()
            found = [leaf.grad for leaf in (*given, *layer.parameters())]
            layer.zero_grad()
            return [torch.zeros(()) if gradient is None else gradient for gradient in found]

        fresh = pytree.tree_map_only(Tensor, lambda x: x.detach().clone().requires_grad_(), bad)
        expected = gradients(copy.deepcopy(self.layer), fresh, change=False)
        try:
            ours = gradients(layer, bad, change=True)
        except RuntimeError as error:
            return _GRADIENT if "modified by an inplace operation" in str(error) else str(error)
        same = all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))
        return _GRADIENT if same else "wrong gradients"

    def _state(self, layer: nn.Module, twin: nn.Module) -> str:
        """What has become of a layer, beside one that never saw bad input; nothing if they are equal."""
        ours = self.reaction(layer)
        if all(torch.equal(one, other) for one, other in zip(ours, self.expected, strict=True)):
            return ""
        if all(bool(leaf.isfinite().all()) for leaf in ours):
            return _COUNTED
        broken = not all(bool(buffer.isfinite().all()) for buffer in twin.buffers())
        return _BROKEN if broken else "its state is spoiled"


Row = dict[str, dict[Subject, str]]


def results(chosen: list[Subject] | None = None) -> dict[str, Row]:
    """What happens, by kind of input, mode, and subject."""
    found: dict[str, Row] = {kind.name: {mode: {} for mode in MODES} for kind in KINDS}
    for subject in subjects() if chosen is None else chosen:
        for mode in MODES:
            benches = {dtype: Bench(subject, mode, dtype) for dtype in (torch.float32, torch.float16)}
            for kind in KINDS:
                outcome = benches[kind.dtype].tried(kind)
                if outcome is not None:
                    found[kind.name][mode][subject] = outcome
    return found


def usual(outcomes: dict[Subject, str]) -> str:
    """What happens in most cases."""
    return Counter(outcomes.values()).most_common(1)[0][0]


def exceptions(kind: str, row: Row) -> Iterator[tuple[str, str, list[Subject], str | None]]:
    """Outcomes that are not the usual ones: the outcome, the modes, the subjects, and the reason."""
    groups: dict[tuple[str, str | None], dict[str, list[Subject]]] = {}
    for mode, outcomes in row.items():
        expected = usual(outcomes)
        for subject, outcome in outcomes.items():
            if outcome != expected:
                modes = groups.setdefault((outcome, reason(kind, outcome, subject)), {})
                modes.setdefault(mode, []).append(subject)
    for (outcome, why), by_mode in groups.items():
        alike: dict[tuple[Subject, ...], list[str]] = {}
        for mode, those in by_mode.items():
            alike.setdefault(tuple(those), []).append(mode)
        for those_, modes_ in alike.items():
            yield outcome, "" if len(modes_) == len(MODES) else " and ".join(modes_), list(those_), why


def _names(subject: Subject) -> tuple[str, ...]:
    """What the reasons call a subject: its layer where that is what is tried, else its family too."""
    return (subject.layer,) if subject.family == FAMILY else (subject.family,)


def names(those: list[Subject]) -> str:
    """Layers, families, and families in one of the layers only."""
    layers = [f"`{subject.layer}`" for subject in those if subject.family == FAMILY]
    families: dict[str, list[str]] = {}
    for subject in those:
        if subject.family != FAMILY:
            families.setdefault(subject.family, []).append(subject.layer)
    by_layers: dict[tuple[str, ...], list[str]] = {}
    for family, of in families.items():
        by_layers.setdefault(tuple(of), []).append(f"*{family}*")
    told = [
        ", ".join(these) + ("" if len(of) == len(LAYERS) else f" in {' and '.join(f'`{layer}`' for layer in of)}")
        for of, these in by_layers.items()
    ]
    return "; ".join(filter(None, [", ".join(layers), *told]))


_PAGE = """
Bad input
=========

.. Written by ``python tests/support/bad_input.py``, which tries every case.

Every layer, with 8-bit recipes per channel, and every family of recipes, in {layers}, was
given the inputs below: in training, in calibration, and calibrated in evaluation. The page says what happened. What
*the float layer* does, the same layer without quantizers, is the measure: where it raises an error, so does the
quantized one, torch's or one of its own.

After each input came a good one, whose output, and the layer's state after it, were held against those of a copy of
the layer that saw nothing bad. They were equal: statistics count no batch that is empty, or whose statistic is NaN or
infinite, and nothing that was refused because of its dtype. What is finite is data to them, however large or small.
That goes for input of a wrong shape too, or in another floating-point dtype: the quantizer of the input has seen its
values when the layer refuses it. No exception says *its state is spoiled*.

To learn which layer of a model is the first to make something that is not finite, see `brevq.debug.check_finite`.

.. list-table::
   :header-rows: 1
   :widths: 22 26 26 26

   * - input
     - training
     - calibration
     - evaluation
{rows}

Exceptions
----------

{exceptions}

What the words mean
-------------------

as the float layer
   The output has its shape, dtype and device, or there is an error where it has one.
as contiguous
   The output is that for a contiguous copy of the input, up to the rounding of torch's sums.
right gradients
   They are those of the values that the layer was called with; otherwise torch says that what it needs was changed.
saturates
   The output is finite wherever that of the float layer is not NaN: an infinity becomes the end of the grid.
it is counted
   Statistics take it for data, or the layer counts a batch.
"""


def page(found: dict[str, Row]) -> str:
    """The page that tells what happens."""
    rows, told = [], []
    for kind, row in found.items():
        rows.append(f"   * - {kind}")
        rows += [f"     - {usual(row[mode])}" for mode in MODES]
        lines = []
        for outcome, modes, those, why in exceptions(kind, row):
            line = f"- {outcome}{f', in {modes}' if modes else ''}: {names(those)}. {why}"
            lines += textwrap.wrap(line, 116, initial_indent="   ", subsequent_indent="     ")
        if lines:
            told += [kind, *lines, ""]
    layers = " and ".join(f"`{layer}`" for layer in LAYERS)
    return _PAGE.lstrip().format(layers=layers, rows="\n".join(rows), exceptions="\n".join(told).rstrip())


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(results()), encoding="utf-8")
