-- The erasure: everything held about one patient, and nothing of anybody else.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;

-- Two patients with the same shape of data.  9990000018 must go, 9990000026 stay.
CREATE SCHEMA "Registry";
CREATE TABLE "Registry"."Patient" ("Patient Id" bigint PRIMARY KEY, nhs_number text, merged_into bigint REFERENCES "Registry"."Patient");
CREATE TABLE tumour (tumour_id int, site char(3), "Patient Id" bigint REFERENCES "Registry"."Patient" ON DELETE RESTRICT,
    PRIMARY KEY (tumour_id, site));
CREATE TABLE regimen (regimen_id int PRIMARY KEY, site char(3), tumour_id int,
    FOREIGN KEY (tumour_id, site) REFERENCES tumour (tumour_id, site));
CREATE TABLE cycle (cycle_id int PRIMARY KEY, regimen_id int REFERENCES regimen ON DELETE CASCADE);
CREATE TABLE drug (drug_id int, cycle_id int REFERENCES cycle DEFERRABLE INITIALLY DEFERRED, year int) PARTITION BY RANGE (year);
CREATE TABLE drug_2024 PARTITION OF drug FOR VALUES FROM (2024) TO (2025);
CREATE TABLE drug_2025 PARTITION OF drug FOR VALUES FROM (2025) TO (2026);
CREATE TABLE imaging (imaging_id int PRIMARY KEY, tumour_id int, site char(3), note text,
    FOREIGN KEY (tumour_id, site) REFERENCES tumour ON DELETE SET NULL);
CREATE TABLE letter (letter_id int, patient text);
CREATE TABLE a_side (id int PRIMARY KEY, b int, cycle_id int REFERENCES cycle);
CREATE TABLE b_side (id int PRIMARY KEY, a int REFERENCES a_side);
ALTER TABLE a_side ADD FOREIGN KEY (b) REFERENCES b_side;

INSERT INTO "Registry"."Patient" VALUES (1, '999 000 0018', NULL), (2, '9990000026', NULL), (3, NULL, 1), (4, NULL, 2);
INSERT INTO tumour VALUES (10, 'C50', 1), (10, 'C61', 2), (11, 'C34', 1), (12, 'C18', 3);
INSERT INTO regimen VALUES (20, 'C50', 10), (21, 'C61', 10), (22, 'C34', 11);
INSERT INTO cycle VALUES (30, 20), (31, 20), (32, 21), (33, 22);
INSERT INTO drug VALUES (40, 30, 2024), (41, 30, 2025), (42, 31, 2025), (43, 32, 2024), (44, 32, 2025);
INSERT INTO imaging VALUES (50, 10, 'C50', 'patient 1'), (51, 10, 'C61', 'patient 2');
INSERT INTO letter VALUES (60, '9990000018'), (61, '9990000026');
INSERT INTO a_side VALUES (70, NULL, 30), (71, NULL, 32);
INSERT INTO b_side VALUES (80, 70), (81, 71);
UPDATE a_side SET b = 80 WHERE id = 70;
UPDATE a_side SET b = 81 WHERE id = 71;

SELECT guard_table('"Registry"."Patient"', 'nhs_number', '{cancer}');
SELECT guard_table('letter', 'patient', '{cancer}');

-- Every table searched, with what is missing to be fast.
SELECT relation, path, action, row_count, missing_index FROM erasure_preview('9990000018', '{cancer}');
-- An index is one when it can be used.
CREATE INDEX ON "Registry"."Patient" (nhs_number);
CREATE INDEX ON "Registry"."Patient" (nhs_number_or_null(nhs_number));
CREATE INDEX ON tumour ("Patient Id");
CREATE INDEX ON cycle (regimen_id) WHERE cycle_id > 100;
SELECT DISTINCT relation, missing_index FROM erasure_preview('9990000018', '{cancer}')
    WHERE relation IN ('"Registry"."Patient"'::regclass, 'tumour'::regclass, 'cycle'::regclass) ORDER BY 1, 2;

SELECT relation, path, action, row_count FROM erase('9990000018', '{cancer}');
SELECT "Patient Id", merged_into FROM "Registry"."Patient" ORDER BY 1;
SELECT tumour_id, site FROM tumour;
SELECT regimen_id FROM regimen;
SELECT cycle_id FROM cycle;
SELECT drug_id FROM drug;
SELECT * FROM imaging ORDER BY 1;
SELECT letter_id FROM letter;
SELECT id FROM a_side UNION ALL SELECT id FROM b_side;

-- Done again, it finds nothing; for somebody unknown as well.
SELECT relation, action, row_count FROM erase('9990000018', '{cancer}');
SELECT relation, action, row_count FROM erase('9990000042', '{cancer}') WHERE row_count > 0;
-- An old snapshot would find nothing where there is something.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM erase('9990000042', '{cancer}');
\echo :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM erase_patients('{9990000042}', '{cancer}');
\echo :SQLSTATE
ROLLBACK;
-- Other registers hold nothing.
SELECT * FROM erasure_preview('9990000026', '{rare_disease}');

