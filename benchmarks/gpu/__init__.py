"""Everything there is to know of a GPU, in stages that go on where they were cut off: ``make gpu``.

`stages` says what there is, `stage` runs one, `bars` holds the results against what they must show,
``python -m recsys.benchmarks.gpu`` runs several and prints a summary. Needs PyTorch with CUDA, Triton, numba,
numpy, pytest and matplotlib; installs nothing.
"""
