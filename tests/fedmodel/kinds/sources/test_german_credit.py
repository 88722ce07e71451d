"""The loans of StatLog's German credit set are what its file and its documentation say."""

from __future__ import annotations

import pytest

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.sources.german_credit import GermanCreditConfig

LOANS = GermanCreditConfig(source="german-credit", held_out=0.3, reference_range=(0.0, 1.0))
# The first line is "A11 6 A34 A43 1169 A65 A75 4 A93 A101 4 A121 67 A143 A152 2 A173 1 A192 A201 1".
FIRST = [1, 0, 0, 6, 0, 0, 1, 1169, 0, 0, 0, 0, 1, 4, 0, 1, 0, 0, 1]


def test_as_many_loans_went_bad_as_the_documentation_says() -> None:
    x_NF, y_N = LOANS.load(7)
    assert x_NF.shape == (1000, 19) == (1000, len(LOANS.shape.names))
    assert y_N.sum() == 300
    assert x_NF[0].tolist() == FIRST
    assert y_N[:4].tolist() == [0, 1, 0, 0]  # the classes of the first four lines are 1 2 1 1


def test_each_category_holds_as_many_as_in_the_file() -> None:
    x_NF, _ = LOANS.load(7)
    counted = dict(zip(LOANS.shape.names, x_NF.sum(axis=0).tolist(), strict=True))
    assert (counted["overdrawn"], counted["balance under 200"], counted["no account here"]) == (274, 269, 394)
    assert (counted["no loan, or paid back here"], counted["paid late before"], counted["loans elsewhere"]) == (
        89, 88, 293,
    )  # fmt: skip
    assert (counted["savings under 100"], counted["savings under 500"]) == (603, 103)
    assert (counted["unemployed"], counted["employed under a year"], counted["real estate"]) == (62, 172, 282)


def test_no_claim_for_persons_is_made_of_loans_without_a_name() -> None:
    with pytest.raises(ConfigError, match="the loans of german-credit do not say whose they are"):
        read_scenario("credit", ["privacy.unit=person", "privacy.max_records=1"])
