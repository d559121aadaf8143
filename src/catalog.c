/*
 * catalog.c
 *		The extension's own objects, and the news that they have changed.
 *
 * What a backend keeps of our tables is good for one generation.  A trigger on
 * each watched table sends a relcache invalidation for it; every backend that
 * receives the message counts up the generation of each cache that rests on this
 * table, and no other one: with 500,000 exclusions, a list that was read again because
 * a purpose has changed took 240 ms.  A cache compares one number for each row, however
 * many tables it rests on.
 *
 * The callback does nothing else, because it can come at any moment, also in the
 * middle of a rebuild: a rebuild reads the generation before it takes its snapshot, so
 * a message that comes during the rebuild leaves the result stale instead of being
 * lost.
 *
 * A transaction's own changes count up at its next command, and an abort (of a
 * savepoint too) sends the same messages again to the backend itself, so there
 * is no transaction callback here.
 *
 * What a backend keeps of the catalogues (erasure_cache.c) has a generation of its own,
 * which counts every message on any relation but those: what matters there, columns,
 * foreign keys, inheritance, indexes, triggers, rules, owners, is announced with the
 * relation that it belongs to.  Operators and their classes, collations, types and
 * schemas are not, so messages on these count as well.  Tables guard, reference,
 * expected_edge and accepted_gap, which the same answers rest on, have the trigger.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "privacy.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_invalidate_caches);

#define CACHE(cache)	(1 << NDRS_CACHE_##cache)

/*
 * The tables that something in this library keeps a copy of, and what rests on each.
 * A decision about sharing rests on all of them.
 */
static struct
{
	const char *name;
	int			caches;
	Oid			relid;
}			watched[] = {
	{"encoding_key", CACHE(KEY) | CACHE(EXCLUSION_LIST) | CACHE(SHARING), InvalidOid},
	{"exclusion", CACHE(EXCLUSION_LIST) | CACHE(SHARING), InvalidOid},
	{"exemption", CACHE(SHARING), InvalidOid},
	{"national_check", CACHE(NATIONAL_CHECK) | CACHE(SHARING), InvalidOid},
	{"purpose", CACHE(SHARING), InvalidOid},
	{"register", CACHE(EXCLUSION_LIST) | CACHE(SHARING), InvalidOid},
};

/* What else the erasure's commands name, or were made from */
static const int schema_caches[] = {
	AMOPSTRATEGY, CLAOID, COLLOID, NAMESPACEOID, OPEROID, TYPEOID
};

/* Nothing is good for generation 0. */
static uint64 generations[NDRS_NCACHES] = {1, 1, 1, 1};
static uint64 schema_generation = 1;

void		(*ndrs_relation_hook) (Oid relid) = NULL;

/*
 * InvalidOid stands for every relation, and for a table of ours whose name was never
 * looked up.
 */
static void
relcache_callback(Datum arg, Oid relid)
{
	int			stale = 0;

	for (int i = 0; i < lengthof(watched); i++)
	{
		if (relid == watched[i].relid || relid == InvalidOid)
			stale |= watched[i].caches;
	}
	for (int cache = 0; cache < NDRS_NCACHES; cache++)
		generations[cache] += stale >> cache & 1;
	if (stale == 0 || relid == InvalidOid)
		schema_generation++;
	if (ndrs_relation_hook)
		ndrs_relation_hook(relid);
}

static void
syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	schema_generation++;
}

/*
 * A backend has ten slots for callbacks of the first kind and never gives one back,
 * so the whole extension takes this one.
 */
void
ndrs_catalog_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	for (int i = 0; i < lengthof(schema_caches); i++)
		CacheRegisterSyscacheCallback(schema_caches[i], syscache_callback, (Datum) 0);
}

uint64
ndrs_generation(NdrsCache cache)
{
	return generations[cache];
}

uint64
ndrs_schema_generation(void)
{
	return schema_generation;
}

/*
 * OID of one of our tables.  Looked up by name each time, because dropping and
 * creating the extension in one session gives it a new one; a watched table's
 * is remembered for the callback.
 */
