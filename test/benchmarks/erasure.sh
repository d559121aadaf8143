# shellcheck shell=bash disable=SC2154
#
# erasure: everything of one patient, and of many, in a tree of five tables: nine
# drug rows a patient, three levels below the tumour.
#
# Each is rolled back, so all of them meet the same rows.

# erasure_schema NAME ACTION INDEXES: patients with their rows, and the foreign keys.
erasure_schema() {
	local name=$1 action=$2 indexes=$3
	in_bench "
		CREATE SCHEMA $name;
		SET search_path = $name;
		CREATE TABLE patient AS
		    SELECT row_number() OVER () AS patient_id, n AS nhs_number, date '1950-01-01' AS birth_date
		        FROM bench.patients($erasure_patients) AS n;
		CREATE TABLE tumour AS
		    SELECT patient_id AS tumour_id, patient_id, 'C50' AS site, date '2020-01-01' AS diagnosed FROM patient;
		CREATE TABLE regimen AS
		    SELECT tumour_id AS regimen_id, tumour_id, 'FEC' AS name, date '2020-02-01' AS started FROM tumour;
		CREATE TABLE cycle AS
		    SELECT regimen_id * 3 + i AS cycle_id, regimen_id, i AS number FROM regimen, generate_series(0, 2) AS i;
		CREATE TABLE drug AS
		    SELECT cycle_id * 3 + i AS drug_id, cycle_id, 'cyclophosphamide' AS drug_group, 100.0 AS dose
		        FROM cycle, generate_series(0, 2) AS i;
		ALTER TABLE patient ADD PRIMARY KEY (patient_id);
		CREATE INDEX ON patient (nhs_number);
		ALTER TABLE tumour ADD PRIMARY KEY (tumour_id), ADD FOREIGN KEY (patient_id) REFERENCES patient $action;
		ALTER TABLE regimen ADD PRIMARY KEY (regimen_id), ADD FOREIGN KEY (tumour_id) REFERENCES tumour $action;
		ALTER TABLE cycle ADD PRIMARY KEY (cycle_id), ADD FOREIGN KEY (regimen_id) REFERENCES regimen $action;
		ALTER TABLE drug ADD PRIMARY KEY (drug_id), ADD FOREIGN KEY (cycle_id) REFERENCES cycle $action;" || return
	if [ "$indexes" = yes ]; then
		in_bench "SET search_path = $name; CREATE INDEX ON tumour (patient_id); CREATE INDEX ON regimen (tumour_id);
		          CREATE INDEX ON cycle (regimen_id); CREATE INDEX ON drug (cycle_id)" || return
	fi
	in_bench "VACUUM ANALYZE $name.patient, $name.tumour, $name.regimen, $name.cycle, $name.drug"
}

# erasure_by_hand SCHEMA CONDITION: from the bottom up.
erasure_by_hand() {
	echo "DELETE FROM drug USING cycle, regimen, tumour, patient WHERE drug.cycle_id = cycle.cycle_id
	          AND cycle.regimen_id = regimen.regimen_id AND regimen.tumour_id = tumour.tumour_id
	          AND tumour.patient_id = patient.patient_id AND patient.nhs_number $1;
	      DELETE FROM cycle USING regimen, tumour, patient WHERE cycle.regimen_id = regimen.regimen_id
	          AND regimen.tumour_id = tumour.tumour_id AND tumour.patient_id = patient.patient_id AND patient.nhs_number $1;
	      DELETE FROM regimen USING tumour, patient WHERE regimen.tumour_id = tumour.tumour_id
	          AND tumour.patient_id = patient.patient_id AND patient.nhs_number $1;
	      DELETE FROM tumour USING patient WHERE tumour.patient_id = patient.patient_id AND patient.nhs_number $1;
	      DELETE FROM patient WHERE patient.nhs_number $1;"
}

erasure_labels=(
	"DELETEs by hand"
	"ON DELETE CASCADE"
	"erase()"
)

