//! The source: pulls and replays run on threads that may wait for a broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_connect::{
    Arrival, Error, Jump, Limit, Reading, Result, Source, SourceProperties, SourceSpec,
};
use millstream_delta::{Position, Span};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::intake::Intake;
use crate::options::Settings;
use crate::replay::Replay;
use crate::rows::Columns;

/// Longest wait before another look: events beside records wake nobody.
const LOOK: Duration = Duration::from_secs(1);

/// For how long after a replay its consumer stays connected.
const REPLAY_IDLE: Duration = Duration::from_secs(10);

/// A source of one or several topics.
pub(crate) struct KafkaSource {
    settings: Arc<Settings>,
    columns: Arc<Columns>,
    arrived: Arc<Notify>,
    /// Absent while a pull runs.
    intake: Option<Box<Intake>>,
    pull: Option<JoinHandle<(Box<Intake>, Result<Arrival>)>>,
    replay: Option<Box<Replay>>,
    replayed: Instant,
}

impl KafkaSource {
    pub fn new(spec: &SourceSpec) -> Result<KafkaSource> {
        let settings = Arc::new(Settings::of(&spec.name, &spec.options)?);
        settings.check_properties()?;
        let columns = Arc::new(Columns::of(spec)?);
        let arrived = Arc::<Notify>::default();
        let intake = Intake::new(settings.clone(), columns.clone(), spec.health.clone(), arrived.clone());
        Ok(KafkaSource {
            settings,
            columns,
            arrived,
            intake: Some(Box::new(intake)),
            pull: None,
            replay: None,
            replayed: Instant::now(),
        })
    }
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::Bug(format!("reading Kafka stopped: {error}"))
}

#[async_trait]
impl Source for KafkaSource {
    fn schema(&self) -> &SchemaRef {
        &self.columns.schema
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            replayable: true,
            prunes_columns: true,
            brings_changes: self.columns.brings_changes(),
            bounded: self.settings.bounded,
            reliable: self.settings.group_id.is_some(),
            reading: Reading::SideBySide(Vec::new()),
            position_column: self.columns.offsets(),
            ..SourceProperties::default()
        }
    }

    async fn seek(&mut self, after: &Position) -> Result<()> {
        self.intake.as_mut().ok_or_else(|| stopped("it is being read"))?.seek(after)
    }

    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        if self.replayed.elapsed() > REPLAY_IDLE
            && let Some(replay) = self.replay.take()
        {
            // Its end waits for librdkafka's threads.
            drop(spawn_blocking(move || drop(replay)));
        }
        if self.pull.is_none() {
            let mut intake = self.intake.take().ok_or_else(|| stopped("its state was lost"))?;
            self.pull = Some(spawn_blocking(move || {
                let arrival = intake.next(limit);
                (intake, arrival)
            }));
        }
        let Some(pull) = &mut self.pull else { return Err(stopped("its pull was lost")) };
        let done = pull.await;
        self.pull = None;
        let (intake, arrival) = done.map_err(stopped)?;
        self.intake = Some(intake);
        arrival
    }

    async fn ready(&mut self) -> Result<()> {
        if self.pull.is_none() {
            drop(tokio::time::timeout(LOOK, self.arrived.notified()).await);
        }
        Ok(())
    }

    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let (settings, columns) = (self.settings.clone(), self.columns.clone());
        let (replay, span) = (self.replay.take(), span.clone());
        let ids = self.intake.as_ref().map(|intake| intake.topic_ids().clone());
        let replayed = spawn_blocking(move || {
            let mut replay = match replay {
                Some(replay) => replay,
                None => Box::new(Replay::new(&settings, columns)?),
            };
            ids.iter().for_each(|ids| replay.take_ids(ids));
            let arrival = replay.replay(&span, limit)?;
            Ok((replay, arrival))
        });
        let (replay, arrival) = replayed.await.map_err(stopped)??;
        (self.replay, self.replayed) = (Some(replay), Instant::now());
        Ok(arrival)
    }

    async fn jump(&mut self, to: &Jump) -> Result<usize> {
        let mut intake = self.intake.take().ok_or_else(|| stopped("it is being read"))?;
        let to = to.clone();
        let jumped = spawn_blocking(move || {
            let jumped = intake.jump(&to);
            (intake, jumped)
        });
        let (intake, jumped) = jumped.await.map_err(stopped)?;
        self.intake = Some(intake);
        jumped
    }

    async fn want(&mut self, columns: &[bool]) -> Result<()> {
        self.columns.want(columns);
        Ok(())
    }

    async fn acknowledge(&mut self, through: &Position) -> Result<()> {
        match &mut self.intake {
            Some(intake) => intake.commit(through),
            None => Ok(()),
        }
    }
}

impl Drop for KafkaSource {
    /// Ends the consumers on a thread that may wait for librdkafka.
    fn drop(&mut self) {
        let ended = (self.intake.take(), self.replay.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(ended)));
        }
    }
}

#[cfg(test)]
mod tests;