-- A link that the schema does not declare.
CREATE TABLE note (note_id int, patient_id bigint, nhs nhs_number);
INSERT INTO note VALUES (90, 2, '9990000026'), (91, 2, '9990000026'), (92, 1, '9990000018');
SELECT declare_reference('note', '{patient_id}', '"Registry"."Patient"', '{"Patient Id"}');
SELECT declare_reference('note', '{no_such}', '"Registry"."Patient"', '{"Patient Id"}');
SELECT declare_reference('note', '{patient_id}', '"Registry"."Patient"', '{}');
\set VERBOSITY sqlstate
SELECT declare_reference('note', '{patient_id}', 'tumour', '{site}');
\set VERBOSITY default
SELECT declare_reference('note', '{patient_id}', '"Registry"."Patient"', '{"Patient Id"}');
SELECT relation, path, action, row_count FROM erasure_preview('9990000026', '{cancer}') WHERE relation = 'note'::regclass;

-- Rows that something keeps: an error, and nothing changed.
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON note FOR EACH ROW EXECUTE FUNCTION keep();
SELECT count(*) FROM erase('9990000026', '{cancer}');
\echo :SQLSTATE
SELECT count(*) FROM note;
DROP TRIGGER keep ON note;

CREATE FUNCTION keep_a_copy() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO "Registry"."Patient" VALUES (OLD."Patient Id" + 1000, OLD.nhs_number); RETURN OLD; END $$;
CREATE TRIGGER keep_a_copy AFTER DELETE ON "Registry"."Patient" FOR EACH ROW EXECUTE FUNCTION keep_a_copy();
SELECT count(*) FROM erase('9990000026', '{cancer}');
\echo :SQLSTATE
DROP TRIGGER keep_a_copy ON "Registry"."Patient";

CREATE RULE keep AS ON DELETE TO note DO INSTEAD NOTHING;
SELECT count(*) FROM erase('9990000026', '{cancer}');
\echo :SQLSTATE
DROP RULE keep ON note;

-- A copy that a trigger writes into another table is found by the keys of the
-- rows that are gone, when the table is known.
CREATE TABLE history (patient_id bigint, old jsonb);
SELECT declare_reference('history', '{patient_id}', '"Registry"."Patient"', '{"Patient Id"}');
CREATE FUNCTION write_history() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.history VALUES (OLD."Patient Id", to_jsonb(OLD)); RETURN OLD; END $$;
CREATE TRIGGER write_history AFTER DELETE ON "Registry"."Patient" FOR EACH ROW EXECUTE FUNCTION write_history();
BEGIN;
SELECT relation, action, row_count FROM erase('9990000026', '{cancer}') WHERE relation = 'history'::regclass;
SELECT count(*) FROM history;
ROLLBACK;
DROP TRIGGER write_history ON "Registry"."Patient";
CREATE CONSTRAINT TRIGGER write_history AFTER DELETE ON "Registry"."Patient" DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION write_history();
BEGIN;
SELECT relation, action, row_count FROM erase('9990000026', '{cancer}') WHERE relation = 'history'::regclass;
SELECT count(*) FROM history;
ROLLBACK;
DROP TRIGGER write_history ON "Registry"."Patient";

-- A child that a trigger keeps would make the server name its key.
CREATE FUNCTION keep_tumour() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON regimen FOR EACH ROW EXECUTE FUNCTION keep_tumour();
SELECT count(*) FROM erase('9990000026', '{cancer}');
\echo :SQLSTATE
DROP TRIGGER keep ON regimen;
CREATE FUNCTION touch_parent() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE public.tumour SET site = site WHERE tumour_id = OLD.tumour_id; RETURN OLD; END $$;
CREATE TRIGGER touch_parent BEFORE DELETE ON regimen FOR EACH ROW EXECUTE FUNCTION touch_parent();
SELECT count(*) FROM erase('9990000026', '{cancer}');
\echo :SQLSTATE
DROP TRIGGER touch_parent ON regimen;

-- A parent's own trigger that deletes its children is not in the way.  (It must
-- name them in full: the erasure runs with a search_path of its own.)
CREATE FUNCTION delete_notes() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM public.note WHERE patient_id = OLD."Patient Id"; RETURN OLD; END $$;
CREATE TRIGGER delete_notes BEFORE DELETE ON "Registry"."Patient" FOR EACH ROW EXECUTE FUNCTION delete_notes();

