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
	"exclusion_set @> of nhs_number"
	"exclusion_set @> of encoded column"
	"EXISTS, index probe"
	"EXISTS, hash join"
	"PL/pgSQL function, index probe"
	"NOT IN, hashed"
	"= ANY (array), hashed"
	"hstore ?"
	"intarray @>"
)

# membership_statement LABEL LIST PROBE: PROBE is a table or a subquery.  Numbers fit
# intarray without their check digits.
membership_statement() {
	local list=$2 probe=$3 where
	case $1 in
		"column alone") where="number < 0" ;;
		"no-op C function") where="bench.is_false(number)" ;;
		"is_excluded() of bigint") where="ndrs_optout.is_excluded(number, 'list_$list')" ;;
		"is_excluded() of nhs_number") where="ndrs_optout.is_excluded(nhs_number, 'list_$list')" ;;
		"exclusion_set @> of nhs_number")
			where="(SELECT s.members FROM peer.sets s WHERE s.size = $list)
			           OPERATOR(ndrs_optout.@>) ndrs_optout.encode_nhs_number(nhs_number)"
			;;
		"exclusion_set @> of encoded column")
			where="(SELECT s.members FROM peer.sets s WHERE s.size = $list) OPERATOR(ndrs_optout.@>) encoded"
			;;
		EXISTS*) where="EXISTS (SELECT FROM peer.list_$list l WHERE l.number = p.number)" ;;
		"PL/pgSQL function, index probe") where="peer.listed_$list(number)" ;;
		"NOT IN, hashed") where="NOT (number NOT IN (SELECT l.number FROM peer.list_$list l))" ;;
		"= ANY (array), hashed")
			echo "SELECT peer.count_in_array($list, \$probe\$ $probe \$probe\$)"
			return
			;;
		# Put together for the query, the value is in memory and not in TOAST.
		"hstore ?") where="(SELECT l.digits || ''::hstore FROM peer.lists l WHERE l.size = $list) ? number::text" ;;
		"intarray @>")
			where="(SELECT l.nines FROM peer.lists l WHERE l.size = $list) @> ARRAY[(number / 10)::integer]"
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
		"EXISTS, hash join") echo "SET enable_nestloop = off; SET enable_mergejoin = off" ;;
	esac
}

# How many are looked up.
membership_units() {
	if [ "$1" = "intarray @>" ]; then
		echo $((2000000 / $2 > 10 ? 2000000 / $2 : 10))
	else
		echo "$probes"
	fi
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
		"$(membership_statement "$label" "$list" "$probe");" "" "$expected"
}

declare -A membership_expected

membership_prepare() {
	local list=$1 hits found label units
	need_list "$list" || return
	in_bench "INSERT INTO peer.lists SELECT $list, array_agg((number / 10)::integer ORDER BY number), array_agg(number),
	              hstore(array_agg(number::text), array_agg(''::text)) FROM peer.list_$list" || return
	if [ "$has_set" = t ]; then
		in_bench "INSERT INTO peer.sets SELECT $list, ndrs_optout.exclusion_set_agg(e.encoded_nhs_number)
		              FROM ndrs_optout.exclusion e WHERE e.register = 'list_$list'" || return
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
		units=$(membership_units "intarray @>" "$list")
		membership_expected[$list/$hits/$units]=$(in_bench "
			SELECT count(*) FROM (SELECT * FROM bench.probe_${list}_$hits LIMIT $units) p JOIN peer.list_$list l USING (number)")
	done
	membership_expected[$list/0/1]=$(in_bench "
		SELECT count(*) FROM (SELECT * FROM bench.probe_${list}_1 LIMIT 1) p JOIN peer.list_$list l USING (number)")
}

stage_membership() {
	local list label hits cases=()
	has_set=$(in_bench "SELECT to_regtype('ndrs_optout.exclusion_set') IS NOT NULL") || return
	in_bench "CREATE TABLE peer.lists (size bigint, nines integer[], numbers bigint[], digits hstore);
	          CREATE FUNCTION peer.count_in_array(list bigint, probe text) RETURNS bigint LANGUAGE plpgsql AS \$\$
	          DECLARE
	              members bigint[] := (SELECT l.numbers FROM peer.lists l WHERE l.size = list);
	              found bigint;
	          BEGIN  -- the planner hashes an array that it knows
	              EXECUTE format('SELECT count(*) FROM %s p WHERE number = ANY (\$1)', probe) INTO found USING members;
	              RETURN found;
	          END
	          \$\$" || return
	if [ "$has_set" = t ]; then
		in_bench "CREATE TABLE peer.sets (size bigint, members ndrs_optout.exclusion_set)" || return
	fi
	for list in "${lists[@]}"; do
		membership_prepare "$list" || return
		for hits in 0 1 500; do
			for label in "${membership_labels[@]}"; do
				if [[ $label != exclusion_set* ]] || [ "$has_set" = t ]; then
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
		       $([ "${has_set:-f}" = t ] && echo ", (SELECT bench.shown(pg_column_size(s.members) / l.size::float8)
		             FROM peer.sets s WHERE s.size = l.size) AS exclusion_set")
		    FROM bench.list l JOIN peer.lists p USING (size) ORDER BY l.size" || return
	say "\"-\" among the look-ups: they drown in the set-up. pg_roaringbitmap would be another peer; Debian has no package of it."
}
