-- An independent proof: what is held about a patient, before and after.
--
-- Uses nothing of the extension, not even its types.  Run before the opt-out, with the psql variable
-- number (ten digits); afterwards view audit.comparison reads every row of every table again.

\set ON_ERROR_STOP on
\set QUIET on

create schema audit;

-- The patient's ids, one row per id column, found by joins from the number.
create table audit.patient_id as
with av as (
    select patientid from cancer.av_patient where translate(nhsnumber, ' -', '') = :'number'
), sact as (
    select merged_patient_id from cancer.sact_patient where nhsnumber = :'number'
), tumour as (
    select merged_tumour_id from cancer.sact_tumour where merged_patient_id in (table sact)
), regimen as (
    select merged_regimen_id from cancer.sact_regimen where merged_tumour_id in (table tumour)
), cycle as (
    select merged_cycle_id from cancer.sact_cycle where merged_regimen_id in (table regimen)
), rare as (
    select patient_id from rare_disease.patient where nhs_number = :number
)
select 'cancer' as register, 'patientid' as id_column, array(table av) as ids
union all
select 'cancer', 'tumourid', array(select tumourid from cancer.av_tumour where patientid in (table av))
union all
select 'cancer', 'merged_patient_id', array(table sact)
union all
select 'cancer', 'merged_tumour_id', array(table tumour)
union all
select 'cancer', 'merged_regimen_id', array(table regimen)
union all
select 'cancer', 'merged_outcome_id', array(select merged_outcome_id from cancer.sact_outcome
                                            where merged_regimen_id in (table regimen))
union all
select 'cancer', 'merged_cycle_id', array(table cycle)
union all
select 'cancer', 'merged_drug_detail_id', array(select merged_drug_detail_id from cancer.sact_drug_detail
                                                where merged_cycle_id in (table cycle))
union all
select 'rare_disease', 'patient_id', array(table rare)
union all
select 'rare_disease', 'diagnosis_id', array(select diagnosis_id from rare_disease.diagnosis
                                             where patient_id in (table rare));

-- Every table of the three registers, with its primary key and the condition that makes a row t the
-- patient's: the number anywhere in it, however it is spaced, or one of those ids in a column of
-- that name.
create table audit.register_table as
select c.oid::regclass as relation, n.nspname::text as register, k.attname as key,
       concat_ws(' or ',
                 format('translate(t::text, '' -'', '''') like ''%%%s%%''', :'number'),
                 (select string_agg(format('t.%I = any (%L::bigint[])', a.attname, p.ids), ' or ' order by a.attnum)
                  from audit.patient_id p
                  join pg_attribute a on a.attrelid = c.oid and a.attname = p.id_column
                  where p.register = n.nspname)) as hers
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_index i on i.indrelid = c.oid and i.indisprimary
join pg_attribute k on k.attrelid = c.oid and k.attnum = i.indkey[0]
where n.nspname in ('cancer', 'rare_disease', 'congenital_anomaly') and c.relkind = 'r';

-- Count the rows of a table, and sum up the hashes of those that are not hers.  Rows with keys above
-- the highest one are new: they are counted by themselves and left out of the sum.
create function audit.inspect(target audit.register_table, known bigint,
    out rows bigint, out hers bigint, out arrived bigint, out highest bigint, out others numeric)
language plpgsql as $$
begin
    execute format(
        'select count(*), count(*) filter (where hers), count(*) filter (where key > $1), max(key),
                sum(hash) filter (where not hers and (key > $1) is not true)
         from (select t.%I as key, hashtextextended(t::text, 0) as hash, %s as hers from %s t offset 0) as r',
        target.key, target.hers, target.relation)
        using known into rows, hers, arrived, highest, others;
end
$$;

create table audit.before as
select t.relation, t.register, i.*
from audit.register_table t, audit.inspect(t, null) i;

create view audit.comparison as
select t.relation, t.register, b.rows as before, b.hers, i.arrived, i.rows as now, i.hers as hers_now,
       i.others is not distinct from b.others as others_unchanged
from audit.before b
join audit.register_table t using (relation)
cross join lateral audit.inspect(t, b.highest) i
order by array_position('{cancer,rare_disease,congenital_anomaly}', t.register), t.relation::text;
