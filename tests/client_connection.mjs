/* client_connection.mjs - ResilientSSEConnection and stream(), on a network
 * and a clock of the test's own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ResilientSSEConnection, SSEError, stream }
  from '../static/magic/respool.js';
import { bytes, chunk, done, frame, install, random, range, record, settle }
  from './fake_browser.mjs';

const URL_ = 'api/v1/stream';

/* A connection that was connected, and what came of it. */
function connect(options = {}) {
  const seen = record(new ResilientSSEConnection(URL_, {
    params: { stream_id: 's1', message: 'hi' }, ...options }));
  seen.connection.connect();
  return seen;
}

/* ---- requests ---- */

test('the first request has the parameters and no cursor', async () => {
  const browser = install();
  connect({ params: { stream_id: 's1', message: 'a b&c', model: null } });
  await settle();
  const { url, method, headers, init } = browser.last;
  assert.equal(url.href, 'https://chat.example/app/api/v1/stream'
    + '?stream_id=s1&message=a+b%26c');
  assert.equal(method, 'GET');
  assert.equal(headers.get('Accept'), 'text/event-stream');
  assert.equal(headers.get('Last-Event-ID'), null);
  assert.equal(init.cache, 'no-store');
  assert.equal(init.redirect, undefined); /* they are followed */
});

test('without a stream id it makes one up, each time another', async () => {
  const browser = install();
  for (let i = 0; i < 20; i++)
    connect({ params: { message: 'hi' } });
  await settle();
  const ids = browser.requests.map(({ id }) => id);
  assert.equal(new Set(ids).size, 20);
  for (const id of ids)
    assert.match(id, /^[A-Za-z0-9_-]{20,64}$/);
});

test('the query of the URL stays, also its stream id', async () => {
  const browser = install();
  const { connection } = record(new ResilientSSEConnection(
    `/deep/${URL_}?user_id=ann&stream_id=s7`));
  connection.connect();
  await settle();
  assert.equal(browser.last.url.href,
    'https://chat.example/deep/api/v1/stream?user_id=ann&stream_id=s7');
  assert.equal(connection.streamId, 's7');
});

test('it goes on after the id it is given', async () => {
  const browser = install();
  const seen = connect({ lastEventId: 41 });
  await settle();
  assert.equal(browser.last.cursor, 41);
  browser.last.stream(chunk(41), chunk(42));
  await settle();
  assert.deepEqual(seen.ids, [42]);
});

for (const cursorHeader of [false, true])
  test(`the cursor goes out by ${
    cursorHeader ? 'header' : 'parameter'}, 0 as well`, async () => {
    const browser = install({ eventSource: true });
    connect({ cursorHeader, lastEventId: 0, useFetch: true });
    await settle();
    const { url, headers } = browser.last;
    assert.equal(url.searchParams.get('last_event_id'),
      cursorHeader ? null : '0');
    assert.equal(headers.get('Last-Event-ID'), cursorHeader ? '0' : null);
  });

test('by default no request needs a preflight', async () => {
  const browser = install();
  connect({ lastEventId: 3 });
  await settle();
  assert.deepEqual([...browser.last.headers.keys()], ['accept']);
});

test('headers may be a function, called for each attempt', async () => {
  const browser = install();
  let token = 0;
  connect({ headers: async () => ({ Authorization: `Bearer ${++token}` }) });
  await settle();
  browser.last.lose();
  await browser.clock.advance(1100);
  assert.deepEqual(browser.requests.map((r) => r.headers.get('Authorization')),
    ['Bearer 1', 'Bearer 2']);
});

test('a header function that fails is tried again', async () => {
  const browser = install();
  let calls = 0;
  connect({ headers: () => {
    if (++calls === 1)
      throw new Error('no token yet');
  } });
  await browser.clock.advance(1100);
  assert.equal(browser.requests.length, 1);
});

test('credentials go where they are wanted', async () => {
  const browser = install({ eventSource: true });
  connect({ credentials: 'include' });
  await settle();
  assert.equal(browser.last.init.credentials, 'include');
});

test('fetch may be one of the page\'s own', async () => {
  const browser = install();
  let mine = 0;
  connect({ fetch: (...all) => (mine++, fetch(...all)) });
  await settle();
  assert.deepEqual([mine, browser.requests.length], [1, 1]);
});

/* ---- messages ---- */

test('a message has type, id and parsed data', async () => {
  const browser = install();
  const seen = connect();
  const typed = [];
  for (const type of ['message_chunk', 'heartbeat', 'done'])
    seen.connection.addEventListener(type, (e) => typed.push(e.detail));
  await settle();
  browser.last.stream(': ok\n\n', chunk(0), frame(1, {}, 'heartbeat'), done(2));
  await settle();
  assert.deepEqual(seen.messages, [
    { type: 'message_chunk', id: 0, data: { content: 'tok0 ', tokens: 1,
      cost_usd: null, stream_id: 's1' } },
    { type: 'heartbeat', id: 1, data: {} },
    { type: 'done', id: 2, data: { total_tokens: 2 } },
  ]);
  assert.deepEqual(typed, seen.messages);
  assert.deepEqual(seen.log, ['open', 'close']);
  assert.equal(seen.connection.lastEventId, 2);
  assert.equal(seen.connection.manuallyClosed, false);
  assert.equal(browser.clock.timers.size, 0);
});

test('handlers get what listeners get', async () => {
  const browser = install();
  const log = [];
  const handlers = Object.fromEntries(['onOpen', 'onMessage', 'onError',
    'onStalled', 'onReconnecting', 'onClose'].map((name) =>
    [name, (detail) => log.push([name, detail])]));
  connect({ handlers, stall: 1000 });
  await settle();
  browser.last.stream(chunk(0));
  await browser.clock.advance(2200);
  browser.last.answer(404, {}, { error: 'gone', error_type: 'x' });
  await settle();
  assert.deepEqual(log.map(([name]) => name), ['onOpen', 'onMessage',
    'onStalled', 'onReconnecting', 'onError', 'onClose']);
  assert.equal(log[1][1].id, 0);
  assert.equal(log[3][1].attempt, 1);
  assert.equal(log[4][1].type, 'x');
});

