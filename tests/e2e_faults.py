#!/usr/bin/env -S python3 -B
"""One call of the C library fails, in one process: the program says so or
makes up for it, loses nothing that it has promised, and the next request
works.

    e2e_faults.py                   a sample, for a minute or two
    e2e_faults.py --all             each call that a run makes, and each error
    e2e_faults.py --seed 7 --seconds 600
    e2e_faults.py CASE...           these, as a failing one is called"""

import argparse
import collections
import ctypes
import errno
import glob
import json
import multiprocessing
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import e2e

FAULTS = {
    "read": ["EIO", "EINTR"],
    "write": ["EIO", "EINTR", "ENOSPC", "EDQUOT", "SHORT", "SHORT,ENOSPC"],
    "pread": ["EIO", "EINTR", "SHORT"],
    "pwrite": ["EIO", "EINTR", "ENOSPC", "EDQUOT", "SHORT", "SHORT,ENOSPC"],
    "sendmsg": ["EINTR", "ENOBUFS", "ENOMEM", "EPIPE", "ETOOMANYREFS"],
    "recvmsg": ["EINTR", "ENOMEM", "ECONNRESET"],
    "open": ["EMFILE", "ENFILE", "EIO"],
    "openat": ["EMFILE", "ENFILE", "EIO", "ENOSPC", "EDQUOT"],
    "fstat": ["EIO", "ENOMEM"],
    "fstatat": ["EIO", "ENOMEM"],
    "ftruncate": ["EIO", "EINTR"],
    "fallocate": ["ENOSPC", "EINTR", "EOPNOTSUPP", "EIO"],
    "linkat": ["EIO", "ENOSPC", "EDQUOT", "ENOENT", "EMLINK"],
    "renameat": ["EIO", "ENOSPC"],
    "symlinkat": ["EIO", "ENOSPC"],
    "unlinkat": ["EIO"],
    "mkdirat": ["ENOSPC", "EDQUOT", "EIO"],
    "fdopendir": ["ENOMEM"],
    "fcntl": ["EINVAL", "ENOLCK", "EMFILE"],
    "socket": ["EMFILE", "ENFILE", "ENOMEM"],
    "bind": ["ENOSPC", "EADDRINUSE"],
    "listen": ["ENOMEM"],
    "connect": ["EAGAIN", "ENOMEM", "EINTR"],
    "accept4": ["EMFILE", "ENFILE", "ENOMEM", "EINTR", "ECONNABORTED"],
    "epoll_create1": ["EMFILE"],
    "epoll_ctl": ["ENOSPC", "ENOMEM"],
    "epoll_wait": ["EINTR"],
    "poll": ["EINTR", "ENOMEM"],
    "eventfd": ["EMFILE"],
    "signalfd": ["EMFILE"],
    "memfd_create": ["EMFILE", "ENOMEM"],
    "pipe2": ["EMFILE"],
    "mmap": ["ENOMEM"],
    "fork": ["EAGAIN", "ENOMEM"],
    "posix_spawn": ["EAGAIN", "ENOMEM"],
    "pthread_create": ["EAGAIN"],
    "malloc": ["ENOMEM"],
    "calloc": ["ENOMEM"],
    "realloc": ["ENOMEM"],
    "strdup": ["ENOMEM"],
}
MODELS = {
    "default": "quick",
    "models": {
        "quick": {"provider": "demo", "chunks": 12, "interval_ms": 5,
                  "prices": {"input": 150000, "output": 600000}},
        "hang": {"provider": "demo", "chunks": 9, "hang_after": 2},
    },
}
SETTINGS = {"keepalive": 1, "drain_timeout": 0, "idle_exit": 60}
# What the steps of the scenario are answered when nothing fails.
EXPECTED = {"start": 200, "resume": 200, "snapshot": 200, "hang": 200,
            "list": 200, "stop": 200, "delete": 204, "gone": 404,
            "before": 200, "dead": 200}
