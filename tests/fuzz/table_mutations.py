"""Damage a sqlite3 bag through SQL: rows, columns and tables that the format does not have."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from numpy.random import Generator

VALUES = (
    *(
        'NULL',
        "''",
        "'text'",
        "x''",
        "x'00'",
        "x'28b52ffd00'",
        '0',
        '-1',
        '1.5',
        '1e300',
        '-1e300',
    ),
    *('9223372036854775807', '-9223372036854775808', "'1_0'", 'char(0)', 'zeroblob(100000)'),
    *("x'ff00fe'", "'\u202e/front'", 'randomblob(50)', "'cdr'", "'protobuf'", 'timestamp', 'id'),
)
COLUMNS = {
    'messages': ('id', 'topic_id', 'timestamp', 'data'),
    'topics': ('id', 'name', 'type', 'serialization_format', 'offered_qos_profiles'),
    'message_definitions': ('topic_type', 'encoding', 'encoded_message_definition'),
}
ENDLESS = (
    'CREATE VIEW {table} AS WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r)'
    " SELECT id, 1 AS topic_id, id AS timestamp, x'00' AS data, id AS rowid,"
    " '/front' AS name, 'std_msgs/msg/String' AS type, 'cdr' AS serialization_format FROM r"
)
# Whole tables, made anew: without keys and types, without row ids, or as a query without end.
REBUILT: tuple[tuple[str, ...], ...] = (
    ('CREATE TABLE new AS SELECT * FROM {table}', 'DROP TABLE {table}',
     'ALTER TABLE new RENAME TO {table}'),
    ('CREATE TABLE new(id INTEGER PRIMARY KEY, topic_id, timestamp, data) WITHOUT ROWID',
     'INSERT INTO new SELECT id, topic_id, timestamp, data FROM messages',
     'DROP TABLE messages', 'ALTER TABLE new RENAME TO messages'),
    ('DROP TABLE {table}',),
    ('DROP TABLE {table}', ENDLESS),
    ('ALTER TABLE {table} RENAME TO other', 'CREATE VIEW {table} AS SELECT * FROM other'),
    ('ALTER TABLE {table} ADD COLUMN extra DEFAULT 7',),
    ('ALTER TABLE {table} RENAME COLUMN {column} TO other',),
    ('DELETE FROM {table}',),
    ('INSERT INTO messages SELECT -id, topic_id, timestamp, data FROM messages',),
    ('INSERT INTO messages SELECT id + 4611686018427387904, topic_id, timestamp, data'
     ' FROM messages',),
    ('INSERT INTO topics SELECT id + 100, name, type, serialization_format, "", "" FROM topics',),
    ('PRAGMA user_version = -1', 'PRAGMA auto_vacuum = 1', 'VACUUM'),
    ("PRAGMA encoding = 'UTF-16'", 'VACUUM'),
)  # fmt: skip


def _pick(options: Sequence, rng: Generator):
    return options[int(rng.integers(len(options)))]


def damage_tables(path: Path, rng: Generator) -> None:
    """Run one to four statements that damage the file; those that SQLite refuses do nothing."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute('PRAGMA ignore_check_constraints = ON')
    for _ in range(int(rng.integers(1, 5))):
        table = _pick(list(COLUMNS), rng)
        column = _pick(COLUMNS[table], rng)
        if rng.integers(3) == 0:
            statements = _pick(REBUILT, rng)
        else:
            some = _pick(('1', 'id % 3 = 0', 'id = 1', 'id > 20'), rng)
            statements = (f'UPDATE OR REPLACE {table} SET {column} = {_pick(VALUES, rng)}'
                          f' WHERE {some}',)  # fmt: skip
        for statement in statements:
            with suppress(sqlite3.Error):
                db.execute(statement.format(table=table, column=column))
    db.close()
