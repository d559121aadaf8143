-- Fill the registry with synthetic patients.  psql variables:
--   patients   cancer patients, 100 to 2,200,000 (default 20000); the rest follows from it
--   registry   the directory of this script (default demo/registry: run from the top of the project)
-- The same number of patients gives the same rows on every run.

\set ON_ERROR_STOP on
\if :{?patients}
\else
    \set patients 20000
\endif
\if :{?registry}
\else
    \set registry demo/registry
\endif

-- After each long step: the time since the start, the step, its rows.
\set report 'select to_char(clock_timestamp() - :''started'', ''MI:SS'') as elapsed, '
\set report :report ':ROW_COUNT as rows \\gset \\\\ \\echo :elapsed :step :rows'
-- \copy takes no variables, but a variable can hold a whole \copy.
\set load_distribution '\\copy distribution from ''' :registry '/distribution.csv'' csv header'

\set QUIET on
select clock_timestamp() as started \gset

begin;
set local work_mem = '256MB';
set local jit = off;
\ir functions.sql


-- Profiles: a pool of tumours ------------------------------------------------------------------
--
-- Only the marginal distributions are published.  Each attribute gets one slot per profile, filled
-- in proportion to its counts, so the pool has the published marginals to the nearest slot; slots are
-- dealt to profiles at random, except where an affinity says that a site and a value belong together.
-- Then a tumour is one look-up, not thirty weighted draws.  A small registry needs fewer profiles.
select least(greatest(:patients / 4, 2048), 32768) as profiles \gset

create temp table distribution (
    attribute text collate "C",
    value     text collate "C",
    weight    bigint
) on commit drop;
:load_distribution

-- No counts are published for these: round figures, but for the share of the treated.
insert into distribution values
    ('treated', 't', 366266), ('treated', 'f', 2200626 - 366266),
    ('ethnicity', 'A', 82), ('ethnicity', 'B', 1), ('ethnicity', 'C', 4), ('ethnicity', 'H', 2),
    ('ethnicity', 'J', 1), ('ethnicity', 'M', 1), ('ethnicity', 'N', 1), ('ethnicity', 'X', 3),
    ('ethnicity', 'Z', 5),
    ('newvitalstatus', 'A', 66), ('newvitalstatus', 'D', 33), ('newvitalstatus', 'X', 1),
    ('deathlocationcode', '1', 40), ('deathlocationcode', '2', 18), ('deathlocationcode', '4', 28),
    ('deathlocationcode', '5', 12), ('deathlocationcode', 'X', 2);

-- Sites (low ranks first) take values (low ranks first); what no line names has rank 50.
create temp table affinity (attribute text collate "C", rank integer, site text, value text)
    on commit drop;
