#!/usr/bin/env -S python3 -B
"""A stream as it goes out: frame by frame, in the promised form."""

import re
import time
from urllib.parse import urlencode

import e2e

PRICES = {"input": 150000, "output": 600000}
MODELS = {
    "default": "hundred",
    "models": {
        "hundred": {"provider": "demo", "chunks": 100, "interval_ms": 50,
                    "prices": PRICES},
        "echo": {"provider": "demo", "prices": PRICES},
        "unpriced": {"provider": "demo", "chunks": 3},
        "quiet": {"provider": "demo", "chunks": 3, "first_ms": 2500,
                  "interval_ms": 1500},
        "fails": {"provider": "demo", "chunks": 10, "fail_after": 4,
                  "error_type": "overloaded", "prices": PRICES},
    },
}


@e2e.test
def a_hundred_chunks_arrive_one_by_one(server):
    stream = server.start_stream(message="Hello there").read_all()
    frames = stream.frames
    e2e.check_equal([f.id for f in frames], list(range(101)), "ids")
    e2e.check_equal([f.event for f in frames],
                    ["message_chunk"] * 100 + ["done"], "events")
    e2e.check_equal(stream.text(),
                    "".join("tok%d " % i for i in range(100)), "text")
    times = [f.at for f in frames[:100]]
    gaps = [b - a for a, b in zip(times, times[1:])]
    e2e.check(times[-1] - times[0] > 4.5, "they came in a burst")
    # A busy machine may deliver a few late, and the next ones close behind.
    apart = sum(gap > 0.02 for gap in gaps)
    e2e.check(apart >= 80, "only %d of 99 came one by one" % apart)


@e2e.test
def done_is_last_and_has_totals(server):
    stream = server.start_stream(message="Hello there").read_all()
    done = stream.frames[-1]
    e2e.check_equal(done.event, "done", "last event")
    # 2 words in, 100 chunks out.
    e2e.check_equal(done.data["total_tokens"], 102, "total_tokens")
    e2e.check(b'"total_cost":0.0000603' in done.raw,
              "total_cost is not exact: %r" % done.raw)
    e2e.check_equal(done.data["finish_reason"], "stop", "finish_reason")
    e2e.check_equal(done.data["model"], "hundred", "model")
    e2e.check_equal(done.data["stream_id"], stream.stream_id, "stream_id")
    e2e.check_equal(done.data["estimated"], False, "estimated")
    usage = done.data["usage"]
    e2e.check_equal((usage["input"], usage["output"], usage["total"]),
                    (2, 100, 102), "usage")
    e2e.check(done.data["latency_ms"] >= 4900, "latency_ms")
    e2e.check(0 <= done.data["first_token_ms"] <=
              done.data["latency_ms"], "first_token_ms")


@e2e.test
def the_first_chunk_tells_the_stream_id(server):
    stream = server.start_stream(message="one two", model="echo").read_all()
    first, second = stream.frames[:2]
    e2e.check(re.fullmatch("stream_[0-9a-f]{32}", stream.stream_id),
              "X-Stream-ID is %r" % stream.stream_id)
    e2e.check_equal(first.data["stream_id"], stream.stream_id, "stream_id")
    e2e.check("stream_id" not in second.data, "the second has it, too")
    e2e.check(isinstance(first.data["tokens"], int), "tokens")
    e2e.check(b'"cost_usd":0.0000006' in first.raw,
              "cost_usd: %r" % first.raw)


@e2e.test
def the_file_is_what_the_client_saw(server):
    stream = server.start_stream(message="a b c", model="echo").read_all()
    e2e.check_equal(server.stream_bytes(stream.stream_id), stream.bytes(),
                    "file")


@e2e.test
def the_head_keeps_caches_and_proxies_away(server):
    # Of an answer that goes on: lighttpd knows the length of a short one.
    stream = server.start_stream(message="x", model="quiet")
    for name, value in (
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-cache, no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            ("Access-Control-Allow-Origin", "*"),
            ("Content-Length", None), ("Content-Encoding", None)):
        e2e.check_equal(stream.response.header(name), value, name)
    exposed = stream.response.header("Access-Control-Expose-Headers") or ""
    e2e.check("X-Stream-ID" in exposed and "Retry-After" in exposed,
              "exposed: %r" % exposed)
    stream.close()


@e2e.test
def a_comment_comes_with_the_head(server):
    stream = server.start_stream(message="x", model="quiet")
    while not stream.parser.comments:
        e2e.check(stream.read_some(), "the end came before a comment")
    e2e.check_equal(stream.frames, [], "frames before the first content")
    stream.close()


@e2e.test
def query_form_and_JSON_ask_alike(server):
    words = "Grüße, 你好 🌍 & 100%"
    fields = {"message": words, "model": "echo"}
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    url = "/api/v1/stream"
    body = urlencode(fields).encode()
    for response in (
            server.request("GET", url + "?" + urlencode(fields)),
            server.request("POST", url, form, body),
            server.request("POST", url + "?model=unpriced", form, body),
            server.post(url + "?message=ignored", fields)):
        stream = e2e.Stream(response, 0).read_all()
        e2e.check_equal(stream.text(), words, "text")


