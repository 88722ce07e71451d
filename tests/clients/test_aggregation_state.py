"""A silo's state of secure aggregation: on disk before a message leaves, sealed, one process at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import aggregation_state
from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import AggregationRefused, CryptoError, Rule
from fedmodel.ledger import Ledger
from fedmodel.provision import Kit, provision, read_kit
from fedmodel.secagg import Participant, Window

CONTEXT = bytes(range(32))


def ledger_of(folder: Path) -> Ledger:
    kit = read_kit(folder)
    return Ledger(folder / "ledger.sqlite", kit.law.name, kit.identity, folder / "ledger.head")


@contextmanager
def protocol(kit: Kit, folder: Path, run: int) -> Iterator[Participant]:
    with ledger_of(folder) as ledger, aggregation_state.protocol(kit, folder, run, ledger) as silo:
        yield silo


def answer(kit: Kit, folder: Path, run: int, asked: bytes, act: Callable[[Participant], bytes]) -> bytes:
    with ledger_of(folder) as ledger:
        return aggregation_state.answer(kit, folder, run, ledger, asked, act)


@pytest.fixture
def folder(tiny: Scenario, tiny_file: Path, tmp_path: Path) -> Path:
    settings = ["encryption.secure_aggregation=on", "encryption.bound=1.0", "encryption.colluding=0"]
    provision(read_scenario(str(tiny_file), settings), tmp_path)
    return tmp_path / "silos" / "north"


def test_what_a_stage_did_is_there_for_the_next_process(folder: Path) -> None:
    kit = read_kit(folder)
    with protocol(kit, folder, 7) as silo:
        advert = silo.advert(Window(7, 1, 1, 2))
    with protocol(read_kit(folder), folder, 7) as silo:
        assert silo.advert(Window(7, 1, 1, 2)) == advert  # asked again, the same: nothing was dealt
        with pytest.raises(AggregationRefused) as refused:
            silo.mask(1, None, CONTEXT, CONTEXT)  # type: ignore[arg-type]
    assert refused.value.rule is Rule.OUT_OF_ORDER


def test_what_fails_after_a_stage_leaves_the_file_as_it_was(folder: Path) -> None:
    kit = read_kit(folder)
    with protocol(kit, folder, 7) as silo:
        silo.commit(1, 1, CONTEXT, [2, 3])
    path = folder / "aggregation-7.state"
    kept = path.read_bytes()

    def signs_and_fails() -> None:
        with protocol(kit, folder, 7) as silo:
            silo.commit(2, 1, CONTEXT, [2, 3])
            raise RuntimeError("the message never left")

    with pytest.raises(RuntimeError):
        signs_and_fails()
    assert path.read_bytes() == kept
    with protocol(kit, folder, 7) as silo:
        silo.commit(2, 1, CONTEXT, [2, 3])


def test_a_second_signature_is_refused_by_a_process_that_starts_anew(folder: Path) -> None:
    with protocol(read_kit(folder), folder, 7) as silo:
        silo.commit(1, 1, CONTEXT, [2, 3])
    with protocol(read_kit(folder), folder, 7) as silo, pytest.raises(AggregationRefused) as refused:
        silo.commit(1, 1, CONTEXT, [2, 3])
    assert refused.value.rule is Rule.TWO_FACED


def test_what_a_killed_process_wrote_half_is_gone_with_the_next(folder: Path) -> None:
    (folder / "aggregation-7.partial").write_bytes(b"sealed secrets")
    with protocol(read_kit(folder), folder, 7):
        pass
    assert not list(folder.glob("*.partial"))


def test_secrets_lie_sealed_on_disk(folder: Path) -> None:
    with protocol(read_kit(folder), folder, 7) as silo:
        silo.advert(Window(7, 1, 1, 2))
        state = json.loads(silo.state())
    secrets = [state["window"]["transport"], *(held[name] for held in state["window"]["rounds"].values()
                                               for name in ("root", "b"))]  # fmt: skip
    assert len(secrets) == len(set(secrets)) == 5
    for path in folder.iterdir():
        written = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in written
            assert bytes.fromhex(secret) not in written
    assert (folder / "aggregation-7.state").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", ["flip", "cut", "another run", "another silo"])
def test_a_state_that_is_not_this_silos_for_this_run_is_refused(change: str, folder: Path) -> None:
    kit = read_kit(folder)
    with protocol(kit, folder, 7) as silo:
        silo.advert(Window(7, 1, 1, 2))
    path = folder / "aggregation-7.state"
    data, run = path.read_bytes(), 7
    if change == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif change == "cut":
        path.write_bytes(data[:40])
    elif change == "another run":
        path.rename(folder / "aggregation-8.state")
        run = 8
    else:
        kit = Kit(kit.law, SigningKey.generate(), kit.roster)
    with pytest.raises(CryptoError), protocol(kit, folder, run):
        pass


def test_what_another_run_left_behind_is_erased_but_for_how_far_it_came(folder: Path) -> None:
    kit = read_kit(folder)
    with protocol(kit, folder, 7) as silo:
        silo.advert(Window(7, 3, 1, 2))
    held = (folder / "aggregation-7.state").read_bytes()
    with pytest.raises(AggregationRefused), protocol(kit, folder, 8) as silo:
        silo.advert(Window(7, 3, 1, 2))  # a window of another run: refused, and nothing is given up for it
    assert (folder / "aggregation-7.state").read_bytes() == held
    with protocol(kit, folder, 8):
        pass
    with protocol(kit, folder, 7) as silo:
        assert json.loads(silo.state())["window"] is None
        with pytest.raises(AggregationRefused):
            silo.advert(Window(7, 3, 1, 2))
        silo.advert(Window(7, 4, 1, 1))


_SIGNER = """
import sys, time
from pathlib import Path
from fedmodel.provision import read_kit
from tests.clients.test_aggregation_state import protocol
folder = Path(sys.argv[1])
with protocol(read_kit(folder), folder, 7) as silo:
    silo.commit(1, 1, bytes(range(32)), [2, 3])
    print("signed", flush=True)
    time.sleep(float(sys.argv[2]))
