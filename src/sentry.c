/*
 * sentry.c
 *		What the event triggers of sentry.sql need C for: to know which tables a
 *		command may change, and to remember, from its start to its end, what
 *		guarded them before.
 *
 * Commands nest (a function that a command calls may run another one), so what
 * is remembered is a stack.  A command that fails takes its (sub)transaction with
 * it, and with that its entry.  Commands that commit in the middle (CREATE INDEX
 * CONCURRENTLY) keep theirs.  One whose end is never told, because it dropped the
 * extension, leaves an entry behind, which the next statement of the client throws
 * away.
 *
 * Everything is read with a snapshot of now.  With the transaction's own, a
 * command at REPEATABLE READ would be judged by guards, and by rows, as they
 * were when it began.
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
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(ndrs_optout_sentry_start);
PG_FUNCTION_INFO_V1(ndrs_optout_sentry_end);

/* What a command is about, as far as guards are concerned */
typedef struct Command
{
	bool		harmless;		/* changes no table that is there */
	ArrayType  *tables;			/* that it names; NULL: may be any */
	Oid			relid;			/* of ALTER TABLE */
	ArrayType  *retyped;		/* columns that it gives another type, or the
								 * same one with other values */
	bool		detaches_concurrently;
} Command;

typedef struct Before
{
	MemoryContext context;		/* holds the entry */
	TimestampTz statement;		/* of the client */
	int			nest_level;		/* subtransaction in which the command runs */
	Command		command;		/* its tables may have other names afterwards */
	Datum		parts;
	struct Before *outer;
} Before;

static Before *innermost = NULL;

static void
forget_innermost(void)
{
	Before	   *entry = innermost;

	innermost = entry->outer;
	MemoryContextDelete(entry->context);
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
		ndrs_ereport(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("the sentry must be called by an event trigger"));
	return (EventTriggerData *) fcinfo->context;
}

/* ------------------------------------------------------------- the command */

static ArrayBuildState *
add_table(ArrayBuildState *tables, RangeVar *table)
{
	Oid			relid = table ? RangeVarGetRelid(table, NoLock, true) : InvalidOid;

	if (OidIsValid(relid))
		tables = accumArrayResult(tables, ObjectIdGetDatum(relid), false,
								  REGCLASSOID, CurrentMemoryContext);
	return tables;
}

static void
read_alter_table(Command *command, AlterTableStmt *stmt)
{
	ArrayBuildState *tables = initArrayResult(REGCLASSOID, CurrentMemoryContext, false);
	ArrayBuildState *retyped = initArrayResult(NAMEOID, CurrentMemoryContext, false);
	ListCell   *lc;

	tables = add_table(tables, stmt->relation);
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *action = lfirst_node(AlterTableCmd, lc);

		switch (action->subtype)
		{
			case AT_AlterColumnType:
				retyped = accumArrayResult(retyped,
										   DirectFunctionCall1(namein, CStringGetDatum(action->name)),
										   false, NAMEOID, CurrentMemoryContext);
				break;
			case AT_AttachPartition:
			case AT_DetachPartition:
				tables = add_table(tables, castNode(PartitionCmd, action->def)->name);
				if (castNode(PartitionCmd, action->def)->concurrent)
					command->detaches_concurrently = true;
				break;
			case AT_AddInherit:
			case AT_DropInherit:
				tables = add_table(tables, castNode(RangeVar, action->def));
				break;
			default:
				break;
		}
	}
	command->relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	command->retyped = DatumGetArrayTypeP(makeArrayResult(retyped, CurrentMemoryContext));
	command->tables = DatumGetArrayTypeP(makeArrayResult(tables, CurrentMemoryContext));
}

/*
 * What is created is empty, and has no guard yet.  What is dropped as a whole
 * needs none; but types, functions and what else columns are made of take columns
 * with them.
 */
static Command
read_command(Node *parsetree)
{
	Command		command = {0};
	RangeVar   *table = NULL;

	switch (nodeTag(parsetree))
	{
		case T_AlterTableStmt:
			read_alter_table(&command, (AlterTableStmt *) parsetree);
			return command;
		case T_RenameStmt:
			table = ((RenameStmt *) parsetree)->relation;
			break;
		case T_CreateTrigStmt:
			table = ((CreateTrigStmt *) parsetree)->relation;
			break;
		case T_DropStmt:
			switch (((DropStmt *) parsetree)->removeType)
			{
				case OBJECT_TABLE:
				case OBJECT_FOREIGN_TABLE:
				case OBJECT_VIEW:
				case OBJECT_MATVIEW:
				case OBJECT_INDEX:
				case OBJECT_SEQUENCE:
				case OBJECT_STATISTIC_EXT:
				case OBJECT_POLICY:
				case OBJECT_RULE:
				case OBJECT_PUBLICATION:
					command.harmless = true;
					break;
				default:
					break;
			}
			break;
		case T_AlterTypeStmt:
		case T_AlterDomainStmt:
		case T_AlterObjectDependsStmt:
		case T_AlterExtensionStmt:
		case T_AlterExtensionContentsStmt:
		case T_DropOwnedStmt:
			break;
		default:
			command.harmless = true;
			break;
	}

	if (table != NULL)
		command.tables = DatumGetArrayTypeP(makeArrayResult(add_table(initArrayResult(REGCLASSOID, CurrentMemoryContext, false),
																	  table),
															CurrentMemoryContext));
	return command;
}

