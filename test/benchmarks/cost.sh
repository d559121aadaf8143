# shellcheck shell=bash disable=SC2154
#
# cost: instructions instead of time, counted once by test/cost: nothing else on the
# machine changes them.

stage_cost() {
	local counts=$work/log/cost.tsv options=(--build "$build" --table)
	[ "$size" = quick ] || options+=(--full)
	in_bench "CREATE TABLE bench.cost (position integer GENERATED ALWAYS AS IDENTITY, what text, instructions float8, libcrypto float8)" &&
		"$top/test/cost" "${options[@]}" >"$counts" &&
		psql_in bench -c 'COPY bench.cost (what, instructions, libcrypto) FROM STDIN' <"$counts"
}

table_cost() {
	print_table "Counted: instructions" "
		SELECT what, bench.shown(instructions) AS instructions, bench.shown(libcrypto) AS \"libcrypto's\"
		    FROM bench.cost ORDER BY position" || return
	say "Each is the difference of two sizes of the same work. What libcrypto adds stands apart: callgrind's processor has no instructions for SHA-256."
}
