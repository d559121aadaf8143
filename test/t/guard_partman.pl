# Partitions that pg_partman makes, empties, detaches and drops.
#
# The hazards: a partition that is made tomorrow has no guard; rows that are moved
# between partitions pass it; maintenance that the sentry stops, so that tomorrow's
# partitions are not made at all; rows that go out of the guarded table unseen, with
# a partition that is detached and kept.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('guard_partman');
my $version = $server->safe_psql('postgres',
	q{SELECT split_part(default_version, '.', 1) FROM pg_available_extensions WHERE name = 'pg_partman'});
plan skip_all => 'pg_partman is not packaged for this version' unless $version;

my $INTERVAL = $version < 5 ? q{p_type => 'native', p_interval => 'monthly'} : q{p_interval => '1 month'};

install_extension($server);
$server->safe_psql('postgres', q{CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman});

# A table of visits by month, from eight months ago on, of a patient who has opted
# out and of one who has not
sub partitioned_table
{
	my ($table) = @_;
	$server->safe_psql('postgres', qq{
		CREATE TABLE $table (nhs_number text, visited date NOT NULL) PARTITION BY RANGE (visited);
		SELECT ndrs_optout.guard_table('$table', 'nhs_number', '{cancer}', 'skip');
		SELECT partman.create_parent(p_parent_table => 'public.$table', p_control => 'visited', $INTERVAL,
			p_premake => 2, p_start_partition => (date_trunc('month', now()) - interval '8 months')::date::text);
		INSERT INTO $table SELECT '$NEIGHBOUR', m FROM generate_series(
			date_trunc('month', now()) - interval '8 months', now(), '1 month') AS m;
		CREATE INDEX ON $table (ndrs_optout.nhs_number_or_null(nhs_number));
		SELECT ndrs_optout.accept_gap('unguarded_nhs_numbers', 'partman.template_public_$table', 'nhs_number',
			'a template of indexes, which holds no rows')});
	return;
}

sub set_config
{
	my ($table, $settings) = @_;
	$server->safe_psql('postgres', "UPDATE partman.part_config SET $settings WHERE parent_table = 'public.$table'");
	return;
}

# Partitions without a trigger or a constraint of the guard in force
sub unguarded
{
	return $server->safe_psql('postgres', q{
		SELECT string_agg(concat_ws(' ', relation, part, defect), ', ' ORDER BY relation::text, part)
			FROM ndrs_optout.guard_part WHERE defect IS NOT NULL});
}

sub gaps
{
	return $server->safe_psql('postgres', q{
		SELECT string_agg(concat_ws(' ', gap, relation), ', ' ORDER BY relation::text, gap)
			FROM ndrs_optout.guard_coverage() WHERE severity <> 'low'});
}

sub partitions
{
	my ($table) = @_;
	return $server->safe_psql('postgres', "SELECT count(*) FROM pg_inherits WHERE inhparent = '$table'::regclass");
}

sub rows_in
{
	my ($table, $number) = @_;
	return $server->safe_psql('postgres', "SELECT count(*) FROM $table WHERE nhs_number = '$number'");
}

# The SQLSTATE of the error that it ends with, if it does
sub run_maintenance
{
	my ($table) = @_;
	return sqlstate((try_sql($server, 'SELECT partman.run_maintenance('
		  . (defined $table ? "'public.$table'" : '') . ')'))[2]);
}

sub oldest
{
	my ($table) = @_;
	return $server->safe_psql('postgres', qq{
		SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
			WHERE inhparent = '$table'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
			ORDER BY pg_get_expr(c.relpartbound, c.oid) LIMIT 1});
}

$server->safe_psql('postgres', "SELECT ndrs_optout.exclude('$PATIENT', '{cancer}')");

subtest 'partitions that are made ahead' => sub {
	partitioned_table('visit');
	is(unguarded(), '', 'each partition has the guard, the default one as well');
	my $before = partitions('visit');

	set_config('visit', 'premake = 6');
	is(run_maintenance('visit'), '', 'maintenance makes more');
	is(partitions('visit'), $before + 4, 'as many as it should');
	is(unguarded(), '', 'and they have the guard');
	$server->safe_psql('postgres', qq{
		INSERT INTO visit SELECT n, d FROM unnest('{$PATIENT,$NEIGHBOUR}'::text[]) AS n,
			unnest(ARRAY[now() + interval '5 months', now() + interval '20 years']) AS d});
	is(rows_in('visit', $PATIENT), 0, 'an excluded patient gets into none of them');
	is(rows_in('visit_default', $NEIGHBOUR), 1, 'what has no partition goes to the default one');
	is(gaps(), '', 'no gap');
};

subtest 'rows of the default partition' => sub {
	# From before the opt-out: what is moved meets the guard, which leaves it out.
	$server->safe_psql('postgres', qq{
		SELECT ndrs_optout.readmit('$PATIENT', '{cancer}');
		INSERT INTO visit VALUES ('$PATIENT', now() + interval '20 years');
		SELECT ndrs_optout.exclude('$PATIENT', '{cancer}')});
	is(rows_in('visit_default', $PATIENT), 1, 'an excluded patient has a row there');
	is($server->safe_psql('postgres',
			q{SELECT sign(partman.partition_data_time('public.visit', p_batch_count => 1))}),
		1, 'rows are moved into partitions of their own');
	is(rows_in('visit_default', $NEIGHBOUR), 0, 'the default partition is empty');
	is(rows_in('visit', $PATIENT), 0, 'the excluded patient is not among them');
	is(unguarded(), '', 'the new partition has the guard');
	is(gaps(), '', 'no gap');
};

