"""Everything a program asks of its sidecar, one HTTP request each.

    python3 client.py [NAME]
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

SIDECAR = os.environ.get("SIDECAR", "http://127.0.0.1:8081")
JSON = {"Content-Type": "application/json"}

# The sidecar is on this machine: never look for it behind a web proxy.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(path, body=None, headers=None):
    """GETs path from the sidecar, or POSTs the body; returns the answer's text."""
    data = None if body is None else body.encode()
    request = urllib.request.Request(SIDECAR + path, data, headers or {})
    with _direct.open(request, timeout=10) as response:
        return response.read().decode().strip()


def main(name):
    request = json.dumps({"name": name})
    form = {"service": "go.micro.srv.greeter", "method": "Say.Hello", "request": request}
    query = urllib.parse.urlencode({"name": name})

    print("services:", ask("/registry"))
    print("by path: ", ask("/greeter/say/hello", request, JSON))
    print("by /rpc: ", ask("/rpc", urllib.parse.urlencode(form)))
    print("proxied: ", ask(f"/greeterweb/hello?{query}", headers={"Micro-Handler": "proxy"}))

    # "micro subscribe greetings" in another terminal shows the message.
    ask("/broker?topic=greetings", f"Hello {name}", {"Content-Type": "text/plain"})
    print("published")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "John")
    except urllib.error.HTTPError as err:  # the sidecar's errors are JSON
        sys.exit(f"{err.url}: {err.code} {err.read().decode()}")
    except OSError as err:
        sys.exit(f"no sidecar at {SIDECAR}: {err}")
