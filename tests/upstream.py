"""upstream.py - a model's server for tests: does what a script says, to the
byte, and records what it saw.

A script is a function of an Exchange, which is one request and what is made
of it; it runs in the thread of its connection.  The first part of a request's
path names the script:

    def hello(x):
        x.head()
        x.write(upstream.text("hello"), upstream.END)
        x.end()

    UP = upstream.Upstream({"hello": hello})
    models = {"hello": UP.model("hello")}
    ...
    UP.exchanges("hello")

Python's standard library only."""

import collections
import contextlib
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import threading
import time

HOLD_MAX = 120  # seconds that a script waits for something


class Gone(Exception):
    """The other side has closed the connection."""


def event(value):
    return b"data: %s\n\n" % json.dumps(value).encode()


def text(content):
    """An event of chat completions with some content."""
    return event({"choices": [{"index": 0, "delta": {"content": content}}]})


def usage(prompt, completion):
    return event({"choices": [], "usage": {
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion}})


STOP = event({"choices": [{"index": 0, "delta": {},
                           "finish_reason": "stop"}]})
DONE = b"data: [DONE]\n\n"
END = STOP + usage(3, 7) + DONE


# ---- write patterns ----

def _seams(data):
    """Cut inside each character of several bytes, and between CR and LF."""
    cuts = [at for at in range(1, len(data))
            if data[at] & 0xc0 == 0x80 or data[at - 1:at + 1] == b"\r\n"]
    return [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]


def _every(size):
    return lambda data: [data[at:at + size]
                         for at in range(0, len(data), size)]


PATTERNS = {
    "whole": lambda data: [data], "bytes": _every(1), "sevens": _every(7),
    "packets": _every(1460), "seams": _seams,
}


# ---- one request ----