subtest 'rows of the default partition that move during an opt-out' => sub {
	# The guard leaves the row out, so nothing leads to what refers to it any more.
	$server->safe_psql('postgres', qq{
		SELECT ndrs_optout.readmit('$PATIENT', '{cancer}');
		CREATE TABLE scan (visit_number text, note text);
		CREATE INDEX ON scan (visit_number);
		SELECT ndrs_optout.declare_reference('scan', '{visit_number}', 'visit', '{nhs_number}');
		INSERT INTO visit SELECT n, now() + interval '30 years' FROM unnest('{$PATIENT,$NEIGHBOUR}'::text[]) AS n;
		INSERT INTO scan SELECT n, 'x' FROM unnest('{$PATIENT,$NEIGHBOUR}'::text[]) AS n});
	my $case_id = ready_case($server, $PATIENT);
	$server->safe_psql('postgres', "SELECT ndrs_optout.case_exclude($case_id, '$PATIENT')");
	$server->safe_psql('postgres', q{SELECT partman.partition_data_time('public.visit', p_batch_count => 1)});
	is(rows_in('visit', $PATIENT), 0, 'the row was moved, and left out');
	$server->safe_psql('postgres', "SELECT ndrs_optout.case_certify($case_id, '$PATIENT')");
	is($server->safe_psql('postgres', 'SELECT string_agg(visit_number, chr(32)) FROM scan'), $NEIGHBOUR,
		'what refers to it is gone, and nothing else');
	$server->safe_psql('postgres', q{
		SELECT ndrs_optout.drop_reference('scan', '{visit_number}', 'visit', '{nhs_number}');
		DROP TABLE scan});
};

subtest 'retention that drops' => sub {
	set_config('visit', q{retention = '3 months', retention_keep_table = false, retention_keep_index = false});
	my $oldest = oldest('visit');
	is(run_maintenance(), '', 'maintenance of everything goes through');
	is($server->safe_psql('postgres', "SELECT to_regclass('$oldest')"), '', 'old partitions are gone');
	is(unguarded(), '', 'the others are guarded');
	is(gaps(), '', 'no gap');
	is($server->safe_psql('postgres', q{SELECT count(*) FROM ndrs_optout.audit_event WHERE event = 'guard_weakened'}),
		0, 'and the audit knows of no loss');
};

subtest 'retention that keeps' => sub {
	partitioned_table('appointment');
	set_config('appointment', q{retention = '3 months', retention_keep_table = true});
	my $before = partitions('appointment');
	my $oldest = oldest('appointment');
	like(refused_with($server, 'ND050', q{SELECT partman.run_maintenance('public.appointment')},
			'a partition with rows does not leave the guard unseen'),
		qr/^HINT: .*guard_table\('public\.appointment_p/m, 'and the hint says what to do');
	is(partitions('appointment'), $before, 'nothing was detached');

	# What the hint says: the partition gets a guard of its own in the same transaction.
	$server->safe_psql('postgres', qq{
		BEGIN;
		ALTER TABLE appointment DETACH PARTITION $oldest;
		SELECT ndrs_optout.guard_table('$oldest', 'nhs_number', '{cancer}', 'skip');
		CREATE INDEX ON $oldest (ndrs_optout.nhs_number_or_null(nhs_number));
		COMMIT});
	is(unguarded(), '', 'with a guard of its own it may go');
	is(gaps(), '', 'and there is no gap');

	$server->safe_psql('postgres', q{DELETE FROM appointment WHERE visited < now() - interval '3 months'});
	is(run_maintenance('appointment'), '', 'empty partitions may go, too');
	cmp_ok(partitions('appointment'), '<', $before - 1, 'they are detached');
	like(gaps(), qr/^(?:(?:unguarded_nhs_numbers|guard_constraint_not_searched) appointment_\w+(?:, )?)+$/,
		'guard_coverage() names the tables that are left over');
	$server->safe_psql('postgres', q{
		DO $$ DECLARE t regclass; BEGIN
			FOR t IN SELECT DISTINCT relation FROM ndrs_optout.guard_coverage() WHERE severity <> 'low' LOOP
				EXECUTE format('DROP TABLE %s', t);
			END LOOP;
		END $$});
	is(gaps(), '', 'until they are dropped');
};

subtest 'undo_partition' => sub {
	$server->safe_psql('postgres', q{CREATE TABLE archive (nhs_number text, visited date NOT NULL)});
	$server->safe_psql('postgres', q{SELECT ndrs_optout.guard_table('archive', 'nhs_number', '{cancer}', 'skip')});
	my $held = rows_in('appointment', $NEIGHBOUR);
	is(sqlstate((try_sql($server, q{
			SELECT partman.undo_partition(p_parent_table => 'public.appointment', p_target_table => 'public.archive',
				p_keep_table => false, } . ($version < 5 ? 'p_batch_count => 100' : 'p_loop_count => 100') . ')'))[2]),
		'', 'all rows are moved to another table, and the partitions dropped');
	is(rows_in('archive', $NEIGHBOUR), $held, 'the rows are there');
	is(unguarded(), '', 'every guard is in force');
	is(gaps(), '', 'no gap');
};

done_testing();
