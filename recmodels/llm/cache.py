"""
The calls that have been paid for: one SQLite file, keyed by everything that made each answer.

A row is a finished call. Runs that share the file claim a row before they ask for it, and a claim dies with its run:
at once if that run's process is gone from this machine, else when its heartbeat has stopped for a minute.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from recmodels.io import processes
from recmodels.io.sqlite import SqliteFile, key_blocks
from recmodels.llm.base import Prompt, Reply

HEARTBEAT_SECONDS = 5.0
_HEARTBEAT_LAPSE = 60.0

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, answer TEXT NOT NULL, prompt_tokens INTEGER, answer_tokens INTEGER, finished REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS claims (key BLOB PRIMARY KEY, run TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, backend TEXT NOT NULL, model TEXT NOT NULL, address TEXT NOT NULL, digest TEXT NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, process_started REAL NOT NULL, open INTEGER NOT NULL,
    heartbeat REAL NOT NULL, calls INTEGER NOT NULL, seconds REAL NOT NULL, estimated_tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL
);
"""


@dataclass(frozen=True)
class ModelIdentity:
    """Which model a run asks: name of the back-end, name and address of the model, digest of its weights."""

    backend: str
    model: str
    address: str
    digest: str


@dataclass(frozen=True)
class Usage:
    """What the answered calls of a run took."""

    calls: int = 0
    """Answered calls."""
    seconds: float = 0.0
    """Wall time of the run."""
    estimated_tokens: int = 0
    """Prompt tokens by our estimate."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    """Both as the model counted them; our estimate where it does not count."""


@dataclass
class Claims:
    """The answer to a claim: keys that are ours to ask, keys another live run is asking, and answers already there."""

    ours: set[bytes] = field(default_factory=set[bytes])
    held: set[bytes] = field(default_factory=set[bytes])
    answered: dict[bytes, str] = field(default_factory=dict[bytes, str])


def key_function(identity: ModelIdentity, version: str, parameters: Mapping[str, object]) -> Callable[[Prompt], bytes]:
    """
    Return the function that gives a prompt's key: SHA-256 of back-end, digest, version, parameters and messages.

    Answers are paid for: whatever changes a key makes every answer of before unfindable.
    """
    frame = json.dumps([identity.backend, identity.digest, version, parameters], sort_keys=True)
    prefix = hashlib.sha256(frame.encode())

    def key(prompt: Prompt) -> bytes:
        state = prefix.copy()
        again = () if prompt.temperature is None else (f"temperature {prompt.temperature}",)
        for text in (prompt.system, prompt.user, *(prompt.follow_up or ()), *again):
            encoded = text.encode()
            state.update(len(encoded).to_bytes(8, "little"))
            state.update(encoded)
        return state.digest()

    return key


class CallCache(SqliteFile):
    """An open cache file, made if missing; raises InputError if it is no cache or cannot be opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "cache of answers", _TABLES)
        self._run = ""

    def load(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Return the answers that are there, by key."""
        found: dict[bytes, str] = {}
        for block in key_blocks(keys):
            found.update(self._among("SELECT key, answer FROM answers WHERE key IN", block))
        return found

    def forget(self, keys: Sequence[bytes]) -> None:
        """Delete answers, so that they are asked for again."""
        with self._transaction():
            for statement in ("DELETE FROM answers WHERE key = ?", "DELETE FROM claims WHERE key = ?"):
                self._connection.executemany(statement, [(key,) for key in keys])

    def known_digest(self, backend: str, model: str, address: str) -> str | None:
        """Return the digest that this model had when a run last asked for it there."""
        row = self._connection.execute(
            "SELECT digest FROM runs WHERE backend = ? AND model = ? AND address = ? ORDER BY heartbeat DESC LIMIT 1",
            (backend, model, address),
        ).fetchone()
        return row[0] if row else None

    def last_usage(self, backend: str, model: str, address: str) -> Usage | None:
        """Return what the last run that got answers from this model took."""
        row = self._connection.execute(
            "SELECT calls, seconds, estimated_tokens, prompt_tokens, answer_tokens FROM runs "
            "WHERE backend = ? AND model = ? AND address = ? AND calls > 0 ORDER BY heartbeat DESC LIMIT 1",
            (backend, model, address),
        ).fetchone()
        return Usage(*row) if row else None

    @contextmanager
    def run(self, identity: ModelIdentity) -> Generator[None]:
        """Claim and store on behalf of a run of this model; its claims end with the block."""
        self._run = uuid.uuid4().hex
        process = psutil.Process()
        values = asdict(identity) | {"run": self._run, "host": processes.host(), "pid": process.pid}
        values |= {"started": process.create_time(), "now": time.time()}
        self._connection.execute("DELETE FROM claims WHERE key IN (SELECT key FROM answers)")
        self._connection.execute(
            "INSERT INTO runs VALUES (:run, :backend, :model, :address, :digest, :host, :pid, :started, 1, :now, "
            "0, 0, 0, 0, 0)",
            values,
        )
        try:
            yield
        finally:
            with self._transaction():
                self._connection.execute("DELETE FROM claims WHERE run = ?", (self._run,))
                self._connection.execute("UPDATE runs SET open = 0 WHERE run = ?", (self._run,))

    def heartbeat(self, usage: Usage) -> None:
        """Say that the run lives, and what it has taken so far."""
        self._connection.execute(
            "UPDATE runs SET heartbeat = :now, calls = :calls, seconds = :seconds, prompt_tokens = :prompt_tokens, "
            "estimated_tokens = :estimated_tokens, answer_tokens = :answer_tokens WHERE run = :run",
            asdict(usage) | {"now": time.time(), "run": self._run},
        )

    def claim(self, keys: Sequence[bytes]) -> Claims:
        """Claim keys that are neither answered nor claimed by another live run, in one transaction per 500."""
        claims = Claims()
        alive: dict[str, bool] = {self._run: True}
        for block in key_blocks(keys):
            with self._transaction():
                claims.answered.update(self._among("SELECT key, answer FROM answers WHERE key IN", block))
                for key, run in self._among("SELECT key, run FROM claims WHERE key IN", block):
                    if run not in alive:
                        alive[run] = self._alive(run)
                    if alive[run] and run != self._run and key not in claims.answered:
                        claims.held.add(key)
                ours = [key for key in block if key not in claims.held and key not in claims.answered]
                self._connection.executemany(
                    "INSERT OR REPLACE INTO claims VALUES (?, ?)", [(key, self._run) for key in ours]
                )
            claims.ours.update(ours)
        return claims

    def release(self, keys: Sequence[bytes]) -> None:
        """Give up claims."""
        rows = [(key, self._run) for key in keys]
        with self._transaction():
            self._connection.executemany("DELETE FROM claims WHERE key = ? AND run = ?", rows)

    def store(self, replies: Sequence[tuple[bytes, Reply]]) -> None:
        """Keep finished calls, in one transaction. Their claims mean nothing any more and go with the run."""
        now = time.time()
        rows = [(key, reply.text, reply.prompt_tokens, reply.answer_tokens, now) for key, reply in replies]
        statement = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)"
        if len(rows) == 1:  # a statement by itself is a transaction already, in a third of the time
            self._connection.execute(statement, rows[0])
        else:
            with self._transaction():
                self._connection.executemany(statement, rows)

    def _alive(self, run: str) -> bool:
        row = self._connection.execute(
            "SELECT host, pid, process_started, open, heartbeat FROM runs WHERE run = ?", (run,)
        ).fetchone()
        if row is None or not row[3]:
            return False
        host, pid, process_started, _, heartbeat = row
        if host != processes.host():
            return time.time() - heartbeat < _HEARTBEAT_LAPSE
        return not processes.has_ended(pid, process_started)
