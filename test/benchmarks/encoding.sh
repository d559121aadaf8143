# shellcheck shell=bash disable=SC2154
#
# encoding: what it costs to encode a number, in a query over a table in memory.

encoding_labels=(
	"column alone"
	"no-op C function"
	"sha256() of text, no key"
	"pgcrypto hmac() of text"
	"pgcrypto hmac() of bigint"
	"encode_nhs_number() of nhs_number"
	"encode_nhs_number() of bigint"
)
declare -A encoding_expressions=(
	["column alone"]="number"
	["no-op C function"]="bench.same(number)"
	["sha256() of text, no key"]="sha256(digits::bytea)"
	["pgcrypto hmac() of text"]="hmac(digits::bytea, '\\x$(printf '%064d' 7)'::bytea, 'sha256')"
	["pgcrypto hmac() of bigint"]="hmac(number::text::bytea, '\\x$(printf '%064d' 7)'::bytea, 'sha256')"
	["encode_nhs_number() of nhs_number"]="ndrs_optout.encode_nhs_number(nhs_number)"
	["encode_nhs_number() of bigint"]="ndrs_optout.encode_nhs_number(number::ndrs_optout.nhs_number)"
)

encoding() {
	timed encoding "$1" "$probes" "SELECT count(ndrs_optout.encode_nhs_number(nhs_number)) FROM bench.sample;" \
		"SELECT count(${encoding_expressions[$1]}) FROM bench.sample;" "" "$probes"
}

stage_encoding() {
	in_bench "CREATE TABLE bench.sample AS
	              SELECT n AS number, n::text AS digits, n::ndrs_optout.nhs_number AS nhs_number
	                  FROM bench.patients($probes) AS n;
	          VACUUM ANALYZE bench.sample" || return
	interleaved encoding "${encoding_labels[@]}"
}

table_encoding() {
	print_table "Encoding: ns per number, $probes distinct numbers" "
		SELECT label AS \"count(...) over\", bench.shown(wall_ns) AS wall, bench.shown(cpu_ns) AS \"CPU\", spread,
		       bench.shown(cpu_ns - base) AS \"of it, the expression\",
		       bench.shown((cpu_ns - base) / nullif(ours - base, 0)) AS \"times encode_nhs_number() of bigint\"
		    FROM bench.median, bench.cpu_ns('encoding', 'column alone') AS base,
		         bench.cpu_ns('encoding', 'encode_nhs_number() of bigint') AS ours
		    WHERE stage = 'encoding' ORDER BY position"
}
