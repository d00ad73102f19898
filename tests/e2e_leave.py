#!/usr/bin/env -S python3 -B
"""The client leaves, or says stop: behind lighttpd, nginx and Apache."""

import functools
import os
import re
import shutil
import socket
import subprocess
import time

import e2e
import servers

MODELS = {
    "default": "twenty",
    "models": {
        "twenty": {"provider": "demo", "chunks": 20, "interval_ms": 50},
        "hangs": {"provider": "demo", "chunks": 20, "hang_after": 1},
        "endless": {"provider": "demo", "chunks": 100000, "interval_ms": 20,
                    "prices": {"input": 150000, "output": 600000}},
        "slow start": {"provider": "demo", "chunks": 3, "first_ms": 600000},
    },
}
# No frames but the model's; comments every second.
SETTINGS = {"heartbeat": 300, "keepalive": 1}
COMMENT = b": keep-alive\n\n"


# ---- web servers before responders that spawn-fcgi has started ----

class Lighttpd(e2e.Server):
    """Responder N listens on RUN/responder-N.sock; the header X-Process has
    its number."""

    needs = ("lighttpd", "spawn-fcgi")

    def __init__(self, procs=1):
        self.spawned = []
        super().__init__(models=MODELS, procs=procs, settings=SETTINGS)

    def start(self):
        for number in range(self.procs):
            self._spawn("%s/responder-%d.sock" % (self.run, number))
        super().start()

    def _spawn(self, path):
        command = ["spawn-fcgi", "-n", "-s", path, "-M", "0660"]
        if self.user:
            command += ["-u", self.user.pw_name, "-g", str(self.user.pw_gid)]
        with open(os.path.join(self.run, "server.log"), "ab") as log:
            self.spawned.append(subprocess.Popen(
                command + ["--", self.bin + "/respool.fcgi"], env=self.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True))
        e2e.wait_until(lambda: self._listens(path), 10, path)

    @staticmethod
    def _listens(path):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(path) == 0

    def stop(self):
        report = super().stop()
        for process in self.spawned:
            process.wait()
        return report

    def configure(self, text, **values):
        """The file with this text."""
        values.update(RUN=self.run, PORT=self.port)
        for name, value in values.items():
            text = text.replace("@%s@" % name, str(value))
        path = os.path.join(self.run, "server.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def command(self):
        text = LIGHTTPD_CONF
        if self.user:
            text += 'server.username = "%s"\n' % self.user.pw_name
        for number in range(self.procs):
            text += ('$REQUEST_HEADER["X-Process"] == "%d" {\n%s}\n' %
                     (number, LIGHTTPD_RESPONDER % number))
        return ["lighttpd", "-D", "-f", self.configure(text)]


LIGHTTPD_RESPONDER = """
fastcgi.server = ( "/" => ((
  "socket"      => "@RUN@/responder-%d.sock",
  "check-local" => "disable",
  "fix-root-scriptname" => "enable"
)) )
"""
LIGHTTPD_CONF = """
server.bind          = "127.0.0.1"
server.port          = @PORT@
server.document-root = "@RUN@/www"
server.modules       = ( "mod_fastcgi" )
server.stream-response-body = 2
""" + LIGHTTPD_RESPONDER % 0


class Nginx(servers.Nginx):
    def __init__(self):  # no write is needed
        super().__init__(models=MODELS, settings=dict(SETTINGS,
                                                      keepalive=300))


class Apache(servers.ApacheProxy):
    def __init__(self):
        super().__init__(models=MODELS, settings=SETTINGS)


def behind(server_class, **arguments):
    """Gives the test such a server in place of the runner's, and skips it
    where that is not installed."""
    def decorate(function):
        @functools.wraps(function)
        def run(_):
            for name in server_class.needs:
                if not (shutil.which(name) or os.path.exists(name)):
                    print("skip  the next one: there is no " + name)
                    return
            with server_class(**arguments) as server:
                function(server)
        return e2e.test(run)
    return decorate


# ---- leaving ----

def follow_end(server, sid):
    """Why the first follow of a stream ended, and what it wrote."""
    pattern = re.compile(r" follow stream=%s ended pid=[0-9]+ reason=(\S+) "
                         r"frames=([0-9]+) bytes=([0-9]+) " % sid)
    for line in server.log():
        match = pattern.search(line)
        if match:
            return match[1], int(match[2]), int(match[3])
    return None


def comments_until_noticed(server):
    """How many comments are written to a client that left a silent stream
    before that shows: the answer is in the log, not in the time it took."""
    stream = server.start_stream(message="x", model="hangs").read_frames(1)
    sid = stream.stream_id
    stream.close()
    reason, frames, size = e2e.wait_until(lambda: follow_end(server, sid), 20,
                                          "the end of the follow")
    e2e.check_equal((reason, frames), ("client_left", 1), "its end")
    count, rest = divmod(size - len(server.stream_bytes(sid)), len(COMMENT))
    e2e.check_equal(rest, 0, "bytes that are no comments")
    e2e.check(server.stream_frames(sid)[-1].event == "message_chunk",
              "the stream has ended")
    return count


def check_generation_goes_on(server):
    stream = server.start_stream(message="x", model="twenty").read_frames(1)
    sid, got = stream.stream_id, stream.bytes()
    last_id = stream.frames[-1].id
    e2e.check(last_id < 19, "it was too late to leave")
    stream.close()
    e2e.wait_until(lambda: b"event: done\n" in server.stream_bytes(sid), 20,
                   "the end of the stream")
    frames = server.stream_frames(sid)
    e2e.check_equal([f.data["content"] for f in frames[:-1]],
                    ["tok%d " % i for i in range(20)], "chunks")
    e2e.check_equal((frames[-1].event, frames[-1].data["finish_reason"]),
                    ("done", "stop"), "the last frame")
    rest = server.resume(last_id, stream_id=sid).read_all()
    e2e.check_equal(got + rest.bytes(), server.stream_bytes(sid),
                    "both parts")


@e2e.test
def lighttpd_shows_at_the_first_write_that_the_client_left(server):
    count = comments_until_noticed(server)
    e2e.check(count <= 1, "it took %d comments" % count)


@behind(Nginx)
def nginx_shows_without_a_write_that_the_client_left(server):
    e2e.check_equal(comments_until_noticed(server), 0, "comments")


@behind(Apache)
def apache_shows_at_the_second_write_that_the_client_left(server):
    count = comments_until_noticed(server)
    e2e.check(count <= 2, "it took %d comments" % count)


@e2e.test
def the_generation_goes_on_behind_lighttpd(server):
    check_generation_goes_on(server)


@behind(Nginx)
def the_generation_goes_on_behind_nginx(server):
    check_generation_goes_on(server)


@behind(Apache)
def the_generation_goes_on_behind_apache(server):
    check_generation_goes_on(server)


# ---- stop ----

def stop(server, sid, headers=()):
    """The answer's bytes."""
    response = server.post("/api/v1/streams/%s/stop" % sid, headers=headers)
    body = response.read()
    e2e.check_equal(response.status, 200, "status of %r" % body[:300])
    return body


def check_stopped(server, stream, body):
    """Right after the answer: the file is ended, and its reader hears it."""
    sid = stream.stream_id
    frames = server.stream_frames(sid)
    e2e.check_equal((frames[-1].event, frames[-1].data["finish_reason"]),
                    ("done", "stopped"), "the last frame in the file")
    e2e.check_equal(stream.read_all().bytes(), server.stream_bytes(sid),
                    "what the reader got")
    snapshot = e2e.parse_json(body)
    for name, want in (("stream_id", sid), ("state", "stopped"),
                       ("finish_reason", "stopped"), ("text", stream.text()),
                       ("last_event_id", frames[-1].id),
                       ("usage", frames[-1].data["usage"]),
                       ("total_cost", frames[-1].data["total_cost"])):
        e2e.check_equal(snapshot[name], want, name)


@behind(Lighttpd, procs=4)
def a_stop_works_from_every_process(server):
    pids = set()
    for number in range(4):
        one, other, third = (
            [("X-Process", str((number + i) % 4))] for i in range(3))
        stream = e2e.Stream(server.get("/api/v1/stream", {
            "message": "x", "model": "endless"}, one), 0).read_frames(3)
        sid = stream.stream_id
        body = stop(server, sid, other)
        check_stopped(server, stream, body)
        e2e.check_equal(stop(server, sid, third), body, "the second answer")
        e2e.check_equal(stop(server, sid, one), body, "the third answer")
        pids.update(server.follows(sid))
    e2e.check_equal(len(pids), 4, "processes")


@e2e.test
def a_stop_takes_less_than_half_a_second(server):
    took = []
    for _ in range(5):
        stream = server.start_stream(message="x",
                                     model="endless").read_frames(3)
        began = time.monotonic()
        body = stop(server, stream.stream_id)
        answered_at = time.monotonic()
        check_stopped(server, stream, body)
        took.append(max(answered_at, stream.frames[-1].at) - began)
        e2e.check_equal(stop(server, stream.stream_id), body,
                        "the second answer")
    # The fastest: the others may have waited for a busy machine.
    e2e.check(min(took) < 0.5, "they took %r" % took)


@e2e.test
def a_stop_comes_before_the_first_token(server):
    stream = server.start_stream(message="x", model="slow start")
    body = stop(server, stream.stream_id)
    check_stopped(server, stream, body)
    e2e.check_equal(stream.text(), "", "text")
    e2e.check_equal([f.event for f in stream.frames], ["done"], "events")
    e2e.check_equal(stop(server, stream.stream_id), body, "the second answer")


@e2e.test
def a_stop_after_the_end_changes_nothing(server):
    stream = server.start_stream(message="x", model="twenty").read_all()
    before = server.stream_bytes(stream.stream_id)
    body = stop(server, stream.stream_id)
    e2e.check_equal(e2e.parse_json(body)["state"], "finished", "state")
    e2e.check_equal(stop(server, stream.stream_id), body, "the second answer")
    e2e.check_equal(server.stream_bytes(stream.stream_id), before, "file")


if __name__ == "__main__":
    e2e.main(models=MODELS, settings=SETTINGS, procs=4)
