# shellcheck shell=bash
#
# demo/story.sh: one patient's opt-out, step by step.
#
# Sourced by demo/run, whose variables build, server, delivery, port and patients
# it reads and whose variable step it sets, and after demo/server.sh.  What is
# shown is what is run, and what is claimed is checked: any other outcome ends
# the demo.
#
# shellcheck disable=SC2154  # demo/run's variables

# The demo's own patient; test/demo numbers begin with 999.
number='999 000 0018'
case_id=1						# the first case of a new database

# -------------------------------------------------------------- on the screen

bold='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
fi

fail() {
	complain "$@" || exit
}

heading() {
	step=$1
	printf '%s%s%s\n\n' "$bold" "$step" "$plain"
}

tell() {
	printf '%s\n' "$*" | fold -s -w 78 | sed 's/ *$//'
	echo
}

# print_sql ROLE SQL: as typed at psql's prompt; the documentation's prompts are the same.
print_sql() {
	local who=$1 sign='>' prompt='=' line
	if [ "$who" = postgres ]; then
		who=registry sign='#'
	fi
	while IFS= read -r line; do
		printf '%s%s%s%s%s %s%s%s\n' "$dim" "$who" "$prompt" "$sign" "$plain" "$bold" "$line" "$plain"
		prompt='-'
		if ends_command "$line"; then
			prompt='='
		fi
	done <<<"$2"
}

ends_command() {
	[[ $1 = *\; || $1 = \\* || $1 = *\\g* ]]
}

# print_letter <<LETTER: wrapped and indented; what follows "- " hangs.
print_letter() {
	awk -v width=74 '{
		match($0, /^ *(- )?/)
		hang = substr("        ", 1, RLENGTH)
		line = substr($0, 1, RLENGTH)
		words = split(substr($0, RLENGTH + 1), word, " ")
		for (i = 1; i <= words; i++) {
			if (i > 1 && length(line) + length(word[i]) > width) {
				sub(/ $/, "", line)
				print "    " line
				line = hang
			}
			line = line word[i] " "
		}
		sub(/ *$/, "", line)
		print (line == "" ? "" : "    " line)
	}'
}

# -------------------------------------------------------------------- the SQL

# psql_as ROLE [ARGUMENT...]: a session in the registry, where the hospital's files are.
# A loader needs to know the line of the file, others nothing of what lies behind an error.
psql_as() {
	local role=$1 context=never
	shift
	if [ "$role" = postgres ] || [ "$role" = loader ]; then
		context=errors
	fi
	as_postgres env -C "$delivery" PGAPPNAME="$role" psql -X -h "$server" -p "$port" -U "$role" -d registry \
		-v ON_ERROR_STOP=1 -v SHOW_CONTEXT="$context" -P footer=off -P pager=off "$@"
}

# show ROLE [ARGUMENT...] <<SQL: each command shown and run, in a session of its own,
# so that its answer follows it; an error ends the demo.
show() {
	local role=$1 line sql=''
	shift
	while IFS= read -r line; do
		sql+=${sql:+$'\n'}$line
		if ends_command "$line"; then
			print_sql "$role" "$sql"
			psql_as "$role" "$@" <<<"$sql" 2>&1
			sql=''
		fi
	done
}

# show_refused ROLE SQLSTATE <<SQL: shown and run; must fail, and with this SQLSTATE.
# Verbose, since \copy does not set psql's variables; less the place in the source.
show_refused() {
	local role=$1 sqlstate=$2 sql output status=0
	sql=$(cat)
	print_sql "$role" "$sql"
	output=$(psql_as "$role" -v VERBOSITY=verbose <<<"$sql" 2>&1) || status=$?
	grep -v '^LOCATION: ' <<<"$output"
	if [ "$status" -ne 3 ] || [[ $output != "ERROR:  $sqlstate: "* ]]; then
		fail "an error with SQLSTATE $sqlstate was expected"
	fi
	printf '%s(%s: this error is as it should be)%s\n\n' "$dim" "$sqlstate" "$plain"
}

# plumbing [ARGUMENT...]: run by the superuser, not shown.
plumbing() {
	psql_as postgres -q "$@"
}

# value_of SQL: the one value that it returns.
value_of() {
	plumbing -At -c "$1"
}

# check CLAIM SQL: SQL must return true.
check() {
	local answer
	answer=$(value_of "$2")
	if [ "$answer" != t ]; then
		fail "this does not hold: $1"
	fi
}

# ------------------------------------------------------------------ the story

tell_story() {
	the_registry
	the_guards
	the_request
	the_deletion
	the_next_delivery
	the_proof
	the_letter
}

