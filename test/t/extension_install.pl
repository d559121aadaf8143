# An installation into a database whose owner is hostile.
#
# The hazards: the owner of a database, who is no superuser, owns schema public,
# where pgcrypto lies, and plants operators, functions, casts and types there.  The
# server leaves that schema in the path of the installation script.  What the script
# builds in by a better match runs later with the rights of the extension's owner.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";

use OptoutServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('extension_install');
my ($number, $other) = @TEST_NUMBERS;

sub ask
{
	my ($sql, @role) = @_;
	return $server->safe_psql('planted', $sql, extra_params => \@role);
}

# The names of functions that the script calls, to be planted
sub called_names
{
	my $share = $server->config_data('--sharedir');
	my ($script) = glob "$share/extension/ndrs_optout--[0-9]*.sql";
	my %names = map { $_ => 1 } slurp_file($script) =~ /\b([a-z_]+)\(/g;
	return join ',', sort keys %names;
}

# What the extension's objects, and what belongs to these (columns' defaults, rules,
# constraints, triggers), are built on, outside of pg_catalog and of the extension
my $strangers = q{
	WITH RECURSIVE ours (classid, objid) AS (
		SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
			WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'ndrs_optout'
		UNION
		SELECT d.classid, d.objid FROM ours o JOIN pg_depend d ON d.refclassid = o.classid AND d.refobjid = o.objid
			WHERE d.deptype IN ('a', 'i'))
	SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on '
			|| pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
		FROM ours JOIN pg_depend d USING (classid, objid)
		CROSS JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, 0) AS i
		WHERE (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM ours)
			AND i.schema IS DISTINCT FROM 'pg_catalog'
			AND i.identity <> ALL (ARRAY['ndrs_optout', 'plpgsql'])
		ORDER BY 1};

$server->safe_psql('postgres', 'CREATE ROLE mallory LOGIN; CREATE DATABASE planted OWNER mallory');
ask('CREATE EXTENSION pgcrypto', '-U', 'mallory');
my $planted = ask(q{
	SET check_function_bodies = off;
	SET search_path = pg_catalog;
	CREATE SEQUENCE public.ran;
	DO $plant$
	DECLARE
		types text[] := '{bool,"\"char\"",name,int2,int4,int8,numeric,float8,text,varchar,bpchar,oid,regclass,regproc,'
			'regtype,regrole,regnamespace,xid,xid8,pg_lsn,date,timestamp,timestamptz,interval,bytea,jsonb,'
			'text[],name[],oid[],int2vector,regclass[],regtype[],public.trap}';
		body text := $body$ BEGIN PERFORM nextval('public.ran'); RETURN NULL; END $body$;
		this record;
	BEGIN
		-- Types with the names of the server's and of ours, and one that everything becomes
		CREATE TYPE public.trap AS (x int);
		CREATE DOMAIN public.text AS pg_catalog.text;
		CREATE DOMAIN public.regclass AS pg_catalog.regclass;
		CREATE DOMAIN public.nhs_number AS bigint;
		CREATE TABLE public.guard (target int);
		CREATE TABLE public.pg_class (oid int, relname name);
		FOR this IN SELECT t FROM unnest(types) AS t WHERE t <> 'public.trap' LOOP
			EXECUTE format('CREATE FUNCTION public.to_trap(%s) RETURNS public.trap LANGUAGE plpgsql AS %L', this.t, body);
			EXECUTE format('CREATE CAST (%s AS public.trap) WITH FUNCTION public.to_trap(%1$s) AS IMPLICIT', this.t);
		END LOOP;

		-- Each function that the script calls, of one argument and of two
		FOR this IN
			SELECT DISTINCT quote_ident(p.proname) AS f, a
				FROM pg_proc p,
					(SELECT t FROM unnest(types) AS t
					 UNION ALL SELECT l || ', ' || r FROM unnest(types[1:12]) AS l, unnest(types[1:12]) AS r) AS s (a)
				WHERE p.proname = ANY (string_to_array('} . called_names() . q{', ','))
					AND p.pronamespace = 'pg_catalog'::regnamespace LOOP
			EXECUTE format('CREATE FUNCTION public.%s(%s) RETURNS boolean LANGUAGE plpgsql AS %L', this.f, this.a, body);
		END LOOP;

		-- Each operator for each pair of types
		FOR this IN SELECT l, r FROM unnest(types) AS l, unnest(types) AS r LOOP
			EXECUTE format('CREATE FUNCTION public.operate(%s, %s) RETURNS boolean LANGUAGE plpgsql AS %L', this.l, this.r, body);
		END LOOP;
		FOR this IN SELECT o, l, r FROM unnest('{=,<>,<,>,<=,>=,||,+,-,~~,@>,<@,->,->>}'::text[]) AS o,
				unnest(types) AS l, unnest(types) AS r LOOP
			EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.operate)',
				this.o, this.l, this.r);
		END LOOP;
	END
	$plant$;
	SELECT (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'public'::regnamespace), count(DISTINCT proname)
		FROM pg_proc WHERE pronamespace = 'public'::regnamespace
}, '-U', 'mallory');
my ($operators, $functions) = split /\|/, $planted;
cmp_ok($operators, '>', 10000, 'operators are planted');
cmp_ok($functions, '>', 60, 'functions are planted');
ask(q{SELECT oid = 0 FROM pg_catalog.pg_class LIMIT 1});
is(ask('SELECT is_called FROM public.ran'), 't', 'they run where nothing keeps them out');
ask('ALTER SEQUENCE public.ran RESTART', '-U', 'mallory');

