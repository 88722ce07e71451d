"""What a silo accepts of what a server shows it: the cohort, the survivors, and who signed them.

Functions of messages, of the policy and the roster, and of what the silo holds itself. They change nothing, so that a
stage can refuse before it does anything (`fedmodel.secagg.silo`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from fedmodel.errors import AggregationRefused, Rule
from fedmodel.secagg.messages import Advert, Commit, Kind, MessageScope, survivors_digest
from fedmodel.secagg.parameters import Setting
from fedmodel.secagg.state import RoundState, WindowState


def checked_cohort(
    place: MessageScope, adverts: Sequence[bytes], number: int, own: bytes
) -> dict[int, tuple[Advert, bytes]]:
    """Return the cohort's adverts by number, each with its bytes, after a check of every rule about them.

    Args:
        place: The window's.
        adverts: As they came.
        number: The silo's own.
        own: The ADVERT that it sent.

    Raises:
        AggregationRefused: When they are too many, a silo or a key is there twice, or `own` is missing or changed.
    """
    roster = place.setting.roster
    if len(adverts) > len(roster):
        raise AggregationRefused(Rule.COHORT, f"{len(adverts)} adverts, where the roster has {len(roster)}")
    told: dict[int, tuple[Advert, bytes]] = {}
    owners: dict[bytes, int] = {}
    for data in adverts:
        advert = Advert.read(data, place)
        if advert.sender in told:
            raise AggregationRefused(Rule.DUPLICATE, f"silo {advert.sender} is in the cohort twice")
        told[advert.sender] = advert, data
        advert.check_keys()
        for key in (advert.transport, *advert.mask_keys):
            other = owners.setdefault(key, advert.sender)
            if number in (other, advert.sender) and other != advert.sender:
                raise AggregationRefused(Rule.ECHOED_KEY, f"silo {other + advert.sender - number} has our key")
            if other != advert.sender:
                raise AggregationRefused(Rule.DUPLICATE, f"silos {other} and {advert.sender} have one key")
    if number not in told or told[number][1] != own:
        raise AggregationRefused(Rule.OWN_ADVERT, "our own advert is missing or changed")
    return told


def checked_survivors(
    setting: Setting,
    number: int,
    context: bytes,
    survivors: Sequence[int],
    part: tuple[WindowState, RoundState] | None,
) -> bytes:
    """Return the hash of a survivor list U3 that a silo can accept.

    Args:
        setting: The round's.
        number: The silo's own.
        context: ctx, as the list is said to be in.
        survivors: U3.
        part: What the silo holds of the window and of the round; None where it has no part in it.

    Raises:
        AggregationRefused: When the list is not ascending, has too few of the roster or strangers in it, belongs to
            another context, or names the silo where it sent nothing or did not mask with another survivor.
    """
    alive, policy = set(survivors), setting.policy
    fits = list(survivors) == sorted(alive) and alive <= set(range(1, len(setting.roster) + 1))
    if not fits or len(alive) < policy.n_min or len(context) != 32:
        raise AggregationRefused(
            Rule.SURVIVORS, f"{len(alive)} survivors, where policy asks for {policy.n_min} of the roster"
        )
    if part is None:
        if number in alive:
            raise AggregationRefused(Rule.SURVIVORS, "we are listed as a survivor of a round we have no part in")
        return survivors_digest(survivors)
    window, held = part
    if not alive <= set(window.cohort) or (held.context is None and number in alive):
        raise AggregationRefused(Rule.SURVIVORS, "a survivor is not of the cohort, or sent nothing")
    if held.context is not None:
        if held.context != context.hex():
            raise AggregationRefused(Rule.CONTEXT, "others masked in another context: another model, or other rules")
        strangers = alive & set(window.peers) - set(held.masked_with)
        if strangers and number in alive:
            raise AggregationRefused(Rule.NOT_MASKED_WITH, f"silo {min(strangers)} survives, and we did not")
    return survivors_digest(survivors)


def check_quorum(place: MessageScope, context: bytes, told: bytes, commits: Sequence[bytes]) -> None:
    """Refuse a list that too few silos of the roster signed. Only as many signatures are verified as are needed.

    Args:
        place: The round's.
        context: ctx, as it must be in each COMMIT.
        told: The hash of the list, as it must be in each.
        commits: As they came.

    Raises:
        AggregationRefused: When a COMMIT is of another list or context, or no quorum signed.
    """
    roster, policy = place.setting.roster, place.setting.policy
    bound = roster.digest + place.header(Kind.COMMIT, 0, 0)
    _check_signed(_Signed(place, bound, context, told, tuple(commits[: len(roster)]), policy.quorum(roster)))


@dataclass(frozen=True)
class _Signed:
    """What is to be signed, and COMMITs of it; two are equal that are of one place and the very same bytes.

    Attributes:
        place: Where the COMMITs belong.
        bound: All of it that they are bound to: the roster, and what a header says.
        context: As it must be in each.
        survivors: The hash of the list, as it must be in each.
        commits: As they came.
        needed: How many silos have to sign.
    """

    place: MessageScope = field(compare=False)
    bound: bytes
    context: bytes
    survivors: bytes
    commits: tuple[bytes, ...]
    needed: int


@lru_cache(maxsize=16)
def _check_signed(asked: _Signed) -> None:
    """Refuse too few signatures; the very same ones that were enough are not read again by this process."""
    signers: set[int] = set()
    for data in asked.commits:
        commit = Commit.read(data, asked.place)
        if (commit.context, commit.survivors) != (asked.context, asked.survivors):
            raise AggregationRefused(Rule.TWO_FACED, f"silo {commit.sender} signed another list or context")
        signers.add(commit.sender)
        if len(signers) >= asked.needed:
            return
    raise AggregationRefused(Rule.QUORUM, f"{len(signers)} silos signed, where {asked.needed} are needed")
