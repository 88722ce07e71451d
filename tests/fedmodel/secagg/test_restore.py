"""A state that is lost, or put back from a backup, at any moment: no act is done a second time in another way.

Each test is a server that does what it likes with a silo of an older memory, in a federation in which everybody else
signs whatever it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from fedmodel.errors import AggregationRefused, Rule
from fedmodel.secagg import Progress, Window
from fedmodel.secagg.messages import Commit, MessageScope, cohort_digest_of, survivors_digest
from tests.fedmodel.secagg.peers import MODEL, RULES, RUN, Federation, collect_adverts, refusal, words_of

SILO, ALL, OTHERS, FEWER = 5, (1, 2, 3, 4, 5, 6), (1, 2, 3, 4), (1, 2, 3, 5)
WINDOW, NEXT = Window(RUN, 1, 1, 2), Window(RUN, 3, 1, 2)
OTHER_MODEL = b"n" * 32


@dataclass
class Life:
    """One silo through a window of two rounds: what it sent, and its state after each stage."""

    federation: Federation
    adverts: list[bytes]
    dealt: dict[int, list[bytes]]
    context: dict[int, bytes]
    states: list[bytes | None] = field(default_factory=lambda: [None])
    known: list[Progress] = field(default_factory=lambda: [Progress()])
    stages: list[str] = field(default_factory=lambda: ["nothing"])
    sent: dict[str, bytes] = field(default_factory=dict)

    def stage(self, name: str, call: Callable[[], object]) -> None:
        answer = call()
        if isinstance(answer, bytes):
            self.sent[name] = answer
        elif name == "deal":
            assert isinstance(answer, list)
            self.sent[name] = b"".join(answer)
        self.stages.append(name)
        self.states.append(self.federation.states[SILO])
        self.known.append(self.federation.ledgers[SILO])

    def commits(self, number: int, survivors: Sequence[int], context: bytes) -> list[bytes]:
        """Return everybody else's signature on a list: all of them work with the server."""
        place = MessageScope(self.federation.setting(WINDOW), number)
        message = survivors_digest(survivors)
        return [Commit(n, context, message).sign(place, self.federation.identities[n]) for n in ALL if n != SILO]

    def back(self, copy: int, now: int) -> None:
        """Put a copy of the state in the place of that of a later moment."""
        self.federation.states[SILO], self.federation.ledgers[SILO] = self.states[copy], self.known[now]


def lived(*, masks: bool = True) -> Life:
    """Bring a silo through a window; one that never masks signs and reveals all the same."""
    federation = Federation(6)
    call = federation.call
    advert = call(SILO, "advert", WINDOW)
    after_advert = federation.states[SILO]
    _, adverts, _ = collect_adverts(federation, WINDOW, gone={})
    dealt: dict[int, list[bytes]] = {n: call(n, "deal", adverts) for n in ALL if n != SILO}
    life = Life(federation, adverts, dealt, {})
    federation.states[SILO] = after_advert
    life.stage("advert", lambda: advert)
    life.stage("deal", lambda: call(SILO, "deal", adverts))
    mine = [share for n in ALL if n != SILO for share in dealt[n] if share[64:68] == SILO.to_bytes(4, "big")]
    life.stage("receive", lambda: call(SILO, "receive", mine))
    setting = federation.setting(WINDOW)
    cohort = cohort_digest_of(setting, adverts)
    for number in (1, 2):
        life.context[number] = context = setting.context(number, cohort, MODEL, RULES)
        list_ = FEWER if masks else OTHERS
        if masks:
            life.stage(f"mask {number}", lambda n=number: call(SILO, "mask", n, words_of(32, 8, n), MODEL, RULES))
        life.stage(f"commit {number}", lambda n=number, c=context, u=list_: call(SILO, "commit", n, 1, c, u))
        signed = life.commits(number, list_, context)
        life.stage(
            f"reveal {number}", lambda n=number, c=context, u=list_, s=signed: call(SILO, "reveal", n, 1, c, u, s)
        )
    life.stage("advert 3", lambda: call(SILO, "advert", NEXT))
    return life


