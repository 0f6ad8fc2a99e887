//! The columns of a source that declares none: those of the schema registry, or of the topic's first records.

use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use millstream_connect::{Error, Result, SourceSpec};
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::consumer::{ANSWER, Reader};
use crate::options::Settings;
use crate::rows::{format, wait};
use crate::topics::Topics;

/// Most records that are looked at, and their bytes.
const RECORDS_MAX: usize = 100;
const BYTES_MAX: usize = 4 << 20;

/// Returns the columns, if the format's schemas or records say them.
pub(crate) fn columns(spec: &SourceSpec) -> Result<Option<SchemaRef>> {
    let settings = Settings::of(&spec.name, &spec.options)?;
    settings.check_properties()?;
    let format = format(spec)?;
    let Some(topic) = topic(spec, &settings)? else { return Ok(None) };
    if let Some(columns) = wait(format.columns(spec, &topic))? {
        return Ok(Some(columns));
    }
    if !format.has_columns_in_records(spec) {
        return Ok(None);
    }
    let values = first_values(spec, settings, &topic)?;
    format.columns_of_records(spec, &topic, &values).map(Some)
}

/// Returns the topic that says the columns: the first one. `None` if no topic matches a pattern yet.
fn topic(spec: &SourceSpec, settings: &Settings) -> Result<Option<String>> {
    match &settings.topics {
        Topics::Named(names) => Ok(names.first().cloned()),
        Topics::Matching(pattern) => {
            let found = Reader::new(settings, &spec.health, None)?.matching(pattern, ANSWER)?;
            Ok(found.into_iter().next().map(|partition| partition.topic))
        }
    }
}

/// Returns values of the first records of a topic.
fn first_values(spec: &SourceSpec, settings: Settings, topic: &str) -> Result<Vec<Vec<u8>>> {
    // A bounded reader hears of the ends of partitions.
    let reader = Reader::new(&Settings { bounded: true, ..settings }, &spec.health, None)?;
    let mut assigned = TopicPartitionList::new();
    let partitions = reader.partitions(topic, ANSWER)?;
    for (partition, (first, end)) in reader.bounds(partitions.iter())? {
        if first < end {
            let offset = Offset::Offset(first as i64);
            let added = assigned.add_partition_offset(topic, partition.number, offset);
            added.map_err(|error| reader.failed(&format!("{partition} can't be read"), error))?;
        }
    }
    let assign = reader.consumer.assign(&assigned);
    assign.map_err(|error| reader.failed(&format!("topic '{topic}' can't be read"), error))?;
    let (mut values, mut bytes, mut open) = (Vec::new(), 0, assigned.count());
    let until = Instant::now() + ANSWER;
    while open > 0 && values.len() < RECORDS_MAX && bytes < BYTES_MAX && Instant::now() < until {
        match reader.consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(reader.failed(&format!("topic '{topic}' can't be read"), error)),
            Some(Ok(record)) => {
                bytes += record.payload_len();
                values.extend(record.payload().map(<[u8]>::to_vec));
            }
        }
    }
    if values.is_empty() && open > 0 {
        return Err(Error::External(format!(
            "topic '{topic}' gave no record within {} seconds, which the columns of source '{}' are to be found in",
            ANSWER.as_secs(),
            spec.name
        )));
    }
    Ok(values)
}
