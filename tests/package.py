#!/usr/bin/env -S python3 -B
"""package.py - what is installed: the Debian package, from its source to its
purge, and the tarball for hosts without root, in a clean root.

Run by test.sh, and by hand as root; not by `make check`.  RESPOOL_BUILD is a
configured build.  The root is made by debootstrap from the mirror that this
host's apt has, kept in the build directory for the day, and used in name
spaces of its own: whatever happens, no process or mount stays behind."""

import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import e2e

BUILD, SOURCE = e2e.BUILD, e2e.SOURCE
INSIDE = "RESPOOL_PACKAGE_TEST_INSIDE" # in the environment there: where
NOBODY = 65534
NEEDS = ("debootstrap", "dpkg-buildpackage", "dh", "lintian", "unshare",
         "setpriv", "chroot")
# Nothing of whoever runs the test.
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
         "HOME": "/nonexistent", "DEBIAN_FRONTEND": "noninteractive"}

STREAMS = 20
CHUNKS = 300            # of each, one every 100 ms
MODELS = {"default": "slow", "models": {
    "slow": {"provider": "demo", "chunks": CHUNKS, "interval_ms": 100},
    "quick": {"provider": "demo", "chunks": 5},
    "endless": {"provider": "demo", "chunks": 100000, "interval_ms": 100}}}


SYSTEMCTL = """#!/bin/sh
echo "$*" >>/opt/fake/calls
case "$*" in
*is-enabled*) echo disabled; exit 1 ;;
*is-active*) exit %d ;;
esac
"""


def skip(why):
    print("%s: skipped" % why)
    sys.exit(77)


