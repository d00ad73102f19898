"""servers.py - the web servers that respool ships a configuration for, each
as an e2e.Server that starts what is shipped.

    with servers.Nginx(models=MODELS, mount=servers.CHAT) as server: ..."""

import collections
import os
import shutil
import signal
import socket
import subprocess
import time

import e2e

APACHE_MODULES = "/usr/lib/apache2/modules"

# Where respool's paths begin.
Mount = collections.namedtuple("Mount", "name base")
ROOT = Mount("at the root", "")
CHAT = Mount("in a sub-directory", "/chat")
CGI_BIN = Mount("as a program in cgi-bin", "/cgi-bin/respool.fcgi")


class Server(e2e.Server):
    """lighttpd, which starts the responders.  Requests are for the paths
    below the mount; program: what is run in place of respool.fcgi; changes:
    made in what is shipped."""

    name = "lighttpd"

    def __init__(self, mount=ROOT, program=None, settings=None, changes=(),
                 **options):
        self.base = mount.base
        self.changes = changes
        self.program = program
        settings = dict(settings or {})
        if self.needs_base_path(mount):
            settings["base_path"] = mount.base
        super().__init__(settings=settings, **options)

    @staticmethod
    def needs_base_path(mount):
        return mount.base != ""

    @classmethod
    def missing(cls):
        """What is not installed of what it needs."""
        return [name for name in cls.needs
                if not (shutil.which(name) or os.path.exists(name))]

    def marks(self):
        return dict(super().marks(), BASE=self.base)

    def fill_in(self, template, name=None):
        """With each of self.changes, (what stands there, what shall)."""
        path = super().fill_in(template, name)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for there, wanted in self.changes:
            text = text.replace(there, wanted)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def start(self):
        if self.program is not None:
            shutil.copy(self.program, self.bin + "/respool.fcgi")
        super().start()

    def request(self, method, target, *arguments, **options):
        return super().request(method, self.base + target, *arguments,
                               **options)

    def kill_responders(self):
        """kill -9, after which they are there again, whoever sees to it."""
        self.kill_all("respool.fcgi")

    # -- what the admin does --

    reload_signal = signal.SIGUSR1

    def reload(self):
        e2e.kill(self.lighttpd.pid, self.reload_signal)

    def restart(self):
        """The web server alone; on the same port."""
        e2e.kill(self.lighttpd.pid, signal.SIGTERM)
        self.lighttpd.wait()
        self.launch()

    def launch(self):
        command = self.command()
        with open(os.path.join(self.run, "server.log"), "ab") as log:
            self.lighttpd = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)
        e2e.wait_until(self._answers, 20, "an answer of /health")


