#!/usr/bin/env -S python3 -B
"""Who may what: every verb, asked by every kind of caller; and read links."""

import base64
import collections
import glob
import hmac
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from urllib.parse import urlencode

import direct
import e2e
import servers

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo"},
        "live": {"provider": "demo", "chunks": 100000, "interval_ms": 50},
        "ten": {"provider": "demo", "chunks": 10, "interval_ms": 10},
        "pace": {"provider": "demo", "hidden": True, "chunks": 20,
                 "interval_ms": 50},
    },
}
ANN, BEN = "ann@house.example", "ben@house.example"
AUDIENCE = "respool.example"
STREAM, STREAMS = "/api/v1/stream", "/api/v1/streams"
TURN, HISTORY = "/convo_turn_stream", "/convo_history"
JSON = [("Accept", "application/json")]
MADE_UP = re.compile(r"stream_[0-9a-f]{32}|session_[0-9a-f]{32}")


# ---- keys and tokens ----

def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, check=True,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


class Key:
    """One that tokens are made with, and the file that respool checks them
    by."""

    def __init__(self, directory, algorithm, name="key"):
        self.algorithm = algorithm
        self.private = os.path.join(directory, name + algorithm)
        self.public = self.private + ".pub"
        if algorithm == "HS256":
            self.secret = b64(os.urandom(32)).encode()
            self._write(self.secret + b"\n")
            return
        kind = (["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
                if algorithm == "RS256" else
                ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
        openssl("genpkey", "-algorithm", *kind, "-out", self.private)
        self._write(openssl("pkey", "-in", self.private, "-pubout"))

    def _write(self, data):
        with open(self.public, "wb") as f:
            f.write(data)
        os.chmod(self.public, 0o644)

    def signature(self, signed, algorithm):
        if algorithm[0] == "H":
            return hmac.new(self.secret, signed,
                            "sha" + algorithm[2:]).digest()
        raw = openssl("dgst", "-sha" + algorithm[2:], "-sign", self.private,
                      data=signed)
        return raw if algorithm[0] == "R" else ec_pair(raw)

    def token(self, sub=ANN, algorithm=None, header=None, **claims):
        """claims: None takes one away."""
        algorithm = algorithm or self.algorithm
        body = {"sub": sub, "aud": AUDIENCE, "exp": int(time.time()) + 3600,
                **claims}
        body = {k: v for k, v in body.items() if v is not None}
        head = {"alg": algorithm, "typ": "JWT", **(header or {})}
        signed = ".".join(b64(json.dumps(part).encode())
                          for part in (head, body))
        return signed + "." + b64(self.signature(signed.encode(), algorithm))


def ec_pair(der):
    """The two numbers of an ECDSA signature, 32 bytes each."""
    numbers, at = b"", 2
    for _ in range(2):
        length = der[at + 1]
        number = der[at + 2:at + 2 + length].lstrip(b"\0")
        numbers += number.rjust(32, b"\0")
        at += 2 + length
    return numbers


def confused(key):
    """Signed with what everybody knows, as if it were a secret."""
    with open(key.public, "rb") as f:
        pem = f.read()
    twin = Key.__new__(Key)
    twin.algorithm, twin.secret = "HS256", pem
    yield "HS256 with the public key", twin.token()
    twin.secret = pem.rstrip(b"\n")
    yield "HS256 with the public key, trimmed", twin.token()


def unsigned(algorithm):
    head = b64(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    body = b64(json.dumps({"sub": ANN, "aud": AUDIENCE,
                           "exp": int(time.time()) + 3600}).encode())
    return head + "." + body


def bad_tokens(key, other):
    """(who it is, the token); other: another key of the same algorithm."""
    now = int(time.time())
    good = key.token()
    head, body, seal = good.split(".")
    yield "expired", key.token(exp=now - 1)
    yield "expired long ago", key.token(exp=0)
    yield "expires as a text", key.token(exp=str(now + 3600))
    yield "never expires", key.token(exp=None)
    yield "expires never", key.token(exp=[])
    yield "not yet valid", key.token(nbf=now + 600)
    yield "not yet valid, as a text", key.token(nbf="0")
    yield "for another audience", key.token(aud="other.example")
    yield "for other audiences", key.token(aud=["a", AUDIENCE + "x", 5])
    yield "for no audience", key.token(aud=None)
    yield "for an empty audience", key.token(aud=[])
    yield "nobody", key.token(sub=None)
    yield "an empty name", key.token(sub="")
    yield "a name that is none", key.token(sub=["ann"])
    yield "a number", key.token(sub=7)
    yield "a name with a line end", key.token(sub="ann\nx")
    yield "a name that is too long", key.token(sub="a" * 129)
    yield "with another key", other.token()
    wrong = {"HS256": "HS512", "RS256": "RS512"}.get(key.algorithm)
    if wrong:
        yield "with " + wrong, key.token(algorithm=wrong)
    else:
        yield "says ES384", key.token(header={"alg": "ES384"})
    yield "says RS256 or HS256", key.token(
        header={"alg": "HS256" if key.algorithm != "HS256" else "RS256"})
    yield "says no algorithm", key.token(header={"alg": None})
    yield "needs what we do not know", key.token(
        header={"crit": ["x"], "x": 1})
    for none in ("none", "None", "NONE", "nOnE"):
        yield "unsigned, " + none, unsigned(none) + "."
        yield "signed, " + none, unsigned(none) + "." + seal
    yield "without a signature", head + "." + body + "."
    yield "without its last part", head + "." + body
    yield "with a part too many", good + "." + seal
    yield "another's claims", head + "." + b64(json.dumps(
        {"sub": ANN, "aud": AUDIENCE, "exp": now + 3600,
         "x": 1}).encode()) + "." + seal
    yield "padded", good + "="
    yield "with a space", good + " x"
    yield "garbage", "garbage"
    yield "dots", ".."
    yield "long", "a" * 7000
    yield "no UTF-8", "\xff\xfe.\xff.\xff"
    if key.algorithm != "HS256":
        yield from confused(key)


# ---- callers and verbs ----

def bearer(token):
    return {"headers": [("Authorization", "Bearer " + token)]}


def cookie(token):
    return {"headers": [("Cookie", "a=b; session=%s; c=d" % token)]}


def parameter(token):
    return {"query": {"token": token}}


def basic(user, password="secret"):
    pair = base64.b64encode(("%s:%s" % (user, password)).encode()).decode()
    return {"headers": [("Authorization", "Basic " + pair)]}


def named(user):
    return {"query": {"user_id": user}}


NOBODY = {}

# For a stream or session: what its owner gets, and what others get, as where
# there is none.
Verb = collections.namedtuple("Verb", "name method path query body ok gone")
VERBS = [
    Verb("join", "GET", STREAM, {"stream_id": "@"}, None, 200, 404),
    Verb("join by POST", "POST", STREAM, {}, {"stream_id": "@"}, 200, 404),
    Verb("resume", "GET", STREAM, {"stream_id": "@", "last_event_id": 0},
         None, 200, 404),
    Verb("resume with a message", "POST", STREAM, {},
         {"stream_id": "@", "last_event_id": 0, "message": "x"}, 200, 404),
    Verb("snapshot", "GET", STREAMS + "/@", {}, None, 200, 404),
    Verb("snapshot's head", "HEAD", STREAMS + "/@", {}, None, 200, 404),
    Verb("link", "POST", STREAMS + "/@/link", {}, {}, 200, 404),
    Verb("stop", "POST", STREAMS + "/@/stop", {}, {}, 200, 404),
    Verb("delete", "DELETE", STREAMS + "/@", {}, None, 204, 404),
]
TURNS = [
    Verb("join a turn", "GET", TURN, {"stream_id": "@"}, None, 200, 404),
    Verb("resume a turn", "GET", TURN,
         {"stream_id": "@", "last_event_id": 0}, None, 200, 404),
    Verb("follow a session", "GET", TURN, {"sessionId": "@"}, None, 200, 204),
    Verb("history", "GET", HISTORY, {"sessionId": "@"}, None, 200, 404),
    Verb("delete the history", "DELETE", HISTORY, {"sessionId": "@"}, None,
         204, 404),
]
# What needs a user, but no object of hers: ok for any.
ANY = [
    Verb("start", "POST", STREAM, {}, {"message": "x"}, 200, None),
    Verb("start by GET", "GET", STREAM, {"message": "x"}, None, 200, None),
    Verb("say", "POST", TURN, {}, {"message": "x"}, 200, None),
    Verb("list", "GET", STREAMS, {}, None, 200, None),
    Verb("models", "GET", "/api/v1/models", {}, None, 200, None),
    Verb("personas", "GET", "/api/personas", {}, None, 200, None),
    Verb("templates", "GET", "/api/templates", {}, None, 200, None),
    Verb("render", "POST", "/api/render", {}, {"template": "t"}, 200, None),
    Verb("triage", "POST", "/api/triage", {}, {"message": "x"}, 200, None),
]
OPEN = [Verb(path, "GET", path, {}, None, 200, None)
        for path in ("/health", "/version", "/magic", "/magic/magic.js")]


def ask(server, verb, target, caller, headers=()):
    """The response, with its head read."""
    query = {name: target if value == "@" else value
             for name, value in verb.query.items()}
    query.update(caller.get("query", {}))
    path = verb.path.replace("@", target)
    body = b""
    headers = [*caller.get("headers", []), *headers]
    if verb.body is not None:
        body = json.dumps({name: target if value == "@" else value
                           for name, value in verb.body.items()}).encode()
        headers.append(("Content-Type", "application/json"))
    return server.request(verb.method, path + "?" + urlencode(query)
                          if query else path, headers, body).read_head()


def visible(response):
    """All that a client can see, but for the time."""
    body = b"" if response.status == 200 else response.read()
    response.close()
    head = [pair for pair in response.headers if pair[0] != "Date"]
    return response.status, head, body


def check_status(got, verb, who, want):
    e2e.check_equal(got.status, want, "status of %s by %s" % (verb.name, who))


def check_unauthorized(server, verb, target, who, caller, challenge):
    got = ask(server, verb, target, caller)
    check_status(got, verb, who, 401)
    e2e.check_equal(got.header("WWW-Authenticate"), challenge,
                    "WWW-Authenticate of %s by %s" % (verb.name, who))
    if verb.method != "HEAD":
        e2e.check_equal(got.json()["error_type"], "unauthorized",
                        "error_type of %s by %s" % (verb.name, who))
    got.close()


INVALID = 'Bearer error="invalid_token"'


def begin(server, caller, ident):
    """A live stream and a live turn of the caller's; the stream."""
    for verb in (Verb("", "POST", STREAM, {}, {
            "stream_id": "@", "message": "x", "model": "live"}, 0, 0),
                 Verb("", "POST", TURN, {}, {
                     "stream_id": "t@", "sessionId": "@", "message": "x",
                     "animalId": "live"}, 0, 0)):
        verb.body["stream_id"] = verb.body["stream_id"].replace("@", ident)
        stream = e2e.Stream(ask(server, verb, ident, caller), 0)
        stream.read_frames(1).close()


def target_of(verb, ident):
    return "t" + ident if verb in TURNS and "stream_id" in verb.query \
        else ident


def check_other_sees_nothing(server, ann, ben, ident):
    """Ben's requests for what is Ann's are answered as those for what is not
    there, and change nothing."""
    for verb in VERBS + TURNS:
        name = target_of(verb, ident)
        got = visible(ask(server, verb, name, ben))
        e2e.check_equal(got[0], verb.gone, "status of %s by another"
                        % verb.name)
        e2e.check_equal(got, visible(ask(server, verb, "none", ben)),
                        verb.name + " by another")
    shot = ask(server, VERBS[4], ident, ann).json()
    e2e.check_equal(shot["state"], "live", "state")


def check_owner_does_all(server, caller, ident):
    for verb in VERBS + TURNS:
        got = ask(server, verb, target_of(verb, ident), caller)
        check_status(got, verb, "the owner", verb.ok)
        got.close()
    for verb in (VERBS[4], TURNS[3]):
        got = ask(server, verb, ident, caller)
        check_status(got, verb, "the owner afterwards", 404)
        got.close()


def check_users_may(server, caller):
    for verb in ANY:
        got = ask(server, verb, "", caller)
        check_status(got, verb, "a user", verb.ok)
        got.close()


# ---- servers ----

class Keyed:
    """A server with keys, a persona, templates and triage in a directory that
    its user may read."""

    def _environment(self, settings, environment):
        self.keys = tempfile.mkdtemp(prefix="respool-e2e.keys.")
        os.chmod(self.keys, 0o755)
        for name, text in (
                ("p/live.json", '{"name":"L","system":"L","model":"live"}'),
                ("p/echo.json", '{"name":"E","system":"E","model":"echo"}'),
                ("t/t.mustache", "hello"), ("triage", '{"rules":[]}'),
                ("users", "%s:secret\n%s:secret\n" % (ANN, BEN)),
                ("users.plain", "%s:{PLAIN}secret\n" % ANN)):
            path = os.path.join(self.keys, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        algorithm = settings.get("jwt_algorithm")
        if algorithm is not None:
            self.key = Key(self.keys, algorithm)
            self.other_key = Key(self.keys, algorithm, "other")
            settings = {"jwt_key_file": self.key.public, **settings}
        return super()._environment(
            {"personas_dir": self.keys + "/p", "default_persona": "echo",
             "templates_dir": self.keys + "/t",
             "triage_file": self.keys + "/triage", **settings}, environment)

    def stop(self):
        report = super().stop()
        shutil.rmtree(self.keys, ignore_errors=True)
        return report

    def check_log(self, *words):
        """Who it was, and by which token, is in no line."""
        text = "\n".join(self.log())
        for word in (ANN, BEN, *words):
            e2e.check(word not in text, "%r is in the log" % word)


class Tokens(Keyed, e2e.Server):
    def __init__(self, algorithm="HS256", settings=None, **options):
        super().__init__(models=MODELS, settings={
            "auth": "jwt", "jwt_algorithm": algorithm,
            "jwt_audience": AUDIENCE, "jwt_cookie": "session",
            "jwt_parameter": "token", **(settings or {})}, **options)


class Basic(Keyed, servers.Server):
    """lighttpd knows who it is, for all below /api."""

    def __init__(self, settings=None, **options):
        super().__init__(models=MODELS, settings={
            "auth": "remote_user", **(settings or {})}, **options)

    def fill_in(self, template, name=None):
        self.changes = [(
            'server.modules += ( "mod_fastcgi" )',
            'server.modules += ( "mod_auth", "mod_authn_file", '
            '"mod_fastcgi" )\n'
            'auth.backend = "plain"\n'
            'auth.backend.plain.userfile = "%s/users"\n'
            'auth.require = ( "/api" => ( "method" => "basic", '
            '"realm" => "respool", "require" => "valid-user" ) )\n'
            % self.keys)]
        return super().fill_in(template, name)


class Open(Keyed, e2e.Server):
    def __init__(self, **options):
        super().__init__(models=MODELS, **options)


class Clock(Keyed, direct.Jumping):
    """Without a web server, on a clock that the test sets."""

    def __init__(self, settings):
        super().__init__(models=MODELS, settings=settings)


# ---- tokens ----

@e2e.test
def every_verb_is_refused_to_every_token_that_is_not_good(server):
    ann = bearer(server.key.token())
    begin(server, ann, "bad")
    seen = set()
    for who, token in bad_tokens(server.key, server.other_key):
        for verb in VERBS + TURNS + ANY:
            check_unauthorized(server, verb, target_of(verb, "bad"), who,
                               bearer(token), INVALID)
        for verb in OPEN:
            check_status(ask(server, verb, "", bearer(token)), verb, who, 200)
        seen.add(token)
    # In the two other places it is the same.
    for who, token in bad_tokens(server.key, server.other_key):
        for way in (cookie, parameter):
            if way is cookie and re.search(r"[^\x21-\x7e]", token):
                continue
            check_unauthorized(server, VERBS[4], "bad", who, way(token),
                               INVALID)
    shot = ask(server, VERBS[4], "bad", ann).json()
    e2e.check_equal(shot["state"], "live", "state")
    server.check_log(*(part for token in seen for part in token.split(".")
                       if len(part) > 20))


@e2e.test
def every_verb_is_refused_to_who_has_no_token(server):
    begin(server, bearer(server.key.token()), "anonymous")
    files = server.stream_files()
    for who, caller in (
            ("anonymous", NOBODY), ("a user_id", named(ANN)),
            ("Basic", basic(ANN)), ("another cookie", {"headers": [
                ("Cookie", "session2=" + server.key.token())]}),
            ("another parameter", {"query": {"Token": server.key.token()}})):
        for verb in VERBS + TURNS + ANY:
            check_unauthorized(server, verb, target_of(verb, "anonymous"),
                               who, caller, "Bearer")
        for verb in OPEN:
            check_status(ask(server, verb, "", caller), verb, who, 200)
    e2e.check_equal(server.stream_files(), files, "stream files")


@e2e.test
def the_owner_may_all_and_another_sees_nothing(server):
    for number, way in enumerate((bearer, cookie, parameter)):
        ann, ben = way(server.key.token()), way(server.key.token(BEN))
        ident = "mine-%d" % number
        begin(server, ann, ident)
        check_other_sees_nothing(server, ann, ben, ident)
        check_users_may(server, ben)
        listed = ask(server, ANY[3], "", ben).json()["streams"]
        e2e.check(not any(ident in s["stream_id"] for s in listed),
                  "another lists it")
        check_owner_does_all(server, ann, ident)
    server.check_log()


@e2e.test
def user_id_says_nothing_where_tokens_do(server):
    ann = server.key.token()
    begin(server, bearer(ann), "whose")
    for caller in ({"query": {"user_id": BEN}}, {"query": {"userId": BEN}},
                   {"query": {"user_id": "a\nb"}}):
        got = ask(server, VERBS[4], "whose", {**caller, **bearer(ann)})
        check_status(got, VERBS[4], "the owner with a user_id", 200)
        got.close()
    ben = {**bearer(server.key.token(BEN)), "query": {"user_id": ANN}}
    check_status(ask(server, VERBS[4], "whose", ben), VERBS[4],
                 "another with a user_id", 404)


@e2e.test
def good_tokens_of_other_forms_are_taken(server):
    now = int(time.time())
    for claims in ({"aud": ["x", AUDIENCE]}, {"nbf": now - 1},
                   {"exp": now + 600.5}, {"iat": now, "jti": "1", "more": {}},
                   {"sub": "Jürgen Ünal"}, {"sub": "a" * 128}):
        got = ask(server, ANY[3], "", bearer(server.key.token(**claims)))
        check_status(got, ANY[3], repr(claims), 200)
        got.close()
    lower = {"headers": [("Authorization", "bearer " + server.key.token())]}
    check_status(ask(server, ANY[3], "", lower), ANY[3], "bearer", 200)
    # In a body, too: JSON and a form.
    token = server.key.token()
    for kind, body in (("application/json", json.dumps({"token": token})),
                       ("application/x-www-form-urlencoded",
                        urlencode({"token": token}))):
        got = server.request("POST", STREAMS + "/none/stop",
                             [("Content-Type", kind)], body.encode())
        e2e.check_equal(got.read_head().status, 404, "status by " + kind)


@e2e.test
def the_header_comes_before_the_cookie_and_that_before_the_parameter(server):
    good, bad = server.key.token(), "garbage"
    for caller, status in (
            ({"headers": bearer(good)["headers"] + cookie(bad)["headers"],
              "query": {"token": bad}}, 200),
            ({"headers": bearer(bad)["headers"] + cookie(good)["headers"]},
             401),
            ({**cookie(good), **parameter(bad)}, 200),
            ({**cookie(bad), **parameter(good)}, 401)):
        check_status(ask(server, ANY[3], "", caller), ANY[3], "two", status)


@e2e.test
def a_foreign_page_acts_for_nobody(server):
    """The browser adds cookies whoever's page asks, but not a header."""
    own = "http://localhost"
    token = server.key.token()
    for way, refused in ((cookie, True), (bearer, False),
                         (parameter, False)):
        for headers in ([("Origin", "https://evil.example")],
                        [("Origin", "null")],
                        [("Sec-Fetch-Site", "cross-site")]):
            ident = "page-%s-%d" % (way.__name__, len(server.stream_files()))
            begin(server, way(token), ident)
            files = server.stream_files()
            for verb in (ANY[0], ANY[1], ANY[2], VERBS[6], VERBS[7],
                         VERBS[8], TURNS[4]):
                got = ask(server, verb, ident, way(token), headers)
                check_status(got, verb, "a page", 403 if refused else verb.ok)
                e2e.check_equal(got.header("Access-Control-Allow-Origin"),
                                "*", "Access-Control-Allow-Origin")
                e2e.check_equal(
                    got.header("Access-Control-Allow-Credentials"), None,
                    "Access-Control-Allow-Credentials")
                if refused:
                    e2e.check_equal(got.json()["error_type"],
                                    "origin_refused", "error_type")
                got.close()
            if refused:
                e2e.check_equal(server.stream_files(), files, "stream files")
    for headers in ([("Origin", own)], [("Sec-Fetch-Site", "same-origin")],
                    []):
        got = ask(server, ANY[0], "", cookie(token), headers)
        check_status(got, ANY[0], "our own page", 200)
        got.close()


@e2e.test
def a_key_that_changes_is_read_again(server):
    with Tokens() as own:
        old = own.key.token()
        check_status(ask(own, ANY[3], "", bearer(old)), ANY[3], "", 200)
        new = Key(own.keys, "HS256", "new")
        os.rename(new.public, own.key.public)
        check_status(ask(own, ANY[3], "", bearer(old)), ANY[3], "old", 401)
        check_status(ask(own, ANY[3], "", bearer(new.token())), ANY[3],
                     "new", 200)
        # One that is no key leaves the former one, and is told in the log.
        with open(own.key.public, "w", encoding="ascii") as f:
            f.write("short")
        check_status(ask(own, ANY[3], "", bearer(new.token())), ANY[3],
                     "former", 200)
        e2e.check(any("HS256 needs" in line for line in own.log()),
                  "nothing in the log")


@e2e.test
def without_a_key_nobody_is_let_in(server):
    with Tokens(settings={"jwt_key_file": "/nonexistent/key"}) as own:
        for caller in (bearer(own.key.token()), bearer(unsigned("none") + "."),
                       bearer("garbage"), NOBODY):
            for verb in VERBS + TURNS + ANY:
                got = ask(own, verb, "x", caller)
                check_status(got, verb, "anybody", 500)
                got.close()
        for verb in OPEN:
            check_status(ask(own, verb, "", NOBODY), verb, "anybody", 200)
        e2e.check_equal(own.get("/ready").json()["reasons"],
                        ["The key for tokens cannot be used."], "reasons")
        e2e.check(any("/nonexistent/key" in line for line in own.log()),
                  "nothing in the log")
        e2e.check_equal(own.stream_files(), [], "stream files")


@e2e.test
def without_libjwt_nobody_is_let_in(server):
    broken = os.path.join(server.keys, "lib")
    os.mkdir(broken)
    for number in range(3):
        with open("%s/libjwt.so.%d" % (broken, number), "wb"):
            pass
    status, said = check_settings({"LD_LIBRARY_PATH": broken}, auth="jwt",
                                  jwt_key_file=server.key.public)
    e2e.check_equal((status, "libjwt" in said), (1, True), said)
    with Tokens(environment={"LD_LIBRARY_PATH": broken}) as own:
        for caller in (bearer(own.key.token()),
                       bearer(unsigned("none") + "."), bearer("garbage"),
                       NOBODY):
            for verb in VERBS + TURNS + ANY:
                got = ask(own, verb, "x", caller)
                check_status(got, verb, "anybody", 500)
                got.close()
        e2e.check(any("libjwt" in line for line in own.log()),
                  "nothing in the log")


def check_settings(environment=None, **settings):
    """What respool.fcgi -t says: its status, and its words."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("RESPOOL_")}
    env.update(environment or {})
    env.update({"RESPOOL_" + k.upper(): v for k, v in settings.items()})
    done = subprocess.run(
        [os.path.join(e2e.BUILD, "respool.fcgi"), "-t"], env=env,
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        timeout=e2e.IO_TIMEOUT, check=False)
    return done.returncode, done.stderr


@e2e.test
def dash_t_says_what_is_wrong_with_the_key(server):
    keys = {name: Key(server.keys, name, "t").public
            for name in ("HS256", "RS256", "ES256")}
    small = server.keys + "/small"
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt",
            "rsa_keygen_bits:1024", "-out", small + ".key")
    with open(small, "wb") as f:
        f.write(openssl("pkey", "-in", small + ".key", "-pubout"))
    for name, data in (("short", b"x" * 31 + b"\n"), ("loose", b"x" * 40)):
        with open(server.keys + "/" + name, "wb") as f:
            f.write(data)
    os.chmod(server.keys + "/loose", 0o666)
    private = server.keys + "/tRS256"
    for algorithm, path, word in (
            *((name, path, None) for name, path in keys.items()),
            ("HS256", "", "jwt_key_file"),
            ("HS256", "/nonexistent", "No such file"),
            ("HS256", server.keys + "/short", "32 bytes"),
            ("HS256", server.keys + "/loose", "chmod go-w"),
            ("HS256", server.keys, "not a regular file"),
            ("RS256", keys["ES256"], "public key"),
            ("ES256", keys["RS256"], "public key"),
            ("RS256", keys["HS256"], "public key"),
            ("RS256", private, "public key"),
            ("RS256", small, "2048 bits")):
        status, said = check_settings(auth="jwt", jwt_algorithm=algorithm,
                                      jwt_key_file=path)
        what = "%s of %s" % (algorithm, path)
        e2e.check_equal(status == 0, word is None, what + ": " + said)
        e2e.check((word or "") in said, what + ": " + said)


@e2e.test
def the_doctor_says_that_nobody_let_him_in(server):
    done = server.ctl("doctor", "http://127.0.0.1:%d" % server.port)
    e2e.check_equal(done.returncode, 0, done.stdout)
    e2e.check(re.search(r"^skip stream: .*\(auth\)", done.stdout, re.M),
              done.stdout)


def other_algorithm(algorithm):
    with Tokens(algorithm) as server:
        ann, ben = (bearer(server.key.token(who)) for who in (ANN, BEN))
        begin(server, ann, "mine")
        for who, token in bad_tokens(server.key, server.other_key):
            for verb in (VERBS[0], VERBS[4], VERBS[8], TURNS[3], ANY[0]):
                check_unauthorized(server, verb, target_of(verb, "mine"), who,
                                   bearer(token), INVALID)
        check_other_sees_nothing(server, ann, ben, "mine")
        check_users_may(server, ben)
        check_owner_does_all(server, ann, "mine")
        server.check_log()


@e2e.test
def with_RS256_it_is_the_same(server):
    other_algorithm("RS256")


@e2e.test
def with_ES256_it_is_the_same(server):
    other_algorithm("ES256")


@e2e.test
def whom_the_web_server_knows_is_the_owner(server):
    with Basic() as own:
        ann, ben = basic(ANN), basic(BEN)
        verbs = VERBS + ANY[3:]
        got = ask(own, Verb("", "POST", STREAM, {}, {
            "stream_id": "mine", "message": "x", "model": "live"}, 0, 0), "",
            {**ann, "query": {"user_id": BEN}})
        e2e.Stream(got, 0).read_frames(1).close()
        for verb in VERBS:
            e2e.check_equal(visible(ask(own, verb, "mine", ben)),
                            visible(ask(own, verb, "none", ben)), verb.name)
        for who, caller, some in (
                ("anonymous", named(ANN), verbs),
                ("a token", bearer("x.y.z"), verbs),
                # lighttpd takes its time over each.
                ("a wrong password", basic(ANN, "wrong"), VERBS[4:5])):
            for verb in some:
                got = ask(own, verb, "mine", caller)
                check_status(got, verb, who, 401)
                got.close()
        # What the web server lets pass without asking who it is.
        for caller in (NOBODY, named(ANN), {"headers": [
                ("Remote-User", ANN), ("Remote_User", ANN)]}):
            for verb in TURNS:
                check_unauthorized(own, verb, "mine", "unknown", caller, None)
        # The browser sends a password by itself, whoever's page asks.
        for verb in (ANY[0], VERBS[6], VERBS[7], VERBS[8]):
            got = ask(own, verb, "mine", ann,
                      [("Origin", "https://evil.example")])
            check_status(got, verb, "a page", 403)
            got.close()
        for verb in VERBS:
            got = ask(own, verb, "mine", ann)
            check_status(got, verb, "the owner", verb.ok)
            got.close()
        for verb in OPEN:
            check_status(ask(own, verb, "", NOBODY), verb, "anybody", 200)
        own.check_log()


class NginxUsers(Keyed, servers.Nginx):
    """changes: made in what is shipped."""

    def __init__(self, changes):
        super().__init__(models=MODELS, settings={"auth": "remote_user"},
                         changes=changes)

    def fill_in(self, template, name=None):
        self.changes = [(there, wanted.replace("@KEYS@", self.keys))
                        for there, wanted in self.changes]
        return super().fill_in(template, name)


@e2e.test
def nginx_lets_nobody_in_whom_it_has_not_checked(server):
    """It hands on whatever name a client gives."""
    if servers.Nginx.missing():
        print("nginx is not installed: skipped")
        return
    with NginxUsers([]) as own:
        for verb in VERBS + TURNS + ANY:
            check_unauthorized(own, verb, "x", "unchecked", basic(ANN), None)
    line = "include /etc/nginx/fastcgi_params;"
    with NginxUsers([(line, line + """
        fastcgi_param AUTH_TYPE Basic;
        set $realm off;
        if ($uri ~ ^/api) { set $realm respool; }
        auth_basic $realm;
        auth_basic_user_file @KEYS@/users.plain;""")]) as own:
        check_status(ask(own, ANY[3], "", basic(ANN)), ANY[3], "ann", 200)
        for caller in (NOBODY, basic(ANN, "wrong")):
            check_status(ask(own, ANY[3], "", caller), ANY[3], "", 401)


@e2e.test
def tokens_expire_while_they_are_used(server):
    with Clock({"auth": "jwt", "jwt_algorithm": "HS256"}) as own:
        token = own.key.token(exp=int(time.time()) + 3600)
        later = own.key.token(exp=int(time.time()) + 9999,
                              nbf=int(time.time()) + 3500)
        check_status(ask(own, ANY[3], "", bearer(token)), ANY[3], "now", 200)
        check_status(ask(own, ANY[3], "", bearer(later)), ANY[3], "now", 401)
        own.jump(3600)
        check_status(ask(own, ANY[3], "", bearer(token)), ANY[3], "late", 401)
        check_status(ask(own, ANY[3], "", bearer(later)), ANY[3], "late", 200)


# ---- read links ----

def link_of(server, ident, caller, **fields):
    got = server.post(STREAMS + "/%s/link?%s" % (
        ident, urlencode(caller.get("query", {}))), fields,
        caller.get("headers", ()))
    e2e.check_equal(got.status, 200, "status of link")
    answer = got.json()
    e2e.check_equal(sorted(answer), ["expires", "link", "stream_id"],
                    "members")
    e2e.check_equal(answer["stream_id"], ident, "stream_id")
    e2e.check(re.fullmatch(r"[A-Za-z0-9._-]+", answer["link"]),
              "a link of %r" % answer["link"])
    e2e.check(re.fullmatch(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.000Z",
                           answer["expires"]), answer["expires"])
    return answer["link"]


def by(link):
    return {"query": {"link": link}}


def check_no_link(server, ident, caller, what):
    """As where there is no stream; a link that is none opens neither."""
    for verb in (VERBS[0], VERBS[2], VERBS[4]):
        got = visible(ask(server, verb, ident, caller))
        e2e.check_equal(got[0], 404, "status of %s by %s" % (verb.name, what))
        e2e.check_equal(got, visible(ask(server, verb, "none", caller)),
                        "%s by %s" % (verb.name, what))


def check_link_reads(server, ident, reader):
    """With a link all of the stream is read, and nothing else is done."""
    whole = server.get(STREAMS + "/" + ident, reader["query"]).json()
    got = e2e.Stream(server.get(STREAM, {
        "stream_id": ident, **reader["query"]}), 0).read_all()
    e2e.check_equal(got.text(), whole["text"], "text")
    last = got.frames[-1].id
    rest = e2e.Stream(server.get(STREAM, {
        "stream_id": ident, "last_event_id": 3, **reader["query"]}), 4)
    e2e.check_equal(rest.read_all().bytes(),
                    b"".join(f.raw for f in got.frames[4:]), "resumed")
    done = server.get(STREAM, {"stream_id": ident, **reader["query"]},
                      [("Last-Event-ID", str(last))])
    e2e.check_equal(done.status, 204, "at the end")
    far = server.get(STREAM, {"stream_id": ident, **reader["query"],
                              "last_event_id": last + 1})
    e2e.check_equal(far.status, 400, "beyond the end")


def check_link_only_reads(server, ident, link, stranger):
    files = server.stream_files()
    for fields in ({"message": "x"}, {"template": "t"},
                   {"messages": '[{"role":"user","content":"x"}]'}):
        for name in (ident, "new"):
            got = server.get(STREAM, {"stream_id": name, "link": link,
                                      **fields})
            e2e.check_equal(got.status, 400, "status with %r" % fields)
    got = server.get(STREAM, {"link": link, "message": "x"})
    e2e.check_equal(got.status, 400, "status of a start")
    for verb in (VERBS[6], VERBS[7], VERBS[8], *TURNS):
        if "stream_id" in verb.query:
            continue
        got = ask(server, verb, ident, by(link))
        check_status(got, verb, "who has a link", stranger or verb.gone)
        got.close()
    got = ask(server, ANY[3], "", by(link))
    if stranger:
        check_status(got, ANY[3], "who has a link", stranger)
    else:
        e2e.check_equal(got.json()["streams"], [], "list")
    got.close()
    e2e.check_equal(server.stream_files(), files, "stream files")


def finished(server, ident, caller, **fields):
    got = server.post(STREAM + "?" + urlencode(caller.get("query", {})), {
        "stream_id": ident, "message": "x", "model": "ten", **fields},
        caller.get("headers", ()))
    return e2e.Stream(got, 0).read_all()


@e2e.test
def a_link_reads_its_stream_and_does_nothing_else(server):
    ann = bearer(server.key.token())
    finished(server, "handed", ann)
    finished(server, "kept", ann)
    link = link_of(server, "handed", ann)
    check_link_reads(server, "handed", by(link))
    check_link_only_reads(server, "handed", link, 401)
    check_no_link(server, "kept", by(link), "another stream's link")
    # Whoever has it: it is looked at before the token is.
    ben = {**by(link), **bearer(server.key.token(BEN))}
    check_status(ask(server, VERBS[4], "handed", ben), VERBS[4], "ben", 200)
    bad = {**by(link), **bearer("garbage")}
    check_status(ask(server, VERBS[4], "handed", bad), VERBS[4], "bad", 200)
    for verb in (VERBS[6], VERBS[7], VERBS[8]):
        check_status(ask(server, verb, "handed", ben), verb, "ben", 404)
    server.check_log(link)


@e2e.test
def without_authentication_links_are_the_same(server):
    with Open() as own:
        for number, caller in enumerate((named(ANN), NOBODY)):
            ident = "open-%d" % number
            finished(own, ident, caller)
            link = link_of(own, ident, caller)
            check_link_reads(own, ident, by(link))
            if caller is not NOBODY:  # whose streams are anybody's
                check_link_only_reads(own, ident, link, None)
        check_other_sees_nothing_of_named(own)


def check_other_sees_nothing_of_named(own):
    ann, ben = named(ANN), named(BEN)
    begin(own, ann, "named")
    check_other_sees_nothing(own, ann, ben, "named")
    check_other_sees_nothing(own, ann, NOBODY, "named")
    check_users_may(own, ben)
    check_users_may(own, NOBODY)
    check_owner_does_all(own, ann, "named")


@e2e.test
def a_link_reads_a_live_stream_and_a_turn(server):
    ann = bearer(server.key.token())
    begin(server, ann, "watched")
    link = link_of(server, "watched", ann)
    stream = e2e.Stream(server.get(STREAM, {"stream_id": "watched",
                                            "link": link}), 0)
    stream.read_frames(5)
    turn = link_of(server, "twatched", ann)
    told = e2e.Stream(server.get(STREAM, {"stream_id": "twatched",
                                          "link": turn}), 0).read_frames(4)
    e2e.check_equal([f.event for f in told.frames[:3]],
                    ["metadata", "typing", "message"], "events")
    told.close()
    ask(server, VERBS[7], "watched", ann).close()
    stream.read_all()
    e2e.check_equal(stream.frames[-1].data["finish_reason"], "stopped",
                    "finish_reason")


@e2e.test
def a_link_that_is_changed_anywhere_is_none(server):
    ann = bearer(server.key.token())
    finished(server, "tampered", ann)
    link = link_of(server, "tampered", ann)
    for at, was in enumerate(link):
        for character in "0f.-Z":
            if character != was:
                bad = link[:at] + character + link[at + 1:]
                got = server.get(STREAMS + "/tampered", {"link": bad})
                e2e.check_equal(got.status, 404, "status of %r" % bad)
    for bad in ("", ".", link[:-1], link + "0", link.upper(), " " + link,
                "0" + link, link + "." + link, "\0" + link):
        check_no_link(server, "tampered", by(bad), repr(bad))
    # Another owner's link to a stream of the same name.
    finished(server, "tampered", bearer(server.key.token(BEN)), message="y")
    other = link_of(server, "tampered", bearer(server.key.token(BEN)))
    mine, theirs = link.split("."), other.split(".")
    for mixed in ((mine[0], theirs[1], mine[2]),
                  (mine[0], mine[1], theirs[2]),
                  (theirs[0], theirs[1], mine[2])):
        check_no_link(server, "tampered", by(".".join(mixed)), "a mixture")


@e2e.test
def a_bad_expiry_is_refused(server):
    ann = bearer(server.key.token())
    finished(server, "expiry", ann)
    for seconds in (0, -1, 59, 31536001, 1.5, "x", True, [], 1 << 70):
        got = server.post(STREAMS + "/expiry/link", {"expires_in": seconds},
                          ann["headers"])
        e2e.check_equal(got.status, 400, "status of %r" % seconds)
    for seconds in (60, 31536000, None):
        link_of(server, "expiry", ann, expires_in=seconds)


@e2e.test
def deleting_a_stream_revokes_its_links_for_good(server):
    with Clock({"ttl": 60, "auth": "none"}) as own:
        finished(own, "again", named(ANN))
        link = link_of(own, "again", named(ANN))
        check_link_reads(own, "again", by(link))
        own.request("DELETE", STREAMS + "/again?user_id=" + ANN).read_head()
        check_no_link(own, "again", by(link), "a link to what is deleted")
        own.jump(120)
        finished(own, "again", named(ANN))
        check_no_link(own, "again", by(link), "a link to the one before")
        check_link_reads(own, "again", by(link_of(own, "again", named(ANN))))


@e2e.test
def a_link_expires(server):
    with Clock({"ttl": 31536000}) as own:
        finished(own, "late", named(ANN))
        short = link_of(own, "late", named(ANN), expires_in=60)
        day = link_of(own, "late", named(ANN))
        own.jump(50)
        check_link_reads(own, "late", by(short))
        own.jump(61)
        check_no_link(own, "late", by(short), "an old link")
        check_link_reads(own, "late", by(day))
        own.jump(86401)
        check_no_link(own, "late", by(day), "a link of yesterday")


@e2e.test
def an_old_spool_gets_its_secret_with_the_first_link(server):
    with Open() as own:
        finished(own, "old", named(ANN))
        own.kill_all("respool-spooler")
        path = own.spool + "/link.secret"
        e2e.check_equal(os.stat(path).st_mode & 0o777, 0o600, "mode")
        os.unlink(path)
        check_link_reads(own, "old", by(link_of(own, "old", named(ANN))))
        with open(path, "rb") as f:
            secret = f.read()
        own.kill_all("respool-spooler")
        finished(own, "new", named(ANN))
        with open(path, "rb") as f:
            e2e.check_equal(f.read(), secret, "the secret of the next one")
        e2e.check_equal(glob.glob(own.spool + "/.link*"), [], "left over")


if __name__ == "__main__":
    if shutil.which("openssl") is None:
        print("openssl is not installed: skipped")
        raise SystemExit(77)
    with open(os.path.join(e2e.BUILD, "respool.fcgi"), "rb") as program:
        if b"libjwt.so" not in program.read():
            print("built without libjwt: skipped")
            raise SystemExit(77)
    e2e.main(Tokens)
