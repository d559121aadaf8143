# shellcheck shell=bash
#
# demo/sharing.sh: what may be shared, and what is recalled when a patient opts out.
#
# Sourced by demo/run after demo/story.sh, whose functions and rules it uses.
#
# shellcheck disable=SC2154  # demo/run's variables

# Of the published examples of pseudo-ids; real ones are in a safe.
salt=1234567890abcdef1234567890abcdef
release_salt=0123456789abcdef1234567890abcdef
leaving='' leaving_case=2		# the patient of this act, and her case

tell_of_sharing() {
	the_national_check
	the_releases
	the_second_request
	the_recalls
	the_answer
}

the_national_check() {
	local lines asked allowed
	heading "8. Second act: who may be shared?"
	tell "Data about those who stay goes to researchers, to planners and back to hospitals." \
		"For research and planning the national data opt-out counts, and only the NHS's" \
		"service knows who has it. Asked with a file of NHS numbers, it answers with the" \
		"same file without those who opted out. The officer may read the columns that are" \
		"asked about and has a schema for the answer. An analyst may read two registers, and" \
		"has a schema for what comes of it."
	show postgres -q -o /dev/null <<-'SQL'
		CREATE ROLE analyst LOGIN;
		SELECT ndrs_optout.grant_access('analyst', 'analyst');
		GRANT USAGE ON SCHEMA cancer, rare_disease TO officer, analyst;
		GRANT SELECT (nhsnumber) ON cancer.av_patient, cancer.sact_patient TO officer;
		GRANT SELECT (nhs_number) ON rare_disease.patient TO officer;
		CREATE SCHEMA officer AUTHORIZATION officer;
		GRANT SELECT ON ALL TABLES IN SCHEMA cancer, rare_disease TO analyst;
		CREATE SCHEMA study AUTHORIZATION analyst;
	SQL
	check "with the analyst too, all roles can do what their duties say, and no more" "
		SELECT count(*) = 0 FROM ndrs_optout.access_differences()"
	echo
	show officer <<-'SQL'
		SELECT ndrs_optout.start_national_check('SELECT nhsnumber FROM cancer.av_patient') AS check_id;
		\copy (SELECT ndrs_optout.national_check_request(1)) to 'request.csv'
	SQL
	echo
	tell "First comes a receipt. It is not the answer, so it is not taken for one; until the" \
		"answer is there, no patient counts as checked."
	show_refused officer ND040 <<-'SQL'
		SELECT ndrs_optout.load_national_check(1, ARRAY['{"status":"pending","filename":"request.csv"}']);
	SQL

	tell "Then the answer. The service is played by a line of awk, which leaves out one" \
		"number in nineteen."
	awk 'NR % 19' "$delivery/request.csv" >"$delivery/reply.csv"
	lines=$(wc -l <"$delivery/request.csv")
	show officer <<-'SQL'
		CREATE UNLOGGED TABLE officer.reply (line text);
		\copy officer.reply from 'reply.csv'
		SELECT ndrs_optout.load_national_check(1, 'TABLE officer.reply') AS allowed;
		DROP TABLE officer.reply;
	SQL
	asked=$lines allowed=$((lines - lines / 19))
	check "the check allows all but one in nineteen" "
		SELECT ndrs_optout.cardinality(asked) = $asked AND ndrs_optout.cardinality(allowed) = $allowed
		FROM ndrs_optout.national_check"
	check "the request is forgotten" "SELECT count(*) = 0 FROM ndrs_optout.national_check_part"

	tell "That somebody opted out nationally is written on no patient's record. The analyst" \
		"asks how many could be in a study, and why the others could not."
	show analyst <<-'SQL'
		SELECT * FROM ndrs_optout.share_summary('SELECT nhsnumber FROM cancer.av_patient', 'research', '{cancer}');
	SQL
	check "every row is counted, and whom the service left out" "
		SELECT sum(s.rows) = (SELECT count(*) FROM cancer.av_patient)
		   AND sum(s.patients) FILTER (WHERE s.decision = 'national_opt_out') = $((asked - allowed))
		   AND sum(s.patients) FILTER (WHERE s.decision = 'eligible') = $allowed
		FROM ndrs_optout.share_summary('SELECT nhsnumber FROM cancer.av_patient', 'research', '{cancer}') s"
}

