# Ten thousand recalls to a hundred recipients, written and answered by file.
#
# The hazards: an opt-out names its patient to a hundred recipients in one transaction,
# by salts that are in files, some of which cannot be read; a file takes time or memory
# with the square of what is in it; and an id, a number or a salt is left where it can be read.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $PATIENTS = 100;
my $RECIPIENTS = 100;
my @numbers = OptoutServer::test_numbers($PATIENTS);
my $server = new_server('recall_file');
my $salts = $server->basedir . '/salts';
my $public_key = slurp_file("$FindBin::RealBin/../keys/guardian.public.asc");
my $private_key = slurp_file("$FindBin::RealBin/../keys/guardian.private.asc");

sub write_salt
{
	my ($name, $salt, $mode) = @_;
	my $path = "$salts/$name.salt";
	unlink $path;
	append_to_file($path, $salt);
	chmod($mode // 0600, $path) or die "chmod $path: $!";
	return;
}

# Recipients of three kinds: a third each has the number, a pseudo-id, and an id of the release.
mkdir $salts or die "mkdir $salts: $!";
$server->append_conf('postgresql.conf', "ndrs_optout.salt_directory = '$salts'");
$server->reload;
install_extension($server);
create_registry($server);
my @schemes = ('nhs_number', 'ndrs_pseudo_id', 'release_pseudo_id');
my $sql = "SET client_min_messages = warning;\n";
foreach my $i (1 .. $RECIPIENTS)
{
	my $scheme = $schemes[ $i % 3 ];
	$sql .= "SELECT ndrs_optout.add_recipient('r$i', 'Recipient $i', '$scheme', 'file $i');\n"
	  . "SELECT ndrs_optout.add_agreement('r$i', 'consent', 'agreement 1', '2000-01-01', '2099-12-31');\n"
	  . "SELECT ndrs_optout.set_recipient_key('r$i', \$k\$$public_key\$k\$);\n"
	  . "SELECT ndrs_optout.record_release('{" . join(',', @numbers) . "}'::ndrs_optout.nhs_number[], 'explicit_consent', '{cancer}', 'r$i', current_date, 'order $i');\n";
	write_salt("r$i", "salt of r$i\n");
	write_salt("r$i-$i", "salt of release $i\r\n");
}
$server->safe_psql('postgres', $sql);
is($server->safe_psql('postgres', 'SELECT status FROM ndrs_optout.health_salts()'), 'ok', 'every salt can be read');

# ------------------------------------------------------- salts that cannot be read

subtest 'a salt that cannot be read stops no opt-out' => sub {
	write_salt('r1', "salt of r1\n", 0644);
	write_salt('r2-2', "  \n");
	unlink "$salts/r4.salt" or die "unlink: $!";
	mkdir "$salts/r4.salt" or die "mkdir: $!";
	write_salt('r5', 'x' x 1025);
	write_salt('r7', "\xff\xfe");
	unlink "$salts/r8-8.salt" or die "unlink: $!";
	is($server->safe_psql('postgres', 'SELECT status, detail FROM ndrs_optout.health_salts()'),
		'warning|salt files that cannot be used: '
		  . 'r1.salt (it is open to others: its mode must be 0600, or 0640 when it belongs to root), '
		  . 'r2-2.salt (it is empty), '
		  . 'r4.salt (it is not a regular file), '
		  . 'r5.salt (it is too long for a salt), '
		  . "r7.salt (it is no text in the database's encoding), "
		  . 'r8-8.salt (it cannot be opened: No such file or directory)',
		'health() tells of each');
	my $case = ready_case($server, $numbers[0]);
	$server->safe_psql('postgres', "SET client_min_messages = warning; CALL ndrs_optout.carry_out($case, '$numbers[0]')");
	is($server->safe_psql('postgres', q{SELECT string_agg(recipient, ' ' ORDER BY release_id) FROM ndrs_optout.recall_progress WHERE NOT by_file}),
		'r1 r2 r4 r5 r7 r8', 'the others are named');
	is($server->safe_psql('postgres', q{SELECT ndrs_optout.salt_from_file('../optout') IS NULL AND ndrs_optout.salt_from_file('') IS NULL}),
		't', 'a name is no path');

	write_salt('r1', "salt of r1\n");
	write_salt('r2-2', "salt of release 2\n");
	rmdir "$salts/r4.salt" or die "rmdir: $!";
	write_salt("r$_", "salt of r$_\n") foreach 4, 5, 7;
	write_salt('r8-8', "salt of release 8\n");
	$server->safe_psql('postgres', "SELECT ndrs_optout.seal_recall(notice_id, '$numbers[0]') FROM ndrs_optout.recall_progress WHERE NOT by_file");
	is($server->safe_psql('postgres', 'SELECT count(*) FROM ndrs_optout.recall_progress WHERE NOT by_file'), '0', 'they are named when the salts are there');
};

# ------------------------------------------------------------------------ at scale

my $started = time;
foreach my $number (@numbers[ 1 .. $#numbers ])
{
	my $case = ready_case($server, $number);
	$server->safe_psql('postgres', "SET client_min_messages = warning; CALL ndrs_optout.carry_out($case, '$number')");
}
note(sprintf 'carried out: %.1f s', time - $started);
is($server->safe_psql('postgres', 'SELECT count(*), count(DISTINCT recipient) FROM ndrs_optout.recall_progress WHERE by_file'),
	$PATIENTS * $RECIPIENTS . "|$RECIPIENTS", 'ten thousand recalls to a hundred recipients');

# One backend writes all files and loads all answers, so that its peak shows what both need.
# Each recipient has deleted most, did not find one, must keep one, and makes one mistake.
my $session = open_session($server);
my $peak = q{SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s+(\d+)')::bigint / 1024};
my $before = run_in($session, $peak);
$started = time;
run_in($session, q{
	CREATE TEMP TABLE file AS
		SELECT r.recipient, f.* FROM ndrs_optout.recipient r CROSS JOIN LATERAL ndrs_optout.recall_file(r.recipient) AS f});
my $written = time - $started;
$started = time;
run_in($session, q{
	CREATE TEMP TABLE problem AS
		SELECT a.recipient, p.* FROM (
			SELECT f.recipient, array_agg(format(CASE f.place WHEN 1 THEN '%s,not_found' WHEN 2 THEN '%s,exempt,,the law' WHEN 3 THEN '%s,gone'
													  ELSE '%s,deleted,' || ndrs_optout.today() END, f.notice_id) ORDER BY f.place) AS lines
				FROM (SELECT *, row_number() OVER (PARTITION BY recipient ORDER BY notice_id) AS place FROM file) AS f
				GROUP BY f.recipient) AS a
		CROSS JOIN LATERAL ndrs_optout.load_recall_replies(a.recipient, a.lines) AS p});
my $loaded = time - $started;
my $after = run_in($session, $peak);
note(sprintf 'written: %.1f s, answered: %.1f s, peak: %d MB, before %d MB', $written, $loaded, $after, $before);
is(run_in($session, 'SELECT count(*), count(DISTINCT recipient) FROM file'), $PATIENTS * $RECIPIENTS . "|$RECIPIENTS", 'each recall is in a file');
is(run_in($session, q{SELECT string_agg(DISTINCT line || ' ' || problem, ','), count(*) FROM problem}),
	"3 the status is not deleted, already_deleted, not_found or exempt|$RECIPIENTS", 'one line of each answer is returned');
is(run_in($session, q{SELECT string_agg(o.outcome || ' ' || o.count, ',' ORDER BY o.outcome) FROM
		(SELECT coalesce(outcome, 'open') AS outcome, count(*) FROM ndrs_optout.recall_progress GROUP BY 1) AS o}),
	sprintf('deleted %d,exempt %d,not_found %d,open %d', ($PATIENTS - 3) * $RECIPIENTS, ($RECIPIENTS) x 3), 'all others are answered');
cmp_ok($written, '<', 60, 'writing takes no minute');
cmp_ok($loaded, '<', 60, 'loading takes no minute');
cmp_ok($after - $before, '<', 64, 'neither takes much memory');

# ------------------------------------------------------------------- what is named

is(run_in($session, qq{
		SELECT count(*) FILTER (WHERE opened = CASE id_scheme
				WHEN 'nhs_number' THEN ndrs_optout.nhs_number_format(number)
				WHEN 'ndrs_pseudo_id' THEN ndrs_optout.ndrs_pseudo_id(number, 'salt of ' || recipient)
				ELSE ndrs_optout.release_pseudo_id(ndrs_optout.ndrs_pseudo_id(number, 'salt of ' || recipient), 'salt of release ' || release_id) END), count(*)
			FROM (SELECT r.recipient, r.id_scheme, n.release_id, (ARRAY['} . join("','", @numbers) . qq{'])[n.case_id]::ndrs_optout.nhs_number AS number,
						 convert_from(pgp_pub_decrypt_bytea(decode(f.sealed_id, 'base64'), dearmor(\$k\$$private_key\$k\$)), 'UTF8') AS opened
					  FROM file f JOIN ndrs_optout.recall_notice n USING (notice_id) JOIN ndrs_optout.recipient r USING (recipient)
					  WHERE n.case_id <= 6) AS o}),
	6 * $RECIPIENTS . '|' . 6 * $RECIPIENTS, 'each recipient reads its own id of the patient');
close_session($session);

my $dump = $server->safe_psql('postgres', q{SELECT string_agg(n::text, '') FROM ndrs_optout.recall_notice n})
  . $server->safe_psql('postgres', q{SELECT string_agg(e::text, '') FROM ndrs_optout.audit_event e})
  . slurp_file($server->logfile);
unlike($dump, qr/salt of/, 'no salt is left');
my @left = grep { my ($a, $b, $c) = unpack 'A3A3A4'; $dump =~ /$a ?$b ?$c/ } @numbers;
is(scalar @left, 0, 'no number is left');
$server->stop;
done_testing();
