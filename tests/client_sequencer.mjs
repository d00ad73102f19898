/* client_sequencer.mjs - MessageSequencer and StallDetector. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MessageSequencer, StallDetector } from '../static/magic/respool.js';
import { cpuTime, install, random, range } from './fake_browser.mjs';

/* A sequencer that writes down what it does. */
function sequencer(options) {
  const delivered = [];
  const gaps = [];
  const s = new MessageSequencer({
    deliver: (id, data) => delivered.push([id, data]),
    onGap: (last) => gaps.push(last),
    ...options,
  });
  return { s, delivered, gaps, ids: () => delivered.map(([id]) => id) };
}

test('0, 2, 1, 3 arrives as 0, 1, 2, 3', () => {
  install();
  const { s, delivered } = sequencer();
  assert.equal(s.process(0, 'a'), 'a');
  assert.equal(s.process(2, 'c'), null);
  assert.deepEqual([...s.buffer], [[2, 'c']]);
  assert.equal(s.process(1, 'b'), 'b');
  assert.equal(s.process(3, 'd'), 'd');
  assert.deepEqual(delivered, [[0, 'a'], [1, 'b'], [2, 'c'], [3, 'd']]);
  assert.equal(s.nextSequence, 4);
  assert.equal(s.buffer.size, 0);
  assert.deepEqual([...s.processedIds], [0, 1, 2, 3]);
});

test('of 100 messages and 50 that come again, 100 are delivered', () => {
  install();
  const { s, ids } = sequencer();
  for (const id of range(0, 100)) {
    assert.equal(s.process(id, id + 1), id + 1);
    if (id % 2)
      assert.equal(s.process(id, id + 1), null);
  }
  assert.deepEqual(ids(), range(0, 100));
  assert.equal(s.duplicates, 50);
});

test('what is late, held or no number is not delivered', () => {
  install();
  const { s, ids } = sequencer({ next: 5 });
  for (const id of [4, 0, -1, NaN, undefined])
    assert.equal(s.process(id, 'x'), null);
  assert.equal(s.process(7, 'x'), null);
  assert.equal(s.process(7, 'again'), null);
  assert.equal(s.duplicates, 6);
  s.process(5, 'x');
  s.process(6, 'x');
  assert.deepEqual(ids(), [5, 6, 7]);
});

test('a gap that stays is told once, after its time', () => {
  const { clock } = install();
  const { s, gaps, ids } = sequencer();
  s.process(0);
  s.process(2);
  clock.run(499);
  s.process(3);
  assert.deepEqual(gaps, []);
  clock.run(1);
  assert.deepEqual(gaps, [0]);
  assert.equal(s.buffer.size, 0);
  clock.run(10000);
  assert.deepEqual(gaps, [0]);
  for (const id of range(1, 5))
    s.process(id);
  assert.deepEqual(ids(), range(0, 5));
  assert.equal(clock.timers.size, 0);
});

test('a gap that fills is not told; the next one has its own time', () => {
  const { clock } = install();
  const { s, gaps } = sequencer();
  s.process(1);
  s.process(3);
  clock.run(400);
  s.process(0); /* now 2 is missing */
  clock.run(400);
  assert.deepEqual(gaps, []);
  clock.run(100);
  assert.deepEqual(gaps, [1]);
});

test('no more than 256 are held', () => {
  install();
  const { s, gaps } = sequencer();
  for (const id of range(1, 257))
    s.process(id);
  assert.equal(s.buffer.size, 256);
  assert.deepEqual(gaps, []);
  s.process(257);
  assert.deepEqual(gaps, [-1]);
  assert.equal(s.buffer.size, 0);
});

test('the ids it remembers are bounded', () => {
  install();
  const { s } = sequencer();
  for (const id of range(0, 100000))
    s.process(id);
  assert.equal(s.processedIds.size, 256);
  assert.ok(s.processedIds.has(99999));
});

test('what is held is delivered before the message after it', () => {
  install();
  const { s, ids } = sequencer();
  for (const id of range(1, 200).reverse())
    assert.equal(s.process(id), null);
  s.process(0);
  assert.deepEqual(ids(), range(0, 200));
});