the_releases() {
	heading "9. Two releases"
	tell "Two organisations are to have data. Each knows patients in its own way: the" \
		"university by ids that are made for it with salts, which lie in a safe and never" \
		"in the database; the charity, which patients have agreed to, by their NHS numbers."
	show officer -o /dev/null <<-'SQL'
		SELECT ndrs_optout.add_recipient('university', 'University of Somewhere', 'release_pseudo_id', 'safe 3, envelope 7');
		SELECT ndrs_optout.add_recipient('charity', 'Somewhere Charity', 'nhs_number', contact => 'records@charity.example');
		SELECT ndrs_optout.add_agreement('university', 'section 251, regulation 5', '21/CAG/0001', '2026-01-01', '2099-12-31', destruction_due_on => '2099-12-31');
		SELECT ndrs_optout.add_agreement('charity', 'explicit consent', 'agreement 7', '2026-01-01', '2099-12-31');
	SQL
	echo
	tell "A release is recorded before it is sent, and only if all of its patients may be in" \
		"it. It says how many may not, and why, and not who."
	show_refused analyst ND041 <<-'SQL'
		SELECT ndrs_optout.record_release('SELECT nhsnumber FROM cancer.av_patient WHERE ndrs_optout.nhs_number_or_null(nhsnumber) IS NOT NULL', 'research', '{cancer}',
		    'university', current_date, 'order 17');
	SQL
	tell "So the analyst leaves them out. For what patients have agreed to, the national opt-out does not count."
	show analyst <<-'SQL'
		SELECT ndrs_optout.record_release($$SELECT nhsnumber FROM cancer.av_patient WHERE ndrs_optout.share_eligible(nhsnumber, 'research', '{cancer}')$$, 'research', '{cancer}',
		    'university', current_date, 'order 17', 'section 251, regulation 5') AS university;
		SELECT ndrs_optout.record_release($$SELECT nhsnumber FROM cancer.av_patient WHERE patientid <= 100 AND ndrs_optout.share_eligible(nhsnumber, 'explicit_consent')$$, 'explicit_consent', '{cancer}',
		    'charity', current_date, 'order 18') AS charity;
	SQL
	show officer <<-'SQL'
		SELECT release_id, recipient, purpose, registers, reference, patient_count FROM ndrs_optout.release_progress;
	SQL
	check "the university was given all who are eligible, and nobody else" "
		SELECT r.patients OPERATOR(ndrs_optout.=) c.allowed
		FROM ndrs_optout.release r, ndrs_optout.national_check c WHERE r.recipient = 'university'"
}

