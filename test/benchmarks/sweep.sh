# shellcheck shell=bash disable=SC2154
#
# sweep: looking through a large table for excluded patients, of whom there are
# none, as after most restores.  A patient's rows are not beside each other.

sweep_labels=(
	"column alone"
	"no-op C function"
	"count(*) WHERE is_excluded() of bigint"
	"count(*) WHERE guard_matches()"
	"CALL sweep()"
	"EXISTS, hash join"
	"NOT IN, hashed"
)

sweep_statement() {
	local from="SELECT count(*) FROM bench.swept_$2 p WHERE"
	case $1 in
		"column alone") echo "$from number < 0;" ;;
		"no-op C function") echo "$from bench.is_false(number);" ;;
		*"is_excluded() of bigint") echo "$from ndrs_optout.is_excluded(number, 'list_$2');" ;;
		*"guard_matches()") echo "$from ndrs_optout.guard_matches(number, '{list_$2}');" ;;
		"CALL sweep()")
			echo "CALL ndrs_optout.sweep('bench.swept_$2');"
			;;
		"EXISTS, hash join") echo "$from EXISTS (SELECT FROM peer.list_$2 l WHERE l.number = p.number);" ;;
		"NOT IN, hashed") echo "$from NOT (number NOT IN (SELECT l.number FROM peer.list_$2 l));" ;;
	esac
}

# sweep LIST/WORKERS/LABEL
sweep() {
	local label=${1#*/*/} list=${1%%/*} workers=${1#*/} check=
	workers=${workers%%/*}
	if [ "$label" = "CALL sweep()" ]; then
		check="SELECT sum(rows_erased) FROM ndrs_optout.sweep_progress;"
	fi
	timed "sweep $list $workers" "$label" "$sweep_rows" \
		"SET max_parallel_workers_per_gather = $workers; SET min_parallel_table_scan_size = 0;
		 SELECT ndrs_optout.is_excluded(9990000018, 'list_$list');" \
		"$(sweep_statement "$label" "$list")" "$check" 0
}

stage_sweep() {
	local size workers label cases=()
	for size in "$list" "$large_list"; do
		need_list "$size" && in_bench "
			CREATE TABLE bench.swept_$size AS
			    SELECT i AS visit_id, p.number, 'C50'::text AS site, date '2020-01-01' AS seen
			        FROM generate_series(1::bigint, $sweep_rows) AS i
			            JOIN (SELECT row_number() OVER () - 1 AS id, n AS number FROM bench.patients($sweep_rows / 5) AS n) p
			                ON p.id = i * 7919 % ($sweep_rows / 5)
			        ORDER BY i;
			VACUUM ANALYZE bench.swept_$size;
			SELECT ndrs_optout.guard_table('bench.swept_$size', 'number', '{list_$size}', mechanism => 'constraint')" >/dev/null || return
		for workers in 0 2; do
			for label in "${sweep_labels[@]}"; do
				cases+=("$size/$workers/$label")
			done
		done
	done
	interleaved sweep "${cases[@]}"
}

table_sweep() {
	local size
	for size in "$list" "$large_list"; do
		print_table "Sweep: ns per row (wall), $sweep_rows rows, list of $size, no patient found" "
			SELECT s.label AS \"look-up\", bench.shown(s.wall_ns) AS serial, bench.shown(s.cpu_ns) AS \"serial, CPU\", s.spread,
			       bench.shown(p.wall_ns) AS \"two workers\", bench.shown(s.wall_ns / p.wall_ns) AS \"times as fast\",
			       bench.shown(s.cpu_ns / ours) AS \"serial CPU, times count(*) WHERE is_excluded()\"
			    FROM bench.median s JOIN bench.median p ON p.label = s.label AND p.stage = 'sweep $size 2',
			         bench.cpu_ns('sweep $size 0', 'count(*) WHERE is_excluded() of bigint') AS ours
			    WHERE s.stage = 'sweep $size 0' ORDER BY s.position" || return
	done
	say "Workers build lists of their own, and CPU is the leader's only: hence wall time. Two workers and the leader share $(nproc) cores with whatever else runs."
}
