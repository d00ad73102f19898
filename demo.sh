#!/bin/bash
# demo.sh - from a fresh clone to a running respool: installs what is missing,
# builds, starts a web server on 127.0.0.1, streams one answer to the terminal
# and serves until Ctrl-C.

# Functions are called by the traps, too.
# shellcheck disable=SC2317
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 1
# shellcheck source=build-aux/packages.sh
. "$here/build-aux/packages.sh"
# Where Debian has lighttpd; not in everybody's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

build=$here/build
programs=(respool.fcgi respool-spooler respoolctl)

server=lighttpd
port=8080
procs=1
spool=
config=
user=
may_install=yes
as_user=()	# put before a command: as whom the programs run

run=		# everything that must be gone at the end
server_pid=
job=		# the process group of what we wait for now
serving=no

usage() {
	cat <<-END
	usage: ./demo.sh [options]
	  --server NAME   the web server (lighttpd):
	                  lighttpd            it starts the responders
	                  lighttpd-external   they run by themselves, on a socket
	                  apache-fcgid        mod_fcgid: one process per reader
	                  apache-proxy-fcgi   mod_proxy_fcgi: on a socket
	                  apache-cgi          plain CGI
	                  apache-htaccess     a directory with a .htaccess
	                  nginx               on a socket
	  --port N        on 127.0.0.1 (8080)
	  --procs N       responder processes (1)
	  --spool DIR     stays there at the end (else: a temporary one)
	  --config FILE   respool.conf(5)
	  --user NAME     as root: whom all runs as (www-data)
	  --no-install    install nothing
	RESPOOL_ settings and API keys are taken from the environment and from
	.env.local (see .env.local.example).
	END
}

is_number() { # VALUE MIN MAX
	[[ $1 =~ ^[1-9][0-9]{0,5}$ ]] && [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

parse_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		--server|--port|--procs|--spool|--config|--user)
			[ -n "${2-}" ] || die "$1 needs a value"
			printf -v "${1#--}" %s "$2"
			shift 2 ;;
		--no-install) may_install=no; shift ;;
		-h|--help) usage; exit 0 ;;
		*) usage >&2; exit 2 ;;
		esac
	done
	case $server in
	lighttpd|lighttpd-external|nginx) ;;
	apache-fcgid|apache-proxy-fcgi|apache-cgi|apache-htaccess) ;;
	*) die "--server $server: there is no such one; see --help" ;;
	esac
	is_number "$port" 1 65535 || die "--port $port: not a port"
	is_number "$procs" 1 1000 || die "--procs $procs: not a number from 1 to 1000"
	if [ "$(id -u)" -eq 0 ]; then
		user=${user:-www-data}
		id "$user" >/dev/null 2>&1 || die "--user $user: no such user"
		as_user=(runuser -u "$user" --)
	elif [ -n "$user" ] && [ "$user" != "$(id -un)" ]; then
		die "--user $user: only root can do that"
	else
		user=
	fi
}

# ---- the environment of the programs ----

declare -A env_local

