"""Checkpoints in files, and those that the repository keeps."""

import io
import json
import sys

import pytest
import torch
from torch import nn

import injectors
from brevq.checkpoint import CheckpointError, load, load_state, save
from brevq.nn import QuantLinear, QuantReLU
from tests.checkpoint.data.make import HERE, float_network, forward, inputs, main, quantized_network

FILES = ["network.pt", "network.safetensors"]


@pytest.fixture(params=FILES)
def kept(request):
    """The path of a checkpoint that the repository keeps."""
    return HERE / request.param


def test_kept_files_give_their_outputs(kept):
    """A checkpoint of the first version gives the outputs that it gave when it was written, exactly."""
    network = load(kept, float_network().eval())
    expected = [[3.091064453125, -0.763671875], [7.331298828125, -7.706298828125]]
    assert expected == forward(network, inputs()).tolist()


def test_kept_files_have_their_codes_and_scales(kept):
    """Its weights have the codes and scales that they had, and its activations their ranges and phases."""
    network = load(kept, float_network().eval())
    first = network[0].quant_weight()
    assert ([-7, -3, 2, 7, -5, 0, 5, -7, -2], [0.125] * 3) == (
        first.int()[0].flatten().tolist(),
        first.scale.flatten().tolist(),
    )
    assert network[4].weight_quant is network[5].weight_quant
    assert 0.03125 == network[4].quant_weight().scale.item()
    assert ("fixed", 1 / 128) == (str(network[0].input_quant.phase), network[0].input_quant.current().scale.item())


def test_kept_files_are_as_the_script_makes_them():
    """The script that made the files makes the same state and recipes today."""
    file = io.BytesIO()
    save(quantized_network(), file)
    file.seek(0)
    made, kept = torch.load(file, weights_only=True), torch.load(HERE / "network.pt", weights_only=True)
    assert (made["brevq_checkpoint"], made["recipes"]) == (kept["brevq_checkpoint"], kept["recipes"])
    assert list(made["state"]) == list(kept["state"])
    assert [] == [key for key, tensor in made["state"].items() if not torch.equal(tensor, kept["state"][key])]


def test_the_script_writes_both_files(tmp_path, monkeypatch, capsys):
    """The script writes one file of each kind, and prints the outputs that are stated."""
    monkeypatch.setattr("tests.checkpoint.data.make.HERE", tmp_path)
    assert 0 == main()
    assert FILES == sorted(path.name for path in tmp_path.iterdir())
    assert "[[3.091064453125, -0.763671875], [7.331298828125, -7.706298828125]] 0.03125\n" == capsys.readouterr().out


@pytest.mark.parametrize("name", FILES)
def test_round_trip(tmp_path, name):
    """What is saved is loaded into the float architecture, with equal outputs and state."""
    network = quantized_network()
    save(network, tmp_path / name)
    loaded = load(tmp_path / name, float_network().eval())
    assert torch.equal(forward(network, inputs()), forward(loaded, inputs()))
    assert list(network.state_dict()) == list(loaded.state_dict())


@pytest.mark.parametrize("name", FILES)
def test_onto_the_meta_device(tmp_path, name):
    """A model without memory of its own takes the tensors of the file."""
    network = quantized_network()
    save(network, str(tmp_path / name))
    with torch.device("meta"):
        empty = float_network().eval()
    loaded = load(str(tmp_path / name), empty, assign=True)
    assert torch.equal(forward(network, inputs()), forward(loaded, inputs()))
    assert {"cpu"} == {tensor.device.type for tensor in loaded.state_dict().values()}


def test_torch_files_are_plain():
    """A file of torch is read with `weights_only=True` alone: a version, JSON, and a state."""
    file = io.BytesIO()
    save(nn.Sequential(QuantLinear(4, 2)), file)
    file.seek(0)
    content = torch.load(file, weights_only=True)
    assert 1 == content["brevq_checkpoint"]
    assert "brevq.nn:QuantLinear" == json.loads(content["recipes"])["0"]["layer"]
    assert ["0.weight", "0.bias", "0.weight_quant.grid"] == list(content["state"])


def test_tied_weights_in_safetensors(tmp_path):
    """Tied weights, which safetensors refuses, are written under both names, and stay tied in a tied network."""

    def tied(kind):
        network = nn.Sequential(kind(4, 4), kind(4, 4))
        network[1].weight = network[0].weight
        return network

    network = tied(QuantLinear)
    save(network, tmp_path / "tied.safetensors")
    loaded = load(tmp_path / "tied.safetensors", tied(nn.Linear))
    assert loaded[0].weight is loaded[1].weight
    assert torch.equal(network.state_dict()["1.weight"], loaded.state_dict()["1.weight"])


def test_views_in_safetensors(tmp_path):
    """Weights that are not contiguous are written as they read."""
    layer = QuantLinear(3, 2)
    layer.weight = nn.Parameter(torch.arange(6.0).reshape(3, 2).T)
    save(layer, tmp_path / "view.safetensors")
    assert torch.equal(layer.weight, load(tmp_path / "view.safetensors", nn.Linear(3, 2)).weight)


