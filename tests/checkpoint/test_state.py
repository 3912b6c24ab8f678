"""States of networks: their keys, what survives them in every phase, and what is said where they do not fit."""

import copy
import io
import multiprocessing
import pickle

import pytest
import torch
from torch import nn

import injectors
from brevq import freeze
from brevq.checkpoint import CheckpointError, load_state, quantize
from brevq.errors import ArgumentTypeError
from brevq.graph import calibrating
from brevq.nn import QuantLinear, QuantReLU

OBSERVED = injectors.Uint8ActPerTensor.let(collect_stats_steps=3)
DELAYED = injectors.Uint8ActPerTensor.let(quant_delay_steps=4)
X = torch.linspace(-1, 1, 24).reshape(6, 4)


def network(act_quant=OBSERVED):
    """Two layers with learned and computed scales of weights, and an activation between them."""
    first = QuantLinear(4, 4, weight_quant=injectors.Int8WeightPerTensorLSQ)
    return nn.Sequential(first, QuantReLU(act_quant=act_quant), QuantLinear(4, 2, weight_bit_width=4))


def float_network():
    """Its float twin."""
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def train(model, optimizer, steps):
    """The losses of steps of training."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained(steps, **keywords):
    """A network after steps of training."""
    model = network(**keywords)
    train(model, torch.optim.Adam(model.parameters(), lr=0.01), steps)
    return model


def settled(then):
    """A network that was calibrated."""
    model = network()
    with calibrating(model, then=then):
        model(X)
    return model


PHASES = {
    "fresh": network,
    "observed": lambda: trained(2),
    "learned": lambda: trained(5),
    "calibrated, fixed": lambda: settled("fixed"),
    "calibrated, learned": lambda: settled("learned"),
    "delayed": lambda: trained(2, act_quant=DELAYED),
}


def twin_of(model):
    """A new network of the same recipes, with other weights."""
    torch.manual_seed(1)
    return network(model[1].act_quant.recipe)


@pytest.mark.parametrize("phase", PHASES)
def test_keys_are_fixed_at_construction(phase):
    """Keys, shapes and dtypes are those of a new network in every phase."""

    def about(model):
        return [(key, tensor.shape, tensor.dtype) for key, tensor in model.state_dict().items()]

    model = PHASES[phase]()
    assert about(twin_of(model)) == about(model)


def by_state(model):
    fresh = twin_of(model)
    fresh.load_state_dict(model.state_dict(), strict=True)
    return fresh


def by_assignment(model):
    fresh = twin_of(model)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    return fresh


def by_weights_only(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = twin_of(model)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def by_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def from_meta_emptied(model):
    with torch.device("meta"):
        fresh = network(model[1].act_quant.recipe)
    fresh.to_empty(device="cpu")
    fresh.load_state_dict(model.state_dict())
    return fresh


def from_meta_assigned(model):
    with torch.device("meta"):
        fresh = network(model[1].act_quant.recipe)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    return fresh


WAYS = [
    by_state,
    by_assignment,
    by_weights_only,
    by_torch_save,
    by_pickle,
    copy.deepcopy,
    from_meta_emptied,
    from_meta_assigned,
]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("way", WAYS)
def test_states_survive_in_every_phase(phase, way):
    """However a network is stored, phase, state, and what it computes in training and evaluation are exactly alike."""
    model = PHASES[phase]()
    other = way(model)
    assert model[1].act_quant.phase == other[1].act_quant.phase
    ours, theirs = model.state_dict(), other.state_dict()
    assert [] == [key for key, tensor in ours.items() if not torch.equal(tensor, theirs[key])]
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in other.parameters()]
    for mode in (True, False):
        assert torch.equal(model.train(mode)(X), other.train(mode)(X))


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("act_quant", [OBSERVED, DELAYED])
def test_training_resumes(steps, act_quant):
    """Training that goes on from states of network and optimizer has the losses of one that was never stopped."""
    model = network(act_quant)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, optimizer, steps)
    states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    resumed = twin_of(model)
    resumed_optimizer = torch.optim.Adam(resumed.parameters(), lr=0.01)
    resumed.load_state_dict(states[0])
    resumed_optimizer.load_state_dict(states[1])
    assert train(model, optimizer, 5) == train(resumed, resumed_optimizer, 5)


def test_across_processes():
    """A network that is pickled into a process that was started anew computes the same there."""
    model = settled("fixed").eval()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert model(X).tolist() == pool.apply(outputs_of, (pickle.dumps(model), X.tolist()))


def outputs_of(pickled, x):
    """What a pickled network computes."""
    torch.set_num_threads(1)
    return pickle.loads(pickled)(torch.tensor(x)).tolist()


def test_a_float_checkpoint_loads_strictly():
    """A float state has the scales of its weights, also where scales had been learned from others."""
    model, twin = trained(5), float_network()
    model.load_state_dict(twin.state_dict(), strict=True)
    fresh = network()
    load_state(fresh, twin.state_dict())
    assert torch.equal(model[0].quant_weight().scale, fresh[0].quant_weight().scale)
    assert torch.equal(twin[2].weight.abs().max() / 7, model[2].quant_weight().scale)


def test_a_float_checkpoint_onto_the_meta_device():
    """A network on the meta device that is assigned a float state has quantizers as new."""
    with torch.device("meta"):
        model = network()
    twin = float_network()
    load_state(model, twin.state_dict(), assign=True)
    fresh = network()
    load_state(fresh, twin.state_dict())
    assert torch.equal(fresh(X), model(X))


def test_binary_weights_leave_the_meta_device():
    """What a quantizer knows of its grid it knows after assignment to the meta device: a binary one has no zero."""
    layer = QuantLinear(4, 2, weight_quant=injectors.BinaryWeightPerTensor)
    empty = QuantLinear(4, 2, weight_quant=injectors.BinaryWeightPerTensor, device="meta")
    empty.load_state_dict(layer.state_dict(), assign=True)
    assert (layer.weight_quant.zero, layer.weight.tolist()) == (empty.weight_quant.zero, empty.weight.tolist())
    assert torch.equal(layer(X), empty(X))


def test_not_strictly():
    """`strict=False` loads what fits, and returns what does not."""
    state = {key: tensor for key, tensor in trained(5).state_dict().items() if not key.startswith("2.")}
    missing, unexpected = network().load_state_dict({**state, "other": X}, strict=False)
    assert (["2.weight", "2.bias"], ["other"]) == (missing, unexpected)


def test_a_quantized_state_in_a_float_network():
    """Unexpected in a float network is exactly what belongs to quantizers."""
    state = settled("fixed").state_dict()
    missing, unexpected = float_network().load_state_dict(state, strict=False)
    assert ([], {key for key in state if "_quant." in key}) == (missing, set(unexpected))


def refusal(model, state):
    """What `load_state` says."""
    with pytest.raises(CheckpointError) as error:
        load_state(model, state)
    return str(error.value)


def renamed(change, model=None):
    """A state with its keys changed."""
    state = (model or nn.Sequential(QuantLinear(2, 2), nn.Linear(2, 1))).state_dict()
    return {change(key): tensor for key, tensor in state.items()}


def test_wrapped_and_unwrapped_keys():
    """Keys of a network that was wrapped are told from others, with the line that takes the prefix away."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    assert refusal(model, renamed("module.{}".format, model)) == (
        "The checkpoint does not fit the model:\n"
        "- It lacks `0.weight`.\n"
        "- The model has no `module.0.weight`.\n"
        "- All keys begin with `module.`, as those of a network do that torch.nn.parallel.DistributedDataParallel "
        "wraps. Load without it:\n"
        "  {key.removeprefix('module.'): tensor for key, tensor in state.items()}"
    )
    compiled = nn.Module()
    compiled._orig_mod = model
    assert refusal(compiled, model.state_dict()).endswith(
        "- All keys of the model begin with `_orig_mod.`, as torch.compile wraps it. Load into what is within: "
        "model._orig_mod"
    )


