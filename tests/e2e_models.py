#!/usr/bin/env -S python3 -B
"""respoolctl models: what there is, what is wrong, what answers."""

import http.server
import json
import os
import re
import threading

import e2e

KEY = "sk-secret-0123456789"
MESSAGES = []


class Upstream(http.server.BaseHTTPRequestHandler):
    """/good answers, /bad refuses the key and repeats it."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size))
        MESSAGES.append((self.path, self.headers["Authorization"], body))
        if self.path.startswith("/bad"):
            text = json.dumps({"error": {
                "message": "Incorrect API key: %s.\n\x1b[31mNo!" % KEY,
                "code": "invalid_api_key"}}).encode()
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
        else:
            text = (b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},'
                    b'"finish_reason":"length"}]}\n\ndata: [DONE]\n\n')
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


UPSTREAM = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
UPSTREAM.daemon_threads = True
threading.Thread(target=UPSTREAM.serve_forever, daemon=True).start()
URL = "http://127.0.0.1:%d" % UPSTREAM.server_address[1]
PRICES = {"input": 150000, "cache_read": 75000, "output": 600000}
MODELS = {
    "default": "good",
    "models": {
        "good": {"provider": "openai", "base_url": URL + "/good",
                 "api_key_env": "TEST_KEY", "prices": PRICES,
                 "parameters": {"temperature": 1, "max_tokens": 99},
                 "fallback": ["demo"], "system": "Be brief."},
        "demo": {"provider": "demo", "prices": PRICES, "hidden": True},
        "shout": {"provider": "exec", "command": ["tr", "a-z", "A-Z"],
                  "prices": PRICES},
    },
}


def bad_models(server):
    files = {"open": 0o644, "odd": 0o600}
    for name, mode in files.items():
        path = os.path.join(server.run, name)
        with open(path, "w", encoding="ascii") as f:
            f.write("two\nlines\n")
        os.chmod(path, mode)
        if server.user:
            os.chown(path, server.user.pw_uid, server.user.pw_gid)
    openai = {"provider": "openai", "base_url": "https://127.0.0.1:1"}
    return {"models": {
        "unset": dict(openai, api_key_env="TEST_NO_KEY", prices=PRICES),
        "gone": dict(openai, api_key_file="gone", prices=PRICES),
        "open": dict(openai, api_key_file="open", prices=PRICES),
        "odd": dict(openai, api_key_file="odd", prices=PRICES),
        "keyless": dict(openai, prices=PRICES),
        "unpriced": dict(openai, auth="none"),
        "cacheless": dict(openai, auth="none",
                          prices={"input": 1, "output": 1}),
        "falls": {"provider": "demo", "prices": PRICES,
                  "fallback": ["unpriced"]},
        "param": dict(openai, auth="none", prices=PRICES,
                      parameters={"seed": 1, "top_p": 1}),
        "clear": dict(openai, base_url="http://192.0.2.1/v1",
                      api_key_env="TEST_KEY", prices=PRICES),
        "command": {"provider": "exec", "command": ["bin/nope"],
                    "cwd": "nowhere", "prices": PRICES},
    }}


@e2e.test
def models_are_listed_without_their_keys(server):
    result = server.ctl("models")
    e2e.check_equal((result.returncode, result.stderr), (0, ""), "models")
    rows = [line.split() for line in result.stdout.splitlines()]
    e2e.check_equal(rows[0], ["NAME", "PROVIDER", "UPSTREAM", "KEY", "INPUT",
                              "CACHE_READ", "CACHE_WRITE", "OUTPUT", "NOTES"],
                    "head")
    e2e.check_equal(rows[1], ["good", "openai", "good", "present", "0.15",
                              "0.075", "-", "0.6", "default",
                              "fallback=demo"], "good")
    e2e.check_equal(rows[2][-1], "hidden", "demo")
    e2e.check_equal(len(rows), 5, "lines")
    e2e.check(KEY not in result.stdout, "the key")


@e2e.test
def a_good_file_has_no_faults(server):
    result = server.ctl("models", "check")
    e2e.check_equal((result.returncode, result.stdout, result.stderr),
                    (0, "models 3, faults 0, warnings 0\n", ""), "check")


@e2e.test
def a_ping_asks_each_model_for_one_token(server):
    MESSAGES.clear()
    result = server.ctl("models", "check", "--ping")
    e2e.check_equal((result.returncode, result.stderr), (0, ""), "ping")
    lines = result.stdout.splitlines()
    for line, finish in zip(lines, ("length", "stop", "stop")):
        e2e.check(re.fullmatch(r"\w+: ok first_ms=[0-9]+ total_ms=[0-9]+ "
                               "finish=" + finish, line), line)
    e2e.check_equal(lines[3], "models 3, faults 0, warnings 0", "last line")
    (path, auth, body), = MESSAGES
    e2e.check_equal((path, auth), ("/good/chat/completions",
                                   "Bearer " + KEY), "request")
    e2e.check_equal(body["temperature"], 1, "temperature")
    e2e.check(1 in (body.get("max_tokens"),
                    body.get("max_completion_tokens")), repr(body))


@e2e.test
def a_ping_tells_the_upstreams_words_but_not_the_key(server):
    with e2e.Server(environment={"TEST_KEY": KEY}, models={"models": {
            "bad": {"provider": "openai", "base_url": URL + "/bad",
                    "api_key_env": "TEST_KEY", "prices": PRICES,
                    "retries": 2, "fallback": ["demo"]},
            "demo": MODELS["models"]["demo"]}}) as own:
        result = own.ctl("models", "check", "--ping")
        e2e.check_equal((result.returncode, result.stderr), (1, ""), "ping")
        first, second, last = result.stdout.splitlines()
        e2e.check(re.fullmatch(r"bad: auth after [0-9]+ ms \"Incorrect API "
                               r"key: \*+\..*No!\"", first), first)
        e2e.check("\x1b" not in first and KEY not in first, first)
        e2e.check(second.startswith("demo: ok "), second)
        e2e.check_equal(last, "models 2, faults 1, warnings 0", "last line")


@e2e.test
def check_says_what_is_wrong(server):
    with e2e.Server(environment={"TEST_KEY": KEY}) as own:
        own.write_models(bad_models(own))
        result = own.ctl("models", "check")
        e2e.check_equal((result.returncode, result.stderr), (1, ""), "check")
        said = {}
        for line in result.stdout.splitlines()[:-1]:
            name, text = line.split(": ", 1)
            said.setdefault(name, []).append(text)
        for name, pattern in (
                ("unset", "the environment variable TEST_NO_KEY is not set"),
                ("gone", "the key file /.*/gone is not there"),
                ("open", "the key file /.*/open must be readable by its own"),
                ("odd", "the key is not one line of visible ASCII"),
                ("keyless", "warning: no key is configured"),
                ("unpriced", "warning: without prices of input and output"),
                ("cacheless", "warning: without a price of cache_read"),
                ("falls", "warning: its fallback unpriced has no prices"),
                ("param", "warning: respool does not know the parameter seed"),
                ("clear", "warning: its key crosses the network in the")):
            texts = said.pop(name)
            e2e.check(len(texts) == 1 and re.match(pattern, texts[0]),
                      "%s: %r" % (name, texts))
        e2e.check_equal(len(said.pop("command")), 2, "faults of the command")
        e2e.check_equal(said, {}, "more")
        e2e.check_equal(result.stdout.splitlines()[-1],
                        "models 11, faults 6, warnings 6", "last line")


@e2e.test
def a_file_with_faults_is_told_line_by_line_and_needs_no_spool(server):
    with e2e.Server() as own:
        own.write_models({"models": {
            "a": {"provider": "openai", "api_key": KEY},
            "b": {"provider": "demo", "fallback": ["c"]}}})
        own.env["RESPOOL_SPOOL_DIR"] = os.path.join(own.run, "none")
        for arguments in (["models"], ["models", "check"]):
            result = own.ctl(*arguments)
            e2e.check_equal((result.returncode, result.stdout), (1, ""),
                            repr(arguments))
            path = own.env["RESPOOL_MODELS_FILE"]
            lines = result.stderr.splitlines()
            e2e.check(lines[0].startswith(path + ": models.a.api_key: a key "
                                          "does not belong"), lines[0])
            e2e.check_equal(lines[1], path + ": models.b.fallback: models "
                            "does not have each of them", "second line")
            e2e.check(KEY not in result.stderr, "the key")
        e2e.check(not os.path.exists(os.path.join(own.run, "none")), "spool")
        e2e.check_equal(own.ctl("models", "list").returncode, 2, "status")


@e2e.test
def the_example_has_the_prices_of_the_docs(server):
    path = os.path.join(e2e.SOURCE, "docs", "providers", "prices.md")
    with open(path, encoding="utf-8") as f:
        rows = [[cell.strip() for cell in line.strip("|\n").split("|")]
                for line in f if line.startswith("| ")]
    want = {row[0]: [cell.replace("–", "-") for cell in row[1:]]
            for row in rows[2:]}
    with open(os.path.join(e2e.SOURCE, "models.json.example"),
              encoding="utf-8") as f:
        models = json.load(f)
    with e2e.Server() as own:
        own.write_models(models)
        lines = own.ctl("models").stdout.splitlines()[1:-1]
        got = {row[0]: row[4:8] for row in map(str.split, lines)}
        e2e.check_equal({name: got[name] for name in want}, want, "prices")
        e2e.check(len(want) > 5, "rows")
        result = own.ctl("models", "check")
        e2e.check("fallback" not in result.stdout, result.stdout)


if __name__ == "__main__":
    e2e.main(models=MODELS, environment={"TEST_KEY": KEY})
