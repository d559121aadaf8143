# pg_dump and pg_restore.
#
# The hazards: a database that was moved by dump has its data but not its guards,
# its exclusion list or its cases, unnoticed; and an old dump, loaded into a
# database that knows better, brings back patients who opted out since.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my ($excluded, $elsewhere, $allowed, $leaving, $everywhere) = @TEST_NUMBERS[ 0 .. 3, 6 ];
my $server = new_server('dump');
my $directory = $server->basedir;

# The output of a client program, and how it ended
sub run_program
{
	my @command = @_;
	my ($output, $messages) = ('', '');
	local $ENV{PGHOST} = $server->host;
	local $ENV{PGPORT} = $server->port;
	IPC::Run::run(\@command, '<', \undef, '>', \$output, '2>', \$messages);
	return ($? >> 8, $messages);
}

sub ask
{
	my ($database, $sql) = @_;
	return $server->safe_psql($database, $sql);
}

# --------------------------------------------------- a registry with everything

$server->safe_psql('postgres', 'CREATE DATABASE registry');
install_extension($server, 'registry');
ask('registry', qq{
	INSERT INTO ndrs_optout.register VALUES ('local', 'Local Register');
	UPDATE ndrs_optout.register SET name = 'Rare Diseases' WHERE code = 'rare_disease';
	INSERT INTO ndrs_optout.bank_holiday VALUES ('2030-06-03', 'Jubilee');
	UPDATE ndrs_optout.bank_holiday SET observed = false WHERE day = '2030-05-06';
	UPDATE ndrs_optout.policy SET child_age = 14;
	INSERT INTO ndrs_optout.accepted_gap (gap, object, reason, severity) VALUES ('elsewhere', NULL, 'looked at', 'low');
	CREATE ROLE clerk;
	SELECT ndrs_optout.grant_access('clerk', 'officer'), ndrs_optout.grant_access('clerk', 'steward');

	CREATE TABLE patient (patient_id bigint PRIMARY KEY, nhs ndrs_optout.nhs_number, name text);
	CREATE TABLE tumour (tumour_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES patient);
	-- A column that is gone leaves no number behind in a dump.
	CREATE TABLE sample (batch int, tumour_id bigint, tube text);
	ALTER TABLE sample DROP COLUMN batch;
	SELECT ndrs_optout.guard_table('patient', 'nhs', '{cancer}');
	SELECT ndrs_optout.declare_reference('sample', '{tumour_id}', 'tumour', '{tumour_id}');
	CREATE TABLE address (gone int, address_id bigint PRIMARY KEY);
	ALTER TABLE address DROP gone;
	ALTER TABLE tumour ADD gone int, ADD address_id bigint REFERENCES address;
	ALTER TABLE tumour DROP gone;
	SELECT ndrs_optout.declare_owned('tumour', '{address_id}', 'address', '{address_id}');

	-- The partition has its columns in another order.
	CREATE TABLE referral (nhs text, year int) PARTITION BY LIST (year);
	CREATE TABLE referral_1 (year int, note text, nhs text);
	ALTER TABLE referral_1 DROP COLUMN note;
	ALTER TABLE referral ATTACH PARTITION referral_1 FOR VALUES IN (1);
	CREATE TABLE referral_2 PARTITION OF referral FOR VALUES IN (2);
	SELECT ndrs_optout.guard_table('referral', 'nhs', '{cancer}', on_match => 'skip');

	-- A partition made afterwards inherits a constraint that counts as validated,
	-- which pg_dump brings before the data; this schema comes before ndrs_optout.
	CREATE SCHEMA "Feed";
	CREATE TABLE "Feed".referral_3 PARTITION OF referral FOR VALUES IN (3);
	CREATE TABLE "Feed"."Both Registers" ("NHS No" char(10));
	SELECT ndrs_optout.guard_table('"Feed"."Both Registers"', 'NHS No', '{local,cancer}', 'skip', 'skip', 'skip');

	-- Sets of encoded numbers, in a row and out of line; their index and constraint too
	CREATE TABLE cohort (
		cohort_id int PRIMARY KEY,
		members ndrs_optout.encoded_set NOT NULL DEFAULT '{}' CHECK (ndrs_optout.cardinality(members) <> 3));
	CREATE INDEX ON cohort (ndrs_optout.cardinality(members));
	INSERT INTO cohort SELECT n, ndrs_optout.encoded_set_agg(md5(i::text)::ndrs_optout.encoded_nhs_number)
		FROM unnest(ARRAY[1, 10, 10000]) AS n, generate_series(1, n) AS i GROUP BY n;
	INSERT INTO cohort (cohort_id) VALUES (0);

	INSERT INTO patient VALUES (1, '$excluded', 'A'), (2, '$allowed', 'B'), (3, '$leaving', 'C');
	INSERT INTO tumour SELECT 10 * patient_id + n, patient_id FROM patient, generate_series(1, 2) AS n;
	INSERT INTO sample SELECT tumour_id, 'tube' FROM tumour;
	INSERT INTO address SELECT patient_id FROM patient;
	UPDATE tumour SET address_id = patient_id;
	INSERT INTO referral VALUES ('$excluded', 1), ('$allowed', 1), ('$leaving', 2), ('$allowed', 3);
});

