//! The options of a source.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_connect::{Error, MESSAGE_OPTIONS, OptionDoc, Options, Result};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

/// The default interval between two looks for new partitions.
const DISCOVERY: Duration = Duration::from_secs(30);

pub(crate) const SOURCE_OPTIONS: &[OptionDoc] = &[
    OptionDoc { name: "topic", default: None, doc: "The topic; several are separated by commas." },
    OptionDoc {
        name: "properties.<column>",
        default: Some("librdkafka's"),
        doc: "A property of the Kafka client, as librdkafka documents it. `properties.bootstrap.servers`, the brokers as \
              host:port, separated by commas, is required.",
    },
    OptionDoc {
        name: "start",
        default: Some("earliest"),
        doc: "Where a new source begins: earliest, latest, a time such as '2026-01-31T12:00:00Z' (the first record of \
              that time or later), or offsets by partition such as '{\"0\": 42}'. Other partitions begin at their \
              earliest record.",
    },
    OptionDoc {
        name: "bounded",
        default: Some("false"),
        doc: "true: the source ends at the ends of the partitions that it finds at its start.",
    },
    OptionDoc {
        name: "isolation",
        default: Some("read_committed"),
        doc: "read_committed: records of aborted and open transactions are never seen; read_uncommitted: they are.",
    },
    OptionDoc {
        name: "group_id",
        default: Some("none"),
        doc: "A consumer group to which durable offsets are committed, for lag monitors only: the engine continues from \
              its own offsets.",
    },
    OptionDoc {
        name: "include.<column>",
        default: Some("none"),
        doc: "A visible column of this name after the declared ones: topic, partition, offset, timestamp, key or headers of \
              the record. INCLUDE … AS … is the same.",
    },
    OptionDoc {
        name: "discovery_interval",
        default: Some("30 seconds"),
        doc: "How often the source looks for new partitions. They are read from their beginning.",
    },
    MESSAGE_OPTIONS[0],
    MESSAGE_OPTIONS[1],
    MESSAGE_OPTIONS[2],
    MESSAGE_OPTIONS[3],
    MESSAGE_OPTIONS[4],
    MESSAGE_OPTIONS[5],
    MESSAGE_OPTIONS[6],
    MESSAGE_OPTIONS[7],
    MESSAGE_OPTIONS[8],
    MESSAGE_OPTIONS[9],
    MESSAGE_OPTIONS[10],
];

/// Properties that the engine sets, each with the option to use instead.
const RESERVED: &[(&str, &str)] = &[
    ("group.id", "option group_id"),
    ("isolation.level", "option isolation"),
    ("auto.offset.reset", "option start"),
    ("enable.auto.commit", "option group_id"),
    ("enable.auto.offset.store", "option group_id"),
    ("enable.partition.eof", "option bounded"),
];

/// Where a new source begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Earliest,
    Latest,
    /// Milliseconds since 1970.
    Time(i64),
    Offsets(BTreeMap<i32, i64>),
}

/// The evaluated options of a source.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub topics: Vec<String>,
    pub properties: Properties,
    pub start: Start,
    pub bounded: bool,
    pub isolation: &'static str,
    pub group_id: Option<String>,
    pub discovery: Duration,
}

/// Properties of the Kafka client that a statement sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Properties {
    pub servers: String,
    pub others: BTreeMap<String, String>,
}

impl Properties {
    /// Returns the properties among options. Fails for `reserved` ones; each has a name to use instead. `why` is the
    /// reason.
    pub fn of(options: &Options, reserved: &[(&str, &str)], why: &str) -> Result<Properties> {
        let mut others = BTreeMap::new();
        for (name, value) in &options.0 {
            let Some(property) = name.strip_prefix("properties.") else { continue };
            // RisingWave's name.
            let property = if property == "bootstrap.server" { "bootstrap.servers" } else { property };
            if let Some((_, instead)) = reserved.iter().find(|(reserved, _)| *reserved == property) {
                return Err(Error::Invalid(format!(
                    "option '{name}' can't be set, since {why}: use {instead}"
                )));
            }
            others.insert(property.to_string(), value.clone());
        }
        let servers = others.remove("bootstrap.servers").ok_or_else(|| {
            Error::Invalid(
                "option 'properties.bootstrap.servers' is missing: add properties.bootstrap.servers = 'host:9092'".into(),
            )
        })?;
        Ok(Properties { servers, others })
    }

    /// Sets the properties in a configuration.
    pub fn set_in(&self, config: &mut ClientConfig) {
        for (property, value) in &self.others {
            config.set(property, value);
        }
        config.set("bootstrap.servers", &self.servers);
    }
}