REQUEST_S = 25   # for any answer
NEXT_S = 10      # for the first request without a fault
CPU_S = 2        # of a spooler that does not spin
stop_at = 0.0    # no case begins later; set in each process
LIBRARY = os.path.join(e2e.BUILD, "tests", "preload_fault.so")
OWNER = "alice"

Case = collections.namedtuple("Case", "program step call number error")


def case_name(case):
    return "%s/%s/%s/%d/%s" % case


def case_parse(name):
    program, step, call, number, error = name.split("/")
    return Case(program, step, call, int(number), error)


def error_numbers(error):
    return ",".join("0" if name == "SHORT" else str(getattr(errno, name))
                    for name in error.split(","))


# ---- one request ----

class Request:
    """A request of a step that was sent, and its answer."""

    def __init__(self, step, stream_id, last_id):
        self.step = step
        self.stream_id = stream_id  # of the frames that come
        self.first_id = 0 if last_id is None else last_id + 1
        self.output = b""
        self.deadline = time.monotonic() + REQUEST_S

    def read_some(self):
        """False at the end."""
        left = self.deadline - time.monotonic()
        if not select.select([self.source], [], [], max(left, 0))[0]:
            raise AssertionError("%s hangs" % self.step)
        try:
            data = os.read(self.source.fileno(), 65536)
        except ConnectionResetError:
            data = b""
        self.output += data
        return data != b""

    def read_frames(self, count):
        """Until so many have come, or the end; the last id, or -1."""
        while self.output.count(b"\nid: ") < count and self.read_some():
            pass
        return min(self.output.count(b"}\n\n"), count) - 1

    def finish(self):
        while self.read_some():
            pass
        self.source.close()
        return self

    def has_status(self, status):
        return re.match(rb"(Status:|HTTP/1\.[01]) %d " % status, self.output)

    def parse(self, cut_ok):
        """The status (0: no answer), frames and JSON of a whole answer.
        cut_ok: it may end anywhere."""
        self.status, self.frames, self.json = 0, [], None
        self.ended = False
        head, found, body = self.output.partition(b"\r\n\r\n")
        if not found:
            e2e.check(cut_ok, "%s: no answer: %r" % (self.step, self.output))
            return
        self.status = int(re.match(rb"(?:Status:|HTTP/1\.[01]) ([0-9]{3}) ",
                                   head)[1])
        if b"Content-Type: text/event-stream" in head:
            parser = e2e.Parser(self.first_id)
            self.frames = parser.feed(body, 0.0)
            self.ended = parser.ended
            if not cut_ok:
                parser.finish()
                e2e.check(parser.ended or parser.retry is not None,
                          "%s: cut" % self.step)
        elif self.status == 204:
            e2e.check_equal(body, b"", "body of a 204")
        elif b"Content-Type: application/json" in head and (
                not cut_ok or body.endswith(b"}")):
            self.json = e2e.parse_json(body)
        else:
            e2e.check(cut_ok, "%s: %r" % (self.step, self.output[:300]))


class CgiRequest(Request):
    """A process of its own."""

    def __init__(self, site, step, method, path, query="", body=None,
                 last_id=None, stream_id=None):
        super().__init__(step, stream_id, last_id)
        env = dict(site.step_env(step), REQUEST_METHOD=method, PATH_INFO=path,
                   QUERY_STRING=query, GATEWAY_INTERFACE="CGI/1.1")
        if last_id is not None:
            env["HTTP_LAST_EVENT_ID"] = str(last_id)
        data = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            env.update(CONTENT_TYPE="application/json",
                       CONTENT_LENGTH=str(len(data)))
        self.process = subprocess.Popen(
            [os.path.join(site.bin, "respool.fcgi")], env=env, cwd="/",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=site.stderr)
        self.source = self.process.stdout
        try:
            self.process.stdin.write(data)
            self.process.stdin.close()
        except BrokenPipeError:
            pass

    def finish(self):
        super().finish()
        status = self.process.wait(max(self.deadline - time.monotonic(), 1))
        e2e.check(status >= 0, "%s: killed by signal %d"
                  % (self.step, -status))
        return self

    def leave(self):
        """The client goes away."""
        self.source.close()
        self.process.wait(REQUEST_S)


