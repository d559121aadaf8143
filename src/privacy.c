/*
 * privacy.c
 *		Keeps patients' data out of our error messages.
 *
 * An error carries more than its message.  The context callbacks in force may
 * print the whole line of a COPY, the text of a PL/pgSQL statement or the bind
 * parameters, to the client and to the server log, and the log gets the
 * statement too.  Each of these can hold an NHS number.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/copy.h"
#include "commands/copyfrom_internal.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nhs_number.h"
#include "nodes/params.h"
#include "privacy.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_raise_error);
PG_FUNCTION_INFO_V1(ndrs_optout_raise_notice);
PG_FUNCTION_INFO_V1(ndrs_optout_begin_procedure);

static emit_log_hook_type previous_emit_log = NULL;

/* When the statement began that runs one of our procedures */
static TimestampTz procedure_began = 0;

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
 * callbacks.  Dropping is safe because an ERROR never returns and the code that
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
	return quote_qualified_identifier(get_namespace_name_or_temp(get_rel_namespace(relid)), table);
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
	err_generic_string(PG_DIAG_SCHEMA_NAME, get_namespace_name_or_temp(get_rel_namespace(relid)));
	return err_generic_string(PG_DIAG_TABLE_NAME, table);
}

static bool
holds_number(const char *said)
{
	return said != NULL && nhs_number_in_text(said, strlen(said), false);
}

/* Is the statement a call of one of our procedures? */
static bool
in_procedure(void)
{
	return procedure_began != 0 && procedure_began == GetCurrentStatementStartTimestamp();
}

static char *
without_digits(const char *said)
{
	char	   *result = pstrdup(said);

	for (char *c = result; *c != '\0'; c++)
	{
		if (IS_HIGHBIT_SET(*c) || (*c >= '0' && *c <= '9'))
			*c = '#';
	}
	return result;
}

/*
 * A library that writes every statement down, such as pgaudit or auto_explain, does so for
 * the statements inside our functions, too, with parameters, which are numbers and
 * keys of patients.  What it writes while a procedure of ours runs, or a function that
 * takes numbers (and has a setting of its own for that), loses its digits, as does
 * a notice with an NHS number.  Not what the lock manager says: it tells processes.
 */
static void
hide_digits(ErrorData *edata)
{
	bool		ours = in_procedure();

	if (edata->elevel >= ERROR || (!ours && log_min_error_statement < PANIC))
		return;
	/* The setting may also be the role's, for all that it does. */
	if (!ours)
		ours = strcmp(GetConfigOptionResetString("log_min_error_statement"), "panic") != 0;
	ours = ours && edata->elevel == LOG &&
		(edata->filename == NULL || strcmp(edata->filename, "proc.c") != 0);

	if (edata->message != NULL && (ours || holds_number(edata->message)))
		edata->message = without_digits(edata->message);
	if (edata->detail != NULL && (ours || holds_number(edata->detail)))
		edata->detail = without_digits(edata->detail);
}

/*
 * The server's own errors come at any moment of a statement, also before and after
 * our functions and their settings have any say: at its parsing, at its COMMIT, in a
 * deferred trigger, at the end of the session.  So here, where every entry of the log
 * passes, what only the log gets besides the message is left out when it holds an NHS
 * number: the statement, the context with its parameters, the query inside a function,
 * and the statements of others in the report of a deadlock.  Nothing is looked up:
 * this may be called in a transaction that has failed, or none.
 */
static void
emit_log(ErrorData *edata)
{
	if (edata->output_to_server)
	{
		if (!edata->hide_stmt &&
			(in_procedure() || holds_number(debug_query_string)))
			edata->hide_stmt = true;
		hide_digits(edata);
		if (!edata->hide_ctx && holds_number(edata->context))
			edata->hide_ctx = true;
		if (holds_number(edata->internalquery))
			edata->internalquery = NULL;
		if (holds_number(edata->detail_log))
			edata->detail_log = NULL;
	}
	if (previous_emit_log)
		previous_emit_log(edata);
}

void
ndrs_privacy_init(void)
{
	previous_emit_log = emit_log_hook;
	emit_log_hook = emit_log;
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
ndrs_optout_raise_error(PG_FUNCTION_ARGS)
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
ndrs_optout_raise_notice(PG_FUNCTION_ARGS)
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
 * The statement as others may see it in pg_stat_activity, and in their own reports of
 * deadlocks and crashes: without its digits, and with its query id.  It is the caller's
 * own text, so that no session can pass for another with this.
 */
static void
report_without_digits(void)
{
	char	   *activity = without_digits(debug_query_string ? debug_query_string : "");
	uint64		query_id = pgstat_get_my_query_id();
#if PG_VERSION_NUM >= 180000
	uint64		plan_id = pgstat_get_my_plan_id();
#endif

	pgstat_report_activity(STATE_RUNNING, activity);
	pgstat_report_query_id(query_id, true);
#if PG_VERSION_NUM >= 180000
	pgstat_report_plan_id(plan_id, true);
#endif
	pfree(activity);
}

/*
 * A procedure that commits cannot do so in a transaction block or a function: says
 * so before the server says it less kindly, and with the statement in the log.  While
 * it runs, its arguments are not for others to read.  Any role may call this by
 * itself, and hides the digits of its own statement.
 */
Datum
ndrs_optout_begin_procedure(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (strcmp(name, "carry_out") != 0 && strcmp(name, "sweep") != 0 &&
		strcmp(name, "renew_statistics") != 0)
		ndrs_ereport(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there is no such procedure"));
	procedure_began = GetCurrentStatementStartTimestamp();
	if (!SPI_inside_nonatomic_context())
		ndrs_ereport(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("procedure ndrs_optout.%s cannot run in a transaction block or a function", name),
					 errhint("It commits between its steps. Call it on its own: CALL ndrs_optout.%s(...).", name));
	report_without_digits();
	PG_RETURN_VOID();
}
