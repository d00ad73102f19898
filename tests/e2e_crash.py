#!/usr/bin/env -S python3 -B
"""Any process may die at any moment."""

import os
import signal
import time

import e2e

MODELS = {
    "default": "live",
    "models": {
        "live": {"provider": "demo", "chunks": 60, "interval_ms": 50,
                 "prices": {"input": 150000, "output": 600000}},
        # Long enough for a lighttpd that takes a second to start responders.
        "long": {"provider": "demo", "chunks": 300, "interval_ms": 50},
        "short": {"provider": "demo", "chunks": 5},
        "endless": {"provider": "demo", "chunks": 100000, "interval_ms": 20},
    },
}


def resume_when_possible(server, last_id, sid):
    """The web server may be without a responder for a moment."""
    def attempt():
        try:
            return server.resume(last_id, stream_id=sid)
        except (OSError, e2e.Malformed):
            return None
    return e2e.wait_until(attempt, 10, "a resume")


@e2e.test
def the_generation_outlives_every_responder(server):
    stream = server.start_stream(message="x").read_frames(10)
    sid = stream.stream_id
    size = os.path.getsize(server.stream_path(sid))
    server.kill_all("respool.fcgi")
    got, last_id = stream.bytes(), stream.frames[-1].id
    stream.close()
    e2e.wait_until(lambda: os.path.getsize(server.stream_path(sid)) >
                   size + 500, 5, "the growth of the file")
    rest = resume_when_possible(server, last_id, sid).read_all()
    e2e.check_equal(rest.frames[-1].event, "done", "last event")
    e2e.check_equal(got + rest.bytes(), server.stream_bytes(sid), "both parts")
    e2e.check_equal(len(rest.frames) + last_id + 1, 61, "frames")


@e2e.test
def responders_may_die_again_and_again(server):
    stream = server.start_stream(message="x", model="long").read_frames(3)
    sid, got = stream.stream_id, b""
    for _ in range(4):
        server.kill_all("respool.fcgi")
        got += stream.bytes()
        last_id = stream.frames[-1].id
        stream.close()
        stream = resume_when_possible(server, last_id, sid)
        stream.read_frames(2)
    got += stream.read_all().bytes()
    e2e.check_equal(got, server.stream_bytes(sid), "all parts")
    e2e.check_equal(len(server.usage_lines("reserve", sid)), 1, "reserves")


def announce(server):
    """Kills the spooler of four streams; when the last reader learnt it."""
    streams = [server.start_stream(message="x", model="endless")
               .read_frames(5) for _ in range(4)]
    e2e.check_equal(len(server.spoolers()), 1, "spoolers")
    killed_at = time.monotonic()
    server.kill_all("respool-spooler")
    for stream in streams:
        last = stream.read_all().frames[-1]
        e2e.check_equal(last.event, "error", "last event")
        e2e.check_equal(last.data["error_type"], "generation_lost",
                        "error_type")
        e2e.check_equal(last.data["partial"], True, "partial")
        e2e.check_equal(server.stream_bytes(stream.stream_id),
                        stream.bytes(), "file")
    return max(stream.frames[-1].at for stream in streams) - killed_at


@e2e.test
def a_dead_spooler_is_announced_within_a_second(server):
    e2e.check_soon(lambda: announce(server), 1, "the announcement")


@e2e.test
def later_readers_learn_of_a_dead_spooler_at_once(server):
    stream = server.start_stream(message="x", model="endless").read_frames(5)
    sid = stream.stream_id
    stream.close()
    server.kill_all("respool-spooler")
    again = server.resume(4, stream_id=sid).read_all()
    e2e.check_equal(again.frames[-1].data["error_type"], "generation_lost",
                    "error_type")
    third = server.resume(-1, "parameter", stream_id=sid).read_all()
    e2e.check_equal(third.bytes(), server.stream_bytes(sid), "file")


