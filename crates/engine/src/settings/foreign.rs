//! Settings of other systems: their counterparts here, or the reason why they have none.

/// Settings of Spark Streaming, from its guide and configuration page, with a hint for each.
const SPARK: &[(&str, &str)] = &[
    (
        "spark.streaming.backpressure.enabled",
        "Backpressure is always on: sources are not read beyond what a batch takes. millstream.sources shows what waits",
    ),
    (
        "spark.streaming.backpressure.initialRate",
        "Batches adapt from the first one on; WITH (source_rate_limit = …) of a source bounds its rate",
    ),
    ("spark.streaming.backpressure.pid", "Batches adapt by themselves: max_batch_rows = 'adaptive'"),
    (
        "spark.streaming.blockInterval",
        "There are no blocks: rows are in a batch as soon as they have arrived. SET batch_interval says how long a batch is",
    ),
    (
        "spark.streaming.concurrentJobs",
        "A batch steps all queries, and readers see one consistent snapshot: one batch runs at a time. SET parallelism \
         says how many threads a SELECT uses",
    ),
    (
        "spark.streaming.receiver.maxRate",
        "WITH (source_rate_limit = …) of a source bounds the rows that it reads in a second",
    ),
    (
        "spark.streaming.receiver.writeAheadLog",
        "There are no receivers with a log of their own: the engine journals rows that can't be read again",
    ),
    (
        "spark.streaming.kafka.maxRatePerPartition",
        "WITH (source_rate_limit = …) of a source bounds the rows that it reads in a second and partition",
    ),
    ("spark.streaming.kafka.minRatePerPartition", "A source returns what it has: there is no minimum rate"),
    (
        "spark.streaming.kafka.maxRetries",
        "A source that fails is retried without a limit; SHOW SOURCES says why",
    ),
    (
        "spark.streaming.stopGracefullyOnShutdown",
        "SET stop_gracefully = on: SIGTERM and SIGHUP then process what was received and let the sinks finish, as STOP \
         GRACEFULLY does",
    ),
    (
        "spark.streaming.unpersist",
        "Nothing has to be cleaned up: a relation keeps what its definition says, a STREAM as long as its retention",
    ),
    (
        "spark.streaming.ui.retainedBatches",
        "millstream.epochs keeps the last 1,000 batches; SUBSCRIBE millstream.epochs follows them",
    ),
    ("spark.streaming.driver.writeAheadLog", "The engine's journal does this for all that needs it"),
    ("spark.streaming.dynamicAllocation", "There are no executors: one process uses the cores there are"),
    ("spark.streaming.checkpoint", "State is kept by the engine; nothing has to be called to keep it small"),
    ("spark.streaming.sessionByKey", "Use UPDATE_STATE, or a GROUP BY in a materialized view"),
    ("spark.default.parallelism", "SET parallelism says how many threads are used"),
    ("spark.sql.shuffle.partitions", "There is no shuffle: nothing has to be set"),
    ("spark.locality.wait", "There is one process: rows are where they are needed"),
    ("spark.serializer", "Rows are Arrow batches in one process: nothing is serialised"),
    ("spark.kryo", "Rows are Arrow batches in one process: nothing is serialised"),
    ("spark.cleaner", "Nothing has to be cleaned up: a relation keeps what its definition says"),
    ("spark.executor", "There are no executors: one process uses the memory and the cores there are"),
    ("spark.driver", "There is no driver: one process uses the memory and the cores there are"),
    ("spark.memory", "There is no heap to divide"),
    ("spark.storage", "What a relation keeps is its state: there are no storage levels"),
    ("spark.rdd.compress", "What a relation keeps is its state: there are no storage levels"),
    ("spark.master", "There is no cluster to name: the engine runs in this process"),
    ("spark.app.name", "The engine needs no name"),
];

