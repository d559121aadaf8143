-- The guard: reject and skip, on every type of column.
SET search_path = public, ndrs_optout;
SELECT exclude('9990000018', '{cancer}');

-- Every type, with a batch of: another patient, the patient, a missing number.
CREATE TABLE as_text (id int, number text);
CREATE TABLE as_varchar (id int, number varchar(20));
CREATE TABLE as_char (id int, number char(10));
CREATE TABLE as_bigint (id int, number bigint);
CREATE TABLE as_numeric (id int, number numeric(12,2));
CREATE TABLE as_nhs_number (id int, number nhs_number);
CREATE DOMAIN text_domain AS text;
CREATE TABLE as_domain (id int, number text_domain);
DO $$
DECLARE
    t regclass;
    state text;
    message text;
BEGIN
    FOREACH t IN ARRAY '{as_text,as_varchar,as_char,as_bigint,as_numeric,as_nhs_number,as_domain}'::regclass[] LOOP
        PERFORM guard_table(t, 'number', '{cancer}');
        BEGIN
            EXECUTE format('INSERT INTO %s VALUES (1, ''9990000026''), (2, ''9990000018''), (3, NULL)', t);
            RAISE EXCEPTION 'not rejected by %', t;
        EXCEPTION WHEN SQLSTATE '23N01' THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
            RAISE NOTICE '% %', state, message;
        END;
        PERFORM unguard_table(t);
        PERFORM guard_table(t, 'number', '{cancer}', 'skip');
        EXECUTE format('INSERT INTO %s VALUES (1, ''9990000026''), (2, ''9990000018''), (3, NULL)', t);
    END LOOP;
END
$$;
SELECT 'as_text', id, number::text FROM as_text UNION ALL SELECT 'as_varchar', id, number::text FROM as_varchar
UNION ALL SELECT 'as_char', id, number::text FROM as_char UNION ALL SELECT 'as_bigint', id, number::text FROM as_bigint
UNION ALL SELECT 'as_numeric', id, number::text FROM as_numeric
UNION ALL SELECT 'as_nhs_number', id, number::text FROM as_nhs_number
UNION ALL SELECT 'as_domain', id, number::text FROM as_domain;
SELECT target, finding, rows_skipped, rows_allowed FROM guard_count ORDER BY target::text, finding;

-- However the number is written.
CREATE TABLE patient (id int PRIMARY KEY, nhs_number text, name text);
SELECT guard_table('patient', 'nhs_number', '{cancer}', 'skip');
INSERT INTO patient (id, nhs_number) VALUES
    (1, '9990000018'), (2, '999 000 0018'), (3, '999-000-0018'), (4, E'999\u00A0000\u00A00018'),
    (5, E'\uFF19\uFF19\uFF19\uFF10\uFF10\uFF10\uFF10\uFF10\uFF11\uFF18'), (6, E' 9990000018\r\n'), (7, '9990000026');
SELECT id FROM patient;
\d patient

-- A row cannot be dropped by changing it.
UPDATE patient SET nhs_number = '9990000018' WHERE id = 7;
\echo :SQLSTATE
UPDATE patient SET name = 'x' WHERE id = 7;

-- COPY: skip loads the rest, reject nothing; the message names the line.
COPY patient FROM stdin;
11	9990000034	seeded name
12	9990000018	seeded name
13	9990000042	seeded name
\.
SELECT id FROM patient ORDER BY id;
CREATE TABLE tumour (id int, nhs_number char(10), site text);
SELECT guard_table('tumour', 'nhs_number', '{cancer}');
COPY tumour FROM stdin;
1	9990000034	seeded name
2	9990000018	seeded name
3	9990000042	seeded name
\.
SELECT count(*) FROM tumour;
INSERT INTO tumour VALUES (1, '9990000034', 'x');