print("kept", flush=True)
"""


def _sign(folder: Path, pause_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _SIGNER, str(folder), str(pause_s)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def test_two_processes_do_not_act_on_one_state_at_once(folder: Path) -> None:
    first = _sign(folder, 1.0)
    assert first.stdout is not None
    assert first.stdout.readline() == "signed\n"
    second = _sign(folder, 0.0)
    out, error = second.communicate(timeout=300)
    assert first.communicate(timeout=300)[0] == "kept\n"
    assert first.returncode == 0
    assert out == ""
    assert "was signed already" in error


def test_a_process_killed_before_its_state_was_kept_has_said_nothing(folder: Path) -> None:
    """The message is only returned when the block has ended, and then the state is on disk."""
    process = _sign(folder, 60.0)
    assert process.stdout is not None
    assert process.stdout.readline() == "signed\n"
    os.kill(process.pid, signal.SIGKILL)
    assert "kept" not in process.communicate(timeout=300)[0]
    with protocol(read_kit(folder), folder, 7) as silo:  # the lock went with it, or this would wait for ever
        silo.commit(1, 1, CONTEXT, [2, 3])


def test_the_state_is_on_disk_when_the_block_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    ledger = ledger_of(folder)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda one, other: (order.append("replace"), replace(one, other))[1])
    with ledger, aggregation_state.protocol(read_kit(folder), folder, 7, ledger) as silo:
        assert isinstance(silo, Participant)
    assert order == ["fsync", "replace", "fsync"]


ASKED, OTHER = bytes([1] * 32), bytes([2] * 32)


def test_the_very_same_question_gets_the_very_same_bytes_and_no_stage_twice(folder: Path) -> None:
    """The answer may have been lost with the server that waited for it. Another question is another stage."""
    kit = read_kit(folder)

    def commit(silo: Participant) -> bytes:
        return silo.commit(1, 1, CONTEXT, [2, 3])

    signed = answer(kit, folder, 7, ASKED, commit)
    kept = (folder / "aggregation-7.state").read_bytes()
    assert answer(read_kit(folder), folder, 7, ASKED, commit) == signed
    with pytest.raises(AggregationRefused) as refused:
        answer(kit, folder, 7, OTHER, commit)
    assert refused.value.rule is Rule.TWO_FACED
    # What was refused left the answer that there is.
    assert answer(kit, folder, 7, ASKED, lambda _: b"never asked for") == signed
    assert kept != b""


def test_only_the_last_answer_is_kept(folder: Path) -> None:
    kit = read_kit(folder)
    answer(kit, folder, 7, ASKED, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3]))
    answer(kit, folder, 7, OTHER, lambda silo: silo.commit(2, 1, CONTEXT, [2, 3]))
    with pytest.raises(AggregationRefused):
        answer(kit, folder, 7, ASKED, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3]))


def test_a_later_stage_erases_the_answer_of_the_one_before(folder: Path) -> None:
    """A share that was given lies no longer than a next stage at the silo."""
    kit = read_kit(folder)
    answer(kit, folder, 7, ASKED, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3]))
    with protocol(kit, folder, 7) as silo:
        silo.advert(Window(7, 3, 1, 2))
    with pytest.raises(AggregationRefused):
        answer(kit, folder, 7, ASKED, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3]))


def test_an_answer_of_another_run_is_none(folder: Path) -> None:
    kit = read_kit(folder)
    first = answer(kit, folder, 7, ASKED, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3]))
    assert answer(kit, folder, 8, ASKED, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3])) != first
    with protocol(kit, folder, 7) as silo, pytest.raises(AggregationRefused):
        silo.commit(1, 1, CONTEXT, [2, 3])


def test_the_answer_and_the_state_that_it_led_to_are_in_place_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = read_kit(folder)
    with monkeypatch.context() as patch:
        patch.setattr("clients.aggregation_state.replace_file", lambda *_: [][0])
        with pytest.raises(IndexError):
            answer(kit, folder, 7, ASKED, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3]))
    assert answer(kit, folder, 7, OTHER, lambda silo: silo.commit(1, 1, CONTEXT, [2, 3]))
