/* magic.js - the chat page: ask, watch the answer come, stop, resume.
 *
 * `turn` is what the page shows: one question and its answer so far.  It is
 * kept in sessionStorage as one text, so that the answer and its cursor (the
 * id of the last frame in it) always belong together.  The page makes up the
 * stream's id: a start whose answer was lost is sent again as it was, and
 * still buys one generation. */

const KEY = 'respool.turn';
const NOTHING_SEEN = { cursor: -1, text: '', reasoning: '', tokens: 0, cost: 0,
  ended: false, facts: '', status: '' };

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 12 });
const why = async (answer) => (await answer.json().catch(() => ({}))).error
  ?? `The server answered ${answer.status}.`;

let turn = null;
let source = null; /* the EventSource that follows it */
let losses = 0; /* since the last frame */
let painting = false;

/* ---- keeping and showing ---- */

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

function save() {
  /* Where the text has no room, it is replayed whole after a reload. */
  for (const what of [turn, { ...turn, ...NOTHING_SEEN }])
    try {
      return turn && sessionStorage.setItem(KEY, JSON.stringify(what));
    } catch { /* full, or switched off */ }
}

/* Text only grows: what is there stays untouched. */
function grow(element, text) {
  const shown = element.firstChild ?? element.appendChild(new Text());
  shown.appendData(text.slice(shown.length));
}

function paint() {
  const page = document.documentElement;
  const atEnd = page.scrollTop + page.clientHeight > page.scrollHeight - 60;
  painting = false;
  grow($('question'), turn.question);
  grow($('answer'), turn.text);
  grow($('reasoning'), turn.reasoning);
  $('thinking').hidden = turn.reasoning === '';
  $('answer').ariaBusy = String(!turn.ended);
  $('facts').textContent = turn.facts;
  $('status').textContent = turn.status;
  $('turn').hidden = false;
  $('ask').disabled = !turn.ended;
  $('stop').disabled = turn.ended;
  if (atEnd)
    page.scrollTop = page.scrollHeight;
}

function show(change) {
  Object.assign(turn, change);
  if (!painting)
    requestAnimationFrame(paint);
  painting = true;
}

function end(status) {
  source?.close();
  source = null;
  show({ ended: true, status });
  save();
}

const facts = (tokens, cost, more) =>
  `${tokens === null ? 'tokens unknown' : `${number.format(tokens)} tokens`}, `
  + `${cost === null ? 'cost unknown' : `$${number.format(cost)}`}${more}`;

/* ---- following ---- */

const FRAMES = {
  message_chunk(d) {
    const tokens = turn.tokens + d.tokens;
    const cost = turn.cost === null || d.cost_usd === null ? null
      : turn.cost + d.cost_usd;
    show({ text: turn.text + d.content, tokens, cost,
      facts: facts(tokens, cost, ' so far') });
  },
  reasoning_chunk(d) {
    show({ reasoning: turn.reasoning + d.content });
  },
  tool_call_chunk() {},
  heartbeat() {},
  done(d) {
    show({ facts: facts(d.total_tokens, d.total_cost,
      `, ${number.format(d.latency_ms / 1000)} s, ${d.model}`) });
    end(d.finish_reason === 'stop' ? 'Done.' : `Ended: ${d.finish_reason}.`);
  },
  error(d) {
    if (d.total_tokens !== undefined)
      show({ facts: facts(d.total_tokens, d.total_cost ?? null, '') });
    end(d.error);
  },
};

function follow() {
  const query = new URLSearchParams({ stream_id: turn.id });
  if (turn.cursor >= 0)
    query.set('last_event_id', turn.cursor);
  source?.close();
  const mine = source = new EventSource(`api/v1/stream?${query}`);
  mine.onopen = () => mine === source && show({ status: 'Answering…' });
  for (const [name, act] of Object.entries(FRAMES))
    mine.addEventListener(name, (e) => {
      const id = Number(e.lastEventId);
      if (mine !== source)
        return;
      if (e.data === undefined)
        return lost(mine);
      if (id > turn.cursor + 1)
        return follow(); /* a frame is missing: again from the cursor */
      if (id <= turn.cursor)
        return;
      turn.cursor = id;
      losses = 0;
      act(JSON.parse(e.data));
    });
}

async function lost(mine) {
  show({ status: 'Connection lost; resuming…' });
  if (mine.readyState === EventSource.CLOSED) {
    /* It was refused, and an EventSource cannot say why. */
    const answer = await fetch(`api/v1/streams/${turn.id}`).catch(() => null);
    if (mine !== source)
      return;
    if (answer !== null && !answer.ok && answer.status < 500)
      return end(await why(answer));
  }
  /* By itself it would come back after 10 s, as "retry: 10000" says. */
  setTimeout(() => mine === source && wake(),
    Math.min(2 ** losses++, 10) * (900 + Math.random() * 200));
}

/* Follows again, unless it does. */
function wake() {
  if (turn?.started && !turn.ended && source?.readyState !== EventSource.OPEN)
    follow();
}

/* ---- asking and stopping ---- */

const post = (path, body) => fetch(path, { method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(body) }).catch(() => null);

async function start() {
  const mine = turn;
  const body = { stream_id: mine.id, message: mine.question };
  if (mine.model !== '')
    body.model = mine.model;
  show({ status: 'Asking…' });
  for (let wait = 1000; !mine.ended; wait = Math.min(wait * 2, 16000)) {
    const answer = await post('api/v1/stream', body);
    if (answer?.ok)
      answer.body.cancel(); /* it is written on without a reader */
    if (mine.ended)
      return answer?.ok && post(`api/v1/streams/${mine.id}/stop`, {});
    if (answer?.ok) {
      mine.started = true;
      save();
      return follow();
    }
    if (answer !== null && answer.status < 500 && answer.status !== 429)
      return end(await why(answer));
    show({ status: (answer === null ? 'No connection.' : await why(answer))
      + ' Trying again…' });
    await sleep(wait);
  }
}

function ask(e) {
  e.preventDefault();
  const question = $('message').value;
  if (question.trim() === '' || turn?.ended === false)
    return;
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)),
    (b) => b.toString(16).padStart(2, '0')).join('');
  for (const name of ['question', 'answer', 'reasoning'])
    $(name).replaceChildren();
  turn = { ...NOTHING_SEEN, id: `stream_${id}`, question,
    model: $('model').value, started: false };
  $('message').value = '';
  save();
  start();
}

async function stop() {
  const mine = turn;
  const answer = mine.started
    ? await post(`api/v1/streams/${mine.id}/stop`, {}) : null;
  /* The end itself comes as a frame.  Without an answer just look away. */
  if (!mine.ended && !answer?.ok)
    end(mine.started ? 'The server could not be told to stop.' : 'Stopped.');
}

async function models() {
  const list = await (await fetch('api/v1/models')).json();
  const chosen = turn?.model || list.default;
  $('model').replaceChildren(...list.models.map(({ name }) =>
    new Option(name, name, name === list.default, name === chosen)));
}

$('form').addEventListener('submit', ask);
$('message').addEventListener('keydown', (e) =>
  e.key === 'Enter' && (e.ctrlKey || e.metaKey) && ask(e));
$('stop').addEventListener('click', stop);
addEventListener('pagehide', save);
addEventListener('online', wake);
addEventListener('pageshow', (e) => e.persisted && wake());
document.addEventListener('visibilitychange', () =>
  document.hidden ? save() : wake());

turn = load();
models().catch(() => {
  $('status').textContent = 'The list of models cannot be read.';
});
if (turn !== null) {
  show({});
  if (!turn.ended)
    (turn.started ? follow : start)();
}
