"""The plain sentences of a report: what is claimed, who is trusted, what is not protected, what the report leaves open.

Each follows from a run's scenario and figures, so that `report verify` writes it again and compares it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fedmodel.config import Scenario
from fedmodel.privacy.events import EXPERIMENT, IF_HIDDEN, LEFT_OUT, Baseline
from fedmodel.privacy.rounding import down, percent_up, small, up
from fedmodel.provision import bases_of
from scenarios.report.document import SecureAggregation, Seen, SiloAccounting, SiloClaim
from scenarios.report.gather import Gathered
from scenarios.report.page import odds
from scenarios.report.page.told import factor
from scenarios.runs import words
from scenarios.runs.audit_entries import PLAN_SUBJECT
from scenarios.runs.own_code import STRATEGY, sentence
from scenarios.simulation.engines import Engine, engine_of

_FALSE_ALARM: Final = 0.01
_KNOWN_NOISE: Final = {"seeded-unsafe": "seeded", EXPERIMENT: "an experiment's, from a seed"}

SIGNATURE_LINES: Final = ("Privacy officer", "Responsible for the data", "Responsible for the model")

SIDE_CHANNELS: Final = (
    "Noise is drawn from the operating system's generator unless it says otherwise. Each value of such noise is a true"
    " Gaussian rounded to a grid, exactly, so that floating point adds nothing to epsilon and delta, at any number of"
    " parameters and steps. Its bits come from a ChaCha20 keystream under a fresh key for each draw; that nobody tells"
    " them from uniform ones is assumed, and not in the figures. One record moves a sum of clipped gradients by at most"
    " the clip, as it is computed: of the kinds hooks and functional the sum is exact, on a grid; of book-keeping its"
    " rounding is bounded, and the clip is shrunk by that. A noised sum is rounded to an absolute grid of at most 2^-16"
    " of the noise's standard deviation before anything else is done with it. A value that is not a number contributes"
    " nothing. Timing of the sampler is not hidden."
)
_SIDE_CHANNELS_WITHOUT_NOISE: Final = (
    "Records can be read out of what is released, which bears no noise: no side channel tells more than that. A value"
    " that is not a number contributes nothing."
)
_ACCOUNTED: Final = (
    " The claim counts what floating point may take from it in the accountant, and a plan is admitted to a budget only"
    " where a lower bound by other code does not contradict."
)
COMPOSITION: Final = (
    "All steps of the plan that was reserved are composed by privacy loss distributions, those that were not taken too:"
    " whoever ends a run may have looked at what it released, and the whole plan bounds it wherever it ends. What one"
    " ledger holds of several runs is bounded by the cap of its Rényi filter, however they were chosen, or by the one"
    " plan that took the whole budget. Epsilons are never added up. Each silo's claim is of what that silo holds: the"
    " largest of them holds for every unit that one silo alone holds, and nothing is claimed of what several silos hold"
    " of one unit together."
)


_HELD_OUT: Final = ", but for rows that a silo's own file holds out and its people hand to the server's operator."
_NOTHING_COMPOSED: Final = (
    "Nothing is composed: no noise was added, so no accountant has a finite figure, no cap of a budget holds, and"
    " nothing else that is released of the same records is bounded any more."
)
_COMPOSED: Final = (
    " This run began from a run's model, so its claim is of all that a silo's budget holds. What accountants read below"
    " is of those plans as if all had been fixed in advance; the claim is the budget's bound, and no less."
)


def composition(gathered: Gathered) -> str:
    """Return how steps, plans and runs are composed into the claim."""
    if gathered.scenario.privacy.baseline is not None:
        return _NOTHING_COMPOSED
    return COMPOSITION + (_COMPOSED if gathered.scenario.goes_on and not gathered.without_ledgers else "")


def start(gathered: Gathered) -> tuple[str, ...]:
    """Return what is to be said of the file that the run began from, and whose word that is; nothing without one."""
    begun, ledgers = gathered.scenario.start, gathered.ledgers
    if begun is None:
        return ()
    if not gathered.scenario.goes_on:
        return (
            f"That the file which the run began from, SHA-256 {begun.sha256}, was trained on no private record: that is"
            " the word of the scenario's author, and nobody checked it.",
        )
    held = [
        silo for silo, ledger in ledgers.items()
        if any(run.charges and run.scenario == begun.scenario and name != ledger.run
               for name, run in ledger.standing.runs.items())
    ]  # fmt: skip
    signed = [
        silo for silo, ledger in ledgers.items()
        if any(run.ended and run.model == begun.sha256 for run in ledger.standing.runs.values())
    ]  # fmt: skip
    which = "" if begun.run is None else f", run {begun.run}"
    made = f"the run of scenario {begun.scenario or '(not named)'}{which}"
    return (
        f"What {made} cost anybody who has no record at {words.listed(held) if held else 'any silo of this one'}: the"
        f" model of that run, SHA-256 {begun.sha256}, is what this run began from."
        + (f" The ledgers of {words.listed(held)} hold that run, and their claims count it." if held else "")
        + " Its own report and ledgers say what it cost at others.",
        f"That this file is that run's model: {words.listed(signed)} countersigned it in their ledgers; for all others"
        " it is the file's own word."
        if signed
        else "That this file is that run's model: no ledger here countersigned it, and it is the file's own word.",
    )


def side_channels(baseline: Baseline | None = None) -> str:
    """Return what is done about floating point and timing, and what is not.

    Args:
        baseline: What the run left out; None where that is nothing.
    """
    return SIDE_CHANNELS + _ACCOUNTED if baseline is None else _SIDE_CHANNELS_WITHOUT_NOISE


def unit_of(unit: str, max_records: int) -> str:
    """Name a privacy unit.

    >>> unit_of("record", 1), unit_of("person", 4)
    ('record', 'person with at most 4 records')
    """
    return unit if unit == "record" else f"{unit} with at most {max_records} records"


def claim(gathered: Gathered, epsilon: float | None, would: float | None, delta: float, unit: str, rounds: int) -> str:
    """Return the claim in a sentence; of an experiment's noise, what epsilon would be if that were secret."""
    name = gathered.scenario.name
    baseline = gathered.scenario.privacy.baseline
    if baseline is not None:
        return f"Nothing is claimed for {name}: {LEFT_OUT[baseline]}. It protects nobody, and no epsilon is finite."
    if (known := known_noise(gathered)) is not None:
        costs = "" if would is None else f" Epsilon would be {up(would)} at delta {small(delta)} {IF_HIDDEN}."
        return f"Nothing is claimed for {name}: its noise was {known}, and whoever knows the seed can remove it.{costs}"
    if epsilon is None:
        return f"No bound is computed for {name}: its noise is too little for its steps, and nothing is claimed."
    both = (
        ", together with what the silos' budgets hold of the run that it began from and of others,"
        if gathered.scenario.goes_on and not gathered.without_ledgers
        else ","
    )
    told = "By what silos reported to the server, all" if gathered.reported else "All"
    told = "Simulated, and no ledger was kept: all" if gathered.booked else told
    whose = "every silo" if gathered.copy_for is None else f"silo {gathered.copy_for}"
    answers = noised_answers(gathered)
    where = words.counted(rounds, "round") + (f" and in {answers}" if answers else "")
    return (
        f"{told} that left the silos of {name}, in {where}{both} is (epsilon {up(epsilon)},"
        f" delta {small(delta)})-differentially private for every {unit} of {whose}: whatever one looks for in it is"
        f" at most {factor(epsilon)} times (e^epsilon) as likely with that {gathered.scenario.privacy.unit} as without,"
        " plus delta, and the other way round."
    )


