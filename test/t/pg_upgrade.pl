# pg_upgrade, from the oldest server that is installed beside this one.
#
# The hazards: a new server that has the patients' tables but no guard that works, an
# exclusion list that answers otherwise, or a case that cannot be carried out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use Installation;
use MovedRegistry;
use OptoutServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $older = older_pg_config('pg_config');
plan skip_all => 'no older server with its development files is installed beside this one' unless $older;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $install_path = copy_installation($older, $directory);
build_extension($older, $directory, "$FindBin::RealBin/../..");
note(sprintf 'from version %s to %s', map { major_version($_) } $older, 'pg_config');

sub asker
{
	my ($server) = @_;
	return sub {
		my ($status, $output, $messages) = try_sql($server, $_[0], database => 'registry');
		return ($output, sqlstate($messages) || ($status ? "psql: $status" : ''));
	};
}

# 18 has checksums by default.
my @common = ('--encoding=UTF8', '--locale=C', '--data-checksums');
my $old = new_server('old', install_path => $install_path, init => { extra => \@common });
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(extra => \@common);

$old->safe_psql('postgres', 'CREATE DATABASE registry');
install_extension($old, 'registry');
create_moved_registry(asker($old));
my $before = shown(asker($old));
$old->stop;

write_key($new, slurp_file(key_path($old)));
$new->append_conf('postgresql.conf',
	"ndrs_optout.key_file = '" . key_path($new) . "'\nlog_statement = none\nlog_min_messages = info\n");
{
	# It leaves files where it is started.
	chdir $directory or die "chdir: $!";
	command_ok(
		[
			'pg_upgrade', '--no-sync',
			'-b', "$install_path/bin", '-B', configured('pg_config', 'bindir'),
			'-d', $old->data_dir, '-D', $new->data_dir,
			'-p', $old->port, '-P', $new->port, '-s', $new->host
		],
		'pg_upgrade succeeds');
}
$new->start;

is_deeply(shown(asker($new)), $before, 'the registry is as before');
is(failed_checks(asker($new)), '', 'health() is content');
guards_hold(asker($new));
case_goes_on(asker($new));

$new->stop;
done_testing();
