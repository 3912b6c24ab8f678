"""The recipes of a network as plain data, and a float network quantized with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from torch import nn

from brevq.checkpoint.error import CheckpointError, listed
from brevq.errors import ArgumentTypeError, RecipeError
from brevq.inject import dump, load
from brevq.inject.installed import packages
from brevq.inject.near import did_you_mean
from brevq.inject.text.faulty import Faulty, exactly
from brevq.inject.text.paths import fetch, path_of
from brevq.nn.arguments import parameter_names
from brevq.nn.module import QuantModule, twin_of
from brevq.nn.unrolling import PartQuantizers

_NO_PATH = (
    "{where} is a {kind}, which can not be imported: define it at the top level of a module that others can import"
)
_PARAMETRIZED = (
    "{where} is parametrized, and its class is made at run time: call "
    "torch.nn.utils.parametrize.remove_parametrizations before, and parametrize it again after"
)
_FROZEN = (
    "The model is frozen: call brevq.unfreeze(model) before, or save model.state_dict(), which brevq.frozen.load_state "
    "reads"
)
_NO_RECIPES = (
    "`recipes` must be what brevq.checkpoint.recipes returned of a quantized network, not recipe classes: a layer "
    "takes those in its constructor, or by layer.weight_quant = Recipe"
)
_ABSENT = "The model has no `{path}`.{hint}"
_NO_LAYER = "{where} is said to be a {kind}, which takes no recipes."
_OTHER = "{where} is a {found}, and the recipes are those of a {kind}{twin}."
_OPTION = "{where} has {option}={found!r}, and the recipes are those of a layer with {option}={stated!r}."
#: What is written of a layer.
_FIELDS = ("layer", "return_quant_tensor", "options", "quants")


@attrs.frozen
class _Layer:
    """What is written of a layer, read."""

    kind: Any
    options: Mapping[str, Any]
    return_quant_tensor: bool
    quants: Mapping[str, Any]


def recipes(model: nn.Module) -> dict[str, Any]:
    """The recipes of all layers of a network, as plain data that can be written as JSON.

    For each layer that takes recipes, by its path: its class (``layer``), `return_quant_tensor`, arguments that
    the float twin has not (``options``), and for each of its arguments that take recipes (``quants``) None, what
    `brevq.inject.dump` writes, or ``{"same_as": "path.argument"}`` for a quantizer that another layer has too. The
    quantizer that a recurrent layer has for all of its parts is written as ``{"for_all_parts": recipe}``.

    Args:
        model: a network.

    Raises:
        CheckpointError: the model is frozen; or a layer's class, or something that its recipes declare, can not be
            imported, or a layer is parametrized. All of these are listed.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> described = recipes(nn.Sequential(QuantLinear(8, 4, weight_bit_width=3), nn.Softmax(-1)))
        >>> described["0"]["layer"], described["0"]["quants"]["weight_quant"]["overrides"]
        ('brevq.nn:QuantLinear', {'bit_width': 3})
    """
    known: dict[int, str] = {}
    faults: list[str] = []
    layers = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, QuantModule)]
    if any(_is_frozen(layer) for _, layer in layers):
        raise CheckpointError(_FROZEN)
    described = {path: _described(path, layer, known, faults) for path, layer in layers}
    if faults:
        raise listed("The recipes can not be written:", faults)
    return described


def _is_frozen(layer: QuantModule) -> bool:
    """Whether a layer's class is one that freezing made: it has no path, and its layers know what they were."""
    return hasattr(layer, "frozen") and path_of(type(layer)) is None


def _described(path: str, layer: QuantModule, known: dict[int, str], faults: list[str]) -> dict[str, Any]:
    """What `recipes` says of a layer; what can not be written is added to `faults`."""
    where, kind = _where(path), path_of(type(layer))
    if kind is None:
        text = _PARAMETRIZED if hasattr(layer, "parametrizations") else _NO_PATH
        faults.append(text.format(where=where, kind=type(layer).__name__))
    quants = {}
    for argument in layer.quants:
        try:
            quants[argument] = _written(_join(path, argument), getattr(layer, argument), known)
        except RecipeError as error:
            faults.append(f"`{_join(path, argument)}`: {error}")
    options = {name: getattr(layer, name) for name in _own_options(type(layer))}
    return {
        "layer": kind,
        "return_quant_tensor": layer.return_quant_tensor,
        "options": options,
        "quants": quants,
    }


def _written(place: str, quantizer: Any, known: dict[int, str]) -> Any:
    """A quantizer as plain data; one that is known by an earlier place as that."""
    if quantizer is None:
        return None
    one = _one(quantizer)
    if id(one) in known:
        return {"same_as": known[id(one)]}
    known[id(one)] = place
    recipe = json.loads(dump(one.recipe))
    return recipe if one is quantizer else {"for_all_parts": recipe}


def _one(quantizer: Any) -> Any:
    """A quantizer itself, or the one that a recurrent layer's table has for all parts."""
    if isinstance(quantizer, PartQuantizers) and list(quantizer) == ["all"]:
        return quantizer["all"]
    return quantizer


