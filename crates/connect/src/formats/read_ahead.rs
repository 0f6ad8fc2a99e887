//! Reads a stream on a thread of its own, a few blocks ahead of its consumer.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Builder;

use arrow::buffer::Buffer;
use bytes::Bytes;
use millstream_delta::spawn_detached;

/// Maximum number of blocks that wait for the consumer.
const AHEAD: usize = 2;
/// Maximum number of free blocks kept for reuse.
const FREE: usize = 16;
/// Each block reserves 1/16 of its size in front, for the unconsumed bytes of the previous block.
const ROOM: usize = 16;

/// A stream that is read ahead. The thread ends when this is dropped, or at the end of the stream.
pub(crate) struct ReadAhead {
    blocks: Receiver<Block>,
    block_bytes: usize,
    memory: Arc<Memory>,
    ended: bool,
}

/// The result of one read.
struct Block {
    /// The bytes, after the reserved room.
    bytes: Vec<u8>,
    /// The error that cut the read short, unless the stream ended.
    failure: Option<io::Error>,
}

/// The next bytes of a stream.
pub(crate) struct Next {
    /// The unconsumed bytes, followed by the new ones.
    pub block: Buffer,
    /// True if the stream has no more.
    pub ended: bool,
    pub failure: Option<io::Error>,
}

impl ReadAhead {
    /// Starts reading `block_bytes` at a time. Fails if the system can't start a thread.
    pub fn start(mut input: impl Read + Send + 'static, block_bytes: usize) -> io::Result<ReadAhead> {
        let (sender, blocks) = sync_channel(AHEAD);
        let room = block_bytes / ROOM;
        let memory = Memory::of_all();
        let freed = memory.clone();
        let read = move || {
            loop {
                let mut bytes = freed.take(room + block_bytes + 64);
                bytes.resize(room, 0);
                let failure = (&mut input).take(block_bytes as u64).read_to_end(&mut bytes).err();
                let ends = failure.is_some() || bytes.len() < room + block_bytes;
                if sender.send(Block { bytes, failure }).is_err() || ends {
                    break;
                }
            }
        };
        spawn_detached(Builder::new().name("millstream-read".into()), read)?;
        Ok(ReadAhead { blocks, block_bytes, memory, ended: false })
    }

    /// Returns the next bytes after `rest`: one block, then more until there are as many new bytes as old
    /// ones.
    pub fn next(&mut self, rest: &[u8]) -> Next {
        let room = self.block_bytes / ROOM;
        let Block { mut bytes, mut failure } = self.block();
        if rest.len() <= room {
            let from = room - rest.len();
            bytes[from..room].copy_from_slice(rest);
            let lent = Bytes::from_owner(Lent { bytes, memory: self.memory.clone() });
            return Next { block: Buffer::from(lent).slice(from), ended: self.ended, failure };
        }
        let mut all = rest.to_vec();
        all.extend_from_slice(&bytes[room..]);
        while !self.ended && all.len() < 2 * rest.len() {
            let block = self.block();
            all.extend_from_slice(&block.bytes[room..]);
            failure = block.failure;
        }
        Next { block: Buffer::from_vec(all), ended: self.ended, failure }
    }

    fn block(&mut self) -> Block {
        let room = self.block_bytes / ROOM;
        let without_bytes = |failure| Block { bytes: vec![0; room], failure };
        let block = match self.ended {
            true => without_bytes(None),
            // A thread that ended without a last block has panicked.
            false => self.blocks.recv().unwrap_or_else(|_| {
                without_bytes(Some(io::Error::other("the thread that reads ahead is gone")))
            }),
        };
        self.ended |= block.failure.is_some() || block.bytes.len() < room + self.block_bytes;
        block
    }
}

/// Memory of blocks that nothing refers to any more, for reuse: the system must clear the memory that it
/// allocates.
#[derive(Default)]
struct Memory {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Memory {
    /// Returns the pool of all streams. It is freed with the last of the streams and their blocks.
    fn of_all() -> Arc<Memory> {
        static OF_ALL: Mutex<Weak<Memory>> = Mutex::new(Weak::new());
        let mut of_all = OF_ALL.lock().unwrap_or_else(PoisonError::into_inner);
        of_all.upgrade().unwrap_or_else(|| {
            let memory = Arc::default();
            *of_all = Arc::downgrade(&memory);
            memory
        })
    }

    fn take(&self, capacity: usize) -> Vec<u8> {
        let mut bytes = self.free().pop().unwrap_or_default();
        bytes.clear();
        bytes.reserve_exact(capacity);
        bytes
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block that arrays point into.
struct Lent {
    bytes: Vec<u8>,
    memory: Arc<Memory>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.memory.free();
        if free.len() < FREE {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}
