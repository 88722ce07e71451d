"""`fedmodel demo inversion` as a user meets it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedmodel.audit.inversion import NOTE
from scenarios.cli import demo as verb
from scenarios.cli import main

pytestmark = pytest.mark.usefixtures("same_bytes")

PNG = b"\x89PNG\r\n\x1a\n"
Demo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Demo:
    """Call the verb in an empty folder; return exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedmodel", "demo", "inversion", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_json_says_what_was_seen_and_that_it_is_illustrative(demo: Demo, tmp_path: Path) -> None:
    code, printed, errors = demo("--digit", "7", "--seed", "4", "--out", "here", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(printed)
    assert (found["illustrative"], found["note"]) == (True, NOTE)
    assert (found["digit"], found["seed"], found["digits"]) == (7, 4, 25)
    assert (found["epsilon"], found["delta"], found["steps"], found["max_grad_norm"]) == (8, 1e-3, 30, 1)
    assert 2.6 < found["noise_multiplier"] < 2.7
    assert [one["name"] for one in found["pictures"]] == ["original", "unprotected", "noised", "masked"]
    for one, seen in zip(found["pictures"], (True, True, False, False), strict=True):
        assert np.array(one["pixels"]).shape == (8, 8)
        for figure in ("correlation", "median_correlation"):
            assert one[figure] > 0.999 if seen else abs(one[figure]) < 5 / 63**0.5
    picture = Path(found["picture"])
    assert picture == tmp_path / "here" / "inversion.png"
    assert picture.read_bytes().startswith(PNG)


def test_the_picture_says_that_it_is_illustrative(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(images: list[tuple[str, np.ndarray]]) -> bytes:
        drawn.extend(images)
        return PNG

    monkeypatch.setattr("scenarios.report.page.plots.pictures_png", draw)
    code, printed, _ = demo("--digit", "7", "--json")
    assert code == 0
    found = json.loads(printed)
    assert [told for told, _ in drawn] == [
        "a handwritten 7 (illustrative)",
        "plain SGD",
        "clipped and noised",
        "masked, no noise",
    ]
    for (_, image), one in zip(drawn, found["pictures"], strict=True):
        assert np.allclose(image, one["pixels"], atol=1e-4)
    assert Path(found["picture"]).parent.parent == Path.cwd() / "runs"
    assert Path(found["picture"]).parent.name.startswith("inversion-20")


def test_a_person_sees_the_pictures_in_80_columns(demo: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verb, "out", Console(width=80))
    code, printed, _ = demo("--out", "here")
    lines = printed.splitlines()
    assert code == 0
    assert max(map(len, lines[:-1])) <= 80  # a path is not broken
    assert "Illustrative" in lines[0]
    assert lines[2].split() == ["original", "unprotected", "noised", "masked"]
    pictures = [line.ljust(73) for line in lines[3:11]]
    for line in pictures:
        # The digit and what was made of its unprotected update look the same; the others do not.
        assert line[0:16] == line[19:35]
    for start in (38, 57):
        assert [line[0:16] for line in pictures] != [line[start : start + 16] for line in pictures]
    assert set("░▒▓█") <= set("".join(pictures))
    assert "Noise multiplier 2.63, that of epsilon 8.0000 at delta 0.001 over 30 steps." in lines
    assert [line.split("│")[3].strip() for line in lines if "plain SGD" in line] == ["1.00"]
    assert NOTE in " ".join(" ".join(lines).split())
    assert lines[-1] == f"Pictures: {tmp_path / 'here' / 'inversion.png'}"


def test_a_terminal_without_blocks_gets_ascii(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(verb, "out", Console(width=80, file=written))
    assert demo()[0] == 0
    written.flush()
    printed = written.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "##" in printed


def test_nothing_is_written_over(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    (tmp_path / "plain").write_text("kept")
    for taken in ("full", "plain", "plain/inside"):
        code, printed, errors = demo("--out", taken)
        assert (code, printed, errors.count("\n")) == (2, "", 1), errors
        assert taken in errors
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "plain"]


@pytest.mark.parametrize("arguments", [("--digit", "10"), ("--digit", "-1"), ("--seed", "-1")])
def test_what_is_no_digit_is_a_usage_error(demo: Demo, arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, printed, _ = demo(*arguments)
    assert (code, printed) == (2, "")
    assert not list(tmp_path.iterdir())


def test_characters_by_hand() -> None:
    image = np.array([[0.0, 0.19, 0.2, 0.5], [0.79, 0.8, 0.99, 1.0]])
    assert verb.characters(image) == ["    ░░▒▒", "▓▓██████"]
    assert verb.characters(image, " .:*#") == ["    ..::", "**######"]
