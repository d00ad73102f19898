#!/usr/bin/env -S python3 -B
"""Hosts that have few processes and end them, web servers that are reloaded
and restarted in mid-stream: every answer is whole for a reader that comes
back, and nobody waits for what nobody reads."""

import os
import re
import shutil
import socket
import subprocess
import threading
import time

import e2e
import servers

MODELS = {
    "default": "sixty",
    "models": {
        "sixty": {"provider": "demo", "chunks": 60, "interval_ms": 100},
        "long": {"provider": "demo", "chunks": 80, "interval_ms": 100},
        "ten": {"provider": "demo", "chunks": 10, "interval_ms": 20},
        "hangs": {"provider": "demo", "chunks": 9, "hang_after": 1},
    },
}
PROCESSES = 20
READERS = 100


def text(count):
    return "".join("tok%d " % n for n in range(count))


def behind(cls, **options):
    """Gives the test such a server in place of the runner's, and skips it
    where that is not installed."""
    def decorate(function):
        def run(_):
            if cls.missing():
                print("skip  the next one: there is no "
                      + " ".join(cls.missing()))
                return
            with cls(models=MODELS, **options) as server:
                function(server)
        run.__name__ = function.__name__
        return e2e.test(run)
    return decorate


# ---- fewer processes than readers ----

FEW = (("FcgidMaxProcessesPerClass 100",
        "FcgidMaxProcessesPerClass %d" % PROCESSES),
       ("RESPOOL_MAX_READERS 95", "RESPOOL_MAX_READERS %d" % (PROCESSES - 5)))


@behind(servers.ApacheFcgid, changes=FEW)
def a_hundred_readers_get_everything_from_twenty_processes(server):
    first = server.start_stream(message="x", stream_id="all")
    first.read_frames(1).close()
    readers = [servers.Reader(server, "all") for _ in range(READERS)]
    most = [0]

    def work(number):
        if number < READERS:
            readers[number].read_all()
            return
        # Meanwhile others ask for other things, and are answered.
        while not all(reader.ended for reader in readers):
            e2e.check_equal(server.get("/health").status, 200,
                            "status of /health")
            snapshot = server.get("/api/v1/streams/all").json()
            e2e.check(snapshot["text"].startswith("tok0 "), "snapshot")
            most[0] = max(most[0], len(server.responders()))
            time.sleep(0.2)

    e2e.in_threads(READERS + 1, work)
    for reader in readers:
        reader.check(text(60))
    e2e.check(most[0] <= PROCESSES, "%d processes" % most[0])
    e2e.check(sum(reader.closing for reader in readers) > READERS,
              "nobody made room")


@behind(servers.ApacheFcgid, changes=(
    ("FcgidMaxProcessesPerClass 100", "FcgidMaxProcessesPerClass 1"),),
    settings={"keepalive": 1, "heartbeat": 300})
def nobody_waits_for_a_process_whose_client_has_left(server):
    stream = server.start_stream(message="x", model="hangs").read_frames(1)
    stream.close()
    # Two comments later mod_fcgid takes the one process for idle.
    e2e.check_equal(server.get("/health").status, 200, "status of /health")
    snapshot = server.post("/api/v1/streams/%s/stop"
                           % stream.stream_id).json()
    e2e.check_equal((snapshot["state"], snapshot["text"]),
                    ("stopped", "tok0 "), "snapshot")
    e2e.check_equal(len(set(server.responders())), 1, "processes")


# ---- processes that are ended by their age ----

AGE = (("FcgidBusyTimeout 600",
        "FcgidBusyTimeout 2\nFcgidBusyScanInterval 1\n"
        "FcgidErrorScanInterval 1"),)


@behind(servers.ApacheFcgid, changes=AGE)
def a_busy_timeout_shorter_than_the_answer_costs_reconnects(server):
    first = server.start_stream(message="x", stream_id="old")
    first.read_frames(1).close()
    reader = servers.Reader(server, "old").read_all()
    reader.check(text(60))
    e2e.check(reader.visits > 1, "mod_fcgid has not killed anything")


