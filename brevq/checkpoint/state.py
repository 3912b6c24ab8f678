"""States of networks, loaded strictly: what does not fit is listed, with what may have happened."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from brevq.checkpoint.error import listed
from brevq.quantizer import Quantizer

#: What wraps a network, and puts this before all keys.
_WRAPPERS = {
    "module.": "torch.nn.parallel.DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_forward_module.": "a trainer",
    "model.": "another module",
}
_WRAPPED = (
    "All keys begin with `{prefix}`, as those of a network do that {wrapper} wraps. Load without it:\n"
    "{{key.removeprefix({prefix!r}): tensor for key, tensor in state.items()}}"
)
_UNWRAPPED = (
    "All keys of the model begin with `{prefix}`, as {wrapper} wraps it. Load into what is within: model.{attribute}"
)
_QUANTIZED = (
    "The checkpoint is of a quantized network, and {layers} of the model {are} without its quantizers: "
    "brevq.checkpoint.quantize gives the model those that recipes describe."
)
_FROZEN = "The checkpoint is of a frozen network: brevq.frozen.load_state loads it into a model that is not frozen."
_NOT_FROZEN = "The model is frozen, and the checkpoint's is not: load it before, or brevq.unfreeze the model."
_BREVITAS = (
    "The checkpoint is one of Brevitas, whose quantizers have other keys. To load weights and biases alone, leave out "
    "what is in a `_quant` or a `_proxy`, and calibrate or train again:\n"
    '{key: tensor for key, tensor in state.items() if "_quant." not in key and "_proxy." not in key}'
)
_OTHER_PARTS = "`{path}` is of the recipe {recipe}, and the checkpoint's has other parts: it was written with another."
_RENAMED = "`{ours}` is not there, and `{theirs}` is, with the same shapes: was it renamed?"
_SHAPE = "`{key}` has the shape {ours}, and the checkpoint's has {theirs}."
#: What torch passes on of what quantizers say.
_TOLD = re.compile(r"^\t?(.* (?:is quantized to|is of version) .*?)\.? ?$", re.MULTILINE)
#: The key that every quantizer has.
_GRIDS = re.compile(r"(^|\.)grid$")
#: That key of the quantizer that a frozen one remembers.
_ORIGINS = re.compile(r"(^|\.)origin\.grid$")


def load_state(model: nn.Module, state: Mapping[str, Any], *, assign: bool = False) -> None:
    """Load a state into a network, strictly: as `model.load_state_dict(state)`, with more to say where it does not fit.

    Quantizers of which a state knows nothing are those of a float network, and none of their keys is missing.

    Args:
        model: the network.
        state: what `state_dict` returned.
        assign: whether the tensors of the state become those of the model, as a model on the meta device needs it,
            rather than being copied. Default: False.

    Raises:
        CheckpointError: keys are missing or are not of the model, or tensors have other shapes or lie on other grids.
            All are listed, and then what may have happened: keys with a prefix, layers that were renamed, a quantized
            network's state for a float one, other recipes, keys of Brevitas. As with torch, what fits has been loaded.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> model = nn.Sequential()
        >>> model.head = QuantLinear(4, 2)
        >>> state = {key.replace("head", "fc"): tensor for key, tensor in model.state_dict().items()}
        >>> load_state(model, state)
        Traceback (most recent call last):
        ...
        brevq.checkpoint.error.CheckpointError: The checkpoint does not fit the model:
        - It lacks `head.bias`, `head.weight`.
        - The model has no `fc.bias`, `fc.weight`, `fc.weight_quant.grid`.
        - `head` is not there, and `fc` is, with the same shapes: was it renamed?
    """
    told: list[str] = []
    missing: Iterable[str] = ()
    try:
        missing, unexpected = model.load_state_dict(state, strict=False, assign=assign)
        if not missing and not unexpected:
            return
    except RuntimeError as error:
        told = _TOLD.findall(str(error))
        if not told and not any(_shapes(model, state)):
            raise
    raise listed("The checkpoint does not fit the model:", [*_faults(model, state), *told, *_hints(model, state)])


def _faults(model: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    """The keys that are missing or not of the model, and those whose tensors have another shape."""
    ours = model.state_dict()
    excused = [prefix for prefix, _ in _quantizers(model) if not any(key.startswith(prefix) for key in state)]
    missing = [key for key in ours if key not in state and not key.startswith(tuple(excused))]
    unexpected = [key for key in state if key not in ours]
    if missing:
        yield f"It lacks {_quoted(sorted(missing))}."
    if unexpected:
        yield f"The model has no {_quoted(sorted(unexpected))}."
    yield from _shapes(model, state)


def _shapes(model: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    """The keys whose tensors have another shape."""
    for key, tensor in model.state_dict().items():
        if _shape(tensor) != _shape(state.get(key, tensor)):
            yield _SHAPE.format(key=key, ours=_shape(tensor), theirs=_shape(state[key]))


def _hints(model: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    """What may have happened to the keys."""
    of_all_keys = [*_frozen(model.state_dict(), state), *_prefixed(model.state_dict(), state), *_from_brevitas(state)]
    yield from of_all_keys or [*_quantized(model, state), *_renamed(model.state_dict(), state), *_recipes(model, state)]


def _frozen(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """That one side is frozen, whose quantizers remember others, and the other is not."""
    frozen = [any(map(_ORIGINS.search, keys)) for keys in (ours, theirs)]
    if frozen[0] != frozen[1]:
        yield _NOT_FROZEN if frozen[0] else _FROZEN


def _from_brevitas(state: Mapping[str, Any]) -> Iterator[str]:
    """That a state has quantizers, and none of ours, which all have a grid."""
    if any("_proxy." in key or ".tensor_quant." in key for key in state) and not any(map(_GRIDS.search, state)):
        yield _BREVITAS


def _quantized(model: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    """The layers of the model that have quantizers in the checkpoint alone."""
    ours = model.state_dict()
    theirs = {_owner(key)[0] for key in state if _GRIDS.search(key) and key not in ours}
    paths = [path for path, _ in model.named_modules(remove_duplicate=False) if path in theirs]
    if paths:
        yield _QUANTIZED.format(layers=_quoted(paths), are="are" if len(paths) > 1 else "is")


def _prefixed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """That the keys of one side are those of the other with a prefix."""
    for prefix, wrapper in _WRAPPERS.items():
        attribute = prefix.removesuffix(".")
        if _has_prefix(prefix, theirs, ours):
            yield _WRAPPED.format(prefix=prefix, wrapper=wrapper)
        elif _has_prefix(prefix, ours, theirs):
            yield _UNWRAPPED.format(prefix=prefix, wrapper=wrapper, attribute=attribute)


def _has_prefix(prefix: str, keys: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether all keys begin with `prefix`, and are some of the others without it."""
    return all(key.startswith(prefix) for key in keys) and any(key.removeprefix(prefix) in others for key in keys)