the_registry() {
	local elapsed relation rows started
	heading "1. The registry"
	tell "A disease registry holds what hospitals send about patients: here $patients" \
		"synthetic cancer patients and everything that hangs on them, the rare disease" \
		"register and the congenital anomaly register. The DBA installs the extension."
	as_postgres psql -X -q -h "$server" -p "$port" -U postgres -d postgres -c 'CREATE DATABASE registry'
	show postgres <<-'SQL'
		CREATE EXTENSION ndrs_optout CASCADE;
	SQL
	echo
	plumbing -f "$build/demo/registry/schema.sql"
	printf 'min:s       rows\n'
	plumbing -v patients="$patients" -v registry="$build/demo/registry" \
		-f "$build/demo/registry/populate.sql" |
		while read -r elapsed relation rows; do
			printf '%s  %9s  %s\n' "$elapsed" "$rows" "$relation"
		done
	started=$EPOCHREALTIME
	plumbing -f "$build/demo/registry/indexes.sql"
	printf 'indexed in %s s\n\n' "$(seconds_since "$started")"
}

the_guards() {
	heading "2. The DBA adopts the key and guards the tables"
	tell "NHS numbers on the exclusion list are encoded with a key that the database never" \
		"holds: it stays in a file of the server. Adopting it means that no other key" \
		"will be accepted."
	show postgres <<-'SQL'
		SELECT ndrs_optout.adopt_key();
	SQL
	tell "A guard stops the rows of excluded patients from entering a table. av_patient" \
		"drops such a row and counts it, so that the rest of a file still enters; the" \
		"others refuse the file. The columns are text, char(10), bigint and nhs_number." \
		"Each call says how many rows of excluded patients are there already."
	show postgres <<-'SQL'
		SELECT ndrs_optout.guard_table('cancer.av_patient', 'nhsnumber', '{cancer}', on_match => 'skip') AS av_patient,
		       ndrs_optout.guard_table('cancer.sact_patient', 'nhsnumber', '{cancer}', on_match => 'reject') AS sact_patient,
		       ndrs_optout.guard_table('rare_disease.patient', 'nhs_number', '{rare_disease}') AS patient,
		       ndrs_optout.guard_table('congenital_anomaly.mother', 'nhs_number', '{congenital_anomaly}') AS mother,
		       ndrs_optout.guard_table('congenital_anomaly.baby', 'nhs_number', '{congenital_anomaly}') AS baby;
	SQL
	show postgres <<-'SQL'
		SELECT target, nhs_number_column, registers, on_match, on_missing, on_unreadable
		FROM ndrs_optout.guard ORDER BY target::text;
	SQL
	check "five tables are guarded" "SELECT count(*) = 5 FROM ndrs_optout.guard"

	tell "Is there a way round them? guard_coverage() tells of every one that it knows," \
		"with what to do. And no DDL opens one by accident."
	show postgres <<-'SQL'
		SELECT severity, gap, relation, what_to_do FROM ndrs_optout.guard_coverage();
	SQL
	check "every way round the guards is closed" "SELECT count(*) = 0 FROM ndrs_optout.guard_coverage()"
	show_refused postgres ND050 <<-'SQL'
		ALTER TABLE cancer.av_patient DISABLE TRIGGER ALL;
	SQL

	tell "The officer gets what works a case and not one table of patients; the loader" \
		"gets the cancer tables and nothing of the extension's. The steward watches, and the" \
		"auditor sees who did what."
	show postgres -q -o /dev/null <<-'SQL'
		CREATE ROLE officer LOGIN;
		SELECT ndrs_optout.grant_access('officer', 'officer');
		CREATE ROLE loader LOGIN;
		SELECT ndrs_optout.grant_access('loader', 'loader');
		CREATE ROLE steward LOGIN;
		SELECT ndrs_optout.grant_access('steward', 'steward');
		CREATE ROLE auditor LOGIN;
		SELECT ndrs_optout.grant_access('auditor', 'auditor');
		GRANT USAGE ON SCHEMA cancer TO loader;
		GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA cancer TO loader;
	SQL
	check "all roles can do what their duties say, and no more" "
		SELECT count(*) = 0 FROM ndrs_optout.access_differences()"
	echo
}

