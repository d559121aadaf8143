# Erasure in a registry of the shape of the national one: deliveries, patients of several
# kinds in one table, with the NHS number beside pseudonyms of several keys; encrypted raw
# data that is stored once for all rows with the same demographics; wide rows, prescriptions
# in partitions; and the history that the application keeps of everything, in which a row
# says of what kind and id it is the version.
#
# The hazards: what is left of a patient in any column of any table, in the history that
# the erasure itself has caused above all; raw data that goes while another patient's row
# refers to it, or stays when none does.
#
# The recount is plain SQL over every column of every table, for the number, the pseudonyms and
# the ids of the patient's rows, which the test notes before.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

my $server = new_server('erasure_registry', settings => "jit = off\n");
install_extension($server);

# One session carries out what does not happen at the same time: plans are made once.
my $officer = open_session($server);

sub sql { return $server->safe_psql('postgres', "SET client_min_messages = warning; SET search_path = registry, pg_catalog; $_[0]") }

# -------------------------------------------------------------- the registry

# So many columns of short codes
sub codes { my ($prefix, $count) = @_; return join ', ', map { "$prefix$_ text" } 1 .. $count }

# What the application keeps versions of: kind of item, table, column of its id
my @ITEMS = (
	[ 'Patient', 'patient', 'patient_id' ],
	[ 'RawData', 'raw_data', 'raw_data_id' ],
	[ 'Birth', 'birth', 'birth_id' ],
	[ 'Death', 'death', 'death_id' ],
	[ 'Prescription', 'prescription', 'prescription_id' ],
	[ 'Molecular', 'molecular', 'molecular_id' ],
	[ 'GeneticTest', 'genetic_test', 'genetic_test_id' ],
	[ 'SequenceVariant', 'sequence_variant', 'sequence_variant_id' ]);

sub create_tables
{
	sql('CREATE SCHEMA registry');
	sql(qq{
		CREATE TABLE batch (batch_id bigint PRIMARY KEY, kind text NOT NULL, provider text NOT NULL, file_name text, digest text,
			record_count integer);
		CREATE TABLE pseudonym_key (key_id bigint PRIMARY KEY, key_name text NOT NULL, provider text, starts_on date, ends_on date);
		CREATE TABLE project (project_id bigint PRIMARY KEY, title text, optouts_processed_at timestamptz);
		CREATE TABLE raw_data (raw_data_id bigint PRIMARY KEY, content bytea NOT NULL, decrypt_key bytea NOT NULL);
		CREATE TABLE patient (
			patient_id   bigint PRIMARY KEY,
			batch_id     bigint NOT NULL REFERENCES batch,
			raw_data_id  bigint NOT NULL REFERENCES raw_data,
			kind         text NOT NULL CHECK (kind IN ('birth', 'death', 'prescription', 'molecular')),
			pseudo_id1   text NOT NULL,
			pseudo_id2   text,
			key_id       bigint NOT NULL REFERENCES pseudonym_key,
			nhs_number   ndrs_optout.nhs_number);
		CREATE INDEX ON patient (pseudo_id1);
		CREATE INDEX ON patient (pseudo_id2);
		CREATE INDEX ON patient (raw_data_id);
		CREATE INDEX ON patient (nhs_number);
		CREATE TABLE birth (birth_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES patient ON DELETE CASCADE,
			born_on date, ${\codes('b', 60)});
		CREATE INDEX ON birth (patient_id);
		CREATE TABLE death (death_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES patient ON DELETE CASCADE,
			${\codes('d', 80)});
		CREATE INDEX ON death (patient_id);
		CREATE TABLE prescription (prescription_id bigint, patient_id bigint NOT NULL REFERENCES patient ON DELETE CASCADE,
			paid_on date, ${\codes('p', 70)}, PRIMARY KEY (prescription_id, paid_on)) PARTITION BY RANGE (paid_on);
		CREATE INDEX ON prescription (patient_id);
		CREATE TABLE molecular (molecular_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES patient ON DELETE CASCADE,
			${\codes('m', 60)});
		CREATE INDEX ON molecular (patient_id);
		CREATE TABLE genetic_test (genetic_test_id bigint PRIMARY KEY, molecular_id bigint NOT NULL REFERENCES molecular,
			raw_record text);
		CREATE INDEX ON genetic_test (molecular_id);
		CREATE TABLE sequence_variant (sequence_variant_id bigint PRIMARY KEY,
			genetic_test_id bigint NOT NULL REFERENCES genetic_test, raw_record text);
		CREATE INDEX ON sequence_variant (genetic_test_id);
	} . join '', map {
		sprintf q{CREATE TABLE prescription_%02d PARTITION OF prescription FOR VALUES FROM ('2024-%02d-01') TO ('2024-%02d-01');}, $_, $_, $_ + 1
	} 1 .. 6);
	return;
}

