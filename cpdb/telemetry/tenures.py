"""What was counted in which tenure: a batch of one that is over is refused, since the next master counts it.

A master's counters are stored in the same transaction as the rows that they brought up to date, so that the next one
goes on exactly where the stored rows end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, LargeBinary, String, Table, update

from cpdb.addresses import DPID
from cpdb.schema import metadata, optional, required

# In which tenure a switch is counted, whose file holds its counters as of the last batch, and those if others wait.
switch_counters = Table(
    "switch_counters",
    metadata,
    Column("dpid", DPID, primary_key=True, autoincrement=False),
    *required(BigInteger, "token"),
    *required(String(256), "keeper"),
    *optional(LargeBinary, "body"),
)


def tenure_mark(dpid: int, token: int) -> str:
    """What stands behind the writer's name of a batch: in which tenure of which switch it was counted."""
    return f"@{dpid:016x}#{token}"


def _tenure_of(writer: str) -> tuple[int, int] | None:
    _, at, mark = writer.rpartition("@")
    dpid, _, token = mark.partition("#")
    return (int(dpid, 16), int(token)) if at and token else None


@dataclass(frozen=True, slots=True)
class KeptCounts:
    """Counters of a switch as of the last batch of a tenure: in a file of `keeper`, and in `body` if others wait."""

    dpid: int
    token: int
    keeper: str
    body: bytes | None = None


def admit_tenures(
    connection: Connection, writers: Iterable[tuple[str, bool]], counts: Sequence[KeptCounts]
) -> set[str]:
    """Writers of batches whose tenure is over: nothing of theirs may be stored, the next master counts it.

    `writers` are (name, whether its batches have rows). Holds each switch's row until the transaction ends: a tenure
    cannot end in between. Counters that were not kept with their rows are taken away: nobody goes on from older ones.
    """
    kept = {(one.dpid, one.token): one for one in counts}
    over = set()
    for writer, has_rows in sorted(dict(writers).items()):
        tenure = _tenure_of(writer)
        if tenure is None:
            continue
        news: dict[str, object] = {"token": tenure[1]} | ({"body": None} if has_rows else {})
        if (one := kept.get(tenure)) is not None:
            news = {"keeper": one.keeper, "body": one.body}
        same = switch_counters.c.dpid == tenure[0], switch_counters.c.token == tenure[1]
        if not connection.execute(update(switch_counters).where(*same).values(news)).rowcount:
            over.add(writer)
    return over
