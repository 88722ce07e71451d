"""Which silo this process acts for, and where its own things are.

The scenario comes with the run's configuration, which is the server's word. What the silo insists on is in its kit,
`silo.toml`: `clients.policy` holds every message to it before anything is done for it.

Where a silo's things lie is its node's word: `home` in the node's configuration, which its own operator starts it with.
A deployed silo's home is its kit: law, identity, ledger and log all lie there, and its name and device are what its own
law says. A simulated silo has none, and takes the run's folder, which `simulate` marked as one of simulated silos; any
other folder that the server names is refused, since it could hold another law, or last week's.

A run is known by the number that the server gives it (`run` in its configuration, which the server's signature on every
request binds), since Flower's own is another once a run was taken up again; where none is given, by Flower's.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from flwr.app import Context

from clients import policy
from clients.aggregation_state import answer, answered, protocol
from clients.outbox import Outbox, outbox
from clients.sources import Source
from fedmodel import plans
from fedmodel.config import Scenario, scenario_from_json
from fedmodel.crypto.sealed import opener_from_secret
from fedmodel.data import (
    Cache,
    Records,
    check_deployed,
    deployed_records,
    read_handed_out,
    read_withdrawn,
    silo_records,
)
from fedmodel.errors import ConfigError, FedmodelError, PolicyRefused, ProtocolError
from fedmodel.kinds import bases, own_code
from fedmodel.kinds.own_calls import failed
from fedmodel.ledger import Asked, Ledger, Scope, Standing, opened
from fedmodel.privacy.events import Event
from fedmodel.privacy.plan import SiloPlan
from fedmodel.provision import SIMULATED, Kit, bases_of, is_kit, is_sealed, read_kit, read_law, scenario_hash, unlocked
from fedmodel.secagg import Participant as Protocol
from fedmodel.system.counts import counted
from fedmodel.system.inert import indented, inert

HELD: Final = timedelta(hours=1)
"""For how long a deployed silo holds a reservation of which nothing is charged, when another run asks.

