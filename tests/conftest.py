"""Settings of all tests."""

import contextlib

# A GPU machine that runs the kernels' tests alone has no Hypothesis.
with contextlib.suppress(ModuleNotFoundError):
    from hypothesis import settings

    # A busy machine is no mistake: no example has to end within Hypothesis' 200 ms.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
