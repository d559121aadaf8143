/*
 * erasure.c
 *		What the erasure cannot do in SQL: wait for the writers that may have
 *		passed the guard, and search and delete with the rights of others.
 *
 * A writer checks the exclusion list after it has locked the table and keeps
 * the lock until its end.  So once an exclusion is committed and announced,
 * whoever may still bring in a row of the patient holds such a lock now.
 * Waiting for these, as CREATE INDEX CONCURRENTLY does, is enough, and stops
 * nobody: a writer that comes later sees the exclusion.
 */
#include "ndrs_optout.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_wait_for_writers);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_base_type);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_run);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_look);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_known);

/* Conflicts with every lock under which rows are written */
#define WRITERS_CONFLICT	ShareLock

typedef struct Writer
{
	VirtualTransactionId vxid;
	const char *table;			/* one of those that it is writing to */
} Writer;

/*
 * Add the transactions that are writing to a table.  A lazy VACUUM holds a
 * conflicting lock as well, for hours maybe, but brings no rows.
 */
static List *
add_writers(List *writers, Oid relid, const char *table)
{
	VirtualTransactionId *vxid;
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	vxid = GetLockConflicts(&tag, WRITERS_CONFLICT, NULL);
	for (; VirtualTransactionIdIsValid(*vxid); vxid++)
	{
		PGPROC	   *proc = ndrs_vxid_proc(*vxid);
		Writer	   *writer;

		if (proc != NULL && (proc->statusFlags & PROC_IN_VACUUM) != 0)
			continue;
		writer = palloc(sizeof(Writer));
		writer->vxid = *vxid;
		writer->table = table;
		writers = lappend(writers, writer);
	}
	return writers;
}

/*
 * Sentences on the writers from this one on.
 */
static char *
describe_writers(List *writers, int first)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = first; i < list_length(writers); i++)
	{
		Writer	   *writer = list_nth(writers, i);
		PGPROC	   *proc = ndrs_vxid_proc(writer->vxid);

		if (buf.len > 0)
			appendStringInfoChar(&buf, '\n');
		if (proc != NULL && proc->pid != 0)
			appendStringInfo(&buf, "Process %d is writing to table \"%s\".",
							 proc->pid, writer->table);
		else
			appendStringInfo(&buf, "A prepared transaction is writing to table \"%s\"; see pg_prepared_xacts.",
							 writer->table);
	}
	return buf.data;
}

/*
 * Wait for each of the writers to end.
 */
static void
wait_for(List *writers)
{
	MemoryContext outer = CurrentMemoryContext;

	for (volatile int i = 0; i < list_length(writers); i++)
	{
		Writer	   *writer = list_nth(writers, i);

		PG_TRY();
		{
			VirtualXactLock(writer->vxid, true);
		}
		PG_CATCH();
		{
			ErrorData  *error;

			MemoryContextSwitchTo(outer);
			error = CopyErrorData();
			if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
				PG_RE_THROW();
			FlushErrorState();
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("lock timeout while waiting for transactions that began to write before the patient was excluded"),
					 errdetail_internal("%s", describe_writers(writers, i)),
					 errhint("The patient stays excluded. Call ndrs_optout.carry_out() for the case again when these transactions have ended."),
					 ndrs_errhidevalues()));
		}
		PG_END_TRY();
	}
}

/*
 * Wait until every transaction that is writing to one of these tables, or is
 * prepared and will, has ended.
 *
 * First for the writers of the exclusion list itself: the backend that
 * committed the exclusion announces it after the commit is visible and before
 * it gives up its locks.  When another backend carries the case on, a writer
 * could begin between the two and pass the guard with the old list.
 */
Datum
ndrs_optout_wait_for_writers(PG_FUNCTION_ARGS)
{
	ArrayType  *relations = PG_GETARG_ARRAYTYPE_P(0);
	List	   *writers = NIL;
	Datum	   *relids;
	bool	   *nulls;
	int			nrelids;

	wait_for(add_writers(NIL, ndrs_relation("exclusion", false), "exclusion"));

	deconstruct_array(relations, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &relids, &nulls, &nrelids);
	for (int i = 0; i < nrelids; i++)
	{
		char	   *table = nulls[i] ? NULL : get_rel_name(DatumGetObjectId(relids[i]));

		/* A table that was dropped meanwhile has no writers. */
		if (table != NULL)
			writers = add_writers(writers, DatumGetObjectId(relids[i]), table);
	}

	if (writers != NIL)
		ereport(NOTICE,
				(errmsg("waiting for transactions that began to write before the patient was excluded"),
				 errdetail_internal("%s", describe_writers(writers, 0)),
				 errhidestmt(true),
				 errhidecontext(true)));
	wait_for(writers);

	PG_RETURN_VOID();
}

