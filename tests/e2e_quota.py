#!/usr/bin/env -S python3 -B
"""Limits: none is ever exceeded, whatever dies meanwhile; who is refused is
told by which, and nothing is left reserved."""

import collections
import datetime
import glob
import http.server
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from decimal import Decimal

import direct
import e2e

PERSONAS = ("leo", "slow")
URL = "/api/v1/stream"
TURN = "/convo_turn_stream"
PICO = Decimal("0.000000000001")
ZONE = "Europe/Berlin"
if not os.path.exists("/usr/share/zoneinfo/" + ZONE):
    ZONE = "UTC"  # no tzdata here
CHUNKS = 16
ROUNDS = 3
STORM = {
    "owner_max_streams": 3, "owner_max_starts": 25, "owner_max_tokens": 900,
    "address_max_streams": 5, "address_max_cost": "0.0014",
    "max_cost_per_day": "0.0105",
}


class Upstream:
    """Speaks chat completions, CHUNKS chunks an answer.  Knows how many of an
    owner's are being written: the message names the owner."""

    def __init__(self):
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                upstream.answer(self)

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 512

        self.lock = threading.Lock()
        self.live = collections.defaultdict(set)    # sockets, by owner
        self.most = collections.Counter()
        self.limit = STORM["owner_max_streams"]
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever,
                         daemon=True).start()
        self.url = "http://127.0.0.1:%d/v1" % self.server.server_address[1]

    @staticmethod
    def hung_up(sock):
        """Who asked has died."""
        try:
            return bool(select.select([sock], [], [], 0)[0]) and \
                sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except (OSError, ValueError):
            return True

    def begin(self, owner, sock):
        with self.lock:
            self.live[owner].add(sock)
        # A process that is killed hangs up on one after the other.
        for _ in range(3):
            with self.lock:
                live = self.live[owner]
                live -= {other for other in live if self.hung_up(other)}
                count = len(live)
            if count <= self.limit:
                break
            time.sleep(0.1)
        with self.lock:
            self.most[owner] = max(self.most[owner], count)

    def answer(self, handler):
        size = int(handler.headers["Content-Length"])
        asked = json.loads(handler.rfile.read(size))
        owner, _, rest = asked["messages"][-1]["content"].partition(" ")
        self.begin(owner, handler.connection)
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Connection", "close")
            handler.end_headers()
            for _ in range(CHUNKS):
                self.send(handler, {"choices": [{"index": 0, "delta": {
                    "content": "word "}}]})
                time.sleep(0.05)
            while rest == "endless":
                self.send(handler, {"choices": [{"index": 0, "delta": {
                    "content": "a piece of some more bytes "}}]})
                time.sleep(0.002)
            self.send(handler, {"choices": [{
                "index": 0, "delta": {}, "finish_reason": "stop"}]})
            # Whoever reads this counts the answer as over.
            with self.lock:
                self.live[owner].discard(handler.connection)
            self.send(handler, {"choices": [], "usage": {
                "prompt_tokens": 5, "completion_tokens": CHUNKS}})
            handler.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass  # whom it talked to was killed
        with self.lock:
            self.live[owner].discard(handler.connection)
        handler.close_connection = True

    @staticmethod
    def send(handler, chunk):
        handler.wfile.write(b"data: %s\n\n" % json.dumps(chunk).encode())
        handler.wfile.flush()


UPSTREAM = Upstream()
OPENAI = {"provider": "openai", "base_url": UPSTREAM.url, "retries": 0,
          "prices": {"input": 1000000, "output": 1000000}}
MODELS = {
    "default": "short",
    "models": {
        "short": {"provider": "demo", "chunks": 5,
                  "prices": {"input": 1000000, "output": 1000000}},
        "endless": {"provider": "demo", "chunks": 100000, "interval_ms": 20},
        "capped": dict(OPENAI, parameters={"max_tokens": 20}),
        "open": OPENAI,
        "refused": dict(OPENAI, base_url="http://127.0.0.1:9/v1"),
        "zone": {"provider": "exec", "command": ["sh", "-c", "echo =$TZ"],
                 "prices": {"input": 0, "output": 0}},
    },
}


