"""METABRIC's patients are those of the published file, and their times are cut at the declared ends."""

from __future__ import annotations

import numpy as np

from fedmodel.kinds.sources.metabric import ENDS, MetabricConfig, times

PATIENTS = MetabricConfig(source="metabric", held_out=0.25, reference_range=(0.0, 1.0))


def test_as_many_patients_and_deaths_as_were_published() -> None:
    x_NF, _ = PATIENTS.load(7)
    months_N, seen_N = times()
    assert x_NF.shape == (1904, len(PATIENTS.shape.names))
    assert int(seen_N.sum()) == 1103  # Katzman et al. 2018: 57.9% of 1,904 died
    assert months_N.max() == np.float32(355.2)


def test_a_target_says_the_interval_and_whether_death_was_seen_in_it() -> None:
    _, target_N = PATIENTS.load(7)
    for months, seen, target in zip(*times(), target_N.tolist(), strict=True):
        interval = sum(months >= end for end in ENDS)
        assert target == 2 * interval + (seen if interval < len(ENDS) else 0)
    assert target_N.max() == 2 * len(ENDS)
