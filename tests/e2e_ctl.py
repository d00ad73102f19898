#!/usr/bin/env -S python3 -B
"""respoolctl, beside a running server and without one."""

import json
import os
import re
import signal
import subprocess
import time

import e2e

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo",
                 "prices": {"input": 150000, "output": 600000}},
        "paced": {"provider": "demo", "chunks": 60, "interval_ms": 20},
        "endless": {"provider": "demo", "chunks": 100000,
                    "interval_ms": 20},
        "fails": {"provider": "demo", "chunks": 9, "fail_after": 4,
                  "error_type": "overloaded"},
    },
}
ANN = "ann"
COMMANDS = ["list", "show", "tail", "stop", "gc", "check"]


def check_result(result, status, stdout="", stderr=""):
    """stderr: a regular expression."""
    e2e.check_equal(result.returncode, status, "status of %r, which says %r"
                    % (result.args[1:], result.stderr))
    if stdout is not None:
        e2e.check_equal(result.stdout, stdout, "output of %r"
                        % result.args[1:])
    e2e.check(re.fullmatch(stderr, result.stderr), "errors of %r: %r"
              % (result.args[1:], result.stderr))


def check_owned(server):
    """All in the spool belongs to its owner, who alone can read it."""
    want = os.stat(server.spool).st_uid
    if server.user:
        e2e.check_equal(want, server.user.pw_uid, "owner of the spool")
    for directory, names, files in os.walk(server.spool):
        for name in names + files:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            e2e.check_equal(st.st_uid, want, "owner of " + path)
            if not os.path.islink(path):
                e2e.check_equal(st.st_mode & 0o077, 0, "mode of " + path)


def stream_contents(server):
    """Of all stream files; not of the usage lines, as the recovery of a
    spooler that follows a dead one writes there when it likes."""
    return {path: data for path, data in server.snapshot_of_disk().items()
            if "/streams/" in path}


