-- For the page's list of jobs: the slowest and the biggest first, without a look at every job. Only jobs that are over are in
-- them, so that no move but the last one pays for it.
create index job_took on job (unixepoch(finished_at, 'subsec') - unixepoch(started_at, 'subsec'), number)
where finished_at is not null and started_at is not null;
-- With the state beside the time, how a day went is counted without a look at the jobs.
drop index job_finished;
create index job_finished on job (finished_at, state) where finished_at is not null;
create index job_size on job (json_extract(result, '$.size_bytes'), number) where state = 'succeeded';
