#!/usr/bin/env -S python3 -B
"""A conversation: its turns as streams of events, its history, its owner."""

import contextlib
import glob
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from urllib.parse import urlencode

import direct
import e2e

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo",
                 "prices": {"input": 150000, "output": 600000}},
        "live": {"provider": "demo", "chunks": 12, "interval_ms": 30},
        "paced": {"provider": "demo", "chunks": 10, "interval_ms": 30},
        "fails": {"provider": "demo", "chunks": 12, "interval_ms": 30,
                  "fail_after": 5, "error_type": "overloaded"},
        "endless": {"provider": "demo", "chunks": 100000, "interval_ms": 20},
        "late": {"provider": "demo", "chunks": 2, "first_ms": 2500},
        "hangs": {"provider": "demo", "chunks": 9, "hang_after": 2},
        "late-fails": {"provider": "demo", "chunks": 2, "first_ms": 2500,
                       "fail_after": 1, "error_type": "overloaded"},
    },
}
PERSONAS = ["echo", "live", "paced", "fails", "endless", "late", "hangs",
            "late-fails"]
SYSTEM = "You are %s."  # three words
URL = "/convo_turn_stream"
HISTORY = "/convo_history"
JSON = [("Accept", "application/json")]


class Zoo:
    """A server's persona for each model, and how they are asked."""

    def _environment(self, settings, environment):
        self.personas = os.path.join(self.run, "personas")
        os.mkdir(self.personas)
        for name in PERSONAS:
            self.write_persona(name, model=name)
        return super()._environment(
            {"personas_dir": self.personas, "default_persona": "echo",
             "keepalive": 1, "heartbeat": 1, **settings}, environment)

    def write_persona(self, ident, **fields):
        path = os.path.join(self.personas, ident + ".json")
        with open(path + ".new", "w", encoding="utf-8") as f:
            json.dump({"id": ident, "name": ident.upper(), "greeting": "Hi!",
                       "system": SYSTEM % ident, **fields}, f)
        os.chmod(path + ".new", 0o644)
        os.rename(path + ".new", path)

    def turn(self, message="Hello!", animal="live", **fields):
        """POSTs a turn; the stream, to be read from id 0."""
        return e2e.Stream(self.post(URL, {"message": message,
                                          "animalId": animal, **fields}), 0)

    def whole(self, message="Hello!", animal="live", **fields):
        response = self.post(URL, {"message": message, "animalId": animal,
                                   "stream": False, **fields})
        return response.status, response.json()

    def go_on(self, after, by="header", **fields):
        headers = [("Last-Event-ID", str(after))] if by == "header" else []
        if by == "parameter":
            fields["last_event_id"] = after
        return e2e.Stream(self.get(URL, fields, headers), after + 1)

    def history(self, session, **fields):
        response = self.get(HISTORY, {"sessionId": session, **fields}, JSON)
        e2e.check_equal(response.status, 200, "status of the history")
        return response.json()

    def session_path(self, session, user_id="anonymous"):
        owner = hashlib.sha256(user_id.encode()).hexdigest()[:16]
        name = "%s-%s.jsonl" % (owner, session)
        shard = hashlib.sha256(name.encode()).hexdigest()[:2]
        return os.path.join(self.spool, "conversations", shard, name)


class Server(Zoo, e2e.Server):
    pass


class DirectServer(Zoo, direct.Server):
    """One whose spooler can be killed at a chosen call."""


_sessions = iter(range(1000000))


def new_session():
    return "session-%d" % next(_sessions)


def text_of(frames):
    return "".join(f.data["content"] for f in frames if f.event == "message")


def events_of(frames):
    return [f.event for f in frames if f.event != "heartbeat"]


# ---- the events ----

@e2e.test
def a_turn_is_told_in_order_and_as_it_comes(server):
    response = server.post(URL, {"message": "Hello!", "animalId": "live",
                                 "stream": True, "userId": "ann"})
    stream = e2e.Stream(response, 0).read_all()
    e2e.check_equal(events_of(stream.frames),
                    ["metadata", "typing"] + ["message"] * 12 +
                    ["typing", "complete"], "events")
    metadata = stream.frames[0].data
    session = metadata["sessionId"]
    e2e.check(session.startswith("session_") and len(session) == 40,
              "the session that was made up: " + session)
    e2e.check_equal(metadata, {
        "sessionId": session, "animalId": "live", "name": "LIVE",
        "model": "live", "stream_id": stream.stream_id, "turn": 1},
        "metadata")
    e2e.check_equal(stream.frames[1].data, {"status": "start"}, "typing")
    chunks = [f for f in stream.frames if f.event == "message"]
    e2e.check_equal([f.data["index"] for f in chunks], list(range(12)),
                    "indexes")
    e2e.check_equal(text_of(stream.frames),
                    "".join("tok%d " % n for n in range(12)), "the text")
    gaps = [b.at - a.at for a, b in zip(chunks, chunks[1:])]
    e2e.check(chunks[-1].at - chunks[0].at > 0.2 and max(gaps) < 5,
              "it did not come bit by bit: %r" % gaps)
    stop, complete = stream.frames[-2].data, stream.frames[-1].data
    e2e.check_equal(stop["status"], "stop", "typing")
    e2e.check_equal((complete["length"], complete["finish_reason"],
                     complete["model"], complete["sessionId"],
                     complete["turn"], complete["stream_id"]),
                    (len(text_of(stream.frames)), "stop", "live", session, 1,
                     stream.stream_id), "complete")
    for name in ("total_tokens", "total_cost", "latency_ms", "usage"):
        e2e.check(name in complete, "no %s in complete" % name)


