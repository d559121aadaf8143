-- search_as_owner: tables are searched with the rights of their owners.

-- Runs a query for one array of texts with the rights of a role; $1 are the patients,
-- $2 the keys.
-- latest: what is committed now, whatever the transaction's snapshot.
CREATE FUNCTION search_as_owner(role regrole, command text, numbers nhs_number[], keys text[],
                                latest boolean DEFAULT false)
    RETURNS text[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_search_as_owner'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION search_as_owner(regrole, text, nhs_number[], text[], boolean) IS
    'internal: runs a query for one array of texts with the rights of a role; an error keeps its SQLSTATE and tells '
    'nothing else of what the server or an owner''s function says';
