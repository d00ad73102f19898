#!/usr/bin/env -S python3 -B
"""Recorded answers of real APIs (tests/wire), end to end: however they arrive,
the frames say what the tables there say."""

import json
import os
from decimal import Decimal

import e2e
import upstream

WIRE = os.path.join(e2e.SOURCE, "tests", "wire")
PROVIDERS = {"openai-chat": "openai", "openai-responses": "openai-responses",
             "anthropic": "anthropic", "gemini": "gemini", "ollama": "ollama"}
PICO = Decimal("0.000000000001")
COUNTS = {"input": "input_uncached", "cache_read": "cache_read",
          "cache_write": "cache_write", "output": "output",
          "reasoning": "reasoning", "total": "total"}
AT_ONCE = 8
WAIT_MAX = 2000  # ms: what would wait longer is stopped
CASES, FAILURES, PRICES = [], [], {}


def read(name):
    with open(os.path.join(WIRE, name), "rb") as f:
        return f.read()


for table in map(json.loads, map(read, ("cases.json", "more.json"))):
    CASES += table["cases"]
    FAILURES += table["http_errors"]
    PRICES.update(table["prices"])
KINDS = {case["file"]: case["content_type"] for case in CASES}


# ---- the upstream's side ----

def play(x):
    """/play/FILE/PATTERN/..."""
    name, pattern = x.target.split("/")[2:4]
    x.head(kind=KINDS[name])
    for piece in upstream.PATTERNS[pattern](read(name)):
        x.write(piece)
    x.end()


def failure(x):
    """/failure/FILE/...: a whole response, head and all."""
    x.raw(read(x.target.split("/")[2]))
    x.close()


UP = upstream.Upstream({"play": play, "failure": failure})


def entry(case, path, retries):
    return UP.model(path, PROVIDERS[case["api"]], retries,
                    prices=PRICES.get(case.get("model")))


# A model for each, as the failures of one would open its circuit.
MODELS = {"default": "failure/" + FAILURES[0]["file"], "models": {}}
for one in CASES:
    for which in upstream.PATTERNS:
        where = "play/%s/%s" % (one["file"], which)
        MODELS["models"][where] = entry(one, where, 0)
for one in FAILURES:
    where = "failure/" + one["file"]
    MODELS["models"][where] = UP.model(where, PROVIDERS[one["api"]], 1)


# ---- what came of it ----

def expand(text):
    """"@repeat:S:N" is S, N times."""
    if not text.startswith("@repeat:"):
        return text
    _, part, count = text.split(":")
    return part * int(count)


def said(stream, event):
    return "".join(f.data["content"] for f in stream.frames
                   if f.event == event)


def tool_calls(stream):
    calls = []
    for f in stream.frames:
        if f.event != "tool_call_chunk":
            continue
        if f.data["index"] == len(calls):
            calls.append({"index": f.data["index"], "id": None,
                          "arguments": ""})
        call = calls[f.data["index"]]
        call.update({name: f.data[name] for name in ("id", "name")
                     if name in f.data})
        call["arguments"] += f.data["arguments"]
    return calls


def check_usage(end, want):
    usage = end.data.get("usage")
    if want["usage"] is None:
        e2e.check_equal((usage, end.data.get("total_cost")), (None, None),
                        "usage and cost")
        return
    e2e.check_equal(usage, {name: want["usage"][theirs]
                            for name, theirs in COUNTS.items()}, "usage")
    e2e.check_equal(Decimal(repr(end.data["total_cost"])),
                    PICO * want["cost_picousd"], "total_cost")
    if "provider_cost_usd" in want:
        e2e.check_equal(end.data["upstream_cost"], want["provider_cost_usd"],
                        "upstream_cost")


def check_error(end, want):
    """A type of ours is compared with ours, another with the upstream's."""
    error, ours = want["error"], want.get("error_type")
    names = {"upstream_truncated", "upstream_bad_json", "upstream_error",
             "model_output_invalid"}
    if error["type"] in names:
        ours = error["type"]
    else:
        e2e.check_equal(end.data["upstream_type"], error["type"],
                        "upstream_type")
    e2e.check_equal(end.event, "error", "the end")
    if ours is not None:
        e2e.check_equal(end.data["error_type"], ours, "error_type")
    e2e.check_equal(end.data.get("upstream_code"), error["code"],
                    "upstream_code")


def check_case(stream, want):
    end = stream.frames[-1]
    for event, name in (("message_chunk", "text"), ("reasoning_chunk",
                        "reasoning"), ("refusal_chunk", "refusal")):
        e2e.check_equal(said(stream, event), expand(want.get(name) or ""),
                        name)
    e2e.check_equal(tool_calls(stream), [
        {"id": None, **call} for call in want.get("tool_calls") or []],
        "tool calls")
    check_usage(end, want)
    if want["finish"] == "error":
        check_error(end, want)
    else:
        e2e.check_equal((end.event, end.data["finish_reason"],
                         end.data.get("upstream_finish_reason")),
                        ("done", want["finish"], want["native_finish"]),
                        "the end")