@e2e.test
def a_turn_takes_a_form_and_a_query_too(server):
    fields = {"message": "one two", "animalId": "echo"}
    form = server.request("POST", URL, [("Content-Type",
                          "application/x-www-form-urlencoded")],
                          urlencode(fields).encode())
    e2e.check_equal(text_of(e2e.Stream(form, 0).read_all().frames), "one two",
                    "the text")
    for stream in ({}, {"stream": "true"}):
        query = e2e.Stream(server.get(URL, {**fields, **stream}), 0)
        e2e.check_equal(text_of(query.read_all().frames), "one two",
                        "the text")
    whole = server.get(URL, {**fields, "stream": "false"}).json()
    e2e.check_equal(whole["content"], "one two", "content")


@e2e.test
def the_default_persona_speaks_when_none_is_named(server):
    stream = e2e.Stream(server.post(URL, {"message": "x"}), 0).read_all()
    e2e.check_equal(stream.frames[0].data["animalId"], "echo", "animalId")


TEXTS = ["Hello!", "ä\U0001f981 \u2028 line\none \"two\" \\three\\\t",
         "word " * 5000, "\u0001\u007f\u0000x"]


@e2e.test
def history_snapshot_and_one_answer_say_what_the_chunks_said(server):
    for text in TEXTS:
        session = new_session()
        stream = server.turn(text, "echo", sessionId=session).read_all()
        said = text_of(stream.frames)
        e2e.check_equal(said, text, "the chunks")
        snapshot = server.get("/api/v1/streams/" + stream.stream_id).json()
        e2e.check_equal(snapshot["text"], said, "the snapshot")
        turn, = server.history(session)["turns"]
        e2e.check_equal(turn["assistant"]["content"], said, "the history")
        e2e.check_equal(turn["user"]["content"], text, "the question")
        again = server.post(URL, {"stream_id": stream.stream_id,
                                  "stream": False})
        whole = again.json()
        e2e.check_equal(whole.pop("content"), said, "the one answer")
        e2e.check_equal(whole, stream.frames[-1].data, "its other fields")
        e2e.check_equal(again.header("X-Stream-ID"), stream.stream_id,
                        "X-Stream-ID")


@e2e.test
def a_silent_persona_has_heartbeats(server):
    stream = server.turn("x", "hangs")
    stream.read_until(lambda frames: [f.event for f in frames].count(
        "heartbeat") >= 2)
    server.post("/api/v1/streams/%s/stop" % stream.stream_id)
    stream.read_all()
    e2e.check_equal(events_of(stream.frames),
                    ["metadata", "typing", "message", "message", "typing",
                     "complete"], "events")


# ---- resuming ----

def check_every_event(server, animal, by):
    """Leaves after each event, goes on behind it."""
    parts = server.turn("x", animal, user_id="r").read_frames(1)
    sid, got = parts.stream_id, parts.bytes()
    frames = list(parts.frames)
    while frames[-1].event not in e2e.TERMINAL:
        parts.close()
        parts = server.go_on(frames[-1].id, by, stream_id=sid, user_id="r")
        parts.read_frames(1)
        frames.append(parts.frames[0])
        got += parts.frames[0].raw
    parts.close()
    e2e.check_equal(got, server.stream_bytes(sid, "r"), "all parts")
    return frames


@e2e.test
def a_reader_that_leaves_after_each_event_misses_nothing(server):
    for by in ("header", "parameter"):
        frames = check_every_event(server, "live", by)
        e2e.check_equal(events_of(frames)[-2:], ["typing", "complete"],
                        "the last events")
        e2e.check_equal(len(text_of(frames).split()), 12, "chunks")


@e2e.test
def a_personas_error_is_resumed_like_all_else(server):
    for by in ("header", "parameter"):
        frames = check_every_event(server, "fails", by)
        e2e.check_equal(events_of(frames)[-2:], ["typing", "error"],
                        "the last events")
        e2e.check_equal(frames[-1].data["error_type"], "overloaded",
                        "error_type")
        e2e.check_equal(len(text_of(frames).split()), 5, "chunks")


@e2e.test
def an_ended_turn_is_replayed_from_each_event(server):
    stream = server.turn("x", "fails").read_all()
    sid, last = stream.stream_id, stream.frames[-1].id
    for after in range(-1, last):
        rest = server.go_on(after, stream_id=sid).read_all()
        e2e.check_equal(rest.bytes(), b"".join(
            f.raw for f in stream.frames[after + 1:]), "after %d" % after)
    for by in ("header", "parameter"):
        headers = [("Last-Event-ID", str(last))] if by == "header" else []
        fields = {"stream_id": sid} if headers else {
            "stream_id": sid, "last_event_id": last}
        e2e.check_equal(server.get(URL, fields, headers).status, 204,
                        "status after the last one")


