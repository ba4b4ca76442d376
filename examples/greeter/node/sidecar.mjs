// Announces a Node program to the Micro Sidecar, for as long as it runs.
//
// Copy this page into your own project: registering is one POST, repeated
// before its ttl is over, and one DELETE at the end. A program that is killed
// outright vanishes from the registry when the ttl has passed.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

export const SIDECAR = process.env.SIDECAR ?? 'http://127.0.0.1:8081';
const TTL = Number(process.env.TTL ?? 30); // seconds

// Serves until SIGINT or SIGTERM, registered under name all the while.
export async function run(server, name, metadata = {}) {
  server.keepAliveTimeout = 120_000; // ms: let the sidecar keep its connections
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { address, port } = server.address();
  const node = { Id: `${name}-${randomUUID()}`, Address: address, Port: port, Metadata: metadata };
  const service = { Name: name, Nodes: [node] };

  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stop.abort());
  console.log(`${name} listens on ${address}:${port}`);
  while (!stop.signal.aborted) {
    await tell('POST', `/registry?ttl=${TTL}s`, service);
    await sleep((TTL / 3) * 1000, null, { signal: stop.signal }).catch(() => {});
  }
  await tell('DELETE', '/registry', service);
  server.close(); // answers what has been asked, then ends the program
  server.closeIdleConnections();
}

// Sends the service; a sidecar that is away now is told the next time.
async function tell(method, path, service) {
  try {
    const response = await fetch(SIDECAR + path, {
      method,
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(service),
      signal: AbortSignal.timeout(5000),
    });
    const text = await response.text();
    if (!response.ok) console.error(`${method} ${SIDECAR}${path}: ${response.status} ${text}`);
  } catch (err) {
    console.error(`${method} ${SIDECAR}${path}: ${err.cause?.message ?? err.message}`);
  }
}
