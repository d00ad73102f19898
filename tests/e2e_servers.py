#!/usr/bin/env -S python3 -B
"""One list of promises, kept behind each web server that a configuration is
shipped for, at the root, in a sub-directory and as a program in a cgi-bin.

E2E_SERVERS="nginx apache-cgi": behind these only."""

import os
import re
import threading
import time

import e2e
import servers

TEXT = "".join("tok%d " % n for n in range(10))
MODELS = {
    "default": "ten",
    "models": {
        "ten": {"provider": "demo", "chunks": 10, "interval_ms": 60},
        "forty": {"provider": "demo", "chunks": 40, "interval_ms": 50},
        "echo": {"provider": "demo"},
        "fails": {"provider": "demo", "chunks": 9, "fail_after": 2,
                  "error_type": "overloaded"},
        "one": {"provider": "demo", "chunks": 9, "hang_after": 1},
        "three": {"provider": "demo", "chunks": 9, "hang_after": 3},
        "silent": {"provider": "demo", "chunks": 2, "interval_ms": 3000},
    },
}
# No frames but the model's; comments every second.
SETTINGS = {"heartbeat": 300, "keepalive": 1}
JSON = ("Content-Type", "application/json")
MOUNTS = (servers.ROOT, servers.CHAT, servers.CGI_BIN)


def chosen():
    words = os.environ.get("E2E_SERVERS", "").split()
    return [cls for cls in servers.ALL if not words or cls.name in words]


# ---- all servers at once ----

class Behind:
    """Servers of all kinds, for one mount at a time."""

    needs = ()

    def __init__(self):
        self.mount = None
        self.servers = []
        self.failed = []
        self.reports = ""
        self.mutex = threading.Lock()
        self.kinds = []
        for cls in chosen():
            missing = cls.missing()
            if missing:
                print("skip  %s: there is no %s"
                      % (cls.name, " ".join(missing)))
            else:
                self.kinds.append(cls)

    def at(self, mount):
        if self.mount is not mount:
            self._leave()
            self.mount = mount
            e2e.in_threads(len(self.kinds), lambda n: self._add(
                self.kinds[n](mount=mount, models=MODELS, settings=SETTINGS)))
        return self.servers

    def _add(self, server):
        with self.mutex:
            self.servers.append(server)

    def _leave(self):
        leaving, self.servers = self.servers, []

        def stop(number):
            report = leaving[number].stop()
            with self.mutex:
                self.reports += report

        e2e.in_threads(len(leaving), stop)

    def run(self, function, mount):
        """function(server) behind all of them."""
        there = self.at(mount)
        self.failed = []

        def work(number):
            try:
                function(there[number])
            except Exception as e:
                self.failed.append(there[number])
                raise AssertionError("behind %s: %s: %s" % (
                    there[number].name, type(e).__name__, e)) from e

        e2e.in_threads(len(there), work)

    def show_logs(self):
        for server in self.failed:
            print("---- %s" % server.name)
            server.show_logs()

    def stop(self):
        self._leave()
        return self.reports

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


_promises = []


def promise(function):
    _promises.append(function)
    return function


def add_tests():
    for mount in MOUNTS:
        for function in _promises:
            def run(behind, function=function, mount=mount):
                behind.run(function, mount)
            run.__name__ = "%s %s" % (function.__name__, mount.name)
            e2e.test(run)
    e2e.test(all_headers_reach_the_program)


# ---- streaming ----

def stop(server, stream):
    """Stops a stream whose reader is there; that one gets the end."""
    snapshot = server.post("/api/v1/streams/%s/stop"
                           % stream.stream_id).json()
    e2e.check_equal(snapshot["state"], "stopped", "state")
    stream.read_all()
    last = stream.frames[-1]
    e2e.check_equal((last.event, last.data["finish_reason"]),
                    ("done", "stopped"), "the last frame")
    e2e.check_equal(stream.bytes(), server.stream_bytes(stream.stream_id),
                    "frames")


@promise
def a_frame_arrives_while_the_model_is_still_silent(server):
    for model, count in (("one", 1), ("three", 3)):
        stream = server.start_stream(message="x", model=model)
        # The next one never comes: nothing may wait for it.
        stream.read_frames(count)
        stop(server, stream)


@promise
def frames_come_one_by_one(server):
    stream = server.start_stream(message="x").read_all()
    e2e.check_equal(stream.text(), TEXT, "text")
    took = stream.frames[-1].at - stream.frames[0].at
    e2e.check(took > 0.3, "10 frames, 60 ms apart, came within %.3f s" % took)
    e2e.check_equal(stream.bytes(), server.stream_bytes(stream.stream_id),
                    "frames")


@promise
def a_reader_that_comes_back_gets_the_rest(server):
    first = server.start_stream(message="x").read_frames(3)
    sid = first.stream_id
    first.close()
    for by in ("header", "parameter"):
        rest = server.resume(first.frames[-1].id, by, stream_id=sid)
        got = first.bytes() + rest.read_all().bytes()
        e2e.check_equal(got, server.stream_bytes(sid), "both parts, by " + by)
    last = server.get("/api/v1/stream", {"stream_id": sid},
                      [("Last-Event-ID", "10")])
    e2e.check_equal(last.status, 204, "status after the last frame")
    last.close()


