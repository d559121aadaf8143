# ALTER EXTENSION ... UPDATE, to a next version that this test makes up: it replaces
# functions, types and views, adds columns, and changes what a guard's trigger is told.
#
# The hazards: the sentry stands in the way of its own replacement; the update leaves
# something else than an installation of the next version; sessions that have the
# guards of before in their memory crash, or let a row in.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use Installation;
use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my ($excluded, $allowed, $leaving) = @TEST_NUMBERS;
my $pg_config = 'pg_config';
my $share = configured($pg_config, 'sharedir') . '/extension';
my ($version) = slurp_file("$share/ndrs_optout.control") =~ /^default_version = '(.*)'$/m;
my $script = slurp_file("$share/ndrs_optout--$version.sql");

# ------------------------------------------------------------ the next version

# Its script, and the one that leads there, are written side by side.
my $next = $script;
my $upgrade = "SET LOCAL search_path = ndrs_optout, pg_temp;\n";

# change(PATTERN, REPLACEMENT, SQL): the next version's script, and how it comes about
sub change
{
	my ($pattern, $replacement, $sql) = @_;
	$next =~ s/$pattern/$replacement->()/e or die "nothing to change: $pattern";
	$upgrade .= $sql;
	return;
}

# Columns at the end of tables that the library reads and writes, and of a type
foreach my $table (qw(guard guard_tally exclusion purpose))
{
	change(qr/^(CREATE TABLE $table \(.*?)\n\);/ms, sub { "$1,\n    of_next text\n);" },
		"ALTER TABLE $table ADD of_next text;\n") unless $script =~ /^CREATE TABLE $table \((?:(?!\n\);).)*--[^\n]*\n\);/ms;
}
change(qr/^(CREATE TYPE sweep_state AS \(.*?)\n\);/ms, sub { "$1,\n    of_next text\n);" },
	"ALTER TYPE sweep_state ADD ATTRIBUTE of_next text;\n");

# A view that the sentry reads
my ($view) = $script =~ /^CREATE VIEW guard_part AS(.*?);\n/ms or die 'there is no view guard_part';
$view = "VIEW guard_part AS SELECT p.*, 'next' AS of_next FROM ($view) AS p;\n";
change(qr/^CREATE VIEW guard_part AS.*?;\n/ms, sub { "CREATE $view" }, "CREATE OR REPLACE $view");

