"""The greeter as an ordinary web server: service go.micro.srv.greeterweb.

    python3 web_server.py
    curl -H 'Micro-Handler: proxy' 'http://127.0.0.1:8081/greeterweb/hello?name=John'

The sidecar hands on the request as it came, /greeterweb included.
"""

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import sidecar

NAME = "go.micro.srv.greeterweb"


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the connection stays open between requests
    disable_nagle_algorithm = True  # and an answer leaves at once

    def do_GET(self):
        url = urlsplit(self.path)
        name = parse_qs(url.query).get("name", [""])[0]
        if url.path != "/greeterweb/hello":
            self.fail(404, f"nothing at {url.path}")
        elif not name:
            self.fail(400, "expected a name, as in /greeterweb/hello?name=John")
        else:
            self.answer(200, {"msg": f"Hello {name}"})

    def fail(self, code, detail):
        """Answers with an error in the form the sidecar's own have."""
        status = HTTPStatus(code).phrase
        self.answer(code, {"id": NAME, "code": code, "detail": detail, "status": status})

    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.send_header("Connection", "close")  # a body that nobody read
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    sidecar.run(ThreadingHTTPServer(("127.0.0.1", 0), Web), NAME, protocol="http")