def run(*command, **options):
    """Its output; fails with it when the command does."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="replace",
                          **{"env": CLEAN, **options})
    if done.returncode != 0:
        raise AssertionError("%s: status %d\n%s" % (
            " ".join(command), done.returncode, done.stdout[-6000:]))
    return done.stdout


def as_nobody(*command, **options):
    return run("setpriv", "--reuid=%d" % NOBODY, "--regid=%d" % NOBODY,
               "--clear-groups", *command, **options)


# ---- where apt of this host gets Debian from ----

def apt_lines():
    """[(URI, release, component)] of Debian itself."""
    rows = run("apt-get", "indextargets", "--format",
               "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)")
    rows = sorted({tuple(row.split("|")) for row in rows.splitlines()})
    return [tuple(row[1:4]) for row in rows
            if row[0] == "Debian" and row[4] == "Packages"]


def apt_settings():
    """How it gets there: proxies and the like."""
    return [line for line in run("apt-config", "dump").splitlines()
            if re.match(r"Acquire::(http|https|ftp)\b.*::", line)]


def proxy_environment():
    """The same, for debootstrap."""
    found = {}
    for line in apt_settings():
        if match := re.fullmatch(r'Acquire::(https?)::Proxy "(.+)";', line):
            found[match[1] + "_proxy"] = match[2]
    return {**CLEAN, **{name: value for name, value in os.environ.items()
                        if name.lower() in ("http_proxy", "https_proxy",
                                            "no_proxy")}, **found}


def codename():
    with open("/etc/os-release", encoding="utf-8") as f:
        release = dict(line.rstrip("\n").split("=", 1) for line in f
                       if "=" in line)
    if release.get("ID") != "debian":
        skip("this is no Debian")
    return release["VERSION_CODENAME"]


# ---- a root ----

class Root:
    """A minimal Debian in a directory.  Web servers are there; nothing that
    respool needs is."""

    def __init__(self, path):
        self.path = path
        self.unpack()
        for kind, name in (("proc", "proc"), ("devpts", "dev/pts"),
                           ("tmpfs", "dev/shm")):
            os.makedirs(os.path.join(path, name), exist_ok=True)
            run("mount", "-t", kind, kind, os.path.join(path, name))

    def unpack(self):
        """From the archive of today, which is made first."""
        archive = os.path.join(BUILD, time.strftime("package-root-%F.tar"))
        if not os.path.exists(archive):
            for old in glob.glob(os.path.join(BUILD, "package-root-*")):
                os.remove(old)
            self.make()
            run("tar", "-cf", archive + ".new", "-C", self.path, ".")
            os.rename(archive + ".new", archive)
        else:
            os.mkdir(self.path)
            run("tar", "-xf", archive, "-C", self.path)

    def make(self):
        suite, lines = codename(), apt_lines()
        mirrors = [line[0] for line in lines if line[1] == suite]
        if not mirrors:
            skip("apt knows no mirror of %s" % suite)
        try:
            run("debootstrap", "--variant=minbase", suite, self.path,
                mirrors[0], env=proxy_environment())
        except AssertionError as why:
            if re.search("Failed getting release file|mknod|mount", str(why)):
                skip("debootstrap cannot do its work here: %s"
                     % str(why).splitlines()[-1])
            raise
        self.write("etc/apt/sources.list", "".join(
            "deb %s %s %s\n" % line for line in lines))
        self.write("etc/apt/apt.conf.d/10host", "".join(
            line + "\n" for line in apt_settings()))
        self.run("apt-get", "update")
        # A package starts its service, in the absence of an init even here.
        self.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
        self.install("lighttpd")
        os.remove(self.file("usr/sbin/policy-rc.d"))

    def file(self, name):
        return os.path.join(self.path, name.lstrip("/"))

    def write(self, name, text, mode=0o644):
        with open(self.file(name), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(self.file(name), mode)

    def read(self, name):
        with open(self.file(name), encoding="utf-8", errors="replace") as f:
            return f.read()

    def run(self, *command, **options):
        return run("chroot", self.path, *command, env={
            **CLEAN, **proxy_environment(),
            "PATH": "/opt/fake:" + CLEAN["PATH"]}, **options)

    def pretend_systemd(self, active):
        """Maintainer scripts find a systemd where all units are disabled; what
        they want of it is noted."""
        for name in ("opt/fake", "run/systemd/system"):
            os.makedirs(self.file(name), exist_ok=True)
        self.write("opt/fake/calls", "")
        self.write("opt/fake/systemctl", SYSTEMCTL % (not active), 0o755)

    def asked_of_systemd(self):
        """[(verb, units)] of what changes something."""
        words = [line.replace("--quiet", "").replace("--system", "").split()
                 for line in self.read("opt/fake/calls").splitlines()]
        return [(line[0], line[1:]) for line in words if line[0] not in (
            "is-enabled", "is-active", "daemon-reload", "show")]

    def install(self, *what):
        return self.run("apt-get", "install", "-y", "-qq",
                        "--no-install-recommends", *what)

    def start(self, *command, user=None):
        """A process that goes on."""
        as_user = ["--userspec=%d:%d" % (user, user)] if user else []
        with open(self.path + ".log", "ab") as log:
            return subprocess.Popen(
                ["chroot", *as_user, self.path, *command], env=CLEAN,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)

    def files(self):
        """The paths of all that lies there, but for logs and caches."""
        found = set()
        for top, dirs, names in os.walk(self.path):
            place = os.path.relpath(top, self.path)
            if place == ".":
                dirs[:] = [d for d in dirs if d not in (
                    "proc", "sys", "dev", "run", "tmp")]
            elif place in ("var/cache", "var/log", "var/lib/apt"):
                dirs[:] = names[:] = []
            found |= {os.path.normpath(os.path.join(place, name))
                      for name in dirs + names}
        return found


def processes(program):
    """{pid: whether its file is still there}, of this name space."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/exe"):
        with contextlib.suppress(OSError):
            exe = os.readlink(path)
            name = exe.removesuffix(" (deleted)")
            if os.path.basename(name) == program:
                found[int(path.split("/")[2])] = exe == name
    return found


def ours():
    return {pid for name in e2e.PROGRAMS for pid in processes(name)}


# ---- packages ----

class Package:
    """Built by an ordinary user from what `make dist` packs."""

    def __init__(self, directory, newer=False, options=()):
        os.mkdir(directory)
        archive, = glob.glob(BUILD + "/respool-*.tar.xz")
        run("tar", "-xf", archive, "-C", directory)
        self.source, = glob.glob(os.path.join(directory, "respool-*"))
        self.version = self.changelog_version()
        if newer:
            self.version += ".1"
            self.rename()
        os.chown(directory, NOBODY, NOBODY)
        run("chown", "-R", "%d:%d" % (NOBODY, NOBODY), directory)
        self.log = as_nobody(
            "dpkg-buildpackage", "-us", "-uc", cwd=self.source, env={
                **CLEAN, "DEB_BUILD_OPTIONS": " ".join(
                    ["parallel=%d" % os.cpu_count(), *options])})
        self.deb, = glob.glob(directory + "/respool_*.deb")
        self.changes, = glob.glob(directory + "/*.changes")

    def changelog_version(self):
        return run("dpkg-parsechangelog", "-S", "Version",
                   cwd=self.source).strip()

    def rename(self):
        """The same programs as another version."""
        path = self.source + "/configure.ac"
        with open(path, encoding="utf-8") as f:
            text = f.read()
        text, count = re.subn(r"^(AC_INIT\(\[respool\], )\[.*\]",
                              r"\1[%s]" % self.version, text, flags=re.M)
        e2e.check_equal(count, 1, "AC_INIT in configure.ac")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        path = self.source + "/debian/changelog"
        with open(path, encoding="utf-8") as f:
            text = f.read()
        with open(path, "w", encoding="utf-8") as f:
            f.write("respool (%s) unstable; urgency=medium\n\n"
                    "  * Newer.\n\n -- Nobody <nobody@debian.org>  "
                    "Sat, 01 Jan 2028 00:00:00 +0000\n\n%s"
                    % (self.version, text))

    def bring(self, root):
        """The package's path in the root."""
        return "/" + os.path.relpath(
            shutil.copy(self.deb, root.file("tmp")), root.path)


