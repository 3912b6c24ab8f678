"""A layer as a page: its quantizers, its weight on the grid, and its scales."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from brevq.drawing import attempt, fold, page, paragraph, section, short_number, table
from brevq.quant_tensor import QuantTensor
from brevq.quant_tensor.page import views
from brevq.quantizer import Grid, Quantizer
from brevq.quantizer.page import look, quantizer_views, still, weight_of

#: Up to how many quantizers are shown one by one.
_MOST = 24


def page_of(layer: Any) -> str:
    """A layer as a page for notebooks. It changes nothing, and never raises.

    Args:
        layer: a layer that takes recipes.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> "Int8WeightPerTensor" in page_of(QuantLinear(2, 2))
        True
    """
    arguments = attempt(lambda: paragraph(layer.extra_repr()) if layer.extra_repr() else "", "arguments")
    quantizers = [(name, part) for name, part in layer.named_modules() if isinstance(part, Quantizer)]
    weight = next((part for name, part in quantizers if name == "weight_quant"), None)
    with torch.no_grad():
        return page(
            type(layer).__name__,
            arguments,
            attempt(lambda: _table(layer, quantizers), "its quantizers"),
            "" if weight is None else section("Weight", attempt(lambda: _weight(layer, weight), "its weight")),
            *(
                fold(_title(name, part), *quantizer_views(part, part is not weight))
                for name, part in quantizers[:_MOST]
            ),
        )


def _title(name: str, quantizer: Quantizer) -> str:
    return f"{name}: {quantizer.recipe.__name__}"


def _table(layer: nn.Module, quantizers: list[tuple[str, Quantizer]]) -> str:
    """All quantizers, one a row, and the arguments that have none."""
    absent = [name for name in getattr(layer, "quants", {}) if getattr(layer, name, None) is None]
    rows = [_row(name, quantizer) for name, quantizer in quantizers]
    rows += [(name, "none: float", "", "", "") for name in absent]
    return table(["quantizer", "recipe", "grid", "granularity", "phase"], rows)


def _row(name: str, quantizer: Quantizer) -> tuple[str, ...]:
    granularity = quantizer.granularity
    return (
        name,
        quantizer.recipe.__name__,
        "" if quantizer.grid.is_meta else str(Grid.read(quantizer.grid)),
        "" if granularity is None else type(granularity).__name__,
        "" if quantizer.phase is None else str(quantizer.phase),
    )


def _weight(layer: Any, quantizer: Quantizer) -> str:
    """The weight as evaluation would quantize it now."""
    weight = weight_of(layer)
    context: tuple[torch.Tensor, ...] = ()
    if quantizer.needs_input:
        x: QuantTensor = still(layer.input_quant).current()
        context = (x.bit_width, torch.tensor(x.signed, device=weight.device))
    quantized = look(quantizer, weight, *context)
    error = (quantized.value - weight).double().square().mean().sqrt()
    size = weight.double().square().mean().sqrt()
    moved = paragraph(f"root mean square {short_number(size.item())}, of the error {short_number(error.item())}")
    return "".join(views(quantized)) + moved
