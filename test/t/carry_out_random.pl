# Cases of patients in registries by chance, which their owners may have damaged: whatever
# was done, a case that is carried out has left nothing of its patient, and a case that was
# refused has changed nothing.
#
# What is left is counted by plain SQL in every table of the database, which asks neither
# the catalogues of the extension nor any of its functions.  RANDOM_SEED repeats a run, and
# RANDOM_ROUNDS says how many rounds it takes; without that, it takes what 20 seconds allow.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use List::Util qw(shuffle sum0);
use OptoutServer;
use RandomRegistry;
use Test::More;

my $seed = $ENV{RANDOM_SEED} // time;
my $until = time + 20;
note "RANDOM_SEED=$seed";

my $server = new_server('carry_out_random', settings => "jit = off\nfsync = off\n");
$server->safe_psql('postgres', $_) foreach 'CREATE DATABASE pristine', 'CREATE ROLE registry_a', 'CREATE ROLE registry_b';
install_extension($server, 'pristine');
$server->safe_psql('pristine', q{
	CREATE FUNCTION public.all_rows(OUT relation text, OUT content text) RETURNS SETOF record LANGUAGE plpgsql AS $$
	DECLARE this regclass;
	BEGIN
		FOR this IN SELECT c.oid FROM pg_catalog.pg_class c
			WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND c.relnamespace <> 'ndrs_optout'::regnamespace
				AND c.relnamespace::regnamespace::text !~ '^pg_toast'
			ORDER BY c.oid
		LOOP
			RETURN QUERY EXECUTE format('SELECT %L::text, t::text FROM ONLY %s AS t', this, this);
		END LOOP;
	END $$});

sub sql { return $server->safe_psql('random', "SET client_min_messages = warning; $_[0]") }

# Every row that there is: "table row" => how often
sub all_rows
{
	my %rows;
	$rows{$_}++ foreach split /\n/, sql(q{SELECT relation || ' ' || content FROM public.all_rows()});
	return \%rows;
}

# Rows of one hash that the other has not, by their number
sub missing
{
	my ($these, $those) = @_;
	return [ grep { $these->{$_} > ($those->{$_} // 0) } sort keys %$these ];
}

# A row that stays, without what may be cut in it: a reference to a row that is gone, and
# the number where it is another patient's row
sub without_references
{
	my ($row, $patient) = @_;
	my $number = number_of($patient);
	return $row =~ s/(?<=,)(?:$patient\d{6}|$number)(?=[,)])//gr;
}

sub open_case
{
	my ($patient) = @_;
	my $case = sql("SELECT ndrs_optout.open_case('" . number_of($patient) . "', '{cancer}')");
	sql("SELECT ndrs_optout.record_identity($case, 'identity', 'passport'), ndrs_optout.record_identity($case, 'address', 'utility_bill')");
	return $case;
}

# How many rows the case says that it has deleted
sub deleted_rows
{
	my ($case) = @_;
	return sql("SELECT coalesce(sum(row_count), 0) FROM ndrs_optout.case_erasure WHERE case_id = $case AND action = 'deleted'");
}

# What is wrong after a case was carried out: rows of the patient that are left, rows of
# others, or of nobody, that are gone, are others or are new
sub wrong_when_done
{
	my ($patient, $is_gone, $before, $after) = @_;
	my ($number, $mark) = (number_of($patient), mark_of($patient));
	my $stays = sub { my ($row) = @_; return $row !~ /m\dm/ || grep { !$is_gone->{$_} && $row =~ mark_of($_) } @PATIENTS };
	my @wrong = map { "left: $_" } grep { holds_number($_, $number) || /$mark/ && !$stays->($_) } sort keys %$after;
	my (%kept, %has);

	$kept{ without_references($_, $patient) } += $before->{$_} foreach grep { $stays->($_) } keys %$before;
	$has{ without_references($_, $patient) } += $after->{$_} foreach grep { $stays->($_) } keys %$after;
	push @wrong, map { "lost: $_" } @{ missing(\%kept, \%has) };
	# The history of what the erasure has changed in rows that stay
	push @wrong, map { "new: $_" } grep { !/^world\.(versions|\w+_history) / } @{ missing(\%has, \%kept) };
	return @wrong;
}

sub wrong_when_refused
{
	my ($before, $after) = @_;
	return ((map { "lost though refused: $_" } @{ missing($before, $after) }), map { "new though refused: $_" } @{ missing($after, $before) });
}

my (%tally, %is_gone);
my $erased = 0;

# Carry out: (done, messages, what is wrong)
sub carry_out
{
	my ($case, $patient, $world) = @_;
	my ($before, $said_before) = (all_rows(), deleted_rows($case));
	my (undef, undef, $messages) = try_sql($server, "CALL ndrs_optout.carry_out($case, '" . number_of($patient) . "')", database => 'random');
	my $after = all_rows();
	my $done = sql("SELECT state = 'carried_out' FROM ndrs_optout.optout_case WHERE case_id = $case") eq 't';

	return (0, $messages, wrong_when_refused($before, $after)) if !$done;
	$is_gone{$patient} = 1;
	my @wrong = wrong_when_done($patient, \%is_gone, $before, $after);
	# History is written and deleted again.
	if (!grep { $_->{history} } @{ $world->{tables} })
	{
		my ($said, $gone) = (deleted_rows($case) - $said_before, sum0(values %$before) - sum0(values %$after));
		push @wrong, "$gone rows are gone, and the case says $said" if $said != $gone;
	}
	return (1, $messages, @wrong);
}

# Damage the registry: how it went
sub do_damage
{
	my ($damage) = @_;
	# Of what left a table while the sentry was off, nothing tells that it was ever there.
	my $way = one_of('in sight', 'allowed', $damage->{name} =~ /detached|inherits/ ? () : 'out of sight');
	my $off = join '', map { "ALTER EVENT TRIGGER ndrs_optout_sentry_$_ DISABLE;" } qw(start end drop);
	my ($status, undef, $messages) = try_sql($server,
		  ($way eq 'allowed' ? 'SET ndrs_optout.allow_unguarded = on;' : $way eq 'out of sight' ? $off : '')
		  . "SET client_min_messages = error; BEGIN; $damage->{sql} COMMIT;",
		database => 'random');
	sql($off =~ s/DISABLE/ENABLE ALWAYS/gr) if $way eq 'out of sight';
	return $status == 0 ? $way : 'refused with ' . sqlstate($messages);
}

# Do what guard_coverage() says about what the walk has lost: how many of it.
sub put_right
{
	my @commands = split /\n/, sql(q{SELECT what_to_do FROM ndrs_optout.guard_coverage() WHERE gap IN ('edge_lost', 'guarded_column_lost')});
	foreach my $command (@commands)
	{
		$command =~ s/\. If its rows .*//;
		$command =~ s/, \.\.\.\)/, '{cancer}')/;
		$command =~ s/; if the rows .*?, SELECT/; SELECT/;
		# It may say to do so with a table that is gone.
		try_sql($server, "SET client_min_messages = error; $command", database => 'random');
	}
	return scalar @commands;
}

