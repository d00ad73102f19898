/* client_api.mjs - the module as others get it: exports, types, size, package
 * and documents.  What needs a program that is not installed is skipped. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import * as client from '../static/magic/respool.js';

const SIZE_MAX = 3584; /* bytes, minified and gzipped */
const DIRECTORY = fileURLToPath(new URL('../static/magic', import.meta.url));
const SOURCE = readFileSync(join(DIRECTORY, 'respool.js'), 'utf8');
const PACKAGE = JSON.parse(readFileSync(join(DIRECTORY, 'package.json')));

const without = (program) =>
  spawnSync(program, ['--version']).error ? `no ${program}` : false;

test('it exports what the documents say', () => {
  assert.deepEqual(Object.keys(client).sort(), ['MessageSequencer',
    'ResilientSSEConnection', 'SSEError', 'StallDetector', 'createParser',
    'stream']);
  const types = readFileSync(join(DIRECTORY, 'respool.d.ts'), 'utf8');
  const declared = [...types.matchAll(/^export (?:class|function) (\w+)/gm)];
  assert.deepEqual(declared.map(([, name]) => name).sort(),
    Object.keys(client).sort());
});

test('it imports nothing and is loaded without a browser', () => {
  assert.doesNotMatch(SOURCE, /^\s*import\b|\brequire\(|\bimport\(/m);
  assert.equal(PACKAGE.dependencies, undefined);
});

test(`it has at most ${SIZE_MAX} bytes when minified and gzipped`,
  { skip: without('esbuild') }, (t) => {
    const small = execFileSync('esbuild', ['--minify', '--format=esm',
      '--target=es2022'], { input: SOURCE });
    const { length } = gzipSync(small, { level: 9 });
    t.diagnostic(`${length} bytes`);
    assert.ok(length <= SIZE_MAX, `${length} bytes`);
  });

const USE = `
import { stream, ResilientSSEConnection, MessageSequencer, StallDetector,
  createParser, SSEError, Message } from './respool.js';

const connection = new ResilientSSEConnection('api/v1/stream', {
  params: { message: 'hi', n: 1, none: null },
  body: { messages: [{ role: 'user', content: 'hi' }] },
  headers: async () => ({ Authorization: 'x' }),
  credentials: 'include', useFetch: true, cursorHeader: false,
  lastEventId: 3, retry: { base: 1, max: 2, jitter: 1 }, stall: 1000,
  persist: 'k', shared: true, fetch: globalThis.fetch,
  handlers: {
    onOpen() {}, onClose() {}, onStalled() {},
    onMessage({ type, id, data }) {
      const text: string = type + (id === null ? '' : id.toFixed()) + data.x;
    },
    onError(e) { const s: string = e.type; const n = e.status ?? 0; },
    onReconnecting({ attempt, delay }) { (attempt * delay).toFixed(); },
  },
});
connection.addEventListener('done', (e) => e.type);
connection.connect();
connection.reconnect();
const ok: Promise<boolean> = connection.stop();
const last: number = connection.lastEventId;
const dropped: number = connection.sequencer.duplicates;
connection.close();
const closed: boolean = connection.manuallyClosed;

async function loop(signal: AbortSignal): Promise<void> {
  const answer = stream(new URL('http://x/'), { signal });
  for await (const message of answer) {
    const m: Message = message;
    if (m.type === 'x')
      await answer.stop();
  }
  answer.connection.streamId.trim();
}

const s = new MessageSequencer<string>({ deliver(id, text) { text.trim(); } });
const next: string | null = s.process(0, 'a');
s.flushBuffer();
s.reset(5);
const d = new StallDetector({ onStall() {} });
d.recordActivity();
d.resetTimer();
createParser((type, data, id) => type + data + id, 10)(new Uint8Array(1));
throw new SSEError('x', { type: 'y' });
`;
const MISUSE = [
  'new ResilientSSEConnection();',
  "new ResilientSSEConnection('x', { retry: { jitter: 'full' } });",
  "new ResilientSSEConnection('x', { handlers: { onMessages() {} } });",
  "new ResilientSSEConnection('x').lastEventId = 5;",
  'new StallDetector({ timeout: 5 });',
  "new MessageSequencer({ deliver() {} }).process('1', 'x');",
];

test('its types fit, and refuse what does not', { skip: without('tsc') },
  () => {
    const directory = mkdtempSync(join(tmpdir(), 'respool-types.'));
    const [imports] = USE.match(/import[^;]*;/);
    try {
      for (const [name, text] of [['use.ts', USE],
        ['misuse.ts', [imports, ...MISUSE].join('\n')],
        ['respool.d.ts', readFileSync(join(DIRECTORY, 'respool.d.ts'))]])
        writeFileSync(join(directory, name), text);
      const { stdout } = spawnSync('tsc', ['--strict', '--noEmit', '--target',
        'es2022', '--module', 'es2022', '--moduleResolution', 'node', '--lib',
        'es2022,dom', 'use.ts', 'misuse.ts'], { cwd: directory,
        encoding: 'utf8' });
      const wrong = [...stdout.matchAll(/^(\S+)\((\d+),/gm)]
        .map(([, name, line]) => `${name} ${line}`);
      const first = imports.split('\n').length + 1;
      assert.deepEqual([...new Set(wrong)],
        MISUSE.map((_, i) => `misuse.ts ${first + i}`), stdout);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

test('it can be packed for npm', { skip: without('npm') }, () => {
  const [packed] = JSON.parse(execFileSync('npm', ['pack', '--dry-run',
    '--json', '--offline', DIRECTORY], { stdio: ['ignore', 'pipe', 'ignore'],
    cwd: tmpdir() }));
  assert.equal(packed.name, 'respool');
  assert.deepEqual(packed.files.map(({ path }) => path).sort(),
    ['package.json', 'respool.d.ts', 'respool.js']);
});

test('its package has the version of the project', () => {
  const configure = readFileSync(join(DIRECTORY, '../../configure.ac'),
    'utf8');
  const [, version] = configure.match(/AC_INIT\([^,]*, \[(.*?)\]/);
  assert.equal(PACKAGE.version, version);
});
