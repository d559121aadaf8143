# shellcheck shell=bash disable=SC2154
#
# guard: what COPY costs when its rows are checked against a list.
#
# A table of its own for each way of checking, once bare and once with a primary
# key and a second index.  The file has no excluded patient's row, as nearly all
# files, but for one case; that each way does refuse one is tried first.

guard_labels=(
	"nothing"
	"empty C trigger"
	"empty C CHECK"
	"empty PL/pgSQL trigger"
	"guard, both, reject"
	"guard, both, skip"
	"guard, both, skip, 0.1 % excluded"
	"guard, both, reject, encoded_column"
	"guard, constraint"
	"guard, its trigger alone"
	"COPY ... WHERE NOT is_excluded()"
	"PL/pgSQL trigger, plain list"
	"PL/pgSQL trigger, pgcrypto hmac"
	"statement trigger, plain list"
	"statement trigger, pgcrypto hmac"
)

guard_trigger() {
	echo "CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON $1 FOR EACH ROW EXECUTE FUNCTION $2()"
}

guard_statement_trigger() {
	echo "CREATE TRIGGER guard AFTER INSERT ON $1 REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION $2();
	      CREATE TRIGGER guard_update AFTER UPDATE ON $1 REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION $2()"
}

# No site guards like that; it shows what the two parts of a guard cost.
guard_without_constraint() {
	echo "SET ndrs_optout.allow_unguarded = on;
	      DO \$\$ BEGIN EXECUTE (
	          SELECT format('ALTER TABLE $1 DROP CONSTRAINT %I', conname) FROM pg_constraint
	              WHERE conrelid = '$1'::regclass AND contype = 'c'); END \$\$"
}

# guard_protect LABEL TABLE: the command that sets the protection up.
guard_protect() {
	local table="SELECT ndrs_optout.guard_table('$2', 'nhs_number', '{list_$list}'"
	case $1 in
		"empty C trigger") guard_trigger "$2" bench.empty_trigger ;;
		"empty C CHECK") echo "ALTER TABLE $2 ADD CHECK (bench.is_true(nhs_number))" ;;
		"empty PL/pgSQL trigger") guard_trigger "$2" peer.empty_trigger ;;
		"guard, both, reject") echo "$table)" ;;
		"guard, both, skip"*) echo "$table, on_match => 'skip')" ;;
		"guard, both, reject, encoded_column")
			echo "ALTER TABLE $2 ADD encoded ndrs_optout.encoded_nhs_number; $table, encoded_column => 'encoded')"
			;;
		"guard, constraint") echo "$table, mechanism => 'constraint')" ;;
		"guard, its trigger alone") echo "$table); $(guard_without_constraint "$2")" ;;
		"PL/pgSQL trigger, plain list") guard_trigger "$2" peer.refuse_plain ;;
		"PL/pgSQL trigger, pgcrypto hmac") guard_trigger "$2" peer.refuse_hmac ;;
		"statement trigger, plain list") guard_statement_trigger "$2" peer.refuse_plain_set ;;
		"statement trigger, pgcrypto hmac") guard_statement_trigger "$2" peer.refuse_hmac_set ;;
	esac
}

guard_table_name() {
	local i
	for i in "${!guard_labels[@]}"; do
		if [ "${guard_labels[i]}" = "${1#*/}" ]; then
			echo "bench.${1%%/*}_$i"
		fi
	done
}

# guard LAYOUT/LABEL
guard() {
	local label=${1#*/} table file=$data/visits expected=$copy_rows where=
	table=$(guard_table_name "$1")
	case $label in
		*"0.1 % excluded") file=$data/visits_excluded expected=$((copy_rows - copy_rows / 1000)) ;;
		"COPY ... WHERE"*) where=" WHERE NOT ndrs_optout.is_excluded(nhs_number, 'list_$list')" ;;
	esac
	timed "guard ${1%%/*}" "$label" "$copy_rows" \
		"TRUNCATE $table; CHECKPOINT; SELECT ndrs_optout.is_excluded(9990000018, 'list_$list');" \
		"COPY $table ($guard_columns) FROM '$file'$where;" "SELECT count(*) FROM $table;" "$expected"
}

guard_columns="visit_id, patient_id, nhs_number, birth_date, postcode, diagnosis_date, site_icd10, stage, hospital, notes"

# A row of an excluded patient must be refused or vanish, where there is something
# to do it.
guard_try() {
	local label=$1 table=$2 expected=0 left
	case $label in
		nothing | empty* | COPY*) expected=1 ;;
	esac
	left=$(in_bench "
		DO \$\$
		BEGIN
		    INSERT INTO $table (visit_id, nhs_number) SELECT 0, number FROM peer.list_$list LIMIT 1;
		EXCEPTION WHEN OTHERS THEN NULL;
		END
		\$\$;
		SELECT count(*) FROM $table")
	if [ "$left" != "$expected" ]; then
		fail "guard, $label: $left rows of an excluded patient in the table, not $expected"
	fi
}