test('the conversation\'s events are messages, and complete is the end',
  async () => {
    for (const eventSource of [false, true]) {
      const browser = install({ eventSource });
      const seen = connect();
      const events = [['metadata', { stream_id: 's9' }],
        ['typing', { status: 'start' }], ['message', { content: 'a' }],
        ['heartbeat', {}], ['typing', { status: 'stop' }], ['complete', {}]];
      await settle();
      if (eventSource)
        events.forEach(([type, data], id) =>
          browser.sources[0].event(type, data, id));
      else
        browser.last.stream(...events.map(([type, data], id) =>
          frame(id, data, type)));
      await settle();
      assert.deepEqual(seen.messages.map(({ type, data }) => [type, data]),
        events);
      assert.deepEqual(seen.log.at(-1), 'close');
      assert.equal(seen.connection.streamId, 's9');
    }
  });

test('nothing is delivered after the last frame', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.stream(chunk(0) + done(1) + chunk(2) + 'data: {\n\n');
  await browser.clock.advance(60000);
  assert.deepEqual(seen.ids, [0, 1]);
  assert.deepEqual(seen.log, ['open', 'close']);
  assert.equal(browser.requests.length, 1);
});

test('a handler that throws disturbs nothing', async () => {
  const browser = install();
  const thrown = [];
  const runners = process.rawListeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (e) => thrown.push(e.message));
  const seen = connect({ handlers: { onMessage() {
    throw new Error('of the page');
  } } });
  await settle();
  browser.last.stream(chunk(0), chunk(1), done(2));
  await settle();
  process.removeAllListeners('uncaughtException');
  runners.forEach((f) => process.on('uncaughtException', f));
  assert.deepEqual(seen.ids, [0, 1, 2]);
  assert.deepEqual(thrown, Array(3).fill('of the page'));
  assert.equal(browser.requests.length, 1);
});

test('a message without any id is delivered and moves nothing', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.stream('event: hello\ndata: {"a":1}\n\n', chunk(0));
  await settle();
  assert.deepEqual(seen.messages[0], { type: 'hello', id: null,
    data: { a: 1 } });
  assert.deepEqual(seen.ids, [null, 0]);
});

test('duplicates are dropped and counted, early ones put in order',
  async () => {
    const browser = install();
    const seen = connect();
    await settle();
    browser.last.stream(...[0, 2, 1, 3, 3, 0].map(chunk));
    await settle();
    assert.deepEqual(seen.ids, [0, 1, 2, 3]);
    assert.equal(seen.connection.sequencer.duplicates, 2);
  });

/* ---- losses ---- */

/* What arrives after two good frames, and is a cut. */
const CUTS = {
  'an end without a last frame': (body) => body.end(),
  'a network error': (body) => body.fail(),
  'a torn frame': (body) => {
    body.push(chunk(2).slice(0, -10));
    body.end();
  },
  'a torn character': (body) => {
    body.push(bytes(frame(2, { content: '\u20ac' })).subarray(0, -6));
    body.fail();
  },
  'JSON that is none': (body) => body.push(frame(2, '{"content":"a')),
  'a frame without data in it': (body) => body.push(frame(2, '')),
  'an id that is no number': (body) => body.push(frame('2x', {})),
  'HTML': (body) => {
    body.push('<html>\n<body>\n<h1>500 Internal Server Error</h1>\n\n',
      '</body></html>\n');
    body.end();
  },
  'HTML inside a frame': (body) => {
    body.push('event: message_chunk\nid: 2\nretry: 10000\ndata: {"content":"',
      '<html>\n<h1>502</h1>\n\n</html>\n\n');
  },
  'the end of a frame\'s id': (body) => {
    body.push('event: message_chunk\nid: 2');
    body.end();
  },
  'the retry block of a server that drains': (body) => {
    body.push('retry: 200\n\n');
    body.end();
  },
};

for (const [what, cut] of Object.entries(CUTS))
  test(`${what} is a cut: it resumes from the last good id`, async () => {
    const browser = install();
    const seen = connect();
    await settle();
    const body = browser.last.stream(chunk(0), chunk(1));
    await settle();
    cut(body);
    await settle();
    assert.deepEqual(seen.log, ['open', 'reconnecting']);
    assert.equal(browser.requests[0].aborted, true);
    await browser.clock.advance(899);
    assert.equal(browser.requests.length, 1);
    await browser.clock.advance(201);
    assert.equal(browser.requests.length, 2);
    assert.equal(browser.last.cursor, 1);
    browser.last.stream(chunk(2), done(3));
    await settle();
    assert.deepEqual(seen.ids, [0, 1, 2, 3]);
    assert.equal(seen.connection.sequencer.duplicates, 0);
    assert.equal(seen.log.at(-1), 'close');
  });

test('the cursor survives a second loss before any new message', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.stream(chunk(0), chunk(1)).fail();
  await browser.clock.advance(1100);
  browser.last.stream(': ok\n\n').end();
  await browser.clock.advance(2200);
  browser.last.lose();
  await browser.clock.advance(4400);
  assert.deepEqual(browser.requests.map(({ cursor }) => cursor),
    [-1, 1, 1, 1]);
  assert.equal(seen.reconnecting.attempt, 3);
});

test('an id whose frame was cut is not the cursor', async () => {
  const browser = install();
  connect();
  await settle();
  browser.last.stream(chunk(0),
    'event: message_chunk\nid: 1\ndata: {}\n').end();
  await browser.clock.advance(1100);
  assert.equal(browser.last.cursor, 0);
});

test('a stream cut at every byte arrives whole', async () => {
  const source = range(0, 4).map((id) => frame(id,
    { content: `\u00e9\u20ac\u{1f600}${id}` })).join('') + done(4);
  const input = bytes(source);
  for (let cut = 0; cut < input.length; cut++) {
    const browser = install();
    const seen = connect();
    await settle();
    browser.last.stream(input.subarray(0, cut)).fail();
    await browser.clock.advance(1100);
    if (browser.requests.length > 1) {
      const frames = source.match(/event(.|\n)*?\n\n/g);
      browser.last.stream(...frames.slice(browser.last.cursor + 1));
      await settle();
    }
    assert.deepEqual(seen.ids, [0, 1, 2, 3, 4], `cut at ${cut}`);
    assert.equal(seen.messages.slice(0, 4).map((m) => m.data.content).join(''),
      range(0, 4).map((id) => `\u00e9\u20ac\u{1f600}${id}`).join(''));
    assert.equal(seen.log.at(-1), 'close');
  }
});

test('an endless line ends it, with a typed error', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  const body = browser.last.stream(chunk(0));
  for (let i = 0; i < 20; i++)
    body.push(new Uint8Array(2 ** 20).fill(120));
  for (let i = 0; i < 20; i++)
    await settle();
  assert.equal(seen.error?.type, 'too_long');
  assert.equal(seen.log.at(-1), 'close');
});

