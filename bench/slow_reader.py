#!/usr/bin/env -S python3 -B
"""slow_reader.py - what does a client that stops reading cost the others?

Streams of 20 ms a frame run through lighttpd and one responder process, round
after round, in turns without and with one more client that has stopped reading
a stream of 11 MB.  How late a frame is, is counted from the most punctual
frame of its stream.  Prints p50 and p99 of all frames and the responder's CPU
time, round by round, and the ratios: of the medians of all rounds, and of the
best rounds, which a busy machine disturbs less.

RESPOOL_BUILD tells where the programs are built."""

import argparse
import gc
import glob
import os
import signal
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                os.pardir, "tests"))
import e2e  # noqa: E402
import e2e_slow  # noqa: E402

INTERVAL_MS = 20


def lateness(stream):
    """Of each chunk, in ms."""
    at = [frame.at * 1000 - frame.id * INTERVAL_MS
          for frame in stream.frames[:-1]]
    return [x - min(at) for x in at]


def cpu_ms(pid):
    total = 0
    for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
        with open(path, encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total / 1e6


def run(server, count):
    """p50, p99 and the responder's CPU time, all in ms."""
    pid, = server.responders()
    before = cpu_ms(pid)
    crowd = e2e_slow.Crowd(server, count, message="x", model="other")
    gc.disable()
    crowd.run()
    gc.enable()
    took = cpu_ms(pid) - before
    late = sorted(x for stream in crowd.streams() for x in lateness(stream))
    return late[len(late) // 2], late[len(late) * 99 // 100], took


def run_with_stalled(server, count):
    slow = e2e_slow.stalled_client(server, message="x", model="big")
    result = run(server, count)
    e2e.check(e2e_slow.is_followed(server, slow.stream_id), "it did not stall")
    slow.close()
    e2e.wait_until(lambda: not e2e_slow.is_followed(server, slow.stream_id),
                   10, "the end of the slow one")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=30,
                        help="that a round lasts, and the client is stalled")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    models = dict(e2e_slow.MODELS["models"], other={
        "provider": "demo", "interval_ms": INTERVAL_MS,
        "chunks": options.seconds * 1000 // INTERVAL_MS})
    print("lateness, and CPU of the responder, in ms: %d streams, %d frames a second "
          "each, for %d s a round, through lighttpd and one responder"
          % (options.streams, 1000 // INTERVAL_MS, options.seconds))
    without, with_stalled = [], []
    with e2e.Server(models={"default": "other", "models": models},
                    settings=e2e_slow.SETTINGS, procs=1) as server:
        run(server, options.streams)  # to warm up
        for number in range(options.rounds):
            turns = [(run, without), (run_with_stalled, with_stalled)]
            for function, results in turns if number % 2 == 0 else turns[::-1]:
                results.append(function(server, options.streams))
                print("  %-16s p50 %6.2f  p99 %6.2f  CPU %6.0f" % (
                    "without" if function is run else "with a stalled",
                    *results[-1]), flush=True)
    for name, a, b in zip(("p50", "p99", "CPU"), zip(*without),
                          zip(*with_stalled)):
        for what, pick in (("median", statistics.median), ("best", min)):
            print("%s without %.2f, with a stalled client %.2f (%s of %d "
                  "rounds): ratio %.2f" % (name, pick(a), pick(b), what,
                                           options.rounds, pick(b) / pick(a)))


if __name__ == "__main__":
    main()
