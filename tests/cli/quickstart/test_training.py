"""The training loop, calibration and accuracy of the quickstart."""

import torch
from torch import nn

from brevq.cli.quickstart.data import Digits
from brevq.cli.quickstart.network import quantized_network
from brevq.cli.quickstart.training import accuracy, calibrate, train, train_steps
from brevq.core.phase import Phase
from brevq.nn import QuantReLU
from injectors import Int8WeightPerChannel


def test_a_quantized_network_learns(easy_digits):
    """Its loss falls, it ends in evaluation, and it tells the two kinds of images apart."""
    digits, network = easy_digits(100), quantized_network(Int8WeightPerChannel)
    losses = list(train(network, digits, 6, 1e-3))
    assert losses[-1] < losses[0] / 4
    assert not network.training
    assert 1.0 == accuracy(network, digits)


def test_a_last_small_batch_is_a_step(easy_digits):
    """100 images in batches of 64 are two steps an epoch, in `train` as in `train_steps`."""
    digits = easy_digits(100)
    assert [4, 4] == [train_steps(digits, 2), len(list(train(quantized_network(Int8WeightPerChannel), digits, 2, 0.1)))]


def test_calibration_observes_and_leaves_normalisation_alone(easy_digits):
    """After it all ranges of activations are ready to be learned, and batch normalisation is as it was."""
    network = quantized_network(Int8WeightPerChannel)
    calibrate(network, easy_digits(10))
    assert {Phase.LEARNED} == {module.act_quant.phase for module in network if isinstance(module, QuantReLU)}
    assert {0} == {int(module.num_batches_tracked) for module in network if isinstance(module, nn.BatchNorm2d)}


def test_accuracy_counts_what_is_right():
    """Three of four are 0.75."""
    images, labels = torch.eye(4), torch.tensor([0, 1, 2, 0])
    assert 0.75 == accuracy(nn.Identity(), Digits(images, labels, images, labels))
