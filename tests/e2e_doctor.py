#!/usr/bin/env -S python3 -B
"""respoolctl doctor: finds nothing in a healthy installation, and each of the
planted faults, with its cure, behind real web servers."""

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import e2e

MODELS = {
    "default": "paced",
    "models": {
        "paced": {"provider": "demo", "chunks": 16, "interval_ms": 60},
        "quiet": {"provider": "demo", "hidden": True, "chunks": 2,
                  "interval_ms": 600000},
    },
}
SETTINGS = {"heartbeat": 3, "keepalive": 3}
ROUTES = "^/(api/|convo_|magic|health$|ready$|version$|metrics$)"
APACHE_MODULES = "/usr/lib/apache2/modules"
DOCTOR_TIMEOUT = 150  # seconds
LINE = re.compile(r"(ok  |skip|warn|FAIL) ([^:]+): (.*)")


class Findings:
    """What one run of the doctor said."""

    def __init__(self, result):
        self.status = result.returncode
        self.text = result.stdout + result.stderr
        self.lines = [m.groups() for m in map(LINE.fullmatch,
                                              result.stdout.splitlines()) if m]

    def of(self, what):
        return [(f.strip(), text) for f, w, text in self.lines if w == what]

    def check(self, finding, what, *words):
        """There is such a line, with these words in it."""
        for got, text in self.of(what):
            if got == finding and all(word in text for word in words):
                return self
        raise AssertionError("no %s of %r with %r in:\n%s"
                             % (finding, what, words, self.text))

    def check_only(self, finding, what, *words):
        """And nothing else is wrong."""
        self.check(finding, what, *words)
        wrong = {w for f, w, _ in self.lines if f in ("warn", "FAIL")}
        e2e.check(wrong == {what}, "more is said:\n" + self.text)
        e2e.check_equal(self.status, 2 if finding == "FAIL" else 1, "status")


def examine(server, *arguments, url=True, **environment):
    """respoolctl doctor URL, after the options."""
    command = [os.path.join(server.bin, "respoolctl"), *arguments, "doctor"]
    if url:
        command.append("http://127.0.0.1:%d" % server.port)
    return Findings(subprocess.run(
        command, env={**server.env, **environment}, cwd="/",
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        timeout=DOCTOR_TIMEOUT, check=False))


# ---- web servers with a fault ----

