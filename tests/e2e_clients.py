#!/usr/bin/env -S python3 -B
"""Clients that are not ours read both interfaces without a complaint: curl,
undici's EventSource, eventsource-parser, requests with sseclient.  What the
README shows is run as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from urllib.parse import urlencode

import e2e

SCRIPT = os.path.join(e2e.SOURCE, "tests", "e2e_clients.mjs")
NPM = os.path.join(e2e.BUILD, "tests", "npm")
PIP = os.path.join(e2e.BUILD, "tests", "pip")
PYTHON_ENV = {**os.environ, "PYTHONPATH": PIP, "no_proxy": "*"}
PACKAGES = ["undici@6", "eventsource-parser@3"]
STREAM, TURN = "/api/v1/stream", "/convo_turn_stream"
FAILS = {"provider": "demo", "chunks": 20, "interval_ms": 20, "fail_after": 5,
         "error_type": "overloaded"}

with open(os.path.join(e2e.SOURCE, "README.md"), encoding="utf-8") as _f:
    README = _f.read()
with open(os.path.join(e2e.SOURCE, "models.json.example"),
          encoding="utf-8") as _f:
    MODELS = json.load(_f)
# As without a models file.
MODELS["models"]["echo"].pop("interval_ms")
MODELS["models"] = {name: model for name, model in MODELS["models"].items()
                    if model["provider"] == "demo"} | {"fails": FAILS}


class Server(e2e.Server):
    """With what the demo has, and a persona whose model fails."""

    needs = ("lighttpd", "curl")

    def _environment(self, settings, environment):
        share = os.path.join(self.run, "share")
        shutil.copytree(os.path.join(e2e.SOURCE, "share"), share)
        personas = os.path.join(share, "personas")
        with open(os.path.join(personas, "fails.json"), "w",
                  encoding="ascii") as f:
            json.dump({"id": "fails", "name": "Mute", "system": "Fail.",
                       "model": "fails"}, f)
        for directory, _, names in os.walk(share):
            os.chmod(directory, 0o755)
            for name in names:
                os.chmod(os.path.join(directory, name), 0o644)
        return super()._environment({
            "personas_dir": personas, "default_persona": "lion_001",
            "templates_dir": os.path.join(share, "templates"), **settings},
            environment)

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port


# ---- what may be missing ----

def run_quietly(command, seconds, **options):
    """None, or what went wrong."""
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8",
                              timeout=seconds, check=False, **options)
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["it says nothing"])[-1]


def node_is_missing():
    """The packages come from the registry, and stay in the build directory.
    None, or why they cannot be had."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return "%s is not installed" % program
    if os.path.isdir(os.path.join(NPM, "node_modules", "undici")):
        return None
    os.makedirs(NPM, exist_ok=True)
    why = run_quietly(
        ["npm", "install", "--prefix", NPM, "--no-audit", "--no-fund",
         "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000",
         *PACKAGES], 120)
    if why is None:
        return None
    shutil.rmtree(NPM, ignore_errors=True)
    return "npm cannot install %s: %s" % (" ".join(PACKAGES), why)


def python_is_missing():
    """Likewise; what is installed will do."""
    check = "import requests, sseclient; sseclient.SSEClient.events"
    for install in (False, True):
        why = install and run_quietly(
            [sys.executable, "-m", "pip", "install", "-q", "--retries", "1",
             "--timeout", "20", "--target", PIP, "requests",
             "sseclient-py"], 120)
        why = why or run_quietly([sys.executable, "-c", check], 30,
                                 env=PYTHON_ENV)
        if why is None:
            return None
    shutil.rmtree(PIP, ignore_errors=True)
    return "requests and sseclient cannot be had: " + why


_skipped = []


def test_unless(missing):
    """A test that is skipped when something is missing."""
    def decorate(function):
        if missing is None:
            return e2e.test(function)
        _skipped.append(function.__name__)
        print("skip  %s: %s" % (function.__name__.replace("_", " "), missing))
        return function
    return decorate


NODE_MISSING = node_is_missing()
PYTHON_MISSING = python_is_missing()


