#!/bin/bash
# test.sh - installs what tests need and runs everything; the last line sums
# up, "N passed, N failed".

set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 1
# shellcheck source=build-aux/packages.sh
. "$here/build-aux/packages.sh"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

builds=$here/build-test
passed=0
failed=0

need_build
need_command clang clang
need_command lighttpd lighttpd
need_command nginx nginx-light
need_command apache2 apache2-bin
need_command spawn-fcgi spawn-fcgi
need_command python3 python3
need_command shellcheck shellcheck
need_command cppcheck cppcheck
need_command clang-tidy clang-tidy
need_command mandoc mandoc
install_missing yes || exit 1

# check WHAT COMMAND...: one check that passes or fails
check() {
	local what=$1 out

	shift
	if out=$("$@" 2>&1); then
		passed=$((passed + 1))
		printf 'ok      %s\n' "$what"
	else
		failed=$((failed + 1))
		printf '%s\nFAILED  %s\n' "$out" "$what"
	fi
}

# Adds up what the test programs say of themselves in the logs of `make
# check`; one that failed without saying so counts as one failure.
sum_logs() { # NAME
	local log line result checks bad ok=0 nok=0

	for log in tests/*.log; do
		[ -e "${log%.log}.trs" ] || continue
		result=$(sed -n 's/^:test-result: *//p' "${log%.log}.trs")
		line=$(grep -E '^[0-9]+%: Checks: ' "$log" | tail -n 1)
		checks=0 bad=0
		[[ ! $line =~ Checks:\ ([0-9]+),\ Failures:\ ([0-9]+),\ Errors:\ ([0-9]+) ]] || {
			checks=${BASH_REMATCH[1]}
			bad=$((BASH_REMATCH[2] + BASH_REMATCH[3]))
		}
		case $result in
		PASS*) ;;
		SKIP*) printf '        %s: %s skipped\n' "$1" "$log" ;;
		*)
			[ "$bad" -gt 0 ] || { bad=1; checks=$((checks + 1)); }
			printf '\n%s: %s\n' "$1" "$log"
			tail -n 60 "$log" ;;
		esac
		ok=$((ok + checks - bad)) nok=$((nok + bad))
	done
	printf '        %s: %d passed, %d failed\n' "$1" $ok $nok
	passed=$((passed + ok)) failed=$((failed + nok))
	[ $((ok + nok)) -gt 0 ]
}

# build_and_check NAME CONFIGURE-ARGUMENT...
build_and_check() {
	local name=$1

	shift
	mkdir -p "$builds/$name" && cd "$builds/$name" || exit 1
	check "$name: configure" "$here/configure" -q "$@"
	check "$name: make" make -s -j2 all
	check "$name: make the tests" make -s -j2 check TESTS=
	rm -f tests/*.log tests/*.trs
	# One after the other, as some measure times.
	make -s -k check >/dev/null 2>&1
	check "$name: tests ran" test -e test-suite.log
	sum_logs "$name"
	cd "$here" || exit 1
}

cd "$here" || exit 1
check "autoreconf" autoreconf -fi
build_and_check gcc --enable-werror CC=gcc CFLAGS='-g -O2'
build_and_check sanitizers --enable-werror --enable-sanitizers CC=clang \
    CFLAGS='-g -O1'
check "make distcheck" make -s -C "$builds/gcc" distcheck TESTS=
check "shellcheck" shellcheck -x demo.sh test.sh build-aux/packages.sh .ci/run \
    tests/lint.sh tests/fuzz.sh
# cppcheck does not look into the system's headers; these macros it must know.
queue=$(echo '#include <sys/queue.h>' | gcc -E - |
    sed -n 's/^# 1 "\(.*queue.h\)".*/\1/p')
check "cppcheck" cppcheck -q --error-exitcode=1 --std=c11 --inline-suppr \
    --enable=warning,portability --suppress=missingIncludeSystem \
    --suppress=ctuuninitvar --include="$queue" -D_GNU_SOURCE \
    '-Djson_object_object_foreach(o,k,v)=while(each(o,k,v))' \
    -DPACKAGE_VERSION='""' -DSPOOL_DIR='""' -DSTATIC_DIR='""' \
    -DSYSCONFDIR='""' -DSBINDIR='""' -Isrc src
check "gcc -fanalyzer and clang-tidy" tests/lint.sh
for page in man/*.[1-8] "$builds"/gcc/man/*.[1-8]; do
	check "mandoc ${page##*/}" mandoc -T lint -W warning "$page"
done

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
