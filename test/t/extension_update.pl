# ALTER EXTENSION ... UPDATE, to a next version that this test makes up and builds: it
# replaces functions, types and views, adds columns, and appends to what a guard's
# trigger is told.
#
# The hazards: the sentry stands in the way of its own replacement; the update leaves
# something else than an installation of the next version; a library meets the
# catalogue or the guards of another version, and crashes, or lets a row in.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use Installation;
use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my ($excluded, $allowed, $leaving) = @TEST_NUMBERS;
my $source = "$FindBin::RealBin/../..";
my ($version) = slurp_file("$source/ndrs_optout.control") =~ /^default_version = '(.*)'$/m;

# ------------------------------------------------------------ the next version

# Its sources, and the script that leads to it, are written side by side.
my %file = map { $_ => slurp_file("$source/$_") }
  qw(ndrs_optout.control src/guard_policy.h src/guard_policy.c), map { s{^\Q$source\E/}{}r } glob "$source/sql/install/*.sql";
my $upgrade = "SET LOCAL search_path = ndrs_optout, pg_temp;\n";

# change(PATTERN, SUB, SQL): what SUB makes of the place, which is in one file; and how
# an existing database gets there.
sub change
{
	my ($pattern, $replacement, $sql) = @_;
	my @found = grep { $file{$_} =~ $pattern } keys %file;
	die "not in one file: $pattern: @found" if @found != 1;
	$file{ $found[0] } =~ s/$pattern/$replacement->()/e;
	$upgrade .= $sql // '';
	return;
}

# What a pattern finds in the pieces
sub piece
{
	my ($pattern) = @_;
	foreach my $name (sort keys %file)
	{
		return $1 if $file{$name} =~ $pattern;
	}
	die "there is no $pattern";
}

change(qr/^default_version = '.*'$/m, sub { "default_version = 'next'" });

# Columns at the end of tables that the library reads and writes, and of a type
foreach my $table (qw(guard guard_tally exclusion purpose))
{
	change(qr/^(CREATE TABLE $table \(.*?)\n\);/ms, sub { "$1\n    , of_next text\n);" },
		"ALTER TABLE $table ADD of_next text;\n");
}
change(qr/^(CREATE TYPE sweep_state AS \(.*?)\n\);/ms, sub { "$1,\n    of_next text\n);" },
	"ALTER TYPE sweep_state ADD ATTRIBUTE of_next text;\n");

# A view that the sentry reads
my $view = piece(qr/^CREATE VIEW guard_part AS(.*?);\n/ms);
$view = "VIEW guard_part AS SELECT p.*, 'next' AS of_next FROM ($view) AS p;\n";
change(qr/^CREATE VIEW guard_part AS.*?;\n/ms, sub { "CREATE $view" }, "CREATE OR REPLACE $view");

