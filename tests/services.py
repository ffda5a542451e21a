"""The PostgreSQL and Valkey of a test session, as a process: prints where they are, ends when its input closes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from modelcatalog_server.embedded import DataDirectory, EmbeddedPostgres, EmbeddedValkey


async def main(path: Path) -> None:
    async with (
        DataDirectory(path) as directory,
        EmbeddedPostgres(directory) as postgres,
        EmbeddedValkey(directory) as valkey,
    ):
        print(json.dumps({"database_url": postgres.dsn, "redis_url": valkey.url}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
