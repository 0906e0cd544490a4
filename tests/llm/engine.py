"""An engine that behaves as told: stands in for the vLLM server in tests of the supervisor. Not a test.

    python engine.py PORT FOLDER        # FOLDER/plan.json: one word for each start, the last one for all later starts

Words: "good"; "exits" (code 3 at once); "mute" (listens, and fails every request); "hangs" (good, until a request asks
for "forever": from then on it is busy and produces nothing). A request that says "slow" is answered after two seconds,
one that says "die" kills the engine. Like the real one, it starts a worker process; the numbers of both are appended
to FOLDER/pids.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
STARTS = FOLDER / "starts"
number = len(STARTS.read_text()) if STARTS.exists() else 0
STARTS.write_text("x" * (number + 1))
plan = json.loads((FOLDER / "plan.json").read_text())
word = plan[min(number, len(plan) - 1)]
if word == "exits":
    print("ValueError: no such model", flush=True)
    sys.exit(3)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=False)
with (FOLDER / "pids").open("a") as pids:
    pids.write(f"{os.getpid()} {worker.pid}\n")
lock, running, tokens, stuck = threading.Lock(), 0, 0, False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        metrics = (f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running {running}\n"
                   f"# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total {tokens}\n")
        self.say(200, metrics.encode())

    def do_POST(self):
        global running, tokens, stuck
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        if word == "mute":
            return self.say(503, b"{}")
        with lock:
            running += 1
        if text == "die":
            time.sleep(0.5)
            os.kill(os.getpid(), 9)
        if text == "slow":
            time.sleep(2)
        if text == "forever" and word == "hangs":
            stuck = True
        while stuck:
            time.sleep(0.1)
        with lock:
            running, tokens = running - 1, tokens + 1
        reply = {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 1}}
        self.say(200, json.dumps(reply).encode())

    def say(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