Datum
ndrs_optout_erasure_base_type(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(getBaseType(PG_GETARG_OID(0)));
}

/*
 * What the catalogues said, by the question.  All answers are of one generation
 * (catalog.c), which is read before the snapshot that they were found with: a
 * message that comes meanwhile leaves them stale instead of being lost.
 *
 * Questions name tables and registers; those that name the partitions in which
 * somebody has rows are many, so a long session begins anew now and then.
 */
typedef struct KnownAnswer
{
	Oid			type;			/* of the array: a wrong one must not be
								 * believed */
	const char *question;
	Datum		array;
} KnownAnswer;

#define MAX_KNOWN_ANSWERS	1000

static List *known_answers = NIL;
static uint64 known_generation = 0;
static MemoryContext known_context = NULL;	/* holds the answers */

/* Is a command being run with the rights of a table's owner?  Set by us alone. */
#define SEARCHING_SETTING	"ndrs_optout.searching"

/*
 * The walk's commands name tables and not patients, so they come again with each
 * patient, and their plans are kept for the session: the walk asks for generic plans.
 * Others do not: a command of the sweep names blocks, and does not come again.
 *
 * A plan belongs to the role with whose rights it was made.  The type of the first
 * parameter is ours: another one is another extension's, dropped and created again.
 *
 * No plan is ever given up, since a trigger may get here while one is running; when
 * there are many, further ones are not kept.
 */
typedef struct KeptPlan
{
	Oid			role;
	Oid			type;
	const char *command;
	SPIPlanPtr	plan;
} KeptPlan;

#define MAX_KEPT_PLANS		256

static KeptPlan kept_plans[MAX_KEPT_PLANS];
static int	nkept_plans = 0;

/*
 * A plan for a command, parsed with the rights of whoever calls this, also when what
 * it is of has changed since.  The locks that this takes stay, so it does not
 * change before it is run.
 */
static SPIPlanPtr
plan_for(Oid role, const char *command, int nargs, Oid *types)
{
	SPIPlanPtr	plan;

	for (int i = 0; i < nkept_plans; i++)
	{
		const KeptPlan *kept = &kept_plans[i];

		if (kept->role == role && kept->type == types[0] &&
			strcmp(kept->command, command) == 0)
		{
			ListCell   *cell;

			foreach(cell, SPI_plan_get_plan_sources(kept->plan))
				(void) CachedPlanGetTargetList(lfirst(cell), NULL);
			return kept->plan;
		}
	}

	plan = SPI_prepare_cursor(command, nargs, types, CURSOR_OPT_PARALLEL_OK);
	if (plan == NULL)
		elog(ERROR, "could not prepare a command of the erasure");
	if (plan_cache_mode == PLAN_CACHE_MODE_FORCE_GENERIC_PLAN &&
		nkept_plans < MAX_KEPT_PLANS)
	{
		command = MemoryContextStrdup(TopMemoryContext, command);
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "could not keep a plan of the erasure");
		kept_plans[nkept_plans++] = (KeptPlan)
		{
			.role = role,.type = types[0],.command = command,.plan = plan,
		};
	}
	return plan;
}

/*
 * Run a command that returns one value with the rights of a role, in a
 * security-restricted operation, as the server's own maintenance commands do.
 * An error brings the old role back, as the (sub)transaction ends.
 *
 * It is parsed with our rights, since it may name functions of ours (in full: the
 * path is the same for everybody, or it would be parsed again), and planned
 * and run with the role's: the planner evaluates the predicates of indexes, which
 * are whatever the owner of the table has made.
 *
 * "latest": with a snapshot of now instead of the transaction's.
 */
static Datum
run_as(Oid role, const char *command, bool latest, int nargs, Oid *types,
	   Datum *values, const char *nulls, Oid result_type, bool *isnull)
{
	MemoryContext outer = CurrentMemoryContext;
	Oid			saved_role;
	int			saved_context;
	int			nest_level;
	SPIPlanPtr	plan;
	Datum		result = (Datum) 0;

	*isnull = true;
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		elog(ERROR, "role with OID %u does not exist", role);

	GetUserIdAndSecContext(&saved_role, &saved_context);
	nest_level = NewGUCNestLevel();

	SPI_connect();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	plan = plan_for(role, command, nargs, types);
	(void) set_config_option(SEARCHING_SETTING, "on", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(role, saved_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	if (latest)
		PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_plan(plan, values, nulls, latest, 0) < 0)
		elog(ERROR, "could not run a command of the erasure");
	if (latest)
		PopActiveSnapshot();
	if (SPI_processed == 1 && SPI_tuptable != NULL)
	{
		if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) != result_type)
			elog(ERROR, "unexpected result of a command of the erasure");
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
		if (!*isnull)
		{
			MemoryContextSwitchTo(outer);
			result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
		}
	}
	SPI_finish();

	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(saved_role, saved_context);
	return result;
}

