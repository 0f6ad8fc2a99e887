//! Sends invalid bytes to the server: recorded conversations of real clients (`corpus/wire/*.bin`), with
//! errors in them.
//!
//! In every case the server must answer others as before, and none of its tasks may panic.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Served;
use crate::drive::{self, ensure};

/// The silence after which the server is assumed to wait for the client.
const SILENCE: Duration = Duration::from_millis(150);

/// The same if an answer must come, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// The minimum size in bytes of the answer to a valid client.
const ANSWER: usize = 1000;

/// Number of connections to one server before it is replaced.
const ROUND: u64 = 40;

/// Number of concurrent connections.
const AT_ONCE: u64 = 10;

/// Returns the bytes that real clients sent, by conversation.
pub fn corpus() -> drive::Result<Vec<(String, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/wire");
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut corpus = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        corpus.push((name, std::fs::read(&path).map_err(fail)?));
    }
    corpus.sort();
    Ok(corpus)
}

/// Sends up to `count` broken conversations, from a seed on, until a point in time; returns their number.
pub async fn fuzz(seed: u64, count: u64, until: Option<Instant>) -> drive::Result<u64> {
    let corpus = corpus()?;
    let mut done = 0;
    while done < count && until.is_none_or(|until| Instant::now() < until) {
        let round = ROUND.min(count - done);
        self::round(&corpus, seed + done, round).await?;
        done += round;
    }
    Ok(done)
}

async fn round(corpus: &[(String, Vec<u8>)], seed: u64, count: u64) -> drive::Result<()> {
    let served = Served::start().await?;
    let port = served.port;
    for first in (seed..seed + count).step_by(AT_ONCE as usize) {
        let sending = (first..(first + AT_ONCE).min(seed + count)).map(|seed| {
            let mut random = SmallRng::seed_from_u64(seed);
            let (_, whole) = &corpus[random.random_range(0..corpus.len())];
            let bytes = broken(whole, &mut random);
            async move { send(port, &bytes, SILENCE, usize::MAX).await }
        });
        futures::future::join_all(sending).await;
    }
    // The server must answer a valid client as before.
    let (_, well) = corpus.first().ok_or("there is no corpus")?;
    let answered = send(port, well, PATIENCE, ANSWER).await;
    ensure(answered > ANSWER, || format!("seeds from {seed}: a good client is answered {answered} bytes"))?;
    let panicked = served.end().await?;
    ensure(panicked == 0, || format!("seeds from {seed}: {panicked} connections ended by a panic"))
}

/// Sends bytes, reads until the server is silent or has sent more than `enough`, and closes the connection.
/// Returns the number of bytes read.
async fn send(port: u16, bytes: &[u8], silence: Duration, enough: usize) -> usize {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else { return 0 };
    let (mut read, mut write) = socket.split();
    let mut answered = 0;
    let listening = async {
        let mut answer = vec![0; 64 << 10];
        while answered <= enough {
            let Ok(Ok(bytes)) = tokio::time::timeout(silence, read.read(&mut answer)).await else { break };
            if bytes == 0 {
                break;
            }
            answered += bytes;
        }
    };
    // The server may close the connection before it has read everything.
    let (_, ()) = tokio::join!(tokio::time::timeout(silence, write.write_all(bytes)), listening);
    answered
}

/// Returns a conversation with a few errors.
fn broken(whole: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..8) {
            0 => bytes.truncate(at),
            1 => bytes[at] = random.random(),
            2 => bytes[at] ^= 1 << random.random_range(0..8),
            3 => bytes.insert(at, random.random()),
            4 => {
                bytes.remove(at);
            }
            // A value that resembles a length or a count.
            5 => {
                let end = (at + 4).min(bytes.len());
                let value = [0, 1, -1, 0x7fff_ffff, i32::MIN, 0x0100_0000][random.random_range(0..6)];
                bytes[at..end].copy_from_slice(&i32::to_be_bytes(value)[..end - at]);
            }
            // Repeats a part.
            6 => {
                let end = (at + random.random_range(1..200)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, part);
            }
            // Removes a part.
            _ => {
                let end = (at + random.random_range(1..200)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}
