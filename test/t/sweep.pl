# sweep() after a restore, interrupted, and in parallel.
#
# The hazards: a restore from before an opt-out brings the patient back, and the
# guards say nothing, because no row is inserted; a sweep that is interrupted
# leaves half of it, or begins from nothing each night and never comes to its
# end.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my ($other, $third) = @TEST_NUMBERS[ 2, 3 ];
my $server = new_server('sweep');
install_extension($server);
create_registry($server);
$server->safe_psql('postgres', q{
	CREATE TABLE visit (nhs_number text, year int) PARTITION BY LIST (year);
	CREATE TABLE visit_1 PARTITION OF visit FOR VALUES IN (1);
	CREATE TABLE visit_2 PARTITION OF visit FOR VALUES IN (2);
	SELECT ndrs_optout.guard_table('visit', 'nhs_number', '{cancer}');
});

# Every row with one of the numbers, in whatever table, by plain SQL
sub held
{
	my ($database, @numbers) = @_;
	my $list = join ', ', map { "'$_'" } @numbers;
	return $server->safe_psql($database, qq{
		SELECT (SELECT count(*) FROM patient WHERE nhs_number::text IN ($list)) || ' '
			|| (SELECT count(*) FROM tumour JOIN patient USING (patient_id) WHERE nhs_number::text IN ($list)) || ' '
			|| (SELECT count(*) FROM visit WHERE replace(nhs_number, ' ', '') IN ($list))});
}

sub progress
{
	my ($columns) = @_;
	return $server->safe_psql('postgres',
		"SELECT string_agg(concat_ws(' ', $columns), ', ' ORDER BY relation::text) FROM ndrs_optout.sweep_progress");
}

subtest 'a restore from before the opt-out' => sub {
	hold_patient($server, 1, $PATIENT);
	hold_patient($server, 2, $NEIGHBOUR);
	$server->safe_psql('postgres',
		"INSERT INTO visit VALUES ('$PATIENT', 1), ('999 000 0018', 2), ('$NEIGHBOUR', 1)");
	my $dump = $server->basedir . '/before.dump';
	$server->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $server->connstr('postgres') ], 'a dump');

	my $case_id = ready_case($server, $PATIENT);
	$server->safe_psql('postgres', "CALL ndrs_optout.carry_out($case_id, '$PATIENT')");
	is(held('postgres', $PATIENT), '0 0 0', 'the patient opts out');
	my $list = $server->basedir . '/exclusion.copy';
	$server->safe_psql('postgres', "COPY ndrs_optout.exclusion TO '$list'");

	$server->safe_psql('postgres', 'CREATE DATABASE restored');
	$server->command_ok([ 'pg_restore', '-d', $server->connstr('restored'), $dump ], 'the dump is restored');
	is(held('restored', $PATIENT), '1 2 2', 'and the patient is back');
	$server->safe_psql('restored', "COPY ndrs_optout.exclusion FROM '$list'");
	$server->safe_psql('restored', 'CALL ndrs_optout.sweep()');
	is(held('restored', $PATIENT), '0 0 0', 'until the list is back and the tables are swept');
	is(held('restored', $NEIGHBOUR), '1 2 1', 'the neighbour stays');
};

# Rows of two patients past the guards, in every leaf
sub bring_back
{
	$server->safe_psql('postgres', qq{
		SELECT ndrs_optout.unguard_table('visit'), ndrs_optout.unguard_table('patient');
		INSERT INTO visit SELECT n, y FROM unnest('{$other,$third}'::text[]) AS n, generate_series(1, 2) AS y;
		INSERT INTO patient VALUES (11, '$other', 'name'), (12, '$third', 'name');
		SELECT ndrs_optout.guard_table('visit', 'nhs_number', '{cancer}'),
			ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}'),
			ndrs_optout.exclude('$other', '{cancer}'), ndrs_optout.exclude('$third', '{cancer}');
	});
	return;
}

# A sweep that hangs at a row of the second leaf while somebody holds it, and is
# ended by the code given; then another that goes on.
sub interrupted
{
	my ($name, $interrupt, $again) = @_;

	subtest $name => sub {
		bring_back();
		# The third patient, who is met in the second leaf only, is held up there.
		$server->safe_psql('postgres', qq{
			SET ndrs_optout.allow_unguarded = on;
			DELETE FROM patient WHERE patient_id = 12;
			DELETE FROM visit WHERE nhs_number = '$third' AND year = 1});
		my $holder = open_session($server);
		run_in($holder, "BEGIN; SELECT FROM visit WHERE nhs_number = '$third' FOR UPDATE");
		my $call = start_sql($server, 'CALL ndrs_optout.sweep()');
		wait_until_waiting($server, 'CALL');
		is(progress('relation, state'), 'patient done, visit_1 done, visit_2 erasing', 'the sweep is half done');
		is(held('postgres', $other), '0 0 0', 'what it has done is committed');
		my $done = progress("CASE state WHEN 'done' THEN started_at END");

		$interrupt->($holder);
		my ($status) = finish_sql($call);
		isnt($status, 0, 'it is interrupted');
		$again->($holder);
		my (undef, undef, $messages) = try_sql($server, 'CALL ndrs_optout.sweep()');
		like($messages, qr/resuming sweep \d+/, 'the next one goes on');
		is(progress("state"), 'done, done, done', 'to its end');
		like(progress("started_at"), qr/^\Q$done\E/, 'without doing again what was done');
		is(held('postgres', $other, $third), '0 0 0', 'both patients are gone');
	};
	return;
}

interrupted(
	'its session is terminated',
	sub {
		$server->safe_psql('postgres', q{
			SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'CALL ndrs%'});
	},
	sub { close_session($_[0]) });

interrupted(
	'the server is killed',
	sub { kill_server($server) },
	sub { abandon($_[0]); $server->start });

subtest 'a large table is looked through by several workers' => sub {
	bring_back();
	$server->safe_psql('postgres',
		"INSERT INTO visit SELECT '$NEIGHBOUR', 1 FROM generate_series(1, 50000)");
	# To the client, since plans hold numbers that no log of a test may keep.
	my (undef, undef, $plans) = $server->psql('postgres', q{
		LOAD 'auto_explain';
		SET log_min_messages = fatal;
		SET auto_explain.log_level = info;
		SET auto_explain.log_min_duration = 0;
		SET auto_explain.log_nested_statements = on;
		SET auto_explain.log_analyze = on;
		SET min_parallel_table_scan_size = 0;
		SET parallel_setup_cost = 0;
		CALL ndrs_optout.sweep('visit')});
	like($plans, qr/FROM ONLY public\.visit_1 t.{0,2000}?Workers Launched: [1-9]/s, 'in parallel');
	is(held('postgres', $other, $third), '0 0 0', 'and its patients are erased');
};

done_testing();
