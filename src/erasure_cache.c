/*
 * erasure_cache.c
 *		What the catalogues say to the erasure, which a session asks them once.
 */
#include "postgres.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "privacy.h"
#include "sqlstates.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_erasure_base_type);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_kin);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_root_searches);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_child_searches);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_tables);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_owned_links);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_owned_keepers);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_undeferrals);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_deletions);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_lost_edges);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_pending);

Datum
ndrs_optout_erasure_base_type(PG_FUNCTION_ARGS)
{
	Oid			type = PG_GETARG_OID(0);

	/*
	 * A dropped column has none, and a query may ask before it looks whether
	 * it is one.
	 */
	if (!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(type)))
		PG_RETURN_OID(type);
	PG_RETURN_OID(getBaseType(type));
}

/*
 * The functions that plan a part of an erasure from the catalogues, tables guard, reference,
 * expected_edge and accepted_gap, and from nothing else.  Each returns an array.
 */
typedef struct Planner
{
	const char *name;
	int			nargs;
	Oid			argtypes[2];
} Planner;

static const Planner root_searches = {
	"erasure_plan_root_searches", 2, {TEXTARRAYOID, TEXTARRAYOID}
};
static const Planner child_searches = {
	"erasure_plan_child_searches", 2, {REGCLASSOID, TEXTARRAYOID}
};
static const Planner kin = {
	"erasure_plan_kin", 1, {REGCLASSOID}
};
static const Planner tables = {
	"erasure_plan_tables", 1, {TEXTARRAYOID}
};
static const Planner owned_links = {
	"erasure_plan_owned_links", 1, {TEXTARRAYOID}
};
static const Planner owned_keepers = {
	"erasure_plan_owned_keepers", 1, {REGCLASSOID}
};
static const Planner undeferrals = {
	"erasure_plan_undeferrals", 1, {REGCLASSARRAYOID}
};
static const Planner deletions = {
	"erasure_plan_deletions", 1, {REGCLASSARRAYOID}
};
static const Planner deferrables = {
	"erasure_plan_deferrables", 0, {InvalidOid}
};
static const Planner lost_edges = {
	"erasure_plan_lost_edges", 0, {InvalidOid}
};

/*
 * What they returned, by their arguments.  All plans are of one generation
 * (catalog.c), which is read before the snapshot that they were made with: a
 * message that comes in between leaves them stale instead of being lost.
 *
 * Each set of partitions that held patients' rows has plans, so those that were not
 * used for longest are given up when all of them take too much memory.
 */
typedef struct CachedPlan
{
	dlist_node	node;
	MemoryContext context;		/* holds all of it */
	const Planner *planner;
	uint32		hash;			/* of the arguments */
	Datum		args[2];
	Datum		plan;
} CachedPlan;

#define MAX_CACHE_SIZE	(16 * 1024 * 1024)

static dlist_head cached_plans = DLIST_STATIC_INIT(cached_plans);	/* used last, first */
static uint64 cache_generation = 0;
static MemoryContext cache_context = NULL;	/* holds the plans */

/*
 * Plan with the newest snapshot.  An old one of the transaction's would bring old
 * plans, which the session would keep for later ones.
 */
static Datum
make_plan(const Planner *planner, const Datum *args, Oid type)
{
	List	   *name = list_make2(makeString(pstrdup(NDRS_SCHEMA)), makeString(pstrdup(planner->name)));
	Oid			function = LookupFuncName(name, planner->nargs, planner->argtypes, false);
	Datum		plan;

	if (get_func_rettype(function) != type)
		ndrs_elog("unexpected type of a plan of the erasure");
	PushActiveSnapshot(GetLatestSnapshot());
	plan = planner->nargs == 0 ? OidFunctionCall0(function) :
		planner->nargs == 1 ? OidFunctionCall1(function, args[0]) :
		OidFunctionCall2(function, args[0], args[1]);
	PopActiveSnapshot();
	return plan;
}

