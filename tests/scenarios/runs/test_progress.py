"""What a bar shows of time and of a claim, and what is said where no bar can be drawn."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from fedmodel.config import read_scenario
from scenarios.cli.printing import InertConsole
from scenarios.runs import progress
from scenarios.runs.progress import BEFORE, _Time, claimed, followed, line_in_words, rounds_progress, steps_progress

LINE = {"loss": 0.5, "accuracy": 0.75, "epsilon": {"north": 1.001}, "noise": "os", "summed": 3, "seconds": 0.1}
CLAIM = "δ 0.00001 per record"


def test_before_any_round_the_time_so_far_moves_and_then_the_time_left_is_shown() -> None:
    clock = [100.0]
    column = _Time(compact=True)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    bar = Progress(TextColumn("{task.description}"), column, console=console, get_time=lambda: clock[0])
    task = bar.add_task(BEFORE, total=4)

    def shown_at(time: float) -> str:
        clock[0] = time
        return str(column.render(bar.tasks[0]))

    assert [shown_at(time) for time in (100.0, 101.5, 166.7)] == ["0:00:00 so far", "0:00:01 so far", "0:01:06 so far"]
    for done in (1, 2, 3):
        clock[0] += 10
        bar.update(task, completed=done)
    assert shown_at(clock[0]) == "00:10"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stand in for the time that lines go by."""
    now = [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def off_a_terminal() -> tuple[InertConsole, io.StringIO]:
    """Return a console as standard error is where it goes to a file, and what is printed on it."""
    console, said = InertConsole(stderr=True), io.StringIO()
    console.file = said
    return console, said


def written(metrics: Path, rounds: int, **more: object) -> None:
    """Write so many rounds' lines."""
    lines = [json.dumps({**LINE, **more, "round": number + 1}) for number in range(rounds)]
    metrics.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_lines_are_a_minute_apart_at_least_and_one_for_each_tenth_at_most(clock: list[float]) -> None:
    console, said = off_a_terminal()
    show = progress._NowAndThen(console, "round", 40, done=2)
    for seconds, done in (
        (59, 3),  # too soon
        (60, 2),  # no round since it was taken up again
        (61, 3),
        (200, 6),  # no tenth more
        (210, 7),
        (269, 20),  # too soon
        (270, 20),
        (7300, 40),
    ):
        clock[0] = 1000.0 + seconds
        show(done, "loss 1")
    assert said.getvalue().splitlines() == [
        "round 3 of 40: loss 1  0:01:01 so far",
        "round 7 of 40: loss 1  0:03:30 so far",
        "round 20 of 40: loss 1  0:04:30 so far",
        "round 40 of 40: loss 1  2:01:40 so far",
    ]


def test_where_no_bar_can_be_drawn_a_run_is_told_of_in_plain_lines(tmp_path: Path, clock: list[float]) -> None:
    (console, said), metrics = off_a_terminal(), tmp_path / "metrics.jsonl"
    with rounds_progress(console, metrics, 40, CLAIM):
        written(metrics, 3)
        clock[0] += 61
    assert said.getvalue() == (
        "round 3 of 40: loss 0.500  accuracy 0.750  ε 1.01 at δ 0.00001 per record  0:01:01 so far\n"
    )
    (console, said) = off_a_terminal()
    with rounds_progress(console, metrics, 40, CLAIM):
        written(metrics, 12)  # in less than a minute
    assert said.getvalue() == ""


def test_a_disk_that_fails_costs_a_line_and_not_the_run(tmp_path: Path) -> None:
    shown: list[int] = []
    with followed(tmp_path, lambda done, _: shown.append(done)):  # a folder cannot be read as a file is
        pass
    assert shown == []


def test_where_no_bar_can_be_drawn_the_file_is_looked_at_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run does with its disk does not hang on how fast it is."""
    looks: list[bool] = []
    monkeypatch.setattr(progress.Newest, "look", lambda _, again=False: looks.append(again))
    with rounds_progress(off_a_terminal()[0], tmp_path / "metrics.jsonl", 40, CLAIM):
        threading.Event().wait(0.7)
    assert looks == [True]


def test_where_no_bar_can_be_drawn_steps_are_told_of_too(clock: list[float]) -> None:
    console, said = off_a_terminal()
    with steps_progress(console, 30) as watching:
        for name in ("correct code", "no noise", "no clip"):
            watching(name)
            clock[0] += 100
    assert said.getvalue() == "step 1 of 30: next is no noise  0:01:40 so far\n"


@pytest.mark.parametrize(
    ("more", "claim"),
    [
        ({}, ["ε 1.01 at δ 0.00001 per record"]),
        ({"epsilon": {"north": 12345.678}}, ["ε 12,345.68 at δ 0.00001 per record"]),
        ({"noise": "experiment"}, ["ε 1.01 at δ 0.00001 per record", "if the noise were secret"]),
        ({"summed": 2000, "seconds": 0.5}, ["ε 1.01 at δ 0.00001 per record", "4,000 silos/s"]),
        ({"epsilon": {"north": None}, "noise": "none-unsafe"}, ["ε no bound computed", "NO NOISE: protects nobody"]),
    ],
)
def test_a_bar_of_80_columns_has_room_for_the_claim(tmp_path: Path, more: dict[str, object], claim: list[str]) -> None:
    said, metrics = io.StringIO(), tmp_path / "metrics.jsonl"
    console = Console(file=said, force_terminal=True, width=80, height=25, color_system=None)
    with rounds_progress(console, metrics, 1000, CLAIM):
        written(metrics, 999, **more)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.getvalue())
    for part in ("999/1000", "loss 0.500  accuracy 0.750", *claim):
        assert part in shown
    assert "…" not in shown
    assert all(len(line) <= 80 for line in re.split("[\r\n]", shown))


def test_a_claim_names_delta_and_whose_it_is() -> None:
    of_person = ['privacy.unit="person"', "privacy.max_records=4", "privacy.delta=1e-5", "privacy.silo.left.delta=1e-6"]
    assert claimed(read_scenario("quickstart", of_person)) == "δ up to 0.00001 per person"
    assert line_in_words(LINE, claimed(read_scenario("quickstart"))).endswith("ε 1.01 at δ 0.001 per record")
