# A loader that acts on classes of errors: pgloader.
#
# The hazard: pgloader takes an error of class 22 or 23 for a bad row, puts it aside and
# goes on behind it; at any other it drops what is left of the batch and reports success.
# A guard that refuses one patient must not cost the rows of a thousand others.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'pgloader is not installed'
  unless grep { -x "$_/pgloader" } split /:/, $ENV{PATH};

my $ROWS = 2000;
my @numbers = test_numbers($ROWS);
my %bad = (
	7 => $numbers[6],                  # excluded
	8 => '99900000',                   # unreadable
	150 => '',                         # missing
	151 => $numbers[6],
	1024 => $numbers[6],
	1999 => '9999999999',              # a placeholder
	$ROWS => $numbers[6]);

my $server = new_server('guard_pgloader');
install_extension($server);
$server->safe_psql('postgres', qq{
	CREATE ROLE loader LOGIN;
	SELECT ndrs_optout.exclude('$numbers[6]', '{cancer}');
});

my $directory = PostgreSQL::Test::Utils::tempdir;
my $file = "$directory/rows.csv";
append_to_file($file, join '', map { "$_," . ($bad{$_} // $numbers[ $_ - 1 ]) . ",name $_\n" } 1 .. $ROWS);

foreach my $mechanism (qw(both constraint))
{
	my $table = "by_$mechanism";
	my $root = "$directory/$table";

	$server->safe_psql('postgres', qq{
		CREATE TABLE $table (id int PRIMARY KEY, nhs text, name text);
		GRANT INSERT, SELECT ON $table TO loader;
		SELECT ndrs_optout.guard_table('$table', 'nhs', '{cancer}', on_missing => 'reject', mechanism => '$mechanism');
	});
	append_to_file("$root.load", qq{
		LOAD CSV FROM '$file' (id, nhs [null if blanks], name)
		INTO postgresql://loader\@unix:${\ $server->host}:${\ $server->port}/postgres?tablename=public.$table
		WITH fields terminated by ',', batch rows = 300;
	});
	my ($output, $messages) = ('', '');
	IPC::Run::run([ 'pgloader', '--no-ssl-cert-verification', '--root-dir', $root, "$root.load" ],
		'>', \$output, '2>', \$messages);
	is($server->safe_psql('postgres', "SELECT count(*) FROM $table"), $ROWS - keys %bad,
		"$mechanism: all good rows are in")
	  or diag("$output\n$messages");
	is($server->safe_psql('postgres', "SELECT count(*) FROM $table WHERE id IN (" . join(',', keys %bad) . ')'),
		0, "$mechanism: no bad row is");

	my ($rejected) = glob "$root/*/*.dat";
	is_deeply([ sort { $a <=> $b } map { /^(\d+)/ } split /\n/, slurp_file($rejected) ],
		[ sort { $a <=> $b } keys %bad ], "$mechanism: the rows that were put aside are the bad ones");
	my $told = join '', $output, $messages, map { slurp_file($_) } glob("$root/*.log $root/*/*.log");
	like($told, qr/row of an excluded patient may not enter table public\.$table/, "$mechanism: pgloader tells why");
	unlike($told, qr/$numbers[6]/, "$mechanism: and of whom it does not");
}

done_testing();
