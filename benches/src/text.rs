//! Generated text, the same in every run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::Result;

/// Words of natural lengths whose frequencies follow Zipf's law, as in natural text.
#[derive(Debug)]
pub struct Words {
    words: Vec<String>,
    /// Cumulative sums of the weights.
    sums: Vec<f64>,
    rng: SmallRng,
}

impl Words {
    /// Creates `count` different words, the n-th with weight 1/n.
    pub fn new(count: usize, seed: u64) -> Words {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut words = Vec::with_capacity(count);
        let mut sums = Vec::with_capacity(count);
        let mut sum = 0.0;
        for rank in 1..=count {
            let length = rng.random_range(1..=7);
            let mut word: String = (0..length).map(|_| rng.random_range(b'a'..=b'z') as char).collect();
            // The rank in letters makes each word unique.
            let mut number = rank;
            while number > 0 {
                word.push((b'a' + (number % 26) as u8) as char);
                number /= 26;
            }
            words.push(word);
            sum += 1.0 / rank as f64;
            sums.push(sum);
        }
        Words { words, sums, rng }
    }

    /// Returns the next word.
    pub fn draw(&mut self) -> &str {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let at = self.rng.random::<f64>() * total;
        let place = self.sums.partition_point(|sum| *sum < at).min(self.words.len().saturating_sub(1));
        &self.words[place]
    }
}

/// Writes `files` text files of about `megabytes` MB together, about ten words a line. Returns the exact
/// bytes.
pub fn write_words(folder: &Path, files: usize, megabytes: usize, words: &mut Words) -> Result<u64> {
    let each = megabytes * 1_000_000 / files.max(1);
    let mut total = 0;
    for number in 0..files {
        let mut out = BufWriter::new(File::create(folder.join(format!("{number:03}.txt")))?);
        let mut written = 0;
        while written < each {
            for place in 0..10 {
                let word = words.draw();
                out.write_all(word.as_bytes())?;
                out.write_all(if place == 9 { b"\n" } else { b" " })?;
                written += word.len() + 1;
            }
        }
        out.flush()?;
        total += written as u64;
    }
    Ok(total)
}

/// Writes `files` text files of `lines` lines together, of 100 bytes with the line break. Every `every`-th
/// line contains `pattern`.
pub fn write_lines(folder: &Path, files: usize, lines: usize, pattern: &str, every: usize) -> Result<u64> {
    const LINE_BYTES: usize = 100;
    let mut rng = SmallRng::seed_from_u64(7);
    let mut written = 0;
    for number in 0..files {
        let mut out = BufWriter::new(File::create(folder.join(format!("{number:03}.txt")))?);
        for _ in 0..lines / files.max(1) {
            let mut line = [0_u8; LINE_BYTES];
            rng.fill(&mut line[..]);
            line.iter_mut()
                .for_each(|byte| *byte = b"abcdefghijklmnopqrstuvwxyz      "[usize::from(*byte % 32)]);
            if written % every == 0 {
                let at = rng.random_range(0..LINE_BYTES - 1 - pattern.len());
                line[at..at + pattern.len()].copy_from_slice(pattern.as_bytes());
            }
            line[LINE_BYTES - 1] = b'\n';
            out.write_all(&line)?;
            written += 1;
        }
        out.flush()?;
    }
    Ok(written as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_different_and_the_first_is_the_most_frequent() {
        let mut words = Words::new(1000, 1);
        let mut all = words.words.clone();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 1000);
        let first = words.words[0].clone();
        let hits = (0..10_000).filter(|_| words.draw() == first).count();
        assert!(hits > 1000, "{hits}");
    }
}