# ---- lighttpd in the root ----

class Lighttpd:
    def __init__(self, root, config, user=None):
        self.root = root
        self.config = config
        self.user = user
        self.process = None

    def __enter__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        path = self.root.file(self.config)
        with open(path, encoding="utf-8") as f:
            text = re.sub(r"^server\.port .*$", 'server.bind = "127.0.0.1"\n'
                          "server.port = %d" % self.port, f.read(),
                          flags=re.M)
        # It would listen on [::] too.
        text = re.sub(r"^include_shell .*use-ipv6.*$", "", text, flags=re.M)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        self.process = self.root.start("lighttpd", "-D", "-f", self.config,
                                       user=self.user)
        e2e.wait_until(self.answers, 60, "an answer of /health")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def answers(self):
        e2e.check(self.process.poll() is None, "lighttpd ended")
        try:
            return self.get("/health").status == 200
        except OSError:
            return False

    def get(self, target, headers=()):
        response = e2e.Response(self.port, "GET", target, headers)
        return response.read_head()

    def version(self):
        return self.get("/version").json()["version"]

    def stream(self, stream_id, headers=(), model="slow"):
        return e2e.Stream(self.get("/api/v1/stream?message=x&model=%s"
                                   "&stream_id=%s" % (model, stream_id),
                                   headers))


class Reader(threading.Thread):
    """Follows a stream, as a client does: a response that ends too early is
    an occasion to come back."""

    def __init__(self, server, stream_id, model="slow"):
        super().__init__(daemon=True)
        self.server, self.stream_id, self.model = server, stream_id, model
        self.frames = []
        self.returns = 0
        self.fault = None
        self.start()

    def run(self):
        try:
            while not self.frames or \
                    self.frames[-1].event not in e2e.TERMINAL:
                self.follow()
        except Exception as why:  # told by the test
            self.fault = why

    def follow(self):
        headers = []
        if self.frames:
            headers.append(("Last-Event-ID", str(self.frames[-1].id)))
        try:
            stream = self.server.stream(self.stream_id, headers, self.model)
            stream.parser.next_id = len(self.frames)
            before = len(self.frames)
            while stream.read_some():
                self.frames[before:] = stream.frames
            self.frames[before:] = stream.frames
        except OSError:
            pass
        except e2e.Malformed as why:
            # What a web server says while it finds no responder.
            if not re.match(r"status 50[0-9]|the stream ends with a torn",
                            str(why)):
                raise
        self.returns += 1
        if not self.frames or self.frames[-1].event not in e2e.TERMINAL:
            time.sleep(0.2)  # as its retry block would have it

    def all(self):
        """Its frames, when it has them all."""
        self.join(180)
        if self.fault is not None:
            raise self.fault
        e2e.check(not self.is_alive(), "%s has not ended after %d frames"
                  % (self.stream_id, len(self.frames)))
        return self.frames


def check_whole(reader, chunks):
    frames = reader.all()
    e2e.check_equal([f.id for f in frames], list(range(len(frames))), "ids")
    e2e.check_equal("".join(f.data["content"] for f in frames
                            if f.event == "message_chunk"),
                    "".join("tok%d " % n for n in range(chunks)), "tokens")
    e2e.check_equal(frames[-1].event, "done", reader.stream_id)


# ---- the tests ----

