# packages.sh - what demo.sh and test.sh share: finding out what is missing,
# and having apt-get install it.  Sourced by bash.
# shellcheck shell=bash

missing=()

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# need_command COMMAND PACKAGE
need_command() { command -v "$1" >/dev/null || missing+=("$2"); }

# need_library PKG-CONFIG-NAME PACKAGE
need_library() {
	pkg-config --exists "$1" 2>/dev/null || missing+=("$2")
}

# libFuzzer and the sanitizers, which clang itself does not bring.
need_fuzzer() {
	local dir

	dir=$(clang -print-resource-dir 2>/dev/null)/lib/linux
	compgen -G "$dir/libclang_rt.fuzzer-*.a" >/dev/null ||
	    missing+=(libclang-rt-14-dev)
}

# What ./configure and make want.
need_build() {
	need_command autoconf autoconf
	need_command automake automake
	need_command make make
	need_command "${CC:-gcc}" gcc
	# gcc alone does not bring the C library's headers.
	[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
	need_command pkg-config pkgconf
	need_library fcgi libfcgi-dev
	need_library json-c libjson-c-dev
	need_library libcurl libcurl4-openssl-dev
	need_library inih libinih-dev
	need_library libmd libmd-dev
	need_library libjwt libjwt-dev
	need_library check check
}

# For tests/package.py.
need_packaging() {
	need_command debootstrap debootstrap
	need_command dpkg-buildpackage dpkg-dev
	need_command dh debhelper
	need_command lintian lintian
	[ -e /usr/share/build-essential ] || missing+=(build-essential)
}

# For install_missing, with its variables.  Debian starts a web server's
# service as it installs it; only the program is wanted here.
run_apt() (
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap '"${root[@]}" rm -f $policy' EXIT
		trap 'exit 1' HUP INT TERM
		"${root[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' >$policy &&
		    chmod 755 $policy"
	fi
	# The lists of a fresh machine are empty, and old ones name what is gone.
	"${root[@]}" "${apt[@]}" >/dev/null 2>&1 || {
		"${root[@]}" apt-get update && "${root[@]}" "${apt[@]}"
	} >&2
)

# install_missing MAY-INSTALL: installs what the need_ functions found.  When
# that is not allowed or not possible: tells the line to type, returns 1.
install_missing() {
	local apt=(apt-get install -y --no-install-recommends "${missing[@]}")
	local root=()

	[ ${#missing[@]} -gt 0 ] || return 0
	if ! command -v apt-get >/dev/null; then
		say "missing; Debian's names are: ${missing[*]}"
		return 1
	fi
	if [ "$(id -u)" -ne 0 ]; then
		root=(sudo -n)
		"${root[@]}" true 2>/dev/null || set -- no
	fi
	if [ "$1" = no ]; then
		say "something is missing; please type:"
		printf 'sudo apt-get update && sudo %s\n' "${apt[*]}" >&2
		return 1
	fi
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	run_apt || return
	missing=()
}