insert into affinity values
    ('sex', 10, '^(C5|D0[56]|D07[0-3]|D27|D39)', '^2'),
    ('sex', 90, '^(C6[0-3]|D07[4-6]|D29|D40)', '^1'),
    ('age', 10, '^D06', '^(2\d|3[0-7])$'),
    ('age', 20, '^(C22|C4[01679]|C62|C64|C69|C7[1-4]|C81|C9[12]|D33)', '^(1?\d|3[89])$'),
    ('morph_icd10_o2', 10, '^D06', '^8077'),
    ('morph_icd10_o2', 20, '^(C44|D04)', '^809'),
    ('morph_icd10_o2', 30, '^(C0|C1[0-5]|C21|C3[0-2]|C5[1-3]|C60|D0[0-2]|D07)', '^80(10|[568]|7[0-68])'),
    ('morph_icd10_o2', 60, '^(C50|D05)', '^85'),
    ('morph_icd10_o2', 65, '^(C6[5-8]|D09)', '^81[23]'),
    ('morph_icd10_o2', 70, '^C4[01679]', '^8[89]'),
    ('morph_icd10_o2', 75, '^(C[89]|D4[5-7])', '^9(59|[6-9])'),
    ('morph_icd10_o2', 80, '^(C45|C48|C58|C62)', '^9[01]'),
    ('morph_icd10_o2', 85, '^(C7[0-2]|D3[23]|D4[23])', '^9(3[89]|4|5[0-3])'),
    ('morph_icd10_o2', 90, '^(C43|D03)', '^87[2-9]'),
    ('behaviour_icd10_o2', 10, '^D[1-4]', '^[01]'),
    ('behaviour_icd10_o2', 20, '^D0', '^2'),
    ('behaviour_icd10_o2', 90, '^C7[7-9]', '^[69]'),
    ('stage_best', 10, '^D0', '^0'),
    ('stage_best', 90, '^(C44|C[89]|D[1-4])', '^[?UX]'),
    ('t_best', 90, '^(C44|C[89]|D)', '^$'),
    ('n_best', 90, '^(C44|C[89]|D)', '^$'),
    ('m_best', 90, '^(C44|C[89]|D)', '^$'),
    ('screeningstatusfull_code', 10, '^(C1[89]|C20|C50|C53|D0[56])', '.'),
    ('er_status', 10, '^(C50|D05)', '.'),
    ('er_score', 10, '^(C50|D05)', '.'),
    ('pr_status', 10, '^(C50|D05)', '.'),
    ('pr_score', 10, '^(C50|D05)', '.'),
    ('her2_status', 10, '^(C50|D05)', '.'),
    ('gleason_primary', 10, '^C61', '.'),
    ('gleason_secondary', 10, '^C61', '.'),
    ('gleason_tertiary', 10, '^C61', '.'),
    ('laterality', 10, '^(C3[0134]|C50|C56|C6[2-69]|C74|D05)', '^[BLMR]'),
    ('laterality', 20, '^(C4[347]|D03)', '^[BLMR]'),
    ('laterality', 90, '^(C[0-2789]|C5[1-5]|C61|D)', '^8'),
    ('treated', 10, '^(C1[5-9]|C2[05]|C3[34]|C45|C50|C5[3-7]|C62|C67|C[89])', '^t'),
    ('treated', 90, '^(C44|D0)', '^f'),
    ('newvitalstatus', 10, '^(C1[56]|C2[2-5]|C3[34]|C45|C71|C78|C80)', '^D'),
    ('newvitalstatus', 90, '^(C44|D0)', '^A');

create temp table slot on commit drop as
with ranked as (
    select d.attribute, d.value, d.weight, coalesce(min(a.rank), 50) as rank
    from distribution d
    left join affinity a on a.attribute = d.attribute and coalesce(d.value, '') ~ a.value
    group by d.attribute, d.value, d.weight
), cumulative as (
    select attribute, value, weight, rank,
           sum(weight) over (partition by attribute order by value rows unbounded preceding) as upto,
           sum(weight) over (partition by attribute) as total
    from ranked
), filled as (
    select attribute, value, rank,
           generate_series(round(:profiles * (upto - weight) / total)::bigint,
                           round(:profiles * upto / total)::bigint - 1) as slot
    from cumulative
)
select attribute, value,
       row_number() over (partition by attribute
                          order by rank, hashtextextended(attribute, slot)) as place
from filled;

-- Where each profile stands in the queue for the values of each attribute.  Attributes with the same
-- first word queue alike within a rank, so whoever has an ER score also has an ER status.
create temp table queue on commit drop as
with site as (
    select place as profile, coalesce(value, '') as site from slot where attribute = 'site_icd10_o2'
), site_rank as (
    select d.attribute, s.site, coalesce(min(a.rank), 50) as rank
    from (select distinct attribute from distribution where attribute <> 'site_icd10_o2') d
    cross join (select distinct site from site) s
    left join affinity a on a.attribute = d.attribute and s.site ~ a.site
    group by d.attribute, s.site
)
select attribute, profile,
       row_number() over (partition by attribute
                          order by rank, hashtextextended(split_part(attribute, '_', 1), profile)) as place
