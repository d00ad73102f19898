#!/usr/bin/env -S python3 -B
"""Where numbers end: a wall clock that jumps, ids beyond 32 bits, a stream of
max_stream_bytes, and a spool of 100,000 files.

E2E_FILES=N: another number of files; E2E_FIGURES=1 prints what things took
among 1,000, 10,000 and N files."""

import hashlib
import itertools
import os
import re
import statistics
import time

import direct
import e2e

TTL = 3600
DAY = 86400
YEAR = 366 * DAY
URL = "/api/v1/stream"
PRICES = {"input": 150000, "output": 600000}
# What needs the most room in JSON, and characters of each length.
ESCAPES = "\x01\x1f\x7f\"\\\b ä€🌍\t" * 4000
MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo", "prices": PRICES},
        "paced": {"provider": "demo", "chunks": 60, "interval_ms": 20,
                  "prices": PRICES},
        "endless": {"provider": "demo", "chunks": 1000000, "interval_ms": 20,
                    "prices": PRICES},
        "silent": {"provider": "demo", "chunks": 9, "hang_after": 1},
        "flood": {"provider": "demo", "chunks": 10000000, "prices": PRICES},
        "escapes": {"provider": "demo", "text": ESCAPES, "prices": PRICES},
        "one word": {"provider": "demo", "text": "\x01" * 30000},
        "wide": {"provider": "demo", "text": "🌍" * 40000},
    },
}


# ---- the wall clock jumps ----

def on_each_jump(test):
    """test(own, seconds), on a server of its own for each jump."""
    for seconds in (YEAR, -YEAR, DAY, -DAY, 3, -3):
        with direct.Jumping(models=MODELS, settings={"ttl": TTL}) as own:
            test(own, seconds)


def check_bought_at(own, clocks, sids):
    """Whatever the next spoolers find in the day files, and when."""
    for seconds in clocks:
        own.jump(seconds)
        own.kill_all("respool-spooler")
        own.start_stream(message="x").read_all()
        for sid in sids:
            own.check_bought(sid)


@e2e.test
def a_stream_goes_on_when_the_clock_jumps(server):
    def jump(own, seconds):
        began = time.monotonic()
        stream = own.start_stream(message="x", model="paced")
        sid = stream.stream_id
        stream.read_frames(5)
        own.jump(seconds)
        resumed = own.resume(2, stream_id=sid).read_all()
        stream.read_all()
        took_ms = (time.monotonic() - began) * 1000
        e2e.check_equal(stream.text(), "".join(
            "tok%d " % n for n in range(60)), "text")
        e2e.check_equal(stream.bytes(), own.stream_bytes(sid), "file")
        e2e.check_equal([f.raw for f in resumed.frames],
                        [f.raw for f in stream.frames[3:]], "resumed")
        latency = stream.frames[-1].data["latency_ms"]
        e2e.check(59 * 20 <= latency <= took_ms,
                  "latency_ms %d of %d ms" % (latency, took_ms))
        snapshot = own.get("/api/v1/streams/" + sid).json()
        e2e.check_equal((snapshot["state"], snapshot["latency_ms"]),
                        ("finished", latency), "snapshot")
        check_bought_at(own, (seconds, 0, seconds, 0), [sid])

    on_each_jump(jump)


@e2e.test
def heartbeats_keep_their_pace_when_the_clock_jumps(server):
    with direct.Jumping(models=MODELS, settings={"heartbeat": 1}) as own:
        for seconds in (YEAR, -YEAR):
            own.jump(0)
            stream = own.start_stream(message="x", model="silent")
            stream.read_frames(1)
            own.jump(seconds)
            began = time.monotonic()
            stream.read_frames(4)
            took = time.monotonic() - began
            beats = [f.event for f in stream.frames[1:]]
            e2e.check_equal(set(beats), {"heartbeat"}, "events")
            # The first may have been due already.
            e2e.check(took > len(beats) - 1.1,
                      "%d heartbeats in %.1f s" % (len(beats), took))
            stream.close()


