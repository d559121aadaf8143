# An answer that tells of a patient, and its event in the audit, in a pipeline.
#
# The hazard: a client sends its statements one after the other without waiting, all of
# them in one transaction, and reads the answer of the first.  Then the last one fails,
# and with it the audit of what was read.  What else could undo it is in
# test/sql/subject_access.sql.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('audit_pipeline');
install_extension($server);
create_registry($server);
hold_patient($server, 1, $PATIENT);

my $script = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
append_to_file($script, "\\set number $PATIENT\n\\startpipeline\n"
	. "SELECT count(*) FROM ndrs_optout.disclose_records(:number);\nSELECT 1 / 0;\n\\endpipeline\n");
IPC::Run::run([ 'pgbench', '-n', '-M', 'extended', '-t', '1', '-f', $script, $server->connstr('postgres') ],
	'<', \undef, '>', \my $output, '2>', \my $messages);
like($messages, qr/division by zero/, 'the last statement of a pipeline fails');
is($server->safe_psql('postgres', "SELECT count(*) FROM ndrs_optout.audit_event WHERE event = 'subject_access'"),
	1, 'what the first one told is in the audit');

$server->stop;
done_testing();
