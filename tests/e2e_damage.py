#!/usr/bin/env -S python3 -B
"""A spool file that was cut or damaged anywhere: no torn frame is ever sent,
and respoolctl check --fix mends it.  What was deleted or has expired has
gone."""

import glob
import os
import random
import re
import threading
import time

import e2e

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo",
                 "prices": {"input": 150000, "output": 600000}},
        "live": {"provider": "demo", "chunks": 100000, "interval_ms": 20},
    },
}
TTL = 3600
THREADS = 4
URL = "/api/v1/stream"
shards_lock = threading.Lock()
CHECK_LINE = re.compile(r"([0-9a-f]{16})-([A-Za-z0-9_-]+): .+ behind "
                        r"([0-9]+) frames, byte ([0-9]+)(: .*)?")


class Original:
    """A whole stream, whose writer has died since."""

    def __init__(self, server):
        stream = server.start_stream(message="Grüße an 你 drei 🌍").read_all()
        with open(server.stream_path(stream.stream_id), "rb") as f:
            self.data = f.read()
        self.head_size = e2e.HEAD.match(self.data).end()
        self.head = self.data[:self.head_size]
        self.frames = stream.frames
        self.ends = []  # offsets behind each frame
        end = self.head_size
        for frame in self.frames:
            end += len(frame.raw)
            self.ends.append(end)
        e2e.check_equal(end, len(self.data), "size")
        server.kill_all("respool-spooler")

    def whole(self, size):
        """How many frames the first size bytes hold."""
        return sum(end <= size for end in self.ends)

    def check_sent(self, frames, size, first_id=0):
        """frames: what a reader got of a file whose first size bytes, and no
        more, are right."""
        whole = self.whole(size)
        for frame in self.frames[first_id:whole]:
            got = frames[frame.id - first_id:][:1]
            e2e.check_equal([f.raw for f in got], [frame.raw],
                            "frame %d" % frame.id)
        rest = frames[whole - first_id:]
        if whole == len(self.frames):
            e2e.check_equal(rest, [], "frames behind the end")
            return
        e2e.check_equal([f.event for f in rest], ["error"], "ending")
        e2e.check_equal(rest[0].data["error_type"], "generation_lost",
                        "error_type")
        e2e.check_equal(rest[0].data.get("partial"), True, "partial")

    def check_snapshot(self, got, size):
        whole = self.whole(size)
        ended = whole == len(self.frames)
        text = "".join(f.data["content"] for f in self.frames[:whole]
                       if f.event == "message_chunk")
        for name, want in (
                ("state", "finished" if ended else "failed"), ("text", text),
                ("last_event_id", whole - 1 if ended else whole),
                ("error_type", None if ended else "generation_lost")):
            e2e.check_equal(got[name], want, name)


def plant(server, stream_id, data):
    """Puts a file in a stream's place, as a crash could have left it."""
    path = server.stream_path(stream_id)
    shard = os.path.dirname(path)
    with shards_lock:
        if not os.path.isdir(shard):
            os.mkdir(shard, 0o700)
            give_away(server, shard)
    with open(path, "wb", opener=lambda *a: os.open(*a, 0o600)) as f:
        f.write(data)
    give_away(server, path)


def give_away(server, path):
    if server.user:
        os.chown(path, server.user.pw_uid, server.user.pw_gid)


def check_no_stream(response, what, statuses):
    """An error in JSON, and not a byte of an event stream."""
    if response.status is None:
        response.read_head()
    e2e.check(response.status in statuses,
              "status %d of %s" % (response.status, what))
    e2e.check(response.json()["error_type"] in
              ("stream_not_found", "spool_unavailable", "internal"),
              "error_type of " + what)


def check_headless(server, stream_id, empty):
    statuses = (404,) if empty else (404, 500, 503)
    for response in (
            server.get(URL, {"stream_id": stream_id}),
            server.get(URL, {"stream_id": stream_id, "message": "x"}),
            server.get(URL, {"stream_id": stream_id}, [("Last-Event-ID",
                                                        "0")]),
            server.get("/api/v1/streams/" + stream_id)):
        check_no_stream(response, stream_id, statuses)


def check_one(server, original, stream_id, size, snapshot_first):
    """A stream of which size bytes are right is read in all ways."""
    path = "/api/v1/streams/" + stream_id
    if snapshot_first:
        original.check_snapshot(server.get(path).json(), size)
    by = "header" if size % 2 else "parameter"
    stream = server.resume(-1, by, stream_id=stream_id).read_all()
    original.check_sent(stream.frames, size)
    original.check_snapshot(server.get(path).json(), size)
    for last_id in range(len(stream.frames) - 1):
        if (last_id + size) % 5 == 0:
            rest = server.resume(last_id, by, stream_id=stream_id).read_all()
            e2e.check_equal(rest.frames[0].id, last_id + 1, "first id")
            original.check_sent(rest.frames, size, last_id + 1)
    return stream


