/*
 * guard_tally.h
 *		Counts of the rows that guards skip, redact, or let in without a readable number.
 */
#ifndef NDRS_GUARD_TALLY_H
#define NDRS_GUARD_TALLY_H

#include "postgres.h"

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

extern void ndrs_guard_tally_init(void);
extern void ndrs_count_row(Oid target, GuardFinding finding, GuardAction action);

#endif							/* NDRS_GUARD_TALLY_H */
