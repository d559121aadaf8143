# What the server sends to consumers of logical decoding: which ones there are, and what an
# erasure itself sends them.
#
# The hazard: a consumer keeps what it got, and a deletion under REPLICA IDENTITY FULL sends
# it the whole row once more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('guard_copies_sent', init => { allows_streaming => 'logical' });
install_extension($server);
create_registry($server);

sub gaps
{
	return $server->safe_psql('postgres', q{
		SELECT string_agg(concat_ws(' ', severity, gap, relation, object), ', ' ORDER BY gap, relation::text)
			FROM ndrs_optout.guard_coverage() WHERE gap <> 'missing_index'}) // '';
}

sub advice
{
	my ($gap) = @_;
	return $server->safe_psql('postgres', "SELECT what_to_do FROM ndrs_optout.guard_coverage() WHERE gap = '$gap'");
}

# What an erasure of a patient sends
sub sent_for
{
	my ($id, $number) = @_;
	hold_patient($server, $id, $number);
	$server->safe_psql('postgres', qq{
		SELECT count(*) FROM pg_logical_slot_get_changes('consumer', NULL, NULL);
		SELECT ndrs_optout.exclude('$number', '{cancer}');
		SELECT count(*) FROM ndrs_optout.erase('$number', '{cancer}')});
	return $server->safe_psql('postgres', q{
		SELECT string_agg(data, ' ') FROM pg_logical_slot_get_changes('consumer', NULL, NULL) WHERE data ~ '^table public'});
}

is(gaps(), '', 'nothing is sent');
$server->safe_psql('postgres', q{
	SELECT pg_create_logical_replication_slot('consumer', 'test_decoding');
	SELECT pg_create_logical_replication_slot('published', 'pgoutput');
	SELECT pg_create_physical_replication_slot('standby');
	CREATE DATABASE another});
$server->safe_psql('another', q{SELECT pg_create_logical_replication_slot('elsewhere', 'test_decoding')});
is(gaps(), 'medium logical_slot consumer, low logical_slot published', 'logical slots of this database are gaps');

unlike(sent_for(1, $TEST_NUMBERS[0]), qr/$TEST_NUMBERS[0]/, 'a deletion sends the key');
$server->safe_psql('postgres', 'ALTER TABLE patient REPLICA IDENTITY FULL');
like(gaps(), qr/medium replica_identity_full patient/, 'REPLICA IDENTITY FULL is a gap');
like(sent_for(2, $TEST_NUMBERS[1]), qr/$TEST_NUMBERS[1]/, 'since a deletion sends the row');
$server->safe_psql('postgres', advice('replica_identity_full'));
unlike(sent_for(3, $TEST_NUMBERS[2]), qr/$TEST_NUMBERS[2]/, 'what the gap says to do ends that');

$server->safe_psql('postgres', q{
	SELECT pg_drop_replication_slot('consumer'), pg_drop_replication_slot('published')});
is(gaps(), '', 'what the gap of a slot says to do, too');

SKIP:
{
	skip 'pglogical is not packaged for this version', 2
	  unless $server->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'pglogical'});
	$server->append_conf('postgresql.conf', "shared_preload_libraries = 'pglogical'\ntrack_commit_timestamp = on\n");
	$server->restart;
	$server->safe_psql('postgres', q{
		CREATE EXTENSION pglogical;
		SELECT pglogical.create_node(node_name := 'provider', dsn := 'dbname=postgres');
		SELECT pglogical.replication_set_add_table('default', 'tumour');
		SELECT pglogical.create_replication_set('inserts', replicate_delete := false);
		SELECT pglogical.replication_set_add_table('inserts', 'patient')});
	is(gaps(), 'low published tumour default, medium published_without_deletions patient inserts',
		'the sets of pglogical are gaps');
	$server->safe_psql('postgres', advice('published_without_deletions'));
	is(gaps(), 'low published patient inserts, low published tumour default', 'and lesser ones when deletions go along');
}

done_testing();
