/*
 * national_check.c
 *		The answers of the national check that were loaded, as a backend keeps them.
 *
 * The truth is table national_check.  Its sets can be large and never change once
 * the reply is there, so a backend keeps them as long as their row is there, and
 * reads just the rows anew when the table has changed (catalog.c): another check
 * must not cost every backend the time to read millions of members again.  A row is
 * known again by its check and by the transaction that brought the reply: a reply
 * that is loaded after a rollback comes with another transaction.
 *
 * What makes the rows trustworthy is said at the head of exclusion_list.c.
 */
#include "postgres.h"

#include <sys/mman.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "catalog.h"
#include "compat.h"
#include "encoded_set.h"
#include "national_check.h"
#include "port/pg_bswap.h"
#include "privacy.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* Columns of table national_check */
#define ANUM_CHECK_ID			1
#define ANUM_CHECK_EXPIRES_AT	2
#define ANUM_CHECK_ASKED		3
#define ANUM_CHECK_ALLOWED		4

static const NdrsColumn check_columns[] = {
	{ANUM_CHECK_ID, "check_id", "int8", true},
	{ANUM_CHECK_EXPIRES_AT, "expires_at", "timestamptz", true},
	{ANUM_CHECK_ASKED, "asked", "encoded_set", true},
	{ANUM_CHECK_ALLOWED, "allowed", "encoded_set", false}
};

/*
 * The patients whom a check allows: nearly every patient who is looked up is
 * found here, with one access to memory, where a set needs two or three, one
 * after the other: with 950,000 members, share_eligible() takes 366 ns for a row
 * and not 432.
 *
 * The members are in ascending order, four in each line of the processor's cache.
 * A member's first 32 bits, taken as a fraction, say which line is its own; it lies
 * there, or in the next that has room.  An empty place repeats the next member,
 * so a line whose last member is greater than what is wanted ends the search.
 */
#define LINE_MEMBERS	4
#define LINE_FILLING	3		/* of them are taken, on average */

typedef struct Line
{
	EncodedNhsNumber members[LINE_MEMBERS];
} Line;

typedef struct Allowed
{
	Line	   *lines;
	size_t		nlines;
	size_t		nown;			/* lines that can be a member's own */
	uint32		count;			/* of members */
} Allowed;

typedef struct NationalCheck
{
	int64		check_id;
	TransactionId xmin;			/* who brought the reply */
	TimestampTz expires_at;
	MemoryContext context;		/* holds the rest; NULL: not read yet */
	Allowed		allowed;
	MemoryContext others_context;	/* below that; NULL: not read yet */
	EncodedSet	opted_out;		/* who else was asked about */
} NationalCheck;

/* Those that have their reply, the latest first */
static NationalCheck *checks = NULL;
static int	nchecks = 0;
static uint64 checks_generation = 0;

static Datum
national_check_column(HeapTuple tuple, Relation rel, AttrNumber number)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, number, RelationGetDescr(rel), &isnull);

	if (isnull)
		ndrs_elog("column %d of a loaded national check is null", number);
	return value;
}

static int
compare_checks(const void *a, const void *b)
{
	const NationalCheck *x = a;
	const NationalCheck *y = b;

	return x->check_id > y->check_id ? -1 : 1;
}

/*
 * Read the rows, and keep the sets of those that are still there.
 */
static void
read_checks(void)
{
	uint64		generation = ndrs_generation(NDRS_CACHE_NATIONAL_CHECK);
	Relation	rel = ndrs_open_table("national_check", check_columns, lengthof(check_columns));
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	NationalCheck *found = NULL;
	int			nfound = 0;
	int			capacity = 0;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (heap_attisnull(tuple, ANUM_CHECK_ALLOWED, RelationGetDescr(rel)))
			continue;
		if (nfound == capacity)
		{
			capacity = capacity * 2 + 8;
			found = found == NULL ?
				palloc(capacity * sizeof(NationalCheck)) :
				repalloc(found, capacity * sizeof(NationalCheck));
		}
		found[nfound++] = (NationalCheck)
		{
			.check_id = DatumGetInt64(national_check_column(tuple, rel, ANUM_CHECK_ID)),
				.xmin = HeapTupleHeaderGetRawXmin(tuple->t_data),
				.expires_at = DatumGetTimestampTz(national_check_column(tuple, rel, ANUM_CHECK_EXPIRES_AT)),
		};
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (nfound > 0)
	{
		NationalCheck *copy = MemoryContextAlloc(TopMemoryContext, nfound * sizeof(NationalCheck));

		memcpy(copy, found, nfound * sizeof(NationalCheck));
		pfree(found);
		found = copy;
		qsort(found, nfound, sizeof(NationalCheck), compare_checks);
	}

	/* No error from here on: each set has one owner. */
	for (int i = 0; i < nchecks; i++)
	{
		for (int j = 0; j < nfound && checks[i].context != NULL; j++)
		{
			if (found[j].check_id == checks[i].check_id && found[j].xmin == checks[i].xmin)
			{
				found[j].context = checks[i].context;
				found[j].allowed = checks[i].allowed;
				found[j].others_context = checks[i].others_context;
				found[j].opted_out = checks[i].opted_out;
				checks[i].context = NULL;
			}
		}
		if (checks[i].context != NULL)
			MemoryContextDelete(checks[i].context);
	}
	if (checks != NULL)
		pfree(checks);
	checks = found;
	nchecks = nfound;
	checks_generation = generation;
}

