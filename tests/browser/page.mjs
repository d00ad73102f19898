/* page.mjs - the chat page, through a line that does it harm */
import assert from 'node:assert/strict';

import { soon } from './soon.mjs';

export const textOf = (count) =>
  Array.from({ length: count }, (_, i) => `tok${i} `).join('');

export async function ask(page, model, question) {
  await page.waitForFunction(() => document.querySelector('#model').length);
  if (model)
    await page.selectOption('#model', model);
  await page.fill('#message', question);
  await page.press('#message', 'Enter');
}

export const answerHas = (page, length) => page.waitForFunction((n) =>
  document.querySelector('article:last-child .answer')?.textContent.length > n,
length);

export const ended = (page) => page.waitForFunction(() =>
  document.querySelector('article:last-child')?.ariaBusy === 'false', null,
{ timeout: 120000 });

export const answer = (page) =>
  page.locator('article:last-child .answer').textContent();

export const panel = (page, id) => page.locator(`#${id}`).textContent();

/* 10 tabs of their own, and 200 cuts anywhere in their bytes. */
export async function random_cuts({ open, proxy }) {
  const count = 3000;
  let cuts = 200;
  let seed = 1; /* the same points in each run */
  const random = () => seed = seed * 48271 % 2147483647;
  proxy.plan = () => cuts-- > 0 ? { cutAfter: random() % 32000 } : {};
  await Promise.all(Array.from({ length: 10 }, async () => {
    const page = await open();
    await ask(page, 'long', 'hi');
    await ended(page);
    assert.equal(await answer(page), textOf(count));
    assert.ok(Number(await panel(page, 'reconnects')) > 0);
  }));
  assert.ok(cuts <= 0, `${cuts} cuts were not made`);
}

/* The buttons that do harm do it, and it does no harm. */
export async function buttons({ open, proxy }) {
  const page = await open();
  await ask(page, 'hundred', 'hi');
  await answerHas(page, 100);
  await page.click('#wire summary');
  await page.click('#cut');
  await page.waitForFunction(() =>
    document.querySelector('#dot').dataset.state === 'waiting');
  await page.click('#rewind:enabled');
  await page.waitForFunction(() =>
    document.querySelector('#duplicates').textContent === '10');
  assert.equal(await panel(page, 'reconnects'), '2');
  assert.equal(await panel(page, 'holder'), 'this tab');
  await ended(page);
  assert.equal(await answer(page), textOf(100));
  assert.equal(await panel(page, 'last-id'), '100');
  assert.equal(proxy.asked.length, 3);
}

export async function silence_of_the_page({ open }) {
  const page = await open();
  await page.clock.install();
  await ask(page, 'hundred', 'hi');
  await answerHas(page, 100);
  await page.click('#wire summary');
  await page.click('#mute');
  for (let i = 0; i < 5; i++)
    await page.clock.runFor(10000);
  await page.waitForFunction(() =>
    document.querySelector('#stalls').textContent === '1');
  await page.clock.runFor(3000);
  await page.clock.resume();
  await ended(page);
  assert.equal(await answer(page), textOf(100));
}

export async function restart({ open, proxy, order }) {
  const page = await open();
  await ask(page, 'hundred', 'hi');
  await answerHas(page, 100);
  proxy.target = Number(await order('restart'));
  await ended(page);
  assert.equal(await answer(page), textOf(100));
  assert.ok(Number(await panel(page, 'reconnects')) > 0);
}

export async function offline({ open, proxy }) {
  const page = await open();
  const requests = [];
  await ask(page, 'hundred', 'hi');
  await answerHas(page, 100);
  await page.context().setOffline(true);
  proxy.cutAll();
  await page.waitForFunction(() =>
    document.querySelector('#dot').dataset.state === 'offline');
  page.on('request', (request) => requests.push(request.url()));
  await page.waitForTimeout(3000);
  assert.deepEqual(requests, []);
  await page.context().setOffline(false);
  await page.waitForFunction(() =>
    document.querySelector('#dot').dataset.state === 'live');
  await ended(page);
  assert.equal(await answer(page), textOf(100));
}

/* Runs in the page, before all else: how short the answer was at each frame
 * that was painted. */
function watchFrames() {
  window.lengths = [];
  const look = () => {
    window.lengths.push(
      document.querySelector('.answer')?.textContent.length ?? 0);
    requestAnimationFrame(look);
  };
  document.addEventListener('DOMContentLoaded', () =>
    requestAnimationFrame(look));
}

