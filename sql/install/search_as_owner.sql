-- search_as_owner: tables are searched with the rights of their owners.

-- Runs a query for one array of texts with the rights of a role; $1 are the patients,
-- $2 the keys.
-- latest: what is committed now, whatever the transaction's snapshot.
CREATE FUNCTION erasure_look(role regrole, command text, numbers nhs_number[], keys text[], latest boolean DEFAULT false)
    RETURNS text[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_look'
    LANGUAGE C VOLATILE;

COMMENT ON FUNCTION erasure_look(regrole, text, nhs_number[], text[], boolean) IS 'runs a query for one array of texts with the rights of a role; an error keeps its SQLSTATE and tells nothing else of what the server or somebody''s function says';