-- A table of another register refers to the patient: it is in the way, unless its key unlinks.
CREATE TABLE rare_case (id int, patient_id bigint REFERENCES "Registry"."Patient", nhs bigint);
INSERT INTO rare_case VALUES (1, 2, 9990000026);
SELECT guard_table('rare_case', 'nhs', '{rare_disease}');
SELECT relation, action, row_count FROM erasure_preview('9990000026', '{cancer}') WHERE relation = 'rare_case'::regclass;
SELECT count(*) FROM erase('9990000026', '{cancer}');
\echo :SQLSTATE
BEGIN;
SELECT guard_registers, relation, path, action, row_count FROM erase('9990000026', '{cancer,rare_disease}') WHERE relation = 'rare_case'::regclass;
ROLLBACK;
SELECT exclude('9990000026', '{rare_disease}');
SELECT relation, path, action, row_count FROM erase('9990000026', '{cancer}') WHERE row_count > 0;
SELECT "Patient Id" FROM "Registry"."Patient" ORDER BY 1;
SELECT note_id FROM note;
TABLE rare_case;

-- A row that is another patient's by its own number is never deleted on the way.
CREATE TABLE mother (id int PRIMARY KEY, nhs bigint);
CREATE TABLE baby (id int PRIMARY KEY, nhs nhs_number, mother_id int REFERENCES mother);
CREATE TABLE anomaly (id int, baby_id int REFERENCES baby);
INSERT INTO mother VALUES (1, 9990000042);
INSERT INTO baby VALUES (1, '9990000050', 1), (2, NULL, 1), (3, '9999999999', 1), (4, '9990000042', 1);
INSERT INTO anomaly VALUES (1, 1), (2, 2);
SELECT guard_table('mother', 'nhs', '{cancer}'), guard_table('baby', 'nhs', '{cancer}');
SELECT relation, path, action, row_count FROM erasure_preview('9990000042', '{cancer}') WHERE row_count > 0;
SELECT * FROM erase('9990000042', '{cancer}');
\echo :SQLSTATE
ALTER TABLE baby DROP CONSTRAINT baby_mother_id_fkey,
    ADD FOREIGN KEY (mother_id) REFERENCES mother ON DELETE SET NULL;
SELECT relation, path, action, row_count FROM erase('9990000042', '{cancer}') WHERE row_count > 0;
TABLE baby;
TABLE anomaly;

-- Nor one that says so in another column of its own, or in a partition's.
CREATE TABLE birth (id int, mother_nhs text, baby_nhs text);
INSERT INTO birth VALUES (1, '9990000069', '9990000077'), (2, '9990000069', NULL), (3, '9990000069', '9990000069');
SELECT guard_table('birth', 'mother_nhs', '{cancer}'), guard_table('birth', 'baby_nhs', '{cancer}');
SELECT relation, action, row_count FROM erasure_preview('9990000069', '{cancer}') WHERE relation = 'birth'::regclass AND row_count > 0;
SELECT * FROM erase('9990000069', '{cancer}');
-- Unless the mother's number is to be redacted: then the baby's record stays.
SELECT unguard_table('birth');
ALTER TABLE birth ADD father_nhs bigint, ADD mother_name text;
UPDATE birth SET father_nhs = 9990000069, mother_name = 'seeded name' WHERE id = 1;
SELECT guard_table('birth', 'mother_nhs', '{cancer}', 'redact', redact_columns => '{mother_name}'),
       guard_table('birth', 'father_nhs', '{cancer}', 'redact'),
       guard_table('birth', 'baby_nhs', '{cancer}');
