# The purge at night, by pg_cron itself.
#
# The hazards: a purge that is scheduled and never runs, unnoticed; a job
# that runs in another database, as another role, or at an isolation level at which
# it fails; a schema that only calls itself cron.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use Installation;
use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'pg_cron is not packaged for this version'
  unless -e configured('pg_config', 'sharedir') . '/extension/pg_cron.control';

my $DAILY = '30 2 * * *';
my $EVERY_MINUTE = '* * * * *';

# A case that was withdrawn four years ago, with the copy of its form, and one from today
sub hold_copies
{
	my ($server, $database) = @_;
	$server->safe_psql($database, qq{
		SELECT ndrs_optout.withdraw_case(ndrs_optout.open_case(n::ndrs_optout.nhs_number, '{cancer}'))
			FROM unnest('{$PATIENT,$NEIGHBOUR}'::text[]) AS n;
		INSERT INTO ndrs_optout.confidential_key (key_id, public_key) VALUES ('0123456789ABCDEF', '\\x00');
		INSERT INTO ndrs_optout.case_correspondence (case_id, kind, received_on, key_id, content)
			SELECT case_id, 'form', current_date, '0123456789ABCDEF', '\\x00' FROM ndrs_optout.optout_case;
		UPDATE ndrs_optout.optout_case SET ended_at = now() - interval '4 years', copy_until = current_date - 365 WHERE case_id = 1;
	});
	return;
}

sub copies
{
	my ($server, $database) = @_;
	return $server->safe_psql($database,
		"SELECT string_agg(case_id::text, ' ' ORDER BY case_id) FROM ndrs_optout.case_correspondence");
}

sub jobs
{
	my ($server) = @_;
	return $server->safe_psql('registry',
		'SELECT jobname, schedule, database, username FROM cron.job WHERE active ORDER BY jobname');
}

# A server with the extension in two databases, one of which pg_cron is to use
sub server_with_databases
{
	my ($name) = @_;
	my $server = new_server($name);
	$server->safe_psql('postgres', 'CREATE DATABASE registry');
	foreach my $database (qw(registry postgres))
	{
		install_extension($server, $database);
		hold_copies($server, $database);
	}
	# What a site may have set must not stop the job.  (pg_cron itself cannot work in a
	# database that is read-only by default.)
	$server->safe_psql('postgres', q{
		ALTER DATABASE registry SET default_transaction_isolation = serializable;
		ALTER DATABASE postgres SET default_transaction_isolation = serializable;
		ALTER DATABASE postgres SET default_transaction_read_only = on;
	});
	return $server;
}

sub load_pg_cron
{
	my ($server, $settings) = @_;
	$server->append_conf('postgresql.conf',
		    "shared_preload_libraries = 'pg_cron,ndrs_optout'\n"
		  . "cron.database_name = 'registry'\n"
		  . $settings);
	$server->restart;
	return;
}

my $server = server_with_databases('workers');
my $owner = $server->safe_psql('postgres', 'SELECT current_user');

subtest 'without pg_cron' => sub {
	# Somebody else's schema is not taken for it.
	$server->safe_psql('registry', q{
		CREATE SCHEMA cron;
		CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE sql RETURN 1;
		CREATE FUNCTION cron.unschedule(bigint) RETURNS boolean LANGUAGE sql RETURN true;
		CREATE TABLE cron.job (jobid bigint, jobname name);
	});
	like(refused_with($server, '55000', 'SELECT ndrs_optout.schedule_purge()', 'the library is not loaded',
			database => 'registry'), qr/pg_cron is not loaded.*HINT: .*cron\.database_name = 'registry'/s, 'says so');

	load_pg_cron($server, "cron.use_background_workers = on\n");
	foreach my $call ('schedule_purge()', 'unschedule_purge()')
	{
		like(refused_with($server, '55000', "SELECT ndrs_optout.$call",
				"$call: the extension is not there, only a schema of that name", database => 'registry'),
			qr/extension pg_cron is not installed in this database/, 'says so');
	}
	$server->safe_psql('registry', q{
		SET client_min_messages = warning;
		DROP SCHEMA cron CASCADE;
		CREATE EXTENSION pg_cron;
	});
};

my $hint;
subtest 'in another database' => sub {
	my $messages = refused_with($server, '55000', 'SELECT ndrs_optout.schedule_purge()', 'is refused');
	like($messages, qr/pg_cron keeps its jobs in database "registry"/, 'says where');
	($hint) = $messages =~ /can call (cron\.schedule_in_database\(.*\)) and cron\.unschedule/;
	ok($hint, 'and how to do it there') or diag $messages;
};

