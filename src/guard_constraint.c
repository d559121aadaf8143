/*
 * guard_constraint.c
 *		The function of a guard's CHECK constraint.
 *
 * The constraint runs after every BEFORE trigger, on every path into the table and its
 * partitions and children, and cannot be disabled; it can only reject.  PUBLIC may
 * execute its function, because the inserting role's rights are checked when the
 * constraint runs.  A role without USAGE on the schema cannot call it by name.  But CREATE
 * TABLE ... LIKE copies the constraint for any role that may read the table, so for
 * another table it answers only roles that may insert into the guarded one, where they get
 * the answer as well.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "compat.h"
#include "compat_acl.h"
#include "encoding.h"
#include "fmgr.h"
#include "guard_decision.h"
#include "guard_erasure.h"
#include "guard_policy.h"
#include "guard_tally.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "privacy.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_guard_admits);

typedef struct ConstraintGuard
{
	Guard		decision;
	Oid			trusted_table;	/* may be answered for */
} ConstraintGuard;

pg_noreturn static void misencoded(FmgrInfo *flinfo, Oid relid);

/* Is the table the guarded one, a partition of it, or an inheritance child? */
static bool
is_part_of(Oid relid, Oid target)
{
	if (relid == target)
		return true;
	if (get_rel_relispartition(relid))
		return list_member_oid(get_partition_ancestors(relid), target);
	return OidIsValid(relid) && has_superclass(relid) &&
		list_member_oid(find_all_inheritors(target, NoLock, NULL), relid);
}

/*
 * May the role bring numbers into this column of the table, by a right of its own; or,
 * without a column, bring rows into the table or change some?
 */
static bool
may_write(Oid relid, const char *column)
{
	AttrNumber	attnum;

	if (pg_class_aclmask(relid, GetUserId(), ACL_INSERT | ACL_UPDATE, ACLMASK_ANY) != 0)
		return true;
	if (column == NULL)
		return pg_attribute_aclcheck_all(relid, GetUserId(), ACL_INSERT | ACL_UPDATE,
										 ACLMASK_ANY) == ACLCHECK_OK;
	attnum = get_attnum(relid, column);
	return attnum > 0 &&
		pg_attribute_aclcheck(relid, attnum, GetUserId(), ACL_INSERT | ACL_UPDATE) == ACLCHECK_OK;
}

/* The column that an argument of a constraint's function is, or NULL */
static Var *
argument_column(FmgrInfo *flinfo, int i)
{
	Node	   *node = NULL;

	if (flinfo->fn_expr != NULL && IsA(flinfo->fn_expr, FuncExpr))
		node = strip_implicit_coercions(list_nth(((FuncExpr *) flinfo->fn_expr)->args, i));
	return node != NULL && IsA(node, Var) ? (Var *) node : NULL;
}

/*
 * Are table and number those of one row, as in the constraint?  A caller that chooses
 * the number cannot take both from one scan of the table.
 */
static bool
asks_of_row(FmgrInfo *flinfo, Oid relid, const char *column)
{
	Var		   *table = argument_column(flinfo, 0);
	Var		   *number = argument_column(flinfo, 2);

	return table != NULL && number != NULL && table->varno == number->varno &&
		table->varattno == TableOidAttributeNumber &&
		number->varattno == get_attnum(relid, column);
}

/*
 * May the constraint answer for this table?  PUBLIC may execute it, and a role with a
 * duty can name it and choose the arguments.  So they must be those of a guard of the
 * table that is named, and the role must be one that may write to the guarded column of
 * it, or of the partition or a parent: it gets the same answer there.  A right to other
 * columns is enough for a row's own number.
 *
 * Through a view or a rule others write to it as well, with the rights of its owner.  A
 * role that cannot name the function has not called it, so the row is where it says
 * that it is.
 *
 * For the owner of the extension the guard need not be there: a restore may bring
 * partitions' rows before ours.
 */
