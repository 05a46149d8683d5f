"""``python -m theory``: check every statement; exit status 1 if one fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from theory.frame import Checked
from theory.table import as_json, checked, lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print them, and return 0 if all hold."""
    parser = argparse.ArgumentParser(
        prog="python -m theory", description="Check every statement of the theory."
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array in place of the table")
    parser.add_argument("--share", type=float, default=1.0, help="of the random instances; 1 is all of them")
    asked = parser.parse_args(arguments)
    if not 0 < asked.share <= 1:
        parser.error(f"--share should be above 0 and at most 1, got {asked.share}")
    results: list[Checked] = []

    def kept() -> Iterator[Checked]:
        for each in checked(asked.share):
            results.append(each)
            yield each

    if asked.json:
        print(as_json(list(kept())))
    else:
        for line in lines(kept()):
            print(line, flush=True)
        failed = sum(not each.result for each in results)
        total = sum(each.instances for each in results)
        print(f"{len(results)} checks on {total:,} instances: {f'{failed} FAIL' if failed else 'all hold'}.")
    return int(not all(each.result for each in results))


if __name__ == "__main__":
    sys.exit(main())