SELECT relation, action, row_count FROM erasure_preview('9990000069', '{cancer}') WHERE relation = 'birth'::regclass AND row_count > 0;
CREATE FUNCTION keep_as_it_was() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep_as_it_was BEFORE UPDATE ON birth FOR EACH ROW EXECUTE FUNCTION keep_as_it_was();
SELECT count(*) FROM erase('9990000069', '{cancer}');
\echo :SQLSTATE
DROP TRIGGER keep_as_it_was ON birth;
DROP FUNCTION keep_as_it_was;
SELECT relation, action, row_count FROM erase('9990000069', '{cancer}') WHERE row_count > 0;
TABLE birth;
SELECT relation, action, row_count FROM erase('9990000077', '{cancer}') WHERE row_count > 0;
TABLE birth;
-- Nor one whose own number cannot be read.
CREATE TABLE sibling (id int PRIMARY KEY, nhs text, of_baby int);
CREATE TABLE twin (id int, nhs text, sibling_id int REFERENCES sibling);
INSERT INTO sibling VALUES (1, '9990000085');
INSERT INTO twin VALUES (1, '99900000', 1), (2, '', 1);
SELECT guard_table('sibling', 'nhs', '{cancer}'), guard_table('twin', 'nhs', '{cancer}');
SELECT relation, action, row_count FROM erasure_preview('9990000085', '{cancer}') WHERE row_count > 0;
SELECT unguard_table('sibling'), unguard_table('twin');
DROP TABLE twin, sibling;
-- Keys travel in one form, whatever the session's.
CREATE TABLE moment (at timestamptz PRIMARY KEY, weight float8, nhs bigint);
CREATE TABLE moment_note (at timestamptz REFERENCES moment, weight float8);
INSERT INTO moment VALUES ('2026-01-01 12:00+05:30', 0.1::float8 + 0.2, 9990000093), ('2026-01-01 12:00+02', 0.3, 9990000085);
INSERT INTO moment_note SELECT at, weight FROM moment;
SELECT guard_table('moment', 'nhs', '{cancer}'), declare_reference('moment_note', '{weight}', 'moment', '{weight}');
SET timezone = 'Asia/Kolkata';
SET datestyle = 'SQL, DMY';
SET extra_float_digits = 0;
SELECT relation, action, sum(row_count) FROM erase('9990000093', '{cancer}') WHERE row_count > 0 GROUP BY 1, 2 ORDER BY 1;
RESET timezone; RESET datestyle; RESET extra_float_digits;
SELECT weight FROM moment_note;
SELECT unguard_table('moment');
DROP TABLE moment_note, moment;
-- A collation that takes different texts for equal.
CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE coded (code text COLLATE any_case PRIMARY KEY, nhs bigint);
CREATE TABLE coded_note (code text COLLATE any_case REFERENCES coded);
INSERT INTO coded VALUES ('abc', 9990000093);
INSERT INTO coded_note VALUES ('ABC');
SELECT guard_table('coded', 'nhs', '{cancer}');
SELECT relation, action, row_count FROM erase('9990000093', '{cancer}') WHERE row_count > 0;
SELECT unguard_table('coded');
DROP TABLE coded_note, coded;
DROP COLLATION any_case;
CREATE TABLE both_sides (id int, a text, b text);
INSERT INTO both_sides VALUES (1, '9990000085', '9990000085'), (2, '9990000085', NULL);
SELECT guard_table('both_sides', 'a', '{cancer}'), guard_table('both_sides', 'b', '{rare_disease}');
SELECT relation, action, row_count FROM erasure_preview('9990000085', '{cancer}') WHERE relation = 'both_sides'::regclass AND row_count > 0;
SELECT relation, action, row_count FROM erase('9990000085', '{cancer,rare_disease}') WHERE row_count > 0;
CREATE TABLE parent (id int PRIMARY KEY, nhs text);
CREATE TABLE child (parent_id int REFERENCES parent, nhs text, k int) PARTITION BY LIST (k);
CREATE TABLE child_1 PARTITION OF child FOR VALUES IN (1);
CREATE TABLE child_2 PARTITION OF child DEFAULT;
SELECT guard_table('parent', 'nhs', '{cancer}'), guard_table('child_1', 'nhs', '{cancer}'), guard_table('child_2', 'nhs', '{rare_disease}');
INSERT INTO parent VALUES (1, '9990000085');
INSERT INTO child VALUES (1, '9990000085', 1), (1, '9990000093', 1), (1, NULL, 1), (1, NULL, 2);
SELECT relation, action, row_count FROM erasure_preview('9990000085', '{cancer}') WHERE relation = 'child'::regclass;
SELECT guard_table('child', 'nhs', '{cancer}');

-- Inheritance children of a table are not bound by its foreign key.
CREATE TABLE local_child (parent_id int REFERENCES parent);
CREATE TABLE local_grandchild () INHERITS (local_child);
INSERT INTO local_grandchild VALUES (1);
SELECT relation, row_count FROM erasure_preview('9990000085', '{cancer}') WHERE relation = 'local_child'::regclass;

-- A type's own equality counts, and what cannot be referred to is refused.
CREATE EXTENSION citext SCHEMA public;
CREATE TABLE cased (id citext, nhs bigint);
CREATE TABLE cased_child (ref citext);
INSERT INTO cased VALUES ('Abc', 9990000093);
INSERT INTO cased_child VALUES ('ABC'), ('abd');
SELECT guard_table('cased', 'nhs', '{cancer}');
SELECT declare_reference('cased_child', '{ref}', 'cased', '{id}');
SELECT relation, row_count FROM erasure_preview('9990000093', '{cancer}') WHERE relation = 'cased_child'::regclass;
CREATE VIEW cased_view AS SELECT * FROM cased_child;
SELECT declare_reference('cased_view', '{ref}', 'cased', '{id}');
CREATE TEMP TABLE cased_temp (ref citext);
SELECT declare_reference('cased_temp', '{ref}', 'cased', '{id}');
SELECT declare_reference('cased_child', '{NULL}', 'cased', '{id}');

-- A guard that is not on the column any more is no way to search.
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE cased RENAME COLUMN nhs TO old_nhs;
ALTER TABLE cased ADD COLUMN nhs bigint;
SELECT * FROM erase('9990000093', '{cancer}');
\echo :SQLSTATE
ALTER TABLE cased DROP COLUMN old_nhs;
RESET ndrs_optout.allow_unguarded;
SELECT * FROM erase('9990000093', '{cancer}');
SELECT unguard_table('cased');
DROP VIEW cased_view;
SELECT unguard_table(target) FROM (SELECT DISTINCT target FROM guard
    WHERE target IN ('birth'::regclass, 'both_sides'::regclass, 'child_1'::regclass, 'child_2'::regclass, 'parent'::regclass)) AS g;
