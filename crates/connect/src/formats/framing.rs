//! Splits a stream of bytes into records.

use std::io::{self, Read};

use arrow::buffer::Buffer;
use memchr::{memchr, memchr2};

use super::block_reader::{BLOCK_BYTES, BlockReader};
use crate::BadRow;

/// The end of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each newline.
    Line,
    /// Each newline outside of quotes. A quote opens only at the start of a field, as in CSV readers.
    Quoted {
        /// The byte between two fields.
        delimiter: u8,
        /// The byte around a field.
        quote: u8,
    },
}

/// The place of a record in its block: its content without the line end, and the start of the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub start: u32,
    pub end: u32,
    pub next: u32,
}

/// A malformed record: its offset in the stream, the reason, and its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadRecord {
    pub offset: u64,
    pub reason: String,
    pub bytes: Vec<u8>,
}

impl BadRecord {
    /// Creates a bad record with at most [`BadRow::BYTES_MAX`] of its bytes.
    pub fn new(offset: u64, reason: impl Into<String>, bytes: &[u8]) -> BadRecord {
        BadRecord {
            offset,
            reason: reason.into(),
            bytes: bytes[..bytes.len().min(BadRow::BYTES_MAX)].to_vec(),
        }
    }
}

/// Consecutive records of one block.
#[derive(Debug)]
pub(crate) struct Run {
    /// The block; text columns may point into it.
    pub block: Buffer,
    /// Offset of the block's first byte in the stream.
    pub offset: u64,
    pub records: Vec<Record>,
    pub bad: Vec<BadRecord>,
}

/// Reads a stream in large blocks and splits it into records.
///
/// The result is a function of the bytes alone, not of the cuts into blocks or runs. So any part of a
/// stream that ends with a record can be read again with the same result.
pub(crate) struct Framer {
    framing: Framing,
    record_bytes_max: usize,
    /// Returns true for records to skip.
    passes_over: fn(&[u8]) -> bool,
    /// True if the bytes after the last line end are a record when the stream ends.
    end_completes: bool,
    stream: BlockReader,
    /// The offset and the first bytes of a pushed record that is too long, until its end arrives.
    overlong: Option<(u64, Vec<u8>)>,
}

enum Found {
    Record {
        end: usize,
        next: usize,
    },
    /// No end within the maximum length of a record.
    TooLong {
        quoted: bool,
    },
    /// The stream ends inside of a quote that opens in this record.
    Unclosed,
    NeedsMore,
    Nothing,
}

enum Scan {
    End(usize),
    Open { quoted: bool },
}

impl Framer {
    /// Creates a framer of `input`, whose first byte is at `offset` of the stream.
    pub fn new(
        input: Box<dyn Read + Send>,
        offset: u64,
        framing: Framing,
        record_bytes_max: usize,
    ) -> Framer {
        // Offsets in a block have 32 bits, and a block may hold two records of maximum length.
        let record_bytes_max = record_bytes_max.min(1 << 30);
        Framer {
            framing,
            record_bytes_max,
            passes_over: |_| false,
            end_completes: true,
            stream: BlockReader::new(input, offset),
            overlong: None,
        }
    }

    /// Creates a framer of bytes that the caller pushes.
    pub fn pushed(framing: Framing, record_bytes_max: usize) -> Framer {
        let mut framer = Framer::new(Box::new(io::empty()), 0, framing, record_bytes_max);
        framer.stream.is_pushed = true;
        framer
    }

    /// Appends bytes of a pushed stream.
    pub fn push(&mut self, bytes: Vec<u8>) {
        self.stream.push(bytes);
    }

    /// Ends a pushed stream: the remaining bytes are the last record.
    pub fn end(&mut self) {
        self.stream.ended = true;
    }

    /// Skips the records for which `passes_over` returns true.
    pub fn passing_over(mut self, passes_over: fn(&[u8]) -> bool) -> Framer {
        self.passes_over = passes_over;
        self
    }

