/* fake_browser.mjs - what the tests of the client put in the place of a
 * browser: a clock that moves when told, a network that does what the test
 * says, EventSource, storage, locks and channels.  install() makes all of it
 * global, anew for each test. */

import { webcrypto } from 'node:crypto';
import { setMaxListeners } from 'node:events';

globalThis.crypto ??= webcrypto; /* before node 19 */

/* Numbers from a seed, so that each run is the same (mulberry32). */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/* Microseconds of this process: other processes do not count. */
export function cpuTime() {
  const { user, system } = process.cpuUsage();
  return user + system;
}

const realImmediate = setImmediate;
/* Until all promises that can settle have settled. */
export const settle = async () => {
  for (let i = 0; i < 3; i++)
    await new Promise((done) => realImmediate(done));
};

export class Clock {
  now = 1e12;
  timers = new Map();
  #order = []; /* of the timers, also of those cleared since */
  #last = 0;

  setTimeout = (f, delay = 0) => {
    /* As browsers do. */
    const wait = delay > 2 ** 31 - 1 ? 0 : Math.max(delay, 0);
    const id = ++this.#last;
    const timer = { at: this.now + wait, f, id };
    let at = this.#order.length;
    while (at > 0 && this.#order[at - 1].at > timer.at)
      at--;
    this.#order.splice(at, 0, timer);
    this.timers.set(id, timer);
    return id;
  };

  clearTimeout = (id) => this.timers.delete(id);

  /* Runs what is due within `ms`, each at its time. */
  async advance(ms) {
    const end = this.now + ms;
    await settle();
    while (this.#step(end))
      await settle();
  }

  /* The same where there are no promises to wait for. */
  run(ms) {
    const end = this.now + ms;
    while (this.#step(end));
  }

  /* Time goes by, and no timer comes: sleep. */
  freeze(ms) {
    this.now += ms;
  }

  #step(end) {
    while (this.#order.length && !this.timers.has(this.#order[0].id))
      this.#order.shift();
    if (!this.#order.length || this.#order[0].at > end) {
      this.now = Math.max(this.now, end);
      return false;
    }
    const { at, f, id } = this.#order.shift();
    this.timers.delete(id);
    this.now = Math.max(this.now, at);
    f();
    return true;
  }
}

const encoder = new TextEncoder();
export const bytes = (text) => typeof text === 'string'
  ? encoder.encode(text) : text;

export const frame = (id, data, event = 'message_chunk') =>
  `event: ${event}\nid: ${id}\nretry: 10000\ndata: ${
    typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
export const chunk = (id) => frame(id, { content: `tok${id} `, tokens: 1,
  cost_usd: null, ...id === 0 && { stream_id: 's1' } });
export const done = (id) => frame(id, { total_tokens: id }, 'done');
export const range = (from, to) =>
  Array.from({ length: to - from }, (_, i) => from + i);

/* The body of an answer: what is pushed is read. */
class Body {
  #queue = [];
  #waiting;
  #end;

  constructor(signal) {
    this.signal = signal;
    signal?.addEventListener('abort', () =>
      this.fail(new DOMException('aborted', 'AbortError')));
  }

  push(...texts) {
    for (const text of texts)
      this.#queue.push(bytes(text));
    this.#move();
  }

  end() {
    this.#end ??= { done: true };
    this.#move();
  }

  fail(error = new TypeError('network error')) {
    if (error.name === 'AbortError')
      this.#queue = [];
    this.#end ??= error;
    this.#move();
  }

  getReader() {
    return { read: () => new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#move();
    }) };
  }

  #move() {
    const waiting = this.#waiting;
    if (!waiting || !this.#queue.length && !this.#end)
      return;
    this.#waiting = undefined;
    if (this.#queue.length)
      waiting.resolve({ done: false, value: this.#queue.shift() });
    else if (this.#end instanceof Error)
      waiting.reject(this.#end);
    else
      waiting.resolve(this.#end);
  }
}

/* One request; the test answers it, or refuses it. */
class Request {
  constructor(url, init) {
    this.url = new URL(url);
    this.method = init.method ?? 'GET';
    this.headers = new Headers(init.headers);
    this.init = init;
    this.body = init.body && JSON.parse(init.body);
    this.aborted = false;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    init.signal?.addEventListener('abort', () => {
      this.aborted = true;
      this.reject(new DOMException('aborted', 'AbortError'));
    });
  }

  get cursor() {
    return Number(this.url.searchParams.get('last_event_id') ?? -1);
  }

  get id() {
    return this.url.searchParams.get('stream_id');
  }

  /* 200, with what is there so far. */
  stream(...texts) {
    const stream = this.answer(200, { 'Content-Type': 'text/event-stream' });
    stream.push(...texts);
    return stream;
  }

  answer(status, headers = {}, json = undefined) {
    const body = new Body(this.init.signal);
    this.resolve({ status, ok: status >= 200 && status < 300, body,
      headers: new Headers(headers),
      json: async () => {
        if (json === undefined)
          throw new SyntaxError('not JSON');
        return json;
      } });
    return body;
  }

  lose() {
    this.reject(new TypeError('Failed to fetch'));
  }
}

class FakeEventSource extends EventTarget {
  readyState = 0;

  constructor(url) {
    super();
    this.url = new URL(url);
    browser.sources.push(this);
  }

  get cursor() {
    return Number(this.url.searchParams.get('last_event_id') ?? -1);
  }

  open() {
    this.readyState = 1;
    this.onopen?.(new Event('open'));
  }

  event(type, data, id) {
    if (this.readyState < 2)
      this.dispatchEvent(Object.assign(new Event(type), {
        data: typeof data === 'string' ? data : JSON.stringify(data),
        lastEventId: String(id) }));
  }

  chunk(id) {
    this.event('message_chunk', { content: `tok${id} ` }, id);
  }

  /* Lost: it would come back by itself; refused: it would not. */
  fail(readyState = 0) {
    if (this.readyState < 2) {
      this.readyState = readyState;
      this.dispatchEvent(new Event('error'));
    }
  }

  close() {
    this.readyState = 2;
  }
}

class Storage {
  items = new Map();
  getItem = (key) => this.items.get(String(key)) ?? null;
  setItem = (key, value) => void this.items.set(String(key), String(value));
  removeItem = (key) => void this.items.delete(String(key));
}

class Locks {
  #held = new Map();

  request(name, options, callback) {
    return new Promise((resolve, reject) => {
      const queue = this.#held.get(name) ?? [];
      const entry = { callback, resolve, reject };
      this.#held.set(name, queue);
      if (options.steal) {
        queue[0]?.reject(new DOMException('stolen', 'AbortError'));
        queue[0] = entry;
        this.#grant(queue);
      } else if (queue.push(entry) === 1)
        this.#grant(queue);
    });
  }

  #grant(queue) {
    const entry = queue[0];
    Promise.resolve().then(entry.callback).then((value) => {
      entry.resolve(value);
      if (queue[0] === entry) {
        queue.shift();
        if (queue.length)
          this.#grant(queue);
      }
    });
  }
}

class Channel {
  static all = new Set();

  constructor(name) {
    this.name = name;
    Channel.all.add(this);
  }

  postMessage(data) {
    if (!Channel.all.has(this))
      throw new DOMException('closed', 'InvalidStateError');
    for (const other of Channel.all)
      if (other !== this && other.name === this.name)
        queueMicrotask(() => Channel.all.has(other) && !other.hung
          && other.onmessage({ data: structuredClone(data) }));
  }

  close() {
    Channel.all.delete(this);
  }
}

/* What the globals above belong to, of the test that runs now. */
export let browser;

/* Everything global, as it is in a page that was just loaded. */
export function install({ seed = 1, eventSource = false, tabs = false } = {}) {
  const clock = new Clock();
  const page = new EventTarget();
  setMaxListeners(0, page);
  const set = (name, value) => Object.defineProperty(globalThis, name,
    { value, configurable: true, writable: true });

  browser = { clock, requests: [], sources: [], storage: new Storage(),
    onLine: true,
    get last() {
      return this.requests.at(-1);
    },
    /* What the window hears. */
    fire: (type) => page.dispatchEvent(new Event(type)),
    show(visible) {
      document.hidden = !visible;
      this.fire('visibilitychange');
    } };
  Channel.all.clear();
  set('setTimeout', clock.setTimeout);
  set('clearTimeout', clock.clearTimeout);
  Date.now = () => clock.now;
  Math.random = random(seed);
  set('location', { toString: () => 'https://chat.example/app/magic' });
  set('document', { hidden: false });
  set('navigator', { get onLine() {
    return browser.onLine;
  }, locks: tabs ? new Locks() : undefined });
  set('sessionStorage', browser.storage);
  set('BroadcastChannel', tabs ? Channel : undefined);
  set('EventSource', eventSource ? FakeEventSource : undefined);
  set('addEventListener', page.addEventListener.bind(page));
  set('removeEventListener', page.removeEventListener.bind(page));
  set('fetch', function (url, init) {
    if (this !== undefined && this !== globalThis)
      throw new TypeError('Illegal invocation');
    const request = new Request(url, init);
    request.at = clock.now;
    if (init.signal?.aborted)
      request.reject(new DOMException('aborted', 'AbortError'));
    browser.requests.push(request);
    browser.onRequest?.(request);
    return request.promise;
  });
  return browser;
}

/* A connection whose events are written down. */
export function record(connection) {
  const seen = { connection, messages: [], log: [], error: undefined };
  connection.addEventListener('message', ({ detail }) =>
    seen.messages.push(detail));
  for (const type of ['open', 'stalled', 'reconnecting', 'close', 'error'])
    connection.addEventListener(type, ({ detail }) => {
      seen.log.push(type);
      seen[type] = detail;
    });
  Object.defineProperty(seen, 'ids', { get: () =>
    seen.messages.map(({ id }) => id) });
  seen.count = (type) => seen.log.filter((name) => name === type).length;
  return seen;
}
