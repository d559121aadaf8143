# Everything at once, by chance: no row of an excluded patient slips past.
#
# The hazard: each race that somebody thought of has a test of its own.  This one
# looks for the others.  Loaders write in every way that the server has, officers
# opt patients out and readmit them, and meanwhile sessions are cancelled and
# killed, prepared transactions linger, and the whole server dies once.
#
# What must hold whenever a case was carried out, until the patient is readmitted:
# no table that is clean (below) holds a row of the patient.  It is counted in plain
# SQL, by the digits of the number and by ids that are made from the patient, so
# that a child is recognised whose parent is gone.  The other way round, the rows
# of bystanders, whom no officer touches, are all there in the end.
#
#   STRESS_SECONDS  how long (by default 40)
#   STRESS_SEED     repeats what every worker does; not how they meet in time
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use Digest::MD5 qw(md5);
use IPC::Open3 qw(open3);
use OptoutServer;
use POSIX qw(_exit WNOHANG);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $SEED = $ENV{STRESS_SEED} // int rand 2**31;
my $SECONDS = $ENV{STRESS_SECONDS} // 40;
my $LOADERS = 5;
my $OFFICERS = 3;
my $AGAIN = "STRESS_SEED=$SEED STRESS_SECONDS=$SECONDS";
note $AGAIN;

# ------------------------------------------------------------------ patients

# A patient is an index of this array.
my @NUMBER = (undef, test_numbers(200));
my $LAST_OWNED = 160;    # an officer's; those behind are bystanders
my $PER_PATIENT = 1e9;    # ids of patient 7: 7000000000 and up
my $HOT = 3;    # the first ids of a patient are those that loaders fight for

sub name_of
{
	my ($patient) = @_;
	return 'Zebedee' . (sprintf '%03d', $patient) =~ tr/0-9/a-j/r;
}

sub is_bystander { return $_[0] > $LAST_OWNED }

# Nobody else makes the same id: the serial holds the worker.
my ($worker_number, $serial) = (0, 0);

