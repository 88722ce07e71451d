"""The server's side of a window: who takes part, whose keys are whose, who dealt to whom.

    add_advert, close_adverts       U1, its adverts, the graph
    add_shares, shares_for          U2: who dealt, and which shares each silo gets

A silo trusts nothing here. The server's checks serve two ends: wherever the protocol allows, a hostile silo costs its
own update and not everybody's; and a false message can be traced to a silo. A message that breaks a rule raises, is not
taken in, and is the fault of whoever sent it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Set

from fedmodel.errors import AggregationRefused, DropoutError, Rule
from fedmodel.secagg.messages import Advert, MessageScope, Share, cohort_digest_of, graph_seed, sender_of
from fedmodel.secagg.parameters import Setting
from fedmodel.secagg.topology import Topology, neighbours


class Collection:
    """A window, from adverts to dealt shares."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.place = MessageScope(setting, setting.window.first)
        self.adverts: dict[int, Advert] = {}
        self.cohort: tuple[int, ...] = ()
        self.cohort_digest = b""
        self.peers: dict[int, list[int]] = {}
        self.blamed: dict[int, str] = {}
        self._advert_data: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, bytes]] = {}
        self._offers: dict[tuple[int, int], tuple[bytes, ...]] = {}
        self._topology: Topology | None = None

    @classmethod
    def again(cls, setting: Setting, adverts: Sequence[bytes], shares: Sequence[bytes]) -> Collection:
        """Return a dealt window as it was, from what `messages` returned.

        Raises:
            AggregationRefused: When the input is anything else.
        """
        collection = cls(setting)
        for data in adverts:
            collection.add_advert(data)
        collection.close_adverts()
        for _, dealt in itertools.groupby(shares, sender_of):
            collection.add_shares(list(dealt))
        return collection

    def messages(self) -> tuple[list[bytes], list[bytes]]:
        """Return the messages that fix a dealt window: the ADVERTs of U1, and all SHAREs, dealer by dealer."""
        adverts = [self._advert_data[number] for number in self.cohort]
        return adverts, [data for rows in self._shares.values() for data in rows.values()]

    def add_advert(self, data: bytes) -> int:
        """Take a silo's ADVERT, and return its number.

        Raises:
            AggregationRefused: When it is not right, or is the silo's second.
        """
        advert = Advert.read(data, self.place)
        advert.check_keys()
        if advert.sender in self.adverts or self.cohort:
            raise AggregationRefused(Rule.REPEATED, f"silo {advert.sender} advertised already, or too late")
        self.adverts[advert.sender], self._advert_data[advert.sender] = advert, data
        return advert.sender

    def close_adverts(self) -> list[bytes]:
        """Fix U1, and return its adverts, which every silo of U1 is to be sent.

        All silos that share a key are left out, because it cannot be known whose key it was.

        Raises:
            AggregationRefused: When the cohort is too small, or no threshold hides an update.
        """
        owners: dict[bytes, int] = {}
        for number, advert in self.adverts.items():
            for key in (advert.transport, *advert.mask_keys):
                other = owners.setdefault(key, number)
                if other != number:
                    self.blamed[other] = self.blamed[number] = "advertised a key that another silo advertised too"
        cohort = sorted(self.adverts.keys() - self.blamed.keys())
        self._topology = self.setting.policy.topology(len(cohort))
        ordered = [self._advert_data[number] for number in cohort]
        self.cohort, self.cohort_digest = tuple(cohort), cohort_digest_of(self.setting, ordered)
        seed = graph_seed(self.setting, [self.adverts[number] for number in cohort])
        self.peers = neighbours(self._topology, cohort, seed)
        return ordered

    @property
    def topology(self) -> Topology:
        """The graph's parameters, once U1 is fixed."""
        if self._topology is None:
            raise AggregationRefused(Rule.OUT_OF_ORDER, "the cohort is not fixed yet")
        return self._topology

    def add_shares(self, messages: Sequence[bytes]) -> int:
        """Take all SHAREs that one silo deals, and return its number.

        The receivers of the shares check the signatures: at 1,000 silos there are 158,000. A dealer whose signatures
        are false disagrees with every neighbour, and is left out of every sum.

        Raises:
            AggregationRefused: When there is not exactly one SHARE to each of its neighbours.
        """
        shares = [(Share.read(data, self.place, verified=False), data) for data in messages]
        senders = {share.sender for share, _ in shares}
        if len(senders) != 1 or not senders <= set(self.cohort):
            raise AggregationRefused(Rule.SHARES, "shares came from no silo of the cohort, or from two at once")
        (sender,) = senders
        rows = {share.receiver: data for share, data in shares}
        wrong = [share for share, _ in shares if share.cohort != self.cohort_digest]
        if wrong or len(rows) != len(shares) or sorted(rows) != self.peers[sender] or sender in self._shares:
            raise AggregationRefused(Rule.SHARES, f"silo {sender} did not deal once to each of its neighbours")
        self._shares[sender] = rows
        for share, _ in shares:
            if share.offers:
                self._offers[sender, share.receiver] = share.offers
        return sender

    @property
    def dealt(self) -> Set[int]:
        """U2: the silos that dealt."""
        return self._shares.keys()

    def shares_for(self, number: int) -> list[bytes]:
        """Return the SHAREs to be given to a silo, in order of senders."""
        return [self._shares[peer][number] for peer in self.peers[number] if peer in self._shares]

    def offer(self, lower: int, upper: int, index: int) -> bytes:
        """Return what the silo with the lower number offered the other for a round; empty under the classic suite."""
        offers = self._offers.get((lower, upper))
        return offers[index] if offers else b""

    def check_enough_dealt(self) -> None:
        """Refuse to go on if a round could not end.

        Raises:
            DropoutError: When fewer silos dealt than the smallest allowed sum needs or, in a complete graph, than the
                threshold.
        """
        needed = max(self.setting.policy.n_min, self.topology.threshold if self.topology.complete else 0)
        if len(self.dealt) < needed:
            raise DropoutError(f"{len(self.dealt)} silos dealt shares, where {needed} are needed")
