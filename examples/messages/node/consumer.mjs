// Takes orders out of a durable queue, over a WebSocket, and loses none.
//
//   node consumer.mjs        (Node 20 needs --experimental-websocket)
//
// The queue keeps what nobody has acknowledged. Whenever the connection ends,
// the sidecar gives what this program had to another consumer, or to this one
// when it is back: so it may come twice.

import { setTimeout as sleep } from 'node:timers/promises';

const SIDECAR = process.env.SIDECAR ?? 'http://127.0.0.1:8081';
const TOPIC = process.env.TOPIC ?? 'orders';
const QUEUE = process.env.QUEUE ?? 'shipping';

const query = new URLSearchParams({ topic: TOPIC, queue: QUEUE, ack: 'true', prefetch: '16' });
const address = `${SIDECAR.replace(/^http/, 'ws')}/broker?${query}`;

let socket;
let stopping = false;
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    stopping = true;
    socket?.close(); // what is not acknowledged goes back to the queue
  });
}

// Does the work; throws for an order that nobody can ship.
async function ship(order) {
  if (order?.order === undefined) throw new TypeError('expected an order');
  console.log('shipped', JSON.stringify(order));
}

// Says what becomes of a message.
async function handle(message) {
  const body = Buffer.from(message.Body, 'base64').toString();
  try {
    await ship(JSON.parse(body));
    return { Ack: message.Id };
  } catch (err) {
    if (err instanceof TypeError || err instanceof SyntaxError) {
      console.log(`refused after ${message.Attempt} attempt(s): ${err.message}`);
      return { Term: message.Id, Reason: err.message }; // a dead letter
    }
    console.error('failed:', err.message);
    return { Nack: message.Id, Delay: '5s' }; // again, later
  }
}

// Consumes until the connection ends; returns why it did.
function consume() {
  return new Promise((resolve) => {
    socket = new WebSocket(address);
    socket.onopen = () => console.log('consuming', address);
    socket.onmessage = async (event) => {
      const frame = JSON.parse(event.data);
      if (frame.Error) return console.error(frame.Error, frame.Id ?? '');
      const answer = await handle(frame);
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(answer));
    };
    // A connection that could not be made has an error, and in Node 20 no close.
    socket.onerror = (event) => resolve(event.message || 'no connection');
    socket.onclose = (event) => resolve(`${event.code} ${event.reason}`);
  });
}

while (!stopping) {
  const why = await consume();
  if (stopping) break;
  console.error(`disconnected (${why}), trying again`);
  await sleep(1000);
}
