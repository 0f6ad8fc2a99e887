//! Reads a stream on a thread of its own, some blocks ahead of who takes them.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use arrow::buffer::Buffer;

/// How many blocks wait to be taken at most.
const AHEAD: usize = 2;
/// A block has one part of so many in front, as room for what was left of the block before.
const ROOM: usize = 16;

/// A stream that is read ahead; the thread ends with it, or at the end of the stream.
pub(crate) struct ReadAhead {
    blocks: Receiver<Block>,
    block_bytes: usize,
    ended: bool,
}

/// What was read at once.
struct Block {
    /// The bytes, behind the room.
    bytes: Vec<u8>,
    /// Why they are fewer than were to be read, where it isn't the end.
    failure: Option<io::Error>,
}

/// What comes next of a stream.
pub(crate) struct Next {
    /// What was left, and what was read behind it.
    pub block: Buffer,
    /// Whether the stream has no more.
    pub ended: bool,
    pub failure: Option<io::Error>,
}

impl ReadAhead {
    /// Begins to read so many bytes at a time; fails where the system has no thread to give.
    pub fn start(mut input: impl Read + Send + 'static, block_bytes: usize) -> io::Result<ReadAhead> {
        let (sender, blocks) = sync_channel(AHEAD);
        let room = block_bytes / ROOM;
        let read = move || {
            loop {
                let mut bytes = Vec::with_capacity(room + block_bytes + 64);
                bytes.resize(room, 0);
                let failure = (&mut input).take(block_bytes as u64).read_to_end(&mut bytes).err();
                let ends = failure.is_some() || bytes.len() < room + block_bytes;
                if sender.send(Block { bytes, failure }).is_err() || ends {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("millstream-read".into()).spawn(read)?;
        Ok(ReadAhead { blocks, block_bytes, ended: false })
    }

    /// The next bytes behind `rest`: a block, and more blocks until there are as many new bytes as old ones.
    pub fn next(&mut self, rest: &[u8]) -> Next {
        let room = self.block_bytes / ROOM;
        let Block { mut bytes, mut failure } = self.block();
        if rest.len() <= room {
            let from = room - rest.len();
            bytes[from..room].copy_from_slice(rest);
            return Next { block: Buffer::from_vec(bytes).slice(from), ended: self.ended, failure };
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
            // A thread that is gone without a last block has panicked.
            false => self.blocks.recv().unwrap_or_else(|_| {
                without_bytes(Some(io::Error::other("the thread that reads ahead is gone")))
            }),
        };
        self.ended |= block.failure.is_some() || block.bytes.len() < room + self.block_bytes;
        block
    }
}
