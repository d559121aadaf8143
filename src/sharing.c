/*
 * sharing.c
 *		May a patient's data be shared for a purpose?  Asked once per row.
 *
 * What the other arguments come to (ShareTerms) is worked out at a call's first row
 * and kept for one generation (catalog.c), which a change of a purpose, an exemption,
 * a check or the exclusion list ends, and for the time in which no exemption begins
 * or ends.  "Now" is when the statement began, so that nothing expires in the middle
 * of one; but what is committed in between counts from the next call on, as an
 * exclusion does.  What makes all this trustworthy is said at the head of
 * exclusion_list.c: it is read, and looked at, as the list is.
 *
 * The first of these that holds is the decision:
 *
 *	1. the purpose is not permitted;
 *	2. there is no number that could be looked up: it is missing, unreadable, or a
 *	   placeholder;
 *	3. the patient is excluded from one of the registers;
 *	4. where the national opt-out applies and no exemption is in force: the latest
 *	   check that asked about the patient has expired, or says that the patient has
 *	   opted out, or there is none;
 *	5. eligible.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "encoding.h"
#include "exclusion_list.h"
#include "fmgr.h"
#include "national_check.h"
#include "nodes/primnodes.h"
#include "nodes/supportnodes.h"
#include "privacy.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(ndrs_optout_share_eligible);
PG_FUNCTION_INFO_V1(ndrs_optout_share_eligible_text);
PG_FUNCTION_INFO_V1(ndrs_optout_share_eligible_bigint);
PG_FUNCTION_INFO_V1(ndrs_optout_share_eligible_encoded);
PG_FUNCTION_INFO_V1(ndrs_optout_share_decision);
PG_FUNCTION_INFO_V1(ndrs_optout_share_decision_text);
PG_FUNCTION_INFO_V1(ndrs_optout_share_decision_bigint);
PG_FUNCTION_INFO_V1(ndrs_optout_share_decision_encoded);
PG_FUNCTION_INFO_V1(ndrs_optout_sharing_support);

/* Columns of table purpose */
#define ANUM_PURPOSE_CODE			1
#define ANUM_PURPOSE_PERMITTED		2
#define ANUM_PURPOSE_OPTOUT_APPLIES	3

/* Columns of table exemption */
#define ANUM_EXEMPTION_RECIPIENT	2
#define ANUM_EXEMPTION_PURPOSE		3
#define ANUM_EXEMPTION_VALID_FROM	4
#define ANUM_EXEMPTION_VALID_TO		5
#define ANUM_EXEMPTION_ENDED_AT		6

static const NdrsColumn purpose_columns[] = {
	{ANUM_PURPOSE_CODE, "code", "text", true},
	{ANUM_PURPOSE_PERMITTED, "permitted", "bool", true},
	{ANUM_PURPOSE_OPTOUT_APPLIES, "national_optout_applies", "bool", true}
};

static const NdrsColumn exemption_columns[] = {
	{ANUM_EXEMPTION_RECIPIENT, "recipient", "text", true},
	{ANUM_EXEMPTION_PURPOSE, "purpose", "text", true},
	{ANUM_EXEMPTION_VALID_FROM, "valid_from", "date", true},
	{ANUM_EXEMPTION_VALID_TO, "valid_to", "date", false},
	{ANUM_EXEMPTION_ENDED_AT, "ended_at", "timestamptz", false}
};

/* Arguments of the functions */
#define ARG_NUMBER		0
#define ARG_PURPOSE		1
#define ARG_REGISTERS	2
#define ARG_RECIPIENT	3
#define NARGS			4

typedef enum ShareDecision
{
	SHARE_ELIGIBLE,
	SHARE_NOT_PERMITTED,
	SHARE_MISSING,
	SHARE_UNREADABLE,
	SHARE_PLACEHOLDER,
	SHARE_EXCLUDED,
	SHARE_CHECK_EXPIRED,
	SHARE_OPTED_OUT,
	SHARE_NOT_CHECKED,
	SHARE_INELIGIBLE			/* for one of the last three reasons; the
								 * caller does not need to know which */
} ShareDecision;

static const char *const decision_words[] = {
	[SHARE_ELIGIBLE] = "eligible",
	[SHARE_NOT_PERMITTED] = "purpose_not_permitted",
	[SHARE_MISSING] = "number_missing",
	[SHARE_UNREADABLE] = "number_unreadable",
	[SHARE_PLACEHOLDER] = "placeholder",
	[SHARE_EXCLUDED] = "excluded_from_register",
	[SHARE_CHECK_EXPIRED] = "check_expired",
	[SHARE_OPTED_OUT] = "national_opt_out",
	[SHARE_NOT_CHECKED] = "not_checked",
};

