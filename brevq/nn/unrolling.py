"""A recurrent cell run over sequences, batched, unbatched or packed: what all recurrent layers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import attrs
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from brevq.core.function_wrapper.view import Peer
from brevq.quantizer import Quantizer

#: The states of a cell: ``(h,)`` or ``(h, c)``, each of shape ``(sequences, features)``.
State: TypeAlias = tuple[Tensor, ...]


def unchanged(x: Tensor) -> Tensor:
    """`x`, where there is no quantizer.

    Args:
        x: a tensor.

    Examples:
        >>> unchanged(torch.tensor(0.3))
        tensor(0.3000)
    """
    return x


class Weights(NamedTuple):
    """What a cell computes with in one direction of one layer, quantized once for all time steps."""

    input: Tensor  #: ``(gates * hidden_size, input features)``
    hidden: Tensor  #: ``(gates * hidden_size, output features)``
    input_bias: Tensor | None  #: ``(gates * hidden_size,)``
    hidden_bias: Tensor | None  #: ``(gates * hidden_size,)``
    projection: Tensor | None  #: ``(proj_size, hidden_size)``


class CellQuants(NamedTuple):
    """What quantizes the values within a cell; by default nothing does."""

    hidden: Callable[[Tensor], Tensor] = unchanged  #: h, which is fed back and returned
    cell: Callable[[Tensor], Tensor] = unchanged  #: c
    gate: Callable[[Tensor], Tensor] = unchanged  #: what leaves a sigmoid
    tanh: Callable[[Tensor], Tensor] = unchanged  #: what leaves a hyperbolic tangent
    accumulator: Callable[[Tensor], Tensor] = unchanged  #: what enters either


class PartQuantizers(nn.ModuleDict):
    """Quantizers of one recipe, for the parts of a layer; parts with the same key share one.

    Args:
        keys: for each part, the key of its quantizer.
        make: makes the quantizer of a part.

    Examples:
        >>> from injectors import Int8ActPerTensor
        >>> quantizers = PartQuantizers({"l0": "l0", "l0_reverse": "l0"}, lambda part: Quantizer(Int8ActPerTensor, {}))
        >>> quantizers.of("l0_reverse") is quantizers["l0"]
        True
    """

    def __init__(self, keys: Mapping[str, str], make: Callable[[str], Quantizer]) -> None:
        super().__init__()
        self.parts = dict(keys)
        for part, key in keys.items():
            if key not in self:
                self[key] = make(part)

    @property
    def recipe(self) -> Any:
        """The recipe of the quantizers."""
        return next(iter(self.values())).recipe

    def __repr__(self) -> str:
        """Quantizers that print alike are printed once, with all of their keys."""
        alike: dict[str, list[str]] = {}
        for key, quantizer in self.items():
            alike.setdefault(repr(quantizer), []).append(key)
        lines = [f"({', '.join(keys)}): {text}" for text, keys in alike.items()]
        return "\n  ".join([f"{type(self).__name__}(", *(line.replace("\n", "\n  ") for line in lines)]) + "\n)"

    def of(self, part: str) -> Any:
        """The quantizer of a part.

        Args:
            part: its name.
        """
        return self[self.parts[part]]


def quantizes(table: PartQuantizers | None, part: str) -> Callable[[Tensor], Tensor]:
    """What quantizes the values of a part of a layer.

    Args:
        table: the quantizers; None if there are none.
        part: name of the part.

    Examples:
        >>> quantizes(None, "l0") is unchanged
        True
    """
    if table is None:
        return unchanged
    quantizer = table.of(part)
    return lambda x: quantizer(x).value


class Matrix:
    """One of the weight matrices of a layer, as what its quantizer serves.

    Args:
        owner: the layer; it is not kept alive.
        name: the name of the parameter.
        gates: the number of gates that share a scale each, where they do, and lie along the first axis.

    Examples:
        >>> lstm = nn.LSTM(3, 5)
        >>> Matrix(lstm, "weight_ih_l0", gates=4).weight.shape
        torch.Size([4, 5, 3])
    """

    def __init__(self, owner: nn.Module, name: str, gates: int | None = None) -> None:
        self._owner = Peer(owner)  # the layer keeps its matrices
        self.name = name
        self.gates = gates

    @property
    def weight(self) -> Tensor:
        """The matrix as it is quantized: ``(rows, columns)`` or ``(gates, rows / gates, columns)``."""
        matrix: Tensor = getattr(self._owner(), self.name)
        return matrix if self.gates is None else matrix.reshape(self.gates, -1, matrix.shape[1])


@attrs.define
class Layout:
    """How the time steps of sequences lie in what a layer was given.

    The loop works on rows, of shape ``(rows, features)``: those of the first time step, one for each sequence, then
    those of the second, and so on. That is how packed sequences lie, the longest first.

    Args:
        sizes: number of sequences at each time step.
        packed: the packed input; None for a tensor.
        batched: whether there is a batch axis.
        batch_first: whether it is the first.

    Examples:
        >>> layout = Layout.of(torch.ones(2, 3, 4), batch_first=True)
        >>> layout.sizes, layout.rows(torch.ones(2, 3, 4)).shape
        ([2, 2, 2], torch.Size([6, 4]))
    """

    sizes: list[int]
    packed: PackedSequence | None
    batched: bool
    batch_first: bool

    @staticmethod
    def of(x: Any, batch_first: bool) -> Layout:
        """The layout of a layer's input.

        Args:
            x: a tensor or a packed sequence.
            batch_first: what the layer was told.
        """
        if isinstance(x, PackedSequence):
            return Layout(x.batch_sizes.tolist(), x, batched=True, batch_first=False)
        batched = x.dim() != 2
        time, batch = (1, 0) if batched and batch_first else (0, 1)
        return Layout([x.size(batch) if batched else 1] * x.size(time), None, batched, batch_first)

    @property
    def batch_sizes(self) -> Tensor | None:
        """Those of the packed input."""
        return None if self.packed is None else self.packed.batch_sizes

    def rows(self, data: Tensor) -> Tensor:
        """The rows of the data of the input: the tensor, or what the packed sequence holds."""
        if self.packed is not None or not self.batched:
            return data
        return (data.transpose(0, 1) if self.batch_first else data).flatten(0, 1)

    def data(self, rows: Tensor) -> Tensor:
        """Rows, of any number of features, laid out as the data of the input."""
        if self.packed is not None or not self.batched:
            return rows
        steps = rows.reshape(len(self.sizes), self.sizes[0], rows.shape[1])
        return steps.transpose(0, 1) if self.batch_first else steps

    def wrapped(self, data: Any) -> Any:
        """Data as the kind of thing that the input was."""
        return data if self.packed is None else PackedSequence(data, *self.packed[1:])

    def states_in(self, state: Tensor) -> Tensor:
        """An initial state with a batch axis, its sequences in the order of the rows."""
        return self._ordered(state if self.batched else state.unsqueeze(1), self.packed and self.packed.sorted_indices)

    def states_out(self, state: Tensor) -> Tensor:
        """A final state as `states_in` was given it."""
        ordered = self._ordered(state, self.packed and self.packed.unsorted_indices)
        return ordered if self.batched else ordered.squeeze(1)

    @staticmethod
    def _ordered(state: Tensor, order: Tensor | None) -> Tensor:
        return state if order is None else state.index_select(1, order)


def unroll(
    step: Callable[[Tensor, State], State], inputs: tuple[Tensor, ...], initial: State, reverse: bool
) -> tuple[Tensor, State]:
    """Run a cell over sequences.

    Args:
        step: the cell: from the rows of a time step and the states before it, those after it, h first.
        inputs: the rows of each time step.
        initial: the initial states, a row for each sequence.
        reverse: whether the last time step comes first.

    Returns:
        All h, in the order of the input's rows; and the final states, a row for each sequence.

    Examples:
        >>> def add(x, state):
        ...     return (state[0] + x,)
        >>> both, first = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])  # the second sequence ends earlier
        >>> rows, (final,) = unroll(add, (both, first), (torch.zeros(2, 1),), reverse=False)
        >>> rows.flatten(), final.flatten()
        (tensor([1., 2., 4.]), tensor([4., 2.]))
    """
    ordered = inputs[::-1] if reverse else inputs
    state: State = tuple(part[: len(ordered[0])] for part in initial)
    outputs: list[Tensor] = []
    ended: list[State] = []
    for x in ordered:
        state, over = _fitted(state, initial, len(x))
        ended.extend(over)
        state = step(x, state)
        outputs.append(state[0])
    final = tuple(torch.cat(rows) if ended else rows[0] for rows in zip(state, *reversed(ended), strict=True))
    return torch.cat(outputs[::-1] if reverse else outputs), final


def _fitted(state: State, initial: State, size: int) -> tuple[State, list[State]]:
    """The states of as many sequences as a time step has, and those of sequences that are over.

    Forwards, the shorter sequences end; backwards, they begin.
    """
    known = len(state[0])
    if size < known:
        return tuple(part[:size] for part in state), [tuple(part[size:] for part in state)]
    if size > known:
        return tuple(torch.cat([part, new[known:size]]) for part, new in zip(state, initial, strict=True)), []
    return state, []
