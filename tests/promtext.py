"""promtext.py - a strict reader of the Prometheus text format 0.0.4, and of
its conventions as far as respool keeps them.

    families = promtext.parse(data)   # Malformed
    families["respool_errors_total"].value(type="auth")"""

import math
import re
import shutil
import subprocess
from decimal import Decimal

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|Inf)|NaN")
ESCAPES = {'\\"': '"', "\\\\": "\\", "\\n": "\n"}
# What a name must not end with, and what stands there.
UNITS = {"ms": "seconds", "milliseconds": "seconds", "us": "seconds",
         "microseconds": "seconds", "ns": "seconds", "nanoseconds": "seconds",
         "minutes": "seconds", "kb": "bytes", "kilobytes": "bytes",
         "mb": "bytes", "megabytes": "bytes", "percent": "ratio"}


class Malformed(AssertionError):
    """Not the format, or not as is the custom."""


class Family:
    def __init__(self, name, text):
        self.name = name
        self.help = text
        self.type = None
        self.samples = {}  # (suffix, labels): value

    def value(self, suffix="", **labels):
        return self.samples[suffix, tuple(sorted(labels.items()))]

    def total(self, suffix="", **labels):
        """The sum of the samples that have these labels."""
        return sum(value for (of, pairs), value in self.samples.items()
                   if of == suffix and labels.items() <= dict(pairs).items())

    # -- what must hold of all samples together --

    def check(self):
        if not self.samples:
            raise Malformed("%s has no sample" % self.name)
        parts = self.name.split("_")
        if parts[-1] in UNITS or (parts[-1] == "total" and
                                  parts[-2] in UNITS):
            raise Malformed("%s is not in base units" % self.name)
        if self.name.endswith("_total") != (self.type == "counter"):
            raise Malformed("the name of the %s %s" % (self.type, self.name))
        names = {tuple(name for name, _ in labels if name != "le")
                 for _, labels in self.samples}
        if len(names) != 1:
            raise Malformed("%s: labels differ: %s" % (self.name, names))
        for (suffix, labels), value in self.samples.items():
            if self.type != "gauge" and not 0 <= value < Decimal("Infinity"):
                raise Malformed("%s%s%s is %s" % (self.name, suffix, labels,
                                                  value))
        if self.type == "histogram":
            self._check_histogram()

    def _check_histogram(self):
        groups = {}
        for (suffix, labels), value in self.samples.items():
            pairs = dict(labels)
            if ("le" in pairs) != (suffix == "_bucket"):
                raise Malformed("%s%s and le" % (self.name, suffix))
            le = pairs.pop("le", None)
            groups.setdefault(tuple(pairs.items()), []).append(
                (suffix, le, value))
        for group in groups.values():
            buckets = [(number(le), value) for suffix, le, value in group
                       if suffix == "_bucket"]
            counts = [value for _, value in buckets]
            bounds = [bound for bound, _ in buckets]
            if bounds != sorted(set(bounds)) or not bounds or \
                    not math.isinf(bounds[-1]):
                raise Malformed("%s: bounds %s" % (self.name, bounds))
            if counts != sorted(counts):
                raise Malformed("%s is not cumulative" % self.name)
            rest = [(suffix, value) for suffix, _, value in group
                    if suffix != "_bucket"]
            if [suffix for suffix, _ in rest] != ["_sum", "_count"]:
                raise Malformed("%s: %s" % (self.name, rest))
            if rest[1][1] != counts[-1]:
                raise Malformed("%s: count and +Inf differ" % self.name)


def number(text):
    if not NUMBER.fullmatch(text):
        raise Malformed("not a number: %r" % text)
    return Decimal(text.replace("Inf", "Infinity"))


def _labels(text):
    """Of "a="x",b="y"", as pairs, sorted."""
    pairs = {}
    at = 0
    while at < len(text):
        match = LABEL.match(text, at)
        if not match:
            raise Malformed("labels %r" % text)
        if match[1] in pairs or match[1].startswith("__"):
            raise Malformed("label %s in %r" % (match[1], text))
        pairs[match[1]] = re.sub(r'\\["\\n]', lambda m: ESCAPES[m[0]],
                                 match[2])
        at = match.end()
        if at < len(text):
            if text[at] != "," or at + 1 == len(text):
                raise Malformed("labels %r" % text)
            at += 1
    return tuple(sorted(pairs.items()))


def _sample(line, family):
    match = re.fullmatch(r"([^{ ]+)(?:\{(.*)\})? (\S+)", line)
    if not match or not NAME.fullmatch(match[1]):
        raise Malformed("not a sample: %r" % line)
    suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" \
        else ("",)
    for suffix in suffixes:
        if match[1] == family.name + suffix:
            break
    else:
        raise Malformed("%s among those of %s" % (match[1], family.name))
    if match[2] == "":
        raise Malformed("empty labels: %r" % line)
    key = suffix, _labels(match[2] or "")
    if key in family.samples:
        raise Malformed("twice: %r" % line)
    family.samples[key] = number(match[3])


def parse(data):
    """The families of an answer, by name."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise Malformed("not UTF-8: %s" % e) from None
    if not text.endswith("\n") or "\r" in text:
        raise Malformed("line ends")
    families = {}
    family = None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, name, said = (line + " ").split(" ", 3)
            if not NAME.fullmatch(name) or name in families or not said.strip():
                raise Malformed("%r" % line)
            if family is not None:
                family.check()
            family = families[name] = Family(name, said[:-1])
        elif line.startswith("# TYPE "):
            match = re.fullmatch(r"# TYPE (\S+) (counter|gauge|histogram)",
                                 line)
            if not match or family is None or match[1] != family.name or \
                    family.type is not None:
                raise Malformed("%r" % line)
            family.type = match[2]
        elif family is None or family.type is None:
            raise Malformed("before its TYPE: %r" % line)
        else:
            _sample(line, family)
    if family is None:
        raise Malformed("nothing")
    family.check()
    return families


def promtool(*arguments, data=b""):
    """What promtool finds wrong, or "": nothing, or it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        return ""
    done = subprocess.run([program, *arguments], input=data,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    return done.stdout.decode() or "status %d" % done.returncode \
        if done.returncode != 0 else ""