def each_in_threads(items, work):
    """work(item) for all; the failing one is told."""
    def run(number):
        for item in items[number::THREADS]:
            try:
                work(item)
            except Exception as e:
                raise AssertionError("%r: %s: %s" % (
                    item, type(e).__name__, e)) from e

    e2e.in_threads(THREADS, run)


@e2e.test
def a_file_cut_at_every_byte_is_never_sent_torn(server):
    original = Original(server)
    server.start_stream(message="x").read_all()  # a new spooler

    def work(size):
        sid = "cut-%d" % size
        plant(server, sid, original.data[:size])
        if size < original.head_size:
            check_headless(server, sid, size == 0)
            return
        stream = check_one(server, original, sid, size, size % 2)
        e2e.check_equal(server.stream_bytes(sid), stream.bytes(), "file")

    each_in_threads(range(len(original.data) + 1), work)


@e2e.test
def a_cut_file_is_sealed_where_no_spooler_runs_too(server):
    original = Original(server)
    sizes = range(original.head_size, len(original.data), 25)
    for size in sizes:
        plant(server, "alone-%d" % size, original.data[:size])
    e2e.check_equal(server.spoolers(), [], "spoolers")

    def work(size):
        check_one(server, original, "alone-%d" % size, size, size % 2)

    each_in_threads(sizes, work)
    e2e.check_equal(len(server.spoolers()), 1, "spoolers")


@e2e.test
def a_stream_that_its_spooler_has_forgotten_is_ended(server):
    """Its writer lives and does not write it."""
    other = server.start_stream(message="x").read_all()
    with open(server.stream_path(other.stream_id), "rb") as f:
        data = f.read()
    for number in range(3):
        sid = "forgotten-%d" % number
        plant(server, sid, data[:-20 - 200 * number])
        stream = server.resume(-1, stream_id=sid).read_all()
        e2e.check_equal(stream.frames[-1].data["error_type"],
                        "generation_lost", "error_type")
        e2e.check_equal(stream.bytes(), server.stream_bytes(sid), "file")


@e2e.test
def a_forgotten_stream_is_ended_whoever_looks(server):
    other = server.start_stream(message="x").read_all()
    with open(server.stream_path(other.stream_id), "rb") as f:
        data = f.read()[:-20]
    plant(server, "seen-1", data)
    got = server.get("/api/v1/streams/seen-1").json()
    e2e.check_equal(got["state"], "failed", "the snapshot's state")
    plant(server, "seen-2", data)
    e2e.check("failed" in server.ctl("stop", "seen-2").stdout, "ctl stop")
    plant(server, "seen-3", data)
    result = server.ctl("tail", "seen-3")
    e2e.check("generation_lost" in result.stdout, "ctl tail")
    plant(server, "seen-4", data)
    e2e.check("seen-4" in checked(server.ctl("check"))[0], "ctl check")
    server.ctl("check", "--fix")
    e2e.check("seen-4" not in checked(server.ctl("check"))[0], "ctl --fix")


@e2e.test
def JSON_that_is_damaged_inside_a_frame_ends_the_stream(server):
    """No crash does this; a bad disk may."""
    other = server.start_stream(message="one two three").read_all()
    with open(server.stream_path(other.stream_id), "rb") as f:
        data = f.read().replace(b'"content":"two ', b'"content"#"two ')
    plant(server, "rotten-0", data)
    stream = server.resume(-1, stream_id="rotten-0").read_all()
    e2e.check_equal((stream.text(), stream.frames[-1].data["error_type"]),
                    ("one ", "generation_lost"), "what is sent")
    plant(server, "rotten-1", data)
    got = server.get("/api/v1/streams/rotten-1").json()
    e2e.check_equal((got["state"], got["text"]), ("failed", "one "),
                    "the snapshot")
    plant(server, "rotten-2", data)
    e2e.check("rotten-2" in checked(server.ctl("check"))[0], "ctl check")
    server.ctl("check", "--fix")
    got = server.get("/api/v1/streams/rotten-2").json()
    e2e.check_equal((got["state"], got["text"]), ("failed", "one "),
                    "the snapshot of the mended one")


