"""The greeter as a JSON-RPC server: service go.micro.srv.greeter, method Say.Hello.

    python3 rpc_server.py
    curl -H 'Content-Type: application/json' -d '{"name": "John"}' http://127.0.0.1:8081/greeter/say/hello
"""

import http
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import sidecar

NAME = "go.micro.srv.greeter"
MAX_BODY = 4 << 20  # bytes


class Failure(Exception):
    """What the caller gets to see: a status code and a sentence."""


def hello(request):
    name = request.get("name") if isinstance(request, dict) else None
    if not isinstance(name, str) or not name:
        raise Failure(400, 'expected a name, as in {"name": "John"}')
    return {"msg": f"Hello {name}"}


METHODS = {"Say.Hello": hello, "Debug.Health": lambda _: {"status": "ok"}}


class Greeter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the connection stays open between calls
    disable_nagle_algorithm = True  # and an answer leaves at once

    def do_POST(self):
        """Answers {"method": "Say.Hello", "params": [{"name": "John"}], "id": 0}."""
        answer = {"id": 0, "result": None, "error": None}
        try:
            size = int(self.headers.get("Content-Length", ""))
            if not 0 <= size <= MAX_BODY:
                raise ValueError(f"a body of {size} bytes")
            call = json.loads(self.rfile.read(size))
            answer["id"], method, params = call["id"], call["method"], call["params"]
            if method not in METHODS:
                raise Failure(404, f"method {method} not found")
            answer["result"] = METHODS[method](params[0])
        except Failure as err:
            answer["error"] = error(*err.args)
        except (ValueError, TypeError, LookupError, RecursionError) as err:
            answer["error"] = error(400, f"not a JSON-RPC call: {err}")
            self.close_connection = True  # the body may not have been read
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def error(code, detail):
    """An error as go-micro writes it: an object, as JSON, in a string."""
    status = http.HTTPStatus(code).phrase
    return json.dumps({"id": NAME, "code": code, "detail": detail, "status": status})


if __name__ == "__main__":
    sidecar.run(ThreadingHTTPServer(("127.0.0.1", 0), Greeter), NAME)
