-- Who may change the extension's own tables, and what of it is audited.
\set SHOW_CONTEXT never
\set home :DBNAME
CREATE DATABASE regress_own_tables;
\c regress_own_tables
SET client_min_messages = warning;
CREATE EXTENSION ndrs_optout CASCADE;
RESET client_min_messages;
SET search_path = public, ndrs_optout;

-- As a dump is restored: nothing was ever audited here.  Its rows take the place of
-- those that are shipped, without an event, which the dump brings too.
BEGIN;
INSERT INTO purpose VALUES ('planning', false, false, 'Planning', 'changed elsewhere', '2025-01-01Z'),
    ('their_own', true, true, 'Their own', 'added elsewhere', '2025-01-02Z');
INSERT INTO register VALUES ('cancer', 'Cancer', '2025-01-01Z'), ('local', 'Local', '2025-01-02Z');
INSERT INTO bank_holiday VALUES ('2030-05-06', 'Early May', false, '2025-01-01Z'), ('2030-06-03', 'Jubilee', true, '2025-01-02Z');
INSERT INTO policy (child_age, changed_at) VALUES (14, '2025-01-01Z');
INSERT INTO encoding_key VALUES ('00000000', '00000000000000000000000000000000');
INSERT INTO exclusion VALUES ('cancer', '00000000000000000000000000000000'), ('local', '00000000000000000000000000000000');
INSERT INTO exclusion VALUES ('local', 'a0000000000000000000000000000000');
SELECT count(*) AS events FROM audit_event;
SELECT code, permitted, national_optout_applies, name, changed_at FROM purpose WHERE changed_at IS NOT NULL ORDER BY code;
SELECT * FROM register ORDER BY code;
SELECT * FROM bank_holiday WHERE changed_at IS NOT NULL ORDER BY day;
SELECT child_age, changed_at FROM policy;
ROLLBACK;

-- The first thing that is audited
SELECT length(adopt_key());
CREATE VIEW audited AS
    SELECT event, CASE WHEN event ~ '^key_' THEN '{}' ELSE detail END AS detail FROM audit_event ORDER BY entry_id;
SELECT * FROM audited;
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
CREATE VIEW own_table AS
    SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = 'ndrs_optout'::regnamespace AND relkind IN ('r', 'p');

-- Each table has a primary key, which is its replica identity, and the triggers.
SELECT count(*) > 25 AS many FROM own_table;
SELECT t.name FROM own_table t
    WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.name AND i.indisprimary);
SELECT t.name FROM own_table t
    WHERE (SELECT count(*) FROM pg_trigger g
           WHERE g.tgrelid = t.name AND g.tgfoid = 'owner_only'::regproc AND g.tgenabled = 'A'
               AND g.tgtype IN (1 | 2 | 4 | 8 | 16, 2 | 32)) <> 2;

-- A role with every privilege that there is.
CREATE ROLE regress_writer;
GRANT pg_read_all_data, pg_write_all_data TO regress_writer;
GRANT ALL ON ALL TABLES IN SCHEMA ndrs_optout TO regress_writer;
GRANT ALL ON SCHEMA public TO regress_writer;
SELECT exclude('9990000018', '{cancer,rare_disease}');
SET ROLE regress_writer;
SELECT t.name, o.outcome FROM own_table t
    CROSS JOIN LATERAL outcome(format('INSERT INTO %s DEFAULT VALUES', t.name)) AS o (outcome)
    WHERE o.outcome NOT LIKE '42501 table "ndrs_optout.%" is changed by the extension''s functions only';
SELECT t.name, o.outcome FROM own_table t
    CROSS JOIN LATERAL outcome(format('TRUNCATE %s CASCADE', t.name)) AS o (outcome)
    WHERE o.outcome NOT LIKE '42501 %';
