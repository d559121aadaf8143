# shellcheck shell=bash disable=SC2154
#
# partitions: the erasure of a patient with one row, and of one with rows in every
# partition, from a partitioned table and one below it, by the number of partitions.
# And a sweep with nothing to erase.
#
# Each is a further one of its session, and rolled back.

partitions_labels=(
	"DELETEs by hand"
	"erase()"
)

partitions_schema() {
	in_bench "
		CREATE SCHEMA partitions_$1;
		SET search_path = partitions_$1;
		CREATE TABLE event (part int, event_id int, nhs_number bigint, PRIMARY KEY (part, event_id)) PARTITION BY LIST (part);
		CREATE TABLE result (part int, result_id int, event_id int, PRIMARY KEY (part, result_id),
		    FOREIGN KEY (part, event_id) REFERENCES event) PARTITION BY LIST (part);
		CREATE INDEX ON event (nhs_number);
		CREATE INDEX ON result (part, event_id);
		DO \$\$ BEGIN
		    FOR i IN 1 .. $1 LOOP
		        EXECUTE format('CREATE TABLE event_%1\$s PARTITION OF event FOR VALUES IN (%1\$s)', i);
		        EXECUTE format('CREATE TABLE result_%1\$s PARTITION OF result FOR VALUES IN (%1\$s)', i);
		    END LOOP;
		END \$\$;
		INSERT INTO event
		    SELECT p, n.i, n.number
		        FROM generate_series(1, $1) AS p,
		            (SELECT row_number() OVER () AS i, number FROM bench.patients($partition_rows) AS number) AS n
		        WHERE n.i > 2 OR p = 1;
		INSERT INTO result SELECT part, event_id * 3 + i, event_id FROM event, generate_series(0, 2) AS i;
		ANALYZE event, result;
		INSERT INTO ndrs_optout.register VALUES ('partitions_$1', 'partitions_$1');
		SELECT ndrs_optout.guard_table('event', 'nhs_number', '{partitions_$1}')" >/dev/null
}

# partitions_erasure LABEL PARTITIONS NUMBER
partitions_erasure() {
	case $1 in
		"DELETEs by hand")
			echo "DELETE FROM result USING event WHERE result.part = event.part AND result.event_id = event.event_id
			          AND event.nhs_number = $3;
			      DELETE FROM event WHERE nhs_number = $3;"
			;;
		"erase()") echo "SELECT count(*) FROM ndrs_optout.erase('$3', '{partitions_$2}');" ;;
	esac
}

# partitions PARTITIONS/WHICH/LABEL.  The patients are those with the first numbers: two with
# one row each, and those with one in each partition.
partitions() {
	local parts=${1%%/*} which=${1#*/} label=${1##*/} rows=1 number=${partition_numbers[0]}
	which=${which%%/*}
	if [ "$which" = sweep ]; then
		timed "partitions $parts sweep" "$label" 1 "SELECT 1;" "CALL ndrs_optout.sweep('partitions_$parts.event');" \
			"SELECT sum(rows_erased) FROM ndrs_optout.sweep_progress;" 0
		return
	fi
	if [ "$which" = all ]; then
		rows=$parts number=${partition_numbers[2]}
	fi
	timed "partitions $parts $which" "$label" 1 \
		"SET search_path = partitions_$parts; BEGIN; $(partitions_erasure "$label" "$parts" "${partition_numbers[1]}")" "\\o /dev/null
		$(partitions_erasure "$label" "$parts" "$number")" "\\o
		SELECT count(*) FROM result;" "$((3 * (parts * (partition_rows - 2) + 2 - 1 - rows)))"
}

stage_partitions() {
	local parts label cases=()
	mapfile -t partition_numbers < <(in_bench "SELECT number FROM bench.patients($partition_rows) AS number LIMIT 3")
	for parts in "${partition_counts[@]}"; do
		partitions_schema "$parts" || return
		for label in "${partitions_labels[@]}"; do
			cases+=("$parts/one/$label" "$parts/all/$label")
		done
		cases+=("$parts/sweep/CALL sweep()")
	done
	interleaved partitions "${cases[@]}"
}

table_partitions() {
	print_table "Partitions of each of two tables: ms, rolled back; $partition_rows rows a partition and three times as many below" "
		SELECT split_part(stage, ' ', 2) AS partitions,
		       CASE split_part(stage, ' ', 3) WHEN 'one' THEN 'a patient with one row, and three below'
		           WHEN 'all' THEN 'a patient with that in each partition' ELSE 'nothing to erase' END AS erasure,
		       label AS by, bench.shown(wall_ns / 1e6) AS wall, bench.shown(cpu_ns / 1e6) AS \"CPU\", spread,
		       bench.shown(cpu_ns / bench.cpu_ns(stage, 'DELETEs by hand')) AS \"times by hand\"
		    FROM bench.median WHERE stage LIKE 'partitions %'
		    ORDER BY split_part(stage, ' ', 2)::int, array_position('{one,all,sweep}', split_part(stage, ' ', 3)), position"
}
