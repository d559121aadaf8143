-- encoded_set: compact immutable sets of encoded NHS numbers.

CREATE TYPE encoded_set;

CREATE FUNCTION encoded_set_in(cstring) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_in'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_in(cstring) IS
    'internal: text input of encoded_set: {hex,hex,...} in any order; errors 22P02, 54000';
CREATE FUNCTION encoded_set_out(encoded_set) RETURNS cstring
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_out'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_out(encoded_set) IS
    'internal: text output of encoded_set: {hex,hex,...}, ascending; error 54000 above 32 million members';
CREATE FUNCTION encoded_set_recv(internal) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_recv'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_recv(internal) IS
    'internal: binary input of encoded_set: version, flags (one byte each), number of members (four bytes), members '
    'ascending; error 22P03';
CREATE FUNCTION encoded_set_send(encoded_set) RETURNS bytea
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_send'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_send(encoded_set) IS
    'internal: binary output of encoded_set: version, flags (one byte each), number of members (four bytes), members '
    'ascending';

-- What HMAC made cannot be compressed, and parts of it are fetched at times.
CREATE TYPE encoded_set (
    INPUT = encoded_set_in,
    OUTPUT = encoded_set_out,
    RECEIVE = encoded_set_recv,
    SEND = encoded_set_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = double,
    STORAGE = external
);
COMMENT ON TYPE encoded_set IS
    'compact immutable set of up to 60 million encoded NHS numbers; written as {hex,hex,...}; errors 22P02 and 22P03 '
    'for what is none, 54000 for more';

CREATE FUNCTION encoded_set(members encoded_nhs_number[]) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_from_array'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION encoded_set(encoded_nhs_number[]) IS
    'the set of an array''s elements; error 22004 when one is NULL';

-- What the planner knows of constant sets.
CREATE FUNCTION encoded_set_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_support'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_support(internal) IS
    'internal: planner support: an empty set has no members, unnest() as many rows as its set has members';

CREATE FUNCTION encoded_set_contains(encoded_set, encoded_nhs_number) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_contains'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE SUPPORT encoded_set_support;
COMMENT ON FUNCTION encoded_set_contains(encoded_set, encoded_nhs_number) IS 'internal: implementation of @> operator';
CREATE FUNCTION encoded_set_contained(encoded_nhs_number, encoded_set) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_contained'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE SUPPORT encoded_set_support;
COMMENT ON FUNCTION encoded_set_contained(encoded_nhs_number, encoded_set) IS 'internal: implementation of <@ operator';
CREATE FUNCTION encoded_set_union(encoded_set, encoded_set) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_union'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION encoded_set_union(encoded_set, encoded_set) IS 'internal: implementation of | operator';
CREATE FUNCTION encoded_set_intersection(encoded_set, encoded_set) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_intersection'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION encoded_set_intersection(encoded_set, encoded_set) IS 'internal: implementation of & operator';
CREATE FUNCTION encoded_set_difference(encoded_set, encoded_set) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_difference'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION encoded_set_difference(encoded_set, encoded_set) IS 'internal: implementation of - operator';
CREATE FUNCTION encoded_set_eq(encoded_set, encoded_set) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_eq'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION encoded_set_eq(encoded_set, encoded_set) IS 'internal: implementation of = operator';
CREATE FUNCTION encoded_set_ne(encoded_set, encoded_set) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_ne'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION encoded_set_ne(encoded_set, encoded_set) IS 'internal: implementation of <> operator';

-- The estimators try the set on the column's statistics, where it is a constant.
CREATE OPERATOR @> (
    LEFTARG = encoded_set, RIGHTARG = encoded_nhs_number, FUNCTION = encoded_set_contains,
    COMMUTATOR = <@, RESTRICT = matchingsel, JOIN = matchingjoinsel);
COMMENT ON OPERATOR @> (encoded_set, encoded_nhs_number) IS 'contains';
CREATE OPERATOR <@ (
    LEFTARG = encoded_nhs_number, RIGHTARG = encoded_set, FUNCTION = encoded_set_contained,
    COMMUTATOR = @>, RESTRICT = matchingsel, JOIN = matchingjoinsel);
COMMENT ON OPERATOR <@ (encoded_nhs_number, encoded_set) IS 'is contained by';
CREATE OPERATOR | (
    LEFTARG = encoded_set, RIGHTARG = encoded_set, FUNCTION = encoded_set_union, COMMUTATOR = |);
COMMENT ON OPERATOR | (encoded_set, encoded_set) IS 'union';
CREATE OPERATOR & (
    LEFTARG = encoded_set, RIGHTARG = encoded_set, FUNCTION = encoded_set_intersection, COMMUTATOR = &);
COMMENT ON OPERATOR & (encoded_set, encoded_set) IS 'intersection';
CREATE OPERATOR - (
    LEFTARG = encoded_set, RIGHTARG = encoded_set, FUNCTION = encoded_set_difference);
COMMENT ON OPERATOR - (encoded_set, encoded_set) IS 'difference';
CREATE OPERATOR = (
    LEFTARG = encoded_set, RIGHTARG = encoded_set, FUNCTION = encoded_set_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR = (encoded_set, encoded_set) IS 'equal';
CREATE OPERATOR <> (
    LEFTARG = encoded_set, RIGHTARG = encoded_set, FUNCTION = encoded_set_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR <> (encoded_set, encoded_set) IS 'not equal';

CREATE FUNCTION cardinality(encoded_set) RETURNS bigint
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_cardinality'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION cardinality(encoded_set) IS 'number of members';
CREATE FUNCTION unnest(encoded_set) RETURNS SETOF encoded_nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_unnest'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 1000 SUPPORT encoded_set_support;
COMMENT ON FUNCTION unnest(encoded_set) IS 'the members, ascending';

CREATE FUNCTION encoded_set_agg_add(internal, encoded_nhs_number) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_agg_add'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_agg_add(internal, encoded_nhs_number) IS
    'internal: transition function of encoded_set_agg';
CREATE FUNCTION encoded_set_agg_combine(internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_agg_combine'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_agg_combine(internal, internal) IS 'internal: combine function of encoded_set_agg';
CREATE FUNCTION encoded_set_agg_serialize(internal) RETURNS bytea
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_agg_serialize'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_agg_serialize(internal) IS 'internal: serialization function of encoded_set_agg';
CREATE FUNCTION encoded_set_agg_deserialize(bytea, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_agg_deserialize'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_agg_deserialize(bytea, internal) IS
    'internal: deserialization function of encoded_set_agg';
CREATE FUNCTION encoded_set_agg_result(internal) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_agg_result'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_agg_result(internal) IS 'internal: final function of encoded_set_agg';

CREATE AGGREGATE encoded_set_agg(encoded_nhs_number) (
    SFUNC = encoded_set_agg_add,
    STYPE = internal,
    COMBINEFUNC = encoded_set_agg_combine,
    SERIALFUNC = encoded_set_agg_serialize,
    DESERIALFUNC = encoded_set_agg_deserialize,
    FINALFUNC = encoded_set_agg_result,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE encoded_set_agg(encoded_nhs_number) IS
    'the set of all values but NULLs; of no rows, the empty set; error 54000 for more than 60 million members';
