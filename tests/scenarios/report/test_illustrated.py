"""What a report shows beside its run: one digit's pictures, for one digit's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmodel.audit.inversion import NOTE, _Attacked
from scenarios.report import illustrated
from scenarios.report.illustrated import write_report


def test_the_page_gets_four_pictures_and_no_other_digit_is_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The medians over further digits are the demonstration's, and on no page."""
    attacked: list[int] = []
    shown: dict[str, str] = {}
    real = _Attacked.images

    def images(self: _Attacked, x_F: Any, label: int) -> Any:
        attacked.append(label)
        return real(self, x_F, label)

    def built(run_dir: Path, _render: object, pictures: dict[str, str]) -> Path:
        shown.update(pictures)
        return run_dir

    monkeypatch.setattr(_Attacked, "images", images)
    monkeypatch.setattr(illustrated, "build", built)
    assert write_report(tmp_path) == tmp_path
    assert len(attacked) == 1
    assert list(shown) == [NOTE]
    assert shown[NOTE].count("<image") == 4
    assert f"a handwritten {attacked[0]}" in shown[NOTE]
    assert "plain SGD: correlation 1.00" in shown[NOTE]