class WebRequest(Request):
    """To a web server; HTTP/1.0, where an answer ends with its connection."""

    def __init__(self, site, step, method, path, query="", body=None,
                 last_id=None, stream_id=None):
        super().__init__(step, stream_id, last_id)
        data = b"" if body is None else json.dumps(body).encode()
        lines = ["%s %s?%s HTTP/1.0" % (method, path, query),
                 "Content-Length: %d" % len(data)]
        if body is not None:
            lines.append("Content-Type: application/json")
        if last_id is not None:
            lines.append("Last-Event-ID: %d" % last_id)
        self.source = socket.create_connection(("127.0.0.1", site.port))
        self.source.sendall("\r\n".join(lines + ["", ""]).encode() + data)


# ---- a spool of one's own ----

class Site(e2e.Server):
    """A spool, programs and a log; without a web server, as CGI programs need
    none."""

    request_class = CgiRequest
    lighttpd = None

    def __init__(self, case=None):
        self.case = case
        self.user = None
        self.run = tempfile.mkdtemp(prefix="respool-faults.")
        self.spool = os.path.join(self.run, "spool")
        self.log_file = os.path.join(self.run, "respool.log")
        self.bin = e2e.BUILD
        self.library = LIBRARY
        self.env = self._environment(SETTINGS, {})
        self.stderr = open(os.path.join(self.run, "stderr"), "ab")
        self.write_models(MODELS)

    def set_up(self):
        """What may fail."""

    @property
    def mark(self):
        return os.path.join(self.run, "fired")

    def _environment(self, settings, environment):
        return dict(super()._environment(settings, environment),
                    RESPOOL_LOG_LEVEL="info")

    def _script(self, name, program):
        """What starts a program with the library: LD_PRELOAD does not pass
        from a responder to the spooler that it starts."""
        path = os.path.join(self.run, name)
        options = self._sanitizer_options()
        with open(path, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\nASAN_OPTIONS='%s' UBSAN_OPTIONS='%s' "
                    "LD_PRELOAD='%s' exec '%s' \"$@\"\n"
                    % (options, options, self.library, program))
        os.chmod(path, 0o755)
        return path

    def _spooler(self):
        return self._script("spooler.sh",
                            os.path.join(self.bin, "respool-spooler"))

    def _sanitizer_options(self):
        return (super()._sanitizer_options() +
                ":allocator_may_return_null=1:verify_asan_link_order=0")

    def fault_env(self, step):
        """What tells the library, in the responder that serves a step and in
        a spooler that it starts."""
        case = self.case
        if case is None:
            return {"RESPOOL_TEST_FAULT_LOG": "%s/calls.%s" % (self.run, step)}
        if case.step not in ("any", "recovery", step):
            return {}
        return {"RESPOOL_TEST_FAULT_MARK": self.mark,
                "RESPOOL_TEST_FAULT": "%s:%s:%d:%s" % (
                    case.program, case.call, case.number,
                    error_numbers(case.error))}

    def step_env(self, step):
        return dict(self.env, LD_PRELOAD=self.library, **self.fault_env(step))

    def count_calls(self, counts):
        for path in glob.glob(self.run + "/calls.*"):
            step = path.rpartition(".")[2]
            spooler_step = {"web": "web", "dead": "recovery"}.get(step, "any")
            with open(path, encoding="ascii") as f:
                for line in f:
                    program, call = line.split()
                    counts[program, spooler_step if program ==
                           "respool-spooler" else step, call] += 1

    def fired(self):
        """Where the fault hit, or None."""
        try:
            with open(self.mark, encoding="utf-8") as f:
                return f.read().strip() or None
        except FileNotFoundError:
            return None

    def fault_over(self):
        """From now on nothing fails."""
        with open(self.mark, "a", encoding="ascii"):
            pass
        self.step_env = lambda step: dict(self.env)

    # -- requests --

    def send(self, *arguments, **options):
        return self.request_class(self, *arguments, **options)

    def do(self, *arguments, **options):
        return self.send(*arguments, **options).finish()

    def begin(self, step, stream_id, model):
        return self.send(step, "POST", "/api/v1/stream", body={
            "message": "x", "user_id": OWNER, "model": model,
            "stream_id": stream_id}, stream_id=stream_id)

    def join(self, step, stream_id, last_id=None):
        return self.send(step, "GET", "/api/v1/stream",
                         "user_id=%s&stream_id=%s" % (OWNER, stream_id),
                         last_id=last_id, stream_id=stream_id)

    # -- processes: this one is the reaper of its orphans --

    def children(self):
        """All but the web server."""
        with open("/proc/self/task/%d/children" % os.getpid(),
                  encoding="ascii") as f:
            pids = [int(pid) for pid in f.read().split()]
        if self.lighttpd is not None:
            pids.remove(self.lighttpd.pid)
        return pids

    def end_spoolers(self):
        """Ends all that was left running; none may have crashed or spun."""
        deadline = time.monotonic() + 10
        asked = {}
        while self.children():
            for child in self.children():
                pid, status, usage = os.wait4(child, os.WNOHANG)
                if pid == child:
                    # A leak checker's helper ends by SIGKILL.
                    e2e.check(os.WTERMSIG(status) in (0, signal.SIGKILL),
                              "a spooler was killed by signal %d"
                              % os.WTERMSIG(status))
                    cpu = usage.ru_utime + usage.ru_stime
                    e2e.check(cpu < CPU_S, "a spooler took %.1f s of CPU"
                              % cpu)
                elif time.monotonic() - asked.get(child, 0) > 1:
                    asked[child] = time.monotonic()
                    e2e.kill(child, signal.SIGTERM)
            e2e.check(time.monotonic() < deadline, "a spooler does not end")
            time.sleep(0.005)

    def said(self):
        """What the programs had to say, but for the test's own variables."""
        with open(self.stderr.name, encoding="utf-8", errors="replace") as f:
            lines = self.log() + f.read().splitlines()
        return [line for line in lines if "no such setting" not in line]

    def check_crashes(self):
        """Of responders: here each request has seen to its own."""

    def clean_up(self):
        """What the sanitizers found, or ""."""
        for pid in self.children():
            e2e.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.stderr.close()
        report = ""
        for path in glob.glob(os.path.join(self.run, "sanitizer.*")):
            with open(path, encoding="utf-8", errors="replace") as f:
                text = f.read()
            if "ERROR: " in text or "runtime error: " in text:
                report += text
        shutil.rmtree(self.run, ignore_errors=True)
        return report


