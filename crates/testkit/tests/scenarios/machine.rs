//! An engine that crashes, and restarts from the surviving state.

use std::sync::Arc;

use millstream_durable::DataDirectory;
use millstream_durable::simulated::SimulatedDisk;
use millstream_durable::simulated_store::SimulatedStore;
use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{Result, run};
use rand::Rng;
use rand::rngs::SmallRng;

use super::stores::prefix;

/// The location of an engine's data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    OnDisk,
    OnStore,
}

/// An engine on a disk that forgets unsynced bytes in a crash, or on an object store that another engine
/// takes over.
pub struct Machine {
    pub(super) disk: SimulatedDisk,
    /// The object store; if set, the disk is unused.
    store: Option<SimulatedStore>,
    builder: Box<dyn Fn() -> EngineBuilder>,
    pub(super) engine: Engine,
}

impl Machine {
    /// Starts the first engine from this builder; all later ones use it, too.
    pub fn start(builder: impl Fn() -> EngineBuilder + 'static) -> Result<Machine> {
        let (disk, builder) = (SimulatedDisk::default(), Box::new(builder));
        let engine = open(&disk, builder())?;
        Ok(Machine { disk, store: None, builder, engine })
    }

    /// Like [`Machine::start`], at this location.
    pub fn start_at(kept: Kept, builder: impl Fn() -> EngineBuilder + 'static) -> Result<Machine> {
        if kept == Kept::OnDisk {
            return Machine::start(builder);
        }
        let (store, builder) = (SimulatedStore::default(), Box::new(builder));
        let engine = open_store(&store, builder())?;
        Ok(Machine { disk: SimulatedDisk::default(), store: Some(store), builder, engine })
    }

    /// Sets the checkpoint interval: automatic checkpoints, or explicit ones only.
    pub async fn set_interval(&self, random: &mut SmallRng) -> Result<()> {
        let interval = ["off", "1 ms", "20 ms"][random.random_range(0..3)];
        if self.store.is_some() {
            let journal = ["auto", "1 ms", "5 ms"][random.random_range(0..3)];
            run(&mut self.session(), &format!("SET journal_interval = '{journal}'")).await?;
        }
        run(&mut self.session(), &format!("SET checkpoint_interval = '{interval}'")).await.map(drop)
    }

    /// Returns a session of the present engine.
    pub fn session(&self) -> Session {
        self.engine.session()
    }

    /// Crashes the engine, loses unsynced bytes, and restarts.
    pub async fn crash(&mut self, random: &mut SmallRng) -> Result<()> {
        self.maybe_checkpoint(random).await?;
        self.crash_at(|| {}, random).await
    }

    /// Takes a checkpoint: a whole one, an unfinished one, or none.
    async fn maybe_checkpoint(&self, random: &mut SmallRng) -> Result<()> {
        match random.random_range(0..4) {
            0 => drop(run(&mut self.session(), "CHECKPOINT").await?),
            1 => {
                let mut session = self.session();
                tokio::spawn(async move { run(&mut session, "CHECKPOINT").await.is_ok() });
                let pause = random.random_range(0..3000);
                tokio::time::sleep(std::time::Duration::from_micros(pause)).await;
            }
            _ => {}
        }
        Ok(())
    }

    /// Like [`Machine::crash`] without a checkpoint; `meanwhile` runs before the restart.
    pub(super) async fn crash_at(&mut self, meanwhile: impl FnOnce(), random: &mut SmallRng) -> Result<()> {
        if let Some(store) = &self.store {
            let next = store.crash();
            // Another process takes over. Then the previous one resumes, as after a sleep, and ends by itself
            // or is ended.
            let taken_over = prefix(&next).open().map_err(|error| error.to_string())?;
            store.come_back();
            let _ = self.engine.stop().await;
            drop(taken_over);
            meanwhile();
            self.engine = open_store(&next, (self.builder)())?;
            self.store = Some(next);
            return Ok(());
        }
        self.disk = self.disk.crash(|bound| random.random_range(0..bound));
        // The process is gone; the engine must be stopped here, so that it closes the files of its sinks.
        let _ = self.engine.stop().await;
        meanwhile();
        self.engine = open(&self.disk, (self.builder)())?;
        Ok(())
    }
}

/// Starts an engine on a disk.
pub fn open(disk: &SimulatedDisk, builder: EngineBuilder) -> Result<Engine> {
    let directory = DataDirectory::on(Arc::new(disk.clone()));
    builder.data_directory(directory).start().map_err(|error| format!("it doesn't start: {error}"))
}

fn open_store(store: &SimulatedStore, builder: EngineBuilder) -> Result<Engine> {
    builder.data_store(prefix(store)).start().map_err(|error| format!("it doesn't start: {error}"))
}
