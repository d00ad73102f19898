#!/usr/bin/env -S python3 -B
"""What is in the log: each stream's story over all processes, in order and
whole, also when the file is changed under way; and no word of what was asked,
answered or kept secret."""

import base64
import collections
import hashlib
import hmac
import json
import os
import random
import re
import shutil
import signal
import socket
import string
import subprocess
import threading
import time
from urllib.parse import quote

import e2e
import upstream

# ---- words that nobody else has ----

SECRETS = set()


def word(length=10):
    """Letters that stand nowhere else, and must not stand in a log."""
    new = "".join(random.choices(string.ascii_lowercase, k=length))
    SECRETS.add(new)
    return new


def words(count=4):
    return " ".join(word() for _ in range(count))


def owner():
    return "%s@%s.example" % (word(), word())


KEY_OF_FILE, KEY_OF_ENVIRONMENT = "sk-" + word(24), "sk-" + word(24)
TOKEN = ".".join("eyJ" + word(30) for _ in range(3))

# ---- models ----


def answers(x):
    x.head(headers=[("x-request-id", "req_17")])
    for _ in range(3):
        x.write(upstream.text(words(2) + " "))
    x.write(upstream.END)
    x.end()


def told_again(x, message):
    """An error with all that it was told in all its places."""
    key = x.headers["authorization"].partition(" ")[2]
    return {"error": {
        "message": "%s %s %s" % (key, message, words()), "type": message,
        "code": message.split()[0], "param": key}}


def refusal(status):
    def script(x):
        error = told_again(x, x.message)
        if x.nth % 2:
            error["error"].update(type=error["error"]["param"], code=None)
        x.refuse(status, json.dumps(error).encode(),
                 [("x-request-id", x.headers["authorization"])])
    return script


def breaks(x):
    x.head()
    x.write(upstream.text(words(2)))
    x.write(upstream.event(told_again(x, x.message)))
    x.end()


def garbage(x):
    x.raw(b"HTTP/1.1 %s\r\n%s: %s\r\n\r\n" % ((x.message.encode(),) * 3))
    x.close()


def bad_length(x):
    x.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
          b"Content-Length: %s\r\nTransfer-Encoding: %s\r\n\r\n"
          % ((x.message.encode(),) * 2))
    x.close()


def bad_encoding(x):
    x.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
          b"Content-Encoding: %s\r\n\r\n0\r\n\r\n"
          % x.message.split()[0].encode())
    x.close()


def not_json(x):
    x.head()
    x.write(b"data: {%s\n\n" % x.message.encode())
    x.end()


def moved(x):
    x.refuse(302, x.message.encode(), [
        ("Location", "http://127.0.0.1:1/" + quote(x.message))])


UP = upstream.Upstream({
    "answers": answers, "r400": refusal(400), "r401": refusal(401),
    "r429": refusal(429), "r500": refusal(500), "breaks": breaks,
    "garbage": garbage, "bad_length": bad_length, "moved": moved,
    "bad_encoding": bad_encoding, "not_json": not_json,
})


def models(key_file):
    found = {
        "echo": {"provider": "demo"},
        "says": {"provider": "demo", "text": words(12)},
        "chunks": {"provider": "demo", "chunks": 8},
        "live": {"provider": "demo", "text": words(20), "interval_ms": 20},
        "endless": {"provider": "demo", "chunks": 1000000,
                    "interval_ms": 50},
        "fails": {"provider": "demo", "text": words(8), "fail_after": 3,
                  "error_type": "overloaded"},
        "cat": {"provider": "exec", "command": ["cat"]},
        "exec fails": {"provider": "exec", "command": [
            "sh", "-c", "cat; echo out of order >&2; exit 3"]},
        "missing": {"provider": "exec", "command": ["/none"]},
        "no key": UP.model("answers", api_key_env="RESPOOL_TEST_NONE"),
        "chain": UP.model("r500", retries=1, fallback=["echo"],
                          api_key_file=key_file),
        "dead": {"provider": "openai", "retries": 0,
                 "base_url": "http://127.0.0.1:1/v1",
                 "api_key_file": key_file, "fallback": ["says"]},
    }
    for nth, name in enumerate(sorted(UP.scripts)):
        key = {"api_key_file": key_file} if nth % 2 else {
            "api_key_env": "LOGS_TEST_KEY"}
        found["up " + name] = UP.model(name, **key)
    found["up r401"] = UP.model("r401", api_key_file=key_file)
    return {"default": "echo", "models": found}


