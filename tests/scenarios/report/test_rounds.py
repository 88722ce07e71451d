"""A run's rounds drawn: which figures stand on one axis, and that every one is drawn."""

from __future__ import annotations

import pytest

from scenarios.report.page.rounds import rounds_figure


def panels(*figures: str) -> dict[str, list[str]]:
    """The curves of each panel, by its title, of two rounds with these figures and one that failed."""
    values = {name: 0.5 + number for number, name in enumerate(figures)}
    lines = [{"round": 1, "seconds": 2.0, **values}, {"round": 2, "failed": "too few"}, {"round": 3, **values}]
    drawn = rounds_figure(lines, "What it cost.")
    for axes in drawn.axes:
        assert all(list(line.get_xdata()) == [1, 3] for line in axes.lines)
        assert (axes.get_legend() is None) == ([line.get_label() for line in axes.lines] == [axes.get_title()])
    return {axes.get_title(): [str(line.get_label()) for line in axes.lines] for axes in drawn.axes}


@pytest.mark.parametrize(
    ("figures", "others"),
    [
        ((), {}),
        (("accuracy", "auroc"), {"other figures": ["accuracy", "auroc"]}),
        (("rmse", "mae", "r2"), {"in units of the label": ["mae", "rmse"], "other figures": ["r2"]}),
        (
            ("perplexity", "token-accuracy"),
            {"perplexity": ["perplexity"], "other figures": ["token-accuracy"]},
        ),
        (
            ("accuracy", "mine:cost", "mine:beds"),
            {"other figures": ["accuracy"], "mine:beds": ["mine:beds"], "mine:cost": ["mine:cost"]},
        ),
    ],
)
def test_figures_of_one_scale_share_an_axis_and_no_others_do(
    figures: tuple[str, ...], others: dict[str, list[str]]
) -> None:
    assert panels("loss", *figures) == {"loss": ["loss"], **others}
    assert rounds_figure([], "Nothing ran.")._repr_png_().startswith(b"\x89PNG")
