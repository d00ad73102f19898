#!/usr/bin/env -S python3 -B
"""check_units.py - the systemd units are ones that systemd understands, and
as hardened as is promised."""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("RESPOOL_SOURCE") or os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))
# In tenths; it rates from 0.0 to 10.0, and lower is better.
EXPOSURE_MAX = 30
MARKS = {"SBINDIR": "/usr/bin", "SYSCONFDIR": "/etc", "RUN": "/run/respool",
         "SPOOL_DIR": "/var/spool/respool"}


def fill_in(directory):
    for template in glob.glob(os.path.join(SOURCE, "systemd", "*.in")):
        with open(template, encoding="utf-8") as f:
            text = f.read()
        for mark, value in MARKS.items():
            text = text.replace("@%s@" % mark, value)
        # Any program that is there.
        text = re.sub(r"^(ExecStart=)\S+", r"\1/usr/bin/env", text,
                      flags=re.M)
        text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
        name = os.path.basename(template)[:-len(".in")]
        with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
            f.write(text)


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", check=False)


def main():
    if shutil.which("systemd-analyze") is None:
        print("systemd-analyze is not installed: skipped")
        sys.exit(77)
    failures = checks = 0
    with tempfile.TemporaryDirectory(prefix="respool-units.") as directory:
        fill_in(directory)
        os.chdir(directory)
        for name in sorted(glob.glob("*.service") + glob.glob("*.socket")):
            commands = [["verify", "./" + name]]
            if name.endswith(".service"):
                commands.append(["security", "--offline=true", "--threshold=%d"
                                 % EXPOSURE_MAX, "./" + name])
            for command in commands:
                result = run("systemd-analyze", "--no-pager", *command)
                checks += 1
                wrong = [line for line in result.stdout.splitlines()
                         if command[0] == "verify" and name in line]
                if result.returncode != 0 or wrong:
                    failures += 1
                    print("FAIL  %s\n%s" % (" ".join(command), result.stdout))
    print("%d%%: Checks: %d, Failures: %d, Errors: 0"
          % (100 * (checks - failures) // checks, checks, failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
