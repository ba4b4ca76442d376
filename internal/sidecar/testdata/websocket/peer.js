// A WebSocket server and client over the npm package ws, for socket_test.go.
//
//   node peer.js serve        echoes; prints "listening PORT", and "closed CODE REASON" for each connection
//   node peer.js check URL    has a conversation of every kind with an echo; exits with 1 at the first surprise
//
// With ABSOLUTE=1 the client asks with an absolute-form target.
'use strict';

const assert = require('node:assert');
const { once } = require('node:events');
const { WebSocket, WebSocketServer } = require('ws');

const maxPayload = 32 << 20;

function serve() {
  const server = new WebSocketServer({
    host: '127.0.0.1', port: 0, maxPayload, perMessageDeflate: true,
    handleProtocols: (offered) => offered.has('chat') && 'chat',
  });
  server.on('listening', () => console.log(`listening ${server.address().port}`));
  server.on('connection', (ws) => {
    ws.on('message', (data, binary) => {
      const [word, code, reason] = binary || data.length > 100 ? [] : data.toString().split(' ');
      switch (word) {
        case 'close': return code ? ws.close(Number(code), reason) : ws.close();
        case 'drop': return ws._socket.resetAndDestroy();
        default: return ws.send(data, { binary });
      }
    });
    ws.on('error', () => {}); // told by close
    ws.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
  });
}

async function open(url, options) {
  const ws = new WebSocket(url, ['other', 'chat'], {
    maxPayload, ...options,
    finishRequest: (request) => {
      if (process.env.ABSOLUTE) request.path = url.replace('ws:', 'http:');
      request.end();
    },
  });
  await once(ws, 'open');
  return ws;
}

async function echoed(ws, data) {
  const answer = once(ws, 'message');
  ws.send(data);
  const [got, binary] = await answer;
  assert.strictEqual(binary, typeof data !== 'string');
  assert.ok(Buffer.from(data).equals(got), `${data.length} bytes came back as ${got.length}`);
}

async function check(url) {
  const plain = await open(url, { perMessageDeflate: false });
  await echoed(plain, Buffer.alloc(16 << 20, '\xff0123456789abcdef'));
  plain.terminate();
  const ws = await open(url);
  assert.strictEqual(ws.protocol, 'chat');
  assert.match(ws.extensions, /permessage-deflate/);
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    await echoed(ws, 'x'.repeat(size));
    await echoed(ws, Buffer.alloc(size, '\xff0123456789abcdef'));
  }
  const answer = once(ws, 'message');
  const pong = once(ws, 'pong');
  ws.send('one ', { fin: false });
  ws.ping('between'); // control frames may come between fragments
  ws.send('', { fin: false });
  ws.send('two', { fin: true });
  assert.strictEqual((await answer)[0].toString(), 'one two');
  assert.strictEqual((await pong)[0].toString(), 'between');
  const full = once(ws, 'pong');
  ws.ping('p'.repeat(125));
  assert.strictEqual((await full)[0].length, 125);
  ws.terminate();

  for (const [code, reason] of [[1000, 'bye'], [1001, ''], [1009, 'r'.repeat(80)], [3000, 'ü'], [4999, 'x'], [undefined, '']]) {
    for (const side of ['server', 'client']) {
      const ws = await open(url);
      const closed = once(ws, 'close');
      if (side === 'client') {
        if (code) ws.close(code, reason); else ws.close();
      } else {
        ws.send(code ? `close ${code} ${reason}` : 'close');
      }
      const [got, why] = await closed;
      assert.strictEqual(got, code ?? 1005, `closed by the ${side}`);
      if (side === 'server') assert.strictEqual(why.toString(), reason);
    }
  }
  const dropped = await open(url);
  dropped.on('error', () => {}); // a reset may be told as one
  const closed = once(dropped, 'close');
  dropped.send('drop');
  assert.strictEqual((await closed)[0], 1006);
}

if (process.argv[2] === 'serve') {
  serve();
} else {
  check(process.argv[3]).then(() => process.exit(0), (err) => { console.error(err); process.exit(1); });
}
