# Every routine, table, column, sequence and type, tried by every kind of role.
#
# The hazard: a right that was given by accident.  So nothing is listed here but
# what PUBLIC may execute.  Each role connects, and really calls, reads and changes
# everything that the catalogues name, and what the server answers is compared with
# table duty_privilege.  Then everything that a role without a duty may call is
# called with an NHS number before its patient is excluded and after: whatever
# differs would tell who has opted out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use Test::More;

# What everybody may execute who can name it, and the routines among these that answer
# nobody who calls them by name, with the words of a missing right.
my %PUBLIC = map { $_ => 1 } qw(
  begin_procedure guard_admits guard_finds guard_misencoded guard_number guard_row guard_unreadable words
  nhs_number nhs_number_cmp nhs_number_eq nhs_number_format nhs_number_ge nhs_number_gt nhs_number_in nhs_number_out
  nhs_number_recv nhs_number_send
  nhs_number_hash nhs_number_hash_extended nhs_number_is_placeholder nhs_number_le
  nhs_number_lt nhs_number_ne nhs_number_or_null
  nhs_number_in nhs_number_out nhs_number_recv nhs_number_send);
my %ANSWERS_NOBODY = map { $_ => 1 } qw(guard_finds guard_misencoded);

# Roles by what they have: a duty; USAGE on the schema, which a grant to a role that
# has a duty as well, or an administrator's mistake, gives; rights on guarded tables.
my @DUTIES = qw(officer loader analyst auditor steward);
my @WITHOUT = qw(nobody owner);    # cannot name anything
my @GUESTS = qw(guest guest_owner guest_loader guest_deleter guest_updater);
my $REGISTER = 'rare_disease';    # of which $PATIENT opts out
my $MOST_CALLS = 400;    # of one routine, with one role's arguments

my $server = new_server('privileges');
install_extension($server);
$server->safe_psql('postgres', join ";\n",
	'SET client_min_messages = warning',
	(map { "CREATE ROLE $_ LOGIN" } @DUTIES, @WITHOUT, @GUESTS),
	(map { "SELECT ndrs_optout.grant_access('$_', '$_')" } @DUTIES),
	(map { "GRANT USAGE ON SCHEMA ndrs_optout TO $_" } 'loader', @GUESTS),
	(map { "CREATE SCHEMA of_$_ AUTHORIZATION $_" } @DUTIES, @WITHOUT, @GUESTS),
	'CREATE TABLE patient (id int PRIMARY KEY, nhs_number text)',
	(map { "CREATE TABLE of_$_.patient (id int PRIMARY KEY, nhs_number text); ALTER TABLE of_$_.patient OWNER TO $_" }
		@DUTIES, @WITHOUT, @GUESTS),
	(map { "SELECT ndrs_optout.guard_table('$_', 'nhs_number', '{cancer}')" }
		qw(patient of_owner.patient of_guest_owner.patient)),
	'CREATE TABLE other_register (nhs_number text, note text)',
	"SELECT ndrs_optout.guard_table('other_register', 'nhs_number', '{$REGISTER}')",
	"INSERT INTO patient VALUES (1, '$TEST_NUMBERS[4]')",
	'GRANT SELECT ON patient, other_register TO PUBLIC',
	'GRANT INSERT ON patient TO guest_loader, loader',
	'GRANT DELETE ON patient, other_register TO guest_deleter',
	'GRANT INSERT (note), UPDATE (note) ON other_register TO guest_updater',
	q{
		CREATE SCHEMA attempt;
		CREATE TABLE attempt.statement (id int PRIMARY KEY, role name, object text, privilege text, allowed boolean,
			keeps boolean, form text, statement text);
		CREATE TABLE attempt.result (round int, id int, state text, answer text, PRIMARY KEY (round, id));
		GRANT USAGE ON SCHEMA attempt TO PUBLIC;
		GRANT SELECT ON attempt.statement TO PUBLIC;
		GRANT INSERT ON attempt.result TO PUBLIC;

		-- With the rights of whoever calls it.  What a statement did stays only when it "keeps".
		CREATE FUNCTION attempt.run(round int) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog AS $$
		DECLARE
			this record;
			answer text;
			state text;
			message text;
			detail text;
			hint text;
			tried bigint := 0;
		BEGIN
			FOR this IN SELECT * FROM attempt.statement s WHERE s.role = session_user ORDER BY s.id LOOP
				answer := NULL;
				BEGIN
					IF this.form = 'query' THEN
						EXECUTE format('SELECT string_agg(v::text, %L) FROM (%s) AS v', E'\n', this.statement) INTO answer;
					ELSE
						EXECUTE this.statement;
					END IF;
					IF NOT this.keeps THEN
						RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(answer, 'NULL');
					END IF;
					state := '00000';
				EXCEPTION WHEN OTHERS THEN
					GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
						detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
					answer := concat_ws('; ', message, nullif(detail, ''), nullif(hint, ''));
				END;
				tried := tried + 1;
				INSERT INTO attempt.result VALUES (run.round, this.id, state, answer);
			END LOOP;
			RETURN tried;
		END $$;
	});