/* ---- gaps ---- */

test('a gap that stays resumes at once, then no faster than a loss',
  async () => {
    const browser = install();
    const seen = connect();
    await settle();
    browser.last.stream(chunk(0), chunk(2));
    await browser.clock.advance(500);
    assert.equal(browser.requests.length, 2);
    assert.equal(browser.last.cursor, 0);
    browser.last.stream(chunk(2)); /* and again */
    await browser.clock.advance(500);
    assert.equal(browser.requests.length, 2);
    await browser.clock.advance(2200);
    assert.equal(browser.requests.length, 3);
    browser.last.stream(chunk(1), chunk(2), done(3));
    await settle();
    assert.deepEqual(seen.ids, [0, 1, 2, 3]);
  });

test('what was held when the connection is lost is not trusted', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.stream(chunk(0), frame(2, { content: 'another' })).fail();
  await browser.clock.advance(899);
  assert.equal(browser.requests.length, 1); /* a gap does not hurry it */
  await browser.clock.advance(201);
  browser.last.stream(chunk(1), chunk(2), done(3));
  await settle();
  assert.deepEqual(seen.ids, [0, 1, 2, 3]);
  assert.equal(seen.messages[2].data.content, 'tok2 ');
});

test('a gap of more than 256 messages does not wait', async () => {
  const browser = install();
  connect();
  await settle();
  browser.last.stream(...range(1, 300).map(chunk));
  await browser.clock.advance(0);
  assert.equal(browser.requests.length, 2);
});

test('20 % of 100 frames dropped: all there within 3 s', async () => {
  for (const seed of range(0, 20)) {
    const browser = install({ seed });
    const { clock } = browser;
    const chance = random(seed);
    const dropped = new Set(range(0, 100).filter(() => chance() < 0.2));
    const start = clock.now;
    const written = () => Math.min(100, Math.floor((clock.now - start) / 50));
    browser.onRequest = (request) => {
      const body = request.stream();
      let next = request.cursor + 1;
      (function send() {
        for (; next < written(); next++)
          if (!dropped.delete(next))
            body.push(chunk(next));
        if (next === 100)
          body.push(done(next++));
        setTimeout(send, 50);
      })();
    };
    const seen = connect();
    await clock.advance(5000 + 3000);
    assert.deepEqual(seen.ids, range(0, 101), `seed ${seed}`);
    assert.equal(seen.log.at(-1), 'close');
  }
});

/* ---- answers that are none ---- */

const FATAL = [
  /* status, type of the body, its JSON, type of the error */
  [204, undefined, undefined, 'ended'],
  [200, 'text/html', undefined, 'wrong_type'],
  [200, 'application/json', { a: 1 }, 'wrong_type'],
  [200, 'text/event-streams', undefined, 'wrong_type'],
  [200, undefined, undefined, 'wrong_type'],
  [205, 'text/event-stream', undefined, 'http'],
  [299, 'text/event-stream', undefined, 'http'],
  [304, undefined, undefined, 'http'],
  [400, 'application/json', { error: 'E', error_type: 'invalid_request' },
    'invalid_request'],
  [401, 'application/json', { error: 'E', error_type: 'unauthorized' },
    'unauthorized'],
  [403, 'text/html', undefined, 'http'],
  [404, 'application/json', { error: 'E', error_type: 'stream_not_found' },
    'stream_not_found'],
  [404, 'application/json', null, 'http'],
  [409, 'application/json', { error: 'E', error_type: 'conflict' },
    'conflict'],
  [410, 'text/event-stream', undefined, 'http'],
  [413, undefined, undefined, 'http'],
  [415, undefined, undefined, 'http'],
  [451, undefined, undefined, 'http'],
];

for (const [status, type, json, want] of FATAL)
  for (const options of [{}, { body: { message: 'hi' } }, { lastEventId: 5 }])
    test(`${status} ${type} ends it with ${want}, ${
      Object.keys(options)[0] ?? 'at first'}`, async () => {
      const browser = install();
      const seen = connect(options);
      await settle();
      browser.last.answer(status, type ? { 'Content-Type': type } : {}, json);
      await browser.clock.advance(600000);
      assert.equal(browser.requests.length, 1);
      assert.ok(seen.error instanceof SSEError);
      assert.equal(seen.error.type, want);
      assert.equal(seen.error.status, status);
      assert.equal(seen.error.message, json?.error ?? `HTTP status ${status}`);
      assert.deepEqual(seen.log, ['error', 'close']);
      assert.equal(browser.clock.timers.size, 0);
    });

for (const type of ['text/event-stream', 'text/event-stream;',
  'text/event-stream; charset=utf-8', 'Text/Event-Stream ;charset=x'])
  test(`${type} is a stream`, async () => {
    const browser = install();
    const seen = connect();
    await settle();
    browser.last.answer(200, { 'Content-Type': type }).push(done(0));
    await settle();
    assert.deepEqual(seen.log, ['open', 'close']);
  });

for (const status of [408, 425, 429, 500, 502, 503, 504])
  test(`${status} is tried again`, async () => {
    const browser = install();
    const seen = connect();
    await settle();
    browser.last.answer(status, { 'Content-Type': 'text/event-stream' });
    await browser.clock.advance(1100);
    assert.equal(browser.requests.length, 2);
    browser.last.stream(done(0));
    await settle();
    assert.deepEqual(seen.log, ['reconnecting', 'open', 'close']);
  });

const RETRY_AFTER = [
  /* header, seconds added */
  ['0', 0], ['7', 7], ['120', 120], ['-5', 0], ['soon', 0], ['', 0],
  ['7, 9', 0],
];

for (const [value, seconds] of [...RETRY_AFTER, ['date', 30], ['past', 0]])
  test(`Retry-After: ${value} waits ${seconds} s more`, async () => {
    const browser = install();
    const seen = connect();
    await settle();
    const at = { date: 30000, past: -30000 }[value];
    browser.last.answer(503, { 'Retry-After': at === undefined ? value
      : new Date(browser.clock.now + at).toUTCString() });
    await settle();
    const extra = seen.reconnecting.delay - seconds * 1000;
    assert.ok(extra >= 900 && extra <= 1100, `${extra}`);
    for (const event of ['online', 'visibilitychange', 'pageshow'])
      browser.fire(event);
    await browser.clock.advance(Math.max(seconds * 1000 - 1, 0));
    if (seconds > 0)
      assert.equal(browser.requests.length, 1);
    await browser.clock.advance(1101);
    assert.equal(browser.requests.length, 2);
  });

