/* respool.js - follows a resumable event stream and misses nothing of it.
 * docs/CLIENT.md explains, respool.d.ts has the types.
 *
 * MessageSequencer, StallDetector and createParser stand alone;
 * ResilientSSEConnection is made of them; stream() reads one with for await.
 * Everything outside (timers, fetch, storage, locks) is looked up when it is
 * used, so that a test can put its own there. */

/** The events of our server that are neither `message` nor `error`. */
const TYPES = ['message_chunk', 'reasoning_chunk', 'tool_call_chunk',
  'heartbeat', 'done', 'metadata', 'typing', 'complete'];
const CONNECT_TIMEOUT = 1e4;

/* Beyond that timers would fire at once. */
const later = (f, delay) => setTimeout(f, Math.min(delay, 2 ** 31 - 1));

/**
 * Why a connection ended for good.  `type` is the server's `error_type`, or
 * one of `ended`, `wrong_type`, `http`, `too_long`; see docs/CLIENT.md.
 */
export class SSEError extends Error {
  constructor(message, fields) {
    super(message);
    Object.assign(this, fields);
  }
}

/**
 * Makes a parser of event streams: call it with each piece of bytes, cut
 * anywhere.  Its time is linear in the bytes.
 * @param onEvent called as (type, data, id) for each event
 * @param limit how many characters of one event are held
 * @throws {SSEError} of type `too_long`, beyond the limit
 */
export function createParser(onEvent, limit = 1 << 24) {
  const decoder = new TextDecoder(); /* drops the one BOM at the beginning */
  let line = ''; /* its end is still to come */
  let afterCR; /* a line ended in CR, at once; LF may follow */
  let data;
  let type;
  let id = '';

  function take(whole) {
    const [, name, value] = /^([^:]*):? ?(.*)/s.exec(whole);
    if (!whole) {
      if (data !== undefined)
        onEvent(type || 'message', data, id);
      data = type = undefined;
    } else if (name === 'data')
      data = data === undefined ? value : data + '\n' + value;
    else if (name === 'event')
      type = value;
    else if (name === 'id' && !value.includes('\0'))
      id = value;
  }

  return (bytes) => {
    const text = decoder.decode(bytes, { stream: true });
    const rest = afterCR ? text.replace(/^\n/, '') : text;
    const lines = rest.split(/\r\n?|\n/);
    if (text)
      afterCR = text.endsWith('\r');
    lines[0] = line + lines[0];
    line = lines.pop();
    lines.forEach(take);
    if (line.length + (data?.length ?? 0) > limit)
      throw new SSEError('The event is too long.', { type: 'too_long' });
  };
}

/**
 * Puts messages with ids that count 0, 1, 2, ... in order, and drops those
 * that come again.  A message that comes too early is held until the gap
 * before it fills.  If that takes `gapTimeout` ms, or more than `held`
 * messages, they are dropped and onGap(lastGoodId) asks for them again.
 */
export class MessageSequencer {
  /** The ids delivered last, as many as may be held. */
  processedIds = new Set();
  /** id => data of what came too early. */
  buffer = new Map();
  /** How many messages were dropped because they had come before. */
  duplicates = 0;
  #options;
  #timer;

  constructor({ next = 0, ...options }) {
    this.nextSequence = next;
    this.#options = { gapTimeout: 500, held: 256, ...options };
  }

