# shellcheck shell=bash disable=SC2154
#
# sharing: which rows of a large table may be shared, where a list and a national
# check count; and what a national check takes to load and to keep.
#
# Every patient of the table was asked about, and one in twenty has opted out, as in
# England; the others who have opted out are not in the table.  So the check knows
# more numbers than the opted-out, and nearly every look-up is a hit.  A patient's
# rows are not beside each other, but for the case that says so.

sharing_labels=(
	"column alone"
	"no-op C function"
	"share_eligible() of encoded column"
	"share_eligible() of bigint"
	"share_eligible() of text"
	"share_eligible() of bigint, a patient's rows together"
	"share_eligible() of bigint once a patient, joined"
	"share_summary() of bigint"
	"anti-join, plain numbers"
	"join with the allowed, anti-join with the list, plain numbers"
	"NOT IN, hashed, plain numbers"
	"anti-join, pgcrypto hmac()"
	"PL/pgSQL function, index probe, plain numbers"
)

sharing_statement() {
	local from="SELECT count(*) FROM bench.shared p WHERE" ours="'research', '{list_$list}'"
	case $1 in
		"column alone") echo "$from number > 0;" ;;
		"no-op C function") echo "$from bench.is_true(number);" ;;
		"share_eligible() of encoded column") echo "$from ndrs_optout.share_eligible(encoded, $ours);" ;;
		"share_eligible() of bigint") echo "$from ndrs_optout.share_eligible(number, $ours);" ;;
		"share_eligible() of text") echo "$from ndrs_optout.share_eligible(digits, $ours);" ;;
		*"rows together") echo "SELECT count(*) FROM bench.shared_together WHERE ndrs_optout.share_eligible(number, $ours);" ;;
		*"once a patient, joined")
			echo "SELECT count(*) FROM bench.shared JOIN bench.shared_patient q USING (number)
			          WHERE ndrs_optout.share_eligible(q.number, $ours);"
			;;
		"share_summary() of bigint")
			echo "SELECT rows FROM ndrs_optout.share_summary('SELECT number FROM bench.shared', $ours) WHERE decision = 'eligible';"
			;;
		"anti-join, plain numbers")
			echo "$from NOT EXISTS (SELECT FROM peer.not_shared n WHERE n.number = p.number);"
			;;
		"join with the allowed"*)
			echo "$from EXISTS (SELECT FROM peer.allowed a WHERE a.number = p.number)
			          AND NOT EXISTS (SELECT FROM peer.list_$list l WHERE l.number = p.number);"
			;;
		"NOT IN"*) echo "$from number NOT IN (SELECT n.number FROM peer.not_shared n);" ;;
		"anti-join, pgcrypto hmac()")
			echo "$from NOT EXISTS (SELECT FROM peer.not_shared_hmac n WHERE n.hmac = hmac(p.digits::bytea, '$sharing_key'::bytea, 'sha256'));"
			;;
		"PL/pgSQL function"*) echo "SELECT count(*) FROM bench.shared_few WHERE peer.may_be_shared(number);" ;;
	esac
}

sharing_key="\\x$(printf '%064d' 7)"

# sharing WORKERS/LABEL: each backend has its sets before; workers do not.  What is slow,
# and has nothing to set up, looks at a tenth of the rows.
sharing() {
	local workers=${1%%/*} label=${1#*/} rows=$share_rows expected=$sharing_eligible
	case $label in
		"column alone" | "no-op C function") expected=$share_rows ;;
		"PL/pgSQL function"*) rows=$((share_rows / 10)) expected=$sharing_eligible_few ;;
	esac
	timed "sharing $workers" "$label" "$rows" \
		"SET max_parallel_workers_per_gather = $workers; SET min_parallel_table_scan_size = 0;
		 SELECT ndrs_optout.share_eligible(number, 'research', '{list_$list}') FROM bench.shared_patient LIMIT 1;" \
		"$(sharing_statement "$label")" "" "$expected"
}

