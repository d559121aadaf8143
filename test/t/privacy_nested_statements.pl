# What libraries write down of the statements inside the extension's functions.
#
# The hazard: pgaudit and auto_explain can log every statement, also those inside a function,
# with its parameters.  A sweep names nobody, but it finds patients, and hands their numbers
# and keys from one statement to the next; so do the erasure, its preview, and the answer to
# a request for subject access.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $CONTROL = $TEST_NUMBERS[8];
my ($directory) = PostgreSQL::Test::Utils::run_command([ 'pg_config', '--pkglibdir' ]);
my $pgaudit = -e "$directory/pgaudit.so";
my $libraries = $pgaudit ? 'pgaudit, auto_explain' : 'auto_explain';
my $settings = $pgaudit ? "pgaudit.log = 'all'\npgaudit.log_parameter = on\npgaudit.log_client = on\n" : '';

my $server = new_server('privacy_nested_statements', settings => qq{
shared_preload_libraries = '$libraries'
log_error_verbosity = verbose
log_lock_waits = on
deadlock_timeout = 100ms
});
install_extension($server);
create_registry($server);
$server->safe_psql('postgres', q{
	CREATE TABLE given (n ndrs_optout.nhs_number);
	CREATE TABLE scan (id bigint, patient_id bigint REFERENCES patient ON DELETE SET NULL);
	CREATE FUNCTION control(n bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM patient WHERE patient_id = n); END';
	SELECT ndrs_optout.unguard_table('patient');
});
$server->append_conf('postgresql.conf', qq{
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
auto_explain.log_analyze = on
log_min_messages = notice
$settings});
$server->reload;

# Number and key of the patient: these are in no statement that is typed.
my $KEY = 8812345678;

sub bring_back
{
	$server->safe_psql('postgres', qq{
		SET pgaudit.log = 'none'; SET auto_explain.log_min_duration = -1; SET ndrs_optout.allow_unguarded = on;
		DELETE FROM scan; DELETE FROM tumour; DELETE FROM patient; DELETE FROM given;
		INSERT INTO patient VALUES ($KEY, '$PATIENT', 'name'); INSERT INTO tumour (patient_id) VALUES ($KEY);
		INSERT INTO scan VALUES (1, $KEY); INSERT INTO given VALUES ('$PATIENT')});
	new_log($server);
	return;
}

sub leaves_nothing
{
	my ($name, $sql, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	bring_back();
	my ($status, $output, $messages) = try_sql($server, $sql);
	my $log = new_log($server);
	is($status, 0, "$name: works") or diag($messages);
	like($log, qr/plan:/, "$name: auto_explain has written");
	like($log, qr/AUDIT: SESSION,#/, "$name: pgaudit has written of what is inside") if $pgaudit;
	unlike($log, qr/\Q$PATIENT\E|\Q$KEY\E/, "$name: but no number and no key");
	is($server->safe_psql('postgres', 'SELECT count(*) FROM patient'), $expected, "$name: does what it should");
	return;
}

bring_back();
$server->safe_psql('postgres', 'SELECT control(n) FROM (SELECT 8812345678 AS n OFFSET 0) AS given');
like(new_log($server), qr/\Q$KEY\E/, 'a function of somebody else leaves its parameter');

my $given = '(SELECT n FROM given)';
leaves_nothing('erasure_preview', "SELECT count(*) FROM ndrs_optout.erasure_preview($given, '{cancer}')", 1);
$server->safe_psql('postgres', qq{
	SET pgaudit.log = 'none'; SET auto_explain.log_min_duration = -1;
	SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}')});
leaves_nothing('erasure_preview', "SELECT count(*) FROM ndrs_optout.erasure_preview($given, '{cancer}')", 1);
leaves_nothing('erase', "SELECT count(*) FROM ndrs_optout.erase($given, '{cancer}')", 0);
leaves_nothing('subject_access', "SELECT count(*) FROM ndrs_optout.disclose_records($given)", 1);
$server->safe_psql('postgres', qq{
	SET pgaudit.log = 'none'; SET auto_explain.log_min_duration = -1;
	SELECT ndrs_optout.unguard_table('patient');
	SELECT ndrs_optout.exclude('$PATIENT', '{cancer}')});
bring_back();
$server->safe_psql('postgres', qq{
	SET pgaudit.log = 'none'; SET auto_explain.log_min_duration = -1;
	SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}')});
new_log($server);
my ($status, undef, $messages) = try_sql($server, 'CALL ndrs_optout.sweep()');
my $log = new_log($server);
is($status, 0, 'sweep: works') or diag($messages);
like($log, qr/plan:/, 'sweep: auto_explain has written');
like($log, qr/AUDIT: SESSION,#/, 'sweep: pgaudit has written of what is inside') if $pgaudit;
unlike($log, qr/\Q$PATIENT\E|\Q$KEY\E/, 'sweep: but no number and no key');
unlike($messages, qr/\Q$PATIENT\E|\Q$KEY\E/, 'sweep: nor to the client');
is($server->safe_psql('postgres', 'SELECT count(*) FROM patient'), 0, 'sweep: erases');

done_testing();
