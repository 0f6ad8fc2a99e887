//! Conformance tests of all shipped sinks: killed between any two calls.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_connect::connectors::Files;
use millstream_connect::{Options, SinkSpec};
use millstream_testkit::conformance::{Kill, Place, columns, survives_kills};
use millstream_testkit::drive::{self, Result};
use millstream_testkit::postgres::Postgres;

pub const ALL: &[super::Scenario] = &[
    ("file_sinks_survive_kills_between_calls", || drive::block_on(files())),
    ("rolled_file_sinks_survive_kills_between_calls", || drive::block_on(rolled_files())),
    ("the_postgres_sink_survives_kills_between_calls", || drive::block_on(postgres())),
];

fn spec(options: BTreeMap<String, String>) -> SinkSpec {
    SinkSpec {
        name: "k".into(),
        columns: columns(),
        append_only: true,
        key: Some(vec![0]),
        auto_pace: false,
        options: Options(options),
    }
}

/// A folder of text files.
struct Folder(PathBuf);

impl Place for Folder {
    async fn clear(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.0).or(Ok(()))
    }

    async fn read(&self) -> Result<Vec<i64>> {
        let lines = super::lines_in(&self.0)?;
        let number = |line: &String| -> Result<i64> {
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            digits.parse().map_err(|_| format!("no number is in {line}"))
        };
        lines.iter().map(number).collect()
    }
}

async fn each(all: &[&[(&str, &str)]]) -> Result<()> {
    let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
    let folder = Folder(temporary.path().join("out"));
    for of in all {
        let path = ("path", folder.0.to_str().unwrap_or_default());
        let options = of.iter().chain([&path]).map(|(name, value)| (name.to_string(), value.to_string()));
        let spec = spec(options.collect());
        survives_kills(&Files, &spec, &folder, &[Kill::Crash, Kill::Drop])
            .await
            .map_err(|error| format!("{of:?}: {error}"))?;
    }
    Ok(())
}

async fn files() -> Result<()> {
    each(&[
        &[("format", "text")],
        &[("format", "json"), ("filename", "x-{epoch}.json")],
        &[("format", "upsert_json"), ("primary_key", "n")],
    ])
    .await
}

async fn rolled_files() -> Result<()> {
    each(&[
        &[("format", "text"), ("roll_interval", "2 seconds")],
        &[("format", "text"), ("roll_interval", "3 ms")],
        &[("format", "json"), ("roll_size", "40 B")],
        &[("format", "text"), ("roll_size", "1 MiB")],
        &[("format", "upsert_json"), ("primary_key", "n"), ("roll_interval", "1 hour")],
    ])
    .await
}

/// A table.
struct Table<'a>(&'a Postgres);

impl Place for Table<'_> {
    async fn clear(&self) -> Result<()> {
        self.0.query("DROP TABLE IF EXISTS public.t, millstream_sinks").await.map(drop)
    }

    async fn read(&self) -> Result<Vec<i64>> {
        let rows = self.0.query("SELECT n FROM public.t").await?;
        rows.iter().map(|row| row.parse().map_err(|_| format!("{row} is no number"))).collect()
    }
}

async fn postgres() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let options = [
        ("url".to_string(), postgres.url(postgres.port)),
        ("table".to_string(), "public.t".to_string()),
        ("create".to_string(), "true".to_string()),
    ];
    // A forgotten sink would leave its connection open, unlike a crash.
    survives_kills(&millstream_postgres::Postgres, &spec(options.into()), &Table(&postgres), &[Kill::Drop])
        .await
}