from site join site_rank using (site)
union all
select 'site_icd10_o2', profile, profile from site;

-- One row per profile.  Women come first, so that a second tumour can be drawn from the same sex.
create temp table profile on commit drop as
with profile as (
    select profile,
           max(value) filter (where attribute = 'treated')::boolean as treated,
           max(value) filter (where attribute = 'ethnicity') as ethnicity,
           max(value) filter (where attribute = 'newvitalstatus') as newvitalstatus,
           max(value) filter (where attribute = 'deathlocationcode') as deathlocationcode,
           to_date(max(value) filter (where attribute = 'diagnosismonthbest'), 'YYYY-MM') as diagnosis_month,
           max(value) filter (where attribute = 'had_surgery')::boolean as had_surgery,
           max(value) filter (where attribute = 'site_icd10_o2') as site_icd10_o2,
           max(value) filter (where attribute = 'morph_icd10_o2') as morph_icd10_o2,
           max(value) filter (where attribute = 'behaviour_icd10_o2') as behaviour_icd10_o2,
           max(value) filter (where attribute = 't_best') as t_best,
           max(value) filter (where attribute = 'n_best') as n_best,
           max(value) filter (where attribute = 'm_best') as m_best,
           max(value) filter (where attribute = 'stage_best') as stage_best,
           max(value) filter (where attribute = 'stage_best_system')::integer as stage_best_system,
           max(value) filter (where attribute = 'grade') as grade,
           max(value) filter (where attribute = 'age')::integer as age,
           max(value) filter (where attribute = 'sex') as sex,
           max(value) filter (where attribute = 'creg_code') as creg_code,
           max(value) filter (where attribute = 'screeningstatusfull_code') as screeningstatusfull_code,
           max(value) filter (where attribute = 'er_status') as er_status,
           max(value) filter (where attribute = 'er_score') as er_score,
           max(value) filter (where attribute = 'pr_status') as pr_status,
           max(value) filter (where attribute = 'pr_score') as pr_score,
           max(value) filter (where attribute = 'her2_status') as her2_status,
           max(value) filter (where attribute = 'cancercareplanintent') as cancercareplanintent,
           max(value) filter (where attribute = 'performancestatus') as performancestatus,
           max(value) filter (where attribute = 'cns') as cns,
           max(value) filter (where attribute = 'ace27') as ace27,
           max(value) filter (where attribute = 'gleason_primary')::integer as gleason_primary,
           max(value) filter (where attribute = 'gleason_secondary')::integer as gleason_secondary,
           max(value) filter (where attribute = 'gleason_tertiary')::integer as gleason_tertiary,
           max(value) filter (where attribute = 'laterality') as laterality,
           max(value) filter (where attribute = 'quintile_2015') as quintile_2015
    from queue join slot using (attribute, place)
    group by profile
)
select row_number() over (order by sex desc, profile) as number, profile.*
from profile;
create unique index on profile (number);
analyze profile;

select count(*) filter (where sex = '2') as women,
       -- the demo's own patient: a woman treated for breast cancer, alive
       min(number) filter (where sex = '2' and site_icd10_o2 like 'C50%' and treated
                             and newvitalstatus = 'A') as own_profile
from profile \gset
\set own_number 9990000018
\set own_birth_date 1980-03-14


-- People -----------------------------------------------------------------------------------------
--
-- Everybody with a number: the cancer patients, then as many rare disease patients, mothers and
-- babies as one in a hundred of them.  Person 1 is the demo's own patient.
select greatest(:patients / 100, 1) as others \gset

