#!/bin/sh
# fuzz.sh NAME SECONDS - runs one fuzz target from the build directory, as
# `make fuzz` does.  What it learns stays in fuzz/NAME for the next time; an
# input that it finds is fuzz/NAME-crash-... (or -leak-, -timeout-).

name=$1
out=$PWD/fuzz/$name

mkdir -p "$out" || exit
# Each input makes files.
if [ -z "$TMPDIR" ] && [ -w /dev/shm ]; then
	TMPDIR=/dev/shm
	export TMPDIR
fi
# Names from the root on, as some targets change their directory.
if "$PWD/tests/fuzz_$name" -max_total_time="$2" -timeout=10 \
    -artifact_prefix="$out-" "$out" \
    "$RESPOOL_SOURCE/tests/corpus/$name" >"$out.log" 2>&1; then
	echo "fuzz: $name: $(sed -n 's/^Done //p' "$out.log"), no finding"
else
	tail -n 60 "$out.log"
	echo "fuzz: $name: FINDING, see $out.log"
	exit 1
fi