# From before any opt-out
my %old = (copy => "$directory/old.dump", inserts => "$directory/old_inserts.dump");
is((run_program('pg_dump', '-Fc', '-f', $old{copy}, 'registry'))[0], 0, 'the database is dumped');
is((run_program('pg_dump', '-Fc', '--inserts', '-f', $old{inserts}, 'registry'))[0], 0, 'and once more as INSERTs');

# Releases, of which one is destroyed
ask('registry', qq{
	SELECT ndrs_optout.add_recipient('hospital', 'Hospital', 'nhs_number'),
		ndrs_optout.add_recipient('university', 'University', 'ndrs_pseudo_id', 'safe 3');
	SELECT ndrs_optout.add_agreement('hospital', 'consent', 'agreement 1', '2000-01-01', '2099-12-31');
	SELECT ndrs_optout.add_agreement('university', 'consent', 'agreement 1', '2000-01-01', '2099-12-31');
	SELECT ndrs_optout.record_release('{$excluded,$leaving}'::ndrs_optout.nhs_number[], 'explicit_consent', NULL, 'hospital', current_date, 'order 1'),
		ndrs_optout.record_release('{$excluded,$allowed}'::ndrs_optout.nhs_number[], 'explicit_consent', NULL, 'university', current_date, 'order 2'),
		ndrs_optout.record_release('{$leaving}'::ndrs_optout.nhs_number[], 'explicit_consent', NULL, 'university', current_date, 'order 3');
	SELECT ndrs_optout.record_destruction(3);
});

# A case in each state, skipped rows, a patient who is out of one register only
sub open_case
{
	my ($database, $number) = @_;
	return ask($database, "SELECT ndrs_optout.open_case('$number', '{cancer}')");
}

my $completed = open_case('registry', $excluded);
my $ready = open_case('registry', $leaving);
my $waiting = open_case('registry', $TEST_NUMBERS[4]);
ask('registry', qq{
	SELECT ndrs_optout.record_identity(c, 'identity', 'passport'),
		ndrs_optout.record_identity(c, 'address', 'utility_bill') FROM unnest(ARRAY[$completed, $ready]) AS c;
	SELECT ndrs_optout.record_identity($waiting, 'address', 'bank_statement');
	CALL ndrs_optout.carry_out($completed, '$excluded');
	SELECT ndrs_optout.acknowledge_recall(2);
	SELECT ndrs_optout.complete_case($completed);
	SELECT ndrs_optout.request_subject_access('$allowed');
	SELECT ndrs_optout.exclude('$elsewhere', '{local}');
	SELECT ndrs_optout.exclude('$everywhere', '{local,cancer}');
	INSERT INTO referral VALUES ('$excluded', 1), ('$allowed', 2);
	INSERT INTO "Feed"."Both Registers" VALUES ('$excluded'), ('$elsewhere'), ('$everywhere'), (''), ('1');
	-- A purpose of the site's own, and a shipped one that was changed
	INSERT INTO ndrs_optout.purpose (code, permitted, national_optout_applies, name, basis) VALUES ('invoices', true, false, 'Invoices', 'exempted');
	UPDATE ndrs_optout.purpose SET national_optout_applies = false WHERE code = 'clinical_audit';
	SELECT ndrs_optout.grant_exemption('research', 'university', 'CAG 1', '2020-01-01');
	SELECT ndrs_optout.start_national_check(ARRAY['$allowed', '$leaving']::ndrs_optout.nhs_number[]),
		ndrs_optout.start_national_check(ARRAY['$allowed']::ndrs_optout.nhs_number[]);
	SELECT ndrs_optout.load_national_check(1, ARRAY['$allowed,']);
	SELECT ndrs_optout.place_hold($completed, 'complaint');
	SELECT ndrs_optout.purge();
});

# ------------------------------------------------------- into a fresh database

