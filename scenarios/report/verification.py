"""What a verification checked, and what it could not check, in words: a line each, none of them silent about a gap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fedmodel.errors import ConfigError
from fedmodel.learning.description import DESCRIPTION
from fedmodel.system.counts import one_or_more
from fedmodel.system.packages import code_hash
from scenarios.report import sentences
from scenarios.report.anchors import Held
from scenarios.report.document import Report
from scenarios.report.gather import SERVER_REPORT, Gathered
from scenarios.report.page import registry, signing
from scenarios.report.page_check import PAGE
from scenarios.runs import words
from scenarios.runs.event_book import BOOK
from scenarios.runs.ledgers import SiloLedger
from scenarios.runs.parts import LedgerHead
from server.run_files import CHARGES

# Of a run's folder, what is read elsewhere or holds keys; files are named by what the report says of them.
_PLACES: Final = (
    *("ledgers", "copies", "server", "silos", "kits", "logs", "server.log", "run.json", "run.lock", "serving.lock"),
    *(signing.NAME, registry.NAME, PAGE, DESCRIPTION),
)

_NO_LEDGER: Final = (
    f"NONE: the run was simulated in one process, which kept a book of its charges, {BOOK}. That the book tells what"
    " happened was NOT checked: nothing in it is signed, and entries that were changed or taken away are not noticed"
)
_NOBODY_SIGNED: Final = "NOT countersigned by any silo, none of which has a key: that this model came of it is a word"


def items(
    gathered: Gathered,
    stored: Report,
    *,
    held: Held,
    given: bool,
    compared: bool,
    not_attacked: str,
    page: str,
    fewer: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """Go through what was checked: what it is, and what was found.

    Args:
        gathered: What the folder says.
        stored: The report, of which everything was found to follow.
        held: Whose keys are known from outside the folder.
        given: Whether the server's key came from outside the folder.
        compared: Whether the model was found to be the one that silos countersigned for.
        not_attacked: What of the audit was not evaluated again; empty where all was.
        page: What `scenarios.report.page_check.check_page` found.
        fewer: Silos that had charged more than they had reported.
    """
    heads = {head.silo: head for head in stored.integrity.ledgers}
    if gathered.booked:
        yield "ledgers", _NO_LEDGER
    for silo, ledger in gathered.ledgers.items():
        if ledger.booked:
            continue
        if ledger.reported:
            yield f"ledger {silo}", _reported(heads.get(silo))
        else:
            yield f"ledger {silo}", "; ".join(_ledger(ledger, heads[silo], anchored=silo in held.silos))
    yield "run's end", _NOBODY_SIGNED if gathered.booked else _countersigned(stored, compared=compared)
    told = "its silo reported" if gathered.reported else "its silo's ledger has"
    told = f"{BOOK} has" if gathered.booked else told
    yield "rounds", f"of every update in a sum, {told} the charge"
    source = "of which they reported rounds" if gathered.reported else "that their ledgers reserved"
    source = f"that {BOOK} has" if gathered.booked else source
    whose = f"{words.counted(len(stored.accounting.silos), 'silo')} follow from the plans {source}"
    if not stored.claim.protects:
        yield "claim", stored.claim.sentence
    yield "epsilon", f"PLD, PRV, RDP and the curve of {whose}"
    less = f"; {', '.join(fewer)} had charged more than the server was told" if fewer else ""
    source = CHARGES if gathered.reported else BOOK if gathered.booked else "the ledgers"
    yield "summary.json", f"its figures of privacy follow from {source}{less}"
    yield "files", ", ".join(file.name for file in stored.integrity.files)
    yield "page", page
    if stored.trust.access != sentences.access(gathered):
        yield "access", "in the words of before, which do NOT tell of rows that a silo may hold out and hand over"
    if stored.audit is not None:
        entries = ", ".join(f"{row.silo} {row.plan_entry} < {row.first_charge_entry}" for row in stored.audit.entered)
        again = not_attacked or "found again from what it saw"
        yield "audit", f"{stored.audit.verdict}; {again}; its plan was entered before the first charge ({entries})"
    unread = [one.silo for one in (stored.purpose.silos if stored.purpose else ()) if one.silo not in gathered.laws]
    if unread:
        yield "who answers", f"NOT compared for {', '.join(unread)}: no law is here, and it is the signer's word"
    here = _code_here(gathered.summary.get("packages", {})) == stored.integrity.code_hash
    yield "code", f"{stored.integrity.code_hash[:16]}..., {'as' if here else 'NOT what is'} installed here"
    whose = (
        "the key that --key gives"
        if given
        else "the key of the server in the authority's roster"
        if held.server is not None
        else f"which {BOOK} names; NOT checked against anything outside this folder: compare that key with that of"
        " whoever ran it, or give it with --key"
        if gathered.booked
        else "whom the silos' laws or the roster in this folder name as the run's server; NOT checked against anything"
        " outside this folder: compare that key with the server's, or give it with --key"
    )
    if gathered.by_silo:
        yield SERVER_REPORT, f"signed by {whose}; every figure of it follows, and silo {gathered.copy_for} agrees"
        whose = f"silo {gathered.copy_for}'s key, which its ledger is signed with; it covers {SERVER_REPORT} too"
    yield "signature", f"of {stored.integrity.signer}, {whose}"
    yield "not compared", "; ".join(_left_out(gathered, stored)) or "nothing else lies here"


def _code_here(packages: Mapping[str, str]) -> str | None:
    """Return the hash of a silo's code as installed here; None where a package that was listed is not."""
    try:
        return code_hash(packages)
    except ConfigError:
        return None