def meaning(silos: Sequence[SiloClaim], counted: Sequence[SiloAccounting], protects: bool) -> str:
    """Return what the figures mean for one unit, of the silo for which they mean least.

    Args:
        silos: What is claimed of each.
        counted: Its curve of delta, in the same order.
        protects: Whether anything is claimed.
    """
    if not protects:
        return "Nothing is claimed, so no figure says how well anybody is hidden."
    if not any(one.steps for one in silos):
        return "Nothing was released."
    found = odds.right_at_most(_FALSE_ALARM, silos, counted)
    advantages = [one.advantage for one in silos]
    most = max((one for one in advantages if one is not None), default=None) if None not in advantages else None
    return (
        f"A test that calls 1 in 100 of those who are absent present finds at most {percent_up(found)} of those"
        " who are present."
        + ("" if most is None else f" No test's true positive rate is over its false one by more than {up(most)}.")
    )


def collusion(terms: SecureAggregation, noised: str) -> str:
    """Say how many silos may work with the server.

    Args:
        terms: Of the sums.
        noised: What an update is called (`update_word`).
    """
    if terms.mode != "on":
        return f"Updates were not masked: the server sees each silo's {noised}, whoever works with it."
    found = terms.least_effective_silos_in_a_sum
    worth = "" if found is None else f", by their weights worth {down(found, 2)} equal silos or more"
    return (
        f"The server opens sums of at least {terms.least_silos_in_a_sum} updates and no single one{worth}, as long as"
        f" no more than {terms.colluding_tolerated} of the silos work with it; {terms.threshold} shares bring a secret"
        " back."
    )


