/*
 * guard.h
 *		What stops a row of an excluded patient from entering a registry table.
 */
#ifndef NDRS_GUARD_H
#define NDRS_GUARD_H

#include "postgres.h"

extern void ndrs_guard_spare(const Oid **relids, int *nrelids);

#endif							/* NDRS_GUARD_H */
