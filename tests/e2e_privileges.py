#!/usr/bin/env -S python3 -B
"""The spooler as a service of a user of its own: the responders, who are in
its group, read the spool and nothing else.  And what it has given up.  Where
the kernel has Landlock all of it runs in the sandbox."""

import ctypes
import glob
import grp
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import e2e
import upstream

SERVICE = 61001  # a user and a group that nobody else has
KEY = "sk-nobody-but-the-spooler-4711"
WAIT = 3         # seconds that a start waits for the service,
HOLD = 2.1       # and that it then is not waited for
PAUSE = 0.02     # seconds between two of the upstream's events


# What landlock_create_ruleset says of itself.
LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def keyed(x):
    x.head()
    for n in range(5):
        x.write(upstream.text("w%d " % n))
        x.pause(PAUSE)
    x.write(upstream.END)
    x.end()


UP = upstream.Upstream({"keyed": keyed})
MODELS = {
    "default": "live",
    "models": {
        "live": {"provider": "demo", "chunks": 40, "interval_ms": 50},
        "short": {"provider": "demo", "chunks": 5},
        "endless": {"provider": "demo", "chunks": 100000,
                    "interval_ms": 50},
        "keyed": UP.model("keyed"),
        "from-environment": UP.model("keyed", api_key_env="NO_SUCH_KEY"),
        "exec": {"provider": "exec", "format": "lines", "command":
                 ["sh", "-c", "grep -E 'NoNewPrivs|CapPrm' "
                  "/proc/self/status; ulimit -c; env"]},
        # Everybody can write there, as far as modes go.
        "writes": {"provider": "exec", "format": "lines", "command":
                   ["sh", "-c", "echo x >$(dirname $PWD)/written && echo yes"
                    " || echo no"]},
    },
}


