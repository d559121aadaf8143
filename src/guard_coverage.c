/*
 * guard_coverage.c
 *		A look at a sample of what a table's columns hold.
 *
 * guard_coverage() looks at every table, of whatever owner, and a monitor may
 * call it every minute.  So nothing is planned here, because the planner runs the
 * owner's code (the predicate of an index is enough); no type's, operator's or
 * domain's function is called; no lock is waited for; and the time is limited.
 * Pages are read as VACUUM reads them.  The bytes of a value tell whether it is
 * an NHS number.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nhs_number_type.h"
#include "privacy.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(ndrs_optout_guard_sample);

/*
 * A number with the widest separators takes less.  Of a longer text these first
 * bytes decide: char(n) is padded with blanks.
 */
#define VALUE_BYTES			64

/* A full sample comes from as many pages, if there are as many. */
#define SAMPLED_PAGES		25

typedef struct SampledColumn
{
	AttrNumber	attnum;			/* 0: the table has no such column */
	bool		is_varlena;
	NhsNumberReader read;		/* NULL: no type that holds numbers */
	int64		numbers;
	int64		sampled;
	int			on_page;		/* sampled on this page */
} SampledColumn;

typedef struct Sample
{
	SampledColumn *columns;
	int			ncolumns;
	int			wanted;			/* values of each column */
	int			wanted_on_page;
	MemoryContext context;		/* for one page */
} Sample;

/*
 * Is this an NHS number?  Values out of line are not fetched: they are documents,
 * since the server moves nothing out of line that is as short as a number.
 */
static bool
is_number(const SampledColumn *column, Datum value)
{
	NhsNumber	number;

	if (column->is_varlena)
	{
		struct varlena *attr = (struct varlena *) DatumGetPointer(value);

		if (VARATT_IS_EXTERNAL(attr))
			return false;
		if (VARATT_IS_COMPRESSED(attr) || VARSIZE_ANY_EXHDR(attr) > VALUE_BYTES)
			value = PointerGetDatum(detoast_attr_slice(attr, 0, VALUE_BYTES));
	}
	return column->read(value, &number) == NHS_NUMBER_VALID &&
		!nhs_number_is_placeholder(number);
}

/*
 * Take what is wanted of one page.  The values are read while the page is locked,
 * which takes no longer than to copy them.
 */
static void
sample_page(Sample *sample, Relation rel, BlockNumber block, Snapshot snapshot,
			BufferAccessStrategy strategy)
{
	Buffer		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
	Page		page;

	for (int i = 0; i < sample->ncolumns; i++)
		sample->columns[i].on_page = 0;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	for (OffsetNumber offset = FirstOffsetNumber;
		 !PageIsNew(page) && offset <= PageGetMaxOffsetNumber(page); offset++)
	{
		ItemId		item = PageGetItemId(page, offset);
		HeapTupleData tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tuple.t_self, block, offset);
		if (!HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer))
			continue;

		for (int i = 0; i < sample->ncolumns; i++)
		{
			SampledColumn *column = &sample->columns[i];
			Datum		value;
			bool		isnull;

			if (column->read == NULL || column->sampled >= sample->wanted ||
				column->on_page >= sample->wanted_on_page)
				continue;
			value = heap_getattr(&tuple, column->attnum, RelationGetDescr(rel), &isnull);
			if (isnull)
				continue;
			if (is_number(column, value))
				column->numbers++;
			column->sampled++;
			column->on_page++;
		}
	}
	UnlockReleaseBuffer(buffer);
}

static bool
is_complete(const Sample *sample)
{
	for (int i = 0; i < sample->ncolumns; i++)
	{
		if (sample->columns[i].read != NULL && sample->columns[i].sampled < sample->wanted)
			return false;
	}
	return true;
}

/*
 * From one page to this many further on, round and round, comes to each page of a
 * table once, and after a few steps has been everywhere about equally often.
 */
static BlockNumber
page_step(BlockNumber nblocks)
{
	BlockNumber step = Max((BlockNumber) (nblocks * 0.618), 1);

	for (;; step++)
	{
		BlockNumber a = nblocks;
		BlockNumber b = step;

		while (b != 0)
		{
			BlockNumber rest = a % b;

			a = b;
			b = rest;
		}
		if (a == 1)
			return step;
	}
}

/*
 * Returns what kept the look from its end, as the end of a sentence that begins with
 * the table's name; else NULL.
 */
