"""direct.py - responders without a web server, for tests that kill and stop
processes: started at once by the test itself, which asks them as a web server
would.  Each program can also be killed or stopped at a chosen call, through
preload_pause.c."""

import contextlib
import glob
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import e2e

PRELOAD = os.path.join(e2e.BUILD, "tests", "preload_pause.so")


# ---- a chosen call ----

class Pause:
    """What may happen at one call of the processes that map this page."""

    SIZE = struct.calcsize("<7I32s")
    WHEN = ("before", "within", "after")

    def __init__(self, path, user):
        with open(path, "w+b") as f:
            f.truncate(self.SIZE)
            self._page = mmap.mmap(f.fileno(), self.SIZE)
        self._number = 0  # of the last order
        if user:
            os.chown(path, user.pw_uid, user.pw_gid)

    def order(self, call, nth=1, when="before", number=signal.SIGKILL,
              hold_ms=0):
        """Once, at the nth call from now on."""
        self.cancel()
        struct.pack_into("<5I", self._page, 4, nth, self.WHEN.index(when),
                         number, hold_ms, 0)
        struct.pack_into("<32s", self._page, 28, call.encode())
        self._number += 1
        struct.pack_into("<I", self._page, 0, self._number)

    def cancel(self):
        """Nobody obeys the last order who has not yet."""
        struct.pack_into("<I", self._page, 0, 0)

    @property
    def hit(self):
        """The pid of who came to the call of the last order, or 0."""
        return struct.unpack_from("<I", self._page, 20)[0]

    def refuse_tmpfile(self, refused):
        """As a file system without O_TMPFILE does."""
        struct.pack_into("<I", self._page, 24, refused)

    def wait(self, seconds=10):
        """Until somebody is hit, and has died or stopped."""
        pid = e2e.wait_until(lambda: self.hit, seconds, "the chosen call")
        e2e.wait_until(lambda: e2e.is_gone(pid) or is_stopped(pid), 5,
                       "the end or stop of %d" % pid)
        return pid


def is_stopped(pid):
    try:
        with open("/proc/%d/stat" % pid, "rb") as f:
            return f.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False


# ---- FastCGI, the web server's side ----

_BEGIN, _END, _PARAMS, _STDIN, _STDOUT = 1, 3, 4, 5, 6


def _record(kind, data):
    return b"".join(struct.pack("!BBHHBB", 1, kind, 1, len(part), 0, 0) + part
                    for part in [data[at:at + 65528]
                                 for at in range(0, len(data), 65528)])


def _length(n):
    return bytes([n]) if n < 128 else struct.pack("!I", n | 1 << 31)


def _end(kind):
    return struct.pack("!BBHHBB", 1, kind, 1, 0, 0, 0)


class Answer(e2e.Response):
    """What a responder answers, as far as it comes.  whole: it said that it
    is complete, and was not cut."""

    def __init__(self, path, method, target, headers=(), body=b"",
                 timeout=e2e.IO_TIMEOUT):
        self.sent_at = time.monotonic()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.method = method
        self.status = None
        self.buffer = b""    # of the response, not taken yet
        self.whole = False
        self._records = b""
        self._left = 0       # bytes of the record that is coming
        self._pad = 0
        self._kind = 0
        self._complete = False
        try:
            self.sock.connect(path)
            self.sock.sendall(self._request(method, target, headers, body))
        except OSError:
            self.sock.close()
            raise

    @staticmethod
    def _request(method, target, headers, body):
        route, _, query = target.partition("?")
        params = {
            "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1",
            "REQUEST_METHOD": method, "REQUEST_URI": target,
            "SCRIPT_NAME": "", "PATH_INFO": route, "QUERY_STRING": query,
            "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost",
        }
        for name, value in headers:
            name = name.upper().replace("-", "_")
            params[name if name == "CONTENT_TYPE" else "HTTP_" + name] = value
        if body or method == "POST":
            params["CONTENT_LENGTH"] = str(len(body))
        pairs = b""
        for name, value in params.items():
            name, value = name.encode(), value.encode()
            pairs += _length(len(name)) + _length(len(value)) + name + value
        return (_record(_BEGIN, struct.pack("!HB5x", 1, 0)) +
                _record(_PARAMS, pairs) + _end(_PARAMS) +
                _record(_STDIN, body) + _end(_STDIN))

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self._records += data
        while self._records:
            if self._left > 0:
                # What came of a record that is cut later on was seen too.
                part = self._records[:self._left]
                self._left -= len(part)
                self._records = self._records[len(part):]
                if self._kind == _STDOUT:
                    self.buffer += part
            elif len(self._records) >= 8 + self._pad:
                _, self._kind, _, self._left, pad, _ = struct.unpack_from(
                    "!BBHHBB", self._records, self._pad)
                self._records = self._records[8 + self._pad:]
                self._pad = pad
                self._complete = self._complete or self._kind == _END
            else:
                break
        return bool(data)

    def read_head(self):
        while b"\r\n\r\n" not in self.buffer:
            if self._complete or not self._more():
                raise ConnectionError("no answer: %r" % self.buffer[:200])
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.headers = [tuple(line.split(": ", 1)) for line in lines]
        if any(len(pair) != 2 for pair in self.headers):
            raise e2e.Malformed("header lines %r" % lines)
        self.status = int((self.header("Status") or "200").split()[0])
        return self

    def read_some(self):
        if self.status is None:
            self.read_head()
        while not self.buffer:
            if self._complete:
                self.whole = True
                return b""
            if not self._more() and not self.buffer:
                return b""
        data, self.buffer = self.buffer, b""
        return data