def quantize(model: nn.Module, recipes: Mapping[str, Any], allowed: Iterable[str] | None = None) -> nn.Module:
    """A float network with the recipes of a quantized one, in place.

    Each layer that is named becomes the quantized twin that it was, and stays the same object: its parameters, which
    may be tied, its hooks, and references to it remain. Quantizers are new, and those that were shared are.

    Args:
        model: a network of the architecture that the recipes were taken from, with the twins of `torch.nn` in the
            place of quantized layers. Layers without a twin, such as `QuantEltwiseAdd`, it has already.
        recipes: what `brevq.checkpoint.recipes` returned, read from JSON or not.
        allowed: packages and modules that layers and recipes may be imported from. Default: None, for ``brevq``,
            ``injectors`` and the packages of installed libraries of recipes.

    Returns:
        `model`.

    Raises:
        CheckpointError: the recipes name layers that the model has not, or that are of another kind; or classes
            that are not allowed or do not exist. All of these are listed, and the model is left as it was.
        RecipeError: a recipe can not be built for its layer.
        ArgumentTypeError: `recipes` are not such.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> described = recipes(nn.Sequential(QuantLinear(8, 4, weight_bit_width=3), nn.Softmax(-1)))
        >>> model = quantize(nn.Sequential(nn.Linear(8, 4), nn.Softmax(-1)), described)
        >>> type(model[0]).__name__, int(model[0].quant_weight().bit_width)
        ('QuantLinear', 3)
    """
    if not isinstance(recipes, Mapping) or any(isinstance(about, type) for about in recipes.values()):
        raise ArgumentTypeError(_NO_RECIPES)
    faults: list[str] = []
    trusted = packages() if allowed is None else tuple(allowed)
    layers = dict(model.named_modules())
    read = {path: _read(path, about, layers, trusted, faults) for path, about in recipes.items()}
    if faults:
        raise listed("The model can not be quantized:", faults)
    for path, about in read.items():
        layers[path].__class__ = about.kind
        for name, option in about.options.items():
            setattr(layers[path], name, option)
    made: dict[str, Any] = {}
    for path, about in read.items():
        for argument, written in about.quants.items():
            made[_join(path, argument)] = _give(layers[path], argument, written, made)
        layers[path].return_quant_tensor = about.return_quant_tensor
    return model


def _read(
    path: str, about: Mapping[str, Any], layers: Mapping[str, nn.Module], allowed: tuple[str, ...], faults: list[str]
) -> _Layer:
    """What is written of a layer, read and compared with the layer; what is wrong is added to `faults`."""
    where = _where(path)
    try:
        exactly(where, about, _FIELDS)
        kind = fetch(where, "class", about["layer"], allowed)
    except Faulty as faulty:
        faults.extend(faulty.texts)
        return _Layer(None, {}, False, {})
    if path not in layers:
        faults.append(_ABSENT.format(path=path, hint=did_you_mean(path, layers)))
    else:
        faults.extend(_differences(where, layers[path], kind, about["options"]))
    quants: dict[str, Any] = {}
    for argument, written in about["quants"].items():
        try:
            quants[argument] = _loaded(written, allowed)
        except RecipeError as error:
            faults.append(f"`{_join(path, argument)}`: {error}")
    return _Layer(kind, about["options"], about["return_quant_tensor"], quants)


def _loaded(written: Any, allowed: tuple[str, ...]) -> Any:
    """What stands for a quantizer, with recipes in the place of what is written of them."""
    if written is None or "same_as" in written:
        return written
    if "for_all_parts" in written:
        return {"for_all_parts": load(json.dumps(written["for_all_parts"]), allowed)}
    return load(json.dumps(written), allowed)


def _differences(where: str, layer: nn.Module, kind: type, options: Mapping[str, Any]) -> Iterator[str]:
    """Why a layer can not become one of class `kind`, if it can not."""
    if not issubclass(kind, QuantModule):
        yield _NO_LAYER.format(where=where, kind=kind.__name__)
        return
    if hasattr(layer, "parametrizations"):
        yield _PARAMETRIZED.format(where=where)
        return
    twin = _float_twin(kind)
    # A subclass that computes as the twin does will do: torch has some.
    fits = twin is not None and isinstance(layer, twin) and type(layer).forward is twin.forward
    if type(layer) is not kind and not fits:
        told = (
            "" if twin is None else f", the twin of {twin.__module__.removesuffix('.' + twin.__name__)}.{twin.__name__}"
        )
        yield _OTHER.format(where=where, found=type(layer).__name__, kind=kind.__name__, twin=told)
    for option, stated in options.items():
        found = getattr(layer, option, stated)
        if option not in _own_options(kind) or found != stated:
            yield _OPTION.format(where=where, option=option, found=found, stated=stated)


def _give(layer: Any, argument: str, written: Any, made: Mapping[str, Any]) -> Any:
    """Set a quantizer of a layer, in the mode of the layer, and return it."""
    if isinstance(written, Mapping):
        of_all = written.get("for_all_parts")
        given = made[written["same_as"]] if of_all is None else next(iter(layer.bound(argument, of_all).values()))
    else:
        given = written
    setattr(layer, argument, given)
    quantizer = getattr(layer, argument)
    if quantizer is not None:
        quantizer.train(layer.training)
    return _one(quantizer)


def _own_options(kind: type[QuantModule]) -> list[str]:
    """The arguments of a layer's constructor that its twin in torch has not."""
    twin = _float_twin(kind)
    if twin is None:
        return []
    theirs = {name for base in twin.__mro__ for name in parameter_names(base)}
    return [name for name in parameter_names(twin_of(kind)) if name not in theirs]


def _float_twin(kind: type[QuantModule]) -> type[nn.Module] | None:
    """The class of the float layer that a quantized one is made of: the first after ours; None if there is none."""
    bases = kind.__mro__[kind.__mro__.index(QuantModule) + 1 :]
    foreign = (base for base in bases if not base.__module__.startswith("brevq."))
    twin = next(foreign)
    return None if twin is nn.Module else twin


def _where(path: str) -> str:
    """A layer in messages."""
    return f"`{path}`" if path else "The model itself"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
