// The greeter as a JSON-RPC server: service go.micro.srv.greeter, method Say.Hello.
//
//   node rpc_server.mjs
//   curl -H 'Content-Type: application/json' -d '{"name": "John"}' http://127.0.0.1:8081/greeter/say/hello

import { createServer, STATUS_CODES } from 'node:http';
import { run } from './sidecar.mjs';

const NAME = 'go.micro.srv.greeter';
const MAX_BODY = 4 << 20; // bytes

const METHODS = new Map([
  ['Say.Hello', hello],
  ['Debug.Health', () => ({ status: 'ok' })],
]);

function hello(request) {
  const name = request?.name;
  if (typeof name !== 'string' || name === '') {
    throw new Failure(400, 'expected a name, as in {"name": "John"}');
  }
  return { msg: `Hello ${name}` };
}

// Failure is what the caller gets to see, in go-micro's form.
class Failure extends Error {
  constructor(code, detail) {
    super(JSON.stringify({ id: NAME, code, detail, status: STATUS_CODES[code] }));
  }
}

// Carries out {"method": "Say.Hello", "params": [{"name": "John"}], "id": 0}.
function call(body) {
  let id = 0;
  try {
    const request = JSON.parse(body);
    if (!Array.isArray(request?.params)) throw new SyntaxError('no params');
    id = request.id ?? 0;
    const method = METHODS.get(request.method);
    if (!method) throw new Failure(404, `method ${request.method} not found`);
    return { id, result: method(request.params[0]), error: null };
  } catch (err) {
    const failure = err instanceof SyntaxError ? new Failure(400, `not a JSON-RPC call: ${err.message}`) : err;
    return { id, result: null, error: failure.message };
  }
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= MAX_BODY) chunks.push(chunk); // a longer body ends as broken JSON
  }
  return Buffer.concat(chunks).toString();
}

const server = createServer(async (request, response) => {
  const body = await read(request).catch(() => null);
  if (body === null) return; // the caller hung up
  const answer = JSON.stringify(call(body));
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(answer) });
  response.end(answer);
});

await run(server, NAME);
