# The extension, dropped with what it depends on.
#
# The hazard: the owner of a database owns schema public, and pgcrypto if they created it.
# Either of them dropped with CASCADE takes the list, the cases, the audit and all
# guards along, in one command of a role that may not even read them; and the event
# triggers that would say so are gone with the extension.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('extension_dropped');
$server->safe_psql('postgres', q{
	CREATE ROLE dbo LOGIN;
	ALTER DATABASE postgres OWNER TO dbo;
	SET ROLE dbo;
	CREATE EXTENSION pgcrypto});
install_extension($server);
create_registry($server);
$server->safe_psql('postgres', qq{
	SELECT ndrs_optout.exclude('$PATIENT', '{cancer}');
	CREATE SCHEMA theirs AUTHORIZATION dbo;
	CREATE EXTENSION citext SCHEMA theirs});

# Each in a session of its own, which has not loaded the library
foreach my $command ('DROP EXTENSION pgcrypto CASCADE', 'DROP SCHEMA public CASCADE', 'DROP OWNED BY dbo CASCADE')
{
	refused_with($server, '42501', $command, "$command, by the owner of the database", extra_params => [ '-U', 'dbo' ]);
}
is($server->safe_psql('postgres', q{SELECT count(*) FROM pg_event_trigger WHERE evtenabled = 'A'}), 4, 'all is there');
refused_with($server, '23N01', "INSERT INTO patient VALUES (1, '$PATIENT', 'seeded name')", 'the guard as well');

SKIP:
{
	skip 'event triggers cannot be switched off before version 17', 1
	  if $server->safe_psql('postgres', 'SHOW server_version_num') < 170000;
	is($server->safe_psql('postgres', q{
			SET event_triggers = off;
			SELECT object FROM ndrs_optout.guard_coverage() WHERE gap = 'sentry_off';
			SELECT status FROM ndrs_optout.health() WHERE check_name = 'sentry'}),
		"event_triggers\nfailed", 'event triggers that are switched off for a session');
}

is(sqlstate((try_sql($server, 'DROP SCHEMA theirs CASCADE', extra_params => [ '-U', 'dbo' ]))[2]),
	'', 'other schemas can be dropped, with other extensions');
is(sqlstate((try_sql($server, 'DROP EXTENSION ndrs_optout CASCADE'))[2]), '', 'a superuser can drop the extension');
is(sqlstate((try_sql($server, 'DROP EXTENSION pgcrypto', extra_params => [ '-U', 'dbo' ]))[2]),
	'', 'and the owner then pgcrypto');

done_testing();
