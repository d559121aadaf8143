# What the TAP tests share: servers with a key, a small registry, patients of
# the test range of NHS numbers, and sessions that wait for each other.
package OptoutServer;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  $PATIENT $NEIGHBOUR @TEST_NUMBERS
  test_numbers random_key key_path write_key new_server install_extension create_registry
  new_log holds_number
  hold_patient rows_of ready_case case_state reload_and_wait
  try_sql sqlstate refused_with open_session run_in close_session abandon
  start_sql finish_sql wait_until_waiting kill_server);

our @TEST_NUMBERS = test_numbers(11);
our ($PATIENT, $NEIGHBOUR) = @TEST_NUMBERS;

$ENV{PGCLIENTENCODING} = 'UTF8';

# The first so many valid numbers of the 999 range, which is never issued to
# anybody: the tenth digit makes the sum, weighted 10 to 1, a multiple of 11.
sub test_numbers
{
	my ($count) = @_;
	my @numbers;

	for (my $nine = 999000001; @numbers < $count; $nine++)
	{
		my ($sum, $weight) = (0, 10);
		$sum += $_ * $weight-- foreach split //, $nine;
		my $check = -$sum % 11;
		push @numbers, "$nine$check" if $check < 10;
	}
	return @numbers;
}

# ----------------------------------------------------------- server and key

sub random_key
{
	return join '', map { sprintf '%02x', int rand 256 } 1 .. 32;
}

sub key_path
{
	my ($server) = @_;
	return $server->basedir . '/optout.key';
}

