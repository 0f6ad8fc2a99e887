//! Bytes that no client would send: what real clients sent (`corpus/wire/*.bin`), with mistakes in it.
//!
//! Whatever comes, the server answers others as before, and none of its tasks panics.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Served;
use crate::drive::{self, ensure};

/// A server that says nothing for as long waits for the client.
const SILENCE: Duration = Duration::from_millis(150);

/// The same where there is an answer to come, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many bytes are the answer that a good client wants.
const ANSWER: usize = 1000;

/// Connections to one server, after which a fresh one is begun.
const ROUND: u64 = 40;

/// Connections that are made at the same time.
const AT_ONCE: u64 = 10;

/// The conversations of real clients: what each sent.
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

/// Sends as many broken conversations, from a seed on; how many before `until`.
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
    // It is as good as before, for who speaks well.
    let (_, well) = corpus.first().ok_or("there is no corpus")?;
    let answered = send(port, well, PATIENCE, ANSWER).await;
    ensure(answered > ANSWER, || format!("seeds from {seed}: a good client is answered {answered} bytes"))?;
    let panicked = served.end().await?;
    ensure(panicked == 0, || format!("seeds from {seed}: {panicked} connections ended by a panic"))
}

/// Sends bytes, listens until nothing comes any more or more than `enough`, and hangs up; how many bytes were answered.
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
    // It may hang up before it has heard all.
    let (_, ()) = tokio::join!(tokio::time::timeout(silence, write.write_all(bytes)), listening);
    answered
}

/// A conversation with a few mistakes.
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
            // What looks like a length or a count.
            5 => {
                let end = (at + 4).min(bytes.len());
                let value = [0, 1, -1, 0x7fff_ffff, i32::MIN, 0x0100_0000][random.random_range(0..6)];
                bytes[at..end].copy_from_slice(&i32::to_be_bytes(value)[..end - at]);
            }
            // A part again.
            6 => {
                let end = (at + random.random_range(1..200)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, part);
            }
            // A part left out.
            _ => {
                let end = (at + random.random_range(1..200)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}
