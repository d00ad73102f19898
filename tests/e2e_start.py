#!/usr/bin/env -S python3 -B
"""A prompt is paid for once, whoever asks however often."""

import threading
import time

import e2e

MODELS = {
    "default": "live",
    "models": {
        "live": {"provider": "demo", "chunks": 30, "interval_ms": 30},
        "short": {"provider": "demo", "chunks": 5},
        "endless": {"provider": "demo", "chunks": 100000,
                    "interval_ms": 100},
    },
}
READERS = 20


def post_at_once(count, work):
    """count threads that call work() at the same moment; the results, with
    exceptions among them."""
    results = [None] * count
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait()
        try:
            results[number] = work()
        except Exception as e:  # looked at by the caller
            results[number] = e

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def check_one_generation(server, stream_id):
    e2e.check_equal(len(server.usage_lines("reserve", stream_id)), 1,
                    "reserves of " + stream_id)
    e2e.check_equal(len(server.usage_lines("settle", stream_id)), 1,
                    "settles of " + stream_id)


@e2e.test
def fifty_first_requests_start_one_spooler(server):
    # The first test: nothing has asked for a spooler yet.
    e2e.check_equal(server.spoolers(), [], "spoolers")

    def ask():
        stream = server.start_stream(message="x", model="short")
        return stream.read_all().stream_id

    results = post_at_once(50, ask)
    faults = [r for r in results if isinstance(r, Exception)]
    e2e.check(not faults, "%d failed, as %r" % (len(faults), faults[:2]))
    e2e.check_equal(len(set(results)), 50, "streams")
    e2e.check_equal(len(server.spoolers()), 1, "spoolers")
    started = [line for line in server.log() if " spooler started " in line]
    e2e.check_equal(len(started), 1, "spoolers that were started")


@e2e.test
def equal_posts_at_once_are_one_generation(server):
    def ask():
        stream = server.start_stream(message="x", stream_id="twenty",
                                     user_id="ann")
        return stream.read_all().bytes()

    results = post_at_once(READERS, ask)
    want = server.stream_bytes("twenty", "ann")
    for number, got in enumerate(results):
        e2e.check_equal(got, want, "reader %d" % number)
    check_one_generation(server, "twenty")


@e2e.test
def equal_posts_survive_the_first_responder(server):
    """The responders are killed at a slightly later moment of the first
    request in each round: from before it was read to after it was answered."""
    for number in range(12):
        sid = "killed-%d" % number
        fields = {"message": "x", "stream_id": sid, "user_id": "ann"}

        def ask(fields=fields):
            deadline = time.monotonic() + 20
            while True:
                try:
                    return server.start_stream(**fields).read_all().bytes()
                except (OSError, e2e.Malformed) as e:
                    # The web server may still be without a responder.
                    if time.monotonic() > deadline:
                        raise e
                    time.sleep(0.02)

        victims = server.responders()
        body = ('{"message":"x","stream_id":"%s","user_id":"ann"}'
                % sid).encode()
        first = server.request(
            "POST", "/api/v1/stream", [("Content-Type", "application/json")],
            body)
        time.sleep(number / 2000)
        for pid in victims:
            e2e.kill(pid, 9)
        results = post_at_once(READERS - 1, ask)
        first.close()
        want = server.stream_bytes(sid, "ann")
        for got in results:
            e2e.check_equal(got, want, "a reader of round %d" % number)
        check_one_generation(server, sid)


@e2e.test
def two_owners_may_use_one_id(server):
    for owner in ("ann", "bob"):
        stream = server.start_stream(message=owner, stream_id="same",
                                     user_id=owner, model="short").read_all()
        e2e.check_equal(server.stream_bytes("same", owner), stream.bytes(),
                        "file of " + owner)
    e2e.check_equal(len(server.usage_lines("reserve", "same")), 2, "reserves")


@e2e.test
def beyond_max_streams_starts_are_refused_and_joins_are_not(server):
    with e2e.Server(models=MODELS, settings={"max_streams": 2}) as own:
        streams = [own.start_stream(message="x", model="endless")
                   .read_frames(1) for _ in range(2)]
        response = own.post("/api/v1/stream", {"message": "x"})
        e2e.check_equal(response.status, 503, "status")
        e2e.check(response.header("Retry-After"), "no Retry-After")
        e2e.check_equal(response.json()["error_type"], "too_many_streams",
                        "error_type")
        joined = own.resume(-1, stream_id=streams[0].stream_id)
        joined.read_frames(1)
        own.post("/api/v1/streams/%s/stop" % streams[0].stream_id).json()
        joined.read_all()
        own.start_stream(message="x", model="short").read_all()
        for stream in streams:
            stream.close()


if __name__ == "__main__":
    e2e.main(models=MODELS, procs=4)
