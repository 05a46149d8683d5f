"""`python -m identkit`, the same as the command `identkit`."""

from __future__ import annotations

import sys

from identkit.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