-- What cannot be read, and what is missing.
INSERT INTO tumour VALUES (4, '999000001x', 'seeded name');
\echo :SQLSTATE
INSERT INTO tumour VALUES (5, '9990000019', 'seeded name');
INSERT INTO tumour VALUES (6, NULL, 'x'), (7, '', 'x'), (8, '9999999999', 'x');
SELECT id FROM tumour ORDER BY id;
SELECT unguard_table('tumour');
SELECT guard_table('tumour', 'nhs_number', '{cancer}', on_missing => 'reject', on_unreadable => 'allow');
INSERT INTO tumour VALUES (9, '999000001x', 'x');
INSERT INTO tumour VALUES (10, NULL, 'seeded name');
\echo :SQLSTATE
INSERT INTO tumour VALUES (11, '9999999999', 'seeded name');
UPDATE tumour SET site = 'y' WHERE id = 6;
SELECT unguard_table('tumour');
SELECT guard_table('tumour', 'nhs_number', '{cancer}', 'skip', 'skip', 'skip');
INSERT INTO tumour VALUES (12, NULL, 'x'), (13, 'old', 'x'), (14, '9990000018', 'x'), (15, '1111111111', 'x');
SELECT id FROM tumour ORDER BY id;
SELECT finding, rows_skipped, rows_allowed FROM guard_count WHERE target = 'tumour'::regclass ORDER BY finding;

-- Counts follow savepoints.
CREATE TABLE counted (nhs_number bigint);
SELECT guard_table('counted', 'nhs_number', '{cancer}', 'skip');
BEGIN;
INSERT INTO counted VALUES (9990000018);
SAVEPOINT a;
INSERT INTO counted VALUES (9990000018), (9990000018);
SAVEPOINT b;
INSERT INTO counted SELECT 9990000018 FROM generate_series(1, 100);
ROLLBACK TO b;
RELEASE a;
COMMIT;
SELECT rows_skipped FROM guard_count WHERE target = 'counted'::regclass;
BEGIN;
INSERT INTO counted VALUES (9990000018);
ROLLBACK;
SELECT rows_skipped FROM guard_count WHERE target = 'counted'::regclass;
DO $$
BEGIN
    BEGIN
        INSERT INTO counted VALUES (9990000018);
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        INSERT INTO counted VALUES (9990000018);
    END;
END
$$;
SELECT rows_skipped FROM guard_count WHERE target = 'counted'::regclass;
-- A subtransaction for each row leaves one count, not one for each.
DO $$
BEGIN
    FOR i IN 1 .. 1000 LOOP
        BEGIN
            INSERT INTO counted VALUES (9990000018);
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
END
$$;
SELECT count(*), max(rows) FROM guard_tally WHERE target = 'counted'::regclass;

-- The constraint: a trigger that comes later, a disabled trigger, a replica.
CREATE TABLE overwritten (id int, nhs_number text);
SELECT guard_table('overwritten', 'nhs_number', '{cancer}', 'skip');
CREATE FUNCTION rewrite_number() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.nhs_number := '9990000018'; RETURN NEW; END $$;
CREATE TRIGGER zzz_rewrite BEFORE INSERT ON overwritten FOR EACH ROW EXECUTE FUNCTION rewrite_number();
INSERT INTO overwritten VALUES (1, '9990000026');
\echo :SQLSTATE
DROP TRIGGER zzz_rewrite ON overwritten;
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE overwritten DISABLE TRIGGER ALL;
RESET ndrs_optout.allow_unguarded;
INSERT INTO overwritten VALUES (1, '9990000018');
\echo :SQLSTATE
COPY overwritten FROM stdin;
1	9990000026
2	9990000018
\.
ALTER TABLE overwritten ENABLE TRIGGER ALL;
ALTER TABLE overwritten ENABLE ALWAYS TRIGGER ndrs_optout_guard_2;
SET session_replication_role = replica;
INSERT INTO overwritten VALUES (1, '9990000018');
RESET session_replication_role;
SELECT count(*) FROM overwritten;