sharing_tables() {
	local patients=$((share_rows / 5))
	in_bench "
		CREATE FUNCTION bench.is_true(bigint) RETURNS boolean
		    AS '$build/test/benchmarks/native', 'bench_true' LANGUAGE C STABLE STRICT PARALLEL SAFE;
		CREATE TABLE bench.shared_patient AS
		    SELECT row_number() OVER () - 1 AS id, n AS number FROM bench.patients($patients) AS n;
		CREATE TABLE bench.opted_out AS
		    SELECT number FROM bench.shared_patient WHERE id % 20 = 0
		    UNION ALL
		    SELECT bench.numbers(CASE WHEN $share_opted_out > 100000 THEN 60000000 ELSE 800000 END, $share_opted_out - $patients / 20);
		CREATE TABLE peer.allowed AS
		    SELECT number FROM bench.shared_patient WHERE id % 20 <> 0;
		ALTER TABLE peer.allowed ADD PRIMARY KEY (number);
		CREATE TABLE peer.not_shared AS
		    SELECT number FROM bench.opted_out UNION SELECT number FROM peer.list_$list;
		ALTER TABLE peer.not_shared ADD PRIMARY KEY (number);
		CREATE TABLE peer.not_shared_hmac AS
		    SELECT hmac(number::text::bytea, '$sharing_key'::bytea, 'sha256') AS hmac FROM peer.not_shared;
		ALTER TABLE peer.not_shared_hmac ADD PRIMARY KEY (hmac);
		CREATE FUNCTION peer.may_be_shared(wanted bigint) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS
		    'BEGIN RETURN NOT EXISTS (SELECT FROM peer.not_shared n WHERE n.number = wanted); END';
		CREATE TABLE bench.shared AS
		    SELECT i AS visit_id, p.number, p.number::text AS digits,
		           ndrs_optout.encode_nhs_number(p.number::ndrs_optout.nhs_number) AS encoded, date '2020-01-01' AS seen
		        FROM generate_series(1::bigint, $share_rows) AS i JOIN bench.shared_patient p ON p.id = i * 7919 % $patients
		        ORDER BY i;
		CREATE TABLE bench.shared_few AS SELECT * FROM bench.shared LIMIT $share_rows / 10;
		CREATE TABLE bench.shared_together AS SELECT * FROM bench.shared ORDER BY number" &&
		in_bench "VACUUM ANALYZE bench.shared_patient, bench.opted_out, peer.allowed, peer.not_shared, peer.not_shared_hmac,
		              bench.shared, bench.shared_few, bench.shared_together"
}

# sharing_check ASKED ALLOWED: a national check, from queries, with the memory of a usual
# server; prints its id, and records how long that took and how much memory it needed.
sharing_check() {
	psql_in bench <<-END
		SET work_mem = '64MB';
		SELECT rss AS before_rss FROM bench.peak_memory() \gset
		SELECT bench.start_clock() \g /dev/null
		SELECT ndrs_optout.start_national_check('$1') AS check_id \gset
		SELECT wall_us AS start_us FROM bench.read_clock() \gset
		SELECT bench.start_clock() \g /dev/null
		SELECT ndrs_optout.load_national_check(:check_id, '$2') \g /dev/null
		SELECT wall_us AS load_us FROM bench.read_clock() \gset
		INSERT INTO bench.check_run
		    SELECT ndrs_optout.cardinality(c.asked), ndrs_optout.cardinality(c.allowed), :start_us, :load_us, rss - :before_rss
		        FROM bench.peak_memory(), ndrs_optout.national_check c WHERE c.check_id = :check_id;
		SELECT :check_id;
	END
}

# sharing_memory SIZE: a session of its own, which has decided before, so that nothing
# but the check is counted.
sharing_memory() {
	local numbers
	if ! numbers=$(
		psql_in bench <<-END
			\o /dev/null
			SELECT ndrs_optout.share_eligible(9990000018, 'direct_care', '{cancer}');
			\o
			SELECT rss, contexts FROM bench.memory_now() \gset before_
			SELECT bench.start_clock() \g /dev/null
			SELECT ndrs_optout.share_eligible(9990000018, 'research', '{cancer}') \g /dev/null
			SELECT * FROM bench.read_clock() \gset
			SELECT rss, contexts FROM bench.memory_now() \gset after_
			SELECT :wall_us, :cpu_us, :after_rss - :before_rss, :after_contexts - :before_contexts;
		END
	); then
		fail "sharing, memory of a check of $1"
	else
		in_bench "INSERT INTO bench.check_memory SELECT $1, ${numbers//|/, }"
	fi
}

# Checks of several sizes, one after the other: each goes before the next one comes.
sharing_checks() {
	local asked check run
	for asked in "${share_checks[@]}"; do
		in_bench "CREATE TABLE bench.asked AS
		              SELECT row_number() OVER () AS id, n AS number
		                  FROM bench.numbers(CASE WHEN $asked > 100000 THEN 100000000 ELSE 800000 END, $asked) AS n;
		          ANALYZE bench.asked" || return
		check=$(sharing_check "SELECT number FROM bench.asked" \
			"SELECT lpad(number::text, 10, ''0'') || '','' FROM bench.asked WHERE id % 20 <> 0") || return
		echo "  sharing: check of $asked" >&2
		for ((run = 1; run <= runs; run++)); do
			sharing_memory "$asked"
		done
		in_bench "SELECT ndrs_optout.cancel_national_check($check); DROP TABLE bench.asked" >/dev/null || return
	done
}

