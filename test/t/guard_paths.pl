# Ways into a guarded table that need a client program or a second server.  The
# others are in test/sql/guard_paths.sql; doc/security.md has the table of all.
#
# The hazards: a row that comes over the wire, out of a dump or from another
# server meets other code in the server than an INSERT does.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A, B and C may be held; X is excluded.
my ($X, $A, $B, $C) = @TEST_NUMBERS[ 0 .. 3 ];
my %guards = (
	skip => "on_match => 'skip'",
	reject => "on_match => 'reject'",
	redact => "on_match => 'redact', redact_columns => '{note}'",
	constraint => "mechanism => 'constraint'");
my @guards = sort keys %guards;
my @rows = ([ 1, $A ], [ 2, $X ], [ 3, $B ]);

my $registry = new_server('registry', settings => "wal_retrieve_retry_interval = '200ms'\n");
my $elsewhere = new_server('elsewhere', init => { allows_streaming => 'logical' },
	# The extension is not there to keep numbers out of its log.
	settings => "logical_decoding_work_mem = '64kB'\nlog_error_verbosity = terse\nlog_min_error_statement = panic\n");
my $directory = $registry->basedir;
install_extension($registry);
$registry->safe_psql('postgres', "SELECT ndrs_optout.exclude('$X', '{cancer}'); CREATE EXTENSION postgres_fdw");
$elsewhere->safe_psql('postgres', 'CREATE EXTENSION postgres_fdw');

# What a table holds: "1A 3B"; "2-" is a row that lost number and note.
sub held
{
	my ($table, %arguments) = @_;
	my $server = $arguments{server} // $registry;
	return $server->safe_psql($arguments{database} // 'postgres', qq{
		SELECT string_agg(id || CASE replace(nhs, ' ', '') WHEN '$A' THEN 'A' WHEN '$B' THEN 'B' WHEN '$C' THEN 'C' WHEN '$X' THEN 'X'
				ELSE CASE WHEN nhs IS NULL AND note IS NULL THEN '-' ELSE '?' END END, ' ' ORDER BY id)
			FROM $table});
}

# One table for each guard, without rows
sub create_guarded
{
	my ($prefix, %arguments) = @_;
	my $columns = $arguments{columns} // 'id int PRIMARY KEY, nhs text, note text';
	$registry->safe_psql($arguments{database} // 'postgres', qq{
		CREATE TABLE ${prefix}_$_ ($columns);
		SELECT ndrs_optout.guard_table('${prefix}_$_', 'nhs', '{cancer}', $guards{$_});
	}) foreach @guards;
	return;
}

# What a table must hold when the rows came one by one, or all in one statement
my %one_by_one = (skip => '1A 3B', reject => '1A 3B', redact => '1A 2- 3B', constraint => '1A 3B');
my %all_in_one = (skip => '1A 3B', reject => '', redact => '1A 2- 3B', constraint => '');