-- Partitions: those that are there, those that come, rows that move, columns in
-- another order, and a partition written to directly.
CREATE TABLE visit (id int, nhs_number text, year int) PARTITION BY RANGE (year);
CREATE TABLE visit_2024 PARTITION OF visit FOR VALUES FROM (2024) TO (2025);
CREATE TABLE visit_2025 (year int, dropped int, nhs_number text, id int);
ALTER TABLE visit_2025 DROP COLUMN dropped;
ALTER TABLE visit ATTACH PARTITION visit_2025 FOR VALUES FROM (2025) TO (2026);
SELECT guard_table('visit', 'nhs_number', '{cancer}', 'skip');
CREATE TABLE visit_2026 PARTITION OF visit FOR VALUES FROM (2026) TO (2027);
INSERT INTO visit VALUES (1, '9990000018', 2024), (2, '9990000018', 2025), (3, '9990000018', 2026), (4, '9990000026', 2025);
INSERT INTO visit_2024 VALUES (5, '9990000018', 2024);
INSERT INTO visit_2025 (id, nhs_number, year) VALUES (6, '9990000018', 2025);
INSERT INTO visit_2026 VALUES (7, '9990000018', 2026);
UPDATE visit SET year = 2026, nhs_number = '9990000018' WHERE id = 4;
SELECT tgrelid::regclass, tgenabled FROM pg_trigger WHERE tgname LIKE 'ndrs_optout_guard_%' AND tgrelid::regclass::text LIKE 'visit%' ORDER BY 1;
SELECT * FROM visit;
SELECT target, rows_skipped FROM guard_count WHERE target = 'visit'::regclass;

-- A table that serves several registers: excluded from all of them, or not.
CREATE TABLE shared (nhs_number text);
SELECT guard_table('shared', 'nhs_number', '{cancer,rare_disease}');
INSERT INTO shared VALUES ('9990000018');
SELECT exclude('9990000018', '{rare_disease}');
INSERT INTO shared VALUES ('9990000018');
\echo :SQLSTATE

-- A decision on registers that change from row to row.
SELECT code, guard_matches('9990000018'::text, ARRAY[code]) FROM register ORDER BY code;
DO $$
DECLARE
    r text[];
BEGIN
    FOREACH r SLICE 1 IN ARRAY '{{cancer},{congenital_anomaly},{rare_disease}}'::text[] LOOP
        RAISE NOTICE '% %', r, guard_matches('9990000018'::text, r);
    END LOOP;
END
$$;
SELECT guard_matches('9990000018'::text, '{}');

-- Redact: the row enters without the patient, and what is left of it is counted.
CREATE TABLE birth (id int, baby_nhs text, mother_nhs text, mother_born date, place text);
SELECT guard_table('birth', 'mother_nhs', '{cancer}', 'redact', redact_columns => '{mother_born}'),
       guard_table('birth', 'baby_nhs', '{cancer}', 'skip');
INSERT INTO birth VALUES (1, '9990000026', '999 000 0018', '1990-01-01', 'Leeds'), (2, '9990000026', '9990000034', '1991-01-01', 'York');
INSERT INTO birth VALUES (3, '9990000018', '9990000034', '1991-01-01', 'York');
UPDATE birth SET mother_nhs = '9990000018' WHERE id = 2;
COPY birth FROM stdin;
4	\N	9990000018	1990-01-01	Hull
\.
SELECT * FROM birth ORDER BY id;
SELECT finding, rows_skipped, rows_redacted, rows_allowed FROM guard_count WHERE target = 'birth'::regclass ORDER BY finding;
-- A later trigger that brings the number back meets the constraint.
CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.mother_nhs := '9990000018'; RETURN NEW; END $$;
CREATE TRIGGER zzz_refill BEFORE INSERT ON birth FOR EACH ROW EXECUTE FUNCTION refill();
INSERT INTO birth VALUES (5, NULL, '9990000018');
\echo :SQLSTATE
DROP TRIGGER zzz_refill ON birth;
-- In a partition that numbers its columns otherwise.
CREATE TABLE scan (id int, nhs bigint, name text, year int) PARTITION BY LIST (year);
CREATE TABLE scan_2025 (gone int, year int, name text, nhs bigint, id int);
ALTER TABLE scan_2025 DROP COLUMN gone;
ALTER TABLE scan ATTACH PARTITION scan_2025 FOR VALUES IN (2025);
SELECT guard_table('scan', 'nhs', '{cancer}', 'redact', redact_columns => '{name}');
INSERT INTO scan VALUES (1, 9990000018, 'seeded name', 2025), (2, 9990000026, 'x', 2025);
INSERT INTO scan_2025 (id, nhs, name, year) VALUES (3, 9990000018, 'seeded name', 2025);
SELECT * FROM scan ORDER BY id;
-- What cannot be redacted.
CREATE TABLE unredactable (nhs text NOT NULL, t text, g text GENERATED ALWAYS AS (t) STORED);
SELECT guard_table('unredactable', 'nhs', '{cancer}', 'redact');
SELECT guard_table('unredactable', 't', '{cancer}', 'redact', redact_columns => '{g}');
SELECT guard_table('unredactable', 't', '{cancer}', 'redact', redact_columns => '{no_such}');
SELECT guard_table('unredactable', 't', '{cancer}', 'redact', on_missing => 'reject');
SELECT guard_table('unredactable', 't', '{cancer}', 'skip', redact_columns => '{nhs}');
SELECT guard_table('unredactable', 't', '{cancer}', 'redact', redact_columns => NULL);
DROP FUNCTION refill CASCADE;

