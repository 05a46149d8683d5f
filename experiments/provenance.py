"""Where a number comes from: the command, the day and the machine. No picture is drawn here: benchmarks measure memory."""

from __future__ import annotations

import os
import platform
from datetime import date

import torch


def provenance(command: str) -> dict[str, str]:
    """The head of every result."""
    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