# Nothing in the file is executed or expanded.
read_env_local() {
	local line name value number=0

	[ -e "$here/.env.local" ] || return 0
	while IFS= read -r line || [ -n "$line" ]; do
		number=$((number + 1))
		line=${line%$'\r'}
		[[ -z $line || $line == '#'* ]] && continue
		name=${line%%=*} value=${line#*=}
		[[ $line == *=* && $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] ||
		    die ".env.local, line $number: not NAME=value"
		[[ ! $value =~ ^([\"\']).*[\"\']$ ]] ||
		    die ".env.local, line $number: write the value without quotes"
		printenv "$name" >/dev/null || env_local[$name]=$value
	done <"$here/.env.local"
}

# The value that a variable has or will have; "" when none.
setting() { printenv "$1" || printf '%s\n' "${env_local[$1]-}"; }

# Becomes a command that has the programs' environment.  In a subshell only, as
# the names are the user's and could be ours.
exec_with_settings() {
	for _name in "${!env_local[@]}"; do
		export "$_name=${env_local[$_name]}" || exit 1
	done
	exec "$@"
}

# ---- building ----

# The process group of a job is its own, so that a signal for us can end it
# whole, and bash waits in a way that a signal interrupts.
run_job() {
	local status

	set -m
	"$@" </dev/null &
	job=$!
	set +m
	wait "$job" 2>/dev/null
	status=$?
	job=
	return $status
}

# Programs that were built by hand have no stamp and are as good.
is_built() {
	local program old=no

	for program in "${programs[@]}"; do
		[ -x "$build/$program" ] || return 1
		[ -z "$(newer_than "$build/$program")" ] || old=yes
	done
	[ $old = no ] ||
	    { [ -e "$build/stamp" ] && [ -z "$(newer_than "$build/stamp")" ]; }
}

newer_than() {
	find "$here/src" "$here/configure.ac" "$here/Makefile.am" \
	    -type f -newer "$1" -print -quit
}

compile() (
	mkdir -p "$build" && cd "$build" || exit 1
	# Two demos that are started at once build one after the other.
	exec 9>lock && flock 9
	! is_built || exit 0
	touch stamp.new
	if [ ! -e "$here/configure" ] || [ -n "$(find "$here/configure.ac" \
	    "$here/Makefile.am" -newer "$here/configure")" ]; then
		(cd "$here" && autoreconf -fi) || exit 1
	fi
	[ -e Makefile ] || "$here/configure" || exit 1
	make -j2 || exit 1
	# Edits during the build count as newer than it.
	mv stamp.new stamp
)

build_programs() {
	! is_built || return 0
	say "building in ${build#"$PWD/"}"
	run_job compile >"$run/build.log" 2>&1 || {
		tail -n 30 "$run/build.log" >&2
		die "the build failed"
	}
}

# ---- the run directory ----

make_run_dir() {
	run=$(mktemp -d "${TMPDIR:-/tmp}/respool-demo.XXXXXX") || exit 1
	chmod 700 "$run"
}

# The user may be one who cannot enter the place of the checkout, as under
# /root: copies in the run directory then take the place of the originals.
place_programs() {
	bin=$build static=$here/static/magic

	[ -z "$user" ] || chown "$user:" "$run" || exit 1
	# Always copies: a checkout may be one that a group can write to.
	cp -R "$here/share" "$run/share" || exit 1
	chmod -R a+rX,go-w "$run/share"
	if ! "${as_user[@]}" test -x "$bin/respool.fcgi" ||
	    ! "${as_user[@]}" test -r "$static/index.html"; then
		mkdir "$run/bin" || exit 1
		cp "${programs[@]/#/$bin/}" "$run/bin/" || exit 1
		cp -R "$static" "$run/magic" || exit 1
		chmod -R a+rX "$run/bin" "$run/magic"
		bin=$run/bin static=$run/magic
		"${as_user[@]}" test -x "$bin/respool.fcgi" || die "$user" \
		    "cannot run programs in $run; set TMPDIR to another place"
	fi
}

# in_config NAME: the configuration file has that setting.
in_config() {
	[ -n "$config" ] && grep -q "^[[:space:]]*$1[[:space:]]*=" "$config"
}

# default_setting NAME VALUE: unless the user has chosen
default_setting() {
	local variable=RESPOOL_${1^^}

	[ -n "$(setting "$variable")" ] || in_config "$1" ||
	    override_setting "$variable" "$2"
}

override_setting() { # VARIABLE VALUE
	unset "$1"
	env_local[$1]=$2
}

choose_settings() {
	if [ -n "$config" ]; then
		config=$(realpath -e -- "$config") || exit 1
		override_setting RESPOOL_CONFIG "$config"
	else
		config=$(setting RESPOOL_CONFIG)
	fi
	[ -z "$spool" ] || override_setting RESPOOL_SPOOL_DIR "$spool"
	default_setting spool_dir "$run/spool"
	default_setting spooler_program "$bin/respool-spooler"
	default_setting static_dir "$static"
	default_setting templates_dir "$run/share/templates"
	default_setting triage_file "$run/share/triage.json"
	default_setting personas_dir "$run/share/personas"
	# Somebody's own personas need not have a lion.
	[ "$(setting RESPOOL_PERSONAS_DIR)" != "$run/share/personas" ] ||
	    default_setting default_persona lion_001
	default_setting log_file "$run/respool.log"
	# How the end knows our responders from those of another demo.
	override_setting DEMO_RUN "$run"
}

# What holds for the programs, from all sources; paths are absolute there.
check_settings() {
	(exec_with_settings "$bin/respool.fcgi" -t) >"$run/settings" ||
	    die "the configuration is not valid"
	chmod a+r "$run/settings"
}

effective() { sed -n "s/^$1 = //p" "$run/settings"; }

is_hidden() { # FILE, from the user
	[ -n "$1" ] && ! "${as_user[@]}" test -r "$1"
}

# Files that only root can read: the user gets copies.
place_files() {
	local models

	models=$(effective models_file)
	if is_hidden "$config"; then
		say "$user cannot read $config: a copy is used"
		override_setting RESPOOL_CONFIG "$run/settings"
	fi
	if is_hidden "$models"; then
		say "$user cannot read $models: a copy is used"
		install -m 644 "$models" "$run/models.json" || exit 1
		override_setting RESPOOL_MODELS_FILE "$run/models.json"
	fi
}

# A temporary spool, or the one that was asked for; the user owns it.
make_spool() {
	local asked

	asked=$(effective spool_dir)
	mkdir -p "$asked" && asked=$(cd "$asked" && pwd -P)
	[ -d "$asked" ] || die "the spool cannot be made"
	if [ -n "$user" ] && [ "$(stat -c %U "$asked")" != "$user" ]; then
		[ -e "$asked/streams" ] || [ -z "$(ls -A "$asked")" ] ||
		    die "$asked is neither empty nor a spool"
		chown -R -h "$user:" "$asked" && chmod 700 "$asked" || exit 1
	fi
	"${as_user[@]}" test -w "$asked" || die "$user cannot write to" \
	    "$asked; choose another --spool or --user"
	spool=$asked
	override_setting RESPOOL_SPOOL_DIR "$spool"
}

# ---- serving ----

modules=/usr/lib/apache2/modules	# Debian's
web_server=()

need_server() {
	case $server in
	lighttpd*) need_command lighttpd lighttpd ;;
	nginx) need_command nginx nginx-light ;;
	apache*) need_command apache2 apache2-bin ;;
	esac
	case $server in
	apache-fcgid)
		[ -e $modules/mod_fcgid.so ] ||
		    missing+=(libapache2-mod-fcgid) ;;
	lighttpd-external|apache-proxy-fcgi|nginx)
		need_command spawn-fcgi spawn-fcgi ;;
	esac
}

# The line that says as whom the web server serves.
username() {
	[ -n "$user" ] && [ "$user" != root ] || return 0
	case $server in
	lighttpd*) echo "server.username = \"$user\"" ;;
	apache*) printf 'User %s\\nGroup #%s' "$user" "$(id -g "$user")" ;;
	nginx) echo "user $user;" ;;
	esac
}

