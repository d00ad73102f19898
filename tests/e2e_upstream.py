#!/usr/bin/env -S python3 -B
"""Models that are late, cut off, wrong or silent, and what we do then, counted
at the model's end."""

import collections
import gzip
import itertools
import json
import os
import shutil
import socket
import tempfile
import threading
import time

import direct
import e2e
import upstream
from upstream import DONE, END, STOP, event, text, usage

PRICES = {"input": 1000000, "cache_read": 500000, "cache_write": 1000000,
          "output": 2000000}
KEY = "sk-never-to-be-seen-" + "0123456789" * 15  # longer than what is kept
HTML = b"<html><body><h1>502 Bad Gateway</h1>secret.internal</body></html>"
SLOW = 0.02  # seconds between writes, below every time-out here


# ---- scripts ----

def good(x):
    x.head()
    x.write(text("hello "))
    x.write(text("world"), END)
    x.end()


def silent(x):
    x.hold()


def head_only(x):
    x.head()
    x.hold()


def repeat(*first, each):
    """first, and then each for ever."""
    def script(x):
        x.head()
        for data in first:
            x.write(data)
        for n in itertools.count():
            x.pause(SLOW)
            x.write(each(n) if callable(each) else each)
    return script


def byte_by_byte(x):
    x.head()
    for byte in itertools.cycle(text("so slow ")):
        x.pause(SLOW)
        x.write(bytes([byte]))


def one_then_silence(x):
    x.head()
    x.write(text("hello "))
    x.hold()


# What is no content, and resets no time-out.
NOTHING = [b": keep-alive\n\n", b": ping\n", text(""),
           event({"choices": [{"index": 0, "delta": {"role": "assistant",
                                                     "content": None}}]}),
           event({"choices": []}), b"event: ping\ndata: {}\n\n",
           b"data:\n\n"]


def nothing(n):
    return NOTHING[n % len(NOTHING)]


def reset(x):
    x.head()
    x.write(text("hello "))
    wait_for_frame(x)
    x.reset()


def wait_for_frame(x):
    """Until what was sent so far is in the stream's file: a reset would take
    it back."""
    x.upstream.wait(lambda: x.message in SEEN, "the first frame")


SEEN = set()  # messages whose first frame has been read


def cut_chunked(x):
    x.head()
    x.write(text("hello "))
    x.close()


def cut_in_chunk(x):
    x.head()
    x.write(text("hello "))
    x.raw(b"100\r\ndata: {")
    x.close()


def cut_length(x):
    x.head(headers=[("Content-Length", "100000")], chunked=False)
    x.write(text("hello "))
    x.close()


def cut_after_finish(x):
    x.head()
    x.write(text("hello "), STOP)
    x.close()


def cut_without_length(x):
    x.head(chunked=False)
    x.write(text("hello "))
    x.close()


def cut_head(x):
    x.raw(b"HTTP/1.1 200 OK\r\nContent-Ty")
    x.close()


def no_answer(x):
    x.close()


