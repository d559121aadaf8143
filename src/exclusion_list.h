/*
 * exclusion_list.h
 *		Who is excluded from a register, as a backend keeps it.
 */
#ifndef NDRS_EXCLUSION_LIST_H
#define NDRS_EXCLUSION_LIST_H

#include "postgres.h"
#include "encoded_nhs_number.h"
#include "nhs_number.h"

typedef struct ExclusionList ExclusionList;

extern ExclusionList *ndrs_exclusion_list(const char *code);
extern ExclusionList *ndrs_every_exclusion_list(void);
extern void ndrs_make_lists_current(ExclusionList **lists, int nlists);
extern bool ndrs_is_listed(const ExclusionList *list,
						   const EncodedNhsNumber *encoded);
extern bool ndrs_excluded_from_all(ExclusionList **lists, int nlists,
								   NhsNumber number);

#endif							/* NDRS_EXCLUSION_LIST_H */