def check_snapshot(server, stream):
    """It is the fold of the frames."""
    got = server.get("/api/v1/streams/" + stream.stream_id).json()
    end = stream.frames[-1]
    e2e.check_equal((got["text"], got["reasoning"], got.get("refusal", "")),
                    (stream.text(), said(stream, "reasoning_chunk"),
                     said(stream, "refusal_chunk")), "texts of the snapshot")
    e2e.check_equal(got["tool_calls"], tool_calls(stream),
                    "tool calls of the snapshot")
    e2e.check_equal((got["last_event_id"], got["usage"], got["total_cost"]),
                    (end.id, end.data.get("usage"),
                     end.data.get("total_cost")), "snapshot")
    e2e.check_equal(got["partial"], end.event == "error", "partial")


def play_all(server, pattern):
    todo = iter(list(CASES))
    faults = []

    def run(_):
        for case in todo:
            try:
                stream = server.start_stream(
                    message="hi", model="play/%s/%s" % (case["file"], pattern))
                check_case(stream.read_all(), case["expect"])
                check_snapshot(server, stream)
            except (AssertionError, OSError, KeyError) as e:
                faults.append("%s: %s: %s" % (case["file"],
                                              type(e).__name__, e))

    e2e.in_threads(AT_ONCE, run)
    e2e.check(not faults, "\n".join(faults))


@e2e.test
def each_answer_is_told_exactly(server):
    play_all(server, "whole")


@e2e.test
def so_it_is_when_it_comes_byte_by_byte(server):
    play_all(server, "bytes")


@e2e.test
def so_it_is_in_pieces_of_seven_bytes(server):
    play_all(server, "sevens")


@e2e.test
def so_it_is_in_packets(server):
    play_all(server, "packets")


@e2e.test
def so_it_is_when_characters_and_line_ends_are_cut(server):
    play_all(server, "seams")


def fields_of(line):
    return dict(word.split("=", 1) for word in line.split()
                if "=" in word)


def first_failure(server, sid):
    for line in server.log():
        if " stream=%s attempt failed " % sid in line:
            return fields_of(line)
    return None


def check_failure(server, case, stream):
    """The first attempt's line in the log, and what came of it; how many
    requests that makes."""
    got = e2e.wait_until(lambda: first_failure(server, stream.stream_id), 30,
                         "the log line of " + case["file"])
    e2e.check_equal((got["reason"], got["next"]),
                    (case["error_type"],
                     "retry" if case["retryable"] else "none"), case["file"])
    if case["status"] != 200:
        e2e.check_equal(got["status"], str(case["status"]), "status")
    if not case["retryable"]:
        return 1
    wait, want = int(got["wait_ms"]), case["retry_after_ms"]
    if want is not None:
        e2e.check_equal(wait, want, "wait of " + case["file"])
    else:
        e2e.check(375 <= wait <= 500, "wait of %d ms" % wait)
    if wait <= WAIT_MAX:
        return 2
    server.post("/api/v1/streams/%s/stop" % stream.stream_id).read()
    return 1


def check_refusal(server, case, stream):
    target = "/failure/%s/" % case["file"]
    if case["error_type"] is None:
        stream.read_all()
        e2e.check_equal(stream.frames[-1].event, "done", target)
        e2e.check(stream.text(), "no text of " + target)
        return
    want = check_failure(server, case, stream)
    stream.read_all()
    asked = [x for x in UP.exchanges("failure") if x.target.startswith(target)]
    e2e.check_equal(len(asked), want, "requests to " + target)
    e2e.check(b"<" not in stream.bytes(), "a page of " + target)
    if case["retryable"] and want == 1:
        return  # it was stopped
    end = stream.frames[-1]
    e2e.check_equal(end.data.get("error_type"), case["error_type"], target)
    for name in ("upstream_type", "upstream_code"):
        if name in case:
            e2e.check_equal(end.data.get(name, ""), case[name],
                            name + " of " + target)
    if want == 2:
        gap = asked[1].at - asked[0].at
        wait = first_failure(server, stream.stream_id)["wait_ms"]
        e2e.check(gap * 1000 >= int(wait), "a pause of %.3f s" % gap)


@e2e.test
def each_refusal_is_known_and_asked_again_or_not(server):
    # Those that wait do so together, but none that is to be stopped.
    waiting = []
    for case in FAILURES:
        stream = server.start_stream(message=case["file"],
                                     model="failure/" + case["file"])
        if case["retryable"] and (case["retry_after_ms"] or 0) <= WAIT_MAX:
            waiting.append((case, stream))
        else:
            check_refusal(server, case, stream)
    for case, stream in waiting:
        check_refusal(server, case, stream)


if __name__ == "__main__":
    e2e.main(models=MODELS)
