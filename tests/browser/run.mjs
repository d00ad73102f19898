/* run.mjs NAME PORT - one test of e2e_browser.py: Chromium, a proxy that does
 * harm, and the server behind it. */
import { createRequire } from 'node:module';

import { startProxy } from './proxy.mjs';
import * as client from './client.mjs';
import * as looks from './looks.mjs';
import * as operator from './operator.mjs';
import * as page from './page.mjs';

const [name, port] = process.argv.slice(2);
const require = createRequire(`${process.env.RESPOOL_NPM}/node_modules/`);
const { chromium } = require('playwright-core');

const proxy = await startProxy(Number(port));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM,
  args: process.getuid() === 0 ? ['--no-sandbox'] : [] });
const failures = [];

/* A page at the proxy; what it complains of fails the test. */
async function open(options = {}, path = '/magic') {
  const context = options.context ?? await browser.newContext(options);
  const opened = await context.newPage();
  opened.setDefaultTimeout(60000);
  opened.on('pageerror', (e) => failures.push(`${e}`));
  opened.on('console', (message) => {
    const text = message.text();
    /* That connections are cut is what happens here. */
    if (message.type() === 'error'
      && !/ERR_(CONN|EMPTY|INCOM|INTERNET)/.test(text))
      failures.push(`${text} ${message.location().url}`);
  });
  await opened.goto(`http://127.0.0.1:${proxy.port}${path}`);
  return opened;
}

/* What only the one who started the server can do. */
function order(what) {
  process.stdout.write(`${what}\n`);
  return new Promise((done) => process.stdin.once('data', (data) =>
    done(data.toString().trim())));
}

try {
  await { ...client, ...looks, ...operator, ...page }[name]({ browser, proxy,
    open, order, require, failures });
  if (failures.length)
    throw new Error(`The page complains:\n${failures.join('\n')}`);
} finally {
  await browser.close();
  proxy.close();
}
process.exit(0);
