#!/usr/bin/env -S python3 -B
"""evidence.py DIR - the acceptance of both interfaces through lighttpd, with
what a reviewer wants to see of it, in DIR:
	REPORT.md	what was checked; gaps between chunks; broken connections
	frames.txt	an example of every event
	errors.txt	an example of every error
	raw.http	a request and its answer, byte for byte as on the wire
	timeline.csv	each frame of the timed runs and when it arrived
Exits with 1 when a check fails, or a connection broke that nobody broke."""

import json
import os
import platform
import re
import signal
import sys
import threading
import time
from urllib.parse import urlencode

import e2e
import upstream

RUNS = 5
CHUNKS, INTERVAL_MS = 100, 50
HANDOVER = 30  # seconds for a reader to see what must come
STREAM, TURN = "/api/v1/stream", "/convo_turn_stream"
INTERFACES = (STREAM, TURN)
CHUNK = {STREAM: "message_chunk", TURN: "message"}
EVENTS = {
    STREAM: ["message_chunk", "reasoning_chunk", "refusal_chunk",
             "tool_call_chunk", "heartbeat", "done", "error"],
    TURN: ["metadata", "typing", "message", "reasoning_chunk",
           "refusal_chunk", "tool_call_chunk", "heartbeat", "complete",
           "error"],
    "/convo_history": ["history", "complete"],
}
HTTP_ERROR = b'{"error":{"message":"m","type":"t","code":"%s"}}'
# What a model's server answers to provoke an error_type: status, body.
REFUSALS = {
    "auth": (401, HTTP_ERROR % b"invalid_api_key"),
    "quota": (429, HTTP_ERROR % b"insufficient_quota"),
    "rate_limit": (429, HTTP_ERROR % b"rate_limit_exceeded"),
    "upstream_5xx": (500, b"oops"),
    "context_length": (400, HTTP_ERROR % b"context_length_exceeded"),
    "bad_request": (400, HTTP_ERROR % b"invalid_value"),
    "redirect_refused": (302, b""),
}


# ---- the models ----

heartbeat_seen = threading.Event()


def delta(**fields):
    return upstream.event({"choices": [{"index": 0, "delta": fields}]})


def everything(x):
    """A piece of each kind, and silence until a heartbeat was seen."""
    x.head()
    x.write(delta(reasoning_content="Lions sleep a lot."))
    x.write(upstream.text("Roar! "))
    heartbeat_seen.wait(HANDOVER)
    heartbeat_seen.clear()
    x.write(delta(refusal="I will not say where."))
    x.write(delta(tool_calls=[{
        "index": 0, "id": "call_1", "type": "function",
        "function": {"name": "feed", "arguments": '{"meat":true}'}}]))
    x.write(upstream.text("Bye."), upstream.END)
    x.end()


def refusing(status, body):
    return lambda x: x.refuse(status, body, [("Location", "/elsewhere")])


def cut_off(x):
    x.head()
    x.write(upstream.text("Half an ans"))
    x.close()


def bad_json(x):
    x.head()
    x.write(upstream.text("Half an ans"), b"data: {nonsense\n\n")
    x.end()


def silent(x):
    x.hold()


def begins(x):
    x.head()
    x.write(upstream.text("Half an ans"))
    x.hold()


UP = upstream.Upstream({
    "everything": everything, "upstream_truncated": cut_off,
    "upstream_bad_json": bad_json, "headers_timeout": silent,
    "idle_timeout": begins, "total_timeout": begins,
    **{name: refusing(*row) for name, row in REFUSALS.items()},
})
# Provoked at the model's server, or by what respool meets.
REAL = {name: UP.model(name) for name in [
    "upstream_truncated", "upstream_bad_json", *REFUSALS]}
