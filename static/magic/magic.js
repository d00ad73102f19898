/* magic.js - the chat page
 *
 * `talk` is what the page shows: a conversation and its turns.  It is kept in
 * sessionStorage as one text, so that an answer and its cursor (the id of the
 * last frame in it) always belong together.  What is not there is fetched: the
 * URL's fragment names the session, or the stream, also in another tab.
 *
 * With a persona a turn is one of the server's conversations, which knows what
 * was said; without, the page sends it along. */
import { ResilientSSEConnection } from './respool.js';

const KEY = 'respool.talk';
const EARLIER_MAX = 65536; /* characters of earlier turns that are sent along */
const REWIND = 10; /* frames that are asked for again on purpose */
const NOTHING_SEEN = { text: '', reasoning: '', cursor: -1, tokens: 0, cost: 0,
  first: null, ended: false, facts: '', failure: '' };
const STATES = {
  idle: 'Not connected',
  connecting: 'Connecting',
  live: 'Connected',
  waiting: 'Reconnecting',
  offline: 'Offline',
  ended: 'Finished',
  failed: 'Failed',
};
const REASONS = {
  stopped: 'Stopped',
  length: 'Cut at its longest',
  content_filter: 'Cut by a content filter',
};

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 10 });
const tenths = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

let talk = newTalk();
let connection; /* that follows the last turn */
let net; /* what the panel tells of it */
let personas = [];
let templates = [];
const articles = new WeakMap(); /* turn => its element */
const changed = new Set(); /* turns to be painted */
let saving;

function newTalk(persona = '') {
  return { persona, session: '', turns: [] };
}

const last = () => talk.turns.at(-1);
const answering = () => last() !== undefined && !last().ended;
const personaOf = ({ persona }) => personas.find(({ id }) => id === persona);

/* ---- keeping ---- */

function save() {
  const turn = last();
  clearTimeout(saving);
  saving = 0;
  /* Where the text has no room, the last answer is replayed after a reload. */
  for (const what of [talk,
    { ...talk, turns: turn ? [{ ...turn, ...NOTHING_SEEN }] : [] }])
    try {
      return sessionStorage.setItem(KEY, JSON.stringify(what));
    } catch { /* full, or switched off */ }
}

function load() {
  let kept;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEY));
  } catch { /* not ours, or switched off */ }
  return Array.isArray(kept?.turns) ? kept : newTalk();
}

function address({ session, turns }) {
  return session ? `#session=${session}`
    : turns.length ? `#stream=${turns.at(-1).id}` : '';
}

/* ---- painting ---- */

/* Text only grows: what is there stays untouched, a selection too. */
function grow(element, text) {
  if (!text)
    return;
  const shown = element.firstChild ?? element.appendChild(new Text());
  shown.appendData(text.slice(shown.length));
}

function articleOf(turn) {
  if (!articles.has(turn)) {
    const article = $('turn').content.cloneNode(true).firstElementChild;
    article.querySelector('.retry').onclick = () => again(turn);
    articles.set(turn, article);
    $('turns').append(article);
  }
  return articles.get(turn);
}

function paintTurn(turn) {
  const article = articleOf(turn);
  const part = (name) => article.querySelector(name);
  grow(part('.question'), turn.question);
  grow(part('.reasoning'), turn.reasoning);
  grow(part('.answer'), turn.text);
  part('.speaker').textContent = turn.speaker || personaOf(talk)?.name
    || turn.model || 'Answer';
  part('.thinking').hidden = !turn.reasoning;
  part('.failure').textContent = turn.failure;
  part('.failure').hidden = !turn.failure;
  part('.numbers').textContent = turn.facts;
  part('.retry').hidden = !turn.ended || !turn.question || turn !== last();
  article.ariaBusy = String(!turn.ended);
}