@e2e.test
def max_connection_is_not_the_wall_clocks(server):
    with direct.Jumping(models=MODELS, settings={"max_connection": 3}) as own:
        for seconds in (YEAR, -YEAR):
            own.jump(0)
            stream = own.start_stream(message="x", model="endless")
            stream.read_frames(1)
            own.jump(seconds)
            stream.read_all(cut_ok=True)
            took = time.monotonic() - stream.response.sent_at
            e2e.check(stream.parser.retry is not None, "no retry block")
            e2e.check(took >= 3, "ended after %.1f s" % took)
            own.resume(stream.frames[-1].id,
                       stream_id=stream.stream_id).read_frames(3).close()


@e2e.test
def a_jump_forwards_expires_what_ended_and_nothing_live(server):
    with direct.Jumping(models=MODELS, settings={"ttl": TTL}) as own:
        live = own.start_stream(message="x", model="endless", stream_id="live")
        live.read_frames(3)
        own.start_stream(message="x", stream_id="before").read_all()
        own.jump(YEAR)
        own.start_stream(message="x", stream_id="after").read_all()
        # Once with the spooler, once more for what it swept by itself.
        for _ in range(2):
            e2e.check_equal(own.ctl("gc").returncode, 0, "status of gc")
        names = {os.path.basename(path).partition("-")[2]
                 for path in own.stream_files()}
        e2e.check_equal(names, {"live.sse", "after.sse"}, "names")
        e2e.check_equal(own.get(URL, {"stream_id": "before"}).status, 404,
                        "status of what ended a year ago")
        live.read_frames(len(live.frames) + 5)
        join = own.start_stream(message="x", model="endless",
                                stream_id="live").read_frames(5)
        e2e.check_equal(join.frames[0].raw, live.frames[0].raw, "first frame")
        for stream in (join, live):
            stream.close()
        e2e.check_equal(len(own.usage_lines("reserve", "live")), 1, "reserves")


@e2e.test
def a_jump_backwards_seals_and_removes_nothing_and_keeps_nothing_for_good(
        server):
    with direct.Jumping(models=MODELS, settings={"ttl": TTL}) as own:
        own.jump(YEAR)
        live = own.start_stream(message="x", model="endless", stream_id="live")
        live.read_frames(3)
        for sid in ("ended", "deleted"):
            own.start_stream(message="x", stream_id=sid).read_all()
        own.request("DELETE", "/api/v1/streams/deleted").read_head()
        own.jump(0)
        before = own.stream_bytes("ended")
        e2e.check_equal(own.ctl("gc").stdout, "removed 0\n", "gc")
        e2e.check_equal(own.resume(-1, stream_id="ended").read_all().bytes(),
                        before, "what had ended")
        e2e.check_equal(own.get(URL, {"stream_id": "deleted"}).status, 404,
                        "status of the deleted")
        live.read_frames(len(live.frames) + 5)
        e2e.check_equal(live.frames[-1].event, "message_chunk", "event")
        own.resume(1, stream_id="live").read_frames(3).close()
        # A ttl later they go, not a ttl after the wrong year.
        own.jump(TTL + 60)
        live.read_frames(len(live.frames) + 5)
        e2e.check_equal(own.ctl("gc").returncode, 0, "status of gc")
        names = {os.path.basename(path).partition("-")[2]
                 for path in own.stream_files()}
        e2e.check_equal(names, {"live.sse"}, "names")
        live.close()


@e2e.test
def a_spooler_that_dies_after_a_jump_is_made_up_for(server):
    def jump(own, seconds):
        # Of two that are lost, one is read and one is only found in the
        # usage lines, after another clock's spooler has looked at those.
        for clock in (seconds, 0):
            streams = [own.start_stream(message="x", model="endless")
                       for _ in range(2)]
            for stream in streams:
                stream.read_frames(3)
            streams[1].close()
            own.jump(clock)
            streams[0].read_frames(len(streams[0].frames) + 3)
            own.kill_all("respool-spooler")
            streams[0].read_all()
            last = streams[0].frames[-1].data
            e2e.check_equal(last["error_type"], "generation_lost", "error")
            e2e.check(last["latency_ms"] >= 0, "latency_ms")
            e2e.check_equal(streams[0].bytes(), own.stream_bytes(
                streams[0].stream_id), "file")
            check_bought_at(own, (clock, seconds - clock, clock),
                            [stream.stream_id for stream in streams])
            own.jump(clock)

    on_each_jump(jump)


