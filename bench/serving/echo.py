"""The ceiling: a bare grpc.aio server on the same loop, which answers each method with the bytes of a file.

python echo.py get=/tmp/get list=/tmp/list    # prints its address; POST /echo/get
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop


def answering(body: bytes) -> grpc.RpcMethodHandler:
    async def answer(_request: bytes, _context: Any) -> bytes:
        return body

    return grpc.unary_unary_rpc_method_handler(answer)


async def main(methods: dict[str, Path]) -> None:
    handlers = {method: answering(path.read_bytes()) for method, path in methods.items()}
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo ready on 127.0.0.1:{port}: ", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main({method: Path(path) for method, _, path in (argument.partition("=") for argument in sys.argv[1:])}))
