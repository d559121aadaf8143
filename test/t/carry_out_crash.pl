# The server dies, with SIGKILL for every process, while a case is carried out.
#
# The hazard: a patient who is half opted out, unknown to every user.  What
# step 1 committed must hold after the crash (the patient stays out), what was
# not committed must leave nothing behind, the case must say where it stands,
# and the same call again must bring it to its end with the right counts.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

# With asynchronous commits, what is committed may stay in memory for so long.
my $server = new_server('carry_out_crash', settings => "wal_writer_delay = 10s\n");
install_extension($server);
create_registry($server);

sub next_action
{
	my ($case_id) = @_;
	return $server->safe_psql('postgres',
		"SELECT next_action FROM ndrs_optout.case_progress WHERE case_id = $case_id");
}

sub rows_deleted
{
	my ($case_id) = @_;
	return $server->safe_psql('postgres', qq{
		SELECT string_agg(relation || ' ' || rows, ', ' ORDER BY relation)
			FROM (SELECT relation, sum(row_count) AS rows FROM ndrs_optout.case_erasure
				WHERE case_id = $case_id AND action = 'deleted' GROUP BY relation) AS r});
}

sub carry_out_again
{
	my ($case_id, $number) = @_;
	my ($status) = try_sql($server, "CALL ndrs_optout.carry_out($case_id, '$number')");
	is($status, 0, 'the same call again succeeds');
	is(case_state($server, $case_id), 'carried_out', 'and the case is carried out');
	is(rows_of($server, $number), '0 0', 'nothing of the patient is left');
	return;
}

# The patient is stopped at the gate, and no other patient is.
sub gate_holds
{
	my ($number) = @_;
	refused_with($server, '23N01', "INSERT INTO patient VALUES (900, '$number', 'seeded name')",
		'INSERT of the patient is refused');
	refused_with($server, '23N01', "COPY patient FROM STDIN;\n900\t$number\tname\n\\.\n",
		'COPY of the patient is refused');
	my ($status) = try_sql($server, "BEGIN; INSERT INTO patient VALUES (900, '$NEIGHBOUR', 'seeded name'); ROLLBACK");
	is($status, 0, 'a row of another patient enters');
	return;
}

hold_patient($server, 1, $NEIGHBOUR);

