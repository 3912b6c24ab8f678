"""Two and four processes that share the data do what one does that has all of it."""

import pytest
import torch

#: Scenes whose losses, states and phases are those of one process.
SAME = [
    "observing",
    "changing",
    "shifted",
    "running_largest",
    "many_shapes",
    "empty_batch",
    "accumulated",
    "own_buffers",
    "delayed",
    "learned_bits",
    "repeated",
    "normalized",
    "gradients",
    "other_shapes",
    "calibrated_together",
    "calibrated_alone",
    "trained_by_the_first",
    "calibrated_before_wrapping",
    "fixed_by_the_first",
    "fsdp",
    "fsdp_reloaded",
    "fsdp_accumulated",
]


def differing(expected, actual):
    """The names of what differs; of tensors, by more than float32's sums of another order: a few parts in 2 ** 24."""
    return [name for name, value in expected.items() if not _close(value, actual[name])]


def _close(expected, actual):
    if isinstance(expected, torch.Tensor):
        return torch.allclose(expected.double(), actual.double(), rtol=2**-20, atol=2**-20, equal_nan=True)
    return expected == actual


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("scene", SAME)
def test_processes_are_as_one(seen, scene, processes):
    """In every process losses, weights, scales and phases are those of one process that has all data."""
    expected = seen[1][0][scene]
    assert [[]] * processes == [differing(expected, each[scene]) for each in seen[processes]]


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize(
    ("scene", "phase"),
    [("observing", "observe"), ("changing", "learned"), ("calibrated_together", "fixed"), ("fsdp", "learned")],
)
def test_phases_of_the_scenes(seen, scene, phase, processes):
    """What is compared is compared in the phase that it is meant for."""
    assert [{phase}] * processes == [set(each[scene]["phases"]) for each in seen[processes]]


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("scene", ["changing", "many_shapes", "trained_by_the_first", "fsdp"])
def test_processes_agree_to_the_bit(seen, scene, processes):
    """Scales and weights of all processes are equal, so that none drifts away."""
    first, *others = (each[scene] for each in seen[processes])
    unequal = [name for other in others for name in first if not _equal(first[name], other[name])]
    assert [] == unequal


def _equal(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_compiled_model_trains_in_two_processes(seen):
    """A compiled model under `DistributedDataParallel` gives the numbers of one process, whatever it leaves out."""
    expected = seen[1][0]["compiled"]
    assert [[]] * 2 == [differing(expected, each["compiled"]) for each in seen[2]]


@pytest.mark.parametrize("processes", [2, 4])
def test_a_process_that_observes_alone_waits_for_nobody(seen, processes):
    """Processes that observe alone may observe different numbers of batches."""
    assert [[2], [1], [0], [0]][:processes] == [each["alone"]["steps"] for each in seen[processes]]


def test_processes_of_a_group_observe_together(seen):
    """The range is that of the group's own batches, in a copied model too: 2 for the first pair, 4 for the second."""
    assert [2 / 128, 2 / 128, 4 / 128, 4 / 128] == [each["pairs"]["scale"].item() for each in seen[4]]


@pytest.mark.parametrize("processes", [2, 4])
def test_sharding_leaves_ranges_whole(seen, processes):
    """The weights and biases of the layers are sharded, and no parameter of a quantizer is."""
    sharded = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [sharded] * processes == [each["fsdp_parts"]["sharded"] for each in seen[processes]]


@pytest.mark.parametrize("processes", [2, 4])
def test_scales_of_sharded_weights_are_those_of_the_whole(seen, processes):
    """Between `unshard` and `reshard` the weight that a quantizer sees is the whole one."""
    expected = seen[1][0]["fsdp_parts"]["scale"].tolist()
    assert [expected] * processes == [each["fsdp_parts"]["scale"].tolist() for each in seen[processes]]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_scene_is_looked_at(seen, processes):
    """No scene failed, or was forgotten here."""
    scenes = {*SAME, "compiled", "alone", "pairs", "fsdp_parts"}
    assert [scenes] * processes == [set(each) for each in seen[processes]]
    assert [] == [text for each in seen[processes] for text in each.values() if isinstance(text, str)]