# ---- large numbers ----

HUGE = [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53 + 1, 2**63 - 2]
TOO_LARGE = [2**63, 2**64 - 1, 2**64, 2**64 + 1, 10**30, 10**200]


def check_cursor(server, fields, value, want):
    """One cursor in each way that a client can send it."""
    text = str(value)
    ways = {
        "header": lambda: server.get(URL, fields, [("Last-Event-ID", text)]),
        "query": lambda: server.get(URL, dict(fields, last_event_id=text)),
        "form": lambda: server.request(
            "POST", URL, [("Content-Type",
                           "application/x-www-form-urlencoded")],
            e2e.urlencode(dict(fields, last_event_id=text)).encode()),
        "text": lambda: server.post(URL, dict(fields, last_event_id=text)),
        "number": lambda: server.post(URL, dict(fields, last_event_id=value)),
    }
    for way, ask in ways.items():
        if way == "text" and want == (404, "stream_not_found"):
            continue  # a JSON text is no integer, whatever it holds
        response = ask()
        if response.status is None:
            response.read_head()
        got = (response.status, response.json()["error_type"])
        e2e.check_equal(got, (400, "invalid_request") if way == "text"
                        else want, "cursor %s by %s" % (text, way))


@e2e.test
def a_huge_cursor_gets_an_answer_and_never_a_frame(server):
    server.start_stream(message="a b c", stream_id="huge").read_all()
    live = server.start_stream(message="x", model="endless",
                               stream_id="huge-live").read_frames(2)
    reserves = len(server.usage_lines("reserve"))
    for value in HUGE + TOO_LARGE:
        for sid in ("huge", "huge-live"):
            check_cursor(server, {"stream_id": sid}, value,
                         (400, "invalid_request"))
            # A message with it starts nothing either.
            check_cursor(server, {"stream_id": sid, "message": "x"}, value,
                         (400, "invalid_request"))
        check_cursor(server, {"stream_id": "huge-none", "message": "x"}, value,
                     (404, "stream_not_found") if value in HUGE else
                     (400, "invalid_request"))
        check_cursor(server, {"message": "x"}, value,
                     (400, "stream_id_required") if value in HUGE else
                     (400, "invalid_request"))
    live.close()
    e2e.check_equal(len(server.usage_lines("reserve")), reserves, "reserves")


@e2e.test
def a_huge_cursor_in_a_file_from_before_the_boot_gets_its_terminal_frame(
        server):
    whole = server.start_stream(message="a b c", stream_id="boot").read_all()
    path = server.stream_path("boot")
    with open(path, "rb") as f:
        data = f.read()
    with open(path, "wb") as f:
        f.write(re.sub(rb'"boot":"[^"]*"', b'"boot":"another"', data))
    for value in HUGE:
        stream = e2e.Stream(server.get(URL, {"stream_id": "boot"}, [
            ("Last-Event-ID", str(value))])).read_all()
        e2e.check_equal([f.raw for f in stream.frames],
                        [whole.frames[-1].raw], "after %d" % value)


def sparse_stream(server, sid, middle):
    """A file as of a stream of about middle frames, which have ids around
    middle at its end; what is in front of them is a hole, but for frames where
    a binary search looks."""
    source = server.start_stream(message="x", stream_id=sid).read_all()
    path = server.stream_path(sid)
    with open(path, "rb") as f:
        head = e2e.HEAD.match(f.read()).group()
    first = middle - 1000

    def frame(number, event=b"heartbeat"):
        return (b"event: %s\nid: %d\nretry: 10000\ndata: %s\n\n" % (
            event, number, source.frames[-1].raw.split(b"data: ")[1].strip()
            if event == b"done" else b"{}"))

    dense = b"".join(map(frame, range(first, middle + 1000)))
    dense += frame(middle + 1000, b"done")
    begin = middle + 100000  # no frame is shorter than a byte
    end = begin + len(dense)
    with open(path, "wb") as f:
        f.write(head)
        low, number = len(head), 0
        while (low + end) // 2 < begin:
            low += (end - low) // 2
            number += 1
            f.seek(low - 2)
            f.write(b"\n\n" + frame(number))
        f.seek(begin - 2)
        f.write(b"\n\n" + dense)
    return dense


