-- reference: prints doc/reference.md, which lists everything that may be called or read.
--
-- In a database where the extension has just been created, as its owner:
--     psql -XqAt -f doc/reference.sql >doc/reference.md
-- test/run compares the two.  What is internal says so at the beginning of its COMMENT
-- and is not listed.

SET search_path = ndrs_optout, pg_catalog;
SET DateStyle = 'ISO';
LOAD 'ndrs_optout';

-- A COMMENT as sentences.  A name at its beginning stays as it is written.
CREATE FUNCTION pg_temp.sentence(comment text) RETURNS text
LANGUAGE sql
AS $$
    SELECT CASE WHEN comment ~ '^[a-z][a-z-]*([ ,:]|$)' THEN upper(left(comment, 1)) ELSE left(comment, 1) END
           || replace(substr(comment, 2), '<', '&lt;') || CASE WHEN comment ~ '[.]$' THEN '' ELSE '.' END
$$;

CREATE TEMPORARY VIEW listed AS
    SELECT 'routine' AS kind, p.oid, p.proname AS name, obj_description(p.oid, 'pg_proc') AS comment,
           CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE '' END || p.proname || '('
               || CASE p.prokind WHEN 'a' THEN pg_get_function_identity_arguments(p.oid)
                                 ELSE pg_get_function_arguments(p.oid) END
               || ')' || coalesce(' → ' || pg_get_function_result(p.oid), '') AS signature,
           has_function_privilege('public', p.oid, 'EXECUTE') AS for_all
        FROM pg_proc p
        WHERE p.pronamespace = 'ndrs_optout'::regnamespace
    UNION ALL
    SELECT 'table', c.oid, c.relname, obj_description(c.oid, 'pg_class'),
           CASE c.relkind WHEN 'v' THEN 'view ' ELSE 'table ' END || c.relname || ' ('
               || (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
                       FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) || ')',
           false
        FROM pg_class c
        WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind IN ('r', 'v');

CREATE TEMPORARY VIEW public AS
    SELECT l.*, coalesce(d.duties, CASE WHEN l.for_all THEN '{every role with USAGE on the schema}' ELSE '{the owner of the extension}' END::text[]) AS duties
        FROM listed l
        CROSS JOIN LATERAL (
            SELECT array_agg(DISTINCT d.duty::text) AS duties FROM duty_privilege d
                WHERE d.object_kind = l.kind AND d.name = l.name AND d.needed_by IS NULL) AS d
        WHERE l.comment NOT LIKE 'internal: %';

\qecho '# Reference'
\qecho
\qecho 'Every function, procedure, table, view, type and setting of the extension that is meant to be used, by duty. All'
\qecho 'of them are in schema `ndrs_optout`. What is not listed here is internal: it may change with any version, and its'
\qecho 'COMMENT begins with "internal:". The page is made from the catalogue, by `doc/reference.sql`, so `\\df+` in psql'
\qecho 'shows the same texts. [Errors](sqlstates.md) explains the SQLSTATEs.'
\qecho
\qecho '## By duty'
\qecho
\qecho '`grant_access()` gives a role a duty. What no duty has is for the owner of the extension.'
\qecho
\qecho '| duty | calls | reads |'
\qecho '|---|---|---|'
SELECT format('| %s | %s | %s |',
              d.duty,
              coalesce(string_agg(DISTINCT format('[%s](#%1$s)', p.name), ', ') FILTER (WHERE p.kind = 'routine'), ''),
              coalesce(string_agg(DISTINCT format('[%s](#%1$s)', p.name), ', ') FILTER (WHERE p.kind = 'table'), ''))
    FROM public p CROSS JOIN LATERAL unnest(p.duties) AS d (duty)
    GROUP BY d.duty
    ORDER BY d.duty LIKE '% %', d.duty COLLATE "C";
\qecho
\qecho '## Functions and procedures'
-- Forms of one name stand together.
SELECT format(E'\n### %s\n\nFor: %s.\n%s', p.name,
              string_agg(DISTINCT array_to_string(p.duties, ', '), ', '),
              string_agg(format(E'\n```sql\n%s\n```\n\n%s', p.signature, pg_temp.sentence(p.comment)), E'\n'
                         ORDER BY p.signature COLLATE "C"))
    FROM public p
    WHERE p.kind = 'routine'
    GROUP BY p.name
    ORDER BY p.name COLLATE "C";
\qecho
\qecho '## Tables and views'
SELECT format(E'\n### %s\n\nFor: %s.\n\n```sql\n%s\n```\n\n%s%s', p.name, array_to_string(p.duties, ', '), p.signature,
              pg_temp.sentence(p.comment),
              (SELECT string_agg(format(E'\n- `%s`: %s', a.attname, pg_temp.sentence(col_description(p.oid, a.attnum))), ''
                                 ORDER BY a.attnum)
                   FROM pg_attribute a WHERE a.attrelid = p.oid AND col_description(p.oid, a.attnum) IS NOT NULL))
    FROM public p
    WHERE p.kind = 'table'
    ORDER BY p.name COLLATE "C";
\qecho
\qecho '## Types'
\qecho
SELECT format('- `%s`: %s', t.typname, pg_temp.sentence(c.comment))
    FROM pg_type t CROSS JOIN LATERAL obj_description(t.oid, 'pg_type') AS c (comment)
    WHERE t.typnamespace = 'ndrs_optout'::regnamespace AND c.comment NOT LIKE 'internal: %'
    ORDER BY t.typname COLLATE "C";
\qecho
\qecho '## Operators'
\qecho
SELECT format('- `%s %s %s`: %s', format_type(o.oprleft, NULL), o.oprname, format_type(o.oprright, NULL),
              pg_temp.sentence(obj_description(o.oid, 'pg_operator')))
    FROM pg_operator o
    WHERE o.oprnamespace = 'ndrs_optout'::regnamespace
    ORDER BY format_type(o.oprleft, NULL) COLLATE "C", o.oprname COLLATE "C";
\qecho
\qecho '## Settings'
\qecho
SELECT format('- `%s` (%s, %s): %s', s.name, s.context,
              coalesce('by default ' || nullif(s.boot_val, ''), 'not set'), pg_temp.sentence(s.short_desc))
    FROM pg_settings s
    WHERE s.name LIKE 'ndrs_optout.%'
    ORDER BY s.name COLLATE "C";
