/* client_restart.mjs - 1,000 clients whose server restarts: when do they come
 * back, with plus or minus 10 % and with full jitter?  The figures of
 * docs/CLIENT.md are those of this simulation. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { ResilientSSEConnection } from '../static/magic/respool.js';
import { chunk, install, range, settle } from './fake_browser.mjs';

const CLIENTS = 1000;
const BUCKET = 100; /* ms */
const DOWN = [0, 1000, 3000, 10000];

/* All of them lose their connection at once; for `down` ms the server
 * refuses.  Every attempt counts, also those that are refused. */
async function restart(down, jitter) {
  const browser = install({ seed: 7 });
  const { clock } = browser;
  const bodies = [];
  let attempts = [];
  let back;

  browser.onRequest = (request) => {
    attempts.push(clock.now);
    if (clock.now < back)
      request.lose();
    else
      bodies.push(request.stream(chunk(request.cursor + 1)));
  };
  for (const id of range(0, CLIENTS))
    new ResilientSSEConnection('api/v1/stream', { retry: { jitter },
      params: { stream_id: `s${id}` } }).connect();
  await settle();
  assert.equal(bodies.length, CLIENTS);

  const start = clock.now;
  back = start + down;
  attempts = [];
  bodies.splice(0).forEach((body) => body.fail());
  await clock.advance(20000); /* nobody stalls in that time */
  assert.equal(bodies.length, CLIENTS);

  const first = Math.floor((attempts[0] - start) / BUCKET);
  const last = Math.floor((attempts.at(-1) - start) / BUCKET);
  const buckets = Array(last - first + 1).fill(0);
  for (const at of attempts)
    buckets[Math.floor((at - start) / BUCKET) - first]++;
  const mean = attempts.length / (last + 1); /* since the restart */
  const peak = Math.max(...buckets);
  return { peak, ratio: peak / mean, all: attempts.at(-1) - start };
}

/* A row of the table in docs/CLIENT.md. */
const seconds = (ms) => (ms / 1000).toFixed(1);
const cells = ({ peak, ratio, all }) =>
  `${peak} | ${ratio.toFixed(1)} | ${seconds(all)} s`;
const row = (down, near, full) =>
  `| ${down / 1000} s | ${cells(near)} | ${cells(full)} |`;

for (const down of DOWN)
  test(`${CLIENTS} clients after a restart of ${down} ms`, async () => {
    const near = await restart(down, 0.1);
    const full = await restart(down, 1);
    const document = readFileSync(new URL('../docs/CLIENT.md',
      import.meta.url), 'utf8');
    console.log(row(down, near, full));
    assert.ok(full.ratio <= 3, `full jitter: ${full.ratio}`);
    assert.ok(document.includes(row(down, near, full)),
      `docs/CLIENT.md lacks ${row(down, near, full)}`);
  });
