"""
A language model server without a language model: the documented Ollama and OpenAI endpoints on a loopback port.

Tests start it in a thread and script its faults; benchmarks run it as a process of its own
(``python tests/loopback_llm.py --latency 0.05`` prints the address).
"""

import argparse
import asyncio
import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MODEL = "llama3.1:8b"
DIGEST = "46e0c10c039e019119339687c3c1757cc81b9da49709a3b3924863ba87ca666e"


@dataclass(frozen=True)
class Call:
    """A chat call as the server saw it: all messages, the whole request, and how often these messages came before."""

    messages: tuple[str, ...]
    body: dict[str, Any]
    repetition: int

    @property
    def user(self) -> str:
        return self.messages[1]

    @property
    def is_repair(self) -> bool:
        return len(self.messages) > 2


@dataclass(frozen=True)
class Behaviour:
    """
    How to treat a call: after `delay` seconds answer with `content`, or with the raw `body` and `status`, or
    `reset` the connection.
    """

    content: str = ""
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    delay: float = 0.0
    reset: bool = False


def profile_json(text: str) -> str:
    return json.dumps({"summarization": text, "reasoning": "The data says so."})


def echo(call: Call) -> Behaviour:
    """Answer validly, with words that depend on the prompt."""
    return Behaviour(profile_json(f"Profile made from {len(call.user)} characters, {hash_of(call.user)}."))


def hash_of(text: str) -> str:
    return format(zlib.crc32(text.encode()), "08x")


class LoopbackLLM:
    """
    The server.

    Parameters
    ----------
    behaviour
        Called once for each chat call, on the server's thread.
    latency
        Seconds added to every chat call.
    models
        Names it serves.
    """

    def __init__(
        self,
        behaviour: Callable[[Call], Behaviour] = echo,
        *,
        latency: float = 0.0,
        models: tuple[str, ...] = (MODEL,),
        port: int = 0,
    ) -> None:
        self.behaviour = behaviour
        self.latency = latency
        self.models = models
        self.port = port
        self.digest = DIGEST
        self.calls: list[Call] = []
        self.answered: list[Call] = []
        self.last_headers: dict[str, str] = {}
        self.last_host = ""  # where a client wants to go that takes this for a proxy
        self.in_flight = 0
        self.most_in_flight = 0
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Transport] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "LoopbackLLM":
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def ollama(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def listen(self) -> None:
        """Accept connections, on the port it had before if it had one."""

        async def start() -> None:
            self._server = await self._loop.create_server(
                lambda: _Connection(self), "127.0.0.1", self.port, reuse_address=True
            )
            self.port = self._server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(start(), self._loop).result()

    def die(self) -> None:
        """Stop listening and reset every connection, as a killed process does."""

        async def stop() -> None:
            if self._server:
                self._server.close()
                self._server = None
            for transport in list(self._connections):
                transport.abort()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()

    def outage(self, seconds: float) -> None:
        """Die now and come back after so many seconds; returns at once."""

        def wait_and_listen() -> None:
            self.die()
            time.sleep(seconds)
            self.listen()

        threading.Thread(target=wait_and_listen, daemon=True).start()

    def count(self) -> Counter[tuple[str, ...]]:
        """How often each conversation was answered."""
        return Counter(call.messages for call in self.answered)


class _Connection(asyncio.Protocol):
    def __init__(self, server: LoopbackLLM) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server._connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            self._server.last_headers = headers
            length = int(headers.get("content-length", 0))
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            target = urlsplit(head[0].split(" ")[1])
            self._server.last_host = target.netloc
            self._request(target.path, body)

    def _request(self, path: str, body: bytes) -> None:
        server = self._server
        if path == "/api/tags":
            listed = [{"model": name, "name": name, "digest": server.digest} for name in server.models]
            self._respond(200, json.dumps({"models": listed}).encode())
        elif path == "/v1/models":
            listed = [{"id": name, "object": "model", "created": int(time.time())} for name in server.models]
            self._respond(200, json.dumps({"object": "list", "data": listed}).encode())
        elif path in ("/api/chat", "/v1/chat/completions"):
            request = json.loads(body)
            if request["model"] not in server.models:
                error = {"error": f"model '{request['model']}' not found"}
                self._respond(404, json.dumps(error).encode())
                return
            messages = tuple(message["content"] for message in request["messages"])
            call = Call(messages, request, server._seen[messages])
            server._seen[messages] += 1
            server.calls.append(call)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            behaviour = server.behaviour(call)
            delay = server.latency + behaviour.delay
            asyncio.get_running_loop().call_later(delay, self._finish, path, call, behaviour)
        else:
            self._respond(404, b'{"error": "no such path"}')

    def _finish(self, path: str, call: Call, behaviour: Behaviour) -> None:
        self._server.in_flight -= 1
        if self._transport.is_closing():
            return
        if behaviour.reset:
            self._transport.abort()
            return
        if behaviour.body is not None or behaviour.status != 200:
            self._respond(behaviour.status, behaviour.body or b'{"error": "scripted fault"}', behaviour.headers)
            return
        usage = sum(map(len, call.messages)) // 4, len(behaviour.content) // 4
        if path == "/api/chat":
            reply: dict[str, Any] = {
                "model": call.body["model"],
                "message": {"role": "assistant", "content": behaviour.content},
                "done": True,
                "prompt_eval_count": usage[0],
                "eval_count": usage[1],
            }
        else:
            reply = {
                "choices": [{"index": 0, "message": {"role": "assistant", "content": behaviour.content}}],
                "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
            }
        self._server.answered.append(call)
        self._respond(200, json.dumps(reply).encode(), behaviour.headers)

    def _respond(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds a chat call takes")
    with LoopbackLLM(latency=parser.parse_args().latency) as server:
        print(server.ollama, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
