# Foreign keys that are not enforced (version 18 and later).
#
# The hazard: the walk's lock on a patient's row holds up whoever inserts a child under an
# enforced foreign key.  Under one that is not, the child comes in behind the erasure, and
# nothing leads to it any more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('not_enforced');
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
	is($gaps, "high|foreign key that is not enforced|$table|$constraint|"
		  . "ALTER TABLE public.$table ALTER CONSTRAINT $constraint ENFORCED",
		"$table: one gap, of the highest severity, with the command");
	my ($command) = $gaps =~ /\|([^|]*)$/;
	$server->safe_psql('postgres', $command);
	is(gaps(), '', "$table: which closes it");
}

done_testing();
