"""What layers are given beside the arguments of their twins: recipes, quantizers, and overrides by keyword."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.inject import Injector
from brevq.inject.analyse import parameters
from brevq.inject.near import did_you_mean, nearest
from brevq.inject.plan import plan_of
from brevq.quantizer import Quantizer

#: Role of the recipe that each argument takes.
ROLES = {
    "weight_quant": "weight",
    "bias_quant": "bias",
    "input_quant": "activation",
    "output_quant": "activation",
    "act_quant": "activation",
}
_EXAMPLES = {"weight": "Int8WeightPerTensor", "bias": "Int32Bias", "activation": "Int8ActPerTensor"}


def twin_of(layer: type, base: type) -> type:
    """The `torch.nn` class that a layer is a twin of: the one after `base` in its method resolution order.

    Args:
        layer: the layer class.
        base: the class that adds quantizers.

    Examples:
        >>> from brevq.nn.layer import QuantLayer
        >>> from brevq.nn import QuantLinear
        >>> twin_of(QuantLinear, QuantLayer).__module__
        'torch.nn.modules.linear'
    """
    return layer.__mro__[layer.__mro__.index(base) + 1]


def parameter_names(twin: type) -> tuple[str, ...]:
    """The names that a class takes by keyword, without ``*args`` and ``**kwargs``.

    Args:
        twin: the class.

    Examples:
        >>> from torch import nn
        >>> parameter_names(nn.Linear)
        ('in_features', 'out_features', 'bias', 'device', 'dtype')
    """
    required, optional = parameters(twin)
    return required + optional


def split_overrides(
    layer: str, keywords: Mapping[str, Any], quants: Mapping[str, Any], others: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Sort keyword overrides by the recipe that they belong to.

    Args:
        layer: name of the layer, for messages.
        keywords: all keywords that neither the twin nor the layer knows.
        quants: what was given for each of the layer's recipe arguments; the key's prefix is the overrides' prefix
            (none for ``act_quant``).
        others: the other arguments of the layer, for near misses.

    Returns:
        For each recipe argument, its overrides by their names in the recipe.

    Raises:
        ArgumentTypeError: a keyword fits no recipe; all such keywords are listed.

    Examples:
        >>> from injectors import Int8WeightPerTensor
        >>> split_overrides("QuantLinear", {"weight_bit_width": 4}, {"weight_quant": Int8WeightPerTensor}, [])
        {'weight_quant': {'bit_width': 4}}
    """
    found: dict[str, dict[str, Any]] = {argument: {} for argument in quants}
    complaints = []
    for keyword, content in keywords.items():
        argument = next((key for key in quants if keyword.startswith(_prefix(key))), None)
        name = keyword.removeprefix(_prefix(argument)) if argument else keyword
        if argument is not None and _takes(quants[argument], name):
            found[argument][name] = content
        else:
            complaints.append(_complaint(layer, keyword, argument, quants, others))
    if complaints:
        raise ArgumentTypeError("\n".join(complaints))
    return found


def bind(
    layer: str, argument: str, given: Any, overrides: Mapping[str, Any], supplies: Mapping[str, Any]
) -> Quantizer | None:
    """The quantizer that an argument of a layer stands for.

    Args:
        layer: name of the layer, for messages.
        argument: name of the argument, a key of `ROLES`.
        given: a recipe, a quantizer, or None.
        overrides: names of the recipe to override.
        supplies: what the layer supplies to the recipe.

    Returns:
        A new quantizer for a recipe, the same one for a quantizer, None for None.

    Raises:
        ArgumentTypeError: something else was given, or overrides came without a recipe to override.
        ArgumentError: the recipe is for another role.
        RecipeError: the recipe has faults; all of them are listed.
    """
    _check_given(layer, argument, given)
    if given is None:
        return None
    quantizer = isinstance(given, Quantizer)
    recipe = given.recipe if quantizer else given
    role = recipe.role if "role" in recipe else ROLES[argument]
    if role != ROLES[argument]:
        raise ArgumentError(
            f"{layer} got `{argument}={recipe.__name__}`, a recipe for the role {role!r}, and needs one for "
            f"{ROLES[argument]!r}, such as injectors.{_EXAMPLES[ROLES[argument]]}"
        )
    return given if quantizer else Quantizer(recipe.let(**overrides), supplies)


def _check_given(layer: str, argument: str, given: Any) -> None:
    if given is None or isinstance(given, Quantizer) or _is_recipe(given):
        return
    example = f"injectors.{_EXAMPLES[ROLES[argument]]}"
    raise ArgumentTypeError(
        f"{layer} got `{argument}={given!r}`, and needs a recipe (a class, such as {example}), a quantizer, or None"
    )


def _prefix(argument: str | None) -> str:
    return "" if argument in (None, "act_quant") else str(argument).removesuffix("quant")


def _takes(given: Any, name: str) -> bool:
    """Whether overriding `name` means something to what was given; what only a build can tell counts as yes."""
    if not _is_recipe(given):
        return False
    plan = plan_of(given)
    return plan.open or name in plan.known


def _complaint(layer: str, keyword: str, argument: str | None, quants: Mapping[str, Any], others: Iterable[str]) -> str:
    """What is wrong with a keyword that means nothing to the recipe of `argument`, or to any."""
    if argument is None:
        recipes = [(_prefix(key), given) for key, given in quants.items() if _is_recipe(given)]
        names = [prefix + name for prefix, given in recipes for name in plan_of(given).known]
        return f"{layer} got `{keyword}`, which it does not take.{did_you_mean(keyword, [*names, *quants, *others])}"
    given = quants[argument]
    _check_given(layer, argument, given)
    if isinstance(given, Quantizer):
        return (
            f"{layer} got `{keyword}` together with a quantizer as `{argument}`, which is built already: "
            "override its recipe where it is built, or give a recipe"
        )
    if given is None:
        return f"{layer} got `{keyword}`, and `{argument}` is None: there is no recipe to override"
    prefix = _prefix(argument)
    name = keyword.removeprefix(prefix)
    near = nearest(name, plan_of(given).known)
    hint = f" Did you mean `{prefix}{near}`?" if near else ""
    return f"{layer} got `{keyword}`, and nothing in {given.__name__} takes `{name}`.{hint}"


def _is_recipe(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, Injector)
