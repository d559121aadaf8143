/*
 * exclusion_list.c
 *		What a backend keeps of the exclusion list, and why it can be trusted.
 *
 * The truth is table exclusion.  A backend keeps one encoded set per register
 * (encoded_set_core.h), built at the first look-up and good for one generation
 * (catalog.c).  A look-up must see every exclusion that was committed, and
 * announced, before it began; three things make that so.
 *
 * 1. Every look-up first takes the invalidation messages that are waiting.
 *	  Without it, a COPY of an hour would not see another session's commit
 *	  before its own end.  It costs next to nothing when there are none.
 *
 * 2. A rebuild reads with a catalogue snapshot, which is taken anew.  With the
 *	  transaction's own snapshot, a backend under REPEATABLE READ would rebuild
 *	  from the old rows and keep them for ever: the one message is used up.
 *	  The catalogue snapshot also sees the transaction's own rows, and works in
 *	  a parallel worker, where GetLatestSnapshot() does not.
 *
 * 3. A message that comes during the rebuild leaves the set stale (catalog.c).
 *	  The set can still serve the look-up at hand, whose snapshot is newer than
 *	  its beginning.
 *
 * A session announces its commit after it is visible and before it gives up
 * its locks.  Between the two, other sessions may still use the old set; a
 * caller that needs to know that all of them have the new one waits for the
 * locks (erasure_writers.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog.h"
#include "catalog/pg_collation_d.h"
#include "compat.h"
#include "encoded_set.h"
#include "encoding.h"
#include "exclusion_list.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "privacy.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(ndrs_optout_is_excluded_text);
PG_FUNCTION_INFO_V1(ndrs_optout_is_excluded_bigint);
PG_FUNCTION_INFO_V1(ndrs_optout_is_excluded);
PG_FUNCTION_INFO_V1(ndrs_optout_is_excluded_encoded);
PG_FUNCTION_INFO_V1(ndrs_optout_exclusion_list_checksum);
PG_FUNCTION_INFO_V1(ndrs_optout_exclusion_support);

/* Columns of tables register and exclusion */
#define ANUM_REGISTER_CODE		1
#define ANUM_EXCLUSION_REGISTER	1
#define ANUM_EXCLUSION_ENCODED	2

static const NdrsColumn register_columns[] = {
	{ANUM_REGISTER_CODE, "code", "text", true}
};

static const NdrsColumn exclusion_columns[] = {
	{ANUM_EXCLUSION_REGISTER, "register", "text", true},
	{ANUM_EXCLUSION_ENCODED, "encoded_nhs_number", "encoded_nhs_number", true}
};

/*
 * Rows that come by the key in the time of a page in a scan of the whole table,
 * which has more than a hundred
 */
#define KEY_ROWS_PER_PAGE		4

/* The code of no register, for the list of them all */
#define EVERY_REGISTER ""

struct ExclusionList
{
	char		code[NAMEDATALEN];	/* hash key: must be first */
	uint64		generation;		/* 0: there is no set */
	EncodedSet	set;
	MemoryContext context;		/* holds the set */
	NhsNumber	asked_about;	/* the last one looked up, or -1 */
	bool		answer;			/* what it said */
};

/* By register code; entries stay where they are and are never removed. */
static HTAB *lists = NULL;

/* Find the rows of a register in one of our tables through its primary key. */
static SysScanDesc
begin_register_scan(Relation rel, AttrNumber column, const char *code)
{
	ScanKeyData key;
	Oid			index;

	/* Sets rd_pkindex */
	list_free(RelationGetIndexList(rel));
	index = rel->rd_pkindex;

	ScanKeyEntryInitialize(&key, 0, column, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(code));
	return systable_beginscan(rel, index, OidIsValid(index), NULL, 1, &key);
}

/*
 * A register that is not there must never look like an empty one.  The code is
 * not repeated: a caller that exchanged two arguments gave a number for it.
 */
static void
check_register(const char *code)
{
	Relation	rel = ndrs_open_table("register", register_columns, lengthof(register_columns));
	SysScanDesc scan = begin_register_scan(rel, ANUM_REGISTER_CODE, code);
	bool		found = HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!found)
		ndrs_ereport(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("there is no such register"),
					 errhint("Table ndrs_optout.register lists the registers."));
}

/*
 * Read the list of a register by the key.  False when so many rows came that one had
 * better read the whole table; what was read is of no use then.
 */
