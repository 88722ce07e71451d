"""Figures are rounded outwards, in one module, for terminal, page and sentences alike."""

from __future__ import annotations

import ast
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedmodel
from fedmodel.privacy import rounding
from fedmodel.privacy.rounding import NO_BOUND, down, percent_down, percent_up, raised, small, up

ROOT = Path(fedmodel.__file__).parent.parent
PACKAGES = ("fedmodel", "clients", "server", "scenarios")
FIGURES = st.floats(allow_nan=False, allow_infinity=False)


def exact(figure: float) -> Decimal:
    return Decimal(repr(figure))


def read(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


@given(FIGURES, st.integers(0, 8))
def test_up_is_never_under_a_figure_and_down_never_over(figure: float, digits: int) -> None:
    assert read(down(figure, digits)) <= figure <= read(up(figure, digits))
    most, least = (
        Fraction(told.replace(",", "").replace("−", "-")) for told in (up(figure, digits), down(figure, digits))
    )
    assert most - least <= Fraction(1, 10**digits)


@given(st.integers(-(10**9), 10**9))
def test_a_figure_of_four_decimals_is_told_as_it_is(ten_thousandths: int) -> None:
    figure = ten_thousandths / 10_000
    assert read(up(figure)) == read(down(figure)) == figure
    assert up(figure) == down(figure)


@pytest.mark.parametrize("figure", [0.14, 0.1, 1.1, 0.0007, 8.0501])
def test_the_decimals_that_a_product_with_10000_loses_are_kept(figure: float) -> None:
    """0.14 times 10,000 is above 1,400 in floating point, and must not be told as 0.1401 anywhere."""
    assert up(figure) == down(figure) == f"{exact(figure):.4f}"
    assert raised(figure) == figure


@pytest.mark.parametrize(
    ("figure", "shown"), [(2.99999988, "3.0000"), (1.1, "1.1000"), (-0.00001, "0.0000"), (12345.67891, "12,345.6790")]
)
def test_rounding_up_never_falls_short(figure: float, shown: str) -> None:
    assert up(figure) == shown


@given(st.floats(min_value=1e-300, max_value=1, exclude_max=True))
def test_a_small_probability_is_rounded_up_to_two_digits(delta: float) -> None:
    shown = small(delta)
    mantissa, _, power = shown.partition("10") if "⁻" in shown else (shown, "", "")
    exponent = power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    told = Decimal(mantissa.removesuffix(" × ") or 1) * Decimal(10) ** int(exponent or 0)
    assert exact(delta) <= told <= exact(delta) * Decimal("1.1")


@given(st.floats(min_value=0, max_value=1))
def test_a_share_in_percent_is_rounded_outwards(share: float) -> None:
    assert read(percent_down(share)[:-1]) <= share * 100 + 1e-9
    assert Decimal(percent_down(share)[:-1]) <= exact(share) * 100 <= Decimal(percent_up(share)[:-1])


@given(st.lists(st.floats(min_value=1e-6, max_value=1e3), min_size=1, max_size=5))
def test_a_cap_leaves_room_for_what_it_is_the_sum_of(figures: list[float]) -> None:
    assert math.fsum(figures) <= raised(*figures) * (1 + 1e-15)
    assert exact(raised(*figures)) - sum(map(exact, figures)) < Decimal("1e-4")


@pytest.mark.parametrize("figure", [None, math.inf])
def test_no_bound_is_told_as_such(figure: float | None) -> None:
    assert up(figure) == NO_BOUND


def sources() -> list[tuple[str, ast.Module]]:
    own = Path(rounding.__file__)
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if path != own]
    assert len(paths) > 100
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def is_rounding(node: ast.AST) -> bool:
    """Whether a piece of code rounds a figure to decimals one way, or defines what would."""
    if isinstance(node, ast.FunctionDef):
        return node.name in ("up", "down", "percent_up", "percent_down", "small", "ceil", "floor")
    if isinstance(node, ast.ImportFrom):
        return node.module == "decimal" and any(one.name.startswith("ROUND_") for one in node.names)
    # math.ceil(x * 10_000) / 10_000, whatever the power of ten.
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.left, ast.Call)
        and isinstance(node.left.func, ast.Attribute)
        and node.left.func.attr in ("ceil", "floor", "round")
    )


def told_to_nearest(node: ast.AST) -> bool:
    """Whether an f-string writes a figure of privacy with a format of its own, which rounds it to the nearest."""
    return (
        isinstance(node, ast.FormattedValue)
        and node.format_spec is not None
        and any(
            isinstance(one, ast.Constant) and str(one.value)[-1:] in tuple("gfe%") for one in ast.walk(node.format_spec)
        )
        and any(name in ast.unparse(node.value).lower() for name in ("epsilon", "delta", "advantage", "claimed", "cap"))
        and ast.unparse(node.value) != "LEAST_DELTA"  # a constant of this code, and no figure of anybody's
    )


def test_nothing_else_rounds_a_figure_outwards() -> None:
    found = [(name, node.lineno) for name, tree in sources() for node in ast.walk(tree) if is_rounding(node)]  # type: ignore[attr-defined]
    assert found == []


def test_no_figure_of_privacy_is_told_to_the_nearest() -> None:
    found = [(name, node.lineno) for name, tree in sources() for node in ast.walk(tree) if told_to_nearest(node)]  # type: ignore[attr-defined]
    assert found == []


@pytest.mark.parametrize(
    "code", ["def up(x): ...", "from decimal import ROUND_CEILING", "y = math.ceil(x * 100) / 100", "f'{epsilon:.4f}'"]
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert any(is_rounding(node) or told_to_nearest(node) for node in ast.walk(ast.parse(code)))
