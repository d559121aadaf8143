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

/*
 * To be called inside ereport(ERROR): hides the statement and drops every
 * context callback.  Dropping is safe because an ERROR never returns and
 * whoever catches it puts the stack back (PG_TRY and the main loop alike);
 * for the same reason this must not be used below ERROR.
 *
 * A loader still needs to find the row, so a COPY's line number is told.
 */
int
ndrs_errhidevalues(void)
{
	ErrorContextCallback *stack = error_context_stack;

	errhidestmt(true);
	error_context_stack = NULL;

	for (; stack != NULL; stack = stack->previous)
	{
		if (stack->callback == CopyFromErrorCallback)
		{
			CopyFromState cstate = (CopyFromState) stack->arg;

			errcontext("COPY %s, line %llu", cstate->cur_relname,
					   (unsigned long long) cstate->cur_lineno);
		}
	}
	return 0;
}
