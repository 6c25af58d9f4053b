-- The orchestrator's jobs on PostgreSQL: the same tables as in schema.sql and forgetting.sql, which explain them.

create table orchestrator (version integer not null);

insert into orchestrator (version) values (1);

create table transition (old text not null, new text not null, primary key (old, new));

insert into transition (old, new) values
    ('queued', 'claimed'), ('queued', 'cancelled'),
    ('claimed', 'running'), ('claimed', 'queued'), ('running', 'queued'),
    ('claimed', 'succeeded'), ('claimed', 'failed'), ('claimed', 'cancelled'),
    ('running', 'succeeded'), ('running', 'failed'), ('running', 'cancelled');

create table job (
    number           bigint generated always as identity primary key,
    id               text collate "C" not null unique,
    buffer_job_id    text collate "C" unique,
    engine           text not null check (engine in ('musetalk', 'fastwan')),
    submission       text not null check (submission::json is not null),
    state            text not null default 'queued'
                     check (state in ('queued', 'claimed', 'running', 'succeeded', 'failed', 'cancelled')),
    detail           text,
    worker           text collate "C",
    attempts         integer not null default 0,
    requeues         integer not null default 0,
    progress         double precision not null default 0 check (progress between 0 and 1),
    phase            text,
    metrics          text check (metrics is null or metrics::json is not null),
    error            text,
    output_url       text,
    cancel_requested integer not null default 0 check (cancel_requested in (0, 1)),
    vouched_at       double precision not null default 0, -- this server's clock, s
    created_at       text not null,
    updated_at       text not null,
    finished_at      text collate "C",
    check ((state in ('claimed', 'running')) <= (worker is not null)),
    check ((state = 'queued') <= (worker is null)),
    check ((state in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    check ((state = 'succeeded') <= (output_url is not null)),
    check ((state = 'failed') <= (error is not null))
);

-- Two, because for one on `buffer_job_id is not null` the planner does not use it where that is false.
create index job_queued_main on job (number) where state = 'queued' and buffer_job_id is null;
create index job_queued_buffer on job (number) where state = 'queued' and buffer_job_id is not null;
create index job_worker on job (worker) where state in ('claimed', 'running');
create index job_state on job (state, number);
create index job_finished on job (finished_at) where finished_at is not null;

create table event (
    id     bigint generated always as identity primary key,
    job    text collate "C" not null,
    state  text not null,
    worker text,
    detail text,
    at     text not null
);

create index event_job on event (job, id);

create function refuse_transition() returns trigger language plpgsql as $$
begin
    if not exists (select from transition as allowed where allowed.old = old.state and allowed.new = new.state) then
        raise 'this change of state is not in the transition table';
    end if;
    return new;
end
$$;

create function keep_event() returns trigger language plpgsql as $$
begin
    insert into event (job, state, worker, detail, at)
    values (new.id, new.state, case when tg_op = 'UPDATE' then coalesce(new.worker, old.worker) end, new.detail, new.updated_at);
    return null;
end
$$;

create trigger job_transition before update of state on job
for each row when (old.state is distinct from new.state) execute function refuse_transition();

create trigger job_submitted after insert on job for each row execute function keep_event();

create trigger job_moved after update of state on job
for each row when (old.state is distinct from new.state) execute function keep_event();

create table worker (
    id      text collate "C" primary key,
    queue   text not null check (queue in ('main', 'buffer')),
    seen_at double precision,                             -- this server's clock, s
    beat    text not null check (beat::json is not null),
    beat_at text not null
);

create table report (
    id       bigint generated always as identity primary key,
    job      text collate "C" not null,
    worker   text,
    path     text not null check (path in ('progress', 'buffer status')),
    body     text not null check (body::json is not null),
    verdict  text not null check (verdict in ('accepted', 'repeated', 'conflict', 'superseded', 'unknown')),
    accepted boolean generated always as (verdict = 'accepted') stored,
    at       text collate "C" not null
);

create index report_job on report (job, id);
create unique index report_accepted_once on report (job) where verdict = 'accepted';
create index report_unknown on report (at) where verdict = 'unknown';

create table claim_key (
    worker     text collate "C" not null,
    key        text collate "C" not null,
    job        text collate "C" not null,
    expires_at double precision not null,                 -- this server's clock, s
    primary key (worker, key)
);

create table listening (looked_at double precision not null); -- this server's clock, s

insert into listening (looked_at) values (extract(epoch from clock_timestamp()));
