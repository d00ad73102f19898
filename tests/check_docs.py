#!/usr/bin/env python3
"""check_docs.py - the documents say what the sources say.

docs/ARCHITECTURE.md names every file.
docs/API.md and docs/openapi.yaml against src/errtype_table.h (error types),
the routes[] of src/route.c, the limits and defaults of the headers, and the
fields that src/dialect.c and src/fold.c write.
Standard library only: openapi.yaml is kept so simple that regular
expressions read it."""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
API, YAML = "docs/API.md", "docs/openapi.yaml"
failures = []


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def same(name, want, got):
    """One check: two lists, without regard to order, nothing twice."""
    for what in sorted(set(want) - set(got)):
        failures.append(f"{name}: missing: {what}")
    for what in sorted(set(got) - set(want)):
        failures.append(f"{name}: not in the sources: {what}")
    for what in sorted({w for w in got if got.count(w) > 1}):
        failures.append(f"{name}: twice: {what}")
    if not want:
        failures.append(f"{name}: nothing found in the sources")


def find(name, pattern):
    return re.findall(pattern, text(name), re.M)


def section(name, begin, end):
    """What stands after the line begin, up to the next line that starts so."""
    after = text(name).split(f"\n{begin}\n", 1)[1]
    return re.split(rf"^(?={end})", after, maxsplit=1, flags=re.M)[0]


def table(heading):
    """The rows of the first table of a section of API.md, without its head."""
    lines = section(API, heading, "##").splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")]
            for line in lines if line.startswith("|")]
    return rows[2:]


def error_types():
    return [(name, int(status), word == "true") for name, status, word in
            find("src/errtype_table.h",
                 r"^ERRTYPE\((\w+),\s*(\d+),\s*(true|false),")]


def api_md_has_the_error_types_with_status_and_retryable():
    rows = [(row[0].strip("`"), 0 if row[1] == "–" else int(row[1]),
             {"yes": True, "no": False}[row[2]]) for row in table("## Errors")]
    same(API, error_types(), rows)


def openapi_has_the_error_types_with_status_and_retryable():
    rows = [(name, int(status), word == "true") for name, status, word in
            find(YAML, r"^ +- \{ name: (\w+), status: (\d+), "
                 r"retryable: (true|false) \}$")]
    same(f"{YAML} x-error-types", error_types(), rows)
    enum = section(YAML, "    ErrorType:", "      x-error-types:")
    same(f"{YAML} ErrorType", [row[0] for row in error_types()],
         re.findall(r"^        - (\w+)$", enum, re.M))


def routes():
    return [(method, path)
            for methods, path in find("src/route.c",
                                      r"^\t\{ (M_[A-Z_| ]+), \"([^\"]+)\",")
            for method in re.findall(r"M_(\w+)", methods)]


def star(path):
    return re.sub(r"\{\w+\}", "*", path)


def api_md_has_the_routes():
    rows = [(row[0].strip("`"), star(row[1].strip("`")))
            for row in table("## Routes")]
    same(API, routes(), rows)


def openapi_has_the_routes():
    rows, path = [], None
    for line in section(YAML, "paths:", "components:").splitlines():
        if found := re.match(r"  (/\S*):$", line):
            path = star(found[1])
        elif found := re.match(r"    (get|post|delete|put|patch):$", line):
            rows.append((found[1].upper(), path))
    same(YAML, routes(), rows)


def api_md_has_the_limits_and_defaults():
    values = {name: int(value) for name, value in
              find("src/conf_table.h", r"^CONF\((\w+), \w+, (\d+),")}
    for row in table("## Limits"):
        if found := re.fullmatch(r"`(\w+)`, (\d+)", row[1]):
            if values.get(found[1]) != int(found[2]):
                failures.append(f"{API}: {found[1]} is not {found[2]} but "
                                f"{values.get(found[1])}")
    for header, macro, said in (
            ("src/sse.h", "SSE_FRAME_MAX", "{} bytes"),
            ("src/spool.h", "SPOOL_ID_MAX", "1 to {} bytes"),
            ("src/spool.h", "SPOOL_OWNER_MAX", "1 to {} bytes"),
            ("src/model.h", "MODEL_NAME_MAX", "{} bytes"),
            ("src/jx.h", "JX_DEPTH_MAX", "{}")):
        value, = find(header, rf"^#define {macro} (\d+)")
        if said.format(value) not in [row[1] for row in table("## Limits")]:
            failures.append(f"{API}: no limit of {said.format(value)} "
                            f"({macro})")


def names(text_):
    """The names of the members that C code puts into JSON."""
    return set(re.findall(r'\\"(\w+)\\":', text_))