def update_word(gathered: Gathered) -> str:
    """Say what leaves a silo where nothing masks it."""
    return "noised update" if gathered.scenario.privacy.baseline is None else "update, without noise"


def engine_in(gathered: Gathered) -> Engine | None:
    """Return the engine that carried a simulation; None of a deployment.

    Raises:
        ConfigError: When a simulation was carried by an engine that is not known here.
    """
    return engine_of(gathered.summary["engine"]) if gathered.simulated else None


def noise_added_by(gathered: Gathered) -> str:
    """Say who adds noise, where and before what."""
    engine = engine_in(gathered)
    where = "in its own process" if engine is None else engine.noise_added
    if gathered.scenario.privacy.baseline is not None:
        return f"Nobody adds noise: each silo's updates are computed {where}, and leave as they are."
    return (
        f"Each silo adds Gaussian noise to its own clipped sums, {where}, before an update is masked or leaves; nobody"
        " else's noise is counted."
    )


def growth(scenario: Scenario) -> Iterator[str]:
    """Say how lots grew, and how that is accounted for; nothing where they did not."""
    phases = scenario.phases[1:]
    if phases:
        grown = words.listed([f"{phase.times:g} times from round {phase.first} on" for phase in phases])
        yield (
            f"Lots grow by the scenario's schedule, which is public: they are expected to be {grown} as large as in the"
            " first round. Each step is charged at the rate of its own round, and the phases are composed."
        )


def noised_answers(gathered: Gathered) -> str:
    """Name what silos were asked for besides training; nothing where that is nothing."""
    jobs = gathered.scenario.besides
    return f"noised answers of {words.listed(list(jobs))}" if jobs else ""


def access(gathered: Gathered, *, before: bool = False) -> str:
    """Say who can get at records, and what else leaves a silo.

    Args:
        gathered: What the folder says.
        before: In the words of reports that did not say that a silo may hold rows out.
    """
    engine = engine_in(gathered)
    if gathered.rehearsed:
        kept = "This was a rehearsal: one account owned all tables, and each silo's own process read its table alone."
    elif engine is not None:
        kept = engine.records_read
    else:
        kept = "Records stay at their silo and are read by its own process alone"
        # No law need be at hand: whether a silo holds rows of its table out is not known here.
        kept += "." if before or gathered.scenario.data.is_dealt else _HELD_OUT
    return f"{kept} {_left(gathered)} The server has held-out records of its own."


def _left(gathered: Gathered) -> str:
    """Say which figures of records leave a silo."""
    if gathered.audit is not None:
        return "No metric and no text of an error leaves a silo; the audit's figures tell how many records it held."
    answers = noised_answers(gathered)
    if not answers:
        return "No metric, no count of records and no text of an error leaves a silo."
    return (
        "No metric, no count of records but with noise, and no text of an error leaves a silo."
        f" {answers[0].upper()}{answers[1:]} leave too, charged as a release and counted in the claim."
    )