test('deliver may close it: nothing comes after that', () => {
  const { clock } = install();
  const seen = [];
  const s = new MessageSequencer({ deliver(id) {
    seen.push(id);
    if (id === 1)
      s.close();
  } });
  for (const id of [3, 2, 1, 0])
    s.process(id);
  assert.deepEqual(seen, [0, 1]);
  assert.equal(clock.timers.size, 0);
});

test('deliver may feed it', () => {
  install();
  const seen = [];
  const s = new MessageSequencer({ deliver(id) {
    seen.push(id);
    if (id < 50)
      s.process(id + 1);
  } });
  s.process(0);
  assert.deepEqual(seen, range(0, 51));
});

test('a deliver that throws loses nothing but that message', () => {
  const { clock } = install();
  const gaps = [];
  const seen = [];
  const s = new MessageSequencer({ onGap: (last) => gaps.push(last),
    deliver(id) {
      seen.push(id);
      if (id === 1)
        throw new Error('of the page');
    } });
  s.process(2);
  s.process(1);
  assert.throws(() => s.process(0), /of the page/);
  clock.run(500);
  assert.deepEqual(gaps, [1]); /* 2 comes again */
  s.process(2);
  assert.deepEqual(seen, [0, 1, 2]);
});

test('another stream begins anew', () => {
  const { clock } = install();
  const { s, ids, gaps } = sequencer();
  for (const id of [0, 1, 2, 9])
    s.process(id);
  s.reset();
  assert.equal(s.nextSequence, 0);
  assert.equal(s.processedIds.size, 0);
  for (const id of [0, 1])
    s.process(id);
  assert.deepEqual(ids(), [0, 1, 2, 0, 1]);
  clock.run(1000);
  assert.deepEqual(gaps, []);
});

/* One schedule: frames are dropped, doubled and delayed, and after a gap sent
 * again from there, as hostilely.  What is delivered is the source. */
function schedule(seed) {
  const { clock } = install();
  const chance = random(seed);
  const total = 1 + Math.floor(chance() * 60);
  const [drop, twice, late] = [chance() * 0.5, chance() * 0.5, chance()];
  const held = 1 + Math.floor(chance() * 20);
  const delivered = [];
  let generation = 0;
  let most = 0;

  function send(from) {
    const mine = ++generation; /* the connection before is gone */
    for (const id of range(from, total)) {
      if (chance() < drop)
        continue;
      for (let copies = chance() < twice ? 2 : 1; copies > 0; copies--) {
        const delay = id * 5 + (chance() < late ? chance() * 300 : 0);
        setTimeout(() => {
          if (mine !== generation)
            return;
          const before = s.nextSequence;
          const got = s.process(id, `data ${id}`);
          assert.equal(got, id === before ? `data ${id}` : null);
          most = Math.max(most, s.buffer.size);
        }, delay);
      }
    }
    /* An end without the last message is a cut. */
    setTimeout(() => mine === generation && s.nextSequence < total
      && send(s.nextSequence), total * 5 + 1000);
  }

  const s = new MessageSequencer({ held,
    deliver: (...message) => delivered.push(message),
    onGap(last) {
      assert.equal(last, delivered.length - 1);
      send(last + 1);
    } });
  send(0);
  clock.run(1e7);
  assert.deepEqual(delivered, range(0, total).map((id) => [id, `data ${id}`]),
    `seed ${seed}`);
  assert.ok(most <= held, `seed ${seed}: ${most} were held`);
  assert.equal(s.buffer.size, 0);
}

test('10,000 schedules of drops, repeats and re-ordering', () => {
  for (const seed of range(0, 10000))
    schedule(seed);
});

test('a message costs the same after 500,000 others', () => {
  install();
  const s = new MessageSequencer({ deliver() {} });
  let next = 0;
  const send = (count) => {
    for (const end = next + count; next < end; next++)
      s.process(next ^ 1, next); /* pairs, exchanged */
  };
  /* Of 5,000: the best of five. */
  const cost = () => Math.min(...range(0, 5).map(() => {
    const start = cpuTime();
    send(5000);
    return cpuTime() - start;
  }));
  const early = cost();
  send(500000);
  const late = cost();
  assert.equal(s.nextSequence, next);
  /* Were it to look through what it had, 20 times as much. */
  assert.ok(late < early * 10, `${early} us, then ${late} us`);
});

