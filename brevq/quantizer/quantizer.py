"""A recipe bound to its owner: the module that quantizes a layer's weight, bias, input or output."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from brevq.core.function_wrapper import Granularity, LearnedRoundSte
from brevq.core.memo import is_watched
from brevq.core.phase import Phase
from brevq.core.quant import DelayWrapper
from brevq.core.scaling import LearnedStatsScaling
from brevq.core.stats import RuntimeStats
from brevq.core.stats.ranks import shared
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.inject import build
from brevq.inject.plan import plan_of
from brevq.quant_tensor import QuantTensor, Zero, describe
from brevq.quantizer.grid import Grid
from brevq.quantizer.nature import Nature

_UNCALIBRATED = """
{where} has seen no data, so it has no range to quantize to.

Show it some before evaluation:

    with brevq.graph.calibrating(model):
        for batch in batches:
            model(batch)

or train the model, which observes as it goes.
""".strip()

_NO_CURRENT = (
    "{quantizer} quantizes a {role}, and its grid follows from what it quantizes: ask the layer, layer.quant_{role}()"
)
_NO_OVERRIDE = (
    "{quantizer} is built already, and `{name}` would change nothing.\n"
    "Give the layer another recipe: layer.weight_quant = layer.weight_quant.recipe.let({name}=...), or whichever it is"
)
_UNSIGNED_WEIGHT = (
    "{recipe} is unsigned and its zero-point is zero, so all negative weights would become zero: "
    "set `signed = True`, or give it a zero-point, as ShiftedUint8WeightPerTensor has"
)


class Quantizer(nn.Module):
    """A recipe bound to its owner.

    It hands tensors to the core quantizer that the recipe builds, in float32 (or float64) whatever their dtype, and
    returns them in their own; scales stay float32 when the model is converted to half precision.

    Args:
        recipe: the recipe class.
        supplies: what the owner supplies to it: shapes, channel axis, dtype, device.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentError: the recipe is for weights, unsigned, and without a zero-point.

    Examples:
        >>> from injectors import Int8ActPerTensor
        >>> quantizer = Quantizer(Int8ActPerTensor, {})
        >>> quantizer(torch.tensor([-1.0, 0.5])).value
        tensor([-1.0000,  0.5000], grad_fn=<_FakeQuantizeBackward>)
    """

    recipe: Any
    tensor_quant: nn.Module
    grid: Tensor
    signed: bool
    narrow: bool
    zero: Zero
    float_format: Any
    granularity: Granularity | None
    calibrating: bool
    observes: bool
    needs_scale: bool
    needs_input: bool
    _role: str | None
    _supplied: dict[str, Any]
    _delays: list[DelayWrapper]

    def __init__(self, recipe: Any, supplies: Mapping[str, Any]) -> None:
        super().__init__()
        tensor_quant = build(recipe, supplies)
        if not isinstance(tensor_quant, nn.Module):
            raise ArgumentTypeError(f"`tensor_quant` of {recipe.__name__} must be a module, not {tensor_quant!r}")
        self.tensor_quant = tensor_quant
        parts = list(_parts(tensor_quant))
        nature = Nature.of(recipe, tensor_quant, parts)
        # Plain values, past what is done for tensors and modules that are set.
        vars(self).update(
            recipe=recipe,
            calibrating=False,
            granularity=nature.granularity,
            signed=nature.signed,
            narrow=nature.grid.narrow,
            zero=nature.zero,
            float_format=nature.float_format,
            observes=nature.observes,
            needs_scale=nature.needs_scale,
            needs_input=nature.needs_input,
            _role=nature.role,
            _supplied=dict(supplies),
            # Parts of `tensor_quant`, and not of this module too.
            _delays=[part for part in parts if isinstance(part, DelayWrapper) and part.steps_left is not None],
        )
        self.register_buffer("grid", nature.grid.tensor())
        if nature.role == "weight" and not nature.signed and nature.zero is Zero.AT_ZERO:
            raise ArgumentError(_UNSIGNED_WEIGHT.format(recipe=recipe.__name__))
        device = supplies.get("device")
        if device is not None and device != self.device:
            self.to(device)

    @property
    def role(self) -> str | None:
        """What the recipe is for: *weight*, *bias* or *activation*; None if it does not say."""
        return self._role

    @property
    def phase(self) -> Phase | None:
        """What the statistics of this quantizer are doing; None if it has none that last."""
        phases = [module.phase for module in self.modules() if isinstance(module, (RuntimeStats, LearnedStatsScaling))]
        return min(phases, default=None)

    @property
    def clamps_at_zero(self) -> bool:
        """Whether it now makes zero of all that is below, and no one, nor a gradient, can tell what that was."""
        short = self._short
        unseen = short is not None and not torch.is_grad_enabled() and not is_watched(self)
        return unseen and bool(short.clamps_at_zero(self.tensor_quant))

    @property
    def forgets_input(self) -> bool:
        """Whether it keeps less than its input for the gradient, so that one that nobody else keeps takes no memory."""
        return self._short is not None and bool(self._short.forgets_input)

    def rectifies(self, x: Tensor) -> bool:
        """Whether ReLU of `x` can be left to `rectified`; nobody is to see the difference.

        Args:
            x: a tensor.
        """
        short = self._short
        unseen = short is not None and not self.calibrating and not is_watched(self)
        return unseen and bool(short.rectifies(self.tensor_quant, x))

    def rectified(self, x: Tensor) -> QuantTensor:
        """ReLU of `x`, quantized, where `rectifies` says that it can.

        Args:
            x: a floating-point tensor.
        """
        core: Any = self.tensor_quant
        return self._quantized(partial(core.quantized, rectified=True), x)

    @property
    def _short(self) -> Any:
        """The short ways of the core quantizer; None if it has none."""
        return vars(self.tensor_quant).get("short")

    @property
    def elements(self) -> int:
        """Number of elements of all tensors that it serves, of weights and biases; 0 of activations."""
        layers = [] if self.granularity is None else [peer() for peer in self.granularity.peers]
        shapes = [layer.weight.shape for layer in layers if layer is not None] or [self._supplied.get("tensor_shape")]
        return sum(torch.Size(shape).numel() for shape in shapes if shape is not None)

    @property
    def device(self) -> torch.device:
        """Where the scales are."""
        return self.grid.device

    def forward(self, x: Tensor, *context: Tensor) -> QuantTensor:
        """`x`, of any shape, quantized.

        Args:
            x: a floating-point tensor.
            *context: what the core quantizer needs beside it, such as a bias' scale.

        Raises:
            ArgumentTypeError: `x` is not a floating-point tensor.
            UncalibratedError: in evaluation, no data having been seen.
        """
        return self._quantized(self._modules["tensor_quant"], x, *context)

    def _quantized(self, quantize: Any, x: Tensor, *context: Tensor) -> QuantTensor:
        if not x.is_floating_point():
            raise ArgumentTypeError(f"{describe(self)} quantizes floating-point tensors, not {x.dtype}")
        # From the registry: `nn.Module.__getattr__`, asked at each call, takes longer than what is done here.
        grid: Any = self._buffers["grid"]
        if x.device != grid.device:
            raise ArgumentError(f"{describe(self)} is on {self.device}, and its input on {x.device}: move one of them")
        if x.numel() == 0 and not (self.observes and shared()):  # other processes may have a batch to observe
            return self._nothing(x)
        wide = x if x.dtype == torch.float64 else x.float()
        granularity = self.granularity
        try:
            laid_out = wide if granularity is None else granularity.split(wide)
        except ArgumentError as error:
            raise ArgumentError(f"{describe(self)}: {error}") from error
        try:
            y, scale, zero_point, bit_width = quantize(laid_out, *context)[:4]
        except UncalibratedError as error:
            raise UncalibratedError(_UNCALIBRATED.format(where=describe(self))) from error
        y = y if granularity is None else granularity.join(y, wide.shape)
        return self._tensor(x if self.calibrating else _narrowed(y, x), scale, zero_point, bit_width)

    def _tensor(self, value: Tensor, scale: Tensor, zero_point: Tensor, bit_width: Tensor) -> QuantTensor:
        return QuantTensor(
            value,
            scale,
            zero_point,
            bit_width,
            self.signed,
            self.float_format,
            self.granularity,
            narrow=self.narrow,
            zero=self.zero,
            producer=self,
        )

    def _nothing(self, x: Tensor) -> QuantTensor:
        """What becomes of a tensor without values: itself, with a scale of 1; nothing is observed."""
        one, zero = torch.ones((), device=x.device), torch.zeros((), device=x.device)
        return self._tensor(x, one, zero, self.grid[1].float())

    def truncate(self, x: QuantTensor) -> QuantTensor:
        """`x` on the grid of fewer bits of a recipe that truncates; its sign stays.

        Args:
            x: a tensor of integers.
        """
        y: QuantTensor = self(x.value, *x.spread(), x.bit_width, torch.tensor(x.signed, device=x.value.device))
        y.signed = x.signed
        y.zero = x.zero if x.zero is Zero.AT_ZERO else Zero.BETWEEN
        return y

    def peek(self, x: Tensor, *context: Tensor) -> QuantTensor:
        """As calling it, without counting as a step of training: a delay of quantization stays as long as it is.

        Args:
            x: a floating-point tensor.
            *context: what the core quantizer needs beside it.
        """
        delays = [delay.steps_left for delay in self._delays] if self._delays else ()
        before = [(steps_left, steps_left.clone()) for steps_left in delays if steps_left is not None]
        quantized: QuantTensor = self(x, *context)
        for steps_left, steps in before:
            steps_left.copy_(steps)
        return quantized

    def current(self) -> QuantTensor:
        """Zero, quantized as evaluation would do it now: what holds the scale, zero-point and bit width in force.

        Raises:
            UncalibratedError: no data was seen yet.
            ArgumentError: it quantizes weights or biases, whose scale is not known without them.
        """
        if self.role in ("weight", "bias"):
            raise ArgumentError(_NO_CURRENT.format(quantizer=describe(self), role=self.role))
        observers = [module for module in self.modules() if isinstance(module, RuntimeStats)]
        before = self.training, [observer.calibrating for observer in observers]
        self.eval()
        try:
            for observer in observers:
                observer.calibrating = False
            with torch.no_grad():
                zero: QuantTensor = self(self._any_value())
        finally:
            self.train(before[0])
            for observer, calibrating in zip(observers, before[1], strict=True):
                observer.calibrating = calibrating
        return zero

    def _any_value(self) -> Tensor:
        """A zero, or a group or a token of them where the recipe quantizes by those."""
        granularity: Any = self.granularity
        if hasattr(granularity, "group_size"):
            return torch.zeros(1, granularity.group_size, device=self.device)
        axis = getattr(granularity, "feature_axis", None)
        axes = 0 if axis is None else max(axis + 1, -axis)
        return torch.zeros((1,) * axes, device=self.device)

    def share(self, layer: nn.Module) -> None:
        """Count `layer` among those whose weight this quantizer serves: statistics are taken over all of them.

        Args:
            layer: a layer with a `weight`.

        Raises:
            ArgumentError: the shape of its weight does not fit the scale.
        """
        self.check_shared(layer)
        if self.granularity is not None:
            self.granularity.add_peer(layer)

    def check_shared(self, layer: nn.Module) -> None:
        """Refuse a layer beside those that are served, if the scale can not be that of its weight, too.

        Args:
            layer: a layer with a `weight`.

        Raises:
            ArgumentError: the shape of its weight does not fit the scale.
        """
        granularity = self.granularity
        if granularity is None or not granularity.peers:
            return
        shape: tuple[int, ...] = tuple(getattr(layer, "weight").shape)  # noqa: B009  # a module's attributes are untyped
        if not granularity.fits(shape):
            raise ArgumentError(
                f"a quantizer whose scale has shape {granularity.scale_shape} can not be shared with a weight of shape "
                f"{shape}: share one that is per tensor, or between equal numbers of channels"
            )

    def leave(self, layer: nn.Module) -> None:
        """Count `layer` no longer among those whose weight this quantizer serves.

        Args:
            layer: a layer that got another quantizer.
        """
        if self.granularity is not None:
            self.granularity.remove_peer(layer)

    def restart(self) -> None:
        """Let learned ranges and roundings start again from the next tensor, as after new weights were loaded."""
        for module in self.modules():
            if isinstance(module, (LearnedStatsScaling, LearnedRoundSte)):
                module.reset()

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute, but none that is meant for the recipe.

        Raises:
            ArgumentTypeError: the name is one of the recipe's, which means something before it is built alone.
        """
        if (
            "grid" in self.__dict__.get("_buffers", ())
            and not hasattr(self, name)
            and name in plan_of(self.recipe).known
        ):
            raise ArgumentTypeError(_NO_OVERRIDE.format(quantizer=describe(self), name=name))
        super().__setattr__(name, content)

    def __repr__(self) -> str:
        """One line: the recipe, the grid, and the phase. `tensor_quant` prints the parts."""
        grid = "" if self.grid.is_meta else f", {Grid.read(self.grid)}"
        phase = "" if self.phase is None else f", phase={self.phase}"
        return f"Quantizer({self.recipe.__name__}{grid}{phase})"

    def _repr_html_(self) -> str:
        from brevq.quantizer.page import page_of  # noqa: PLC0415  # it imports this module

        return page_of(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantizer:
        """Conversions move scales to other devices and leave their dtype alone."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            return converted if converted.dtype == tensor.dtype else tensor.to(converted.device)

        was_meta = self.grid.is_meta
        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]  # torch's
        if was_meta and not self.grid.is_meta:
            self._fill()
        return self

    @torch.no_grad()
    def _fill(self) -> None:
        """Give tensors that came from the meta device, and hold nothing, what they hold in a new quantizer."""
        with torch.device(self.device):
            fresh = build(self.recipe, {**self._supplied, "device": self.device})
        for ours, new in zip(self.tensor_quant.modules(), fresh.modules(), strict=True):
            for name, tensor in itertools.chain(
                ours.named_parameters(recurse=False), ours.named_buffers(recurse=False)
            ):
                tensor.copy_(getattr(new, name))
        self.grid.copy_(Nature.of(self.recipe, self.tensor_quant, list(_parts(self.tensor_quant))).grid.tensor())

    def _leave_meta(self, theirs: Tensor | None) -> None:
        """Be as new on the device of a checkpoint that becomes our state; of one that knows nothing of us, the default.

        What is in no checkpoint would stay on the meta device.
        """
        self.to_empty(device=torch.get_default_device() if theirs is None else theirs.device)

    def _differences(self, path: str, theirs: Tensor) -> Iterator[str]:
        """Why a checkpoint of the grid `theirs` is not one for this quantizer, if it is not."""
        try:
            grid = Grid.read(theirs)
        except ArgumentError as error:
            yield f"{path} {error}"
            return
        if grid != Grid.read(self.grid):
            yield f"{path} is quantized to {Grid.read(self.grid)}, and the checkpoint to {grid}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """A checkpoint that knows nothing of this quantizer is one of a float network, and misses nothing.

        One of another grid is refused.
        """
        if self.grid.is_meta and args[0].get("assign_to_params_buffers", False):
            self._leave_meta(state_dict.get(prefix + "grid"))
        if not any(key.startswith(prefix) for key in state_dict):
            state_dict.update({prefix + name: tensor for name, tensor in self.state_dict().items()})
        theirs = state_dict.get(prefix + "grid")
        if theirs is not None and not self.grid.is_meta:
            errors: list[str] = args[-1]
            errors.extend(self._differences(prefix[:-1], theirs))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """All parts of a core quantizer, itself the first, but for the quantizer of its scales, which has another grid."""
    yield module
    for name, child in module._modules.items():  # noqa: SLF001  # torch's; named_children() takes four times as long
        if name != "scale_quant" and child is not None:
            yield from _parts(child)


def _narrowed(y: Tensor, x: Tensor) -> Tensor:
    """`y` in the dtype of `x`; what is finite there stays so, if the nearest grid point lies beyond that dtype."""
    if y.dtype == x.dtype:
        return y
    limit = torch.finfo(x.dtype).max
    return torch.where(x.isfinite(), y.clamp(-limit, limit), y).to(x.dtype)