the_request() {
	heading "3. A patient asks to leave two registers"
	tell "The patient with NHS number $number asks to leave the cancer register and the" \
		"rare disease register. She is a mother in the congenital anomaly register: she" \
		"does not ask to leave that one, so her record and her baby's stay."

	# For the proof, before anything happens: what is there, and which ids are hers.
	plumbing -v number="${number// /}" -f "$build/demo/audit.sql"

	tell "What is held about her? Most tables have no NHS number: the way to a drug row" \
		"is number, patient, tumour, regimen, cycle, drug. The preview walks it."
	show officer <<-SQL
		SELECT regexp_replace(path, '[^ ]+ > ', '    ', 'g') AS path, action, row_count AS rows, missing_index
		FROM ndrs_optout.erasure_preview('$number', '{cancer,rare_disease}') AS p ORDER BY p.path;
	SQL
	check "the preview and the auditor find the same number of rows in each table" "
		SELECT count(*) = 10 AND bool_and(p.rows IS NOT DISTINCT FROM b.hers)
		FROM (SELECT relation, sum(row_count) AS rows
		      FROM ndrs_optout.erasure_preview('$number', '{cancer,rare_disease}') GROUP BY relation) p
		FULL JOIN audit.before b USING (relation)
		WHERE b.register IS DISTINCT FROM 'congenital_anomaly'"
	check "every level has an index" "
		SELECT bool_and(missing_index IS NULL)
		FROM ndrs_optout.erasure_preview('$number', '{cancer,rare_disease}')"

	tell "The officer opens a case. Only the encoded number is stored with it."
	show officer <<-SQL
		SELECT ndrs_optout.open_case('$number', '{cancer,rare_disease}', channel => 'post');
	SQL
	show officer <<-'SQL'
		SELECT case_id, state, missing, next_action FROM ndrs_optout.case_progress \gx
	SQL
	tell "First proof: who she is. Carrying out the case now would be too early."
	show officer -o /dev/null <<-SQL
		SELECT ndrs_optout.record_identity($case_id, 'identity', 'passport');
	SQL
	show_refused officer ND020 <<-SQL
		CALL ndrs_optout.carry_out($case_id, '$number');
	SQL
	tell "Second proof: her address. Now the clock of 20 days runs."
	show officer -o /dev/null <<-SQL
		SELECT ndrs_optout.record_identity($case_id, 'address', 'utility_bill');
	SQL
	show officer <<-'SQL'
		SELECT case_id, state, due_on, days_left, next_action FROM ndrs_optout.case_progress \gx
	SQL
	check "the case is ready" "SELECT state = 'ready' FROM ndrs_optout.case_progress WHERE case_id = $case_id"
}

# ------------------------------------------- step 4, which takes two sessions

# in_loader <<SQL: shown and run in the loader's open session.
in_loader() {
	local sql line end='-- end of the answer --'
	sql=$(cat)
	print_sql loader "$sql"
	printf '%s\n\\echo %s\n' "$sql" "$end" >&"${loader[1]}"
	while :; do
		if ! IFS= read -r -t 60 line <&"${loader[0]}"; then
			fail "the loader's session has ended or does not answer"
		fi
		if [ "$line" = "$end" ]; then
			return
		fi
		printf '%s\n' "$line"
	done
}

the_deletion() {
	local loader_pid officer call_began committed_at output=$place/carry_out
	heading "4. The deletion, with a loader in flight"
	tell "Another session is loading meanwhile. It inserted a new record of the patient" \
		"before she was on any list, so the guard let it in. It has not committed: nobody" \
		"else can see the record, nor delete it."
	coproc loader { psql_as loader 2>&1; }
	loader_pid=$loader_PID
	in_loader <<-'SQL'
		BEGIN;
	SQL
	in_loader <<-'SQL'
		INSERT INTO cancer.av_patient (patientid, nhsnumber) VALUES (90000001, '999-000-0018');
	SQL
	in_loader <<-'SQL'
		INSERT INTO cancer.av_tumour (tumourid, patientid) VALUES (900000011, 90000001);
	SQL

	echo
	tell "The officer carries out the case: exclude the patient; wait for those who began" \
		"to write before that; delete, and count again."
	print_sql officer "CALL ndrs_optout.carry_out($case_id, '$number');"
	psql_as officer >"$output" 2>&1 <<-SQL &
		\\timing on
		CALL ndrs_optout.carry_out($case_id, '$number');
	SQL
	officer=$!
	await_waiting "$officer" "$output"
	grep -v '^Timing is on' "$output"
	call_began=$(value_of "SELECT query_start FROM pg_stat_activity WHERE application_name = 'officer'")

	echo
	tell "It waits, and says for whom. The exclusion is in force already: whoever comes" \
		"later is turned away at once, and nobody else has to wait."
	show officer <<-'SQL'
		SELECT case_id, state, next_action FROM ndrs_optout.case_progress \gx
	SQL
	show_refused loader 23N01 <<-'SQL'
		INSERT INTO cancer.sact_patient VALUES (90000002, '9990000018');
	SQL
	check "the case is excluded" "
		SELECT state = 'excluded' FROM ndrs_optout.case_progress WHERE case_id = $case_id"

	tell "The loader commits. carry_out goes on, and the new record goes too."
	committed_at=$(value_of "SELECT clock_timestamp()")
	in_loader <<-'SQL'
		COMMIT;
	SQL
	if ! wait "$officer"; then
		cat "$output"
		fail "carry_out failed"
	fi
	echo
	tell "The officer's session:"
	grep -E '^(CALL$|Time: )' "$output"
	echo
	in_loader <<-'SQL'
		SELECT count(*) FROM cancer.av_patient WHERE patientid = 90000001;
	SQL
	printf '\\q\n' >&"${loader[1]}"
	wait "$loader_pid"
	check "the loader's rows are gone" "
		SELECT NOT EXISTS (SELECT FROM cancer.av_patient WHERE patientid = 90000001)
		   AND NOT EXISTS (SELECT FROM cancer.av_tumour WHERE patientid = 90000001)"
	check "the case is carried out" "
		SELECT state = 'carried_out' FROM ndrs_optout.case_progress WHERE case_id = $case_id"
	tell "$(value_of "
		SELECT format('carry_out had excluded her after %s ms. It had deleted and counted again %s ms after the loader''s commit; in between it waited.',
		              round(1000 * extract(epoch FROM excluded_at - '$call_began')),
		              round(1000 * extract(epoch FROM carried_out_at - '$committed_at')))
		FROM ndrs_optout.optout_case WHERE case_id = $case_id")"
}