-- The constraint alone, for the fastest load.
CREATE TABLE fast (id int, nhs text);
SELECT guard_table('fast', 'nhs', '{cancer}', mechanism => 'constraint', on_missing => 'reject');
SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid = 'fast'::regclass;
COPY fast FROM stdin;
1	9990000026
2	9990000018
\.
INSERT INTO fast VALUES (1, '9990000026');
INSERT INTO fast VALUES (2, NULL);
UPDATE fast SET nhs = '999 000 0018';
SELECT * FROM fast;
SELECT unguard_table('fast');
INSERT INTO fast VALUES (2, '9990000018');
SELECT guard_table('fast', 'nhs', '{cancer}', 'skip', mechanism => 'constraint');
SELECT guard_table('fast', 'nhs', '{cancer}', on_unreadable => 'skip', mechanism => 'constraint');
SELECT guard_table('fast', 'nhs', '{cancer}', mechanism => 'trigger');
SELECT guard_table('fast', 'nhs', '{cancer}', mechanism => NULL);

-- The encoded number in a column of its own.
CREATE TABLE encoded (id bigint, nhs text, encoded encoded_nhs_number, name text);
CREATE INDEX ON encoded (encoded);
SELECT guard_table('encoded', 'nhs', '{cancer}', 'redact', redact_columns => '{name}', encoded_column => 'encoded',
                   on_unreadable => 'allow');
INSERT INTO encoded VALUES (1, '999 000 0026', NULL, 'x'), (2, '9990000018', NULL, 'x'), (3, NULL, NULL, 'x'),
    (4, 'none', NULL, 'x'), (5, '9999999999', NULL, 'x'), (6, '9990000034', encode_nhs_number('9990000042'), 'x');
COPY encoded (id, nhs) FROM stdin;
7	999-000-0034
\.
UPDATE encoded SET nhs = '9990000042' WHERE id = 7;
UPDATE encoded SET encoded = NULL WHERE id = 1;
SELECT id, nhs, encoded IS NULL AS empty, encoded = encode_nhs_number(nhs_number_or_null(nhs)) AS agrees, name
    FROM encoded ORDER BY id;
-- Screening needs no HMAC, and can use an index.
INSERT INTO encoded (id, nhs) SELECT n, n FROM generate_series(9990000100, 9990001000) AS n WHERE nhs_number_or_null(n::text) IS NOT NULL;
ANALYZE encoded;
SELECT exclude(n::nhs_number, '{cancer}') IS NULL AS x FROM unnest('{9990000107,9990000115}'::bigint[]) AS n \g /dev/null
SELECT id FROM encoded WHERE is_excluded(encoded, 'cancer') ORDER BY id;
CREATE FUNCTION uses_index() RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) SELECT t.id FROM encoded t WHERE t.encoded IN
        (SELECT e.encoded_nhs_number FROM exclusion e WHERE e.register = ''cancer'')' INTO plan;
    RETURN plan::text LIKE '%encoded_encoded_idx%';