class WebSite(Site):
    """The same behind a lighttpd with one responder, which stays."""

    request_class = WebRequest

    def __init__(self, case=None):
        self.case = case
        e2e.Server.__init__(self, MODELS, SETTINGS, procs=1)
        self.stderr = open(os.path.join(self.run, "server.log"), "ab")

    def start(self):
        """Not yet."""

    def set_up(self):
        super().start()

    def _environment(self, settings, environment):
        # Where the server's user can read it, as with the programs.
        self.library = shutil.copy(LIBRARY, self.bin)
        real = os.path.join(self.run, "respool.fcgi")
        os.rename(os.path.join(self.bin, "respool.fcgi"), real)
        self._script("bin/respool.fcgi", real)
        return dict(super()._environment(settings, environment),
                    **self.fault_env("web"))

    def check_crashes(self):
        log = self.lighttpd_log()
        e2e.check("signal" not in log, "a responder crashed:\n" + log)

    def clean_up(self):
        pids = self.children()
        if self.lighttpd is not None:
            e2e.kill(self.lighttpd.pid, signal.SIGTERM)
        for pid in pids:
            e2e.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if self.lighttpd is not None:
            self.lighttpd.wait()
        e2e._servers.remove(self)
        self.lighttpd = None
        return super().clean_up()


