# The library is gone, as after an upgrade of the server without the extension's package.
#
# The hazard is twofold: that guarded tables take rows which nothing looks at, and that the
# database cannot be repaired, because the sentry's event triggers fail and with them every
# command, down to DROP EXTENSION.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('version_no_library');
install_extension($server);
create_registry($server);
$server->safe_psql('postgres', 'CREATE EXTENSION citext');

# A file that is not there
$server->safe_psql('postgres', q{
	UPDATE pg_proc SET probin = '$libdir/ndrs_optout_missing' WHERE probin LIKE '%ndrs_optout%'});

sub passes
{
	my ($sql, $name) = @_;
	my ($status, undef, $messages) = try_sql($server, $sql);
	is($status, 0, $name) or diag($messages);
	return;
}

subtest 'what the guard and the sentry look at fails' => sub {
	refused_with($server, '58P01', "INSERT INTO patient VALUES (9, '9990000093', 'a name')", 'a row for a guarded table');
	refused_with($server, '58P01', 'ALTER TABLE patient DISABLE TRIGGER ALL', 'a command on a guarded table');
	refused_with($server, '58P01', 'CREATE TABLE t (a int)', 'a command that could bring a table under a guard');
};

subtest 'what cannot weaken a guard works' => sub {
	passes($_, $_) foreach (
		'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$',
		'CREATE INDEX ON patient (name)',
		'DROP INDEX patient_name_idx',
		"COMMENT ON TABLE patient IS 'patients'",
		'GRANT SELECT ON patient TO PUBLIC',
		'CREATE VIEW v AS SELECT 1 AS a',
		'DROP EXTENSION citext');
};

subtest 'the way out without the library' => sub {
	refused_with($server, '2BP01', 'DROP EXTENSION ndrs_optout', 'tables are guarded: DROP EXTENSION needs CASCADE');
	passes('BEGIN; ALTER EVENT TRIGGER ndrs_optout_sentry_start DISABLE;
		ALTER EVENT TRIGGER ndrs_optout_sentry_end DISABLE;
		CREATE TABLE t (a int); DROP TABLE t;
		ALTER EVENT TRIGGER ndrs_optout_sentry_start ENABLE ALWAYS;
		ALTER EVENT TRIGGER ndrs_optout_sentry_end ENABLE ALWAYS; COMMIT',
		'a superuser can do without the sentry for a transaction');
	refused_with($server, '58P01', 'CREATE TABLE t (a int)', 'and only for that');
	passes('DROP EXTENSION ndrs_optout CASCADE', 'the extension can be dropped');
	passes('INSERT INTO patient (patient_id) VALUES (9); CREATE TABLE t (a int)', 'and nothing is left that stops anything');
};

done_testing();
