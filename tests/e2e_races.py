#!/usr/bin/env -S python3 -B
"""Races between spoolers, responders and readers, each forced and survived:
processes are stopped or killed at a chosen call, and the other side of the
wake protocol (src/wake.h) is played by the test where that is needed."""

import contextlib
import fcntl
import functools
import glob
import json
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import threading
import time

import direct
import e2e

MODELS = {
    "default": "short",
    "models": {
        "short": {"provider": "demo", "chunks": 5,
                  "prices": {"input": 150000, "output": 600000}},
        "live": {"provider": "demo", "chunks": 60, "interval_ms": 20},
        "fast": {"provider": "demo", "chunks": 1500, "interval_ms": 1},
        "hangs": {"provider": "demo", "chunks": 100, "hang_after": 5},
        "wide": {"provider": "demo", "text": "x" * 2000 + " end"},
    },
}
SETTINGS = {"keepalive": 1, "heartbeat": 300, "idle_exit": 100}
CHUNKS = {name: model.get("chunks")
          for name, model in MODELS["models"].items()}
START_TIMEOUT = 15  # seconds, also for a start that meets a stopped spooler


# ---- the wake protocol, as src/wake.h has it ----

def source(name):
    with open(os.path.join(e2e.SOURCE, "src", name), encoding="utf-8") as f:
        return f.read()


def constants(header, enum):
    """Of an enum: their numbers by name."""
    body = re.search(r"^enum %s \{(.*?)\};" % enum, source(header),
                     re.M | re.S)[1]
    found, number = {}, -1
    for name, value in re.findall(r"^\t(\w+)(?: = (\d+))?,", body, re.M):
        number = int(value or number + 1)
        found[name] = number
    return found


VERSION = int(re.search(r"#define WAKE_VERSION (\d+)", source("wake.h"))[1])
OP = constants("wake.h", "wake_op")
STATE = constants("wake.h", "wake_state")
ERR = constants("err.h", "rs_err")
HEAD, KEY = "II", "17s65s"
HELLO_FORMAT = HEAD + "I65s3x"
KEY_FORMAT = HEAD + KEY + "2x"
SUB_FORMAT = HEAD + "QQ" + KEY + "6x"
ANSWER_FORMAT = HEAD + "IIIIQ196s4x"  # retry_s, limit and text as one


def stream_key(server, stream_id):
    owner = os.path.basename(server.stream_path(stream_id))[:16]
    return owner.encode(), stream_id.encode()


class Wire:
    """One end of a connection between a responder and a spooler."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(10)

    @classmethod
    def to_spooler(cls, server, version=VERSION):
        """As a responder, after HELLO; answer is what that was answered."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(os.path.join(server.spool, "current"))
        wire = cls(sock)
        wire.send(HELLO_FORMAT, OP["WAKE_HELLO"], 1, version, b"")
        wire.answer = wire.receive_answer(1)
        return wire

    def send(self, form, *values):
        self.sock.send(struct.pack(form, *values))

    def request(self, op, tag, key):
        self.send(KEY_FORMAT, op, tag, *key)

    def subscribe(self, number, key):
        self.send(SUB_FORMAT, OP["WAKE_SUBSCRIBE"], 0, number, 0,
                  *key)

    def unsubscribe(self, number):
        self.send(SUB_FORMAT, OP["WAKE_UNSUBSCRIBE"], 0, number, 0,
                  b"", b"")

    def receive(self):
        """op, tag and the message; (None, None, b"") at the end."""
        data = self.sock.recv(16384)
        if not data:
            return None, None, b""
        return struct.unpack_from(HEAD, data) + (data,)

    def receive_answer(self, tag):
        """err, version, draining."""
        while True:
            op, got, data = self.receive()
            e2e.check(op is not None, "no answer")
            if op == OP["WAKE_ANSWER"] and got == tag:
                _, _, err, _, version, draining, _, _ = struct.unpack(
                    ANSWER_FORMAT, data)
                return err, version, draining

    def receive_moved(self):
        """[(subscription, end, state)] of the next NOTIFY."""
        while True:
            op, _, data = self.receive()
            e2e.check(op is not None, "no notification")
            if op == OP["WAKE_NOTIFY"]:
                return list(struct.iter_unpack("QQQ", data[8:]))

    def close(self):
        self.sock.close()