# ---- the scenarios: each step's request, finished ----

def everything(site):
    """All that there is to ask for."""
    query = "user_id=" + OWNER
    start = site.begin("start", "s1", "quick")
    seen = start.read_frames(4)
    answers = [start, site.join("resume", "s1", seen).finish()]
    start.finish()
    answers.append(site.do("snapshot", "GET", "/api/v1/streams/s1", query))
    hang = site.begin("hang", "s2", "hang")
    hang.read_frames(2)
    answers += [hang, site.do("list", "GET", "/api/v1/streams", query)]
    stop = site.do("stop", "POST", "/api/v1/streams/s2/stop", query)
    answers.append(stop)
    if not stop.has_status(200):
        site.fault_over()
        site.do("stop again", "POST", "/api/v1/streams/s2/stop", query)
    hang.finish()
    answers.append(site.do("delete", "DELETE", "/api/v1/streams/s1", query))
    answers.append(site.begin("gone", "s1", "quick").finish())
    return {answer.step: answer for answer in answers}


def recovery(site):
    """The spooler is dead, and three streams with it, of which one had ended;
    somebody comes back to one of the others."""
    told = site.step_env
    site.step_env = lambda step: dict(site.env)
    site.begin("ended", "s2", "quick").finish()
    site.begin("unread", "s3", "hang").leave()
    before = site.begin("before", "s1", "hang")
    seen = before.read_frames(2)
    before.leave()
    for pid in site.children():
        e2e.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    site.step_env = told
    dead = site.join("dead", "s1", seen).finish()
    return {"before": before, "dead": dead}


SCENARIOS = {"dead": (Site, recovery), "recovery": (Site, recovery),
             "web": (WebSite, everything)}


# ---- what must be true afterwards ----

def allowed_statuses(case, answers, step):
    """Beside 5xx."""
    def failed(other, want=200):
        return other in answers and answers[other].status != want

    allowed = {EXPECTED[step]}
    if (step in ("resume", "snapshot", "delete") and failed("start")) or (
            step == "stop" and failed("hang")):
        allowed.add(404)
    if step == "gone" and failed("delete", 204):
        allowed.add(200)
    if step == "resume" and answers["start"].ended and \
            answers["start"].frames[-1].id < answers["resume"].first_id:
        allowed = {204}  # an early end, which was seen
    if case.step in (step, "web"):
        allowed.add(0)
        if case.call == "read":
            allowed.add(400)  # the body did not come
    return allowed


def check_answers(site, answers):
    """Each is well-formed, and true; whether all is as without a fault."""
    as_ever = True
    for step, answer in answers.items():
        answer.parse(cut_ok=step == "before" or
                     site.case.step in (step, "web"))
    for step, answer in answers.items():
        e2e.check(500 <= answer.status < 600 or answer.status in
                  allowed_statuses(site.case, answers, step),
                  "%s: %r" % (step, answer.output[:400]))
        last = "done" if step != "dead" else "error"
        as_ever = as_ever and answer.status == EXPECTED[step] and (
            not answer.frames or step == "before" or
            (answer.ended and answer.frames[-1].event == last))
        if step == "list" and answer.json and answer.status == 200:
            listed = {row["stream_id"] for row in answer.json["streams"]}
            as_ever = as_ever and listed == {"s1", "s2"}
    return as_ever


def check_reported(site, answers):
    case = site.case
    if case.call in ("write", "poll") and case.program == "respool.fcgi":
        return  # its client has left, as far as it knows
    told = [line for line in site.said() if re.search(
        "^respool| (error|warn) | reason=(?!finished|stop)", line)]
    told += [step for step, answer in answers.items()
             if (answer.status >= 400 and answer.status != EXPECTED[step]) or
             any(frame.event == "error" for frame in answer.frames)]
    e2e.check(told, "nobody was told: %s" % ", ".join(
        "%s %d" % (step, a.status) for step, a in answers.items()))


