"""How fast heatgen is: every figure a ratio of two things run in turn in one process, beside the floor of the machine.

`python -m benchmarks` measures everything, `python -m benchmarks --guard` the ratios of budget.json that CI holds, and
`python -m benchmarks.gpu` what a GPU is for. A benchmark is one file of `cases/`.
"""
