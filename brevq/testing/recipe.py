"""The contract of recipes: what one must do on every kind of layer that it serves."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from brevq.errors import ArgumentError
from brevq.inject import check, dump, explain, fingerprint, load
from brevq.inject.installed import packages
from brevq.testing import expect
from brevq.testing.contract import Contract, devices, dtypes
from brevq.testing.layers import ZEROS, Bench, benches

#: Of the weights of the smallest layer here, a scale for each channel is taken of every sixth.
_SHARE = 0.2


class RecipeContract(Contract):
    """What every recipe must do, on every kind of layer that it serves.

    A class declares `recipe`, or `recipes` for several:

    - Values lie on the grid that the quantizer states and go along with what was quantized, and training gives all
      parameters finite gradients, which reach the weights.
    - The state goes round, with keys that are fixed at construction; copies compute the same, compiled ones too.
    - float16, bfloat16 and float64 keep their dtype; zeros stay zeros.
    - The recipe has a docstring and no faults, pickles, and goes round as text.

    Examples:
        >>> from injectors import Int8WeightPerChannel
        >>> class Int3Weight(Int8WeightPerChannel):
        ...     "Signed 3-bit weights, one scale for each output channel."
        ...     bit_width = 3
        >>> class TestInt3Weight(RecipeContract):
        ...     recipe = Int3Weight
    """

    #: The recipe.
    recipe: ClassVar[Any] = None
    #: Recipes, where there is more than one.
    recipes: ClassVar[Iterable[Any]] = ()
    #: The dtypes that layers are tried in, besides float32.
    dtypes: ClassVar[Mapping[str, torch.dtype]] = dtypes("float16", "bfloat16", "float64")

    def layers(self, recipe: Any) -> Mapping[str, Bench]:
        """The layers that a recipe is tried on, by name. Override it for a role or a layer of your own."""
        return benches(recipe)

    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The recipes, the layers that each serves, dtypes and devices."""
        recipes = {recipe.__name__: recipe for recipe in self._recipes()}
        found = {f"{name}-{kind}": it for name, recipe in recipes.items() for kind, it in self.layers(recipe).items()}
        return {"a_recipe": recipes, "bench": found, "dtype": self.dtypes, "device": devices()}

    def _recipes(self) -> list[Any]:
        recipes = [*self.recipes] if self.recipe is None else [self.recipe]
        if not recipes:
            raise ArgumentError(f"{type(self).__name__} declares no `recipe`, and no `recipes`: one of them is tested")
        return recipes

    def test_forward_lies_on_the_grid(self, bench: Bench, device: torch.device) -> None:
        """Every tensor that a layer quantizes lies on the grid that its quantizer states."""
        layer, x = bench.calibrated(device)
        if not hasattr(layer, "weight"):
            layer.return_quant_tensor = True
            expect.holds(layer(x).is_valid, "the values lie on the grid that the quantizer states")
            return
        expect.holds(layer(x).isfinite().all(), "the layer computes finite values")
        for name, quantizer in _quantizers(layer).items():
            own = {"weight_quant": layer.quant_weight, "bias_quant": layer.quant_bias}
            quantized = own[name]() if name in own else quantizer(x)
            expect.holds(quantized.is_valid, f"what `{name}` quantizes lies on the grid that it states")

    def test_quantized_values_go_along(self, bench: Bench) -> None:
        """What a layer quantizes does not vanish, and keeps its direction: its product with what came is positive."""
        layer, x = bench.calibrated()
        for name, given, quantized in _quantized(layer, x):
            expect.holds((given * quantized).sum() > 0, f"what `{name}` quantizes goes along with what it was given")

    def test_every_parameter_gets_a_finite_gradient(self, bench: Bench) -> None:
        """One step of training gives all parameters a finite gradient: weights and biases one that is not zero.

        Of weights, more than those from which scales are taken get one: a fifth at least.
        """
        layer, x = bench.make().train(), torch.randn(bench.shape, requires_grad=True)
        weight, bias = (getattr(layer, name, None) for name in ("weight", "bias"))
        if getattr(layer, "bias_quant", None) is not None and isinstance(bias, Tensor):
            bias.data.mul_(1e-4)  # within 8 bits of the accumulator's grid: what is clipped gets no gradient
        layer(x).square().sum().backward()
        expect.holds(x.grad is not None and x.grad.isfinite().all(), "the input gets a finite gradient")
        for name, parameter in layer.named_parameters():
            finite = parameter.grad is None or parameter.grad.isfinite().all()
            expect.holds(finite, f"the gradient of `{name}` is finite")
        for name, own in {"weight": weight, "bias": bias}.items():
            moves = own is None or (own.grad is not None and own.grad.abs().sum() > 0)
            expect.holds(moves, f"the layer's {name} gets a gradient that is not zero")
        if isinstance(weight, nn.Parameter) and weight.grad is not None:
            share = (weight.grad != 0).double().mean()
            expect.holds(share > _SHARE, "the gradient reaches the weights, and not only those that give the scales")

    def test_state_goes_round(self, bench: Bench) -> None:
        """The state of a calibrated layer loads, strictly, into a fresh one, which then computes the same."""
        layer, x = bench.calibrated()
        fresh = bench.make().eval()
        fresh.load_state_dict(layer.state_dict(), strict=True)
        expect.equal(layer(x), fresh(x), "a layer that loaded the state computes the same")
        expect.equal(layer.state_dict(), fresh.state_dict(), "the state goes round")

    def test_keys_are_fixed_at_construction(self, bench: Bench) -> None:
        """Neither data nor training changes the keys of the state."""
        layer = bench.make()
        before = list(layer.state_dict())
        layer.train()(torch.randn(bench.shape, requires_grad=True)).sum().backward()
        expect.equal(before, list(layer.state_dict()), "the keys of the state are fixed at construction")

    def test_copies_compute_the_same(self, bench: Bench) -> None:
        """A deep copy, a pickled copy and one that `torch.save` wrote compute what the layer computes."""
        layer, x = bench.calibrated()
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        copies = {
            "a deep copy": copy.deepcopy(layer),
            "a pickled copy": pickle.loads(pickle.dumps(layer)),
            "a saved copy": torch.load(file, weights_only=False),
        }
        for way, copied in copies.items():
            expect.equal(layer(x), copied(x), f"{way} computes the same")

    def test_other_dtypes_keep_their_dtype(self, bench: Bench, dtype: torch.dtype) -> None:
        """A model in another dtype returns that dtype, and finite numbers; its scales stay float32."""
        layer, x = bench.calibrated()
        y = layer.to(dtype)(x.to(dtype))
        expect.equal(dtype, y.dtype, "the output has the dtype of the model")
        expect.holds(y.isfinite().all(), f"the output in {dtype} is finite")
        for name, quantizer in _quantizers(layer).items():
            tensors = [*quantizer.parameters(), *quantizer.buffers()]
            kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
            expect.holds(kinds <= {torch.float32}, f"the state of `{name}` stays float32")

    def test_compiled_layers_compute_the_same(self, a_recipe: Any) -> None:
        """The first kind of layer compiles as one graph, and computes the same."""
        layer, x = next(iter(self.layers(a_recipe).values())).calibrated()
        torch.compiler.reset()
        compiled: Any = torch.compile(layer, backend="eager", fullgraph=True)
        expect.equal(layer(x), compiled(x), "a compiled layer computes the same")

    def test_recipe_is_documented(self, a_recipe: Any) -> None:
        """A recipe says what it is in its first line."""
        lines = (a_recipe.__doc__ or "").strip().splitlines()
        says = lines and (": " in lines[0] or lines[0].endswith((".", ":")))
        expect.holds(says, "the docstring begins with a line that says what the recipe is, and ends in a full stop")

    def test_recipe_has_no_faults(self, a_recipe: Any) -> None:
        """`check` finds nothing, and `explain` draws every name that the recipe uses, from `tensor_quant` down."""
        check(a_recipe)
        lines = explain(a_recipe).lines
        expect.equal("tensor_quant", lines[0].name, "the wiring begins with `tensor_quant`")
        origins = {line.origin[:10] for line in lines if line.name not in a_recipe}
        expect.holds(origins <= {"default of"}, "names that the recipe does not declare have a default")

    def test_recipe_travels(self, a_recipe: Any) -> None:
        """A recipe, and one derived from it, are themselves again after pickling and copying."""
        derived = a_recipe.let(quant_delay_steps=3)
        for recipe in (a_recipe, derived):
            expect.holds(recipe is pickle.loads(pickle.dumps(recipe)), f"{recipe.__name__} is itself after pickling")
            expect.holds(recipe is copy.deepcopy(recipe), f"{recipe.__name__} is itself after copying")

    def test_recipe_goes_round_as_text(self, a_recipe: Any) -> None:
        """What `dump` writes of it, `load` reads: a recipe that builds the same."""
        allowed = (*packages(), a_recipe.__module__.partition(".")[0])
        loaded = load(dump(a_recipe), allowed=allowed)
        expect.equal(fingerprint(a_recipe), fingerprint(loaded), "the recipe goes round as text")

    def test_zeros_stay_zeros(self, a_recipe: Any) -> None:
        """An all-zero tensor gives finite values, and zeros on every grid that has a zero."""
        role = a_recipe.role if "role" in a_recipe else None
        if role not in ZEROS:
            return  # a bias lies on the accumulator's grid, and what other roles do is not known
        quantized = ZEROS[role](a_recipe)
        expect.holds(quantized.value.isfinite().all(), "zeros become finite values")
        has_zero = attrs.evolve(quantized, value=torch.zeros_like(quantized.value)).is_valid
        expect.holds(not has_zero or quantized.value.abs().sum() == 0, "zeros stay zeros")


def _quantized(layer: Any, x: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What a layer quantizes, by the argument that the quantizer came from: the tensor, and what becomes of it."""
    for name, quantizer in _quantizers(layer).items():
        own = {"weight_quant": "weight", "bias_quant": "bias"}.get(name)
        if own:
            yield name, getattr(layer, own), getattr(layer, f"quant_{own}")().value
        elif getattr(getattr(quantizer, "recipe", None), "role", None) == "activation":  # others ask for more than x
            yield name, x, quantizer(x).value


def _quantizers(layer: nn.Module) -> dict[str, Any]:
    """The quantizers of a layer, by the argument that they came from."""
    return {name: child for name, child in layer.named_children() if name.endswith("_quant")}
