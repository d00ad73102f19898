/* client_parser.mjs - the client's parser of event streams: the cases of
 * web-platform-tests and of the SSE contract tests, each cut at every byte. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createParser, SSEError } from '../static/magic/respool.js';
import { cpuTime } from './fake_browser.mjs';

const BOM = '\ufeff';
const bytes = (text) => new TextEncoder().encode(text);
const message = (data, id = '', type = 'message') => [type, data, id];

/* { what, input, want } */
const CASES = [
  ['nothing', '', []],
  ['one message', 'data: a\n\n', [message('a')]],
  ['no space after the colon', 'data:a\n\n', [message('a')]],
  ['only one space is dropped', 'data:  a\n\n', [message(' a')]],
  ['a tab is kept', 'data:\ta\n\n', [message('\ta')]],
  ['empty data', 'data:\n\n', [message('')]],
  ['empty data with a space', 'data: \n\n', [message('')]],
  ['data without a colon', 'data\n\n', [message('')]],
  ['data twice without a colon', 'data\ndata\n\n', [message('\n')]],
  ['two lines', 'data: a\ndata: b\n\n', [message('a\nb')]],
  ['an empty line first', 'data:\ndata: b\n\n', [message('\nb')]],
  ['an empty line between', 'data: a\ndata\ndata: b\n\n', [message('a\n\nb')]],
  ['a colon in data', 'data: a: b:c\n\n', [message('a: b:c')]],
  ['a type', 'event: e\ndata: a\n\n', [message('a', '', 'e')]],
  ['a type holds for one event', 'event: e\ndata: a\n\ndata: b\n\n',
    [message('a', '', 'e'), message('b')]],
  ['a type without data is gone', 'event: e\n\ndata: b\n\n', [message('b')]],
  ['an empty type', 'event:\ndata: a\n\n', [message('a')]],
  ['an empty type takes back', 'event: e\nevent\ndata: a\n\n', [message('a')]],
  ['an id', 'id: 7\ndata: a\n\n', [message('a', '7')]],
  ['an id stays', 'id: 7\ndata: a\n\ndata: b\n\n',
    [message('a', '7'), message('b', '7')]],
  ['an empty id resets', 'id: 7\ndata: a\n\nid:\ndata: b\n\n',
    [message('a', '7'), message('b')]],
  ['an id without a colon resets', 'id: 7\ndata: a\n\nid\ndata: b\n\n',
    [message('a', '7'), message('b')]],
  ['an id that is not ASCII', 'id: \u2026\ndata: a\n\n',
    [message('a', '\u2026')]],
  ['fields in another order', 'data: a\nid: 1\nevent: e\n\n',
    [message('a', '1', 'e')]],
  ['unknown fields', 'data: a\nxyz\nfoo: b\n data: c\ndata-: d\n\n',
    [message('a')]],
  ['names are case sensitive', 'Data: b\nDATA: c\ndata: a\n\n',
    [message('a')]],
  ['a name that begins with data', 'data a\ndatax: b\ndata: c\n\n',
    [message('c')]],
  ['a NUL in a name', 'd\0ata: b\ndata: a\n\n', [message('a')]],
  ['a NUL in data', 'data: a\0b\n\n', [message('a\0b')]],
  ['a NUL as data', 'data:\0\n\n', [message('\0')]],
  ...['\0', '\0x', 'x\0', 'x\0y', ' \0'].map((id) => [
    `the id ${JSON.stringify(id)} is ignored`,
    `id: 7\nid: ${id}\ndata: a\n\n`, [message('a', '7')]]),
  ['retry is ignored', 'retry: 5\nretry: 1000x\nretry\ndata: a\n\nretry: 1\n\n',
    [message('a')]],
  ['comments', ':\n:\0\n: data: x\ndata: a\n:x\ndata: b\n\n: y\n',
    [message('a\nb')]],
  ['a comment that is a field without its colon', ':data: x\n\n', []],
  ['a long comment', `:${'x'.repeat(200)}\ndata: a\n\n`, [message('a')]],
  ['empty lines', '\n\n\ndata: a\n\n\n\ndata: b\n\n',
    [message('a'), message('b')]],
  ['an unfinished event is dropped', 'data: a\n\nid: 9\ndata: b\n',
    [message('a')]],
  ['an unfinished line is dropped', 'data: a\n\ndata: b', [message('a')]],
  ['CR', 'data: a\rdata: b\r\rdata: c\r\r', [message('a\nb'), message('c')]],
  ['CRLF', 'data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n',
    [message('a\nb'), message('c')]],
  ['all of them', 'data: a\r\ndata: b\ndata: c\rdata: d\n\r\n',
    [message('a\nb\nc\nd')]],
  ['CRLF and CR end an event', 'data: a\r\n\rdata: b\n\r',
    [message('a'), message('b')]],
  ['LF, CR are two lines', 'data: a\n\rdata: b\n\n',
    [message('a'), message('b')]],
  ['U+2028 and U+0085 end no line', 'data: a\u2028b\u0085c\n\n',
    [message('a\u2028b\u0085c')]],
  ['text of two, three and four bytes', 'data: \u00e9\u20ac\u{1f600}\n\n',
    [message('\u00e9\u20ac\u{1f600}')]],
  ['a BOM is dropped', `${BOM}data: a\n\n`, [message('a')]],
  ['a BOM before a comment', `${BOM}: x\ndata: a\n\n`, [message('a')]],
  ['a BOM alone', BOM, []],
  ['only the first of two BOMs', `${BOM}${BOM}data: a\ndata: b\n\n`,
    [message('b')]],
  ['a BOM later is data', `data: a\n\n${BOM}data: b\n\ndata: c\n\n`,
    [message('a'), message('c')]],
  ['our frames', 'event: message_chunk\nid: 0\nretry: 10000\ndata: {"a":1}\n\n'
    + ': keep-alive\n\nevent: done\nid: 1\nretry: 10000\ndata: {}\n\n',
    [message('{"a":1}', '0', 'message_chunk'), message('{}', '1', 'done')]],
  ['HTML between frames', 'data: a\n\n<html>\n<body>:x\n\n</html>\n\n',
    [message('a')]],
];

