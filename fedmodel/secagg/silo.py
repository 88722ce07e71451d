"""A silo's side of secure aggregation: bytes in, bytes out, and every refusal by name.

The order of stages, for each window and then for each of its rounds:

    advert(window)      fresh secrets for every round of the window
    deal(adverts)       checks U1; shares of every secret, sealed to each neighbour
    receive(shares)     opens what neighbours dealt; root and transport secret are erased
    mask(round, ...)    in place; b and pair secrets of the round are erased
    commit(round, ...)  signs one survivor list U3
    reveal(round, ...)  at most one share per neighbour, of b or of root; the round is closed

Guarantees, while the roster's administrator and this silo are honest and at most `policy.colluding` others work with
the server, whatever the server sends:
- an update given to `mask` stays hidden, except for its part in one sum of at least `policy.n_min` silos' updates, all
  of which got the same model and configuration. This does NOT hold with `consistency = "quorum"`, where a server that
  shows silos different lists can open a single update. On a ring, above 300 silos, it holds with the probability that
  `docs/secure-aggregation.md`, section 5, states;
- no silo has both of its secrets revealed, because each answer is given once, and t > (k + c) / 2 (on a ring, except
  with a probability of 2^-secrecy_bits);
- threshold, ring, suite, quorum and least cohort come from the policy and the roster, never from a message.

State is given and taken as bytes. The caller of a stage must keep the new state on disk BEFORE the stage's message
leaves. Only then does "once" also hold for a process that is killed. Rounds and attempts only rise: a lower one is
refused, and the first act in a later round erases the secrets of earlier rounds.

A window belongs to the roster and the policy that it was made under. Under another roster or policy its secrets are
erased, and this silo is at most a witness until the next window.

The ledger detects state that was lost or restored from an older copy. The caller enters `progress` there before a
message leaves, and passes it in again as `known`. State that does not include all of it is stale. Then nothing more is
done in that round, no secret of its window is used, and the silo is at most a witness until the next window.

Does NOT withstand a restored backup that holds the state together with the ledger by which the caller would detect it.
Does NOT hide who took part and when.

After Bonawitz et al. 2017, section 6 and figure 4; Bell et al. 2020, section 4; Pasquini et al. 2022, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fedmodel.crypto import SealingKey, SigningKey, Suite, random_bytes, seal
from fedmodel.errors import AggregationRefused, CryptoError, Rule
from fedmodel.secagg import ring, shamir
from fedmodel.secagg.checks import check_quorum, checked_cohort, checked_survivors
from fedmodel.secagg.keys import MaskKey, commitment, envelope_context, pair_key, self_key
from fedmodel.secagg.masking import Sign, apply_masks
from fedmodel.secagg.messages import (
    Advert,
    Commit,
    Mask,
    MessageScope,
    Reveal,
    Secret,
    Share,
    cohort_digest_of,
    graph_seed,
    words_digest,
)
from fedmodel.secagg.parameters import Policy, Roster, Setting, Window
from fedmodel.secagg.progress import Progress
from fedmodel.secagg.ring import Words
from fedmodel.secagg.state import RoundState, State, WindowState, read_state, to_bytes, to_hex, to_int
from fedmodel.secagg.topology import neighbours_of


@dataclass(frozen=True)
class _Dealt:
    """One round's part of a dealing: the shares for each peer, and those that the silo keeps."""

    rows: dict[int, bytes]
    offers: dict[int, bytes]
    pairs: dict[str, str]
    own: dict[str, list[str]]


