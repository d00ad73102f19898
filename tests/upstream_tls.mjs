// upstream_tls.mjs - an upstream that speaks TLS, HTTP/2 and HTTP/1.1, for
// check_http: `node upstream_tls.mjs CERT KEY` prints its port.
//
// The path says what it does with a request:
//   /echo    sends the body back, a byte at a time
//   /hold    sends "hello" and no end
//   /last    answers, and says that the connection takes no more
//   /refuse  refuses the stream once, then answers
//   /die     sends "hello" and breaks the connection
//   /cut     sends "hello" and an error on the stream
//   /stats   says what it has seen: connections, versions, streams given up
import fs from "node:fs";
import http2 from "node:http2";

const [cert, key] = process.argv.slice(2).map((f) => fs.readFileSync(f));
const seen = { connections: 0, http1: 0, http2: 0, requests: 0, gone: 0 };
let refused = false;

const server = http2.createSecureServer({
	cert, key, allowHTTP1: true,
	settings: { maxConcurrentStreams: 128 },
});
server.on("secureConnection", () => seen.connections++);
server.on("error", () => {});
server.on("sessionError", () => {});

function read(req) {
	return new Promise((done) => {
		const parts = [];
		req.on("data", (part) => parts.push(part));
		req.on("end", () => done(Buffer.concat(parts)));
	});
}

async function echo(res, body) {
	res.writeHead(200, { "content-type": "text/plain" });
	for (const byte of body) {
		res.write(Buffer.of(byte));
		await new Promise(setImmediate);
	}
	res.end();
}

server.on("request", async (req, res) => {
	const session = req.stream?.session;
	const stats = req.url === "/stats" ? JSON.stringify(seen) : null;

	req.on("error", () => {});
	res.on("error", () => {});
	req.stream?.on("error", () => {});
	if (stats === null) {
		seen.requests++;
		seen[session ? "http2" : "http1"]++;
	}
	const body = await read(req);
	switch (req.url) {
	case "/echo":
		await echo(res, body);
		break;
	case "/hold":
		req.on("close", () => seen.gone++);
		res.write("hello");
		break;
	case "/last":
		res.end(body);
		session.close();
		break;
	case "/refuse":
		if (refused) {
			res.end(body);
		} else {
			refused = true;
			req.stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
		}
		break;
	case "/die":
		res.write("hello", () => setImmediate(() => session.destroy()));
		break;
	case "/cut":
		res.write("hello", () => setImmediate(() =>
			req.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)));
		break;
	case "/stats":
		res.end(stats);
		break;
	default:
		res.writeHead(404);
		res.end();
	}
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