subtest 'killed while step 2 waits for a writer' => sub {
	my $number = $PATIENT;
	hold_patient($server, 2, $number);
	my $case_id = ready_case($server, $number);

	my $writer = open_session($server);
	run_in($writer, "BEGIN; INSERT INTO patient VALUES (3, '$number', 'seeded name')");
	my $call = start_sql($server, "CALL ndrs_optout.carry_out($case_id, '$number')");
	wait_until_waiting($server, 'CALL');

	kill_server($server);
	abandon($writer);
	finish_sql($call);
	$server->start;

	is(case_state($server, $case_id), 'excluded', 'the case is not taken for carried out');
	like(next_action($case_id), qr/CALL ndrs_optout\.carry_out\($case_id, .*again/, 'it says to repeat the call');
	is(rows_of($server, $number) . rows_deleted($case_id), '1 2', 'no row is gone that is not counted');
	gate_holds($number);

	carry_out_again($case_id, $number);
	is(rows_deleted($case_id), 'public.patient 1, public.tumour 2', 'the rows are counted once');
	like($server->safe_psql('postgres', "SELECT ndrs_optout.complete_case($case_id)"),
		qr/National Cancer Register: 3 entries$/m, 'and so says the letter');
};

subtest 'killed in step 3, with a row that came in meanwhile' => sub {
	my $number = $TEST_NUMBERS[2];
	hold_patient($server, 4, $number);
	my $case_id = ready_case($server, $number);

	my $writer = open_session($server);
	run_in($writer, "BEGIN; INSERT INTO patient VALUES (5, '$number', 'seeded name')");
	my $call = start_sql($server, "CALL ndrs_optout.carry_out($case_id, '$number')");
	wait_until_waiting($server, 'CALL');

	# Step 3 may erase and count, but not say so.
	my $blocker = open_session($server);
	run_in($blocker, 'BEGIN; LOCK TABLE ndrs_optout.optout_case IN SHARE MODE');
	run_in($writer, 'COMMIT');
	$server->poll_query_until('postgres', q{
		SELECT EXISTS (SELECT FROM pg_locks
			WHERE relation = 'ndrs_optout.optout_case'::regclass AND NOT granted)})
	  or die 'step 3 does not wait';

	kill_server($server);
	abandon($_) foreach $writer, $blocker;
	finish_sql($call);
	$server->start;

	is(case_state($server, $case_id), 'excluded', 'the case is not taken for carried out');
	is(rows_of($server, $number) . rows_deleted($case_id), '2 2', 'no row is gone that is not counted');
	gate_holds($number);

	carry_out_again($case_id, $number);
	is(rows_deleted($case_id), 'public.patient 2, public.tumour 2', 'what the crash undid is not counted');
	like($server->safe_psql('postgres', "SELECT ndrs_optout.complete_case($case_id)"),
		qr/National Cancer Register: 4 entries$/m, 'and so says the letter');
};

subtest 'killed before step 1 commits' => sub {
	my $number = $TEST_NUMBERS[3];
	hold_patient($server, 6, $number);
	my $case_id = ready_case($server, $number);

	# Step 1 excludes and erases, and waits with its last statement.
	my $blocker = open_session($server);
	run_in($blocker, 'BEGIN; LOCK TABLE ndrs_optout.optout_case IN SHARE MODE');
	my $call = start_sql($server, "CALL ndrs_optout.carry_out($case_id, '$number')");
	wait_until_waiting($server, 'CALL');

	kill_server($server);
	abandon($blocker);
	finish_sql($call);
	$server->start;

	is(case_state($server, $case_id), 'ready', 'the case is ready, as before');
	like(next_action($case_id), qr/CALL ndrs_optout\.carry_out\($case_id, \.\.\.\)$/, 'it says to make the call');
	is(rows_of($server, $number), '1 2', 'every row is there');
	is($server->safe_psql('postgres', "SELECT ndrs_optout.is_excluded('$number', 'cancer')"),
		'f', 'the patient is not on the list');
	is(rows_deleted($case_id), '', 'no deletion is recorded');

	carry_out_again($case_id, $number);
	is(rows_deleted($case_id), 'public.patient 1, public.tumour 2', 'the rows are counted once');
	gate_holds($number);
};

# A loader's database may have commits that do not wait for the disk.  Officers
# act on what these functions return: the letter goes out.
subtest 'killed after the letter, with asynchronous commits' => sub {
	my $number = $TEST_NUMBERS[4];
	hold_patient($server, 7, $number);
	my $case_id = ready_case($server, $number);

	like(
		$server->safe_psql('postgres', qq{
			SET synchronous_commit = off;
			CALL ndrs_optout.carry_out($case_id, '$number');
			SELECT ndrs_optout.complete_case($case_id)}),
		qr/National Cancer Register: 3 entries$/m,
		'there is a letter');
	kill_server($server);
	$server->start;
	is(case_state($server, $case_id), 'completed', 'the case is still completed');
	is(rows_of($server, $number), '0 0', 'the rows are still gone');
	is($server->safe_psql('postgres', "SELECT ndrs_optout.is_excluded('$number', 'cancer')"),
		't', 'the patient is still on the list');
};

# A recipient has the letter: the patient is told that it was asked, and it can be chased.
subtest 'killed after a letter to a recipient, with asynchronous commits' => sub {
	my $number = $TEST_NUMBERS[6];
	my $case_id = ready_case($server, $number);

	$server->safe_psql('postgres', qq{
		SELECT ndrs_optout.add_recipient('hospital', 'Hospital', 'nhs_number');
		SELECT ndrs_optout.add_agreement('hospital', 'consent', 'agreement 1', '2000-01-01', '2099-12-31');
		SELECT ndrs_optout.record_release('{$number}'::ndrs_optout.nhs_number[], 'explicit_consent', NULL, 'hospital', current_date, 'order');
		CALL ndrs_optout.carry_out($case_id, '$number')});
	like($server->safe_psql('postgres', "SET synchronous_commit = off; SELECT ndrs_optout.issue_recall_letter(1, '$number')"),
		qr/To Hospital/, 'there is a letter');
	kill_server($server);
	$server->start;
	is($server->safe_psql('postgres', 'SELECT asked_at IS NOT NULL FROM ndrs_optout.recall_notice WHERE notice_id = 1'),
		't', 'the recipient was asked');
	$server->safe_psql('postgres', 'SET synchronous_commit = off; SELECT ndrs_optout.chase_recall(1)');
	kill_server($server);
	$server->start;
	is($server->safe_psql('postgres', 'SELECT chased_on IS NOT NULL FROM ndrs_optout.recall_notice WHERE notice_id = 1'),
		't', 'and reminded');
};

subtest 'killed after exclude(), with asynchronous commits' => sub {
	my $number = $TEST_NUMBERS[5];
	$server->safe_psql('postgres', "SET synchronous_commit = off; SELECT ndrs_optout.exclude('$number', '{cancer}')");
	kill_server($server);
	$server->start;
	is($server->safe_psql('postgres', "SELECT ndrs_optout.is_excluded('$number', 'cancer')"),
		't', 'the patient is still on the list');
};

# Whatever else somebody is told is done: each of these commits as the first after a
# crash, so that nothing later brings it to disk.
subtest 'killed after anything that an officer or a DBA is told is done' => sub {
	my $public_key = slurp_file("$FindBin::RealBin/../keys/guardian.public.asc");
	my $case = $server->safe_psql('postgres', "SELECT ndrs_optout.open_case('$TEST_NUMBERS[7]', '{cancer}')");
	my $other = $server->safe_psql('postgres', "SELECT ndrs_optout.open_case('$TEST_NUMBERS[8]', '{cancer}')");
	my $third = $server->safe_psql('postgres', "SELECT ndrs_optout.open_case('$TEST_NUMBERS[9]', '{cancer}')");
	$server->safe_psql('postgres', 'CREATE ROLE officer; CREATE TABLE late (nhs text)');

	# Everything that the extension holds, in one hash
	my $held = sub {
		return $server->safe_psql('postgres', q{
			SELECT md5(string_agg(query_to_xml(format('SELECT t::text FROM %s t ORDER BY 1', c.oid::regclass), true, true, '')::text,
					'' ORDER BY c.oid))
				FROM pg_class c WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind = 'r'});
	};
	my @calls = (
		"ndrs_optout.open_case('$TEST_NUMBERS[10]', '{cancer}')",
		"ndrs_optout.record_identity($case, 'identity', 'passport')",
		"ndrs_optout.record_guardian_call($case, 'offered')",
		"ndrs_optout.set_confidential_key('$public_key')",
		"ndrs_optout.record_correspondence($case, 'form', 'the form')",
		"ndrs_optout.place_hold($case, 'complaint')",
		"ndrs_optout.lift_hold(1)",
		"ndrs_optout.withdraw_case($other)",
		"ndrs_optout.refuse_case($third, 'not for this register')",
		"ndrs_optout.request_subject_access('$TEST_NUMBERS[7]')",
		"ndrs_optout.record_subject_access_proof(1, 'identity', 'passport')",
		"ndrs_optout.answer_subject_access(1, '$TEST_NUMBERS[7]')",
		"ndrs_optout.disclose_records('$TEST_NUMBERS[7]')",
		"ndrs_optout.add_recipient('charity', 'Charity', 'nhs_number')",
		"ndrs_optout.add_agreement('charity', 'consent', 'agreement 1', '2000-01-01', '2099-12-31')",
		"ndrs_optout.grant_exemption('research', 'charity', 'approval 26')",
		'ndrs_optout.end_exemption(1)',
		"ndrs_optout.grant_access('officer', 'officer')",
		"ndrs_optout.revoke_access('officer', 'officer')",
		"ndrs_optout.guard_table('late', 'nhs', '{cancer}')",
		"ndrs_optout.unguard_table('late')",
		"ndrs_optout.audit('an event')",
		'ndrs_optout.purge()');
	my @statements = ((map { "SELECT $_" } @calls),
		'UPDATE ndrs_optout.policy SET deadline_days = deadline_days + 1',
		"INSERT INTO ndrs_optout.bank_holiday (day, name) VALUES ('2036-12-25', 'Christmas Day')");
	foreach my $statement (@statements)
	{
		my ($what) = $statement =~ /ndrs_optout\.(\w+)/;
		my $before = $held->();
		$server->safe_psql('postgres', "SET synchronous_commit = off; $statement");
		my $done = $held->();
		kill_server($server);
		$server->start;
		isnt($done, $before, "$what: done");
		is($held->(), $done, "$what: and still done");
	}
};

is(rows_of($server, $NEIGHBOUR), '1 2', 'the other patient lost nothing in all this');

$server->stop;
done_testing();
