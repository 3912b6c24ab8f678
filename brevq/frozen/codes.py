"""A quantized weight or bias as codes, scales and zero-points, in as few bytes as they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from brevq.core.formats import NumberFormat
from brevq.core.function_wrapper import Granularity
from brevq.frozen.origin import Remembering
from brevq.frozen.packing import pack, packed_bytes, unpack
from brevq.frozen.repeated import Repeated
from brevq.quant_tensor import QuantTensor, Zero
from brevq.quantizer import Grid, Quantizer


@attrs.frozen
class Storage:
    """How codes lie in memory.

    An integer code is ``low + step * stored``. Those of floating-point formats of up to 8 bits are bit patterns, of
    which a table gives the numbers; longer ones are the numbers themselves, in the smallest dtype that has them all.

    Args:
        bits: number of bits of what is packed; 0 where nothing is.
        dtype: of what is stored.
        low: the code that is stored as zero.
        step: the distance of codes: 2 of binary ones, else 1.
    """

    bits: int
    dtype: torch.dtype
    low: int = 0
    step: int = 1

    @staticmethod
    def of(quantized: QuantTensor, dtype: torch.dtype | None = None) -> Storage:
        """The smallest for a quantized tensor.

        Args:
            quantized: the tensor.
            dtype: of what is stored, where that is known. Default: the smallest.
        """
        bits = int(quantized.bit_width)
        if quantized.float_format is not None:
            bits = quantized.float_format.bits
            return Storage(bits, torch.uint8) if bits <= 8 else Storage(0, dtype or _half(quantized))
        return Storage.of_integers(bits, quantized.signed)

    @staticmethod
    def of_integers(bits: int, signed: bool) -> Storage:
        """The smallest for integers.

        Args:
            bits: number of bits of one.
            signed: whether there are negative ones.
        """
        if bits == 1 and signed:
            return Storage(1, torch.uint8, low=-1, step=2)
        lowest = -(2 ** (bits - 1)) if signed else 0
        if bits < 8:
            return Storage(bits, torch.uint8, low=lowest)
        if bits == 8:
            return Storage(0, torch.int8 if signed else torch.uint8)
        half = 0 if signed or bits not in (16, 32) else 2 ** (bits - 1)
        return Storage(0, torch.int16 if bits <= 16 else torch.int32, low=half)

    def count(self, values: int) -> int:
        """How many numbers of the dtype are stored for a number of values.

        Args:
            values: number of values.
        """
        return packed_bytes(self.bits, values) if self.bits else values


def _half(quantized: QuantTensor) -> torch.dtype:
    """The smallest dtype that has all unscaled numbers of a tensor."""
    numbers = quantized._codes()  # noqa: SLF001  # the numbers of the format, before they are encoded
    fits = (
        dtype for dtype in (torch.bfloat16, torch.float16, torch.float32) if bool((numbers.to(dtype) == numbers).all())
    )
    return next(fits, torch.float64)


class FrozenTensor(Remembering):
    """A quantizer of a weight or bias whose one tensor is known, and kept as codes.

    `value()` decodes it: ``(codes - zero_point) * scale``, in the order and precision in which the quantizer computed
    it, so that each value is the same, bit for bit but for the sign of zeros. Called with that value, it returns it on
    its grid, as the quantizer did.

    Args:
        origin: the quantizer.
        quantized: what it made of the tensor, in evaluation.
        shape: shape of the parameter.
        codes: the codes as they lie in memory, where they are known; then of `quantized.value` only shape and dtype
            count. Default: they are read off the values.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> from injectors import Int4WeightPerChannel
        >>> layer = QuantLinear(16, 2, weight_quant=Int4WeightPerChannel)
        >>> frozen = FrozenTensor(layer.weight_quant, layer.quant_weight(), layer.weight.shape)
        >>> frozen.codes.shape, frozen.codes.dtype, torch.equal(frozen.value(), layer.quant_weight().value)
        (torch.Size([16]), torch.uint8, True)
    """

    needs_scale = False
    needs_input = False

    codes: Tensor
    bit_width: Tensor
    table: Tensor | None
    like: Tensor

    def __init__(
        self, origin: Quantizer, quantized: QuantTensor, shape: torch.Size, codes: Tensor | None = None
    ) -> None:
        super().__init__()
        self._origin = [origin]
        self.storage = Storage.of(quantized, None if codes is None else codes.dtype)
        self.loaded = False  # other codes, since it was made
        self.shape, self.quantized_shape = torch.Size(shape), quantized.value.shape
        self.signed, self.narrow, self.zero = quantized.signed, quantized.narrow, quantized.zero
        self.float_format: NumberFormat | None = quantized.float_format
        self._granularity = [quantized.granularity]  # in a list: it is part of the origin, and not of this module too
        self.register_buffer("codes", _stored(quantized, self.storage) if codes is None else codes.clone())
        self.scale = Repeated(quantized.scale)
        self.zero_point = Repeated(quantized.zero_point)
        self.register_buffer("bit_width", quantized.bit_width.detach().clone())
        packed_float = self.float_format is not None and self.storage.bits > 0
        table = _table(self.float_format).to(self.codes.device) if packed_float else None  # type: ignore[arg-type]  # not None then
        self.register_buffer("table", table, persistent=False)
        # What `to` and its like tell the dtype and the device by.
        self.register_buffer(
            "like", torch.empty(0, dtype=quantized.value.dtype, device=self.codes.device), persistent=False
        )
        self.train(False)

    @property
    def granularity(self) -> Granularity | None:
        """Which values share a scale."""
        return self._granularity[0]

    @property
    def recipe(self) -> Any:
        """The recipe of the quantizer that this stands for."""
        return self.origin.recipe

    def value(self) -> Tensor:
        """The dequantized values, in the shape of the parameter."""
        wide = torch.float64 if self.like.dtype == torch.float64 else torch.float32
        numbers = self._numbers(wide)
        granularity = self.granularity
        regroups = granularity is not None and granularity.regroups
        laid_out = granularity.split(numbers) if regroups else numbers  # type: ignore[union-attr]  # not None then
        if self.zero in (Zero.SHIFTED, Zero.BETWEEN):
            laid_out -= self.zero_point()
        y = laid_out.mul_(self.scale())
        y = granularity.join(y, self.quantized_shape) if regroups else y  # type: ignore[union-attr]  # likewise
        return _narrowed(y, self.like.dtype).reshape(self.shape)

    def forward(self, x: Tensor, *context: Tensor) -> QuantTensor:
        """`x`, which is what `value()` returned, on its grid.

        Args:
            x: the value, in the shape of the parameter or in that in which it was quantized.
            *context: what the quantizer asked for, such as a scale: it is known.
        """
        return QuantTensor(
            x,
            self.scale(),
            self.zero_point(),
            self.bit_width,
            self.signed,
            self.float_format,
            self.granularity,
            narrow=self.narrow,
            zero=self.zero,
            producer=self,
        )

    def peek(self, x: Tensor, *context: Tensor) -> QuantTensor:
        """As calling it.

        Args:
            x: the value.
            *context: what the quantizer asked for.
        """
        quantized: QuantTensor = self(x, *context)
        return quantized

    def _numbers(self, dtype: torch.dtype) -> Tensor:
        """The codes as numbers, in the shape in which the tensor was quantized, and in memory of their own."""
        storage, stored = self.storage, self.codes
        if storage.bits:
            stored = unpack(stored, storage.bits, self.quantized_shape.numel())
        stored = stored.reshape(self.quantized_shape)
        if self.table is not None:
            return self.table.to(dtype)[stored.int()]
        if storage.bits:
            stored = stored.view(torch.int8)  # codes of 7 bits at most
        elif storage.low:
            stored = stored.long()
        stored = stored * storage.step if storage.step != 1 else stored
        stored = stored + storage.low if storage.low else stored
        return stored.to(dtype, copy=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenTensor:
        """Conversions are those of the values; codes and scales move along and keep their dtype."""
        like, was_meta = fn(self.like), self.codes.is_meta

        def keep_dtype(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            return converted if converted.dtype == tensor.dtype else tensor.to(converted.device)

        super()._apply(keep_dtype, recurse)
        self.like = like
        if was_meta and self.table is not None and self.float_format is not None:
            self.table = _table(self.float_format).to(self.codes.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Codes of other bit widths are taken where these are learned."""
        bits, codes = state_dict.get(f"{prefix}bit_width"), state_dict.get(f"{prefix}codes")
        if codes is not None and self.codes.is_meta and args[0].get("assign_to_params_buffers", False):
            self.to_empty(device=codes.device)  # what is in no state would stay there
        if bits is not None and self._learns_bits:
            self._be_ready_for(int(bits))
        if not self._is_in(state_dict, prefix):
            self.loaded = True
            # Equal ones of a tied weight may be in the same memory, and stay as they are.
            self.codes = self.codes.clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def _learns_bits(self) -> bool:
        """Whether the bit width is a matter of training, and not of the recipe."""
        return self.float_format is None and not self.codes.is_meta and Grid.read(self.origin.grid).bits == 0

    def _be_ready_for(self, bits: int) -> None:
        """Have room for codes of so many bits."""
        storage, count = Storage.of_integers(bits, self.signed), self.quantized_shape.numel()
        if storage != self.storage:
            self.storage = storage
            shape = (storage.count(count),) if storage.bits else self.quantized_shape
            self.codes = torch.zeros(shape, dtype=storage.dtype, device=self.codes.device)

    def _is_in(self, state: dict[str, Any], prefix: str) -> bool:
        """Whether a state says of the codes and their grid what is known of them, as far as it says anything."""
        pairs = [(tensor, state.get(f"{prefix}{name}")) for name, tensor in self.named_buffers()]
        return not self.codes.is_meta and all(
            theirs is None or (ours.shape == theirs.shape and torch.equal(ours, theirs.to(ours.device)))
            for ours, theirs in pairs
        )

    def extra_repr(self) -> str:
        """Recipe, bits, and how much there is of them."""
        bits = str(self.float_format or f"{int(self.bit_width)} bits")
        return f"{self.recipe.__name__}, {bits}, {self.quantized_shape.numel()} values in {self.codes.nbytes} bytes"

    def __repr__(self) -> str:
        """One line."""
        return f"{type(self).__name__}({self.extra_repr()})"


