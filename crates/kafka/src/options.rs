//! The options of a source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_connect::{Error, MESSAGE_OPTIONS, OptionDoc, Options, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::partition::Partition;
use crate::tokens::Tokens;
use crate::topics::Topics;

const RATE_LIMIT: &str = "rate_limit_per_partition";

/// The default interval between two looks for new partitions.
const DISCOVERY: Duration = Duration::from_secs(30);

/// Another name of the option `start`.
const STARTUP_MODE: &str = "scan.startup.mode";

pub(crate) const SOURCE_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "topic",
        default: None,
        doc: "The topic; several are separated by commas. A text that begins with ^ is a regular expression, and all topics whose names match it are read.",
    },
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
              that time or later), or offsets by partition such as '{\"0\": 42}', of one topic '{\"orders/0\": 42}'. Other \
              partitions begin at their earliest record.",
    },
    OptionDoc {
        name: STARTUP_MODE,
        default: Some("none"),
        doc: "`start` as Flink and RisingWave have it: earliest, earliest-offset, latest or latest-offset.",
    },
    OptionDoc {
        name: "on_data_loss",
        default: Some("fail"),
        doc: "If records are gone before they were read, since retention removed them or the topic was created again: fail, \
              until ALTER SOURCE … SEEK; or skip: read on, and keep a bad row that says what is missing.",
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
        name: "rate_limit_per_partition",
        default: Some("none"),
        doc: "Most records that are read of each partition in a second, like Spark's maxRatePerPartition. `source_rate_limit` \
              limits the source as a whole.",
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
    /// By the number of the partition, or by topic/number.
    Offsets(BTreeMap<String, u64>),
}

impl Start {
    /// Parses `earliest`, `latest`, a time, or offsets by partition. `what` names the text in messages.
    pub fn parse(text: &str, what: &str) -> Result<Start> {
        let wrong = || {
            Error::Invalid(format!(
                "{what} is '{text}', but earliest, latest, a time such as '2026-01-31T12:00:00Z', or offsets such as \
                 '{{\"0\": 42}}' were expected"
            ))
        };
        match text.trim() {
            word if word.eq_ignore_ascii_case("earliest") => Ok(Start::Earliest),
            word if word.eq_ignore_ascii_case("latest") => Ok(Start::Latest),
            object if object.starts_with('{') => {
                let offsets: BTreeMap<String, u64> = serde_json::from_str(object).map_err(|_| wrong())?;
                let is_partition = |name: &str| {
                    let number = name.rsplit_once('/').map_or(name, |(_, number)| number);
                    number.parse().is_ok_and(|number: i32| number >= 0)
                };
                let fits = |(name, offset): (&String, &u64)| is_partition(name) && *offset <= i64::MAX as u64;
                if offsets.iter().all(fits) { Ok(Start::Offsets(offsets)) } else { Err(wrong()) }
            }
            time => {
                let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(time);
                nanos.map(|nanos| Start::Time(nanos.div_euclid(1_000_000))).map_err(|_| wrong())
            }
        }
    }

    /// Returns the given offset of a partition.
    pub fn offset_of(&self, partition: &Partition) -> Option<u64> {
        let Start::Offsets(given) = self else { return None };
        given.get(&partition.to_string()).or_else(|| given.get(&partition.number.to_string())).copied()
    }
}

/// The evaluated options of a source.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The name of the source, for messages.
    pub source: String,
    pub topics: Topics,
    pub properties: Properties,
    pub start: Start,
    /// True if lost records are passed over.
    pub skips_lost: bool,
    pub bounded: bool,
    pub isolation: &'static str,
    pub group_id: Option<String>,
    pub discovery: Duration,
    /// The most records of each partition in a second.
    pub per_partition: Option<f64>,
}