@e2e.test
def what_follows_the_last_whole_frame_is_never_sent(server):
    """A crash of the machine leaves zeros, or what was on the disk before."""
    original = Original(server)
    server.start_stream(message="x").read_all()
    dice = random.Random(1)
    tails = {
        "zero": b"\0", "zeros": bytes(200), "a block of zeros": bytes(4096),
        "many zeros": bytes(100000), "an empty line": b"\n\n",
        "noise": bytes(dice.randrange(256) for _ in range(500)),
        "lines": b"x\n\n" * 30000, "a comment": b": keep-alive\n\n",
        "an old frame": original.frames[0].raw,
        "a later frame": original.frames[-1].raw.replace(
            b"id: %d\n" % original.frames[-1].id, b"id: 999\n"),
    }
    whats = sorted(tails)
    sizes = dice.sample(range(original.head_size, len(original.data)), 20)
    sizes += [original.head_size] + original.ends
    items = [(size, what) for size in sizes for what in whats]

    def work(item):
        size, what = item
        # Here it is the right one.
        if what == "an old frame" and size == original.head_size:
            return
        sid = "tail-%d-%d" % (size, whats.index(what))
        plant(server, sid, original.data[:size] + tails[what])
        check_one(server, original, sid, size, size % 2)

    each_in_threads(items, work)


@e2e.test
def a_flipped_byte_is_never_sent_as_something_else_than_a_frame(server):
    """In the two last frames: what is sent has its form, its id and JSON in
    it.  Each byte of a longer file has its turn in check_spool_damage."""
    original = Original(server)
    server.start_stream(message="x").read_all()
    dice = random.Random(2)
    begin = original.ends[-3]
    items = []
    for at in range(begin, len(original.data)):
        frame = original.frames[original.whole(at)]
        start = original.ends[frame.id - 1]
        in_json = (start + frame.raw.index(b"{") <= at <
                   start + len(frame.raw) - 2)
        old = original.data[at]
        # Another name of the same length is another event.
        new = [0, 10, old ^ 0x80, old ^ 0x01, old ^ 0x20]
        if in_json:
            new += [13, 31, 127, ord('"'), ord("\\"), 0xff]
        items += [(at, byte) for byte in new if byte != old]

    def work(item):
        at, byte = item
        data = bytearray(original.data)
        data[at] = byte
        sid = "flip-%d-%d" % item
        plant(server, sid, bytes(data))
        whole = original.whole(at)
        last_id = dice.choice([-1, 0, whole - 1])
        response = server.get(URL, {"stream_id": sid},
                              [("Last-Event-ID", str(last_id))])
        if response.status != 200:
            check_no_stream(response, sid, (404, 500, 503))
            return
        stream = e2e.Stream(response, last_id + 1).read_all(cut_ok=True)
        for frame in stream.frames[:whole - last_id - 1]:
            e2e.check_equal(frame.raw, original.frames[frame.id].raw,
                            "frame %d" % frame.id)

    each_in_threads(dice.sample(items, 400), work)


# ---- respoolctl check ----

def checked(result):
    """The faults that `check` printed: by id, what was said of them."""
    *lines, last = result.stdout.splitlines()
    faults = {}
    for line in lines:
        match = CHECK_LINE.fullmatch(line)
        e2e.check(match, "line %r" % line)
        faults[match[2]] = (int(match[3]), match[5] or "")
    match = re.fullmatch(r"streams ([0-9]+), faults ([0-9]+), mended ([0-9]+)",
                         last)
    e2e.check(match, "last line %r" % last)
    e2e.check_equal(int(match[2]), len(faults), "faults of the last line")
    e2e.check_equal(result.stderr, "", "errors")
    return faults, int(match[1]), int(match[3])


def planted(server):
    return {path: data for path, data in server.snapshot_of_disk().items()
            if "fix-" in path}