From joining to the first charge a run takes minutes. One that takes longer keeps its reservation all the same, as long
as no other run asks for the budget; and where one did, it reserves again, or is refused.
"""


@dataclass(frozen=True)
class Silo:
    """One silo in one run.

    Attributes:
        name: The silo's name in the scenario.
        scenario: What is to be done.
        run: The run's identifier, as the ledger keeps it.
        device: "cpu", "cuda", "cuda:N" or "auto".
        home: The folder under which the silo's ledger and log lie.
        folder: Where its law, its keys and its state are: `home` itself, or a simulated silo's part of it.
        processes: In how many processes it trains; a simulated one in one.
    """

    name: str
    scenario: Scenario
    run: str
    device: str
    home: Path
    folder: Path
    processes: int = 1

    @classmethod
    def from_context(cls, context: Context) -> Self:
        """Read who this is from the configuration of run and node.

        Raises:
            ConfigError: When the configuration does not say, or there is no kit.
        """
        scenario = scenario_from_json(str(context.run_config.get("scenario")))
        run, home = _run_of(context), context.node_config.get("home")
        if home and (kit := Path(str(home))) and is_kit(kit):
            law = read_law(kit)
            return cls(law.name, scenario, run, law.device, kit, kit, law.processes)
        run_dir, device = (context.run_config.get(key) for key in ("run-dir", "device"))
        if not home and not (Path(str(run_dir)) / SIMULATED).is_file():
            raise ConfigError("this node's configuration names no home; start it with home=FOLDER, its own")
        run_dir = home or run_dir
        if not run_dir or device in (None, "", "auto"):
            raise ConfigError("the run's configuration names no run-dir and device; start it with `fedmodel simulate`")
        names = scenario.federation.silos
        number = context.node_config.get("partition-id")
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise ConfigError(f"this node's partition-id is {number!r}; the scenario has silos 0 to {len(names) - 1}")
        folder = Path(str(run_dir))
        return cls(names[number], scenario, run, str(device), folder, folder / "silos" / names[number])

    def open_own_code(self, folder: str) -> None:
        """Open this process to code of a user's own: a simulation's to all of it, a silo's to what its law lists.

        Args:
            folder: Where the simulation's scenario lies, by the run's configuration; a deployed silo does not look.
        """
        if self.simulated:
            own_code.keep_open(Path(folder) if folder else None)
        else:
            own_code.open_to(self.kit.law.packages, policy.own_code(self.kit.law.packages))

    def know_bases(self, folder: str) -> None:
        """Have this process know where bases lie: a simulation's by its run, a silo's by what its law says.

        Args:
            folder: Where the base lies that a simulation's scenario is built on; a deployed silo does not look.
        """
        if not self.simulated:
            bases.lie_at(self.kit.law.bases, self.folder)
        elif folder:
            bases.lie_at(dict.fromkeys(bases_of(self.scenario), folder), self.home)

    def check_base(self) -> None:
        """Refuse to take part where the base that the scenario is built on is not here to the byte.

        Raises:
            ConfigError: What is there instead.
        """
        for sha256 in bases_of(self.scenario):
            bases.base_of(sha256)

    @cached_property
    def simulated(self) -> bool:
        """Whether it is one of a simulation's own silos: keys that lie open, in a run's folder that is marked as one.

        A deployed silo's home is its kit, whatever that holds. It is looked at once for each message.
        """
        return self.folder != self.home and (self.home / SIMULATED).is_file() and not is_sealed(self.folder)

    @cached_property
    def kit(self) -> Kit:
        """What this silo was handed before the run began.

        Raises:
            ConfigError: When it is missing, or is another silo's.
        """
        kit = read_kit(self.folder)
        if kit.law.name != self.name:
            raise ConfigError(f"{self.folder}: the kit is silo {kit.law.name!r}'s, not {self.name!r}'s")
        return kit

    def check_joined(self) -> None:
        """Refuse keys for a run that the silo never joined: what it holds of others is given up for them.

        Raises:
            ProtocolError: When it did not.
        """
        with self.ledger() as ledger:
            self._check_joined(ledger)

    def _check_joined(self, ledger: Ledger) -> None:
        if not ledger.knows(self.run):
            raise ProtocolError("this silo has not joined the run; a silo joins before it takes part in a stage")

    @contextmanager
    def protocol(self) -> Iterator[Protocol]:
        """Open this silo's side of secure aggregation; what became of it is on disk when the block ends.

        Raises:
            PolicyRefused: When the silo's own law has secure aggregation off.
        """
        self._check_masks()
        with self.ledger() as ledger, protocol(self.kit, self.folder, self.run_number, ledger) as silo:
            yield silo

    def answer(
        self,
        asked: bytes,
        act: Callable[[Protocol], bytes],
        then: Callable[[Protocol, bytes], bytes] | None = None,
    ) -> bytes:
        """Do a stage of secure aggregation once; the very same question again gets the very same bytes.

        Args:
            asked: Hash of all that was asked.
            act: Does the stage, and returns its answer.
            then: Does a second stage after the first one's answer, and returns both.

        Raises:
            PolicyRefused: When the silo's own law has secure aggregation off.
            ProtocolError: When the silo did not join the run: a witness of its lists did, too.
        """
        self._check_masks()
        with self.ledger() as ledger:
            self._check_joined(ledger)
            return answer(self.kit, self.folder, self.run_number, ledger, asked, act, then)

    def answered(self, asked: bytes) -> bytes | None:
        """Return the answer to a stage of secure aggregation, or None if it is not the last stage that was done.

        Raises:
            PolicyRefused: When the silo's own law has secure aggregation off.
        """
        self._check_masks()
        with self.ledger() as ledger:
            return answered(self.kit, self.folder, self.run_number, ledger, asked)

    def check_aggregates(self) -> None:
        """Refuse where this silo's own keys, roster and law would keep it from secure aggregation, where it is on.

        Nothing is written: what it holds of another run stays.

        Raises:
            AggregationRefused: When its law does not allow the roster, or it is not in it.
        """
        if self.kit.law.encryption.secure_aggregation == "on":
            Protocol(self.kit.identity, self.kit.roster, self.kit.policy, self.run_number)

    def _check_masks(self) -> None:
        if self.kit.law.encryption.secure_aggregation != "on":
            raise PolicyRefused("silo.toml has secure aggregation off, so no stage of it is taken part in")

    @property
    def run_number(self) -> int:
        """The run, as 64 bits."""
        return int(self.run)

    @property
    def plan(self) -> SiloPlan:
        """What this silo is asked to do, in the first phase of training where lots grow."""
        return self.scenario.plan(self.name)

    def records(self) -> Records:
        """Return this silo's records, none of a person who withdrew or was handed out. Sensitive.

        How many there are is compared with nothing that the server chooses: an answer that hung on it would be a free
        comparison of a private count. The divisor of the sums is public and need not bound it.
        """
        if not is_sealed(self.folder):
            return silo_records(self.scenario, self.name)
        own = unlocked(self.folder)
        opener = opener_from_secret(own.age_secret)
        cache = Cache(self.folder / "cache", (own.recipient,), opener, self.run)
        handed = read_handed_out(self.folder, opener)
        withdrawn = read_withdrawn(self.folder, opener)
        return deployed_records(self.scenario, self.kit.law, self.folder, cache, withdrawn, handed)

    def check_data(self) -> None:
        """Refuse where this silo's table could not be opened, or has other columns than the scenario declares.

        No record is read. A simulation's tables are read when its silos join.
        """
        if is_sealed(self.folder):
            check_deployed(self.scenario, self.kit.law, self.folder)

    def ledger(self) -> AbstractContextManager[Ledger]:
        """Open this silo's ledger."""
        path = ledger_path(self.home, self.name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return opened(path, self.name, self.kit.identity, self.folder / "ledger.head")

    def reserve(self, ledger: Ledger, event: Event, name: str = "", besides: Sequence[Event] = ()) -> Event:
        """Reserve the run's plan under this silo's budget, all of it or, where its law says so, what is paid for.

        Args:
            ledger: The silo's, open.
            event: The plan.
            name: What the server calls the run.
            besides: What comes beside the plan; it is reserved in full, or nothing is.

        Raises:
            PrivacyBudgetExceeded: When nothing of it is.
            PolicyRefused: When the records are another budget's too. What lapsed is given back before, so that only
                what was charged, or can yet be, is in the way.
        """
        source = self._source(self._scope(ledger))
        reserved = ledger.reserve(self._asked(ledger, source, event, besides, name))
        if source is not None:
            source.remember(ledger, self.run)
        return reserved

    def check_reserves(self, ledger: Ledger, event: Event, besides: Sequence[Event] = ()) -> None:
        """Refuse what `reserve` would refuse now; nothing is entered.

        Raises:
            PrivacyBudgetExceeded: When nothing of the plan is paid for.
            PolicyRefused: When the records are another budget's too.
        """
        ledger.check_reserves(self._asked(ledger, self._source(self._scope(ledger)), event, besides))

    def _asked(
        self, ledger: Ledger, source: Source | None, event: Event, besides: Sequence[Event], name: str = ""
    ) -> Asked:
        """Return what this silo asks of its ledger for the run."""
        return Asked(
            self._scope(ledger),
            self.run,
            event,
            self.plan.steps_per_round,
            scenario=scenario_hash(self.scenario).hex(),
            # Of lots that grow the first rounds alone would be another schedule than the scenario's.
            partial=self._in_part and not self.scenario.training.lots,
            besides=tuple(besides),
            held=self.held,
            name=name,
            check=self._counted_once(ledger, source),
        )

    def _counted_once(self, ledger: Ledger, source: Source | None) -> Callable[[Standing], None]:
        """Look at the files, and return what refuses, by where the ledger stands, a budget of another's records."""
        telling = set() if source is None else source.look()

        def check(standing: Standing) -> None:
            self._check_nothing_is_forgotten(lambda: standing)
            if source is not None:
                source.check_marks(telling, ledger, standing)

        return check

    def _check_nothing_is_forgotten(self, standing: Callable[[], Standing]) -> None:
        """Read the whole ledger, which grows with every round, only where the law asks what it says."""
        law = self.kit.law
        if law.budgets[policy.budget_scope(law, self.plan.data).data].covers is not None:
            policy.check_nothing_is_forgotten(law, standing())

    @property
    def _in_part(self) -> bool:
        """Whether this silo's law lets a run begin that its budget does not pay to the end."""
        budget = self.kit.law.budget_of(self.plan.data)
        return budget is not None and budget.partial_runs

    @property
    def held(self) -> timedelta | None:
        """For how long a run's reservation is held untouched; a simulation's for ever, since its folder has one run."""
        return None if self.simulated else HELD

    def reserved(self, ledger: Ledger, part: int = 0) -> Event:
        """Return a part of what this run reserved, as it may be charged for under the law as it is now.

        Args:
            ledger: The silo's, open.
            part: Training's phases come first, from 0, and then the jobs besides it, in the scenario's order.

        Raises:
            ProtocolError: When the silo did not join the run, joined it for another scenario, or did not reserve that
                part as the scenario asks for it.
            LedgerError: When its budget is another by now.
            PolicyRefused: When the law does not allow the plan any more, or the records are another budget's too.
        """
        found, scope = ledger.reservation(self.run), self._scope(ledger)
        if found is None and ledger.knows(self.run):
            raise ProtocolError("what this silo reserved for the run was given back; it trains once it joined again")
        if found is None:
            raise ProtocolError("this silo has not joined the run; a silo joins before it trains")
        if (found.scope, found.scenario) != (scope.name, scenario_hash(self.scenario).hex()):
            raise ProtocolError("this silo joined the run for another scenario than the one that is sent now")
        self._check_nothing_is_forgotten(ledger.standing)
        ledger.check_scope(scope)
        if (source := self._source(scope)) is not None:
            source.check(ledger)
            source.remember(ledger, self.run)
        for one in found.parts:
            policy.check_event(self.kit.law, one, simulated=self.simulated)
        beside = plans.parts_beginning(self.scenario, self.name, found.plan)[1:]
        if found.parts[1:] != beside:
            raise ProtocolError(
                f"the run reserved {counted(len(found.parts) - 1, 'part')} beside the first, and not the {len(beside)}"
                " that the scenario asks for, each at its own rate; what was not reserved is not answered"
            )
        pipeline = plans.pipeline_event(self.plan, found.plan)
        policy.check_noise_levels(self.kit.law, self.scenario, pipeline)
        return found.parts[part]

    def _scope(self, ledger: Ledger) -> Scope:
        """Return this run's budget; an order that the law does not say is the one that the ledger has."""
        law = self.kit.law
        scope = policy.budget_scope(law, self.plan.data)
        budget, known = law.budgets[scope.data], ledger.scope(scope.name)
        return scope if known is None or budget.order is not None else replace(scope, order=known.order)

    def _source(self, scope: Scope) -> Source | None:
        """Return what the records are read from; None of a simulated silo, which has no tables of its own."""
        if not is_sealed(self.folder):
            return None
        return Source(self.kit.law, self.folder, self.plan.data, scope, self.kit.identity)

    def outbox(self) -> AbstractContextManager[Outbox]:
        """Open this silo's outbox; whoever else would, waits."""
        return outbox(self.kit, self.folder)

    def begin_outbox(self, ledger: Ledger) -> None:
        """Say in the outbox that no update was ever made, where nothing was ever charged.

        Else a missing outbox could be that of a silo that was restored, and what left it be taken for what never did.
        """
        if not ledger.was_charged():
            with self.outbox() as outbox:
                if not ledger.was_charged():  # by another process, meanwhile
                    outbox.begin()

    def log(self, action: str, error: Exception) -> None:
        """Write what went wrong into this silo's own log.

        Guarantee: where the scenario names own code, nothing of the text of an exception that is no refusal is written,
        nor a trace: that code is given records, and what it raises could hold one. Its type and the place are.
        """
        uses = self.scenario.silos_code.values()
        if uses and not isinstance(error, FedmodelError):
            self.note(action, f"{failed(error, uses)}; what it says is not written, since it could name a record")
            return
        self.note(action, f"{type(error).__name__}: {error}")
        # A refusal's message says it all; anything else needs its trace.
        if not isinstance(error, FedmodelError):
            self._write(indented("".join(traceback.format_exception(error)).rstrip("\n")))

    def note(self, action: str, found: str) -> None:
        """Write a line into this silo's own log, a file that nothing else writes to.

        Python's logging is not used: its handlers print what they cannot write to standard error, which Flower's
        simulation shows on the server's side.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._write(inert(f"{time} {action}: {found}"))

    def _write(self, text: str) -> None:
        path = self.home / "logs" / f"{self.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def _run_of(context: Context) -> str:
    """Return a run's number, 64 bits in decimal, as the server gives it, or as Flower does."""
    given = context.run_config.get("run") or int(context.run_id) % 2**64
    if not str(given).isascii() or not str(given).isdecimal() or not 0 < int(given) < 2**64:
        raise ConfigError("the run's configuration gives it a number that is not one of 64 bits")
    return str(int(given))


def ledger_path(home: Path, silo: str) -> Path:
    """Return where a silo's ledger lies."""
    return home / "ledgers" / f"{silo}.sqlite"
