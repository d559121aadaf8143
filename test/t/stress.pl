# Everything at once, by chance: no row of an excluded patient slips past.
#
# The hazard: each race that somebody thought of has a test of its own.  This one
# looks for the others.  Loaders write in every way that the server has, officers
# opt patients out and readmit them, and meanwhile sessions are cancelled and
# killed, prepared transactions linger, and the whole server dies once.
#
# What must hold from the moment when a case was carried out until the patient is
# readmitted: the registers' tables hold no row of the patient.  It is counted in
# plain SQL, by the digits of the number and by ids that are made from the patient,
# so that a child is recognised whose parent is gone.  The other way round, the
# rows of bystanders, whom no officer touches, are all there in the end.
#
#   STRESS_SECONDS  how long (by default 40)
#   STRESS_SEED     repeats what every worker does; not how they meet in time
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use MortalSession;
use OptoutServer;
use POSIX qw(_exit WNOHANG);
use PostgreSQL::Test::Utils;
use StressedRegistry;
use Test::More;
use Time::HiRes qw(sleep time);

my $SEED = $ENV{STRESS_SEED} // int rand 2**31;
my $SECONDS = $ENV{STRESS_SECONDS} // 40;
my $LOADERS = 5;
my $OFFICERS = 3;
my $AGAIN = "STRESS_SEED=$SEED STRESS_SECONDS=$SECONDS";
note $AGAIN;

my $server = new_server('stress', settings => q{
max_prepared_transactions = 50
deadlock_timeout = 200ms
track_commit_timestamp = on
log_statement = none
log_min_error_statement = panic
log_error_verbosity = terse
log_line_prefix = '%e|%a|'
});
# The server's own errors, in the loaders' statements, would show these; leaks.pl looks at ours.
my $directory = PostgreSQL::Test::Utils::tempdir();
my $deadline;    # when workers begin nothing more
my $worker = 0;    # which one this process is; 0: none

# ------------------------------------------------------------------- loaders

my $ledger;

# 23N01: excluded; 23503: the parent is gone; 23505: another loader has the id
sub write_rows
{
	my ($session, @statements) = @_;
	foreach my $statement (@statements)
	{
		my ($state, @rows) = ask($session, $statement);
		check_state($session, $state, qw(23N01 23503 23505));
		return $state if $state ne '';
		push @WRITTEN, grep { /\t(\d+)/ && is_bystander(int $1 / $PER_PATIENT) } @rows;
	}
	return '';
}

# After the end of a transaction that should commit: its rows are there ("c"), or
# nobody knows ("u").
sub note_rows
{
	my ($state) = @_;
	return if $state ne '' && $state ne 'lost';
	my $fate = $state eq '' ? 'c' : 'u';
	print {$ledger} "$fate\t$_\n" foreach @WRITTEN;
	$TALLY{committed}++ if $state eq '';
	return;
}

sub loader_step
{
	my ($session, $step) = @_;
	alive($session);
	@WRITTEN = ();

	if (chance(0.2))
	{
		note_rows(write_rows($session, any_statement($directory)));
		return;
	}

	my $isolation = pick('READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE');
	return roll_back($session) unless succeeds($session, "BEGIN ISOLATION LEVEL $isolation");
	foreach (1 .. 1 + rand 4)
	{
		my ($savepoint, $undo) = (chance(0.4), chance(0.3));
		my @before = @WRITTEN;
		return roll_back($session) if $savepoint && !succeeds($session, 'SAVEPOINT s');

		my $state = write_rows($session, chance(0.2) ? family() : any_statement($directory));
		if ($savepoint)
		{
			$undo = 1 if $state ne '';
			return roll_back($session) unless succeeds($session, $undo ? 'ROLLBACK TO s' : 'RELEASE s');
			@WRITTEN = @before if $undo;
		}
		elsif ($state ne '')
		{
			return roll_back($session);
		}
		sleep pick(0, 0, 0, rand 0.03, rand 0.2);
	}
	end_transaction($session, $step);
	return;
}

