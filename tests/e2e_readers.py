#!/usr/bin/env -S python3 -B
"""Readers join and leave as they like: each one's bytes are the file's."""

import collections
import os
import random
import signal
import threading

import e2e

MODELS = {
    "default": "live",
    "models": {
        "live": {"provider": "demo", "chunks": 150, "interval_ms": 20},
        # Long enough for a lighttpd that takes a second to start responders.
        "long": {"provider": "demo", "chunks": 250, "interval_ms": 20},
        "words": {"provider": "demo", "interval_ms": 20},
    },
}
READERS = 50
SEED = int(os.environ.get("RESPOOL_SEED", "1"))


class Progress:
    """Follows a stream in a thread: how many frames are in its file."""

    def __init__(self, stream):
        self.stream = stream
        self.count = 0
        self.over = False
        self.news = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while self.stream.read_some():
                self._tell(False)
        finally:
            self._tell(True)

    def _tell(self, over):
        with self.news:
            self.count = len(self.stream.frames)
            self.over = over
            self.news.notify_all()

    def wait_for(self, count):
        """Until so many frames are there, or all."""
        with self.news:
            if not self.news.wait_for(lambda: self.over or
                                      self.count >= count, 60):
                raise AssertionError("there are %d frames, not %d"
                                     % (self.count, count))


class Reader:
    """Has seen all up to a cursor, and collects what comes after it."""

    def __init__(self, server, stream_id, cursor, dice):
        self.server = server
        self.stream_id = stream_id
        self.first_id = cursor + 1
        self.cursor = cursor
        self.dice = dice
        self.got = b""
        self.ended = False
        self.visits = 0
        self.cuts = 0
        self.served = False  # something came

    def visit(self, count, cut_ok=False):
        """Comes (again), takes at least count frames or all, and leaves.
        cut_ok: responders are being killed."""
        by = self.dice.choice(["header", "parameter"])
        stream = None
        self.visits += 1
        try:
            response = self._ask(by, cut_ok)
            if response is None:
                return
            stream = e2e.Stream(response, self.cursor + 1)
            while len(stream.frames) < count and not stream.ended:
                data = stream.response.read_some()
                if not data:
                    break
                stream.frames += stream.parser.feed(data, 0.0)
                self.served = True
            if stream.ended:
                stream.read_all()  # nothing but the end of the answer
            elif stream.response.whole:
                stream.parser.finish()
                e2e.check(stream.parser.retry is not None, "no retry block")
            elif len(stream.frames) < count:
                self.cuts += 1
                e2e.check(cut_ok, "the answer was cut after id %d"
                          % (self.cursor + len(stream.frames)))
        except OSError:
            if not cut_ok:
                raise
        if stream is not None:
            self._take(stream)

    def _ask(self, by, cut_ok):
        """The answer; None: the web server had no responder for it."""
        params = {"stream_id": self.stream_id}
        headers = []
        if by == "header":
            headers.append(("Last-Event-ID", str(self.cursor)))
        else:
            params["last_event_id"] = self.cursor
        response = self.server.get("/api/v1/stream", params, headers)
        if response.status >= 500 and cut_ok:
            response.close()
            return None
        return response

    def _take(self, stream):
        stream.close()
        self.got += stream.bytes()
        if stream.frames:
            self.cursor = stream.frames[-1].id
        self.ended = stream.ended

    def check(self, frames):
        """frames: all of the file's."""
        want = b"".join(f.raw for f in frames[self.first_id:])
        e2e.check_equal(self.got, want, "bytes from id %d on, in %d visits"
                        % (self.first_id, self.visits))


def roam(reader, progress, cut_ok=False):
    """Comes and goes until the end was seen."""
    dice = reader.dice
    while not reader.ended:
        reader.visit(dice.choice([0, 1, dice.randint(1, 40)]), cut_ok)
        if dice.random() < 0.5:
            progress.wait_for(reader.cursor + dice.randint(1, 30))


def roaming_reader(server, progress, number, most):
    """One that joins when a random number of frames is in the file, with a
    random one of them as its last."""
    dice = random.Random("%d %d" % (SEED, number))
    there = dice.randint(0, most)
    progress.wait_for(there)
    return Reader(server, progress.stream.stream_id,
                  dice.randint(-1, there - 1) if there else -1, dice)


