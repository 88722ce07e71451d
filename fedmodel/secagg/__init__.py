"""Secure aggregation: the server learns the sum of many silos' vectors and nothing else about any of them.

The specification is `docs/secure-aggregation.md`; it says what each party holds, sends and checks, and what each
adversary gains. Here is its code, without a network: `Participant`, `Collection` and `Tally` take bytes and return
bytes.

    parameters   roster, policy, window: what no message can change
    keys         from the two secrets that can be recovered to every key of a round
    lineage      which rounds made the state that a silo keeps between rounds
    messages     the five signed messages, byte by byte
    state        what a silo keeps between two stages
    progress     which acts of it a ledger must record
    silo         a silo's stages and refusals
    collection   the server's side of a window: adverts and shares
    tally        the server's side of a round: the sum, or who is to blame if there is none
    weights      how many equal silos a weighted sum is worth

Does NOT protect against poisoned inputs, nor against what follows from the sums themselves: two sums over cohorts that
differ in one silo differ by its vector. Differential privacy at the silo protects against the latter.
"""

from fedmodel.secagg.collection import Collection
from fedmodel.secagg.lineage import FRESH, LINEAGE_SIZE, configuration, lineage_after, model_digest
from fedmodel.secagg.messages import join_messages, pack_numbers, read_numbers, sender_of, split_messages
from fedmodel.secagg.parameters import MOST_ATTEMPTS, Consistency, Member, Policy, Roster, Setting, Window
from fedmodel.secagg.progress import Progress
from fedmodel.secagg.silo import Participant
from fedmodel.secagg.tally import Tally
from fedmodel.secagg.weights import effective_silos, least_effective

__all__ = [
    "FRESH",
    "LINEAGE_SIZE",
    "MOST_ATTEMPTS",
    "Collection",
    "Consistency",
    "Member",
    "Participant",
    "Policy",
    "Progress",
    "Roster",
    "Setting",
    "Tally",
    "Window",
    "configuration",
    "effective_silos",
    "join_messages",
    "least_effective",
    "lineage_after",
    "model_digest",
    "pack_numbers",
    "read_numbers",
    "sender_of",
    "split_messages",
]
