//! Commits of offsets to a consumer group, on a thread of their own: the client library reports only results that are waited
//! for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use millstream_connect::{Error, Result};
use millstream_delta::spawn_detached;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::consumer::Context;

/// A thread that commits offsets. It ends soon after this value is dropped.
pub(crate) struct Commits(SyncSender<TopicPartitionList>);

impl Commits {
    /// Starts the thread.
    pub fn start(consumer: Arc<BaseConsumer<Context>>) -> Result<Commits> {
        let (sender, offsets) = sync_channel(1);
        let thread = Builder::new().name("millstream-kafka-commits".into());
        let started = spawn_detached(thread, move || commit(&consumer, &offsets));
        started.map_err(|error| Error::External(format!("a thread can't be started: {error}")))?;
        Ok(Commits(sender))
    }

    /// Commits offsets, unless earlier ones still wait: later ones follow.
    pub fn commit(&self, offsets: TopicPartitionList) {
        let _ = self.0.try_send(offsets);
    }
}

fn commit(consumer: &BaseConsumer<Context>, offsets: &Receiver<TopicPartitionList>) {
    while let Ok(offsets) = offsets.recv() {
        let committed = consumer.commit(&offsets, CommitMode::Sync);
        consumer.context().committed(committed);
    }
}
