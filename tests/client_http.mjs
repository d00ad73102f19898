/* client_http.mjs - the client on real sockets, against a server of node's:
 * what a fake of fetch cannot show. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';

import { ResilientSSEConnection, stream } from '../static/magic/respool.js';
import { bytes, chunk, done, random, range } from './fake_browser.mjs';

const FAST = { base: 10, max: 50 };

/* Runs `use(url)` with a server whose handler is `serve`. */
async function withServer(serve, use) {
  const server = createServer(serve);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await use(`http://127.0.0.1:${server.address().port}/api/v1/stream`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const head = (answer) => answer.writeHead(200,
  { 'Content-Type': 'text/event-stream' });
const cursorOf = (request) => Number(new URL(request.url, 'http://x')
  .searchParams.get('last_event_id') ?? -1);

async function idsOf(messages) {
  const ids = [];
  for await (const { id } of messages)
    ids.push(id);
  return ids;
}

test('a stream whose connections are cut anywhere arrives whole', async () => {
  const chance = random(3);
  const total = 300;
  let requests = 0;
  let posts = 0;
  await withServer((request, answer) => {
    const frames = range(cursorOf(request) + 1, total).map(chunk);
    const input = Buffer.from(bytes(frames.join('') + done(total)));
    const cut = requests++ < 60 ? Math.floor(chance() * 4000) : Infinity;
    posts += request.method === 'POST';
    head(answer);
    answer.write(input.subarray(0, cut), () => cut < input.length
      ? chance() < 0.5 ? answer.end() : answer.destroy() : answer.end());
  }, async (url) => {
    const ids = await idsOf(stream(url, { body: { message: 'hi' },
      retry: FAST }));
    assert.deepEqual(ids, range(0, total + 1));
  });
  assert.ok(requests > 5);
  assert.equal(posts, 1);
});

for (const status of [301, 302, 303, 307, 308])
  test(`${status} is followed`, async () => {
    await withServer((request, answer) => {
      if (request.url.startsWith('/api'))
        return answer.writeHead(status, { Location: '/there' }).end();
      head(answer);
      answer.end(done(0));
    }, async (url) =>
      assert.deepEqual(await idsOf(stream(url, { retry: FAST })), [0]));
  });

test('a server that is not there is waited for', async () => {
  const server = createServer((request, answer) => {
    head(answer);
    answer.end(done(0));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  let attempts = 0;
  const ids = idsOf(stream(`http://127.0.0.1:${port}/`, { retry: FAST,
    handlers: { onReconnecting: () => ++attempts === 5
      && server.listen(port, '127.0.0.1') } }));
  assert.deepEqual(await ids, [0]);
  server.closeAllConnections();
  server.close();
});

test('close() ends the request, so that the server sees it', async () => {
  let gone;
  await withServer((request, answer) => {
    gone = once(answer, 'close');
    head(answer);
    answer.write(chunk(0));
  }, async (url) => {
    await new Promise((got) => {
      const connection = new ResilientSSEConnection(url, { handlers: {
        onMessage() {
          connection.close();
          got();
        } } });
      connection.connect();
    });
    await gone;
  });
});

test('a body that ends with its last frame stays ended', async () => {
  let requests = 0;
  await withServer((request, answer) => {
    requests++;
    head(answer);
    answer.end(chunk(0) + done(1));
  }, async (url) => {
    assert.deepEqual(await idsOf(stream(url, { retry: FAST })), [0, 1]);
    await new Promise((later) => setTimeout(later, 200));
  });
  assert.equal(requests, 1);
});
