"""The PostgreSQL and Valkey of a test session, as a process: prints where they are, ends when its input closes.

Which of the two may be named behind the directory: ``services.py DIRECTORY postgres``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from modelcatalog_server.embedded import DataDirectory, EmbeddedPostgres, EmbeddedValkey


async def main(path: Path, *wanted: str) -> None:
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(DataDirectory(path))
        addresses = {}
        if "postgres" in wanted:
            addresses["database_url"] = (await stack.enter_async_context(EmbeddedPostgres(directory))).dsn
        if "valkey" in wanted:
            addresses["redis_url"] = (await stack.enter_async_context(EmbeddedValkey(directory))).url
        print(json.dumps(addresses), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *(sys.argv[2:] or ("postgres", "valkey"))))
