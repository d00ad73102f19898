#!/usr/bin/env -S python3 -B
"""Nothing is left over: no process, no socket, no descriptor."""

import collections
import glob
import os
import random
import re

import e2e

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo"},
        "paced": {"provider": "demo", "interval_ms": 5},
        "endless": {"provider": "demo", "chunks": 100000,
                    "interval_ms": 100},
    },
}
STREAMS = 1000
THREADS = 10


def descriptors(pid):
    """How many a process has open of each kind."""
    kinds = collections.Counter()
    for name in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, name))
        except FileNotFoundError:
            continue  # closed meanwhile
        kinds[re.sub(r":\[[0-9]+\]$", "", target)] += 1
    return kinds


def more_than(now, before):
    """What a process has now and had not before."""
    return {kind: "%d, was %d" % (count, before[kind])
            for kind, count in now.items() if count > before[kind]}


def wait_for_as_few(pid, before, what):
    try:
        e2e.wait_until(lambda: not more_than(descriptors(pid), before), 20)
    except AssertionError:
        raise AssertionError("%s has open: %r" % (
            what, more_than(descriptors(pid), before))) from None


def sockets(server):
    return glob.glob(os.path.join(server.spool, "s-*.sock"))


def zombies(parents):
    """Processes that ended, and whose parents have not taken note."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] == b"Z" and int(fields[1]) in parents:
            found.append(path)
    return found


def threads(pid):
    return len(os.listdir("/proc/%d/task" % pid))


def short_streams(server, count, seed):
    """Runs so many, some at a time; of each three one client leaves early."""
    def work(number):
        dice = random.Random("%d %d" % (seed, number))
        for turn in range(count // THREADS):
            model = dice.choice(["echo", "echo", "paced"])
            words = "word " * dice.randint(1, 20)
            if turn % 3 == 2:
                response = server.request(
                    "POST", "/api/v1/stream",
                    [("Content-Type", "application/json")],
                    b'{"message":"%s","model":"%s"}' % (words.encode(),
                                                        model.encode()))
                leave = dice.randrange(3)
                if leave > 0:
                    response.read_head()
                if leave > 1:
                    response.read_some()
                response.close()
                continue
            stream = server.start_stream(message=words, model=model)
            stream.read_all()
            e2e.check_equal(stream.text(), words, "text")

    e2e.in_threads(THREADS, work)


def followed_by_all(server, stream_id):
    """Each responder follows a live stream, so that it has a connection to
    the spooler, which it keeps.  The readers."""
    readers = []

    def by_all():
        readers.append(server.resume(-1, stream_id=stream_id).read_frames(1))
        return set(server.follows(stream_id)) >= set(server.responders())

    e2e.wait_until(by_all, 20, "a follow by each responder")
    return readers


@e2e.test
def a_thousand_short_streams_leave_nothing_behind(server):
    # Keeps the spooler, which would leave after a second.
    endless = server.start_stream(message="x", model="endless",
                                  stream_id="endless")
    readers = [endless] + followed_by_all(server, "endless")
    short_streams(server, STREAMS // 10, 1)
    for reader in readers:
        reader.close()
    spooler, = server.spoolers()
    responders = server.responders()
    ends = " follow stream=endless ended "
    e2e.wait_until(lambda: sum(ends in line for line in server.log()) ==
                   len(readers), 20, "the end of each follow")
    before = {pid: descriptors(pid) for pid in responders + [spooler]}

    short_streams(server, STREAMS, 2)

    e2e.check_equal(server.spoolers(), [spooler], "spoolers")
    e2e.check_equal(sorted(server.responders()), sorted(responders),
                    "responders")
    for pid in responders:
        wait_for_as_few(pid, before[pid], "responder %d" % pid)
        e2e.check(threads(pid) < 70, "%d threads" % threads(pid))
    # Generations whose clients left go on to their end.
    wait_for_as_few(spooler, before[spooler], "the spooler")
    e2e.check_equal(threads(spooler), 1, "threads of the spooler")
    e2e.check_equal(len(sockets(server)), 1, "sockets")
    e2e.check_equal(zombies(responders + [spooler]), [], "zombies")
    e2e.check_equal(glob.glob(server.spool + "/streams/*/.tmp-*"), [],
                    "temporary files")
    reserved = {line["stream_id"] for line in server.usage_lines("reserve")}
    settled = {line["stream_id"] for line in server.usage_lines("settle")}
    e2e.check_equal(reserved - settled, {"endless"}, "not settled")
    e2e.check(len(reserved) > STREAMS / 2, "%d streams" % len(reserved))

    e2e.check_equal(server.post("/api/v1/streams/endless/stop").json()
                    ["state"], "stopped", "state")
    e2e.wait_until(lambda: not server.spoolers(), 20, "idle_exit")
    e2e.check_equal(sockets(server), [], "sockets of a spooler that has left")
    e2e.check_equal(sorted(server.pids()), sorted(responders), "processes")
    for pid in responders:
        wait_for_as_few(pid, before[pid], "responder %d" % pid)
    current = os.path.join(server.spool, "current")
    e2e.check(os.path.islink(current) and not os.path.exists(current),
              "current does not dangle")


@e2e.test
def the_next_start_works_after_the_spooler_has_left(server):
    for _ in range(2):
        e2e.wait_until(lambda: not server.spoolers(), 20, "idle_exit")
        live = server.start_stream(message="x", model="endless")
        text = "once more"
        stream = server.start_stream(message=text).read_all()
        e2e.check_equal(stream.text(), text, "text")
        e2e.check_equal(len(server.spoolers()), 1, "spoolers")
        e2e.check_equal(len(sockets(server)), 1, "sockets")
        server.post("/api/v1/streams/%s/stop" % live.stream_id).json()
        live.read_all()


@e2e.test
def an_idle_spooler_leaves_though_readers_are_connected(server):
    """Open connections of responders do not count; an old stream is read
    without it."""
    stream = server.start_stream(message="a b c").read_all()
    e2e.wait_until(lambda: not server.spoolers(), 20, "idle_exit")
    again = server.resume(-1, stream_id=stream.stream_id).read_all()
    e2e.check_equal(again.bytes(), stream.bytes(), "bytes")
    got = server.get("/api/v1/streams/" + stream.stream_id).json()
    e2e.check_equal(got["state"], "finished", "state")
    e2e.check_equal(server.spoolers(), [], "spoolers")


@e2e.test
def spoolers_that_died_leave_nothing_either(server):
    for _ in range(5):
        live = server.start_stream(message="x", model="endless")
        live.read_frames(1)
        e2e.check_equal(len(server.kill_all("respool-spooler")), 1, "killed")
        live.read_all()
    # The next one removes what the dead ones left.
    server.start_stream(message="x").read_all()
    e2e.check(len(sockets(server)) <= 1, "sockets: %r" % sockets(server))
    e2e.check_equal(zombies(server.responders()), [], "zombies")
    e2e.wait_until(lambda: not server.spoolers(), 20, "idle_exit")
    e2e.check_equal(sockets(server), [], "sockets at last")
    for pid in server.responders():
        deleted = [kind for kind in descriptors(pid) if "(deleted)" in kind and
                   ".sse" in kind]
        e2e.check_equal(deleted, [], "open files that are gone")


@e2e.test
def a_web_server_that_ends_leaves_no_process(server):
    with e2e.Server(models=MODELS, settings={"idle_exit": 1}, procs=3) as own:
        stream = own.start_stream(message="x", model="endless",
                                  stream_id="on").read_frames(2)
        spooler, = own.spoolers()
        stream.close()
        own.lighttpd.terminate()
        own.lighttpd.wait()
        e2e.wait_until(lambda: not own.responders(), 20,
                       "the end of the responders")
        # The generation goes on; only its end lets the spooler leave.
        size = os.path.getsize(own.stream_path("on"))
        e2e.wait_until(lambda: os.path.getsize(own.stream_path("on")) > size,
                       20, "a frame without a web server")
        e2e.check_equal(own.spoolers(), [spooler], "spoolers")
        e2e.check_equal(own.ctl("stop", "on").returncode, 0, "status of stop")
        e2e.wait_until(lambda: not own.pids(), 20, "idle_exit")
        e2e.check_equal(sockets(own), [], "sockets")


if __name__ == "__main__":
    e2e.main(models=MODELS, settings={"idle_exit": 1}, procs=3)
