#!/bin/bash
# test.sh - installs what tests need and runs everything; the last line sums
# up, "N passed, N failed".  FUZZ_SECONDS=5 ./test.sh fuzzes less than CI.
# test.sh --evidence DIR - runs the acceptance of both interfaces alone, and
# writes what it saw: see tests/evidence.py.

set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 1
# shellcheck source=build-aux/packages.sh
. "$here/build-aux/packages.sh"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

builds=$here/build-test
passed=0
failed=0
evidence=

case $#:${1-} in
0:) ;;
2:--evidence) mkdir -p "$2" && evidence=$(cd "$2" && pwd) || exit 1 ;;
*) die "usage: ./test.sh [--evidence DIR]" ;;
esac

need_build
need_command clang clang
need_fuzzer
need_command valgrind valgrind
need_command lighttpd lighttpd
need_command curl curl
need_command openssl openssl
need_command nginx nginx-light
need_command apache2 apache2-bin
need_command spawn-fcgi spawn-fcgi
need_command cgi-fcgi libfcgi-bin
[ -e /usr/lib/apache2/modules/mod_fcgid.so ] ||
    missing+=(libapache2-mod-fcgid)
need_command python3 python3
need_command node nodejs
need_command npm npm
need_command chromium chromium
need_command esbuild esbuild
need_command tsc node-typescript
need_command shellcheck shellcheck
need_command cppcheck cppcheck
need_command clang-tidy clang-tidy
need_command mandoc mandoc
need_command logrotate logrotate
[ -e /usr/share/zoneinfo/Europe/Berlin ] || missing+=(tzdata)
[ "$(id -u)" -ne 0 ] || need_packaging
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

# build NAME CONFIGURE-ARGUMENT...
build() {
	local name=$1

	shift
	mkdir -p "$builds/$name" && cd "$builds/$name" || exit 1
	check "$name: configure" "$here/configure" -q "$@"
	check "$name: make" make -s -j2 all
	check "$name: make the tests" make -s -j2 check TESTS=
	cd "$here" || exit 1
}