def fields(part, name=r"\w+"):
    """The names in the first column of the tables of a part of a document."""
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", part, re.M)
    return {word for cell in cells for word in re.findall(f"`({name})`", cell)}


def api_md_has_the_fields_of_the_frames():
    part = section(API, "## The event stream", "## ")
    usage = re.search(r"token counts: (.*?)\|", part)[1]
    same(API, names(text("src/dialect.c")),
         sorted(fields(part) | set(re.findall(r"`(\w+)`", usage))))


def api_md_has_the_fields_of_the_snapshot():
    want = names(text("src/fold.c")) | set(
        find("src/fold.c", r'fold_put_end\(f, "(\w+)"'))
    part = section(API, "### `GET /api/v1/streams/{id}`", "##")
    calls, = re.findall(r'`\{("index".*?)\}`', part)
    same(API, want, sorted(fields(part) | set(re.findall(r'"(\w+)"', calls))))


def architecture_md_names_every_source_file():
    part = section("docs/ARCHITECTURE.md", "## Reading order", "## ")
    said = fields(part, r"[\w.]+")
    files = [path.name for path in (ROOT / "src").glob("*.[ch]")]
    known = set(files) | {name[:-2] for name in files}
    for name in sorted(files):
        if name not in said and name[:-2] not in said:
            failures.append(f"docs/ARCHITECTURE.md: missing: {name}")
    for name in sorted(said - known):
        failures.append(f"docs/ARCHITECTURE.md: no such file: {name}")


def the_examples_of_api_md_are_json():
    examples = re.findall(r"^```json\n(.*?)^```$", text(API), re.M | re.S)
    examples += find(API, r"^    data: (.*)$")
    for example in examples:
        try:
            json.loads(example)
        except ValueError as why:
            failures.append(f"{API}: {why}: {example}")
    if not examples:
        failures.append(f"{API}: no examples")


def the_examples_of_the_providers_are_json():
    for path in sorted((ROOT / "docs/providers").glob("*.md")):
        for part in path.read_text(encoding="utf-8").split("\n\n"):
            if not part.startswith('    "'):
                continue
            try:
                json.loads("{" + part + "}")
            except ValueError as why:
                failures.append(f"{path.name}: {why}: {part}")


def operations_md_has_the_metrics_with_kind_and_label():
    labels = {"NONE": "", "RESULT": "{result}", "FRAME_TYPE": "{type}",
              "REPLY_TYPE": "{type}", "CODE": "{code}"}
    want = [("respool_" + name + labels[label], kind) for name, kind, label in
            find("src/metrics_table.h", r"^METRIC\((\w+), (\w+), (\w+),")]
    want += [("respool_" + name, "gauge") for name in
             find("src/metrics_table.h", r"^FACT\((\w+),")]
    others = find("src/metrics_table.h", r"^OTHER\((\w+), (\w+),")
    for name, kind in others:
        put = re.search(rf"^put_{name}\(.*?^}}", text("src/metrics_text.c"),
                        re.M | re.S)[0]
        of = re.findall(r'(\w+)=\\"', put)
        want.append(("respool_" + name + ("{%s}" % ",".join(of) if of else ""),
                     kind))
    rows = re.findall(r"^\| `(respool_\S+)` \| (\w+) \|",
                      section("docs/OPERATIONS.md", "## Metrics", "## "), re.M)
    same("docs/OPERATIONS.md", want, rows)


CHECKS = (
    api_md_has_the_error_types_with_status_and_retryable,
    openapi_has_the_error_types_with_status_and_retryable,
    api_md_has_the_routes,
    openapi_has_the_routes,
    api_md_has_the_limits_and_defaults,
    api_md_has_the_fields_of_the_frames,
    api_md_has_the_fields_of_the_snapshot,
    architecture_md_names_every_source_file,
    operations_md_has_the_metrics_with_kind_and_label,
    the_examples_of_api_md_are_json,
    the_examples_of_the_providers_are_json,
)


def main():
    failed = errors = 0
    for check in CHECKS:
        failures.clear()
        try:
            check()
        except Exception as why:  # a document of another form than expected
            errors += 1
            print(f"{check.__name__}: error: {why!r}")
        failed += bool(failures)
        for line in failures:
            print(f"{check.__name__}: {line}")
    good = 100 * (len(CHECKS) - failed - errors) // len(CHECKS)
    print(f"{good}%: Checks: {len(CHECKS)}, Failures: {failed}, "
          f"Errors: {errors}")
    return 1 if failed + errors else 0


if __name__ == "__main__":
    sys.exit(main())
