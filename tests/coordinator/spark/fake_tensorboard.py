"""Behaves as TensorBoard does towards whoever starts it; ready at once."""

from __future__ import annotations

import http.server
import subprocess
import sys

if "--break" in sys.argv:
    sys.exit("tensorboard: error: no such thing as --break")
prefix = ""
for name, value in zip(sys.argv, sys.argv[1:], strict=False):
    if name == "--path_prefix":
        prefix = value
    elif name == "--host":
        host = value
    elif name == "--port":
        port = int(value)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == f"{prefix}/" else 404)
        self.end_headers()
        self.wfile.write(" ".join(sys.argv[1:]).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Silent, as TensorBoard."""


server = http.server.ThreadingHTTPServer((host, port), Handler)
helper = subprocess.Popen(["sleep", "600"])  # as its data server
address = f"http://{host}:{server.server_port}{prefix}/"
print(f"TensorBoard 0.0.0 at {address} (Press CTRL+C to quit)", file=sys.stderr, flush=True)
server.serve_forever()
