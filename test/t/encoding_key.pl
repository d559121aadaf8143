# The key that NHS numbers are encoded with.
#
# The hazards: a wrong or unreadable key encodes each patient to another, so
# that the list matches no patient and those who opted out come back; and a key
# that becomes known makes the whole list plain text, since all numbers can be
# tried.  So without the one adopted key everything must be refused, only
# the administrator of the server may choose it, and it must not be seen
# anywhere.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Utils;
use Test::More;

my ($key, $other_key) = (random_key(), random_key());
my $server = new_server('encoding_key', key => $key, settings => "log_statement = none\n");
my $path = key_path($server);
my $other_path = $server->basedir . '/other.key';
append_to_file($other_path, $other_key);
chmod 0600, $other_path;

# Not adopted yet: that is part of the test.
$server->safe_psql('postgres', q{
	SET client_min_messages = warning;
	CREATE EXTENSION ndrs_optout CASCADE;
	CREATE TABLE reject (nhs text);
	CREATE TABLE skip (nhs text);
	CREATE TABLE late (nhs text);
	CREATE ROLE officer LOGIN;
	GRANT USAGE ON SCHEMA ndrs_optout TO officer;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ndrs_optout TO officer;
});

# Everything that clients are told, for the search at the end
my $told = '';

sub answer
{
	my ($sql, %arguments) = @_;
	my ($status, $output, $messages) = try_sql($server, $sql, %arguments);
	$told .= "$output\n$messages\n";
	return wantarray ? ($output, $messages) : sqlstate($messages) || $output;
}

my $fingerprint = answer('SELECT ndrs_optout.key_fingerprint()');
like($fingerprint, qr/^[0-9a-f]{32}$/, 'the key is read');

