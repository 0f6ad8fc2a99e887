//! Decodes the messages of clients.
//!
//! The messages of PostgreSQL's protocol 3.0 ("Frontend/Backend Protocol", Message Formats). Every count
//! and length is checked against the message that contains it, and text must be UTF-8. So no bytes make the
//! server panic, read past a message, or reserve memory for data that the client hasn't sent. (The decoders
//! of the pgwire crate, 0.41, index past the end there.)

use bytes::{Buf, Bytes, BytesMut};

/// Maximum bytes of a message. A longer one is skipped.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Maximum bytes of the first message of a connection, as in PostgreSQL.
const STARTUP_BYTES_MAX: usize = 10_000;

/// Minimum room reserved for the rest of an incomplete message.
const BUFFER_BYTES_MIN: usize = 8 << 10;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The format of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

/// The object of a Describe or Close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement,
    Portal,
}

/// The first message of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Ssl,
    Gss,
    Cancel { process: u32, secret: Bytes },
    Startup { major: u16, minor: u16, parameters: Vec<(String, String)> },
}

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Query(String),
    Parse {
        statement: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target, String),
    Execute {
        portal: String,
        rows_max: usize,
    },
    Close(Target, String),
    Sync,
    Flush,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    /// An answer to an authentication request that the server didn't send.
    Password,
}

/// Values for a statement's parameters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    pub(crate) formats: Vec<Format>,
    pub(crate) values: Vec<Option<Bytes>>,
    pub(crate) results: Vec<Format>,
}

/// An invalid message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbage {
    #[error("message type {0:?} is not one of the protocol's: was a PostgreSQL client at the other end?")]
    Type(char),
    #[error("a message says that it has {0} bytes, which can't be")]
    Length(i32),
    #[error("a message of {bytes} bytes has not arrived within {seconds} s")]
    Slow { bytes: usize, seconds: u64 },
    #[error("a {0} message ends before its content does")]
    Short(&'static str),
    #[error("a {0} message has bytes after its content")]
    Long(&'static str),
    #[error("a {0} message holds text that is not UTF-8")]
    Encoding(&'static str),
    #[error("a {message} message holds {found} where {expected} was expected")]
    Value { message: &'static str, found: i64, expected: &'static str },
}

impl Garbage {
    /// Returns true if the start of the next message can't be found any more.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, Garbage::Type(_) | Garbage::Length(_) | Garbage::Slow { .. })
    }
}

/// The frame of the next message in the received bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// An incomplete message, with the length that it announces; 0 if that hasn't arrived.
    Partial { bytes: usize },
    /// A message.
    Whole(u8, Bytes),
    /// A message that is too long, with the number of its bytes still to be skipped.
    TooLong { kind: u8, bytes: usize, missing: usize },
}

/// Splits off the next message.
pub(crate) fn frame(input: &mut BytesMut) -> Result<Frame, Garbage> {
    let Some((&kind, rest)) = input.split_first() else { return Ok(Frame::Partial { bytes: 0 }) };
    if !b"QPBDECSHXdcfp".contains(&kind) {
        return Err(Garbage::Type(char::from(kind)));
    }
    let Some(length) = rest.first_chunk().map(|bytes| i32::from_be_bytes(*bytes)) else {
        return Ok(Frame::Partial { bytes: 0 });
    };
    let Some(bytes) = usize::try_from(length).ok().filter(|bytes| *bytes >= 4) else {
        return Err(Garbage::Length(length));
    };
    if bytes > MESSAGE_BYTES_MAX {
        let there = input.len().min(bytes + 1);
        input.advance(there);
        return Ok(Frame::TooLong { kind, bytes, missing: bytes + 1 - there });
    }
    if input.len() < bytes + 1 {
        // Memory grows with the bytes received, whatever length a client announces.
        let most = input.len().max(BUFFER_BYTES_MIN);
        input.reserve((bytes + 1 - input.len()).min(most));
        return Ok(Frame::Partial { bytes });
    }
    let mut whole = input.split_to(bytes + 1).freeze();
    whole.advance(5);
    Ok(Frame::Whole(kind, whole))
}

