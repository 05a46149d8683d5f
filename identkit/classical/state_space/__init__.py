"""Linear-Gaussian state space: Kalman smoothing, and the information of the whole path."""

from __future__ import annotations

from identkit.classical.state_space.model import StateSpace
from identkit.classical.state_space.path import GaussianPath

__all__ = ["GaussianPath", "StateSpace"]