def test_renamed_layers():
    """A layer under another name is found by its keys and shapes."""
    assert refusal(
        nn.Sequential(QuantLinear(2, 2), nn.Linear(2, 1)), renamed(lambda key: key.replace("0.", "first."))
    ) == (
        "The checkpoint does not fit the model:\n"
        "- It lacks `0.bias`, `0.weight`.\n"
        "- The model has no `first.bias`, `first.weight`, `first.weight_quant.grid`.\n"
        "- `0` is not there, and `first` is, with the same shapes: was it renamed?"
    )


def test_many_keys_are_not_all_listed():
    """A message lists at most twenty keys of a kind, and how many more there are."""
    told = refusal(nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(22))), {})
    assert told.endswith(", `8.weight` and 2 more.") or " and 2 more." in told


def test_quantized_checkpoints_for_float_networks():
    """A quantized network's state for a float one says how it becomes quantized."""
    told = refusal(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), renamed(str))
    assert told == (
        "The checkpoint does not fit the model:\n"
        "- The model has no `0.weight_quant.grid`.\n"
        "- The checkpoint is of a quantized network, and `0` of the model is without its quantizers: "
        "brevq.checkpoint.quantize gives the model those that recipes describe."
    )


def test_other_recipes_shapes_and_grids():
    """Quantizers with other parts, tensors of other shapes and other grids are named."""
    learned = nn.Sequential(QuantLinear(2, 2, weight_quant=injectors.Int8WeightPerTensorLSQ))
    told = refusal(learned, nn.Sequential(QuantLinear(2, 2)).state_dict())
    assert told.endswith(
        "- `0.weight_quant` is of the recipe Int8WeightPerTensorLSQ, and the checkpoint's has other parts: "
        "it was written with another."
    )
    told = refusal(QuantLinear(2, 2), QuantLinear(3, 2, weight_bit_width=4).state_dict())
    assert told == (
        "The checkpoint does not fit the model:\n"
        "- `weight` has the shape (2, 2), and the checkpoint's has (2, 3).\n"
        "- weight_quant is quantized to signed narrow 8 bits, and the checkpoint to signed narrow 4 bits"
    )


