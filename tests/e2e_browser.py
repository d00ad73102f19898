#!/usr/bin/env -S python3 -B
"""The browser client and the chat page in headless Chromium, through a proxy
that cuts, delays, stalls and mixes up: each test is one of tests/browser/.
Screenshots of the page are left in the build directory."""

import base64
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import e2e
import servers

HERE = os.path.join(e2e.SOURCE, "tests", "browser")
MAGIC = os.path.join(e2e.SOURCE, "static", "magic")
NPM = os.path.join(e2e.BUILD, "tests", "npm-browser")
# The newest that Debian 12's node can run.
PACKAGES = ["playwright-core@1.55.1", "axe-core@4.14.1",
            "html-validate@9.7.1", "stylelint@16.26.1",
            "stylelint-config-standard@38.0.0"]
ENVIRONMENT = dict(os.environ, RESPOOL_NPM=NPM,
                   CHROMIUM=shutil.which("chromium") or "",
                   SCREENSHOTS=os.path.join(e2e.BUILD, "tests",
                                            "screenshots"))
MODELS = {
    "default": "hundred",
    "models": {
        "hundred": {"provider": "demo", "chunks": 100, "interval_ms": 50},
        "fifty": {"provider": "demo", "chunks": 50, "interval_ms": 20},
        "long": {"provider": "demo", "chunks": 3000, "interval_ms": 0},
        "slow": {"provider": "demo", "chunks": 1000, "interval_ms": 50},
        "echo": {"provider": "demo", "interval_ms": 10},
        "text": {"provider": "demo", "interval_ms": 100, "text":
                 "Nothing. The server goes on writing it down, and the page "
                 "comes back and says what it has seen last: it gets what "
                 "follows, each word once and in order.",
                 "prices": {"input": 150000, "output": 600000}},
        "fails": {"provider": "demo", "chunks": 10, "interval_ms": 20,
                  "fail_after": 4, "error_type": "overloaded"},
    },
}
# A zone that is hours from midnight.
NO_MIDNIGHT = "Etc/GMT+11"
if (time.gmtime().tm_hour < 12
        or not os.path.exists("/usr/share/zoneinfo/" + NO_MIDNIGHT)):
    NO_MIDNIGHT = "UTC"
SHARE = os.path.join(e2e.SOURCE, "share")


def skip_reason():
    """The packages come from the registry, and stay in the build directory.
    None, or why this cannot run."""
    if e2e.is_sanitized(os.path.join(e2e.BUILD, "respool.fcgi")):
        return "the browser is tested with the build without sanitizers"
    for name in Server.needs:
        if shutil.which(name) is None:
            return "%s is not installed" % name
    if os.path.isdir(os.path.join(NPM, "node_modules", "stylelint")):
        return None
    os.makedirs(NPM, exist_ok=True)
    try:
        done = subprocess.run(
            ["npm", "install", "--prefix", NPM, "--no-audit", "--no-fund",
             "--ignore-scripts", "--fetch-retries=1",
             "--fetch-timeout=20000", *PACKAGES],
            capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 0:
            return None
        why = done.stderr[-300:]
    except subprocess.TimeoutExpired as e:
        why = str(e)
    shutil.rmtree(NPM, ignore_errors=True)
    return "npm cannot install what it takes: %s" % why


class Server(servers.Server):
    needs = ("lighttpd", "node", "npm", "chromium")
    orders = ("restart", "token", "expired")

    def __init__(self, settings=None, **options):
        super().__init__(models=MODELS, settings={
            "templates_dir": os.path.join(SHARE, "templates"),
            "personas_dir": os.path.join(SHARE, "personas"),
            **(settings or {})}, **options)

    def restart(self):
        """The web server and the responders; their port then."""
        e2e.kill(self.lighttpd.pid, signal.SIGKILL)
        self.lighttpd.wait()
        self.kill_all("respool.fcgi")
        self.start()
        return self.port


class Tokens(Server):
    """Visitors are who a cookie says."""

    def __init__(self):
        super().__init__(settings={"auth": "jwt", "jwt_cookie": "session"})

    def _environment(self, settings, environment):
        self.secret = os.urandom(16).hex()
        path = os.path.join(self.run, "jwt.key")
        with open(path, "w", encoding="ascii") as f:
            f.write(self.secret)
        os.chmod(path, 0o600)
        return super()._environment({"jwt_key_file": path, **settings},
                                    environment)

    def token(self, lives=600):
        signed = b".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
            for part in ({"alg": "HS256", "typ": "JWT"},
                         {"sub": "ann", "exp": int(time.time()) + lives}))
        seal = hmac.digest(self.secret.encode(), signed, "sha256")
        return (signed + b"." +
                base64.urlsafe_b64encode(seal).rstrip(b"=")).decode()

    def expired(self):
        return self.token(-1)


class Basic(Server):
    """Visitors are whom lighttpd knows."""

    def __init__(self):
        super().__init__(settings={"auth": "remote_user"})

    def fill_in(self, template, name=None):
        users = os.path.join(self.run, "users")
        with open(users, "w", encoding="ascii") as f:
            f.write("ann:secret\n")
        os.chmod(users, 0o644)
        rule = ('( "method" => "basic", "realm" => "respool", '
                '"require" => "valid-user" )')
        self.changes = [(
            'server.modules += ( "mod_fastcgi" )',
            'server.modules += ( "mod_auth", "mod_authn_file", '
            '"mod_fastcgi" )\n'
            'auth.backend = "plain"\n'
            'auth.backend.plain.userfile = "%s"\n'
            'auth.require = ( "/api/" => %s, "/convo_" => %s )\n'
            % (users, rule, rule))]
        return super().fill_in(template, name)