/* ---- StallDetector ---- */

function detector(timeout) {
  const { clock } = install();
  const stalls = [];
  const d = new StallDetector({ timeout, onStall: () =>
    stalls.push(clock.now) });
  return { d, clock, stalls, start: clock.now };
}

test('a silence of 2.5 heartbeats is a stall, told once', () => {
  const { clock, stalls, start } = detector();
  clock.run(37499);
  assert.deepEqual(stalls, []);
  clock.run(1000000);
  assert.deepEqual(stalls, [start + 37500]);
});

test('activity puts the stall off, and makes another one possible', () => {
  const { d, clock, stalls } = detector(1000);
  for (let i = 0; i < 100; i++) {
    clock.run(999);
    d.recordActivity();
    assert.equal(d.lastEventTime, clock.now);
  }
  assert.equal(stalls.length, 0);
  clock.run(1000);
  assert.equal(stalls.length, 1);
  clock.run(5000);
  d.recordActivity();
  clock.run(999);
  assert.equal(stalls.length, 1);
  clock.run(1);
  assert.equal(stalls.length, 2);
});

test('one timer, whatever the number of bytes', () => {
  const { d, clock } = detector(1000);
  for (let i = 0; i < 10000; i++)
    d.recordActivity();
  assert.equal(clock.timers.size, 1);
});

test('close() is for good, but for resetTimer()', () => {
  const { d, clock, stalls } = detector(1000);
  d.close();
  d.recordActivity();
  clock.run(10000);
  assert.deepEqual([stalls.length, clock.timers.size], [0, 0]);
  d.resetTimer();
  clock.run(999);
  assert.equal(stalls.length, 0);
  clock.run(1);
  assert.equal(stalls.length, 1);
});

test('after frozen timers what came meanwhile gets its chance', () => {
  const { d, clock, stalls } = detector(1000);
  clock.freeze(3600000);
  clock.run(0);
  assert.equal(stalls.length, 0);
  clock.run(500);
  d.recordActivity();
  clock.run(999);
  assert.equal(stalls.length, 0);
  clock.run(1);
  assert.equal(stalls.length, 1);
});

test('each freeze gets its chance, when something came between', () => {
  const { d, clock, stalls } = detector(1000);
  for (let i = 0; i < 3; i++) {
    clock.freeze(60000);
    clock.run(0);
    d.recordActivity();
  }
  assert.equal(stalls.length, 0);
});

test('after frozen timers silence is a stall, one timeout later', () => {
  const { d, clock, stalls } = detector(1000);
  const last = d.lastEventTime;
  clock.freeze(3600000);
  clock.run(999);
  assert.equal(stalls.length, 0);
  assert.equal(d.lastEventTime, last); /* a wake-up looks at it */
  clock.run(1);
  assert.equal(stalls.length, 1);
});

test('timers that always come late do not make it deaf', () => {
  const { clock, stalls } = detector(1000);
  for (let i = 0; i < 4; i++) {
    clock.freeze(60000);
    clock.run(0);
  }
  assert.equal(stalls.length, 1);
});

test('a timer that is a little late is a stall all the same', () => {
  const { clock, stalls } = detector(1000);
  clock.freeze(1400);
  clock.run(0);
  assert.equal(stalls.length, 1);
});

test('a clock that is set back costs one timeout at most', () => {
  const { clock, stalls } = detector(1000);
  clock.run(500);
  const timers = [...clock.timers.values()];
  clock.now -= 3600000;
  for (const timer of timers)
    timer.at -= 3600000; /* timers do not follow the clock */
  clock.run(2000);
  assert.equal(stalls.length, 1);
});

test('Infinity is never too long', () => {
  const { clock, stalls } = detector(Infinity);
  clock.run(1e11);
  assert.equal(stalls.length, 0);
});
