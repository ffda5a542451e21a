"""The container's health check: exit code 0 while the service says SERVING, else 1 and why.

In Python because the image has no curl, and not with grpcurl because that needs reflection, which can be switched off.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 4


def check(target: str) -> str:
    """Return what is wrong with the service at an address; nothing, if it serves."""
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if status == "SERVING" else status


if __name__ == "__main__":
    sys.exit(check(*sys.argv[1:] or ["127.0.0.1:50051"]) or None)
