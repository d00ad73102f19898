#!/usr/bin/env -S python3 -B
"""The browser client's module, run by node, against the real thing: each test
is one of tests/e2e_client.mjs."""

import os
import subprocess

import e2e

SCRIPT = os.path.join(e2e.SOURCE, "tests", "e2e_client.mjs")
MODELS = {
    "default": "hundred",
    "models": {
        "hundred": {"provider": "demo", "chunks": 100, "interval_ms": 20},
        "slow": {"provider": "demo", "chunks": 1000, "interval_ms": 50},
        "fails": {"provider": "demo", "chunks": 10, "fail_after": 4,
                  "error_type": "overloaded"},
    },
}


class Server(e2e.Server):
    needs = ("lighttpd", "node")


def run(server, name):
    done = subprocess.run(["node", SCRIPT, name,
                           "http://127.0.0.1:%d/" % server.port],
                          capture_output=True, timeout=e2e.TEST_TIMEOUT,
                          check=False)
    e2e.check(done.returncode == 0, (done.stdout + done.stderr).decode())


@e2e.test
def an_answer_arrives_whole_over_connections_that_are_cut(server):
    run(server, "cut")


@e2e.test
def a_post_whose_answer_is_lost_buys_one_generation(server):
    before = len(server.stream_files())
    run(server, "lost_answer")
    e2e.check_equal(len(server.stream_files()) - before, 1, "streams")


@e2e.test
def refusals_and_failures_have_their_types(server):
    run(server, "errors")


@e2e.test
def stop_ends_the_loop_with_done(server):
    run(server, "stop")


@e2e.test
def what_comes_after_the_last_frame_is_204(server):
    run(server, "ended")


@e2e.test
def after_a_snapshot_the_rest_comes_once(server):
    run(server, "snapshot")


@e2e.test
def the_module_is_served_with_its_types(server):
    for name, kind in (("respool.js", "text/javascript; charset=utf-8"),
                       ("respool.d.ts", "text/plain; charset=utf-8"),
                       ("package.json", "application/json")):
        response = server.get("/magic/" + name)
        with open(os.path.join(e2e.SOURCE, "static", "magic", name),
                  "rb") as f:
            e2e.check_equal(response.read(), f.read(), name)
        e2e.check_equal(response.status, 200, name)
        e2e.check_equal(response.header("Content-Type"), kind, name)
        e2e.check_equal(response.header("X-Content-Type-Options"), "nosniff",
                        name)


if __name__ == "__main__":
    e2e.main(Server, models=MODELS)
