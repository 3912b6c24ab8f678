"""Quantized recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brevq.core.checks import flag
from brevq.nn.recurrent_layer import QuantRecurrent
from brevq.nn.unrolling import CellQuants, State, Weights

_NONLINEARITIES: Mapping[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class TwinRNN(nn.RNN):
    """`torch.nn.RNN`, whose constructor names its arguments, and two more that say how weights share scales."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        share_input_hidden: bool = False,
        scale_per_gate: bool = False,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.share_input_hidden = flag("share_input_hidden", share_input_hidden)
        self.scale_per_gate = flag("scale_per_gate", scale_per_gate)


class TwinLSTM(nn.LSTM):
    """`torch.nn.LSTM`, whose constructor names its arguments, and two more that say how weights share scales."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        share_input_hidden: bool = False,
        scale_per_gate: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        )
        self.share_input_hidden = flag("share_input_hidden", share_input_hidden)
        self.scale_per_gate = flag("scale_per_gate", scale_per_gate)


class TwinGRU(nn.GRU):
    """`torch.nn.GRU`, whose constructor names its arguments, and two more that say how weights share scales."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        share_input_hidden: bool = False,
        scale_per_gate: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype
        )
        self.share_input_hidden = flag("share_input_hidden", share_input_hidden)
        self.scale_per_gate = flag("scale_per_gate", scale_per_gate)


