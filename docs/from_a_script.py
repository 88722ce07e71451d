"""The diffs of docs/from-a-script.md, made from the scripts that they are of: `python -m docs.from_a_script`."""

from __future__ import annotations

import sys
from difflib import unified_diff
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "from-a-script.md"
EXAMPLES: Final = ("images", "text", "table")
_BEGIN, _END = "<!-- diff of {} -->", "<!-- end of diff -->"


def difference(name: str) -> str:
    """Return how an example's private script differs from its plain one, as a block of the page."""
    plain, private = (ROOT / "examples" / name / f"{kind}.py" for kind in ("plain", "private"))
    lines = unified_diff(
        plain.read_text(encoding="utf-8").splitlines(),
        private.read_text(encoding="utf-8").splitlines(),
        f"examples/{name}/plain.py",
        f"examples/{name}/private.py",
        n=1,
        lineterm="",
    )
    return "\n".join((_BEGIN.format(name), "```diff", *(line.rstrip() for line in lines), "```", _END))


def with_differences(page: str) -> str:
    """Return a page with each example's diff as it is now.

    Raises:
        ValueError: When the page has no place for one of them.
    """
    for name in EXAMPLES:
        before, begin, rest = page.partition(_BEGIN.format(name))
        _, end, after = rest.partition(_END)
        if not begin or not end:
            raise ValueError(f"{PAGE.name} has no place for the diff of {name}")
        page = before + difference(name) + after
    return page


def main() -> int:
    """Write the diffs into the page."""
    PAGE.write_text(with_differences(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} has the diffs of {', '.join(EXAMPLES)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