def test_frozen_and_not():
    """A state of a frozen network is told from others, and so is a frozen model."""
    network, frozen = nn.Sequential(QuantLinear(4, 4)).eval(), freeze(nn.Sequential(QuantLinear(4, 4)).eval())
    with pytest.raises(CheckpointError, match=r"of a frozen network: brevq.frozen.load_state loads it"):
        load_state(network, frozen.state_dict())
    with pytest.raises(CheckpointError, match="The model is frozen, and the checkpoint's is not"):
        load_state(frozen, network.state_dict())


def test_recipe_classes_are_no_recipes():
    """Recipe classes are refused where those of a whole network are read."""
    for given in (injectors.Int8WeightPerTensor, {"0": injectors.Int8WeightPerTensor}):
        with pytest.raises(ArgumentTypeError, match="`recipes` must be what"):
            quantize(nn.Sequential(nn.Linear(2, 2)), given)


def test_keys_of_brevitas():
    """A state of Brevitas is told by its keys, and loads without those of its quantizers."""
    model = nn.Sequential(QuantLinear(2, 2), QuantReLU())
    floats = {"0.weight": torch.eye(2), "0.bias": torch.zeros(2)}
    theirs = {
        **floats,
        "0.weight_quant.tensor_quant.scaling_impl.value": torch.ones(()),
        "1.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.value": torch.ones(()),
    }
    told = refusal(model, theirs)
    assert "- The checkpoint is one of Brevitas, whose quantizers have other keys." in told
    load_state(model, {key: t for key, t in theirs.items() if "_quant." not in key and "_proxy." not in key})
    assert torch.equal(torch.eye(2), model[0].weight)


def test_other_errors_pass():
    """What is no matter of keys, shapes and grids is left to who says it."""

    class Own(nn.Linear):
        def _load_from_state_dict(self, *args):
            args[-1].append("an own reason")

    with pytest.raises(RuntimeError, match="an own reason"):
        load_state(Own(2, 2), nn.Linear(2, 2).state_dict())