@promise
def a_client_that_left_is_noticed_and_the_answer_goes_on(server):
    stream = server.start_stream(message="x", model="three").read_frames(3)
    sid = stream.stream_id
    stream.close()
    e2e.wait_until(lambda: server.follows(sid, "ended"), 30,
                   "the end of the follow")
    e2e.check_equal(server.get("/api/v1/streams/" + sid).json()["state"],
                    "live", "state")
    again = server.resume(0, stream_id=sid).read_frames(2)
    again.parser.next_id = None
    e2e.check_equal(server.post("/api/v1/streams/%s/stop" % sid).json()[
        "text"], "tok0 tok1 tok2 ", "text")
    again.close()


@promise
def comments_come_through_in_silence(server):
    stream = server.start_stream(message="x", model="silent").read_all()
    first, second = (f.at for f in stream.frames[:2])
    e2e.check(any(line == b": keep-alive" and first < at < second
                  for line, at in stream.parser.comments),
              "no comment in 3 s of silence")
    e2e.check_equal(stream.text(), "tok0 tok1 ", "text")


@promise
def the_death_of_a_responder_costs_a_reconnect(server):
    stream = server.start_stream(message="x", model="forty").read_frames(5)
    reader = servers.Reader(server, stream.stream_id)
    reader.frames = list(stream.frames)
    server.kill_responders()
    try:
        while stream.read_some():
            pass
    except (OSError, e2e.Malformed):
        pass  # mod_fcgid appends a page in HTML
    e2e.check(not stream.ended, "it was too late to kill")
    reader.read_all().check("".join("tok%d " % n for n in range(40)))


# ---- requests ----

@promise
def bodies_come_whole_however_they_are_sent(server):
    words = "".join("word%d " % n for n in range(300))
    body = b'{"model":"echo","message":"%s"}' % words.encode()
    half = len(body) // 2
    # A body in chunks of any size, with and without a pause.
    for pause, parts in ((0, (body[:1], body[1:half], body[half:])),
                         (0.3, (body[:half], body[half:]))):
        response = server.request("POST", "/api/v1/stream", [
            JSON, ("Transfer-Encoding", "chunked")])
        for part in parts:
            response.sock.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(pause)
        response.sock.sendall(b"0\r\n\r\n")
        e2e.check_equal(e2e.Stream(response, 0).read_all().text(), words,
                        "text of a chunked body")
    response = server.request("POST", "/api/v1/stream", [
        JSON, ("Content-Length", str(len(body)))], body[:half])
    time.sleep(0.3)
    response.sock.sendall(body[half:])
    e2e.check_equal(e2e.Stream(response, 0).read_all().text(), words,
                    "text of a slow body")
    form = server.request("POST", "/api/v1/stream", [
        ("Content-Type", "application/x-www-form-urlencoded")],
        b"model=echo&message=a+%26%20b%C3%A4")
    e2e.check_equal(e2e.Stream(form, 0).read_all().text(), "a & b\xe4", "form")


@promise
def eight_kilobytes_of_headers_do_no_harm(server):
    for headers in ([("Cookie", "a=" + 4000 * "x"), ("X-Pad", 4000 * "y")],
                    [("Cookie", "a=" + 8000 * "x")]):
        stream = e2e.Stream(server.get("/api/v1/stream", {
            "model": "echo", "message": "one two"}, headers), 0)
        e2e.check_equal(stream.read_all().text(), "one two", "text")


@promise
def bodies_of_a_megabyte_are_taken_and_larger_ones_refused(server):
    long = "x" * 1000000
    response = server.post("/api/v1/stream", {"message": long,
                                              "model": "three"})
    stream = e2e.Stream(response, 0).read_frames(3)
    stop(server, stream)
    refused = server.post("/api/v1/stream", {"message": 2 * long})
    e2e.check_equal((refused.status, refused.json()["error_type"]),
                    (413, "body_too_large"), "answer to two megabytes")


# method, target, headers, body: status, error_type
FAULTS = (
    ("GET", "/api/nonsense", [], b"", 404, "not_found"),
    ("GET", "/api/v1/streams/none", [], b"", 404, "stream_not_found"),
    ("GET", "/api/v1/stream?last_event_id=3", [], b"", 400,
     "stream_id_required"),
    ("GET", "/api/v1/stream?message=x&model=none", [], b"", 400,
     "model_not_found"),
    ("GET", "/api/v1/stream", [], b"", 400, "invalid_request"),
    ("POST", "/api/v1/stream", [JSON], b"{", 400, "invalid_request"),
    ("POST", "/api/v1/stream", [("Content-Type", "text/plain")], b"x", 415,
     "unsupported_media_type"),
    ("PUT", "/api/v1/stream", [("Content-Length", "0")], b"", 405,
     "method_not_allowed"),
    ("DELETE", "/health", [], b"", 405, "method_not_allowed"),
    ("GET", "/api/v1/stream?stream_id=none", [("Last-Event-ID", "4")], b"",
     404, "stream_not_found"),
)


