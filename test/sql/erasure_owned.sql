-- Rows that belong to patients whose rows refer to them.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;

-- As registries hold raw data: encrypted, once for equal ones, with pages and a key.
CREATE TABLE batch (batch_id int PRIMARY KEY, received date);
CREATE TABLE raw_key (key_id int PRIMARY KEY, key bytea);
CREATE TABLE raw_data (raw_id int PRIMARY KEY, key_id int REFERENCES raw_key, data text);
CREATE TABLE page (raw_id int REFERENCES raw_data ON DELETE CASCADE, content text);
CREATE TABLE patient (patient_id int PRIMARY KEY, nhs text, batch_id int REFERENCES batch, raw_id int REFERENCES raw_data);
CREATE TABLE sample (sample_id int PRIMARY KEY, patient_id int REFERENCES patient, raw_id int REFERENCES raw_data);
INSERT INTO batch VALUES (1, '2026-11-01');
INSERT INTO raw_key VALUES (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO raw_data VALUES (10, 1, 'of the first'), (11, 2, 'of both'), (12, 2, 'of the first'), (13, 3, 'of nobody'), (14, 3, 'of the second');
INSERT INTO page VALUES (10, 'a'), (10, 'b'), (11, 'c'), (14, 'd');
INSERT INTO patient VALUES (1, '9990000018', 1, 10), (2, '9990000018', 1, 10), (3, '9990000018', 1, 11),
    (4, '9990000026', 1, 11), (5, '9990000026', 1, 14), (6, '9990000018', 1, NULL);
INSERT INTO sample VALUES (100, 1, 12), (101, 4, 14);
SELECT guard_table('patient', 'nhs', '{cancer}');
PREPARE gaps AS SELECT gap, relation, object, what_to_do FROM guard_coverage() WHERE gap IN ('parent_not_owned', 'owned_rows_kept') ORDER BY 2, 3;
PREPARE walk AS SELECT path, action, row_count, missing_index FROM erasure_preview('9990000018', '{cancer}');
PREPARE held AS SELECT ARRAY(SELECT raw_id FROM raw_data ORDER BY 1) AS raw_data, ARRAY(SELECT key_id FROM raw_key ORDER BY 1) AS keys,
    ARRAY(SELECT content FROM page ORDER BY 1) AS pages, ARRAY(SELECT patient_id FROM patient ORDER BY 1) AS patients;

-- A parent below which only patients' rows lie is a gap, until it is declared or accepted.
EXECUTE gaps;
EXECUTE walk;
SELECT accept_gap('parent_not_owned', 'batch', NULL, 'Deliveries are no patient''s.');
SELECT declare_owned('patient', '{raw_id}', 'raw_data', '{raw_id}');
EXECUTE gaps;
SELECT declare_owned('sample', '{raw_id}', 'raw_data', '{raw_id}'), declare_owned('raw_data', '{key_id}', 'raw_key', '{key_id}');
EXECUTE gaps;
SELECT child, parent, child_columns, parent_columns FROM owned_parent ORDER BY child::text;
EXECUTE walk;
SELECT source, record, shared FROM disclose_records('9990000018') WHERE source ~ 'raw|page' ORDER BY source, record::text;

-- The last of the rows that refer to one takes it along.
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
EXECUTE held;
SELECT path, action, row_count FROM erase('9990000026', '{cancer}');
EXECUTE held;
ROLLBACK;
BEGIN;
SELECT sum(row_count) FROM erase('9990000026', '{cancer}');
EXECUTE held;
SELECT sum(row_count) FROM erase('9990000018', '{cancer}');
EXECUTE held;
ROLLBACK;
BEGIN;
SELECT path, action, row_count FROM erase_patients('{9990000026,9990000018}', '{cancer}');
EXECUTE held;
ROLLBACK;

-- A case: what is recorded, told and certified.
SELECT last_value AS last_case, is_called AS any_case FROM optout_case_case_id_seq \gset
SELECT setval('optout_case_case_id_seq', 900);
SELECT open_case('9990000018', '{cancer}') AS case_id, record_identity(901, 'identity', 'passport'), record_identity(901, 'address', 'utility_bill');
CALL carry_out(901, '9990000018');
SELECT relation, action, sum(row_count) FROM case_erasure GROUP BY 1, 2 ORDER BY 1, 2;
SELECT t FROM jsonb_array_elements(erasure_certificate(901) -> 'tables') AS t WHERE t ->> 'table' ~ 'raw';
SELECT line FROM optout_case c CROSS JOIN LATERAL regexp_split_to_table(case_letter_text(c, 'completion', false), E'\n+') AS line WHERE line ~ 'kept|found';
EXECUTE held;
-- Nothing is left that could be shared.
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
-- The other patient's erasure takes what was shared.
SELECT sum(row_count) FILTER (WHERE action = 'deleted') FROM erase('9990000026', '{cancer}');
EXECUTE held;
SELECT unguard_table('patient');
DROP TABLE page, sample, patient, raw_data, raw_key, batch;
SELECT count(*) FROM owned_parent;

-- What keeps a row: a reference from any table, by a foreign key of any kind but ON DELETE
-- CASCADE.  What goes with it: parts.
CREATE TABLE address (id int PRIMARY KEY, code text UNIQUE);
CREATE TABLE patient (id int PRIMARY KEY, nhs bigint, address int REFERENCES address ON DELETE CASCADE);
CREATE TABLE map (address int REFERENCES address ON DELETE CASCADE);
CREATE TABLE hospital (id int, address int REFERENCES address ON DELETE SET NULL);
CREATE TABLE ward (code text REFERENCES address (code) ON DELETE RESTRICT);
CREATE TABLE note (address int REFERENCES address);
CREATE TABLE visit (address int);
INSERT INTO address SELECT n, 'C' || n FROM generate_series(1, 8) AS n;
INSERT INTO patient SELECT n, 9990000018, n FROM generate_series(1, 7) AS n;
INSERT INTO patient VALUES (8, 9990000026, 2);
INSERT INTO map VALUES (1), (2), (8);
INSERT INTO hospital VALUES (1, 3), (2, 8);
INSERT INTO ward VALUES ('C4'), ('C8');
INSERT INTO note VALUES (5), (8);
INSERT INTO visit VALUES (6), (8);
SELECT guard_table('patient', 'nhs', '{cancer}');
SELECT declare_owned('patient', '{address}', 'address', '{id}'), declare_owned('patient', '{address}', 'address', '{id}');
PREPARE at AS SELECT ARRAY(SELECT id FROM address ORDER BY 1) AS addresses, ARRAY(SELECT address FROM map ORDER BY 1) AS maps,
    ARRAY(SELECT address FROM note ORDER BY 1) AS notes, ARRAY(SELECT address FROM visit ORDER BY 1) AS visits;
EXECUTE gaps;
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
EXECUTE at;
TABLE hospital; TABLE ward; TABLE patient;
ROLLBACK;
-- Parts, by declaration; a foreign key may be there besides.
SELECT declare_reference('note', '{address}', 'address', '{id}'), declare_reference('visit', '{address}', 'address', '{id}');
EXECUTE gaps;
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
EXECUTE at;
ROLLBACK;
-- Other rows that own, by declaration alone.
SELECT declare_owned('visit', '{address}', 'address', '{id}');
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0;
EXECUTE at;
ROLLBACK;
-- A reference by which rows belong to others cannot be dropped.
SELECT drop_reference('visit', '{address}', 'address', '{id}');
\echo :SQLSTATE
-- A column is followed by its number.
ALTER TABLE patient RENAME address TO lives_at;
ALTER TABLE address RENAME id TO address_id;
SELECT child, child_columns, parent_columns FROM owned_parent ORDER BY child::text;
SELECT path, action, row_count FROM erasure_preview('9990000018', '{cancer}') WHERE row_count > 0;
SELECT retract_owned('patient', '{lives_at}', 'address', '{address_id}');
SELECT path, action, row_count FROM erasure_preview('9990000018', '{cancer}');
EXECUTE gaps;
SELECT event, detail FROM audit_event WHERE event ~ 'owned' ORDER BY event_id DESC LIMIT 1;
-- Not declared; no such reference; not unique; of a type that is not followed.
SELECT retract_owned('patient', '{lives_at}', 'address', '{address_id}');
\echo :SQLSTATE
SELECT declare_owned('patient', '{id}', 'address', '{address_id}');
\echo :SQLSTATE
SELECT declare_reference('visit', '{address}', 'hospital', '{id}');
SELECT declare_owned('visit', '{address}', 'hospital', '{id}');
\echo :SQLSTATE
CREATE TABLE odd (id int[] PRIMARY KEY);
CREATE TABLE refers (odd int[] REFERENCES odd);
SELECT declare_owned('refers', '{odd}', 'odd', '{id}');
\echo :SQLSTATE
SELECT declare_owned(NULL, NULL, NULL, NULL);
SELECT unguard_table('patient');
DROP TABLE patient, map, hospital, ward, note, visit, address, odd, refers;
TABLE owned_parent;

-- Rows that refer to themselves, in a line, and in a circle; from a partitioned table and an
-- inheritance child to a partitioned one; by two columns, of other types than the key.
CREATE TABLE raw (part int, id bigint, previous bigint, next bigint, PRIMARY KEY (part, id)) PARTITION BY LIST (part);
CREATE TABLE raw_1 PARTITION OF raw FOR VALUES IN (1);
CREATE TABLE raw_2 PARTITION OF raw FOR VALUES IN (2);
ALTER TABLE raw ADD CONSTRAINT previous FOREIGN KEY (part, previous) REFERENCES raw, ADD CONSTRAINT next FOREIGN KEY (part, next) REFERENCES raw;
CREATE TABLE patient (id int PRIMARY KEY, nhs text, raw_part int, raw_id int, FOREIGN KEY (raw_part, raw_id) REFERENCES raw) PARTITION BY HASH (id);
CREATE TABLE patient_0 PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE patient_1 PARTITION OF patient FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE scan (patient int, raw_part int, raw_id numeric);
CREATE TABLE scan_of_lung () INHERITS (scan);
INSERT INTO raw VALUES (1, 1, 1, NULL), (1, 2, NULL, NULL), (1, 3, 2, NULL), (1, 4, 3, NULL), (2, 5, 6, NULL), (2, 6, 5, NULL), (2, 7, NULL, 7),
    (2, 8, NULL, NULL), (2, 9, 8, NULL), (1, 8, NULL, NULL), (2, 10, NULL, NULL), (2, 11, NULL, NULL);
INSERT INTO patient VALUES (1, '9990000018', 1, 1), (2, '9990000018', 1, 4), (3, '9990000018', 2, 5), (4, '9990000018', 2, 7), (5, '9990000018', 2, 8),
    (6, '9990000026', 2, 9), (7, '9990000018', 1, NULL), (8, '9990000018', NULL, 8);
INSERT INTO scan VALUES (1, 2, 10.0), (6, 1, 8);
INSERT INTO scan_of_lung VALUES (2, 2, 11), (6, 2, 10);
SELECT guard_table('patient', 'nhs', '{cancer}');
SELECT declare_reference('scan', '{patient}', 'patient', '{id}'), declare_reference('scan', '{raw_id,raw_part}', 'raw', '{id,part}');
SELECT declare_owned('patient', '{raw_id,raw_part}', 'raw', '{id,part}'), declare_owned('scan', '{raw_part,raw_id}', 'raw', '{part,id}'),
    declare_owned('raw', '{part,previous}', 'raw', '{part,id}'), declare_owned('raw', '{part,next}', 'raw', '{part,id}');
SELECT action, sum(row_count) FROM erasure_preview('9990000018', '{cancer}') GROUP BY 1 ORDER BY 1;
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0;
SELECT part, id FROM raw ORDER BY id, part;
SELECT path, action, row_count FROM erase('9990000026', '{cancer}') WHERE row_count > 0;
TABLE raw;
ROLLBACK;

-- Tables of several owners, who may read no others'.
CREATE ROLE regress_owned_raw;
CREATE ROLE regress_owned_scan;
ALTER TABLE raw OWNER TO regress_owned_raw;
ALTER TABLE raw_1 OWNER TO regress_owned_raw;
ALTER TABLE raw_2 OWNER TO regress_owned_raw;
ALTER TABLE scan OWNER TO regress_owned_scan;
ALTER TABLE scan_of_lung OWNER TO regress_owned_scan;
BEGIN;
SELECT action, sum(row_count) FROM erase('9990000018', '{cancer}') GROUP BY 1 ORDER BY 1;
SELECT part, id FROM raw ORDER BY id, part;
ROLLBACK;
SELECT unguard_table('patient');
DROP TABLE patient, scan_of_lung, scan, raw;
DROP ROLE regress_owned_raw, regress_owned_scan;

-- A row that stays without its reference frees what it referred to: a guard that redacts, and
-- a foreign key that unlinks.
CREATE TABLE home (id int PRIMARY KEY, street text);
CREATE TABLE mother (id int PRIMARY KEY, nhs text);
CREATE TABLE baby (id int PRIMARY KEY, nhs text, home int REFERENCES home, mother_nhs text, mother_home int REFERENCES home);
CREATE TABLE letter (id int, mother int, home int REFERENCES home, other_home int REFERENCES home,
    FOREIGN KEY (mother) REFERENCES mother ON DELETE SET NULL);
INSERT INTO home SELECT n, 'street ' || n FROM generate_series(1, 6) AS n;
INSERT INTO mother VALUES (1, '9990000018');
INSERT INTO baby VALUES (1, '9990000026', 1, '9990000018', 2), (2, '9990000034', 3, '9990000018', 3), (3, '9990000042', 4, '9990000018', 4);
INSERT INTO letter VALUES (1, 1, 5, 6);
SELECT guard_table('mother', 'nhs', '{cancer}'), guard_table('baby', 'nhs', '{cancer}'),
    guard_table('baby', 'mother_nhs', '{cancer}', 'redact', redact_columns => '{mother_home}');
SELECT declare_owned('baby', '{home}', 'home', '{id}'), declare_owned('baby', '{mother_home}', 'home', '{id}'),
    declare_owned('letter', '{home}', 'home', '{id}');
SELECT path, action, row_count FROM erasure_preview('9990000018', '{cancer}');
SELECT source, record, shared FROM disclose_records('9990000018') WHERE source ~ 'home' ORDER BY source, record::text;
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0;
TABLE home; TABLE baby; TABLE letter;
ROLLBACK;
-- Only SET NULL of the column that refers to it, which is one of the key's.
CREATE TABLE visit (id int, mother int REFERENCES mother (id) ON DELETE SET NULL, place text);
ALTER TABLE home ADD place text, ADD UNIQUE (id, place);
UPDATE home SET place = 'P' || id;
SELECT declare_reference('visit', '{mother,place}', 'home', '{id,place}'), declare_owned('visit', '{mother,place}', 'home', '{id,place}');
INSERT INTO visit VALUES (1, 1, 'P1'), (2, 1, 'P5');
DELETE FROM baby WHERE home = 1;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0;
TABLE home; TABLE baby; TABLE letter; TABLE visit;
SELECT unguard_table('mother'), unguard_table('baby');
DROP TABLE visit, letter, baby, mother, home;

-- What triggers do: a row put back, a reference that comes in or goes while rows are deleted.
CREATE TABLE raw (id int PRIMARY KEY, note text);
CREATE TABLE patient (id int PRIMARY KEY, nhs text, raw int REFERENCES raw);
CREATE TABLE other (id int, raw int REFERENCES raw);
INSERT INTO raw VALUES (1), (2), (3);
INSERT INTO patient VALUES (1, '9990000018', 1), (2, '9990000018', 2);
INSERT INTO other VALUES (1, 2);
SELECT guard_table('patient', 'nhs', '{cancer}'), declare_owned('patient', '{raw}', 'raw', '{id}');
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE TG_ARGV[0]; RETURN OLD; END $$;
-- The other reference goes with the patient: what was shared is an orphan, and goes in the next round.
CREATE TRIGGER act AFTER DELETE ON patient FOR EACH ROW EXECUTE FUNCTION act('DELETE FROM public.other');
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
TABLE raw;
ROLLBACK;
DROP TRIGGER act ON patient;
-- Another reference comes in.
CREATE TRIGGER act AFTER DELETE ON patient FOR EACH STATEMENT EXECUTE FUNCTION act('INSERT INTO public.other VALUES (2, 1)');
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
DROP TRIGGER act ON patient;
-- The row comes back.
CREATE TRIGGER act AFTER DELETE ON raw FOR EACH STATEMENT EXECUTE FUNCTION act('INSERT INTO public.raw VALUES (1)');
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
DROP TRIGGER act ON raw;
-- It cannot go.
CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER stay BEFORE DELETE ON raw FOR EACH ROW EXECUTE FUNCTION stay();
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
DROP TRIGGER stay ON raw;
-- A history of patients, declared, that owns raw data, too.
CREATE TABLE history (patient int, raw int);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.history VALUES (OLD.id, 3); RETURN OLD; END $$;
CREATE TRIGGER remember AFTER DELETE ON patient FOR EACH ROW EXECUTE FUNCTION remember();
SELECT declare_reference('history', '{patient}', 'patient', '{id}'), declare_reference('history', '{raw}', 'raw', '{id}'),
    declare_owned('history', '{raw}', 'raw', '{id}');
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0;
TABLE raw; TABLE history;

-- The edge is expected: a foreign key that leads to owned rows cannot be lost.
SELECT gap, object FROM guard_coverage() WHERE gap = 'edge_lost';
\set VERBOSITY terse
ALTER TABLE patient DROP CONSTRAINT patient_raw_fkey;
\echo :SQLSTATE
\set VERBOSITY default
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE patient DROP CONSTRAINT patient_raw_fkey;
RESET ndrs_optout.allow_unguarded;
SELECT gap, object, what_to_do FROM guard_coverage() WHERE gap = 'edge_lost';
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
\echo :SQLSTATE
-- What is not owned any more is not expected.
SELECT retract_owned(child, child_columns, parent, parent_columns) FROM owned_parent ORDER BY child::text;
SELECT gap, object FROM guard_coverage() WHERE gap = 'edge_lost';
SELECT child_name, parent_name FROM expected_edge WHERE parent_name = 'public.raw';
SELECT unguard_table('patient');
DROP TABLE history, other, patient, raw;
DROP FUNCTION act, stay, remember;

-- A row ON DELETE CASCADE to which another reference leads as well may be another patient's.
CREATE TABLE address (id int PRIMARY KEY);
CREATE TABLE patient (id int PRIMARY KEY, nhs bigint, address int REFERENCES address);
CREATE TABLE visit (id int, patient int REFERENCES patient, address int REFERENCES address ON DELETE CASCADE);
INSERT INTO address VALUES (1), (2);
INSERT INTO patient VALUES (1, 9990000018, 1), (2, 9990000026, 2), (3, 9990000018, 2);
INSERT INTO visit VALUES (10, 1, 1), (20, 2, 1), (30, 3, 2);
SELECT guard_table('patient', 'nhs', '{cancer}');
SELECT declare_owned('patient', '{address}', 'address', '{id}');
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
TABLE visit;
SELECT path, action, row_count FROM erase('9990000026', '{cancer}');
TABLE visit;
ROLLBACK;
SELECT unguard_table('patient');
SELECT retract_owned('patient', '{address}', 'address', '{id}');
DROP TABLE visit, patient, address;

-- But not what it owns: a part that owns rows is a part.
CREATE TABLE raw (id int PRIMARY KEY);
CREATE TABLE image (id int PRIMARY KEY);
CREATE TABLE page (id int PRIMARY KEY, raw int REFERENCES raw ON DELETE CASCADE, image int REFERENCES image);
CREATE TABLE patient (id int PRIMARY KEY, nhs bigint, raw int REFERENCES raw);
INSERT INTO raw VALUES (1), (2);
INSERT INTO image VALUES (1), (2), (3);
INSERT INTO page VALUES (1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 3);
INSERT INTO patient VALUES (1, 9990000018, 1), (2, 9990000026, 2);
SELECT guard_table('patient', 'nhs', '{cancer}');
SELECT declare_owned('patient', '{raw}', 'raw', '{id}'), declare_owned('page', '{image}', 'image', '{id}');
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0;
SELECT path, action, row_count FROM erase('9990000026', '{cancer}') WHERE row_count > 0;
TABLE image;
SELECT unguard_table('patient');
DROP TABLE page, patient, image, raw;
DEALLOCATE ALL;
DELETE FROM identity_evidence; DELETE FROM case_erasure; DELETE FROM optout_case; DELETE FROM statistics_renewal; DELETE FROM exclusion; DELETE FROM accepted_gap;
SELECT setval('optout_case_case_id_seq', :last_case, :'any_case') \gset
DELETE FROM expected_edge;
