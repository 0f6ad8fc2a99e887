//! A simulated disk that forgets unsynced bytes and fails on demand, for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, Growing};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    /// The number of calls that may fail.
    calls: u64,
    /// The call to fail.
    fails_at: Option<u64>,
    /// The capacity in bytes.
    room: Option<u64>,
    /// True after a crash: all further calls fail.
    gone: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// The number of synced bytes.
    synced: usize,
}

impl SimulatedDisk {
    /// Makes the n-th call from now on fail, counting from 1.
    pub fn fail_at(&self, n: u64) {
        let mut state = self.lock();
        state.fails_at = Some(state.calls + n);
    }

    /// Returns the number of calls that may fail.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Sets the total capacity in bytes; `None` removes the limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.lock().room = bytes;
    }

    /// Crashes the disk and returns its content after the crash. `random` chooses how much of the unsynced
    /// bytes survives, and if the last of them are damaged. The old disk fails from then on.
    pub fn crash(&self, mut random: impl FnMut(usize) -> usize) -> SimulatedDisk {
        let mut state = self.lock();
        state.gone = true;
        let mut files = state.files.clone();
        for file in files.values_mut() {
            let kept = random(file.bytes.len() - file.synced + 1);
            file.bytes.truncate(file.synced + kept);
            let damaged = random(kept + 1);
            let from = file.bytes.len() - damaged;
            if random(2) == 0 {
                file.bytes[from..].fill(0);
            }
            file.synced = file.bytes.len();
        }
        let state = State { files, ..State::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Returns another disk with the same content.
    pub fn copy(&self) -> SimulatedDisk {
        let state = State { files: self.lock().files.clone(), ..State::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Flips bits in a byte of a file.
    pub fn flip(&self, name: &str, at: usize, bits: u8) {
        if let Some(byte) = self.lock().files.get_mut(name).and_then(|file| file.bytes.get_mut(at)) {
            *byte ^= bits;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and fails if it is the one to fail.
    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.gone {
            return Err(io::Error::other("the machine is gone"));
        }
        state.calls += 1;
        if state.fails_at == Some(state.calls) {
            return Err(io::Error::other("the disk fails as it was told to"));
        }
        Ok(state)
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.lock();
        state.files.get(name).map(|file| file.bytes.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read_some(&self, names: &[&str]) -> io::Result<Vec<Vec<u8>>> {
        names.iter().take(1).map(|name| self.read(name)).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Growing>> {
        let mut state = self.call()?;
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_string(), File::default());
        Ok(Box::new(SimulatedFile { disk: self.clone(), name: name.to_string() }))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.call()?;
        let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.synced = file.bytes.len();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    name: String,
}

impl Growing for SimulatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.call()?;
        let used: usize = state.files.values().map(|file| file.bytes.len()).sum();
        let room = state.room.map_or(usize::MAX, |room| room.saturating_sub(used as u64) as usize);
        let Some(file) = state.files.get_mut(&self.name) else { return Err(io::ErrorKind::NotFound.into()) };
        let fits = bytes.len().min(room);
        file.bytes.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.call()?;
        if let Some(file) = state.files.get_mut(&self.name) {
            file.synced = file.bytes.len();
        }
        Ok(())
    }

    fn shorten(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.call()?;
        if let Some(file) = state.files.get_mut(&self.name) {
            file.bytes.truncate(length as usize);
            file.synced = file.synced.min(file.bytes.len());
        }
        Ok(())
    }
}
