/* client.mjs - respool.js in a browser, through a line that does it harm */
import assert from 'node:assert/strict';

import { soon } from './soon.mjs';

/* Runs in the page: follows a stream to its end; what came, and when. */
async function followed([params, options = {}]) {
  const { ResilientSSEConnection } = await import('./magic/respool.js');
  const got = { ids: [], at: [], text: '', reconnects: 0, stalls: 0 };
  return new Promise((done) => {
    const connection = new ResilientSSEConnection('api/v1/stream', {
      params, useFetch: true, ...options,
      handlers: {
        onMessage({ type, id, data }) {
          got.ids.push(id);
          got.at.push(Date.now());
          if (type === 'message_chunk')
            got.text += data.content;
        },
        onReconnecting: () => got.reconnects++,
        onStalled: () => got.stalls++,
        onError: (e) => done({ ...got, error: e.message }),
        onClose: () => done({ ...got,
          duplicates: connection.sequencer.duplicates }),
      },
    });
    connection.connect();
  });
}

const follow = (page, model, options) =>
  page.evaluate(followed, [{ message: 'hi', model }, options]);

function assertWhole(got, count) {
  assert.equal(got.error, undefined);
  assert.deepEqual(got.ids, Array.from({ length: count + 1 }, (_, i) => i));
  assert.equal(got.text,
    Array.from({ length: count }, (_, i) => `tok${i} `).join(''));
}

const idOf = (frame) => Number(/^id: (\d+)$/m.exec(frame)[1]);
const cursorOf = (line) => Number(/last_event_id=(\d+)/.exec(line)?.[1]);

/* Both ways of asking must do. */
const WAYS = [{ useFetch: true }, { useFetch: false }];

export async function a_hundred_events({ open }) {
  const page = await open();
  for (const way of WAYS) {
    const got = await follow(page, 'hundred', way);
    assertWhole(got, 100);
    assert.equal(got.reconnects, 0);
  }
}

export async function latency({ open, proxy }) {
  const page = await open();
  proxy.plan = () => ({ delay: 50 });
  for (const way of WAYS) {
    const got = await follow(page, 'fifty', way);
    assertWhole(got, 50);
    assert.equal(got.reconnects, 0);
  }
}

/* Each fifth frame is lost when it comes for the first time. */
export async function drops({ open, proxy }) {
  const page = await open();
  const longest = async (way) => {
    const lost = new Map();
    proxy.plan = () => ({ frames(frame) {
      const id = idOf(frame);
      if (id % 5 !== 3 || lost.has(id))
        return [frame];
      lost.set(id, Date.now());
      return [];
    } });
    const got = await follow(page, 'hundred', way);
    assertWhole(got, 100);
    assert.equal(lost.size, 20);
    return Math.max(...[...lost].map(([id, at]) => got.at[id] - at));
  };
  for (const way of WAYS)
    await soon(() => longest(way), 3000);
}

export async function duplicates({ open, proxy }) {
  const page = await open();
  proxy.plan = () => ({ frames: (frame) => idOf(frame) % 2
    ? [frame, frame] : [frame] });
  for (const way of WAYS) {
    const got = await follow(page, 'hundred', way);
    assertWhole(got, 100);
    assert.equal(got.duplicates, 50);
    assert.equal(got.reconnects, 0);
  }
}

export async function order_of_frames({ open, proxy }) {
  const page = await open();
  let held = '';
  proxy.plan = () => ({ frames(frame) {
    const id = idOf(frame);
    if (id === 1) {
      held = frame;
      return [];
    }
    return id === 2 ? [frame, held] : [frame];
  } });
  for (const way of WAYS) {
    const got = await follow(page, 'fifty', way);
    assertWhole(got, 50);
    assert.equal(got.reconnects, 0);
  }
}

/* A cut after that id: the next connection brings what follows it.  In how
 * many milliseconds. */
async function cutAfter(page, proxy, way, [model, count, id]) {
  const again = [];
  const first = proxy.asked.length;
  let cutAt;
  proxy.plan = (n) => ({ frames(frame) {
    if (n === first && idOf(frame) > id) {
      cutAt = Date.now();
      return null;
    }
    if (n > first)
      again.push(idOf(frame));
    return [frame];
  } });
  const got = await follow(page, model, way);
  assertWhole(got, count);
  assert.equal(proxy.asked.length, first + 2);
  assert.equal(cursorOf(proxy.asked.at(-1)), id);
  assert.deepEqual(again, Array.from({ length: count - id },
    (_, i) => id + 1 + i));
  return got.at[id + 1] - cutAt;
}