DELETE FROM exclusion;
\echo :SQLSTATE
UPDATE exclusion SET register = 'congenital_anomaly' WHERE register = 'cancer';
INSERT INTO exclusion SELECT register, 'a0000000000000000000000000000000' FROM exclusion;
MERGE INTO exclusion e USING (VALUES ('cancer')) AS v (code) ON e.register = v.code WHEN MATCHED THEN DELETE;
COPY exclusion (register, encoded_nhs_number) FROM stdin;
cancer	a0000000000000000000000000000000
\.
WITH gone AS (DELETE FROM exclusion RETURNING 1) SELECT count(*) FROM gone;
SELECT outcome('DELETE FROM policy');
SELECT outcome('UPDATE purpose SET permitted = false');
-- Through what is the owner's: a view, a prepared plan, a foreign key, as a replica.
RESET ROLE;
CREATE VIEW list AS SELECT * FROM exclusion;
GRANT ALL ON list TO regress_writer;
SET ROLE regress_writer;
DELETE FROM list;
RESET ROLE;
BEGIN;
GRANT SET ON PARAMETER session_replication_role TO regress_writer;
SET ROLE regress_writer;
SET session_replication_role = replica;
DELETE FROM exclusion;
ROLLBACK;
SELECT count(*) FROM exclusion;
-- Triggers of one's own change nothing about it.
SET ROLE regress_writer;
CREATE FUNCTION public.no_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER aaa BEFORE DELETE ON exclusion FOR EACH ROW EXECUTE FUNCTION public.no_row();
DELETE FROM exclusion;
RESET ROLE;
SELECT count(*) FROM exclusion;
DROP TRIGGER aaa ON exclusion;
DROP FUNCTION public.no_row;
REVOKE ALL ON SCHEMA public FROM regress_writer;
-- The owner's rights, by membership.
CREATE ROLE regress_owner SUPERUSER;
BEGIN;
GRANT regress_owner TO regress_writer;
ALTER TABLE exclusion OWNER TO regress_owner;
SET ROLE regress_writer;
DELETE FROM exclusion;
RESET ROLE;
SELECT count(*) FROM exclusion;
ROLLBACK;
DROP ROLE regress_owner;

