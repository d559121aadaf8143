/*
 * erasure_cache.c
 *		What the catalogues say to the erasure, which a session asks them once.
 */
#include "postgres.h"

#include "catalog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "privacy.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_erasure_base_type);
PG_FUNCTION_INFO_V1(ndrs_optout_erasure_known);

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
		ndrs_elog("unexpected answer to a question of the erasure");
	answer = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		ndrs_elog("no answer to a question of the erasure");
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
