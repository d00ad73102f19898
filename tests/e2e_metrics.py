#!/usr/bin/env -S python3 -B
"""What /metrics says is what has happened.

E2E_STREAMS=N: another number of streams where processes are killed;
E2E_SEED=N: other streams, killed at other moments."""

import collections
import json
import os
import pwd
import random
import re
import signal
import subprocess
import threading
import time
from decimal import Decimal

import e2e
import promtext
import servers

PRICES = {"input": 150000, "output": 600000}
MODELS = {
    "default": "five",
    "models": {
        "five": {"provider": "demo", "chunks": 5, "interval_ms": 20,
                 "first_ms": 30, "prices": PRICES},
        "sixty": {"provider": "demo", "chunks": 60, "interval_ms": 20,
                  "first_ms": 30, "prices": PRICES},
        "fails": {"provider": "demo", "chunks": 9, "fail_after": 3,
                  "interval_ms": 10, "error_type": "overloaded",
                  "prices": PRICES},
        "endless": {"provider": "demo", "chunks": 1000000, "interval_ms": 20,
                    "prices": PRICES},
        "flood": {"provider": "demo", "chunks": 10000000},
        'odd "name"\\': {"provider": "demo", "text": "hi", "first_ms": 30},
        "falls back": {"provider": "demo", "fail_after": 0, "retries": 0,
                       "error_type": "overloaded", "fallback": ["five"]},
    },
}
ABANDON = {"abandon": "stop", "abandon_after": 1}
STREAMS = int(os.environ.get("E2E_STREAMS") or 500)
SEED = int(os.environ.get("E2E_SEED") or 8)
WORKERS = 12
KILL_EVERY = 0.12  # seconds, about
STREAMS_PER_KILL = 6  # at least


def scrape(server):
    answer = server.get("/metrics")
    e2e.check_equal(answer.status, 200, "status of /metrics")
    e2e.check_equal(answer.header("Content-Type"),
                    "text/plain; version=0.0.4; charset=utf-8",
                    "Content-Type")
    return answer.read()


class Metrics:
    """All samples of one look, by name and labels."""

    def __init__(self, data):
        self.families = promtext.parse(data)

    def __call__(self, name, suffix="", **labels):
        return self.families["respool_" + name].total(suffix, **labels)

    def counters(self):
        for family in self.families.values():
            if family.type != "gauge":
                for key, value in family.samples.items():
                    yield (family.name, *key), value


def look(server):
    return Metrics(scrape(server))


def changes(before, after):
    """What was counted between two looks; no counter goes back."""
    old, new = dict(before.counters()), dict(after.counters())
    for key, value in old.items():
        e2e.check(new.get(key, 0) >= value, "%s went back" % (key,))
    return {key: value - old.get(key, 0) for key, value in new.items()
            if value != old.get(key, 0)}


def counted(server, before, wanted, seconds=30):
    """Waits until these were counted since before, and returns the look: what
    a client has seen is counted a moment later."""
    def attempt():
        now = look(server)
        got = {key: now(*key[:1], **dict(key[1:])) -
               before(*key[:1], **dict(key[1:])) for key in wanted}
        attempt.got = got
        return got == wanted and now
    try:
        return e2e.wait_until(attempt, seconds)
    except AssertionError:
        e2e.check_equal(attempt.got, wanted, "what was counted")
        raise


def wait_for_responder(server):
    def attempt():
        try:
            return server.get("/health").status == 200
        except (OSError, e2e.Malformed):
            return False
    e2e.wait_until(attempt, 20, "a responder")


def key(name, **labels):
    return (name, *labels.items())


# ---- the format ----

