-- The queue. The state machine can be read here, and holds for our code, for a script and for a person at a prompt.
--
--  add ─▶ claimed ─▶ fetching ──▶ ready ─▶ generating ──▶ generated ─▶ uploading ──▶ succeeded
--            ▲──retry──┘            ▲──retry──┘               ▲──retry──┘
--  from anywhere unfinished: failed, cancelled; from there a new round begins at claimed.

create table transition (old text not null, new text not null, primary key (old, new)) strict, without rowid;

insert into transition (old, new) values
    ('claimed', 'fetching'),     -- the poller takes it
    ('fetching', 'ready'),       -- inputs are whole and are media
    ('fetching', 'claimed'),     -- again later
    ('ready', 'generating'),     -- inference takes it
    ('generating', 'generated'), -- the output file is complete
    ('generating', 'ready'),     -- again later
    ('generated', 'uploading'),  -- the uploader takes it
    ('uploading', 'succeeded'),  -- the store has confirmed the object
    ('uploading', 'generated'),  -- again later
    ('claimed', 'failed'), ('fetching', 'failed'), ('ready', 'failed'),
    ('generating', 'failed'), ('generated', 'failed'), ('uploading', 'failed'),
    ('claimed', 'cancelled'), ('fetching', 'cancelled'), ('ready', 'cancelled'),
    ('generating', 'cancelled'), ('generated', 'cancelled'), ('uploading', 'cancelled'),
    ('failed', 'claimed'), ('cancelled', 'claimed'); -- a new round: claimed again, or retried by hand

-- Spelled out instead of `in`, and no foreign key on event: SQLite builds a table for each list, and keeps a way back for each
-- key, at every move; they took more than half of its time.
create table job (
    id            text primary key,                      -- the orchestrator's id: a job sent twice is added once
    number        integer not null unique,               -- order of arrival of its present round
    source        text not null check (source = 'main' or source = 'buffer' or source = 'queue' or source = 'local'),
    buffer_job_id text,                                  -- what a buffer orchestrator must be answered with
    queue_job_id  text,                                  -- Salad's id, kept for the sidecar
    engine        text not null check (engine in ('musetalk', 'fastwan')),
    inputs        text not null check (json_valid(inputs) and length(inputs) <= 262144),
    params        text not null check (json_valid(params) and length(params) <= 262144),
    state         text not null,
    round         integer not null default 1,            -- how often it was accepted
    attempt       integer not null default 0,            -- starts of the present stage
    crashes       integer not null default 0,            -- owners that died in the present stage
    owner         text,                                  -- program and process life that works on it
    phase         text,                                  -- what the owner says it does
    progress      real not null default 0 check (progress between 0 and 1),
    frames_done   integer,
    frames_total  integer,
    cancel_reason text,                                  -- set: someone asked for the job to end
    not_before    real not null default 0,               -- boot clock, s
    stage_since   real not null,                         -- boot clock, s: when the present stage began, moved on by waiting
    result        text not null default '{}' check (json_valid(result)),
    error         text check (error is null or json_valid(error)),
    created_at    text not null,
    updated_at    text not null,
    started_at    text,                                  -- first taken for generating in this round
    finished_at   text,
    check (state = 'claimed' or state = 'fetching' or state = 'ready' or state = 'generating' or state = 'generated'
           or state = 'uploading' or state = 'succeeded' or state = 'failed' or state = 'cancelled'),
    check ((state = 'fetching' or state = 'generating' or state = 'uploading') = (owner is not null)),
    check ((state = 'succeeded' or state = 'failed' or state = 'cancelled') = (finished_at is not null)),
    check ((state = 'failed') <= (error is not null)),
    check ((state = 'succeeded') <= (json_extract(result, '$.output_url') is not null))
) strict;

create index job_finished on job (finished_at) where finished_at is not null;
create index job_number on job (state, number);

-- History and outbox at once: one row a change of state. A terminal row is sent once somebody has acknowledged it.
create table event (
    id         integer primary key,
    job        text not null,
    round      integer not null,
    state      text not null,
    attempt    integer not null,
    owner      text,
    detail     text,                                     -- why: an error, who cancelled
    at         text not null,                            -- wall time, for people
    tries      integer not null default 0,               -- reports sent so far
    not_before real not null default 0,                  -- boot clock, s: next try
    sent_at    text,
    answer     text,                                     -- what the last report was answered
    ends       integer not null as (state = 'succeeded' or state = 'failed' or state = 'cancelled')
) strict;

create index event_job on event (job, id);
create index event_unsent on event (not_before) where sent_at is null and ends;

create trigger job_moves before update of state on job
when old.state <> new.state and not exists (select 1 from transition where old = old.state and new = new.state)
begin
    select raise(rollback, 'illegal transition');
end;

create trigger job_begins before insert on job when new.state not in ('claimed', 'failed')
begin
    select raise(rollback, 'a job begins as claimed, or failed if it cannot be run');
end;

create trigger job_added after insert on job
begin
    insert into event (job, round, state, attempt, owner, detail, at)
    values (new.id, new.round, new.state, new.attempt, new.owner, new.error, new.updated_at);
end;

create trigger job_removed after delete on job
begin
    delete from event where job = old.id;
end;

create trigger job_moved after update of state on job when old.state <> new.state
begin
    insert into event (job, round, state, attempt, owner, detail, at)
    values (new.id, new.round, new.state, case when old.finished_at is null then max(old.attempt, new.attempt) else 0 end,
            coalesce(new.owner, old.owner),
            case new.state when 'cancelled' then new.cancel_reason else new.error end, new.updated_at);
end;

-- A new round makes an older, unsent end of the job void.
create trigger job_begins_again after update of state on job when new.state = 'claimed' and old.finished_at is not null
begin
    update event set sent_at = new.updated_at, answer = 'superseded by a new round'
    where job = new.id and round < new.round and sent_at is null and ends;
end;

-- What is true of the worker as a whole: paused, draining, instance, boot …
create table control (name text primary key, value text not null, updated_at text not null) strict;
-- The newest word of each program about itself, as JSON.
create table status (program text primary key, body text not null check (json_valid(body)), at text not null,
                     at_boot real not null) strict;
-- A claim that was begun: its key goes with the request, so that an answer that was lost can be asked for again.
create table claim_intent (key text primary key, created_at text not null) strict;
-- What operators did.
create table audit (id integer primary key, at text not null, actor text not null, action text not null, target text,
                    reason text, result text not null) strict;
-- Log-ins to the admin page; only hashes of their ids.
create table session (hash text primary key, created_at real not null, seen_at real not null, address text, agent text) strict;
