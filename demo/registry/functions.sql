-- Session-local helpers of populate.sql and next_batch.sql.  They use nothing of the extension: the
-- registry's data must not depend on the code that they are there to test.

-- A draw of 0 .. sides - 1 that is the same on every run.  Every use has a salt of its own, so that
-- two draws with one key are independent.
create or replace function pg_temp.draw(key bigint, salt integer, sides integer) returns integer
    language sql immutable
    return (hashint8extended(key, salt) & 2147483647)::integer % sides;

-- The modulus 11 check digit of nine digits; 10 means that no such number is issued.
create or replace function pg_temp.check_digit(nine bigint) returns bigint
    language sql immutable
    return (11 - (10 * (nine / 100000000)
                + 9 * (nine / 10000000 % 10)
                + 8 * (nine / 1000000 % 10)
                + 7 * (nine / 100000 % 10)
                + 6 * (nine / 10000 % 10)
                + 5 * (nine / 1000 % 10)
                + 4 * (nine / 100 % 10)
                + 3 * (nine / 10 % 10)
                + 2 * (nine % 10)) % 11) % 11;