class Participant:
    """One silo in one run.

    Args:
        identity: The silo's signing key. Sensitive.
        roster: The roster, opened under the administrator's key.
        policy: The silo's own.
        run: The run, 64 bits.
        state: What `state()` returned last in this run, or None. Sensitive.
        known: The newest `progress` of this run that the silo's ledger records.

    Attributes:
        number: The silo's place in the roster.
        is_put_back: Whether the given state lacks acts that are known, and so was not used.

    Raises:
        AggregationRefused: When the silo is not in the roster, or the policy does not allow this roster.
        CryptoError: When the state cannot be read.
    """

    def __init__(
        self,
        identity: SigningKey,
        roster: Roster,
        policy: Policy,
        run: int,
        state: bytes | None = None,
        known: Progress = Progress(),  # noqa: B008 - frozen
    ) -> None:
        self._identity, self._roster, self._policy, self._run = identity, roster, policy, run
        self._setting(1, 1, 1)  # refuses a roster that the policy does not allow
        self.number = roster.number(identity.public)
        self._state = State() if state is None else read_state(state)
        self.is_put_back = not self._state.progress.covers(known)
        if self.is_put_back:
            self._state = State.after(known)
        if self._state.window is not None and not self._is_as_it_was(self._state.window):
            self.forget()

    def state(self) -> bytes:
        """Return what the next stage needs. Sensitive: keep it sealed, and on disk before a message leaves."""
        return self._state.to_bytes()

    @property
    def progress(self) -> Progress:
        """The acts that the ledger must record before a message leaves, if there are any."""
        return self._state.progress

    def forget(self) -> None:
        """Erase every secret, and keep how far this silo had come."""
        self._state.window = None

    def advert(self, window: Window) -> bytes:
        """Make fresh secrets for a window, in place of all others, and return the ADVERT.

        A second call for the same window, before shares were dealt, returns the same ADVERT, because an answer may be
        lost.

        Raises:
            AggregationRefused: When the window is not higher than the highest round and attempt acted in.
        """
        setting = self._setting(window.first, window.attempt, window.count)
        live = self._state.window
        if live is not None and not live.cohort and live.window(self._run) == window:
            return bytes.fromhex(live.advert)
        if window.run != self._run or (window.first, window.attempt) <= (self._state.round, self._state.attempt):
            raise AggregationRefused(
                Rule.REPLAYED, f"a window from round {window.first}, attempt {window.attempt}, is not a new one"
            )
        transport = random_bytes(32)
        rounds = {
            number: RoundState(root=to_hex(shamir.random_element()), b=to_hex(shamir.random_element()))
            for number in window.rounds
        }
        mask_keys = [self._mask_key(setting, number, held).public for number, held in rounds.items()]
        told = [commitment(to_int(held.b), setting.base, number, self.number) for number, held in rounds.items()]
        public = self._transport_key(setting, transport).public
        message = Advert(self.number, public, random_bytes(32), tuple(mask_keys), tuple(told))
        data = message.sign(MessageScope(setting, window.first), self._identity)
        self._state = State(
            round=window.first,
            attempt=window.attempt,
            window=WindowState(
                first=window.first,
                attempt=window.attempt,
                count=window.count,
                transport=transport.hex(),
                base=setting.base.hex(),
                advert=data.hex(),
                rounds={str(number): held for number, held in rounds.items()},
            ),
        )
        return data

    def deal(self, adverts: Sequence[bytes]) -> list[bytes]:
        """Check the cohort U1, and return a SHARE for each neighbour: for all of them, or for none.

        Raises:
            AggregationRefused: When anything about the cohort or its keys is wrong; the message says what.
        """
        window, setting = self._window()
        if window.cohort:
            raise AggregationRefused(Rule.REPEATED, "shares were dealt in this window already")
        if len(window.rounds) != window.count:
            raise AggregationRefused(Rule.REPLAYED, "a round of this window is past already")
        place = MessageScope(setting, window.first)
        told = checked_cohort(place, adverts, self.number, bytes.fromhex(window.advert))
        cohort = sorted(told)
        topology = self._policy.topology(len(cohort))
        cohort_digest = cohort_digest_of(setting, [told[number][1] for number in cohort])
        peers = neighbours_of(topology, cohort, graph_seed(setting, [told[n][0] for n in cohort]), self.number)
        holders = sorted([*peers, self.number]) if topology.complete else peers

        adverts_of_peers = {peer: told[peer][0] for peer in peers}
        rounds = [
            self._deal_round(setting, number, topology.threshold, holders, adverts_of_peers)
            for number in setting.window.rounds
        ]
        messages = []
        for peer, advert in adverts_of_peers.items():
            context = envelope_context(setting.base, cohort_digest, self.number, peer)
            with _weak_key(peer):
                rows = b"".join(dealt.rows[peer] for dealt in rounds)
                envelope = seal(self._policy.suite, advert.transport, rows, context)
            offers = tuple(dealt.offers[peer] for dealt in rounds if dealt.offers[peer])
            share = Share(self.number, cohort_digest, peer, envelope, offers)
            messages.append(share.sign(place, self._identity))
        # Nothing was refused, so from here on the shares count as dealt.
        for held, dealt in zip(window.rounds.values(), rounds, strict=True):
            held.pairs, held.held = dealt.pairs, dealt.own
        window.cohort, window.cohort_digest, window.peers = cohort, cohort_digest.hex(), peers
        window.threshold, window.complete = topology.threshold, topology.complete
        self._state.dealt = window.cohort_digest
        return messages

    def receive(self, shares: Sequence[bytes]) -> dict[int, str]:
        """Open the shares that neighbours dealt. A share that is not right counts as not dealt.

        Returns:
            For each rejected message, by its place in the sequence, the reason; for the silo's own log.

        Raises:
            AggregationRefused: When too few neighbours dealt; the silo then cannot take part in the window.
        """
        window, setting = self._window()
        if not window.cohort or window.received:
            raise AggregationRefused(Rule.OUT_OF_ORDER, "shares are received once, after they were dealt")
        if len(shares) > len(window.peers):
            raise AggregationRefused(Rule.SHARES, f"{len(shares)} shares came, of {len(window.peers)} neighbours")
        refused: dict[int, str] = {}
        dealt = {}
        for place, data in enumerate(shares):
            try:
                share, opened, agreed = self._opened_share(window, setting, data)
                if share.sender in dealt:
                    raise AggregationRefused(Rule.DUPLICATE, f"silo {share.sender} dealt twice")
            except (AggregationRefused, CryptoError) as error:
                refused[place] = str(error)
                continue
            dealt[share.sender] = opened, agreed
        if len(dealt) + window.complete < window.threshold:
            raise AggregationRefused(
                Rule.SHARES, f"{len(dealt)} neighbours dealt, where a threshold of {window.threshold} asks for more"
            )
        for number, held in window.rounds.items():
            index = int(number) - window.first
            for sender, (opened, agreed) in dealt.items():
                row = opened[64 * index : 64 * index + 64]
                held.held[str(sender)] = [row[:32].hex(), row[32:].hex()]
                if agreed:
                    held.pairs[str(sender)] = agreed[number]
            held.masked_with = sorted(dealt)
            held.root = None
        window.transport = None
        window.received = True
        return refused

    @property
    def has_received(self) -> bool:
        """Whether the shares of the live window were received."""
        return self._state.window is not None and self._state.window.received

    @property
    def could_be_summed_with(self) -> list[int]:
        """The silos that could be in a sum with this silo, itself included, once the live window's shares are received.

        A neighbour that did not deal to this silo cannot, because the two do not mask with each other. In a complete
        graph these are all. On a ring, silos that are no neighbours are included, because it is not known whether they
        dealt.
        """
        window, _ = self._window()
        dealt = {one for held in window.rounds.values() for one in held.masked_with}
        return [one for one in window.cohort if one in dealt or one not in window.peers]

    def check_can_mask(self, round_number: int) -> None:
        """Refuse a round that `mask` would refuse, before anything is spent on it.

        Raises:
            AggregationRefused: When the silo holds no shares of the round, or has done a stage of it.
        """
        window, _ = self._window()
        if not window.received or round_number not in range(window.first, window.first + window.count):
            raise AggregationRefused(Rule.OUT_OF_ORDER, f"no shares were received for round {round_number}")
        state = self._at(round_number, window.attempt)
        if state.masked or state.revealed or state.signed is not None:
            raise AggregationRefused(Rule.REPEATED, f"round {round_number} was masked, signed or revealed already")

    def mask(self, round_number: int, words_P: Words, model: bytes, configuration: bytes) -> bytes:
        """Mask a quantised update in place, and return the MASK message that is sent beside it.

        Args:
            round_number: A round of the live window.
            words_P: Ring elements, shape `(P,)`. Sensitive before the call; after it, uniform to everybody else.
            model: The hash of the model received.
            configuration: The hash of what was done with it.

        Raises:
            AggregationRefused: As in `check_can_mask`, or when the words are not of the policy's ring.
        """
        self.check_can_mask(round_number)
        if not ring.holds(self._policy.ring_bits, words_P):
            raise AggregationRefused(Rule.MALFORMED, f"words of {words_P.dtype} are not of the policy's ring")
        window, setting = self._window()
        state = self._at(round_number, window.attempt)
        held = window.rounds[str(round_number)]
        context = setting.context(round_number, bytes.fromhex(window.cohort_digest), model, configuration)
        # From here on the secrets count as used, whatever happens to the message.
        state.masked = True
        self._enter(state)
        b, pairs = to_int(held.b), held.pairs
        held.b, held.pairs, held.context = None, {}, context.hex()
        masks: list[tuple[bytes, Sign]] = [(self_key(b, context, self.number), 1)]
        for peer in held.masked_with:
            key = pair_key(bytes.fromhex(pairs[str(peer)]), context, self.number, peer)
            masks.append((key, 1 if self.number < peer else -1))
        apply_masks(words_P, masks)
        ring.reduce(self._policy.ring_bits, words_P)
        told = words_digest(self._policy.ring_bits, words_P)
        message = Mask(self.number, context, told, tuple(held.masked_with))
        return message.sign(MessageScope(setting, round_number), self._identity)

    def commit(self, round_number: int, attempt: int, context: bytes, survivors: Sequence[int]) -> bytes:
        """Sign a survivor list, one per round and attempt, also as a witness that has no part in the round.

        Args:
            round_number: The round.
            attempt: The window's.
            context: ctx, as the silos that masked derived it.
            survivors: U3, ascending.

        Raises:
            AggregationRefused: When a list was signed already, or this one is not acceptable.
        """
        state, setting = self._at(round_number, attempt), self._setting(round_number, attempt, 1)
        if state.signed is not None or state.revealed:
            raise AggregationRefused(Rule.TWO_FACED, f"a survivor list of round {round_number} was signed already")
        told = checked_survivors(setting, self.number, context, survivors, self._part(round_number, attempt))
        state.signed = (context + told).hex()
        self._enter(state)
        return Commit(self.number, context, told).sign(MessageScope(setting, round_number), self._identity)

    def reveal(
        self, round_number: int, attempt: int, context: bytes, survivors: Sequence[int], commits: Sequence[bytes]
    ) -> bytes:
        """Give at most one share per dealer, of `b` if it is in U3, otherwise of `root`; then the round is closed.

        Shares of `b` come from survivors alone. Each survivor has masked with every neighbour in U3. So of the t silos
        that open a survivor's `b`, at least one honest one is among the t - 1 others that the survivor itself masked
        with (2t > k + c), and the mask of the two still hides the update. If silos that sent nothing gave shares of `b`
        too, a server could give a silo the shares of such silos alone, and its update would be left without any mask.

        Args:
            round_number: The round.
            attempt: The window's.
            context: ctx.
            survivors: U3, ascending.
            commits: COMMITs of a quorum of the roster, on this list in this context. Empty if the policy's consistency
                is "quorum".

        Raises:
            AggregationRefused: When anything was revealed already, another list was signed, or there is no quorum.
        """
        state, setting = self._at(round_number, attempt), self._setting(round_number, attempt, 1)
        if state.revealed:
            raise AggregationRefused(Rule.REPEATED, f"shares of round {round_number} were given already")
        part = self._part(round_number, attempt)
        told = checked_survivors(setting, self.number, context, survivors, part)
        if part is None or not part[1].held:
            raise self._without_part(f"this silo holds no shares of round {round_number}")
        held = part[1]
        place = MessageScope(setting, round_number)
        if state.signed not in (None, (context + told).hex()):
            raise AggregationRefused(Rule.TWO_FACED, "the survivor list is not the one that was signed")
        if self._policy.consistency == "commit":
            check_quorum(place, context, told, commits)
        alive = set(survivors)
        shares: dict[int, tuple[Secret, int]] = {}
        for dealer, (of_b, of_root) in held.held.items():
            if int(dealer) not in alive:
                shares[int(dealer)] = Secret.ROOT, to_int(of_root)
            elif self.number in alive:
                shares[int(dealer)] = Secret.B, to_int(of_b)
        state.revealed, state.signed = True, (context + told).hex()
        self._enter(state)
        held.b, held.root, held.pairs, held.held = None, None, {}, {}
        return Reveal(self.number, context, told, shares).sign(place, self._identity)

    def _deal_round(
        self, setting: Setting, number: int, threshold: int, holders: Sequence[int], peers: Mapping[int, Advert]
    ) -> _Dealt:
        """Share one round's secrets among their holders, and agree with each neighbour as far as one side can."""
        index = number - setting.window.first
        held = self._window()[0].rounds[str(number)]
        key = self._mask_key(setting, number, held)
        of_b = shamir.split(to_int(held.b), threshold, holders)
        of_root = shamir.split(to_int(held.root), threshold, holders)
        offers, pairs = {}, {}
        for peer, advert in peers.items():
            with _weak_key(peer):
                offers[peer] = key.offer(peer, advert.mask_keys[index])
                if self._policy.suite is Suite.CLASSIC or peer > self.number:
                    pairs[str(peer)] = key.agree(peer, advert.mask_keys[index], b"").hex()
        rows = {peer: to_bytes(of_b[peer]) + to_bytes(of_root[peer]) for peer in peers}
        mine = {str(one): [to_hex(of_b[one]), to_hex(of_root[one])] for one in holders if one == self.number}
        return _Dealt(rows, offers, pairs, mine)

    def _setting(self, first: int, attempt: int, count: int) -> Setting:
        return Setting(self._roster, self._policy, Window(self._run, first, attempt, count))

    def _is_as_it_was(self, window: WindowState) -> bool:
        """Return whether a kept window was made under this roster and this policy.

        Numbers are places in the roster. Under another roster, a silo that vanished may look like a survivor, and both
        secrets of a third silo could be revealed.
        """
        try:
            return self._setting(window.first, window.attempt, window.count).base.hex() == window.base
        except AggregationRefused:
            return False

    def _window(self) -> tuple[WindowState, Setting]:
        """Return the live window."""
        window = self._state.window
        if window is None:
            raise self._without_part("this silo advertised no keys")
        return window, Setting(self._roster, self._policy, window.window(self._run))

    def _without_part(self, why: str) -> AggregationRefused:
        """Return the refusal of a request that needs secrets which this silo does not have."""
        if not self._state.is_stale:
            return AggregationRefused(Rule.OUT_OF_ORDER, why)
        return AggregationRefused(
            Rule.STALE,
            "what this silo kept of the window was lost, or is older than its ledger; it is back with the next window",
        )

    def _part(self, round_number: int, attempt: int) -> tuple[WindowState, RoundState] | None:
        """Return what this silo holds of a window and of its round, or None if it has no part in the round."""
        window = self._state.window
        if window is None or window.attempt != attempt or not window.received:
            return None
        held = window.rounds.get(str(round_number))
        return None if held is None else (window, held)

    def _at(self, round_number: int, attempt: int) -> State:
        """Return this silo's state in a round; it is fresh if the round is higher than any before.

        Raises:
            AggregationRefused: When a higher round has begun, or it is no longer known what was done in this one.
        """
        state = self._state
        if (round_number, attempt) < (state.round, state.attempt):
            raise AggregationRefused(
                Rule.REPLAYED,
                f"round {round_number}, attempt {attempt}, is past; round {state.round}, attempt {state.attempt}, has"
                " begun",
            )
        if (round_number, attempt) != (state.round, state.attempt):
            return State(round=round_number, attempt=attempt, is_stale=state.is_stale, window=state.window)
        if state.is_stale and state.revealed:
            raise self._without_part("")
        return state

    def _enter(self, state: State) -> None:
        """Enter a round, once nothing about it was refused; this erases what is held of lower rounds."""
        self._state = state
        if state.window is not None:
            for number in [number for number in state.window.rounds if int(number) < state.round]:
                del state.window.rounds[number]
            if not state.window.rounds:
                state.window = None

    def _mask_key(self, setting: Setting, round_number: int, held: RoundState) -> MaskKey:
        return MaskKey(self._policy.suite, to_int(held.root), setting.base, round_number, self.number)

    def _transport_key(self, setting: Setting, secret: bytes) -> SealingKey:
        return SealingKey(self._policy.suite, secret, setting.base + self.number.to_bytes(4, "big"))

    def _opened_share(self, window: WindowState, setting: Setting, data: bytes) -> tuple[Share, bytes, dict[str, str]]:
        """Return a SHARE, the shares in it, and for each round the secret agreed with us under the hybrid suite."""
        share = Share.read(data, MessageScope(setting, window.first))
        cohort = bytes.fromhex(window.cohort_digest)
        if share.receiver != self.number or share.sender not in window.peers or share.cohort != cohort:
            raise AggregationRefused(Rule.SHARES, f"a share of silo {share.sender} is not for us in this cohort")
        context = envelope_context(setting.base, cohort, share.sender, self.number)
        opened = self._transport_key(setting, bytes.fromhex(window.transport or "")).open(share.envelope, context)
        if len(opened) != 64 * window.count:
            raise AggregationRefused(Rule.MALFORMED, f"silo {share.sender} sealed shares of another size")
        for start in range(0, len(opened), 32):
            if int.from_bytes(opened[start : start + 32], "big") >= shamir.PRIME:
                raise AggregationRefused(Rule.MALFORMED, f"silo {share.sender} sealed what is not in the field")
        agreed = {}
        if share.offers:
            for number, held in window.rounds.items():
                key, offer = self._mask_key(setting, int(number), held), share.offers[int(number) - window.first]
                agreed[number] = key.agree(share.sender, b"", offer).hex()
        return share, opened, agreed


@contextmanager
def _weak_key(peer: int) -> Iterator[None]:
    """Name the silo whose advertised key cannot be used."""
    try:
        yield
    except CryptoError as error:
        raise AggregationRefused(Rule.WEAK_KEY, f"silo {peer}'s ADVERT: {error}") from error
