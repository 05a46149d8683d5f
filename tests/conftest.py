"""Settings common to all tests: checked annotations, deterministic examples, and figures that need no screen."""

from __future__ import annotations

import os

from hypothesis import settings
from jaxtyping import install_import_hook

# Shapes, dtypes and types in annotations are checked where tensors are; an int is a float, as PEP 484 has it. The
# symbolic engine has no shapes, and would be four times slower.
install_import_hook(
    [
        *(
            "identkit.classical",
            "identkit.diagnosis",
            "identkit.lidvae",
            "identkit.model.compiled",
            "identkit.numeric",
            "identkit.plot",
            "identkit.posterior",
        ),
        "identkit.theorem",
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
os.environ.setdefault("MPLBACKEND", "Agg")  # in the environment, so that commands run by tests inherit it

# No deadline: the first call of a function compiles or imports, and machines are shared.
settings.register_profile("identkit", deadline=None, derandomize=True)
settings.load_profile("identkit")