static const char *
sample_table(Sample *sample, Relation rel, int max_pages, TimestampTz until)
{
	BlockNumber nblocks;
	BlockNumber step;
	BlockNumber block = 0;
	Snapshot	snapshot;
	BufferAccessStrategy strategy;
	const char *obstacle = NULL;

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		return "is stored in a way that is not known here";
	if (!RelationIsPermanent(rel) && (RecoveryInProgress() || RELATION_IS_OTHER_TEMP(rel)))
		return "has no data in this server or session";

	nblocks = RelationGetNumberOfBlocks(rel);
	if (nblocks == 0)
		return NULL;
	step = page_step(nblocks);
	sample->wanted_on_page = Max(sample->wanted / (int) Min(nblocks, SAMPLED_PAGES), 1);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	strategy = GetAccessStrategy(BAS_BULKREAD);
	for (BlockNumber i = 0; i < Min(nblocks, (BlockNumber) max_pages) && !is_complete(sample); i++)
	{
		MemoryContext outer;

		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() >= until)
		{
			obstacle = "was not looked at to the end, because the time was over";
			break;
		}
		outer = MemoryContextSwitchTo(sample->context);
		sample_page(sample, rel, block, snapshot, strategy);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(sample->context);
		block = (BlockNumber) (((uint64) block + step) % nblocks);
	}
	FreeAccessStrategy(strategy);
	UnregisterSnapshot(snapshot);
	return obstacle;
}

static void
find_columns(Sample *sample, Relation rel, ArrayType *names)
{
	Datum	   *elements;
	bool	   *nulls;

	deconstruct_array(names, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &sample->ncolumns);
	sample->columns = palloc0(sizeof(SampledColumn) * Max(sample->ncolumns, 1));
	for (int i = 0; i < sample->ncolumns; i++)
	{
		SampledColumn *column = &sample->columns[i];

		if (nulls[i])
			continue;
		column->attnum = get_attnum(RelationGetRelid(rel), NameStr(*DatumGetName(elements[i])));
		if (column->attnum > 0)
		{
			Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1);

			column->is_varlena = attribute->attlen == -1;
			column->read = ndrs_number_reader(attribute->atttypid);
		}
	}
}

/*
 * Looks at a table's columns.  Returns for each how many of the values looked at are
 * NHS numbers, and how many were looked at; and what kept the look from its end.
 */
Datum
ndrs_optout_guard_sample(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	ArrayType  *names = PG_GETARG_ARRAYTYPE_P(1);
	TimestampTz until = PG_GETARG_TIMESTAMPTZ(4);
	Sample		sample = {0};
	Relation	rel = NULL;
	const char *obstacle;
	TupleDesc	tupdesc;
	Datum	   *counts;
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE || tupdesc->natts != 3)
		ndrs_elog("guard_sample() must return three columns");

	sample.wanted = PG_GETARG_INT32(2);
	if (GetCurrentTimestamp() >= until)
		obstacle = "was not looked at, because the time was over";
	else if (!ConditionalLockRelationOid(relid, AccessShareLock))
		obstacle = "is locked by another session";
	else if ((rel = try_relation_open(relid, NoLock)) == NULL)
	{
		UnlockRelationOid(relid, AccessShareLock);
		obstacle = NULL;		/* dropped a moment ago */
	}
	else
	{
		find_columns(&sample, rel, names);
		sample.context = AllocSetContextCreate(CurrentMemoryContext, "ndrs_optout sample",
											   ALLOCSET_DEFAULT_SIZES);
		obstacle = sample_table(&sample, rel, PG_GETARG_INT32(3), until);
		relation_close(rel, AccessShareLock);

		counts = palloc(sizeof(Datum) * Max(sample.ncolumns, 1));
		for (int i = 0; i < sample.ncolumns; i++)
			counts[i] = Int64GetDatum(sample.columns[i].numbers);
		values[0] = PointerGetDatum(construct_array(counts, sample.ncolumns, INT8OID,
													sizeof(int64), true, TYPALIGN_DOUBLE));
		for (int i = 0; i < sample.ncolumns; i++)
			counts[i] = Int64GetDatum(sample.columns[i].sampled);
		values[1] = PointerGetDatum(construct_array(counts, sample.ncolumns, INT8OID,
													sizeof(int64), true, TYPALIGN_DOUBLE));
		nulls[0] = nulls[1] = false;
	}
	if (obstacle != NULL)
	{
		values[2] = CStringGetTextDatum(obstacle);
		nulls[2] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
