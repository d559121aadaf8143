-- What guards reject is counted, though the transaction that it ends can write nothing.
SET search_path = public, ndrs_optout;
DELETE FROM guard_tally;
SELECT exclude('9990000018', '{cancer}');
CREATE TABLE strict (nhs_number text);
CREATE TABLE checked (nhs_number text);
SELECT guard_table('strict', 'nhs_number', '{cancer}'), guard_table('checked', 'nhs_number', '{cancer}', mechanism => 'constraint');
CREATE VIEW refused AS
    SELECT target, finding, rows_rejected, rows_skipped FROM guard_count WHERE target IN ('strict'::regclass, 'checked'::regclass) ORDER BY target::text, finding;

-- The next transaction that writes takes the count along: not one that reads, one that
-- may not write, one that fails, nor VACUUM, whose transaction others do not see.
INSERT INTO strict VALUES ('9990000018');
INSERT INTO strict VALUES ('9990000026'), ('not a number');
INSERT INTO checked VALUES ('9990000018');
UPDATE strict SET nhs_number = '9990000018';
SELECT * FROM refused;
BEGIN READ ONLY; SELECT * FROM refused; COMMIT;
BEGIN; INSERT INTO strict VALUES ('9990000026'); ROLLBACK;
SELECT * FROM refused;
CREATE TABLE emptied AS SELECT n FROM generate_series(1, 20000) AS n;
SELECT sum(rows_rejected) AS carried FROM refused;
INSERT INTO strict VALUES ('9990000018');
BEGIN;
DELETE FROM emptied;
SAVEPOINT a;
INSERT INTO strict VALUES ('9990000018');
ROLLBACK TO a;
COMMIT;
SELECT * FROM refused;
INSERT INTO strict VALUES ('9990000018');
VACUUM emptied;
SELECT pg_relation_size('emptied') AS truncated, sum(rows_rejected) AS same FROM refused;
INSERT INTO strict VALUES ('9990000026');
SELECT * FROM refused;

-- A commit that fails at its last moment loses none.
INSERT INTO strict VALUES ('9990000018');
BEGIN;
SELECT exclude('9990000034', '{cancer}');
ALTER FUNCTION audit_link_events(bigint[]) RENAME TO audit_link_events_away;
\set VERBOSITY sqlstate
COMMIT;
\set VERBOSITY default
SELECT * FROM refused;
INSERT INTO strict VALUES ('9990000026');
SELECT * FROM refused;

-- A subtransaction for each row leaves one count.
DELETE FROM guard_tally;
DO $$
BEGIN
    INSERT INTO strict VALUES ('9990000026');
    FOR i IN 1 .. 1000 LOOP
        BEGIN
            INSERT INTO strict VALUES ('9990000018');
        EXCEPTION WHEN SQLSTATE '23N01' THEN
            NULL;
        END;
    END LOOP;
END
$$;
SELECT finding, action, rows FROM guard_tally;

-- A role that may do no more than insert
DELETE FROM guard_tally;
CREATE ROLE tally_loader;
GRANT INSERT ON strict TO tally_loader;
SET ROLE tally_loader;
INSERT INTO strict VALUES ('9990000018');
INSERT INTO strict VALUES ('9990000026');
SELECT * FROM ndrs_optout.guard_tally;
RESET ROLE;
SELECT * FROM refused;

-- A table that was never committed is in no count.
BEGIN;
INSERT INTO strict VALUES ('9990000026');
SAVEPOINT a;
CREATE TABLE undone (nhs_number text);
SELECT guard_table('undone', 'nhs_number', '{cancer}');
INSERT INTO undone VALUES ('9990000018');
ROLLBACK TO a;
COMMIT;
SELECT count(*) FROM guard_tally;

-- A table that does not fit stops no commit but that of a transaction with counts of its own.
INSERT INTO strict VALUES ('9990000018');
ALTER TABLE guard_tally RENAME rows TO counted;
INSERT INTO strict VALUES ('9990000026');
SELECT sum(counted) FROM guard_tally;
ALTER TABLE guard_tally RENAME counted TO rows;
INSERT INTO strict VALUES ('9990000026');
SELECT * FROM refused;

-- Memory is bounded: what is of too many tables, at once, is not counted.
DELETE FROM guard_tally;
DO $$
DECLARE
    refused int := 0;
BEGIN
    FOR i IN 1 .. 300 LOOP
        BEGIN
            PERFORM guard_admits(0, (4000000000 + i)::oid::regclass, '9990000018'::text, '{cancer}', 'allow', 'allow');
        EXCEPTION WHEN SQLSTATE '23N01' THEN
            refused := refused + 1;
        END;
    END LOOP;
    RAISE NOTICE '% refused', refused;
END
$$;
INSERT INTO strict VALUES ('9990000018');
INSERT INTO strict VALUES ('9990000026');
SELECT * FROM refused;
INSERT INTO strict VALUES ('9990000018');
INSERT INTO strict VALUES ('9990000026');
SELECT * FROM refused;

-- By register and month, beside what was skipped.
UPDATE guard_tally SET day = date_trunc('month', current_date) - interval '1 day', rows = 12;
UPDATE policy SET smallest_count = 1;
SELECT register, rows_turned_away, rows_rejected, rows_redacted FROM completeness_effect() WHERE rows_rejected > 0;
UPDATE policy SET smallest_count = DEFAULT;

DROP VIEW refused;
SELECT unguard_table('strict'), unguard_table('checked');
DROP TABLE strict, checked, emptied;
DROP ROLE tally_loader;
DELETE FROM exclusion; DELETE FROM guard_tally;
