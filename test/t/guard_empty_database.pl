# A database that has the constraints of guards, and no key, no list and no guard.
#
# The hazard: a dump brings a partition's constraint before rows and before the
# extension's own tables, so that the constraint has to let the rows in.  A copy of the
# schema alone stays like that, and a load into it would bring any patient in.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('guard_empty_database');
install_extension($server);
$server->safe_psql('postgres', qq{
	CREATE ROLE loader LOGIN;
	CREATE ROLE loading_owner LOGIN;
	CREATE TABLE fast (nhs text);
	CREATE TABLE parts (nhs text) PARTITION BY LIST (nhs);
	SELECT ndrs_optout.exclude('$PATIENT', '{cancer}');
	SELECT ndrs_optout.guard_table('fast', 'nhs', '{cancer}', mechanism => 'constraint');
	SELECT ndrs_optout.guard_table('parts', 'nhs', '{cancer}', mechanism => 'constraint');
	CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
	GRANT INSERT ON fast, parts, parts_1 TO loader;
	ALTER TABLE fast OWNER TO loading_owner;
});

my $dump = PostgreSQL::Test::Utils::tempdir . '/schema.sql';
$server->command_ok([ 'pg_dump', '--schema-only', '-f', $dump, $server->connstr('postgres') ], 'the schema is dumped');
$server->safe_psql('postgres', 'CREATE DATABASE copy');
$server->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $server->connstr('copy') ], 'and restored');

# SQLSTATE of a row that a role brings
sub brought_by
{
	my ($role, $table) = @_;
	my (undef, undef, $messages) = $server->psql('copy', "\\set VERBOSITY verbose\nINSERT INTO $table VALUES ('$PATIENT')",
		extra_params => [ '-U', $role ]);
	return sqlstate($messages);
}

foreach my $table (qw(fast parts parts_1))
{
	is(brought_by('loader', $table), 'ND010', "without a key, a loader brings nothing into $table");
}
is(brought_by('loading_owner', 'fast'), 'ND010', 'nor does the owner of the table');
is($server->safe_psql('copy', 'SELECT count(*) FROM fast, parts'), '0', 'and nothing is there');
is($server->safe_psql('copy', q{SELECT status, detail ~ 'although none is guarded: 3' FROM ndrs_optout.health() WHERE check_name = 'guards'}),
	'failed|t', 'health() tells of the constraints');
is(brought_by(scalar getpwuid($<), 'parts'), '', 'who restores brings rows');

$server->safe_psql('copy', 'SELECT ndrs_optout.adopt_key()');
is(brought_by('loader', $_), '42501', "with a key, and no guard, a loader brings nothing into $_") foreach qw(fast parts parts_1);

$server->stop;
done_testing();
