# What the documentation shows is what the server says.
#
# The hazard: pages that people copy from say what was true once.  Here every
# block that is fenced as "psql" is typed again, command by command, against the
# demo's registry, and the answers are compared.  The prompt says who types:
# "officer=>" is that role, "registry=#" a superuser.  Each page has a database of its
# own; a comment <!-- test: NAME --> prepares what it takes for granted.
#
# With DOCS_WRITE=DIRECTORY (make installcheck REGRESS= ISOLATION= PROVE_TESTS=test/t/docs.pl)
# the answers are written into the pages of that checkout instead: read them before
# you commit.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $pages = $ENV{DOCS_WRITE} // $top;
# From version 18, checksums are the default.
my $server = new_server('docs', init => { extra => [ '--encoding=UTF8', '--locale=C', '--data-checksums' ] });
my $database;

my %prepare = (
	registry => \&fill_registry,
	installed => \&install_in_registry,
	guarded => \&guard_registry,
	checked => \&check_registry,
	shared => \&share_registry,
	delivery => \&write_delivery);

# The demo's tables, with its patient and 199 others
sub fill_registry
{
	sql_file("$top/demo/registry/$_", 'patients=200', "registry=$top/demo/registry")
	  foreach qw(schema.sql populate.sql indexes.sql);
	return;
}

# The same with the extension, roles and the Guardian's key, as doc/dba.md does it
sub install_in_registry
{
	install_extension($server, $database);
	fill_registry();
	add_role($_) foreach qw(officer loader analyst steward auditor);
	$server->safe_psql($database, q{
		GRANT USAGE ON SCHEMA cancer TO loader, analyst;
		GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA cancer TO loader;
		GRANT SELECT ON ALL TABLES IN SCHEMA cancer TO analyst});
	my $key = slurp_file("$top/test/keys/guardian.public.asc");
	$server->safe_psql($database, "SELECT ndrs_optout.set_confidential_key('$key')");
	return;
}

# A role with its duty's name: roles are there for all pages
sub add_role
{
	my ($duty) = @_;
	$server->safe_psql($database, qq{
		SELECT 'CREATE ROLE $duty LOGIN' WHERE to_regrole('$duty') IS NULL \\gexec
		SELECT ndrs_optout.grant_access('$duty', '$duty')});
	return;
}

# The same, guarded
sub guard_registry
{
	install_in_registry();
	$server->safe_psql($database, q{
		SELECT ndrs_optout.guard_table('cancer.av_patient', 'nhsnumber', '{cancer}', on_match => 'skip'),
		       ndrs_optout.guard_table('cancer.sact_patient', 'nhsnumber', '{cancer}'),
		       ndrs_optout.guard_table('rare_disease.patient', 'nhs_number', '{rare_disease}', birth_date_column => 'birth_date'),
		       ndrs_optout.guard_table('congenital_anomaly.mother', 'nhs_number', '{congenital_anomaly}'),
		       ndrs_optout.guard_table('congenital_anomaly.baby', 'nhs_number', '{congenital_anomaly}')});
	return;
}

# The same, with an officer who may read whom to ask about and has a place for a reply
sub share_registry
{
	guard_registry();
	$server->safe_psql($database, q{
		GRANT USAGE ON SCHEMA cancer, rare_disease TO officer;
		GRANT SELECT ON cancer.av_patient, cancer.sact_patient, rare_disease.patient TO officer;
		CREATE SCHEMA officer AUTHORIZATION officer});
	return;
}

# Installed, and as a national check leaves it: one of long ago asked about the
# first five patients, one of now about most others.  The demo's patient has left another register.
sub check_registry
{
	install_in_registry();
	$server->safe_psql($database, q{
		CREATE SCHEMA study AUTHORIZATION analyst;
		INSERT INTO cancer.av_patient (patientid, nhsnumber)
		    VALUES (1001, NULL), (1002, '999 000 0019'), (1003, '1111111111');
		SELECT ndrs_optout.exclude('9990000018', '{rare_disease}');
		SELECT ndrs_optout.add_recipient('hospital', 'University Hospital', 'nhs_number');
		SELECT ndrs_optout.grant_exemption('clinical_audit', 'hospital', 'CAG 24/1', current_date - 1);
		SELECT ndrs_optout.start_national_check('SELECT nhsnumber FROM cancer.av_patient WHERE patientid <= 5') AS check \gset
		SELECT ndrs_optout.load_national_check(:check, 'SELECT * FROM ndrs_optout.national_check_request(1)');
		UPDATE ndrs_optout.national_check SET expires_at = now();
		SELECT ndrs_optout.start_national_check('SELECT nhsnumber FROM cancer.av_patient WHERE patientid BETWEEN 6 AND 190') AS check \gset
		SELECT ndrs_optout.load_national_check(:check, 'SELECT r FROM ndrs_optout.national_check_request(2) WITH ORDINALITY AS r (r, i) WHERE i % 20 <> 0')});
	return;
}