# run_tests WHAT BUILD COMMAND...: the command is a `make check`.  One test
# after the other, as some measure time.
run_tests() {
	local what=$1

	cd "$builds/$2" || exit 1
	shift 2
	rm -f tests/*.log tests/*.trs test-suite.log
	"$@" >/dev/null 2>&1
	check "$what: tests ran" test -e test-suite.log
	sum_logs "$what"
	cd "$here" || exit 1
}

# ---- side by side ----

lanes=()
groups=()
trap 'exit 1' HUP INT TERM
trap 'kill -- "${groups[@]/#/-}" 2>/dev/null' EXIT

# beside FUNCTION: runs it while others run, in a process group of its own,
# which ends with us.
beside() {
	rm -f "$builds/$1.sum"
	set -m
	# shellcheck disable=SC2030,SC2031 # join_lanes adds them
	(
		passed=0 failed=0
		"$1"
		echo "$passed $failed" >"$builds/$1.sum"
	) </dev/null &
	set +m
	groups+=("$!")
	lanes+=("$1")
}

# Waits for them, and adds what they counted.
join_lanes() {
	local lane ok nok

	wait "${groups[@]}"
	for lane in "${lanes[@]}"; do
		ok=0 nok=1
		[ ! -e "$builds/$lane.sum" ] ||
		    read -r ok nok <"$builds/$lane.sum"
		# shellcheck disable=SC2031
		passed=$((passed + ok)) failed=$((failed + nok))
	done
	lanes=() groups=()
}

# ---- the parts ----

# clang 14's sanitizers cannot do with more than 28 random bits in addresses,
# which some kernels have.  A container may forbid to switch that off.
steady=()
setarch -R true 2>/dev/null && steady=(setarch -R)

with_asan() {
	build sanitizers --enable-werror --enable-sanitizers CC=clang \
	    CFLAGS='-g -O1'
	run_tests sanitizers sanitizers "${steady[@]}" make -s -k check
}

# The responder has threads, so: the unit tests, and what has many readers,
# and responders that start spoolers or end.  The others are about the spooler,
# which has no threads, or count threads and calls, where TSan has its own.
tsan_e2e='stream resume start crash leave readers slow races'

with_tsan() {
	build tsan --enable-werror --enable-sanitizers=thread CC=clang \
	    CFLAGS='-g -O1'
	if ! "${steady[@]}" "$builds/tsan/respool.fcgi" -V >/dev/null; then
		echo "        tsan: skipped: vm.mmap_rnd_bits is above 28 here," \
		    "and setarch -R is forbidden"
		return
	fi
	# shellcheck disable=SC2016,SC2086 # make's variable; words
	run_tests tsan tsan "${steady[@]}" make -s -k check \
	    TESTS='$(check_PROGRAMS) '"$(printf 'tests/e2e_%s.py ' $tsan_e2e)"
}

with_fuzzer() {
	local name names out before=$failed

	cd "$builds/gcc" || exit 1
	out=$("${steady[@]}" make -s fuzz \
	    FUZZ_SECONDS="${FUZZ_SECONDS:-60}" 2>&1)
	# shellcheck disable=SC2016 # make's variable
	names=$(make -s --eval='fuzz-names: ; @echo $(FUZZ)' fuzz-names)
	for name in ${names:-none}; do
		check "fuzz: $name" grep -q "^fuzz: $name: .*, no finding" \
		    <<<"$out"
	done
	[ "$failed" -eq "$before" ] || printf '%s\n' "$out"
	cd "$here" || exit 1
}

# CK_FORK=no makes a test program one process, which is ten times as fast here.
# base and hub have tests that die on purpose; exec and sandbox need what this
# valgrind does not know (pidfd_open, Landlock); metrics has counts that belong
# to a process; the others take minutes, as they cut at each byte or wait.  The
# sanitizers run them too.
valgrind_not='base hub answer exec http jx metrics sandbox spool_damage spool_find spool_seal'
valgrind_e2e=(e2e_stream.py e2e_resume.py e2e_start.py 'e2e_ctl.py show check')

with_valgrind() {
	local name not

	# shellcheck disable=SC2086 # words
	not=$(printf 'tests/check_%s ' $valgrind_not)
	run_tests valgrind gcc env CK_FORK=no make -s -k check \
	    TESTS="\$(filter-out $not,\$(check_PROGRAMS))" \
	    LOG_COMPILER='timeout 600 valgrind' \
	    LOG_FLAGS='-q --leak-check=full --error-exitcode=99'
	cd "$builds/gcc" || exit 1
	for name in "${valgrind_e2e[@]}"; do
		check "valgrind: $name: nothing wrong, lost or kept" \
		    "$here/tests/valgrind.sh" "$name"
	done
	cd "$here" || exit 1
}

# What needs neither libcurl nor libjwt, on a host that has neither.
without_libraries() {
	build without --enable-werror --without-libcurl --without-libjwt \
	    CC=gcc CFLAGS='-g -O1'
	# shellcheck disable=SC2016 # make's variable
	run_tests without without make -s -k check TESTS='$(check_PROGRAMS)'
	check "without: a model over HTTP is refused with the reason" \
	    refuses "$builds/without" libcurl RESPOOL_MODELS_FILE=models.json
	check "without: auth = jwt is refused with the reason" \
	    refuses "$builds/without" libjwt RESPOOL_AUTH=jwt \
	    RESPOOL_JWT_KEY_FILE=models.json
}

refuses() { # BUILD WORD VARIABLE=VALUE...
	(
		cd "$1" || exit 1
		word=$2
		shift 2
		printf '{"default": "m", "models": {"m": {"provider": "%s"}}}' \
		    ollama >models.json
		chmod 600 models.json
		! env "$@" ./respool.fcgi -t >/dev/null 2>refused &&
		    grep -F "$word" refused
	)
}

packaged() {
	local out status

	out=$(RESPOOL_SOURCE=$here RESPOOL_BUILD=$builds/gcc \
	    timeout 900 tests/package.py 2>&1)
	status=$?
	if [ $status -eq 77 ]; then
		printf '        package: %s\n' "$out"
		return
	fi
	printf '%s\n' "$out" | sed 's/^/        package: /'
	check "package" test $status -eq 0
}

slow_static() {
	check "make distcheck" make -s -C "$builds/gcc" distcheck TESTS=
	check "gcc -fanalyzer and clang-tidy" tests/lint.sh
}

# ---- what runs, the quick things first ----

cd "$here" || exit 1
if [ -n "$evidence" ]; then
	check "autoreconf" autoreconf -fi
	build gcc --enable-werror CC=gcc CFLAGS='-g -O2'
	[ "$failed" -eq 0 ] || exit 1
	RESPOOL_SOURCE=$here RESPOOL_BUILD=$builds/gcc \
	    exec tests/evidence.py "$evidence"
fi
check "shellcheck" shellcheck -x demo.sh test.sh build-aux/packages.sh .ci/run \
    build-aux/bindist.sh \
    tests/lint.sh tests/fuzz.sh tests/client.sh tests/valgrind.sh
check "autoreconf" autoreconf -fi
build gcc --enable-werror CC=gcc CFLAGS='-g -O2'
for page in man/*.[1-8] "$builds"/gcc/man/*.[1-8]; do
	check "mandoc ${page##*/}" mandoc -T lint -W warning "$page"
done
# cppcheck does not look into the system's headers; these macros it must know.
queue=$(echo '#include <sys/queue.h>' | gcc -E - |
    sed -n 's/^# 1 "\(.*queue.h\)".*/\1/p')
check "cppcheck" cppcheck -q --error-exitcode=1 --std=c11 --inline-suppr \
    --enable=warning,portability --suppress=missingIncludeSystem \
    --suppress=ctuuninitvar --include="$queue" -D_GNU_SOURCE \
    -DHAVE_LIBCURL -DHAVE_LIBJWT \
    '-Djson_object_object_foreach(o,k,v)=while(each(o,k,v))' \
    -DPACKAGE_VERSION='""' -DSPOOL_DIR='""' -DSTATIC_DIR='""' \
    -DSYSCONFDIR='""' -DSBINDIR='""' -Isrc src
run_tests gcc gcc make -s -k check
# These wait more than they compute.
beside with_asan
with_tsan
without_libraries
slow_static
packaged
join_lanes
with_fuzzer
with_valgrind

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