stage_sharing() {
	local workers label cases=()
	need_list "$list" && sharing_tables || return
	in_bench "CREATE TABLE bench.check_run (asked bigint, allowed bigint, start_us float8, load_us float8, peak bigint);
	          CREATE TABLE bench.check_memory (asked bigint, wall_us float8, cpu_us float8, rss bigint, contexts bigint);
	          CREATE FUNCTION bench.peak_memory(OUT rss bigint) LANGUAGE sql AS \$\$
	              SELECT (substring(s FROM 'VmHWM:\s*(\d+) kB')::bigint - substring(s FROM 'RssShmem:\s*(\d+) kB')::bigint) * 1024
	                  FROM pg_read_file('/proc/self/status') AS s
	          \$\$;
	          CREATE FUNCTION bench.memory_now(OUT rss bigint, OUT contexts bigint) LANGUAGE sql AS \$\$
	              SELECT substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s*(\d+) kB')::bigint * 1024,
	                     (SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'ndrs_optout%')
	          \$\$" || return
	sharing_checks || return
	sharing_check "SELECT number FROM bench.opted_out UNION ALL SELECT number FROM peer.allowed" \
		"SELECT lpad(number::text, 10, ''0'') || '','' FROM peer.allowed" >/dev/null || return
	sharing_eligible=$(in_bench "SELECT count(*) FROM bench.shared JOIN peer.allowed USING (number)") || return
	sharing_eligible_few=$(in_bench "SELECT count(*) FROM bench.shared_few JOIN peer.allowed USING (number)") || return
	for workers in 0 2; do
		for label in "${sharing_labels[@]}"; do
			cases+=("$workers/$label")
		done
	done
	interleaved sharing "${cases[@]}"
}

table_sharing() {
	print_table "Sharing: ns per row (wall), $share_rows rows of $((share_rows / 5)) patients, $share_opted_out opted out nationally, list of $list" "
		SELECT s.label AS \"WHERE\", bench.shown(s.wall_ns) AS serial, bench.shown(s.cpu_ns) AS \"serial, CPU\", s.spread,
		       bench.shown(s.cpu_ns / noop) AS \"times a no-op\",
		       bench.shown(s.cpu_ns / ours) AS \"times share_eligible() of bigint\",
		       bench.shown(p.wall_ns) AS \"two workers\", bench.shown(s.wall_ns / p.wall_ns) AS \"times as fast\"
		    FROM bench.median s JOIN bench.median p ON p.label = s.label AND p.stage = 'sharing 2',
		         bench.cpu_ns('sharing 0', 'no-op C function') AS noop,
		         bench.cpu_ns('sharing 0', 'share_eligible() of bigint') AS ours
		    WHERE s.stage = 'sharing 0' ORDER BY s.position" || return
	print_table "National check: the round trip, and a backend's first look-up; one in twenty opted out" "
		SELECT r.asked, bench.shown(r.start_us / 1e6) AS \"start, s\", bench.shown(r.load_us / 1e6) AS \"load, s\",
		       bench.shown(r.peak / 1e6) AS \"memory for that, MB\",
		       bench.shown(m.wall_us / 1000) AS \"first look-up, ms\", bench.shown(m.cpu_us / 1000) AS \"CPU, ms\",
		       bench.shown(m.contexts / 1e6) AS \"memory contexts, MB\", bench.shown(m.rss / 1e6) AS \"anonymous memory, MB\",
		       bench.shown(m.contexts / r.asked) AS \"bytes a number\"
		    FROM bench.check_run r
		         JOIN (SELECT asked, percentile_cont(0.5) WITHIN GROUP (ORDER BY wall_us) AS wall_us,
		                      percentile_cont(0.5) WITHIN GROUP (ORDER BY cpu_us) AS cpu_us,
		                      percentile_cont(0.5) WITHIN GROUP (ORDER BY contexts) AS contexts,
		                      percentile_cont(0.5) WITHIN GROUP (ORDER BY rss) AS rss
		                   FROM bench.check_memory GROUP BY asked) m USING (asked)
		    ORDER BY r.asked" || return
	say "Only share_eligible(), share_summary() and the join with the allowed refuse a patient who was never asked about. Workers read the sets for themselves, and CPU is the leader's only: hence wall time. Two workers and the leader share $(nproc) cores with whatever else runs."
}