/// Returns the first message of a connection, if it is complete.
pub(crate) fn opening(input: &mut BytesMut) -> Result<Option<Opening>, Garbage> {
    let Some(length) = input.first_chunk().map(|bytes| i32::from_be_bytes(*bytes)) else { return Ok(None) };
    let bounded = usize::try_from(length).ok().filter(|bytes| (8..=STARTUP_BYTES_MAX).contains(bytes));
    let Some(bytes) = bounded else { return Err(Garbage::Length(length)) };
    if input.len() < bytes {
        return Ok(None);
    }
    let mut body = input.split_to(bytes).freeze();
    body.advance(4);
    let mut reader = Reader { message: "startup", rest: body };
    let opening = match reader.u32()? {
        SSL_REQUEST => Opening::Ssl,
        GSS_REQUEST => Opening::Gss,
        CANCEL_REQUEST => {
            Opening::Cancel { process: reader.u32()?, secret: std::mem::take(&mut reader.rest) }
        }
        version => {
            let mut parameters = Vec::new();
            // The content in other versions is unknown.
            let mut known = version >> 16 == 3;
            if !known {
                reader.rest.clear();
            }
            while known {
                let name = reader.text()?;
                known = !name.is_empty();
                if known {
                    parameters.push((name, reader.text()?));
                }
            }
            Opening::Startup { major: (version >> 16) as u16, minor: version as u16, parameters }
        }
    };
    reader.end()?;
    Ok(Some(opening))
}

/// Decodes the message of a frame.
pub(crate) fn decode(kind: u8, body: Bytes) -> Result<Message, Garbage> {
    let mut reader = Reader { message: name(kind), rest: body };
    let message = match kind {
        b'Q' => Message::Query(reader.text()?),
        b'P' => {
            let (statement, sql) = (reader.text()?, reader.text()?);
            let count = reader.count(4)?;
            let types = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
            Message::Parse { statement, sql, types }
        }
        b'B' => Message::Bind(bind(&mut reader)?),
        b'D' => Message::Describe(reader.target()?, reader.text()?),
        b'C' => Message::Close(reader.target()?, reader.text()?),
        b'E' => {
            let portal = reader.text()?;
            // As in PostgreSQL, zero and less mean no limit.
            let rows_max = i32::from_be_bytes(reader.array()?);
            Message::Execute { portal, rows_max: usize::try_from(rows_max).unwrap_or(0) }
        }
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'X' => Message::Terminate,
        b'd' => Message::CopyData(std::mem::take(&mut reader.rest)),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(reader.text()?),
        b'p' => {
            reader.rest.clear();
            Message::Password
        }
        other => return Err(Garbage::Type(char::from(other))),
    };
    reader.end()?;
    Ok(message)
}

/// Returns the name of a message, for errors.
fn name(kind: u8) -> &'static str {
    match kind {
        b'Q' => "Query",
        b'P' => "Parse",
        b'B' => "Bind",
        b'D' => "Describe",
        b'C' => "Close",
        b'E' => "Execute",
        b'f' => "CopyFail",
        _ => "client's",
    }
}

fn bind(reader: &mut Reader) -> Result<Bind, Garbage> {
    let (portal, statement) = (reader.text()?, reader.text()?);
    let formats = reader.formats()?;
    let count = reader.count(4)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let length = i32::from_be_bytes(reader.array()?);
        values.push(match length {
            -1 => None,
            length => Some(reader.bytes(usize::try_from(length).map_err(|_| Garbage::Value {
                message: "Bind",
                found: length.into(),
                expected: "a value's length",
            })?)?),
        });
    }
    let results = reader.formats()?;
    Ok(Bind { portal, statement, formats, values, results })
}

/// The rest of a message.
struct Reader {
    message: &'static str,
    rest: Bytes,
}

impl Reader {
    fn bytes(&mut self, count: usize) -> Result<Bytes, Garbage> {
        if count > self.rest.len() {
            return Err(Garbage::Short(self.message));
        }
        Ok(self.rest.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let array = *self.rest.first_chunk::<N>().ok_or(Garbage::Short(self.message))?;
        self.rest.advance(N);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, Garbage> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Reads a count of items that have at least `bytes_min` bytes each.
    fn count(&mut self, bytes_min: usize) -> Result<usize, Garbage> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count * bytes_min > self.rest.len() {
            return Err(Garbage::Short(self.message));
        }
        Ok(count)
    }

    /// Reads text up to a zero byte.
    fn text(&mut self) -> Result<String, Garbage> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(Garbage::Short(self.message))?;
        let text = self.rest.split_to(end);
        self.rest.advance(1);
        String::from_utf8(text.into()).map_err(|_| Garbage::Encoding(self.message))
    }

    fn formats(&mut self) -> Result<Vec<Format>, Garbage> {
        let count = self.count(2)?;
        let format = |_| match i16::from_be_bytes(self.array()?) {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            found => Err(Garbage::Value {
                message: self.message,
                found: found.into(),
                expected: "format 0 (text) or 1 (binary)",
            }),
        };
        (0..count).map(format).collect()
    }