@e2e.test
def the_strict_reader_refuses_what_is_not_the_format(_):
    good = ("# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\"} 1\n"
            "# HELP h_seconds x\n# TYPE h_seconds histogram\n"
            "h_seconds_bucket{le=\"1\"} 1\nh_seconds_bucket{le=\"+Inf\"} 2\n"
            "h_seconds_sum 0.5\nh_seconds_count 2\n")
    promtext.parse(good.encode())
    for there, wrong in (
            ("a_total{b", "b_total{b"), ('"c"} 1', '"c"} -1'),
            ('"c"} 1', '"c"} one'), ('"c"} 1', '"c"} 1\na_total{b="c"} 2'),
            ('"c"} 1', '"c" 1'), ('"c"} 1', '"c\\t"} 1'), ('{b="c"}', "{}"),
            ('{b="c"}', '{b="c",}'), ('{b="c"}', '{b="c",b="c"}'),
            ("# HELP a_total x\n", ""), ("# TYPE a_total counter\n", ""),
            ("counter", "gauge"), ("counter", "untyped"),
            ("a_total", "a_ms_total"), ("\n", "\r\n"), ("count 2\n", "count 2"),
            ("a_total{", "a_total {"), ("count 2", "count 3"),
            ('"+Inf"} 2', '"+Inf"} 0'), ('le="1"} 1', 'le="1"} 3'),
            ('h_seconds_bucket{le="+Inf"} 2\n', ""),
            ("h_seconds_sum 0.5\n", ""), ('{le="1"}', '{l="1"}'),
            ("# HELP h_seconds", "# HELP a_total"),
            ("h_seconds_count 2\n", "h_seconds_count 2\na_total 1\n")):
        bad = good.replace(there, wrong)
        e2e.check(bad != good, "%r is not there" % there)
        try:
            promtext.parse(bad.encode())
        except promtext.Malformed:
            continue
        raise AssertionError("%r for %r was taken" % (wrong, there))


def table_rows():
    with open(os.path.join(e2e.SOURCE, "src/metrics_table.h"),
              encoding="utf-8") as f:
        text = f.read()
    rows = dict(re.findall(r"^(?:METRIC|OTHER)\((\w+), (\w+),", text, re.M))
    rows.update(dict.fromkeys(re.findall(r"^FACT\((\w+),", text, re.M),
                              "gauge"))
    return {"respool_" + name: kind for name, kind in rows.items()}


@e2e.test
def every_row_of_the_table_is_there_and_promtool_finds_no_fault(server):
    server.start_stream(message="x", model='odd "name"\\').read_all()
    data = scrape(server)
    families = promtext.parse(data)
    e2e.check_equal({name: family.type for name, family in families.items()},
                    table_rows(), "families")
    e2e.check_equal(promtext.promtool("check", "metrics", data=data), "",
                    "promtool check metrics")
    e2e.check(families["respool_tokens_total"].total(
        model='odd "name"\\', kind="output") > 0, "tokens of a model")
    version = server.get("/version").json()["version"]
    e2e.check_equal(families["respool_build_info"].value(version=version), 1,
                    "build_info")
    e2e.check_equal(families["respool_metrics_shared"].value(), 1, "shared")
    free = os.statvfs(server.spool)
    e2e.check(abs(families["respool_spool_free_bytes"].value() -
                  free.f_bavail * free.f_frsize) < 1 << 30, "free bytes")


@e2e.test
def to_others_there_is_no_such_path(_):
    with e2e.Server(models=MODELS,
                    settings={"metrics_from": "192.0.2.0/24 ::2"}) as server:
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
            answers = []
            for path in ("/metrics", "/api/metrics"):
                answer = server.request(method, path).read_head()
                answers.append((answer.status, answer.headers,
                                answer.read()))
            e2e.check_equal(answers[0][0], 404, "status")
            for answer in answers:
                answer[1][:] = [pair for pair in answer[1]
                                if pair[0] != "Date"]
            e2e.check_equal(answers[0], answers[1], method)


# ---- what is counted ----