static inline size_t
own_line(const Allowed *allowed, const EncodedNhsNumber *member)
{
	uint32		beginning;

	memcpy(&beginning, member->bytes, sizeof(beginning));
	return (uint64) pg_ntoh32(beginning) * allowed->nown >> 32;
}

/*
 * Each search touches another place.  In huge pages, where the system has them, the
 * processor knows where all of them are; encoded sets, whose filters are small, gain
 * nothing by it.
 */
#define HUGE_PAGE_SIZE	(2 * 1024 * 1024)

static Line *
alloc_lines(size_t nlines)
{
	Size		size = (nlines + 1) * sizeof(Line);
	char	   *base = MemoryContextAllocHuge(CurrentMemoryContext, size);

#ifdef MADV_HUGEPAGE
	char	   *start = (char *) TYPEALIGN(HUGE_PAGE_SIZE, base);
	char	   *end = (char *) TYPEALIGN_DOWN(HUGE_PAGE_SIZE, base + size);

	if (start < end)
		madvise(start, end - start, MADV_HUGEPAGE);
#endif
	return (Line *) TYPEALIGN(sizeof(Line), base);
}

static void
fill_lines(Allowed *allowed, const EncodedSet *set)
{
	EncodedNhsNumber *slots;
	size_t		end = 0;
	size_t		at = 0;

	allowed->count = set->count;
	allowed->nown = set->count / LINE_FILLING + 1;
	for (uint32 i = 0; i < set->count; i++)
	{
		encoded_set_pause_at(i);
		end = Max(end, own_line(allowed, &set->members[i]) * LINE_MEMBERS) + 1;
	}
	allowed->nlines = set->count == 0 ? 0 : Max(allowed->nown, (end - 1) / LINE_MEMBERS + 1);
	allowed->lines = alloc_lines(allowed->nlines);

	slots = allowed->lines->members;
	for (uint32 i = 0; i < set->count; i++)
	{
		encoded_set_pause_at(i);
		end = Max(at, own_line(allowed, &set->members[i]) * LINE_MEMBERS) + 1;
		while (at < end)
			slots[at++] = set->members[i];
	}
	while (at < allowed->nlines * LINE_MEMBERS)
		slots[at++] = set->members[set->count - 1];
}

/* Compares all of a line, for what is compared can hardly be predicted. */
static bool
is_allowed(const Allowed *allowed, const EncodedNhsNumber *member)
{
	uint64		wanted[2];

	memcpy(wanted, member, sizeof(wanted));
	for (size_t i = own_line(allowed, member); i < allowed->nlines; i++)
	{
		const Line *line = &allowed->lines[i];
		int			found = 0;

		for (int j = 0; j < LINE_MEMBERS; j++)
		{
			uint64		words[2];

			memcpy(words, &line->members[j], sizeof(words));
			found |= ((words[0] ^ wanted[0]) | (words[1] ^ wanted[1])) == 0;
		}
		if (found)
			return true;
		if (encoded_nhs_number_compare(&line->members[LINE_MEMBERS - 1], member) > 0)
			return false;
	}
	return false;
}

/*
 * Large values do not stay longer than they must.
 */
static EncodedSet
fetch_set(HeapTuple tuple, Relation rel, AttrNumber number)
{
	EncodedSet	set;

	ndrs_open_set(&set, PointerGetDatum(PG_DETOAST_DATUM_COPY(national_check_column(tuple, rel, number))));
	return set;
}

static void
fill_allowed(NationalCheck *check, HeapTuple tuple, Relation rel)
{
	EncodedSet	allowed = fetch_set(tuple, rel, ANUM_CHECK_ALLOWED);

	fill_lines(&check->allowed, &allowed);
	pfree((void *) allowed.base);
}

