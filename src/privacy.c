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
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(ndrs_optout_refuse);
PG_FUNCTION_INFO_V1(ndrs_optout_tell);

/*
 * To be called inside ereport(ERROR): hides the statement and drops the context
 * callbacks.  Dropping is safe because an ERROR never returns and whoever
 * catches it puts the stack back (PG_TRY and the main loop alike); for the same
 * reason this must not be used below ERROR.
 *
 * Two things are still told, because people need them and they hold no values:
 * a COPY's line number, and a replication worker's own outermost context, with
 * the LSN that ALTER SUBSCRIPTION ... SKIP asks for.
 */
int
ndrs_errhidevalues(void)
{
	ErrorContextCallback *outermost = NULL;

	errhidestmt(true);

	for (ErrorContextCallback *c = error_context_stack; c != NULL; c = c->previous)
	{
		if (c->callback == CopyFromErrorCallback)
		{
			CopyFromState cstate = (CopyFromState) c->arg;

			errcontext("COPY %s, line %llu", cstate->cur_relname,
					   (unsigned long long) cstate->cur_lineno);
		}
		else if (c->previous == NULL && IsLogicalWorker())
			outermost = c;
	}
	error_context_stack = outermost;
	return 0;
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
		elog(ERROR, "an error needs an SQLSTATE and a message");

	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
								   sqlstate[3], sqlstate[4])),
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 ndrs_errhidevalues()));
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
