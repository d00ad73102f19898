"""e2e.py - what the end-to-end tests share: a strict reader of our event
streams, a lighttpd of one's own with the shipped configuration, and a runner.

A test is a function whose name is the sentence it proves:

    @e2e.test
    def a_resume_goes_on_after_the_cursor(server): ...

    if __name__ == "__main__":
        e2e.main(models=MODELS, settings={"ttl": 60}, procs=3)

Python's standard library only.  Nothing sleeps by guess: wait_until()."""

import atexit
import collections
import glob
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from urllib.parse import urlencode

sys.dont_write_bytecode = True

SOURCE = os.environ.get("RESPOOL_SOURCE") or os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("RESPOOL_BUILD") or os.path.join(SOURCE, "build")
PROGRAMS = ["respool.fcgi", "respool-spooler", "respoolctl"]

TEST_TIMEOUT = 180  # seconds, for one test
IO_TIMEOUT = 30     # seconds without a byte

FRAME_MAX = 16384
TERMINAL = {"done", "complete", "error"}
FRAME = re.compile(rb"event: ([a-z_]+)\nid: (0|[1-9][0-9]*)\nretry: 10000\n"
                   rb"data: (\{[^\r\n\0]*\})\n\n")
RETRY = re.compile(rb"retry: ([0-9]+)\n\n")
HEAD = re.compile(rb": respool1 (\{[^\r\n\0]*\})\n\n")

Frame = collections.namedtuple("Frame", "event id data raw at")


class Malformed(AssertionError):
    """What came is not what the interface promises."""


# ---- JSON and frames, strictly ----

def _no_constant(name):
    raise Malformed("%s is not JSON" % name)


def _unique(pairs):
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)):
        raise Malformed("a name twice in %r" % names)
    return dict(pairs)


