"""A small OpenAI-compatible server on loopback that misbehaves on demand."""

import json
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("429", "500", "401", "hang", "drip", "truncated", "wrong", "html", "empty", "cut")


class FaultServer:
    """Serves completions, chats and embeddings; use it in a `with`.

    Args:
      answer: (prompt, seed + index of the completion) -> text.
      faults: for each request in turn one of FAULTS or None; nothing more is wrong after the last.
        'hang' and 'drip' last until the server is closed.

    Attributes:
      url: of the API.
      requests: (path, headers, body) of everything that was asked.
    """

    def __init__(
        self,
        answer: Callable[[str, int], str] = lambda prompt, seed: f" answer to {prompt}",
        faults: Iterable[str | None] = (),
    ):
        self.answer, self._faults = answer, iter(faults)
        self.requests = []
        self._lock, self.closing = threading.Lock(), threading.Event()
        self.at_once = self.most_at_once = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, request) -> str | None:
        """Notes a request; the fault that it meets."""
        with self._lock:
            self.requests.append(request)
            return next(self._faults, None)

    def count(self, change: int) -> None:
        with self._lock:
            self.at_once += change
            self.most_at_once = max(self.at_once, self.most_at_once)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = owner.take((self.path, dict(self.headers), body))
        owner.count(1)
        try:
            content = json.dumps(_respond(owner, self.path, body)).encode()
            self._misbehave(fault, content)
        except OSError:  # the client has gone
            self.close_connection = True
        finally:
            owner.count(-1)

    def _misbehave(self, fault: str | None, content: bytes):
        headers = {}
        if fault in ("429", "500", "401"):
            headers = {"Retry-After": "0.01"} if fault == "429" else {}
            said = {"error": {"message": f"refused {self.headers.get('Authorization')}"}}
            return self._send(int(fault), json.dumps(said).encode(), headers)
        if fault == "hang":
            return self.server.owner.closing.wait()
        if fault == "truncated":
            content = content[:-20]
        if fault == "wrong":
            content = b'{"choices": [{"text": 7}], "usage": null}'
        if fault == "html":
            content = b"<html>upstream is down</html>"
        if fault == "empty":
            content = b'{"choices": []}'
        if fault == "cut":
            self._send(200, content[:-20], {"Content-Length": str(len(content))})
            self.close_connection = True
            return None
        if fault == "drip":
            self._send(200, b"", {"Content-Length": str(len(content))})
            for byte in content:
                if self.server.owner.closing.wait(0.05):
                    break
                self.wfile.write(bytes([byte]))
            self.close_connection = True
            return None
        return self._send(200, content, headers)

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def _respond(owner: FaultServer, path: str, body: dict) -> dict:
    if path.endswith("/embeddings"):
        vectors = [[float(len(text)), 1.0] for text in body["input"]]
        rows = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return {"data": rows[::-1], "usage": {"prompt_tokens": len(vectors)}}
    chat = path.endswith("/chat/completions")
    prompt = body["messages"][-1]["content"] if chat else body["prompt"]
    texts = [owner.answer(prompt, body["seed"] + i) for i in range(body.get("n", 1))]
    return {
        "choices": [_choice(text, body, chat) for text in texts],
        "usage": {
            "prompt_tokens": len(prompt.split()),
            "completion_tokens": sum(len(text.split()) for text in texts),
        },
    }


def _choice(text: str, body: dict, chat: bool) -> dict:
    """A choice in the form of chats (llama.cpp's of completions too) or of completions.

    Each word is a token of log-probability -0.5; the likeliest first are ' yes' and ' no'.
    """
    words = text.split()
    top = {" yes": -0.5, " no": -1.5}
    if not body.get("logprobs"):
        logprobs = None
    elif chat:
        shown = [{"token": token, "logprob": value} for token, value in top.items()]
        logprobs = {"content": [{"logprob": -0.5, "top_logprobs": shown} for _ in words]}
    else:
        logprobs = {"token_logprobs": [-0.5] * len(words), "top_logprobs": [top] * len(words)}
    said = {"message": {"content": text}} if chat else {"text": text}
    return {**said, "finish_reason": "stop", "logprobs": logprobs}
