# Foreign keys that are not enforced (version 18 and later).
#
# The hazard: the walk's lock on a patient's row holds up a transaction that inserts a
# child under an enforced foreign key.  Under one that is not, the child comes in behind
# the erasure, and nothing leads to it any more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('erasure_not_enforced_keys');
plan skip_all => 'foreign keys are always enforced before version 18'
  if $server->safe_psql('postgres', 'SHOW server_version_num') < 180000;

install_extension($server);
create_registry($server);
$server->safe_psql('postgres', q{
	CREATE TABLE sample (patient_id bigint REFERENCES patient, year int) PARTITION BY LIST (year);
	CREATE TABLE sample_1 PARTITION OF sample FOR VALUES IN (1);
	CREATE TABLE sample_2 PARTITION OF sample FOR VALUES IN (2);
	CREATE INDEX ON sample (patient_id)});

sub gaps
{
	return $server->safe_psql('postgres',
		q{SELECT severity, gap, relation, object, what_to_do FROM ndrs_optout.guard_coverage()});
}

is(gaps(), '', 'enforced: no gap');
foreach my $key ([ 'tumour', 'tumour_patient_id_fkey' ], [ 'sample', 'sample_patient_id_fkey' ])
{
	my ($table, $constraint) = @$key;
	$server->safe_psql('postgres', "ALTER TABLE $table ALTER CONSTRAINT $constraint NOT ENFORCED");
	my $gaps = gaps();
	is($gaps, "high|foreign_key_not_enforced|$table|$constraint|"
		  . "ALTER TABLE public.$table ALTER CONSTRAINT $constraint ENFORCED",
		"$table: one gap, of the highest severity, with the command");
	my ($command) = $gaps =~ /\|([^|]*)$/;
	$server->safe_psql('postgres', $command);
	is(gaps(), '', "$table: which closes it");
}

subtest 'what the erasure does about them' => sub {
	$server->safe_psql('postgres', q{
		CREATE TABLE scan (scan_id int, patient_id bigint REFERENCES patient ON DELETE SET NULL NOT ENFORCED);
		CREATE TABLE image (image_id int, patient_id bigint DEFAULT 0 REFERENCES patient ON DELETE SET DEFAULT NOT ENFORCED);
		CREATE TABLE letter (a int, patient_id bigint, b int, UNIQUE (patient_id, b),
			FOREIGN KEY (patient_id) REFERENCES patient ON DELETE SET NULL (patient_id) NOT ENFORCED);
		ALTER TABLE tumour ALTER CONSTRAINT tumour_patient_id_fkey NOT ENFORCED;
		ALTER TABLE sample ALTER CONSTRAINT sample_patient_id_fkey NOT ENFORCED});
	hold_patient($server, 1, $PATIENT);
	hold_patient($server, 2, $NEIGHBOUR);
	$server->safe_psql('postgres', q{
		INSERT INTO sample SELECT p, y FROM generate_series(1, 2) AS p, generate_series(1, 2) AS y;
		INSERT INTO scan VALUES (11, 1), (12, 2);
		INSERT INTO image VALUES (21, 1), (22, 2);
		INSERT INTO letter VALUES (31, 1, 1), (32, 2, 1)});
	my $case_id = ready_case($server, $PATIENT);

	# A child in flight, while the walk is held up
	my $reader = open_session($server);
	run_in($reader, 'BEGIN; SELECT FROM patient WHERE patient_id = 1 FOR UPDATE');
	my $call = start_sql($server, "CALL ndrs_optout.carry_out($case_id, '$PATIENT')");
	wait_until_waiting($server, 'CALL');
	my $loader = open_session($server);
	run_in($loader, 'BEGIN; INSERT INTO sample VALUES (1, 1)');
	run_in($reader, 'COMMIT');
	close_session($reader);
	wait_until_waiting($server, 'CALL');
	run_in($loader, 'COMMIT');
	close_session($loader);
	my ($status, undef, $messages) = finish_sql($call);
	is($status, 0, 'a child that came in meanwhile is found') or diag($messages);
	is(case_state($server, $case_id), 'carried_out', 'and erased');
	is($server->safe_psql('postgres', q{
			SELECT (SELECT count(*) FROM tumour WHERE patient_id = 1), (SELECT count(*) FROM sample WHERE patient_id = 1),
				(SELECT count(*) FROM tumour), (SELECT count(*) FROM sample)}),
		'0|0|2|2', 'the children are gone, and no others');
	is($server->safe_psql('postgres', q{
			SELECT string_agg(t, ' ' ORDER BY t) FROM (SELECT scan_id || '>' || coalesce(patient_id::text, '-') AS t FROM scan
				UNION ALL SELECT image_id || '>' || patient_id FROM image
				UNION ALL SELECT a || '>' || coalesce(patient_id::text, '-') || b FROM letter) AS all_of_them}),
		'11>- 12>2 21>0 22>2 31>-1 32>21', 'those that stay are unlinked');
};

done_testing();
