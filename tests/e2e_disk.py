#!/usr/bin/env -S python3 -B
"""A full disk, and one without a free inode, in the middle of 20 answers: each
ends with what it had, starts are refused, and all is well when there is room
again.  The spool and the log lie on a small file system of their own, which
only root can mount."""

import glob
import json
import os
import subprocess
import sys

import e2e

MODELS = {
    "default": "endless",
    "models": {
        "endless": {"provider": "demo", "chunks": 1000000, "interval_ms": 10,
                    "prices": {"input": 150000, "output": 600000}},
        "hundred": {"provider": "demo", "chunks": 100, "interval_ms": 10},
        "short": {"provider": "demo", "chunks": 5},
    },
}
STREAMS = 20


class SmallDisk(e2e.Server):
    """Its spool is a tmpfs of 1 MB with room for 400 files."""

    mounted = False

    def _environment(self, settings, environment):
        personas = os.path.join(self.run, "personas")
        os.mkdir(personas)
        with open(os.path.join(personas, "leo.json"), "w",
                  encoding="ascii") as f:
            f.write('{"name": "Leo", "system": "You are Leo."}')
        os.chmod(f.name, 0o644)
        return super()._environment({"personas_dir": personas, **settings},
                                    environment)

    def start(self):
        os.mkdir(self.spool, 0o700)
        owner = "uid=%d,gid=%d," % self.user[2:4] if self.user else ""
        subprocess.run(["mount", "-t", "tmpfs", "-o",
                        owner + "size=1m,nr_inodes=400,mode=0700", "tmpfs",
                        self.spool], check=True)
        self.mounted = True
        super().start()

    def stop(self):
        self.stop_programs()
        if self.mounted:
            subprocess.run(["umount", "-l", self.spool], check=True)
            self.mounted = False
        return super().stop()

    def stop_programs(self):
        for program in e2e.PROGRAMS:
            self.kill_all(program)

    def use_up_inodes(self):
        paths = []
        try:
            while True:
                path = os.path.join(self.spool, "inode-%d" % len(paths))
                with open(path, "xb"):
                    paths.append(path)
        except OSError:
            return paths


def on_small_disk(function):
    def run(_):
        with SmallDisk(models=MODELS, procs=2) as server:
            server.start_stream(message="x", model="short").read_all()
            function(server)
    run.__name__ = function.__name__
    return e2e.test(run)


def check_refused(server):
    answer = server.post("/api/v1/stream", {"message": "x"})
    e2e.check_equal(answer.status, 503, "status of a start")
    e2e.check(answer.header("Retry-After"), "Retry-After")
    e2e.check_equal(answer.json()["error_type"], "spool_unavailable",
                    "error_type")


def check_works(server):
    stream = server.start_stream(message="x", model="short").read_all()
    e2e.check_equal(stream.frames[-1].event, "done", "last event")
    e2e.check_equal(server.ctl("check").returncode, 0, "respoolctl check")


def check_counted_once(server, sid):
    """A settle line that was cut short stays, and is passed over."""
    kinds = []
    for path in glob.glob(server.spool + "/usage/*"):
        with open(path, "rb") as f:
            for line in f:
                try:
                    entry = e2e.parse_json(line)
                except e2e.Malformed:
                    continue
                if entry.get("stream_id") == sid:
                    kinds.append(entry["type"])
    e2e.check_equal(kinds.count("reserve"), 1, "reserves")
    e2e.check(kinds.count("settle") >= 1, "no settle")


@on_small_disk
def a_full_disk_ends_each_turn_and_its_history_says_so(server):
    turns = []
    for n in range(STREAMS):
        response = server.post("/convo_turn_stream", {
            "message": "x", "animalId": "leo", "sessionId": "s-%d" % n})
        turns.append(e2e.Stream(response, 0).read_frames(4))
    filler = e2e.fill(server.spool)
    for stream in turns:
        typing, last = stream.read_all().frames[-2:]
        e2e.check_equal((typing.data["status"], last.event,
                         last.data["error_type"]),
                        ("stop", "error", "not_resumable"), "the end")
        e2e.check_equal(stream.bytes(), server.stream_bytes(stream.stream_id),
                        "file")
    answer = server.post("/convo_turn_stream", {"message": "x",
                                                "animalId": "leo"})
    e2e.check_equal((answer.status, answer.json()["error_type"]),
                    (503, "spool_unavailable"), "a start")
    os.unlink(filler)
    for n, stream in enumerate(turns):
        history = server.get("/convo_history", {"sessionId": "s-%d" % n},
                             [("Accept", "application/json")]).json()
        turn, = history["turns"]
        said = "".join(f.data["content"] for f in stream.frames
                       if f.event == "message")
        e2e.check_equal((turn["state"], turn["stream_id"]),
                        ("failed", stream.stream_id), "the turn")
        kept = turn["assistant"]["content"]
        e2e.check(said.startswith(kept) and
                  len(kept) >= min(len(said), 1020), "%d of %d are kept"
                  % (len(kept), len(said)))
    check_works(server)


