#!/usr/bin/env -S python3 -B
"""What is refused: with a 4xx and JSON, and with nothing written."""

import json
import re
from urllib.parse import quote, urlencode

import e2e

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo"},
        "live": {"provider": "demo", "chunks": 1000, "interval_ms": 50},
    },
}
URL = "/api/v1/stream"
MAX_BODY = 65536
JSON_TYPE = [("Content-Type", "application/json")]
FORM_TYPE = [("Content-Type", "application/x-www-form-urlencoded")]

BAD_IDS = ["../../etc/passwd", "..", ".", "a/b", "a" * 65, "\0", "a\0b",
           "a b", "a\nb", "ä", "a.sse", "%2e%2e", "*"]


def check_refused(server, what, response, status=400, kind="invalid_request"):
    if response.status is None:
        response.read_head()
    e2e.check_equal(response.status, status, "status of " + what)
    answer = response.json()
    e2e.check_equal(answer.get("error_type"), kind, "error_type of " + what)
    e2e.check(isinstance(answer.get("error"), str) and answer["error"],
              "no sentence for " + what)
    e2e.check("Traceback" not in answer["error"] and
              server.run not in answer["error"], "a path for " + what)


def refused(function):
    """A test after which the spool is what it was."""
    def run(server):
        before = server.snapshot_of_disk()
        function(server)
        e2e.check_equal(server.snapshot_of_disk(), before, "the spool")
    run.__name__ = function.__name__
    return e2e.test(run)


@refused
def bad_stream_ids(server):
    for bad in BAD_IDS:
        what = "the id %r" % bad
        for fields in ({"stream_id": bad, "message": "x"},
                       {"stream_id": bad},
                       {"stream_id": bad, "message": "x",
                        "last_event_id": 0}):
            check_refused(server, what + " in JSON", server.post(URL, fields))
            check_refused(server, what + " in a form", server.request(
                "POST", URL, FORM_TYPE, urlencode(fields).encode()))
        if "\0" in bad or "\n" in bad:
            continue  # lighttpd itself refuses those in a URL
        check_refused(server, what + " in a query", server.get(
            URL, {"stream_id": bad, "message": "x"}))


@refused
def an_empty_stream_id(server):
    for response in (server.post(URL, {"stream_id": "", "message": "x"}),
                     server.get(URL, {"stream_id": "", "message": "x"})):
        check_refused(server, "an empty id", response)


@refused
def bad_ids_in_a_path(server):
    for bad in ("a" * 65, "a%20b", "%C3%A4", "a.sse", "..%5c..", "*"):
        for method, path in (("GET", ""), ("POST", "/stop"), ("DELETE", "")):
            response = server.request(
                method, "/api/v1/streams/%s%s" % (bad, path)).read_head()
            e2e.check(400 <= response.status < 500,
                      "status %d of %s" % (response.status, bad))
            e2e.check(response.json()["error_type"] in
                      ("invalid_request", "stream_not_found", "not_found"),
                      "error_type")


@refused
def paths_that_are_no_routes(server):
    for path in ("/api/", "/api/v1", "/api/v1/stream/", "/api/v1/streams/",
                 "/api/v1/streams/a/b/c", "/api/v2/stream", "/api/v1/STREAM",
                 "/api/v1/streams/../../etc/passwd", "/api/v1/stream%00",
                 "/magic/../../../etc/passwd", "/magic/%2e%2e/x",
                 "/magic/nothing.js", "/api/v1/streams/..%2f..%2fx"):
        response = server.request("GET", path).read_head()
        # What leaves /api and /magic, or holds a NUL, is lighttpd's to refuse.
        e2e.check(400 <= response.status < 500,
                  "status %d of %s" % (response.status, path))
        if response.header("Content-Type") == "application/json":
            e2e.check(response.json()["error_type"] in
                      ("not_found", "stream_not_found", "invalid_request"),
                      "error_type of " + path)


@refused
def bodies_that_are_too_large(server):
    for size in (MAX_BODY + 1, 4 * MAX_BODY, 20 * MAX_BODY):
        body = json.dumps({"message": "x" * size}).encode()
        check_refused(server, "%d bytes" % size,
                      server.request("POST", URL, JSON_TYPE, body), 413,
                      "body_too_large")


@refused
def bodies_that_are_not_JSON(server):
    deep = b"[" * 1000 + b"]" * 1000
    for body in (b"{", b"nonsense", b"[]", b"null", b"5", b'"message"',
                 b'{"message":"x"', b'{"message":"x"}{}',
                 b'{"message":"x"} x', b"{'message':'x'}",
                 b'{"message":"x",}', b'{message:"x"}',
                 b'{"message":"x\n"}', b'{"message":"\xff\xfe"}',
                 b'{"message":"\xed\xa0\x80"}', b'{"message":"\xc0\xaf"}',
                 b'{"message":NaN}',
                 b'{"message":"x","message":"y"}', b"/**/{}",
                 b'\xef\xbb\xbf{"message":"x"}x', deep,
                 b'{"message":"x","extra":' + deep + b"}",
                 b'{"a":' * 1000 + b"1" + b"}" * 1000):
        check_refused(server, "the body %r" % body[:40],
                      server.request("POST", URL, JSON_TYPE, body))


