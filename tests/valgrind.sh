#!/bin/sh
# valgrind.sh "TEST [WORD...]"... - runs end-to-end tests (those whose names
# hold a word) from the build directory with the programs under valgrind.  No
# process that came to its end may have made an error, lost memory or kept a
# descriptor; one that was killed may.

here=$(cd "$(dirname "$0")" && pwd) || exit
dir=$(mktemp -d "${TMPDIR:-/tmp}/respool-valgrind.XXXXXX") || exit
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
failed=0

# The programs run as another user when this one is root.
chmod 755 "$dir" && mkdir -m 1777 "$dir/log" && mkdir "$dir/real" || exit
cp "$here/valgrind.supp" "$dir/real" || exit
for program in respool.fcgi respool-spooler respoolctl; do
	cp "$program" "$dir/real" || exit
	cat >"$dir/$program" <<-EOF || exit
		#!/bin/sh
		exec valgrind --leak-check=full --track-fds=yes \\
		    --num-callers=25 --log-file='$dir/log/$program.%p' \\
		    --suppressions='$dir/real/valgrind.supp' \\
		    '$dir/real/$program' "\$@"
	EOF
	chmod 755 "$dir/$program" || exit
done
for test; do
	# shellcheck disable=SC2086 # words
	RESPOOL_BUILD=$dir RESPOOL_SOURCE=$here/.. PYTHONDONTWRITEBYTECODE=1 \
	    python3 "$here/"$test || failed=$((failed + 1))
done

# Bad is what was lost, kept or wrong; not what came from outside, the log, or
# what the thread that waits for signals has: they serve to the last.
is_bad() { # LOG
	awk '
	/ERROR SUMMARY: [1-9]/ { bad = 1 }
	/Open .*(descriptor|socket) [0-9]+:/ { bad += open; open = 1; next }
	/inherited from parent|: log_open|: stopper_start/ { open = 0 }
	/HEAP SUMMARY/ { bad += open; open = 0 }
	END { exit !bad }' "$1"
}

# A spooler forks twice to be alone; who forks leaves with what the last one
# needs.
has_forked() { # LOG
	case $1 in
	*/respool-spooler.*) grep -q "Parent PID: ${1##*.}\$" "${1%.*}".* ;;
	*) false ;;
	esac
}

for program in respool.fcgi respool-spooler respoolctl; do
	ended=0
	for log in "$dir/log/$program".*; do
		grep -qs 'ERROR SUMMARY: ' "$log" || continue
		has_forked "$log" && continue
		ended=$((ended + 1))
		if is_bad "$log"; then
			cat "$log"
			failed=$((failed + 1))
		fi
	done
	echo "valgrind: $program came to its end $ended times"
	[ $ended -gt 0 ] || [ $program = respoolctl ] || failed=$((failed + 1))
done
[ $failed -eq 0 ]