def early_hints(x):
    x.raw(b"HTTP/1.1 100 Continue\r\n\r\n"
          b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
    good(x)


def odd_headers(x):
    x.raw(b"HTTP/1.1 200 OK\r\ncOnTeNt-tYpE:TEXT/Event-Stream ; "
          b"charset=UTF-8; x=\"y\"\r\ntransfer-encoding: CHUNKED\r\n\r\n")
    x.write(text("hello world"), END)
    x.end()


def gzipped(x):
    x.head(headers=[("Content-Encoding", "gzip")])
    data = gzip.compress(text("hello world") + END)
    for at in range(0, len(data), 10):
        x.write(data[at:at + 10])
    x.end()


def many_events(x):
    x.head()
    x.write(*(text("%d " % n) for n in range(10000)), END)
    x.end()


def many_writes(x):
    """One event, a byte in each write."""
    data = text("x" * 9900)
    x.head()
    for at in range(len(data)):
        x.write(data[at:at + 1])
    x.write(END)
    x.end()


def closes_between(x):
    """Keeps a connection for one request, and closes it when the next one has
    come."""
    if x.nth_of_connection == 0:
        good(x)
    else:
        x.close()


def never_ends(x):
    """Says all, but not that it is over."""
    x.head()
    x.write(text("hello world"), END)
    x.hold()


def goes_on(x):
    """Says all, and more without end."""
    x.head()
    x.write(text("hello world"), END)
    while True:
        x.write(text("and more "))


TOGETHER = set()


def together(x):
    """Twelve answer at once, each on its connection, and close it when a next
    request has come."""
    with x.upstream.news:
        TOGETHER.add(x.connection)
        x.upstream.news.notify_all()
    x.upstream.wait(lambda: len(TOGETHER) >= 12, "a dozen of requests")
    closes_between(x)


def closes_early(x):
    """Without a word, when it has answered."""
    good(x)
    x.close()


def third_time(x):
    if x.nth < 2:
        x.refuse(503, b'{"error":{"message":"busy"}}')
    else:
        good(x)


def says_when(x):
    """The message is the wait that is asked for."""
    if x.nth == 0:
        x.refuse(429, b"{}", [("Retry-After-Ms", x.message)])
    else:
        good(x)


def overloaded(x):
    x.refuse(503, b"")


def server_error(x):
    x.refuse(500, b'{"error":{"message":"oops","type":"server_error"}}')


def starts_then_fails(x):
    """What comes before any content is no content."""
    x.head()
    x.write(*NOTHING)
    if x.nth == 0:
        x.write(usage(1000, 1000))
        x.write(event({"error": {"message": "no", "type": "server_error",
                                 "code": 500}}))
    else:
        x.write(text("hello world"), STOP, DONE)
    x.end()


def delta(**fields):
    return event({"choices": [{"index": 0, "delta": fields}]})


PARTS = {
    "content": delta(content="x"),
    "reasoning": delta(reasoning_content="x"),
    "refusal": delta(refusal="x"),
    "tool": delta(tool_calls=[{"index": 0, "id": "c", "type": "function",
                               "function": {"name": "f", "arguments": ""}}]),
}


def part_then_fails(x):
    x.head()
    x.write(PARTS[x.message.split()[0]])
    x.write(event({"error": {"message": "no", "type": "server_error"}}))
    x.end()


def fails_as_asked(x):
    if HEALTHY.is_set():
        good(x)
    else:
        x.refuse(500)


HEALTHY = threading.Event()


def repeats_key(x):
    """Says what it was shown, wherever it can."""
    shown = x.headers.get("authorization", "").split()[-1]
    if "stream" in x.message:
        x.head(headers=[("X-Request-Id", shown)])
        x.write(event({"error": {"message": "bad key " + shown,
                                 "type": shown, "code": shown}}))
        x.end()
    else:
        x.refuse(401, json.dumps({"error": {
            "message": "bad key " + shown, "type": "key " + shown,
            "code": shown}}).encode(), [("X-Request-Id", "req_" + shown)])


def html(x):
    x.refuse(502, HTML, [("X-Request-Id", "req_html_7")], "text/html")


def redirects(x):
    x.refuse(307, HTML, [("Location", x.upstream.url + "/good/elsewhere")])


def flood(x):
    """Counts, for ever."""
    x.head()
    for n in itertools.count():
        x.write(text("%d " % n))
        x.pause(0.002)


def reasons_and_calls(x):
    x.head()
    x.write(delta(reasoning_content="Let me "),
            delta(reasoning_content="see."))
    x.write(delta(content="I will call. "))
    for n in range(2):
        x.write(delta(tool_calls=[{
            "index": n, "id": "call_%d" % n, "type": "function",
            "function": {"name": "find", "arguments": ""}}]))
        for piece in ('{"n', '":', ' %d}' % n):
            x.write(delta(tool_calls=[{
                "index": n, "function": {"arguments": piece}}]))
    x.write(event({"choices": [{"index": 0, "delta": {},
                                "finish_reason": "tool_calls"}]}),
            usage(11, 22), DONE)
    x.end()


UP = upstream.Upstream({name: value for name, value in list(globals().items())
                        if callable(value) and not name.startswith("_")})
UP.scripts.update({
    "comments": repeat(each=b": keep-alive\n\n"),
    "nothings": repeat(each=nothing),
    "then_nothings": repeat(text("hello "), each=nothing),
    "paced": repeat(each=text("tok ")),
})


def timed(name, **timeouts):
    return UP.model(name, timeouts=timeouts, prices=PRICES)


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def full_listener():
    """A port whose queue is full: what connects waits.  Its sockets are kept
    open by what is returned."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    kept = [listener]
    while True:
        s = socket.socket()
        s.settimeout(0.5)
        kept.append(s)
        try:
            s.connect(listener.getsockname())
        except socket.timeout:
            return listener.getsockname()[1], kept


FULL_PORT, FULL = full_listener()
LIMITS = {
    "connect_timeout": {"provider": "openai", "retries": 0,
                        "base_url": "http://127.0.0.1:%d/v1" % FULL_PORT,
                        "timeouts": {"connect": 0.3}},
    "connect_failed": {"provider": "openai", "retries": 0,
                       "base_url": "http://127.0.0.1:%d/v1" % closed_port()},
    "headers_timeout": timed("silent", headers=0.3),
    "first_content_timeout": timed("head_only", first_content=0.3),
    "first_content_timeout, comments": timed("comments", first_content=0.3),
    "first_content_timeout, empty": timed("nothings", first_content=0.3),
    "idle_timeout": timed("one_then_silence", idle=0.3),
    "idle_timeout, empty": timed("then_nothings", idle=0.3),
    "total_timeout": timed("paced", total=1, idle=30),
    "total_timeout, bytes": timed("byte_by_byte", total=1, idle=30),
}
CUTS = ["reset", "cut_chunked", "cut_in_chunk", "cut_length",
        "cut_after_finish", "cut_without_length", "cut_head", "no_answer"]
WHOLE = ["early_hints", "odd_headers", "gzipped"]
MODELS = {
    "default": "good",
    "models": {
        "good": UP.model("good", prices=PRICES),
        "other": UP.model("good", prices={"input": 1, "output": 1}),
        **LIMITS,
        **{name: UP.model(name, prices=PRICES) for name in CUTS + WHOLE + [
            "silent", "head_only", "flood", "many_events", "many_writes",
            "closes_between", "closes_early", "together",
            "never_ends", "goes_on",
            "reasons_and_calls", "redirects",
            "one_then_silence"]},
        "paced": UP.model("paced", prices=PRICES),
        "third_time": UP.model("third_time", retries=2),
        "twice": UP.model("third_time", retries=1),
        "says_when": UP.model("says_when", retries=1),
        "says_when or other": UP.model("says_when", retries=1,
                                       fallback=["other"]),
        "starts_then_fails": UP.model("starts_then_fails", retries=1,
                                      prices=PRICES),
        "part_then_fails": UP.model("part_then_fails", retries=3,
                                    fallback=["good"]),
        "chain": UP.model("overloaded", retries=1, fallback=[
            "chain 2", "other"]),
        "chain 2": UP.model("server_error"),
        "html": UP.model("html"),
        "keyed": UP.model("repeats_key", api_key_env="SECRET_KEY"),
        "breaks": UP.model("fails_as_asked"),
        "breaks or good": UP.model("fails_as_asked", fallback=["good"]),
    },
}
_numbers = itertools.count()


def unique(words="say hello"):
    """A message that nobody else sends."""
    return "%s %d" % (words, next(_numbers))


def ask(server, model, message=None, **fields):
    return server.start_stream(message=message or unique(), model=model,
                               **fields)


def end_of(server, model, message=None):
    """The terminal frame's data of a stream that is read to its end."""
    stream = ask(server, model, message).read_all()
    return stream.frames[-1].data


def check_error(stream, want, what):
    end = stream.frames[-1]
    e2e.check_equal((end.event, end.data.get("error_type")), ("error", want),
                    what)


# ---- time-outs ----

@e2e.test
def each_time_out_has_its_error_type(server):
    for model in LIMITS:
        message = unique()
        stream = ask(server, model, message).read_all()
        check_error(stream, model.split(",")[0], model)
        for x in UP.exchanges(message=message):
            UP.wait_gone(x)
        said = model.startswith(("idle", "total"))
        if not said:
            e2e.check_equal(stream.text(), "", "text of " + model)
        if model.startswith("idle"):
            e2e.check_equal(stream.text(), "hello ", "text of " + model)


@e2e.test
def an_answer_that_is_cut_is_never_a_whole_one(server):
    for model in CUTS:
        message = unique()
        stream = ask(server, model, message)
        if model == "reset":
            stream.read_frames(1)
            with UP.news:
                SEEN.add(message)
                UP.news.notify_all()
        stream.read_all()
        check_error(stream, "upstream_truncated", model)
        said = "" if model in ("cut_head", "no_answer") else "hello "
        e2e.check_equal(stream.text(), said, "text of " + model)
        if model == "no_answer":  # and is not asked again
            e2e.check_equal(len(UP.exchanges(message=message)), 1, "requests")


@e2e.test
def what_http_may_do_does_not_matter(server):
    for model in WHOLE:
        stream = ask(server, model).read_all()
        e2e.check_equal((stream.text(), stream.frames[-1].event),
                        ("hello world", "done"), model)
        e2e.check_equal(stream.frames[-1].data["usage"]["total"], 10, model)


@e2e.test
def ten_thousand_events_in_one_write_and_one_in_ten_thousand(server):
    stream = ask(server, "many_events").read_all()
    e2e.check_equal(stream.text(), "".join("%d " % n for n in range(10000)),
                    "text")
    stream = ask(server, "many_writes").read_all()
    e2e.check_equal(stream.text(), "x" * 9900, "text")


# ---- connections ----

@e2e.test
def a_kept_connection_that_was_closed_is_replaced_unseen(server):
    for model in ("closes_between", "closes_early"):
        connections = set()
        for nth in range(6):
            message = unique()
            data = end_of(server, model, message)
            e2e.check_equal(data.get("finish_reason"), "stop",
                            "turn %d of %s" % (nth, model))
            connections.update(x.connection
                               for x in UP.exchanges(message=message))
        # The first may still be one of the test before.
        e2e.check(len(connections) >= 6, "%d connections of %s"
                  % (len(connections), model))


@e2e.test
def however_many_were_closed_the_call_finds_a_fresh_one(server):
    def one(_):
        end_of(server, "together")

    TOGETHER.clear()
    e2e.in_threads(12, one)
    message = unique()
    data = end_of(server, "together", message)
    e2e.check_equal(data.get("finish_reason"), "stop", "the last turn")
    e2e.check(len(UP.exchanges(message=message)) > 1,
              "the last turn met no closed connection")


@e2e.test
def what_comes_after_the_end_is_not_waited_for(server):
    for model in ("never_ends", "goes_on"):
        message = unique()
        stream = ask(server, model, message).read_all()
        x, = UP.exchanges(message=message)
        e2e.check_equal((stream.text(), stream.frames[-1].event),
                        ("hello world", "done"), model)
        UP.wait_gone(x)


@e2e.test
def a_connection_is_kept_for_the_next_turn(server):
    used = []
    for _ in range(5):
        message = unique()
        end_of(server, "good", message)
        used.append(UP.exchanges(message=message)[0].connection)
    e2e.check_equal(len(set(used)), 1, "connections")


# ---- stop ----

@e2e.test
def a_stop_closes_the_connection_at_once(server):
    def attempt():
        message = unique()
        stream = ask(server, "flood", message).read_frames(20)
        x = UP.exchanges(message=message)[0]
        asked = time.monotonic()
        answer = server.post("/api/v1/streams/%s/stop" % stream.stream_id)
        answered = time.monotonic()
        e2e.check_equal(answer.json()["state"], "stopped", "state")
        took = UP.wait_gone(x) - asked
        stream.read_all()
        end = stream.frames[-1].data
        e2e.check_equal(end["finish_reason"], "stopped", "finish_reason")
        e2e.check_equal(end["estimated"], True, "estimated")
        late = sum(at > answered for at, _ in x.writes)
        e2e.check(late <= 2, "%d writes after the stop" % late)
        return took

    e2e.check_soon(attempt, 0.1, "the end of the connection")


@e2e.test
def a_stop_reaches_a_model_that_has_not_answered_yet(server):
    for model in ("silent", "head_only"):
        message = unique()
        stream = ask(server, model, message)
        UP.wait(lambda: UP.exchanges(message=message), "the request")
        server.post("/api/v1/streams/%s/stop" % stream.stream_id).read()
        UP.wait_gone(UP.exchanges(message=message)[0])
        stream.read_all()
        e2e.check_equal(stream.frames[-1].data["finish_reason"], "stopped",
                        model)


@e2e.test
def a_stop_between_two_attempts_is_the_end(server):
    message = "30000"  # ms
    stream = ask(server, "says_when", message)
    e2e.wait_until(lambda: any(
        "stream=%s attempt failed" % stream.stream_id in line and
        "next=retry" in line for line in server.log()), 20, "the pause")
    server.post("/api/v1/streams/%s/stop" % stream.stream_id).read()
    stream.read_all()
    e2e.check_equal(stream.frames[-1].data["finish_reason"], "stopped", "end")
    e2e.check_equal(len(UP.exchanges(message=message)), 1, "requests")


# ---- nobody reads ----

def abandoned(settings, model="paced", frames=3):
    """Starts an answer on a server of its own and leaves; the server, the
    stream's id and the exchange."""
    server = e2e.Server(models=MODELS, settings={"abandon_after": 1,
                                                 **settings})
    message = unique()
    stream = ask(server, model, message).read_frames(frames)
    UP.wait(lambda: UP.exchanges(message=message), "the request")
    stream.close()
    return server, stream.stream_id, UP.exchanges(message=message)[0]


def snapshot(server, sid):
    return server.get("/api/v1/streams/" + sid).json()


@e2e.test
def what_nobody_reads_is_stopped_where_the_settings_say_so(_):
    for model, frames in (("paced", 3), ("silent", 0)):
        server, sid, x = abandoned({"abandon": "stop", "keepalive": 1},
                                   model, frames)
        with server:
            UP.wait_gone(x)
            e2e.wait_until(lambda: snapshot(server, sid)["state"] == "stopped",
                           20, "the stop")
            lines = server.usage_lines("settle", sid)
            e2e.check_equal([(line["partial"], line["estimated"])
                             for line in lines], [(True, True)],
                            "partial, estimated")


@e2e.test
def what_nobody_reads_goes_on_up_to_its_cap(_):
    # "tok " is a token, which costs 2 microdollars.
    for cap in ({"abandon_tokens": 120}, {"abandon_cost": "0.00024"}):
        server, sid, x = abandoned({"abandon": "cap", **cap})
        with server:
            UP.wait_gone(x)
            e2e.wait_until(lambda: snapshot(server, sid)["state"] == "stopped",
                           20, "the stop")
            got = snapshot(server, sid)["usage"]["output"]
            sold = sum(size > 20 for _, size in x.writes)
            e2e.check(120 <= got <= sold, "%d tokens of %d" % (got, sold))


@e2e.test
def what_nobody_reads_goes_on_where_the_settings_say_so(_):
    server, sid, x = abandoned({"abandon": "continue"})
    with server:
        left = time.monotonic()
        e2e.wait_until(lambda: x.gone_at or
                       x.writes[-1][0] - left > 2, 60, "an answer of 2 s")
        e2e.check_equal(x.gone_at, None, "the end of the connection")
        e2e.check_equal(snapshot(server, sid)["state"], "live", "state")
        server.post("/api/v1/streams/%s/stop" % sid).read()
        UP.wait_gone(x)


@e2e.test
def who_comes_back_keeps_an_answer(_):
    server, sid, x = abandoned({"abandon": "stop", "abandon_after": 3})
    with server:
        reader = server.resume(1, stream_id=sid)
        back = time.monotonic()
        e2e.wait_until(lambda: x.gone_at or
                       x.writes[-1][0] - back > 4, 60, "an answer of 4 s")
        e2e.check_equal(x.gone_at, None, "the end of the connection")
        reader.close()
        UP.wait_gone(x)


# ---- retries ----

def gaps(message):
    at = [x.at for x in UP.exchanges(message=message)]
    return [b - a for a, b in zip(at, at[1:])]


@e2e.test
def a_failed_attempt_is_repeated_after_a_growing_pause(server):
    message = unique()
    e2e.check_equal(end_of(server, "third_time", message)["finish_reason"],
                    "stop", "finish_reason")
    first, second = gaps(message)
    e2e.check(first >= 0.375 and second >= 0.75,
              "pauses of %.3f and %.3f s" % (first, second))


@e2e.test
def attempts_are_as_many_as_the_entry_says(server):
    message = unique()
    stream = ask(server, "twice", message).read_all()
    check_error(stream, "overloaded", "twice")
    e2e.check_equal(len(UP.exchanges(message=message)), 2, "requests")


@e2e.test
def the_wait_that_is_asked_for_is_kept(server):
    message = "1100"
    end_of(server, "says_when", message)
    e2e.check(gaps(message)[0] >= 1.1, "waited %.3f s" % gaps(message)[0])
    # A minute is too long: somebody else is asked.
    message = "60001"
    e2e.check_equal(end_of(server, "says_when or other", message)["model"],
                    "other", "model")
    e2e.check_equal([x.name for x in UP.exchanges(message=message)],
                    ["says_when", "good"], "requests")


@e2e.test
def what_comes_before_the_content_is_forgotten_by_a_retry(server):
    message = unique()
    stream = ask(server, "starts_then_fails", message).read_all()
    e2e.check_equal(stream.text(), "hello world", "text")
    e2e.check_equal(stream.frames[-1].data["usage"], None, "usage")
    e2e.check_equal(len(UP.exchanges(message=message)), 2, "requests")


@e2e.test
def nothing_is_asked_again_once_something_was_said(server):
    for part in PARTS:
        message = unique(part)
        stream = ask(server, "part_then_fails", message).read_all()
        check_error(stream, "upstream_5xx", part)
        e2e.check_equal(len(stream.frames), 2, "frames of " + part)
        e2e.check_equal([x.name for x in UP.exchanges(message=message)],
                        ["part_then_fails"], "requests of " + part)


@e2e.test
def the_fallbacks_are_asked_in_their_order(server):
    message = unique()
    data = end_of(server, "chain", message)
    e2e.check_equal([x.name for x in UP.exchanges(message=message)],
                    ["overloaded", "overloaded", "server_error", "good"],
                    "requests")
    e2e.check_equal((data["model"], data["total_cost"]), ("other", 1e-11),
                    "model and cost")


@e2e.test
def each_attempt_has_its_log_line(server):
    stream = ask(server, "chain").read_all()
    mine = [line for line in server.log()
            if "stream=%s " % stream.stream_id in line]
    e2e.check_equal(len([line for line in mine if " asked model=" in line]), 4,
                    "lines of requests")
    failed = [line for line in mine if "attempt failed" in line]
    e2e.check_equal([line.split("next=")[1].split()[0] for line in failed],
                    ["retry", "fallback", "fallback"], "next")


# ---- secrets and pages ----

def everything(server):
    """All that respool wrote."""
    data = "\n".join(server.log()).encode() + server.lighttpd_log().encode()
    for folder, _, names in os.walk(server.spool):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    data += f.read()
    return data


@e2e.test
def a_key_is_shown_to_its_upstream_only(_):
    with e2e.Server(models=MODELS,
                    environment={"SECRET_KEY": KEY}) as server:
        got = b""
        for words in ("status", "stream"):
            message = unique(words)
            stream = ask(server, "keyed", message).read_all()
            e2e.check_equal(stream.frames[-1].event, "error", words)
            got += stream.bytes() + stream.response.raw_head
            got += repr(snapshot(server, stream.stream_id)).encode()
            x = UP.exchanges(message=message)[0]
            e2e.check_equal(x.headers["authorization"], "Bearer " + KEY,
                            "authorization")
            e2e.check(KEY not in x.target, "the key is in the URL")
        for path in ("models", "streams"):
            got += server.get("/api/v1/" + path).read()
        got += server.get("/metrics").read() + server.get("/ready").read()
        result = server.ctl("models")
        got += (result.stdout + result.stderr).encode()
        for pid in server.pids():
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                got += f.read()
        got += everything(server)
        at = got.find(KEY[:20].encode())
        e2e.check(at < 0, "the key was told: ...%r..." %
                  got[max(at - 200, 0):at + 100])


@e2e.test
def a_page_is_not_passed_on(server):
    stream = ask(server, "html").read_all()
    check_error(stream, "upstream_5xx", "html")
    e2e.check(b"<" not in stream.bytes() and b"secret" not in stream.bytes(),
              "the page was passed on: %r" % stream.bytes())
    mine = [line for line in server.log()
            if "stream=%s attempt failed" % stream.stream_id in line]
    e2e.check_equal(len(mine), 1, "log lines")
    e2e.check("request_id=" in mine[0] and "req_html_7" in mine[0] and
              "<" not in mine[0], mine[0])


@e2e.test
def a_redirect_is_not_followed(server):
    message = unique()
    stream = ask(server, "redirects", message).read_all()
    check_error(stream, "redirect_refused", "redirects")
    e2e.check_equal([x.name for x in UP.exchanges(message=message)],
                    ["redirects"], "requests")


# ---- circuits ----

@e2e.test
def five_failures_open_a_circuit(_):
    HEALTHY.clear()
    with e2e.Server(models=MODELS) as server:
        message = unique()
        for _ in range(5):
            check_error(ask(server, "breaks", message).read_all(),
                        "upstream_5xx", "a failure")
        check_error(ask(server, "breaks", message).read_all(), "overloaded",
                    "the sixth")
        e2e.check_equal(len(UP.exchanges(message=message)), 5, "requests")
        # Another model of the same place has its own.
        message = unique()
        e2e.check_equal(end_of(server, "breaks or good", message)["model"],
                        "good", "model")
        e2e.check_equal([x.name for x in UP.exchanges(message=message)],
                        ["fails_as_asked", "good"], "requests")


@e2e.test
def after_thirty_seconds_one_trial_decides(_):
    with direct.Jumping(models=MODELS, settings={"idle_exit": 600}) as server:
        HEALTHY.clear()

        def asked(count):
            """So many at once; how many requests that makes."""
            message = unique()
            ends = collections.Counter()

            def one(_):
                data = end_of(server, "breaks", message)
                ends[data.get("error_type")] += 1

            e2e.in_threads(count, one)
            return len(UP.exchanges(message=message)), ends

        for _ in range(5):
            end_of(server, "breaks")
        server.pass_time(10)
        e2e.check_equal(asked(3), (0, {"overloaded": 3}), "while it is open")
        server.pass_time(21)
        requests, ends = asked(4)
        e2e.check_equal((requests, ends["upstream_5xx"], ends["overloaded"]),
                        (1, 1, 3), "the trial")
        e2e.check_equal(asked(3)[0], 0, "after a trial that failed")
        HEALTHY.set()
        server.pass_time(31)
        e2e.check_equal(asked(1), (1, {None: 1}), "a trial that is answered")
        e2e.check_equal(asked(3), (3, {None: 3}), "afterwards")


# ---- TLS ----

@e2e.test
def only_a_certificate_of_a_known_authority_is_believed(_):
    if shutil.which("openssl") is None:
        print("no openssl: TLS not tested")
        return
    with tempfile.TemporaryDirectory(prefix="respool-e2e.") as folder:
        os.chmod(folder, 0o755)
        authority = upstream.make_authority(folder)
        os.chmod(authority[0], 0o644)
        ours = upstream.Upstream(UP.scripts, upstream.make_certificate(
            folder, authority, "IP:127.0.0.1"))
        others = upstream.Upstream(UP.scripts, upstream.make_certificate(
            folder, authority, "DNS:other.test"))
        fields = {"api_key_env": "SECRET_KEY"}
        models = {"default": "ours", "models": {
            "ours": ours.model("good", **fields),
            "others": others.model("good", retries=2, **fields),
            "ours or others": others.model("good", fallback=["ours"])}}
        environment = {"SECRET_KEY": KEY}
        with e2e.Server(models=models, environment=environment) as server:
            for model in ("ours", "others"):
                stream = ask(server, model).read_all()
                check_error(stream, "tls", model)
            log = [line for line in server.log()
                   if "attempt failed" in line and "reason=tls" in line]
            e2e.check_equal(len(log), 2, "attempts in the log")
            e2e.check(all("certificate" in line for line in log), repr(log))
        e2e.check_equal(ours.exchanges() + others.exchanges(), [],
                        "requests to who could not be known")
        with e2e.Server(models=models, environment=environment,
                        settings={"ca_file": authority[0]}) as server:
            stream = ask(server, "ours").read_all()
            e2e.check_equal((stream.frames[-1].event, stream.text()),
                            ("done", "hello world"), "ours")
            check_error(ask(server, "others").read_all(), "tls", "others")
            e2e.check_equal(end_of(server, "ours or others")["model"], "ours",
                            "the fallback")
        e2e.check_equal(others.exchanges(), [], "requests to others")


# ---- what is sent, and what comes back ----

@e2e.test
def turns_are_sent_in_their_order(server):
    messages = [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello. ä🌍\n\"quoted\""},
                {"role": "user", "content": unique()}]
    stream = server.start_stream(messages=messages, model="good").read_all()
    e2e.check_equal(stream.text(), "hello world", "text")
    x, = UP.exchanges(message=messages[-1]["content"])
    e2e.check_equal(x.json["messages"], messages, "messages")
    e2e.check_equal((x.json["stream"], x.json["model"], x.target),
                    (True, "good", "/good/chat/completions"), "request")
    e2e.check("accept-encoding" not in x.headers, "compression was asked for")


