"""Works on orders that the sidecar posts to it, and loses none.

    python3 worker.py
    micro sidecar --subscribe topic=orders,queue=billing,url=http://127.0.0.1:9090/orders

The answer says what becomes of a message: 2xx is done, 422 is a dead letter
that somebody has to look at, anything else, or no answer, comes again later.
"""

import http.server
import json
import os
import signal
import sys
import threading

PORT = int(os.environ.get("PORT", "9090"))

# A message may come twice, after a fault: remember what is done where the work
# itself is kept, in one transaction with it. Here that is memory.
done = set()
lock = threading.Lock()


def bill(order):
    """Does the work; raises ValueError for an order that nobody can bill."""
    if not isinstance(order, dict) or "order" not in order:
        raise ValueError("expected an order")
    print("billed", json.dumps(order), flush=True)


class Worker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the sidecar's connections
    timeout = 120  # seconds

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        message = self.headers["Micro-Id"]
        try:
            with lock:
                if message not in done:
                    bill(json.loads(body))
                    done.add(message)
            self.answer(200)
        except ValueError as err:  # json.JSONDecodeError is one, too
            print(f"refused after {self.headers['Micro-Attempt']} attempt(s):", err, flush=True)
            self.answer(422)
        except Exception as err:  # a fault of ours: the message comes again
            print("failed:", err, file=sys.stderr, flush=True)
            self.answer(500)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Worker)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print(f"works at http://127.0.0.1:{server.server_port}/orders", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