function paint() {
  const page = document.scrollingElement;
  const atEnd = page.scrollTop + page.clientHeight > page.scrollHeight - 80;
  changed.forEach(paintTurn);
  changed.clear();
  paintPanel();
  const persona = personaOf(talk);
  $('welcome').hidden = talk.turns.length > 0;
  $('welcome-title').textContent = persona?.name ?? 'Ask something.';
  $('greeting').textContent = persona?.greeting ?? '';
  $('greeting').hidden = !persona?.greeting;
  $('new').hidden = !talk.turns.length;
  $('ask').hidden = answering();
  $('stop').hidden = !answering();
  $('model-label').hidden = talk.persona !== '' || $('model').length < 2;
  if (atEnd)
    page.scrollTop = page.scrollHeight;
}

function show(...turns) {
  if (!changed.size)
    requestAnimationFrame(() => changed.size && paint());
  turns.forEach((turn) => changed.add(turn));
}

/* What an answer says: its JSON, with a sentence where it is none. */
const said = (answer) => answer.json().catch(() => ({
  error: `The server answered ${answer.status}.`,
}));

const say = (text) => {
  $('status').textContent = text;
};

/* ---- the panel, and what can be done to the connection on purpose ---- */

const wire = { cut: null, muted: false, rewind: 0, refusal: '' };

/* The connection's fetch, through which it can be harmed. */
async function wired(url, init) {
  const cursor = url.searchParams.get('last_event_id');
  const own = new AbortController();
  init.signal.addEventListener('abort', () => own.abort());
  if (cursor !== null)
    url.searchParams.set('last_event_id', Math.max(cursor - wire.rewind, -1));
  wire.rewind = 0;
  wire.muted = false;
  wire.refusal = '';
  const answer = await fetch(url, { ...init, signal: own.signal });
  if (answer.status > 499 || answer.status === 429)
    wire.refusal = (await said(answer.clone())).error;
  if (answer.status !== 200)
    return answer;
  const cut = wire.cut = () => own.abort();
  own.signal.onabort = () => {
    if (wire.cut === cut)
      wire.cut = null;
  };
  return new Response(answer.body.pipeThrough(new TransformStream({
    transform(piece, out) {
      if (!wire.muted)
        out.enqueue(piece);
    },
  })), answer);
}

function paintPanel() {
  const { state, reconnects, stalls } = net ?? { state: 'idle' };
  const harmless = state !== 'live' || !wire.cut;
  $('dot').dataset.state = state;
  $('state').textContent = STATES[state];
  for (const [id, text] of Object.entries({
    'stream-id': last()?.id ?? '–',
    'last-id': last()?.cursor >= 0 ? last().cursor : '–',
    reconnects: reconnects ?? 0,
    duplicates: connection?.sequencer.duplicates ?? 0,
    stalls: stalls ?? 0,
    holder: state !== 'live' ? '–' : wire.cut ? 'this tab' : 'another tab',
  }))
    $(id).textContent = text;
  for (const id of ['cut', 'rewind', 'mute'])
    $(id).disabled = harmless;
}

function turnTo(state, text) {
  net.state = state;
  say(text);
  show(last());
}

/* ---- following ---- */

const time = (ms) => ms < 1000 ? `${number.format(ms)} ms`
  : `${tenths.format(ms / 1000)} s`;

function facts(tokens, cost, first, whole) {
  return [
    tokens === null ? 'tokens unknown'
      : `${number.format(tokens)} ${tokens === 1 ? 'token' : 'tokens'}`,
    cost === null ? 'cost unknown' : `$${number.format(cost)}`,
    first === null ? '' : `first word after ${time(first)}`,
    whole === null ? '' : `${time(whole)} in all`,
  ].filter(Boolean).map((fact) => fact.replaceAll(' ', '\u00a0')).join(' · ');
}

function chunk(turn, { content, tokens, cost_usd }) {
  turn.first ??= turn.asked ? Date.now() - turn.asked : null;
  turn.text += content;
  turn.tokens += tokens;
  turn.cost = turn.cost === null || cost_usd === null ? null
    : turn.cost + cost_usd;
  turn.facts = facts(turn.tokens, turn.cost, turn.first, null);
}

