// Everything a program asks of its sidecar, one HTTP request each.
//
//   node client.mjs [NAME]

import { SIDECAR } from './sidecar.mjs';

const name = process.argv[2] ?? 'John';
const json = { 'Content-Type': 'application/json' };

// Asks the sidecar; returns the answer's text, or throws what went wrong.
async function ask(path, options) {
  const response = await fetch(SIDECAR + path, { signal: AbortSignal.timeout(10_000), ...options });
  const text = (await response.text()).trim();
  if (!response.ok) throw new Error(`${response.status} ${text}`);
  return text;
}

function post(path, body, headers) {
  return ask(path, { method: 'POST', body, headers });
}

try {
  const request = JSON.stringify({ name });
  const form = new URLSearchParams({ service: 'go.micro.srv.greeter', method: 'Say.Hello', request });
  const query = new URLSearchParams({ name });

  console.log('services:', await ask('/registry'));
  console.log('by path: ', await post('/greeter/say/hello', request, json));
  console.log('by /rpc: ', await post('/rpc', form));
  console.log('proxied: ', await ask(`/greeterweb/hello?${query}`, { headers: { 'Micro-Handler': 'proxy' } }));

  // "micro subscribe greetings" in another terminal shows the message.
  await post('/broker?topic=greetings', `Hello ${name}`, { 'Content-Type': 'text/plain' });
  console.log('published');
} catch (err) {
  console.error(`${SIDECAR}: ${err.cause?.message ?? err.message}`);
  process.exitCode = 1;
}