END $$;
SELECT uses_index();
DROP FUNCTION uses_index;
SELECT t.id FROM encoded t JOIN exclusion e ON e.encoded_nhs_number = t.encoded WHERE e.register = 'cancer' ORDER BY t.id;
DELETE FROM encoded WHERE id > 9990000000;
SELECT readmit(n::nhs_number, '{cancer}') IS NULL AS x FROM unnest('{9990000107,9990000115}'::bigint[]) AS n \g /dev/null
-- What a later trigger writes there, or a loader while the trigger is off, is not believed.
CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.encoded := ndrs_optout.encode_nhs_number('9990000042'); RETURN NEW; END $$;
CREATE TRIGGER zzz_forge BEFORE INSERT ON encoded FOR EACH ROW EXECUTE FUNCTION forge();
INSERT INTO encoded VALUES (8, '9990000026');
\echo :SQLSTATE
INSERT INTO encoded VALUES (8, NULL);
INSERT INTO encoded VALUES (8, '9990000042');
DROP FUNCTION forge CASCADE;
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE encoded DISABLE TRIGGER ALL;
INSERT INTO encoded VALUES (9, '9990000026');
ALTER TABLE encoded ENABLE ALWAYS TRIGGER ndrs_optout_guard_2;
RESET ndrs_optout.allow_unguarded;
-- A loader who may insert and nothing else
CREATE ROLE regress_loader;
GRANT INSERT ON encoded TO regress_loader;
SET ROLE regress_loader;
INSERT INTO encoded (id, nhs) VALUES (10, '9990000026');
INSERT INTO encoded (id, nhs, name) VALUES (11, '9990000018', 'x');
RESET ROLE;
DROP OWNED BY regress_loader;
DROP ROLE regress_loader;
SELECT id, nhs, encoded IS NULL AS empty FROM encoded WHERE id > 9 ORDER BY id;
SELECT guard_table('encoded', 'name', '{cancer}', encoded_column => 'encoded');
CREATE TABLE encoded_child () INHERITS (fast);
ALTER TABLE fast ADD encoded encoded_nhs_number;
SELECT guard_table('fast', 'nhs', '{cancer}', encoded_column => 'encoded');
DROP TABLE encoded_child;
ALTER TABLE fast DROP encoded;
SELECT guard_table('fast', 'nhs', '{cancer}', encoded_column => 'encoded', mechanism => 'constraint');
SELECT guard_table('fast', 'nhs', '{cancer}', encoded_column => 'id');
SELECT guard_table('fast', 'nhs', '{cancer}', encoded_column => 'no_such');
SELECT guard_table('fast', 'nhs', '{cancer}', birth_date_column => 'id');

-- Guarding late tells how many rows are there already.
CREATE TABLE late (nhs_number numeric);
INSERT INTO late VALUES (9990000018), (9990000018), (9990000026), (1.5), (NULL);
SELECT guard_table('late', 'nhs_number', '{cancer}');
SELECT target, nhs_number_column, registers, on_match, on_missing, on_unreadable FROM guard WHERE target = 'late'::regclass;

-- A trigger that somebody else than guard_table() made is not obeyed: not with another
-- action, nor with other registers, nor as the trigger of a guard that has none.
CREATE TABLE own_trigger (nhs text);
SELECT guard_table('own_trigger', 'nhs', '{cancer}');
CREATE TRIGGER aaa BEFORE INSERT ON own_trigger FOR EACH ROW
    EXECUTE FUNCTION guard_row('1', 'nhs', '', 'redact', 'allow', 'reject', '1', 'cancer', '0');
INSERT INTO own_trigger VALUES ('9990000018');
\echo :SQLSTATE
DROP TRIGGER aaa ON own_trigger;
CREATE TRIGGER aaa BEFORE INSERT ON own_trigger FOR EACH ROW
    EXECUTE FUNCTION guard_row('1', 'nhs', '', 'reject', 'allow', 'reject', '1', 'rare_disease', '0');
INSERT INTO own_trigger VALUES ('9990000026');
\echo :SQLSTATE
DROP TRIGGER aaa ON own_trigger;
INSERT INTO own_trigger VALUES ('9990000026');
SELECT unguard_table('own_trigger');
SELECT guard_table('own_trigger', 'nhs', '{cancer}', mechanism => 'constraint');
CREATE TRIGGER aaa BEFORE INSERT ON own_trigger FOR EACH ROW
    EXECUTE FUNCTION guard_row('1', 'nhs', '', 'reject', 'allow', 'reject', '1', 'cancer', '0');
INSERT INTO own_trigger VALUES ('9990000026');
\echo :SQLSTATE
-- Nor a constraint that says something else than the guard.
DROP TRIGGER aaa ON own_trigger;
ALTER TABLE own_trigger ADD CONSTRAINT other CHECK (ndrs_optout.guard_admits(tableoid, 'own_trigger', nhs, '{rare_disease}', 'allow', 'reject'));
CREATE ROLE regress_insert;
GRANT INSERT ON own_trigger TO regress_insert;
SET ROLE regress_insert;
INSERT INTO own_trigger VALUES ('9990000026');
\echo :SQLSTATE
RESET ROLE;
ALTER TABLE own_trigger DROP CONSTRAINT other;
SELECT unguard_table('own_trigger');
DROP TABLE own_trigger;
DROP ROLE regress_insert;