@e2e.test
def each_thing_is_counted_where_it_belongs(server):
    before = look(server)
    done = server.start_stream(message="x", stream_id="a").read_all()
    server.start_stream(message="x", model="fails").read_all()
    server.start_stream(message="x", model="falls back").read_all()
    stopped = server.start_stream(message="x", model="endless").read_frames(3)
    server.post("/api/v1/streams/%s/stop" % stopped.stream_id).read()
    stopped.read_all()
    again = server.start_stream(message="x", stream_id="a").read_all()
    rest = server.resume(2, stream_id="a").read_all()
    left = server.start_stream(message="x", model="sixty").read_frames(3)
    sid, last = left.stream_id, left.frames[-1].id
    left.close()
    back = server.resume(last, stream_id=sid).read_all()
    nothing = server.get("/api/v1/stream", {"stream_id": "a"},
                         [("Last-Event-ID", "5")])
    e2e.check_equal(nothing.status, 204, "status")
    refused = server.post("/api/v1/stream", {"message": "x", "model": "none"})
    e2e.check_equal(refused.status, 400, "status")
    abandoned = server.start_stream(message="x", model="endless")
    abandoned.read_frames(1).close()
    after = counted(server, before, {
        key("streams_started_total"): 6,
        key("streams_total", result="finished"): 3,
        key("streams_total", result="failed"): 1,
        key("streams_total", result="stopped"): 2,
        key("streams_total", result="lost"): 0,
        key("streams_abandoned_total"): 1,
        key("errors_total", type="overloaded"): 1,
        key("errors_total"): 1,
        key("upstream_fallbacks_total"): 1,
        key("upstream_retries_total"): 0,
        key("joins_total"): 1,
        key("resumes_total"): 2,
        key("replays_total"): 2,
        key("starts_refused_total", type="model_not_found"): 1,
        key("starts_refused_total"): 1,
        key("http_responses_total", code="204"): 1,
        key("http_responses_total", code="400"): 1,
        key("slow_readers_total"): 0,
    })
    e2e.check_equal(after("first_token_seconds", "_count") -
                    before("first_token_seconds", "_count"), 6, "first tokens")
    e2e.check_equal(after("resume_seconds", "_count") -
                    before("resume_seconds", "_count"), 2, "resume times")
    took = after("first_token_seconds", "_sum") - \
        before("first_token_seconds", "_sum")
    e2e.check(took >= Decimal("0.09"), "the first tokens took %s s" % took)
    gaps = after("chunk_gap_seconds", "_count") - \
        before("chunk_gap_seconds", "_count")
    e2e.check(gaps >= 4 + 2 + 4 + 1 + 59, "%s gaps" % gaps)
    seen = sum(len(s.frames) for s in (done, again, rest, back))
    events = after("events_sent_total") - before("events_sent_total")
    e2e.check(events >= seen + 4 + 6 + 3 + 3 + 1, "%s events" % events)
    size = after("sent_bytes_total") - before("sent_bytes_total")
    e2e.check(size >= 2 * len(done.bytes()) + len(back.bytes()),
              "%s bytes" % size)


@e2e.test
def gauges_say_what_is_now(server):
    streams = [server.start_stream(message="x", model="endless")
               .read_frames(1) for _ in range(4)]
    join = server.resume(0, stream_id=streams[0].stream_id).read_frames(1)

    def gauges(live, readers):
        def attempt():
            now = look(server)
            return now("generations_live") == live and \
                now("open_streams") == readers
        e2e.wait_until(attempt, 20, "%d live, %d read" % (live, readers))

    gauges(4, 5)
    join.close()
    gauges(4, 4)
    server.kill_all("respool.fcgi")
    for stream in streams:
        stream.close()
    wait_for_responder(server)
    gauges(0, 0)  # abandoned


@e2e.test
def a_spooler_that_drains_and_its_successor_both_count(_):
    with e2e.Server(models=MODELS) as server:
        old = server.start_stream(message="x", model="endless").read_frames(1)
        before = look(server)
        spooler, = server.spoolers()
        e2e.kill(spooler, signal.SIGTERM)

        def start():
            stream = server.post("/api/v1/stream", {"message": "x",
                                                    "model": "endless"})
            return stream.status == 200 and e2e.Stream(stream, 0)
        new = e2e.wait_until(start, 20, "a start").read_frames(1)
        e2e.check_equal(len(server.spoolers()), 2, "spoolers")
        counted(server, before, {key("streams_started_total"): 1,
                                 key("generations_live"): 1})
        for stream in old, new:
            server.post("/api/v1/streams/%s/stop" % stream.stream_id).read()
            stream.read_all()
        counted(server, before, {key("generations_live"): -1,
                                 key("streams_total", result="stopped"): 2})


@e2e.test
def tokens_and_cost_are_those_of_the_usage_lines(server):
    for model in ("five", "fails", "sixty"):
        server.start_stream(message="a b c d e f g h", model=model).read_all()
    check_usage(server, look(server), 0)


