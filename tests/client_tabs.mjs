/* client_tabs.mjs - several tabs, one connection. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ResilientSSEConnection } from '../static/magic/respool.js';
import { chunk, done, frame, install, random, range, record, settle }
  from './fake_browser.mjs';

function tab(options = {}) {
  const seen = record(new ResilientSSEConnection('api/v1/stream', {
    shared: true, params: { stream_id: 's1' }, ...options }));
  seen.connection.connect();
  return seen;
}

const live = (browser) => browser.requests.filter((r) => !r.aborted);

test('one connection serves all tabs', async () => {
  const browser = install({ tabs: true });
  const tabs = [tab(), tab(), tab()];
  await settle();
  assert.equal(browser.requests.length, 1);
  browser.last.stream(...range(0, 50).map(chunk), done(50));
  await settle();
  for (const { ids, log } of tabs) {
    assert.deepEqual(ids, range(0, 51));
    assert.deepEqual(log, ['open', 'close']);
  }
  await browser.clock.advance(60000);
  assert.equal(browser.requests.length, 1);
  assert.equal(browser.clock.timers.size, 0);
});

test('each stream and tab without locks has its own', async () => {
  let browser = install({ tabs: true });
  tab();
  tab({ params: { stream_id: 's2' } });
  tab({ shared: false });
  await settle();
  assert.equal(browser.requests.length, 3);
  browser = install({ tabs: false });
  tab();
  tab();
  await settle();
  assert.equal(browser.requests.length, 2);
});

test('when the leader closes, the next tab goes on', async () => {
  const browser = install({ tabs: true });
  const [a, b, c] = [tab(), tab(), tab()];
  await settle();
  browser.last.stream(...range(0, 10).map(chunk));
  await settle();
  const then = browser.clock.now;
  a.connection.close();
  await settle();
  assert.ok(browser.requests[0].aborted);
  assert.equal(live(browser).length, 1);
  assert.equal(browser.last.cursor, 9);
  assert.equal(browser.clock.now, then); /* at once */
  browser.last.stream(...range(10, 20).map(chunk), done(20));
  await settle();
  assert.deepEqual(a.ids, range(0, 10));
  assert.deepEqual(b.ids, range(0, 21));
  assert.deepEqual(c.ids, range(0, 21));
});

test('a tab that comes later gets what it missed', async () => {
  const browser = install({ tabs: true });
  const a = tab();
  await settle();
  browser.last.stream(...range(0, 10).map(chunk));
  await settle();
  const b = tab();
  await settle();
  assert.equal(live(browser).length, 1);
  assert.equal(browser.last.cursor, -1); /* the leader, for it */
  browser.last.stream(...range(0, 20).map(chunk), done(20));
  await settle();
  assert.deepEqual(a.ids, range(0, 21));
  assert.deepEqual(b.ids, range(0, 21));
});

test('a tab that is as far does not disturb the leader', async () => {
  const browser = install({ tabs: true });
  tab();
  await settle();
  browser.last.stream(...range(0, 10).map(chunk));
  await settle();
  tab({ lastEventId: 9 });
  await settle();
  assert.equal(browser.requests.length, 1);
});

test('a tab that missed frames asks the leader for them', async () => {
  const browser = install({ tabs: true });
  const [a, b] = [tab(), tab()];
  await settle();
  const body = browser.last.stream(chunk(0));
  await settle();
  /* The other tab's channel loses one. */
  b.connection.sequencer.process(2, { type: 'x', id: 2 });
  body.push(chunk(1), chunk(2));
  await settle();
  b.connection.sequencer.process(5, { type: 'x', id: 5 });
  body.push(chunk(3));
  await settle();
  await browser.clock.advance(500);
  await browser.clock.advance(0);
  assert.deepEqual(b.ids.slice(0, 2), [0, 1]);
  body.push(chunk(4), chunk(5), done(6));
  await settle();
  assert.deepEqual(a.ids, range(0, 7));
  assert.deepEqual(b.ids, range(0, 7));
});

test('a leader that hangs is replaced', async () => {
  const browser = install({ tabs: true });
  const [a, b] = [tab({ stall: 1e9 }), tab()];
  await settle();
  browser.last.stream(chunk(0));
  await settle();
  await browser.clock.advance(37500);
  await settle();
  assert.equal(live(browser).length, 1);
  assert.equal(browser.requests.length, 2);
  assert.equal(browser.last.cursor, 0);
  browser.last.stream(chunk(1), done(2));
  await settle();
  assert.deepEqual(b.ids, [0, 1, 2]);
  assert.deepEqual(a.ids, [0, 1, 2]); /* it follows now */
});

