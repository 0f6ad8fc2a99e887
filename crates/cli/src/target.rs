//! The target of results: standard output, a file, another program.

use std::fs::File;
use std::io::{self, Write};

use crate::page::Page;
use crate::program::Program;

/// The target of results.
#[derive(Debug, Default)]
pub enum Target {
    /// Standard output.
    #[default]
    Standard,
    /// A file, truncated at first.
    File(File),
    /// A program that reads the results.
    Program(Program),
}

impl Target {
    /// Opens the target named in `\o` or `\g`: a file, or a program after `|`.
    pub fn open(name: &str) -> io::Result<Target> {
        match name.strip_prefix('|') {
            Some(command) => Program::start(command.trim()).map(Target::Program),
            None => File::create(name).map(Target::File),
        }
    }

    /// Writes a text of complete lines. Returns false if nobody reads it any more.
    pub async fn write(&mut self, text: Vec<u8>, page: &Page) -> io::Result<bool> {
        match self {
            Target::Standard => {
                let mut written = Ok(());
                page.aside(|| {
                    let mut out = io::stdout().lock();
                    written = out.write_all(&text).and_then(|()| out.flush());
                });
                written.map(|()| true)
            }
            Target::File(file) => file.write_all(&text).map(|()| true),
            Target::Program(program) => Ok(program.write(text).await),
        }
    }

    /// Waits until the program has read everything and ended.
    pub async fn finish(self) {
        if let Target::Program(program) = self {
            program.finish().await;
        }
    }

    /// Returns true if the target is standard output.
    pub fn is_standard(&self) -> bool {
        matches!(self, Target::Standard)
    }
}
