//! Frames: each holds the bytes of one entry with their length and a checksum.
//!
//! A segment is a sequence of frames. docs/formats.md shows the layout of both.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// The first bytes of a segment.
const MAGIC: &[u8; 8] = b"MSTREAMJ";

/// The version of the format.
const FORMAT: u32 = 2;

/// The length of a segment's head: magic, format, the first sequence number, the salt twice, their checksum.
pub(crate) const HEAD: usize = 40;

/// The previous format, whose frames have no salt, and the length of its segments' heads.
const FORMAT_UNSALTED: u32 = 1;
const HEAD_UNSALTED: usize = 24;

/// The length of a frame's head: the length of its body, a checksum of all after it, the sequence number, the
/// encoding.
pub(crate) const FRAME_HEAD: usize = 17;

/// The length from which a body is compressed.
const COMPRESS_FROM: usize = 4096;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// A random number in the checksums of a segment's frames. Users can't know it, so no value of theirs can
/// pass for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(Option<u64>);

impl Salt {
    /// The salt of segments of format 1, and of entries outside segments.
    pub(crate) const NONE: Salt = Salt(None);

    /// Returns an unpredictable salt.
    pub(crate) fn random() -> Salt {
        Salt(Some(RandomState::new().build_hasher().finish()))
    }
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its length in bytes.
    pub(crate) length: usize,
    pub(crate) salt: Salt,
}

/// The number of an entry. The first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Returns the number after this one.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the name of the segment that begins with this entry.
pub(crate) fn segment_name(first: Sequence) -> String {
    format!("{:020}.journal", first.0)
}

/// Parses the twenty digits in a file's name.
pub(crate) fn number_of(digits: &str) -> Option<Sequence> {
    (digits.len() == 20).then(|| digits.parse().ok().map(Sequence))?
}

/// Returns the first entry of a segment, from its name.
pub(crate) fn first_of(name: &str) -> Option<Sequence> {
    number_of(name.strip_suffix(".journal")?)
}

/// Encodes the head of a segment.
pub(crate) fn head(first: Sequence, salt: Salt) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&if salt == Salt::NONE { FORMAT_UNSALTED } else { FORMAT }.to_le_bytes());
    bytes.extend_from_slice(&first.0.to_le_bytes());
    if let Salt(Some(salt)) = salt {
        // If one copy is damaged, the other still identifies the frames, which may be acknowledged.
        bytes.extend_from_slice(&salt.to_le_bytes());
        bytes.extend_from_slice(&salt.to_le_bytes());
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads the head of the segment of this number, or describes what is wrong.
pub(crate) fn read_head(bytes: &[u8], first: Sequence) -> Result<Head, String> {
    let too_short = |expected| format!("{expected} bytes were expected, {} are there", bytes.len());
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let is_unsalted = number(8) == Some(FORMAT_UNSALTED);
    let length = if is_unsalted { HEAD_UNSALTED } else { HEAD };
    let found = bytes.get(..length).ok_or_else(|| too_short(length))?;
    let salt = if is_unsalted { Salt::NONE } else { salt_at(bytes, SALTS[0]) };
    if found == head(first, salt) {
        return Ok(Head { length, salt });
    }
    let format = number(8).unwrap_or_default();
    let is_known = matches!(format, FORMAT_UNSALTED | FORMAT);
    Err(match &found[..8] == MAGIC && !is_known {
        true => format!("it has format {format}, but this version reads formats 1 to {FORMAT}"),
        false => format!("it doesn't begin with the header of the segment of entry {first} does"),
    })
}

/// The offsets of the copies of the salt.
const SALTS: [usize; 2] = [20, 28];

fn salt_at(bytes: &[u8], at: usize) -> Salt {
    let salt = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    Salt(salt.map(u64::from_le_bytes))
}

/// Returns true if a segment with a damaged head has a whole frame of an entry from `first` on.
pub(crate) fn has_frames(bytes: &[u8], first: Sequence) -> bool {
    let salts = [Salt::NONE, salt_at(bytes, SALTS[0]), salt_at(bytes, SALTS[1])];
    salts.into_iter().any(|salt| has_later(bytes, first, salt))
}

/// Puts a frame around a body.
pub(crate) fn frame(sequence: Sequence, body: &[u8], salt: Salt) -> std::io::Result<Vec<u8>> {
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
    let sum = checksum(length, &bytes[8..], salt);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

fn checksum(length: u32, rest: &[u8], Salt(salt): Salt) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if let Some(salt) = salt {
        hasher.update(&salt.to_le_bytes());
    }
    hasher.update(&length.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// A whole frame.
#[derive(Debug)]
pub(crate) struct Framed<'a> {
    pub(crate) sequence: Sequence,
    encoding: u8,
    body: &'a [u8],
    /// Its length in bytes, including the head.
    pub(crate) length: usize,
}

impl Framed<'_> {
    /// Returns the body, decompressed, or describes what is wrong.
    pub(crate) fn body(&self) -> Result<Vec<u8>, String> {
        match self.encoding {
            PLAIN => Ok(self.body.to_vec()),
            ZSTD => zstd::stream::decode_all(self.body).map_err(|error| error.to_string()),
            other => Err(format!("it has encoding {other}, which this version doesn't know")),
        }
    }
}

/// Returns the frame at the start of `bytes`, if it is whole.
pub(crate) fn framed(bytes: &[u8], salt: Salt) -> Option<Framed<'_>> {
    let head = bytes.get(..FRAME_HEAD)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?);
    let sum = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let end = FRAME_HEAD.checked_add(usize::try_from(length).ok()?)?;
    let rest = bytes.get(8..end)?;
    let sequence = Sequence(u64::from_le_bytes(head[8..16].try_into().ok()?));
    let is_whole = checksum(length, rest, salt) == sum;
    is_whole.then(|| Framed { sequence, encoding: head[16], body: &bytes[FRAME_HEAD..end], length: end })
}