@e2e.test
def the_same_request_again_joins_its_turn(server):
    session, sid = new_session(), "again-1"
    fields = {"sessionId": session, "stream_id": sid, "animal": "paced"}
    first = server.turn("x", **fields).read_frames(4)
    second = server.turn("x", **fields).read_all()
    made_up = server.turn("x", stream_id=sid, animal="paced").read_all()
    first.read_all()
    e2e.check_equal(second.bytes(), first.bytes(), "the second reader's")
    e2e.check_equal(made_up.bytes(), first.bytes(), "the third reader's")
    e2e.check_equal(len(server.history(session)["turns"]), 1, "turns")


@e2e.test
def a_session_alone_follows_its_live_turn(server):
    session = new_session()
    e2e.check_equal(server.get(URL, {"sessionId": session}).status, 204,
                    "status without a session")
    stream = server.turn("x", "paced", sessionId=session).read_frames(3)
    other = e2e.Stream(server.get(URL, {"sessionId": session}), 0).read_all()
    e2e.check_equal(other.bytes(), stream.read_all().bytes(), "what it saw")
    e2e.check_equal(server.get(URL, {"sessionId": session}).status, 204,
                    "status afterwards")
    response = server.get(URL, {"sessionId": session},
                          [("Last-Event-ID", "3")])
    e2e.check_equal((response.status, response.json()["error_type"]),
                    (400, "stream_id_required"), "a cursor alone")


# ---- typing ----

def check_typing(frames):
    """Paired, and in its place; returns by how many seconds the duration
    that was told differs from what was seen."""
    typing = [f for f in frames if f.event == "typing"]
    e2e.check_equal([f.data["status"] for f in typing], ["start", "stop"],
                    "typing")
    e2e.check_equal((typing[0].id, typing[1].id), (1, frames[-1].id - 1),
                    "their places")
    return abs(typing[1].at - typing[0].at -
               typing[1].data["duration_ms"] / 1000)


def stop(server, stream):
    server.post("/api/v1/streams/%s/stop" % stream.stream_id)


def kill(server, stream):
    server.kill_all("respool-spooler")


@e2e.test
def typing_is_paired_and_timed_however_a_turn_ends(server):
    for animal, end, event, word in (
            ("live", None, "complete", "stop"),
            ("endless", stop, "complete", "stopped"),
            ("fails", None, "error", "overloaded"),
            ("endless", kill, "error", "generation_lost")):
        def attempt():
            stream = server.turn("x", animal).read_frames(8)
            if end is not None:
                end(server, stream)
            frames = stream.read_all().frames
            last = frames[-1]
            e2e.check_equal((last.event, last.data.get(
                "finish_reason", last.data.get("error_type"))),
                (event, word), "the end")
            return check_typing(frames)
        e2e.check_soon(attempt, 0.05,
                       "what duration_ms was off at %s," % word)


# ---- one answer ----

@e2e.test
def one_answer_has_all_fields_and_the_text(server):
    status, answer = server.whole("Hello there", "echo")
    e2e.check_equal(status, 200, "status")
    e2e.check_equal((answer["content"], answer["finish_reason"],
                     answer["turn"], answer["length"]),
                    ("Hello there", "stop", 1, 11), "the answer")


@e2e.test
def one_answer_that_fails_is_a_502(server):
    status, answer = server.whole("x", "fails")
    e2e.check_equal((status, answer["error_type"], answer["retryable"],
                     answer["partial"]), (502, "overloaded", True, True),
                    "the failure")
    e2e.check_equal(len(answer["content"].split()), 5, "words so far")


@e2e.test
def white_space_keeps_the_time_outs_away(server):
    for animal, name in (("late", "finish_reason"),
                         ("late-fails", "error_type")):
        response = server.post(URL, {"message": "x", "animalId": animal,
                                     "stream": False})
        e2e.check_equal(response.status, 200, "status")
        body = response.read()
        e2e.check(body.startswith(b" "), "no white space: %r" % body[:99])
        e2e.check(name in e2e.parse_json(body.strip()), "no " + name)


@e2e.test
def one_answer_survives_the_spooler_and_tells(server):
    stream = server.turn("x", "endless", stream_id="lost-1").read_frames(5)
    got = []
    thread = threading.Thread(target=lambda: got.append(
        server.whole("x", "endless", stream_id="lost-1")))
    thread.start()
    e2e.wait_until(lambda: len(server.follows("lost-1")) == 2, 10,
                   "the second reader")
    server.kill_all("respool-spooler")
    thread.join()
    frames = stream.read_all().frames
    (status, answer), = got
    e2e.check(status in (200, 502), "status %d" % status)
    e2e.check_equal(answer["error_type"], "generation_lost", "error_type")
    e2e.check_equal(answer["content"], text_of(frames), "the text")


