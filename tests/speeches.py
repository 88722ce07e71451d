"""Made-up speeches in the form of those that the scenario `speeches` reads: a few words over and over."""

from __future__ import annotations

import random
from pathlib import Path

from fedmodel.config import read_scenario

_WORDS = (
    "the", "people", "of", "these", "united", "states", "and", "their", "congress", "have", "done", "what", "this",
    "union", "was", "made", "for",
)  # fmt: skip


def write_speeches(folder: Path, size: int = 2_000, years: int = 2) -> Path:
    """Write speeches of the scenario's speakers: one a year of so many bytes, some words oftener."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, silo in enumerate(read_scenario("speeches").federation.silos):
        draw = random.Random(place)  # noqa: S311 - made-up text
        often = draw.choices(range(1, 9), k=len(_WORDS))
        for year in range(years):
            text = " ".join(draw.choices(_WORDS, often, k=size))[:size]
            (folder / f"{1790 + year}_{silo.replace('-', '_')}_w.txt").write_text(text)
    return folder
