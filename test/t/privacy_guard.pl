# What a refused row says to the client and to the server's log.
#
# The hazard: an error carries more than its message.  COPY adds the line or the
# value, PL/pgSQL its statement, the extended protocol the parameters, psql the
# line under the cursor, and the log the whole statement.  With each of these a
# patient who opted out of being held is held after all: in the log file, for
# years, in the backups of the log server.
#
# The log is as talkative here as it can be made for errors.  That this setting
# would show a leak is proved on a table that has no guard.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my ($EXCLUDED, $PRESENT, $ALLOWED, $CONTROL) = @TEST_NUMBERS[ 0, 1, 2, 8 ];

my $server = new_server('privacy_guard', settings => q{
log_error_verbosity = verbose
log_min_error_statement = error
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
});
install_extension($server);
$server->safe_psql('postgres', qq{
	CREATE ROLE loader LOGIN;
	SELECT ndrs_optout.exclude('$EXCLUDED', '{cancer}');
});

# ---------------------------------------------------------- looking for leaks

# A number in every form that it may be written in
sub number_pattern
{
	my ($number) = @_;
	my $between = '[\s\-\x{A0}\x{AD}\x{2007}\x{200B}-\x{2011}\x{202A}-\x{202F}\x{2060}\x{FEFF}]*';
	return join $between, split //, $number;
}

# UTF-8 by bytes, as everything here that is written
my $full_width = join '', map { "\xEF\xBC" . chr(0x90 + $_) } split //, $EXCLUDED;

# Everything of the row that must not be seen, by what it is
my %secrets = (
	'NHS number' => number_pattern($EXCLUDED),
	'mistyped NHS number' => number_pattern(substr($EXCLUDED, 0, 9)),
	'name' => 'Seeded',
	'postcode' => 'QX9\s*7ZZ',
	'encoded NHS number' => $server->safe_psql('postgres',
		"SELECT ndrs_optout.encode_nhs_number('$EXCLUDED')"));
my %control_secrets = ('NHS number' => number_pattern($CONTROL), 'name' => 'Controlly');

sub found_in
{
	my ($text, %patterns) = @_;
	utf8::decode($text);
	$text =~ tr/\x{FF10}-\x{FF19}/0-9/;
	return join ', ', grep { $text =~ /$patterns{$_}/i } sort keys %patterns;
}