  /** @returns data if it was the next one and is delivered, else null */
  process(id, data) {
    const early = id > this.nextSequence;
    if (early && !this.buffer.has(id)) {
      if (this.buffer.set(id, data).size > this.#options.held)
        this.#gap();
      else if (!this.#timer)
        this.#rearm();
    } else if (id === this.nextSequence) {
      this.buffer.set(id, data);
      this.flushBuffer();
      return data;
    } else
      this.duplicates++;
    return null;
  }

  /** Delivers what is held and due. */
  flushBuffer() {
    for (let id; this.buffer.has(id = this.nextSequence);) {
      const data = this.buffer.get(id);
      this.buffer.delete(id);
      this.nextSequence++;
      this.processedIds.add(id).delete(id - this.#options.held);
      this.#options.deliver(id, data);
    }
    this.#rearm(); /* another gap has its own time */
  }

  /** Drops what is held. */
  close() {
    this.buffer.clear();
    this.#rearm();
  }

  /** Starts anew, for another stream. */
  reset(next = 0) {
    this.close();
    this.processedIds.clear();
    this.nextSequence = next;
  }

  #rearm() {
    clearTimeout(this.#timer);
    this.#timer = this.buffer.size
      ? later(() => this.#gap(), this.#options.gapTimeout) : 0;
  }

  #gap() {
    this.close();
    this.#options.onGap?.(this.nextSequence - 1);
  }
}

/**
 * Calls onStall() when nothing was recorded for `timeout` ms; once, until
 * something is.  A timer that comes far too late means that timers were
 * frozen: what came meanwhile gets its chance first, for one more `timeout`.
 */
export class StallDetector {
  #onStall;
  #timer;
  #due;
  #rebased;

  constructor({ timeout = 37500, onStall }) {
    this.timeout = timeout;
    this.#onStall = onStall;
    this.resetTimer();
  }

  recordActivity() {
    this.lastEventTime = Date.now();
    this.#rebased = false;
    if (this.#timer === 0)
      this.#arm(this.timeout);
  }

  /** Begins anew, also after close(). */
  resetTimer() {
    this.close();
    this.#timer = 0;
    this.recordActivity();
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #arm(delay) {
    this.#due = Date.now() + delay;
    this.#timer = later(() => this.#check(), delay);
  }

  #check() {
    const now = Date.now();
    /* The clock may have been set back. */
    this.lastEventTime = Math.min(this.lastEventTime, now);
    const left = this.lastEventTime + this.timeout - now;
    if (left > 0)
      this.#arm(left);
    else if (now - this.#due > this.timeout / 2 && !this.#rebased) {
      this.#rebased = true;
      this.#arm(this.timeout);
    } else {
      this.#timer = 0;
      this.#onStall();
    }
  }
}

/**
 * Follows one stream until its last frame, across any number of connections.
 * Every message comes once and in order.  See docs/CLIENT.md for the options
 * and events.
 */
export class ResilientSSEConnection extends EventTarget {
  manuallyClosed = false;
  #options;
  #url;
  #running;
  #live; /* AbortController of the connection there is, or is being made */
  #detector;
  #timer; /* of the next attempt */
  #attempts = 0; /* since the last message */
  #notBefore = 0; /* as Retry-After said */
  #fetchOnly; /* what is wanted, an EventSource cannot do or did not do */
  #asked; /* the body was sent; 1: it may have arrived, 2: it did */
  #channel; /* between tabs */
  #follower; /* another tab has the connection */
  #release; /* lets another have it */

  constructor(url, options = {}) {
    super();
    const { params, body, handlers, persist, lastEventId } = options;
    this.#options = { ...options, stall: options.stall ?? 37500 };
    this.#fetchOnly = body || options.headers || options.credentials
      || options.cursorHeader || options.useFetch || !globalThis.EventSource;
    this.#url = new URL(url, globalThis.location);
    const query = this.#url.searchParams;
    for (const name in params)
      if (params[name] != null)
        query.set(name, params[name]);
    for (const name in handlers)
      this.addEventListener(name.slice(2).toLowerCase(),
        (e) => handlers[name]?.(e.detail));

    const id = body?.stream_id ?? query.get('stream_id');
    let saved = [];
    try {
      const [savedId, cursor] = JSON.parse(sessionStorage.getItem(persist));
      if (Number.isInteger(cursor) && savedId === (id ?? savedId))
        saved = [savedId, cursor];
    } catch { /* nothing there, or no such thing */ }
    /* Ours to make up: whoever knows it can come back, also when the answer
     * to the first request is lost. */
    this.streamId = id ?? saved[0] ?? 'stream_'
      + crypto.getRandomValues(new Uint32Array(4)).join('_');
    const next = 1 + (lastEventId ?? saved[1] ?? -1);
    /* Another tab may have asked. */
    this.#asked = next > 0 ? 2 : saved[0] || options.shared && id ? 1 : 0;
    this.sequencer = new MessageSequencer({
      next,
      deliver: (_, message) => this.#deliver(message),
      onGap: () => {
        this.#fetchOnly = true;
        /* At once, but not again and again. */
        this.#attempts ? this.#lost() : this.#retry(0);
      },
    });
  }

  /** The id of the last message delivered; -1: none yet. */
  get lastEventId() {
    return this.sequencer.nextSequence - 1;
  }

  connect() {
    if (this.#running)
      return;
    this.#running = true;
    this.manuallyClosed = false;
    this.#listen('addEventListener');
    this.#join();
  }

  /** Drops the connection there is, and makes another at once. */
  reconnect() {
    this.#running ? this.#retry(0) : this.connect();
  }

  /** Ends it here; what the server writes goes on. */
  close() {
    this.manuallyClosed = true;
    this.#end();
  }

  /** Has the server stop the stream; its last frame still comes. */
  async stop() {
    const url = new URL(`streams/${this.streamId}/stop`, this.#url);
    url.search = this.#url.search;
    return (await this.#request(url, { method: 'POST' })).ok;
  }

  async #request(url, init) {
    const { fetch = globalThis.fetch, headers, credentials } = this.#options;
    return fetch(url, {
      ...init,
      cache: 'no-store',
      credentials,
      headers: { ...init.headers, ...typeof headers === 'function'
        ? await headers() : headers },
    });
  }

  #emit(type, detail) {
    this.dispatchEvent(Object.assign(new Event(type), { detail }));
  }

  /* What the tabs that follow us show as well. */
  #tell(...event) {
    this.#emit(...event);
    if (!this.#follower)
      this.#channel?.postMessage({ event });
  }

  #save() {
    const { persist } = this.#options;
    try {
      if (!persist)
        ;
      else if (this.#running)
        sessionStorage.setItem(persist,
          JSON.stringify([this.streamId, this.lastEventId]));
      else
        sessionStorage.removeItem(persist);
    } catch { /* full, or switched off */ }
  }

  /* ---- several tabs ---- */

  #join(steal) {
    const locks = globalThis.navigator?.locks;
    if (this.#options.shared && locks && globalThis.BroadcastChannel) {
      const name = 'respool:' + this.streamId;
      const channel = this.#channel = new BroadcastChannel(name);
      channel.onmessage = ({ data }) => this.#hear(data);
      this.#follower = true;
      locks.request(name, { steal }, () => channel === this.#channel
        && new Promise((release) => {
          this.#release = release;
          this.#follower = false;
          this.#open();
        })).catch(() => {
        /* Another tab thought that we are dead; or no locks for us. */
        const robbed = !this.#follower;
        if (channel === this.#channel) {
          this.#leave();
          robbed ? this.#join() : this.#open();
        }
      });
    }
    this.#open();
  }

  #leave() {
    this.#drop();
    this.#release?.();
    this.#channel?.close();
    this.#channel = this.#follower = undefined;
  }

  /* From the leader: events and frames.  From followers: their cursors. */
  #hear({ event, frame, cursor }) {
    if (!this.#follower)
      cursor < this.lastEventId && this.#open(cursor);
    else if (frame)
      this.#take(...frame);
    else if (event) {
      this.#detector.recordActivity();
      this.#emit(...event);
    }
  }

  /* ---- one connection ---- */

  #drop() {
    this.#live?.abort();
    this.#live = undefined;
    this.#detector?.close();
    clearTimeout(this.#timer);
    this.sequencer.close();
  }

  #open(cursor = this.lastEventId) {
    const { stall, cursorHeader } = this.#options;
    this.#drop();
    if (this.#follower) {
      this.#watch(stall, () => {
        this.#leave();
        this.#join(true);
      });
      return this.#channel.postMessage({ cursor });
    }
    if (globalThis.navigator?.onLine === false)
      return; /* until `online` */

