/*
 * privacy.c
 *		Keeps patients' data out of our error messages.
 *
 * An error carries more than its message.  The context callbacks in force may
 * print the whole line of a COPY, the text of a PL/pgSQL statement or the bind
 * parameters, to the client and to the server log, and the log gets the
 * statement too.  Each of these can hold an NHS number.
 */
#include "ndrs_optout.h"

#include "commands/copy.h"
#include "commands/copyfrom_internal.h"
#include "compat.h"
#include "fmgr.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_refuse);
PG_FUNCTION_INFO_V1(ndrs_optout_tell);
PG_FUNCTION_INFO_V1(ndrs_optout_lock_quietly);

static void hiding_callback(void *arg);

/* The callback behind this one, also where one of ours stands before it */
static ErrorContextCallback *
behind(ErrorContextCallback *c)
{
	return c->callback == hiding_callback ? c->arg : c->previous;
}

/*
 * What may be told of the context: a COPY's line number, which people need and
 * which holds no value.
 */
static void
tell_lines(ErrorContextCallback *stack)
{
	for (ErrorContextCallback *c = stack; c != NULL; c = behind(c))
	{
		if (c->callback == CopyFromErrorCallback)
		{
			CopyFromState cstate = (CopyFromState) c->arg;

			errcontext("COPY %s, line %llu", cstate->cur_relname,
					   (unsigned long long) cstate->cur_lineno);
		}
	}
}

/*
 * A replication worker's own outermost callback tells the LSN that ALTER
 * SUBSCRIPTION ... SKIP asks for, and no values.
 */
static ErrorContextCallback *
harmless_callback(ErrorContextCallback *stack)
{
	if (stack == NULL || !IsLogicalWorker())
		return NULL;
	while (behind(stack) != NULL)
		stack = behind(stack);
	return stack->callback == CopyFromErrorCallback ? NULL : stack;
}

/*
 * To be called inside ereport(ERROR): hides the statement and drops the context
 * callbacks.  Dropping is safe because an ERROR never returns and whoever
 * catches it puts the stack back (PG_TRY and the main loop alike); for the same
 * reason this must not be used below ERROR.
 */
int
ndrs_errhidevalues(void)
{
	errhidestmt(true);
	tell_lines(error_context_stack);
	error_context_stack = harmless_callback(error_context_stack);
	return 0;
}

static void
hiding_callback(void *arg)
{
	errhidestmt(true);
	tell_lines((ErrorContextCallback *) arg);
}

/*
 * The same for whatever the server itself says in a while, such as that a lock was
 * not to be had: in place of the callbacks there is one of ours until the end is
 * told, or an error puts the stack back.
 */
void
ndrs_begin_hiding(ErrorContextCallback *hider)
{
	hider->callback = hiding_callback;
	hider->arg = error_context_stack;
	hider->previous = harmless_callback(error_context_stack);
	error_context_stack = hider;
}

void
ndrs_end_hiding(ErrorContextCallback *hider)
{
	error_context_stack = hider->arg;
}

/*
 * The same in an input function: an error that is saved for the caller instead
 * of thrown has no context, and the stack must stay.
 */
int
ndrs_errhidevalues_unless_soft(Node *escontext)
{
	return ndrs_soft_error_wanted(escontext) ? 0 : ndrs_errhidevalues();
}

/*
 * A table as messages name it: with its schema.
 */
const char *
ndrs_table_name(Oid relid)
{
	char	   *table = get_rel_name(relid);

	if (table == NULL)
		return psprintf("with OID %u", relid);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), table);
}

/*
 * The fields SCHEMA NAME and TABLE NAME of an error, as errtable() sets them, for a
 * table that is not open.
 */
int
ndrs_errtable(Oid relid)
{
	char	   *table = get_rel_name(relid);

	if (table == NULL)
		return 0;
	err_generic_string(PG_DIAG_SCHEMA_NAME, get_namespace_name(get_rel_namespace(relid)));
	return err_generic_string(PG_DIAG_TABLE_NAME, table);
}

static char *
text_argument(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

/*
 * An error from one of our SQL functions.  RAISE would leave the caller's
 * statement, and the numbers in it, in the server log.
 */
Datum
ndrs_optout_refuse(PG_FUNCTION_ARGS)
{
	char	   *sqlstate = text_argument(fcinfo, 0);
	char	   *message = text_argument(fcinfo, 1);
	char	   *detail = text_argument(fcinfo, 2);
	char	   *hint = text_argument(fcinfo, 3);

	if (sqlstate == NULL || strlen(sqlstate) != 5 ||
		strncmp(sqlstate, "00", 2) == 0 || message == NULL)
		ndrs_elog("an error needs an SQLSTATE and a message");

	ndrs_ereport(errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
									   sqlstate[3], sqlstate[4])),
				 errmsg_internal("%s", message),
				 detail ? errdetail_internal("%s", detail) : 0,
				 hint ? errhint("%s", hint) : 0);
	PG_RETURN_VOID();			/* keep compiler quiet */
}

/*
 * A notice or warning from one of our SQL functions, for the same reason.  The
 * context callbacks stay, for the caller goes on; the log does without what
 * they say.
 */
Datum
ndrs_optout_tell(PG_FUNCTION_ARGS)
{
	bool		warning = PG_GETARG_BOOL(0);
	char	   *message = text_argument(fcinfo, 1);
	char	   *hint = text_argument(fcinfo, 2);

	ereport(warning ? WARNING : NOTICE,
			(errcode(warning ? ERRCODE_WARNING : ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg_internal("%s", message ? message : ""),
			 hint ? errhint("%s", hint) : 0,
			 errhidestmt(true),
			 errhidecontext(true)));
	PG_RETURN_VOID();
}

/*
 * LOCK TABLE for whoever may be waiting, and give up, at the COMMIT of a procedure:
 * that undoes the settings of functions before it reports the error.
 */
Datum
ndrs_optout_lock_quietly(PG_FUNCTION_ARGS)
{
	ErrorContextCallback hider;

	ndrs_begin_hiding(&hider);
	LockRelationOid(PG_GETARG_OID(0), ShareRowExclusiveLock);
	ndrs_end_hiding(&hider);
	PG_RETURN_VOID();
}