# ---- the server ----

class Server(e2e.Server):
    """With personas, templates, rules and keys of its own; secret: of the
    tokens."""

    def __init__(self, secret="", **options):
        self.secret = secret
        super().__init__(**options)

    def _environment(self, settings, environment):
        if self.secret:
            self._write("key.jwt", self.secret)
            settings = {**settings, "jwt_key_file": self._path("key.jwt")}
        personas, templates = (os.path.join(self.run, name)
                               for name in ("personas", "templates"))
        os.mkdir(personas)
        os.mkdir(templates)
        self._write("personas/leo.json", json.dumps({
            "id": "leo", "name": word(), "greeting": words(),
            "system": words(8)}))
        self._write("personas/slow.json", json.dumps({
            "id": "slow", "name": word(), "system": words(8),
            "model": "live"}))
        self._write("templates/letter.mustache",
                    "%s {{text}} %s" % (words(), words()))
        self._write("triage.json", json.dumps({"rules": [
            {"name": "known", "words": ["please"], "category": "support",
             "template": "letter"}]}))
        self._write("key", KEY_OF_FILE + "\n")
        self.models = models(self._path("key"))
        self._write("models.json", json.dumps(self.models))
        return super()._environment({
            "personas_dir": personas, "templates_dir": templates,
            "triage_file": self._path("triage.json"),
            "default_persona": "leo", **settings},
            {"LOGS_TEST_KEY": KEY_OF_ENVIRONMENT,
             "RESPOOL_MODELS_FILE": self._path("models.json"), **environment})

    def _path(self, name):
        return os.path.join(self.run, name)

    def _write(self, name, text):
        with open(self._path(name), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(f.name, 0o600 if name.startswith("key") else 0o644)

    def ask(self, model, message=None, **fields):
        return self.start_stream(message=message or words(), model=model,
                                 **fields)


LINE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z "
                  r"(error|warn|info|debug) ([a-z]+) (.*)")