fill_in() { # TEMPLATE FILE
	sed -e "s|@PORT@|$port|g" -e "s|@RUN@|$run|g" \
	    -e "s|@PROCS@|$procs|g" -e "s|@RESPOOL@|$bin/respool.fcgi|g" \
	    -e "s|@BIN@|$bin|g" -e "s|@BASE@||g" -e "s|@MODULES@|$modules|g" \
	    -e "s|@CONFIG@|$run/settings|g" \
	    -e "s|@USERNAME@|$(username)|g" "$here/$1.in" >"$2"
}

# Has Apache hand the programs' environment on: HOW is its directive.
hand_on() { # HOW
	local name keys models

	models=$(effective models_file)
	keys=$([ -z "$models" ] ||
	    sed -n 's/.*"api_key_env"[^"]*"\([^"]*\)".*/\1/p' "$models")
	for name in $(compgen -e) "${!env_local[@]}"; do
		[[ $name =~ ^(RESPOOL_.*|DEMO_RUN|[a-zA-Z]+_(proxy|PROXY))$ ]] ||
		    grep -qxF -e "$name" <<<"$keys" || continue
		echo "${1//NAME/$name}"
	done | sort -u >"$run/environment.conf"
}

# Writes the shipped configuration; web_server is what starts it.
configure_server() {
	mkdir "$run/www" && chmod 755 "$run/www" || exit 1
	web_server=(apache2 -D FOREGROUND -D "$server" -f "$run/demo.conf")
	case $server in
	lighttpd)
		fill_in lighttpd/respool.conf "$run/respool.conf" ;;
	lighttpd-external)
		fill_in lighttpd/respool-external.conf "$run/respool.conf" ;;
	nginx)
		fill_in nginx/respool.conf "$run/respool.conf" ;;
	apache-fcgid)
		hand_on "FcgidInitialEnv NAME \"\${NAME}\""
		fill_in apache/respool-fcgid.conf "$run/respool.conf" ;;
	apache-proxy-fcgi)
		fill_in apache/respool-proxy.conf "$run/respool.conf" ;;
	apache-cgi)
		hand_on 'PassEnv NAME'
		fill_in apache/respool-cgi.conf "$run/respool.conf" ;;
	apache-htaccess)
		hand_on 'PassEnv NAME'
		cp "$bin/respool.fcgi" "$run/www/respool.cgi" &&
		    fill_in apache/htaccess "$run/www/.htaccess" ;;
	esac || exit 1
	fill_in "${server%%-*}/demo.conf" "$run/demo.conf" || exit 1
	case $server in
	lighttpd*) web_server=(lighttpd -D -f "$run/demo.conf") ;;
	nginx) web_server=(nginx -p "$run" -e stderr -c "$run/demo.conf") ;;
	esac
}

