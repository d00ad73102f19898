#!/usr/bin/env -S python3 -B
"""A command whose output is the answer: what it is told, what it says, and
that nothing of it stays."""

import os
import signal

import e2e

SECRET = "sk-not-for-commands"
PRICES = {"input": 1000000, "cache_read": 1000000, "cache_write": 1000000,
          "output": 2000000}


def shell(script, **fields):
    return {"provider": "exec", "command": ["sh", "-c", script], **fields}


TURN_AROUND = r"""
import json, sys
def say(**what):
    print(json.dumps(what), flush=True)
messages = json.loads(sys.stdin.readline())["messages"]
say(reasoning="Let me ", other=1)
say(reasoning="see. ")
for m in messages:
    say(content="%s: %s " % (m["role"], m["content"][::-1]))
say(content="\ud83c")
say(content="\udf0d")
say(usage={"input": len(messages), "output": 7, "reasoning": 2},
    finish_reason="length")
"""
# Leaves a child that would live on.
LINGERS = "sleep 60 & echo started; sleep 60; echo not reached"
# A minute at most, should nobody end it.
STUBBORN = ("trap '' TERM; wait_on() { for n in $(seq 600); do sleep 0.1; "
            "done; }; wait_on & echo started; wait_on")
MODELS = {
    "default": "cat",
    "models": {
        "cat": {"provider": "exec", "command": ["cat"], "prices": PRICES},
        "lines": shell(r"printf 'one\ntwo\r\n\n'; printf 'th'; sleep 0.3; "
                       r"printf 'ree\nrest'", format="lines"),
        "jsonl": {"provider": "exec", "format": "jsonl", "prices": PRICES,
                  "command": ["python3", "-c", TURN_AROUND]},
        "not json": shell("echo '{\"content\":\"so \"}'; echo 'far: no'",
                          format="jsonl"),
        "torn": shell(r"printf 'a\303'; sleep 0.3; "
                  r"printf '\244b\377c\342\202'"),
        "environment": shell("env; pwd; ls -l /proc/self/fd | wc -l"),
        "grumbles": shell("echo 'a \"bad\" day' >&2; printf '\\033[31m' >&2; "
                          "echo ok"),
        "fails": shell("echo so far; exit 3"),
        "killed": shell("echo so far; kill -9 $$"),
        "fails at once": shell("exit 1", retries=3, fallback=["cat"]),
        "missing": {"provider": "exec", "command": ["/no/such/program"]},
        "deaf": shell("exec 0<&-; echo I do not listen"),
        "slow": shell(LINGERS, timeout=0.7),
        "lingers": shell(LINGERS),
        "stubborn": shell(STUBBORN),
    },
}


def ask(server, model, message="hi", **fields):
    return server.start_stream(message=message, model=model, **fields)


def end(stream):
    """(event, finish_reason or error_type)"""
    last = stream.frames[-1]
    return last.event, last.data.get("finish_reason",
                                     last.data.get("error_type"))


def processes(stream_id):
    """The pids of a stream's commands and their children."""
    entry = b"RESPOOL_STREAM_ID=" + stream_id.encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/environ" % name, "rb") as f:
                    if entry in f.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                pass  # has gone
    return found


def zombies(parent):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as f:
                    state, ppid = f.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue  # has gone
            if state == b"Z" and int(ppid) == parent:
                found.append(int(name))
    return found


@e2e.test
def the_prompt_is_its_input_and_no_shell_sees_it(server):
    message = "$(touch /tmp/x) `id` \"'; ä🌍\n" * 5000
    stream = ask(server, "cat", message).read_all()
    e2e.check_equal(stream.text(), message, "text")
    e2e.check_equal(end(stream), ("done", "stop"), "end")
    e2e.check_equal(stream.frames[-1].data["total_cost"], None, "total_cost")


@e2e.test
def who_does_not_read_its_input_answers_too(server):
    stream = ask(server, "deaf", "x" * 500000).read_all()
    e2e.check_equal((stream.text(), end(stream)),
                    ("I do not listen\n", ("done", "stop")), "answer")


@e2e.test
def a_line_is_a_chunk(server):
    stream = ask(server, "lines").read_all()
    e2e.check_equal([f.data["content"] for f in stream.frames[:-1]],
                    ["one\n", "two\r\n", "\n", "three\n", "rest"], "chunks")


@e2e.test
def json_lines_say_all_that_there_is(server):
    messages = [{"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello\nä"},
                {"role": "user", "content": "Bye"}]
    stream = server.start_stream(messages=messages, model="jsonl").read_all()
    e2e.check_equal(stream.text(),
                    "user: iH assistant: ä\nolleH user: eyB 🌍", "text")
    e2e.check_equal("".join(f.data["content"] for f in stream.frames
                            if f.event == "reasoning_chunk"), "Let me see. ",
                    "reasoning")
    done = stream.frames[-1].data
    e2e.check_equal(done["usage"], {
        "input": 3, "cache_read": 0, "cache_write": 0, "output": 7,
        "reasoning": 2, "total": 10}, "usage")
    e2e.check_equal((done["finish_reason"], done["total_cost"],
                     done["estimated"]), ("length", 1.7e-5, False), "done")
    stream = ask(server, "not json").read_all()
    e2e.check_equal((stream.text(), end(stream)),
                    ("so ", ("error", "upstream_bad_json")), "no JSON")