def parse_json(data):
    """One JSON object, in UTF-8, without NaN or a name twice."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant,
                           object_pairs_hook=_unique)
    except ValueError as e:
        raise Malformed("not JSON: %s in %r" % (e, data[:200])) from None
    if not isinstance(value, dict):
        raise Malformed("not a JSON object: %r" % data[:200])
    return value


class Parser:
    """Takes bytes of an event stream, gives frames; raises Malformed at the
    first byte sequence that our interface does not have."""

    def __init__(self, first_id=None):
        self.buffer = b""
        self.next_id = first_id  # None: whatever comes first
        self.ended = False       # a terminal frame was seen
        self.retry = None        # of the block before the end
        self.comments = []       # (line, arrival time)
        self.after_comment = False

    def feed(self, data, at):
        self.buffer += data
        frames = []
        while self.buffer:
            if self.retry is not None:
                raise Malformed("bytes after the retry block: %r" % self.buffer)
            if self.buffer.startswith(b"\n") and self.after_comment:
                self.buffer = self.buffer[1:]
                self.after_comment = False
            elif self.buffer.startswith(b":"):
                line, end, rest = self.buffer.partition(b"\n")
                if not end:
                    break
                if b"\r" in line or b"\0" in line:
                    raise Malformed("a comment with CR or NUL: %r" % line)
                self.comments.append((line, at))
                self.buffer = rest
                self.after_comment = True
            else:
                block, end, rest = self.buffer.partition(b"\n\n")
                if not end:
                    if len(self.buffer) > FRAME_MAX:
                        raise Malformed("a frame longer than %d" % FRAME_MAX)
                    break
                self.buffer = rest
                self.after_comment = False
                frame = self._block(block + end, at)
                if frame is not None:
                    frames.append(frame)
        return frames

    def _block(self, raw, at):
        match = RETRY.fullmatch(raw)
        if match:
            self.retry = int(match[1])
            if not 200 <= self.retry <= 1000:
                raise Malformed("retry: %d" % self.retry)
            if self.ended:
                raise Malformed("a retry block after the terminal frame")
            return None
        match = FRAME.fullmatch(raw)
        if not match or len(raw) > FRAME_MAX:
            raise Malformed("not a frame: %r" % raw[:300])
        if self.ended:
            raise Malformed("a frame after the terminal one: %r" % raw[:300])
        event, number = match[1].decode(), int(match[2])
        if self.next_id is not None and number != self.next_id:
            raise Malformed("id %d where %d was due" % (number, self.next_id))
        self.next_id = number + 1
        self.ended = event in TERMINAL
        return Frame(event, number, parse_json(match[3]), raw, at)

    def finish(self):
        if self.buffer:
            raise Malformed("the stream ends with a torn frame: %r"
                            % self.buffer[:300])


def parse_frames(data):
    """The frames of bytes that begin with id 0."""
    parser = Parser(0)
    frames = parser.feed(data, 0.0)
    parser.finish()
    return frames


# ---- HTTP/1.1 on a raw socket ----

class Response:
    """One request and its answer, whose body is read as it comes."""

    def __init__(self, port, method, target, headers=(), body=b"",
                 timeout=IO_TIMEOUT, receive_buffer=None):
        self.sent_at = time.monotonic()
        self.sock = socket.socket()
        self.sock.settimeout(timeout)
        if receive_buffer is not None:  # before the window is told
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                                 receive_buffer)
        self.sock.connect(("127.0.0.1", port))
        lines = ["%s %s HTTP/1.1" % (method, target), "Host: localhost"]
        lines += ["%s: %s" % pair for pair in headers]
        told = {name.lower() for name, _ in headers}
        if (body or method == "POST") and not told & {"content-length",
                                                      "transfer-encoding"}:
            lines.append("Content-Length: %d" % len(body))
        lines += ["Connection: close", "", ""]
        self.method = method
        self.buffer = b""
        self.eof = False     # of the connection
        self.whole = False   # the body ended as it should
        self.left = None     # bytes of the chunk, or of the body
        self.raw_request = "\r\n".join(lines).encode("latin-1") + body
        try:
            self.sock.sendall(self.raw_request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an early answer may still be read
        self.status = None

    def read_head(self):
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                raise ConnectionError("no answer: %r" % self.buffer[:200])
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.raw_head = head
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3})( .*)?", first)
        if not match:
            raise Malformed("status line %r" % first)
        self.status = int(match[1])
        self.headers = [tuple(line.split(": ", 1)) for line in lines]
        if any(len(pair) != 2 for pair in self.headers):
            raise Malformed("header lines %r" % lines)
        self.chunked = self.header("Transfer-Encoding") == "chunked"
        if self.method == "HEAD" or self.status in (204, 304):
            self.whole = True
        elif not self.chunked:
            length = self.header("Content-Length")
            self.left = int(length) if length is not None else None
            self.whole = self.left == 0
        return self

    def header(self, name):
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        if len(values) > 1:
            raise Malformed("header %s %d times" % (name, len(values)))
        return values[0] if values else None

    def _more(self):
        """Reads once; false at the end of the connection."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        self.eof = not data
        return not self.eof

    def read_some(self):
        """The next bytes of the body; b"" at its end, which is self.whole
        when it is not cut."""
        if self.status is None:
            self.read_head()
        while not self.whole:
            data = self._take()
            if data or self.whole:
                return data
            if not self._more():
                # Without chunks or a length the connection is the body.
                if not self.chunked and self.left is None:
                    self.whole = True
                return b""
        return b""

    def feed(self, data):
        """For who waits for many at once and receives from self.sock himself
        (b"" is the end): what this brings of the body."""
        self.buffer += data
        self.eof = not data
        if self.status is None:
            if b"\r\n\r\n" not in self.buffer and not self.eof:
                return b""
            self.read_head()
        return b"" if self.whole else self._take()

    def _take(self):
        if not self.chunked:
            data, self.buffer = self.buffer, b""
            if self.left is not None:
                self.left -= len(data)
                if self.left < 0:
                    raise Malformed("more bytes than Content-Length")
                self.whole = self.left == 0
            return data
        data = b""
        while self.buffer:
            if self.left is None:
                line, end, rest = self.buffer.partition(b"\r\n")
                if not end:
                    break
                if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", line):
                    raise Malformed("chunk size %r" % line[:40])
                self.left, self.buffer = int(line, 16), rest
            need = self.left + 2
            if self.left == 0 or len(self.buffer) >= need:
                if len(self.buffer) < need:
                    break
                data += self.buffer[:self.left]
                if self.buffer[self.left:need] != b"\r\n":
                    raise Malformed("no line end after a chunk")
                self.buffer = self.buffer[need:]
                self.whole = self.left == 0
                self.left = None
                if self.whole:
                    break
            else:
                # Of an unfinished chunk, all but its last byte, which comes
                # with the line end: nothing left means the last chunk.
                n = min(len(self.buffer), self.left - 1)
                data += self.buffer[:n]
                self.buffer = self.buffer[n:]
                self.left -= n
                break
        return data

    def read(self):
        parts = []
        while True:
            data = self.read_some()
            if not data:
                break
            parts.append(data)
        if not self.whole:
            raise Malformed("the answer is cut short")
        self.close()
        return b"".join(parts)

    def json(self):
        if self.status is None:
            self.read_head()
        data = self.read()
        check_equal(self.header("Content-Type"), "application/json",
                    "Content-Type")
        return parse_json(data)

    def close(self):
        self.sock.close()


