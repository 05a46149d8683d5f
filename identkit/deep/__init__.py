"""The theorem on trained networks: a grid of decoders, noises, likelihoods and seeds, and a latent's death as it happens.

`grid` says which models there are, `trained` trains and judges them, `strip` follows one along its training. Here is no
posterior code and no verdict of its own: it asks the ones that users have.
"""

from __future__ import annotations

from identkit.deep.grid import PRESETS, Preset
from identkit.deep.strip import Strip, strip
from identkit.deep.trained import Trained, trained

__all__ = ["PRESETS", "Preset", "Strip", "Trained", "strip", "trained"]