test('a start that is refused for hours is over at once', async () => {
  const refusal = { error: 'Tomorrow.', error_type: 'rate_limited',
    limit: 'owner_max_tokens' };
  const date = (browser) => new Date(browser.clock.now + 4e7).toUTCString();
  for (const [status, after, seconds] of [[429, '40000', 40000],
    [503, '301', 301], [429, date, 40000]])
    for (const eventSource of [false, true]) {
      const browser = install({ eventSource });
      const seen = connect();
      await settle();
      if (eventSource) {
        browser.sources[0].fail(2);
        await browser.clock.advance(0);
      }
      browser.last.answer(status, { 'Retry-After':
        typeof after === 'string' ? after : after(browser) },
      refusal);
      await settle();
      assert.deepEqual(seen.log.slice(-2), ['error', 'close']);
      assert.equal(seen.error.message, 'Tomorrow.');
      assert.equal(seen.error.type, 'rate_limited');
      assert.equal(seen.error.status, status);
      assert.ok(Math.abs(seen.error.after - seconds * 1000) < 1000);
      assert.deepEqual(seen.error.data, refusal);
      await browser.clock.advance(86400000);
      assert.equal(browser.requests.length, 1);
    }
});

test('a resume that is refused for hours waits and tells it', async () => {
  const browser = install();
  const seen = connect({ lastEventId: 4 });
  await settle();
  browser.last.answer(429, { 'Retry-After': '40000' });
  await settle();
  assert.deepEqual(seen.log, ['reconnecting']);
  assert.ok(seen.reconnecting.delay >= 4e7);
  await browser.clock.advance(4e7 - 1);
  assert.equal(browser.requests.length, 1);
  await browser.clock.advance(1101);
  assert.equal(browser.requests.length, 2);
});

test('Retry-After beyond what timers can is no tight loop', async () => {
  const browser = install();
  connect({ lastEventId: 4 });
  await settle();
  browser.last.answer(503, { 'Retry-After': '99999999999' });
  await browser.clock.advance(86400000);
  assert.equal(browser.requests.length, 1);
});

test('an answer that never comes is given up after 10 s', async () => {
  for (const eventSource of [false, true]) {
    const browser = install({ eventSource });
    const seen = connect();
    await browser.clock.advance(9999);
    assert.deepEqual(seen.log, []);
    await browser.clock.advance(1 + 1100);
    assert.deepEqual(seen.log, ['stalled', 'reconnecting']);
    assert.equal(browser.requests.length + browser.sources.length, 2);
  }
});

test('a refusal whose body never ends is given up too', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.answer(404, {}, new Promise(() => {}));
  await browser.clock.advance(10000 + 1100);
  assert.deepEqual(seen.log, ['stalled', 'reconnecting']);
  assert.ok(browser.requests[0].aborted);
  assert.equal(browser.requests.length, 2);
});

/* ---- the delays ---- */

/* The delays of attempts that bring nothing. */
async function delays(retry, seed) {
  const browser = install({ seed });
  const got = [];
  const connection = new ResilientSSEConnection(URL_, { retry,
    fetch: () => Promise.reject(new TypeError('Failed to fetch')),
    handlers: { onReconnecting: ({ delay }) => got.push(delay) } });
  connection.connect();
  await browser.clock.advance(20000);
  connection.close();
  return got;
}

const BOUNDS = [
  /* retry, lower and upper bounds of the first attempts; the rest as last */
  [undefined, [[900, 1100], [1800, 2200], [3600, 4400], [4090, 5000]]],
  [{ jitter: 0.1 }, [[900, 1100], [1800, 2200], [3600, 4400], [4090, 5000]]],
  [{ jitter: 1 }, [[0, 2000], [0, 4000], [0, 5000]]],
  [{ jitter: 0 }, [[1000, 1000], [2000, 2000], [4000, 4000], [5000, 5000]]],
  [{ base: 200, max: 1000 }, [[180, 220], [360, 440], [720, 880],
    [818, 1000]]],
  [{ base: 9000 }, [[4090, 5000]]],
];

for (const [retry, bounds] of BOUNDS)
  test(`delays with ${JSON.stringify(retry) ?? 'no options'} stay in bounds`,
    async () => {
      const spread = [];
      for (const seed of range(0, 100)) {
        const got = await delays(retry, seed);
        assert.ok(got.length >= 4);
        got.forEach((delay, i) => {
          const [low, high] = bounds[Math.min(i, bounds.length - 1)];
          assert.ok(delay >= low - 1 && delay <= high,
            `seed ${seed}, attempt ${i}: ${delay}`);
        });
        spread.push(got[0]);
      }
      /* They are spread over the whole range, too. */
      const [low, high] = bounds[0];
      assert.ok(Math.max(...spread) - Math.min(...spread)
        >= (high - low) * 0.9);
    });

test('connects that fail fast are no tight loop', async () => {
  const browser = install();
  browser.onRequest = (request) => request.lose();
  connect();
  await browser.clock.advance(3600000);
  assert.ok(browser.requests.length < 3600 / 4 + 5);
  assert.ok(browser.requests.length > 3600 / 5 - 5); /* and never gives up */
});

test('opening is no progress: only a new message resets the delay',
  async () => {
    const browser = install();
    const seen = connect();
    for (const attempt of [1, 2, 3, 4]) {
      await browser.clock.advance(5000);
      browser.last.stream(': ok\n\n').end();
      await settle();
      assert.equal(seen.reconnecting.attempt, attempt);
    }
    assert.ok(seen.reconnecting.delay > 4000);
    await browser.clock.advance(5000);
    browser.last.stream(chunk(0)).end();
    await settle();
    assert.equal(seen.reconnecting.attempt, 1);
    assert.ok(seen.reconnecting.delay <= 1100);
    await browser.clock.advance(1100);
    browser.last.stream(chunk(0)).end(); /* nothing new */
    await settle();
    assert.equal(seen.reconnecting.attempt, 2);
  });

test('retry: in a frame changes nothing', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.stream('retry: 60000\n\n', chunk(0)).end();
  await settle();
  assert.ok(seen.reconnecting.delay <= 1100);
});

/* ---- error frame, lost connection ---- */

const FAILURE = { error: 'The model is overloaded.', error_type: 'overloaded',
  retryable: true, partial: true };