@e2e.test
def ids_beyond_32_bits_are_found_and_sent(server):
    for middle in (2**31, 2**32):
        sid = "sparse-%d" % middle
        dense = sparse_stream(server, sid, middle)
        frames = e2e.Parser(middle - 1000).feed(dense, 0.0)
        for after in (middle - 2, middle - 1, middle, middle + 500,
                      middle + 999):
            by = "header" if after % 3 else "parameter"
            stream = server.resume(after, by, stream_id=sid).read_all()
            e2e.check_equal([f.raw for f in stream.frames],
                            [f.raw for f in frames[after - middle + 1001:]],
                            "after %d" % after)
        for after, status in ((middle + 1000, 204), (middle + 1001, 400),
                              (2 * middle, 400), (middle + 2**32, 400)):
            response = server.get(URL, {"stream_id": sid},
                                  [("Last-Event-ID", str(after))])
            e2e.check_equal(response.status, status, "after %d" % after)
        os.unlink(server.stream_path(sid))


# ---- max_stream_bytes ----

SMALLEST = 65536


def check_too_long(server, sid, limit, stream):
    """The whole of a stream that came to its largest size."""
    path = "/api/v1/streams/" + sid
    last = stream.frames[-1]
    e2e.check_equal((last.event, last.data["error_type"]),
                    ("error", "too_long"), "ending")
    e2e.check_equal(last.data["partial"], True, "partial")
    size = os.path.getsize(server.stream_path(sid))
    e2e.check(limit - 32768 < size <= limit, "%d bytes of %d" % (size, limit))
    e2e.check_equal(stream.bytes(), server.stream_bytes(sid), "file")
    snapshot = server.get(path).json()
    for name, want in (("state", "failed"), ("error_type", "too_long"),
                       ("text", stream.text()), ("last_event_id", last.id),
                       ("partial", True),
                       ("total_tokens", last.data["total_tokens"])):
        e2e.check_equal(snapshot[name], want, name)
    for frame in stream.frames[-6:-1]:
        rest = server.resume(frame.id, stream_id=sid).read_all()
        e2e.check_equal([f.raw for f in rest.frames],
                        [f.raw for f in stream.frames[frame.id + 1:]],
                        "after %d" % frame.id)
    e2e.check_equal(server.get(URL, {"stream_id": sid}, [
        ("Last-Event-ID", str(last.id))]).status, 204, "status at the end")
    for kind in ("reserve", "settle"):
        e2e.check_equal(len(server.usage_lines(kind, sid)), 1, kind)


@e2e.test
def a_stream_of_the_largest_size_ends_with_too_long(server):
    for limit in (SMALLEST, SMALLEST + 1, 150000):
        with direct.Server(models=MODELS,
                           settings={"max_stream_bytes": limit}) as own:
            for model in ("flood", "escapes", "one word", "wide"):
                sid = "%s-%d" % (model.replace(" ", "-"), limit)
                stream = own.start_stream(message="x", model=model,
                                          stream_id=sid).read_all()
                check_too_long(own, sid, limit, stream)
                text = MODELS["models"][model].get("text")
                if text is not None:
                    e2e.check(text.startswith(stream.text()), "text")


@e2e.test
def a_slow_reader_gets_all_of_the_largest_stream(server):
    limit = 1 << 20  # more than any socket's buffer
    with direct.Server(models=MODELS,
                       settings={"max_stream_bytes": limit}) as own:
        slow = own.start_stream(message="x", model="flood", stream_id="slow")
        e2e.wait_until(lambda: own.usage_lines("settle", "slow"), 60,
                       "the end")
        for _ in range(20):
            slow.read_some()
            time.sleep(0.02)
        check_too_long(own, "slow", limit, slow.read_all())


# ---- 100,000 files ----

COUNT = int(os.environ.get("E2E_FILES", 0)) or (
    20000 if e2e.is_sanitized(os.path.join(e2e.BUILD, "respool.fcgi")) else
    100000)
FIGURES = bool(os.environ.get("E2E_FIGURES"))
LINKS = 1000  # names of one file
OLD, YOUNG, MINE = "olga", "yves", "mia"


