"""Whose fault is a collapse: the model's flat likelihood, the encoder's, or nobody's?

`truth` measures the true posterior, `encoder` the approximate one, `judged` compares them latent by latent.
"""

from __future__ import annotations

from identkit.diagnosis.judged import Diagnosis, Fault, Finding, diagnose

__all__ = ["Diagnosis", "Fault", "Finding", "diagnose"]
