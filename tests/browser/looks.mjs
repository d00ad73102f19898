/* looks.mjs - what people see and hear: screenshots and accessibility */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';

import { answerHas, ask, ended } from './page.mjs';

const THEMES = {
  light: { viewport: { width: 1100, height: 760 }, colorScheme: 'light' },
  dark: { viewport: { width: 1100, height: 760 }, colorScheme: 'dark' },
  phone: { viewport: { width: 390, height: 780 }, colorScheme: 'light',
    isMobile: true, hasTouch: true, deviceScaleFactor: 2 },
};

/* Brings the page from state to state, and has each looked at. */
async function tour({ open, proxy }, theme, look) {
  const page = await open(THEMES[theme]);
  await page.waitForFunction(() => document.querySelector('#template').length);
  await look(page, 'idle');
  await page.selectOption('#template', 'summarize');
  await look(page, 'template');
  await page.click('#no-blanks');
  await page.selectOption('#persona', 'lion_001');
  await look(page, 'persona');
  await page.selectOption('#persona', '');
  await page.selectOption('#model', 'text');
  await page.fill('#message', 'What becomes of an answer when the line drops?');
  await page.click('#ask');
  await answerHas(page, 60);
  await look(page, 'streaming');
  const { plan } = proxy;
  proxy.plan = () => ({ cutAfter: 0 });
  proxy.cutAll();
  await page.waitForFunction(() =>
    document.querySelector('#dot').dataset.state === 'waiting');
  await page.click('#wire summary');
  await look(page, 'reconnecting');
  proxy.plan = plan;
  await ended(page);
  await page.click('#wire summary');
  await look(page, 'done');
  await page.selectOption('#model', 'fails');
  await page.fill('#message', 'And when the model fails?');
  await page.click('#ask');
  await page.waitForFunction(() =>
    document.querySelectorAll('article[aria-busy=false]').length === 2);
  await look(page, 'error');
  await page.context().close();
}

async function photograph(page, name) {
  const dir = process.env.SCREENSHOTS;
  await mkdir(dir, { recursive: true });
  const wide = await page.evaluate(() =>
    document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${name}: ${wide} px too wide`);
  await page.screenshot({ path: `${dir}/${name}.png` });
}

async function listen({ require }, page, name) {
  /* By the debugger, which the page's policy does not bind. */
  const { default: { source } } = await import(require.resolve('axe-core'));
  await page.evaluate(source);
  const { violations } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id,
    nodes.map(({ html, failureSummary }) => [html, failureSummary])]), [],
  name);
}

/* A state that the tour does not come to. */
export async function inspect(tools, page, name) {
  await photograph(page, name);
  await listen(tools, page, name);
}

export async function screenshots(tools) {
  for (const theme in THEMES)
    await tour(tools, theme, (page, state) =>
      photograph(page, `${state}-${theme}`));
}

export async function axe(tools) {
  for (const theme in THEMES)
    await tour(tools, theme, (page, state) =>
      listen(tools, page, `${state}-${theme}`));
}

/* Everything that can be done, without a pointer. */
export async function keyboard({ open }) {
  const page = await open();
  await page.waitForFunction(() => document.querySelector('#template').length);
  const reached = [];
  await page.evaluate(() => document.activeElement.blur());
  for (let i = 0; i < 7; i++) {
    await page.keyboard.press('Tab');
    reached.push(await page.evaluate(() => document.activeElement.id
      || document.activeElement.tagName));
  }
  assert.deepEqual(reached.slice(0, 6),
    ['SUMMARY', 'message', 'persona', 'model', 'template', 'ask']);
  await ask(page, 'slow', 'hi');
  await answerHas(page, 20);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'message');
  await page.locator('#wire summary').focus();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'cut');
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('#panel').isVisible(), false);
  await page.keyboard.press('Escape');
  await ended(page);
}
