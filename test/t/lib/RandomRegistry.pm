# A registry by chance: tables that hang together in every way that the walk knows, with
# history, partitions and rows that several patients share, and what its owners do to it
# that could lose a patient's rows.
#
# Each row says whose it is in column mark, "m3m" for patient 3 and "m3m m4m" for a row of
# both, and its id begins with the patient's number.  So who looks for what is left of a
# patient needs to know nothing of the tables.
package RandomRegistry;

use strict;
use warnings;

use Exporter qw(import);
use OptoutServer;

our @EXPORT = qw(@PATIENTS number_of mark_of one_of chance create_random_registry described damage);

our @PATIENTS = (1 .. 4);
my $PER_PATIENT = 1_000_000;

sub number_of { return $TEST_NUMBERS[ $_[0] ] }
sub mark_of { return "m$_[0]m" }
sub one_of { return $_[ rand @_ ] }
sub some_of { my @some = grep { rand() < 0.5 } @_; return @some ? @some : one_of(@_) }
sub chance { return rand() < $_[0] }

# ------------------------------------------------------------------- tables

my $COLUMNS = 'id bigint NOT NULL, month date NOT NULL, mark text, first bigint, second bigint, address bigint';

# Tables of one world: t1, t2 ... each below an earlier one.  What the test has to know of
# each: name, kind, columns that refer, history.
sub create_random_registry
{
	my $count = 2 + int rand 4;
	my @tables = map { { name => "world.t$_", short => "t$_", kind => one_of('plain', 'plain', 'plain', 'hash', 'month', 'inherit'), edges => [] } } 1 .. $count;
	my %world = (tables => \@tables, owned => [], damaged => 0);
	my $sql = q{
		DROP SCHEMA IF EXISTS world CASCADE;
		CREATE SCHEMA world;
		CREATE TABLE world.versions (version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item_type text,
			item_id bigint, event text, object text);
	};

	# A key of several partitions holds the month, and no foreign key refers to one column of it.
	$tables[0]{kind} = one_of('plain', 'hash') if $tables[0]{kind} eq 'inherit';
	foreach my $table (@tables)
	{
		$table->{nhs} = one_of('text', 'bigint', 'ndrs_optout.nhs_number') if $table == $tables[0] || chance(0.2);
		$table->{other} = one_of('text', 'ndrs_optout.nhs_number') if chance(0.2);
		$sql .= create_table($table);
	}
	foreach my $n (1 .. $#tables)
	{
		my $table = $tables[$n];
		add_edge($table, 'first', $tables[ int rand $n ], 0);
		add_edge($table, 'second', one_of(@tables), 1) if chance(0.4);
	}
	add_edge($tables[0], 'second', one_of(@tables), 1) if chance(0.2);
	if (chance(0.5))
	{
		push @{ $world{owned} }, { name => 'world.address', users => [ some_of(grep { $_->{kind} ne 'inherit' } @tables) ] };
		$sql .= 'CREATE TABLE world.address (id bigint PRIMARY KEY, mark text);
			CREATE TABLE world.address_line (id bigint REFERENCES world.address ON DELETE CASCADE, mark text);
			CREATE INDEX ON world.address_line (id);';
	}
	$sql .= add_history($_) foreach grep { chance(0.3) } @tables;
	$sql .= insert_rows(\%world);
	$sql .= declare($_) foreach @tables;
	foreach my $owned (@{ $world{owned} })
	{
		$sql .= "ALTER TABLE $_->{name} ADD CONSTRAINT $_->{short}_address FOREIGN KEY (address) REFERENCES $owned->{name} " . one_of('', 'ON DELETE CASCADE', 'ON DELETE SET NULL') . ';'
		  . "CREATE INDEX ON $_->{name} (address);"
		  foreach @{ $owned->{users} };
		$sql .= declare_owned($owned);
	}
	$world{sql} = $sql;
	if (chance(0.2))
	{
		# Two owners of tables that refer to each other in a circle are refused.
		$world{owners} = 1;
		$world{sql} .= 'GRANT ALL ON SCHEMA world TO registry_a, registry_b; GRANT ALL ON ALL TABLES IN SCHEMA world TO registry_a, registry_b;'
		  . join '', map { "ALTER TABLE $_->{name} OWNER TO " . one_of('registry_a', 'registry_b') . ';' } @tables;
	}
	return \%world;
}

sub create_table
{
	my ($table) = @_;
	my ($name, $kind) = @$table{qw(name kind)};
	my $columns = $COLUMNS . ($table->{nhs} ? ", nhs $table->{nhs}" : '') . ($table->{other} ? ", other $table->{other}" : '');
	my $key = $kind eq 'month' ? 'id, month' : 'id';
	my $by = { hash => ' PARTITION BY HASH (id)', month => ' PARTITION BY RANGE (month)' }->{$kind} // '';
	my $sql = "CREATE TABLE $name ($columns, CONSTRAINT $table->{short}_pkey PRIMARY KEY ($key))$by;";

	$sql .= "CREATE TABLE ${name}_$_ PARTITION OF $name FOR VALUES WITH (MODULUS 2, REMAINDER $_);" foreach $kind eq 'hash' ? (0, 1) : ();
	$sql .= "CREATE TABLE ${name}_$_ PARTITION OF $name FOR VALUES FROM ('2024-0$_-01') TO ('2024-0" . ($_ + 1) . "-01');"
	  foreach $kind eq 'month' ? (1, 2) : ();
	$sql .= "CREATE TABLE ${name}_rest PARTITION OF $name DEFAULT;" if $kind eq 'month';
	$sql .= "CREATE TABLE ${name}_more () INHERITS ($name);" if $kind eq 'inherit';
	return $sql;
}

# loose: the reference does not say whose a row is, so it may also be cut.
sub add_edge
{
	my ($table, $column, $parent, $loose) = @_;
	my @kinds = ('', 'ON DELETE CASCADE', 'ON DELETE RESTRICT', 'DEFERRABLE INITIALLY DEFERRED');

	# Neither a foreign key to part of a key, nor one that binds the table's own children alone
	push @{ $table->{edges} }, { column => $column, parent => $parent, loose => $loose,
		foreign => $parent->{kind} =~ /month|inherit/ || $table->{kind} eq 'inherit' || chance(0.3) ? undef
		: one_of(@kinds, $loose ? ('ON DELETE SET NULL') x 4 : ()) };
	return;
}

# The references and guards, when the rows are there
sub declare
{
	my ($table) = @_;
	my $name = $table->{name};
	my $sql = $table->{nhs} ? "SELECT ndrs_optout.guard_table('$name', 'nhs', '{cancer}', '" . one_of('reject', 'skip') . "');" : '';
	$sql .= "SELECT ndrs_optout.guard_table('$name', 'other', '{cancer}', 'redact');" if $table->{other};

	foreach my $edge (@{ $table->{edges} })
	{
		$edge->{constraint} = "$table->{short}_$edge->{column}";
		$edge->{make} = defined $edge->{foreign}
		  ? "ALTER TABLE $name ADD CONSTRAINT $edge->{constraint} FOREIGN KEY ($edge->{column}) REFERENCES $edge->{parent}{name} (id) $edge->{foreign};"
		  : "SELECT ndrs_optout.declare_reference('$name', '{$edge->{column}}', '$edge->{parent}{name}', '{id}');";
		$sql .= $edge->{make} . "CREATE INDEX ON $name ($edge->{column});";
	}
	$sql .= declare_history($table) if $table->{history};
	return $sql;
}

sub declare_owned
{
	my ($owned) = @_;
	return join '', map { "SELECT ndrs_optout.declare_owned('$_->{name}', '{address}', '$owned->{name}', '{id}');" } @{ $owned->{users} };
}

# What keeps versions of a table's rows: a table of its own, or one for all, as text
sub add_history
{
	my ($table) = @_;
	my ($name, $short) = @$table{qw(name short)};
	my $events = one_of('UPDATE OR DELETE', 'DELETE', 'INSERT OR UPDATE OR DELETE');
	my $when = one_of('BEFORE', 'AFTER');

	# A number that is redacted in a row of somebody else can be redacted in a column alone.
	$table->{history} = $table->{other} ? 'own' : one_of('own', 'versions');
	my ($column, $value) = $table->{other} ? (', other', ', this.other') : ('', '');
	my $write = $table->{history} eq 'own'
	  ? "INSERT INTO ${name}_history (id, event, mark$column) VALUES (this.id, TG_OP, this.mark$value);"
	  : "INSERT INTO world.versions (item_type, item_id, event, object) VALUES ('$short', this.id, TG_OP, this::text);";
	return ($table->{history} eq 'own'
		? "CREATE TABLE ${name}_history (version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bigint, event text, mark text" . ($table->{other} ? ", other $table->{other});" : ');')
		  . "CREATE INDEX ON ${name}_history (id);"
		: "ALTER TABLE world.versions ADD COLUMN ${short}_id bigint GENERATED ALWAYS AS (CASE WHEN item_type = '$short' THEN item_id END) STORED;"
		  . "CREATE INDEX ON world.versions (${short}_id);")
	  . "CREATE FUNCTION world.${short}_history() RETURNS trigger LANGUAGE plpgsql AS \$\$ DECLARE this $name;"
	  . "BEGIN IF TG_OP = 'INSERT' THEN this := NEW; ELSE this := OLD; END IF; $write"
	  . "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END \$\$;"
	  . join '', map {
		"CREATE TRIGGER history $when $events ON $_ FOR EACH ROW EXECUTE FUNCTION world.${short}_history();"
	  } $name, $table->{kind} eq 'inherit' ? "${name}_more" : ();
}

sub declare_history
{
	my ($table) = @_;
	my $name = $table->{name};
	return $table->{history} eq 'own'
	  ? "SELECT ndrs_optout.declare_reference('${name}_history', '{id}', '$name', '{id}');"
	  . ($table->{other} ? "SELECT ndrs_optout.guard_table('${name}_history', 'other', '{cancer}', 'redact');" : '')
	  : "SELECT ndrs_optout.declare_reference('world.versions', '{$table->{short}_id}', '$name', '{id}');";
}

# --------------------------------------------------------------------- rows

sub insert_rows
{
	my ($world) = @_;
	my (%ids, $sql);
	my $next = 0;

	foreach my $owned (@{ $world->{owned} })
	{
		foreach my $patients ((map { [$_] } @PATIENTS), [ 1, 2 ], [ 2, 3 ], [ 1, 2, 3 ])
		{
			my $id = 9 * $PER_PATIENT + ++$next;
			my $mark = join ' ', map { mark_of($_) } @$patients;
			push @{ $owned->{ids} }, { id => $id, patients => $patients };
			$sql .= "INSERT INTO $owned->{name} VALUES ($id, '$mark');";
		}
	}
	foreach my $table (@{ $world->{tables} })
	{
		my ($primary) = grep { $_->{column} eq 'first' } @{ $table->{edges} };
		foreach my $patient (@PATIENTS)
		{
			foreach (1 .. 1 + rand 3)
			{
				my $id = $patient * $PER_PATIENT + ++$next;
				my $month = "'2024-0" . (1 + int rand 4) . "-05'";
				my $parent = $primary ? one_of(@{ $ids{ $primary->{parent}{name} }{$patient} }) : 'NULL';
				my $number = !$table->{nhs} ? '' : ', ' . ($primary && chance(0.3) ? 'NULL' : "'" . number_of($patient) . "'");
				$number .= !$table->{other} ? '' : ', ' . one_of('NULL', "'" . number_of(one_of(@PATIENTS)) . "'");
				my $into = $table->{name} . ($table->{kind} eq 'inherit' && chance(0.5) ? '_more' : '');
				push @{ $ids{ $table->{name} }{$patient} }, $id;
				$sql .= "INSERT INTO $into VALUES ($id, $month, '" . mark_of($patient) . "', $parent, NULL, NULL$number);";
			}
		}
	}
	foreach my $table (@{ $world->{tables} })
	{
		foreach my $edge (grep { $_->{loose} } @{ $table->{edges} })
		{
			foreach my $patient (@PATIENTS)
			{
				# Of somebody else where the reference can be cut
				my $whose = ($edge->{foreign} // '') =~ /SET NULL/ && chance(0.3) ? one_of(@PATIENTS) : $patient;
				$sql .= "UPDATE $table->{name} SET second = " . one_of(@{ $ids{ $edge->{parent}{name} }{$whose} }) . " WHERE id = $_;"
				  foreach grep { chance(0.6) } @{ $ids{ $table->{name} }{$patient} };
			}
		}
	}
	foreach my $owned (@{ $world->{owned} })
	{
		foreach my $this (@{ $owned->{ids} })
		{
			# Each patient of the mark refers to it at least once.
			foreach my $patient (@{ $this->{patients} })
			{
				my $table = one_of(@{ $owned->{users} });
				my @free = grep { !$owned->{used}{$_} } map { @{ $ids{ $_->{name} }{$patient} } } @{ $owned->{users} };
				my $id = @free ? one_of(@free) : next;
				$owned->{used}{$id} = 1;
				$sql .= "UPDATE $_->{name} SET address = $this->{id} WHERE id = $id;" foreach @{ $owned->{users} };
			}
		}
		# What no row came to refer to belongs to nobody.
		$sql .= "DELETE FROM $owned->{name} a WHERE NOT EXISTS (SELECT FROM (" . join(' UNION ALL ', map { "SELECT address FROM $_->{name}" } @{ $owned->{users} }) . ") AS u WHERE u.address = a.id);";
		$sql .= "UPDATE $owned->{name} a SET mark = (SELECT string_agg(DISTINCT u.mark, ' ') FROM (" . join(' UNION ALL ', map { "SELECT address, mark FROM $_->{name}" } @{ $owned->{users} }) . ") AS u WHERE u.address = a.id);"
		  . "INSERT INTO world.address_line SELECT id, mark FROM world.address;";
	}
	$world->{ids} = \%ids;
	return $sql;
}

# The tables in a line each, for who has to find out what went wrong
sub described
{
	my ($world) = @_;
	return join '', map {
		"$_->{short} $_->{kind}"
		  . join('', map { defined $_->[1] ? ", $_->[0] $_->[1]" : '' } [ 'number', $_->{nhs} ], [ 'other number', $_->{other} ], [ 'history', $_->{history} ])
		  . join('', map { ", $_->{column} -> $_->{parent}{short} " . ($_->{foreign} // 'declared') } @{ $_->{edges} }) . "\n"
	} @{ $world->{tables} };
}

# ------------------------------------------------------------------- damage

# What owners do: each takes a table and says, as SQL, what is done to it; nothing where it
# cannot be done to that table.
my %DAMAGES = (
	'foreign key dropped' => sub {
		my ($table) = @_;
		my ($edge) = grep { defined $_->{foreign} } @{ $table->{edges} } or return;
		return "ALTER TABLE $table->{name} DROP CONSTRAINT $edge->{constraint};";
	},
	'table swapped' => sub {
		my ($table) = @_;
		return if $table->{kind} ne 'plain';
		my ($name, $short) = @$table{qw(name short)};
		return "CREATE TABLE ${name}_new (LIKE $name INCLUDING ALL); INSERT INTO ${name}_new SELECT * FROM $name;"
			. "ALTER TABLE $name RENAME TO ${short}_old; ALTER TABLE ${name}_new RENAME TO $short;"
			. (chance(0.7) ? "DROP TABLE ${name}_old CASCADE;" : '');
	},
	'partition detached' => sub {
		my ($table) = @_;
		my $part = { hash => '1', month => one_of('1', '2') }->{ $table->{kind} } // return;
		return "ALTER TABLE $table->{name} DETACH PARTITION $table->{name}_$part;";
	},
	'column exchanged' => sub {
		my ($table) = @_;
		my $name = $table->{name};
		my $column = one_of('id', 'first');
		return "ALTER TABLE $name RENAME $column TO kept; ALTER TABLE $name ADD COLUMN $column bigint;"
			. "UPDATE $name SET $column = m.least + m.greatest - kept FROM (SELECT min(kept) AS least, max(kept) AS greatest FROM $name) AS m;";
	},
	'column renamed' => sub {
		my ($table) = @_;
		my $column = one_of('id', 'first', $table->{nhs} ? 'nhs' : ());
		return "ALTER TABLE $table->{name} RENAME $column TO renamed;";
	},
	'foreign key made anew' => sub {
		my ($table) = @_;
		my ($edge) = grep { defined $_->{foreign} } @{ $table->{edges} } or return;
		return "ALTER TABLE $table->{name} DROP CONSTRAINT $edge->{constraint}; $edge->{make}";
	},
	'table renamed' => sub { return "ALTER TABLE $_[0]{name} RENAME TO renamed;" },
	'table moved' => sub { return "CREATE SCHEMA elsewhere; ALTER TABLE $_[0]{name} SET SCHEMA elsewhere;" },
	'child no longer inherits' => sub {
		my ($table) = @_;
		return if $table->{kind} ne 'inherit';
		return "ALTER TABLE $table->{name}_more NO INHERIT $table->{name};";
	},
	'copied and dropped' => sub {
		my ($table) = @_;
		return "CREATE TABLE world.copy AS SELECT * FROM $table->{name}; DROP TABLE $table->{name} CASCADE;";
	},
	'column made anew' => sub {
		my ($table) = @_;
		return "ALTER TABLE $table->{name} ADD COLUMN anew bigint; UPDATE $table->{name} SET anew = first;"
			. "ALTER TABLE $table->{name} DROP COLUMN first CASCADE; ALTER TABLE $table->{name} RENAME anew TO first;";
	},
	'type changed' => sub { return "ALTER TABLE $_[0]{name} ALTER COLUMN first TYPE numeric;" },
);

# What loses nothing, but that the functions of the history know names
my $HARMLESS = qr/^(?:foreign key made anew|table renamed|table moved|type changed)$/;

# What can be put right by what the gaps say, without knowing better
my $REPAIRABLE = qr/^(?:foreign key dropped|partition detached)$/;

# One damage, in a table where it can be done
sub damage
{
	my ($world) = @_;
	for (1 .. 20)
	{
		my $name = one_of(sort keys %DAMAGES);
		my $sql = $DAMAGES{$name}->(my $table = one_of(@{ $world->{tables} })) or next;
		return { name => $name, table => $table, sql => $sql, repairable => !!($name =~ $REPAIRABLE),
			harmless => $name =~ $HARMLESS && !grep { $_->{history} } @{ $world->{tables} } };
	}
	die 'nothing can be damaged';
}

1;
