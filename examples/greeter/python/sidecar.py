"""Announces a Python program to the Micro Sidecar, for as long as it runs.

Copy this page into your own project: registering is one POST, repeated before
its ttl is over, and one DELETE at the end. A program that is killed outright
vanishes from the registry when the ttl has passed.
"""

import http.client
import json
import os
import signal
import sys
import threading
import time
import urllib.request
import uuid

SIDECAR = os.environ.get("SIDECAR", "http://127.0.0.1:8081")
TTL = int(os.environ.get("TTL", "30"))  # seconds

# The sidecar is on this machine: never look for it behind a web proxy.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(server, name, **metadata):
    """Serves until SIGINT or SIGTERM, registered under name all the while."""
    address, port = server.server_address
    node = {"Id": f"{name}-{uuid.uuid4()}", "Address": address, "Port": port, "Metadata": metadata}
    service = {"Name": name, "Nodes": [node]}

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{name} listens on {address}:{port}", flush=True)
    try:
        while True:
            _tell("POST", f"/registry?ttl={TTL}s", service)
            time.sleep(TTL / 3)
    finally:
        _tell("DELETE", "/registry", service)


def _tell(method, path, service):
    """Sends the service; a sidecar that is away now is told the next time."""
    headers = {"Content-Type": "application/json"}
    body = json.dumps(service).encode()
    request = urllib.request.Request(SIDECAR + path, body, headers, method=method)
    try:
        _direct.open(request, timeout=5).close()
    except (OSError, http.client.HTTPException) as err:
        print(f"{method} {request.full_url}: {err}", file=sys.stderr)
