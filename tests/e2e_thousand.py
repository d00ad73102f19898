#!/usr/bin/env -S python3 -B
"""A thousand answers at once, from one spooler: none is lost, and none gets
another's words.  Over HTTP/1.1 each has a connection of its own; over HTTP/2
(nginx) they share a few, and keep them."""

import collections
import os
import resource
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import e2e
import upstream

WORDS = 10
PER_CONNECTION = 128
DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
SANITIZED = e2e.is_sanitized(os.path.join(e2e.BUILD, "respool-spooler"))
COUNT = min(300 if SANITIZED else 1000, DESCRIPTORS // 4)

NGINX = """
daemon off;
worker_processes 1;
pid %(run)s/nginx.pid;
error_log %(run)s/error.log;
events { worker_connections 8192; }
http {
	log_format connections '$connection $server_protocol $status';
	access_log %(run)s/access.log connections;
	client_body_temp_path %(run)s/body;
	proxy_temp_path %(run)s/proxy;
	fastcgi_temp_path %(run)s/fastcgi;
	uwsgi_temp_path %(run)s/uwsgi;
	scgi_temp_path %(run)s/scgi;
	server {
		listen 127.0.0.1:%(port)d ssl http2 backlog=4096;
		ssl_certificate %(certificate)s;
		ssl_certificate_key %(key)s;
		http2_max_concurrent_streams %(streams)d;
		keepalive_requests 100000;
		location / {
			proxy_pass %(url)s;
			proxy_http_version 1.1;
			proxy_buffering off;
			proxy_read_timeout 300;
		}
	}
}
"""


def words(message):
    return ["%s:%d " % (message, n) for n in range(WORDS)]


def together(x):
    """Its first word, and the others when all have begun."""
    first, *rest = words(x.message)
    x.head()
    x.write(upstream.text(first))
    GATES[x.message.split("-")[0]].wait()
    for word in rest:
        x.write(upstream.text(word))
    x.write(upstream.END)
    x.end()


class Gate:
    """Lets nobody through before COUNT have come."""

    def __init__(self):
        self.come = 0
        self.lock = threading.Lock()
        self.open = threading.Event()

    def wait(self):
        with self.lock:
            self.come += 1
            if self.come == COUNT:
                self.open.set()
        self.open.wait(120)


GATES = {"a": Gate(), "b1": Gate(), "b2": Gate()}
UP = upstream.Upstream({"together": together})


class Front:
    """An nginx that speaks TLS and HTTP/2 before the upstream."""

    def __init__(self, folder):
        self.folder = folder
        authority = upstream.make_authority(folder)
        self.ca_file = authority[0]
        pair = upstream.make_certificate(folder, authority, "IP:127.0.0.1")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        path = os.path.join(folder, "nginx.conf")
        with open(path, "w", encoding="ascii") as f:
            f.write(NGINX % {
                "run": folder, "port": port, "url": UP.url,
                "certificate": pair[0], "key": pair[1],
                "streams": PER_CONNECTION})
        self.url = "https://127.0.0.1:%d" % port
        self.process = subprocess.Popen(
            ["nginx", "-p", folder, "-e", os.path.join(folder, "error.log"),
             "-c", path], stdin=subprocess.DEVNULL)
        e2e.wait_until(lambda: self._listens(port), 20, "nginx's start")

    def _listens(self, port):
        e2e.check(self.process.poll() is None, "nginx has ended")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def requests(self):
        """(connection, protocol, status) of each that has ended."""
        with open(os.path.join(self.folder, "access.log"),
                  encoding="ascii") as f:
            return [line.split() for line in f]

    def stop(self):
        self.process.terminate()
        self.process.wait()


def read_all(responses):
    """All of them, as they come: their streams."""
    streams, waiting = [], selectors.DefaultSelector()
    for response in responses:
        waiting.register(response.sock, selectors.EVENT_READ, response)
    bodies = collections.defaultdict(bytes)
    while waiting.get_map():
        ready = waiting.select(e2e.IO_TIMEOUT * 4)
        e2e.check(ready, "silence, %d are not ended" % len(waiting.get_map()))
        for key, _ in ready:
            response = key.data
            bodies[response] += response.feed(response.sock.recv(65536))
            if response.whole or response.eof:
                waiting.unregister(response.sock)
                response.close()
    for response in responses:
        e2e.check(response.whole, "an answer that is cut short")
        e2e.check_equal(response.status, 200, "status of %.200r"
                        % bodies[response])
        streams.append(e2e.parse_frames(strip_comments(bodies[response])))
    return streams


def strip_comments(body):
    return b"".join(block + b"\n\n" for block in body.split(b"\n\n")
                    if block and not block.startswith(b":"))


def ask_all(server, model, prefix):
    server.start_stream(message="wake up", model="demo").read_all()
    began = time.monotonic()
    responses = []
    for n in range(COUNT):
        responses.append(server.request(
            "POST", "/api/v1/stream",
            [("Content-Type", "application/x-www-form-urlencoded")],
            ("message=%s%d&model=%s" % (prefix, n, model)).encode(),
            timeout=120))
    for n, frames in enumerate(read_all(responses)):
        message = "%s%d" % (prefix, n)
        e2e.check_equal(frames[-1].data.get("error_type"), None, message)
        text = "".join(f.data["content"] for f in frames
                       if f.event == "message_chunk")
        e2e.check_equal(text, "".join(words(message)), message)
    print("%d streams in %.1f s" % (COUNT, time.monotonic() - began))


def serve(url, **settings):
    models = {"default": "m", "models": {
        "demo": {"provider": "demo"},
        "m": dict(UP.model("together"), base_url=url + "/together",
                  timeouts={"first_content": 300, "idle": 300})}}
    return e2e.Server(models=models, settings={
        "max_streams": COUNT, "log_level": "info", **settings})


@e2e.test
def each_has_a_connection_of_its_own_over_http_1(_):
    with serve(UP.url) as server:
        ask_all(server, "m", "a-")
        asked = UP.exchanges("together")
        e2e.check_equal((len(asked), len({x.connection for x in asked})),
                        (COUNT, COUNT), "requests and connections")
        e2e.check_equal(len(server.spoolers()), 1, "spoolers")


@e2e.test
def they_share_and_keep_a_few_connections_over_http_2(_):
    for name in ("nginx", "openssl"):
        if shutil.which(name) is None:
            print("no %s: HTTP/2 not tested" % name)
            return
    with tempfile.TemporaryDirectory(prefix="respool-e2e.") as folder:
        os.chmod(folder, 0o755)
        front = Front(folder)
        os.chmod(front.ca_file, 0o644)
        try:
            with serve(front.url, ca_file=front.ca_file) as server:
                for turn in (1, 2):
                    ask_all(server, "m", "b%d-" % turn)
                    e2e.wait_until(
                        lambda: len(front.requests()) == turn * COUNT, 30,
                        "nginx's log")
        finally:
            front.stop()
        requests = front.requests()
        e2e.check_equal({tuple(r[1:]) for r in requests},
                        {("HTTP/2.0", "200")}, "protocol and status")
        used = len({r[0] for r in requests})
        least = -(-COUNT // PER_CONNECTION)
        e2e.check(least <= used <= least + 2, "%d connections" % used)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    e2e.main(models={"default": "d", "models": {"d": {"provider": "demo"}}})