# A prepared transaction's name tells how it ends.
sub end_transaction
{
	my ($session, $step) = @_;
	my $how = pick(('COMMIT') x 8, 'ROLLBACK', 'PREPARE');
	my $commits = $how eq 'COMMIT' || $how eq 'PREPARE' && chance(0.6);
	my $name = join '_', $worker, $step, $commits ? 'commit' : 'rollback';

	my ($state) = ask($session, $how eq 'PREPARE' ? "PREPARE TRANSACTION '$name'" : $how);
	check_state($session, $state);
	$TALLY{prepared}++ if $how eq 'PREPARE' && $state eq '';
	note_rows($state) if $commits;
	roll_back($session) if $state ne '';
	return;
}

# ------------------------------------------------------------------ officers

# Of each patient of this officer: registers => that it is surely excluded from;
# clean => tables that may hold no row of it; cases => its open ones
my %held;

# Tables that serve one of these registers
sub tables_of
{
	my %these = map { $_ => 1 } @_;
	return grep { grep { $these{$_} } @{ $TABLE{$_}{registers} } } sort keys %TABLE;
}

# The recount
sub leftovers_sql
{
	my ($table, @patients) = @_;
	my %columns = digit_columns($table);
	my $numbers = join ', ', map { "'$NUMBER[$_]'" } @patients;
	my $names = join ', ', map { "'" . name_of($_) . "'" } @patients;
	my @conditions = @patients == 1 ? range_of(@patients) : "id / $PER_PATIENT IN (" . join(', ', @patients) . ')';

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
	$TALLY{recounts}++;
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
	delete $held{$patient}{clean}{$_} foreach tables_of(@registers);
	insist($session, sprintf q{SELECT ndrs_optout.readmit('%s', '{%s}')}, $NUMBER[$patient], join ',', @registers);
	$TALLY{readmitted}++;
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
		check_state($sessions[$_], $states[$_]) foreach 0 .. $#states;
		$done = !grep { $_ ne '' } @states;
	}
	$TALLY{carried_out}++;

	excluded_from($patient, split /,/, $registers);
	foreach my $table (tables_of(split /,/, $registers))
	{
		# What serves another register too is kept.
		next if grep { !$held{$patient}{registers}{$_} } @{ $TABLE{$table}{registers} };
		$held{$patient}{clean}{$table} = 1;
	}
	recount($sessions[0], $patient, "after carry_out of case $case");
	return 1;
}

sub opt_out
{
	my ($session, $other, $patient, @registers) = @_;
	my $case = case_for($session, $patient, @registers);
	my ($together, $too_late) = (chance(0.2), chance(0.1));
	carry_out($case, $patient, $session, $together ? $other : ()) or return;

	# Whoever is readmitted before the letter gets none, and the case stays open.
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
	my $copier = alive(new_session($server, "copier_$worker", 'loader'));
	my $go = "$directory/go.$worker";
	my $first = write_batch("$directory/first.$worker", map { row($table, any_bystander(), year => 2) } 1 .. 1500);
	my $second = write_batch("$directory/second.$worker", map { row($table, $patient, year => 2) } 1 .. 3);

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
	check_state($copier, $state, '23N01');
	my (undef, @rows) = $state eq '' ? ask($copier, "SELECT '= ' || id FROM $table WHERE " . rows_written_here($patient)) : ();
	die "a COPY into $table brought in patient $patient, who had been excluded: @rows\n" if @rows;
	$TALLY{excluded_under_a_copy}++ if $state eq '' || $state eq '23N01';
	end_session($copier);
	return;
}

# ND030: a row came in between the deletion and the recount
sub erase_by_itself
{
	my ($session, $patient, @registers) = @_;
	my $registers = join ',', @registers;
	my $isolation = pick('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE');
	return roll_back($session) unless succeeds(alive($session), "BEGIN ISOLATION LEVEL $isolation");
	my ($state) = ask($session, "SELECT FROM ndrs_optout.erase('$NUMBER[$patient]', '{$registers}')");
	check_state($session, $state, 'ND030');
	roll_back($session) unless succeeds($session, pick('COMMIT', 'COMMIT', 'ROLLBACK'));
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
		$TALLY{finished}++ if $state eq '';
	}
	return;
}