def settled(server):
    """Tokens by model and kind and cost by model, of first settle lines."""
    tokens, cost = collections.Counter(), collections.Counter()
    most = 0
    seen = set()
    for line in server.usage_lines("settle"):
        of = line["owner"], line["stream_id"], line["created"]
        if of in seen:
            continue
        seen.add(of)
        for kind in ("input", "output", "cache_read", "cache_write"):
            n = (line["usage"] or {}).get(kind) or 0
            tokens[line["model"], kind] += n
            most = max(most, n)
        # 12 decimals, which a float has for numbers as small as these.
        cost[line["model"]] += round((line["total_cost"] or 0) * 10 ** 12)
    return tokens, cost, most


def check_usage(server, now, kills):
    """A process may die between a settle line and its count."""
    tokens, cost, most = settled(server)
    got = {tuple(dict(pairs)[name] for name in ("model", "kind")): value
           for (_, pairs), value in
           now.families["respool_tokens_total"].samples.items() if value}
    for of in set(got) | set(tokens):
        e2e.check(abs(got.get(of, 0) - tokens[of]) <= kills * most,
                  "tokens of %s: got %s, want %s" % (of, got.get(of, 0),
                                                     tokens[of]))
    for model, want in cost.items():
        value = now("cost_usd_total", model=model) * 10 ** 12
        e2e.check(abs(value - want) <= kills * most * PRICES["output"],
                  "cost of %s: got %s, want %s" % (model, value, want))


@e2e.test
def what_the_spool_holds_is_known_without_a_spooler_too(_):
    with e2e.Server(models=MODELS) as server:
        for _ in range(20):
            server.start_stream(message="x").read_all()
        files = server.stream_files()
        held = (len(files), sum(map(os.path.getsize, files)))

        def facts():
            now = look(server)
            return now("spool_files"), now("spool_bytes")
        e2e.wait_until(lambda: facts() == held, 60, "a count of %d files, "
                       "%d bytes" % held)
        server.kill_all("respool-spooler")
        e2e.check_equal(facts(), held, "what is known")


@e2e.test
def a_client_that_takes_nothing_is_a_slow_reader(server):
    before = look(server)
    body = json.dumps({"message": "x", "model": "flood"}).encode()
    slow = server.request("POST", "/api/v1/stream", [
        ("Content-Type", "application/json")], body, receive_buffer=4096)
    slow.read_head()
    counted(server, before, {key("slow_readers_total"): 1})
    slow.close()


# ---- processes that die ----

class Crowd:
    """Clients of one server that start streams, leave them, come back."""

    def __init__(self, server, seed):
        self.server = server
        self.random = random.Random(seed)
        self.kinds = [self.random.choice(
            ("five", "five", "five", "fails", "stop", "resume", "abandon",
             "replay")) for _ in range(STREAMS)]
        self.next = 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.kills = collections.Counter()
        self.looks = 0

    def work(self, number):
        try:
            if number == WORKERS:
                self.kill()
            elif number == WORKERS + 1:
                self.watch()
            else:
                self.read()
        finally:
            if number < WORKERS:
                with self.lock:
                    self.busy -= 1
                    if self.busy == 0:
                        self.over.set()

    def run(self):
        self.busy = WORKERS
        e2e.in_threads(WORKERS + 2, self.work)

    def read(self):
        while True:
            with self.lock:
                if self.next == STREAMS:
                    return
                number = self.next
                self.next += 1
            self.one(self.kinds[number], "s-%d" % number)

    def one(self, kind, sid):
        """A stream to its end, whatever dies meanwhile."""
        model = {"stop": "endless", "abandon": "endless",
                 "resume": "sixty", "replay": "five"}.get(kind, kind)
        reader = servers.Reader(self.server, sid)
        self.start(reader, model)
        if kind == "abandon":
            return
        if kind == "resume":
            reader.visit(10)
        elif kind == "stop":
            reader.visit(5)
            self.stop(sid)
        reader.read_all()
        if kind == "replay":
            servers.Reader(self.server, sid).read_all()

    def start(self, reader, model):
        """Until the stream is known: nobody is told who lost his start."""
        body = {"message": "x", "model": model,
                "stream_id": reader.stream_id}

        def attempt():
            try:
                stream = e2e.Stream(self.server.post("/api/v1/stream", body),
                                    0)
                if model != "five":
                    stream.read_frames(1)
                else:
                    while stream.read_some():
                        pass
                reader.frames = stream.frames
                stream.close()
                return True
            except (OSError, e2e.Malformed):
                time.sleep(0.02)
                return os.path.exists(self.server.stream_path(
                    reader.stream_id))
        e2e.wait_until(attempt, 60, "a start")

    def stop(self, sid):
        def attempt():
            try:
                answer = self.server.post("/api/v1/streams/%s/stop" % sid)
                answer.read()
                return answer.status == 200
            except (OSError, e2e.Malformed):
                time.sleep(0.02)
                return False
        e2e.wait_until(attempt, 60, "a stop")

    def kill(self):
        begun = 0
        while not self.over.wait(self.random.expovariate(1 / KILL_EVERY)):
            if self.next - begun < STREAMS_PER_KILL:
                continue  # a slow machine must get on, too
            begun = self.next
            program = self.random.choice(("respool.fcgi",) * 2 +
                                         ("respool-spooler",))
            pids = self.server.pids(program)
            if pids:
                e2e.kill(self.random.choice(pids), 9)
                self.kills[program] += 1

    def watch(self):
        last = look(self.server)
        while not self.over.wait(0.1):
            try:
                now = look(self.server)
            except (OSError, e2e.Malformed, AssertionError) as e:
                # Whom it asked was killed, or nobody is there yet.
                if isinstance(e, promtext.Malformed):
                    raise
                continue
            changes(last, now)
            e2e.check_equal(now("metrics_shared"), 1, "shared")
            last = now
            self.looks += 1


