# Prepared transactions: writers that belong to no session.
#
# The hazard: a loader's transaction passed the guard, was prepared, and is
# committed a week after the patient was told that nothing is left.  Such a
# transaction must be waited for like any other writer, also after a restart,
# and the session that waits must be told for what.  The other way round, an
# exclusion that was prepared must reach the sessions that are there when it is
# committed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('carry_out_prepared');
install_extension($server);
create_registry($server);

# A row of the patient that has passed the guard
sub prepare_row
{
	my ($name, $patient_id, $number) = @_;
	$server->safe_psql('postgres', qq{
		BEGIN;
		INSERT INTO patient VALUES ($patient_id, '$number', 'seeded name');
		PREPARE TRANSACTION '$name';
	});
	return;
}

# The call gives up, says for what it waited, and certifies nothing.
sub waits_for_prepared
{
	my ($case_id, $number) = @_;
	my $messages = refused_with($server, '55P03',
		"SET lock_timeout = '100ms'; CALL ndrs_optout.carry_out($case_id, '$number')",
		'the call waits until lock_timeout');

	like($messages, qr/ERROR:  55P03: lock timeout while waiting for transactions that began to write/,
		'the message says what it waited for');
	like($messages, qr/^DETAIL:  [^\n]*prepared transaction[^\n]*table public\.patient\b/mi,
		'the detail names the kind of transaction and the table');
	like($messages, qr/^HINT:  The patient stays excluded\. .*carry_out/m, 'the hint says what to do');
	is(case_state($server, $case_id), 'excluded', 'the case is not carried out');
	return;
}

sub carry_out
{
	my ($case_id, $number, $deleted) = @_;
	my ($status, undef, $messages) = try_sql($server, "CALL ndrs_optout.carry_out($case_id, '$number')");

	is($status, 0, 'the call succeeds') or diag($messages);
	is(case_state($server, $case_id), 'carried_out', 'the case is carried out');
	is(rows_of($server, $number), '0 0', 'nothing of the patient is left');
	is($server->safe_psql('postgres', qq{
			SELECT sum(row_count) FROM ndrs_optout.case_erasure
				WHERE case_id = $case_id AND relation = 'public.patient'}),
		$deleted, "$deleted of the patient's rows are counted as deleted");
	return;
}

subtest 'the row is committed later' => sub {
	my $number = $TEST_NUMBERS[0];
	my $case_id = ready_case($server, $number);
	prepare_row('later', 1, $number);

	waits_for_prepared($case_id, $number);
	$server->safe_psql('postgres', q{COMMIT PREPARED 'later'});
	is(rows_of($server, $number), '1 0', 'the row comes in');
	carry_out($case_id, $number, 1);
};

subtest 'the row is rolled back later' => sub {
	my $number = $TEST_NUMBERS[1];
	my $case_id = ready_case($server, $number);
	prepare_row('never', 2, $number);

	waits_for_prepared($case_id, $number);
	$server->safe_psql('postgres', q{ROLLBACK PREPARED 'never'});
	carry_out($case_id, $number, 0);
};

subtest 'the row is committed while the call waits' => sub {
	my $number = $TEST_NUMBERS[2];
	my $case_id = ready_case($server, $number);
	prepare_row('meanwhile', 3, $number);

	my $call = start_sql($server, "CALL ndrs_optout.carry_out($case_id, '$number')");
	wait_until_waiting($server, 'CALL');
	$server->safe_psql('postgres', q{COMMIT PREPARED 'meanwhile'});
	my ($status, undef, $messages) = finish_sql($call);

	is($status, 0, 'the call comes to its end');
	like($messages, qr/NOTICE: .*waiting for transactions.*prepared transaction/is, 'it had said that it waits');
	is(case_state($server, $case_id), 'carried_out', 'the case is carried out');
	is(rows_of($server, $number), '0 0', 'the row is gone');
};

subtest 'the server is restarted in between' => sub {
	my $number = $TEST_NUMBERS[3];
	my $case_id = ready_case($server, $number);
	prepare_row('restart', 4, $number);
	$server->restart;

	waits_for_prepared($case_id, $number);
	$server->safe_psql('postgres', q{COMMIT PREPARED 'restart'});
	carry_out($case_id, $number, 1);
};

