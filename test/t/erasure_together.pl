# Patients who are erased together, in random schemas: as if one by one.
#
# The hazards: what was found for one patient hides, keeps or counts twice what is
# another's; a row of a patient who was not named goes.  Each row is one
# patient's, for a row of two goes with both and with neither alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use List::Util qw(shuffle);
use OptoutServer;
use Test::More;

my $ROUNDS = 12;
my $seed = $ENV{TOGETHER_SEED} // time;
srand $seed;
note "TOGETHER_SEED=$seed";

my @patients = @TEST_NUMBERS[ 0 .. 5 ];
my $server = new_server('erasure_together', settings => "jit = off\n");
install_extension($server);

sub one_of { return $_[ rand @_ ]; }
sub some_of { my @some = grep { rand() < 0.5 } @_; return @some ? @some : one_of(@_); }
sub array { return q('{) . join(',', @_) . q(}'); }

# Tables that refer to each other, and rows of each patient; returns the guards
sub create_world
{
	my @tables = map { "world.t$_" } 1 .. 3 + rand 4;
	my ($rows, $links, %ids, %guards) = ('', '');
	my $world = 'SET ndrs_optout.allow_unguarded = on; DROP SCHEMA IF EXISTS world CASCADE; RESET ndrs_optout.allow_unguarded; CREATE SCHEMA world;'
	  . 'DELETE FROM ndrs_optout.guard; DELETE FROM ndrs_optout.reference; DELETE FROM ndrs_optout.expected_edge; DELETE FROM ndrs_optout.exclusion;';

	foreach my $table (@tables)
	{
		my $type = one_of('text', 'bigint', 'ndrs_optout.nhs_number');
		$world .= "CREATE TABLE $table (id bigint PRIMARY KEY, whose bigint, nhs $type, r1 bigint, r2 bigint)";
		$world .= rand() < 0.7 ? ';' : ' PARTITION BY HASH (id);' . join '', map {
			"CREATE TABLE ${table}_$_ PARTITION OF $table FOR VALUES WITH (MODULUS 3, REMAINDER $_);" } 0 .. 2;
		foreach my $patient (@patients)
		{
			foreach (1 .. rand 4)
			{
				push @{ $ids{$table}{$patient} }, my $id = int rand 1e9;
				$rows .= "INSERT INTO $table VALUES ($id, $patient, " . one_of('NULL', ("'$patient'") x 3) . ') ON CONFLICT DO NOTHING;';
			}
		}
	}
	foreach my $table (@tables)
	{
		foreach my $column (some_of('r1', 'r2'))
		{
			my $parent = one_of(@tables);
			$links .= rand() < 0.2 ? "SELECT ndrs_optout.declare_reference('$table', '{$column}', '$parent', '{id}');"
			  : "ALTER TABLE $table ADD FOREIGN KEY ($column) REFERENCES $parent "
			  . one_of('', '', 'ON DELETE CASCADE', 'ON DELETE SET NULL', 'DEFERRABLE INITIALLY DEFERRED') . ';';
			foreach my $patient (grep { @{ $ids{$parent}{$_} // [] } } @patients)
			{
				$rows .= "UPDATE $table SET $column = " . one_of(@{ $ids{$parent}{$patient} }) . " WHERE id = $_;"
				  foreach @{ $ids{$table}{$patient} };
			}
		}
		next if $table ne $tables[0] && rand() < 0.4;
		$guards{$table} = [ some_of('cancer', 'rare_disease') ];
		$links .= "SELECT ndrs_optout.guard_table('$table', 'nhs', " . array(@{ $guards{$table} }) . ', '
		  . one_of("'reject'", "'redact'") . ');';
	}
	$server->safe_psql('postgres', "SET client_min_messages = warning; $world $rows $links");
	return (\@tables, \%guards);
}

# What an erasure says, and what is left after it: "table (row)" lines
sub outcome
{
	my ($tables, $erasure) = @_;
	my $left = join ' UNION ALL ', map { "SELECT '$_ ' || t FROM $_ t" } @$tables;
	my ($status, $out, $err) = $server->psql('postgres', qq{
		BEGIN;
		SELECT guard_registers, relation, path, action, sum(row_count) FROM $erasure WHERE row_count > 0
			GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 4;
		\\echo left
		$left ORDER BY 1});
	return $status == 0 ? split /left\n/, "$out\n", 2 : $err =~ /must be kept/ ? 'in the way' : $err;
}

my %tally;
foreach my $round (1 .. $ROUNDS)
{
	my ($tables, $guards) = create_world();
	my %excluded_registers = map { $_ => [ some_of('cancer', 'rare_disease', 'congenital_anomaly') ] } some_of(@patients);
	$server->safe_psql('postgres', "SELECT ndrs_optout.exclude('$_', " . array(@{ $excluded_registers{$_} }) . ')') foreach keys %excluded_registers;
	my @gone = shuffle(some_of(@patients));
	my $from = array(my @registers = some_of('cancer', 'rare_disease'));

	my (undef, $before) = outcome($tables, "ndrs_optout.erase_patients('{}', $from)");
	my ($said, $left) = outcome($tables, 'ndrs_optout.erase_patients(' . array(@gone, $gone[0]) . ", $from)");
	my ($said_each, $left_each) = outcome($tables,
		'unnest(' . array(@gone) . "::ndrs_optout.nhs_number[]) AS n CROSS JOIN LATERAL ndrs_optout.erase(n, $from) AS e");
	is($said, $said_each, "round $round: the same is said");
	is($left, $left_each, "round $round: the same is left");
	$tally{ defined $left ? 'erased' : $said }++;
	next unless defined $left;

	my %is_gone = map { $_ => 1 } @gone;
	my $others = sub { join "\n", grep { /\(\d+,(\d+)/ && !$is_gone{$1} } split /\n/, shift };
	is($others->($left), $others->($before), "round $round: others' rows are as they were");
	foreach my $table (keys %$guards)
	{
		next unless grep { $from =~ /$_/ } @{ $guards->{$table} };
		foreach my $patient (@gone)
		{
			my %out = map { $_ => 1 } @registers, @{ $excluded_registers{$patient} // [] };
			unlike($left, qr/^\Q$table\E \(\d+,\d+,$patient/m, "round $round: no number left in $table")
			  unless grep { !$out{$_} } @{ $guards->{$table} };
		}
	}
}
note explain \%tally;
cmp_ok($tally{erased} // 0, '>=', $ROUNDS / 5, 'many are erased');
is(join(' ', sort keys %tally), $tally{'in the way'} ? 'erased in the way' : 'erased', 'or rows stand in the way, and nothing else happens');

done_testing();
