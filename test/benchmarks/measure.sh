# shellcheck shell=bash disable=SC2154
#
# test/benchmarks/measure.sh: how test/bench measures and prints.
#
# A library: it only defines functions.  Its callers set the variables that it
# uses: server, port, runs, size, settings, markdown.

failures=0

fail() {
	echo "FAILED: $*" >&2
	failures=$((failures + 1))
}

# psql_in DATABASE [ARGUMENT...]
psql_in() {
	local database=$1
	shift
	as_postgres psql -X -q -A -t -h "$server" -p "$port" -U postgres -d "$database" -v ON_ERROR_STOP=1 "$@"
}

# in_bench SQL: to prepare something, or to ask.
in_bench() {
	psql_in bench <<<"SET client_min_messages = error; $1"
}

# timed STAGE LABEL UNITS SETUP STATEMENT CHECK EXPECTED: one run, in a session of
# its own.  SETUP and CHECK are not measured; what STATEMENT and CHECK print must
# be EXPECTED, so that none is fast by doing something else.  An open
# transaction is rolled back.
timed() {
	local stage=$1 label=$2 units=$3 setup=$4 statement=$5 check=$6 expected=$7 answer
	if ! answer=$(psql_in bench -v "stage=$stage" -v "label=$label" -v "units=$units" <<-END
			SET client_min_messages = error;
			\o /dev/null
			$setup
			SELECT bench.start_clock();
			\o
			$statement
			SELECT wall_us, cpu_us FROM bench.read_clock() \gset
			$check
			ROLLBACK;
			INSERT INTO bench.run (stage, label, units, wall_us, cpu_us)
			    VALUES (:'stage', :'label', :units, :wall_us, :cpu_us);
		END
	); then
		fail "$stage, $label"
	elif [ "$answer" != "$expected" ]; then
		fail "$stage, $label: the answer is \"$answer\" and not \"$expected\""
	fi
}

# interleaved FUNCTION CASE...: each case once, and all of that several times, so
# that what disturbs the machine disturbs everybody.
interleaved() {
	local function=$1 run case
	shift
	for ((run = 1; run <= runs; run++)); do
		echo "  $function: run $run of $runs" >&2
		for case in "$@"; do
			"$function" "$case"
		done
	done
}

# need_list SIZE: register list_SIZE with so many excluded patients, and the same
# patients for the others.
need_list() {
	in_bench "CALL bench.make_list($1)" && in_bench "VACUUM (ANALYZE) peer.list_$1"
}

# say TEXT: a paragraph of the report.
say() {
	printf '\n%s\n' "$*" | fold -s -w 100
	if [ -n "$markdown" ]; then
		printf '\n%s\n' "$*" >>"$markdown"
	fi
}

# print_table TITLE QUERY: its column names are the head.
print_table() {
	local title=$1 query=$2 rows=$work/log/table.tsv
	psql_in bench -P tuples_only=off -P footer=off -F $'\t' <<<"$query" >"$rows" || return
	printf '\n%s\n\n' "$title"
	lay_out text <"$rows"
	if [ -n "$markdown" ]; then
		{
			printf '\n**%s**\n\n' "$title"
			lay_out markdown <"$rows"
		} >>"$markdown"
	fi
}

# lay_out text|markdown: tab-separated lines with a head.  Columns of numbers are
# flush right.
lay_out() {
	awk -F '\t' -v format="$1" '
		function pad(text, width, right) {
			return sprintf("%" (right ? "" : "-") width "s", text)
		}
		{
			for (i = 1; i <= NF; i++) {
				cell[NR, i] = $i
				if (length($i) > width[i]) width[i] = length($i)
				if (NR > 1 && $i !~ /^([-0-9]|$)/) wordy[i] = 1
			}
			if (NF > columns) columns = NF
		}
		END {
			for (row = 1; row <= NR; row++) {
				line = ""
				for (i = 1; i <= columns; i++) {
					text = pad(cell[row, i], width[i], !wordy[i])
					line = line (format == "text" ? (i > 1 ? "  " : "") text : "| " text " ")
				}
				sub(/ +$/, "", line)
				print format == "text" ? line : line " |"
				if (row > 1) continue
				line = ""
				for (i = 1; i <= columns; i++) {
					rule = sprintf("%" width[i] "s", "")
					gsub(/ /, "-", rule)
					line = line (format == "text" ? (i > 1 ? "  " : "") rule : "|" (wordy[i] ? ":" rule "-" : "-" rule ":"))
				}
				print format == "text" ? line : line "|"
			}
		}'
}

# What the figures depend on.
describe() {
	local flags
	flags=$("$PG_CONFIG" --cflags)
	say "ndrs_optout $(sed -n "s/^default_version = '\(.*\)'/\1/p" "$top/ndrs_optout.control") benchmark, size \"$size\", $runs runs of each, medians."
	say "Machine: $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo) of memory, Linux $(uname -r); load average at the start $(cut -d ' ' -f 1 /proc/loadavg)."
	say "Server: $("$PG_CONFIG" --version), compiled with $flags; extension compiled with the same flags by $(gcc --version | head -n 1), OpenSSL $(dpkg-query -W -f '${Version}' libssl-dev 2>/dev/null || echo unknown)."
	say "Settings: fsync = off, $(printf '%s, ' "${settings[@]}")tables are logged."
	say "\"wall\" is elapsed time in the server, \"CPU\" the processor time of the one backend that runs the statement. Where the machine has other work, trust CPU. Ratios are of CPU unless another is named. NHS numbers are synthetic: with the prefix 999, which is not issued, for up to 700,000, and computed ones in the issued range where millions are needed; none is anybody's on purpose."
}
