//! The options of a sink.

use std::time::Duration;

use arrow::datatypes::DataType;
use millstream_connect::{
    ENCODER_OPTIONS, Error, OptionDoc, Options, Result, SinkSpec, columns_named, has_text,
};
use millstream_delta::sql_type;
use millstream_registry::Registry;
use rdkafka::ClientConfig;

use crate::options::{Properties, check_config};

/// Default name of the topic that holds which epoch each sink has delivered.
const PROGRESS_TOPIC: &str = "millstream_sinks";

pub(crate) const SINK_OPTIONS: &[OptionDoc] = &[
    OptionDoc { name: "topic", default: None, doc: "The topic." },
    OptionDoc {
        name: "properties.<column>",
        default: Some("librdkafka's"),
        doc: "A property of the Kafka client, as librdkafka documents it. `properties.bootstrap.servers`, the brokers as \
              host:port, separated by commas, is required.",
    },
    ENCODER_OPTIONS[0],
    ENCODER_OPTIONS[1],
    ENCODER_OPTIONS[2],
    ENCODER_OPTIONS[3],
    OptionDoc {
        name: "create",
        default: Some("false"),
        doc: "true: if the topic doesn't exist, the sink creates it before its first message, with as many partitions and \
              replicas as the broker's default. CREATE SINK asks the broker if it may.",
    },
    OptionDoc {
        name: "delivery",
        default: Some("exactly_once"),
        doc: "exactly_once: an epoch's messages are sent in one transaction, if the engine has a data directory. Consumers \
              with isolation.level = read_committed see each once. at_least_once: no transactions; messages are visible \
              at once, and after a failure some are sent again. Without a data directory, delivery is at_least_once.",
    },
    OptionDoc {
        name: "transactional_id",
        default: Some("millstream-<sink>-<topic>"),
        doc: "exactly_once: the transactional.id of the producer. An engine that uses it fences the one that used it \
              before, so each sink needs its own.",
    },
    OptionDoc {
        name: "progress_topic",
        default: Some(PROGRESS_TOPIC),
        doc: "exactly_once: the topic whose partition 0 holds which epoch each sink has delivered. It is created, with \
              cleanup.policy = compact, if it doesn't exist.",
    },
    OptionDoc {
        name: "timestamp",
        default: Some("the time of sending"),
        doc: "A column of type TIMESTAMP that is the timestamp of the messages. NULL, and the first millisecond of 1970, are \
              the time of sending.",
    },
    OptionDoc {
        name: "headers",
        default: Some("none"),
        doc: "Columns, separated by commas, that become headers of the messages: the text of a value, or the bytes of a \
              BYTEA. NULL is a header without a value.",
    },
    OptionDoc {
        name: "batch_id",
        default: Some("false"),
        doc: "true: each message has a header _batch_id, the number of its epoch. Messages that are sent again have the \
              same number.",
    },
    ENCODER_OPTIONS[4],
    ENCODER_OPTIONS[5],
    ENCODER_OPTIONS[6],
    ENCODER_OPTIONS[7],
    ENCODER_OPTIONS[8],
    ENCODER_OPTIONS[9],
    ENCODER_OPTIONS[10],
    ENCODER_OPTIONS[11],
];

/// Properties that the engine sets, each with the option to use instead.
const RESERVED: &[(&str, &str)] =
    &[("transactional.id", "option transactional_id"), ("isolation.level", "it for consumers")];

/// The evaluated options of a sink.
#[derive(Clone, Debug)]
pub(crate) struct SinkSettings {
    pub sink: String,
    pub topic: String,
    pub properties: Properties,
    pub creates: bool,
    pub exactly_once: bool,
    pub transactional_id: String,
    pub progress_topic: String,
    pub timestamp: Option<usize>,
    pub headers: Vec<usize>,
    pub batch_id: bool,
    pub registry: Option<Registry>,
}

impl SinkSettings {
    pub fn of(spec: &SinkSpec) -> Result<SinkSettings> {
        let options = &spec.options;
        let topic = options.require("topic")?.trim().to_string();
        if topic.is_empty() || topic.contains(',') {
            return Err(Error::Invalid(format!(
                "option 'topic' is '{topic}', but the name of one topic was expected"
            )));
        }
        let properties = Properties::of(options, RESERVED, "the engine sets it")?;
        let exactly_once = options.choice("delivery", &["exactly_once", "at_least_once"])? == "exactly_once";
        for option in ["transactional_id", "progress_topic"] {
            if options.get(option).is_some() && !exactly_once {
                return Err(Error::Invalid(format!(
                    "option '{option}' is for delivery = 'exactly_once' only: leave it out"
                )));
            }
        }
        let transactional_id = match options.get("transactional_id") {
            Some("") => return Err(Error::Invalid("option 'transactional_id' is empty: give a name".into())),
            Some(id) => id.to_string(),
            None => format!("millstream-{}-{topic}", spec.name),
        };
        let settings = SinkSettings {
            sink: spec.name.clone(),
            properties,
            creates: options.parse("create", "true or false")?.unwrap_or(false),
            exactly_once,
            transactional_id,
            progress_topic: options.get("progress_topic").unwrap_or(PROGRESS_TOPIC).to_string(),
            timestamp: timestamp(options, spec)?,
            headers: headers(options, spec)?,
            batch_id: options.parse("batch_id", "true or false")?.unwrap_or(false),
            registry: Registry::from_options(options)?,
            topic,
        };
        check_config(&settings.producer(true))?;
        Ok(settings)
    }