for (const eventSource of [false, true]) {
  const how = eventSource ? 'EventSource' : 'fetch';

  test(`an error frame is the end, by ${how}`, async () => {
    const browser = install({ eventSource });
    const seen = connect();
    await settle();
    if (eventSource) {
      browser.sources[0].open();
      browser.sources[0].chunk(0);
      browser.sources[0].event('error', FAILURE, 1);
    } else
      browser.last.stream(chunk(0), frame(1, FAILURE, 'error'));
    await browser.clock.advance(60000);
    assert.deepEqual(seen.log, ['open', 'error', 'close']);
    assert.deepEqual(seen.messages[1], { type: 'error', id: 1,
      data: FAILURE });
    assert.ok(seen.error instanceof SSEError);
    assert.equal(seen.error.message, 'The model is overloaded.');
    assert.equal(seen.error.type, 'overloaded');
    assert.deepEqual(seen.error.data, FAILURE);
    assert.equal(browser.requests.length + browser.sources.length, 1);
  });

  test(`done is the end, by ${how}`, async () => {
    const browser = install({ eventSource });
    const seen = connect();
    await settle();
    if (eventSource)
      browser.sources[0].event('done', {}, 0);
    else
      browser.last.stream(done(0));
    await browser.clock.advance(60000);
    assert.deepEqual(seen.log.at(-1), 'close');
    assert.equal(seen.error, undefined);
    assert.equal(browser.requests.length + browser.sources.length, 1);
  });
}

/* ---- EventSource ---- */

test('a lost EventSource is closed, and another opened after 1 s',
  async () => {
    const browser = install({ eventSource: true });
    const seen = connect();
    const [first] = browser.sources;
    first.open();
    range(0, 29).forEach((id) => first.chunk(id));
    first.fail();
    assert.equal(first.readyState, 2);
    await browser.clock.advance(899);
    assert.equal(browser.sources.length, 1);
    await browser.clock.advance(201);
    const second = browser.sources[1];
    assert.equal(second.cursor, 28);
    assert.equal(second.url.searchParams.get('stream_id'), 's1');
    second.open();
    range(29, 50).forEach((id) => second.chunk(id));
    first.chunk(77); /* it is closed */
    assert.deepEqual(seen.ids, range(0, 50));
    assert.equal(browser.requests.length, 0);
  });

test('a refused EventSource is asked why by fetch, at once', async () => {
  const browser = install({ eventSource: true });
  const seen = connect();
  browser.sources[0].fail(2);
  await browser.clock.advance(0);
  assert.equal(browser.requests.length, 1);
  assert.equal(browser.last.url.href, browser.sources[0].url.href);
  browser.last.answer(400, {}, { error: 'No such model.',
    error_type: 'model_not_found' });
  await settle();
  assert.equal(seen.error.type, 'model_not_found');
  assert.equal(browser.sources.length, 1);
});

test('204 ends an EventSource for good', async () => {
  const browser = install({ eventSource: true });
  const seen = connect({ lastEventId: 50 });
  browser.sources[0].fail(2);
  await browser.clock.advance(0);
  browser.last.answer(204);
  await browser.clock.advance(60000);
  assert.equal(seen.error.type, 'ended');
  assert.equal(browser.requests.length, 1);
});

test('events that an EventSource was not told are had by fetch', async () => {
  const browser = install({ eventSource: true });
  const seen = connect();
  const [source] = browser.sources;
  source.open();
  source.chunk(0);
  source.event('of_the_future', {}, 1);
  source.chunk(2);
  await browser.clock.advance(500);
  assert.equal(browser.last.cursor, 0);
  browser.last.stream(frame(1, {}, 'of_the_future'), chunk(2), done(3));
  await settle();
  assert.deepEqual(seen.ids, [0, 1, 2, 3]);
  assert.equal(seen.messages[1].type, 'of_the_future');
});

test('an EventSource is used only where it can do the work', async () => {
  for (const options of [{ body: { message: 'hi' } }, { headers: {} },
    { cursorHeader: true }, { useFetch: true },
    { credentials: 'include' }]) {
    const browser = install({ eventSource: true });
    connect(options);
    await settle();
    assert.deepEqual([browser.sources.length, browser.requests.length],
      [0, 1], JSON.stringify(options));
  }
});

/* ---- POST ---- */

const ASK = { params: { user_id: 'ann' }, body: { message: 'hi' } };

test('a body is POSTed as JSON with the stream\'s id', async () => {
  const browser = install();
  const { connection } = connect(ASK);
  await settle();
  const { method, headers, body, url, id } = browser.last;
  assert.equal(method, 'POST');
  assert.equal(headers.get('Content-Type'), 'application/json');
  assert.deepEqual(body, { message: 'hi', stream_id: connection.streamId });
  assert.equal(id, connection.streamId);
  assert.equal(url.searchParams.get('user_id'), 'ann');
});

test('a stream id of the body is the stream\'s', async () => {
  const browser = install();
  connect({ body: { message: 'hi', stream_id: 's5' } });
  await settle();
  assert.equal(browser.last.id, 's5');
  assert.equal(browser.last.body.stream_id, 's5');
});

test('after a POST that was answered everything is a GET', async () => {
  const browser = install();
  const seen = connect(ASK);
  await settle();
  browser.last.stream(chunk(0)).fail();
  await browser.clock.advance(1100);
  assert.equal(browser.last.method, 'GET');
  assert.equal(browser.last.body, undefined);
  assert.equal(browser.last.headers.get('Content-Type'), null);
  assert.equal(browser.last.cursor, 0);
  assert.equal(browser.last.id, 's1'); /* as the first frame said */
  browser.last.answer(404, {}, { error: 'gone',
    error_type: 'stream_not_found' });
  await browser.clock.advance(60000);
  assert.equal(seen.error.type, 'stream_not_found');
  assert.equal(browser.requests.length, 2);
});

test('after 200 without a frame it is a GET as well, and 404 the end',
  async () => {
    const browser = install();
    const seen = connect(ASK);
    await settle();
    browser.last.stream().fail();
    await browser.clock.advance(1100);
    assert.deepEqual([browser.last.method, browser.last.cursor], ['GET', -1]);
    browser.last.answer(404);
    await browser.clock.advance(60000);
    assert.equal(browser.requests.length, 2);
    assert.equal(seen.error.status, 404);
  });

test('a POST without an answer is looked for before it is sent again',
  async () => {
    for (const fail of [(r) => r.lose(), (r) => r.answer(503),
      (r) => r.answer(502)]) {
      const browser = install();
      connect(ASK);
      await settle();
      fail(browser.last);
      await browser.clock.advance(1100);
      assert.equal(browser.last.method, 'GET');
      browser.last.answer(404);
      await browser.clock.advance(0);
      assert.deepEqual(browser.requests.map(({ method }) => method),
        ['POST', 'GET', 'POST']);
      assert.equal(browser.last.id, browser.requests[0].id);
      browser.last.lose();
      await browser.clock.advance(4400);
      assert.equal(browser.requests.length, 4);
    }
  });

