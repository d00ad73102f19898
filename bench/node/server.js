// server.js - resumable streams as Node servers have them today: proxies an
// upstream's event stream, with resumable-stream over Redis.
//	node server.js PORT UPSTREAM-URL REDIS-URL
//	GET /ID?skip=CHARACTERS&upstream=PATH
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createResumableStreamContext } from "resumable-stream";
import { createClient } from "redis";

const [port, upstream, url] = process.argv.slice(2);
const publisher = await createClient({ url }).connect();
const subscriber = await createClient({ url }).connect();
for (const client of [publisher, subscriber])
	client.on("error", (e) => console.error(e.message));
const context = createResumableStreamContext({
	waitUntil: () => {},
	publisher,
	subscriber,
});

function ask(path) {
	return () => new ReadableStream({
		async start(controller) {
			const answer = await fetch(upstream + path);
			const text = answer.body.pipeThrough(
				new TextDecoderStream());

			for await (const chunk of text)
				controller.enqueue(chunk);
			controller.close();
		},
	});
}

async function serve(request, response) {
	const { pathname, searchParams } = new URL(request.url, "http://h");
	const stream = await context.resumableStream(pathname.slice(1),
		ask(searchParams.get("upstream") ?? ""),
		Number(searchParams.get("skip") ?? 0));

	if (!stream) {
		response.writeHead(422).end();
		return;
	}
	response.writeHead(200, {
		"Content-Type": "text/event-stream",
		"Cache-Control": "no-cache",
	});
	await pipeline(Readable.fromWeb(stream), response);
}

createServer((request, response) => {
	response.socket.setNoDelay(true);
	serve(request, response).catch((e) => {
		if (e.code !== "ERR_STREAM_PREMATURE_CLOSE")
			console.error(e.message);
		response.destroy();
	});
}).listen(Number(port), "127.0.0.1", () => console.log("ready"));
