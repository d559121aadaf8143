# Logical replication into a registry, of the list, and a physical standby.
#
# The hazards: a replication worker fires no ordinary trigger and no statement
# trigger, so it could pass the guard, or change the list and tell no session of
# it; and a session on a standby learns of a change only by what is replayed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($excluded, $allowed, $later, $latest) = @TEST_NUMBERS[ 0 .. 3 ];
my $key = random_key();
my $source = new_server('source', key => $key, init => { allows_streaming => 'logical' });
my $registry = new_server(
	'registry',
	key => $key,
	init => { allows_streaming => 'logical' },
	# A worker that failed begins again at once.  From version 18, workers log rows
	# that are not there to be changed.
	settings => "wal_retrieve_retry_interval = '200ms'\nlog_error_verbosity = terse\n");
install_extension($_) foreach $source, $registry;
my $connection = $source->connstr . ' dbname=postgres';

sub in_registry
{
	my ($sql) = @_;
	return $registry->safe_psql('postgres', $sql);
}

sub skipped
{
	my ($table) = @_;
	return in_registry("SELECT coalesce(sum(rows_skipped), 0) FROM ndrs_optout.guard_count
		WHERE target = '$table'::regclass AND finding = 'excluded'");
}

# ---------------------------------------------------- rows, into guarded tables

my $feed = 'CREATE TABLE feed (id int PRIMARY KEY, nhs text, note text)';
my $strict = 'CREATE TABLE strict (id int PRIMARY KEY, nhs text, note text)';
$source->safe_psql('postgres', qq{
	$feed; $strict;
	INSERT INTO feed VALUES (1, '$allowed'), (2, '$excluded'), (3, '$allowed');
	CREATE PUBLICATION feed FOR TABLE feed;
	CREATE PUBLICATION strict FOR TABLE strict;
});
in_registry(qq{
	$feed; $strict;
	SELECT ndrs_optout.exclude('$excluded', '{cancer}');
	SELECT ndrs_optout.guard_table('feed', 'nhs', '{cancer}', on_match => 'skip');
	SELECT ndrs_optout.guard_table('strict', 'nhs', '{cancer}');
	CREATE SUBSCRIPTION feed CONNECTION '$connection' PUBLICATION feed;
});

subtest 'a guarded table that skips' => sub {
	my $ids = q{SELECT string_agg(id::text, ',' ORDER BY id) FROM feed};

	$registry->wait_for_subscription_sync($source, 'feed');
	is(in_registry($ids), '1,3', 'the first copy is without the patient');
	is(skipped('feed'), 1, 'and the row is counted');

	$source->safe_psql('postgres', qq{
		INSERT INTO feed VALUES (4, '$excluded'), (5, '$allowed');
		BEGIN; INSERT INTO feed VALUES (6, '$excluded'); ROLLBACK;
		INSERT INTO feed VALUES (7, '999 000 0018');
	});
	$source->wait_for_catchup('feed');
	is(in_registry($ids), '1,3,5', 'so is what follows, in any written form');
	is(skipped('feed'), 3, 'and the rows are counted');

	# What was never there cannot be changed or deleted, and stops nothing.
	$source->safe_psql('postgres', q{
		UPDATE feed SET note = 'changed' WHERE id IN (2, 5);
		DELETE FROM feed WHERE id IN (3, 4);
	});
	$source->wait_for_catchup('feed');
	is(in_registry(q{SELECT string_agg(concat_ws(' ', id, note), ',' ORDER BY id) FROM feed}),
		'1,5 changed', 'updates and deletions go on');

	# The worker has built its list; an exclusion must reach it.
	in_registry("SELECT ndrs_optout.exclude('$later', '{cancer}')");
	$source->safe_psql('postgres', "INSERT INTO feed VALUES (8, '$later'), (9, '$allowed')");
	$source->wait_for_catchup('feed');
	is(in_registry($ids), '1,5,9', 'a patient who is excluded while the worker runs is skipped');
	in_registry("SELECT ndrs_optout.readmit('$later', '{cancer}')");
};

subtest 'a guarded table that rejects' => sub {
	my $start = -s $registry->logfile;
	in_registry("CREATE SUBSCRIPTION strict CONNECTION '$connection' PUBLICATION strict");
	$registry->wait_for_subscription_sync($source, 'strict');
	$source->safe_psql('postgres', "INSERT INTO strict VALUES (1, '$allowed', 'first'), (2, '$excluded', 'seeded name')");

	my $found = eval { $registry->wait_for_log(qr/row of an excluded patient may not enter table public\.strict/, $start); 1 };
	ok($found, 'the worker stops with an error');
	is(in_registry('SELECT count(*) FROM strict'), 0, 'nothing of the transaction has come in');
	ok($registry->wait_for_log(qr/(?:may not enter table public\.strict.*){3}/s, $start), 'it tries again');
	is(in_registry("SELECT coalesce(sum(rows_rejected), 0) FROM ndrs_optout.guard_count"), 0,
		'and again: that is no count of rows');

	# The way on: the subscriber says that such rows are to be skipped.
	in_registry(q{
		BEGIN;
		SELECT ndrs_optout.unguard_table('strict');
		SELECT ndrs_optout.guard_table('strict', 'nhs', '{cancer}', on_match => 'skip');
		COMMIT;
	});
	$source->wait_for_catchup('strict');
	is(in_registry('SELECT note FROM strict'), 'first', 'with skip, the worker goes on and the row stays out');

	my $log = slurp_file($registry->logfile, $start);
	unlike($log, qr/seeded name/, 'the log says nothing of the row');
	unlike(join("\n", grep { !/statement:/ } split /\n/, $log), qr/$excluded/, 'nor the number');
};

# ------------------------------------------------------------- the list itself

subtest 'the list is replicated' => sub {
	my $look = sub {
		my ($number) = @_;
		return "SELECT ndrs_optout.is_excluded('$number', 'cancer')";
	};
	my $insert = "INSERT INTO strict VALUES (50, '$later')";
	my $session = open_session($registry);
	my $loader = open_session($registry);
	my $seen = in_registry('SELECT max(entry_id) FROM ndrs_optout.audit_event');
	my $audited = sub {
		my $events = in_registry("SELECT string_agg(detail::text, ' ' ORDER BY entry_id) FROM ndrs_optout.audit_event
			WHERE event = 'exclusion_list_changed' AND entry_id > $seen");
		$seen = in_registry('SELECT max(entry_id) FROM ndrs_optout.audit_event');
		return $events;
	};

	# From the first copy
	$source->safe_psql('postgres', qq{
		SELECT ndrs_optout.exclude('$later', '{cancer}');
		CREATE PUBLICATION list FOR TABLE ndrs_optout.exclusion;
	});
	is(run_in($session, $look->($later)), 'f', 'the patient is not on the list');
	run_in($loader, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM strict');
	is(run_in($loader, $look->($later)), 'f', 'nor for a session in REPEATABLE READ');
	in_registry("CREATE SUBSCRIPTION list CONNECTION '$connection' PUBLICATION list");
	$registry->wait_for_subscription_sync($source, 'list');
	is(run_in($session, $look->($later)), 't', 'after the first copy, the same session finds the patient on it');
	is(run_in($loader, $look->($later)), 't', 'and so does the one in REPEATABLE READ');
	is(run_in($session, $look->($excluded)), 't', 'with those that were there already');
	run_in($loader, $insert);
	run_in($loader, 'COMMIT');
	is(in_registry('SELECT count(*) FROM strict WHERE id = 50'), 0, 'its guard lets no row in');

	# From then on
	$source->safe_psql('postgres', "SELECT ndrs_optout.exclude('$latest', '{cancer}')");
	$source->wait_for_catchup('list');
	is(run_in($session, $look->($latest)), 't', 'an exclusion at the source arrives in the same session');
	$source->safe_psql('postgres', "SELECT ndrs_optout.readmit('$later', '{cancer}')");
	$source->wait_for_catchup('list');
	is(run_in($session, $look->($later)), 'f', 'so does a readmission');
	is(run_in($session, $look->($latest)), 't', 'of that patient only');
	$source->safe_psql('postgres', q{
		UPDATE ndrs_optout.exclusion SET register = 'rare_disease'
			WHERE encoded_nhs_number::text = ndrs_optout.encode_nhs_number('} . $latest . q{')::text});
	$source->wait_for_catchup('list');
	is(run_in($session, $look->($latest)), 'f', 'so does an UPDATE');
	$source->safe_psql('postgres', 'TRUNCATE ndrs_optout.exclusion');
	$source->wait_for_catchup('list');
	is(run_in($session, $look->($excluded)), 'f', 'and a TRUNCATE');

	# A worker fires no statement triggers for rows.
	is($audited->(),
		join(' ', '{"added": {"cancer": 1}}', '{"added": {"cancer": 1}}', '{"removed": {"cancer": 1}}',
			'{"removed": {"cancer": 1}}', '{"added": {"rare_disease": 1}}', '{"removed": {"cancer": 1, "rare_disease": 1}}'),
		'each change is in the audit, the first copy as a whole');
	is(in_registry('SELECT count(*) FROM ndrs_optout.verify_audit()'), 0, 'which verifies');

	# With the audit subscribed to as well, the event comes with the change.
	in_registry(q{
		SET allow_system_table_mods = on;
		INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
			SELECT oid, 'ndrs_optout.audit_event'::regclass, 'r' FROM pg_subscription WHERE subname = 'list'});
	$source->safe_psql('postgres', "SELECT ndrs_optout.exclude('$latest', '{cancer}')");
	$source->wait_for_catchup('list');
	is(run_in($session, $look->($latest)), 't', 'where the audit is subscribed to as well, a change arrives');
	is($audited->(), '', 'and is not audited twice');
	$source->safe_psql('postgres', 'TRUNCATE ndrs_optout.exclusion');
	$source->wait_for_catchup('list');
	close_session($_) foreach $session, $loader;
};

in_registry("DROP SUBSCRIPTION $_") foreach qw(feed strict list);
$source->stop;

# ------------------------------------------------------------ physical standby

subtest 'a standby' => sub {
	my $look = sub {
		my ($number) = @_;
		return "SELECT ndrs_optout.is_excluded('$number', 'cancer')";
	};
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$registry->backup('copy');
	$standby->init_from_backup($registry, 'copy', has_streaming => 1);
	write_key($standby, $key);
	$standby->append_conf('postgresql.conf', "ndrs_optout.key_file = '" . key_path($standby) . "'");
	$standby->start;

	my $session = open_session($standby);
	my $snapshot = open_session($standby);
	run_in($snapshot, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	is(run_in($session, $look->($excluded)), 'f', 'the patient is not on the list');
	is(run_in($snapshot, $look->($excluded)), 'f', 'nor for a session in REPEATABLE READ');

	in_registry("SELECT ndrs_optout.exclude('$excluded', '{cancer}')");
	$registry->wait_for_catchup($standby, 'replay', $registry->lsn('insert'));
	is(run_in($session, $look->($excluded)), 't', 'the same session follows an exclusion on the primary');
	is(run_in($snapshot, $look->($excluded)), 't', 'so does the one in REPEATABLE READ');
	is(run_in($session, $look->($allowed)), 'f', 'another patient is not on the list');

	in_registry(qq{
		BEGIN; SELECT ndrs_optout.exclude('$later', '{cancer}'); ROLLBACK;
		SELECT ndrs_optout.readmit('$excluded', '{cancer}')});
	$registry->wait_for_catchup($standby, 'replay', $registry->lsn('insert'));
	is(run_in($session, $look->($excluded)), 'f', 'and a readmission');
	is(run_in($session, $look->($later)), 'f', 'and nothing that was rolled back');

	my (undef, $messages) = run_in($session, "SELECT ndrs_optout.exclude('$later', '{cancer}')");
	is(sqlstate($messages), '25006', 'the list cannot be changed there');

	# It becomes the primary: what its sessions keep must be right to guard with.
	in_registry("SELECT ndrs_optout.exclude('$excluded', '{cancer}')");
	$registry->wait_for_catchup($standby, 'replay', $registry->lsn('insert'));
	$registry->stop;
	$standby->promote;
	(undef, $messages) = run_in($session, "INSERT INTO strict VALUES (60, '$excluded'), (61, '$allowed')");
	is($messages, '', 'after promotion the same session loads');
	is(run_in($session, q{SELECT string_agg(id::text, ',') FROM strict WHERE id >= 60}),
		'61', 'and its guard keeps the patient out');
	close_session($_) foreach $session, $snapshot;
	$standby->stop;
};

done_testing();