/*
 * Change rows with the rights of their table's owner: triggers run as their
 * owner then, and not as the owner of the extension, who is a superuser as a
 * rule.  The parameter of the command is the batches; returns counts, or nothing.
 * Guards spare the tables given while it runs (guard.c).
 */
Datum
ndrs_optout_erasure_run(PG_FUNCTION_ARGS)
{
	Oid			types[] = {get_fn_expr_argtype(fcinfo->flinfo, 2)};
	Datum		values[] = {PG_GETARG_DATUM(2)};
	ArrayType  *tables = PG_GETARG_ARRAYTYPE_P(3);
	const Oid  *spared = (const Oid *) ARR_DATA_PTR(tables);
	int			nspared = ArrayGetNItems(ARR_NDIM(tables), ARR_DIMS(tables));
	bool		isnull = true;
	Datum		result = (Datum) 0;

	if (array_contains_nulls(tables))
		elog(ERROR, "unexpected null among the tables of an erasure");

	ndrs_guard_spare(&spared, &nspared);
	PG_TRY();
	{
		result = run_as(PG_GETARG_OID(0), text_to_cstring(PG_GETARG_TEXT_PP(1)), false,
						1, types, values, NULL, INT8ARRAYOID, &isnull);
	}
	PG_FINALLY();
	{
		ndrs_guard_spare(&spared, &nspared);
	}
	PG_END_TRY();

	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

/*
 * Look for rows with the rights of a role: whoever has a foreign key to a table
 * of the walk has a table in it, and what they made (an index's predicate, a
 * cast) runs when it is planned or searched.  The parameters are the patients
 * and the keys; returns texts, or nothing.
 */
Datum
ndrs_optout_erasure_look(PG_FUNCTION_ARGS)
{
	Oid			types[] = {get_fn_expr_argtype(fcinfo->flinfo, 2), TEXTARRAYOID};
	Datum		values[2];
	char		nulls[2];
	bool		isnull;
	Datum		result;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	for (int i = 0; i < 2; i++)
	{
		values[i] = PG_ARGISNULL(2 + i) ? (Datum) 0 : PG_GETARG_DATUM(2 + i);
		nulls[i] = PG_ARGISNULL(2 + i) ? 'n' : ' ';
	}
	result = run_as(PG_GETARG_OID(0), text_to_cstring(PG_GETARG_TEXT_PP(1)),
					PG_NARGS() > 4 && PG_GETARG_BOOL(4),
					2, types, values, nulls, TEXTARRAYOID, &isnull);

	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

/*
 * Ask the catalogues with the newest snapshot.  An old one of the transaction's
 * would bring old answers, which the session would keep for later ones.
 */
static Datum
ask(const char *question, Oid type)
{
	Datum		answer;
	bool		isnull;

	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute(question, true, 0) != SPI_OK_SELECT || SPI_processed != 1 ||
		SPI_gettypeid(SPI_tuptable->tupdesc, 1) != type)
		elog(ERROR, "unexpected answer to a question of the erasure");
	answer = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		elog(ERROR, "no answer to a question of the erasure");
	answer = SPI_datumTransfer(answer, false, -1);
	PopActiveSnapshot();
	SPI_finish();
	return answer;
}

/*
 * The array that a query of the catalogues returns: as it is known, or asked for.
 */
Datum
ndrs_optout_erasure_known(PG_FUNCTION_ARGS)
{
	Oid			type = get_fn_expr_rettype(fcinfo->flinfo);
	char	   *question;
	Datum		answer;
	ListCell   *cell;
	MemoryContext outer;
	KnownAnswer *known;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	question = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (known_context == NULL)
		known_context = AllocSetContextCreate(TopMemoryContext,
											  "ndrs_optout erasure ways",
											  ALLOCSET_DEFAULT_SIZES);

	AcceptInvalidationMessages();
	if (known_generation != ndrs_schema_generation() ||
		list_length(known_answers) == MAX_KNOWN_ANSWERS)
	{
		known_answers = NIL;
		MemoryContextReset(known_context);
		known_generation = ndrs_schema_generation();
	}
	foreach(cell, known_answers)
	{
		known = lfirst(cell);
		if (known->type == type && strcmp(known->question, question) == 0)
			PG_RETURN_DATUM(datumCopy(known->array, false, -1));
	}

	answer = ask(question, type);
	outer = MemoryContextSwitchTo(known_context);
	known = palloc(sizeof(KnownAnswer));
	known->type = type;
	known->question = pstrdup(question);
	known->array = datumCopy(answer, false, -1);
	known_answers = lappend(known_answers, known);
	MemoryContextSwitchTo(outer);
	PG_RETURN_DATUM(answer);
}
