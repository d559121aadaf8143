/*
 * sentry.h
 *		What looks at commands that could weaken a guard.
 */
#ifndef NDRS_SENTRY_H
#define NDRS_SENTRY_H

#include "postgres.h"

/* A setting: commands may weaken guards */
extern bool ndrs_allow_unguarded;

extern void ndrs_sentry_init(void);

#endif							/* NDRS_SENTRY_H */