@e2e.test
def any_text_survives(server):
    words = "a\r\nb\rc\n\nd \u2028\u2029 \ufeff\x7f\0 id: 7 \"\\ 👩‍👩‍👧 " + "x" * 9000
    stream = server.start_stream(message=words, model="echo").read_all()
    e2e.check_equal(stream.text(), words, "text")


@e2e.test
def messages_have_a_history(server):
    stream = server.start_stream(model="echo", messages=[
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "second question"}]).read_all()
    e2e.check_equal(stream.text(), "second question", "text")
    e2e.check_equal(stream.frames[-1].data["usage"]["input"], 6, "input")


@e2e.test
def an_unknown_price_is_null_and_never_0(server):
    stream = server.start_stream(message="x", model="unpriced").read_all()
    e2e.check_equal(stream.frames[0].data["cost_usd"], None, "cost_usd")
    e2e.check_equal(stream.frames[-1].data["total_cost"], None, "total_cost")


@e2e.test
def a_failing_model_ends_with_an_error_frame(server):
    stream = server.start_stream(message="x", model="fails").read_all()
    e2e.check_equal([f.event for f in stream.frames],
                    ["message_chunk"] * 4 + ["error"], "events")
    data = stream.frames[-1].data
    e2e.check_equal(data["error_type"], "overloaded", "error_type")
    e2e.check_equal(data["retryable"], True, "retryable")
    e2e.check_equal(data["partial"], True, "partial")
    e2e.check(data["error"], "there is no sentence")


@e2e.test
def a_silent_model_gets_heartbeats(server):
    stream = server.start_stream(message="x", model="quiet").read_all()
    beats = [f for f in stream.frames if f.event == "heartbeat"]
    e2e.check_equal([f.id for f in stream.frames],
                    list(range(len(stream.frames))), "ids")
    # After 1 and 2 s of the first 2.5, and in each pause of 1.5 s.
    e2e.check_equal([f.event[0] for f in stream.frames[:7]],
                    list("hhmhmhm"), "events")
    for beat in beats:
        e2e.check(beat.raw.endswith(b"\ndata: {}\n\n"), repr(beat.raw))
    e2e.check_equal(server.stream_bytes(stream.stream_id), stream.bytes(),
                    "file")


@e2e.test
def a_HEAD_starts_nothing(server):
    before = server.stream_files(), server.usage_lines("reserve")
    response = server.request("HEAD", "/api/v1/stream?message=hello")
    response.read_head()
    e2e.check_equal(response.status, 200, "status")
    e2e.check_equal(response.header("Content-Type"), "text/event-stream",
                    "Content-Type")
    e2e.check_equal((server.stream_files(), server.usage_lines("reserve")),
                    before, "streams and reserves")


@e2e.test
def every_generation_is_counted_once(server):
    stream = server.start_stream(message="a b c", model="echo").read_all()
    for _ in range(3):
        server.resume(-1, stream_id=stream.stream_id).read_all()
    e2e.check_equal(len(server.usage_lines("reserve", stream.stream_id)), 1,
                    "reserves")
    settled = server.usage_lines("settle", stream.stream_id)
    e2e.check_equal(len(settled), 1, "settles")
    e2e.check_equal(settled[0]["usage"], stream.frames[-1].data["usage"],
                    "usage")


@e2e.test
def the_snapshot_is_the_fold_of_the_frames(server):
    stream = server.start_stream(message="one two three", model="echo",
                                 user_id="ann").read_all()
    got = server.get("/api/v1/streams/" + stream.stream_id,
                     {"user_id": "ann"}).json()
    done = stream.frames[-1].data
    for name, want in (
            ("stream_id", stream.stream_id), ("state", "finished"),
            ("text", stream.text()), ("model", "echo"),
            ("usage", done["usage"]), ("total_tokens", done["total_tokens"]),
            ("total_cost", done["total_cost"]), ("finish_reason", "stop"),
            ("latency_ms", done["latency_ms"]), ("error_type", None),
            ("last_event_id", stream.frames[-1].id)):
        e2e.check_equal(got[name], want, name)


def stop(server):
    """Stops a stream; the seconds until its reader had the end."""
    stream = server.start_stream(message="x").read_frames(5)
    began = time.monotonic()
    path = "/api/v1/streams/%s/stop" % stream.stream_id
    first = server.post(path).json()
    stream.read_all()
    e2e.check_equal(stream.frames[-1].event, "done", "last event")
    e2e.check_equal(stream.frames[-1].data["finish_reason"], "stopped",
                    "finish_reason")
    e2e.check_equal(first["state"], "stopped", "state")
    e2e.check_equal(first["text"], stream.text(), "text")
    e2e.check_equal(server.post(path).json(), first, "the second answer")
    return stream.frames[-1].at - began


@e2e.test
def stop_ends_a_stream_within_half_a_second(server):
    e2e.check_soon(lambda: stop(server), 0.5, "the stop")


if __name__ == "__main__":
    e2e.main(models=MODELS, settings={"heartbeat": 1}, procs=2)
