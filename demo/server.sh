# shellcheck shell=bash
#
# demo/server.sh: packages, build and a throw-away PostgreSQL server.
#
# A library for demo/run and test/run.  Sourcing it only defines functions and
# PG_CONFIG; `set -euo pipefail` and traps belong to the callers.  Functions
# report on standard output, complain on standard error and return non-zero.

# The major version that this release of Debian has.
release_version() {
	case $(sed -n 's/^VERSION_ID="\{0,1\}\([0-9]*\).*/\1/p' /etc/os-release) in
	13) echo 17 ;;
	*) echo 15 ;;
	esac
}

# Named in full: of several installed versions, the first in PATH is anyone's.
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$(release_version)/bin/pg_config}

# ---------------------------------------------------------------- small things

complain() {
	echo "error: $*" >&2
	return 1
}

# seconds_since START: tenths, START being an earlier $EPOCHREALTIME.
seconds_since() {
	local now=$EPOCHREALTIME tenths
	tenths=$(((${now//[!0-9]/} - ${1//[!0-9]/}) / 100000))
	echo "$((tenths / 10)).$((tenths % 10))"
}

# quietly LOG COMMAND...: output goes to LOG and is shown only on failure.
quietly() {
	local log=$1
	shift
	if "$@" >"$log" 2>&1 </dev/null; then
		return 0
	fi
	cat "$log" >&2
	complain "failed: $*"
}

# as_root "$@": start the calling script again through sudo unless it is root.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		return 0
	fi
	if ! command -v sudo >/dev/null; then
		echo "error: $0 must be run as root, and there is no sudo here" >&2
		exit 1
	fi
	# sudo drops the environment; the choice of server must survive that.
	exec sudo -- env PG_CONFIG="$PG_CONFIG" bash "$0" "$@"
}

# as_postgres [NAME=VALUE...] COMMAND...: PostgreSQL refuses to run as root.  The
# environment is emptied, so that the caller's PG* variables, start-up files and
# locale change nothing, and the working directory left, since the user postgres
# may not be allowed to read it.
as_postgres() (
	cd /
	exec env PATH="$PATH:/usr/sbin:/sbin" runuser -u postgres -- \
		env -i PATH="$("$PG_CONFIG" --bindir):/usr/bin:/bin" HOME=/nonexistent LC_ALL=C.UTF-8 "$@"
)

# -------------------------------------------------------------------- packages

# The major version when PG_CONFIG is Debian's; nothing for a server built by
# hand, which is then taken as it is.
packaged_version() {
	if [[ $PG_CONFIG =~ ^/usr/lib/postgresql/([0-9]+)/bin/pg_config$ ]]; then
		echo "${BASH_REMATCH[1]}"
	fi
}

# What building and running needs.  pgcrypto is in the server's package.
build_packages() {
	local version
	version=$(packaged_version)
	echo gcc libc6-dev libssl-dev make
	if [ -n "$version" ]; then
		echo "postgresql-$version" "postgresql-server-dev-$version"
	fi
}

# What the tests need besides.
test_packages() {
	local version name names
	version=$(packaged_version)
	echo clang libclang-rt-dev libipc-run-perl libtap-parser-sourcehandler-pgtap-perl perl pgloader
	# From 16 on it is part of the server's package.
	if [ "${version:-15}" -le 15 ]; then
		echo pg-bsd-indent
	fi
	if [ -n "$version" ]; then
		# Debian 12 lacks pglogical, and Debian unstable periods; the tests that need them are skipped there.
		names=(cron pgtap plpgsql-check partman repack pgaudit)
		[ "$version" -gt 17 ] || names+=(periods)
		[ "$version" -lt 17 ] || names+=(pglogical)
		for name in "${names[@]}"; do
			# Of the version that is to come, what is packaged
			if [ "$version" -le 18 ] || apt-cache show "postgresql-$version-$name" >/dev/null 2>&1; then
				echo "postgresql-$version-$name"
			fi
		done
	fi
}

# What counting instructions needs (test/cost).
cost_packages() {
	echo valgrind
}

# has_extension NAME: does the server have its files?
has_extension() {
	[ -e "$("$PG_CONFIG" --sharedir)/extension/$1.control" ]
}

package_is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need_packages NAME...: install what is missing.  Asks the network only then.
need_packages() {
	local name missing=() log started=$EPOCHREALTIME status=0
	command -v dpkg-query >/dev/null || complain "needs Debian or a relative of it" || return
	for name in "$@"; do
		package_is_installed "$name" || missing+=("$name")
	done
	if [ ${#missing[@]} -eq 0 ]; then
		return 0
	fi
	echo "installing ${missing[*]}"
	log=$(mktemp) || return
	quietly "$log" install_packages "${missing[@]}" || status=$?
	rm -f "$log"
	if [ "$status" -eq 0 ]; then
		echo "installed in $(seconds_since "$started") s"
	fi
	return "$status"
}

# A subshell, so that its trap and environment end with it.
install_packages() (
	local dir=/etc/postgresql-common/createcluster.d
	export DEBIAN_FRONTEND=noninteractive

	# A new server package creates and starts a cluster, which nobody asked for
	# here.  Only this installation is told not to: the user's next one is not.
	if [[ " $* " =~ \ postgresql-[0-9]+\  ]]; then
		trap 'rm -f "$dir/ndrs_optout.conf"; rmdir --ignore-fail-on-non-empty "$dir"' EXIT
		mkdir -p "$dir"
		echo 'create_main_cluster = false' >"$dir/ndrs_optout.conf"
	fi

	# One unreachable source need not matter: the installation decides.
	apt-get update || true
	apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
)

# ----------------------------------------------------------------------- build

# build_and_install SOURCE BUILD [MAKE-ARGUMENT...]: build in a copy, so that
# the checkout stays clean and need not be readable to the user postgres, and
# install from there.  Without bitcode: it only serves JIT inlining.
build_and_install() {
	local source=$1 build=$2 make=(make with_llvm=no "PG_CONFIG=$PG_CONFIG")
	shift 2
	make+=(-C "$build" "$@")
	copy_tree "$source" "$build" &&
		quietly "$build/build.log" as_postgres "${make[@]}" -j2 &&
		quietly "$build/install.log" "${make[@]}" install
}

# What an earlier build left in SOURCE (see .gitignore) stays behind: make would
# take it for up to date.
copy_tree() {
	local source=$1 build=$2
	mkdir -p "$build" &&
		tar -C "$source" --exclude=./.git --exclude-vcs-ignores -cf - . |
		tar -C "$build" --no-same-owner -xf - &&
		chown -R postgres: "$build"
}

# ---------------------------------------------------------------------- server

# start_server DIR PORT [CONFIGURATION-LINE...]: a server of its own in DIR,
# reachable only through the socket in DIR, which only root and postgres may
# enter.  Does nothing when it runs already.
start_server() {
	local dir=$1 port=$2 started=$EPOCHREALTIME
	shift 2
	if server_is_running "$dir"; then
		echo "server in $dir is running already"
		return 0
	fi
	if ! server_is_initialised "$dir"; then
		initialise_server "$dir" "$port" "$@" || return
	fi
	if ! quietly "$dir/pg_ctl.log" as_postgres pg_ctl -D "$dir/data" -l "$dir/server.log" -w start; then
		tail -n 30 "$dir/server.log" >&2
		return 1
	fi
	echo "server started in $(seconds_since "$started") s (socket directory $dir, port $port)"
}

# stop_server DIR: stop it at once and remove DIR.  Nothing there is no error.
stop_server() {
	local dir=$1
	if [ ! -e "$dir" ]; then
		return 0
	fi
	server_is_ours "$dir" || complain "$dir was not made by start_server" || return
	if server_is_running "$dir"; then
		quietly "$dir/pg_ctl.log" as_postgres pg_ctl -D "$dir/data" -m immediate -w stop || return
	fi
	rm -rf "$dir"
}

# The key file is made first, so it tells our directories from other people's.
server_is_ours() {
	[ -f "$1/ndrs_optout.key" ]
}

# The settings are written last.
server_is_initialised() {
	server_is_ours "$1" && grep -qs '^ndrs_optout\.key_file' "$1/data/postgresql.conf"
}

server_is_running() {
	server_is_initialised "$1" && as_postgres pg_ctl -D "$1/data" status >/dev/null 2>&1
}

initialise_server() {
	local dir=$1 port=$2
	shift 2
	if [ -n "$(ls -A "$dir" 2>/dev/null)" ]; then
		server_is_ours "$dir" || complain "$dir is not empty" || return
		rm -rf "$dir/data"
	fi
	# The system's limit for the path of a socket is 107 bytes.
	if [ $((${#dir} + ${#port})) -gt 95 ]; then
		complain "the path $dir is too long for a socket" || return
	fi
	install -d -o postgres -g postgres -m 0700 "$dir" &&
		write_key "$dir/ndrs_optout.key" &&
		quietly "$dir/initdb.log" as_postgres initdb -D "$dir/data" -U postgres --no-sync \
			--encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=reject &&
		write_settings "$dir" "$port" "$@"
}

# 64 random hexadecimal digits, closed to everybody but the server.
write_key() {
	install -o postgres -g postgres -m 0600 /dev/null "$1" &&
		od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$1"
}

# Two-phase commit and logical decoding are ways past a guard: tests need both.
write_settings() {
	local dir=$1 port=$2
	shift 2
	{
		printf '%s\n' \
			"listen_addresses = ''" \
			"unix_socket_directories = '$dir'" \
			"port = $port" \
			"fsync = off" \
			"max_prepared_transactions = 10" \
			"wal_level = logical" \
			"$@" \
			"ndrs_optout.key_file = '$dir/ndrs_optout.key'"
	} >>"$dir/data/postgresql.conf"
}
