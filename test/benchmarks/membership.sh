# shellcheck shell=bash disable=SC2154
#
# membership: what a look-up costs, and how much room a member takes.
#
# Each query counts how many of a table of numbers are on a list, and is run over
# all of them and over one, so that what is set up once per query (a hash table, a
# value brought in from TOAST) is told from what a look-up costs.  Our list is set
# up once per backend, before: stage "memory" measures that.  The slow ones look
# fewer numbers up.

membership_labels=(
	"column alone"
	"no-op C function"
	"is_excluded() of bigint"
	"is_excluded() of nhs_number"
	"encoded_set @> of nhs_number"
	"encoded_set @> of encoded column"
	"the same, joined"
	"the same, constant"
	"the same, of encoded_set_agg()"
	"EXISTS, index probe"
	"anti-join, hashed"
	"PL/pgSQL function, index probe"
	"NOT IN, hashed"
	"= ANY (array), hashed"
	"hstore ?"
	"roaringbitmap @>"
	"roaringbitmap64 @>"
	"intarray @>"
)

# membership_statement LABEL LIST PROBE UNITS: PROBE is a table or a subquery with so
# many rows.  Numbers fit intarray and roaringbitmap without their check digits.  What
# is put together for the query is in memory and not in TOAST, from where these
# types would fetch it for each row; an encoded_set is fetched once.
membership_statement() {
	local list=$2 probe=$3 units=$4 where
	case $1 in
		"column alone") where="number < 0" ;;
		"no-op C function") where="bench.is_false(number)" ;;
		"is_excluded() of bigint") where="ndrs_optout.is_excluded(number, 'list_$list')" ;;
		"is_excluded() of nhs_number") where="ndrs_optout.is_excluded(nhs_number, 'list_$list')" ;;
		"encoded_set @> of nhs_number")
			where="(SELECT s.members FROM peer.sets s WHERE s.size = $list)
			           OPERATOR(ndrs_optout.@>) ndrs_optout.encode_nhs_number(nhs_number)"
			;;
		"encoded_set @> of encoded column")
			where="(SELECT s.members FROM peer.sets s WHERE s.size = $list) OPERATOR(ndrs_optout.@>) encoded"
			;;
		"the same, joined")
			echo "SELECT count(*) FROM $probe p JOIN peer.sets s ON s.members OPERATOR(ndrs_optout.@>) p.encoded
			          WHERE s.size = $list"
			return
			;;
		"the same, constant")
			echo "SELECT peer.count_in_set($list, \$probe\$ $probe \$probe\$)"
			return
			;;
		"the same, of encoded_set_agg()")
			where="(SELECT ndrs_optout.encoded_set_agg(e.encoded_nhs_number) FROM ndrs_optout.exclusion e
			            WHERE e.register = 'list_$list') OPERATOR(ndrs_optout.@>) encoded"
			;;
		"EXISTS, index probe") where="EXISTS (SELECT FROM peer.list_$list l WHERE l.number = p.number)" ;;
		"anti-join, hashed")
			echo "SELECT $units - count(*) FROM $probe p
			          WHERE NOT EXISTS (SELECT FROM peer.list_$list l WHERE l.number = p.number)"
			return
			;;
		"PL/pgSQL function, index probe") where="peer.listed_$list(number)" ;;
		"NOT IN, hashed") where="NOT (number NOT IN (SELECT l.number FROM peer.list_$list l))" ;;
		"= ANY (array), hashed")
			echo "SELECT peer.count_in_array($list, \$probe\$ $probe \$probe\$)"
			return
			;;
		"hstore ?") where="(SELECT l.digits || ''::hstore FROM peer.lists l WHERE l.size = $list) ? number::text" ;;
		"intarray @>")
			where="(SELECT l.nines || '{}'::integer[] FROM peer.lists l WHERE l.size = $list)
			           @> ARRAY[(number / 10)::integer]"
			;;
		"roaringbitmap @>")
			where="(SELECT b.nines | '{}'::roaringbitmap FROM peer.bitmaps b WHERE b.size = $list)
			           @> (number / 10)::integer"
			;;
		"roaringbitmap64 @>")
			where="(SELECT b.numbers | '{}'::roaringbitmap64 FROM peer.bitmaps b WHERE b.size = $list) @> number"
			;;
	esac
	echo "SELECT count(*) FROM $probe p WHERE $where"
}