/* ---------------------------------------------------------------- judgement */

/*
 * Run a query for one value with a snapshot of now.  SPI is connected.
 */
static Datum
ask(const char *query, int nargs, Oid *types, Datum *values, const char *nulls,
	bool *isnull)
{
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(query, nargs, types, values, nulls, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		ndrs_elog("could not look at the guards");
	PopActiveSnapshot();
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
}

static Datum
read_parts(ArrayType *tables)
{
	Oid			types[] = {REGCLASSARRAYOID};
	Datum		values[] = {PointerGetDatum(tables)};
	char		nulls[] = {tables == NULL ? 'n' : ' '};
	bool		isnull;
	Datum		parts = ask("SELECT ndrs_optout.sentry_parts($1)", 1, types, values, nulls, &isnull);

	if (isnull)
		ndrs_elog("unexpected null for the parts of the guards");
	return parts;
}

Datum
ndrs_optout_sentry_start(PG_FUNCTION_ARGS)
{
	Node	   *parsetree = event_data(fcinfo)->parsetree;
	TimestampTz statement = GetCurrentStatementStartTimestamp();
	MemoryContext outer;
	MemoryContext context;
	Before	   *entry;

	while (innermost != NULL && innermost->statement != statement)
		forget_innermost();

	/* A child of the caller's context until it is complete */
	context = AllocSetContextCreate(CurrentMemoryContext, "ndrs_optout sentry",
									ALLOCSET_SMALL_SIZES);
	outer = MemoryContextSwitchTo(context);
	entry = palloc0(sizeof(Before));
	entry->context = context;
	entry->statement = statement;
	entry->nest_level = GetCurrentTransactionNestLevel();
	entry->command = read_command(parsetree);
	MemoryContextSwitchTo(outer);

	if (!entry->command.harmless)
	{
		Datum		parts;

		SPI_connect();
		if (entry->command.detaches_concurrently)
		{
			Oid			types[] = {REGCLASSOID};
			Datum		values[] = {ObjectIdGetDatum(entry->command.relid)};

			if (SPI_execute_with_args("SELECT ndrs_optout.sentry_detach_concurrently($1)", 1,
									  types, values, NULL, false, 0) != SPI_OK_SELECT)
				ndrs_elog("could not judge the command");
		}
		parts = read_parts(entry->command.tables);
		outer = MemoryContextSwitchTo(context);
		entry->parts = PointerGetDatum(PG_DETOAST_DATUM_COPY(parts));
		MemoryContextSwitchTo(outer);
		SPI_finish();
	}

	MemoryContextSetParent(context, TopMemoryContext);
	entry->outer = innermost;
	innermost = entry;
	PG_RETURN_NULL();
}

/*
 * Judge a command by what was before and what is now.
 */
static void
judge(Before *before)
{
	Command    *command = &before->command;
	Oid			part_array = ndrs_type("_guard_part");
	Oid			types[] = {part_array, part_array, REGCLASSOID, NAMEARRAYOID};
	Datum		values[] = {before->parts, read_parts(command->tables),
	ObjectIdGetDatum(command->relid), PointerGetDatum(command->retyped)};
	char		nulls[] = {' ', ' ', ' ', command->retyped == NULL ? 'n' : ' '};
	Oid			verdict_types[] = {TEXTARRAYOID, TEXTARRAYOID};
	Datum		verdict[2];
	char		verdict_nulls[2];
	bool		isnull;

	/* Most commands leave everything as it was. */
	if (datumIsEqual(values[0], values[1], false, -1) &&
		(command->retyped == NULL || ARR_NDIM(command->retyped) == 0))
		return;

	verdict[0] = ask("SELECT ndrs_optout.sentry_losses($1, $2, $3, $4)", 4, types, values, nulls, &isnull);
	verdict_nulls[0] = isnull ? 'n' : ' ';
	verdict[1] = ask("SELECT ndrs_optout.sentry_intruders($1, $2, $3, $4)", 4, types, values, nulls, &isnull);
	verdict_nulls[1] = isnull ? 'n' : ' ';

	if ((verdict_nulls[0] == ' ' || verdict_nulls[1] == ' ') &&
		SPI_execute_with_args("SELECT ndrs_optout.sentry_judge($1, $2)", 2, verdict_types,
							  verdict, verdict_nulls, false, 0) != SPI_OK_SELECT)
		ndrs_elog("could not judge the command");
}

Datum
ndrs_optout_sentry_end(PG_FUNCTION_ARGS)
{
	(void) event_data(fcinfo);

	/* Its beginning was not told: the command created the extension. */
	if (innermost == NULL ||
		innermost->statement != GetCurrentStatementStartTimestamp())
		PG_RETURN_NULL();

	/* An error takes the entry with it, as its transaction ends. */
	if (!innermost->command.harmless)
	{
		SPI_connect();
		judge(innermost);
		SPI_finish();
	}
	forget_innermost();
	PG_RETURN_NULL();
}