-- A row that an UPDATE moves into a partition would be gone if a guard left it out there.
CREATE TABLE moved (id int, nhs text) PARTITION BY LIST (id);
CREATE TABLE moved_1 PARTITION OF moved FOR VALUES IN (1);
CREATE TABLE moved_2 (id int, nhs text);
SELECT guard_table('moved_1', 'nhs', '{cancer}', 'skip');
SELECT guard_table('moved_1', 'nhs', '{cancer}', on_missing => 'skip');
SELECT guard_table('moved_2', 'nhs', '{cancer}', 'skip');
ALTER TABLE moved ATTACH PARTITION moved_2 FOR VALUES IN (2);
INSERT INTO moved VALUES (1, '9990000018');
UPDATE moved SET id = 2;
\echo :SQLSTATE
SELECT tableoid::regclass, * FROM moved;
SELECT unguard_table('moved_2');
DROP TABLE moved;
-- So would one whose number a later trigger changes on the way.
CREATE TABLE moved (id int, nhs text, found text) PARTITION BY LIST (id);
CREATE TABLE moved_1 PARTITION OF moved FOR VALUES IN (1);
CREATE TABLE moved_2 PARTITION OF moved FOR VALUES IN (2);
SELECT guard_table('moved', 'nhs', '{cancer}', 'skip');
CREATE FUNCTION take_found() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.nhs := NEW.found; RETURN NEW; END $$;
CREATE TRIGGER take_found BEFORE UPDATE ON moved FOR EACH ROW EXECUTE FUNCTION take_found();
INSERT INTO moved VALUES (1, '9990000026', '9990000026');
UPDATE moved SET id = 2, found = '9990000018';
\echo :SQLSTATE
-- One that enters after a row has moved is left out as ever.
BEGIN;
UPDATE moved SET id = 2;
INSERT INTO moved VALUES (2, '9990000018'), (1, '9990000018'), (2, '9990000034');
UPDATE moved SET id = id;
INSERT INTO moved VALUES (2, '9990000018');
COMMIT;
SELECT tableoid::regclass, * FROM moved ORDER BY nhs;
SELECT unguard_table('moved');
DROP TABLE moved;
DROP FUNCTION take_found;

-- Nobody can use the table while it is being guarded: with many partitions, that must not take
-- as long as to compare all their parts before and after each command in it.
CREATE TABLE wide (id int, nhs text) PARTITION BY LIST (id);
DO $$
BEGIN
    FOR i IN 1 .. 300 LOOP
        EXECUTE format('CREATE TABLE wide_%s PARTITION OF wide FOR VALUES IN (%1$s)', i);
    END LOOP;
END
$$;
SET track_functions = 'all';
-- Calls of earlier transactions are not counted in.
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
SELECT guard_table('wide', 'nhs', '{cancer}');
SELECT sum(calls) < 300 AS fewer_calls_than_partitions FROM pg_stat_xact_user_functions WHERE schemaname = 'ndrs_optout';
COMMIT;
RESET track_functions;
SELECT count(*) AS parts FROM guard_part WHERE target = 'wide'::regclass AND defect IS NULL;
SELECT unguard_table('wide');
DROP TABLE wide;

-- What a constraint may answer, and what the erasure spares, is known to the session and not to its workers.
SELECT p.oid::regprocedure, provolatile, proparallel FROM pg_proc p WHERE p.oid = ANY (guard_constraint_functions()) ORDER BY 1;

-- Counts of subtransactions leave nothing behind.
CREATE TABLE skipping (nhs text);
SELECT guard_table('skipping', 'nhs', '{cancer}', 'skip');
CREATE FUNCTION transaction_memory() RETURNS bigint LANGUAGE sql AS
    $$ SELECT sum(used_bytes)::bigint FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext' $$;
DO $$
DECLARE
    before bigint;