# await_waiting PROCESS OUTPUT: until the server shows that the officer's session is
# blocked by the loader's and the officer has been told.
await_waiting() {
	local deadline=$((SECONDS + 60)) blocked
	while :; do
		blocked=$(value_of "
			SELECT count(*) = 1 FROM pg_stat_activity o
			JOIN pg_stat_activity l ON l.pid = ANY (pg_blocking_pids(o.pid))
			WHERE o.application_name = 'officer' AND l.application_name = 'loader'")
		if [ "$blocked" = t ] && grep -q '^DETAIL:  Process .* is writing to table' "$2"; then
			return
		fi
		if ! kill -0 "$1" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
			cat "$2"
			fail "carry_out does not wait for the loader, or does not say so"
		fi
		sleep 0.05
	done
}

the_next_delivery() {
	heading "5. The hospital's next delivery"
	tell "The hospital knows nothing of the request. Its next two files hold 50 rows each," \
		"and line 26 of each is about the patient, under a new patient id. The first" \
		"file writes her number with spaces."
	plumbing -v dir="$delivery" -f "$build/demo/registry/next_batch.sql"
	tell "Into av_patient, where the guard skips: 49 rows enter, one is counted. So is the row that" \
		"was rejected above, when its session ended."
	show loader <<-'SQL'
		\copy cancer.av_patient (patientid, sex, nhsnumber, ethnicity, newvitalstatus, vitalstatusdate) from 'av_patient.csv' csv header
	SQL
	echo
	show steward <<-'SQL'
		SELECT * FROM ndrs_optout.guard_count;
	SQL
	tell "Into sact_patient, where the guard rejects: an error that names the line and no" \
		"patient, and nothing of the file enters."
	show_refused loader 23N01 <<-'SQL'
		\copy cancer.sact_patient from 'sact_patient.csv' csv header
	SQL
	check "49 rows have entered av_patient and none sact_patient" "
		SELECT (SELECT count(*) = 49 FROM cancer.av_patient
		        WHERE patientid > (SELECT highest FROM audit.before WHERE relation = 'cancer.av_patient'::regclass))
		   AND (SELECT count(*) = rows - hers FROM cancer.sact_patient)
		FROM audit.before WHERE relation = 'cancer.sact_patient'::regclass"
	check "one row was skipped, and rejections were counted" "
		SELECT sum(rows_skipped) = 1 AND sum(rows_rejected) > 0 FROM ndrs_optout.guard_count WHERE finding = 'excluded'"
}

the_proof() {
	heading "6. Is she gone, and is everybody else still there?"
	tell "An auditor does not ask the extension. Before the opt-out demo/audit.sql noted," \
		"by plain SQL, every id of hers, the number of rows and a checksum of everybody" \
		"else's. Now it reads every column of every row again, for those ids and for her" \
		"number with or without spaces and hyphens."
	plumbing -c "CREATE TABLE audit.after AS TABLE audit.comparison"
	show postgres <<-'SQL'
		SELECT relation, before, hers, arrived, now, hers_now, others_unchanged FROM audit.after;
	SQL
	check "nothing is left in the two registers" "
		SELECT count(*) = 10 AND sum(hers) > 0 AND sum(hers_now) = 0
		FROM audit.after WHERE register <> 'congenital_anomaly'"
	check "every other row is there as it was: before - hers + arrived = now" "
		SELECT count(*) = 10 AND bool_and(now = before - hers + arrived AND others_unchanged)
		FROM audit.after WHERE register <> 'congenital_anomaly'"
	check "the congenital anomaly register is untouched" "
		SELECT count(*) = 3 AND bool_and(now = before AND hers_now = hers AND others_unchanged)
		FROM audit.after WHERE register = 'congenital_anomaly'"
	tell "before - hers + arrived = now, in each table. The congenital anomaly register is" \
		"untouched: her record and her baby's stay, as she wished."
	show postgres <<-SQL
		SELECT m.nhs_number AS mother, b.nhs_number AS baby, a.icd10_code, a.diagnosis_date
		FROM congenital_anomaly.mother m
		JOIN congenital_anomaly.baby b USING (mother_id)
		JOIN congenital_anomaly.anomaly a USING (baby_id)
		WHERE m.nhs_number::text = '${number// /}';
	SQL
	tell "What is kept is the reason why she will not be registered again:"
	show postgres <<-'SQL'
		SELECT * FROM ndrs_optout.exclusion;
	SQL
	check "she is on two lists" "SELECT count(*) = 2 FROM ndrs_optout.exclusion"
	check "no table of the extension holds her number" "
		SELECT count(*) > 5 AND bool_and(translate(query_to_xml('TABLE ' || oid::regclass, true, true, '')::text, ' -', '')
		                                 NOT LIKE '%${number// /}%')
		FROM pg_class WHERE relnamespace = 'ndrs_optout'::regnamespace AND relkind = 'r'"
}

the_letter() {
	local sql="SELECT ndrs_optout.complete_case($case_id)" letter records
	heading "7. The letter"
	tell "Completing the case destroys the record of the proofs of identity and returns the" \
		"letter to the patient. Every sentence of it comes from what was done."
	print_sql officer "$sql \\g (format=unaligned tuples_only=on)"
	letter=$(psql_as officer -At -c "$sql")
	echo
	print_letter <<<"$letter"
	# Hers, and the two rows that the loader brought in.
	records=$(value_of "SELECT sum(hers) + 2 FROM audit.before WHERE register = 'cancer'")
	[[ $letter = *"- the National Cancer Register: $records entries"* ]] ||
		fail "the letter should speak of $records entries"
	check "the case is completed and the proofs are destroyed" "
		SELECT state = 'completed' AND NOT EXISTS (SELECT FROM ndrs_optout.identity_evidence)
		FROM ndrs_optout.case_progress WHERE case_id = $case_id"
	echo
}

# closing SECONDS
closing() {
	local sudo='runuser -u postgres --' setting='' elsewhere='' other_number
	if [ "$PG_CONFIG" != "/usr/lib/postgresql/15/bin/pg_config" ]; then
		setting="PG_CONFIG=$PG_CONFIG "
	fi
	if [ "$place" != "$default_place" ]; then
		elsewhere=" --place $place"
	fi
	other_number=$(value_of "SELECT nhsnumber FROM cancer.av_patient WHERE patientid = 42")
	if command -v sudo >/dev/null; then
		sudo='sudo -u postgres'
	fi
	heading "13. Over to you"
	tell "Everything above held; it took $1 s. The server is running. Explore it with"
	printf '    %s env -C %s %s -h %s registry\n\n' "$sudo" "$delivery" "$("$PG_CONFIG" --bindir)/psql" "$server"
	tell "You are a superuser there; \\c - officer makes you the officer, and so for loader," \
		"analyst, steward and auditor: whoever the pages in doc/ say is typing. Three things to" \
		"try:"
	cat <<-SQL
		    -- register her again: refused
		    INSERT INTO rare_disease.patient VALUES (90000003, ${number// /});
		    -- look at what another patient's opt-out would delete
		    SELECT path, action, row_count FROM ndrs_optout.erasure_preview('$other_number', '{cancer}');
		    -- let her back in: nothing deleted comes back, new records enter again
		    SELECT ndrs_optout.opt_in('$number', '{cancer,rare_disease}') AS case_id \gset
		    SELECT ndrs_optout.complete_case(:case_id) \g (format=unaligned tuples_only=on)

	SQL
	tell "Stop the server and remove all this with"
	printf '    %s%s --stop%s\n' "$setting" "$top/demo/run" "$elsewhere"
}
