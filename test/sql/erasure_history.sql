-- History tables: triggers that copy a row while it is erased.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
CREATE SCHEMA past;

-- 9990000018 must go, 9990000026 stay.
CREATE TABLE person (person_id int PRIMARY KEY, nhs_number text, name text,
    valid tstzrange NOT NULL DEFAULT tstzrange(current_timestamp, NULL));
CREATE TABLE stay (stay_id int PRIMARY KEY, person_id int REFERENCES person, ward text);
CREATE TABLE referral (referral_id int PRIMARY KEY, person_id int REFERENCES person ON DELETE SET NULL, clinic text);
SELECT guard_table('person', 'nhs_number', '{cancer}');
CREATE FUNCTION fill() RETURNS void LANGUAGE sql SET client_min_messages = warning AS $$
    TRUNCATE person CASCADE;
    INSERT INTO person VALUES (1, '9990000018', 'one'), (2, '9990000026', 'two');
    INSERT INTO stay VALUES (11, 1, 'a'), (12, 1, 'b'), (21, 2, 'a');
    INSERT INTO referral VALUES (31, 1, 'c'), (32, 2, 'c');
$$;
SELECT fill();
CREATE FUNCTION erased() RETURNS TABLE (path text, action text, row_count bigint) LANGUAGE sql AS
    $$ SELECT path, action, row_count FROM ndrs_optout.erase('9990000018', '{cancer}') WHERE row_count > 0 $$;

