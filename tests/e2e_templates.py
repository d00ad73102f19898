#!/usr/bin/env -S python3 -B
"""Prompts come from templates and messages find theirs; what the admin
changes on the disk holds from the next request on."""

import os
import shutil
import subprocess

import e2e

MODELS = {
    "default": "echo",
    "models": {
        "echo": {"provider": "demo"},
        "slow": {"provider": "demo", "interval_ms": 100},
    },
}
SHARE = os.path.join(e2e.SOURCE, "share")
HOSTILE = ("{{x}}{{/x}}{{>code}}{{=<% %>=}}<b>&amp;\"\\\r\n\n"
           "data: {}\n\nevent: done\n\u0000\u2028\ud7ff\U0001f600")


class Server(e2e.Server):
    """With the shipped templates and rules, in copies that tests change."""

    def _environment(self, settings, environment):
        shutil.copytree(os.path.join(SHARE, "templates"),
                        self.path("templates"))
        shutil.copy(os.path.join(SHARE, "triage.json"), self.run)
        for name in os.listdir(self.path("templates")):
            os.chmod(self.path("templates", name), 0o644)
        os.chmod(self.path("triage.json"), 0o644)
        return super()._environment({
            "templates_dir": self.path("templates"),
            "triage_file": self.path("triage.json"), **settings}, environment)

    def path(self, *names):
        return os.path.join(self.run, *names)

    def write(self, text, *names):
        """Another file in its place, at once."""
        new = self.path("new")
        with open(new, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(new, 0o644)
        os.rename(new, self.path(*names))

    def write_template(self, name, text):
        self.write(text, "templates", name + ".mustache")

    def render(self, template, **variables):
        response = self.post("/api/render", {"template": template,
                                             "variables": variables})
        return response.status, response.json()

    def triage(self, message):
        response = self.post("/api/triage", {"message": message})
        e2e.check_equal(response.status, 200, "status")
        return response.json()

    def check_files(self):
        """What respool.fcgi -t says: status and stderr."""
        done = subprocess.run([os.path.join(self.bin, "respool.fcgi"), "-t"],
                              env=self.env, capture_output=True, check=False)
        return done.returncode, done.stderr.decode()


@e2e.test
def the_shipped_files_are_right(server):
    e2e.check_equal(server.check_files(), (0, ""), "status and faults")
    templates = server.get("/api/templates").json()["templates"]
    names = [template["name"] for template in templates]
    e2e.check_equal(names, sorted(names), "names")
    e2e.check("summarize" in names, "no summarize in %s" % names)
    for template in templates:
        e2e.check(template["description"], "none of " + template["name"])
        e2e.check(set(template["required"]) <= set(template["variables"]),
                  "variables of " + template["name"])
        values = {name: "<%s>" % name for name in template["required"]}
        status, answer = server.render(template["name"], **values)
        e2e.check_equal(status, 200, "status of " + template["name"])
        for value in values.values():
            e2e.check(value in answer["text"], "no %s" % value)
        for name in template["required"]:
            status, answer = server.render(template["name"],
                                           **{**values, name: None})
            e2e.check_equal(status, 400, "status without " + name)
            e2e.check(answer["error"].endswith(" " + name), answer["error"])


@e2e.test
def messages_find_their_template(server):
    for message, category, rule in (
            ("Please translate this.", "translation", "translation"),
            ("I want my money back for order #12345!", "support", "order"),
            ("int main(void) { return 0; }", "code", "code"),
            ("x" * 4000, "summary", "long text"),
            ("Hi!", "smalltalk", "greeting"),
            ("What is the weather like?", "general", None)):
        found = server.triage(message)
        e2e.check_equal((found["category"], found["rule"]), (category, rule),
                        "category and rule of %r" % message[:40])
        e2e.check_equal(found["confidence"], 1 if rule else 0, "confidence")
        if found["template"]:
            e2e.check_equal(server.render(found["template"])[0], 400,
                            "status without variables")
    found = server.triage("Translate the invoice of my order.")
    e2e.check_equal((found["category"], found["confidence"]),
                    ("translation", 0.5), "of two")


@e2e.test
def a_template_is_what_the_model_is_asked(server):
    fields = {"template": "summarize", "stream_id": "templated",
              "variables": {"text": HOSTILE, "sentences": 3}}
    want = server.render("summarize", **fields["variables"])[1]["text"]
    e2e.check(HOSTILE in want, "the value has changed: %r" % want)
    stream = server.start_stream(**fields).read_all()
    e2e.check_equal(stream.text(), want, "what the model was asked")
    # The same request joins, another one does not.
    again = server.start_stream(**fields).read_all()
    e2e.check_equal(again.bytes(), stream.bytes(), "the stream, again")
    fields["variables"] = {"text": "other"}
    response = server.post("/api/v1/stream", fields)
    e2e.check_equal(response.status, 409, "status with other variables")
    e2e.check_equal(len(server.usage_lines("reserve", "templated")), 1,
                    "generations")


@e2e.test
def a_stream_goes_on_when_its_template_is_gone(server):
    server.write_template("brief", "{{! model: slow }}\n" + "{{word}} " * 30)
    fields = {"template": "brief", "stream_id": "orphan",
              "variables": {"word": "word"}}
    stream = server.start_stream(**fields).read_frames(3)
    stream.close()
    os.unlink(server.path("templates", "brief.mustache"))
    e2e.check_equal(server.render("brief", word="x")[0], 400, "status")
    rest = server.resume(2, stream_id="orphan").read_all()
    whole = server.start_stream(**fields).read_all()
    e2e.check_equal(whole.text().split(), ["word"] * 30, "the whole")
    e2e.check_equal(stream.bytes() + rest.bytes(), whole.bytes(), "parts")
    snapshot = server.get("/api/v1/streams/orphan").json()
    e2e.check_equal(snapshot["model"], "slow", "the template's model")


@e2e.test
def a_change_holds_from_the_next_request_on(server):
    for number in range(20):
        server.write_template("changing", "number %d" % number)
        e2e.check_equal(server.render("changing"),
                        (200, {"text": "number %d" % number}), "answer")
    os.unlink(server.path("templates", "changing.mustache"))
    e2e.check_equal(server.render("changing")[0], 400, "status")


@e2e.test
def a_broken_file_is_logged_once_and_the_former_stays(server):
    server.write_template("good", "good")
    rules = open(server.path("triage.json"), encoding="utf-8").read()
    for text, fault in (("x\n{{#a}}", ":2: a section without an end: a"),
                        ("{{>good}}", ":1: a template must not include "
                                      "itself, also not by others: good")):
        e2e.check_equal(server.render("good"), (200, {"text": "good"}),
                        "answer before")
        before = len(server.log())
        server.write_template("good", text)
        for _ in range(20):  # both responders
            e2e.check_equal(server.render("good"), (200, {"text": "good"}),
                            "answer")
            e2e.check_equal(len(server.get("/api/templates")
                                .json()["templates"]), 6, "templates")
        lines = [line for line in server.log()[before:]
                 if " kept the former ones what=templates " in line]
        e2e.check(1 <= len(lines) <= len(server.responders()),
                  "log lines: %r" % lines)
        status, said = server.check_files()
        e2e.check(status != 0 and "/good.mustache" + fault in said, said)
    server.write("{\"rules\": [\n{\"name\": }]}", "triage.json")
    e2e.check_equal(server.triage("Hi!")["rule"], "greeting", "rule")
    status, said = server.check_files()
    e2e.check(status != 0 and "/triage.json:2: not valid JSON" in said, said)
    server.write(rules, "triage.json")
    server.write_template("good", "better")
    e2e.check_equal(server.render("good"), (200, {"text": "better"}),
                    "answer at the end")
    os.unlink(server.path("templates", "good.mustache"))


@e2e.test
def names_of_what_is_not_there_are_told(server):
    server.write_template("t", "{{! model: lost }}x")
    rules = open(server.path("triage.json"), encoding="utf-8").read()
    server.write('{"rules": [{"name": "r", "category": "c", "words": ["x"],'
                 ' "template": "none", "model": "gone"}]}', "triage.json")
    status, said = server.check_files()
    e2e.check_equal(status, 1, "status")
    for want in ("/t.mustache: there is no model lost",
                 "rules[0] (r): there is no template none",
                 "rules[0] (r): there is no model gone"):
        e2e.check(want in said, "not told: %s in %s" % (want, said))
    response = server.post("/api/v1/stream", {"template": "t"})
    e2e.check_equal((response.status, response.json()["error_type"]),
                    (400, "model_not_found"), "answer")
    server.write(rules, "triage.json")
    os.unlink(server.path("templates", "t.mustache"))


@e2e.test
def pages_of_other_origins_may_ask(server):
    origin = [("Origin", "https://a.example")]
    for path, method in (("/api/templates", "GET"), ("/api/render", "POST"),
                         ("/api/triage", "POST")):
        preflight = server.request(
            "OPTIONS", path, origin +
            [("Access-Control-Request-Method", method)]).read_head()
        e2e.check_equal(preflight.status, 204, "status of " + path)
        e2e.check(method in preflight.header("Access-Control-Allow-Methods"),
                  "not allowed: " + method)
        preflight.close()
        for response in (server.request(method, path, origin).read_head(),
                         server.request("PUT", path, origin).read_head()):
            e2e.check_equal(response.header("Access-Control-Allow-Origin"),
                            "*", "origin on %d" % response.status)
            e2e.check_equal(response.header("Cache-Control"), "no-store",
                            "caching of %d" % response.status)
            response.close()


if __name__ == "__main__":
    e2e.main(server_class=Server, models=MODELS)
