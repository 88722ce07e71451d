"""Records: where they come from, how they are scaled, held out and, in a simulation, dealt.

`records` has what they are, and how a data set is dealt out; `tables` a declared table, from `sources` (files) and
`databases` (queries), kept by `cache`; `persons` says whose a record is, and `lookalikes` whose else it may be;
`same_source` whether two tables are one; `headers` whether one has its columns; `withdrawn` whose records are read no
more, and `handed_out` who must stay held out; `folders` reads `images`, `idx` and `json_lines`; `own` calls a user's
own function, `taking` takes what it returns, and `own_hash` tells it from others; `access` says who gets which.
"""

from fedmodel.data.access import (
    check_deployed,
    check_read_by_silos,
    deployed_records,
    held_out_records,
    held_out_table,
    may_deal_more,
    silo_records,
    table_source,
    unread,
)
from fedmodel.data.cache import Cache
from fedmodel.data.handed_out import Handed, add_handed_out, check_holds_out, read_handed_out
from fedmodel.data.lookalikes import lookalikes, table_lookalikes
from fedmodel.data.own import settled
from fedmodel.data.records import Records, scale
from fedmodel.data.same_source import check_sources, marks
from fedmodel.data.tables import table_records
from fedmodel.data.withdrawn import Withdrawals, Withdrawn, add_withdrawn, read_withdrawn

__all__ = [
    "Cache",
    "Handed",
    "Records",
    "Withdrawals",
    "Withdrawn",
    "add_handed_out",
    "add_withdrawn",
    "check_deployed",
    "check_holds_out",
    "check_read_by_silos",
    "check_sources",
    "deployed_records",
    "held_out_records",
    "held_out_table",
    "lookalikes",
    "marks",
    "may_deal_more",
    "read_handed_out",
    "read_withdrawn",
    "scale",
    "settled",
    "silo_records",
    "table_lookalikes",
    "table_records",
    "table_source",
    "unread",
]