class QuantRNN(QuantRecurrent, TwinRNN):
    """`torch.nn.RNN` with quantized weights, and quantized biases, input, states and sums where asked for.

    ``h' = nonlinearity(W_ih x + b_ih + W_hh h + b_hh)``, with tanh or ReLU. `accumulator_quant` is for what enters
    the nonlinearity, `hidden_quant` for ``h'``. The constructor is that of `torch.nn.RNN`, then the recipes and
    overrides of `QuantRecurrent`, which also says what is quantized when. Input ``(time, batch, input_size)``; output
    ``(time, batch, directions * hidden_size)`` and the final state ``(layers * directions, batch, hidden_size)``.

    Examples:
        >>> from injectors import Int8ActPerTensor
        >>> layer = QuantRNN(3, 5, nonlinearity="relu", weight_bit_width=4, hidden_quant=Int8ActPerTensor)
        >>> output, final = layer(torch.randn(7, 2, 3))
        >>> output.shape, final.shape
        (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    nonlinearity: str

    def step(self, x: Tensor, state: State, weights: Weights, quants: CellQuants) -> State:
        """``h' = nonlinearity(x + W_hh h + b_hh)``, where ``x`` holds the input's part."""
        (h,) = state
        total = quants.accumulator(x + F.linear(h, weights.hidden, weights.hidden_bias))
        return (quants.hidden(_NONLINEARITIES[self.nonlinearity](total)),)


class QuantLSTM(QuantRecurrent, TwinLSTM):
    """`torch.nn.LSTM` with quantized weights, and quantized biases, input, states, gates and sums where asked for.

    ::

        i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh)    accumulator_quant within, gate_quant without
        g = tanh(W_ih x + b_ih + W_hh h + b_hh)             accumulator_quant within, tanh_quant without
        c' = f * c + i * g                                  cell_quant
        h' = W_hr (o * tanh(c'))                            tanh_quant for tanh(c'), hidden_quant for h'

    Each line has its own rows of the matrices; there is a ``W_hr`` with `proj_size` only. The three gates share a
    quantizer, an unsigned one for choice, and the two hyperbolic tangents another. The constructor is that of
    `torch.nn.LSTM`, then the recipes and overrides of `QuantRecurrent`, which also says what is quantized when, and
    `cell_quant`, `gate_quant` and `tanh_quant`, by default None.

    Input ``(time, batch, input_size)``; output ``(time, batch, directions * size)``, and the final states h,
    ``(layers * directions, batch, size)``, and c, ``(layers * directions, batch, hidden_size)``, where size is
    `proj_size` or, without one, `hidden_size`.

    Source:
        Hochreiter and Schmidhuber, 1997, https://doi.org/10.1162/neco.1997.9.8.1735, for the cell.

    Examples:
        >>> from injectors import Int8ActPerTensor, Int8WeightPerChannel, Uint8ActPerTensor
        >>> layer = QuantLSTM(
        ...     3, 5, weight_quant=Int8WeightPerChannel, scale_per_gate=True, share_input_hidden=True,
        ...     hidden_quant=Int8ActPerTensor, gate_quant=Uint8ActPerTensor, return_quant_tensor=True)
        >>> output, (h, c) = layer(torch.randn(7, 2, 3))
        >>> output.int().shape, h.shape, c.shape
        (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]), torch.Size([1, 2, 5]))
        >>> layer.quant_weight("weight_hh_l0").scale.unique().numel()  # one for each gate
        4
    """

    quants = {**QuantRecurrent.quants, "cell_quant": None, "gate_quant": None, "tanh_quant": None}  # noqa: RUF012  # a ClassVar of the base
    gates = 4
    states = ("hidden_quant", "cell_quant")

    def step(self, x: Tensor, state: State, weights: Weights, quants: CellQuants) -> State:
        """The cell's formula, where ``x`` holds the input's part of all sums."""
        h, c = state
        total = quants.accumulator(x + F.linear(h, weights.hidden, weights.hidden_bias))
        i, f, g, o = total.chunk(self.gates, -1)
        i, f, o = quants.gate(torch.sigmoid(torch.cat([i, f, o], -1))).chunk(3, -1)
        c = quants.cell(f * c + i * quants.tanh(torch.tanh(g)))
        h = o * quants.tanh(torch.tanh(c))
        return quants.hidden(h if weights.projection is None else F.linear(h, weights.projection)), c


class QuantGRU(QuantRecurrent, TwinGRU):
    """`torch.nn.GRU` with quantized weights, and quantized biases, input, state, gates and sums where asked for.

    ::

        r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh)       accumulator_quant within, gate_quant without
        n = tanh(W_ih x + b_ih + r * (W_hh h + b_hh))       accumulator_quant within, tanh_quant without
        h' = n + z * (h - n)                                hidden_quant

    Each line has its own rows of the matrices. The two gates share a quantizer, an unsigned one for choice. The
    constructor is that of `torch.nn.GRU`, then the recipes and overrides of `QuantRecurrent`, which also says what is
    quantized when, and `gate_quant` and `tanh_quant`, by default None. Input ``(time, batch, input_size)``; output
    ``(time, batch, directions * hidden_size)`` and the final state ``(layers * directions, batch, hidden_size)``.

    Source:
        Cho et al., 2014, https://arxiv.org/abs/1406.1078, for the cell, whose reset gate torch applies to the product.

    Examples:
        >>> from injectors import Int8ActPerTensor
        >>> layer = QuantGRU(3, 5, bidirectional=True, batch_first=True, hidden_quant=Int8ActPerTensor)
        >>> output, final = layer(torch.randn(2, 7, 3))
        >>> output.shape, final.shape
        (torch.Size([2, 7, 10]), torch.Size([2, 2, 5]))
    """

    quants = {**QuantRecurrent.quants, "gate_quant": None, "tanh_quant": None}  # noqa: RUF012  # a ClassVar of the base
    gates = 3

    def step(self, x: Tensor, state: State, weights: Weights, quants: CellQuants) -> State:
        """The cell's formula, where ``x`` holds the input's part of all sums."""
        (h,) = state
        sizes = [2 * self.hidden_size, self.hidden_size]
        x_gates, x_new = torch.split(x, sizes, -1)
        h_gates, h_new = torch.split(F.linear(h, weights.hidden, weights.hidden_bias), sizes, -1)
        r, z = quants.gate(torch.sigmoid(quants.accumulator(x_gates + h_gates))).chunk(2, -1)
        n = quants.tanh(torch.tanh(quants.accumulator(x_new + r * h_new)))
        return (quants.hidden(n + z * (h - n)),)
