"""Makes the tables of the hour: `python -m tests.hour.tables` writes them anew, the same bytes each time.

Nobody's records: patients are drawn from a seed. What people meet in real tables is in them: an identifier and a date
that are no measurements, yes and no, values that are missing in two spellings, a table with semicolons and decimal
commas, more columns in one table than in another. Whether somebody came back within 30 days hangs on the measurements
by a logistic model, so that there is something to be learnt.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np

FOLDER: Final = Path(__file__).parent
COLUMNS: Final = ("patient_id", "admitted", "age", "sex", "systolic", "bmi", "smoker", "diabetes", "ward", "readmitted")
WARDS: Final = ("medicine", "surgery", "cardiology")


@dataclass(frozen=True)
class Hospital:
    """How one hospital writes its table.

    Attributes:
        name: Of the file, too.
        patients: How many rows.
        separator: Between values.
        decimal: Sign in numbers.
        day: How a date is written, for `strftime`.
        missing: How a missing value is written.
        more: Columns that no other hospital has.
    """

    name: str
    patients: int
    separator: str = ","
    decimal: str = "."
    day: str = "%Y-%m-%d"
    missing: str = ""
    more: tuple[str, ...] = ()


HOSPITALS: Final = (
    Hospital("north", 430),
    Hospital("south", 940, separator=";", decimal=",", day="%d.%m.%Y"),
    Hospital("west", 1800, missing="NA", more=("insurance",)),
    Hospital("held-out", 520),
)


def rows(hospital: Hospital, seed: int) -> list[list[str]]:
    """Return a hospital's patients as its table has them."""
    chance = np.random.default_rng(seed)
    found = []
    for number in range(hospital.patients):
        age, female = int(chance.integers(18, 97)), bool(chance.random() < 0.52)
        systolic = int(np.clip(chance.normal(115 + 0.35 * age, 14), 82, 228))
        bmi = float(np.clip(chance.normal(27, 5), 14.5, 58))
        smoker, diabetes = bool(chance.random() < 0.24), bool(chance.random() < 0.08 + 0.003 * age)
        ward = WARDS[int(chance.integers(len(WARDS)))]
        score = 0.07 * (age - 60) + 0.03 * (systolic - 135) + 1.5 * smoker + 1.6 * diabetes + 0.8 * (ward == WARDS[2])
        again = bool(chance.random() < 1 / (1 + np.exp(1.0 - 1.4 * score)))
        day = date(2025, 1, 1) + timedelta(days=int(chance.integers(0, 365)))
        known = chance.random() > 0.04
        values = [
            f"{hospital.name[0].upper()}{100000 + number * 7}",
            day.strftime(hospital.day),
            str(age),
            "f" if female else "m",
            str(systolic),
            f"{bmi:.1f}".replace(".", hospital.decimal) if known else hospital.missing,
            "yes" if smoker else "no",
            "yes" if diabetes else "no",
            ward,
            "yes" if again else "no",
        ]
        found.append([*values, *("public" if chance.random() < 0.8 else "private" for _ in hospital.more)])
    return found


def write(folder: Path = FOLDER) -> None:
    """Write all tables into a folder."""
    for seed, hospital in enumerate(HOSPITALS, 20251):
        with (folder / f"{hospital.name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter=hospital.separator, lineterminator="\n")
            table.writerows([[*COLUMNS, *hospital.more], *rows(hospital, seed)])


if __name__ == "__main__":
    write()