DROP TABLE cased, cased_child, cased_temp, birth, both_sides, local_grandchild, local_child, child, parent;
DROP EXTENSION citext;

-- A table that serves two registers is erased when the patient is out of both.
CREATE TABLE both_registers (nhs nhs_number);
INSERT INTO both_registers VALUES ('9990000034');
SELECT guard_table('both_registers', 'nhs', '{cancer,rare_disease}');
SELECT relation, row_count FROM erasure_preview('9990000034', '{cancer}') WHERE relation = 'both_registers'::regclass;
SELECT exclude('9990000034', '{rare_disease}');
SELECT relation, row_count FROM erasure_preview('9990000034', '{cancer}') WHERE relation = 'both_registers'::regclass;

-- Partitioned parents, and inheritance children.
CREATE TABLE visit (id int, year int, nhs numeric(10), PRIMARY KEY (id, year)) PARTITION BY LIST (year);
CREATE TABLE visit_2024 PARTITION OF visit FOR VALUES IN (2024);
CREATE TABLE visit_2025 PARTITION OF visit FOR VALUES IN (2025);
CREATE TABLE finding (id int, visit_id int, year int, FOREIGN KEY (visit_id, year) REFERENCES visit);
CREATE TABLE kept (id int PRIMARY KEY, nhs bigint);
CREATE TABLE kept_child () INHERITS (kept);
CREATE TABLE kept_note (id int, kept_id int REFERENCES kept);
INSERT INTO visit VALUES (1, 2024, 9990000042), (1, 2025, 9990000050), (2, 2025, 9990000042);
INSERT INTO finding VALUES (1, 1, 2024), (2, 1, 2025), (3, 2, 2025);
INSERT INTO kept VALUES (1, 9990000050), (2, 9990000042);
INSERT INTO kept_child VALUES (1, 9990000042), (3, 9990000050);
INSERT INTO kept_note VALUES (1, 1), (2, 2);
SELECT guard_table('visit', 'nhs', '{congenital_anomaly}');
SELECT guard_table('kept', 'nhs', '{congenital_anomaly}');
SELECT relation, path, action, row_count FROM erase('9990000042', '{congenital_anomaly}');
SELECT tableoid::regclass, * FROM visit;
TABLE finding;
SELECT tableoid::regclass, * FROM kept ORDER BY id;
TABLE kept_note;

-- A long chain and a ring of references to oneself.
CREATE TABLE chain (id int PRIMARY KEY, previous int REFERENCES chain, nhs bigint);
INSERT INTO chain SELECT i, nullif(i - 1, 0), CASE i WHEN 1 THEN 9990000069 END FROM generate_series(1, 200) AS i;
UPDATE chain SET previous = 200 WHERE id = 1;
INSERT INTO chain VALUES (1000, NULL, 9990000077);
CREATE INDEX ON chain (previous);
SELECT guard_table('chain', 'nhs', '{congenital_anomaly}');
SELECT relation, path, row_count FROM erase('9990000069', '{congenital_anomaly}') WHERE row_count > 0;
SELECT id FROM chain;
-- Its time grows with the length and not with the square of it: this took a minute.
INSERT INTO chain SELECT i, nullif(i - 1, 2000), CASE i WHEN 2001 THEN 9990000069 END FROM generate_series(2001, 4000) AS i;
ANALYZE chain;
SET statement_timeout = '50s';
SELECT relation, path, count(*), sum(row_count) FROM erase('9990000069', '{congenital_anomaly}') WHERE row_count > 0 GROUP BY 1, 2;
RESET statement_timeout;

-- A row that stays has another number, of a patient who is excluded and not yet erased, or
-- one that cannot be read: what the erasure changes in it is not stopped, and
-- anything else is.
CREATE TABLE twin (id int PRIMARY KEY, nhs text, mother text, mother_name text, encoded encoded_nhs_number);
INSERT INTO twin VALUES (1, '9990000018', '9990000026', 'x'), (2, 'unreadable', '9990000026', 'x'), (3, NULL, '9990000026', 'x');
CREATE TABLE sibling (id int, twin_id int REFERENCES twin ON DELETE SET NULL, nhs text);
INSERT INTO sibling VALUES (1, 1, '9990000034'), (2, 1, 'unreadable'), (3, 1, NULL);
SELECT guard_table('twin', 'mother', '{congenital_anomaly}', 'redact', redact_columns => '{mother_name}'),
       guard_table('twin', 'nhs', '{congenital_anomaly}', encoded_column => 'encoded', on_missing => 'reject'),
       guard_table('sibling', 'nhs', '{congenital_anomaly}', on_missing => 'reject');
