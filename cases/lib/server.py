"""A retrieval server in Search-R1's form that misbehaves in one way: server.py MODE PORT_FILE LOG_FILE.

redirect       answers a path that ends in a slash by 307 to the path without it, as Starlette does
retry_after    answers 429 with Retry-After for the first twelve seconds
surrogate      cuts one document of each batch within a surrogate pair, as JavaScript's slice does
escapes        answers 500 with control sequences and a bidirectional override in the body
"""
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode, port_file, log_file = sys.argv[1:]
DOCUMENT = {"id": "d1", "contents": "\"Chad\"\nThe capital of Chad is N'Djamena."}
CLOSED = 12.0  # seconds
began = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body, headers=()):
        body = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        global began
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        began = began or time.time()
        passed = time.time() - began
        queries = body.get("queries", [])
        with open(log_file, "a") as log:
            log.write(f"{passed:.2f} {self.path} {len(queries)}\n")
        if mode == "redirect" and self.path.endswith("/"):
            return self.reply(307, "", [("Location", self.path.rstrip("/"))])
        if mode == "retry_after" and passed < CLOSED:
            return self.reply(429, '{"detail": "slow down"}', [("Retry-After", str(int(CLOSED - passed) + 1))])
        if mode == "escapes":
            return self.reply(500, "broken\x1b]0;owned\x07\x1b[2J\u009b31m\u202e\u200b\r\ndisk")
        answer = json.dumps({"result": [[{"document": DOCUMENT, "score": 1.0}] for _ in queries]})
        if mode == "surrogate":
            answer = answer.replace("N'Djamena.", "N'Djamena \\ud83c", 1)
        self.reply(200, answer)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(port_file + ".new", "w") as file:
    file.write(str(server.server_address[1]))
os.rename(port_file + ".new", port_file)
threading.Timer(300, lambda: os._exit(0)).start()
server.serve_forever()