BEGIN
    FOR i IN 1 .. 2020 LOOP
        IF i = 20 THEN
            before := transaction_memory();
        END IF;
        BEGIN
            INSERT INTO skipping VALUES ('9990000018');
            IF i % 2 = 0 THEN
                RAISE division_by_zero;
            END IF;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
    IF transaction_memory() > before + 16384 THEN
        RAISE 'subtransactions took % bytes', transaction_memory() - before;
    END IF;
END
$$;
SELECT sum(rows_skipped) FROM guard_count WHERE target = 'skipping'::regclass;
SELECT unguard_table('skipping');
DROP TABLE skipping;
DROP FUNCTION transaction_memory;

-- What a client learns besides the message: a class of bad rows, and the table.
CREATE TABLE fields (id int, nhs text, encoded encoded_nhs_number);
CREATE TABLE fields_by_constraint (nhs text);
SELECT guard_table('fields', 'nhs', '{cancer}', on_missing => 'reject', encoded_column => 'encoded'),
    guard_table('fields_by_constraint', 'nhs', '{cancer}', on_missing => 'reject', mechanism => 'constraint');
DO $$
DECLARE
    command text;
    schema text;
    relation text;
    state text;
BEGIN
    FOREACH command IN ARRAY ARRAY[
        'INSERT INTO fields VALUES (1, ''9990000018'')', 'INSERT INTO fields VALUES (1, ''x'')',
        'INSERT INTO fields VALUES (1, NULL)', 'INSERT INTO fields_by_constraint VALUES (''9990000018'')',
        'INSERT INTO fields_by_constraint VALUES (''x'')', 'INSERT INTO fields_by_constraint VALUES (NULL)'] LOOP
        BEGIN
            EXECUTE command;
        EXCEPTION WHEN integrity_constraint_violation THEN  -- the whole class
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, schema = SCHEMA_NAME, relation = TABLE_NAME;
            RAISE NOTICE '% %.%', state, schema, relation;
        END;
    END LOOP;
END
$$;
SELECT unguard_table('fields'), unguard_table('fields_by_constraint');
DROP TABLE fields, fields_by_constraint;

