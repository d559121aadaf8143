-- The erasure's plans: what a session keeps follows the catalogues.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
-- What the walk loses here is no other test's.
SET ndrs_optout.allow_unguarded = on;
SET client_min_messages = error;
CREATE TABLE patient (id int PRIMARY KEY, nhs bigint);
INSERT INTO patient VALUES (1, 9990000018), (2, 9990000026);
SELECT guard_table('patient', 'nhs', '{cancer}');
PREPARE walk AS SELECT path, action, row_count, missing_index FROM erasure_preview('9990000018', '{cancer}');
EXECUTE walk;

-- A foreign key; an index; names.
CREATE TABLE tumour (id int PRIMARY KEY, patient int REFERENCES patient);
INSERT INTO tumour VALUES (10, 1), (20, 2);
EXECUTE walk;
CREATE INDEX tumour_patient ON tumour (patient);
EXECUTE walk;
DROP INDEX tumour_patient;
EXECUTE walk;
ALTER TABLE tumour RENAME TO cancer;
ALTER TABLE cancer RENAME COLUMN patient TO of_patient;
EXECUTE walk;
ALTER TABLE cancer DROP CONSTRAINT tumour_patient_fkey,
    ADD CONSTRAINT unlinks FOREIGN KEY (of_patient) REFERENCES patient ON DELETE SET NULL;
EXECUTE walk;
ALTER TABLE cancer DROP CONSTRAINT unlinks;
EXECUTE walk;
ALTER TABLE cancer ADD CONSTRAINT follows FOREIGN KEY (of_patient) REFERENCES patient;
EXECUTE walk;

-- A column that was dropped has no type: whatever asks for it, in whatever order a plan
-- asks, is answered.
ALTER TABLE cancer ADD gone int;
ALTER TABLE cancer DROP gone;
SELECT count(*) FILTER (WHERE erasure_can_follow(a.atttypid)) AS followed, count(*) FILTER (WHERE a.attisdropped) AS dropped
    FROM pg_attribute a WHERE a.attrelid = 'cancer'::regclass AND a.attnum > 0;

-- Another table takes the name, and then the schema's.
ALTER TABLE cancer RENAME TO tumour;
CREATE TABLE cancer (id int, of_patient int);
INSERT INTO cancer VALUES (1, 1), (2, 1);
EXECUTE walk;
DROP TABLE cancer;
CREATE SCHEMA first;
CREATE SCHEMA second;
ALTER TABLE tumour SET SCHEMA first;
CREATE TABLE second.tumour (id int, of_patient int);
EXECUTE walk;
ALTER SCHEMA first RENAME TO third;
ALTER SCHEMA second RENAME TO first;
EXECUTE walk;
DROP SCHEMA first CASCADE;

-- A table becomes a partition, and has the children of its parent then.
CREATE TABLE every_tumour (id int PRIMARY KEY, of_patient int) PARTITION BY RANGE (id);
CREATE TABLE detail (tumour int REFERENCES every_tumour);
EXECUTE walk;
ALTER TABLE every_tumour ATTACH PARTITION third.tumour FOR VALUES FROM (0) TO (100);
INSERT INTO detail VALUES (10), (10), (20);
EXECUTE walk;
DELETE FROM detail;
ALTER TABLE every_tumour DETACH PARTITION third.tumour;
EXECUTE walk;

-- Or an inheritance child, whose parent another table is declared to refer to.
CREATE TABLE ancestor (id int, of_patient int);
CREATE TABLE note (tumour int);
INSERT INTO note VALUES (10), (20);
SELECT declare_reference('note', '{tumour}', 'ancestor', '{id}');
EXECUTE walk;
ALTER TABLE third.tumour INHERIT ancestor;
EXECUTE walk;
ALTER TABLE third.tumour NO INHERIT ancestor;
EXECUTE walk;
SELECT declare_reference('note', '{tumour}', 'third.tumour', '{id}');
EXECUTE walk;
DELETE FROM reference WHERE parent = 'third.tumour'::regclass;
EXECUTE walk;
SELECT declare_reference('note', '{tumour}', 'third.tumour', '{id}');
EXECUTE walk;
TRUNCATE reference;
EXECUTE walk;
-- The second time it is emptied in place.
BEGIN;
TRUNCATE reference;
SELECT declare_reference('note', '{tumour}', 'third.tumour', '{id}');
EXECUTE walk;
TRUNCATE reference;
EXECUTE walk;
ROLLBACK;