function finish(turn, data) {
  const { finish_reason: reason } = data;
  if (!talk.persona)
    turn.speaker = data.model;
  turn.facts = facts(data.total_tokens, data.total_cost, data.first_token_ms,
    data.latency_ms);
  if (reason !== 'stop')
    turn.facts = `${REASONS[reason] ?? `Ended: ${reason}`} · ${turn.facts}`;
  end(turn, 'Done.');
}

const FRAMES = {
  message_chunk: chunk,
  message: chunk,
  reasoning_chunk(turn, { content }) {
    turn.reasoning += content;
  },
  metadata(turn, { name, model }) {
    turn.speaker = name ?? model;
  },
  done: finish,
  complete: finish,
  error(turn, data) {
    turn.facts = data.total_tokens === undefined ? ''
      : facts(data.total_tokens, data.total_cost ?? null, null,
        data.latency_ms ?? null);
    end(turn, '', data.error);
  },
};

function end(turn, text, failure = '') {
  turn.ended = true;
  turn.failure = failure;
  wire.cut = null;
  turnTo(failure ? 'failed' : 'ended', text);
  save();
}

/* What is asked, from what the page shows: the same again after a reload. */
function request(turn) {
  const { question, model, id } = turn;
  if (talk.session)
    return { message: question, animalId: talk.persona,
      sessionId: talk.session, stream_id: id };
  const messages = [{ role: 'user', content: question }];
  let room = EARLIER_MAX;
  for (const before of talk.turns.slice(0, talk.turns.indexOf(turn)).reverse())
    if (before.question && before.text.trim()
      && (room -= before.question.length + before.text.length) > 0)
      messages.unshift({ role: 'user', content: before.question },
        { role: 'assistant', content: before.text });
  return { ...messages.length > 1 ? { messages } : { message: question },
    model: model || undefined, stream_id: id };
}

function follow(turn) {
  connection?.close();
  net = { state: 'connecting', reconnects: 0, stalls: 0 };
  connection = new ResilientSSEConnection(
    talk.session ? 'convo_turn_stream' : 'api/v1/stream', {
      /* What another tab has asked is only joined. */
      ...turn.question ? { body: request(turn) }
        : { params: { stream_id: turn.id }, useFetch: true },
      lastEventId: turn.cursor,
      shared: true,
      fetch: wired,
      handlers: {
        onOpen: () => turnTo('live', 'Answering…'),
        onMessage({ type, id, data }) {
          turn.cursor = id ?? turn.cursor;
          if (net.state !== 'live')
            turnTo('live', 'Answering…'); /* another tab's, which was open */
          FRAMES[type]?.(turn, data);
          show(turn);
          saving ||= setTimeout(save, 1000);
        },
        onReconnecting({ delay }) {
          net.reconnects++;
          turnTo(navigator.onLine ? 'waiting' : 'offline',
            !navigator.onLine ? 'Offline. It goes on when you are back.'
              : `${wire.refusal || 'No connection.'} Next attempt in ${
                tenths.format(delay / 1000)} s.`);
        },
        onStalled() {
          net.stalls++;
        },
        onError({ message, type }) {
          if (!turn.ended)
            end(turn, 'Done.', type === 'ended' ? '' : message);
        },
      },
    });
  turn.id = connection.streamId;
  history.replaceState(null, '', address(talk));
  turnTo(navigator.onLine ? 'connecting' : 'offline', 'Asking…');
  save();
  connection.connect();
}

/* ---- asking and stopping ---- */

function ask(question) {
  if (!question.trim() || answering())
    return;
  if (talk.persona && !talk.session)
    talk.session = 'session_'
      + crypto.getRandomValues(new Uint32Array(4)).join('_');
  const turn = { ...NOTHING_SEEN, question, asked: Date.now(),
    model: $('model').value,
    speaker: personaOf(talk)?.name };
  const before = last();
  talk.turns.push(turn);
  if (before)
    show(before); /* it is not the one to ask again any more */
  follow(turn);
  paint();
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
}