# For servers that do not start the responders by themselves.
start_responders() {
	local as=()

	[ -z "$user" ] || [ "$user" = root ] ||
	    as=(-u "$user" -g "$(id -g "$user")")
	(exec_with_settings spawn-fcgi -s "$run/respool.sock" -M 0660 \
	    "${as[@]}" -F "$procs" -- "$bin/respool.fcgi") </dev/null \
	    >"$run/spawn.log" 2>&1 || {
		cat "$run/spawn.log" >&2
		die "the responder cannot be started"
	}
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

start_server() {
	! port_answers ||
	    die "port $port is taken; choose another one with --port"
	configure_server
	case $server in
	lighttpd-external|apache-proxy-fcgi|nginx) start_responders ;;
	esac
	# In a session of its own: Ctrl-C is for us, who end it in good order.
	(exec_with_settings setsid "${web_server[@]}") </dev/null &
	server_pid=$!
}

server_runs() { kill -0 "$server_pid" 2>/dev/null; }

url() { printf 'http://127.0.0.1:%s%s' "$port" "$1"; }

fetch() { run_job curl --noproxy '*' -sS -f -N "$@"; }

await_server() {
	local until=$((SECONDS + 15))

	until fetch --max-time 5 -o "$run/health" "$(url /health)" \
	    2>"$run/error"; do
		server_runs || die "$server could not be started"
		[ $SECONDS -lt $until ] || {
			cat "$run/error" >&2
			show_log
			die "$server does not answer"
		}
		run_job sleep 0.1
	done
}

show_log() {
	[ ! -e "$run/respool.log" ] || tail -n 20 "$run/respool.log" >&2
}

show_one_answer() {
	local status

	fetch --max-time 20 -G "$(url /api/v1/stream)" \
	    -d user_id=demo --data-urlencode 'message=Hello, is anybody there?'
	status=$?
	# Somebody's own model may take longer: its answer goes on without us.
	[ $status -eq 0 ] || [ $status -eq 28 ] || {
		show_log
		die "the answer could not be fetched"
	}
}

# ---- the end ----

# Prints the pids of our responders and of the spool's spoolers.
find_programs() {
	local file pid name

	grep -lzxF -e "DEMO_RUN=$run" -e "RESPOOL_SPOOL_DIR=$spool" \
	    /proc/[0-9]*/environ 2>/dev/null | while read -r file; do
		pid=${file//[!0-9]/}
		name=$(readlink "/proc/$pid/exe") || continue
		name=${name% (deleted)}
		case ${name##*/} in
		respool-spooler) echo "$pid" ;;
		respool.fcgi|respool.cgi)
			grep -qzxF "DEMO_RUN=$run" "$file" 2>/dev/null &&
			    echo "$pid" ;;
		esac
	done
}

# Web servers do not wait for their responders, and nobody for the spooler.
# A second SIGTERM ends a spooler at once.
stop_all() {
	local round pids pid signal=TERM

	kill -TERM "$server_pid" 2>/dev/null
	for round in {1..30}; do
		[ "$round" -lt 9 ] || signal=KILL
		pids=$(find_programs)
		if server_runs; then
			[ "$signal" = TERM ] || kill -KILL "$server_pid"
		elif [ -z "$pids" ]; then
			return
		fi
		for pid in $pids; do
			kill "-$signal" "$pid" 2>/dev/null
		done
		sleep 0.08
	done
}

finish() {
	trap '' INT TERM HUP
	[ -z "$job" ] || kill -TERM -- "-$job" 2>/dev/null
	[ -z "$server_pid" ] || stop_all
	[ -z "$run" ] || rm -rf "$run"
}

interrupted() { # STATUS
	# Ctrl-C is how a demo ends.
	[ "$serving" = no ] || exit 0
	exit "$1"
}

trap finish EXIT
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 143' TERM

parse_options "$@"
read_env_local
need_server
need_command curl curl
is_built || need_build
install_missing $may_install || exit 1
make_run_dir
build_programs
place_programs
choose_settings
check_settings
place_files
make_spool
start_server
await_server
show_one_answer
printf 'ready %s\n' "$(url /magic)"
serving=yes
wait "$server_pid"
serving=no
die "$server ended by itself"
