//! Bulk transfers: large results and COPY.

use std::io::Write;
use std::time::Instant;

use millstream_benches::Result;
use millstream_benches::measure::median;

use crate::raw::Raw;
use crate::target::Target;

/// Number of runs; the median counts.
const RUNS: usize = 3;

/// Size of a piece of COPY data.
const CHUNK_BYTES: usize = 64 << 10;

const COLUMNS: &str = "(id BIGINT, name TEXT, price DOUBLE PRECISION, at TIMESTAMP)";

/// Measures a result of many rows.
pub fn rows(targets: &[Target], count: usize) -> Result<()> {
    println!("a result of {count} rows of four columns, text, as {RUNS} runs in turn read it:");
    let lines = lines(count);
    let mut clients = Vec::new();
    for target in targets {
        let mut client = connect(target)?;
        client.run(&format!("{} t {COLUMNS}", target.create_table))?;
        copy_in(&mut client, "t", &lines)?;
        clients.push(client);
    }
    drop(lines);
    let mut seconds = vec![Vec::new(); targets.len()];
    for _ in 0..RUNS {
        for ((client, target), seconds) in clients.iter_mut().zip(targets).zip(&mut seconds) {
            let before = target.memory_mib()?;
            let began = Instant::now();
            let counted = client.run("SELECT * FROM t")?;
            seconds.push(began.elapsed().as_secs_f64());
            if counted.rows as usize != count {
                return Err(format!("{} gave {} rows", target.name, counted.rows).into());
            }
            if let (Some((before, _)), Some((_, most))) = (before, target.memory_mib()?) {
                println!("  {}: memory {before:.0} MiB before, {most:.0} MiB at most so far", target.name);
            }
        }
    }
    tell(targets, &seconds, count);
    Ok(())
}

/// Measures COPY … FROM STDIN of many rows.
pub fn copy(targets: &[Target], count: usize) -> Result<()> {
    println!("COPY of {count} rows of four columns, text, into an empty table, {RUNS} runs in turn:");
    let lines = lines(count);
    let mut clients = targets.iter().map(connect).collect::<Result<Vec<_>>>()?;
    let mut seconds = vec![Vec::new(); targets.len()];
    for run in 0..RUNS {
        for ((client, target), seconds) in clients.iter_mut().zip(targets).zip(&mut seconds) {
            client.run(&format!("{} t{run} {COLUMNS}", target.create_table))?;
            let began = Instant::now();
            copy_in(client, &format!("t{run}"), &lines)?;
            seconds.push(began.elapsed().as_secs_f64());
            client.run(&format!("DROP TABLE t{run}"))?;
        }
    }
    tell(targets, &seconds, count);
    Ok(())
}

fn connect(target: &Target) -> Result<Raw> {
    let database = if target.name == "PostgreSQL" { "postgres" } else { "millstream" };
    Raw::connect(target.port, database)
}

fn tell(targets: &[Target], seconds: &[Vec<f64>], count: usize) {
    let medians: Vec<f64> = seconds.iter().map(|runs| median(runs.iter().copied())).collect();
    for (target, median) in targets.iter().zip(&medians) {
        println!("  {:<11} {median:>7.2} s {:>12.0} rows/s", target.name, count as f64 / median);
    }
    if let [ours, theirs] = medians.as_slice() {
        println!("  rows a second, Millstream to PostgreSQL: {:.2}", theirs / ours);
    }
}

/// Returns rows in COPY's text format.
fn lines(count: usize) -> Vec<u8> {
    let mut lines = Vec::with_capacity(count * 48);
    for id in 0..count {
        let (cents, second) = (id * 7 % 100_000, id % 60);
        // Writing to memory never fails.
        let _ = writeln!(
            lines,
            "{id}\tname {}\t{}.{:02}\t2024-01-01 00:{:02}:{second:02}.25",
            id % 1000,
            cents / 100,
            cents % 100,
            id / 60 % 60
        );
    }
    lines
}

fn copy_in(client: &mut Raw, table: &str, lines: &[u8]) -> Result<()> {
    client.begin_copy(&format!("COPY {table} FROM STDIN"))?;
    for chunk in lines.chunks(CHUNK_BYTES) {
        client.copy(chunk)?;
    }
    client.end_copy()
}
