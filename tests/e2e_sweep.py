#!/usr/bin/env -S python3 -B
"""The spool's caps: what goes when there is too much, and what never does."""

import contextlib
import os
import random
import re
import signal
import subprocess
import time

import direct
import e2e

URL = "/api/v1/stream"
CAP = 40        # files; a 64th of it is nothing
TTL = 3600

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo"},
        "paced": {"provider": "demo", "chunks": 12, "interval_ms": 10},
        "endless": {"provider": "demo", "chunks": 1000000,
                    "interval_ms": 10},
        "flood": {"provider": "demo", "chunks": 20000,
                  "interval_ms": 0},
    },
}
SETTINGS = {"ttl": TTL, "max_spool_files": CAP, "idle_exit": 600}


def capped(**settings):
    return direct.Server(models=MODELS, settings=dict(SETTINGS, **settings))


def sizes(server):
    """{name: bytes} of the streams that are there, without tombstones."""
    found = {}
    for path in server.stream_files():
        with contextlib.suppress(FileNotFoundError):
            if os.path.getsize(path) > 0:
                found[os.path.basename(path)] = os.path.getsize(path)
    return found


def run_streams(server, prefix, count, model="paced"):
    """So many, eight at a time, each to its end; their ids."""
    def work(number):
        for i in range(number, count, 8):
            server.start_stream(message="x", model=model,
                                stream_id="%s-%d" % (prefix, i)).read_all()
    e2e.in_threads(8, work)
    return ["%s-%d" % (prefix, i) for i in range(count)]


def wait_for_cap(server, cap=CAP):
    # Without a word from anybody, the next look is seconds away.
    e2e.wait_until(lambda: len(sizes(server)) <= cap, 60, "the cap")


def check_gone(server, ids):
    for sid in ids:
        e2e.check_equal(server.get("/api/v1/streams/" + sid).status, 404,
                        "snapshot of " + sid)
        e2e.check_equal(server.get(URL, {"stream_id": sid}, [
            ("Last-Event-ID", "0")]).status, 404, "resume of " + sid)


def check_there(server, ids, chunks=12):
    text = "".join("tok%d " % i for i in range(chunks))
    for sid in ids:
        stream = server.resume(-1, stream_id=sid).read_all()
        e2e.check_equal((stream.text(), stream.frames[-1].event),
                        (text, "done"), sid)


@e2e.test
def under_load_the_cap_holds_and_no_live_stream_is_touched(server):
    with capped() as own:
        live = [own.start_stream(message="x", model="endless",
                                 stream_id="live-%d" % i).read_frames(1)
                for i in range(4)]
        done = e2e.threading.Event()

        def load(number):
            if number < len(live):
                # Strictly: each frame follows the one before.
                live[number].read_until(lambda frames: done.is_set())
                return
            try:
                old = run_streams(own, "old", 3 * CAP)
                # The live ones count too, and were the first.
                new = run_streams(own, "new", CAP - len(live))
                wait_for_cap(own)
                check_there(own, new)
                check_gone(own, old)
                e2e.check_equal(len(sizes(own)), CAP, "files")
            finally:
                done.set()

        e2e.in_threads(len(live) + 1, load)
        for i, stream in enumerate(live):
            own.post("/api/v1/streams/live-%d/stop" % i).read()
            stream.read_all()
            e2e.check_equal(stream.frames[-1].data["finish_reason"],
                            "stopped", "how it ended")
            e2e.check_equal(stream.bytes(), own.stream_bytes("live-%d" % i),
                            "what was read of it")


@e2e.test
def a_reader_that_has_the_file_open_replays_it_to_the_end(server):
    with capped() as own:
        whole = own.start_stream(message="x", model="flood",
                                 stream_id="read").read_all().bytes()
        reader = own.resume(-1, stream_id="read").read_frames(1)
        run_streams(own, "new", CAP)
        e2e.wait_until(lambda: not os.path.exists(own.stream_path("read")),
                       60, "its removal")
        check_gone(own, ["read"])
        e2e.check_equal(reader.read_all().bytes(), whole, "what was read")