class Split(e2e.Server):
    """lighttpd and the responders run as www-data; the spooler as SERVICE,
    which is in that group."""

    def __init__(self, **arguments):
        self.services = []
        super().__init__(**arguments)

    def _environment(self, settings, environment):
        personas = os.path.join(self.run, "personas")
        os.mkdir(personas)
        with open(personas + "/owl.json", "w", encoding="utf-8") as f:
            json.dump({"id": "owl", "name": "Owl", "model": "short",
                       "system": "You are an owl."}, f)
        return super()._environment(
            {"personas_dir": personas, "default_persona": "owl", **settings},
            environment)

    def write_models(self, models):
        keys = os.path.join(self.run, "keys")
        os.mkdir(keys, 0o700)
        self.key_file = os.path.join(keys, "provider.key")
        with open(self.key_file, "w", encoding="ascii") as f:
            f.write(KEY + "\n")
        os.chmod(self.key_file, 0o600)
        models["models"]["keyed"]["api_key_file"] = self.key_file
        super().write_models(models)

    def start(self):
        os.chmod(self.run, 0o1777)  # where sanitizers write, too
        for path in (os.path.dirname(self.key_file), self.key_file):
            os.chown(path, SERVICE, SERVICE)
        os.mkdir(self.spool)
        os.chmod(self.spool, 0o750)
        os.chown(self.spool, SERVICE, self.user.pw_gid)
        self.start_service()
        super().start()

    def as_service(self, *more):
        """A command that runs what follows as the service's user."""
        return ["setpriv", "--reuid=%d" % SERVICE, "--regid=%d" % SERVICE,
                "--groups=%d" % self.user.pw_gid, *more]

    def as_web(self):
        return ["setpriv", "--reuid=%d" % self.user.pw_uid,
                "--regid=%d" % self.user.pw_gid, "--clear-groups"]

    def start_service(self, *more, wait=True):
        env = dict(self.env, RESPOOL_LOG_FILE="", RESPOOL_LOG_LEVEL="info")
        with open(os.path.join(self.run, "service.log"), "ab") as log:
            process = subprocess.Popen(
                self.as_service(*more) +
                [self.env["RESPOOL_SPOOLER_PROGRAM"], "--foreground"],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        self.services.append(process)
        if wait:
            e2e.wait_until(lambda: self.current() == process.pid, 30,
                           "the start of the service")
        return process

    def current(self):
        """The pid that spooler.lock names."""
        try:
            with open(os.path.join(self.spool, "spooler.lock"),
                      encoding="ascii") as f:
                pid = int(f.read().split()[2])
            os.stat(os.path.join(self.spool, "current"))
            return 0 if e2e.is_gone(pid) else pid
        except (OSError, ValueError, IndexError):
            return 0

    def stop_services(self):
        for process in self.services:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    process.send_signal(number)
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        pass
        self.services = []

    def service_log(self):
        with open(os.path.join(self.run, "service.log"),
                  encoding="utf-8") as f:
            return f.read()

    def stop(self):
        report = super().stop()
        self.stop_services()
        return report

    def show_logs(self):
        super().show_logs()
        print("---- the service's log\n" + self.service_log()[-3000:])


def as_user(command, script, *arguments):
    """Runs a Python text as a user; what it printed, as JSON."""
    result = subprocess.run(
        [*command, sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        cwd="/", timeout=60, check=False)
    e2e.check_equal((result.returncode, result.stderr), (0, ""), "the script")
    return json.loads(result.stdout)


def proc_status(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f
                    if ":\t" in line)


# ---- all of it works ----

@e2e.test
def streams_start_resume_are_shown_and_listed(server):
    stream = server.start_stream(message="x", model="live", user_id="ann")
    stream.read_frames(3)
    stream.close()
    resumed = server.resume(1, stream_id=stream.stream_id, user_id="ann")
    resumed.read_all()
    e2e.check_equal(len(resumed.frames), 39, "frames after id 1")
    e2e.check_equal(resumed.frames[-1].event, "done", "the end")
    url = "/api/v1/streams/" + stream.stream_id
    shown = server.get(url, {"user_id": "ann"}).json()
    e2e.check_equal(shown["state"], "finished", "state")
    listed = server.get("/api/v1/streams", {"user_id": "ann"}).json()
    e2e.check(stream.stream_id in [s["stream_id"] for s in
                                   listed["streams"]], "it is listed")


@e2e.test
def streams_are_stopped_and_deleted(server):
    stream = server.start_stream(message="x", model="endless",
                                 user_id="ann").read_frames(2)
    url = "/api/v1/streams/" + stream.stream_id
    answer = server.post(url + "/stop?user_id=ann")
    e2e.check_equal(answer.json()["state"], "stopped", "state")
    stream.read_all()
    answer = server.request("DELETE", url + "?user_id=ann").read_head()
    e2e.check_equal(answer.status, 204, "DELETE")
    e2e.check_equal(server.get(url, {"user_id": "ann"}).status, 404, "then")


@e2e.test
def conversations_go_on_and_have_a_history(server):
    for n in (1, 2):
        answer = server.post("/convo_turn_stream", {
            "sessionId": "talk", "message": "hello %d" % n,
            "user_id": "ann", "stream": False})
        e2e.check_equal(answer.status, 200, "turn %d" % n)
        e2e.check_equal(answer.json()["turn"], n, "its number")
    history = server.get("/convo_history",
                         {"sessionId": "talk", "user_id": "ann"},
                         [("Accept", "application/json")]).json()
    e2e.check_equal(len(history["turns"]), 2, "turns")


@e2e.test
def the_key_goes_to_the_provider(server):
    stream = server.start_stream(message="asked", model="keyed").read_all()
    e2e.check_equal(stream.text(), "w0 w1 w2 w3 w4 ", "the answer")
    x = UP.exchanges("keyed", "asked")[0]
    e2e.check_equal(x.headers["authorization"], "Bearer " + KEY, "the key")


# ---- what the responders cannot do ----

ATTEMPTS = r"""
import ctypes, json, os, signal, socket, sys
spool, key, stream, pid = sys.argv[1:5]
pid = int(pid)
libc = ctypes.CDLL(None, use_errno=True)

def ptrace():
    if libc.ptrace(16, pid, None, None) != 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "")

def write(path):
    os.close(os.open(path, os.O_WRONLY))

def connect():
    os.chdir(spool)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect("current")

tries = {
    "read the key": lambda: open(key).read(),
    "list the keys": lambda: os.listdir(os.path.dirname(key)),
    "make a file": lambda: open(spool + "/new", "w"),
    "make one in usage": lambda: open(spool + "/usage/new", "w"),
    "make one beside a stream":
        lambda: open(os.path.dirname(stream) + "/new", "w"),
    "write to a stream": lambda: write(stream),
    "cut a stream": lambda: os.truncate(stream, 0),
    "touch a stream": lambda: os.utime(stream, (0, 0)),
    "open a stream's mode": lambda: os.chmod(stream, 0o666),
    "unlink a stream": lambda: os.unlink(stream),
    "rename a stream": lambda: os.rename(stream, stream + "2"),
    "write to spooler.lock": lambda: write(spool + "/spooler.lock"),
    "unlink current": lambda: os.unlink(spool + "/current"),
    "ptrace": ptrace,
    "kill": lambda: os.kill(pid, signal.SIGTERM),
    "read its environment": lambda: open("/proc/%d/environ" % pid).read(),
    "open its memory": lambda: open("/proc/%d/mem" % pid, "rb"),
    "list its descriptors": lambda: os.listdir("/proc/%d/fd" % pid),
    "read a stream": lambda: open(stream).read(),
    "connect": connect,
}
result = {}
for what, attempt in tries.items():
    try:
        attempt()
        result[what] = "done"
    except PermissionError:
        result[what] = "refused"
print(json.dumps(result))
"""
ALLOWED = {"read a stream", "connect"}


@e2e.test
def the_responders_user_reads_the_spool_and_does_nothing_else(server):
    stream = server.start_stream(message="x", model="short").read_all()
    result = as_user(server.as_web(), ATTEMPTS, server.spool, server.key_file,
                     server.stream_path(stream.stream_id), server.current())
    wrong = {what: how for what, how in result.items()
             if how != ("done" if what in ALLOWED else "refused")}
    e2e.check_equal(wrong, {}, "attempts")


# What the service's own user may not do to it either.
OF_THE_PROCESS = {"ptrace", "read its environment", "open its memory",
                  "list its descriptors"}


@e2e.test
def another_process_of_its_user_does_not_look_into_the_spooler(server):
    script = ATTEMPTS.replace("in tries.items()", "in [(w, tries[w]) for w "
                              "in %r]" % sorted(OF_THE_PROCESS))
    result = as_user(server.as_service(), script, server.spool,
                     server.key_file, "none", server.current())
    e2e.check_equal(result, dict.fromkeys(OF_THE_PROCESS, "refused"),
                    "attempts")


# The counters are written by all; the spooler's lock and ballast are its own.
MODES = {"metrics": 0o660, "spooler.lock": 0o600, "ballast": 0o600}


@e2e.test
def what_is_made_in_the_spool_is_the_services_and_its_group_reads_it(server):
    server.start_stream(message="x", model="short").read_all()
    seen = 0
    for top, dirs, files in os.walk(server.spool):
        for name in dirs + files:
            path = os.path.join(top, name)
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                continue
            seen += 1
            want = (0o750 if stat.S_ISDIR(info.st_mode) else 0o660
                    if stat.S_ISSOCK(info.st_mode) else MODES.get(name, 0o640))
            group = SERVICE if want == 0o600 else server.user.pw_gid
            e2e.check_equal(
                (oct(stat.S_IMODE(info.st_mode)), info.st_uid, info.st_gid),
                (oct(want), SERVICE, group), path)
    e2e.check(seen > 5, "%d names in the spool" % seen)


# ---- where the key is ----

def memory_has(pid, *words):
    """Which of the words are in a process's writable memory."""
    found = set()
    with open("/proc/%d/maps" % pid, encoding="utf-8") as maps, \
            open("/proc/%d/mem" % pid, "rb") as mem:
        for line in maps:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if not m:
                continue
            at, end = (int(word, 16) for word in m.groups())
            if end - at > 1 << 32:
                continue  # a sanitizer's, of which hardly a page is there
            while at < end:
                n = min(end - at, 1 << 24)
                mem.seek(at)
                data = mem.read(n)
                found |= {word for word in words if word in data}
                at += n - 64 if n == 1 << 24 else n
    return found


@e2e.test
def the_key_is_in_no_responders_memory(server):
    server.start_stream(message="x", model="keyed").read_all()
    pids = server.responders()
    e2e.check(pids, "there are responders")
    for pid in pids:
        # What it must know shows that this finds what is there.
        e2e.check_equal(memory_has(pid, KEY.encode(),
                                   server.key_file.encode()),
                        {server.key_file.encode()}, "in %d" % pid)


@e2e.test
def the_key_is_in_no_file_but_its_own(server):
    server.start_stream(message="x", model="keyed").read_all()
    server.get("/api/v1/models").json()
    holders, read = [], 0
    for path in glob.glob(server.run + "/**", recursive=True):
        if os.path.isfile(path):
            read += 1
            with open(path, "rb") as f:
                if KEY.encode() in f.read():
                    holders.append(path)
    e2e.check(read > 20, "%d files" % read)
    e2e.check_equal(holders, [server.key_file], "files with the key")


# ---- respoolctl ----

def ctl(server, who, *arguments):
    return subprocess.run(
        [*who, os.path.join(server.bin, "respoolctl"), *arguments],
        env=server.env, cwd="/", stdin=subprocess.DEVNULL,
        capture_output=True, encoding="utf-8", timeout=60, check=False)


@e2e.test
def respoolctl_does_all_as_the_service_and_as_root(server):
    for who in (server.as_service(), []):
        stream = server.start_stream(message="x", model="endless")
        stream.read_frames(1)
        sid = stream.stream_id
        for arguments in (("list",), ("show", sid), ("stop", sid), ("gc",),
                          ("check",), ("usage",)):
            result = ctl(server, who, *arguments)
            e2e.check_equal((result.returncode, result.stderr), (0, ""),
                            "%s as %s" % (arguments, who))
        stream.read_all()


@e2e.test
def respoolctl_says_what_the_responders_user_cannot_do(server):
    stream = server.start_stream(message="x", model="short").read_all()
    sid = stream.stream_id
    live = server.start_stream(message="x", model="endless").read_frames(1)
    for arguments in (("list",), ("show", sid), ("usage",), ("check",),
                      ("stop", live.stream_id)):
        result = ctl(server, server.as_web(), *arguments)
        e2e.check_equal((result.returncode, result.stderr), (0, ""),
                        "%s" % (arguments,))
    live.read_all()
    result = ctl(server, server.as_web(), "gc")
    e2e.check(result.returncode not in (0, 2) and "ermi" in result.stderr,
              "gc: %r" % result)
    result = ctl(server, server.as_web(), "doctor")
    e2e.check("key" in result.stdout and server.key_file in result.stdout,
              "doctor of the keys: %s" % result.stdout)


@e2e.test
def the_doctor_does_not_call_missing_what_it_cannot_see(server):
    server.start_stream(message="x", model="short").read_all()
    for who in ([], server.as_service(), server.as_web()):
        said = [line for line in ctl(server, who, "doctor").stdout.split("\n")
                if "from-environment" in line]
        e2e.check(len(said) == 1 and "only root can see" in said[0],
                  "%s: %s" % (who, said))


# ---- the service is away ----

@e2e.test
def without_the_service_a_start_is_a_503_and_nobody_starts_another(server):
    replay = server.start_stream(message="x", model="short").read_all()
    ready = server.get("/ready")
    e2e.check_equal((ready.status, ready.json()), (200, {"status": "ready"}),
                    "/ready with it")
    server.stop_services()
    for _ in range(2):  # after a wait, then at once
        answer = server.post("/api/v1/stream", {"message": "x"})
        e2e.check_equal(answer.status, 503, "status")
        e2e.check(answer.header("Retry-After"), "Retry-After")
        value = answer.json()
        e2e.check_equal(value["error_type"], "spool_unavailable", "type")
        e2e.check(str(SERVICE) not in value["error"], "clients are told why")
    ready = server.get("/ready")
    e2e.check_equal(ready.status, 503, "/ready without it")
    e2e.check("spooler" in " ".join(ready.json()["reasons"]), "its reasons")
    e2e.check_equal(server.spoolers(), [], "spoolers")
    e2e.check(not os.path.exists(server.spool + "/start.lock"), "start.lock")
    said = [line for line in server.log() if "spooler not started" in line and
            "only user %d can start it" % SERVICE in line]
    e2e.check(said, "the log says why")
    again = server.resume(-1, stream_id=replay.stream_id).read_all()
    e2e.check_equal(again.bytes(), replay.bytes(), "the replay")
    server.start_service()
    server.start_stream(message="x", model="short").read_all()


@e2e.test
def a_start_waits_for_a_service_that_is_being_restarted(server):
    server.stop_services()
    time.sleep(HOLD)
    answers = []

    def ask():
        began = time.monotonic()
        answer = server.post("/api/v1/stream", {"message": "x",
                                                "model": "short"})
        answers.append((answer.status, time.monotonic() - began))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)  # in the middle of the wait, if the machine is quick
    server.start_service()
    thread.join()
    status, took = answers[0]
    e2e.check(status == 200 or took >= WAIT, "%d after %f s" % answers[0])


# ---- what it gave up ----

@e2e.test
def it_has_no_capabilities_and_leaves_no_core(server):
    server.stop_services()
    process = server.start_service("--inh-caps=+net_raw",
                                   "--ambient-caps=+net_raw")
    status = proc_status(process.pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        e2e.check_equal(int(status[name], 16), 0, name)
    e2e.check_equal(status["NoNewPrivs"], "1", "NoNewPrivs")
    with open("/proc/%d/limits" % process.pid, encoding="ascii") as f:
        limit = next(line for line in f if "core file" in line)
    e2e.check_equal(limit.split()[4:6], ["0", "0"], "size of a core file")


@e2e.test
def what_a_model_runs_has_given_up_the_same(server):
    text = server.start_stream(message="x", model="exec").read_all().text()
    e2e.check("NoNewPrivs:\t1\n" in text, text)
    e2e.check(re.search(r"^CapPrm:\t0+$", text, re.M), text)
    e2e.check(re.search(r"^0$", text, re.M), text)
    e2e.check(KEY not in text and "SPOOL_DIR" not in text, text)


@e2e.test
def the_sandbox_lets_it_and_its_commands_write_in_the_spool_only(server):
    path = os.path.join(server.run, "written")
    text = server.start_stream(message="x", model="writes").read_all().text()
    e2e.check_equal(text, "no\n" if LANDLOCK else "yes\n", "written")
    e2e.check_equal(os.path.exists(path), not LANDLOCK, path)


# ---- two services, and an upgrade ----

def waiting_service(server):
    """A second one, which waits for the first to make way."""
    process = server.start_service(wait=False)
    lock = ":%d " % os.stat(server.spool + "/spooler.lock").st_ino
    e2e.wait_until(lambda: somebody_waits(lock), 30, "its waiting")
    return process


def somebody_waits(lock):
    with open("/proc/locks", encoding="ascii") as f:
        return any(" -> " in line and lock in line for line in f)


def ended(shown):
    return shown if shown["state"] != "live" else None


@e2e.test
def a_killed_service_is_followed_by_the_one_that_waits(server):
    first = server.current()
    second = waiting_service(server)
    lost = server.start_stream(message="x", model="endless").read_frames(1)
    e2e.kill(first, signal.SIGKILL)
    lost.read_all(cut_ok=True)
    url = "/api/v1/streams/" + lost.stream_id
    shown = e2e.wait_until(lambda: ended(server.get(url).json()), 30,
                           "the end of what was being written")
    e2e.check_equal(shown["error_type"], "generation_lost", "how it ended")
    server.start_stream(message="x", model="short").read_all()
    e2e.check_equal(server.current(), second.pid, "who works now")
    third = waiting_service(server)
    third.terminate()
    third.wait(10)
    server.start_stream(message="x", model="short").read_all()


def replace(server, name):
    """As an installation does: a new file, renamed over the old one."""
    path = os.path.join(server.bin, name)
    shutil.copy(path, path + ".new")
    os.rename(path + ".new", path)


def start_many(server, count, during):
    """Starts streams one after the other, calls during(n) before each; all of
    them, which are being written."""
    streams = []
    for n in range(count):
        during(n)
        streams.append(server.start_stream(message="m%d" % n, model="live"))
    return streams


@e2e.test
def an_upgrade_goes_from_one_service_to_the_other(server):
    first = server.current()
    e2e.check(first, "a service")
    waits = waiting_service(server)
    streams = start_many(server, 30, lambda n: n == 10 and replace(
        server, "respool-spooler"))
    started = time.monotonic()
    while server.current() != waits.pid:
        e2e.check(time.monotonic() - started < 30, "the second one's turn")
        streams.append(server.start_stream(message="more", model="live"))
    streams.append(server.start_stream(message="last", model="live"))
    for stream in streams:
        stream.read_all()
        e2e.check_equal(stream.frames[-1].event, "done", "the end")
        e2e.check_equal(len(stream.frames), 41, "frames")
    e2e.wait_until(lambda: e2e.is_gone(first), 30, "the first one's end")
    # It runs what lies there now, not what it was started as.
    now, here = (os.stat(path) for path in (
        "/proc/%d/exe" % waits.pid, server.bin + "/respool-spooler"))
    e2e.check_equal(now.st_ino, here.st_ino, "its program")
    settled = {line["stream_id"] for line in server.usage_lines("settle")}
    e2e.check(settled.issuperset(stream.stream_id for stream in streams),
              "all are settled")
    e2e.check(" draining pid=%d " % first in server.service_log() and
              "why=upgrade" in server.service_log(), "the log")


if __name__ == "__main__":
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        print("needs root and setpriv: skipped")
        sys.exit(77)
    try:
        grp.getgrnam("www-data")
    except KeyError:
        print("needs the user www-data: skipped")
        sys.exit(77)
    e2e.main(Split, models=MODELS, procs=2,
             settings={"sandbox": "yes" if LANDLOCK else "no"})
