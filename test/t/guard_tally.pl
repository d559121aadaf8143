# What guards reject is counted when the session ends.
#
# The hazards: a load that fails is often all that its session does, and it can end in
# any way; and the end of a session must not fail, wait or say anything for the count.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($excluded, $allowed) = @TEST_NUMBERS[ 0, 1 ];
my $key = random_key();
my $registry = new_server('registry', key => $key, init => { allows_streaming => 1 });
install_extension($registry);
$registry->safe_psql('postgres', qq{
	SELECT ndrs_optout.exclude('$excluded', '{cancer}');
	CREATE TABLE feed (nhs text);
	CREATE TABLE checked (nhs text);
	SELECT ndrs_optout.guard_table('feed', 'nhs', '{cancer}'),
		ndrs_optout.guard_table('checked', 'nhs', '{cancer}', mechanism => 'constraint');
	CREATE ROLE loader LOGIN;
	GRANT INSERT ON feed TO loader;
});
my $file = $registry->basedir . '/delivery.txt';
append_to_file($file, "$allowed\n$excluded\n$excluded\n");

sub rejected
{
	my ($table) = @_;
	return $registry->safe_psql('postgres', "SELECT coalesce(sum(rows_rejected), 0)
		FROM ndrs_optout.guard_count WHERE target = '$table'::regclass AND finding = 'excluded'");
}

# The process may be a moment behind its client.
sub counts
{
	my ($table, $rows, $name) = @_;
	return ok($registry->poll_query_until('postgres', "SELECT coalesce(sum(rows_rejected), 0) = $rows
		FROM ndrs_optout.guard_count WHERE target = '$table'::regclass AND finding = 'excluded'"), $name);
}

sub ended
{
	my ($pid) = @_;
	return ok($registry->poll_query_until('postgres',
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)"), 'the session is over');
}

sub refuse
{
	my ($session, $table) = @_;
	return run_in($session, "DO \$\$ BEGIN INSERT INTO $table VALUES ('$excluded');
		EXCEPTION WHEN SQLSTATE '23N01' THEN NULL; END \$\$; SELECT pg_backend_pid()");
}

new_log($registry);

# -------------------------------------------------------------- ways to end

isnt(try_sql($registry, "\\copy feed FROM '$file'"), undef, 'a load fails');
counts('feed', 1, 'and its session has left a count, of the refusal and not of the rows behind it');
isnt(try_sql($registry, "\\copy checked FROM '$file'"), undef, 'the same with the constraint alone');
counts('checked', 1, 'which is counted');

$registry->psql('postgres', "\\copy feed FROM '$file'", connstr => $registry->connstr('postgres') . ' user=loader');
counts('feed', 2, 'a role that may only insert leaves one, too');

my $session = open_session($registry);
run_in($session, 'BEGIN');
run_in($session, "INSERT INTO feed VALUES ('$allowed')");
my $pid = refuse($session, 'feed');
$registry->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
counts('feed', 3, 'so does one that is terminated in a transaction');
is($registry->safe_psql('postgres', 'SELECT count(*) FROM feed'), 0, 'of which nothing stays');
abandon($session);

# A prepared transaction may be rolled back: it takes nothing along.
$session = open_session($registry);
run_in($session, 'BEGIN');
run_in($session, "INSERT INTO feed VALUES ('$allowed')");
refuse($session, 'feed');
run_in($session, "PREPARE TRANSACTION 'undone'; ROLLBACK PREPARED 'undone'");
close_session($session);
counts('feed', 4, 'nor is one lost that was refused in a prepared transaction');

# ------------------------------------------- what the end does not wait for

subtest 'the table of counts is locked' => sub {
	my $holder = open_session($registry);
	$session = open_session($registry);
	$pid = refuse($session, 'feed');
	run_in($holder, 'BEGIN; LOCK TABLE ndrs_optout.guard_tally');
	close_session($session);
	ended($pid);
	run_in($holder, 'ROLLBACK');
	close_session($holder);
	is(rejected('feed'), 4, 'without a count');
};

subtest 'no synchronous standby is there' => sub {
	$session = open_session($registry);
	$pid = refuse($session, 'feed');
	$registry->append_conf('postgresql.conf', "synchronous_standby_names = 'nowhere'");
	reload_and_wait($registry, $session);
	# Whether commits wait is the checkpointer's to say, which reads the setting in its own time.
	my $waiting = start_sql($registry, 'CREATE TABLE waiting ()');
	$registry->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')})
	  or die 'no commit waits';
	close_session($session);
	ended($pid);
	$registry->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$registry->reload;
	finish_sql($waiting);
	counts('feed', 5, 'with its count');
};

subtest 'the table does not fit' => sub {
	$session = open_session($registry);
	$pid = refuse($session, 'feed');
	$registry->safe_psql('postgres', 'ALTER TABLE ndrs_optout.guard_tally RENAME rows TO counted');
	close_session($session);
	ended($pid);
	$registry->safe_psql('postgres', 'ALTER TABLE ndrs_optout.guard_tally RENAME counted TO rows');
	is(rejected('feed'), 5, 'without a count');
};

subtest 'the database may not be written to' => sub {
	$session = open_session($registry);
	$pid = refuse($session, 'feed');
	run_in($session, 'SET default_transaction_read_only = on');
	close_session($session);
	ended($pid);
	is(rejected('feed'), 5, 'and is not');
};

subtest 'the extension is dropped' => sub {
	$registry->safe_psql('postgres', 'CREATE DATABASE brief');
	install_extension($registry, 'brief');
	$registry->safe_psql('brief', "SELECT ndrs_optout.exclude('$excluded', '{cancer}');
		CREATE TABLE feed (nhs text);
		SELECT ndrs_optout.guard_table('feed', 'nhs', '{cancer}')");
	my @sessions = map { open_session($registry, 'brief') } 1 .. 2;
	my @pids = map { scalar refuse($_, 'feed') } @sessions;
	$registry->safe_psql('brief', q{SELECT ndrs_optout.unguard_table('feed'); DROP EXTENSION ndrs_optout});
	close_session($sessions[0]);
	ended($pids[0]);

	# The session writes while it is told to go.
	install_extension($registry, 'brief');
	$registry->safe_psql('postgres', 'DROP DATABASE brief WITH (FORCE)');
	ended($pids[1]);
	abandon($sessions[1]);
};

# ------------------------------------------------------------------ a standby

subtest 'a standby' => sub {
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$registry->backup('copy');
	$standby->init_from_backup($registry, 'copy', has_streaming => 1);
	write_key($standby, $key);
	$standby->append_conf('postgresql.conf', "ndrs_optout.key_file = '" . key_path($standby) . "'");
	$standby->start;
	my $answer = $standby->psql('postgres', "SELECT ndrs_optout.guard_admits('feed'::regclass, 'feed'::regclass,
		'$excluded'::text, '{cancer}', 'allow', 'reject')");
	isnt($answer, 0, 'a guard answers there');
	$standby->stop;
	unlike(join("\n", grep { !/walreceiver/ } split /\n/, slurp_file($standby->logfile)), qr/FATAL|PANIC/,
		'and the session ends in silence');
};

unlike(join("\n", grep { !/terminating connection/ } split /\n/, new_log($registry)), qr/FATAL|PANIC|WARNING/,
	'no session has ended in an error for its count');
$registry->stop;
done_testing();
