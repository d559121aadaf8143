# Everything at once, by chance: no row of an excluded patient slips past.
#
# The hazard: each race that is known has a test of its own.  This one
# looks for the others.  Loaders write in every way that the server has; officers
# open cases, carry them out, withdraw and refuse them, and opt patients in again;
# a clerk records releases and asks who has opted out nationally; a DBA changes
# tables, guards them anew, sweeps and purges.  All the while sessions are cancelled
# and killed, prepared transactions linger, one backend gets a SIGKILL, and the whole
# server dies once.
#
# What must hold from the moment when a case was carried out until the patient opts in:
# the registers' tables hold no row of the patient.  It is counted in plain SQL, by
# the digits of the number and by ids that are made from the patient, so that a child
# is recognised whose parent is gone.  The other way round, rows of bystanders, whom
# no officer touches, and of those who have opted in again, are all there in the end.
#
# When it is over, the extension's own tables are held against an HMAC of Perl's.
#
#   STORM_SECONDS  how long (by default 40)
#   STORM_SEED     repeats what every worker does; not how they meet in time
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use Digest::SHA qw(hmac_sha256_hex);
use MortalSession;
use OptoutServer;
use POSIX qw(_exit WNOHANG);
use PostgreSQL::Test::Utils;
use StormyRegistry;
use Test::More;
use Time::HiRes qw(sleep time);

my $SEED = $ENV{STORM_SEED} // int rand 2**31;
my $SECONDS = $ENV{STORM_SECONDS} // 40;
my $LOADERS = 5;
my $OFFICERS = 3;
my $AGAIN = "STORM_SEED=$SEED STORM_SECONDS=$SECONDS";
note $AGAIN;

my $KEY = random_key();
my $server = new_server('storm', key => $KEY, settings => q{
max_prepared_transactions = 50
deadlock_timeout = 200ms
restart_after_crash = on
track_commit_timestamp = on
log_statement = none
log_min_error_statement = panic
log_error_verbosity = terse
log_line_prefix = '%e|%a|'
});
# The server's own errors, in the loaders' statements, would show these; privacy_guard.pl looks at ours.
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
# clean => tables that may hold no row of it; cases => its open ones; kept => ids in
# table patient that must stay, since they came after the patient had opted in
my %held;
my @HELD = qw(registers clean cases kept);

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
	my @kept = sort keys %{ $held{$patient}{kept} };
	my @sql = map { leftovers_sql($_, $patient) } @tables;

	# Whom no register holds, no request that waits for its reply names.
	push @sql, "SELECT '= request ' || check_id FROM ndrs_optout.national_check_part WHERE numbers @> '{$NUMBER[$patient]}'"
	  if @tables == keys %TABLE;
	push @sql, map { "SELECT '= lost $_' WHERE NOT EXISTS (SELECT FROM patient WHERE id = $_)" } @kept;
	return unless @sql;
	my (undef, @rows) = insist($session, join ' UNION ALL ', @sql);
	die join("\n", "of patient $patient there is, or is not, $when at " . gmtime . ':', @rows) . "\n" if @rows;
	$TALLY{recounts}++;
	return;
}

sub excluded_from
{
	my ($patient, @registers) = @_;
	$held{$patient}{registers}{$_} = 1 foreach @registers;
	return;
}

# Without a case, as the database's owner could.
sub readmit
{
	my ($session, $patient, @registers) = @_;
	delete $held{$patient}{registers}{$_} foreach @registers;
	delete $held{$patient}{clean}{$_} foreach tables_of(@registers);
	insist($session, sprintf q{SELECT ndrs_optout.readmit('%s', '{%s}')}, $NUMBER[$patient], join ',', @registers);
	$TALLY{readmitted}++;
	return;
}

