"""Keeps each list of subjects once: a hundred thousand names must not be written anew each second."""

import hashlib
import json
import zlib

from sqlalchemy import Engine, select

from cpdb.bulk_schema import rosters
from cpdb.fans import Subject, SubjectKind
from cpdb.names import insert_ignore

KINDS = {one.value: one for one in SubjectKind}


class Rosters:
    """Numbers of lists of subjects; the last list written and the last one read are remembered."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._written: tuple[tuple[Subject, ...], int] | None = None
        self._read: tuple[int, tuple[Subject, ...]] | None = None

    def number(self, subjects: tuple[Subject, ...]) -> int:
        """The list's number; an unknown list is added in a transaction of its own."""
        written = self._written
        if written is not None and written[0] == subjects:
            return written[1]
        text = json.dumps(subjects, separators=(",", ":"), ensure_ascii=False).encode()
        digest = hashlib.blake2b(text, digest_size=32).hexdigest()
        with self._engine.begin() as connection:
            insert_ignore(connection, rosters, [{"digest": digest, "body": zlib.compress(text, 1)}])
            number = int(connection.execute(select(rosters.c.id).where(rosters.c.digest == digest)).scalar_one())
        self._written = subjects, number
        return number

    def subjects(self, number: int) -> tuple[Subject, ...]:
        """The list with this number. The same object as last time when the number is."""
        read = self._read
        if read is not None and read[0] == number:
            return read[1]
        with self._engine.connect() as connection:
            body = connection.execute(select(rosters.c.body).where(rosters.c.id == number)).scalar_one()
        found = tuple(Subject(KINDS[kind], a, b) for kind, a, b in json.loads(zlib.decompress(body)))
        self._read = number, found
        return found

    def forget(self) -> None:
        """Lists may have been deleted: what is remembered no longer holds."""
        self._written = self._read = None
