-- Run after loading: an index on every foreign key and on every NHS number.  With them one patient's
-- rows are found in well under a millisecond, without them each level is a scan of its table.

create index on cancer.av_tumour (patientid);
create index on cancer.sact_tumour (merged_patient_id);
create index on cancer.sact_regimen (merged_tumour_id);
create index on cancer.sact_outcome (merged_regimen_id);
create index on cancer.sact_cycle (merged_regimen_id);
create index on cancer.sact_drug_detail (merged_cycle_id);
create index on rare_disease.diagnosis (patient_id);
create index on congenital_anomaly.baby (mother_id);
create index on congenital_anomaly.anomaly (baby_id);

-- A number kept as text may be written in more than one way, so it is indexed by what it means.
create index on cancer.av_patient (ndrs_optout.nhs_number_or_null(nhsnumber));
create index on cancer.sact_patient (ndrs_optout.nhs_number_or_null(nhsnumber));
create index on rare_disease.patient (nhs_number);
create index on congenital_anomaly.mother (nhs_number);
create index on congenital_anomaly.baby (nhs_number);

-- An index on an expression has statistics of its own.
analyze cancer.av_patient, cancer.sact_patient;