-- A guard, its policy, its end, its damage.
ALTER TABLE note ADD nhs text;
UPDATE note SET nhs = '999 000 0018' WHERE tumour = 20;
SELECT guard_table('note', 'nhs', '{cancer}', 'redact');
EXECUTE walk;
SELECT unguard_table('note'), guard_table('note', 'nhs', '{cancer,rare_disease}');
EXECUTE walk;
SELECT exclude('9990000018', '{rare_disease}');
EXECUTE walk;
SELECT readmit('9990000018', '{rare_disease}');
EXECUTE walk;
-- As a restore does it
CREATE TABLE saved AS SELECT * FROM guard WHERE target = 'note'::regclass;
EXECUTE walk;
DELETE FROM guard WHERE target = 'note'::regclass;
EXECUTE walk;
INSERT INTO guard SELECT * FROM saved;
EXECUTE walk;
UPDATE guard SET registers = '{cancer}' WHERE target = 'note'::regclass;
EXECUTE walk;
UPDATE guard SET registers = '{cancer,rare_disease}' WHERE target = 'note'::regclass;
EXECUTE walk;
BEGIN;
TRUNCATE guard;
INSERT INTO guard SELECT * FROM saved;
EXECUTE walk;
TRUNCATE guard;
EXECUTE walk;
ROLLBACK;
DROP TABLE saved;
SELECT unguard_table('note');
EXECUTE walk;
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE patient DROP CONSTRAINT ndrs_optout_guard_2;
RESET ndrs_optout.allow_unguarded;
EXECUTE walk;
SELECT unguard_table('patient'), guard_table('patient', 'nhs', '{cancer}');
EXECUTE walk;

-- What the transaction has changed itself, and takes back.
BEGIN;
DROP TABLE third.tumour;
EXECUTE walk;
SAVEPOINT s;
CREATE TABLE tumour (patient int REFERENCES patient);
EXECUTE walk;
ROLLBACK TO s;
EXECUTE walk;
ROLLBACK;
EXECUTE walk;

-- A type, an operator, a collation.
CREATE TYPE side AS ENUM ('left', 'right');
CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE SCHEMA citext;
CREATE EXTENSION citext SCHEMA citext;
-- A declared reference has no operator but its types' own.
BEGIN;
CREATE TABLE remark (tumour citext.citext);
ALTER TABLE third.tumour ADD remark citext.citext;
UPDATE third.tumour SET remark = 'one' WHERE id = 10;
INSERT INTO remark VALUES ('ONE');
SELECT declare_reference('remark', '{tumour}', 'third.tumour', '{remark}');
EXECUTE walk;
ALTER EXTENSION citext DROP OPERATOR CLASS citext.citext_ops USING btree;
ALTER EXTENSION citext DROP OPERATOR FAMILY citext.citext_ops USING btree;
DROP OPERATOR FAMILY citext.citext_ops USING btree CASCADE;
EXECUTE walk;
CREATE OPERATOR FAMILY citext.family USING btree;
ALTER OPERATOR FAMILY citext.family USING btree ADD
    OPERATOR 3 citext.= (citext.citext, citext.citext),
    FUNCTION 1 citext.citext_cmp(citext.citext, citext.citext);
