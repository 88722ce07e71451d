"""Forks answer, what is raised in one is raised here, and none waits for a thread that it does not have."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from fedmodel.errors import DataError, FedmodelError
from scenarios.simulation import forks
from scenarios.simulation.forks import Forks

CPU = torch.device("cpu")


class TwoWordsError(Exception):
    """One that does not come through a pipe: it is made of more than its words."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


@contextmanager
def two(answer: Callable[[Any], Any]) -> Iterator[Forks]:
    """Two processes that answer alike."""
    made = Forks(nullcontext(answer) for _ in range(2))
    try:
        yield made
    finally:
        made.close()


def asked(made: Forks, *questions: object) -> list[Any]:
    made.put(questions, "the run ends")
    return made.answers()


def divided(number: int) -> int:
    if number > 9:
        raise TwoWordsError("too", "large")
    if number < 0:
        raise DataError("found a number below 0")
    return 12 // number


def test_each_process_answers_its_own_question_again_and_again() -> None:
    with two(divided) as made:
        assert asked(made, 3, 4) == [4, 3]
        assert asked(made, 6, 1) == [2, 12]


def test_what_is_raised_in_a_process_is_raised_here_with_where_and_the_others_go_on() -> None:
    with two(divided) as made:
        with pytest.raises(ZeroDivisionError) as raised:
            asked(made, 3, 0)
        assert "in divided" in raised.value.__notes__[0]
        with pytest.raises(DataError, match=r"^found a number below 0$"):
            asked(made, -1, 3)
        with pytest.raises(RuntimeError, match=r"(?s)in divided.*TwoWordsError: toolarge"):
            asked(made, 10, 3)
        assert asked(made, 6, 2) == [2, 6]


def test_a_process_that_is_gone_is_told_of_with_what_becomes_of_the_run() -> None:
    with two(divided) as made:
        made._processes[0].kill()
        made._processes[0].join()
        with pytest.raises(FedmodelError, match=r"want of memory; the run ends$"):
            asked(made, 3, 4)
        assert made._processes == []


def leaving_a_thread(mark: Path) -> bool:
    """Leave a thread that lives on for a minute, if its process does."""

    def live_on() -> None:
        time.sleep(60)
        mark.touch()

    threading.Thread(target=live_on).start()
    return True


def test_a_run_ends_though_code_in_a_fork_left_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_CLOSES_S", 0.5)
    with two(leaving_a_thread) as made:
        assert asked(made, tmp_path / "one", tmp_path / "two") == [True, True]
        made.end()
    assert list(tmp_path.iterdir()) == []


def test_none_is_forked_where_torch_counts_a_card_though_the_processor_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert forks.are_forked(CPU)
    assert not forks.are_forked(torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert not forks.are_forked(CPU)


def test_none_is_forked_by_a_worker_of_a_pool_which_may_have_no_processes() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(forks.are_forked, (CPU,)) is False


def test_a_process_that_ends_itself_is_told_of_by_its_status() -> None:
    with (
        two(sys.exit) as made,
        pytest.raises(FedmodelError, match=r"with the exit status 3, as by code .*; the run ends$"),
    ):
        asked(made, 3, 3)


class Drawing(logging.Handler):
    """A handler that waits for whoever draws on the terminal."""

    drawn = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        with self.drawn:
            self.format(record)


def test_a_fork_that_is_made_while_a_thread_draws_logs_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.getLogger("server.forks"), Drawing(logging.WARNING)
    handler.setFormatter(logging.Formatter("told: %(message)s"))
    logger.addHandler(handler)
    try:
        with Drawing.drawn:
            made = Forks([nullcontext(lambda told: logger.warning(told))])
        made.put(["a silo failed"], "the run ends")
        assert made._ends[0].poll(60)  # of which it takes some milliseconds
        assert made.answers() == [None]
    finally:
        logger.removeHandler(handler)
        made.close()
    assert "told: a silo failed\n" in capfd.readouterr().err


def test_a_fork_prints_and_logs_though_a_bar_that_is_drawn_stands_in_place_of_both_streams(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's own bar: what is printed beside it waits for the lock that its thread draws under."""
    logger = logging.getLogger("server.forks")
    monkeypatch.setattr(logger, "propagate", False)

    def tells(told: str) -> None:
        print(told)  # noqa: T201 - as code of a user's own may
        print(told, file=sys.stderr)  # noqa: T201
        logger.warning(told)

    with Progress(console=Console(force_terminal=True)) as bar:
        handler = logging.StreamHandler()  # of what stands in place of the stream
        handler.addFilter(lambda record: "secret" not in record.getMessage())
        logger.addHandler(handler)
        try:
            with bar.live._lock:
                made = Forks([nullcontext(tells)])
            for told in ("a silo failed", "a secret"):
                made.put([told], "the run ends")
                assert made._ends[0].poll(60)  # of which it takes some milliseconds
                assert made.answers() == [None]
        finally:
            logger.removeHandler(handler)
            made.close()
    out, error = capfd.readouterr()
    assert "a silo failed\n" in out
    assert error.count("a silo failed\n") == 2
    assert error.count("a secret") == 1


def test_a_fork_logs_to_files_as_the_run_does(tmp_path: Path) -> None:
    logger = logging.getLogger("server.forks")
    handlers = [RotatingFileHandler(tmp_path / "rotating"), logging.StreamHandler((tmp_path / "own").open("a"))]
    for handler in handlers:
        logger.addHandler(handler)
    try:
        with two(logger.warning) as made:
            asked(made, "one", "two")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        handlers[1].stream.close()
    assert [sorted((tmp_path / name).read_text().split()) for name in ("rotating", "own")] == [["one", "two"]] * 2
