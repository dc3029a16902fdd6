"""What the operations share: read `backends` first (which implementation runs), then what its side needs.

Every side: `backends`, `arguments` (checks), `random_words` (counter-based random words).
CPU: `operators` (functions as torch's operators), `arrays` (tensors as arrays), `threads` (launches and their
work queue), `vector/` (SIMD, numba), `histories` (passes over rows' histories). GPU: `launching/` (grids,
configurations, the table of compiled kernels), `triton_math`, `triton_tiles`, `triton_random_words`. An
operation's folder may import from here; nothing here imports an operation.
"""