Oid
ndrs_relation(const char *name, bool missing_ok)
{
	Oid			nspid = get_namespace_oid(NDRS_SCHEMA, true);
	Oid			relid = OidIsValid(nspid) ? get_relname_relid(name, nspid) : InvalidOid;

	if (!OidIsValid(relid) && !missing_ok)
		ndrs_ereport(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("extension \"ndrs_optout\" is not installed in this database"));
	for (int i = 0; i < lengthof(watched); i++)
	{
		if (strcmp(watched[i].name, name) == 0)
			watched[i].relid = relid;
	}
	return relid;
}

/*
 * The catalogue is of another version than the library.
 */
void
ndrs_refuse_column(Relation rel, const char *detail)
{
	ndrs_ereport(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s.%s does not fit the installed library of the extension",
						NDRS_SCHEMA, RelationGetRelationName(rel)),
				 errdetail_internal("%s", detail),
				 errhint("Ask a superuser to call ALTER EXTENSION ndrs_optout UPDATE, or to install the library of the extension's version."));
}

static bool
column_fits(TupleDesc desc, const NdrsColumn *column)
{
	Form_pg_attribute attribute;
	HeapTuple	tuple;
	bool		fits;

	if (column->number > desc->natts)
		return false;
	attribute = TupleDescAttr(desc, column->number - 1);
	if (attribute->attisdropped || strcmp(NameStr(attribute->attname), column->name) != 0 ||
		(column->not_null && !attribute->attnotnull))
		return false;

	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(attribute->atttypid));
	if (!HeapTupleIsValid(tuple))
		return false;
	fits = strcmp(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname), column->type) == 0 &&
		(((Form_pg_type) GETSTRUCT(tuple))->typnamespace == PG_CATALOG_NAMESPACE ||
		 ((Form_pg_type) GETSTRUCT(tuple))->typnamespace == get_namespace_oid(NDRS_SCHEMA, true));
	ReleaseSysCache(tuple);
	return fits;
}

/* The first column that is not what it must be, or NULL */
const NdrsColumn *
ndrs_unfit_column(Relation rel, const NdrsColumn *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		if (!column_fits(RelationGetDescr(rel), &columns[i]))
			return &columns[i];
	}
	return NULL;
}

/*
 * Before the library takes a row of ours apart by number: with the catalogue of
 * another version it would read one type as another.  What else the table has does not
 * matter.
 */
void
ndrs_check_columns(Relation rel, const NdrsColumn *columns, int ncolumns)
{
	const NdrsColumn *column = ndrs_unfit_column(rel, columns, ncolumns);

	if (column != NULL)
		ndrs_refuse_column(rel, psprintf(column->not_null ?
										 "Column %d must be \"%s\", of type %s, and NOT NULL." :
										 "Column %d must be \"%s\", of type %s.",
										 column->number, column->name, column->type));
}

/*
 * A table of ours, to be read.
 */
Relation
ndrs_open_table(const char *name, const NdrsColumn *columns, int ncolumns)
{
	Relation	rel = table_open(ndrs_relation(name, false), AccessShareLock);

	ndrs_check_columns(rel, columns, ncolumns);
	return rel;
}

Oid
ndrs_type(const char *name)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
						   CStringGetDatum(name),
						   ObjectIdGetDatum(get_namespace_oid(NDRS_SCHEMA, true)));
}

Oid
ndrs_extension_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(get_namespace_oid(NDRS_SCHEMA, false)));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ndrs_elog("cache lookup failed for schema \"%s\"", NDRS_SCHEMA);
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Trigger on the watched tables: every backend must drop what it keeps of this
 * one when the transaction commits.  Per row as well as per TRUNCATE, because a
 * logical replication worker fires no statement triggers for rows; the server
 * folds equal messages of one command into one.
 */
Datum
ndrs_optout_invalidate_caches(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ndrs_ereport(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("function \"%s\" was not called by trigger manager",
							"invalidate_caches"));

	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigdata->tg_relation));
	return PointerGetDatum(NULL);
}