def owner_hash(owner):
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


class Crowd:
    """Fills a spool: half of it has expired, a fortieth is MINE."""

    def __init__(self, server):
        self.server = server
        self.ids = {OLD: [], YOUNG: [], MINE: []}
        self._serial = itertools.count()
        self._whole = {}
        for owner in self.ids:
            stream = server.start_stream(message="one two three",
                                         user_id=owner)
            stream.read_all()
            with open(server.stream_path(stream.stream_id, owner), "rb") as f:
                self._whole[owner] = f.read()
            self.ids[owner].append(stream.stream_id)
        self._age(server.stream_path(self.ids[OLD][0], OLD))
        for number in range(256):
            shard = os.path.join(server.spool, "streams", "%02x" % number)
            if not os.path.isdir(shard):
                os.mkdir(shard, 0o700)
                self._own(shard)

    def _own(self, path):
        if self.server.user:
            os.chown(path, *self.server.user[2:4])

    @staticmethod
    def _age(path):
        old = time.time() - TTL - 1000
        os.utime(path, (old, old))

    def _file(self, owner, data):
        path = os.path.join(self.server.run, "file-%d" % next(self._serial))
        with open(path, "wb", opener=lambda *a: os.open(*a, 0o600)) as f:
            f.write(data)
        self._own(path)
        if owner == OLD:
            self._age(path)
        return path

    def _add(self, owner, number):
        begin = owner_hash(owner)
        streams = os.path.join(self.server.spool, "streams")
        for i in range(number):
            if i % LINKS == 0:
                source = self._file(owner, self._whole[owner])
            sid = "s-%d" % next(self._serial)
            name = "%s-%s.sse" % (begin, sid)
            shard = hashlib.sha256(name.encode()).hexdigest()[:2]
            os.link(source, "%s/%s/%s" % (streams, shard, name))
            self.ids[owner].append(sid)

    def grow(self, total):
        have = sum(map(len, self.ids.values()))
        mine, old = total // 40, total // 2
        self._add(MINE, mine - len(self.ids[MINE]))
        self._add(OLD, old - len(self.ids[OLD]))
        self._add(YOUNG, total - max(have, mine + old) -
                  len(self.ids[YOUNG]) + max(0, have - mine - old))

    def orphan(self, sid):
        """Cut in its last frame."""
        path = self.server.stream_path(sid, MINE)
        os.rename(self._file(MINE, self._whole[MINE][:-9]), path)
        self.ids[MINE].append(sid)


def reads(server):
    """Calls of read(2) and the like, of all programs so far."""
    total = 0
    for pid in server.pids():
        with open("/proc/%d/io" % pid, encoding="ascii") as f:
            total += int(re.search(r"syscr: ([0-9]+)", f.read())[1])
    return total


def listed(server, owner):
    """All pages of an owner's list."""
    found, fields = [], {"user_id": owner, "limit": 1000}
    while True:
        page = server.get("/api/v1/streams", fields).json()
        found += [s["stream_id"] for s in page["streams"]]
        if not page["has_more"]:
            return found
        fields["before"] = found[-1]


def timed(work, times=7):
    took = []
    for _ in range(times):
        began = time.monotonic()
        work()
        took.append(time.monotonic() - began)
    return statistics.median(took) * 1000


def show_figures(server, crowd, total):
    sid = crowd.ids[MINE][0]
    figures = {
        "start, to its end": lambda: server.start_stream(
            message="x", user_id="others").read_all(),
        "resume": lambda: server.resume(1, stream_id=sid,
                                        user_id=MINE).read_all(),
        "snapshot": lambda: server.get("/api/v1/streams/" + sid,
                                       {"user_id": MINE}).json(),
        "list of 3": lambda: server.get("/api/v1/streams",
                                        {"user_id": "few"}).json(),
        "list, 100 of %d" % len(crowd.ids[MINE]): lambda: server.get(
            "/api/v1/streams", {"user_id": MINE}).json(),
        "list, 100 of %d" % len(crowd.ids[YOUNG]): lambda: server.get(
            "/api/v1/streams", {"user_id": YOUNG}).json(),
    }
    print("%d files: %s" % (total, ", ".join(
        "%s %.1f ms" % (name, timed(work)) for name, work in
        figures.items())))