def ends_of(server):
    """How the streams in the spool have ended, and the errors."""
    results, errors = collections.Counter(), collections.Counter()
    for path in server.stream_files():
        with open(path, "rb") as f:
            data = f.read()
        frames = e2e.parse_frames(data[e2e.HEAD.match(data).end():])
        last = frames[-1]
        e2e.check(last.event in e2e.TERMINAL, "%s has no end" % path)
        if last.event == "error":
            errors[last.data["error_type"]] += 1
            result = "lost" if last.data["error_type"] == "generation_lost" \
                else "failed"
        else:
            result = "stopped" if last.data["finish_reason"] == "stopped" \
                else "finished"
        results[result] += 1
    return results, errors


def check_near(got, want, kills, what):
    e2e.check(abs(got - want) <= kills, "%s: got %s, want %s, kills %d"
              % (what, got, want, kills))


def check_books(server, crowd):
    """Against what lies in the spool, and what the log says."""
    spooler, responder = (crowd.kills[program] for program in
                          ("respool-spooler", "respool.fcgi"))
    now = look(server)
    results, errors = ends_of(server)
    count = sum(results.values())
    check_near(now("streams_started_total"), count, spooler, "started")
    for result in ("finished", "failed", "stopped", "lost"):
        check_near(now("streams_total", result=result), results[result],
                   spooler, result)
    check_near(now("streams_total"), count, spooler, "ended")
    for error, want in errors.items():
        check_near(now("errors_total", type=error), want, spooler, error)
    check_near(now("errors_total"), sum(errors.values()), spooler, "errors")
    check_usage(server, now, spooler)
    log = "\n".join(server.log())
    check_near(now("resumes_total"),
               len(re.findall(r" started pid=\d+ from=[1-9]", log)),
               responder, "resumes")
    check_near(now("streams_abandoned_total"),
               len(re.findall(r" abandoned\b.* tokens=", log)), spooler,
               "abandoned")
    return now, results


@e2e.test
def the_books_balance_over_random_kills(_):
    with e2e.Server(models=MODELS, procs=3, settings=ABANDON) as server:
        crowd = Crowd(server, SEED)
        crowd.run()
        wait_for_responder(server)

        def over():
            now = look(server)
            return now("generations_live") == 0 and now("open_streams") == 0
        e2e.wait_until(over, 60, "the end of all streams")
        # Who asks has what was lost ended.
        e2e.check_equal(server.ctl("check", "--fix").returncode, 0, "check")
        now, results = check_books(server, crowd)
        e2e.check(sum(crowd.kills.values()) > 5 and crowd.looks > 5,
                  "%s kills, %d looks" % (crowd.kills, crowd.looks))
        print("      %d streams: %s; %s; %d looks; %s started, %s counted" % (
            STREAMS, dict(results), dict(crowd.kills), crowd.looks,
            now("streams_started_total"), now("streams_total")))


# ---- disks ----

