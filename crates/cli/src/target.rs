//! Where results go: standard output, a file, another program.

use std::fs::File;
use std::io::{self, Write};

use crate::page::Page;
use crate::program::Program;

/// Where results go.
#[derive(Debug, Default)]
pub enum Target {
    /// Standard output.
    #[default]
    Standard,
    /// A file, which was emptied.
    File(File),
    /// A program that reads them.
    Program(Program),
}

impl Target {
    /// What `\o` and `\g` name: a file, or after `|` a program.
    pub fn open(name: &str) -> io::Result<Target> {
        match name.strip_prefix('|') {
            Some(command) => Program::start(command.trim()).map(Target::Program),
            None => File::create(name).map(Target::File),
        }
    }

    /// Writes a text of whole lines. False: nobody reads it any more.
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

    /// Waits until what was written has been taken.
    pub async fn finish(self) {
        if let Target::Program(program) = self {
            program.finish().await;
        }
    }

    /// Whether it is standard output.
    pub fn is_standard(&self) -> bool {
        matches!(self, Target::Standard)
    }
}