SELECT exclude('9990000018', '{congenital_anomaly}'), exclude('9990000034', '{congenital_anomaly}');
SELECT relation, action, row_count FROM erase('9990000026', '{congenital_anomaly}') WHERE row_count > 0;
SELECT id, nhs, mother, mother_name, encoded IS NOT NULL AS encoded FROM twin ORDER BY id;
SELECT relation, action, row_count FROM erase('9990000018', '{congenital_anomaly}') WHERE row_count > 0;
SELECT * FROM sibling ORDER BY id;
UPDATE sibling SET id = 4 WHERE id = 1;
\echo :SQLSTATE
UPDATE twin SET id = 4 WHERE id = 2;
\echo :SQLSTATE
-- What triggers of the child's owner bring in meanwhile is brought in: another number before
-- the guard's trigger and behind it, and a row, where the constraint is alone.
CREATE TABLE spared_parent (id int PRIMARY KEY, nhs text);
CREATE TABLE spared (id int, parent_id int REFERENCES spared_parent ON DELETE SET NULL, nhs text, other text);
CREATE TABLE spared_fast (id int, parent_id int REFERENCES spared_parent ON DELETE SET NULL, nhs text);
SELECT guard_table('spared_parent', 'nhs', '{congenital_anomaly}'), guard_table('spared', 'nhs', '{congenital_anomaly}'),
    guard_table('spared', 'other', '{congenital_anomaly}'),
    guard_table('spared_fast', 'nhs', '{congenital_anomaly}', mechanism => 'constraint');
INSERT INTO spared_parent VALUES (1, '9990000026');
INSERT INTO spared VALUES (1, 1, '9990000042', '9990000042');
INSERT INTO spared_fast VALUES (1, 1, '9990000042');
CREATE FUNCTION fill_in() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_ARGV[0] = 'insert' THEN
        EXECUTE format('INSERT INTO public.%I VALUES (2, NULL, ''9990000018'')', TG_TABLE_NAME);
    ELSE
        NEW.nhs := '9990000018';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER aaa BEFORE UPDATE ON spared FOR EACH ROW EXECUTE FUNCTION fill_in('update');
SELECT erase('9990000026', '{congenital_anomaly}');
\echo :SQLSTATE
DROP TRIGGER aaa ON spared;
CREATE TRIGGER zzz BEFORE UPDATE ON spared FOR EACH ROW EXECUTE FUNCTION fill_in('update');
SELECT erase('9990000026', '{congenital_anomaly}');
\echo :SQLSTATE
DROP TRIGGER zzz ON spared;
CREATE TRIGGER zzz BEFORE UPDATE ON spared FOR EACH ROW EXECUTE FUNCTION fill_in('insert');
BEGIN;
SELECT count(*) FROM erase('9990000026', '{congenital_anomaly}');
-- What a trigger would bring in is left out.
TABLE spared;
ROLLBACK;
DROP TRIGGER zzz ON spared;
CREATE TRIGGER zzz BEFORE UPDATE ON spared_fast FOR EACH ROW EXECUTE FUNCTION fill_in('insert');
SELECT erase('9990000026', '{congenital_anomaly}');
\echo :SQLSTATE
DROP TRIGGER zzz ON spared_fast;
CREATE TRIGGER zzz BEFORE UPDATE ON spared_fast FOR EACH ROW EXECUTE FUNCTION fill_in('update');
SELECT erase('9990000026', '{congenital_anomaly}');
\echo :SQLSTATE
DROP TRIGGER zzz ON spared_fast;
-- Both numbers of the row are of a patient who is excluded by now, and it is kept.
SELECT exclude('9990000042', '{congenital_anomaly}');
DELETE FROM spared_fast;
SELECT relation, action, row_count FROM erase('9990000026', '{congenital_anomaly}') WHERE row_count > 0;
TABLE spared;
SELECT unguard_table('spared_parent'), unguard_table('spared'), unguard_table('spared_fast');
DROP TABLE spared_fast, spared, spared_parent;
DROP FUNCTION fill_in;
SELECT readmit('9990000042', '{congenital_anomaly}');
-- A row that refers twice is unlinked once.
CREATE TABLE picture (id int, twin_id int REFERENCES twin ON DELETE SET NULL, other_id int REFERENCES twin ON DELETE SET NULL);
INSERT INTO twin VALUES (7, '9990000050'), (8, '9990000050');
INSERT INTO picture VALUES (1, 7, 8), (2, 7, 7), (3, 8, NULL);
SELECT relation, action, sum(row_count) FROM erase('9990000050', '{congenital_anomaly}') WHERE row_count > 0
    GROUP BY 1, 2 ORDER BY relation::text, action;
SELECT * FROM picture ORDER BY id;
BEGIN;
DROP TABLE picture;
SELECT accept_gap('edge_lost', NULL, 'public.picture (twin_id) > public.twin (id)', 'the pictures are destroyed'),
       accept_gap('edge_lost', NULL, 'public.picture (other_id) > public.twin (id)', 'the pictures are destroyed');