def the_package_is_built_with_its_tests_and_has_nothing_lintian_minds(world):
    world.package = Package(world.dir + "/old")
    e2e.check("# FAIL:  0" in world.package.log and
              "# PASS:" in world.package.log, "the unit tests did not run")
    with open(SOURCE + "/configure.ac", encoding="utf-8") as f:
        version = re.search(r"^AC_INIT\(\[respool\], \[(.*?)\]", f.read(),
                            re.M)[1]
    e2e.check_equal(world.package.version, version, "debian/changelog")
    found = as_nobody("lintian", "--fail-on", "error,warning",
                      "--show-overrides", world.package.changes,
                      env={**CLEAN, "TMPDIR": world.dir + "/old"})
    e2e.check_equal(found, "", "lintian")


def it_installs_and_nothing_runs(world):
    root = world.root
    depends = run("dpkg-deb", "-f", world.package.deb, "Depends").strip()
    root.run("apt-get", "satisfy", "-y", "-qq", "--no-install-recommends",
             depends)
    root.pretend_systemd(active=False)
    world.before = root.files()
    running = set(glob.glob("/proc/[0-9]*"))
    root.install(world.package.bring(root))
    world.installed = root.files()
    e2e.check_equal(ours(), set(), "processes of ours")
    e2e.check(len(set(glob.glob("/proc/[0-9]*")) - running) <= 1,
              "something else was started")
    enabled = [name for name in world.installed - world.before
               if re.match("etc/(systemd|rc|init|lighttpd|apache2|nginx)",
                           name)]
    e2e.check_equal(enabled, [], "enabled by surprise")
    e2e.check_equal(root.asked_of_systemd(), [], "asked of systemd")


def its_files_are_in_their_places_and_good(world):
    root = world.root
    new = world.installed - world.before
    for name in ("usr/sbin/respool.fcgi", "usr/sbin/respool-spooler",
                 "usr/sbin/respoolctl", "etc/respool/respool.conf",
                 "usr/share/man/man5/respool.conf.5.gz",
                 "usr/share/man/man8/respool.fcgi.8.gz",
                 "usr/share/respool/magic/index.html",
                 "usr/share/respool/personas/lion_001.json",
                 "usr/share/respool/triage.json",
                 "usr/share/doc/respool/examples/models.json.example",
                 "usr/share/doc/respool/examples/lighttpd/respool.conf",
                 "usr/share/doc/respool/examples/apache/htaccess",
                 "usr/share/doc/respool/examples/nginx/respool.conf",
                 "usr/lib/systemd/system/respool.socket",
                 "usr/lib/sysusers.d/respool.conf", "var/spool/respool"):
        e2e.check(name in new, "%s is not installed" % name)
    e2e.check_equal([name for name in new if "LICENSE" in name], [], "LICENSE")
    # Every setting stands in the file, as a comment with its default.
    text = root.read("etc/respool/respool.conf")
    e2e.check(not re.search("^[^#\n]", text, re.M), "it sets something")
    root.write("tmp/all.conf", re.sub("^#(?! )", "", text, flags=re.M))
    settings = root.run("respool.fcgi", "-t")
    e2e.check_equal(root.run("respool.fcgi", "-t", "-c", "/tmp/all.conf"),
                    settings, "the defaults in respool.conf")
    e2e.check("\nspool_dir = /var/spool/respool\n" in "\n" + settings,
              settings)
    owner = os.stat(root.file("var/spool/respool"))
    e2e.check(owner.st_uid != 0 and owner.st_mode & 0o007 == 0,
              "the spool is not respool's alone")


def set_up_lighttpd(root):
    """As docs/DEPLOY.md has it for a responder that lighttpd starts."""
    shutil.copy(root.file("usr/share/doc/respool/examples/lighttpd/"
                          "respool.conf"),
                root.file("etc/lighttpd/conf-available/50-respool.conf"))
    root.run("lighty-enable-mod", "respool")
    root.run("chown", "-R", "www-data:", "/var/spool/respool")
    root.write("etc/respool/models.json", json.dumps(MODELS))
    with open(root.file("etc/respool/respool.conf"), "a",
              encoding="utf-8") as f:
        f.write("models_file = models.json\n")
    root.run("install", "-d", "-o", "www-data", "/run/lighttpd")


