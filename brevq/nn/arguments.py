"""What layers are given beside the arguments of their twins: recipes, quantizers, and overrides by keyword."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.inject import Injector, supplied
from brevq.inject.analyse import parameters, short
from brevq.inject.near import did_you_mean
from brevq.inject.plan import plan_of
from brevq.quantizer import Quantizer

#: Roles of recipes by the ending of the argument that takes them; any other argument takes one for activations.
_ROLES = {"weight_quant": "weight", "bias_quant": "bias", "trunc_quant": "truncation"}
#: Arguments of layers with one quantizer, whose overrides have no prefix.
_UNPREFIXED = ("act_quant", "trunc_quant")
_EXAMPLES = {
    "weight": "Int8WeightPerTensor",
    "bias": "Int32Bias",
    "activation": "Int8ActPerTensor",
    "truncation": "Int8Trunc",
}


@functools.lru_cache
def role_of(argument: str) -> str:
    """The role of the recipe that an argument takes.

    Args:
        argument: name of the argument, which ends in ``quant``.

    Examples:
        >>> role_of("input_quant"), role_of("recurrent_weight_quant")
        ('activation', 'weight')
    """
    return next((role for ending, role in _ROLES.items() if argument.endswith(ending)), "activation")


def prefix_of(argument: str) -> str:
    """The prefix that overrides of a quantizer have: none where a layer has but one quantizer.

    Args:
        argument: name of the argument, which ends in ``quant``.

    Examples:
        >>> prefix_of("weight_quant"), prefix_of("act_quant")
        ('weight_', '')
    """
    return "" if argument in _UNPREFIXED else argument.removesuffix("quant")


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
    if not keywords:
        return found
    complaints: dict[str, str] = {}
    longest_first = sorted(quants, key=len, reverse=True)
    for keyword, content in keywords.items():
        argument = next((key for key in longest_first if keyword.startswith(prefix_of(key))), None)
        if argument is None:
            complaints[keyword] = f"{layer} got `{keyword}`, which it does not take.{_hint(keyword, quants, others)}"
        else:
            found[argument][keyword.removeprefix(prefix_of(argument))] = content
    for argument, overrides in found.items():
        for name, why in _strange(layer, argument, quants[argument], overrides):
            keyword = prefix_of(argument) + name
            hint = _hint(keyword, quants, others)
            complaints[keyword] = f"{layer} got `{keyword}`, {why}{'' if f'`{keyword}`' in hint else hint}"
    if complaints:
        raise ArgumentTypeError("\n".join(complaints[keyword] for keyword in keywords if keyword in complaints))
    return found


def refuse_positional(layer: str, arguments: Iterable[Any], quants: Iterable[str]) -> None:
    """Refuse recipes and quantizers among positional arguments, which are the twin's.

    Args:
        layer: name of the layer, for messages.
        arguments: the positional arguments.
        quants: names of the layer's recipe arguments.

    Raises:
        ArgumentTypeError: one of them is a recipe or a quantizer.

    Examples:
        >>> refuse_positional("QuantLinear", (64, 10), ["weight_quant"])
    """
    for given in arguments:
        if isinstance(given, Quantizer) or _is_recipe(given):
            label = given.__name__ if isinstance(given, type) else "a quantizer"
            raise ArgumentTypeError(f"{layer} got {label} by position: name what it is for, {' or '.join(quants)}")


def bind(layer: str, argument: str, given: Any, supplies: Mapping[str, Any]) -> Quantizer | None:
    """The quantizer that an argument of a layer stands for.

    Args:
        layer: name of the layer, for messages.
        argument: name of the argument, which ends in ``quant``.
        given: a recipe, a quantizer, or None.
        supplies: what the layer supplies to the recipe.

    Returns:
        A new quantizer for a recipe, the same one for a quantizer, None for None.

    Raises:
        ArgumentTypeError: something else was given.
        ArgumentError: the recipe is for another role.
        RecipeError: the recipe has faults; all of them are listed.
    """
    check_given(layer, argument, given)
    return given if given is None or isinstance(given, Quantizer) else Quantizer(given, supplies)


def check_given(layer: str, argument: str, given: Any) -> None:
    """Refuse what is neither a recipe nor a quantizer for an argument of a layer, nor None.

    Args:
        layer: name of the layer, for messages.
        argument: name of the argument, which ends in ``quant``.
        given: what was given for it.

    Raises:
        ArgumentTypeError: it is something else.
        ArgumentError: the recipe is for another role.

    Examples:
        >>> from injectors import Int8WeightPerTensor
        >>> check_given("QuantLinear", "weight_quant", Int8WeightPerTensor)
    """
    _check_kind(layer, argument, given)
    if given is None:
        return
    recipe = given.recipe if isinstance(given, Quantizer) else given
    needed = role_of(argument)
    role = (given.role if isinstance(given, Quantizer) else recipe.role if "role" in recipe else None) or needed
    if role != needed:
        raise ArgumentError(
            f"{layer} got `{argument}={recipe.__name__}`, a recipe for the role {role!r}, and needs one for "
            f"{needed!r}, such as injectors.{_EXAMPLES[needed]}"
        )


def _check_kind(layer: str, argument: str, given: Any) -> None:
    if given is None or isinstance(given, Quantizer) or _is_recipe(given):
        return
    example = f"injectors.{_EXAMPLES[role_of(argument)]}"
    hint = ": give its quantizer, `.act_quant`" if hasattr(given, "act_quant") else ""
    raise ArgumentTypeError(
        f"{layer} got `{argument}={short(given)}`, and needs a recipe (a class, such as {example}), "
        f"a quantizer, or None{hint}"
    )


def _strange(layer: str, argument: str, given: Any, overrides: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The overrides that mean nothing to what was given, each with the reason, as far as it is known."""
    if not overrides:
        return
    _check_kind(layer, argument, given)
    if given is None:
        reason = f"and `{argument}` is None: there is no recipe to override."
        yield from ((name, reason) for name in overrides)
    elif isinstance(given, Quantizer):
        reason = f"and `{argument}` is a quantizer, which is built already: override its recipe where that is built."
        yield from ((name, reason) for name in overrides)
    else:
        plan = plan_of(given.let(**overrides))
        meant = plan.taken | set(given.__declared__)
        unmeant = [name for name in overrides if name not in meant and not plan.open]
        yield from ((name, f"and nothing in {given.__name__} takes `{name}`.") for name in unmeant)
        ours = [name for name in overrides if name == "role" or _is_supplied(given, name)]
        yield from ((name, f"which {layer} itself tells the recipe.") for name in ours)


def _is_supplied(recipe: Any, name: str) -> bool:
    declared = recipe.__declared__.get(name)
    return declared is not None and isinstance(declared.content, supplied)


def _hint(keyword: str, quants: Mapping[str, Any], others: Iterable[str]) -> str:
    """What a keyword that means nothing was meant to be: an override that lacks its prefix, or the nearest name."""
    overrides = {
        prefix_of(argument) + name: name
        for argument, given in quants.items()
        if _is_recipe(given)
        for name in plan_of(given).known
    }
    unprefixed = [override for override, name in overrides.items() if name == keyword]
    if unprefixed:
        return f" Did you mean `{unprefixed[0]}`?"
    return did_you_mean(keyword, [*overrides, *quants, *others])


def _is_recipe(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, Injector)