class Spawned(e2e.Server):
    """A web server before a responder on RUN/responder.sock."""

    needs = ("spawn-fcgi",)
    text = ""
    program = ()  # what runs the responder

    def __init__(self, models=None, settings=None):
        self.spawned = None
        super().__init__(models=models or MODELS,
                         settings=settings or SETTINGS)

    def start(self):
        self.spawn()
        super().start()

    def spawn(self):
        path = self.run + "/responder.sock"
        words = self.words()
        with open(os.path.join(self.run, "lighttpd.log"), "ab") as log:
            self.spawned = subprocess.Popen(
                ["spawn-fcgi", "-n", "-s", path, *self.spawn_options(), "--",
                 shutil.which(words[0]), *words[1:]], env=self.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        e2e.wait_until(lambda: self._listens(path), 10, path)

    def spawn_options(self):
        if not self.user:
            return ["-M", "0660"]
        return ["-M", "0660", "-u", self.user.pw_name,
                "-g", str(self.user.pw_gid)]

    def words(self):
        """The responder's command."""
        return [*self.program, self.bin + "/respool.fcgi"]

    @staticmethod
    def _listens(path):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(path) == 0

    def stop(self):
        report = super().stop()
        if self.spawned is not None:
            self.spawned.wait()
        return report

    def configure(self, text, **values):
        """The file with this text."""
        values.update(RUN=self.run, PORT=self.port, ROUTES=ROUTES)
        for name, value in values.items():
            text = text.replace("@%s@" % name, str(value))
        path = os.path.join(self.run, "server.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path


class Lighttpd(Spawned):
    needs = ("spawn-fcgi", "lighttpd")
    text = "server.stream-response-body = 2\n"
    base = """
server.bind          = "127.0.0.1"
server.port          = @PORT@
server.document-root = "@RUN@/www"
server.modules       = ( "mod_fastcgi", "mod_setenv" )
$HTTP["url"] =~ "@ROUTES@" {
  fastcgi.server = ( "/" => ((
    "socket"      => "@RUN@/responder.sock",
    "check-local" => "disable",
    "fix-root-scriptname" => "enable"
  )) )
}
"""

    def command(self):
        text = self.base + self.text
        if self.user:
            text += 'server.username = "%s"\n' % self.user.pw_name
        return ["lighttpd", "-D", "-f", self.configure(text)]


class Nginx(Spawned):
    needs = ("spawn-fcgi", "nginx", "/etc/nginx/fastcgi_params")
    text = "fastcgi_buffering off;"
    root = "www"
    base = """
daemon off;
worker_processes 1;
pid @RUN@/nginx.pid;
@USER@
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path @RUN@/nginx-body;
  fastcgi_temp_path @RUN@/nginx-fastcgi;
  proxy_temp_path @RUN@/nginx-proxy;
  scgi_temp_path @RUN@/nginx-scgi;
  uwsgi_temp_path @RUN@/nginx-uwsgi;
  server {
    listen 127.0.0.1:@PORT@;
    root @RUN@/@ROOT@;
    location ~ @ROUTES@ {
      include /etc/nginx/fastcgi_params;
      fastcgi_pass unix:@RUN@/responder.sock;
      @TEXT@
    }
  }
}
"""

    def command(self):
        user = "user %s;" % self.user.pw_name if self.user else ""
        return ["nginx", "-p", self.run, "-e", "stderr", "-c",
                self.configure(self.base, USER=user, TEXT=self.text,
                               ROOT=self.root)]


class Apache(Spawned):
    needs = ("spawn-fcgi", "apache2", APACHE_MODULES + "/mod_proxy_fcgi.so")
    modules = ()
    proxy = ('ProxyPassMatch "^(/api/.*|/version|/ready|/health)$" '
             '"unix:@RUN@/responder.sock|fcgi://respool" flushpackets=on\n')
    text = '<LocationMatch "@ROUTES@">\nCGIPassAuth On\n</LocationMatch>\n'
    base = """
ServerRoot "@RUN@"
DefaultRuntimeDir "@RUN@"
PidFile "@RUN@/apache.pid"
ErrorLog "@RUN@/lighttpd.log"
ServerName localhost
Listen 127.0.0.1:@PORT@
@USER@
LoadModule mpm_event_module @MODULES@/mod_mpm_event.so
LoadModule authz_core_module @MODULES@/mod_authz_core.so
LoadModule proxy_module @MODULES@/mod_proxy.so
LoadModule proxy_fcgi_module @MODULES@/mod_proxy_fcgi.so
DocumentRoot "@RUN@/www"
"""

    def command(self):
        user = ""
        if self.user:
            user = "User %s\nGroup #%d" % (self.user.pw_name,
                                           self.user.pw_gid)
        load = "".join("LoadModule %s_module @MODULES@/mod_%s.so\n" % (m, m)
                       for m in self.modules)
        return ["apache2", "-D", "FOREGROUND", "-f",
                self.configure(self.base + load + self.proxy + self.text,
                               USER=user, MODULES=APACHE_MODULES)]


class Fcgid(Apache):
    """mod_fcgid starts the responders."""

    needs = ("apache2", APACHE_MODULES + "/mod_fcgid.so")
    modules = ("fcgid", "alias", "env")
    text = "FcgidOutputBufferSize 0\n"
    handler = "fcgid-script"
    proxy = """
FcgidIPCDir @RUN@/fcgid
FcgidProcessTableFile @RUN@/fcgid.shm
@ENVIRONMENT@
ScriptAliasMatch "@ROUTES@" @RUN@/bin/respool.fcgi
<Directory @RUN@/bin>
  Options +ExecCGI
  SetHandler @HANDLER@
  CGIPassAuth On
  Require all granted
</Directory>
"""

    def spawn(self):
        pass

    def configure(self, text, **values):
        lines = ["%s %s \"%s\"" % (self.directive, name, value)
                 for name, value in sorted(self.env.items())
                 if name.startswith("RESPOOL_") or name.endswith("_OPTIONS")]
        return super().configure(text.replace("@ENVIRONMENT@",
                                              "\n".join(lines)),
                                 HANDLER=self.handler, **values)

    directive = "FcgidInitialEnv"


class Cgi(Fcgid):
    """mod_cgid does, one for each request."""

    needs = ("apache2", APACHE_MODULES + "/mod_cgid.so")
    modules = ("cgid", "alias", "env")
    text = "ScriptSock @RUN@/cgid.sock\n"
    handler = "cgi-script"
    directive = "SetEnv"
    proxy = Fcgid.proxy.replace("FcgidIPCDir @RUN@/fcgid\n", "").replace(
        "FcgidProcessTableFile @RUN@/fcgid.shm\n", "")


def behind(server_class, as_root=False, **arguments):
    """Gives the test such a server in place of the runner's, and skips it
    where that is not installed."""
    def decorate(function):
        @functools.wraps(function)
        def run(_):
            for name in server_class.needs:
                if not (shutil.which(name) or os.path.exists(name)):
                    print("skip  the next one: there is no " + name)
                    return
            if as_root and os.geteuid() != 0:
                print("skip  the next one: only root can do it")
                return
            with server_class(**arguments) as server:
                function(server)
        return e2e.test(run)
    return decorate


def variant(base, **attributes):
    return type(base.__name__, (base,), attributes)


# ---- healthy ones ----

def check_healthy(server):
    found = examine(server)
    wrong = [line for line in found.lines if line[0] in ("warn", "FAIL")]
    skipped = [line for line in found.lines if line[0] == "skip"]
    e2e.check(not wrong and not skipped and found.status == 0,
              "status %d:\n%s" % (found.status, found.text))
    for what in ("buffering", "Last-Event-ID", "Authorization", "time-outs",
                 "background", "same spool", "same settings", "descriptors",
                 "spool by URL", "keys", "space", "clock", "permissions"):
        found.check("ok", what)
    left = [path for path in server.stream_files() if os.path.getsize(path)]
    e2e.check(not left, "it left a stream behind")  # tombstones are empty


@e2e.test
def nothing_is_wrong_with_the_shipped_lighttpd(server):
    check_healthy(server)


@behind(Nginx)
def nothing_is_wrong_with_nginx(server):
    check_healthy(server)


@behind(Apache)
def nothing_is_wrong_with_apache(server):
    check_healthy(server)


@behind(Fcgid)
def nothing_is_wrong_with_mod_fcgid(server):
    check_healthy(server)


@behind(Cgi)
def nothing_is_wrong_with_mod_cgid(server):
    check_healthy(server)


@e2e.test
def a_version_tells_of_its_side_only_when_asked(server):
    for query in ("", "?probe=", "?probe=0123456789abcdeg", "?probe=1234",
                  "?probe=" + 65 * "a", "?prob=0123456789abcdef"):
        answer = server.get("/version" + query).json()
        e2e.check_equal(sorted(answer), ["name", "version"], query)
    answer = server.get("/version?probe=0123456789abcdef").json()
    e2e.check_equal(answer["probe"]["authorization"], False, "authorization")
    again = server.get("/version?probe=0123456789abcdee",
                       headers=[("Authorization", "Basic x")]).json()
    e2e.check_equal(again["probe"]["authorization"], True, "authorization")
    for name in ("spool", "settings"):
        e2e.check(answer["probe"][name] != again["probe"][name],
                  name + " is the same for all who ask")


@e2e.test
def without_a_url_the_web_server_is_passed_over(server):
    found = examine(server, url=False)
    e2e.check_equal(found.status, 0, "status of " + found.text)
    found.check("skip", "web server", "URL")


@e2e.test
def without_demo_models_it_says_which_ones_it_needs(server):
    path = os.path.join(server.run, "one.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"default": "a", "models": {"a": {"provider": "exec", '
                '"command": ["true"]}}}')
    os.chmod(path, 0o644)
    found = examine(server, RESPOOL_MODELS_FILE=path)
    found.check("skip", "stream", "demo model")
    found.check("warn", "same settings", "restart")


# ---- buffers ----

@behind(variant(Lighttpd, text=""))
def a_lighttpd_that_buffers_is_found(server):
    examine(server).check_only("FAIL", "buffering", "at the end",
                               "server.stream-response-body = 2")


@behind(variant(Nginx, text="fastcgi_ignore_headers X-Accel-Buffering;"))
def an_nginx_that_buffers_is_found(server):
    examine(server).check_only("FAIL", "buffering", "fastcgi_buffering off",
                               "fastcgi_ignore_headers")


@behind(variant(Apache, proxy=Apache.proxy.replace("flushpackets=on", "")))
def an_apache_that_buffers_is_found(server):
    examine(server).check_only("FAIL", "buffering", "flushpackets=on",
                               "ProxyPass")


@behind(variant(Fcgid, text=""))
def a_mod_fcgid_that_buffers_is_found(server):
    examine(server).check_only("FAIL", "buffering",
                               "FcgidOutputBufferSize 0")


# The first name is where the second one begins: one worker, the first's.
SHARED = """
ProxyPass /api/v1/models unix:@RUN@/responder.sock|fcgi://respool/api
ProxyPass /api unix:@RUN@/responder.sock|fcgi://respool/api flushpackets=on
ProxyPass /version unix:@RUN@/responder.sock|fcgi://other/version
ProxyPass /ready unix:@RUN@/responder.sock|fcgi://other/ready
ProxyPass /health unix:@RUN@/responder.sock|fcgi://other/health
"""


@behind(variant(Apache, proxy=SHARED))
def two_proxypass_lines_that_share_a_worker_are_found(server):
    with open(server.run + "/lighttpd.log", encoding="utf-8") as f:
        e2e.check("AH01146" in f.read(), "the fault is not planted")
    examine(server).check_only("FAIL", "buffering", "shares", "AH01146",
                               "name of its own after fcgi://")


GZIP = """
SetEnvIf Accept-Encoding gzip packed
ExtFilterDefine packer mode=output cmd=/bin/gzip enableenv=packed
SetOutputFilter packer
Header set Content-Encoding gzip env=packed
"""


@behind(variant(Apache, modules=("setenvif", "headers", "ext_filter"),
                text=Apache.text + GZIP))
def a_deflate_that_buffers_is_found(server):
    examine(server).check_only("FAIL", "compression", "(gzip)",
                               "SetEnv no-gzip 1", "SetOutputFilter")


@behind(variant(Apache, modules=("filter", "deflate"), text=Apache.text +
                "AddOutputFilterByType DEFLATE text/event-stream\n"))
def a_deflate_that_flushes_is_no_fault(server):
    found = examine(server).check("ok", "buffering", "compressed", "gzip")
    e2e.check_equal(found.status, 0, "status of " + found.text)


# ---- headers ----

@behind(variant(Nginx, text='fastcgi_buffering off;'
                'fastcgi_param HTTP_LAST_EVENT_ID "";'))
def a_stripped_last_event_id_is_found_behind_nginx(server):
    examine(server).check_only("FAIL", "Last-Event-ID", "stripped",
                               "fastcgi_param HTTP_LAST_EVENT_ID")


@behind(variant(Apache, modules=("headers",), text=Apache.text +
                "RequestHeader unset Last-Event-ID early\n"))
def a_stripped_last_event_id_is_found_behind_apache(server):
    examine(server).check_only("FAIL", "Last-Event-ID", "stripped",
                               "RequestHeader unset")


@behind(variant(Apache, text=""))
def a_stripped_authorization_is_found(server):
    examine(server).check_only("FAIL", "Authorization", "stripped",
                               "CGIPassAuth On")


# ---- time-outs ----

@behind(variant(Nginx, text="fastcgi_buffering off;"
                "fastcgi_read_timeout 1s;"))
def a_timeout_below_the_heartbeat_is_found(server):
    examine(server).check_only("FAIL", "time-outs", "cut", "3000",
                               "fastcgi_read_timeout 300s")


@behind(variant(Apache, proxy=Apache.proxy.rstrip() + " timeout=1\n"))
def a_timeout_below_the_heartbeat_is_found_behind_apache(server):
    examine(server).check_only("FAIL", "time-outs", "cut", "3000",
                               "timeout=300", "ProxyTimeout 300")


@behind(variant(Lighttpd, text=Lighttpd.text +
                "server.max-write-idle = 1\n"))
def a_timeout_below_the_heartbeat_is_found_behind_lighttpd(server):
    examine(server).check_only("FAIL", "time-outs", "cut", "3000",
                               "server.max-write-idle")


@behind(variant(Fcgid, text=Fcgid.text + "FcgidIOTimeout 1\n"))
def a_timeout_that_is_made_a_clean_end_is_found(server):
    examine(server).check("FAIL", "time-outs", "cut", "3000",
                          "ended cleanly", "a page of the web server's",
                          "FcgidIOTimeout 60")


LONG = {"default": "long", "models": {
    "long": {"provider": "demo", "chunks": 100, "interval_ms": 100}}}


@behind(Nginx, models=LONG, settings=dict(SETTINGS, max_connection=1))
def what_respool_ends_on_purpose_is_no_cut(server):
    found = examine(server)
    found.check("skip", "buffering", "max_connection")
    found.check("ok", "Last-Event-ID").check("ok", "background")
    e2e.check_equal(found.status, 0, "status of " + found.text)


@behind(Nginx, models=LONG)
def an_answer_that_fails_is_told_in_its_own_words(server):
    found = []
    thread = threading.Thread(target=lambda: found.append(examine(server)))
    thread.start()
    e2e.wait_until(server.stream_files, 30, "the doctor's stream")
    server.kill_all("respool-spooler")
    thread.join()
    found[0].check("FAIL", "stream", "no whole answer", "has died")


@behind(Nginx, models=LONG)
def a_cut_that_is_made_a_clean_end_is_found(server):
    found = []
    thread = threading.Thread(target=lambda: found.append(examine(server)))
    thread.start()
    e2e.wait_until(server.stream_files, 30, "the doctor's stream")
    size = functools.partial(os.path.getsize, server.stream_files()[0])
    e2e.wait_until(lambda: size() > 1000, 30, "its first frames")
    server.kill_all("respool.fcgi")
    thread.join()
    found[0].check("FAIL", "stream", "was cut after", "cleanly")


# ---- the spool ----

@behind(Nginx)
def a_spool_that_others_can_write_is_found(server):
    os.chmod(server.spool, 0o770)
    found = examine(server)
    found.check("FAIL", "permissions", "chmod go-w " + server.spool)
    e2e.check_equal(found.status, 2, "status")


@behind(Nginx, as_root=True)
def what_belongs_to_somebody_else_in_the_spool_is_found(server):
    server.start_stream(message="x").read_all()
    os.chown(server.spool + "/usage", 0, 0)
    found = examine(server, url=False)
    found.check("FAIL", "permissions", "/usage", "chown -R")
    e2e.check_equal(found.status, 2, "status")


class SmallDisk(Nginx):
    """Its spool is a tmpfs of 512 KB."""

    def start(self):
        os.mkdir(self.spool, 0o700)
        owner = "uid=%d,gid=%d," % self.user[2:4] if self.user else ""
        subprocess.run(["mount", "-t", "tmpfs", "-o",
                        owner + "size=512k,mode=0700", "tmpfs", self.spool],
                       check=True)
        super().start()

    def stop(self):
        for program in e2e.PROGRAMS:
            self.kill_all(program)
        subprocess.run(["umount", "-l", self.spool], check=False)
        return super().stop()


@behind(SmallDisk, as_root=True)
def a_full_disk_is_found(server):
    examine(server).check("FAIL", "space", "full", "respoolctl gc",
                          "spool_dir")


class Private(Lighttpd):
    """Its responder sees another directory where the spool is, as in a unit
    with PrivateTmp=true."""

    def start(self):
        owner = self.user or None
        for path in (self.spool, self.run + "/private"):
            os.mkdir(path, 0o700)
            if owner:
                os.chown(path, owner.pw_uid, owner.pw_gid)
        super().start()

    def spawn_options(self):
        return ["-M", "0666"]

    def words(self):
        script = 'mount --bind "$0/private" "$0/spool" && exec "$@"'
        before = ["unshare", "--mount", "sh", "-c", script, self.run]
        if self.user:
            before += ["setpriv", "--reuid=%d" % self.user.pw_uid,
                       "--regid=%d" % self.user.pw_gid, "--clear-groups"]
        return before + super().words()


@behind(variant(Private, needs=Lighttpd.needs + ("unshare", "setpriv")),
        as_root=True)
def a_spool_in_a_private_temporary_directory_is_found(server):
    examine(server).check_only("FAIL", "same spool", "PrivateTmp",
                               "spool_dir")


@behind(variant(Nginx, root=""))
def a_spool_that_can_be_read_by_url_is_found(server):
    examine(server).check_only("FAIL", "spool by URL", "/spool/",
                               "spool_dir")


@e2e.test
def a_spool_that_is_missing_is_found_and_not_made(server):
    path = os.path.join(server.run, "nowhere")
    found = examine(server, url=False, RESPOOL_SPOOL_DIR=path)
    found.check("FAIL", "spool", "install -d -m 700")
    e2e.check(not os.path.exists(path), "it was made")


# ---- configuration, models ----

@e2e.test
def a_fault_in_the_configuration_is_found(server):
    path = os.path.join(server.run, "bad.conf")
    with open(path, "w", encoding="utf-8") as f:
        f.write("heartbeet = 5\n")
    os.chmod(path, 0o644)
    found = examine(server, "-c", path)
    found.check_only("FAIL", "configuration", "bad.conf:1", "heartbeet")


KEYED = {
    "default": "gpt",
    "models": {
        **MODELS["models"],
        "gpt": {"provider": "openai", "api_key_env": "A_KEY_OF_OURS"},
    },
}


@behind(Nginx, models=KEYED)
def a_missing_key_is_found_and_a_key_is_never_shown(server):
    found = examine(server)
    found.check_only("FAIL", "keys", "gpt", "A_KEY_OF_OURS", "api_key_file")
    found = examine(server, url=False, A_KEY_OF_OURS="sk-very-secret")
    e2e.check_equal(found.status, 0, "status of " + found.text)
    e2e.check("very-secret" not in found.text, "it shows the key")


# ---- processes ----

@behind(variant(Nginx, program=("prlimit", "--nofile=100:100"),
                needs=Nginx.needs + ("prlimit",)))
def a_low_limit_of_descriptors_is_found(server):
    found = examine(server)
    found.check_only("FAIL", "descriptors", "the responder", "100",
                     "LimitNOFILE=")
    # The spooler that this responder has started by now.
    found = examine(server, url=False)
    found.check_only("FAIL", "descriptors", "the spooler", "ulimit -n")


@behind(Nginx)
def the_stale_socket_of_a_spooler_is_found(server):
    server.start_stream(message="x").read_all()
    server.kill_all("respool-spooler")
    examine(server, url=False).check_only(
        "warn", "spooler", "stale socket", "respoolctl check --fix")


@behind(variant(Nginx, text="fastcgi_buffering off; "
                "if ($uri = /version) { return 401; }"))
def a_password_where_none_is_needed_is_found(server):
    examine(server).check_only("FAIL", "web server", "401", "/api/")


@behind(Nginx)
def the_stale_socket_of_a_responder_is_found(server):
    server.kill_all("respool.fcgi")
    server.spawned.wait()
    examine(server).check_only("FAIL", "web server", "502", "stale socket",
                               "start it")


@behind(Nginx)
def a_spooler_that_does_not_answer_is_found(server):
    server.start_stream(message="x").read_all()
    for pid in server.spoolers():
        e2e.kill(pid, signal.SIGSTOP)
    try:
        examine(server, url=False).check_only(
            "FAIL", "spooler", "does not answer", "kill -9")
        examine(server).check("FAIL", "ready", "does not answer")
    finally:
        for pid in server.spoolers():
            e2e.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(e2e.main(models=MODELS, settings=SETTINGS, procs=1))
