#!/bin/sh
# client.sh - the unit tests of the browser client, tests/client_*.mjs, by
# node's own test runner; skipped where node is not installed, or too old.

command -v node >/dev/null || exit 77
node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' ||
    exit 77
cd "${RESPOOL_SOURCE:-$(dirname "$0")/..}" || exit
out=$(mktemp) || exit
trap 'rm -f "$out"' EXIT
node --test tests/client_*.mjs >"$out" 2>&1
status=$?
number() { sed -n "s/^\(# \|ℹ \)$1 //p" "$out" | tail -n 1; }
tests=$(number tests)
passed=$(number pass)
skipped=$(number skipped)
[ "$status" -eq 0 ] || grep -v '^ok\|^ *$' "$out"
grep '# SKIP' "$out"
# In libcheck's words, as the other tests say it.
checks=$((${tests:-1} - ${skipped:-0}))
failures=$((checks - ${passed:-0}))
echo "$((100 * (checks - failures) / checks))%: Checks: $checks," \
    "Failures: $failures, Errors: 0"
exit "$status"