the_second_request() {
	leaving=$(value_of "
		SELECT ndrs_optout.nhs_number_format(p.nhsnumber::ndrs_optout.nhs_number) FROM cancer.av_patient p
		WHERE p.patientid BETWEEN 2 AND 41 AND p.sex = '2' AND ndrs_optout.share_eligible(p.nhsnumber, 'research')
		ORDER BY p.patientid LIMIT 1")
	heading "10. A patient opts out whose data others have"
	tell "The patient with NHS number $leaving asks to leave the cancer register. Request," \
		"proofs and deletion are as before. In the same transaction that makes the case" \
		"carried out, whoever was given data about her is to be asked to delete it."
	show officer <<-SQL
		SELECT ndrs_optout.open_case('$leaving', '{cancer}') AS case_id;
		SELECT ndrs_optout.record_identity($leaving_case, 'identity', 'passport'),
		       ndrs_optout.record_identity($leaving_case, 'address', 'utility_bill') \\g /dev/null
		CALL ndrs_optout.carry_out($leaving_case, '$leaving');
	SQL
	echo
	show officer <<-'SQL'
		SELECT notice_id, case_id, recipient, reference, days_left, next_action FROM ndrs_optout.recall_progress;
	SQL
	check "a notice for each release that held her" "
		SELECT count(*) = 2 AND bool_and(n.case_id = $leaving_case AND ndrs_optout.release_contains(n.release_id, '$leaving'))
		FROM ndrs_optout.recall_notice n"
	tell "She can be in no release any more, for whatever purpose."
	show analyst <<-SQL
		SELECT ndrs_optout.share_decision('$leaving', 'direct_care');
	SQL
	check "she is shared for no purpose" "
		SELECT bool_and(ndrs_optout.share_decision('$leaving', p.code) IN ('excluded_from_register', 'purpose_not_permitted'))
		FROM ndrs_optout.purpose p"
}

# letter_of NOTICE ARGUMENTS: shown as it is asked for, and left in variable letter.
letter_of() {
	local sql="SELECT ndrs_optout.issue_recall_letter($1, $2)"
	print_sql officer "$sql \\g (format=unaligned tuples_only=on)"
	letter=$(psql_as officer -At -c "$sql")
	echo
}

the_recalls() {
	local letter digits=${leaving// /} id
	heading "11. The recalls"
	tell "A recall letter is the only place that names her to the recipient, by the id that" \
		"it knows her by. For the university the officer brings number and salts; none of" \
		"them is stored."
	letter_of 1 "'$leaving', '$salt', '$release_salt'"
	print_letter <<<"$letter"
	echo
	id=$(printf %s "nhsnumber_$digits$salt" | sha256sum | cut -c 1-64)
	id=$(printf %s "pseudoid_$id$release_salt" | sha256sum | cut -c 1-16)
	[[ $letter = *" $id."* ]] || fail "the letter to the university should name her $id"
	[[ ${letter// /} != *"$digits"* ]] || fail "the letter to the university holds her NHS number"

	tell "The charity's letter is the same but for her id:"
	letter_of 2 "'$leaving'"
	tail -n 1 <<<"$letter" | print_letter
	echo
	[[ $letter = *"$leaving"* ]] || fail "the letter to the charity should name her by NHS number"
	tell "A letter about somebody else is not written by mistake."
	show_refused officer ND031 <<-SQL
		SELECT ndrs_optout.issue_recall_letter(2, '$number');
	SQL
	tell "The university answers that her data is deleted. The charity has not answered yet," \
		"and has 30 days; health() tells when they are over."
	show officer -o /dev/null <<-'SQL'
		SELECT ndrs_optout.acknowledge_recall(1, deleted_on => current_date);
	SQL
	show officer <<-'SQL'
		SELECT recipient, days_left, overdue, deleted_on, next_action FROM ndrs_optout.recall_progress;
	SQL
	check "one notice is answered and one is open" "
		SELECT array_agg(acknowledged_at IS NOT NULL ORDER BY notice_id) = '{t,f}' FROM ndrs_optout.recall_notice"
	check "neither her number nor a salt is kept" "
		SELECT bool_and(translate(query_to_xml('TABLE ' || oid::regclass, true, true, '')::text, ' -', '')
		                !~ '$digits|$salt|$release_salt|$id')
		FROM pg_class WHERE relnamespace = 'ndrs_optout'::regnamespace AND relkind = 'r'"
}

the_answer() {
	local sql="SELECT ndrs_optout.complete_case($leaving_case)" letter
	heading "12. What she is told"
	tell "The letter to her says who had her data and who has answered. Of its paragraphs," \
		"this is the one:"
	print_sql officer "$sql \\g (format=unaligned tuples_only=on)"
	letter=$(psql_as officer -At -c "$sql")
	echo
	sed -n '/^We had shared data about you/,/^$/p' <<<"$letter" | print_letter
	[[ $letter = *"University of Somewhere, data of the National Cancer Register given on "*". It told us that this was deleted on "* ]] ||
		fail "the letter should say that the university has deleted her data"
	[[ $letter = *"Somewhere Charity, data of the National Cancer Register given on "*". We have no answer yet."* ]] ||
		fail "the letter should say that the charity has not answered"
	tell "So does the certificate, which is for an auditor and names nobody."
	show officer <<-SQL
		SELECT r.recipient, r.released_on, r.due_on, r.deleted_on
		FROM jsonb_to_recordset(ndrs_optout.erasure_certificate($leaving_case) -> 'recalls')
		     AS r (recipient text, released_on date, due_on date, deleted_on date);
	SQL
	check "the certificate verifies" "
		SELECT ndrs_optout.verify_certificate(ndrs_optout.erasure_certificate($leaving_case))"
	check "the audit verifies" "SELECT count(*) = 0 FROM ndrs_optout.verify_audit()"
}