def finish(progress):
    progress.thread.join(60)
    e2e.check(progress.stream.ended, "the first reader did not get to the end")


@e2e.test
def fifty_readers_come_and_go_at_random_and_each_gets_the_file(server):
    first = server.start_stream(message="x")
    progress = Progress(first)
    visits = []

    def work(number):
        reader = roaming_reader(server, progress, number, 120)
        roam(reader, progress)
        reader.check(server.stream_frames(first.stream_id))
        visits.append(reader.visits)

    e2e.in_threads(READERS, work)
    finish(progress)
    e2e.check_equal(first.bytes(), server.stream_bytes(first.stream_id),
                    "the first")
    e2e.check_equal(len(first.frames), 151, "frames")
    e2e.check(sum(visits) > 3 * READERS, "%d visits" % sum(visits))
    e2e.check(len(set(server.follows(first.stream_id))) > 1,
              "one process served all")


@e2e.test
def readers_that_join_at_the_start_and_stay_get_it_whole(server):
    first = server.start_stream(message="x", stream_id="stay", user_id="ann")
    progress = Progress(first)
    texts = []

    def work(number):
        if number % 2:
            stream = server.resume(-1, stream_id="stay", user_id="ann")
        else:
            stream = server.start_stream(message="x", stream_id="stay",
                                         user_id="ann")
        stream.read_all()
        texts.append(stream.text())
        e2e.check_equal(stream.bytes(), server.stream_bytes("stay", "ann"),
                        "bytes")

    e2e.in_threads(READERS, work)
    finish(progress)
    e2e.check_equal(set(texts), {first.text()}, "texts")
    e2e.check_equal(first.text(), "".join("tok%d " % n for n in range(150)),
                    "text")


@e2e.test
def readers_of_many_streams_get_their_own(server):
    def text(number):
        return " ".join("s%dw%d" % (number, n) for n in range(60))

    streams = [server.start_stream(message=text(n), model="words")
               for n in range(8)]
    progresses = [Progress(stream) for stream in streams]

    def work(number):
        which = number % len(streams)
        reader = roaming_reader(server, progresses[which], 1000 + number, 50)
        roam(reader, progresses[which])
        reader.check(server.stream_frames(streams[which].stream_id))

    e2e.in_threads(READERS, work)
    for number, progress in enumerate(progresses):
        finish(progress)
        e2e.check_equal(progress.stream.text(), text(number), "text")


@e2e.test
def readers_survive_the_death_of_a_responder(server):
    first = server.start_stream(message="x", model="long").read_frames(1)
    sid, dice = first.stream_id, random.Random(SEED)
    first.close()  # it may be of the responder that dies
    readers = [Reader(server, sid, -1, random.Random("%d killed %d"
                                                     % (SEED, number)))
               for number in range(READERS)]
    staying = readers[::2]

    def killer():
        when = dice.randint(20, 60)
        e2e.wait_until(lambda: all(reader.served for reader in staying) and
                       len(server.stream_frames(sid)) >= when, 30,
                       "frame %d" % when)
        # The busiest: nobody is left out by chance.
        counts = collections.Counter(server.follows(sid))
        counts.subtract(server.follows(sid, "ended"))
        busiest = counts.most_common(1)[0][0]
        e2e.kill(busiest, signal.SIGKILL)

    def work(number):
        if number == READERS:
            killer()
            return
        reader = readers[number]
        stays = reader in staying
        while not reader.ended:
            reader.visit(1000 if stays else reader.dice.randint(0, 40), True)
        reader.check(server.stream_frames(sid))

    e2e.in_threads(READERS + 1, work)
    e2e.check(any(reader.cuts for reader in readers), "nobody was cut off")
    e2e.check_equal(len(server.stream_frames(sid)), 251, "frames")
    e2e.check_equal(len(server.usage_lines("reserve", sid)), 1, "reserves")
    e2e.wait_until(lambda: len(server.responders()) == server.procs, 20,
                   "the return of the responder")


if __name__ == "__main__":
    e2e.main(models=MODELS, procs=4)