@promise
def errors_come_as_they_are(server):
    for method, target, headers, body, status, kind in FAULTS:
        response = server.request(method, target, headers, body).read_head()
        got = response.json()
        e2e.check_equal((response.status, got["error_type"]), (status, kind),
                        "%s %s" % (method, target))
        e2e.check(got["error"], "no sentence")
        if status == 405:
            e2e.check(response.header("Allow"), "no Allow")
    stream = server.start_stream(message="x", model="fails").read_all()
    e2e.check_equal(stream.frames[-1].data["error_type"], "overloaded",
                    "error_type of the frame")


@promise
def a_HEAD_is_answered_at_once_and_starts_nothing(server):
    before = server.stream_files()
    live = server.start_stream(message="x", model="one").read_frames(1)
    sid = live.stream_id
    for target in ("/api/v1/stream?message=x",
                   "/api/v1/stream?stream_id=" + sid):
        # The model is silent for good: who streamed would not end.
        response = server.request("HEAD", target).read_head()
        e2e.check_equal((response.status, response.header("Content-Type")),
                        (200, "text/event-stream"), "HEAD " + target)
        e2e.check_equal(response.sock.recv(1), b"", "a body after the head")
        response.close()
    e2e.check_equal(server.stream_files(), sorted(
        before + [server.stream_path(sid)]), "streams")
    stop(server, live)


@promise
def OPTIONS_and_DELETE_work(server):
    response = server.request("OPTIONS", "/api/v1/stream", [
        ("Origin", "https://elsewhere.example"),
        ("Access-Control-Request-Method", "POST")]).read_head()
    e2e.check_equal(response.status, 204, "status of OPTIONS")
    e2e.check_equal(response.header("Access-Control-Allow-Origin"), "*",
                    "Access-Control-Allow-Origin")
    response.close()
    stream = server.start_stream(message="x", model="echo").read_all()
    target = "/api/v1/streams/" + stream.stream_id
    for status in (204, 404):
        response = server.request("DELETE", target).read_head()
        e2e.check_equal(response.status, status, "status of DELETE")
        response.close()


@promise
def a_stream_has_its_headers(server):
    stream = e2e.Stream(server.get("/api/v1/stream", {
        "message": "x", "model": "echo", "stream_id": "named"},
        [("Origin", "https://elsewhere.example")]), 0).read_all()
    head = stream.response
    e2e.check_equal(head.header("X-Stream-ID"), "named", "X-Stream-ID")
    e2e.check_equal(head.header("Cache-Control"),
                    "no-cache, no-store, no-transform", "Cache-Control")
    e2e.check_equal(head.header("Access-Control-Allow-Origin"), "*",
                    "Access-Control-Allow-Origin")
    e2e.check_equal(head.header("Content-Encoding"), None,
                    "Content-Encoding")


@promise
def the_chat_page_and_all_paths_are_there(server):
    page = server.get("/magic")
    text = page.read().decode()
    e2e.check_equal(page.status, 200, "status of /magic")
    e2e.check(page.header("Content-Type").startswith("text/html"),
              "Content-Type of /magic")
    # They are relative to the page, wherever that is.
    links = re.findall(r'(?:src|href)="([^":#]+)"', text)
    e2e.check(links, "no scripts in the page")
    for path in ["/" + link for link in links] + [
            "/magic/respool.js", "/api/v1/models", "/api/v1/streams",
            "/api/personas", "/api/templates", "/version", "/health"]:
        response = server.get(path)
        e2e.check(response.status == 200 and response.read(),
                  "status of %s: %d" % (path, response.status))
    turn = server.request("POST", "/convo_turn_stream", [JSON],
                          b"{}").read_head()
    e2e.check_equal(turn.status, 400, "status of a turn of nothing")
    e2e.check(turn.json()["error_type"] != "not_found", "no such route")
    history = server.get("/convo_history").json()
    e2e.check(history.get("error_type") != "not_found", "no history")


# ---- what reaches the program ----

HEADERS = {
    "Last-Event-ID": "41", "Authorization": "Bearer a.b-c",
    "Origin": "https://elsewhere.example", "Accept": "text/event-stream",
    "Cookie": "a=" + 7000 * "c",
}


def check_variables(server):
    for mount in ("/api/v1/stream", "/convo_turn_stream", "/health"):
        got = server.get(mount + "?a=%2Fb", headers=HEADERS.items()).json()
        for name, value in HEADERS.items():
            e2e.check_equal(got.get("HTTP_" + name.upper().replace("-", "_")),
                            value, "%s for %s" % (name, mount))
        e2e.check_equal(got["QUERY_STRING"], "a=%2Fb", "QUERY_STRING")


def all_headers_reach_the_program(behind):
    program = os.path.join(os.path.dirname(__file__), "fcgi_env.py")

    def work(number):
        cls = behind.kinds[number]
        try:
            with cls(program=program) as server:
                check_variables(server)
        except Exception as e:
            raise AssertionError("behind %s: %s" % (cls.name, e)) from e

    e2e.in_threads(len(behind.kinds), work)


if __name__ == "__main__":
    add_tests()
    e2e.main(server_class=Behind)