    /// If `completes` is false, leaves a last record without a line end alone: the stream may still grow.
    pub fn end_completes(mut self, completes: bool) -> Framer {
        self.end_completes = completes;
        self
    }

    /// Sets the approximate length of the stream, so that small streams use little memory.
    pub fn expect_bytes(mut self, bytes: u64) -> Framer {
        self.stream.expect_bytes(bytes);
        self
    }

    /// Reads on a thread of its own from now on, in parallel with decoding.
    pub fn reading_ahead(self) -> io::Result<Framer> {
        self.reading_blocks_ahead(BLOCK_BYTES)
    }

    fn reading_blocks_ahead(mut self, block_bytes: usize) -> io::Result<Framer> {
        self.stream = self.stream.reading_ahead(block_bytes)?;
        Ok(self)
    }

    /// Returns the stream offset of the first byte not consumed yet.
    pub fn position(&self) -> u64 {
        self.stream.position()
    }

    /// Returns true if everything was consumed, as far as is known without reading.
    pub fn is_exhausted(&self) -> bool {
        self.stream.is_exhausted()
    }

    /// Returns the bytes in memory from [`Framer::position`] on.
    pub fn unread(&self) -> &[u8] {
        self.stream.unread()
    }

    /// Returns the next records: at most `rows`, ending with the one that reaches `bytes`. If there are
    /// neither records nor bad records, the stream has ended (or has no complete record yet, if its end
    /// completes none).
    pub fn next_run(&mut self, rows: usize, bytes: usize) -> io::Result<Run> {
        let (rows, bytes) = (rows.max(1), bytes.max(1));
        loop {
            let mut run = Run {
                block: self.stream.block.clone(),
                offset: self.stream.offset,
                records: Vec::new(),
                bad: Vec::new(),
            };
            let begin = self.stream.at;
            self.skip_byte_order_mark();
            if self.overlong.is_some() {
                run.bad.extend(self.take_overlong());
            }
            while run.records.len() + run.bad.len() < rows && self.stream.at - begin < bytes {
                match self.find() {
                    Found::Record { end, next } => {
                        if !(self.passes_over)(&self.stream.block[self.stream.at..end]) {
                            run.records.push(Record {
                                start: self.stream.at as u32,
                                end: end as u32,
                                next: next as u32,
                            });
                        }
                        self.stream.at = next;
                    }
                    Found::TooLong { quoted: true } | Found::Unclosed => run.bad.push(self.take_unclosed()),
                    Found::TooLong { quoted: false } => {
                        // The rest of the record is not in this block. The block changes, so the run ends
                        // here.
                        run.bad.extend(self.take_overlong());
                        break;
                    }
                    Found::NeedsMore | Found::Nothing => break,
                }
            }
            if !run.records.is_empty() || !run.bad.is_empty() {
                return Ok(run);
            }
            if self.stream.at > begin {
                continue;
            }
            if let Some(failure) = self.stream.take_failure() {
                return Err(failure);
            }
            if self.stream.ended || self.stream.is_pushed {
                return Ok(run);
            }
            self.stream.fill();
        }
    }

    fn skip_byte_order_mark(&mut self) {
        if self.position() == 0 && self.stream.unread().starts_with(b"\xEF\xBB\xBF") {
            self.stream.at += 3;
        }
    }

