-- Views of what may be shared, for roles that must not read the table.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_registrar;
CREATE ROLE regress_reader;
CREATE ROLE regress_sharer;
CREATE SCHEMA holdings AUTHORIZATION regress_registrar;
CREATE SCHEMA research;
GRANT USAGE ON SCHEMA research TO regress_reader, regress_sharer;
SET ROLE regress_registrar;
CREATE TABLE holdings.patient (patient_id int, nhs_number text, "Postcode" text) PARTITION BY RANGE (patient_id);
CREATE TABLE holdings.patient_1 PARTITION OF holdings.patient FOR VALUES FROM (0) TO (100);
INSERT INTO holdings.patient VALUES (1, '999 000 0018', 'AB1'), (2, '9990000026', 'AB2'), (3, '9990000034', 'AB3'), (4, NULL, 'AB4'), (5, 'unknown', 'AB5');
CREATE TABLE holdings.odd (a varchar, b char(12), c int, d bigint, e numeric, f date);
INSERT INTO holdings.odd VALUES ('9990000018', '9990000018', NULL, 9990000018, 9990000018), ('9990000026', '9990000026', NULL, 9990000026, 9990000026);
RESET ROLE;
SELECT ndrs_optout.exclude('9990000026', '{cancer}') \g /dev/null
SELECT ndrs_optout.start_national_check('{9990000018,9990000026,9990000034}'::ndrs_optout.nhs_number[]) AS check_id \gset
SELECT ndrs_optout.load_national_check(:check_id, ARRAY['9990000018,', '9990000026,']) \g /dev/null

-- What is refused
SELECT ndrs_optout.share_view('patient', 'holdings.patient', 'nhs_number', 'research');
\echo :SQLSTATE
SELECT ndrs_optout.share_view('ndrs_optout.patient', 'holdings.patient', 'nhs_number', 'research');
SELECT ndrs_optout.share_view(NULL, 'holdings.patient', 'nhs_number', 'research');
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'number', 'research');
\echo :SQLSTATE
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', NULL, 'research');
\echo :SQLSTATE
SELECT ndrs_optout.share_view('research.patient', 'holdings.odd', 'f', 'research');
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'nhs_number', 'whim');
\echo :SQLSTATE
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'nhs_number', NULL);
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'nhs_number', 'research', '{heart}');
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'nhs_number', 'research', recipient => 'nobody');
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'nhs_number', 'research', columns => '{patient_id,postcode}');
\echo :SQLSTATE
SELECT ndrs_optout.share_view('research.patient', 'pg_catalog.pg_roles', 'rolname', 'research');

-- One with all columns, one without the number.
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'nhs_number', 'research');
SELECT ndrs_optout.share_view('research."Rare"', 'holdings.patient', 'nhs_number', 'research', '{rare_disease}', columns => '{patient_id,Postcode}');
SELECT ndrs_optout.share_view('research.patient', 'holdings.patient', 'nhs_number', 'research');
\echo :SQLSTATE
SELECT view, relation FROM ndrs_optout.share_view_table ORDER BY 1;
SELECT relname, relowner::regrole AS owner, reloptions, obj_description(oid) FROM pg_class WHERE relnamespace = 'research'::regnamespace ORDER BY 1;
SELECT detail FROM ndrs_optout.audit_event WHERE event = 'share_view_made' ORDER BY event_id;
GRANT SELECT ON ALL TABLES IN SCHEMA research TO regress_reader, regress_sharer;

-- Without a duty a role is refused; with duty reader it sees the view, and can name nothing else.
SET ROLE regress_reader;
SELECT * FROM research.patient;
\echo :SQLSTATE
RESET ROLE;
SELECT ndrs_optout.grant_access('regress_reader', 'reader'), ndrs_optout.grant_access('regress_sharer', 'analyst') \g /dev/null
SET ROLE regress_reader;
SELECT * FROM research.patient ORDER BY 1;
SELECT * FROM research."Rare" ORDER BY 1;
SELECT * FROM holdings.patient;
\echo :SQLSTATE
SELECT ndrs_optout.share_eligible(NULL, 'research');
\echo :SQLSTATE
INSERT INTO research.patient VALUES (6, '9990000042', 'AB6');
\echo :SQLSTATE
-- A function of the reader's that tells what it sees sees nothing that may not be shared.
RESET ROLE;
GRANT CREATE ON SCHEMA research TO regress_reader;
SET ROLE regress_reader;
CREATE FUNCTION research.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE WARNING 'saw %', $1; RETURN true; END $$;
SELECT count(*) FROM research."Rare" WHERE research.tell("Postcode");
RESET ROLE;
SELECT * FROM ndrs_optout.access_differences() WHERE role::text LIKE 'regress%';

-- Row security does not count for the table's owner, nor in its views.
ALTER TABLE holdings.odd ENABLE ROW LEVEL SECURITY;
SELECT ndrs_optout.share_view('research.odd', 'holdings.odd', 'd', 'research');
ALTER TABLE holdings.odd DISABLE ROW LEVEL SECURITY;
SELECT ndrs_optout.drop_share_view('research.odd');

-- Who can read the table all the same.
CREATE VIEW gap AS SELECT severity, relation, object, what_to_do FROM ndrs_optout.guard_coverage() WHERE gap = 'table_read_beside_share_view';
SELECT * FROM gap;
GRANT SELECT ON holdings.patient TO regress_sharer;
SELECT * FROM gap;
GRANT USAGE ON SCHEMA holdings TO regress_sharer, regress_reader;
GRANT SELECT ("Postcode") ON holdings.patient_1 TO regress_reader;
SELECT * FROM gap ORDER BY 2, 3;
SELECT ndrs_optout.accept_gap('table_read_beside_share_view', 'holdings.patient', 'regress_sharer', 'cleans the data') \g /dev/null
SELECT * FROM gap;
ALTER VIEW research.patient RENAME TO patients;
ALTER VIEW research."Rare" RESET (security_barrier);
SELECT * FROM gap;
SELECT ndrs_optout.drop_share_view('research."Rare"');
\echo :SQLSTATE
SELECT ndrs_optout.drop_share_view('research.patients');
SELECT * FROM gap;
SELECT ndrs_optout.reopen_gap('table_read_beside_share_view', 'holdings.patient', 'regress_sharer') \g /dev/null

-- Each type that a guard reads.
SELECT ndrs_optout.share_view('research.' || c, 'holdings.odd', c, 'research') FROM unnest('{a,b,c,d,e}'::name[]) AS c;
SELECT (SELECT count(*) FROM research.a) AS a, (SELECT count(*) FROM research.b) AS b, (SELECT count(*) FROM research.c) AS c,
       (SELECT count(*) FROM research.d) AS d, (SELECT count(*) FROM research.e) AS e;

DROP VIEW gap;
DROP SCHEMA research, holdings CASCADE;
SELECT ndrs_optout.revoke_access('regress_reader', 'reader'), ndrs_optout.revoke_access('regress_sharer', 'analyst') \g /dev/null
SELECT ndrs_optout.cancel_national_check(:check_id) \g /dev/null
SELECT ndrs_optout.readmit('9990000026', '{cancer}') \g /dev/null
DROP ROLE regress_registrar, regress_reader, regress_sharer;
