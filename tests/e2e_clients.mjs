// e2e_clients.mjs - public clients of event streams, for e2e_clients.py:
//	node e2e_clients.mjs eventsource|abandoned PACKAGES URL
//	node e2e_clients.mjs parser PACKAGES URL BODY
//	node e2e_clients.mjs readme PACKAGES BASE <CODE
// Prints what the client gave, as JSON.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { webcrypto } from 'node:crypto';

const [mode, packages, url, body] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { EventSource } = require('undici');

const LAST = ['done', 'complete', 'error'];
const NAMES = ['message', 'message_chunk', 'reasoning_chunk',
  'refusal_chunk', 'tool_call_chunk', 'heartbeat', 'metadata', 'typing',
  ...LAST];
const warnings = [];
process.on('warning', (w) => {
  // That undici's EventSource is new, it says of itself.
  if (w.code !== 'UNDICI-ES')
    warnings.push(String(w));
});

// Until the last event, or left alone until the server says that there is no
// more.
function eventSource(untilClosed) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const told = { events: [], opened: 0 };
    source.addEventListener('open', () => { told.opened++; });
    for (const name of NAMES)
      source.addEventListener(name, (e) => {
        if (e.data !== undefined)
          told.events.push([name, e.lastEventId, e.data]);
        if (e.data !== undefined && LAST.includes(name) && !untilClosed)
          source.close();
        if (source.readyState === EventSource.CLOSED)
          resolve(told);
      });
  });
}

async function parser() {
  const { createParser } = require('eventsource-parser');
  const told = { events: [], comments: 0, retries: [] };
  const p = createParser({
    onEvent: (e) => told.events.push([e.event, e.id, e.data]),
    onComment: () => { told.comments++; },
    onRetry: (ms) => told.retries.push(ms),
    onError: (e) => warnings.push(String(e)),
  });
  const response = await fetch(url, {
    method: 'POST', body, headers: { 'Content-Type': 'application/json' },
  });
  for await (const text of response.body.pipeThrough(new TextDecoderStream()))
    p.feed(text);
  return told;
}

// The code of a page at that URL, which has a function show().
function readme() {
  return new Promise((resolve) => {
    const told = { shown: '' };
    class PageEventSource extends EventSource {
      constructor(relative) {
        super(new URL(relative, url));
      }

      close() {
        super.close();
        resolve(told);
      }
    }
    const code = readFileSync(0, 'utf8');
    new Function('EventSource', 'show', 'crypto', code)(PageEventSource,
      (text) => { told.shown += text; }, webcrypto);
  });
}

const modes = {
  eventsource: () => eventSource(false),
  abandoned: () => eventSource(true),
  parser,
  readme,
};
// undici waits for a reconnect without holding the process.
const alive = setInterval(() => {}, 60000);
const told = await modes[mode]();
clearInterval(alive);
console.log(JSON.stringify({ ...told, warnings }));