    /// Returns the brokers, for messages.
    pub fn servers(&self) -> &str {
        &self.properties.servers
    }

    /// Returns the configuration of a client that neither sends nor reads the topic.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        self.properties.set_in(&mut config);
        config
    }

    /// Returns the configuration of a consumer of the progress topic.
    pub fn consumer(&self, isolation: &str) -> ClientConfig {
        let mut config = self.client();
        // A follower may know a shorter end than the leader.
        config.remove("client.rack");
        config.set("group.id", "millstream");
        config.set("isolation.level", isolation);
        config.set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "earliest");
        config.set("enable.partition.eof", "true");
        config
    }

    /// Returns the configuration of a producer, for transactions or without them.
    pub fn producer(&self, in_transactions: bool) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Java's default partitioner: equal keys go to equal partitions, whichever client sends them.
        config.set("partitioner", "murmur2_random");
        config.set("enable.idempotence", "true");
        config.set("queue.buffering.max.kbytes", "65536");
        config.set("queue.buffering.max.messages", "500000");
        if in_transactions {
            // Messages time out with their transaction.
            config.set("transaction.timeout.ms", "300000");
        }
        self.properties.set_in(&mut config);
        if in_transactions {
            config.set("transactional.id", &self.transactional_id);
        }
        config
    }

    /// Returns how long a transaction may stay open.
    pub fn transaction_timeout(&self) -> Duration {
        let given = self.properties.others.get("transaction.timeout.ms");
        Duration::from_millis(given.and_then(|given| given.parse().ok()).unwrap_or(300_000))
    }
}

/// Returns the columns of headers. Their values must have a text, or be bytes.
fn headers(options: &Options, spec: &SinkSpec) -> Result<Vec<usize>> {
    let headers = columns_named("headers", options, &spec.columns)?.unwrap_or_default();
    for place in &headers {
        let field = spec.columns.field(*place);
        if !has_text(field.data_type()) {
            return Err(Error::Invalid(format!(
                "option 'headers' names column '{}' of type {}, which has no text: cast it to TEXT",
                field.name(),
                sql_type(field.data_type())
            )));
        }
    }
    Ok(headers)
}

fn timestamp(options: &Options, spec: &SinkSpec) -> Result<Option<usize>> {
    match columns_named("timestamp", options, &spec.columns)?.unwrap_or_default().as_slice() {
        [] => Ok(None),
        [place] => match spec.columns.field(*place).data_type() {
            DataType::Timestamp(..) => Ok(Some(*place)),
            other => Err(Error::Invalid(format!(
                "option 'timestamp' names column '{}' of type {}, but one of type TIMESTAMP was expected",
                spec.columns.field(*place).name(),
                sql_type(other)
            ))),
        },
        _ => Err(Error::Invalid("option 'timestamp' names several columns, but one was expected".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<SinkSettings> {
        let mut options = Options::default();
        let given = [("topic", "t"), ("properties.bootstrap.servers", "h:9092")];
        for (name, value) in given.iter().chain(pairs) {
            options.0.insert(name.to_string(), value.to_string());
        }
        let columns = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        SinkSettings::of(&SinkSpec {
            name: "s".into(),
            columns,
            append_only: true,
            key: None,
            auto_pace: false,
            options,
        })
    }

    #[test]
    fn options_are_checked() {
        let error = |pairs: &[(&str, &str)]| settings(pairs).map(drop).unwrap_err().to_string();
        assert!(error(&[("topic", "a,b")]).contains("one topic was expected"));
        assert!(error(&[("timestamp", "a")]).contains("of type INT, but"));
        assert!(error(&[("headers", "a,x")]).contains("names column 'x', but there are a"));
        assert!(error(&[("properties.transactional.id", "x")]).contains("use option transactional_id"));
        assert!(error(&[("properties.linger.ms", "x")]).contains("properties.linger.ms"));
        assert!(error(&[("delivery", "at_least_once"), ("transactional_id", "x")]).contains("leave it out"));
        assert!(error(&[("delivery", "never")]).contains("one of exactly_once, at_least_once"));
        let settings = settings(&[("properties.partitioner", "consistent"), ("headers", "a")]).unwrap();
        assert_eq!(settings.transactional_id, "millstream-s-t");
        assert_eq!(settings.producer(true).get("partitioner"), Some("consistent"));
        assert_eq!(settings.producer(false).get("transactional.id"), None);
        assert_eq!(settings.headers, [0]);
    }
}