/// Fails for properties that librdkafka doesn't know, or values that it refuses.
pub(crate) fn check_config(config: &ClientConfig) -> Result<()> {
    let wrong = |error: KafkaError| match &error {
        KafkaError::ClientConfig(_, what, property, value) => Error::Invalid(format!(
            "option 'properties.{property}' is '{value}', which the Kafka client refuses: {what}"
        )),
        other => Error::Invalid(format!("a property of the Kafka client is wrong: {other}")),
    };
    config.create_native_config().map(drop).map_err(wrong)
}

impl Settings {
    pub fn of(options: &Options) -> Result<Settings> {
        let topics: Vec<String> =
            options.require("topic")?.split(',').map(|topic| topic.trim().to_string()).collect();
        if topics.iter().any(String::is_empty) {
            return Err(Error::Invalid(format!(
                "option 'topic' is '{}', but names of topics separated by commas were expected",
                options.get("topic").unwrap_or_default()
            )));
        }
        let properties = Properties::of(options, RESERVED, "the engine keeps the offsets")?;
        Ok(Settings {
            topics,
            properties,
            start: start(options.get("start").unwrap_or("earliest"))?,
            bounded: options.parse("bounded", "true or false")?.unwrap_or(false),
            isolation: options.choice("isolation", &["read_committed", "read_uncommitted"])?,
            group_id: options.get("group_id").map(str::to_string),
            discovery: options.duration("discovery_interval")?.unwrap_or(DISCOVERY),
        })
    }

    /// Fails for properties that librdkafka doesn't know, or values that it refuses.
    pub fn check_properties(&self) -> Result<()> {
        check_config(&self.config())
    }

    /// Returns the configuration of a consumer.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // One queue holds the records of all partitions. This bounds its size.
        // The partitions of a bounded source have queues of their own.
        config.set("queued.max.messages.kbytes", if self.bounded { "4096" } else { "32768" });
        config.set("queued.min.messages", "1000000");
        config.set("fetch.queue.backoff.ms", "10");
        config.set("topic.metadata.refresh.interval.ms", "30000");
        self.properties.set_in(&mut config);
        // librdkafka wants a name, but no group is joined.
        config.set("group.id", self.group_id.as_deref().unwrap_or("millstream"));
        config.set("isolation.level", self.isolation);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("enable.partition.eof", if self.bounded { "true" } else { "false" });
        config
    }
}

fn start(text: &str) -> Result<Start> {
    let wrong = || {
        Error::Invalid(format!(
            "option 'start' is '{text}', but earliest, latest, a time such as '2026-01-31T12:00:00Z', or offsets such as \
             '{{\"0\": 42}}' were expected"
        ))
    };
    match text.trim() {
        word if word.eq_ignore_ascii_case("earliest") => Ok(Start::Earliest),
        word if word.eq_ignore_ascii_case("latest") => Ok(Start::Latest),
        object if object.starts_with('{') => {
            let offsets: BTreeMap<String, i64> = serde_json::from_str(object).map_err(|_| wrong())?;
            let offset = |(number, offset): (String, i64)| Some((number.parse().ok()?, offset));
            let offsets: Option<BTreeMap<i32, i64>> = offsets.into_iter().map(offset).collect();
            let valid = |offsets: &BTreeMap<i32, i64>| {
                offsets.iter().all(|(number, offset)| *number >= 0 && *offset >= 0)
            };
            offsets.filter(valid).map(Start::Offsets).ok_or_else(wrong)
        }
        time => {
            let micros = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(time);
            micros.map(|nanos| Start::Time(nanos.div_euclid(1_000_000))).map_err(|_| wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        let mut all = BTreeMap::from([("topic".to_string(), "a, b".to_string())]);
        all.insert("properties.bootstrap.server".into(), "h:9092".into());
        all.extend(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        Settings::of(&Options(all))
    }

    #[test]
    fn a_start_is_a_word_a_time_or_offsets() {
        let start = |text| settings(&[("start", text)]).map(|settings| settings.start).ok();
        assert_eq!(start("Latest"), Some(Start::Latest));
        assert_eq!(start("1970-01-01T00:00:01.5Z"), Some(Start::Time(1500)));
        assert_eq!(start("{\"0\": 42, \"7\": 1}"), Some(Start::Offsets(BTreeMap::from([(0, 42), (7, 1)]))));
        for wrong in ["soon", "{\"x\": 1}", "{\"0\": -1}", "{\"0\": \"1\"}", "{"] {
            assert_eq!(start(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_engine_keeps_some_properties() {
        let error = settings(&[("properties.group.id", "g")]).unwrap_err().to_string();
        assert!(error.contains("use option group_id"), "{error}");
        let error = settings(&[("topic", "a,,b")]).unwrap_err().to_string();
        assert!(error.contains("names of topics"), "{error}");
        let settings = settings(&[("properties.fetch.wait.max.ms", "5")]).unwrap();
        assert_eq!((settings.topics.len(), settings.properties.servers.as_str()), (2, "h:9092"));
        assert_eq!(settings.config().get("fetch.wait.max.ms"), Some("5"));
    }
}