static bool
read_by_key(Relation rel, const char *code, size_t limit, EncodedSetBuilder *builder)
{
	SysScanDesc scan = begin_register_scan(rel, ANUM_EXCLUSION_REGISTER, code);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)) && builder->count < limit)
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, ANUM_EXCLUSION_ENCODED,
										 RelationGetDescr(rel), &isnull);

		CHECK_FOR_INTERRUPTS();
		ndrs_set_add(builder, (EncodedNhsNumber *) DatumGetPointer(value), 1);
	}
	systable_endscan(scan);
	return !HeapTupleIsValid(tuple);
}

/*
 * Read the list of a register, or of all of them (NULL), from the whole table: as
 * systable_beginscan() would without an index, but rows are taken apart once, and
 * codes compared as bytes, which costs half as much.
 */
static void
read_all(Relation rel, const char *code, EncodedSetBuilder *builder)
{
	size_t		length = code != NULL ? strlen(code) : 0;
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(RelationGetRelid(rel)));
	TableScanDesc scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		text	   *row_code;

		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, ANUM_EXCLUSION_ENCODED);
		row_code = DatumGetTextPP(slot->tts_values[ANUM_EXCLUSION_REGISTER - 1]);
		if (code == NULL ||
			(VARSIZE_ANY_EXHDR(row_code) == length &&
			 memcmp(VARDATA_ANY(row_code), code, length) == 0))
			ndrs_set_add(builder,
						 (EncodedNhsNumber *) DatumGetPointer(slot->tts_values[ANUM_EXCLUSION_ENCODED - 1]),
						 1);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/*
 * Like all that is seldom done on the way of a row, not inline: what is done for each
 * row needs no frame for it then.
 */
static pg_noinline void
rebuild(ExclusionList *list)
{
	/* Before the snapshot: see the head of the file */
	uint64		generation = ndrs_generation(NDRS_CACHE_EXCLUSION_LIST);
	const char *code = strcmp(list->code, EVERY_REGISTER) == 0 ? NULL : list->code;
	size_t		expected = list->set.count + list->set.count / 16;
	EncodedSetBuilder builder;
	Relation	rel;
	size_t		limit;
	struct varlena *set;
	ErrorContextCallback hider;

	ndrs_begin_hiding(&hider);
	if (code != NULL)
		check_register(code);

	/*
	 * The old set makes room before the new one is there: it is of no use any
	 * more, also if an error comes now.
	 */
	list->generation = 0;
	list->asked_about = -1;
	MemoryContextReset(list->context);

	/*
	 * How many there are is not known before: the statistics may be old or
	 * none.
	 */
	rel = ndrs_open_table("exclusion", exclusion_columns, lengthof(exclusion_columns));
	limit = (size_t) RelationGetNumberOfBlocks(rel) * KEY_ROWS_PER_PAGE;
	ndrs_set_begin(&builder, list->context, expected);
	if (code == NULL || list->set.count >= limit ||
		!read_by_key(rel, code, limit, &builder))
	{
		pfree(builder.base);
		ndrs_set_begin(&builder, list->context, Max(expected, rel->rd_rel->reltuples));
		read_all(rel, code, &builder);
	}
	table_close(rel, AccessShareLock);

	set = ndrs_set_end(&builder);
	encoded_set_open(&list->set, set, VARSIZE(set));
	list->generation = generation;
	ndrs_end_hiding(&hider);
}

static ExclusionList *
find_list(const char *code, bool is_register)
{
	ExclusionList *list;
	bool		found;

	if (lists == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = NAMEDATALEN;
		control.entrysize = sizeof(ExclusionList);
		lists = hash_create("ndrs_optout exclusion lists", 8, &control,
							HASH_ELEM | HASH_STRINGS);
	}

	/*
	 * Unknown codes get no entry, so that no caller can fill the memory; a
	 * code too long for a key would be taken for the one that it begins with.
	 */
	if (is_register &&
		(code[0] == '\0' || strlen(code) >= NAMEDATALEN ||
		 hash_search(lists, code, HASH_FIND, NULL) == NULL))
		check_register(code);
	list = hash_search(lists, code, HASH_ENTER, &found);
	if (!found)
	{
		list->generation = 0;
		list->asked_about = -1;
		list->set.count = 0;
		list->context = NULL;
	}
	if (list->context == NULL)
		list->context = AllocSetContextCreate(TopMemoryContext,
											  "ndrs_optout exclusion list",
											  ALLOCSET_SMALL_SIZES);
	return list;
}

/*
 * The list of one register.  The pointer stays good for the backend's life.
 */
ExclusionList *
ndrs_exclusion_list(const char *code)
{
	ErrorContextCallback hider;
	ExclusionList *list;

	ndrs_begin_hiding(&hider);
	list = find_list(code, true);
	ndrs_end_hiding(&hider);
	return list;
}

