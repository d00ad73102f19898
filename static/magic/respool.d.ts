/* respool.d.ts - the types of respool.js; docs/CLIENT.md explains. */

/** One event of a stream. */
export interface Message {
  /** The event's name: `message_chunk`, `done`, ... */
  type: string;
  /** Counts 0, 1, 2, ...; null: it came without one. */
  id: number | null;
  /** What its data is as JSON. */
  data: any;
}

/** Why a connection ended for good. */
export class SSEError extends Error {
  constructor(message: string, fields?: Partial<SSEError>);
  /** The server's `error_type`, else `ended`, `wrong_type`, `http` or
   * `too_long`. */
  type: string;
  /** Of the answer; absent: it came as a frame, or is ours. */
  status?: number;
  /** Of a start that was refused for more than 5 minutes: how many
   * milliseconds. */
  after?: number;
  /** Of an `error` frame, or the JSON of the answer. */
  data?: any;
}

export interface Reconnecting {
  /** Counts from 1; a message that is delivered sets it back. */
  attempt: number;
  /** How many milliseconds it waits. */
  delay: number;
}

export interface Handlers {
  onOpen?(): void;
  onMessage?(message: Message): void;
  onError?(error: SSEError): void;
  onStalled?(): void;
  onReconnecting?(how: Reconnecting): void;
  onClose?(): void;
}

export interface Retry {
  /** Milliseconds before the first attempt; 1000. */
  base?: number;
  /** Never longer than this, Retry-After apart; 5000. */
  max?: number;
  /** 0.1: plus or minus 10 %; 1: full jitter. */
  jitter?: number;
}

export interface ConnectionOptions {
  /** Added to the URL's query: in every request. */
  params?: Record<string, string | number | boolean | null | undefined>;
  /** Is POSTed as JSON, once; all else are GETs that resume. */
  body?: Record<string, unknown>;
  /** Of every request; a function is called for each. */
  headers?: Record<string, string>
    | (() => Record<string, string> | Promise<Record<string, string>>);
  /** As fetch takes it. */
  credentials?: 'omit' | 'same-origin' | 'include';
  /** Also where an EventSource would do. */
  useFetch?: boolean;
  /** Sends Last-Event-ID in place of `last_event_id`. */
  cursorHeader?: boolean;
  /** Go on after this id. */
  lastEventId?: number;
  handlers?: Handlers;
  retry?: Retry;
  /** Milliseconds of silence that are too long; 37500. */
  stall?: number;
  /** The key in sessionStorage under which the place is kept. */
  persist?: string;
  /** One connection for all tabs that follow this stream. */
  shared?: boolean;
  /** In place of the global one. */
  fetch?: typeof fetch;
}

export class ResilientSSEConnection extends EventTarget {
  constructor(url: string | URL, options?: ConnectionOptions);
  /** The stream's name. */
  streamId: string;
  /** close() was called. */
  manuallyClosed: boolean;
  readonly sequencer: MessageSequencer<Message>;
  /** The id of the last message delivered; -1: none yet. */
  get lastEventId(): number;
  connect(): void;
  /** Drops the connection there is, and makes another at once. */
  reconnect(): void;
  /** Ends it here; what the server writes goes on. */
  close(): void;
  /** Has the server stop the stream: true if it does. */
  stop(): Promise<boolean>;
}

export interface SequencerOptions<T> {
  deliver(id: number, data: T): void;
  onGap?(lastGoodId: number): void;
  /** The first id; 0. */
  next?: number;
  /** Milliseconds; 500. */
  gapTimeout?: number;
  /** How many may be held; 256. */
  held?: number;
}

export class MessageSequencer<T = unknown> {
  constructor(options: SequencerOptions<T>);
  nextSequence: number;
  buffer: Map<number, T>;
  /** The ids delivered last. */
  processedIds: Set<number>;
  /** How many were dropped because they had come before. */
  duplicates: number;
  /** data if it was the next one and is delivered, else null. */
  process(id: number, data: T): T | null;
  flushBuffer(): void;
  /** Drops what is held. */
  close(): void;
  /** Starts anew, for another stream. */
  reset(next?: number): void;
}

export class StallDetector {
  constructor(options: { timeout?: number; onStall(): void });
  timeout: number;
  /** As Date.now() says. */
  lastEventTime: number;
  recordActivity(): void;
  resetTimer(): void;
  close(): void;
}

/**
 * A parser of event streams: call what it returns with each piece of bytes.
 * It throws an SSEError of type `too_long` beyond the limit (characters).
 */
export function createParser(
  onEvent: (type: string, data: string, id: string) => void,
  limit?: number,
): (bytes: Uint8Array) => void;

export interface MessageStream
  extends AsyncGenerator<Message, void, undefined> {
  connection: ResilientSSEConnection;
  /** Has the server stop the stream; the loop then ends by itself. */
  stop(): Promise<boolean>;
}

/** The messages of a stream, for `for await`. */
export function stream(
  url: string | URL,
  options?: ConnectionOptions & { signal?: AbortSignal },
): MessageStream;
