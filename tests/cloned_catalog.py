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
#: What takes most of the space, and no plan looks at.
_TRIMMED = {"raw_metadata": sql.SQL("'{}'::jsonb"), "message": sql.SQL("''::bytea")}


def clone_providers(
    connection: psycopg.Connection, times: int, *, tables: Iterable[str] = TABLES, trimmed: bool = False
) -> int:
    """Clone each provider, in these tables, until there are so many times as many; return how many models there are.

    ``trimmed``: leave out the messages and the records of the clones.
    """
    if times > 1:
        connection.execute("SET maintenance_work_mem = '512MB'")
        with connection.transaction():
            for table in tables:
                _clone_rows(connection, table, TABLES[table], times, trimmed=trimmed)
    connection.execute("VACUUM ANALYZE")
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
    values = [_value_of(name, id_columns, trimmed=trimmed) for name in names]
    connection.execute(
        sql.SQL("INSERT INTO {table} ({names}) SELECT {values} FROM {table} AS t, generate_series(2, %s) AS n").format(
            table=sql.Identifier(table),
            names=sql.SQL(", ").join(map(sql.Identifier, names)),
            values=sql.SQL(", ").join(values),
        ),
        [times],
    )
    for _, definition in indexes:
        connection.execute(definition)


def _value_of(name: str, id_columns: tuple[str, ...], *, trimmed: bool) -> sql.Composable:
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    if name in id_columns:
        return sql.SQL("format('x%%s-%%s', n, {})").format(column)
    return _TRIMMED.get(name, column) if trimmed else column