class Limited:
    """Its limits, and two personas."""

    def _environment(self, settings, environment):
        personas = os.path.join(self.run, "personas")
        os.mkdir(personas)
        for name, model in zip(PERSONAS, ("short", "endless")):
            path = os.path.join(personas, name + ".json")
            with open(path, "w", encoding="ascii") as f:
                json.dump({"id": name, "name": name, "system": "Be brief.",
                           "model": model}, f)
            os.chmod(path, 0o644)
        return super()._environment(
            {"personas_dir": personas, "trusted_proxies": "127.0.0.1",
             **settings}, environment)

    def start_from(self, address, path=URL, **fields):
        return self.post(path, {"message": "Hello!", **fields},
                         [("X-Forwarded-For", address)])


class Server(Limited, e2e.Server):
    pass


class Jumping(Limited, direct.Jumping):
    pass


def with_limits(server_class=Server, **settings):
    """A test with a server of its own."""
    def decorate(function):
        def run(_):
            with server_class(models=MODELS, settings=settings) as server:
                function(server)
        run.__name__ = function.__name__
        return e2e.test(run)
    return decorate


def check_refused(answer, limit, low, high):
    """429, which names the limit and when to try again; that."""
    e2e.check_equal(answer.status, 429, "status")
    retry = answer.header("Retry-After")
    body = answer.json()
    e2e.check_equal((body["error_type"], body["limit"]),
                    ("rate_limited", limit), "refusal")
    e2e.check(len(body["error"]) > 20 and "USD" not in body["error"],
              "error %r" % body["error"])
    e2e.check(retry.isdigit() and low <= int(retry) <= high,
              "Retry-After %s, not from %d to %d" % (retry, low, high))
    return int(retry)


def check_done(answer, event="done"):
    stream = e2e.Stream(answer, 0).read_all()
    e2e.check_equal(stream.frames[-1].event, event, "last event")
    return stream


def seconds_to_midnight():
    now = datetime.datetime.now(datetime.timezone.utc)
    return 86400 - (now.hour * 3600 + now.minute * 60 + now.second)


def check_until_midnight(answer, limit):
    left = seconds_to_midnight()
    # It may come while we look.
    check_refused(answer, limit, max(1, left - 60), min(86400, left + 60))


def open_count(server):
    """How many are reserved and not settled, by respoolctl."""
    result = server.ctl("usage", "--json")
    e2e.check_equal((result.returncode, result.stderr), (0, ""), "usage")
    return json.loads(result.stdout)["open"]


def check_nothing_reserved(server):
    # What a killed spooler has left may have to wait for the next look.
    e2e.wait_until(lambda: open_count(server) == 0, 90, "the last settle")


# ---- what the usage files say, read by somebody else ----