    const live = this.#live = new AbortController();
    this.#watch(Math.min(stall, CONNECT_TIMEOUT), () => {
      this.#tell('stalled');
      if (live === this.#live)
        this.#lost();
    });
    this.#save();
    const url = new URL(this.#url);
    const accept = { Accept: 'text/event-stream' };
    url.searchParams.set('stream_id', this.streamId);
    if (cursor < 0)
      ; /* nothing was seen */
    else if (cursorHeader)
      accept['Last-Event-ID'] = cursor;
    else
      url.searchParams.set('last_event_id', cursor);
    if (this.#fetchOnly)
      this.#byFetch(live, url, accept);
    else
      this.#byEventSource(live, url);
  }

  #watch(timeout, onStall) {
    this.#detector = new StallDetector({ timeout, onStall });
  }

  #byEventSource(live, url) {
    const source = new EventSource(url);
    live.signal.onabort = () => source.close();
    source.onopen = () => this.#opened();
    for (const type of [...TYPES, 'message', 'error'])
      source.addEventListener(type, ({ data, lastEventId }) => {
        if (data !== undefined)
          this.#take(type, data, lastEventId);
        else if (source.readyState === 2) {
          /* It cannot say why; fetch can. */
          this.#fetchOnly = true;
          this.#retry(0);
        } else
          this.#lost();
      });
  }

  async #byFetch(live, url, headers) {
    const { body } = this.#options;
    const asking = body && !this.#asked;
    const init = { headers, signal: live.signal };
    let after;
    let why;
    if (asking) {
      this.#asked = 1;
      init.method = 'POST';
      init.body = JSON.stringify({ ...body, stream_id: this.streamId });
      headers['Content-Type'] = 'application/json';
    }
    try {
      const answer = await this.#request(url, init);
      const { status, headers: told } = answer;
      if (live !== this.#live)
        return;
      const busy = /^5|408|425|429/.test(status);
      if (busy) {
        after = told.get('Retry-After');
        after = after * 1000 || Date.parse(after) - Date.now();
      }
      if (status === 200
        && /^text\/event-stream *(;|$)/i.test(told.get('Content-Type'))) {
        this.#opened();
        const parse = createParser((...event) =>
          live === this.#live && this.#take(...event));
        const reader = answer.body.getReader();
        for (let got; !(got = await reader.read()).done;) {
          this.#detector.recordActivity();
          parse(got.value);
        }
      } else if (status === 404 && body && !asking && this.#asked < 2) {
        this.#asked = 0; /* it did not arrive */
        return this.#retry(0);
      } else if (!busy || after > 3e5 && this.lastEventId < 0) {
        /* Nobody waits for hours until an answer begins. */
        const said = status > 399 && await answer.json().catch(() => {});
        why = new SSEError(said?.error ?? `HTTP status ${status}`, { status,
          after, data: said, type: said?.error_type
            ?? { 200: 'wrong_type', 204: 'ended' }[status] ?? 'http' });
      }
    } catch (e) {
      why = e;
    }
    if (live === this.#live)
      why instanceof SSEError ? this.#end(why) : this.#lost(after);
  }

  #opened() {
    this.#asked = 2;
    this.#detector.timeout = this.#options.stall;
    this.#detector.recordActivity();
    this.#tell('open');
  }

  /* One event as it came: its data is text. */
  #take(type, text, id) {
    let data;
    this.#detector.recordActivity();
    try {
      data = JSON.parse(text);
      if (/\D/.test(id))
        throw id;
    } catch {
      return this.#lost();
    }
    this.#follower || this.#channel?.postMessage({ frame: [type, text, id] });
    if (id)
      this.sequencer.process(+id, { type, id: +id, data });
    else
      this.#deliver({ type, id: null, data });
  }

  #deliver(message) {
    const { type, data } = message;
    this.#attempts = 0;
    this.streamId = data?.stream_id ?? this.streamId;
    this.#save();
    this.#emit('message', message);
    if (TYPES.includes(type))
      this.#emit(type, message);
    if (type === 'error')
      this.#end(new SSEError(data?.error, { type: data?.error_type, data }));
    else if (type === 'done' || type === 'complete')
      this.#end();
  }

  /* ---- after it ---- */

  #lost(after) {
    const { base = 1000, max = 5000, jitter = 0.1 }
      = this.#options.retry ?? {};
    const longest = Math.min(base * 2 ** this.#attempts * (1 + jitter), max);
    const wait = Math.max(after, 0) || 0; /* it may be NaN */
    this.#notBefore = Date.now() + wait;
    this.#retry(wait
      + longest * (1 - Math.random() * 2 * jitter / (1 + jitter)));
  }

  #retry(delay) {
    this.#drop();
    this.#timer = later(() => this.#open(), delay);
    this.#tell('reconnecting', { attempt: ++this.#attempts, delay });
  }

  #wake = ({ type }) => {
    if (type === 'pagehide')
      this.#leave();
    else if (Date.now() < this.#notBefore
      || type === 'visibilitychange' && document.hidden)
      ; /* later */
    else if (!this.#live)
      this.#channel ? this.#open() : this.#join();
    else if (type === 'online' || Date.now() - this.#detector.lastEventTime
      > this.#options.stall / 2)
      this.#retry(0);
  };

  #listen(how) {
    for (const type of ['online', 'visibilitychange', 'pageshow', 'pagehide'])
      globalThis[how]?.(type, this.#wake);
  }

  #end(error) {
    if (!this.#running)
      return;
    this.#running = false;
    this.#leave();
    this.#listen('removeEventListener');
    this.#save();
    if (error)
      this.#emit('error', error);
    this.#emit('close');
  }
}

/**
 * The messages of a stream, for `for await`.  It ends after the last frame,
 * and throws what ends a connection for good, an `error` frame too.  Leaving
 * the loop, or the signal, closes the connection; stop() has the server stop,
 * so that the loop ends with what there is.
 */
export function stream(url, options = {}) {
  const { signal } = options;
  const connection = new ResilientSSEConnection(url, options);
  const close = () => connection.close();
  const arrived = []; /* messages; an error; undefined: closed */
  let wake;

  for (const type of ['message', 'error', 'close'])
    connection.addEventListener(type, ({ detail }) => {
      arrived.push(detail);
      wake?.();
    });

  async function * messages() {
    try {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', close);
      for (connection.connect();; await new Promise((f) => wake = f))
        while (arrived.length)
          for (const message of arrived.splice(0)) {
            signal?.throwIfAborted();
            if (message instanceof Error)
              throw message;
            if (!message)
              return;
            yield message;
          }
    } finally {
      signal?.removeEventListener('abort', close);
      close();
    }
  }
  return Object.assign(messages(), { connection,
    stop: () => connection.stop() });
}