# The history of everything.  A column of its own for each kind of item, so that a
# reference can be declared from there.
sub create_history
{
	sql('CREATE TABLE version (version_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item_type text NOT NULL,
			item_id bigint NOT NULL, event text NOT NULL, made_by text, made_at timestamptz DEFAULT now(), object text,
			object_changes text);'
		. join '', map {
			my ($type, $table, $id) = @$_;
			"ALTER TABLE version ADD COLUMN $id bigint GENERATED ALWAYS AS (CASE WHEN item_type = '$type' THEN item_id END) STORED;"
			  . "CREATE INDEX ON version ($id);"
		} @ITEMS);
	# By the application for what it made, by a trigger for what goes or changes
	sql(q{CREATE FUNCTION keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
		DECLARE
			old_row CONSTANT jsonb := to_jsonb(OLD);
		BEGIN
			INSERT INTO registry.version (item_type, item_id, event, object, object_changes)
				VALUES (TG_ARGV[0], (old_row ->> TG_ARGV[1])::bigint, lower(TG_OP), old_row::text,
					CASE TG_OP WHEN 'UPDATE' THEN to_jsonb(NEW)::text END);
			RETURN NULL;
		END $$});
	sql(join '', map {
		my ($type, $table, $id) = @$_;
		"CREATE TRIGGER keep_version AFTER UPDATE OR DELETE ON $table FOR EACH ROW EXECUTE FUNCTION keep_version('$type', '$id');"
	} @ITEMS);
	return;
}

sub guard_and_declare
{
	sql(q{SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}', 'skip')});
	sql("SELECT ndrs_optout.declare_reference('version', '{$_->[2]}', '$_->[1]', '{$_->[2]}')") foreach @ITEMS;
	sql(q{SELECT ndrs_optout.declare_owned('patient', '{raw_data_id}', 'raw_data', '{raw_data_id}')});
	return;
}

# ------------------------------------------------------------------ the rows

my @SALTS = ('salt of 2023', 'salt of 2024');
my ($ALICE, $BERT, $CARLA, $DAVE, $ERIN, $FRED, $GINA) = @TEST_NUMBERS;
my $next_id = 700_000_000_000;
my %raw_of;

# An id as a loader gives it: of twelve digits, so that a text that holds it holds nothing else
sub new_id { return $next_id += 1 + int rand 1000 }

sub pseudo_ids
{
	my ($number, $key, $demographics) = @_;
	return sprintf q{encode(sha256('nhsnumber_%1$s%2$s'::bytea), 'hex'), encode(sha256('birthdate_postcode_%3$s%2$s'::bytea), 'hex')},
	  $number, $SALTS[ $key - 1 ], $demographics;
}

# What the application does when it makes a row
sub insert_row
{
	my ($type, $table, %values) = @_;
	my @columns = sort keys %values;
	my ($item) = grep { $_->[0] eq $type } @ITEMS;
	return "INSERT INTO $table (" . join(', ', @columns) . ') VALUES (' . join(', ', @values{@columns}) . ');'
	  . "INSERT INTO version (item_type, item_id, event, made_by, object_changes)"
	  . "SELECT '$type', $values{$item->[2]}, 'create', 'loader', to_jsonb(t)::text FROM $table t WHERE $item->[2] = $values{$item->[2]};";
}

# A row of a patient, with raw data that all rows with the same demographics share
sub insert_patient
{
	my ($number, $kind, $key, $batch, $demographics) = @_;
	my $id = new_id();
	my $sql = '';
	$raw_of{$demographics} //= do {
		my $raw = new_id();
		$sql .= insert_row('RawData', 'raw_data', raw_data_id => $raw, content => "sha256('$raw')", decrypt_key => "sha256('key$raw')");
		$raw;
	};
	my ($first, $second) = split /, (?=encode)/, pseudo_ids($number, $key, $demographics);
	return ($id, $sql . insert_row('Patient', 'patient', patient_id => $id, batch_id => $batch, raw_data_id => $raw_of{$demographics},
		kind => "'$kind'", pseudo_id1 => $first, pseudo_id2 => $kind eq 'prescription' ? 'NULL' : $second, key_id => $key,
		nhs_number => "'$number'"));
}

