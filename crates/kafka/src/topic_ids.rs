//! The ids of topics: a topic that is deleted and created again gets another one, and its offsets begin anew.
//!
//! The engine's position keeps the id as a split of its own without rows, `topic#id`. Its only span begins at the number of
//! jumps that the splits of the topic have at least: so a start and a new query know which splits belong to which id.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::Arc;

use std::time::Duration;

use millstream_connect::Result;
use millstream_delta::Span;
use rdkafka::bindings::{
    rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_broker,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics,
    rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
    rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_name,
    rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_base64str, rd_kafka_admin_op_t, rd_kafka_error_code,
    rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
    rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::{RDKafka, RDKafkaRespErr};

use crate::consumer::{Context, Reader};

/// The id that brokers give a topic if they have none.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Returns the id of each topic that exists. It is empty for brokers before version 2.8, which have no ids.
pub(crate) fn topic_ids<'t>(
    consumer: &BaseConsumer<Context>,
    topics: impl IntoIterator<Item = &'t str>,
    patience: Duration,
) -> KafkaResult<BTreeMap<String, String>> {
    // A name that is asked for twice is an error.
    let topics: BTreeSet<&str> = topics.into_iter().collect();
    let Some(first) = topics.first().copied() else { return Ok(BTreeMap::new()) };
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let broker = answering(consumer, first, patience)?;
    match described(consumer.client().native_ptr(), &names, broker, patience) {
        Ok(mut ids) => {
            ids.retain(|_, id| !id.starts_with(NONE));
            Ok(ids)
        }
        Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE) => Ok(BTreeMap::new()),
        Err(error) => Err(KafkaError::AdminOp(RDKafkaErrorCode::from(error))),
    }
}

/// Returns a broker that answers now. All brokers know the ids of topics; by default librdkafka asks the controller, and
/// waits while there is none.
fn answering(consumer: &BaseConsumer<Context>, topic: &str, patience: Duration) -> KafkaResult<Option<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), patience)?;
    let known = || metadata.brokers().iter().map(|broker| broker.id());
    // The id is negative if a bootstrap server answered that isn't known by its id yet.
    let answered = known().find(|id| *id == metadata.orig_broker_id());
    Ok(answered.or_else(|| known().next()))
}

/// Asks for descriptions of topics.
#[allow(unsafe_code)]
fn described(
    client: *mut RDKafka,
    names: &[CString],
    broker: Option<i32>,
    patience: Duration,
) -> std::result::Result<BTreeMap<String, String>, RDKafkaRespErr> {
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut ids = Ok(BTreeMap::new());
    // SAFETY: the client lives as long as its consumer, which the caller holds. The names outlive the collection, which
    // copies them. The topics belong to the event, and are read before it is destroyed. All that is created here is
    // destroyed here, once.
    unsafe {
        let topics = rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = rd_kafka_AdminOptions_new(client, operation);
        let patience = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        rd_kafka_AdminOptions_set_request_timeout(options, patience, ptr::null_mut(), 0);
        if let Some(broker) = broker {
            rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        }
        let queue = rd_kafka_queue_new(client);
        rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = rd_kafka_queue_poll(queue, patience);
        let (result, error) = match event.is_null() {
            true => (ptr::null(), RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT),
            false => (rd_kafka_event_DescribeTopics_result(event), rd_kafka_event_error(event)),
        };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            ids = Err(error);
        } else if !result.is_null() {
            let mut count = 0;
            let found = rd_kafka_DescribeTopics_result_topics(result, &mut count);
            for place in 0..count {
                let topic = *found.add(place);
                let error = rd_kafka_error_code(rd_kafka_TopicDescription_error(topic));
                let id = rd_kafka_Uuid_base64str(rd_kafka_TopicDescription_topic_id(topic));
                let name = CStr::from_ptr(rd_kafka_TopicDescription_name(topic));
                let text = |text: &CStr| text.to_string_lossy().into_owned();
                match (error, &mut ids) {
                    (RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, Ok(ids)) if !id.is_null() => {
                        ids.insert(text(name), text(CStr::from_ptr(id)));
                    }
                    (
                        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
                        | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                        _,
                    ) => {}
                    (error, _) => ids = Err(error),
                }
            }
        }
        if !event.is_null() {
            rd_kafka_event_destroy(event);
        }
        rd_kafka_queue_destroy(queue);
        rd_kafka_AdminOptions_destroy(options);
        rd_kafka_TopicCollection_destroy(topics);
    }
    ids
}

/// The ids that the topics of a source have had, each with the least number of jumps of its splits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicIds(BTreeMap<String, BTreeMap<u32, String>>);

impl TopicIds {
    /// Returns true if a split is the id of a topic.
    pub fn is_id(split: &str) -> bool {
        split.find('#').is_some_and(|at| !split[..at].contains('/'))
    }