@behind(servers.ApacheFcgid, changes=AGE, settings={"max_connection": 1})
def max_connection_ends_responses_before_they_are_killed(server):
    first = server.start_stream(message="x", stream_id="old")
    first.read_frames(1).close()
    reader = servers.Reader(server, "old").read_all()
    reader.check(text(60))
    e2e.check(reader.closing > 1, "no response was ended")
    e2e.check_equal(reader.cuts, 0, "responses that were cut")


def max_connection_of(server):
    server.get("/health").close()
    return {int(match[1]) for match in map(
        re.compile(r" max_connection_s=([0-9]+)$").search, server.log())
        if match}


@e2e.test
def max_connection_is_240_s_where_programs_are_ended_by_age(server):
    for cls, want in ((servers.Server, 0), (servers.LighttpdExternal, 0),
                      (servers.ApacheFcgid, 240), (servers.ApacheCgi, 240)):
        if cls.missing():
            print("skip  there is no " + " ".join(cls.missing()))
            continue
        with cls(models=MODELS) as own:
            e2e.check_equal(max_connection_of(own), {want}, cls.name)


# ---- reload and restart ----

def whole_in_spite_of(there, disturb):
    """A reader that was there before, and one that comes after."""
    first = there.start_stream(message="x", model="long", stream_id="one")
    first.read_frames(5)
    first.close()
    reader = servers.Reader(there, "one")
    reader.visit(10)
    staying = servers.Reader(there, "one")
    thread = threading.Thread(target=staying.read_all, daemon=True)
    thread.start()
    e2e.wait_until(lambda: len(there.follows("one")) >= 3, 20, "its follow")
    disturb()
    reader.read_all().check(text(80))
    thread.join(60)
    staying.check(text(80))
    again = there.start_stream(message="x", model="ten").read_all()
    e2e.check_equal(again.text(), text(10), "the next one")


def on_all(disturb):
    """Behind all servers at once."""
    kinds = [cls for cls in servers.ALL if not cls.missing()]

    def work(number):
        with kinds[number](models=MODELS) as there:
            try:
                whole_in_spite_of(there, lambda: disturb(there))
            except Exception as e:
                raise AssertionError("behind %s: %s: %s" % (
                    there.name, type(e).__name__, e)) from e

    e2e.in_threads(len(kinds), work)


@e2e.test
def a_reload_in_mid_stream_harms_no_answer(server):
    on_all(lambda there: there.reload())


@e2e.test
def a_restart_in_mid_stream_harms_no_answer(server):
    on_all(lambda there: there.restart())


class Activated(servers.Nginx):
    """The responder as systemd/ has it: its socket is somebody else's."""

    listener = None

    def spawn(self):
        if self.listener is None:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(self.run + "/respool.sock")
            self.listener.listen(4096)
            os.chmod(self.run + "/respool.sock", 0o666)
        user = {"user": self.user.pw_uid, "group": self.user.pw_gid,
                "extra_groups": []} if self.user else {}
        with open(self.run + "/server.log", "ab") as log:
            self.responder = subprocess.Popen(
                [self.bin + "/respool.fcgi"], env=self.env,
                stdin=self.listener, stdout=log, stderr=log,
                start_new_session=True, **user)

    def stop(self):
        self.listener.close()
        return super().stop()


@behind(Activated)
def nobody_is_refused_while_a_responder_on_a_kept_socket_restarts(server):
    stream = server.start_stream(message="x", stream_id="one").read_frames(3)
    server.responder.terminate()
    stream.read_all(cut_ok=True)
    e2e.check(stream.parser.retry is not None, "the response was cut")
    server.responder.wait()
    waiting = server.request("GET", "/health")
    reader = servers.Reader(server, "one")
    reader.frames = stream.frames
    server.spawn()
    e2e.check_equal(waiting.read_head().status, 200, "status of who waited")
    reader.read_all().check(text(60))
    e2e.check_equal(reader.cuts, 0, "cuts")