class FakeSpooler:
    """One that answers HELLO only; with the spooler.lock or without."""

    def __init__(self, server, version, drains):
        self.server = server
        self.version = version
        self.drains = drains  # gives the lock up to who comes
        self.lock = open_as(server, "spooler.lock")
        e2e.wait_until(lambda: lock(self.lock), 5, "spooler.lock")
        self.name = "s-%s.sock" % secrets.token_hex(8)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(os.path.join(server.spool, self.name))
        give_away(server, self.name)
        self.listener.listen(100)
        link = os.path.join(server.spool, ".link")
        os.symlink(self.name, link)
        os.rename(link, os.path.join(server.spool, "current"))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                wire = Wire(self.listener.accept()[0])
                threading.Thread(target=self._answer, args=(wire,),
                                 daemon=True).start()

    def _answer(self, wire):
        with contextlib.suppress(OSError):
            while True:
                op, tag, _ = wire.receive()
                if op == OP["WAKE_HELLO"]:
                    if self.drains:
                        self.let_go()
                    wire.send(ANSWER_FORMAT, OP["WAKE_ANSWER"], tag,
                              ERR["RS_EPROTO"], 0, self.version, self.drains,
                              0, b"")
                elif op is None:
                    return

    def let_go(self):
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def leave(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.let_go()
        os.unlink(os.path.join(self.server.spool, self.name))


# ---- files in the spool ----

def give_away(server, name):
    if server.user:
        os.chown(os.path.join(server.spool, name), server.user.pw_uid,
                 server.user.pw_gid)


def as_user(server):
    """For subprocess: as who the programs run."""
    if not server.user:
        return {}
    return {"user": server.user.pw_uid, "group": server.user.pw_gid,
            "extra_groups": []}


def open_as(server, name):
    fd = os.open(os.path.join(server.spool, name), os.O_RDWR | os.O_CREAT,
                 0o600)
    give_away(server, name)
    return fd


def lock(fd):
    """False: it is held."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(
            "hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def new_id(what):
    return "%s-%s" % (what, secrets.token_hex(4))


# ---- what the tests share ----

def race(function):
    """A test that leaves nobody stopped."""
    @functools.wraps(function)
    def run(server):
        try:
            function(server)
        finally:
            server.calm()

    return e2e.test(run)



def start(server, stream_id, model="short", **options):
    """A start that is repeated while responders hold back, as they do for
    seconds after a spooler died before it was ready."""
    def attempt():
        try:
            response = server.request(
                "POST", "/api/v1/stream",
                [("Content-Type", "application/json")], json.dumps({
                    "message": "x", "model": model,
                    "stream_id": stream_id}).encode(), **options).read_head()
        except OSError:
            return None
        return None if response.status == 503 else e2e.Stream(response, 0)

    return e2e.wait_until(attempt, START_TIMEOUT, "a start")


def start_at_once(server, stream_id, model="short"):
    """One that is not refused."""
    return server.start_stream(message="x", stream_id=stream_id, model=model)


def read_to_the_end(server, stream_id, stream=None):
    """As a client does that comes back; all frames."""
    frames = []
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            if stream is None:
                stream = server.resume(frames[-1].id if frames else -1,
                                       stream_id=stream_id)
            stream.read_all(cut_ok=True)
        if stream is not None:
            frames += stream.frames
            if stream.ended:
                return frames
        e2e.check(time.monotonic() < deadline, "the stream did not end")
        stream = None
        time.sleep(0.02)


def raw(frames):
    return b"".join(frame.raw for frame in frames)


def check_whole(server, stream_id, frames, model):
    """The text is complete, in the file, and was paid for once."""
    e2e.check_equal(frames[-1].event, "done", "the last event")
    e2e.check_equal([f.data["content"] for f in frames[:-1]],
                    ["tok%d " % n for n in range(CHUNKS[model])], "text")
    e2e.check_equal(raw(frames), server.stream_bytes(stream_id), "the file")
    check_once(server, stream_id)
    # The first one counts.
    settle = server.usage_lines("settle", stream_id)[0]
    for name in ("usage", "total_cost", "finish_reason", "estimated"):
        e2e.check_equal(settle[name], frames[-1].data[name], name)


def check_once(server, stream_id):
    """At most one generation was paid for, and it was settled."""
    reserves = server.usage_lines("reserve", stream_id)
    settles = server.usage_lines("settle", stream_id)
    e2e.check(len(reserves) <= 1, "%d reserves" % len(reserves))
    e2e.check(settles, "it was not settled")
    e2e.check_equal(len({line["created"] for line in reserves + settles}), 1,
                    "generations")


def check_lost(server, stream_id, frames):
    """What there was, and that it was lost."""
    e2e.check_equal(frames[-1].data.get("error_type"), "generation_lost",
                    "error_type")
    e2e.check_equal([f.data["content"] for f in frames[:-1]],
                    ["tok%d " % n for n in range(len(frames) - 1)], "text")
    e2e.check_equal(raw(frames), server.stream_bytes(stream_id), "the file")
    check_once(server, stream_id)


def has_ended(server, stream_id):
    with open(server.stream_path(stream_id), "rb") as f:
        f.seek(-min(os.fstat(f.fileno()).st_size, 1000), os.SEEK_END)
        return re.search(rb"\nevent: (done|error)\n[^\0]*\n\n$", f.read())


def ensure_spooler(server):
    """Its pid; the one that takes starts."""
    sid = new_id("ensure")
    start(server, sid).read_all()
    with open(server.stream_path(sid), "rb") as f:
        name = e2e.parse_json(e2e.HEAD.match(f.read())[1])["socket"]
    for line in reversed(server.log()):
        match = re.search(r" spooler started pid=([0-9]+) .* socket=" +
                          re.escape(name), line)
        if match:
            return int(match[1])
    raise AssertionError("no line in the log about " + name)


def go_on(*pids):
    for pid in pids:
        e2e.kill(pid, signal.SIGCONT)


def in_background(function, *arguments):
    """result() waits for it."""
    box = []

    def work():
        try:
            box.append((function(*arguments), None))
        except Exception as e:  # for who waits
            box.append((None, e))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def result():
        thread.join(60)
        e2e.check(box, "%s hangs" % function.__name__)
        if box[0][1] is not None:
            raise box[0][1]
        return box[0][0]

    return result


# ---- wake-ups ----

@race
def wakes_that_do_not_fit_are_told_together_and_the_last_is_the_end(server):
    sid = new_id("dropped")
    stream = start(server, sid, "fast").read_frames(1)
    wire = Wire.to_spooler(server)
    wire.subscribe(7, stream_key(server, sid))
    # Not one message is taken meanwhile; the queue has place for some 300.
    stream.read_all()
    told = wire.receive_moved()
    messages = 1
    while told[-1][2] == STATE["WAKE_LIVE"]:
        more = wire.receive_moved()
        messages += 1
        e2e.check(more[-1][1] >= told[-1][1], "the end went back")
        told += more
    wire.close()
    e2e.check(messages < CHUNKS["fast"], "%d messages fit" % messages)
    e2e.check_equal(told[-1], (7, os.path.getsize(server.stream_path(sid)),
                               STATE["WAKE_ENDED"]), "the last word")


@race
def a_responder_that_was_busy_all_the_time_misses_nothing(server):
    def catch_up():
        sid = new_id("busy")
        stream = start(server, sid, "fast", responder=0).read_frames(10)
        pid = server.responder[0].pid
        os.kill(pid, signal.SIGSTOP)
        e2e.wait_until(lambda: has_ended(server, sid), 20, "the stream's end")
        go_on(pid)
        went_on = time.monotonic()
        stream.read_all()
        check_whole(server, sid, stream.frames, "fast")
        return stream.frames[-1].at - went_on

    # The keep-alive would find the end after a second; a wake does at once.
    e2e.check_soon(catch_up, 0.9, "the end")


@race
def a_wake_for_a_subscription_that_has_ended_harms_no_other(server):
    """The responder's side: the late word names a number whose place another
    follower has taken; it is live, or the last."""
    for ends in (False, True):
        first, second = new_id("left"), new_id("stays")
        ensure_spooler(server)
        reader = start(server, first, "hangs" if ends else "live",
                       responder=0).read_frames(5)
        start(server, second, "live", responder=1).read_frames(1).close()
        server.spooler_pause.order("sendmsg", number=signal.SIGSTOP)
        if ends:
            stopping = in_background(
                lambda: server.request("POST", "/api/v1/streams/%s/stop"
                                       % first, responder=1).json())
        spooler = server.spooler_pause.wait()
        reader.close()
        pattern = r" follow stream=%s ended .* reason=client_left" % first
        e2e.wait_until(lambda: any(re.search(pattern, line) for line in
                                   server.log()), 10, "its leaving")
        other = e2e.Stream(server.request(
            "GET", "/api/v1/stream?stream_id=" + second, responder=0), 0)
        other.read_frames(1)
        go_on(spooler)
        if ends:
            e2e.check_equal(stopping()["state"], "stopped", "the first's")
        # Were it taken for its own, it would be sent away.
        check_whole(server, second, other.read_all().frames, "live")
        read_to_the_end(server, first)


@race
def a_wake_on_its_way_to_a_subscription_that_ends_is_the_last_one(server):
    """The spooler's side."""
    first, second = new_id("first"), new_id("second")
    ensure_spooler(server)
    for sid in (first, second):
        start(server, sid, "live").read_frames(1).close()
    wire = Wire.to_spooler(server)
    wire.subscribe(1, stream_key(server, first))
    wire.receive_moved()
    server.spooler_pause.order("sendmsg", number=signal.SIGSTOP)
    pid = server.spooler_pause.wait()
    wire.unsubscribe(1)
    wire.unsubscribe(99)  # nobody's
    wire.subscribe(2, stream_key(server, second))
    go_on(pid)
    told = wire.receive_moved()
    while told[-1][2] == STATE["WAKE_LIVE"]:
        told += wire.receive_moved()
    numbers = [number for number, _, _ in told]
    e2e.check(set(numbers) <= {1, 2} and
              1 not in numbers[numbers.index(2):], "told %r" % numbers)
    e2e.check_equal(told[-1], (2, os.path.getsize(server.stream_path(second)),
                               STATE["WAKE_ENDED"]), "the last word")
    wire.close()


# ---- a writer's death ----

@race
def locks_that_outlive_their_process_a_moment_delay_the_announcement(server):
    """Also the spooler.lock, which the next spooler needs."""
    def announce():
        sid = new_id("held")
        stream = start(server, sid, "live").read_frames(3)
        server.spooler_pause.order("pwrite", 2, hold_ms=300)
        server.spooler_pause.wait()
        died_at = time.monotonic()
        frames = read_to_the_end(server, sid, stream)
        check_lost(server, sid, frames)
        return time.monotonic() - died_at

    e2e.check_soon(announce, 1, "the announcement")


@race
def a_stream_is_sealed_when_its_lock_is_free_and_not_before(server):
    sid, dead = new_id("orphan"), "s-%s.sock" % secrets.token_hex(8)
    template = new_id("template")
    start(server, template, "live").read_frames(3)
    path = server.stream_path(sid)
    with open(server.stream_path(template), "rb") as f:
        data = f.read()
    head = e2e.HEAD.match(data)
    part = data[:data.index(b"\n\n", head.end()) + 2].replace(
        e2e.parse_json(head[1])["socket"].encode(), dead.encode())
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    give_away(server, os.path.dirname(path))
    fd = open_as(server, path)
    e2e.check(lock(fd), "the lock")
    os.write(fd, part)

    # Held for longer than anybody waits: responses end, and nothing more.
    stream = server.resume(-1, stream_id=sid).read_all(cut_ok=True)
    e2e.check(not stream.ended and stream.parser.retry, "no retry block")
    e2e.check_equal(len(stream.frames), 1, "frames")
    e2e.check_equal(server.stream_bytes(sid), stream.bytes(), "the file")
    # Held for a moment.
    reading = in_background(
        lambda: server.resume(-1, stream_id=sid).read_all())
    time.sleep(0.3)
    e2e.check_equal(server.stream_bytes(sid), stream.bytes(), "the file")
    os.close(fd)
    frames = reading().frames
    e2e.check_equal(len(frames), 2, "frames")
    check_lost(server, sid, frames)


def survive(server, page, call, nth, when):
    """A stream while whose life a process is killed at that call; false: it
    ended before there was one."""
    ensure_spooler(server)
    sid = new_id("%s-%d-%s" % (call, nth, when))
    page.order(call, nth, when)
    frames = read_to_the_end(server, sid, start(server, sid))
    page.cancel()
    if frames[-1].event == "done":
        check_whole(server, sid, frames, "short")
    else:
        check_lost(server, sid, frames)
    again = read_to_the_end(server, sid)
    e2e.check_equal(raw(again), raw(frames), "a second reader")
    return page.hit


def survive_all(server, page):
    """At each call in turn, and in the middle of writes."""
    nth = 1
    while survive(server, page, "any", nth, "before"):
        nth += 1
    e2e.check(nth > 20, "%d calls" % nth)
    for call in ("pwrite", "usage", "write"):
        for nth in (1, 2, 3):
            survive(server, page, call, nth, "within")


@race
def a_torn_tail_is_cut_off_however_long_it_is(server):
    sid = new_id("torn")
    ensure_spooler(server)
    server.spooler_pause.order("pwrite", 2, "within")  # after the head
    frames = read_to_the_end(server, sid, start(server, sid, "wide"))
    e2e.check(server.spooler_pause.hit, "it was not torn")
    e2e.check_equal([frame.event for frame in frames], ["error"], "events")
    check_lost(server, sid, frames)


@race
def a_spooler_may_die_at_any_call_of_a_streams_life(server):
    survive_all(server, server.spooler_pause)


@race
def nor_does_it_matter_where_files_need_a_temporary_name(server):
    server.spooler_pause.refuse_tmpfile(True)
    survive_all(server, server.spooler_pause)
    ensure_spooler(server)
    e2e.check_equal(server.ctl("gc").returncode, 0, "gc")
    e2e.check_equal(glob.glob(server.spool + "/streams/*/.*"), [],
                    "temporary files")


def start_dead_responders(server):
    """Again and again, until the function that is returned is called."""
    over = threading.Event()

    def work():
        while not over.wait(0.005):
            for number in server.dead_responders():
                server.start_responder(number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def end():
        over.set()
        thread.join()

    return end


@race
def a_responder_may_die_at_any_call_of_a_streams_life(server):
    end = start_dead_responders(server)
    try:
        survive_all(server, server.responder_pause)
    finally:
        end()


@race
def a_spooler_may_die_at_any_call_before_it_is_ready(server):
    """And the next one makes up for it."""
    end, nth = start_dead_responders(server), 0
    try:
        while True:
            nth += 1
            sid = new_id("lost")
            old = ensure_spooler(server)
            stream = start(server, sid, "hangs").read_frames(5)
            os.kill(old, signal.SIGSTOP)  # the order is not for this one
            server.spooler_pause.order("any", nth)
            server.kill_all("respool-spooler")
            frames = read_to_the_end(server, sid, stream)
            check_lost(server, sid, frames)
            if any(" spooler started pid=%d " % server.spooler_pause.hit in
                   line for line in server.log()):
                break
            # A responder that saw it die would hold back for seconds.
            for process in server.responder:
                process.kill()
        ensure_spooler(server)
    finally:
        end()
    e2e.check(nth > 20, "%d calls" % nth)
    left = [name for name in os.listdir(server.spool)
            if name.startswith((".", "s-"))]
    e2e.check_equal(len(left), 1, "sockets and temporary names %r" % left)


@race
def a_stopped_writer_is_not_sealed_and_goes_on_where_it_was(server):
    """It drains, and its successor is asked to seal; it is stopped before an
    append, after one, and in the middle of one."""
    for when in ("before", "within", "after"):
        sid = new_id("late")
        pid = ensure_spooler(server)
        stream = start(server, sid, "live").read_frames(3)
        e2e.kill(pid, signal.SIGTERM)
        other = new_id("successor")
        frames = start(server, other, "short").read_all().frames
        check_whole(server, other, frames, "short")
        server.spooler_pause.order("pwrite", 2, when, signal.SIGSTOP)
        e2e.check_equal(server.spooler_pause.wait(), pid, "who was stopped")
        size = os.path.getsize(server.stream_path(sid))
        wire = Wire.to_spooler(server)
        began = time.monotonic()
        wire.request(OP["WAKE_SEAL"], 5, stream_key(server, sid))
        e2e.check_equal(wire.receive_answer(5)[0], ERR["RS_EBUSY"], "SEAL")
        took = time.monotonic() - began
        e2e.check(0.8 < took < 3, "SEAL took %.1f s" % took)
        wire.close()
        e2e.check_equal(os.path.getsize(server.stream_path(sid)), size,
                        "size")
        go_on(pid)
        frames = read_to_the_end(server, sid, stream)
        check_whole(server, sid, frames, "live")
        e2e.wait_until(lambda: e2e.is_gone(pid), 10, "the old one's end")


# ---- removing ----

@race
def an_expired_stream_gives_way_to_one_new_generation(server):
    with direct.Server(models=MODELS, settings=dict(SETTINGS, ttl=1),
                       procs=2) as other:
        sid = new_id("again")
        old = start(other, sid).read_all()
        for number in (1, 2, 3):
            time.sleep(1.1)  # the ttl
            if number < 3:
                # The sweep has looked, and is about to unlink; starts wait.
                other.spooler_pause.order("unlinkat", number=signal.SIGSTOP)
            gc = in_background(other.ctl, "gc")
            pid = other.spooler_pause.wait() if number < 3 else None
            starts = [in_background(lambda: start_at_once(
                other, sid).read_all()) for _ in range(10)]
            if pid:
                time.sleep(0.05)
                go_on(pid)
            new = [result() for result in starts]
            e2e.check_equal(gc().returncode, 0, "gc")
            e2e.check_equal({stream.bytes() for stream in new},
                            {other.stream_bytes(sid)}, "their bytes")
            e2e.check_equal(len(new[0].frames), 6, "frames")
            for kind in ("reserve", "settle"):
                e2e.check_equal(len({line["created"] for line in
                                     other.usage_lines(kind, sid)}),
                                1 + number, kind + "s")
        e2e.check_equal(len(old.frames), 6, "frames of the first")


@race
def a_delete_and_a_start_of_the_same_id_leave_it_deleted(server):
    for when in ("before", "after"):
        sid = new_id("deleted")
        ensure_spooler(server)
        reader = start(server, sid, "hangs").read_frames(5)
        server.spooler_pause.order("renameat", 1, when, signal.SIGSTOP)
        deleting = in_background(
            lambda: server.request("DELETE", "/api/v1/streams/" + sid)
            .read_head().status)
        pid = server.spooler_pause.wait()
        starts = [in_background(
            lambda: server.post("/api/v1/stream", {
                "message": "x", "model": "hangs", "stream_id": sid}))
                  for _ in range(5)]
        time.sleep(0.05)
        go_on(pid)
        e2e.check_equal(deleting(), 204, "status of DELETE")
        for result in starts:
            response = result()
            if response.status == 200:  # it was there when it came
                e2e.check_equal(e2e.Stream(response, 0).read_all()
                                .frames[-1].data["finish_reason"], "stopped",
                                "a joiner's end")
            else:
                e2e.check_equal(response.status, 404, "status of a start")
        e2e.check(reader.read_all().ended, "the first reader's end")
        for _ in range(2):  # also after a crash
            for response in (server.get("/api/v1/stream", {"stream_id": sid}),
                             server.post("/api/v1/stream", {
                                 "message": "x", "stream_id": sid})):
                e2e.check_equal(response.status, 404, "status afterwards")
            check_once(server, sid)
            server.kill_all("respool-spooler")


# ---- coming and going ----

@race
def a_start_at_any_moment_of_an_idle_exit_succeeds_once(server):
    with direct.Server(models=MODELS, settings=dict(SETTINGS, idle_exit=1),
                       procs=2) as other:
        for call, nth in (("write", 1), ("close", 1), ("close", 2),
                          ("close", 3), ("close", 4), ("unlinkat", 1)):
            sid = new_id("idle")
            old = ensure_spooler(other)
            # It says that it leaves, then does so step by step.
            other.spooler_pause.order("write", 1, "after", signal.SIGSTOP)
            e2e.check_equal(other.spooler_pause.wait(), old, "who left")
            e2e.check(" left pid=%d " % old in other.log()[-1], "last line")
            if call != "write":
                other.spooler_pause.order(call, nth, "after", signal.SIGSTOP)
                go_on(old)
                e2e.check_equal(other.spooler_pause.wait(), old, "who left")
            starts = [in_background(lambda: start_at_once(
                other, sid).read_all()) for _ in range(3)]
            time.sleep(0.1)
            go_on(old)
            for result in starts:
                check_whole(other, sid, result().frames, "short")
            e2e.wait_until(lambda: e2e.is_gone(old), 5, "its end")


def stop_in_drain(server, pid, when):
    """Has it drain, which it may be stopped before, and stops it about when
    it gives the lock up."""
    was_stopped = direct.is_stopped(pid)
    server.spooler_pause.order("write", 1, "after", signal.SIGSTOP)
    e2e.kill(pid, signal.SIGTERM)
    if was_stopped:
        go_on(pid)
    e2e.check_equal(server.spooler_pause.wait(), pid, "who was stopped")
    e2e.check(" draining pid=%d " % pid in server.log()[-1], "last line")
    server.spooler_pause.order("close", 1, when, signal.SIGSTOP)
    go_on(pid)
    e2e.check_equal(server.spooler_pause.wait(), pid, "who was stopped")


@race
def starts_while_a_spooler_begins_to_drain_succeed_once(server):
    for when in ("before", "after"):
        sid = new_id("drained")
        old = ensure_spooler(server)
        # A silent stream: nothing but the signal wakes the old one up.
        stream = start(server, sid, "hangs").read_frames(5)
        stop_in_drain(server, old, when)
        sids = [new_id("successor") for _ in range(5)]
        starts = [in_background(lambda s=s: start_at_once(server, s)
                                .read_all()) for s in sids * 2]
        time.sleep(0.1)
        go_on(old)
        for other, result in zip(sids * 2, starts):
            check_whole(server, other, result().frames, "short")
        e2e.check(not e2e.is_gone(old), "the old one has not waited")
        e2e.check_equal(len(server.spoolers()), 2, "spoolers")
        # A stop finds it all the same.
        server.post("/api/v1/streams/%s/stop" % sid).read()
        e2e.check_equal(stream.read_all().frames[-1].data["finish_reason"],
                        "stopped", "the end")
        e2e.wait_until(lambda: e2e.is_gone(old), 5, "the old one's end")


@race
def a_draining_spooler_and_its_successor_do_not_get_in_each_others_way(
        server):
    """Three of them write at once; the second recovers while the first still
    lives, and the third while both do."""
    streams, old = {}, []
    for _ in range(3):
        sid = new_id("writer")
        old.append(ensure_spooler(server))
        streams[sid] = start(server, sid, "live").read_frames(2)
        e2e.kill(old[-1], signal.SIGTERM)
    for sid, stream in streams.items():
        check_whole(server, sid, read_to_the_end(server, sid, stream), "live")
        e2e.check_equal(len(server.usage_lines("settle", sid)), 1, "settles")
    e2e.wait_until(lambda: all(map(e2e.is_gone, old)), 10, "their end")


def start_spooler(server):
    """Without a responder, as an administrator does; the process."""
    before = os.readlink(server.spool + "/current")
    process = subprocess.Popen(
        [os.path.join(server.bin, "spooler.sh"), "--foreground"],
        env=server.env, stdin=subprocess.DEVNULL, **as_user(server))
    e2e.wait_until(lambda: os.readlink(server.spool + "/current") != before,
                   10, "its start")
    return process


@race
def a_spooler_that_drains_stops_to_sweep(server):
    """What looks left over may be its successor's now."""
    sid = new_id("swept")
    while os.path.dirname(server.stream_path(sid))[-2:] < "80":
        sid = new_id("swept")
    start(server, sid).read_all()
    old = ensure_spooler(server)
    reader = start(server, new_id("writer"), "hangs").read_frames(5)
    server.spooler_pause.order("openat", 20, number=signal.SIGSTOP)
    gc = in_background(server.ctl, "gc")
    e2e.check_equal(server.spooler_pause.wait(), old, "who was stopped")
    stop_in_drain(server, old, "after")
    successor = start_spooler(server)
    server.spooler_pause.order("renameat", number=signal.SIGSTOP)
    deleting = in_background(
        lambda: server.request("DELETE", "/api/v1/streams/" + sid)
        .read_head().status)
    e2e.check_equal(server.spooler_pause.wait(), successor.pid, "who deletes")
    left = glob.glob(server.spool + "/streams/*/.tmp-*")
    e2e.check_equal(len(left), 1, "temporary files")
    go_on(old)
    gc()
    e2e.check(os.path.exists(left[0]), "it was swept")
    go_on(successor.pid)
    e2e.check_equal(deleting(), 204, "status of DELETE")
    reader.close()
    successor.terminate()
    e2e.kill(old, signal.SIGTERM)
    successor.wait(10)


def run_cgi(server, sid):
    """respool.fcgi as a CGI program of its own; what it writes."""
    env = dict(server.env, GATEWAY_INTERFACE="CGI/1.1", REQUEST_METHOD="GET",
               SERVER_PROTOCOL="HTTP/1.1", SCRIPT_NAME="",
               PATH_INFO="/api/v1/stream", REMOTE_ADDR="127.0.0.1",
               QUERY_STRING="message=x&model=short&stream_id=" + sid)
    return subprocess.run(
        [os.path.join(server.bin, "respool.fcgi")], env=env, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60,
        check=False, **as_user(server)).stdout


@race
def fifty_responders_start_one_spooler_between_them(server):
    server.kill_all("respool-spooler")
    before = sum(" spooler started " in line for line in server.log())
    ids = [new_id("fifty") for _ in range(5)]
    answers = {}

    def ask(number):
        answers[number] = run_cgi(server, ids[number % 5])

    e2e.in_threads(50, ask)
    for number, answer in answers.items():
        head, _, body = answer.partition(b"\r\n\r\n")
        e2e.check(head.startswith(b"Status: 200 "), "answer %r" % answer[:200])
        frames = e2e.parse_frames(re.sub(rb"^:[^\n]*\n\n", b"", body))
        check_whole(server, ids[number % 5], frames, "short")
    e2e.check_equal(sum(" spooler started " in line
                        for line in server.log()), before + 1,
                    "spoolers started")


@race
def a_stopped_spooler_loses_nothing_and_nothing_is_paid_twice(server):
    sid, asked = new_id("patient"), new_id("asked")
    pid = ensure_spooler(server)
    stream = start(server, sid, "live").read_frames(5)
    os.kill(pid, signal.SIGSTOP)
    try:
        size = os.path.getsize(server.stream_path(sid))
        starts = [in_background(start, server, asked, "live")
                  for _ in range(3)]
        # Its reader is sent away on a frame boundary, and may come back.
        stream.read_all(cut_ok=True)
        e2e.check(not stream.ended and stream.parser.retry, "no retry block")
        again = server.resume(1, stream_id=sid).read_frames(1)
        e2e.check_equal(os.path.getsize(server.stream_path(sid)), size,
                        "the size")
        e2e.check(not os.path.exists(server.stream_path(asked)),
                  "the other was started")
    finally:
        go_on(pid)
    check_whole(server, sid, stream.frames + read_to_the_end(
        server, sid)[len(stream.frames):], "live")
    for result in starts:
        check_whole(server, asked,
                    read_to_the_end(server, asked, result()), "live")
    e2e.check_equal(len(server.usage_lines("reserve", asked)), 1, "reserves")
    e2e.check_equal(server.spoolers(), [pid], "spoolers")
    again.close()


# ---- after a crash of the machine ----

@race
def what_a_crashed_machine_left_is_in_nobodys_way(server):
    live, ended = new_id("live"), new_id("ended")
    start(server, ended).read_all()
    start(server, live, "hangs").read_frames(5).close()
    for number, process in enumerate(server.responder):
        process.kill()
        process.wait()
    server.kill_all("respool-spooler")
    paths = [server.stream_path(sid) for sid in (live, ended)]
    with open("/proc/sys/kernel/random/boot_id", "rb") as f:
        boot = f.read().strip()
    for path in paths:
        with open(path, "r+b") as f:
            data = f.read()
            e2e.check(boot in data, "no boot id in %s" % path)
            f.seek(0)
            f.write(data.replace(boot, boot[::-1]))
    with open(server.spool + "/spooler.lock", "wb") as f:
        f.write(b"elsewhere %s 1\n" % boot[::-1])
    stale = ["s-%s.sock" % secrets.token_hex(8) for _ in range(3)]
    for name in stale:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.bind(os.path.join(server.spool, name))
        give_away(server, name)
    os.close(open_as(server, os.path.join(os.path.dirname(paths[0]),
                                          ".tmp-0123456789abcdef")))
    for number in range(server.procs):
        server.start_responder(number)

    frames = server.resume(2, stream_id=live).read_all().frames
    e2e.check_equal([frame.id for frame in frames], [3, 4, 5], "ids")
    check_lost(server, live, server.resume(-1, stream_id=live).read_all()
               .frames)
    e2e.check_equal(len(server.resume(-1, stream_id=ended).read_all().frames),
                    6, "frames")
    # A crash may have taken back what a client saw.
    beyond = server.get("/api/v1/stream", {"stream_id": ended,
                                           "last_event_id": 1000})
    last = e2e.Stream(beyond).read_all().frames
    e2e.check_equal([frame.event for frame in last], ["done"], "its end")
    e2e.check_equal(server.ctl("gc").returncode, 0, "gc")
    left = set(os.listdir(server.spool)) | {
        os.path.basename(path) for path in
        glob.glob(server.spool + "/streams/*/.*")}
    e2e.check(not left & set(stale) and ".tmp-0123456789abcdef" not in left,
              "left: %r" % left)
    with open(server.spool + "/spooler.lock", "rb") as f:
        e2e.check(boot in f.read(), "spooler.lock has not been signed")


# ---- another version ----

@race
def a_spooler_makes_way_for_newer_programs_and_ends_its_streams(server):
    sid, other = new_id("old"), new_id("new")
    old = ensure_spooler(server)
    stream = start(server, sid, "live").read_frames(3)
    wire = Wire.to_spooler(server, VERSION + 1)
    e2e.check_equal(wire.answer, (ERR["RS_EPROTO"], VERSION, 1),
                    "err, version and draining")
    wire.close()
    check_whole(server, other, start_at_once(server, other).read_all().frames,
                "short")
    e2e.check_equal(len(server.spoolers()), 2, "spoolers")
    check_whole(server, sid, read_to_the_end(server, sid, stream), "live")
    e2e.wait_until(lambda: e2e.is_gone(old), 5, "the old one's end")


@race
def an_older_spooler_is_followed_by_one_of_ours(server):
    server.kill_all("respool-spooler")
    fake = FakeSpooler(server, VERSION - 1, drains=True)
    sid = new_id("ours")
    check_whole(server, sid, start_at_once(server, sid).read_all().frames,
                "short")
    fake.leave()


@race
def a_newer_spooler_is_left_alone_and_replays_need_none(server):
    ended, sid = new_id("ended"), new_id("refused")
    whole = start(server, ended).read_all().bytes()
    server.kill_all("respool-spooler")
    fake = FakeSpooler(server, VERSION + 1, drains=False)
    try:
        began = time.monotonic()
        response = server.post("/api/v1/stream", {"message": "x",
                                                  "stream_id": sid})
        e2e.check_equal(response.status, 503, "status")
        e2e.check_equal(response.json()["error_type"], "spool_unavailable",
                        "error_type")
        took = time.monotonic() - began
        e2e.check(took < 5, "the refusal took %.1f s" % took)
        e2e.check_equal(server.resume(-1, stream_id=ended).read_all().bytes(),
                        whole, "a replay")
        e2e.check_equal(os.readlink(server.spool + "/current"), fake.name,
                        "current")
    finally:
        fake.leave()
    check_whole(server, sid, start(server, sid).read_all().frames, "short")


if __name__ == "__main__":
    e2e.main(direct.Server, models=MODELS, settings=SETTINGS, procs=2)
