"""What tflease promises in numbers, measured: ``python -m benchmarks`` or ``make bench``.

One module for each figure; `__main__` lists them. The numbers depend on the machine, so nothing
here is a test: a figure states its bound and says whether this machine met it.
"""