# erasure LAYOUT/WHICH/LABEL.  "first" is the first patient of a session, which has
# nothing in its caches; "further" are some after that one, each by a statement of its
# own; "many" go by one statement, also after that one.
erasure() {
	local layout=${1%%/*} which=${1#*/} label=${1##*/} schema setup='' statement='' patients erased number
	which=${which%%/*}
	schema=erasure_$layout
	[ "$label" != "ON DELETE CASCADE" ] || schema=cascade_$layout
	case $which in
		first)
			patients=1 erased=1
			statement=$(erasure_of_one "$label" "$layout" "${erasure_numbers[0]}")
			;;
		further)
			patients=$((${#erasure_numbers[@]} - 1)) erased=${#erasure_numbers[@]}
			setup=$(erasure_of_one "$label" "$layout" "${erasure_numbers[0]}")
			for number in "${erasure_numbers[@]:1}"; do
				statement+="$(erasure_of_one "$label" "$layout" "$number")"
			done
			;;
		many)
			patients=$((erasure_many - 1)) erased=$erasure_many
			setup=$(erasure_of_one "$label" "$layout" "${erasure_numbers[0]}")
			statement=$(erasure_of_many "$label" "$layout")
			;;
	esac
	timed "erasure $layout $which" "$label" "$patients" "SET search_path = $schema; BEGIN; $setup" "\\o /dev/null
		$statement" "\\o
		SELECT count(*) FROM drug;" "$((9 * (erasure_patients - erased)))"
}

# erasure_of_one LABEL LAYOUT NUMBER
erasure_of_one() {
	case $1 in
		"DELETEs by hand") erasure_by_hand "= $3" ;;
		"ON DELETE CASCADE") echo "DELETE FROM patient WHERE nhs_number = $3;" ;;
		"erase()") echo "SELECT count(*) FROM ndrs_optout.erase('$3', '{erasure_$2}');" ;;
	esac
}

# erasure_of_many LABEL LAYOUT
erasure_of_many() {
	local victims="SELECT number FROM bench.victim"
	case $1 in
		"DELETEs by hand") erasure_by_hand "IN ($victims)" ;;
		"ON DELETE CASCADE") echo "DELETE FROM patient WHERE nhs_number IN ($victims);" ;;
		"erase()")
			echo "SELECT count(*) FROM ndrs_optout.erase_patients(ARRAY($victims)::ndrs_optout.nhs_number[], '{erasure_$2}');"
			;;
	esac
}

stage_erasure() {
	local layout label indexes cases=()
	for layout in indexed bare; do
		[ "$layout" = bare ] && indexes=no || indexes=yes
		erasure_schema "erasure_$layout" "" "$indexes" || return
		erasure_schema "cascade_$layout" "ON DELETE CASCADE" "$indexes" || return
		in_bench "INSERT INTO ndrs_optout.register VALUES ('erasure_$layout', 'erasure_$layout');
		          SELECT ndrs_optout.guard_table('erasure_$layout.patient', 'nhs_number', '{erasure_$layout}')" >/dev/null || return
	done
	in_bench "CREATE TABLE bench.victim AS
	              SELECT nhs_number AS number FROM erasure_indexed.patient ORDER BY hashint8(patient_id) LIMIT $erasure_many;
	          ANALYZE bench.victim" || return
	mapfile -t erasure_numbers < <(in_bench "SELECT number FROM bench.victim LIMIT 51")
	for label in "${erasure_labels[@]}"; do
		cases+=("indexed/first/$label" "indexed/further/$label" "indexed/many/$label" "bare/first/$label")
	done
	interleaved erasure "${cases[@]}"
}

table_erasure() {
	print_table "Erasure: ms per patient, rolled back; $((9 * erasure_patients)) drug rows, $((3 * erasure_patients)) cycles, $erasure_patients of the others" "
		SELECT CASE WHEN stage LIKE '%indexed%' THEN 'with indexes' ELSE 'without indexes' END
		           || CASE WHEN stage LIKE '%first' THEN ', the first of a session'
		                   WHEN stage LIKE '%further' THEN ', each further one'
		                   ELSE ', $erasure_many together' END AS erasure,
		       label AS by, bench.shown(wall_ns / 1e6) AS wall, bench.shown(cpu_ns / 1e6) AS \"CPU\", spread,
		       bench.shown(cpu_ns / bench.cpu_ns(stage, 'DELETEs by hand')) AS \"times by hand\"
		    FROM bench.median WHERE stage LIKE 'erasure %' ORDER BY stage LIKE '%bare%', array_position('{first,further,many}', split_part(stage, ' ', 3)), position" || return
	say "Only erase() locks what it finds, compares how many rows went with how many were found, looks again with a new snapshot, and finds the tables by itself. Many together are erase_patients()."
}