# Run a client program: (status, messages)
sub run_program
{
	my ($program, @arguments) = @_;
	my ($output, $messages) = ('', '');
	local $ENV{PGHOST} = $registry->host;
	local $ENV{PGPORT} = $registry->port;
	IPC::Run::run([ $registry->installed_command($program), @arguments ],
		'<', \undef, '>', \$output, '2>', \$messages, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return ($? >> 8, $messages);
}

# A test: the program fails for the guard's reason, or does not, and the server's
# messages name nobody (pg_restore and pgbench can print what they sent).
sub ended_as_it_should
{
	my ($name, $refused, $status, $messages) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	if ($refused)
	{
		like($messages, qr/row of an excluded patient may not enter/, "$name: refused");
		unlike($messages =~ s/^Command was: .*$//mr, qr/$X/, "$name: without the number");
	}
	else
	{
		is($messages, '', "$name: no complaint");
		is($status, 0, "$name: no error");
	}
	return;
}

# ------------------------------------------------------------- client programs

# From version 17 on, a generated column can be computed anew, of what is there.
subtest 'SET EXPRESSION' => sub {
	plan skip_all => 'the version has none' if $registry->pg_version < 17;
	$registry->safe_psql('postgres', qq{
		CREATE TABLE computed (a jsonb, nhs text GENERATED ALWAYS AS (a ->> 'other') STORED);
		INSERT INTO computed VALUES ('{"other": "$A", "nhs": "$X"}');
		SELECT ndrs_optout.guard_table('computed', 'nhs', '{cancer}', mechanism => 'constraint')});
	refused_with($registry, '23N01', q{ALTER TABLE computed ALTER nhs SET EXPRESSION AS (a ->> 'nhs')},
		'numbers of excluded patients are found');
	$registry->safe_psql('postgres', q{ALTER TABLE computed ALTER nhs SET EXPRESSION AS (upper(a ->> 'other'))});
	is($registry->safe_psql('postgres', "SELECT count(*) FROM computed WHERE nhs = '$A'"), 1, 'others are no obstacle');
};

subtest 'psql \copy' => sub {
	my %files = (csv => "$directory/rows.csv", binary => "$directory/rows.binary");
	append_to_file($files{csv}, join('', map { "$_->[0],$_->[1],note\n" } @rows));
	$registry->safe_psql('postgres', qq{
		CREATE TABLE unguarded (id int, nhs text, note text);
		\\copy unguarded from '$files{csv}' csv
		\\copy unguarded to '$files{binary}' (format binary)
	});
	foreach my $format (sort keys %files)
	{
		create_guarded("copied_$format");
		foreach my $guard (@guards)
		{
			my $table = "copied_${format}_$guard";
			my ($status, $messages) = run_program('psql', '-Xq', '-d', 'postgres',
				'-c', "\\copy $table from '$files{$format}' (format $format)");
			ended_as_it_should($table, $all_in_one{$guard} eq '', $status, $messages);
			is(held($table), $all_in_one{$guard}, "$table: what it holds");
		}
	}
};

# Parameters, statements that are prepared once and executed often, a pipeline
# What the server itself passes over is the loader's wish.  It may turn a number that
# cannot be read into none, so a guard that lets rows without a number in lets this in.
subtest 'COPY with ON_ERROR' => sub {
	my $version = $registry->safe_psql('postgres', q{SELECT current_setting('server_version_num')});
	plan skip_all => 'version 17 brings it' if $version < 170000;
	my $file = "$directory/on_error";
	my %rows = (unreadable => $A =~ s/.\z/ ($& + 1) % 10 /er, excluded => $X);

	foreach my $guard (qw(reject skip constraint), 'missing rejected')
	{
		my $policy = $guards{$guard} // "on_missing => 'reject'";
		my %found;
		foreach my $kind (sort keys %rows)
		{
			unlink $file;
			append_to_file($file, "1\t$B\n2\t$rows{$kind}\n");
			foreach my $how ('ignore', $version < 190000 ? () : 'set_null')
			{
				$registry->safe_psql('postgres', qq{
					CREATE TABLE on_error (id int, nhs ndrs_optout.nhs_number);
					SELECT ndrs_optout.guard_table('on_error', 'nhs', '{cancer}', $policy)});
				try_sql($registry, "COPY on_error FROM '$file' (ON_ERROR $how)");
				$found{"$kind $how"} = $registry->safe_psql('postgres',
					q{SELECT coalesce(string_agg(id || CASE WHEN nhs IS NULL THEN '-' ELSE '' END, ' ' ORDER BY id), '') FROM on_error});
				$registry->safe_psql('postgres', q{SELECT ndrs_optout.unguard_table('on_error'); DROP TABLE on_error});
			}
		}
		is($found{'excluded ignore'}, $guard eq 'skip' ? '1' : '', "$guard: an excluded patient is not passed over");
		is($found{'unreadable ignore'}, '1', "$guard: a number that cannot be read is");
		next if $version < 190000;
		is($found{'excluded set_null'}, $guard eq 'skip' ? '1' : '', "$guard: nor made to none");
		# NOT COVERED
		is($found{'unreadable set_null'}, $guard eq 'missing rejected' ? '' : '1 2-', "$guard: a number that cannot be read is");
	}
};

subtest 'the extended protocol' => sub {
	my $script = "$directory/insert.pgbench";
	append_to_file($script, <<'SCRIPT');
\startpipeline
INSERT INTO :table VALUES (1, :a, 'note') ON CONFLICT (id) DO UPDATE SET nhs = :a;
INSERT INTO :table VALUES (2, :x, 'note') ON CONFLICT (id) DO NOTHING;
INSERT INTO :table VALUES (3, :b, 'note') ON CONFLICT (id) DO UPDATE SET nhs = :b;
\endpipeline
SCRIPT
	foreach my $mode (qw(extended prepared))
	{
		create_guarded($mode);
		foreach my $guard (@guards)
		{
			# pgbench passes each variable as a parameter, so a table's name cannot be one.
			my $own = "$directory/$mode.$guard.pgbench";
			append_to_file($own, slurp_file($script) =~ s/:table/${mode}_$guard/gr);
			my ($status, $messages) = run_program('pgbench', '-n', '-M', $mode, '-t', 12, '-f', $own,
				map({ ('-D', $_) } "a=$A", "b=$B", "x=$X"), 'postgres');
			ended_as_it_should("$mode, $guard", 1, $status, $messages) if $all_in_one{$guard} eq '';
			is($status, $all_in_one{$guard} eq '' ? 2 : 0, "$mode, $guard: status of pgbench");
			is(held("${mode}_$guard"), $all_in_one{$guard}, "$mode, $guard: what the table holds");
		}
	}
};

# ----------------------------------------------------------- from another server

my $to_registry = sprintf q{
	CREATE SERVER registry FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER registry}, $registry->host, $registry->port;
$elsewhere->safe_psql('postgres', $to_registry);

subtest 'rows that arrive through postgres_fdw' => sub {
	my $values = join ', ', map { "($_->[0], '$_->[1]', 'note')" } @rows;
	my %ways = (
		insert => sub { "INSERT INTO $_[0] VALUES $values" },
		select => sub { "INSERT INTO $_[0] SELECT * FROM (VALUES $values) AS v ORDER BY 1" },
		copy => sub { "COPY $_[0] FROM STDIN;\n" . join('', map { "$_->[0]\t$_->[1]\tnote\n" } @rows) . "\\.\n" });
	foreach my $batch_size (1, 100)
	{
		foreach my $way (sort keys %ways)
		{
			my $prefix = "far_${way}_$batch_size";
			create_guarded($prefix);
			foreach my $guard (@guards)
			{
				my $table = "${prefix}_$guard";
				$elsewhere->safe_psql('postgres', qq{
					CREATE FOREIGN TABLE $table (id int, nhs text, note text) SERVER registry OPTIONS (batch_size '$batch_size')});
				my (undef, undef, $messages) = try_sql($elsewhere, "\\set SHOW_CONTEXT never\n" . $ways{$way}->($table));
				is(sqlstate($messages), $all_in_one{$guard} eq '' ? '23N01' : '', "$table: SQLSTATE");
				is(held($table), $all_in_one{$guard}, "$table: what it holds");
			}
		}
	}

	# An UPDATE that is sent as such
	create_guarded('far_update');
	foreach my $guard (@guards)
	{
		my $table = "far_update_$guard";
		$registry->safe_psql('postgres', "INSERT INTO $table VALUES (1, '$C', 'note'), (2, '$C', 'note')");
		$elsewhere->safe_psql('postgres', "CREATE FOREIGN TABLE $table (id int, nhs text, note text) SERVER registry");
		my (undef, undef, $messages) = try_sql($elsewhere, "\\set SHOW_CONTEXT never\nUPDATE $table SET nhs = '$X' WHERE id = 2");
		is(sqlstate($messages), $guard eq 'redact' ? '' : '23N01', "$table: SQLSTATE");
		is((try_sql($elsewhere, "UPDATE $table SET nhs = '$A' WHERE id = 1"))[0], 0, "$table: another patient");
		is(held($table), $guard eq 'redact' ? '1A 2-' : '1A 2C', "$table: what it holds");
	}
};

# The server runs triggers for a foreign table and leaves its constraints to the
# server that holds the rows: a partition there has half a guard.
subtest 'a partition that is a foreign table' => sub {
	my $to_elsewhere = sprintf q{
		CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
		CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere}, $elsewhere->host, $elsewhere->port;
	$registry->safe_psql('postgres', $to_elsewhere);
	foreach my $guard (@guards)
	{
		my $table = "parted_$guard";
		my $far = "${table}_far";
		$elsewhere->safe_psql('postgres', "CREATE TABLE $far (id int, nhs text, note text, year int)");
		my $attach = "CREATE FOREIGN TABLE $far PARTITION OF $table FOR VALUES IN (2) SERVER elsewhere OPTIONS (batch_size '100')";
		my $guard_it = "SELECT ndrs_optout.guard_table('$table', 'nhs', '{cancer}', $guards{$guard})";
		$registry->safe_psql('postgres', qq{
			CREATE TABLE $table (id int, nhs text, note text, year int) PARTITION BY LIST (year);
			CREATE TABLE ${table}_near PARTITION OF $table FOR VALUES IN (1)});
		if ($guard eq 'constraint')
		{
			refused_with($registry, '42809', "BEGIN; $attach; $guard_it", 'the constraint alone is refused there');
			($attach, $guard_it) = ($guard_it, "SET ndrs_optout.allow_unguarded = on; $attach");
		}
		$registry->safe_psql('postgres', "$attach; $guard_it");
	}

	# With the trigger it holds ...
	my $values = join ', ', map { "($_->[0], '$_->[1]', 'note', 2)" } @rows;
	my $copy = join('', map { "$_->[0]\t$_->[1]\tnote\t2\n" } @rows) . "\\.\n";
	foreach my $guard (qw(reject skip redact))
	{
		my $table = "parted_$guard";
		foreach my $way ("INSERT INTO $table VALUES $values", "INSERT INTO ${table}_far VALUES $values",
			"COPY $table FROM STDIN;\n$copy", "COPY ${table}_far FROM STDIN;\n$copy")
		{
			my $name = "$guard, " . substr($way, 0, index($way, ' ', 12));
			my (undef, undef, $messages) = try_sql($registry, $way);
			is(sqlstate($messages), $all_in_one{$guard} eq '' ? '23N01' : '', "$name: SQLSTATE");
			is(held("${table}_far", server => $elsewhere), $all_in_one{$guard}, "$name: what arrives");
			$elsewhere->safe_psql('postgres', "DELETE FROM ${table}_far");
		}
		$registry->safe_psql('postgres', "INSERT INTO $table VALUES (1, '$C', 'note', 1), (2, '$C', 'note', 2)");
		foreach my $id (1, 2)
		{
			my (undef, undef, $messages) = try_sql($registry, "UPDATE $table SET nhs = '$X', year = 2 WHERE id = $id AND year = $id");
			is(sqlstate($messages), $guard eq 'redact' ? '' : '23N01', "$guard, UPDATE of row $id: SQLSTATE");
		}
		is(held($table), $guard eq 'redact' ? '1- 2-' : '1C 2C', "$guard, UPDATE: what it holds");
	}

	# ... and without it, it does not: doc/security.md says so.  The sentry refuses what comes later.
	refused_with($registry, 'ND050', "CREATE FOREIGN TABLE late PARTITION OF parted_$_ FOR VALUES IN (3) SERVER elsewhere",
		"$_: one that comes later is refused") foreach @guards;
	$registry->safe_psql('postgres', "INSERT INTO parted_constraint VALUES $values");
	is(held('parted_constraint_far', server => $elsewhere), '1A 2X 3B', 'NOT COVERED: a foreign partition that a superuser lets come later under mechanism "constraint"');
	like($registry->safe_psql('postgres', q{SELECT severity, relation, gap FROM ndrs_optout.guard_coverage()}),
		qr/^high\|parted_constraint_far\|guard_constraint_foreign_table/m, 'but told by guard_coverage()');
	$registry->safe_psql('postgres', qq{
		SET client_min_messages = error;
		SET ndrs_optout.allow_unguarded = on;
		ALTER TABLE parted_reject_far DISABLE TRIGGER ALL;
		INSERT INTO parted_reject VALUES (4, '$X', 'note', 2)});
	like(held('parted_reject_far', server => $elsewhere), qr/4X/, 'NOT COVERED: a foreign partition with its trigger disabled');
	$registry->safe_psql('postgres', qq{
		CREATE TABLE parent (id int, nhs text, note text, year int);
		SELECT ndrs_optout.guard_table('parent', 'nhs', '{cancer}');
		SET client_min_messages = error;
		SET ndrs_optout.allow_unguarded = on;
		CREATE FOREIGN TABLE child () INHERITS (parent) SERVER elsewhere OPTIONS (table_name 'parted_skip_far');
		INSERT INTO child VALUES (5, '$X', 'note', 2)});
	like(held('parent'), qr/5X/, 'NOT COVERED: a foreign table that a superuser lets become an INHERITS child');
	refused_with($registry, '42809', q{SELECT ndrs_optout.guard_table('parted_skip_far', 'nhs', '{rare_disease}')},
		'a foreign table by itself cannot be guarded');
};

# ------------------------------------------------------------------- pg_restore

# The old database has rows of everybody, and knows no guard.
subtest 'data of an old dump' => sub {
	$registry->safe_psql('postgres', 'CREATE DATABASE old');
	$registry->safe_psql('old', join ';', map {
		"CREATE TABLE restored_$_ (id int PRIMARY KEY, nhs text, note text);
		 INSERT INTO restored_$_ VALUES " . join(', ', map { "($_->[0], '$_->[1]', 'note')" } @rows) } @guards);
	run_program('pg_dump', '-Fc', '-f', "$directory/old.copy", 'old');
	run_program('pg_dump', '-Fc', '--inserts', '-f', "$directory/old.inserts", 'old');
	create_guarded('restored');

	# --disable-triggers is refused by the sentry; where a superuser lets it pass, it
	# leaves the constraint, which can only reject.
	local $ENV{PGOPTIONS} = '-c ndrs_optout.allow_unguarded=on';
	my %tries = (
		'COPY' => [ "$directory/old.copy", [], \%all_in_one ],
		'INSERTs' => [ "$directory/old.inserts", [], \%one_by_one ],
		'COPY, --disable-triggers' =>
		  [ "$directory/old.copy", ['--disable-triggers'], { map { ($_ => '') } @guards } ],
		'INSERTs, --disable-triggers' =>
		  [ "$directory/old.inserts", ['--disable-triggers'], { map { ($_ => '1A 3B') } @guards } ]);
	foreach my $try (sort keys %tries)
	{
		my ($dump, $options, $expected) = @{ $tries{$try} };
		foreach my $guard (@guards)
		{
			my $table = "restored_$guard";
			my ($status, $messages) = run_program('pg_restore', '--data-only', @$options, '-t', $table, '-d', 'postgres', $dump);
			my $passes = !@$options && $guard =~ /skip|redact/;
			ended_as_it_should("$guard, $try", !$passes, $status, $messages);
			is(held($table), $expected->{$guard}, "$guard, $try: what it holds");
			$registry->safe_psql('postgres', "TRUNCATE $table");
		}
	}
};

# A dump of a guarded database from before the opt-out
subtest 'a full dump' => sub {
	$registry->safe_psql('postgres', 'CREATE DATABASE before');
	install_extension($registry, 'before');
	create_guarded('full', database => 'before');
	$registry->safe_psql('before', "INSERT INTO full_$_ VALUES (1, '$A', 'note'), (2, '$X', 'note'), (3, '$B', 'note')")
	  foreach @guards;
	is((run_program('pg_dump', '-Fc', '-f', "$directory/full.dump", 'before'))[0], 0, 'dumped');

	# Into the database itself, as it is today: what is there already stays.
	my $is_excluded = "SELECT ndrs_optout.is_excluded('$X', 'cancer')";
	$registry->safe_psql('before', "SELECT ndrs_optout.exclude('$X', '{cancer}')");
	$registry->safe_psql('before', "TRUNCATE full_$_") foreach @guards;
	run_program('pg_restore', '-d', 'before', "$directory/full.dump");
	is($registry->safe_psql('before', $is_excluded), 't', 'over what is there: the list stays');
	is(held("full_$_", database => 'before'), $all_in_one{$_}, "over what is there, $_: what it holds") foreach @guards;

	# --clean would drop the guarded tables, and with the extension the list.
	run_program('pg_restore', '--clean', '--if-exists', '-d', 'before', "$directory/full.dump");
	is($registry->safe_psql('before', $is_excluded), 't', '--clean: guarded tables are not dropped, so the list stays');
	is(held('full_skip', database => 'before'), '1A 1A 3B 3B', '--clean: the patient is not back');

	# Into a database that has the list and no tables yet: pg_restore brings the rows
	# before the guard.  The README's way after a restore finds them.
	$registry->safe_psql('postgres', 'CREATE DATABASE fresh');
	install_extension($registry, 'fresh');
	$registry->safe_psql('fresh', "SELECT ndrs_optout.exclude('$X', '{cancer}')");
	run_program('pg_restore', '-d', 'fresh', "$directory/full.dump");
	is($registry->safe_psql('fresh', $is_excluded), 't', 'into an empty database: the list stays');
	foreach my $guard (@guards)
	{
		is(held("full_$guard", database => 'fresh'), '1A 2X 3B', "NOT COVERED: a full dump into an empty database, $guard");
		refused_with($registry, '23N01', "UPDATE full_$guard SET note = 'changed'",
			"$guard: then the guard is there", database => 'fresh')
		  unless $guard eq 'redact';
	}
	$registry->safe_psql('fresh', q{
		SELECT count(e) FROM (SELECT DISTINCT ndrs_optout.guard_number(nhs) AS number FROM full_skip
				WHERE ndrs_optout.guard_matches(nhs, '{cancer}')) AS p,
			ndrs_optout.erase(p.number, '{cancer}') AS e});
	is(held("full_$_", database => 'fresh'), $_ eq 'redact' ? '1A 2- 3B' : '1A 3B', "the README's way after a restore: $_")
	  foreach @guards;
};

# ----------------------------------------------------------- logical replication

# What replication.pl has not: guards other than skip at the first copy, partitions,
# the binary form, streamed transactions, updates that bring the number.
my $connection = $elsewhere->connstr . ' dbname=postgres';

sub source
{
	my ($sql) = @_;
	$elsewhere->safe_psql('postgres', $sql);
	return;
}

sub publish
{
	my ($table, $options) = @_;
	source("CREATE PUBLICATION $table FOR TABLE $table WITH (publish_via_partition_root = true)");
	$registry->safe_psql('postgres',
		"CREATE SUBSCRIPTION $table CONNECTION '$connection' PUBLICATION $table WITH ($options)");
	return;
}

sub wait_for_refusal
{
	my ($start, $name) = @_;
	my $found = eval { $registry->wait_for_log(qr/row of an excluded patient may not enter/, $start); 1 };
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($found, $name);
}

create_guarded('first');
foreach my $guard (@guards)
{
	subtest "logical replication, $guard" => sub {
		my $table = "first_$guard";
		my $refusing = $all_in_one{$guard} eq '';
		my $start = -s $registry->logfile;

		# The first copy
		source("CREATE TABLE $table (id int PRIMARY KEY, nhs text, note text);
			INSERT INTO $table VALUES " . join(', ', map { "($_->[0], '$_->[1]', 'note')" } @rows));
		publish($table, 'binary = true');
		if ($refusing)
		{
			wait_for_refusal($start, 'the first copy: the worker stops with an error');
			is(held($table), '', 'the first copy: nothing comes in');
			source("DELETE FROM $table WHERE id = 2");
		}
		$registry->wait_for_subscription_sync($elsewhere, $table);
		is(held($table), $refusing ? '1A 3B' : $all_in_one{$guard}, 'the first copy: what the table holds at last');

		# Rows that follow
		my $before = held($table);
		$start = -s $registry->logfile;
		source("INSERT INTO $table VALUES (4, '$C', 'note'), (5, '$X', 'note'), (6, '$C', 'note')");
		if ($refusing)
		{
			wait_for_refusal($start, 'INSERT: the worker stops with an error');
			is(held($table), $before, 'INSERT: nothing comes in');

			# The way on: skip this transaction.
			my ($lsn) = slurp_file($registry->logfile, $start) =~ /finished at ([0-9A-F]+\/[0-9A-F]+)/;
			$registry->safe_psql('postgres', "ALTER SUBSCRIPTION $table SKIP (lsn = '$lsn')");
			source("INSERT INTO $table VALUES (7, '$A', 'note')");
		}
		$elsewhere->wait_for_catchup($table);
		is(held($table), $before . ($refusing ? ' 7A' : $guard eq 'skip' ? ' 4C 6C' : ' 4C 5- 6C'),
			'INSERT: what the table holds at last');

		# A number that is changed into the patient's
		$before = held($table);
		$start = -s $registry->logfile;
		source("UPDATE $table SET nhs = '$X' WHERE id = 1");
		if ($guard eq 'redact')
		{
			$elsewhere->wait_for_catchup($table);
			is(held($table), $before =~ s/1A/1-/r, 'UPDATE: the number is not there');
		}
		else
		{
			wait_for_refusal($start, 'UPDATE: the worker stops with an error');
			is(held($table), $before, 'UPDATE: nothing changes');
		}
		$registry->safe_psql('postgres', "DROP SUBSCRIPTION $table");
	};
}

subtest 'logical replication, into partitions and streamed' => sub {
	my $columns = 'CREATE TABLE streamed (id int, nhs text, note text, year int)';
	source("$columns; INSERT INTO streamed VALUES (1, '$A', 'note', 1), (2, '$X', 'note', 2), (3, '$B', 'note', 2);
		ALTER TABLE streamed REPLICA IDENTITY FULL");
	$registry->safe_psql('postgres', qq{
		$columns PARTITION BY LIST (year);
		CREATE TABLE streamed_1 PARTITION OF streamed FOR VALUES IN (1);
		CREATE TABLE streamed_2 (year int, note text, nhs text, id int);
		ALTER TABLE streamed ATTACH PARTITION streamed_2 FOR VALUES IN (2);
		SELECT ndrs_optout.guard_table('streamed', 'nhs', '{cancer}', on_match => 'skip')});
	publish('streamed', 'streaming = on');
	$registry->wait_for_subscription_sync($elsewhere, 'streamed');
	is(held('streamed'), '1A 3B', 'the first copy');

	# More than logical_decoding_work_mem: it travels before it commits.
	source(qq{
		BEGIN;
		INSERT INTO streamed SELECT 10 + i, CASE WHEN i % 100 = 0 THEN '$X' ELSE '$C' END, 'note', 1 + i % 2
			FROM generate_series(1, 5000) AS i;
		UPDATE streamed SET year = 2 WHERE id = 1;
		COMMIT});
	$elsewhere->wait_for_catchup('streamed');
	is($registry->safe_psql('postgres', qq{
			SELECT count(*), count(*) FILTER (WHERE nhs = '$X'), (SELECT year FROM streamed WHERE id = 1) FROM streamed}),
		'4952|0|2', 'a streamed transaction');
	isnt($elsewhere->safe_psql('postgres', q{SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = 'streamed'}),
		0, 'which was streamed');
	$registry->safe_psql('postgres', 'DROP SUBSCRIPTION streamed');
};

$_->stop foreach $registry, $elsewhere;
done_testing();