# ---- what the README shows ----

def readme_block(language):
    blocks = re.findall(r"^```%s\n(.*?)^```$" % language, README, re.M | re.S)
    e2e.check_equal(len(blocks), 1, "blocks of %s in the README" % language)
    return blocks[0]


def readme_commands():
    """(command, what it prints) of each curl command."""
    for block in re.findall(r"(?:^(?:    .*)?\n)+", README, re.M):
        for part in re.split(r"^    \$ ", block, flags=re.M)[1:]:
            command, shown = re.fullmatch(
                r"((?:[^\n]*\\\n)*[^\n]*)\n(.*)", part, re.S).groups()
            if command.startswith("curl "):
                yield command, re.sub("^    ", "", shown, flags=re.M).strip()


def curl(server, command):
    """Runs a command of the README as it is, but for the address."""
    e2e.check("http://127.0.0.1:8080/" in command, "no address: " + command)
    return subprocess.Popen(
        ["sh", "-c", command.replace("http://127.0.0.1:8080", server.url)],
        env={**os.environ, "no_proxy": "*"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def check_shown(command, shown, printed):
    """What differs from run to run may: "…" is anything, times are any."""
    pattern = re.sub(r"(\\ )?…(\\ )?", ".*", re.escape(shown))
    pattern = re.sub(r'(_ms":)\d+', r"\1\\d+", pattern)
    e2e.check(re.fullmatch(pattern, printed.strip(), re.S),
              "%s\nprints\n%.3000s\nin place of\n%s" % (command, printed,
                                                       shown))


@e2e.test
def the_readmes_curl_commands_print_what_it_shows(server):
    commands = list(readme_commands())
    e2e.check(len(commands) >= 8, "only %d commands" % len(commands))
    for command, shown in commands:
        with curl(server, command) as process:
            printed, complaint = process.communicate()
            e2e.check_equal(process.returncode, 0,
                            command + "\n" + complaint.decode())
        if shown:
            check_shown(command, shown, printed.decode())


def check_live(server, command, events):
    parser, frames = e2e.Parser(0), []
    with curl(server, command) as process:
        while data := os.read(process.stdout.fileno(), 65536):
            frames += parser.feed(data, time.monotonic())
        parser.finish()
    e2e.check_equal([f.event for f in frames], events, "events")
    at = [f.at for f in frames]
    e2e.check(at[-1] - at[0] > 4.5, "they came in a burst")
    # A busy machine may deliver a few late, and the next ones close behind.
    apart = sum(b - a > 0.02 for a, b in zip(at, at[1:]))
    e2e.check(apart >= 80, "only %d came one by one" % apart)


@e2e.test
def curl_prints_the_events_of_both_interfaces_in_order_and_live(server):
    commands = [command for command, _ in readme_commands()]
    stream, = [c for c in commands if "model=echo" in c]
    check_live(server, stream.replace("model=echo", "model=demo")
               .replace("tea-1", "live-1"),
               ["message_chunk"] * 100 + ["done"])
    turn, = [c for c in commands if TURN in c]
    check_live(server, turn.replace("zoo-1", "live-1"),
               ["metadata", "typing"] + ["message"] * 100 +
               ["typing", "complete"])


@e2e.test
def the_readmes_models_file_is_one(server):
    text, = re.findall(r'^    \{ "default".*?\n\n', README, re.M | re.S)
    path = os.path.join(server.run, "readme.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, 0o644)
    server.env["OPENAI_API_KEY"] = "none"
    models = server.env["RESPOOL_MODELS_FILE"]
    server.env["RESPOOL_MODELS_FILE"] = path
    done = server.ctl("models", "check")
    server.env["RESPOOL_MODELS_FILE"] = models
    e2e.check_equal((done.returncode, done.stderr), (0, ""), "models check")


# ---- node ----

def node(mode, *arguments, code=None):
    done = subprocess.run(
        ["node", "--no-warnings", SCRIPT, mode, NPM, *arguments], input=code,
        capture_output=True, encoding="utf-8", timeout=e2e.TEST_TIMEOUT,
        check=False)
    e2e.check_equal((done.returncode, done.stderr), (0, ""), "node")
    told = json.loads(done.stdout)
    e2e.check_equal(told["warnings"], [], "warnings")
    return told


def check_events(server, told, stream_id):
    """What a client was given is what the stream's file holds."""
    want = [[f.event, str(f.id), f.data]
            for f in server.stream_frames(stream_id)]
    got = [[event, number, json.loads(data)]
           for event, number, data in told["events"]]
    e2e.check_equal(got, want, "events")
    e2e.check(want[-1][0] in e2e.TERMINAL, "it did not end")


def both(path_of):
    """(stream_id, URL) of an answer and of a failure, of each interface."""
    rows = ((STREAM, {"model": "echo"}), (STREAM, {"model": "fails"}),
            (TURN, {"animalId": "lion_001"}), (TURN, {"animalId": "fails"}))
    for number, (path, fields) in enumerate(rows):
        stream_id = "%s-%d" % (path_of, number)
        yield stream_id, path, {"stream_id": stream_id,
                                "message": "ä 水 🦁\n\"x\"", **fields}


@test_unless(NODE_MISSING)
def undicis_eventsource_reads_both_interfaces(server):
    for stream_id, path, fields in both("es"):
        told = node("eventsource", server.url + path + "?" +
                    urlencode(fields))
        check_events(server, told, stream_id)
        e2e.check_equal(told["opened"], 1, "connections")


@test_unless(NODE_MISSING)
def undicis_eventsource_goes_on_over_connections_that_end(server):
    with Server(models=MODELS, settings={"max_connection": 1}) as cut:
        for path in (STREAM, TURN):
            told = node("eventsource", cut.url + path +
                        "?stream_id=cut&message=x&user_id=" + path[1:4])
            want = cut.stream_frames("cut", path[1:4])
            e2e.check_equal([(event, number) for event, number, _ in
                             told["events"]],
                            [(f.event, str(f.id)) for f in want], "events")
            e2e.check(told["opened"] >= 3, "it never had to reconnect")


@test_unless(NODE_MISSING)
def undicis_eventsource_left_alone_is_told_that_nothing_follows(server):
    told = node("abandoned", server.url + STREAM +
                "?stream_id=alone&model=echo&message=x")
    check_events(server, told, "alone")


@test_unless(NODE_MISSING)
def eventsource_parser_reads_both_interfaces(server):
    for stream_id, path, fields in both("parser"):
        told = node("parser", server.url + path, json.dumps(fields))
        check_events(server, told, stream_id)
        e2e.check(told["comments"] >= 1, "no comment came")
        e2e.check_equal(set(told["retries"]), {10000}, "retry")


@test_unless(NODE_MISSING)
def the_readmes_javascript_shows_the_answer(server):
    told = node("readme", server.url + "/", code=readme_block("js"))
    e2e.check_equal(told["shown"], "".join("tok%d " % n for n in range(100)),
                    "text")


# ---- Python ----

def run_python(server, code):
    url = "http://127.0.0.1:8080"
    e2e.check(url in code, "no address in the README's Python")
    done = subprocess.run(
        [sys.executable, "-c", code.replace(url, server.url)],
        env=PYTHON_ENV, capture_output=True, encoding="utf-8",
        timeout=e2e.TEST_TIMEOUT, check=False)
    e2e.check_equal((done.returncode, done.stderr), (0, ""), "python")
    return done.stdout


@test_unless(PYTHON_MISSING)
def the_readmes_python_prints_the_answer(server):
    code = readme_block("python")
    e2e.check_equal(run_python(server, code), "Hello there", "output")
    with Server(models=MODELS, settings={"max_connection": 1}) as cut:
        e2e.check_equal(
            run_python(cut, code.replace('"echo"', '"demo"')),
            "".join("tok%d " % n for n in range(100)), "output")


if __name__ == "__main__":
    try:
        e2e.main(Server, models=MODELS)
    except SystemExit as end:
        # Which and why stands above.
        sys.exit(end.code or (77 if _skipped else 0))
