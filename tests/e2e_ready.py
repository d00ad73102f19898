#!/usr/bin/env -S python3 -B
"""/ready: each reason for which starts would be refused is said while it
lasts, by whoever can know it, and starts nothing; /health knows nothing of
it.  What only root can do (mount) is skipped without."""

import json
import os
import signal
import subprocess
import sys
import time

import e2e

MODELS = {
    "default": "short",
    "models": {
        "short": {"provider": "demo", "chunks": 5},
        "endless": {"provider": "demo", "chunks": 1000000,
                    "interval_ms": 1000},
    },
}
FULL = "The spool's disk is full, or nearly."
READ_ONLY = "The spool cannot be written to."
NO_SPOOLER = "No spooler runs, and none can be started now."
SILENT = "The spooler does not answer."
MODELS_FAULT = "The models file has a fault."
FLOOR = 65536       # bytes: max_stream_bytes
BALLAST = 77824     # bytes, for the first 16 streams
SETTINGS = {"max_stream_bytes": FLOOR}
AT_MOST = 2         # seconds


class SmallDisk(e2e.Server):
    """Its spool is a tmpfs of 4 MB with room for 1,000 files."""

    mounted = False

    def start(self):
        if self.mounted:
            super().start()
            return
        os.mkdir(self.spool, 0o700)
        owner = "uid=%d,gid=%d," % self.user[2:4] if self.user else ""
        subprocess.run(["mount", "-t", "tmpfs", "-o",
                        owner + "size=4m,nr_inodes=1000,mode=0700", "tmpfs",
                        self.spool], check=True)
        self.mounted = True
        super().start()

    def stop_all(self):
        self.lighttpd.terminate()
        self.lighttpd.wait()
        for program in e2e.PROGRAMS:
            self.kill_all(program)

    def remount(self, way):
        """As no process that runs would let it be."""
        self.stop_all()
        subprocess.run(["mount", "-o", "remount,bind," + way, self.spool],
                       check=True)
        self.start()

    def stop(self):
        self.stop_all()
        if self.mounted:
            subprocess.run(["umount", "-l", self.spool], check=True)
            self.mounted = False
        return super().stop()

    def fill_all_but(self, left):
        """Leaves about that many bytes."""
        fs = os.statvfs(self.spool)
        with open(self.spool + "/filler", "wb") as f:
            os.posix_fallocate(f.fileno(), 0,
                               fs.f_bavail * fs.f_frsize - left)

    def make_room(self):
        os.unlink(self.spool + "/filler")


def reasons(server):
    """What /ready says; [] when it is ready."""
    answer = server.get("/ready")
    value = answer.json()
    if value == {"status": "ready"}:
        e2e.check_equal(answer.status, 200, "status")
        return []
    e2e.check_equal(answer.status, 503, "status of %r" % value)
    e2e.check_equal(set(value), {"status", "reasons"}, "fields")
    e2e.check_equal(value["status"], "not ready", "the word")
    e2e.check(answer.header("Retry-After"), "no Retry-After")
    e2e.check("/" not in json.dumps(value), "a path in %r" % value)
    return value["reasons"]


def check_reasons(server, *want):
    # Both responders are asked, more or less.
    for _ in range(4):
        e2e.check_equal(reasons(server), list(want), "reasons")
    # It is alive all the same.
    e2e.check_equal(server.get("/health").json(), {"status": "ok"}, "health")


def start_one(server):
    stream = server.start_stream(message="x", model="short").read_all()
    e2e.check_equal(stream.frames[-1].event, "done", "the end")


def start_refused(server):
    answer = server.post("/api/v1/stream", {"message": "x"})
    e2e.check_equal((answer.status, answer.json()["error_type"]),
                    (503, "spool_unavailable"), "a start")


def without_spooler(server):
    server.kill_all("respool-spooler")


@e2e.test
def it_starts_no_spooler(server):
    without_spooler(server)
    check_reasons(server)
    e2e.check_equal(server.spoolers(), [], "spoolers")
    start_one(server)
    check_reasons(server)


@e2e.test
def a_head_request_has_the_status_and_no_body(server):
    answer = server.request("HEAD", "/ready").read_head()
    e2e.check_equal((answer.status, answer.read()), (200, b""), "answer")
    answer = server.post("/ready")
    e2e.check_equal(answer.status, 405, "a POST")
    answer.close()


@e2e.test
def a_spooler_that_is_stopped_does_not_answer(server):
    start_one(server)
    pid, = server.spoolers()

    def seconds():
        began = time.monotonic()
        e2e.check_equal(reasons(server), [SILENT], "reasons")
        return time.monotonic() - began

    os.kill(pid, signal.SIGSTOP)
    try:
        e2e.check_soon(seconds, AT_MOST, "an answer")
    finally:
        os.kill(pid, signal.SIGCONT)
    e2e.wait_until(lambda: reasons(server) == [], 20, "its answer")