subtest 'what a key file may look like' => sub {
	my %accepted = (
		'no line end' => $key,
		'line feed' => "$key\n",
		'carriage return and line feed' => "$key\r\n",
		'upper case' => uc $key);
	foreach my $name (sort keys %accepted)
	{
		write_key($server, $accepted{$name});
		is(answer('SELECT ndrs_optout.key_fingerprint()'), $fingerprint, "$name: accepted, and it is the same key");
	}

	my %content = (
		'empty' => '',
		'a digit short' => substr($key, 0, 63),
		'a digit short, and a line end' => substr($key, 0, 63) . "\n",
		'two digits short' => substr($key, 0, 62),
		'half a key' => substr($key, 0, 32),
		'a digit more' => "${key}0",
		'two digits more' => "${key}00",
		'two keys' => $key . $other_key,
		'a digit that is none' => substr($key, 0, 63) . 'g',
		'a null byte' => substr($key, 0, 63) . "\0",
		'a blank before' => " $key",
		'a blank behind' => "$key ",
		'two line ends' => "$key\n\n",
		'a second line' => "$key\n$other_key\n",
		'a comment' => "$key # key\n",
		'a byte order mark' => "\xEF\xBB\xBF$key",
		'UTF-16' => join("\0", split //, $key) . "\0");
	foreach my $name (sort keys %content)
	{
		write_key($server, $content{$name});
		my (undef, $messages) = answer('SELECT ndrs_optout.key_fingerprint()');
		like($messages,
			qr/ERROR:  ND010: cannot read the NHS number key file.*^DETAIL:  The key file does not hold 64 hexadecimal digits and nothing else\.$/ms,
			"$name: refused");
	}

	foreach my $mode (0640, 0620, 0610, 0604, 0602, 0601, 0666)
	{
		write_key($server, $key, $mode);
		my (undef, $messages) = answer('SELECT ndrs_optout.key_fingerprint()');
		like($messages, qr/ERROR:  ND010: cannot read the NHS number key file.*^DETAIL:  The key file is open to others/ms,
			sprintf 'mode %04o: refused', $mode);
	}
	write_key($server, $key, 0400);
	is(answer('SELECT ndrs_optout.key_fingerprint()'), $fingerprint, 'mode 0400: accepted');
};

subtest 'what is no key file' => sub {
	my $refused = sub {
		my ($detail, $name) = @_;
		my $timed_out;
		my (undef, undef, $messages) = try_sql($server, 'SELECT ndrs_optout.key_fingerprint()',
			timeout => 20, timed_out => \$timed_out);
		ok(!$timed_out, "$name: no hang");
		like($messages, qr/ERROR:  ND010: cannot read the NHS number key file.*^DETAIL:  $detail/ms, "$name: refused");
		$told .= $messages;
		return $messages;
	};

	unlink $path;
	$refused->(qr/The key file cannot be opened: No such file or directory\.$/m, 'nothing there');

	mkdir $path, 0700 or die "mkdir: $!";
	$refused->(qr/The key file is not a regular file\.$/m, 'a directory');
	rmdir $path;

	# Opening a FIFO waits for a writer, in a place where no signal helps.
	mkfifo($path, 0600) or die "mkfifo: $!";
	$refused->(qr/The key file is not a regular file\.$/m, 'a FIFO');
	sysopen(my $fifo, $path, POSIX::O_RDWR()) or die "open: $!";
	$refused->(qr/The key file is not a regular file\.$/m, 'a FIFO with a writer');
	close $fifo;
	unlink $path;

	symlink '/dev/zero', $path or die "symlink: $!";
	$refused->(qr/The key file is not a regular file\.$/m, 'a device');
	unlink $path;

	# The memory of the process itself: a regular file of its own, and nothing at its beginning
	symlink '/proc/self/mem', $path or die "symlink: $!";
	$refused->(qr/The key file cannot be read: Input\/output error\.$/m, 'a file that cannot be read');
	unlink $path;

	my $session = open_session($server);
	$server->append_conf('postgresql.conf', "ndrs_optout.key_file = ''");
	reload_and_wait($server, $session);
	$refused->(qr/Setting "ndrs_optout\.key_file" is empty\.$/m, 'no setting');
	$server->append_conf('postgresql.conf', "ndrs_optout.key_file = '$path'");
	reload_and_wait($server, $session);
	close_session($session);
	write_key($server, $key);
};

# ---------------------------------------------------------------- fail closed

# Whatever depends on the key, for a patient on the list and for another
my ($excluded, $allowed) = @TEST_NUMBERS[ 0, 1 ];
my %dependent = (
	'encode_nhs_number' => "SELECT ndrs_optout.encode_nhs_number('$allowed')",
	'is_excluded(nhs_number)' => "SELECT ndrs_optout.is_excluded('$allowed'::ndrs_optout.nhs_number, 'cancer')",
	'is_excluded(text)' => "SELECT ndrs_optout.is_excluded('$excluded'::text, 'cancer')",
	'is_excluded(bigint)' => "SELECT ndrs_optout.is_excluded($excluded, 'cancer')",
	'is_excluded, placeholder' => "SELECT ndrs_optout.is_excluded('9999999999', 'cancer')",
	'exclude' => "SELECT ndrs_optout.exclude('$TEST_NUMBERS[2]', '{cancer}')",
	'readmit' => "SELECT ndrs_optout.readmit('$excluded', '{cancer}')",
	'guard_table' => "SELECT ndrs_optout.guard_table('late', 'nhs', '{cancer}')",
	'erasure_preview' => "SELECT ndrs_optout.erasure_preview('$excluded', '{cancer}')",
	'erase' => "SELECT ndrs_optout.erase('$excluded', '{cancer}')",
	'erase_patients' => "SELECT ndrs_optout.erase_patients('{$excluded}', '{cancer}')",
	'open_case' => "SELECT ndrs_optout.open_case('$TEST_NUMBERS[2]', '{cancer}')");

subtest 'a key that nobody adopted' => sub {
	foreach my $name (sort keys %dependent)
	{
		my (undef, $messages) = answer($dependent{$name});
		like($messages, qr/ERROR:  ND010: no key has been adopted in this database$/m, "$name: refused");
	}
	is(answer('SELECT ndrs_optout.adopt_key()'), substr($fingerprint, 0, 8), 'it is adopted');
	is(answer('SELECT ndrs_optout.adopt_key()'), substr($fingerprint, 0, 8), 'once more, nothing happens');
};

# Who follows a hint must never overwrite the only copy of the key, or make the list
# forget everybody.
subtest 'what the hints tell to do about a key file' => sub {
	my $hint = sub { return ((answer('SELECT ndrs_optout.key_fingerprint()'))[1] =~ /^HINT:  (.*)$/m)[0] // '' };
	my $create = qr/openssl/;
	my %faults = (
		'the wrong mode' => [ qr/owner and the mode/, 0, sub { write_key($server, $key, 0644) } ],
		'something else in it' => [ qr/64 hexadecimal digits|key backup/, 0, sub { write_key($server, "# $key\n") } ],
		'a directory that cannot be searched' => [ qr/owner and the mode/, 0,
			sub { symlink "$path.closed/key", $path; mkdir "$path.closed", 0; }, sub { unlink $path; rmdir "$path.closed" } ],
		'no file' => [ qr/openssl rand|key backup/, 1, sub { unlink $path } ],
		'no name' => [ qr/Set "ndrs_optout.key_file" to the/, 1,
			sub { $server->append_conf('postgresql.conf', "ndrs_optout.key_file = ''\n"); $server->reload; sleep 1 },
			sub { $server->append_conf('postgresql.conf', "ndrs_optout.key_file = '$path'\n"); $server->reload; sleep 1 } ]);
	foreach my $adopted (0, 1)
	{
		# Without the triggers that audit and refuse
		$server->safe_psql('postgres', q{
			SET session_replication_role = replica;
			CREATE TABLE kept AS TABLE ndrs_optout.encoding_key;
			DELETE FROM ndrs_optout.encoding_key}) unless $adopted;
		foreach my $name (sort keys %faults)
		{
			my ($expected, $may_create, $break, $mend) = @{ $faults{$name} };
			unlink $path;
			$break->();
			my $told = $hint->();
			like($told, $expected, "$name: the hint is about it");
			if ($adopted)
			{
				unlike($told, $create, "$name: no new key, when one was adopted,");
				like($told, qr/Do not create a new key/, "$name: and the hint says so");
				like(answer("SELECT detail FROM ndrs_optout.health() WHERE check_name = 'key'"),
					qr/^the key file cannot be read: /, "$name: health() says the cause");
			}
			else
			{
				is($told =~ $create ? 1 : 0, $may_create, "$name: a new key only where no file is");
			}
			$mend->() if $mend;
		}
		$server->safe_psql('postgres', q{
			SET session_replication_role = replica;
			INSERT INTO ndrs_optout.encoding_key TABLE kept; DROP TABLE kept}) unless $adopted;
	}
	unlink $path;
	write_key($server, $key);
	is(answer('SELECT ndrs_optout.adopt_key()'), substr($fingerprint, 0, 8), 'the key is there again');
};

# Anybody with the key can check the list, without this extension.
is( answer(qq{
		SET search_path = public, ndrs_optout;
		SELECT count(*) FROM unnest('{@{[join ',', @TEST_NUMBERS]}}'::text[]) AS n
			WHERE encode_nhs_number(n::nhs_number)::text =
				encode(substring(hmac(n::bytea, decode('$key', 'hex'), 'sha256') FOR 16), 'hex')}),
	scalar @TEST_NUMBERS,
	'encoded numbers are those of pgcrypto');

$server->safe_psql('postgres', qq{
	SELECT ndrs_optout.exclude('$excluded', '{cancer}');
	SELECT ndrs_optout.guard_table('reject', 'nhs', '{cancer}');
	SELECT ndrs_optout.guard_table('skip', 'nhs', '{cancer}', on_match => 'skip');
});
my $case_id = ready_case($server, $excluded);
$dependent{'carry_out'} = "CALL ndrs_optout.carry_out($case_id, '$excluded')";
foreach my $table (qw(reject skip))
{
	$dependent{"INSERT of the excluded patient, $table"} = "INSERT INTO $table VALUES ('$excluded')";
	$dependent{"INSERT of another patient, $table"} = "INSERT INTO $table VALUES ('$allowed')";
	$dependent{"INSERT of a placeholder, $table"} = "INSERT INTO $table VALUES ('9999999999')";
}

# These sessions have used the key before.
my @sessions = map { open_session($server) } 1 .. 2;
my $live = $sessions[0];
run_in($_, "SELECT ndrs_optout.is_excluded('$excluded', 'cancer')") foreach @sessions;

sub everything_in_the_database
{
	return $server->safe_psql('postgres', q{
		SELECT (SELECT count(*) FROM reject), (SELECT count(*) FROM skip),
			(SELECT string_agg(encoded_nhs_number::text, ',') FROM ndrs_optout.exclusion),
			(SELECT string_agg(state, ',') FROM ndrs_optout.optout_case),
			(SELECT count(*) FROM ndrs_optout.guard), (SELECT count(*) FROM ndrs_optout.guard_tally),
			(SELECT string_agg(fingerprint::text, ',') FROM ndrs_optout.encoding_key)});
}

sub fails_closed
{
	my ($expected) = @_;
	my $before = everything_in_the_database();

	foreach my $name (sort keys %dependent)
	{
		my (undef, $messages) = run_in($live, $dependent{$name});
		$told .= $messages;
		is(sqlstate($messages), $expected, "$name: refused in a live session");
	}
	is(answer($dependent{$_}), $expected, "$_: refused in a new session")
	  foreach 'encode_nhs_number', 'is_excluded(text)', 'INSERT of another patient, skip';
	is(everything_in_the_database(), $before, 'nothing has changed');
	return;
}

sub works_again
{
	is(run_in($live, "SELECT ndrs_optout.is_excluded('$excluded', 'cancer')"), 't', 'the look-up works again');
	my (undef, $messages) = run_in($live, "INSERT INTO reject VALUES ('$excluded')");
	is(sqlstate($messages), '23N01', 'the guard knows the patient again');
	(undef, $messages) = run_in($live, "BEGIN; INSERT INTO reject VALUES ('$allowed'); ROLLBACK");
	is($messages, '', 'and lets others in');
	return;
}

subtest 'another key after the adoption' => sub {
	write_key($server, $other_key);
	reload_and_wait($server, @sessions);
	fails_closed('ND011');
	is(answer('SELECT ndrs_optout.adopt_key()'), 'ND011', 'it is not adopted in place of the first');
	my $key_id = substr $fingerprint, 0, 8;
	my (undef, $messages) = answer('SELECT ndrs_optout.adopt_key()');
	like($messages, qr/^DETAIL:  The adopted key has id $key_id\.$/m, 'the id of the right one is told');

	write_key($server, $key);
	reload_and_wait($server, @sessions);
	works_again();
};

subtest 'the key is gone after the adoption' => sub {
	unlink $path;
	reload_and_wait($server, @sessions);
	fails_closed('ND010');

	write_key($server, $key);
	reload_and_wait($server, @sessions);
	works_again();
};

subtest 'another setting after the adoption' => sub {
	$server->append_conf('postgresql.conf', "ndrs_optout.key_file = '$other_path'");
	reload_and_wait($server, @sessions);
	my (undef, $messages) = run_in($live, $dependent{'is_excluded(text)'});
	is(sqlstate($messages), 'ND011', 'a live session follows it');

	$server->append_conf('postgresql.conf', "ndrs_optout.key_file = '$path'");
	reload_and_wait($server, @sessions);
	works_again();
};

# The restored row of another key must be noticed as well as a changed file.
subtest 'another fingerprint in the table' => sub {
	run_in($sessions[1], 'BEGIN');
	run_in($sessions[1], "UPDATE ndrs_optout.encoding_key SET fingerprint = '@{[ '0' x 32 ]}'");
	works_again();
	run_in($sessions[1], 'COMMIT');
	fails_closed('ND011');
	run_in($sessions[1], "UPDATE ndrs_optout.encoding_key SET fingerprint = '$fingerprint'");
	works_again();
};

# -------------------------------------------------------- nobody else chooses it

# Loading the library in the middle of a statement makes the server warn, and psql
# show the statement: so this is a number that is no patient's.
my $nobody = '9999999999';
my $encoded = answer("SELECT ndrs_optout.encode_nhs_number('$nobody')");

# In a session that has not loaded the library the setting is a mere name, which
# anybody can give a value.  It must never become the key.
sub not_chosen
{
	my ($name, $sql, %arguments) = @_;
	my $result = answer("$sql SELECT ndrs_optout.encode_nhs_number('$nobody')",
		on_error_stop => 0, extra_params => [ '-U', 'officer' ], %arguments);
	like($result, qr/^(?:$encoded|ND010)$/, "$name: the key is not that of the other file");
	return $result;
}

subtest 'the setting is the administrator\'s' => sub {
	my $load = "SELECT ndrs_optout.is_excluded('$nobody', 'cancer');";
	my $set = "SET ndrs_optout.key_file = '$other_path';";

	is(answer("$load $set"), '55P02', 'SET is refused to a superuser');
	is(answer("$load $set", extra_params => [ '-U', 'officer' ]), '55P02', 'SET is refused to others');
	is(answer("$load SET LOCAL ndrs_optout.key_file = '$other_path'"), '55P02', 'so is SET LOCAL');
	is(answer("$load ALTER DATABASE postgres SET ndrs_optout.key_file = '$other_path'"), '55P02',
		'so is ALTER DATABASE');
	is(answer("$load ALTER ROLE officer SET ndrs_optout.key_file = '$other_path'"), '55P02',
		'so is ALTER ROLE');

	# SET before the library is loaded
	foreach my $user ('officer', scalar getpwuid $<)
	{
		my @user = (extra_params => [ '-U', $user ]);
		my ($output) = answer("$set SELECT ndrs_optout.encode_nhs_number('$nobody')", @user);
		is($output, $encoded, "SET before the library is loaded ($user): the key is the real one");
		($output) = answer("BEGIN; SET LOCAL ndrs_optout.key_file = '$other_path';
			SELECT ndrs_optout.encode_nhs_number('$nobody'); COMMIT", @user);
		is($output, $encoded, "SET LOCAL before the library is loaded ($user): the key is the real one");
	}
	my $sqlstate = answer("CREATE FUNCTION other_key() RETURNS text LANGUAGE plpgsql
		SET ndrs_optout.key_file = '$other_path'
		AS \$\$ BEGIN RETURN ndrs_optout.encode_nhs_number('$nobody'); END \$\$;");
	is($sqlstate, '', 'a function with the setting can be made before the library is loaded');
	my ($output) = answer('SELECT other_key()');
	is($output, $encoded, 'it works with the real key');
	is(answer("$load SELECT other_key()"), '55P02', 'and not at all when the library is loaded');
	answer('DROP FUNCTION other_key()');

	# What a session starts with
	{
		local $ENV{PGOPTIONS} = "-c ndrs_optout.key_file=$other_path";
		not_chosen('PGOPTIONS', '');
	}
	$server->safe_psql('postgres', "ALTER ROLE officer SET ndrs_optout.key_file = '$other_path'");
	not_chosen('ALTER ROLE before the library is loaded', '');
	$server->safe_psql('postgres', 'ALTER ROLE officer RESET ndrs_optout.key_file;'
		. "ALTER DATABASE postgres SET ndrs_optout.key_file = '$other_path'");
	not_chosen('ALTER DATABASE before the library is loaded', '');
	$server->safe_psql('postgres', 'ALTER DATABASE postgres RESET ndrs_optout.key_file');

	is(answer("$load SHOW ndrs_optout.key_file", extra_params => [ '-U', 'officer' ]), '42501',
		'others than superusers cannot SHOW it');
	is(answer("$load SELECT current_setting('ndrs_optout.key_file')", extra_params => [ '-U', 'officer' ]),
		'42501', 'nor read it otherwise');
};

# Then the server knows the setting before any session can.
subtest 'with the library in shared_preload_libraries' => sub {
	close_session($_) foreach @sessions;
	$server->append_conf('postgresql.conf', "shared_preload_libraries = 'ndrs_optout'");
	$server->restart;

	is(answer('SHOW ndrs_optout.key_file', extra_params => [ '-U', 'officer' ]), '42501',
		'a new session cannot SHOW it');
	is(answer("SET ndrs_optout.key_file = '$other_path'", extra_params => [ '-U', 'officer' ]), '55P02',
		'nor SET it');
	is(answer("ALTER DATABASE postgres SET ndrs_optout.key_file = '$other_path'"), '55P02',
		'ALTER DATABASE is refused');
	{
		local $ENV{PGOPTIONS} = "-c ndrs_optout.key_file=$other_path";
		my ($status, undef, $messages) = try_sql($server, 'SELECT 1');
		is($status, 2, 'a session with PGOPTIONS does not begin');
		like($messages, qr/parameter "ndrs_optout\.key_file" cannot be changed now/, 'and is told why');
	}
	is(answer("SELECT ndrs_optout.encode_nhs_number('$nobody')"), $encoded, 'the key is the real one');
	is(answer("INSERT INTO reject VALUES ('$excluded')"), '23N01', 'the guard works');
};

# ------------------------------------------------------------- nobody sees it

subtest 'the key is seen nowhere' => sub {
	# Any twelve digits of it in a row
	my $fragment = join '|', map { my $k = $_; map { substr $k, $_, 12 } 0 .. 52 } $key, $other_key;
	my %places = (
		'messages' => $told,
		'the server\'s log' => slurp_file($server->logfile),
		'pg_settings' => scalar answer('SELECT s FROM pg_settings s'),
		'pg_file_settings' => scalar answer('SELECT f FROM pg_file_settings f'));
	my $dump_file = $server->basedir . '/dump.sql';
	$server->run_log([ 'pg_dump', '-f', $dump_file, 'postgres' ]);
	$places{'a dump'} = slurp_file($dump_file);

	like("x${key}x", qr/$fragment/i, 'it would be found');
	unlike($places{$_}, qr/$fragment/i, "not in $_") foreach sort keys %places;
	like($places{'pg_file_settings'}, qr/ndrs_optout\.key_file/, 'the file with the setting was searched');
	like($places{'a dump'}, qr/\t$fingerprint\t/, 'the dump has its fingerprint');
};

$server->stop;
done_testing();