function parse(...pieces) {
  const got = [];
  const feed = createParser((...event) => got.push(event));
  pieces.forEach(feed);
  return got;
}

const slices = (input, size) => Array.from(
  { length: Math.ceil(input.length / size) },
  (_, i) => input.subarray(i * size, (i + 1) * size));

for (const [what, text, want] of CASES)
  test(`parser: ${what}, whole and cut at every byte`, () => {
    const input = bytes(text);
    assert.deepEqual(parse(input), want);
    for (let i = 0; i <= input.length; i++) {
      const [a, b] = [input.subarray(0, i), input.subarray(i)];
      assert.deepEqual(parse(a, b), want, `cut at ${i}`);
      assert.deepEqual(parse(a, new Uint8Array(), b), want,
        `cut at ${i}, with nothing between`);
    }
    for (const size of [1, 2, 3])
      assert.deepEqual(parse(...slices(input, size)), want,
        `in pieces of ${size}`);
  });

test('parser: bytes that are not UTF-8 become U+FFFD', () => {
  const input = Uint8Array.from([...bytes('data: a'), 0xff, 0xc3,
    ...bytes('b\n\n')]);
  for (let i = 0; i <= input.length; i++)
    assert.deepEqual(parse(input.subarray(0, i), input.subarray(i)),
      [message('a\ufffd\ufffdb')]);
});

test('parser: an event ended by CR does not wait for more', () => {
  assert.deepEqual(parse(bytes('data: a\r\r')), [message('a')]);
});

/* Microseconds, the best of three. */
function cost(megabytes, size, ending) {
  const piece = bytes('x'.repeat(size - ending.length) + ending);
  return Math.min(...[1, 2, 3].map(() => {
    let length;
    const feed = createParser((type, data) => length = data.length);
    const start = cpuTime();
    feed(bytes('data: '));
    for (let i = 0; i < megabytes * 2 ** 20 / size; i++)
      feed(piece);
    feed(bytes('\n\n'));
    assert.ok(length > megabytes * 2 ** 20 * 0.7);
    return cpuTime() - start;
  }));
}

for (const [what, size, ending] of [['one line', 1024, ''],
  ['many lines', 1024, '\ndata: '], ['short lines', 32, '\ndata: ']])
  test(`parser: 10 MB of ${what} take linear time`, () => {
    cost(1, size, ending);
    const small = cost(1.25, size, ending);
    const large = cost(10, size, ending);
    /* Eight times as much, or 64 times were it quadratic. */
    assert.ok(large / small < 32, `${small} us, then ${large} us`);
  });

const endless = (piece, limit) => {
  const feed = createParser(() => {}, limit);
  let fed = 0;
  return { feed: () => (feed(bytes(piece)), fed += piece.length),
    fed: () => fed };
};

for (const [what, piece] of [['line', 'x'.repeat(100)],
  ['comment', `:${'x'.repeat(99)}`], ['event', `data: ${'x'.repeat(93)}\n`]])
  test(`parser: an endless ${what} is not held for ever`, () => {
    const { feed, fed } = endless(piece, 10000);
    assert.throws(() => {
      for (let i = 0; i < 1000; i++)
        feed();
    }, (e) => e instanceof SSEError && e.type === 'too_long');
    assert.ok(fed() < 11000, `${fed()} were taken`);
  });

test('parser: many events are no endless one', () => {
  const { feed } = endless(`data: ${'x'.repeat(93)}\n\n`, 1000);
  for (let i = 0; i < 1000; i++)
    feed();
});
