#!/usr/bin/env -S python3 -B
"""What was bought is counted once, and exactly."""

import collections
import datetime
import http.server
import json
import os
import random
import threading
from decimal import Decimal

import e2e

PRICES = {"input": 150001, "cache_read": 75003, "cache_write": 7,
          "output": 600007}
PICO = Decimal("0.000000000001")
COLUMNS = ("generations", "failed", "partial", "estimated", "open", "input",
           "cache_read", "cache_write", "output", "reasoning", "unpriced")


class Upstream:
    """Speaks chat completions.  The message says what happens: "N" is N
    chunks, and N is its prompt's tokens, too; "N fail" an error behind N of
    them; "N hold" waits behind N of them until the connection ends."""

    def __init__(self):
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                upstream.answer(self)

        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.requests = collections.Counter()   # by message
        self.chunks = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                                      Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever,
                         daemon=True).start()
        self.url = "http://127.0.0.1:%d/v1" % self.server.server_address[1]

    @staticmethod
    def usage(message):
        n = int(message.split()[0])
        return {"prompt_tokens": n, "completion_tokens": 2 * n,
                "total_tokens": 3 * n, "cost": n / 1000,
                "prompt_tokens_details": {"cached_tokens": n // 3}}

    def answer(self, handler):
        size = int(handler.headers["Content-Length"])
        message = json.loads(handler.rfile.read(size))["messages"][-1][
            "content"]
        words = message.split()
        with self.lock:
            self.requests[message] += 1
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Connection", "close")
            handler.end_headers()
            for number in range(int(words[0])):
                self.send(handler, {"choices": [{"index": 0, "delta": {
                    "content": "tok%d " % number}}]})
            if "fail" in words:
                self.send(handler, {"error": {"message": "no", "type": "x"}})
            elif "hold" in words:
                handler.connection.recv(1)
            else:
                self.send(handler, {"choices": [{
                    "index": 0, "delta": {}, "finish_reason": "stop"}]})
                self.send(handler, {"choices": [],
                                    "usage": self.usage(message)})
                handler.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass  # whom it talked to was killed
        handler.close_connection = True

    def send(self, handler, chunk):
        handler.wfile.write(b"data: %s\n\n" % json.dumps(chunk).encode())
        handler.wfile.flush()
        with self.lock:
            self.chunks += 1
            self.changed.notify_all()

    def wait_chunks(self, count):
        with self.lock:
            e2e.check(self.changed.wait_for(lambda: self.chunks >= count,
                                            e2e.IO_TIMEOUT), "chunks")


UPSTREAM = Upstream()
MODELS = {
    "default": "priced",
    "models": {
        "priced": {"provider": "openai", "base_url": UPSTREAM.url,
                   "prices": PRICES, "retries": 0},
        "unpriced": {"provider": "openai", "base_url": UPSTREAM.url,
                     "retries": 0},
        "fails": {"provider": "demo", "fail_after": 0,
                  "error_type": "overloaded", "fallback": ["priced"]},
    },
}


def ask(server, message, **fields):
    """A stream to its end; its terminal frame's data."""
    stream = server.start_stream(message=message, **fields).read_all()
    return stream.frames[-1].data


def usage(server, *options, **kwargs):
    result = server.ctl("usage", "--json", *options, **kwargs)
    e2e.check_equal((result.returncode, result.stderr), (0, ""), "usage")
    return json.loads(result.stdout, parse_float=Decimal)


def cost_of(message):
    """What respool must reckon, in USD."""
    n = int(message.split()[0])
    cached = n // 3
    return PICO * ((n - cached) * PRICES["input"] +
                   cached * PRICES["cache_read"] + 2 * n * PRICES["output"])


def numbers(row):
    return {name: row[name] for name in COLUMNS if row[name] != 0}


@e2e.test
def nothing_used_costs_nothing(server):
    got = usage(server)
    e2e.check_equal((got["models"], numbers(got), got["total_cost"]),
                    ([], {}, 0), "usage")
    result = server.ctl("usage")
    e2e.check_equal(result.returncode, 0, "status")
    e2e.check_equal([line.split()[-1] for line in result.stdout.splitlines()],
                    ["MODEL", "(all)"], "lines")


@e2e.test
def the_sums_are_those_of_the_frames(server):
    with e2e.Server(models=MODELS) as own:
        done = [ask(own, "10", user_id="ann", stream_id="a"),
                ask(own, "100", user_id="bob", stream_id="a")]
        for _ in range(3):  # replays cost nothing
            own.resume(3, user_id="ann", stream_id="a").read_all()
            own.start_stream(message="10", user_id="ann",
                             stream_id="a").read_all()
        e2e.check_equal([Decimal(repr(d["total_cost"])) for d in done],
                        [cost_of("10"), cost_of("100")], "total_cost")
        e2e.check_equal([d["upstream_cost"] for d in done],
                        ["0.01", "0.1"], "upstream_cost")
        got = usage(own)
        want = {"generations": 2, "input": 7 + 67, "cache_read": 3 + 33,
                "output": 220}
        e2e.check_equal(numbers(got), want, "sums")
        e2e.check_equal(got["total_cost"], cost_of("10") + cost_of("100"),
                        "cost")
        e2e.check_equal([row["model"] for row in got["models"]], ["priced"],
                        "models")
        e2e.check_equal(usage(own, "--owner", "ann")["total_cost"],
                        cost_of("10"), "ann's cost")
        result = own.ctl("-u", "bob", "usage", "--json")
        e2e.check_equal(json.loads(result.stdout)["generations"], 1, "bob's")
        lines = own.usage_lines("settle")
        e2e.check_equal([line["upstream_cost"] for line in lines],
                        ["0.01", "0.1"], "upstream_cost of the lines")


@e2e.test
def what_is_not_known_is_shown_apart(server):
    with e2e.Server(models=MODELS) as own:
        e2e.check_equal(ask(own, "5", model="unpriced")["total_cost"], None,
                        "total_cost")
        ask(own, "6")
        held = own.start_stream(message="7 hold", stream_id="h")
        held.read_frames(7)
        got = usage(own)
        e2e.check_equal((got["generations"], got["open"], got["unpriced"],
                         got["total_cost"]), (2, 1, 1, cost_of("6")), "held")
        text = own.ctl("usage").stdout.splitlines()
        e2e.check(text[-2].startswith("1 without a price"), repr(text))
        e2e.check(text[-1].startswith("1 open"), repr(text))
        e2e.check_equal(own.post("/api/v1/streams/h/stop").status, 200,
                        "status of the stop")
        held.read_all()
        got = usage(own)
        e2e.check_equal((got["generations"], got["open"], got["partial"],
                         got["estimated"], got["failed"]), (3, 0, 1, 1, 0),
                        "stopped")
        e2e.check_equal(ask(own, "8 fail")["error_type"], "upstream_error",
                        "error_type")
        got = usage(own)
        e2e.check_equal((got["generations"], got["failed"], got["partial"]),
                        (4, 1, 2), "failed")


@e2e.test
def the_model_that_answered_is_charged(server):
    with e2e.Server(models=MODELS) as own:
        done = ask(own, "9", model="fails")
        e2e.check_equal(done["model"], "priced", "model")
        e2e.check_equal([row["model"] for row in usage(own)["models"]],
                        ["priced"], "models")
        e2e.check_equal(usage(own, "--model", "priced")["generations"], 1,
                        "priced")
        e2e.check_equal(usage(own, "--model", "fails")["generations"], 0,
                        "fails")


@e2e.test
def a_day_is_asked_for_by_its_date(server):
    with e2e.Server(models=MODELS) as own:
        ask(own, "4")
        day = max(os.listdir(os.path.join(own.spool, "usage")))[:10]
        e2e.check_equal(usage(own, "--day", day)["generations"], 1, day)
        before = str(datetime.date.fromisoformat(day) -
                     datetime.timedelta(days=1))
        e2e.check_equal(usage(own, "--day", before)["generations"], 0, before)
        for wrong in (["--day", "today"], ["--day", day + "x"], ["--day"],
                      ["--nope"], ["more"], ["--owner", ""]):
            result = own.ctl("usage", *wrong)
            e2e.check_equal((result.returncode, result.stdout), (2, ""),
                            repr(wrong))


def message_of(sid):
    return "3" if sid == "last" else sid[1:]


def ask_many(server, first, count, kill_at):
    """Asks count questions at once, and kills the spooler when the upstream
    has said that many chunks."""
    begun = UPSTREAM.chunks

    def one(number):
        try:
            server.start_stream(
                message=str(first + number), stream_id="k%d" % (first + number)
            ).read_all(cut_ok=True)
        except (OSError, e2e.Malformed):
            pass  # killed before it had begun, perhaps

    killer = threading.Thread(target=lambda: (
        UPSTREAM.wait_chunks(begun + kill_at),
        server.kill_all("respool-spooler")))
    killer.start()
    e2e.in_threads(count, one)
    killer.join()


@e2e.test
def killed_spoolers_leave_one_line_for_each_generation(server):
    chance = random.Random(4)
    with e2e.Server(models=MODELS, settings={"idle_exit": 600}) as own:
        UPSTREAM.requests.clear()
        for first in range(20, 220, 20):
            ask_many(own, first, 20, chance.randrange(1, 20 * first))
        ask(own, "3", stream_id="last")  # its spooler has recovered the rest
        for path in own.stream_files():  # whoever asks for one has it sealed
            sid = os.path.basename(path)[17:-4]
            own.start_stream(message=message_of(sid), stream_id=sid).read_all()
        e2e.check_equal(own.ctl("check", "--fix").returncode, 0, "check")
        lines = own.usage_lines("settle")
        settled = collections.Counter(line["stream_id"] for line in lines)
        e2e.check_equal([sid for sid, n in settled.items() if n != 1], [],
                        "settled more than once")
        reserved = {line["stream_id"] for line in own.usage_lines("reserve")}
        # One that was killed before it could reserve has asked nobody.
        early = {line["stream_id"] for line in lines
                 if line["usage"] is None and
                 line["error_type"] == "generation_lost"}
        e2e.check_equal(reserved - set(settled), set(), "reserved only")
        e2e.check(set(settled) - reserved <= early, "settled only")
        e2e.check_equal([m for m, n in UPSTREAM.requests.items() if n != 1],
                        [], "asked more than once")
        known = [line for line in lines if not line["estimated"] and
                 line["usage"] is not None]
        e2e.check(0 < len(known) < len(lines), "all or none survived")
        for line in known:
            message = message_of(line["stream_id"])
            e2e.check_equal(line["usage"]["total"],
                            UPSTREAM.usage(message)["total_tokens"],
                            "tokens of " + line["stream_id"])
            e2e.check_equal(Decimal(repr(line["total_cost"])),
                            cost_of(message), "cost of " + line["stream_id"])
        got = usage(own)
        e2e.check_equal((got["generations"], got["open"]), (len(lines), 0),
                        "generations")
        e2e.check_equal(got["total_cost"], sum(
            Decimal(repr(line["total_cost"])) for line in lines
            if line["total_cost"] is not None), "cost")


if __name__ == "__main__":
    e2e.main(models=MODELS)