def an_upgrade_in_mid_stream_loses_nothing(world):
    root = world.root
    newer = Package(world.dir + "/new", newer=True, options=["nocheck"])
    deb = newer.bring(root)
    set_up_lighttpd(root)
    with Lighttpd(root, "/etc/lighttpd/lighttpd.conf") as server:
        e2e.check_equal(server.version(), world.package.version, "version")
        readers = [Reader(server, "old-%d" % n) for n in range(STREAMS)]
        e2e.wait_until(lambda: all(len(r.frames) > 10 for r in readers), 60,
                       "10 frames of each stream")
        old, = processes("respool-spooler")
        root.pretend_systemd(active=True)
        root.run("dpkg", "-i", deb)
        # The spoolers make way by themselves; the socket stays open.
        e2e.check_equal(root.asked_of_systemd(), [
            ("restart", ["respool.service"])], "asked of systemd")
        # What answers is still the old responder, the spooler is the new one.
        late = [Reader(server, "late-%d" % n, "quick") for n in range(3)]
        for reader in late:
            check_whole(reader, 5)
        e2e.check(any(r.is_alive() for r in readers),
                  "the upgrade took longer than the streams")
        spoolers = processes("respool-spooler")
        e2e.check_equal(spoolers.pop(old), False, "the old one's file")
        e2e.check_equal(list(spoolers.values()), [True], "the new one's file")
        # A reload brings the new responder, and everybody back.
        server.process.send_signal(signal.SIGUSR1)
        e2e.wait_until(lambda: server.answers() and
                       server.version() == newer.version, 60,
                       "an answer of the new version")
        e2e.check(any(r.is_alive() for r in readers),
                  "the reload took longer than the streams")
        for reader in readers:
            check_whole(reader, CHUNKS)
        e2e.check(sum(r.returns > 1 for r in readers) == STREAMS,
                  "the reload cut nobody")
        e2e.wait_until(lambda: old not in processes("respool-spooler"), 60,
                       "the old spooler's end")
        world.removal = Reader(server, "removed", "endless")
        e2e.wait_until(lambda: len(world.removal.frames) > 3, 60, "a frame")
        remove_it(world)


def remove_it(world):
    """While an answer is being written."""
    root = world.root
    root.run("dpkg", "-r", "respool")
    e2e.wait_until(lambda: not ours(), 30, "the end of all processes")
    kept = [name for name in root.files()
            if name.startswith("var/spool/respool/streams/")
            and name.endswith(".sse")]
    e2e.check_equal(len(kept), STREAMS + 3 + 1, "streams that are kept")
    e2e.check("etc/respool/respool.conf" in root.files(), "the conffile")
    ends = [name for name in kept if re.search(
        r"^event: (done|error)$", root.read(name), re.M)]
    e2e.check_equal(len(ends), len(kept), "streams that have an end")


def a_purge_leaves_nothing(world):
    root = world.root
    for name in ("etc/lighttpd/conf-available/50-respool.conf",
                 "etc/lighttpd/conf-enabled/50-respool.conf",
                 "etc/respool/models.json"):
        os.remove(root.file(name))
    root.run("dpkg", "-P", "respool")
    left = {name for name in root.files() - world.before}
    e2e.check_equal(sorted(left), [], "what a purge leaves")
    e2e.check_equal(sorted(world.before - root.files()), [],
                    "what a purge took")


CGI_CONF = """server.document-root = "%s/public_html"
server.port = 80
server.modules = ( "mod_cgi", "mod_setenv", "mod_rewrite" )
server.stream-response-body = 2
cgi.assign = ( ".cgi" => "" )
url.rewrite-once = (
	"^/((api/|convo_|magic(/|$)|health$|ready$|version$).*)" =>
	    "/chat/respool.cgi/$1" )
setenv.add-environment = ( %s )
"""