subtest 'a row under a partition' => sub {
	my $number = $TEST_NUMBERS[4];
	$server->safe_psql('postgres', q{
		CREATE TABLE referral (nhs_number ndrs_optout.nhs_number, year int) PARTITION BY LIST (year);
		CREATE TABLE referral_1 PARTITION OF referral FOR VALUES IN (1);
		SELECT ndrs_optout.guard_table('referral', 'nhs_number', '{cancer}');
	});
	my $case_id = ready_case($server, $number);
	# Straight into the partition: the partitioned table is not locked.
	$server->safe_psql('postgres', qq{
		BEGIN; INSERT INTO referral_1 VALUES ('$number', 1); PREPARE TRANSACTION 'partition'});

	my $messages = refused_with($server, '55P03',
		"SET lock_timeout = '100ms'; CALL ndrs_optout.carry_out($case_id, '$number')",
		'the call waits until lock_timeout');
	like($messages, qr/is writing to table public\.referral_1\b/, 'the detail names the partition');
	$server->safe_psql('postgres', q{COMMIT PREPARED 'partition'});
	is($server->safe_psql('postgres', 'SELECT count(*) FROM referral'), 1, 'the row comes in');
	is((try_sql($server, "CALL ndrs_optout.carry_out($case_id, '$number')"))[0], 0, 'the call succeeds');
	is($server->safe_psql('postgres', 'SELECT count(*) FROM referral'), 0, 'the row is gone');
};

# What another session does at COMMIT PREPARED must reach a backend that has
# built its copy of the list, whatever transaction it is in.
sub exclusion_arrives
{
	my ($name, $number, $restart) = @_;
	$server->safe_psql('postgres', qq{
		BEGIN; SELECT ndrs_optout.exclude('$number', '{cancer}'); PREPARE TRANSACTION '$name'});
	$server->restart if $restart;

	my $loader = open_session($server);
	my $analyst = open_session($server);
	my $insert = "INSERT INTO patient VALUES (10, '$number', 'seeded name')";
	my $look = "SELECT ndrs_optout.is_excluded('$number', 'cancer')";
	run_in($analyst, 'BEGIN ISOLATION LEVEL REPEATABLE READ');
	my (undef, $before) = run_in($loader, "BEGIN; $insert; ROLLBACK");
	is($before, '', 'while it is prepared, the row enters');
	is(run_in($analyst, $look), 'f', 'and the patient is not on the list');

	$server->safe_psql('postgres', "COMMIT PREPARED '$name'");
	my (undef, $after) = run_in($loader, $insert);
	is(sqlstate($after), '23N01', 'when it is committed, the same session refuses the row');
	is(run_in($analyst, $look), 't', 'and one in REPEATABLE READ finds the patient on the list');
	close_session($_) foreach $loader, $analyst;
	return;
}

subtest 'an exclusion is prepared' => sub { exclusion_arrives('exclude', $TEST_NUMBERS[5], 0) };
subtest 'an exclusion is prepared before a restart' => sub { exclusion_arrives('exclude', $TEST_NUMBERS[6], 1) };

# The wait for the writers of the list itself must be explained too.  (One that has
# excluded somebody also holds the audit's end, and the first step waits for that.)
subtest 'a writer of the list is prepared' => sub {
	my $number = $TEST_NUMBERS[7];
	my $case_id = ready_case($server, $number);
	$server->safe_psql('postgres', qq{
		BEGIN; LOCK TABLE ndrs_optout.exclusion IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'other'});

	my $messages = refused_with($server, '55P03',
		"SET lock_timeout = '100ms'; CALL ndrs_optout.carry_out($case_id, '$number')",
		'the call waits until lock_timeout');
	like($messages, qr/^DETAIL:  [^\n]*prepared transaction[^\n]* table ndrs_optout\.exclusion\b/mi,
		'the detail names the exclusion list');
	$server->safe_psql('postgres', q{ROLLBACK PREPARED 'other'});
	carry_out($case_id, $number, 0);
};

# It would take the patient off the list when everything has been certified.
subtest 'a readmission is prepared' => sub {
	my $number = $TEST_NUMBERS[9];
	my $case_id = ready_case($server, $number);
	$server->safe_psql('postgres', qq{
		SELECT ndrs_optout.exclude('$number', '{cancer}');
		BEGIN; SELECT ndrs_optout.readmit('$number', '{cancer}'); PREPARE TRANSACTION 'readmit'});

	refused_with($server, '55P03',
		"SET lock_timeout = '100ms'; CALL ndrs_optout.carry_out($case_id, '$number')",
		'the call waits until lock_timeout');
	isnt(case_state($server, $case_id), 'carried_out', 'the case is not carried out');
	$server->safe_psql('postgres', q{COMMIT PREPARED 'readmit'});
	carry_out($case_id, $number, 0);
	is($server->safe_psql('postgres', "SELECT ndrs_optout.is_excluded('$number', 'cancer')"),
		't', 'and the patient is on the list');
};