class SmallDisk(e2e.Server):
    """Its spool is a tmpfs."""

    mounted = False

    def __init__(self, kilobytes, **options):
        self.size = kilobytes
        super().__init__(**options)

    def start(self):
        os.mkdir(self.spool, 0o700)
        owner = "uid=%d,gid=%d," % self.user[2:4] if self.user else ""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "%ssize=%dk,mode=0700"
                        % (owner, self.size), "tmpfs", self.spool],
                       check=True)
        self.mounted = True
        super().start()

    def stop(self):
        for program in e2e.PROGRAMS:
            self.kill_all(program)
        if self.mounted:
            subprocess.run(["umount", "-l", self.spool], check=True)
            self.mounted = False
        return super().stop()


def on_small_disk(kilobytes):
    def decorate(function):
        def run(_):
            if os.geteuid() != 0:
                print("skip  the next one: only root can mount")
                return
            with SmallDisk(kilobytes, models=MODELS, procs=1) as own:
                function(own)
        run.__name__ = function.__name__
        return e2e.test(run)
    return decorate


@on_small_disk(300)
def where_the_file_has_no_room_each_process_counts_for_itself(server):
    pids = server.responders()
    server.start_stream(message="x", stream_id="a").read_all()
    pids += server.spoolers()
    server.resume(2, stream_id="a").read_all()
    now = look(server)
    e2e.check_equal([now(name) for name in (
        "metrics_shared", "streams_started_total", "resumes_total")],
        [0, 0, 1], "the responder's own counts")
    e2e.check(not os.path.exists(server.spool + "/metrics"), "the file")
    e2e.check_equal(server.responders() + server.spoolers(), pids, "pids")


@on_small_disk(2048)
def a_full_disk_and_a_cut_file_kill_nobody(server):
    server.start_stream(message="x", stream_id="a").read_all()
    pids = server.responders() + server.spoolers()
    streams = [server.start_stream(message="x", model="endless")
               .read_frames(1) for _ in range(5)]
    before = look(server)
    filler = e2e.fill(server.spool)
    for stream in streams:
        e2e.check_equal(stream.read_all().frames[-1].data["error_type"],
                        "not_resumable", "the end")
    server.resume(2, stream_id="a").read_all()
    refused = server.post("/api/v1/stream", {"message": "x"})
    e2e.check_equal(refused.status, 503, "status")
    counted(server, before, {
        key("streams_total", result="failed"): 5,
        key("errors_total", type="not_resumable"): 5,
        key("resumes_total"): 1,
        key("starts_refused_total", type="spool_unavailable"): 1,
        key("metrics_shared"): 0,
    })
    os.unlink(filler)
    os.truncate(server.spool + "/metrics", 0)
    server.start_stream(message="x", stream_id="b").read_all()
    e2e.check_equal(look(server)("metrics_shared"), 0, "shared")
    e2e.check_equal(server.responders() + server.spoolers(), pids, "pids")


# ---- ways to run ----

@e2e.test
def each_request_of_a_plain_CGI_program_is_counted(_):
    if servers.ApacheCgi.missing():
        print("skip  this one: there is no Apache")
        return
    with servers.ApacheCgi(models=MODELS) as server:
        before = look(server)
        server.start_stream(message="x", stream_id="a").read_all()
        server.resume(2, stream_id="a").read_all()
        for _ in range(20):
            server.get("/health").read()
        server.get("/api/nothing").read()
        counted(server, before, {
            key("streams_started_total"): 1,
            key("streams_total", result="finished"): 1,
            key("events_sent_total"): 6 + 3,
            key("resumes_total"): 1, key("replays_total"): 1,
            key("http_responses_total", code="404"): 1,
            key("open_streams"): 0, key("resume_seconds"): 0,
        })


class GroupServer(e2e.Server):
    """The spool belongs to another user than the responders', whose spooler
    runs as a service; they are in its group."""

    owner = "nobody"

    def start(self):
        owner = pwd.getpwnam(self.owner)
        os.chmod(self.run, 0o755)
        os.mkdir(self.spool)
        os.chown(self.spool, owner.pw_uid, self.user.pw_gid)
        os.chmod(self.spool, 0o750)
        os.chmod(self.run, 0o777)
        self.service = subprocess.Popen(
            [os.path.join(self.bin, "respool-spooler"), "--foreground"],
            env=self.env, stdin=subprocess.DEVNULL,
            user=owner.pw_uid, group=self.user.pw_gid, extra_groups=[])
        e2e.wait_until(lambda: os.path.lexists(self.spool + "/current"), 20,
                       "the spooler")
        super().start()

    def stop(self):
        self.service.terminate()
        self.service.wait()
        return super().stop()


