/*
 * sentry.c
 *		What the event triggers of sentry.sql need C for: to know which tables a
 *		command has changed, and to look at what guarded them before.
 *
 * The tables are those of which the server has told this backend, in its messages on
 * relations, between the command's start and its end, and that the transaction has
 * locked so that no other session can have changed them.  So it matters neither by which name
 * a command reaches a table, nor through which others; and a command that changes
 * none costs nothing.
 *
 * What was before is read at the end, from the same catalogues: with a snapshot of now
 * that leaves out what this transaction has done since the command's start.  What other
 * sessions did while the command waited for its locks belongs to "before".  The
 * transaction's own snapshot would do for neither: a command at REPEATABLE READ would
 * be judged by guards, and by rows, as they were when that began.
 *
 * Commands nest (a function that a command calls may run another one), so what
 * is remembered is a stack.  A command that fails takes its (sub)transaction with
 * it, and with that its entry.  One that commits in the middle (DETACH PARTITION
 * CONCURRENTLY) is judged before that, too.  One whose end is never told, because it
 * dropped the extension, leaves an entry behind, which the next statement of the client
 * throws away.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "compat_lock.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "privacy.h"
#include "sentry.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(ndrs_optout_sentry_start);
PG_FUNCTION_INFO_V1(ndrs_optout_sentry_end);
PG_FUNCTION_INFO_V1(ndrs_optout_sentry_holds_rows);

typedef struct SentryCommand
{
	TimestampTz statement;		/* of the client */
	int			nest_level;		/* subtransaction in which the command runs */
	CommandId	start;			/* what was done before has lower numbers */
	int			first_told;		/* in told */
	ArrayType  *retyped;		/* names of columns that it computes anew */
	bool		committed;		/* its first half, with all that came before */
	struct SentryCommand *outer;
} SentryCommand;

/* Read by sentry_weakening(), too */
bool		ndrs_allow_unguarded = false;

static SentryCommand *innermost = NULL;

/*
 * Relations that messages have named since the outermost command's start.  A message can
 * come at any moment, so an error must not be thrown for want of memory; it waits
 * for the judgement.
 */
static Oid *told = NULL;
static int	ntold = 0;
static int	max_told = 0;
static bool told_lost = false;

/*
 * To be looked at when the transaction ends: what was detached, as arrays of sentry_part,
 * and the tables that commands have changed or dropped, at which the erasure's walk may have lost
 * an edge; and those of them that a superuser has allowed it at.  A savepoint that is rolled
 * back leaves its own here, at which nothing is found.
 */
static MemoryContext at_commit_context = NULL;
static List *detached = NIL;
static List *touched = NIL;
static List *allowed = NIL;

static object_access_hook_type previous_object_access = NULL;

static void before_commit(void);

/*
 * Called for each message on a relation (catalog.c).  The backend is told of its own changes one
 * by one; a message on all of them, InvalidOid, stands for those of other sessions.  Nor
 * does what is told when a transaction ends, or is rolled back, belong to a command.
 */
static void
relation_changed(Oid relid)
{
	if (innermost == NULL || !OidIsValid(relid) || !IsTransactionState() ||
		(ntold > 0 && told[ntold - 1] == relid))
		return;
	if (ntold == max_told)
	{
		int			larger = Max(256, 2 * max_told);
		Oid		   *copy = MemoryContextAllocExtended(TopMemoryContext, larger * sizeof(Oid),
													  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);

		if (copy == NULL)
		{
			told_lost = true;
			return;
		}
		if (told != NULL)
		{
			memcpy(copy, told, ntold * sizeof(Oid));
			pfree(told);
		}
		told = copy;
		max_told = larger;
	}
	told[ntold++] = relid;
}

static void
forget_told(void)
{
	if (told != NULL)
		pfree(told);
	told = NULL;
	ntold = max_told = 0;
	told_lost = false;
}

static void
forget_innermost(void)
{
	SentryCommand *command = innermost;

	innermost = command->outer;
	if (innermost == NULL)
		forget_told();
	if (command->retyped != NULL)
		pfree(command->retyped);
	pfree(command);
}