# What must be the same on the other side
my %content = (
	map({ ("table $_" => "SELECT t FROM $_ t ORDER BY t::text") }
		qw(patient tumour sample cohort referral_1 referral_2 "Feed".referral_3), '"Feed"."Both Registers"',
		map { "ndrs_optout.$_" } qw(register encoding_key exclusion guard guard_tally
		  optout_case identity_evidence case_erasure audit_event audit_segment purge_run granted_access
		  case_certificate subject_access_request recipient release recall_notice
		  purpose exemption national_check national_check_part policy bank_holiday accepted_gap)),
	'the references' => 'SELECT child, child_columns, parent, parent_columns FROM ndrs_optout.reference',
	'what the walk has followed' => q{
		SELECT e.kind, e.child, e.child_name, e.child_columns, e.parent, e.parent_name, e.parent_columns, e.lost_at,
			e.child_attnums = CASE e.kind WHEN 'guard' THEN '{}' ELSE ndrs_optout.column_numbers(e.child, e.child_columns) END
			FROM ndrs_optout.expected_edge e ORDER BY e.child_name, e.parent_name},
	'what the walk has lost' => 'SELECT count(*) FROM ndrs_optout.lost_edges()',
	'decisions on sharing' => q{
		SELECT p.code, r.recipient, string_agg(ndrs_optout.share_decision(t.nhs, p.code, NULL, r.recipient), '|' ORDER BY t.patient_id)
			FROM ndrs_optout.purpose p, patient t, (VALUES ('university'), (NULL)) AS r (recipient)
			GROUP BY p.code, r.recipient ORDER BY p.code, r.recipient},
	'the audit' => "SELECT count(*), (SELECT count(*) FROM ndrs_optout.verify_audit()) FROM ndrs_optout.audit_event WHERE link IS NOT NULL",
	'what is in a set' => q{
		SELECT cohort_id, pg_column_size(members), ndrs_optout.cardinality(members),
			count(*) FILTER (WHERE md5(i::text)::ndrs_optout.encoded_nhs_number OPERATOR(ndrs_optout.<@) members)
			FROM cohort, generate_series(1, 20000) AS i GROUP BY cohort_id ORDER BY cohort_id},
	'the exclusion list as a set' => "SELECT ndrs_optout.exclusion_list('cancer')",
	'the letter' => "SELECT ndrs_optout.completion_letter($completed)",
	'the cases' => 'SELECT p FROM ndrs_optout.case_progress p',
	'what a role can do' => q{SELECT a.object, a.privilege FROM ndrs_optout.access_held('clerk') a ORDER BY a.object, a.privilege},
	'the counts' => 'SELECT c FROM ndrs_optout.guard_count c ORDER BY c::text',
	'triggers of guards' => q{
		SELECT tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger
			WHERE tgfoid = 'ndrs_optout.guard_row'::regproc ORDER BY tgrelid::regclass::text, tgname},
	'constraints of guards' => q{
		SELECT conrelid::regclass, conname, convalidated, coninhcount, pg_get_constraintdef(oid) FROM pg_constraint
			WHERE conname LIKE 'ndrs_optout_guard%' ORDER BY conrelid::regclass::text, conname});