def parties(gathered: Gathered, terms: SecureAggregation, protects: bool) -> tuple[Seen, ...]:
    """Return who sees what, and what holds; no figure does where nothing is claimed."""
    unit = unit_of(gathered.scenario.privacy.unit, gathered.scenario.privacy.max_records or 1)
    if protects:
        noised, after = (
            f"(epsilon, delta) for each {unit}, as the silo's ledger says",
            "; post-processing costs nothing",
        )
    else:
        noised, after = "no figure: nothing is claimed of this run", ""
    sentence = noised[0].upper() + noised[1:]
    answers = noised_answers(gathered)
    of_sums, beside, single = (f", sums of {answers}", f" and {answers}", " or answer") if answers else ("", "", "")
    server = (
        Seen(
            who="The server",
            sees=f"sums of at least {terms.least_silos_in_a_sum} updates{of_sums}, names, who trained when, error"
            " codes",
            holds=f"No single update{single}, up to {terms.colluding_tolerated} colluding silos; past that, {noised}.",
        )
        if terms.mode == "on"
        else Seen(
            who="The server",
            sees=f"each silo's {update_word(gathered)}{beside}, names, who trained when, error codes",
            holds=f"{sentence}.",
        )
    )
    return (
        Seen(
            who="Each silo",
            sees="its own records, and the model before each round",
            holds="Of another silo's records it learns what the receiver of the model does.",
        ),
        server,
        Seen(
            who="Whoever gets the model",
            sees=f"the model, or its state after every round{of_sums}",
            holds=f"{sentence}{after}.",
        ),
        Seen(
            who="The network",
            sees="nothing: all was on one machine" if gathered.simulated else "TLS, and who talks when and how much",
            holds="Nothing had to." if gathered.simulated else "Certificates of the one authority, on both sides.",
        ),
    )


def not_protected(gathered: Gathered) -> tuple[str, ...]:
    """Return what the claim does not cover in this run."""
    scenario, encryption = gathered.scenario, gathered.scenario.encryption
    masked = encryption.secure_aggregation == "on"
    noised, known = scenario.privacy.baseline is None, known_noise(gathered)
    found = [
        (not noised, "Anybody: no noise was added. Records can be read out of the model and of every sum."),
        (known is not None, f"Noise was {known}: whoever knows the seed subtracts it. No figure here protects"
                            " anybody."),
        (True, "The server's own held-out records: their exact figures are published each round."),
        (True, "A poisoned update: nothing bounds what a hostile silo adds."
               + (" Under masks nobody can inspect it." if masked else "")),
        (True, "Participation, timing, sizes of messages and the public weights: the server sees them."),
        (masked and noised, "Differences of sums over cohorts that differ in one silo: its own noise is what holds"
                             " there."),
        (masked and noised, "Single updates, once more silos work with the server than are tolerated: their noise is"
                             " what holds."),
        (not masked and noised, "Single updates: the server sees each, and its noise is what holds."),
        (encryption.secure_aggregation == "simulated", "Secure aggregation was simulated: nothing was masked."),
        (masked and encryption.consistency == "quorum", "A single update, against a server that shows two lists of"
                                                       " survivors: consistency was left to a quorum."),
        (gathered.simulated, "Silos from one another: in a simulation they share one machine, and keys lie unencrypted"
                             " in the run's folder."),
        (not gathered.simulated, "A silo from its own operator, or from root on any machine."),
        (gathered.rehearsed, "Parties from one another: this was a rehearsal, and all shared one machine."),
        (scenario.privacy.unit == "record" and noised and known is None,
         "A person with several records, as a person: each record is protected, and what they tell together is not"
         " bounded by these figures."),
        (scenario.privacy.unit == "person", "A person with records at several silos, as one person: each silo's claim"
                                            " is of the records that it holds."),
        (scenario.privacy.unit != "record", "What a unit's records beyond the most that are trained on would tell: they"
                                            " are left out, and that they were is not hidden from its silo."),
        (scenario.data.is_dealt,
         "The declared ranges by which features are scaled: whatever they were chosen by, no run pays for it."),
        (gathered.audit is not None, "How many records each silo held: the audit's figures on lots tell it."),
        (bool(scenario.model.cut_to), "How long the texts of a step are, from how long the step takes: each is computed"
                                      " at the first of model.lengths that it fits into."),
        (scenario.faults is not None, "Faults were rehearsed: silos were made to vanish."),
    ]  # fmt: skip
    return tuple(text for applies, text in found if applies)