/* What a call's arguments but the number come to, in its fn_extra */
typedef struct ShareTerms
{
	uint64		generation;		/* 0: nothing is worked out */
	MemoryContext context;		/* holds what is pointed to */
	bool		constant;		/* the arguments are the same in every call */
	struct varlena *argument[NARGS];	/* what they were; NULL for null */

	bool		permitted;
	bool		asks_checks;	/* the national opt-out counts */
	TimestampTz from;			/* the exemptions are as they are */
	TimestampTz until;			/* from then until before then */
	ExclusionList **lists;
	int			nlists;

	/* Rows of one patient often follow each other. */
	bool		remembers;
	EncodedNhsNumber last_encoded;
	TimestampTz last_asked_at;
	ShareDecision last_decision;
} ShareTerms;

/* ------------------------------------------------------------------ terms */

/*
 * Neither is a code repeated that does not exist: a caller that exchanged two
 * arguments gave a number for it.
 */
static void
read_purpose(ShareTerms *terms)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	if (terms->argument[ARG_PURPOSE] == NULL)
		ndrs_ereport(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a purpose is needed"));

	rel = ndrs_open_table("purpose", purpose_columns, lengthof(purpose_columns));
	ScanKeyEntryInitialize(&key, 0, ANUM_PURPOSE_CODE, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(terms->argument[ARG_PURPOSE]));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		bool		isnull;

		terms->permitted = DatumGetBool(heap_getattr(tuple, ANUM_PURPOSE_PERMITTED,
													 RelationGetDescr(rel), &isnull));
		terms->asks_checks = DatumGetBool(heap_getattr(tuple, ANUM_PURPOSE_OPTOUT_APPLIES,
													   RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!found)
		ndrs_ereport(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("there is no such purpose"),
					 errhint("Table ndrs_optout.purpose lists the purposes."));
}

/*
 * When a day begins and ends, in UTC.
 */
static TimestampTz
day_begin(DateADT day)
{
	if (DATE_IS_NOBEGIN(day))
		return DT_NOBEGIN;
	if (DATE_IS_NOEND(day) || day >= TIMESTAMP_END_JULIAN - POSTGRES_EPOCH_JDATE)
		return DT_NOEND;
	return day * USECS_PER_DAY;
}

static TimestampTz
day_end(DateADT day)
{
	return day_begin(DATE_NOT_FINITE(day) ? day : day + 1);
}

/*
 * Does an exemption lift the national opt-out now?
 */
static void
read_exemptions(ShareTerms *terms, TimestampTz now)
{
	Relation	rel;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	terms->from = DT_NOBEGIN;
	terms->until = DT_NOEND;
	if (terms->argument[ARG_RECIPIENT] == NULL || !terms->asks_checks)
		return;

	rel = ndrs_open_table("exemption", exemption_columns, lengthof(exemption_columns));
	ScanKeyEntryInitialize(&key[0], 0, ANUM_EXEMPTION_RECIPIENT, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(terms->argument[ARG_RECIPIENT]));
	ScanKeyEntryInitialize(&key[1], 0, ANUM_EXEMPTION_PURPOSE, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(terms->argument[ARG_PURPOSE]));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		TimestampTz bounds[2] = {DT_NOBEGIN, DT_NOEND};
		bool		isnull;
		Datum		value;

		if (!heap_attisnull(tuple, ANUM_EXEMPTION_ENDED_AT, desc))
			continue;
		value = heap_getattr(tuple, ANUM_EXEMPTION_VALID_FROM, desc, &isnull);
		bounds[0] = day_begin(DatumGetDateADT(value));
		value = heap_getattr(tuple, ANUM_EXEMPTION_VALID_TO, desc, &isnull);
		if (!isnull)
			bounds[1] = day_end(DatumGetDateADT(value));

		if (bounds[0] <= now && now < bounds[1])
			terms->asks_checks = false;
		for (int i = 0; i < 2; i++)
		{
			if (bounds[i] <= now)
				terms->from = Max(terms->from, bounds[i]);
			else
				terms->until = Min(terms->until, bounds[i]);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
find_lists(ShareTerms *terms)
{
	Datum	   *codes;
	bool	   *nulls;
	bool		any_null = false;

	if (terms->argument[ARG_REGISTERS] == NULL)
	{
		terms->lists = palloc(sizeof(ExclusionList *));
		terms->lists[0] = ndrs_every_exclusion_list();
		terms->nlists = 1;
		return;
	}

	deconstruct_array((ArrayType *) terms->argument[ARG_REGISTERS], TEXTOID, -1, false,
					  TYPALIGN_INT, &codes, &nulls, &terms->nlists);
	for (int i = 0; i < terms->nlists; i++)
		any_null |= nulls[i];
	if (terms->nlists == 0 || any_null)
		ndrs_ereport(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("at least one register must be named"),
					 errhint("For example '{cancer}' or '{cancer,rare_disease}'; without registers, all of them count."));
	terms->lists = palloc(terms->nlists * sizeof(ExclusionList *));
	for (int i = 0; i < terms->nlists; i++)
		terms->lists[i] = ndrs_exclusion_list(TextDatumGetCString(codes[i]));
}

static void
work_out(ShareTerms *terms, FunctionCallInfo fcinfo, TimestampTz now)
{
	/* Before the snapshots: see the head of exclusion_list.c */
	uint64		generation = ndrs_generation(NDRS_CACHE_SHARING);
	ErrorContextCallback hider;
	MemoryContext outer;

	ndrs_begin_hiding(&hider);
	terms->generation = 0;
	terms->remembers = false;
	MemoryContextReset(terms->context);
	outer = MemoryContextSwitchTo(terms->context);

	for (int i = ARG_PURPOSE; i < NARGS; i++)
		terms->argument[i] = PG_ARGISNULL(i) ? NULL : PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(i));
	read_purpose(terms);
	read_exemptions(terms, now);
	find_lists(terms);
	ndrs_make_lists_current(terms->lists, terms->nlists);
	ndrs_make_national_checks_current();

	MemoryContextSwitchTo(outer);
	ndrs_end_hiding(&hider);
	terms->generation = generation;
}

static bool
same_arguments(const ShareTerms *terms, FunctionCallInfo fcinfo)
{
	for (int i = ARG_PURPOSE; i < NARGS; i++)
	{
		struct varlena *value;

		if (PG_ARGISNULL(i) != (terms->argument[i] == NULL))
			return false;
		if (PG_ARGISNULL(i))
			continue;
		value = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(i));
		if (VARSIZE_ANY_EXHDR(value) != VARSIZE_ANY_EXHDR(terms->argument[i]) ||
			memcmp(VARDATA_ANY(value), VARDATA_ANY(terms->argument[i]), VARSIZE_ANY_EXHDR(value)) != 0)
			return false;
	}
	return true;
}

/*
 * Not so a parameter: PL/pgSQL keeps an expression, and this one's fn_extra with it,
 * while its variables change.
 */
static bool
sharing_is_constant(FunctionCallInfo fcinfo, int i)
{
	Node	   *call = fcinfo->flinfo->fn_expr;

	return call != NULL && IsA(call, FuncExpr) &&
		IsA(list_nth(((FuncExpr *) call)->args, i), Const);
}

static ShareTerms *
new_terms(FunctionCallInfo fcinfo)
{
	ShareTerms *terms = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(ShareTerms));

	terms->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt,
										   "ndrs_optout share terms",
										   ALLOCSET_SMALL_SIZES);
	terms->constant = sharing_is_constant(fcinfo, ARG_PURPOSE) &&
		sharing_is_constant(fcinfo, ARG_REGISTERS) && sharing_is_constant(fcinfo, ARG_RECIPIENT);
	fcinfo->flinfo->fn_extra = terms;
	return terms;
}