/// Properties of the Kafka client that a statement sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Properties {
    pub servers: String,
    pub others: BTreeMap<String, String>,
    /// The tokens of OAUTHBEARER, if an endpoint gives them.
    pub tokens: Option<Arc<Tokens>>,
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
        let tokens = Tokens::take(&mut others)?;
        Ok(Properties { servers, others, tokens })
    }

    /// Sets the properties in a configuration.
    pub fn set_in(&self, config: &mut ClientConfig) {
        // OpenSSL is a part of the program, and doesn't know where the system keeps the authorities that it trusts.
        if cfg!(feature = "tls") && !self.others.contains_key("ssl.ca.pem") {
            config.set("ssl.ca.location", "probe");
        }
        for (property, value) in &self.others {
            config.set(property, value);
        }
        config.set("bootstrap.servers", &self.servers);
    }
}

/// Returns true if a property's value must not be shown.
fn is_secret(property: &str) -> bool {
    ["password", "passphrase", "secret", "key.pem"].iter().any(|word| property.contains(word))
}

/// Returns the hint to build the program with TLS, if properties are about security and it lacks that.
fn hint_of_build<'p>(properties: impl IntoIterator<Item = &'p str>) -> &'static str {
    let is_of_tls = |property: &str| ["ssl", "sasl", "security"].iter().any(|word| property.contains(word));
    match !cfg!(feature = "tls") && properties.into_iter().any(is_of_tls) {
        true => {
            ". This program was built without TLS, SCRAM and OAUTHBEARER: build it with --features kafka-tls"
        }
        false => "",
    }
}

/// Returns the error of a client whose properties contradict each other, or need what the program lacks.
pub(crate) fn misfit(properties: &Properties, error: &KafkaError) -> Error {
    let build = hint_of_build(properties.others.keys().map(String::as_str));
    Error::Invalid(format!("the properties of the Kafka client don't fit: {error}{build}"))
}

/// Fails for properties that librdkafka doesn't know, or values that it refuses.
pub(crate) fn check_config(config: &ClientConfig) -> Result<()> {
    let wrong = |error: KafkaError| match &error {
        KafkaError::ClientConfig(_, what, property, value) => {
            let (value, what) = match is_secret(property) {
                true if !value.is_empty() => ("***", what.replace(value.as_str(), "***")),
                _ => (value.as_str(), what.clone()),
            };
            let build = hint_of_build([property.as_str()]);
            Error::Invalid(format!(
                "option 'properties.{property}' is '{value}', which the Kafka client refuses: {what}{build}"
            ))
        }
        other => Error::Invalid(format!("a property of the Kafka client is wrong: {other}")),
    };
    config.create_native_config().map(drop).map_err(wrong)
}

impl Settings {
    pub fn of(source: &str, options: &Options) -> Result<Settings> {
        let topics = Topics::parse(options.require("topic")?)?;
        let properties = Properties::of(options, RESERVED, "the engine keeps the offsets")?;
        let what = "a number of records a second above 0";
        let per_partition: Option<f64> = options.parse(RATE_LIMIT, what)?;
        if per_partition.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            let text = options.get(RATE_LIMIT).unwrap_or_default();
            return Err(Error::Invalid(format!(
                "option '{RATE_LIMIT}' is '{text}', but {what} was expected"
            )));
        }
        Ok(Settings {
            per_partition,
            source: source.to_string(),
            topics,
            properties,
            start: start(options)?,
            skips_lost: options.choice("on_data_loss", &["fail", "skip"])? == "skip",
            bounded: options.parse("bounded", "true or false")?.unwrap_or(false),
            isolation: options.choice("isolation", &["read_committed", "read_uncommitted"])?,
            group_id: options.get("group_id").map(str::to_string),
            discovery: options.duration("discovery_interval")?.unwrap_or(DISCOVERY),
        })
    }

    /// Fails for properties that librdkafka doesn't know, values that it refuses, and values that don't fit together,
    /// such as a key whose file or password is wrong.
    pub fn check_properties(&self) -> Result<()> {
        let config = self.config();
        check_config(&config)?;
        config.create::<BaseConsumer>().map(drop).map_err(|error| misfit(&self.properties, &error))
    }

    /// Returns the configuration of a consumer.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // One queue holds the records of all partitions. This bounds its size.
        // The partitions of a bounded source have queues of their own.
        config.set("queued.max.messages.kbytes", if self.bounded { "4096" } else { "32768" });
        config.set("queued.min.messages", "1000000");
        config.set("fetch.queue.backoff.ms", "10");
        // Answers that are under way come in addition to the queue. A user who raises one of these knows better.
        let sizes = ["message.max.bytes", "fetch.max.bytes", "fetch.message.max.bytes"];
        if !sizes.iter().any(|size| self.properties.others.contains_key(*size)) {
            config.set("fetch.max.bytes", "16777216");
        }
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