# Rows of a catalogue query
sub rows
{
	my ($sql) = @_;
	return map { [ split /\|/, $_, -1 ] } split /\n/, $server->safe_psql('postgres', $sql);
}

# ------------------------------------------------------------------ what may be done

my %given = map { ("$_->[0] $_->[1] $_->[2] $_->[3]" => 1) }
  rows('SELECT duty, object_kind, name, privilege FROM ndrs_optout.duty_privilege');

sub may
{
	my ($role, $kind, $name, $privilege) = @_;
	return 1 if $kind eq 'type';
	return 1 if $kind eq 'routine' && $PUBLIC{$name};
	return $given{"$role $kind $name $privilege"} ? 1 : 0;
}

# -------------------------------------------------------------- what is tried

my @statements;    # rows of attempt.statement

sub add
{
	my (%this) = @_;
	push @statements, [ scalar @statements, @this{qw(role object privilege allowed keeps form statement)} ];
	return;
}

sub add_copy
{
	my $path = $server->basedir . '/statements';
	my $first = $server->safe_psql('postgres', 'SELECT count(*) FROM attempt.statement');
	open my $file, '>', $path or die "$path: $!";
	foreach (@statements[ $first .. $#statements ])
	{
		print {$file} join("\t", map { s/\\/\\\\/gr =~ s/\n/\\n/gr =~ s/\t/ /gr } @$_), "\n";
	}
	close $file or die "$path: $!";
	$server->safe_psql('postgres', "COPY attempt.statement FROM '$path'");
	return;
}

# Who connects, and tries all that there is for it
sub run_as
{
	my ($round, @roles) = @_;
	foreach my $role (@roles)
	{
		my ($tried, $messages) = ('', '');
		$server->psql('postgres', "SELECT attempt.run($round)",
			stdout => \$tried, stderr => \$messages, extra_params => [ '-U', $role ]);
		cmp_ok($tried || 0, '>', 0, "$role came to the end of round $round") or diag($messages);
	}
	return;
}

my $encoded = $server->safe_psql('postgres', "SELECT ndrs_optout.encode_nhs_number('$PATIENT')");
my @registers = ("'{$REGISTER}'", "'{cancer}'");

# Values of a type: NULL first, then whatever could be made something of
sub values_of
{
	my ($type, $role) = @_;
	my %values = (
		'text' => [ "'allow'", "'$PATIENT'", "'$REGISTER'" ],
		'cstring' => ["'$PATIENT'"],
		'name' => ["'$role'"],
		'bigint' => [ 1, $PATIENT ],
		'oid' => [ "'public.other_register'::regclass", "'of_$role.patient'::regclass" ],
		'regclass' => [ "'public.other_register'", "'of_$role.patient'" ],
		'regrole' => ["'$role'"],
		'regtype' => ["'text'"],
		'text[]' => [@registers],
		'date' => ['current_date'],
		'boolean' => ['true'],
		'jsonb' => ["'{}'"],
		'integer' => [1],
		'ndrs_optout.nhs_number' => [ "'$PATIENT'", "'$NEIGHBOUR'" ],
		'ndrs_optout.nhs_number[]' => ["'{$PATIENT}'"],
		'ndrs_optout.encoded_nhs_number' => ["'$encoded'"]);
	return ("NULL::$type", map { "$_\::$type" } @{ $values{$type} // [] });
}

# Calls of a routine.  Arguments come from a row, for what is strict is not called
# with constant NULLs.
sub calls
{
	my ($role, $routine, $kind, $most, @types) = @_;
	my @lists = ([]);
	foreach my $type (@types)
	{
		my @values = $type eq 'anyelement'
		  ? map { values_of($_, $role) } 'text', 'bigint', $most > 1 ? 'ndrs_optout.nhs_number' : ()
		  : values_of($type eq 'anyarray' ? 'text[]' : $type, $role);
		@lists = map { my $list = $_; map { [ @$list, $_ ] } @values } @lists;
		@lists = @lists[ map { int $_ * @lists / $most } 0 .. $most - 1 ] if @lists > $most;
	}
	return map {
		my @list = @$_;
		my $names = join ', ', map { "v.a$_" } 0 .. $#list;
		my $columns = join ', ', (map { "$list[$_] AS a$_" } 0 .. $#list), '1 AS one';
		$kind eq 'p' ? "CALL $routine(" . join(', ', @list) . ')' : "SELECT $routine($names) FROM (SELECT $columns OFFSET 0) AS v"
	} @lists;
}

my @routines = rows(q{
	SELECT p.proname, p.oid::regproc, p.prokind, p.oid, array_to_string(ARRAY(
			SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n) ORDER BY n), ';')
		FROM pg_proc p WHERE p.pronamespace = 'ndrs_optout'::regnamespace ORDER BY p.oid});
my @relations = rows(q{
	SELECT c.relname, c.oid::regclass, CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END
		FROM pg_class c WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind IN ('r', 'v', 'p', 'm', 'f', 'S')
		ORDER BY c.oid});
my @columns = rows(q{
	SELECT c.relname, c.oid::regclass, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind IN ('r', 'v', 'p', 'm', 'f')
			AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 2, 3});
my @types = rows(q{
	SELECT t.typname, t.oid::regtype FROM pg_type t WHERE t.typnamespace = 'ndrs_optout'::regnamespace ORDER BY t.oid});

my %by_relation = (
	SELECT => 'SELECT FROM %s',
	INSERT => 'INSERT INTO %s DEFAULT VALUES',
	DELETE => 'DELETE FROM %s',
	TRUNCATE => 'TRUNCATE %s',
	TRIGGER => 'CREATE TRIGGER t BEFORE INSERT ON %s FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()');
my %by_sequence = (USAGE => q{SELECT nextval('%s')}, SELECT => 'TABLE %s', UPDATE => q{SELECT setval('%s', 1)});

sub add_everything_for
{
	my ($role) = @_;
	my $is_nobody = !grep { $_ eq $role } @DUTIES;
	my %common = (role => $role, keeps => $is_nobody ? 't' : 'f', form => 'command');
	foreach my $relation (@relations)
	{
		my ($name, $object, $kind) = @$relation;
		my %by = $kind eq 'sequence' ? %by_sequence : %by_relation;
		add(%common, object => $object, privilege => $_, allowed => may($role, $kind, $name, $_),
			statement => sprintf($by{$_}, $object)) foreach sort keys %by;
	}
	foreach my $column (@columns)
	{
		my ($name, $object, $attribute) = @$column;
		add(%common, object => "$object.$attribute", privilege => 'UPDATE', allowed => may($role, 'table', $name, 'UPDATE'),
			statement => qq{UPDATE $object SET "$attribute" = DEFAULT});
		add(%common, object => "$object.$attribute", privilege => 'REFERENCES', allowed => may($role, 'table', $name, 'REFERENCES'),
			statement => qq{CREATE TABLE of_$role.r (LIKE $object, FOREIGN KEY ("$attribute") REFERENCES $object ("$attribute"))})
		  if may($role, 'table', $name, 'SELECT');
	}
	foreach my $type (@types)
	{
		my ($name, $object) = @$type;
		add(%common, object => $object, privilege => 'USAGE', allowed => 1,
			statement => "CREATE TABLE of_$role.\"$name\" (c $object); DROP TABLE of_$role.\"$name\"");
	}
	foreach my $routine (@routines)
	{
		my ($name, $object, $kind, undef, $arguments) = @$routine;
		my @arguments = split /;/, $arguments;
		next if grep { $_ eq 'internal' } @arguments;    # cannot be called by anybody
		my $allowed = may($role, 'routine', $name, 'EXECUTE');
		my $most = $allowed && $is_nobody ? $MOST_CALLS : 3;
		add(%common, object => "$object($arguments)", privilege => 'EXECUTE', allowed => $allowed,
			form => $kind eq 'p' ? 'command' : 'query', statement => $_)
		  foreach calls($role, $object, $kind, $most, @arguments);
	}
	return;
}

# ------------------------------------------------------ in more roundabout ways

# What an answer by way of is: a boolean that a constraint of one's own, a trigger, an
# index, a statistic or a column of one's own computes.  Each is one command.
sub add_ways_for
{
	my ($role) = @_;
	my $t = "of_$role.probe";
	my $admits = "ndrs_optout.guard_admits(%s, %s, nhs_number, '{$REGISTER}', 'allow', 'reject')";
	my $insert = "INSERT INTO $t VALUES (1, '$PATIENT'); DROP TABLE $t";
	my $table = "CREATE TABLE $t (id int, nhs_number text";
	my $row = "EXECUTE FUNCTION ndrs_optout.guard_row('1', 'nhs_number', '', 'reject', 'allow', 'reject', '1', '$REGISTER', '0')";
	my %ways;
	foreach my $told (qw(public.patient public.other_register), "of_$role.patient", $t)
	{
		my $name = "regclass '$told'";
		$ways{"a constraint that says it is of $told"} = "$table); "
		  . "ALTER TABLE $t ADD CHECK (" . sprintf($admits, 'tableoid', $name) . "); $insert";
		$ways{"a constraint that says it is of and in $told"} = "$table); "
		  . "ALTER TABLE $t ADD CHECK (" . sprintf($admits, $name, $name) . "); $insert";
		$ways{"a call for $told that is locked"} = "$table); INSERT INTO $t VALUES (1, '$PATIENT');"
		  . "LOCK TABLE $told IN ROW EXCLUSIVE MODE; DELETE FROM $t WHERE " . sprintf($admits, $name, $name);
		$ways{"a call while $told is changed"} = "DELETE FROM $told WHERE "
		  . sprintf($admits, $name, $name) =~ s/nhs_number, '/'$PATIENT'::text, '/r;
	}
	$ways{'a trigger on a table of one\'s own'} = "$table); CREATE TRIGGER t BEFORE INSERT ON $t FOR EACH ROW $row; $insert";
	$ways{'a trigger on a guarded table of one\'s own'} =
	  "CREATE TRIGGER t BEFORE INSERT ON of_$role.patient FOR EACH ROW $row; INSERT INTO of_$role.patient VALUES (1, '$PATIENT')";
	$ways{'a constraint on a guarded table of one\'s own'} = "ALTER TABLE of_$role.patient ADD CHECK ("
	  . sprintf($admits, 'tableoid', "regclass 'of_$role.patient'") . "); INSERT INTO of_$role.patient VALUES (1, '$PATIENT')";
	$ways{"a copy of $_"} = "CREATE TABLE $t (LIKE $_ INCLUDING ALL); INSERT INTO $t (nhs_number) VALUES ('$PATIENT')"
	  foreach qw(public.other_register public.patient);
	$ways{"an index with $_"} = "$table); INSERT INTO $t VALUES (1, '$PATIENT'); CREATE INDEX ON $t (id) WHERE $_"
	  foreach "ndrs_optout.guard_finds(nhs_number, '{$REGISTER}', '')";
	$ways{"a column with $_"} = "$table, c boolean DEFAULT $_); INSERT INTO $t (nhs_number) VALUES ('$PATIENT')"
	  foreach "ndrs_optout.guard_finds('$PATIENT'::text, '{$REGISTER}', '')";
	add(role => $role, object => $_, privilege => 'by way of', allowed => 'f', keeps => 'f', form => 'command',
		statement => $ways{$_}) foreach sort keys %ways;
	return;
}

add_everything_for($_) foreach @WITHOUT, @GUESTS, @DUTIES;
add_ways_for($_) foreach @GUESTS, 'loader';
add_copy();

# All that is in the extension's tables and sequences
sub content
{
	my @tables = map { $_->[1] } grep { $_->[2] eq 'table' } @relations;
	my $sql = join ' UNION ALL ', (map {
		"SELECT '$_->[1]', count(*)::text, md5(string_agg(t::text, ',' ORDER BY t::text)) FROM $_->[1] AS t"
	} rows(q{SELECT relname, oid::regclass FROM pg_class WHERE relnamespace = 'ndrs_optout'::regnamespace AND relkind = 'r'})),
	  q{SELECT schemaname || '.' || sequencename, last_value::text, '' FROM pg_sequences WHERE schemaname = 'ndrs_optout'};
	return $server->safe_psql('postgres', "$sql ORDER BY 1");
}

# Of the round's results: what was not as it should be
sub wrong
{
	my ($round, $which) = @_;
	return $server->safe_psql('postgres', qq{
		SELECT format('%s: %s %s: %s %s (%s)', s.role, s.privilege, s.object, r.state, r.answer, s.statement)
			FROM attempt.statement s JOIN attempt.result r USING (id)
			WHERE r.round = $round AND $which ORDER BY s.id LIMIT 20});
}

my $without = "s.role IN ('" . join("', '", @WITHOUT) . "')";
my $refused = q{(r.state = '42501' AND (r.answer ~ '^(permission denied for|must be owner of)'))};
# The server asks something else first: a view and an identity column take no value, and a
# column that is no key is not referred to.
my $cannot = q{r.state IN ('55000', '42809', '428C9', '0A000', '42830')};
my $answers_nobody = "s.privilege = 'EXECUTE' AND s.object ~ 'ndrs_optout[.](" . join('|', sort keys %ANSWERS_NOBODY) . ")[(]'";

my $before = content();
my @nobodies = (@WITHOUT, @GUESTS);
run_as(1, @nobodies);
is(content(), $before, 'nothing that a role without a duty does changes anything in the extension');
run_as(1, @DUTIES);

is(wrong(1, qq{$without AND NOT (r.state = '42501' AND r.answer = 'permission denied for schema ndrs_optout')}),
	'', 'who has no duty cannot name anything');
is(wrong(1, qq{NOT $without AND s.privilege <> 'by way of' AND NOT s.allowed AND NOT $refused
		AND NOT (s.privilege NOT IN ('EXECUTE', 'SELECT', 'USAGE') AND $cannot)}),
	'', 'what is in no duty is refused');
is(wrong(1, qq{NOT $without AND s.privilege <> 'by way of' AND s.allowed AND r.state = '42501' AND NOT ($answers_nobody)}),
	'', 'what is in a duty is not refused, nor is anything that it calls');
is(wrong(1, qq{NOT $without AND $answers_nobody AND r.answer <> '()' AND (r.state, r.answer) IS DISTINCT FROM
		('42501', 'permission denied for function ' || substring(s.object FROM '[.](\\w+)'))}),
	'', 'what only searches answers nobody');

# By the catalogue as well, where a call does not tell, or cannot be made
my $public_routines = "'" . join("', '", sort keys %PUBLIC) . "'";
is($server->safe_psql('postgres', qq{
		SELECT p.oid::regprocedure, has_function_privilege('public', p.oid, 'EXECUTE') FROM pg_proc p
			WHERE p.pronamespace = 'ndrs_optout'::regnamespace
				AND has_function_privilege('public', p.oid, 'EXECUTE') <> (p.proname IN ($public_routines))}),
	'', 'PUBLIC may execute what is listed here, and all of it');
is($server->safe_psql('postgres', q{
		SELECT c.oid::regclass, a.attname FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL
			WHERE c.relnamespace = 'ndrs_optout'::regnamespace
				AND (a.attacl IS NOT NULL OR EXISTS (SELECT FROM aclexplode(c.relacl) AS x WHERE x.grantee = 0))}),
	'', 'PUBLIC has no right on a table or a column');
my %tried = map { $_->[0] => $_->[1] } rows(q{
	SELECT role, count(DISTINCT (object, privilege)) FROM attempt.statement JOIN attempt.result USING (id) GROUP BY role});
cmp_ok($tried{$_} // 0, '>', 800, "$_ tried everything") foreach @nobodies, @DUTIES;

# ----------------------------------------------------- before an opt-out and after

# A child of a guarded table, whose owner asks about the patient while an erasure of
# somebody else runs its trigger
$server->safe_psql('postgres', 'GRANT REFERENCES ON patient TO guest');
$server->psql('postgres', qq{
	CREATE TABLE of_guest.child (patient_id int REFERENCES public.patient ON DELETE CASCADE);
	CREATE TABLE of_guest.heard (answer text);
	CREATE FUNCTION of_guest.ask() RETURNS trigger LANGUAGE plpgsql AS \$\$
	DECLARE
		call text;
		answer boolean;
	BEGIN
		FOREACH call IN ARRAY ARRAY[
			\$q\$ndrs_optout.guard_matches('$PATIENT'::text, '{$REGISTER}')\$q\$,
			\$q\$ndrs_optout.guard_finds('$PATIENT'::text, '{$REGISTER}', NULL)\$q\$,
			\$q\$ndrs_optout.guard_finds('$PATIENT'::text, '{$REGISTER}', '')\$q\$,
			\$q\$ndrs_optout.guard_misencoded('$PATIENT'::text, '$encoded', '')\$q\$,
			\$q\$ndrs_optout.guard_admits('public.patient'::regclass, 'public.patient', '$PATIENT'::text, '{$REGISTER}', 'allow', 'reject')\$q\$,
			\$q\$ndrs_optout.guard_admits('public.other_register'::regclass, 'public.other_register', '$PATIENT'::text, '{$REGISTER}', 'allow', 'reject')\$q\$,
			\$q\$ndrs_optout.guard_admits('of_guest.heard'::regclass, 'of_guest.heard', '$PATIENT'::text, '{$REGISTER}', 'allow', 'reject')\$q\$
		] LOOP
			BEGIN
				EXECUTE 'SELECT ' || call INTO answer;
				INSERT INTO of_guest.heard VALUES (call || ': ' || coalesce(answer::text, 'NULL'));
			EXCEPTION WHEN OTHERS THEN
				INSERT INTO of_guest.heard VALUES (call || ': ' || SQLSTATE || ' ' || SQLERRM);
			END;
		END LOOP;
		RETURN OLD;
	END \$\$;
	CREATE TRIGGER ask BEFORE DELETE ON of_guest.child FOR EACH ROW EXECUTE FUNCTION of_guest.ask();
	CREATE CONSTRAINT TRIGGER ask_late AFTER DELETE ON of_guest.child DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION of_guest.ask();
}, extra_params => [ '-U', 'guest' ]);

sub heard_by_a_trigger
{
	return $server->safe_psql('postgres', qq{
		DELETE FROM of_guest.heard;
		INSERT INTO patient VALUES (7, '$TEST_NUMBERS[5]');
		INSERT INTO of_guest.child VALUES (7);
		SELECT FROM ndrs_optout.erase('$TEST_NUMBERS[5]', '{cancer}');
		SELECT answer FROM of_guest.heard});
}

my $heard = heard_by_a_trigger();
cmp_ok(scalar(split /\n/, $heard), '>=', 10, 'a trigger asks while an erasure runs');
$server->safe_psql('postgres', "SELECT ndrs_optout.exclude('$PATIENT', '{$REGISTER}')");
is(heard_by_a_trigger(), $heard, 'and is told the same after an opt-out as before');

$before = content();
run_as(2, @nobodies, 'loader');
is(content(), $before, 'nor after an opt-out');
is($server->safe_psql('postgres', q{
	SELECT format('%s, %s: %s %s before, %s %s after (%s)', s.role, s.object, a.state, a.answer, b.state, b.answer, s.statement)
		FROM attempt.statement s JOIN attempt.result a ON a.id = s.id AND a.round = 1
		JOIN attempt.result b ON b.id = s.id AND b.round = 2
		WHERE (a.state, a.answer) IS DISTINCT FROM (b.state, b.answer) ORDER BY s.id LIMIT 20}),
	'', 'who has no duty is told the same of a patient after an opt-out as before');

# That there is something to tell: whoever may insert into a table of the register is told.
$server->safe_psql('postgres', 'GRANT INSERT ON other_register TO guest_loader');
refused_with($server, '23N01', "INSERT INTO other_register VALUES ('$PATIENT')",
	'a loader of the register is told', extra_params => [ '-U', 'guest_loader' ]);

# And a right to other columns is enough for rows that keep their number, or have none.
is((try_sql($server, "INSERT INTO other_register (note) VALUES ('a'); UPDATE other_register SET note = 'b'",
		extra_params => [ '-U', 'guest_updater' ]))[2], '', 'who may write to other columns does so');

$server->stop;
done_testing();
