#!/usr/bin/env -S python3 -B
"""The spooler: what it inherits, when it makes way, and when it is refused."""

import fcntl
import os
import signal
import stat
import struct
import subprocess
import threading

import e2e

MODELS = {
    "default": "live",
    "models": {
        "live": {"provider": "demo", "chunks": 40, "interval_ms": 50},
        "keyed": {"provider": "openai", "api_key_env": "TEST_PROVIDER_KEY"},
        "endless": {"provider": "demo", "chunks": 100000,
                    "interval_ms": 100},
        "short": {"provider": "demo", "chunks": 5},
    },
}
CGI = {
    "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1", "SCRIPT_NAME": "/respool.fcgi",
    "PATH_INFO": "/api/v1/stream", "REMOTE_ADDR": "127.0.0.1",
    "HTTP_AUTHORIZATION": "Bearer visitor", "HTTP_COOKIE": "session=1",
    "HTTP_PROXY": "http://visitor/", "HTTP_X_RESPOOL_TTL": "1",
}


def run_cgi(server, query, cwd="/", **more):
    """respool.fcgi as a web server runs a CGI program; what it writes."""
    def become():
        if server.user:
            os.setgid(server.user.pw_gid)
            os.setuid(server.user.pw_uid)

    env = dict(server.env, QUERY_STRING=query, **CGI)
    env.update(more)
    result = subprocess.run(
        [os.path.join(server.bin, "respool.fcgi")], env=env, cwd=cwd,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60,
        preexec_fn=become, check=False)
    return result.stdout


def spooler(server):
    """The pid of the only one."""
    pids = e2e.wait_until(server.spoolers, 10, "a spooler")
    e2e.check_equal(len(pids), 1, "spoolers")
    return pids[0]


def environment(pid):
    with open("/proc/%d/environ" % pid, "rb") as f:
        pairs = f.read().rstrip(b"\0").split(b"\0")
    return dict(pair.decode().split("=", 1) for pair in pairs)


@e2e.test
def a_visitors_request_leaves_nothing_in_the_spooler(server):
    out = run_cgi(server, "message=x&model=short",
                  TEST_PROVIDER_KEY="secret", https_proxy="http://our/",
                  LD_LIBRARY_PATH="/nowhere", UNRELATED="1")
    e2e.check(out.startswith(b"Status: 200 OK\r\n"), "answer %r" % out[:99])
    env = environment(spooler(server))
    for name in list(CGI) + ["QUERY_STRING", "UNRELATED", "LD_LIBRARY_PATH"]:
        e2e.check(name not in env, "the spooler has %s" % name)
    e2e.check_equal(env.get("TEST_PROVIDER_KEY"), "secret", "the key")
    e2e.check_equal(env.get("https_proxy"), "http://our/", "our proxy")
    e2e.check_equal(env.get("RESPOOL_SPOOL_DIR"), server.spool, "the spool")
    for name in ("PATH", "HOME", "LANG", "TZ"):
        if name in server.env:
            e2e.check_equal(env.get(name), server.env[name], name)


@e2e.test
def relative_paths_mean_the_same_to_the_spooler(server):
    server.kill_all("respool-spooler")
    place = os.path.dirname(server.env["RESPOOL_MODELS_FILE"])
    for _ in range(2):  # started by the first, found right by the second
        out = run_cgi(server, "message=x&model=short", cwd=place,
                      RESPOOL_MODELS_FILE="models.json",
                      RESPOOL_SPOOL_DIR="spool", RESPOOL_LOG_FILE="")
        e2e.check(out.startswith(b"Status: 200"), "answer %r" % out[:200])
    env = environment(spooler(server))
    e2e.check_equal(env["RESPOOL_SPOOL_DIR"], server.spool, "the spool")
    server.kill_all("respool-spooler")


@e2e.test
def the_spooler_is_detached(server):
    # The web server's own responder starts it this time, in mid-request.
    server.kill_all("respool-spooler")
    server.start_stream(message="x", model="short").read_all()
    pid = spooler(server)
    e2e.check(os.getsid(pid) != os.getsid(server.lighttpd.pid), "session")
    e2e.check_equal(os.readlink("/proc/%d/cwd" % pid), server.spool, "cwd")
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        e2e.check_equal(f.read().rpartition(")")[2].split()[4], "0", "tty")
    for fd in ("0", "1", "2"):
        e2e.check_equal(os.readlink("/proc/%d/fd/%s" % (pid, fd)),
                        "/dev/null", "descriptor " + fd)
    pipes = [link for link in (os.readlink("/proc/%d/fd/%s" % (pid, fd))
                               for fd in os.listdir("/proc/%d/fd" % pid))
             if link.startswith("pipe:")]
    e2e.check_equal(pipes, [], "inherited pipes")
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        status = dict(line.split(":\t", 1) for line in f if ":\t" in line)
    e2e.check_equal(status["Umask"].strip(), "0077", "umask")


@e2e.test
def a_draining_spooler_ends_its_stream_while_its_successor_starts(server):
    old_stream = server.start_stream(message="x").read_frames(1)
    old = spooler(server)
    e2e.kill(old, signal.SIGTERM)
    # Refused by the old one, and by nobody else.
    new_stream = server.start_stream(message="y").read_frames(1)
    e2e.check(not e2e.is_gone(old), "the old one drains")
    e2e.check_equal(len(server.spoolers()), 2, "spoolers")
    for stream in (old_stream, new_stream):
        stream.read_all()
        e2e.check_equal(stream.frames[-1].event, "done", "the end")
        e2e.check_equal(len(stream.frames), 41, "frames")
        e2e.check_equal(stream.bytes(), server.stream_bytes(stream.stream_id),
                        "bytes")
    e2e.wait_until(lambda: e2e.is_gone(old), 10, "the end of the old one")
    e2e.check_equal(len(server.spoolers()), 1, "spoolers")