@e2e.test
def the_list_does_not_call_a_lost_stream_live(server):
    streams = [server.start_stream(message="x", model="endless",
                                   user_id="lister").read_frames(1)
               for _ in range(3)]
    for stream in streams:
        stream.close()
    listed = server.get("/api/v1/streams", {"user_id": "lister"}).json()
    e2e.check_equal([s["state"] for s in listed["streams"]], ["live"] * 3,
                    "states")
    server.kill_all("respool-spooler")
    listed = server.get("/api/v1/streams", {"user_id": "lister"}).json()
    e2e.check_equal([s["state"] for s in listed["streams"]], ["failed"] * 3,
                    "states")


@e2e.test
def a_new_request_works_after_the_death_of_the_spooler(server):
    server.start_stream(message="x", model="short").read_all()
    server.kill_all("respool-spooler")
    stream = server.start_stream(message="x", model="short").read_all()
    e2e.check_equal(stream.frames[-1].event, "done", "last event")
    e2e.check_equal(len(server.spoolers()), 1, "spoolers")


@e2e.test
def a_lost_generation_is_counted_once(server):
    stream = server.start_stream(message="x").read_frames(5)
    sid = stream.stream_id
    server.kill_all("respool-spooler")
    stream.read_all()
    server.start_stream(message="x", model="short").read_all()
    server.resume(-1, stream_id=sid).read_all()
    settled = server.usage_lines("settle", sid)
    e2e.check_equal(len(server.usage_lines("reserve", sid)), 1, "reserves")
    e2e.check_equal(len({line["created"] for line in settled}), 1,
                    "generations that were settled")
    e2e.check_equal(settled[0]["error_type"], "generation_lost", "error_type")
    e2e.check(settled[0]["estimated"], "it is not marked as an estimate")


@e2e.test
def everything_may_die_at_once(server):
    stream = server.start_stream(message="x", model="endless").read_frames(5)
    sid, last_id = stream.stream_id, stream.frames[-1].id
    for pid in server.pids():
        e2e.kill(pid, signal.SIGKILL)
    stream.close()
    rest = resume_when_possible(server, last_id, sid).read_all()
    e2e.check_equal(rest.frames[-1].data["error_type"], "generation_lost",
                    "error_type")
    e2e.check_equal(rest.frames[0].id, last_id + 1, "first id")


@e2e.test
def a_stopped_spooler_is_not_a_dead_one(server):
    stream = server.start_stream(message="x").read_frames(5)
    sid = stream.stream_id
    pid, = server.spoolers()
    os.kill(pid, signal.SIGSTOP)
    try:
        again = server.resume(0, stream_id=sid).read_frames(4)
    finally:
        os.kill(pid, signal.SIGCONT)
    again.read_all()
    stream.read_all()
    e2e.check_equal(stream.frames[-1].event, "done", "last event")
    e2e.check_equal(stream.bytes(), server.stream_bytes(sid), "file")


@e2e.test
def a_responder_that_is_told_to_end_does_so_on_a_frame_boundary(server):
    stream = server.start_stream(message="x").read_frames(5)
    sid = stream.stream_id
    for pid in server.responders():
        e2e.kill(pid, signal.SIGTERM)
    stream.read_all(cut_ok=True)
    e2e.check(not stream.ended, "it got to the end")
    e2e.check(stream.parser.retry is not None, "no retry block")
    rest = resume_when_possible(server, stream.frames[-1].id, sid).read_all()
    e2e.check_equal(stream.bytes() + rest.bytes(), server.stream_bytes(sid),
                    "both parts")


@e2e.test
def a_spooler_that_is_told_to_end_ends_its_streams_first(server):
    stream = server.start_stream(message="x").read_frames(5)
    old, = server.spoolers()
    e2e.kill(old, signal.SIGTERM)
    # A successor may already start while the old one still writes.
    other = server.start_stream(message="x", model="short").read_all()
    e2e.check_equal(other.frames[-1].event, "done", "last event of the other")
    e2e.check(set(server.spoolers()) - {old}, "there is no successor")
    stream.read_all()
    e2e.check_equal(stream.frames[-1].event, "done", "last event")
    e2e.check_equal(len(stream.frames), 61, "frames")
    e2e.wait_until(lambda: e2e.is_gone(old), 5, "the end of the old one")


if __name__ == "__main__":
    e2e.main(models=MODELS, procs=3)