class Tail:
    """A respoolctl tail in the background."""

    def __init__(self, server, *arguments):
        self.process = subprocess.Popen(
            [os.path.join(server.bin, "respoolctl"), *arguments],
            env=server.env, cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.begun = b""

    def read_one(self):
        """Until it has printed something."""
        self.begun += os.read(self.process.stdout.fileno(), 65536)
        return self

    def finish(self):
        """Its output, to the end."""
        out, errors = self.process.communicate(timeout=e2e.IO_TIMEOUT)
        e2e.check_equal((self.process.returncode, errors), (0, b""),
                        "status and errors of tail")
        return self.begun + out


@e2e.test
def a_spool_without_streams(server):
    # The first test: there is no spooler, and no lock yet.
    e2e.check_equal(server.spoolers(), [], "spoolers")
    result = server.ctl("list")
    check_result(result, 0, None)
    e2e.check_equal(len(result.stdout.splitlines()), 1, "lines of list")
    check_result(server.ctl("gc"), 0, "removed 0\n")
    check_result(server.ctl("check"), 0, "streams 0, faults 0, mended 0\n")
    check_result(server.ctl("check", "--fix"), 0,
                 "streams 0, faults 0, mended 0\n")
    for command in ("show", "tail", "stop"):
        check_result(server.ctl(command, "none"), 1, "",
                     "respoolctl: none: .+\n")
    e2e.check_equal(server.spoolers(), [], "spoolers")
    check_owned(server)


@e2e.test
def list_shows_the_streams_newest_first(server):
    with e2e.Server(models=MODELS) as own:
        for sid, user in (("one", ANN), ("two", "bob"), ("three", ANN)):
            own.start_stream(message="a b", stream_id=sid,
                             user_id=user).read_all()
            now_ms = int(time.time() * 1000)
            e2e.wait_until(lambda then=now_ms: time.time() * 1000 > then + 1)
        live = own.start_stream(message="x", model="endless", user_id=ANN,
                                stream_id="four").read_frames(2)

        def rows(*options):
            result = own.ctl(*options, "list")
            check_result(result, 0, None)
            head, *lines = result.stdout.splitlines()
            e2e.check(head.startswith("CREATED"), head)
            found = [line.split() for line in lines]
            e2e.check(all(len(row) == 7 for row in found), repr(found))
            return found

        found = rows()
        e2e.check_equal([row[5] for row in found],
                        ["four", "three", "two", "one"], "ids")
        e2e.check_equal([row[0] for row in found],
                        sorted((row[0] for row in found), reverse=True),
                        "times")
        e2e.check_equal([row[2] for row in found],
                        ["open", "ended", "ended", "ended"], "states")
        e2e.check_equal([row[6] for row in found],
                        ["endless", "echo", "echo", "echo"], "models")
        for row in found[1:]:
            user = "bob" if row[5] == "two" else ANN
            path = own.stream_path(row[5], user)
            e2e.check_equal(int(row[3]), len(own.stream_frames(row[5], user)),
                            "frames")
            e2e.check_equal(int(row[4]), os.path.getsize(path), "bytes")
            e2e.check_equal(os.path.basename(path),
                            "%s-%s.sse" % (row[1], row[5]), "owner's hash")
        e2e.check_equal([row[5] for row in rows("-u", "bob")], ["two"],
                        "bob's")
        e2e.check_equal(rows("-u", "eve"), [], "eve's")
        live.close()
        check_owned(own)


@e2e.test
def show_says_what_the_server_says(server):
    for sid, fields in (
            ("done", {"message": "Grüße an 你 🌍\n\"\\"}),
            ("failed", {"message": "x", "model": "fails"}),
            ("ended", {"message": "x", "model": "endless"})):
        stream = server.start_stream(stream_id=sid, user_id=ANN, **fields)
        if sid == "ended":
            stream.read_frames(3)
            server.post("/api/v1/streams/ended/stop?user_id=ann").json()
        stream.read_all()
        want = server.get("/api/v1/streams/" + sid, {"user_id": ANN}).read()
        for options in ([], ["-u", ANN]):
            result = server.ctl(*options, "show", sid)
            check_result(result, 0, None)
            e2e.check_equal(result.stdout.encode().rstrip(b"\n"),
                            want.rstrip(b"\n"), "JSON of " + sid)


@e2e.test
def show_of_a_live_stream_is_one_moment_of_it(server):
    stream = server.start_stream(message="x", model="endless",
                                 stream_id="moving").read_frames(3)
    result = server.ctl("show", "moving")
    check_result(result, 0, None)
    got = e2e.parse_json(result.stdout.encode())
    e2e.check_equal(got["state"], "live", "state")
    e2e.check(got["last_event_id"] >= 2, "last_event_id")
    e2e.check_equal(got["text"], "".join(
        "tok%d " % n for n in range(got["last_event_id"] + 1)), "text")
    server.ctl("stop", "moving")
    stream.read_all()


@e2e.test
def tail_prints_the_frames(server):
    for model in ("echo", "fails"):
        stream = server.start_stream(message="a b", model=model).read_all()
        result = server.ctl("tail", stream.stream_id)
        check_result(result, 0, None)
        e2e.check_equal(result.stdout.encode(), stream.bytes(), "frames")


@e2e.test
def tail_follows_a_live_stream_to_its_end(server):
    stream = server.start_stream(message="x", model="paced",
                                 stream_id="tailed", user_id=ANN)
    tails = []
    for number in (1, 10, 30):
        stream.read_frames(number)
        tails.append(Tail(server, "tail", "tailed").read_one())
    stream.read_all()
    tails.append(Tail(server, "-u", ANN, "tail", "tailed"))
    for tail in tails:
        e2e.check_equal(tail.finish(), stream.bytes(), "frames")


@e2e.test
def tail_comes_to_an_end_when_the_spooler_dies(server):
    stream = server.start_stream(message="x", model="endless",
                                 stream_id="orphan").read_frames(2)
    tail = Tail(server, "tail", "orphan").read_one()
    server.kill_all("respool-spooler")
    out = tail.finish()
    frames = e2e.parse_frames(out)
    e2e.check_equal(frames[-1].data["error_type"], "generation_lost",
                    "error_type")
    e2e.check_equal(out, stream.read_all().bytes(), "frames")
    check_owned(server)


@e2e.test
def tail_of_an_orphan_ends_it_without_anybody_else(server):
    server.start_stream(message="x", model="endless",
                        stream_id="alone").read_frames(2).close()
    server.kill_all("respool-spooler")
    result = server.ctl("tail", "alone")
    check_result(result, 0, None)
    e2e.check_equal(e2e.parse_frames(result.stdout.encode())[-1].event,
                    "error", "last event")
    e2e.check_equal(result.stdout.encode(), server.stream_bytes("alone"),
                    "file")
    for pid in server.spoolers():  # respoolctl had to start one
        e2e.check_equal(os.stat("/proc/%d" % pid).st_uid,
                        os.stat(server.spool).st_uid, "the spooler's user")
    # The responders can use what is there now.
    server.start_stream(message="x").read_all()
    e2e.check_equal(len(server.spoolers()), 1, "spoolers")
    check_owned(server)


@e2e.test
def stop_ends_a_live_stream(server):
    stream = server.start_stream(message="x", model="endless",
                                 stream_id="stopped").read_frames(3)
    result = server.ctl("stop", "stopped")
    check_result(result, 0, None)
    stream.read_all()
    e2e.check_equal(stream.frames[-1].data["finish_reason"], "stopped",
                    "finish_reason")
    got = json.loads(result.stdout)
    e2e.check_equal((got["state"], got["text"]), ("stopped", stream.text()),
                    "what stop printed")
    # Once more, and when it had ended by itself.
    check_result(server.ctl("stop", "stopped"), 0, result.stdout)
    done = server.start_stream(message="x").read_all()
    result = server.ctl("stop", done.stream_id)
    check_result(result, 0, None)
    e2e.check_equal(json.loads(result.stdout)["state"], "finished", "state")


@e2e.test
def stop_ends_an_orphan(server):
    server.start_stream(message="x", model="endless",
                        stream_id="orphan-2").read_frames(2).close()
    server.kill_all("respool-spooler")
    result = server.ctl("stop", "orphan-2")
    check_result(result, 0, None)
    e2e.check_equal(json.loads(result.stdout)["state"], "failed", "state")
    e2e.check_equal(server.stream_frames("orphan-2")[-1].event, "error",
                    "last event")
    check_owned(server)


@e2e.test
def check_finds_and_ends_an_orphan_and_leaves_live_ones_alone(server):
    with e2e.Server(models=MODELS) as own:
        own.start_stream(message="x", model="endless",
                         stream_id="dead").read_frames(2).close()
        # Neither a reader nor the recovery of the next spooler, which knows
        # it from its reserve line, is to end it.
        own.kill_all("respool.fcgi")
        own.kill_all("respool-spooler")
        for name in os.listdir(own.spool + "/usage"):
            os.unlink(os.path.join(own.spool, "usage", name))
        e2e.wait_until(lambda: own.responders() and
                       own.get("/health").status == 200, 20, "/health")
        live = own.start_stream(message="x", model="endless",
                                stream_id="live").read_frames(2)
        result = own.ctl("check")
        check_result(result, 1, None)
        line, last = result.stdout.splitlines()
        e2e.check("-dead: its writer is dead behind " in line, line)
        e2e.check_equal(last, "streams 2, faults 1, mended 0", "sum")
        result = own.ctl("check", "--fix")
        check_result(result, 0, None)
        e2e.check_equal(result.stdout.splitlines()[-1],
                        "streams 2, faults 1, mended 1", "sum of --fix")
        check_result(own.ctl("check"), 0, "streams 2, faults 0, mended 0\n")
        e2e.check_equal(own.stream_frames("dead")[-1].data["error_type"],
                        "generation_lost", "error_type")
        live.read_frames(len(live.frames) + 5)
        live.close()
        check_owned(own)


@e2e.test
def an_id_of_two_owners_needs_a_name(server):
    for user in (ANN, "bob"):
        server.start_stream(message=user, stream_id="both",
                            user_id=user).read_all()
    before = stream_contents(server)
    hashes = {os.path.basename(server.stream_path("both", user))
              .partition("-")[0] for user in (ANN, "bob")}
    for command in ("show", "tail", "stop"):
        result = server.ctl(command, "both")
        check_result(result, 1, "", r"(?s)respoolctl: both.+-u.*")
        e2e.check_equal(set(re.findall("[0-9a-f]{16}", result.stderr)),
                        hashes, "owners that are named")
    for user in (ANN, "bob"):
        result = server.ctl("-u", user, "show", "both")
        check_result(result, 0, None)
        e2e.check_equal(json.loads(result.stdout)["text"], user, "text")
        result = server.ctl("-u", user, "tail", "both")
        check_result(result, 0, None)
        e2e.check_equal(result.stdout.encode(),
                        server.stream_bytes("both", user), "frames")
    check_result(server.ctl("-u", "eve", "show", "both"), 1, "",
                 "respoolctl: both: .+\n")
    e2e.check_equal(stream_contents(server), before, "the streams")


@e2e.test
def streams_that_are_not_there(server):
    server.start_stream(message="x", stream_id="deleted").read_all()
    server.request("DELETE", "/api/v1/streams/deleted").read_head().read()
    before = stream_contents(server)
    for command in ("show", "tail", "stop"):
        for sid in ("deleted", "never-was", "a" * 65, "", "..", "a/b",
                    "../../etc/passwd", "ä"):
            result = server.ctl(command, sid)
            check_result(result, 1, "", "respoolctl: .+\n")
    e2e.check_equal(stream_contents(server), before, "the streams")


@e2e.test
def a_wrong_call_is_told_how_to_call(server):
    for arguments in ([], ["nonsense"], ["lis"], ["list", "x"], ["show"],
                      ["show", "a", "b"], ["tail"], ["stop"], ["gc", "now"],
                      ["check", "--nonsense"], ["check", "--fix", "x"],
                      ["-x", "list"], ["-u"], ["-c"], ["-u", ANN],
                      ["-u", "", "list"], ["-u", "a" * 129, "list"],
                      ["-u", "a\nb", "list"]):
        check_result(server.ctl(*arguments), 2, "",
                     r"(?s).*(usage: respoolctl |unknown argument).*")
    result = server.ctl("-h")
    check_result(result, 0, None)
    for command in COMMANDS:
        e2e.check(re.search(r"(?m)^ +%s\b" % command, result.stdout),
                  command + " is not explained")
    result = server.ctl("-V")
    check_result(result, 0, None)
    e2e.check(re.fullmatch(r"respoolctl [0-9][^ ]*\n", result.stdout),
              repr(result.stdout))


@e2e.test
def a_spool_that_does_not_exist_is_not_made(server):
    missing = os.path.join(server.run, "missing")
    for arguments in (["list"], ["show", "x"], ["tail", "x"], ["stop", "x"],
                      ["gc"], ["check"], ["check", "--fix"]):
        result = subprocess.run(
            [os.path.join(server.bin, "respoolctl"), *arguments],
            env={**server.env, "RESPOOL_SPOOL_DIR": missing}, cwd="/",
            capture_output=True, encoding="utf-8", timeout=e2e.IO_TIMEOUT,
            check=False)
        check_result(result, 1, "", "respoolctl: %s: No such file or "
                     "directory\n" % re.escape(missing))
        e2e.check(not os.path.lexists(missing), "it was made")


@e2e.test
def a_bad_configuration_is_told(server):
    path = os.path.join(server.run, "bad.conf")
    with open(path, "w", encoding="ascii") as f:
        f.write("ttl = 5\nnonsense = 1\n")
    check_result(server.ctl("-c", path, "list"), 1, "",
                 r"(?s)respoolctl: configuration: .*2.*nonsense.*")
    check_result(server.ctl("-c", path + ".none", "list"), 1, "",
                 r"(?s)respoolctl: configuration: .*bad\.conf\.none.*")


@e2e.test
def a_stopped_spooler_is_not_taken_for_a_dead_one(server):
    stream = server.start_stream(message="x", model="paced",
                                 stream_id="paused").read_frames(2)
    pid, = server.spoolers()
    os.kill(pid, signal.SIGSTOP)
    try:
        result = server.ctl("show", "paused")
        check_result(result, 0, None)
        e2e.check_equal(json.loads(result.stdout)["state"], "live", "state")
        check_result(server.ctl("check", "--fix"), 1, None)
    finally:
        os.kill(pid, signal.SIGCONT)
    # A reader may have been sent away meanwhile, on a frame boundary.
    got = stream.read_all(cut_ok=True).bytes()
    if not stream.ended:
        e2e.check(stream.parser.retry is not None, "no retry block")
        stream = server.resume(stream.frames[-1].id, stream_id="paused")
        got += stream.read_all().bytes()
    e2e.check_equal(stream.frames[-1].event, "done", "last event")
    e2e.check_equal(got, server.stream_bytes("paused"), "file")


if __name__ == "__main__":
    e2e.main(models=MODELS, procs=2)
