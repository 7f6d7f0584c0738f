"""A real HTTP server of OpenAI's chat-completions API on the loopback, with faults to order, and a way to put it before another server."""

from __future__ import annotations

import http.server
import json
import re
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable

from expvqa_lib.facs import EMOTIONS
from expvqa_lib.questions import answer_q1


def by_rules(messages: list[dict]) -> str:
    """What a well-behaved language model would write: it reads codes and sentences out of the prompt."""
    asked = messages[3 if messages[0]["role"] == "system" else 0]["content"]  # also where it is asked again
    if "Emotion: " not in asked:
        return answer_q1([int(n) for n in re.findall(r"AU(\d+)", asked)], None).replace(
            "The person", "In this face, the person"
        )
    actions = re.search(r"Facial actions: (.*)\n", asked)[1].removesuffix(".")
    feelings = [name for name in EMOTIONS if name in re.search(r"Emotion: (.*)\n", asked)[1]]
    return f"{actions}. From these actions one infers {' and '.join(feelings)}."


class ChatServer(http.server.ThreadingHTTPServer):
    """Answers by a function of the messages, or by the server `behind` it. Faults are taken one a request; all that is asked is kept."""

    daemon_threads = True

    def __init__(
        self, write: Callable[[list[dict]], str] = by_rules, behind: str | None = None, delay: float = 0.0
    ) -> None:
        self.write, self.behind, self.delay = write, behind, delay
        self.faults: list[str] = []
        self.asked: list[str] = []  # each request's body
        self.times: list[float] = []
        self.keys: set[str | None] = set()
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_) -> None:
        """A client that was killed or gave up is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server, length = self.server, int(self.headers["Content-Length"])
        body = self.rfile.read(length).decode()
        if len(body.encode()) < length:  # the client was killed within its request: nothing was asked
            self.close_connection = True
            return
        with server.lock:
            server.asked.append(body)
            server.times.append(time.monotonic())
            server.keys.add(self.headers["Authorization"])
            server.now += 1
            server.most = max(server.most, server.now)
            fault = server.faults.pop(0) if server.faults else None
        try:
            time.sleep(server.delay)
            self._answer(body, fault)
        finally:
            with server.lock:
                server.now -= 1

    def _answer(self, body: str, fault: str | None) -> None:
        if fault == "time-out":
            time.sleep(1.0)
        if fault == "cut before":
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # a reset, not a polite end
            self.close_connection = True
            return
        if fault and fault[0].isdigit():  # "429 Retry-After 1"
            status, _, header = fault.partition(" ")
            name, _, value = header.partition(" ")
            self._send(
                int(status),
                json.dumps({"error": {"message": "not now", "code": "injected"}}),
                {name: value} if name else {},
            )
            return
        told = self._completion(body)
        if fault == "malformed":
            told = told[: len(told) // 2]
        elif fault == "another form":
            told = json.dumps({"choices": []})
        elif fault == "html":
            self._send(200, "<html>Please log in</html>", {"Content-Type": "text/html"})
            return
        self._send(200, told, {}, cut=fault == "cut within")

    def _completion(self, body: str) -> str:
        if self.server.behind:
            request = urllib.request.Request(
                f"{self.server.behind}{self.path}", body.encode(), {"Content-Type": "application/json"}
            )
            return urllib.request.urlopen(request, timeout=60).read().decode()
        asked = json.loads(body)
        text = self.server.write(asked["messages"])
        usage = {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": asked["model"],
                "choices": [choice],
                "usage": usage,
            }
        )

    def _send(self, status: int, body: str, headers: dict, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode()[: len(body) // 2 if cut else None])
        if cut:
            self.close_connection = True

    def log_message(self, *_) -> None:
        pass
