"""What went wrong with Redis, in one clause for the log, without secrets."""

from __future__ import annotations

import os
import re

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import InvalidResponse, RedisClusterException

_UNREACHED = re.compile(r"Error (-?\d+) connecting to (\S+)\. (.*)")
# What a server says that does not know AUTH: the password follows.
_ARGUMENTS = ", with args beginning with"
_MAX_CHARS = 200


def describe_error(error: BaseException) -> str:
    """Return what Redis said, or what failed."""
    if isinstance(error, MasterNotFoundError):
        return "no Sentinel that answers names a master for the service"  # redis-py lists all options of all clients
    if isinstance(error, RedisClusterException) and error.__cause__ is not None:
        return f"no node of the cluster answers: {describe_error(error.__cause__)}"
    if isinstance(error, InvalidResponse):
        return "what answers is no Redis"
    text = " ".join(str(error).partition(_ARGUMENTS)[0].split()).rstrip(".")
    if unreached := _UNREACHED.fullmatch(text):
        number, place, why = unreached.groups()
        if why.startswith("Connect call failed"):
            why = os.strerror(int(number))
        text = f"no server answers at {place}: {why}"
    if not text:
        text = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return text[:_MAX_CHARS]
