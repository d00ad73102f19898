#!/usr/bin/env -S python3 -B
"""A client that stops reading harms nobody, and misses nothing."""

import os
import selectors
import socket
import time
from urllib.parse import urlencode

import e2e

OTHERS = 200
CHUNKS = 100
STALL = 12  # seconds, more than any single write is given
MEMORY_MAX = 1 << 20
MODELS = {
    "default": "other",
    "models": {
        "other": {"provider": "demo", "chunks": CHUNKS, "interval_ms": 20},
        "hangs": {"provider": "demo", "chunks": 2, "hang_after": 1},
        # More than the buffers on the way to a client take.
        "big": {"provider": "demo", "chunks": 110000},
    },
}
SETTINGS = {"max_stream_bytes": "64M"}


class Crowd:
    """Many streams at once.  What comes is only noted: taking it apart, with
    all checks, waits until the last one has ended."""

    def __init__(self, server, count, **fields):
        self.received = []  # of each its (time, bytes)
        self.responses = []
        self.selector = selectors.DefaultSelector()
        for _ in range(count):
            response = server.request("GET", "/api/v1/stream?" +
                                      urlencode(fields))
            received = []
            self.selector.register(response.sock, selectors.EVENT_READ,
                                   received)
            self.responses.append(response)
            self.received.append(received)

    def run(self, often=lambda: None):
        """Until all have ended; calls often() now and then."""
        while self.selector.get_map():
            ready = self.selector.select(e2e.IO_TIMEOUT)
            e2e.check(ready, "nothing came for %d s" % e2e.IO_TIMEOUT)
            at = time.monotonic()
            for key, _ in ready:
                data = key.fileobj.recv(65536)
                key.data.append((at, data))
                if not data:
                    self.selector.unregister(key.fileobj)
            often()
        self.selector.close()
        return self

    def streams(self):
        return [self._stream(*pair)
                for pair in zip(self.responses, self.received)]

    @staticmethod
    def _stream(response, received):
        stream = None
        for at, data in received:
            body = response.feed(data)
            if stream is None and response.status is not None:
                stream = e2e.Stream(response, 0)
            if body:
                stream.frames += stream.parser.feed(body, at)
        stream.parser.finish()
        e2e.check(response.whole and stream.ended, "a stream is cut short")
        stream.close()
        return stream


def stalled_client(server, **fields):
    """A stream whose client stops to read after the first frame, once all of
    it is in the file."""
    response = server.request(
        "GET", "/api/v1/stream?" + urlencode(fields), receive_buffer=4096)
    stream = e2e.Stream(response, 0).read_frames(1)
    path = server.stream_path(stream.stream_id)
    e2e.wait_until(lambda: ends(path), 60, "the end of the generation")
    return stream


def ends(path):
    with open(path, "rb") as f:
        f.seek(-min(os.path.getsize(path), e2e.FRAME_MAX), os.SEEK_END)
        return b"\n\nevent: done\n" in f.read()


def is_followed(server, sid):
    return not any("follow stream=%s ended" % sid in line
                   for line in server.log())


def private_memory(pid):
    """Bytes that no other process shares."""
    with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
        fields = [line.split() for line in f]
    return sum(int(field[1]) << 10 for field in fields
               if field[0] in ("Private_Clean:", "Private_Dirty:"))


class Watch:
    """Looks at a process's memory, ten times a second at most."""

    def __init__(self, pid):
        self.pid = pid
        self.peak = 0
        self.due = 0

    def __call__(self):
        if time.monotonic() >= self.due:
            self.peak = max(self.peak, private_memory(self.pid))
            self.due = time.monotonic() + 0.1


def others_run(server, pid):
    """The process's memory while they did, at most, and afterwards."""
    watch = Watch(pid)
    for stream in Crowd(server, OTHERS, message="x").run(watch).streams():
        e2e.check_equal([frame.event for frame in stream.frames],
                        ["message_chunk"] * CHUNKS + ["done"], "events")
        e2e.check_equal(stream.text(),
                        "".join("tok%d " % i for i in range(CHUNKS)), "text")
    return watch.peak, private_memory(pid)


def settled_memory(server, pid):
    """As others_run, when threads and heaps have grown to what they need."""
    memory = others_run(server, pid)
    for _ in range(10):
        last, memory = memory, others_run(server, pid)
        if max(memory) - max(last) < MEMORY_MAX / 8:
            break
    return memory


@e2e.test
def a_client_that_stops_reading_costs_no_memory_and_gets_every_byte(server):
    pid, = server.responders()
    # As many streams as later: one with nothing to read is in the place of
    # the one with much.
    quiet = server.start_stream(message="x", model="hangs").read_frames(1)
    before = settled_memory(server, pid)
    server.post("/api/v1/streams/%s/stop" % quiet.stream_id).read()
    quiet.read_all()

    slow = stalled_client(server, message="x", model="big")
    stalled_at = time.monotonic()
    after = [others_run(server, pid)]
    while time.monotonic() - stalled_at < STALL:
        after.append(others_run(server, pid))
    e2e.check(is_followed(server, slow.stream_id), "it did not stall")
    if not e2e.is_sanitized(server.bin + "/respool.fcgi"):
        for what, was, became in zip(("at most", "then"), before, zip(*after)):
            e2e.check(max(became) - was < MEMORY_MAX, "memory %s: %r after %d"
                      % (what, became, was))

    slow.response.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    slow.read_all()
    e2e.check_equal(slow.frames[-1].event, "done", "the last event")
    whole = server.stream_bytes(slow.stream_id)
    e2e.check(len(whole) > 10e6, "%d bytes are too few" % len(whole))
    e2e.check(slow.bytes() == whole, "it did not get what is in the file")
    e2e.wait_until(lambda: not is_followed(server, slow.stream_id), 10,
                   "the end of the follow")


if __name__ == "__main__":
    e2e.main(models=MODELS, settings=SETTINGS, procs=1)