sub hold
{
	my ($number, $demographics) = @_;
	my ($sql, $id, $made) = ('');

	($id, $made) = insert_patient($number, 'birth', 1, 1, $demographics);
	$sql .= $made . insert_row('Birth', 'birth', birth_id => new_id(), patient_id => $id, born_on => "'2001-02-03'", b1 => "'C50'", b60 => "'x'");
	($id, $made) = insert_patient($number, 'death', 2, 2, $demographics);
	$sql .= $made . insert_row('Death', 'death', death_id => new_id(), patient_id => $id, d1 => "'I21'", d80 => "'y'");
	foreach my $month (1 .. 6)
	{
		($id, $made) = insert_patient($number, 'prescription', 1 + $month % 2, 3, "$demographics, prescribed");
		$sql .= $made . insert_row('Prescription', 'prescription', prescription_id => new_id(), patient_id => $id,
			paid_on => sprintf(q{'2024-%02d-15'}, $month), p1 => "'0401020K0'", p70 => "'z'");
	}
	($id, $made) = insert_patient($number, 'molecular', 2, 4, $demographics);
	my ($molecular, $test) = (new_id(), new_id());
	$sql .= $made . insert_row('Molecular', 'molecular', molecular_id => $molecular, patient_id => $id, m1 => "'BRCA1'")
	  . insert_row('GeneticTest', 'genetic_test', genetic_test_id => $test, molecular_id => $molecular, raw_record => "'reported for $number'")
	  . join '', map {
		insert_row('SequenceVariant', 'sequence_variant', sequence_variant_id => new_id(), genetic_test_id => $test,
			raw_record => "'c.68_69del, patient $number'")
	  } 1 .. 3;
	# Corrected once, so that the history has what was before
	$sql .= "UPDATE molecular SET m2 = 'corrected' WHERE molecular_id = $molecular;";
	sql("BEGIN; $sql COMMIT;");
	return;
}

# ------------------------------------------------------------- plain recount

# What a patient is known by: number, pseudonyms and the ids of rows, raw data only if
# no row of anybody else refers to it
sub traces
{
	my ($number) = @_;
	my @traces = split /\n/, sql(qq{
		WITH mine AS (SELECT * FROM patient WHERE nhs_number::text = '$number'),
			molecules AS (SELECT molecular_id AS id FROM molecular JOIN mine USING (patient_id)),
			tests AS (SELECT genetic_test_id AS id FROM genetic_test JOIN molecules ON molecular_id = id)
		SELECT '$number'
		UNION SELECT pseudo_id1 FROM mine
		UNION SELECT m.pseudo_id2 FROM mine m WHERE m.pseudo_id2 IS NOT NULL
			AND NOT EXISTS (SELECT FROM patient o WHERE o.pseudo_id2 = m.pseudo_id2 AND o.nhs_number::text <> '$number')
		UNION SELECT patient_id::text FROM mine
		UNION SELECT m.raw_data_id::text FROM mine m WHERE NOT EXISTS (SELECT FROM patient o
			WHERE o.raw_data_id = m.raw_data_id AND o.nhs_number::text <> '$number')
		UNION SELECT birth_id::text FROM birth JOIN mine USING (patient_id)
		UNION SELECT death_id::text FROM death JOIN mine USING (patient_id)
		UNION SELECT prescription_id::text FROM prescription JOIN mine USING (patient_id)
		UNION SELECT id::text FROM molecules
		UNION SELECT id::text FROM tests
		UNION SELECT sequence_variant_id::text FROM sequence_variant JOIN tests ON genetic_test_id = id});
	return \@traces;
}

# Every row of every table as text, the extension's own among them
sub all_rows
{
	my $tables = sql(q{SELECT string_agg(format('SELECT %L, t::text FROM ONLY %s t', c.relnamespace::regnamespace || '.' || c.relname, c.oid::regclass), ' UNION ALL ')
		FROM pg_class c WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND c.relnamespace <> 'pg_toast'::regnamespace});
	return [ split /\n/, sql($tables) ];
}

sub rows_with
{
	my ($traces, $rows) = @_;
	my $pattern = join '|', @$traces;
	return [ grep { /$pattern/ } @$rows ];
}

# In the registry's tables, sorted
sub rows_without
{
	my ($traces, $rows) = @_;
	my $pattern = join '|', @$traces;
	return join "\n", sort grep { !/$pattern/ } grep { !/^ndrs_optout\./ } @$rows;
}

