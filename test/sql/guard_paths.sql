-- Every way into a guarded table: the index of them.  doc/security.md has the table for readers.
SET search_path = public, ndrs_optout;
-- The notices of DROP ... IF EXISTS have the statements of functions below as context.
SET log_min_messages = error;
SELECT exclude('9990000018', '{cancer}');

-- Persons are told by a letter: A, B, C and D may be held, X is excluded.
CREATE FUNCTION person(number nhs_number) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE number::text WHEN '9990000018' THEN 'X' WHEN '9990000026' THEN 'A' WHEN '9990000034' THEN 'B'
        WHEN '9990000042' THEN 'C' WHEN '9990000050' THEN 'D' ELSE '?' END
$$;

-- A way writes row 1 for {1}, who is always A, and row 2 for {2}: once B, once X.
-- "made" makes the table before it is guarded, where {C} and {D} may be in it.
CREATE TABLE way (
    name text PRIMARY KEY,
    load text NOT NULL,
    made text NOT NULL DEFAULT 'CREATE TABLE guarded (id int PRIMARY KEY, nhs text, name text)',
    place int GENERATED ALWAYS AS IDENTITY
);

-- Try one, and undo it: the SQLSTATE if it failed, and what the table then holds.
-- "2B": row 2 is B's.  "2-": row 2 has lost number and name.
CREATE FUNCTION attempt(w way, number text, on_match text, mechanism text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    filled text[] := ARRAY(SELECT replace(replace(replace(replace(t, '{1}', '9990000026'), '{2}', number),
        '{C}', '9990000042'), '{D}', '9990000050') FROM unnest(ARRAY[w.made, w.load]) AS t);
    refused text;
    held text;
BEGIN
    EXECUTE filled[1];
    BEGIN
        PERFORM guard_table('guarded', 'nhs', '{cancer}', on_match, mechanism => mechanism,
            redact_columns => CASE on_match WHEN 'redact' THEN '{name}' ELSE '{}' END::name[]);
    EXCEPTION WHEN wrong_object_type THEN
        RAISE EXCEPTION 'undo';
    END;
    BEGIN
        EXECUTE filled[2];
    EXCEPTION WHEN OTHERS THEN
        refused := SQLSTATE;
    END;
    EXECUTE $q$
        SELECT string_agg(id || CASE WHEN nhs IS NOT NULL THEN person(guard_number(nhs)) WHEN name IS NULL THEN '-' ELSE '?' END,
            ' ' ORDER BY id) FROM guarded
        $q$ INTO held;
    RAISE EXCEPTION 'undo';
EXCEPTION WHEN raise_exception THEN
    RETURN coalesce(nullif(concat_ws(' ', refused, held), ''), 'cannot');
END
$$;

-- Staging tables, a role that may do nothing but what it is granted, and a copy of a row.
CREATE TABLE staging (id int, nhs text, name text);
ALTER TABLE staging ALTER nhs SET STORAGE EXTERNAL;
CREATE ROLE regress_paths_loader;
CREATE FUNCTION copy_row() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO guarded VALUES (NEW.id, NEW.nhs, NEW.name); RETURN NEW; END $$;
CREATE FUNCTION rewrite_row() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.id = 2 THEN NEW.nhs := TG_ARGV[0]; END IF; RETURN NEW; END $$;

-- INSERT
INSERT INTO way (name, load) VALUES
('INSERT, one row each', $$
    INSERT INTO guarded VALUES (1, '{1}', 'n');
    INSERT INTO guarded VALUES (2, '{2}', 'n') $$),
('INSERT, several rows', $$
    INSERT INTO guarded VALUES (2, '{2}', 'n'), (1, '{1}', 'n') $$),
('INSERT ... SELECT', $$
    INSERT INTO guarded SELECT i, CASE i WHEN 1 THEN '{1}' ELSE '{2}' END, 'n' FROM generate_series(1, 2) AS i $$),
('INSERT ... RETURNING', $$
    WITH r AS (INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') RETURNING *) INSERT INTO staging SELECT * FROM r $$),
('INSERT in a writable CTE', $$
    WITH w AS (INSERT INTO guarded VALUES (1, '{1}', 'n') RETURNING *), v AS (INSERT INTO guarded VALUES (2, '{2}', 'n'))
        SELECT count(*) FROM w $$),
('INSERT of a default', $$
    ALTER TABLE guarded ALTER nhs SET DEFAULT '{2}';
    INSERT INTO guarded (id, name) VALUES (2, 'n');
    ALTER TABLE guarded ALTER nhs SET DEFAULT '{1}';
    INSERT INTO guarded (id, name) VALUES (1, 'n') $$),
('INSERT out of TOAST, separators by the thousand', $$
    INSERT INTO staging SELECT i, replace(CASE i WHEN 1 THEN '{1}' ELSE '{2}' END, '000', '000' || repeat(' ', 100000)), 'n'
        FROM generate_series(1, 2) AS i;
    INSERT INTO guarded SELECT * FROM staging $$),
('INSERT after RENAME and SET SCHEMA', $$
    ALTER TABLE guarded RENAME TO renamed;
    CREATE SCHEMA moved;
    ALTER TABLE renamed SET SCHEMA moved;
    INSERT INTO moved.renamed VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    ALTER TABLE moved.renamed SET SCHEMA public;
    ALTER TABLE renamed RENAME TO guarded $$),
('INSERT ... ON CONFLICT DO NOTHING', $$
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') ON CONFLICT DO NOTHING $$),
('TRUNCATE and INSERT again', $$
    INSERT INTO guarded VALUES (1, '{C}', 'n');
    TRUNCATE guarded;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('INSERT after a rewrite by ADD COLUMN ... DEFAULT', $$
    INSERT INTO guarded VALUES (1, '{1}', 'n');
    ALTER TABLE guarded ADD added float DEFAULT random();
    INSERT INTO guarded VALUES (2, '{2}', 'n') $$);
INSERT INTO way (name, made, load) VALUES
('INSERT ... ON CONFLICT DO UPDATE, as the new row',
    $$ CREATE TABLE guarded (id int PRIMARY KEY, nhs text, name text);
       INSERT INTO guarded VALUES (2, '{D}', 'n') $$, $$
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n')
        ON CONFLICT (id) DO UPDATE SET nhs = EXCLUDED.nhs, name = EXCLUDED.name $$),
('INSERT ... ON CONFLICT DO UPDATE, as the change',
    $$ CREATE TABLE guarded (id int PRIMARY KEY, nhs text, name text);
       INSERT INTO guarded VALUES (1, '{C}', 'n'), (2, '{D}', 'n') $$, $$
    INSERT INTO guarded VALUES (1, '{C}', 'n'), (2, '{D}', 'n')
        ON CONFLICT (id) DO UPDATE SET nhs = CASE guarded.id WHEN 1 THEN '{1}' ELSE '{2}' END $$),
('INSERT with a generated column',
    $$ CREATE TABLE guarded (id int, nhs text, name text, g text GENERATED ALWAYS AS (replace(nhs, ' ', '')) STORED) $$, $$
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('INSERT of a domain''s default',
    $$ CREATE DOMAIN number AS text CHECK (length(VALUE) = 10);
       CREATE TABLE guarded (id int, nhs number, name text) $$, $$
    ALTER DOMAIN number SET DEFAULT '{2}';
    INSERT INTO guarded (id, nhs, name) VALUES (1, '{1}', 'n'), (2, DEFAULT, 'n') $$),
('INSERT of an identity''s next value',
    $$ CREATE TABLE guarded (id int, nhs bigint GENERATED BY DEFAULT AS IDENTITY, name text) $$, $$
    INSERT INTO guarded (id, nhs, name) VALUES (1, {1}, 'n');
    ALTER TABLE guarded ALTER nhs RESTART WITH {2};
    INSERT INTO guarded (id, name) VALUES (2, 'n') $$),
('INSERT into an unlogged table',
    $$ CREATE UNLOGGED TABLE guarded (id int, nhs text, name text) $$, $$
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$);

-- COPY: the server runs the program in its data directory.
INSERT INTO way (name, load) VALUES
('COPY, text', $$
    COPY guarded FROM PROGRAM 'printf "1\t{1}\tn\n2\t{2}\tn\n"' $$),
('COPY, CSV', $$
    COPY guarded (name, nhs, id) FROM PROGRAM 'printf "name,nhs,id\nn,\"{2}\",2\nn,{1},1\n"' (FORMAT csv, HEADER match) $$),
('COPY, binary', $$
    COPY (VALUES (1, '{1}'::text, 'n'::text), (2, '{2}', 'n')) TO PROGRAM 'cat > guard_paths.copy' (FORMAT binary);
    COPY guarded FROM PROGRAM 'cat guard_paths.copy && rm guard_paths.copy' (FORMAT binary) $$),
('COPY ... FREEZE', $$
    TRUNCATE guarded;
    COPY guarded FROM PROGRAM 'printf "1\t{1}\tn\n2\t{2}\tn\n"' (FREEZE) $$),
('COPY to a view with an INSTEAD OF trigger', $$
    CREATE VIEW v AS SELECT * FROM guarded;
    CREATE TRIGGER t INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION copy_row();
    COPY v FROM PROGRAM 'printf "1\t{1}\tn\n2\t{2}\tn\n"' $$);

-- UPDATE, of the persons C and D who were there
INSERT INTO way (name, made, load)
SELECT name, $$ CREATE TABLE guarded (id int PRIMARY KEY, nhs text, name text);
                INSERT INTO guarded VALUES (1, '{C}', 'n'), (2, '{D}', 'n') $$, load FROM (VALUES
('UPDATE', $$
    UPDATE guarded SET nhs = '{1}' WHERE id = 1;
    UPDATE guarded SET nhs = '{2}' WHERE id = 2 $$),
('UPDATE ... FROM', $$
    INSERT INTO staging VALUES (1, '{1}'), (2, '{2}');
    UPDATE guarded SET nhs = s.nhs FROM staging s WHERE s.id = guarded.id $$),
('UPDATE through a cursor', $$
    DO $do$
    DECLARE
        c CURSOR FOR SELECT * FROM guarded FOR UPDATE;
    BEGIN
        FOR r IN c LOOP
            UPDATE guarded SET nhs = CASE r.id WHEN 1 THEN '{1}' ELSE '{2}' END WHERE CURRENT OF c;
        END LOOP;
    END
    $do$ $$),
('UPDATE through a view', $$
    CREATE VIEW v AS SELECT id, nhs AS number FROM guarded WHERE id < 10 WITH CHECK OPTION;
    UPDATE v SET number = CASE id WHEN 1 THEN '{1}' ELSE '{2}' END $$),
('MERGE, when matched', $$
    MERGE INTO guarded USING (VALUES (1, '{1}'), (2, '{2}')) AS s (id, nhs) ON guarded.id = s.id
        WHEN MATCHED THEN UPDATE SET nhs = s.nhs $$)) AS v (name, load);
INSERT INTO way (name, load) VALUES
('MERGE, when not matched', $$
    MERGE INTO guarded USING (VALUES (1, '{1}'), (2, '{2}')) AS s (id, nhs) ON guarded.id = s.id
        WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.nhs, 'n') $$);
INSERT INTO way (name, made, load) VALUES
('UPDATE of something else in a row that was there',
    $$ CREATE TABLE guarded (id int, nhs text, name text); INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$, $$
    UPDATE guarded SET name = 'm' $$),
('foreign key, ON UPDATE CASCADE',
    $$ CREATE TABLE person (nhs text PRIMARY KEY); INSERT INTO person VALUES ('{C}'), ('{D}');
       CREATE TABLE guarded (id int, nhs text REFERENCES person ON UPDATE CASCADE, name text);
       INSERT INTO guarded VALUES (1, '{C}', 'n'), (2, '{D}', 'n') $$, $$
    UPDATE person SET nhs = CASE nhs WHEN '{C}' THEN '{1}' ELSE '{2}' END $$),
('foreign key, ON DELETE SET DEFAULT',
    $$ CREATE TABLE person (nhs text PRIMARY KEY); INSERT INTO person VALUES ('{1}'), ('{D}');
       CREATE TABLE guarded (id int, nhs text REFERENCES person ON DELETE SET DEFAULT, name text);
       INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{D}', 'n') $$, $$
    INSERT INTO person VALUES ('{2}');
    ALTER TABLE guarded ALTER nhs SET DEFAULT '{2}';
    DELETE FROM person WHERE nhs = '{D}' $$);

-- Partitions and children: the partition for 2025 numbers its columns otherwise.
INSERT INTO way (name, made, load)
SELECT name, $$ CREATE TABLE guarded (id int, nhs text, name text, year int DEFAULT 2025) PARTITION BY LIST (year);
                CREATE TABLE guarded_2024 PARTITION OF guarded FOR VALUES IN (2024);
                CREATE TABLE guarded_2025 (gone int, year int DEFAULT 2025, name text, nhs text, id int);
                ALTER TABLE guarded_2025 DROP gone;
                ALTER TABLE guarded ATTACH PARTITION guarded_2025 FOR VALUES IN (2025);
                CREATE TABLE guarded_rest PARTITION OF guarded DEFAULT PARTITION BY LIST (year); $$ || made, load FROM (VALUES
('INSERT into a partitioned table', '', $$
    INSERT INTO guarded VALUES (1, '{1}', 'n', 2024), (2, '{2}', 'n', 2025) $$),
('INSERT into a leaf partition', '', $$
    INSERT INTO guarded_2025 (id, nhs, name) VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('INSERT into a partition of a partition, made later', '', $$
    CREATE TABLE guarded_2030 PARTITION OF guarded_rest FOR VALUES IN (2030);
    INSERT INTO guarded VALUES (1, '{1}', 'n', 2030), (2, '{2}', 'n', 2030) $$),
('INSERT into a partition attached later', '', $$
    CREATE TABLE guarded_2026 (LIKE guarded INCLUDING CONSTRAINTS);
    ALTER TABLE guarded ATTACH PARTITION guarded_2026 FOR VALUES IN (2026);
    INSERT INTO guarded VALUES (1, '{1}', 'n', 2026), (2, '{2}', 'n', 2026) $$),
('COPY into a partitioned table', '', $$
    COPY guarded FROM PROGRAM 'printf "1\t{1}\tn\t2024\n2\t{2}\tn\t2025\n"' $$),
('COPY into a leaf partition', '', $$
    COPY guarded_2025 (id, nhs, name) FROM PROGRAM 'printf "1\t{1}\tn\n2\t{2}\tn\n"' $$),
('MERGE into a partitioned table', $$
                INSERT INTO guarded VALUES (2, '{D}', 'n', 2024) $$, $$
    MERGE INTO guarded USING (VALUES (1, '{1}'), (2, '{2}')) AS s (id, nhs) ON guarded.id = s.id
        WHEN MATCHED THEN UPDATE SET nhs = s.nhs
        WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.nhs, 'n', 2024) $$),
('UPDATE that moves rows, with their number', $$
                INSERT INTO guarded VALUES (1, '{C}', 'n', 2024), (2, '{D}', 'n', 2024) $$, $$
    UPDATE guarded SET year = 2025, nhs = CASE id WHEN 1 THEN '{1}' ELSE '{2}' END $$),
('UPDATE that moves rows that were there', $$
                INSERT INTO guarded VALUES (1, '{1}', 'n', 2024), (2, '{2}', 'n', 2024) $$, $$
    UPDATE guarded SET year = 2025 $$),
('one partition''s trigger disabled', '', $$
    SET LOCAL ndrs_optout.allow_unguarded = on; SET LOCAL client_min_messages = error;
    ALTER TABLE guarded_2025 DISABLE TRIGGER ALL;
    INSERT INTO guarded VALUES (1, '{1}', 'n', 2024), (2, '{2}', 'n', 2025) $$)) AS v (name, made, load);
INSERT INTO way (name, load) VALUES
('INSERT into an INHERITS child', $$
    CREATE TABLE child (more text) INHERITS (guarded);
    INSERT INTO child VALUES (1, '{1}', 'n', 'm'), (2, '{2}', 'n', 'm') $$),
('INSERT into a child of a child with other columns', $$
    CREATE TABLE child () INHERITS (guarded);
    CREATE TABLE grandchild (more text, LIKE child INCLUDING CONSTRAINTS);
    ALTER TABLE grandchild INHERIT child;
    INSERT INTO grandchild (id, nhs, name) VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('UPDATE of an INHERITS child', $$
    CREATE TABLE child () INHERITS (guarded);
    INSERT INTO child VALUES (1, '{C}', 'n'), (2, '{D}', 'n');
    UPDATE guarded SET nhs = CASE id WHEN 1 THEN '{1}' ELSE '{2}' END $$);

-- By way of something else
INSERT INTO way (name, load) VALUES
('INSERT through a view', $$
    CREATE VIEW v AS SELECT id, nhs AS number, name FROM guarded;
    INSERT INTO v VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('INSERT through a view with an INSTEAD OF trigger', $$
    CREATE VIEW v AS SELECT * FROM guarded;
    CREATE TRIGGER t INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION copy_row();
    INSERT INTO v VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('INSERT through a rule, INSTEAD', $$
    CREATE RULE r AS ON INSERT TO staging DO INSTEAD INSERT INTO guarded VALUES (NEW.*);
    INSERT INTO staging VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('INSERT through a rule, ALSO', $$
    CREATE RULE r AS ON INSERT TO staging DO ALSO INSERT INTO guarded VALUES (NEW.*);
    INSERT INTO staging VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('an AFTER trigger elsewhere that copies rows', $$
    CREATE TRIGGER t AFTER INSERT ON staging FOR EACH ROW EXECUTE FUNCTION copy_row();
    INSERT INTO staging VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('a deferred trigger elsewhere that copies rows', $$
    CREATE CONSTRAINT TRIGGER t AFTER INSERT ON staging INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION copy_row();
    INSERT INTO staging VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    SET CONSTRAINTS ALL IMMEDIATE $$),
('a SECURITY DEFINER function', $$
    CREATE FUNCTION add(int, text) RETURNS void LANGUAGE sql SECURITY DEFINER AS $f$ INSERT INTO guarded VALUES ($1, $2, 'n') $f$;
    SET LOCAL ROLE regress_paths_loader;
    SELECT add(1, '{1}'), add(2, '{2}');
    RESET ROLE $$),
('a loop in PL/pgSQL', $$
    DO $do$
    BEGIN
        FOR i IN 1 .. 2 LOOP
            INSERT INTO guarded VALUES (i, CASE i WHEN 1 THEN '{1}' ELSE '{2}' END, 'n');
        END LOOP;
    END
    $do$ $$),
('PREPARE and EXECUTE, generic plan', $$
    DEALLOCATE ALL;
    SET LOCAL plan_cache_mode = force_generic_plan;
    PREPARE p (int, text) AS INSERT INTO guarded VALUES ($1, $2, 'n');
    EXECUTE p (1, '{1}');
    EXECUTE p (2, '{2}') $$);

-- Triggers that do not run, or run later
INSERT INTO way (name, load) VALUES
('session_replication_role = replica', $$
    SET LOCAL session_replication_role = replica;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    RESET session_replication_role $$),
('DISABLE TRIGGER ALL', $$
    SET LOCAL ndrs_optout.allow_unguarded = on; SET LOCAL client_min_messages = error;
    ALTER TABLE guarded DISABLE TRIGGER ALL;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('DISABLE TRIGGER ALL, COPY', $$
    SET LOCAL ndrs_optout.allow_unguarded = on; SET LOCAL client_min_messages = error;
    ALTER TABLE guarded DISABLE TRIGGER ALL;
    COPY guarded FROM PROGRAM 'printf "1\t{1}\tn\n2\t{2}\tn\n"' $$),
('DROP TRIGGER', $$
    SET LOCAL ndrs_optout.allow_unguarded = on; SET LOCAL client_min_messages = error;
    DROP TRIGGER IF EXISTS ndrs_optout_guard_2 ON guarded;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('an earlier-named trigger that rewrites the number', $$
    CREATE TRIGGER a BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION rewrite_row('{2}');
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{D}', 'n') $$),
('a later-named trigger that rewrites the number', $$
    CREATE TRIGGER z BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION rewrite_row('{2}');
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{D}', 'n') $$);

-- Roles
INSERT INTO way (name, load) VALUES
('a role with INSERT only', $$
    GRANT INSERT ON guarded TO regress_paths_loader;
    SET LOCAL ROLE regress_paths_loader;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    RESET ROLE $$),
('row-level security, WITH CHECK', $$
    GRANT INSERT ON guarded TO regress_paths_loader;
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded FOR INSERT WITH CHECK (id < 3);
    SET LOCAL ROLE regress_paths_loader;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    RESET ROLE $$),
('row-level security that hides the list', $$
    GRANT INSERT ON guarded TO regress_paths_loader;
    ALTER TABLE ndrs_optout.exclusion ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    SET LOCAL ROLE regress_paths_loader;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    RESET ROLE $$),
('names that stand before ours', $$
    CREATE TEMP TABLE exclusion (register text, encoded_nhs_number text);
    CREATE TEMP TABLE register (code text, name text);
    CREATE TEMP TABLE guard (target regclass);
    CREATE FUNCTION pg_temp.guard_admits(oid, regclass, anyelement, text[], text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION pg_temp.nhs_number_or_null(text) RETURNS text LANGUAGE sql AS 'SELECT NULL';
    CREATE SCHEMA first
        CREATE TABLE exclusion (register text, encoded_nhs_number text)
        CREATE TABLE register (code text, name text);
    CREATE FUNCTION first.guard_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION first.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR first.= (LEFTARG = text, RIGHTARG = text, FUNCTION = first.never);
    SET LOCAL search_path = first, pg_temp, public, ndrs_optout, pg_catalog;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    SET LOCAL search_path = public, ndrs_optout $$);

-- Executors
INSERT INTO way (name, load) VALUES
('compiled expressions (JIT)', $$
    SET LOCAL jit = on;
    SET LOCAL jit_above_cost = 0;
    SET LOCAL jit_optimize_above_cost = -1;
    SET LOCAL jit_inline_above_cost = 0;
    INSERT INTO guarded VALUES (1, '{1}', 'n'), (2, '{2}', 'n') $$),
('rows of a parallel query, out of a function', $$
    SET LOCAL parallel_setup_cost = 0;
    SET LOCAL parallel_tuple_cost = 0;
    SET LOCAL min_parallel_table_scan_size = 0;
    CREATE FUNCTION f() RETURNS SETOF staging LANGUAGE plpgsql AS $f$ BEGIN RETURN QUERY SELECT * FROM staging; END $f$;
    INSERT INTO staging VALUES (1, '{1}', 'n'), (2, '{2}', 'n');
    INSERT INTO guarded SELECT * FROM f() $$);

-- "others": the same under all four guards, with A and B.  "cannot": this column cannot be guarded so.
SET client_min_messages = warning;
CREATE TABLE outcome AS
SELECT w.place, w.name,
       (SELECT string_agg(DISTINCT nullif(attempt(w, '9990000034', on_match, mechanism), 'cannot'), ' / ')
            FROM (VALUES ('reject', 'both'), ('skip', 'both'), ('redact', 'both'), ('reject', 'constraint')) AS g (on_match, mechanism)) AS others,
       attempt(w, '9990000018', 'reject', 'both') AS reject,
       attempt(w, '9990000018', 'skip', 'both') AS skip,
       attempt(w, '9990000018', 'redact', 'both') AS redact,
       attempt(w, '9990000018', 'reject', 'constraint') AS "constraint",
       w.made LIKE '%{2}%' AS was_there
    FROM way w;
RESET client_min_messages;
SELECT name, others, reject, skip, redact, "constraint" FROM outcome ORDER BY place;

-- In words, with no row to contradict: A and B enter on every way; X is nowhere but where X was before; each guard did
-- what it was told, or the error is 23N01.
SELECT name FROM outcome WHERE NOT was_there AND concat(reject, skip, redact, "constraint") LIKE '%X%'
    OR others <> '1A 2B'
    OR reject NOT LIKE '23N01%' OR "constraint" NOT LIKE '23N01%'
    OR skip NOT LIKE '23N01%' AND skip NOT IN ('1A', '1A 2D')
    OR redact NOT IN ('23N01', '1A 2-', 'cannot');

-- However the number is written: a is 999, b 000, c the rest.
CREATE TABLE form (place int GENERATED ALWAYS AS IDENTITY, name text, type text, template text, digits text DEFAULT '0123456789');
INSERT INTO form (name, type, template) VALUES
    ('ten digits', 'text', 'abc'),
    ('spaces', 'text', 'a b c'),
    ('hyphens', 'text', 'a-b-c'),
    ('no-break spaces', 'text', E'a\u00A0b\u00A0c'),
    ('figure spaces', 'text', E'a\u2007b\u2007c'),
    ('narrow no-break spaces', 'text', E'a\u202Fb\u202Fc'),
    ('typographic hyphens', 'text', E'a\u2010b\u2011c'),
    ('blanks around', 'text', E'\t abc \r\n'),
    ('padded', 'char(12)', 'abc');
INSERT INTO form (name, type, template, digits) VALUES
    ('full-width digits', 'text', E'abc', E'\uFF10\uFF11\uFF12\uFF13\uFF14\uFF15\uFF16\uFF17\uFF18\uFF19'),
    ('Arabic-Indic digits', 'text', E'abc', E'\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669');
INSERT INTO form (name, type, template) VALUES
    ('integer', 'bigint', 'abc'),
    ('with a scale', 'numeric(12,2)', 'abc'),
    ('with an exponent', 'numeric', 'a.bce7'),
    ('type nhs_number', 'nhs_number', 'a b c'),
    ('zero-width spaces', 'text', E'a\u200Bb\u200Bc'),
    ('byte-order mark', 'text', E'\uFEFFabc'),
    ('soft hyphens', 'text', E'a\u00ADb\u00ADc'),
    ('dashes', 'text', E'a\u2013b\u2013c'),
    ('thin spaces', 'text', E'a\u2009b\u2009c'),
    ('quoted', 'text', '"abc"'),
    ('with a word', 'text', 'NHS abc'),
    ('as a fraction', 'text', 'abc.0'),
    ('digits after it', 'text', 'abc000'),
    ('twice', 'text', 'abc abc'),
    ('negative', 'bigint', '-abc'),
    ('with a fraction', 'numeric', 'abc.5');
CREATE FUNCTION attempt(f form, number text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    value text := translate(replace(replace(replace(f.template, 'a', left(number, 3)), 'b', substr(number, 4, 3)),
        'c', right(number, 4)), '0123456789', f.digits);
    entered bigint;
BEGIN
    EXECUTE format('CREATE TABLE guarded (nhs %s)', f.type);
    PERFORM guard_table('guarded', 'nhs', '{cancer}', 'skip');
    EXECUTE format('INSERT INTO guarded VALUES (%L)', value);
    GET DIAGNOSTICS entered = ROW_COUNT;
    RAISE EXCEPTION 'undo';
EXCEPTION
    WHEN raise_exception THEN RETURN CASE entered WHEN 0 THEN 'skipped' ELSE 'enters' END;
    WHEN SQLSTATE '23N02' THEN RETURN SQLSTATE;
END
$$;
SELECT name, type, attempt(f, '9990000026') AS other, attempt(f, '9990000018') AS excluded FROM form f ORDER BY place;

-- A number that begins with zeros, which a column of digits has lost.  None is issued.
SELECT exclude('0000000019', '{cancer}');
CREATE TABLE zeros (b bigint, n numeric, t text);
SELECT guard_table('zeros', 'b', '{cancer}', 'skip'), guard_table('zeros', 'n', '{cancer}', 'skip'), guard_table('zeros', 't', '{cancer}', 'skip');
INSERT INTO zeros (b) VALUES (19), (27);
INSERT INTO zeros (n) VALUES (19), (19.00), (27);
INSERT INTO zeros (t) VALUES ('0000000019'), ('000 000 0019'), ('0000000027');
INSERT INTO zeros (t) VALUES ('19');
\echo :SQLSTATE
SELECT * FROM zeros ORDER BY b, n, t;
SELECT unguard_table('zeros'), readmit('0000000019', '{cancer}');
DROP TABLE zeros;

-- The list changes under what goes on.
CREATE TABLE guarded (id int GENERATED ALWAYS AS IDENTITY, nhs text);
SELECT guard_table('guarded', 'nhs', '{cancer}', 'skip');

-- A prepared statement that has its generic plan
PREPARE prepared (text) AS INSERT INTO guarded (nhs) VALUES ($1), ('9990000026') RETURNING person(nhs_number_or_null(nhs));
\o /dev/null
EXECUTE prepared ('9990000042'); EXECUTE prepared ('9990000042'); EXECUTE prepared ('9990000042');
EXECUTE prepared ('9990000042'); EXECUTE prepared ('9990000042'); EXECUTE prepared ('9990000042');
\o
SELECT generic_plans > 0 AS generic FROM pg_prepared_statements WHERE name = 'prepared';
EXECUTE prepared ('9990000042');
SELECT exclude('9990000042', '{cancer}');
EXECUTE prepared ('9990000042');
SELECT readmit('9990000042', '{cancer}');
EXECUTE prepared ('9990000042');
SET plan_cache_mode = force_custom_plan;
SELECT exclude('9990000042', '{cancer}');
EXECUTE prepared ('9990000042');
RESET plan_cache_mode;
SELECT readmit('9990000042', '{cancer}');
DEALLOCATE prepared;

-- Parallel workers, which look with the transaction's own exclusion
BEGIN;
SET LOCAL max_parallel_workers_per_gather = 2;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT count(*) FROM guarded WHERE guard_matches(nhs, '{cancer}');
SELECT count(*) FROM guarded WHERE guard_matches(nhs, '{cancer}');
SELECT exclude('9990000042', '{cancer}');
SELECT count(*) FILTER (WHERE nhs = '9990000042') = count(*) AND count(*) > 0 AS all_of_them
    FROM (SELECT nhs FROM guarded WHERE guard_matches(nhs, '{cancer}')) AS g;
ROLLBACK;

-- A loop, which keeps its statement's plan: passes 4 to 6 come after the exclusion, 7 is rolled back with a readmission.
TRUNCATE guarded;
DO $$
BEGIN
    FOR pass IN 1 .. 9 LOOP
        CASE pass
            WHEN 4 THEN PERFORM exclude('9990000042', '{cancer}');
            WHEN 7 THEN
                BEGIN
                    PERFORM readmit('9990000042', '{cancer}');
                    INSERT INTO guarded (nhs) VALUES ('9990000042');
                    RAISE EXCEPTION 'undo';
                EXCEPTION WHEN raise_exception THEN
                    NULL;
                END;
            WHEN 8 THEN PERFORM readmit('9990000042', '{cancer}');
            ELSE NULL;
        END CASE;
        INSERT INTO guarded OVERRIDING SYSTEM VALUE VALUES (pass, '9990000042'), (10 * pass, '9990000026');
    END LOOP;
END
$$;
SELECT string_agg(id::text, ' ' ORDER BY id) FROM guarded;

-- One statement that excludes by what it calls: from then on, no row.
TRUNCATE guarded;
CREATE FUNCTION exclude_at(i int) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN IF i = 4 THEN PERFORM exclude('9990000042', '{cancer}'); END IF; RETURN '9990000042'; END $$;
INSERT INTO guarded OVERRIDING SYSTEM VALUE SELECT i, exclude_at(i) FROM generate_series(1, 9) AS i;
SELECT string_agg(id::text, ' ' ORDER BY id) FROM guarded;
SELECT readmit('9990000042', '{cancer}');

-- Operators and functions of a caller's do not stand before ours when the list is written.
CREATE SCHEMA regress_first;
CREATE FUNCTION regress_first.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR regress_first.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_first.never);
CREATE FUNCTION regress_first.encode_nhs_number(nhs_number) RETURNS encoded_nhs_number LANGUAGE sql
    AS $$ SELECT '00000000000000000000000000000000'::ndrs_optout.encoded_nhs_number $$;
SET search_path = regress_first, ndrs_optout, public, pg_catalog;
SELECT exclude('9990000042', '{cancer}');
INSERT INTO guarded (nhs) VALUES ('9990000042'), ('9990000026') RETURNING nhs;
SELECT readmit('9990000042', '{cancer}');
INSERT INTO guarded (nhs) VALUES ('9990000042'), ('9990000026') RETURNING nhs;
SET search_path = public, ndrs_optout;
DROP SCHEMA regress_first CASCADE;
SELECT unguard_table('guarded');
DROP TABLE guarded;

-- What the server itself refuses: a part of the guard cannot be missing in a part of the table.
CREATE TABLE guarded (id int, nhs text, year int) PARTITION BY LIST (year);
CREATE TABLE guarded_2024 PARTITION OF guarded FOR VALUES IN (2024);
CREATE TABLE plain (id int, nhs text);
SELECT guard_table('guarded', 'nhs', '{cancer}', 'skip'), guard_table('plain', 'nhs', '{cancer}', 'skip');
CREATE TABLE stray (id int, nhs text, year int);
ALTER TABLE guarded ATTACH PARTITION stray FOR VALUES IN (2025);
ALTER TABLE stray INHERIT plain;
DROP TRIGGER ndrs_optout_guard_2 ON guarded_2024;
ALTER TABLE guarded_2024 DROP CONSTRAINT ndrs_optout_guard_2;
CREATE TABLE child () INHERITS (plain);
ALTER TABLE child DROP CONSTRAINT ndrs_optout_guard_2;
DROP TABLE child;

-- A table that is swapped for another: the copy of the constraint refuses, and holds on to the guarded table.
CREATE TABLE swapped (LIKE plain INCLUDING ALL);
INSERT INTO swapped VALUES (1, '9990000026');
INSERT INTO swapped VALUES (2, '9990000018');
\echo :SQLSTATE
DROP TABLE plain;
DROP TABLE swapped;
-- A partition that is detached while it is empty keeps its constraint, and has no trigger any more.
ALTER TABLE guarded DETACH PARTITION guarded_2024;
INSERT INTO guarded_2024 VALUES (1, '9990000026', 2024);
INSERT INTO guarded_2024 VALUES (2, '9990000018', 2024);
\echo :SQLSTATE

-- What the sentry refuses: rows that come in with a table, or with a rewritten column.
INSERT INTO stray VALUES (1, '9990000018', 2025);
SELECT format('ALTER TABLE stray ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) AS add_constraint
    FROM pg_constraint WHERE conrelid = 'guarded'::regclass AND conname LIKE 'ndrs_optout_guard_%' \gset
:add_constraint;
ALTER TABLE guarded ATTACH PARTITION stray FOR VALUES IN (2025);
INSERT INTO plain VALUES (1, '9990000026');
ALTER TABLE plain ALTER nhs TYPE text USING '9990000018';
SELECT (SELECT count(*) FROM guarded WHERE guard_matches(nhs, '{cancer}')) AS attached,
       (SELECT count(*) FROM plain WHERE guard_matches(nhs, '{cancer}')) AS rewritten;
DROP TABLE stray;

-- What the guard does not cover, each shown to be so.
-- NOT COVERED: a new table.
INSERT INTO staging VALUES (1, '9990000018');
CREATE TABLE made_by_as AS SELECT * FROM staging;
SELECT * INTO made_by_into FROM staging;
CREATE TABLE made_like (LIKE plain);
INSERT INTO made_like SELECT id, nhs FROM staging;
CREATE MATERIALIZED VIEW made_view AS SELECT * FROM staging;
SELECT (SELECT count(*) FROM made_by_as) AS by_as, (SELECT count(*) FROM made_by_into) AS by_into,
       (SELECT count(*) FROM made_like) AS "like", (SELECT count(*) FROM made_view) AS view;
DROP TABLE made_by_as, made_by_into, made_like;
DROP MATERIALIZED VIEW made_view;
-- NOT COVERED: what cannot be read, under a guard that was told to allow it.
SELECT unguard_table('plain'), guard_table('plain', 'nhs', '{cancer}', on_unreadable => 'allow');
INSERT INTO plain VALUES (2, E'999\u2013000\u20130018');

SELECT unguard_table(target) FROM (SELECT DISTINCT target FROM guard) AS g;
DELETE FROM guard_tally;
DELETE FROM exclusion;
DROP FUNCTION attempt(way, text, text, text), attempt(form, text);
DROP TABLE way, outcome, form, staging, guarded, guarded_2024, plain;
DROP FUNCTION person, copy_row, rewrite_row, exclude_at;
DROP ROLE regress_paths_loader;
