# What the calls of an officer leave on the server, although they succeed.
#
# The hazard: the officer names the patient in each call, and a server can be told
# to write every statement down: into its log, into pg_stat_activity until the next
# statement, into pg_stat_statements for good.  doc/officer.md says what each of
# these keeps of a literal, and the way that leaves nothing: bind parameters and
# a few settings of the role.  Here is the server that remembers the most: first
# the leaks are shown, then that the way leaves nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my ($TYPED, $BOUND, $QUIET, $FOUND, $OTHER) = @TEST_NUMBERS[ 0, 1, 2, 3, 8 ];

my $server = new_server('privacy_officer', settings => q{
shared_preload_libraries = 'pg_stat_statements'
session_preload_libraries = 'auto_explain'
pg_stat_statements.track = all
pg_stat_statements.track_utility = on
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
log_statement = all
log_min_duration_statement = 0
log_min_duration_sample = 0
log_transaction_sample_rate = 1
log_lock_waits = on
deadlock_timeout = 50ms
log_min_error_statement = error
log_error_verbosity = verbose
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
});

# This test's own statements are not the officer's.
my $superuser = getpwuid($<);
$server->safe_psql('postgres', qq{
	ALTER ROLE "$superuser" SET $_->[0] = '$_->[1]'})
  foreach [ 'log_statement', 'none' ], [ 'log_min_duration_statement', -1 ], [ 'log_min_duration_sample', -1 ],
  [ 'log_transaction_sample_rate', 0 ], [ 'log_min_error_statement', 'panic' ], [ 'auto_explain.log_min_duration', -1 ],
  [ 'pg_stat_statements.track', 'none' ], [ 'track_activities', 'off' ];
install_extension($server);
create_registry($server);
$server->safe_psql('postgres', q{
	CREATE EXTENSION pg_stat_statements;
	CREATE ROLE officer LOGIN;
	SELECT ndrs_optout.grant_access('officer', 'officer');
});

# ---------------------------------------------------------- looking for leaks

sub forget
{
	new_log($server);
	$server->safe_psql('postgres', 'SELECT pg_stat_statements_reset()');
	return;
}

sub statements
{
	return $server->safe_psql('postgres', 'SELECT query FROM pg_stat_statements');
}

# What the officer's sessions did last, or do
sub activity
{
	return $server->safe_psql('postgres', q{SELECT query FROM pg_stat_activity WHERE usename = 'officer'});
}

# Statements of the kind, with the number, that the log has an entry for
sub log_entries
{
	my ($log, $kind, $number) = @_;
	return scalar grep { /$kind/ && holds_number($_, $number) } split /^(?=\d{4}-\d\d-\d\d )/m, $log;
}

# --------------------------------------------------------------- the officer

# With literals, by psql
sub as_officer
{
	my ($function, @arguments) = @_;
	local $ENV{PGUSER} = 'officer';
	return $function->($server, @arguments);
}

# With bind parameters, which psql has only from 16 on.  The session stays for a
# while after the statement, so that it can be looked at.
my $script = PostgreSQL::Test::Utils::tempdir() . '/script.sql';

