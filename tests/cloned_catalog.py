"""Makes a loaded catalog many times as large by cloning its providers, in SQL.

A clone of ``openai`` is ``x2-openai`` and serves clones of its models, of the same canonical models. In the messages
that are stored encoded, ids stay those of the original.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

#: Tables with a row for each provider or model, and their columns that hold an id which begins with a provider's.
TABLES = {
    "llm_providers": ("id", "modelsdev_provider_id"),
    "provider_versions": ("id", "modelsdev_provider_id"),
    "models_metadata": ("model_id", "provider_id"),
    "model_versions": ("model_id", "provider_id"),
    "search_documents": ("model_id", "provider_id"),
}
#: What takes most of the space.
_TRIMMED = {
    "raw_metadata": sql.SQL("'{}'::jsonb"),
    "message": sql.SQL("''::bytea"),
    "content_hash": sql.SQL("''"),
    "source_url": sql.SQL("''"),
    "source_snapshot": sql.SQL("''"),
}


def clone_providers(
    connection: psycopg.Connection, times: int, *, tables: Iterable[str] = TABLES, trimmed: bool = False
) -> int:
    """Clone each provider, in these tables, until there are so many times as many; return how many models there are.

    ``trimmed``: for plans alone, leave out what the clones store that no plan looks at.
    """
    if times > 1:
        connection.execute("SET maintenance_work_mem = '512MB'")
        # A clone refers to what its original refers to: no trigger has to look for it again.
        connection.execute("SET session_replication_role = replica")
        with connection.transaction():
            for table in tables:
                _clone_rows(connection, table, TABLES[table], times, trimmed=trimmed)
    connection.execute("VACUUM (ANALYZE, INDEX_CLEANUP off)")
    row = connection.execute("SELECT count(*) FROM models_metadata").fetchone()
    assert row is not None
    return int(row[0])


def _clone_rows(
    connection: psycopg.Connection, table: str, id_columns: tuple[str, ...], times: int, *, trimmed: bool
) -> None:
    """Clone the rows of a table; its indexes are made anew, which takes a fraction of the time."""
    indexes = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = %s::regclass AND NOT indisunique",
        [table],
    ).fetchall()
    columns = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attgenerated = '' AND attidentity = '' ORDER BY attnum",
        [table],
    ).fetchall()
    names = [name for (name,) in columns]
    for name, _ in indexes:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    insert = sql.SQL("INSERT INTO {table} ({names}) SELECT {values} FROM original AS t")
    connection.execute(sql.SQL("CREATE TEMPORARY TABLE original AS SELECT * FROM {}").format(sql.Identifier(table)))
    # One clone after the other, so that what it adds to the unique indexes is side by side in them.
    for number in range(2, times + 1):
        values = [_value_of(name, id_columns, number, trimmed=trimmed) for name in names]
        statement = insert.format(
            table=sql.Identifier(table),
            names=sql.SQL(", ").join(map(sql.Identifier, names)),
            values=sql.SQL(", ").join(values),
        )
        connection.execute(statement)
    connection.execute("DROP TABLE original")
    for _, definition in indexes:
        connection.execute(definition)


def _value_of(name: str, id_columns: tuple[str, ...], number: int, *, trimmed: bool) -> sql.Composable:
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    if name in id_columns:
        return sql.SQL("{} || {}").format(f"x{number}-", column)
    return _TRIMMED.get(name, column) if trimmed else column
