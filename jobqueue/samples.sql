-- What each GPU did, second by second; in a file of its own, which may be thrown away at any time.
--
-- step: over how many seconds a row is the mean: 1 for the last minutes, 10 for the last day. at: the first of them, seconds
-- since 1970. A reading that the card does not give is null, and a mean of nothing is null.
create table sample (
    step               integer not null,
    at                 integer not null,
    card               text not null,                    -- its UUID, or # and its index if it has none
    load               real,                             -- percent, as the three that follow
    memory_load        real,
    encoder            real,
    decoder            real,
    memory_used_mib    real,
    memory_total_mib   real,
    temperature_c      real,
    memory_temperature_c real,
    power_w            real,
    power_limit_w      real,
    clock_sm_mhz       real,
    clock_memory_mhz   real,
    primary key (step, at, card)
) strict, without rowid;

-- For how many of those seconds each reason held the card's clocks back.
create table held (
    step    integer not null,
    at      integer not null,
    card    text not null,
    reason  text not null,
    seconds real not null,
    primary key (step, at, card, reason)
) strict, without rowid;

-- How the time of day stood to the boot clock when the last row was written, and how often the rows were moved after it jumped.
create table clock (boot text not null, ahead_s real not null, moved integer not null) strict;
