-- privileges: who can do what.

-- Nobody but the owner can use anything here, with one exception: the backstop
-- of a guard runs with the rights of whoever inserts.  Without USAGE on the
-- schema it cannot be called by name.
REVOKE ALL ON SCHEMA ndrs_optout FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ndrs_optout FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA ndrs_optout FROM PUBLIC;
GRANT EXECUTE ON FUNCTION guard_admits(oid, regclass, anyelement, text[], text, text) TO PUBLIC;
