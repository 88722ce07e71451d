"""What a bar shows of time."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress, TextColumn

from scenarios.runs.progress import BEFORE, _Time


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
