"""What is tried in several processes: ``python scenes.py RANK PROCESSES FOLDER`` runs all of it in one of them.

A scene is a function that takes nothing and returns what it saw. One process runs it on all of the data, several run it
each on their share; `torch.distributed` says which. What scenes return is saved in the folder.
"""

import contextlib
import copy
import os
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.distributed.fsdp import fully_shard
from torch.distributed.nn import functional
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import injectors
from brevq.core.function_wrapper import PerChannel
from brevq.core.stats import AbsMax, AbsMaxAve, AbsPercentile, MeanLearnedSigmaStd, RuntimeStats
from brevq.graph import broadcast_ranges, calibrating, observe_across, replicate_ranges
from brevq.nn import QuantIdentity, QuantLinear, QuantReLU

#: Steps of training, samples of each, and steps that observe.
STEPS, SAMPLES, OBSERVED = 8, 8, 4


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def processes():
    return dist.get_world_size() if dist.is_initialized() else 1


def even(samples):
    """As many samples for each process."""
    return [samples // processes()] * processes()


def uneven(samples):
    """One for each process, and the rest for the first."""
    return [samples - processes() + 1] + [1] * (processes() - 1)


def one_empty(samples):
    """None for the last process, where there are several, and as many for each other as can be."""
    others = max(1, processes() - 1)
    shares = [samples // others] * others
    shares[0] += samples - sum(shares)
    return shares + [0] * (processes() - others)


def share(tensor, sizes):
    """The samples of this process."""
    return tensor.split(sizes)[rank()]


def data(steps=STEPS):
    """Inputs and targets of every step."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(SAMPLES, 6, generator=generator), torch.randn(SAMPLES, 3, generator=generator))
        for _ in range(steps)
    ]


def network(activation=injectors.Int8ActPerTensor, weight=injectors.Int8WeightPerChannel, **overrides):
    """Two layers, with weights per channel and learned, inputs and activations observed."""
    torch.manual_seed(0)
    return nn.Sequential(
        QuantLinear(6, 8, weight_quant=weight, input_quant=activation, input_collect_stats_steps=OBSERVED, **overrides),
        QuantReLU(bit_width=4, collect_stats_steps=OBSERVED),
        QuantLinear(8, 3, weight_quant=injectors.Int8WeightPerTensorLSQ, weight_bit_width=4),
    )


def distributed(model, **arguments):
    """The model itself in one process."""
    return DistributedDataParallel(model, **arguments) if dist.is_initialized() else model


def together(number):
    """The sum over processes."""
    number = number.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(number)
    return number.item()


def train(model, batches, sizes=even, parts=1):
    """The loss of each step over all processes, those of its parts of a batch accumulated."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        total = 0.0
        for part, (xs, ys) in enumerate(zip(x.chunk(parts), y.chunk(parts), strict=True)):
            waits = part < parts - 1 and hasattr(model, "no_sync")
            with model.no_sync() if waits else contextlib.nullcontext():
                output = model(share(xs, sizes(len(xs))))
                # The mean over all samples, once it is averaged over processes.
                loss = (output - share(ys, sizes(len(ys)))).square().sum() / x.numel() * processes()
                loss.backward()
            total += together(loss / processes())
        optimizer.step()
        losses.append(total)
    return losses


def phases(model):
    return [str(module.phase) for module in model.modules() if isinstance(module, RuntimeStats)]


def story(model, wrapped=None, batches=None, **arguments):
    """Losses of training, and what there is after it."""
    model_in_training = distributed(model) if wrapped is None else wrapped
    losses = train(model_in_training, batches or data(), **arguments)
    return {"losses": torch.tensor(losses), "phases": phases(model), **model.state_dict()}


def observing():
    """All steps observe."""
    return story(network(), batches=data(OBSERVED - 1))


def changing():
    """Some steps observe, the others learn."""
    return story(network())


def shifted():
    """Activations with a zero-point."""
    return story(network(injectors.ShiftedUint8ActPerTensor))


def running_largest():
    """The largest of all batches."""
    return story(network(injectors.Int8ActPerTensorMax))


def many_shapes():
    """Batches of any size."""
    return story(network(), sizes=uneven)


def empty_batch():
    """A process without a batch."""
    return story(network(), sizes=one_empty)


def accumulated():
    """Gradients of two parts of a batch, synchronized once."""
    return story(network(), parts=2, sizes=uneven)


def own_buffers():
    """No process is given the buffers of another."""
    model = network()
    return story(model, distributed(model, **({"broadcast_buffers": False} if dist.is_initialized() else {})))


def delayed():
    """Weights in float for some steps."""
    return story(network(weight_quant_delay_steps=3))


def learned_bits():
    """Bit widths of weights and activations that training moves."""
    return story(network(injectors.Int8ActPerTensorLearnedBits, injectors.Int8WeightPerTensorLearnedBits))


class Repeated(nn.Module):
    """A network whose layers are computed twice, with activation checkpointing."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=False)


def repeated():
    """Activation checkpointing over the whole network."""
    return story(Repeated(network()))


def compiled():
    """A compiled network, of which compilation may leave parts out; in two processes."""
    model = network()
    result = story(model, torch.compile(distributed(model), backend="eager")) if processes() < 3 else {}
    return {name: result[name] for name in result if "phase" not in name}


class Normalized(nn.Module):
    """Batch normalisation over all processes, as `SyncBatchNorm`, which is for GPUs, computes it; no affine part."""

    def forward(self, x):
        sums = torch.cat([x.sum(dim=0), x.square().sum(dim=0), torch.tensor([float(len(x))])])
        if dist.is_initialized():
            sums = functional.all_reduce(sums)
        channels = x.shape[1]
        mean, square = sums[:channels] / sums[-1], sums[channels:-1] / sums[-1]
        return (x - mean) / torch.sqrt(square - mean**2 + 1e-5)


def normalized():
    """Statistics of batch normalisation that travel beside those of quantizers, forward and backward."""
    model = network()
    model.insert(1, Normalized())
    return story(model, sizes=uneven)


def gradients():
    """A statistic of values that processes share, whose gradient goes to where a value came from."""
    axis = 1
    result = {}
    for name, stats in {
        "largest": AbsMax(),
        "percentile": AbsPercentile(high_percentile_q=60.0),
        "channels": AbsMax(PerChannel((1, 3), axis)),
        "mean over channels": AbsMaxAve(PerChannel((1, 3), axis)),
        "deviations": MeanLearnedSigmaStd(),
    }.items():
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(8, 3, generator=generator)
        mine = share(x, uneven(8)).clone().requires_grad_()
        value = RuntimeStats(stats)(mine)
        # Each process gives weight to the statistic; all together as much as one process does.
        (value.square().sum() * (rank() + 1) / sum(range(1, processes() + 1))).backward()
        sent = [None] * processes()
        if dist.is_initialized():
            dist.all_gather_object(sent, mine.grad)
        result[name] = value.detach()
        result[f"{name} gradient"] = torch.cat(sent) if dist.is_initialized() else mine.grad
    return result


def other_shapes():
    """Sequences of another length, and a number of dimensions of its own, in each process."""
    x = torch.arange(1.0, 25.0)
    mine = share(x, uneven(24)).reshape([(1, -1), (-1, 1, 1)][rank() % 2])
    return {"statistic": RuntimeStats(AbsPercentile(high_percentile_q=50.0))(mine).detach()}


def calibrated_together():
    """Calibration over data that processes share, in evaluation."""
    model = network(injectors.ShiftedUint8ActPerTensor).eval()
    everyone = dist.group.WORLD if dist.is_initialized() else None
    with torch.no_grad(), calibrating(model, group=everyone):
        for x, _ in data():
            model(share(x, uneven(SAMPLES)))
    return {"phases": phases(model), **model.state_dict()}


def calibrated_alone():
    """The first process calibrates by itself, in training; the others are given its ranges, and train."""
    model = network()
    if rank() == 0:
        with torch.no_grad(), calibrating(model, then="learned"):
            model(data()[0][0])
    broadcast_ranges(model)
    return story(model)


def trained_by_the_first():
    """The first process trains alone for some steps, learned ranges of weights too; the others are given its state."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if rank() == 0:
        observe_across(model, alone=True)
        for x, y in data():
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    broadcast_ranges(model)
    return story(model)


def calibrated_before_wrapping():
    """The first process calibrates by itself; `DistributedDataParallel` gives its ranges to the others."""
    model = network()
    if rank() == 0:
        with torch.no_grad(), calibrating(model, then="learned"):
            model(data()[0][0])
    return story(model)


def fixed_by_the_first():
    """Ranges that the first process fixed are fixed in all."""
    model = network()
    if rank() == 0:
        with torch.no_grad(), calibrating(model):
            model(data()[0][0])
    broadcast_ranges(model)
    return story(model)


def alone():
    """Each process observes its own, one more often than the others."""
    model = QuantIdentity()
    observe_across(model, alone=True)
    for value in range(1 + rank(), 3):
        model(torch.tensor([float(value)]))
    copied = copy.deepcopy(model)
    copied(torch.tensor([50.0]))
    return {"steps": [module.steps.item() for module in model.modules() if isinstance(module, RuntimeStats)]}


def pairs():
    """Processes observe with one neighbour each: largest magnitudes 2 and 4 where there are four of them."""
    if not dist.is_initialized():
        return {}
    groups = [dist.new_group([first, first + 1]) for first in range(0, processes(), 2)]
    stats = QuantIdentity(high_percentile_q=100.0)
    observe_across(stats, groups[rank() // 2])
    copied = copy.deepcopy(stats)
    copied(torch.tensor([1.0 + rank()]))
    return {"scale": copied.act_quant.current().scale}


def sharded(model):
    """The model over all processes, layer by layer, its ranges left whole."""
    if not dist.is_initialized():
        return model
    mesh = dist.device_mesh.init_device_mesh("cpu", (processes(),))
    whole = replicate_ranges(model)
    for layer in model:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    fully_shard(model, mesh=mesh, ignored_params=whole)
    return model


def full_state(model):
    """The state of a model, every tensor whole."""
    if not dist.is_initialized():
        return model.state_dict()
    return dcp.get_model_state_dict(model, options=dcp.StateDictOptions(full_state_dict=True))


def fsdp():
    """Sharded training."""
    model = sharded(network())
    return {"losses": torch.tensor(train(model, data())), "phases": phases(model), **full_state(model)}


def fsdp_reloaded():
    """Sharded training that is saved halfway, and goes on in a new model, from a full state and from a sharded one."""
    result = {}
    for full in (True, False):
        first, second = sharded(network()), sharded(network())
        train(first, data()[:5])
        if dist.is_initialized():
            options = dcp.StateDictOptions(full_state_dict=full)
            state = dcp.get_model_state_dict(first, options=options)
            dcp.set_model_state_dict(second, state, options=options)
        else:
            second.load_state_dict(first.state_dict())
        result[f"losses {full}"] = torch.tensor(train(second, data()[5:]))
        result |= {f"{name} {full}": tensor for name, tensor in full_state(second).items()}
    return result


def fsdp_parts():
    """What is sharded and what is whole, and the scales of a layer whose weights are gathered, outside of a step."""
    model = sharded(network())
    kinds = {name: isinstance(parameter, DTensor) for name, parameter in model.named_parameters()}
    if dist.is_initialized():
        model[0].unshard()
    return {"sharded": [name for name in kinds if kinds[name]], "scale": model[0].quant_weight().scale.detach()}


def fsdp_accumulated():
    """Sharded training with gradients of two parts of a batch."""
    model = sharded(network())
    return {"losses": torch.tensor(train(model, data(), parts=2)), **full_state(model)}


SCENES = [
    observing,
    changing,
    shifted,
    running_largest,
    many_shapes,
    empty_batch,
    accumulated,
    own_buffers,
    delayed,
    learned_bits,
    repeated,
    normalized,
    compiled,
    gradients,
    other_shapes,
    calibrated_together,
    calibrated_alone,
    trained_by_the_first,
    calibrated_before_wrapping,
    fixed_by_the_first,
    alone,
    pairs,
    fsdp,
    fsdp_reloaded,
    fsdp_accumulated,
    fsdp_parts,
]


def main(rank, processes, folder):
    """Run all scenes as one of some processes, or as the only one, and save what they return, or how they failed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's, of its own parts
    if processes > 1:
        meeting = f"file://{folder}/meeting{processes}"
        dist.init_process_group("gloo", meeting, rank=rank, world_size=processes, timeout=timedelta(seconds=60))
    results = {}
    for scene in SCENES:
        try:
            results[scene.__name__] = scene()
        except Exception:  # noqa: BLE001  # the test shows it
            results[scene.__name__] = traceback.format_exc()
            break  # the others may be waiting for this process
    torch.save(results, Path(folder, f"{processes}-{rank}"))
    if processes > 1:
        dist.destroy_process_group()
    os._exit(0)  # threads of process groups may outlive them, and abort the interpreter on its way out


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
