"""Publishes an order, and knows that it is stored.

    python3 publish.py '{"order": 1, "customer": "7"}'

An answer of 200 means that every durable queue of the topic will get the
message. Without an answer nobody knows: then it is sent again, and Micro-Id
sees to it that it is stored once.
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

SIDECAR = os.environ.get("SIDECAR", "http://127.0.0.1:8081")
TOPIC = os.environ.get("TOPIC", "orders")

# The sidecar is on this machine: never look for it behind a web proxy.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def publish(topic, order, tries=20):
    """Publishes until the sidecar has said that the message is stored."""
    headers = {
        "Content-Type": "application/json",
        "Micro-Id": str(uuid.uuid4()),  # the same in every try
        "Micro-Key": str(order.get("customer", "")),  # keeps a customer's orders in order
    }
    request = urllib.request.Request(f"{SIDECAR}/broker?topic={topic}", json.dumps(order).encode(), headers)
    for n in range(1, tries + 1):
        try:
            _direct.open(request, timeout=10).close()
            return
        except urllib.error.HTTPError as err:
            if err.code < 500:  # our own mistake: it is the same the next time
                raise
            wrong = f"{err.code} {err.read().decode()}"
        except (OSError, http.client.HTTPException) as err:
            wrong = str(err)
        print(f"try {n}: {wrong}", file=sys.stderr)
        time.sleep(min(2**n / 10, 5))
    raise TimeoutError(f"not stored after {tries} tries")


if __name__ == "__main__":
    try:
        publish(TOPIC, json.loads(sys.argv[1]) if len(sys.argv) > 1 else {"order": 1, "customer": "7"})
        print("stored")
    except urllib.error.HTTPError as err:  # the sidecar's errors are JSON
        sys.exit(f"{err.url}: {err.code} {err.read().decode()}")
    except (OSError, ValueError) as err:
        sys.exit(f"{SIDECAR}: {err}")
