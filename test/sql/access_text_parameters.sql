-- Clients that send every string as text or varchar, as JDBC does: each function of a duty
-- that takes a type of the extension, or a name of an object, is found, and may be called.
\set SHOW_CONTEXT never
SET search_path = pg_catalog;
SET client_min_messages = warning;
CREATE ROLE regress_officer;
CREATE ROLE regress_analyst;
CREATE ROLE regress_steward;
SELECT ndrs_optout.grant_access(('regress_' || d)::regrole, d) FROM unnest('{officer,analyst,steward}'::text[]) AS d;
CREATE FUNCTION public.sample(type oid) RETURNS text LANGUAGE sql AS $$
    SELECT CASE type
        WHEN 'ndrs_optout.nhs_number'::regtype THEN '999 000 0018'
        WHEN 'ndrs_optout.nhs_number[]'::regtype THEN '{9990000018}'
        WHEN 'ndrs_optout.encoded_nhs_number'::regtype THEN repeat('0', 32)
        WHEN 'regclass'::regtype THEN 'ndrs_optout.policy'
        END
$$;

-- Prepares a call whose arguments of these types are of a string type, and explains it:
-- so the function is looked up, its arguments are cast and folded, and every right is
-- asked for, but nothing runs.
CREATE FUNCTION public.explained(function regprocedure, string_type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    parameters text;
    arguments text;
    sampled text;
BEGIN
    SELECT string_agg(CASE WHEN public.sample(a.type) IS NULL THEN format_type(a.type, NULL)
                           WHEN a.type = 'ndrs_optout.nhs_number[]'::regtype THEN string_type || '[]'
                           ELSE string_type END, ', ' ORDER BY a.position),
           string_agg('$' || a.position, ', ' ORDER BY a.position),
           string_agg(coalesce(quote_literal(public.sample(a.type)), 'NULL'), ', ' ORDER BY a.position)
        INTO parameters, arguments, sampled
        FROM pg_proc p CROSS JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS a (type, position)
        WHERE p.oid = function;
    EXECUTE format('PREPARE call (%s) AS SELECT FROM ndrs_optout.%I(%s)', parameters,
                   (SELECT proname FROM pg_proc WHERE oid = function), arguments);
    EXECUTE format('EXPLAIN EXECUTE call (%s)', sampled);
    DEALLOCATE call;
    RETURN 'found';
EXCEPTION WHEN OTHERS THEN
    IF EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'call') THEN
        DEALLOCATE call;
    END IF;
    RETURN SQLERRM;
END
$$;
CREATE TABLE public.called AS
    SELECT d.duty, p.oid::regprocedure AS function, s.string_type
        FROM ndrs_optout.duty_privilege d
        JOIN pg_proc p ON p.pronamespace = 'ndrs_optout'::regnamespace AND p.proname = d.name AND p.prokind = 'f'
        CROSS JOIN (VALUES ('text'), ('varchar'), ('char(12)')) AS s (string_type)
        WHERE d.object_kind = 'routine' AND d.duty IN ('officer', 'analyst', 'steward') AND d.name !~ '_(in|out|eq|ne|lt|le|ge|gt|cmp|hash|hash_extended)$'
            AND EXISTS (SELECT FROM unnest(p.proargtypes) AS a WHERE public.sample(a) IS NOT NULL)
            -- There is no implicit cast from char to regclass.
            AND NOT (s.string_type LIKE 'char%' AND 'regclass'::regtype = ANY (p.proargtypes));
GRANT SELECT ON public.called TO regress_officer, regress_analyst, regress_steward;
SELECT duty, count(DISTINCT function) > 0 AS functions FROM public.called GROUP BY duty ORDER BY duty;
SET ROLE regress_officer;
SELECT c.function, c.string_type, r.found FROM public.called c CROSS JOIN LATERAL public.explained(c.function, c.string_type) AS r (found)
    WHERE c.duty = 'officer' AND r.found <> 'found' ORDER BY 1, 2;
SET ROLE regress_analyst;
SELECT c.function, c.string_type, r.found FROM public.called c CROSS JOIN LATERAL public.explained(c.function, c.string_type) AS r (found)
    WHERE c.duty = 'analyst' AND r.found <> 'found' ORDER BY 1, 2;
SET ROLE regress_steward;
SELECT c.function, c.string_type, r.found FROM public.called c CROSS JOIN LATERAL public.explained(c.function, c.string_type) AS r (found)
    WHERE c.duty = 'steward' AND r.found <> 'found' ORDER BY 1, 2;

-- The calls themselves, and mistakes in them, which tell no number.
SET ROLE regress_officer;
PREPARE opened (varchar, varchar[], varchar, varchar) AS SELECT ndrs_optout.open_case($1, $2, $3, $4) > 0 AS opened;
EXECUTE opened ('999 000 0018', '{cancer}', 'self', 'post');
EXECUTE opened ('999 000 0019', '{cancer}', 'self', 'post');
EXECUTE opened ('9999999999', '{cancer}', 'self', 'post');
PREPARE cast_to (varchar) AS SELECT ndrs_optout.open_case($1::ndrs_optout.nhs_number, '{rare_disease}') > 0 AS opened;
EXECUTE cast_to ('999 000 0018');
EXECUTE cast_to ('999 000 0019');
DO $$ BEGIN EXECUTE 'CALL ndrs_optout.carry_out($1, $2)' USING 1, '999 000 0018'::varchar; EXCEPTION WHEN active_sql_transaction THEN RAISE 'found'; END $$;
RESET ROLE;
-- A role without a duty learns nothing of it, and may still read a column of the type.
CREATE ROLE regress_other;
CREATE TABLE public.numbers (nhs ndrs_optout.nhs_number);
INSERT INTO public.numbers VALUES ('9990000018');
GRANT SELECT ON public.numbers TO regress_other;
SET ROLE regress_other;
SELECT nhs::text FROM public.numbers WHERE nhs::text = '9990000018';
PREPARE by_text (varchar) AS SELECT nhs::text FROM public.numbers WHERE nhs::text = $1::ndrs_optout.nhs_number::text;
EXECUTE by_text ('999 000 0018');
RESET ROLE;
-- With an operator of the type's, a string is read as a number, and not the number as a string.
SELECT '999 000 0018'::text OPERATOR(ndrs_optout.=) nhs AS same FROM public.numbers;

SELECT ndrs_optout.revoke_access(('regress_' || d)::regrole, d) FROM unnest('{officer,analyst,steward}'::text[]) AS d;
DROP TABLE public.called, public.numbers;
DROP FUNCTION public.explained, public.sample;
DROP ROLE regress_officer, regress_analyst, regress_steward, regress_other;
DELETE FROM ndrs_optout.optout_case;