static void
forget_at_commit(void)
{
	detached = NIL;
	touched = NIL;
	allowed = NIL;
	if (at_commit_context != NULL)
		MemoryContextReset(at_commit_context);
}

static MemoryContext
to_be_kept_until_commit(void)
{
	if (at_commit_context == NULL)
		at_commit_context = AllocSetContextCreate(TopMemoryContext, "ndrs_optout sentry",
												  ALLOCSET_SMALL_SIZES);
	return MemoryContextSwitchTo(at_commit_context);
}

static void
sentry_transaction_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			before_commit();
			break;
		case XACT_EVENT_COMMIT:

			/* In the next transaction, all that the command does is new. */
			for (SentryCommand *c = innermost; c != NULL; c = c->outer)
			{
				c->start = FirstCommandId;
				c->first_told = 0;
				c->committed = true;
			}
			forget_told();
			if (innermost == NULL)
				forget_at_commit();
			else
			{
				list_free(touched);
				list_free(allowed);
				touched = NIL;
				allowed = NIL;
			}
			break;
		case XACT_EVENT_ABORT:
			while (innermost != NULL)
				forget_innermost();
			forget_at_commit();
			break;
		case XACT_EVENT_PREPARE:
			forget_at_commit();
			break;
		default:
			break;
	}
}

static void
sentry_subtransaction_callback(SubXactEvent event, SubTransactionId my_subid,
							   SubTransactionId parent_subid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (innermost != NULL &&
			   innermost->nest_level >= GetCurrentTransactionNestLevel())
			forget_innermost();
	}
}

/*
 * The extension goes with what it depends on, such as pgcrypto, its schema or a language,
 * which may belong to the owner of the database; and no event trigger of ours sees
 * that, since they are gone by then.
 */
static void
object_access(ObjectAccessType access, Oid classid, Oid objid, int subid, void *arg)
{
	if (access == OAT_DROP && classid == ExtensionRelationId && !superuser() &&
		objid == get_extension_oid(NDRS_SCHEMA, true))
		ndrs_ereport(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("only a superuser can drop extension \"%s\"", NDRS_SCHEMA),
					 errdetail("The exclusion list, the cases, the audit and all guards would be lost."),
					 errhint("Leave what the extension depends on, and the schema that holds it."));
	if (previous_object_access)
		previous_object_access(access, classid, objid, subid, arg);
}

void
ndrs_sentry_init(void)
{
	previous_object_access = object_access_hook;
	object_access_hook = object_access;
	ndrs_relation_hook = relation_changed;
	RegisterXactCallback(sentry_transaction_callback, NULL);
	RegisterSubXactCallback(sentry_subtransaction_callback, NULL);
}

static EventTriggerData *
event_data(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ndrs_ereport(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("the sentry must be called by an event trigger"));
	return (EventTriggerData *) fcinfo->context;
}

/*
 * A script of this extension changes what the sentry judges with.  What it leaves is
 * for guard_coverage().
 */
static bool
in_own_script(void)
{
	return creating_extension &&
		CurrentExtensionObject == get_extension_oid(NDRS_SCHEMA, true);
}

/* --------------------------------------------------------------- the start */

/*
 * Say what a table that is about to be attached lacks, in place of the server.  Only
 * for that are names of tables looked up, and nothing rests on it.
 */
static void
look_at_attach(RangeVar *parent, RangeVar *child)
{
	Oid			relids[2] = {RangeVarGetRelid(parent, NoLock, true),
	RangeVarGetRelid(child, NoLock, true)};
	Oid			types[] = {REGCLASSOID, REGCLASSOID};
	Oid			procid = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
										 CStringGetDatum("sentry_attach"),
										 PointerGetDatum(buildoidvector(types, 2)),
										 ObjectIdGetDatum(get_namespace_oid(NDRS_SCHEMA, true)));

	if (OidIsValid(relids[0]) && OidIsValid(relids[1]) && OidIsValid(procid))
		OidFunctionCall2(procid, ObjectIdGetDatum(relids[0]), ObjectIdGetDatum(relids[1]));
}