@on_small_disk
def a_full_disk_ends_each_answer_with_what_it_had(server):
    ended = server.start_stream(message="x", model="hundred").read_all()
    spooler, = server.spoolers()
    streams = [server.start_stream(message="x").read_frames(2)
               for _ in range(STREAMS)]
    filler = e2e.fill(server.spool)
    for stream in streams:
        last = stream.read_all().frames[-1]
        e2e.check_equal((last.event, last.data["error_type"]),
                        ("error", "not_resumable"), "the end")
        e2e.check_equal(last.data["partial"], True, "partial")
        e2e.check_equal(stream.bytes(), server.stream_bytes(stream.stream_id),
                        "file")
        e2e.check_equal(stream.text(), "".join(
            "tok%d " % n for n in range(len(stream.frames) - 1)), "text")
    check_refused(server)
    # Replays and resumes go on, and nobody has died.
    again = server.resume(9, stream_id=ended.stream_id).read_all()
    e2e.check_equal(again.frames[-1].raw, ended.frames[-1].raw, "a replay")
    e2e.check_equal(server.get("/health").status, 200, "health")
    e2e.check_equal(server.spoolers(), [spooler], "the spooler")
    os.unlink(filler)
    check_works(server)
    for stream in streams:
        check_counted_once(server, stream.stream_id)


@e2e.test
def a_full_disk_leaves_nothing_reserved(_):
    limits = {"owner_max_streams": STREAMS, "owner_max_starts": 3 * STREAMS}
    with SmallDisk(models=MODELS, settings=limits) as server:
        streams = [server.start_stream(message="x").read_frames(2)
                   for _ in range(STREAMS)]
        refused = server.post("/api/v1/stream", {"message": "x"})
        e2e.check_equal((refused.status, refused.json()["limit"]),
                        (429, "owner_max_streams"), "one too many")
        filler = e2e.fill(server.spool)
        for stream in streams:
            stream.read_all()
        check_refused(server)
        os.unlink(filler)
        streams = [server.start_stream(message="x").read_frames(2)
                   for _ in range(STREAMS)]
        result = server.ctl("stop", "--all")
        e2e.check_equal(result.stdout, "%d stopped\n" % STREAMS, "stop")
        e2e.check_equal(json.loads(server.ctl("usage", "--json").stdout)[
            "open"], 0, "open")


@on_small_disk
def without_a_free_inode_answers_go_on_and_starts_are_refused(server):
    streams = [server.start_stream(message="x", model="hundred")
               .read_frames(1) for _ in range(STREAMS)]
    spooler, = server.spoolers()
    paths = server.use_up_inodes()
    check_refused(server)
    for stream in streams:
        e2e.check_equal(stream.read_all().frames[-1].event, "done", "the end")
        e2e.check_equal(stream.bytes(), server.stream_bytes(stream.stream_id),
                        "file")
    e2e.check_equal(server.spoolers(), [spooler], "the spooler")
    for path in paths:
        os.unlink(path)
    check_works(server)


@on_small_disk
def a_spooler_that_dies_on_a_full_disk_is_recovered_when_there_is_room(server):
    streams = [server.start_stream(message="x").read_frames(2)
               for _ in range(5)]
    filler = e2e.fill(server.spool)
    server.kill_all("respool-spooler")
    for stream in streams:
        stream.read_all(cut_ok=True)
    os.unlink(filler)
    for stream in streams:
        sid = stream.stream_id
        got = server.resume(-1, stream_id=sid).read_all()
        e2e.check(got.bytes().startswith(stream.bytes()), "what was seen")
        e2e.check_equal(got.frames[-1].event, "error", "the end")
    check_works(server)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("only root can mount a file system: skipped")
        sys.exit(77)
    e2e.main(models=MODELS, procs=1)
