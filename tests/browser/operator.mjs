/* operator.mjs - the chat page where one has to sign in, and where there are
 * limits; and an answer that is handed to another reader */
import assert from 'node:assert/strict';

import { inspect } from './looks.mjs';
import { answer, answerHas, ask, ended, panel, textOf } from './page.mjs';

const PHONE = { viewport: { width: 390, height: 780 } };
const COME_BACK = 'Please sign in. Then come back: the answer goes on.';

/* Signs the page's visitor in, as the application before it would; without a
 * token out. */
async function sign(page, token) {
  const context = page.context();
  await context.clearCookies();
  if (token)
    await context.addCookies([{ name: 'session', value: token,
      url: page.url(), httpOnly: true, sameSite: 'Strict' }]);
}

const saysThat = (page, pattern) => page.waitForFunction((source) =>
  new RegExp(source).test(document.querySelector('#status').textContent),
pattern.source);

const typed = (page) => page.locator('#message').inputValue();

const mayChoose = (page) => page.waitForFunction(() =>
  document.querySelector('#model').length > 1);

/* Somebody who has looked at another tab looks at this one again. */
async function lookAgain(page) {
  for (const hidden of [true, false])
    await page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { value, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
}

/* ---- who one is ---- */

/* Has the answer of the model that takes long stopped. */
async function stop(page) {
  await page.click('#stop');
  await ended(page);
  assert.match(await page.locator('article:last-child .numbers').textContent(),
    /^Stopped · /);
  assert.ok(textOf(1000).startsWith(await answer(page)));
}

/* All of the page, for somebody who may. */
async function useIt(page) {
  await ask(page, 'fifty', 'hi');
  await ended(page);
  assert.equal(await answer(page), textOf(50));
  await ask(page, 'slow', 'more');
  await answerHas(page, 100);
  await page.reload();
  await answerHas(page, 200);
  await stop(page);
  await page.click('#new');
  assert.equal(await page.locator('article').count(), 0);
  await page.selectOption('#persona', 'lion_001');
  await ask(page, '', 'who are you?');
  await answerHas(page, 20);
  await stop(page);
}

export async function signed_in({ open, order, failures, proxy }) {
  const page = await open();
  await sign(page, await order('token'));
  await page.reload();
  failures.length = 0; /* the 401s from before that */
  await useIt(page);
  /* Elsewhere the conversation is there for her, and for nobody else. */
  const path = page.url().slice(page.url().indexOf('/magic'));
  const other = await open({ context: page.context() }, path);
  await ended(other);
  assert.equal(await answer(other), await answer(page));
  assert.equal(proxy.asked.filter((line) => /^POST/.test(line)).length, 3);
}

export async function signed_out(tools) {
  const { open, order, failures, proxy } = tools;
  const page = await open(PHONE);
  await saysThat(page, /^Please sign in\.$/);
  await page.fill('#message', 'hi, who am I?');
  await page.press('#message', 'Enter');
  await page.waitForFunction(() => document.querySelector('#message').value);
  assert.equal(await typed(page), 'hi, who am I?');
  assert.equal(await page.locator('article').count(), 0);
  assert.equal(await page.locator('#stop').isVisible(), false);
  await saysThat(page, /^Please sign in\.$/);
  assert.equal(new URL(page.url()).hash, '');
  await inspect(tools, page, 'signed-out');
  await page.waitForTimeout(1500); /* a second attempt would have come */
  assert.equal(proxy.asked.length, 1);
  /* She signs in, in another tab. */
  await sign(page, await order('token'));
  await lookAgain(page);
  await mayChoose(page);
  await page.selectOption('#model', 'fifty');
  await page.press('#message', 'Enter');
  await ended(page);
  assert.equal(await answer(page), textOf(50));
  failures.length = 0; /* the 401s, which it complains of */
}

/* The token runs out in mid-answer, and the line drops. */
export async function expired(tools) {
  const { open, order, failures, proxy } = tools;
  const page = await open(PHONE);
  let seen = '';
  await sign(page, await order('token'));
  await page.reload();
  await ask(page, 'slow', 'hi');
  for (const how of ['look', 'reload']) {
    await answerHas(page, seen.length + 100);
    const asked = proxy.asked.length;
    await sign(page, how === 'look' ? await order('expired') : '');
    proxy.cutAll();
    await saysThat(page, new RegExp(`^${COME_BACK}$`));
    const before = await answer(page);
    assert.ok(before.length >= seen.length + 100 && before.startsWith(seen));
    seen = before;
    await page.click('#stop');
    await saysThat(page, /^Please sign in\.$/);
    if (how === 'look')
      await page.waitForTimeout(1500); /* there is no second attempt */
    assert.equal(proxy.asked.length, asked + 1);
    assert.equal(await answer(page), seen);
    await inspect(tools, page, 'expired');
    await sign(page, await order('token'));
    await (how === 'look' ? lookAgain(page) : page.reload());
  }
  await answerHas(page, seen.length + 100);
  await stop(page);
  assert.match(proxy.asked.at(-1), /last_event_id=\d/);
  failures.length = 0; /* the 401s, which it complains of */
}

export async function basic({ open, failures }) {
  /* Whom the browser has asked for a password, and who has none. */
  const stranger = await open({ httpCredentials: { username: 'ann',
    password: 'wrong' } });
  await saysThat(stranger, /^Please sign in\.$/);
  await stranger.fill('#message', 'hi');
  await stranger.press('#message', 'Enter');
  await stranger.waitForFunction(() =>
    document.querySelector('#message').value === 'hi');
  await saysThat(stranger, /^Please sign in\.$/);
  assert.equal(await stranger.locator('article').count(), 0);
  failures.length = 0; /* the 401s, which it complains of */
  const page = await open({ httpCredentials: { username: 'ann',
    password: 'secret' } });
  await ask(page, 'slow', 'hi');
  await answerHas(page, 100);
  await page.reload();
  await answerHas(page, 200);
  await stop(page);
}

/* ---- how much ---- */

/* What ends by itself in a minute is waited for; the server says why. */
export async function soon_again(tools) {
  const { open, failures } = tools;
  const one = await open();
  await ask(one, 'slow', 'hi');
  await answerHas(one, 20);
  const two = await open(PHONE);
  await ask(two, 'fifty', 'hi');
  await saysThat(two,
    /^As many of your answers as may be .* Next attempt in \d[\d.]* s\.$/);
  await one.click('#stop');
  await ended(two);
  assert.equal(await answer(two), textOf(50));
  await ask(two, 'fifty', 'a third');
  await saysThat(two,
    /^You have started as many .* Next attempt in [1-6]\d(\.\d)? s\.$/);
  await inspect(tools, two, 'starts-limit');
  await two.click('#stop');
  await ended(two);
  assert.equal(await two.locator('article:last-child .question').textContent(),
    'a third');
  failures.length = 0; /* the 429s, which it complains of */
}

/* What lasts until midnight is not waited for. */
export async function tomorrow(tools) {
  const { open, failures, proxy } = tools;
  const page = await open(PHONE);
  await ask(page, 'fifty', 'hi');
  await ended(page);
  const before = proxy.asked.length;
  await ask(page, 'fifty', 'And again?');
  const refused = () => saysThat(page, new RegExp('^Your tokens for today do '
    + 'not suffice for this answer\\. Try again tomorrow\\. Not before '
    + '[A-Z][a-z]+day \\d\\d:\\d\\d\\.$'));
  await refused();
  assert.equal(await typed(page), 'And again?');
  assert.equal(await page.locator('article').count(), 1);
  assert.equal(await answer(page), textOf(50));
  await inspect(tools, page, 'day-limit');
  /* Asked again, the answer that there is stays. */
  await page.evaluate(() =>
    document.querySelector('#status').replaceChildren());
  await page.click('.retry');
  await refused();
  assert.equal(await answer(page), textOf(50));
  assert.equal(await page.locator('.question').textContent(), 'hi');
  assert.equal(await typed(page), 'And again?');
  await page.reload();
  assert.equal(await answer(page), textOf(50));
  await page.waitForTimeout(1500); /* a second attempt would have come */
  assert.equal(proxy.asked.length - before, 2, proxy.asked.join('\n'));
  failures.length = 0; /* the 429s, which it complains of */
}

/* ---- to another reader ---- */

export async function shared(tools) {
  const { open, order, failures } = tools;
  const page = await open(PHONE);
  await sign(page, await order('token'));
  await page.reload();
  failures.length = 0; /* the 401s from before that */
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await ask(page, 'slow', 'hi');
  await answerHas(page, 100);
  await page.click('.share');
  await saysThat(page, /^The link is copied\. .* until \w+day \d\d:\d\d\.$/);
  const url = await page.evaluate(() => navigator.clipboard.readText());
  /* Who has it is nobody, and reads along; no more. */
  const reader = await open(PHONE, url.slice(url.indexOf('/magic')));
  await answerHas(reader, 100);
  assert.equal(await reader.locator('#box').isVisible(), false);
  assert.equal(await reader.locator('.share:visible').count(), 0);
  await inspect(tools, reader, 'shared');
  await reader.keyboard.press('Escape');
  await reader.reload();
  await answerHas(reader, 200);
  assert.equal(await reader.evaluate(() =>
    document.querySelector('article').ariaBusy), 'true');
  await stop(page);
  await ended(reader);
  assert.equal(await answer(reader), await answer(page));
  assert.deepEqual(failures, []);
  /* The owner deletes it. */
  assert.equal(await page.evaluate(async () => (await fetch('api/v1/streams/'
    + location.hash.split('=')[1], { method: 'DELETE' })).status), 204);
  await reader.reload();
  await saysThat(reader, /^There is no such stream, or it has expired\.$/);
  /* Without a clipboard the link is told. */
  await ask(page, 'fifty', 'hi');
  await ended(page);
  await page.evaluate(() => Object.defineProperty(navigator, 'clipboard',
    { value: undefined }));
  await page.click('article:last-child .share');
  await saysThat(page, /day \d\d:\d\d: http\S+#stream=\w+&link=[\w.]+$/);
  await inspect(tools, page, 'share');
  failures.length = 0; /* the 404, which it complains of */
}
