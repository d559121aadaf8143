# Decisions on sharing where nothing can be written, and what a bad reply leaves behind.
#
# The hazards: analysts work on a standby, which learns of a check, an exemption or
# an opt-out only by what is replayed, cannot write, and has a key file of its own;
# and a reply of the service is a list of patients, which a person sees who looks
# why it was refused, or a log keeps.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($allowed, $optedout, $unchecked, $excluded, $control) = @TEST_NUMBERS[ 0 .. 3, 8 ];
my $primary = new_server(
	'sharing',
	init => { allows_streaming => 1 },
	settings => q{
log_error_verbosity = verbose
log_min_error_statement = error
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
});
install_extension($primary);
$primary->safe_psql('postgres', qq{
	CREATE TABLE patient AS SELECT unnest(ARRAY['$allowed', '$optedout', '$unchecked', '$excluded', '1111111111', '']) AS number;
	CREATE TABLE many AS SELECT '99900' || lpad(i::text, 5, '0') AS number FROM generate_series(0, 20000) AS i;
	ALTER TABLE many SET (parallel_workers = 2);
	CREATE FUNCTION kept() RETURNS text LANGUAGE plpgsql AS
		\$\$ BEGIN RETURN ndrs_optout.share_decision('$allowed', 'research'); END \$\$;
	SELECT ndrs_optout.exclude('$excluded', '{rare_disease}');
	SELECT ndrs_optout.start_national_check(ARRAY['$allowed', '$optedout', '$excluded']::ndrs_optout.nhs_number[]);
	SELECT ndrs_optout.load_national_check(1, ARRAY['$allowed,', '$excluded,']);
	SELECT ndrs_optout.add_recipient('university', 'University', 'nhs_number');
	SELECT ndrs_optout.grant_exemption('planning', 'university', 'CAG 1', '2000-01-01');
});

my $decide = q{SELECT string_agg(ndrs_optout.share_decision(number, 'research'), '|' ORDER BY number) FROM patient};
my $exempted = q{SELECT string_agg(ndrs_optout.share_decision(number, 'planning', NULL, 'university'), '|' ORDER BY number) FROM patient};
my $summary = q{SELECT string_agg(s::text, ' ') FROM ndrs_optout.share_summary('SELECT number FROM public.many', 'research') AS s};

# In the order of the numbers: missing, placeholder, allowed, opted out, unchecked, excluded
my $first = 'number_missing|placeholder|eligible|national_opt_out|not_checked|excluded_from_register';
my $second = 'number_missing|placeholder|national_opt_out|eligible|not_checked|excluded_from_register';

# ------------------------------------------------------------------ a standby

