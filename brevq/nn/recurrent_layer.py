"""The base of quantized recurrent layers: their quantizers, and their one `forward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn.arguments import bind, check_given
from brevq.nn.module import QuantModule
from brevq.nn.unrolling import CellQuants, Layout, Matrix, PartQuantizers, State, Weights, quantizes, unroll
from brevq.quant_tensor import QuantTensor, describe, plain
from brevq.quantizer import Quantizer
from injectors import Int8WeightPerTensor

_BIAS_NEEDS_SCALE = (
    "{bias} needs the scale of what enters its layer, and that is a plain tensor.\n"
    "For the first layer give {layer} an `input_quant`, or let the layer before it return a QuantTensor; for those "
    "above it a `hidden_quant`"
)
_BIAS_NEEDS_ONE_SCALE = (
    "{bias} lies on the grid of the accumulator, and there is none: each row needs one scale, of the whole input times "
    "that of the weight or of its row"
)
_WEIGHT_NEEDS_INPUT = (
    "{layer} got `weight_quant={recipe}`, which needs the bit width of what a matrix is multiplied with. A state's is "
    "not known before the sequence begins: give it a recipe that is not accumulator-aware, such as Int8WeightPerChannel"
)
_NO_STEPS = "{layer} needs at least one time step, and its input, of shape {shape}, has none"
_NO_GRID = (
    "{layer} got `return_quant_tensor=True` without `hidden_quant` and `output_quant`, so its output lies on no grid: "
    "give it one of them"
)


class QuantRecurrent(QuantModule):
    """The base of recurrent layers: a twin of a `torch.nn` one, whose constructor comes first.

    Subclass it together with the twin, in this order, and say in `step` what one time step computes.

    **Quantizers.** Each is an attribute. `input_quant` and `output_quant` serve the whole sequence; the others are
    tables of quantizers that are made of one recipe, by the part of the layer that they serve: `weight_quant` has
    one for each matrix (``ih_l0``, ``hh_l0``, ``ih_l0_reverse``), `bias_quant` one for each bias, `hidden_quant`
    one for each layer (``l0``), whose two directions share it, for their outputs lie in one tensor, and the
    rest one for each layer and direction. A quantizer in a recipe's place serves all parts.

    **Phases.** Within the loop each time step is a call of its quantizers, and while they observe it counts as a
    batch: a sequence of 30 steps is 30 of the 300 `collect_stats_steps`. Sequences that have ended are not seen. Until
    the range is settled, each step lies on its own grid. Where one is needed for all steps, because a `QuantTensor`
    is returned or a bias takes its scale from there, `hidden_quant` quantizes the whole sequence once more; once its
    range is settled, that changes nothing. Missing initial states are zeros and not quantized; those that are
    given are, which counts as another step: leave them out rather than give zeros while ranges are observed.

    **Bias.** A recipe that is tied to the accumulator, such as `Int32Bias`, has the scale of what enters the layer
    times that of its input-hidden matrix, for both biases.

    **Equality.** With every quantizer None it is its twin, bit for bit. Otherwise, weights are quantized once for all
    time steps, and all of the input is multiplied at once.

    **Compilation.** torch compiles no subclass of its recurrent layers unless told to:
    ``torch._dynamo.config.allow_rnn = True``. Then this loop compiles as one graph, in training and in evaluation,
    for sequences of one length; packed sequences are outside of that.

    Args:
        *args: positional arguments of the twin.
        weight_quant: recipe or quantizer for the matrices; None for float. Default: `Int8WeightPerTensor`.
        bias_quant: recipe or quantizer for the biases; None for float. Default: None.
        input_quant: recipe or quantizer for the input sequence; None for as it comes. Default: None.
        hidden_quant: recipe or quantizer for h, which is fed back and returned; None for float. Default: None.
        accumulator_quant: recipe or quantizer for what enters the nonlinearities; None for float. Default: None.
        output_quant: recipe or quantizer for the output sequence, where that needs another grid than `hidden_quant`
            gives it; None for none. Default: None.
        share_input_hidden: whether the input-hidden and the hidden-hidden matrix of a layer and direction share one
            quantizer, and with it their scales. Default: False.
        scale_per_gate: whether a recipe that has a scale for each channel has one for each gate of a matrix,
            and not for each of its rows. Default: False.
        return_quant_tensor: whether the output sequence is a `QuantTensor`, on the grid of `output_quant` or, without
            one, of `hidden_quant`; states are plain tensors always. Default: False.
        **keywords: keyword arguments of the twin, and overrides of names of the recipes, prefixed by ``weight_``,
            ``bias_``, ``input_``, ``hidden_``, ``accumulator_``, ``output_``.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor a recipe, or a recipe is none.
        ArgumentError: a recipe is for another role, or the arguments contradict each other.
        RecipeError: a recipe has faults; all of them are listed.

    Examples:
        >>> from brevq.nn import QuantRNN
        >>> class QuantLeakyRNN(QuantRNN):
        ...     def step(self, x, state, weights, quants):
        ...         (h,) = super().step(x, state, weights, CellQuants())
        ...         return (quants.hidden((state[0] + h) / 2),)
        >>> QuantLeakyRNN(3, 5, weight_bit_width=4)(torch.randn(7, 2, 3))[0].shape
        torch.Size([7, 2, 5])
    """

    quants = {  # noqa: RUF012  # a ClassVar of the base
        "weight_quant": Int8WeightPerTensor,
        "bias_quant": None,
        "input_quant": None,
        "hidden_quant": None,
        "accumulator_quant": None,
        "output_quant": None,
    }

    #: Number of gates, whose rows lie one below the other in a matrix.
    gates: ClassVar[int] = 1
    #: The arguments for what quantizes the states.
    states: ClassVar[tuple[str, ...]] = ("hidden_quant",)

    bias: bool
    batch_first: bool
    bidirectional: bool
    num_layers: int
    dropout: float
    hidden_size: int
    proj_size: int
    share_input_hidden: bool
    scale_per_gate: bool
    weight_quant: PartQuantizers | None
    bias_quant: PartQuantizers | None
    input_quant: Quantizer | None
    hidden_quant: PartQuantizers | None
    accumulator_quant: PartQuantizers | None
    output_quant: Quantizer | None

    def step(self, x: Tensor, state: State, weights: Weights, quants: CellQuants) -> State:
        """What the cell computes in one time step; the only thing that a subclass adds.

        Args:
            x: the input times its matrix, with its bias, shape ``(sequences, gates * hidden_size)``.
            state: the states before it.
            weights: the matrices and biases.
            quants: what quantizes the values within the cell.

        Returns:
            The states after it, h first.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what a time step computes: override `step`")

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002  # the twins' name for it
        """The twin's output and final states, computed with quantized weights, biases, input and states.

        Args:
            input: ``(time, batch, features)``, with `batch_first` ``(batch, time, features)``, unbatched
                ``(time, features)``: a tensor or a `QuantTensor`. Or a packed sequence of either.
            hx: the initial states, as the twin takes them. Default: zeros.

        Returns:
            The output sequence, of the kind of the input, and the final states, in the twin's shapes.

        Raises:
            UncalibratedError: a quantizer of activations has seen no data, in evaluation.
            ArgumentError: a bias needs the scale of what enters its layer, and that has none; or there are no time
                steps.
        """
        layout = Layout.of(input, self.batch_first)
        if not layout.sizes:
            raise ArgumentError(_NO_STEPS.format(layer=describe(self), shape=tuple(input.shape)))
        data = input if layout.packed is None else layout.packed.data
        if not torch.compiler.is_compiling() and all(getattr(self, argument) is None for argument in self.quants):
            return super().forward(layout.wrapped(plain(data)), hx)
        return self._unrolled(data, hx, layout)

    def quant_weight(self, name: str = "weight_ih_l0") -> QuantTensor:
        """A matrix as `forward` uses it, of the shape of the parameter.

        Args:
            name: name of the parameter. Default: the input-hidden matrix of the first layer.

        Raises:
            ArgumentError: the layer has float weights, or there is no such matrix.
        """
        part = name.removeprefix("weight_")
        if self.weight_quant is None or part not in self.weight_quant.parts:
            has = "float weights" if self.weight_quant is None else f"the matrices {', '.join(self._matrices)}"
            raise ArgumentError(f"{type(self).__name__} has no quantized weight `{name}`: it has {has}")
        return self._weight(part, self.weight_quant.of(part).peek)

    def quant_bias(self, name: str = "bias_ih_l0", x: QuantTensor | None = None) -> QuantTensor:
        """A bias as `forward` uses it.

        Args:
            name: name of the parameter. Default: the input-hidden bias of the first layer.
            x: what enters its layer, whose scale the bias may need. Default: for the first layer, the grid that
                `input_quant` has now.

        Raises:
            ArgumentError: the layer has float biases, there is no such bias, or the scale is not known.
        """
        part = name.removeprefix("bias_")
        if self.bias_quant is None or part not in self.bias_quant.parts:
            has = (
                "float biases, or none" if self.bias_quant is None else f"the biases {', '.join(self.bias_quant.parts)}"
            )
            raise ArgumentError(f"{type(self).__name__} has no quantized bias `{name}`: it has {has}")
        quantizer, (_, _, cell) = self.bias_quant.of(part), part.partition("_")
        if x is None and self.input_quant is not None and quantizer.needs_scale and cell.startswith("l0"):
            x = self.input_quant.current()
        return self._bias(part, x, self.quant_weight(f"weight_ih_{cell}"), quantizer.peek)

    def extra_repr(self) -> str:
        """The twin's arguments, and how matrices share scales."""
        shares = [name for name in ("share_input_hidden", "scale_per_gate") if getattr(self, name)]
        return ", ".join([super().extra_repr(), *(f"{name}=True" for name in shares)])

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a quantized bias beside float weights, and a `QuantTensor` without a grid."""
        if quants["bias_quant"] is not None and quants["weight_quant"] is None:
            raise ArgumentTypeError(
                f"{type(self).__name__} got a `bias_quant` and `weight_quant=None`: the bias lies on the grid of input "
                "times weight"
            )
        if return_quant_tensor and quants["hidden_quant"] is None and quants["output_quant"] is None:
            raise ArgumentError(_NO_GRID.format(layer=type(self).__name__))

    def supplied_to(self, argument: str) -> dict[str, Any]:
        """Dtype and device of the weights; to their recipe and that of the biases also shape and channel axis.

        Args:
            argument: one of `quants`.
        """
        return self._supplied_to(argument, "ih_l0")

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute; quantizers of the weights learn that they serve this layer, those before that it left."""
        before: Any = vars(self).get("_modules", {}).get(name) if name == "weight_quant" else None
        super().__setattr__(name, content)
        if before is None:
            return
        now = self.weight_quant
        for part, matrix in self._matrices.items():
            if now is None or now.of(part) is not before.of(part):
                before.of(part).leave(matrix)

    def bound(self, argument: str, given: Any) -> Any:
        """The quantizers that an argument stands for: a table of them, where the layer has several such parts."""
        keys = self._keys(argument, isinstance(given, Quantizer))
        if not keys:
            check_given(type(self).__name__, argument, given)
            return None
        if given is None or argument in ("input_quant", "output_quant"):
            return super().bound(argument, given)

        def make(part: str) -> Any:
            return bind(type(self).__name__, argument, given, self._supplied_to(argument, part))

        fits = isinstance(given, PartQuantizers) and [*given.parts] == [*keys]
        if fits:
            check_given(type(self).__name__, argument, next(iter(given.values())))
        table = given if fits else PartQuantizers(keys, make)
        if argument == "weight_quant":
            self._serve(table)
        return table

    def _serve(self, table: PartQuantizers) -> None:
        """Let the quantizers of weights know what they serve, so that statistics are taken over all of it."""
        served: list[tuple[Any, Any]] = []
        try:
            for part, matrix in self._matrices.items():
                quantizer: Any = table.of(part)
                if quantizer.needs_input:
                    name, recipe = type(self).__name__, quantizer.recipe.__name__
                    raise ArgumentError(_WEIGHT_NEEDS_INPUT.format(layer=name, recipe=recipe))
                if quantizer.granularity is not None:
                    served.append((quantizer.granularity, quantizer.granularity.peers))
                quantizer.share(matrix)
        except ArgumentError:
            for granularity, peers in reversed(served):
                granularity.peers = peers
            raise

    @cached_property
    def _matrices(self) -> dict[str, Matrix]:
        """The weight matrices, by what they are called in `weight_quant`; a projection has no gates."""
        parts = [name.removeprefix("weight_") for name in self._flat_weights_names if name.startswith("weight_")]  # type: ignore[union-attr]  # the twin's
        gates = self.gates if self.scale_per_gate else None
        return {part: Matrix(self, f"weight_{part}", None if part.startswith("hr_") else gates) for part in parts}

    @property
    def _cells(self) -> list[str]:
        """The directions of the layers, in the order of the twin's parameters."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [f"l{layer}{direction}" for layer in range(self.num_layers) for direction in directions]

    def _keys(self, argument: str, shared: bool) -> dict[str, str]:
        """For each part that has a quantizer of this kind, the key of its quantizer; `shared` if one serves all."""
        if argument == "weight_quant":
            keys = {
                part: part.removeprefix("hh_").removeprefix("ih_") if self.share_input_hidden else part
                for part in self._matrices
            }
        elif argument == "bias_quant":
            keys = {f"{kind}_{cell}": f"{kind}_{cell}" for cell in self._cells for kind in ("ih", "hh") if self.bias}
        else:
            keys = {cell: cell.removesuffix("_reverse") if argument == "hidden_quant" else cell for cell in self._cells}
        return dict.fromkeys(keys, "all") if shared else keys

    def _supplied_to(self, argument: str, part: str) -> dict[str, Any]:
        """What the layer supplies to the recipe of the quantizer of one part."""
        weight = self._matrices["ih_l0"].weight
        about: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
        if argument == "weight_quant":
            return {"tensor_shape": tuple(self._matrices[part].weight.shape), "channel_axis": 0, **about}
        if argument == "bias_quant" and self.bias:
            return {"tensor_shape": tuple(getattr(self, f"bias_{part}").shape), **about}
        return about

    def _unrolled(self, data: Any, hx: Any, layout: Layout) -> Any:
        """What `forward` returns, from the loop over the time steps."""
        states = self._initial(plain(data), hx, layout)
        x: Any = data if self.input_quant is None else self.input_quant(plain(data))
        rows = layout.rows(plain(x))
        finals: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for cell in (name for name in self._cells if name.removesuffix("_reverse") == f"l{layer}"):
                output, final = self._directed(cell, rows, x, states[len(finals)], layout.sizes)
                outputs.append(output)
                finals.append(final)
            rows = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
            if layer < self.num_layers - 1:
                x = self._between(rows, layer)
                rows = plain(x)
        final_states = tuple(layout.states_out(torch.stack(parts)) for parts in zip(*finals, strict=True))
        return layout.wrapped(self._output(layout.data(rows))), self._state(final_states)

    def _directed(self, cell: str, rows: Tensor, x: Any, initial: State, sizes: list[int]) -> tuple[Tensor, State]:
        """The output rows of one direction of one layer, and its final states."""
        weights = self._weights(cell, x)
        kinds = {argument.removesuffix("_quant"): argument for argument in self.quants}
        tables = {kind: getattr(self, kinds[kind]) for kind in CellQuants._fields if kind in kinds}
        quants = CellQuants(**{kind: quantizes(table, cell) for kind, table in tables.items()})
        inputs = torch.split(F.linear(rows, weights.input, weights.input_bias), sizes)
        return unroll(lambda x, state: self.step(x, state, weights, quants), inputs, initial, cell.endswith("_reverse"))

    def _initial(self, data: Tensor, hx: Any, layout: Layout) -> list[State]:
        """The initial states of each direction of each layer, quantized where they are given."""
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: len(self.states)]
        if hx is None:
            given = [data.new_zeros(len(self._cells), layout.sizes[0], size) for size in sizes]
        else:
            given = [layout.states_in(plain(state)) for state in (hx if len(sizes) > 1 else (hx,))]
        batched = data if layout.batched else data.unsqueeze(0 if self.batch_first else 1)
        self.check_forward_args(batched, self._state(tuple(given)), layout.batch_sizes)  # type: ignore[operator]  # the twin's
        tables = [getattr(self, argument) if hx is not None else None for argument in self.states]
        return [
            tuple(quantizes(table, cell)(state) for table, state in zip(tables, states, strict=True))
            for cell, states in zip(self._cells, zip(*given, strict=True), strict=True)
        ]

    def _between(self, rows: Tensor, layer: int) -> Any:
        """What enters the next layer: on one grid where its biases ask for one, after dropout."""
        tied = self.bias_quant is not None and self.bias_quant.of("ih_l0").needs_scale
        x = self.hidden_quant.of(f"l{layer}")(rows) if tied and self.hidden_quant is not None else rows
        if not self.dropout or not self.training:
            return x
        dropped = F.dropout(plain(x), self.dropout)
        kept = (1 - self.dropout) or 1.0  # nothing is kept: all are zero, on whatever grid
        return x.regrid(dropped, x.scale / kept, x.zero_point) if isinstance(x, QuantTensor) else dropped

    def _output(self, output: Tensor) -> Any:
        """The output sequence, on its grid if it is to be a `QuantTensor`."""
        quantizer: Any = self.output_quant
        if quantizer is None and self.return_quant_tensor and self.hidden_quant is not None:
            quantizer = self.hidden_quant.of(self._cells[-1])
        if quantizer is None:
            return output
        quantized = quantizer(output)
        return quantized if self.return_quant_tensor else quantized.value

    def _state(self, states: State) -> Any:
        """States as the twin takes and returns them."""
        return states if len(states) > 1 else states[0]

    def _weights(self, cell: str, x: Any) -> Weights:
        """The matrices and biases of one direction of one layer, quantized."""
        ih, hh, hr = (self._maybe_weight(f"{kind}_{cell}") for kind in ("ih", "hh", "hr"))
        input_bias, hidden_bias = (self._maybe_bias(f"{kind}_{cell}", x, ih) for kind in ("ih", "hh"))
        return Weights(plain(ih), plain(hh), plain(input_bias), plain(hidden_bias), plain(hr))

    def _maybe_weight(self, part: str) -> Any:
        """A matrix, quantized or not; None if the layer has none of that name."""
        if self.weight_quant is None or part not in self._matrices:
            return getattr(self, f"weight_{part}", None)
        return self._weight(part, self.weight_quant.of(part))

    def _weight(self, part: str, quantize: Callable[..., QuantTensor]) -> QuantTensor:
        """A matrix, quantized, in the shape of the parameter."""
        quantized = quantize(self._matrices[part].weight)
        if quantized.value.dim() == 2:
            return quantized
        rows = quantized.value.shape[1]
        scale, zero_point = (
            grid.expand(-1, rows, -1).flatten(0, 1) if grid.dim() else grid for grid in quantized.spread()
        )
        return quantized.regrid(quantized.value.flatten(0, 1), scale, zero_point)

    def _maybe_bias(self, part: str, x: Any, weight: Any) -> Any:
        """A bias, quantized or not; None if the layer has none."""
        if self.bias_quant is None:
            return getattr(self, f"bias_{part}", None)
        return self._bias(part, x, weight, self.bias_quant.of(part))

    def _bias(self, part: str, x: Any, weight: Any, quantize: Callable[..., QuantTensor]) -> QuantTensor:
        """A bias, quantized, by the scale of what enters its layer and of the input-hidden matrix where it asks."""
        bias, quantizer = getattr(self, f"bias_{part}"), self.bias_quant.of(part)  # type: ignore[union-attr]  # it has one
        if not quantizer.needs_scale:
            return quantize(bias)
        if not isinstance(x, QuantTensor):
            raise ArgumentError(_BIAS_NEEDS_SCALE.format(bias=describe(quantizer), layer=type(self).__name__))
        uniform = weight.scale.numel() == 1
        if x.scale.numel() != 1 or not (uniform or weight.scale.shape == (len(bias), 1)):
            raise ArgumentError(_BIAS_NEEDS_ONE_SCALE.format(bias=describe(quantizer)))
        return quantize(bias, x.scale.reshape(()) * weight.scale.reshape(() if uniform else (-1,)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Weights that come without the state of their quantizers are a float network's: learned ranges start again."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        known = any(key.startswith(prefix + "weight_quant.") for key in state_dict)
        if self.weight_quant is None or known or prefix + "weight_ih_l0" not in state_dict:
            return
        for quantizer in self.weight_quant.values():
            quantizer.restart()  # type: ignore[operator]  # a table holds quantizers
