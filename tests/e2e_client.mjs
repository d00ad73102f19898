/* e2e_client.mjs NAME URL - one test of e2e_client.py. */
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';

import { SSEError, stream } from '../static/magic/respool.js';

globalThis.crypto ??= webcrypto; /* before node 19 */

const [name, base] = process.argv.slice(2);
const url = `${base}api/v1/stream`;
const retry = { base: 50, max: 500 };
const TEXT = Array.from({ length: 100 }, (_, i) => `tok${i} `).join('');

/* Reads to the end: the text, and how many messages there were. */
async function read(answer, onMessage = () => {}) {
  let text = '';
  let next = answer.connection.lastEventId + 1;
  let last;
  for await (last of answer) {
    assert.equal(last.id, next++);
    if (last.type === 'message_chunk')
      text += last.data.content;
    await onMessage(last, text);
  }
  return { text, next, last };
}

/* A fetch whose bodies break off; it writes down what was asked. */
function cutting(log) {
  return async (target, init) => {
    log.push(init.method ?? 'GET');
    const answer = await fetch(target, init);
    if (answer.status !== 200)
      return answer;
    let left = Math.floor(Math.random() * 3000);
    const cut = new TransformStream({ transform(piece, control) {
      control.enqueue(piece.slice(0, Math.max(left, 0)));
      if ((left -= piece.length) <= 0)
        control.error(new Error('cut'));
    } });
    return new Response(answer.body.pipeThrough(cut), answer);
  };
}

const TESTS = {
  async cut() {
    for (const options of [{ body: { message: 'hi' } },
      { params: { message: 'hi' } }]) {
      const log = [];
      const { text, last } = await read(stream(url, { ...options, retry,
        fetch: cutting(log) }));
      assert.equal(text, TEXT);
      assert.equal(last.type, 'done');
      assert.ok(log.length > 2, `${log.length} requests`);
      assert.ok(!log.includes('POST', 1));
    }
  },

  async lost_answer() {
    const log = [];
    const { text } = await read(stream(url, { retry,
      body: { message: 'hi' },
      async fetch(target, init) {
        log.push(init.method ?? 'GET');
        const answer = await fetch(target, init);
        if (log.length > 1)
          return answer;
        await answer.body.cancel();
        throw new TypeError('lost');
      } }));
    assert.equal(text, TEXT);
    assert.deepEqual(log, ['POST', 'GET']);
  },

  async errors() {
    for (const [options, type, status] of [
      [{ body: { message: 'x', model: 'fails' } }, 'overloaded'],
      [{ params: { message: 'x', model: 'fails' } }, 'overloaded'],
      [{ body: { message: 'x', model: 'nope' } }, 'model_not_found', 400],
      [{ body: { message: ' ' } }, 'invalid_request', 400],
      [{ params: { stream_id: 'nope' } }, 'stream_not_found', 404],
      [{ params: { stream_id: 'nope' }, lastEventId: 5 }, 'stream_not_found',
        404],
      [{ url: `${base}magic` }, 'wrong_type', 200],
      [{ url: `${base}no/such/page` }, 'http', 404]])
      await assert.rejects(read(stream(options.url ?? url, options)), (e) =>
        e instanceof SSEError && e.type === type && e.status === status);
  },

  async stop() {
    const answer = stream(url, { body: { message: 'hi', model: 'slow' } });
    const { last, next } = await read(answer, async ({ id }) =>
      id === 5 && assert.equal(await answer.stop(), true));
    assert.equal(last.data.finish_reason, 'stopped');
    assert.ok(next < 500);
  },

  async ended() {
    const first = stream(url, { params: { message: 'hi' } });
    const { last } = await read(first);
    const { streamId } = first.connection;
    await assert.rejects(read(stream(url, { lastEventId: last.id,
      params: { stream_id: streamId } })), { type: 'ended', status: 204 });
  },

  async snapshot() {
    const first = stream(url, { body: { message: 'hi' } });
    for await (const { id } of first)
      if (id === 20)
        break;
    const id = first.connection.streamId;
    const snapshot = await (await fetch(`${base}api/v1/streams/${id}`)).json();
    assert.ok(snapshot.last_event_id >= 20);
    const { text } = await read(stream(url, { params: { stream_id: id },
      lastEventId: snapshot.last_event_id }));
    assert.equal(snapshot.text + text, TEXT);
  },
};

await TESTS[name]();