def _reported(head: LedgerHead | None) -> str:
    """Say what is known of a ledger that is not here."""
    kept = "no head of it" if head is None else f"its signed head of {words.counted(head.entries, 'entry', 'entries')}"
    return f"NOT here: the figures are what the silo reported to the server, which kept {kept}"


def _countersigned(stored: Report, *, compared: bool) -> str:
    """Say which silos countersigned the run's end, and what is known of the model that they did it for."""
    found = [(one.silo, one.countersigned) for one in stored.integrity.ledgers if one.countersigned is not None]
    told = [f"no countersignature of silo {silo}" for silo in stored.integrity.not_countersigned]
    if not found:
        return "; ".join(told)
    entries = ", ".join(f"{silo} at entry {one.entry}" for silo, one in found)
    model = found[0][1].model
    here = "which the server names too" if stored.run.copy_for else "which is the model here"
    which = here if compared else "NOT compared: the model lies here sealed; give --model"
    others = [silo for silo, one in found if one.code != stored.integrity.code_hash]
    if others:
        told.append(f"{', '.join(others)} ran OTHER code than the summary says")
    return "; ".join([f"countersigned by {entries}, for model {model}, {which}", *told])


def _ledger(ledger: SiloLedger, head: LedgerHead, *, anchored: bool) -> Iterator[str]:
    """Say how a ledger was found, and by whom it is vouched for."""
    yield f"{words.counted(head.entries, 'entry', 'entries')}, all as they were written"
    if anchored:
        yield "its key is known from outside"
    elif ledger.roster:
        yield "its key is the roster's"
    elif head.key_from == "roster":
        yield "NO roster is here: the report alone says that its key is the roster's"
    else:
        yield "NOBODY ELSE vouches for its key"
    if ledger.heads:
        yield f"no entry of a signed head is missing, as kept by {' and '.join(ledger.heads)}"
    elif head.head is not None:
        known = words.counted(head.head_entries or 0, "entry", "entries")
        yield f"NO head of it is here but the report's own, of {known}"
    else:
        yield "NO signed head of it is here: entries taken away at its end would not be noticed"
    if not ledger.compared:
        yield "its bytes that hold no entry were NOT compared (a log beside it, or another SQLite wrote it)"
    if ledger.newer:
        newer = words.counted(ledger.newer, "newer entry", "newer entries")
        yield f"{newer} {one_or_more(ledger.newer, 'is', 'are')} not in the report"


def _left_out(gathered: Gathered, stored: Report) -> Iterator[str]:
    """Say what lies in the folder and was not held to anything."""
    if gathered.laws:
        yield "silos' laws, but for the server's key, the code and who answers for records"
    known = {*_PLACES, *(file.name for file in stored.integrity.files)}
    others = sorted(one.name for one in gathered.run_dir.iterdir() if one.name not in known)
    ledgers = {f"{silo}.sqlite{end}" for silo in gathered.ledgers for end in ("", "-wal", "-shm")}
    beside = sorted(one.name for one in (gathered.run_dir / "ledgers").glob("*") if one.name not in ledgers)
    others += [f"ledgers/{name}" for name in beside]
    if others:
        yield f"of the folder, {', '.join(others)}"