# A skipped row is counted when its transaction has really happened.
subtest 'skipped rows are counted' => sub {
	my $excluded = $TEST_NUMBERS[0];
	my $count = q{SELECT coalesce(sum(rows_skipped), 0) FROM ndrs_optout.guard_count WHERE target = 'feed'::regclass};
	$server->safe_psql('postgres', qq{
		CREATE TABLE feed (nhs_number text);
		SELECT ndrs_optout.guard_table('feed', 'nhs_number', '{cancer}', on_match => 'skip');
		BEGIN; INSERT INTO feed VALUES ('$excluded'), ('$TEST_NUMBERS[8]'); PREPARE TRANSACTION 'kept';
		BEGIN; INSERT INTO feed VALUES ('$excluded'), ('$excluded'); PREPARE TRANSACTION 'dropped';
	});
	is($server->safe_psql('postgres', $count), 0, 'not before the commit');
	$server->safe_psql('postgres', q{COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'dropped'});
	is($server->safe_psql('postgres', $count), 1, 'what was committed, and not what was rolled back');
};

# Whoever watches over the server is told before somebody waits.
subtest 'health() tells of old ones that would be waited for' => sub {
	my $told = sub {
		my ($age) = @_;
		return $server->safe_psql('postgres', "SELECT status, detail FROM ndrs_optout.health_prepared_transactions('$age')");
	};
	my $begins = 'carry_out() would wait for:';
	$server->safe_psql('postgres', q{
		CREATE TABLE elsewhere (id int);
		BEGIN; INSERT INTO elsewhere VALUES (1); PREPARE TRANSACTION 'elsewhere';
		BEGIN; SELECT FROM patient; PREPARE TRANSACTION 'reader';
	});
	is($told->('0'), "ok|$begins 0, older than 00:00:00: 0", 'not of one that has written elsewhere, or only read');
	prepare_row('old', 11, $TEST_NUMBERS[8]);
	is($told->('0'), "warning|$begins 1, older than 00:00:00: 1", 'of one that has written to a guarded table');
	is($told->('1 hour'), "ok|$begins 1, older than 01:00:00: 0", 'not while it is young');
	$server->restart;
	is($told->('0'), "warning|$begins 1, older than 00:00:00: 1", 'after a restart as well');
	$server->safe_psql('postgres', qq{
		ROLLBACK PREPARED 'old';
		BEGIN; SELECT ndrs_optout.exclude('$TEST_NUMBERS[8]', '{cancer}'); PREPARE TRANSACTION 'list'});
	is($told->('0'), "warning|$begins 1, older than 00:00:00: 1", 'of one that has written to the list');
	$server->safe_psql('postgres', q{
		ROLLBACK PREPARED 'list';
		SELECT ndrs_optout.add_recipient('hospital', 'Hospital', 'nhs_number')});
	my $numbers = "'{$TEST_NUMBERS[8]}'::ndrs_optout.nhs_number[]";
	foreach my $call ("record_release($numbers, 'direct_care', NULL, 'hospital', current_date, 'order')", "start_national_check($numbers)")
	{
		$server->safe_psql('postgres', "BEGIN; SELECT ndrs_optout.$call; PREPARE TRANSACTION 'call'");
		is($told->('0'), "warning|$begins 1, older than 00:00:00: 1", 'of ' . ($call =~ s/\(.*//r));
		$server->safe_psql('postgres', "ROLLBACK PREPARED 'call'");
	}
	$server->safe_psql('postgres', "ROLLBACK PREPARED '$_'") foreach qw(reader elsewhere);
	is($told->('0'), "ok|$begins 0, older than 00:00:00: 0", 'of none when they are gone');
};

subtest 'a partition with rows does not leave its guard in a prepared transaction' => sub {
	$server->safe_psql('postgres', q{
		CREATE TABLE visit (nhs_number text, year int) PARTITION BY LIST (year);
		CREATE TABLE visit_1 PARTITION OF visit FOR VALUES IN (1);
		CREATE TABLE visit_2 PARTITION OF visit FOR VALUES IN (2);
		INSERT INTO visit VALUES (NULL, 1);
		SELECT ndrs_optout.guard_table('visit', 'nhs_number', '{cancer}')});
	refused_with($server, 'ND050', q{
		BEGIN; ALTER TABLE visit DETACH PARTITION visit_1; PREPARE TRANSACTION 'detach'}, 'one with a row is refused');
	$server->safe_psql('postgres', q{
		BEGIN; ALTER TABLE visit DETACH PARTITION visit_2; PREPARE TRANSACTION 'detach'});
	$server->safe_psql('postgres', "COMMIT PREPARED 'detach'");
	is($server->safe_psql('postgres', 'SELECT count(*) FROM pg_inherits WHERE inhparent = $$visit$$::regclass'), '1',
		'an empty one may go');
};

$server->stop;
done_testing();