class Stream:
    """An event stream that is being read."""

    def __init__(self, response, first_id=None):
        self.response = response
        self.parser = Parser(first_id)
        self.frames = []
        self.closed = False  # its end was seen
        if response.status is None:
            response.read_head()
        if response.status != 200:
            raise Malformed("status %d: %r" % (response.status,
                                               response.read()[:300]))
        check_equal(response.header("Content-Type"), "text/event-stream",
                    "Content-Type")

    @property
    def stream_id(self):
        return self.response.header("X-Stream-ID")

    @property
    def ended(self):
        return self.parser.ended

    def read_some(self):
        """Reads once; false at the end."""
        data = self.response.read_some()
        if not data:
            self.closed = True
            self.parser.finish()
            self.response.close()
            return False
        self.frames += self.parser.feed(data, time.monotonic())
        return True

    def read_until(self, predicate):
        """Reads until predicate(frames) holds; it must before the end."""
        while not predicate(self.frames):
            if not self.read_some():
                raise Malformed("the stream ended after %d frames"
                                % len(self.frames))
        return self

    def read_frames(self, count):
        return self.read_until(lambda frames: len(frames) >= count)

    def read_all(self, cut_ok=False):
        """Reads to the end: a terminal frame, and the end of the answer."""
        while self.read_some():
            pass
        if not cut_ok and not self.ended:
            raise Malformed("the stream ended without a terminal frame, "
                            "after %d frames" % len(self.frames))
        return self

    def bytes(self):
        return b"".join(frame.raw for frame in self.frames)

    def text(self):
        return "".join(frame.data["content"] for frame in self.frames
                       if frame.event == "message_chunk")

    def close(self):
        self.response.close()


# ---- waiting and comparing ----