def test_half_precision_in_files(tmp_path):
    """Weights in bfloat16 and scales in float32 keep their dtypes in both kinds of file."""
    layer = QuantLinear(4, 2, weight_quant=injectors.Int8WeightPerTensorLSQ).bfloat16()
    layer(torch.ones(1, 4, dtype=torch.bfloat16))
    for name in FILES:
        save(layer, tmp_path / name)
        loaded = load(tmp_path / name, nn.Linear(4, 2).bfloat16())
        assert torch.equal(layer.quant_weight().value, loaded.quant_weight().value)
        assert {torch.bfloat16, torch.float32, torch.int64} == {t.dtype for t in loaded.state_dict().values()}


def test_a_state_alone_has_no_recipes(tmp_path):
    """A file that holds a state and no recipes is refused, with what to do with it."""
    for name, write in (
        ("state.pt", torch.save),
        ("state.safetensors", pytest.importorskip("safetensors.torch").save_file),
    ):
        write(QuantReLU().state_dict(), tmp_path / name)
        with pytest.raises(CheckpointError) as error:
            load(tmp_path / name, nn.ReLU())
        assert str(error.value) == (
            f"{tmp_path / name} has no recipes, as brevq.checkpoint.save writes them. If it is a state alone, build "
            "the quantized network and use brevq.checkpoint.load_state"
        )


def test_other_versions_are_refused():
    """A file of a version that is not known is refused, and says who can read it."""
    file = io.BytesIO()
    torch.save({"brevq_checkpoint": 9, "recipes": "{}", "state": {}}, file)
    file.seek(0)
    with pytest.raises(CheckpointError) as error:
        load(file, nn.ReLU())
    assert str(error.value) == (
        "The file is of version 9 of the format of files, and this brevq reads version 1: "
        "load it with the brevq that wrote it"
    )


def test_without_safetensors(monkeypatch):
    """Where safetensors is not installed, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError) as error:
        save(QuantLinear(4, 2), "network.safetensors")
    assert str(error.value) == (
        "network.safetensors is a file of safetensors, which is not installed: pip install brevq[safetensors], "
        "or use another suffix"
    )


def test_extra_state_in_safetensors():
    """What a module keeps beside tensors can not be written to safetensors, and is named."""

    class Counted(nn.Linear):
        def get_extra_state(self):
            return {"count": 3}

        def set_extra_state(self, state):
            self.count = state["count"]

    with pytest.raises(CheckpointError) as error:
        save(nn.Sequential(Counted(2, 2)), "network.safetensors")
    assert str(error.value) == (
        "`0._extra_state` is of type dict, and safetensors keeps tensors alone: use another suffix"
    )


def test_allowed_packages(tmp_path):
    """Layers of packages that are not allowed are refused by name, and so are those that take no recipes."""
    described = {"layer": "torch.nn:ReLU", "return_quant_tensor": False, "options": {}, "quants": {"act_quant": None}}
    torch.save({"brevq_checkpoint": 1, "recipes": json.dumps({"": described}), "state": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as error:
        load(tmp_path / "a.pt", nn.ReLU())
    assert str(error.value) == (
        "The model can not be quantized:\n"
        "- The model itself (='torch.nn:ReLU') is of `torch`, which is not allowed: allowed are brevq, injectors.\n"
        "  If you trust it: load(text, allowed=(..., 'torch'))."
    )
    with pytest.raises(CheckpointError) as error:
        load(tmp_path / "a.pt", nn.ReLU(), allowed=("torch",))
    assert str(error.value) == (
        "The model can not be quantized:\n- The model itself is said to be a ReLU, which takes no recipes."
    )


def test_packages_of_installed_libraries(distribution, tmp_path):
    """What installed libraries have is allowed, unless the packages are given."""
    source = """
from brevq.nn import QuantLinear
from injectors import Int8WeightPerTensor

class Scaled(QuantLinear):
    pass

class Int3Weight(Int8WeightPerTensor):
    bit_width = 3
"""
    distribution("acme-quant", {"acme": "acme.recipes"}, {"acme/__init__.py": "", "acme/recipes.py": source})
    from acme.recipes import Int3Weight, Scaled  # noqa: PLC0415  # it is installed now

    layer = Scaled(4, 2, weight_quant=Int3Weight)
    save(layer, tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt", nn.Linear(4, 2))
    assert (Scaled, Int3Weight) == (type(loaded), loaded.weight_quant.recipe)
    assert torch.equal(layer.quant_weight().value, loaded.quant_weight().value)
    with pytest.raises(CheckpointError, match=r"is of `acme`, which is not allowed: allowed are brevq, injectors\."):
        load(tmp_path / "a.pt", nn.Linear(4, 2), allowed=("brevq", "injectors"))


def test_states_do_not_need_the_file_functions():
    """The state of a file is one that `load_state` takes."""
    network = quantized_network()
    state = torch.load(HERE / "network.pt", weights_only=True)["state"]
    load_state(network, state)
    assert [] == [key for key, tensor in network.state_dict().items() if not torch.equal(tensor, state[key])]
