"""Losses on what quantization costs, to be added to the loss of the task."""

from brevq.loss.accumulator import AccumulatorLoss
from brevq.loss.bit_width import BitWidthLoss, activations_by_size, outputs_by_operations, weights_by_size

__all__ = ["AccumulatorLoss", "BitWidthLoss", "activations_by_size", "outputs_by_operations", "weights_by_size"]