subtest 'a standby' => sub {
	my $standby = PostgreSQL::Test::Cluster->new('sharing_standby');
	$primary->backup('copy');
	$standby->init_from_backup($primary, 'copy', has_streaming => 1);
	# The key file of a standby is its own to have.
	$standby->append_conf('postgresql.conf', "ndrs_optout.key_file = '" . key_path($standby) . "'");
	$standby->start;
	my $session = open_session($standby);
	my $snapshot = open_session($standby);
	my $caught_up = sub { $primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert')) };

	is(sqlstate((run_in($session, $decide))[1]), 'ND010', 'without the key file nobody is decided upon');
	write_key($standby, random_key());
	reload_and_wait($standby, $session);
	is(sqlstate((run_in($session, $decide))[1]), 'ND011', 'nor with another key');
	write_key($standby, slurp_file(key_path($primary)));
	reload_and_wait($standby, $session, $snapshot);
	is(run_in($session, $decide), $first, 'with the key, it decides as the primary does');
	is($primary->safe_psql('postgres', $decide), $first, 'which decides so');
	# An answer that PL/pgSQL has kept is none any more when the key is gone.
	run_in($snapshot, "BEGIN; SELECT kept()");
	unlink key_path($standby);
	reload_and_wait($standby, $snapshot);
	is(sqlstate((run_in($snapshot, 'SELECT kept()'))[1]), 'ND010', 'without the key an answer that was kept is none');
	run_in($snapshot, 'ROLLBACK');
	write_key($standby, slurp_file(key_path($primary)));
	reload_and_wait($standby, $session, $snapshot);
	is(run_in($session, $exempted), 'number_missing|placeholder|eligible|eligible|eligible|excluded_from_register',
		'and knows of the exemption');
	run_in($snapshot, 'BEGIN ISOLATION LEVEL REPEATABLE READ');
	is(run_in($snapshot, $decide), $first, 'so does a session in REPEATABLE READ');

	# Whatever changes on the primary
	$primary->safe_psql('postgres', qq{
		SELECT ndrs_optout.start_national_check(ARRAY['$allowed', '$optedout']::ndrs_optout.nhs_number[]);
		BEGIN; SELECT ndrs_optout.load_national_check(2, ARRAY['$allowed,', '$optedout,']); ROLLBACK});
	$caught_up->();
	is(run_in($_, $decide), $first, 'a reply that was rolled back is none') foreach $session, $snapshot;
	$primary->safe_psql('postgres', "SELECT ndrs_optout.load_national_check(2, ARRAY['$optedout,'])");
	$caught_up->();
	is(run_in($_, $decide), $second, 'the same session follows a reply on the primary') foreach $session, $snapshot;
	$primary->safe_psql('postgres', 'SELECT ndrs_optout.end_exemption(1)');
	$caught_up->();
	is(run_in($_, $exempted), $second, 'and the end of an exemption') foreach $session, $snapshot;
	$primary->safe_psql('postgres', q{
		UPDATE ndrs_optout.national_check SET expires_at = '2000-01-01';
		UPDATE ndrs_optout.purpose SET permitted = false WHERE code = 'planning'});
	$caught_up->();
	is(run_in($_, $decide), 'number_missing|placeholder|check_expired|check_expired|not_checked|excluded_from_register',
		'and an expired check') foreach $session, $snapshot;
	is(run_in($_, $exempted), join('|', ('purpose_not_permitted') x 6), 'and a purpose') foreach $session, $snapshot;
	$primary->safe_psql('postgres', "SELECT ndrs_optout.exclude('$allowed', '{cancer}')");
	$caught_up->();
	is(run_in($_, $decide), 'number_missing|placeholder|excluded_from_register|check_expired|not_checked|excluded_from_register',
		'and an opt-out') foreach $session, $snapshot;
	# Sets that a backend reads anew after a vacuum, and after the rows were frozen
	$primary->safe_psql('postgres', q{
		UPDATE ndrs_optout.national_check SET expires_at = 'infinity';
		VACUUM (FREEZE, FULL) ndrs_optout.national_check;
		VACUUM (FREEZE) ndrs_optout.national_check});
	run_in($snapshot, 'COMMIT');
	$caught_up->();
	is(run_in($_, $decide), 'number_missing|placeholder|excluded_from_register|eligible|not_checked|excluded_from_register',
		'after a rewrite of the table') foreach $session, $snapshot;

	# A check of many, by workers, on both
	$primary->safe_psql('postgres', q{
		SELECT ndrs_optout.start_national_check('SELECT number FROM public.many');
		CREATE TEMP TABLE reply AS SELECT line FROM ndrs_optout.national_check_request(3) AS line WHERE line !~ '7,$';
		SELECT ndrs_optout.load_national_check(3, ARRAY(SELECT line FROM reply))});
	$caught_up->();
	my $expected = $primary->safe_psql('postgres', $summary);
	like($expected, qr/\(eligible,\d+,\d+\) \(national_opt_out,\d+,\d+\)/, 'a check of many');
	is(run_in($session, $summary), $expected, 'a summary is the same on the standby');
	run_in($session, 'SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET parallel_leader_participation = off');
	like(run_in($session, "EXPLAIN SELECT number FROM many WHERE ndrs_optout.share_eligible(number, 'research')"),
		qr/Workers Planned: 2/, 'with workers');
	is(run_in($session, q{SELECT count(*) FROM many WHERE ndrs_optout.share_eligible(number, 'research')}),
		($expected =~ /\(eligible,\d+,(\d+)\)/)[0], 'they decide the same');

	is(sqlstate((run_in($session, $_))[1]), '25006', "read-only: $_")
	  foreach "SELECT ndrs_optout.start_national_check('SELECT number FROM public.patient')",
	  "SELECT ndrs_optout.load_national_check(3, ARRAY['x'])", 'SELECT ndrs_optout.cancel_national_check(3)',
	  "SELECT ndrs_optout.grant_exemption('research', 'university', 'y')";
	close_session($_) foreach $session, $snapshot;
	$standby->stop;
};

# ------------------------------------------------- what a bad reply leaves behind

# Each is a list of patients, or may be, and is refused.  Neither the client nor the
# log may show one, whichever way it came.
subtest 'nothing of a bad reply is told' => sub {
	my $start = -s $primary->logfile;
	my %bad = (
		'a stranger' => "$allowed,\\n$unchecked,\\n",
		'an error line with a number' => "$allowed is not valid",
		'another column' => "$allowed,$optedout\\n",
		'padded' => " $allowed,\\n",
		'twice' => "$allowed,\\n$allowed,\\n",
		'cut off' => "$allowed,\\n" . substr($optedout, 0, 9),
		'after a blank line' => "$allowed,\\n\\n$optedout,\\n");
	my $check = $primary->safe_psql('postgres',
		"SELECT ndrs_optout.start_national_check(ARRAY['$allowed', '$optedout']::ndrs_optout.nhs_number[])");
	my $told = '';

	foreach my $kind (sort keys %bad)
	{
		$primary->safe_psql('postgres', "CREATE TABLE reply AS SELECT string_to_table(E'$bad{$kind}', E'\\n') AS line");
		foreach my $sql ("SELECT ndrs_optout.load_national_check($check, ARRAY[E'$bad{$kind}'])",
			"SELECT ndrs_optout.load_national_check($check, 'TABLE public.reply')",
			"DO \$\$ BEGIN PERFORM ndrs_optout.load_national_check($check, ARRAY[E'$bad{$kind}']); END \$\$",
			"PREPARE load(text[]) AS SELECT ndrs_optout.load_national_check($check, \$1); EXECUTE load(ARRAY[E'$bad{$kind}'])")
		{
			$told .= refused_with($primary, 'ND040', $sql, "$kind: " . ($sql =~ s/\W.*//sr));
		}
		$primary->safe_psql('postgres', 'DROP TABLE reply');
	}
	# Mistakes that end elsewhere
	$told .= refused_with($primary, '22023', $_, 'not a query')
	  foreach "SELECT ndrs_optout.load_national_check($check, '$allowed,')",
	  "SELECT ndrs_optout.start_national_check('{$allowed,$optedout}')",
	  "SELECT ndrs_optout.start_national_check('SELECT $allowed FROM nowhere')",
	  "SELECT * FROM ndrs_optout.share_summary('VALUES ($allowed), (1/0)', 'research')",
	  "SELECT ndrs_optout.grant_exemption('research', 'university', 'letter of $allowed')";
	$told .= refused_with($primary, '42704', $_, 'arguments in another order')
	  foreach "SELECT ndrs_optout.share_decision('research', '$allowed')",
	  "SELECT ndrs_optout.share_decision('x', 'research', '{$allowed}')",
	  "SELECT ndrs_optout.grant_exemption('research', '$allowed', 'x')";
	# The server's own errors: a lock that is not to be had, a time-out
	my $holder = open_session($primary);
	run_in($holder, 'BEGIN; LOCK TABLE ndrs_optout.national_check, ndrs_optout.purpose');
	$told .= refused_with($primary, '55P03', "SET lock_timeout = '10ms'; $_", 'a lock')
	  foreach "SELECT ndrs_optout.start_national_check(ARRAY['$allowed']::ndrs_optout.nhs_number[])",
	  "SELECT ndrs_optout.load_national_check($check, ARRAY['$allowed,'])",
	  "SELECT ndrs_optout.share_decision('$allowed', 'research')";
	$told .= refused_with($primary, '57014', "SET statement_timeout = '10ms'; $_", 'a time-out')
	  foreach "SELECT ndrs_optout.load_national_check($check, ARRAY['$allowed,'])",
	  "SELECT ndrs_optout.share_eligible('$allowed', 'research')";
	close_session($holder);

	my $log = slurp_file($primary->logfile, $start);
	like($log, qr/ND040/, 'the log has the errors');
	foreach my $number ($allowed, $optedout, $unchecked, substr($optedout, 0, 9))
	{
		unlike($told, qr/$number/, 'the client is not told');
		unlike($log, qr/$number/, 'nor the log');
	}
	# That this log would show a number is proved by a function that is not ours.
	try_sql($primary, "SELECT ARRAY['$control,']::int[]");
	like(slurp_file($primary->logfile, $start), qr/$control/, 'an error of the server itself is in the log whole');
};

$primary->stop;
done_testing();
