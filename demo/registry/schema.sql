-- A disease registry: three registers, one schema each.  Run after CREATE EXTENSION ndrs_optout.
--
-- The cancer register follows the published layout of the Simulacrum, whose tables mirror the real
-- ones.  Where the released data hold a link number the registry itself holds the NHS number.
-- Most tables have no NHS number: the way to a drug row is
-- number -> patient -> tumour -> regimen -> cycle -> drug.

create schema cancer;
comment on schema cancer is 'cancer registrations (av_) and systemic anti-cancer therapy (sact_)';

-- A person can own several patient ids until they are merged: the number is not unique, and feeds
-- write it with and without spaces.
create table cancer.av_patient (
    patientid                bigint primary key,
    sex                      text,
    nhsnumber                text,
    ethnicity                text,
    deathcausecode_1a        text,
    deathcausecode_1b        text,
    deathcausecode_1c        text,
    deathcausecode_2         text,
    deathcausecode_underlying text,
    deathlocationcode        varchar(64),
    newvitalstatus           varchar(56),
    vitalstatusdate          date
);

create table cancer.av_tumour (
    tumourid                 bigint primary key,
    patientid                bigint not null references cancer.av_patient,
    diagnosisdatebest        date,
    site_icd10_o2            text,
    site_icd10_o2_3char      varchar(3),
    morph_icd10_o2           text,
    behaviour_icd10_o2       text,
    t_best                   text,
    n_best                   text,
    m_best                   text,
    stage_best               text,
    stage_best_system        integer,
    grade                    varchar(64),
    age                      integer,
    sex                      text,
    creg_code                varchar(5),
    screeningstatusfull_code text,
    er_status                varchar(2),
    er_score                 varchar(1),
    pr_status                varchar(2),
    pr_score                 varchar(1),
    her2_status              varchar(2),
    cancercareplanintent     varchar(2),
    performancestatus        varchar(2),
    cns                      varchar(3),
    ace27                    varchar(2),
    gleason_primary          integer,
    gleason_secondary        integer,
    gleason_tertiary         integer,
    gleason_combined         integer,
    date_first_surgery       date,
    laterality               text,
    quintile_2015            varchar(18)
);

-- SACT arrives from the hospitals by a feed of its own, with ids of its own: nothing but the NHS
-- number joins it to av_patient.
create table cancer.sact_patient (
    merged_patient_id        bigint primary key,
    nhsnumber                char(10)
);

create table cancer.sact_tumour (
    merged_tumour_id         bigint primary key,
    merged_patient_id        bigint not null references cancer.sact_patient,
    consultant_speciality_code integer,
    primary_diagnosis        varchar(6),
    morphology_clean         varchar(5)
);

-- Below sact_tumour every table repeats the ids of the levels above.  Only its own parent is a
-- declared reference; the rest are plain columns, as in the released tables.
create table cancer.sact_regimen (
    merged_regimen_id        bigint primary key,
    merged_tumour_id         bigint not null references cancer.sact_tumour,
    height_at_start_of_regimen numeric(10,3),
    weight_at_start_of_regimen numeric(10,3),
    intent_of_treatment      varchar(1),
    date_decision_to_treat   date,
    start_date_of_regimen    date,
    mapped_regimen           text,
    clinical_trial           varchar(2),
    chemo_radiation          varchar(1),
    merged_patient_id        bigint,
    benchmark_group          varchar(100)
);

create table cancer.sact_outcome (
    merged_outcome_id        bigint primary key,
    merged_regimen_id        bigint not null references cancer.sact_regimen,
    date_of_final_treatment  date,
    regimen_mod_dose_reduction varchar(1),
    regimen_mod_time_delay   varchar(1),
    regimen_mod_stopped_early varchar(1),
    regimen_outcome_summary  varchar(1),
    merged_patient_id        bigint,
    merged_tumour_id         bigint
);

create table cancer.sact_cycle (
    merged_cycle_id          bigint primary key,
    merged_regimen_id        bigint not null references cancer.sact_regimen,
    cycle_number             integer,
    start_date_of_cycle      date,
    opcs_procurement_code    varchar(4),
    perf_status_start_of_cycle varchar(2),
    merged_patient_id        bigint,
    merged_tumour_id         bigint
);

create table cancer.sact_drug_detail (
    merged_drug_detail_id    bigint primary key,
    merged_cycle_id          bigint not null references cancer.sact_cycle,
    org_code_of_drug_provider varchar(5),
    actual_dose_per_administration numeric(10,3),
    opcs_delivery_code       varchar(4),
    administration_route     integer,
    administration_date      date,
    drug_group               text,
    merged_patient_id        bigint,
    merged_tumour_id         bigint,
    merged_regimen_id        bigint
);


create schema rare_disease;
comment on schema rare_disease is 'rare disease registrations';

create table rare_disease.patient (
    patient_id               bigint primary key,
    nhs_number               bigint,
    birth_date               date
);

create table rare_disease.diagnosis (
    diagnosis_id             bigint primary key,
    patient_id               bigint not null references rare_disease.patient,
    orpha_code               text not null,
    diagnosis_date           date,
    certainty                text check (certainty in ('confirmed', 'probable', 'suspected'))
);


create schema congenital_anomaly;
comment on schema congenital_anomaly is 'congenital anomaly registrations: mothers, babies, anomalies';

create table congenital_anomaly.mother (
    mother_id                bigint primary key,
    nhs_number               ndrs_optout.nhs_number,
    birth_date               date
);

-- The baby is a person with a number of its own, or none when it was never given one.  Its record
-- outlives its mother's: hence SET NULL.
create table congenital_anomaly.baby (
    baby_id                  bigint primary key,
    mother_id                bigint references congenital_anomaly.mother on delete set null,
    nhs_number               ndrs_optout.nhs_number,
    birth_date               date
);

create table congenital_anomaly.anomaly (
    anomaly_id               bigint primary key,
    baby_id                  bigint not null references congenital_anomaly.baby,
    icd10_code               text not null,
    diagnosis_date           date
);