sub new_id
{
	my ($patient, $ids) = @_;
	$serial += $ids // 1;
	return $patient * $PER_PATIENT + $worker_number * 1e7 + 1e3 + $serial - ($ids // 1);
}

# -------------------------------------------------------------------- chance

sub pick { return $_[ rand @_ ] }
sub chance { return rand() < $_[0] }

# A redacted row is written anew, which the guard refuses while the baby is
# excluded and not yet erased.  So that somebody's turn always comes, an owned
# baby's mother has a higher number.
sub mother_of
{
	my ($baby) = @_;
	return is_bystander($baby) ? any_owned() : $baby + 1 + int rand($LAST_OWNED + 1 - $baby);
}

# What a worker does next depends on its seed and on how many steps it has
# made, not on how these ended.
sub seed_step
{
	my ($step) = @_;
	srand unpack 'L', md5($SEED + $worker_number . "/$step");
	return;
}

# Some patients are in everybody's way.
sub any_owned { return 1 + int $LAST_OWNED * rand()**2 }
sub any_patient { return chance(0.75) ? any_owned() : any_bystander() }
sub any_bystander { return $LAST_OWNED + 1 + int rand($#NUMBER - $LAST_OWNED) }

# ------------------------------------------------------------------ registry

# registers: whose; type: of the NHS number, if there is one; rejects: a
# statement fails for one excluded patient.
my %TABLE = (
	patient => { registers => ['cancer'], type => 'text', rejects => 1 },
	visit => { registers => ['cancer'], type => 'bigint' },
	consult => { registers => ['cancer'], type => 'ndrs_optout.nhs_number', rejects => 1 },
	birth => { registers => ['cancer'], type => 'text', rejects => 1 },
	pathology => { registers => ['rare_disease'], type => 'numeric', rejects => 1 },
	specimen => { registers => [ 'cancer', 'rare_disease' ], type => 'varchar' },
	tumour => { registers => ['cancer'], parent => 'patient' },
	regimen => { registers => ['cancer'], parent => 'tumour' },
	drug => { registers => ['cancer'], parent => 'regimen' },
	letter => { registers => ['cancer'], parent => 'patient' });
my @NUMBERED = grep { $TABLE{$_}{type} } sort keys %TABLE;
my @CHILDREN = grep { $TABLE{$_}{parent} } sort keys %TABLE;
my @YEARS = 2021 .. 2024;
my $FULL_WIDTH = join '', map { "\xEF\xBC" . chr(0x90 + $_) } 0 .. 9;

# The digits in a column, without help of the extension
sub digits
{
	my ($column, $type) = @_;
	return $type =~ /text|varchar/
	  ? "regexp_replace(translate($column, '$FULL_WIDTH', '0123456789'), '[^0-9]', '', 'g')"
	  : "lpad($column\:\:text, 10, '0')";
}

# Columns that can be compared so, with their types
sub digit_columns
{
	my ($table) = @_;
	my %columns;
	$columns{nhs_number} = $TABLE{$table}{type} if ($TABLE{$table}{type} // 'ndrs') !~ /ndrs/;
	$columns{mother_number} = 'text' if $table eq 'birth';
	return %columns;
}

sub create_stressed_registry
{
	my ($server) = @_;
	my $columns = 'nhs_number %s, year int, name text';
	my $sql = join '', map { sprintf "CREATE TABLE $_ (id bigint PRIMARY KEY, $columns);\n", $TABLE{$_}{type} }
	  grep { $_ ne 'visit' } @NUMBERED;

	$sql .= sprintf "CREATE TABLE visit (id bigint, $columns, PRIMARY KEY (id, year)) PARTITION BY LIST (year);\n",
	  $TABLE{visit}{type};
	$sql .= "CREATE TABLE visit_$_ PARTITION OF visit FOR VALUES IN ($_);\n" foreach @YEARS[ 0 .. 2 ];
	$sql .= q{
		CREATE TABLE consult_archive (PRIMARY KEY (id)) INHERITS (consult);
		ALTER TABLE birth ADD mother_number text, ADD mother_name text;
		CREATE TABLE tumour (id bigint PRIMARY KEY, parent_id bigint NOT NULL REFERENCES patient);
		CREATE TABLE regimen (id bigint PRIMARY KEY, parent_id bigint NOT NULL REFERENCES tumour);
		CREATE TABLE drug (id bigint PRIMARY KEY, parent_id bigint REFERENCES regimen ON DELETE RESTRICT);
		CREATE TABLE letter (id bigint PRIMARY KEY, parent_id bigint);
		SELECT ndrs_optout.declare_reference('letter', '{parent_id}', 'patient', '{id}');

		SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}');
		SELECT ndrs_optout.guard_table('visit', 'nhs_number', '{cancer}', on_match => 'skip');
		SELECT ndrs_optout.guard_table('consult', 'nhs_number', '{cancer}');
		SELECT ndrs_optout.guard_table('birth', 'nhs_number', '{cancer}');
		SELECT ndrs_optout.guard_table('birth', 'mother_number', '{cancer}', on_match => 'redact',
			redact_columns => '{mother_name}');
		SELECT ndrs_optout.guard_table('pathology', 'nhs_number', '{rare_disease}', mechanism => 'constraint');
		SELECT ndrs_optout.guard_table('specimen', 'nhs_number', '{cancer,rare_disease}', on_match => 'skip');
		CREATE TABLE visit_2024 PARTITION OF visit FOR VALUES IN (2024);
	};
	$sql .= "CREATE INDEX ON $_ (parent_id);\n" foreach @CHILDREN;
	foreach my $table (@NUMBERED)
	{
		my %columns = digit_columns($table);
		$sql .= "CREATE INDEX ON $table ((" . digits($_, $columns{$_}) . "));\n" foreach sort keys %columns;
	}
	$sql .= "CREATE INDEX ON $_ (nhs_number);\n" foreach qw(visit consult consult_archive pathology);
	$sql .= "CREATE INDEX ON $_ (ndrs_optout.nhs_number_or_null(nhs_number));\n" foreach qw(patient birth specimen);
	$sql .= q{
		CREATE INDEX ON birth (ndrs_optout.nhs_number_or_null(mother_number));
		CREATE INDEX ON birth (mother_name);

		CREATE ROLE loader LOGIN;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO loader;
		CREATE ROLE officer LOGIN IN ROLE pg_monitor;
		GRANT SELECT ON ALL TABLES IN SCHEMA public TO officer;
		GRANT USAGE ON SCHEMA ndrs_optout TO officer;
		GRANT SELECT ON ndrs_optout.case_progress TO officer;
		GRANT EXECUTE ON ROUTINE ndrs_optout.open_case, ndrs_optout.record_identity, ndrs_optout.carry_out,
			ndrs_optout.case_exclude, ndrs_optout.case_certify, ndrs_optout.complete_case,
			ndrs_optout.exclude, ndrs_optout.readmit, ndrs_optout.erase TO officer;
		ALTER ROLE officer SET log_min_error_statement = panic;
	};
	$server->safe_psql('postgres', $sql);
	return;
}

# ------------------------------------------------------------------ sessions

my $server;
my $directory = PostgreSQL::Test::Utils::tempdir();
my $deadline;    # of the workers
my %tally;    # what a worker did, and with which end

sub start_session
{
	my ($name, $role) = @_;
	local $ENV{PGAPPNAME} = $name;

	my $pid = open3(my $in, my $out, undef, $server->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=verbose',
		'-d', $server->connstr('postgres') . " user=$role options='-c client_min_messages=warning'");
	$in->autoflush(1);
	return { name => $name, role => $role, pid => $pid, in => $in, out => $out, questions => 0 };
}

sub end_session
{
	my ($session) = @_;
	my $pid = delete $session->{pid} // return;
	close $session->{in};
	close $session->{out};
	waitpid $pid, 0;
	return;
}

# The session, connected (again) if need be
sub alive
{
	my ($session) = @_;
	until ($session->{pid})
	{
		die "no connection\n" if time > $deadline + 60;
		%$session = %{ start_session($session->{name}, $session->{role}) };
		my ($state) = ask($session, 'SELECT 1');
		sleep 0.1 if $state ne '';
	}
	return $session;
}

sub start_asking
{
	my ($session, $sql) = @_;
	my $end = $sql =~ /^\\/ ? '' : ';';
	$session->{questions}++;
	print { $session->{in} } "$sql$end\n\\echo . $session->{questions}\n";
	return;
}

# SQLSTATE ('' for success, 'lost' for a session that was ended), rows that begin with "= "
sub answer
{
	my ($session) = @_;
	my ($state, $fatal, $ended, @rows) = ('', '57P01', 1);

	$session->{messages} = '';
	while (defined(my $line = readline $session->{out}))
	{
		$ended = 0, last if $line eq ". $session->{questions}\n";
		$session->{messages} .= $line;
		push @rows, $1 if $line =~ /^= (.*)$/;
		$state ||= $1 if $line =~ /^ERROR:  ([0-9A-Z]{5}):/;
		$fatal = $1 if $line =~ /^(?:FATAL|PANIC):  ([0-9A-Z]{5}):/;
	}
	if ($ended)
	{
		end_session($session);
		$state = $fatal =~ /^57P0/ ? 'lost' : $fatal;
	}
	$tally{$state}++ if $state;
	return ($state, @rows);
}

sub ask
{
	my ($session, $sql) = @_;
	return 'lost' unless $session->{pid};
	start_asking($session, $sql);
	return answer($session);
}

# What can happen to anybody: a conflict, a deadlock, a timeout, chaos
my %FATE = map { $_ => 1 } qw(40001 40P01 55P03 57014 lost);

# Any other SQLSTATE fails the test.
sub check_state
{
	my ($session, $state, @allowed) = @_;
	die "unexpected in $session->{name}: $session->{messages}\n"
	  unless $state eq '' || $FATE{$state} || grep { $_ eq $state } @allowed;
	return;
}

# Ask again and again, whatever its fate, until it succeeds or ends in one of
# these states.
sub insist
{
	my ($session, $sql, @allowed) = @_;
	while (time < $deadline + 60)
	{
		my ($state, @rows) = ask(alive($session), $sql);
		check_state($session, $state, @allowed);
		return ($state, @rows) unless $FATE{$state};
		sleep 0.05;
	}
	die "no success: $session->{messages}\n";
}

# ------------------------------------------------------------------- loaders

# What the transaction at hand wrote of bystanders: "table<tab>id"
my @written;
my $ledger;

# The columns of a row, as COPY and VALUES take them
sub row
{
	my ($table, $patient, %column) = @_;
	my $id = $column{id} // new_id($patient);
	my $number = $NUMBER[$patient];
	my @row = ($id, written_form($TABLE{$table}{type}, $number), $column{year} // pick(@YEARS), name_of($patient));

	if ($table eq 'birth')
	{
		my $mother = mother_of($patient);
		push @row, written_form('text', $NUMBER[$mother]), name_of($mother);
	}
	push @written, "$table\t$id" if is_bystander($patient);
	return \@row;
}

sub written_form
{
	my ($type, $number) = @_;
	return $number if $type !~ /text|varchar/ || chance(0.5);
	my $separator = pick(' ', '-', "\xC2\xA0");
	return pick($number =~ s/^(...)(...)/$1$separator$2$separator/r,
		$number =~ s/(\d)/substr $FULL_WIDTH, 3 * $1, 3/ger, " $number");
}

sub rows
{
	my ($table, $count, %column) = @_;
	my $owned = $TABLE{$table}{rejects} ? int rand 3 : $count;
	return map { row($table, $_ <= $owned ? any_patient() : any_bystander(), %column) } 1 .. $count;
}

# With a type for the number, when the table is not to give it
sub values_of
{
	my ($type, @rows) = @_;
	my $cast = $type ? "::$type" : '';
	return 'VALUES ' . join ', ', map {
		my ($id, $number, $year, @names) = @$_;
		"($id, '$number'$cast, $year, " . join(', ', map { "'$_'" } @names) . ')'
	} @rows;
}

sub range_of
{
	my ($patient, $column) = @_;
	return sprintf '%s BETWEEN %d AND %d', $column // 'id', $patient * $PER_PATIENT, ($patient + 1) * $PER_PATIENT - 1;
}

# Into a partition or a child directly, or from the top: (table, columns of its rows)
sub entrance
{
	my ($table) = @_;
	my $year = pick(@YEARS);
	return ("visit_$year", year => $year) if $table eq 'visit' && chance(0.4);
	return ('consult_archive') if $table eq 'consult' && chance(0.4);
	return ($table);
}

sub insert
{
	my $table = pick(@NUMBERED);
	my ($into, %column) = entrance($table);
	return "INSERT INTO $into " . values_of('', rows($table, pick(1, 1, 1 + rand 20), %column));
}

# Slowly, a row at a time
sub insert_select
{
	my $table = pick(grep { $_ ne 'consult' } @NUMBERED);
	my ($into, %column) = entrance($table);
	return "INSERT INTO $into SELECT * FROM ("
	  . values_of($TABLE{$table}{type}, rows($table, 1 + rand 30, %column))
	  . ') AS v WHERE pg_sleep(0.003) IS NOT NULL';
}

sub write_batch
{
	my ($name, @rows) = @_;
	my $path = "$directory/$name.$worker_number";
	open my $file, '>', $path or die "open $path: $!";
	print {$file} map { join("\t", @$_) . "\n" } @rows;
	close $file or die "close $path: $!";
	return $path;
}

sub copy
{
	my $table = pick(@NUMBERED);
	my ($into, %column) = entrance($table);
	my @rows = rows($table, chance(0.1) ? 1000 + rand 2000 : 5 + rand 100, %column);
	my $second = write_batch('second', splice @rows, @rows / 2);
	my $first = write_batch('first', @rows);
	my $pause = pick(0, 0, 0.1, 0.3);
	return "\\copy $into FROM PROGRAM 'cat $first; sleep $pause; cat $second'";
}

# Rows that others want as well
sub hot_rows
{
	my ($table) = @_;
	my %rows = map { $_ * $PER_PATIENT + int rand $HOT => $_ } map { any_patient() } 1 .. 1 + rand 3;
	return map { row($table, $rows{$_}, id => $_) } sort keys %rows;
}

sub upsert
{
	my $table = pick(qw(patient specimen));
	return "INSERT INTO $table " . values_of('', hot_rows($table))
	  . ' ON CONFLICT (id) DO UPDATE SET nhs_number = excluded.nhs_number, name = excluded.name';
}

sub merge
{
	my $table = pick(qw(patient specimen pathology));
	return "MERGE INTO $table AS t USING (" . values_of($TABLE{$table}{type}, hot_rows($table))
	  . ') AS s (id, nhs_number, year, name) ON t.id = s.id'
	  . ' WHEN MATCHED THEN UPDATE SET nhs_number = s.nhs_number, name = s.name'
	  . ' WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.nhs_number, s.year, s.name)';
}

# A row turns out to be another patient's.  One that letters may refer to does not:
# a reference that the schema does not know, the schema cannot keep.
sub change_number
{
	my $table = pick(@NUMBERED);
	my ($to, $from) = sort { $a <=> $b } any_owned(), any_owned();
	my $hot = $table eq 'patient' ? 'AND id % 1000000000 < ' . $HOT : '';
	return sprintf q{UPDATE %s SET id = %d, nhs_number = '%s', name = '%s'
		WHERE id = (SELECT id FROM %s WHERE %s %s ORDER BY id DESC LIMIT 1)},
	  $table, new_id($to), written_form($TABLE{$table}{type}, $NUMBER[$to]), name_of($to), $table, range_of($from), $hot;
}

sub change_mother
{
	my $baby = any_patient();
	my $mother = mother_of($baby);
	return sprintf q{UPDATE birth SET mother_number = '%s', mother_name = '%s' WHERE id IN
		(SELECT id FROM birth WHERE %s ORDER BY id DESC LIMIT 2)},
	  written_form('text', $NUMBER[$mother]), name_of($mother), range_of($baby);
}

# From partition to partition
sub change_year
{
	return sprintf q{UPDATE visit SET year = 2021 + (year - 2020) %% 4 WHERE id IN
		(SELECT id FROM visit WHERE %s ORDER BY id DESC LIMIT 3)}, range_of(any_patient());
}

# A patient with everything below.  Nothing but the transaction ties the letter to
# its patient, so it may come first.
sub family
{
	my $patient = any_patient();
	my %id = map { $_ => new_id($patient) } 'patient', @CHILDREN;
	my ($letter, @down) = map {
		push @written, "$_\t$id{$_}" if is_bystander($patient);
		"INSERT INTO $_ VALUES ($id{$_}, $id{ $TABLE{$_}{parent} })"
	} qw(letter tumour regimen drug);
	unshift @down, 'INSERT INTO patient ' . values_of('', row('patient', $patient, id => $id{patient}));
	return chance(0.5) ? ($letter, @down) : (@down, $letter);
}

# Children of what is there.  The loader must see to it itself that a letter's
# patient does not go meanwhile.
sub children
{
	my $table = pick(@CHILDREN);
	my $patient = any_patient();
	return sprintf q{INSERT INTO %s SELECT %d + row_number() OVER (), id FROM
		(SELECT id FROM %s WHERE %s AND id %% 1000000000 >= %d ORDER BY id DESC LIMIT 3 %s) AS p RETURNING '= %s' || E'\t' || id},
	  $table, new_id($patient, 10), $TABLE{$table}{parent}, range_of($patient),
	  $table eq 'letter' ? ($HOT, 'FOR KEY SHARE') : (0, ''), $table;
}

my @STATEMENTS = (
	\&insert, \&insert, \&insert_select, \&copy, \&copy, \&upsert, \&merge,
	\&change_number, \&change_mother, \&change_year, \&children, \&children);

# ND001: excluded; 23503: the parent is gone; 23505: another loader has the id
my @REFUSED = qw(ND001 23503 23505);

sub write_something
{
	my ($session, @statements) = @_;
	foreach my $statement (@statements)
	{
		my ($state, @rows) = ask($session, $statement);
		check_state($session, $state, @REFUSED);
		return $state if $state ne '';
		push @written, grep { /\t(\d+)/ && is_bystander(int $1 / $PER_PATIENT) } @rows;
	}
	return '';
}

# What was written is there ("c"), or may be ("u").
sub note_written
{
	my ($fate) = @_;
	print {$ledger} "$fate\t$_\n" foreach @written;
	$tally{committed}++ if $fate eq 'c';
	return;
}

sub loader_step
{
	my ($session, $step) = @_;
	alive($session);
	@written = ();

	if (chance(0.2))
	{
		my $state = write_something($session, pick(@STATEMENTS)->());
		note_written($state eq '' ? 'c' : 'u') if $state eq '' || $state eq 'lost';
		return;
	}

	ask($session, 'BEGIN ISOLATION LEVEL ' . pick('READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'));
	foreach (1 .. 1 + rand 4)
	{
		my $savepoint = chance(0.4);
		my @before = @written;
		ask($session, 'SAVEPOINT s') if $savepoint;
		my $state = write_something($session, chance(0.2) ? family() : pick(@STATEMENTS)->());
		return if $state eq 'lost';
		if ($savepoint)
		{
			my $undo = $state ne '' || chance(0.3);
			check_state($session, ask($session, $undo ? 'ROLLBACK TO s' : 'RELEASE s'));
			@written = @before if $undo;
		}
		elsif ($state ne '')
		{
			check_state($session, ask($session, 'ROLLBACK'));
			return;
		}
		sleep pick(0, 0, rand 0.05, rand 0.3);
	}
	end_transaction($session, $step);
	return;
}

# A prepared transaction's name tells how it ends.
sub end_transaction
{
	my ($session, $step) = @_;
	my $how = pick(('COMMIT') x 7, 'ROLLBACK', 'PREPARE', 'PREPARE');
	my $commits = $how eq 'COMMIT' || $how eq 'PREPARE' && chance(0.6);
	my $name = join '_', $worker_number, $step, $commits ? 'commit' : 'rollback';

	my ($state) = ask($session, $how eq 'PREPARE' ? "PREPARE TRANSACTION '$name'" : $how);
	check_state($session, $state);
	$tally{prepared}++ if $how eq 'PREPARE' && $state eq '';
	note_written($state eq '' ? 'c' : 'u') if $commits && ($state eq '' || $state eq 'lost');
	check_state($session, ask($session, 'ROLLBACK')) if $state ne '' && $state ne 'lost';
	return;
}

# ------------------------------------------------------------------ officers

# Of each patient of this officer: registers => those that it is surely excluded
# from; clean => tables that may hold no row of it; cases => those that are open.
my %held;

sub covers
{
	my ($some, @of) = @_;
	my %these = map { $_ => 1 } @of;
	return !grep { !$these{$_} } @$some;
}

sub touches
{
	my ($some, @of) = @_;
	my %these = map { $_ => 1 } @of;
	return grep { $these{$_} } @$some;
}

# The recount
sub leftovers_sql
{
	my ($table, @patients) = @_;
	my %columns = digit_columns($table);
	my $numbers = join ', ', map { "'$NUMBER[$_]'" } @patients;
	my $names = join ', ', map { "'" . name_of($_) . "'" } @patients;
	my @conditions = @patients == 1 ? range_of(@patients) : 'id / 1000000000 IN (' . join(', ', @patients) . ')';

	push @conditions, map { digits($_, $columns{$_}) . " IN ($numbers)" } sort keys %columns;
	push @conditions, "mother_name IN ($names)" if $table eq 'birth';
	return "SELECT format('= %s %s, committed by %s at %s', tableoid::regclass, id, xmin, pg_xact_commit_timestamp(xmin))"
	  . " FROM $table WHERE " . join ' OR ', @conditions;
}

sub recount
{
	my ($session, $patient, $when) = @_;
	my @tables = sort keys %{ $held{$patient}{clean} };
	return unless @tables;
	my (undef, @rows) = insist($session, join ' UNION ALL ', map { leftovers_sql($_, $patient) } @tables);
	die join("\n", "rows of excluded patient $patient are there $when at " . gmtime . ':', @rows) . "\n" if @rows;
	$tally{recounts}++;
	return;
}

sub excluded_from
{
	my ($patient, @registers) = @_;
	$held{$patient}{registers}{$_} = 1 foreach @registers;
	return;
}

sub readmit
{
	my ($session, $patient, @registers) = @_;
	delete $held{$patient}{registers}{$_} foreach @registers;
	delete $held{$patient}{clean}{$_} foreach grep { touches($TABLE{$_}{registers}, @registers) } keys %TABLE;
	insist($session, sprintf q{SELECT ndrs_optout.readmit('%s', '{%s}')}, $NUMBER[$patient], join ',', @registers);
	$tally{readmitted}++;
	return;
}

# The patient's open case, else a new one; with proofs, whatever happened before
sub case_for
{
	my ($session, $patient, @registers) = @_;
	my ($state, $case) = insist($session, sprintf(q{SELECT '= ' || ndrs_optout.open_case('%s', '{%s}')},
		$NUMBER[$patient], join ',', @registers), '23505');

	($case) = $session->{messages} =~ /It is case (\d+)\./ if $state eq '23505';
	$held{$patient}{cases}{$case} = 1;
	insist($session, "SELECT ndrs_optout.record_identity($case, '$_->[0]', '$_->[1]')", 'ND021')
	  foreach [ 'identity', 'passport' ], [ 'address', 'bank_statement' ];
	return $case;
}

# With two sessions, one takes over from the other.  False when the time was up,
# or a baby's turn comes first.
sub carry_out
{
	my ($case, $patient, @sessions) = @_;
	my (undef, $registers) = insist($sessions[0],
		"SELECT '= ' || array_to_string(registers, ',') FROM ndrs_optout.case_progress WHERE case_id = $case");
	my $done = 0;

	until ($done)
	{
		return 0 if time > $deadline;
		ask(alive($_), "SET lock_timeout = '" . pick(0, 0, 50, 500) . "ms'") foreach @sessions;
		start_asking(alive($_), "CALL ndrs_optout.carry_out($case, '$NUMBER[$patient]')") foreach @sessions;

		# Each has its own way from the beginning to the end of the case.
		my @states = map { (answer($_))[0] } @sessions;
		return 0 if grep { $states[$_] eq 'ND001' && $sessions[$_]{messages} =~ /table "birth"/ } 0 .. $#states;
		check_state($sessions[$_], $states[$_]) foreach 0 .. $#states;
		$done = !grep { $_ ne '' } @states;
	}
	$tally{carried_out}++;

	excluded_from($patient, split /,/, $registers);
	foreach my $table (keys %TABLE)
	{
		my $of = $TABLE{$table}{registers};
		$held{$patient}{clean}{$table} = 1
		  if touches($of, split /,/, $registers) && covers($of, keys %{ $held{$patient}{registers} });
	}
	recount($sessions[0], $patient, "after carry_out of case $case");
	return 1;
}

sub opt_out
{
	my ($session, $other, $patient, @registers) = @_;
	my $case = case_for($session, $patient, @registers);
	carry_out($case, $patient, $session, chance(0.2) ? $other : ()) or return;

	# Whoever is readmitted before the letter gets none, and the case stays open.
	my $too_late = chance(0.1);
	readmit($session, $patient, qw(cancer rare_disease)) if $too_late;
	my ($state) = insist($session, "SELECT ndrs_optout.complete_case($case)", $too_late ? 'ND021' : ());
	die "case $case was completed although its patient was readmitted\n" if $too_late && $state eq '';
	delete $held{$patient}{cases}{$case} unless $too_late;
	return;
}

# Whoever is excluded while a COPY runs is not let in by the rest of it.
sub exclude_under_a_copy
{
	my ($session, $patient) = @_;
	my $table = pick(qw(visit consult pathology));
	my ($register) = @{ $TABLE{$table}{registers} };
	my $copier = alive({ name => "copier_$worker_number", role => 'loader' });
	my $go = "$directory/go.$worker_number";
	my ($first, $second) = (
		write_batch('first', map { row($table, any_bystander(), year => 2022) } 1 .. 1500),
		write_batch('second', map { row($table, $patient, year => 2022) } 1 .. 3));

	unlink $go;
	ask($copier, 'BEGIN');
	start_asking($copier, "\\copy $table FROM PROGRAM 'cat $first;"
		  . " for i in \$(seq 500); do test -e $go && break; sleep 0.02; done; cat $second'");
	foreach (1 .. 100)
	{
		my (undef, $rows) = ask(alive($session), qq{SELECT '= ' || tuples_processed
			FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid) WHERE application_name = '$copier->{name}'});
		last if $rows;
		sleep 0.02;
	}
	insist($session, "SELECT ndrs_optout.exclude('$NUMBER[$patient]', '{$register}')");
	excluded_from($patient, $register);
	append_to_file($go, '');

	my ($state) = answer($copier);
	check_state($copier, $state, 'ND001');
	my (undef, @rows) = ask($copier, "SELECT '= ' || id FROM $table WHERE " . range_of($patient)
		  . " AND id % 1000000000 / 10000000 = $worker_number") if $state eq '';
	die "a COPY into $table brought in patient $patient, who had been excluded: @rows\n" if @rows;
	$tally{excluded_under_a_copy}++ if $state eq '' || $state eq 'ND001';
	end_session($copier);
	return;
}

# ND030: a row came in between the deletion and the recount
sub erase_by_itself
{
	my ($session, $patient, @registers) = @_;
	my $registers = join ',', @registers;
	ask(alive($session), 'BEGIN ISOLATION LEVEL ' . pick('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'));
	my ($state) = ask($session, "SELECT FROM ndrs_optout.erase('$NUMBER[$patient]', '{$registers}')");
	check_state($session, $state, 'ND030');
	($state) = ask($session, pick('COMMIT', 'COMMIT', 'ROLLBACK'));
	check_state($session, $state);
	return;
}

sub officer_step
{
	my ($session, $other, @patients) = @_;
	my $patient = $patients[ @patients * rand()**2 ];
	my @registers = @{ pick(['cancer'], ['rare_disease'], [ 'cancer', 'rare_disease' ]) };
	my $what = rand;

	recount($session, $patient, 'later');
	if (!%{ $held{$patient}{registers} // {} })
	{
		return exclude_under_a_copy($session, $patient) if $what < 0.2;
		return erase_by_itself($session, $patient, @registers) if $what < 0.3;
	}
	elsif ($what < 0.4)
	{
		return readmit($session, $patient, @registers);
	}
	return opt_out($session, $other, $patient, @registers);
}

# --------------------------------------------------------------------- chaos

# 42704, 55000: it was finished, or its session is ending, since it was looked for
sub finish_prepared
{
	my ($session, $share) = @_;
	my (undef, @names) = ask($session, q{SELECT '= ' || gid FROM pg_prepared_xacts ORDER BY prepared});
	foreach my $name (@names)
	{
		next unless chance($share);
		my $how = $name =~ /commit/ ? 'COMMIT' : 'ROLLBACK';
		my ($state) = ask($session, "$how PREPARED '$name'");
		check_state($session, $state, '42704', '55000');
		$tally{finished}++ if $state eq '';
	}
	return;
}

sub chaos_step
{
	my ($session) = @_;
	alive($session);
	finish_prepared($session, 0.3);
	my $how = pick(('pg_terminate_backend', 'pg_cancel_backend'), (undef) x 8);
	my $victim = chance(0.5) ? 'loader_' . int rand $LOADERS : 'officer_' . int rand $OFFICERS;
	ask($session, "SELECT $how(pid) FROM pg_stat_activity WHERE application_name = '$victim'") if $how;
	sleep 0.05 + rand 0.2;
	return;
}

# ------------------------------------------------------------------- workers

my @workers;
my $parent = $$;
my $chaos;    # the session of a superuser

END
{
	kill 'TERM', @workers if $$ == $parent;
}

# Repeats the step until the time is up or somebody failed; then leaves a report:
# why it failed, what it counted, what it holds.
sub start_worker
{
	my ($step) = @_;
	$worker_number++;
	my $pid = fork // die "fork: $!";
	if ($pid)
	{
		push @workers, $pid;
		return;
	}

	open $ledger, '>', "$directory/ledger.$worker_number" or _exit(2);
	my $steps = 0;
	my $done = eval {
		until (time > $deadline || -e "$directory/stop" || getppid != $parent)
		{
			seed_step($steps++);
			$step->($steps);
		}
		1;
	};
	open my $report, '>', "$directory/report.$worker_number" or _exit(2);
	print {$report} 'failed: ', "worker $worker_number, step $steps: $@" =~ s/\n(?=.)/ | /gr, "\n" unless $done;
	print {$report} "tally: $tally{$_} $_\n" foreach keys %tally;
	foreach my $patient (keys %held)
	{
		my @parts = map { join ',', keys %{ $held{$patient}{$_} // {} } } qw(registers clean cases);
		print {$report} join(':', 'held', $patient, @parts), "\n";
	}
	close $report or _exit(2);
	close $ledger or _exit(2);
	open my $stop, '>', "$directory/stop" unless $done;
	_exit($done ? 0 : 1);
}

sub wait_for_workers
{
	my ($until) = @_;
	while (@workers && time < $until)
	{
		@workers = grep { waitpid($_, WNOHANG) == 0 } @workers;
		finish_prepared(alive($chaos), 1) if time > $deadline || -e "$directory/stop";
		sleep 0.1;
	}
	return !@workers;
}

# Whether a line of the log holds a patient's number, in any written form, or name
sub shows_patient
{
	my ($line) = @_;
	$line =~ s/\xEF\xBC([\x90-\x99])/chr(ord($1) - 0x90 + ord '0')/ge;
	return $line =~ /(?<!\d)999(?:[ -]|\xC2\xA0)?\d{3}(?:[ -]|\xC2\xA0)?\d{4}(?!\d)|Zebedee[a-j]{3}/;
}

# ------------------------------------------------------------------ the test

$server = new_server('stress', settings => q{
max_prepared_transactions = 50
deadlock_timeout = 200ms
track_commit_timestamp = on
log_statement = none
log_line_prefix = '%e|%a|'
});
install_extension($server);
create_stressed_registry($server);

$SIG{PIPE} = 'IGNORE';    # a session may be lost
$deadline = time + $SECONDS;
foreach my $number (0 .. $LOADERS - 1)
{
	my $session = { name => "loader_$number", role => 'loader' };
	start_worker(sub { loader_step($session, @_) });
}
foreach my $number (0 .. $OFFICERS - 1)
{
	my ($session, $other) = map { { name => $_, role => 'officer' } } "officer_$number", "officer_${number}_again";
	my @patients = grep { $_ % $OFFICERS == $number } 1 .. $LAST_OWNED;
	start_worker(sub { officer_step($session, $other, @patients) });
}
$chaos = { name => 'chaos', role => $server->safe_psql('postgres', 'SELECT current_user') };
start_worker(sub { chaos_step($chaos) });

wait_for_workers($deadline - $SECONDS / 2);
kill_server($server);
$server->start;

# Late by what a slow machine needs, and officers to come to an end
ok(wait_for_workers($deadline + 120), "every worker came to its end ($AGAIN)")
  or diag($server->safe_psql('postgres', 'SELECT application_name, state, wait_event, query FROM pg_stat_activity'));

my @failed;
foreach my $line (map { split /\n/, slurp_file($_) } glob "$directory/report.*")
{
	push @failed, $1 if $line =~ /^failed: (.*)/;
	$tally{$2} += $1 if $line =~ /^tally: (\d+) (.*)/;
	my ($patient, %these) = $line =~ /^held:(\d+):/ or next;
	@these{qw(registers clean cases)} = (split /:/, $line, -1)[ 2 .. 4 ];
	$held{$patient}{$_} = { map { $_ => 1 } split /,/, $these{$_} } foreach keys %these;
}
is(join("\n", @failed), '', "no worker met anything that may not be ($AGAIN)");

# What was left in the middle comes to its end.
$deadline = time + 120;
finish_prepared(alive($chaos), 1);
my $officer = alive({ name => 'last_officer', role => 'officer' });
my $ended = eval {
	foreach my $patient (sort { $a <=> $b } keys %held)
	{
		my %this = %{ $held{$patient} };
		case_for($officer, $patient, 'cancer') if $this{registers}{cancer} && !$this{clean}{birth};
		carry_out($_, $patient, $officer) or die "case $_: $officer->{messages}\n" foreach sort keys %{ $this{cases} };
	}
	1;
};
ok($ended, "every open case is carried out ($AGAIN)") or diag($@);

# Without indexes, for these may be wrong
my $recount = 'SET enable_indexscan = off; SET enable_bitmapscan = off;';
foreach my $table (sort keys %TABLE)
{
	my @patients = grep { $held{$_}{clean}{$table} } sort keys %held;
	$recount .= leftovers_sql($table, @patients) . ";\n" if @patients;
}
is($server->safe_psql('postgres', $recount), '', "no row of an excluded patient is there ($AGAIN)");

my $present = join ' UNION ALL ', map { "SELECT '$_', id FROM $_ WHERE id >= " . ($LAST_OWNED + 1) * $PER_PATIENT }
  sort keys %TABLE;
is( $server->safe_psql('postgres', join '',
		'CREATE TABLE ledger (fate text, relation text, id bigint);',
		(map { "COPY ledger FROM '$_';" } glob "$directory/ledger.*"),
		"CREATE VIEW present (relation, id) AS $present;",
		q{(SELECT 'lost', relation, id FROM ledger WHERE fate = 'c'
			EXCEPT SELECT 'lost', * FROM present) LIMIT 5;
		(SELECT 'unknown', * FROM present
			EXCEPT SELECT 'unknown', relation, id FROM ledger) LIMIT 5;}),
	'', "every row of a bystander is there, and no other ($AGAIN)");

# An error of the server's own may show the statement of a loader (and of another
# one's in a deadlock): nothing else may show anything.
$server->psql('postgres', "SELECT 'control $NUMBER[1]'::int");
my (%shown, $state, $name);
foreach my $line (split /\n/, slurp_file($server->logfile))
{
	($state, $name) = ($1, $2) if $line =~ /^(\w{5})\|([^|]*)\|/;
	next if $state !~ /^ND/ && ($name =~ /^(loader|copier)/ || $state eq '40P01');
	$shown{$state} //= $line if shows_patient($line);
	$shown{crash} //= $line if $line =~ /PANIC|TRAP|terminated by signal/;
}
is(join(' ', sort keys %shown), '22P02', "the log shows no patient but that of the control ($AGAIN)")
  or diag(explain \%shown);

$tally{skipped} = $server->safe_psql('postgres', 'SELECT sum(rows_skipped) FROM ndrs_optout.guard_count');
note "$_: $tally{$_}" foreach sort keys %tally;
my %at_least = (
	committed => 50, prepared => 2, finished => 2, carried_out => 10, recounts => 10, readmitted => 2,
	excluded_under_a_copy => 1, ND001 => 20, skipped => 20, lost => 2);
cmp_ok($tally{$_} // 0, '>=', $at_least{$_}, "enough was going on: $_ ($AGAIN)") foreach sort keys %at_least;

SKIP:
{
	skip 'amcheck is not installed', 1
	  unless $server->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'});
	my ($status, $found, $messages) = $server->psql('postgres', q{
		CREATE EXTENSION amcheck;
		SELECT c.relname, v.* FROM pg_class c, LATERAL verify_heapam(c.oid) AS v
			WHERE c.relkind = 'r' AND c.relnamespace IN ('public'::regnamespace, 'ndrs_optout'::regnamespace);
		SELECT FROM pg_class c, LATERAL bt_index_check(c.oid, true)
			WHERE c.relkind = 'i' AND c.relnamespace IN ('public'::regnamespace, 'ndrs_optout'::regnamespace)
				AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree');});
	is("$found$messages", '', "tables and indexes are sound ($AGAIN)");
}

$server->stop;
done_testing();