def the_tarball_runs_from_a_home_directory(world):
    """Where none of the libraries is, as a user who owns nothing else, by the
    lines of its README."""
    run("make", "-s", "-C", BUILD, "bindist")
    archive, = glob.glob(BUILD + "/respool-*-linux-*.tar.gz")
    root, home = world.plain, "/home/somebody"
    os.mkdir(root.file(home))
    os.chown(root.file(home), NOBODY, NOBODY)
    shutil.copy(archive, root.file("tmp"))
    readme = run("tar", "-xOf", archive, os.path.basename(archive)
                 .replace(".tar.gz", "/README"))
    install, upgrade = (
        "cd /tmp\n" + "\n".join(re.findall(r"^\t(.*)$", part, re.M)) for part
        in re.search("(?s)(.*)3. Try it.*To upgrade(.*)", readme).groups())

    def as_them(*command):
        return root.run("setpriv", "--reuid=%d" % NOBODY, "--regid=%d"
                        % NOBODY, "--clear-groups", "env", "HOME=" + home,
                        *command)
    as_them("sh", "-euc", install)
    for library in ("libfcgi", "libjson-c", "libinih", "libcurl", "libjwt"):
        e2e.check(library not in root.run("ldconfig", "-p"),
                  "%s is installed in the clean root" % library)
    # What Apache would read in the .htaccess.
    htaccess = root.read(home + "/public_html/chat/.htaccess")
    variables = re.findall(r'^\s*SetEnv (\w+) "?([^"\n]*)"?$', htaccess, re.M)
    root.write(home + "/lighttpd.conf", CGI_CONF % (home, ", ".join(
        '"%s" => "%s"' % pair for pair in variables)))
    with Lighttpd(root, home + "/lighttpd.conf", user=NOBODY) as server:
        reader = Reader(server, "home", "demo")
        e2e.wait_until(lambda: len(reader.frames) > 3, 60, "a frame")
        as_them("sh", "-euc", upgrade.replace(
            "NEW.tar.gz", os.path.basename(archive)))
        numbers = itertools.count()

        def new_one_answers():
            server.stream("later-%d" % next(numbers), model="echo").read_all()
            return any(processes("respool-spooler").values())
        e2e.wait_until(new_one_answers, 60, "an answer of the new spooler")
        check_whole(reader, 100)
        e2e.wait_until(lambda: all(processes("respool-spooler").values()), 60,
                       "the old spooler's end")
        e2e.check_equal(server.get("/magic/magic.js").status, 200, "the page")
    e2e.check_equal(os.path.isdir(root.file(home + "/respool/spool/streams")),
                    True, "the spool beside respool.conf")
    for pid in processes("respool-spooler"):
        os.kill(pid, signal.SIGTERM)
    e2e.wait_until(lambda: not ours(), 30, "the end of all processes")
    print("      %s: %.1f MB" % (os.path.basename(archive),
                                 os.path.getsize(archive) / 1e6))


TESTS = (the_tarball_runs_from_a_home_directory,
         the_package_is_built_with_its_tests_and_has_nothing_lintian_minds,
         it_installs_and_nothing_runs,
         its_files_are_in_their_places_and_good,
         an_upgrade_in_mid_stream_loses_nothing,
         a_purge_leaves_nothing)


class World:
    def __init__(self, directory):
        self.dir = directory
        os.chmod(directory, 0o755)
        self.plain = Root(directory + "/plain")
        self.root = Root(directory + "/root")

    def show_logs(self):
        for path in glob.glob(self.dir + "/*.log"):
            with open(path, encoding="utf-8", errors="replace") as f:
                print("---- %s\n%s" % (path, f.read()[-4000:]))


def go_inside(directory):
    """Into name spaces whose end is the end of all that was started there, and
    of all that was mounted; its status."""
    spaces = ["unshare", "--mount", "--pid", "--mount-proc", "--kill-child"]
    if subprocess.run(spaces + ["true"], stderr=subprocess.DEVNULL,
                      check=False).returncode != 0:
        skip("name spaces cannot be made here")
    # The shell takes the ends of orphans, as an init must.
    return subprocess.run(
        spaces + ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-B",
                  *sys.argv], env={**os.environ, INSIDE: directory},
        check=False).returncode


def run_tests(directory):
    words = sys.argv[1:]
    tests = [t for t in TESTS
             if not words or any(w in t.__name__ for w in words)]
    failures = 0
    world = World(directory)
    for test in tests:
        began = time.monotonic()
        name = test.__name__.replace("_", " ")
        try:
            test(world)
            print("ok    %s (%.0f s)" % (name, time.monotonic() - began))
        except Exception:
            # The others go on where this one was to end.
            failures = len(tests) - tests.index(test)
            print("FAIL  %s; %d not run" % (name, failures - 1))
            traceback.print_exc(file=sys.stdout)
            world.show_logs()
            break
    print("%d%%: Checks: %d, Failures: %d, Errors: 0" % (
        100 * (len(tests) - failures) // len(tests), len(tests), failures))
    return 1 if failures else 0


def main():
    e2e.set_up(NEEDS)
    if os.geteuid() != 0:
        skip("only root can do this")
    os.umask(0o022)
    if INSIDE in os.environ:
        sys.exit(run_tests(os.environ[INSIDE]))
    run("make", "-s", "-C", BUILD, "dist", env={**os.environ, **CLEAN})
    with tempfile.TemporaryDirectory(prefix="respool-package.",
                                     ignore_cleanup_errors=True) as directory:
        status = go_inside(directory)
    sys.exit(status)


if __name__ == "__main__":
    main()