/*
 * One list of the patients who are excluded from any register.
 */
ExclusionList *
ndrs_every_exclusion_list(void)
{
	return find_list(EVERY_REGISTER, false);
}

/*
 * Make sure of the key and of these lists.  Without the key there is no answer,
 * not even about a placeholder.
 */
void
ndrs_make_lists_current(ExclusionList **wanted, int nwanted)
{
	AcceptInvalidationMessages();
	ndrs_encoding_ready();
	for (int i = 0; i < nwanted; i++)
	{
		if (wanted[i]->generation != ndrs_generation(NDRS_CACHE_EXCLUSION_LIST))
			rebuild(wanted[i]);
	}
}

/*
 * Look in a list that is current.
 */
bool
ndrs_is_listed(const ExclusionList *list, const EncodedNhsNumber *encoded)
{
	return encoded_set_contains(&list->set, encoded);
}

/*
 * Is the patient excluded from every one of these registers?
 *
 * A placeholder stands for many patients, so it never matches.
 *
 * A guard's constraint asks what its trigger has just asked.  So a list remembers its
 * last answer, for as long as it has the same set, which is made sure of before.
 */
bool
ndrs_excluded_from_all(ExclusionList **wanted, int nwanted, NhsNumber number)
{
	ndrs_make_lists_current(wanted, nwanted);
	if (nhs_number_is_placeholder(number))
		return false;
	for (int i = 0; i < nwanted; i++)
	{
		ExclusionList *list = wanted[i];

		if (list->asked_about != number)
		{
			EncodedNhsNumber encoded;

			ndrs_encode(number, &encoded);
			list->answer = ndrs_is_listed(list, &encoded);
			list->asked_about = number;
		}
		if (!list->answer)
			return false;
	}
	return nwanted > 0;
}

/* The list of the register that the second argument names */
static ExclusionList *
list_argument(FunctionCallInfo fcinfo)
{
	ExclusionList *list = fcinfo->flinfo->fn_extra;
	text	   *code = PG_GETARG_TEXT_PP(1);

	if (list == NULL ||
		strlen(list->code) != VARSIZE_ANY_EXHDR(code) ||
		memcmp(list->code, VARDATA_ANY(code), VARSIZE_ANY_EXHDR(code)) != 0)
	{
		list = ndrs_exclusion_list(text_to_cstring(code));
		fcinfo->flinfo->fn_extra = list;
	}
	return list;
}

static bool
is_excluded(FunctionCallInfo fcinfo, NhsNumber number)
{
	ExclusionList *list = list_argument(fcinfo);

	return ndrs_excluded_from_all(&list, 1, number);
}

/*
 * For a column that a guard fills: no HMAC.
 */
Datum
ndrs_optout_is_excluded_encoded(PG_FUNCTION_ARGS)
{
	ExclusionList *list = list_argument(fcinfo);

	ndrs_make_lists_current(&list, 1);
	PG_RETURN_BOOL(ndrs_is_listed(list, (EncodedNhsNumber *) PG_GETARG_POINTER(0)));
}

Datum
ndrs_optout_is_excluded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(is_excluded(fcinfo, PG_GETARG_INT64(0)));
}

/*
 * What is not an NHS number cannot be looked up: unknown, hence NULL.
 */
Datum
ndrs_optout_is_excluded_bigint(PG_FUNCTION_ARGS)
{
	NhsNumber	number;

	if (nhs_number_check(PG_GETARG_INT64(0), &number) != NHS_NUMBER_VALID)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(is_excluded(fcinfo, number));
}

Datum
ndrs_optout_is_excluded_text(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);
	NhsNumber	number;

	if (nhs_number_parse(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value),
						 &number) != NHS_NUMBER_VALID)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(is_excluded(fcinfo, number));
}

/* The same for equal lists */
Datum
ndrs_optout_exclusion_list_checksum(PG_FUNCTION_ARGS)
{
	ExclusionList *list = ndrs_exclusion_list(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	ndrs_make_lists_current(&list, 1);
	PG_RETURN_INT64((int64) list->set.checksum);
}

/*
 * Fewer than one patient in ten thousand opts out of a register.  The planner
 * would expect a third of the rows, and scan alone what workers could share.
 */
#define EXCLUDED_SELECTIVITY	0.0001

/* Planner support of functions that say whether a patient is excluded */
Datum
ndrs_optout_exclusion_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (!IsA(request, SupportRequestSelectivity))
		PG_RETURN_POINTER(NULL);
	((SupportRequestSelectivity *) request)->selectivity = EXCLUDED_SELECTIVITY;
	PG_RETURN_POINTER(request);
}