def check_streams(site, answers):
    """What clients have seen is in the files, which have ended."""
    disk = {}
    for stream_id in ("s1", "s2", "s3"):
        path = site.stream_path(stream_id, OWNER)
        if os.path.exists(path) and os.path.getsize(path) > 0:
            frames = site.stream_frames(stream_id, OWNER)
            e2e.check(frames and frames[-1].event in e2e.TERMINAL,
                      "%s has not ended" % stream_id)
            disk[stream_id] = {frame.id: frame.raw for frame in frames}
    if "delete" in answers and answers["delete"].status == 204:
        e2e.check("s1" not in disk, "a deleted stream is there")
    if "delete" in answers and "s1" not in disk and \
            answers["delete"].status != 404:
        # Perhaps by one who was not told; readers are measured by each other.
        disk["s1"] = {frame.id: frame.raw for step in ("start", "resume")
                      for frame in answers[step].frames}
    for step, answer in answers.items():
        for frame in answer.frames:
            e2e.check(disk.get(answer.stream_id, {}).get(frame.id) ==
                      frame.raw, "%s: frame %d is not in the file"
                      % (step, frame.id))
    snapshot = answers.get("snapshot")
    if snapshot is not None and snapshot.status == 200 and snapshot.json:
        want = "".join("tok%d " % n for n in range(12))
        text = snapshot.json["text"]
        e2e.check(want.startswith(text) and (
            text == want or snapshot.json["state"] != "finished"),
            "text of the snapshot: %r" % text)


def check_usage(site):
    kinds = collections.Counter()
    for path in glob.glob(site.spool + "/usage/*"):
        with open(path, "rb") as f:
            for line in f:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue  # cut short
                kinds[value["type"], value.get("stream_id")] += 1
    for (kind, stream_id), count in kinds.items():
        if kind == "reserve":
            e2e.check_equal(count, 1, "reserves of " + stream_id)
            e2e.check(kinds["settle", stream_id] > 0,
                      "%s is not settled" % stream_id)


def check_next(site, stream_id):
    """Without a fault all works again: soon, as who could not start a spooler
    does not try again at once."""
    began = time.monotonic()
    while True:
        answer = site.begin("next", stream_id, "quick").finish()
        answer.parse(cut_ok=False)
        took = time.monotonic() - began
        if answer.status != 503 or took > NEXT_S:
            break
        time.sleep(0.2)
    e2e.check_equal((answer.status, answer.ended and
                     answer.frames[-1].event), (200, "done"), "the next "
                    "request: %r" % answer.output[:300])
    e2e.check(took < NEXT_S, "the next request took %.1f s" % took)


def check_all(site, answers):
    site.fault_over()
    if not check_answers(site, answers):
        check_reported(site, answers)
    check_next(site, "n1")
    for stream_id in ("s1", "s2", "s3"):
        site.do("stop at last", "POST",
                "/api/v1/streams/%s/stop" % stream_id, "user_id=" + OWNER)
        last = site.join("read", stream_id).finish()
        last.parse(cut_ok=False)
        e2e.check((last.status == 200 and last.ended) or last.status == 404,
                  "%s afterwards: %r" % (stream_id, last.output[:300]))
    site.end_spoolers()
    check_next(site, "n2")  # a new spooler makes up for what was missed
    site.end_spoolers()
    check_streams(site, answers)
    check_usage(site)
    left = set(os.listdir(site.spool)) - {
        "streams", "usage", "current", "spooler.lock", "start.lock",
        "ballast", "metrics", "link.secret"}
    e2e.check(not left, "left in the spool: %s" % left)
    left = glob.glob(site.spool + "/streams/*/.*")
    e2e.check(not left, "left in the streams: %s" % left)
    site.check_crashes()


# ---- cases ----