    /// Finds the end of the next record. Searches no further than the maximum length of a record,
    /// so that the result doesn't depend on the block.
    fn find(&self) -> Found {
        let data = self.stream.unread();
        let window = &data[..data.len().min(self.record_bytes_max + 2)];
        let quoted = match self.scan(window) {
            Scan::End(newline) => {
                let end = if newline > 0 && window[newline - 1] == b'\r' { newline - 1 } else { newline };
                if end > self.record_bytes_max {
                    return Found::TooLong { quoted: false };
                }
                return Found::Record { end: self.stream.at + end, next: self.stream.at + newline + 1 };
            }
            Scan::Open { quoted } => quoted,
        };
        if window.len() == self.record_bytes_max + 2 {
            return Found::TooLong { quoted: quoted && memchr(b'\n', window).is_some() };
        }
        if !self.stream.ended {
            return Found::NeedsMore;
        }
        if data.is_empty() || !self.end_completes || self.stream.failure.is_some() {
            return Found::Nothing;
        }
        match quoted {
            true => Found::Unclosed,
            false if data.len() > self.record_bytes_max => Found::TooLong { quoted: false },
            false => Found::Record { end: self.stream.block.len(), next: self.stream.block.len() },
        }
    }

    fn scan(&self, data: &[u8]) -> Scan {
        match self.framing {
            Framing::Line => memchr(b'\n', data).map_or(Scan::Open { quoted: false }, Scan::End),
            Framing::Quoted { delimiter, quote } => match memchr2(b'\n', quote, data) {
                Some(at) if data[at] == b'\n' => Scan::End(at),
                Some(_) => scan_quoted(data, delimiter, quote),
                None => Scan::Open { quoted: false },
            },
        }
    }

    /// Consumes the current line as bad, because the quote that opens in it is never closed. The record
    /// would swallow everything that follows, so the next line starts a new record.
    fn take_unclosed(&mut self) -> BadRecord {
        let data = self.stream.unread();
        let newline = memchr(b'\n', data).unwrap_or(data.len());
        let line = data[..newline].strip_suffix(b"\r").unwrap_or(&data[..newline]);
        let reason = format!(
            "a quote opens here that is not closed before the end of the input or within {} bytes (max_record_bytes)",
            self.record_bytes_max
        );
        let bad = BadRecord::new(self.position(), reason, line);
        self.stream.at += (newline + 1).min(data.len());
        bad
    }

    /// Consumes an overlong record up to the end of its line without keeping all of it. Consumes nothing if
    /// that end is missing: the stream may still grow, or reading failed for now.
    fn take_overlong(&mut self) -> Option<BadRecord> {
        let (offset, mut head) = self.overlong.take().unwrap_or_else(|| (self.position(), Vec::new()));
        loop {
            let data = self.stream.unread();
            let newline = memchr(b'\n', data);
            let line = &data[..newline.unwrap_or(data.len())];
            head.extend_from_slice(
                &line[..line.len().min((BadRow::BYTES_MAX + 1).saturating_sub(head.len()))],
            );
            self.stream.at += newline.map_or(data.len(), |newline| newline + 1);
            if newline.is_some() {
                break;
            }
            if self.stream.ended {
                if self.end_completes && !self.stream.was_cut_off() {
                    break;
                }
                // The record's bytes are gone from memory. To continue, the caller opens the stream there
                // again.
                self.stream.rewind(offset);
                return None;
            }
            if self.stream.is_pushed {
                self.overlong = Some((offset, head));
                return None;
            }
            self.stream.fill();
        }
        if head.len() <= BadRow::BYTES_MAX && head.last() == Some(&b'\r') {
            head.pop();
        }
        let reason =
            format!("the record is longer than max_record_bytes, which is {}", self.record_bytes_max);
        Some(BadRecord::new(offset, reason, &head))
    }
}

/// Finds the first newline outside of quotes. `data` begins with a record.
fn scan_quoted(data: &[u8], delimiter: u8, quote: u8) -> Scan {
    let mut at = 0;
    let mut field_starts = true;
    while let Some(byte) = data.get(at) {
        match *byte {
            b'\n' => return Scan::End(at),
            byte if byte == quote && field_starts => {
                match quoted_end(&data[at + 1..], quote) {
                    Some(end) => at += 1 + end,
                    None => return Scan::Open { quoted: true },
                }
                field_starts = false;
            }
            byte => field_starts = byte == delimiter,
        }
        at += 1;
    }
    Scan::Open { quoted: false }
}

