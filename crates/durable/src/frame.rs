//! Entries as bytes: each in a frame that says how long it is and whether it is whole.
//!
//! Frames stand one behind the other in segments. docs/formats.md draws both.

use std::fmt;

/// What a segment begins with.
const MAGIC: &[u8; 8] = b"MSTREAMJ";

/// The version of the format.
const FORMAT: u32 = 1;

/// How long the head of a segment is: magic, format, the first sequence number, a checksum of these.
pub(crate) const HEAD: usize = 24;

/// How long the head of a frame is: the length of its body, a checksum of what follows, its number, its encoding.
pub(crate) const FRAME_HEAD: usize = 17;

/// A body from so many bytes on is compressed.
const COMPRESS_FROM: usize = 4096;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// The number of an entry: the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number after this one.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of the segment whose first entry has this number.
pub(crate) fn segment_name(first: Sequence) -> String {
    format!("{:020}.journal", first.0)
}

/// The number that twenty digits of a file's name say.
pub(crate) fn number_of(digits: &str) -> Option<Sequence> {
    (digits.len() == 20).then(|| digits.parse().ok().map(Sequence))?
}

/// The number in the name of a segment.
pub(crate) fn first_of(name: &str) -> Option<Sequence> {
    number_of(name.strip_suffix(".journal")?)
}

/// What a segment begins with.
pub(crate) fn head(first: Sequence) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&first.0.to_le_bytes());
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Whether a segment begins as the one of this number does; else what is wrong.
pub(crate) fn check_head(bytes: &[u8], first: Sequence) -> Result<(), String> {
    let found =
        bytes.get(..HEAD).ok_or_else(|| format!("{HEAD} bytes were expected, {} are there", bytes.len()))?;
    if found == head(first) {
        return Ok(());
    }
    let number = |at: usize| u32::from_le_bytes([found[at], found[at + 1], found[at + 2], found[at + 3]]);
    let is_whole = crc32fast::hash(&found[..HEAD - 4]) == number(HEAD - 4);
    Err(match is_whole && &found[..8] == MAGIC && number(8) != FORMAT {
        true => format!("it has format {}, but this version reads format {FORMAT}", number(8)),
        false => format!("it doesn't begin as the segment of entry {first} does"),
    })
}

/// A frame around a body.
pub(crate) fn frame(sequence: Sequence, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let compressed = match body.len() >= COMPRESS_FROM {
        true => Some(zstd::bulk::compress(body, 1)?).filter(|compressed| compressed.len() < body.len()),
        false => None,
    };
    let (encoding, body) = compressed.as_deref().map_or((PLAIN, body), |compressed| (ZSTD, compressed));
    let too_long = |_| std::io::Error::other(format!("an entry of {} bytes is too long", body.len()));
    let length = u32::try_from(body.len()).map_err(too_long)?;
    let mut bytes = Vec::with_capacity(FRAME_HEAD + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.0.to_le_bytes());
    bytes.push(encoding);
    bytes.extend_from_slice(body);
    let sum = checksum(length, &bytes[8..]);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

fn checksum(length: u32, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// A frame that is whole.
#[derive(Debug)]
pub(crate) struct Framed<'a> {
    pub(crate) sequence: Sequence,
    encoding: u8,
    body: &'a [u8],
    /// How many bytes it takes with its head.
    pub(crate) length: usize,
}

impl Framed<'_> {
    /// The body as it was given; else what is wrong.
    pub(crate) fn body(&self) -> Result<Vec<u8>, String> {
        match self.encoding {
            PLAIN => Ok(self.body.to_vec()),
            ZSTD => zstd::stream::decode_all(self.body).map_err(|error| error.to_string()),
            other => Err(format!("it is encoded in way {other}, which this version doesn't know")),
        }
    }
}

/// The frame that begins where `bytes` begin, if it is whole.
pub(crate) fn framed(bytes: &[u8]) -> Option<Framed<'_>> {
    let head = bytes.get(..FRAME_HEAD)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?);
    let sum = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let end = FRAME_HEAD.checked_add(usize::try_from(length).ok()?)?;
    let rest = bytes.get(8..end)?;
    let sequence = Sequence(u64::from_le_bytes(head[8..16].try_into().ok()?));
    let is_whole = checksum(length, rest) == sum;
    is_whole.then(|| Framed { sequence, encoding: head[16], body: &bytes[FRAME_HEAD..end], length: end })
}

/// Whether a whole frame of an entry after `before` begins anywhere in `bytes`: then what is before it isn't the end of
/// what was written.
pub(crate) fn has_later(bytes: &[u8], before: Sequence) -> bool {
    // Numbers far ahead are chance: without this look at them each place would cost a checksum.
    let near = before.0..before.0.saturating_add(1 << 32);
    (0..bytes.len().saturating_sub(FRAME_HEAD - 1)).any(|at| {
        let number: Option<[u8; 8]> = bytes.get(at + 8..at + 16).and_then(|bytes| bytes.try_into().ok());
        let plausible = number.is_some_and(|number| near.contains(&u64::from_le_bytes(number)));
        plausible && framed(&bytes[at..]).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_back_its_body() {
        for body in [&b""[..], b"short", &[7; 100_000], &(0..=255).cycle().take(5000).collect::<Vec<u8>>()] {
            let bytes = frame(Sequence(3), body).unwrap();
            let framed = framed(&bytes).unwrap();
            assert_eq!((framed.sequence, framed.length), (Sequence(3), bytes.len()));
            assert_eq!(framed.body().unwrap(), body);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_found() {
        let bytes = frame(Sequence(9), b"what was written").unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(framed(&damaged).is_none(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(framed(&bytes[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn what_follows_is_found_behind_damage() {
        let mut bytes = vec![0xff; 100];
        bytes.extend(frame(Sequence(12), b"later").unwrap());
        assert!(has_later(&bytes, Sequence(11)));
        assert!(!has_later(&bytes, Sequence(13)), "that is an earlier one");
        assert!(!has_later(&bytes[..bytes.len() - 1], Sequence(11)), "it isn't whole");
    }

    #[test]
    fn a_segment_says_what_it_is() {
        assert_eq!(first_of(&segment_name(Sequence(42))), Some(Sequence(42)));
        assert_eq!(first_of("notes.txt"), None);
        assert_eq!(check_head(&head(Sequence(1)), Sequence(1)), Ok(()));
        assert!(check_head(&head(Sequence(2)), Sequence(1)).unwrap_err().contains("entry 1"));
        assert!(
            check_head(&[1, 2], Sequence(1)).unwrap_err().contains("24 bytes were expected, 2 are there")
        );
    }
}
