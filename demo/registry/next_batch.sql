-- Write a hospital's next delivery: av_patient.csv and sact_patient.csv in the directory that the
-- psql variable dir names.  Fifty rows each: one is about 9990000018, under a patient id that the
-- registry has not seen, the other 49 are about people who are new to every register.

\set ON_ERROR_STOP on
\set QUIET on
\ir functions.sql

-- populate.sql hands the test ranges out from 999 downwards; these come from the other end.
create temp table next_patient as
with present as (
    select ndrs_optout.nhs_number_or_null(nhsnumber)::bigint as nhs_number from cancer.av_patient
    union all
    select ndrs_optout.nhs_number_or_null(nhsnumber)::bigint from cancer.sact_patient
    union all
    select nhs_number from rare_disease.patient
    union all
    select nhs_number::bigint from congenital_anomaly.mother
    union all
    select nhs_number::bigint from congenital_anomaly.baby
), fresh as (
    select nine * 10 + pg_temp.check_digit(nine) as nhs_number
    from generate_series(900000000::bigint, 900099999) nine
    where pg_temp.check_digit(nine) < 10
    except
    select nhs_number from present
    order by nhs_number
    limit 49
), delivery as (
    -- the line that matters stands in the middle of the file
    select nhs_number, row_number() over (order by nhs_number) as line from fresh
    union all
    select 9990000018, 24.5
)
select row_number() over (order by line) as n, nhs_number,
       (select max(patientid) from cancer.av_patient) as last_patientid,
       (select max(merged_patient_id) from cancer.sact_patient) as last_merged_patient_id
from delivery;

copy (select last_patientid + n as patientid,
             (1 + pg_temp.draw(nhs_number, 70, 2))::text as sex,
             case when nhs_number = 9990000018 then '999 000 0018' else nhs_number::text end as nhsnumber,
             'Z' as ethnicity,
             'A' as newvitalstatus,
             date '2023-03-31' as vitalstatusdate
      from next_patient order by n)
to stdout with (format csv, header) \g :dir/av_patient.csv

copy (select last_merged_patient_id + n as merged_patient_id, nhs_number as nhsnumber
      from next_patient order by n)
to stdout with (format csv, header) \g :dir/sact_patient.csv

drop table next_patient;