ask('CREATE EXTENSION ndrs_optout; SELECT ndrs_optout.adopt_key()');
is(ask($strangers), '', 'nothing of the extension depends on anything outside of it and pg_catalog');
is(ask('SELECT current_setting(\'search_path\')'), '"$user", public', 'the path of the session is its own again');

# The views, the checks and a whole case, as a superuser with public in the path
my $relations = ask(q{
	SELECT pg_catalog.string_agg(pg_catalog.format('SELECT pg_catalog.count(*) FROM ndrs_optout.%I', relname), ';') FROM pg_catalog.pg_class
		WHERE relnamespace OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'ndrs_optout')
			AND relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r'::"char", 'v'])});
ask('ALTER SEQUENCE public.ran RESTART', '-U', 'mallory');
ask($relations);
ask(qq{
	SET client_min_messages = warning;
	CREATE TABLE public.patient (id bigint PRIMARY KEY, nhs pg_catalog.text);
	CREATE TABLE public.tumour (patient_id bigint REFERENCES public.patient);
	INSERT INTO public.patient VALUES (1, '$number'), (2, '$other');
	INSERT INTO public.tumour VALUES (1), (2);
	SELECT ndrs_optout.guard_table('public.patient', 'nhs', '{cancer}', 'skip');
	SELECT ndrs_optout.open_case('$number', '{cancer}');
	SELECT ndrs_optout.record_identity(1, 'identity', 'passport'), ndrs_optout.record_identity(1, 'address', 'utility_bill');
	SELECT * FROM ndrs_optout.erasure_preview('$number', '{cancer}');
	CALL ndrs_optout.carry_out(1, '$number');
	CALL ndrs_optout.sweep();
	SELECT ndrs_optout.complete_case(1);
	SELECT * FROM ndrs_optout.guard_coverage();
	SELECT * FROM ndrs_optout.health();
	SELECT * FROM ndrs_optout.purge();
	SELECT ndrs_optout.unguard_table('public.patient');
});
is(ask('SELECT count(*) FROM patient'), '1', 'a case was carried out');
is(ask('SELECT is_called FROM public.ran'), 'f', 'and nothing that was planted ran');

$server->stop;
done_testing();