# One more word for the trigger of a guard
change(qr/RETURN ARRAY\['1', (?=\$1\.nhs_number_column)/, sub { q{RETURN ARRAY['of next'] || ARRAY['1', } });
change(qr/RETURN ARRAY\['of next'\] \|\| ARRAY\['1', (.*?)(?=;\nEND\n\$\$;)/s, sub { "RETURN ARRAY['2', $1 || 'of next'::text" });
$upgrade .= piece(qr/^(CREATE FUNCTION guard_arguments\(.*?\n\$\$;\n)/ms) =~ s/^CREATE/CREATE OR REPLACE/r;
change(qr/^#define GUARD_VERSION 1$/m, sub { '#define GUARD_VERSION 2' });
change(qr/(?<=expected = list_concat\(expected, policy->redact_columns\);\n)/,
	sub { "\tif (atoi(args[0]) >= 2)\n\t\texpected = lappend(expected, \"of next\");\n" });

# The sentry's own functions, dropped and made again; and one that is new
my $sentry = $file{'sql/install/sentry.sql'};
my %made_again;
while ($sentry =~ /^(CREATE FUNCTION (sentry_\w+)\((?:(?!;\n).)*?LANGUAGE (?:sql|plpgsql)(?:(?!;\n).)*?AS \$\$)(.*?\n\$\$;\n)/msg)
{
	my ($head, $name, $body) = ($1, $2, $3);
	next if $head =~ /RETURNS event_trigger/;
	$made_again{$name} = "$head -- of the next version$body";
}
cmp_ok(scalar keys %made_again, '>=', 3, 'functions of the sentry are made again');
foreach my $name (sort keys %made_again)
{
	my $comment = piece(qr/^(COMMENT ON FUNCTION $name\(.*?';\n)/ms);
	change(qr/^(CREATE FUNCTION $name\(.*?AS \$\$)/ms, sub { "$1 -- of the next version" },
		"DROP FUNCTION $name;\n$made_again{$name}${comment}REVOKE ALL ON FUNCTION $name FROM PUBLIC;\n");
}
my $new_function = <<'END';
CREATE FUNCTION of_next() RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT 'next' $$;
COMMENT ON FUNCTION of_next() IS 'is new';
END
change(qr/(?<=^-- health: )/m, sub { "the next version\n$new_function-- " },
	"${new_function}REVOKE ALL ON FUNCTION of_next() FROM PUBLIC;\n");

# The last thing that an upgrade script does
my $build = piece(qr/^(CREATE FUNCTION catalogue_build\(.*?\$\$;\n)/ms) =~ s/^CREATE/CREATE OR REPLACE/r;

sub write_next
{
	my ($directory) = @_;
	foreach my $name (keys %file)
	{
		unlink "$directory/$name";
		append_to_file("$directory/$name", $file{$name});
	}
	chomp(my $id = `make -s -C "$directory" build-id`);
	mkdir "$directory/sql/upgrade";
	append_to_file("$directory/sql/upgrade/ndrs_optout--$version--next.sql", $upgrade . $build =~ s/\@BUILD\@/$id/r);
	return;
}

# ------------------------------------------------ a registry of the version at hand

my $directory = PostgreSQL::Test::Utils::tempdir();
my $server = new_server('extension_update', install_path => copy_installation('pg_config', $directory));

sub ask
{
	my ($database, $sql) = @_;
	return $server->safe_psql($database, $sql);
}

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
	CREATE TABLE later (nhs text);
	GRANT INSERT, SELECT ON patient, referral, loaded TO loader;
	INSERT INTO patient VALUES (1, '$leaving', 'A');
	INSERT INTO tumour VALUES (10, 1);
	SELECT ndrs_optout.exclude('$excluded', '{cancer}');
	SELECT ndrs_optout.open_case('$leaving', '{cancer}');
	SELECT ndrs_optout.record_identity(1, 'identity', 'passport'), ndrs_optout.record_identity(1, 'address', 'utility_bill');
});
my $skipped = 0;

# A row is skipped, in a session that is there or in a new one.
sub skips
{
	my ($session, $name) = @_;
	my $sql = "INSERT INTO patient VALUES (2, '$excluded', 'B')";
	my ($messages) = $session ? (run_in($session, $sql))[1] : (try_sql($server, $sql, database => 'registry'))[2];
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($messages, '', "$name: a row is skipped");
	$skipped++;
	return;
}

# A row of each guard, in a new session as a loader
sub guards_work
{
	my ($name) = @_;
	skips(undef, $name);
	refused_with($server, '23N01', "INSERT INTO loaded VALUES ($excluded)", "$name: the constraint refuses", database => 'registry');
	is(ask('registry', "SET ROLE loader; INSERT INTO referral VALUES ('$excluded', 1, 'n'), ('$allowed', 1, 'n') RETURNING nhs IS NULL, note IS NULL"),
		"t|t\nf|f", "$name: a row is redacted");
	return;
}

# Sessions that have loaded the library; one has counted a row and not committed.
my ($idle, $loading) = map { open_session($server, 'registry') } 1, 2;
skips($_, 'before') foreach $idle, $loading;
run_in($loading, 'BEGIN');
skips($loading, 'before, not committed');

# ---------------------------------------------------------- the library is installed

build_extension('pg_config', $directory, $source, \&write_next);

guards_work('the next library');
skips($idle, 'the old library');
is(ask('registry', q{SELECT status || ': ' || what_to_do FROM ndrs_optout.health() WHERE check_name = 'version'}),
	'warning: ALTER EXTENSION ndrs_optout UPDATE', 'health() says what to do');
refused_with($server, '55000', $_, "refused: $_", database => 'registry')
  foreach "SELECT ndrs_optout.guard_table('later', 'nhs', '{cancer}')", "CALL ndrs_optout.carry_out(1, '$leaving')",
  "SELECT ndrs_optout.erase('$leaving', '{cancer}')";

# ------------------------------------------------------------------ the update

my ($status, undef, $messages) = try_sql($server, 'ALTER EXTENSION ndrs_optout UPDATE', database => 'registry');
is($messages, '', 'the extension is updated without complaint');
is($status, 0, 'and without error');
is(ask('registry', 'SELECT ndrs_optout.of_next()'), 'next', 'it is the next version');

run_in($loading, 'COMMIT');
skips($_, 'the old library, updated') foreach $idle, $loading;
guards_work('updated');
is(ask('registry', q{SELECT DISTINCT what_to_do FROM ndrs_optout.guard_coverage() WHERE gap ~ '^guard_' AND relation = 'patient'::regclass}),
	q{SELECT ndrs_optout.refresh_guards('public.patient')}, 'guard_coverage() says what is to be refreshed');
is(ask('registry', 'SELECT ndrs_optout.refresh_guards()'), '2', 'guards are refreshed, but for those without a trigger');
guards_work('refreshed');

# What it does not know may be stricter than what it knows.
my (undef, $answer) = run_in($idle, "INSERT INTO patient VALUES (3, '$allowed', 'C')");
is(sqlstate($answer), '55000', 'the old library refuses every row of a later version\'s guard');
(undef, $answer) = run_in($idle, "INSERT INTO loaded VALUES ($excluded)");
is(sqlstate($answer), '23N01', 'and what the constraint refuses');

ask('fresh', 'SET client_min_messages = warning; CREATE EXTENSION ndrs_optout CASCADE');
my ($updated, $installed) = map { catalogue_of($server, $_) } qw(registry fresh);
cmp_ok(scalar @$installed, '>', 800, 'the catalogue is compared');
my (%left, %right);
@left{@$updated} = ();
@right{@$installed} = ();
is_deeply([ grep { !exists $right{$_} } @$updated ], [], 'nothing is there that an installation does not bring');
is_deeply([ grep { !exists $left{$_} } @$installed ], [], 'nothing is missing that an installation brings');

# -------------------------------------------------------------- the work goes on

is(ask('registry', q{SELECT sum(rows_skipped) FROM ndrs_optout.guard_count WHERE target = 'patient'::regclass}), $skipped,
	'rows that were skipped before and after are counted');
is(ask('registry', 'SELECT count(*) FROM patient'), '1', 'and none of them is there');
refused_with($server, 'ND050', 'ALTER TABLE patient DISABLE TRIGGER ALL', 'the sentry is at its post', database => 'registry');
is(ask('registry', q{SELECT count(*) FROM ndrs_optout.guard_coverage() WHERE gap ~ '^guard_'}), '0', 'no guard has a gap');
is(ask('registry', q{SELECT string_agg(check_name, ', ') FROM ndrs_optout.health() WHERE status = 'failed'}), '', 'health() is content');
is((try_sql($server, "CALL ndrs_optout.carry_out(1, '$leaving')", database => 'registry'))[0], 0, 'a case is carried out');
is(ask('registry', 'SELECT (SELECT count(*) FROM patient), (SELECT count(*) FROM tumour)'), '0|0', 'and its rows are gone');
is(ask('registry', q{SELECT ndrs_optout.guard_table('later', 'nhs', '{cancer}')}), '0', 'a table is guarded');

close_session($_) foreach $idle, $loading;
$server->stop;
done_testing();