sub chaos_step
{
	my ($session) = @_;
	alive($session);
	finish_prepared($session, 0.5);
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
	$worker++;
	my $pid = fork // die "fork: $!";
	if ($pid)
	{
		push @workers, $pid;
		return;
	}

	open $ledger, '>', "$directory/ledger.$worker" or _exit(2);
	my $steps = 0;
	my $done = eval {
		until (time > $deadline || -e "$directory/stop" || getppid != $parent)
		{
			begin_step($SEED, $worker, ++$steps);
			$step->($steps);
		}
		1;
	};
	open my $report, '>', "$directory/report.$worker" or _exit(2);
	print {$report} 'failed: ', "worker $worker, step $steps: $@" =~ s/\n(?=.)/ | /gr, "\n" unless $done;
	print {$report} "tally: $TALLY{$_} $_\n" foreach keys %TALLY;
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

install_extension($server);
create_stressed_registry($server);

$SIG{PIPE} = 'IGNORE';    # a session may be lost
$deadline = time + $SECONDS;
give_up_at($deadline + 60);
foreach my $number (0 .. $LOADERS - 1)
{
	my $session = new_session($server, "loader_$number", 'loader');
	start_worker(sub { loader_step($session, @_) });
}
foreach my $number (0 .. $OFFICERS - 1)
{
	my ($session, $other) = map { new_session($server, $_, 'officer') } "officer_$number", "other_officer_$number";
	my @patients = grep { $_ % $OFFICERS == $number } 1 .. $LAST_OWNED;
	start_worker(sub { officer_step($session, $other, @patients) });
}
$chaos = new_session($server, 'chaos', $server->safe_psql('postgres', 'SELECT current_user'));
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
	$TALLY{$2} += $1 if $line =~ /^tally: (\d+) (.*)/;
	my ($patient, %these) = $line =~ /^held:(\d+):/ or next;
	@these{qw(registers clean cases)} = (split /:/, $line, -1)[ 2 .. 4 ];
	$held{$patient}{$_} = { map { $_ => 1 } split /,/, $these{$_} } foreach keys %these;
}
is(join("\n", @failed), '', "no worker met anything that may not be ($AGAIN)");

# What was left in the middle comes to its end.
$deadline = time + 120;
give_up_at($deadline);
finish_prepared(alive($chaos), 1);
my $officer = new_session($server, 'last_officer', 'officer');
my $ended = eval {
	foreach my $patient (sort { $a <=> $b } keys %held)
	{
		my $this = $held{$patient};
		case_for($officer, $patient, 'cancer') if $this->{registers}{cancer} && !$this->{clean}{birth};
		carry_out($_, $patient, $officer) or die "case $_: $officer->{messages}\n" foreach sort keys %{ $this->{cases} };
	}
	1;
};
ok($ended, "every open case is carried out ($AGAIN)") or diag($@);

# Without indexes, in case that one is wrong
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

# Nothing may show anything, but a control that proves that the search finds it.
$server->psql('postgres', "SELECT 'control 9990000093'::int");
my ($state, $name, %shown) = ('', '');
foreach my $line (split /\n/, slurp_file($server->logfile))
{
	($state, $name) = ($1, $2) if $line =~ /^(\w{5})\|([^|]*)\|/;
	$shown{crash} //= $line if $line =~ /PANIC|TRAP|terminated by signal/;
	$shown{$state} //= $line if shows_patient($line);
}
is(join(' ', sort keys %shown), '22P02', "the log shows no patient but that of the control ($AGAIN)")
  or diag(explain \%shown);

$TALLY{skipped} = $server->safe_psql('postgres', 'SELECT coalesce(sum(rows_skipped), 0) FROM ndrs_optout.guard_count');
note "$_: $TALLY{$_}" foreach sort keys %TALLY;
my %at_least = (
	committed => 50, prepared => 2, finished => 2, carried_out => 10, recounts => 10, readmitted => 2,
	excluded_under_a_copy => 1, 23N01 => 20, skipped => 20, lost => 2);
cmp_ok($TALLY{$_} // 0, '>=', $at_least{$_}, "enough was going on: $_ ($AGAIN)") foreach sort keys %at_least;

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
