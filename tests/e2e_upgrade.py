#!/usr/bin/env -S python3 -B
"""An upgrade: other programs are put in the place of those that run."""

import os
import shutil
import threading
import time

import e2e

MODELS = {
    "default": "live",
    "models": {
        "live": {"provider": "demo", "chunks": 40, "interval_ms": 50},
        "short": {"provider": "demo", "chunks": 5},
    },
}


LOOKS_EVERY = 1  # seconds


class Linked(e2e.Server):
    """Its programs are found by a link, as an installation in a directory for
    each version has it."""

    def start(self):
        os.rename(self.bin, self.bin + "-1")
        os.symlink("bin-1", self.bin)
        super().start()


def replace(path):
    """As an installation does: a new file, renamed over the old one."""
    shutil.copy(path, path + ".new")
    os.rename(path + ".new", path)


def signer(server):
    """The pid that spooler.lock names.  Others may be on their way, or out."""
    with open(os.path.join(server.spool, "spooler.lock"),
              encoding="ascii") as f:
        words = f.read().split()
    return int(words[2]) if len(words) == 3 else 0


def spooler(server):
    return e2e.wait_until(
        lambda: not e2e.is_gone(signer(server)) and signer(server), 30,
        "a spooler")


def runs_what_is_there(server, pid):
    now = os.stat("/proc/%d/exe" % pid)
    here = os.stat(os.path.join(server.bin, "respool-spooler"))
    return (now.st_dev, now.st_ino) == (here.st_dev, here.st_ino)


def new_spooler(server, old):
    """The one that has taken over, when the old one has gone."""
    e2e.wait_until(lambda: e2e.is_gone(old), 60, "the end of the old one")
    new = spooler(server)
    e2e.check(new != old, "another process")
    e2e.check(runs_what_is_there(server, new), "it runs the new program")
    return new


def check_whole(server, stream):
    e2e.check_equal(stream.frames[-1].event, "done", "the end")
    e2e.check_equal(len(stream.frames), 41, "frames")
    e2e.check_equal(stream.bytes(), server.stream_bytes(stream.stream_id),
                    "bytes")


@e2e.test
def an_upgrade_loses_no_stream_and_makes_none_twice(server):
    reader = server.start_stream(message="before").read_frames(5)
    old = spooler(server)
    enough = threading.Event()
    streams = []

    def start_streams(number):
        while not enough.is_set():
            stream = server.start_stream(message="of %d" % number)
            streams.append(stream.read_all())

    def upgrade(number):
        try:
            if number < 4:
                return start_streams(number)
            e2e.wait_until(lambda: len(streams) >= 4, 60, "the first ends")
            for name in e2e.PROGRAMS:
                replace(os.path.join(server.bin, name))
            return new_spooler(server, old)
        finally:
            enough.set()

    e2e.in_threads(5, upgrade)
    streams.append(reader.read_all())
    for stream in streams:
        check_whole(server, stream)
    e2e.check_equal(len({stream.stream_id for stream in streams}),
                    len(streams), "different streams")
    e2e.check_equal(len(server.stream_files()), len(streams), "files")
    e2e.check(any(" draining pid=%d " % old in line and "why=upgrade" in line
                  for line in server.log()), "the log says why")
    result = server.ctl("check")
    e2e.check_equal(result.returncode, 0, "check: " + result.stdout)


@e2e.test
def a_program_that_cannot_be_run_yet_is_no_upgrade(server):
    server.start_stream(message="x", model="short").read_all()
    old = spooler(server)
    path = os.path.join(server.bin, "respool-spooler")
    kept = os.path.join(server.run, "respool-spooler")
    os.rename(path, kept)
    for name in ("none", "half"):
        if name == "half":  # as install(1) has it for a moment
            shutil.copyfile(kept, path)
            os.chmod(path, 0o600)
        time.sleep(LOOKS_EVERY + 0.1)  # it looks when it is asked then
        server.start_stream(message="x", model="short").read_all()
        e2e.check_equal(spooler(server), old, "the spooler with " + name)
    os.chmod(path, 0o755)
    if server.user:
        os.chown(path, server.user.pw_uid, server.user.pw_gid)
    e2e.wait_until(lambda: server.start_stream(
        message="x", model="short").read_all() and e2e.is_gone(old), 10,
        "the end of the old one")
    new_spooler(server, old)


@e2e.test
def a_link_that_leads_to_another_version_is_an_upgrade(server):
    with Linked(models=MODELS, procs=1) as other:
        stream = other.start_stream(message="x").read_frames(3)
        old = spooler(other)
        shutil.copytree(other.bin + "-1", other.bin + "-2")
        os.symlink("bin-2", other.bin + ".new")
        os.rename(other.bin + ".new", other.bin)
        e2e.wait_until(lambda: other.start_stream(
            message="x", model="short").read_all() and
            len(other.spoolers()) == 2, 10, "a second spooler")
        check_whole(other, stream.read_all())
        new_spooler(other, old)


if __name__ == "__main__":
    e2e.main(models=MODELS, procs=2)
