"""The base of everything that takes recipes: arguments, overrides, and quantizers as attributes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from torch.fx import Proxy

from brevq.core.checks import flag
from brevq.errors import ArgumentTypeError
from brevq.inject.plan import plan_of
from brevq.nn.arguments import bind, parameter_names, prefix_of, refuse_positional, role_of, split_overrides
from brevq.quantizer import Quantizer

_NO_OVERRIDE = (
    "{layer} is built already, and `{name}` would change nothing.\n"
    "Give it another recipe: layer.{argument} = layer.{argument}.recipe.let(...)"
)


class QuantModule(nn.Module):
    """The base of layers that take recipes: a twin of a `torch.nn` layer, whose constructor comes first.

    Subclass it together with the twin, in this order, or alone for a layer that torch has not, and say in `quants`
    which quantizers there are. They become attributes.

    Args:
        *args: positional arguments of the twin.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: keyword arguments of the twin; recipes or quantizers for the names in `quants`, or None; and
            overrides of names of the recipes, with the prefix of their quantizer: ``input_bit_width`` for
            ``input_quant``.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor a recipe, or a recipe is none.
        ArgumentError: a recipe is for another role.
        RecipeError: a recipe has faults; all of them are listed.
    """

    #: The arguments that take recipes, and their defaults.
    quants: ClassVar[Mapping[str, Any]] = {}

    #: Those arguments with the prefixes of their overrides, the longest first.
    _prefixes: ClassVar[tuple[tuple[str, str], ...]] = ()

    return_quant_tensor: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the twin's arguments and the quantizers' in the signature, for `help` and editors."""
        super().__init_subclass__(**kwargs)
        longest_first = sorted(cls.quants, key=len, reverse=True)
        cls._prefixes = tuple((argument, prefix_of(argument)) for argument in longest_first)
        if "__init__" not in vars(cls):
            cls.__signature__ = signature_of(cls)  # type: ignore[attr-defined]  # inspect looks for it

    def __init__(self, *args: Any, return_quant_tensor: bool = False, **keywords: Any) -> None:
        name, twins = type(self).__name__, parameter_names(twin_of(type(self)))
        refuse_positional(name, args, self.quants)
        quants = {argument: keywords.pop(argument, default) for argument, default in self.quants.items()}
        theirs = {key: keywords.pop(key) for key in list(keywords) if key in twins}
        overrides = split_overrides(name, keywords, quants, [*twins, "return_quant_tensor"])
        flag("return_quant_tensor", return_quant_tensor)
        self.check_quants(quants, return_quant_tensor)
        super().__init__(*args, **theirs)
        self.register_forward_pre_hook(_keep_in_sight)
        self.return_quant_tensor = return_quant_tensor
        for argument, given in quants.items():
            setattr(self, argument, given.let(**overrides[argument]) if overrides[argument] else given)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As for every module, hooks included; symbolic tracing sees one node, as for those of `torch.nn`."""
        for part in (*args, *kwargs.values()):
            if isinstance(part, Proxy):
                path = part.tracer.path_of_module(self)  # type: ignore[attr-defined]  # a tracer of modules has it
                return part.tracer.create_proxy("call_module", path, args, kwargs)
        return super().__call__(*args, **kwargs)

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute; a recipe that is assigned to one of the quantizers is built for this layer.

        Raises:
            ArgumentTypeError: the name is that of an override, which means something to the constructor alone.
        """
        if name in self.quants and content is not None:
            content = self.bound(name, content)
            if isinstance(content, nn.Module) and content.training != self.training:
                content.train(self.training)
        elif name not in self.quants:
            self._refuse_override(name)
        super().__setattr__(name, content)

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse recipes that make no sense together; a subclass says which, by default all do.

        Args:
            quants: what was given for each argument of `quants`.
            return_quant_tensor: whether the output is to be a `QuantTensor`.
        """

    def bound(self, argument: str, given: Any) -> Quantizer | None:
        """The quantizer that an argument stands for: built from a recipe, or the one that was given.

        Args:
            argument: one of `quants`.
            given: a recipe, a quantizer, or None.
        """
        if given is None:
            return None
        return bind(type(self).__name__, argument, given, self.supplied_to(argument))

    def supplies(self, recipe: Any) -> Mapping[str, Any]:
        """What this layer supplies to `recipe`, by the recipe's role; `explain` shows it.

        Args:
            recipe: a recipe class.
        """
        role = recipe.role if "role" in recipe else next(iter(map(role_of, self.quants)), "")
        argument = next((argument for argument in self.quants if role_of(argument) == role), None)
        return {} if argument is None else self.supplied_to(argument)

    def supplied_to(self, argument: str) -> dict[str, Any]:
        """What this layer supplies to the recipe of one of its quantizers: shapes, axis, dtype, device.

        Args:
            argument: one of `quants`.
        """
        return {}

    def _repr_html_(self) -> str:
        from brevq.nn.page import page_of  # noqa: PLC0415  # it is needed in notebooks alone

        return page_of(self)

    def _refuse_override(self, name: str) -> None:
        """Refuse to set what looks like an override of a recipe, and would change nothing."""
        for argument, prefix in self._prefixes:
            quantizer = getattr(self, argument, None) if name.startswith(prefix) else None
            if quantizer is not None and name.removeprefix(prefix) in plan_of(quantizer.recipe).known:
                raise ArgumentTypeError(_NO_OVERRIDE.format(layer=type(self).__name__, name=name, argument=argument))


def _keep_in_sight(module: nn.Module, args: Any) -> None:
    """Nothing. That a layer has a hook keeps torch's transformer layers from computing with its weights themselves."""


def twin_of(layer: type) -> type:
    """The class that a layer is a twin of: the one after ours in its method resolution order.

    Args:
        layer: the layer class.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> twin_of(QuantLinear).__module__
        'torch.nn.modules.linear'
    """
    return layer.__mro__[layer.__mro__.index(QuantModule) + 1]


def signature_of(layer: type[QuantModule]) -> inspect.Signature:
    """The arguments of a layer's twin, then the quantizers and what else there is by keyword.

    Args:
        layer: the layer class.
    """
    theirs = inspect.signature(twin_of(layer)).parameters.values()
    named = [p for p in theirs if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    quants = [inspect.Parameter(name, keyword, default=default) for name, default in layer.quants.items()]
    tensor = inspect.Parameter("return_quant_tensor", keyword, default=False, annotation="bool")
    rest = inspect.Parameter("overrides", inspect.Parameter.VAR_KEYWORD, annotation="Any")
    return inspect.Signature([*named, *quants, tensor, rest])