/* Our server as a client sees it, behind a network that loses requests,
 * answers, and the rest of answers. */
function serve(browser, chance, total) {
  const streams = new Set();
  const server = { starts: 0, repeated: 0 };
  let until = 40; /* then the network is good */

  browser.onRequest = (request) => {
    const bad = until-- > 0;
    const fate = bad ? chance() : 1;
    const { id, method, cursor } = request;
    if (fate < 0.2)
      return request.lose(); /* before it arrived */
    if (fate < 0.25)
      return request.answer(503, { 'Retry-After': '1' });
    if (method === 'POST') {
      server.repeated += streams.has(id);
      server.starts += !streams.has(id);
      streams.add(id);
    }
    if (fate < 0.4)
      return request.lose(); /* after it arrived */
    if (!streams.has(id))
      return request.answer(404);
    if (cursor === total)
      return request.answer(204);
    const frames = range(cursor + 1, total).map((n) => frame(n, {}));
    const input = bytes(frames.join('') + done(total));
    const body = request.stream();
    const cut = bad ? Math.floor(chance() * input.length) : input.length;
    for (let at = 0; at < cut; at += 50)
      body.push(input.subarray(at, Math.min(at + 50, cut)));
    if (!bad || chance() < 0.7)
      body.end();
    /* else silence: a stall */
  };
  return server;
}

test('a POST that started a generation is never repeated, in 300 networks',
  async () => {
    for (const seed of range(0, 300)) {
      const browser = install({ seed });
      const server = serve(browser, random(seed), 20);
      const seen = connect({ body: { message: 'hi' }, params: {} });
      await browser.clock.advance(3600000);
      assert.equal(server.starts, 1, `seed ${seed}`);
      assert.equal(server.repeated, 0, `seed ${seed}`);
      assert.deepEqual(seen.ids, range(0, 21), `seed ${seed}`);
      assert.equal(seen.log.at(-1), 'close');
      assert.equal(seen.error, undefined);
      assert.equal(browser.clock.timers.size, 0);
    }
  });

/* ---- silence ---- */

for (const eventSource of [false, true])
  test(`silence closes it and resumes, by ${
    eventSource ? 'EventSource' : 'fetch'}`, async () => {
    const browser = install({ eventSource });
    const seen = connect();
    let body;
    await browser.clock.advance(9000); /* it takes its time to open */
    if (eventSource)
      browser.sources[0].open();
    else
      body = browser.last.stream();
    await browser.clock.advance(30000);
    if (eventSource)
      browser.sources[0].chunk(0);
    else
      body.push(chunk(0));
    await browser.clock.advance(37499);
    assert.deepEqual(seen.log, ['open']);
    await browser.clock.advance(1);
    assert.deepEqual(seen.log, ['open', 'stalled', 'reconnecting']);
    await browser.clock.advance(1100);
    const again = eventSource ? browser.sources[1] : browser.last;
    assert.equal(again.cursor, 0);
    if (eventSource)
      assert.equal(browser.sources[0].readyState, 2);
    else
      assert.ok(browser.requests[0].aborted);
  });

test('with fetch every byte is a sign of life, comments too', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  const body = browser.last.stream();
  for (const piece of [': keep-alive\n\n', ':', 'x', '\n', 'da', 'ta'].flatMap(
    (text) => Array(5).fill(text))) {
    await browser.clock.advance(37000);
    body.push(piece);
    await settle();
  }
  assert.deepEqual(seen.log, ['open']);
});

test('with EventSource heartbeats are signs of life', async () => {
  const browser = install({ eventSource: true });
  const seen = connect();
  browser.sources[0].open();
  for (const id of range(0, 20)) {
    await browser.clock.advance(15000);
    browser.sources[0].event('heartbeat', {}, id);
  }
  assert.deepEqual(seen.log, ['open']);
});

test('what came while timers were frozen is read before a stall is seen',
  async () => {
    const browser = install();
    const seen = connect();
    await settle();
    const body = browser.last.stream(chunk(0));
    await settle();
    browser.clock.freeze(3600000);
    body.push(chunk(1)); /* still to be read when the timer comes */
    await browser.clock.advance(100);
    assert.deepEqual(seen.ids, [0, 1]);
    assert.deepEqual(seen.log, ['open']);
  });

/* ---- wake-up ---- */

const WAKE = ['online', 'visibilitychange', 'pageshow'];

for (const event of WAKE)
  test(`${event} ends the wait for the next attempt`, async () => {
    const browser = install();
    connect();
    await settle();
    browser.last.lose();
    await browser.clock.advance(100);
    assert.equal(browser.requests.length, 1);
    browser.fire(event);
    await settle();
    assert.equal(browser.requests.length, 2);
    await browser.clock.advance(5000);
    assert.equal(browser.requests.length, 2); /* one attempt, not two */
  });

for (const event of WAKE)
  test(`${event} after a long silence reconnects at once`, async () => {
    const browser = install();
    const seen = connect();
    await settle();
    browser.last.stream(chunk(0));
    await settle();
    browser.clock.freeze(20000); /* a heartbeat is missing */
    browser.fire(event);
    await browser.clock.advance(0);
    assert.equal(browser.requests.length, 2);
    assert.equal(browser.last.cursor, 0);
    assert.deepEqual(seen.log, ['open', 'reconnecting']);
  });

test('a tab that is shown again asks for nothing while all is well',
  async () => {
    const browser = install();
    connect(ASK);
    await settle();
    browser.last.stream(chunk(0));
    for (let i = 0; i < 10; i++) {
      browser.show(false);
      await browser.clock.advance(1000);
      browser.show(true);
      browser.fire('pageshow');
      await browser.clock.advance(0);
    }
    assert.equal(browser.requests.length, 1);
  });

test('a tab that is hidden wakes nothing', async () => {
  const browser = install();
  connect();
  await settle();
  browser.last.lose();
  await settle();
  browser.show(false);
  await settle();
  assert.equal(browser.requests.length, 1);
});

test('online reconnects: the connection may be of another network',
  async () => {
    const browser = install();
    connect();
    await settle();
    browser.last.stream(chunk(0));
    await settle();
    browser.fire('online');
    await browser.clock.advance(0);
    assert.equal(browser.requests.length, 2);
  });