@refused
def wrong_types_in_JSON(server):
    good = {"message": "x"}
    for fields in ({"message": 5}, {"message": True}, {"message": ["x"]},
                   {"message": {}}, {**good, "model": 7},
                   {**good, "model": ["echo"]}, {**good, "stream_id": 5},
                   {**good, "stream_id": []}, {**good, "user_id": 1},
                   {**good, "user_id": {}}, {**good, "last_event_id": 1.5},
                   {**good, "last_event_id": True},
                   {**good, "last_event_id": [1]},
                   {**good, "last_event_id": "abc"},
                   {"messages": "x"}, {"messages": {}}, {"messages": []},
                   {"messages": ["x"]}, {"messages": [{}]},
                   {"messages": [{"role": "user"}]},
                   {"messages": [{"role": "root", "content": "x"}]},
                   {"messages": [{"role": "user", "content": 5}]},
                   {**good, "messages": [{"role": "user", "content": "x"}]}):
        check_refused(server, json.dumps(fields), server.post(URL, fields))


@refused
def blank_messages_and_nothing_at_all(server):
    for fields in ({}, {"message": ""}, {"message": " \t\r\n"},
                   {"message": "\u00a0\u3000"}, {"message": None},
                   {"model": "echo"}):
        check_refused(server, json.dumps(fields), server.post(URL, fields))
    check_refused(server, "an empty body",
                  server.request("POST", URL, JSON_TYPE))
    check_refused(server, "an empty query", server.get(URL))


@refused
def bad_owners(server):
    for bad in ("", "a" * 129, "a\nb", "\x7f", "a\0"):
        check_refused(server, "the owner %r" % bad,
                      server.post(URL, {"message": "x", "user_id": bad}))
    check_refused(server, "two owners", server.post(
        URL, {"message": "x", "user_id": "a", "userId": "b"}))


@refused
def a_name_twice_in_a_query_or_form(server):
    twice = "message=x&message=y"
    check_refused(server, "a query", server.request("GET", URL + "?" + twice))
    check_refused(server, "a form", server.request("POST", URL, FORM_TYPE,
                                                   twice.encode()))


@refused
def forms_that_are_not_UTF_8_or_badly_escaped(server):
    for body in (b"message=%ff%fe", b"message=%", b"message=%zz",
                 b"message=%c0%af", b"message=\xff"):
        check_refused(server, "the form %r" % body,
                      server.request("POST", URL, FORM_TYPE, body))


@refused
def other_body_types(server):
    for kind in ("text/plain", "multipart/form-data; boundary=x",
                 "application/xml", "application/jsonp"):
        check_refused(server, kind, server.request(
            "POST", URL, [("Content-Type", kind)], b'{"message":"x"}'), 415,
            "unsupported_media_type")


@refused
def unknown_models(server):
    for name in ("nothing", "", "ECHO", "echo ", "x" * 200):
        response = server.post(URL, {"message": "x", "model": name})
        check_refused(server, "the model %r" % name, response, 400,
                      "model_not_found")


@refused
def other_methods(server):
    for method, path, allowed in (
            ("PUT", URL, {"GET", "POST"}), ("DELETE", URL, {"GET", "POST"}),
            ("PATCH", URL, {"GET", "POST"}),
            ("POST", "/api/v1/streams", {"GET"}),
            ("POST", "/api/v1/streams/x", {"GET", "DELETE"}),
            ("GET", "/api/v1/streams/x/stop", {"POST"}),
            ("POST", "/api/v1/models", {"GET"}),
            ("DELETE", "/health", {"GET"}), ("POST", "/magic", {"GET"})):
        response = server.request(method, path).read_head()
        check_refused(server, method + " " + path, response, 405,
                      "method_not_allowed")
        allow = set(re.split(r"\s*,\s*", response.header("Allow") or ""))
        e2e.check_equal(allow - {"HEAD", "OPTIONS"}, allowed, "Allow")


def visible(response):
    """All that a client can see, but for the time."""
    body = response.read()
    head = [line for line in response.raw_head.split(b"\r\n")
            if not line.lower().startswith(b"date:")]
    return head, body


