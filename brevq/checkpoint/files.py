"""Checkpoints in files: a network's state and the recipes of its layers, as torch or as safetensors writes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from brevq.checkpoint.error import CheckpointError
from brevq.checkpoint.recipes import quantize, recipes
from brevq.checkpoint.state import load_state

#: Version of the format of files.
VERSION = 1

_NO_SAFETENSORS = (
    "{file} is a file of safetensors, which is not installed: pip install brevq[safetensors], or use another suffix"
)
_NO_TENSOR = "`{key}` is of type {kind}, and safetensors keeps tensors alone: use another suffix"
_NO_RECIPES = (
    "{file} has no recipes, as brevq.checkpoint.save writes them. If it is a state alone, build the quantized network "
    "and use brevq.checkpoint.load_state"
)
_VERSION = (
    "{file} is of version {found} of the format of files, and this brevq reads version {version}: "
    "load it with the brevq that wrote it"
)


class _Content(NamedTuple):
    """What is in a file."""

    version: int
    recipes: str
    state: Mapping[str, Any]


def save(model: nn.Module, file: Any) -> None:
    """Write a network's state and the recipes of its layers.

    The file is a dictionary that `torch.save` writes and ``torch.load(file, weights_only=True)`` reads, of
    ``brevq_checkpoint`` (the version of this format, 1), ``recipes`` (JSON) and ``state`` (what `state_dict` returns).
    With the suffix ``.safetensors`` it is the state, with the first two as metadata.

    Args:
        model: the network.
        file: the file's path, or, but for safetensors, something to write to.

    Raises:
        CheckpointError: a recipe or the class of a layer can not be imported; the model is frozen; or safetensors is
            asked for, and is not installed, or the state has something else than tensors.

    Examples:
        >>> import io
        >>> from brevq.nn import QuantLinear
        >>> file = io.BytesIO()
        >>> save(nn.Sequential(QuantLinear(8, 4)), file)
        >>> _ = file.seek(0)
        >>> list(torch.load(file, weights_only=True))
        ['brevq_checkpoint', 'recipes', 'state']
    """
    text, state = json.dumps(recipes(model)), model.state_dict()
    if _is_safetensors(file):
        about = {"brevq_checkpoint": str(VERSION), "recipes": text, "format": "pt"}
        _safetensors(file).torch.save_file(_apart(state), file, about)
    else:
        torch.save({"brevq_checkpoint": VERSION, "recipes": text, "state": state}, file)


def load(
    file: Any,
    model: nn.Module,
    *,
    allowed: Iterable[str] | None = None,
    assign: bool = False,
    map_location: Any = "cpu",
) -> nn.Module:
    """Quantize a float network as the one in a file was, in place, and load its state, strictly.

    Nothing that the file carries is run; recipes and layers are imported from allowed packages alone.

    Args:
        file: what `save` wrote.
        model: a network of the architecture of the one that was saved, as `brevq.checkpoint.quantize` takes it.
        allowed: packages and modules that may be imported from. Default: None, for ``brevq``, ``injectors`` and the
            packages of installed libraries of recipes.
        assign: whether the tensors of the file become those of the model, as a model on the meta device needs it.
            Default: False, which copies them to where the model is.
        map_location: the device to read tensors to. Default: the CPU.

    Returns:
        `model`.

    Raises:
        CheckpointError: the file has no recipes or is of another version; the model has another architecture; the
            state does not fit it; or safetensors is not installed.
        RecipeError: a recipe can not be built for its layer.

    Examples:
        >>> import io
        >>> from brevq.nn import QuantLinear
        >>> file, saved = io.BytesIO(), QuantLinear(8, 4, weight_bit_width=4)
        >>> save(saved, file)
        >>> _ = file.seek(0)
        >>> loaded = load(file, nn.Linear(8, 4))
        >>> x = torch.randn(2, 8)
        >>> torch.equal(loaded(x), saved(x))
        True
    """
    content = _read(file, map_location)
    if content.version != VERSION:
        raise CheckpointError(_VERSION.format(file=_called(file), found=content.version, version=VERSION))
    quantize(model, json.loads(content.recipes), allowed)
    load_state(model, content.state, assign=assign)
    return model


def _read(file: Any, map_location: Any) -> _Content:
    """What is in a file."""
    if _is_safetensors(file):
        with _safetensors(file).safe_open(file, "pt", str(map_location)) as opened:
            about = opened.metadata() or {}
            content: Any = {**about, "state": {key: opened.get_tensor(key) for key in opened.keys()}}  # noqa: SIM118  # a file is no dictionary
    else:
        content = torch.load(file, map_location=map_location, weights_only=True)
    if not isinstance(content, dict) or not {"brevq_checkpoint", "recipes", "state"} <= content.keys():
        raise CheckpointError(_NO_RECIPES.format(file=_called(file)))
    return _Content(int(content["brevq_checkpoint"]), content["recipes"], content["state"])


def _apart(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state, contiguous and none in the memory of another, as safetensors asks for."""
    strange = next((key for key, tensor in state.items() if not isinstance(tensor, Tensor)), None)
    if strange is not None:
        raise CheckpointError(_NO_TENSOR.format(key=strange, kind=type(state[strange]).__name__))
    shared = Counter(tensor.untyped_storage().data_ptr() for tensor in state.values())
    return {
        key: tensor.clone() if shared[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for key, tensor in ((key, tensor.contiguous()) for key, tensor in state.items())
    }


def _is_safetensors(file: Any) -> bool:
    return isinstance(file, (str, Path)) and Path(file).suffix == ".safetensors"


def _safetensors(file: Any) -> Any:
    """The package, if it is installed."""
    try:
        import safetensors.torch  # noqa: PLC0415  # is optional
    except ImportError:
        raise CheckpointError(_NO_SAFETENSORS.format(file=_called(file))) from None
    return safetensors


def _called(file: Any) -> str:
    return str(file) if isinstance(file, (str, Path)) else "The file"