class Replay:
    """Adds up all lines in their order, and compares with the limits at each
    reserve."""

    def __init__(self, limits):
        self.limits = limits
        self.open = {}
        self.starts = collections.defaultdict(list)
        self.used = collections.Counter()
        self.reserves = self.lost = 0
        self.faults = []

    def read(self, server):
        for path in sorted(glob.glob(server.spool + "/usage/*.jsonl")):
            with open(path, "rb") as f:
                for line in f:
                    self.line(e2e.parse_json(line), Decimal)
        e2e.check(not self.faults, "%d over a limit: %s"
                  % (len(self.faults), self.faults[:3]))
        return self

    def line(self, line, number):
        key = tuple(line.get(name) for name in ("owner", "stream_id",
                                                "created"))
        if line["type"] == "reserve":
            self.reserve(key, line, number)
        elif line["type"] == "settle" and key in self.open:
            self.settle(self.open.pop(key), line, number)

    def whose(self, line):
        return (("owner", line["owner"]), ("address", line.get("address")),
                ("all", None))

    def reserve(self, key, line, number):
        self.reserves += 1
        self.open[key] = line
        cost = number(repr(line["cost"] or 0))
        for who in self.whose(line):
            self.starts[who].append(line["created"])
            self.used[who + ("tokens",)] += line["tokens"]
            self.used[who + ("cost",)] += cost
            at_once = sum(who in self.whose(other)
                          for other in self.open.values())
            recent = sum(created > line["created"] - 60000
                         for created in self.starts[who])
            for what, value in (
                    ("streams", at_once), ("starts", recent),
                    ("tokens", self.used[who + ("tokens",)]),
                    ("cost", self.used[who + ("cost",)])):
                self.compare(who[0], what, value, key)

    def compare(self, who, what, value, key):
        name = "max_cost_per_day" if who == "all" and what == "cost" else \
            "%s_max_%s" % (who, what)
        limit = self.limits.get(name)
        if limit is not None and value > Decimal(limit):
            self.faults.append("%s=%s is %s at %s" % (name, limit, value,
                                                      key[1]))

    def settle(self, reserved, line, number):
        usage = line["usage"]
        worst = number(repr(reserved["cost"] or 0))
        if line.get("unused"):
            tokens, cost = 0, 0
        elif usage is None or None in (usage["input"], usage["output"]):
            self.lost += 1
            return
        else:
            tokens = usage["total"]
            cost = worst if line["total_cost"] is None else \
                number(repr(line["total_cost"]))
            if tokens > reserved["tokens"] or cost > worst:
                self.faults.append("%s used %d of %d tokens" % (
                    line["stream_id"], tokens, reserved["tokens"]))
        for who in self.whose(reserved):
            self.used[who + ("tokens",)] += tokens - reserved["tokens"]
            self.used[who + ("cost",)] += cost - worst


# ---- many at once ----