-- Valid numbers of the 999 test range, then of 998 and so on.  Within a range they are shuffled, so
-- that neighbours in an index on the number are not neighbours in the table.
create temp table person_number on commit drop as
with candidate as (
    select (999 - n / 1000000) * 1000000 + n % 1000000 as nine
    from generate_series(0::bigint, ((:patients + 3 * :others) * 1.1)::bigint + 10) n
), issued as (
    select nine / 1000000 as range, nine * 10 + pg_temp.check_digit(nine) as nhs_number
    from candidate
    where pg_temp.check_digit(nine) < 10
      and nine <> 999999999     -- 9999999999 stands for "missing" in real feeds
    order by range desc, nine
    limit :patients + 3 * :others
)
select row_number() over (order by nhs_number <> :own_number, range desc,
                                   hashint8extended(nhs_number, 0)) as person,
       nhs_number
from issued;
create unique index on person_number (person);
analyze person_number;

create temp table patient on commit drop as
with drawn as (
    select person as patientid, nhs_number,
           case when person = 1 then :own_profile else 1 + pg_temp.draw(person, 1, :profiles) end as profile,
           case when person = 1 then 2
                else 1 + width_bucket(pg_temp.draw(person, 2, 10000), array[9310, 9915]) end as tumours
    from person_number
    where person <= :patients
), dated as (
    select d.*, treated, diagnosis_month + pg_temp.draw(patientid, 3, 28) as diagnosis_date, age
    from drawn d join profile on number = d.profile
)
select patientid, nhs_number, profile, tumours, treated, diagnosis_date,
       case when patientid = 1 then date :'own_birth_date'
            else (diagnosis_date - age * interval '1 year')::date - pg_temp.draw(patientid, 4, 365)
       end as birth_date
from dated;
create unique index on patient (patientid);
analyze patient;


-- The cancer register ----------------------------------------------------------------------------

-- Each further tumour is diagnosed within 330 days of the one before, and treatment ends within 770
-- days of the first diagnosis: nobody dies before that.
\set step cancer.av_patient
insert into cancer.av_patient
select patientid, sex,
       -- one number in fifty is written as on a hospital letter
       case when pg_temp.draw(patientid, 5, 50) = 0 and patientid > 1
            then to_char(nhs_number, 'FM000 000 0000') else nhs_number::text end,
       ethnicity,
       case when dead then site_icd10_o2 end,
       case when dead and pg_temp.draw(patientid, 6, 3) = 0 then 'J189' end,
       null,
       case when dead and pg_temp.draw(patientid, 7, 4) = 0 then 'I259' end,
       case when dead then site_icd10_o2 end,
       case when dead then deathlocationcode end,
       newvitalstatus,
       case when dead
            then diagnosis_date + 330 * (tumours - 1) + case when p.treated then 770 else 0 end
                 + pg_temp.draw(patientid, 8, 1000)
            else date '2022-12-31' end
from patient p
join profile on number = p.profile
cross join lateral (select newvitalstatus = 'D' as dead) vital;
:report

\set step cancer.av_tumour
insert into cancer.av_tumour
with tumour as (
    select patientid * 10 + n as tumourid, patientid, birth_date,
           case when n = 1 then diagnosis_date
                else diagnosis_date + 330 * (n - 1) - pg_temp.draw(patientid, 10, 300) end as diagnosis_date,
           case when n = 1 then profile
                when profile <= :women then 1 + pg_temp.draw(patientid, 10 + n, :women)
                else 1 + :women + pg_temp.draw(patientid, 10 + n, :profiles - :women) end as profile
    from (select *, generate_series(1, tumours) as n from patient) p
)
select tumourid, patientid, diagnosis_date,
       site_icd10_o2, left(site_icd10_o2, 3), morph_icd10_o2, behaviour_icd10_o2,
       t_best, n_best, m_best, stage_best, stage_best_system, grade,
       extract(year from age(diagnosis_date, birth_date)), sex, creg_code, screeningstatusfull_code,
       er_status, er_score, pr_status, pr_score, her2_status,
       cancercareplanintent, performancestatus, cns, ace27,
       gleason_primary, gleason_secondary, gleason_tertiary, gleason_primary + gleason_secondary,
       case when had_surgery then diagnosis_date + pg_temp.draw(tumourid, 13, 120) end,
       laterality, quintile_2015