# A hospital's next files, where psql runs
sub write_delivery
{
	sql_file("$top/demo/registry/next_batch.sql", 'dir=.');
	return;
}

sub sql_file
{
	my ($path, @variables) = @_;
	my ($status, undef, $messages) = psql_says([ '-q', '-f', $path, map { ('-v', $_) } @variables ]);
	die "$path: $messages" if $status;
	return;
}

# psql's status, output and messages; files that it reads and writes are the server's.
sub psql_says
{
	my ($arguments, $role) = @_;
	my ($output, $messages) = ('', '');
	local $ENV{PGDATESTYLE} = 'ISO, DMY';
	IPC::Run::run(
		[
			$server->installed_command('psql'), '-X', '-P', 'footer=off', '-d',
			$server->connstr($database), defined $role ? ('-U', $role) : (), @$arguments
		],
		'<', \undef, '>', \$output, '2>', \$messages, init => sub { chdir $server->basedir or die "chdir: $!" });
	return ($? >> 8, $output, $messages);
}

# As it is typed, and what comes of it: what is said before what is returned.
sub answer
{
	my ($role, $command) = @_;
	my $file = $server->basedir . '/typed.sql';
	unlink $file;
	append_to_file($file, $command);
	my (undef, $output, $messages) = psql_says([ '-f', 'typed.sql' ], $role);
	$messages =~ s/^psql:\S+:\d+: //mg;
	note($messages) if $messages;
	my $answer = $messages . $output;
	$answer =~ s/[ \t]+$//mg;
	$answer =~ s/\n+\z//;
	return $answer;
}

# What differs from run to run is the same, and so are the widths that follow it.
sub stable
{
	my ($text) = @_;
	# Where the server points to depends on its version.
	$text =~ s/^LINE \d+: [^\n]*\n[ ]*\^\n?//mg;
	$text =~ s/\d{4}-\d\d-\d\d/DATE/g;
	$text =~ s/\d+ (?:January|February|March|April|May|June|July|August|September|October|November|December) \d{4}/DATE/g;
	$text =~ s/\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d)?/TIME/g;
	$text =~ s{\b[0-9A-F]+/[0-9A-F]{6,}\b}{LSN}g;
	$text =~ s/(?:\b|(?<=\\x))(?:[0-9a-f]{8}){1,8}\b/HEX/g;
	$text =~ s/-{2,}/--/g;
	$text =~ s/ +/ /g;
	$text =~ s/[ \t]+$//mg;
	return $text;
}

# Types one block; returns it with the answers of now, and both to compare.
sub type_block
{
	my ($block) = @_;
	my ($typed, $expected, $got) = ('', '', '');
	my @parts = split /^(?=\w+=[>#] )/m, $block;
	foreach my $part (@parts)
	{
		my ($who, $mark, $rest) = $part =~ /^(\w+)=([>#]) (.*)\z/s or die "no prompt: $part";
		my ($command, $shown) = $rest =~ /^(\\[^\n]*\n|.*?(?:;|\\g[^\n]*)[ ]*\n)(.*)\z/s or die "no end: $part";
		my $answer = answer($mark eq '#' ? undef : $who, $command);
		$shown =~ s/\n+\z//;
		$typed .= ($typed eq '' ? '' : "\n") . "$who=$mark $command" . ($answer eq '' ? '' : "$answer\n");
		$expected .= "$command$shown\n";
		$got .= "$command$answer\n";
	}
	return ($typed, stable($expected), stable($got));
}

sub type_page
{
	my ($page) = @_;
	my $text = slurp_file("$pages/$page");
	my ($count, $wide) = (0, '');
	$text =~ s{^(?:<!--\ test:\ (?<name>\w+)\ -->|```psql\n(?<block>.*?)^```)$}{
		my ($all, $name, $block) = ($&, $+{name}, $+{block});
		if (defined $name)
		{
			$prepare{$name}->();
		}
		else
		{
			my ($typed, $expected, $got) = type_block($block);
			$count++;
			is($got, $expected, "$page: block $count") unless $ENV{DOCS_WRITE};
			$wide .= join '', grep { length > 121 && / \| / } map { "$_\n" } split /\n/, $typed;
			$all = "```psql\n$typed```";
		}
		$all;
	}gemsx;
	ok($count > 0, "$page has something to type");
	is($wide, '', "$page: no table is wider than 120 columns");
	if ($ENV{DOCS_WRITE})
	{
		open my $file, '>', "$pages/$page" or die "$page: $!";
		print $file $text;
		close $file;
	}
	return;
}

foreach my $page (qw(doc/dba.md doc/officer.md doc/sharing.md doc/analyst.md README.md))
{
	($database = lc $page) =~ s/\W/_/g;
	$server->safe_psql('postgres', "CREATE DATABASE $database");
	type_page($page);
}
$server->stop;
done_testing();
