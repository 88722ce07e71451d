"""A run's report as users get it: with the pictures of what a server sees beside it."""

from __future__ import annotations

from pathlib import Path

from fedmodel.audit.inversion import NOTE, inversion
from fedmodel.config import read_scenario
from scenarios.report.build import build
from scenarios.report.page.plots import pictures_row
from scenarios.report.page.render import render


def write_report(run_dir: Path) -> Path:
    """Write a run's report, signed by its server, and return where the page lies.

    The pictures are of public digits, whatever the run's data are: illustrative. They are kept beside the page, as
    `pictures.json`, since noise and masks in them are fresh each time, and the page can be rendered again with them.

    Raises:
        FedmodelError: As `scenarios.report.build.build` does.
    """
    found = inversion(read_scenario("digits"), others=0)  # whose medians are not on the page
    seen = "; ".join(f"{one.caption}: correlation {one.correlation:.2f}" for one in found.pictures[1:])
    picture = pictures_row(
        "inversion",
        [(one.caption, one.image) for one in found.pictures],
        "A handwritten digit, and what an attack makes of an update of it",
        f"Beside the original, {seen}.",
    )
    return build(run_dir, render, pictures={NOTE: picture})