/*
 * The plan for the arguments of a function of ours that has the planner's: as it is
 * kept, or made.
 */
static Datum
cached_plan(FunctionCallInfo fcinfo, const Planner *planner)
{
	Datum		args[2];
	uint32		hash = 0;
	Datum		plan;
	dlist_iter	iter;
	MemoryContext context;
	MemoryContext outer;
	CachedPlan *cached;

	for (int i = 0; i < planner->nargs; i++)
	{
		if (planner->argtypes[i] == REGCLASSOID)
		{
			args[i] = PG_GETARG_DATUM(i);
			hash = hash_combine(hash, DatumGetObjectId(args[i]));
		}
		else
		{
			ArrayType  *array = PG_GETARG_ARRAYTYPE_P(i);

			args[i] = PointerGetDatum(array);
			hash = hash_combine(hash, hash_bytes((const unsigned char *) array,
												 (int) ARR_SIZE(array)));
		}
	}

	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(TopMemoryContext, "ndrs_optout erasure plans",
											  ALLOCSET_DEFAULT_SIZES);
	AcceptInvalidationMessages();
	if (cache_generation != ndrs_schema_generation())
	{
		dlist_init(&cached_plans);
		MemoryContextReset(cache_context);
		cache_generation = ndrs_schema_generation();
	}
	dlist_foreach(iter, &cached_plans)
	{
		bool		same;

		cached = dlist_container(CachedPlan, node, iter.cur);
		same = cached->planner == planner && cached->hash == hash;
		for (int i = 0; same && i < planner->nargs; i++)
		{
			bool		by_value = planner->argtypes[i] == REGCLASSOID;

			same = datumIsEqual(cached->args[i], args[i], by_value, by_value ? sizeof(Oid) : -1);
		}
		if (same)
		{
			dlist_move_head(&cached_plans, &cached->node);
			return datumCopy(cached->plan, false, -1);
		}
	}

	plan = make_plan(planner, args, get_func_rettype(fcinfo->flinfo->fn_oid));
	context = AllocSetContextCreate(CurrentMemoryContext, "ndrs_optout erasure plan",
									ALLOCSET_SMALL_SIZES);
	outer = MemoryContextSwitchTo(context);
	cached = palloc0(sizeof(CachedPlan));
	cached->context = context;
	cached->planner = planner;
	cached->hash = hash;
	for (int i = 0; i < planner->nargs; i++)
	{
		bool		by_value = planner->argtypes[i] == REGCLASSOID;

		cached->args[i] = datumCopy(args[i], by_value, by_value ? sizeof(Oid) : -1);
	}
	cached->plan = datumCopy(plan, false, -1);
	MemoryContextSwitchTo(outer);
	MemoryContextSetParent(context, cache_context);
	dlist_push_head(&cached_plans, &cached->node);

	while (MemoryContextMemAllocated(cache_context, true) > MAX_CACHE_SIZE &&
		   dlist_has_next(&cached_plans, dlist_head_node(&cached_plans)))
	{
		cached = dlist_tail_element(CachedPlan, node, &cached_plans);
		dlist_delete(&cached->node);
		MemoryContextDelete(cached->context);
	}
	return plan;
}

Datum
ndrs_optout_erasure_root_searches(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &root_searches);
}

Datum
ndrs_optout_erasure_child_searches(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &child_searches);
}

Datum
ndrs_optout_erasure_tables(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &tables);
}

Datum
ndrs_optout_erasure_owned_links(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &owned_links);
}

Datum
ndrs_optout_erasure_owned_keepers(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &owned_keepers);
}

Datum
ndrs_optout_erasure_undeferrals(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &undeferrals);
}

Datum
ndrs_optout_erasure_deletions(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &deletions);
}

/* A table and the one that stands for it, as erasure_plan_kin() returns them */
typedef struct Kin
{
	Oid			leaf;
	Oid			kin;
} Kin;

