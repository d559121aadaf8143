/*
 * guard_tally.h
 *		Counts of the rows that guards reject, skip, redact, or let in without a readable
 *		number.
 */
#ifndef NDRS_GUARD_TALLY_H
#define NDRS_GUARD_TALLY_H

#include "postgres.h"

#include "guard_decision.h"

extern void ndrs_guard_tally_init(void);
extern void ndrs_count_row(Oid target, GuardFinding finding, GuardAction action);
extern void ndrs_count_refusal(Oid target, GuardFinding finding);

#endif							/* NDRS_GUARD_TALLY_H */