# What is remembered has to come through a dump.
sub dump_and_restore
{
	my ($name) = @_;
	my $file = $server->basedir . '/random.sql';
	$server->command_ok([ 'pg_dump', '-f', $file, '-d', 'random' ], "$name: dumped");
	$server->safe_psql('postgres', 'DROP DATABASE random');
	$server->safe_psql('postgres', 'CREATE DATABASE random');
	$server->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', 'random', '-f', $file ], "$name: restored");
	return;
}

for (my $round = 0; $ENV{RANDOM_ROUNDS} ? $round < $ENV{RANDOM_ROUNDS} : $round < 6 || time < $until; $round++)
{
	srand $seed + $round;
	%is_gone = ();
	$server->safe_psql('postgres', 'DROP DATABASE IF EXISTS random');
	$server->safe_psql('postgres', 'CREATE DATABASE random TEMPLATE pristine');
	my $world = create_random_registry();
	sql("BEGIN; $world->{sql} COMMIT;");
	my @leaving = (shuffle @PATIENTS)[ 0, 1 ];
	my %case = map { $_ => open_case($_) } @leaving;

	# The patient may be excluded already, by a case that waits for its end, and a loader may
	# have deleted rows of the patient since, to load them again, which the guard left out.
	if (chance(0.5))
	{
		my $patient = $leaving[0];
		sql("SELECT ndrs_optout.case_exclude($case{$patient}, '" . number_of($patient) . "')");
		try_sql($server, 'DELETE FROM ' . one_of(@{ $world->{tables} })->{name} . " WHERE mark = '" . mark_of($patient) . "'", database => 'random')
		  if chance(0.4);
	}
	my $damage = chance(0.7) ? damage($world) : undef;
	my $way = $damage ? do_damage($damage) : '';
	my $name = "seed " . ($seed + $round) . ': ' . ($damage ? "$damage->{name} ($damage->{table}{short}, $way)" : 'no damage');
	dump_and_restore($name) if chance(0.15);
	my $whole = !$damage || $damage->{harmless} || $way =~ /^refused/;
	foreach my $patient (@leaving)
	{
		my ($done, $messages, @wrong) = carry_out($case{$patient}, $patient, $world);
		is(join("\n", @wrong), '', "$name, patient $patient: " . ($done ? 'nothing is left' : 'nothing was done')) or diag described($world);
		ok($done || $world->{owners}, "$name, patient $patient: carried out") or diag $messages, described($world) if $whole;
		if (!$done && $messages =~ /ND032/)
		{
			ok(put_right(), "$name, patient $patient: gaps say what the walk has lost");
			($done, $messages, @wrong) = carry_out($case{$patient}, $patient, $world);
			is(join("\n", @wrong), '', "$name, patient $patient, put right: " . ($done ? 'nothing is left' : 'nothing was done')) or diag $messages, described($world);
			ok($done, "$name, patient $patient, put right: carried out") or diag $messages, described($world) if $damage->{repairable};
		}
		$erased++ if $done;
		$tally{ $damage ? "$damage->{name}, $way" : 'no damage' }{ $done ? 'carried out' : sqlstate($messages) }++;
	}
}
note explain \%tally;
cmp_ok($erased, '>', 0, 'cases are carried out');

done_testing();