from tumour join profile on number = tumour.profile;
:report

-- Common treatments; how they are shared out is ours.
create temp table treatment (disease text, choice integer, regimen text, drugs text[]) on commit drop;
insert into treatment values
    ('breast', 0, 'FEC', '{FLUOROURACIL,EPIRUBICIN,CYCLOPHOSPHAMIDE}'),
    ('breast', 1, 'DOCETAXEL + TRASTUZUMAB', '{DOCETAXEL,TRASTUZUMAB}'),
    ('breast', 2, 'PACLITAXEL', '{PACLITAXEL}'),
    ('bowel', 0, 'FOLFOX MODIFIED', '{OXALIPLATIN,FOLINIC ACID,FLUOROURACIL}'),
    ('bowel', 1, 'IRINOTECAN MDG', '{IRINOTECAN,FOLINIC ACID,FLUOROURACIL}'),
    ('bowel', 2, 'CAPECITABINE', '{CAPECITABINE}'),
    ('lung', 0, 'CARBOPLATIN + VINORELBINE', '{CARBOPLATIN,VINORELBINE}'),
    ('lung', 1, 'CISPLATIN + PEMETREXED', '{CISPLATIN,PEMETREXED}'),
    ('lung', 2, 'PEMBROLIZUMAB', '{PEMBROLIZUMAB}'),
    ('blood', 0, 'R-CHOP', '{RITUXIMAB,CYCLOPHOSPHAMIDE,DOXORUBICIN,VINCRISTINE,PREDNISOLONE}'),
    ('blood', 1, 'BORTEZOMIB + DEXAMETHASONE', '{BORTEZOMIB,DEXAMETHASONE}'),
    ('blood', 2, 'AZACITIDINE', '{AZACITIDINE}'),
    ('other', 0, 'CARBOPLATIN + PACLITAXEL', '{CARBOPLATIN,PACLITAXEL}'),
    ('other', 1, 'CISPLATIN + FLUOROURACIL', '{CISPLATIN,FLUOROURACIL}'),
    ('other', 2, 'GEMCITABINE', '{GEMCITABINE}');

-- The feed's own ids say nothing about patientid.  Below them an id is its parent's with one more
-- digit, so no level has to be numbered.
create temp table treated on commit drop as
select 10000000 + row_number() over (order by hashint8extended(patientid, 20)) as merged_patient_id,
       patientid, nhs_number, diagnosis_date, site_icd10_o2, morph_icd10_o2 || behaviour_icd10_o2 as morphology,
       case when site_icd10_o2 ~ '^(C50|D05)' then 'breast'
            when site_icd10_o2 ~ '^C(1[89]|20)' then 'bowel'
            when site_icd10_o2 ~ '^C3[34]' then 'lung'
            when site_icd10_o2 ~ '^(C[89]|D4[5-7])' then 'blood'
            else 'other' end as disease
from patient p join profile on number = p.profile
where p.treated;
create unique index on treated (merged_patient_id);
analyze treated;
select merged_patient_id as own_sact_patient from treated where patientid = 1 \gset

\set step cancer.sact_patient
insert into cancer.sact_patient
select merged_patient_id, nhs_number from treated;
:report

\set step cancer.sact_tumour
insert into cancer.sact_tumour
select merged_patient_id * 10 + 1, merged_patient_id,
       (array[370, 800, 303])[1 + pg_temp.draw(merged_patient_id, 21, 3)], site_icd10_o2, morphology
from treated;
:report

