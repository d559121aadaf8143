-- References between columns of types that cannot, or should not, be compared; and foreign keys that
-- are to unlink rows and cannot.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
CREATE SCHEMA citext;
CREATE EXTENSION citext SCHEMA citext;
CREATE TYPE side AS ENUM ('left', 'right');
CREATE DOMAIN label AS citext.citext;
CREATE DOMAIN code AS varchar(10);
CREATE TABLE parent (t text, v varchar, c char(10), d code, i2 smallint, i4 int, i8 bigint, n numeric, f4 real, f8 float8, dt date,
    ts timestamp, tz timestamptz, ci citext.citext, l label, e side, u uuid, b boolean, j json, o oid, ip inet, nw cidr, nhs nhs_number, by bytea);
CREATE TABLE child (LIKE parent);

-- Which types can refer to which, in both directions.
CREATE FUNCTION refers(child_column name, parent_column name) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ndrs_optout.declare_reference('public.child', ARRAY[child_column], 'public.parent', ARRAY[parent_column]);
    RETURN 'yes';
EXCEPTION WHEN datatype_mismatch OR undefined_function OR ambiguous_function OR feature_not_supported THEN
    RETURN SQLSTATE;
END $$;
SELECT r.says, string_agg(format('%s>%s', c.attname, p.attname), ' ' ORDER BY c.attnum, p.attnum) AS child_and_parent
    FROM pg_attribute c JOIN pg_attribute p ON p.attrelid = 'parent'::regclass AND p.attnum > 0
    CROSS JOIN LATERAL (SELECT refers(c.attname, p.attname) AS says) AS r
    WHERE c.attrelid = 'child'::regclass AND c.attnum > 0 AND r.says <> '42804' GROUP BY 1 ORDER BY 1;
SELECT declare_reference('child', '{t,t}', 'parent', '{v,i4}');
\echo :SQLSTATE
SELECT declare_reference('child', '{i8}', 'parent', '{f8}');
SELECT declare_reference('child', '{tz}', 'parent', '{dt}');
DELETE FROM reference WHERE child = 'child'::regclass;

-- What is declared finds what is equal: by a domain's own type, over trailing blanks, across integers.
CREATE TABLE patient (nhs text, l label UNIQUE, c char(10), i8 bigint);
CREATE TABLE note (l label, t text, n numeric);
INSERT INTO patient VALUES ('9990000018', 'Left', 'abc', 5);
INSERT INTO note VALUES ('LEFT', 'x', 1), ('right', 'abc', 1), ('right', 'x', 5.00), ('right', 'x', 6);
SELECT guard_table('patient', 'nhs', '{cancer}');
SELECT declare_reference('note', '{l}', 'patient', '{l}'), declare_reference('note', '{t}', 'patient', '{c}'), declare_reference('note', '{n}', 'patient', '{i8}');
SELECT path, action, sum(row_count) FROM erase('9990000018', '{cancer}') GROUP BY 1, 2 ORDER BY 1;
TABLE note;
SELECT unguard_table('patient');
DROP TABLE note, patient, child, parent;
DROP FUNCTION refers;
DROP DOMAIN label, code;
DROP TYPE side;
DROP EXTENSION citext;
DROP SCHEMA citext;

-- A child's collation that takes for one what are two parents.
CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE patient (id text PRIMARY KEY, nhs text);
CREATE TABLE sample (id text COLLATE ignoring_case, tube text);
INSERT INTO patient VALUES ('a', '9990000018'), ('A', '9990000026');
INSERT INTO sample VALUES ('a', 'one'), ('A', 'two');
SELECT guard_table('patient', 'nhs', '{cancer}');
SELECT declare_reference('sample', '{id}', 'patient', '{id}');
ALTER TABLE sample ALTER id TYPE text;
SELECT declare_reference('sample', '{id}', 'patient', '{id}');
ALTER TABLE sample ALTER id TYPE text COLLATE ignoring_case;
SELECT path, row_count FROM erase('9990000018', '{cancer}');
TABLE sample;
SELECT drop_reference('sample', '{id}', 'patient', '{id}');
-- Where the server takes a foreign key, the other patient's row stands in the way.
INSERT INTO patient VALUES ('a', '9990000018');
INSERT INTO sample VALUES ('a', 'one');
ALTER TABLE sample ALTER id TYPE text COLLATE ignoring_case;
DO $$ BEGIN
    ALTER TABLE sample ADD FOREIGN KEY (id) REFERENCES patient;
    PERFORM erase('9990000018', '{cancer}');
EXCEPTION WHEN datatype_mismatch OR invalid_foreign_key OR SQLSTATE 'ND030' OR collation_mismatch THEN NULL; END $$;
SELECT * FROM sample WHERE tube = 'two';
SELECT unguard_table('patient');
DROP TABLE sample, patient;
DROP COLLATION ignoring_case;

-- ON DELETE SET NULL where a column cannot be NULL: its rows are in the way, and the preview says so.
CREATE DOMAIN known AS int NOT NULL;
CREATE TABLE patient (id int PRIMARY KEY, nhs text);
CREATE TABLE visit (id int, patient int NOT NULL REFERENCES patient ON DELETE SET NULL);
INSERT INTO patient VALUES (1, '9990000018'), (2, '9990000026'), (3, '9990000034'), (4, '9990000042'), (5, '9990000050');
INSERT INTO visit VALUES (10, 1), (11, 1), (12, 2);
SELECT guard_table('patient', 'nhs', '{cancer}');
SELECT path, action, row_count FROM erasure_preview('9990000018', '{cancer}');
SELECT path, action, row_count FROM erase('9990000018', '{cancer}');
\echo :SQLSTATE
SELECT count(*) FROM visit;
-- In a key, a domain, some partitions; by a default that is not there.
CREATE TABLE scan (patient int, part int, PRIMARY KEY (patient, part), FOREIGN KEY (patient) REFERENCES patient ON DELETE SET NULL);
CREATE TABLE slide (patient known REFERENCES patient ON DELETE SET NULL);
CREATE TABLE note (patient int REFERENCES patient ON DELETE SET NULL, part int) PARTITION BY LIST (part);
CREATE TABLE note_1 PARTITION OF note FOR VALUES IN (1);
CREATE TABLE note_2 PARTITION OF note FOR VALUES IN (2);
ALTER TABLE note_2 ALTER patient SET NOT NULL;
CREATE TABLE letter (patient int NOT NULL REFERENCES patient ON DELETE SET DEFAULT);
CREATE TABLE call (patient int NOT NULL DEFAULT 5 REFERENCES patient ON DELETE SET DEFAULT);
INSERT INTO scan VALUES (2, 1);
INSERT INTO slide VALUES (2);
INSERT INTO note VALUES (3, 1), (2, 2), (2, 1);
INSERT INTO letter VALUES (2);
INSERT INTO call VALUES (3);
SELECT path, action, row_count FROM erasure_preview('9990000026', '{cancer}') ORDER BY path, action;
SELECT count(*) FROM disclose_records('9990000026') WHERE source ~ 'public';
SELECT path, action, row_count FROM erase('9990000034', '{cancer}');
TABLE call; TABLE note;
-- Rows that go with the patient by another reference are not in the way.
ALTER TABLE visit ADD of int REFERENCES patient;
UPDATE visit SET of = patient;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0;
SELECT unguard_table('patient');
DROP TABLE visit, scan, slide, note, letter, call, patient;
DROP DOMAIN known;
DELETE FROM expected_edge;
DELETE FROM reference;
