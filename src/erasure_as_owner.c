/*
 * erasure_as_owner.c
 *		Searches and changes rows with the rights of their tables' owners.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "compat.h"
#include "encoding.h"
#include "erasure_as_owner.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "guard_erasure.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "parser/analyze.h"
#include "parser/parse_param.h"
#include "privacy.h"
#include "sqlstates.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_change_as_owner);
PG_FUNCTION_INFO_V1(ndrs_optout_search_as_owner);

/*
 * The walk's commands name tables and not patients, so they come again with each
 * patient, and their plans are kept for the session: the walk asks for generic plans.
 * Others do not: a command of the sweep names blocks, and does not come again.
 *
 * A plan belongs to the role with whose rights it was made.  The type of the first
 * parameter is ours: another one is another extension's, dropped and created again.
 *
 * When they take too much memory, those that were not used for longest are given up: a
 * plan that reads a thousand partitions takes megabytes.  One that is running is kept,
 * since a trigger that it fires may get here.
 */
typedef struct OwnerCommand
{
	dlist_node	node;
	MemoryContext context;		/* holds this, when it is kept */
	Oid			role;
	int			nparams;
	Oid			types[3];
	uint32		hash;			/* of the text */
	const char *text;
	SPIPlanPtr	plan;
	Size		size;			/* of the plan, as of its last run */
	int			running;
} OwnerCommand;

#define MAX_KEPT_SIZE	(32 * 1024 * 1024)

static dlist_head kept_commands = DLIST_STATIC_INIT(kept_commands); /* used last, first */
static Size kept_size = 0;

/*
 * Commands are parsed with the rights of the extension's owner, since they name
 * functions of ours (in full: the path is the same for all roles), and planned
 * and run with the role's: the planner evaluates the predicates of indexes, which
 * are whatever the owner of the table has made.
 *
 * The server parses a kept command again whenever it was told that something has
 * changed, which may be while it locks the partitions to be read.  So the rights
 * change where parsing begins and ends, and not before and after the command.
 */
static Oid	parser_role = InvalidOid;
static ParseState *parsing = NULL;	/* with the rights of parser_role */
static Oid	role_outside;		/* whose rights come back behind it */
static int	context_outside;

static post_parse_analyze_hook_type previous_hook = NULL;

static void
begin_parsing(ParseState *pstate, void *arg)
{
	OwnerCommand *command = arg;

	setup_parse_fixed_parameters(pstate, command->types, command->nparams);
	GetUserIdAndSecContext(&role_outside, &context_outside);
	SetUserIdAndSecContext(parser_role, context_outside);
	parsing = pstate;
}

static void
end_parsing(ParseState *pstate, Query *query, NDRS_JUMBLE_STATE * jstate)
{
	if (pstate == parsing)
	{
		parsing = NULL;
		SetUserIdAndSecContext(role_outside, context_outside);
	}
	if (previous_hook)
		previous_hook(pstate, query, jstate);
}

void
ndrs_erasure_as_owner_init(void)
{
	previous_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = end_parsing;
}

/*
 * A command with its plan: one that is kept, or a new one.
 */
static OwnerCommand *
find_command(Oid role, const char *text, int nparams, const Oid *types)
{
	bool		keep = plan_cache_mode == PLAN_CACHE_MODE_FORCE_GENERIC_PLAN;
	MemoryContext context = CurrentMemoryContext;
	uint32		hash = DatumGetUInt32(hash_any((const unsigned char *) text, (int) strlen(text)));
	OwnerCommand *command;
	dlist_iter	iter;

	dlist_foreach(iter, &kept_commands)
	{
		command = dlist_container(OwnerCommand, node, iter.cur);
		if (command->hash == hash && command->role == role && command->types[0] == types[0] &&
			command->nparams == nparams && strcmp(command->text, text) == 0)
		{
			dlist_move_head(&kept_commands, &command->node);
			return command;
		}
	}

	/*
	 * The server asks it for the parameters' types as long as it has the
	 * plan.
	 */
	if (keep)
		context = AllocSetContextCreate(CurrentMemoryContext, "ndrs_optout erasure command",
										ALLOCSET_SMALL_SIZES);
	command = MemoryContextAllocZero(context, sizeof(OwnerCommand));
	command->role = role;
	command->nparams = nparams;
	memcpy(command->types, types, nparams * sizeof(Oid));
	command->plan = SPI_prepare_params(text, begin_parsing, command, CURSOR_OPT_PARALLEL_OK);
	if (command->plan == NULL)
		ndrs_elog("could not prepare a command of the erasure");
	if (keep)
	{
		command->context = context;
		command->hash = hash;
		command->text = MemoryContextStrdup(context, text);
		if (SPI_keepplan(command->plan) != 0)
			ndrs_elog("could not keep a plan of the erasure");
		MemoryContextSetParent(context, TopMemoryContext);
		dlist_push_head(&kept_commands, &command->node);
	}
	return command;
}

