/*
 * sentry.c
 *		What the event triggers of sentry.sql need C for: to remember, from the
 *		start of a command to its end, what was there before, and to read which
 *		columns the command gives another type.
 *
 * Commands nest (a function that a command calls may run another one), so what
 * is remembered is a stack.  A command that fails takes its (sub)transaction with
 * it, and with that its entry.  Commands that commit in the middle (CREATE INDEX
 * CONCURRENTLY) keep theirs.  One whose end is never told, because it dropped the
 * extension, leaves an entry behind, which the next statement of the client throws
 * away.
 */
#include "ndrs_optout.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(ndrs_optout_sentry_start);
PG_FUNCTION_INFO_V1(ndrs_optout_sentry_end);

typedef struct Before
{
	TimestampTz statement;		/* of the client */
	int			nest_level;		/* subtransaction in which the command runs */
	Datum		parts;
	Oid			type;
	struct Before *outer;
} Before;

static Before *innermost = NULL;

static void
forget_innermost(void)
{
	Before	   *entry = innermost;

	innermost = entry->outer;
	pfree(DatumGetPointer(entry->parts));
	pfree(entry);
}

static void
transaction_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
	{
		while (innermost != NULL)
			forget_innermost();
	}
}

static void
subtransaction_callback(SubXactEvent event, SubTransactionId my_subid,
						SubTransactionId parent_subid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (innermost != NULL &&
			   innermost->nest_level >= GetCurrentTransactionNestLevel())
			forget_innermost();
	}
}

void
ndrs_sentry_init(void)
{
	RegisterXactCallback(transaction_callback, NULL);
	RegisterSubXactCallback(subtransaction_callback, NULL);
}

static EventTriggerData *
event_data(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("the sentry must be called by an event trigger"),
				 ndrs_errhidevalues()));
	return (EventTriggerData *) fcinfo->context;
}

/*
 * The table that a command detaches a partition from concurrently, or
 * InvalidOid.
 */
static Oid
detaches_concurrently_from(Node *command)
{
	AlterTableStmt *stmt = (AlterTableStmt *) command;
	ListCell   *lc;

	if (!IsA(command, AlterTableStmt))
		return InvalidOid;
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *action = lfirst_node(AlterTableCmd, lc);

		if (action->subtype == AT_DetachPartition &&
			castNode(PartitionCmd, action->def)->concurrent)
			return RangeVarGetRelid(stmt->relation, NoLock, true);
	}
	return InvalidOid;
}

Datum
ndrs_optout_sentry_start(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigdata = event_data(fcinfo);
	Oid			parent = detaches_concurrently_from(trigdata->parsetree);
	Oid			types[] = {REGCLASSOID};
	Datum		values[] = {ObjectIdGetDatum(parent)};
	TimestampTz statement = GetCurrentStatementStartTimestamp();
	MemoryContext outer;
	Before	   *entry;
	Datum		parts;
	bool		isnull;

	while (innermost != NULL && innermost->statement != statement)
		forget_innermost();

	SPI_connect();
	if (OidIsValid(parent) &&
		SPI_execute_with_args("SELECT ndrs_optout.sentry_detach_concurrently($1)", 1, types,
							  values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not judge the command");
	if (SPI_execute("SELECT ndrs_optout.sentry_parts()", true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read the parts of the guards");
	parts = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		elog(ERROR, "unexpected null for the parts of the guards");

	outer = MemoryContextSwitchTo(TopMemoryContext);
	entry = palloc(sizeof(Before));
	entry->statement = statement;
	entry->nest_level = GetCurrentTransactionNestLevel();
	entry->parts = PointerGetDatum(PG_DETOAST_DATUM_COPY(parts));
	entry->type = SPI_gettypeid(SPI_tuptable->tupdesc, 1);
	entry->outer = innermost;
	innermost = entry;
	MemoryContextSwitchTo(outer);
	SPI_finish();

	PG_RETURN_NULL();
}

/*
 * Columns that the command gives another type, or the same one with other values
 * (ALTER TYPE ... USING).
 */
static ArrayType *
retyped_columns(Node *command)
{
	ArrayBuildState *names = initArrayResult(NAMEOID, CurrentMemoryContext, false);

	if (IsA(command, AlterTableStmt))
	{
		ListCell   *lc;

		foreach(lc, ((AlterTableStmt *) command)->cmds)
		{
			AlterTableCmd *action = lfirst_node(AlterTableCmd, lc);

			if (action->subtype == AT_AlterColumnType)
				names = accumArrayResult(names,
										 DirectFunctionCall1(namein, CStringGetDatum(action->name)),
										 false, NAMEOID, CurrentMemoryContext);
		}
	}
	return DatumGetArrayTypeP(makeArrayResult(names, CurrentMemoryContext));
}

Datum
ndrs_optout_sentry_end(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigdata = event_data(fcinfo);
	Oid			types[2];
	Datum		values[2];

	/* Its beginning was not told: the command created the extension. */
	if (innermost == NULL ||
		innermost->statement != GetCurrentStatementStartTimestamp())
		PG_RETURN_NULL();

	types[0] = innermost->type;
	types[1] = NAMEARRAYOID;
	values[0] = datumCopy(innermost->parts, false, -1);
	values[1] = PointerGetDatum(retyped_columns(trigdata->parsetree));
	forget_innermost();

	SPI_connect();
	if (SPI_execute_with_args("SELECT ndrs_optout.sentry_judge($1, $2)", 2, types, values,
							  NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not judge the command");
	SPI_finish();

	PG_RETURN_NULL();
}
