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
let offered; /* what can be chosen was asked for */
let signedOut; /* the server wants to know who we are */
let replaced; /* the turn that is asked again */
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
  if (talk.link)
    return; /* it is another's */
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

function address({ session, turns, link }) {
  return session ? `#session=${session}`
    : !turns.length ? location.pathname + location.search
      : `#stream=${turns.at(-1).id}${link ? `&link=${link}` : ''}`;
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
    article.querySelector('.share').onclick = () => share(turn);
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
  part('.share').hidden = turn.cursor < 0 && !turn.text || Boolean(talk.link);
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
  $('box').hidden = $('keys').hidden = Boolean(talk.link);
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
  error: answer.status === 401 ? 'Please sign in.'
    : `The server answered ${answer.status}.`,
})).finally(() => signedOut ||= answer.status === 401);

const post = (path) => fetch(path, { method: 'POST', body: '' })
  .catch(() => null);

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
  if (answer.status > 399)
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

/* When that will be. */
const moment = (ms) => new Intl.DateTimeFormat('en', { weekday: 'long',
  hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })
  .format(Date.now() + ms);

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
        : { params: { stream_id: turn.id, link: talk.link }, useFetch: true },
      lastEventId: turn.cursor,
      shared: true,
      fetch: wired,
      handlers: {
        onOpen() {
          turn.begun = true;
          turnTo('live', 'Answering…');
        },
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
              : `${wire.refusal || 'No connection.'} Next attempt ${
                delay > 1e5 ? `on ${moment(delay)}`
                  : `in ${tenths.format(delay / 1000)} s`}.`);
        },
        onStalled() {
          net.stalls++;
        },
        onError({ message, type, status, after }) {
          const why = status > 399 && wire.refusal || message;
          if (turn.ended)
            ;
          else if (status && turn.question && !turn.begun && turn.cursor < 0)
            takeBack(turn, after > 0 ? `${why} Not before ${moment(after)}.`
              : why);
          else if (status === 401)
            turnTo('idle', `${why} Then come back: the answer goes on.`);
          else
            end(turn, 'Done.', type === 'ended' ? '' : why);
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

function ask(question, old) {
  if (!question.trim() || answering())
    return;
  replaced = old;
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
  if (!talk.session)
    remove(turn);
  ask(turn.question, talk.session ? undefined : turn);
  $('message').focus();
}

function remove(turn) {
  talk.turns.pop();
  changed.delete(turn);
  articleOf(turn).remove();
}

/* A start that the server has refused is no turn: it is as it was before. */
function takeBack(turn, why) {
  remove(turn);
  if (replaced) {
    talk.turns.push(replaced);
    $('turns').append(articleOf(replaced));
  } else
    $('message').value = [turn.question, $('message').value].filter(Boolean)
      .join('\n\n');
  if (!talk.turns.length)
    talk.session = '';
  history.replaceState(null, '', address(talk));
  net.state = 'failed';
  say(why);
  talk.turns.slice(-1).forEach((before) => changed.add(before));
  paint();
  save();
}

/* Hands the answer to another reader, live if it is. */
async function share(turn) {
  const answer = await post(`api/v1/streams/${turn.id}/link`);
  if (!answer)
    return say('No connection.');
  const { error, link, expires } = await said(answer);
  if (!answer.ok)
    return say(error);
  const url = `${location.href.split('#')[0]}#stream=${turn.id}&link=${link}`;
  const reads = `until ${moment(new Date(expires) - Date.now())}`;
  const copied = await navigator.clipboard?.writeText(url)
    .then(() => true, () => false);
  say(copied ? `The link is copied. It opens this answer ${reads}.`
    : `This link opens the answer ${reads}: ${url}`);
}

async function stop() {
  const turn = last();
  say('Stopping…');
  const answer = await post(`api/v1/streams/${turn.id}/stop`);
  /* The end itself comes as a frame.  Without an answer just look away. */
  if (turn.ended || answer?.ok)
    return;
  if (answer?.status === 401)
    return say((await said(answer)).error);
  if (turn === last())
    connection.close();
  turn.facts = 'Stopped here';
  end(turn, turn.cursor < 0 ? 'Stopped.'
    : 'The server could not be told to stop.');
}

function begin(persona) {
  adopt(newTalk(persona));
  history.replaceState(null, '', address(talk));
  say('');
  offered ??= offerAll();
  save();
  $('message').focus();
}

/* ---- what was said before ---- */

async function get(path) {
  const answer = await fetch(path, { headers: { Accept: 'application/json' } })
    .catch(() => {
      throw new Error('No connection.');
    });
  const data = await said(answer);
  if (!answer.ok)
    throw new Error(data.error);
  return data;
}

/* Fills in a turn from the stream's snapshot. */
async function look(turn, link) {
  const seen = await get(`api/v1/streams/${encodeURIComponent(turn.id)}`
    + (link ? `?link=${encodeURIComponent(link)}` : ''));
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
  return { ...NOTHING_SEEN, id, begun: true, question: user.content,
    text: assistant?.content ?? '', ended: state !== 'live',
    failure: assistant?.error_type ? `It failed: ${assistant.error_type}.` : '',
    facts: assistant ? facts(assistant.usage?.total ?? null,
      assistant.total_cost ?? null, null, assistant.latency_ms ?? null) : '' };
}

async function fetchTalk(session, stream, link) {
  if (!session)
    return { ...newTalk(), link, turns: [
      await look({ ...NOTHING_SEEN, id: stream, question: '' }, link)] };
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
  const link = named.get('link');
  if (!link)
    offered ??= offerAll();
  if (!session && !stream || location.hash === address(kept)) {
    adopt(kept);
    return catchUp();
  }
  adopt(newTalk());
  await fetchTalk(session, stream, link).then(adopt, (e) => say(e.message));
}

/* Somebody looks at the page again, who may have signed in elsewhere. */
function comeBack() {
  if (!signedOut)
    return catchUp();
  signedOut = false;
  offered = undefined;
  say('');
  if (!talk.turns.length)
    return open();
  offered = offerAll();
  if (answering())
    follow(last());
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
    say(models.reason.message);
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
  else if (answering() && !talk.link)
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
  document.hidden ? save() : comeBack());

open();