test('a leader that tries in vain is not replaced', async () => {
  const browser = install({ tabs: true });
  const a = tab();
  let asked = 0;
  const b = tab({ fetch: (...all) => (asked++, fetch(...all)) });
  browser.onRequest = (r) => r.lose();
  await settle();
  browser.last.lose();
  await browser.clock.advance(600000);
  assert.ok(browser.requests.length <= 600 / 4 + 5);
  assert.equal(asked, 0);
  assert.equal(a.count('reconnecting'), b.count('reconnecting'));
});

test('where locks are refused every tab has its own', async () => {
  const browser = install({ tabs: true });
  navigator.locks.request = () =>
    Promise.reject(new DOMException('no', 'SecurityError'));
  const tabs = [tab(), tab()];
  await settle();
  assert.equal(live(browser).length, 2);
  live(browser).forEach((r) => r.stream(chunk(0), done(1)));
  await settle();
  for (const { ids } of tabs)
    assert.deepEqual(ids, [0, 1]);
});

test('an error that ends it ends it for each tab', async () => {
  const browser = install({ tabs: true });
  const tabs = [tab(), tab(), tab()];
  browser.onRequest = (r) => r.answer(404, {}, { error: 'gone',
    error_type: 'stream_not_found' });
  await settle();
  live(browser)[0]?.answer(404, {}, { error: 'gone',
    error_type: 'stream_not_found' });
  await browser.clock.advance(1000);
  for (const { error, log } of tabs) {
    assert.equal(error.type, 'stream_not_found');
    assert.equal(log.at(-1), 'close');
  }
  assert.equal(browser.requests.length, 3);
});

test('a body is sent by one tab only', async () => {
  const browser = install({ tabs: true });
  const options = { body: { message: 'hi' } };
  const [a, b] = [tab(options), tab(options)];
  await settle();
  assert.equal(browser.last.method, 'GET'); /* another may have sent it */
  browser.last.answer(404);
  await browser.clock.advance(0);
  assert.equal(browser.last.method, 'POST');
  browser.last.stream(chunk(0));
  await settle();
  a.connection.close();
  await settle();
  assert.equal(browser.last.method, 'GET');
  browser.last.stream(done(1));
  await settle();
  assert.deepEqual(b.ids, [0, 1]);
  assert.equal(browser.requests.filter((r) => r.method === 'POST').length, 1);
});

test('tabs that were kept for the back button join again', async () => {
  const browser = install({ tabs: true });
  const tabs = [tab(), tab()];
  await settle();
  browser.last.stream(chunk(0));
  await settle();
  browser.fire('pagehide');
  await settle();
  assert.equal(live(browser).length, 0);
  browser.fire('pageshow');
  await settle();
  assert.equal(live(browser).length, 1);
  assert.equal(browser.last.cursor, 0);
  browser.last.stream(chunk(1), done(2));
  await settle();
  for (const { ids } of tabs)
    assert.deepEqual(ids, [0, 1, 2]);
});

test('tabs that wake up stay what they were', async () => {
  const browser = install({ tabs: true });
  const tabs = [tab(), tab()];
  await settle();
  const body = browser.last.stream(chunk(0));
  await settle();
  for (const event of ['visibilitychange', 'pageshow', 'visibilitychange']) {
    browser.fire(event);
    await settle();
  }
  body.push(chunk(1), done(2));
  await settle();
  for (const { ids, connection, log } of tabs) {
    assert.deepEqual(ids, [0, 1, 2]);
    assert.equal(connection.sequencer.duplicates, 0);
    assert.deepEqual(log, ['open', 'close']);
  }
  assert.equal(browser.requests.length, 1);
});

test('tabs come and go, connections are cut: each tab gets all of it',
  async () => {
    for (const seed of range(0, 100)) {
      const browser = install({ tabs: true, seed });
      const chance = random(seed);
      const total = 60;
      const start = browser.clock.now;
      const written = () => Math.min(total + 1,
        Math.floor((browser.clock.now - start) / 50));
      browser.onRequest = (request) => {
        const body = request.stream();
        let next = request.cursor + 1;
        const cut = chance() < 0.3 ? next + chance() * 20 : Infinity;
        (function send() {
          if (request.aborted)
            return;
          for (; next < written(); next++) {
            if (next > cut)
              return body.fail();
            body.push(next === total ? done(next) : frame(next, {}));
          }
          setTimeout(send, 50);
        })();
      };
      const tabs = [];
      for (let i = 0; i < 30; i++) {
        const open = tabs.filter(({ log }) => log.at(-1) !== 'close');
        if (chance() < 0.3 && tabs.length < 8)
          tabs.push(tab());
        else if (chance() < 0.2 && open.length > 1)
          open[Math.floor(chance() * open.length)].connection.close();
        await browser.clock.advance(100);
      }
      await browser.clock.advance(60000);
      for (const { ids, connection } of tabs) {
        const last = connection.manuallyClosed ? ids.length : total + 1;
        assert.deepEqual(ids, range(0, last), `seed ${seed}`);
      }
      assert.equal(browser.clock.timers.size, 0);
    }
  });