def _renamed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """The modules that are missing, each with the one that has its keys and shapes under the most similar name."""
    missing = _modules({key: tensor for key, tensor in ours.items() if key not in theirs})
    unknown = _modules({key: tensor for key, tensor in theirs.items() if key not in ours})
    for path, content in missing.items():
        alike = [
            other
            for other, found in unknown.items()
            if content.items() >= found.items() or found.items() >= content.items()
        ]
        nearest = difflib.get_close_matches(path, alike, n=1, cutoff=0.0)
        if nearest:
            del unknown[nearest[0]]
            yield _RENAMED.format(ours=path, theirs=nearest[0])


def _modules(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Names and shapes of tensors, by the module that they, or the quantizers that they are of, belong to."""
    modules: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        path, name = _owner(key)
        modules.setdefault(path, {})[name] = _shape(tensor)
    return modules


def _owner(key: str) -> tuple[str, str]:
    """The path of the module that a tensor, or the quantizer that it is of, belongs to; and the rest of its key."""
    words = key.split(".")
    place = next((place for place, word in enumerate(words) if word.endswith("_quant")), len(words) - 1)
    return ".".join(words[:place]), ".".join(words[place:])


def _recipes(model: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    """The quantizers that the checkpoint knows, with other keys."""
    for prefix, quantizer in _quantizers(model):
        known = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
        if known and known != set(quantizer.state_dict()):
            yield _OTHER_PARTS.format(path=prefix[:-1], recipe=quantizer.recipe.__name__)


def _quantizers(model: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """The quantizers of a model, each with what its keys begin with."""
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Quantizer):
            yield f"{path}." if path else "", module


def _shape(tensor: Any) -> Any:
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__


def _quoted(names: Iterable[str]) -> str:
    """Names in a message: at most twenty, and how many more."""
    quoted = [f"`{name}`" if name else "the whole" for name in names]
    more = f" and {len(quoted) - 20} more" if len(quoted) > 20 else ""
    return ", ".join(quoted[:20]) + more
