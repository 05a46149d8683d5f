"""The command line: commands, what is asked, what is shown and what is written, a module each.

Heavy packages are imported inside the commands, so that ``--help`` is immediate and `check` loads no torch.
"""

from __future__ import annotations

from identkit.cli.commands import main

__all__ = ["main"]
