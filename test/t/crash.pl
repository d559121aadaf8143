# The server dies, with SIGKILL for every process, while a case is carried out.
#
# The hazard: a patient who is half opted out and whom nobody knows to be.  What
# step 1 committed must hold after the crash (the patient stays out), what was
# not committed must leave nothing behind, the case must say where it stands,
# and the same call again must bring it to its end with the right counts.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

# With asynchronous commits, what is committed may stay in memory for so long.
my $server = new_server('crash', settings => "wal_writer_delay = 10s\n");
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

# The patient is stopped at the gate, and nobody else is.
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
		qr/National Cancer Register: 3 records$/m, 'and so says the letter');
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
		qr/National Cancer Register: 4 records$/m, 'and so says the letter');
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
		qr/National Cancer Register: 3 records$/m,
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
		SELECT ndrs_optout.record_release('hospital', 'direct_care', '{$number}'::ndrs_optout.nhs_number[], current_date, 'order');
		CALL ndrs_optout.carry_out($case_id, '$number')});
	like($server->safe_psql('postgres', "SET synchronous_commit = off; SELECT ndrs_optout.recall_letter(1, '$number')"),
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

is(rows_of($server, $NEIGHBOUR), '1 2', 'the other patient lost nothing in all this');

$server->stop;
done_testing();
