// Publishes an order, and knows that it is stored.
//
//   node publish.mjs '{"order": 1, "customer": "7"}'
//
// An answer of 200 means that every durable queue of the topic will get the
// message. Without an answer nobody knows: then it is sent again, and Micro-Id
// sees to it that it is stored once.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

const SIDECAR = process.env.SIDECAR ?? 'http://127.0.0.1:8081';
const TOPIC = process.env.TOPIC ?? 'orders';

// Publishes until the sidecar has said that the message is stored.
async function publish(topic, order, tries = 20) {
  const headers = {
    'Content-Type': 'application/json',
    'Micro-Id': randomUUID(), // the same in every try
    'Micro-Key': String(order.customer ?? ''), // keeps a customer's orders in order
  };
  const body = JSON.stringify(order);
  for (let n = 1; n <= tries; n++) {
    let wrong;
    try {
      const url = `${SIDECAR}/broker?topic=${encodeURIComponent(topic)}`;
      const response = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(10_000) });
      const text = await response.text();
      if (response.ok) return;
      wrong = `${response.status} ${text}`;
      if (response.status < 500) break; // our own mistake: it is the same the next time
    } catch (err) {
      wrong = err.cause?.message ?? err.message;
    }
    console.error(`try ${n}: ${wrong}`);
    await sleep(Math.min(100 * 2 ** n, 5000));
  }
  throw new Error('not stored');
}

try {
  await publish(TOPIC, JSON.parse(process.argv[2] ?? '{"order": 1, "customer": "7"}'));
  console.log('stored');
} catch (err) {
  console.error(`${SIDECAR}: ${err.message}`);
  process.exitCode = 1;
}