REAL |= {
    "headers_timeout": UP.model("headers_timeout", timeouts={"headers": 1}),
    "idle_timeout": UP.model("idle_timeout", timeouts={"idle": 1}),
    "total_timeout": UP.model("total_timeout", timeouts={"total": 1}),
    "connect_failed": {"provider": "openai", "retries": 0,
                       "base_url": "http://127.0.0.1:1"},
    "exec_failed": {"provider": "exec", "command": ["false"]},
    "too_long": {"provider": "demo", "chunks": 1000000},
}
PRICES = {"input": 150000, "cache_read": 75000, "cache_write": 150000,
          "output": 600000}


def error_types():
    with open(os.path.join(e2e.SOURCE, "src", "errtype_table.h"),
              encoding="utf-8") as f:
        return [(name, int(status)) for name, status in re.findall(
            r"^ERRTYPE\((\w+), +(\d+),", f.read(), re.M)]


def models():
    own = {
        "paced": {"provider": "demo", "chunks": CHUNKS,
                  "interval_ms": INTERVAL_MS, "prices": PRICES},
        "short": {"provider": "demo", "chunks": 25, "interval_ms": 40,
                  "prices": PRICES},
        "failing": {"provider": "demo", "chunks": 25, "interval_ms": 40,
                    "fail_after": 12, "error_type": "overloaded",
                    "prices": PRICES},
        "endless": {"provider": "demo", "chunks": 1000000, "interval_ms": 40},
        "everything": UP.model("everything", prices=PRICES),
    }
    for name, status in error_types():
        if status == 0 or name == "model_not_found":
            own[name] = REAL.get(name) or {
                "provider": "demo", "chunks": 3, "fail_after": 1,
                "error_type": name}
    return {"default": "paced", "models": own}


class Server(e2e.Server):
    """With a persona for each model, of its name."""

    def _environment(self, settings, environment):
        personas = os.path.join(self.run, "personas")
        os.mkdir(personas)
        for name in models()["models"]:
            path = os.path.join(personas, name + ".json")
            with open(path, "w", encoding="utf-8") as f:
                json.dump({"id": name, "name": "Leo", "model": name,
                           "system": "You are a lion."}, f)
            os.chmod(path, 0o644)
        return super()._environment(
            {"personas_dir": personas, "default_persona": "paced",
             "heartbeat": 1, **settings}, environment)


# ---- connections, of which each is accounted for ----

class Tapped(e2e.Response):
    """Keeps the bytes as they came."""

    def __init__(self, *arguments, **options):
        self.wire = b""
        super().__init__(*arguments, **options)

    def _more(self):
        had = len(self.buffer)
        more = super()._more()
        self.wire += self.buffer[had:]
        return more


broken = []     # (interface, stream, last id, how, why)
kills = []      # (interface, stream, who, what the reader saw)
unexplained = 0
whole = 0       # connections that ended with a terminal frame


def ask(server, path, method, fields, headers=()):
    body = b""
    if method == "POST":
        headers = [("Content-Type", "application/json"), *headers]
        body = json.dumps(fields).encode()
    else:
        path += "?" + urlencode(fields)
    return Tapped(server.port, method, path, headers, body).read_head()


def fields_of(path, stream_id, model):
    name = {STREAM: "model", TURN: "animalId"}[path]
    return {"stream_id": stream_id, "message": "Hello!", name: model}


def begin(server, path, stream_id, model):
    return e2e.Stream(ask(server, path, "POST",
                          fields_of(path, stream_id, model)), 0)


def resume(server, path, stream_id, after, by_header=True):
    fields, headers = {"stream_id": stream_id}, []
    if by_header:
        headers = [("Last-Event-ID", str(after))]
    else:
        fields["last_event_id"] = after
    return e2e.Stream(ask(server, path, "GET", fields, headers), after + 1)


def account(path, stream_id, stream, why=None):
    """Says of a connection how it ended; why: we broke it on purpose."""
    global unexplained, whole
    stream.close()
    if stream.ended and stream.closed and stream.response.whole:
        whole += 1
        return
    if not stream.closed:
        how = "closed by the reader"
    elif stream.response.whole:
        how = "ended by the server before the last frame"
    else:
        how = "broken off by the server"
    last = stream.frames[-1].id if stream.frames else -1
    unexplained += why is None
    broken.append((path, stream_id, last, how, why or "**unexplained**"))