@e2e.test
def a_responder_that_must_go_says_so(server):
    got = []
    thread = threading.Thread(target=lambda: got.append(
        server.whole("x", "hangs", stream_id="going-1")))
    thread.start()
    e2e.wait_until(lambda: server.follows("going-1"), 10, "the reader")
    for pid in server.responders():
        e2e.kill(pid, signal.SIGTERM)
    thread.join()
    (status, answer), = got
    e2e.check(status in (200, 503), "status %d" % status)
    e2e.check_equal(answer["error_type"], "draining", "error_type")

    def attempt():
        try:
            return server.post("/api/v1/streams/going-1/stop").json()
        except (OSError, AssertionError):  # lighttpd's own, for a moment
            return None
    e2e.check_equal(e2e.wait_until(attempt, 10, "a stop")["state"], "stopped",
                    "state")


# ---- turns of one session ----

@e2e.test
def the_second_turn_waits_for_the_first(server):
    session = new_session()
    first = server.turn("one", "live", sessionId=session).read_frames(4)
    second = server.turn("two", "echo", sessionId=session).read_frames(2)
    third = server.turn("three", "echo", sessionId=session)
    e2e.check_equal(second.frames[0].data["turn"], 2, "turn")
    for stream in (first, second, third):
        stream.read_all()
    begun = [f.at for f in second.frames if f.event == "message"][0]
    e2e.check(begun >= first.frames[-1].at - 0.05, "it did not wait")
    turns = server.history(session)["turns"]
    e2e.check_equal([(t["turn"], t["user"]["content"], t["state"])
                     for t in turns],
                    [(1, "one", "finished"), (2, "two", "finished"),
                     (3, "three", "finished")], "the history")
    # A word is a token to the demo: 3 of the system's, and what was said.
    e2e.check_equal([t["assistant"]["usage"]["input"] for t in turns],
                    [3 + 1, 3 + 1 + 12 + 1, 3 + 1 + 12 + 1 + 1 + 1],
                    "what the model was told")


@e2e.test
def a_turn_that_waits_can_be_stopped(server):
    session = new_session()
    first = server.turn("one", "endless", sessionId=session).read_frames(4)
    second = server.turn("two", "echo", sessionId=session).read_frames(2)
    third = server.turn("three", "echo", sessionId=session).read_frames(2)
    stop(server, second)
    check_typing(second.read_all().frames)
    e2e.check_equal(events_of(second.frames),
                    ["metadata", "typing", "typing", "complete"], "events")
    stop(server, first)
    e2e.check_equal(text_of(third.read_all().frames), "three", "the third")
    e2e.check_equal([t["state"] for t in server.history(session)["turns"]],
                    ["stopped", "stopped", "finished"], "states")


@e2e.test
def by_setting_the_second_turn_gets_a_conflict(server):
    with Server(models=MODELS, settings={"turns_at_once": "conflict"}) as s:
        fields = {"sessionId": "one", "message": "x"}
        first = s.turn("x", "endless", sessionId="one").read_frames(4)
        response = s.post(URL, fields)
        e2e.check_equal((response.status, response.json()["error_type"]),
                        (409, "conflict"), "the second")
        other = s.turn("x", "echo", sessionId="two").read_all()
        e2e.check_equal(other.frames[-1].event, "complete", "another session")
        stop(s, first)
        first.read_all()
        e2e.check_equal(s.turn("x", "echo", sessionId="one").read_all()
                        .frames[0].data["turn"], 2, "the next turn")


@e2e.test
def a_turn_after_a_lost_one_finds_it_ended(server):
    session = new_session()
    stream = server.turn("one", "endless", sessionId=session).read_frames(9)
    stream.close()
    server.kill_all("respool-spooler")
    server.turn("two", "echo", sessionId=session).read_all()
    first, second = server.history(session)["turns"]
    e2e.check_equal((first["state"], first["assistant"]["error_type"],
                     second["state"]),
                    ("failed", "generation_lost", "finished"), "states")
    words = len(first["assistant"]["content"].split())
    e2e.check(words >= 7, "%d words are left of the first" % words)
    e2e.check_equal(second["assistant"]["usage"]["input"],
                    3 + 1 + words + 1, "what the model was told")


@e2e.test
def the_history_that_is_told_fits_its_budget(server):
    with Server(models=MODELS, settings={"history_tokens": 20}) as s:
        for _ in range(5):
            s.turn("12345678 12345 1", "echo", sessionId="s").read_all()
        told = [t["assistant"]["usage"]["input"]
                for t in s.history("s")["turns"]]
        # A turn has 32 bytes, 8 tokens, 6 words: two fit.
        e2e.check_equal(told, [6, 12, 18, 18, 18], "what the model was told")


# ---- the history ----