# A session as replication and pg_restore use it fires only ENABLE ALWAYS triggers.
sub guards_work
{
	my ($database) = @_;
	foreach my $role (qw(origin replica))
	{
		my $set = "SET session_replication_role = $role;";
		refused_with($server, '23N01', "$set INSERT INTO patient VALUES (9, '$excluded')",
			"$role: a table that rejects", database => $database);
		foreach my $table (qw(referral referral_1))
		{
			my ($status) = try_sql($server, "$set INSERT INTO $table (nhs, year) VALUES ('$excluded', 1)",
				database => $database);
			is($status, 0, "$role: INSERT into $table is skipped");
		}
		try_sql($server, qq{$set INSERT INTO "Feed"."Both Registers" VALUES ('$excluded'), ('$elsewhere'), ('$everywhere')},
			database => $database);
	}
	is(ask($database, "SELECT count(*) FROM referral WHERE nhs = '$excluded'"), 0, 'no row came in by skipping');
	is(ask($database, q{SELECT count(*), count(*) FILTER (WHERE "NHS No" = '}
			. qq{$everywhere') FROM "Feed"."Both Registers"}), '6|0',
		'a table for two registers takes whoever is out of one of them');
	is(ask($database, q{SELECT rows_skipped FROM ndrs_optout.guard_count
			WHERE target = 'referral'::regclass AND finding = 'excluded'}), 5, 'skipped rows are counted on');
	ask($database, 'SET client_min_messages = error; SET ndrs_optout.allow_unguarded = on;'
		. 'ALTER TABLE referral_1 DISABLE TRIGGER ALL');
	refused_with($server, '23N01', "INSERT INTO referral VALUES ('$excluded', 1)",
		'the constraint of a partition', database => $database);
	return;
}

# The database works on as the first would have.
sub works_on
{
	my ($database) = @_;
	is(ask($database, qq{
			SELECT ndrs_optout.is_excluded('$excluded', 'cancer'),
				ndrs_optout.is_excluded('$elsewhere', 'local'),
				ndrs_optout.is_excluded('$elsewhere', 'cancer')}),
		't|t|f', 'the exclusion list works');
	is(open_case($database, $TEST_NUMBERS[5]), $waiting + 1, 'case ids continue');
	is((try_sql($server, "CALL ndrs_optout.carry_out($ready, '$leaving')", database => $database))[0], 0,
		'a case is carried out');
	is(ask($database, qq{
			SELECT (SELECT string_agg(patient_id::text, ',') FROM patient), (SELECT count(*) FROM tumour),
				(SELECT count(*) FROM sample), (SELECT count(*) FROM referral WHERE nhs = '$leaving'),
				(SELECT string_agg(address_id::text, ',') FROM address)}),
		'2|2|2|0|2', 'over the foreign keys and the declared reference, and up to owned rows');
	is(ask($database, "SELECT notice_id, release_id, days_left FROM ndrs_optout.recall_progress WHERE case_id = $ready"),
		'3|1|30', 'what was released is recalled, unless it is destroyed, and ids of notices continue');
	like(ask($database, "SELECT ndrs_optout.complete_case($ready)"), qr/: 7 entries$/m, 'the letter counts them');
	is(ask($database, qq{
			SELECT string_agg(ndrs_optout.verify_certificate(ndrs_optout.erasure_certificate(c))::text, ',')
				FROM unnest(ARRAY[$completed, $ready]) AS c}),
		'true,true', 'certificates verify, the old one and a new one');
	is(ask($database, "SELECT ndrs_optout.request_subject_access('$allowed')"), 2, 'ids of requests continue');
	is(ask($database, qq{
			SELECT ndrs_optout.record_release('{$allowed}'::ndrs_optout.nhs_number[], 'explicit_consent', NULL, 'hospital', current_date, 'order 4')}),
		4, 'ids of releases continue');
	is(ask($database, "SELECT ndrs_optout.load_national_check(2, ARRAY['$allowed'])"), 1, 'a check that waited has its reply');
	is(ask($database, "SELECT ndrs_optout.start_national_check(ARRAY['$allowed']::ndrs_optout.nhs_number[])"), 3,
		'ids of checks continue');
	is(ask($database, "SELECT ndrs_optout.grant_exemption('research', 'university', 'y')"), 2, 'and of exemptions');
	return;
}

# An extension without a key, with rows as if they were shipped
sub install_in_later_version
{
	my ($database) = @_;
	ask($database, q{
		SET client_min_messages = warning;
		CREATE EXTENSION ndrs_optout CASCADE;
		SET session_replication_role = replica;
		INSERT INTO ndrs_optout.register VALUES ('local', 'Shipped');
		INSERT INTO ndrs_optout.bank_holiday VALUES ('2030-06-03', 'Shipped');
		INSERT INTO ndrs_optout.purpose VALUES ('invoices', false, true, 'Shipped', 'shipped');
	});
	return;
}

my %formats = (
	'custom' => [
		[ 'pg_dump', '-Fc', '-f', "$directory/new.dump", 'registry' ],
		sub { [ 'pg_restore', '--exit-on-error', '-d', $_[0], "$directory/new.dump" ] } ],
	# Tables are filled in any order, side by side.  What comes after the data
	# waits for all of it: pg_restore would change a partitioned table, which has
	# no data of its own, while its partitions are being filled, and the server
	# would find a deadlock (of any constraint that is NOT VALID).
	'parallel' => [
		[ 'pg_dump', '-Fc', '-f', "$directory/new.dump", 'registry' ],
		sub {
			my @command = ('pg_restore', '-j4', '--exit-on-error', '-d', $_[0], "$directory/new.dump");
			return [ @command, '--section=pre-data', '--section=data' ], [ @command, '--section=post-data' ];
		} ],
	'plain' => [
		[ 'pg_dump', '-f', "$directory/new.sql", 'registry' ],
		sub { [ qw(psql -Xq -v ON_ERROR_STOP=1 -o /dev/null -d), $_[0], '-f', "$directory/new.sql" ] } ]);

foreach my $format (sort keys %formats)
{
	subtest "dumped and restored, $format" => sub {
		my ($dump, $restore) = @{ $formats{$format} };
		my $database = "restored_$format";

		is_deeply([ run_program(@$dump) ], [ 0, '' ], 'dumped without complaint');
		ask('postgres', "CREATE DATABASE $database");
		my @steps = $restore->($database);
		while (my $step = shift @steps)
		{
			is_deeply([ run_program(@$step) ], [ 0, '' ], 'restored without complaint');
			like(ask($database, 'SELECT string_agg(l.object, \', \') FROM ndrs_optout.lost_edges() AS l'),
				qr/public\.tumour \(patient_id\) > public\.patient \(patient_id\)/, 'before its foreign key is there, an edge is lost')
			  if @steps;
		}
		foreach my $name (sort keys %content)
		{
			my $expected = ask('registry', $content{$name});
			isnt($expected, '', "$name: there is something");
			is(ask($database, $content{$name}), $expected, "$name: the same");
		}
		guards_work($database);
		works_on($database);
	};
}

# What the site added is shipped by now, otherwise: the site's row counts.
subtest 'restored into a version that ships more' => sub {
	my $database = 'restored_later';
	ask('postgres', "CREATE DATABASE $database");
	install_in_later_version($database);
	my ($status, $messages) = run_program('pg_restore', '-d', $database, "$directory/new.dump");
	like($messages, qr/\A.*schema "ndrs_optout" already exists.*errors ignored on restore: 1\n\z/s,
		'restored, but for the schema');
	is(ask($database, $content{$_}), ask('registry', $content{$_}), $_)
	  foreach map { "table ndrs_optout.$_" } qw(register bank_holiday purpose policy exclusion audit_event audit_segment);
	works_on($database);
};

# Somebody who has the dump but not the key can do nothing with the guards off.
subtest 'restored on a server with another key' => sub {
	my $stranger = new_server('stranger');
	$stranger->safe_psql('postgres', 'CREATE ROLE clerk');
	local $ENV{PGHOST} = $stranger->host;
	local $ENV{PGPORT} = $stranger->port;
	IPC::Run::run([ 'pg_restore', '-d', 'postgres', "$directory/new.dump" ], '2>', \my $messages);
	is($?, 0, 'restored') or diag($messages);
	refused_with($stranger, 'ND011', $_, $_)
	  foreach "INSERT INTO patient VALUES (9, '$allowed')", "SELECT ndrs_optout.is_excluded('$allowed', 'cancer')",
	  'SELECT ndrs_optout.adopt_key()';
	$stranger->stop;
};

# ------------------------------------------- an old dump into the live database

# pg_restore --disable-triggers disables every trigger, ENABLE ALWAYS or not, where
# the sentry is told to let it pass.
subtest 'data of an old dump' => sub {
	local $ENV{PGOPTIONS} = '-c ndrs_optout.allow_unguarded=on';
	my @restore = qw(pg_restore --data-only --disable-triggers -t patient -t tumour -t referral_1 -d registry);
	my $held = "SELECT (SELECT count(*) FROM patient WHERE nhs::text = '$excluded'),
		(SELECT count(*) FROM referral WHERE nhs = '$excluded')";
	ask('registry', 'TRUNCATE patient, tumour, sample, referral');

	my ($status, $messages) = run_program(@restore, $old{copy});
	isnt($status, 0, 'as COPY: pg_restore complains');
	like($messages, qr/row of an excluded patient may not enter table public\./, 'of the excluded patient');
	unlike($messages, qr/$excluded/, 'and does not name the patient');
	is(ask('registry', $held), '0|0', 'the patient is not back');

	ask('registry', 'TRUNCATE patient, tumour, sample, referral');
	($status, $messages) = run_program(@restore, '--single-transaction', $old{copy});
	isnt($status, 0, 'in one transaction: pg_restore fails');
	is(ask('registry', q{
			SELECT (SELECT count(*) FROM patient), (SELECT count(*) FROM tumour), (SELECT count(*) FROM referral)}),
		'0|0|0', 'and nothing comes in, not even what has no NHS number');

	($status) = run_program(@restore, $old{inserts});
	is(ask('registry', $held), '0|0', 'as INSERTs: the patient is not back');
	is(ask('registry', q{
			SELECT (SELECT string_agg(patient_id::text, ',' ORDER BY patient_id) FROM patient),
				(SELECT string_agg(nhs, ',') FROM referral)}),
		"2,3|$allowed", 'the others are');
};

$server->stop;
done_testing();