@e2e.test
def a_spooler_that_drains_makes_way_for_one_that_can_be_started(server):
    stream = server.start_stream(message="x", model="endless").read_frames(1)
    pid, = server.spoolers()
    os.kill(pid, signal.SIGTERM)
    e2e.wait_until(lambda: any(" draining pid=%d " % pid in line
                               for line in server.log()), 20, "its notice")
    check_reasons(server)
    server.post("/api/v1/streams/%s/stop" % stream.stream_id).read()
    stream.read_all()
    e2e.wait_until(lambda: e2e.is_gone(pid), 20, "its end")


@e2e.test
def a_program_that_is_missing_cannot_be_started(server):
    program = server.env["RESPOOL_SPOOLER_PROGRAM"]
    without_spooler(server)
    os.rename(program, program + ".away")
    try:
        check_reasons(server, NO_SPOOLER)
    finally:
        os.rename(program + ".away", program)
    check_reasons(server)


@e2e.test
def after_a_failed_start_it_is_as_long_not_ready_as_no_other_is_tried(_):
    with e2e.Server(models=MODELS, settings=SETTINGS,
                procs=1) as server:
        program = server.env["RESPOOL_SPOOLER_PROGRAM"]
        os.rename(program, program + ".away")
        with open(program, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\nexit 1\n")
        os.chmod(program, 0o755)
        check_reasons(server)
        start_refused(server)
        e2e.check_equal(reasons(server), [NO_SPOOLER], "reasons")
        os.rename(program + ".away", program)
        e2e.wait_until(lambda: reasons(server) == [], 60,
                       "the end of the pause")
        start_one(server)


@e2e.test
def a_fault_in_the_models_file_is_a_reason(server):
    good = open(server.env["RESPOOL_MODELS_FILE"], encoding="utf-8").read()
    start_one(server)
    path = server.env["RESPOOL_MODELS_FILE"]
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"default": "short", "models": {')
    check_reasons(server, MODELS_FAULT)
    os.unlink(path)
    check_reasons(server, MODELS_FAULT)
    start_one(server)  # by a spooler that has read it before
    server.write_models(json.loads(good))
    check_reasons(server)


@e2e.test
def several_reasons_are_said_together(server):
    program = server.env["RESPOOL_SPOOLER_PROGRAM"]
    path = server.env["RESPOOL_MODELS_FILE"]
    without_spooler(server)
    os.rename(program, program + ".away")
    os.rename(path, path + ".away")
    try:
        check_reasons(server, NO_SPOOLER, MODELS_FAULT)
    finally:
        os.rename(program + ".away", program)
        os.rename(path + ".away", path)
    check_reasons(server)


def needs_root(function):
    if os.geteuid() == 0:
        return e2e.test(function)
    print("only root can mount: skipped: %s" % function.__name__)
    return function


@needs_root
def a_disk_with_less_than_one_answers_space_is_full(_):
    with SmallDisk(models=MODELS, settings=SETTINGS) as server:
        for run in (without_spooler, start_one):  # who says it
            run(server)
            check_reasons(server)
            server.fill_all_but(FLOOR - 8192)
            check_reasons(server, FULL)
            server.make_room()
            check_reasons(server)


@needs_root
def a_disk_without_files_is_full(_):
    with SmallDisk(models=MODELS, settings=SETTINGS) as server:
        start_one(server)
        folder = server.spool + "/filler.d"
        os.mkdir(folder)
        names = []
        while os.statvfs(server.spool).f_favail > 50:
            names.append("%s/%d" % (folder, len(names)))
            with open(names[-1], "wb"):
                pass
        check_reasons(server, FULL)
        without_spooler(server)
        check_reasons(server, FULL)
        for name in names:
            os.unlink(name)
        check_reasons(server)


@needs_root
def a_disk_without_space_for_endings_is_full(_):
    with SmallDisk(models=MODELS, settings=SETTINGS) as server:
        start_one(server)
        with open(server.spool + "/ballast", "r+b") as f:
            f.truncate(0)
        server.fill_all_but((FLOOR + BALLAST) // 2)
        start_refused(server)
        check_reasons(server, FULL)
        server.make_room()
        check_reasons(server)
        start_one(server)


@needs_root
def a_spool_that_is_mounted_read_only_is_a_reason(_):
    with SmallDisk(models=MODELS, settings=SETTINGS) as server:
        start_one(server)
        server.remount("ro")
        check_reasons(server, READ_ONLY)
        server.remount("rw")
        check_reasons(server)
        start_one(server)


if __name__ == "__main__":
    e2e.main(models=MODELS, settings=SETTINGS, procs=2)
