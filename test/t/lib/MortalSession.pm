# Sessions that may be killed at any moment, and come back: for tests that do not
# know how a statement ends.
package MortalSession;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Open3 qw(open3);
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  %TALLY new_session alive end_session start_asking answer ask check_state succeeds roll_back insist give_up_at);

# How often something happened, by SQLSTATE, or as the test calls it
our %TALLY;

# What can happen to any statement: a conflict, a deadlock, a timeout, a cancel, a kill
my %FATE = map { $_ => 1 } qw(40001 40P01 55P03 57014 lost);

my $patience_ends;

# From then on, whatever is tried again and again has failed.
sub give_up_at
{
	($patience_ends) = @_;
	return;
}

# Connects when it is needed
sub new_session
{
	my ($server, $name, $role) = @_;
	return { server => $server, name => $name, role => $role, questions => 0 };
}

sub connect_session
{
	my ($session) = @_;
	local $ENV{PGAPPNAME} = $session->{name};
	my $to = $session->{server}->connstr('postgres') . " user=$session->{role} options='-c client_min_messages=warning'";

	$session->{pid} = open3(my $in, my $out, undef,
		$session->{server}->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $to);
	$in->autoflush(1);
	@$session{qw(in out)} = ($in, $out);
	return;
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
		die "$session->{name} cannot connect\n" if time > $patience_ends;
		connect_session($session);
		my ($state) = ask($session, 'SELECT 1');
		sleep 0.1 if $state ne '';
	}
	return $session;
}

# One statement, or one command of psql
sub start_asking
{
	my ($session, $sql) = @_;
	my $end = $sql =~ /^\\/ ? '' : ';';
	$session->{questions}++;
	print { $session->{in} } "$sql$end\n\\echo . $session->{questions}\n";
	return;
}

# SQLSTATE ('' for success, 'lost' for a session that was ended), rows that begin
# with "= ".  Messages are in the session.  After a crash of the server, psql may go on
# to its next command without one.
sub answer
{
	my ($session) = @_;
	my ($state, $fatal, $ended, $lost, @rows) = ('', '57P01', 1, 0);

	$session->{messages} = '';
	while (defined(my $line = readline $session->{out}))
	{
		$ended = $lost, last if $line eq ". $session->{questions}\n";
		$session->{messages} .= $line;
		$lost = 1 if $line =~ /server closed the connection unexpectedly|connection to server was lost/;
		push @rows, $1 if $line =~ /^= (.*)$/;
		$state ||= $1 if $line =~ /^ERROR:  ([0-9A-Z]{5}):/;
		$fatal = $1 if $line =~ /^(?:FATAL|PANIC):  ([0-9A-Z]{5}):/;
	}
	if ($ended)
	{
		end_session($session);
		$state = $fatal =~ /^57P0/ ? 'lost' : $fatal;
	}
	$TALLY{$state}++ if $state;
	return ($state, @rows);
}

# Of a session that was lost before, too
sub ask
{
	my ($session, $sql) = @_;
	return 'lost' unless $session->{pid};
	start_asking($session, $sql);
	return answer($session);
}

# Any SQLSTATE but fate and those allowed is an error of the test.
sub check_state
{
	my ($session, $state, @allowed) = @_;
	die "unexpected in $session->{name}: $session->{messages}\n"
	  unless $state eq '' || $FATE{$state} || grep { $_ eq $state } @allowed;
	return;
}

sub succeeds
{
	my ($session, $sql) = @_;
	my ($state) = ask($session, $sql);
	check_state($session, $state);
	return $state eq '';
}

# Nothing of a transaction is left, even if this too is cancelled.
sub roll_back
{
	my ($session) = @_;
	end_session($session) unless succeeds($session, 'ROLLBACK');
	return;
}

# Ask again and again, whatever its fate, until it succeeds or ends in one of
# these states.
sub insist
{
	my ($session, $sql, @allowed) = @_;
	while (1)
	{
		my ($state, @rows) = ask(alive($session), $sql);
		check_state($session, $state, @allowed);
		return ($state, @rows) unless $FATE{$state};
		die "no success in $session->{name}: $session->{messages}\n" if time > $patience_ends;
		sleep 0.05;
	}
	return;
}

1;