subtest 'scheduled and unscheduled' => sub {
	refused_with($server, '42704', 'SELECT ndrs_optout.unschedule_purge()', 'there is no job yet',
		database => 'registry');
	is($server->safe_psql('registry', 'SELECT ndrs_optout.schedule_purge()'), 'ndrs_optout purge of registry',
		'every night');
	is(jobs($server), "ndrs_optout purge of registry|$DAILY|registry|$owner", 'there is a job');
	foreach my $bad ("'half past two'", "'99 2 * * *'", "''")
	{
		refused_with($server, '22023', "SELECT ndrs_optout.schedule_purge($bad)", "$bad is no schedule",
			database => 'registry');
	}
	refused_with($server, '22004', 'SELECT ndrs_optout.schedule_purge(NULL)', 'nor is NULL', database => 'registry');
	is(jobs($server), "ndrs_optout purge of registry|$DAILY|registry|$owner", 'the job is as it was');

	# The job is the owner's, whoever schedules it, in place of what was there: switched
	# off, or somebody else's.
	$server->safe_psql('registry', q{
		CREATE ROLE other SUPERUSER LOGIN;
		CREATE ROLE clerk;
		UPDATE cron.job SET active = false;
		SELECT cron.schedule_in_database(jobname, schedule, command, database, 'other') FROM cron.job;
		GRANT USAGE ON SCHEMA ndrs_optout TO clerk;
		GRANT EXECUTE ON FUNCTION ndrs_optout.schedule_purge, ndrs_optout.unschedule_purge TO clerk;
		SET ROLE clerk;
		SELECT ndrs_optout.schedule_purge('0 4 * * *');
	});
	is(jobs($server), "ndrs_optout purge of registry|0 4 * * *|registry|$owner", 'scheduled otherwise, and not twice');
	$server->safe_psql('registry', 'SET ROLE clerk; SELECT ndrs_optout.unschedule_purge()');
	is(jobs($server), '', 'unscheduled');
	is($server->safe_psql('registry', q{
			SELECT string_agg(concat_ws(' ', event, detail ->> 'schedule'), ', ' ORDER BY event_id)
				FROM ndrs_optout.audit_event WHERE event ~ '^purge_'}),
		"purge_scheduled $DAILY, purge_scheduled 0 4 * * *, purge_unscheduled", 'and audited');
};

# By background workers and by connections, which is pg_cron's default
my $connecting = server_with_databases('connections');
load_pg_cron($connecting, "cron.host = '" . $connecting->host . "'\n");
$connecting->safe_psql('registry', 'CREATE EXTENSION pg_cron');
foreach ($server, $connecting)
{
	$_->safe_psql('registry', "SELECT ndrs_optout.schedule_purge('$EVERY_MINUTE')");
	is(copies($_, 'registry'), '1 2', $_->name . ': two copies');
}
$hint =~ s/\Q$DAILY\E/$EVERY_MINUTE/;
$server->safe_psql('registry', "SELECT $hint");
like(jobs($server), qr/^ndrs_optout purge of postgres\|\Q$EVERY_MINUTE\E\|postgres\|$owner$/m, 'a job for the other database');

# pg_cron begins jobs when the minute does.
$PostgreSQL::Test::Utils::timeout_default = 100;
foreach ([ $server, 'registry' ], [ $server, 'postgres' ], [ $connecting, 'registry' ])
{
	my ($at, $database) = @$_;
	my $name = $at->name . ", database $database";
	ok($at->poll_query_until($database, 'SELECT EXISTS (SELECT FROM ndrs_optout.purge_run)'), "$name: the purge has run")
	  or diag $at->safe_psql('registry', 'SELECT status, return_message FROM cron.job_run_details');
	is(copies($at, $database), '2', "$name: what was due is gone");
	is($at->safe_psql($database, q{
			SELECT what, due, last_removed FROM ndrs_optout.purge_due WHERE what = 'correspondence'}),
		'correspondence|0|1', "$name: the view says so");
	is($at->safe_psql($database, q{
			SELECT session_role, acting_role FROM ndrs_optout.audit_event WHERE event = 'purged'}),
		"$owner|$owner", "$name: as the owner");
}

$server->safe_psql('registry', 'SELECT ndrs_optout.unschedule_purge()');
like(jobs($server), qr/^ndrs_optout purge of postgres\|[^\n]*$/, 'unscheduled, and the job for the other database is left');

$server->stop;
$connecting->stop;
done_testing();