/*
 * Count the memory of a kept command's plan, which it may have got just now, and give
 * others up for it.
 */
static void
count_size(OwnerCommand *command)
{
	dlist_node *previous;
	ListCell   *cell;

	kept_size -= command->size;
	command->size = 0;
	foreach(cell, SPI_plan_get_plan_sources(command->plan))
	{
		CachedPlanSource *source = lfirst(cell);

		command->size += MemoryContextMemAllocated(source->context, true);
		if (source->gplan != NULL)
			command->size += MemoryContextMemAllocated(source->gplan->context, true);
	}
	kept_size += command->size;

	for (dlist_node *node = dlist_tail_node(&kept_commands);
		 kept_size > MAX_KEPT_SIZE && dlist_has_prev(&kept_commands, node); node = previous)
	{
		OwnerCommand *unused = dlist_container(OwnerCommand, node, node);

		previous = dlist_prev_node(&kept_commands, node);
		if (unused->running > 0)
			continue;
		kept_size -= unused->size;
		dlist_delete(node);
		SPI_freeplan(unused->plan);
		MemoryContextDelete(unused->context);
	}
}

/*
 * What current_query() says in an erasure: audit triggers keep it with each row, and an
 * officer types a patient's number.
 */
#define QUERY_SHOWN "ndrs_optout: erasure"

/*
 * Run a command that returns one value with the rights of a role, in a
 * security-restricted operation, as the server's own maintenance commands do.
 *
 * "latest": with a snapshot of now instead of the transaction's.
 */
static Datum
run_as(Oid role, const char *text, bool latest, int nparams, const Oid *types,
	   const Datum *values, const bool *nulls, Oid result_type, bool *isnull,
	   List **relids, const char **table)
{
	MemoryContext outer = CurrentMemoryContext;
	Oid			outer_parser_role = parser_role;
	ParseState *outer_parsing = parsing;
	const char *outer_query = debug_query_string;
	Oid			saved_role;
	int			saved_context;
	int			nest_level;
	ParamListInfo params;
	SPIExecuteOptions options = {0};
	OwnerCommand *volatile command = NULL;
	volatile Datum result = (Datum) 0;

	*isnull = true;
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ndrs_elog("role with OID %u does not exist", role);

	params = makeParamList(nparams);
	for (int i = 0; i < nparams; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls != NULL && nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	options.params = params;
	options.read_only = latest;

	GetUserIdAndSecContext(&saved_role, &saved_context);
	nest_level = NewGUCNestLevel();

	/* An error brings the old role back, as the (sub)transaction ends. */
	PG_TRY();
	{
		CachedPlanSource *source;

		parser_role = saved_role;
		parsing = NULL;
		debug_query_string = QUERY_SHOWN;
		SPI_connect();
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		SetUserIdAndSecContext(role, saved_context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
		command = find_command(role, text, nparams, types);
		command->running++;

		/* For a message: when there is an error, it is too late to ask. */
		source = linitial(SPI_plan_get_plan_sources(command->plan));
		(void) CachedPlanGetTargetList(source, NULL);	/* it may be parsed */
		MemoryContextSwitchTo(outer);
		*relids = list_copy(source->relationOids);
		if (table != NULL && *relids != NIL)
			*table = ndrs_table_name(linitial_oid(*relids));
		if (latest)
			PushActiveSnapshot(GetLatestSnapshot());
		if (SPI_execute_plan_extended(command->plan, &options) < 0)
			ndrs_elog("could not run a command of the erasure");
		if (latest)
			PopActiveSnapshot();
		if (command->context != NULL)
			count_size(command);
		if (SPI_processed == 1 && SPI_tuptable != NULL)
		{
			if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) != result_type)
				ndrs_elog("unexpected result of a command of the erasure");
			result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
			if (!*isnull)
			{
				MemoryContextSwitchTo(outer);
				result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
			}
		}
	}
	PG_FINALLY();
	{
		if (command != NULL)
			command->running--;
		parser_role = outer_parser_role;
		parsing = outer_parsing;
		debug_query_string = outer_query;
	}
	PG_END_TRY();
	SPI_finish();

	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(saved_role, saved_context);
	return result;
}