export async function cuts({ open, proxy }) {
  const page = await open();
  for (const way of WAYS)
    for (const where of [['fifty', 50, 29], ['hundred', 100, 50]])
      await soon(() => cutAfter(page, proxy, way, where), 2000);
}

/* What the page's scripts take for a recovery, as Chromium counts it. */
export async function work({ open, proxy }) {
  const page = await open();
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable');
  const spent = async () => (await session.send('Performance.getMetrics'))
    .metrics.find(({ name }) => name === 'ScriptDuration').value * 1000;
  await soon(async () => {
    const first = proxy.asked.length;
    const whole = follow(page, 'hundred');
    while (proxy.asked.length === first)
      await page.waitForTimeout(20);
    await page.waitForTimeout(1500);
    const before = await spent();
    proxy.cutAll();
    while (proxy.asked.length < first + 2)
      await page.waitForTimeout(20);
    await page.waitForTimeout(200);
    const took = await spent() - before;
    assertWhole(await whole, 100);
    return took;
  }, 100);
}

export async function silence({ open, proxy }) {
  const page = await open();
  for (const way of WAYS) {
    const first = proxy.asked.length;
    proxy.plan = (n) => n === first ? { stallAfter: 3000 } : {};
    const got = await follow(page, 'hundred', { ...way, stall: 3000 });
    assertWhole(got, 100);
    assert.ok(got.stalls >= 1);
  }
}

/* What is no frame, after good ones. */
export async function garbage({ open, proxy }) {
  const page = await open();
  for (const wrong of ['<html>502 Bad Gateway</html>\n\n',
    'event: message_chunk\nid: 10\ndata: {"content":"to\n\n',
    'event: message_chunk\nid: x\ndata: {}\n\n']) {
    const first = proxy.asked.length;
    proxy.plan = (n) => ({ frames: (frame) =>
      n > first || idOf(frame) < 10 ? [frame]
        : idOf(frame) === 10 ? [wrong] : null });
    const got = await follow(page, 'fifty');
    assertWhole(got, 50);
    assert.equal(proxy.asked.length, first + 2);
  }
}

/* A machine that sleeps: the page's scripts stand still. */
export async function sleep({ open, proxy }) {
  const page = await open();
  const session = await page.context().newCDPSession(page);
  for (const cut of [false, true]) {
    const first = proxy.asked.length;
    const whole = follow(page, 'hundred', { stall: 4000 });
    while (proxy.asked.length === first)
      await page.waitForTimeout(20);
    await page.waitForTimeout(1000);
    await session.send('Page.setWebLifecycleState', { state: 'frozen' });
    if (cut)
      proxy.cutAll();
    await new Promise((done) => setTimeout(done, 7000));
    await session.send('Page.setWebLifecycleState', { state: 'active' });
    const got = await whole;
    assertWhole(got, 100);
    assert.equal(got.stalls, 0);
  }
}

/* Runs in the page: the browser's own client. */
async function native(params) {
  const query = new URLSearchParams(params);
  const source = new EventSource(`api/v1/stream?${query}`);
  const got = { ids: [], errors: [] };
  return new Promise((done) => {
    for (const type of ['message_chunk', 'done'])
      source.addEventListener(type, (e) => got.ids.push(Number(e.lastEventId)));
    source.onerror = () => {
      got.errors.push(source.readyState);
      if (source.readyState === EventSource.CLOSED)
        done(got);
    };
  });
}

/* It comes back after the last frame, too, and is told that this was it. */
export async function native_client({ open, proxy }) {
  const page = await open();
  proxy.plan = (n) => ({ frames: (frame) =>
    n === 0 && idOf(frame) > 20 ? null : [frame] });
  const got = await page.evaluate(native, { message: 'hi', model: 'fifty',
    stream_id: 'native' });
  assert.deepEqual(got.ids, Array.from({ length: 51 }, (_, i) => i));
  assert.deepEqual(got.errors, [0, 0, 2]);
  assert.equal(proxy.asked.length, 3);
  await page.waitForTimeout(1000);
  assert.equal(proxy.asked.length, 3);
}