# From then on nothing may be erased.  An answer that was lost leaves a case behind, by
# which the next try learns of it.
sub opt_in
{
	my ($session, $loader, $patient, @registers) = @_;
	my ($state, $case) = insist($session, sprintf(q{SELECT '= ' || ndrs_optout.opt_in('%s', '{%s}')},
		$NUMBER[$patient], join ',', @registers), '23505');
	if ($state eq '23505')
	{
		($case) = $session->{messages} =~ /It is case (\d+)\./;
		my (undef, $kind) = insist($session, "SELECT '= ' || kind FROM ndrs_optout.case_progress WHERE case_id = $case");
		return if $kind eq 'opt_out';
	}
	delete $held{$patient}{registers}{$_} foreach @registers;
	delete $held{$patient}{clean}{$_} foreach tables_of(@registers);
	insist($session, "SELECT ndrs_optout.complete_case($case)");
	$TALLY{opted_in}++;
	return if $held{$patient}{registers}{cancer};

	my $id = new_id($patient);
	my ($stored) = insist($loader,
		"INSERT INTO patient VALUES ($id, '$NUMBER[$patient]', 1, '" . name_of($patient) . "')", '23505');
	$held{$patient}{kept}{$id} = 1;
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

# The case's registers.  With two sessions, one takes over from the other.  False when
# the time was up.
sub carry_out
{
	my ($case, $patient, @sessions) = @_;
	my (undef, $registers) = insist($sessions[0],
		"SELECT '= ' || array_to_string(registers, ',') FROM ndrs_optout.case_progress WHERE case_id = $case");
	my $done = 0;

	until ($done)
	{
		return 0 if time > $deadline;
		delete $held{$patient}{kept} if $registers =~ /cancer/;
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
	return $registers;
}

sub opt_out
{
	my ($session, $other, $patient, @registers) = @_;
	my $case = case_for($session, $patient, @registers);
	return end_early($session, $patient, $case) if chance(0.15);
	my ($together, $too_late) = (chance(0.2), chance(0.1));
	my $registers = carry_out($case, $patient, $session, $together ? $other : ()) or return;

	# A patient who is readmitted before the letter gets none, and the case stays
	# open.
	readmit($session, $patient, split /,/, $registers) if $too_late;
	my ($state) = insist($session, "SELECT ndrs_optout.complete_case($case)", $too_late ? 'ND021' : ());
	die "case $case was completed although its patient was readmitted\n" if $too_late && $state eq '';
	delete $held{$patient}{cases}{$case} unless $too_late;
	return;
}

# An applicant thinks again, or is not the patient.  Of a case that has gone too far,
# nothing becomes.
sub end_early
{
	my ($session, $patient, $case) = @_;
	my $how = pick("withdraw_case($case)", "refuse_case($case, 'no proof')");
	insist($session, "SELECT ndrs_optout.$how", 'ND021');
	my (undef, $state) = insist($session, "SELECT '= ' || state FROM ndrs_optout.case_progress WHERE case_id = $case");
	return unless $state =~ /withdrawn|refused/;
	delete $held{$patient}{cases}{$case};
	$TALLY{ended_early}++;
	return;
}

# A patient who is excluded while a COPY runs is not let in by the rest of it.
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
	delete $held{$patient}{kept};
	ask($copier, 'BEGIN');
	start_asking($copier, "\\copy $table (" . columns_of($table) . ") FROM PROGRAM 'cat $first;"
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

# Whose rows are there still, a sweep is about to erase: it must not take those that come
# after the patient has opted in again.
sub exclude_and_opt_in
{
	my ($session, $loader, $patient) = @_;
	exclude_under_a_copy($session, $patient);
	my @registers = sort keys %{ $held{$patient}{registers} };
	return if chance(0.4);
	sleep rand 0.4;
	return opt_in($session, $loader, $patient, @registers);
}

# ND030: a row came in between the deletion and the recount; 25000: above READ COMMITTED
sub erase_by_itself
{
	my ($session, $patient, @registers) = @_;
	my $registers = join ',', @registers;
	my $isolation = pick('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE');
	return roll_back($session) unless succeeds(alive($session), "BEGIN ISOLATION LEVEL $isolation");
	delete $held{$patient}{kept};
	my ($state) = ask($session, "SELECT FROM ndrs_optout.erase('$NUMBER[$patient]', '{$registers}')");
	check_state($session, $state, 'ND030', $isolation eq 'READ COMMITTED' ? () : '25000');
	roll_back($session) unless succeeds($session, pick('COMMIT', 'COMMIT', 'ROLLBACK'));
	return;
}

sub officer_step
{
	my ($session, $other, $loader, @patients) = @_;
	my $patient = $patients[ @patients * rand()**2 ];
	my @registers = @{ pick(['cancer'], ['rare_disease'], [ 'cancer', 'rare_disease' ]) };
	my $what = rand;

	recount($session, $patient, 'later');
	if (!%{ $held{$patient}{registers} // {} })
	{
		return exclude_and_opt_in($session, $loader, $patient) if $what < 0.25;
		return erase_by_itself($session, $patient, @registers) if $what < 0.35;
	}
	elsif ($what < 0.4)
	{
		my @left = grep { $held{$patient}{registers}{$_} } @registers;
		return opt_in($session, $loader, $patient, @left) if @left;
	}
	return opt_out($session, $other, $patient, @registers);
}

# --------------------------------------------------------- releases and checks

# ND041: a patient has opted out.  What was surely recorded goes into a ledger.
sub release
{
	my ($session) = @_;
	my %patients = map { $_ => 1 } map { chance(0.7) ? any_owned() : any_bystander() } 1 .. 1 + rand 4;
	my @patients = sort { $a <=> $b } keys %patients;
	my $registers = pick('cancer', 'rare_disease', 'cancer,rare_disease');
	my ($state, $release) = ask(alive($session), sprintf q{SELECT '= ' || ndrs_optout.record_release('{%s}'::ndrs_optout.nhs_number[], 'legal_requirement', '{%s}',
		'institute', current_date, 'storm', NULL)},
		join(',', map { $NUMBER[$_] } @patients), $registers);
	check_state($session, $state, 'ND041');
	$TALLY{released}++ if $state eq '';
	print {$ledger} join("\t", 'r', 'release', $release, $registers, @patients), "\n" if $state eq '';
	return;
}

# 22023: nobody to ask about; ND021, P0002: purged; ND040: erased from the request meanwhile
sub national_check
{
	my ($session) = @_;
	my $from = pick(qw(patient pathology specimen));
	my ($state, $check) = ask(alive($session),
		"SELECT '= ' || ndrs_optout.start_national_check('SELECT nhs_number FROM public.$from')");
	check_state($session, $state, '22023');
	return if $state ne '';

	($state, my @lines) = ask($session, "SELECT '= ' || line FROM ndrs_optout.national_check_request($check) AS line");
	check_state($session, $state, 'ND021');
	sleep rand 0.2;
	my $reply = join ', ', map { "'$_'" } grep { chance(0.9) } @lines;
	($state) = ask($session, chance(0.8) ? "SELECT ndrs_optout.load_national_check($check, ARRAY[$reply]::text[])"
		: "SELECT ndrs_optout.cancel_national_check($check)");
	check_state($session, $state, qw(ND021 ND040));
	$TALLY{checked}++ if $state eq '';
	return;
}

sub clerk_step
{
	my ($session) = @_;
	chance(0.6) ? release($session) : national_check($session);
	sleep rand 0.1;
	return;
}

# ------------------------------------------------------------------------ DDL

# A partition that comes and goes.  Loaders do not write to it, but rows of patients
# who opt out are put into it while it is no part of the table.
sub partition_statements
{
	my @rows = map { row('visit', any_owned(), year => 4) } 1 .. 3;
	return pick(
		[ 'CREATE TABLE IF NOT EXISTS visit_4 (LIKE visit INCLUDING CONSTRAINTS)' ],
		[ 'INSERT INTO visit_4 ' . values_of('', @rows) ],
		[ 'ALTER TABLE visit ATTACH PARTITION visit_4 FOR VALUES IN (4)' ],
		[ 'ALTER TABLE visit ATTACH PARTITION visit_4 FOR VALUES IN (4)' ],
		[ 'ALTER TABLE visit DETACH PARTITION visit_4', 'DROP TABLE visit_4' ],
		[ 'DROP TABLE IF EXISTS visit_4' ]);
}

# Guarded anew in one transaction, the same
sub guard_statements
{
	my ($table, $registers, $how) = @{ pick(
		[ 'pathology', 'rare_disease', q{mechanism => 'constraint'} ],
		[ 'specimen', 'cancer,rare_disease', q{on_match => 'skip'} ]) };
	return [ "SELECT ndrs_optout.unguard_table('$table')",
		"SELECT ndrs_optout.guard_table('$table', 'nhs_number', '{$registers}', $how)" ];
}

sub column_statements
{
	my $table = pick(qw(patient specimen pathology));
	return pick([ "ALTER TABLE $table ADD COLUMN IF NOT EXISTS extra int DEFAULT 1" ],
		[ "ALTER TABLE $table DROP COLUMN IF EXISTS extra" ]);
}

# Not in a transaction block
sub lone_statement
{
	return pick('CREATE INDEX IF NOT EXISTS storm_index ON specimen (name)', 'DROP INDEX IF EXISTS storm_index',
		'CREATE INDEX CONCURRENTLY IF NOT EXISTS storm_index ON visit_1 (name)', 'DROP INDEX CONCURRENTLY IF EXISTS storm_index',
		'VACUUM patient, visit, tumour', 'VACUUM FULL visit_1', 'ANALYZE', 'REINDEX TABLE specimen',
		'ALTER TABLE letter ALTER parent_id SET STATISTICS 10');
}

# What the sentry must refuse
sub weakening
{
	return pick('ALTER TABLE patient DISABLE TRIGGER ALL', 'ALTER TABLE birth DROP CONSTRAINT ndrs_optout_guard_2',
		'DROP TRIGGER ndrs_optout_guard_2 ON consult', 'ALTER TABLE visit_2 DISABLE TRIGGER ndrs_optout_guard_2',
		'ALTER TABLE birth DROP COLUMN mother_name', 'ALTER TABLE specimen RENAME nhs_number TO other');
}

# 23N01: rows of an excluded patient are in it; 42P01, 42804, 42809: there is no such
# table, it is no partition, or one already, or has another shape; 0A000: the same, of
# one that is being made
sub ddl_step
{
	my ($session) = @_;
	ask(alive($session), "SET lock_timeout = '" . pick(100, 300) . "ms'");
	if (chance(0.2))
	{
		my $weakening = weakening();
		my ($state) = ask($session, $weakening);
		check_state($session, $state, 'ND050');
		die "$weakening: not refused\n" if $state eq '';
		$TALLY{weakenings_refused}++ if $state eq 'ND050';
	}
	elsif (chance(0.4))
	{
		my ($state) = ask($session, lone_statement());
		check_state($session, $state, qw(42P07 42704));
		$TALLY{changed_alone}++ if $state eq '';
	}
	else
	{
		my ($done, @statements) = (1, @{ pick(partition_statements(), partition_statements(), guard_statements(), column_statements()) });
		return roll_back($session) unless succeeds($session, 'BEGIN');
		foreach (@statements)
		{
			my ($state) = ask($session, $_);
			check_state($session, $state, qw(23N01 23505 42P01 42804 42809 0A000));
			$done = 0, last if $state ne '';
		}
		return roll_back($session) unless $done;
		$TALLY{changed}++ if succeeds($session, 'COMMIT');
	}
	sleep rand 0.2;
	return;
}

# 55006: the sweep of a session that was killed is not yet over
sub sweeper_step
{
	my ($session) = @_;
	ask(alive($session), "SET lock_timeout = '" . pick(100, 1000) . "ms'");
	my $purges = chance(0.2);
	my ($state) = ask($session, $purges ? 'SELECT FROM ndrs_optout.purge()' : 'CALL ndrs_optout.sweep()');
	check_state($session, $state, '55006');
	$TALLY{ $purges ? 'purged' : 'swept' }++ if $state eq '';
	sleep rand 0.1;
	return;
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
	my $victim = pick('loader_' . int rand $LOADERS, 'officer_' . int rand $OFFICERS, pick(qw(clerk architect sweeper)));
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
		my @parts = map { join ',', keys %{ $held{$patient}{$_} // {} } } @HELD;
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
create_stormy_registry($server);
my $gaps = q{SELECT gap, relation, object FROM ndrs_optout.guard_coverage()
	WHERE severity = 'high' AND relation::text <> 'visit_4' ORDER BY 1, 2, 3};
my $gaps_before = $server->safe_psql('postgres', $gaps);

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
	my $loader = new_session($server, "loader_of_officer_$number", 'loader');
	my @patients = grep { $_ % $OFFICERS == $number } 1 .. $LAST_OWNED;
	start_worker(sub { officer_step($session, $other, $loader, @patients) });
}
my $superuser = $server->safe_psql('postgres', 'SELECT current_user');
my %own = (
	clerk => [ 'officer', \&clerk_step ],
	architect => [ $superuser, \&ddl_step ],
	sweeper => [ $superuser, \&sweeper_step ]);
foreach my $name (sort keys %own)
{
	my ($role, $step) = @{ $own{$name} };
	my $session = new_session($server, $name, $role);
	start_worker(sub { $step->($session) });
}
$chaos = new_session($server, 'chaos', $superuser);
start_worker(sub { chaos_step($chaos) });

# One backend, in the middle of a statement; the others start again.
wait_for_workers($deadline - 3 / 4 * $SECONDS);
my $killed = $server->safe_psql('postgres', q{
	SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'loader_%' ORDER BY state = 'active' DESC, pid LIMIT 1});
kill 'KILL', $killed if $killed;
alive($chaos);

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
	@these{@HELD} = (split /:/, $line, -1)[ 2 .. 1 + @HELD ];
	$held{$patient}{$_} = { map { $_ => 1 } split /,/, $these{$_} } foreach keys %these;
}
isnt($killed, '', "a backend was killed ($AGAIN)");
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

my @kept = map { keys %{ $held{$_}{kept} // {} } } keys %held;
is($server->safe_psql('postgres', sprintf q{SELECT k.id FROM unnest('{%s}'::bigint[]) AS k (id)
		WHERE NOT EXISTS (SELECT FROM patient p WHERE p.id = k.id) LIMIT 5}, join ',', @kept),
	'', "no row was erased that came after its patient had opted in ($AGAIN)");
is($server->safe_psql('postgres', $gaps), $gaps_before, "every guard stands as it did ($AGAIN)");

# ---------------------------------------------- the extension's own, by another HMAC

my $key = pack 'H*', $KEY;
sub encoded { return substr hmac_sha256_hex($_[0], $key), 0, 32 }
my $coded = join ', ', map { sprintf "(%d, '%s', '{%s}'::text[])", $_, encoded($NUMBER[$_]),
		join ',', sort keys %{ $held{$_}{registers} // {} } } 1 .. $#NUMBER;
$server->safe_psql('postgres', qq{
	CREATE TABLE coded (patient, code, registers) AS VALUES $coded;
	CREATE VIEW listed AS
		SELECT e.register, c.patient, c.registers FROM ndrs_optout.exclusion e
			LEFT JOIN coded c ON c.code = e.encoded_nhs_number::text;
	CREATE TABLE handed_over (release_id bigint, registers text[], patients int[]);});
my $releases = $server->basedir . '/releases';
open my $file, '>', $releases or die "open $releases: $!";
foreach (map { split /\n/, slurp_file($_) } glob "$directory/ledger.*")
{
	my ($release, $registers, @patients) = /^r\trelease\t(.*)/ ? split /\t/, $1 : next;
	print {$file} "$release\t{$registers}\t{", join(',', @patients), "}\n";
}
close $file or die "close $releases: $!";
$server->safe_psql('postgres', "COPY handed_over FROM '$releases'");

is($server->safe_psql('postgres', q{
		SELECT 'unknown', register, patient FROM listed WHERE patient IS NULL OR NOT register = ANY (registers)
		UNION ALL
		SELECT 'not listed', r.register, c.patient FROM coded c, unnest(c.registers) AS r (register)
			WHERE NOT EXISTS (SELECT FROM listed l WHERE l.register = r.register AND l.patient = c.patient)}),
	'', "on the list is who has opted out, and nobody else ($AGAIN)");
is($server->safe_psql('postgres', q{
		SELECT o.case_id, c.patient, r.register FROM ndrs_optout.optout_case o
			JOIN coded c ON c.code = o.encoded_nhs_number::text, unnest(o.registers) AS r (register)
			WHERE o.kind = 'opt_out' AND o.state = 'completed'
				AND NOT EXISTS (SELECT FROM ndrs_optout.optout_case i
					WHERE i.kind = 'opt_in' AND i.encoded_nhs_number::text = c.code AND r.register = ANY (i.registers)
						AND i.carried_out_at > o.carried_out_at)
				AND NOT EXISTS (SELECT FROM listed l WHERE l.register = r.register AND l.patient = c.patient)}),
	'', "every completed opt-out without a later opt-in is on the list ($AGAIN)");
is($server->safe_psql('postgres', q{
		SELECT count(*) FROM ndrs_optout.optout_case o WHERE NOT EXISTS (SELECT FROM coded c WHERE c.code = o.encoded_nhs_number::text)}),
	'0', "every case is a known patient's ($AGAIN)");
is($server->safe_psql('postgres', q{
		SELECT h.release_id, c.patient, o.case_id FROM handed_over h
			JOIN ndrs_optout.release r USING (release_id)
			JOIN coded c ON c.patient = ANY (h.patients)
			JOIN ndrs_optout.optout_case o ON o.encoded_nhs_number::text = c.code AND o.registers && h.registers
				AND o.kind = 'opt_out' AND o.state IN ('carried_out', 'completed')
			WHERE CASE WHEN r.recorded_at < o.carried_out_at
				THEN NOT EXISTS (SELECT FROM ndrs_optout.recall_notice n JOIN ndrs_optout.optout_case k USING (case_id)
					WHERE n.release_id = h.release_id AND k.encoded_nhs_number::text = c.code)
				ELSE EXISTS (SELECT FROM ndrs_optout.exclusion e WHERE e.encoded_nhs_number::text = c.code
					AND e.register = ANY (h.registers) AND e.register = ANY (o.registers)
					AND e.excluded_at < o.carried_out_at) END}),
	'', "who was handed over before opting out is recalled, and who has opted out is not handed over ($AGAIN)");
is($server->safe_psql('postgres', q{
		SELECT * FROM handed_over h WHERE NOT EXISTS (SELECT FROM ndrs_optout.release r
			WHERE r.release_id = h.release_id AND r.patient_count = cardinality(h.patients))}),
	'', "every release that was answered for is on record ($AGAIN)");
is($server->safe_psql('postgres', 'SELECT * FROM ndrs_optout.verify_audit()'), '', "the audit verifies ($AGAIN)");
is($server->safe_psql('postgres', q{
		SELECT case_id FROM ndrs_optout.case_certificate WHERE NOT ndrs_optout.verify_certificate(certificate)
		UNION ALL
		SELECT case_id FROM ndrs_optout.optout_case o WHERE kind = 'opt_out' AND state = 'completed'
			AND NOT EXISTS (SELECT FROM ndrs_optout.case_certificate k WHERE k.case_id = o.case_id)}),
	'', "every completed case has a certificate that verifies ($AGAIN)");

# ---------------------------------------------------------------- loaders' ledger

my $present = join ' UNION ALL ', map { "SELECT '$_', id FROM $_ WHERE id >= " . ($LAST_OWNED + 1) * $PER_PATIENT }
  sort keys %TABLE;
is( $server->safe_psql('postgres', join '',
		'CREATE TABLE ledger (fate text, relation text, id bigint);',
		(map { qq{COPY ledger FROM PROGRAM 'grep -v "^r" $_ || true';} } glob "$directory/ledger.*"),
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
	$shown{crash} //= $line if $line =~ /PANIC|TRAP|terminated by signal/ && $line !~ /\(PID $killed\) was terminated by signal 9\b/;
	$shown{$state} //= $line if shows_patient($line);
}
is(join(' ', sort keys %shown), '22P02', "the log shows no patient but that of the control ($AGAIN)")
  or diag(explain \%shown);

$TALLY{skipped} = $server->safe_psql('postgres', 'SELECT coalesce(sum(rows_skipped), 0) FROM ndrs_optout.guard_count');
note "$_: $TALLY{$_}" foreach sort keys %TALLY;
my %at_least = (
	committed => 50, prepared => 2, finished => 2, carried_out => 10, recounts => 10, opted_in => 2, ended_early => 1,
	released => 5, checked => 2, changed => 5, changed_alone => 2, weakenings_refused => 2, swept => 2, purged => 1,
	excluded_under_a_copy => 1, '23N01' => 20, skipped => 20, lost => 2);
cmp_ok($TALLY{$_} // 0, '>=', $at_least{$_}, "enough was going on: $_ ($AGAIN)") foreach sort keys %at_least;

SKIP:
{
	skip 'amcheck is not installed', 1
	  unless $server->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'});
	my ($status, $found, $messages) = $server->psql('postgres', q{
		SET client_min_messages = warning;
		DROP INDEX IF EXISTS storm_index;
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