-- About 2.0 regimens a patient, 3.3 cycles a regimen, 2.6 drug rows a cycle.  The demo's own patient
-- has 2 regimens, 4 + 3 cycles and 4 * 3 + 3 * 2 drug rows.
\set step cancer.sact_regimen
insert into cancer.sact_regimen
with planned as (
    select *, generate_series(1, case when patientid = 1 then 2
                                      else 1 + width_bucket(pg_temp.draw(merged_patient_id, 22, 100),
                                                            array[46, 73, 87, 94]) end) as n
    from treated
), decided as (
    select *, merged_patient_id * 100 + 10 + n as merged_regimen_id,
           diagnosis_date + 14 + 150 * (n - 1) + pg_temp.draw(merged_patient_id * 10 + n, 23, 10)
               as decision_date
    from planned
)
select merged_regimen_id, merged_patient_id * 10 + 1,
       1.45 + pg_temp.draw(merged_patient_id, 24, 45) / 100.0,
       45 + pg_temp.draw(merged_regimen_id, 25, 600) / 10.0,
       (array['A', 'C', 'N', 'P', 'P'])[1 + pg_temp.draw(merged_regimen_id, 26, 5)],
       decision_date, decision_date + pg_temp.draw(merged_regimen_id, 27, 7), regimen,
       case when pg_temp.draw(merged_regimen_id, 28, 20) = 0 then 'Y' else 'N' end,
       case when pg_temp.draw(merged_regimen_id, 29, 12) = 0 then 'Y' else 'N' end,
       merged_patient_id, regimen
from decided d
join treatment t on t.disease = d.disease and choice = pg_temp.draw(merged_regimen_id, 30, 3);
:report

\set step cancer.sact_cycle
insert into cancer.sact_cycle
select merged_regimen_id * 10 + n, merged_regimen_id, n, start_date_of_regimen + 21 * (n - 1),
       'X7' || 10 + pg_temp.draw(merged_regimen_id, 31, 10),
       pg_temp.draw(merged_regimen_id * 10 + n, 32, 3)::text, merged_patient_id, merged_tumour_id
from (select *, generate_series(1, case when merged_patient_id = :own_sact_patient
                                        then 5 - (merged_regimen_id % 10)::integer
                                        else 1 + width_bucket(pg_temp.draw(merged_regimen_id, 33, 100),
                                                              array[24, 38, 56, 70, 79]) end) as n
      from cancer.sact_regimen) r;
:report

-- The rows of one cycle go through the regimen's drugs, again a week later if there are more rows.
\set step cancer.sact_drug_detail
insert into cancer.sact_drug_detail
with planned as (
    select c.*, drugs,
           generate_series(0, case when c.merged_patient_id = :own_sact_patient
                                   then 3 - (merged_regimen_id % 10)::integer
                                   else width_bucket(pg_temp.draw(merged_cycle_id, 34, 1000),
                                                     array[250, 515, 750, 870]) end) as n
    from cancer.sact_cycle c
    join cancer.sact_regimen using (merged_regimen_id)
    join treatment on regimen = mapped_regimen
)
select merged_cycle_id * 10 + n, merged_cycle_id,
       to_char(pg_temp.draw(merged_patient_id, 35, 162), '"Z"FM0000'),      -- no real provider's code
       25 + pg_temp.draw(merged_cycle_id * 10 + n, 36, 2000) / 2.0,
       'X72' || 1 + pg_temp.draw(merged_cycle_id, 37, 4),
       1 + pg_temp.draw(merged_regimen_id, 38, 3),
       start_date_of_cycle + 7 * (n / cardinality(drugs)),
       drugs[1 + n % cardinality(drugs)], merged_patient_id, merged_tumour_id, merged_regimen_id
from planned;
:report

-- One regimen in twenty has no outcome yet.
\set step cancer.sact_outcome
insert into cancer.sact_outcome
select merged_regimen_id, merged_regimen_id, last_cycle,
       case when pg_temp.draw(merged_regimen_id, 39, 3) = 0 then 'Y' else 'N' end,
       case when pg_temp.draw(merged_regimen_id, 40, 3) = 0 then 'Y' else 'N' end,
       case when pg_temp.draw(merged_regimen_id, 41, 5) = 0 then 'Y' else 'N' end,
       (1 + pg_temp.draw(merged_regimen_id, 42, 4))::text, merged_patient_id, merged_tumour_id