def limited(**settings):
    return lambda: Server(settings=settings)


def run(server, name):
    """The test does what it orders, one word a line."""
    with subprocess.Popen(
            ["node", os.path.join(HERE, "run.mjs"), name, str(server.port)],
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True) as node:
        try:
            said = ""
            for line in node.stdout:
                if line.rstrip() in server.orders:
                    node.stdin.write("%s\n" % getattr(server,
                                                      line.rstrip())())
                    node.stdin.flush()
                else:
                    said += line
        except BaseException:
            node.kill()
            raise
    e2e.check_equal(node.returncode, 0, said)


# What each test of tests/browser/ proves.
PROMISES = {
    "a_hundred_events": "a_hundred_events_at_50_ms_all_arrive",
    "latency": "fifty_arrive_over_a_line_of_50_ms",
    "drops": "a_fifth_of_the_frames_is_lost_and_comes_within_3_s",
    "duplicates": "of_50_duplicates_none_is_delivered",
    "order_of_frames": "frames_0_2_1_3_are_delivered_as_0_1_2_3",
    "cuts":
        "cut_after_29_of_50_and_50_of_100_it_resumes_with_the_next_in_2_s",
    "work": "a_recovery_costs_the_client_less_than_100_ms_of_work",
    "silence": "a_line_that_falls_silent_is_left",
    "garbage": "what_is_no_frame_is_a_cut",
    "sleep": "a_machine_that_slept_goes_on_and_has_not_stalled",
    "native_client": "a_plain_event_source_resumes_and_ends_for_good",
    "random_cuts": "the_page_has_the_text_after_200_cuts_at_random",
    "buttons": "the_buttons_of_the_panel_do_harm_that_is_made_good",
    "silence_of_the_page": "a_silence_on_purpose_is_noticed",
    "restart": "an_answer_goes_on_when_the_server_was_restarted",
    "offline": "offline_it_attempts_nothing_and_online_it_goes_on",
    "reload": "a_reload_in_mid_answer_shows_no_less_than_before",
    "storage": "a_reload_without_storage_shows_the_answer_as_well",
    "stop": "stop_ends_the_answer_and_it_can_be_asked_again",
    "failure": "a_failure_is_told_and_the_question_can_be_asked_again",
    "two_tabs": "two_tabs_share_a_connection_that_the_second_takes_over",
    "text_is_text": "what_a_model_says_is_never_html",
    "below_a_path": "the_page_works_below_any_path",
    "persona": "a_conversation_is_the_servers_and_shows_elsewhere",
    "template": "a_template_becomes_a_question",
    "bare": "what_the_server_does_not_have_is_not_offered",
    "refused": "a_refusal_for_load_is_told_and_asked_again",
    "screenshots": "every_state_fits_on_its_screen",
    "axe": "axe_finds_nothing_in_any_state",
    "keyboard": "all_can_be_done_by_keyboard",
}
# Those that want a server of their own.
OPERATORS = {
    "signed_in": ("who_is_signed_in_can_do_all", Tokens),
    "signed_out": ("who_is_not_is_asked_to_and_loses_no_word", Tokens),
    "expired": ("an_answer_goes_on_after_signing_in_again", Tokens),
    "shared": ("a_shared_answer_is_read_live_by_anybody", Tokens),
    "basic": ("the_web_server_may_ask_who_it_is", Basic),
    "soon_again": ("a_limit_of_a_minute_is_told_and_waited_for",
                   limited(owner_max_streams=1, owner_max_starts=2)),
    "tomorrow": ("a_limit_of_a_day_is_told_and_not_waited_for",
                 limited(owner_max_tokens=130, day_zone=NO_MIDNIGHT)),
}


def add(name, promise):
    def call(server):
        run(server, name)
    call.__name__ = promise
    e2e.test(call)


def add_operator(name, promise, server_class):
    def call(_):
        try:
            own = server_class()
        except SystemExit:  # built without what it takes, which it has said
            return
        with own:
            run(own, name)
    call.__name__ = promise
    e2e.test(call)


for pair in PROMISES.items():
    add(*pair)
for word, row in OPERATORS.items():
    add_operator(word, *row)


@e2e.test
def html_and_css_are_valid(server):
    for tool, arguments in (
            ("html-validate", ["-c", os.path.join(HERE, "html-validate.json"),
                               os.path.join(MAGIC, "index.html")]),
            ("stylelint", ["-c", os.path.join(HERE, "stylelint.json"),
                           "--config-basedir", NPM,
                           os.path.join(MAGIC, "magic.css")])):
        done = subprocess.run(
            [os.path.join(NPM, "node_modules", ".bin", tool), *arguments],
            capture_output=True, text=True, cwd=NPM, timeout=e2e.TEST_TIMEOUT,
            check=False)
        e2e.check_equal(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    reason = skip_reason()
    if reason:
        print("%s: skipped" % reason)
        sys.exit(77)
    e2e.TEST_TIMEOUT = 600
    e2e.main(Server)