@e2e.test
def a_spool_of_many_files_works_like_a_small_one(server):
    with direct.Server(models=MODELS, settings={"ttl": TTL}) as own:
        crowd = Crowd(own)
        for _ in range(3):
            own.start_stream(message="x", user_id="few").read_all()
        sizes = [COUNT]
        if FIGURES:
            sizes = [n for n in (1000, 10000) if n < COUNT] + sizes
        for total in sizes:
            crowd.grow(total)
            if FIGURES:
                show_figures(own, crowd, total)
        live = own.start_stream(message="x", model="endless",
                                stream_id="live").read_frames(2)

        # Starting, resuming and looking at one reads as much as ever.
        before = reads(own)
        own.start_stream(message="x", user_id="few").read_all()
        for n in (0, 1, len(crowd.ids[MINE]) - 1):
            sid = crowd.ids[MINE][n]
            rest = own.resume(1, stream_id=sid, user_id=MINE).read_all()
            e2e.check_equal(rest.text(), "three", "what was resumed")
            snapshot = own.get("/api/v1/streams/" + sid, {"user_id": MINE})
            e2e.check_equal(snapshot.json()["text"], "one two three", "text")
        took = reads(own) - before
        e2e.check(took < 1000, "%d reads" % took)
        old = crowd.ids[OLD][-1]
        e2e.check_equal(own.get("/api/v1/streams/" + old,
                                {"user_id": OLD}).status, 404, "the expired")

        # All of an owner's, and nobody else's.
        e2e.check_equal(sorted(listed(own, MINE)), sorted(crowd.ids[MINE]),
                        "the list")
        e2e.check_equal(len(listed(own, "few")), 4, "a short list")
        e2e.check_equal(listed(own, OLD), [], "the list of the expired")

        began = time.monotonic()
        for number in range(5):
            crowd.orphan("orphan-%d" % number)
        visible = sum(not os.path.basename(path).startswith(
            owner_hash(OLD)) for path in own.stream_files())
        result = own.ctl("check")
        e2e.check(result.stdout.endswith(
            "\nstreams %d, faults 5, mended 0\n" % visible),
            result.stdout[-200:])
        if FIGURES:
            print("check %.1f s" % (time.monotonic() - began))
        result = own.ctl("-u", MINE, "list")
        e2e.check_equal(len([line for line in result.stdout.splitlines()
                             if re.search(r"\b(s-[0-9]+|stream_|orphan-)",
                                          line)]),
                        len(crowd.ids[MINE]), "lines of ctl list")

        # The expired ones go while a stream is written, and nothing else.
        took = []

        def collect(number):
            if number == 0:
                began = time.monotonic()
                result = own.ctl("gc")
                took.append(time.monotonic() - began)
                e2e.check_equal((result.returncode, result.stderr), (0, ""),
                                "gc")
            else:
                live.read_until(lambda frames: took)

        # What has been waiting for us is no measure.
        live.read_until(lambda frames: len(frames) > 50 * (
            time.monotonic() - live.response.sent_at) - 10)
        first = len(live.frames)
        e2e.in_threads(2, collect)
        if FIGURES:
            at = [frame.at for frame in live.frames[first - 1:]]
            print("gc %.1f s, longest gap of a live stream %.0f ms" % (
                took[0], max(b - a for a, b in zip(at, at[1:])) * 1000))
        live.close()
        names = set(map(os.path.basename, own.stream_files()))
        e2e.check_equal(len(names), visible, "files that are left")
        for owner in (MINE, YOUNG):
            missing = {"%s-%s.sse" % (owner_hash(owner), sid)
                       for sid in crowd.ids[owner]} - names
            e2e.check_equal(missing, set(), "young files")

        # Without a spooler respoolctl does it itself.
        own.kill_all("respool-spooler")
        result = own.ctl("check", "--fix")
        e2e.check(result.stdout.endswith(
            "\nstreams %d, faults 6, mended 6\n" % visible),
            result.stdout[-200:])


if __name__ == "__main__":
    e2e.main(direct.Server, models=MODELS, settings={"ttl": TTL})