def story(lines, sid):
    """What happened to a stream: [("part event", {key: value})]."""
    found = []
    for line in lines:
        match = LINE.fullmatch(line)
        e2e.check(match, "not a line: %r" % line)
        begin, id_and_rest = "stream=%s " % sid, match[3]
        if match[1] == "debug" or not id_and_rest.startswith(begin):
            continue
        text = id_and_rest[len(begin):]
        event = re.match(r"[^=]*(?= [a-z_]+=)|.*", text)[0]
        values = dict(re.findall(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)', text))
        found.append((match[2] + " " + event, values))
    return found


def lane(event):
    """Whose lines come in a fixed order: the spooler's, those about readers,
    and those of other requests."""
    part = event.split()[0]
    return {"gen": "spooler", "spool": "spooler"}.get(part, part == "follow")


def check_story(server, sid, *want):
    """These events and no others, those of each lane in this order; what one
    process has said before another could know of it stands before the other's
    lines.  Returns the values of each."""
    def told():
        seen = story(server.log(), sid)
        return seen if len(seen) >= len(want) else None
    seen = e2e.wait_until(told, 20, "the story of %s: %r" % (
        sid, [event for event, _ in story(server.log(), sid)]))
    events = [event for event, _ in seen]
    values = {name: [] for name in map(lane, events)}
    for event, found in seen:
        values[lane(event)].append((event, found))
    for name in {*values, *map(lane, want)}:
        e2e.check_equal([event for event, _ in values.get(name, [])],
                        [event for event in want if lane(event) == name],
                        "a lane of %s: %r" % (sid, events))
    e2e.check_equal(events[0], "start requested", "the beginning")
    if "follow started" in events:
        e2e.check(events.index("gen started") <
                  events.index("follow started"), "order of %r" % events)
    return [values[lane(event)].pop(0)[1] for event in want]


def check_no_secrets(server):
    for where, text in (("respool's log", "\n".join(server.log())),
                        ("the web server's log", server.lighttpd_log())):
        found = set(re.findall("[a-z]{4,}", text.lower()))
        told = found & SECRETS
        e2e.check(not told, "%s has %r: %s" % (where, told, [
            line for line in text.splitlines()
            if any(secret in line.lower() for secret in told)][:3]))
        joined = text.lower()
        for secret in SECRETS:  # also as a part of a word
            e2e.check(secret not in joined, "%s has %s" % (where, secret))
        e2e.check("eyJ" not in text, "%s has a token" % where)


# ---- stories ----

BEGUN = ("start requested", "gen started", "gen asked")


@e2e.test
def an_answer_that_is_read_to_its_end(server):
    user = owner()
    stream = server.ask("says", user_id=user).read_all()
    requested, started, asked, _, _ = check_story(
        server, stream.stream_id, *BEGUN, "gen began to answer",
        "gen finished", "follow started", "follow ended")[:5]
    e2e.check(int(requested["pid"]) in server.responders(), "who asked")
    e2e.check_equal([int(started["pid"])], server.spoolers(), "who took it")
    e2e.check(re.fullmatch("[0-9a-f]{16}", started["owner"]), "the owner")
    e2e.check_equal((asked["model"], asked["attempt"]), ('"says"', "1"),
                    "what was asked")


@e2e.test
def attempts_retries_and_fallbacks(server):
    stream = server.ask("chain").read_all()
    told = check_story(
        server, stream.stream_id, "start requested", "gen started",
        "gen asked", "follow started", "gen was answered",
        "gen attempt failed", "gen asked", "gen was answered",
        "gen attempt failed", "gen asked", "gen began to answer",
        "gen finished", "follow ended")
    failed = [one for one in told if "next" in one]
    e2e.check_equal([one["next"] for one in failed], ["retry", "fallback"],
                    "what came next")
    e2e.check_equal([one["upstream_code"] for one in failed],
                    ['"other"', '""'], "words of the prompt, and the key")
    e2e.check_equal([one["model"] for one in told if "provider" in one],
                    ['"chain"', '"chain"', '"echo"'], "who was asked")


@e2e.test
def a_failure_has_its_type(server):
    stream = server.ask("fails").read_all()
    told = check_story(
        server, stream.stream_id, *BEGUN, "gen began to answer",
        "gen attempt failed", "gen finished", "follow started", "follow ended")
    e2e.check_equal(told[5]["reason"], "overloaded", "why it ended")


@e2e.test
def followers_come_leave_and_come_back(server):
    stream = server.ask("live").read_frames(3)
    sid = stream.stream_id
    stream.close()
    e2e.wait_until(lambda: server.follows(sid, "ended"), 20, "its leaving")
    rest = server.resume(2, stream_id=sid).read_all()
    last = rest.frames[-1].id
    answer = server.get("/api/v1/stream", {
        "stream_id": sid, "last_event_id": last})
    e2e.check_equal(answer.status, 204, "status at the end")
    answer.close()
    told = check_story(
        server, sid, *BEGUN, "gen began to answer", "follow started",
        "follow ended", "follow started", "gen finished", "follow ended",
        "follow had nothing more")
    e2e.check_equal(told[4]["from"], "0", "the first")
    e2e.check_equal(told[5]["reason"], "client_left", "why it left")
    e2e.check(int(told[5]["frames"]) >= 3, "frames of the first")
    e2e.check_equal(told[6]["from"], "3", "the second")
    e2e.check_equal((told[8]["reason"], int(told[8]["frames"])),
                    ("finished", last - 2), "its end")


@e2e.test
def stop_and_delete(server):
    stream = server.ask("endless").read_frames(2)
    sid = stream.stream_id
    server.post("/api/v1/streams/%s/stop" % sid).read()
    stream.read_all()
    answer = server.request("DELETE", "/api/v1/streams/" + sid).read_head()
    e2e.check_equal(answer.status, 204, "DELETE")
    answer.close()
    answer = server.get("/api/v1/streams/" + sid)
    e2e.check_equal(answer.status, 404, "after it")
    answer.close()
    # The follower's end may be late.
    told = check_story(
        server, sid, *BEGUN, "gen began to answer", "follow started",
        "stream was to stop", "gen finished",
        "follow ended", "stream was to be deleted", "spool deleted",
        "reply refused")
    e2e.check_equal(told[6]["reason"], "stopped", "why it ended")
    e2e.check_equal((told[-1]["status"], told[-1]["type"]),
                    ("404", "stream_not_found"), "why it was refused")


@e2e.test
def a_dead_spooler(server):
    read = server.ask("endless").read_frames(2)
    unread = server.ask("endless").read_frames(2)
    unread.close()
    e2e.wait_until(lambda: server.follows(unread.stream_id, "ended"), 20,
                   "the reader's leaving")
    old, = server.kill_all("respool-spooler")
    read.read_all()
    new, = server.spoolers()
    # Whoever is read is sealed by request, the other by the new spooler's
    # look around.
    told = check_story(server, read.stream_id, *BEGUN,
                       "gen began to answer", "follow started",
                       "spool sealed", "follow ended")
    e2e.check_equal(int(told[1]["pid"]), old, "who took it")
    e2e.check_equal((int(told[5]["pid"]), told[5]["reason"]),
                    (new, "generation_lost"), "who ended it")
    told = check_story(server, unread.stream_id, *BEGUN,
                       "gen began to answer", "follow started",
                       "follow ended", "spool sealed")
    e2e.check_equal(int(told[-1]["pid"]), new, "who ended it")


@e2e.test
def what_is_refused_has_its_reason(server):
    stream = server.ask("says").read_all()
    sid = stream.stream_id
    for fields in ({"message": words(), "stream_id": sid},
                   {"stream_id": sid, "last_event_id": 99}):
        server.post("/api/v1/stream", fields).read()
    told = check_story(
        server, sid, *BEGUN, "gen began to answer",
        "gen finished", "follow started", "follow ended", "reply refused",
        "reply refused")
    e2e.check_equal([one["type"] for one in told[-2:]],
                    ["conflict", "invalid_request"], "why")


@e2e.test
def a_turn_waits_for_the_one_before_it(server):
    ask = {"sessionId": "s-queue", "user_id": owner(), "animalId": "slow"}
    one = e2e.Stream(server.post("/convo_turn_stream", {
        "message": words(), **ask}), 0).read_frames(3)
    two = e2e.Stream(server.post("/convo_turn_stream", {
        "message": words(), **ask}), 0)
    one.read_all()
    two.read_all()
    told = check_story(server, two.stream_id, "start requested",
                       "gen started", "gen queued", "follow started",
                       "gen asked", "gen began to answer", "gen finished",
                       "follow ended")
    e2e.check_equal(told[2]["session"], "s-queue", "of which session")


@e2e.test
def abandoned_swept_and_too_many(_):
    with Server(settings={"abandon": "stop", "abandon_after": 1, "ttl": 1,
                          "max_streams": 1}, procs=1) as server:
        stream = server.ask("endless").read_frames(2)
        sid = stream.stream_id
        refused = server.post("/api/v1/stream", {
            "message": words(), "stream_id": "too-many"})
        e2e.check_equal(refused.status, 503, "the second one")
        refused.close()
        stream.close()
        want = [*BEGUN, "gen began to answer", "follow started",
                "follow ended", "gen abandoned by its readers",
                "gen finished"]
        told = check_story(server, sid, *want)
        e2e.check_equal(told[-1]["reason"], "stopped", "why it ended")

        def swept():
            e2e.check_equal(server.ctl("gc").returncode, 0, "gc")
            return any("spool stream=%s removed " % sid in line
                       for line in server.log())
        e2e.wait_until(swept, 30, "the sweep")
        told = check_story(server, "too-many", "start requested",
                           "start refused")
        e2e.check_equal(told[1]["type"], "too_many_streams", "why")
        check_no_secrets(server)


# ---- no secrets ----

def bad_requests(server):
    secret = [("Authorization", "Bearer " + TOKEN), ("Cookie", "session=" +
              word() + "; token=" + TOKEN), ("X-Api-Key", word()),
              ("Referer", "http://x.example/?" + word()),
              ("User-Agent", word()), ("X-Forwarded-For", word()),
              ("Last-Event-ID", word())]
    for target in ("/api/v1/stream?access_token=%s&message=%s&model=%s",
                   "/api/v1/stream?message=%s&message=%s&token=%s",
                   "/api/v1/stream?%s=%s&%s=1", "/%s/%s?%s", "/magic/%s-%s-%s",
                   "/magic/%%00%s%s%s", "/api/v1/streams/%s.%s.%s",
                   "/api/v1/streams?user_id=%s&before=%s!&limit=%s",
                   "/convo_history?sessionId=%s!%s&user_id=%s",
                   "/api/v1/stream?user_id=%s&userId=%s&message=%s"):
        target %= (word(), word(), word())
        for method in ("GET", "POST", "DELETE", "PUT"):
            server.request(method, target, secret).read_head().close()
    for kind, body in (("application/json", '{"message": "%s", "%s": %s}'),
                       ("application/json", '{"message": %s%s%s'),
                       ("application/json", '{"messages": [{"role": "%s",'
                        '"content": "%s"}], "x": "%s"}'),
                       ("application/json", '{"template": "%s", "variables":'
                        ' {"%s": "%s"}}'),
                       ("application/json", '{"template": "letter", '
                        '"variables": {"%s": "%s", "x": "%s"}}'),
                       ("application/x-www-form-urlencoded", "%s=%s&%s"),
                       ("text/plain", "%s %s %s"), (word(), "%s%s%s")):
        body %= (word(), word(), word())
        for target in ("/api/v1/stream", "/convo_turn_stream", "/api/render",
                       "/api/triage"):
            server.request("POST", target,
                           [*secret[:-1], ("Content-Type", kind)],
                           body.encode()).read_head().close()


def one_of(server, kind, nth):
    """A stream of that kind, to its end; its id."""
    user = owner()
    if kind == "turn":
        stream = e2e.Stream(server.post("/convo_turn_stream", {
            "message": words(), "sessionId": "s%d" % (nth % 3),
            "user_id": user}), 0)
        stream.read_all()
        server.get("/convo_history", {"sessionId": "s%d" % (nth % 3),
                                      "user_id": user}).read()
        server.request("DELETE", "/convo_history?sessionId=s%d&user_id=%s" % (
            nth % 3, quote(user))).read_head().close()
        return stream.stream_id
    if kind == "template":
        stream = server.start_stream(template="letter", user_id=user,
                                     variables={"text": words()})
        return stream.read_all().stream_id
    if kind == "triage":
        message = "please " + words()
        server.post("/api/triage", {"message": message}).read()
        server.post("/api/render", {"template": "letter", "variables": {
            "text": words()}}).read()
        return server.ask("echo", message, user_id=user).read_all().stream_id
    if kind in ("stop", "delete", "resume", "left"):
        stream = server.ask("live", user_id=user).read_frames(3)
        sid = stream.stream_id
        target = "/api/v1/streams/%s" % sid
        if kind == "stop":
            server.post(target + "/stop", {"user_id": user}).read()
        elif kind == "delete":
            server.request("DELETE", target + "?user_id=" +
                           quote(user)).read_head().close()
        elif kind == "resume":
            server.resume(1, stream_id=sid, user_id=user).read_all()
        stream.close()
        server.get("/api/v1/streams", {"user_id": user}).read()
        return sid
    return server.ask(kind, user_id=user).read_all().stream_id


@e2e.test
def a_hundred_streams_leave_no_word_of_theirs(server):
    kinds = sorted(set(server.models["models"]) - {"endless"}) + [
        "turn", "template", "triage", "stop", "delete", "resume", "left"]
    threads, ids, lock = 5, [], threading.Lock()

    def run(number):
        for nth in range(number, max(100, 3 * len(kinds)), threads):
            sid = one_of(server, kinds[nth % len(kinds)], nth)
            with lock:
                ids.append(sid)

    e2e.in_threads(threads, run)
    lost = [server.ask("endless", user_id=owner()).read_frames(1)
            for _ in range(3)]
    server.kill_all("respool-spooler")
    for stream in lost:
        stream.read_all()
        ids.append(stream.stream_id)
    bad_requests(server)
    server.ctl("usage")
    e2e.check(len(set(ids)) >= 100, "%d streams" % len(ids))
    lines = server.log()
    for sid in ids:
        events = [event for event, _ in story(lines, sid)]
        e2e.check_equal(events[:2], ["start requested", "gen started"],
                        "the beginning of %s" % sid)
        e2e.check({"gen finished", "spool sealed"} & set(events),
                  "no end of %s: %r" % (sid, events))
    check_no_secrets(server)


def signed(secret, **claims):
    """A token of HS256."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    text = b".".join(part(json.dumps(value).encode()) for value in (
        {"alg": "HS256", "typ": "JWT"}, claims))
    return (text + b"." + part(hmac.new(secret.encode(), text,
                                        hashlib.sha256).digest())).decode()


@e2e.test
def tokens_and_links_leave_nothing(_):
    with open(os.path.join(e2e.BUILD, "respool.fcgi"), "rb") as program:
        if b"libjwt.so" not in program.read():
            print("built without libjwt: skipped")
            return
    secret = word(40)
    with Server(settings={"auth": "jwt", "jwt_cookie": "session",
                          "jwt_parameter": "token"},
                secret=secret) as server:
        late = int(time.time()) + 600
        told = set()
        for fault in ({}, {"exp": 1}, {"sub": 7}, None):
            for where in ("header", "cookie", "parameter"):
                token = signed(secret, **{"sub": owner(), "exp": late,
                                          "name": word(), **(fault or {})})
                if fault is None:
                    token = token[:-8] + "AAAAAAAA"
                told.update(token.split(".")[1:])
                headers = {"header": [("Authorization", "Bearer " + token)],
                           "cookie": [("Cookie", "session=" + token)],
                           "parameter": []}[where]
                answer = server.get("/api/v1/stream", {
                    "message": words(), "model": "says", **(
                        {"token": token} if where == "parameter" else {})},
                    headers)
                e2e.check_equal(answer.status, 401 if fault != {} else 200,
                                "%s with %r" % (where, fault))
                answer.read()
                if fault != {} or where != "header":
                    continue
                sid = answer.header("X-Stream-ID")
                link = server.post("/api/v1/streams/%s/link" % sid, {},
                                   headers).json()["link"]
                told.add(link)
                for cut in (link, link[:-3] + "xyz"):
                    server.get("/api/v1/streams/" + sid,
                               {"link": cut}).read()
                    server.get("/api/v1/stream", {"stream_id": sid,
                                                  "link": cut}).read()
        seen = [event for event, _ in story(server.log(), sid)]
        e2e.check("link shared" in seen and "reply refused" in seen,
                  "the story %r" % seen)
        check_no_secrets(server)
        text = "\n".join(server.log()) + server.lighttpd_log()
        for part in told:
            for at in range(0, len(part) - 16, 8):
                e2e.check(part[at:at + 16] not in text,
                          "%r of %r is told" % (part[at:at + 16], part))


@e2e.test
def a_models_file_with_a_fault_is_not_quoted(server):
    for fault in ('{"default": "%s"' % word(), '{"models": {"x": {"%s": 1}}}',
                  '{"models": {"x": {"provider": "openai", "api_key": "%s"}}}',
                  '{"models": {"x": {"provider": "openai", '
                  '"api_key_env": "sk-%s"}}}'):
        path = server.env["RESPOOL_MODELS_FILE"]
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(fault.replace("%s", KEY_OF_FILE))
        os.chmod(path + ".new", 0o644)
        os.rename(path + ".new", path)
        server.ask("echo").read_all()
    server.write_models(server.models)
    server.ask("echo").read_all()
    check_no_secrets(server)


# ---- rotation ----

def opened_again(lines):
    return {int(match[1]) for match in
            map(re.compile(r" log opened again pid=([0-9]+)$").search, lines)
            if match}


@e2e.test
def each_line_is_whole_in_one_file_when_it_is_changed(_):
    with Server(procs=2) as server:
        running = [server.ask("live", message="x") for _ in range(20)]
        ids = [stream.stream_id for stream in running]
        done, files = threading.Event(), []

        def start_more():
            while not done.is_set():
                ids.append(server.ask("chunks").read_all().stream_id)

        more = threading.Thread(target=start_more, daemon=True)
        more.start()
        pids = set(server.pids())
        e2e.check_equal(len(pids), 3, "processes")
        for _ in range(5):
            files.append("%s.%d" % (server.log_file, len(files)))
            os.rename(server.log_file, files[-1])
            for pid in pids:
                os.kill(pid, signal.SIGHUP)
            e2e.wait_until(lambda: opened_again(server.log()) == pids, 20,
                           "the new file")
        done.set()
        more.join()
        for stream in running:
            stream.read_all()
        e2e.wait_until(lambda: sum(" ended " in line for path in [
            *files, server.log_file] for line in open(path)) >= len(ids), 20,
                       "the end of all")
        e2e.check_equal(set(server.pids()), pids, "the processes")
        seen = collections.Counter()
        for path in [*files, server.log_file]:
            with open(path, encoding="utf-8") as f:
                text = f.read()
            e2e.check(text.endswith("\n"), "a torn line in " + path)
            for line in text.splitlines():
                e2e.check(LINE.fullmatch(line), "not whole: %r" % line)
                seen.update([line])
        lines = sorted(seen)
        twice = [line for line in lines if seen[line] > 1 and
                 " log opened again " not in line]
        e2e.check(not twice, "twice: %r" % twice[:3])
        for sid in ids:
            got = collections.Counter(event for event, _ in story(lines, sid))
            want = collections.Counter([*BEGUN, "gen began to answer",
                                        "gen finished", "follow started",
                                        "follow ended"])
            e2e.check_equal(got, want, "the lines of %s" % sid)


def cgi_stream(server, message):
    """respool.fcgi as a CGI program that answers."""
    def become():
        if server.user:
            os.setgid(server.user.pw_gid)
            os.setuid(server.user.pw_uid)
    env = dict(server.env, GATEWAY_INTERFACE="CGI/1.1", REQUEST_METHOD="GET",
               SERVER_PROTOCOL="HTTP/1.1", SCRIPT_NAME="/respool.fcgi",
               PATH_INFO="/api/v1/stream",
               QUERY_STRING="model=live&message=" + quote(message))
    return subprocess.Popen([os.path.join(server.bin, "respool.fcgi")],
                            env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, preexec_fn=become)


@e2e.test
def a_cgi_program_goes_on_after_a_hup(server):
    with cgi_stream(server, words()) as program:
        head = b""
        while b"event: message_chunk" not in head:
            head += program.stdout.read1()
        program.send_signal(signal.SIGHUP)
        rest = program.stdout.read()
        e2e.check_equal(program.wait(), 0, "status")
        e2e.check(b"event: done\n" in rest or b"event: done\n" in head,
                  "the end")
    e2e.check(program.pid in opened_again(server.log()), "its file")


@e2e.test
def the_shipped_rule_for_logrotate_is_one(server):
    program = shutil.which("logrotate")
    if program is None:
        print("logrotate is not installed: skipped")
        return
    rule = os.path.join(server.run, "logrotate.conf")
    shutil.copy(os.path.join(e2e.SOURCE, "logrotate", "respool"), rule)
    os.chmod(rule, 0o644)
    result = subprocess.run(
        [program, "-d", "-s", server.run + "/logrotate.state", rule],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", check=False)
    e2e.check(result.returncode == 0 and "error" not in result.stdout and
              "rotating pattern" in result.stdout, result.stdout)


# ---- syslog ----

# A /dev of its own, whose log is a socket of ours.
OWN_DEV = """
set -e
dev=$1; shift
mount -t tmpfs tmpfs "$dev"
for name in null zero full random urandom tty; do
	touch "$dev/$name"; mount --bind "/dev/$name" "$dev/$name"
done
mkdir -m 1777 "$dev/shm"; ln -s /proc/self/fd "$dev/fd"
touch "$dev/log"; mount --bind "$dev.sock" "$dev/log"
mount --rbind "$dev" /dev
exec "$@"
"""


class Syslogged(Server):
    """Its processes see a syslog daemon, which reads while it has leave to."""

    daemon = None

    def command(self):
        dev = os.path.join(self.run, "dev")
        if self.daemon is None:
            os.mkdir(dev)
            self.daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.daemon.bind(dev + ".sock")
            os.chmod(dev + ".sock", 0o666)
            self.heard, self.reads = [], threading.Event()
            self.reads.set()
            threading.Thread(target=self._read, daemon=True).start()
        return ["unshare", "-m", "--propagation", "private", "sh", "-c",
                OWN_DEV, "sh", dev, *super().command()]

    def _read(self):
        while self.reads.wait():
            self.heard.append(self.daemon.recv(4096).decode())

    def wait_heard(self, text):
        e2e.wait_until(lambda: any(text in line for line in self.heard), 20,
                       text)


SYSLOG_LINE = re.compile(
    r"<(27|28|30|31)>[A-Z][a-z]{2} [ 123][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} "
    r"(respool\.fcgi|respool-spooler)\[([0-9]+)\]: ([a-z]+) (.*)")


@e2e.test
def syslog_gets_the_lines_and_nobody_waits_for_it(_):
    if os.geteuid() != 0:
        print("only root can put a socket at /dev/log: skipped")
        return
    with Syslogged(settings={"syslog": "yes"}, procs=1) as server:
        sid = server.ask("says", user_id=owner()).read_all().stream_id
        server.wait_heard("stream=%s ended " % sid)
        story_of = []
        for line in server.heard:
            match = SYSLOG_LINE.fullmatch(line)
            e2e.check(match, "not a line: %r" % line)
            e2e.check(int(match[3]) in server.pids(match[2]), "pid of " + line)
            if "stream=%s " % sid in line and match[1] == "30":
                story_of.append((match[2], match[4]))
        for program, part in (("respool.fcgi", "start"),
                              ("respool-spooler", "gen"),
                              ("respool.fcgi", "follow")):
            e2e.check((program, part) in story_of, "no %s of %s in %r" % (
                part, program, story_of))
        e2e.check_equal(server.log(), [], "lines in log_file")
        server.reads.clear()
        for _ in range(60):  # its queue is full, and the work goes on
            stream = server.ask("says").read_all()
            e2e.check_equal(stream.frames[-1].event, "done", "the end")
        server.reads.set()

        def told_of_the_lost():
            server.ask("says").read_all()
            return any("log lines lost lines=" in line
                       for line in server.heard)
        e2e.wait_until(told_of_the_lost, 20, "the number of the lost lines")
        for line in server.heard:
            e2e.check(SYSLOG_LINE.fullmatch(line), "not a line: %r" % line)
            told = set(re.findall("[a-z]{4,}", line.lower())) & SECRETS
            e2e.check(not told, "%r in %r" % (told, line))
        server.reads.clear()
        server.daemon.close()  # it is gone
        for _ in range(2):
            stream = server.ask("says").read_all()
            e2e.check_equal(stream.frames[-1].event, "done", "the end")


@e2e.test
def dash_t_says_when_a_log_file_cannot_be_written_to(server):
    for path, word in (("/nonexistent/log", "cannot be written to"),
                       (server.run + "/new", ""), ("", "")):
        done = subprocess.run(
            [os.path.join(server.bin, "respool.fcgi"), "-t"],
            env={**server.env, "RESPOOL_LOG_FILE": path},
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            timeout=e2e.IO_TIMEOUT, check=False)
        e2e.check_equal(done.returncode, 0, done.stderr)
        e2e.check(("log_file" in done.stderr) == bool(word) and
                  word in done.stderr, done.stderr)
        e2e.check(not os.path.exists(server.run + "/new"), "it was made")


if __name__ == "__main__":
    e2e.main(server_class=Server, procs=2)
