"""A scripted OpenAI-compatible endpoint on loopback: a real HTTP server that answers, counts, and misbehaves on demand.

    with Endpoint(lambda body: "Paris") as it:
        ask(it.url)                  # it.url ends in /v1
        assert len(it.seen) == 1     # the bodies it received, in order
        it.fault = 500               # from now on it fails

`reply(body)` gives the text of the answer, or a whole choice as a mapping ({"message": {…}, "logprobs": {…}}).
`fault` is one of FAULTS, or a callable that is given the number of the request (0, 1, …) and returns one of them.
"""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATUSES = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504)
FAULTS = (
    None,
    *STATUSES,
    "refused",  # nobody listens at the address (only when it is set before the server starts)
    "hang",  # accepts the request and says nothing, until the server is closed
    "slow headers",  # the status line, then header after header, one every 0.2 s, for ever
    "cut",  # half of the answer, or half of the stream, then the connection is closed
    "cut early",  # the headers of an answer or a stream, and no byte of its body
    "wrong json",  # 200, application/json, and a body that is not JSON
    "wrong shape",  # 200, JSON, but not an answer
    "wrong type",  # 200 and a page in HTML
    "empty",  # 200 and no body
    "redirect",  # 307 to the address in `elsewhere`
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def handle_error(self, request, client_address):
        """A client that went away is counted where it is noticed; a mistake of this server is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Endpoint:
    """An OpenAI-compatible server on a free port of 127.0.0.1, for as long as the `with` block lasts.

    `seen` holds the bodies of all chat requests it received (whether it answered them or not), `headers` theirs,
    `answered` counts complete answers, `aborted` those whose client went away. `delay_s` is waited before an answer,
    `pace_s` between two chunks of a stream. `models` are the names it serves (any name is answered).
    """

    def __init__(
        self, reply=lambda body: "ok", *, fault=None, delay_s=0.0, pace_s=0.0, models=("test-model",), elsewhere=None
    ):
        self.reply, self.fault, self.delay_s, self.pace_s = reply, fault, delay_s, pace_s
        self.models, self.elsewhere = tuple(models), elsewhere
        self.seen, self.headers = [], []
        self.answered = self.aborted = 0
        self.closing, self.lock = threading.Event(), threading.Lock()

    def __enter__(self):
        if self.fault == "refused":  # bound, never listening: the port is nobody else's, and connecting fails at once
            self._socket = socket.socket()
            self._socket.bind(("127.0.0.1", 0))
            port = self._socket.getsockname()[1]
        else:
            self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"endpoint": self}))
            port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_):
        self.closing.set()
        if hasattr(self, "_socket"):
            self._socket.close()
        else:
            self._server.shutdown()
            self._server.server_close()

    def note(self, body, headers):
        """Count a request; its number."""
        with self.lock:
            self.seen.append(body)
            self.headers.append(headers)
            return len(self.seen) - 1

    def wait(self, condition, patience_s=5.0):
        """Whether `condition()` comes true in time: what a server notices, it notices a moment later."""
        until = time.monotonic() + patience_s
        while not condition() and time.monotonic() < until:
            time.sleep(0.01)
        return condition()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one write for the head and the body
    endpoint: Endpoint

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.rstrip("/").endswith("/models"):
            self._json(
                200,
                {
                    "object": "list",
                    "data": [{"id": m, "object": "model", "owned_by": "test"} for m in self.endpoint.models],
                },
            )
        elif self.path == "/health":
            self._json(200, {})
        else:
            self._json(404, {"error": {"message": f"no {self.path}", "type": "not_found", "code": 404}})

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw
        it = self.endpoint
        number = it.note(body, dict(self.headers))
        fault = it.fault(number) if callable(it.fault) else it.fault
        try:
            if fault is None:
                self._answer(body)
                with it.lock:
                    it.answered += 1
            else:
                self._misbehave(fault, body)
        except (BrokenPipeError, ConnectionResetError):
            with it.lock:
                it.aborted += 1
            self.close_connection = True

    def _answer(self, body, cut=None):
        """The whole answer; or only half of it (`cut="half"`), or only its headers (`cut="head"`)."""
        it = self.endpoint
        if it.delay_s:
            it.closing.wait(it.delay_s)
        said = it.reply(body)
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        choice = choice | said if isinstance(said, dict) else choice
        text = choice["message"].get("content") or ""
        asked = sum(len(str(m.get("content")).split()) for m in body.get("messages", ()))
        used = {
            "prompt_tokens": asked,
            "completion_tokens": len(text.split()),
            "total_tokens": asked + len(text.split()),
        }
        common = {"id": "chatcmpl-test", "created": 1, "model": body.get("model")}
        if not body.get("stream"):
            return self._json(200, {**common, "object": "chat.completion", "choices": [choice], "usage": used}, cut=cut)
        common["object"] = "chat.completion.chunk"
        pieces = [text[i : i + 8] for i in range(0, len(text), 8)]
        deltas = [{"role": "assistant", "content": ""}, *({"content": p} for p in pieces)]
        chunks = [{**common, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
        chunks.append({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append({**common, "choices": [], "usage": used})
        sent = {None: len(chunks), "half": max(2, len(chunks) // 2), "head": 0}[cut]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in [*chunks[:sent], *([] if cut else [None])]:
            line = f"data: {'[DONE]' if chunk is None else json.dumps(chunk)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if it.pace_s:
                self.wfile.flush()
                it.closing.wait(it.pace_s)
        if cut:
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _json(self, status, value, headers=(), cut=None):
        body = json.dumps(value).encode()
        sent = body[: {None: len(body), "half": len(body) // 2, "head": 0}[cut]]
        self._raw(status, sent, "application/json", headers, announced=len(body))

    def _raw(self, status, body, kind, headers=(), announced=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if announced is not None and announced != len(body):
            self.close_connection = True

    def _misbehave(self, fault, body):
        it = self.endpoint
        if fault in STATUSES:
            after = [("Retry-After", "1")] if fault in (429, 503) else []
            self._json(fault, {"error": {"message": f"scripted {fault}", "type": "scripted", "code": fault}}, after)
        elif fault == "hang":
            it.closing.wait(60)
            self.close_connection = True
        elif fault == "slow headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(300):
                self.wfile.write(b"X-Slow-%d: yes\r\n" % number)
                self.wfile.flush()
                if it.closing.wait(0.2):
                    break
            self.close_connection = True
        elif fault in ("cut", "cut early"):
            self._answer(body, cut="half" if fault == "cut" else "head")
        elif fault == "wrong json":
            self._raw(200, b'{"choices": [{"message": ', "application/json")
        elif fault == "wrong shape":
            self._json(200, {"choices": "none"})
        elif fault == "wrong type":
            self._raw(200, b"<html><body>Please log in</body></html>", "text/html")
        elif fault == "empty":
            self._raw(200, b"", "application/json")
        elif fault == "redirect":
            self._raw(307, b"", "text/plain", [("Location", f"{it.elsewhere}/chat/completions")])
        else:
            raise ValueError(f"no fault {fault!r}; there are {', '.join(map(str, FAULTS))}")