function again(turn) {
  /* A conversation of the server's has the turn, whatever became of it. */
  if (!talk.session) {
    talk.turns.pop();
    changed.delete(turn);
    articleOf(turn).remove();
  }
  ask(turn.question);
  $('message').focus();
}

async function stop() {
  const turn = last();
  say('Stopping…');
  const answer = await fetch(`api/v1/streams/${turn.id}/stop`,
    { method: 'POST', body: '' }).catch(() => null);
  /* The end itself comes as a frame.  Without an answer just look away. */
  if (turn.ended || answer?.ok)
    return;
  if (turn === last())
    connection.close();
  turn.facts = 'Stopped here';
  end(turn, turn.cursor < 0 ? 'Stopped.'
    : 'The server could not be told to stop.');
}

function begin(persona) {
  adopt(newTalk(persona));
  history.replaceState(null, '', location.pathname + location.search);
  say('');
  save();
  $('message').focus();
}

/* ---- what was said before ---- */

async function get(path) {
  const answer = await fetch(path, { headers: { Accept: 'application/json' } });
  const data = await said(answer);
  if (!answer.ok)
    throw new Error(data.error);
  return data;
}

/* Fills in a turn from the stream's snapshot. */
async function look(turn) {
  const seen = await get(`api/v1/streams/${encodeURIComponent(turn.id)}`);
  turn.text = seen.text;
  turn.reasoning = seen.reasoning;
  turn.cursor = seen.last_event_id;
  turn.tokens = seen.total_tokens ?? 0;
  turn.cost = seen.total_cost;
  turn.ended = seen.state !== 'live';
  turn.model = seen.model;
  turn.failure = seen.error_type ? `It failed: ${seen.error_type}.` : '';
  turn.facts = facts(seen.total_tokens, seen.total_cost, null,
    seen.latency_ms);
  return turn;
}

/* One turn of the server's history. */
function remembered({ stream_id: id, state, user, assistant }) {
  return { ...NOTHING_SEEN, id, question: user.content,
    text: assistant?.content ?? '', ended: state !== 'live',
    failure: assistant?.error_type ? `It failed: ${assistant.error_type}.` : '',
    facts: assistant ? facts(assistant.usage?.total ?? null,
      assistant.total_cost ?? null, null, assistant.latency_ms ?? null) : '' };
}

async function fetchTalk(session, stream) {
  if (!session)
    return { ...newTalk(),
      turns: [await look({ ...NOTHING_SEEN, id: stream, question: '' })] };
  const { turns } = await get('convo_history?'
    + new URLSearchParams({ sessionId: session }));
  const found = { persona: turns.at(-1)?.animalId ?? '', session,
    turns: turns.map(remembered) };
  if (found.turns.length && !found.turns.at(-1).ended)
    await look(found.turns.at(-1));
  return found;
}

function adopt(found) {
  connection?.close();
  connection = net = undefined;
  $('turns').replaceChildren();
  changed.clear();
  talk = found;
  $('persona').value = talk.persona;
  talk.turns.forEach((turn) => changed.add(turn));
  if (answering())
    follow(last());
  paint();
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
}

/* The conversation may have gone on in another tab. */
async function catchUp() {
  const { session } = talk;
  if (!session || answering())
    return;
  const found = await fetchTalk(session).catch(() => null);
  if (found && session === talk.session && !answering()
    && found.turns.at(-1)?.id !== last()?.id)
    adopt(found);
}

/* Shows what the address names: as it is kept, else as the server has it. */
async function open() {
  const named = new URLSearchParams(location.hash.slice(1));
  const kept = load();
  const session = named.get('session');
  const stream = named.get('stream');
  if (!session && !stream || location.hash === address(kept)) {
    adopt(kept);
    return catchUp();
  }
  adopt(newTalk());
  await fetchTalk(session, stream).then(adopt, (e) => say(e.message));
}

/* ---- what can be chosen ---- */