def check_and_mend(server, original, spoolers):
    size = len(original.data)
    already = len(server.stream_files())
    for cut in range(size + 1):
        plant(server, "fix-%d" % cut, original.data[:cut])
    headless = {"fix-%d" % cut for cut in range(1, original.head_size)}
    torn = {"fix-%d" % cut for cut in range(original.head_size, size)}
    before = planted(server)

    result = server.ctl("check")
    faults, streams, mended = checked(result)
    e2e.check_equal(result.returncode, 1, "status of check")
    e2e.check_equal(set(faults), headless | torn, "faults")
    e2e.check_equal((streams, mended), (already + size, 0), "sums")
    for sid in torn:
        e2e.check_equal(faults[sid][0], original.whole(int(sid[4:])), sid)
    e2e.check_equal(planted(server), before, "the files")

    result = server.ctl("check", "--fix")
    faults, streams, mended = checked(result)
    e2e.check_equal(result.returncode, 1, "status of check --fix")
    e2e.check_equal(set(faults), headless | torn, "faults of --fix")
    e2e.check_equal(mended, len(torn), "mended")
    for sid, (_, said) in faults.items():
        e2e.check(said.startswith(": mended" if sid in torn else
                                  ": cannot be mended"), sid + said)

    for cut in range(original.head_size, size + 1):
        original.check_sent(server.stream_frames("fix-%d" % cut), cut)
        path = server.stream_path("fix-%d" % cut)
        with open(path, "rb") as f:
            e2e.check(f.read().startswith(original.head), "another head")
        st = os.stat(path)
        e2e.check_equal(st.st_mode & 0o7777, 0o600, "mode")
        if server.user:
            e2e.check_equal(st.st_uid, server.user.pw_uid, "owner")
    for sid in headless:
        with open(server.stream_path(sid), "rb") as f:
            e2e.check_equal(f.read(), original.data[:int(sid[4:])], sid)

    result = server.ctl("check")
    e2e.check_equal(result.returncode, 1, "status after --fix")
    e2e.check_equal(set(checked(result)[0]), headless, "what is left")
    for sid in headless:
        os.unlink(server.stream_path(sid))
    for arguments in (["check"], ["check", "--fix"]):
        result = server.ctl(*arguments)
        e2e.check_equal(checked(result)[0], {}, "faults at last")
        e2e.check_equal(result.returncode, 0, "status at last")
    e2e.check_equal(len(server.spoolers()), spoolers, "spoolers")

    for cut in range(original.head_size, size, 40):
        check_one(server, original, "fix-%d" % cut, cut, cut % 2)


@e2e.test
def check_mends_cut_files_while_a_spooler_runs(server):
    with e2e.Server(models=MODELS) as own:
        original = Original(own)
        live = own.start_stream(message="x", model="live").read_frames(1)
        check_and_mend(own, original, 1)
        # What is being written is left alone.
        live.read_frames(len(live.frames) + 5)
        live.close()


@e2e.test
def check_mends_cut_files_after_the_death_of_the_spooler(server):
    with e2e.Server(models=MODELS) as own:
        check_and_mend(own, Original(own), 0)


@e2e.test
def check_mends_cut_files_after_the_spooler_has_left(server):
    with e2e.Server(models=MODELS, settings={"idle_exit": 1}) as own:
        original = Original(own)
        own.start_stream(message="x").read_all()
        e2e.wait_until(lambda: not own.spoolers(), 20, "idle_exit")
        check_and_mend(own, original, 0)


# ---- gone ----

def check_gone(server, stream_id, starts):
    """404 for all that does not start anything; starts: with a message and
    no cursor a stream of this id can be had."""
    path = "/api/v1/streams/" + stream_id
    requests = [
        lambda: server.get(path),
        lambda: server.request("POST", path + "/stop"),
        lambda: server.get(URL, {"stream_id": stream_id}),
        lambda: server.get(URL, {"stream_id": stream_id, "message": "x"},
                           [("Last-Event-ID", "0")]),
        lambda: server.post(URL, {"stream_id": stream_id, "message": "x",
                                  "last_event_id": 1}),
        lambda: server.post(URL, {"stream_id": stream_id,
                                  "last_event_id": 100000}),
    ]
    if not starts:
        requests.append(lambda: server.post(URL, {"stream_id": stream_id,
                                                  "message": "x"}))
    for request in requests:
        check_no_stream(request(), stream_id, (404,))


@e2e.test
def a_deleted_stream_stays_gone(server):
    live = server.start_stream(message="x", model="live", stream_id="gone-1")
    live.read_frames(3)
    also = server.resume(1, stream_id="gone-1").read_frames(1)
    server.start_stream(message="x", stream_id="gone-2").read_all()
    for sid in ("gone-1", "gone-2"):
        response = server.request("DELETE", "/api/v1/streams/" + sid)
        e2e.check_equal((response.read_head().status, response.read()),
                        (204, b""), "DELETE")
    # Who has it open reads it to its end.
    for stream in (live, also):
        stream.read_all()
        e2e.check_equal(stream.frames[-1].data["finish_reason"], "stopped",
                        "finish_reason")
    e2e.check_equal(live.frames[-1], live.frames[-1]._replace(
        raw=also.frames[-1].raw), "the last frame of both")
    for sid in ("gone-1", "gone-2"):
        e2e.check_equal(os.path.getsize(server.stream_path(sid)), 0,
                        "size of the tombstone")
    before = server.snapshot_of_disk()
    check_gone(server, "gone-1", False)
    server.kill_all("respool-spooler")
    check_gone(server, "gone-2", False)
    server.kill_all("respool.fcgi")
    e2e.wait_until(lambda: server.responders() and
                   server.get("/health").status == 200, 20, "/health")
    check_gone(server, "gone-1", False)
    e2e.check_equal(server.ctl("gc").returncode, 0, "status of gc")
    check_gone(server, "gone-2", False)
    e2e.check_equal(len(server.usage_lines("reserve", "gone-1")), 1,
                    "reserves")
    e2e.check_equal({path: data for path, data in
                     server.snapshot_of_disk().items() if "gone-" in path},
                    {path: data for path, data in before.items()
                     if "gone-" in path}, "the spool")


