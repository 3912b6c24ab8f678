"""The summary of a model."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import attrs
from torch import nn
from torch.nn.parameter import is_lazy

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.overview import page, text
from brevq.overview.records import Record, learned_by_quantizers, records_of
from brevq.overview.rows import folded
from brevq.overview.totals import totals

_LAZY = "`{name}` has no shape yet: call the model on a batch once, which builds its lazy layers"


@attrs.frozen(repr=False)
class Summary:
    """What a model is made of. It prints as a table, shows itself in notebooks, and has the numbers as records.

    Args:
        name: class of the model.
        records: one for each parameter, and for each tensor that is quantized as it flows.
        kinds: class of each module, by its path.
        also: other paths at which a layer is part of the model.
        learned: how many numbers training moves in quantizers: ranges, bit widths, roundings. They are no parameters of
            the layers, and are not counted as such.
        depth: how many levels of modules `text` shows apart; None for all.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> table = summary(QuantLinear(64, 10, weight_bit_width=4))
        >>> table.parameters, table.bytes, table.float_bytes, round(table.times_smaller, 2)
        (650, 364, 2600, 7.14)
        >>> table.to_dicts()[0]["recipe"], table.in_float
        ('Int8WeightPerTensor.let(bit_width=4)', ('bias',))
    """

    name: str
    records: tuple[Record, ...]
    kinds: Mapping[str, str]
    also: Mapping[str, tuple[str, ...]]
    learned: int
    depth: int | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters, each once."""
        return sum(record.parameters for record in self.records)

    @property
    def quantized_parameters(self) -> int:
        """Number of parameters that are quantized."""
        return sum(record.parameters for record in self.records if not record.in_float)

    @property
    def bytes(self) -> int:
        """What the parameters take, quantized where they are."""
        return sum(record.bytes for record in self.records)

    @property
    def float_bytes(self) -> int:
        """What the parameters take as they are in memory now."""
        return sum(record.float_bytes for record in self.records)

    @property
    def times_smaller(self) -> float:
        """How many times smaller quantization makes the parameters; 1 of a model without any."""
        return self.float_bytes / self.bytes if self.bytes else 1.0

    @property
    def in_float(self) -> tuple[str, ...]:
        """Paths of the parameters that stayed in float."""
        return tuple(record.path for record in self.records if record.in_float)

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Paths of the activations whose quantizers have seen no data."""
        return tuple(record.path for record in self.records if record.phase == "empty" and record.role == "activation")

    def to_dicts(self) -> list[dict[str, Any]]:
        """The records as dictionaries of plain values, for `json.dumps` or `pandas.DataFrame`."""
        return [attrs.asdict(record) for record in self.records]

    def text(self, width: int = 120) -> str:
        """The table as text.

        Args:
            width: how many characters a line may have; columns that do not fit are left out, and named. Default: 120.

        Raises:
            ArgumentError: the width is below 60.
        """
        if width < text.NARROWEST:
            raise ArgumentError(f"`width` (={width}) must be {text.NARROWEST} characters or more")
        return text.table(folded(self.records, self.kinds, self.depth), totals(self), width)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """The table for notebooks."""
        return page.table(folded(self.records, self.kinds, self.depth), totals(self))


def summary(model: nn.Module, depth: int | None = None) -> Summary:
    """What a model is made of: layers, recipes, bits, scales, parameters, bytes against float, phases of quantizers.

    **Bytes** are those of the parameters. Quantized ones count as codes packed to their bits, each tensor rounded up to
    whole bytes, and what it takes to decode them: 4 bytes for a scale, unless it is a number of a format itself, as in
    block formats, and then the bits of that; for a zero-point the bits of a code, or 4 bytes where it is not rounded to
    one. All others count as they are in memory, and so do all in the comparison with float. Buffers, such as running
    statistics, and scales of activations are no parameters, and do not count. A batch normalization that is quantized
    counts as the scale and bias that it becomes. What several layers share counts once, where it comes first.

    The model is not changed, nothing is observed, and no step is counted. Scales are those of evaluation now; ranges
    that learning would take from the next tensor are shown as they would begin.

    Args:
        model: any module, quantized or not, in whatever phase, on any device, the meta device included.
        depth: how many levels of modules to show apart: below, all is summed up. Default: None, every layer.

    Returns:
        The summary: it prints as a table; `records` and `to_dicts()` have its numbers.

    Raises:
        ArgumentTypeError: `model` is not a module, or `depth` not a whole number.
        ArgumentError: `depth` is below 1, or a layer is built by its first batch, which has not come yet.

    Examples:
        >>> from brevq.nn import QuantLinear, QuantReLU
        >>> from injectors import Int4WeightPerChannel
        >>> _ = nn.init.constant_((layer := QuantLinear(64, 8, weight_quant=Int4WeightPerChannel)).weight, 0.7)
        >>> print(summary(nn.Sequential(layer, QuantReLU(), nn.Linear(8, 2))).text(100))
        layer     recipe                bits      granularity  scale        phase  params  bytes  less
        ──────────────────────────────────────────────────────────────────────────────────────────────
        0  QuantLinear
          weight  Int4WeightPerChannel   4 int    8 channels   0.1                    512    288  7.1x
          bias                          32 float                                        8     32
        1  QuantReLU
          act     Uint8ActPerTensor      8 uint   tensor       no data yet  empty
        2  Linear                       32 float                                       18     72
        ──────────────────────────────────────────────────────────────────────────────────────────────
        parameters   538, of which 512 (95.2%) quantized
        bytes        392, in float 2,152, 5.49 times less; 5.83 bits a parameter
        in float     0.bias, 2
        no data yet  1.act
        learned      1 number in quantizers, besides the parameters above
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    _check_depth(depth)
    _check_built(model)
    records = tuple(records_of(model))
    return Summary(
        name=type(model).__name__,
        records=records,
        kinds={path: type(module).__name__ for path, module in model.named_modules()},
        also=_other_paths(model, {record.layer for record in records}),
        learned=learned_by_quantizers(model),
        depth=depth,
    )


def _check_depth(depth: int | None) -> None:
    if depth is None:
        return
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise ArgumentTypeError(f"`depth` (={depth!r}) must be a whole number of levels, or None for all")
    if depth < 1:
        raise ArgumentError(f"`depth` (={depth}) must be 1 or more levels, or None for all")


def _check_built(model: nn.Module) -> None:
    """Refuse a model with parameters that have no shape before the first batch."""
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ArgumentError(_LAZY.format(name=name))


def _other_paths(model: nn.Module, layers: Container[str]) -> dict[str, tuple[str, ...]]:
    """For the path of each layer that a model has several times, the other paths."""
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    return {first: tuple(others) for first, *others in paths.values() if others and first in layers}