test('nothing is attempted while offline', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.stream(chunk(0)).fail();
  browser.onLine = false;
  await browser.clock.advance(3600000);
  browser.fire('visibilitychange');
  browser.fire('pageshow');
  seen.connection.reconnect();
  await browser.clock.advance(3600000);
  assert.equal(browser.requests.length, 1);
  browser.onLine = true;
  browser.fire('online');
  await browser.clock.advance(0);
  assert.equal(browser.requests.length, 2);
  assert.equal(browser.last.cursor, 0);
});

test('a page that begins offline asks when it is online', async () => {
  const browser = install();
  browser.onLine = false;
  connect(ASK);
  await browser.clock.advance(60000);
  assert.equal(browser.requests.length, 0);
  browser.onLine = true;
  browser.fire('online');
  await settle();
  assert.equal(browser.requests.length, 1);
  assert.equal(browser.last.method, 'POST');
});

for (const eventSource of [false, true])
  test(`a page kept for the back button closes and resumes, by ${
    eventSource ? 'EventSource' : 'fetch'}`, async () => {
    const browser = install({ eventSource });
    const seen = connect();
    await settle();
    if (eventSource) {
      browser.sources[0].open();
      browser.sources[0].chunk(0);
    } else
      browser.last.stream(chunk(0));
    await settle();
    browser.fire('pagehide');
    await settle();
    assert.equal(browser.clock.timers.size, 0);
    if (eventSource)
      assert.equal(browser.sources[0].readyState, 2);
    else
      assert.ok(browser.requests[0].aborted);
    browser.clock.freeze(3600000);
    browser.fire('pageshow');
    await settle();
    const again = eventSource ? browser.sources[1] : browser.last;
    assert.equal(again.cursor, 0);
    assert.ok(!seen.log.includes('close'));
  });

/* ---- connect, reconnect, close ---- */

test('close() is the end until connect()', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  const body = browser.last.stream(chunk(0));
  await settle();
  seen.connection.close();
  seen.connection.close();
  assert.equal(seen.connection.manuallyClosed, true);
  assert.ok(browser.last.aborted);
  body.push(chunk(1));
  WAKE.forEach(browser.fire);
  await browser.clock.advance(60000);
  assert.deepEqual(seen.log, ['open', 'close']);
  assert.deepEqual(seen.ids, [0]);
  assert.equal(browser.requests.length, 1);
  assert.equal(browser.clock.timers.size, 0);
  seen.connection.connect();
  await settle();
  assert.equal(seen.connection.manuallyClosed, false);
  assert.equal(browser.last.cursor, 0);
});

test('close() in any handler leaves nothing behind', async () => {
  for (const name of ['onOpen', 'onMessage', 'onStalled', 'onReconnecting',
    'onError', 'onClose']) {
    const browser = install();
    const seen = connect({ stall: 5000, handlers: { [name]: () =>
      seen.connection.close() } });
    await settle();
    browser.last.stream(chunk(0), chunk(1));
    await browser.clock.advance(6100);
    if (browser.requests.length === 2) {
      browser.last.answer(404);
      await browser.clock.advance(60000);
    }
    assert.equal(seen.count('close'), 1, name);
    assert.equal(browser.clock.timers.size, 0, name);
    if (name === 'onMessage')
      assert.deepEqual(seen.ids, [0]);
  }
});

test('reconnect() after close() goes on', async () => {
  const browser = install();
  const seen = connect();
  await settle();
  browser.last.stream(chunk(0));
  await settle();
  seen.connection.close();
  seen.connection.reconnect();
  await settle();
  assert.equal(browser.last.cursor, 0);
  browser.last.stream(done(1));
  await settle();
  assert.deepEqual(seen.log, ['open', 'close', 'open', 'close']);
});

test('connect() twice is once', async () => {
  const browser = install();
  const seen = connect();
  seen.connection.connect();
  await settle();
  assert.equal(browser.requests.length, 1);
});

test('reconnect() drops the connection and makes another at once',
  async () => {
    const browser = install();
    const seen = connect();
    await settle();
    const old = browser.last.stream(chunk(0));
    await settle();
    seen.connection.reconnect();
    await browser.clock.advance(0);
    assert.ok(browser.requests[0].aborted);
    assert.equal(browser.last.cursor, 0);
    old.push(chunk(1));
    browser.last.stream(chunk(1), done(2));
    await settle();
    assert.deepEqual(seen.ids, [0, 1, 2]);
    assert.equal(seen.connection.sequencer.duplicates, 0);
  });

for (const first of ['close()', 'the answer'])
  test(`${first} comes first by a hair: nothing comes through`, async () => {
    const browser = install();
    const seen = connect();
    await settle();
    if (first === 'close()')
      seen.connection.close();
    browser.last.stream(chunk(0));
    seen.connection.close();
    await settle();
    assert.deepEqual(seen.log, ['close']);
    assert.deepEqual(seen.ids, []);
  });

test('stop() has the server stop, with the same owner and headers',
  async () => {
    const browser = install();
    const seen = connect({ ...ASK, headers: { Authorization: 'Bearer 1' } });
    await settle();
    const body = browser.last.stream(chunk(0));
    await settle();
    const stopped = seen.connection.stop();
    await settle();
    const { url, method, headers } = browser.last;
    assert.equal(url.pathname, '/app/api/v1/streams/s1/stop');
    assert.equal(url.searchParams.get('user_id'), 'ann');
    assert.equal(method, 'POST');
    assert.equal(headers.get('Authorization'), 'Bearer 1');
    browser.last.answer(200);
    assert.equal(await stopped, true);
    body.push(frame(1, { finish_reason: 'stopped' }, 'done'));
    await settle();
    assert.deepEqual(seen.ids, [0, 1]);
    assert.equal(seen.log.at(-1), 'close');
  });

/* ---- reload ---- */

test('it survives a reload when asked to', async () => {
  for (const eventSource of [false, true]) {
    let browser = install({ eventSource });
    const { storage } = browser;
    const options = { persist: 'k', params: { message: 'hi' } };
    const { connection } = connect(options);
    await settle();
    if (eventSource) {
      browser.sources[0].chunk(0);
      browser.sources[0].chunk(1);
    } else
      browser.last.stream(chunk(0), chunk(1));
    await settle();

    browser = install({ eventSource });
    globalThis.sessionStorage = storage;
    const seen = connect(options);
    await settle();
    const again = eventSource ? browser.sources[0] : browser.last;
    assert.equal(again.cursor, 1);
    assert.equal(seen.connection.streamId, connection.streamId);
    if (eventSource)
      again.event('done', {}, 2);
    else
      browser.last.stream(chunk(1), done(2));
    await settle();
    assert.deepEqual(seen.ids, [2]);
    assert.equal(storage.items.size, 0); /* nothing to go on with */
  }
});

