"""A quantizer as a page: its recipe, phase and grid, what it makes of what it serves, and its wiring."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from brevq.core.formats import BlockFormat
from brevq.core.function_wrapper import Granularity
from brevq.core.quant import TernaryQuant, TruncIntQuant
from brevq.drawing import Levels, attempt, facts, fold, levels_axis, page, paragraph, section
from brevq.errors import ArgumentError, BrevqError
from brevq.inject import explain
from brevq.inject.analyse import parameters
from brevq.inject.show import view
from brevq.quant_tensor import QuantTensor, Zero
from brevq.quant_tensor.levels import TERNARY, block_note, format_levels, integer_levels
from brevq.quant_tensor.page import readable, views
from brevq.quantizer.grid import Grid
from brevq.quantizer.quantizer import Quantizer

#: Up to how many values a weight may have to be quantized for a page.
_MOST = 2**26
# Attributes of modules that hold what others want to be called with.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Layer:
    """What supplies to a recipe, where only what it supplies is known.

    Args:
        supplied: what it supplies, by name.
    """

    def __init__(self, supplied: Mapping[str, Any]) -> None:
        self.supplied = supplied

    def supplies(self, recipe: Any) -> Mapping[str, Any]:
        """What it supplies, to whatever recipe."""
        return self.supplied


def levels(quantizer: Quantizer) -> Levels:
    """The numbers that a quantizer can give, in steps of its scale.

    Args:
        quantizer: the quantizer.

    Examples:
        >>> from injectors import Uint8ActPerTensor
        >>> found = levels(Quantizer(Uint8ActPerTensor, {}))
        >>> found.name, found.low, found.high
        ('uint8', 0.0, 255.0)
    """
    core = quantizer.tensor_quant
    parts = [part for name, part in core.named_modules() if "scale_quant" not in name.split(".")]
    if any(isinstance(part, TernaryQuant) for part in parts):
        return TERNARY
    if quantizer.grid.is_meta:
        return Levels.unknown("a grid that is not known on the meta device")
    bits = Grid.read(quantizer.grid).bits
    changes = not bits and any(getattr(part, "bit_width_impl", None) is not None for part in parts)
    bits = bits or _bits_now(parts)
    if not bits:
        return Levels.unknown("integers", "The number of bits follows from the input.")
    number_format = quantizer.float_format
    found = (
        integer_levels(bits, quantizer.signed, quantizer.narrow)
        if number_format is None
        else format_levels(number_format, bits)
    )
    formats = [part.block_format for part in parts if isinstance(getattr(part, "block_format", None), BlockFormat)]
    return found.noted(
        *map(block_note, formats[:1]),
        f"The number of bits can change: it is {bits} now." if changes else "",
        "" if quantizer.zero in (Zero.AT_ZERO, Zero.NO_CODE) else f"Zero: {quantizer.zero.value}.",
        "The sign is that of the input." if isinstance(core, TruncIntQuant) else "",
        "Its scales are quantized themselves." if any(hasattr(part, "scale_quant") for part in parts) else "",
    )


def _bits_now(parts: list[nn.Module]) -> int:
    """The number of bits of a grid on which that can change; 0 where it follows from the input."""
    bit_widths = (getattr(part, "bit_width_impl", None) for part in parts)
    bit_width: Any = next((found for found in bit_widths if found is not None), None)
    if bit_width is None:
        own = getattr(parts[0], "bit_width", None)
        return round(float(own)) if isinstance(own, Tensor) else 0
    if parameters(type(bit_width).forward)[0] != ("self",):
        return 0
    with torch.no_grad():
        return round(float(bit_width()))


def example(recipe: Any, supplied: Mapping[str, Any] | None = None) -> Quantizer:
    """A quantizer of a recipe, to be looked at: for a layer that supplies that, or for some small one.

    Args:
        recipe: the recipe class.
        supplied: what the layer supplies, by name. Default: what fits.

    Raises:
        RecipeError: the recipe has faults, or fits no small layer.
        ArgumentError: the recipe can be built, and not be used.

    Examples:
        >>> from injectors import MXFp4Weight
        >>> example(MXFp4Weight).float_format.name
        'fp4_e2m1'
    """
    if supplied is not None:
        return Quantizer(recipe, supplied)
    about = {"channel_axis": 0, "dtype": torch.float32, "device": torch.device("cpu")}
    errors: list[BrevqError] = []
    for shape in _shapes(recipe):
        try:
            with torch.random.fork_rng(devices=[]):
                return Quantizer(recipe, {**about, "tensor_shape": shape})
        except BrevqError as error:
            errors.append(error)
    raise errors[0]


def _shapes(recipe: Any) -> Iterator[tuple[int, int]]:
    """Shapes of weights that a recipe may fit."""
    yield 128, 128
    size = recipe.group_size if "group_size" in recipe else None
    if isinstance(size, int):
        yield from ((2, size), (size, 2))
    block = recipe.block_shape if "block_shape" in recipe else None
    if isinstance(block, tuple) and len(block) == 2:
        yield block


@view
def recipe_view(recipe: Any) -> str:
    """The grid of a recipe, for its page.

    Args:
        recipe: the recipe class.
    """
    return section("Grid", levels_axis(levels(example(recipe))).svg())


def page_of(quantizer: Quantizer) -> str:
    """A quantizer as a page for notebooks. It changes nothing, and never raises.

    Args:
        quantizer: the quantizer.

    Examples:
        >>> from injectors import Int8ActPerTensor
        >>> "Int8ActPerTensor" in page_of(Quantizer(Int8ActPerTensor, {}))
        True
    """
    return page(f"Quantizer of {quantizer.recipe.__name__}", *quantizer_views(quantizer))


@torch.no_grad()
def quantizer_views(quantizer: Quantizer, served: bool = True) -> tuple[str, ...]:
    """What there is to see of a quantizer.

    Args:
        quantizer: the quantizer.
        served: whether to show what it makes of the weight that it serves. Default: yes.
    """
    return (
        attempt(lambda: facts(_facts(quantizer)), "what it is"),
        attempt(lambda: levels_axis(levels(quantizer)).svg(), "its grid"),
        attempt(lambda: _now(quantizer), "what it does now") if served else "",
        fold("wiring", attempt(lambda: wiring_of(quantizer), "its wiring")),
    )


def wiring_of(quantizer: Quantizer) -> str:
    """The wiring of a quantizer's recipe, as a picture.

    Args:
        quantizer: the quantizer.
    """
    return explain(quantizer.recipe, Layer(quantizer._supplied)).drawn().svg()  # noqa: SLF001  # of this part


def _facts(quantizer: Quantizer) -> list[tuple[str, object]]:
    granularity = quantizer.granularity
    left = [int(part.steps_left) for part in quantizer._delays if part.steps_left is not None]  # noqa: SLF001
    return [
        ("recipe", quantizer.recipe.__name__),
        ("role", quantizer.role),
        ("grid", None if quantizer.grid.is_meta else str(Grid.read(quantizer.grid))),
        ("granularity", None if granularity is None else repr(granularity)),
        ("phase", None if quantizer.phase is None else quantizer.phase),
        ("calibrating", "yes" if quantizer.calibrating else None),
        ("float for", f"{left[0]} more steps of training" if any(left) else None),
    ]


def _now(quantizer: Quantizer) -> str:
    """What a quantizer makes of the weight that it serves; of activations the scale that is in force."""
    if quantizer.grid.is_meta:
        return paragraph("on the meta device, which holds no scales")
    if quantizer.role == "weight":
        layers = [] if quantizer.granularity is None else [peer() for peer in quantizer.granularity.peers]
        layer = next((layer for layer in layers if layer is not None), None)
        if layer is None or quantizer.needs_input:
            return paragraph("its scale follows from the weight: look at the layer")
        return "".join(views(look(quantizer, weight_of(layer))))
    if quantizer.role == "bias" or quantizer.needs_scale or quantizer.needs_input:
        return paragraph("its scale follows from input and weight: look at the layer")
    current = still(quantizer).current()
    scale = current.scale
    if scale.numel() > 1:
        return views(current)[-1]
    return facts([("scale now", f"{scale.item():.6g}"), ("zero-point now", f"{current.zero_point.mean().item():g}")])


def look(quantizer: Quantizer, x: Tensor, *context: Tensor) -> QuantTensor:
    """`x`, quantized as evaluation would do it now, by a copy: nothing is observed, counted, learned or drawn.

    Args:
        quantizer: the quantizer.
        x: a floating-point tensor.
        *context: what the core quantizer needs beside it.

    Raises:
        ArgumentError: the values can not be read, or are too many for a picture.
        UncalibratedError: no data was seen yet.
    """
    if not readable(x):
        raise ArgumentError("on the meta device or spread over processes, so there are no values to show")
    if x.numel() > _MOST:
        raise ArgumentError(f"{x.numel()} values are too many for a picture")
    gpus = [x.device] if x.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices=gpus):
        quantized: QuantTensor = still(quantizer)(x.detach(), *context)
    return quantized


def still(quantizer: Quantizer) -> Quantizer:
    """A copy of a quantizer in evaluation, that does not observe and that nobody listens to.

    Args:
        quantizer: the quantizer.

    Examples:
        >>> from injectors import Int8ActPerTensor
        >>> still(Quantizer(Int8ActPerTensor, {})).training
        False
    """
    # What the copy shares: the layers that it serves. What it goes without: hooks.
    memo: dict[int, Any] = {}
    for part in quantizer.modules():
        memo |= {id(own.peers): own.peers for own in vars(part).values() if isinstance(own, Granularity)}
        memo |= {id(hooks): type(hooks)() for hooks in map(vars(part).get, _HOOKS) if hooks is not None}
    twin = copy.deepcopy(quantizer, memo).eval()
    for part in twin.modules():
        if getattr(part, "calibrating", False):
            part.calibrating = False  # type: ignore[assignment]  # a flag of quantizers and observers
    return twin


def weight_of(layer: Any) -> Tensor:
    """The weight of a layer that is quantized, read without changing anything.

    Args:
        layer: the layer.

    Raises:
        ArgumentError: reading it may change it.
    """
    if parametrize.is_parametrized(layer) and layer.training:
        raise ArgumentError("a parametrization computes it, which training may change: shown in evaluation")
    weight: Tensor = layer.float_parameters(None)[0] if hasattr(layer, "float_parameters") else layer.weight
    return weight