# The server's log since the last call
# Run as the loader: all that came out, on both sides.
sub both_sides
{
	my ($sql, %arguments) = @_;
	new_log($server);
	my (undef, $output, $messages) = try_sql($server, $sql,
		on_error_stop => 0, extra_params => [ '-U', $arguments{user} // 'loader' ]);
	return ($messages, "$output\n$messages\n" . new_log($server));
}

# A test: the row is refused, and neither side learns anything of it.
sub refused_silently
{
	my ($expected, $sql, $name, %arguments) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my ($messages, $everything) = both_sides($sql, %arguments);
	is(sqlstate($messages), $expected, "$name: refused") or diag($messages);
	is(found_in($everything, %secrets), '', "$name: says nothing of the row") or diag($everything);
	return $messages;
}

sub contents
{
	my ($table) = @_;
	return $server->safe_psql('postgres', "SELECT t.*, t.ctid, t.xmin FROM $table t ORDER BY id");
}

sub skipped
{
	my ($table, $finding) = @_;
	return $server->safe_psql('postgres', qq{
		SELECT coalesce(sum(rows_skipped), 0) FROM ndrs_optout.guard_count
			WHERE target = '$table'::regclass AND finding = '$finding'});
}

# ---------------------------------------------------------- tables and files

my %types = (
	text => 'text',
	char => 'char(10)',
	bigint => 'bigint',
	numeric => 'numeric(10)',
	nhs_number => 'ndrs_optout.nhs_number');

# Tables NAME with a row of another patient in it, for the loader
sub create_table
{
	my ($name, $type, $guard) = @_;
	$server->safe_psql('postgres', qq{
		CREATE TABLE $name (id int PRIMARY KEY, nhs $type, name text, postcode text);
		GRANT INSERT, SELECT, UPDATE ON $name TO loader;
		INSERT INTO $name VALUES (0, '$PRESENT', 'Somebody', 'AA1 1AA');
	});
	$server->safe_psql('postgres', "SELECT ndrs_optout.guard_table('$name', 'nhs', '{cancer}', $guard)")
	  if $guard;
	return;
}

foreach my $type (sort keys %types)
{
	create_table("reject_$type", $types{$type}, "on_match => 'reject', on_missing => 'reject'");
	create_table("skip_$type", $types{$type}, "on_match => 'skip'");
	$server->safe_psql('postgres', "CREATE TABLE staging_$type (id int, nhs $types{$type}, name text, postcode text)");
}
# No guard, but a constraint that refuses a row, as the server itself does it
create_table('control', 'text');
$server->safe_psql('postgres', q{ALTER TABLE control ADD CHECK (name NOT LIKE '%Controlly%')});

my $tempdir = PostgreSQL::Test::Utils::tempdir();
my $file = "$tempdir/batch";

# Three rows; the second is the one that matters.
sub rows
{
	my ($separator, $number, $name, $postcode) = @_;
	return join '', map { join($separator, @$_) . "\n" } (
		[ 1, $ALLOWED, 'Anybody', 'BB2 2BB' ],
		[ 2, $number, $name // 'Zebedee Seeded', $postcode // 'QX9 7ZZ' ],
		[ 3, $ALLOWED, 'Anyone', 'CC3 3CC' ]);
}

sub write_file
{
	my ($content) = @_;
	unlink $file;
	append_to_file($file, $content);
	return;
}

# The same rows in the server's binary format, by way of a table without guard
sub write_binary_file
{
	my ($type) = @_;
	write_file(rows("\t", $EXCLUDED));
	$server->safe_psql('postgres', qq{
		TRUNCATE staging_$type;
		\\copy staging_$type FROM '$file'
		\\copy staging_$type TO '$file' (FORMAT binary)
	});
	return;
}

# -------------------------------------------------------------------- the tests

subtest 'the means of this test find leaks' => sub {
	foreach my $form ('9990000018', '999 000 0018', '999-000-0018', "999\xC2\xA0000\xC2\xA00018", $full_width)
	{
		is(found_in("x${form}x", 'NHS number' => $secrets{'NHS number'}), 'NHS number', "in the form $form");
	}

	my $insert = "INSERT INTO control VALUES (5, '$CONTROL', 'Carl Controlly', '')";
	write_file(rows("\t", $CONTROL, 'Carl Controlly', ''));
	my %leaky = (
		'INSERT' => $insert,
		'COPY' => "\\copy control FROM '$file'",
		'PL/pgSQL' => "DO \$\$ BEGIN $insert; END \$\$");
	foreach my $name (sort keys %leaky)
	{
		my (undef, $everything) = both_sides($leaky{$name});
		is(found_in($everything, %control_secrets), 'NHS number, name', "a leak through $name would be seen");
	}
};

# Once with each type, each format, and for text in each written form.
foreach my $type (sort keys %types)
{
	my %files = (
		'text' => [ '', sub { write_file(rows("\t", $EXCLUDED)) } ],
		'csv' => [ '(FORMAT csv)', sub { write_file(rows(',', $EXCLUDED)) } ],
		'binary' => [ '(FORMAT binary)', sub { write_binary_file($type) } ]);
	if ($type eq 'text' || $type eq 'nhs_number')
	{
		$files{'text, spaces'} = [ '', sub { write_file(rows("\t", '999 000 0018')) } ];
		$files{'csv, hyphens'} = [ '(FORMAT csv)', sub { write_file(rows(',', '999-000-0018')) } ];
		$files{'csv, no-break spaces'} =
		  [ '(FORMAT csv)', sub { write_file(rows(',', "999\xC2\xA0000\xC2\xA00018")) } ];
		$files{'text, full width'} = [ '', sub { write_file(rows("\t", $full_width)) } ];
	}

	subtest "COPY, NHS number as $type" => sub {
		foreach my $format (sort keys %files)
		{
			my ($option, $write) = @{ $files{$format} };
			$write->();

			my $before = contents("reject_$type");
			my $messages =
			  refused_silently('23N01', "\\copy reject_$type FROM '$file' $option", "$format, reject");
			like($messages, qr/ERROR:  23N01: row of an excluded patient may not enter table public.reject_$type$/m,
				"$format, reject: the message");
			like($messages, qr/^CONTEXT:  COPY reject_$type, line 2$/m, "$format, reject: the line is told, and no more");
			is(contents("reject_$type"), $before, "$format, reject: the table is as it was");

			$server->safe_psql('postgres', "DELETE FROM skip_$type WHERE id > 0");
			my $skipped = skipped("skip_$type", 'excluded');
			my ($complaints, $everything) = both_sides("\\copy skip_$type FROM '$file' $option");
			is($complaints, '', "$format, skip: no complaint");
			is($server->safe_psql('postgres', "SELECT string_agg(id::text, ',' ORDER BY id) FROM skip_$type"),
				'0,1,3', "$format, skip: the other rows are loaded");
			is(skipped("skip_$type", 'excluded'), $skipped + 1, "$format, skip: the row is counted");
			is(found_in($everything, %secrets), '', "$format, skip: nothing of the row is said");
		}
	};
}

my $values = "'$EXCLUDED', 'Zebedee Seeded', 'QX9 7ZZ'";

subtest 'single statements' => sub {
	my %statements = (
		'INSERT' => "INSERT INTO reject_text VALUES (7, $values)",
		'INSERT of several rows' => "INSERT INTO reject_text VALUES (6, '$ALLOWED', '', ''), (7, $values)",
		'INSERT into a column of type nhs_number' => "INSERT INTO reject_nhs_number VALUES (7, $values)",
		'INSERT ... SELECT' => "INSERT INTO reject_bigint SELECT 7, $EXCLUDED, 'Zebedee Seeded', 'QX9 7ZZ'",
		'INSERT ... ON CONFLICT' =>
		  "INSERT INTO reject_text VALUES (0, $values) ON CONFLICT (id) DO UPDATE SET nhs = excluded.nhs",
		'UPDATE' => "UPDATE reject_char SET nhs = '$EXCLUDED', name = 'Zebedee Seeded' WHERE id = 0",
		'UPDATE of a table that skips' =>
		  "UPDATE skip_text SET nhs = '$EXCLUDED', name = 'Zebedee Seeded' WHERE id = 0",
		'MERGE' => "MERGE INTO reject_numeric t USING (VALUES (0, $EXCLUDED, 'Zebedee Seeded')) AS s (id, nhs, name)
			ON t.id = s.id WHEN MATCHED THEN UPDATE SET nhs = s.nhs, name = s.name",
		'EXECUTE' => "PREPARE load (int, text, text, text) AS INSERT INTO reject_text VALUES (\$1, \$2, \$3, \$4);
			EXECUTE load (7, $values)");
	my $before = join "\n", map { contents("reject_$_") } sort keys %types;

	refused_silently('23N01', $statements{$_}, $_) foreach sort keys %statements;
	is(join("\n", map { contents("reject_$_") } sort keys %types), $before, 'the tables are as they were');
	is($server->safe_psql('postgres', q{SELECT nhs FROM skip_text WHERE id = 0}),
		$PRESENT, 'an UPDATE is not skipped silently');
};

# psql 15 cannot bind parameters; pgbench can.
subtest 'bind parameters' => sub {
	my $script = "$tempdir/bind.sql";
	my $bind = sub {
		my ($table, $number, $name, $postcode) = @_;
		unlink $script;
		append_to_file($script, "INSERT INTO $table VALUES (7, :nhs, :name, :postcode);\n");
		my $messages;
		new_log($server);
		IPC::Run::run(
			[
				'pgbench', '-n', '-M', 'extended', '-t', '1', '-f', $script,
				'-D', "nhs=$number", '-D', "name=$name", '-D', "postcode=$postcode",
				'-U', 'loader', $server->connstr('postgres') ],
			'<', \undef, '>', '/dev/null', '2>', \$messages);
		return ($messages, new_log($server));
	};

	my (undef, $control_log) = $bind->('control', $CONTROL, 'Controlly', 'DD4');
	is(found_in($control_log, %control_secrets), 'NHS number, name', 'a leak of parameters would be seen');

	my ($messages, $log) = $bind->('reject_text', $EXCLUDED, 'Seeded', 'QX97ZZ');
	like($log, qr/ERROR:  23N01: row of an excluded patient/, 'the row is refused');
	is(found_in($log, %secrets), '', 'the log says nothing of the parameters');
	like($messages, qr/row of an excluded patient/, 'the client is told');
	is(found_in($messages, %secrets), '', 'and no more');
};

subtest 'from inside PL/pgSQL' => sub {
	$server->safe_psql('postgres', qq{
		CREATE FUNCTION load_literal() RETURNS void LANGUAGE plpgsql AS \$\$
			BEGIN INSERT INTO reject_text VALUES (7, $values); END \$\$;
		CREATE FUNCTION load_dynamic(nhs text) RETURNS void LANGUAGE plpgsql AS \$\$
			BEGIN EXECUTE format('INSERT INTO reject_text VALUES (7, %L, %L)', nhs, 'Zebedee Seeded'); END \$\$;
		CREATE FUNCTION load_file(path text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS \$\$
			BEGIN EXECUTE format('COPY reject_text FROM %L', path); END \$\$;
		CREATE FUNCTION load_and_tell() RETURNS text LANGUAGE plpgsql AS \$\$
		DECLARE
			code text; message text; detail text; hint text; context text;
		BEGIN
			INSERT INTO reject_text VALUES (7, $values);
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
				detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
			RETURN concat_ws('|', code, message, detail, hint, context);
		END \$\$;
	});
	write_file(rows("\t", $EXCLUDED));
	my $before = contents('reject_text');

	refused_silently('23N01', "DO \$\$ BEGIN INSERT INTO reject_text VALUES (7, $values); END \$\$", 'DO');
	refused_silently('23N01', 'SELECT load_literal()', 'a static statement');
	refused_silently('23N01', "SELECT load_dynamic('$EXCLUDED')", 'a dynamic statement');
	my $messages = refused_silently('23N01', "SELECT load_file('$file')", 'COPY in a function');
	like($messages, qr/^CONTEXT:  COPY reject_text, line 2$/m, 'COPY in a function: the line is told');
	is(contents('reject_text'), $before, 'the table is as it was');

	my (undef, $told) = both_sides('SELECT load_and_tell()');
	like($told, qr/^23N01\|row of an excluded patient/m, 'a handler of exceptions learns the reason');
	is(found_in($told, %secrets), '', 'and nothing of the row');
	(undef, $told) = both_sides("SELECT load_and_tell();
		DO \$\$ BEGIN RAISE EXCEPTION 'after that' USING ERRCODE = 'ZZ001'; END \$\$");
	like($told, qr/ERROR:  ZZ001.*CONTEXT:  PL\/pgSQL function inline_code_block/s,
		'errors of others have their context again');
};

subtest 'numbers that are unreadable or missing' => sub {
	my $mistyped = substr($EXCLUDED, 0, 9) . '9';
	my %unreadable = (
		'wrong check digit' => $mistyped,
		'a letter' => substr($EXCLUDED, 0, 9) . 'B',
		'too short' => substr($EXCLUDED, 0, 9),
		'too long' => "${EXCLUDED}00");
	foreach my $name (sort keys %unreadable)
	{
		write_file(rows("\t", $unreadable{$name}));
		my $messages = refused_silently('23N02', "\\copy reject_text FROM '$file'", "$name, COPY");
		like($messages, qr/ERROR:  23N02: row with an unreadable NHS number may not enter table public.reject_text$/m,
			"$name: the message");
		like($messages, qr/^DETAIL:  The (value|check digit) .*\.$/m, "$name: the detail says what is wrong");
		like($messages, qr/^CONTEXT:  COPY reject_text, line 2$/m, "$name: the line is told");
		refused_silently('23N02', "INSERT INTO reject_text VALUES (7, '$unreadable{$name}', 'Zebedee Seeded')",
			"$name, INSERT");

		# The type refuses it before the guard can.
		$messages = refused_silently('22P02', "\\copy reject_nhs_number FROM '$file'", "$name, COPY into nhs_number");
		like($messages, qr/^CONTEXT:  COPY reject_nhs_number, line 2$/m, "$name, COPY into nhs_number: the line is told");
		refused_silently('22P02',
			"INSERT INTO reject_nhs_number VALUES (7, '$unreadable{$name}', 'Zebedee Seeded')",
			"$name, INSERT into nhs_number");
	}
	refused_silently('23N02', "INSERT INTO reject_$_ VALUES (7, $mistyped, 'Zebedee Seeded', 'QX9 7ZZ')",
		"wrong check digit, INSERT into $_") foreach qw(bigint numeric);

	my %missing = ('NULL' => '\N', 'blanks' => '  ', 'placeholder' => '9999999999');
	foreach my $name (sort keys %missing)
	{
		write_file(rows("\t", $missing{$name}));
		my $messages = refused_silently('23N03', "\\copy reject_text FROM '$file'", "$name, COPY");
		like($messages, qr/ERROR:  23N03: row without an NHS number may not enter table public.reject_text$/m,
			"$name: the message");
		like($messages, qr/^CONTEXT:  COPY reject_text, line 2$/m, "$name: the line is told");
	}
};

# Without the trigger the CHECK constraint refuses, and a failed CHECK constraint
# makes the server print the row.
subtest 'the constraint alone' => sub {
	write_file(rows("\t", $EXCLUDED));
	$server->safe_psql('postgres', q{
		SET client_min_messages = error;
		SET ndrs_optout.allow_unguarded = on;
		ALTER TABLE reject_text DISABLE TRIGGER ALL;
		ALTER TABLE skip_text DISABLE TRIGGER ALL;
		DELETE FROM skip_text WHERE id > 0;
	});
	foreach my $table (qw(reject_text skip_text))
	{
		my $before = contents($table);
		my $messages = refused_silently('23N01', "\\copy $table FROM '$file'", "$table, COPY");
		like($messages, qr/ERROR:  23N01: row of an excluded patient may not enter table public.$table$/m, "$table: the message");
		like($messages, qr/^CONTEXT:  COPY $table, line 2$/m, "$table: the line is told");
		refused_silently('23N01', "INSERT INTO $table VALUES (7, $values)", "$table, INSERT");
		is(contents($table), $before, "$table is as it was");
	}
	$server->safe_psql('postgres', q{
		ALTER TABLE reject_text ENABLE TRIGGER ALL;
		ALTER TABLE skip_text ENABLE TRIGGER ALL;
	});

	# COPY collects many rows when there is no trigger at all.
	create_table('late', 'text', "on_match => 'reject'");
	$server->safe_psql('postgres', 'SET client_min_messages = error; SET ndrs_optout.allow_unguarded = on; DROP TRIGGER ndrs_optout_guard_2 ON late');
	my $before = contents('late');
	my $messages = refused_silently('23N01', "\\copy late FROM '$file'", 'no trigger, COPY');
	like($messages, qr/^CONTEXT:  COPY late, line 2$/m, 'no trigger: the line is told');
	is(contents('late'), $before, 'no trigger: the table is as it was');

	# A row from before the exclusion
	$server->safe_psql('postgres', qq{
		SET client_min_messages = error;
		SET ndrs_optout.allow_unguarded = on;
		ALTER TABLE late DROP CONSTRAINT ndrs_optout_guard_2;
		SELECT ndrs_optout.unguard_table('late');
		INSERT INTO late VALUES (7, $values);
		SELECT ndrs_optout.guard_table('late', 'nhs', '{cancer}');
	});
	refused_silently('23N01', 'ALTER TABLE late VALIDATE CONSTRAINT ndrs_optout_guard_2',
		'VALIDATE CONSTRAINT', user => getpwuid($<));

	# Partitions have the constraint by inheritance.
	$server->safe_psql('postgres', q{
		CREATE TABLE parts (id int, nhs text, name text, postcode text) PARTITION BY RANGE (id);
		CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
		GRANT INSERT ON parts, parts_1 TO loader;
		SELECT ndrs_optout.guard_table('parts', 'nhs', '{cancer}');
		SET client_min_messages = error;
		SET ndrs_optout.allow_unguarded = on;
		ALTER TABLE parts_1 DISABLE TRIGGER ALL;
	});
	refused_silently('23N01', "\\copy $_ FROM '$file'", "COPY into $_") foreach qw(parts parts_1);
	is($server->safe_psql('postgres', 'SELECT count(*) FROM parts'), 0, 'no row of the file is in the partition');
};

subtest 'the wrong key, or none' => sub {
	my $key = slurp_file(key_path($server));
	my $session = open_session($server);
	my %keys = ('ND011' => random_key(), 'ND010' => 'no key');
	write_file(rows("\t", $EXCLUDED));

	foreach my $expected (sort keys %keys)
	{
		write_key($server, $keys{$expected});
		reload_and_wait($server, $session);
		foreach my $table (qw(reject_text skip_text))
		{
			my $before = contents($table);
			my $messages = refused_silently($expected, "\\copy $table FROM '$file'", "$table, COPY");
			like($messages, qr/^(?:CONTEXT:  |)COPY $table, line 1$/m, "$table: the line is told");
			refused_silently($expected, "INSERT INTO $table VALUES (7, $values)", "$table, INSERT");
			is(contents($table), $before, "$table is as it was");
		}
	}
	write_key($server, $key);
	reload_and_wait($server, $session);
	close_session($session);
};

# The server's own error, in the middle of our look-up, has the context and the
# statement of whoever looks something up.
subtest 'a look-up that has to wait, and gives up' => sub {
	my $holder = open_session($server);
	write_file(rows("\t", $EXCLUDED));

	create_table('fast_text', 'text', "mechanism => 'constraint'");
	foreach my $list (qw(encoding_key exclusion guard register))
	{
		run_in($holder, "BEGIN; LOCK TABLE ndrs_optout.$list");
		foreach my $table (qw(reject_text skip_text fast_text))
		{
			my $messages = refused_silently('55P03', "SET lock_timeout = '100ms';\n\\copy $table FROM '$file'",
				"$list is locked, COPY into $table");
			like($messages, qr/^(?:CONTEXT:  |)COPY $table, line 1$/m, "$list, $table: the line is told");
			refused_silently('55P03', "SET lock_timeout = '100ms'; INSERT INTO $table VALUES (7, $values)",
				"$list is locked, INSERT into $table");
		}
		run_in($holder, 'ROLLBACK');
	}

	# Counts are written when the statement that brought the row commits.
	run_in($holder, 'BEGIN; LOCK TABLE ndrs_optout.guard_tally');
	refused_silently('55P03', "SET lock_timeout = '100ms';\nINSERT INTO skip_text VALUES (7, $values)",
		'guard_tally is locked, INSERT');
	run_in($holder, 'ROLLBACK');
	close_session($holder);
};

# Officers name the patient in their calls.  A call that fails must not leave the
# number in the log as its statement.
subtest 'calls of an officer that fail' => sub {
	my $officer = getpwuid($<);
	create_registry($server);
	my $case_id = ready_case($server, $EXCLUDED);
	my $request_id = $server->safe_psql('postgres', "SELECT ndrs_optout.request_subject_access('$ALLOWED')");
	$server->safe_psql('postgres', "SELECT ndrs_optout.record_subject_access_proof($request_id, 'identity', 'passport')");

	my $release = "ndrs_optout.record_release('{$EXCLUDED}'::ndrs_optout.nhs_number[], 'direct_care', NULL, 'nobody', current_date, 'order')";

	my %calls = (
		'exclude, no such register' => [ '42704', "SELECT ndrs_optout.exclude('$EXCLUDED', '{nowhere}')" ],
		'exclude, mistyped number' =>
		  [ '22P02', "SELECT ndrs_optout.exclude('" . substr($EXCLUDED, 0, 9) . "9', '{cancer}')" ],
		'readmit, no such register' => [ '42704', "SELECT ndrs_optout.readmit('$EXCLUDED', '{nowhere}')" ],
		'is_excluded, no such register' => [ '42704', "SELECT ndrs_optout.is_excluded('$EXCLUDED', 'nowhere')" ],
		'open_case, a second one' => [ '23505', "SELECT ndrs_optout.open_case('$EXCLUDED', '{cancer}')" ],
		'open_case, day to come' =>
		  [ '22023', "SELECT ndrs_optout.open_case('$EXCLUDED', '{rare_disease}', received_on => current_date + 1)" ],
		'carry_out, no such case' => [ 'P0002', "CALL ndrs_optout.carry_out(999, '$EXCLUDED')" ],
		'erase, no such register' => [ '42704', "SELECT ndrs_optout.erase('$EXCLUDED', '{nowhere}')" ],
		'erase_patients, no such register' =>
		  [ '42704', "SELECT ndrs_optout.erase_patients('{$EXCLUDED}', '{nowhere}')" ],
		'erasure_preview, no such register' =>
		  [ '42704', "SELECT ndrs_optout.erasure_preview('$EXCLUDED', '{nowhere}')" ],
		'request_subject_access, day to come' =>
		  [ '22023', "SELECT ndrs_optout.request_subject_access('$EXCLUDED', received_on => current_date + 1)" ],
		'subject_access, another patient' => [ 'ND031', "SELECT ndrs_optout.answer_subject_access($request_id, '$EXCLUDED')" ],
		'record_release, no such recipient' => [ '42704', "SELECT $release" ],
		'release_contains, no such release' => [ 'P0002', "SELECT ndrs_optout.release_contains($EXCLUDED, '$EXCLUDED')" ],
		'issue_recall_letter, no such notice' => [ 'P0002', "SELECT ndrs_optout.issue_recall_letter($EXCLUDED, '$EXCLUDED')" ]);
	refused_silently($calls{$_}[0], $calls{$_}[1], $_, user => $officer) foreach sort keys %calls;

	my $writer = open_session($server);
	run_in($writer, "BEGIN; INSERT INTO patient VALUES (1, '$ALLOWED', 'seeded name')");
	refused_silently('55P03', "SET lock_timeout = '100ms'; CALL ndrs_optout.carry_out($case_id, '$EXCLUDED')",
		'carry_out, lock_timeout', user => $officer);

	# A user who is tired of waiting presses Ctrl-C, or is disconnected.
	foreach my $function (qw(pg_cancel_backend pg_terminate_backend))
	{
		new_log($server);
		my $call = start_sql($server, "CALL ndrs_optout.carry_out($case_id, '$EXCLUDED')");
		wait_until_waiting($server, 'CALL');
		$server->safe_psql('postgres', "SELECT $function(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%'");
		my (undef, undef, $messages) = finish_sql($call);
		like($messages, qr/57014|57P01/, "carry_out, $function: stopped");
		is(found_in($messages . new_log($server), %secrets), '', "carry_out, $function: says nothing of the row");
	}
	run_in($writer, 'ROLLBACK');

	run_in($writer, 'BEGIN; LOCK TABLE patient');
	refused_silently('55P03', "SET lock_timeout = '100ms'; SELECT ndrs_optout.$_",
		"$_, lock_timeout", user => $officer)
		foreach "disclose_records('$EXCLUDED')", "answer_subject_access($request_id, '$ALLOWED')";
	run_in($writer, 'ROLLBACK');

	my %locked = (
		release => [ $release, "ndrs_optout.release_contains(1, '$EXCLUDED')" ],
		recall_notice => [ "ndrs_optout.issue_recall_letter(1, '$EXCLUDED')" ],
		# as it is by the end of another transaction
		'audit_segment IN SHARE ROW EXCLUSIVE MODE' => [ "ndrs_optout.open_case('$EXCLUDED', '{rare_disease}')" ],
		audit_segment => [ "ndrs_optout.open_case('$EXCLUDED', '{rare_disease}')" ]);
	my $carry_out = "CALL ndrs_optout.carry_out($case_id, '$EXCLUDED')";
	foreach my $table (sort keys %locked)
	{
		run_in($writer, "BEGIN; LOCK TABLE ndrs_optout.$table");
		refused_silently('55P03', "SET lock_timeout = '100ms'; SELECT $_", "$table is locked, " . s/\(.*//r, user => $officer)
		  foreach @{ $locked{$table} };
		refused_silently('55P03', "SET lock_timeout = '100ms'; $carry_out", "$table is locked, carry_out", user => $officer);
		run_in($writer, 'ROLLBACK');
	}

	# An event that is committed while the officer waits for the end of the chain
	foreach my $level ('repeatable read', 'serializable')
	{
		run_in($writer, q{BEGIN; SELECT ndrs_optout.audit('another');
			SELECT ndrs_optout.audit_link_events(ARRAY(SELECT entry_id FROM ndrs_optout.audit_event WHERE link IS NULL))});
		new_log($server);
		my $call = start_sql($server,
			"SET default_transaction_isolation = '$level'", "SELECT ndrs_optout.request_subject_access('$EXCLUDED')");
		wait_until_waiting($server, 'SELECT ndrs_optout.request_subject_access');
		run_in($writer, 'COMMIT');
		my (undef, undef, $messages) = finish_sql($call);
		like($messages, qr/40001/, "$level, the end of the audit has moved: 40001");
		is(found_in($messages . new_log($server), %secrets), '', "$level, the end of the audit has moved: nothing of the row");
	}
	close_session($writer);
};

is(found_in(slurp_file($server->logfile), %secrets), '', 'the whole log says nothing of the patient');

$server->stop;
done_testing();