-- Mistakes.
\set SHOW_CONTEXT never
SELECT guard_table('late', 'nhs_number', '{cancer}');
SELECT guard_table('late', 'no_such', '{cancer}');
SELECT guard_table('late', 'nhs_number', '{cancers}');
SELECT guard_table('late', 'nhs_number', '{cancer}', 'ignore');
SELECT guard_table('late', 'nhs_number', '{cancer}', NULL);
SELECT guard_table('late', 'nhs_number', '{cancer}', on_missing => 'maybe');
SELECT guard_table('guard_count', 'target', '{cancer}');
CREATE TABLE unsuitable (i int, d date, t text, g text GENERATED ALWAYS AS (t) STORED);
SELECT guard_table('unsuitable', 'i', '{cancer}');
SELECT guard_table('unsuitable', 'd', '{cancer}');
SELECT guard_table('unsuitable', 'g', '{cancer}');
SELECT unguard_table('unsuitable');
SELECT guard_table(NULL, 'nhs_number', '{cancer}');
CREATE TEMP TABLE temporary (nhs_number text);
SELECT guard_table('temporary', 'nhs_number', '{cancer}');
SELECT unguard_table(NULL);
SELECT guard_table('visit_2024', 'nhs_number', '{cancer}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT guard_table('unsuitable', 't', '{cancer}');
\echo :SQLSTATE
ROLLBACK;
SELECT guard_row();
CREATE TRIGGER bad AFTER INSERT ON unsuitable FOR EACH ROW EXECUTE FUNCTION guard_row('t', 'skip', 'allow', 'allow', 'cancer');
INSERT INTO unsuitable (t) VALUES ('9990000018');
DROP TRIGGER bad ON unsuitable;

-- A renamed column is an error until the table is guarded again.
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE late RENAME COLUMN nhs_number TO number;
RESET ndrs_optout.allow_unguarded;
INSERT INTO late VALUES (9990000026);
SELECT unguard_table('late');
SELECT guard_table('late', 'number', '{cancer}');
INSERT INTO late VALUES (9990000018);

-- Unguarded means unguarded.
SELECT unguard_table('visit');
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'ndrs_optout_guard_%' AND tgrelid::regclass::text LIKE 'visit%';
INSERT INTO visit VALUES (1, '9990000018', 2024);
SELECT count(*) FROM visit WHERE nhs_number = '9990000018';

SELECT unguard_table(target) FROM (SELECT DISTINCT target FROM guard) AS g;
DELETE FROM guard_tally;
DELETE FROM exclusion;
DROP TABLE as_text, as_varchar, as_char, as_bigint, as_numeric, as_nhs_number, as_domain, patient, tumour, counted,
    overwritten, visit, shared, late, unsuitable, birth, scan, unredactable, fast, encoded;
DROP DOMAIN text_domain;
DROP FUNCTION rewrite_number;

-- There may be thousands of guards: a statement looks up its table's by the primary key.
CREATE TABLE one_of_many (number text);
SELECT guard_table('one_of_many', 'number', '{cancer}');
BEGIN;
SELECT pg_stat_get_xact_numscans('guard'::regclass) AS scans \gset
INSERT INTO one_of_many VALUES ('9990000026');
SELECT pg_stat_get_xact_numscans('guard'::regclass) - :scans AS scans_of_all;
ROLLBACK;
SELECT unguard_table('one_of_many');
DROP TABLE one_of_many;

-- One column's guard goes, and the other stays and works; what makes a guard is told, and makes it again.
CREATE TABLE family (id int, "Child's nhs" text, mother text, note text, coded encoded_nhs_number, born date);
SELECT guard_table('family', 'Child''s nhs', '{cancer,rare_disease}', on_match => 'skip', on_missing => 'reject',
                   on_unreadable => 'skip', encoded_column => 'coded', birth_date_column => 'born');
SELECT guard_table('family', 'mother', '{cancer}', 'redact', redact_columns => '{note}');
SELECT guard_definition('family', 'Child''s nhs') AS child \gset
SELECT guard_definition('family', 'mother') AS mother \gset
\echo :child
\echo :mother
SELECT guard_definition('family', 'note');
\echo :SQLSTATE
SELECT guard_definition(NULL, NULL);
CREATE TEMP TABLE guards AS SELECT to_jsonb(g) - 'guarded_at' AS g FROM guard g WHERE target = 'family'::regclass;
SELECT exclude('9990000018', '{cancer,rare_disease}');
SELECT unguard_table('family', 'note');
\echo :SQLSTATE
SELECT unguard_table('family', NULL);
\echo :SQLSTATE
SELECT unguard_table(NULL, 'mother');
SELECT unguard_table('family', 'Child''s nhs');
SELECT nhs_number_column FROM guard WHERE target = 'family'::regclass;
SELECT count(*) FILTER (WHERE defect IS NOT NULL) AS defects, count(*) > 1 AS parts FROM guard_part WHERE target = 'family'::regclass;
SELECT count(*) AS left_over FROM pg_trigger WHERE tgrelid = 'family'::regclass;
INSERT INTO family VALUES (1, '9990000018', '9990000018', 'a note') RETURNING *;
TRUNCATE family;
SELECT event, detail FROM audit_event WHERE event = 'table_unguarded' ORDER BY event_id DESC LIMIT 1;
:child
SELECT count(*) AS the_same FROM guards JOIN guard x ON to_jsonb(x) - 'guarded_at' = guards.g;
SELECT unguard_table('family', 'mother');
:mother
SELECT count(*) AS the_same FROM guards JOIN guard x ON to_jsonb(x) - 'guarded_at' = guards.g;
-- What weakens the guard in another way is refused still.
ALTER TABLE family DISABLE TRIGGER USER;
SELECT unguard_table('family', 'mother'), unguard_table('family', 'Child''s nhs');
SELECT count(*) AS left_over FROM pg_constraint WHERE conrelid = 'family'::regclass AND contype = 'c';
DROP TABLE family, guards;
DELETE FROM exclusion;
-- The session may have PL/pgSQL look for more mistakes; there is none here.
CREATE TABLE above (nhs text);
CREATE TABLE below_1 () INHERITS (above);
CREATE TABLE below_2 () INHERITS (above);
SET plpgsql.extra_errors = 'all';
SELECT guard_table('below_1', 'nhs', '{cancer}'), guard_table('below_2', 'nhs', '{cancer}');
SELECT guard_table('above', 'nhs', '{cancer}');
\echo :SQLSTATE
RESET plpgsql.extra_errors;
SELECT unguard_table('below_1'), unguard_table('below_2');
DROP TABLE above CASCADE;
