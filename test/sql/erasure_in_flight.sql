-- What refers to rows that a loader takes away, and a guard leaves out when they come back,
-- between the exclusion and the erasure.  (Here in one session; carry_out_while_reloaded.spec has two.)
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET client_min_messages = warning;

-- Keys of two columns, with what an array quotes; of a partitioned table; a reference of a
-- partition's own; and a level below.
CREATE TABLE person (site text, number int, nhs_number text) PARTITION BY LIST (number);
CREATE TABLE person_1 PARTITION OF person FOR VALUES IN (1);
CREATE TABLE person_2 PARTITION OF person DEFAULT;
CREATE TABLE sample (sample_id int, person_site text, person_number int);
CREATE TABLE slide (slide_id int, sample int);
CREATE TABLE tag (person_site text);
SELECT guard_table('person', 'nhs_number', '{cancer}', 'skip'),
       declare_reference('slide', '{sample}', 'sample', '{sample_id}'),
       declare_reference('tag', '{person_site}', 'person_2', '{site}'),
       declare_reference('sample', '{person_site,person_number}', 'person', '{site,number}');
INSERT INTO person VALUES ('a,b', 1, '9990000018'), ('"{', 2, '9990000018'), (NULL, 3, '9990000018'), ('a,b', 4, '9990000026'),
    ('c', 1, '9990000026');
CREATE FUNCTION fill() RETURNS void LANGUAGE sql AS $$
    TRUNCATE sample, slide, tag;
    INSERT INTO sample VALUES (1, 'a,b', 1), (2, '"{', 2), (3, NULL, 3), (4, 'a,b', 4), (5, 'c', 1), (6, 'a,b', 2);
    INSERT INTO slide SELECT 10 * sample_id, sample_id FROM sample;
    INSERT INTO tag VALUES ('"{'), ('a,b'), ('c');
$$;
SELECT fill();
CREATE FUNCTION ready(number nhs_number) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    this bigint := ndrs_optout.open_case(number, '{cancer}');
BEGIN
    PERFORM ndrs_optout.record_identity(this, 'identity', 'passport');
    PERFORM ndrs_optout.record_identity(this, 'address', 'utility_bill');
    RETURN this;
END $$;
SELECT ready('9990000018') AS case_id \gset
SELECT case_exclude(:case_id, '9990000018');
BEGIN;
DELETE FROM person WHERE nhs_number = '9990000018';
INSERT INTO person VALUES ('a,b', 1, '9990000018'), ('"{', 2, '9990000018');
COMMIT;
-- Columns and tables are followed when they are renamed.
ALTER TABLE sample RENAME person_site TO site;
ALTER TABLE slide RENAME TO slides;
SELECT case_certify(:case_id, '9990000018');
SELECT relation, path, action, row_count FROM case_erasure WHERE row_count > 0 ORDER BY path;
SELECT * FROM sample ORDER BY 1;
SELECT * FROM slides ORDER BY 1;
TABLE tag ORDER BY 1;
SELECT * FROM case_leads;
ALTER TABLE sample RENAME site TO person_site;
ALTER TABLE slides RENAME TO slide;

-- One key is another's now.  Nothing refers to it: no matter.
SELECT readmit('9990000018', '{cancer}');
INSERT INTO person VALUES ('a,b', 1, '9990000018'), ('"{', 2, '9990000018');
SELECT fill();
DELETE FROM sample WHERE sample_id = 1;
SELECT case_exclude(:case_id, '9990000018');
BEGIN;
DELETE FROM person WHERE nhs_number = '9990000018';
INSERT INTO person VALUES ('a,b', 1, '9990000026'), ('"{', 2, '9990000018');
COMMIT;
SELECT case_certify(:case_id, '9990000018');
SELECT sample_id FROM sample ORDER BY 1;
SELECT state FROM optout_case WHERE case_id = :case_id;
DELETE FROM person WHERE number = 1 AND site = 'a,b';

-- Something does, so it is not known whose.  The next call leaves it, and erases what refers to the other key.
SELECT readmit('9990000018', '{cancer}');
INSERT INTO person VALUES ('a,b', 1, '9990000018'), ('"{', 2, '9990000018');
SELECT fill();
SELECT case_exclude(:case_id, '9990000018');
BEGIN;
DELETE FROM person WHERE nhs_number = '9990000018';
INSERT INTO person VALUES ('a,b', 1, '9990000026'), ('"{', 2, '9990000018');
COMMIT;
SELECT case_certify(:case_id, '9990000018');
SELECT state FROM optout_case WHERE case_id = :case_id;
CALL carry_out(:case_id, '9990000018');
SELECT sample_id FROM sample ORDER BY 1;
SELECT state FROM optout_case WHERE case_id = :case_id;

-- What is wrong with the walk does not keep the patient from being excluded.
SELECT readmit('9990000018', '{cancer}');
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE person DROP CONSTRAINT ndrs_optout_guard_3;
SELECT case_exclude(:case_id, '9990000018');
SELECT is_excluded('9990000018', 'cancer');
SELECT count(*) FROM case_leads;
SELECT refresh_guards('person');
SELECT case_certify(:case_id, '9990000018');

-- Without such a reference nothing is kept.
SELECT drop_reference(child, child_columns, parent, parent_columns) FROM reference;
SELECT case_exclude(:case_id, '9990000018');
SELECT count(*) FROM case_leads;

SELECT unguard_table('person');
DROP TABLE tag, slide, sample, person;
DROP FUNCTION fill, ready;
DELETE FROM case_erasure; DELETE FROM case_guard; DELETE FROM case_certificate; DELETE FROM identity_evidence; DELETE FROM statistics_renewal;
DELETE FROM optout_case; DELETE FROM exclusion; DELETE FROM guard_tally;
