"""A PostgreSQL server of the distribution's packages, for as long as a test needs it."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from deployment import absent_service, free_port

SYSTEM_USER = "postgres"


@dataclass(frozen=True)
class Postgres:
    """
    A running server.

    Attributes
    ----------
    binaries
        Folder of the server's programs.
    folder
        Its data, its log and its socket.
    port
        Where it listens on 127.0.0.1.
    password
        Password of the user `dagster`, who owns the database `dagster`.
    """

    binaries: Path
    folder: Path
    port: int
    password: str

    def control(self, *arguments: str) -> None:
        """Run `pg_ctl` and wait for its effect."""
        self.execute("pg_ctl", "--pgdata", str(self.folder / "data"), "--wait", "--silent", *arguments)

    def restart(self, mode: str) -> None:
        """Stop the server in one of PostgreSQL's shutdown modes, and start it again."""
        self.control("restart", "--mode", mode, "--log", str(self.folder / "postgres.log"))

    def execute(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs, which refuse to be run by root."""
        done = subprocess.run(
            [*_unprivileged(), str(self.binaries / program), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server inherits it: a pipe would never end
            stderr=(self.folder / "commands.log").open("a"),
        )
        assert done.returncode == 0, (self.folder / "commands.log").read_text()


def _unprivileged() -> list[str]:
    return ["runuser", "-u", SYSTEM_USER, "--"] if os.geteuid() == 0 else []


def server_binaries() -> Path:
    """Return the folder with the newest server's programs; skip or fail the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if not found:
        absent_service("no PostgreSQL server in /usr/lib/postgresql: `make services` installs one")
    return found[-1].parent


@contextlib.contextmanager
def running_postgres() -> Generator[Postgres]:
    """Yield a server with an empty database; it and its data are gone afterwards."""
    binaries = server_binaries()
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="recmodels-postgres-"))
    server = Postgres(binaries, folder, free_port(), secrets.token_hex(16))
    try:
        (folder / "password").write_text(server.password)
        if os.geteuid() == 0:
            account = pwd.getpwnam(SYSTEM_USER)
            for path in (folder, folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        server.execute(
            "initdb",
            *("--pgdata", str(folder / "data"), "--username", "dagster", "--pwfile", str(folder / "password")),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"),
        )
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {server.port}\nunix_socket_directories = '{folder}'\n"
            )
        server.control("start", "--log", str(folder / "postgres.log"))
        try:
            _create_database(server)
            yield server
        finally:
            server.control("stop", "--mode", "immediate")
    finally:
        shutil.rmtree(folder)


def _create_database(server: Postgres) -> None:
    import psycopg2

    connection = psycopg2.connect(
        host="127.0.0.1", port=server.port, user="dagster", password=server.password, dbname="postgres"
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE dagster")
    finally:
        connection.close()