/// RisingWave's settings for how its cluster runs, which have nothing to change here.
const RISINGWAVE: &[(&str, &str)] = &[
    ("rw_implicit_flush", "A session always reads its own writes"),
    ("rw_streaming_enable_delta_join", "The engine chooses the kind of join"),
    ("rw_streaming_allow_jsonb_in_stream_key", "Any type may be a key that can be compared"),
    ("rw_batch_enable_sort_agg", "The engine chooses the kind of aggregation"),
    ("rw_batch_enable_lookup_join", "The engine chooses the kind of join"),
    ("rw_enable_join_ordering", "Joins are ordered by the planner"),
    ("rw_enable_two_phase_agg", "The engine chooses the kind of aggregation"),
    ("rw_force_two_phase_agg", "The engine chooses the kind of aggregation"),
    ("rw_enable_share_plan", "Common parts of one query are computed once"),
    ("rw_streaming_over_window_cache_policy", "State is kept by the engine"),
    ("query_mode", "A SELECT runs in this process"),
    ("visibility_mode", "A SELECT reads one consistent snapshot of everything"),
    ("streaming_parallelism", "SET parallelism says how many threads are used"),
    (
        "streaming_rate_limit",
        "WITH (source_rate_limit = …) of a source bounds the rows that it reads in a second",
    ),
    (
        "source_rate_limit",
        "WITH (source_rate_limit = …) of a source bounds the rows that it reads in a second",
    ),
    ("backfill_rate_limit", "A new query reads the past in bounded pieces"),
    ("background_ddl", "CREATE returns when its query is current"),
    ("streaming_use_arrangement_backfill", "A new query reads the past in bounded pieces"),
    ("streaming_use_snapshot_backfill", "A new query reads the past in bounded pieces"),
    ("streaming_use_shared_source", "A source is read once, whoever depends on it"),
];

/// The treatment of another system's setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// It has no effect here; the hint names the alternative.
    Spark(&'static str),
    /// It is accepted, since nothing needs to be set for its purpose.
    RisingWave(&'static str),
}

/// Returns the name that a setting of another system has here, if it is the same setting.
pub(crate) fn own_name(name: &str) -> Option<&'static str> {
    const OF_ZONES: [&str; 2] = ["spark.sql.session.timezone", "table.local-time-zone"];
    OF_ZONES.contains(&name.to_ascii_lowercase().as_str()).then_some("timezone")
}

/// Looks a name up. A listed name also covers names that extend it: `spark.kryo` covers
/// `spark.kryo.registrator`.
pub(crate) fn find(name: &str) -> Option<Foreign> {
    let name = name.to_ascii_lowercase();
    if name.starts_with("spark.") {
        let is_of = |known: &str| {
            let known = known.to_ascii_lowercase();
            name == known || name.strip_prefix(&known).is_some_and(|rest| rest.starts_with('.'))
        };
        let found = SPARK.iter().find(|(known, _)| is_of(known));
        let unknown = "Spark's settings have no effect here; SHOW ALL lists those there are";
        return Some(Foreign::Spark(found.map_or(unknown, |(_, hint)| hint)));
    }
    let found = RISINGWAVE.iter().find(|(known, _)| *known == name);
    let known = found.map(|(_, hint)| Foreign::RisingWave(hint));
    let is_of = ["rw_", "streaming_"].iter().any(|prefix| name.starts_with(prefix));
    known.or(is_of.then_some(Foreign::RisingWave("No setting is needed for this")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_another_system_has_its_hint() {
        let spark = |name: &str, part: &str| match find(name) {
            Some(Foreign::Spark(hint)) => assert!(hint.contains(part), "{name}: {hint}"),
            other => panic!("{name}: {other:?}"),
        };
        spark("spark.streaming.blockInterval", "no blocks");
        spark("SPARK.STREAMING.KAFKA.MAXRATEPERPARTITION", "source_rate_limit");
        spark("spark.streaming.backpressure.pid.minRate", "adaptive");
        spark("spark.executor.memory", "no executors");
        spark("spark.streaming.nonsense", "SHOW ALL");
        assert!(matches!(find("rw_implicit_flush"), Some(Foreign::RisingWave(_))));
        assert!(matches!(find("rw_something_new"), Some(Foreign::RisingWave(_))));
        assert_eq!(find("batch_intervall"), None);
        assert_eq!(find("spark"), None);
    }
}