static ArrayType *
read_alter_table(AlterTableStmt *stmt)
{
	ArrayBuildState *retyped = initArrayResult(NAMEOID, CurrentMemoryContext, false);
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *action = lfirst_node(AlterTableCmd, lc);

		if (ndrs_computes_column(action->subtype))
			retyped = accumArrayResult(retyped,
									   DirectFunctionCall1(namein, CStringGetDatum(action->name)),
									   false, NAMEOID, CurrentMemoryContext);
		switch (action->subtype)
		{
			case AT_AttachPartition:
				look_at_attach(stmt->relation, castNode(PartitionCmd, action->def)->name);
				break;
			case AT_AddInherit:
				look_at_attach(castNode(RangeVar, action->def), stmt->relation);
				break;
			default:
				break;
		}
	}
	return DatumGetArrayTypeP(makeArrayResult(retyped, TopMemoryContext));
}

Datum
ndrs_optout_sentry_start(PG_FUNCTION_ARGS)
{
	Node	   *parsetree = event_data(fcinfo)->parsetree;
	TimestampTz statement = GetCurrentStatementStartTimestamp();
	ArrayType  *retyped = NULL;
	SentryCommand *command;

	while (innermost != NULL && innermost->statement != statement)
		forget_innermost();
	if (in_own_script())
		PG_RETURN_NULL();

	if (IsA(parsetree, AlterTableStmt))
		retyped = read_alter_table((AlterTableStmt *) parsetree);
	command = MemoryContextAllocZero(TopMemoryContext, sizeof(SentryCommand));
	command->retyped = retyped;
	command->statement = statement;
	command->nest_level = GetCurrentTransactionNestLevel();
	command->start = GetCurrentCommandId(false);
	command->first_told = ntold;
	command->outer = innermost;
	innermost = command;
	PG_RETURN_NULL();
}

/* ------------------------------------------------------------- the judgement */

/* Of the functions that judge */
#define MAX_ARGUMENTS	4

/*
 * The arguments are arrays, or of other types by reference: one that is not there is
 * a null pointer.
 */
static void
mark_null_arguments(int nargs, const Datum *values, char *nulls)
{
	for (int i = 0; i < nargs; i++)
		nulls[i] = DatumGetPointer(values[i]) == NULL ? 'n' : ' ';
}

/*
 * Run a query for one value, with a snapshot of now, or as if this transaction had done
 * nothing since a command's start.  SPI is connected.
 */