membership_setup() {
	case $1 in
		is_excluded*) echo "SELECT ndrs_optout.is_excluded(9990000018, 'list_$2')" ;;
		"EXISTS, index probe")
			echo "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
			      SET enable_hashagg = off; SET enable_sort = off; SET enable_memoize = off"
			;;
		"anti-join, hashed") echo "SET enable_nestloop = off; SET enable_mergejoin = off" ;;
	esac
}

# How many are looked up.
membership_units() {
	case $1 in
		"intarray @>") echo $((2000000 / $2 > 10 ? 2000000 / $2 : 10)) ;;
		roaringbitmap*) echo $((probes / 10)) ;;
		*) echo "$probes" ;;
	esac
}

# membership LIST/HITS/LABEL, HITS in a thousand; 0 is the query over one.
membership() {
	local label=${1#*/*/} list=${1%%/*} hits=${1#*/} probe units expected
	hits=${hits%%/*}
	if [ "$hits" -eq 0 ]; then
		units=1
		probe=bench.probe_${list}_1
	else
		units=$(membership_units "$label" "$list")
		probe=bench.probe_${list}_$hits
	fi
	# In a form that the planner does not see through, so that it plans for many.
	if [ "$units" -lt "$probes" ]; then
		probe="(SELECT * FROM $probe LIMIT (SELECT $units))"
	fi
	case $label in
		"column alone" | "no-op C function") expected=0 ;;
		*) expected=${membership_expected[$list/$hits/$units]} ;;
	esac
	timed "membership $list $hits" "$label" "$units" "$(membership_setup "$label" "$list");" \
		"$(membership_statement "$label" "$list" "$probe" "$units");" "" "$expected"
}

declare -A membership_expected

# membership_expect LIST HITS UNITS: how many of the first UNITS are on the list.
membership_expect() {
	local list=$1 hits=$2 units=$3
	membership_expected[$list/$hits/$units]=$(in_bench "
		SELECT count(*) FROM (SELECT * FROM bench.probe_${list}_$((hits > 0 ? hits : 1)) LIMIT $units) p
		    JOIN peer.list_$list l USING (number)")
}

membership_prepare() {
	local list=$1 hits found label
	need_list "$list" || return
	in_bench "INSERT INTO peer.lists SELECT $list, array_agg((number / 10)::integer ORDER BY number), array_agg(number),
	              hstore(array_agg(number::text), array_agg(''::text)) FROM peer.list_$list" || return
	in_bench "INSERT INTO peer.sets SELECT $list, ndrs_optout.encoded_set_agg(e.encoded_nhs_number)
	              FROM ndrs_optout.exclusion e WHERE e.register = 'list_$list'" || return
	if [ "$has_roaringbitmap" = t ]; then
		in_bench "INSERT INTO peer.bitmaps SELECT size, rb_build(nines), rb64_build(numbers)
		              FROM peer.lists WHERE size = $list" || return
	fi
	for hits in 1 500; do
		found=$((probes * hits / 1000))
		in_bench "CREATE TABLE bench.probe_${list}_$hits AS
		              SELECT n AS number, n::ndrs_optout.nhs_number AS nhs_number,
		                     ndrs_optout.encode_nhs_number(n::ndrs_optout.nhs_number) AS encoded
		                  FROM (SELECT n FROM (SELECT l.number FROM generate_series(0, $((found / list))), peer.list_$list l
		                                           LIMIT $found) h (n)
		                        UNION ALL SELECT bench.numbers(50000000, $((probes - found)))) u
		                  ORDER BY random();
		          VACUUM (ANALYZE) bench.probe_${list}_$hits" || return
		membership_expected[$list/$hits/$probes]=$found
		for label in "intarray @>" "roaringbitmap @>"; do
			membership_expect "$list" "$hits" "$(membership_units "$label" "$list")" || return
		done
	done
	membership_expect "$list" 0 1
}

stage_membership() {
	local list label hits cases=()
	has_roaringbitmap=$(in_bench "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'roaringbitmap'") || return
	in_bench "CREATE TABLE peer.sets (size bigint, members ndrs_optout.encoded_set);
	          CREATE FUNCTION peer.count_in_set(list bigint, probe text) RETURNS bigint LANGUAGE plpgsql AS \$\$
	          DECLARE
	              members ndrs_optout.encoded_set := (SELECT s.members FROM peer.sets s WHERE s.size = list);
	              found bigint;
	          BEGIN
	              EXECUTE format('SELECT count(*) FROM %s p WHERE \$1 OPERATOR(ndrs_optout.@>) p.encoded', probe)
	                  INTO found USING members;
	              RETURN found;
	          END
	          \$\$;
	          CREATE TABLE peer.lists (size bigint, nines integer[], numbers bigint[], digits hstore);
	          CREATE FUNCTION peer.count_in_array(list bigint, probe text) RETURNS bigint LANGUAGE plpgsql AS \$\$
	          DECLARE
	              members bigint[] := (SELECT l.numbers FROM peer.lists l WHERE l.size = list);
	              found bigint;
	          BEGIN  -- the planner hashes an array that it knows
	              EXECUTE format('SELECT count(*) FROM %s p WHERE number = ANY (\$1)', probe) INTO found USING members;
	              RETURN found;
	          END
	          \$\$" || return
	if [ "$has_roaringbitmap" = t ]; then
		in_bench "CREATE EXTENSION roaringbitmap SCHEMA public;
		          CREATE TABLE peer.bitmaps (size bigint, nines roaringbitmap, numbers roaringbitmap64)" || return
	fi
	for list in "${lists[@]}"; do
		membership_prepare "$list" || return
		for hits in 0 1 500; do
			for label in "${membership_labels[@]}"; do
				if [[ $label != roaringbitmap* ]] || [ "$has_roaringbitmap" = t ]; then
					cases+=("$list/$hits/$label")
				fi
			done
		done
	done
	interleaved membership "${cases[@]}"
}

table_membership() {
	local list
	for list in "${lists[@]}"; do
		print_table "Membership in a list of $list: ns per look-up (CPU, $probes numbers in random order)" "
			SELECT f.label, bench.shown(s.cpu_us / 1000) AS \"set-up, ms a query\",
			       bench.shown(f.ns) AS \"0.1 % hits\", f.spread,
			       bench.shown(h.ns) AS \"50 % hits\", bench.shown(f.ns / nullif(noop.ns, 0)) AS \"times a no-op\",
			       bench.shown(f.ns / nullif(ours.ns, 0)) AS \"times is_excluded()\"
			    FROM bench.slope($list, 1) f
			         JOIN bench.slope($list, 500) h USING (label)
			         JOIN bench.median s ON s.stage = 'membership $list 0' AND s.label = f.label
			         LEFT JOIN bench.slope($list, 1) ours ON ours.label = 'is_excluded() of nhs_number'
			         LEFT JOIN bench.slope($list, 1) noop ON noop.label = 'no-op C function'
			    ORDER BY f.position" || return
	done
	print_table "Bytes per member, without the text that names the list" "
		SELECT l.size AS members,
		       bench.shown(pg_total_relation_size('peer.list_' || l.size) / l.size::float8) AS \"plain table with index\",
		       bench.shown(pg_relation_size('peer.list_' || l.size || '_pkey') / l.size::float8) AS \"its index\",
		       bench.shown(pg_column_size(p.nines) / l.size::float8) AS intarray,
		       bench.shown(pg_column_size(p.digits) / l.size::float8) AS \"hstore (compressed)\"
		       $([ "${has_roaringbitmap:-f}" = t ] && echo ", (SELECT bench.shown(pg_column_size(b.nines) / l.size::float8)
		             FROM peer.bitmaps b WHERE b.size = l.size) AS roaringbitmap,
		           (SELECT bench.shown(pg_column_size(b.numbers) / l.size::float8)
		             FROM peer.bitmaps b WHERE b.size = l.size) AS roaringbitmap64"),
		       (SELECT bench.shown(pg_column_size(s.members) / l.size::float8) FROM peer.sets s WHERE s.size = l.size)
		           AS encoded_set
		    FROM bench.list l JOIN peer.lists p USING (size) ORDER BY l.size" || return
	say "\"-\" among the look-ups: they drown in the set-up."
	if [ "${has_roaringbitmap:-f}" != t ]; then
		say "pg_roaringbitmap is not installed on this server, and Debian has no package of it: it is left out."
	fi
}
