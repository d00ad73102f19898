#!/bin/sh
# lint.sh - what gcc -fanalyzer and clang-tidy say of src, without what is
# known to be wrong of them: lint_known.txt has each such finding, and why.

cd "$(dirname "$0")/.." || exit
checks='-*,clang-analyzer-*,bugprone-*,-bugprone-easily-swappable-parameters'
checks="$checks,-bugprone-assignment-in-if-condition"
checks="$checks,-bugprone-narrowing-conversions,-bugprone-macro-parentheses"
checks="$checks,-bugprone-branch-clone,-bugprone-reserved-identifier"
checks="$checks,-bugprone-implicit-widening-of-multiplication-result"
checks="$checks,-bugprone-suspicious-realloc-usage"
checks="$checks,-clang-analyzer-security.insecureAPI.*"
tmp=$(mktemp -d) || exit
trap 'rm -rf "$tmp"' EXIT

set -- -std=c11 -D_GNU_SOURCE -Isrc '-DPACKAGE_VERSION=""' '-DSPOOL_DIR=""' \
    '-DSTATIC_DIR=""' '-DSYSCONFDIR=""' '-DSBINDIR=""' -DHAVE_LIBCURL \
    -DHAVE_LIBJWT
for file in src/*.c; do
	gcc "$@" -O2 -fanalyzer -c "$file" -o "$tmp/o" 2>&1
	clang-tidy --quiet --checks="$checks" "$file" -- "$@" 2>/dev/null
done >"$tmp/all"
# "FILE CHECK" of each finding, once.
sed -n 's,^\([^ ]*/\)*\([a-z_]*\.c\):[0-9]*:[0-9]*: \(warning\|error\): .*\[\([^][]*\)\]$,\2 \4,p' \
    "$tmp/all" | sort -u >"$tmp/found"
sed -n 's/^\([a-z_]*\.c [^ ]*\)  *#.*/\1/p' tests/lint_known.txt |
    sort -u >"$tmp/known"
if ! diff "$tmp/known" "$tmp/found" >"$tmp/diff"; then
	cat "$tmp/all"
	echo "Not in tests/lint_known.txt (>), or there in vain (<):"
	cat "$tmp/diff"
	exit 1
fi
