"""sides.py - what bench/run, bench/path and bench/profile measure: builds and
starts respool, a nginx that proxies the same upstream without keeping
anything, and Node with resumable-stream and Redis; ends, by pid, what it
started."""

import atexit
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(HERE)
TICKS = os.sysconf("SC_CLK_TCK")
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"

STAMP = "0" * 20 + " "  # what stamp.c puts the time into
PRICES = {"input": 150000, "cache_read": 75000, "cache_write": 150000,
          "output": 600000}


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def die(text):
    say(text)
    sys.exit(1)


# ---- what it needs ----

PACKAGES = [("lighttpd", "lighttpd"), ("nginx", "nginx-light"),
            ("redis-server", "redis-server"), ("node", "nodejs"),
            ("npm", "npm"), ("openssl", "openssl"), ("strace", "strace"),
            ("autoconf", "autoconf"),
            ("automake", "automake"), ("make", "make"), ("gcc", "gcc")]


def install(may):
    missing = [package for command, package in PACKAGES
               if not shutil.which(command)]
    if not missing:
        return
    line = ["apt-get", "install", "-y", "--no-install-recommends"] + missing
    if not may or os.geteuid() != 0:
        die("missing; please type: sudo " + " ".join(line))
    say("installing " + " ".join(missing))
    # What a package starts by itself is not wanted here.
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    for command in (["apt-get", "update"], line):
        subprocess.run(command, env=env, check=True, stdout=sys.stderr)


def quietly(command, cwd):
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout[-4000:])
        die("failed: " + " ".join(command))


def build(where, node):
    os.makedirs(where + "/node", exist_ok=True)
    if not os.path.exists(SOURCE + "/configure"):
        quietly(["autoreconf", "-fi"], SOURCE)
    if not os.path.exists(where + "/Makefile"):
        quietly([SOURCE + "/configure", "CFLAGS=-O2 -g"], where)
    quietly(["make", "-j2", "respool.fcgi", "respool-spooler"], where)
    flags = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall"]
    for name in ("load", "upstream", "spawn"):
        quietly(flags + ["-o", name, HERE + "/%s.c" % name], where)
    quietly(flags + ["-shared", "-fPIC", "-o", "stamp.so", HERE + "/stamp.c"],
            where)
    for name in ("package.json", "server.js"):
        shutil.copy(HERE + "/node/" + name, where + "/node/" + name)
    if node and not os.path.exists(where + "/node/node_modules/redis"):
        quietly(["npm", "install", "--no-package-lock", "--no-audit",
                 "--no-fund"], where + "/node")


# ---- processes ----

running = []  # ours, the oldest first
directories = []


def start(command, **how):
    p = subprocess.Popen(command, start_new_session=True, **how)
    running.append(p)
    return p


def end(processes):
    """Ends them, the youngest first, and waits until they are gone."""
    for p in reversed(processes):
        if p.poll() is None:
            p.terminate()
            try:
                p.wait(0.3)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if p in running:
            running.remove(p)


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(word) for word in f.read().split()]


def cpu_s(pids):
    """utime and stime of processes."""
    total = 0
    for pid in pids:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def cpu_ms(pids):
    """The same, finer, of processes whose threads all still live."""
    total = 0
    for pid in pids:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                total += int(f.read().split()[0])
    return total / 1e6


def private_kb(pids):
    """Without Private_Clean, the program itself: a second process of it
    makes that shared."""
    total = 0
    for pid in pids:
        with open("/proc/%d/smaps_rollup" % pid) as f:
            total += sum(int(line.split()[1]) for line in f
                         if line.startswith("Private_Dirty:"))
    return total


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, p):
    for _ in range(500):
        if p.poll() is not None:
            die("ended at once: " + " ".join(p.args))
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    die("does not listen: " + " ".join(p.args))


def wait_path(path, p):
    for _ in range(500):
        if p.poll() is not None:
            die("ended at once: " + " ".join(p.args))
        if os.path.lexists(path):
            return
        time.sleep(0.02)
    die("not there: " + path)


# ---- those that are compared ----

LIGHTTPD = """
server.bind = "127.0.0.1"
server.port = %(port)d
server.document-root = "%(dir)s"
server.errorlog = "%(dir)s/lighttpd.log"
server.max-fds = 16384
server.max-connections = 7000
server.modules = ( "mod_fastcgi" )
server.stream-response-body = 2
fastcgi.server = ( "/" => (( "socket" => "%(dir)s/fcgi.sock",
    "check-local" => "disable", "fix-root-scriptname" => "enable" )) )
"""

NGINX = """
%(user)s
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid %(dir)s/nginx.pid;
error_log %(dir)s/nginx.log error;
events { worker_connections 15000; multi_accept on; }
http {
    access_log off;
    client_body_temp_path %(dir)s/t1; proxy_temp_path %(dir)s/t2;
    fastcgi_temp_path %(dir)s/t3; uwsgi_temp_path %(dir)s/t4;
    scgi_temp_path %(dir)s/t5;
    server {
        listen 127.0.0.1:%(port)d backlog=4096%(listen)s;
        location / { %(location)s }
    }
}
"""