/* Fills a select; without anything to choose from it stays hidden. */
function offer(id, options, chosen) {
  $(id).replaceChildren(...options.map(([value, text]) =>
    new Option(text, value, false, value === chosen)));
  $(`${id}-label`).hidden = options.length < 2;
}

async function offerAll() {
  const [models, people, texts] = await Promise.allSettled([
    get('api/v1/models'), get('api/personas'), get('api/templates')]);
  personas = people.value?.personas ?? [];
  templates = texts.value?.templates ?? [];
  if (models.value)
    offer('model', models.value.models.map(({ name }) => [name, name]),
      last()?.model || models.value.default);
  else
    say('The list of models cannot be read.');
  offer('persona', [['', 'No persona'],
    ...personas.map(({ id, name }) => [id, name])], talk.persona);
  offer('template', [['', 'No template'],
    ...templates.map(({ name }) => [name, name])], '');
  talk.turns.forEach((turn) => changed.add(turn));
  paint();
}

function chooseTemplate() {
  const chosen = templates.find(({ name }) => name === $('template').value);
  $('blanks').hidden = !chosen;
  if (!chosen)
    return $('message').focus();
  $('blanks-title').textContent = chosen.name;
  $('blanks-help').textContent = chosen.description ?? '';
  $('blanks-fields').replaceChildren(...chosen.variables.map((name) => {
    const label = document.createElement('label');
    const field = document.createElement('textarea');
    const needed = chosen.required?.includes(name);
    field.rows = 1;
    field.dataset.name = name;
    field.ariaRequired = String(needed);
    label.append(needed ? `${name} (needed)` : name, field);
    return label;
  }));
  $('blanks-fields').querySelector('textarea')?.focus();
}

/* The template's text goes where the question is: it can still be changed. */
async function fill() {
  const variables = {};
  for (const { dataset, value } of
    $('blanks-fields').querySelectorAll('textarea'))
    if (value !== '')
      variables[dataset.name] = value;
  const answer = await fetch('api/render', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ template: $('template').value, variables }),
  }).catch(() => null);
  if (!answer)
    return say('No connection.');
  const data = await said(answer);
  if (!answer.ok)
    return say(data.error);
  $('message').value = data.text.trimEnd();
  say('');
  closeTemplate();
}

function closeTemplate() {
  $('template').value = '';
  $('blanks').hidden = true;
  $('message').focus();
}

/* ---- the controls ---- */

$('form').addEventListener('submit', (e) => {
  e.preventDefault();
  const question = $('message').value;
  if (answering() || !question.trim())
    return;
  $('message').value = '';
  ask(question);
  $('message').focus();
});
$('message').addEventListener('keydown', (e) => {
  /* On a phone there is no other way to begin a line. */
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing
    && !matchMedia('(pointer: coarse)').matches) {
    e.preventDefault();
    $('form').requestSubmit();
  }
});
document.addEventListener('keydown', (e) => {
  if (e.key !== 'Escape')
    ;
  else if ($('wire').open)
    $('wire').open = false;
  else if (answering())
    stop();
});
$('stop').addEventListener('click', () => {
  stop();
  $('message').focus();
});
$('new').addEventListener('click', () => begin(talk.persona));
$('persona').addEventListener('change', () => begin($('persona').value));
$('template').addEventListener('change', chooseTemplate);
$('fill').addEventListener('click', fill);
$('no-blanks').addEventListener('click', closeTemplate);
$('cut').addEventListener('click', () => wire.cut());
$('rewind').addEventListener('click', () => {
  wire.rewind = REWIND;
  wire.cut();
});
$('mute').addEventListener('click', () => {
  wire.muted = true;
});

addEventListener('pagehide', save);
addEventListener('hashchange', open);
addEventListener('offline', () => answering()
  && turnTo('offline', 'Offline. It goes on when you are back.'));
document.addEventListener('visibilitychange', () =>
  document.hidden ? save() : catchUp());

open();
offerAll();