@e2e.test
def a_dead_spoolers_lock_may_be_let_go_late(server):
    server.start_stream(message="x", model="short").read_all()
    server.kill_all("respool-spooler")
    with open(os.path.join(server.spool, "spooler.lock"), "r+b") as lock:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack(
            "hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        threading.Timer(0.3, lock.close).start()
        server.start_stream(message="x", model="short").read_all()


@e2e.test
def a_lock_that_an_admins_tool_holds_is_waited_for(server):
    server.kill_all("respool-spooler")
    with open(os.path.join(server.spool, "spooler.lock"), "r+b") as lock:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack(
            "hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        refused = server.post("/api/v1/stream", {"message": "x"})
        e2e.check_equal(refused.status, 503, "status while it is held")
        e2e.check_equal(refused.json()["error_type"], "spool_unavailable",
                        "error_type")
    # That was no failure to be waited after.
    server.start_stream(message="x", model="short").read_all()


@e2e.test
def a_stop_finds_a_draining_writer(server):
    stream = server.start_stream(message="x", model="endless").read_frames(1)
    old = spooler(server)
    e2e.kill(old, signal.SIGTERM)
    server.start_stream(message="y", model="short").read_all()
    answer = server.post("/api/v1/streams/%s/stop" % stream.stream_id)
    e2e.check_equal(answer.json()["state"], "stopped", "state")
    stream.read_all()
    e2e.check_equal(stream.frames[-1].data["finish_reason"], "stopped", "end")
    e2e.wait_until(lambda: e2e.is_gone(old), 10, "the end of the old one")


def write_conf(path, text):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(text)
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)


@e2e.test
def a_changed_configuration_drains_the_old_spooler(server):
    conf = os.path.join(server.run, "changing.conf")
    write_conf(conf, "idle_exit = 100\n")
    with e2e.Server(models=MODELS, procs=1,
                    environment={"RESPOOL_CONFIG": conf}) as other:
        other.start_stream(message="x", model="short").read_all()
        old = spooler(other)
        write_conf(conf, "idle_exit = 200\n")
        other.kill_all("respool.fcgi")  # the next ones read the new file
        e2e.wait_until(lambda: other.get("/health").status == 200, 10,
                       "the start of a responder")
        other.start_stream(message="x", model="short").read_all()
        e2e.wait_until(lambda: e2e.is_gone(old), 10, "the old one's end")
        e2e.check(spooler(other) != old, "a new spooler")


@e2e.test
def a_spool_that_others_can_write_to_is_refused(server):
    open_spool = os.path.join(server.run, "open-spool")
    os.mkdir(open_spool)
    os.chmod(open_spool, 0o777)
    out = run_cgi(server, "message=x&model=short",
                  RESPOOL_SPOOL_DIR=open_spool)
    e2e.check(out.startswith(b"Status: 5"), "answer %r" % out[:99])
    e2e.check_equal(os.listdir(open_spool), [], "what it holds")


@e2e.test
def nobody_else_can_read_the_spool(server):
    server.start_stream(message="x", model="short").read_all()
    for top, dirs, files in os.walk(server.spool):
        for name in dirs + files + ["."]:
            path = os.path.join(top, name)
            info = os.lstat(path)
            if not stat.S_ISLNK(info.st_mode):
                e2e.check_equal(info.st_mode & 0o077, 0, path)
            if server.user:
                e2e.check_equal(info.st_uid, server.user.pw_uid, path)


@e2e.test
def a_spooler_that_cannot_be_started_is_a_503_without_paths(server):
    out = run_cgi(server, "message=x&model=short",
                  RESPOOL_SPOOL_DIR=os.path.join(server.run, "spool2"),
                  RESPOOL_SPOOLER_PROGRAM="/nonexistent/respool-spooler")
    head, _, body = out.partition(b"\r\n\r\n")
    e2e.check(head.startswith(b"Status: 503"), "answer %r" % out[:99])
    e2e.check(b"\r\nRetry-After: " in head, "Retry-After")
    e2e.check_equal(e2e.parse_json(body)["error_type"], "spool_unavailable",
                    "error_type")
    e2e.check(b"nonexistent" not in body, "a path for everybody: %r" % body)


@e2e.test
def a_spooler_that_never_gets_ready_is_a_503_too(server):
    script = os.path.join(server.run, "never.sh")
    spool = os.path.join(server.run, "spool3")
    with open(script, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\necho $$ >%s/pid; exec sleep 1000\n" % spool)
    os.chmod(script, 0o755)
    out = run_cgi(server, "message=x&model=short", RESPOOL_SPOOL_DIR=spool,
                  RESPOOL_SPOOLER_PROGRAM=script)
    with open(spool + "/pid", encoding="ascii") as f:
        e2e.kill(int(f.read()), signal.SIGKILL)
    e2e.check(out.startswith(b"Status: 503"), "answer %r" % out[:99])
    e2e.check(any("did not get ready" in line for line in server.log()),
              "the log does not say why")


if __name__ == "__main__":
    e2e.main(models=MODELS, settings={"idle_exit": 60}, procs=2)