# ---- hosts that keep a response until it is whole ----

def comes_in_pieces(there):
    first = there.start_stream(message="x", stream_id="slow")
    e2e.check(first.read_all(cut_ok=True).parser.retry is not None,
              "the first response was not ended")
    e2e.check(len(first.frames) < 30, "%d frames at once" % len(first.frames))
    reader = servers.Reader(there, "slow").read_all()
    reader.check(text(60))
    e2e.check(reader.visits > 3, "it came in %d pieces" % reader.visits)


@behind(servers.Server, settings={"flush_by_close": "yes"}, changes=(
    ("stream-response-body = 2", "stream-response-body = 0"),))
def text_comes_in_pieces_where_lighttpd_buffers(there):
    comes_in_pieces(there)


@behind(servers.ApacheFcgid, settings={"flush_by_close": "yes"}, changes=(
    ("FcgidOutputBufferSize 0", "FcgidOutputBufferSize 65536"),))
def text_comes_in_pieces_where_mod_fcgid_buffers(there):
    comes_in_pieces(there)


# ---- without a web server ----

def variables(server, method, path, **more):
    return dict(server.env, REQUEST_METHOD=method, SCRIPT_NAME="/cgi-bin/r",
                PATH_INFO=path, QUERY_STRING="", SERVER_PROTOCOL="HTTP/1.1",
                GATEWAY_INTERFACE="CGI/1.1", **more)


def check_by_hand(server, command):
    """One request on the way that a CGI program takes."""
    body = b'{"message":"x","model":"ten"}'
    env = variables(server, "POST", "/api/v1/stream",
                    CONTENT_TYPE="application/json",
                    CONTENT_LENGTH=str(len(body)))
    user = {"user": server.user.pw_uid, "group": server.user.pw_gid,
            "extra_groups": []} if server.user else {}
    output = subprocess.run(command, input=body, env=env, cwd="/", timeout=60,
                            stdout=subprocess.PIPE, check=True,
                            **user).stdout
    head, _, rest = output.partition(b"\r\n\r\n")
    e2e.check(head.startswith(b"Status: 200 OK\r\n"), repr(head))
    parser = e2e.Parser(0)
    frames = parser.feed(rest, 0.0)
    parser.finish()
    e2e.check_equal("".join(f.data["content"] for f in frames[:-1]), text(10),
                    "text")
    output = subprocess.run(
        command, env=variables(server, "GET", "/health"), cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60,
        check=True, **user).stdout
    e2e.check(output.endswith(b'\r\n\r\n{"status":"ok"}'), repr(output))


@e2e.test
def the_program_works_by_hand_with_CGI_variables(server):
    check_by_hand(server, [server.bin + "/respool.fcgi"])


def seconds_to_answer(server, command):
    """From exec to the first byte, the fastest of twenty."""
    env = variables(server, "GET", "/health")
    took = []
    for _ in range(20):
        began = time.monotonic()
        with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as process:
            process.stdout.read(1)
            took.append(time.monotonic() - began)
    return min(took)


@e2e.test
def a_CGI_program_takes_less_than_5_ms_more_than_any(server):
    program = server.bin + "/respool.fcgi"
    if e2e.is_sanitized(program):
        print("skip  the next one: sanitizers take their time")
        return
    any_one = seconds_to_answer(server, ["/bin/echo", "x"])
    e2e.check_soon(lambda: seconds_to_answer(server, [program]) - any_one,
                   0.005, "respool.fcgi, beyond what echo takes,")


@behind(servers.LighttpdExternal)
def the_program_works_through_cgi_fcgi(server):
    if shutil.which("cgi-fcgi") is None:
        print("skip  the next one: there is no cgi-fcgi")
        return
    check_by_hand(server, ["cgi-fcgi", "-bind", "-connect",
                           server.run + "/respool.sock"])


if __name__ == "__main__":
    e2e.main(models=MODELS, settings={})
