# Queries that no person would write, by sqlsmith, as each duty and as a role with
# none.
#
# The hazard: a function in C that takes what it is given for what it should be.  The
# server must not crash, nothing in the extension's tables may change (sqlsmith rolls
# everything back), and nothing that is logged may hold a patient's number.
#
# It runs on request only, since it finds something by chance or not at all:
#
#   SQLSMITH_SECONDS  how long for each role
#   SQLSMITH_SEED     repeats the queries
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $SECONDS = $ENV{SQLSMITH_SECONDS} or plan skip_all => 'SQLSMITH_SECONDS is not set';
my $SEED = $ENV{SQLSMITH_SEED} // int rand 2**31;
my $AGAIN = "SQLSMITH_SEED=$SEED SQLSMITH_SECONDS=$SECONDS";
my @ROLES = qw(guest guest_owner officer loader analyst auditor steward);
IPC::Run::run([ 'sqlsmith', '--version' ], '>', \my $version, '2>&1')
  or plan skip_all => 'sqlsmith is not installed';
note $AGAIN;

# Of the server's own errors, some show values of columns that a query reads: they have
# no number in what these roles may read.
my $server = new_server('sqlsmith', settings => q{
statement_timeout = 1s
lock_timeout = 200ms
log_line_prefix = '%e|%u|'
restart_after_crash = on
});
install_extension($server);
create_registry($server);
hold_patient($server, 1, $PATIENT);
hold_patient($server, 2, $NEIGHBOUR);
my $case_id = ready_case($server, $PATIENT);
$server->safe_psql('postgres', "CALL ndrs_optout.carry_out($case_id, '$PATIENT')");
$server->safe_psql('postgres', join ";\n",
	'SET client_min_messages = warning',
	"SELECT ndrs_optout.start_national_check('{$NEIGHBOUR}'::ndrs_optout.nhs_number[])",
	q{SELECT ndrs_optout.add_recipient('institute', 'Institute', 'nhs_number')},
	q{SELECT ndrs_optout.add_agreement('institute', 'consent', 'agreement 1', '2000-01-01', '2099-12-31')},
	"SELECT ndrs_optout.record_release('{$NEIGHBOUR}'::ndrs_optout.nhs_number[], 'legal_requirement', NULL, 'institute', current_date, 'r')",

	# Whatever a function may be called with; a number that is nobody's stands for them all
	q{
		CREATE TABLE material AS SELECT n::ndrs_optout.nhs_number AS number, ARRAY[n::ndrs_optout.nhs_number] AS numbers,
			ndrs_optout.encode_nhs_number(n::ndrs_optout.nhs_number) AS encoded,
			ndrs_optout.encoded_set(ARRAY[ndrs_optout.encode_nhs_number(n::ndrs_optout.nhs_number)]) AS these,
			n::text AS word, n::bigint AS long, n::numeric AS digits, ARRAY['cancer', n] AS words,
			'patient'::regclass AS relation, 'patient'::regclass::oid AS id, 'text'::regtype AS type,
			'guest'::name AS name, ARRAY['id'::name] AS names, current_date AS day, now() AS time,
			jsonb_build_object('case', 1) AS document, '\x00'::bytea AS bytes, true AS yes, 1 AS number_of_case
		FROM unnest('{2222222222,5555555555}'::text[]) AS n;
		INSERT INTO material (word) VALUES (NULL), (''), (repeat('9', 1000));
		CREATE ROLE guest LOGIN; CREATE ROLE guest_owner LOGIN; GRANT CREATE ON DATABASE postgres TO guest_owner;
		GRANT USAGE ON SCHEMA ndrs_optout TO guest, guest_owner;
		CREATE SCHEMA of_guest_owner AUTHORIZATION guest_owner;
		CREATE TABLE of_guest_owner.guarded (id int, nhs_number text);
		ALTER TABLE of_guest_owner.guarded OWNER TO guest_owner;
		SELECT ndrs_optout.guard_table('of_guest_owner.guarded', 'nhs_number', '{cancer}', 'skip');
		GRANT ALL ON material TO PUBLIC},
	map { "CREATE ROLE $_ LOGIN; SELECT ndrs_optout.grant_access('$_', '$_')" } qw(officer loader analyst auditor steward));

# Everything in the extension's tables
my @tables = split /\n/, $server->safe_psql('postgres', q{
	SELECT oid::regclass FROM pg_class WHERE relnamespace = 'ndrs_optout'::regnamespace AND relkind = 'r'});
sub content
{
	return $server->safe_psql('postgres', join ' UNION ALL ',
		map { "SELECT '$_', count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM $_ AS t" } @tables);
}

my $before = content();
foreach my $role (@ROLES)
{
	my $said = '';
	my $sqlsmith = IPC::Run::start(
		[ 'sqlsmith', '--verbose', "--seed=$SEED", '--target=' . $server->connstr('postgres') . " user=$role" ],
		'>', '/dev/null', '2>', \$said);
	my $until = time + $SECONDS;
	while (time < $until && $sqlsmith->pumpable)
	{
		eval { $sqlsmith->pump_nb; 1 } or last;
		select undef, undef, undef, 0.2;
	}
	$sqlsmith->kill_kill(grace => 1);
	# A character for each query, and for what became of it
	my $queries = length join '', grep { /^[.eCtS]+$/ } split /\n/, $said;
	cmp_ok($queries, '>', 50, "sqlsmith asked as $role ($AGAIN)") or diag($said =~ s/.*(.{2000})\z/$1/sr);
	note "$role: $queries queries";
}

my $log = slurp_file($server->logfile);
unlike($log, qr/PANIC|TRAP|terminated by signal|terminated abnormally/, "the server did not crash ($AGAIN)");
is(content(), $before, "nothing in the extension's tables has changed ($AGAIN)");
my @shown = grep { /\b999\d{7}\b|seeded/ } split /\n/, $log;
is(join("\n", @shown[ 0 .. ($#shown < 4 ? $#shown : 4) ]), '', "the log holds no number ($AGAIN)");
my @internal = grep { /^XX\d{3}\|/ && /ERROR/ } split /\n/, $log;
note scalar(@internal), ' internal errors, such as: ', $_ foreach @internal[ 0 .. ($#internal < 4 ? $#internal : 4) ];
my @ours = grep { /function guard_|ndrs_optout/ } @internal;
is(join("\n", @ours[ 0 .. ($#ours < 4 ? $#ours : 4) ]), '', "no function of ours has an internal error ($AGAIN)");

$server->stop;
done_testing();
