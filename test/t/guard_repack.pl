# pg_repack, which builds a table anew beside the old one and exchanges their files.
#
# The hazards: the new table is without a guard, for good or for a while; rows that are
# erased while it is built are copied before, and come back with the exchange; a
# pg_repack that is killed leaves a copy of all patients where no erasure comes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('guard_repack');
plan skip_all => 'pg_repack is not packaged for this version'
  unless $server->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_repack'});

install_extension($server);
create_registry($server);
$server->safe_psql('postgres', 'CREATE EXTENSION pg_repack');

# Debian's command runs that of the server's version.
sub repack_command
{
	my (@arguments) = @_;
	return ('pg_repack', '-h', $server->host, '-p', $server->port, '-d', 'postgres', @arguments);
}

sub gaps
{
	return $server->safe_psql('postgres', q{
		SELECT string_agg(concat_ws(' ', severity, gap), ', ' ORDER BY gap)
			FROM ndrs_optout.guard_coverage() WHERE severity <> 'low'});
}

# Rows of a patient in every table that has such a column, wherever it is
sub rows_anywhere
{
	my ($number) = @_;
	my $tables = $server->safe_psql('postgres', q{
		SELECT string_agg(format('SELECT count(*) AS n FROM %s WHERE nhs_number::text = $1', a.attrelid::regclass), ' UNION ALL ')
			FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' WHERE a.attname = 'nhs_number'
				AND c.relnamespace <> 'ndrs_optout'::regnamespace});
	$tables =~ s/\$1/'$number'/g;
	return $server->safe_psql('postgres', "SELECT sum(n) FROM ($tables) AS t");
}

# pg_repack that has copied the table, and waits for an older transaction to end before it
# exchanges the files
sub start_repack
{
	my ($older) = @_;
	my %job = (output => '');

	run_in($older, 'BEGIN; SELECT count(*) FROM tumour');
	$job{run} = IPC::Run::start([ repack_command('-t', 'patient') ],
		'<', \undef, '>', \$job{output}, '2>&1', IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$job{run}->pump until $job{output} =~ /Waiting for/ || !$job{run}->pumpable;
	note($job{output});
	return \%job;
}

hold_patient($server, 1, $PATIENT);
hold_patient($server, 2, $NEIGHBOUR);

subtest 'a table that is built anew' => sub {
	my $file = $server->safe_psql('postgres', q{SELECT pg_relation_filenode('patient')});
	$server->command_ok([ repack_command('-t', 'patient') ], 'pg_repack goes through');
	isnt($server->safe_psql('postgres', q{SELECT pg_relation_filenode('patient')}), $file, 'the table has another file');
	is($server->safe_psql('postgres', q{SELECT count(*) FROM ndrs_optout.guard_part WHERE defect IS NOT NULL}),
		0, 'its guard is in force');
	is(gaps(), '', 'no gap');
	refused_with($server, '23N01', qq{
		SELECT ndrs_optout.exclude('$TEST_NUMBERS[2]', '{cancer}');
		INSERT INTO patient (patient_id, nhs_number) VALUES (3, '$TEST_NUMBERS[2]')}, 'an excluded patient is refused');
	is($server->safe_psql('postgres', q{SELECT count(*) FROM ndrs_optout.audit_event WHERE event = 'guard_weakened'}),
		0, 'and the audit knows of no loss');
};

subtest 'an opt-out while it is built' => sub {
	my $older = open_session($server);
	my $job = start_repack($older);
	like(gaps(), qr/medium trigger_may_copy_rows.*high unguarded_nhs_numbers/,
		'guard_coverage() tells of the copy, and of the trigger that keeps it up to date');

	$server->safe_psql('postgres', "SELECT ndrs_optout.exclude('$PATIENT', '{cancer}')");
	is($server->safe_psql('postgres', "SELECT sum(row_count) FROM ndrs_optout.erase('$PATIENT', '{cancer}') WHERE action = 'deleted'") > 0,
		1, 'the patient is erased');
	cmp_ok(rows_anywhere($PATIENT), '>', 0, 'the copy still has the patient');
	run_in($older, 'COMMIT');
	close_session($older);
	ok($job->{run}->finish, 'pg_repack comes to its end');
	is(rows_anywhere($PATIENT), 0, 'the patient is nowhere');
	is(rows_anywhere($NEIGHBOUR), 1, 'another one is there');
	is(gaps(), '', 'no gap');
};

subtest 'pg_repack that is killed' => sub {
	my $older = open_session($server);
	my $job = start_repack($older);
	$job->{run}->kill_kill;
	run_in($older, 'COMMIT');
	close_session($older);
	$server->poll_query_until('postgres',
		q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pg_repack')});
	cmp_ok(rows_anywhere($NEIGHBOUR), '>', 1, 'a copy of the patients is left over');
	like(gaps(), qr/medium trigger_may_copy_rows.*high unguarded_nhs_numbers/, 'guard_coverage() says so');
	is($server->safe_psql('postgres', q{
			SELECT string_agg(regexp_replace(relation::text, '\d+', 'N'), ' ' ORDER BY relation::text) FROM ndrs_optout.guard_coverage()
				WHERE gap = 'repack_left_over' AND what_to_do ~ 'DROP EXTENSION pg_repack CASCADE'}),
		'patient repack.log_N repack.table_N', 'and names the copy, the log and the table with the trigger');
	is($server->safe_psql('postgres', q{SELECT count(*) FROM ndrs_optout.guard_coverage() WHERE gap = 'key_without_reference'}),
		0, 'and none of them as an extract');
	$server->safe_psql('postgres', 'SET client_min_messages = warning; DROP EXTENSION pg_repack CASCADE');
	is(rows_anywhere($NEIGHBOUR), 1, 'it goes with the extension');
	is(gaps(), '', 'and the gap with it');
};

done_testing();