    fn target(&mut self) -> Result<Target, Garbage> {
        match self.array()? {
            [b'S'] => Ok(Target::Statement),
            [b'P'] => Ok(Target::Portal),
            [found] => Err(Garbage::Value {
                message: self.message,
                found: found.into(),
                expected: "S (statement) or P (portal)",
            }),
        }
    }

    fn end(self) -> Result<(), Garbage> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(Garbage::Long(self.message)),
        }
    }
}

/// Returns the format of the value at `place`: the one given for all, its own, or text.
pub(crate) fn format_at(formats: &[Format], place: usize) -> Format {
    match formats {
        [] => Format::Text,
        [all] => *all,
        each => each.get(place).copied().unwrap_or(Format::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&[kind]);
        bytes.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn read(mut input: BytesMut) -> Result<Message, Garbage> {
        match frame(&mut input)? {
            Frame::Whole(kind, body) => decode(kind, body),
            other => panic!("{other:?}"),
        }
    }

    const BIND: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";

    #[test]
    fn messages_are_read() {
        assert_eq!(read(message(b'Q', b"SELECT 1\0")), Ok(Message::Query("SELECT 1".into())));
        let parse = Message::Parse { statement: "s".into(), sql: "SELECT $1".into(), types: vec![20] };
        assert_eq!(read(message(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x14")), Ok(parse));
        let bind = Message::Bind(Bind {
            portal: "p".into(),
            statement: "s".into(),
            formats: vec![Format::Binary],
            values: vec![Some(Bytes::from_static(b"x")), None],
            results: vec![Format::Binary],
        });
        assert_eq!(read(message(b'B', BIND)), Ok(bind));
        assert_eq!(
            read(message(b'E', b"\0\0\0\0\x05")),
            Ok(Message::Execute { portal: "".into(), rows_max: 5 })
        );
        assert_eq!(read(message(b'D', b"Px\0")), Ok(Message::Describe(Target::Portal, "x".into())));
    }

    #[test]
    fn a_message_cut_short_anywhere_is_refused() {
        for length in 0..BIND.len() {
            assert!(read(message(b'B', &BIND[..length])).is_err(), "{length}");
        }
        assert_eq!(read(message(b'S', b"more")), Err(Garbage::Long("client's")));
        assert_eq!(read(message(b'Q', b"\xff\0")), Err(Garbage::Encoding("Query")));
    }

    #[test]
    fn a_message_that_is_too_long_is_passed_over() {
        let mut input = BytesMut::from(&b"Q\x10\0\0\0SELECT"[..]);
        assert_eq!(
            frame(&mut input),
            Ok(Frame::TooLong { kind: b'Q', bytes: 0x1000_0000, missing: 0x1000_0001 - 11 })
        );
        assert!(input.is_empty());
        assert_eq!(frame(&mut BytesMut::from(&b"GET / HTTP"[..])), Err(Garbage::Type('G')));
        assert_eq!(frame(&mut BytesMut::from(&b"Q\0\0\0\0"[..])), Err(Garbage::Length(0)));
    }

    #[test]
    fn memory_grows_with_what_has_come() {
        let announced = MESSAGE_BYTES_MAX as i32;
        let mut input = BytesMut::from(&b"Q"[..]);
        input.extend_from_slice(&announced.to_be_bytes());
        for _ in 0..12 {
            assert_eq!(frame(&mut input), Ok(Frame::Partial { bytes: MESSAGE_BYTES_MAX }));
            // The buffer may double the requested size.
            assert!(input.capacity() <= 4 * input.len().max(BUFFER_BYTES_MIN), "{}", input.capacity());
            input.resize(input.capacity(), b' ');
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        bolero::check!().with_iterations(200_000).with_max_len(40).for_each(|bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if let Some(first) = bytes.first_mut() {
                *first = b"QPBDECSHXdcfp"[usize::from(*first) % 13];
            }
            let kind = bytes.first().copied().unwrap_or(b'S');
            let _ = decode(kind, Bytes::from(bytes.clone()));
            let _ = opening(&mut BytesMut::from(&bytes[..]));
            let _ = frame(&mut BytesMut::from(&bytes[..]));
        });
    }

    #[test]
    fn connections_open() {
        let mut input = BytesMut::from(&b"\0\0\0\x08\x04\xd2\x16\x2f"[..]);
        assert_eq!(opening(&mut input), Ok(Some(Opening::Ssl)));
        let mut input = BytesMut::from(&b"\0\0\0\x11\0\x03\0\0user\0me\0\0"[..]);
        assert_eq!(
            opening(&mut input),
            Ok(Some(Opening::Startup { major: 3, minor: 0, parameters: vec![("user".into(), "me".into())] }))
        );
        assert_eq!(opening(&mut BytesMut::from(&b"\0\0\0"[..])), Ok(None));
    }
}