/*
 * The terms as they are now.  Makes sure of the key: without it there is no answer,
 * not even about a missing number.
 */
static ShareTerms *
current_terms(FunctionCallInfo fcinfo, TimestampTz now)
{
	ShareTerms *terms = fcinfo->flinfo->fn_extra;

	if (terms == NULL)
		terms = new_terms(fcinfo);
	AcceptInvalidationMessages();
	ndrs_encoding_ready();
	if (terms->generation != ndrs_generation(NDRS_CACHE_SHARING) ||
		now < terms->from || now >= terms->until ||
		!(terms->constant || same_arguments(terms, fcinfo)))
		work_out(terms, fcinfo, now);
	return terms;
}

/* --------------------------------------------------------------- deciding */

static ShareDecision
look_up(ShareTerms *terms, const EncodedNhsNumber *encoded, TimestampTz now, bool why)
{
	for (int i = 0; i < terms->nlists; i++)
	{
		if (ndrs_is_listed(terms->lists[i], encoded))
			return SHARE_EXCLUDED;
	}
	if (!terms->asks_checks)
		return SHARE_ELIGIBLE;
	switch (ndrs_national_choice(encoded, now, why))
	{
		case NATIONAL_ALLOWED:
			return SHARE_ELIGIBLE;
		case NATIONAL_NOT_ALLOWED:
			return SHARE_INELIGIBLE;
		case NATIONAL_OPTED_OUT:
			return SHARE_OPTED_OUT;
		case NATIONAL_CHECK_EXPIRED:
			return SHARE_CHECK_EXPIRED;
		case NATIONAL_NOT_CHECKED:
			break;
	}
	return SHARE_NOT_CHECKED;
}

