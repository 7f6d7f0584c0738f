"""A real HTTP server of OpenAI's chat-completions API on the loopback, with faults to order."""

import http.server
import json
import multiprocessing
import re
import threading
import time
from collections.abc import Callable

from expvqa_lib.facs import EMOTIONS
from expvqa_lib.questions import answer_q1


def by_rules(messages: list[dict]) -> str:
    """Write what a good language model would, from the codes or sentences in the prompt."""
    prompt = messages[3 if messages[0]["role"] == "system" else 0]["content"]
    if "Emotion: " not in prompt:
        numbers = [int(n) for n in re.findall(r"AU(\d+)", prompt)]
        return answer_q1(numbers, None).replace("The person", "In this face, the person")
    actions = re.search(r"Facial actions: (.*)\n", prompt)[1].removesuffix(".")
    feelings = [name for name in EMOTIONS if name in re.search(r"Emotion: (.*)\n", prompt)[1]]
    return f"{actions}. From these actions one infers {' and '.join(feelings)}."


class ChatServer(http.server.ThreadingHTTPServer):
    """Answers with a function of the messages; `faults` are used up one a request."""

    daemon_threads = True

    def __init__(self, write: Callable[[list[dict]], str] = by_rules, delay: float = 0.0) -> None:
        self.write, self.delay = write, delay
        self.faults: list[str] = []
        self.bodies: list[str] = []
        self.keys: set[str | None] = set()
        self.finish_reason = "stop"
        self.first: Callable | None = None  # of the messages: the first tokens with their log-probabilities
        self.takes: Callable[[dict], bool] = lambda body: True  # another body is refused with 400
        self.usage: dict | None = {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60}
        self.lock, self.active, self.most_active = threading.Lock(), 0, 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_) -> None:
        """A client that was killed is part of the tests."""


def kill_after(server: ChatServer, requests: int, target: Callable, *args: object) -> None:
    """Run `target` in a process, and kill it once the server has so many requests; then end the delay."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    while len(server.bodies) < requests and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join()
    server.delay = 0


def predict_command(own, output, *more, model="any") -> list[str]:
    """The command line that asks `model` about the face table `own`."""
    options = ["--model", model, "--data", own, "--output", output, *more]
    return ["predict", *map(str, options)]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server, length = self.server, int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the client was killed within its request
            self.close_connection = True
            return
        with server.lock:
            server.bodies.append(body.decode())
            server.keys.add(self.headers["Authorization"])
            server.active += 1
            server.most_active = max(server.most_active, server.active)
            fault = server.faults.pop(0) if server.faults else ""
        time.sleep(server.delay + 3 * (fault == "slow"))
        status, answer = 200, {} if fault == "another form" else self._completion(json.loads(body))
        if fault.isdigit() or not server.takes(json.loads(body)):
            status, answer = int(fault or 400), {"error": {"message": "not so", "code": "injected"}}
        self._send(status, json.dumps(answer).encode(), cut=fault == "cut")
        with server.lock:
            server.active -= 1

    def _completion(self, request: dict) -> dict:
        message = {"role": "assistant", "content": self.server.write(request["messages"])}
        choice = {"index": 0, "finish_reason": self.server.finish_reason, "message": message}
        if request.get("logprobs") and self.server.first:
            tops = [
                {"token": t, "logprob": p, "bytes": None} for t, p in self.server.first(request["messages"])
            ]
            choice["logprobs"] = {"content": [tops[0] | {"top_logprobs": tops}], "refusal": None}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"]}
        return completion | {"choices": [choice], "usage": self.server.usage}

    def _send(self, status: int, answer: bytes, cut: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if cut else answer)
        self.close_connection = cut

    def log_message(self, *_) -> None:
        """Nothing on standard error."""