/*
 * Those whom it allows are there already, in the same order.
 */
static void
fill_opted_out(NationalCheck *check, HeapTuple tuple, Relation rel)
{
	EncodedSet	asked = fetch_set(tuple, rel, ANUM_CHECK_ASKED);
	const Allowed *allowed = &check->allowed;
	uint32		expected = asked.count - Min(asked.count, allowed->count);
	EncodedSetBuilder builder;
	struct varlena *set;

	ndrs_set_begin(&builder, CurrentMemoryContext, expected);
	for (uint32 i = 0; i < asked.count; i++)
	{
		encoded_set_pause_at(i);
		if (!is_allowed(allowed, &asked.members[i]))
			ndrs_set_add(&builder, &asked.members[i], 1);
	}
	if (builder.count + allowed->count != asked.count)
		ndrs_elog("national check " INT64_FORMAT " allows a patient whom it did not ask about",
				  check->check_id);
	pfree((void *) asked.base);
	set = ndrs_set_end(&builder);
	encoded_set_open(&check->opted_out, set, VARSIZE(set));
}

/* Where a check's set is: of whom it allows, or of who else was asked about */
static inline MemoryContext *
place_of(NationalCheck *check, bool others)
{
	return others ? &check->others_context : &check->context;
}

/*
 * Read one of a check's sets, unless it was read: whom it allows, or who else was asked
 * about, which is not read before it is wanted.  False when the check is not
 * there any more.  The scan's snapshot keeps what it fetches from being vacuumed.
 */
static pg_noinline bool
read_set(NationalCheck *check, bool others)
{
	Relation	rel = ndrs_open_table("national_check", check_columns, lengthof(check_columns));
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, ANUM_CHECK_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(check->check_id));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple) &&
		HeapTupleHeaderGetRawXmin(tuple->t_data) == check->xmin;
	if (found)
	{
		/* Below the current one until all is well, so that an error frees it */
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
													  "ndrs_optout national check",
													  ALLOCSET_SMALL_SIZES);
		MemoryContext outer = MemoryContextSwitchTo(context);

		if (others)
			fill_opted_out(check, tuple, rel);
		else
			fill_allowed(check, tuple, rel);
		MemoryContextSwitchTo(outer);
		MemoryContextSetParent(context, others ? check->context : TopMemoryContext);
		*place_of(check, others) = context;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Make sure of a set of the check at hand.  False when all checks had to be read anew
 * instead.
 */
static inline bool
have_set(NationalCheck *check, bool others)
{
	ErrorContextCallback hider;
	bool		found;

	if (*place_of(check, others) != NULL)
		return true;
	ndrs_begin_hiding(&hider);
	found = read_set(check, others);
	if (!found)
		read_checks();
	ndrs_end_hiding(&hider);
	return found;
}

/*
 * The caller has taken the messages that were waiting.
 */
void
ndrs_make_national_checks_current(void)
{
	if (checks_generation != ndrs_generation(NDRS_CACHE_NATIONAL_CHECK))
		read_checks();
}

/* Is an older check than this one in force? */
static bool
older_in_force(int latest, TimestampTz now)
{
	for (int i = latest + 1; i < nchecks; i++)
	{
		if (checks[i].expires_at > now)
			return true;
	}
	return false;
}

/*
 * What the latest check says that asked about this number: the one that was started
 * last, since its reply can come before an older one's.  When it has expired, no older
 * one is believed instead, for that is older still.  The checks are current.
 *
 * A caller that does not want to know why a patient is not allowed need not read which
 * others were asked about, which is most of a check where many have opted out, unless
 * an older check could allow a patient whom this one did not ask about.
 */
NationalChoice
ndrs_national_choice(const EncodedNhsNumber *encoded, TimestampTz now, bool why)
{
	for (int i = 0; i < nchecks; i++)
	{
		NationalCheck *check = &checks[i];
		bool		expired = check->expires_at <= now;

		if (!have_set(check, false))
		{
			i = -1;
			continue;
		}
		if (is_allowed(&check->allowed, encoded))
			return expired ? NATIONAL_CHECK_EXPIRED : NATIONAL_ALLOWED;
		if (!why && !older_in_force(i, now))
			return NATIONAL_NOT_ALLOWED;
		if (!have_set(check, true))
		{
			i = -1;
			continue;
		}
		if (encoded_set_contains(&check->opted_out, encoded))
			return expired ? NATIONAL_CHECK_EXPIRED : NATIONAL_OPTED_OUT;
	}
	return NATIONAL_NOT_CHECKED;
}
