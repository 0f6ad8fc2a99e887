//! Command lines of the benches: `--name number`.

use std::collections::BTreeMap;

use crate::Result;

/// The values given, or their defaults.
#[derive(Clone, Debug)]
pub struct Options {
    values: BTreeMap<&'static str, String>,
}

impl Options {
    /// Parses the command line. `known` has each option with its default. `--help` prints `help` and ends
    /// the program.
    pub fn read(help: &str, known: &[(&'static str, &str)]) -> Result<Options> {
        let mut values: BTreeMap<&'static str, String> =
            known.iter().map(|(name, default)| (*name, (*default).to_string())).collect();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--help" || argument == "-h" {
                println!("{help}");
                std::process::exit(0);
            }
            let name =
                known.iter().map(|(name, _)| *name).find(|name| argument.strip_prefix("--") == Some(name));
            let name = name.ok_or_else(|| format!("there is no option {argument}; see --help"))?;
            let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
            values.insert(name, value);
        }
        Ok(Options { values })
    }

    /// Returns a value as text.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Returns a value as a number.
    pub fn number(&self, name: &str) -> Result<usize> {
        let text = self.text(name);
        text.parse().map_err(|_| format!("--{name} is '{text}', but a number was expected").into())
    }
}
