#!/usr/bin/env python3
"""check_library.py - the C library alone: docs/API.md's section of that name
is compiled as it stands, and examples/streamer.c does what it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import e2e

STREAMER = os.path.join(e2e.BUILD, "examples", "streamer")
API = os.path.join(e2e.SOURCE, "docs", "API.md")
DIALECTS = {"stream": "message_chunk", "conversation": "message"}


def section():
    with open(API, encoding="utf-8") as f:
        return f.read().split("\n## The C library\n")[1]


def row(header):
    """What the section's table says of a header."""
    return re.search(r"^\| `%s` \|.*$" % re.escape(header), section(),
                     re.M)[0]


def streamer(mode, data, program=STREAMER):
    return subprocess.run([program, mode], input=data, capture_output=True,
                          timeout=e2e.TEST_TIMEOUT, check=False)


def compile_alone(arguments):
    """What cc says; skipped without one."""
    if shutil.which("cc") is None or shutil.which("pkg-config") is None:
        print("        cc or pkg-config is not installed: not compiled")
        return False
    done = subprocess.run(arguments, cwd=e2e.SOURCE, capture_output=True,
                          shell=isinstance(arguments, str), check=False)
    e2e.check_equal((done.returncode, done.stderr.decode()), (0, ""),
                    "cc's status and output")
    return True


def text_comes_back_from_the_frames_of_both_dialects(_tmp):
    text = "".join("line %d: ä 水 🦁 \"\\\t\n" % n for n in range(500))
    for dialect, event in DIALECTS.items():
        done = streamer(dialect, text.encode())
        e2e.check_equal((done.returncode, done.stderr), (0, b""), "streamer")
        frames = e2e.parse_frames(done.stdout)
        e2e.check_equal("".join(f.data["content"] for f in frames
                                if f.event == event), text, "frames")
        e2e.check_equal(streamer("read", done.stdout).stdout.decode(), text,
                        "text")


def the_events_are_those_of_the_interface(_tmp):
    for dialect, want in (
            ("stream", ["message_chunk", "message_chunk", "done"]),
            ("conversation", ["metadata", "typing", "message", "message",
                              "typing", "complete"])):
        frames = e2e.parse_frames(streamer(dialect, b"one\ntwo").stdout)
        e2e.check_equal([f.event for f in frames], want, dialect)
        e2e.check_equal(frames[-1].data["finish_reason"], "stop", "finish")
        e2e.check_equal(frames[-1].data["total_tokens"], 2, "tokens")


def any_bytes_become_frames(_tmp):
    rows = ((b"", ""), (b"\0\x01\x7f", "\0\x01\x7f"), (b"\r\n\r\n",) * 2,
            (b"a\xffb\xc3", "a\ufffdb\ufffd"), (b"data: x\n\n",) * 2,
            ("水".encode() * 20000,) * 2, (b"\0" * 9999,) * 2)
    for data, want in rows:
        want = want if isinstance(want, str) else want.decode()
        for dialect in DIALECTS:
            done = streamer(dialect, data)
            e2e.parse_frames(done.stdout)
            again = streamer("read", done.stdout)
            e2e.check_equal(again.stdout.decode(), want, repr(data[:20]))
            e2e.check_equal(again.returncode, 0, "status")


def each_line_goes_out_before_the_next_one_comes(_tmp):
    with subprocess.Popen([STREAMER, "stream"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        parser = e2e.Parser(0)
        for number in range(5):
            process.stdin.write(b"line %d\n" % number)
            process.stdin.flush()
            frames = []
            while not frames:
                data = os.read(process.stdout.fileno(), 65536)
                e2e.check(data, "the program ended")
                frames = parser.feed(data, 0.0)
            e2e.check_equal([f.data["content"] for f in frames],
                            ["line %d\n" % number], "frames")
        process.stdin.close()
        e2e.check_equal(parser.feed(process.stdout.read(), 0.0)[0].event,
                        "done", "last event")


def a_source_that_fails_ends_with_error(_tmp):
    with open("/proc/self/mem", "rb") as unreadable:  # at 0
        done = subprocess.run([STREAMER, "conversation"], stdin=unreadable,
                              capture_output=True, check=False)
    e2e.check_equal(done.returncode, 1, "status")
    frames = e2e.parse_frames(done.stdout)
    e2e.check_equal([f.event for f in frames],
                    ["metadata", "typing", "typing", "error"], "events")
    e2e.check_equal(frames[-1].data["error_type"], "upstream_truncated",
                    "error_type")
    again = streamer("read", done.stdout)
    e2e.check_equal(again.returncode, 1, "status of read")
    e2e.check(b"error {" in again.stderr, "the error is not told")


def frames_cut_anywhere_give_the_text_before_the_cut(_tmp):
    data = streamer("stream", b"one\ntwo\n").stdout
    ends = [m.end() for m in re.finditer(rb"\n\n", data)]
    for cut in range(len(data)):
        done = streamer("read", data[:cut])
        e2e.check_equal(done.returncode, 1, "status at %d" % cut)
        e2e.check_equal(done.stdout, b"one\ntwo\n"[
            :4 * sum(end <= cut for end in ends)], "text at %d" % cut)


def the_documented_command_compiles_the_example(tmp):
    command = re.search(r"^    cc .*?[^\\]\n", section(), re.M | re.S)[0]
    program = os.path.join(tmp, "streamer")
    e2e.check(" -o streamer " in command, "no -o streamer: " + command)
    if not compile_alone(command.replace(
            " -o streamer ", " -Werror -o %s " % shlex.quote(program))):
        return
    # Of all the files that the table names, but for one it does not need.
    named = set(re.findall(r"src/(\w+\.c)", command))
    table = set(re.findall(r"`(\w+\.c)`", row("sse.h") + row("dialect.h")))
    e2e.check_equal(named, table - {"sse_frame.c"} | {"err.c"}, "files")
    done = streamer("conversation", b"Hello\nthere\n", program)
    e2e.check_equal(streamer("read", done.stdout, program).stdout,
                    b"Hello\nthere\n", "text")


def the_documented_event_is_what_sse_h_alone_writes(tmp):
    code = re.search(r"```c\n(.*?)```\n\n```text\n(.*?)```", section(),
                     re.S)
    source, program = os.path.join(tmp, "event.c"), os.path.join(tmp, "event")
    with open(source, "w", encoding="utf-8") as f:
        f.write(code[1])
    files = ["src/" + name for name in
             re.findall(r"`(\w+\.c)`", row("sse.h"))]
    if not compile_alone(["cc", "-std=c11", "-D_GNU_SOURCE", "-Werror",
                          "-Isrc", "-o", program, source, *files]):
        return
    e2e.check_equal(subprocess.check_output([program]).decode(),
                    code[2] + "\n", "event")


CHECKS = (
    text_comes_back_from_the_frames_of_both_dialects,
    the_events_are_those_of_the_interface,
    any_bytes_become_frames,
    each_line_goes_out_before_the_next_one_comes,
    a_source_that_fails_ends_with_error,
    frames_cut_anywhere_give_the_text_before_the_cut,
    the_documented_command_compiles_the_example,
    the_documented_event_is_what_sse_h_alone_writes,
)


def main():
    failed = 0
    for check in CHECKS:
        with tempfile.TemporaryDirectory() as tmp:
            try:
                check(tmp)
            except Exception as why:  # whatever it is, the others still run
                failed += 1
                print("%s: %s: %s" % (check.__name__, type(why).__name__,
                                      why))
    print("%d%%: Checks: %d, Failures: %d, Errors: 0" % (
        100 * (len(CHECKS) - failed) // len(CHECKS), len(CHECKS), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
