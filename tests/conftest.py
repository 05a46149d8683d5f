"""Settings common to all tests: deterministic examples, and figures that need no screen."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")  # in the environment, so that commands run by tests inherit it

# No deadline: the first call of a function compiles or imports, and machines are shared.
settings.register_profile("identkit", deadline=None, derandomize=True)
settings.load_profile("identkit")