    /// Takes in the span of an id.
    pub fn take(&mut self, span: &Span) {
        // The mark of a first look has no topic.
        if let Some((topic, id)) = span.split.split_once('#').filter(|(topic, _)| !topic.is_empty()) {
            self.set(topic, u32::try_from(span.to.saturating_sub(1)).unwrap_or(u32::MAX), id);
        }
    }

    /// Takes in the ids that another value has.
    pub fn take_all(&mut self, others: &TopicIds) {
        for (topic, ids) in &others.0 {
            self.0.entry(topic.clone()).or_default().extend(ids.clone());
        }
    }

    /// Sets the id of the splits of a topic from a number of jumps on. Returns the span that keeps it.
    pub fn set(&mut self, topic: &str, jumps: u32, id: &str) -> Span {
        self.0.entry(topic.to_string()).or_default().insert(jumps, id.to_string());
        let (split, at): (Arc<str>, u64) = (format!("{topic}#{id}").into(), jumps.into());
        Span { split, from: at, to: at + 1, done: true }
    }

    /// Returns the least number of jumps of the splits that belong to the newest id of a topic.
    pub fn jumps(&self, topic: &str) -> u32 {
        self.0.get(topic).and_then(|ids| ids.last_key_value()).map_or(0, |(jumps, _)| *jumps)
    }

    /// Returns the present ids of topics. Fails if they can't be had now, though a topic has had one; before that, a topic
    /// may be of a cluster that has no ids.
    pub fn present<'t>(
        &self,
        reader: &Reader,
        topics: impl IntoIterator<Item = &'t str>,
        patience: Duration,
    ) -> Result<BTreeMap<String, String>> {
        let topics: BTreeSet<&str> = topics.into_iter().collect();
        match reader.topic_ids(topics.iter().copied(), patience) {
            Err(error) if topics.iter().any(|topic| self.newest(topic).is_some()) => Err(error),
            found => Ok(found.unwrap_or_default()),
        }
    }

    /// Returns the newest id of a topic.
    pub fn newest(&self, topic: &str) -> Option<&str> {
        self.0.get(topic)?.last_key_value().map(|(_, id)| id.as_str())
    }

    /// Returns the id of a topic that a split with a number of jumps belongs to.
    pub fn of(&self, topic: &str, jumps: u32) -> Option<&str> {
        self.0.get(topic)?.range(..=jumps).next_back().map(|(_, id)| id.as_str())
    }

    /// Returns the topics whose id is the same now.
    pub fn same(&self, now: &BTreeMap<String, String>) -> BTreeSet<String> {
        let is_same = |(topic, id): &(&String, &String)| self.newest(topic) == Some(id.as_str());
        now.iter().filter(is_same).map(|(topic, _)| topic.clone()).collect()
    }

    /// Returns the topics whose id is another one now, with the present id.
    pub fn changed(&self, now: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let is_other =
            |(topic, id): &(&String, &String)| self.newest(topic).is_some_and(|known| known != id.as_str());
        now.iter().filter(is_other).map(|(topic, id)| (topic.clone(), id.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_splits_that_say_which_splits_they_belong_to() {
        let mut ids = TopicIds::default();
        let spans = [ids.set("t", 0, "a/b+"), ids.set("t", 3, "c#")];
        assert_eq!((spans[1].split.as_ref(), spans[1].from, spans[1].to), ("t#c#", 3, 4));
        assert!(spans.iter().all(|span| TopicIds::is_id(&span.split)));
        assert!(!TopicIds::is_id("t/0") && !TopicIds::is_id("t/0@4#2"));
        let mut again = TopicIds::default();
        spans.iter().rev().for_each(|span| again.take(span));
        assert_eq!(again, ids);
        assert_eq!([ids.of("t", 2), ids.of("t", 3), ids.of("u", 0)], [Some("a/b+"), Some("c#"), None]);
        let now = BTreeMap::from([("t".to_string(), "d".to_string()), ("u".to_string(), "e".to_string())]);
        assert_eq!((ids.newest("t"), ids.jumps("t"), ids.jumps("u")), (Some("c#"), 3, 0));
        assert_eq!(ids.changed(&now).into_keys().collect::<Vec<_>>(), ["t"]);
        // A topic without a known id is neither the same nor another one.
        assert!(ids.same(&now).is_empty());
        let now = BTreeMap::from([("t".to_string(), "c#".to_string())]);
        assert_eq!(ids.same(&now).into_iter().collect::<Vec<_>>(), ["t"]);
        let mut more = TopicIds::default();
        more.set("u", 1, "e");
        more.take_all(&ids);
        assert_eq!([more.of("t", 2), more.of("u", 0), more.of("u", 1)], [Some("a/b+"), None, Some("e")]);
    }
}