-- Every change of the list is audited, without anybody's number.
SELECT * FROM audited;
CREATE FUNCTION heard(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    before bigint := coalesce((SELECT max(entry_id) FROM audit_event), 0);
BEGIN
    EXECUTE statement;
    RETURN QUERY SELECT format('%s %s', event, CASE WHEN event ~ '^key_' THEN '' ELSE detail::text END)
        FROM audit_event WHERE entry_id > before ORDER BY entry_id;
END
$$;
SELECT heard($$ SELECT exclude('9990000018', '{cancer,congenital_anomaly}') $$);
SELECT heard($$ SELECT exclude('9990000018', '{cancer}') $$) AS nothing_new;
SELECT heard($$ SELECT readmit('9990000018', '{congenital_anomaly,rare_disease}') $$);
SELECT heard($$ SELECT readmit('9990000018', '{rare_disease}') $$) AS nothing_gone;
SELECT heard($$ SELECT supersede_nhs_number('9990000018', '9990000026') $$);
SELECT heard($$ INSERT INTO exclusion SELECT 'cancer', encode_nhs_number('9990000034') $$);
SELECT heard($$ UPDATE exclusion SET register = 'rare_disease' WHERE encoded_nhs_number = encode_nhs_number('9990000034') $$);
SELECT heard($$ UPDATE exclusion SET register = 'rare_disease' WHERE false $$) AS nothing_changed;
SELECT heard($$ DELETE FROM exclusion WHERE register = 'rare_disease' $$);
SELECT heard($$ MERGE INTO exclusion e USING (VALUES ('9990000042'::nhs_number), ('9990000018')) AS v (n)
    ON e.register = 'cancer' AND e.encoded_nhs_number = encode_nhs_number(v.n)
    WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES ('cancer', encode_nhs_number(v.n), now()) $$);
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT heard($$ DELETE FROM exclusion $$) AS as_a_replica;
ROLLBACK;
SELECT heard($$ TRUNCATE exclusion $$);
SELECT heard($$ TRUNCATE exclusion $$) AS nothing_left;
-- Whoever may write to all tables may set sequences, too, but not make the extension
-- believe that a dump is being restored, which audits nothing.
SELECT last_value + 1 AS next FROM audit_event_entry_id_seq \gset
SET ROLE regress_writer;
SELECT setval('audit_event_entry_id_seq', :next, false) = :next AS set;
RESET ROLE;
SELECT heard($$ SELECT exclude('9990000050', '{cancer}') $$);
BEGIN;
SELECT heard($$ UPDATE policy SET recall_days = recall_days + 1 $$);
ROLLBACK;
SET ROLE regress_writer;
SELECT setval('audit_event_entry_id_seq', 1, false);
RESET ROLE;
SELECT being_restored();
-- Nor does it stop the audit, as a restore over what is there would as well.
SELECT count(*) AS before FROM audit_event \gset
SELECT readmit('9990000050', '{cancer}');
SELECT count(*) - :before AS events FROM audit_event;
SELECT setval('audit_event_entry_id_seq', max(entry_id)) > 1 AS set FROM audit_event;

-- An erasure, with or without a case
CREATE TABLE held (nhs_number nhs_number);
SELECT guard_table('held', 'nhs_number', '{cancer}');
INSERT INTO held VALUES ('9990000018'), ('9990000018'), ('9990000026');
SELECT exclude('9990000018', '{cancer}'), exclude('9990000026', '{cancer}');
SELECT heard($$ SELECT * FROM erase('9990000018', '{cancer}') $$);
SELECT heard($$ SELECT * FROM erase_patients('{9990000018,9990000026}', '{cancer}') $$);
SELECT heard($$ SELECT * FROM erase_patients('{}', '{cancer}') $$) AS nobody;
SELECT unguard_table('held');
DROP TABLE held;
DELETE FROM exclusion;

-- The key
BEGIN;
SELECT heard($$ UPDATE encoding_key SET key_id = '00000000' $$);
SELECT heard($$ TRUNCATE encoding_key $$);
SELECT heard($$ SELECT adopt_key() $$);
SELECT heard($$ SELECT adopt_key() $$) AS adopted_already;
SELECT heard($$ DELETE FROM encoding_key $$);
ROLLBACK;
SELECT * FROM verify_audit();

-- Rows of the site beside those that are shipped: marked, audited.
CREATE FUNCTION heard_of(statement text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT regexp_replace(h, '\d{4}-\d{2}-\d{2}T[^"]*', 'NOW', 'g') FROM heard(statement) AS h
$$;
SELECT heard_of($$ INSERT INTO register VALUES ('local', 'Local') $$);
SELECT heard_of($$ INSERT INTO register VALUES ('local_2', 'Marked by hand', '2020-01-01') $$);
SELECT heard_of($$ UPDATE register SET name = 'Cancer' WHERE code = 'cancer' $$);
SELECT heard_of($$ UPDATE register SET code = 'local_3' WHERE code = 'local_2' $$);
SELECT heard_of($$ DELETE FROM register WHERE code = 'local_3' $$);
SELECT code, name, changed_at > now() - interval '1 day' AS ours FROM register ORDER BY code;
TRUNCATE register;
SELECT heard_of($$ INSERT INTO bank_holiday VALUES ('2030-06-03', 'Jubilee') $$);
SELECT is_working_day('2030-06-03'), is_working_day('2030-05-06');
SELECT heard_of($$ UPDATE bank_holiday SET observed = false WHERE day = '2030-05-06' $$);
SELECT is_working_day('2030-05-06');
SELECT day, name, observed FROM bank_holiday WHERE changed_at IS NOT NULL ORDER BY day;
DELETE FROM bank_holiday WHERE day = '2030-05-27';
\echo :SQLSTATE
UPDATE bank_holiday SET day = '2030-05-28' WHERE day = '2030-05-27';
SELECT heard_of($$ DELETE FROM bank_holiday WHERE day = '2030-06-03' $$);
TRUNCATE bank_holiday;
SELECT heard_of($$ INSERT INTO purpose VALUES ('invoices', true, false, 'Invoices', 'exempted', '2020-01-01') $$);
SELECT outcome($$ INSERT INTO purpose VALUES ('research', true, false, 'Research', 'none', '2020-01-01') $$);
SELECT count(*) FROM purpose WHERE code = 'research' AND national_optout_applies;
SELECT heard_of($$ INSERT INTO policy (child_age, audit_years) VALUES (13, 1) $$);
SELECT heard_of($$ INSERT INTO policy (changed_at) VALUES (NULL) $$);
SELECT count(*), min(audit_years) FROM policy;
DELETE FROM policy;

-- A register that is used stays, under its code.
CREATE TABLE patient (nhs_number nhs_number);
INSERT INTO register VALUES ('used', 'Used');
CREATE VIEW remained AS
    SELECT outcome('DELETE FROM ndrs_optout.register WHERE code = ''used''') AS deleted,
           outcome('UPDATE ndrs_optout.register SET code = ''unused'' WHERE code = ''used''') AS renamed,
           outcome('UPDATE ndrs_optout.register SET name = ''Still used'' WHERE code = ''used''') AS described;
BEGIN;
SELECT guard_table('patient', 'nhs_number', '{cancer,used}');
SELECT * FROM remained;
ROLLBACK;
BEGIN;
SELECT open_case('9990000018', '{used}') > 0 AS opened;
SELECT * FROM remained;
UPDATE optout_case SET state = 'withdrawn', ended_at = now();
SELECT outcome('DELETE FROM ndrs_optout.register WHERE code = ''used''');
ROLLBACK;
BEGIN;
SELECT add_recipient('hospital', 'Hospital', 'nhs_number');
SELECT record_release('{9990000018}'::nhs_number[], 'direct_care', '{used}', 'hospital', current_date, 'order') > 0 AS released;
SELECT * FROM remained;
UPDATE release SET destroyed_on = current_date;
SELECT outcome('DELETE FROM ndrs_optout.register WHERE code = ''used''');
ROLLBACK;
BEGIN;
SELECT exclude('9990000018', '{used}');
SELECT * FROM remained;
ROLLBACK;
SELECT outcome('DELETE FROM ndrs_optout.register WHERE code = ''used''');

-- A publication of everything stops neither the purge nor DROP TABLE.
SET client_min_messages = error;
CREATE PUBLICATION regress_everything FOR ALL TABLES;
RESET client_min_messages;
INSERT INTO guard_tally SELECT 'patient', current_date - 3, 'missing', 'allow', n FROM generate_series(1, 2) AS n;
SELECT guard_table('patient', 'nhs_number', '{cancer}');
INSERT INTO accepted_gap (gap, relation, object, reason, severity) VALUES ('a', 'patient', NULL, 'c', 'low');
\set VERBOSITY terse
INSERT INTO accepted_gap (gap, relation, object, reason, severity) VALUES ('a', 'patient', NULL, 'twice', 'low');
\set VERBOSITY default
INSERT INTO case_erasure (case_id, registers, relation, path, action, row_count) VALUES (1, '{cancer}', 'patient', 'patient', 'kept', 1);
DELETE FROM case_erasure;
SELECT what, removed FROM purge() WHERE what = 'guard_counts';
SELECT count(*), sum(rows) FROM guard_tally;
SELECT unguard_table('patient');
DROP TABLE patient;
SELECT count(*) FROM accepted_gap;

\c :home
DROP DATABASE regress_own_tables;
DROP ROLE regress_writer;