COMMIT;
-- Not even while the erasure runs does a row come in.
CREATE FUNCTION bring_in() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.twin (id, nhs) VALUES (9, '9990000034'); RETURN OLD; END $$;
CREATE TRIGGER bring_in AFTER UPDATE ON twin FOR EACH ROW EXECUTE FUNCTION bring_in();
UPDATE twin SET mother = '9990000042' WHERE id = 2;
INSERT INTO twin VALUES (5, '9990000050', '9990000042', 'x');
SELECT relation, action, row_count FROM erase('9990000042', '{congenital_anomaly}') WHERE row_count > 0;
SELECT id FROM twin WHERE id = 9;
SELECT unguard_table('twin'), unguard_table('sibling');
DROP TABLE twin, sibling;
DROP FUNCTION bring_in;
SELECT readmit('9990000018', '{congenital_anomaly}'), readmit('9990000034', '{congenital_anomaly}');

-- Mistakes.
SELECT * FROM erase('9999999999', '{cancer}');
\echo :SQLSTATE
SELECT * FROM erase(NULL, '{cancer}');
SELECT declare_reference(NULL, '{a}', 'visit', '{id}');
SELECT * FROM erase('9990000018', '{}');
SELECT * FROM erasure_preview('9990000018', '{cancers}');
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE chain RENAME COLUMN nhs TO number;
RESET ndrs_optout.allow_unguarded;
SELECT * FROM erase('9990000018', '{congenital_anomaly}');
\echo :SQLSTATE
-- A table that went without the sentry leaves a damaged guard behind, until it is unguarded.
SELECT unguard_table('chain');
SELECT 'kept'::regclass::oid AS kept \gset
ALTER EVENT TRIGGER ndrs_optout_sentry_drop DISABLE;
ALTER EVENT TRIGGER ndrs_optout_sentry_start DISABLE;
DROP TABLE kept, kept_child, kept_note;
ALTER EVENT TRIGGER ndrs_optout_sentry_start ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_drop ENABLE ALWAYS;
SELECT severity, gap, object FROM guard_coverage() WHERE relation = :kept OR gap ~ '_lost' ORDER BY 2, 3;
\set VERBOSITY sqlstate
SELECT relation, row_count FROM erase('9990000018', '{congenital_anomaly}');
\set VERBOSITY default
SELECT unguard_table(:kept);
SELECT relation, row_count FROM erase('9990000018', '{congenital_anomaly}');

-- A key that is missing is not the word for it, whatever the session says.
CREATE TABLE parent (nhs text, code text UNIQUE);
CREATE TABLE child (code text REFERENCES parent (code));
INSERT INTO parent VALUES ('9990000018', NULL), ('9990000026', 'NULL');
INSERT INTO child VALUES ('NULL');
SELECT guard_table('parent', 'nhs', '{congenital_anomaly}');
SET array_nulls = off;
SELECT relation, row_count FROM erasure_preview('9990000018', '{congenital_anomaly}') WHERE row_count > 0;
SELECT source FROM disclose_records('9990000018') WHERE source LIKE 'public.%';
SELECT relation, row_count FROM erase('9990000018', '{congenital_anomaly}') WHERE row_count > 0;
RESET array_nulls;
SELECT unguard_table('parent');
DROP TABLE parent, child;

-- The session keeps the plans of its searches, and parses them with our rights again when
-- a table has changed: whoever owns the table has no rights on what they call.
CREATE ROLE regress_owner;
CREATE TABLE owned (id integer PRIMARY KEY, nhs text);
CREATE TABLE owned_child (owned integer REFERENCES owned);
ALTER TABLE owned OWNER TO regress_owner;
ALTER TABLE owned_child OWNER TO regress_owner;
INSERT INTO owned VALUES (1, '9990000018'), (2, '9990000026'), (3, '9990000034');
INSERT INTO owned_child VALUES (1), (2), (3);
SELECT guard_table('owned', 'nhs', '{congenital_anomaly}');
-- A server that can forget what it knows at every opportunity does so for this one.
SELECT set_config('debug_discard_caches', least(max_val::integer, 1)::text, false) FROM pg_settings
    WHERE name = 'debug_discard_caches' \g /dev/null
SELECT relation, row_count FROM erase('9990000018', '{congenital_anomaly}');
RESET debug_discard_caches;
ALTER TABLE owned ADD COLUMN extra integer;
ALTER TABLE owned_child RENAME COLUMN owned TO parent;
SELECT relation, row_count FROM erase('9990000026', '{congenital_anomaly}');
SELECT * FROM owned JOIN owned_child ON parent = id;
-- Row security makes the server parse anew for each role.
ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
ALTER TABLE owned_child ENABLE ROW LEVEL SECURITY;
SELECT relation, row_count FROM erase('9990000034', '{congenital_anomaly}');
SELECT * FROM owned JOIN owned_child ON parent = id;
SELECT unguard_table('owned');
DROP TABLE owned, owned_child;
DROP ROLE regress_owner;