static int
compare_leaves(const void *a, const void *b)
{
	Oid			left = ((const Kin *) a)->leaf;
	Oid			right = ((const Kin *) b)->leaf;

	return left < right ? -1 : left > right;
}

/*
 * Whose searches below are those of the tables that a search of a relation found rows in.
 *
 * What a search returns decides what is deleted.  So each of its tables must belong to the
 * one that was searched: what answers for a table that is not here, or of another
 * extension's, may say anything.
 */
Datum
ndrs_optout_erasure_kin(PG_FUNCTION_ARGS)
{
	ArrayType  *known = DatumGetArrayTypeP(cached_plan(fcinfo, &kin));
	ArrayType  *leaves = PG_GETARG_ARRAYTYPE_P(1);
	int			nknown = ArrayGetNItems(ARR_NDIM(known), ARR_DIMS(known)) / 2;
	int			nleaves = ArrayGetNItems(ARR_NDIM(leaves), ARR_DIMS(leaves));
	const Oid  *leaf = (const Oid *) ARR_DATA_PTR(leaves);
	Kin			last = {InvalidOid, InvalidOid};
	List	   *found = NIL;
	Datum	   *result;

	if (array_contains_nulls(known) || array_contains_nulls(leaves))
		ndrs_elog("unexpected null among the tables of an erasure");
	for (int i = 0; i < nleaves; i++)
	{
		const Kin	sought = {leaf[i], InvalidOid};
		const Kin  *hit;

		if (leaf[i] == last.leaf)
			continue;
		hit = bsearch(&sought, ARR_DATA_PTR(known), nknown, sizeof(Kin), compare_leaves);
		if (hit == NULL)
			ndrs_ereport(errcode(ERRCODE_NDRS_WRONG_TABLE),
						 errmsg("a search of table %s found rows of another table",
								ndrs_table_name(PG_GETARG_OID(0))),
						 errdetail("They are said to be of table %s, which is neither a partition nor an inheritance child of it.",
								   ndrs_table_name(leaf[i])),
						 errhint("Nothing was erased. Look for a foreign table, or for an extension that keeps rows of this table elsewhere."));
		last = *hit;
		found = list_append_unique_oid(found, hit->kin);
	}

	result = palloc(sizeof(Datum) * Max(list_length(found), 1));
	for (int i = 0; i < list_length(found); i++)
		result[i] = ObjectIdGetDatum(list_nth_oid(found, i));
	PG_RETURN_ARRAYTYPE_P(construct_array(result, list_length(found), REGCLASSOID, sizeof(Oid),
										  true, TYPALIGN_INT));
}

Datum
ndrs_optout_erasure_lost_edges(PG_FUNCTION_ARGS)
{
	return cached_plan(fcinfo, &lost_edges);
}

/*
 * The tables for which a trigger, or a check of a foreign key, waits for the end of the
 * transaction; NULL when no table has one that can.
 */
Datum
ndrs_optout_erasure_pending(PG_FUNCTION_ARGS)
{
	ArrayType  *tables = DatumGetArrayTypeP(cached_plan(fcinfo, &deferrables));
	int			ntables = ArrayGetNItems(ARR_NDIM(tables), ARR_DIMS(tables));
	const Oid  *table = (const Oid *) ARR_DATA_PTR(tables);
	Datum	   *result = palloc(sizeof(Datum) * Max(ntables, 1));
	int			npending = 0;

	if (ntables == 0)
		PG_RETURN_NULL();
	if (array_contains_nulls(tables))
		ndrs_elog("unexpected null among the tables of an erasure");
	for (int i = 0; i < ntables; i++)
	{
		if (AfterTriggerPendingOnRel(table[i]))
			result[npending++] = ObjectIdGetDatum(table[i]);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(result, npending, REGCLASSOID, sizeof(Oid), true,
										  TYPALIGN_INT));
}
