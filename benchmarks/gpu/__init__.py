"""What a GPU is for, in one command for a machine without a network: python -m benchmarks.gpu.

The tests that need CUDA, the benchmarks, short trainings: each under its own time limit, and written as soon as it is done.
`python -m benchmarks.gpu.queue` goes on with longer trainings, also on another machine.
"""
