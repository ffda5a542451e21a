"""gRPC: servicers, what is around every call, messages, errors. With the client the only package that knows grpc."""

import os

# gRPC would handle forks, which nobody here does without exec, and say so on standard error for each child we start.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