def foreign_requests(server, sid):
    base = "/api/v1/streams/" + quote(sid)
    mallory = {"user_id": "mallory"}
    yield server.get(base, mallory)
    yield server.request("POST", base + "/stop?user_id=mallory").read_head()
    yield server.request("DELETE", base + "?user_id=mallory").read_head()
    yield server.get(URL, {"stream_id": sid, **mallory})
    yield server.get(URL, {"stream_id": sid, **mallory},
                     [("Last-Event-ID", "0")])
    yield server.get(URL, {"stream_id": sid, **mallory,
                           "last_event_id": "100000"})
    yield server.get(base)  # an owner of no name has none of ann's either


@e2e.test
def anothers_stream_and_a_missing_one_give_the_same_bytes(server):
    live = server.start_stream(message="x", model="live", user_id="ann",
                               stream_id="ann-live").read_frames(2)
    server.start_stream(message="x", user_id="ann",
                        stream_id="ann-done").read_all()
    before = server.stream_files()
    missing = [visible(r) for r in foreign_requests(server, "none-here")]
    for sid in ("ann-live", "ann-done"):
        got = [visible(r) for r in foreign_requests(server, sid)]
        for number, (one, other) in enumerate(zip(got, missing)):
            e2e.check_equal(one, other, "request %d for %s" % (number, sid))
    for head, body in missing:
        e2e.check(b" 404 " in head[0], "status %r" % head[0])
        e2e.check_equal(e2e.parse_json(body)["error_type"],
                        "stream_not_found", "error_type")
    e2e.check_equal(server.stream_files(), before, "stream files")
    # What mallory tried has harmed nothing.
    live.read_frames(len(live.frames) + 5)
    listed = server.get("/api/v1/streams", {"user_id": "mallory"}).json()
    e2e.check_equal(listed["streams"], [], "mallory's list")
    mine = server.get("/api/v1/streams", {"user_id": "ann"}).json()
    e2e.check_equal({s["stream_id"] for s in mine["streams"]},
                    {"ann-live", "ann-done"}, "ann's list")
    live.close()


@e2e.test
def nobody_can_list_the_streams_without_an_owner(server):
    server.start_stream(message="x").read_all()
    got = server.get("/api/v1/streams").json()
    e2e.check_equal(got, {"streams": [], "has_more": False}, "list")


@e2e.test
def a_deleted_stream_is_gone_for_its_owner_too(server):
    server.start_stream(message="x", user_id="ann", stream_id="gone",
                        model="live").read_frames(1)
    path = "/api/v1/streams/gone?user_id=ann"
    response = server.request("DELETE", path).read_head()
    e2e.check_equal((response.status, response.read()), (204, b""), "DELETE")
    for response in (
            server.request("GET", path),
            server.get(URL, {"stream_id": "gone", "user_id": "ann"}),
            server.post(URL, {"stream_id": "gone", "user_id": "ann",
                              "message": "x", "model": "live"})):
        check_refused(server, "a deleted stream", response, 404,
                      "stream_not_found")


@e2e.test
def a_foreign_origin_may_not_start_where_origins_are_listed(server):
    with e2e.Server(models=MODELS, settings={
            "cors_origins": "https://chat.example https://b.example"}) as own:
        before = own.snapshot_of_disk()
        for headers in ([("Origin", "https://evil.example")],
                        [("Sec-Fetch-Site", "cross-site")],
                        [("Origin", "null")]):
            check_refused(own, repr(headers),
                          own.post(URL, {"message": "x"}, headers), 403,
                          "origin_refused")
        e2e.check_equal(own.snapshot_of_disk(), before, "the spool")
        response = own.post(URL, {"message": "x"},
                            [("Origin", "https://chat.example")])
        e2e.check_equal(response.header("Access-Control-Allow-Origin"),
                        "https://chat.example", "allowed origin")
        e2e.check_equal(response.header("Access-Control-Allow-Credentials"),
                        "true", "credentials")
        e2e.check("Origin" in (response.header("Vary") or ""), "Vary")
        e2e.Stream(response, 0).read_all()


@e2e.test
def a_preflight_is_answered(server):
    response = server.request("OPTIONS", URL, [
        ("Origin", "https://chat.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type,last-event-id")])
    response.read_head()
    e2e.check_equal(response.status, 204, "status")
    allowed = response.header("Access-Control-Allow-Headers").lower()
    for name in ("content-type", "authorization", "cache-control",
                 "last-event-id"):
        e2e.check(name in allowed, "%s is not allowed" % name)
    methods = response.header("Access-Control-Allow-Methods")
    for name in ("GET", "POST", "DELETE"):
        e2e.check(name in methods, "%s is not allowed" % name)
    e2e.check(int(response.header("Access-Control-Max-Age")) > 0, "max-age")


if __name__ == "__main__":
    e2e.main(models=MODELS, settings={"max_body_bytes": MAX_BODY}, procs=2)
