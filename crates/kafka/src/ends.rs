//! The ends of partitions and the ids of topics, asked for from time to time: also while nothing is read, because a reader is
//! full or has nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use millstream_connect::{Error, Health, Result};
use millstream_delta::spawn_detached;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use crate::consumer::{ANSWER, Context, needs_token, offsets, watch_token};
use crate::partition::Partition;
use crate::topic_ids::topic_ids;

/// The time between two questions.
const INTERVAL: Duration = Duration::from_secs(5);

/// A question that takes long, since there are many partitions, delays the next one by so many times its length.
const SHARE: u32 = 20;

/// The most time between two looks at the token of a consumer that needs one.
const TOKEN: Duration = Duration::from_secs(1);

/// A partition that is followed.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// The split that its end is reported for.
    pub split: Arc<str>,
    /// The id of the topic that is read, if it has one.
    pub id: Option<String>,
}

/// A partition, with `None` if it is followed no longer.
type News = (Partition, Option<Followed>);

/// A thread that asks for the ends of partitions and reports them. It ends soon after this value is dropped.
pub(crate) struct Ends(Sender<News>);

impl Ends {
    /// Starts the thread.
    pub fn start(consumer: Arc<BaseConsumer<Context>>, health: Health) -> Result<Ends> {
        let (sender, followed) = channel();
        let thread = Builder::new().name("millstream-kafka-ends".into());
        let started = spawn_detached(thread, move || ask(&consumer, &health, &followed));
        started.map_err(|error| Error::External(format!("a thread can't be started: {error}")))?;
        Ok(Ends(sender))
    }

    /// Reports the end of a partition, and a change of its topic's id.
    pub fn follow(&self, partition: Partition, followed: Followed) {
        let _ = self.0.send((partition, Some(followed)));
    }

    /// Reports the end of a partition no longer.
    pub fn leave(&self, partition: Partition) {
        let _ = self.0.send((partition, None));
    }
}

fn ask(consumer: &BaseConsumer<Context>, health: &Health, news: &Receiver<News>) {
    let mut all: BTreeMap<Partition, Followed> = BTreeMap::new();
    let (mut due, needs_token) = (Instant::now() + INTERVAL, needs_token(consumer));
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        match news.recv_timeout(if needs_token { wait.min(TOKEN) } else { wait }) {
            Ok((partition, Some(followed))) => {
                all.insert(partition, followed);
                continue;
            }
            Ok((partition, None)) => {
                all.remove(&partition);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if needs_token {
            // The token is renewed on this thread, so that reading does not wait for the endpoint.
            watch_token(consumer, health);
            if Instant::now() < due {
                continue;
            }
        }
        let asked = Instant::now();
        if has_other_topic(consumer, &all) {
            consumer.context().found_other_topic();
        }
        let found = ends(consumer, &all);
        // A round that waited for brokers in vain says nothing of what a round takes.
        let is_whole = found.len() == all.len();
        for (partition, end) in found {
            all.get(&partition).into_iter().for_each(|followed| health.ends(&followed.split, end));
        }
        due = Instant::now() + if is_whole { INTERVAL.max(asked.elapsed() * SHARE) } else { INTERVAL };
    }
}

/// Returns true if a topic has another id than the one that is read.
pub(crate) fn has_other_topic(consumer: &BaseConsumer<Context>, all: &BTreeMap<Partition, Followed>) -> bool {
    let known = all.iter().filter_map(|(partition, of)| Some((partition.topic.as_str(), of.id.as_deref()?)));
    let known: BTreeMap<&str, &str> = known.collect();
    match topic_ids(consumer, known.keys().copied(), ANSWER) {
        Ok(now) => known.iter().any(|(topic, id)| now.get(*topic).is_some_and(|other| other != id)),
        Err(error) => {
            tracing::debug!(%error, "the ids of topics can't be had");
            false
        }
    }
}

/// Returns the ends of the followed partitions, as far as they can be had now. A topic that is missing may only be unknown
/// to a broker for a moment, so it stays followed.
pub(crate) fn ends(
    consumer: &BaseConsumer<Context>,
    all: &BTreeMap<Partition, Followed>,
) -> BTreeMap<Partition, u64> {
    if let Ok(ends) = offsets(consumer, all.keys(), Offset::End) {
        return ends;
    }
    // One topic that is missing is an error of all.
    let topics: BTreeSet<&str> = all.keys().map(|partition| partition.topic.as_str()).collect();
    let mut found = BTreeMap::new();
    for topic in topics {
        let of_topic = all.keys().filter(|partition| partition.topic == topic);
        match offsets(consumer, of_topic, Offset::End) {
            Ok(ends) => found.extend(ends),
            Err(error) => tracing::debug!(%error, topic, "the ends of partitions can't be had"),
        }
    }
    found
}