fn start(options: &Options) -> Result<Start> {
    match (options.get("start"), options.get(STARTUP_MODE)) {
        (Some(_), Some(_)) => {
            Err(Error::Invalid(format!("options 'start' and '{STARTUP_MODE}' mean the same: give one")))
        }
        (None, Some(mode)) => {
            let place = mode.strip_suffix("-offset").unwrap_or(mode);
            if !["earliest", "latest"].contains(&place) {
                return Err(Error::Invalid(format!(
                    "option '{STARTUP_MODE}' is '{mode}', but earliest-offset or latest-offset was expected; start also \
                     takes a time and offsets"
                )));
            }
            Start::parse(place, "option 'scan.startup.mode'")
        }
        (start, None) => Start::parse(start.unwrap_or("earliest"), "option 'start'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        let mut all = BTreeMap::from([("topic".to_string(), "a, b".to_string())]);
        all.insert("properties.bootstrap.server".into(), "h:9092".into());
        all.extend(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        Settings::of("s", &Options(all))
    }

    #[test]
    fn a_start_is_a_word_a_time_or_offsets() {
        let start = |text| settings(&[("start", text)]).map(|settings| settings.start).ok();
        assert_eq!(start("Latest"), Some(Start::Latest));
        assert_eq!(start("1970-01-01T00:00:01.5Z"), Some(Start::Time(1500)));
        let offsets = start("{\"0\": 42, \"a/7\": 1}").unwrap();
        let offset = |topic: &str, number| offsets.offset_of(&Partition { topic: topic.into(), number });
        assert_eq!(
            [offset("a", 0), offset("b", 0), offset("a", 7), offset("b", 7)],
            [Some(42), Some(42), Some(1), None]
        );
        let startup = |mode| settings(&[(STARTUP_MODE, mode)]).map(|settings| settings.start);
        assert_eq!(startup("latest-offset").ok(), start("latest"));
        assert_eq!(startup("earliest").ok(), start("earliest"));
        let error = startup("group-offsets").unwrap_err().to_string();
        assert!(error.contains("is 'group-offsets', but earliest-offset or latest-offset"), "{error}");
        for wrong in ["soon", "{\"x\": 1}", "{\"a/\": 1}", "{\"0\": -1}", "{\"0\": \"1\"}", "{"] {
            assert_eq!(start(wrong), None, "{wrong}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_build_without_tls_says_so() {
        for more in [
            &[("properties.security.protocol", "ssl")][..],
            &[
                ("properties.security.protocol", "sasl_plaintext"),
                ("properties.sasl.mechanism", "SCRAM-SHA-256"),
                ("properties.sasl.username", "ann"),
                ("properties.sasl.password", "s3cret"),
            ],
        ] {
            let error = settings(more).unwrap().check_properties().unwrap_err().to_string();
            assert!(error.ends_with("build it with --features kafka-tls"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let other = settings(&[("properties.session.timeout.ms", "1000000000")]).unwrap();
        assert!(!other.check_properties().unwrap_err().to_string().contains("kafka-tls"));
    }

    #[test]
    fn the_engine_keeps_some_properties() {
        let error = settings(&[("properties.group.id", "g")]).unwrap_err().to_string();
        assert!(error.contains("use option group_id"), "{error}");
        let error = settings(&[("topic", "a,,b")]).unwrap_err().to_string();
        assert!(error.contains("names of topics"), "{error}");
        let error = settings(&[("rate_limit_per_partition", "0")]).unwrap_err().to_string();
        assert!(error.contains("is '0', but a number of records a second above 0 was expected"), "{error}");
        let settings = settings(&[("properties.fetch.wait.max.ms", "5")]).unwrap();
        assert_eq!(settings.properties.servers, "h:9092");
        assert_eq!(settings.config().get("fetch.wait.max.ms"), Some("5"));
    }
}