@e2e.test
def bytes_that_are_no_text_are_replaced(server):
    stream = ask(server, "torn").read_all()
    e2e.check_equal(stream.text(), "aäb\ufffdc\ufffd", "text")


@e2e.test
def its_environment_is_clean(_):
    with e2e.Server(models=MODELS, environment={
            "SECRET_KEY": SECRET, "RESPOOL_LOG_LEVEL": "info"}) as server:
        stream = ask(server, "environment").read_all()
        *lines, folder, descriptors = stream.text().splitlines()
        names = {line.split("=")[0] for line in lines}
        # PWD and the like are the shell's own.
        known = {"PATH", "HOME", "LANG", "TZ", "RESPOOL_STREAM_ID",
                 "RESPOOL_MODEL", "PWD", "OLDPWD", "SHLVL", "_"}
        e2e.check(names <= known, "names: %s" % sorted(names - known))
        e2e.check("RESPOOL_STREAM_ID=" + stream.stream_id in lines, "its id")
        e2e.check("RESPOOL_MODEL=environment" in lines, "its model")
        e2e.check_equal(os.path.realpath(folder),
                        os.path.realpath(server.spool), "folder")
        # "total 0", 0 to 2, and the one of ls.
        e2e.check_equal(descriptors.strip(), "5", "descriptors")


@e2e.test
def its_standard_error_is_in_the_log(server):
    stream = ask(server, "grumbles").read_all()
    e2e.check_equal((stream.text(), end(stream)), ("ok\n", ("done", "stop")),
                    "answer")
    mine = [line for line in server.log()
            if "stream=" + stream.stream_id in line and "bad" in line]
    e2e.check_equal(len(mine), 1, "lines")
    e2e.check("\x1b" not in "\n".join(server.log()), "a control character")


@e2e.test
def one_that_fails_keeps_what_it_said(server):
    for model in ("fails", "killed"):
        stream = ask(server, model).read_all()
        e2e.check_equal((stream.text(), end(stream)),
                        ("so far\n", ("error", "exec_failed")), model)
    stream = ask(server, "missing").read_all()
    e2e.check_equal(end(stream), ("error", "exec_failed"), "missing")


@e2e.test
def one_that_said_nothing_has_a_fallback(server):
    stream = ask(server, "fails at once", "instead").read_all()
    e2e.check_equal((stream.text(), stream.frames[-1].data["model"]),
                    ("instead", "cat"), "answer")
    asked = [line for line in server.log()
             if "stream=%s asked" % stream.stream_id in line]
    e2e.check_equal(len(asked), 2, "attempts")


@e2e.test
def its_time_is_limited(server):
    stream = ask(server, "slow").read_all()
    e2e.check_equal(end(stream), ("error", "total_timeout"), "end")
    e2e.check(stream.text() in ("", "started\n"), repr(stream.text()))
    e2e.wait_until(lambda: not processes(stream.stream_id), 20,
                   "the end of its processes")


@e2e.test
def a_stop_ends_its_process_group(server):
    for model in ("lingers", "stubborn"):
        stream = ask(server, model).read_frames(1)
        sid = stream.stream_id
        e2e.wait_until(lambda: len(processes(sid)) >= 2, 20, "its child")
        answer = server.post("/api/v1/streams/%s/stop" % sid)
        e2e.check_equal(answer.json()["state"], "stopped", "state")
        stream.read_all()
        e2e.check_equal(end(stream), ("done", "stopped"), "end")
        e2e.wait_until(lambda: not processes(sid), 20,
                       "the end of the processes of " + model)


@e2e.test
def a_spooler_that_ends_leaves_none_behind(_):
    with e2e.Server(models=MODELS) as server:
        streams = [ask(server, model).read_frames(1)
                   for model in ("lingers", "stubborn")]
        pid, = server.spoolers()
        os.kill(pid, signal.SIGTERM)
        e2e.wait_until(lambda: any("draining" in line or "SIGTERM" in line
                                   for line in server.log()), 20, "its notice")
        os.kill(pid, signal.SIGTERM)
        for stream in streams:
            stream.read_all(cut_ok=True)
            e2e.wait_until(lambda: not processes(stream.stream_id), 20,
                           "the end of its processes")
        e2e.wait_until(lambda: e2e.is_gone(pid), 20, "the spooler's end")


@e2e.test
def many_leave_no_zombies(server):
    def one(number):
        message = "many %d " % number * 20
        stream = ask(server, "cat", message).read_all()
        e2e.check_equal(stream.text(), message, "text")

    e2e.in_threads(40, one)
    pid, = server.spoolers()
    e2e.wait_until(lambda: not zombies(pid), 20, "the end of the zombies")
    with_children = [line for line in server.usage_lines("settle")
                     if line["model"] == "cat"]
    e2e.check(len(with_children) >= 40, "settle lines")


if __name__ == "__main__":
    e2e.main(models=MODELS)