-- Versions of a row with the time in which they were valid, one table for each table, as
-- temporal_tables has them; and a log of what is written there.
CREATE TABLE past.person (LIKE person);
CREATE TABLE past.stay (LIKE stay, version int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE past.stay_log (version int, what text);
CREATE TABLE past.stay_log_log (version int, what text);
CREATE FUNCTION past.version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    OLD.valid := tstzrange(lower(OLD.valid), current_timestamp, '[]');
    INSERT INTO past.person SELECT OLD.*;
    IF TG_OP = 'UPDATE' THEN
        RETURN NEW;
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER version BEFORE UPDATE OR DELETE ON person FOR EACH ROW EXECUTE FUNCTION past.version();
-- The server runs this once for a statement, with the rows that it has deleted.
CREATE FUNCTION past.keep_stays() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO past.stay SELECT * FROM gone; RETURN NULL; END $$;
CREATE TRIGGER keep_stays AFTER DELETE ON stay REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION past.keep_stays();
CREATE TRIGGER keep_stays_changed AFTER UPDATE ON stay REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION past.keep_stays();
CREATE FUNCTION past.log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO past.%I VALUES ($1, $2)', TG_ARGV[0]) USING coalesce(OLD.version, NEW.version), TG_OP;
    RETURN NULL;
END
$$;
CREATE TRIGGER log AFTER INSERT OR DELETE ON past.stay FOR EACH ROW EXECUTE FUNCTION past.log('stay_log');
CREATE TRIGGER log AFTER INSERT OR DELETE ON past.stay_log FOR EACH ROW EXECUTE FUNCTION past.log('stay_log_log');
UPDATE person SET name = name || '!';
UPDATE stay SET ward = ward || '!';
SELECT declare_reference('past.person', '{person_id}', 'person', '{person_id}'),
       declare_reference('past.stay', '{stay_id}', 'stay', '{stay_id}'),
       declare_reference('past.stay_log', '{version}', 'past.stay', '{version}'),
       declare_reference('past.stay_log_log', '{version}', 'past.stay_log', '{version}');
BEGIN;
SELECT * FROM erased();
SELECT (SELECT array_agg(person_id) FROM past.person) AS persons, (SELECT array_agg(stay_id) FROM past.stay) AS stays,
       (SELECT array_agg(DISTINCT version) FROM past.stay_log) AS logged, (SELECT array_agg(DISTINCT version) FROM past.stay_log_log) AS logged_twice;
SELECT detail ->> 'rows' AS rows FROM audit_event WHERE event = 'patients_erased' ORDER BY event_id DESC LIMIT 1;
ROLLBACK;
-- A trigger that would wait for the end of the transaction, of a table that is in no walk; and what
-- waits already
BEGIN;
CREATE TABLE past.queue (person_id int);
CREATE FUNCTION past.enqueue() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO past.queue VALUES (OLD.person_id); RETURN NULL; END $$;
CREATE FUNCTION past.dequeue() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO past.person VALUES (NEW.person_id, NULL, NULL, 'empty'); RETURN NULL; END $$;
CREATE TRIGGER enqueue AFTER DELETE ON person FOR EACH ROW EXECUTE FUNCTION past.enqueue();
CREATE CONSTRAINT TRIGGER dequeue AFTER INSERT ON past.queue DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION past.dequeue();
INSERT INTO past.queue VALUES (1);
SELECT * FROM erased() WHERE path ~ 'person$';
SELECT person_id FROM past.person;
INSERT INTO past.queue VALUES (3);
SELECT person_id FROM past.person;
ROLLBACK;
-- One more, and it takes more rounds than there are.
CREATE TABLE past.stay_log_log_log (version int, what text);
CREATE TRIGGER log AFTER INSERT OR DELETE ON past.stay_log_log FOR EACH ROW EXECUTE FUNCTION past.log('stay_log_log_log');
SELECT declare_reference('past.stay_log_log_log', '{version}', 'past.stay_log_log', '{version}');
SELECT * FROM erased();
\echo :SQLSTATE
SELECT count(*) FROM stay;
DROP TRIGGER log ON past.stay_log_log;

-- Two at once, who are looked for apart.
BEGIN;
SELECT exclude('9990000018', '{rare_disease}');
SELECT relation, action, sum(row_count) FROM erase_patients('{9990000018,9990000026}', '{cancer}') WHERE row_count > 0
    GROUP BY 1, 2 ORDER BY relation::text;
SELECT (SELECT count(*) FROM past.person) + (SELECT count(*) FROM past.stay) + (SELECT count(*) FROM past.stay_log_log) AS rows;
ROLLBACK;

-- The history table is guarded, by a number of its own.  What would come in is left out, or
-- comes without the number.
SELECT drop_reference('past.person', '{person_id}', 'person', '{person_id}');
SELECT exclude('9990000018', '{cancer}');
BEGIN;
SELECT guard_table('past.person', 'nhs_number', '{cancer}', 'reject');
SELECT * FROM erased();
SELECT person_id, nhs_number FROM past.person;
ROLLBACK;
BEGIN;
SELECT guard_table('past.person', 'nhs_number', '{cancer}', 'skip');
SELECT * FROM erased();
SELECT person_id, nhs_number FROM past.person;
ROLLBACK;
BEGIN;
SELECT guard_table('past.person', 'nhs_number', '{cancer}', 'redact', redact_columns => '{name}');
SELECT * FROM erased();
SELECT person_id, nhs_number, name FROM past.person ORDER BY 1, 3;
ROLLBACK;
-- A trigger outside an erasure meets the guard.
SELECT guard_table('past.person', 'nhs_number', '{cancer}', 'reject');
DELETE FROM stay WHERE person_id = 1;
DELETE FROM person WHERE person_id = 1;
SELECT fill();

-- A number that is redacted, and a link that is cut, are rows that change: their history
-- must not keep them.
CREATE TABLE baby (baby_id int PRIMARY KEY, mother text);
CREATE TABLE past.baby (LIKE baby);
CREATE TABLE past.referral (LIKE referral);
SELECT guard_table('baby', 'mother', '{cancer}', 'redact'), guard_table('past.baby', 'mother', '{cancer}', 'redact'),
       declare_reference('past.referral', '{person_id}', 'person', '{person_id}');
CREATE FUNCTION past.keep() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('INSERT INTO past.%I SELECT ($1).*', TG_TABLE_NAME) USING OLD; RETURN NULL; END $$;
CREATE TRIGGER keep AFTER UPDATE OR DELETE ON baby FOR EACH ROW EXECUTE FUNCTION past.keep();
CREATE TRIGGER keep AFTER UPDATE OR DELETE ON referral FOR EACH ROW EXECUTE FUNCTION past.keep();
SELECT readmit('9990000018', '{cancer}');
SELECT fill();
INSERT INTO baby VALUES (51, '9990000018'), (52, '9990000026');
UPDATE baby SET baby_id = baby_id;
UPDATE referral SET clinic = 'd';
TRUNCATE past.person;
SELECT * FROM erased();
TABLE past.baby ORDER BY baby_id;
TABLE past.referral;
TABLE referral ORDER BY 1;
TABLE past.person;
DROP TRIGGER version ON person;
DROP TRIGGER keep_stays ON stay;

-- A log of all tables, as jsonb, with the statement: a generated column makes a key of it.
CREATE TABLE past.record (record_version bigint GENERATED ALWAYS AS IDENTITY, op text, table_name name, record jsonb, old_record jsonb,
    query text);
CREATE FUNCTION past.record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO past.record (op, table_name, record, old_record, query)
        VALUES (TG_OP, TG_TABLE_NAME, to_jsonb(NEW), to_jsonb(OLD), current_query());
    RETURN NULL;
END
$$;
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON person FOR EACH ROW EXECUTE FUNCTION past.record();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON stay FOR EACH ROW EXECUTE FUNCTION past.record();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON baby FOR EACH ROW EXECUTE FUNCTION past.record();
SELECT fill();
INSERT INTO baby VALUES (53, '9990000018');
ALTER TABLE past.record
    ADD person_id int GENERATED ALWAYS AS (
        CASE WHEN table_name IN ('person', 'stay') THEN (coalesce(record, old_record) ->> 'person_id')::int END) STORED;
SELECT declare_reference('past.record', '{person_id}', 'person', '{person_id}');
SELECT * FROM erased();
SELECT person_id, table_name, op FROM past.record WHERE table_name <> 'baby' ORDER BY record_version;
-- What the officer typed is not what current_query() says.  But a number that is redacted is no key.
SELECT op, record, old_record, query FROM past.record WHERE table_name = 'baby' ORDER BY record_version;
-- A column that a trigger fills can be guarded, and its rows go with the number.
ALTER TABLE past.record ADD mother text;
CREATE FUNCTION past.fill_mother() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.table_name = 'baby' THEN
        NEW.mother := coalesce(NEW.record ->> 'mother', NEW.old_record ->> 'mother');
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER fill_mother BEFORE INSERT OR UPDATE ON past.record FOR EACH ROW EXECUTE FUNCTION past.fill_mother();
UPDATE past.record SET mother = NULL;
SELECT guard_table('past.record', 'mother', '{cancer}', 'skip');
SELECT fill();
INSERT INTO baby VALUES (54, '9990000018'), (55, '9990000026');
SELECT * FROM erased();
SELECT op, record, old_record FROM past.record WHERE table_name = 'baby' ORDER BY record_version;
SELECT unguard_table('past.record');
DROP TRIGGER record ON person; DROP TRIGGER record ON stay; DROP TRIGGER record ON baby;

-- A log that nothing may be deleted from is left alone when it holds nothing of the patient.
CREATE TABLE past.access_log (person_id int, looked_by text);
CREATE FUNCTION past.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'append only'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON past.access_log FOR EACH STATEMENT EXECUTE FUNCTION past.refuse();
SELECT declare_reference('past.access_log', '{person_id}', 'person', '{person_id}');
INSERT INTO past.access_log VALUES (2, 'me');
SELECT fill();
BEGIN;
SELECT * FROM erased();
ROLLBACK;
INSERT INTO past.access_log VALUES (1, 'me');
SELECT * FROM erased();
\echo :SQLSTATE
-- The erasure has the rights of the table's owner, so the trigger can tell it from others.
CREATE OR REPLACE FUNCTION past.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_user <> (SELECT relowner::regrole::text FROM pg_catalog.pg_class WHERE oid = TG_RELID) THEN
        RAISE 'append only';
    END IF;
    RETURN NULL;
END
$$;
BEGIN;
SELECT * FROM erased();
TABLE past.access_log;
ROLLBACK;
SELECT drop_reference('past.access_log', '{person_id}', 'person', '{person_id}');
DROP TABLE past.access_log;

-- A trigger that keeps a copy in the table itself.
CREATE TABLE visit (visit_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, nhs_number text, deleted boolean);
CREATE TABLE visit_note (visit_id int REFERENCES visit);
SELECT guard_table('visit', 'nhs_number', '{cancer}');
CREATE FUNCTION past.mark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH copy AS (INSERT INTO public.visit (nhs_number, deleted) VALUES (OLD.nhs_number, true) RETURNING visit_id)
        INSERT INTO public.visit_note SELECT visit_id FROM copy;
    RETURN NULL;
END
$$;
CREATE TRIGGER mark AFTER DELETE ON visit FOR EACH ROW WHEN (OLD.deleted IS NULL) EXECUTE FUNCTION past.mark();
INSERT INTO visit (nhs_number) VALUES ('9990000018'), ('9990000018'), ('9990000026');
SELECT * FROM erased();
TABLE visit;
TABLE visit_note;
-- Copies for ever.
SELECT fill();
DROP TRIGGER mark ON visit;
CREATE TRIGGER mark AFTER DELETE ON visit FOR EACH ROW EXECUTE FUNCTION past.mark();
INSERT INTO visit (nhs_number) VALUES ('9990000018');
SELECT * FROM erased();
\echo :SQLSTATE
SELECT count(*) FROM person;
SELECT unguard_table('visit');
DROP TABLE visit_note, visit;

-- A copy that says that it is another patient's.  If it refers to the patient as well, it stands in the
-- way; else it is the other patient's.
CREATE TABLE past.swap (person_id int, nhs_number text);
SELECT guard_table('past.swap', 'nhs_number', '{cancer}'), declare_reference('past.swap', '{person_id}', 'person', '{person_id}');
CREATE FUNCTION past.swap() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO past.swap VALUES (TG_ARGV[0]::int, '9990000026'); RETURN NULL; END $$;
CREATE TRIGGER swap AFTER DELETE ON person FOR EACH ROW EXECUTE FUNCTION past.swap(1);
SELECT * FROM erased();
\echo :SQLSTATE
DROP TRIGGER swap ON person;
CREATE TRIGGER swap AFTER DELETE ON person FOR EACH ROW EXECUTE FUNCTION past.swap(2);
SELECT * FROM erased();
TABLE past.swap;

-- A trigger that changes the history table as well, of another owner: by a reference its rows go first.
CREATE ROLE regress_owner;
CREATE TABLE past.version (person_id int, nhs_number text, ended timestamptz);
SELECT guard_table('past.version', 'nhs_number', '{cancer}');
CREATE FUNCTION past.end_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE past.version SET ended = now() WHERE person_id = OLD.person_id AND ended IS NULL;
    INSERT INTO past.version VALUES (OLD.person_id, OLD.nhs_number, now());
    RETURN OLD;
END
$$;
DROP TRIGGER swap ON person;
DROP TRIGGER keep ON referral;
CREATE TRIGGER end_version AFTER DELETE ON person FOR EACH ROW EXECUTE FUNCTION past.end_version();
SELECT fill();
INSERT INTO past.version VALUES (1, '9990000018', NULL);
SELECT exclude('9990000018', '{cancer}');
ALTER TABLE person OWNER TO regress_owner;
SELECT declare_reference('past.version', '{person_id}', 'person', '{person_id}');
BEGIN;
SELECT * FROM erased() WHERE path ~ 'version';
TABLE past.version;
ROLLBACK;
DROP TRIGGER end_version ON person;
CREATE TRIGGER end_version BEFORE DELETE ON person FOR EACH ROW EXECUTE FUNCTION past.end_version();
SELECT * FROM erased() WHERE path ~ 'version';
TABLE past.version;
SELECT unguard_table('past.version');

SELECT count(unguard_table(t)) FROM unnest('{person,baby,past.person,past.baby,past.swap}'::regclass[]) AS t;
SELECT count(drop_reference(child, child_columns, parent, parent_columns)) FROM reference;
SET client_min_messages = warning;
DROP SCHEMA past CASCADE;
DROP TABLE referral, stay, person, baby;
DROP FUNCTION fill, erased;
DROP OWNED BY regress_owner;
DROP ROLE regress_owner;
DELETE FROM exclusion;
