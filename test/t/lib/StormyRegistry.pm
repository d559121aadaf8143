# The registry of the storm: its tables, its patients, and every way in which
# a loader writes to it, chosen by chance.
package StormyRegistry;

use strict;
use warnings;

use Digest::MD5 qw(md5);
use Exporter qw(import);
use OptoutServer;

our @EXPORT = qw(
  @NUMBER $LAST_OWNED $PER_PATIENT %TABLE @WRITTEN
  name_of is_bystander any_bystander any_owned begin_step pick chance new_id
  create_stormy_registry digits digit_columns range_of row values_of columns_of write_batch rows_written_here
  any_statement family);

# ------------------------------------------------------- patients and chance

# A patient is an index of this array: owned by an officer, or a bystander.
our @NUMBER = (undef, test_numbers(200));
our $LAST_OWNED = 160;

# Ids of patient 7 are 7000000000000 and up: who, which worker, which step, which.
our $PER_PATIENT = 1_000_000_000_000;
my $PER_WORKER = 10_000_000_000;
my $PER_STEP = 100_000;
my $HOT = 3;    # the first ids of a patient are those that loaders fight for

my ($worker, $next_id) = (0, $HOT);

sub pick { return $_[ rand @_ ] }
sub chance { return rand() < $_[0] }

# What a worker does in a step depends on the seed, its number and the number of
# the step, and not on how the steps before have ended.
sub begin_step
{
	my ($seed, $step);
	($seed, $worker, $step) = @_;
	srand unpack 'L', md5(join '/', $seed + $worker, $step);
	$next_id = $worker * $PER_WORKER + $step * $PER_STEP;
	return;
}

sub new_id
{
	my ($patient, $count) = @_;
	my $id = $patient * $PER_PATIENT + $next_id;
	$next_id += $count // 1;
	return $id;
}

sub is_bystander { return $_[0] > $LAST_OWNED }