@e2e.test
def bytes_are_capped_too(server):
    with capped(max_spool_files=0, max_spool_bytes=200000) as own:
        ids = []
        for i in range(100):
            ids.append("b-%d" % i)
            own.start_stream(message="x " * 500, stream_id=ids[-1]).read_all()

        def total():
            return sum(sizes(own).values())

        size = os.path.getsize(own.stream_path(ids[-1]))
        e2e.wait_until(lambda: total() <= 200000, 60, "the cap")
        there = [sid for sid in ids if os.path.exists(own.stream_path(sid))]
        # As many of the newest as fit, but for a 64th.
        e2e.check_equal(there, ids[-len(there):], "what is there")
        e2e.check(total() > 200000 * 63 // 64 - 2 * size, total())


@e2e.test
def a_spooler_that_is_killed_while_it_removes_harms_nothing(server):
    with capped() as own:
        old = run_streams(own, "old", CAP)
        for round_, (nth, when) in enumerate([
                (1, "before"), (1, "after"), (3, "before"), (2, "after")]):
            # One that begins removes sockets, which is not what is meant.
            old += run_streams(own, "begin-%d" % round_, 1)
            wait_for_cap(own)
            own.spooler_pause.order("unlinkat", nth, when)
            number = 0
            while not own.spooler_pause.hit:
                sid = "kill-%d-%d" % (round_, number)
                own.start_stream(message="x", stream_id=sid).read_all()
                old.append(sid)
                number += 1
                e2e.wait_until(lambda: own.spooler_pause.hit or
                               len(sizes(own)) <= CAP, 60, "the cap")
                e2e.check(number < 100, "nothing was removed")
            own.spooler_pause.wait()
        # The next ones find it dead, and what it left is counted again.
        new = run_streams(own, "new", CAP)
        wait_for_cap(own)
        check_there(own, new)
        check_gone(own, old)
        e2e.check_equal(own.ctl("check").stdout,
                        "streams %d, faults 0, mended 0\n" % CAP, "check")


@e2e.test
def when_all_are_live_starts_go_on_and_the_log_says_so_once(server):
    said = "above its cap, and nothing can be removed"
    with capped(max_spool_files=3) as own:
        live = [own.start_stream(message="x", model="endless",
                                 stream_id="live-%d" % i).read_frames(1)
                for i in range(5)]

        def told():
            return len([line for line in own.log() if said in line])

        run_streams(own, "short", 4)  # each removes the one before, or itself
        e2e.wait_until(lambda: len(sizes(own)) == 5 and told(), 60,
                       "the log's line")
        for stream in live:
            stream.read_frames(len(stream.frames) + 50)
        e2e.check_equal(own.start_stream(message="x").read_all()
                        .frames[-1].event, "done", "a start")
        e2e.check_equal(told(), 1, "lines")
        for stream in live:
            stream.close()


@e2e.test
def it_counts_what_was_there_before(server):
    with direct.Server(models=MODELS, settings={"ttl": TTL}) as own:
        ids = []
        for i in range(60):
            ids.append("s-%d" % i)
            own.start_stream(message="x", stream_id=ids[-1]).read_all()
        own.post("/api/v1/streams/%s/stop" % ids[-1]).read()
        e2e.check_equal(own.request("DELETE", "/api/v1/streams/s-59")
                        .read_head().status, 204, "DELETE")
        own.kill_all("respool-spooler")
        for number in range(own.procs):
            own.responder[number].kill()
            own.responder[number].wait()
        own.env["RESPOOL_MAX_SPOOL_FILES"] = "20"
        for number in range(own.procs):
            own.start_responder(number)
        own.start_stream(message="x", stream_id="one-more").read_all()
        wait_for_cap(own, 20)
        check_gone(own, ids[:40] + ["s-59"])
        for sid in ids[40:59]:
            e2e.check_equal(own.get("/api/v1/streams/" + sid).status, 200,
                            sid)
        # Deleted stays deleted.
        e2e.check_equal(own.get(URL, {"stream_id": "s-59", "message": "x"})
                        .status, 404, "a start of what was deleted")


# ---- lists ----

LIST = "/api/v1/streams"


def redate(own, sid, created_ms, mtime_ms):
    path = own.stream_path(sid, "ann")
    with open(path, "r+b") as f:
        data = f.read()
        f.seek(0)
        f.write(re.sub(rb'"created":[0-9]+', b'"created":%d' % created_ms,
                       data, 1))
    os.utime(path, ns=(0, mtime_ms * 1000000))


@e2e.test
def a_list_is_in_the_order_of_beginnings_whatever_the_last_appends(server):
    with direct.Server(models=MODELS, settings={"ttl": 10 * TTL}) as own:
        rand = random.Random(5)
        now, want = int(time.time() * 1000), []
        for i in range(120):
            sid = "s-%d" % i
            own.start_stream(message="x", user_id="ann",
                             stream_id=sid).read_all()
            # Some took long, and of some the clock was set back meanwhile.
            created = now - rand.randrange(1, 400) * 1000
            mtime = created + rand.choice([0, 0, 0, 5000, 300000, -200000,
                                           -500])
            redate(own, sid, created, min(mtime, now))
            want.append((min(created, min(mtime, now) + 1000), sid))
        want = [sid for _, sid in sorted(want, reverse=True)]
        for limit in (1, 7, 50, 1000):
            for before in [None] + rand.sample(want, 5):
                rest = want[want.index(before) + 1:] if before else want
                fields = {"user_id": "ann", "limit": limit}
                if before:
                    fields["before"] = before
                page = own.get(LIST, fields).json()
                e2e.check_equal([s["stream_id"] for s in page["streams"]],
                                rest[:limit], "%d before %s" % (limit, before))
                e2e.check_equal(page["has_more"], len(rest) > limit, "more")
        e2e.check_equal(own.get(LIST, {"user_id": "ann", "before": "none"})
                        .status, 404, "status")


# ---- respoolctl gc ----

LINE = re.compile(r"(ttl|cap|left-over) +([0-9]+) (\S+)")
SUM = re.compile(r"would remove ([0-9]+) files of ([0-9]+) bytes: ttl [0-9]+ "
                 r"of [0-9]+, cap [0-9]+ of [0-9]+, left-over [0-9]+ of "
                 r"[0-9]+")


def dry_run(own, run=None):
    """{name: why} of what it tells."""
    result = run() if run else own.ctl("gc", "--dry-run")
    e2e.check_equal((result.returncode, result.stderr), (0, ""), "dry run")
    *lines, total, keep = result.stdout.splitlines()
    told = [LINE.fullmatch(line).groups() for line in lines]
    e2e.check_equal(SUM.fullmatch(total).groups(), (
        str(len(told)), str(sum(int(size) for _, size, _ in told))), total)
    e2e.check(keep.startswith("would keep "), keep)
    return {name: why for why, _, name in told}


def all_files(server):
    """Names in the shards, temporary ones too."""
    return {name for part in ("streams", "conversations")
            for _, _, files in os.walk(os.path.join(server.spool, part))
            for name in files}


def fill(own):
    """Ten of each: too old, deleted long ago, orphaned, deleted, young; and
    what a crash left; no spooler."""
    for kind in ("old", "gone", "orphan", "deleted", "young"):
        for i in range(10):
            own.start_stream(message="x", user_id="ann",
                             stream_id="%s-%d" % (kind, i)).read_all()
            if kind in ("gone", "deleted"):
                own.request("DELETE", "/api/v1/streams/%s-%d?user_id=ann"
                            % (kind, i)).read_head()
    own.kill_all("respool-spooler")
    for i in range(10):
        path = own.stream_path("orphan-%d" % i, "ann")
        size, was = os.path.getsize(path), os.stat(path).st_mtime
        os.truncate(path, size - 5)
        os.utime(path, (was, was))
        for kind in ("old", "gone"):
            path = own.stream_path("%s-%d" % (kind, i), "ann")
            os.utime(path, (1, was - TTL - 60))
    left = os.path.join(os.path.dirname(path), ".tmp-0123456789abcdef")
    with open(left, "wb") as f:
        f.write(b"x" * 77)
    if own.user:
        os.chown(left, *own.user[2:4])


def group_user(own):
    """Runs respoolctl as somebody who may only read."""
    for directory, _, files in os.walk(own.spool):
        os.chmod(directory, 0o750)
        for name in files:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                os.chmod(path, 0o640)
    os.chmod(own.run, 0o750)
    return subprocess.run(
        [os.path.join(own.bin, "respoolctl"), "gc", "--dry-run"],
        env=own.env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
        encoding="utf-8", timeout=e2e.IO_TIMEOUT, check=False,
        user=65534, group=own.user.pw_gid, extra_groups=[])


def check_gc(own, run=None):
    own.env["RESPOOL_MAX_SPOOL_FILES"] = "15"
    before = all_files(own)
    state = own.snapshot_of_disk()
    told = dry_run(own, run)
    e2e.check_equal(own.snapshot_of_disk(), state, "the disk")
    spoolers = own.spoolers()
    for pid in spoolers:
        os.kill(pid, signal.SIGCONT)
    result = own.ctl("gc")
    e2e.check_equal(result.stderr, "", "gc")
    # A spooler may have removed some by itself before it was asked.
    if not spoolers:
        e2e.check_equal(result.stdout, "removed %d\n" % len(told), "gc")
    e2e.check_equal(before - all_files(own), set(told), "what went")
    whys = sorted(told.values())
    return {why: whys.count(why) for why in whys}


@e2e.test
def a_dry_run_tells_exactly_what_gc_removes_without_a_spooler(server):
    with direct.Server(models=MODELS, settings={"ttl": TTL}) as own:
        fill(own)
        # 10 orphans and 10 young ones: 5 too many, none of the orphans.
        whys = check_gc(own)
        e2e.check_equal(whys, {"ttl": 20, "cap": 5, "left-over": 1}, "why")


@e2e.test
def a_dry_run_tells_exactly_what_gc_removes_beside_a_spooler(server):
    with direct.Server(models=MODELS, settings={
            "ttl": TTL, "max_spool_files": 15}) as own:
        # Over its cap a spooler does something at once: this one cannot.
        own.start_stream(message="x", stream_id="first").read_all()
        pid, = own.spoolers()
        with direct.Server(models=MODELS, settings={"ttl": TTL}) as other:
            fill(other)
            os.kill(pid, signal.SIGSTOP)
            for path in other.stream_files() + [
                    os.path.join(d, n) for d, _, names_ in
                    os.walk(other.spool + "/streams") for n in names_
                    if n.startswith(".tmp-")]:
                to = own.spool + path[len(other.spool):]
                if not os.path.isdir(os.path.dirname(to)):
                    os.mkdir(os.path.dirname(to), 0o700)
                    if own.user:
                        os.chown(os.path.dirname(to), *own.user[2:4])
                os.rename(path, to)
        whys = check_gc(own)
        e2e.check_equal(whys, {"ttl": 20, "cap": 6, "left-over": 1}, "why")


@e2e.test
def a_dry_run_needs_no_more_than_to_read(server):
    with direct.Server(models=MODELS, settings={"ttl": TTL}) as own:
        if not own.user:
            return  # it takes two users
        fill(own)
        whys = check_gc(own, lambda: group_user(own))
        e2e.check_equal(whys, {"ttl": 20, "cap": 5, "left-over": 1}, "why")


if __name__ == "__main__":
    e2e.main(direct.Server, models=MODELS, settings=SETTINGS)