static ShareDecision
decide(ShareTerms *terms, const EncodedNhsNumber *encoded, TimestampTz now, bool why)
{
	if (!terms->remembers || terms->last_asked_at != now ||
		memcmp(&terms->last_encoded, encoded, sizeof(EncodedNhsNumber)) != 0)
	{
		terms->remembers = false;
		terms->last_decision = look_up(terms, encoded, now, why);
		terms->last_encoded = *encoded;
		terms->last_asked_at = now;
		terms->remembers = true;
	}
	return terms->last_decision;
}

static ShareDecision
decide_number(FunctionCallInfo fcinfo, NhsNumberForm form, NhsNumber number, bool why)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	ShareTerms *terms = current_terms(fcinfo, now);
	EncodedNhsNumber encoded;

	if (!terms->permitted)
		return SHARE_NOT_PERMITTED;
	if (form == NHS_NUMBER_EMPTY)
		return SHARE_MISSING;
	if (form != NHS_NUMBER_VALID)
		return SHARE_UNREADABLE;
	if (nhs_number_is_placeholder(number))
		return SHARE_PLACEHOLDER;
	ndrs_encode(number, &encoded);
	return decide(terms, &encoded, now, why);
}

static ShareDecision
decide_text(FunctionCallInfo fcinfo, bool why)
{
	NhsNumberForm form = NHS_NUMBER_EMPTY;
	NhsNumber	number = 0;

	if (!PG_ARGISNULL(ARG_NUMBER))
	{
		text	   *value = PG_GETARG_TEXT_PP(ARG_NUMBER);

		form = nhs_number_parse(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), &number);
	}
	return decide_number(fcinfo, form, number, why);
}

static ShareDecision
decide_bigint(FunctionCallInfo fcinfo, bool why)
{
	NhsNumberForm form = NHS_NUMBER_EMPTY;
	NhsNumber	number = 0;

	if (!PG_ARGISNULL(ARG_NUMBER))
		form = nhs_number_check(PG_GETARG_INT64(ARG_NUMBER), &number);
	return decide_number(fcinfo, form, number, why);
}

static ShareDecision
decide_nhs_number(FunctionCallInfo fcinfo, bool why)
{
	return PG_ARGISNULL(ARG_NUMBER) ?
		decide_number(fcinfo, NHS_NUMBER_EMPTY, 0, why) :
		decide_number(fcinfo, NHS_NUMBER_VALID, PG_GETARG_INT64(ARG_NUMBER), why);
}

/*
 * For a column that a guard fills: no HMAC.
 */
static ShareDecision
decide_encoded(FunctionCallInfo fcinfo, bool why)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	ShareTerms *terms = current_terms(fcinfo, now);
	const EncodedNhsNumber *encoded;

	if (!terms->permitted)
		return SHARE_NOT_PERMITTED;
	if (PG_ARGISNULL(ARG_NUMBER))
		return SHARE_MISSING;
	encoded = (EncodedNhsNumber *) PG_GETARG_POINTER(ARG_NUMBER);
	if (ndrs_is_encoded_placeholder(encoded))
		return SHARE_PLACEHOLDER;
	return decide(terms, encoded, now, why);
}

Datum
ndrs_optout_share_eligible(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(decide_nhs_number(fcinfo, false) == SHARE_ELIGIBLE);
}

Datum
ndrs_optout_share_eligible_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(decide_text(fcinfo, false) == SHARE_ELIGIBLE);
}

Datum
ndrs_optout_share_eligible_bigint(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(decide_bigint(fcinfo, false) == SHARE_ELIGIBLE);
}

Datum
ndrs_optout_share_eligible_encoded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(decide_encoded(fcinfo, false) == SHARE_ELIGIBLE);
}

static Datum
decision_text(ShareDecision decision)
{
	return CStringGetTextDatum(decision_words[decision]);
}

Datum
ndrs_optout_share_decision(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(decision_text(decide_nhs_number(fcinfo, true)));
}

Datum
ndrs_optout_share_decision_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(decision_text(decide_text(fcinfo, true)));
}

Datum
ndrs_optout_share_decision_bigint(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(decision_text(decide_bigint(fcinfo, true)));
}

Datum
ndrs_optout_share_decision_encoded(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(decision_text(decide_encoded(fcinfo, true)));
}

/*
 * About one patient in twenty has opted out nationally.  The planner would expect
 * that two thirds of the rows go.
 */
#define ELIGIBLE_SELECTIVITY	0.95

/* Planner support of functions that say whether a patient's data may be shared */
Datum
ndrs_optout_sharing_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (!IsA(request, SupportRequestSelectivity))
		PG_RETURN_POINTER(NULL);
	((SupportRequestSelectivity *) request)->selectivity = ELIGIBLE_SELECTIVITY;
	PG_RETURN_POINTER(request);
}