export async function reload({ open, proxy }) {
  for (const persona of [false, true]) {
    const page = await open();
    await page.addInitScript(watchFrames);
    if (persona)
      await page.selectOption('#persona', { index: 1 });
    await ask(page, persona ? '' : 'hundred', 'hi');
    let seen = 0;
    for (let i = 0; i < 3; i++) {
      await answerHas(page, seen + 50);
      await page.evaluate(() => addEventListener('pagehide', () =>
        sessionStorage.setItem('seen',
          document.querySelector('.answer').textContent.length)));
      await page.reload();
      seen = Number(await page.evaluate(() => sessionStorage.getItem('seen')));
      assert.ok(seen > 50);
      const lengths = await page.evaluate(() => window.lengths);
      assert.ok(Math.min(...lengths) >= seen, `${seen}: ${lengths}`);
      assert.equal(await page.locator('.question').textContent(), 'hi');
    }
    await ended(page);
    assert.equal(await answer(page), textOf(100));
    /* Each began where the one before it had ended. */
    const cursors = proxy.asked.splice(0).map((line) =>
      Number(/last_event_id=(\d+)/.exec(line)?.[1] ?? -1));
    assert.equal(cursors.length, 4);
    assert.deepEqual([...cursors].sort((a, b) => a - b), cursors);
    assert.equal(new Set(cursors).size, 4);
    await page.reload();
    assert.equal(await answer(page), textOf(100));
    assert.equal(proxy.asked.length, 0);
    await page.context().close();
  }
}

export async function stop({ open }) {
  const page = await open();
  await ask(page, 'slow', 'hi');
  await answerHas(page, 20);
  await page.click('#stop');
  await ended(page);
  const text = await answer(page);
  assert.ok(textOf(1000).startsWith(text) && text.length < 5000);
  assert.match(await page.locator('.numbers').textContent(), /^Stopped · /);
  /* By keyboard, and then the same again. */
  await page.click('.retry');
  await answerHas(page, 20);
  await page.keyboard.press('Escape');
  await ended(page);
  assert.equal(await page.locator('article').count(), 1);
}

export async function failure({ open, proxy }) {
  const page = await open();
  await ask(page, 'fails', 'hi');
  await ended(page);
  assert.equal(await answer(page), textOf(4));
  assert.match(await page.locator('.failure').textContent(), /overloaded/);
  assert.equal(proxy.asked.length, 1);
  await page.selectOption('#model', 'fifty');
  await page.click('.retry');
  await page.waitForFunction(() =>
    document.querySelector('.answer').textContent.includes('tok4'));
  await ended(page);
  assert.equal(await answer(page), textOf(50));
  assert.equal(await page.locator('.failure:visible').count(), 0);
}

/* One connection for two tabs; when the one that has it closes, the other
 * takes it over: how long that takes. */
async function takeOver({ open, proxy }) {
  const first = proxy.asked.length;
  const one = await open();
  await ask(one, 'hundred', 'hi');
  await answerHas(one, 50);
  const path = new URL(one.url());
  const two = await open({ context: one.context() },
    path.pathname + path.hash);
  await answerHas(two, 100);
  assert.equal(proxy.open.size, 1);
  assert.equal(await panel(two, 'holder'), 'another tab');
  const before = (await answer(two)).length;
  await one.close();
  const began = Date.now();
  await answerHas(two, before + 20);
  const took = Date.now() - began;
  assert.equal(await panel(two, 'holder'), 'this tab');
  await ended(two);
  assert.equal(await answer(two), textOf(100));
  assert.equal(proxy.asked.slice(first)
    .filter((line) => line.startsWith('POST')).length, 1);
  await two.context().close();
  return took;
}

export async function two_tabs(tools) {
  await soon(() => takeOver(tools), 2000);
}

export async function text_is_text({ open }) {
  const page = await open();
  const hostile = '<img src=x onerror="document.title=1"><script>document.title'
    + '=1</script><b>&amp; &lt; [a](javascript:alert(1)) \u2028 \u{1F600}';
  await ask(page, 'echo', hostile);
  await ended(page);
  assert.equal((await answer(page)).trimEnd(), hostile);
  assert.equal(await page.locator('.question').textContent(), hostile);
  assert.equal(await page.locator('.answer *, .question *').count(), 0);
  assert.equal(await page.title(), 'respool');
}

