# System versioning of extension periods.
#
# The hazard: each row that is erased is written into the history table, from which the
# table's owner may not delete.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('erasure_periods');
plan skip_all => 'periods is not packaged for this version'
  unless $server->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'periods'});

install_extension($server);
$server->safe_psql('postgres', qq{
	CREATE EXTENSION periods CASCADE;
	GRANT USAGE ON SCHEMA periods TO PUBLIC;
	CREATE ROLE registry_owner;
	CREATE SCHEMA cancer AUTHORIZATION registry_owner;
	SET ROLE registry_owner;
	CREATE TABLE cancer.patient (patient_id int PRIMARY KEY, nhs_number text, name text);
	SELECT periods.add_system_time_period('cancer.patient');
	SELECT periods.add_system_versioning('cancer.patient');
	INSERT INTO cancer.patient VALUES (1, '$PATIENT', 'a'), (2, '$NEIGHBOUR', 'a');
	UPDATE cancer.patient SET name = 'b';
	RESET ROLE;
	SELECT ndrs_optout.guard_table('cancer.patient', 'nhs_number', '{cancer}', 'skip');
	SELECT ndrs_optout.declare_reference('cancer.patient_history', '{patient_id}', 'cancer.patient', '{patient_id}')});

sub history
{
	return $server->safe_psql('postgres', q{SELECT string_agg(patient_id || name, ' ' ORDER BY 1) FROM cancer.patient_history});
}

sub gap
{
	return $server->safe_psql('postgres',
		q{SELECT what_to_do FROM ndrs_optout.guard_coverage() WHERE gap = 'owner_lacks_rights' AND severity = 'high'});
}

my $case_id = ready_case($server, $PATIENT);
refused_with($server, '42501', "CALL ndrs_optout.carry_out($case_id, '$PATIENT')", 'the owner may not delete');
is(case_state($server, $case_id), 'excluded', 'nothing is certified');
is(history(), '1a 2a', 'and nothing changed');
like(gap(), qr/GRANT SELECT, UPDATE, DELETE ON cancer.patient_history TO registry_owner.*periods.drop_system_versioning/,
	'the gap says what to do');

# As doc/dba.md has it
$server->safe_psql('postgres', q{
	SET ROLE registry_owner;
	SELECT periods.drop_system_versioning('cancer.patient');
	GRANT SELECT, UPDATE, DELETE ON cancer.patient_history TO registry_owner});
is(gap(), '', 'the gap is closed');
$server->safe_psql('postgres', "CALL ndrs_optout.carry_out($case_id, '$PATIENT')");
is(case_state($server, $case_id), 'carried_out', 'the case is carried out');
$server->safe_psql('postgres', q{
	SET ROLE registry_owner;
	REVOKE UPDATE, DELETE ON cancer.patient_history FROM registry_owner;
	SELECT periods.add_system_versioning('cancer.patient', 'patient_history');
	UPDATE cancer.patient SET name = 'c'});
is(history(), '2a 2b', 'the history has the neighbour, and goes on');

# Where a superuser owns the tables, versioning can stay.
$server->safe_psql('postgres', 'ALTER TABLE cancer.patient OWNER TO CURRENT_USER');
is(gap(), '', 'a superuser lacks no rights');
my $second = ready_case($server, $NEIGHBOUR);
$server->safe_psql('postgres', "CALL ndrs_optout.carry_out($second, '$NEIGHBOUR')");
is(case_state($server, $second), 'carried_out', 'the second case is carried out');
is(history(), '', 'with what was written when the row was deleted');
is($server->safe_psql('postgres', "SELECT row_count FROM ndrs_optout.case_erasure WHERE case_id = $second AND relation LIKE '%history'"),
	3, 'which counts as deleted');
$server->stop;
done_testing();
