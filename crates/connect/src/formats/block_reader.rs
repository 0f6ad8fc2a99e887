//! A stream of bytes in memory, a block at a time.

use std::io::{self, Read};

use arrow::buffer::Buffer;

use super::read_ahead::{Next, ReadAhead};

/// Bytes of one read.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Reads a stream in large blocks. The next block begins with the bytes of the last one that were not consumed.
pub(super) struct BlockReader {
    input: Input,
    pub(super) block: Buffer,
    /// Offset in the block of the first byte not consumed yet.
    pub(super) at: usize,
    /// Offset of the block in the stream.
    pub(super) offset: u64,
    /// Number of bytes to expect, if known.
    expected: usize,
    pub(super) ended: bool,
    pub(super) failure: Option<io::Error>,
    /// True if bytes are pushed: an empty block then doesn't mean the end.
    pub(super) is_pushed: bool,
}

enum Input {
    Here(Box<dyn Read + Send>),
    Ahead(ReadAhead),
}

impl BlockReader {
    /// Creates a reader of `input`, whose first byte is at `offset` of the stream.
    pub(super) fn new(input: Box<dyn Read + Send>, offset: u64) -> BlockReader {
        BlockReader {
            input: Input::Here(input),
            block: Buffer::from_vec(Vec::<u8>::new()),
            at: 0,
            offset,
            expected: BLOCK_BYTES,
            ended: false,
            failure: None,
            is_pushed: false,
        }
    }

    /// Reads on a thread of its own from now on.
    pub(super) fn reading_ahead(mut self, block_bytes: usize) -> io::Result<BlockReader> {
        if let Input::Here(input) = self.input {
            self.input = Input::Ahead(ReadAhead::start(input, block_bytes)?);
        }
        Ok(self)
    }

    /// Sets the approximate length of the stream, so that small streams use little memory.
    pub(super) fn expect_bytes(&mut self, bytes: u64) {
        self.expected = usize::try_from(bytes).unwrap_or(BLOCK_BYTES).saturating_add(1).min(BLOCK_BYTES);
    }

    /// Appends bytes of a pushed stream.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        let rest = self.unread();
        let block = if rest.is_empty() { bytes } else { [rest, &bytes].concat() };
        self.set_block(Buffer::from_vec(block));
    }

    /// Returns the stream offset of the first byte not consumed yet.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// Returns the bytes in memory that are not consumed yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.block[self.at..]
    }

    /// Returns true if everything was consumed, as far as is known without reading.
    pub(super) fn is_exhausted(&self) -> bool {
        self.ended && self.failure.is_none() && self.at == self.block.len()
    }

    /// Returns true if the system cut the stream off, which may pass.
    pub(super) fn was_cut_off(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.raw_os_error().is_some())
    }

    /// Takes the failure at which the stream ends.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        let failure = self.failure.take()?;
        self.ended = true;
        Some(failure)
    }

    /// Forgets the bytes in memory. To continue, the caller opens the stream at `offset` again.
    pub(super) fn rewind(&mut self, offset: u64) {
        (self.block, self.at, self.offset) = (Buffer::from_vec(Vec::<u8>::new()), 0, offset);
    }

    /// Reads more of the stream.
    pub(super) fn fill(&mut self) {
        let rest = &self.block[self.at..];
        // A record that spans blocks doubles its block, so that it is searched a bounded number of times.
        let Next { block, ended, failure } = match &mut self.input {
            Input::Here(input) => read_behind(input, rest, self.expected.max(rest.len())),
            Input::Ahead(ahead) => ahead.next(rest),
        };
        (self.ended, self.failure) = (ended, failure);
        self.expected = BLOCK_BYTES;
        self.set_block(block);
    }

    /// Continues in a block that begins with the unconsumed bytes.
    fn set_block(&mut self, block: Buffer) {
        self.offset += self.at as u64;
        self.at = 0;
        self.block = block;
    }
}

/// Returns `rest`, followed by up to `want` bytes of the stream.
fn read_behind(input: &mut dyn Read, rest: &[u8], want: usize) -> Next {
    let mut block = Vec::with_capacity(rest.len() + want + 64);
    block.extend_from_slice(rest);
    let failure = input.take(want as u64).read_to_end(&mut block).err();
    let ended = failure.is_some() || block.len() - rest.len() < want;
    Next { block: Buffer::from_vec(block), ended, failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_begins_with_the_bytes_that_were_left() {
        let mut reader = BlockReader::new(Box::new(&b"abcdefg"[..]), 100);
        reader.expect_bytes(2);
        reader.fill();
        assert_eq!((reader.unread(), reader.ended), (&b"abc"[..], false));
        reader.at += 1;
        reader.fill();
        assert_eq!((reader.unread(), reader.position(), reader.ended), (&b"bcdefg"[..], 101, true));
        assert!(!reader.is_exhausted());
        reader.at += 6;
        assert!(reader.is_exhausted() && reader.take_failure().is_none());
    }

    #[test]
    fn pushed_bytes_follow_those_that_were_left() {
        let mut reader = BlockReader::new(Box::new(io::empty()), 0);
        reader.push(b"ab".to_vec());
        reader.at += 1;
        reader.push(b"c".to_vec());
        assert_eq!((reader.unread(), reader.position()), (&b"bc"[..], 1));
        reader.rewind(7);
        assert_eq!((reader.unread(), reader.position()), (&b""[..], 7));
    }
}
