# What is left in the log of a statement that is cancelled, terminated, timed out or
# caught in a deadlock, at whatever moment.
#
# The hazard: functions that take an NHS number keep their caller's statement out of
# the log by a setting, and the server's own errors do not wait for it: they come
# before a function begins (parsing, planning), when it has returned (COMMIT, deferred
# triggers, the wait for a standby), and at the end of a session.  The number is then
# in the log for years.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my ($TYPED, $CONTROL) = @TEST_NUMBERS[ 0, 8 ];

my $server = new_server('privacy_log', init => { allows_streaming => 1 }, settings => q{
log_min_error_statement = error
log_error_verbosity = verbose
log_parameter_max_length_on_error = -1
log_lock_waits = on
deadlock_timeout = 50ms
});
install_extension($server);
create_registry($server);
$server->safe_psql('postgres', q{CREATE TABLE a (id int); CREATE TABLE b (id int)});

# A test: the log has the error, with another statement's text and not with this one's.
sub told_silently
{
	my ($error, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = new_log($server);
	like($log, $error, "$name: the log has the error");
	ok(!holds_number($log, $TYPED), "$name: and no number") or diag($log);
	return;
}

# Ends what waits, by cancelling or terminating it.
sub end_waiting
{
	my ($function, $condition) = @_;
	$server->poll_query_until('postgres', qq{
		SELECT count($function(pid)) > 0 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND $condition})
	  or die 'nothing waits';
	return;
}

sub load_in
{
	my ($session) = @_;
	run_in($session, 'SELECT ndrs_optout.nhs_number_or_null(NULL::text)');
	run_in($session, "LOAD 'ndrs_optout'");
	return $session;
}

# Without the library, a statement with a number is in the log, or this test shows nothing.
subtest 'where the library is not loaded' => sub {
	try_sql($server, "SELECT nosuch('$CONTROL')");
	ok(holds_number(new_log($server), $CONTROL), 'a statement with a number is in the log');
	my $session = load_in(open_session($server));
	run_in($session, "SELECT 1 / 0, '$TYPED'");
	told_silently(qr/division by zero/, 'and, when it is loaded by the session');
	run_in($session, "SELECT 1 / 0, 'no number'");
	like(new_log($server), qr/STATEMENT: .*no number/, 'a statement without a number is still there');
	close_session($session);
};

# COMMIT waits for a standby that never comes: the function has returned.
subtest 'terminated while COMMIT waits' => sub {
	my $case_id = ready_case($server, $TYPED);
	$server->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'\n");
	$server->restart;
	my %calls = (
		carry_out => "CALL ndrs_optout.carry_out($case_id, '$TYPED')",
		open_case => "SELECT ndrs_optout.open_case('$TYPED', '{rare_disease}')");
	foreach my $name (sort keys %calls)
	{
		new_log($server);
		my $call = start_sql($server, $calls{$name});
		end_waiting('pg_terminate_backend', "wait_event = 'SyncRep'");
		finish_sql($call);
		told_silently(qr/terminating connection/, $name);
	}
	$server->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
	$server->restart;
};

subtest 'a lock that is waited for before a function begins' => sub {
	my $holder = open_session($server);
	my $waiter = load_in(open_session($server));
	run_in($holder, 'BEGIN; LOCK TABLE a, ndrs_optout.register');
	new_log($server);
	run_in($waiter, "SET lock_timeout = '200ms'");
	# The client shows what of its statement is near a: no number.
	run_in($waiter, "SELECT ndrs_optout.open_case('$TYPED', '{cancer}'), '" . 'x' x 80 . "' FROM a");
	told_silently(qr/still waiting for .*lock timeout/s, 'at parsing');
	run_in($waiter, "SELECT * FROM ndrs_optout.share_summary('SELECT ''$TYPED''', 'research')");
	told_silently(qr/ERROR/s, 'in a query that is given as text');
	run_in($holder, 'ROLLBACK');

	run_in($waiter, 'SET lock_timeout = 0');
	run_in($holder, 'BEGIN; LOCK TABLE a');
	run_in($waiter, 'BEGIN; LOCK TABLE b');
	my $other = start_sql($server, "LOAD 'ndrs_optout'", "BEGIN; LOCK TABLE a, b /* $TYPED */");
	run_in($holder, 'COMMIT');
	wait_until_waiting($server, 'BEGIN; LOCK');
	run_in($waiter, "LOCK TABLE a /* $TYPED */");
	finish_sql($other);
	run_in($waiter, 'ROLLBACK');
	told_silently(qr/deadlock detected/, 'a deadlock, in which others have their statements');
	close_session($_) foreach $holder, $waiter;
};

# What is bound is in the context of an error.
subtest 'a parameter' => sub {
	my $script = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
	append_to_file($script, "\\set number $TYPED\nLOAD 'ndrs_optout';\nSELECT 1 / (:number::bigint - :number::bigint);\n");
	new_log($server);
	IPC::Run::run([ 'pgbench', '-n', '-M', 'extended', '-t', '1', '-f', $script, $server->connstr('postgres') ],
		'<', \undef, '>', \my $output, '2>', \my $messages);
	told_silently(qr/division by zero/, 'bound');
};

# At any moment, as often as there is time for
subtest 'a storm' => sub {
	new_log($server);
	my $case_id = $server->safe_psql('postgres', "SELECT max(case_id) FROM ndrs_optout.case_progress WHERE state <> 'awaiting_identity'");
	my $killer = open_session($server);
	my %ends;
	foreach my $round (1 .. 60)
	{
		my $call = start_sql($server, "LOAD 'ndrs_optout'",
			map { $_ % 2 ? "CALL ndrs_optout.carry_out($case_id, '$TYPED')"
				: "SELECT ndrs_optout.disclose_records('$TYPED')" } 1 .. 20);
		sleep 0.03 + rand 0.12;
		run_in($killer, sprintf q{
			SELECT %s(pid) FROM pg_stat_activity
				WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()},
			$round % 2 ? 'pg_cancel_backend' : 'pg_terminate_backend');
		my ($status, undef, $messages) = finish_sql($call);
		$ends{$1}++ if $messages =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5})/;
	}
	close_session($killer);
	ok($ends{57014} && $ends{'57P01'}, 'statements were cancelled, and terminated') or diag(explain(\%ends));
	told_silently(qr/canceling statement/, 'a storm');
};

$server->stop;
done_testing();