def hostile_acts(life: Life) -> list[tuple[str, str, tuple[object, ...]]]:
    """Return whatever a server could ask for, in other ways than it was asked for before."""
    fewer = [advert for number, advert in enumerate(life.adverts, start=1) if number != 6]
    acts: list[tuple[str, str, tuple[object, ...]]] = [("deal", "deal", (fewer,)), ("advert", "advert", (WINDOW,))]
    for number in (1, 2):
        acts.append((f"mask {number}", "mask", (number, words_of(32, 8, 77), MODEL, RULES)))
        acts.append((f"mask {number}", "mask", (number, words_of(32, 8, 77), OTHER_MODEL, RULES)))
        for survivors in (ALL, OTHERS, FEWER, (1, 2, 3)):
            context = life.context[number]
            acts.append((f"commit {number}", "commit", (number, 1, context, survivors)))
            signed = life.commits(number, survivors, context)
            acts.append((f"reveal {number}", "reveal", (number, 1, context, survivors, signed)))
    return acts


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "never masked"])
def test_no_older_copy_put_back_at_any_moment_answers_in_another_way(masks: bool) -> None:
    life = lived(masks=masks)
    acts, tried, again = hostile_acts(life), 0, 0
    for now in range(1, len(life.states)):
        done = set(life.stages[: now + 1])
        for copy in range(now):
            for name, stage, arguments in acts:
                life.back(copy, now)
                try:
                    answer = life.federation.call(SILO, stage, *arguments)
                except AggregationRefused:
                    tried += 1
                    continue
                if name in done and name != "advert":
                    sent = b"".join(answer) if isinstance(answer, list) else answer
                    assert sent == life.sent[name], (life.stages[now], life.stages[copy], name, arguments)
                    again += 1
    assert tried > 700
    assert again > 0  # a REVEAL for the one list that was signed is the same bytes


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "never masked"])
def test_what_was_put_back_is_refused_by_name_and_is_back_with_the_next_window(masks: bool) -> None:
    life = lived(masks=masks)
    for now in range(2, len(life.states) - 1):
        for copy in range(now):
            if life.known[copy] == life.known[now]:
                continue  # nothing that must stay done was done since
            life.back(copy, now)
            number = life.known[now].round
            asked = (number, 1, life.context[number], FEWER)
            assert refusal(life.federation.call, SILO, "commit", *asked) is Rule.STALE
            assert refusal(life.federation.call, SILO, "reveal", *asked, []) is Rule.STALE
            assert refusal(life.federation.call, SILO, "check_can_mask", 2) is Rule.STALE
            assert refusal(life.federation.call, SILO, "deal", life.adverts) is Rule.STALE
            assert refusal(life.federation.call, SILO, "receive", []) is Rule.STALE
            if number == 1:  # a witness of later rounds it may be
                assert life.federation.call(SILO, "commit", 2, 1, life.context[2], OTHERS)
                told = refusal(life.federation.call, SILO, "commit", 2, 1, life.context[2], (1, 2, 3))
                assert told is Rule.TWO_FACED
                assert refusal(life.federation.call, SILO, "reveal", 2, 1, life.context[2], OTHERS, []) is Rule.STALE
            assert life.federation.call(SILO, "advert", NEXT)
            assert not life.federation.silo(SILO).is_put_back


def test_a_witness_without_any_state_signs_no_second_list() -> None:
    """It has no window: all that it does is sign, and its ledger alone remembers that."""
    federation = Federation(6)
    context = bytes(range(32))
    assert federation.call(SILO, "commit", 1, 1, context, OTHERS)
    federation.states[SILO] = None
    for survivors in (OTHERS, (1, 2, 3)):
        assert refusal(federation.call, SILO, "commit", 1, 1, context, survivors) is Rule.STALE
    assert federation.call(SILO, "commit", 2, 1, context, OTHERS)


def test_without_commits_a_reveal_is_remembered_as_well() -> None:
    federation = Federation(6, consistency="quorum")
    opened = [federation.call(number, "advert", WINDOW) for number in ALL]
    dealt = {number: federation.call(number, "deal", opened) for number in ALL}
    mine = [share for n in ALL if n != SILO for share in dealt[n] if share[64:68] == SILO.to_bytes(4, "big")]
    federation.call(SILO, "receive", mine)
    before, context = federation.states[SILO], bytes(range(32))
    assert federation.call(SILO, "reveal", 1, 1, context, OTHERS, [])
    federation.states[SILO] = before
    assert refusal(federation.call, SILO, "reveal", 1, 1, context, (1, 2, 3), []) is Rule.STALE


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"round": 0}, "none"),
        ({"attempt": 70000}, "none"),
        ({"masked": 1}, "none"),
        ({"signed": "AA" * 64}, "none"),
        ({"signed": "aa"}, "32 bytes"),
        ({"dealt": "aa"}, "32 bytes"),
        ({"masked": False}, "at least one act"),
        ({"more": 1}, "says round"),
    ],
)
def test_what_tells_of_no_progress_is_refused(fields: dict[str, object], words: str) -> None:
    told = Progress(3, 1, masked=True).to_fields()
    assert Progress.from_fields(told) == Progress(3, 1, masked=True)
    with pytest.raises(ValueError, match=words):
        Progress.from_fields({**told, **fields})
