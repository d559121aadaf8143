/*
 * guard_decision.h
 *		What a guard finds in a row, and what it does with it.
 */
#ifndef NDRS_GUARD_DECISION_H
#define NDRS_GUARD_DECISION_H

#include "postgres.h"

#include "compat.h"
#include "exclusion_list.h"
#include "fmgr.h"
#include "nhs_number_type.h"

typedef enum GuardAction
{
	GUARD_ALLOW,
	GUARD_REJECT,
	GUARD_SKIP,
	GUARD_REDACT
} GuardAction;

typedef enum GuardFinding
{
	GUARD_NOT_EXCLUDED,
	GUARD_EXCLUDED,
	GUARD_MISSING,
	GUARD_UNREADABLE
} GuardFinding;

/* The words of the guard's tables */
extern const char *const ndrs_action_words[GUARD_REDACT + 1];

/* What decides on a row; the trigger and the constraint have more of their own. */
typedef struct Guard
{
	GuardAction action[GUARD_UNREADABLE + 1];	/* by finding */
	NhsNumberReader read;
	int			nregisters;
	ExclusionList **registers;
} Guard;

extern GuardAction ndrs_guard_parse_action(const char *word);
extern void ndrs_guard_set_type(Guard *guard, Oid type);
extern Guard *ndrs_guard_make_of_arguments(FunctionCallInfo fcinfo, int value, bool acts,
										   Size size);
pg_noreturn extern void ndrs_guard_reject(GuardFinding finding, NhsNumberForm form, Oid relid);
extern bool ndrs_guard_encoded_agrees(const NhsNumber *number, const EncodedNhsNumber *encoded);

/*
 * The policy of an expression, from its arguments (see where it is made).
 */
static inline Guard *
ndrs_guard_of_arguments(FunctionCallInfo fcinfo, int value, bool acts, Size size)
{
	Guard	   *guard = fcinfo->flinfo->fn_extra;

	return guard != NULL ? guard : ndrs_guard_make_of_arguments(fcinfo, value, acts, size);
}

static inline GuardFinding
ndrs_guard_examine(Guard *guard, Datum value, bool isnull, NhsNumber *number, NhsNumberForm *form)
{
	*form = isnull ? NHS_NUMBER_EMPTY : guard->read(value, number);

	if (*form == NHS_NUMBER_VALID)
	{
		if (ndrs_excluded_from_all(guard->registers, guard->nregisters, *number))
			return GUARD_EXCLUDED;
		return nhs_number_is_placeholder(*number) ? GUARD_MISSING : GUARD_NOT_EXCLUDED;
	}
	return *form == NHS_NUMBER_EMPTY ? GUARD_MISSING : GUARD_UNREADABLE;
}

#endif							/* NDRS_GUARD_DECISION_H */