EXECUTE walk;
CREATE OPERATOR CLASS citext.class DEFAULT FOR TYPE citext.citext USING btree FAMILY citext.family AS STORAGE citext.citext;
EXECUTE walk;
ALTER OPERATOR FAMILY citext.family USING btree DROP OPERATOR 3 (citext.citext, citext.citext);
EXECUTE walk;
ROLLBACK;
ALTER TABLE third.tumour ADD side side UNIQUE, ADD code text COLLATE loose UNIQUE, ADD label citext.citext UNIQUE;
UPDATE third.tumour SET side = 'left', code = 'C50', label = 'one' WHERE id = 10;
CREATE TABLE by_side (side side REFERENCES third.tumour (side));
CREATE TABLE by_code (code text COLLATE loose REFERENCES third.tumour (code));
CREATE TABLE by_label (label citext.citext REFERENCES third.tumour (label));
INSERT INTO by_side VALUES ('left');
INSERT INTO by_code VALUES ('c50');
INSERT INTO by_label VALUES ('ONE');
EXECUTE walk;
-- What was parsed knows them by their OIDs.
ALTER TYPE side RENAME TO flank;
DISCARD PLANS;
EXECUTE walk;
ALTER COLLATION loose RENAME TO lax;
DISCARD PLANS;
EXECUTE walk;
ALTER OPERATOR citext.=(citext.citext, citext.citext) SET SCHEMA third;
DISCARD PLANS;
EXECUTE walk;
ALTER OPERATOR third.=(citext.citext, citext.citext) SET SCHEMA citext;

-- Another owner, whose rights are needed.
CREATE ROLE regress_old_owner;
CREATE ROLE regress_new_owner;
GRANT CREATE ON SCHEMA public TO regress_old_owner, regress_new_owner;
ALTER TABLE by_side OWNER TO regress_old_owner;
EXECUTE walk;
ALTER TABLE by_side OWNER TO regress_new_owner;
EXECUTE walk;

-- Deletion: an order, a rule, a deferred constraint.
BEGIN;
SELECT sum(row_count) FROM erase('9990000018', '{cancer}');
ROLLBACK;
CREATE RULE keep AS ON DELETE TO by_code DO INSTEAD NOTHING;
SELECT sum(row_count) FROM erase('9990000018', '{cancer}');
DROP RULE keep ON by_code;
CREATE FUNCTION refuse_at_the_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'run at once'; END $$;
CREATE CONSTRAINT TRIGGER at_the_end AFTER DELETE ON by_code DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_at_the_end();
BEGIN;
SELECT sum(row_count) FROM erase('9990000018', '{cancer}');
ROLLBACK;
DROP TRIGGER at_the_end ON by_code;
SELECT sum(row_count) FROM erase('9990000018', '{cancer}');
TABLE by_side; TABLE by_code; TABLE by_label; SELECT id FROM third.tumour; TABLE patient;