class Exchange:
    """A request; what it got is noted in writes, as (time, bytes)."""

    def __init__(self, owner, sock, connection, nth_of_connection):
        self.upstream = owner
        self.sock = sock
        self.connection = connection  # its number
        self.nth_of_connection = nth_of_connection
        self.at = None          # when its head had come
        self.method = self.target = self.name = None
        self.headers = {}       # names in lower case
        self.body = b""
        self.message = None     # the last one of chat completions
        self.nth = 0            # of its script with this message
        self.writes = []
        self.gone_at = None     # when the other side had closed
        self.close_after = False
        self.chunked = True

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def sent(self):
        return sum(size for _, size in self.writes)

    # -- what scripts do --

    def raw(self, data):
        """These bytes, unless the other side has gone."""
        if self.is_gone():
            raise Gone
        try:
            self.sock.sendall(data)
        except OSError:
            self._note_gone()
            raise Gone from None
        self.writes.append((time.monotonic(), len(data)))

    def head(self, status=200, kind="text/event-stream", headers=(),
             chunked=True):
        """chunked: else the headers say how long the body is, or the end of
        the connection does."""
        self.chunked = chunked
        lines = ["HTTP/1.1 %d Whatever" % status]
        if kind:
            lines.append("Content-Type: " + kind)
        lines += ["%s: %s" % pair for pair in headers]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        self.raw("\r\n".join(lines + ["", ""]).encode("latin-1"))

    def write(self, *parts):
        """One HTTP chunk in one write; an empty one would be the last."""
        data = b"".join(parts)
        if data:
            self.raw(b"%x\r\n%s\r\n" % (len(data), data)
                     if self.chunked else data)

    def end(self):
        if self.chunked:
            self.raw(b"0\r\n\r\n")
        else:
            self.close_after = True

    def refuse(self, status, body=b"", headers=(), kind="application/json"):
        self.head(status, kind,
                  [*headers, ("Content-Length", str(len(body)))], False)
        if body:
            self.write(body)

    def close(self):
        """FIN; what it has not got is cut off."""
        self.close_after = True

    def reset(self):
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                             struct.pack("ii", 1, 0))
        self.close_after = True

    def is_gone(self, seconds=0):
        """The other side closes its end within that time.  Of who does, it
        says nothing else."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if self.gone_at is None and poll.poll(seconds * 1000):
            try:
                if not self.sock.recv(65536):
                    self._note_gone()
            except OSError:
                self._note_gone()
        return self.gone_at is not None

    def hold(self):
        """Says nothing until the other side goes."""
        deadline = time.monotonic() + HOLD_MAX
        while not self.is_gone(1) and time.monotonic() < deadline:
            pass
        raise Gone

    def pause(self, seconds):
        if self.is_gone(seconds):
            raise Gone

    def _note_gone(self):
        with self.upstream.news:
            self.gone_at = time.monotonic()
            self.upstream.news.notify_all()


def _read_request(x, reader):
    """False: there is none."""
    line = reader.readline()
    if not line:
        return False
    x.method, x.target, _ = line.decode("latin-1").split(" ", 2)
    while True:
        line = reader.readline().decode("latin-1").rstrip("\r\n")
        if not line:
            break
        name, _, value = line.partition(":")
        x.headers[name.lower()] = value.strip()
    x.body = reader.read(int(x.headers.get("content-length", 0)))
    x.name = x.target.split("/")[1]
    x.at = time.monotonic()
    with contextlib.suppress(ValueError, KeyError):
        x.message = x.json["messages"][-1]["content"]
    return True


class Upstream:
    """Listens on a free port of 127.0.0.1.  scripts: name -> function, to
    which a test may add.  tls: (certificate, key), files in PEM."""

    def __init__(self, scripts, tls=None):
        self.scripts = scripts
        self.news = threading.Condition()
        self._exchanges = []
        self._counts = collections.Counter()
        self.connections = 0
        self._tls = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*tls)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(4096)
        self.port = self._listener.getsockname()[1]
        self.url = "http%s://127.0.0.1:%d" % ("s" if tls else "", self.port)
        threading.Thread(target=self._accept, daemon=True).start()

    def model(self, name, provider="openai", retries=0, **fields):
        """An entry of the models file."""
        return {"provider": provider, "base_url": "%s/%s" % (self.url, name),
                "retries": retries, **fields}

    def exchanges(self, name=None, message=None):
        """Those so far, in order."""
        with self.news:
            return [x for x in self._exchanges
                    if name in (None, x.name) and
                    message in (None, x.message)]

    def wait(self, predicate, what, seconds=30):
        """Until predicate() holds, which is asked when something has come,
        ended or gone."""
        with self.news:
            if not self.news.wait_for(predicate, seconds):
                raise AssertionError("%s did not happen within %g s"
                                     % (what, seconds))

    def wait_gone(self, x, seconds=30):
        """Until x has seen the other side close; when that was."""
        self.wait(lambda: x.gone_at is not None, "the upstream's end", seconds)
        return x.gone_at

    def _accept(self):
        while True:
            sock, _ = self._listener.accept()
            self.connections += 1
            threading.Thread(target=self._serve, daemon=True,
                             args=(sock, self.connections)).start()

    def _serve(self, sock, connection):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock, sock.makefile("rb") as reader:
                nth = 0
                while self._serve_one(sock, reader, connection, nth):
                    nth += 1
        except OSError:
            pass  # gone in the middle of a handshake or a request
        finally:
            # Here, and not when the last reference goes.
            sock.close()

    def _serve_one(self, sock, reader, connection, nth):
        x = Exchange(self, sock, connection, nth)
        if not _read_request(x, reader):
            return False
        with self.news:
            x.nth = self._counts[x.name, x.message]
            self._counts[x.name, x.message] += 1
            self._exchanges.append(x)
            self.news.notify_all()
        try:
            self.scripts[x.name](x)
        except Gone:
            x.close_after = True
        return not x.close_after


# ---- certificates ----

def _openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.PIPE)


def make_authority(folder):
    """(certificate, key) of a certificate authority."""
    pair = os.path.join(folder, "ca.pem"), os.path.join(folder, "ca.key")
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
             "/CN=respool test authority", "-out", pair[0], "-keyout", pair[1])
    return pair


def make_certificate(folder, authority, name):
    """(certificate, key) for a host: "IP:127.0.0.1", "DNS:..."."""
    base = os.path.join(folder, name.replace(":", "-"))
    pair = base + ".pem", base + ".key"
    extensions = base + ".ext"
    with open(extensions, "w", encoding="ascii") as f:
        f.write("subjectAltName=%s\n" % name)
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=respool test", "-out", base + ".csr",
             "-keyout", pair[1])
    _openssl("x509", "-req", "-in", base + ".csr", "-CA", authority[0],
             "-CAkey", authority[1], "-CAcreateserial", "-days", "2",
             "-extfile", extensions, "-out", pair[0])
    return pair