def make_old(server, stream_id):
    old = time.time() - TTL - 60
    os.utime(server.stream_path(stream_id), (old, old))


def spool_names(server):
    return [os.path.basename(path).partition("-")[2].removesuffix(".sse")
            for path in server.stream_files()]


@e2e.test
def an_expired_stream_is_gone_and_its_id_free(server):
    for sid in ("old-1", "old-2", "old-3"):
        server.start_stream(message="x", stream_id=sid,
                            user_id="ann").read_all()
    server.start_stream(message="x", stream_id="old-4").read_all()
    path = server.stream_path("old-4")
    make_old(server, "old-4")
    reserves = len(server.usage_lines("reserve"))
    check_gone(server, "old-4", True)
    e2e.check_equal(len(server.usage_lines("reserve")), reserves, "reserves")
    again = server.start_stream(message="y", stream_id="old-4").read_all()
    e2e.check_equal(again.text(), "y", "text")
    e2e.check(time.time() - os.path.getmtime(path) < TTL, "an old file")
    listed = server.get("/api/v1/streams", {"user_id": "ann"}).json()
    e2e.check_equal(len(listed["streams"]), 3, "streams in the list")
    os.utime(server.stream_path("old-2", "ann"), (1, 1))
    listed = server.get("/api/v1/streams", {"user_id": "ann"}).json()
    e2e.check_equal({s["stream_id"] for s in listed["streams"]},
                    {"old-1", "old-3"}, "the list")


@e2e.test
def gc_removes_what_has_expired_and_nothing_else(server):
    with e2e.Server(models=MODELS, settings={"ttl": TTL}) as own:
        for sid in ("young", "old", "older", "young-tomb", "old-tomb", "cut"):
            own.start_stream(message="x", stream_id=sid).read_all()
        for sid in ("young-tomb", "old-tomb"):
            own.request("DELETE", "/api/v1/streams/" + sid).read_head().read()
        own.kill_all("respool-spooler")
        with open(own.stream_path("cut"), "rb") as f:
            plant(own, "cut", f.read()[:-50])
        # Without a spooler nothing else sweeps.
        plant(own, "headless", b": respool1 {")
        temporary = os.path.join(os.path.dirname(own.stream_path("young")),
                                 ".tmp-0123456789abcdef")
        with open(temporary, "wb"):
            pass
        for sid in ("old", "old-tomb", "cut", "headless"):
            make_old(own, sid)
        result = own.ctl("gc")
        e2e.check_equal((result.returncode, result.stdout, result.stderr),
                        (0, "removed 4\n", ""), "gc without a spooler")
        e2e.check(not os.path.exists(temporary), "the temporary file stays")
        # One that had not ended is ended, and goes a ttl later.
        e2e.check_equal(set(spool_names(own)),
                        {"young", "older", "young-tomb", "cut"}, "names")
        ended = own.resume(-1, stream_id="cut").read_all()
        e2e.check_equal(ended.frames[-1].data["error_type"],
                        "generation_lost", "error_type")

        own.start_stream(message="x", stream_id="new").read_all()
        e2e.check_equal(len(own.spoolers()), 1, "spoolers")
        make_old(own, "older")
        make_old(own, "cut")
        result = own.ctl("gc")
        e2e.check_equal((result.returncode, result.stderr), (0, ""),
                        "gc with a spooler")
        # It may have swept by itself, too.
        e2e.check(re.fullmatch("removed [0-2]\n", result.stdout),
                  repr(result.stdout))
        e2e.check_equal(set(spool_names(own)), {"young", "young-tomb", "new"},
                        "names")
        e2e.check_equal(glob.glob(own.spool + "/streams/*/.tmp-*"), [],
                        "temporary files")


if __name__ == "__main__":
    e2e.main(models=MODELS, settings={"ttl": TTL}, procs=2)
