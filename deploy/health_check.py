"""The container's health check: exit code 0 while the service says SERVING, else 1 and why.

In Python because the image has no curl, and not with grpcurl because that needs reflection, which can be switched off.
Where the service encrypts, the variables of the commands say how: MODELCATALOG_CLIENT_TLS_CA and its like.

Takes an address and a health entry: by default that of the whole service, which needs its database and a catalog.
"modelcatalog.accepting" is that of the process.
"""

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 4


def check(target: str = "127.0.0.1:50051", entry: str = "") -> str:
    """Return what is wrong with the service at an address; nothing, if it serves."""
    request = health_pb2.HealthCheckRequest(service=entry)
    with connect(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if status == "SERVING" else status


def connect(target: str) -> grpc.Channel:
    """Return a channel, encrypted if one of the variables says how."""
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    ca, key, certificate = (read(f"MODELCATALOG_CLIENT_TLS_{name}") for name in ("CA", "KEY", "CERT"))
    server_name = os.environ.get("MODELCATALOG_CLIENT_TLS_SERVER_NAME")
    if not (ca or server_name or os.environ.get("MODELCATALOG_CLIENT_TLS")):
        return grpc.insecure_channel(target, options)
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, certificate), options)


def read(variable: str) -> bytes | None:
    """Return the file that a variable names, if it names one."""
    path = os.environ.get(variable)
    return Path(path).read_bytes() if path else None


if __name__ == "__main__":
    sys.exit(check(*sys.argv[1:]) or None)
