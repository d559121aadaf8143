/*
 * guard.h
 *		What a guard finds in a row, and what it does with it.
 */
#ifndef NDRS_GUARD_H
#define NDRS_GUARD_H

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

extern const char *const ndrs_action_words[GUARD_REDACT + 1];

/* guard_tally.c */
extern void ndrs_count_row(Oid target, GuardFinding finding, GuardAction action);

#endif							/* NDRS_GUARD_H */