for (const [what, before] of [['before the answer', () => {}],
  ['before the first frame', (r) => r.stream()],
  ['in mid-answer', (r) => r.stream(chunk(0))]])
  test(`a reload ${what} does not send the body again`, async () => {
    let browser = install();
    const { storage } = browser;
    connect({ ...ASK, persist: 'k' });
    await settle();
    before(browser.last);
    await settle();
    browser = install();
    globalThis.sessionStorage = storage;
    connect({ ...ASK, persist: 'k' });
    await settle();
    assert.equal(browser.last.method, 'GET');
    assert.equal(browser.last.cursor, what === 'in mid-answer' ? 0 : -1);
  });

test('what was kept of another stream is not taken', async () => {
  const browser = install();
  browser.storage.setItem('k', '["s1",7]');
  connect({ params: { stream_id: 's2' }, persist: 'k' });
  await settle();
  assert.deepEqual([browser.last.id, browser.last.cursor], ['s2', -1]);
});

test('close() forgets, a lost connection does not', async () => {
  const browser = install();
  const seen = connect({ persist: 'k' });
  await settle();
  browser.last.stream(chunk(0)).fail();
  await settle();
  assert.equal(browser.storage.getItem('k'), '["s1",0]');
  seen.connection.close();
  assert.equal(browser.storage.getItem('k'), null);
});

for (const junk of ['', '{', 'null', '5', '{}', '[]', '"s1"', '[null,null]'])
  test(`storage with ${JSON.stringify(junk)} in it does no harm`,
    async () => {
      const browser = install();
      browser.storage.setItem('k', junk);
      const seen = connect({ ...ASK, persist: 'k' });
      await settle();
      assert.deepEqual([browser.last.method, browser.last.cursor],
        ['POST', -1]);
      assert.match(seen.connection.streamId, /^stream_/);
    });

test('storage that is switched off does no harm', async () => {
  const browser = install();
  Object.defineProperty(globalThis, 'sessionStorage', { configurable: true,
    get() {
      throw new DOMException('denied', 'SecurityError');
    } });
  const seen = connect({ persist: 'k' });
  await settle();
  browser.last.stream(chunk(0), done(1));
  await settle();
  assert.deepEqual(seen.ids, [0, 1]);
});

/* ---- stream() ---- */

test('stream() gives each message and ends after done', async () => {
  const browser = install();
  browser.onRequest = (r) => r.cursor < 0
    ? r.stream(chunk(0), chunk(1)).fail() : r.stream(chunk(2), done(3));
  const got = [];
  const loop = (async () => {
    for await (const { id } of stream(URL_, ASK))
      got.push(id);
  })();
  await browser.clock.advance(1100);
  await loop;
  assert.deepEqual(got, [0, 1, 2, 3]);
  assert.equal(browser.clock.timers.size, 0);
});

test('stream() sends nothing before the loop begins', async () => {
  const browser = install();
  const s = stream(URL_, ASK);
  await settle();
  assert.equal(browser.requests.length, 0);
  s.next();
  await settle();
  assert.equal(browser.requests.length, 1);
});

test('stream() throws an error frame after giving it', async () => {
  const browser = install();
  browser.onRequest = (r) => r.stream(chunk(0), frame(1, FAILURE, 'error'));
  const got = [];
  await assert.rejects(async () => {
    for await (const { type } of stream(URL_, ASK))
      got.push(type);
  }, { type: 'overloaded', data: FAILURE });
  assert.deepEqual(got, ['message_chunk', 'error']);
});

test('stream() throws what ends a connection', async () => {
  const browser = install();
  browser.onRequest = (r) => r.answer(401, {}, { error: 'Sign in.',
    error_type: 'unauthorized' });
  await assert.rejects(stream(URL_, ASK).next(), (e) =>
    e instanceof SSEError && e.type === 'unauthorized' && e.status === 401);
});

test('leaving the loop closes the connection', async () => {
  const browser = install();
  browser.onRequest = (r) => r.stream(chunk(0), chunk(1), chunk(2));
  const s = stream(URL_, ASK);
  for await (const { id } of s)
    if (id === 1)
      break;
  assert.ok(browser.last.aborted);
  assert.ok(s.connection.manuallyClosed);
  assert.equal(browser.clock.timers.size, 0);
});

for (const when of ['before it begins', 'while it waits', 'while it retries',
  'between two messages'])
  test(`the signal ends the loop ${when}`, async () => {
    const browser = install();
    const control = new AbortController();
    const reason = new Error('enough');
    const got = [];
    if (when === 'before it begins')
      control.abort(reason);
    browser.onRequest = (r) => {
      if (when === 'while it retries')
        r.lose();
      else
        r.stream(...when === 'while it waits' ? [] : [chunk(0), chunk(1)]);
    };
    const loop = (async () => {
      for await (const { id } of stream(URL_, { ...ASK,
        signal: control.signal })) {
        got.push(id);
        control.abort(reason);
      }
    })().then(() => 'ended', (e) => e);
    await settle();
    control.abort(reason);
    assert.equal(await loop, reason);
    assert.deepEqual(got, when === 'between two messages' ? [0] : []);
    assert.equal(browser.clock.timers.size, 0);
    assert.equal(browser.requests.length,
      when === 'before it begins' ? 0 : 1);
  });

test('stop() lets the loop end by itself', async () => {
  const browser = install();
  let body;
  browser.onRequest = (r) => {
    if (r.url.pathname.endsWith('/stop')) {
      r.answer(200);
      body.push(done(1));
    } else
      body = r.stream(chunk(0));
  };
  const s = stream(URL_, ASK);
  const got = [];
  for await (const { type } of s) {
    got.push(type);
    if (type === 'message_chunk')
      assert.equal(await s.stop(), true);
  }
  assert.deepEqual(got, ['message_chunk', 'done']);
});

test('a loop that is slow gets all of it', async () => {
  const browser = install();
  browser.onRequest = (r) => r.stream(...range(0, 5000).map(chunk),
    done(5000));
  let next = 0;
  for await (const { id } of stream(URL_, ASK)) {
    assert.equal(id, next++);
    if (id % 1000 === 0)
      await settle();
  }
  assert.equal(next, 5001);
});
