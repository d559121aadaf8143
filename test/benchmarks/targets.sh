# shellcheck shell=bash disable=SC2154
#
# targets: what the project set out to reach, beside what was measured.  A line for
# each that this run can tell; no time fails a run.  None is met or missed that is as near to its target as
# the run's median spread, a ratio as twice that.  Memory and sizes have none.

table_targets() {
	print_table "Targets" "
		WITH target (what, measured, bound, unit) AS (VALUES
		    ('encoding of a bigint, added to the column alone', bench.cpu_ns('encoding', 'encode_nhs_number() of bigint')
		         - bench.cpu_ns('encoding', 'column alone'), '<= 160', 'ns'),
		    ('encoding, times cheaper than pgcrypto hmac()',
		         (bench.cpu_ns('encoding', 'pgcrypto hmac() of bigint') - bench.cpu_ns('encoding', 'column alone'))
		         / (bench.cpu_ns('encoding', 'encode_nhs_number() of bigint') - bench.cpu_ns('encoding', 'column alone')), '>= 5', 'x'),
		    ('membership, list of $list, miss: times a no-op (encoded_set @> of encoded column)',
		         (SELECT s.ns FROM bench.slope($list, 1) s WHERE s.label = 'encoded_set @> of encoded column')
		         / (SELECT s.ns FROM bench.slope($list, 1) s WHERE s.label = 'no-op C function'), '<= 3', 'x'),
		    ('membership, list of $list, miss: times cheaper than an index probe (encoded_set @> of encoded column)',
		         (SELECT s.ns FROM bench.slope($list, 1) s WHERE s.label = 'EXISTS, index probe')
		         / (SELECT s.ns FROM bench.slope($list, 1) s WHERE s.label = 'encoded_set @> of encoded column'), '>= 5', 'x'),
		    ('membership, list of $large_list, miss: added to a no-op (encoded_set @> of encoded column)',
		         (SELECT s.ns FROM bench.slope($large_list, 1) s WHERE s.label = 'encoded_set @> of encoded column')
		         - (SELECT s.ns FROM bench.slope($large_list, 1) s WHERE s.label = 'no-op C function'), '<= 25', 'ns'),
		    ('membership, list of $large_list: bytes per member of an encoded_set', $(size_target "$large_list"), '<= 21', 'bytes'),
		    ('COPY, guard with trigger, bare table: times an empty C trigger',
		         bench.cpu_ns('guard bare', 'guard, both, reject') / bench.cpu_ns('guard bare', 'empty C trigger'), '<= 1.25', 'x'),
		    ('the same, its trigger alone',
		         bench.cpu_ns('guard bare', 'guard, its trigger alone') / bench.cpu_ns('guard bare', 'empty C trigger'), '<= 1.25', 'x'),
		    ('COPY, guard with trigger, indexes: times an empty C trigger',
		         bench.cpu_ns('guard keyed', 'guard, both, reject') / bench.cpu_ns('guard keyed', 'empty C trigger'), '<= 1.10', 'x'),
		    ('COPY, guard with trigger, bare table: added cost, times cheaper than PL/pgSQL with pgcrypto',
		         (bench.cpu_ns('guard bare', 'PL/pgSQL trigger, pgcrypto hmac') - bench.cpu_ns('guard bare', 'nothing'))
		         / (bench.cpu_ns('guard bare', 'guard, both, reject') - bench.cpu_ns('guard bare', 'nothing')), '>= 5', 'x'),
		    ('COPY, constraint, bare table: times nothing',
		         bench.cpu_ns('guard bare', 'guard, constraint') / bench.cpu_ns('guard bare', 'nothing'), '<= 1.40', 'x'),
		    ('COPY, constraint, indexes: times nothing',
		         bench.cpu_ns('guard keyed', 'guard, constraint') / bench.cpu_ns('guard keyed', 'nothing'), '<= 1.15', 'x'),
		    ('COPY during ten opt-outs a second: throughput of that without (wall)',
		         bench.wall_ns('churn', 'guard, both, alone') / bench.wall_ns('churn', 'guard, both, during opt-outs'), '>= 0.8', 'x'),
		    ('looking through rows, list of $large_list, raw number (wall)',
		         bench.wall_ns('sweep $large_list 0', 'count(*) WHERE is_excluded() of bigint'), '<= 210', 'ns'),
		    ('the same, two workers: times as fast (wall)',
		         bench.wall_ns('sweep $large_list 0', 'count(*) WHERE is_excluded() of bigint')
		         / bench.wall_ns('sweep $large_list 2', 'count(*) WHERE is_excluded() of bigint'), '>= 1.7', 'x'),
		    ('sharing, $share_opted_out opted out nationally, bigint (wall)',
		         bench.wall_ns('sharing 0', 'share_eligible() of bigint'), '<= 210', 'ns'),
		    ('the same, text (wall)', bench.wall_ns('sharing 0', 'share_eligible() of text'), '<= 210', 'ns'),
		    ('sharing, bigint: the fastest of the others, times it',
		         (SELECT min(m.cpu_ns) FROM bench.median m WHERE m.stage = 'sharing 0' AND m.label LIKE ANY ('{%join%numbers,%join%hmac%,NOT IN%,PL/pgSQL%}'))
		         / bench.cpu_ns('sharing 0', 'share_eligible() of bigint'), '>= 1', 'x'),
		    ('sharing, bigint, two workers: times as fast (wall)',
		         bench.wall_ns('sharing 0', 'share_eligible() of bigint') / bench.wall_ns('sharing 2', 'share_eligible() of bigint'), '>= 1.7', 'x'),
		    ('sharing, encoded column: times a no-op C function',
		         bench.cpu_ns('sharing 0', 'share_eligible() of encoded column') / bench.cpu_ns('sharing 0', 'no-op C function'), '<= 2', 'x'),
		    $(check_targets)
		    ('sweep: times count(*) WHERE is_excluded()', bench.cpu_ns('sweep $list 0', 'CALL sweep()')
		         / bench.cpu_ns('sweep $list 0', 'count(*) WHERE is_excluded() of bigint'), '<= 1.5', 'x'),
		    ('erasure of one more patient, indexes: times DELETEs by hand', bench.cpu_ns('erasure indexed further', 'erase()')
		         / bench.cpu_ns('erasure indexed further', 'DELETEs by hand'), '<= 1.5', 'x'),
		    ('erasure of $erasure_many patients together, indexes: times DELETEs by hand', bench.cpu_ns('erasure indexed many', 'erase()')
		         / bench.cpu_ns('erasure indexed many', 'DELETEs by hand'), '<= 1.3', 'x'),
		    ('erasure of a patient with rows in each of ${partition_counts[-1]} partitions: times DELETEs by hand',
		         bench.cpu_ns('partitions ${partition_counts[-1]} all', 'erase()')
		         / bench.cpu_ns('partitions ${partition_counts[-1]} all', 'DELETEs by hand'), '<= 3', 'x'),
		    ('memory of a backend, list of $list', $(memory_target "$list"), '<= 3', 'MB'),
		    ('memory of a backend, list of $large_list', $(memory_target "$large_list"), '<= 80', 'MB'))
		, this_run (spread) AS (
		    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY nullif(rtrim(m.spread, ' %'), '')::float8) / 100 FROM bench.median m)
		SELECT what, bound || ' ' || unit AS target, bench.shown(measured) || ' ' || unit AS measured,
		       CASE WHEN abs(measured / substr(bound, 4)::float8 - 1) <= margin THEN 'within the spread'
		            WHEN (measured < substr(bound, 4)::float8) = (bound LIKE '<=%') THEN 'yes' ELSE 'no' END AS met
		    FROM target, this_run,
		         LATERAL (SELECT CASE unit WHEN 'x' THEN 2 WHEN 'ns' THEN 1 WHEN 's' THEN 1 ELSE 0 END * this_run.spread) AS m (margin)
		    WHERE measured IS NOT NULL"
}

size_target() {
	if [[ " ${stages[*]} " == *" membership "* ]]; then
		echo "(SELECT pg_column_size(members) / size::float8 FROM peer.sets WHERE size = $1)"
	else
		echo "NULL::float8"
	fi
}

# What there is to say of national checks, each line with its comma.
check_targets() {
	if [[ " ${stages[*]} " == *" sharing "* ]]; then
		cat <<-'END'
			('national check of 10 million: load', (SELECT load_us / 1e6 FROM bench.check_run WHERE asked = 10000000), '<= 60', 's'),
			('the same: memory for that', (SELECT peak / 1e6 FROM bench.check_run WHERE asked = 10000000), '<= 1000', 'MB'),
			('memory of a backend, national check of 3600000', (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY contexts) / 1e6
			     FROM bench.check_memory WHERE asked = 3600000), '<= 80', 'MB'),
		END
	fi
}

memory_target() {
	if [[ " ${stages[*]} " == *" memory "* ]]; then
		echo "(SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY contexts) / 1e6 FROM bench.memory_run WHERE list = $1)"
	else
		echo "NULL::float8"
	fi
}