# Some patients are in everybody's way.
sub any_owned { return 1 + int $LAST_OWNED * rand()**2 }
sub any_bystander { return $LAST_OWNED + 1 + int rand($#NUMBER - $LAST_OWNED) }
sub any_patient { return chance(0.75) ? any_owned() : any_bystander() }

# Anybody's mother may be any patient whom an officer owns.
sub mother_of
{
	return any_owned();
}

sub name_of
{
	my ($patient) = @_;
	return 'Zebedee' . (sprintf '%03d', $patient) =~ tr/0-9/a-j/r;
}

# -------------------------------------------------------------------- tables

# registers: whose; type: of the NHS number, if there is one; rejects: a
# statement fails for one excluded patient.
our %TABLE = (
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
my $FULL_WIDTH = join '', map { "\xEF\xBC" . chr(0x90 + $_) } 0 .. 9;

# The digits in a column, without help of the extension
sub digits
{
	my ($column, $type) = @_;
	return $type =~ /text|varchar/
	  ? "regexp_replace(translate($column, '$FULL_WIDTH', '0123456789'), '[^0-9]', '', 'g')"
	  : "lpad($column\:\:text, 10, '0')";
}

# Columns that can be read so, with their types
sub digit_columns
{
	my ($table) = @_;
	my %columns;
	$columns{nhs_number} = $TABLE{$table}{type} if $TABLE{$table}{type} && $table ne 'consult';
	$columns{mother_number} = 'text' if $table eq 'birth';
	return %columns;
}

sub range_of
{
	my ($patient) = @_;
	return sprintf 'id BETWEEN %d AND %d', $patient * $PER_PATIENT, ($patient + 1) * $PER_PATIENT - 1;
}

sub create_stormy_registry
{
	my ($server) = @_;
	$server->safe_psql('postgres', join ";\n", q{
		CREATE TABLE patient (id bigint PRIMARY KEY, nhs_number text, year int, name text);
		CREATE TABLE visit (id bigint, nhs_number bigint, year int, name text, PRIMARY KEY (id, year))
			PARTITION BY LIST (year);
		CREATE TABLE visit_1 PARTITION OF visit FOR VALUES IN (1);
		CREATE TABLE visit_2 PARTITION OF visit FOR VALUES IN (2);
		CREATE TABLE consult (id bigint PRIMARY KEY, nhs_number ndrs_optout.nhs_number, year int, name text);
		CREATE TABLE consult_archive (PRIMARY KEY (id)) INHERITS (consult);
		CREATE TABLE birth (id bigint PRIMARY KEY, nhs_number text, year int, name text,
			mother_number text, mother_name text);
		CREATE TABLE pathology (id bigint PRIMARY KEY, nhs_number numeric, year int, name text);
		CREATE TABLE specimen (id bigint PRIMARY KEY, nhs_number varchar, year int, name text);
		CREATE TABLE tumour (id bigint PRIMARY KEY, parent_id bigint NOT NULL REFERENCES patient);
		CREATE TABLE regimen (id bigint PRIMARY KEY, parent_id bigint NOT NULL REFERENCES tumour);
		CREATE TABLE drug (id bigint PRIMARY KEY, parent_id bigint REFERENCES regimen ON DELETE RESTRICT);
		CREATE TABLE letter (id bigint PRIMARY KEY, parent_id bigint);

		SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}');
		SELECT ndrs_optout.guard_table('visit', 'nhs_number', '{cancer}', on_match => 'skip');
		SELECT ndrs_optout.guard_table('consult', 'nhs_number', '{cancer}');
		SELECT ndrs_optout.guard_table('birth', 'nhs_number', '{cancer}');
		SELECT ndrs_optout.guard_table('birth', 'mother_number', '{cancer}', on_match => 'redact',
			redact_columns => '{mother_name}');
		SELECT ndrs_optout.guard_table('pathology', 'nhs_number', '{rare_disease}', mechanism => 'constraint');
		SELECT ndrs_optout.guard_table('specimen', 'nhs_number', '{cancer,rare_disease}', on_match => 'skip');
		SELECT ndrs_optout.declare_reference('letter', '{parent_id}', 'patient', '{id}');
		CREATE TABLE visit_3 PARTITION OF visit FOR VALUES IN (3);

		CREATE ROLE loader LOGIN;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO loader;
		CREATE ROLE officer LOGIN IN ROLE pg_monitor;
		GRANT SELECT ON ALL TABLES IN SCHEMA public TO officer;
		SELECT ndrs_optout.grant_access('officer', 'officer');
		GRANT SELECT ON ndrs_optout.national_check_part TO officer;
		GRANT EXECUTE ON ROUTINE ndrs_optout.exclude, ndrs_optout.readmit, ndrs_optout.erase TO officer;
		ALTER ROLE officer SET log_min_error_statement = panic;
		ALTER ROLE officer SET synchronous_commit = off;
		SELECT ndrs_optout.add_recipient('institute', 'Institute', 'nhs_number');
		SELECT ndrs_optout.add_agreement('institute', 'consent', 'agreement 1', '2000-01-01', '2099-12-31')},
		(map { "CREATE INDEX ON $_ (nhs_number)" } qw(visit consult consult_archive pathology)),
		(map { "CREATE INDEX ON $_ (ndrs_optout.nhs_number_or_null(nhs_number))" } qw(patient birth specimen)),
		'CREATE INDEX ON birth (ndrs_optout.nhs_number_or_null(mother_number))',
		'CREATE INDEX ON birth (mother_name)',
		(map { "CREATE INDEX ON $_ (parent_id)" } @CHILDREN),
		map {
			my ($table, %columns) = ($_, digit_columns($_));
			map { "CREATE INDEX ON $table ((" . digits($_, $columns{$_}) . '))' } sort keys %columns
		} @NUMBERED);
	return;
}

# ---------------------------------------------------------------------- rows

# The rows of bystanders that were made since somebody emptied it: "table<tab>id"
our @WRITTEN;

# In what form a feed writes the number
sub written_form
{
	my ($type, $number) = @_;
	return $number if $type !~ /text|varchar/ || chance(0.5);
	my $separator = pick(' ', '-', "\xC2\xA0");
	return pick($number =~ s/^(...)(...)/$1$separator$2$separator/r,
		$number =~ s/(\d)/substr $FULL_WIDTH, 3 * $1, 3/ger, " $number");
}

# The columns of a row, in order
sub row
{
	my ($table, $patient, %column) = @_;
	my $id = $column{id} // new_id($patient);
	my $mother = mother_of();
	my @mother = $table eq 'birth' ? (written_form('text', $NUMBER[$mother]), name_of($mother)) : ();

	push @WRITTEN, "$table\t$id" if is_bystander($patient);
	return [
		$id, written_form($TABLE{$table}{type}, $NUMBER[$patient]),
		$column{year} // pick(1 .. 3), name_of($patient), @mother ];
}

# Where one excluded patient spoils the statement, most are bystanders.
sub rows
{
	my ($table, $count, %column) = @_;
	my $others = $TABLE{$table}{rejects} ? int rand 3 : $count;
	return map { row($table, $_ <= $others ? any_patient() : any_bystander(), %column) } 1 .. $count;
}

# With a type for the number where no table gives it
sub values_of
{
	my ($type, @rows) = @_;
	my $cast = $type ? "::$type" : '';
	return 'VALUES ' . join ', ', map {
		my ($id, $number, $year, @names) = @$_;
		"($id, '$number'$cast, $year, " . join(', ', map { "'$_'" } @names) . ')'
	} @rows;
}

# By name, since others come and go
sub columns_of
{
	my ($table) = @_;
	return 'id, nhs_number, year, name' . ($table eq 'birth' ? ', mother_number, mother_name' : '');
}

# A file to COPY from
sub write_batch
{
	my ($path, @rows) = @_;
	open my $file, '>', $path or die "open $path: $!";
	print {$file} map { join("\t", @$_) . "\n" } @rows;
	close $file or die "close $path: $!";
	return $path;
}

# Rows of a patient that this worker made, whatever has become of them
sub rows_written_here
{
	my ($patient) = @_;
	return range_of($patient) . " AND id % $PER_PATIENT / $PER_WORKER = $worker";
}

# ---------------------------------------------------------------- statements

# From the top, or into a partition or a child directly: (table, columns of its rows)
sub entrance
{
	my ($table) = @_;
	my $year = pick(1 .. 3);
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

# With a pause in the middle, sometimes
sub copy
{
	my ($directory) = @_;
	my $table = pick(@NUMBERED);
	my ($into, %column) = entrance($table);
	my @rows = rows($table, chance(0.1) ? 1000 + rand 2000 : 5 + rand 100, %column);
	my $second = write_batch("$directory/second.$worker", splice @rows, @rows / 2);
	my $first = write_batch("$directory/first.$worker", @rows);
	my $pause = pick(0, 0, 0.05, 0.2);
	return "\\copy $into (" . columns_of($table) . ") FROM PROGRAM 'cat $first; sleep $pause; cat $second'";
}

# Rows that others want as well
sub hot_rows
{
	my ($table) = @_;
	my @patients = map { chance(0.4) ? any_owned() : $#NUMBER - int rand 4 } 1 .. 1 + rand 5;
	my %rows = map { $_ * $PER_PATIENT + int rand $HOT => $_ } @patients;
	my @ids = sort keys %rows;
	@ids = reverse @ids if chance(0.5);    # a deadlock needs two orders
	return map { row($table, $rows{$_}, id => $_) } @ids;
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
	my $which = range_of($from) . ($table eq 'patient' ? " AND id % $PER_PATIENT < $HOT" : '');
	return sprintf q{UPDATE %s SET id = %d, nhs_number = '%s', name = '%s'
		WHERE id = (SELECT id FROM %s WHERE %s ORDER BY id DESC LIMIT 1)},
	  $table, new_id($to), written_form($TABLE{$table}{type}, $NUMBER[$to]), name_of($to), $table, $which;
}

sub change_mother
{
	my $baby = any_patient();
	my $mother = mother_of();
	return sprintf q{UPDATE birth SET mother_number = '%s', mother_name = '%s' WHERE id IN
		(SELECT id FROM birth WHERE %s ORDER BY id DESC LIMIT 2)},
	  written_form('text', $NUMBER[$mother]), name_of($mother), range_of($baby);
}

# From partition to partition
sub change_year
{
	return 'UPDATE visit SET year = year % 3 + 1 WHERE id IN
		(SELECT id FROM visit WHERE ' . range_of(any_patient()) . ' ORDER BY id DESC LIMIT 3)';
}

# Children of what is there.  The loader itself must see to it that a letter's
# patient does not go meanwhile.
sub children
{
	my $table = pick(@CHILDREN);
	my $patient = any_patient();
	my $which = range_of($patient) . ($table eq 'letter' ? " AND id % $PER_PATIENT >= $HOT" : '');
	my $lock = $table eq 'letter' ? 'FOR KEY SHARE' : '';
	return sprintf q{INSERT INTO %s SELECT %d + row_number() OVER (), id
		FROM (SELECT id FROM %s WHERE %s ORDER BY id DESC LIMIT 3 %s) AS p RETURNING '= %s' || E'\t' || id},
	  $table, new_id($patient, 5), $TABLE{$table}{parent}, $which, $lock, $table;
}

my @STATEMENTS = (
	\&insert, \&insert, \&insert_select, \&copy, \&copy, \&upsert, \&merge,
	\&change_number, \&change_mother, \&change_year, \&children, \&children);

# One statement; files go into a directory
sub any_statement
{
	my ($directory) = @_;
	return pick(@STATEMENTS)->($directory);
}

# A patient with everything below, for one transaction.  Nothing but this ties the
# letter to its patient, so it may come first.
sub family
{
	my $patient = any_patient();
	my %id = map { $_ => new_id($patient) } 'patient', @CHILDREN;
	my ($letter, @down) = map {
		push @WRITTEN, "$_\t$id{$_}" if is_bystander($patient);
		"INSERT INTO $_ VALUES ($id{$_}, $id{ $TABLE{$_}{parent} })"
	} qw(letter tumour regimen drug);
	unshift @down, 'INSERT INTO patient ' . values_of('', row('patient', $patient, id => $id{patient}));
	return chance(0.5) ? ($letter, @down) : (@down, $letter);
}

1;