-- Partitions are one node of the graph; a table with a reference of its own is another.
CREATE TABLE wide (id int PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE narrow (id int REFERENCES wide) PARTITION BY HASH (id);
SELECT format('CREATE TABLE %s_%s PARTITION OF %1$s FOR VALUES WITH (MODULUS 3, REMAINDER %2$s)', t, n)
    FROM unnest('{wide,narrow}'::text[]) AS t, generate_series(0, 2) AS n \gexec
CREATE TABLE below (id int PRIMARY KEY);
ALTER TABLE narrow_1 ADD FOREIGN KEY (id) REFERENCES below;
ALTER TABLE below ADD FOREIGN KEY (id) REFERENCES wide;
CREATE TABLE apart (id int);
SELECT array_agg(u.leaf ORDER BY u.leaf::text) AS leaves, u.depth
    FROM (SELECT '{narrow_2,apart,wide_0,narrow_1,below,wide_2,narrow_0,wide_1}'::regclass[]) AS l (leaves)
    CROSS JOIN LATERAL erasure_depths(l.leaves) AS d
    CROSS JOIN LATERAL unnest(l.leaves, d.components, d.depths) AS u (leaf, component, depth)
    GROUP BY u.component, u.depth ORDER BY min(u.leaf::text);
SELECT erasure_depths('{}');
DROP TABLE narrow, below, wide, apart;

-- Rows of one table whose partitions are referred to differently: keys of one are no keys of
-- another's, ids are unique in each only.  A child table's own column is a key as well.
CREATE TABLE many (id int, nhs bigint, place int) PARTITION BY LIST (id);
CREATE TABLE many_1 PARTITION OF many FOR VALUES IN (1);
CREATE TABLE many_2 PARTITION OF many FOR VALUES IN (2);
SELECT guard_table('many', 'nhs', '{cancer}');
ALTER TABLE many_1 ADD UNIQUE (place);
ALTER TABLE many_2 ADD UNIQUE (place);
INSERT INTO many VALUES (1, 9990000018, 7), (2, 9990000018, 8), (1, 9990000026, 8), (2, 9990000026, 7);
CREATE TABLE of_1 (place int REFERENCES many_1 (place));
CREATE TABLE of_2 (place int REFERENCES many_2 (place));
CREATE TABLE elder (id int PRIMARY KEY, nhs bigint);
CREATE TABLE younger (own int UNIQUE) INHERITS (elder);
SELECT guard_table('elder', 'nhs', '{cancer}');
CREATE TABLE of_own (own int REFERENCES younger (own));
INSERT INTO elder VALUES (1, 9990000018);
INSERT INTO younger VALUES (1, 9990000018, 5), (2, 9990000026, 6);
INSERT INTO of_1 VALUES (7), (8);
INSERT INTO of_2 VALUES (7), (8);
INSERT INTO of_own VALUES (5), (6);
EXECUTE walk;
BEGIN;
SELECT path, action, row_count FROM erase('9990000018', '{cancer}') ORDER BY path;
SELECT (SELECT array_agg(place) FROM of_1) AS of_1, (SELECT array_agg(place) FROM of_2) AS of_2, (SELECT array_agg(own) FROM of_own) AS of_own;
ROLLBACK;

-- What a search returns is of the table that was searched, or of what belongs to it.
PREPARE step (text, text) AS
    SELECT cardinality(b.row_ids) AS rows, b.kin
        FROM unnest(erasure_search_step(jsonb_populate_record(NULL::erasure_batch, jsonb_build_object('patients', '{9990000018}'::text,
            'search', jsonb_build_object('relation', $1, 'action', 'delete', 'source', $2, 'role', current_user))), false)) AS b;
EXECUTE step ('many', 'public.many t WHERE t.nhs = 9990000018');
EXECUTE step ('many_1', 'public.many t WHERE t.nhs = 9990000018');
\echo :SQLSTATE
EXECUTE step ('elder', 'public.many_1 t');
\echo :SQLSTATE
EXECUTE step ('elder', 'public.many_1 t WHERE false');
SELECT erasure_kin('many', '{many_1}') AS alone, cardinality(erasure_kin('many', '{many_1,many_2}')) AS kin, erasure_kin('many', '{}') AS none, erasure_kin(NULL, '{}') AS no_table;
SELECT erasure_kin('many', '{elder}');
\echo :SQLSTATE
SELECT unguard_table('many'), unguard_table('elder');
DEALLOCATE step;
DROP TABLE of_1, of_2, of_own, many, younger, elder;

-- Partitions make no more searches and commands.  (Questions to the catalogues are asked again when any table has changed.)
CREATE TABLE grown (part int, nhs bigint, id int, PRIMARY KEY (part, id)) PARTITION BY LIST (part);
CREATE TABLE grown_child (part int, id int, FOREIGN KEY (part, id) REFERENCES grown) PARTITION BY LIST (part);
SELECT guard_table('grown', 'nhs', '{cancer}');
CREATE FUNCTION grow(first int, last int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN first .. last LOOP
        EXECUTE format('CREATE TABLE grown_%1$s PARTITION OF grown FOR VALUES IN (%1$s)', i);
        EXECUTE format('CREATE TABLE grown_child_%1$s PARTITION OF grown_child FOR VALUES IN (%1$s)', i);
        INSERT INTO grown VALUES (i, 9990000018, 1), (i, 9990000026, 2);
        INSERT INTO grown_child VALUES (i, 1), (i, 2);
    END LOOP;
END $$;
CREATE VIEW asked AS SELECT string_agg(format('%s %s', funcname, calls), ', ' ORDER BY funcname) AS times
    FROM pg_stat_xact_user_functions
    WHERE funcname ~ '^(search_as_owner|change_as_owner|erasure_(search_step|keys))$' AND calls > 0;
SELECT grow(1, 2);
SET track_functions = 'all';
-- Calls of earlier transactions are not counted in.
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
SELECT sum(row_count) AS rows FROM erase('9990000018', '{cancer}') WHERE path LIKE '%grown%';
SELECT times AS with_two FROM asked \gset
ROLLBACK;
SELECT grow(3, 30);
SELECT pg_stat_force_next_flush() \g /dev/null
BEGIN;
SELECT sum(row_count) AS rows FROM erase('9990000018', '{cancer}') WHERE path LIKE '%grown%';
SELECT times = :'with_two' AS as_often, CASE WHEN times <> :'with_two' THEN times END AS times,
       CASE WHEN times <> :'with_two' THEN :'with_two' END AS with_two, times LIKE '%search_as_owner%' AS counted FROM asked;
ROLLBACK;
RESET track_functions;
SELECT unguard_table('grown');
DROP VIEW asked;
DROP TABLE grown, grown_child;
DROP FUNCTION grow;

-- Not for anybody's use, but nobody's harm.
SELECT erasure_root_searches(NULL, '{}'), erasure_child_searches(NULL, '{}'), erasure_undeferrals(NULL), erasure_deletions(NULL);
SELECT erasure_root_searches('{}', '{}'), erasure_child_searches(0, '{}'), erasure_undeferrals('{}'), erasure_deletions('{}');
-- Plans differ by each argument, and by the function.
SELECT cardinality(erasure_root_searches('{cancer}', '{cancer}')) AS cancer, cardinality(erasure_root_searches('{}', '{cancer}')) AS none,
       (erasure_root_searches('{cancer}', '{cancer}'))[1].action, (erasure_root_searches('{cancer}', '{}'))[1].action AS other_action,
       cardinality(erasure_deletions('{patient}')) AS deletions, cardinality(erasure_undeferrals('{patient}')) AS undeferrals,
       cardinality(erasure_child_searches('patient', '{cancer}')) AS below_patient, cardinality(erasure_child_searches('note', '{cancer}')) AS below_note;

-- A reference that was declared can be dropped: the erasure does not follow it any more.
SELECT declare_reference('note', '{tumour}', 'third.tumour', '{id}');
SELECT count(*) AS edges FROM erasure_edge WHERE declared AND child = 'note'::regclass;
SELECT drop_reference('note', '{tumour}', 'third.tumour', '{id}');
SELECT count(*) AS edges FROM erasure_edge WHERE declared AND child = 'note'::regclass;
SELECT drop_reference('note', '{tumour}', 'third.tumour', '{id}');
\echo :SQLSTATE
SELECT drop_reference(NULL, NULL, NULL, NULL);
SELECT event, detail FROM audit_event ORDER BY event_id DESC LIMIT 1;

DEALLOCATE walk;
SELECT unguard_table('patient');
DELETE FROM exclusion;
DROP TABLE by_side, by_code, by_label, detail, note, ancestor, every_tumour, third.tumour, patient;
DROP EXTENSION citext;
DROP SCHEMA third, citext;
DROP TYPE flank;
DROP COLLATION lax;
DROP FUNCTION refuse_at_the_end;
REVOKE CREATE ON SCHEMA public FROM regress_old_owner, regress_new_owner;
DROP ROLE regress_old_owner, regress_new_owner;
DELETE FROM expected_edge;