def _stored(quantized: QuantTensor, storage: Storage) -> Tensor:
    """The codes of a tensor, as they lie in memory."""
    if storage.dtype.is_floating_point:
        numbers: Tensor = quantized._join(quantized._codes())  # noqa: SLF001  # the numbers, before they are encoded
        return numbers.to(storage.dtype).contiguous()
    codes = quantized.int()
    if storage.low:
        codes = codes.long() - storage.low
    if storage.step != 1:
        codes = codes // storage.step
    return pack(codes, storage.bits) if storage.bits else codes.to(storage.dtype).contiguous()


def _table(number_format: NumberFormat) -> Tensor:
    """The number of each bit pattern of a format of up to 8 bits, float32."""
    # Minus zero first: where it has no pattern of its own, that of another number is written again.
    numbers = torch.cat([torch.tensor([-0.0], dtype=torch.float64), number_format.values()])
    table = torch.full((2**number_format.bits,), torch.nan, dtype=torch.float64)
    for number, code in zip(numbers, number_format.encode(numbers), strict=True):
        table[code] = number
    return table.float()


def _narrowed(y: Tensor, dtype: torch.dtype) -> Tensor:
    """`y` in another dtype; what is finite stays so."""
    if y.dtype == dtype:
        return y
    limit = torch.finfo(dtype).max
    return y.clamp(-limit, limit).to(dtype)
