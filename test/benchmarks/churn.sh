# shellcheck shell=bash disable=SC2154
#
# churn: COPY into a guarded table while ten patients a second opt out of its
# register, each in a transaction of its own.

churn_labels=(
	"nothing, alone"
	"nothing, during opt-outs"
	"guard, both, alone"
	"guard, both, during opt-outs"
	"guard, constraint, alone"
	"guard, constraint, during opt-outs"
)

# Returns when the first has opted out.
churn_start() {
	local before
	before=$(churn_count)
	as_postgres PGAPPNAME=optouts pgbench -n -h "$server" -p "$port" -U postgres -R 10 -c 1 -T 3600 \
		-f "$data/optout.sql" bench >/dev/null 2>"$work/log/churn.log" &
	churn_pid=$!
	for _ in {1..100}; do
		if [ "$(churn_count)" -gt "$before" ]; then
			return 0
		fi
		sleep 0.1
	done
	fail "churn: nobody opts out"
}

churn_stop() {
	in_bench "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'optouts'" >/dev/null
	wait "$churn_pid" || true
}

churn() {
	local table
	case $1 in
		nothing*) table=bench.churn_nothing ;;
		"guard, both"*) table=bench.churn_both ;;
		"guard, constraint"*) table=bench.churn_constraint ;;
	esac
	if [[ $1 == *during* ]]; then
		churn_start
	fi
	timed churn "$1" "$churn_rows" \
		"TRUNCATE $table; CHECKPOINT; SELECT ndrs_optout.is_excluded(9990000018, 'list_$list');" \
		"COPY $table FROM '$data/churn';" "SELECT count(*) FROM $table;" "$churn_rows"
	if [[ $1 == *during* ]]; then
		churn_stop
	fi
}

churn_count() {
	in_bench "SELECT count(*) FROM ndrs_optout.exclusion WHERE register = 'list_$list'"
}

stage_churn() {
	local table
	need_list "$list" || return
	for table in nothing both constraint; do
		in_bench "CREATE TABLE bench.churn_$table (visit_id bigint, nhs_number text, diagnosis_date date, site text)" || return
	done
	in_bench "
		CREATE TABLE bench.candidate AS
		    SELECT row_number() OVER () AS id, n AS number FROM bench.numbers(800000, 100000) AS n;
		CREATE UNIQUE INDEX ON bench.candidate (id);
		ANALYZE bench.candidate;
		COPY (SELECT i, p.number, date '2015-01-01' + (i % 3000)::integer, 'C' || i % 97
		          FROM generate_series(1::bigint, $churn_rows) AS i
		              JOIN (SELECT row_number() OVER () AS id, n AS number FROM bench.patients(100000) AS n) p ON p.id = 1 + i * 7919 % 100000
		          ORDER BY i)
		    TO '$data/churn';
		SELECT ndrs_optout.guard_table('bench.churn_both', 'nhs_number', '{list_$list}');
		SELECT ndrs_optout.guard_table('bench.churn_constraint', 'nhs_number', '{list_$list}', mechanism => 'constraint')" >/dev/null || return
	printf '%s\n' "\\set id random(1, 100000)" \
		"SELECT ndrs_optout.exclude(c.number::ndrs_optout.nhs_number, '{list_$list}') FROM bench.candidate c WHERE c.id = :id;" \
		>"$data/optout.sql"
	chmod 0644 "$data/optout.sql"
	interleaved churn "${churn_labels[@]}"
}

table_churn() {
	print_table "Churn: COPY of $churn_rows rows of four columns, list of $list, ten opt-outs a second" "
		SELECT label AS \"COPY into a table guarded by\", bench.shown(wall_us / 1000) AS \"wall, ms\",
		       bench.shown(cpu_us / 1000) AS \"CPU, ms\", spread, bench.shown(1e6 * units / wall_us) AS \"rows a second\",
		       CASE WHEN label LIKE '%during%' THEN bench.shown(bench.wall_ns(stage, replace(label, 'during opt-outs', 'alone')) / wall_ns) END
		           AS \"throughput, of alone\"
		    FROM bench.median WHERE stage = 'churn' ORDER BY position"
}
