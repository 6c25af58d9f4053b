-- Version 2: when somebody last listened for silence, and how to find what is old enough to be deleted.

create table listening (
    looked_at real not null                              -- boot clock, s
) strict;

insert into listening (looked_at) values (0);

create index job_finished on job (finished_at) where finished_at is not null;
create index report_unknown on report (at) where verdict = 'unknown';
