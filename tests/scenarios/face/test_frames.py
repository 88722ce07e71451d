"""A run's figures as pandas has them."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd

from scenarios.face import frames

LINE = {"round": 1, "loss": 0.5, "accuracy": 0.75, "epsilon": {"a": 1.00001, "b": 0.5}, "summed": 2, "dropouts": {},
        "noise": "os", "cohort": ["a", "b"], "seconds": 0.25, "threshold": None, "withdrawn": {}}  # fmt: skip


def test_a_round_is_a_row_with_what_was_measured_in_it() -> None:
    failed = {key: value for key, value in LINE.items() if key not in ("loss", "accuracy")} | {
        "failed": True,
        "round": 2,
    }
    found = frames.metrics([LINE, failed])
    assert list(found.index) == [1, 2]
    assert list(found.columns) == ["loss", "accuracy", "silos", "dropouts", "failed", "seconds"]
    assert found.loc[1, "accuracy"] == 0.75
    assert pd.isna(found.loc[2, "loss"])
    assert list(found["failed"]) == [False, True]


def test_no_round_is_a_frame_without_rows() -> None:
    assert frames.metrics([]).empty


def test_figures_of_privacy_are_shown_rounded_outwards_and_are_not_rounded() -> None:
    row = {"silo": "a", "unit": "record", "epsilon": 2.00000001, "delta": 1.23e-5, "noise_multiplier": 1.10001,
           "odometer": {"epsilon": 1.9, "delta": 1e-5, "steps": 3}, "steps": 3, "steps_reserved": 4,
           "mu_floor": 1e-9, "parts": []}  # fmt: skip
    found = frames.privacy([row, {**row, "silo": "b", "noise_multiplier": None, "odometer": None, "epsilon": None}])
    for shown in (repr(found), found._repr_html_()):
        assert "2.0001" in shown
        assert "0.000013" in shown
        assert "1.1001" in shown
        assert "2.0000" not in shown
    assert found.loc["b", "epsilon"] == float("inf")
    assert "no bound computed" in repr(found)
    assert found.loc["a", "epsilon"] == 2.00000001
    assert "2.0001" in repr(found[["epsilon"]])
    assert found.loc["a", "odometer"] == 1.9


def test_without_pandas_one_line_names_the_extra() -> None:
    code = "import sys; sys.modules['pandas'] = None\nimport scenarios.face.frames"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pip install 'fedmodel[notebook]'" in done.stderr.splitlines()[-1]


def test_pandas_is_not_imported_for_a_run_itself() -> None:
    code = (
        "import sys, fedmodel; fedmodel.Run; fedmodel.simulate; print('pandas' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