# What the certificate says was deleted of each table, and what is gone of it
sub certified
{
	my ($case, $before, $after) = @_;
	my %gone;
	foreach ([ $before, 1 ], [ $after, -1 ])
	{
		my ($rows, $sign) = @$_;
		$gone{$_} += $sign foreach map { /^registry\.([a-z_]+?)(?:_\d\d)?\|/ ? $1 : () } @$rows;
	}
	return (sql("SELECT split_part(relation, '.', 2), sum(row_count) FROM ndrs_optout.case_erasure
			WHERE case_id = $case AND action = 'deleted' AND relation <> 'registry.version' GROUP BY 1 HAVING sum(row_count) > 0 ORDER BY 1"),
		join "\n", map { $_ ne 'version' && $gone{$_} ? "$_|$gone{$_}" : () } sort keys %gone);
}

# Carry out, and nothing is left, and nothing of others has changed
sub erased
{
	my ($number, $name) = @_;
	my $traces = traces($number);
	my $before = all_rows();
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	cmp_ok(scalar @{ rows_with($traces, $before) }, '>', 40, "$name: the registry holds many rows");
	my $case = ready_case($server, $number);
	my (undef, $messages) = run_in($officer, "CALL ndrs_optout.carry_out($case, '$number')");
	diag($messages) if $messages;
	my $after = all_rows();
	is(join("\n", @{ rows_with($traces, $after) }), '', "$name: nothing is left in any table");
	is(rows_without($traces, $after), rows_without($traces, $before), "$name: what is others' is as it was");
	my ($said, $gone) = certified($case, $before, $after);
	is($said, $gone, "$name: the case says of each table how much is gone");
	return;
}

sub raw_rows { return sql('SELECT count(*) FROM raw_data WHERE raw_data_id IN (' . join(', ', @raw_of{@_}) . ')') }

# --------------------------------------------------------------------- tests

create_tables();
create_history();
sql(q{
	INSERT INTO batch SELECT n, (array['birth', 'death', 'prescription', 'molecular'])[n], 'provider', 'file', md5(n::text), 50
		FROM generate_series(1, 4) AS n;
	INSERT INTO pseudonym_key VALUES (1, 'first', 'all', '2023-01-01', NULL), (2, 'second', 'all', '2024-01-01', NULL);
	INSERT INTO project VALUES (1, 'a study', now())});
hold($ALICE, 'alone');
hold($BERT, 'twins of May');
hold($CARLA, 'twins of May');
hold($DAVE, 'twins of June');
hold($ERIN, 'twins of June');
hold($FRED, 'twins of July');
hold($GINA, 'twins of July');
guard_and_declare();

# What the owner of the database has looked at
sql("SELECT ndrs_optout.accept_gap(g.gap, g.relation, g.object, 'keeps versions, which are declared') FROM ndrs_optout.guard_coverage() AS g
	WHERE g.gap = 'trigger_may_copy_rows'");
sql("SELECT ndrs_optout.accept_gap(g.gap, g.relation, g.object, 'deliveries and keys are of no patient') FROM ndrs_optout.guard_coverage() AS g
	WHERE g.relation IN ('registry.batch'::regclass, 'registry.pseudonym_key'::regclass)");
is(sql('SELECT severity, gap, relation, object FROM ndrs_optout.guard_coverage()'), '', 'no gap is left in the registry');

erased($ALICE, 'a patient alone');
is(raw_rows('alone', 'alone, prescribed'), 0, 'raw data of one patient goes with the last row');

erased($BERT, 'the first of two who share raw data');
is(raw_rows('twins of May', 'twins of May, prescribed'), 2, 'what they share stays');
erased($CARLA, 'the second');
is(raw_rows('twins of May', 'twins of May, prescribed'), 0, 'and goes with the second');

erased($ERIN, 'two others, in the other order');
is(raw_rows('twins of June', 'twins of June, prescribed'), 2, 'what they share stays');
erased($DAVE, 'the second of them');
is(raw_rows('twins of June', 'twins of June, prescribed'), 0, 'and goes with the second');

my @traces = map { @{ traces($_) } } $FRED, $GINA;
my @jobs = map { start_sql($server, sprintf(q{CALL ndrs_optout.carry_out(%s, '%s')}, ready_case($server, $_), $_)) } $FRED, $GINA;
is(join(' ', map { (finish_sql($_))[0] } @jobs), '0 0', 'two who share raw data, at the same time');
is(join("\n", @{ rows_with(\@traces, all_rows()) }), '', 'nothing is left of either');
is(raw_rows('twins of July', 'twins of July, prescribed'), 0, 'nor what they shared');

is(sql(q{SELECT count(*) FROM patient UNION ALL SELECT count(*) FROM raw_data UNION ALL SELECT count(*) FROM version
	UNION ALL SELECT count(*) FROM batch}), "0\n0\n0\n4", 'the registry is empty but for its deliveries');

done_testing();
