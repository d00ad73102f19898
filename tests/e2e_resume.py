#!/usr/bin/env -S python3 -B
"""Whoever comes back misses nothing and gets nothing twice."""

import random
import threading

import e2e

MODELS = {
    "default": "short",
    "models": {
        "short": {"provider": "demo", "chunks": 30},
        "live": {"provider": "demo", "chunks": 40, "interval_ms": 50},
        "busy": {"provider": "demo", "chunks": 2000, "interval_ms": 50},
    },
}


def after(server, stream_id, last_id):
    """What a resume after last_id must give, from the file."""
    return b"".join(f.raw for f in server.stream_frames(stream_id)
                    if f.id > last_id)


def in_threads(count, work):
    """Runs work(0) ... work(count - 1) at once; fails with the first fault."""
    faults = []

    def run(number):
        try:
            work(number)
        except Exception as e:  # told by the main thread
            faults.append("%d: %s: %s" % (number, type(e).__name__, e))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    e2e.check(not faults, "%d of %d failed: %s"
              % (len(faults), count, "; ".join(faults[:3])))


@e2e.test
def an_ended_stream_resumes_after_every_id_in_another_process(server):
    first = server.start_stream(message="x").read_all()
    sid = first.stream_id
    # lighttpd gives requests to the process that has the fewest.
    busy = server.start_stream(message="x", model="busy").read_frames(1)
    for last_id in range(-1, first.frames[-1].id):
        want = after(server, sid, last_id)
        for by in ("header", "parameter"):
            got = server.resume(last_id, by, stream_id=sid).read_all()
            e2e.check_equal(got.bytes(), want, "after %d" % last_id)
    busy.close()
    pids = server.follows(sid)
    e2e.check(len(pids) > 60, "%d follows in the log" % len(pids))
    e2e.check(set(pids[1:]) - {pids[0]}, "one process served all")


@e2e.test
def a_live_stream_resumes_after_every_id_in_other_processes(server):
    """One thread follows a live stream; each frame that it gets makes two
    readers that come back after it."""
    first = server.start_stream(message="x", model="live")
    sid = first.stream_id
    faults, threads, results = [], [], []

    def reader(last_id, by):
        try:
            stream = server.resume(last_id, by, stream_id=sid)
            results.append((last_id, stream.read_all().bytes()))
        except Exception as e:  # told by the main thread
            faults.append("after %d by %s: %r" % (last_id, by, e))

    for last_id in range(-1, 40):
        first.read_frames(last_id + 1)
        for by in ("header", "parameter"):
            thread = threading.Thread(target=reader, args=(last_id, by))
            thread.start()
            threads.append(thread)
    first.read_all()
    for thread in threads:
        thread.join()
    e2e.check(not faults, "; ".join(faults[:3]))
    e2e.check_equal(len(results), 82, "readers")
    for last_id, got in results:
        e2e.check_equal(got, after(server, sid, last_id),
                        "after %d" % last_id)
    e2e.check_equal(first.bytes(), server.stream_bytes(sid), "the first")
    pids = server.follows(sid)
    e2e.check(len(set(pids)) > 1, "one process served all")


@e2e.test
def fifty_readers_come_and_go_and_each_sees_the_file(server):
    first = server.start_stream(message="x", model="live")
    sid = first.stream_id

    def reader(number):
        dice = random.Random(number)
        seen, got = -1, b""
        while True:
            stream = server.resume(seen, dice.choice(["header", "parameter"]),
                                   stream_id=sid)
            count = dice.randint(1, 12)
            while len(stream.frames) < count and stream.read_some():
                pass
            got += stream.bytes()
            if stream.frames:
                seen = stream.frames[-1].id
            stream.close()
            if stream.ended:
                break
        e2e.check_equal(got, server.stream_bytes(sid), "what came")

    in_threads(50, reader)
    first.read_all()


@e2e.test
def nothing_seen_means_from_the_start(server):
    first = server.start_stream(message="x").read_all()
    sid = first.stream_id
    url = "/api/v1/stream"
    for what, response in (
            ("no cursor", server.get(url, {"stream_id": sid})),
            ("header -1", server.get(url, {"stream_id": sid},
                                     [("Last-Event-ID", "-1")])),
            ("empty header", server.get(url, {"stream_id": sid},
                                        [("Last-Event-ID", "")])),
            ("query -1", server.get(url, {"stream_id": sid,
                                          "last_event_id": "-1"})),
            ("empty query", server.get(url, {"stream_id": sid,
                                             "last_event_id": ""})),
            ("JSON null", server.post(url, {"stream_id": sid,
                                            "last_event_id": None})),
            ("JSON -1", server.post(url, {"stream_id": sid,
                                          "last_event_id": -1})),
            ("the same message", server.post(url, {"stream_id": sid,
                                                   "message": "x"}))):
        got = e2e.Stream(response, 0).read_all()
        e2e.check_equal(got.bytes(), first.bytes(), what)