# The sentry's own functions, dropped and made again; and one that is new
my %made_again;
while ($script =~ /^(CREATE FUNCTION (sentry_\w+)\((?:(?!;\n).)*?LANGUAGE (?:sql|plpgsql)(?:(?!;\n).)*?AS \$\$)(.*?\n\$\$;\n)/msg)
{
	my ($head, $name, $body) = ($1, $2, $3);
	next if $head =~ /RETURNS event_trigger/;
	$made_again{$name} = "$head -- of the next version$body";
}
cmp_ok(scalar keys %made_again, '>=', 3, 'functions of the sentry are made again');
foreach my $name (sort keys %made_again)
{
	my ($comment) = $script =~ /^(COMMENT ON FUNCTION $name\(.*?';\n)/ms;
	change(qr/^(CREATE FUNCTION $name\(.*?AS \$\$)/ms, sub { "$1 -- of the next version" },
		"DROP FUNCTION $name;\n$made_again{$name}${comment}REVOKE ALL ON FUNCTION $name FROM PUBLIC;\n");
}
my $new_function = <<'END';
CREATE FUNCTION of_next() RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT 'next' $$;
COMMENT ON FUNCTION of_next() IS 'is new';
REVOKE ALL ON FUNCTION of_next() FROM PUBLIC;
END
$next .= $new_function;
$upgrade .= $new_function;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $install_path = copy_installation($pg_config, $directory);
extension_file($pg_config, $directory, 'ndrs_optout--next.sql', $next);
extension_file($pg_config, $directory, "ndrs_optout--$version--next.sql", $upgrade);

my $server = new_server('upgrade', install_path => $install_path);

sub ask
{
	my ($database, $sql) = @_;
	return $server->safe_psql($database, $sql);
}

# -------------------------------------------------------- a registry before it

ask('postgres', 'CREATE DATABASE registry; CREATE DATABASE fresh; CREATE ROLE loader LOGIN');
install_extension($server, 'registry');
ask('registry', qq{
	CREATE TABLE patient (patient_id bigint PRIMARY KEY, nhs text, name text);
	CREATE TABLE tumour (tumour_id bigint PRIMARY KEY, patient_id bigint REFERENCES patient);
	SELECT ndrs_optout.guard_table('patient', 'nhs', '{cancer}', 'skip');
	CREATE TABLE referral (nhs text, year int, note text) PARTITION BY LIST (year);
	CREATE TABLE referral_1 PARTITION OF referral FOR VALUES IN (1);
	SELECT ndrs_optout.guard_table('referral', 'nhs', '{cancer}', 'redact', redact_columns => '{note}');
	CREATE TABLE loaded (nhs bigint);
	SELECT ndrs_optout.guard_table('loaded', 'nhs', '{cancer}', mechanism => 'constraint');
	GRANT INSERT, SELECT ON patient, referral, loaded TO loader;
	INSERT INTO patient VALUES (1, '$leaving', 'A');
	INSERT INTO tumour VALUES (10, 1);
	SELECT ndrs_optout.exclude('$excluded', '{cancer}');
	SELECT ndrs_optout.open_case('$leaving', '{cancer}');
	SELECT ndrs_optout.record_identity(1, 'identity', 'passport'), ndrs_optout.record_identity(1, 'address', 'utility_bill');
});

# Sessions that know the guards of before; one has counted a row and not committed.
my $idle = open_session($server, 'registry');
my $loading = open_session($server, 'registry');
run_in($_, "INSERT INTO patient VALUES (2, '$excluded', 'B')") foreach $idle, $loading;
run_in($loading, "BEGIN; INSERT INTO patient VALUES (3, '$excluded', 'C')");

# ------------------------------------------------------------------ the update

my ($status, undef, $messages) = try_sql($server, q{ALTER EXTENSION ndrs_optout UPDATE TO 'next'}, database => 'registry');
is($messages, '', 'the extension is updated without complaint');
is($status, 0, 'and without error');
is(ask('registry', 'SELECT ndrs_optout.of_next()'), 'next', 'it is the next version');
my $control = slurp_file("$share/ndrs_optout.control") =~ s/^default_version = .*/default_version = 'next'/mr;
extension_file($pg_config, $directory, 'ndrs_optout.control', $control);

ask('fresh', 'SET client_min_messages = warning; CREATE EXTENSION ndrs_optout CASCADE');
my ($updated, $installed) = map { catalogue_of($server, $_) } qw(registry fresh);
cmp_ok(scalar @$installed, '>', 800, 'the catalogue is compared');
my (%left, %right);
@left{@$updated} = ();
@right{@$installed} = ();
is_deeply([ grep { !exists $right{$_} } @$updated ], [], 'nothing is there that an installation does not bring');
is_deeply([ grep { !exists $left{$_} } @$installed ], [], 'nothing is missing that an installation brings');

# -------------------------------------------------------------- the work goes on

run_in($loading, 'COMMIT');
run_in($_, "INSERT INTO patient VALUES (4, '$excluded', 'D')") foreach $idle, $loading;
is(ask('registry', q{SELECT sum(rows_skipped) FROM ndrs_optout.guard_count WHERE target = 'patient'::regclass}), '5',
	'rows that were skipped before and after are counted');
is(ask('registry', 'SELECT count(*) FROM patient'), '1', 'and none of them is there');
my (undef, $answer) = run_in($idle, "INSERT INTO loaded VALUES ($excluded)");
is(sqlstate($answer), '23N01', 'the constraint refuses, in a session of before');
ask('registry', "SET ROLE loader; INSERT INTO referral VALUES ('$excluded', 1, 'note'), ('$allowed', 1, 'note')");
is(ask('registry', 'SELECT count(*), count(nhs), count(note) FROM referral'), '2|1|1', 'a row is redacted');
refused_with($server, 'ND050', 'ALTER TABLE patient DISABLE TRIGGER ALL', 'the sentry is at its post', database => 'registry');
is(ask('registry', q{SELECT count(*) FROM ndrs_optout.guard_coverage() WHERE severity <> 'low'}), '0', 'no guard has a gap');
is(ask('registry', q{SELECT string_agg(check_name, ', ') FROM ndrs_optout.health() WHERE status = 'failed'}), '', 'health() is content');
is((try_sql($server, "CALL ndrs_optout.carry_out(1, '$leaving')", database => 'registry'))[0], 0, 'a case is carried out');
is(ask('registry', 'SELECT (SELECT count(*) FROM patient), (SELECT count(*) FROM tumour)'), '0|0', 'and its rows are gone');

close_session($_) foreach $idle, $loading;
$server->stop;
done_testing();
