// The greeter as an ordinary web server: service go.micro.srv.greeterweb.
//
//   node web_server.mjs
//   curl -H 'Micro-Handler: proxy' 'http://127.0.0.1:8081/greeterweb/hello?name=John'
//
// The sidecar hands on the request as it came, /greeterweb included.

import { createServer, STATUS_CODES } from 'node:http';
import { run } from './sidecar.mjs';

const NAME = 'go.micro.srv.greeterweb';

const server = createServer((request, response) => {
  const [path, query] = request.url.split('?', 2);
  const name = new URLSearchParams(query).get('name');
  if (request.method !== 'GET') {
    response.setHeader('Allow', 'GET');
    fail(response, 405, 'expected GET');
  } else if (path !== '/greeterweb/hello') {
    fail(response, 404, `nothing at ${path}`);
  } else if (!name) {
    fail(response, 400, 'expected a name, as in /greeterweb/hello?name=John');
  } else {
    answer(response, 200, { msg: `Hello ${name}` });
  }
});

// Answers with an error in the form the sidecar's own have.
function fail(response, code, detail) {
  answer(response, code, { id: NAME, code, detail, status: STATUS_CODES[code] });
}

function answer(response, code, value) {
  const body = JSON.stringify(value);
  response.writeHead(code, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
}

await run(server, NAME, { protocol: 'http' });
