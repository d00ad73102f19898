// server.js - resumable streams as Node servers have them today: proxies an
// upstream's event stream, with resumable-stream over Redis.
//	node server.js PORT UPSTREAM-URL REDIS-URL
//	GET /ID?skip=CHARACTERS&burst=FRAMES
import { once } from "node:events";
import { createServer } from "node:http";
import { createResumableStreamContext } from "resumable-stream";
import { createClient } from "redis";

const [port, upstream, url] = process.argv.slice(2);
const publisher = await createClient({ url }).connect();
const subscriber = await createClient({ url }).connect();
const context = createResumableStreamContext({
	waitUntil: () => {},
	publisher,
	subscriber,
});

function ask(burst) {
	return () => new ReadableStream({
		async start(controller) {
			const answer = await fetch(upstream + burst);
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
		ask(searchParams.get("burst") ?? "0"),
		Number(searchParams.get("skip") ?? 0));

	if (!stream) {
		response.writeHead(422).end();
		return;
	}
	response.writeHead(200, {
		"Content-Type": "text/event-stream",
		"Cache-Control": "no-cache",
	});
	for await (const chunk of stream) {
		if (response.destroyed)
			return;
		if (!response.write(chunk))
			await Promise.race([once(response, "drain"),
				once(response, "close")]);
	}
	response.end();
}

createServer((request, response) => {
	response.socket.setNoDelay(true);
	serve(request, response).catch((e) => {
		console.error(e.message);
		response.destroy();
	});
}).listen(Number(port), "127.0.0.1", () => console.log("ready"));