sub start_bound
{
	my ($number, $sql) = @_;
	my %job = (output => '', messages => '');

	unlink $script;
	append_to_file($script, "\\set number $number\n$sql\n\\sleep 1500 ms\n");
	$job{run} = IPC::Run::start(
		[
			'pgbench', '-n', '-M', 'extended', '-t', '1', '-f', $script, '-U', 'officer',
			$server->connstr('postgres')
		],
		'<', \undef, '>', \$job{output}, '2>', \$job{messages},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%job;
}

# All that was said
sub end_bound
{
	my ($job) = @_;
	$job->{run}->finish;
	return "$job->{output}$job->{messages}";
}

sub bound
{
	return end_bound(start_bound(@_));
}

# A test: the call succeeds, and pg_stat_activity shows it without the number.
sub bound_unseen
{
	my ($number, $name, $sql) = @_;
	my $job = start_bound($number, $sql);
	my $seen;
	for (my $try = 0; $try < 100; $try++)
	{
		$seen = $server->safe_psql('postgres', qq{
			SELECT query FROM pg_stat_activity WHERE usename = 'officer' AND state = 'idle' AND query ~ '$name'});
		last if $seen ne '';
		select undef, undef, undef, 0.1;
	}
	my $said = end_bound($job);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike($said, qr/ERROR|aborted/, "$name: succeeds");
	like($seen, qr/$name.*\$1/, "$name: pg_stat_activity has the statement");
	ok(!holds_number("$said$seen", $number), "$name: without the number");
	return;
}

# pg_stat_activity while the call waits for a loader in flight, longer than
# deadlock_timeout, so that the log tells of it
sub seen_while_waiting
{
	my ($start, $end) = @_;
	my $loader = open_session($server);
	run_in($loader, "BEGIN; INSERT INTO patient VALUES (90, '$OTHER', 'name')");
	my $call = $start->();
	$server->poll_query_until('postgres', q{
		SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'officer' AND wait_event_type = 'Lock'})
	  or die 'nothing waits';
	select undef, undef, undef, 0.3;
	my $seen = activity();
	run_in($loader, 'ROLLBACK');
	close_session($loader);
	$end->($call);
	return $seen;
}

sub proofs
{
	my ($case_id) = @_;
	$server->safe_psql('postgres', qq{
		SELECT ndrs_optout.record_identity($case_id, 'identity', 'passport'),
			ndrs_optout.record_identity($case_id, 'address', 'utility_bill')});
	return;
}

sub newest_case
{
	return $server->safe_psql('postgres', 'SELECT max(case_id) FROM ndrs_optout.case_progress');
}

# -------------------------------------------------------------------- the tests

# An error that is the server's own
my $division = 'SELECT 1 / (:number::bigint - :number::bigint);';

# As the table in doc/officer.md has it.
subtest 'what a literal leaves' => sub {
	forget();
	my $officer = as_officer(\&open_session);
	run_in($officer, "SELECT ndrs_optout.open_case('$TYPED', '{cancer}')");
	ok(holds_number(activity(), $TYPED), 'SELECT: pg_stat_activity, until the next statement');
	my $log = new_log($server);
	ok(log_entries($log, qr/LOG: .* statement: SELECT/, $TYPED), 'SELECT: the log, by log_statement');
	ok(log_entries($log, qr/LOG: .* duration: [\d.]+ ms  plan:/, $TYPED), 'SELECT: the log, by auto_explain');
	ok(!holds_number(statements(), $TYPED), 'SELECT: not pg_stat_statements, which writes $1');

	my $case_id = newest_case();
	proofs($case_id);
	close_session($officer);
	my $seen = seen_while_waiting(
		sub { as_officer(\&start_sql, "CALL ndrs_optout.carry_out($case_id, '$TYPED')") }, \&finish_sql);
	like($seen, qr/^CALL ndrs_optout\.carry_out\(#+, '#{10}'\)$/, 'CALL: pg_stat_activity has it, when it waits,');
	ok(!holds_number($seen, $TYPED), 'CALL: without the number');
	ok(log_entries(new_log($server), qr/LOG: .* statement: CALL/, $TYPED), 'CALL: the log');
	is(holds_number(statements(), $TYPED), $server->pg_version < 17 ? 1 : 0, 'CALL: pg_stat_statements, for good, before version 17');
	is(case_state($server, $case_id), 'carried_out', 'and the case was carried out');
};

# Without a client that can bind.  Whoever may read the server's memory is not kept out.
subtest 'literals, and a role that nothing is written down of' => sub {
	forget();
	$server->safe_psql('postgres', "ALTER ROLE officer SET $_") foreach
	  q{log_statement = 'none'}, 'log_min_duration_statement = -1', 'log_min_duration_sample = -1',
	  'log_transaction_sample_rate = 0', 'log_min_error_statement = panic', 'track_activities = off',
	  q{pg_stat_statements.track = 'none'}, 'auto_explain.log_min_duration = -1';
	my $officer = as_officer(\&open_session);
	run_in($officer, "SELECT ndrs_optout.open_case('$QUIET', '{cancer}')");
	my $case_id = newest_case();
	proofs($case_id);
	run_in($officer, "CALL ndrs_optout.carry_out($case_id, '$QUIET')");
	is(case_state($server, $case_id), 'carried_out', 'the case was carried out');
	run_in($officer, "SELECT ndrs_optout.nothing('$QUIET')");
	ok(!holds_number(activity(), $QUIET), 'pg_stat_activity has nothing');
	ok(!holds_number(new_log($server), $QUIET), 'the log has nothing');
	ok(!holds_number(statements(), $QUIET), 'pg_stat_statements has nothing');
	close_session($officer);
	$server->safe_psql('postgres', 'ALTER ROLE officer RESET ALL');
};

subtest 'what a bind parameter leaves without the settings' => sub {
	forget();
	my $said = bound($OTHER, q{SELECT ndrs_optout.erasure_preview(:number, '{cancer}');});
	unlike($said, qr/ERROR|aborted/, 'the call succeeds');
	my $log = new_log($server);
	ok(log_entries($log, qr/parameters: \$1 = /i, $OTHER), 'the log, by log_parameter_max_length');
	ok(log_entries($log, qr/ plan:/, $OTHER), 'the log, by auto_explain');
	bound($OTHER, $division);
	ok(log_entries(new_log($server), qr/ CONTEXT: /, $OTHER), 'the log, by log_parameter_max_length_on_error');
};

subtest 'bind parameters and the settings of the role' => sub {
	$server->safe_psql('postgres', "ALTER ROLE officer SET $_") foreach
	  'log_parameter_max_length = 0', 'log_parameter_max_length_on_error = 0', 'auto_explain.log_min_duration = -1';
	forget();
	bound_unseen($BOUND, 'open_case', q{SELECT ndrs_optout.open_case(:number, '{cancer}');});
	my $case_id = newest_case();
	proofs($case_id);
	hold_patient($server, 1, $BOUND);

	my $seen = seen_while_waiting(
		sub { start_bound($BOUND, "CALL ndrs_optout.carry_out($case_id, :number);") }, \&end_bound);
	like($seen, qr/CALL ndrs_optout\.carry_out/, 'carry_out: pg_stat_activity has the statement while it waits,');
	ok(!holds_number($seen, $BOUND), 'carry_out: without the number');
	is(case_state($server, $case_id), 'carried_out', 'the case was carried out');
	is(rows_of($server, $BOUND), '0 0', 'and the rows are gone');

	bound_unseen($BOUND, 'erasure_preview', q{SELECT ndrs_optout.erasure_preview(:number, '{cancer}');});
	bound_unseen($BOUND, 'supersede_nhs_number', "SELECT ndrs_optout.supersede_nhs_number(:number, '$OTHER');");
	$server->safe_psql('postgres', "SELECT ndrs_optout.complete_case($case_id)");
	bound_unseen($BOUND, 'opt_in', q{SELECT ndrs_optout.opt_in(:number, '{cancer}');});

	# What is refused
	my $mistyped = substr($BOUND, 0, 9) . '7';
	my %refused = (
		'an open case' => [ $BOUND, q{SELECT ndrs_optout.open_case(:number, '{cancer}');} ],
		'no such case' => [ $BOUND, 'CALL ndrs_optout.carry_out(999, :number);' ],
		'a mistyped number' => [ $mistyped, q{SELECT ndrs_optout.open_case(:number, '{cancer}');} ],
		'an error of the server' => [ $BOUND, $division ]);
	foreach my $name (sort keys %refused)
	{
		my $said = bound(@{ $refused{$name} });
		like($said, qr/ERROR|aborted/, "$name: refused");
		ok(!holds_number($said, $_), "$name: the client is told no number") foreach $BOUND, $mistyped;
	}

	my $log = new_log($server);
	like($log, qr/LOG: .* execute <unnamed>: CALL ndrs_optout\.carry_out\($case_id, \$1\)/, 'the log has the statements');
	like($log, qr/LOG: .* still waiting for ShareLock/, 'and the wait');
	like($log, qr/ERROR: .*division by zero/, 'and the error');
	my $encoded = $server->safe_psql('postgres', "SELECT ndrs_optout.encode_nhs_number('$BOUND')");
	ok(!holds_number($log, $_), 'and no number') foreach $BOUND, $mistyped;
	unlike($log, qr/$encoded/, 'nor an encoded one');
	my $statements = statements();
	like($statements, qr/CALL ndrs_optout\.carry_out\((?:$case_id|\$\d), \$\d\)/, 'pg_stat_statements has the statements');
	like($statements, qr/INSERT INTO ndrs_optout\.case_erasure/, 'and what they call');
	ok(!holds_number($statements, $BOUND), 'and no number');
};

# The numbers of an erasure that nobody typed, in the plans of what it calls
subtest 'erasures of numbers that are found' => sub {
	hold_patient($server, 2, $FOUND);
	forget();
	my $owner = open_session($server);
	run_in($owner, 'SET auto_explain.log_min_duration = 0');
	# From version 16 auto_explain logs parameters, unless it is told not to.
	run_in($owner, 'SET auto_explain.log_parameter_max_length = 0') if $server->pg_version >= 16;
	run_in($owner, "SELECT count(*) FROM patient p, ndrs_optout.erase(p.nhs_number, '{cancer}') WHERE p.patient_id = 2");
	close_session($owner);
	my $log = new_log($server);
	like($log, qr/Function Call: ndrs_optout\.erase_with_leads\(/, 'the log has the plans');
	ok(!holds_number($log, $FOUND), 'and no number');
	is($server->safe_psql('postgres', 'SELECT count(*) FROM patient WHERE patient_id = 2'), 0, 'who was erased');
};

$server->stop;
done_testing();