/// Returns the position of the quote that closes a field; two quotes stand for one in the field.
pub(super) fn quoted_end(data: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr(quote, &data[at..])?;
        if data.get(at + 1) != Some(&quote) {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes_over(framing: Framing) -> fn(&[u8]) -> bool {
        match framing {
            Framing::Line => |_| false,
            Framing::Quoted { .. } => |record| record.trim_ascii().is_empty(),
        }
    }

    const CSV: Framing = Framing::Quoted { delimiter: b',', quote: b'"' };

    /// Returns few bytes at a time, to show that the size of blocks doesn't matter.
    struct Dribble(Vec<u8>, usize);

    impl Read for Dribble {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(3).min(self.0.len() - self.1);
            out[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
            self.1 += n;
            Ok(n)
        }
    }

    fn framed(text: &[u8], framing: Framing, max: usize, block: u64) -> Vec<(u64, String)> {
        let framer = Framer::new(Box::new(Dribble(text.to_vec(), 0)), 0, framing, max);
        framed_by(framer.passing_over(passes_over(framing)).expect_bytes(block), text)
    }

    /// Like [`framed`], for bytes that another thread reads in blocks of size `block`.
    fn framed_as_read_ahead(text: &[u8], framing: Framing, max: usize, block: usize) -> Vec<(u64, String)> {
        let framer = Framer::new(Box::new(Dribble(text.to_vec(), 0)), 0, framing, max);
        framed_by(framer.passing_over(passes_over(framing)).reading_blocks_ahead(block).unwrap(), text)
    }

    fn framed_by(mut framer: Framer, text: &[u8]) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        loop {
            let run = framer.next_run(2, usize::MAX).unwrap();
            if run.records.is_empty() && run.bad.is_empty() {
                assert!(framer.is_exhausted());
                assert_eq!(framer.position(), text.len() as u64);
                all.sort();
                return all;
            }
            for record in &run.records {
                let content = &run.block[record.start as usize..record.end as usize];
                all.push((run.offset + u64::from(record.start), String::from_utf8_lossy(content).into()));
            }
            for bad in run.bad {
                all.push((bad.offset, format!("bad {}", String::from_utf8_lossy(&bad.bytes))));
            }
        }
    }

    /// Like [`framed`], for bytes that are pushed `piece` at a time.
    fn framed_as_pushed(text: &[u8], framing: Framing, max: usize, piece: usize) -> Vec<(u64, String)> {
        let mut framer = Framer::pushed(framing, max).passing_over(passes_over(framing));
        let mut all = Vec::new();
        let mut pieces = text.chunks(piece);
        loop {
            let run = framer.next_run(2, usize::MAX).unwrap();
            for record in &run.records {
                let content = &run.block[record.start as usize..record.end as usize];
                all.push((run.offset + u64::from(record.start), String::from_utf8_lossy(content).into()));
            }
            for bad in &run.bad {
                all.push((bad.offset, format!("bad {}", String::from_utf8_lossy(&bad.bytes))));
            }
            if run.records.is_empty() && run.bad.is_empty() {
                match pieces.next() {
                    Some(piece) => framer.push(piece.to_vec()),
                    None if framer.is_exhausted() => break,
                    None => framer.end(),
                }
            }
        }
        all.sort();
        all
    }

    fn check(text: &str, framing: Framing, max: usize, expect: &[(u64, &str)]) {
        let expect: Vec<_> = expect.iter().map(|(offset, text)| (*offset, text.to_string())).collect();
        for block in [0, 1, 5, 1000] {
            assert_eq!(framed(text.as_bytes(), framing, max, block), expect, "{text:?} in blocks of {block}");
        }
        for block in [1, 5, 100, 1000] {
            let found = framed_as_read_ahead(text.as_bytes(), framing, max, block);
            assert_eq!(found, expect, "{text:?} read ahead in blocks of {block}");
        }
        for piece in [1, 2, 7, 1000] {
            let found = framed_as_pushed(text.as_bytes(), framing, max, piece);
            assert_eq!(found, expect, "{text:?} pushed {piece} at a time");
        }
    }

    #[test]
    fn what_was_read_before_a_failure_comes_before_it() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let input = || Box::new(Dribble(b"a\nbc\nd".to_vec(), 0).chain(Broken));
        let here = Framer::new(input(), 0, Framing::Line, 100);
        let ahead = Framer::new(input(), 0, Framing::Line, 100).reading_blocks_ahead(4).unwrap();
        for mut framer in [here, ahead] {
            let mut records = 0;
            let error = loop {
                match framer.next_run(10, usize::MAX) {
                    Ok(run) => records += run.records.len(),
                    Err(error) => break error,
                }
            };
            assert_eq!((records, framer.position(), framer.unread()), (2, 5, b"d".as_slice()));
            assert_eq!(error.to_string(), "broken");
        }
    }

    #[test]
    fn lines_end_with_newline_or_crlf_or_the_stream() {
        check("a\n\nbc\r\nd", Framing::Line, 100, &[(0, "a"), (2, ""), (3, "bc"), (7, "d")]);
        check("", Framing::Line, 100, &[]);
        check("\u{feff}a\n", Framing::Line, 100, &[(3, "a")]);
    }

    #[test]
    fn newlines_in_quotes_belong_to_the_record() {
        check("a,\"b\nc\"\nd\n", CSV, 100, &[(0, "a,\"b\nc\""), (8, "d")]);
        check("\"a\"\"\n\"\nb\"c\nd", CSV, 100, &[(0, "\"a\"\"\n\""), (7, "b\"c"), (11, "d")]);
        check("\n \r\na\n", CSV, 100, &[(4, "a")]);
    }

    #[test]
    fn an_unclosed_quote_costs_its_line_only() {
        check("a\n\"b\nc\nd\n", CSV, 100, &[(0, "a"), (2, "bad \"b"), (5, "c"), (7, "d")]);
        check("x,\"b", CSV, 100, &[(0, "bad x,\"b")]);
        check("x,\"b\nccc\nddd\n", CSV, 4, &[(0, "bad x,\"b"), (5, "ccc"), (9, "ddd")]);
    }

    #[test]
    fn a_long_record_without_its_end_waits_where_the_stream_may_grow() {
        for block in [0, 1, 5, 1000] {
            for (text, records, position) in [("ab\nabcdefgh", 1, 3), ("abcdefgh", 0, 0), ("ab\n", 1, 3)] {
                let input = Box::new(Dribble(text.as_bytes().to_vec(), 0));
                let mut framer =
                    Framer::new(input, 0, Framing::Line, 4).end_completes(false).expect_bytes(block);
                let mut found = 0;
                for _ in 0..3 {
                    let run = framer.next_run(usize::MAX, usize::MAX).unwrap();
                    assert_eq!(run.bad, []);
                    found += run.records.len();
                }
                assert_eq!((found, framer.position()), (records, position), "{text:?} in blocks of {block}");
            }
        }
    }

    #[test]
    fn a_long_record_is_passed_over() {
        check(
            "ab\nabcdefgh\nabc\nabcd\r\nabcde\nz",
            Framing::Line,
            4,
            &[(0, "ab"), (3, "bad abcdefgh"), (12, "abc"), (16, "abcd"), (22, "bad abcde"), (28, "z")],
        );
        check("abcdefgh", Framing::Line, 4, &[(0, "bad abcdefgh")]);
        let long = "x".repeat(3 << 20);
        let text = format!("{long}\nb\n");
        let all = framed(text.as_bytes(), Framing::Line, 1000, 10);
        assert_eq!(framed_as_read_ahead(text.as_bytes(), Framing::Line, 1000, 100), all);
        assert_eq!(all[0].1.len(), BadRow::BYTES_MAX + 4);
        assert_eq!(all[1], (long.len() as u64 + 1, "b".into()));
    }
}