@e2e.test
def reasoning_and_tool_calls_are_events_of_their_own(server):
    stream = ask(server, "reasons_and_calls").read_all()
    events = [f.event for f in stream.frames]
    e2e.check_equal(events[:4], ["reasoning_chunk"] * 2 + [
        "message_chunk", "tool_call_chunk"], "events")
    e2e.check_equal(stream.frames[-1].data["finish_reason"], "tool_calls",
                    "finish_reason")
    calls = {}
    for f in stream.frames:
        if f.event == "tool_call_chunk":
            call = calls.setdefault(f.data["index"], {"arguments": ""})
            call.update({k: f.data[k] for k in ("id", "name") if k in f.data})
            call["arguments"] += f.data.get("arguments", "")
    want = [{"index": n, "id": "call_%d" % n, "name": "find",
             "arguments": '{"n": %d}' % n} for n in range(2)]
    e2e.check_equal([{"index": n, **call} for n, call in calls.items()], want,
                    "tool calls")
    got = snapshot(server, stream.stream_id)
    e2e.check_equal((got["reasoning"], got["text"]),
                    ("Let me see.", "I will call. "), "texts")
    e2e.check_equal(got["tool_calls"], want, "tool calls of the snapshot")
    e2e.check_equal(got["last_event_id"], stream.frames[-1].id, "last id")


if __name__ == "__main__":
    e2e.main(models=MODELS)