/*
 * Tables for an error message, which names no more than these: there can be hundreds.
 */
#define NAMED_TABLES	5

static const char *
name_tables(List *relids)
{
	StringInfoData buf;
	ListCell   *cell;

	initStringInfo(&buf);
	foreach(cell, relids)
	{
		if (foreach_current_index(cell) == NAMED_TABLES)
			break;
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
						 ndrs_table_name(lfirst_oid(cell)));
	}
	return buf.data;
}

/*
 * Is an error of this kind about a row, or a program?  The other kinds are about the
 * moment, such as a deadlock, a cancel or a full disk.
 */
static bool
is_about_rows(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return sqlstate != ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/*
 * What may be told of why rows were not changed.  The names are those of the
 * catalogues, since a trigger can put anything into the fields of its error.
 */
static char *
describe_failure(const ErrorData *error)
{
	Oid			schema = InvalidOid;
	Oid			relid = InvalidOid;

	if (error->schema_name != NULL && error->table_name != NULL)
		schema = get_namespace_oid(error->schema_name, true);
	if (OidIsValid(schema))
		relid = get_relname_relid(error->table_name, schema);
	if (OidIsValid(relid) && error->constraint_name != NULL &&
		OidIsValid(get_relation_constraint_oid(relid, error->constraint_name, true)))
		return psprintf("Constraint \"%s\" of table %s would be violated (SQLSTATE %s).",
						error->constraint_name, ndrs_table_name(relid),
						unpack_sql_state(error->sqlerrcode));
	if (OidIsValid(relid))
		return psprintf("Table %s does not permit what would become of its row (SQLSTATE %s).",
						ndrs_table_name(relid), unpack_sql_state(error->sqlerrcode));
	if (error->sqlerrcode == ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION)
		return pstrdup("A trigger changes a row that is being deleted.");
	return psprintf("The server, or a function of the tables' owners, raised SQLSTATE %s. The message is not shown, since it may tell what is in a row.",
					unpack_sql_state(error->sqlerrcode));
}

/*
 * Change rows with the rights of their table's owner: triggers run as their
 * owner then, and not as the owner of the extension, who is a superuser as a
 * rule.  The parameter of the command is where the rows are; returns counts, or nothing.
 * Guards let its changes of the tables given pass (guard_erasure.c).
 *
 * What goes wrong here is told by the server or by a trigger, in words that can hold
 * a row.  So their words end here, message, detail, context and all.  The catalogues
 * are asked after the subtransaction, when nothing is held any more.
 */
Datum
ndrs_optout_change_as_owner(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);
	char	   *command = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Oid			types[] = {TEXTARRAYOID};
	Datum		values[] = {PG_GETARG_DATUM(2)};
	ArrayType  *tables = PG_GETARG_ARRAYTYPE_P(3);
	ErasedTables erased = {true, (const Oid *) ARR_DATA_PTR(tables),
	ArrayGetNItems(ARR_NDIM(tables), ARR_DIMS(tables))};
	ErasedTables erased_outside;
	MemoryContext outer = CurrentMemoryContext;
	ResourceOwner outer_owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	List	   *relids = NIL;
	bool		isnull = true;
	volatile Datum result = (Datum) 0;

	if (array_contains_nulls(tables))
		ndrs_elog("unexpected null among the tables of an erasure");

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(outer);
	erased_outside = ndrs_guard_let_pass(erased);
	PG_TRY();
	{
		result = run_as(role, command, false, 1, types, values, NULL, INT8ARRAYOID, &isnull,
						&relids, NULL);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		/* First of all, or it would pass for the rest of the session */
		(void) ndrs_guard_let_pass(erased_outside);
		MemoryContextSwitchTo(outer);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(outer);
	CurrentResourceOwner = outer_owner;
	if (error == NULL)
		(void) ndrs_guard_let_pass(erased_outside);

	if (error != NULL)
		ndrs_ereport(errcode(is_about_rows(error->sqlerrcode) ? ERRCODE_NDRS_ROWS_REMAIN :
							 error->sqlerrcode),
					 relids == NIL ? errmsg("the erasure could not change rows") :
					 list_length(relids) <= NAMED_TABLES ?
					 errmsg("the erasure could not change rows of %s", name_tables(relids)) :
					 errmsg("the erasure could not change rows of %s and %d others",
							name_tables(relids), list_length(relids) - NAMED_TABLES),
					 errdetail_internal("%s", describe_failure(error)),
					 is_about_rows(error->sqlerrcode) ?
					 errhint("Look for triggers and constraints that keep or change rows, for references that the deletion does not follow, and for tables of different owners that refer to each other.") : 0);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

/* What the command that is running asks with */
static bytea *token = NULL;

/*
 * Look for rows with the rights of a role: a role with a foreign key to a table
 * of the walk has a table in it, and what that role has made (an index's
 * predicate, a cast) runs when the search is planned or run.  The parameters
 * are the patients and the keys, and for a command that asks about numbers the
 * token ($3) that guard_finds() wants; returns texts, or nothing.
 *
 * An error ends in our words, as above, but keeps its SQLSTATE.
 */
Datum
ndrs_optout_search_as_owner(PG_FUNCTION_ARGS)
{
	Oid			types[] = {get_fn_expr_argtype(fcinfo->flinfo, 2), TEXTARRAYOID, BYTEAOID};
	Datum		values[3];
	bool		nulls[3];
	bytea	   *outer_token = token;
	char	   *command;
	MemoryContext outer = CurrentMemoryContext;
	List	   *relids = NIL;
	const char *table = NULL;
	bool		isnull = true;
	volatile Datum result = (Datum) 0;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	command = text_to_cstring(PG_GETARG_TEXT_PP(1));
	for (int i = 0; i < 2; i++)
	{
		values[i] = PG_ARGISNULL(2 + i) ? (Datum) 0 : PG_GETARG_DATUM(2 + i);
		nulls[i] = PG_ARGISNULL(2 + i);
	}
	PG_TRY();
	{
		token = strstr(command, "$3") != NULL ? ndrs_begin_token() : NULL;
		if (token == NULL)
			ndrs_restore_token(NULL);
		values[2] = PointerGetDatum(token);
		nulls[2] = token == NULL;
		result = run_as(PG_GETARG_OID(0), command, PG_NARGS() > 4 && PG_GETARG_BOOL(4),
						3, types, values, nulls, TEXTARRAYOID, &isnull, &relids, &table);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		token = outer_token;
		ndrs_restore_token(token);
		MemoryContextSwitchTo(outer);
		/* The server could not parse it: no function of an owner has run. */
		if (table == NULL)
			PG_RE_THROW();
		error = CopyErrorData();
		FlushErrorState();
		ndrs_ereport(errcode(error->sqlerrcode),
					 errmsg("the erasure could not search table %s", table),
					 errdetail("SQLSTATE %s. The message is not shown, since it may tell what is in a row.",
							   unpack_sql_state(error->sqlerrcode)),
					 error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ?
					 errhint("Tables are searched with the rights of their owners. Look for a row security policy that counts for the owner, and for rights that the owner lacks.") : 0);
	}
	PG_END_TRY();
	token = outer_token;
	ndrs_restore_token(token);

	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}