-- A session keeps plans up to so many bytes; those that were not used for longest go.
CREATE TABLE hub (part int, nhs bigint) PARTITION BY LIST (part);
DO $$ BEGIN FOR i IN 1 .. 60 LOOP EXECUTE format('CREATE TABLE hub_%s PARTITION OF hub FOR VALUES IN (%1$s)', i); END LOOP; END $$;
CREATE TABLE one_more (nhs bigint);
SELECT guard_table('hub', 'nhs', '{congenital_anomaly}'), guard_table('one_more', 'nhs', '{rare_disease}');
-- Each patient's rows are in other partitions, so each deletion is another command.
CREATE TEMP TABLE hub_patient AS
    SELECT row_number() OVER () AS missing, n.number FROM (
        SELECT number FROM generate_series(9990001000, 9990009999) AS number
            WHERE nhs_number_or_null(number::text) IS NOT NULL LIMIT 45) AS n;
INSERT INTO hub SELECT part, p.number FROM generate_series(1, 60) AS part JOIN hub_patient p ON p.missing <> part;
SELECT count(*) FROM erase('9990000018', '{rare_disease}') WHERE relation = 'one_more'::regclass;
SELECT sum(e.row_count) AS rows FROM hub_patient p CROSS JOIN LATERAL erase(p.number::nhs_number, '{congenital_anomaly}') AS e;
SELECT count(*) AS rows FROM hub;
SELECT sum(total_bytes) BETWEEN 8e6 AND 36e6 AS kept,
       count(*) FILTER (WHERE ident LIKE '%DELETE FROM ONLY public.hub%') BETWEEN 10 AND 44 AS deletions,
       count(*) FILTER (WHERE ident LIKE '%FROM public.hub t JOIN%') AS used_always, count(*) FILTER (WHERE ident LIKE '%.one_more t %') AS not_for_long
    FROM pg_backend_memory_contexts WHERE name = 'CachedPlan' AND ident LIKE 'WITH %';
SELECT unguard_table('hub'), unguard_table('one_more');
DROP TABLE hub, hub_patient, one_more;

-- Many patients together: each once, all or none.
CREATE TABLE person (id int PRIMARY KEY, nhs bigint);
CREATE TABLE infant (id int PRIMARY KEY, mother int REFERENCES person, nhs text);
CREATE TABLE kinship (one int REFERENCES person, other int REFERENCES person);
CREATE TABLE serves_both (nhs text);
INSERT INTO person VALUES (1, 9990000018), (2, 9990000026), (3, 9990000034), (4, 9990000042);
INSERT INTO infant VALUES (10, 1, '999 000 0026'), (11, 3, NULL), (12, 4, NULL);
INSERT INTO kinship VALUES (1, 3), (3, 2), (4, 4);
INSERT INTO serves_both VALUES ('9990000018'), ('9990000034'), ('9990000042');
SELECT guard_table('person', 'nhs', '{congenital_anomaly}'), guard_table('infant', 'nhs', '{congenital_anomaly}'),
       guard_table('serves_both', 'nhs', '{congenital_anomaly,rare_disease}');
SELECT exclude('9990000034', '{rare_disease}');
-- A row of two patients goes with both, and stands in the way of one.
SELECT relation, path, action, row_count FROM erase_patients('{9990000018}', '{congenital_anomaly}');
BEGIN;
SELECT relation, path, action, row_count FROM erase('9990000026', '{congenital_anomaly}') WHERE row_count > 0;
SELECT * FROM infant ORDER BY id;
ROLLBACK;
-- Who is out of both registers has nothing kept.
SELECT relation, path, action, row_count FROM erase_patients('{9990000034,9990000026,9990000018,9990000034}', '{congenital_anomaly}');
TABLE person; TABLE infant; TABLE kinship; TABLE serves_both;
-- One who cannot be erased keeps all.
INSERT INTO person VALUES (5, 9990000050);
INSERT INTO infant VALUES (13, 5, '9990000069');
SELECT count(*) FROM erase_patients('{9990000042,9990000050}', '{congenital_anomaly}');
SELECT count(*) FROM person;
SELECT count(*) FROM erase_patients('{}', '{congenital_anomaly}');
SELECT count(*) FROM erase_patients(NULL, '{congenital_anomaly}');
SELECT count(*) FROM erase_patients('{9990000042,NULL}', '{congenital_anomaly}');
SELECT count(*) FROM erase_patients('{9990000042,9999999999}', '{congenital_anomaly}');
SELECT count(*) FROM erase_patients('{9990000042}', '{cancers}');
SELECT unguard_table('person'), unguard_table('infant'), unguard_table('serves_both');
DROP TABLE infant, kinship, person, serves_both;

SELECT erasure_tables('{cancer}');
DELETE FROM guard; DELETE FROM reference; DELETE FROM expected_edge; DELETE FROM exclusion;
DROP TABLE mother, baby, anomaly, chain, visit, finding, both_registers, rare_case, note, a_side, b_side, letter, imaging, drug, cycle, regimen, tumour CASCADE;
DROP SCHEMA "Registry" CASCADE;
DROP TABLE history;
DROP FUNCTION keep, keep_a_copy, delete_notes, write_history, keep_tumour, touch_parent;
