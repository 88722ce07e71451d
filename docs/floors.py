"""The picture of the floors in `docs/architecture.md`, from the import contracts: `python -m docs.floors` draws it.

A floor is a line of a contract of layers in `pyproject.toml`, which `make lint` holds the code to. A room is a package
or a module on it, and what is said of it is the first paragraph of its docstring.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
_PICTURE = re.compile(r"(?<=<!-- floors -->\n\n).*?(?=\n\n<!-- end of floors -->)", re.DOTALL)


def floors() -> Iterator[tuple[str, list[str]]]:
    """Yield all floors from the top, each with the package that it is in ("" for parties) and its rooms."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    inside = {contract["containers"][0]: contract["layers"] for contract in contracts if "containers" in contract}
    (whole,) = (one["layers"] for one in contracts if one["type"] == "layers" and "containers" not in one)
    for layer in whole:
        names = [name.strip() for name in layer.split("|")]
        if names[0] not in inside:
            yield "", names
            continue
        for floor in inside[names[0]]:
            yield names[0], [f"{names[0]}.{room.strip()}" for room in floor.split("|")]


def path_of(room: str) -> str:
    """Return where a room lies, from the root: a folder, or a file."""
    path = room.replace(".", "/")
    return path if (ROOT / path).is_dir() else f"{path}.py"


def sentence(room: str) -> str:
    """Return what a room says of itself: the first paragraph of its docstring."""
    path = ROOT / path_of(room)
    source = path / "__init__.py" if path.is_dir() else path
    told = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(told.split("\n\n")[0].split())


def picture() -> str:
    """Return the floors as a table, the highest first: imports go from a row to rows beneath it, and never back."""
    found = list(floors())
    numbered = zip(range(len(found), 0, -1), found, strict=True)
    rows = [f"| {number} | `{path_of(room)}` | {sentence(room)} |" for number, (_, rooms) in numbered for room in rooms]
    return "\n".join(["| Floor | Room | What it is |", "|---|---|---|", *rows])


def main() -> int:
    """Draw the picture anew."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_PICTURE.sub(lambda _: picture(), page), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} has the floors of pyproject.toml\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
