"""One thing is counted in the singular, wherever a count is printed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fedmodel.system.counts import counted, one_or_more

ROOT = Path(__file__).parents[3]
COUNTED = ("round", "silo", "record", "row", "entry", "file", "person", "step", "whole", "more", "signed", "held-out")


@pytest.mark.parametrize(("figure", "told"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1234, "1,234 rows")])
def test_one_alone_is_singular(figure: int, told: str) -> None:
    assert counted(figure, "row") == told


def test_an_irregular_plural_is_said_and_a_verb_agrees() -> None:
    assert [counted(figure, "entry", "entries") for figure in (0, 1, 2)] == ["0 entries", "1 entry", "2 entries"]
    assert [one_or_more(figure, "is", "are") for figure in (0, 1, 2)] == ["are", "is", "are"]


def test_no_command_prints_a_figure_before_a_plural_that_it_may_not_be() -> None:
    plural = re.compile(rf"^ (?:{'|'.join(COUNTED)})[a-z]*(?: records?| rounds?| entries| heads?| rows?)?s\b")
    found = []
    for path in sorted((ROOT / "scenarios" / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for figure, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(figure, ast.FormattedValue) and isinstance(after, ast.Constant):
                    text = str(after.value)
                    if plural.match(text) and "counted" not in ast.unparse(figure):
                        found.append(f"{path.name}:{node.lineno}: {ast.unparse(figure.value)}{text[:30]}")
    # Of two numbers of silos that are never one: a sum under encryption, and the rows between those that are shown.
    assert [line for line in found if not re.search(r"silos' updates|silos between|silos on vectorised", line)] == []
