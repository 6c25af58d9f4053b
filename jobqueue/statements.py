"""The SQL of `queue.py`, one statement per move; each move of an owner names owner and state (the fence).

The hot ones roll back the whole transaction when rejected (`or rollback`, like the triggers) and return nothing: for a
statement journal, and for each `returning`, SQLite allocates memory, which took up to four fifths of a move's time.
"""

#: Whether a row of control, a flag, still holds: one with an end (boot clock, s) does so until then.
HOLDS = "coalesce(json_extract(value, '$.until_boot_s') > :now, true)"
#: The rows of control that are flags.
FLAGS = "(name in ('paused', 'draining', 'hold') or name glob 'unfit *')"

#: The one to take, found before it is changed for the same reason.
NEXT = f"""
select id from job where state = :waiting and not_before <= :now
    and not (:waiting = 'ready' and exists (select 1 from control where (name = 'paused' or name glob 'unfit *') and {HOLDS}))
    and not exists (select 1 from control where name = 'restart ' || :program)
order by number limit 1"""  # noqa: S608

#: Waiting does not count against the stage's time limit, so its beginning moves on by the time waited; back-off counts.
TAKE = """
update or rollback job set state = :working, owner = :owner, attempt = attempt + 1, updated_at = :at,
    stage_since = stage_since + :now - max(not_before, stage_since),
    started_at = case when :working = 'generating' then coalesce(started_at, :at) else started_at end
where id = :id and state = :waiting and owner is null"""

MOVE = """
update or rollback job set state = :new, owner = null, not_before = :not_before, result = :result, error = :error,
    updated_at = :at,
    attempt = case when :fresh then 0 else attempt - :unharmed end, crashes = case when :fresh then 0 else crashes end,
    stage_since = case when :fresh then :now else stage_since end,
    progress = max(progress, :progress), phase = :phase, finished_at = case when :finished then :at end,
    cancel_reason = coalesce(:cancel_reason, cancel_reason)
where id = :id and state = :old and owner = :owner"""

PROGRESS = f"""
update job set phase = :phase, progress = max(progress, :progress), frames_done = :frames_done, frames_total = :frames_total,
    updated_at = :at
where id = :id and state = :state and owner = :owner
returning cancel_reason, exists (select 1 from control where name = 'hold' and {HOLDS}) as hold"""  # noqa: S608

ADD = """
insert or rollback into job (id, number, source, buffer_job_id, queue_job_id, engine, inputs, params, state, stage_since,
    error, created_at, updated_at, finished_at)
values (:id, (select coalesce(max(number), 0) + 1 from job), :source, :buffer_job_id, :queue_job_id, :engine, :inputs, :params,
    :state, :now, :error, :at, :at, :finished_at)
on conflict (id) do nothing"""

NEW_ROUND = """
update job set state = 'claimed', round = round + 1, number = (select max(number) + 1 from job), attempt = 0, crashes = 0,
    progress = 0, phase = null, frames_done = null, frames_total = null, cancel_reason = null, not_before = 0,
    stage_since = :now, result = '{}', error = null, updated_at = :at, started_at = null, finished_at = null,
    source = coalesce(:source, source), buffer_job_id = iif(:source is null, buffer_job_id, :buffer_job_id),
    queue_job_id = iif(:source is null, queue_job_id, :queue_job_id),
    engine = coalesce(:engine, engine), inputs = coalesce(:inputs, inputs), params = coalesce(:params, params)
where id = :id and state in ('failed', 'cancelled')
returning *"""

#: Rounds of one job whose events and reports are kept: a job that is resent forever never gets old enough to be deleted.
MAX_ROUNDS = 50
FORGET_ROUNDS = tuple(
    f"delete from {table} where job = :id and round <= (select round from job where id = :id) - {MAX_ROUNDS}"  # noqa: S608
    for table in ("event", "report")
)

#: A new round of a job that cannot be run as it was sent now.
REFUSE = """
update job set state = 'failed', error = :error, finished_at = :at, updated_at = :at, phase = 'failed'
where id = :id and state = 'claimed'
returning *"""

JOIN = """
update job set source = case when :source = 'queue' then source else :source end,
    buffer_job_id = coalesce(:buffer_job_id, buffer_job_id), queue_job_id = coalesce(:queue_job_id, queue_job_id)
where id = :id
returning *"""

REPORT_AGAIN = """
update event set sent_at = null, not_before = 0, answer = 'asked for again'
where job = ? and round = ? and state = 'succeeded'"""

REQUEST_CANCEL = """
update job set cancel_reason = coalesce(cancel_reason, :reason) where id = :id and finished_at is null
returning *"""

CANCEL_WAITING = """
update job set state = 'cancelled', finished_at = :at, updated_at = :at, phase = 'failed'
where id = :id and finished_at is null and owner is null
returning *"""

#: Ends jobs that wait for an unavailable GPU; a job that was submitted here has nowhere else to go.
HAND_BACK = """
update job set state = 'failed', error = :error, finished_at = :at, updated_at = :at, phase = 'failed'
where (state = 'claimed' or state = 'ready') and owner is null and source <> 'local'
returning id"""

COUNT_CRASH = "update job set crashes = crashes + 1 where id = :id and owner = :owner"

#: By state, which has an index: an index on owner would cost two pages at every move.
WORKED_ON = "select * from job where state in ('fetching', 'generating', 'uploading')"

#: Whether a text is in a job's id or error. Ids are looked through in their index, and only a failed job has an error: the rows
#: of the others stay unread. The plus keeps SQLite from fetching all that match in order to sort them.
HAS_TEXT = """+rowid in (select rowid from job indexed by sqlite_autoindex_job_1 where instr(id, ?)
    union all select rowid from job where state = 'failed' and instr(error, ?))"""