from cancer.sact_regimen
join (select merged_regimen_id, max(start_date_of_cycle) as last_cycle
      from cancer.sact_cycle group by 1) c using (merged_regimen_id)
where pg_temp.draw(merged_regimen_id, 43, 20) > 0 or merged_patient_id = :own_sact_patient;
:report


-- The rare disease register ----------------------------------------------------------------------

-- Person 1 and one in ten of the others are cancer patients too; the rest are people of their own.
\set step rare_disease.patient
insert into rare_disease.patient
select n, person_number.nhs_number, coalesce(birth_date, date '1930-01-01' + pg_temp.draw(n, 50, 30000))
from generate_series(1, :others) n
join person_number on person = case when n = 1 then 1 when n % 10 = 0 then n * 100 - 50 else :patients + n end
left join patient on patientid = person;
:report

\set step rare_disease.diagnosis
insert into rare_disease.diagnosis
select patient_id * 10 + n, patient_id,
       case when patient_id = 1 then 'ORPHA:524'       -- Li-Fraumeni syndrome goes with breast cancer
            else (array['ORPHA:324', 'ORPHA:355', 'ORPHA:399', 'ORPHA:524', 'ORPHA:558', 'ORPHA:586',
                        'ORPHA:636', 'ORPHA:805', 'ORPHA:892', 'ORPHA:905',
                        'ORPHA:98896'])[1 + pg_temp.draw(patient_id * 10 + n, 51, 11)] end,
       greatest(birth_date, date '2010-01-01') + pg_temp.draw(patient_id * 10 + n, 52, 1000),
       (array['confirmed', 'confirmed', 'probable', 'suspected'])[1 + pg_temp.draw(patient_id * 10 + n, 53, 4)]
from (select *, generate_series(1, case when pg_temp.draw(patient_id, 54, 12) = 0 and patient_id > 1
                                        then 2 else 1 end) as n
      from rare_disease.patient) p;
:report


-- The congenital anomaly register ----------------------------------------------------------------

create temp table birth on commit drop as
select n, date '2005-01-01' + pg_temp.draw(n, 60, 4700) as birth_date
from generate_series(1, :others) n
where n > 1
union all
select 1, date '2010-06-02';

\set step congenital_anomaly.mother
insert into congenital_anomaly.mother
select n, person_number.nhs_number::ndrs_optout.nhs_number,
       coalesce(p.birth_date, b.birth_date - 18 * 365 - pg_temp.draw(n, 61, 24 * 365))
from birth b
join person_number on person = case when n = 1 then 1 else :patients + :others + n end
left join patient p on patientid = person;
:report

-- One baby in ten never had a number.
\set step congenital_anomaly.baby
insert into congenital_anomaly.baby
select n, n,
       case when n = 1 or pg_temp.draw(n, 62, 10) > 0 then nhs_number::ndrs_optout.nhs_number end, birth_date
from birth join person_number on person = :patients + 2 * :others + n;
:report

\set step congenital_anomaly.anomaly
insert into congenital_anomaly.anomaly
select baby_id * 10 + n, baby_id,
       (array['Q000', 'Q039', 'Q059', 'Q203', 'Q210', 'Q213', 'Q359', 'Q369', 'Q390', 'Q423', 'Q602', 'Q660',
              'Q790', 'Q793', 'Q900', 'Q913'])[1 + pg_temp.draw(baby_id * 10 + n, 63, 16)],
       birth_date + pg_temp.draw(baby_id * 10 + n, 64, 60)
from (select *, generate_series(1, case when pg_temp.draw(baby_id, 65, 4) = 0 and baby_id > 1
                                        then 2 else 1 end) as n
      from congenital_anomaly.baby) b;
:report

commit;

analyze;
select to_char(clock_timestamp() - :'started', 'MI:SS') as elapsed \gset
\echo :elapsed analyzed