def become_reaper(deadline):
    global stop_at
    stop_at = deadline
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def on_alarm(number, frame):
    raise TimeoutError("it took more than a minute and a half")


def run_case(case):
    """(case, where it hit or None, what is wrong or ""); None when there is
    no time left."""
    if time.monotonic() > stop_at:
        return None
    signal.alarm(90)
    site_class, scenario = SCENARIOS.get(case.step, (Site, everything))
    site = site_class(case)
    fault = ""
    try:
        site.set_up()
        check_all(site, scenario(site))
    except Exception as e:
        fault = "%s: %s\n%s\n" % (type(e).__name__, e, "".join(
            "    %s\n" % line for line in site.said()[-30:]))
    finally:
        signal.alarm(0)
        hit = site.fired()
        fault += site.clean_up()
    return case, hit, fault


def count_calls(step):
    """How often each program makes each call in each step of a scenario."""
    counts = collections.Counter()
    site_class, scenario = SCENARIOS.get(step, (Site, everything))
    site = site_class()
    try:
        site.set_up()
        answers = scenario(site)
        for name, answer in answers.items():
            answer.parse(cut_ok=name == "before")
            e2e.check_equal(answer.status, EXPECTED[name], name)
        site.end_spoolers()
        site.count_calls(counts)
    finally:
        site.clean_up()
    return counts


def all_cases(counts):
    return [Case(program, step, call, number, error)
            for (program, step, call), count in sorted(counts.items())
            for number in range(1, count + 1)
            for error in FAULTS[call]
            # A spooler does the same behind a web server.
            if (program, step) != ("respool-spooler", "web")]


def sample(cases, dice):
    """In an order of chance, but each kind of call early."""
    dice.shuffle(cases)
    seen = collections.Counter()
    rank = {}
    for case in cases:
        kind = case.program, case.call, SCENARIOS.get(case.step)
        seen[kind] += 1
        rank[case] = seen[kind]
    return sorted(cases, key=rank.get)


def where(hit):
    """The line of the source that a mark names."""
    parts = hit.split()
    if len(parts) != 4:
        return hit
    built = os.path.join(e2e.BUILD, os.path.basename(parts[2]))
    out = subprocess.run(
        ["addr2line", "-e", built if os.path.exists(built) else parts[2],
         "-f", "-p", parts[3]], capture_output=True, encoding="utf-8",
        check=False)
    return "%s %s" % (hit, out.stdout.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", help="cases whose names match this")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    options = parser.parse_args()
    e2e.set_up()
    if not os.path.exists(LIBRARY):
        sys.exit("%s is not built" % LIBRARY)
    deadline = float("inf") if options.all or options.cases else \
        time.monotonic() + options.seconds
    done = hits = failures = 0
    with multiprocessing.Pool(os.cpu_count(), become_reaper,
                              (deadline,)) as pool:
        if options.cases:
            cases = [case_parse(name) for name in options.cases]
        else:
            steps = ["any", "recovery"]
            if shutil.which("lighttpd"):
                steps.append("web")
            else:
                print("lighttpd is not installed: CGI only")
            cases = all_cases(sum(pool.map(count_calls, steps),
                                  collections.Counter()))
            if options.only:
                cases = [case for case in cases if re.search(
                    options.only, case_name(case))]
            print("seed %d, of %d cases" % (options.seed, len(cases)))
            cases = sample(cases, random.Random(options.seed))
        for result in pool.imap_unordered(run_case, cases):
            if result is None:
                continue
            case, hit, fault = result
            done += 1
            hits += hit is not None
            failures += fault != ""
            if fault:
                print("FAIL  %s at %s\n  %s" % (
                    case_name(case), where(hit or "?"), fault))
    if hits < done * 0.8:  # the order of calls varies a little
        failures += 1
        print("FAIL  only %d faults hit" % hits)
    passed = 100 * (done - failures) // done if done else 100
    print("%d%%: Checks: %d, Failures: %d, Errors: 0 (%d faults hit)"
          % (passed, done, failures, hits))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