# Replaces the file, as an administrator would, so that its mode is known.
sub write_key
{
	my ($server, $content, $mode) = @_;
	my $path = key_path($server);

	unlink $path;
	append_to_file($path, $content);
	chmod($mode // 0600, $path) or die "chmod $path: $!";
	return;
}

# A running server with a key file.  key: the digits, by default random ones;
# settings: further lines of postgresql.conf; init: arguments of init(); install_path:
# another installation than that in the path.
#
# Its log is searched for patients when the whole run is over (test/leak): it says
# much, but not every statement, as the test library would have it.
sub new_server
{
	my ($name, %arguments) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name,
		$arguments{install_path} ? (install_path => $arguments{install_path}) : ());

	$server->init(
		extra => [ '--encoding=UTF8', '--locale=C' ],
		%{ $arguments{init} // {} });
	write_key($server, $arguments{key} // random_key());
	$server->append_conf('postgresql.conf',
		    "ndrs_optout.key_file = '"
		  . key_path($server) . "'\n"
		  . "max_prepared_transactions = 5\n"
		  . "log_statement = none\n"
		  . "log_min_messages = info\n"
		  . ($arguments{settings} // ''));
	$server->start;
	return $server;
}

sub install_extension
{
	my ($server, $database) = @_;
	$server->safe_psql($database // 'postgres',
		    'SET client_min_messages = warning;'
		  . 'CREATE EXTENSION ndrs_optout CASCADE;'
		  . 'SELECT ndrs_optout.adopt_key();');
	return;
}

# Reload the configuration, and come back when this session has done so.
sub reload_and_wait
{
	my ($server, @sessions) = @_;
	my @before = map { run_in($_, 'SELECT pg_conf_load_time()') } @sessions;

	$server->reload;
	foreach my $session (@sessions)
	{
		my $before = shift @before;
		for (my $try = 0; $try < 10 * $PostgreSQL::Test::Utils::timeout_default; $try++)
		{
			last if run_in($session, 'SELECT pg_conf_load_time()') ne $before;
			select undef, undef, undef, 0.1;
		}
	}
	return;
}

# State and parent of a process, or nothing when there is none
sub process_state
{
	my ($pid) = @_;
	open my $stat, '<', "/proc/$pid/stat" or return;
	return (<$stat> // '') =~ /\) (\S) (\d+) [^)]*$/;
}

# SIGKILL for the whole server, not for the postmaster alone: no process gets
# the time to say or to write anything more.
sub kill_server
{
	my ($server) = @_;
	my ($postmaster) = slurp_file($server->data_dir . '/postmaster.pid') =~ /^(\d+)$/m;
	my @pids;

	# Stopped first, so that it starts no process that would outlive it.
	kill 'STOP', $postmaster;
	wait_a_moment(sub { ((process_state($postmaster))[0] // '') eq 'T' })
	  or die 'the postmaster does not stop';
	foreach my $pid (map { m{(\d+)$} } glob '/proc/[0-9]*')
	{
		push @pids, $pid if ((process_state($pid))[1] // 0) == $postmaster;
	}
	$server->kill9;
	kill 'KILL', @pids;

	# While one of them is there, the next start is refused.
	wait_a_moment(sub { !kill 0, $postmaster, @pids })
	  or die 'processes of the server outlive SIGKILL';
	return;
}

# Until it is so: false when it never was
sub wait_a_moment
{
	my ($condition) = @_;
	for (my $try = 0; $try < 10 * $PostgreSQL::Test::Utils::timeout_default; $try++)
	{
		return 1 if $condition->();
		select undef, undef, undef, 0.1;
	}
	return 0;
}

# ---------------------------------------------------------------- server's log

my %log_position;

# What the log has that an earlier call has not returned.
sub new_log
{
	my ($server) = @_;
	my $text = slurp_file($server->logfile, $log_position{ $server->name } // 0);
	$log_position{ $server->name } += length $text;
	return $text;
}

# Does a text hold a number, with or without spaces and hyphens?
sub holds_number
{
	my ($text, $number) = @_;
	my $pattern = join '[\s-]*', split //, $number;
	return $text =~ /$pattern/ ? 1 : 0;
}

# ----------------------------------------------------------------- registry

# Patients and their tumours; only the first table has the NHS number.
sub create_registry
{
	my ($server) = @_;
	$server->safe_psql('postgres', q{
		CREATE TABLE patient (
			patient_id bigint PRIMARY KEY,
			nhs_number ndrs_optout.nhs_number,
			name text);
		CREATE INDEX ON patient (nhs_number);
		CREATE TABLE tumour (
			tumour_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			patient_id bigint NOT NULL REFERENCES patient);
		CREATE INDEX ON tumour (patient_id);
		SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}');
	});
	return;
}

# A patient with two tumours: three rows
sub hold_patient
{
	my ($server, $patient_id, $number) = @_;
	$server->safe_psql('postgres', qq{
		INSERT INTO patient VALUES ($patient_id, '$number', 'seeded name');
		INSERT INTO tumour (patient_id) VALUES ($patient_id), ($patient_id);
	});
	return;
}

# How much the registry holds: "patients tumours"
sub rows_of
{
	my ($server, $number) = @_;
	return $server->safe_psql('postgres', qq{
		SELECT count(DISTINCT patient_id) || ' ' || count(tumour_id)
			FROM patient LEFT JOIN tumour USING (patient_id)
			WHERE nhs_number::text = '$number'});
}

sub ready_case
{
	my ($server, $number) = @_;
	return $server->safe_psql('postgres', qq{
		SELECT ndrs_optout.open_case('$number', '{cancer}') AS case_id \\gset
		SELECT ndrs_optout.record_identity(:case_id, 'identity', 'passport') \\g /dev/null
		SELECT ndrs_optout.record_identity(:case_id, 'address', 'utility_bill') \\g /dev/null
		\\echo :case_id
	});
}

sub case_state
{
	my ($server, $case_id) = @_;
	return $server->safe_psql('postgres',
		"SELECT state FROM ndrs_optout.case_progress WHERE case_id = $case_id");
}

# ----------------------------------------------------------------- sessions

# Into the test's own log, which is searched for patients as the server's is
sub write_down
{
	my ($messages) = @_;
	note($messages) if $messages;
	return;
}

# Run SQL in a session of its own: (status, output, verbose messages)
sub try_sql
{
	my ($server, $sql, %arguments) = @_;
	my $database = delete $arguments{database} // 'postgres';
	my @result = $server->psql($database, "\\set VERBOSITY verbose\n$sql", %arguments);
	write_down($result[2]);
	return @result;
}

# The SQLSTATE of the first error in verbose messages, or an empty string
sub sqlstate
{
	my ($messages) = @_;
	return $messages =~ /ERROR:  ([0-9A-Z]{5}):/ ? $1 : '';
}

# A test: the SQL fails with this SQLSTATE.  Returns the messages.
sub refused_with
{
	my ($server, $expected, $sql, $name, %arguments) = @_;
	my ($status, undef, $messages) = try_sql($server, $sql, %arguments);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sqlstate($messages), $expected, $name) or diag("status $status: $messages");
	return $messages;
}

# A session that stays open and survives its errors
sub open_session
{
	my ($server, $database) = @_;
	my $session = $server->background_psql($database // 'postgres', on_error_stop => 0);

	run_in($session, '\set VERBOSITY verbose');
	return $session;
}

# Its output; in list context also its messages
sub run_in
{
	my ($session, $sql) = @_;

	$session->{stderr} = '';
	my $output = $session->query($sql);
	my $messages = $session->{stderr};
	$session->{stderr} = '';
	return wantarray ? ($output, $messages) : $output;
}

sub close_session
{
	my ($session) = @_;
	$session->quit;
	return;
}

# For a session whose server was killed
sub abandon
{
	my ($session) = @_;
	$session->{run}->kill_kill;
	return;
}

# Start SQL in a session of its own, and do not wait for it.
sub start_sql
{
	my ($server, @sql) = @_;
	my %job = (output => '', messages => '');

	$job{run} = IPC::Run::start(
		[
			$server->installed_command('psql'), '-XAtq',
			'-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=1',
			'-d', $server->connstr('postgres'), map { ('-c', $_) } @sql
		],
		'<', \undef, '>', \$job{output}, '2>', \$job{messages},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%job;
}

# Wait for its end: (status, output, messages)
sub finish_sql
{
	my ($job) = @_;
	$job->{run}->finish;
	write_down($job->{messages});
	return ($job->{run}->result(0), $job->{output}, $job->{messages});
}

# Until a statement that begins like this waits for a lock
sub wait_until_waiting
{
	my ($server, $beginning) = @_;
	$server->poll_query_until('postgres', qq{
		SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE query LIKE '$beginning%' AND wait_event_type = 'Lock')})
	  or die "nothing waits: $beginning";
	return;
}

1;