def read_to_the_end(path, stream_id, stream, why=None):
    try:
        stream.read_all(cut_ok=why is not None)
    finally:
        account(path, stream_id, stream, why)
    return stream.frames


def wire(frames):
    return b"".join(f.raw for f in frames)


# ---- the acceptance ----

checks = []  # (interface, what, None or what went wrong)


def check(path, what, function, *arguments):
    try:
        function(*arguments)
        why = None
    except Exception as e:  # the others are still run, and the report written
        why = "%s: %s" % (type(e).__name__, e)
    checks.append((path, what, why))
    print("%s %s: %s" % ("ok    " if why is None else "FAILED", path, what) +
          ("" if why is None else "\n" + why[:2000]))


timed = []  # (interface, run, [(id, event, ms)])
typing = []  # ms between typing's duration and its frames' arrivals, per run
raw = {}    # interface -> the bytes of its first timed run


def time_runs(server, path):
    for run in range(1, RUNS + 1):
        stream_id = "timed-%d" % run
        stream = begin(server, path, stream_id, "paced")
        sent = stream.response.sent_at
        frames = read_to_the_end(path, stream_id, stream)
        timed.append((path, run, [(f.id, f.event, (f.at - sent) * 1000)
                                  for f in frames]))
        if run == 1:
            raw[path] = stream.response.raw_request + stream.response.wire
        text = [f.data["content"] for f in frames if f.event == CHUNK[path]]
        e2e.check_equal(text, ["tok%d " % n for n in range(CHUNKS)], "text")
        e2e.check_equal(wire(frames), server.stream_bytes(stream_id), "file")
        snapshot = server.get("/api/v1/streams/" + stream_id).json()
        e2e.check_equal(snapshot["text"], "".join(text), "snapshot")
        if path == TURN:
            check_history(server, frames[0].data["sessionId"], "".join(text))
            start, stop = [f for f in frames if f.event == "typing"]
            typing.append(abs((stop.at - start.at) * 1000 -
                              stop.data["duration_ms"]))
    # A busy machine may delay one of them.
    e2e.check(path == STREAM or sorted(typing)[RUNS // 2] <= 50,
              "duration_ms is not the time between the frames: %s" % typing)


def check_history(server, session, text):
    told = server.get("/convo_history", {"sessionId": session},
                      [("Accept", "application/json")]).json()
    e2e.check_equal([t["assistant"]["content"] for t in told["turns"]],
                    [text], "history")


def leave_at_every_frame(server, path, model):
    """One frame a connection, by header and parameter in turn."""
    stream_id = "leave-" + model
    stream, frames, number = begin(server, path, stream_id, model), [], 0
    while True:
        stream.read_until(lambda got: got)
        frames.append(stream.frames[0])
        if frames[-1].event in ("done", "complete", "error"):
            read_to_the_end(path, stream_id, stream)
            break
        del stream.frames[1:]  # not seen, had it really been cut here
        account(path, stream_id, stream, "the reader left after each frame")
        number += 1
        stream = resume(server, path, stream_id, frames[-1].id, number % 2)
    e2e.check_equal(wire(frames), server.stream_bytes(stream_id), "frames")


def kill_a_responder(server, path):
    stream_id = "kill-responder"
    stream = begin(server, path, stream_id, "short").read_frames(8)
    server.kill_all("respool.fcgi")
    why = "kill -9 of the responders"
    kills.append((path, stream_id, "all responders",
                  "a broken connection, then the rest"))
    frames = read_to_the_end(path, stream_id, stream, why)
    rest = resume_when_up(server, path, stream_id, frames[-1].id)
    frames += read_to_the_end(path, stream_id, rest)
    e2e.check_equal(wire(frames), server.stream_bytes(stream_id), "frames")


def resume_when_up(server, path, stream_id, after):
    """lighttpd may need a moment to start others; it says 503 meanwhile."""
    def attempt():
        try:
            return resume(server, path, stream_id, after)
        except (OSError, e2e.Malformed):
            return None
    return e2e.wait_until(attempt, HANDOVER, "an answer")


def kill_the_spooler(server, path):
    stream_id = "kill-spooler"
    stream = begin(server, path, stream_id, "endless").read_frames(8)
    server.kill_all("respool-spooler")
    frames = read_to_the_end(path, stream_id, stream)
    e2e.check_equal(frames[-1].event, "error", "last event")
    e2e.check_equal(frames[-1].data["error_type"], "generation_lost", "type")
    kills.append((path, stream_id, "the spooler",
                  "the last frame: error, generation_lost"))
    add_error("generation_lost", path, "kill -9 of the spooler",
              last_frames(path, frames))


def last_frames(path, frames):
    """Of an answer that failed, typing's stop among them."""
    if path == STREAM:
        return frames[-1].raw
    e2e.check_equal([f.data["status"] for f in frames if f.event == "typing"],
                    ["start", "stop"], "typing")
    e2e.check_equal(frames[-2].event, "typing", "last but one")
    return wire(frames[-2:])


def read_by_three(server, path):
    stream_id = "three"
    streams = [begin(server, path, stream_id, "short") for _ in range(3)]
    got = [wire(read_to_the_end(path, stream_id, s)) for s in streams]
    e2e.check_equal(got, [server.stream_bytes(stream_id)] * 3, "frames")


# ---- examples ----

examples = {}  # (interface, event) -> frame
errors = {}    # error_type -> [(how, interface, bytes)]


def add_examples(path, frames):
    for f in frames:
        examples.setdefault((path, f.event, f.data.get("status")), f.raw)


def collect_events(server, path):
    stream = begin(server, path, "everything", "everything")
    try:
        stream.read_until(lambda got: got and got[-1].event == "heartbeat")
    finally:
        heartbeat_seen.set()
    add_examples(path, read_to_the_end(path, "everything", stream))
    frames = server.stream_frames("leave-failing")
    add_examples(path, frames)
    if path == TURN:
        session = frames[0].data["sessionId"]
        stream = e2e.Stream(server.get("/convo_history",
                                       {"sessionId": session}))
        add_examples("/convo_history", stream.read_all().frames)
    for history in ["/convo_history"] if path == TURN else []:
        check_has_events(history)
    check_has_events(path)


def check_has_events(path):
    have = {event for at, event, _ in examples if at == path}
    e2e.check_equal(sorted(have), sorted(EVENTS[path]), "events")


def add_error(name, path, how, data):
    errors.setdefault(name, []).append((how, path, data))


def fail_in_frames(server, path):
    for name, model in models()["models"].items():
        if name not in dict(error_types()) or name == "generation_lost":
            continue
        frames = read_to_the_end(path, name, begin(server, path, name, name))
        e2e.check_equal(frames[-1].data.get("error_type"), name, "error_type")
        how = {"openai": "a model's server that behaves so",
               "exec": "a command that fails"}.get(model["provider"]) or (
                   "an answer without end" if name == "too_long" else
                   "the demo provider, told to fail so")
        add_error(name, path, how, last_frames(path, frames))


def refuse(server, name, method, target, headers=(), body=b"", what=""):
    r = Tapped(server.port, method, target, headers, body).read_head()
    status, said = r.status, r.json()
    e2e.check_equal((said["error_type"], status),
                    (name, dict(error_types())[name]), target)
    add_error(name, target.split("?")[0], what,
              r.raw_request.strip() + b"\n\n" + r.wire + b"\n\n")


def refuse_requests(server, path):
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    for row in (
            ("invalid_request", "POST", path, form, b"", "no message"),
            ("stream_id_required", "GET", path + "?last_event_id=3", (), b"",
             "a cursor alone"),
            ("stream_not_found", "GET", path + "?stream_id=no&last_event_id=3",
             (), b"", "an unknown stream"),
            ("conflict", "GET", path + "?stream_id=three&message=other", (),
             b"", "the same id for another message"),
            ("unsupported_media_type", "POST", path,
             [("Content-Type", "text/plain")], b"x", "a body of text/plain"),
            ("method_not_allowed", "PUT", path, form, b"x=1", "PUT")):
        refuse(server, *row)
    if path == STREAM:
        refuse(server, "model_not_found", "GET", path + "?message=x&model=no",
               what="an unknown model")
        refuse(server, "not_found", "GET", "/api/v1/nowhere",
               what="an unknown path")
    else:
        refuse(server, "not_found", "GET", path + "?message=x&animalId=no",
               what="an unknown persona")


def refuse_starts():
    """What depends on settings."""
    with Server(models=models(), settings={
            "cors_origins": "https://a.example", "max_streams": 1,
            "max_body_bytes": 1024}) as server:
        for path in INTERFACES:
            refuse(server, "origin_refused", "GET", path + "?message=x",
                   [("Origin", "https://evil.example")],
                   what="a page of another origin, cors_origins is a list")
            refuse(server, "body_too_large", "POST", path,
                   [("Content-Type", "application/json")],
                   json.dumps({"message": "x" * 2000}).encode(),
                   "max_body_bytes = 1024")
            stream = begin(server, path, "long", "endless").read_frames(3)
            refuse(server, "too_many_streams", "GET", path + "?message=x",
                   what="max_streams = 1, and one is there")
            account(path, "long", stream, "the reader has seen enough")
            server.post("/api/v1/streams/long/stop").json()
            server.get("/api/v1/streams/long").json()
            e2e.wait_until(lambda s=server: s.request(
                "DELETE", "/api/v1/streams/long").read_head().status == 204,
                HANDOVER, "the end of the stream")
            os.unlink(server.stream_path("long"))
    with Server(models=models(), settings={
            "spooler_program": "/bin/false"}) as server:
        for path in INTERFACES:
            refuse(server, "spool_unavailable", "GET", path + "?message=x",
                   what="the spooler cannot be started")


# ---- what is written ----

def percentile(values, p):
    """The nearest rank."""
    values = sorted(values)
    return values[max(0, -(-len(values) * p // 100) - 1)]


def gaps_of(path, rows):
    at = [ms for _, event, ms in rows if event == CHUNK[path]]
    return [b - a for a, b in zip(at, at[1:])]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| %s |" % " | ".join(map(str, line)) for line in lines)


def gaps_report(path):
    rows, columns = [], []
    for at, run, frames in timed:
        if at == path:
            gaps = gaps_of(path, frames)
            values = [percentile(gaps, p) for p in (50, 95, 99)] + [max(gaps)]
            columns.append(values)
            rows.append([run, len(gaps)] + ["%.2f" % v for v in values])
    spread = ["%.2f … %.2f" % (min(c), max(c)) for c in zip(*columns)]
    rows.append(["spread", ""] + spread)
    together = [gap for at, _, frames in timed if at == path
                for gap in gaps_of(path, frames)]
    rows.append(["all", len(together)] + [
        "%.2f" % percentile(together, p) for p in (50, 95, 99, 100)])
    return table(["run", "gaps", "p50", "p95", "p99", "longest"], rows)


def report(took):
    failed = [row for row in checks if row[2] is not None]
    return """# Evidence

Version %s, %s, on %s, %d processors, load %s; %d s.
lighttpd in front, %d responders, demo provider; one reader on the same machine.

## Checks: %d of %d passed

%s

## Gaps between chunks, ms

%d chunks at %d ms each, %d runs one after the other; time between the arrivals
of two chunks at the client.  "spread" is the least and the greatest of the
runs, "all" is over the gaps of all runs.

### %s

%s

### %s

%s

typing's duration_ms and the time between its two frames at the client differ
by %s ms.

## Killed on purpose, with kill -9

%s

## Connections

%d ended with the last frame of their stream.  %d did not, %d of them for no
known reason:

%s

## Files

- frames.txt: an example of every event
- errors.txt: an example of every error, and how it was provoked
- raw.http: the first timed run of each interface, as on the wire
- timeline.csv: each frame of the timed runs, and when it arrived after its
  request was sent
""" % (
        version(), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        platform.platform(), os.cpu_count(),
        "%.2f" % os.getloadavg()[0], took, 2,
        len(checks) - len(failed), len(checks),
        table(["interface", "what", "result"],
              [[at, what, "passed" if why is None else "**failed**: " +
                re.sub(r"[|\n]", " ", why)[:300]]
               for at, what, why in checks]),
        CHUNKS, INTERVAL_MS, RUNS,
        STREAM, gaps_report(STREAM), TURN, gaps_report(TURN),
        ", ".join("%.1f" % ms for ms in typing),
        table(["interface", "stream", "who", "what the reader saw"], kills),
        whole, len(broken), unexplained,
        table(["interface", "stream", "connections", "last id seen",
               "how they ended", "cause"], broken_rows()))


def broken_rows():
    """One row for those that only the last id tells apart."""
    alike = {}
    for path, stream_id, last, how, why in broken:
        alike.setdefault((path, stream_id, how, why), []).append(last)
    return [[path, stream_id, len(ids), " ".join(map(str, ids)), how, why]
            for (path, stream_id, how, why), ids in alike.items()]


def version():
    with open(os.path.join(e2e.SOURCE, "configure.ac"),
              encoding="utf-8") as f:
        return re.search(r"AC_INIT\(\[respool\], \[(.*?)\]", f.read())[1]


def errors_text():
    parts = []
    missing = [name for name, _ in error_types() if name not in errors]
    for name, _ in error_types():
        for how, path, data in errors.get(name, []):
            parts.append(b"---- %s, at %s: %s\n\n%s" % (
                name.encode(), path.encode(), how.encode(),
                data.replace(b"\r\n", b"\n")))
    parts.append(b"---- not provoked: %s\n" % ", ".join(missing).encode())
    return b"".join(parts)


def frames_text():
    return b"".join(
        b"---- %s: %s\n\n%s" % (path.encode(), event.encode(), data)
        for (path, event, _), data in examples.items())


def timeline():
    lines = ["id,arrival_ms,event,interface,run"]
    for path, run, frames in timed:
        lines += ["%d,%.3f,%s,%s,%d" % (number, ms, event, path, run)
                  for number, event, ms in frames]
    return "\n".join(lines) + "\n"


def write(directory, name, data):
    if isinstance(data, str):
        data = data.encode()
    with open(os.path.join(directory, name), "wb") as f:
        f.write(data)


def accept(path):
    with Server(models=models(), settings={"max_stream_bytes": 65536}) \
            as server:
        for what, function, *more in (
                ("%d runs: chunks in order, text as in file, snapshot%s" % (
                    RUNS, " and history" if path == TURN else ""), time_runs),
                ("leaving at every frame and resuming", leave_at_every_frame,
                 "short"),
                ("the same with an answer that fails", leave_at_every_frame,
                 "failing"),
                ("three readers see the same", read_by_three),
                ("resuming when the responders were killed",
                 kill_a_responder),
                ("every event is seen", collect_events),
                ("every error_type ends a stream in order", fail_in_frames),
                ("requests are refused in order", refuse_requests),
                ("a killed spooler is told of", kill_the_spooler)):
            check(path, what, function, server, path, *more)


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: evidence.py DIR")
    directory = sys.argv[1]
    os.makedirs(directory, exist_ok=True)
    e2e.set_up(("lighttpd",))
    began = time.monotonic()
    for path in INTERFACES:
        check(path, "the programs end without a complaint", accept, path)
    check("both", "what settings refuse", refuse_starts)
    write(directory, "frames.txt", frames_text())
    write(directory, "errors.txt", errors_text())
    write(directory, "raw.http", b"".join(raw.values()))
    write(directory, "timeline.csv", timeline())
    write(directory, "REPORT.md", report(time.monotonic() - began))
    print("written to " + directory)
    failed = [row for row in checks if row[2] is not None]
    sys.exit(1 if failed or unexplained else 0)


if __name__ == "__main__":
    main()