/* All that it refers to is relative. */
export async function below_a_path({ open, proxy }) {
  proxy.prefix = '/~user/cgi-bin/respool.fcgi';
  const page = await open({}, `${proxy.prefix}/magic`);
  const strays = [];
  page.on('request', (request) => {
    if (!new URL(request.url()).pathname.startsWith(proxy.prefix))
      strays.push(request.url());
  });
  await ask(page, 'fifty', 'hi');
  await ended(page);
  assert.equal(await answer(page), textOf(50));
  await page.reload();
  await ask(page, 'slow', 'hi');
  await answerHas(page, 20);
  await page.click('#stop');
  await ended(page);
  assert.deepEqual(strays, []);
}

export async function persona({ open, proxy }) {
  const page = await open();
  await page.selectOption('#persona', 'lion_001');
  assert.ok(await page.locator('#greeting').isVisible());
  assert.equal(await page.locator('#model').isVisible(), false);
  for (const question of ['first', 'second']) {
    await ask(page, '', question);
    await ended(page);
    assert.equal(await answer(page), textOf(100));
  }
  assert.match(proxy.asked[0], /^POST \S*convo_turn_stream/);
  assert.match(page.url(), /#session=/);
  await ask(page, '', 'third');
  await answerHas(page, 50);
  /* Elsewhere the history is all there is, and the live turn goes on. */
  const { pathname, hash } = new URL(page.url());
  const other = await open({}, pathname + hash);
  await answerHas(other, 100);
  while (proxy.asked.length < 4)
    await other.waitForTimeout(20);
  assert.match(proxy.asked[3], /last_event_id=\d/);
  assert.deepEqual(await other.locator('.question').allTextContents(),
    ['first', 'second', 'third']);
  await page.waitForTimeout(500);
  await page.click('#stop');
  for (const each of [page, other]) {
    await ended(each);
    const text = await answer(each);
    assert.ok(textOf(100).startsWith(text) && text.length < 700);
    assert.match(await each.locator('article:last-child .speaker')
      .textContent(), /lion/);
  }
  assert.equal(await answer(page), await answer(other));
  /* What is asked there shows here after a reload. */
  await ask(other, '', 'fourth');
  await ended(other);
  await page.reload();
  await page.waitForFunction(() =>
    document.querySelectorAll('article').length === 4);
  assert.equal(await answer(page), textOf(100));
}

export async function template({ open, failures }) {
  const page = await open();
  await page.waitForFunction(() => document.querySelector('#template').length);
  await page.selectOption('#template', 'summarize');
  await page.click('#fill');
  await page.waitForFunction(() =>
    document.querySelector('#status').textContent.includes('text'));
  await page.fill('#blanks-fields [data-name=text]', 'Once upon a time {{x}}');
  await page.click('#fill');
  await page.waitForFunction(() => document.querySelector('#message').value
    .includes('Once upon a time {{x}}'));
  assert.equal(await page.locator('#blanks').isVisible(), false);
  failures.length = 0; /* the 400, which it complains of */
}

/* Then the address alone tells what to show. */
export async function storage({ open }) {
  const page = await open();
  await page.evaluate(() => sessionStorage.setItem('respool.talk', '{}'));
  await page.addInitScript(() => {
    Storage.prototype.setItem = () => {
      throw new Error('It is full.');
    };
  });
  await page.reload();
  await ask(page, 'hundred', 'hi');
  await answerHas(page, 100);
  await page.reload();
  await ended(page);
  assert.equal(await answer(page), textOf(100));
}

/* What a server does not have is not offered. */
export async function bare({ open, failures }) {
  const page = await open();
  await page.route(/api\/(personas|templates)$/, (route) =>
    route.fulfill({ status: 404, json: { error: 'no' } }));
  await page.reload();
  await ask(page, 'fifty', 'hi');
  await ended(page);
  for (const id of ['persona', 'template'])
    assert.equal(await page.locator(`#${id}`).isVisible(), false);
  failures.length = 0; /* the 404s, which it complains of */
}

/* A start that is refused, for a limit or for load, is made again when the
 * server says. */
export async function refused({ open, failures }) {
  const page = await open();
  let refusals = 2;
  await page.route('**/api/v1/stream*', (route) => refusals-- > 0
    ? route.fulfill({ status: refusals ? 429 : 503,
      headers: { 'Retry-After': '1' },
      json: { error: refusals ? 'Too many.' : 'It is full.' } })
    : route.continue());
  await ask(page, 'fifty', 'hi');
  for (const said of ['Too many.', 'It is full.'])
    await page.waitForFunction((text) => document.querySelector('#status')
      .textContent.startsWith(`${text} Next attempt in `), said);
  await ended(page);
  assert.equal(await answer(page), textOf(50));
  assert.equal(await page.locator('article').count(), 1);
  failures.length = 0; /* of these it complains */
}