/// Returns true if a whole frame of an entry after `before` begins anywhere in `bytes`. Then the bytes before
/// it are damage, not a torn end.
pub(crate) fn has_later(bytes: &[u8], before: Sequence, salt: Salt) -> bool {
    // Numbers far ahead are coincidence; without this bound, every offset would cost a checksum.
    let near = before.0..before.0.saturating_add(1 << 32);
    (0..bytes.len().saturating_sub(FRAME_HEAD - 1)).any(|at| {
        let number: Option<[u8; 8]> = bytes.get(at + 8..at + 16).and_then(|bytes| bytes.try_into().ok());
        let plausible = number.is_some_and(|number| near.contains(&u64::from_le_bytes(number)));
        plausible && framed(&bytes[at..], salt).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_back_its_body() {
        for body in [&b""[..], b"short", &[7; 100_000], &(0..=255).cycle().take(5000).collect::<Vec<u8>>()] {
            for salt in [Salt::NONE, Salt::random()] {
                let bytes = frame(Sequence(3), body, salt).unwrap();
                let framed = framed(&bytes, salt).unwrap();
                assert_eq!((framed.sequence, framed.length), (Sequence(3), bytes.len()));
                assert_eq!(framed.body().unwrap(), body);
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_found() {
        let salt = Salt::random();
        let bytes = frame(Sequence(9), b"what was written", salt).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(framed(&damaged, salt).is_none(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(framed(&bytes[..length], salt).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn what_follows_is_found_behind_damage() {
        let salt = Salt::random();
        let mut bytes = vec![0xff; 100];
        bytes.extend(frame(Sequence(12), b"later", salt).unwrap());
        assert!(has_later(&bytes, Sequence(11), salt));
        assert!(!has_later(&bytes, Sequence(13), salt), "that is an earlier one");
        assert!(!has_later(&bytes[..bytes.len() - 1], Sequence(11), salt), "it isn't whole");
        assert!(!has_later(&bytes, Sequence(11), Salt::random()), "it is of another segment");
        assert!(!has_later(&bytes, Sequence(11), Salt::NONE), "a value of a user's looks so");
    }

    #[test]
    fn frames_behind_a_damaged_head_are_found() {
        let salt = Salt::random();
        let segment = [head(Sequence(7), salt), frame(Sequence(7), b"seven", salt).unwrap()].concat();
        assert_eq!(read_head(&segment, Sequence(7)), Ok(Head { length: HEAD, salt }));
        for bit in 0..HEAD * 8 {
            let mut damaged = segment.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read_head(&damaged, Sequence(7)).is_err(), "bit {bit}");
            assert!(has_frames(&damaged, Sequence(7)), "bit {bit}");
        }
        let forged = frame(Sequence(7), b"forged", Salt::NONE).unwrap();
        assert!(!has_later(&forged, Sequence(7), salt));
    }

    #[test]
    fn a_segment_says_what_it_is() {
        assert_eq!(first_of(&segment_name(Sequence(42))), Some(Sequence(42)));
        assert_eq!(first_of("notes.txt"), None);
        let salt = Salt::random();
        let unsalted = Head { length: 24, salt: Salt::NONE };
        assert_eq!(read_head(&head(Sequence(1), Salt::NONE), Sequence(1)), Ok(unsalted));
        assert!(read_head(&head(Sequence(2), salt), Sequence(1)).unwrap_err().contains("entry 1"));
        let error = read_head(&[1, 2], Sequence(1)).unwrap_err();
        assert!(error.contains("40 bytes were expected, 2 are there"), "{error}");
        let mut newer = head(Sequence(1), salt);
        newer[8] = 9;
        assert!(read_head(&newer, Sequence(1)).unwrap_err().contains("it has format 9"));
    }
}