@e2e.test
def the_history_comes_as_events(server):
    session = new_session()
    for text in ("one", "two", "three"):
        server.turn(text, "echo", sessionId=session).read_all()
    turns = server.history(session)["turns"]
    for headers in ([], [("Accept", "text/event-stream")],
                    [("Accept", "*/*")]):
        stream = e2e.Stream(server.get(HISTORY, {"sessionId": session},
                                       headers)).read_all()
        e2e.check_equal([(f.event, f.id) for f in stream.frames],
                        [("history", 1), ("history", 2), ("history", 3),
                         ("complete", 4)], "events")
        e2e.check_equal([f.data for f in stream.frames[:3]], turns, "turns")
        e2e.check_equal(stream.frames[3].data, {
            "sessionId": session, "turns": 3, "has_more": False}, "complete")
    e2e.check_equal(set(turns[0]), {"turn", "state", "stream_id", "animalId",
                                    "user", "assistant"}, "fields")
    for after in range(4):
        rest = e2e.Stream(server.get(HISTORY, {"sessionId": session},
                                     [("Last-Event-ID", str(after))]))
        e2e.check_equal([f.id for f in rest.read_all().frames],
                        list(range(after + 1, 5)), "after %d" % after)
    e2e.check_equal(server.get(HISTORY, {
        "sessionId": session, "last_event_id": 4}).status, 204,
        "status after the last one")


