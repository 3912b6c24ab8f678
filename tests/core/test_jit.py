"""Compilation on request: the environment variable, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import torch

from brevq.core.bit_width import BitWidthConst
from brevq.core.quant import IntQuant, RescalingIntQuant
from brevq.core.quant.jit import compile_if_asked
from brevq.core.scaling import IntScaling, StatsScaling
from brevq.core.stats import AbsMax
from brevq.core.zero_point import ZeroZeroPoint
from brevq.errors import ArgumentError

# Loading torch's compiler defines script methods of its own, which torch deprecates.
loads_compiler = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")

SCRIPT = """
import json, torch
from brevq.core.bit_width import BitWidthConst
from brevq.core.quant import IntQuant, RescalingIntQuant
from brevq.core.scaling import IntScaling, StatsScaling
from brevq.core.stats import AbsMax
from brevq.core.zero_point import ZeroZeroPoint

quant = RescalingIntQuant(
    IntQuant(True, True), StatsScaling(AbsMax()), IntScaling(True, True), ZeroZeroPoint(), BitWidthConst(4)
)
x = torch.linspace(-1.3, 1.1, 64, requires_grad=True)
y, scale, zero_point, bit_width = quant(x)
y.backward(torch.linspace(0.0, 1.0, 64))
compiled = quant._compiled_call_impl is not None
print(json.dumps([compiled, y.tolist(), scale.item(), zero_point.item(), bit_width.item(), x.grad.tolist()]))
"""


def _printed(value):
    environment = {**os.environ, "BREVQ_JIT": value, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_compiled_numbers_are_equal():
    """With the variable set quantizers are compiled: values and scale are equal bit for bit, gradients in rounding."""
    asked, plain = _printed("1"), _printed("0")
    assert ([True, *plain[1:5]], False) == (asked[:5], plain[0])
    # The largest value's gradient is a sum of 64 terms, which the compiler orders differently.
    assert pytest.approx(plain[5], rel=64 * 2**-24, abs=64 * 2**-24) == asked[5]


@pytest.mark.parametrize("value", ["2", "yes", "true", " 1"])
def test_other_values_are_refused(monkeypatch, value):
    """What is neither 0 nor 1 is refused when a quantizer is constructed."""
    monkeypatch.setenv("BREVQ_JIT", value)
    with pytest.raises(ArgumentError) as error:
        IntQuant(narrow_range=True, signed=True)
    assert f"the environment variable BREVQ_JIT (={value!r}) must be 0 or 1" == str(error.value)


@loads_compiler
@pytest.mark.parametrize(("value", "compiled"), [("", False), ("0", False), ("1", True), (None, False)])
def test_the_variable_is_read_at_construction(monkeypatch, value, compiled):
    """Only 1 asks for compilation; 0, nothing, and no variable do not."""
    if value is None:
        monkeypatch.delenv("BREVQ_JIT", raising=False)
    else:
        monkeypatch.setenv("BREVQ_JIT", value)
    module = torch.nn.Module()
    compile_if_asked(module)
    assert compiled == (module._compiled_call_impl is not None)


@loads_compiler
def test_every_core_quantizer_asks(monkeypatch):
    """A complete quantizer and the grid inside it are each compiled when they are asked to be."""
    monkeypatch.setenv("BREVQ_JIT", "1")
    grid = IntQuant(True, True)
    whole = RescalingIntQuant(grid, StatsScaling(AbsMax()), IntScaling(True, True), ZeroZeroPoint(), BitWidthConst(4))
    assert [True, True] == [module._compiled_call_impl is not None for module in (grid, whole)]
