# shellcheck shell=bash disable=SC2154
#
# memory: what a backend keeps after its first look-up in a list, and how long that
# look-up takes.

# memory LIST: a session of its own, which has looked something up in an empty list
# before, so that the library and the catalogue caches are not counted.
memory() {
	local numbers
	if ! numbers=$(
		psql_in bench <<-END
			\o /dev/null
			SELECT ndrs_optout.is_excluded(9990000018, 'cancer');
			\o
			SELECT rss, contexts FROM bench.memory() \gset before_
			SELECT bench.start_clock() \g /dev/null
			SELECT ndrs_optout.is_excluded(9990000018, 'list_$1') \g /dev/null
			SELECT * FROM bench.read_clock() \gset
			SELECT rss, contexts FROM bench.memory() \gset after_
			SELECT :wall_us, :cpu_us, :after_rss - :before_rss, :after_contexts - :before_contexts;
		END
	); then
		fail "memory, $1"
	else
		in_bench "INSERT INTO bench.memory_run SELECT $1, ${numbers//|/, }"
	fi
}

stage_memory() {
	local size
	in_bench "CREATE TABLE bench.memory_run (list bigint, wall_us float8, cpu_us float8, rss bigint, contexts bigint);
	          CREATE FUNCTION bench.memory(OUT rss bigint, OUT contexts bigint) LANGUAGE sql AS \$\$
	              SELECT substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s*(\d+) kB')::bigint * 1024,
	                     (SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'ndrs_optout%')
	          \$\$" || return
	for size in "${lists[@]}"; do
		need_list "$size" || return
	done
	interleaved memory "${lists[@]}"
}

table_memory() {
	print_table "Memory of a backend after its first look-up in a list" "
		SELECT list AS members, (SELECT bench.shown(l.load_us / 1e6) FROM bench.list l WHERE l.size = list) AS \"INSERT of all, s\",
		       bench.shown(percentile_cont(0.5) WITHIN GROUP (ORDER BY wall_us) / 1000) AS \"first look-up, ms\",
		       bench.shown(percentile_cont(0.5) WITHIN GROUP (ORDER BY cpu_us) / 1000) AS \"CPU, ms\",
		       bench.shown(percentile_cont(0.5) WITHIN GROUP (ORDER BY contexts) / 1e6) AS \"memory contexts, MB\",
		       bench.shown(percentile_cont(0.5) WITHIN GROUP (ORDER BY rss) / 1e6) AS \"anonymous memory, MB\",
		       bench.shown(percentile_cont(0.5) WITHIN GROUP (ORDER BY contexts) / list) AS \"bytes a member\"
		    FROM bench.memory_run GROUP BY list ORDER BY list"
}
