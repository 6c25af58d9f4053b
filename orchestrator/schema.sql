-- The orchestrator's jobs. The state machine can be read here, and holds for our code and for a person at a prompt.
--
--  submit ─▶ queued ─▶ claimed ─▶ running ─▶ succeeded, failed, cancelled
--               ▲─────────┴──────────┘ nobody vouched for it in time: another worker may have it

create table transition (old text not null, new text not null, primary key (old, new)) strict, without rowid;

insert into transition (old, new) values
    ('queued', 'claimed'),    -- a worker asked for work
    ('queued', 'cancelled'),
    ('claimed', 'running'),   -- its first progress report
    ('claimed', 'queued'),    -- the worker fell silent, or never got our answer
    ('running', 'queued'),
    ('claimed', 'succeeded'), -- running reports may be dropped, terminal ones may not
    ('claimed', 'failed'),
    ('claimed', 'cancelled'),
    ('running', 'succeeded'),
    ('running', 'failed'),
    ('running', 'cancelled');

create table job (
    number           integer primary key,                -- order of arrival; a requeued job keeps its place
    id               text not null unique,               -- musetalk_job_id, for both engines
    buffer_job_id    text unique,                        -- set: the job goes to buffer workers
    engine           text not null check (engine in ('musetalk', 'fastwan')),
    submission       text not null check (json_valid(submission)), -- as it was sent, to recognise a repetition
    state            text not null default 'queued'
                     check (state in ('queued', 'claimed', 'running', 'succeeded', 'failed', 'cancelled')),
    detail           text,                               -- why it is in its present state, for the history
    worker           text,                               -- who has it, or who ended it
    attempts         integer not null default 0,         -- times it was handed out
    requeues         integer not null default 0,         -- times it was taken back
    progress         real not null default 0 check (progress between 0 and 1),
    phase            text,
    metrics          text check (metrics is null or json_valid(metrics)),
    error            text,
    output_url       text,
    cancel_requested integer not null default 0 check (cancel_requested in (0, 1)),
    vouched_at       real not null default 0,            -- boot clock, s: when its worker last gave a sign of having it
    created_at       text not null,                      -- wall time, for people
    updated_at       text not null,
    finished_at      text,
    check ((state in ('claimed', 'running')) <= (worker is not null)),
    check ((state = 'queued') <= (worker is null)),
    check ((state in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    check ((state = 'succeeded') <= (output_url is not null)),
    check ((state = 'failed') <= (error is not null))
) strict;

create index job_queued on job ((buffer_job_id is not null), number) where state = 'queued';
create index job_worker on job (worker) where state in ('claimed', 'running');
create index job_state on job (state, number);

create trigger job_transition before update of state on job
when old.state is not new.state and not exists (select 1 from transition where old = old.state and new = new.state)
begin
    select raise(abort, 'this change of state is not in the transition table');
end;

-- The history: written here, so that no code path can forget it.
create table event (
    id     integer primary key,
    job    text not null,
    state  text not null,
    worker text,
    detail text,
    at     text not null                                 -- wall time, for people
) strict;

create index event_job on event (job, id);

create trigger job_submitted after insert on job
begin
    insert into event (job, state, at) values (new.id, new.state, new.created_at);
end;

create trigger job_moved after update of state on job
when old.state is not new.state
begin
    insert into event (job, state, worker, detail, at)
    values (new.id, new.state, coalesce(new.worker, old.worker), new.detail, new.updated_at);
end;

create table worker (
    id      text primary key,
    queue   text not null check (queue in ('main', 'buffer')),
    seen_at real,                                        -- boot clock, s; null: not heard of since we started
    beat    text not null check (json_valid(beat)),      -- the last heartbeat's body
    beat_at text not null                                -- wall time, for people
) strict;

-- Every terminal report that came in, whatever became of it; the job may even be unknown.
create table report (
    id       integer primary key,
    job      text not null,
    worker   text,
    path     text not null check (path in ('progress', 'buffer status')),
    body     text not null check (json_valid(body)),
    verdict  text not null check (verdict in ('accepted', 'repeated', 'conflict', 'superseded', 'unknown')),
    accepted integer generated always as (verdict = 'accepted') stored,
    at       text not null                               -- wall time, for people
) strict;

create index report_job on report (job, id);
create unique index report_accepted_once on report (job) where verdict = 'accepted';

-- What a claim with an Idempotency-Key was answered, for a worker that lost the answer.
create table claim_key (
    worker     text not null,
    key        text not null,
    job        text not null,
    expires_at real not null,                            -- boot clock, s
    primary key (worker, key)
) strict, without rowid;
