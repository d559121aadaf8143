/*
 * encoded_set_bench.c
 *		What building and searching an encoded set costs.
 *
 * Nanoseconds of processor time for a look-up, the median of rounds in which
 * the loops take turns.  The loop that does nothing calls a function for each
 * number and reads it, as the others do.  In such loops the processor works on
 * several look-ups at a time; in a query, with what comes between them, it
 * cannot, and a miss in its cache shows in full.
 */
#include "encoded_set_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PROBES (1 << 20)
#define ROUNDS 9
#define HUGE_PAGE ((size_t) 2 << 20)

typedef bool (*Search) (const EncodedSet *set, const EncodedNhsNumber *member);

static volatile size_t sink;

/* xorshift: the same sequence everywhere */
static uint64_t
next_random(void)
{
	static uint64_t state = UINT64_C(88172645463325252);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * UINT64_C(2685821657736338717);
}

static EncodedNhsNumber
random_member(void)
{
	uint64_t	words[2] = {next_random(), next_random()};
	EncodedNhsNumber member;

	memcpy(&member, words, sizeof(member));
	return member;
}

static double
processor_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double) now.tv_sec * 1e9 + (double) now.tv_nsec;
}

static bool
nothing(const EncodedSet *set, const EncodedNhsNumber *member)
{
	return member->bytes[0] == 0 && set->count == 0;
}

/* Through a volatile pointer, so that no loop is optimized away */
static double
time_search(Search search, const EncodedSet *set, const EncodedNhsNumber *probes)
{
	Search volatile called = search;
	size_t		found = 0;
	double		start = processor_time();

	for (size_t i = 0; i < PROBES; i++)
		found += called(set, &probes[i]);
	sink = found;
	return (processor_time() - start) / PROBES;
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(double *times)
{
	qsort(times, ROUNDS, sizeof(double), compare_doubles);
	return times[ROUNDS / 2];
}

/*
 * In huge pages, so that the search is timed and not how the processor finds addresses;
 * a backend's sets are in usual ones.
 */
static void *
alloc_to_search(size_t size)
{
	void	   *base;

	size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	base = aligned_alloc(HUGE_PAGE, size);
	if (base == NULL)
		abort();
#ifdef MADV_HUGEPAGE
	madvise(base, size, MADV_HUGEPAGE);
#endif
	return base;
}

static void
bench(size_t count, const EncodedNhsNumber *misses, EncodedNhsNumber *hits)
{
	void	   *base = alloc_to_search(encoded_set_size(count));
	EncodedNhsNumber *members = encoded_set_members(base);
	double		times[3][ROUNDS];
	double		started;
	double		built;
	EncodedSet set;

	for (size_t i = 0; i < count; i++)
		members[i] = random_member();
	for (size_t i = 0; i < PROBES; i++)
		hits[i] = members[next_random() % count];

	started = processor_time();
	if (encoded_set_sort(members, count) != count)
		abort();
	encoded_set_seal(base, count);
	built = processor_time() - started;
	if (!encoded_set_open(&set, base, encoded_set_size(count)))
		abort();

	for (int round = 0; round < ROUNDS; round++)
	{
		times[0][round] = time_search(nothing, &set, misses);
		time_search(encoded_set_contains, &set, misses);	/* warms the cache */
		times[1][round] = time_search(encoded_set_contains, &set, misses);
		times[2][round] = time_search(encoded_set_contains, &set, hits);
	}
	printf("%8zu  %16.2f  %7.3f  %7.2f  %6.2f  %5.1f  %6.1f\n",
		   count, (double) encoded_set_size(count) / (double) count, built / 1e9,
		   median(times[0]), median(times[1]), median(times[1]) / median(times[0]),
		   median(times[2]));
	free(base);
}

int
main(void)
{
	static const size_t counts[] = {1000, 10000, 100000, 3600000, 10000000};
	EncodedNhsNumber *misses = malloc(PROBES * sizeof(EncodedNhsNumber));
	EncodedNhsNumber *hits = malloc(PROBES * sizeof(EncodedNhsNumber));

	for (size_t i = 0; i < PROBES; i++)
		misses[i] = random_member();
	printf(" members  bytes per member  build/s  nothing    miss  times     hit\n");
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		bench(counts[i], misses, hits);
	free(misses);
	free(hits);
	return 0;
}
