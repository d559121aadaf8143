/*
 * tap.h
 *		The Test Anything Protocol, as much of it as the unit tests need.
 */
#ifndef NDRS_TAP_H
#define NDRS_TAP_H

#include <stdbool.h>
#include <stdio.h>

static int	tests_run = 0;
static int	tests_failed = 0;

static inline void
ok(bool passed, const char *what)
{
	tests_run++;
	if (!passed)
		tests_failed++;
	printf("%sok %d - %s\n", passed ? "" : "not ", tests_run, what);
}

static inline int
done_testing(void)
{
	printf("1..%d\n", tests_run);
	return tests_failed > 0;
}

#endif							/* NDRS_TAP_H */
