"""Models.dev as a process of its own: serves a file as it is at each request, at a unix socket beside it.

Prints where it listens, and ends when its input closes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path

from aiohttp import web


async def main(document: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = await asyncio.to_thread(document.read_bytes)
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=body, content_type="application/json", headers={"ETag": etag})

    application = web.Application()
    application.router.add_get("/catalog.json", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    socket = document.with_suffix(".sock")
    await web.UnixSite(runner, str(socket)).start()
    print(json.dumps({"socket": str(socket)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
