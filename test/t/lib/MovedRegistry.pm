# A registry that is moved to another server version, and what must hold there.  The
# servers need not be of PostgreSQL::Test::Cluster: each function takes a sub that runs
# SQL in the registry's database and returns the output and the SQLSTATE of an error.
package MovedRegistry;

use strict;
use warnings;

use Exporter qw(import);
use Test::More;

our @EXPORT = qw(create_moved_registry shown weak_triggers guards_hold case_goes_on failed_checks);

# One who is excluded, one who may be held, one who leaves after the move
my ($EXCLUDED, $ALLOWED, $LEAVING) = qw(9990000018 9990000026 9990000034);

# The extension is installed and has a key.
sub create_moved_registry
{
	my ($ask) = @_;
	my (undef, $error) = $ask->(qq{
		CREATE SCHEMA cancer;
		CREATE TABLE cancer.patient (patient_id bigint PRIMARY KEY, nhs ndrs_optout.nhs_number, name text);
		CREATE TABLE cancer.tumour (tumour_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES cancer.patient);
		CREATE TABLE cancer.sample (tumour_id bigint, tube text);
		CREATE TABLE cancer.referral (nhs text, year int) PARTITION BY LIST (year);
		CREATE TABLE cancer.referral_1 PARTITION OF cancer.referral FOR VALUES IN (1);
		CREATE TABLE cancer.loaded (nhs bigint);
		SELECT ndrs_optout.guard_table('cancer.patient', 'nhs', '{cancer}'),
			ndrs_optout.guard_table('cancer.referral', 'nhs', '{cancer}', 'skip'),
			ndrs_optout.guard_table('cancer.loaded', 'nhs', '{cancer}', mechanism => 'constraint'),
			ndrs_optout.declare_reference('cancer.sample', '{tumour_id}', 'cancer.tumour', '{tumour_id}');
		CREATE TABLE cancer.referral_2 PARTITION OF cancer.referral FOR VALUES IN (2);
		INSERT INTO ndrs_optout.register VALUES ('local', 'Local Register');
		SELECT ndrs_optout.exclude('$EXCLUDED', '{cancer,local}');
		INSERT INTO cancer.patient VALUES (1, '$ALLOWED', 'A'), (2, '$LEAVING', 'B');
		INSERT INTO cancer.tumour VALUES (10, 1), (20, 2);
		INSERT INTO cancer.sample VALUES (10, 'red'), (20, 'blue');
		INSERT INTO cancer.referral VALUES ('$EXCLUDED', 1), ('$LEAVING', 1), ('$ALLOWED', 2);
		SELECT ndrs_optout.open_case('$LEAVING', '{cancer}');
		SELECT ndrs_optout.record_identity(1, 'identity', 'passport'), ndrs_optout.record_identity(1, 'address', 'utility_bill');
	});
	die "the registry could not be made: $error" if $error;
	return;
}

my %SHOWS = (
	'the rows' => q{SELECT (SELECT count(*) FROM cancer.patient), (SELECT count(*) FROM cancer.tumour),
		(SELECT count(*) FROM cancer.sample), (SELECT count(*) FROM cancer.referral)},
	'the list' => q{SELECT ndrs_optout.exclusion_list('cancer'), ndrs_optout.exclusion_list('local')},
	'the guards' => 'SELECT g FROM ndrs_optout.guard g ORDER BY g.target::text',
	'the references' => 'SELECT r FROM ndrs_optout.reference r ORDER BY r::text',
	'what the walk has followed' => q{SELECT kind, child, child_columns, parent, parent_columns FROM ndrs_optout.expected_edge
		ORDER BY child_name, parent_name},
	'what the walk has lost' => 'SELECT count(*) FROM ndrs_optout.lost_edges()',
	'the registers' => 'SELECT r FROM ndrs_optout.register r ORDER BY 1',
	'the cases' => 'SELECT c FROM ndrs_optout.case_progress c ORDER BY 1',
	'the counts' => 'SELECT c FROM ndrs_optout.guard_count c ORDER BY c::text',
	'the audit' => 'SELECT count(*), (SELECT count(*) FROM ndrs_optout.verify_audit()) FROM ndrs_optout.audit_event',
	# NOT VALID or not is the server's: a partition that comes later counts as validated.
	'the constraints' => q{SELECT conrelid::regclass, conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '') FROM pg_constraint
		WHERE conname LIKE 'ndrs_optout_guard%' ORDER BY conrelid::regclass::text, conname},
	'the triggers' => q{SELECT tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger
		WHERE tgfoid = 'ndrs_optout.guard_row'::regproc ORDER BY tgrelid::regclass::text, tgname},
	'the extension\'s own triggers' => q{SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
		WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND NOT tgisinternal ORDER BY tgrelid::regclass::text, tgname},
	'the event triggers' => q{SELECT evtname, evtenabled FROM pg_event_trigger WHERE evtname LIKE 'ndrs%' ORDER BY 1});

# What a registry holds, by name
sub shown
{
	my ($ask) = @_;
	return { map { $_ => ($ask->($SHOWS{$_}))[0] } keys %SHOWS };
}

# Triggers that do not fire as they must
sub weak_triggers
{
	my ($ask) = @_;
	my ($count) = $ask->(q{
		SELECT count(*) FROM pg_trigger WHERE tgfoid = 'ndrs_optout.guard_row'::regproc AND tgenabled <> 'A'});
	return $count;
}

# Tests: excluded patients stay out, also of a session as replication uses it, and
# the others come in.
sub guards_hold
{
	my ($ask) = @_;
	foreach my $role (qw(origin replica))
	{
		my $set = "SET session_replication_role = $role;";
		is(($ask->("$set INSERT INTO cancer.patient VALUES (9, '$EXCLUDED', 'C')"))[1], '23N01', "$role: a row is refused");
		is(($ask->("$set INSERT INTO cancer.loaded VALUES ($EXCLUDED)"))[1], '23N01', "$role: and by the constraint alone");
		is(($ask->("$set INSERT INTO cancer.referral VALUES ('$EXCLUDED', 2)"))[1], '', "$role: a row is skipped");
	}
	is(($ask->(q{SELECT count(*) FROM cancer.referral}))[0], '2', 'and is not there');
	is(($ask->("INSERT INTO cancer.patient VALUES (3, '$ALLOWED', 'D'); DELETE FROM cancer.patient WHERE patient_id = 3"))[1],
		'', 'another patient enters');
	is(($ask->('ALTER TABLE cancer.patient DISABLE TRIGGER ALL'))[1], 'ND050', 'the sentry is at its post');
	return;
}

# Tests: a case that was open before the move is carried out.
sub case_goes_on
{
	my ($ask) = @_;
	is(($ask->("CALL ndrs_optout.carry_out(1, '$LEAVING')"))[1], '', 'a case is carried out');
	is(($ask->('SELECT (SELECT count(*) FROM cancer.patient), (SELECT count(*) FROM cancer.sample), (SELECT count(*) FROM cancer.referral)'))[0],
		'1|1|1', 'the patient\'s rows are gone, over the declared reference, too');
	is(($ask->('SELECT length(ndrs_optout.complete_case(1)) > 100'))[0], 't', 'and the letter is written');
	return;
}

# The checks of health() that fail
sub failed_checks
{
	my ($ask) = @_;
	my ($checks) = $ask->(q{SELECT string_agg(check_name, ', ' ORDER BY check_name) FROM ndrs_optout.health() WHERE status = 'failed'});
	return $checks;
}

1;
