-- privileges: who can do what, unless grant_access() has given more.

-- Only the owner can use anything here, and only the owner can name anything.
REVOKE ALL ON SCHEMA ndrs_optout FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ndrs_optout FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA ndrs_optout FROM PUBLIC;

-- Some things run with the rights of the role that causes them, which cannot
-- name them.  What carry_out() asks for first, since it runs as its caller:
GRANT EXECUTE ON FUNCTION begin_procedure(text) TO PUBLIC;
-- The constraint of a guard:
GRANT EXECUTE ON FUNCTION
    guard_admits(oid, regclass, anyelement, text[], text, text),
    guard_admits(oid, regclass, anyelement, text[], text, text, encoded_nhs_number)
    TO PUBLIC;
-- The trigger of a guard, which the owner of a table makes anew with each partition;
-- it works on guarded tables only.
GRANT EXECUTE ON FUNCTION guard_row() TO PUBLIC;
-- What the domains of the extension's own tables check with, before a trigger says who
-- may change these; it knows words only.
GRANT EXECUTE ON FUNCTION words(text) TO PUBLIC;
-- What the erasure, the sweep and the sentry search with, with the rights of a
-- table's owner; without the token of such a search they do not answer.
GRANT EXECUTE ON FUNCTION
    guard_finds(anyelement, text[], bytea),
    guard_misencoded(anyelement, encoded_nhs_number, bytea)
    TO PUBLIC;
GRANT EXECUTE ON FUNCTION guard_number(anyelement), guard_unreadable(anyelement) TO PUBLIC;
-- and what an index on a column, or a column of type nhs_number, calls.  These
-- know no key and no list.  The planner asks for the right to call the input and output
-- functions where it folds a cast of a parameter.
GRANT EXECUTE ON FUNCTION
    nhs_number_in(cstring),
    nhs_number_out(nhs_number),
    nhs_number_recv(internal),
    nhs_number_send(nhs_number),
    nhs_number_or_null(text),
    nhs_number_format(nhs_number),
    nhs_number_is_placeholder(nhs_number),
    nhs_number(bigint),
    nhs_number_eq(nhs_number, nhs_number),
    nhs_number_ne(nhs_number, nhs_number),
    nhs_number_lt(nhs_number, nhs_number),
    nhs_number_le(nhs_number, nhs_number),
    nhs_number_ge(nhs_number, nhs_number),
    nhs_number_gt(nhs_number, nhs_number),
    nhs_number_cmp(nhs_number, nhs_number),
    nhs_number_hash(nhs_number),
    nhs_number_hash_extended(nhs_number, bigint)
    TO PUBLIC;

-- Not even a privilege on a table is enough to change it.
SELECT protect_tables();