# ---- the server ----

class Server(e2e.Server):
    """Responders 0 to procs - 1, each before a socket of its own that outlives
    it.  spooler_pause and responder_pause are the pages of the programs."""

    needs = ()

    def __init__(self, models=None, settings=None, procs=2, environment=None):
        self.listeners = []
        self.responder = []    # Popen objects
        self.deaths = []       # (pid, returncode) of those that have ended
        self._turn = 0
        self._lock = threading.Lock()
        super().__init__(models, settings, procs, environment)

    def _spooler(self):
        """The spooler's environment is clean: a script adds to it."""
        script = os.path.join(self.bin, "spooler.sh")
        options = self._sanitizer_options()
        with open(script, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\n")
            for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
                f.write("export %s='%s'\n" % (name, options))
            f.write("PAUSE_PAGE='%s' LD_PRELOAD='%s' exec '%s' \"$@\"\n" % (
                os.path.join(self.run, "spooler.pause"), self._preload(),
                os.path.join(self.bin, "respool-spooler")))
        os.chmod(script, 0o755)
        return script

    def _sanitizer_options(self):
        return super()._sanitizer_options() + ":verify_asan_link_order=0"

    def _preload(self):
        copy = os.path.join(self.bin, "preload_pause.so")
        if not os.path.exists(copy):
            with open(PRELOAD, "rb") as f, open(copy, "wb") as to:
                to.write(f.read())
        return copy

    def start(self):
        self.spooler_pause = Pause(
            os.path.join(self.run, "spooler.pause"), self.user)
        self.responder_pause = Pause(
            os.path.join(self.run, "responder.pause"), self.user)
        for number in range(self.procs):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self._socket(number))
            listener.listen(128)
            self.listeners.append(listener)
            self.responder.append(None)
            self.start_responder(number)

    def _socket(self, number):
        return os.path.join(self.run, "responder-%d.sock" % number)

    def start_responder(self, number):
        """In the place of one that has ended, perhaps."""
        env = dict(self.env, LD_PRELOAD=self._preload(),
                   PAUSE_PAGE=os.path.join(self.run, "responder.pause"))
        who = {}
        if self.user:
            who = {"user": self.user.pw_uid, "group": self.user.pw_gid,
                   "extra_groups": []}
        with open(os.path.join(self.run, "server.log"), "ab") as log:
            self.responder[number] = subprocess.Popen(
                [os.path.join(self.bin, "respool.fcgi")], env=env,
                stdin=self.listeners[number], stdout=log, stderr=log,
                start_new_session=True, **who)

    def dead_responders(self):
        """The numbers of those that have ended."""
        return [number for number, process in enumerate(self.responder)
                if process.poll() is not None]

    def calm(self):
        """Nobody is stopped any more, or will be."""
        for page in (self.spooler_pause, self.responder_pause):
            page.cancel()
            page.refuse_tmpfile(False)
        for pid in self.pids():
            e2e.kill(pid, signal.SIGCONT)

    def stop(self):
        self.calm()
        report = super().stop()
        for process in self.responder:
            process.wait()
        for listener in self.listeners:
            listener.close()
        return report

    def usage_lines(self, kind=None, stream_id=None):
        """Without those that a crash cut."""
        lines = []
        for path in sorted(glob.glob(self.spool + "/usage/*.jsonl")):
            with open(path, "rb") as f:
                for line in f:
                    with contextlib.suppress(e2e.Malformed):
                        lines.append(e2e.parse_json(line))
        return [line for line in lines
                if kind in (None, line["type"]) and
                stream_id in (None, line.get("stream_id"))]

    def request(self, method, target, headers=(), body=b"",
                timeout=e2e.IO_TIMEOUT, responder=None):
        """responder: its number; by default they take turns."""
        if responder is None:
            with self._lock:
                self._turn += 1
                responder = self._turn % self.procs
        return Answer(self._socket(responder), method, target, headers, body,
                      timeout)


class Jumping(Server):
    """All its programs, respoolctl too, are on a machine whose wall clock the
    test sets (preload_clock.c)."""

    def _environment(self, settings, environment):
        self._clock = os.path.join(self.run, "clock")
        with open(self._clock, "w+b") as f:
            f.truncate(16)
            self._page = mmap.mmap(f.fileno(), 16)
        return super()._environment(settings, dict(
            environment, CLOCK_PAGE=self._clock, LD_PRELOAD=self._preload()))

    def _spooler(self):
        script = super()._spooler()
        with open(script, "r+", encoding="ascii") as f:
            text = f.read()
            f.seek(0)
            f.write(text.replace("\n", "\nexport CLOCK_PAGE='%s'\n"
                                 % self._clock, 1))
        return script

    def _preload(self):
        copy = os.path.join(self.bin, "preload_clock.so")
        if not os.path.exists(copy):
            shutil.copy(os.path.join(e2e.BUILD, "tests", "preload_clock.so"),
                        copy)
        return copy

    def jump(self, seconds):
        """The wall clock is that far from the real one."""
        struct.pack_into("<q", self._page, 0, seconds)

    def pass_time(self, seconds):
        """CLOCK_MONOTONIC goes forward by that.  Who waits wakes up no
        earlier."""
        before, = struct.unpack_from("<q", self._page, 8)
        struct.pack_into("<q", self._page, 8, before + seconds)

    def check_bought(self, stream_id):
        """Reserved once and settled once, whatever the day."""
        for kind in ("reserve", "settle"):
            e2e.check_equal(len(self.usage_lines(kind, stream_id)), 1,
                            "%s lines of %s" % (kind, stream_id))