@e2e.test
def the_header_wins_over_the_parameter(server):
    first = server.start_stream(message="x").read_all()
    response = server.get(
        "/api/v1/stream",
        {"stream_id": first.stream_id, "last_event_id": "3"},
        [("Last-Event-ID", "20")])
    got = e2e.Stream(response, 21).read_all()
    e2e.check_equal(got.bytes(), after(server, first.stream_id, 20), "rest")


@e2e.test
def the_terminal_id_gets_204(server):
    first = server.start_stream(message="x").read_all()
    last = str(first.frames[-1].id)
    for response in (
            server.get("/api/v1/stream", {"stream_id": first.stream_id},
                       [("Last-Event-ID", last)]),
            server.get("/api/v1/stream", {"stream_id": first.stream_id,
                                          "last_event_id": last})):
        e2e.check_equal(response.status, 204, "status")
        e2e.check_equal(response.read(), b"", "body")


@e2e.test
def a_cursor_that_cannot_be_gets_400(server):
    first = server.start_stream(message="x").read_all()
    beyond = str(first.frames[-1].id + 1)
    for cursor in (beyond, "-2", "1.5", "0x1", "1e1", "abc", "+1", " ",
                   "99999999999999999999999"):
        for response in (
                server.get("/api/v1/stream", {"stream_id": first.stream_id,
                                              "last_event_id": cursor}),
                server.post("/api/v1/stream",
                            {"stream_id": first.stream_id},
                            [("Last-Event-ID", cursor)])):
            if cursor == " " and response.status == 200:
                response.close()  # a header of white space is an empty one
                continue
            e2e.check_equal(response.status, 400, "status of %r" % cursor)
            e2e.check_equal(response.json()["error_type"], "invalid_request",
                            "error_type")


@e2e.test
def a_cursor_never_starts_anything(server):
    # The content of files may change: streams of other tests go on.
    before = server.stream_files(), server.usage_lines("reserve")
    for fields, status, kind in (
            ({"message": "x"}, 400, "stream_id_required"),
            ({}, 400, "stream_id_required"),
            ({"stream_id": "never-seen"}, 404, "stream_not_found"),
            ({"stream_id": "never-seen", "message": "x"}, 404,
             "stream_not_found")):
        for response in (
                server.get("/api/v1/stream", fields,
                           [("Last-Event-ID", "0")]),
                server.get("/api/v1/stream", {**fields,
                                              "last_event_id": "7"}),
                server.post("/api/v1/stream", {**fields,
                                               "last_event_id": 7})):
            e2e.check_equal(response.status, status, "status of %r" % fields)
            e2e.check_equal(response.json()["error_type"], kind, "error_type")
    e2e.check_equal((server.stream_files(), server.usage_lines("reserve")),
                    before, "streams and reserves")


@e2e.test
def an_expired_stream_is_gone_and_a_cursor_starts_no_other(server):
    with e2e.Server(models=MODELS, settings={"ttl": 1}) as own:
        first = own.start_stream(message="x", stream_id="old").read_all()
        reserves = len(own.usage_lines("reserve"))

        def expired():
            response = own.get("/api/v1/streams/old")
            response.read()
            return response.status == 404

        e2e.wait_until(expired, 10, "the end of the ttl")
        for fields in ({}, {"message": "x"}):
            response = own.get("/api/v1/stream",
                               {"stream_id": "old", **fields},
                               [("Last-Event-ID", "3")])
            e2e.check_equal(response.status, 404, "status")
            e2e.check_equal(response.json()["error_type"],
                            "stream_not_found", "error_type")
        e2e.check_equal(len(own.usage_lines("reserve")), reserves, "reserves")
        # Without a cursor the id is free again.
        again = own.start_stream(message="y", stream_id="old").read_all()
        e2e.check_equal(len(again.frames), len(first.frames), "frames")


@e2e.test
def another_message_for_a_known_id_is_a_conflict(server):
    first = server.start_stream(message="x").read_all()
    for fields in ({"message": "y"}, {"message": "x", "model": "live"},
                   {"model": "live"}):
        response = server.post("/api/v1/stream",
                               {"stream_id": first.stream_id, **fields})
        e2e.check_equal(response.status, 409, "status of %r" % fields)
        e2e.check_equal(response.json()["error_type"], "conflict",
                        "error_type")


@e2e.test
def a_long_connection_ends_on_a_boundary_and_is_taken_up_again(server):
    with e2e.Server(models=MODELS, settings={"max_connection": 1}) as own:
        stream = own.start_stream(message="x", model="live")
        sid, got, rounds = stream.stream_id, b"", 1
        while not stream.read_all(cut_ok=True).ended:
            e2e.check(stream.parser.retry is not None, "no retry block")
            got += stream.bytes()
            stream = own.resume(stream.frames[-1].id, stream_id=sid)
            rounds += 1
        got += stream.bytes()
        e2e.check(rounds >= 2, "it was never ended")
        e2e.check_equal(got, own.stream_bytes(sid), "all parts")


if __name__ == "__main__":
    e2e.main(models=MODELS, procs=4)