@e2e.test
def the_history_is_paged(server):
    session = new_session()
    for n in range(5):
        server.turn("m%d" % (n + 1), "echo", sessionId=session).read_all()
    for fields, want, more in (
            ({}, [1, 2, 3, 4, 5], False),
            ({"limit": 5}, [1, 2, 3, 4, 5], False),
            ({"limit": 2}, [4, 5], True),
            ({"limit": 2, "before": 4}, [2, 3], True),
            ({"limit": 2, "before": 2}, [1], False),
            ({"before": 1}, [], False),
            ({"before": 99, "limit": 1}, [5], True)):
        page = server.history(session, **fields)
        e2e.check_equal(([t["turn"] for t in page["turns"]],
                         page["has_more"]), (want, more), repr(fields))
        stream = e2e.Stream(server.get(HISTORY, {"sessionId": session,
                                                 **fields})).read_all()
        e2e.check_equal(([f.id for f in stream.frames[:-1]],
                         stream.frames[-1].data["has_more"]), (want, more),
                        repr(fields) + " as events")
    for bad in ({"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"before": 0},
                {"before": "x"}, {"last_event_id": -2},
                {"sessionId": "../x"}, {"sessionId": ""}):
        e2e.check_equal(server.get(HISTORY, {"sessionId": session,
                                             **bad}).status, 400, repr(bad))


@e2e.test
def a_long_turn_is_one_event_of_the_history(server):
    session, text = new_session(), "long " * 30000
    server.turn(text, "echo", sessionId=session).read_all()
    body = server.get(HISTORY, {"sessionId": session}).read()
    data, = [line for line in body.split(b"\n")
             if line.startswith(b'data: {"turn":1,')]
    turn = e2e.parse_json(data[6:])
    e2e.check_equal(turn["assistant"]["content"], text, "the answer")


@e2e.test
def a_page_that_loads_within_an_answer_sees_all_of_it_once(server):
    session = new_session()
    server.turn("one", "echo", sessionId=session).read_all()
    live = server.turn("two", "live", sessionId=session).read_frames(6)
    first, second = server.history(session)["turns"]
    e2e.check_equal((first["state"], second["state"], second["assistant"],
                     second["stream_id"], second["user"]["content"]),
                    ("finished", "live", None, live.stream_id, "two"),
                    "the turns")
    rest = e2e.Stream(server.get(URL, {"stream_id": second["stream_id"]}), 0)
    rest.read_all()
    live.read_all()
    e2e.check_equal(rest.bytes(), live.bytes(), "what it followed")
    second = server.history(session)["turns"][1]
    e2e.check_equal((second["state"], second["assistant"]["content"]),
                    ("finished", text_of(live.frames)), "the turn then")


@e2e.test
def a_turn_that_was_never_made_is_none(server):
    session = new_session()
    server.turn("one", "echo", sessionId=session).read_all()
    line = {"turn": 2, "role": "user", "time": "2031-05-04T10:22:07.113Z",
            "stream_id": "never-made", "animal": "echo", "content": "two"}
    with open(server.session_path(session), "a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    e2e.check_equal(len(server.history(session)["turns"]), 1, "turns")
    e2e.check_equal(server.get(URL, {"sessionId": session}).status, 204,
                    "status of a follow")
    server.turn("three", "echo", sessionId=session).read_all()
    e2e.check_equal([t["user"]["content"]
                     for t in server.history(session)["turns"]],
                    ["one", "three"], "turns")


# ---- owners, deleting ----

def answer_of(response):
    headers = sorted(pair for pair in response.headers
                     if pair[0].lower() != "date")
    return response.status, headers, response.read()


@e2e.test
def anothers_session_is_like_one_that_is_missing(server):
    session = new_session()
    stream = server.turn("secret", "endless", sessionId=session,
                         user_id="ann").read_frames(3)

    def all_answers(name, user):
        fields = {"sessionId": name, "user_id": user}
        return [answer_of(r) for r in (
            server.get(HISTORY, fields), server.get(HISTORY, fields, JSON),
            server.get(HISTORY, {**fields, "before": 1}),
            server.get(HISTORY, fields, [("Last-Event-ID", "7")]),
            server.get(URL, fields),
            server.request("DELETE", HISTORY + "?" +
                           urlencode(fields)).read_head(),
            server.get(URL, {**fields, "stream_id": stream.stream_id
                             if name == session else "missing"}))]

    for user in ("bob", "anonymous"):
        e2e.check_equal(all_answers(session, user),
                        all_answers("missing", user), "answers to " + user)
    e2e.check_equal(server.history(session, user_id="ann")["turns"][0]
                    ["state"], "live", "state")
    bobs = server.turn("mine", "echo", sessionId=session, user_id="bob")
    e2e.check_equal(bobs.read_all().frames[0].data["turn"], 1, "bob's turn")
    stop(server, stream)


@e2e.test
def a_deleted_session_is_gone_with_its_streams(server):
    session = new_session()
    first = server.turn("one", "echo", sessionId=session).read_all()
    live = server.turn("two", "endless", sessionId=session).read_frames(5)
    waits = server.turn("three", "echo", sessionId=session).read_frames(2)
    target = HISTORY + "?sessionId=" + session
    e2e.check_equal(server.request("DELETE", target).read_head().status, 204,
                    "status")
    for stream in (live, waits):
        e2e.check_equal(stream.read_all().frames[-1].event, "complete",
                        "the end of what was live")
    e2e.check(not os.path.exists(server.session_path(session)),
              "its file is there")
    for stream in (first, live, waits):
        e2e.check_equal(server.get(URL, {"stream_id": stream.stream_id})
                        .status, 404, "status of its stream")
    for method in ("DELETE", "GET"):
        e2e.check_equal(server.request(method, target).read_head().status,
                        404, "status of %s afterwards" % method)
    e2e.check_equal(server.turn("x", "echo", sessionId=session).read_all()
                    .frames[0].data["turn"], 1, "a new one's turn")


@e2e.test
def an_old_session_is_swept_and_a_live_one_is_not(server):
    old, live, young = new_session(), new_session(), new_session()
    for session in (old, young):
        server.turn("x", "echo", sessionId=session).read_all()
    stream = server.turn("x", "endless", sessionId=live).read_frames(3)
    past = time.time() - 31 * 86400
    for session in (old, live):
        os.utime(server.session_path(session), (past, past))
    result = server.ctl("gc")
    e2e.check_equal(result.returncode, 0, "gc: " + result.stderr)
    e2e.check_equal([os.path.exists(server.session_path(s))
                     for s in (old, live, young)], [False, True, True],
                    "what is there")
    stop(server, stream)


# ---- what is refused ----

def things_on_the_disk(server):
    """What others have begun may end meanwhile."""
    sessions = {}
    for path in glob.glob(server.spool + "/conversations/*/*"):
        with open(path, "rb") as f:
            sessions[path] = f.read()
    return server.stream_files(), server.usage_lines("reserve"), sessions


@e2e.test
def what_is_wrong_is_refused_before_anything_is_written(server):
    known = server.turn("x", "echo", stream_id="known-1",
                        sessionId="known").read_all()
    server.start_stream(message="x", stream_id="plain-1").read_all()
    before = things_on_the_disk(server)
    for fields, status, kind in (
            ({}, 400, "invalid_request"),
            ({"sessionId": "s"}, 400, "invalid_request"),
            ({"message": ""}, 400, "invalid_request"),
            ({"message": " \u00a0\n"}, 400, "invalid_request"),
            ({"message": 5}, 400, "invalid_request"),
            ({"message": "x", "animalId": "tiger"}, 404, "not_found"),
            ({"message": "x", "animalId": "../echo"}, 404, "not_found"),
            ({"message": "x", "animalId": ""}, 404, "not_found"),
            ({"message": "x", "animalId": 5}, 400, "invalid_request"),
            ({"message": "x", "sessionId": "a/b"}, 400, "invalid_request"),
            ({"message": "x", "sessionId": "a" * 65}, 400, "invalid_request"),
            ({"message": "x", "stream": "yes"}, 400, "invalid_request"),
            ({"message": "x", "stream": 1}, 400, "invalid_request"),
            ({"message": "x", "stream_id": "a b"}, 400, "invalid_request"),
            ({"message": "x", "last_event_id": 3}, 400, "stream_id_required"),
            ({"message": "x", "stream": False, "last_event_id": 3}, 400,
             "stream_id_required"),
            ({"message": "x", "stream_id": "unseen", "last_event_id": 3}, 404,
             "stream_not_found"),
            ({"message": "x", "stream_id": "unseen", "last_event_id": 3,
              "stream": False}, 404, "stream_not_found"),
            ({"stream_id": "unseen"}, 404, "stream_not_found"),
            ({"message": "y", "stream_id": "known-1"}, 409, "conflict"),
            ({"message": "x", "stream_id": "known-1", "sessionId": "other"},
             409, "conflict"),
            ({"message": "x", "stream_id": "known-1", "animalId": "live"},
             409, "conflict"),
            ({"message": "x", "stream_id": "plain-1"}, 409, "conflict")):
        response = server.post(URL, fields)
        e2e.check_equal((response.status, response.json()["error_type"]),
                        (status, kind), repr(fields))
    response = server.post("/api/v1/stream", {"stream_id": "known-1",
                                              "message": "x"})
    e2e.check_equal(response.status, 409, "the other way round")
    head = server.request("HEAD", URL + "?message=x").read_head()
    e2e.check_equal(head.status, 200, "status of a HEAD")
    head = server.request("HEAD", URL + "?message=x&stream=false").read_head()
    e2e.check_equal(head.status, 200, "status of a HEAD")
    e2e.check_equal(things_on_the_disk(server), before, "the disk")
    same = server.turn("x", "echo", stream_id="known-1").read_all()
    e2e.check_equal(same.bytes(), known.bytes(), "the same request")


@e2e.test
def every_route_has_cors_and_is_not_cached(server):
    session = new_session()
    stream = server.turn("x", "echo", sessionId=session).read_all()
    page = [("Origin", "https://page.example")]
    sse, plain = "no-cache, no-store, no-transform", "no-store"
    for response, status, cache in (
            (server.get(URL, {"stream_id": stream.stream_id}, page), 200, sse),
            (server.post(URL, {"message": "x"}, page), 200, sse),
            (server.post(URL, {"message": "x", "stream": False}, page), 200,
             plain),
            (server.post(URL, {"message": "x", "animalId": "fails",
                               "stream": False}, page), 502, plain),
            (server.post(URL, {}, page), 400, plain),
            (server.post(URL, {"message": "x", "animalId": "?"}, page), 404,
             plain),
            (server.get(URL, {"sessionId": "none"}, page), 204, plain),
            (server.get(HISTORY, {"sessionId": session}, page), 200, sse),
            (server.get(HISTORY, {"sessionId": session}, page + JSON), 200,
             plain),
            (server.get(HISTORY, {"sessionId": "none"}, page), 404, plain),
            (server.get("/api/personas", None, page), 200, plain),
            (server.request("DELETE", HISTORY + "?sessionId=" + session,
                            page).read_head(), 204, plain)):
        e2e.check_equal(response.status, status, "status")
        e2e.check_equal(response.header("Access-Control-Allow-Origin"), "*",
                        "Access-Control-Allow-Origin")
        e2e.check_equal(response.header("Cache-Control"), cache,
                        "Cache-Control")
        response.close()
    for path, allow in ((URL, "GET, HEAD, POST, OPTIONS"),
                        (HISTORY, "GET, HEAD, DELETE, OPTIONS"),
                        ("/api/personas", "GET, HEAD, OPTIONS")):
        response = server.request("OPTIONS", path, page + [
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type")]).read_head()
        e2e.check_equal((response.status, response.header("Allow"),
                         response.header("Access-Control-Allow-Methods")),
                        (204, allow, "GET, POST, DELETE"), path)
        e2e.check("Last-Event-ID" in
                  response.header("Access-Control-Allow-Headers"), path)
        e2e.check_equal(server.request("PUT", path).read_head().status, 405,
                        path)


# ---- personas ----

@e2e.test
def personas_are_listed_without_their_prompts(server):
    answer = server.get("/api/personas").json()
    e2e.check_equal(answer["default"], "echo", "default")
    e2e.check_equal([p["id"] for p in answer["personas"]], sorted(PERSONAS),
                    "ids")
    e2e.check_equal(answer["personas"][0], {
        "id": "echo", "name": "ECHO", "greeting": "Hi!"}, "a persona")


def check_settings(server):
    return subprocess.run([os.path.join(server.bin, "respool.fcgi"), "-t"],
                          env=server.env, stdin=subprocess.DEVNULL,
                          capture_output=True, encoding="utf-8", timeout=60,
                          check=False)


@e2e.test
def a_changed_persona_speaks_from_the_next_turn_on(server):
    session = new_session()
    server.write_persona("moody", model="echo")
    before = server.turn("x", "moody", sessionId=session).read_all()
    server.write_persona("moody", name="MOODY TWO", model="live")
    after = server.turn("x", "moody", sessionId=session).read_all()
    server.write_persona("moody", name=7)
    kept = server.turn("x", "moody", sessionId=session).read_all()
    e2e.check_equal([(s.frames[0].data["name"], s.frames[0].data["model"])
                     for s in (before, after, kept)],
                    [("MOODY", "echo"), ("MOODY TWO", "live"),
                     ("MOODY TWO", "live")], "who spoke")
    result = server.ctl("personas")
    e2e.check_equal(result.returncode, 1, "exit status with a fault")
    e2e.check("moody.json: name: " in result.stderr, result.stderr)
    server.write_persona("moody", model="no-such")
    for result in (server.ctl("personas"), check_settings(server)):
        e2e.check_equal(result.returncode, 1, "exit status with a fault")
        e2e.check("persona moody: there is no model no-such" in result.stderr,
                  result.stderr)
    os.unlink(os.path.join(server.personas, "moody.json"))
    response = server.post(URL, {"message": "x", "animalId": "moody"})
    e2e.check_equal(response.status, 404, "status when it has gone")
    result = server.ctl("personas")
    e2e.check_equal(result.returncode, 0, "exit status: " + result.stderr)
    e2e.check("ECHO (default)" in result.stdout, result.stdout)
    e2e.check_equal(check_settings(server).returncode, 0, "exit status of -t")


# ---- everything at once ----

class Talker:
    """Has turns in one session, whatever happens to the processes."""

    def __init__(self, server, session, turns, animal="paced"):
        self.server = server
        self.session = session
        self.count = turns
        self.animal = animal
        self.turns = []  # (stream_id, message, text, terminal frame)

    def _attempt(self, sid, message, frames):
        """Reads on; its end is seen in frames."""
        fields = {"stream_id": sid, "user_id": "many"}
        if frames:
            stream = self.server.go_on(frames[-1].id, **fields)
        else:
            stream = self.server.turn(message, self.animal,
                                      sessionId=self.session, **fields)
        try:
            while stream.read_some():
                frames += stream.frames[len(frames) - self.before:]
        finally:
            frames += stream.frames[len(frames) - self.before:]
            stream.close()

    def run(self, done, first=0):
        for n in range(first, self.count):
            sid = "%s-turn-%d" % (self.session, n)
            message, frames = "message %d" % n, []
            deadline = time.monotonic() + 60
            while not frames or frames[-1].event not in e2e.TERMINAL:
                e2e.check(time.monotonic() < deadline, sid + " has no end")
                self.before = len(frames)
                try:
                    self._attempt(sid, message, frames)
                except (OSError, e2e.Malformed) as e:
                    if "not a frame" in str(e) or "was due" in str(e):
                        raise
                    time.sleep(0.02)
            e2e.check_equal([f.id for f in frames], list(range(len(frames))),
                            "ids of " + sid)
            self.turns.append((sid, message, text_of(frames), frames[-1]))
            done.append(sid)

    def check(self):
        turns = self.server.history(self.session, user_id="many")["turns"]
        e2e.check_equal([t["user"]["content"] for t in turns],
                        [t[1] for t in self.turns], "what was asked")
        numbers = [t["turn"] for t in turns]
        e2e.check(numbers == sorted(set(numbers)), "numbers %r" % numbers)
        for told, (sid, _, text, last) in zip(turns, self.turns):
            answer = told["assistant"]
            e2e.check_equal((told["stream_id"], answer["content"]),
                            (sid, text), "a turn")
            if last.event == "complete":
                e2e.check_equal((told["state"], answer["usage"]),
                                ("finished", last.data["usage"]), sid)
            else:
                # The line may be older than the death of its writer.
                e2e.check(told["state"] in ("failed", "finished"), sid)
        with open(self.server.session_path(self.session, "many"), "rb") as f:
            lines = []
            for line in f:
                with contextlib.suppress(e2e.Malformed):  # cut by a crash
                    lines.append(e2e.parse_json(line))
        e2e.check_equal(len({(l["stream_id"], l["role"]) for l in lines}),
                        2 * self.count, "lines of different turns")


@e2e.test
def histories_survive_the_death_of_all_processes(server):
    talkers = [Talker(server, "many-%d" % n, 5) for n in range(20)]
    done, failed = [], []

    def run(talker):
        try:
            talker.run(done)
        except Exception as e:  # told below
            failed.append("%s: %r" % (talker.session, e))

    threads = [threading.Thread(target=run, args=(t,), daemon=True)
               for t in talkers]
    for thread in threads:
        thread.start()
    for n, program in enumerate(["respool.fcgi", "respool-spooler"] * 4):
        e2e.wait_until(lambda: len(done) >= 10 * (n + 1) or failed, 60,
                       "the next turns")
        server.kill_all(program)
    for thread in threads:
        thread.join()
    e2e.check(not failed, "; ".join(failed[:3]))
    ends = [t[3].event for talker in talkers for t in talker.turns]
    print("      %d turns, %d complete" % (len(ends), ends.count("complete")))
    for talker in talkers:
        talker.check()


@e2e.test
def a_turn_survives_the_death_of_its_spooler_at_each_write(server):
    with DirectServer(models=MODELS) as own:
        own.turn("the spooler runs", "echo").read_all()
        # The user's line, reserve, settle, the assistant's; head, first
        # frames, the message, the end.
        for call in ("usage", "write"):
            for when in ("before", "within", "after"):
                for nth in range(1, 5):
                    session = "%s-%s-%d" % (call, when, nth)
                    own.spooler_pause.order(call, nth, when)
                    talker = Talker(own, session, 1, "echo")
                    talker.run([])
                    e2e.check(own.spooler_pause.hit, session + " killed none")
                    own.spooler_pause.cancel()
                    talker.count = 2
                    talker.run([], 1)
                    talker.check()


if __name__ == "__main__":
    e2e.main(Server, models=MODELS, procs=2)