@e2e.test
def responders_of_the_spools_group_count_too(server):
    if not server.user:
        print("skip  this one: it takes root, and www-data")
        return
    with GroupServer(models=MODELS, procs=2) as own:
        own.start_stream(message="x", stream_id="a").read_all()
        own.resume(2, stream_id="a").read_all()
        st = os.stat(own.spool + "/metrics")
        e2e.check_equal((st.st_mode & 0o777, st.st_gid),
                        (0o660, own.user.pw_gid), "mode and group")
        now = look(own)
        e2e.check_equal(
            [now(name) for name in ("metrics_shared", "streams_started_total",
                                    "resumes_total")], [1, 1, 1], "counted")


# ---- what is made of it ----

def names_in(expression):
    return set(re.findall(r"\brespool_\w+", expression))


def known_names(server):
    names = set()
    for family in look(server).families.values():
        names |= {family.name + suffix for suffix, _ in family.samples}
    return names


def share(*path):
    return os.path.join(e2e.SOURCE, "share", *path)


@e2e.test
def the_alerts_speak_of_what_is_there(server):
    path = share("prometheus", "respool.rules.yml")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    rules = re.findall(r"^ +- (?:alert|record): (\S+)$", text, re.M)
    e2e.check(len(rules) >= 6 and len(set(rules)) == len(rules), "rules")
    records = set(re.findall(r"^ +- record: (\S+)$", text, re.M))
    used = names_in(text) - records
    e2e.check(used, "names")
    e2e.check_equal(used - known_names(server), set(), "unknown names")
    e2e.check_equal(promtext.promtool("check", "rules", path), "",
                    "promtool check rules")


@e2e.test
def the_dashboard_is_one_that_Grafana_takes(server):
    with open(share("grafana", "respool.json"), encoding="utf-8") as f:
        board = json.load(f)
    e2e.check_equal({name: type(board[name]) for name in (
        "title", "uid", "schemaVersion", "panels", "templating", "time",
        "tags", "editable")}, {
            "title": str, "uid": str, "schemaVersion": int, "panels": list,
            "templating": dict, "time": dict, "tags": list, "editable": bool},
        "fields")
    e2e.check(board["id"] is None and len(board["uid"]) <= 40, "id, uid")
    sources = [v["name"] for v in board["templating"]["list"]
               if v["type"] == "datasource" and v["query"] == "prometheus"]
    e2e.check_equal(len(sources), 1, "variables for the data source")
    known = known_names(server)
    taken, ids, rules = set(), set(), []
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        e2e.check(cells and not cells & taken and place["x"] >= 0 and
                  place["x"] + place["w"] <= 24, "the place of %s"
                  % panel["title"])
        taken |= cells
        e2e.check(panel["id"] not in ids and panel["title"], "id, title")
        ids.add(panel["id"])
        if panel["type"] == "row":
            continue
        e2e.check_equal(panel["datasource"], {
            "type": "prometheus", "uid": "${%s}" % sources[0]}, "data source")
        e2e.check(panel["targets"] and panel["fieldConfig"]["defaults"],
                  "targets of %s" % panel["title"])
        refs = [target["refId"] for target in panel["targets"]]
        e2e.check_equal(len(set(refs)), len(refs), "refIds")
        for target in panel["targets"]:
            used = names_in(target["expr"])
            e2e.check(used and used <= known, "%s: %s" % (panel["title"],
                                                          used - known))
            rules.append('      - record: x:y:z%d\n        expr: %s\n' % (
                len(rules), json.dumps(
                    target["expr"].replace("$__rate_interval", "5m"))))
    path = os.path.join(server.run, "board.yml")
    with open(path, "w", encoding="utf-8") as f:
        f.write("groups:\n  - name: x\n    rules:\n" + "".join(rules))
    e2e.check_equal(promtext.promtool("check", "rules", path), "",
                    "promtool check rules")


if __name__ == "__main__":
    e2e.main(models=MODELS, procs=2, settings=ABANDON)