static Datum
ask(const char *query, const SentryCommand *before, int nargs, Oid *types, Datum *values, bool *isnull)
{
	char		nulls[MAX_ARGUMENTS];

	mark_null_arguments(nargs, values, nulls);
	PushCopiedSnapshot(GetLatestSnapshot());
	if (before != NULL)
		GetActiveSnapshot()->curcid = before->start;
	if (SPI_execute_with_args(query, nargs, types, values, nulls, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		ndrs_elog("could not look at the guards");
	PopActiveSnapshot();
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
}

/*
 * The same for a value that cannot be null.
 */
static Datum
ask_strictly(const char *query, const SentryCommand *before, int nargs, Oid *types, Datum *values)
{
	bool		isnull;
	Datum		answer = ask(query, before, nargs, types, values, &isnull);

	if (isnull)
		ndrs_elog("unexpected null in what is known of guards");
	return answer;
}

/*
 * Run a function that may refuse, or write.
 */
static void
judge_by(const char *query, int nargs, Oid *types, Datum *values)
{
	char		nulls[MAX_ARGUMENTS];

	mark_null_arguments(nargs, values, nulls);
	if (SPI_execute_with_args(query, nargs, types, values, nulls, false, 0) != SPI_OK_SELECT)
		ndrs_elog("could not judge the command");
}

/*
 * The tables that a command has changed, as an array of oid, or NULL.  These, and those
 * that it has dropped, are remembered for the end of the transaction.
 */
static ArrayType *
changed_tables(const SentryCommand *command)
{
	List	   *tables = NIL;
	ArrayBuildState *changed = NULL;
	ListCell   *lc;

	if (told_lost)
		ndrs_ereport(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"));
	for (int i = command->first_told; i < ntold; i++)
		tables = lappend_oid(tables, told[i]);
	list_sort(tables, list_oid_cmp);
	list_deduplicate_oid(tables);
	foreach(lc, tables)
	{
		Oid			relid = lfirst_oid(lc);
		char		relkind;

		if (!ndrs_keeps_others_from_changing(relid))
			continue;
		relkind = get_rel_relkind(relid);
		if (relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE ||
			relkind == RELKIND_FOREIGN_TABLE || relkind == '\0')
		{
			MemoryContext outer = to_be_kept_until_commit();

			touched = lappend_oid(touched, relid);
			if (ndrs_allow_unguarded)
				allowed = lappend_oid(allowed, relid);
			MemoryContextSwitchTo(outer);
		}
		if (relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE ||
			relkind == RELKIND_FOREIGN_TABLE || relkind == RELKIND_VIEW)
			changed = accumArrayResult(changed, ObjectIdGetDatum(relid), false,
									   OIDOID, CurrentMemoryContext);
	}
	return changed == NULL ? NULL :
		DatumGetArrayTypeP(makeArrayResult(changed, CurrentMemoryContext));
}

static bool
is_concerned(const SentryCommand *before, Datum *changed)
{
	Oid			types[] = {OIDARRAYOID};

	return DatumGetBool(ask_strictly("SELECT ndrs_optout.sentry_concerned($1)", before, 1, types, changed));
}

/*
 * What was detached may yet be dropped, or guarded.  For what a superuser allows there is
 * nothing to wait for.
 */
static void
judge_detached(Datum parts, Oid part_array)
{
	if (ndrs_allow_unguarded)
		judge_by("SELECT ndrs_optout.sentry_settle($1, true)", 1, &part_array, &parts);
	else
	{
		MemoryContext outer = to_be_kept_until_commit();

		detached = lappend(detached, PG_DETOAST_DATUM_COPY(parts));
		MemoryContextSwitchTo(outer);
	}
}

/*
 * Judge a command by what was before and what is now.  SPI is connected.
 */
static void
judge(const SentryCommand *command)
{
	ArrayType  *changed = changed_tables(command);
	Oid			link_types[] = {TEXTARRAYOID, TEXTARRAYOID};
	Oid			relation_types[] = {OIDARRAYOID, OIDARRAYOID};
	Oid			part_array;
	Oid			part_types[] = {InvalidOid, InvalidOid, NAMEARRAYOID};
	Datum		relations[2];
	Datum		links[2];
	Datum		parts[3];
	Datum		verdict;
	bool		isnull;

	if (changed == NULL)
		return;
	relations[0] = PointerGetDatum(changed);
	if (!is_concerned(NULL, relations) && !is_concerned(command, relations))
		return;

	links[0] = ask_strictly("SELECT ndrs_optout.sentry_links($1)", command, 1, relation_types, relations);
	links[1] = ask_strictly("SELECT ndrs_optout.sentry_links($1)", NULL, 1, relation_types, relations);
	relations[1] = ask_strictly("SELECT ndrs_optout.sentry_moved($1, $2)", NULL, 2, link_types, links);
	parts[0] = ask_strictly("SELECT ndrs_optout.sentry_parts($1, $2)", command, 2, relation_types, relations);
	parts[1] = ask_strictly("SELECT ndrs_optout.sentry_parts($1, $2)", NULL, 2, relation_types, relations);

	/* Most commands leave everything as it was. */
	if (datumIsEqual(parts[0], parts[1], false, -1))
		return;
	parts[2] = PointerGetDatum(command->retyped);

	part_array = ndrs_type("_sentry_part");
	part_types[0] = part_types[1] = part_array;
	verdict = ask("SELECT ndrs_optout.sentry_losses($1, $2, $3)", NULL, 3, part_types, parts, &isnull);
	if (!isnull)
		judge_by("SELECT ndrs_optout.sentry_judge($1)", 1, link_types, &verdict);
	judge_by("SELECT ndrs_optout.sentry_search($1, $2, $3)", 3, part_types, parts);
	verdict = ask("SELECT ndrs_optout.sentry_detached($1, $2)", NULL, 2, part_types, parts, &isnull);
	if (!isnull)
		judge_detached(verdict, part_array);
}

/*
 * Look at what was detached.
 */
static void
settle_detached(bool refusing)
{
	Oid			types[] = {ndrs_type("_sentry_part")};
	ListCell   *lc;

	foreach(lc, detached)
	{
		Datum		values[] = {PointerGetDatum(lfirst(lc))};

		judge_by(refusing ? "SELECT ndrs_optout.sentry_settle($1, true)" :
				 "SELECT ndrs_optout.sentry_settle($1, false)", 1, types, values);
	}
}

static Datum
oid_array(List *oids)
{
	ArrayBuildState *array = initArrayResult(OIDOID, CurrentMemoryContext, false);
	ListCell   *lc;

	list_sort(oids, list_oid_cmp);
	list_deduplicate_oid(oids);
	foreach(lc, oids)
		array = accumArrayResult(array, ObjectIdGetDatum(lfirst_oid(lc)), false, OIDOID,
								 CurrentMemoryContext);
	return makeArrayResult(array, CurrentMemoryContext);
}

/*
 * Look at the edges of the erasure's walk that begin or end at the tables that were changed
 * or dropped.  SPI is connected.
 */
static void
settle_walk(bool refusing)
{
	SentryCommand transaction = {.start = FirstCommandId};
	Oid			types[] = {OIDARRAYOID, UUIDARRAYOID, TEXTARRAYOID, OIDARRAYOID};
	Datum		values[4];

	if (touched == NIL)
		return;
	values[0] = oid_array(touched);

	/* A child that inherits no more touches it no more. */
	if (!DatumGetBool(ask_strictly("SELECT ndrs_optout.sentry_touches_walk($1)", NULL, 1, types, values)) &&
		!DatumGetBool(ask_strictly("SELECT ndrs_optout.sentry_touches_walk($1)", &transaction, 1, types, values)))
		return;
	values[1] = ask_strictly("SELECT ndrs_optout.sentry_lost($1)", &transaction, 1, types, values);
	values[2] = ask_strictly("SELECT ndrs_optout.sentry_links($1, true)", &transaction, 1, types, values);
	values[3] = refusing ? oid_array(allowed) : values[0];
	judge_by("SELECT ndrs_optout.sentry_settle_walk($1, $2, $3, $4)", 4, types, values);
}

/*
 * Before a transaction commits: the last moment to refuse.  A command that is not at its end
 * commits its first half.
 */
static void
before_commit(void)
{
	Oid			user;
	int			context;

	if ((innermost == NULL && detached == NIL && touched == NIL) ||
		!OidIsValid(ndrs_relation("guard", true)))
		return;
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(ndrs_extension_owner(), context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (innermost != NULL)
		judge(innermost);
	settle_detached(true);
	settle_walk(true);
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	PopActiveSnapshot();
}

Datum
ndrs_optout_sentry_end(PG_FUNCTION_ARGS)
{
	(void) event_data(fcinfo);

	/* Its beginning was not told: the command created the extension. */
	if (in_own_script() || innermost == NULL ||
		innermost->statement != GetCurrentStatementStartTimestamp())
		PG_RETURN_NULL();

	/* An error takes the entry with it, as its transaction ends. */
	SPI_connect();
	judge(innermost);
	if (innermost->committed)
	{
		/* A row came in between the halves; that one was detached stands. */
		settle_detached(false);
		settle_walk(false);
		forget_at_commit();
	}
	SPI_finish();
	forget_innermost();
	PG_RETURN_NULL();
}

/*
 * Does a table hold a row that a transaction sees, or may see?  That there is none
 * is all that is asked, so this looks at rows of transactions that are running as
 * well.
 */
Datum
ndrs_optout_sentry_holds_rows(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	bool		found = rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE;

	if (rel->rd_rel->relkind == RELKIND_RELATION)
	{
		SnapshotData dirty;
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		TableScanDesc scan;

		InitDirtySnapshot(dirty);
		scan = table_beginscan_strat(rel, &dirty, 0, NULL, true, true);
		found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	relation_close(rel, NoLock);
	PG_RETURN_BOOL(found);
}
