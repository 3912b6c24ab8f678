"""What brevq is to reach: the table that ``make bench`` prints, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A line of the table.

    Args:
        label: what is compared with what.
        cases: names of the cases that it consists of.
        must: for each of them, the largest ratio that is good enough.
        aim: for each of them, what would be better.
    """

    label: str
    cases: tuple[str, ...]
    must: tuple[float, ...]
    aim: tuple[float, ...]


def same(label: str, cases: list[str], must: float, aim: float) -> Target:
    """A line whose cases have the same limits."""
    return Target(label, tuple(cases), (must,) * len(cases), (aim,) * len(cases))


THREE = ("ResNet-18", "MobileNetV1", "GPT")
TARGETS = [
    Target(
        "construct QuantLinear(64, 64), weights; input and output too / nn.Linear",
        ("construct a layer: weights", "construct a layer: all"),
        (8, 14),
        (5, 8),
    ),
    same("modules of the latter", ["modules of a layer: all"], 24, 15),
    Target(
        "construct ResNet-50; deepcopy ResNet-18; load_state_dict / float",
        ("construct ResNet-50", "deepcopy ResNet-18", "load_state_dict of ResNet-18"),
        (1.4, 4, 6),
        (1.2, 2, 3),
    ),
    same("weight, 1e6, forward / clone", ["weight int8 per tensor, 1e6, forward"], 5, 2),
    same("weight, 1e6, forward and backward / clone's", ["weight int8 per tensor, 1e6, forward and backward"], 3, 1.6),
    same("activation, 1e6, evaluation / clone", ["activation int8 fixed, 1e6, evaluation"], 5, 2),
    same(
        "activation, 1e6, training, fixed; learned, forward and backward / clone's",
        [f"activation int8 {phase}, 1e6, forward and backward" for phase in ("fixed", "learned")],
        5,
        3,
    ),
    same(
        "activation, 1e6, statistics, signed; unsigned, forward / clone",
        [f"activation {number_format} statistics, 1e6, forward" for number_format in ("int8", "uint8")],
        10,
        6,
    ),
    same(
        "1000 values: weight; activation in evaluation; in training / clone",
        [
            "weight int8 per tensor, 1e3, forward",
            "activation int8 fixed, 1e3, evaluation",
            "activation int8 learned, 1e3, forward",
        ],
        10,
        6,
    ),
    same(
        "saved for backward per input byte: weight; activation fixed; learned; statistics",
        ["saved: weight int8 per tensor"]
        + [f"saved: activation int8 {phase}" for phase in ("fixed", "learned", "statistics")],
        0.5,
        0.25,
    ),
    same(
        "training step, learned: ResNet-18; MobileNetV1; GPT / float", [f"train {n}, learned" for n in THREE], 1.2, 1.1
    ),
    same("the same, scales from statistics / float", [f"train {name}, statistics" for name in THREE], 1.3, 1.15),
    same("activation memory of that step / float", [f"memory {name}, statistics" for name in THREE], 1.4, 1.25),
    same("evaluation / float", [f"evaluate {name}" for name in THREE], 1.25, 1.05),
    same("compiled evaluation / compiled float", [f"evaluate {name}, compiled" for name in THREE], 1.10, 1.02),
]
