"""What brevq costs: ratios to the float model, to the memory limit and to other libraries, measured side by side.

Run it with ``make bench``, or ``python -m benchmarks --help``. A `case.Case` is data: what is done (`work`), with which
arguments, by which libraries (`libraries`), against which of them; `registry` lists all. `timing` measures, `peers`
carries the libraries that live in an environment of their own, `report` prints.
"""
