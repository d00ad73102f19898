/* proxy.mjs - a TCP proxy before the server that does harm to event streams:
 * plan(n) says what to do to the answer of the n-th request for one.
 *   cutAfter: N    the connection breaks after N bytes of the answer
 *   stallAfter: N  nothing more comes after them
 *   delay: MS      all comes later
 *   frames: f      f(frame, i) returns the texts to send in place of a frame,
 *                  or null to break the connection before it */
import net from 'node:net';

const STREAM = /^(GET|POST) \S*\/(api\/v1\/stream|convo_turn_stream)[? ]/;

class Wire {
  #seen = 0;
  #text = '';
  #count = 0;
  #inBody = false;

  constructor(harm, send, cut) {
    Object.assign(this, { harm, send, cut });
  }

  take(data) {
    const { cutAfter = Infinity, stallAfter = Infinity, frames } = this.harm;
    const before = this.#seen;
    this.#seen += data.length;
    if (frames)
      this.#byFrame(data.toString('latin1'));
    else
      this.send(data.subarray(0,
        Math.max(Math.min(cutAfter, stallAfter) - before, 0)));
    if (this.#seen >= cutAfter)
      this.cut();
  }

  #byFrame(text) {
    this.#text += text;
    if (!this.#inBody) {
      const end = this.#text.indexOf('\r\n\r\n') + 4;
      if (end < 4)
        return;
      this.#inBody = true;
      this.send(Buffer.from(this.#text.slice(0, end), 'latin1'));
      this.#text = this.#text.slice(end);
    }
    const parts = this.#text.split(/(?<=\n\n)/);
    this.#text = parts.at(-1).endsWith('\n\n') ? '' : parts.pop();
    for (const part of parts) {
      const out = part.startsWith('event:')
        ? this.harm.frames(part, this.#count++) : [part];
      if (out === null)
        return this.cut();
      this.send(Buffer.from(out.join(''), 'latin1'));
    }
  }
}

function serve(proxy, client) {
  const upstream = net.connect(proxy.target, '127.0.0.1');
  let wire;
  const end = () => {
    proxy.open.delete(client);
    client.destroy();
    upstream.destroy();
  };
  client.on('data', (data) => {
    let text = data.toString('latin1').replace(` ${proxy.prefix}/`, ' /');
    wire = undefined;
    if (STREAM.test(text)) {
      const harm = proxy.plan(proxy.asked.length) ?? {};
      proxy.asked.push(text.split('\r\n', 1)[0]);
      proxy.open.add(client);
      wire = new Wire(harm, (bytes) => harm.delay
        ? setTimeout(() => client.write(bytes), harm.delay)
        : client.write(bytes), end);
      /* Without chunks the frames are easily told. */
      if (harm.frames)
        text = text.replace(' HTTP/1.1\r\n', ' HTTP/1.0\r\n');
    }
    upstream.write(Buffer.from(text, 'latin1'));
  });
  upstream.on('data', (data) => wire ? wire.take(data) : client.write(data));
  /* A line that fell silent does not tell that the other end has gone. */
  upstream.setNoDelay().on('error', end).on('close', () =>
    wire?.harm.stallAfter === undefined && setTimeout(end, wire?.harm.delay));
  client.setNoDelay().on('error', end).on('close', end);
}

/* target: the server's port, which may change. */
export async function startProxy(target) {
  const proxy = {
    target,
    prefix: '/never',
    plan: () => ({}),
    asked: [], /* the first lines of the requests for streams */
    open: new Set(), /* their connections */
    cutAll() {
      for (const client of proxy.open)
        client.destroy();
    },
  };
  const server = net.createServer((client) => serve(proxy, client));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  proxy.port = server.address().port;
  proxy.close = () => {
    server.close();
    proxy.cutAll();
  };
  return proxy;
}