class Storm:
    """COUNT clients of OWNERS owners and half as many addresses start at once,
    each ROUNDS answers; meanwhile spoolers are killed and drained."""

    def __init__(self, server, count, owners):
        self.server, self.count, self.owners = server, count, owners
        self.lock = threading.Lock()
        self.refused = collections.Counter()
        self.outcomes = collections.Counter()
        self.over = threading.Event()
        self.killed = []

    def run(self):
        killer = threading.Thread(target=self.kill)
        killer.start()
        e2e.in_threads(self.count, self.client)
        self.over.set()
        killer.join()

    def kill(self):
        chance = random.Random(8)
        while not self.over.wait(0.3 + 0.5 * chance.random()):
            number = (signal.SIGTERM, signal.SIGKILL)[len(self.killed) % 2]
            for pid in self.server.spoolers():
                e2e.kill(pid, number)
            self.killed.append(number)

    def note(self, outcome):
        with self.lock:
            self.outcomes[outcome] += 1

    def client(self, number):
        for turn in range(ROUNDS):
            if not self.one(number, "s-%d-%d" % (number, turn)):
                break

    def one(self, number, sid):
        """An answer to its end; false: it is refused for long."""
        owner = "owner-%d" % (number % self.owners)
        for _ in range(20):
            try:
                answer = self.server.start_from(
                    "192.0.2.%d" % (number % (self.owners // 2)),
                    message=owner, user_id=owner, model="capped",
                    stream_id=sid)
                if answer.status == 200:
                    stream = e2e.Stream(answer, 0).read_all(cut_ok=True)
                    self.note(stream.frames[-1].event if stream.ended
                              else "cut")
                    return True
                if answer.status == 429 and not self.wait(answer):
                    return False
                if answer.status not in (429, 503):
                    raise AssertionError("status %d" % answer.status)
            except ConnectionError:
                pass  # the process that it came to has died
            time.sleep(0.2)
        self.note("given up")
        return True

    def wait(self, answer):
        body = answer.json()
        seconds = int(answer.header("Retry-After"))
        e2e.check_equal(body["error_type"], "rate_limited", "error_type")
        e2e.check(body["limit"] in STORM, "limit %r" % body["limit"])
        with self.lock:
            self.refused[body["limit"]] += 1
        if seconds > 10:
            self.note("refused")
            return False
        time.sleep(seconds / 4)
        return True


def check_storm(server, count, owners):
    UPSTREAM.most.clear()
    storm = Storm(server, count, owners)
    storm.run()
    check_nothing_reserved(server)
    replay = Replay(STORM).read(server)
    e2e.check_equal(replay.open, {}, "open")
    most = max(UPSTREAM.most.values())
    print("      %d reserved, %d lost, refused %s, ended %s, %d kills, "
          "%d at once" % (replay.reserves, replay.lost, dict(storm.refused),
                          dict(storm.outcomes), len(storm.killed), most))
    e2e.check(most <= STORM["owner_max_streams"],
              "%d answers at once of one owner" % most)
    e2e.check(replay.reserves >= 2 * owners, "%d reserved" % replay.reserves)
    e2e.check(sum(storm.refused.values()) > 20, "refused %s" % storm.refused)
    e2e.check(len(storm.killed) >= 3, "%d kills" % len(storm.killed))
    e2e.check(replay.lost > 0, "no kill met an answer")


@with_limits(**STORM)
def no_limit_is_exceeded_whatever_dies_meanwhile(server):
    check_storm(server, 200, 20)


# ---- each limit ----

@with_limits(owner_max_streams=2, turns_at_once="wait")
def streams_at_once(server):
    held = [e2e.Stream(server.start_from("192.0.2.1", user_id="ann",
                                         stream_id=sid, model="endless"), 0)
            for sid in "ab"]
    check_refused(server.start_from("192.0.2.2", user_id="ann"),
                  "owner_max_streams", 5, 5)
    # Others are not concerned, nor is who joins or resumes.
    check_done(server.start_from("192.0.2.1", user_id="bob"))
    joined = e2e.Stream(server.start_from("192.0.2.1", user_id="ann",
                                          stream_id="a", model="endless"), 0)
    joined.read_frames(2).close()
    server.resume(0, user_id="ann", stream_id="b").read_frames(2).close()
    # A turn is a stream, also in one piece.
    for fields in ({}, {"stream": False}):
        check_refused(server.start_from(
            "192.0.2.1", TURN, user_id="ann", animalId="leo", **fields),
            "owner_max_streams", 5, 5)
    e2e.check_equal(server.get("/convo_history", {"sessionId": "s",
                    "user_id": "ann"}).status, 404, "history of a refusal")
    # Over a drain and a kill: the drained one's streams count.
    pid, = server.spoolers()
    e2e.kill(pid, signal.SIGTERM)
    e2e.wait_until(lambda: any("draining" in line for line in server.log()),
                   10, "the drain")
    check_refused(server.start_from("192.0.2.2", user_id="ann"),
                  "owner_max_streams", 5, 5)
    e2e.check_equal(server.post(
        "/api/v1/streams/a/stop?user_id=ann").status, 200, "stop")
    held[0].read_all()
    stream = e2e.Stream(server.start_from("192.0.2.2", user_id="ann",
                                          model="endless"), 0)
    stream.read_frames(1)
    check_refused(server.start_from("192.0.2.2", user_id="ann"),
                  "owner_max_streams", 5, 5)
    server.kill_all("respool-spooler")
    check_done(server.start_from("192.0.2.2", user_id="ann"))
    check_nothing_reserved(server)


@with_limits(owner_max_streams=2, turns_at_once="wait")
def a_turn_that_waits_counts_as_a_stream(server):
    turns = [e2e.Stream(server.start_from(
        "192.0.2.1", TURN, user_id="ann", animalId="slow", sessionId="s",
        stream_id=sid), 0) for sid in "ab"]
    check_refused(server.start_from(
        "192.0.2.1", TURN, user_id="ann", animalId="slow", sessionId="s"),
        "owner_max_streams", 5, 5)
    result = server.ctl("stop", "--all")
    e2e.check_equal((result.returncode, result.stdout), (0, "2 stopped\n"),
                    "stop --all")
    for turn in turns:
        e2e.check_equal(turn.read_all().frames[-1].data["finish_reason"],
                        "stopped", "the end")
    check_done(server.start_from("192.0.2.1", TURN, user_id="ann",
                                 animalId="leo"), "complete")
    check_nothing_reserved(server)


@with_limits(address_max_streams=1)
def streams_at_once_of_an_address(server):
    held = e2e.Stream(server.start_from("192.0.2.1", user_id="ann",
                                        model="endless"), 0).read_frames(1)
    for address in ("192.0.2.1", "10.0.0.1, 192.0.2.1", "::ffff:192.0.2.1"):
        check_refused(server.start_from(address, user_id="bob"),
                      "address_max_streams", 5, 5)
    check_done(server.start_from("192.0.2.1, 192.0.2.2", user_id="ann"))
    held.close()


@with_limits(Jumping, owner_max_starts=3, address_max_starts=4)
def starts_in_a_minute(server):
    for _ in range(3):
        check_done(server.start_from("2001:db8:1:2::1", user_id="ann"))
    seconds = check_refused(server.start_from("192.0.2.9", user_id="ann"),
                            "owner_max_starts", 1, 60)
    server.kill_all("respool-spooler")
    check_refused(server.start_from("192.0.2.9", user_id="ann"),
                  "owner_max_starts", 1, 60)
    check_done(server.start_from("2001:db8:1:2::3", user_id="bob"))
    # One more of that network of 64 bits, and then the next network.
    check_refused(server.start_from("2001:db8:1:2:ffff::", user_id="cid"),
                  "address_max_starts", 1, 60)
    check_done(server.start_from("2001:db8:1:3::", user_id="cid"))
    # Who waits as long as he is told comes through.
    server.jump(seconds)
    check_done(server.start_from("192.0.2.9", user_id="ann"))


# A worst case is 6 bytes of message, some tokens beside it, and 5 or 20 out.
@with_limits(owner_max_tokens=200, address_max_tokens=300)
def tokens_in_a_day(server):
    for n in range(30):
        answer = server.start_from("192.0.2.1", user_id="ann")
        if answer.status == 429:
            break
        check_done(answer)
    check_until_midnight(answer, "owner_max_tokens")
    reserved = server.usage_lines("reserve")[0]["tokens"]
    used = sum(line["usage"]["total"] for line in server.usage_lines("settle"))
    e2e.check(200 - reserved < used <= 200, "%d used, %d reserved"
              % (used, reserved))
    server.kill_all("respool-spooler")
    check_until_midnight(server.start_from("192.0.2.1", user_id="ann"),
                         "owner_max_tokens")
    for owner in ("bob", "cid", "dan", "eve"):
        for _ in range(30):
            answer = server.start_from("192.0.2.1", user_id=owner)
            if answer.status == 429:
                break
            check_done(answer)
    check_until_midnight(answer, "address_max_tokens")
    Replay({"owner_max_tokens": 200, "address_max_tokens": 300}).read(server)


@with_limits(owner_max_cost="0.0002", address_max_cost="0.0003",
             max_cost_per_day="0.0004", default_persona="leo",
             history_tokens=0)
def cost_in_a_day(server):
    limits = ["owner_max_cost", "address_max_cost", "max_cost_per_day"]
    for limit, owner, address in (
            ("owner_max_cost", "a", "192.0.2.1"),
            ("address_max_cost", "b", "192.0.2.1"),
            ("max_cost_per_day", "c", "192.0.2.2")):
        for _ in range(60):
            answer = server.start_from(address, user_id=owner)
            if answer.status == 429:
                break
            check_done(answer)
        check_until_midnight(answer, limit)
    for fields in ({}, {"stream": False}):
        check_until_midnight(server.start_from("192.0.2.3", TURN, **fields),
                             "max_cost_per_day")
    values = ["0.0002", "0.0003", "0.0004"]
    Replay(dict(zip(limits, values))).read(server)


@with_limits(owner_max_tokens=400, reserve_tokens=100)
def an_answer_of_a_model_without_a_maximum_ends_at_the_reserve(server):
    stream = server.start_stream(message="ann endless", user_id="ann",
                                 model="open").read_all()
    last = stream.frames[-1]
    e2e.check_equal((last.event, last.data["error_type"],
                     last.data["partial"]), ("error", "too_long", True),
                    "the end")
    e2e.check(90 < last.data["usage"]["output"] <= 100, "usage %r"
              % last.data["usage"])
    Replay({"owner_max_tokens": 400}).read(server)
    # Without such a limit it goes on.
    with Server(models=MODELS, settings={"reserve_tokens": 100,
                                         "owner_max_streams": 9}) as own:
        own.start_stream(message="bob endless", model="open").read_frames(
            150).close()


@with_limits(owner_max_tokens=10000)
def what_was_refused_upstream_costs_nothing(server):
    for _ in range(30):  # each would reserve 4096
        stream = server.start_stream(message="x", user_id="ann",
                                     model="refused").read_all()
        e2e.check(stream.frames[-1].data["error_type"] in
                  ("connect_failed", "overloaded"), "error_type")


@with_limits(Jumping, owner_max_cost="0.0001", day_zone=ZONE)
def the_next_day_begins_at_midnight_of_the_zone(server):
    for _ in range(60):
        answer = server.start_from("192.0.2.1", user_id="ann")
        if answer.status == 429:
            break
        check_done(answer)
    left = check_refused(answer, "owner_max_cost", 1, 25 * 3600)
    now = datetime.datetime.now(datetime.timezone.utc)
    text = subprocess.run(["date", "-d", "@%d" % (now.timestamp() + left),
                           "+%H:%M"], env={"TZ": ZONE},
                          capture_output=True, check=True).stdout
    e2e.check(text in (b"00:00\n", b"00:01\n", b"23:59\n"),
              "midnight is at %r" % text)
    server.jump(left - 30)
    check_refused(server.start_from("192.0.2.1", user_id="ann"),
                  "owner_max_cost", 1, 40)
    server.jump(left + 1)
    check_done(server.start_from("192.0.2.1", user_id="ann"))
    # Back again: that day is used up.
    server.jump(0)
    check_refused(server.start_from("192.0.2.1", user_id="ann"),
                  "owner_max_cost", 1, 25 * 3600)


@e2e.test
def commands_are_run_in_the_zone_of_the_machine(_):
    with Server(models=MODELS, settings={
            "day_zone": ZONE, "owner_max_streams": 9},
            environment={"TZ": "America/Lima"}) as own:
        stream = own.start_stream(message="x", model="zone").read_all()
        e2e.check_equal(stream.text(), "=America/Lima\n", "TZ")


@with_limits(Jumping, owner_max_streams=1)
def what_a_killed_drain_has_left_is_settled_by_its_successor(server):
    server.start_stream(message="x", user_id="ann",
                        model="endless").read_frames(1).close()
    drained, = server.spoolers()
    e2e.kill(drained, signal.SIGTERM)
    server.start_stream(message="x", user_id="bob",
                        model="endless").read_frames(1).close()
    check_refused(server.start_from("192.0.2.1", user_id="ann"),
                  "owner_max_streams", 5, 5)
    for _ in range(4):  # it is looked for often, and then less often
        server.pass_time(2)
        check_refused(server.start_from("192.0.2.1", user_id="ann"),
                      "owner_max_streams", 5, 5)
    e2e.kill(drained, signal.SIGKILL)  # nobody reads what it wrote

    def started():
        server.pass_time(31)
        answer = server.start_from("192.0.2.1", user_id="ann")
        if answer.status == 200:
            check_done(answer)
        answer.close()
        return answer.status == 200

    e2e.wait_until(started, 60, "ann's next start")
    e2e.check_equal(server.ctl("stop", "--all").stdout, "1 stopped\n",
                    "stop --all")
    e2e.check_equal(open_count(server), 0, "open")


# ---- the operator ----

@with_limits(owner_max_streams=9)
def all_that_is_live_can_be_stopped_at_once(server):
    def start(owner):
        return server.start_stream(message="x", model="endless",
                                   user_id=owner).read_frames(1)

    streams = [start("ann"), start("bob")]
    pid, = server.spoolers()
    e2e.kill(pid, signal.SIGTERM)  # it drains, and theirs go on
    e2e.wait_until(lambda: any("draining" in line for line in server.log()),
                   10, "the drain")
    streams += [start("ann"), start("cid")]
    ended = server.start_stream(message="x", user_id="ann").read_all()
    result = server.ctl("-u", "ann", "stop", "--all")
    e2e.check_equal((result.returncode, result.stdout, result.stderr),
                    (0, "2 stopped\n", ""), "stop --all of ann")
    for stream in (streams[0], streams[2]):
        e2e.check_equal(stream.read_all().frames[-1].data["finish_reason"],
                        "stopped", "the end")
    server.resume(streams[1].frames[-1].id, user_id="bob",
                  stream_id=streams[1].stream_id).read_frames(1).close()
    result = server.ctl("stop", "--all")
    e2e.check_equal(result.stdout, "2 stopped\n", "stop --all")
    for stream in (streams[1], streams[3]):
        e2e.check_equal(stream.read_all().frames[-1].data["finish_reason"],
                        "stopped", "the end")
    result = server.ctl("stop", "--all")
    e2e.check_equal((result.returncode, result.stdout), (0, "0 stopped\n"),
                    "stop --all again")
    e2e.check_equal(server.stream_frames(ended.stream_id, "ann")[-1].event,
                    "done", "what had ended")
    check_nothing_reserved(server)


@e2e.test
def what_guards_nothing_is_told(server):
    for settings, words in (
            ({}, ["set max_cost_per_day"]),
            ({"RESPOOL_AUTH": "remote_user"}, []),
            ({"RESPOOL_MAX_COST_PER_DAY": "5"}, []),
            ({"RESPOOL_DAY_ZONE": "Europe/Atlantis"}, ["day_zone"]),
            ({"RESPOOL_DAY_ZONE": "../../../etc/passwd"}, ["day_zone"])):
        result = subprocess.run(
            [server.bin + "/respool.fcgi", "-t"], capture_output=True,
            env={**server.env, **settings}, encoding="utf-8", check=False)
        e2e.check_equal(result.returncode, int("day_zone" in words), "status")
        lines = result.stderr.splitlines()
        e2e.check_equal(len(lines), len(words), repr(lines))
        for line, word in zip(lines, words):
            e2e.check(word in line, repr(line))
    result = server.ctl("doctor")
    e2e.check(any("limits" in line and "max_cost_per_day" in line
                  for line in result.stdout.splitlines()), result.stdout)


def by_hand(words):
    """e2e_quota.py storm COUNT OWNERS"""
    e2e.set_up(Server.needs)
    with Server(models=MODELS, settings=STORM, procs=4) as server:
        check_storm(server, *map(int, words))


if __name__ == "__main__":
    if sys.argv[1:2] == ["storm"]:
        by_hand(sys.argv[2:])
    else:
        e2e.main(server_class=Server, models=MODELS)
