//! A full disk under a file sink delays that sink, loses nothing, and stops nothing else. Under a data directory it
//! delays checkpoints.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream_engine::{Engine, Kind};
use millstream_testkit::drive::{self, Result, ensure, expect_soon, run, run_all, until, within_a_minute};
use millstream_testkit::parts::Pushed;

use super::{Scenario, folder, lines_in};

pub const ALL: &[Scenario] = &[
    ("a_full_disk_under_a_file_sink", || drive::block_on(full_disk())),
    ("a_bounded_run_over_a_full_disk_ends", || drive::block_on(bounded_run())),
    ("a_full_disk_at_a_checkpoint", || drive::block_on(full_at_checkpoint())),
];

/// A small file system in memory; dropping the value unmounts it.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it; `None` if that isn't permitted.
    fn mount(path: &Path, size: &str) -> Option<SmallDisk> {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(path)
            .output();
        done.is_ok_and(|output| output.status.success()).then(|| SmallDisk { path: path.to_path_buf() })
    }

    fn resize(&self, size: &str) -> bool {
        let done =
            Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.path).output();
        done.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}

async fn full_disk() -> Result<()> {
    let (small, roomy) = (folder()?, folder()?);
    let Some(disk) = SmallDisk::mount(small.path(), "64k") else {
        println!("skipped: a_full_disk_under_a_file_sink needs the right to mount a tmpfs");
        return Ok(());
    };
    let rows = Pushed::default();
    let engine =
        Engine::builder().connector(Arc::new(rows.clone())).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let sink = |name: &str, path: &Path| {
        let path = path.display();
        format!("CREATE SINK {name} FROM v WITH (connector = 'file', path = '{path}', format = 'text')")
    };
    run_all(
        &mut session,
        &[
            "CREATE SOURCE t (x BIGINT) WITH (connector = 'pushed')",
            "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS c FROM t",
            "CREATE VIEW v AS SELECT 'row ' || x || ' ' || repeat('.', 1000) AS line FROM t",
        ],
    )
    .await?;
    run(&mut session, &sink("tight", small.path())).await?;
    run(&mut session, &sink("free", roomy.path())).await?;
    for part in 0..10 {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(part * 20..(part + 1) * 20));
        let batch = RecordBatch::try_from_iter_with_nullable([("x", column, true)]);
        rows.push(batch.map_err(|error| error.to_string())?);
    }
    expect_soon(&mut session, "SELECT c FROM counted", &["200"]).await?;
    until("the other sink to have all rows", || lines_in(roomy.path()).is_ok_and(|lines| lines.len() == 200))
        .await?;
    until("the problem to be shown", || {
        engine.progress().problems.iter().any(|problem| problem.contains("tight"))
    })
    .await?;
    let why = drive::lines(&mut session, "EXPLAIN WHY tight").await?;
    ensure(why.iter().any(|line| line.starts_with("tight|it is being retried (attempt ")), || {
        format!("{why:?}")
    })?;
    ensure(disk.resize("8m"), || "the small disk can't be made larger".into())?;
    until("the sink to catch up", || lines_in(small.path()).is_ok_and(|lines| lines.len() >= 200)).await?;
    let mut lines = lines_in(small.path())?;
    lines.sort();
    lines.dedup();
    ensure(lines.len() == 200, || format!("200 different lines were expected, {} are there", lines.len()))?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

/// More epochs wait for the sink than allowed. The source is held back, so the run can't take everything in,
/// and reports that instead of waiting forever.
async fn bounded_run() -> Result<()> {
    let small = folder()?;
    let Some(_disk) = SmallDisk::mount(small.path(), "64k") else {
        println!("skipped: a_bounded_run_over_a_full_disk_ends needs the right to mount a tmpfs");
        return Ok(());
    };
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let path = small.path().display();
    let sink = format!("CREATE SINK tight FROM n WITH (connector = 'file', path = '{path}', format = 'csv')");
    run_all(
        &mut session,
        &[
            "SET max_batch_rows = 100",
            "CREATE SOURCE n (x BIGINT) WITH (connector = 'datagen', rows = 300000)",
            &sink,
        ],
    )
    .await?;
    run(&mut session, "FLUSH").await?;
    match within_a_minute("the run to end", engine.finished()).await? {
        Err(error) => ensure(error.message.contains("tight"), || format!("another error: {error}"))?,
        Ok(()) => return Err("everything was said to be delivered to a full disk".into()),
    }
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

/// The journal holds the rows, and the checkpoint doesn't fit any more.
async fn full_at_checkpoint() -> Result<()> {
    let small = folder()?;
    let Some(disk) = SmallDisk::mount(small.path(), "16m") else {
        println!("skipped: a_full_disk_at_a_checkpoint needs the right to mount a tmpfs");
        return Ok(());
    };
    let data = small.path().join("data");
    let engine = Engine::builder().data(&data).start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET checkpoint_interval = 'off'",
            "CREATE TABLE t (x BIGINT, line TEXT)",
            "INSERT INTO t SELECT i, md5(i::TEXT) || md5((i + 1)::TEXT) FROM generate_series(1, 50000) AS s(i)",
        ],
    )
    .await?;
    fill(&small.path().join("ballast"), 200_000).map_err(|error| error.to_string())?;
    let Err(error) = session.execute("CHECKPOINT").await else {
        return Err("a checkpoint of more than 1 MB was written where only 200 KB were free".into());
    };
    let shown = format!("{error}");
    let parts = ["the checkpoint can't be written: writing '", "/data/", "No space left", "HINT: Free space"];
    ensure(
        error.kind == Kind::External
            && parts.iter().all(|part| shown.contains(part))
            && !shown.contains("a bug"),
        || format!("another error: {error:?}"),
    )?;
    let reasons = drive::lines(&mut session, "SELECT reason FROM millstream.checkpoints").await?;
    ensure(reasons.iter().any(|reason| reason.contains("No space left")), || format!("{reasons:?}"))?;
    ensure(disk.resize("32m"), || "the small disk can't be made larger".into())?;
    run(&mut session, "CHECKPOINT").await?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

/// Fills the disk with a file, and leaves so many bytes free.
fn fill(path: &Path, free: u64) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(free))
}
