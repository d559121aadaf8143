# What an erasure says when the tables' own code fails in it.
#
# The hazard: a trigger puts the row that it was given into its error, and the server
# a row that violates a constraint ("Failing row contains"), a key, the statement of a
# function.  The erasure is the moment at which that is a patient who opted out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('privacy_erasure', settings => q{
log_error_verbosity = verbose
log_min_error_statement = error
log_parameter_max_length_on_error = -1
});
install_extension($server);
$server->safe_psql('postgres', q{
	CREATE ROLE registrar;
	CREATE TABLE person (id int PRIMARY KEY, nhs text, name text, born date);
	CREATE TABLE birth (id int PRIMARY KEY, mother text, mother_name text, postcode text, UNIQUE NULLS NOT DISTINCT (mother_name));
	CREATE TABLE picture (id int, person int REFERENCES person ON DELETE SET NULL, caption text);
	ALTER TABLE person OWNER TO registrar;
	ALTER TABLE birth OWNER TO registrar;
	ALTER TABLE picture OWNER TO registrar;
	SELECT ndrs_optout.guard_table('person', 'nhs', '{cancer}'),
		ndrs_optout.guard_table('birth', 'mother', '{cancer}', 'redact', redact_columns => '{mother_name}');
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE
		held text := OLD::text;
	BEGIN
		CASE TG_ARGV[0]
			WHEN 'message' THEN RAISE 'no: %', held;
			WHEN 'fields' THEN RAISE 'no' USING ERRCODE = '23503', DETAIL = held, HINT = held,
				SCHEMA = 'public', TABLE = held, CONSTRAINT = held, COLUMN = held, DATATYPE = held;
			WHEN 'constraint' THEN RAISE 'no' USING ERRCODE = '23514', SCHEMA = 'public', TABLE = 'person', CONSTRAINT = held;
			WHEN 'context' THEN EXECUTE format('SELECT 1 / length(''''), %L', held);
			WHEN 'syntax' THEN EXECUTE held;
			WHEN 'case' THEN PERFORM held::int;
		END CASE;
		RETURN OLD;
	END $$;
});

# The patient is in every table, with words that must not be seen.
sub hold
{
	$server->safe_psql('postgres', qq{
		TRUNCATE person, birth, picture;
		DELETE FROM ndrs_optout.exclusion;
		INSERT INTO person VALUES (77001, '$PATIENT', 'Seeded Name', '1930-03-04');
		INSERT INTO birth VALUES (77002, '$PATIENT', 'Seeded Mother', 'QX9 7ZZ');
		INSERT INTO picture VALUES (77003, 77001, 'Seeded caption')});
	return;
}

# A case that fails at what the SQL sets up, and succeeds when that is undone
sub fails_silently
{
	my ($name, $set_up, $undo, $detail) = @_;

	subtest $name => sub {
		hold();
		$server->safe_psql('postgres', $set_up);
		my $case_id = ready_case($server, $PATIENT);
		new_log($server);
		my (undef, $output, $messages) = try_sql($server, "CALL ndrs_optout.carry_out($case_id, '$PATIENT')");
		my $everything = "$output\n$messages\n" . new_log($server) =~ s/ \[\d+\] / /gr;	# without process ids
		is(sqlstate($messages), 'ND030', 'refused') or diag($messages);
		like($messages, $detail, 'it says where to look');
		unlike($everything, qr/seeded|QX9|7700\d|1930-03-04|999[ -]?000/i, 'and nothing of a row, to neither side') or diag($everything);
		is(case_state($server, $case_id), 'excluded', 'the patient stays excluded');
		is($server->safe_psql('postgres', 'SELECT count(*) FROM person'), '1', 'nothing has happened');
		$server->safe_psql('postgres', "$undo; CALL ndrs_optout.carry_out($case_id, '$PATIENT'); SELECT ndrs_optout.complete_case($case_id)");
		is(case_state($server, $case_id), 'completed', 'it can be carried out when that is repaired');
	};
	return;
}

foreach my $how (qw(message fields constraint context syntax case))
{
	foreach my $at ('BEFORE DELETE ON person', 'AFTER UPDATE ON birth', 'BEFORE UPDATE ON picture')
	{
		fails_silently("a trigger, $at, $how", "CREATE TRIGGER fail $at FOR EACH ROW EXECUTE FUNCTION fail('$how')",
			'DROP TRIGGER fail ON ' . ($at =~ s/.* //r), qr/DETAIL:  [^\n]*SQLSTATE \w{5}/);
	}
}
fails_silently('a CHECK that a redaction violates',
	'ALTER TABLE birth ADD CONSTRAINT named CHECK (mother_name IS NOT NULL)', 'ALTER TABLE birth DROP CONSTRAINT named',
	qr/Constraint "named" of table public\.birth would be violated/);
fails_silently('a key that a redaction violates',
	"INSERT INTO birth VALUES (77004, NULL, NULL, 'QX9 7ZZ')", 'DELETE FROM birth WHERE id = 77004',
	qr/Constraint "birth_mother_name_key" of table public\.birth/);
fails_silently('a NOT NULL that an unlinked child has',
	'ALTER TABLE picture ALTER person SET NOT NULL', 'ALTER TABLE picture ALTER person DROP NOT NULL',
	qr/foreign key is to set person = NULL, and NOT NULL forbids that/);
$server->safe_psql('postgres', q{
	CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO public.note SELECT OLD.*; RETURN NULL; END $$});
fails_silently('a child that comes back',
	"CREATE TABLE note (person int REFERENCES person, words text); ALTER TABLE note OWNER TO registrar;
	 INSERT INTO note VALUES (77001, 'Seeded');
	 CREATE TRIGGER again AFTER DELETE ON note FOR EACH ROW EXECUTE FUNCTION again()",
	"BEGIN; DROP TABLE note; SELECT ndrs_optout.accept_gap('edge_lost', NULL, 'public.note (person) > public.person (id)', 'a test'); COMMIT",
	qr/Constraint "note_person_fkey" of table public\.note/);
fails_silently('a deferred constraint trigger',
	"CREATE CONSTRAINT TRIGGER fail AFTER DELETE ON person DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail('message')",
	'DROP TRIGGER fail ON person', qr/SQLSTATE P0001/);

subtest 'what runs when a table is searched' => sub {
	hold();
	$server->safe_psql('postgres', q{
		CREATE TABLE trap (person int REFERENCES person, words text);
		ALTER TABLE trap OWNER TO registrar;
		CREATE FUNCTION spring() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
		CREATE INDEX ON trap (person) WHERE spring() = 1;
		CREATE OR REPLACE FUNCTION spring() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
			RAISE 'no: %', (SELECT string_agg(t::text, ',') FROM public.person t); END $$});
	my $case_id = ready_case($server, $PATIENT);
	new_log($server);
	my (undef, $output, $messages) = try_sql($server, "CALL ndrs_optout.carry_out($case_id, '$PATIENT')");
	my $everything = "$output\n$messages\n" . new_log($server) =~ s/ \[\d+\] / /gr;
	like($messages, qr/could not search table public\.trap.*SQLSTATE/s, 'a function in the predicate of an index fails');
	unlike($everything, qr/seeded|QX9|7700\d|1930-03-04|999[ -]?000/i, 'and nothing of a row is told') or diag($everything);
	is(case_state($server, $case_id), 'excluded', 'the patient stays excluded');
};

done_testing();