static bool
may_answer(FunctionCallInfo fcinfo, Oid relid, Oid target)
{
	bool		is_part;
	List	   *columns = NIL;
	List	   *relids;
	ListCell   *lc;
	ListCell   *lcolumn;

	if (ndrs_owns_schema(get_namespace_oid(NDRS_SCHEMA, false)))
		return true;

	foreach(lc, ndrs_guard_policies(target))
	{
		GuardPolicy *policy = lfirst(lc);

		if (ndrs_guard_has_constraint(policy, PG_GETARG_ARRAYTYPE_P(3),
									  text_to_cstring(PG_GETARG_TEXT_PP(4)),
									  text_to_cstring(PG_GETARG_TEXT_PP(5)), PG_NARGS() > 6))
			columns = lappend(columns, policy->column);
	}
	if (columns == NIL)
		return false;

	is_part = is_part_of(relid, target);
	relids = list_make1_oid(target);
	if (is_part && relid != target)
		relids = lappend_oid(relids, relid);
	if (get_rel_relispartition(llast_oid(relids)))
		relids = list_concat(relids, get_partition_ancestors(llast_oid(relids)));
	foreach(lcolumn, columns)
	{
		const char *column = lfirst(lcolumn);

		if (is_part && asks_of_row(fcinfo->flinfo, relid, column))
			column = NULL;
		foreach(lc, relids)
		{
			if (may_write(lfirst_oid(lc), column))
				return true;
		}
	}
	return is_part && !ndrs_may_use_schema(get_namespace_oid(NDRS_SCHEMA, false));
}

static pg_noinline void
trust(FunctionCallInfo fcinfo, ConstraintGuard *guard, Oid relid, Oid target)
{
	ErrorContextCallback hider;

	ndrs_begin_hiding(&hider);
	if (!may_answer(fcinfo, relid, target))
		ndrs_ereport(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to ask the guard of table %s", ndrs_table_name(target)),
					 errdetail("The table has no such guard, or role \"%s\" may neither insert into the table nor update it.",
							   GetUserNameFromId(GetUserId(), false)),
					 errhint("Drop the constraint if CREATE TABLE ... LIKE has copied it."));
	ndrs_end_hiding(&hider);
	guard->trusted_table = relid;
}

static const char *
argument_column_name(FmgrInfo *flinfo, int i, Oid relid)
{
	Var		   *column = argument_column(flinfo, i);

	return column == NULL ? "?" : get_attname(relid, column->varattno, false);
}

/*
 * Later screening by the encoded column trusts that it is the number's: not what a
 * loader wrote there, nor empty because a trigger was off.
 */
static void
misencoded(FmgrInfo *flinfo, Oid relid)
{
	const char *encoded_column = argument_column_name(flinfo, 6, relid);

	ndrs_ereport(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("column \"%s\" of table %s does not match the NHS number in column \"%s\"",
						encoded_column, ndrs_table_name(relid), argument_column_name(flinfo, 2, relid)),
				 errhint("Leave \"%s\" out of the row: the guard's trigger fills it, as long as it is enabled.",
						 encoded_column),
				 ndrs_errtable(relid));
}

/*
 * The constraint: true, or an error.  False would make the server print the row.
 *
 * A logical replication worker does not say which table it writes to; it has the
 * right to insert.
 */
Datum
ndrs_optout_guard_admits(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Oid			target = PG_GETARG_OID(1);
	ConstraintGuard *guard;
	GuardFinding finding;
	NhsNumber	number;
	NhsNumberForm form;

	/*
	 * A partition that was made after its parent was guarded has a validated
	 * constraint, which pg_dump brings before the data and our tables. Others
	 * than who restores are told that there is no key.
	 */
	if (ndrs_before_restore())
	{
		if (ndrs_owns_schema(get_namespace_oid(NDRS_SCHEMA, false)))
			PG_RETURN_BOOL(true);
		ndrs_encoding_ready();
	}

	guard = (ConstraintGuard *) ndrs_guard_of_arguments(fcinfo, 2, true, sizeof(ConstraintGuard));
	if (relid != guard->trusted_table || !OidIsValid(relid))
		trust(fcinfo, guard, relid, target);

	finding = ndrs_guard_examine(&guard->decision, PG_GETARG_DATUM(2), PG_ARGISNULL(2), &number, &form);
	if (guard->decision.action[finding] != GUARD_ALLOW &&
		!ndrs_guard_value_passed(fcinfo, 2, relid))
	{
		ndrs_count_refusal(target, finding);
		ndrs_guard_reject(finding, form, OidIsValid(relid) ? relid : target);
	}
	if (PG_NARGS() > 6 &&
		!ndrs_guard_encoded_agrees(form == NHS_NUMBER_VALID && !nhs_number_is_placeholder(number) ? &number : NULL,
								   PG_ARGISNULL(6) ? NULL : (EncodedNhsNumber *) PG_GETARG_POINTER(6)))
		misencoded(fcinfo->flinfo, OidIsValid(relid) ? relid : target);
	PG_RETURN_BOOL(true);
}