def limits(gathered: Gathered) -> tuple[str, ...]:
    """Return what the report does not say."""
    scenario = gathered.scenario
    claimed = scenario.privacy.baseline is None
    planned = any(True for ledger in gathered.ledgers.values() for _ in ledger.audits(PLAN_SUBJECT))
    found = [
        (gathered.reported, "What the silos' ledgers say, of this run and of others: none was at hand. Each silo's own"
                            " copy of this report has what its ledger says."),
        (gathered.booked, "What any silo did, by its own word: all silos were simulated in one process, which kept no"
                          " ledger of any, and what was released of the same records before is not known."),
        (gathered.copy_for is not None, f"Anything of other silos' records: this is the copy of silo"
                                        f" {gathered.copy_for}, and has no figures of theirs."),
        (claimed, "Whether this epsilon is small enough: that is for people to judge."),
        (True, "That the code whose hash stands here is the code that ran at a silo: its operator runs what it runs."),
        (True, "That a unit is what it is called: who a record is about is what the data say."),
        (True, "That the model is what these rounds made: the server named it at the run's end, and no silo sees what"
               " the others added."),
        (True, "What was released about the same data outside these ledgers, or learnt by people who looked at them."),
        (True, "That choices of the scenario, made after runs that no ledger holds, cost nothing."),
        (claimed and gathered.audit is None and not planned,
         "Whether an attack would have refuted the claim: none was tried."),
        (gathered.audit is None and planned, "What the audit found that a ledger says was planned: its result is not"
                                             " here."),
        (gathered.audit is not None, "That the claim is true: an audit that does not refute it is no proof of it."),
        (gathered.audit is not None or planned, "Whether other audits of this scenario were made and not kept: the"
                                                " coins are the operator's."),
        (scenario.audit is not None and scenario.audit.canaries == "loss",
         "What the model would be without the audit's canaries: it was trained on them too."),
        (True, "That the protocol and this code are right: nobody but their authors has reviewed them."),
    ]  # fmt: skip
    return (*start(gathered), *base(gathered), *own_code(gathered), *(text for applies, text in found if applies))


def base(gathered: Gathered) -> tuple[str, ...]:
    """Return what is to be said of the base that the model is built on; nothing where there is none."""
    told = tuple(
        f"What the base tells that the model is built on (SHA-256 {sha256}): it was trained before, by others, on what"
        " its publisher says. Only what was trained here is in the model's file and in any claim: whatever stood in"
        " the base stands in the model, and if a silo's record was in it, this run's noise does not hide that."
        for sha256 in bases_of(gathered.scenario)
    )
    return (*told, *_number_of_parameters(gathered)) if told else ()


def own_code(gathered: Gathered) -> tuple[str, ...]:
    """Return what is to be said of code of the user's own that the scenario names; nothing where it names none."""
    rows = gathered.summary.get("own_code", ())
    if not rows:
        return ()
    but = ""
    if any(row["key"] == STRATEGY for row in rows):
        but = ", but for those of a strategy, which ran at the server alone, by its own file"
    approved = (
        "It ran in a simulation, whose silos approve nothing."
        if gathered.simulated
        else "Files of packages are in the hash of the code that each silo's law names, by which it approved of them"
        f"{but}. What is of no package ran at the server alone."
    )
    named = "; ".join(map(sentence, rows))
    return (
        "That code of the user's own does what it is taken for. The run was made with such code, and what is claimed"
        f" holds for code that is not written to cheat: {named}. {approved}",
        *_number_of_parameters(gathered),
    )


def _number_of_parameters(gathered: Gathered) -> tuple[str, ...]:
    """Return on whose word the number of parameters of a model is that is not built here, unless its file shows it."""
    told, numbers = gathered.summary["parameters"], gathered.numbers
    if numbers == told or ("model.use" not in gathered.scenario.own_code and not bases_of(gathered.scenario)):
        return ()
    whose = "the word of whoever ran it" if gathered.simulated else "the server's word"
    made = "built on a base" if bases_of(gathered.scenario) else "of the user's own"
    if numbers is None:
        return (
            f"That the model has {told:,} parameters: it is {made} and does not lie here open, and the"
            f" number is {whose}.",
        )
    return (f"That only {told:,} of the {numbers:,} numbers in the model's file were trained: that is {whose}.",)


def known_noise(gathered: Gathered) -> str | None:
    """Say what this run's noise was where a seed gives it, by its scenario or by what was charged; else None."""
    if gathered.scenario.privacy.baseline is not None:
        return None
    found = {event.noise_source for ledger in gathered.ledgers.values() for event in ledger.events}
    sources = {gathered.scenario.privacy.noise, *found}
    return next((said for source, said in _KNOWN_NOISE.items() if source in sources), None)