FASTCGI = """
            include /etc/nginx/fastcgi_params;
            fastcgi_buffering off;
            fastcgi_read_timeout 300s;
            fastcgi_pass unix:%s/fcgi.sock;
"""

PROXY = """
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_read_timeout 300s;
            proxy_pass %s;
"""

TLS = """ ssl%s;
        ssl_certificate %s/cert.pem;
        ssl_certificate_key %s/key.pem"""


class Side:
    """One way to serve streams: groups of processes by name, a port, and the
    path of a stream."""

    def __init__(self, opt):
        self.opt = opt
        self.dir = tempfile.mkdtemp(prefix="respool-bench-")
        directories.append(self.dir)
        self.port = free_port()
        self.started = []
        self.groups = {}  # name: pids, of what is measured

    def start(self, command, **how):
        log = open(self.dir + "/out.log", "ab")
        how.setdefault("stderr", log)
        how.setdefault("stdout", log)
        how.setdefault("stdin", subprocess.DEVNULL)
        p = start(command, **how)
        self.started.append(p)
        log.close()
        return p

    def start_nginx(self, port, location, listen=""):
        """Returns the pids of those that work."""
        path = "%s/nginx-%d.conf" % (self.dir, port)
        with open(path, "w") as f:
            f.write(NGINX % {
                "dir": self.dir, "port": port, "location": location,
                "listen": listen,
                "user": "user root;" if os.geteuid() == 0 else ""})
        p = self.start(["nginx", "-c", path, "-e", self.dir + "/nginx.log"])
        wait_port(port, p)
        return children(p.pid)

    def start_upstream(self, interval_ms):
        port = free_port()
        p = self.start([self.opt.build + "/upstream", str(port),
                        str(interval_ms)])
        wait_port(port, p)
        self.upstream = "http://127.0.0.1:%d" % port

    def start_tls(self, http2):
        """A nginx with TLS before the upstream; returns its URL."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout",
             self.dir + "/key.pem", "-out", self.dir + "/cert.pem", "-subj",
             "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = free_port()
        self.start_nginx(port, PROXY % self.upstream,
                         TLS % (" http2" if http2 else "", self.dir, self.dir))
        return "https://127.0.0.1:%d" % port

    def pids(self):
        return [pid for pids in self.groups.values() for pid in pids]

    def close(self):
        end(self.started)
        shutil.rmtree(self.dir, ignore_errors=True)
        directories.remove(self.dir)


class Respool(Side):
    """respool behind lighttpd or nginx.  source: who has the answers.

    http, tls, h2   the upstream, over plain HTTP or behind a nginx with TLS,
                    where the connections are one's own or shared (HTTP/2)
    demo            the spooler itself
    """

    def __init__(self, opt, interval_ms=50, web="lighttpd", source="http",
                 chunks=2000):
        super().__init__(opt)
        self.name = "respool, " + web
        self.env = dict(os.environ, RESPOOL_SPOOL_DIR=self.dir + "/spool",
                        RESPOOL_MODELS_FILE=self.dir + "/models.json",
                        RESPOOL_MAX_STREAMS="20000",
                        RESPOOL_MAX_STREAM_BYTES="1G",
                        RESPOOL_SPOOLER_PROGRAM=opt.build +
                        "/respool-spooler",
                        RESPOOL_LOG_LEVEL="warn")
        spooler_env = dict(self.env)
        if source == "demo":
            spooler_env["LD_PRELOAD"] = opt.build + "/stamp.so"
            self.write_models(demo_models(interval_ms, chunks))
        else:
            self.start_upstream(interval_ms)
            url = self.upstream
            if source != "http":
                url = self.start_tls(source == "h2")
                spooler_env["RESPOOL_CA_FILE"] = self.dir + "/cert.pem"
            self.write_models(http_models(url))
        spooler = self.start([opt.build + "/respool-spooler", "--foreground"],
                             env=spooler_env)
        wait_path(self.dir + "/spool/current", spooler)
        self.listen = socket.socket(socket.AF_UNIX)
        self.listen.bind(self.dir + "/fcgi.sock")
        self.listen.listen(4096)
        responder = self.start([opt.build + "/respool.fcgi"], env=self.env,
                               stdin=self.listen)
        self.groups = {"spooler": [spooler.pid],
                       "responder": [responder.pid]}
        if web == "nginx":
            self.groups["web"] = self.start_nginx(self.port,
                                                  FASTCGI % self.dir)
        else:
            self.start_lighttpd()

    def write_models(self, models):
        for model in models.values():
            model["prices"] = PRICES
        path = self.dir + "/models.json"
        with open(path, "w") as f:
            json.dump({"default": "paced", "models": models}, f)
        os.chmod(path, 0o644)

    def start_lighttpd(self):
        with open(self.dir + "/lighttpd.conf", "w") as f:
            f.write(LIGHTTPD % {"dir": self.dir, "port": self.port})
        p = self.start(["lighttpd", "-D", "-f", self.dir + "/lighttpd.conf"])
        wait_port(self.port, p)
        self.groups["web"] = [p.pid]

    def path(self, name="s%d", model="paced"):
        return ("/api/v1/stream?user_id=u&message=m&model=%s&stream_id=%s" %
                (model, name))

    def brief(self, name="s%d"):
        return self.path(name, "brief")

    def burst(self, frames):
        return self.path("burst%d" % frames, "burst%d" % frames)

    def close(self):
        self.listen.close()
        super().close()


def demo_models(interval_ms, chunks):
    """One that says a stamp each interval, and some that say all at once."""
    models = {"paced": {"text": STAMP * chunks, "interval_ms": interval_ms}}
    for frames in (5000, 100000):
        models["burst%d" % frames] = {"chunks": frames - 1}
    for model in models.values():
        model["provider"] = "demo"
    return models


def http_models(url):
    """One whose answer does not end, one with an answer of one chunk."""
    return {name: {"provider": "openai", "base_url": url + path,
                   "upstream_model": "bench-1"}
            for name, path in (("paced", "/v1"), ("brief", "/1/v1"))}


class Nginx(Side):
    """nginx before the upstream; nothing is kept."""

    name = "nginx proxy"

    def __init__(self, opt, interval_ms=50, tls=False):
        super().__init__(opt)
        self.start_upstream(interval_ms)
        url = self.start_tls(False) if tls else self.upstream
        self.groups = {"web": self.start_nginx(self.port, PROXY % url)}

    def path(self, name=""):
        return "/v1/chat/completions"

    def brief(self, name=""):
        return "/1/v1/chat/completions"

    def burst(self, frames):
        return "/%d" % frames


class Node(Side):
    """Node before the upstream, with resumable-stream and Redis."""

    name = "Node + Redis"

    def __init__(self, opt, interval_ms=50):
        super().__init__(opt)
        self.start_upstream(interval_ms)
        port = free_port()
        redis = self.start(["redis-server", "--port", str(port), "--bind",
                            "127.0.0.1", "--save", "", "--appendonly", "no",
                            "--dir", self.dir])
        wait_port(port, redis)
        node = self.start(["node", opt.build + "/node/server.js",
                           str(self.port),
                           self.upstream + "/",
                           "redis://127.0.0.1:%d" % port])
        wait_port(self.port, node)
        self.groups = {"node": [node.pid], "redis": [redis.pid]}

    def path(self, name="s%d"):
        return "/%s?upstream=v1/chat/completions" % name

    def brief(self, name="s%d"):
        return "/%s?upstream=1/v1/chat/completions" % name

    def burst(self, frames):
        return "/burst%d?upstream=%d" % (frames, frames)


# ---- with what it was measured ----

def version_of(command, pattern):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    found = re.search(pattern, done.stdout)
    return found.group(1) if found else "?"


def processor():
    with open("/proc/cpuinfo") as f:
        found = re.search(r"model name\s*: (.*)", f.read())
    return found.group(1) if found else os.uname().machine


def versions(opt):
    curl = ctypes.CDLL("libcurl.so.4").curl_version
    curl.restype = ctypes.c_char_p
    number = r"([0-9]+(?:\.[0-9]+)+)"
    found = [
        "Linux " + os.uname().release,
        "gcc " + version_of(["gcc", "-dumpfullversion"], number),
        " ".join(curl().decode().replace("/", " ").split()[:4]),
        "lighttpd " + version_of(["lighttpd", "-v"], number),
        "nginx " + version_of(["nginx", "-v"], number)]
    if not opt.no_node:
        with open(opt.build +
                  "/node/node_modules/resumable-stream/package.json") as f:
            found += ["Node " + version_of(["node", "-v"], number),
                      "resumable-stream " + json.load(f)["version"],
                      "Redis " + version_of(["redis-server", "-v"],
                                            "v=" + number)]
    return "respool %s; %s" % (
        version_of([opt.build + "/respool-spooler", "-V"], number),
        ", ".join(found))


# ---- programs ----

def clean_up():
    end(list(running))
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def begin(opt):
    """What each of the programs does first."""
    # Ended as at the end of the program, with what was started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    atexit.register(clean_up)
    opt.build = os.path.abspath(opt.build)
    install(not opt.no_install)
    build(opt.build, not opt.no_node)


def add_options(parser):
    parser.add_argument("--build", default=SOURCE + "/build-bench",
                        metavar="DIR", help="where to build (build-bench)")
    parser.add_argument("--no-install", action="store_true",
                        help="say what is missing in place of installing it")