guard_prepare() {
	need_list "$list" && in_bench "
		CREATE TABLE bench.visit (visit_id bigint, patient_id bigint, nhs_number text, birth_date date, postcode text,
		    diagnosis_date date, site_icd10 varchar(4), stage text, hospital varchar(5), notes text);
		CREATE TABLE bench.visitor AS
		    SELECT row_number() OVER () AS patient_id, n AS number FROM bench.patients(least($copy_rows / 5, 400000)) AS n;
		CREATE UNIQUE INDEX ON bench.visitor (patient_id);
		ANALYZE bench.visitor;
		INSERT INTO bench.visit
		    SELECT i, v.patient_id, v.number, date '1930-01-01' + (v.patient_id % 30000)::integer,
		           chr(65 + (i % 26)::integer) || 'S' || i % 20 || ' ' || i % 10 || 'XY', date '2015-01-01' + (i % 3000)::integer,
		           'C' || i % 97, CASE i % 5 WHEN 0 THEN NULL ELSE (i % 5)::text END, 'R' || lpad((i % 150)::text, 3, '0'),
		           CASE WHEN i % 4 = 0 THEN 'seen in clinic, review in ' || i % 12 || ' months' END
		        FROM (SELECT i, 1 + hashint8extended(i, 7) & 2147483647 AS r FROM generate_series(1, $copy_rows) AS i) s
		            JOIN bench.visitor v ON v.patient_id = 1 + r % (SELECT count(*) FROM bench.visitor)
		        ORDER BY i;
		COPY bench.visit TO '$data/visits';
		UPDATE bench.visit SET nhs_number = (SELECT number FROM peer.list_$list LIMIT 1) WHERE visit_id % 1000 = 0;
		COPY (SELECT * FROM bench.visit ORDER BY visit_id) TO '$data/visits_excluded';
		TRUNCATE bench.visit;

		CREATE TABLE peer.encoded_list AS
		    SELECT substring(hmac(number::text::bytea, '\\x$(printf '%064d' 7)', 'sha256') FOR 16) AS encoded FROM peer.list_$list;
		ALTER TABLE peer.encoded_list ADD PRIMARY KEY (encoded);
		VACUUM ANALYZE peer.encoded_list;

		CREATE FUNCTION peer.empty_trigger() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN RETURN NEW; END \$\$;
		CREATE FUNCTION peer.refuse_plain() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    IF EXISTS (SELECT FROM peer.list_$list l WHERE l.number = NEW.nhs_number::bigint) THEN
		        RAISE EXCEPTION 'excluded';
		    END IF;
		    RETURN NEW;
		END
		\$\$;
		CREATE FUNCTION peer.refuse_hmac() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    IF EXISTS (SELECT FROM peer.encoded_list l WHERE l.encoded =
		                   substring(hmac(NEW.nhs_number::bytea, '\\x$(printf '%064d' 7)', 'sha256') FOR 16)) THEN
		        RAISE EXCEPTION 'excluded';
		    END IF;
		    RETURN NEW;
		END
		\$\$;
		CREATE FUNCTION peer.refuse_plain_set() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    IF EXISTS (SELECT FROM fresh f JOIN peer.list_$list l ON l.number = f.nhs_number::bigint) THEN
		        RAISE EXCEPTION 'excluded';
		    END IF;
		    RETURN NULL;
		END
		\$\$;
		CREATE FUNCTION peer.refuse_hmac_set() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    IF EXISTS (SELECT FROM fresh f JOIN peer.encoded_list l ON l.encoded =
		                   substring(hmac(f.nhs_number::bytea, '\\x$(printf '%064d' 7)', 'sha256') FOR 16)) THEN
		        RAISE EXCEPTION 'excluded';
		    END IF;
		    RETURN NULL;
		END
		\$\$;"
}

stage_guard() {
	local layout label table cases=()
	guard_prepare || return
	for layout in bare keyed; do
		for label in "${guard_labels[@]}"; do
			table=$(guard_table_name "$layout/$label")
			in_bench "CREATE TABLE $table (LIKE bench.visit)" || return
			if [ "$layout" = keyed ]; then
				in_bench "ALTER TABLE $table ADD PRIMARY KEY (visit_id); CREATE INDEX ON $table (patient_id)" || return
			fi
			in_bench "$(guard_protect "$label" "$table")" >/dev/null || return
			guard_try "$label" "$table"
			cases+=("$layout/$label")
		done
	done
	interleaved guard "${cases[@]}"
}

table_guard() {
	local layout what
	for layout in bare keyed; do
		what="bare table"
		[ "$layout" = bare ] || what="table with primary key and a second index"
		print_table "Guard: COPY of $copy_rows rows of ten columns, list of $list, $what" "
			SELECT m.label AS \"checked by\", bench.shown(wall_us / 1000) AS \"wall, ms\", bench.shown(cpu_us / 1000) AS \"CPU, ms\",
			       spread, bench.shown(cpu_ns - nothing) AS \"added, ns a row\",
			       bench.shown(cpu_ns / nothing) AS \"times nothing\", bench.shown(cpu_ns / empty) AS \"times an empty C trigger\"
			    FROM bench.median m, bench.cpu_ns('guard $layout', 'nothing') AS nothing,
			         bench.cpu_ns('guard $layout', 'empty C trigger') AS empty
			    WHERE stage = 'guard $layout' ORDER BY position" || return
	done
	say "COPY ... WHERE protects nothing by itself: each loader would have to remember it. A plain list keeps the NHS numbers of those who opted out readable. A load that passed its rows before an opt-out and commits after it slips past every trigger; only an opt-out that waits for it, as carry_out() does, finds it."
}