def wait_until(predicate, seconds=10, what="it"):
    """Until predicate() is true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("%s did not happen within %g s"
                                 % (what, seconds))
        time.sleep(0.005)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def check_equal(got, want, what):
    if got != want:
        raise AssertionError("%s: got %.600r, want %.600r" % (what, got, want))


def in_threads(count, work):
    """Runs work(0) ... work(count - 1) at once; fails with the first faults."""
    faults = []

    def run(number):
        try:
            work(number)
        except Exception as e:  # told by the main thread
            faults.append("%d: %s: %s" % (number, type(e).__name__, e))

    threads = [threading.Thread(target=run, args=(n,), daemon=True)
               for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not faults, "%d of %d failed: %s"
          % (len(faults), count, "; ".join(faults[:3])))


def check_soon(attempt, bound, what):
    """attempt() returns the seconds that what took.  The fastest of five must
    be under bound: a busy machine slows some down, a mistake all."""
    took = []
    while not took or min(took) >= bound:
        if len(took) == 5:
            raise AssertionError("%s took %s s, the bound is %g s" % (
                what, ", ".join("%.3f" % t for t in took), bound))
        took.append(attempt())


# ---- processes ----

def _has_environment(pid, entry):
    try:
        with open("/proc/%s/environ" % pid, "rb") as f:
            return entry in f.read().split(b"\0")
    except OSError:
        return False  # has gone, or is another user's


def _program(pid):
    try:
        exe = os.readlink("/proc/%s/exe" % pid)
    except OSError:
        return ""
    name = os.path.basename(exe.removesuffix(" (deleted)"))
    if name == "respool.cgi":  # as apache/htaccess.in has it
        name = "respool.fcgi"
    if name.startswith("memcheck-"):  # valgrind runs it
        with open("/proc/%s/cmdline" % pid, "rb") as f:
            names = map(os.path.basename, f.read().decode().split("\0"))
        name = next((n for n in names if n in PROGRAMS), name)
    return name


def fill(directory):
    """Writes there until nothing fits; the file's path."""
    path = os.path.join(directory, "filler")
    with open(path, "ab", buffering=0) as f:
        for size in (65536, 4096, 256, 1):
            try:
                while True:
                    f.write(b"x" * size)
            except OSError:
                pass  # full, for pieces of this size
    return path


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def is_gone(pid):
    """Has ended; one that only its parent still has to take note of has."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as f:
            return f.read().rpartition(b")")[2].split()[0] in b"ZX"
    except OSError:
        return True


def is_sanitized(program):
    """Built with sanitizers, which take memory and time of their own."""
    with open(program, "rb") as f:
        data = f.read()
    return b"__asan_init" in data or b"__tsan_init" in data


# ---- a server ----

_servers = []


class Server:
    """A lighttpd on a free port of 127.0.0.1, from the shipped configuration,
    with responders, a spool, a models file and a log of its own.  As root all
    of it runs as www-data, where there is one."""

    needs = ("lighttpd",)

    def __init__(self, models=None, settings=None, procs=2, environment=None):
        self.procs = procs
        self.lighttpd = None
        self.user = self._find_user()
        self.run = tempfile.mkdtemp(prefix="respool-e2e.")
        os.chmod(self.run, 0o700)
        _servers.append(self)
        self.spool = os.path.join(self.run, "spool")
        self.log_file = os.path.join(self.run, "respool.log")
        # Copies, as that user may not be able to enter the build directory.
        self.bin = os.path.join(self.run, "bin")
        os.mkdir(self.bin)
        os.mkdir(os.path.join(self.run, "www"))
        for name in PROGRAMS:
            shutil.copy(os.path.join(BUILD, name), self.bin)
        shutil.copytree(os.path.join(SOURCE, "static", "magic"),
                        os.path.join(self.run, "magic"))
        self.env = self._environment(settings or {}, environment or {})
        if models is not None:
            self.write_models(models)
        if self.user:
            for path in [self.run] + glob.glob(self.run + "/**",
                                               recursive=True):
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
        self._skip_what_is_not_built()
        self.start()

    def _skip_what_is_not_built(self):
        """Without libcurl or libjwt there is no test of what needs it."""
        said = subprocess.run([self.bin + "/respool.fcgi", "-t"], env=self.env,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              check=False).stderr
        if b"was built without" in said:
            print("%s: skipped" % said.decode().strip())
            sys.exit(77)

    @staticmethod
    def _find_user():
        if os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam("www-data")
        except KeyError:
            return None

    def _environment(self, settings, environment):
        env = {name: value for name, value in os.environ.items()
               if not name.startswith("RESPOOL_")}
        env.update({
            "RESPOOL_SPOOL_DIR": self.spool,
            "RESPOOL_STATIC_DIR": os.path.join(self.run, "magic"),
            "RESPOOL_SPOOLER_PROGRAM": self._spooler(),
            "RESPOOL_LOG_FILE": self.log_file,
            "RESPOOL_LOG_LEVEL": "debug",
        })
        env.update({"RESPOOL_" + name.upper(): str(value)
                    for name, value in settings.items()})
        env.update(environment)
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
            env[name] = self._sanitizer_options()
        return env

    def _sanitizer_options(self):
        return "print_stacktrace=1:log_path=%s/sanitizer" % self.run

    def _spooler(self):
        """A spooler gets a clean environment and no stderr: where it is built
        with sanitizers, a script tells them where to write."""
        program = os.path.join(self.bin, "respool-spooler")
        if not is_sanitized(program):
            return program
        script = os.path.join(self.bin, "spooler.sh")
        with open(script, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\nASAN_OPTIONS='%s' UBSAN_OPTIONS='%s' "
                    "TSAN_OPTIONS='%s' exec '%s' \"$@\"\n" %
                    ((self._sanitizer_options(),) * 3 + (program,)))
        os.chmod(script, 0o755)
        return script

    def write_models(self, models):
        path = os.path.join(self.run, "models.json")
        with open(path + ".new", "w", encoding="utf-8") as f:
            json.dump(models, f)
        os.chmod(path + ".new", 0o644)
        os.rename(path + ".new", path)
        self.env["RESPOOL_MODELS_FILE"] = path

    # -- starting and stopping --

    def marks(self):
        """What stands in the shipped configurations for what is ours."""
        return {"PORT": self.port, "RUN": self.run, "PROCS": self.procs,
                "RESPOOL": self.bin + "/respool.fcgi", "BIN": self.bin,
                "BASE": "", "USERNAME": self.username()}

    def username(self):
        """The line that says as whom the web server serves."""
        return ('server.username = "%s"' % self.user.pw_name
                if self.user else "")

    def fill_in(self, template, name=None):
        """Writes a shipped configuration to the run directory; its path."""
        with open(os.path.join(SOURCE, template + ".in"),
                  encoding="utf-8") as f:
            text = f.read()
        for mark, value in self.marks().items():
            text = text.replace("@%s@" % mark, str(value))
        path = os.path.join(self.run, name or os.path.basename(template))
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def command(self):
        """Writes the configuration; what starts the web server with it, as
        a process that stays and that a SIGTERM ends."""
        self.fill_in("lighttpd/respool.conf")
        return ["lighttpd", "-D", "-f", self.fill_in("lighttpd/demo.conf")]

    def start(self):
        for _ in range(5):  # somebody else may take the port before us
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                self.port = s.getsockname()[1]
            command = self.command()
            with open(os.path.join(self.run, "server.log"), "ab") as log:
                self.lighttpd = subprocess.Popen(
                    command, env=self.env,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True)
            if wait_until(self._answers, 20, "an answer of /health") == 200:
                return
            self.lighttpd.wait()
        raise AssertionError("%s does not start:\n%s" % (
            command[0], self.lighttpd_log()))

    def _answers(self):
        """200, or -1 when lighttpd has ended."""
        if self.lighttpd.poll() is not None:
            return -1
        try:
            response = self.request("GET", "/health", timeout=5)
            response.read_head()
            response.close()
        except OSError:
            return None
        return 200 if response.status == 200 else None

    def pids(self, program=None):
        """Of this spool's processes, of one program or of all three."""
        entry = b"RESPOOL_SPOOL_DIR=" + self.spool.encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and _has_environment(name, entry):
                exe = _program(name)
                if exe == program or (program is None and exe in PROGRAMS):
                    if not is_gone(int(name)):
                        found.append(int(name))
        return found

    def responders(self):
        return self.pids("respool.fcgi")

    def spoolers(self):
        return self.pids("respool-spooler")

    def kill_all(self, program):
        """kill -9 of every process of a program; their pids."""
        pids = self.pids(program)
        for pid in pids:
            kill(pid, signal.SIGKILL)
        wait_until(lambda: all(is_gone(pid) for pid in pids), 5,
                   "the end of " + program)
        return pids

    def stop(self):
        """Ends everything; what the sanitizers wrote, or ""."""
        if self.lighttpd is not None:
            kill(self.lighttpd.pid, signal.SIGTERM)
        # A second SIGTERM ends a spooler at once.
        for deadline, number in ((4, signal.SIGTERM), (4, signal.SIGKILL)):
            deadline += time.monotonic()
            while time.monotonic() < deadline:
                pids = self.pids()
                if self.lighttpd is not None:
                    if self.lighttpd.poll() is None:
                        pids.append(self.lighttpd.pid)
                if not pids:
                    break
                for pid in pids:
                    kill(pid, number)
                time.sleep(0.05)
        if self.lighttpd is not None:  # children that were stuck
            try:
                os.killpg(self.lighttpd.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        report = ""
        for path in glob.glob(os.path.join(self.run, "sanitizer.*")):
            with open(path, encoding="utf-8", errors="replace") as f:
                report += f.read()
        shutil.rmtree(self.run, ignore_errors=True)
        if self in _servers:
            _servers.remove(self)
        return report

    def ctl(self, *arguments):
        """Runs respoolctl; its exit status, output and errors are texts."""
        return subprocess.run(
            [os.path.join(self.bin, "respoolctl"), *arguments], env=self.env,
            cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", timeout=IO_TIMEOUT, check=False)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.show_logs()
        report = self.stop()
        if report and error is None:
            raise AssertionError("a sanitizer found:\n" + report)

    # -- requests --

    def request(self, method, target, headers=(), body=b"",
                timeout=IO_TIMEOUT, **options):
        return Response(self.port, method, target, headers, body, timeout,
                        **options)

    def get(self, path, params=None, headers=()):
        """params: a dict, or pairs; the values str or bytes."""
        target = path + ("?" + urlencode(params) if params else "")
        return self.request("GET", target, headers).read_head()

    def post(self, path, value=None, headers=()):
        body = b"" if value is None else json.dumps(value).encode()
        headers = [("Content-Type", "application/json"), *headers]
        return self.request("POST", path, headers, body).read_head()

    def start_stream(self, **fields):
        """POSTs to /api/v1/stream; the stream, to be read from id 0."""
        body = json.dumps(fields).encode()
        response = self.request(
            "POST", "/api/v1/stream", [("Content-Type", "application/json")],
            body)
        return Stream(response, 0)

    def resume(self, after, by="header", **fields):
        """GETs what comes after an id, by "header" or by "parameter"."""
        headers = []
        if by == "header":
            headers.append(("Last-Event-ID", str(after)))
        else:
            fields["last_event_id"] = after
        target = "/api/v1/stream?" + urlencode(fields)
        return Stream(self.request("GET", target, headers), after + 1)

    # -- what is on the disk --

    def stream_path(self, stream_id, user_id="anonymous"):
        owner = hashlib.sha256(user_id.encode()).hexdigest()[:16]
        name = "%s-%s.sse" % (owner, stream_id)
        shard = hashlib.sha256(name.encode()).hexdigest()[:2]
        return os.path.join(self.spool, "streams", shard, name)

    def stream_bytes(self, stream_id, user_id="anonymous"):
        """The frames of a stream's file, without its head."""
        with open(self.stream_path(stream_id, user_id), "rb") as f:
            data = f.read()
        match = HEAD.match(data)
        if not match:
            raise Malformed("no head: %r" % data[:200])
        parse_json(match[1])
        return data[match.end():]

    def stream_frames(self, stream_id, user_id="anonymous"):
        return parse_frames(self.stream_bytes(stream_id, user_id))

    def stream_files(self):
        return sorted(glob.glob(os.path.join(self.spool, "streams/*/*")))

    def usage_lines(self, kind=None, stream_id=None):
        lines = []
        for path in sorted(glob.glob(os.path.join(self.spool,
                                                  "usage/*.jsonl"))):
            with open(path, "rb") as f:
                # Two spoolers at once may leave an empty one.
                lines += [parse_json(line) for line in f if line != b"\n"]
        return [line for line in lines
                if kind in (None, line["type"]) and
                stream_id in (None, line.get("stream_id"))]

    def snapshot_of_disk(self):
        """Name and content of all that a request could have written."""
        content = {}
        for path in self.stream_files() + glob.glob(self.spool + "/usage/*"):
            with open(path, "rb") as f:
                content[path] = f.read()
        return content

    def log(self):
        try:
            with open(self.log_file, encoding="utf-8") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def follows(self, stream_id, what="started"):
        """The pid of each follow of a stream that has started (or ended), in
        order, from the log."""
        pattern = re.compile(r" follow stream=%s %s pid=([0-9]+) "
                             % (re.escape(stream_id), what))
        return [int(match[1]) for match in map(pattern.search, self.log())
                if match]

    def lighttpd_log(self):
        with open(os.path.join(self.run, "server.log"),
                  encoding="utf-8", errors="replace") as f:
            return f.read()

    def show_logs(self):
        print("---- respool's log\n%s\n---- lighttpd's log\n%s----" % (
            "\n".join(self.log()[-40:]), self.lighttpd_log()[-2000:]))


# ---- the runner ----

_tests = []


def test(function):
    _tests.append(function)
    return function


def _stop_servers():
    for server in list(_servers):
        server.stop()


def _on_alarm(number, frame):
    raise TimeoutError("the test took more than %d s" % TEST_TIMEOUT)


def _run_one(function, server):
    """True when it passed."""
    name = function.__name__.replace("_", " ")
    signal.alarm(TEST_TIMEOUT)
    began = time.monotonic()
    try:
        function(server)
    except Exception:  # whatever it is, the others still run
        print("FAIL  %s" % name)
        traceback.print_exc(file=sys.stdout)
        server.show_logs()
        return False
    finally:
        signal.alarm(0)
    print("ok    %s (%.1f s)" % (name, time.monotonic() - began))
    return True


def set_up(needs=()):
    """What every main program does first: skips the test where a program is
    missing that it needs, and sees to it that no server stays behind."""
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    sys.stdout.reconfigure(line_buffering=True)
    for name in needs:
        if shutil.which(name) is None:
            print("%s is not installed: skipped" % name)
            sys.exit(77)
    for name in PROGRAMS:
        if not os.access(os.path.join(BUILD, name), os.X_OK):
            sys.exit("%s/%s is not built; RESPOOL_BUILD tells where it is"
                     % (BUILD, name))
    atexit.register(_stop_servers)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))


def main(server_class=Server, **arguments):
    """Runs the tests (those whose names hold a word of the command line, when
    there are any) on one server, and exits."""
    set_up(server_class.needs)
    signal.signal(signal.SIGALRM, _on_alarm)
    words = sys.argv[1:]
    tests = [function for function in _tests
             if not words or any(w in function.__name__ for w in words)]
    with server_class(**arguments) as server:
        failures = sum(not _run_one(function, server) for function in tests)
        report = server.stop()
    errors = 0
    if report:
        errors = 1
        print("ERROR a sanitizer found:\n" + report)
    checks = len(tests) + errors
    passed = 100 * (checks - failures - errors) // checks if checks else 100
    print("%d%%: Checks: %d, Failures: %d, Errors: %d"
          % (passed, checks, failures, errors))
    sys.exit(1 if failures or errors else 0)

