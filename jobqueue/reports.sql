-- What was said to the orchestrator of each job, and what came of it: a row a POST. For people to read; nothing is decided by it,
-- so a row may be missing where the program died over it or the disk was full.
create table report (
    id       integer primary key,
    job      text not null,
    round    integer not null,
    place    text not null,                              -- where it was sent: progress, or status (of a buffer)
    said     text not null,                              -- running, succeeded or failed
    progress real,                                       -- 0 to 1; null where none is said
    phase    text,
    status   integer,                                    -- HTTP; null if there was no answer
    words    text not null,                              -- the beginning of the answer, or why there was none
    took_ms  real not null,
    at       text not null,                              -- wall time when it was sent, for people
    ends     integer not null as (said <> 'running')
) strict;

create index report_job on report (job, round, ends);
create index report_running on report (id) where not ends;

create trigger job_removed_reports after delete on job
begin
    delete from report where job = old.id;
end;