class External(Server):
    """One whose responder runs by itself, on RUN/respool.sock."""

    def __init__(self, **options):
        self.responder = None
        super().__init__(**options)

    def start(self):
        if self.program is not None:
            shutil.copy(self.program, self.bin + "/respool.fcgi")
            self.program = None
        self.spawn()
        super().start()

    def spawn(self):
        path = self.run + "/respool.sock"
        command = ["spawn-fcgi", "-n", "-s", path, "-M", "0660"]
        if self.user:
            command += ["-u", self.user.pw_name, "-g", str(self.user.pw_gid)]
        with open(os.path.join(self.run, "server.log"), "ab") as log:
            self.responder = subprocess.Popen(
                command + ["--", self.bin + "/respool.fcgi"], env=self.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        e2e.wait_until(lambda: self._listens(path), 20, path)

    @staticmethod
    def _listens(path):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(path) == 0

    def kill_responders(self):
        """As a service manager has it: killed, it is started again."""
        self.responder.kill()
        self.responder.wait()
        self.spawn()

    def stop(self):
        report = super().stop()
        if self.responder is not None:
            self.responder.kill()
            self.responder.wait()
        return report


class LighttpdExternal(External):
    name = "lighttpd-external"
    needs = ("lighttpd", "spawn-fcgi")

    def command(self):
        self.fill_in("lighttpd/respool-external.conf", "respool.conf")
        return ["lighttpd", "-D", "-f", self.fill_in("lighttpd/demo.conf")]


class Nginx(External):
    name = "nginx"
    needs = ("nginx", "spawn-fcgi", "/etc/nginx/fastcgi_params")
    reload_signal = signal.SIGHUP

    def username(self):
        return "user %s;" % self.user.pw_name if self.user else ""

    def command(self):
        self.fill_in("nginx/respool.conf")
        return ["nginx", "-p", self.run, "-e", "stderr", "-c",
                self.fill_in("nginx/demo.conf")]


class Apache:
    """What all of them have."""

    shipped = None      # the configuration
    environment = None  # the line that hands a variable to the program

    def marks(self):
        return dict(super().marks(), MODULES=APACHE_MODULES,
                    CONFIG=self.run + "/empty.conf")

    def username(self):
        if not self.user:
            return ""
        return "User %s\nGroup #%d" % (self.user.pw_name, self.user.pw_gid)

    def command(self):
        if self.shipped is not None:
            self.fill_in(self.shipped, "respool.conf")
        self.write("environment.conf", "".join(
            self.environment.replace("NAME", name) + "\n"
            for name in sorted(self.env) if name.startswith(
                ("RESPOOL_", "ASAN_", "UBSAN_", "TSAN_")))
            + self.host())
        self.write("empty.conf", "")
        return ["apache2", "-D", "FOREGROUND", "-D", self.name, "-f",
                self.fill_in("apache/demo.conf")]

    def write(self, name, text):
        path = os.path.join(self.run, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, 0o644)

    def host(self):
        """What the host has beside what is shipped."""
        return ""


class ApacheProxy(Apache, External):
    name = "apache-proxy-fcgi"
    needs = ("apache2", "spawn-fcgi", APACHE_MODULES + "/mod_proxy_fcgi.so")
    shipped = "apache/respool-proxy.conf"
    environment = ""


class ApacheFcgid(Apache, Server):
    name = "apache-fcgid"
    needs = ("apache2", APACHE_MODULES + "/mod_fcgid.so")
    shipped = "apache/respool-fcgid.conf"
    environment = 'FcgidInitialEnv NAME "${NAME}"'

    @staticmethod
    def needs_base_path(mount):
        return mount is CHAT

    def marks(self):
        base = "" if self.base == CGI_BIN.base else self.base
        return dict(super().marks(), BASE=base)

    def host(self):
        return 'ScriptAlias "/cgi-bin/" "%s/"\n' % self.bin


class ApacheCgi(ApacheFcgid):
    name = "apache-cgi"
    needs = ("apache2", APACHE_MODULES + "/mod_cgid.so")
    shipped = "apache/respool-cgi.conf"
    environment = "PassEnv NAME"


class ApacheHtaccess(Apache, Server):
    """A directory on a host, with a .htaccess."""

    name = "apache-htaccess"
    needs = ("apache2", APACHE_MODULES + "/mod_cgid.so")
    environment = "PassEnv NAME"

    def __init__(self, mount=ROOT, **options):
        self.below = "" if mount is ROOT else "/chat"
        if mount is CGI_BIN:  # where there is no mod_rewrite
            mount = Mount(mount.name, "/chat/respool.cgi")
        super().__init__(mount=mount, **options)

    @staticmethod
    def needs_base_path(mount):
        return False

    def command(self):
        place = self.run + "/www" + self.below
        os.makedirs(place, exist_ok=True)
        shutil.copy(self.bin + "/respool.fcgi", place + "/respool.cgi")
        self.fill_in("apache/htaccess", "www%s/.htaccess" % self.below)
        return super().command()


ALL = (Server, LighttpdExternal, ApacheFcgid, ApacheProxy, ApacheCgi,
       ApacheHtaccess, Nginx)


class Reader:
    """Reads a stream whole, as a client does that comes back."""

    def __init__(self, server, stream_id=None, user_id="anonymous"):
        self.server = server
        self.stream_id = stream_id
        self.user_id = user_id
        self.frames = []
        self.visits = 0
        self.cuts = 0     # the answer broke off, or was not ours
        self.closing = 0  # it ended on a boundary, with a retry block
        self.retry = 0    # ms until it may come back

    @property
    def ended(self):
        return bool(self.frames) and self.frames[-1].event in e2e.TERMINAL

    def cursor(self):
        return self.frames[-1].id if self.frames else -1

    def visit(self, count=None):
        """One connection: until count frames are there, or to its end.  What
        is wrong with it is a cut: its frames are asked for again."""
        self.visits += 1
        self.retry = 100
        stream = None
        try:
            response = self.server.get(
                "/api/v1/stream", {"stream_id": self.stream_id,
                                   "user_id": self.user_id},
                [("Last-Event-ID", str(self.cursor()))])
            if response.status >= 500:
                response.close()
                self.cuts += 1
                return
            stream = e2e.Stream(response, self.cursor() + 1)
            while count is None or len(self.frames) + len(
                    stream.frames) < count:
                if not stream.read_some():
                    break
            if stream.parser.retry is not None:
                self.closing += 1
                self.retry = stream.parser.retry
            self.cuts += (stream.closed and not stream.ended and
                          stream.parser.retry is None)
        except (OSError, e2e.Malformed):
            self.cuts += 1
        if stream is not None:
            stream.close()
            self.frames += stream.frames

    def read_all(self, seconds=90):
        deadline = time.monotonic() + seconds
        while not self.ended:
            e2e.check(time.monotonic() < deadline,
                      "only %d frames in %d visits (%d cuts) and %d s"
                      % (len(self.frames), self.visits, self.cuts, seconds))
            self.visit()
            if not self.ended:
                time.sleep(self.retry / 1000)
        return self

    def check(self, text=None):
        """All of it is there, and nothing else."""
        e2e.check_equal(b"".join(f.raw for f in self.frames),
                        self.server.stream_bytes(self.stream_id,
                                                 self.user_id), "frames")
        if text is not None:
            e2e.check_equal("".join(f.data["content"] for f in self.frames
                                    if f.event == "message_chunk"), text,
                            "text")
